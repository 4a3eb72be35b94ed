"""Average precisions against formulas written differently, by hand, and against their invariances."""

import json
import math
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from amalgam_tf.errors import UserError
from amalgam_tf.metrics import multilabel as ml

APS = [ml.ap_11pt, ml.ap_all, ml.ap_sklearn]
ALL = [*APS, ml.accuracy, ml.balanced_accuracy]

# Few distinct scores, so that ties are the rule; multiples of 1/16, so that affine maps of them are exact.
CASE = st.lists(st.tuples(st.sampled_from([1, 0, -1]), st.integers(0, 16).map(lambda k: k / 16)), max_size=30)
UNTIED = st.lists(st.tuples(st.sampled_from([1, 0]), st.floats(0, 1)), max_size=30, unique_by=lambda pair: pair[1])
examples = settings(max_examples=60, deadline=None)


def split(pairs):
    return np.array([t for t, _ in pairs], dtype=np.int32), np.array([s for _, s in pairs], dtype=np.float64)


def value(metric, pairs):
    truth, scores = split(pairs)
    return metric(truth=truth, scores=scores)


def same(a, b):
    return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, abs=1e-12)


def points(pairs):
    """[(recall tenths reached, recall, precision)] at every threshold, by counting afresh; None without a positive."""
    known = [(t, s) for t, s in pairs if t != -1]
    positives = sum(t for t, _ in known)
    out = []
    for threshold in sorted({s for _, s in known}, reverse=True):
        taken = [t for t, s in known if s >= threshold]
        out.append((sum(taken), sum(taken) / positives if positives else None, sum(taken) / len(taken)))
    return (out, positives) if positives else (None, 0)


def slow_11pt(pairs):
    curve, positives = points(pairs)
    if curve is None:
        return math.nan
    total = 0.0
    for tenth in range(11):
        total += max(precision for hits, _, precision in curve if hits * 10 >= tenth * positives)
    return total / 11


def slow_all(pairs):
    """The VOC2010 area as an integral over recall: each positive is worth the best precision at its recall or a higher one."""
    curve, positives = points(pairs)
    if curve is None:
        return math.nan
    return sum(max(p for hits, _, p in curve if hits >= k) for k in range(1, positives + 1)) / positives


def devkit_vocap(pairs):
    """VOCap.m of the 2010 devkit, line by line; for scores without ties."""
    ordered = sorted((p for p in pairs if p[0] != -1), key=lambda p: -p[1])
    hits = np.cumsum([t for t, _ in ordered])
    recall, precision = hits / hits[-1], hits / np.arange(1, len(hits) + 1)
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)) if recall[i] != recall[i - 1])


def devkit_2007(pairs):
    """The loop of VOCevalcls.m of the 2007 devkit, with a tolerance for recalls that are tenths; for scores without ties."""
    ordered = sorted((p for p in pairs if p[0] != -1), key=lambda p: -p[1])
    hits = np.cumsum([t for t, _ in ordered])
    recall, precision = hits / hits[-1], hits / np.arange(1, len(hits) + 1)
    total = 0.0
    for threshold in np.linspace(0, 1, 11):
        reached = precision[recall >= threshold - 1e-9]
        total += (reached.max() if len(reached) else 0) / 11
    return total


class TestByHand:
    # sorted by score: + - + - -   precisions 1, 1/2, 2/3, 1/2, 2/5; recall 1/2 at the first, 1 at the third
    pairs = [(0, 0.1), (1, 0.9), (0, 0.8), (1, 0.7), (0, 0.2), (-1, 0.95)]

    def test_11pt_takes_six_recalls_at_precision_one_and_five_at_two_thirds(self):
        assert value(ml.ap_11pt, self.pairs) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)

    def test_all_is_the_area(self):
        assert value(ml.ap_all, self.pairs) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)

    def test_interpolation_lifts_a_positive_to_the_best_precision_behind_it(self):
        # - + + : precisions 0, 1/2, 2/3
        pairs = [(0, 0.9), (1, 0.8), (1, 0.7)]
        assert value(ml.ap_sklearn, pairs) == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 3)
        assert value(ml.ap_all, pairs) == pytest.approx(2 / 3)
        assert value(ml.ap_11pt, pairs) == pytest.approx(2 / 3)

    def test_accuracy_counts_both_sides_and_half_is_a_no(self):
        assert value(ml.accuracy, self.pairs) == pytest.approx(4 / 5)
        assert value(ml.accuracy, [(0, 0.5), (0, 0.5), (1, 0.5)]) == pytest.approx(2 / 3)

    def test_trivial_predictors(self):
        truth, _ = split(self.pairs)
        assert ml.prevalence(truth=truth) == pytest.approx(2 / 5)
        assert ml.all_negative_accuracy(truth=truth) == ml.majority_rate(truth=truth) == pytest.approx(3 / 5)
        assert ml.majority_rate(truth=[1, 1, 0, -1]) == pytest.approx(2 / 3)  # the commoner answer is yes

    def test_balanced_accuracy_counts_both_sides_the_same(self):
        pairs = [(1, 0.9), (1, 0.4), (0, 0.1), (0, 0.2), (0, 0.3), (0, 0.7), (-1, 0.9)]
        assert value(ml.balanced_accuracy, pairs) == pytest.approx((1 / 2 + 3 / 4) / 2)
        assert value(ml.balanced_accuracy, [(t, 0.0) for t, _ in pairs]) == 0.5

    @pytest.mark.parametrize("tenth", range(1, 11))
    def test_a_recall_of_exactly_a_tenth_counts_as_reached(self, tenth):
        # 10 positives: the first `tenth` on top, then ten negatives, then the rest. As floats, 3/10 >= 3 * 0.1 is false.
        truth = [1] * tenth + [0] * 10 + [1] * (10 - tenth)
        expected = ((tenth + 1) * 1 + (10 - tenth) * 0.5) / 11
        assert ml.ap_11pt(truth=np.array(truth), scores=-np.arange(20.0)) == pytest.approx(expected)


