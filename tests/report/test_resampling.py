"""Intervals over images and seeds, against `bootstrap_difference` and against a slow direct computation."""

import numpy as np
import pytest

from amalgam_tf.errors import UserError
from amalgam_tf.metrics import multilabel
from amalgam_tf.report import resampling, runs
from tests.report import fakes

N, RESAMPLES = 40, 30
TASKS = [t for own in fakes.TASKS.values() for t in own]
TRUTH = fakes.truth_of(TASKS, N)


@pytest.fixture
def sides(tmp_path):
    """Two groups of three seeds, and their scores: seed -> network -> task -> scores."""
    found, scores = {"afk": {}, "distill": {}}, {}
    for seed in range(3):
        for i, method in enumerate(found):
            results = fakes.student(0.9, seed=seed, method=method, images=N)
            folder = fakes.save(tmp_path / f"{method}{seed}", results)
            own, taught = fakes.scores_of(TRUTH, 2.0 - i, 10 * seed + i), fakes.scores_of(TRUTH, 1.5, 100 + seed)
            fakes.save_scores(folder, TRUTH, {"student": own, **{n: {t: taught[t] for t in of} for n, of in fakes.TASKS.items()}})
            found[method][seed] = runs.FinishedRun(str(folder), results, folder / "scores.npz")
            scores[method, seed], scores["teachers", seed] = own, taught
    return found, scores


def rows(a, b, n=RESAMPLES):
    return resampling.compare([(a, b)], n)


def test_one_seed_is_the_bootstrap_of_the_metrics_room(sides):
    found, scores = sides
    a, b = (resampling.Side(m, "student", found[m]) for m in ("afk", "distill"))
    for seed, row in enumerate(rows(a, b)[:3]):
        expected = multilabel.bootstrap_difference(
            truth=TRUTH, scores_a=scores["afk", seed], scores_b=scores["distill", seed], metric=multilabel.ap_all, n=RESAMPLES
        )
        assert {k: row[k] for k in expected} == pytest.approx(expected)
        assert (row["seed"], row["seeds"]) == (seed, 1) and row["low"] < row["difference"] < row["high"]


def test_all_seeds_share_the_images_of_a_resample(sides):
    found, scores = sides
    a, b = resampling.Side("afk", "student", found["afk"]), resampling.Side("its teachers", "teachers", found["afk"])
    pooled = rows(a, b)[-1]
    draw, differences = np.random.default_rng(0), []
    for k in range(RESAMPLES + 1):
        images = draw.integers(N, size=N) if k else np.arange(N)
        each = []
        for seed in range(3):
            for task in TASKS:  # a mean over tasks of a mean over seeds: the same number, in another order
                values = [
                    multilabel.ap_all(truth=TRUTH[task][images], scores=scores[who, seed][task][images]) for who in ("afk", "teachers")
                ]
                each.append(values[0] - values[1])
        differences.append(np.mean(each))
    assert (pooled["seed"], pooled["seeds"], pooled["resamples"]) == ("all", 3, RESAMPLES)
    assert pooled["difference"] == pytest.approx(differences[0])
    assert (pooled["low"], pooled["high"]) == pytest.approx(tuple(np.percentile(differences[1:], [2.5, 97.5])))


def test_voc2007_is_resampled_by_its_own_average_precision(sides):
    found, scores = sides
    for run in found["afk"].values():
        run.results["test"]["data"] = "voc2007/test"
    a, b = resampling.Side("afk", "student", found["afk"]), resampling.Side("its teachers", "teachers", found["afk"])
    expected = np.mean([multilabel.ap_11pt(truth=TRUTH[t], scores=scores["afk", 0][t]) for t in TASKS]) - np.mean(
        [multilabel.ap_11pt(truth=TRUTH[t], scores=scores["teachers", 0][t]) for t in TASKS]
    )
    assert rows(a, b, 1)[0]["difference"] == pytest.approx(expected)


