"""`--strategy=multi_worker` as two processes on loopback: the single process's losses, the same bits on both workers, a lost worker."""

import json
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from amalgam_tf.errors import UserError
from amalgam_tf.training import cluster
from tests.training import worker

ROOT = Path(__file__).parents[2]
# Means over a batch are summed in another order: float32 round-off, which SGD and Adam carry on; measured 3e-7 after 5 steps.
TOLERANCE = {"rtol": 1e-4}


def tf_config(addresses, index=0, kind="worker"):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": kind, "index": index}})


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def workers(*command):
    """Runs a command as two workers; returns exit code, standard output and standard error of each."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "TF_CONFIG": tf_config(addresses, rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [p.communicate(timeout=400) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, *t) for p, t in zip(processes, told, strict=True)]


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_losses(workdir, expected):
    mine, theirs = rows(workdir), rows(expected)
    assert [(r["phase"], r["step"]) for r in mine] == [(r["phase"], r["step"]) for r in theirs]
    for key in theirs[0]:
        if key != "phase":
            np.testing.assert_allclose([r.get(key, 0) for r in mine], [r.get(key, 0) for r in theirs], **TOLERANCE, err_msg=key)


def ends(told, start="end "):
    """Every line of each worker that starts so."""
    return [[line for line in out.splitlines() if line.startswith(start)] for _, out, _ in told]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of two workers."""
    folder = tmp_path_factory.mktemp("two_workers")
    told = workers(ROOT / "tests/training/worker.py", "whole", folder)
    assert [t[0] for t in told] == [0, 0], told
    return folder, told


class TestTwoProcesses:
    def test_single_process_losses(self, whole, tmp_path):
        worker.train(tmp_path)
        assert_same_losses(whole[0] / "whole", tmp_path)
        losses = [r["loss"] for r in rows(tmp_path)]
        # Both phases begin with the same images: what the first one learnt shows far outside the tolerance.
        assert len(losses) == 8 and abs(losses[4] / losses[0] - 1) > 10 * TOLERANCE["rtol"]

    def test_hash_identical_weights_and_the_chiefs_decisions(self, whole):
        (first,), (second,) = ends(whole[1])
        assert first == second
        _, digest, rank, third, kept = first.split()
        assert len(digest) == 64 and rank == "0" and third == repr(1 / 3) and float(kept) == pytest.approx(10_000)

    def test_only_the_chief_writes(self, whole):
        chief, other = ends(whole[1], "wrote ")
        assert other == []
        assert all(any(name in line for line in chief) for name in ("config", "decisions", "metrics", ".lock", "rank", "00000016"))

    def test_a_refusal_reaches_all_and_nothing_is_left_behind(self, whole):
        for rank, told in enumerate(ends(whole[1], "refused: ")):
            jit, file, config = told
            assert "--jit_compile works on one device only" in jit and "file0 cannot be used" in file
            assert ("(different: a.b): start all workers with the same command" in config) == (rank == 1)
        assert ends(whole[1], "scratch ") == [["scratch True"]] * 2 and ends(whole[1], "gone ") == [["gone True"]] * 2

    def test_ctrl_c_and_kill_lose_nothing(self, whole):
        folder, told = whole
        (code, _, error), (killed, *_) = stopped = workers(ROOT / "tests/training/worker.py", "stopped", folder)
        assert killed == -9 and code == 2, stopped
        assert error.strip().splitlines()[-1].startswith("error: another worker was lost or has stopped: start all workers again")
        assert "Traceback" not in error
        # Ctrl-C came in step 3 of worker 1; both stop where they next read results.
        assert [line[0].partition("; at ")[2] for line in ends(stopped, "stopped: ")] == ["one 4", "one 4"]
        shutil.copytree(folder / "parts", folder / "alone")
        worker.train(folder / "alone")  # one process may go on where two stopped
        assert_same_losses(folder / "alone", folder / "whole")
        resumed = workers(ROOT / "tests/training/worker.py", "resumed", folder)
        assert [t[0] for t in resumed] == [0, 0], resumed
        assert "resuming" in resumed[0][1] and "(two 4)" in resumed[0][1] and "resuming" not in resumed[1][1]
        assert ends(resumed) == ends(told)
        assert rows(folder / "parts") == rows(folder / "whole")


@pytest.mark.whole
def test_a_whole_amalgamation_with_its_teachers(tmp_path):
    """The train binary: both teachers and the student against one process, by the same config."""
    flags = ["-m", "amalgam_tf.bin.train", "--config=configs/quickstart.py:student,smoke"]
    told = workers(*flags, "--strategy=multi_worker", f"--workdir={tmp_path / 'two'}")
    assert [t[0] for t in told] == [0, 0], told
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    one = subprocess.run(
        [sys.executable, *flags, "--strategy=one", f"--workdir={tmp_path / 'one'}"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert one.returncode == 0, one.stderr
    for part in ("teachers/teacher1", "teachers/teacher2", "."):
        assert_same_losses(tmp_path / "two" / part, tmp_path / "one" / part)
        assert (tmp_path / "two" / part / "report.md").is_file()
    assert told[1][1].count("\n") == 1  # only that it waits: the chief tells everything else
    names = [sorted(str(p.relative_to(tmp_path / w)) for p in (tmp_path / w).rglob("*") if "tb/" not in str(p)) for w in ("one", "two")]
    assert names[0] == names[1]


class TestPlace:
    def test_ranks(self, monkeypatch):
        monkeypatch.setenv("TF_CONFIG", tf_config(["a:1", "b:2"], 1))
        assert cluster.place() == cluster.Place(1, ("a:1", "b:2"))
        both = {"cluster": {"worker": ["b:2", "c:3"], "chief": ["a:1"]}, "task": {"type": "worker", "index": 1}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(both))
        assert cluster.place() == cluster.Place(2, ("a:1", "b:2", "c:3")) and "worker 2 of 3 at c:3" == str(cluster.place())

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("", "needs TF_CONFIG in the environment of every worker"),
            ("{", "is not JSON with a cluster and a task"),
            ("[]", "is not JSON with a cluster and a task"),
            ('{"cluster": {"worker": ["a:1"]}}', "is not JSON with a cluster and a task"),
            (tf_config(["a:1"], 1), "the index 1, but its cluster has 1 of worker"),
            (tf_config(["a:1"], -1), "the index -1"),
            (tf_config(["a:1"], 0, "ps"), "the task 'ps', but its cluster has the jobs worker"),
            (tf_config(["a"]), "'a', which is not host:port"),
            (tf_config(["a:1", "a:1"]), "names one address twice"),
        ],
    )
    def test_one_sentence(self, monkeypatch, text, sentence):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(UserError, match="TF_CONFIG") as error:
            cluster.place()
        assert sentence in str(error.value) and "for example" in str(error.value) and "\n" not in str(error.value)

    def test_told_before_tensorflow_is_imported(self, tmp_path):
        env = {**{k: v for k, v in os.environ.items() if k != "TF_CONFIG"}, "PYTHONPATH": str(ROOT)}
        flags = ["--config=configs/quickstart.py:student,smoke", f"--workdir={tmp_path / 'run'}", "--strategy=multi_worker"]
        command = [sys.executable, "-X", "importtime", "-m", "amalgam_tf.bin.train", *flags]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 2 and "error: --strategy=multi_worker needs TF_CONFIG" in done.stderr
        assert not any(line.endswith(" tensorflow") for line in done.stderr.splitlines()) and not (tmp_path / "run").exists()
