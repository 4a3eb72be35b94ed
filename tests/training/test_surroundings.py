"""What a run records of its machine and its code: true where it can be checked otherwise, and honest where nothing is known."""

import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import __version__
from amalgam_tf.training import surroundings

ROOT = Path(__file__).parents[2]


def test_record_is_plain_data_about_this_process():
    record = surroundings.record(1)
    assert json.loads(json.dumps(record)) == record
    assert record["versions"] == {
        "python": sys.version.split()[0],
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "amalgam_tf": __version__,
    }
    machine = record["machine"]
    assert machine["cores"] == len(os.sched_getaffinity(0)) and machine["gpus"] == []
    total = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert machine["memory_gib"] == pytest.approx(total / 2**20, abs=0.06)
    assert set(machine) == {"cpu", "cores", "memory_gib", "gpus", "system"}  # and so no name of the host or of who ran it


def test_workers_are_counted():
    assert surroundings.hardware(3) == f"3 workers, the first on {surroundings.hardware(1)}"


def test_processor(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Fast  CPU(R) 3000\nmodel name\t: other\n")
    assert surroundings.cpu(tmp_path / "cpuinfo") == "Fast CPU(R) 3000"
    assert surroundings.cpu(tmp_path / "none") not in ("", None)
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 48\n")
    assert surroundings.cpu(tmp_path / "arm") not in ("", None)


class TestCommit:
    @pytest.fixture
    def installed(self, tmp_path, monkeypatch):
        """The package below a repository, and a function that calls git there."""

        def git(*arguments):
            names = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
            return subprocess.run(["git", *names, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

        package = tmp_path / "lib" / "amalgam_tf"
        package.mkdir(parents=True)
        shutil.copy(ROOT / "amalgam_tf/__init__.py", package)
        (tmp_path / "mine.py").write_text("x = 1\n")
        monkeypatch.setattr(surroundings, "_PACKAGE", package)
        return git

    def test_of_its_own_checkout(self, installed):
        installed("init"), installed("add", "."), installed("commit", "-m", "a")
        assert surroundings.commit() == installed("rev-parse", "--short", "HEAD")

    def test_not_of_the_repository_around_an_installed_package(self, installed):
        installed("init"), installed("add", "mine.py"), installed("commit", "-m", "a")
        assert surroundings.commit() == f"version {__version__}"

    def test_without_a_repository_or_git(self, installed, monkeypatch):
        assert surroundings.commit() == f"version {__version__}"
        monkeypatch.setenv("PATH", "")
        assert surroundings.commit() == f"version {__version__}"