def test_images_are_matched_by_id(sides):
    found, scores = sides
    folder = found["distill"][0].scores.parent
    teachers = {n: {t: scores["teachers", 0][t] for t in of} for n, of in fakes.TASKS.items()}
    a, b = (resampling.Side(m, "student", {0: found[m][0]}) for m in ("afk", "distill"))
    before = rows(a, b)
    order = np.random.default_rng(3).permutation(N)
    fakes.save_scores(folder, TRUTH, {"student": scores["distill", 0], **teachers}, order)
    assert rows(a, b) == before


def test_a_task_without_positives_is_left_out_on_both_sides():
    a, b = np.array([[0.5, np.nan], [0.6, 0.2]]), np.array([[0.4, 0.9], [0.1, np.nan]])
    assert resampling.mean_differences(a, b) == pytest.approx([0.1, 0.5])
    empty = resampling.interval(resampling.mean_differences(np.full((3, 1), np.nan), np.ones((3, 1))))
    assert empty == {"difference": None, "low": None, "high": None, "resamples": 0}


def test_equal_scores_are_measured_once(sides):
    calls = []

    def metric(*, truth, scores):
        calls.append(1)
        return multilabel.ap_all(truth=truth, scores=scores)

    _, scores = sides
    resamples = resampling.Resamples(np.arange(N), TRUTH, metric, 2)
    first = resamples.values(scores["afk", 0])
    again = resamples.values({t: v.copy() for t, v in scores["afk", 0].items()})
    assert np.array_equal(first, again, equal_nan=True) and len(calls) == 3 * len(TASKS)
    assert not np.array_equal(first, resamples.values(scores["afk", 1]), equal_nan=True)


def test_only_shared_seeds_with_scores_are_compared(sides):
    found, _ = sides
    without = runs.FinishedRun("x", found["distill"][1].results, None)
    b = resampling.Side("distill", "student", {0: found["distill"][0], 1: without})
    assert [r["seed"] for r in rows(resampling.Side("afk", "student", found["afk"]), b)] == [0]
    assert rows(resampling.Side("afk", "student", found["afk"]), resampling.Side("x", "student", {1: without})) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: a.pop("student/dog"), r"scores\.npz has no 'student/dog'"),
        (lambda a: a.pop("teacher2/bus"), r"scores\.npz has no 'teacher2/bus'"),
        (lambda a: a.pop("ids"), r"scores\.npz has no 'ids'"),
        (lambda a: a.update(ids=np.array([f"other{i}" for i in range(N)])), r"scores\.npz is about other test images"),
        (lambda a: a.update({"truth/cat": 1 - abs(a["truth/cat"])}), r"scores\.npz has another truth for cat"),
    ],
)
def test_scores_that_do_not_fit_are_named(sides, damage, message):
    found, _ = sides
    path = found["distill"][0].scores
    with np.load(path) as file:
        arrays = dict(file)
    damage(arrays)
    np.savez(path, **arrays)
    a, b = (resampling.Side(m, n, {0: found[m][0]}) for m, n in (("afk", "student"), ("distill", "teachers")))
    with pytest.raises(UserError, match=message):
        rows(a, b, 1)


def test_damaged_scores_are_named(sides):
    found, _ = sides
    path = found["afk"][0].scores
    path.write_bytes(path.read_bytes()[:200])
    side = resampling.Side("afk", "student", {0: found["afk"][0]})
    with pytest.raises(UserError, match=r"scores\.npz is damaged"):
        rows(side, side, 1)


def test_categories_are_left_out(sides):
    found, scores = sides
    path = found["afk"][0].scores
    with np.load(path) as file:
        arrays = dict(file)
    for key in ("student/dog", "teacher1/dog"):
        arrays[key] = np.stack([arrays[key]] * 3, 1)  # a column a class
    np.savez(path, **arrays)
    assert list(resampling.load(found["afk"][0]).truth) == ["cat", "bus"]
