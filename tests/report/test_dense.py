"""The part of a run's report that is about maps: tables by hand, and figures whose axes are looked at."""

import json

from matplotlib import image
import numpy as np
import pytest

from amalgam_tf.report import dense, dense_figures, run
from tests.report import fakes, fakes_soka

DEPTH, EDGE = fakes_soka.PAIR
SIZE = 6


def arrays(n=2):
    """Some test images: depth from 1 to 3 m with one pixel unknown, normals that point at the camera, as `dense.panels` keeps them."""
    depth = np.linspace(1, 3, n * SIZE * SIZE).reshape(n, SIZE, SIZE, 1).astype(np.float32)
    depth[:, 0, 0] = 128.0
    valid = np.ones((n, SIZE, SIZE), np.uint8)
    valid[:, 0, 0] = 0
    normal = np.tile(np.float32([0, 0, 1]), (n, SIZE, SIZE, 1))
    found = {"images": np.full((n, SIZE, SIZE, 3), 100, np.uint8), "truth/depth_zbuffer": depth, "truth/normal": normal}
    found |= {"valid/depth_zbuffer": valid, "valid/normal": valid}
    found |= {
        f"{who}/depth_zbuffer": depth + off for who, off in (("student", 0.5), ("T_depth", 0.1), ("constant", 0.3), ("mean_map", 0.2))
    }
    return found | {"student/normal": -normal, "T_normal/normal": normal}


@pytest.fixture
def drawn(monkeypatch):
    """The figures drawn by `dense_figures`, in order."""
    found, make = [], dense_figures.new_figure

    def new_figure(*args):
        figure, grid = make(*args)
        found.append(figure)
        return figure, grid

    monkeypatch.setattr(dense_figures, "new_figure", new_figure)
    return found


class TestTable:
    def test_every_network_with_the_metrics_of_its_task(self):
        per_task = {"rmse": 0.5, "absrel": 0.25, "l1": 0.4, "d1.25": 0.75, "d1.25^2": 0.9, "d1.25^3": 1.0, "paper_rmse": 7.0}
        test = {"data": "x", "images": 3, "student": {"per_task": {DEPTH: per_task, "normal": {"mean_deg": 12.25, "median_deg": None}}}}
        test["T"] = {"per_task": {"normal": {"mean_deg": 10.0, "median_deg": 8.0, "within_30": 0.5}}}
        lines = dense.table({"tasks": [DEPTH, "normal"], "test": test})
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        assert rows[0] == ["network", "rmse", "absrel", "L1", "d<1.25", "d<1.25^2", "d<1.25^3"]
        assert rows[2] == ["student", "0.5000", "0.2500", "0.4000", "0.7500", "0.9000", "1.0000"]
        assert rows[3] == ["network", "mean deg", "median deg", "<30 deg"]
        assert rows[5:] == [["student", "12.25", "-", "-"], ["T", "10.00", "8.00", "0.5000"]]
        assert [line for line in lines if line.startswith("**")] == [f"**{DEPTH}**", "**normal**"] and lines[-1].startswith("|")

    def test_heads_cover_every_metric(self):
        from amalgam_tf.metrics import dense as metrics

        assert {m for of in metrics.METRICS.values() for m in of} == {*dense.HEADS, *dense.PAPER}


class TestSections:
    def report(self, workdir, **changes):
        results = fakes_soka.run(0.13)[0] | changes
        fakes.save(workdir, results)
        return run.write(workdir).read_text()

    def test_of_a_soka_run(self, tmp_path):
        np.savez(tmp_path / "panels.npz", **{k: v for k, v in arrays().items() if "normal" not in k})
        rows = [{"total": t, "phase": "cycle", "step": t, "collaboration/soft/a": 1 / t, "balance/weight/a": 0.5} for t in (1, 2)]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        written = self.report(tmp_path)
        assert "* variant: schedule acct, weights gradnorm, mia channel,softmax_w, auxiliary auto" in written
        assert "* auxiliary teacher: keypoints2d; MIA has 2064 weights" in written
        assert f"* task weights at the end: {DEPTH} 0.500, {EDGE} 0.500" in written
        assert f"* held-out soft losses: {DEPTH} 0.01000, {EDGE} 0.01000" in written
        assert "* kept: step 800 of 900 (smallest held-out sum of the soft losses)" in written
        assert "| T_depth_zbuffer | 1.000" in written and "## Paper-style columns" in written and "paper-style rmse" in written
        for name in ("panels", "curves"):
            assert f"(figures/{name}.png)" in written and image.imread(tmp_path / "figures" / f"{name}.png").std() > 0.05

    def test_without_panels_rows_and_auxiliary(self, tmp_path):
        written = self.report(tmp_path, auxiliary="", similarities={})
        assert "* auxiliary teacher: none" in written and "Similarity of the teachers" not in written
        assert "figures/" not in written and not list((tmp_path / "figures").iterdir())

    @pytest.mark.parametrize(("last", "dies"), [(1.25, False), (3e10, True), (float("nan"), True)])
    def test_a_code_that_died_is_said(self, tmp_path, last, dies):
        """S2; by what was logged last."""
        rows = [{"total": t, "amalgamated/b3": 1.0, "collaboration/amalgamated/code": x} for t, x in ((1, 2.0), (2, last))]  # either name
        said = "\n".join(dense._features([*rows, {"total": 3, "held_out/soft": 0.1}]))
        assert f"the student's, in size: b3 1, code {last:.3g}" in said
        assert ("**the student died at code**" in said) is dies

    def test_teachers_have_no_amalgamation(self, tmp_path):
        lines = dense.sections({"method": "dense_teacher", "tasks": [DEPTH], "test": fakes_soka.run(0.1)[0]["test"]}, [], tmp_path)
        assert "## Amalgamation" not in lines and any("paper-style" in line for line in lines)


