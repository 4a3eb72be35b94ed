"""The report of one run: `report.md`, figures and `report.html` from its `results.json`, and what it measured in training."""

import json
from pathlib import Path
from typing import Any

from amalgam_tf import published
from amalgam_tf.errors import UserError
from amalgam_tf.report import dense, figures, generated, html, text
from amalgam_tf.report.footnotes import Footnotes
from amalgam_tf.report.runs import BEFORE, RESULTS, FinishedRun, headline_ap, kept_streams, rule_of, rule_text
from amalgam_tf.report.text import number, percent
from amalgam_tf.training import state

REPORT = "report.md"
TOP_K = {"C-P": "c_precision", "C-R": "c_recall", "C-F1": "c_f1", "O-P": "o_precision", "O-R": "o_recall", "O-F1": "o_f1"}
MACRO_F1 = "macro_f1"  # mean of the classes' own F1; the paper may have printed it as C-F1 (spec A18)


_UNTESTED = (
    "no labelled images (data.test=none): the divergence says how far the student is from its teachers, and nothing says how good they are",
    "no image was read: the numbers are of generated images",
)


def write(workdir: Path) -> Path:
    """Writes report.md, figures/ and report.html (both in one file) into a workdir that holds results.json; returns the path of report.md.

    Raises:
        UserError: no results.json, a published row that does not exist, or a damaged metrics.jsonl where one is needed.
    """
    results = state.read_json(workdir / RESULTS)
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    title = f"{results['method']}: {', '.join(results['tasks'])}"
    lines = [f"# {title}", "", *_facts(results), "", "## Measured", "", *table(results), ""]
    if results["method"] in dense.METHODS:
        lines += dense.sections(results, measured_in_training(workdir), workdir)
    elif results["method"] != "teacher" and "test" in results:
        if figures.per_task(results, folder / "per_task.png"):
            lines += ["![per task](figures/per_task.png)", ""]
        lines += _top_k(results)
    if "labels" in results:
        lines += generated.sections(results)
    if results.get("block_losses"):
        figures.block_losses(results, folder / "block_losses.png")
        lines += ["## Branch points", "", *_branches(results), "", "![block losses](figures/block_losses.png)", ""]
    if results.get("selection") and "test" in results:
        lines += ["## Selection", "", *_selection(results), ""]
        if figures.transfer_losses(measured_in_training(workdir), folder / "transfer_losses.png"):
            lines += ["![transfer losses](figures/transfer_losses.png)", ""]
    lines += [*_curve(results), "## Sizes", "", *_sizes(results), ""]
    if results["published_row"]:
        lines += ["## Published", "", *_published(results["published_row"])]
    path = workdir / REPORT
    path.write_text("\n".join(lines), encoding="utf-8")
    html.write([path], workdir / html.NAME, title=title, runs=[FinishedRun(str(workdir), results)], command=results["command"])
    return path


def summary(workdir: Path) -> str:
    """What the terminal shows when a run is done: the table and where things are."""
    results = state.read_json(workdir / RESULTS)
    places = [f"results  {workdir / RESULTS}", f"report   {workdir / html.NAME} (as text: {REPORT})"]
    return "\n".join([*table(results), "", *places])


def table(results: dict[str, Any]) -> list[str]:
    """Lines of Markdown tables: AP and accuracy of the teachers and the student beside the commonest answer; for maps their own metrics."""
    if results["method"] in dense.METHODS:
        return dense.table(results)
    if "test" not in results:
        return generated.table(results) if "labels" in results else _closeness(results)
    return _teacher_table(results) if results["method"] == "teacher" else _student_table(results)


