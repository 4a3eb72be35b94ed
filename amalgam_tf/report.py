"""The first report of a run: `report.md` and PNG figures from `results.json`. No number is made here, only shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amalgam_tf import published
from amalgam_tf.training import state

_AP = "ap_all"  # headline average precision of the tables; results.json holds all of them


def write(workdir: Path) -> Path:
    """Writes report.md and figures/ into a workdir that holds results.json; returns the report's path."""
    results = state.read_json(workdir / "results.json")
    figures = workdir / "figures"
    figures.mkdir(exist_ok=True)
    text = [f"# {results['method']}: {', '.join(results['tasks'])}", "", *_facts(results), "", "## Measured", "", *table(results), ""]
    if results["method"] != "teacher":
        _bars(results, figures / "per_task.png")
        _curves(results, figures / "block_losses.png")
        text += [
            "![per task](figures/per_task.png)",
            "",
            "## Branch points",
            "",
            *_branches(results),
            "",
            "![block losses](figures/block_losses.png)",
            "",
        ]
    text += ["## Sizes", "", *_sizes(results), ""]
    if results["published_row"]:
        text += ["## Published", "", f"Stands beside `{results['published_row']}`: {published.row(results['published_row'])}", ""]
    path = workdir / "report.md"
    path.write_text("\n".join(text), encoding="utf-8")
    return path


def summary(workdir: Path) -> str:
    """What the terminal shows when a run is done: the table and where things are."""
    results = state.read_json(workdir / "results.json")
    places = [f"results  {workdir / 'results.json'}", f"report   {workdir / 'report.md'}"]
    return "\n".join([*table(results), "", *places])


def table(results: dict[str, Any]) -> list[str]:
    """Per-task lines of a Markdown table: AP and accuracy of the teachers and the student beside the all-negative predictor."""
    return _teacher_table(results) if results["method"] == "teacher" else _student_table(results)


def _teacher_table(results: dict[str, Any]) -> list[str]:
    measured = results["test"]["teacher"]
    rows = [
        [name, _number(v.get(_AP)), _percent(v["accuracy"]), _percent(v.get("all_negative_accuracy", v.get("majority_rate")))]
        for name, v in measured["per_task"].items()
    ]
    mean = measured["mean"]
    rows.append(["**mean**", _number(mean.get(_AP)), _percent(mean.get("accuracy")), _percent(mean.get("all_negative_accuracy"))])
    return _markdown(["task", "AP", "accuracy %", "trivial %"], rows)


def _student_table(results: dict[str, Any]) -> list[str]:
    test = results["test"]
    known_by = {task: [n for n, tasks in results["teachers"].items() if task in tasks] for task in results["tasks"]}
    rows = []
    for task in results["tasks"]:
        student, before = test["student"]["per_task"][task], test["student_before_finetune"]["per_task"][task]
        stream = next(s for s in results["branches"] if s.rpartition("@")[0] == task)
        kept = test[stream.rpartition("@")[2]]["per_task"][task]
        trivial = student.get("all_negative_accuracy", student.get("majority_rate"))
        numbers = [
            _number(kept.get(_AP)),
            _number(student.get(_AP)),
            _number(before.get(_AP)),
            _percent(kept["accuracy"]),
            _percent(student["accuracy"]),
            _percent(trivial),
        ]
        rows.append([task, "/".join(known_by[task]), results["branches"][stream], *numbers])
    return _markdown(
        [
            "task",
            "teacher",
            "branch",
            "AP teacher",
            "AP student",
            "AP before fine-tuning",
            "acc. teacher %",
            "acc. student %",
            "trivial acc. %",
        ],
        [*rows, _means(rows)],
    )


def _means(rows: list[list[str]]) -> list[str]:
    columns = [[float(r[i]) for r in rows if r[i] != "-"] for i in range(3, 9)]
    means = [f"{sum(c) / len(c):.3f}" if i < 3 and c else f"{sum(c) / len(c):.1f}" if c else "-" for i, c in enumerate(columns)]
    return ["**mean**", "", "", *means]


