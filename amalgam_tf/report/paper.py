"""Cells of AFK's published tables beside what was measured here. Published cells stay text as printed, and never become measured ones.

Tables 1 and 2 (20 VOC classes): what the paper calls AP behaves like the accuracy at 0.5 (spec E1), so our accuracy is held against it.
Table 3 (COCO): at most three labels an image, those above 0.5 (spec A18). Fig. 3: pairs of classes, each with its branch point.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import re

from amalgam_tf import published
from amalgam_tf.data.voc import CLASSES
from amalgam_tf.errors import UserError
from amalgam_tf.report import text
from amalgam_tf.report.figures import Line, Pair
from amalgam_tf.report.footnotes import Footnotes
from amalgam_tf.report.run import MACRO_F1, TOP_K
from amalgam_tf.report.runs import BEFORE, STUDENT, TEACHERS, Group, Network, headline_ap, kept_streams, merged, stage_ends

TABLES = ("afk_table1", "afk_table2", "afk_table3", "afk_fig3")
METRICS = ("accuracy", "ap_11pt", "ap_all", "ap_sklearn")
# Name and size of the test part whose numbers are printed. VOC2012's own test labels are not public: val stands for it (spec A3).
TEST_SETS = {
    "afk_table1": ("voc2007/test", 4952),
    "afk_table2": ("voc2012/val", 5823),
    "afk_table3": ("coco/val2014", 40504),
    "afk_fig3": ("voc2007/test", 4952),
}
CLASS_OF = {c: c for c in CLASSES} | {
    "plane": "aeroplane",
    "bike": "bicycle",
    "table": "diningtable",
    "motor": "motorbike",
    "plant": "pottedplant",
    "tv": "tvmonitor",
}  # column of tables 1 and 2 -> class of the devkit
MEANS = ("mAP_printed", "mAP_computed")  # the printed means are off by up to 0.11 from the mean of the printed cells
ALL_NEGATIVE = "all_negative_accuracy"
UNITS = 16  # residual units of a ResNet-50: what fig. 3 counts branch points in (spec A9)
CSV_HEAD = ("table", "row", "column", "measured", "teacher", "published", "difference", "seeds", "metric", "smallest", "largest", "variant")


@dataclass(frozen=True)
class Cell:
    """One published cell and what stands beside it.

    Attributes:
        table, row, column: where it is printed.
        variant: what was measured for it, e.g. `AFK argmin`.
        metric: which of our metrics.
        measured: a value a seed, in percent as printed (a branch index: a number).
        teacher: of the same cell, likewise.
        published: as printed; "" where nothing is printed or another metric is.
        said: stands for `measured` where that is no number (names of blocks).
        seeds: how many runs; 0: as many as `measured`.
    """

    table: str
    row: str
    column: str
    variant: str
    metric: str
    measured: tuple[float, ...] = ()
    teacher: tuple[float, ...] = ()
    published: str = ""
    said: str = ""
    seeds: int = 0

    @property
    def difference(self) -> float | None:
        """Median measured minus published."""
        middle, printed = text.median(self.measured), printed_number(self.published)
        return None if middle is None or printed is None else middle - printed

    def csv(self) -> list[object]:
        """In the order of `CSV_HEAD`; numbers with two digits."""
        two = ["" if v is None else f"{v:.2f}" for v in (text.median(self.measured), text.median(self.teacher), self.difference)]
        ends = [f"{f(self.measured):.2f}" if self.measured else "" for f in (min, max)]
        measured, teacher, difference = two
        where = [self.table, self.row, self.column]
        return [
            *where,
            self.said or measured,
            teacher,
            self.published,
            difference,
            self.seeds or len(self.measured),
            self.metric,
            *ends,
            self.variant,
        ]

    def shown(self, marks: str = "") -> list[str]:
        """measured | teacher | published | difference, for reading; `marks` of footnotes go to what is published."""
        apart = self.difference  # a zero of either sign is +0.0
        difference = text.NOTHING if apart is None else f"{round(apart, 1) + 0.0:+.1f}" + "?" * ("?" in self.published)
        return [
            self.said or text.spread(self.measured, 1),
            text.spread(self.teacher, 1),
            f"{self.published}{marks}" if self.published else text.NOTHING,
            difference,
        ]


def printed_number(cell: str) -> float | None:
    """The number of a published cell, also of a doubtful one (`87.9?`); None of an empty cell or of text."""
    found = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*\??\s*", cell)
    return float(found[1]) if found else None


def table_of(results: Mapping) -> str:
    """`afk_table1` of a run that names one of its rows; "" if it names no row of `TABLES`."""
    name = results.get("published_row", "").partition("/")[0]
    return name if name in TABLES else ""


def check_one_test_set(table: str, groups: Sequence[Group]) -> list[str]:
    """Sentences about runs that were not measured on the published test part.

    Raises:
        UserError: runs of one table measured on different test parts.
    """
    first = groups[0].first
    for group in groups:
        if group.first.test_set != first.test_set:
            raise UserError(
                f"--runs: {first.name} was measured on {first.test_set} and {group.first.name} on {group.first.test_set}, "
                f"but both name rows of {table}: compare runs of one test set"
            )
    name, images = TEST_SETS[table]
    if (first.results["test"]["data"], first.results["test"]["images"]) == (name, images):
        return []
    return [f"Measured on {first.test_set}, NOT on the published test set {name} ({images} images): the {text.TWO_KINDS} data sets."]


# -- tables 1 and 2 ---------------------------------------------------------------------------------------------------
def class_cells(table: str, groups: Sequence[Group], metric: str) -> list[Cell]:
    """Cells of every row that the runs stand for, by class and for the means; each again with the metric that is beside it.

    A run that names `TargetRes50` also fills `TargetRes50_b1` ... `_b4` (its curve at the last block of a stage, spec A17) and
    `TeacherRes50` (its teachers), where the table has these rows.
    """
    rows = {r["row"]: r for r in published.table(table)}
    cells = []
    for name in dict.fromkeys(_row_named(g) for g in groups):
        own = [g for g in groups if _row_named(g) == name]
        for row, line in _lines(name, own, rows):
            taught = {} if row == TEACHER_ROW else _taught(line, own)
            for which in (metric, _beside(metric, own)):
                cells += [
                    _class_cell(table, row, line, taught, column, which, rows[row] if which == metric else {}) for column in _columns(rows)
                ]
    trivial = next(r for r in rows if r.startswith("all-negative"))
    if students := [g for g in groups if g.first.method != "teacher"]:
        line = Line("always no", "guess", students[0].networks(STUDENT))
        cells += [_class_cell(table, trivial, line, {}, column, ALL_NEGATIVE, rows[trivial]) for column in _columns(rows)]
    return cells


TEACHER_ROW, TAUGHT_BY = "TeacherRes50", "TargetRes50"  # the only teachers printed are those of this row


def _row_named(group: Group) -> str:
    reference = group.first.results["published_row"]
    return next(iter(published.row(reference).values()))


def _columns(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [c for c in next(iter(rows.values())) if c != "row"]


def _beside(metric: str, groups: Sequence[Group]) -> str:
    return headline_ap(groups[0].first.results["test"]["data"]) if metric == "accuracy" else "accuracy"


def _lines(name: str, groups: Sequence[Group], rows: Mapping[str, Mapping[str, str]]) -> list[tuple[str, Line]]:
    """(published row, networks over seeds) of everything that the runs of one row measured."""
    lines = []
    if name == TAUGHT_BY and TEACHER_ROW in rows:
        taught = merged({g.label: g.networks(TEACHERS) for g in groups})
        lines += [(TEACHER_ROW, Line(f"teachers of {label}", "teachers", networks)) for label, networks in taught.items()]
    for stage in range(1, 5):
        if (row := f"{name}_b{stage}") in rows:
            ends = {g.label: (g, stage_ends(g.first.results.get("curve", {})).get(stage)) for g in groups}
            curves = merged({label: g.networks(block) for label, (g, block) in ends.items() if block})
            lines += [(row, Line(f"{label}: all at {ends[label][1]}, not fine-tuned", "curve", n)) for label, n in curves.items()]
    for group in groups:
        if before := group.networks(BEFORE):
            lines.append((name, Line(f"{group.label}, before fine-tuning", group.kind, before)))
        lines.append((name, Line(group.label, group.kind, group.networks(STUDENT) or group.networks("teacher"))))
    return lines


def _taught(line: Line, groups: Sequence[Group]) -> dict[int, Network]:
    """The teachers of the line's own runs; a merged line's other seeds have those of the runs it was merged from."""
    own = sorted(groups, key=lambda g: not line.name.startswith(g.label))
    found: dict[int, Network] = {}
    for group in own:
        found = {**group.networks(TEACHERS), **found}
    return {seed: found[seed] for seed in line.networks if seed in found}


def _class_cell(
    table: str, row: str, line: Line, taught: Mapping[int, Network], column: str, metric: str, printed: Mapping[str, str]
) -> Cell:
    values = [_values(networks, column, metric) for networks in (line.networks, taught)]
    return Cell(table, row, column, line.name, metric, *values, published=printed.get(column, ""))


def _values(networks: Mapping[int, Network], column: str, metric: str) -> tuple[float, ...]:
    """Percent a seed. A mean only over all of the printed classes: over others it would be another mean."""
    if column in MEANS:
        found = [n.mean(metric) if set(CLASSES) <= n.per_task.keys() else None for n in networks.values()]
    else:
        found = [n.per_task.get(CLASS_OF[column], {}).get(metric) for n in networks.values()]
    return tuple(100 * v for v in found if v is not None)


# -- table 3 ----------------------------------------------------------------------------------------------------------
def top_k_cells(table: str, groups: Sequence[Group]) -> list[Cell]:
    """C-P ... O-F1 of the labels above 0.5 among the first three; beside them strictly three labels, and the mean of the classes' F1."""
    cells = []
    for group in groups:
        row = published.row(group.first.results["published_row"])
        measured = [m for m in (r["test"]["student"].get("top_k") for r in group.results) if m]
        for mode in ("threshold", "strict"):
            for column, key in {**TOP_K, "macro-F1": MACRO_F1}.items():
                values = tuple(100 * m[mode][key] for m in measured if key in m.get(mode, {}))
                printed = row.get(column, "") if mode == "threshold" else ""
                cells.append(Cell(table, row["method"], column, group.label, f"top_k_{mode}", values, published=printed))
    return cells


