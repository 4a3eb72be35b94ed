"""Customize's runs: which of them is what, and their numbers beside the paper's tables 3, 4, 5, 7, 8 and 9.

What a run is follows from its results and its configuration, never from the name of its folder: the stage, the selection, whether there
were bridges, how many teachers knew a task, whether these had one size. Beside every accuracy stand the majority rate and the balanced
accuracy (spec C14): for rare attributes the paper's numbers lie close to the former.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from amalgam_tf import published
from amalgam_tf.errors import UserError
from amalgam_tf.report import runs, seeds, text
from amalgam_tf.report.footnotes import Footnotes
from amalgam_tf.report.paper import CSV_HEAD, Cell
from amalgam_tf.report.runs import STUDENT, FinishedRun, Group

METHOD, COMPONENT, TARGET = "customize", "component", "target"
ACCURACY, BALANCED, MAJORITY = METRICS = ("accuracy", "balanced_accuracy", "majority_rate")
SIZES = "cust_table4"
TABLES = ("cust_table3", SIZES, "cust_table5", "cust_table7", "cust_table8", "cust_table9")
ATTRIBUTES_TEST = ("celeba/test", 19962)  # of all tables but 7, whose test images the paper does not tell
WITHOUT_BRIDGES = {"kd", "no_bridge"}  # words of the project's configs
SIZE_COLUMNS = {"parameters (M)": ("parameters", 1e-6, "params_printed"), "FLOPs (G)": ("flops", 1e-9, "FLOPs_printed")}
COUNTED = "mouth"  # the group of ten source nets whose sizes table 4 prints
_ONE_SIZE = 1.1  # heads of more or fewer labels differ by less than this factor, backbones by more


# -- which run is what ------------------------------------------------------------------------------------------------
class Kind(NamedTuple):
    """What a run is.

    Attributes:
        stage: `component` or `target`.
        select: `task`, `image` or `all`; of one task the first two are the same.
        bridges: whether there are transfer bridges.
        direct: whether several teachers know one task; a target is then taught by source nets (one-shot).
        mixed: whether the teachers' sizes differ by more than their heads.
        teachers: how many.
    """

    stage: str
    select: str
    bridges: bool
    direct: bool
    mixed: bool
    teachers: int

    @property
    def whole(self) -> bool:
        """The whole method, nothing left out."""
        return self.select == "task" and self.bridges

    @property
    def label(self) -> str:
        """As in tables: `component of 2 source nets`, `component of 2 source nets, KD`, `one-shot target of 4 source nets`."""
        theirs = "component net" if self.stage == TARGET and not self.direct else "source net"
        first = "one-shot " * (self.stage == TARGET and self.direct) + f"{self.stage} of {self.teachers} {theirs}"
        words = [first + "s" * (self.teachers > 1) + " of different sizes" * self.mixed]
        if self.select == "all" and not self.bridges:
            return f"{words[0]}, KD"
        words += {"task": [], "image": ["one teacher an image"], "all": ["without teacher selection"]}[self.select]
        return ", ".join([*words, *([] if self.bridges else ["without transfer bridge"])])


def kind_of(run: FinishedRun) -> Kind:
    """What a run of Customize is, by its results and configuration."""
    r = run.results
    select = "task" if r["select"] == "image" and len(r["tasks"]) == 1 else r["select"]
    flops = [r["sizes"][name]["flops"] for name in r["teachers"]]
    direct = any(len(teachers_of(r, t)) > 1 for t in r["tasks"])
    return Kind(r["stage"], select, has_bridges(run), direct, max(flops) > _ONE_SIZE * min(flops), len(flops))


def has_bridges(run: FinishedRun) -> bool:
    """By config.json; without it (only results were kept) by the command: its flags, or the words of its config's argument."""
    if run.config is not None:
        return bool(run.config.get("bridge", {}).get("use", True))
    if "config.bridge.use" in run.flags:
        return run.flags["config.bridge.use"].lower() not in ("false", "f", "0")
    return not WITHOUT_BRIDGES & set(run.flags.get("config", "").partition(":")[2].split(","))


def teachers_of(results: Mapping[str, Any], task: str) -> list[str]:
    """Names of the teachers that taught a task, in order."""
    return [name for name, known in results["teachers"].items() if task in known]


