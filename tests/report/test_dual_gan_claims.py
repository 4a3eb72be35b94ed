"""Claims about Dual-GAN: which there are, the rule of the verdicts, and intervals against the metric's own bootstrap."""

import statistics

import numpy as np
import pytest

from amalgam_tf.metrics import multilabel
from amalgam_tf.report import dual_gan, dual_gan_claims, runs
from amalgam_tf.report.dual_gan_claims import BETTER, FAILS, HOLDS, NONE, PAR
from amalgam_tf.report.runs import FinishedRun
from tests.report import fakes, fakes_dual_gan


def of_rows(*rows, seeds=(0,), configs=None):
    made = []
    for row in rows:
        settings = (configs or {}).get(row) or fakes_dual_gan.config(row)
        made += [FinishedRun(f"x/{row}{s}", fakes_dual_gan.results(0.8, row, seed=s), None, settings) for s in seeds]
    return dual_gan.rows(made)[0]


def pairs(found):
    return [(c.left, c.right) for c in dual_gan_claims.claims(found)]


class TestWhichClaims:
    def test_the_papers_ordering_from_neighbour_to_neighbour(self):
        found = of_rows("ka", "ours", "similar", "dafl", "different", "noise")
        ordering = [("ka", "teachers"), ("ka", "ours"), ("ours", "similar"), ("similar", "dafl"), ("dafl", "different"), ("dafl", "noise")]
        assert pairs(found) == [*ordering, ("ours", "dafl")]
        kinds = {c.kind for c in dual_gan_claims.claims(found) if c.right != "teachers"}
        assert kinds == {BETTER} and dual_gan_claims.claims(found)[0].kind == PAR

    def test_literal_losses_stand_beside_literal_losses(self):
        found = of_rows("ka", "ours", "literal", "dafl", "dafl,literal", "noise")
        assert {("ours", "dafl"), ("literal", "dafl,literal"), ("dafl,literal", "noise"), ("ka", "literal")} <= set(pairs(found))
        assert not {("literal", "dafl"), ("ours", "dafl,literal")} & set(pairs(found))

    def test_rows_that_are_missing(self):
        assert pairs(of_rows("ours", "noise")) == [] and pairs(of_rows("ours", "dafl")) == [("ours", "dafl")]

    def test_ablations_stand_beside_the_row_whose_settings_they_share(self):
        """The lambda rows here are those of `literal`, whose statistics are not matched."""
        ours = fakes_dual_gan.config("ours", bn_stat=1.0)
        changed = {k: fakes_dual_gan.config(k) for k in ("lambda10", "lambda01")}
        for name, config in changed.items():
            config["block"] = {**config["block"], name: 0.0}
        found = of_rows("ours", "literal", "lambda10", "lambda01", configs={"ours": ours, **changed})
        assert {("literal", "lambda10"), ("literal", "lambda01"), ("ours", "literal")} <= set(pairs(found))
        assert not any("ours" in p and p[1].startswith("lambda") for p in pairs(found))
        assert dual_gan_claims.base_of(of_rows("lambda10"), "lambda10") == ""

    def test_with_and_without_the_discrete_loss(self):
        off = fakes_dual_gan.config("off", dis="off", bn_stat=1.0)
        ours = fakes_dual_gan.config("ours", bn_stat=1.0)
        found = of_rows("ours", "literal", "off", configs={"off": off, "ours": ours})
        assert dual_gan_claims.with_and_without(found) == ("ours", "off")
        assert dual_gan_claims.with_and_without(of_rows("literal")) == ("literal", "")
        assert dual_gan_claims.with_and_without(of_rows("ka")) == ("", "")


UP, DOWN = {0: 0.8, 1: 0.9, 2: 0.85}, {0: 0.7, 1: 0.6, 2: 0.79}


@pytest.mark.parametrize(
    ("kind", "left", "right", "interval", "expected"),
    [
        (BETTER, UP, DOWN, (0.05, 0.2), HOLDS),
        (BETTER, DOWN, UP, (-0.2, -0.05), FAILS),
        (BETTER, UP, DOWN, (-0.01, 0.2), NONE),  # the images do not tell
        (BETTER, UP, {**DOWN, 2: 0.801}, (0.05, 0.2), NONE),  # the ranges overlap, though every seed's difference is above 0
        (BETTER, UP, DOWN, (None, None), NONE),
        (BETTER, {0: 0.8, 1: 0.9}, {0: 0.7, 1: 0.6}, (0.05, 0.2), NONE),  # two seeds
        (PAR, {0: 0.8, 1: 0.79, 2: 0.81}, dict.fromkeys(range(3), 0.8), (-0.015, 0.02), HOLDS),
        (PAR, {0: 0.8, 1: 0.77, 2: 0.81}, dict.fromkeys(range(3), 0.8), (-0.015, 0.02), NONE),  # a seed is too far below
        (PAR, {0: 0.8, 1: 0.79, 2: 0.81}, dict.fromkeys(range(3), 0.8), (-0.025, 0.02), NONE),
        (PAR, dict.fromkeys(range(3), 0.7), dict.fromkeys(range(3), 0.8), (-0.12, -0.08), FAILS),
        (PAR, dict.fromkeys(range(3), 0.9), dict.fromkeys(range(3), 0.8), (0.08, 0.12), HOLDS),
    ],
)
def test_verdict(kind, left, right, interval, expected):
    assert dual_gan_claims.verdict(kind, left, right, *interval) == expected