# -- figure 3 ---------------------------------------------------------------------------------------------------------
def pair_cells(table: str, groups: Sequence[Group], metric: str) -> list[Cell]:
    """Teacher, student and branch point of every printed task that a run has."""
    printed, cells = {r["task"]: r for r in published.table(table)}, []
    for group in groups:
        for task in [t for t in group.first.results["tasks"] if t in printed]:
            for which in (metric, _beside(metric, [group])):
                row = printed[task] if which == metric else {}
                of = {k: [n.per_task[task].get(which) for n in group.networks(k).values()] for k in (TEACHERS, STUDENT)}
                values = {k: tuple(100 * v for v in found if v is not None) for k, found in of.items()}
                cells.append(Cell(table, task, "teacher_AP", group.label, which, values[TEACHERS], (), row.get("teacher_AP", "")))
                cells.append(
                    Cell(table, task, "target_AP", group.label, which, values[STUDENT], values[TEACHERS], row.get("target_AP", ""))
                )
            cells += _branch_cells(table, task, group, printed[task])
    return cells


def _branch_cells(table: str, task: str, group: Group, printed: Mapping[str, str]) -> list[Cell]:
    points = [(list(r.get("block_losses", {})), kept_streams(r)[task][1]) for r in group.results]
    points = [(blocks, point) for blocks, point in points if point in blocks]
    said = ", ".join(dict.fromkeys(point for _, point in points))
    indices = tuple(float(blocks.index(point) + 1) for blocks, point in points if len(blocks) == UNITS)
    return [
        Cell(table, task, "branch_unit", group.label, "branch", published=printed["branch_unit"], said=said, seeds=len(points)),
        Cell(table, task, "branch_index_of_16", group.label, "branch", indices, published=printed["branch_index_of_16"]),
    ]


