"""Where a component net's accuracy and balanced accuracy come from: its source nets, what it was told to follow, itself.

A component net follows on every image the source net of smallest entropy (CUST eqs. 5 and 6). What is followed can be measured like a
network: where it differs from the source nets the choice did it, where the component net differs from it the training did. How often each
says yes tells a moved operating point (balanced accuracy falls, average precision does not) from a worse ranking.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import math

import numpy as np
import tensorflow as tf

from amalgam_tf import choice
from amalgam_tf.errors import UserError
from amalgam_tf.metrics import categorical, multilabel
from amalgam_tf.report import resampling, text
from amalgam_tf.report.customize import ACCURACY, BALANCED, COMPONENT, teachers_of
from amalgam_tf.report.figures import OnTask
from amalgam_tf.report.runs import STUDENT, FinishedRun, Group, headline_ap

SOURCES, FOLLOWED, TRUTH = "mean of its source nets", "what is followed", "truth"
YES, AT_RATE = "called_positive", "balanced_accuracy_at_sources_rate"
COLUMNS = {
    "ap_11pt": "AP (11 points) %",
    "ap_all": "AP %",
    YES: "called positive %",
    ACCURACY: "accuracy %",
    BALANCED: "balanced %",
    AT_RATE: "balanced % at the sources' rate",
}
HEADING = "Where the operating point comes from"
FOLLOWING = (
    "`what is followed`: of every test image the answer of the source net of smallest entropy (eqs. 5 and 6; of a tie the first), "
    "recomputed from the test probabilities and measured like a network: up to there the choice of teachers tells, from there to the "
    "component net its training."
)
BINARY = (
    "Called positive: share of the images above the threshold, 0.5; `truth`: the share that is. At the sources' rate: the threshold moved "
    "so that yes is said as often as by the source nets on average. It is found on the test part: an analysis, not a result. What comes "
    "back there was lost to the operating point, not to the ranking."
)
_SUREST = 100.0  # log-odds behind any float32 probability of 0 or 1: entropy of such an answer is 0 and not a NaN

Values = dict[str, dict[str, float]]  # network -> metric -> value in [0, 1]


# -- one run ----------------------------------------------------------------------------------------------------------
def followed(taught: Sequence[np.ndarray]) -> np.ndarray:
    """The answer of the surest source net of every image, by the rule of training (`choice.entropy`, `choice.select_teacher`).

    Args:
        taught: probabilities of each source net in the order of the run's teachers; [n] of a binary task, [n, classes] of categories.

    Returns:
        Of the same shape as each. Differences that float32 probabilities do not hold (both within 1e-7 of certainty) are ties: the first.
    """
    surest = choice.select_teacher([_entropy(p) for p in taught]).numpy()
    return np.stack(taught)[surest, np.arange(len(surest))]


def _entropy(probabilities: np.ndarray) -> tf.Tensor:
    """[n], nats; of one label the same for a sigmoid as for two-way softmax."""
    p = probabilities.astype(np.float64)
    if p.ndim == 2:
        return choice.entropy(np.log(np.maximum(p, np.finfo(np.float32).tiny)), "softmax")
    with np.errstate(divide="ignore"):
        log_odds = np.log(p) - np.log1p(-p)
    return choice.entropy(np.clip(log_odds, -_SUREST, _SUREST)[:, None], "sigmoid")


def at_rate(scores: np.ndarray, rate: float) -> np.ndarray:
    """Answers 1.0 or 0.0: yes above the quantile of the scores that leaves `rate` of them there, to within one image.

    Scores that tie with the threshold are a no, so that a constant score never says yes.

    Args:
        scores: [n], n > 0.
        rate: share of yes in [0, 1].
    """
    return (scores > np.quantile(scores, 1 - rate)).astype(np.float64)


def of_run(run: FinishedRun, task: str) -> Values:
    """What the scores of a component net's run say of one of its tasks.

    Args:
        run: with scores.
        task: binary or of categories.

    Returns:
        `mean of its source nets`, `what is followed`, `student` -> metrics of a binary task: average precision as shown for the test part,
        share of images called positive, accuracy, balanced accuracy, but for the first also balanced accuracy at the mean rate of the
        source nets; and `truth` -> its share of positives. Of categories accuracy only. What is not defined is left out; nothing at all
        without an image of known truth.

    Raises:
        UserError: damaged scores, or those of another run; names the file.
    """
    arrays, names = resampling.arrays_of(run), teachers_of(run.results, task)
    truth, student, *taught = (resampling.column(run, arrays, f"{who}/{task}") for who in ("truth", STUDENT, *names))
    known = truth != multilabel.IGNORE
    if not known.any():
        return {}
    truth, student, taught = truth[known], student[known], [p[known] for p in taught]
    of = _categories if student.ndim == 2 else _binary(headline_ap(run.results["test"]["data"]))
    try:
        each = [of(truth, p) for p in taught]
        answers = {FOLLOWED: followed(taught), STUDENT: student}
        found = {SOURCES: _mean(each), **{who: of(truth, p) for who, p in answers.items()}}
    except UserError as error:
        raise UserError(f"{run.scores}, task {task!r}: {error}") from error
    if student.ndim == 1:
        for who, p in answers.items():
            found[who][AT_RATE] = multilabel.balanced_accuracy(truth=truth, scores=at_rate(p, found[SOURCES][YES]))
        found[TRUTH] = {YES: multilabel.prevalence(truth=truth)}
    return {who: {m: v for m, v in values.items() if not math.isnan(v)} for who, values in found.items()}


def _categories(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    return {ACCURACY: categorical.accuracy(truth=truth, scores=scores)}


def _binary(ap: str) -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """Metrics of a binary task, average precision by the name of its convention."""

    def values(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        measured = {m: multilabel.METRICS[m](truth=truth, scores=scores) for m in (ap, ACCURACY, BALANCED)}
        return {**measured, YES: float(np.mean(scores > 0.5))}

    return values


def _mean(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of the metrics that all have."""
    return {m: sum(of[m] for of in each) / len(each) for m in each[0] if all(m in of for of in each)}


