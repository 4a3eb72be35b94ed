"""Runs of one experiment over seeds: every network in one line, labels apart, sizes against losses, paired intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amalgam_tf.report import figures, resampling, text
from amalgam_tf.report.figures import Line, Pair
from amalgam_tf.report.runs import BEFORE, STUDENT, TEACHERS, FinishedRun, Group, Network, headline_ap, merged

BASELINE = "distill"
_FEW = 4  # labels whose curves can be told apart from each other and from their teachers'


def taught_by(teacher: FinishedRun, student: FinishedRun) -> bool:
    """Whether a teacher's run can be the one behind a student: same seed, same test part, and it knows all one of its teachers gave."""
    same = teacher.seed == student.seed and teacher.test_set == student.test_set
    return same and any(set(tasks) <= set(teacher.results["tasks"]) for tasks in student.results.get("teachers", {}).values())


def lines(groups: Sequence[Group], teachers: Sequence[FinishedRun]) -> tuple[list[Line], dict[str, dict[int, Network]]]:
    """What the experiment measured, in the order of the tables.

    Args:
        groups: of students' runs.
        teachers: runs of teachers, for their wall time.

    Returns:
        The teachers together, the distillation baseline, the AFK student with all tasks at each block (not fine-tuned), the AFK student of
        each rule; and name -> seed -> network before fine-tuning, where there was any.
    """
    found = [
        Line("teachers" if i == 0 else f"teachers of {label}", TEACHERS, networks)
        for i, (label, networks) in enumerate(_teachers(groups, teachers).items())
    ]
    found += [Line(g.label, g.kind, g.networks(STUDENT)) for g in groups if g.first.method == BASELINE]
    for block in dict.fromkeys(b for g in groups for r in g.results for b in r.get("curve", {})):
        curves = merged({g.label: g.networks(block) for g in groups})
        found += [Line(f"all at {block}" + f" of {label}" * bool(i), "curve", n) for i, (label, n) in enumerate(curves.items())]
    found += [Line(g.label, g.kind, g.networks(STUDENT)) for g in groups if g.first.method != BASELINE]
    return found, {g.label: before for g in groups if (before := g.networks(BEFORE))}


def _teachers(groups: Sequence[Group], runs: Sequence[FinishedRun]) -> dict[str, dict[int, Network]]:
    named = {}
    for group in groups:
        networks = group.networks(TEACHERS)
        for student in group.runs:
            took = []
            for tasks in student.results["teachers"].values():
                own = [r for r in runs if taught_by(r, student) and set(tasks) <= set(r.results["tasks"])]
                took.append(own[0].results["seconds"] if len(own) == 1 else None)
            if took and None not in took:
                networks[student.seed] = _with_seconds(networks[student.seed], sum(took))
        named[group.label] = networks
    return merged(named)


def _with_seconds(network: Network, seconds: float) -> Network:
    return Network(**{**vars(network), "seconds": seconds})


# -- tables -----------------------------------------------------------------------------------------------------------
def overview(found: Sequence[Line], before: Mapping[str, Mapping[int, Network]], ap: str) -> list[str]:
    """One line a network: means over labels, sizes, time; median over seeds [smallest..largest]."""
    head = [
        "network",
        "seeds",
        "mAP",
        "accuracy %",
        "always no %",
        "held-out divergence",
        "parameters (M)",
        "GFLOPs",
        "latency / teachers",
        "minutes",
    ]
    rows = []
    for name, networks in _with_before(found, before):
        nets = list(networks.values())
        rows.append(
            [
                name,
                str(len(nets)),
                text.spread(n.mean(ap) for n in nets),
                text.spread((n.mean("accuracy") for n in nets), 1, 100),
                text.spread((n.mean("all_negative_accuracy") for n in nets), 1, 100),
                text.spread((n.divergence for n in nets), 4),
                text.spread((n.parameters for n in nets), 3, 1e-6),
                text.spread((n.flops for n in nets), 3, 1e-9),
                text.spread((n.latency for n in nets), 2),
                text.spread((n.seconds for n in nets), 1, 1 / 60),
            ]
        )
    return text.table(head, rows)


def per_label(found: Sequence[Line], before: Mapping[str, Mapping[int, Network]], tasks: Sequence[str], ap: str) -> list[str]:
    """Average precision of every label: median over seeds."""
    rows = [
        [name, *(text.number(text.median(n.per_task[t].get(ap) for n in networks.values())) for t in tasks)]
        for name, networks in _with_before(found, before)
    ]
    return text.table(["AP", *tasks], rows)


