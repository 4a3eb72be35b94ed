"""How well the presence of things is told: average precision under three conventions, accuracy, trivial predictors. NumPy, float64 inside.

Everywhere: `truth` int [n] of 1, 0 and `IGNORE` (-1, left out together with its score); `scores` float [n], higher = surer.

Ties. All average precisions here take the images of one score as one step (a threshold cannot part them), so no value depends on the order
of the images. The VOC devkit sorts by descending confidence and leaves tied images in the order of its list; so does a copy of it, and a
constant score then gives anything between the best and the worst AP. Here it gives the prevalence. Without ties all agree.

Nothing to find. Without a positive image an average precision is NaN; means leave such tasks out and say over how many they go.

Which one to compare (spec E1): `ap_11pt` with VOC2007 results, `ap_all` with VOC2010 and later. The "AP" printed in AFK's tables behaves as
`accuracy`, on which an all-negative predictor reaches 92.9: hold those tables against `accuracy` only, beside `all_negative_accuracy`.
"""

from collections.abc import Callable
import math

import numpy as np

from amalgam_tf.errors import UserError

IGNORE = -1  # as in data/examples.py, which this room does not import


def ap_11pt(*, truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or more (VOC2007 devkit, VOCevalcls.m).

    Returns:
        Value in [0, 1], NaN without a positive.

    Raises:
        UserError: shapes that do not fit, truth other than 1, 0, -1, a score that is not finite (so all functions here).
    """
    hits, taken, positives = _curve(*_known(truth, scores))
    if not positives:
        return math.nan
    best = _envelope(hits / taken)
    # integers: with recalls as fractions 3/10 >= 0.1 * 3 would fail. Full recall is always reached, so the index exists.
    first = [np.argmax(10 * hits >= tenth * positives) for tenth in range(11)]
    return float(np.mean(best[first]))


def ap_all(*, truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under the curve of the best precision at a recall or more (VOC2010 and later devkits, VOCap.m).

    Returns:
        Value in [0, 1], NaN without a positive.
    """
    hits, taken, positives = _curve(*_known(truth, scores))
    return float(np.sum(np.diff(hits, prepend=0) * _envelope(hits / taken)) / positives) if positives else math.nan


def ap_sklearn(*, truth: np.ndarray, scores: np.ndarray) -> float:
    """Sum over thresholds of precision times gain in recall, without interpolation.

    Equal to `sklearn.metrics.average_precision_score`, ties included; only where there is no positive sklearn warns and returns 0.

    Returns:
        Value in [0, 1], NaN without a positive.
    """
    hits, taken, positives = _curve(*_known(truth, scores))
    return float(np.sum(np.diff(hits, prepend=0) * hits / taken) / positives) if positives else math.nan


def accuracy(*, truth: np.ndarray, scores: np.ndarray) -> float:
    """Share of the images on the right side of 0.5; exactly 0.5 is a "no".

    Args:
        truth: int [n].
        scores: probabilities [n] in [0, 1].

    Raises:
        UserError: besides the usual, a score outside [0, 1]: logits were passed.
    """
    truth, scores = _known(truth, scores)
    if len(scores) and not 0 <= scores.min() <= scores.max() <= 1:
        raise UserError(f"accuracy needs probabilities, but the scores reach from {scores.min():.4g} to {scores.max():.4g}: pass no logits")
    return float(np.mean((scores > 0.5) == truth)) if len(truth) else math.nan


def balanced_accuracy(*, truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean of the shares of the positives and of the negatives that are on the right side of 0.5: 1/2 for any constant answer.

    Equal to `sklearn.metrics.balanced_accuracy_score`: where only one of the two occurs, its share alone.

    Args:
        truth: int [n].
        scores: probabilities [n] in [0, 1].

    Raises:
        UserError: as `accuracy`.
    """
    truth, scores = _known(truth, scores)
    each = [accuracy(truth=truth[truth == side], scores=scores[truth == side]) for side in np.unique(truth)]
    return float(np.mean(each)) if each else math.nan


def all_negative_accuracy(*, truth: np.ndarray) -> float:
    """Accuracy of always answering "no": what any accuracy has to beat. NaN without any known truth."""
    truth, _ = _known(truth, np.zeros(np.shape(truth)))
    return float(np.mean(truth == 0)) if len(truth) else math.nan


def majority_rate(*, truth: np.ndarray) -> float:
    """Accuracy of always giving the commoner answer, also where that is "yes" (CUST spec C14). NaN without any known truth."""
    negatives = all_negative_accuracy(truth=truth)
    return max(negatives, 1 - negatives)


def prevalence(*, truth: np.ndarray) -> float:
    """Share of positives: also the average precision of a constant score. NaN without any known truth."""
    truth, _ = _known(truth, np.zeros(np.shape(truth)))
    return float(np.mean(truth)) if len(truth) else math.nan


AVERAGE_PRECISIONS = {"ap_11pt": ap_11pt, "ap_all": ap_all, "ap_sklearn": ap_sklearn}
METRICS = {**AVERAGE_PRECISIONS, "accuracy": accuracy, "balanced_accuracy": balanced_accuracy}
TRIVIAL = {"all_negative_accuracy": all_negative_accuracy, "majority_rate": majority_rate, "prevalence": prevalence}


def report(*, truth: dict[str, np.ndarray], scores: dict[str, np.ndarray]) -> dict:
    """Every metric of every task and their means, ready for JSON.

    Args:
        truth: task -> int [n].
        scores: task -> probabilities [n]; tasks without truth are left alone.

    Returns:
        `{task: {ap_11pt, ap_all, ap_sklearn, accuracy, balanced_accuracy, all_negative_accuracy, majority_rate, prevalence, positives, n},
        ..., "mean": {all but the last two, "ap_tasks": number of tasks with a positive}}`. Values in [0, 1], None for NaN; `n` counts the
        images with known truth.

    Raises:
        UserError: a task without scores, with scores that are not finite or no probabilities, or of wrong shape (it is named); a task
            called mean.
    """
    if "mean" in truth:
        raise UserError("a task called 'mean' would overwrite the mean over tasks in the report: rename it")
    tasks = {name: _row(name, truth[name], scores) for name in truth}
    columns = {k: [t[k] for t in tasks.values() if t[k] is not None] for k in (*METRICS, *TRIVIAL)}
    mean = {k: float(np.mean(v)) if v else None for k, v in columns.items()}
    return {**tasks, "mean": {**mean, "ap_tasks": len(columns["ap_all"])}}


def _row(name: str, truth: np.ndarray, scores: dict[str, np.ndarray]) -> dict:
    if name not in scores:
        raise UserError(f"there are no scores for task {name!r}: there are scores for {', '.join(scores) or 'nothing'}")
    try:
        values = {k: f(truth=truth, scores=scores[name]) for k, f in METRICS.items()} | {k: f(truth=truth) for k, f in TRIVIAL.items()}
    except UserError as error:
        raise UserError(f"task {name!r}: {error}") from error
    truth = np.asarray(truth)
    counts = {"positives": int((truth == 1).sum()), "n": int((truth != IGNORE).sum())}
    return {**{k: None if math.isnan(v) else v for k, v in values.items()}, **counts}


def bootstrap_difference(
    *,
    truth: dict[str, np.ndarray],
    scores_a: dict[str, np.ndarray],
    scores_b: dict[str, np.ndarray],
    metric: Callable[..., float],
    seed: int = 0,
    n: int = 1000,
) -> dict:
    """Paired bootstrap over images: is the mean metric of a over tasks above that of b by more than the choice of test images explains?

    Each resample draws as many images as there are, with replacement, the same for both sides and all tasks (an image carries all its
    labels). A task without a positive in a resample is left out of that resample's mean on both sides alike.

    Args:
        truth: task -> int [images], all of the same images in the same order.
        scores_a: task -> float [images]; scores_b likewise.
        metric: one of `METRICS.values()`, called as `metric(truth=, scores=)`.
        seed: of the resampling; the same seed gives the same interval.
        n: number of resamples.

    Returns:
        `{"difference": a - b on the images as they are, "low": 2.5th percentile, "high": 97.5th, "resamples": how many had a value}`;
        None for NaN.

    Raises:
        UserError: no task, tasks of different numbers of images, missing scores.
    """
    sizes = {len(side[k]) if k in side else None for side in (truth, scores_a, scores_b) for k in truth}
    if len(sizes) != 1 or None in sizes or 0 in sizes:
        raise UserError("a paired comparison needs truth and both scores for the same images of at least one task")
    arrays = [[np.asarray(side[k]) for k in truth] for side in (truth, scores_a, scores_b)]
    (images,) = sizes
    draw = np.random.default_rng(seed).integers
    resampled = np.array([_mean_difference(arrays, draw(images, size=images), metric) for _ in range(n)])
    resampled = resampled[~np.isnan(resampled)]
    low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (math.nan, math.nan)
    values = {"difference": _mean_difference(arrays, np.arange(images), metric), "low": float(low), "high": float(high)}
    return {**{k: None if math.isnan(v) else v for k, v in values.items()}, "resamples": len(resampled)}


def _mean_difference(arrays: list[list[np.ndarray]], images: np.ndarray, metric: Callable[..., float]) -> float:
    tasks = zip(*arrays, strict=True)
    each = [metric(truth=t[images], scores=a[images]) - metric(truth=t[images], scores=b[images]) for t, a, b in tasks]
    each = [d for d in each if not math.isnan(d)]
    return float(np.mean(each)) if each else math.nan


def _known(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays, checked, without the images whose truth is unknown."""
    truth, scores = np.asarray(truth), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape:
        raise UserError(f"truth of shape {truth.shape} and scores of shape {scores.shape} do not fit: pass two arrays of shape [n]")
    known = truth != IGNORE
    truth, scores = truth[known], scores[known]
    if not np.isin(truth, (0, 1)).all():
        raise UserError(f"truth holds {truth[~np.isin(truth, (0, 1))][0]}: use 1, 0 or -1 (unknown)")
    if bad := int((~np.isfinite(scores)).sum()):
        raise UserError(f"{bad} of {len(scores)} scores are not finite")
    return truth.astype(np.int64), scores


def _curve(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Lowering the threshold from score to score: positives found so far, images taken so far, positives in all."""
    order = np.argsort(-scores)
    found, ordered = np.cumsum(truth[order]), scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(order) else np.array([], dtype=np.int64)
    return found[last], last + 1, int(truth.sum())


def _envelope(precision: np.ndarray) -> np.ndarray:
    """The best precision at this threshold or a lower one."""
    return np.maximum.accumulate(precision[::-1])[::-1]
