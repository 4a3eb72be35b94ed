"""The report of one run: every section from hand-made results, and files of before the newer keys."""

import json
from pathlib import Path

import pytest

from amalgam_tf import report
from amalgam_tf.errors import UserError
from tests.report import fakes

ROOT = Path(__file__).parents[2]


def written(tmp_path, results) -> str:
    path = report.write(fakes.save(tmp_path, results))
    assert path == tmp_path / "report.md"
    return path.read_text()


def cells(markdown: str, first: str) -> list[str]:
    """The cells of the first table line whose first cell is `first`."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {first} "))
    return [c.strip() for c in line.strip("|").split("|")]


def test_student_with_everything(tmp_path):
    results = fakes.student(0.9, rule={"name": "tolerance", "tolerance": 0.01})
    modes = {m: {"c_precision": 0.5 + 0.1 * i, "c_f1": 0.25, "macro_f1": 0.125} for i, m in enumerate(("strict", "threshold", "all"))}
    results["test"]["student"]["top_k"] = modes
    text = written(tmp_path, results)
    assert cells(text, "dog") == ["dog", "teacher1", "b2", "0.800", "0.800", "0.790", "90.0", "90.0", "90.0"]
    assert "the branch points are by the rule `tolerance 0.01`." in text
    assert cells(text, "threshold") == ["threshold", "60.0", "-", "25.0", "-", "-", "-", "12.5"]
    assert cells(text, "b3") == ["b3", "0.680", "78.0", "40.000", "4.000"]
    assert cells(text, "all teachers") == ["all teachers", "41.000", "4.100", "41.0"]
    for figure in ("per_task", "block_losses"):
        assert f"(figures/{figure}.png)" in text and (tmp_path / "figures" / f"{figure}.png").stat().st_size > 5000


def test_argmin_says_what_the_rule_is(tmp_path):
    assert "the smallest loss is the branch point." in written(tmp_path, fakes.student(0.9))


def test_distillation_has_no_branches(tmp_path):
    results = fakes.student(0.85, method="distill", row="afk_table1/TargetRes50")
    text = written(tmp_path, results)
    assert cells(text, "bus") == ["bus", "teacher2", "0.800", "0.750", "90.0", "85.0", "90.0"]
    assert cells(text, "**mean**") == ["**mean**", "", "0.800", "0.750", "90.0", "85.0", "90.0"]
    assert "Branch points" not in text and "Every block" not in text and "block_losses.png" not in text
    assert not (tmp_path / "figures" / "block_losses.png").exists()
    assert "Stands beside `afk_table1/TargetRes50`:[^" in text and cells(text, "TargetRes50")[:2] == ["TargetRes50", "97.2"]
    for said in ("Called AP in the paper", "The printed mean is not that", "In 17 of 20 classes"):
        assert text.count(said) == 1
    assert report.summary(tmp_path).splitlines()[:5] == report.table(results)[:5]


def test_voc2007_is_shown_by_eleven_points(tmp_path):
    text = written(tmp_path, fakes.student(0.9, data="voc2007/test"))
    assert cells(text, "cat")[3:6] == ["0.700", "0.700", "0.690"] and "11 recalls" in text
    assert cells(written(tmp_path, fakes.teacher(0.9, ["cat"], data="voc2007/test")), "cat")[1] == "0.700"


def test_teacher(tmp_path):
    text = written(tmp_path, fakes.teacher(0.9, ["cat", "dog"]))
    assert cells(text, "cat") == ["cat", "0.800", "90.0", "90.0"] and cells(text, "**mean**")[1:] == ["0.800", "90.0", "90.0"]
    assert not list((tmp_path / "figures").iterdir())


def test_category_tasks_have_no_average_precision(tmp_path):
    results = fakes.student(0.9, method="distill", teachers={"teacher1": ["pets"]})
    row = {"accuracy": 0.8, "balanced_accuracy": 0.7, "majority_rate": 0.25, "n": 10}
    for who in ("student", "teacher1"):
        results["test"][who] = {"per_task": {"pets": row}, "mean": {}}
    text = written(tmp_path, results)
    assert cells(text, "pets") == ["pets", "teacher1", "-", "-", "80.0", "80.0", "25.0"]
    assert "per_task.png" not in text and not (tmp_path / "figures" / "per_task.png").exists()


class TestSelection:
    """Customize: who taught how much, C14's accuracies, the transfer losses over the steps."""

    TEACHERS = {"S1": ["smile"], "S2": ["smile", "young"]}

    def results(self):
        results = fakes.student(0.9, method="customize", teachers=self.TEACHERS, taught=0.8)
        results["tasks"] = ["smile", "young"]
        del results["held_out"]
        results["selection"] = {
            "smile@S1": {"share": 0.75, "entropy": 0.25},
            "smile@S2": {"share": 0.25, "entropy": 0.5},
            "young@S2": {"share": 1.0, "entropy": 0.125},
        }
        for who, value in (("student", 0.7), ("S1", 0.6), ("S2", 0.5)):
            for row in results["test"][who]["per_task"].values():
                row.update(balanced_accuracy=value, majority_rate=0.95)
        return results

    def test_table(self, tmp_path):
        text = written(tmp_path, self.results())
        section = text.partition("## Selection")[2].partition("\n## ")[0]
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")][2:]
        assert rows == [
            ["smile@S1", "75.0", "0.250", "80.0", "60.0"],
            ["smile@S2", "25.0", "0.500", "80.0", "50.0"],
            ["smile, student", "-", "-", "90.0", "70.0"],
            ["young@S2", "100.0", "0.125", "80.0", "50.0"],
            ["young, student", "-", "-", "90.0", "70.0"],
        ]
        assert "transfer_losses.png" not in text and not (tmp_path / "figures" / "transfer_losses.png").exists()

    def test_trivial_is_the_commoner_answer_even_if_it_is_yes(self, tmp_path):
        assert cells(written(tmp_path, self.results()), "smile")[-1] == "95.0"

    def test_figure_of_the_transfer_losses(self, tmp_path):
        rows = [{"phase": "transfer", "step": 0, "held_out/soft": 1.0}]
        rows += [{"phase": "transfer", "step": s, "loss": 3.0, "transfer/stem": 1.0 / s, "transfer/b1": 2.0 / s} for s in (10, 20)]
        tmp_path.joinpath("metrics.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
        assert "(figures/transfer_losses.png)" in written(tmp_path, self.results())
        assert (tmp_path / "figures" / "transfer_losses.png").stat().st_size > 5000

    def test_damaged_measurements(self, tmp_path):
        tmp_path.joinpath("metrics.jsonl").write_text('{"step": 1\n')
        with pytest.raises(UserError, match="metrics.jsonl holds a row that is no JSON object"):
            written(tmp_path, self.results())

    def test_other_methods_have_no_such_section(self, tmp_path):
        assert "## Selection" not in written(tmp_path, fakes.student(0.9))


@pytest.mark.parametrize(
    "path", [p for p in sorted((ROOT / "results").rglob("*.json")) if p.name not in ("benchmark.json", "config.json")], ids=str
)
def test_committed_results_render(tmp_path, path):
    results = json.loads(path.read_text())
    text = written(tmp_path, results)
    assert all(line in text for line in report.table(results))
    assert ("## Branch points" in text) == ("block_losses" in results) and ("## Every block" in text) == ("curve" in results)
