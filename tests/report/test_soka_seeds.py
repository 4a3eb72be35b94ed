"""SOKA's summary as a user gets it: which files come of which runs, mistakes, and figures that show the numbers."""

import csv
import json
import math
import re

from matplotlib import image
import numpy as np
import pytest

from amalgam_tf import report
from amalgam_tf.errors import UserError
from amalgam_tf.report import runs, soka, soka_claims, soka_figures, soka_seeds
from tests.report import fakes, fakes_soka
from tests.report.fakes_soka import mean_of, paired

DEPTH, EDGE = fakes_soka.PAIR


def experiment(folder, seeds=(0, 1), names=("ours", "strong", "no_auxiliary", "weak", "kd", "kd_mia", "fast_weights")):
    """Workdirs as the configs lay them out, with the task weights of three steps."""
    for seed in seeds:
        for i, name in enumerate(names):
            own = folder / f"seed{seed}" / ("depth-edge2d" if name == "ours" else f"depth-edge2d_{name}")
            fakes_soka.save(own, fakes_soka.run(0.11 + 0.01 * i + 0.002 * seed, variant=name, seed=seed, noise=i))
            weights(own, 0.1 if name == "fast_weights" else 0.01 * (1 + seed))
    return folder


def weights(folder, step):
    rows = [{"total": 10, "phase": "joint", "step": 10, "soft/depth_zbuffer": 1.0}]
    for i in range(3):
        share = 0.5 + step * i
        row = {"total": 20 + 10 * i, "phase": "cycle", "step": 10 * i}
        rows.append({**row, f"balance/weight/{DEPTH}": share, f"balance/weight/{EDGE}": 1 - share})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


