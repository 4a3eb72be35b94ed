"""How well one class is chosen out of several: top-1 accuracy, its mean over classes, and the trivial predictor. NumPy, float64 inside.

Everywhere: `truth` int [n], the index of the class or `IGNORE` (-1, left out); `scores` float [n, classes], logits or probabilities. Among
tied scores the class of the lowest index is chosen, as NumPy's and TensorFlow's argmax do. Without any known truth the value is NaN.
"""

import math

import numpy as np

from amalgam_tf.errors import UserError

IGNORE = -1  # as in data/examples.py, which this room does not import


def accuracy(*, truth: np.ndarray, scores: np.ndarray) -> float:
    """Share of the images whose highest score is the right class.

    Raises:
        UserError: shapes that do not fit, a truth that is no class, a score that is not finite (so all functions here).
    """
    truth, scores = _known(truth, scores)
    return float(np.mean(scores.argmax(axis=1) == truth)) if len(truth) else math.nan


def balanced_accuracy(*, truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the classes that occur in `truth` of the share of their images that is recognised: every class counts the same.

    Equal to `sklearn.metrics.balanced_accuracy_score`, and to `accuracy` when the classes are equally frequent.
    """
    truth, scores = _known(truth, scores)
    right = scores.argmax(axis=1) == truth
    return float(np.mean([right[truth == c].mean() for c in np.unique(truth)])) if len(truth) else math.nan


def majority_rate(*, truth: np.ndarray) -> float:
    """Accuracy of always answering the class that is most frequent in `truth`: what any result has to beat."""
    truth = np.asarray(truth)
    known = truth[truth != IGNORE]
    return float(np.unique(known, return_counts=True)[1].max() / len(known)) if len(known) else math.nan


def report(*, truth: np.ndarray, scores: np.ndarray, task: str = "") -> dict:
    """All of the above for one task, ready for JSON.

    Returns:
        `{accuracy, balanced_accuracy, majority_rate, n}`; None stands for NaN, `n` counts the images with known truth.

    Raises:
        UserError: arrays that do not fit; names `task`, if given.
    """
    try:
        values = {f.__name__: f(truth=truth, scores=scores) for f in (accuracy, balanced_accuracy)}
    except UserError as error:
        raise UserError(f"task {task!r}: {error}" if task else str(error)) from error
    values["majority_rate"] = majority_rate(truth=truth)
    return {**{k: None if math.isnan(v) else v for k, v in values.items()}, "n": int((np.asarray(truth) != IGNORE).sum())}


def _known(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays, checked, without the images whose truth is unknown."""
    truth, scores = np.asarray(truth), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or scores.ndim != 2 or len(truth) != len(scores):
        raise UserError(f"truth of shape {truth.shape} and scores of shape {scores.shape} do not fit: pass [n] and [n, classes]")
    known = truth != IGNORE
    truth, scores = truth[known], scores[known]
    if wrong := set(np.unique(truth).tolist()) - set(range(scores.shape[1])):
        raise UserError(f"truth holds {min(wrong)}, which is none of the {scores.shape[1]} classes: use their index, or -1 for unknown")
    if not np.isfinite(scores).all():
        raise UserError(f"{int((~np.isfinite(scores)).any(axis=1).sum())} of {len(scores)} images have scores that are not finite")
    return truth.astype(np.int64), scores
