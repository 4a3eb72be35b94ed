"""Dual-GAN's runs as one experiment over seeds: all rows in one table, claims with intervals, labels, figs. 4 and 5."""

from collections.abc import Iterable, Mapping, Sequence
import math
from pathlib import Path
from typing import Any

from amalgam_tf import published
from amalgam_tf.report import dual_gan, dual_gan_claims, dual_gan_figures, seeds, text
from amalgam_tf.report.dual_gan import SAID, TEACHER, Numbers
from amalgam_tf.report.dual_gan_claims import FAILS, HOLDS, MARGIN, NONE, SEEDS
from amalgam_tf.report.footnotes import Footnotes
from amalgam_tf.report.runs import STUDENT, TEACHERS, FinishedRun, Group, headline_ap
from amalgam_tf.report.text import percent, spread

CSV_HEAD = ("row", "task", "metric", "median", "smallest", "largest", "seeds")
CLAIMS_HEAD = (
    *("claim", "left", "right", "seeds", "left_value", "right_value", "difference", "overlap"),
    *("mean", "low", "high", "smallest", "largest", "resamples", "verdict"),
)
_COLUMNS = {  # heading -> field, digits, scale
    "mAP": ("ap", 3, 1.0),
    "of the teachers' %": ("kept", 1, 100.0),
    "balanced accuracy %": ("balanced", 1, 100.0),
    "accuracy %": ("accuracy", 1, 100.0),
    "labels an image": ("positives", 2, 1.0),
    "agreement %": ("agreement", 1, 100.0),
    "of the commonest answers %": ("commonest", 1, 100.0),
    "images shown (k)": ("shown", 1, 1e-3),
    "minutes": ("minutes", 1, 1.0),
}
_PRINTED = "of the teacher's %, paper"


def write(name: str, own: Sequence[FinishedRun], beside: Sequence[FinishedRun], output: Path, resamples: int) -> tuple[str, list[Path]]:
    """Writes `{name}.md`, `{name}.csv`, and as far as there is something to show `{name}_claims.csv`, `{name}_images.png` (fig. 4; the
    runs' figures/generated.png must lie beside their results), `{name}_labels.png` (fig. 5).

    Args:
        name: of the files.
        own: runs of Dual-GAN on one test part and one list of tasks.
        beside: runs of other methods on the same tasks, and of teachers.
        output: an existing folder.
        resamples: number of bootstrap resamples.

    Returns:
        The Markdown, and what was written.

    Raises:
        UserError: scores that do not belong together, or damaged ones.
    """
    teachers = [r for r in beside if r.method == TEACHER]
    found, notes = dual_gan.rows([*own, *(r for r in beside if r.method != TEACHER)])
    ap = headline_ap(own[0].results["test"]["data"])
    lines = {TEACHERS: dual_gan.of_teachers(found, teachers, ap)}
    lines |= {row: [dual_gan.numbers(r, ap) for r in group.runs] for row, group in found.items()}
    sheets, lacking = dual_gan_figures.panels(found)
    notes = [*notes, *lacking]
    said = [f"# {name}", "", f"Test part: {own[0].test_set}. Tasks: {', '.join(own[0].results['tasks'])}.", *_legend(ap), ""]
    said += [*(f"* {n}" for n in notes), *[""] * bool(notes)]
    marks = Footnotes()
    said += ["## Rows", "", *overview(lines, dual_gan.trivial(found, ap), marks), "", *marks.lines()]
    files = [_write_csv(lines, found, ap, output / f"{name}.csv")]
    said += _said_claims(dual_gan_claims.differences(found, ap, resamples), name, output, files)
    said += [f"## Labels ({ap}, median over seeds)", "", *per_label(found, ap), ""]
    said += _said_figures(found, sheets, name, output, files)
    origin = [*found.values(), *(Group(TEACHER, (r,)) for r in teachers)]
    markdown = "\n".join([*said, "## Runs", "", *seeds.origin(origin), ""])
    (output / f"{name}.md").write_text(markdown, encoding="utf-8")
    return markdown, [output / f"{name}.md", *files]


