"""Pixel-to-pixel runs: the true maps beside the images, metrics of networks that write maps, the trivial predictors. Knows no paper.

A map in a network's range is a code (`data.codecs`); metrics are of physical units, from sums over the pixels of each image, so that
comparisons between runs can resample images and still have pooled metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from amalgam_tf import data
from amalgam_tf.data import codecs, maps, pipeline
from amalgam_tf.data.examples import Examples
from amalgam_tf.data.transforms import flip
from amalgam_tf.errors import UserError
from amalgam_tf.metrics import dense as metrics
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Outputs
from amalgam_tf.training import state
from amalgam_tf.training.loop import Run

Sums = Mapping[str, Mapping[str, np.ndarray]]  # task -> sum -> [images, ...]
TRIVIAL = ("constant", "mean_map")
PANELS = 6  # test images that the report shows


@dataclass(frozen=True)
class Truth:
    """The true maps of a part.

    Attributes:
        codes: task -> float32 [n, size, size, channels] in the network's range.
        valid: task -> uint8 [n, size, size], 1 where the truth is known.
    """

    codes: Mapping[str, np.ndarray]
    valid: Mapping[str, np.ndarray]

    def columns(self) -> dict[str, np.ndarray]:
        """What `Batches.columns` wants: `true/{task}` and `valid/{task}`."""
        return {f"true/{t}": v for t, v in self.codes.items()} | {f"valid/{t}": v for t, v in self.valid.items()}


def truth(examples: Examples, tasks: Sequence[Task], size: int, cache: Path | None) -> Truth:
    """The true maps of all examples at a network's size.

    Raises:
        UserError: a task without truth, or a file that cannot be read.
    """
    known = examples.only([t.name for t in tasks])
    valid = maps.valid(known, size, cache)
    whole = np.broadcast_to(np.uint8(1), valid.shape)
    codes = {t.name: maps.maps(known, t.name, size, cache) for t in tasks}
    return Truth(codes, {t.name: valid if codecs.get(t.codec).masked else whole for t in tasks})


def check_dense(who: str, tasks: Sequence[Task]) -> None:
    """Refuses tasks whose answer is no map.

    Raises:
        UserError: as said.
    """
    if other := [t.name for t in tasks if t.kind != "dense"]:
        raise UserError(f"{who} predicts maps, and {other[0]} is none: ask for dense tasks (data.reader=taskonomy or scenes_dense)")


def check_reached(who: str, tasks: Sequence[Task], mend: str) -> None:
    """Refuses to learn true maps whose codes go beyond the tanh that pixel-to-pixel networks end with.

    Args:
        who: learns them, for the sentence.
        tasks: of which codecs.
        mend: what else to do, for the sentence.

    Raises:
        UserError: as said.
    """
    if beyond := [t.name for t in tasks if codecs.get(t.codec).activation != "tanh"]:
        raise UserError(f"{who} ends in tanh and cannot learn true maps of {beyond[0]}, whose codes go beyond -1 and 1: {mend}")


def seen(batch: Mapping[str, tf.Tensor], task: Task) -> tuple[tf.Tensor, tf.Tensor]:
    """(code [batch, size, size, channels], valid [batch, size, size]) of a task, mirrored where the batch's images are."""
    valid = flip(batch[f"valid/{task.name}"][..., None], batch["view"])[..., 0]
    return codecs.mirrored(task.codec, batch[f"true/{task.name}"], batch["view"]), valid


# -- measuring --------------------------------------------------------------------------------------------------------
def sums(outputs: Outputs, tasks: Sequence[Task], images: np.ndarray, true: Truth) -> dict[str, dict[str, np.ndarray]]:
    """What the metrics are made of: task -> sum -> [n, ...] over the pixels of each image.

    Args:
        outputs: float32 images [batch, size, size, 3] in 0..255 -> task name -> code (`Teacher.outputs`, `Student.outputs`).
        tasks: which of them.
        images: uint8 [n, size, size, 3].
        true: their maps.
    """

    @tf.function(autograph=False)
    def physical(batch):
        codes = outputs(batch)
        return {t.name: codecs.get(t.codec).decode(codes[t.name]) for t in tasks}

    found: dict[str, list[dict[str, np.ndarray]]] = {t.name: [] for t in tasks}
    for start, n, batch in pipeline.padded(images):
        written, rows = physical(tf.constant(batch, tf.float32)), slice(start, start + n)
        for t in tasks:
            codec = codecs.get(t.codec)
            found[t.name].append(
                metrics.sums(
                    kind=codec.kind,
                    prediction=written[t.name].numpy()[:n],
                    truth=np.asarray(codec.decode(np.asarray(true.codes[t.name][rows]))),
                    mask=np.asarray(true.valid[t.name][rows]),
                    bits=codec.bits,
                )
            )
    return {task: {k: np.concatenate([p[k] for p in parts]) for k in parts[0]} for task, parts in found.items()}