def measured_in_training(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, in order; none if there is no such file.

    Raises:
        UserError: a row that cannot be read.
    """
    path = workdir / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    try:
        return [dict(json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} holds a row that is no JSON object ({error}): remove that row") from error


def _published(references: str) -> list[str]:
    """The rows that the run stands beside, as printed, and what their reader must know."""
    notes, lines = Footnotes(), []
    for name, row in published.rows(references).items():
        lines += [f"Stands beside `{name}`:{notes.of(published.notes_of(name))}", "", *text.table(list(row), [list(row.values())]), ""]
    return [*lines, *notes.lines()]


def _trivial(row: dict[str, Any]) -> float | None:
    """Older results of binary tasks have the rate of "no" only."""
    return row.get("majority_rate", row.get("all_negative_accuracy"))


def _teacher_table(results: dict[str, Any]) -> list[str]:
    measured, ap = results["test"]["teacher"], headline_ap(results["test"]["data"])
    rows = [[name, number(v.get(ap)), percent(v["accuracy"]), percent(_trivial(v))] for name, v in measured["per_task"].items()]
    mean = measured["mean"]
    rows.append(["**mean**", number(mean.get(ap)), percent(mean.get("accuracy")), percent(_trivial(mean))])
    return text.table(["task", "AP", "accuracy %", "trivial %"], rows)


def _student_table(results: dict[str, Any]) -> list[str]:
    """Branch points and the state before fine-tuning are columns where the method has them."""
    test, kept, ap = results["test"], kept_streams(results), headline_ap(results["test"]["data"])
    branched, tuned = bool(results.get("branches")), BEFORE in test
    head = ["task", "teacher", *["branch"] * branched]
    numbers = ["AP teacher", "AP student", *["AP before fine-tuning"] * tuned, "acc. teacher %", "acc. student %", "trivial acc. %"]
    rows = []
    for task in results["tasks"]:
        owner, block = kept[task]
        student, teacher = test["student"]["per_task"][task], test[owner]["per_task"][task]
        before = [test[BEFORE]["per_task"][task].get(ap)] if tuned else []
        average = map(number, [teacher.get(ap), student.get(ap), *before])
        accuracies = map(percent, [teacher["accuracy"], student["accuracy"], _trivial(student)])
        known_by = "/".join(n for n, tasks in results["teachers"].items() if task in tasks)
        rows.append([task, known_by, *[block or text.NOTHING] * branched, *average, *accuracies])
    rows.append(["**mean**", *[""] * (len(head) - 1), *_means([r[len(head) :] for r in rows])])
    return text.table([*head, *numbers], rows)


def _closeness(results: dict[str, Any]) -> list[str]:
    """Of a run without labelled images: how far the student is from its teachers, and in which blocks its tasks leave."""
    measured, branched = results.get("held_out", {}).get("after", {}), bool(results.get("branches"))
    rows = []
    for task, (owner, block) in kept_streams(results).items():
        value = measured.get(f"{task}@{owner}", {}).get("divergence")
        rows.append([task, owner, *[block or text.NOTHING] * branched, text.NOTHING if value is None else f"{value:.4f}"])
    head = ["task", "teacher", *["branch"] * branched, "divergence from the teacher (nats, held-out images)"]
    return text.table(head, rows)


def _means(rows: list[list[str]]) -> list[str]:
    """Of the numbers as shown, so that a reader who adds up a column gets them; the last three columns are percent."""
    columns = [[float(cell) for cell in column if cell != text.NOTHING] for column in zip(*rows, strict=True)]
    digits = [3] * (len(columns) - 3) + [1] * 3
    return [f"{sum(c) / len(c):.{d}f}" if c else text.NOTHING for c, d in zip(columns, digits, strict=True)]


def _facts(results: dict[str, Any]) -> list[str]:
    return [
        f"* command: `{results['command']}`",
        f"* seed {results['seed']}, commit {results['commit'] or 'unknown'}, {results['precision']}",
        f"* {results['hardware']}, {results['seconds']:.0f} s",
        *(
            ["* fine-tuning was rejected: no epoch had a smaller held-out loss than its start, so the start was kept"]
            if results.get("finetune", {}).get("step") == 0
            else []
        ),
        *(_about_test(results) if "test" in results else [f"* {_UNTESTED['labels' in results]}"]),
    ]


def _about_test(results: dict[str, Any]) -> list[str]:
    test = results["test"]
    return [
        f"* test data: {test['data']}, {test['images']} images (used for these numbers only)",
        *(
            [f"* {test['skipped']['count']} more test images are unreadable or lack a file and count nowhere (`results.json` lists them)"]
            if "skipped" in test
            else []
        ),
        *([] if results["method"] in dense.METHODS else [_about_ap(test["data"])]),
    ]


def _about_ap(test_set: str) -> str:
    eleven = headline_ap(test_set) == "ap_11pt"
    average = "mean over 11 recalls of the best precision (VOC2007)" if eleven else "area under the interpolated precision-recall curve"
    return f"* AP: {average}; trivial: always giving the commonest answer"


def _top_k(results: dict[str, Any]) -> list[str]:
    measured = results["test"]["student"].get("top_k")
    if not measured:
        return []
    keys = {**TOP_K, "macro-F1": MACRO_F1}
    rows = [[mode, *(percent(values.get(key)) for key in keys.values())] for mode, values in measured.items()]
    said = "`strict`: the k surest labels of an image; `threshold`: those of them above 0.5; `all`: every label above 0.5."
    return ["## Top-k", "", f"Percent. {said}", "", *text.table(["labels", *keys], rows), ""]


def _branches(results: dict[str, Any]) -> list[str]:
    blocks, rule = list(results["block_losses"]), rule_of(results)
    rows = [
        [
            stream,
            results["branches"].get(stream, "(other teacher kept)"),
            *(f"{results['block_losses'][b][stream]['divergence']:.4f}" for b in blocks),
        ]
        for stream in results["block_losses"][blocks[0]]
    ]
    part = figures.part_of(results)
    chosen = (
        "the smallest loss is the branch point" if rule["name"] == "argmin" else f"the branch points are by the rule `{rule_text(rule)}`"
    )
    said = f"Divergence on the {part} images from the teacher in nats (0 is perfect); {chosen}."
    return [said, "", *text.table(["stream", "branch", *blocks], rows)]


def _selection(results: dict[str, Any]) -> list[str]:
    """Who teaches how much (CUST eqs. 5 and 6), and every teacher's accuracy beside the student's (spec C14)."""
    test, rows = results["test"], []

    def row(name: str, task: str, who: str, *chosen: str) -> list[str]:
        measured = test[who]["per_task"][task]
        return [name, *chosen, *(percent(measured.get(key)) for key in ("accuracy", "balanced_accuracy"))]

    for task in results["tasks"]:
        for stream, told in results["selection"].items():
            name, _, teacher = stream.rpartition("@")
            if name == task:
                rows.append(row(stream, task, teacher, percent(told["share"]), number(told["entropy"])))
        rows.append(row(f"{task}, student", task, "student", text.NOTHING, text.NOTHING))
    said = "Selected: share of the held-out images on which this teacher of the task is followed. Entropy: its mean over all of them."
    head = ["stream", "selected %", "entropy (nats)", "accuracy %", "balanced accuracy %"]
    return [f"{said} Accuracies: test part.", "", *text.table(head, rows)]


def _curve(results: dict[str, Any]) -> list[str]:
    """The student with all tasks branched at one block (spec A17, the paper's fig. 3)."""
    curve = results.get("curve")
    if not curve:
        return []
    ap, rows = headline_ap(results["test"]["data"]), []
    for block, at in curve.items():
        mean = at["test"]["mean"]
        size = [f"{at['parameters'] / 1e6:.3f}", f"{at['flops'] / 1e9:.3f}"]
        rows.append([block, number(mean.get(ap)), percent(mean.get("accuracy")), *size])
    head = ["all tasks at", "mean AP", "accuracy %", "parameters (M)", "GFLOPs an image"]
    said = "The student with every task branched at one block, before any fine-tuning (test part; nothing was chosen by it)."
    return ["## Every block", "", said, "", *text.table(head, rows), ""]


def _sizes(results: dict[str, Any]) -> list[str]:
    sizes = dict(results["sizes"])
    teachers = [s for name, s in sizes.items() if name != "student"]
    if len(teachers) > 1:
        sizes["all teachers"] = {k: sum(s[k] for s in teachers) for k in teachers[0] if all(k in s for s in teachers)}
    timed = any("latency_ms" in s for s in sizes.values())
    rows = []
    for name, s in sizes.items():
        latency = [f"{s['latency_ms']:.1f}" if "latency_ms" in s else text.NOTHING] if timed else []
        rows.append([name, f"{s['parameters'] / 1e6:.3f}", f"{s['flops'] / 1e9:.3f}", *latency])
    return text.table(["network", "parameters (M)", "GFLOPs an image", *["latency (ms)"] * timed], rows)
