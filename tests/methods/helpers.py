"""Tiny untrained teachers and configs for the tests of the methods."""

from pathlib import Path

import keras

from amalgam_tf import models
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Teacher
from configs import common

SIZE = 16


def teacher(name: str, tasks, seed: int, granularity: str = "stage", **more) -> Teacher:
    """A random resnet8 with lively batch-norm statistics and heads, so that teachers differ and say something."""
    tasks = tuple(t if isinstance(t, Task) else Task(t) for t in tasks)
    keras.utils.set_random_seed(seed)
    options = {"backbone": "resnet8", "input_size": SIZE, "width": 0.5, "granularity": granularity, **more}
    net = models.classifier(
        options["backbone"], input_size=SIZE, outputs=sum(t.outputs for t in tasks), granularity=granularity, width=options["width"]
    )
    for v in net.variables():
        if "moving_mean" in v.path:
            v.assign(keras.random.normal(v.shape, stddev=0.1, seed=seed))
    return Teacher(name, net, tasks, Preprocessing.named("centred", SIZE), {"backbone": options})


def save_pool(folder: Path, tasks_by_teacher: dict[str, tuple], **more) -> dict[str, dict[str, str]]:
    """Saves teachers and returns the `teachers` section of a config."""
    for i, (name, tasks) in enumerate(tasks_by_teacher.items()):
        teacher(name, tasks, seed=i, **more).save(folder / name)
    return {name: {"path": str(folder / name), "config": ""} for name in tasks_by_teacher}


def afk_config(teachers, tasks="*", **changes):
    """An AFK experiment on a few small scenes; dotted names change leaves."""
    config = common.afk("test", teachers)
    config.data = common.scenes(train=40, test=24, size=SIZE)
    config.data.cache_dir, config.data.hold_out = "", 0.3
    config.tasks = tasks
    config.curve = False  # costs a whole net a block; tested on its own
    config.block.epochs = config.finetune.epochs = 1.0
    config.block.batch_size = config.finetune.batch_size = 8
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config