class TestPanels:
    def test_a_row_an_image_a_column_a_map(self, tmp_path, drawn):
        dense_figures.panels(arrays(), [DEPTH, "normal"], tmp_path / "x.png")
        axes = np.array(drawn[0].axes).reshape(2, 7)
        assert [a.get_title() for a in axes[0]] == [
            "query",
            *(f"{DEPTH}\n{who}" for who in ("truth", "student", "T_depth")),  # what does not look at the image is not shown
            *(f"normal\n{who}" for who in ("truth", "student", "T_normal")),
        ]
        assert (tmp_path / "x.png").stat().st_size > 1000 and not axes[0, 0].axison

    def test_a_teacher_called_as_its_task_is_not_said_twice(self, tmp_path, drawn):
        renamed = {k.replace(f"T_depth/{DEPTH}", f"{DEPTH}/{DEPTH}").replace("T_normal/", "T_depth/"): v for k, v in arrays().items()}
        dense_figures.panels(renamed, [DEPTH, "normal"], tmp_path / "x.png")
        titles = [a.get_title() for a in drawn[0].axes[:7]]
        assert titles[1:4] == [f"{DEPTH}\n{who}" for who in ("truth", "student", "teacher")]
        assert titles[4:] == [f"normal\n{who}" for who in ("truth", "student", "T_depth")]

    def test_one_scale_a_task_from_the_valid_truth(self, tmp_path, drawn):
        dense_figures.panels(arrays(), [DEPTH], tmp_path / "x.png")
        _, truth, student, _ = (a.images[0] for a in drawn[0].axes[4:8])  # the second image
        known = arrays()[f"truth/{DEPTH}"][1][..., 0].ravel()[1:]
        scale = tuple(np.percentile(known, (1, 99)))
        assert truth.get_clim() == student.get_clim() == pytest.approx(scale) and scale[1] < 3.01  # not 128 m
        shown = truth.get_array()
        assert np.isnan(np.ma.filled(shown, np.nan)[0, 0]) and shown[3, 3] == pytest.approx(arrays()[f"truth/{DEPTH}"][1, 3, 3, 0])
        assert student.get_array()[0, 0] == pytest.approx(128.5)  # what a network says is shown everywhere

    def test_normals_are_colours_and_black_where_unknown(self, tmp_path, drawn):
        dense_figures.panels(arrays(1), ["normal"], tmp_path / "x.png")
        truth, student = (a.images[0].get_array() for a in drawn[0].axes[1:3])
        assert truth[3, 3].tolist() == [0.5, 0.5, 1.0] and truth[0, 0].tolist() == [0, 0, 0]
        assert student[3, 3].tolist() == student[0, 0].tolist() == [0.5, 0.5, 0.0]

    def test_an_image_without_a_valid_pixel(self, tmp_path, drawn):
        unknown = {k: v * 0 if k.startswith("valid") else v for k, v in arrays(1).items()}
        dense_figures.panels(unknown, [DEPTH], tmp_path / "x.png")
        assert drawn[0].axes[2].images[0].get_clim() == (0, 1)


class TestCurves:
    ROWS = [
        {"total": 5, "phase": "joint", "step": 5, "soft/a": 9.0},
        {"total": 10, "step": 5, "competition/soft/a": 4.0, "collaboration/soft/a": 3.0, "balance/weight/a": 0.6, "balance/norm/a": 7.0},
        {"total": 10, "step": 5, "held_out/soft/a": 100.0},
        {"total": 20, "step": 15, "competition/soft/a": 2.0, "collaboration/soft/a": 1.0, "balance/weight/a": 0.7},
    ]

    def test_the_last_update_counts_and_held_out_does_not(self):
        assert dense_figures.over_steps(self.ROWS, "soft/") == {"a": ([5, 10, 20], [9.0, 3.0, 1.0])}
        assert dense_figures.over_steps(self.ROWS, "weight/") == {"a": ([10, 20], [0.6, 0.7])}

    def test_a_panel_of_losses_and_one_of_weights(self, tmp_path, drawn):
        assert dense_figures.curves(self.ROWS, tmp_path / "x.png")
        losses, weights = drawn[0].axes
        assert (losses.get_ylabel(), losses.get_yscale(), weights.get_ylabel()) == ("soft loss", "log", "task weight")
        assert weights.lines[0].get_xydata().tolist() == [[10, 0.6], [20, 0.7]]

    def test_without_task_weights_one_panel(self, tmp_path, drawn):
        assert dense_figures.curves(self.ROWS[:1], tmp_path / "x.png")
        assert [a.get_ylabel() for a in drawn[0].axes] == ["soft loss"]

    def test_nothing_to_draw(self, tmp_path):
        assert not dense_figures.curves([{"total": 1, "loss": 2.0}], tmp_path / "x.png")
        assert not (tmp_path / "x.png").exists()
