"""Comparing runs as a user does: which files come of which runs, and the sentences of mistakes."""

import csv
import os
from pathlib import Path
import subprocess
import sys

import pytest

from amalgam_tf import report
from amalgam_tf.data.voc import CLASSES
from amalgam_tf.errors import UserError
from tests.report import fakes

ROOT = Path(__file__).parents[2]
POOL = {"teacher1": list(CLASSES[:10]), "teacher2": list(CLASSES[10:])}


def voc2007(value=0.9, **more):
    return fakes.student(value, **{"teachers": POOL, "row": "afk_table1/TargetRes50", "data": "voc2007/test", "images": 4952, **more})


def names(folder):
    return {f.name for f in folder.iterdir()}


def compare(tmp_path, **options):
    return report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out", **options)


def call(*flags):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "amalgam_tf.bin.compare", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def test_binary_writes_tables_and_figures(tmp_path):
    for seed, value in enumerate((0.90, 0.96, 0.93)):
        fakes.save(tmp_path / f"voc{seed}", voc2007(value, seed=seed))
    pair = voc2007(0.95, teachers={"teacher1": ["bus"], "teacher2": ["diningtable"]}, row="afk_fig3/bus")
    fakes.save(tmp_path / "pair", pair)
    fakes.save(tmp_path / "own", fakes.student(0.9))
    done = call(f"--runs={tmp_path}/voc*,{tmp_path}/pair,{tmp_path}/own/results.json", f"--output={tmp_path}/out", "--resamples=10")
    assert done.returncode == 0, done.stderr[-2000:]
    expected = {"afk_table1.md", "afk_table1.csv", "afk_fig3.md", "afk_fig3.csv", "afk_fig3.png", "report.html"}
    expected |= {f"summary_voc2012-val{end}" for end in (".md", ".csv", "_pareto.png", "_blocks.png", "_curve.png")}
    assert names(tmp_path / "out") == expected
    with open(tmp_path / "out" / "afk_table1.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (cell,) = [r for r in rows if (r["row"], r["column"], r["metric"], r["variant"]) == ("TargetRes50", "motor", "accuracy", "AFK argmin")]
    assert cell == {
        "table": "afk_table1",
        "row": "TargetRes50",
        "column": "motor",
        "measured": "93.00",
        "teacher": "90.00",
        "published": "96.2",
        "difference": "-3.20",
        "seeds": "3",
        "metric": "accuracy",
        "smallest": "90.00",
        "largest": "96.00",
        "variant": "AFK argmin",
    }
    for name in ("afk_table1", "afk_fig3", "summary_voc2012-val"):
        assert (tmp_path / "out" / f"{name}.md").read_text() in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runs=no_such_run"], "error: --runs: there is no run at no_such_run"),
        (["--runs=results"], "error: --runs: results holds no results.json"),
        (["--runs=results/quickstart/student.json", "--metric=auc"], "error: unknown --metric 'auc'"),
        (["--runs=results/quickstart/student.json", "--table=afk_table9"], "error: unknown --table 'afk_table9'"),
    ],
)
def test_binary_dies_in_one_sentence(tmp_path, flags, message):
    done = call(*flags, f"--output={tmp_path / 'out'}")
    assert done.returncode == 2 and done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_committed_results_are_summarised_by_test_part(tmp_path):
    folders = [str(ROOT / "results" / part) for part in ("quickstart/*.json", "voc2012_part/seed*/*")]
    text = report.compare(folders, tmp_path, resamples=5)
    found = {n for n in names(tmp_path) if n.endswith(".md")}
    assert found >= {"summary_scenes-test.md", "summary_voc2012-val.md"} and "share a seed" in text


def test_teachers_go_with_their_students(tmp_path):
    fakes.experiment(tmp_path / "runs", seeds=(0,))
    compare(tmp_path, resamples=5)
    assert {n for n in names(tmp_path / "out") if n.endswith(".md")} == {"summary_voc2012-val.md"}
    fakes.save(tmp_path / "runs" / "stranger", fakes.teacher(0.9, ["zebra"]))
    compare(tmp_path, resamples=5)
    assert {n for n in names(tmp_path / "out") if n.endswith(".md")} == {"summary_voc2012-val.md", "summary_voc2012-val_2.md"}