class TestAgainstOthers:
    @given(CASE)
    @examples
    def test_11pt(self, pairs):
        assert same(value(ml.ap_11pt, pairs), slow_11pt(pairs))

    @given(CASE)
    @examples
    def test_all(self, pairs):
        assert same(value(ml.ap_all, pairs), slow_all(pairs))

    @given(CASE)
    @examples
    def test_sklearn(self, pairs):
        truth, scores = split([p for p in pairs if p[0] != -1])
        expected = average_precision_score(truth, scores) if truth.sum() else math.nan
        assert same(value(ml.ap_sklearn, pairs), expected)

    @given(CASE)
    @examples
    def test_balanced_accuracy_is_that_of_sklearn(self, pairs):
        truth, scores = split([p for p in pairs if p[0] != -1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one side alone
            expected = balanced_accuracy_score(truth, scores > 0.5) if len(truth) else math.nan
        assert same(value(ml.balanced_accuracy, pairs), expected)

    @given(UNTIED.filter(lambda pairs: any(t for t, _ in pairs)))
    @examples
    def test_devkit_where_nothing_ties(self, pairs):
        assert value(ml.ap_all, pairs) == pytest.approx(devkit_vocap(pairs), abs=1e-12)
        assert value(ml.ap_11pt, pairs) == pytest.approx(devkit_2007(pairs), abs=1e-12)

    def test_sklearn_at_the_size_of_voc(self):
        rng = np.random.default_rng(0)
        truth = (rng.random(4952) < 0.08).astype(np.int32)
        scores = np.round(rng.random(4952) * 0.5 + truth * 0.3, 3)  # rounded: many ties
        assert ml.ap_sklearn(truth=truth, scores=scores) == pytest.approx(average_precision_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize("metric", ALL)
class TestInvariances:
    @given(data=st.data())
    @examples
    def test_order_of_images(self, metric, data):
        pairs = data.draw(CASE)
        assert same(value(metric, pairs), value(metric, data.draw(st.permutations(pairs))))

    @given(pairs=CASE, noise=st.floats(0, 1))
    @examples
    def test_masked_scores_do_not_matter(self, metric, pairs, noise):
        other = [(t, noise if t == -1 else s) for t, s in pairs]
        without = [p for p in pairs if p[0] != -1]
        assert same(value(metric, pairs), value(metric, other)) and same(value(metric, pairs), value(metric, without))

    @given(pairs=CASE)
    @examples
    def test_range(self, metric, pairs):
        result = value(metric, pairs)
        assert math.isnan(result) or 0 <= result <= 1

    def test_masked_scores_may_even_be_nan(self, metric):
        assert value(metric, [(1, 0.9), (0, 0.1), (-1, math.nan)]) == 1


@pytest.mark.parametrize("metric", APS)
class TestAveragePrecisions:
    @given(pairs=CASE)
    @examples
    def test_monotone_maps_of_the_scores(self, metric, pairs):
        assert same(value(metric, pairs), value(metric, [(t, 64 * s - 200) for t, s in pairs]))
        assert same(value(metric, pairs), value(metric, [(t, s**3) for t, s in pairs]))

    @given(pairs=CASE)
    @examples
    def test_perfect_order_and_constant_score(self, metric, pairs):
        truth, _ = split(pairs)
        prevalence = ml.prevalence(truth=truth)
        found = not math.isnan(prevalence) and prevalence > 0
        assert same(metric(truth=truth, scores=truth.astype(float)), 1.0 if found else math.nan)
        assert same(metric(truth=truth, scores=np.full(len(truth), 0.3)), prevalence if found else math.nan)

    def test_nothing_to_find_is_nan(self, metric):
        assert all(math.isnan(value(metric, pairs)) for pairs in ([], [(0, 0.5)], [(-1, 0.5)]))

    def test_saturated_scores(self, metric):
        truth = np.array([1, 0, 1, 0])
        assert metric(truth=truth, scores=np.array([200.0, -200, 1e308, -1e308])) == 1
        assert metric(truth=truth, scores=np.array([0, -0.0, 0, 0])) == 0.5  # 0.0 and -0.0 tie
        assert metric(truth=truth, scores=np.array([1, 0, 1, 0], dtype=np.float16)) == 1

    def test_integer_and_boolean_input(self, metric):
        assert metric(truth=[True, False, True], scores=[3, 1, 2]) == 1


@given(CASE.filter(lambda pairs: any(t == 1 for t, _ in pairs)))
@examples
def test_interpolation_never_lowers(pairs):
    assert value(ml.ap_all, pairs) >= value(ml.ap_sklearn, pairs) - 1e-12


@given(CASE)
@examples
def test_all_negative_is_the_accuracy_of_zeros(pairs):
    truth, _ = split(pairs)
    expected = ml.accuracy(truth=truth, scores=np.zeros(len(truth)))
    assert same(ml.all_negative_accuracy(truth=truth), expected)


@given(CASE)
@examples
def test_majority_is_the_better_of_two_constant_answers(pairs):
    truth, _ = split(pairs)
    both = [ml.accuracy(truth=truth, scores=np.full(len(truth), answer)) for answer in (0.0, 1.0)]
    assert same(ml.majority_rate(truth=truth), max(both))


class TestRefused:
    @pytest.mark.parametrize("metric", ALL)
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_scores_that_are_not_finite(self, metric, bad):
        with pytest.raises(UserError, match="1 of 2 scores are not finite"):
            value(metric, [(1, 0.2), (0, bad)])

    @pytest.mark.parametrize("metric", ALL)
    def test_truth_that_is_none(self, metric):
        with pytest.raises(UserError, match="truth holds 2"):
            value(metric, [(2, 0.2), (0, 0.1)])

    @pytest.mark.parametrize("metric", ALL)
    def test_shapes(self, metric):
        with pytest.raises(UserError, match=r"\(2,\).*\(3,\)"):
            metric(truth=np.zeros(2, int), scores=np.zeros(3))
        with pytest.raises(UserError, match="do not fit"):  # would broadcast
            metric(truth=np.zeros((2, 1), int), scores=np.zeros((2, 1)))

    def test_logits_as_probabilities(self):
        with pytest.raises(UserError, match="pass no logits"):
            value(ml.accuracy, [(1, 3.2), (0, -1.0)])
        with pytest.raises(UserError, match="pass no logits"):
            value(ml.balanced_accuracy, [(1, 3.2), (0, -1.0)])


class TestReport:
    truth = {"dog": np.array([1, 0, -1, 1]), "cat": np.array([0, 0, 0, -1])}
    scores = {"dog": np.array([0.9, 0.2, 0.5, 0.4]), "cat": np.array([0.1, 0.6, 0.3, 0.3]), "more": np.zeros(4)}

    def test_values(self):
        out = ml.report(truth=self.truth, scores=self.scores)
        assert out["dog"] == {
            "ap_11pt": 1.0,
            "ap_all": 1.0,
            "ap_sklearn": 1.0,
            "accuracy": pytest.approx(2 / 3),
            "balanced_accuracy": pytest.approx(3 / 4),
            "all_negative_accuracy": pytest.approx(1 / 3),
            "majority_rate": pytest.approx(2 / 3),
            "prevalence": pytest.approx(2 / 3),
            "positives": 2,
            "n": 3,
        }
        assert list(out) == ["dog", "cat", "mean"]

    def test_a_task_without_positive_is_left_out_of_the_means_of_ap_only(self):
        out = ml.report(truth=self.truth, scores=self.scores)
        assert out["cat"]["ap_all"] is None and out["cat"]["accuracy"] == pytest.approx(2 / 3)
        assert out["mean"]["ap_all"] == 1.0 and out["mean"]["ap_tasks"] == 1
        assert out["mean"]["all_negative_accuracy"] == pytest.approx((1 / 3 + 1) / 2)

    def test_is_plain_json_even_without_any_truth(self):
        out = ml.report(truth={"dog": np.array([-1, -1])}, scores={"dog": np.zeros(2)})
        assert json.loads(json.dumps(out, allow_nan=False)) == out
        assert out["mean"]["accuracy"] is None and out["mean"]["ap_tasks"] == 0

    def test_errors_name_the_task(self):
        with pytest.raises(UserError, match="task 'dog': 1 of 2 scores are not finite"):
            ml.report(truth={"dog": [1, 0]}, scores={"dog": [math.nan, 0]})
        with pytest.raises(UserError, match="no scores for task 'dog'"):
            ml.report(truth={"dog": [1, 0]}, scores={"dgo": [0, 0]})
        with pytest.raises(UserError, match="a task called 'mean'"):
            ml.report(truth={"mean": [1, 0]}, scores={"mean": [0, 0]})


class TestBootstrap:
    rng = np.random.default_rng(1)
    truth = {"a": (rng.random(120) < 0.4).astype(int), "b": (rng.random(120) < 0.2).astype(int)}
    good = {k: np.clip(0.5 * t + 0.5 * np.random.default_rng(2).random(120), 0, 1) for k, t in truth.items()}
    poor = {k: np.random.default_rng(3).random(120) for k in truth}

    def test_better_scores_are_told_apart(self):
        out = ml.bootstrap_difference(truth=self.truth, scores_a=self.good, scores_b=self.poor, metric=ml.ap_all, n=200)
        plain = np.mean([ml.ap_all(truth=t, scores=self.good[k]) - ml.ap_all(truth=t, scores=self.poor[k]) for k, t in self.truth.items()])
        assert out["difference"] == pytest.approx(plain) and 0 < out["low"] < out["difference"] < out["high"] and out["resamples"] == 200

    def test_exchanging_the_sides_mirrors_the_interval(self):
        there = ml.bootstrap_difference(truth=self.truth, scores_a=self.good, scores_b=self.poor, metric=ml.accuracy, n=100)
        back = ml.bootstrap_difference(truth=self.truth, scores_a=self.poor, scores_b=self.good, metric=ml.accuracy, n=100)
        assert back["low"] == pytest.approx(-there["high"]) and back["difference"] == pytest.approx(-there["difference"])

    def test_it_is_paired(self):
        # b is a but for one image: an unpaired interval would be as wide as the metric itself varies
        near = {k: np.where(np.arange(120) == 0, 0.0, s) for k, s in self.good.items()}
        out = ml.bootstrap_difference(truth=self.truth, scores_a=self.good, scores_b=near, metric=ml.accuracy, n=200)
        assert out["high"] - out["low"] < 0.03
        same_scores = ml.bootstrap_difference(truth=self.truth, scores_a=self.good, scores_b=self.good, metric=ml.ap_all, n=50)
        assert (same_scores["low"], same_scores["high"]) == (0, 0)

    def test_standard_error_of_a_mean(self):
        # accuracy of independent images against a constant: the interval is that of a binomial share
        n, right = 400, np.r_[np.ones(300), np.zeros(100)]
        truth = {"t": np.ones(n, int)}
        out = ml.bootstrap_difference(truth=truth, scores_a={"t": right}, scores_b={"t": np.zeros(n)}, metric=ml.accuracy, n=2000)
        assert out["high"] - out["low"] == pytest.approx(2 * 1.96 * math.sqrt(0.75 * 0.25 / n), rel=0.1)

    def test_seed(self):
        runs = [
            ml.bootstrap_difference(truth=self.truth, scores_a=self.good, scores_b=self.poor, metric=ml.ap_all, n=30, seed=s)
            for s in (0, 0, 1)
        ]
        assert runs[0] == runs[1] and runs[0]["low"] != runs[2]["low"]

    def test_resamples_without_a_positive_are_left_out(self):
        truth, scores = {"t": np.array([1, 0, 0])}, {"t": np.array([0.9, 0.1, 0.2])}
        out = ml.bootstrap_difference(truth=truth, scores_a=scores, scores_b=scores, metric=ml.ap_all, n=200)
        assert 100 < out["resamples"] < 180  # (2/3)^3 = 30 % miss the only positive
        none = ml.bootstrap_difference(truth={"t": np.zeros(3, int)}, scores_a=scores, scores_b=scores, metric=ml.ap_all, n=5)
        assert none == {"difference": None, "low": None, "high": None, "resamples": 0}

    def test_images_that_do_not_match_are_refused(self):
        with pytest.raises(UserError, match="same images"):
            ml.bootstrap_difference(truth=self.truth, scores_a=self.good, scores_b={"a": np.zeros(3)}, metric=ml.ap_all)