class TestWrite:
    def test_one_summary_with_figures(self, tmp_path):
        experiment(tmp_path / "runs")
        for seed in (0, 1):
            pair = fakes_soka.run(0.12, tasks=("normal", "edge_occlusion"), seed=seed)
            fakes_soka.save(tmp_path / "runs" / f"seed{seed}" / "edge3d-normal", pair)
            taught = fakes.teacher(0.9, [DEPTH], seed=seed, data="scenes_dense/test", images=40) | {"method": "dense_teacher"}
            fakes.save(tmp_path / "runs" / f"seed{seed}" / DEPTH, taught)
        said = report.compare([str(tmp_path / "runs" / "seed*" / "*")], tmp_path / "out", resamples=20)
        ends = (".md", ".csv", "_claims.csv", "_variants.png", "_weights.png")
        assert {f.name for f in (tmp_path / "out").iterdir()} == {"report.html", *(f"summary_soka{end}" for end in ends)}
        written = (tmp_path / "out" / "summary_soka.md").read_text()
        assert written in said
        for part in (
            "## Claims",
            "## Table 1",
            "## Table 2",
            "## Variants of depth-edge2d",
            "## Table 3",
            "## Table 4",
            "## Table 5",
            "## Runs",
        ):
            assert part in written
        assert "## Variants of normal-edge3d" not in written  # the whole method alone stands in table 1
        assert (
            "Not compared (depth-edge2d):" in written
            and "* GradNorm matters where eq. 8 is weighted (S6): no run of weighted, equal" in written
        )
        assert re.search(rf"\| teacher +\| 0 +\| .*/seed0/{DEPTH} ", written)
        for end in ends[3:]:
            assert image.imread(tmp_path / "out" / f"summary_soka{end}").std() > 0.05

    def test_csv(self, tmp_path):
        experiment(tmp_path / "runs", names=("ours", "kd"))
        report.compare([str(tmp_path / "runs" / "*" / "*")], tmp_path / "out", resamples=5, summary="mine")
        with open(tmp_path / "out" / "mine.csv", newline="") as file:
            rows = {(r["network"], r["task"], r["metric"]): r for r in csv.DictReader(file)}
        teacher = math.sqrt(mean_of(0.1, DEPTH, "rmse"))
        row = rows["ours", DEPTH, "rmse"]
        assert [float(row[k]) for k in ("median", "smallest", "largest")] == pytest.approx([1.11 * teacher, 1.1 * teacher, 1.12 * teacher])
        assert row["seeds"] == "2" and float(rows["teachers beside ours", DEPTH, "rmse"]["median"]) == pytest.approx(teacher)
        assert rows["ours", DEPTH, "task_weight"]["median"] == "0.5" and rows["kd", "", "parameters"]["median"] == "560000"
        with open(tmp_path / "out" / "mine_claims.csv", newline="") as file:
            claims = list(csv.DictReader(file))
        assert {r["claim"] for r in claims} == {"the student is on par with its teachers", "the whole method helps"}
        assert {r["verdict"] for r in claims if r["metric"] != soka_claims.CHANGE or r["seed"] != "all"} == {""}

    def test_teachers_stand_beside_what_does_not_look_at_the_image(self):
        """Of two seeds, one of depth and one of normals."""

        def taught(task, metrics, seed):
            test = {who: {"per_task": {task: {k: (1 + i + seed) * v for k, v in metrics.items()}}} for i, who in enumerate(soka._WHO)}
            return runs.FinishedRun("x", {"method": "dense_teacher", "tasks": [task], "seed": seed, "test": test}, None, None)

        depth = [taught(DEPTH, {"rmse": 1.0, "absrel": 0.1, "d1.25": 0.2}, s) for s in (0, 1)]
        lines = [
            [c.strip() for c in line.strip("|").split("|")] for line in soka.teacher_table([*depth, taught("normal", {"mean_deg": 9.0}, 0)])
        ]
        assert lines[0] == ["task", "metric", "seeds", "teacher", "constant", "mean_map"]
        assert lines[2] == [DEPTH, "rmse", "2", "1.5000 [1.0000..2.0000]", "2.5000 [2.0000..3.0000]", "3.5000 [3.0000..4.0000]"]
        assert lines[5] == ["normal", "mean deg", "1", "9.00", "18.00", "27.00"] and lines[6][3:] == ["-", "-", "-"]

    def test_missing_variants_leave_gaps(self, tmp_path):
        experiment(tmp_path / "runs", seeds=(0,), names=("kd_mia",))
        report.compare([str(tmp_path / "runs" / "*" / "*")], tmp_path / "out", resamples=5)
        assert {f.name for f in (tmp_path / "out").iterdir()} == {
            "summary_soka.md",
            "summary_soka.csv",
            "report.html",
        }  # nothing to compare or draw
        written = (tmp_path / "out" / "summary_soka.md").read_text()
        assert "## Table 1" not in written and re.search(r"KD\+MIA +\| kd_mia, 1 seed  +\| \d", written)

    def test_results_alone(self, tmp_path):
        """Committed results: no scores, no metrics.jsonl, several files in a folder."""
        for s in (0, 1):
            (tmp_path / f"{s}.json").write_text(json.dumps(fakes_soka.run(0.1 + 0.01 * s, seed=s)[0]))
        weights(tmp_path, 0.1)  # of none of them
        said = report.compare([str(tmp_path / "*.json")], tmp_path / "out", resamples=5)
        assert "no intervals: the runs have no scores.npz" in said and "_weights.png" not in said

    def test_two_test_parts_are_two_summaries(self, tmp_path):
        for i, data in enumerate(("scenes_dense/test", "rgbd/test")):
            fakes_soka.save(tmp_path / "runs" / str(i), fakes_soka.run(0.1, data=data))
        fakes.save(tmp_path / "runs" / "teacher", fakes.teacher(0.9, [DEPTH], data="other") | {"method": "dense_teacher"})  # nobody's
        where = [str(tmp_path / "runs" / "*")]
        report.compare(where, tmp_path / "out", resamples=5)
        names = {f.name for f in (tmp_path / "out").iterdir() if f.suffix == ".md"}
        assert names == {"summary_soka_scenes_dense-test-40-images.md", "summary_soka_rgbd-test-40-images.md"}
        with pytest.raises(UserError, match="summarise runs of one test set"):
            report.compare(where, tmp_path / "out", resamples=5, summary="all")

    def test_beside_runs_of_other_methods(self, tmp_path):
        fakes_soka.save(tmp_path / "runs" / "a", fakes_soka.run(0.1))
        fakes.save(tmp_path / "runs" / "b", fakes.student(0.9))
        where = [str(tmp_path / "runs" / "*")]
        report.compare(where, tmp_path / "out", resamples=5)
        assert {"summary_soka.md", "summary_voc2012-val.md"} <= {f.name for f in (tmp_path / "out").iterdir()}
        with pytest.raises(UserError, match=r"--summary: .*a is of SOKA and .*b of afk: summarise one method"):
            report.compare(where, tmp_path / "out", resamples=5, summary="all")

    def test_teachers_of_maps_alone(self, tmp_path):
        taught = fakes.teacher(0.9, [DEPTH], data="scenes_dense/test") | {"method": "dense_teacher"}
        fakes.save(tmp_path / "runs" / "a", taught)
        with pytest.raises(UserError, match="a is a teacher of maps, and no student is named"):
            report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out")
        fakes.save(tmp_path / "runs" / "b", fakes.student(0.9))
        said = report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out", resamples=5, summary="all")  # of one test part, without it
        assert f"note: left out, teachers of maps without a student: {tmp_path}/runs/a" in said


