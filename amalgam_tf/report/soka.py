"""SOKA's runs: which of them is what, and their numbers beside the paper's tables 1 to 5.

What a run is follows from its results and its configuration, never from the name of its folder. The paper states no scale for its
metrics, and no reading of them gives its numbers (spec S12): so its cells stand here only as ratios to the teacher's of the same task,
beside the same ratios of our paper-style columns. Our own tables are of standard, masked metrics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from amalgam_tf import choice, published
from amalgam_tf.report import dense, runs, text
from amalgam_tf.report.footnotes import Footnotes
from amalgam_tf.report.paper import printed_number
from amalgam_tf.report.runs import STUDENT, FinishedRun, Group

METHOD, TEACHER = "soka", "dense_teacher"
TEACHERS, TRIVIAL = runs.TEACHERS, ("constant", "mean_map")
_WHO = ("teacher", *TRIVIAL)  # in the results of a teacher
OURS, NAMED = "ours", "depth-edge2d"  # the pair of tables 3 to 5
RATE, FAST = 1e-4, 1e-3  # of the task weights: the paper's two in fig. 5
_WHOLE = {
    "supervised": False,
    "schedule": "acct",
    "weights": "gradnorm",
    "mia": "channel,softmax_w",
    "auxiliary": "auto",
    "weighted_collaboration": False,
    "rate": RATE,
}
_JOINT = {"schedule": "joint", "weights": "equal", "auxiliary": "none"}
VARIANTS = {  # what differs from the whole method; in the order of the tables
    OURS: {},
    "no_auxiliary": {"auxiliary": "none"},
    "strong": {"auxiliary": "strongest"},
    "weak": {"auxiliary": "weakest"},
    "kd": {**_JOINT, "mia": ""},
    "kd_mia": {"schedule": "joint", "weights": "equal"},
    "equal": {"weights": "equal"},
    "weighted": {"weighted_collaboration": True},
    "fast_weights": {"rate": FAST},
    "printed_mia": {"mia": "channel"},
    "dmtl": {**_JOINT, "mia": "", "supervised": True},
    "gradnorm": {**_JOINT, "mia": "", "supervised": True, "weights": "gradnorm"},
}
AUXILIARY = ("no_auxiliary", "strong", "weak")  # may be the very run that `auto` made

PAPER = {  # task -> its names in the rows of table 1, and in the columns of tables 3 to 5
    "depth_zbuffer": ("depth", "Depth", "depth"),
    "normal": ("sfnorm", "Normal", ""),
    "edge_texture": ("edge2d", "Edge2D", "edge"),
    "edge_occlusion": ("edge3d", "Edge3D", ""),
}
SHORT = {**{task: names[0] for task, names in PAPER.items()}, "normal": "normal"}
MAIN = {"depth": ("rmse", "absrel", "d1.25"), "normal": ("mean_deg", "within_11.25"), "map": ("l1", "rmse")}
ERROR = {"depth": "rmse", "normal": "mean_deg", "map": "rmse"}  # what claims are about
TABLE_1 = ("rmse", "rel", "d1.25", "d1.25^2")
ROWS = {  # table -> its row -> our variant
    "soka_table3": {"dMTL": "dmtl", "GradNorm": "gradnorm", "Ours": OURS},
    "soka_table4": {"w/o auxiliary": "no_auxiliary", "vanishing point": "weak", "keypoint3d": "strong"},
    "soka_table5": {"KD": "kd", "KD+MIA": "kd_mia", "KD+MIA+ACCT": OURS},
}


# -- which run is what ------------------------------------------------------------------------------------------------
def variant_of(run: FinishedRun) -> str:
    """A key of `VARIANTS`, or `ours with mia=element` for what the paper has no row for."""
    own = {**run.results["variant"], "rate": rate_of(run)}
    if own["weights"] != "gradnorm":
        own["rate"] = RATE  # of what never moves
    differing = {k: v for k, v in own.items() if v != _WHOLE.get(k)}
    known = {name: {k: v for k, v in changes.items() if v != _WHOLE[k]} for name, changes in VARIANTS.items()}
    return next((name for name, changes in known.items() if changes == differing), f"{OURS} with {text_of(differing)}")


def text_of(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in settings.items())


def rate_of(run: FinishedRun) -> float:
    """Learning rate of the task weights, by config.json; without it (only results were kept) by the command."""
    if run.config is not None:
        return float(run.config["gradnorm"]["optimizer"]["learning_rate"])
    if given := run.flags.get("config.gradnorm.optimizer.learning_rate"):
        return float(given)
    return FAST if "fast_weights" in run.flags.get("config", "").partition(":")[2].split(",") else RATE


@dataclass(frozen=True)
class Pair:
    """All runs of one list of tasks on one test part.

    Attributes:
        groups: one a variant (its label), in the order of `VARIANTS`.
    """

    groups: tuple[Group, ...]

    @property
    def tasks(self) -> list[str]:
        return self.groups[0].first.results["tasks"]

    @property
    def name(self) -> str:
        """As the paper's: `depth-edge2d`."""
        return "-".join(SHORT.get(t, t) for t in self.tasks)

    def own(self, variant: str) -> dict[int, FinishedRun]:
        """seed -> run, of those made as this variant."""
        return {r.seed: r for g in self.groups if g.label == variant for r in g.runs}

    def runs(self, variant: str) -> dict[int, FinishedRun]:
        """seed -> run; where `auto` chose the auxiliary teacher of this variant, it is the run of the whole method, counted once."""
        found = self.own(variant)
        if variant in AUXILIARY and any(g.label in AUXILIARY for g in self.groups):  # else no one asks what an auxiliary teacher does
            found |= {s: run for s, run in self.own(OURS).items() if self._auxiliary(variant, s) == run.results["auxiliary"]}
        return dict(sorted(found.items()))

    def repeats(self, variant: str) -> list[int]:
        """Seeds in which this variant is the run of the whole method."""
        ours = self.own(OURS)
        return [s for s, run in self.runs(variant).items() if variant != OURS and run is ours.get(s)]

    def called(self, variant: str) -> str:
        """The variant's name; says so if it is the run of the whole method in every seed."""
        same = self.repeats(variant)
        return f"{variant} (same run as ours)" if same and same == list(self.runs(variant)) else variant

    def _auxiliary(self, variant: str, seed: int) -> str | None:
        """The auxiliary teacher this variant has: as its run says, else by the similarities that the whole method's run measured."""
        if own := self.own(variant).get(seed):
            return own.results["auxiliary"]
        if variant == "no_auxiliary":
            return ""
        results = self.own(OURS)[seed].results
        similar, wanted = results["similarities"], list(results["teachers"])
        if len(similar) <= len(wanted):
            return None  # no candidate, or never measured
        return (choice.strongest if variant == "strong" else choice.weakest)(similar, wanted)

    @property
    def variants(self) -> list[str]:
        """Those that have a run, in order; other settings behind those of the paper."""
        named = [v for v in VARIANTS if self.runs(v)]
        return [*named, *(g.label for g in self.groups if g.label not in VARIANTS)]