# -- over seeds -------------------------------------------------------------------------------------------------------
def rows(components: Mapping[str, Group]) -> list[OnTask]:
    """Task by task, and the mean over tasks of the seeds that all have.

    Args:
        components: task -> whole component net of it; those of one source net, and runs without scores, are left out.

    Returns:
        Values in percent, one a seed.

    Raises:
        UserError: as `of_run`.
    """
    chosen = {t: g for t, g in components.items() if len(teachers_of(g.first.results, t)) > 1}
    measured = {t: {r.seed: values for r in g.runs if r.scores and (values := of_run(r, t))} for t, g in chosen.items()}
    measured = {t: by_seed for t, by_seed in measured.items() if by_seed}
    made = [row for t, by_seed in measured.items() for row in _on_task(t, chosen[t].label, by_seed.values())]
    if len(measured) > 1:
        seeds = sorted(set.intersection(*map(set, measured.values())))
        made += _on_task(f"mean of {len(measured)}", COMPONENT, [_over_tasks([of[s] for of in measured.values()]) for s in seeds])
    return made


def _over_tasks(each: Sequence[Values]) -> Values:
    return {who: _mean([of[who] for of in each]) for who in each[0] if all(who in of for of in each)}


def _on_task(task: str, component: str, each: Iterable[Values]) -> Iterator[OnTask]:
    """One row a network; `each` of one seed."""
    found = list(each)
    for who in (SOURCES, FOLLOWED, STUDENT, TRUTH):
        values = {m: tuple(100 * of[who][m] for of in found if m in of.get(who, {})) for m in COLUMNS}
        values = {m: v for m, v in values.items() if v}
        if values:
            yield OnTask(task, component if who == STUDENT else who, "", values)


# -- as text ----------------------------------------------------------------------------------------------------------
def said(found: Sequence[OnTask]) -> list[str]:
    """The section of the summary; nothing without rows."""
    if not found:
        return []
    columns = {m: head for m, head in COLUMNS.items() if any(m in r.values for r in found)}
    shown = [
        [r.task, r.name, str(max(map(len, r.values.values()))), *(text.spread(r.values.get(m, ()), 1) for m in columns)] for r in found
    ]
    how = " ".join([FOLLOWING, *([BINARY] if YES in columns else [])])
    return [f"### {HEADING}", "", how, "", *text.table(["task", "network", "seeds", *columns.values()], shown), ""]