@pytest.mark.parametrize(("right", "expected"), [((0.1, 0.4), False), ((0.1, 0.5), True), ((0.6, 0.65), True), ((0.8, 0.9), False)])
def test_overlap(right, expected):
    assert dual_gan_claims.overlap({0: 0.7, 1: 0.5}, dict(enumerate(right))) is expected


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = fakes_dual_gan.experiment(tmp_path_factory.mktemp("e"), rows=("ka", "ours", "dafl"), seeds=(0, 1, 2), n=80)
    found, _ = runs.read([str(folder / "seed*" / "*")])
    return dual_gan.rows(found)[0]


def test_intervals_are_the_metrics_own(experiment):
    """Of one seed as `bootstrap_difference` gives it; of three the mean difference, from scores in any order of images."""
    rows = {(r["left"], r["right"]): r for r in dual_gan_claims.differences(experiment, "ap_all", 40)}
    assert set(rows) == {("ka", "teachers"), ("ka", "ours"), ("ours", "dafl")}
    row, each = rows["ours", "dafl"], []
    for a, b in zip(experiment["ours"].runs, experiment["dafl"].runs, strict=True):
        sides = []
        for run in (a, b):
            arrays = np.load(run.scores)
            order = np.argsort(arrays["ids"])
            sides.append({t: arrays[f"student/{t}"][order] for t in fakes_dual_gan.TASKS})
            truth = {t: arrays[f"truth/{t}"][order] for t in fakes_dual_gan.TASKS}
        ap = [{t: multilabel.ap_all(truth=truth[t], scores=side[t]) for t in truth} for side in sides]
        each.append([ap[0][t] - ap[1][t] for t in truth])
    means = [np.mean(e) for e in each]
    assert row["mean"] == pytest.approx(np.mean(means)) and row["seeds"] == 3 and row["resamples"] == 40
    assert (row["smallest"], row["largest"]) == pytest.approx((min(means), max(means))) and row["low"] < row["mean"] < row["high"]
    values = [[run.results["test"]["student"]["per_task"][t]["ap_all"] for t in fakes_dual_gan.TASKS] for run in experiment["ours"].runs]
    assert row["left_value"] == pytest.approx(statistics.median(np.mean(values, 1)))
    assert row["difference"] == pytest.approx(row["left_value"] - row["right_value"])


def test_interval_of_one_seed(experiment):
    one = {row: runs.Group(row, g.runs[:1]) for row, g in experiment.items()}
    row = next(r for r in dual_gan_claims.differences(one, "ap_all", 30) if r["right"] == "teachers")
    arrays = np.load(one["ka"].first.scores)  # the first that is read, so its order is the one that is resampled
    truth, mine, theirs = ({t: arrays[f"{who}/{t}"] for t in fakes_dual_gan.TASKS} for who in ("truth", "student", "whole"))
    expected = multilabel.bootstrap_difference(truth=truth, scores_a=mine, scores_b=theirs, metric=multilabel.ap_all, n=30)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx([expected[k] for k in ("difference", "low", "high")])
    assert row["verdict"] == NONE and row["seeds"] == 1


def test_seeds_that_both_sides_have(experiment):
    fewer = {**experiment, "dafl": runs.Group("dafl", experiment["dafl"].runs[1:])}
    row = next(r for r in dual_gan_claims.differences(fewer, "ap_all", 10) if r["right"] == "dafl")
    assert row["seeds"] == 2 and row["low"] is not None and row["verdict"] == NONE
    apart = {**experiment, "ours": runs.Group("ours", experiment["ours"].runs[:1]), "dafl": fewer["dafl"]}
    assert [r["right"] for r in dual_gan_claims.differences(apart, "ap_all", 10)] == ["teachers", "ours"]


def test_a_seed_without_scores_leaves_no_interval(experiment):
    last = experiment["dafl"].runs[-1]
    lacking = runs.Group("dafl", (*experiment["dafl"].runs[:-1], FinishedRun(last.name, last.results, None, last.config)))
    row = next(r for r in dual_gan_claims.differences({**experiment, "dafl": lacking}, "ap_all", 10) if r["right"] == "dafl")
    assert row["seeds"] == 3 and row["low"] is None and row["verdict"] == NONE


def test_without_any_scores():
    rows = dual_gan_claims.differences(of_rows("ours", "dafl", seeds=(0, 1, 2)), "ap_all", 10)
    assert [(r["difference"], r["low"], r["resamples"]) for r in rows] == [(0.0, None, 0)]


def test_scores_of_other_images_are_refused(tmp_path):
    for row, n in (("ours", 60), ("dafl", 50)):
        fakes_dual_gan.save(tmp_path / row, fakes_dual_gan.results(0.8, row), {}, fakes.truth_of(fakes_dual_gan.TASKS, n))
    found, _ = dual_gan.rows(runs.read([str(tmp_path / "*")])[0])
    with pytest.raises(runs.UserError, match="is about other test images than the other runs"):
        dual_gan_claims.differences(found, "ap_all", 5)
