"""Evaluation: the same metrics for teachers and students, from logits by task; and the sizes of networks."""

from collections.abc import Mapping, Sequence
import os
from pathlib import Path
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import data, dense, teachers
from amalgam_tf.data import codecs, pipeline
from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError
from amalgam_tf.metrics import categorical, multilabel, topk
from amalgam_tf.models.blocks import multiply_adds, parameters
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Outputs
from amalgam_tf.training import state


def answers(task: Task, logits):
    """What a network says of one task in the task's own terms: probabilities (`to_probabilities`), or maps in physical units."""
    return codecs.get(task.codec).decode(logits) if task.kind == "dense" else to_probabilities(task.head, logits)


def to_probabilities(head: str, logits):
    """Logits [batch, outputs] of one task -> float32 probabilities: [batch] of "present" (binary) or [batch, classes]."""
    logits = tf.cast(logits, tf.float32)
    if head == "sigmoid":
        return tf.sigmoid(logits)[..., 0]
    return tf.nn.softmax(logits)[..., 1] if head == "softmax2" else tf.nn.softmax(logits)


def predict(outputs: Outputs, tasks: Sequence[Task], images: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities of every image by task.

    Args:
        outputs: float32 images [batch, size, size, 3] in 0..255 -> task name -> logits (`Teacher.outputs`, `Student.outputs`).
        tasks: which of them.
        images: uint8 [n, size, size, 3].
    """

    @tf.function(autograph=False)
    def probabilities(batch):
        logits = outputs(batch)
        return {t.name: to_probabilities(t.head, logits[t.name]) for t in tasks}

    return pipeline.in_order(probabilities, images)


def measure(scores: Mapping[str, np.ndarray], tasks: Sequence[Task], truth: Examples) -> dict[str, Any]:
    """Metrics of predicted probabilities.

    Returns:
        `{"per_task": {task: {metric: value}}, "mean": {metric: value}, "top_k": {mode: {metric: value}}}`. Binary tasks: ap_11pt,
        ap_all, ap_sklearn, accuracy and balanced_accuracy at 0.5, all_negative_accuracy, majority_rate, prevalence, ...; category tasks:
        accuracy, balanced_accuracy, majority_rate. Undefined values are None; means are over the binary tasks. `top_k`, only with binary
        tasks: C-P ... O-F1 of the at most three labels an image is given (`metrics.topk`, spec A18).
    """
    binary = [t.name for t in tasks if t.kind == "binary"]
    result = {"per_task": {}, "mean": {}}
    if binary:
        arrays = {"truth": {n: truth.labels[n] for n in binary}, "scores": {n: scores[n] for n in binary}}
        report = multilabel.report(**arrays)
        result["mean"] = report.pop("mean")
        result["per_task"] = report
        result["top_k"] = topk.report(**arrays)
    for task in tasks:
        if task.kind == "category":
            result["per_task"][task.name] = categorical.report(truth=truth.labels[task.name], scores=scores[task.name])
    return result


def size_of(model: keras.Model) -> dict[str, float]:
    """Parameters (all scalars, batch-norm statistics included) and FLOPs of one image (2 x multiply-adds of conv and dense)."""
    return {"parameters": parameters(model.variables), "flops": 2 * multiply_adds(model)}


def latency(models: Mapping[str, keras.Model], batch: int = 1, repeats: int = 15) -> dict[str, float]:
    """Milliseconds of one inference call of each model; the models take turns, so that a busy machine slows all alike.

    Args:
        models: name -> model with a fixed input size.
        batch: images a call.
        repeats: rounds; the median counts. Tracing and a warm-up round are left out.
    """
    calls = {}
    for name, model in models.items():
        x = tf.zeros((batch, *model.inputs[0].shape[1:]), model.inputs[0].dtype)
        call = tf.function(lambda x, model=model: model(x, training=False), autograph=False)
        calls[name] = (call, x)
        call(x)
    taken = {name: [] for name in models}
    for _ in range(repeats + 1):
        for name, (call, x) in calls.items():
            start = time.perf_counter()
            tf.nest.map_structure(np.asarray, call(x))
            taken[name].append(1000 * (time.perf_counter() - start))
    return {name: round(float(np.median(values[1:])), 3) for name, values in taken.items()}


def write_scores(path: Path, scores: Mapping[str, Mapping[str, np.ndarray]], truth: Examples) -> None:
    """Keeps every probability behind the metrics, for paired comparisons between runs over the same images.

    The .npz holds `ids` [n], `truth/{task}` int8 [n] (1, 0, -1 unknown) and `{network}/{task}` float32 [n] ([n, classes] for categories).
    """
    arrays = {"ids": np.array(truth.ids)}
    arrays |= {f"truth/{t.name}": truth.labels[t.name].astype(np.int8 if t.kind == "binary" else np.int32) for t in truth.tasks}
    arrays |= {f"{who}/{task}": np.asarray(v, np.float32) for who, of in scores.items() for task, v in of.items()}
    state.write_npz(path, arrays)


def saved(folder: str | Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a saved teacher or student on the test part of its own recipe.

    Args:
        folder: a run's workdir or a folder with a card.
        changes: entries of the recipe's `data` section to replace.

    Raises:
        UserError: no card, data that cannot be read, a task without truth.
    """
    model = teachers.load_any(Path(folder))
    if "recipe" not in model.card and not {"reader", "test"} <= set(changes):
        raise UserError(f"the card in {folder} has no recipe that says which data to use: give --reader, --root and --split")
    options = {**_recipe_data(Path(folder), model.card), **changes}
    if any(t.kind == "dense" for t in model.tasks):
        return dense.saved(model, options)
    if options["test"] == data.NO_TEST:
        raise UserError(
            f"the recipe of {folder} has no test part (data.test={data.NO_TEST}): give --split, the labelled images to measure it on"
        )
    truth = data.load(options, options["test"]).truth_for(model.tasks)
    images = pipeline.pixels(truth, model.preprocessing.size, data.cache_dir(options))
    return {**truth.account(), **measure(predict(model.outputs, model.tasks, images), model.tasks, truth)}


def _recipe_data(folder: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """The `data` section of a card's recipe over today's defaults.

    Raises:
        UserError: a value of another kind than the default.
    """
    options = {**data.DEFAULTS, **card.get("recipe", {}).get("data", {})}
    for key, default in data.DEFAULTS.items():
        if not (type(options[key]) is type(default) or (type(default) is float and type(options[key]) is int)):
            raise UserError(f"the card in {folder}: recipe.data.{key} is {str(options[key])[:60]!r}, which is no {type(default).__name__}")
    # A card may come from elsewhere: it starts no download, and makes no folder but the usual one.
    cache = options["cache_dir"] if os.path.isdir(options["cache_dir"]) else data.DEFAULTS["cache_dir"]
    return {**options, "download": False, "cache_dir": cache if options["cache_dir"] else ""}


def files(folder: str | Path, paths: Sequence[str]) -> dict[str, Any]:
    """Probabilities of image files: path -> task name -> probability, or list of them by class."""
    model = teachers.load_any(Path(folder))
    if maps := [t.name for t in model.tasks if t.kind == "dense"]:
        raise UserError(
            f"{folder} predicts maps ({', '.join(maps)}), which are no lines of text: export it (amalgam_tf.bin.export) and call it"
        )
    fit = _recipe_data(Path(folder), model.card)["fit"]
    examples = data.Examples("files", tuple(map(str, paths)), [Path(p) for p in paths], (), {}, fit)
    scores = predict(model.outputs, model.tasks, pipeline.pixels(examples, model.preprocessing.size))
    return {path: {name: values[i].tolist() for name, values in scores.items()} for i, path in enumerate(paths)}
