"""README tells what results/ holds: its tables are those that the reports make from the committed results."""

import json
from pathlib import Path
import re

import pytest

from amalgam_tf import report

ROOT = Path(__file__).parents[1]
PART = "results/voc2012_part"


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text()


def test_quickstart_table_is_made_from_its_results(readme):
    results = json.loads((ROOT / "results/quickstart/student.json").read_text())
    assert "\n".join(report.table(results)) in readme


def test_summary_over_seeds_is_made_from_its_runs_and_stands_in_the_readme(readme, tmp_path, monkeypatch):
    """`compare` on the committed runs writes the committed summary, and README shows its tables."""
    monkeypatch.chdir(ROOT)
    report.compare([f"{PART}/seed*/*"], tmp_path, summary="voc2012_part")
    written = (tmp_path / "voc2012_part.md").read_text()
    assert written == (ROOT / PART / "voc2012_part.md").read_text()
    networks, differences = (section(written, title) for title in ("Networks", "Differences"))
    assert "\n".join(networks) in readme
    assert "\n".join([*differences[:2], *(line for line in differences if "| all " in line)]) in readme


def test_customize_over_seeds_is_made_from_its_runs(readme, tmp_path, monkeypatch):
    """README's means are cells of the summary's rows over all tasks of a group."""
    monkeypatch.chdir(ROOT)
    report.compare(["results/customize_part/seed*/**"], tmp_path, summary="customize_part")
    for name in ("customize_part.md", "customize_part_differences.csv"):
        assert (tmp_path / name).read_text() == (ROOT / "results/customize_part" / name).read_text()
    means = {
        cell.strip()
        for line in (tmp_path / "customize_part.md").read_text().splitlines()
        if "| mean of" in line
        for cell in line.split("|")
    }
    shown = [line for line in readme.splitlines() if line.startswith(("| hair,", "| mouth,", "| CIFAR-10,", "| balanced %"))]
    assert len(shown) == 5 and {cell.strip() for line in shown for cell in line.split("|")[3:6]} <= means


def section(markdown: str, title: str) -> list[str]:
    """The lines of the table below a heading."""
    body = markdown.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [line for line in body.splitlines() if line.startswith("|")]


def test_figures_of_the_readme_exist(readme):
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme)
    assert len(shown) >= 3 and all((ROOT / place).is_file() for place in shown)


@pytest.mark.parametrize("path", [p for p in sorted((ROOT / "results").rglob("*.json")) if p.name != "benchmark.json"], ids=str)
def test_every_results_file_says_how_it_was_made(path):
    results = json.loads(path.read_text())
    assert results["command"].startswith("python -m amalgam_tf.bin.") and results["commit"] and isinstance(results["seed"], int)
    for who, measured in results["test"].items():
        if isinstance(measured, dict):
            for task, row in measured["per_task"].items():
                assert "all_negative_accuracy" in row or "majority_rate" in row, (who, task)
