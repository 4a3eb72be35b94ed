"""Supervised training of one pixel-to-pixel teacher: an encoder and a decoder for one dense task.

Serves SOKA's first step with nets of one's own where Taskonomy's checkpoints (`tools/convert_taskonomy.py`) are not at hand.

Choices (ids of the project's spec)
    Loss: mean absolute difference of the codes over valid pixels, as the task bank's, without its adversarial 0.4 %. Where maps are nearly
        empty nothing is then the best answer: switch `power=2`, for squares.
    S12  valid pixels by the z-buffer, per task (`data.codecs`).
    Views: plain and mirrored, the maps with them (normals change their x).
    Last epochs with stored statistics (`settle_epochs`): behind 30 layers of batch norm a small net trained on batch statistics alone is
        far off on images that stand out, and a depth code of 1 in the place of 0.75 is 128 m. Not in the task bank's recipe.
    Early stopping: the weights of the epoch with the smallest held-out loss are kept; the test part chooses nothing.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from amalgam_tf import data, dense, evaluate, losses, planning
from amalgam_tf import tasks as task_lists
from amalgam_tf.data import codecs, pipeline
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models import encoder_decoder
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.planning import Line, Plan
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Teacher
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import Phase, Update

BACKBONES = ("task_bank",)


def train(config: Any, run: Run) -> dict[str, Any]:
    """Trains, measures and saves the teacher of a config to `workdir/teacher`; returns the results."""
    check_choices(config)
    task = task_of(config)
    parts = data.parts(config.data, [task.name])
    for note in data.notes(*parts):
        run.say(note)
    size, cache = config.model.input_size, data.cache_dir(config.data)
    true = {name: dense.truth(part, [task], size, cache) for name, part in parts._asdict().items()}
    net = build(config, run, task)
    run.track(net.named_variables("teacher"))

    run.phase(training_phase(config, run, net, task, parts, true))
    if config.settle_epochs:
        run.phase(training_phase(config, run, net, task, parts, true, settle=True))

    card = {
        "backbone": {k: config.model[k] for k in ("backbone", "input_size", "width", "output_stride", "least_channels")},
        "recipe": config.to_dict(),
        "data": {"name": parts.train.name, "images": len(parts.train), "fingerprint": parts.train.fingerprint},
        "licence": config.licence,
    }
    teacher = Teacher(config.name, net, (task,), preprocessing(config), card)
    networks = {"teacher": dense.Network(teacher.outputs, teacher.tasks)}
    networks |= {name: dense.Network(dense.trivial([task], true["train"], name), [task]) for name in dense.TRIVIAL}
    test = dense.on_test(run, networks, parts.test, pipeline.pixels(parts.test, size, cache), true["test"])
    if poor := worse_than_mean_map(test, task):
        run.say(poor)
    card["measured"] = test
    run.write(lambda: teacher.save(run.workdir / "teacher"))
    return {
        "method": "dense_teacher",
        "tasks": [task.name],
        "train": parts.train.account(),
        "best": run.decided("best/settle" if config.settle_epochs else "best/train"),
        "test": test,
        "sizes": {"teacher": evaluate.size_of(net.as_model("teacher"))},
    }


def worse_than_mean_map(test: Mapping[str, Any], task: Task) -> str:
    """A note if a teacher's error is not below that of one map for all images: nobody can learn from it. Else ""."""
    (error,) = {"rmse", "mean_deg"} & set(test["teacher"]["per_task"][task.name])
    taught, guess = (test[who]["per_task"][task.name][error] for who in ("teacher", "mean_map"))
    if taught is None or guess is None or taught < guess:
        return ""
    said = f"its {error} is {taught:.4g}, that of the mean map {guess:.4g}"
    return (
        f"note: the teacher of {task.name} has learned nothing of the image, {said}: "
        "train it longer, or where maps are nearly empty set power=2"
    )


def check_choices(config: Any) -> None:
    """Every choice that is a word, and the power of the loss.

    Raises:
        UserError: an unknown word, another power than 1 and 2, or another number of tasks than one.
    """
    one_of("model.backbone", config.model.backbone, BACKBONES)
    if config.power not in (1, 2):
        raise UserError(f"power={config.power}: the loss of maps is their mean difference to the power 1 or 2, set one of them")
    optimizers.check(config.optimizer, "optimizer")
    task_of(config)


