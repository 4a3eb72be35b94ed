"""The appendix of pages: every command once, what all runs share said once, what they differ in by run."""

import pytest

from amalgam_tf import __version__
from amalgam_tf.report import provenance
from amalgam_tf.report.runs import FinishedRun
from amalgam_tf.training import surroundings
from tests.report import fakes

MACHINE = {"cpu": "Fast CPU 3000", "cores": 8, "memory_gib": 62.7, "gpus": [], "system": "Linux x86_64"}
VERSIONS = {"python": "3.11.2", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.3.1", "amalgam_tf": "0.1.0"}


def run(seed=0, **more) -> FinishedRun:
    results = fakes.student(0.9, seed=seed) | {"machine": MACHINE, "versions": VERSIONS, "phase_seconds": {"a": 100.0, "b": 230.0}}
    return FinishedRun(f"runs/{seed}", results | more)


def rows(lines):
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_what_all_share_is_said_once():
    lines = provenance.lines([run(0), run(1)], "compare --runs=x")
    assert "* commit: abc1234" in lines and "* precision: float32" in lines
    assert "* hardware: Fast CPU 3000, 8 cores, 62.7 GiB memory, no GPU, Linux x86_64" in lines
    assert "* versions: Python 3.11.2, TensorFlow 2.21.0, Keras 3.15.1, NumPy 2.3.1, amalgam_tf 0.1.0" in lines
    assert "* wall time of all runs together: 21.0 min" in lines  # 600 s and 660 s
    assert rows(lines)[0] == ["run", "seed", "wall time", "of which training"]
    assert rows(lines)[2:] == [["`runs/0`", "0", "10.0 min", "5.5 min"], ["`runs/1`", "1", "11.0 min", "5.5 min"]]


def test_what_they_differ_in_is_a_column():
    lines = provenance.lines(
        [run(0), run(1, commit="fffffff", machine=MACHINE | {"gpus": ["A100", "A100"], "cores": 1, "memory_gib": None})], "c"
    )
    assert rows(lines)[0][4:] == ["commit", "hardware"] and not any(line.startswith(("* commit", "* hardware")) for line in lines)
    assert [r[4] for r in rows(lines)[2:]] == ["abc1234", "fffffff"]
    assert rows(lines)[3][5] == "Fast CPU 3000, 1 core, A100, A100, Linux x86_64"


def test_every_command_stands_once_and_exactly():
    first, second = run(0), run(1)
    lines = provenance.lines([first, second, run(0)], "compare --runs='a b'")
    for command in (first.results["command"], second.results["command"], "compare --runs='a b'"):
        assert lines.count(command) == 1
    assert lines.count("```sh") == 2 and lines.count("```") == 2


def test_the_page_of_a_run_does_not_say_its_command_twice():
    only = run()
    lines = provenance.lines([only], only.results["command"])
    assert lines.count(only.results["command"]) == 1 and "This page was written by" not in lines


def test_older_results_say_what_they_know():
    old = FinishedRun("runs/old", fakes.student(0.9))
    lines = provenance.lines([old], "c")
    assert "* hardware: 2 x CPU" in lines and "* versions: not recorded" in lines and rows(lines)[2] == ["`runs/old`", "0", "10.0 min", "-"]


def test_several_workers():
    said = provenance.hardware({"hardware": "2 workers, the first on 2 x x86_64 CPU", "machine": MACHINE})
    assert said == "2 workers, the first: Fast CPU 3000, 8 cores, 62.7 GiB memory, no GPU, Linux x86_64"


@pytest.mark.parametrize("commit", ["abc1234", f"version {__version__}"])
def test_the_page_says_what_code_wrote_it(monkeypatch, commit):
    monkeypatch.setattr(surroundings, "commit", lambda: commit)
    assert provenance.lines([], "c")[-2] == f"Page: amalgam_tf {__version__}" + (", commit abc1234." if commit == "abc1234" else ".")


@pytest.mark.parametrize(("seconds", "said"), [(48.4, "48 s"), (119, "119 s"), (120, "2.0 min"), (7199, "120.0 min"), (9000, "2.5 h")])
def test_duration(seconds, said):
    assert provenance.duration(seconds) == said
