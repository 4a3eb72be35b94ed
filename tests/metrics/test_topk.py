"""C-P ... O-F1 against hand counts, scikit-learn, and the published numbers' own arithmetic."""

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from amalgam_tf import published
from amalgam_tf.errors import UserError
from amalgam_tf.metrics import topk

KEYS = ["c_precision", "c_recall", "c_f1", "o_precision", "o_recall", "o_f1", "macro_f1"]
COUNTS = ["labels_per_image", "predictions_per_image", "classes_without_positive"]
examples = settings(max_examples=100, deadline=None)


@st.composite
def cases(draw, truths=(1, 0, -1)):
    """(truth, scores) of 1..8 images and 1..6 classes; few distinct scores, among them 0.5, so that ties are the rule."""
    shape = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    fill = lambda values: np.array(draw(st.lists(values, min_size=math.prod(shape), max_size=math.prod(shape)))).reshape(shape)  # noqa: E731
    return fill(st.sampled_from(truths)), fill(st.integers(0, 8).map(lambda i: i / 8))


def given_slowly(truth, scores, k, threshold, mode):
    """The labels given to each image, by the definition: one image, one class at a time."""
    out = np.zeros(truth.shape, int)
    for i, row in enumerate(scores.tolist()):
        known = [c for c in range(len(row)) if truth[i, c] != -1]
        ranked = sorted(known, key=lambda c: (-row[c], c))
        taken = {
            "strict": ranked[:k],
            "threshold": [c for c in ranked[:k] if row[c] > threshold],
            "all": [c for c in known if row[c] > threshold],
        }
        out[i, taken[mode]] = 1
    return out