def _with_before(found: Sequence[Line], before: Mapping[str, Mapping[int, Network]]) -> Iterable[tuple[str, Mapping[int, Network]]]:
    for line in found:
        if line.name in before:
            yield f"{line.name}, before fine-tuning", before[line.name]
        yield line.name, line.networks


def plain(group: Group, ap: str) -> list[str]:
    """Student | teachers | trivial, label by label; of a teacher's run, the teacher | trivial."""
    which = "teacher" if group.first.method == "teacher" else STUDENT
    own, taught = group.networks(which).values(), group.networks(TEACHERS).values()
    sides = (taught, own) if taught else (own,)

    def row(name: str, value: Callable[[Network, str], float | None]) -> list[str]:
        averages = [text.spread(value(n, ap) for n in side) for side in sides]
        accuracies = [text.spread((value(n, "accuracy") for n in side), 1, 100) for side in sides]
        return [
            name,
            *averages,
            *accuracies,
            text.spread((_first(value(n, "all_negative_accuracy"), value(n, "majority_rate")) for n in own), 1, 100),
        ]

    rows = [row(task, lambda n, metric, task=task: n.per_task[task].get(metric)) for task in group.first.results["tasks"]]
    rows.append(row("**mean**", Network.mean))
    names = ["teacher", which] if taught else [which]
    return text.table(["label", *(f"AP {n}" for n in names), *(f"accuracy % {n}" for n in names), "trivial %"], rows)


def _first(*values: float | None) -> float | None:
    return next((v for v in values if v is not None), None)


def origin(groups: Sequence[Group]) -> list[str]:
    """Where the numbers come from."""
    rows = [
        [
            g.label,
            str(r.seed),
            r.name,
            r.results.get("commit") or "unknown",
            r.results.get("precision", text.NOTHING),
            r.results.get("hardware", text.NOTHING),
        ]
        for g in groups
        for r in g.runs
    ]
    return text.table(["run", "seed", "from", "commit", "precision", "hardware"], rows)


# -- paired differences -----------------------------------------------------------------------------------------------
def intervals(groups: Sequence[Group], resamples: int) -> list[dict[str, Any]]:
    """Every student against its teachers, every AFK student against the distillation baselines of its seeds (`resampling.compare`)."""
    sides = {g.label: resampling.Side(g.label, STUDENT, {r.seed: r for r in g.runs}) for g in groups}
    baselines = [g for g in groups if g.first.method == BASELINE]
    pairs = [(side, resampling.Side("its teachers", TEACHERS, side.runs)) for side in sides.values()]
    pairs += [(sides[g.label], sides[b.label]) for g in groups if g not in baselines for b in baselines]
    return resampling.compare(pairs, resamples)


def interval_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """As `resampling.compare` returns them."""
    shown = []
    for row in rows:
        seed = f"all {row['seeds']} (mean)" if row["seed"] == "all" else str(row["seed"])
        low, middle, high = (text.NOTHING if row[k] is None else f"{row[k]:+.3f}" for k in ("low", "difference", "high"))
        shown.append([f"{row['a']} - {row['b']}", seed, middle, f"{low} .. {high}"])
    return text.table(["difference in mAP", "seed", "difference", "95 % interval"], shown)