def _facts(results: dict[str, Any]) -> list[str]:
    test = results["test"]
    return [
        f"* command: `{results['command']}`",
        f"* seed {results['seed']}, commit {results['commit'] or 'unknown'}, {results['precision']}",
        f"* {results['hardware']}, {results['seconds']:.0f} s",
        f"* test data: {test['data']}, {test['images']} images (used for these numbers only)",
        "* AP: area under the interpolated precision-recall curve; trivial: always saying no (binary) or the commonest class",
    ]


def _branches(results: dict[str, Any]) -> list[str]:
    blocks = list(results["block_losses"])
    rows = [
        [
            stream,
            results["branches"].get(stream, "(other teacher kept)"),
            *(f"{results['block_losses'][b][stream]['divergence']:.4f}" for b in blocks),
        ]
        for stream in results["block_losses"][blocks[0]]
    ]
    part = results["branch_split"].replace("_", "-")
    return [
        f"Divergence on the {part} images from the teacher in nats (0 is perfect); the smallest loss is the branch point.",
        "",
        *_markdown(["stream", "branch", *blocks], rows),
    ]


def _sizes(results: dict[str, Any]) -> list[str]:
    rows = [[name, f"{s['parameters'] / 1e6:.3f}", f"{s['flops'] / 1e9:.3f}"] for name, s in results["sizes"].items()]
    teachers = [s for name, s in results["sizes"].items() if name != "student"]
    if len(teachers) > 1:
        rows.append(
            ["all teachers", f"{sum(s['parameters'] for s in teachers) / 1e6:.3f}", f"{sum(s['flops'] for s in teachers) / 1e9:.3f}"]
        )
    return _markdown(["network", "parameters (M)", "GFLOPs an image"], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns also line up as plain text."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * w for w in widths], *rows]
    return ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in lines]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _bars(results: dict[str, Any], path: Path) -> None:
    """AP of every task: its teacher, the student, and the prevalence (what a guess reaches)."""
    plt = _pyplot()
    tasks = [t for t in results["tasks"] if results["test"]["student"]["per_task"][t].get(_AP) is not None]
    if not tasks:
        return
    owner = {s.rpartition("@")[0]: s.rpartition("@")[2] for s in results["branches"]}
    groups = {
        "teacher": [results["test"][owner[t]]["per_task"][t][_AP] for t in tasks],
        "student": [results["test"]["student"]["per_task"][t][_AP] for t in tasks],
        "guess": [results["test"]["student"]["per_task"][t]["prevalence"] for t in tasks],
    }
    figure, axes = plt.subplots(figsize=(max(5, 0.9 * len(tasks)), 3.4), layout="constrained")
    for i, ((name, values), colour) in enumerate(zip(groups.items(), ("#4c78a8", "#f58518", "#bab0ac"), strict=True)):
        axes.bar([x + 0.27 * (i - 1) for x in range(len(tasks))], values, 0.27, label=name, color=colour)
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.set(ylabel="average precision (test)", ylim=(0, 1))
    axes.legend(ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.15))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _curves(results: dict[str, Any], path: Path) -> None:
    """Held-out divergence of every stream over the blocks, its branch point marked."""
    plt = _pyplot()
    blocks = list(results["block_losses"])
    figure, axes = plt.subplots(figsize=(max(5, 0.5 * len(blocks) + 3), 3.4), layout="constrained")
    for stream in results["block_losses"][blocks[0]]:
        values = [results["block_losses"][b][stream]["divergence"] for b in blocks]
        (line,) = axes.plot(blocks, values, marker=".", label=stream)
        if branch := results["branches"].get(stream):
            axes.plot([branch], [values[blocks.index(branch)]], marker="o", markersize=9, fillstyle="none", color=line.get_color())
    axes.set(xlabel="block", ylabel=f"{results['branch_split'].replace('_', '-')} divergence (nats)", ylim=(0, None))
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
