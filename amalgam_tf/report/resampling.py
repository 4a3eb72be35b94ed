"""Paired bootstrap over test images for several networks and seeds: intervals of differences of mean metrics.

The extension of `metrics.multilabel.bootstrap_difference` to several trainings of the same two networks: the images of a resample are the
same for all networks and seeds, and the difference of a resample is the mean over seeds. So the interval tells how much the choice of test
images explains of the mean difference; how much the seeds explain shows in the spread of the differences beside it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from amalgam_tf.errors import UserError
from amalgam_tf.metrics import multilabel
from amalgam_tf.report.runs import STUDENT, TEACHERS, FinishedRun, headline_ap, kept_streams

Scores = Mapping[str, np.ndarray]  # task -> probabilities [n]


@dataclass(frozen=True)
class Scored:
    """What scores.npz of a run holds of its binary tasks.

    Attributes:
        ids: [n] names of the test images.
        truth: task -> int8 [n] of 1, 0, -1 (unknown).
        networks: `student`, `teachers` (each task by the teacher of the student's kept stream) -> task -> float32 [n].
    """

    ids: np.ndarray
    truth: Mapping[str, np.ndarray]
    networks: Mapping[str, Scores]


def arrays_of(run: FinishedRun) -> dict[str, np.ndarray]:
    """Everything in the scores of a run, as `evaluate.write_scores` writes it.

    Raises:
        UserError: a damaged file.
    """
    try:
        with np.load(run.scores, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a ZIP breaks in many ways
        raise UserError(f"{run.scores} is damaged ({type(error).__name__}): delete it, or evaluate the run again") from error


def column(run: FinishedRun, arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """One array of those of `arrays_of`.

    Raises:
        UserError: there is none of that name.
    """
    if key not in arrays:
        raise UserError(f"{run.scores} has no {key!r}: it is of another run than the results.json beside it")
    return arrays[key]


def load(run: FinishedRun) -> Scored:
    """Reads the scores of a run.

    Raises:
        UserError: a damaged file, or one that lacks a task or a network; the sentence names file and key.
    """
    of, kept = partial(column, run, arrays_of(run)), kept_streams(run.results)
    tasks = [t for t in run.results["tasks"] if of(f"{STUDENT}/{t}").ndim == 1]  # categories have a column a class
    networks = {STUDENT: {t: of(f"{STUDENT}/{t}") for t in tasks}, TEACHERS: {t: of(f"{kept[t][0]}/{t}") for t in tasks}}
    return Scored(of("ids"), {t: of(f"truth/{t}") for t in tasks}, networks)


class Resamples:
    """Metrics of networks by task on the same resamples of the test images.

    Args:
        ids: [images] names.
        truth: task -> int [images].
        metric: one of `multilabel.METRICS.values()`.
        n: number of resamples.
        seed: of the resampling.
    """

    def __init__(self, ids: np.ndarray, truth: Mapping[str, np.ndarray], metric: Callable[..., float], n: int, seed: int = 0):
        self.ids, self.truth, self.metric, self.n, self.seed = ids, truth, metric, n, seed
        self._values: dict[bytes, np.ndarray] = {}  # rules that choose alike, and the teachers of all runs, are measured once

    def draws(self) -> Iterator[np.ndarray]:
        """The images as they are, then the resamples, int [images] each, as `bootstrap_difference` draws them."""
        images = len(self.ids)
        yield np.arange(images)
        draw = np.random.default_rng(self.seed).integers
        yield from (draw(images, size=images) for _ in range(self.n))

    def aligned(self, run: FinishedRun, scored: Scored, network: str) -> dict[str, np.ndarray]:
        """Scores of a run in the order of these images.

        Raises:
            UserError: other images, other truth.
        """
        place = {name: i for i, name in enumerate(scored.ids)}
        if set(place) != set(self.ids):
            raise UserError(f"{run.scores} is about other test images than the other runs: compare runs of one test set")
        order = [place[name] for name in self.ids]
        for task, truth in self.truth.items():
            if task not in scored.truth or not np.array_equal(scored.truth[task][order], truth):
                raise UserError(f"{run.scores} has another truth for {task} than the other runs: compare runs of one data section")
        return {task: scored.networks[network][task][order] for task in self.truth}

    def values(self, scores: Scores) -> np.ndarray:
        """Metric of every draw and task, [n + 1, tasks]; NaN where a draw has no positive."""
        key = hashlib.sha256(b"".join(np.ascontiguousarray(scores[t]).tobytes() for t in self.truth)).digest()
        if key not in self._values:
            rows = [[self.metric(truth=t[i], scores=scores[name][i]) for name, t in self.truth.items()] for i in self.draws()]
            self._values[key] = np.array(rows)
        return self._values[key]


def counts(images: int, n: int, seed: int = 0) -> np.ndarray:
    """[n + 1, images]: how often each image is in a resample, drawn as `metrics.multilabel.bootstrap_difference` draws.

    The first row is the images as they are.
    """
    draw = np.random.default_rng(seed).integers
    return np.stack([np.ones(images), *(np.bincount(draw(images, size=images), minlength=images) for _ in range(n))])


def interval(differences: np.ndarray) -> dict[str, Any]:
    """Of the differences of the resamples behind the one of the images as they are, [n + 1]: as `bootstrap_difference` returns it."""
    resampled = differences[1:][~np.isnan(differences[1:])]
    low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (np.nan, np.nan)
    values = {"difference": float(differences[0]), "low": float(low), "high": float(high)}
    return {**{k: None if np.isnan(v) else v for k, v in values.items()}, "resamples": len(resampled)}


def mean_differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n + 1, tasks] each -> mean over the tasks that have a value, [n + 1]; NaN where none has."""
    known = ~np.isnan(a - b)
    return np.divide(np.where(known, a - b, 0.0).sum(-1), known.sum(-1), out=np.full(len(a), np.nan), where=known.any(-1))


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a network of the runs of several seeds."""

    name: str
    network: str
    runs: Mapping[int, FinishedRun]


def compare(pairs: Sequence[tuple[Side, Side]], n: int = 1000) -> list[dict[str, Any]]:
    """Intervals of the difference in mean average precision for every pair of networks: per seed, and over all seeds together.

    Args:
        pairs: left minus right; only seeds that both have, with scores, are compared.
        n: number of resamples.

    Returns:
        Rows `{"a", "b", "seed": number or "all", "seeds": count, "difference", "low", "high", "resamples"}`, differences in [-1, 1]; no row
        for a pair without scores.

    Raises:
        UserError: runs that were not measured on the same images and truth.
    """
    read: dict[Path, Scored] = {}
    rows, resamples = [], None
    for a, b in pairs:
        each = []
        for seed in [s for s in a.runs if s in b.runs and a.runs[s].scores and b.runs[s].scores]:
            sides = []
            for side in (a, b):
                run = side.runs[seed]
                scored = read[run.scores] = read.get(run.scores) or load(run)
                if resamples is None:
                    metric = multilabel.METRICS[headline_ap(run.results["test"]["data"])]
                    resamples = Resamples(scored.ids, scored.truth, metric, n)
                sides.append(resamples.values(resamples.aligned(run, scored, side.network)))
            if not resamples.truth:  # categories only
                continue
            each.append(mean_differences(*sides))
            rows.append({"a": a.name, "b": b.name, "seed": seed, "seeds": 1, **interval(each[-1])})
        if len(each) > 1:
            rows.append({"a": a.name, "b": b.name, "seed": "all", "seeds": len(each), **interval(np.mean(each, 0))})
    return rows