def pairs(found: Sequence[FinishedRun]) -> tuple[list[Pair], list[str]]:
    """Runs by tasks and variant, each over its seeds; and sentences of what a reader of medians should know (`runs.groups`)."""
    by_tasks: dict[tuple[str, ...], dict[str, list[FinishedRun]]] = {}
    for run in found:
        by_tasks.setdefault(tuple(sorted(run.results["tasks"])), {}).setdefault(variant_of(run), []).append(run)
    made, notes = [], []
    for by_variant in by_tasks.values():
        groups: list[Group] = []
        for variant, members in by_variant.items():
            own, said = runs.named(members, variant)
            groups += own
            notes += said
        order = [*VARIANTS, *by_variant]
        made.append(Pair(tuple(sorted(groups, key=lambda g: order.index(g.label) if g.label in order else len(order)))))
        notes += [*_same_runs(made[-1]), *_poor_teachers(made[-1])]
    return sorted(made, key=lambda p: list(PAPER).index(p.tasks[0]) if p.tasks[0] in PAPER else len(PAPER)), notes


def _same_runs(pair: Pair) -> list[str]:
    said = []
    for variant in AUXILIARY:
        if seeds := pair.repeats(variant):
            chosen = dict.fromkeys(pair.own(OURS)[s].results["auxiliary"] or "none" for s in seeds)
            numbers = ", ".join(map(str, seeds))
            said.append(f"{pair.name}, {variant}: same run as ours in seed {numbers} (auxiliary teacher {', '.join(chosen)}), counted once")
    return said


