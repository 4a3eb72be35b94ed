"""What Customize says is better than what, over seeds: mean differences of accuracy and balanced accuracy with paired intervals.

The images of a resample are the same for all networks, tasks and seeds of a family of runs, and the difference of a resample is the mean
over seeds (as in `resampling.py`). Both metrics count images on the right side, so all resamples of a network are one matrix product.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amalgam_tf.errors import UserError
from amalgam_tf.report import resampling
from amalgam_tf.report.customize import ACCURACY, BALANCED, COMPONENT, Kind, kind_of, teachers_of
from amalgam_tf.report.runs import STUDENT, FinishedRun, Group

MEAN, BEST = "mean", "best"
OVER_TASKS = "mean"  # the row of all tasks together


class Side(NamedTuple):
    """One side of a comparison.

    Attributes:
        runs: by seed.
        which: `student`; or of its teachers of the task `mean` or `best` (the best on the whole test part: in favour of the teachers).
    """

    runs: Mapping[int, FinishedRun]
    which: str = STUDENT


class Claim(NamedTuple):
    """`name` is `left - right`; claims of one name about several tasks also get a mean over them."""

    name: str
    task: str
    left: Side
    right: Side


# -- which claims there are -------------------------------------------------------------------------------------------
def claims(groups: Sequence[Group]) -> list[Claim]:
    """Every comparison that groups of one family allow, in the order of the paper."""
    kinds = [(g, kind_of(g.first)) for g in groups]
    names = {id(g): _name(g, kind, kinds) for g, kind in kinds}
    found = [c for g, kind in kinds if kind.whole for c in _against_teachers(g, kind, names[id(g)])]
    for g, kind in kinds:
        for other, theirs in kinds:
            if kind.whole and kind.stage == theirs.stage and set(g.first.results["tasks"]) == set(other.first.results["tasks"]):
                if name := _pair(g, kind, other, theirs, names[id(g)]):
                    found += [Claim(name, t, _side(g), _side(other)) for t in g.first.results["tasks"]]
    return found


def _name(group: Group, kind: Kind, every: Sequence[tuple[Group, Kind]]) -> str:
    """`component` where the task has only one whole component of source nets of one size, so that those of all tasks share a name."""
    tasks = group.first.results["tasks"]
    alike = [k for g, k in every if k.whole and k.stage == COMPONENT and not k.mixed and g.first.results["tasks"] == tasks]
    return COMPONENT if kind.stage == COMPONENT and not kind.mixed and len(alike) == 1 else group.label


def _side(group: Group, which: str = STUDENT) -> Side:
    return Side({r.seed: r for r in group.runs}, which)


def _against_teachers(group: Group, kind: Kind, name: str) -> Iterator[Claim]:
    taught_by = "component" if kind.stage != COMPONENT and not kind.direct else "source"
    for task in group.first.results["tasks"]:
        if len(teachers_of(group.first.results, task)) == 1:
            yield Claim(f"{name} - its {taught_by} net", task, _side(group), _side(group, MEAN))
        else:
            for which in (MEAN, BEST):
                yield Claim(f"{name} - {which} of its {taught_by} nets", task, _side(group), _side(group, which))


def _pair(group: Group, kind: Kind, other: Group, theirs: Kind, name: str) -> str:
    """Name of the comparison of the whole method with another student of its stage and tasks; "" if there is none."""
    mine, others = (set(g.first.results["teachers"]) for g in (group, other))
    if not theirs.whole:
        left = "whole" if name == COMPONENT else f"{name}: all component nets" if theirs.select == "image" else f"{name}: whole"
        return f"{left} - {other.label.rpartition(', ')[2]}" if mine == others and kind.mixed == theirs.mixed else ""
    if kind.stage != COMPONENT:
        return "two-stage - one-shot" if theirs.direct and not kind.direct else ""
    if kind.mixed != theirs.mixed:
        return "source nets of different sizes - of one size" if kind.mixed and kind.teachers == theirs.teachers else ""
    return f"{kind.teachers} source nets - {theirs.teachers}" if mine > others and theirs.teachers == 1 else ""


# -- test images ------------------------------------------------------------------------------------------------------
class Images:
    """The test images of a family of runs, by name, and resamples of them.

    Args:
        found: runs with scores.
        n: number of resamples, drawn as `metrics.multilabel.bootstrap_difference` draws them.
        seed: of the resampling.

    Raises:
        UserError: damaged scores.
    """

    def __init__(self, found: Sequence[FinishedRun], n: int, seed: int = 0):
        self._arrays: dict[Path, Mapping[str, np.ndarray]] = {}
        ids = sorted({i for run in found for i in self._column(run, "ids").tolist()})
        self._place = {name: i for i, name in enumerate(ids)}
        self._truth: dict[str, tuple[np.ndarray, FinishedRun]] = {}
        self._values: dict[tuple, np.ndarray] = {}
        self.weights = resampling.counts(len(ids), n, seed).astype(np.float32)  # sums below 2**24 are exact in float32

    def values(self, run: FinishedRun, network: str, task: str, metric: str) -> np.ndarray:
        """A metric in every draw, [n + 1]; NaN where a draw has no image of known truth.

        Raises:
            UserError: other images or another truth than the family's other runs, or scores that are not the run's.
        """
        key = (run.scores, network, task)
        if (*key, metric) not in self._values:
            truth, right = self._right(run, network, task)
            # classes that a draw does not have are left out of its mean, as the metrics do
            with np.errstate(invalid="ignore", divide="ignore"):
                seen = np.stack([self.weights @ (truth == c) for c in np.unique(truth[truth >= 0])], -1)
                hits = np.stack([self.weights @ (right & (truth == c)) for c in np.unique(truth[truth >= 0])], -1)
                self._values[*key, ACCURACY] = hits.sum(-1) / seen.sum(-1)
                self._values[*key, BALANCED] = np.where(seen > 0, hits / seen, 0).sum(-1) / (seen > 0).sum(-1)
        return self._values[*key, metric]

    def _right(self, run: FinishedRun, network: str, task: str) -> tuple[np.ndarray, np.ndarray]:
        """Truth, -1 where unknown, and whether the network is right, both [images]."""
        where = [self._place[i] for i in self._column(run, "ids").tolist()]
        known, scores = self._column(run, f"truth/{task}"), self._column(run, f"{network}/{task}")
        truth, right = np.full(len(self._place), -1), np.zeros(len(self._place), bool)
        truth[where] = known
        right[where] = ((scores > 0.5) if scores.ndim == 1 else scores.argmax(-1)) == known
        theirs, other = self._truth.setdefault(task, (truth, run))
        if not np.array_equal(theirs, truth):
            raise UserError(f"{run.scores} has other images or another truth for {task} than {other.scores}: compare runs of one test set")
        return truth, right

    def _column(self, run: FinishedRun, key: str) -> np.ndarray:
        if run.scores not in self._arrays:
            self._arrays[run.scores] = resampling.arrays_of(run)
        return resampling.column(run, self._arrays[run.scores], key)


# -- differences ------------------------------------------------------------------------------------------------------
def differences(found: Sequence[Claim], n: int = 1000) -> list[dict[str, Any]]:
    """Mean differences over seeds.

    Args:
        found: claims about runs of one family (one test set).
        n: number of resamples.

    Returns:
        Rows `{"claim", "task", "metric", "seeds": count, "difference": mean over seeds, "smallest", "largest": of the seeds, "low", "high":
        95 % interval over test images, "resamples"}`, differences in [-1, 1]. Without scores of all its seeds a row has no interval (None).

    Raises:
        UserError: scores of other images than the other runs', or damaged ones.
    """
    by_name: dict[str, dict[str, Claim]] = {}
    for claim in found:
        by_name.setdefault(claim.name, {})[claim.task] = claim
    scored = [r for c in found for side in (c.left, c.right) for r in side.runs.values() if r.scores]
    images, rows = Images(scored, n) if scored else None, []
    for metric in (ACCURACY, BALANCED):
        for name, by_task in by_name.items():
            each = {task: _by_seed(claim, metric, images) for task, claim in by_task.items()}
            rows += [row for task, seeds in each.items() if (row := _row(name, task, metric, seeds))]
            if len(each) > 1:
                common = set.intersection(*(set(s) for s in each.values()))
                rows += [
                    row for row in [_row(name, OVER_TASKS, metric, {s: _mean([of[s] for of in each.values()]) for s in common})] if row
                ]
    return rows


def _by_seed(claim: Claim, metric: str, images: Images | None) -> dict[int, tuple[float, np.ndarray | None]]:
    """Seed -> (difference, its draws [n + 1]; None without scores), of the seeds that both sides have."""
    found = {}
    for seed in sorted(claim.left.runs.keys() & claim.right.runs.keys()):
        sides = [(side.runs[seed], side.which) for side in (claim.left, claim.right)]
        left, right = (_side_value(run, which, claim.task, metric, _reported) for run, which in sides)
        draws = None
        if images and all(run.scores for run, _ in sides):
            left_draws, right_draws = (_side_value(run, which, claim.task, metric, images.values) for run, which in sides)
            draws = left_draws - right_draws
        found[seed] = (left - right, draws)
    return found


def _reported(run: FinishedRun, network: str, task: str, metric: str) -> float:
    return run.results["test"][network]["per_task"][task][metric]


def _side_value(run: FinishedRun, which: str, task: str, metric: str, of: Callable[..., Any]) -> Any:
    if which == STUDENT:
        return of(run, STUDENT, task, metric)
    names = teachers_of(run.results, task)
    if which == BEST:
        return of(run, max(names, key=lambda name: _reported(run, name, task, metric)), task, metric)
    return sum(of(run, name, task, metric) for name in names) / len(names)


def _mean(each: Sequence[tuple[float, np.ndarray | None]]) -> tuple[float, np.ndarray | None]:
    draws = [d for _, d in each]
    return sum(d for d, _ in each) / len(each), None if any(d is None for d in draws) else np.mean(draws, 0)


def _row(name: str, task: str, metric: str, seeds: Mapping[int, tuple[float, np.ndarray | None]]) -> dict[str, Any] | None:
    if not seeds:
        return None
    middle, draws = _mean(list(seeds.values()))
    each = [d for d, _ in seeds.values()]
    about = {"low": None, "high": None, "resamples": 0} if draws is None else resampling.interval(draws)
    spread = {"difference": middle, "smallest": min(each), "largest": max(each)}
    return {"claim": name, "task": task, "metric": metric, "seeds": len(each), **about, **spread}
