"""SOKA's runs as one experiment over seeds: claims with intervals, our tables 1 to 5 beside the paper's ratios, fig. 5, bars."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from amalgam_tf.report import dense, dense_figures, run, runs, seeds, soka, soka_claims, soka_figures, text
from amalgam_tf.report.footnotes import Footnotes
from amalgam_tf.report.runs import STUDENT, FinishedRun, Group
from amalgam_tf.report.soka import ERROR, NAMED, OURS, TEACHERS, TRIVIAL, Pair
from amalgam_tf.report.soka_claims import CHANGE, CLAIMS, EVERY_SEED, MARGIN, OVER_TASKS

CSV_HEAD = ("pair", "network", "task", "metric", "median", "smallest", "largest", "seeds")
CLAIMS_HEAD = (
    *("pair", "claim", "left", "right", "task", "metric", "seed", "seeds", "left_value", "right_value"),
    *("difference", "low", "high", "smallest", "largest", "resamples", "verdict"),
)
BARS = {"kd": "KD", "kd_mia": "KD+MIA", "no_auxiliary": "no auxiliary", "weak": "weak", "strong": "strong", OURS: OURS}
_UNITS = {"depth": "rmse in metres", "normal": "mean angle in degrees", "map": "rmse, share of the range"}


def write(name: str, found: Sequence[FinishedRun], teachers: Sequence[FinishedRun], output: Path, resamples: int) -> tuple[str, list[Path]]:
    """Writes `{name}.md`, `{name}.csv`, and as far as there is something to show `{name}_claims.csv`, `{name}_variants.png`,
    `{name}_weights.png` (fig. 5; the runs' metrics.jsonl must lie beside their results).

    Args:
        name: of the files.
        found: runs of SOKA on one test part, of any tasks and variants.
        teachers: runs of their teachers, those too that teach nobody here.
        output: an existing folder.
        resamples: number of bootstrap resamples.

    Returns:
        The Markdown, and what was written.

    Raises:
        UserError: scores that do not belong together, or damaged ones; a damaged metrics.jsonl.
    """
    made, notes = soka.pairs(found)
    said = [f"# {name}", "", f"Test part: {found[0].test_set}. Median over seeds [smallest..largest].", dense.SAID, ""]
    said += [*(f"* {n}" for n in notes), *[""] * bool(notes)]
    files = [_write_csv(made, output / f"{name}.csv")]
    said += _said_claims(made, found, name, output, resamples, files)
    said += ["## Teachers", "", *soka.teacher_table(teachers), ""] if teachers else []
    said += _said_tables(made)
    said += _said_figures(made, name, output, files)
    origin = [replace(g, label=f"{p.name}: {g.label}") for p in made for g in p.groups]
    said += ["## Runs", "", *seeds.origin([*origin, *(Group("teacher", (r,)) for r in teachers)]), ""]
    markdown = "\n".join(said)
    (output / f"{name}.md").write_text(markdown, encoding="utf-8")
    return markdown, [output / f"{name}.md", *files]


# -- claims -----------------------------------------------------------------------------------------------------------
def _said_claims(
    made: Sequence[Pair], found: Sequence[FinishedRun], name: str, output: Path, resamples: int, files: list[Path]
) -> list[str]:
    scored = [r for r in found if r.scores]
    images = soka_claims.Images(scored, resamples) if scored else None
    rows = [{"pair": pair.name, **row} for pair in made for row in soka_claims.differences(pair, images)]
    if not rows:
        return []
    files.append(text.write_csv(output / f"{name}_claims.csv", CLAIMS_HEAD, ([r[k] for k in CLAIMS_HEAD] for r in rows)))
    drawn = max(r["resamples"] for r in rows)
    how = f"{drawn} resamples of the test images" if drawn else "no intervals: the runs have no scores.npz beside their results.json"
    margin = f"{100 * MARGIN:.0f} %"
    lines = [
        f"Change of a task's main error (rmse; of normals the mean angle), left / right - 1, mean over seeds; paired bootstrap, {how}, the "
        "same for all seeds and networks. `mean`: over the tasks.",
        "",
        "* holds, does not hold: the interval and every seed lie on the claim's side, or all on the other side;",
        "* within the seed spread: the seeds lie on both sides; no claim: one seed, or seeds that agree while the interval does not.",
        f"* The sides: helps and hurts below and above 0; on par below +{margin}; does not matter within {margin} either way, against "
        f"beyond it; matters wholly off 0, against within {margin}.",
        "",
    ]
    return ["## Claims", "", *lines, *claim_table(rows), "", *_not_run(made)]


def claim_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The changes of error of all seeds together, as `soka_claims.differences` returns them with their pair."""
    shown = []
    for row in (r for r in rows if r["metric"] == CHANGE and r["seed"] == EVERY_SEED):
        interval = text.NOTHING if row["low"] is None else f"{row['low']:+.1f} .. {row['high']:+.1f}"
        several = row["seeds"] > 1
        spread = f"{row['smallest']:+.1f} .. {row['largest']:+.1f}" if several else text.NOTHING
        said = row["verdict"] if several else f"{row['verdict']} (one seed)"
        said = f"**{said}**" if row["verdict"] in (soka_claims.HOLDS, soka_claims.FAILS) else said
        who = f"{row['claim']} ({row['left']} - {row['right']})"
        task = row["task"] if row["task"] == OVER_TASKS else soka.SHORT.get(row["task"], row["task"])
        shown.append([row["pair"], who, task, str(row["seeds"]), f"{row['difference']:+.1f}", interval, spread, said])
    return text.table(["pair", "claim", "task", "seeds", "change %", "95 % interval", "seeds from .. to", "verdict"], shown)


def _not_run(made: Sequence[Pair]) -> list[str]:
    """Claims about depth and edge2d, the pair of the paper's ablations, that lack a run."""
    pair = next((p for p in made if p.name == NAMED), None)
    lacking = {c.said: soka_claims.missing(c, pair) for c in CLAIMS} if pair else {}
    said = [f"* {claim}: no run of {', '.join(names)}" for claim, names in lacking.items() if names]
    return [f"Not compared ({NAMED}):", "", *said, ""] if said else []


# -- tables -----------------------------------------------------------------------------------------------------------
def _said_tables(made: Sequence[Pair]) -> list[str]:
    said, notes = [], Footnotes()
    if rows := soka.table_1(made):
        said += ["## Table 1: teachers and students", "", *rows, ""]
        said += [
            f"Student / teacher in the paper-style columns, and the same ratio of the printed numbers:{notes.mark('soka_table1')}",
            "",
            *soka.table_1_ratios(made, notes),
            "",
        ]
        marks = notes.mark("soka_table2") + notes.mark("soka_table2", "student")
        how = f"All scalars of the networks, batch-norm statistics included.{marks}"
        said += ["## Table 2: sizes", "", how, "", *soka.table_2(made), ""]
    for pair in made:
        if pair.variants != [OURS]:
            said += [f"## Variants of {pair.name}", "", *soka.variant_table(pair), ""]
    for pair in (p for p in made if p.name == NAMED):
        for table in soka.ROWS:
            how = f"Paper-style columns over those of the teacher; printed: over the teacher of table 4.{notes.mark(table)}"
            rows = soka.ratio_table(table, soka.lines_of(table, pair), notes)
            said += [f"## Table {table[-1]}: {NAMED}", "", how, "", *rows, ""]
    return [*said, *notes.lines()]


def _write_csv(made: Sequence[Pair], path: Path) -> Path:
    """Long format: every metric of every network and variant over seeds, sizes and final task weights."""
    rows = []

    def add(pair: Pair, network: str, task: str, metric: str, values: Sequence[float]) -> None:
        if values:
            rows.append([pair.name, network, task, metric, *(f"{f(values):.8g}" for f in (text.median, min, max)), len(values)])

    for pair in made:
        for variant in pair.variants:
            own = pair.runs(variant)
            for who in (STUDENT, TEACHERS, *TRIVIAL):
                network = variant if who == STUDENT else f"{who} beside {variant}"
                for task in pair.tasks:
                    for metric in (*dense.HEADS, *dense.PAPER):
                        add(pair, network, task, metric, soka.over_seeds(own, who, task, metric))
            for task in pair.tasks:
                add(pair, variant, task, "task_weight", [r.results["task_weights"][task] for r in own.values()])
            add(pair, variant, "", "parameters", [r.results["sizes"][STUDENT]["parameters"] for r in own.values()])
            add(pair, variant, "", "seconds", [runs.training_seconds(r.results) for r in own.values()])
    return text.write_csv(path, CSV_HEAD, rows)


# -- figures ----------------------------------------------------------------------------------------------------------
def _said_figures(made: Sequence[Pair], name: str, output: Path, files: list[Path]) -> list[str]:
    said = []
    pair = next((p for p in made if p.name == NAMED), max(made, key=lambda p: len(p.variants)))
    first, second = (soka.SHORT.get(t, t) for t in pair.tasks[:2])
    for end, drawn, alt in (
        ("variants", soka_figures.variants(bars(pair), output / f"{name}_variants.png"), f"variants of {pair.name}, main errors"),
        (
            "weights",
            soka_figures.task_weights(rates(pair), f"task weight of {first} / {second}", output / f"{name}_weights.png"),
            f"task weights of {pair.name} over the steps (fig. 5), and what they end with",
        ),
    ):
        if drawn:
            files.append(output / f"{name}_{end}.png")
            said += [f"![{alt}]({name}_{end}.png)", ""]
    return ["## Figures", "", *said] if said else []


def bars(pair: Pair) -> list[soka_figures.Bars]:
    """The main error of every variant of tables 4 and 5 that was run, a panel a task; a variant that is the run of `ours` in every seed
    shares its bar. Nothing if only one variant was run.
    """
    found = {v: pair.runs(v) for v in BARS if pair.runs(v)}
    same = [v for v, own in found.items() if own and pair.repeats(v) == list(own)]
    names = {v: " = ".join([BARS[v], *(BARS[s] for s in same)]) if v == OURS else BARS[v] for v in found if v not in same}
    if len(names) < 2:
        return []
    panels, some = [], next(iter(found.values()))
    for task in pair.tasks:
        kind = soka.kind_of(next(iter(some.values())), task)
        metric = ERROR[kind]
        values = {names[v]: soka.over_seeds(found[v], STUDENT, task, metric) for v in names}
        beside = (soka.over_seeds(some, who, task, metric) for who in (TEACHERS, TRIVIAL[1]))
        panels.append(soka_figures.Bars(f"{soka.SHORT.get(task, task)}: {_UNITS[kind]}", values, *beside))
    return panels


def rates(pair: Pair) -> list[soka_figures.Rate]:
    """Fig. 5: the whole method at both rates of the task weights."""
    found = []
    for variant, rate in ((OURS, soka.RATE), ("fast_weights", soka.FAST)):
        if own := pair.runs(variant):
            first = next(iter(own.values()))
            errors = {t: ERROR[soka.kind_of(first, t)] for t in pair.tasks}
            final = {soka.SHORT.get(t, t): soka.ratios(own, t, metric) for t, metric in errors.items()}
            curves = [curve for r in own.values() if (curve := weight_curve(r, pair.tasks))]
            found.append(soka_figures.Rate(f"rate {rate:g}", curves, final))
    return found


def weight_curve(finished: FinishedRun, tasks: Sequence[str]) -> dict[int, float]:
    """Step -> weight of the first task / weight of the second, of a run's metrics.jsonl; nothing if that was not kept.

    Raises:
        UserError: a damaged metrics.jsonl.
    """
    if not finished.workdir:
        return {}
    rows = run.measured_in_training(finished.workdir)
    first, second = (dict(zip(*dense_figures.over_steps(rows, "weight/").get(t, ((), ())), strict=True)) for t in tasks[:2])
    return {step: first[step] / second[step] for step in first if second.get(step)}