def pairs(table: str, groups: Sequence[Group]) -> list[Pair]:
    """What the figure of the pairs draws: the groups with a curve."""
    rows = {r["task"]: r for r in published.table(table)}
    found = []
    for group in groups:
        printed = {
            t: {k: printed_number(rows[t][k]) for k in ("teacher_AP", "target_AP")} for t in group.first.results["tasks"] if t in rows
        }
        found.append(
            Pair(f"{', '.join(group.first.results['tasks'])}: {group.label}", [r for r in group.results if r.get("curve")], printed)
        )
    return found


# -- as text ----------------------------------------------------------------------------------------------------------
def cells_of(table: str, groups: Sequence[Group], metric: str) -> list[Cell]:
    """All cells of a published table that the runs stand for."""
    if table == "afk_table3":
        return top_k_cells(table, groups)
    return pair_cells(table, groups, metric) if table == "afk_fig3" else class_cells(table, groups, metric)


def markdown(table: str, groups: Sequence[Group], cells: Sequence[Cell], metric: str, said: Sequence[str]) -> list[str]:
    """The comparison with one published table, for reading."""
    lines = [f"# Beside {table}", "", *_preamble(table, groups, metric), *(f"* {n}" for n in said), ""]
    notes = Footnotes()
    if table == "afk_table3":
        return [*lines, *_top_k_table(cells, notes), *notes.lines()]
    if table == "afk_fig3":
        return [*lines, *_pair_table(cells, notes), *notes.lines()]
    return [*lines, *_class_tables(cells, metric, notes), *notes.lines()]


