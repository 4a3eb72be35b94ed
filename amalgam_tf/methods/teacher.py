"""Supervised training of one teacher: a backbone with one row of logits a task.

Serves every paper's first step (AFK section "Teachers", spec A5); also the "trained from labels" row of the tables.

Choices the papers leave open
    A5  optimizer: from ImageNet Adam 1e-4 measured best; the paper's SGD, poly 0.01 / 0.9, weight decay 5e-3 is the preset
        `paper` of the teacher configs. Switch `optimizer.*`.
    A14 batch norm: batch statistics, or the stored ones (`batchnorm=frozen`, better from ImageNet on few images).
    A2  labels that are ignored (VOC "difficult") are masked out of the loss. Switch `data.difficult`.
    A4  random resized crops and flips for supervised teachers only. Switch `crop` (smallest area share; 0: none).
    Early stopping: the weights of the epoch with the smallest held-out loss are kept; the test part chooses nothing.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import data, evaluate, losses, models, planning
from amalgam_tf import tasks as task_lists
from amalgam_tf.branching import mean_over
from amalgam_tf.data import pipeline
from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models import check_start
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.planning import Line, Plan
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Teacher, split_rows
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import BATCH_NORMS, Phase, Update


def train(config: Any, run: Run) -> dict[str, Any]:
    """Trains, measures and saves the teacher of a config to `workdir/teacher`; returns the results."""
    check_choices(config)
    wanted = [w.task for w in task_lists.parse(config.tasks)]
    parts = data.parts(config.data, None if wanted == [task_lists.EVERYTHING] else wanted)
    tasks, size = parts.train.tasks, config.model.input_size
    if not tasks:
        raise UserError(f"{parts.train.name} has no labels, and a teacher cannot be trained without: point data.train at labelled images")
    parts = parts._replace(test=parts.test.truth_for(tasks))
    for note in data.notes(*parts):
        run.say(note)
    preprocessing = Preprocessing.named(config.model.normalise, size)
    net = build(config, run, sum(t.outputs for t in tasks))
    run.track(net.named_variables("teacher"))

    run.phase(training_phase(config, run, net, preprocessing, parts))

    card = {
        "backbone": {k: config.model[k] for k in ("backbone", "input_size", "width", "granularity")},
        "recipe": config.to_dict(),
        "data": {"name": parts.train.name, "images": len(parts.train), "fingerprint": parts.train.fingerprint},
        "licence": config.licence,
    }
    teacher = Teacher(config.name, net, tasks, preprocessing, card)
    results = {"method": "teacher", "tasks": [t.name for t in tasks], "train": parts.train.account()}
    for part in (parts.held_out, parts.test):
        scores = evaluate.predict(teacher.outputs, tasks, pipeline.pixels(part, size, data.cache_dir(config.data)))
        results["held_out" if part is parts.held_out else "test"] = {
            **part.account(),
            "teacher": evaluate.measure(scores, tasks, part),
        }
    card["measured"] = results["test"]
    run.write(lambda: teacher.save(run.workdir / "teacher"))
    return {**results, "sizes": {"teacher": evaluate.size_of(net.as_model("teacher"))}}


def check_choices(config: Any) -> None:
    """Every choice that is a word.

    Raises:
        UserError: an unknown word, or a start that cannot train well.
    """
    one_of("batchnorm", config.batchnorm, BATCH_NORMS)
    check_start("model.weights", config.model.weights, "batchnorm", config.batchnorm, config.model.normalise, config.model.backbone)
    optimizers.check(config.optimizer, "optimizer")


def plan(config: Any, pool: Mapping[str, Teacher]) -> Plan:
    """What `train` is going to do."""
    images, net, batch = planning.counts(config), untrained(config, pool).net, config.batch_size
    cost, size, weights = sum(planning.work(net)), config.model.input_size, planning.weights(net)
    steps = planning.steps(config.epochs, images.train, batch)
    return Plan(
        [
            Line("train", steps, (3 * steps * batch + config.epochs * images.held_out) * cost),
            Line("test", 0, (images.held_out + images.test) * cost),
        ],
        net,
        disk=2 * 4 * weights + weights,  # two checkpoints with slots and the best weights, the teacher
        caches=planning.pixels(images, size) + (images.train * stored_size(config) ** 2 * 3 if config.crop else 0),
        memory=planning.training(weights, 0.0, batch * sum(planning.activations(net))),
    )


def build(config: Any, run: Run, outputs: int) -> BlockNet:
    """The backbone of a config, initialised as a function of the run's seed."""
    keras.utils.set_random_seed(run.seed_of("init"))
    return _classifier(config, outputs, weights=config.model.weights, synchronized=run.strategy.num_replicas_in_sync > 1)