# -- all of it --------------------------------------------------------------------------------------------------------
def write(name: str, groups: Sequence[Group], notes: Sequence[str], output: Path, resamples: int) -> tuple[str, list[Path]]:
    """Writes `{name}.md`, `{name}.csv` and, as far as the runs have what they need, `{name}_bootstrap.csv`, `{name}_pareto.png`,
    `{name}_blocks.png`, `{name}_curve.png` (few labels only: the test metric of each by block, as AFK's fig. 3).

    Args:
        name: of the files.
        groups: runs of one test part and one list of tasks, and runs of teachers.
        notes: sentences to put on top.
        output: an existing folder.
        resamples: number of bootstrap resamples.

    Returns:
        The Markdown, and what was written.
    """
    order = list(figures.COLOURS)
    groups = sorted(groups, key=lambda g: order.index(g.kind) if g.kind in order else len(order))
    students = [g for g in groups if g.first.method != "teacher"]
    first = groups[0].first.results
    ap = headline_ap(first["test"]["data"])
    said = [
        f"# {name}",
        "",
        f"Test part: {first['test']['data']}, {first['test']['images']} images. Median over seeds [smallest..largest].",
    ]
    said += [f"mAP: mean of {ap} over labels. Always no: the accuracy of never finding anything.", "", *(f"* {n}" for n in notes), ""]
    files = []
    if students:
        found, before = lines(students, [r for g in groups if g.first.method == "teacher" for r in g.runs])
        tasks = students[0].first.results["tasks"]
        files.append(_write_csv(found, before, tasks, output / f"{name}.csv"))
        said += ["## Networks", "", *overview(found, before, ap), ""]
        figures.pareto(found, before, ap, output / f"{name}_pareto.png")
        files.append(output / f"{name}_pareto.png")
        said += [f"![size against loss and mAP]({name}_pareto.png)", ""]
        for i, results in enumerate(_trunks(students)):
            file = output / (f"{name}_blocks.png" if i == 0 else f"{name}_blocks_{i + 1}.png")
            figures.blocks_over_seeds(results, file)
            files.append(file)
            said += [f"![held-out divergence by block]({file.name})", ""]
        pairs = [Pair(g.label, [r for r in g.results if r.get("curve")], {}) for g in students] if len(tasks) <= _FEW else []
        if figures.curves_of_pairs(pairs, output / f"{name}_curve.png"):
            files.append(output / f"{name}_curve.png")
            said += [f"![test metric of the student branched at each block]({name}_curve.png)", ""]
        said += [f"## Labels ({ap}, median over seeds)", "", *per_label(found, before, tasks, ap), ""]
        said += _said_intervals(intervals(students, resamples), name, output, files)
    for group in groups:
        said += [f"## {group.label}: {', '.join(group.first.results['tasks'])}", "", *_published(group), *plain(group, ap), ""]
    said += ["## Runs", "", *origin(groups), ""]
    markdown = "\n".join(said)
    (output / f"{name}.md").write_text(markdown, encoding="utf-8")
    return markdown, [output / f"{name}.md", *files]


def _said_intervals(rows: Sequence[Mapping[str, Any]], name: str, output: Path, files: list[Path]) -> list[str]:
    if not rows:
        return ["No paired intervals: the runs have no scores.npz beside their results.json.", ""]
    head = ("a", "b", "seed", "seeds", "difference", "low", "high", "resamples")
    files.append(text.write_csv(output / f"{name}_bootstrap.csv", head, ([r[k] for k in head] for r in rows)))
    said = (
        f"Paired bootstrap over test images, {max(r['resamples'] for r in rows)} resamples. `all`: the mean difference over the seeds, "
        "the same images for all of them; how far the seeds differ shows in the lines above it."
    )
    return ["## Differences", "", said, "", *interval_table(rows), ""]


def _published(group: Group) -> list[str]:
    reference = group.first.results.get("published_row", "")
    return [f"Names the published row `{reference}`.", ""] if reference else []


def _trunks(groups: Sequence[Group]) -> list[list[Mapping[str, Any]]]:
    """One results file a seed of every family of trunks: rules that share their blocks have the same losses and are one family."""
    families: list[dict[int, Mapping[str, Any]]] = []
    for group in groups:
        own = {r.seed: r.results for r in group.runs if r.results.get("block_losses") and figures.part_of(r.results) == "held-out"}
        if not own:
            continue
        shape = _shape(next(iter(own.values())))
        same = (
            f
            for f in families
            if _shape(next(iter(f.values()))) == shape
            and all(f[s]["block_losses"] == own[s]["block_losses"] for s in f.keys() & own.keys())
        )
        family = next(same, None)
        if family is None:
            families.append(own)
        else:
            family.update(own)
    return [[f[s] for s in sorted(f)] for f in families]


def _shape(results: Mapping[str, Any]) -> list[list[str]]:
    return [[block, *streams] for block, streams in results["block_losses"].items()]


def _write_csv(found: Sequence[Line], before: Mapping[str, Mapping[int, Network]], tasks: Sequence[str], path: Path) -> Path:
    """Long format: every metric of every label and of the mean, and the sizes, over seeds."""
    rows = []

    def add(network: str, task: str, metric: str, values: Iterable[float | None]) -> None:
        known = [v for v in values if v is not None]
        if known:
            rows.append([network, task, metric, *(f"{f(known):.8g}" for f in (text.median, min, max)), len(known)])

    for name, networks in _with_before(found, before):
        nets = list(networks.values())
        for metric in ("ap_11pt", "ap_all", "ap_sklearn", "accuracy", "all_negative_accuracy"):
            add(name, "mean", metric, (n.mean(metric) for n in nets))
            for task in tasks:
                add(name, task, metric, (n.per_task[task].get(metric) for n in nets))
        for size in ("parameters", "flops", "latency", "divergence", "seconds"):
            add(name, "", size, (getattr(n, size) for n in nets))
    return text.write_csv(path, ("network", "task", "metric", "median", "smallest", "largest", "seeds"), rows)