def groups(found: Sequence[FinishedRun]) -> tuple[list[Group], list[str]]:
    """Runs that differ in their seed only become one group, labelled by what they are, components first; sentences as of `runs.groups`."""
    by_kind: dict[tuple, list[FinishedRun]] = {}
    for run in found:
        by_kind.setdefault((kind_of(run), frozenset(run.results["tasks"])), []).append(run)
    made, notes = [], []
    for (kind, _), members in by_kind.items():
        own, said = runs.named(members, kind.label)
        made += own
        notes += [f"{', '.join(members[0].results['tasks'])}: {s}" for s in said]
    return sorted(made, key=_order), notes


def _order(group: Group) -> tuple:
    """Components first, what taught and was taught by few first, the whole method before what leaves something out."""
    kind = kind_of(group.first)
    return kind.stage == TARGET, kind.direct and kind.stage == TARGET, not kind.whole, kind.mixed, kind.teachers


def measured(group: Group, task: str, metric: str, networks: Sequence[str] | None = None) -> tuple[float, ...]:
    """A value a seed in percent: of the student, or the mean of some of its teachers."""

    def value(results: Mapping[str, Any]) -> float | None:
        each = [results["test"][n]["per_task"][task].get(metric) for n in (networks or [STUDENT])]
        return None if None in each else 100 * sum(each) / len(each)

    return tuple(v for v in map(value, group.results) if v is not None)


# -- cells ------------------------------------------------------------------------------------------------------------
def named(table: str, found: Iterable[FinishedRun]) -> list[FinishedRun]:
    """The runs that stand in rows of a table; for the sizes of table 4 those of table 3, whose networks they are."""
    name = "cust_table3" if table == SIZES else table
    return [r for r in found if any(places(name, row, r.results) for row in references(name, r.results).values())]


