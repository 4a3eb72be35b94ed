"""What SOKA says is better than what, over seeds: changes of the tasks' main metrics with paired intervals over the test images.

Metrics of maps are pooled from sums over the pixels of each image, so all resamples of a network are one matrix product; the images of a
resample are the same for all networks, tasks and seeds, and the change of a resample is the mean over seeds (as in `resampling.py`).

Claims are about the change of a task's main error, ln(left / right) as percent, 0 = no change: that has no unit, so that tasks of metres
and of degrees have a mean. The rule of `verdict`:

* fewer than two seeds, or no scores: no claim;
* holds / does not hold: the pooled interval and every seed lie on the claim's side / on the other side;
* within the seed spread: the seeds lie on both sides;
* no claim: the seeds agree, but the interval over images does not.

Sides: better is below 0, worse above; on par is below +5 % (the paper's own students are up to 7 % behind, in rmse), the same
is within 5 % either way, against more than 5 % off; differing is wholly off 0, against within 5 %.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from amalgam_tf.errors import UserError
from amalgam_tf.report import resampling
from amalgam_tf.report.runs import FinishedRun
from amalgam_tf.report.soka import ERROR, MAIN, OURS, STUDENT, TEACHERS, Pair, kind_of, measured, network_of

BETTER, WORSE, PAR, SAME, DIFFERS = "better", "worse", "on par", "same", "differs"
HOLDS, FAILS, SPREAD, NONE = "holds", "does not hold", "within the seed spread", "no claim"
MARGIN = 0.05
CHANGE = "change of error %"
OVER_TASKS, EVERY_SEED = "mean", "all"

Test = Callable[[float], bool]
_M = math.log1p(MARGIN)
_BELOW, _ABOVE, _NEAR = (lambda x: x < 0), (lambda x: x > 0), (lambda x: abs(x) < _M)
_MUCH_BELOW, _MUCH_ABOVE = (lambda x: x < -_M), (lambda x: x > _M)
_SIDES: dict[str, tuple[Sequence[Test], Sequence[Test]]] = {  # kind -> sides on which it holds, sides on which it does not
    BETTER: ([_BELOW], [_ABOVE]),
    WORSE: ([_ABOVE], [_BELOW]),
    PAR: ([lambda x: x < _M], [_MUCH_ABOVE]),
    SAME: ([_NEAR], [_MUCH_BELOW, _MUCH_ABOVE]),
    DIFFERS: ([_BELOW, _ABOVE], [_NEAR]),
}


class Claim(NamedTuple):
    """`left` compared with `right`: variants of `soka.VARIANTS`, on the right also `teachers`."""

    said: str
    kind: str
    left: str
    right: str


CLAIMS = (
    Claim("the student is on par with its teachers", PAR, OURS, TEACHERS),
    Claim("the whole method helps", BETTER, OURS, "kd"),
    Claim("MIA helps", BETTER, "kd_mia", "kd"),
    Claim("features aggregated as printed (S2) do as well", PAR, "printed_mia", OURS),
    Claim("ACCT helps", BETTER, OURS, "kd_mia"),
    Claim("ACCT helps, at equal task weights", BETTER, "equal", "kd_mia"),  # nothing but the schedule differs
    Claim("ACCT helps, and needs no auxiliary teacher", BETTER, "no_auxiliary", "kd_mia"),
    Claim("a strong auxiliary teacher helps", BETTER, "strong", "no_auxiliary"),
    Claim("a weak auxiliary teacher hurts", WORSE, "weak", "no_auxiliary"),
    Claim("the rate of the task weights does not matter", SAME, "fast_weights", OURS),
    Claim("GradNorm does not matter with eq. 8 as printed (S6)", SAME, "equal", OURS),
    # At equal weights both forms of eq. 8 are one, so `equal` is also the weighted form without GradNorm.
    Claim("GradNorm matters where eq. 8 is weighted (S6)", DIFFERS, "weighted", "equal"),
)


def verdict(kind: str, each: Sequence[float], low: float | None, high: float | None) -> str:
    """The rule on top of this module.

    Args:
        kind: of the claim.
        each: ln(left / right) of the main error, a value a seed.
        low: end of the pooled 95 % interval; None without scores.
        high: its other end.
    """
    if low is None or high is None or len(each) < 2:
        return NONE
    holds, fails = _SIDES[kind]
    for tests, word in ((holds, HOLDS), (fails, FAILS)):
        if any(all(map(test, (low, high, *each))) for test in tests):
            return word
    return NONE if any(all(map(test, each)) for test in (*holds, *fails)) else SPREAD


# -- who is compared --------------------------------------------------------------------------------------------------
def sides(claim: Claim, pair: Pair) -> dict[int, tuple[FinishedRun, FinishedRun]]:
    """seed -> (left, right), of the seeds that have both and where these are not one run; a weak teacher that is also the strong one
    (a pool with one candidate) is no weak one.
    """
    left = pair.runs(claim.left)
    right = left if claim.right == TEACHERS else pair.runs(claim.right)
    apart = {s: (left[s], right[s]) for s in left.keys() & right.keys() if claim.right == TEACHERS or left[s] is not right[s]}
    if claim.left == "weak":
        strong = pair.runs("strong")
        apart = {s: both for s, both in apart.items() if s not in strong or _auxiliary(both[0]) != _auxiliary(strong[s])}
    return dict(sorted(apart.items()))


def _auxiliary(run: FinishedRun) -> str:
    return run.results["auxiliary"]


def missing(claim: Claim, pair: Pair) -> list[str]:
    """Variants of a claim that no seed has."""
    return [v for v in (claim.left, claim.right) if v != TEACHERS and not pair.runs(v)]


# -- test images ------------------------------------------------------------------------------------------------------
class Images:
    """The test images of runs on one test part, and resamples of them.

    Args:
        found: runs with scores.
        n: number of resamples, drawn as `metrics.multilabel.bootstrap_difference` draws them.
        seed: of the resampling.

    Raises:
        UserError: damaged scores.
    """

    def __init__(self, found: Sequence[FinishedRun], n: int, seed: int = 0):
        self._sums: dict[Any, dict[str, np.ndarray]] = {}
        self._first: dict[str, tuple[np.ndarray, FinishedRun]] = {}
        self._values: dict[tuple, np.ndarray] = {}
        self.ids = sorted(self._column(found[0], "ids").tolist())
        self.weights = resampling.counts(len(self.ids), n, seed)

    def values(self, run: FinishedRun, who: str, task: str, metric: str) -> np.ndarray:
        """A metric over all pixels of every draw, [n + 1], as `metrics.dense.report` pools it; NaN where a draw has no valid pixel.

        Raises:
            UserError: other images or other valid pixels than the other runs', or scores that are not the run's.
        """
        network = network_of(run, who, task)
        key = (run.scores, network, task, metric)
        if key not in self._values:
            count, total = (self.weights @ self._ordered(run, f"{network}/{task}/{k}") for k in ("values", metric))
            self._same_pixels(run, network, task)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = total / count
            self._values[key] = np.sqrt(mean) if metric.endswith("rmse") else mean
            told = measured(run, who, task, metric)
            if told is None or not math.isclose(self._values[key][0], told, rel_tol=1e-6, abs_tol=1e-12):
                raise UserError(f"{run.scores} gives another {metric} of {task} than the results.json beside it: it is of another run")
        return self._values[key]

    def _same_pixels(self, run: FinishedRun, network: str, task: str) -> None:
        valid = self._ordered(run, f"{network}/{task}/values")
        theirs, other = self._first.setdefault(task, (valid, run))
        if not np.array_equal(valid, theirs):
            raise UserError(f"{run.scores} has other valid pixels for {task} than {other.scores}: compare runs of one test set")

    def _ordered(self, run: FinishedRun, key: str) -> np.ndarray:
        """A column in the order of these images, [images]."""
        ids = self._column(run, "ids")
        if sorted(ids.tolist()) != self.ids:
            raise UserError(f"{run.scores} is about other test images than the other runs: compare runs of one test set")
        return self._column(run, key)[np.argsort(ids)]

    def _column(self, run: FinishedRun, key: str) -> np.ndarray:
        if run.scores not in self._sums:  # without the histograms, 1800 numbers an image that no main metric needs
            self._sums[run.scores] = {k: v for k, v in resampling.arrays_of(run).items() if not k.endswith("/histogram")}
        if key not in self._sums[run.scores]:
            raise UserError(f"{run.scores} has no {key!r}: it is of another run than the results.json beside it")
        return self._sums[run.scores][key]


# -- differences ------------------------------------------------------------------------------------------------------
class _Seed(NamedTuple):
    """Left and right of one seed as measured, and in every draw ([n + 1]; None without scores)."""

    left: float
    right: float
    left_draws: np.ndarray | None
    right_draws: np.ndarray | None


def differences(pair: Pair, images: Images | None) -> list[dict[str, Any]]:
    """Every claim that a pair's runs allow.

    Args:
        pair: of tasks.
        images: of its test part; None if no run has scores.

    Returns:
        Rows, of every seed and of all together (`seed` = "all"): `{"claim", "left", "right", "task", "metric", "seed", "seeds": count,
        "left_value", "right_value" (of several seeds the means), "difference", "low", "high": 95 % interval over test images, "smallest",
        "largest": of the seeds, "resamples", "verdict"}`. The metrics are the task's main ones in their own units, left - right, without
        a verdict; and `CHANGE`, the main error's 100 (left / right - 1), of the tasks and of their mean, with one. What scores are
        missing for has no interval (None).

    Raises:
        UserError: scores that do not belong together, or damaged ones.
    """
    rows = []
    for claim in CLAIMS:
        both = sides(claim, pair)
        claim = claim._replace(left=pair.called(claim.left)) if both else claim
        changes: list[dict[int, tuple[float, np.ndarray | None]]] = []
        for task in pair.tasks if both else ():
            kind = kind_of(next(iter(both.values()))[0], task)
            for metric in MAIN[kind]:
                each = {s: v for s, of in both.items() if (v := _seed(claim, of, task, metric, images))}
                apart = {s: (v.left - v.right, _with(np.subtract, v)) for s, v in each.items()}
                rows += _rows(claim, task, metric, apart, each)
                if metric == ERROR[kind]:
                    positive = {s: v for s, v in each.items() if v.left > 0 and v.right > 0}
                    changes.append({s: (math.log(v.left / v.right), _with(_log_ratio, v)) for s, v in positive.items()})
                    rows += _rows(claim, task, CHANGE, changes[-1], positive)
        common = set.intersection(*map(set, changes)) if len(changes) > 1 else set()
        rows += _rows(claim, OVER_TASKS, CHANGE, {s: _mean([of[s] for of in changes]) for s in sorted(common)}, {})
    return rows


def _seed(claim: Claim, both: tuple[FinishedRun, FinishedRun], task: str, metric: str, images: Images | None) -> _Seed | None:
    asked = [(run, who, task, metric) for run, who in zip(both, (STUDENT, TEACHERS if claim.right == TEACHERS else STUDENT), strict=True)]
    left, right = (measured(*a) for a in asked)
    if left is None or right is None:
        return None
    draws = [images.values(*a) for a in asked] if images and all(run.scores for run in both) else [None, None]
    return _Seed(left, right, *draws)


def _with(fn: Callable[[np.ndarray, np.ndarray], np.ndarray], of: _Seed) -> np.ndarray | None:
    return None if of.left_draws is None else fn(of.left_draws, of.right_draws)


def _log_ratio(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    known = (left > 0) & (right > 0)
    return np.log(np.divide(left, right, out=np.ones_like(left), where=known), out=np.full_like(left, np.nan), where=known)


def _mean(each: Sequence[tuple[float, np.ndarray | None]]) -> tuple[float, np.ndarray | None]:
    draws = [d for _, d in each]
    return sum(v for v, _ in each) / len(each), None if any(d is None for d in draws) else np.mean(draws, 0)


def _rows(
    claim: Claim, task: str, metric: str, seeds: Mapping[int, tuple[float, np.ndarray | None]], values: Mapping[int, _Seed]
) -> list[dict[str, Any]]:
    """One of every seed, and that of all; `seeds`: difference (or log ratio) and its draws."""
    if not seeds:
        return []
    ways = [(str(s), [s]) for s in seeds] if len(seeds) > 1 else []
    return [_row(claim, task, metric, name, {s: seeds[s] for s in of}, values) for name, of in [*ways, (EVERY_SEED, list(seeds))]]


def _row(claim: Claim, task: str, metric: str, name: str, seeds: Mapping, values: Mapping[int, _Seed]) -> dict[str, Any]:
    middle, draws = _mean(list(seeds.values()))
    each = [v for v, _ in seeds.values()]
    about = {"low": None, "high": None, "resamples": 0} if draws is None else resampling.interval(draws)
    shown = {**about, "difference": middle, "smallest": min(each), "largest": max(each)}
    said = ""
    if metric == CHANGE:
        said = verdict(claim.kind, each, shown["low"], shown["high"]) if name == EVERY_SEED else ""
        shown |= {k: None if shown[k] is None else 100 * math.expm1(shown[k]) for k in ("low", "high", "difference", "smallest", "largest")}
    own = [values[s] for s in seeds if s in values]
    means = {f"{side}_value": sum(getattr(v, side) for v in own) / len(own) if own else None for side in ("left", "right")}
    who = {"claim": claim.said, "left": claim.left, "right": claim.right, "task": task, "metric": metric, "seed": name, "seeds": len(each)}
    return {**who, **means, **shown, "verdict": said}
