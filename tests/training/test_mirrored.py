"""`--strategy=mirrored` on two logical CPUs, in processes of its own: what one device does, up to float round-off."""

import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

from amalgam_tf.training import state


def test_two_logical_devices_give_the_single_device_result(tmp_path):
    """MirroredStrategy on two CPU devices against one device: the same losses and weights (SGD, synchronized batch norm)."""
    one, two = distributed("net", tmp_path)
    assert_same_rows(one / "run", two / "run", rtol=1e-5)
    weights, others = (np.load(folder / "weights.npz") for folder in (one, two))
    assert len(weights.files) > 5
    for name in weights.files:
        np.testing.assert_allclose(weights[name], others[name], rtol=2e-4, atol=2e-6, err_msg=name)
    losses = [json.loads(line)["loss"] for line in (one / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[0] != losses[-1]


def test_two_logical_devices_balance_tasks_like_one(tmp_path):
    """SOKA's step (5): the norms are those of the global batch's gradients, and w is moved once."""
    one, two = distributed("balance", tmp_path)
    assert_same_rows(one / "run", two / "run", rtol=1e-3)
    weights, others = (np.load(folder / "weights.npz")["task_weights"] for folder in (one, two))
    np.testing.assert_allclose(weights, others, rtol=1e-4)
    assert weights.sum() == pytest.approx(1) and abs(weights[0] - 0.5) > 1e-3


def test_two_logical_devices_generate_like_one(tmp_path):
    """Dual-GAN, all of it: entropies and batch-norm statistics are the global batch's, codes are shared out, choices are the same."""
    one, two = distributed("generated", tmp_path)
    assert_same_rows(one / "run", two / "run", rtol=1e-4)
    rows = [json.loads(line) for line in (one / "run" / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(r["phase"] for r in rows)) == ["generator", "block/b2", "block/b3", "finetune"]
    weights, others = (np.load(folder / "weights.npz") for folder in (one, two))
    assert {name.partition("|")[0] for name in weights.files} == {"generator", "gate", "student", "filter", "tail"}
    for name in weights.files:
        np.testing.assert_allclose(weights[name], others[name], rtol=1e-3, atol=1e-5, err_msg=name)
    mine, theirs = (state.read_json(folder / "results.json") for folder in (one, two))
    assert mine["branches"] == theirs["branches"] and mine["labels"] == theirs["labels"]
    for block, each in mine["block_losses"].items():
        for stream, terms in each.items():
            assert terms["loss"] == pytest.approx(theirs["block_losses"][block][stream]["loss"], rel=1e-3)


@pytest.mark.whole
def test_two_logical_devices_amalgamate_like_one(tmp_path):
    """A pool of teachers and its student: the same losses (Adam carries round-off on into the weights), and the same choices."""
    one, two = distributed("student", tmp_path)
    for part in ("teachers/teacher1", "teachers/teacher2", "."):
        assert_same_rows(one / "run" / part, two / "run" / part, rtol=1e-4)
    assert len({json.dumps(state.read_json(folder / "run" / "results.json")["branches"]) for folder in (one, two)}) == 1


def distributed(what, tmp_path):
    """Runs distributed.py on one device, then on two; returns their folders."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "2"}
    folders = [tmp_path / mode for mode in ("one", "mirrored")]
    for folder in folders:
        command = [sys.executable, "tests/training/distributed.py", folder.name, what, str(folder)]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
    return folders


def assert_same_rows(one, two, rtol):
    """The same measurements at the same steps, up to the order in which float32 means are summed."""
    mine, others = ([json.loads(line) for line in (w / "metrics.jsonl").read_text().splitlines()] for w in (one, two))
    assert mine and [(r["phase"], r["step"]) for r in mine] == [(r["phase"], r["step"]) for r in others]
    for row, other in zip(mine, others, strict=True):
        values = {k: v for k, v in row.items() if isinstance(v, float)}
        assert values and set(row) == set(other)
        np.testing.assert_allclose(list(values.values()), [other[k] for k in values], rtol=rtol, err_msg=str(list(values)))