def test_teachers_of_published_rows_make_no_summary(tmp_path):
    fakes.save(tmp_path / "runs" / "student", voc2007())
    for name, own in POOL.items():
        fakes.save(tmp_path / "runs" / name, fakes.teacher(0.9, own, data="voc2007/test", images=4952))
    compare(tmp_path)
    assert names(tmp_path / "out") == {"afk_table1.md", "afk_table1.csv", "report.html"}


def test_another_test_set_is_noted(tmp_path):
    fakes.save(tmp_path / "runs" / "part", voc2007(images=100))
    assert "* Measured on voc2007/test (100 images), NOT on the published test set" in compare(tmp_path)


def test_one_table_only(tmp_path):
    fakes.save(tmp_path / "runs" / "a", voc2007())
    fakes.save(tmp_path / "runs" / "b", voc2007(row="afk_table2/TargetRes50", data="voc2012/val", images=5823))
    fakes.save(tmp_path / "runs" / "c", fakes.student(0.9))
    compare(tmp_path, table="afk_table2")
    assert names(tmp_path / "out") == {"afk_table2.md", "afk_table2.csv", "report.html"}
    with pytest.raises(UserError, match=r"--table=afk_table3: no run names a row of it; .*: afk_table1/TargetRes50, .*, none"):
        compare(tmp_path, table="afk_table3")


def test_rows_of_other_papers_are_shown_as_they_are(tmp_path):
    fakes.save(tmp_path / "runs" / "a", fakes.student(0.9, row="dgan_table2/#1"))
    assert "Names the published row `dgan_table2/#1`." in compare(tmp_path)
    assert "summary_voc2012-val.md" in names(tmp_path / "out")


class TestSummary:
    def test_all_runs_published_or_not(self, tmp_path):
        fakes.save(tmp_path / "runs" / "a", voc2007())
        fakes.save(tmp_path / "runs" / "b", voc2007(method="distill", row=""))
        text = compare(tmp_path, summary="both")
        assert {"both.md", "afk_table1.md"} <= names(tmp_path / "out") and "| distillation " in text
        assert not any(n.startswith("summary") for n in names(tmp_path / "out"))

    def test_pools_of_different_rows_stay_apart(self, tmp_path):
        three = {"teacher1": list(CLASSES[:7]), "teacher2": list(CLASSES[7:14]), "teacher3": list(CLASSES[14:])}
        fakes.save(tmp_path / "runs" / "two", voc2007(0.9))
        fakes.save(tmp_path / "runs" / "three", voc2007(0.8, teachers=three, row="afk_table1/TargetRes50-3"))
        text = compare(tmp_path, summary="x")
        assert "| AFK argmin (two) " in text and "| AFK argmin (three) " in text

    def test_different_test_data_are_refused(self, tmp_path):
        fakes.save(tmp_path / "runs" / "a", fakes.student(0.9))
        fakes.save(tmp_path / "runs" / "b", fakes.student(0.9, seed=1, data="scenes/test", images=48))
        with pytest.raises(UserError, match=r"a was measured on voc2012/val \(100 images\) and .*b on scenes/test \(48 images\)"):
            compare(tmp_path, summary="x")
        compare(tmp_path)
        assert {"summary_voc2012-val.md", "summary_scenes-test.md"} <= names(tmp_path / "out")

    def test_different_labels_are_refused(self, tmp_path):
        fakes.save(tmp_path / "runs" / "a", fakes.student(0.9))
        fakes.save(tmp_path / "runs" / "b", fakes.student(0.9, teachers={"teacher1": ["cat"]}))
        with pytest.raises(UserError, match=r"students of different labels \(cat, dog, bus; cat\)"):
            compare(tmp_path, summary="x")

    @pytest.mark.parametrize(("options", "message"), [({"summary": "a/b"}, "becomes part of file names"), ({"resamples": 0}, "at least 1")])
    def test_options_are_checked_first(self, tmp_path, options, message):
        with pytest.raises(UserError, match=message):
            report.compare(["nowhere"], tmp_path / "out", **options)


def test_two_test_sets_below_one_table_are_refused(tmp_path):
    fakes.save(tmp_path / "runs" / "a", voc2007())
    fakes.save(tmp_path / "runs" / "b", voc2007(images=12, seed=1))
    with pytest.raises(UserError, match="but both name rows of afk_table1: compare runs of one test set"):
        compare(tmp_path)


def test_output_that_is_a_file_is_named(tmp_path):
    fakes.save(tmp_path / "runs" / "a", fakes.student(0.9))
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match=r"--output=.*out cannot be made"):
        compare(tmp_path)
