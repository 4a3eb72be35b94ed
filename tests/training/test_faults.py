"""Faults of a run as a user meets them, through `methods.run`: one clear sentence, and the same command goes on with nothing lost.

Kills are in test_kill.py; Ctrl-C and exit codes in tests/bin/test_binaries.py; single functions in test_loop.py and test_state.py.
"""

import contextlib
import json
import os
from pathlib import Path
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import methods
from amalgam_tf.errors import UserError
from amalgam_tf.training import loop, state

ROOT = Path(__file__).parents[2]
STEPS, SAVED = 9, 2  # of the tiny run; it saves behind every second step


def config(**changes):
    made = methods.load_config(f"{ROOT / 'configs' / 'quickstart.py'}:teacher1,smoke")
    made.update({"epochs": 2, "save_every_steps": SAVED, "log_every_steps": SAVED})
    made.update_from_flattened_dict(changes)
    return made


def train(workdir, **changes):
    return methods.run(config(**changes), workdir)


def checkpoints(workdir):
    return sorted((workdir / "checkpoints").glob("[0-9]*.npz"))


def weights(workdir):
    """Digest of the last state, after a check that the run is whole."""
    assert not [p.name for p in workdir.rglob(".*") if p.name != ".lock"], "an unfinished file was left behind"
    arrays, record = state.read_arrays(checkpoints(workdir)[-1])
    assert record["progress"]["finished"] == ["train"] and record["progress"]["total"] == STEPS
    return state.arrays_digest(arrays)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("faults") / "whole"
    train(workdir)
    return workdir


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it, to be harmed."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def refuses(workdir, sentence, **changes):
    """The run fails with one sentence that matches."""
    with pytest.raises(UserError, match=sentence) as caught:
        train(workdir, **changes)
    assert "\n" not in str(caught.value)


class TestDisk:
    @pytest.fixture
    def disk(self, tmp_path):
        """A folder on a disk of 2 MB; where mounting is not permitted, files may not grow beyond what is left instead."""
        folder = tmp_path / "disk"
        folder.mkdir()
        mounted = (
            shutil.which("mount")
            and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode
        )

        @contextlib.contextmanager
        def only(left):
            if mounted:
                space = os.statvfs(folder)
                (folder / "ballast").write_bytes(bytes(space.f_bavail * space.f_frsize - left))
                yield
                (folder / "ballast").unlink()
            else:
                soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (left // 2, hard))
                yield
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        yield folder, only
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)

    def test_full_while_saving(self, disk, whole):
        folder, only = disk
        workdir, size = folder / "run", (whole / "checkpoints" / "000000008-000.npz").stat().st_size
        with only(left=int(1.6 * size)):  # one checkpoint fits, two do not
            refuses(
                workdir, r"run/checkpoints/00000000\d-000.npz cannot be written \((No space left on device|File too large)\): free space"
            )
        assert not list((workdir / "checkpoints").glob(".*"))
        for path in checkpoints(workdir):
            state.read_arrays(path)  # what was saved before is whole
        train(workdir)
        assert weights(workdir) == weights(whole)

    def test_full_from_the_start(self, disk):
        folder, only = disk
        with only(left=0):
            refuses(folder / "run", r"run/config.json cannot be written")
        assert not (folder / "run" / "config.json").exists()

    @pytest.mark.parametrize("name", ["metrics.jsonl", "train.log"])
    def test_full_while_telling(self, tmp_path, name):
        (tmp_path / name).symlink_to("/dev/full")
        refuses(tmp_path, rf"{name} cannot be written \(No space left on device\): free space .* same command again")

    def test_tensorboard_too(self, tmp_path, monkeypatch):
        """TensorFlow's own error for a full disk has the class of that for full memory."""

        def full(*_, **__):
            raise tf.errors.ResourceExhaustedError(None, None, "tb/events.out; No space left on device\n\tFailed to flush 11 events")

        monkeypatch.setattr(tf.summary, "scalar", full)
        refuses(tmp_path, rf"{tmp_path} \(train\) cannot be written \(No space left on device\)")

    def test_a_file_in_its_place(self, tmp_path):
        (tmp_path / "file").write_text("")
        refuses(tmp_path / "file", r"the workdir .*file cannot be used \(File exists\): choose another --workdir")
        refuses(tmp_path / "file" / "run", r"the workdir .*run cannot be used \(Not a directory\): choose another --workdir")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "checkpoints").write_text("")
        refuses(tmp_path / "run", r"run/checkpoints cannot be written \(File exists\)")


