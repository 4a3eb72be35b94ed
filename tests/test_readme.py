"""README tells what results/ holds: its tables are those that the report makes from the committed results."""

import json
from pathlib import Path

import pytest

from amalgam_tf import report

ROOT = Path(__file__).parents[1]
SHOWN = ("quickstart/student.json", "voc2012_part/student.json")


@pytest.mark.parametrize("name", SHOWN)
def test_tables_are_made_from_results(name):
    results = json.loads((ROOT / "results" / name).read_text())
    assert "\n".join(report.table(results)) in (ROOT / "README.md").read_text(), f"README.md does not show results/{name}"


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("*.json")), ids=str)
def test_every_results_file_says_how_it_was_made(path):
    results = json.loads(path.read_text())
    assert results["command"].startswith("python -m amalgam_tf.bin.") and results["commit"] and isinstance(results["seed"], int)
    for who, measured in results["test"].items():
        if isinstance(measured, dict):
            for task, row in measured["per_task"].items():
                assert "all_negative_accuracy" in row or "majority_rate" in row, (who, task)