def _legend(ap: str) -> list[str]:
    return [
        f"Median over seeds [smallest..largest]. mAP: mean of {ap} over labels, of the teachers on the student's labels; scores at random",
        "reach the prevalence. Labels an image: wanted labels that a generated image shows, by the teachers; agreement: decisions of the",
        "student on generated images that are the teachers', beside it that of their commonest answers, whatever the image. Images shown:",
        "over all training steps, a shared generator's included. Paper: VOC 2007, ten labels of one ResNet-101 (tables 1 and 4), another",
        "data set and size than this.",
    ]


# -- tables -----------------------------------------------------------------------------------------------------------
def overview(lines: Mapping[str, Sequence[Numbers]], trivial: Mapping[str, Numbers], marks: Footnotes) -> list[str]:
    """One line a row, then what needs no network.

    Args:
        lines: row -> numbers of every seed; of the teachers of every training of them.
        trivial: as `dual_gan.trivial` returns it.
        marks: takes the notes about the printed rows.
    """
    rows = []
    for row, each in lines.items():
        cells = [spread((getattr(n, field) for n in each), digits, scale) for field, digits, scale in _COLUMNS.values()]
        noted = marks.of(published.notes_of(dual_gan.PRINTED[row])) if row in dual_gan.PRINTED else ""
        rows.append([SAID.get(row, row), str(len(each)), *cells[:2], percent(dual_gan.printed(row)) + noted, *cells[2:]])
    for name, numbers in trivial.items():
        cells = [spread([getattr(numbers, field)], digits, scale) for field, digits, scale in _COLUMNS.values()]
        rows.append([name, text.NOTHING, *cells[:2], text.NOTHING, *cells[2:]])
    head = list(_COLUMNS)
    return text.table(["row", "seeds", *head[:2], _PRINTED, *head[2:]], rows)


def per_label(found: Mapping[str, Group], ap: str) -> list[str]:
    """Average precision of every label."""
    first = next(iter(found.values()))
    tasks = first.first.results["tasks"]

    def line(name: str, networks: Iterable[Any], metric: str) -> list[str]:
        networks = list(networks)
        return [name, *(text.number(text.median(n.per_task[t].get(metric) for n in networks)) for t in tasks)]

    rows = [line(SAID[TEACHERS], (n for g in found.values() for n in g.networks(TEACHERS).values()), ap)]
    rows += [line(SAID.get(row, row), group.networks(STUDENT).values(), ap) for row, group in found.items()]
    rows.append(line("prevalence", first.networks(STUDENT).values(), "prevalence"))
    return text.table(["AP", *tasks], rows)


def _said_claims(rows: Sequence[Mapping[str, Any]], name: str, output: Path, files: list[Path]) -> list[str]:
    if not rows:
        return []
    files.append(text.write_csv(output / f"{name}_claims.csv", CLAIMS_HEAD, ([r[k] for k in CLAIMS_HEAD] for r in rows)))
    drawn = max(r["resamples"] for r in rows)
    how = f"{drawn} resamples of the test images" if drawn else "no intervals: the runs have no scores.npz beside their results.json"
    said = [
        "Left minus right in mAP: of the medians over the seeds that both have; mean of the seeds' differences, and its interval by paired",
        f"bootstrap, {how}.",
        "",
        "* better: holds if the interval lies above 0 and every seed of the left above every one of the right; does not hold the other way",
        f"  round. On par: interval and seeds above -{MARGIN:g}; does not hold: all below.",
        f"* no claim: everything else, and fewer than {SEEDS} seeds.",
    ]
    return ["## Claims", "", *said, "", *claim_table(rows), ""]


def claim_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """As `dual_gan_claims.differences` returns them."""
    shown = []
    for r in rows:
        interval = text.NOTHING if r["low"] is None else f"{r['low']:+.3f} .. {r['high']:+.3f}"
        ranges = text.NOTHING if r["seeds"] < 2 else "overlap" if r["overlap"] else "apart"
        said = r["verdict"] if r["seeds"] >= SEEDS else f"{r['verdict']} ({r['seeds']} seed{'s' * (r['seeds'] > 1)})"
        said = f"**{said}**" if r["verdict"] in (HOLDS, FAILS) else said
        who = f"{r['claim']} ({r['left']} - {r['right']})"
        shown.append([who, str(r["seeds"]), f"{r['difference']:+.3f}", ranges, f"{r['mean']:+.3f}", interval, said])
    return text.table(["claim", "seeds", "of medians", "seed ranges", "mean", "95 % interval", "verdict"], shown)


