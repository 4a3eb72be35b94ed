"""Figures of runs whose answers are maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amalgam_tf.report.figures import DPI, new_figure, styled

_NOT_SHOWN = ("constant", "mean_map")
_MAPS = "viridis"


@styled
def panels(arrays: Mapping[str, np.ndarray], tasks: Sequence[str], path: Path) -> None:
    """A row an image: the query, then for every task its truth and what each network says, all of a task on one scale (SOKA fig. 4).

    Above a column stand its task and its network; a teacher that is called as its task is `teacher` there.

    Args:
        arrays: `images` uint8 [n, size, size, 3]; `{network}/{task}` and `truth/{task}` [n, size, size, channels] in physical units;
            `valid/{task}` [n, size, size].
        tasks: in order.
        path: the PNG.
    """
    networks = dict.fromkeys(k.partition("/")[0] for k in arrays if "/" in k and not k.startswith(("truth/", "valid/")))
    columns = [(who, task) for task in tasks for who in ("truth", *networks) if f"{who}/{task}" in arrays and who not in _NOT_SHOWN]
    images = arrays["images"]
    figure, grid = new_figure(len(images), 1 + len(columns), (1.25 * (1 + len(columns)), 1.3 * len(images)))
    for row, axes in enumerate(grid):
        axes[0].imshow(images[row])
        for place, (who, task) in zip(axes[1:], columns, strict=True):
            shown, scale = _shown(arrays, who, task, row)
            place.imshow(shown, **scale)
    for place, title in zip(grid[0], ["query", *(f"{task}\n{'teacher' if who == task else who}" for who, task in columns)], strict=True):
        place.set_title(title, fontsize=6)
    for place in grid.flat:
        place.set_axis_off()
    figure.savefig(path, dpi=DPI)


def _shown(arrays: Mapping[str, np.ndarray], who: str, task: str, row: int) -> tuple[np.ndarray, dict[str, Any]]:
    """What `imshow` takes: unit vectors as colours, other maps on the scale of the truth's valid pixels."""
    values = arrays[f"{who}/{task}"][row]
    known = arrays[f"valid/{task}"][row].astype(bool)
    if values.shape[-1] == 3:
        return np.where(known[..., None] | (who != "truth"), np.clip(values / 2 + 0.5, 0, 1), 0.0), {}
    truth = arrays[f"truth/{task}"][row][..., 0]
    low, high = np.percentile(truth[known], (1, 99)) if known.any() else (0.0, 1.0)
    scalar = values[..., 0]
    shown = np.where(known, scalar, np.nan) if who == "truth" else scalar
    return shown, {"vmin": low, "vmax": max(high, low + 1e-6), "cmap": _MAPS}


@styled
def curves(rows: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Soft losses and task weights over the steps of the cycle (SOKA fig. 5). False if there are none.

    Args:
        rows: of a run's metrics.jsonl.
        path: the PNG.
    """
    found = [("soft/", "soft loss", "log"), ("weight/", "task weight", "linear")]
    series = [(title, scale, over_steps(rows, part)) for part, title, scale in found]
    series = [s for s in series if s[2]]
    if not series:
        return False
    figure, (grid,) = new_figure(1, len(series), (4.2 * len(series), 3.0))
    for axes, (title, scale, lines) in zip(grid, series, strict=True):
        for name, (steps, values) in lines.items():
            axes.plot(steps, values, label=name)
        axes.set(xlabel="step", ylabel=title, yscale=scale)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=DPI)
    return True


def over_steps(rows: Sequence[Mapping[str, Any]], part: str) -> dict[str, tuple[list[int], list[float]]]:
    """Name -> steps and values of what was logged as `...{part}{name}` in training; of several updates the last one's."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        now = {}
        for key, value in row.items():
            before, at, name = key.partition(part)
            if at and not before.startswith("held_out"):
                now[name] = value
        for name, value in now.items():
            steps, values = found.setdefault(name, ([], []))
            steps.append(row["total"])
            values.append(value)
    return found