def report(tasks: Sequence[Task], found: Sums) -> dict[str, Any]:
    """`{"per_task": {task: {metric: value}}}` from sums, as `evaluate.measure` gives for other tasks."""
    return {"per_task": {t.name: metrics.report(codecs.get(t.codec).kind, found[t.name]) for t in tasks}}


def trivial(tasks: Sequence[Task], true: Truth, name: str) -> Outputs:
    """A predictor that does not look: the mean of the valid training pixels' codes (`constant`), or that of each pixel (`mean_map`)."""
    answers = {}
    for t in tasks:
        total, count = 0.0, 0.0
        for start in range(0, len(true.codes[t.name]), 256):  # a big set is never in memory as a whole
            weight = np.asarray(true.valid[t.name][start : start + 256], np.float64)[..., None]
            total, count = total + (true.codes[t.name][start : start + 256] * weight).sum(0), count + weight.sum(0)
        mean = total.sum((0, 1)) / max(count.sum(), 1.0)
        answers[t.name] = (
            np.where(count > 0, total / np.maximum(count, 1), mean) if name == "mean_map" else np.broadcast_to(mean, total.shape)
        )
    fixed = {k: tf.constant(v[None], tf.float32) for k, v in answers.items()}
    return lambda images: {k: tf.repeat(v, tf.shape(images)[0], 0) for k, v in fixed.items()}


@dataclass(frozen=True)
class Network:
    """Something to be measured: what it writes, and for which tasks."""

    outputs: Outputs
    tasks: Sequence[Task]


def on_test(run: Run, networks: Mapping[str, Network], test: Examples, images: np.ndarray, true: Truth) -> dict[str, Any]:
    """Measures networks on the test part; keeps every image's sums in `scores.npz` and some images with all maps in `panels.npz`.

    Returns:
        the `test` section of the results: whose images, and network -> `report`.
    """
    found = {who: sums(n.outputs, n.tasks, images, true) for who, n in networks.items()}
    arrays = {f"{who}/{task}/{k}": v for who, of in found.items() for task, sums_ in of.items() for k, v in sums_.items()}
    run.write(lambda: state.write_npz(run.workdir / "scores.npz", {"ids": np.array(test.ids), **arrays}))
    shown = panels(networks, images, true)
    run.write(lambda: state.write_npz(run.workdir / "panels.npz", shown))
    return {**test.account(), **{who: report(networks[who].tasks, of) for who, of in found.items()}}


def panels(networks: Mapping[str, Network], images: np.ndarray, true: Truth, count: int = PANELS) -> dict[str, np.ndarray]:
    """Some test images, evenly spread, with their maps in physical units: `images`, `{network}/{task}`, `truth/{task}`, `valid/{task}`."""
    places = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))
    some, shown = images[places], {"images": np.asarray(images[places])}
    tasks = {t.name: t for n in networks.values() for t in n.tasks}
    for name, task in tasks.items():
        decode = codecs.get(task.codec).decode
        shown[f"truth/{name}"] = np.asarray(decode(np.asarray(true.codes[name][places])), np.float32)
        shown[f"valid/{name}"] = np.asarray(true.valid[name][places])
        for who, network in networks.items():
            if task in network.tasks:
                shown[f"{who}/{name}"] = np.asarray(decode(network.outputs(tf.constant(some, tf.float32))[name]), np.float32)
    return shown


def saved(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a saved teacher or student that writes maps, on the test part of the given data section."""
    test = data.load(options, options["test"]).truth_for(model.tasks)
    size, cache = model.preprocessing.size, data.cache_dir(options)
    true = truth(test, model.tasks, size, cache)
    return {**test.account(), **report(model.tasks, sums(model.outputs, model.tasks, pipeline.pixels(test, size, cache), true))}


def mean_over(fn: Callable[..., Mapping[str, tf.Tensor]], images: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means of per-image values over a whole set in index order: `fn({"images": ..., "view": zeros, **rows}) -> {name: [batch]}`."""
    names = list(columns)

    def values(batch, *rows):
        return fn({"images": batch, "view": tf.zeros(tf.shape(batch)[:1], tf.int32), **dict(zip(names, rows, strict=True))})

    found = pipeline.in_order(values, images, *columns.values())
    return {name: float(np.mean(v, dtype=np.float64)) for name, v in found.items()}
