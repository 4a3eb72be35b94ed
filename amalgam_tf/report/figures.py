"""All figures: PNG files at a size that can be read in a README. One role has one colour in every figure."""

from collections.abc import Callable, Mapping, Sequence
import functools
import itertools
from pathlib import Path
import statistics
from typing import Any, NamedTuple

from amalgam_tf.report.runs import Network, headline_ap, kept_streams

COLOURS = {
    "teachers": "#4c78a8",
    "student": "#f58518",
    "argmin": "#f58518",  # the paper's rule has the student's colour
    "tolerance": "#e45756",
    "budget": "#b279a2",
    "fixed": "#9d755d",
    "distill": "#54a24b",
    "curve": "#79706e",
    "guess": "#bab0ac",
    "component": "#72b7b2",
}
OTHER_COLOUR = "#439894"
_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
DPI = 130
_TEST_METRICS = {"accuracy": "accuracy % (test)", "balanced_accuracy": "balanced accuracy % (test)"}
_MOST_STREAMS = 10  # more lines than these cannot be told apart


class Line(NamedTuple):
    """Networks of one name over seeds.

    Attributes:
        name: as in tables.
        kind: which colour: a key of `COLOURS`.
        networks: seed -> network.
    """

    name: str
    kind: str
    networks: Mapping[int, Network]


def colour(kind: str) -> str:
    return COLOURS.get(kind, OTHER_COLOUR)


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(draw)
    def drawn(*args, **options):
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **options)

    return drawn


def part_of(results: Mapping[str, Any]) -> str:
    """`held-out` or `train`: where the block losses were measured."""
    return results.get("branch_split", "held_out").replace("_", "-")


# -- of one run -------------------------------------------------------------------------------------------------------
@styled
def per_task(results: Mapping[str, Any], path: Path) -> bool:
    """AP of every task: its teacher, the student, and the prevalence (what a guess reaches). False if no task has an AP."""
    ap, measured = headline_ap(results["test"]["data"]), results["test"]["student"]["per_task"]
    tasks = [t for t in results["tasks"] if measured[t].get(ap) is not None]
    if not tasks:
        return False
    owner = {t: name for t, (name, _) in kept_streams(results).items()}
    groups = {
        "teacher": ("teachers", [results["test"][owner[t]]["per_task"][t][ap] for t in tasks]),
        "student": ("student", [measured[t][ap] for t in tasks]),
        "guess": ("guess", [measured[t]["prevalence"] for t in tasks]),
    }
    figure, ((axes,),) = new_figure(1, 1, (max(5, 0.9 * len(tasks)), 3.4))
    for i, (name, (kind, values)) in enumerate(groups.items()):
        axes.bar([x + 0.27 * (i - 1) for x in range(len(tasks))], values, 0.27, label=name, color=colour(kind))
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.set(ylabel="average precision (test)", ylim=(0, 1))
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.15))
    figure.savefig(path, dpi=DPI)
    return True


@styled
def block_losses(results: Mapping[str, Any], path: Path) -> None:
    """Held-out divergence of every stream over the blocks, its branch point marked."""
    blocks = list(results["block_losses"])
    figure, ((axes,),) = new_figure(1, 1, (max(5, 0.5 * len(blocks) + 3), 3.4))
    for stream in results["block_losses"][blocks[0]]:
        values = [results["block_losses"][b][stream]["divergence"] for b in blocks]
        (line,) = axes.plot(blocks, values, marker=".", label=stream)
        if branch := results["branches"].get(stream):
            axes.plot([branch], [values[blocks.index(branch)]], marker="o", markersize=9, fillstyle="none", color=line.get_color())
    axes.set(xlabel="block", ylabel=f"{part_of(results)} divergence (nats)", ylim=(0, None))
    axes.tick_params(axis="x", rotation=45 if len(blocks) > 8 else 0)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=DPI)


