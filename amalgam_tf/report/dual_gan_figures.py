"""Figures of Dual-GAN's runs over seeds: fig. 4, images side by side, and fig. 5, how often generated images show each label."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import statistics
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from amalgam_tf import data, generation
from amalgam_tf.data import noise, pipeline
from amalgam_tf.errors import UserError
from amalgam_tf.report import generated
from amalgam_tf.report.dual_gan import DAFL, LITERAL, OURS, SAID
from amalgam_tf.report.figures import COLOURS, DPI, OTHER_COLOUR, new_figure, styled
from amalgam_tf.report.runs import STUDENT, FinishedRun, Group

_COUNT = generation.ROW**2  # images of a panel


class Labels(NamedTuple):
    """One kind of images in fig. 5.

    Attributes:
        name: for the legend.
        colour: of the bars.
        shares: label -> share of the images that show it, a value a seed.
    """

    name: str
    colour: str
    shares: Mapping[str, Sequence[float]]


# -- figure 4 ---------------------------------------------------------------------------------------------------------
def panels(found: Mapping[str, Group]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Title -> uint8 sheet of images [height, width, 3]: test images, noise, DAFL, Dual-GAN; sentences about what is missing.

    Nothing unless a run kept its generated images (`figures/generated.png` in its workdir); of each row the first seed counts.

    Raises:
        UserError: a damaged file of them.
    """
    made, first = {}, None
    for row in (DAFL, LITERAL, OURS):
        for run in found[row].runs if row in found else ():
            sheet = _kept(run)
            if sheet is not None and row not in made:
                made[row], first = sheet, run
    if first is None:
        return {}, []
    size = made[next(iter(made))].shape[1] // generation.ROW
    beside, notes = {}, []
    try:
        beside["test images"] = _test_images(first, size)
    except UserError as error:
        notes.append(f"figure 4 shows no test images: {error}")
    beside["noise"] = generation.grid(noise.load(split="train", count=_COUNT, size=size, seed=0).images)
    return beside | {SAID[row]: sheet for row, sheet in made.items()}, notes


def _kept(run: FinishedRun) -> np.ndarray | None:
    file = run.workdir / generated.GRID if run.workdir else None
    if not file or not file.is_file():
        return None
    try:
        return tf.io.decode_png(file.read_bytes(), channels=3).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"{file} is no PNG image: delete it, figure 4 then leaves it out") from error


def _test_images(run: FinishedRun, size: int) -> np.ndarray:
    """Some from all over the test part, which may be in order of classes.

    Raises:
        UserError: no config.json, or images that cannot be read from here.
    """
    if not run.config:
        raise UserError(f"{run.name} has no config.json that says where they are")
    options = {**data.DEFAULTS, **run.config["data"], "cache_dir": "", "download": False}
    options["test_count"] = min(options["test_count"], _COUNT)  # scenes are drawn one by one: the first ones are the same
    test = data.load(options, options["test"])
    some = test.take(np.linspace(0, len(test) - 1, min(_COUNT, len(test))).round())
    return generation.grid(pipeline.pixels(some, size))


@styled
def side_by_side(sheets: Mapping[str, np.ndarray], path: Path) -> bool:
    """DGAN's fig. 4: a panel each, pixels as they are. False if there is nothing to draw."""
    if not sheets:
        return False
    figure, (row,) = new_figure(1, len(sheets), (3.2 * len(sheets), 3.5))
    for axes, (title, sheet) in zip(row, sheets.items(), strict=True):
        axes.imshow(sheet, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.savefig(path, dpi=DPI)
    return True


# -- figure 5 ---------------------------------------------------------------------------------------------------------
def frequencies(group: Group) -> dict[str, list[float]]:
    """Label -> share of the generated images that show it, by its teacher, a value a seed; of binary labels."""
    found: dict[str, list[float]] = {}
    for run in group.runs:
        for stream, share in run.results.get("labels", {}).items():
            if not isinstance(share, list):
                found.setdefault(stream.rpartition("@")[0], []).append(share)
    return found


def prevalences(group: Group) -> dict[str, list[float]]:
    """Label -> share of the test images that show it."""
    per_task = group.first.results["test"][STUDENT]["per_task"]
    return {task: [row["prevalence"]] for task, row in per_task.items() if row.get("prevalence") is not None}


def bars(found: Mapping[str, Group], rows: Sequence[str]) -> list[Labels]:
    """The test part, and the rows that generated images.

    Args:
        found: as `dual_gan.rows` returns them.
        rows: with the discrete loss, and without it; "" for a row there is not.
    """
    names = ("with the discrete loss", "without it")
    kinds = [
        Labels(f"{name} ({row})", hue, frequencies(found[row]))
        for row, name, hue in zip(rows, names, (COLOURS["student"], OTHER_COLOUR), strict=True)
        if row and frequencies(found[row])
    ]
    return [Labels("test images", COLOURS["guess"], prevalences(next(iter(found.values())))), *kinds] if kinds else []


@styled
def label_frequencies(kinds: Sequence[Labels], path: Path) -> bool:
    """DGAN's fig. 5: a group of bars a label, medians over seeds, whiskers from min to max. False if there is nothing to draw."""
    if not kinds:
        return False
    labels = list(dict.fromkeys(label for kind in kinds for label in kind.shares))
    figure, ((axes,),) = new_figure(1, 1, (max(5.5, 0.8 * len(labels) + 1), 3.4))
    width = 0.8 / len(kinds)
    for i, kind in enumerate(kinds):
        for place, label in enumerate(labels):
            if not (values := [100 * v for v in kind.shares.get(label, ())]):
                continue
            low, middle, high = min(values), statistics.median(values), max(values)
            spread = {"yerr": [[middle - low], [high - middle]], "ecolor": "#333333"} if len(values) > 1 else {}
            axes.bar([place + width * (i - (len(kinds) - 1) / 2)], [middle], 0.9 * width, color=kind.colour, **spread)
    handles = [axes.bar([0], [0], color=kind.colour) for kind in kinds]
    axes.legend(handles, [kind.name for kind in kinds], ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.18), fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_ylabel("images that show it %")
    figure.savefig(path, dpi=DPI)
    return True