class TestDamage:
    def test_newest_checkpoint_falls_back_to_the_one_before(self, run, whole, capsys):
        path = checkpoints(run)[-1]
        content = bytearray(path.read_bytes())
        middle = slice(len(content) // 2, len(content) // 2 + 8)
        content[middle] = bytes(255 - b for b in content[middle])
        path.write_bytes(content)
        capsys.readouterr()
        train(run)
        said = capsys.readouterr().out
        assert f"checkpoint {path.name} is damaged (BadZipFile); using the one before" in said and "at step 8 (train 8)" in said
        assert weights(run) == weights(whole)
        old, new = (state.read_json(r / "results.json") for r in (whole, run))
        assert old["test"] == new["test"] and (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()

    def test_decisions_that_are_no_json(self, run):
        (run / "decisions.json").write_text('{"format": 1, "decis')
        refuses(run, r"run/decisions.json is not readable JSON .*: restore it from a copy, or start again in a new --workdir")


class TestNewerFormat:
    SENTENCE = "has format 99, newer than the 1 this version reads: upgrade amalgam_tf"

    def test_checkpoint(self, run):
        path = checkpoints(run)[-1]
        arrays, record = state.read_arrays(path)
        state.write_arrays(path, arrays, {**record, "format": 99})
        refuses(run, rf"{path.name} {self.SENTENCE}")

    def test_decisions(self, run):
        self.make_newer(run / "decisions.json")
        refuses(run, rf"decisions.json {self.SENTENCE}")

    def test_card_of_a_teacher(self, run):
        self.make_newer(run / "teacher" / "card.json")
        student = methods.load_config(f"{ROOT / 'configs' / 'quickstart.py'}:student,smoke")
        for entry in student.teachers.values():
            entry.path = str(run)
        with pytest.raises(UserError, match=rf"card.json {self.SENTENCE}"):
            methods.run(student, run.with_name("student"))

    @staticmethod
    def make_newer(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


class TestWorkdir:
    def test_another_configuration(self, run):
        refuses(run, r"run was made with another configuration \(different: epochs\): use the same one, or another --workdir", epochs=3)
        loop.Run(run, config().to_dict()).close()  # the right one is not locked out

    def test_two_processes(self, run):
        script = "import fcntl, sys, time; f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
        other = subprocess.Popen([sys.executable, "-c", script, run / ".lock"], stdout=subprocess.PIPE)
        other.stdout.readline()
        before = (run / "train.log").read_bytes()
        refuses(run, r"another process is running in .*run: wait for it, or choose another --workdir")
        assert (run / "train.log").read_bytes() == before
        other.kill()
        other.wait()
        loop.Run(run, config().to_dict()).close()  # a killed process holds no lock


def test_nan_loss(tmp_path):
    wrong = {"optimizer.learning_rate": 1e30, "save_every_steps": 1}
    sentence = r"train: loss became (nan|inf) between steps (\d) and \2: lower its optimizer.learning_rate, in a new --workdir"
    refuses(tmp_path, sentence, **wrong)
    _, record = state.read_arrays(checkpoints(tmp_path)[-1])
    assert 0 < record["progress"]["total"] < STEPS and "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    refuses(tmp_path, sentence, **wrong)  # the last checkpoint loads; the same command ends in the same place
    mended = {**wrong, "optimizer.learning_rate": 1e-3}
    refuses(tmp_path, r"another configuration \(different: optimizer.learning_rate\): .* another --workdir", **mended)


def test_out_of_memory(tmp_path, whole, monkeypatch):
    """Both allocations are really asked for, and refused."""
    make = loop.step_function
    for exhaust, saved in ((lambda: tf.zeros((2**30, 2**20)), 2), (lambda: np.zeros(2**58), 4)):

        def exhausting(*args, exhaust=exhaust, **kwargs):
            step, steps = make(*args, **kwargs), iter(range(1, STEPS + 1))
            return lambda batch: exhaust() if next(steps) == 4 else step(batch)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "step_function", exhausting)
            refuses(
                tmp_path, rf"memory ran out in {tmp_path} \(train\): lower batch_size .*, or free memory and run the same command again"
            )
        assert state.read_arrays(checkpoints(tmp_path)[-1])[1]["progress"]["step"] == saved
    train(tmp_path)
    assert weights(tmp_path) == weights(whole)