@styled
def transfer_losses(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """The transfer loss of every tap over the steps of its phase (CUST eq. 2). False if none was measured.

    Args:
        rows: of a run's metrics.jsonl.
        path: the PNG.
    """
    rows = [r for r in rows if any(key.startswith("transfer/") for key in r)]
    if not rows:
        return False
    figure, ((axes,),) = new_figure(1, 1, (6, 3.4))
    for key in (k for k in rows[0] if k.startswith("transfer/")):
        axes.plot([r["step"] for r in rows], [r[key] for r in rows], marker="." if len(rows) < 30 else "", label=key.partition("/")[2])
    axes.set(xlabel="step", ylabel="transfer loss, mean over a batch", yscale="log")
    axes.legend(fontsize=7, title="tap", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=DPI)
    return True


# -- of several runs --------------------------------------------------------------------------------------------------
@styled
def pareto(lines: Sequence[Line], before: Mapping[str, Mapping[int, Network]], ap: str, path: Path) -> None:
    """What size buys: parameters against held-out divergence and against test mAP; medians over seeds, bars from min to max.

    Args:
        lines: teachers together, students after their training, and the curve block by block (kind `curve`).
        before: name of a line -> its networks before fine-tuning (hollow).
        ap: which average precision.
        path: the PNG.
    """
    figure, (panels,) = new_figure(1, 2, (9.5, 4.2))
    values = (lambda n: n.divergence, lambda n: n.mean(ap))
    for axes, value, label in zip(panels, values, ("held-out divergence (nats, mean over labels)", "test mAP"), strict=True):
        families = {line.name.partition(" of ")[2] for line in lines if line.kind == "curve"}
        for family in sorted(families):
            own = [line for line in lines if line.kind == "curve" and line.name.partition(" of ")[2] == family]
            points = [p for p in (_point(line.networks, value) for line in own) if p]
            where = [x[1] for x, _ in points], [y[1] for _, y in points]
            axes.plot(*where, color=colour("curve"), linewidth=1, zorder=1, label="all labels at one block, not fine-tuned")
        kinds = {k: itertools.count() for k in (line.kind for line in lines)}
        axes.margins(0.1)
        for line in lines:
            marker = "." if line.kind == "curve" else "s" if line.kind == "teachers" else "ovDP^X"[next(kinds[line.kind]) % 6]
            full, hollow = _point(line.networks, value), _point(before.get(line.name, {}), value)
            if full and hollow:
                axes.plot([hollow[0][1], full[0][1]], [hollow[1][1], full[1][1]], color=colour(line.kind), linewidth=0.7, zorder=1)
            _mark(axes, hollow, line, marker, filled=False)
            _mark(axes, full, line, marker)
        axes.set(xlabel="parameters (M)", ylabel=label, xlim=(0, None))
    panels[0].set_ylim(-0.03 * panels[0].get_ylim()[1], None)  # the teachers stand at 0 and should be seen whole
    handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if before:
        handles["hollow: before fine-tuning"] = axes.plot([], [], "o", color="black", fillstyle="none")[0]
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 4), fontsize=8)
    figure.savefig(path, dpi=DPI)


def _point(networks: Mapping[int, Network], value) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """((smallest, median, largest) parameters in millions, the same of the value); None if neither was measured."""
    both = [(n.parameters / 1e6, value(n)) for n in networks.values() if n.parameters is not None and value(n) is not None]
    return tuple((min(v), statistics.median(v), max(v)) for v in zip(*both, strict=True)) if both else None


def _mark(axes, point, line: Line, marker: str, filled: bool = True) -> None:
    if not point:
        return
    (x0, x, x1), (y0, y, y1) = point
    axes.errorbar(
        [x],
        [y],
        xerr=[[x - x0], [x1 - x]],
        yerr=[[y - y0], [y1 - y]],
        marker=marker,
        markersize=7,
        color=colour(line.kind),
        markerfacecolor=colour(line.kind) if filled else "white",
        linestyle="none",
        elinewidth=1,
        label=line.name if filled and line.kind != "curve" else "_",
        zorder=3 if filled else 2,
    )
    if line.kind == "curve":  # named beside the point instead of in the legend
        short = line.name.removeprefix("all at ")
        axes.annotate(short, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8, color=colour(line.kind))