def _poor_teachers(pair: Pair) -> list[str]:
    """Tasks whose teacher learned nothing from the image: then all students tie, and being on par with it is no achievement."""
    said = []
    for task in pair.tasks:
        every = {id(r): r for g in pair.groups for r in g.runs}.values()
        both = [(r, *(measured(r, who, task, ERROR[kind_of(r, task)]) for who in (TEACHERS, "mean_map"))) for r in every]
        if poor := sorted({r.seed for r, taught, guess in both if taught is not None and guess is not None and taught >= guess}):
            seeds = ", ".join(map(str, poor))
            said.append(
                f"{pair.name}: the teacher of {task} is no better than the mean map in seed {seeds}, so claims about {task} say nothing"
            )
    return said


# -- what was measured ------------------------------------------------------------------------------------------------
def kind_of(run: FinishedRun, task: str) -> str:
    """`depth`, `normal` or `map`, by the metrics a task has."""
    measured = run.results["test"]["teacher" if run.method == TEACHER else STUDENT]["per_task"][task]
    return "normal" if "mean_deg" in measured else "depth" if "absrel" in measured else "map"


def network_of(run: FinishedRun, who: str, task: str) -> str:
    """What a network is called in results and scores: `teachers` is the one that teaches the task."""
    return runs.kept_streams(run.results)[task][0] if who == TEACHERS else who


def measured(run: FinishedRun, who: str, task: str, metric: str) -> float | None:
    """One number of one run; None if it was not measured.

    Args:
        run: of SOKA.
        who: `student`, `teachers` (the one of the task), `constant` or `mean_map`.
        task: one of the run's.
        metric: a column of `metrics.dense.METRICS`.
    """
    return run.results["test"].get(network_of(run, who, task), {}).get("per_task", {}).get(task, {}).get(metric)


def over_seeds(found: Mapping[int, FinishedRun], who: str, task: str, metric: str) -> list[float]:
    """A value a seed."""
    return [v for run in found.values() if (v := measured(run, who, task, metric)) is not None]


def ratios(found: Mapping[int, FinishedRun], task: str, metric: str) -> list[float]:
    """Student over the teacher of the task, a value a seed; nothing for a teacher at 0."""
    both = [(measured(run, STUDENT, task, metric), measured(run, TEACHERS, task, metric)) for run in found.values()]
    return [a / b for a, b in both if a is not None and b]


# -- published --------------------------------------------------------------------------------------------------------
def printed_ratio(cell: str, teacher: str, digits: int = 3) -> str:
    """A printed cell over the paper's teacher's; `?` and what is not printed stay."""
    if cell.strip() == "?":
        return "?"
    a, b = printed_number(cell), printed_number(teacher)
    return text.NOTHING if a is None or not b else f"{a / b:.{digits}f}"


def printed_in_table_1(tasks: Sequence[str], task: str) -> dict[str, str]:
    """Column of table 1 -> printed ratio student / teacher; all `-` for a pair that is not in the table."""
    rows = {f"{r['model']}/{r['task']}": r for r in published.table("soka_table1")}
    row = rows.get(_row_of_table_1(tasks, task))
    return {c: printed_ratio(row[c], rows[f"teacher/{row['task']}"][c]) if row else text.NOTHING for c in TABLE_1}


