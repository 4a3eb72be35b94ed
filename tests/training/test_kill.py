"""kill -9 in a phase, between phases, and in the middle of a save: the same command again ends with the same bits."""

import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

from amalgam_tf.training import state

ROOT = Path(__file__).parents[2]
# One after the other, each on what the last left: saving the first teacher, inside the first block, behind the second.
MOMENTS = ("save:3", "step:10", "phase:2")


def command(workdir):
    return [
        "--config=configs/quickstart.py:student,smoke",
        f"--workdir={workdir}",
        "--config.save_every_steps=1",
        "--config.block.epochs=0.8",
        "--strategy=one",
    ]


def python(*arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)


def newest(folder):
    return state.read_arrays(sorted((folder / "checkpoints").glob("*.npz"))[-1])


@pytest.mark.slow
def test_killed_again_and_again_ends_bit_identical(tmp_path):
    whole = python("-m", "amalgam_tf.bin.train", *command(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr[-2000:]
    for i, moment in enumerate(MOMENTS):
        killed = python(Path(__file__).with_name("killer.py"), moment, *command(tmp_path / "killed"))
        assert killed.returncode == -9, (moment, killed.stdout[-1500:], killed.stderr[-1500:])
        if moment.startswith("save"):
            left = [p for p in (tmp_path / "killed").rglob("checkpoints/.*.npz")]
            assert left, "the kill was meant to leave half a checkpoint behind"
        print(i, moment, killed.stdout.splitlines()[-1] if killed.stdout else "")
    again = python("-m", "amalgam_tf.bin.train", *command(tmp_path / "killed"))
    assert again.returncode == 0, again.stderr[-2000:]
    assert "resuming" in again.stdout
    (arrays, record), (expected, expected_record) = newest(tmp_path / "killed"), newest(tmp_path / "whole")
    assert record["progress"]["finished"] == expected_record["progress"]["finished"] == ["block/b1", "block/b2", "block/b3", "finetune"]
    assert set(arrays) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)
    results = [state.read_json(tmp_path / w / "results.json") for w in ("whole", "killed")]
    assert results[0]["test"] == results[1]["test"] and results[0]["branches"] == results[1]["branches"]
    assert not list((tmp_path / "killed").rglob("checkpoints/.*.npz"))
