"""Customize's runs as one experiment over seeds: families of runs about the same tasks, every network in a line, claims with intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from amalgam_tf.report import customize, customize_claims, customize_rates, figures, text
from amalgam_tf.report.customize import ACCURACY, BALANCED, COMPONENT, MAJORITY, METRICS, Kind, kind_of, measured, teachers_of
from amalgam_tf.report.figures import OnTask, SourceCurve, Stages
from amalgam_tf.report.runs import STUDENT, FinishedRun, Group

CLAIMS_HEAD = ("family", "claim", "task", "metric", "seeds", "difference", "smallest", "largest", "low", "high", "resamples")
CSV_HEAD = ("family", "task", "network", "metric", "median", "smallest", "largest", "seeds")


class Family:
    """Groups about the same tasks and test data: a target net's and those of its component nets, or those of one component net.

    Args:
        groups: as of `customize.groups`.
    """

    def __init__(self, groups: Sequence[Group]):
        self.groups = list(groups)
        most = max(self.groups, key=lambda g: len(g.first.results["tasks"]))
        self.tasks = list(dict.fromkeys([*most.first.results["tasks"], *(t for g in self.groups for t in g.first.results["tasks"])]))

    @property
    def title(self) -> str:
        return ", ".join(self.tasks)

    @property
    def test_sets(self) -> str:
        return "; ".join(dict.fromkeys(g.first.test_set for g in self.groups))

    def having(self, wanted: Callable[[Kind], bool], task: str = "") -> list[Group]:
        """Groups of a kind; only those that know a task, if one is named."""
        return [g for g in self.groups if wanted(kind_of(g.first)) and (not task or task in g.first.results["tasks"])]

    def component(self, task: str) -> Group | None:
        """The whole component net of a task, of source nets of one size; where there are several, that of the most."""
        found = self.having(lambda k: k.stage == COMPONENT and k.whole and not k.mixed, task)
        return max(found, key=lambda g: kind_of(g.first).teachers, default=None)

    def targets(self, task: str = "") -> list[Group]:
        """Whole target nets of component nets, that of the most tasks first."""
        found = self.having(lambda k: k.stage != COMPONENT and k.whole and not k.direct, task)
        return sorted(found, key=lambda g: -len(g.first.results["tasks"]))


def families(groups: Sequence[Group]) -> list[Family]:
    """Groups whose tasks hang together, on test data of one name; that of the most tasks first."""
    keys = {id(g): {(g.first.results["test"]["data"], t) for t in g.first.results["tasks"]} for g in groups}
    found: list[list[Group]] = []
    for group in groups:
        near = [own for own in found if any(keys[id(group)] & keys[id(g)] for g in own)]
        if near:
            near[0] += [*(g for own in near[1:] for g in own), group]
            found = [own for own in found if not any(own is n for n in near[1:])]
        else:
            found.append([group])
    return sorted(map(Family, found), key=lambda family: -len(family.tasks))


# -- rows -------------------------------------------------------------------------------------------------------------
def stages(family: Family) -> list[OnTask]:
    """Source nets one by one, component, target, task by task; of a family with a target net also means over its tasks."""
    rows = [row for task in family.tasks for row in _stages_of(family, task)]
    for target in family.targets()[:1]:
        tasks = target.first.results["tasks"]
        rows.append(_mean_row("its component nets", COMPONENT, target, tasks, lambda r, t: teachers_of(r, t)))
        rows.append(_mean_row(target.label, STUDENT, target, tasks, lambda r, t: [STUDENT]))
    return rows


def _stages_of(family: Family, task: str) -> Iterator[OnTask]:
    component, targets = family.component(task), family.targets(task)[:1]
    if component:
        for name in teachers_of(component.first.results, task):
            yield _row(task, f"source {name}", "teachers", component, [name])
        yield _row(task, component.label, COMPONENT, component)
    for target in targets:
        if not component:
            yield _row(task, "component net behind the target net", COMPONENT, target, teachers_of(target.first.results, task))
        yield _row(task, target.label, STUDENT, target)


def _row(task: str, network: str, kind: str, group: Group, networks: Sequence[str] | None = None) -> OnTask:
    return OnTask(task, network, kind, {m: measured(group, task, m, networks) for m in METRICS})


def _mean_row(name: str, kind: str, group: Group, tasks: Sequence[str], networks: Callable[[Mapping, str], list[str]]) -> OnTask:
    def value(results: Mapping[str, Any], metric: str) -> float:
        each = [results["test"][n]["per_task"][t][metric] for t in tasks for n in networks(results, t)]
        return 100 * sum(each) / len(each)

    return OnTask(f"mean of {len(tasks)}", name, kind, {m: tuple(value(r, m) for r in group.results) for m in METRICS})


def comparisons(family: Family) -> dict[str, list[OnTask]]:
    """Heading -> rows of what was varied: only what some run varies, the whole method beside it."""
    found: dict[str, list[OnTask]] = {}

    def add(heading: str, task: str, members: Sequence[Group]) -> None:
        if len(members) > 1:
            found.setdefault(heading, []).extend(_row(task, g.label, "", g) for g in members)

    for task in family.tasks:
        whole = [g for g in [family.component(task)] if g]
        add("Ablations of the component net", task, [*family.having(lambda k: k.stage == COMPONENT and not k.whole, task), *whole])
        count = family.having(lambda k: k.stage == COMPONENT and k.whole and not k.mixed, task)
        if len({kind_of(g.first).teachers for g in count}) > 1:
            add("Number of source nets", task, sorted(count, key=lambda g: kind_of(g.first).teachers))
        add("Source nets of different sizes", task, [*family.having(lambda k: k.stage == COMPONENT and k.whole and k.mixed, task), *whole])
    for task in family.tasks:
        add("Target nets", task, family.having(lambda k: k.stage != COMPONENT, task))
    return found


def operating_points(family: Family) -> list[OnTask]:
    """Source nets, what is followed and component net of every task (`customize_rates`)."""
    return customize_rates.rows({t: g for t in family.tasks if (g := family.component(t))})


def every_row(family: Family) -> list[OnTask]:
    """All students and their teachers, for the CSV."""
    rows = []
    for group in family.groups:
        for task in group.first.results["tasks"]:
            rows += [_row(task, f"{name} behind: {group.label}", "", group, [name]) for name in teachers_of(group.first.results, task)]
            rows.append(_row(task, group.label, "", group))
    return rows


# -- as text ----------------------------------------------------------------------------------------------------------
def network_table(rows: Sequence[OnTask]) -> list[str]:
    """Task by task; median over seeds [smallest..largest]."""
    shown = [
        [r.task, r.name, str(len(r.values[ACCURACY])), *(text.spread(r.values[m], 1) for m in (ACCURACY, BALANCED, MAJORITY))] for r in rows
    ]
    return text.table(["task", "network", "seeds", "accuracy %", "balanced %", "majority %"], shown)


def size_table(family: Family) -> list[str]:
    """Sizes and wall times of the students."""
    rows = []
    for group in family.groups:
        nets = list(group.networks(STUDENT).values())
        rows.append(
            [
                ", ".join(group.first.results["tasks"]),
                group.label,
                text.spread((n.parameters for n in nets), 3, 1e-6),
                text.spread((n.flops for n in nets), 3, 1e-9),
                text.spread((n.latency for n in nets), 2),
                text.spread((n.seconds for n in nets), 1, 1 / 60),
            ]
        )
    return text.table(["tasks", "network", "parameters (M)", "GFLOPs", "latency / its teachers", "minutes"], rows)


def claim_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """As `customize_claims.differences` returns them, in points; an interval without 0 in bold."""
    shown = []
    for row in rows:
        low, middle, high, smallest, largest = (
            None if row[k] is None else 100 * row[k] for k in ("low", "difference", "high", "smallest", "largest")
        )
        interval = text.NOTHING if low is None else f"{low:+.1f} .. {high:+.1f}"
        if low is not None and (low > 0 or high < 0):
            interval = f"**{interval}**"
        spread = f"{smallest:+.1f} .. {largest:+.1f}" if row["seeds"] > 1 else text.NOTHING
        shown.append([row["claim"], row["task"], row["metric"].replace("_", " "), str(row["seeds"]), f"{middle:+.1f}", interval, spread])
    return text.table(["difference", "task", "metric", "seeds", "mean", "95 % interval", "seeds from .. to"], shown)


def write(name: str, found: Sequence[FinishedRun], sources: Sequence[FinishedRun], output: Path, resamples: int) -> tuple[str, list[Path]]:
    """Writes `{name}.md`, `{name}.csv`, and as far as there is something to show `{name}_differences.csv`, `{name}_networks.png`,
    `{name}_sources.png` (fig. 5: accuracy over the number of source nets).

    Args:
        name: of the files.
        found: runs of Customize, of any stages, tasks and test sets.
        sources: runs of source nets, for the list of runs only: their numbers are measured again by the runs they teach.
        output: an existing folder.
        resamples: number of bootstrap resamples.

    Returns:
        The Markdown, and what was written.

    Raises:
        UserError: scores that do not belong together.
    """
    groups, notes = customize.groups(found)
    made = families(groups)
    said = [f"# {name}", "", "Percent; median over seeds [smallest..largest]. Majority: the accuracy of always the commonest class.", ""]
    said += [*(f"* {n}" for n in notes), *[""] * bool(notes)]
    points = [operating_points(family) for family in made]
    files = [_write_csv(made, points, output / f"{name}.csv")]
    said += _said_figures(made, name, output, files)
    claimed = []
    for family, about in zip(made, points, strict=True):
        said += [f"## {family.title}", "", f"Test part: {family.test_sets}.", ""]
        if rows := stages(family):
            said += ["### Source nets, component net, target net", "", *network_table(rows), ""]
        for heading, rows in comparisons(family).items():
            said += [f"### {heading}", "", *network_table(rows), ""]
        rows = customize_claims.differences(customize_claims.claims(family.groups), resamples)
        claimed += [{"family": family.title, **r} for r in rows]
        said += _said_claims(rows) + customize_rates.said(about) + ["### Sizes and times of training", "", *size_table(family), ""]
    if claimed:
        rows = ([r[k] for k in CLAIMS_HEAD] for r in claimed)
        files.append(text.write_csv(output / f"{name}_differences.csv", CLAIMS_HEAD, rows))
    origin = customize.origin([*groups, *(Group("source net", (r,)) for r in sources)])
    markdown = "\n".join([*said, "## Runs", "", *origin, ""])
    (output / f"{name}.md").write_text(markdown, encoding="utf-8")
    return markdown, [output / f"{name}.md", *files]


def _said_claims(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    drawn = max(r["resamples"] for r in rows)
    how = f"{drawn} resamples of the test images" if drawn else "no intervals: the runs have no scores.npz beside their results.json"
    said = (
        f"Mean over seeds, in points; paired bootstrap, {how}, the same for all seeds. Bold: 0 lies outside. `best` of the source nets is "
        "chosen on the test part, in their favour."
    )
    return ["### Differences", "", said, "", *claim_table(rows), ""]


def _write_csv(made: Sequence[Family], points: Sequence[Sequence[OnTask]], path: Path) -> Path:
    rows = []
    for family, about in zip(made, points, strict=True):
        lines: dict[tuple[str, str, str], Sequence[float]] = {}
        for row in [*every_row(family), *about]:
            for metric, values in row.values.items():
                if values:
                    lines.setdefault((row.task, row.name, metric), values)  # a component's accuracy stands in both
        rows += [[family.title, *line, *(f"{f(v):.6g}" for f in (text.median, min, max)), len(v)] for line, v in lines.items()]
    return text.write_csv(path, CSV_HEAD, rows)


# -- figures ----------------------------------------------------------------------------------------------------------
def _said_figures(made: Sequence[Family], name: str, output: Path, files: list[Path]) -> list[str]:
    said = []
    for end, drawn, alt in (
        (
            "networks",
            figures.stages(bars(made), output / f"{name}_networks.png"),
            "source nets, component nets and target net of every task",
        ),
        (
            "sources",
            figures.number_of_sources(curves(made), output / f"{name}_sources.png"),
            "accuracy over the number of source nets (fig. 5)",
        ),
    ):
        if drawn:
            files.append(output / f"{name}_{end}.png")
            said += [f"![{alt}]({name}_{end}.png)", ""]
    return said


def bars(made: Sequence[Family]) -> list[Stages]:
    """One panel a family that has a component or target net of the whole method."""
    panels = []
    for family in made:
        rows = [r for task in family.tasks for r in _stages_of(family, task)]
        if rows:
            majority = {r.task: text.median(r.values[MAJORITY]) for r in rows}
            panels.append(Stages(family.title, rows, majority))
    return panels


def curves(made: Sequence[Family]) -> list[SourceCurve]:
    """One of every task with component nets of different numbers of source nets."""
    found = []
    for family in made:
        for task in family.tasks:
            own = family.having(lambda k: k.stage == COMPONENT and k.whole and not k.mixed, task)
            values = {kind_of(g.first).teachers: {m: measured(g, task, m) for m in METRICS} for g in own}
            taught = {
                kind_of(g.first).teachers: {m: measured(g, task, m, teachers_of(g.first.results, task)) for m in METRICS} for g in own
            }
            if len(values) > 1:
                found.append(SourceCurve(task, dict(sorted(values.items())), dict(sorted(taught.items()))))
    return found