class TestFigures:
    def test_weights_over_the_steps(self, tmp_path):
        experiment(tmp_path, names=("ours", "fast_weights"))
        ((pair,), _) = soka.pairs(runs.read([str(tmp_path / "*" / "*")])[0])
        slow, fast = soka_seeds.rates(pair)
        assert (slow.name, fast.name) == ("rate 0.0001", "rate 0.001")
        assert slow.curves[1] == pytest.approx({20: 1, 30: 0.52 / 0.48, 40: 0.54 / 0.46})
        assert fast.curves[0][40] == pytest.approx(0.7 / 0.3)
        assert slow.final["depth"] == pytest.approx([1.1, 1.12])  # rmse over the teacher's

    def test_a_results_file_named_itself(self, tmp_path):
        experiment(tmp_path, seeds=(0,), names=("ours",))
        ((pair,), _) = soka.pairs(runs.read([str(tmp_path / "seed0" / "depth-edge2d" / "results.json")])[0])
        assert soka_seeds.rates(pair)[0].curves

    def test_bars_share_the_run_of_ours(self, tmp_path):
        made = [fakes_soka.run(v, variant=n, seed=s) for s, v in enumerate((0.1, 0.2)) for n in ("kd", "ours", "strong", "no_auxiliary")]
        depth, edge = soka_seeds.bars(paired(*made))
        assert list(depth.variants) == ["KD", "no auxiliary", "ours = strong"] and depth.title == "depth: rmse in metres"
        teacher = math.sqrt(mean_of(0.1, EDGE, "rmse"))
        assert edge.variants["KD"] == pytest.approx([teacher, 2 * teacher]) and edge.guess == pytest.approx([7 * teacher] * 2)

    def test_nothing_to_draw(self, tmp_path):
        assert soka_seeds.bars(paired(fakes_soka.run(0.1))) == []
        assert not soka_figures.variants([], tmp_path / "x.png")
        assert not soka_figures.task_weights([soka_figures.Rate("x", [], {"depth": [1.0]})], "x", tmp_path / "x.png")
        assert not (tmp_path / "x.png").exists()

    def test_bars_and_lines_stand_where_the_numbers_are(self, tmp_path, monkeypatch):
        drawn = kept(monkeypatch)
        panel = soka_figures.Bars("depth", {"KD": [1.3, 1.1, 1.2], "ours": [1.0]}, [0.9, 0.9, 0.8], [1.25])
        assert soka_figures.variants([panel], tmp_path / "x.png")
        (axes,) = drawn[0].axes
        assert [p.get_height() for p in axes.patches] == [1.2, 1.0]
        assert [
            line.get_ydata()[0] for line in axes.lines if len(line.get_ydata()) == 2 and line.get_label() in ("teacher", "mean map")
        ] == [0.9, 1.25]
        whiskers = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
        assert whiskers == pytest.approx([1.1, 1.3])
        assert 0 < axes.get_ylim()[0] < 0.8 and axes.get_ylim()[1] > 1.3

    def test_band_over_seeds(self, tmp_path, monkeypatch):
        drawn = kept(monkeypatch)
        rate = soka_figures.Rate("rate", [{0: 1.0, 10: 2.0}, {0: 1.0, 10: 4.0}, {0: 1.0, 10: 3.0, 20: 9.0}], {"depth": [1.1, 1.2, 1.4]})
        assert soka_figures.task_weights([rate], "ratio", tmp_path / "x.png")
        left, right = drawn[0].axes
        assert left.lines[0].get_xydata().tolist() == [[0, 1], [10, 3]]  # steps that all seeds have
        band = left.collections[0].get_paths()[0].vertices
        assert (band[:, 1].min(), band[:, 1].max()) == (1, 4) and right.patches[0].get_height() == 1.2


def kept(monkeypatch):
    """The figures drawn from here on."""
    drawn, make = [], soka_figures.new_figure

    def new_figure(*args):
        drawn.append(make(*args)[0])
        return drawn[-1], np.array(drawn[-1].axes, object).reshape(args[:2])

    monkeypatch.setattr(soka_figures, "new_figure", new_figure)
    return drawn
