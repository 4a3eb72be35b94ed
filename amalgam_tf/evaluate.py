"""Evaluation: the same metrics for teachers and students, from logits by task; and the sizes of networks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import data, teachers
from amalgam_tf.data import pipeline
from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError
from amalgam_tf.metrics import categorical, multilabel
from amalgam_tf.models.blocks import multiply_adds, parameters
from amalgam_tf.tasks import Task

Outputs = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]


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
        `{"per_task": {task: {metric: value}}, "mean": {metric: value}}`. Binary tasks: ap_11pt, ap_all, ap_sklearn,
        accuracy at 0.5, all_negative_accuracy, prevalence, ...; category tasks: accuracy, balanced_accuracy, majority_rate.
        Undefined values are None; means are over the binary tasks.
    """
    binary = [t.name for t in tasks if t.kind == "binary"]
    result = {"per_task": {}, "mean": {}}
    if binary:
        report = multilabel.report(truth={n: truth.labels[n] for n in binary}, scores={n: scores[n] for n in binary})
        result["mean"] = report.pop("mean")
        result["per_task"] = report
    for task in tasks:
        if task.kind == "category":
            result["per_task"][task.name] = categorical.report(truth=truth.labels[task.name], scores=scores[task.name])
    return result


def size_of(model: keras.Model) -> dict[str, float]:
    """Parameters (all scalars, batch-norm statistics included) and FLOPs of one image (2 x multiply-adds of conv and dense)."""
    return {"parameters": parameters(model.variables), "flops": 2 * multiply_adds(model)}


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
    options = {**data.DEFAULTS, **model.card.get("recipe", {}).get("data", {}), **changes}
    truth = data.load(options, options["test"]).truth_for(model.tasks)
    images = pipeline.pixels(truth, model.preprocessing.size, data.cache_dir(options))
    return {"data": truth.name, "images": len(truth), **measure(predict(model.outputs, model.tasks, images), model.tasks, truth)}


def files(folder: str | Path, paths: Sequence[str]) -> dict[str, Any]:
    """Probabilities of image files: path -> task name -> probability, or list of them by class."""
    model = teachers.load_any(Path(folder))
    examples = data.Examples("files", tuple(map(str, paths)), [Path(p) for p in paths], (), {})
    scores = predict(model.outputs, model.tasks, pipeline.pixels(examples, model.preprocessing.size))
    return {path: {name: values[i].tolist() for name, values in scores.items()} for i, path in enumerate(paths)}
