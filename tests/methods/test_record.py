"""What every run records beside its results, whatever its method."""

import json
import sys
import types

from ml_collections import ConfigDict
import pytest

from amalgam_tf import methods
from amalgam_tf.training import surroundings
from tests.report import fakes

LATER = {"hardware": "another machine", "machine": {}, "versions": {"python": "4.0"}}


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Runs a method that trains nothing; returns its results.json."""
    results = fakes.student(0.9)
    own = {k: results[k] for k in ("method", "tasks", "teachers", "test", "sizes", "branches", "block_losses", "branch_split")}
    monkeypatch.setitem(sys.modules, "amalgam_tf.methods.instant", types.SimpleNamespace(train=lambda config, run: own))
    config = ConfigDict({"method": "instant", "seed": 0, "precision": "float32", "published_row": "", "command": ""})

    def run() -> dict:
        methods._run_one(config, tmp_path, "one", "python -m amalgam_tf.bin.train --config=x", False)
        return json.loads((tmp_path / "results.json").read_text())

    return run


def test_machine_versions_and_commit_are_recorded(finished, tmp_path):
    results = finished()
    assert {k: results[k] for k in ("commit", *LATER)} == {"commit": surroundings.commit(), **surroundings.record(1)}
    assert results["versions"]["tensorflow"] in (tmp_path / "report.html").read_text()


def test_the_same_command_after_the_end_tells_of_the_machine_that_did_the_work(finished, monkeypatch):
    first = finished()
    monkeypatch.setattr(surroundings, "commit", lambda: "fffffff")
    monkeypatch.setattr(surroundings, "record", lambda workers: LATER)
    assert finished() == first
