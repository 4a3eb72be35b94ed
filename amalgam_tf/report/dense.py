"""The part of a run's report that is about maps: tables of dense metrics, panels of test images (SOKA fig. 4), curves (fig. 5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amalgam_tf.report import dense_figures, text

METHODS = ("dense_teacher", "soka")  # whose results this reads
HEADS = {  # metric -> (head of its column, digits): a task shows those that it has
    "rmse": ("rmse", 4),
    "absrel": ("absrel", 4),
    "l1": ("L1", 4),
    "d1.25": ("d<1.25", 4),
    "d1.25^2": ("d<1.25^2", 4),
    "d1.25^3": ("d<1.25^3", 4),
    "mean_deg": ("mean deg", 2),
    "median_deg": ("median deg", 2),
    "within_11.25": ("<11.25 deg", 4),
    "within_22.5": ("<22.5 deg", 4),
    "within_30": ("<30 deg", 4),
}
PAPER = {f"paper_{key}": (f"paper-style {key}", 3) for key in ("rmse", "rel", "d1.25", "d1.25^2", "d1.25^3")}
_DEAD = 1e3  # sigma over the student's features: of students that learn it is about 1, of dead ones 1e9 and more
SAID = (
    "Over all valid pixels of the test images. Depth in metres, angles in degrees, other maps as shares of their coded range. `constant` "
    "and `mean_map` do not look at the image. The paper-style columns are of unmasked metres or of maps on a scale of 0 to 255 or 256; the "
    "paper states no scale, and none that was tried gives its numbers: compare ratios between networks only."
)


def table(results: Mapping[str, Any]) -> list[str]:
    """A Markdown table a task: every network that was measured on it, metric by metric."""
    lines: list[str] = []
    for task in results["tasks"]:
        lines += [f"**{task}**", "", *_of_task(results["test"], task, HEADS), ""]
    return lines[:-1]


def _of_task(test: Mapping[str, Any], task: str, heads: Mapping[str, tuple[str, int]]) -> list[str]:
    measured = {who: of["per_task"][task] for who, of in test.items() if isinstance(of, Mapping) and task in of.get("per_task", {})}
    keys = [k for k in heads if any(k in row for row in measured.values())]
    rows = [[who, *(_shown(row.get(k), heads[k][1]) for k in keys)] for who, row in measured.items()]
    return text.table(["network", *(heads[k][0] for k in keys)], rows)


def _shown(value: float | None, digits: int) -> str:
    return text.NOTHING if value is None else f"{value:.{digits}f}"


def sections(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], workdir: Path) -> list[str]:
    """What stands behind the table: how the run went, panels, curves, paper-style columns. Draws the figures below `workdir/figures`.

    Args:
        results: of the run.
        rows: of its metrics.jsonl.
        workdir: the run's.
    """
    folder, lines = workdir / "figures", [SAID, ""]
    if results["method"] == "soka":
        lines += ["## Amalgamation", "", *_amalgamation(results, rows), ""]
    panels = workdir / "panels.npz"
    if panels.exists():
        with np.load(panels, allow_pickle=False) as arrays:
            dense_figures.panels(dict(arrays), results["tasks"], folder / "panels.png")
        lines += ["![query, truth, teachers, student](figures/panels.png)", ""]
    if dense_figures.curves(rows, folder / "curves.png"):
        lines += ["![soft losses and task weights](figures/curves.png)", ""]
    lines += ["## Paper-style columns", ""]
    for task in results["tasks"]:
        lines += [f"**{task}**", "", *_of_task(results["test"], task, PAPER), ""]
    return lines


def _amalgamation(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    variant, best = results["variant"], results["best"]
    weights = ", ".join(f"{t} {w:.3f}" for t, w in results["task_weights"].items())
    lines = [
        f"* variant: {', '.join(f'{k} {v}' for k, v in variant.items() if v)}",
        f"* auxiliary teacher: {results['auxiliary'] or 'none'}; MIA has {results['mia_parameters']} weights",
        f"* task weights at the end: {weights}",
        f"* held-out soft losses: {', '.join(f'{t} {v:.5f}' for t, v in results['held_out'].items())}",
        f"* kept: step {best['step']:.0f} of {best['steps']} (smallest held-out sum of the soft losses)",
        *_features(rows),
    ]
    similar = results["similarities"]
    if similar:
        each = [[a, *(f"{similar[a][b]:.3f}" for b in similar)] for a in similar]
        lines += ["", "Similarity of the teachers (rank correlation of their dissimilarities):", "", *text.table(["", *similar], each)]
    return lines


def _features(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How large sigma is beside the student's features, as logged last: both may shrink to nothing together (spec S2)."""
    last = {key.rpartition("/")[2]: value for row in rows for key, value in row.items() if "amalgamated/" in key}
    if not last:
        return []
    said = [f"* amalgamated features / the student's, in size: {', '.join(f'{tap} {value:.3g}' for tap, value in last.items())}"]
    if dead := [tap for tap, value in last.items() if not value < _DEAD]:
        said.append(f"* **the student died at {', '.join(dead)}**: it writes zeros there, so that every image gets the same maps (S2)")
    return said