def task_of(config: Any) -> Task:
    """The one task of the teacher.

    Raises:
        UserError: none, several, one that no codec knows, or one whose codes the network cannot reach.
    """
    wanted = [w.task for w in task_lists.parse(config.tasks)]
    if len(wanted) != 1 or wanted == [task_lists.EVERYTHING]:
        raise UserError(f"a pixel-to-pixel teacher has one task, not {config.tasks}: set --config.tasks=depth_zbuffer, or another codec")
    task = codecs.task(wanted[0])
    mend = "convert the task bank's own network with tools/convert_taskonomy.py, or set another --config.tasks"
    dense.check_reached("a pixel-to-pixel teacher", [task], mend)
    return task


def plan(config: Any, pool: Mapping[str, Teacher]) -> Plan:
    """What `train` is going to do."""
    images, net, batch = planning.counts(config), untrained(config, pool).net, config.batch_size
    cost, size, weights = sum(planning.work(net)), config.model.input_size, planning.weights(net)
    epochs = config.epochs + config.settle_epochs
    steps = planning.steps(epochs, images.train, batch)
    pixels = images.train + images.held_out + images.test
    return Plan(
        [
            Line("train", steps, (3 * steps * batch + epochs * images.held_out) * cost),
            Line("test", 0, images.test * cost),
        ],
        net,
        disk=2 * 4 * weights + weights,
        caches=planning.pixels(images, size) + pixels * size * size * (1 + 4.0 * task_of(config).outputs),
        memory=planning.training(weights, 0.0, batch * sum(planning.activations(net))),
    )


def untrained(config: Any, pool: Mapping[str, Teacher]) -> Teacher:
    """The teacher that a config is going to train, with random weights: for plans."""
    task = task_of(config)
    return Teacher(config.name, _network(config, task, synchronized=False), (task,), preprocessing(config))


def preprocessing(config: Any) -> Preprocessing:
    return Preprocessing.named(config.model.normalise, config.model.input_size)


def build(config: Any, run: Run, task: Task) -> BlockNet:
    """The network of a config, initialised as a function of the run's seed."""
    keras.utils.set_random_seed(run.seed_of("init"))
    return _network(config, task, synchronized=run.strategy.num_replicas_in_sync > 1)


def _network(config: Any, task: Task, synchronized: bool) -> BlockNet:
    options = {k: config.model[k] for k in ("input_size", "width", "output_stride", "code_channels", "least_channels", "residual_start")}
    return encoder_decoder.task_bank(channels=task.outputs, synchronized=synchronized, **options)


def training_phase(
    config: Any, run: Run, net: BlockNet, task: Task, parts: data.Parts, true: Mapping[str, dense.Truth], settle: bool = False
) -> Phase:
    """All epochs of supervised training, or with `settle` those with stored batch-norm statistics; validated after each, the last phase
    ends with the best."""
    size, cache, prepared = config.model.input_size, data.cache_dir(config.data), preprocessing(config)
    batches = pipeline.Batches(
        images=pipeline.pixels(parts.train, size, cache),
        batch_size=config.batch_size,
        seed=run.seed_of("data/settle" if settle else "data/train"),
        views=2 if config.flip else 1,
        columns=true["train"].columns(),
    )

    def each(batch, training):
        target, valid = dense.seen(batch, task)
        written = net.run(prepared(batch["images"]), training=training)
        return losses.map_difference(prediction=written, target=target, mask=valid, power=config.power)

    name, steps, rest = "settle" if settle else "train", batches.steps(config.epochs), 0
    if config.settle_epochs:  # one schedule over both
        rest = batches.steps(config.settle_epochs)
    update = Update(
        "teacher",
        trains=net.weights(),
        statistics=[] if settle else net.statistics(),
        loss=lambda batch: (tf.reduce_mean(each(batch, not settle)), {}),
        optimizer={**config.optimizer.to_dict(), "begin_step": steps if settle else 0, "all_steps": steps + rest},
    )
    held_out, columns = pipeline.pixels(parts.held_out, size, cache), true["held_out"].columns()
    held_out_loss = tf.function(lambda batch: {"loss": each(batch, False)}, autograph=False)
    return Phase(
        name,
        steps=rest if settle else steps,
        data=batches,
        updates=[update],
        validate=lambda: dense.mean_over(held_out_loss, held_out, columns),
        validate_every_steps=batches.steps(1),
        keep_best=None if config.settle_epochs and not settle else "loss",  # before settling, held-out losses say little
        start_counts=not settle,
    )