def untrained(config: Any, pool: Mapping[str, Teacher]) -> Teacher:
    """The teacher that a config is going to train, with the weights of any start: for plans."""
    wanted = [w.task for w in task_lists.parse(config.tasks)]
    tasks = data.parts(config.data, None if wanted == [task_lists.EVERYTHING] else wanted).train.tasks
    net = _classifier(config, sum(t.outputs for t in tasks), weights="none", synchronized=False)
    return Teacher(config.name, net, tasks, Preprocessing.named(config.model.normalise, config.model.input_size))


def _classifier(config: Any, outputs: int, **options) -> BlockNet:
    m = config.model
    return models.classifier(m.backbone, input_size=m.input_size, outputs=outputs, granularity=m.granularity, width=m.width, **options)


def stored_size(config: Any) -> int:
    """Crops are cut from a slightly larger image, as 224 from 256."""
    return round(config.model.input_size * 8 / 7) if config.crop else config.model.input_size


def training_phase(config: Any, run: Run, net: BlockNet, preprocessing: Preprocessing, parts: data.Parts) -> Phase:
    """All epochs of supervised training; validated after each, ends with the best."""
    tasks, size, cache = parts.train.tasks, preprocessing.size, data.cache_dir(config.data)
    batches = pipeline.Batches(
        images=pipeline.pixels(parts.train, stored_size(config), cache),
        batch_size=config.batch_size,
        seed=run.seed_of("data/train"),
        views=2 if config.flip else 1,
        crop=config.crop or None,
        size=size,
        columns={"labels": truth(parts.train, tasks)},
    )

    batch_norm = config.batchnorm == "batch"

    def loss(batch):
        logits = net.run(preprocessing(batch["images"]), training=batch_norm)
        return tf.reduce_mean(teacher_loss(tasks, logits, batch["labels"])), {}

    held_out, labels = pipeline.pixels(parts.held_out, size, cache), truth(parts.held_out, tasks)

    @tf.function(autograph=False)
    def held_out_loss(images, rows):
        return {"loss": teacher_loss(tasks, net.run(preprocessing(images), training=False), rows)}

    update = Update(
        "teacher",
        trains=net.weights(),
        statistics=net.statistics() if batch_norm else [],
        heads=net.weights("head"),
        loss=loss,
        optimizer=config.optimizer.to_dict(),
    )
    return Phase(
        "train",
        steps=batches.steps(config.epochs),
        data=batches,
        updates=[update],
        validate=lambda: mean_over(held_out_loss, held_out, labels),
        validate_every_steps=batches.steps(1),
        keep_best="loss",
    )


def teacher_loss(tasks: tuple[Task, ...], logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy over the tasks whose truth is known (AFK eq. 2): [batch, rows], int [batch, tasks] -> [batch]."""
    split = split_rows(logits, tasks)
    mask = tf.cast(labels != IGNORE, tf.float32)
    each = [losses.supervised(head=t.head, logits=split[t.name], labels=labels[:, i], mask=mask[:, i]) for i, t in enumerate(tasks)]
    return tf.math.divide_no_nan(tf.add_n(each), tf.reduce_sum(mask, -1))


def truth(examples: Examples, tasks: tuple[Task, ...]) -> np.ndarray:
    """int32 [n, tasks], `IGNORE` where nothing is known."""
    return np.stack([examples.labels[t.name] for t in tasks], 1)
