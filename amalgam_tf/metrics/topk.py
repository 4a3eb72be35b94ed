"""Precision, recall and F1 of the labels given to an image: C-P, C-R, C-F1, O-P, O-R, O-F1 of the multi-label literature (spec A18). NumPy.

Which labels an image is given, of a probability a class:

    strict       its k most probable classes
    threshold    those of its k most probable classes whose probability is above the threshold
    all          every class whose probability is above the threshold

AFK's table of COCO top-3 results is `threshold` with k = 3 and 0.5: its O-P and O-R say that about 2.3 labels were given an image, where
a strict top-3 gives exactly 3 (spec A18). ML-GCN's code (`overall_topk`) does the same, but counts exactly 0.5 as a "yes"; here it is a
"no", as in `multilabel.accuracy`.

C values are means over classes (one class counts as another), O values are over all labels at once. A ratio of nothing to nothing is 0: the
precision of a class that is never predicted (A18), and so the recall of a class without a positive image. This is sklearn's
`zero_division=0`; `classes_without_positive` says how many classes can only give 0. Over all of COCO there is none.

Unknown truth (`IGNORE`) is left out together with its score: it takes none of the k places.
"""

import numpy as np

from amalgam_tf.errors import UserError, one_of
from amalgam_tf.metrics.multilabel import IGNORE

MODES = ("strict", "threshold", "all")


def top_k(*, truth: np.ndarray, scores: np.ndarray, k: int = 3, threshold: float = 0.5, mode: str = "threshold") -> dict[str, float]:
    """How well the labels given to images fit the truth.

    Ties at the k-th place: of equally probable classes the one in the earlier column goes first, so the value depends on the order of the
    classes where probabilities are saturated, but on nothing else.

    Args:
        truth: int [n, classes] of 1, 0 and `IGNORE`.
        scores: probabilities [n, classes] in [0, 1].
        k: labels an image at most, 1 to classes; not used by mode `all`. An image with fewer classes of known truth gets fewer.
        threshold: a probability above it is a "yes"; not used by mode `strict`.
        mode: one of `MODES`.

    Returns:
        c_precision, c_recall: means over all classes; c_f1: their harmonic mean; o_precision, o_recall, o_f1: over all labels at once;
        macro_f1: mean over all classes of the class's own F1; all in [0, 1]. labels_per_image: positives an image; predictions_per_image:
        labels given an image (= labels_per_image * o_recall / o_precision); classes_without_positive: a count.

    Raises:
        UserError: shapes that do not fit, truth other than 1, 0, -1, scores that are not finite or no probabilities; k, threshold or mode
            out of range.
    """
    one_of("top-k mode", mode, MODES)
    truth, scores = _checked(truth, scores)
    if mode != "all" and not 1 <= k <= truth.shape[1]:
        raise UserError(f"k={k} labels cannot be chosen out of {truth.shape[1]} classes: choose k from 1 to {truth.shape[1]}")
    if not 0 <= threshold <= 1:
        raise UserError(f"threshold={threshold} is no probability: choose one from 0 to 1")
    given = truth != IGNORE
    if mode != "all":
        given &= _first(scores, k)
    if mode != "strict":
        given &= scores > threshold
    hits, predicted, positives = (x.sum(axis=0) for x in (given & (truth == 1), given, truth == 1))  # each [classes]
    c_precision, c_recall = _ratio(hits, predicted).mean(), _ratio(hits, positives).mean()
    values = {
        "c_precision": c_precision,
        "c_recall": c_recall,
        "c_f1": _ratio(2 * c_precision * c_recall, c_precision + c_recall),
        "o_precision": _ratio(hits.sum(), predicted.sum()),
        "o_recall": _ratio(hits.sum(), positives.sum()),
        "o_f1": _ratio(2 * hits.sum(), predicted.sum() + positives.sum()),  # the harmonic mean, in counts
        "macro_f1": _ratio(2 * hits, predicted + positives).mean(),
        "labels_per_image": _ratio(positives.sum(), len(truth)),
        "predictions_per_image": _ratio(predicted.sum(), len(truth)),
    }
    return {**{name: float(v) for name, v in values.items()}, "classes_without_positive": int((positives == 0).sum())}


def report(*, truth: dict[str, np.ndarray], scores: dict[str, np.ndarray], k: int = 3, threshold: float = 0.5) -> dict[str, dict]:
    """`{mode: top_k(...)}` over tasks, ready for JSON; with fewer than k tasks, k is their number.

    Args:
        truth: task -> int [n], all of the same images; their order decides ties.
        scores: task -> probabilities [n]; tasks without truth are left alone.

    Raises:
        UserError: as `top_k`.
    """
    arrays = {"truth": np.stack([truth[t] for t in truth], axis=1), "scores": np.stack([scores[t] for t in truth], axis=1)}
    return {mode: top_k(**arrays, k=min(k, len(truth)), threshold=threshold, mode=mode) for mode in MODES}


def _checked(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays; the score of an unknown truth is replaced by -1, behind every probability."""
    truth, scores = np.asarray(truth), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != scores.shape or not truth.shape[1]:
        raise UserError(f"truth of shape {truth.shape} and scores of shape {scores.shape} do not fit: pass two arrays [n, classes]")
    if not np.isin(truth, (0, 1, IGNORE)).all():
        raise UserError(f"truth holds {truth[~np.isin(truth, (0, 1, IGNORE))][0]}: use 1, 0 or -1 (unknown)")
    known = truth != IGNORE
    if bad := int((~np.isfinite(scores) & known).sum()):
        raise UserError(f"{bad} of {int(known.sum())} scores are not finite")
    if ((scores < 0) | (scores > 1))[known].any():
        low, high = scores[known].min(), scores[known].max()
        raise UserError(f"top-k metrics need probabilities, but the scores reach from {low:.4g} to {high:.4g}: pass no logits")
    return truth, np.where(known, scores, -1.0)


def _first(scores: np.ndarray, k: int) -> np.ndarray:
    """Whether a class is among the k highest of its row; of equal ones the earlier column comes first."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    first = np.zeros(scores.shape, bool)
    np.put_along_axis(first, order, True, axis=1)
    return first


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where both are 0 (there is no part of nothing)."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) != 0)