class TestByHand:
    # classes a b c d; b is never predicted by `threshold`, d has no positive image
    truth = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 0]])
    scores = np.array([[0.9, 0.1, 0.6, 0.7], [0.8, 0.2, 0.9, 0.1], [0.3, 0.4, 0.5, 0.2]])

    def test_threshold(self):
        out = topk.top_k(truth=self.truth, scores=self.scores, k=2, mode="threshold")
        # given: {a, d}, {c, a}, {} (0.5 is not above 0.5); true: {a, c}, {a, b}, {b, c}; a: 2 of 2, b: 0 of 0, c: 0 of 1, d: 0 of 1
        assert out["c_precision"] == pytest.approx((2 / 2 + 0 + 0 + 0) / 4)
        assert out["c_recall"] == pytest.approx((2 / 2 + 0 + 0 + 0) / 4)
        assert out["c_f1"] == pytest.approx(1 / 4) and out["macro_f1"] == pytest.approx(1 / 4)
        assert (out["o_precision"], out["o_recall"]) == (pytest.approx(2 / 4), pytest.approx(2 / 6))
        assert out["o_f1"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
        assert (out["labels_per_image"], out["predictions_per_image"]) == (2, pytest.approx(4 / 3))
        assert out["classes_without_positive"] == 1

    def test_all_has_no_k(self):
        out = topk.top_k(truth=self.truth, scores=self.scores, k=99, mode="all")
        # given: {a, c, d}, {a, c}, {}; a: 2 of 2, found 2 of 2; c: 1 of 2, found 1 of 2
        assert out["c_precision"] == pytest.approx((1 + 0 + 1 / 2 + 0) / 4) and out["c_recall"] == pytest.approx((1 + 0 + 1 / 2 + 0) / 4)
        assert (out["o_precision"], out["o_recall"]) == (pytest.approx(3 / 5), pytest.approx(3 / 6))

    def test_strict_gives_k_whatever_the_probability(self):
        out = topk.top_k(truth=self.truth, scores=self.scores, k=2, mode="strict")
        # given: {a, d}, {c, a}, {c, b}; a: 2 of 2, found 2 of 2; b: 1 of 1, found 1 of 2; c: 1 of 2, found 1 of 2; d: 0 of 1
        assert out["c_precision"] == pytest.approx((1 + 1 + 1 / 2 + 0) / 4) and out["c_recall"] == pytest.approx(
            (1 + 1 / 2 + 1 / 2 + 0) / 4
        )
        assert out["c_f1"] == pytest.approx(2 * 0.625 * 0.5 / 1.125)  # of the means; the mean of the classes' own is another number:
        assert out["macro_f1"] == pytest.approx((1 + 2 / 3 + 1 / 2 + 0) / 4)
        assert out["predictions_per_image"] == 2

    def test_defaults_are_those_of_the_spec(self):
        rng = np.random.default_rng(0)
        truth, scores = rng.integers(0, 2, (50, 6)), rng.random((50, 6))
        explicit = topk.top_k(truth=truth, scores=scores, k=3, threshold=0.5, mode="threshold")
        assert topk.top_k(truth=truth, scores=scores) == explicit
        assert len({topk.top_k(truth=truth, scores=scores, mode=m)["o_f1"] for m in topk.MODES}) == 3

    def test_ties_at_the_last_place_go_to_the_earlier_class(self):
        truth, scores = np.array([[0, 0, 1, 1]]), np.array([[0.6, 0.9, 0.9, 0.9]])
        assert topk.top_k(truth=truth, scores=scores, k=2)["o_precision"] == 1 / 2
        assert topk.top_k(truth=truth[:, ::-1], scores=scores[:, ::-1], k=2)["o_precision"] == 1
        # sorting that is not stable shows from about 17 columns on
        wide = np.random.default_rng(0).integers(0, 3, (20, 80)) / 2
        truth = given_slowly(np.zeros_like(wide, dtype=int), wide, 3, 0.5, "strict")
        assert topk.top_k(truth=truth, scores=wide, mode="strict")["o_f1"] == 1

    def test_unknown_truth_takes_no_place(self):
        truth, scores = np.array([[-1, -1, 1, 0]]), np.array([[0.9, math.nan, 0.6, 0.7]])
        out = topk.top_k(truth=truth, scores=scores, k=2)
        assert (out["o_precision"], out["o_recall"], out["predictions_per_image"]) == (1 / 2, 1, 2)
        assert topk.top_k(truth=truth, scores=scores, k=3, mode="strict")["predictions_per_image"] == 2

    def test_nothing_given_and_nothing_to_find(self):
        out = topk.top_k(truth=np.zeros((2, 3), int), scores=np.zeros((2, 3)))
        assert [out[k] for k in KEYS] == [0] * 7 and out["classes_without_positive"] == 3
        nothing_known = topk.top_k(truth=np.full((2, 3), -1), scores=np.ones((2, 3)))
        assert [nothing_known[k] for k in KEYS + COUNTS[:2]] == [0] * 9


class TestAgainstOthers:
    @given(case=cases(), k=st.integers(1, 6), mode=st.sampled_from(topk.MODES), threshold=st.sampled_from([0.25, 0.5]))
    @examples
    def test_sklearn(self, case, k, mode, threshold):
        truth, scores = case
        k = min(k, truth.shape[1])
        out = topk.top_k(truth=truth, scores=scores, k=k, mode=mode, threshold=threshold)
        chosen, positive = given_slowly(truth, scores, k, threshold, mode), (truth == 1).astype(int)
        each = [
            precision_recall_fscore_support(positive[:, c], chosen[:, c], zero_division=0, average="binary")[:3]
            for c in range(len(truth.T))
        ]
        c_precision, c_recall, macro_f1 = np.mean(each, axis=0)
        o_precision, o_recall, o_f1, _ = precision_recall_fscore_support(
            positive.ravel(), chosen.ravel(), zero_division=0, average="binary"
        )
        c_f1 = 2 * c_precision * c_recall / (c_precision + c_recall) if c_precision + c_recall else 0
        expected = [c_precision, c_recall, c_f1, o_precision, o_recall, o_f1, macro_f1]
        assert [out[k] for k in KEYS] == pytest.approx(expected, abs=1e-12)
        assert [out[k] for k in COUNTS] == [positive.sum() / len(truth), chosen.sum() / len(truth), (positive.sum(0) == 0).sum()]

    def test_sklearns_averages_at_the_size_of_coco(self):
        rng = np.random.default_rng(0)
        truth = (rng.random((5000, 80)) < rng.random(80) * 0.07).astype(int)
        scores = (truth * 0.4 + rng.random((5000, 80)) * 0.7) / 1.1
        out = topk.top_k(truth=truth, scores=scores)
        third = np.sort(scores, axis=1)[:, -3:-2]
        chosen = ((scores >= third) & (scores > 0.5)).astype(int)  # without ties
        for average, keys in (("macro", ("c_precision", "c_recall", "macro_f1")), ("micro", ("o_precision", "o_recall", "o_f1"))):
            expected = precision_recall_fscore_support(truth, chosen, average=average, zero_division=0)[:3]
            assert [out[k] for k in keys] == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(("row", "expected"), [("TargetRes50", 2.29), ("TargetDenseNet", 2.29), ("CNN+LSTM", 2.19), ("CNN+RNN", 2.80)])
    def test_labels_given_in_published_rows(self, row, expected):
        """The remark of spec A18: predictions an image = labels an image * O-R / O-P, here with 2.92 labels an image of COCO val."""
        printed = {k: float(v) for k, v in published.row(f"afk_table3/{row}").items() if k in ("O-P", "O-R")}
        assert 2.92 * printed["O-R"] / printed["O-P"] == pytest.approx(expected, abs=0.005)


class TestProperties:
    @given(case=cases(), k=st.integers(1, 6), mode=st.sampled_from(topk.MODES))
    @examples
    def test_ranges_and_the_arithmetic_of_predictions_per_image(self, case, k, mode):
        truth, scores = case
        out = topk.top_k(truth=truth, scores=scores, k=min(k, truth.shape[1]), mode=mode)
        assert list(out) == KEYS + COUNTS and all(0 <= out[k] <= 1 for k in KEYS)
        assert out["macro_f1"] <= out["c_f1"] + 1e-12  # the harmonic mean is concave
        # hits an image, counted from either side
        assert out["predictions_per_image"] * out["o_precision"] == pytest.approx(out["labels_per_image"] * out["o_recall"])
        known = (truth != -1).sum(axis=1)
        assert mode != "strict" or out["predictions_per_image"] == pytest.approx(np.minimum(known, min(k, truth.shape[1])).mean())
        assert mode == "all" or out["predictions_per_image"] <= k

    @given(case=cases(), data=st.data(), mode=st.sampled_from(topk.MODES))
    @examples
    def test_order_of_images_and_scores_of_unknowns_do_not_matter(self, case, data, mode):
        truth, scores = case
        order = data.draw(st.permutations(range(len(truth))))
        expected = topk.top_k(truth=truth, scores=scores, k=1, mode=mode)
        assert topk.top_k(truth=truth[order], scores=scores[order], k=1, mode=mode) == pytest.approx(expected)
        noise = np.where(truth == -1, 1 - scores, scores)
        assert topk.top_k(truth=truth, scores=noise, k=1, mode=mode) == expected

    @given(case=cases(truths=(1, 0)), mode=st.sampled_from(["threshold", "all"]))
    @examples
    def test_the_truth_itself_is_perfect_where_every_class_occurs(self, case, mode):
        truth, _ = case
        truth = np.concatenate([truth, np.eye(truth.shape[1], dtype=int)])
        out = topk.top_k(truth=truth, scores=truth.astype(float), k=truth.shape[1], mode=mode)
        assert [out[k] for k in KEYS] == [1] * 7

    @given(case=cases())
    @examples
    def test_k_of_all_classes_is_no_k(self, case):
        truth, scores = case
        assert topk.top_k(truth=truth, scores=scores, k=truth.shape[1]) == topk.top_k(truth=truth, scores=scores, mode="all")

    @given(case=cases(), k=st.integers(1, 6))
    @examples
    def test_strict_is_a_threshold_below_every_probability(self, case, k):
        truth, scores = case
        k, scores = min(k, truth.shape[1]), scores / 2 + 0.25
        assert topk.top_k(truth=truth, scores=scores, k=k, mode="strict") == topk.top_k(truth=truth, scores=scores, k=k, threshold=0.0)


class TestReport:
    truth = {"a": np.array([1, 0, -1]), "b": np.array([0, 1, 1])}
    scores = {"b": np.array([0.2, 0.9, 0.8]), "a": np.array([0.7, 0.6, 0.9]), "more": np.zeros(3)}

    def test_is_top_k_of_the_stacked_tasks_in_every_mode_with_fewer_than_three_tasks(self):
        out = topk.report(truth=self.truth, scores=self.scores)
        truth, scores = (np.stack([d["a"], d["b"]], axis=1) for d in (self.truth, self.scores))
        assert out == {m: topk.top_k(truth=truth, scores=scores, k=2, mode=m) for m in ("strict", "threshold", "all")}
        assert out["strict"]["predictions_per_image"] == 5 / 3 and out["threshold"]["o_precision"] == 3 / 4
        assert json.loads(json.dumps(out, allow_nan=False)) == out

    def test_k_is_three_with_more_tasks(self):
        rng = np.random.default_rng(0)
        truth = {str(i): rng.integers(0, 2, 9) for i in range(5)}
        out = topk.report(truth=truth, scores={t: rng.random(9) for t in truth})
        assert out["strict"]["predictions_per_image"] == 3

    def test_evaluation_holds_it_beside_mean_and_per_task(self):
        from amalgam_tf import evaluate
        from amalgam_tf.data.examples import Examples
        from amalgam_tf.tasks import Task

        kind = Task("kind", kind="category", labels=("x", "y"), head="softmax")
        tasks = (Task("a"), kind, Task("b"))
        examples = Examples("e", ("0", "1", "2"), np.zeros((3, 1, 1, 3), np.uint8), tasks, {**self.truth, "kind": np.array([0, 1, 1])})
        scores = {**self.scores, "kind": np.eye(2)[[0, 1, 0]]}
        out = evaluate.measure(scores, tasks, examples)
        assert set(out) == {"per_task", "mean", "top_k"} and out["top_k"] == topk.report(truth=self.truth, scores=self.scores)
        assert "top_k" not in evaluate.measure(scores, (kind,), examples)


class TestRefused:
    def expect(self, message, truth=((1, 0),), scores=((0.2, 0.8),), **more):
        with pytest.raises(UserError, match=message) as caught:
            topk.top_k(truth=np.array(truth), scores=np.array(scores), **{"k": 1, **more})
        assert "\n" not in str(caught.value)

    def test_shapes(self):
        self.expect(r"\(1, 2\).*\(1, 3\) do not fit", scores=((0.1, 0.2, 0.3),))
        self.expect("do not fit", truth=(1, 0), scores=(0.2, 0.8))
        self.expect("do not fit", truth=((),), scores=((),), mode="all")

    def test_values(self):
        self.expect("truth holds 2", truth=((2, 0),))
        self.expect("1 of 2 scores are not finite", scores=((math.nan, 0.8),))
        self.expect(r"from 0\.8 to 3.*no logits", scores=((3.0, 0.8),))
        self.expect("from -0.1 to 0.8.*no logits", scores=((-0.1, 0.8),))

    def test_choices(self):
        self.expect("k=3 labels cannot be chosen out of 2 classes: choose k from 1 to 2", k=3)
        self.expect("k=0", k=0, mode="strict")
        self.expect("threshold=1.5 is no probability", threshold=1.5)
        self.expect("unknown top-k mode 'strikt': did you mean 'strict'", mode="strikt")