@styled
def blocks_over_seeds(results: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Held-out divergence block by block: every stream's median over seeds, and the mean over streams with its range over seeds.

    Args:
        results: one of each seed, with equal streams and blocks and with losses of the held-out part.
        path: the PNG.

    Returns:
        False if there is nothing to draw.
    """
    if not results:
        return False
    blocks = list(results[0]["block_losses"])
    streams = list(results[0]["block_losses"][blocks[0]])
    each = {s: [[r["block_losses"][b][s]["divergence"] for r in results] for b in blocks] for s in streams}
    means = [[sum(each[s][i][j] for s in streams) / len(streams) for j in range(len(results))] for i in range(len(blocks))]
    figure, ((axes,),) = new_figure(1, 1, (max(5.5, 0.5 * len(blocks) + 3), 3.4))
    few = len(streams) <= _MOST_STREAMS
    for stream, values in each.items():
        look = {"label": stream} if few else {"color": COLOURS["guess"]}
        axes.plot(blocks, [statistics.median(v) for v in values], linewidth=1, marker=".", alpha=0.8, **look)
    seeds = f"{len(results)} seeds" if len(results) > 1 else "one seed"
    axes.plot(blocks, [statistics.median(m) for m in means], color="black", linewidth=2, label=f"mean of {len(streams)} streams, {seeds}")
    axes.fill_between(blocks, [min(m) for m in means], [max(m) for m in means], color="black", alpha=0.2, linewidth=0)
    axes.set(xlabel="block", ylabel="held-out divergence (nats)", ylim=(0, None))
    axes.tick_params(axis="x", rotation=45 if len(blocks) > 8 else 0)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=DPI)
    return True


class Pair(NamedTuple):
    """One panel of AFK's fig. 3.

    Attributes:
        title: the group's label.
        results: the run's results of every seed, with `curve`.
        published: task -> {"teacher_AP", "target_AP"} in percent, as far as printed.
    """

    title: str
    results: Sequence[Mapping[str, Any]]
    published: Mapping[str, Mapping[str, float]]


@styled
def curves_of_pairs(pairs: Sequence[Pair], path: Path) -> bool:
    """AFK's fig. 3: a column a pair; above accuracy, which the paper's numbers behave like (spec E1), below average precision.

    Solid: the student branched at each block, before fine-tuning (median over seeds; band from min to max), a ring at each seed's branch
    point; dashed: the teacher; dotted, above only: what the paper prints for teacher (thin) and TargetNet (thick).
    """
    pairs = [p for p in pairs if p.results]
    if not pairs:
        return False
    figure, grid = new_figure(2, len(pairs), (max(5.5, 4.2 * len(pairs)), 6))
    for column, pair in enumerate(pairs):
        ap = headline_ap(pair.results[0]["test"]["data"])
        for axes, metric in zip(grid[:, column], ("accuracy", ap), strict=True):
            for i, task in enumerate(pair.results[0]["tasks"]):
                lines = pair.published.get(task, {}) if metric == "accuracy" else {}
                _curve_of_task(axes, pair.results, task, metric, f"C{i}", lines)
            axes.set_xlabel("block at which all tasks branch")
            axes.tick_params(axis="x", rotation=45 if len(pair.results[0]["curve"]) > 8 else 0)
        grid[0, column].set_title(pair.title, fontsize=9)
        grid[0, column].legend(fontsize=7)
    looks = {
        "student, branched at each block": {"marker": "."},
        "branch points": {"marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "none"},
        "teacher": {"linestyle": "--", "linewidth": 1},
        "teacher, paper": {"linestyle": ":", "linewidth": 0.8},
        "TargetNet, paper": {"linestyle": ":", "linewidth": 1.8},
    }
    handles = [grid[0, 0].plot([], [], color="black", **look)[0] for look in looks.values()]
    figure.legend(handles, looks.keys(), loc="outside lower center", ncols=3, fontsize=8)
    grid[0, 0].set_ylabel("accuracy % (test)")
    grid[1, 0].set_ylabel("average precision % (test)")
    figure.savefig(path, dpi=DPI)
    return True


def _curve_of_task(axes, results, task: str, metric: str, hue: str, printed: Mapping[str, float]) -> None:
    blocks = list(results[0]["curve"])
    points = {b: [r["curve"][b]["test"]["per_task"][task].get(metric) for r in results] for b in blocks}
    points = {b: [100 * v for v in values if v is not None] for b, values in points.items()}
    if not all(points.values()):
        return
    middle = {b: statistics.median(v) for b, v in points.items()}
    axes.plot(blocks, list(middle.values()), color=hue, marker=".", label=task)
    axes.fill_between(blocks, [min(v) for v in points.values()], [max(v) for v in points.values()], color=hue, alpha=0.2, linewidth=0)
    kept = [kept_streams(r)[task] for r in results]
    taught = [r["test"][name]["per_task"][task].get(metric) for r, (name, _) in zip(results, kept, strict=True)]
    axes.axhline(100 * statistics.median(taught), color=hue, linestyle="--", linewidth=1)
    for block in {block for _, block in kept if block in middle}:
        axes.plot([block], [middle[block]], marker="o", markersize=10, fillstyle="none", color=hue)
    for key, width in (("teacher_AP", 0.8), ("target_AP", 1.8)):
        if key in printed:
            axes.axhline(printed[key], color=hue, linestyle=":", linewidth=width)


class OnTask(NamedTuple):
    """One network on one task: metric -> a value a seed, in percent; `kind` is the colour, a key of `COLOURS`."""

    task: str
    name: str
    kind: str
    values: Mapping[str, Sequence[float]]


class Stages(NamedTuple):
    """One row of panels of `stages`.

    Attributes:
        title: of the row.
        bars: of a task those next to each other, in order.
        majority: task -> accuracy of always the commonest class, in percent.
    """

    title: str
    bars: Sequence[OnTask]
    majority: Mapping[str, float]


@styled
def stages(panels: Sequence[Stages], path: Path) -> bool:
    """Customize's source nets, component and target net of every task: left accuracy with the majority rate as a line, right balanced
    accuracy; medians over seeds, whiskers from min to max. False if there is nothing to draw.
    """
    if not panels:
        return False
    longest = max(len(p.bars) + len(p.majority) for p in panels)
    figure, grid = new_figure(len(panels), 2, (max(7, 0.5 * longest + 2), 2.9 * len(panels)))
    for row, panel in zip(grid, panels, strict=True):
        for axes, (metric, label) in zip(row, _TEST_METRICS.items(), strict=True):
            _bars_of_tasks(axes, panel, metric)
            axes.set_ylabel(label)
        row[0].set_title(panel.title, fontsize=8, loc="left")
    names = {"teachers": "source nets", "component": "component net", "student": "target net"}
    handles = [grid[0, 0].bar([0], [0], color=colour(kind)) for kind in names]
    handles.append(grid[0, 0].plot([], [], color="black", linewidth=1.5)[0])
    figure.legend(handles, [*names.values(), "majority class"], loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=DPI)
    return True


def _bars_of_tasks(axes, panel: Stages, metric: str) -> None:
    x, ticks, every = 0.0, {}, []
    for task, majority in panel.majority.items():
        own = [b for b in panel.bars if b.task == task]
        places = [x + i for i in range(len(own))]
        for place, bar in zip(places, own, strict=True):
            low, middle, high = (f(bar.values[metric]) for f in (min, statistics.median, max))
            axes.bar([place], [middle], 0.9, color=colour(bar.kind), yerr=[[middle - low], [high - middle]], ecolor="#333333")
            every += [low, high]
        if metric == "accuracy":
            axes.hlines(majority, places[0] - 0.5, places[-1] + 0.5, color="black", linewidth=1.5)
            every.append(majority)
        ticks[task], x = (places[0] + places[-1]) / 2, places[-1] + 2
    axes.set_xticks(list(ticks.values()), list(ticks), rotation=20, ha="right", fontsize=8)
    axes.set_ylim(max(0, min(every) - 5), min(100, max(every) + 3))  # from 0 a point of difference would not be seen


class SourceCurve(NamedTuple):
    """One task of Customize's fig. 5: number of source nets -> metric -> a value a seed, in percent.

    Attributes:
        task: its name.
        component: of the component net.
        sources: mean of its source nets.
    """

    task: str
    component: Mapping[int, Mapping[str, Sequence[float]]]
    sources: Mapping[int, Mapping[str, Sequence[float]]]


@styled
def number_of_sources(curves: Sequence[SourceCurve], path: Path) -> bool:
    """Customize's fig. 5: a row a task, over the number of source nets; left accuracy with the majority rate, right balanced accuracy.
    Medians over seeds, bands from min to max. False if there is nothing to draw.
    """
    if not curves:
        return False
    figure, grid = new_figure(len(curves), 2, (8, 2.9 * len(curves)))
    for row, curve in zip(grid, curves, strict=True):
        for axes, (metric, label) in zip(row, _TEST_METRICS.items(), strict=True):
            for name, kind, of in (("component net", "component", curve.component), ("mean of its source nets", "teachers", curve.sources)):
                counts = list(of)
                low, middle, high = ([f(of[n][metric]) for n in counts] for f in (min, statistics.median, max))
                axes.plot(counts, middle, marker=".", color=colour(kind), label=name)
                axes.fill_between(counts, low, high, color=colour(kind), alpha=0.2, linewidth=0)
            if metric == "accuracy":
                rate = statistics.median(next(iter(curve.component.values()))["majority_rate"])
                axes.axhline(rate, color="black", linewidth=1, label="majority class")
            axes.set(xlabel="number of source nets", ylabel=label, xticks=counts)
        row[0].set_title(curve.task, fontsize=8, loc="left")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=DPI)
    return True


def new_figure(rows: int, columns: int, size: tuple[float, float]):
    """A figure and its grid of axes. Without pyplot: no display, no state that outlives the figure."""
    from matplotlib.figure import Figure  # late, since most programs draw nothing

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
