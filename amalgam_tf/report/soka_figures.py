"""Figures of SOKA's runs over seeds: fig. 5, and the variants of tables 4 and 5 as bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import statistics
from typing import NamedTuple

from amalgam_tf.report.figures import COLOURS, DPI, colour, new_figure, styled

_TEACHERS = COLOURS["teachers"]


class Rate(NamedTuple):
    """One learning rate of the task weights.

    Attributes:
        name: for the legend.
        curves: of every seed, step -> ratio of the two task weights.
        final: task -> student / teacher of the main error, a value a seed.
    """

    name: str
    curves: Sequence[Mapping[int, float]]
    final: Mapping[str, Sequence[float]]


class Bars(NamedTuple):
    """One task of several variants.

    Attributes:
        title: task and metric, with its unit.
        variants: name -> a value a seed.
        teachers: of the task's teacher, a value a seed.
        guess: of the mean map, likewise.
    """

    title: str
    variants: Mapping[str, Sequence[float]]
    teachers: Sequence[float]
    guess: Sequence[float]


@styled
def task_weights(rates: Sequence[Rate], title: str, path: Path) -> bool:
    """SOKA's fig. 5: left the ratio of the task weights over the steps, median over seeds and band from min to max; right what each rate
    ends with. False if no curve was kept.

    Args:
        rates: one or more.
        title: of the left axis: whose ratio.
        path: the PNG.
    """
    drawn = [rate for rate in rates if rate.curves]
    if not drawn:
        return False
    figure, ((left, right),) = new_figure(1, 2, (9.5, 3.4))
    tasks = list(drawn[0].final)
    for i, rate in enumerate(drawn):
        steps = sorted(set.intersection(*map(set, rate.curves)))
        low, middle, high = ([f(c[s] for c in rate.curves) for s in steps] for f in (min, statistics.median, max))
        left.plot(steps, middle, color=f"C{i}", marker="." if len(steps) < 30 else "", label=rate.name)
        left.fill_between(steps, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
        places = [t + 0.8 * (i + 0.5) / len(drawn) - 0.4 for t in range(len(tasks))]
        _bars(right, places, 0.8 / len(drawn), [rate.final[t] for t in tasks], [f"C{i}"] * len(tasks))
    left.set(xlabel="step", ylabel=title, yscale="log")
    for written_by in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        written_by("{x:g}")  # 2 and not 2 x 10^0
    left.legend(fontsize=7)
    right.axhline(1, color=_TEACHERS, linewidth=1)
    right.set_xticks(range(len(tasks)), tasks, fontsize=8)
    right.set_ylabel("error, student / teacher (test)")
    _cut(right, [v for rate in drawn for values in rate.final.values() for v in values] + [1.0])
    figure.savefig(path, dpi=DPI)
    return True


@styled
def variants(panels: Sequence[Bars], path: Path) -> bool:
    """A panel a task: a bar a variant, median over seeds, whiskers from min to max; the teacher as a line, the mean map dotted. False if
    there is nothing to draw.
    """
    panels = [p for p in panels if p.variants]
    if not panels:
        return False
    longest = max(len(p.variants) for p in panels)
    figure, (grid,) = new_figure(1, len(panels), (max(3.2, 0.55 * longest + 1.2) * len(panels), 3.6))
    for axes, panel in zip(grid, panels, strict=True):
        every = [v for values in panel.variants.values() for v in values] + list(panel.teachers)
        hues = [colour("student" if name.startswith("ours") else "component") for name in panel.variants]
        _bars(axes, range(len(panel.variants)), 0.8, list(panel.variants.values()), hues)
        if panel.teachers:
            axes.axhline(statistics.median(panel.teachers), color=_TEACHERS, linewidth=1.5, label="teacher")
        _cut(axes, every)
        guess = statistics.median(panel.guess) if panel.guess else None
        if guess is not None and guess <= axes.get_ylim()[1]:
            axes.axhline(guess, color="black", linestyle=":", linewidth=1, label="mean map")
        said = "" if guess is None or guess <= axes.get_ylim()[1] else f" (mean map {guess:.3g})"
        axes.set_xticks(range(len(panel.variants)), list(panel.variants), rotation=35, ha="right", fontsize=8)
        axes.set_title(panel.title + said, fontsize=9)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=DPI)
    return True


def _bars(axes, places: Sequence[float], width: float, values: Sequence[Sequence[float]], hues: Sequence[str]) -> None:
    for place, each, hue in zip(places, values, hues, strict=True):
        if each:
            low, middle, high = min(each), statistics.median(each), max(each)
            axes.bar([place], [middle], 0.9 * width, color=hue, yerr=[[middle - low], [high - middle]], ecolor="#333333")


def _cut(axes, every: Sequence[float]) -> None:
    """From 0 a difference of a few percent would not be seen."""
    low, high = min(every), max(every)
    axes.set_ylim(max(0.0, low - max(high - low, 0.02 * high)), high + 0.15 * max(high - low, 0.02 * high))