def _preamble(table: str, groups: Sequence[Group], metric: str) -> list[str]:
    results = groups[0].first.results
    said = [f"* Ours: {results['test']['data']}, {results['test']['images']} images. Median over seeds [smallest..largest]; percent."]
    if table == "afk_table3":
        said.append(
            "* Labels of an image: those above 0.5 of its three surest; `strict`: always three. C-F1, O-F1: harmonic means (spec A18)."
        )
        return said
    if metric == "accuracy":
        ap = headline_ap(results["test"]["data"])
        said.append(
            "* What the paper calls AP behaves like the accuracy at 0.5, not like average precision (always saying no reaches 92.9 on "
            f"VOC2007 test), so our ACCURACY stands against it. Our true AP ({ap}) stands beside it and is not comparable."
        )
    else:
        said.append(
            f"* Asked for with --metric={metric}: the published numbers behave like the accuracy at 0.5, not like average precision, "
            f"so these {text.TWO_KINDS} different metrics."
        )
    if table == "afk_fig3":
        said.append(f"* A branch index counts the {UNITS} residual units of a ResNet-50: runs of other blocks have none.")
    if table == "afk_table2":
        said.append("* The labels of VOC2012 test are not public; val is the test part here, and the paper does not say which it used.")
    return said


def _class_tables(cells: Sequence[Cell], metric: str, notes: Footnotes) -> list[str]:
    trivial = {c.column: c for c in cells if c.metric == ALL_NEGATIVE}
    by_line: dict[tuple[str, str], list[Cell]] = {}
    for c in cells:
        if c.metric != ALL_NEGATIVE:
            by_line.setdefault((c.row, c.variant), []).append(c)
    overview, details = [], []
    for (row, variant), own in by_line.items():
        main = {c.column: c for c in own if c.metric == metric}
        beside = {c.column: c for c in own if c.metric != metric}
        other = next(iter(beside.values())).metric
        seeds = max(len(c.measured) for c in own)
        mean = MEANS[1]
        overview.append(
            [
                row,
                variant,
                str(seeds),
                *main[mean].shown(_marks(main[mean], notes)),
                text.spread(beside[mean].measured, 1),
                text.spread(beside[mean].teacher, 1),
            ]
        )
        rows = []
        for column, c in main.items():
            no = trivial.get(column)
            ours, theirs = (text.spread(no.measured, 1), no.published or text.NOTHING) if no else (text.NOTHING, text.NOTHING)
            rows.append([column, *c.shown(), text.spread(beside[column].measured, 1), text.spread(beside[column].teacher, 1), ours, theirs])
        head = [
            "class",
            metric,
            "teacher",
            "published",
            "difference",
            other,
            f"teacher {other}",
            "all-negative",
            "all-negative, published set",
        ]
        details += [f"## {row}: {variant}", "", *text.table(head, rows), ""]
    overview += [[c.row, c.variant, str(len(c.measured)), *c.shown(), text.NOTHING, text.NOTHING] for c in [trivial.get(MEANS[1])] if c]
    head = ["row", "measured as", "seeds", f"mean {metric}", "teacher", "published", "difference", f"mean {other}", f"teacher {other}"]
    return [*text.table(head, overview), "", *details]


def _marks(cell: Cell, notes: Footnotes) -> str:
    """Of the mean of a row also the notes about the printed mean: it is the mean of the printed cells that stands there."""
    return notes.cell(cell.table, cell.row, cell.column) + (notes.mark(cell.table, cell.row, MEANS[0]) if cell.column == MEANS[1] else "")


def _top_k_table(cells: Sequence[Cell], notes: Footnotes) -> list[str]:
    rows = []
    for c in cells:
        if c.metric == "top_k_threshold":
            strict = next(s for s in cells if (s.row, s.variant, s.column, s.metric) == (c.row, c.variant, c.column, "top_k_strict"))
            measured, _, printed, difference = c.shown(_marks(c, notes))
            rows.append([c.row, c.variant, c.column, measured, printed, difference, text.spread(strict.measured, 1)])
    return [*text.table(["row", "measured as", "column", "measured", "published", "difference", "strict"], rows), ""]


def _pair_table(cells: Sequence[Cell], notes: Footnotes) -> list[str]:
    rows = [[c.row, c.variant, c.column, c.metric, *c.shown(_marks(c, notes))] for c in cells]
    return [*text.table(["task", "measured as", "column", "metric", "measured", "teacher", "published", "difference"], rows), ""]