def _write_csv(lines: Mapping[str, Sequence[Numbers]], found: Mapping[str, Group], ap: str, path: Path) -> Path:
    """Long format: every number of every row, every metric of every label, how often generated images show it."""
    rows = []

    def add(row: str, task: str, metric: str, values: Iterable[float | None]) -> None:
        if known := [v for v in values if v is not None]:
            rows.append([row, task, metric, *(f"{f(known):.8g}" for f in (text.median, min, max)), len(known)])

    for row, each in lines.items():
        for field in Numbers._fields:
            add(row, "", ap if field == "ap" else field, (getattr(n, field) for n in each))
    for row, group in found.items():
        nets = list(group.networks(STUDENT).values())
        for task in nets[0].per_task:
            for metric in (ap, "balanced_accuracy", "accuracy", "all_negative_accuracy", "prevalence"):
                add(row, task, metric, (n.per_task[task].get(metric) for n in nets))
        for task, shares in dual_gan_figures.frequencies(group).items():
            add(row, task, "shown", shares)
    return text.write_csv(path, CSV_HEAD, rows)


# -- figures ----------------------------------------------------------------------------------------------------------
def _said_figures(found: Mapping[str, Group], sheets: Mapping[str, Any], name: str, output: Path, files: list[Path]) -> list[str]:
    said, rows = [], dual_gan_claims.with_and_without(found)
    if dual_gan_figures.side_by_side(sheets, output / f"{name}_images.png"):
        files.append(output / f"{name}_images.png")
        said += ["## Figure 4: images", "", f"![{', '.join(sheets)}]({name}_images.png)", ""]
    if dual_gan_figures.label_frequencies(dual_gan_figures.bars(found, rows), output / f"{name}_labels.png"):
        files.append(output / f"{name}_labels.png")
        said += ["## Figure 5: how often generated images show each label", "", *evenness_table(found, rows), ""]
        said += [f"![label frequencies with and without the discrete loss, and of the test part]({name}_labels.png)", ""]
    return said


def evenness(shares: Sequence[float]) -> float | None:
    """Entropy of the labels' frequencies as shares of their sum, over that of equal ones: 1 is even, 0 a single label."""
    whole = sum(shares)
    if len(shares) < 2 or not whole:
        return None
    return -sum(s / whole * math.log(s / whole) for s in shares if s) / math.log(len(shares))


def evenness_table(found: Mapping[str, Group], rows: Sequence[str]) -> list[str]:
    """The paper's words for fig. 5, that the discrete loss makes the labels more uniform, as a number.

    Args:
        found: as `dual_gan.rows` returns them.
        rows: with the discrete loss, and without it; "" for a row there is not.
    """
    every = {"test images": [evenness([v[0] for v in dual_gan_figures.prevalences(next(iter(found.values()))).values()])]}
    for row in (r for r in rows if r):
        each = zip(*dual_gan_figures.frequencies(found[row]).values(), strict=True)
        every[row] = [evenness(shares) for shares in each]
    lines = ["Evenness: entropy of the labels' frequencies over that of equal ones; 1 is even.", ""]
    lines += text.table(["images", "seeds", "evenness"], [[k, str(len(v)), spread(v)] for k, v in every.items()])
    if all(rows):
        lines += ["", f"More even with the discrete loss, by the seeds' ranges: {_apart(*(every[row] for row in rows))}."]
    return lines


def _apart(left: Sequence[float | None], right: Sequence[float | None]) -> str:
    left, right = ([v for v in of if v is not None] for of in (left, right))
    if min(len(left), len(right)) < SEEDS:
        return f"{NONE} (fewer than {SEEDS} seeds)"
    return HOLDS if min(left) > max(right) else FAILS if max(left) < min(right) else NONE