def _row_of_table_1(tasks: Sequence[str], task: str) -> str:
    """`depth-edge2d/Depth`, whether it is printed or not; "" of what is no pair of the paper's tasks."""
    here, others = PAPER.get(task), [PAPER.get(t) for t in tasks if t != task]
    return f"{here[0]}-{others[0][0]}/{here[1]}" if here and len(others) == 1 and others[0] else ""


class Line(NamedTuple):
    """A row of tables 3 to 5: name in the paper, what our variant is called, column -> our ratios a seed, column -> printed ratio."""

    row: str
    called: str
    ours: Mapping[str, Sequence[float]]
    printed: Mapping[str, str]


def lines_of(table: str, pair: Pair) -> list[Line]:
    """Rows of table 3, 4 or 5 for depth and edge2d. Variants that were not run have no numbers."""
    teacher = next(r for r in published.table("soka_table4") if r["method"] == "teacher")
    tasks, found = {names[2]: task for task, names in PAPER.items() if names[2]}, []
    for row in published.table(table):
        if variant := ROWS[table].get(row["method"]):
            columns = [c for c in row if c != "method"]
            own = pair.runs(variant)
            ours = {c: ratios(own, tasks[c.partition("_")[0]], f"paper_{c.partition('_')[2]}") for c in columns}
            found.append(Line(row["method"], pair.called(variant), ours, {c: printed_ratio(row[c], teacher[c]) for c in columns}))
    return found


# -- tables -----------------------------------------------------------------------------------------------------------
def teacher_table(found: Sequence[FinishedRun]) -> list[str]:
    """Teachers, of all tasks that have one, beside what does not look at the image."""
    by_task: dict[str, list[FinishedRun]] = {}
    for taught in found:
        by_task.setdefault(taught.results["tasks"][0], []).append(taught)
    rows = []
    for task, own in by_task.items():
        for metric in MAIN[kind_of(own[0], task)]:
            each = {who: [r.results["test"].get(who, {}).get("per_task", {}).get(task, {}).get(metric) for r in own] for who in _WHO}
            rows.append([task, head(metric), str(len(own)), *(text.spread(v, dense.HEADS[metric][1]) for v in each.values())])
    return text.table(["task", "metric", "seeds", *_WHO], rows) if rows else []


def table_1(found: Sequence[Pair]) -> list[str]:
    """Teacher, student and what does not look at the image, pair by pair, task by task, metric by metric."""
    rows = []
    for pair in found:
        own = pair.runs(OURS)
        for task in pair.tasks if own else ():
            for metric in MAIN[kind_of(next(iter(own.values())), task)]:
                cells = [spread(own, who, task, metric) for who in (TEACHERS, STUDENT, *TRIVIAL)]
                rows.append([pair.name, task, head(metric), str(len(own)), *cells, text.spread(ratios(own, task, metric))])
    return text.table(["pair", "task", "metric", "seeds", "teacher", "student", *TRIVIAL, "student / teacher"], rows) if rows else []


def table_1_ratios(found: Sequence[Pair], notes: Footnotes) -> list[str]:
    """Student / teacher in the paper-style columns, ours beside the printed ones."""
    rows = []
    for pair in found:
        own = pair.runs(OURS)
        for task in pair.tasks if own else ():
            printed = printed_in_table_1(pair.tasks, task)
            marked = {c: cell + notes.mark("soka_table1", _row_of_table_1(pair.tasks, task), c) for c, cell in printed.items()}
            beside = [cell for c in TABLE_1 for cell in (text.spread(ratios(own, task, f"paper_{c}")), marked[c])]
            rows.append([pair.name, task, *beside])
    return text.table(["pair", "task", *(cell for c in TABLE_1 for cell in (c, "published"))], rows) if rows else []


