"""README tells what results/ holds: its tables are those that the reports make from the committed results."""

import json
from pathlib import Path
import re

import pytest

from amalgam_tf import data, published, report
from amalgam_tf.methods import load_config
from amalgam_tf.tasks import parse
from tests.loading import tool

ROOT = Path(__file__).parents[1]
RUNS = {  # folder of results -> its runs
    "voc2012_part": ["seed*/*"],
    "customize_part": ["seed*/**"],
    "soka_scenes": ["seed*/*", "teachers/*"],
    "soka_no_auxiliary": ["seed*/*"],
    "soka_rgbd": ["seed*/*", "teachers/*"],
    "dgan_cifar10": ["seed*/*", "teachers/*"],
}
FACTS = {
    "3.11": "Python",
    "40.11": "parameters of a task-bank teacher: tests/models/test_encoder_decoder.py",
    "56.56": "of a student of two",
    **dict.fromkeys(("92.9", "92.1", "93.8", "0.99", "0.2"), "AFK's tables: published/notes.json and spec"),
    "0.5": "the threshold of an accuracy",
    "0.01": "nats of branch.tolerance",
}


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text()


def test_tables_are_made_from_results(readme):
    with tool("readme_tables") as tables:
        assert tables.rewritten(readme) == readme, "python tools/readme_tables.py"


@pytest.mark.parametrize("folder", sorted(RUNS))
def test_results_are_made_from_their_runs(folder, tmp_path, monkeypatch):
    """`compare` on the committed runs writes the committed tables."""
    monkeypatch.chdir(ROOT)
    report.compare([f"results/{folder}/{place}" for place in RUNS[folder]], tmp_path, summary=folder)
    written = [p for p in sorted(tmp_path.iterdir()) if p.name.startswith(folder) and p.suffix in (".md", ".csv")]
    assert len(written) >= 2
    for path in written:
        assert path.read_text() == (ROOT / "results" / folder / path.name).read_text(), path.name


def test_numbers_outside_the_tables_are_facts_about_the_papers(readme):
    """What was measured stands in tables; every other decimal number is listed above, with where it is from."""
    prose = re.sub(r"<!-- [a-z ]+ -->\n.*?<!-- end -->|^```.*?^```", "", readme, flags=re.S | re.M)
    assert set(re.findall(r"\d+\.\d+", prose)) == set(FACTS)
    notes = str(published.notes_of("afk_table1/TargetRes50"))
    assert "92.92" in notes and "0.99" in notes


def test_the_config_of_ones_own_loads(readme, tmp_path):
    """The one that README writes out, beside the two teachers it names."""
    (code,) = (c for c in re.findall(r"^```python\n(.*?)^```", readme, re.S | re.M) if "def get_config" in c)
    (tmp_path / "mine.py").write_text(code)
    config = load_config(str(tmp_path / "mine.py"))
    assert config.method == "afk" and set(config.data) == set(data.DEFAULTS) and config.data.test == data.NO_TEST
    assert [w.task for w in parse(config.tasks)] == ["dog", "horse"] and list(config.teachers) == ["farm", "pets"]


def test_figures_of_the_readme_exist(readme):
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme)
    assert len(shown) >= 3 and all((ROOT / place).is_file() for place in shown)


@pytest.mark.parametrize(
    "path", [p for p in sorted((ROOT / "results").rglob("*.json")) if p.name not in ("benchmark.json", "config.json")], ids=str
)
def test_every_results_file_says_how_it_was_made(path):
    results = json.loads(path.read_text())
    assert results["command"].startswith("python -m amalgam_tf.bin.") and results["commit"] and isinstance(results["seed"], int)
    if {"constant", "mean_map"} <= set(results["test"]):  # the trivial predictors of maps are networks of their own
        return
    for who, measured in results["test"].items():
        if isinstance(measured, dict):
            for task, row in measured["per_task"].items():
                assert "all_negative_accuracy" in row or "majority_rate" in row, (who, task)
