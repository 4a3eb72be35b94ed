"""The report of one run: `report.md` and PNG figures from its `results.json`."""

from pathlib import Path
from typing import Any

from amalgam_tf import published
from amalgam_tf.report import figures, text
from amalgam_tf.report.runs import BEFORE, RESULTS, headline_ap, kept_streams, rule_of, rule_text
from amalgam_tf.report.text import number, percent
from amalgam_tf.training import state

TOP_K = {"C-P": "c_precision", "C-R": "c_recall", "C-F1": "c_f1", "O-P": "o_precision", "O-R": "o_recall", "O-F1": "o_f1"}
MACRO_F1 = "macro_f1"  # mean of the classes' own F1; the paper may have printed it as C-F1 (spec A18)


def write(workdir: Path) -> Path:
    """Writes report.md and figures/ into a workdir that holds results.json; returns the report's path.

    Raises:
        UserError: no results.json, or a published row that does not exist.
    """
    results = state.read_json(workdir / RESULTS)
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    lines = [f"# {results['method']}: {', '.join(results['tasks'])}", "", *_facts(results), "", "## Measured", "", *table(results), ""]
    if results["method"] != "teacher":
        if figures.per_task(results, folder / "per_task.png"):
            lines += ["![per task](figures/per_task.png)", ""]
        lines += _top_k(results)
    if results.get("block_losses"):
        figures.block_losses(results, folder / "block_losses.png")
        lines += ["## Branch points", "", *_branches(results), "", "![block losses](figures/block_losses.png)", ""]
    lines += [*_curve(results), "## Sizes", "", *_sizes(results), ""]
    if results["published_row"]:
        lines += ["## Published", "", f"Stands beside `{results['published_row']}`: {published.row(results['published_row'])}", ""]
    path = workdir / "report.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def summary(workdir: Path) -> str:
    """What the terminal shows when a run is done: the table and where things are."""
    results = state.read_json(workdir / RESULTS)
    places = [f"results  {workdir / RESULTS}", f"report   {workdir / 'report.md'}"]
    return "\n".join([*table(results), "", *places])


def table(results: dict[str, Any]) -> list[str]:
    """Per-task lines of a Markdown table: AP and accuracy of the teachers and the student beside the all-negative predictor."""
    return _teacher_table(results) if results["method"] == "teacher" else _student_table(results)


def _trivial(row: dict[str, Any]) -> float | None:
    return row.get("all_negative_accuracy", row.get("majority_rate"))


def _teacher_table(results: dict[str, Any]) -> list[str]:
    measured, ap = results["test"]["teacher"], headline_ap(results["test"]["data"])
    rows = [[name, number(v.get(ap)), percent(v["accuracy"]), percent(_trivial(v))] for name, v in measured["per_task"].items()]
    mean = measured["mean"]
    rows.append(["**mean**", number(mean.get(ap)), percent(mean.get("accuracy")), percent(mean.get("all_negative_accuracy"))])
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


def _means(rows: list[list[str]]) -> list[str]:
    """Of the numbers as shown, so that a reader who adds up a column gets them; the last three columns are percent."""
    columns = [[float(cell) for cell in column if cell != text.NOTHING] for column in zip(*rows, strict=True)]
    digits = [3] * (len(columns) - 3) + [1] * 3
    return [f"{sum(c) / len(c):.{d}f}" if c else text.NOTHING for c, d in zip(columns, digits, strict=True)]


def _facts(results: dict[str, Any]) -> list[str]:
    test = results["test"]
    eleven = headline_ap(test["data"]) == "ap_11pt"
    average = "mean over 11 recalls of the best precision (VOC2007)" if eleven else "area under the interpolated precision-recall curve"
    return [
        f"* command: `{results['command']}`",
        f"* seed {results['seed']}, commit {results['commit'] or 'unknown'}, {results['precision']}",
        f"* {results['hardware']}, {results['seconds']:.0f} s",
        *(
            ["* fine-tuning was rejected: no epoch had a smaller held-out loss than its start, so the start was kept"]
            if results.get("finetune", {}).get("step") == 0
            else []
        ),
        f"* test data: {test['data']}, {test['images']} images (used for these numbers only)",
        f"* AP: {average}; trivial: always saying no (binary) or the commonest class",
    ]


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


def _curve(results: dict[str, Any]) -> list[str]:
    """The student with all tasks branched at one block (spec A17, the paper's fig. 3)."""
    curve, ap = results.get("curve"), headline_ap(results["test"]["data"])
    if not curve:
        return []
    rows = []
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