def table_2(found: Sequence[Pair]) -> list[str]:
    """Scalars of our networks beside what the paper prints, what that decodes to, and its networks alone; the shares compare."""
    pair = next((p for p in found if p.name == NAMED and p.runs(OURS)), None) or next((p for p in found if p.runs(OURS)), None)
    if pair is None:
        return []
    printed = {r["what"]: list(r.values())[1:] for r in published.table("soka_table2")}
    mia = float(_number(printed["student"][0])) - float(_number(printed["MTL"][0]))
    printed["MIA"] = [f"{mia:.2f}M", "", ""]
    whole, own = printed["two teachers"], list(pair.runs(OURS).values())
    taught = [sum(r.results["sizes"][n]["parameters"] for n in r.results["teachers"]) for r in own]
    sizes = {
        "two teachers": taught,
        "student": [r.results["sizes"][STUDENT]["parameters"] for r in own],
        "MTL": [r.results["sizes"][STUDENT]["parameters"] for r in pair.runs("dmtl").values()],
        "MIA": [r.results["mia_parameters"] for r in own],
    }
    rows = []
    for what, values in sizes.items():
        share = text.spread([v / text.median(taught) for v in values], 4)
        theirs = printed.get(what, [""] * 3)
        shares = [printed_ratio(_number(a), _number(b), 4) for a, b in zip(theirs, whole, strict=True)]
        beside = [cell for c, s in zip(theirs, shares, strict=True) for cell in (c or text.NOTHING, s)]
        rows.append([f"{what}, {pair.name}", text.spread(values, 4, 1e-6), share, *beside])
    heads = ("printed", "recomputed, floats of a checkpoint", "network only")
    return text.table(["what", "ours (M)", "share", *(cell for h in heads for cell in (h, "share"))], rows)


def _number(cell: str) -> str:
    """`175.735M + MIA` -> `175.735`: the weights of MIA are not known."""
    return cell.partition("M")[0]


def variant_table(pair: Pair) -> list[str]:
    """The task's own main metrics of every variant beside the teachers and what does not look at the image; teachers that all seeds share
    count as one seed."""
    first = pair.groups[0].first
    columns = [(t, m) for t in pair.tasks for m in MAIN[kind_of(first, t)]]
    any_run = {s: r for v in reversed(pair.variants) for s, r in pair.runs(v).items()} | pair.runs(OURS)

    def beside(who: str) -> list[str]:
        different = {tuple(measured(run, who, *c) for c in columns) for run in any_run.values()}
        return [who, str(len(different)), *(spread(any_run, who, *c) for c in columns)]

    rows = [beside(TEACHERS)]
    for variant in pair.variants:
        own, called = pair.runs(variant), pair.called(variant)
        cells = [text.NOTHING] * len(columns) if called != variant else [spread(own, STUDENT, *c) for c in columns]
        rows.append([called, str(len(own)), *cells])
    rows += map(beside, TRIVIAL)
    return text.table(["network", "seeds", *(f"{SHORT.get(t, t)} {head(m)}" for t, m in columns)], rows)


def ratio_table(table: str, found: Iterable[Line], notes: Footnotes) -> list[str]:
    """Of table 3, 4 or 5: two lines a row, ours and the printed one, both over their teacher."""
    rows, columns = [], []
    for line in found:
        columns, count = list(line.ours), max((len(v) for v in line.ours.values()), default=0)
        rows.append([line.row, f"{line.called}, {count} seed{'s' * (count != 1)}", *(text.spread(v) for v in line.ours.values())])
        printed = (cell + notes.mark(table, line.row, c) for c, cell in line.printed.items())
        rows.append(["", f"published{notes.mark(table, line.row)}", *printed])
    return text.table(["row", "student / teacher", *columns], rows)


def spread(found: Mapping[int, FinishedRun], who: str, task: str, metric: str) -> str:
    return text.spread(over_seeds(found, who, task, metric), dense.HEADS[metric][1])


def head(metric: str) -> str:
    return dense.HEADS[metric][0]