def references(table: str, results: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The published rows of one table that a run names: reference -> row.

    Raises:
        UserError: no such row.
    """
    return {name: published.row(name) for name in results.get("published_row", "").split(",") if name.strip().partition("/")[0] == table}


class Place(NamedTuple):
    """A printed cell that a run's student stands for."""

    row: str
    column: str
    task: str
    printed: str


def places(table: str, row: Mapping[str, str], results: Mapping[str, Any]) -> list[Place]:
    """Where the student of a run stands in a published row; nowhere if it was not taught what the row is about (smoke runs)."""
    stage = results["stage"]
    if table == "cust_table3":
        found = [Place(f"{row['group']}/{row['attribute']}", stage, row["attribute"], row[stage])]
    elif table == "cust_table5":
        found = [Place(f"{row['group']}/{row['n_components']}/{row['attribute']}", ACCURACY, row["attribute"], row[ACCURACY])]
    elif table == "cust_table7":
        found = [Place(row["set"], stage, row["set"].split()[-1], row[stage])]
    else:  # a row a method, a column an attribute
        name, *cells = row.items()
        found = [Place(name[1], attribute, attribute, printed) for attribute, printed in cells]
    return [p for p in found if p.task in results["tasks"]]


def printed_sources(table: str, row: Mapping[str, str], names: Sequence[str]) -> list[tuple[str, str, str]]:
    """(column, source net, printed cell) of the source nets of a component's row; tables 3 and 7 only."""
    if table == "cust_table3":
        cells = dict(pair.split(":") for pair in row["source_nets"].split(";"))
        return [(n, n, cells.get(n, "")) for n in names]
    if table == "cust_table7":
        return [(c, n, row[c]) for c, n in zip(("source_a", "source_b"), names, strict=False)]
    return []


def cells_of(table: str, found: Sequence[Group]) -> list[Cell]:
    """All cells of a published table that groups stand for, each again for balanced accuracy and majority rate."""
    return size_cells(found) if table == SIZES else [c for g in found for c in _cells_of_group(table, g, found)]


def _cells_of_group(table: str, group: Group, every: Sequence[Group]) -> Iterator[Cell]:
    first, have = group.first.results, {p for g in every for p in _component_places(table, g)}
    for row in references(table, first).values():
        for place in places(table, row, first):
            task, taught = place.task, teachers_of(first, place.task)
            if first["stage"] == COMPONENT:
                for column, name, printed in printed_sources(table, row, taught):
                    yield from _cells(table, place._replace(column=column, printed=printed), f"source of: {group.label}", group, [name])
            elif COMPONENT in row and place.row not in have and not kind_of(group.first).direct:
                behind = place._replace(column=COMPONENT, printed=row[COMPONENT])
                yield from _cells(table, behind, f"behind: {group.label}", group, taught)
            yield from _cells(table, place, group.label, group, None, {m: measured(group, task, m, taught) for m in METRICS})


def _component_places(table: str, group: Group) -> list[str]:
    first = group.first.results
    rows = references(table, first).values() if first["stage"] == COMPONENT else []
    return [p.row for row in rows for p in places(table, row, first)]


def _cells(table: str, place: Place, variant: str, group: Group, networks, taught: Mapping[str, tuple] | None = None) -> Iterator[Cell]:
    for metric in METRICS:
        values = measured(group, place.task, metric, networks)
        theirs, printed = (taught or {}).get(metric, ()), place.printed if metric == ACCURACY else ""
        yield Cell(table, place.row, place.column, variant, metric, values, theirs, printed)


def size_cells(found: Sequence[Group]) -> list[Cell]:
    """Table 4: source nets together, component nets together, the target net; only where a seed has the whole group of table 3."""
    cells, printed = [], {r["model"]: r for r in published.table(SIZES)}
    components = {row: g for g in found for row in _component_places("cust_table3", g)}
    for target in [g for g in found if g.first.results["stage"] == TARGET]:
        rows = [
            p.row for r in references("cust_table3", target.first.results).values() for p in places("cust_table3", r, target.first.results)
        ]
        if not rows or not components.keys() >= set(rows):
            continue
        group = rows[0].partition("/")[0]
        behind = [{r.seed: r.results for r in components[row].runs} for row in rows]
        complete = [r.results for r in target.runs if all(r.seed in b for b in behind)]
        for column, (key, scale, cell) in SIZE_COLUMNS.items():
            each = {
                "Source Nets": [sum(_size(b[r["seed"]], key) for b in behind) for r in complete],
                "Component Nets": [_size(r, key) for r in complete],
                "Target Net": [r["sizes"][STUDENT][key] for r in complete],
            }
            for model, values in each.items():
                stands = printed[model][cell].rstrip("MG") if group == COUNTED else ""
                cells.append(
                    Cell(SIZES, model, column, f"{group}: {target.label}", key, tuple(scale * v for v in values), published=stands)
                )
    return [c for c in cells if c.measured]


def _size(results: Mapping[str, Any], key: str) -> float:
    return sum(results["sizes"][name][key] for name in results["teachers"])


# -- as text ----------------------------------------------------------------------------------------------------------
def beside_table(table: str, found: Sequence[FinishedRun], folder: Path) -> tuple[str, list[Path]]:
    """Writes `{table}.md` and `{table}.csv`: measured | taught by | published | difference.

    Args:
        table: one of `TABLES`.
        found: runs that name its rows (`named`).
        folder: an existing folder.

    Returns:
        The Markdown, and what was written: nothing if networks are missing that only together fill a cell (table 4).

    Raises:
        UserError: a row that is not published, or runs of one row that were measured on different images.
    """
    made, notes = groups(found)
    cells = cells_of(table, made)
    if not cells:
        return f"{table}: no cell to fill, since no target net is here with the component nets of all its tasks", []
    check_same_images(table, made)
    marks = Footnotes()
    about = [f"The rows of `{table}`:{mark}" for mark in [marks.mark(table)] if mark]
    lines = [f"# Beside {table}", "", *(f"* {n}" for n in [*about, *_preamble(table, made), *notes]), ""]
    lines += _size_table(cells, marks) if table == SIZES else _table(cells, marks)
    lines += ["", *marks.lines(), "## Runs", "", *origin(made), ""]
    file = text.write_csv(folder / f"{table}.csv", CSV_HEAD, (c.csv() for c in cells))
    markdown = "\n".join(lines)
    (folder / f"{table}.md").write_text(markdown, encoding="utf-8")
    return markdown, [folder / f"{table}.md", file]


def origin(found: Sequence[Group]) -> list[str]:
    """Where the numbers come from (`seeds.origin`); labels do not say the tasks, so they are added."""
    return seeds.origin([replace(g, label=f"{', '.join(g.first.results['tasks'])}: {g.label}") for g in found])


def check_same_images(table: str, found: Sequence[Group]) -> None:
    """Runs that stand in one row must have been measured on the same images.

    Raises:
        UserError: they were not; names two of them.
    """
    seen: dict[str, tuple[tuple, FinishedRun]] = {}
    for run in [g.first for g in found]:
        for row in references(table, run.results).values():
            for place in places(table, row, run.results):
                test = run.results["test"]
                images = (test["data"], test[STUDENT]["per_task"][place.task].get("n", test["images"]))
                theirs, other = seen.setdefault(place.row, (images, run))
                if theirs != images:
                    raise UserError(
                        f"--runs: {other.name} was measured on {other.test_set} and {run.name} on {run.test_set}, but both stand in row "
                        f"{place.row} of {table}: compare runs of one test set"
                    )


def _preamble(table: str, found: Sequence[Group]) -> list[str]:
    sets = list(dict.fromkeys(g.first.test_set for g in found))
    said = [f"Ours: {'; '.join(sets)}. Median over seeds [smallest..largest]."]
    if table == SIZES:
        said.append(
            f"Printed: the ten source nets, four component nets and the target net of the group {COUNTED}; FLOPs: 2 x multiply-adds of one "
            "image. Runs of another width or image size differ in every cell; the shares of the source nets compare."
        )
        return said
    said.append("Percent. `taught by`: mean of the nets that taught it, on the same images. Majority: always the commonest class (C14).")
    wanted = "{} ({} images)".format(*ATTRIBUTES_TEST)
    if table == "cust_table7":
        said.append(f"The paper publishes neither its random halves nor its test images: the {text.TWO_KINDS} sets of classes.")
    elif other := [s for s in sets if s != wanted]:
        said.append(f"Measured on {'; '.join(other)}, NOT on the published test set {wanted}: the {text.TWO_KINDS} data sets.")
    rows = {name: row for g in found for name, row in references(table, g.first.results).items()}
    said += [f"`?` in {name.partition('/')[2]}: {row['note']}." for name, row in rows.items() if row.get("note")]
    return said


def _table(cells: Sequence[Cell], marks: Footnotes) -> list[str]:
    by_place: dict[tuple[str, str, str], dict[str, Cell]] = {}
    for c in cells:
        by_place.setdefault((c.row, c.column, c.variant), {})[c.metric] = c
    head = [
        "row",
        "column",
        "measured as",
        "seeds",
        "accuracy",
        "taught by",
        "published",
        "difference",
        "majority",
        "balanced",
        "taught by",
    ]
    rows = [
        [
            *place,
            str(len(of[ACCURACY].measured)),
            *of[ACCURACY].shown(marks.cell(of[ACCURACY].table, *place[:2])),
            text.spread(of[MAJORITY].measured, 1),
            text.spread(of[BALANCED].measured, 1),
            text.spread(of[BALANCED].teacher, 1),
        ]
        for place, of in sorted(by_place.items(), key=lambda item: item[0][0])
    ]
    return text.table(head, rows)


def _size_table(cells: Sequence[Cell], marks: Footnotes) -> list[str]:
    head = ["networks", "measured as", "column", "measured", "published", "difference", "% of the source nets", "published"]
    whole = {(c.variant, c.column): c for c in cells if c.row == "Source Nets"}
    rows = []
    for c in cells:
        _, _, printed, difference = c.shown(marks.cell(c.table, c.row, SIZE_COLUMNS[c.column][2]))
        of = whole[c.variant, c.column]
        share = f"{100 * text.median(c.measured) / text.median(of.measured):.1f}"
        theirs = f"{100 * float(c.published) / float(of.published):.1f}" if c.published else text.NOTHING
        rows.append([c.row, c.variant, c.column, text.spread(c.measured, 2), printed, difference, share, theirs])
    return text.table(head, rows)
