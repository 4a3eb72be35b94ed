"""Top-1 and balanced accuracy against scikit-learn, by hand, and under permutation."""

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from amalgam_tf.errors import UserError
from amalgam_tf.metrics import categorical as cat

CASE = st.lists(st.tuples(st.integers(-1, 2), st.lists(st.floats(-200, 200), min_size=3, max_size=3)), min_size=1, max_size=25)
examples = settings(max_examples=60, deadline=None)


def arrays(rows):
    return {"truth": np.array([t for t, _ in rows], dtype=np.int32), "scores": np.array([s for _, s in rows])}


def test_by_hand():
    truth, chosen = np.array([0, 0, 0, 1, 2, -1]), [0, 0, 1, 1, 0, 2]
    scores = np.eye(3)[chosen]
    assert cat.accuracy(truth=truth, scores=scores) == pytest.approx(3 / 5)
    assert cat.balanced_accuracy(truth=truth, scores=scores) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert cat.majority_rate(truth=truth) == pytest.approx(3 / 5)


@given(CASE.filter(lambda rows: any(t >= 0 for t, _ in rows)))
@examples
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_scikit_learn(rows):
    known = [r for r in rows if r[0] != -1]
    truth, chosen = [t for t, _ in known], [int(np.argmax(s)) for _, s in known]
    assert cat.accuracy(**arrays(rows)) == pytest.approx(accuracy_score(truth, chosen))
    assert cat.balanced_accuracy(**arrays(rows)) == pytest.approx(balanced_accuracy_score(truth, chosen))


@given(st.data())
@examples
def test_order_of_images_does_not_matter(data):
    rows = data.draw(CASE)
    other = data.draw(st.permutations(rows))
    for metric in (cat.accuracy, cat.balanced_accuracy):
        assert metric(**arrays(rows)) == pytest.approx(metric(**arrays(other)), nan_ok=True)


@given(CASE)
@examples
def test_masked_rows_do_not_matter(rows):
    other = [(t, [math.nan] * 3 if t == -1 else s) for t, s in rows]
    assert cat.accuracy(**arrays(rows)) == pytest.approx(cat.accuracy(**arrays(other)), nan_ok=True)


@given(CASE.filter(lambda rows: any(t >= 0 for t, _ in rows)))
@examples
def test_majority_is_the_best_constant_answer(rows):
    truth = arrays(rows)["truth"]
    constant = [cat.accuracy(truth=truth, scores=np.tile(np.eye(3)[c], (len(truth), 1))) for c in range(3)]
    assert cat.majority_rate(truth=truth) == pytest.approx(max(constant))


def test_ties_go_to_the_lowest_index():
    assert cat.accuracy(truth=np.array([0, 1]), scores=np.zeros((2, 2))) == 0.5


def test_nothing_known_is_nan():
    nothing = {"truth": np.array([-1]), "scores": np.zeros((1, 3))}
    assert (
        math.isnan(cat.accuracy(**nothing)) and math.isnan(cat.balanced_accuracy(**nothing)) and math.isnan(cat.majority_rate(truth=[-1]))
    )


def test_report():
    out = cat.report(truth=np.array([0, 1, 1, 1, -1]), scores=np.eye(2)[[0, 0, 1, 1, 1]])
    assert out == {"accuracy": 0.75, "balanced_accuracy": pytest.approx(5 / 6), "majority_rate": 0.75, "n": 4}
    assert json.loads(json.dumps(out, allow_nan=False)) == out
    nothing = cat.report(truth=np.array([-1, -1]), scores=np.zeros((2, 2)))
    assert nothing == {"accuracy": None, "balanced_accuracy": None, "majority_rate": None, "n": 0}


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        ([0, 1], np.zeros((3, 2)), "do not fit"),
        ([0, 1], np.zeros(2), "do not fit"),
        ([0, 2], np.zeros((2, 2)), "truth holds 2, which is none of the 2 classes"),
        ([0, -2], np.zeros((2, 2)), "truth holds -2"),
        ([0, 1], np.array([[0, 1], [math.nan, 0]]), "1 of 2 images have scores that are not finite"),
    ],
)
def test_refused_and_named(truth, scores, message):
    with pytest.raises(UserError, match=message):
        cat.accuracy(truth=truth, scores=scores)
    with pytest.raises(UserError, match=f"task 'sky': .*{message}"):
        cat.report(truth=truth, scores=scores, task="sky")
