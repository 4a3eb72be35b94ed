"""Tiny untrained teachers and configs for the tests of the methods; and what holds a method's module against its paper."""

from dataclasses import replace
import importlib
import os
from pathlib import Path
import re
import signal
from types import ModuleType

import keras

from amalgam_tf import models
from amalgam_tf.data import codecs
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.models import encoder_decoder
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Teacher
from configs import common, common_dense

SIZE = 16
MAP_SIZE = 32


def teacher(name: str, tasks, seed: int, granularity: str = "stage", normalise: str = "centred", **more) -> Teacher:
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
    return Teacher(name, net, tasks, Preprocessing.named(normalise, SIZE), {"backbone": options})


def save_pool(folder: Path, tasks_by_teacher: dict[str, tuple], **more) -> dict[str, dict[str, str]]:
    """Saves teachers and returns the `teachers` section of a config."""
    for i, (name, tasks) in enumerate(tasks_by_teacher.items()):
        teacher(name, tasks, seed=i, **more).save(folder / name)
    return {name: {"path": str(folder / name), "config": ""} for name in tasks_by_teacher}


def afk_config(teachers, tasks="*", **changes):
    """An AFK experiment on a few small scenes; dotted names change leaves."""
    config = common.afk("test", teachers)
    config.data = few_scenes()
    config.tasks = tasks
    config.curve = False  # costs a whole net a block; tested on its own
    config.block.epochs = config.finetune.epochs = 1.0
    config.block.batch_size = config.finetune.batch_size = 8
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def customize_config(teachers, tasks="*", stage="component", **changes):
    """A CUST experiment on a few small scenes, whose binary tasks have two logits; dotted names change leaves."""
    config = common.customize("test", teachers, stage=stage, width=0.5, backbone="resnet8")
    config.data = few_scenes(binary_head="softmax2")
    config.tasks = tasks
    config.train.epochs, config.train.batch_size = 2.0, 8
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def few_scenes(**changes):
    data = common.scenes(train=40, test=24, size=SIZE)
    data.update({"cache_dir": "", "hold_out": 0.3, **changes})
    return data


def swapped(setting):
    """The same pool in another order: a config's teachers always come sorted by name."""
    other = {name: tuple(reversed(getattr(setting, name))) for name in ("teachers", "frozen", "streams")}
    return replace(setting, **other)


def interrupted(data, after: int):
    """The same batches; Ctrl-C arrives in the middle of step `after`."""
    original = data.dataset

    def dataset(start, stop, rank=0, ranks=1):
        for step, batch in enumerate(original(start, stop, rank, ranks), start + 1):
            if step == after:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    object.__setattr__(data, "dataset", dataset)
    return data


def table_of(module: ModuleType, title: str) -> list[list[str]]:
    """The cells of a table in a module's docstring."""
    section = module.__doc__.split(f"\n{title}\n", 1)[1].split("\n\n")[0]
    return [re.split(r"\s{2,}", line.strip()) for line in section.splitlines() if re.match(r"    \S", line)]


def find(module: ModuleType, dotted: str):
    """What a name in a docstring stands for: something of the module itself, or of a module of the package.

    Raises:
        AssertionError: nothing.
    """
    parts = dotted.split(".")
    places = [(f"amalgam_tf.{'.'.join(parts[:i])}", parts[i:]) for i in range(1, len(parts))]
    for name, attributes in [(module.__name__, parts), *places]:
        try:
            found = importlib.import_module(name)
            for part in attributes:
                found = getattr(found, "__dataclass_fields__", {}).get(part) or getattr(found, part)
            return found
        except (ImportError, AttributeError):
            continue
    raise AssertionError(f"{dotted} does not exist")


def dense_teacher(name: str, task: str, seed: int, *, bank: bool = False, channels: int = 8, size: int = MAP_SIZE) -> Teacher:
    """A random pixel-to-pixel teacher with lively batch-norm statistics, whose checksum is made up.

    Args:
        name: of the teacher.
        task: a codec.
        seed: teachers of different seeds say different things.
        bank: the task bank's whole architecture at a sixteenth of its width; otherwise its blocks with a convolution each, quick to trace.
        channels: of the blocks b2 to b4 of the small net.
        size: of its images, in pixels.
    """
    keras.utils.set_random_seed(seed)
    outputs = codecs.task(task).outputs
    net = _small_map_net(outputs, channels, size)
    if bank:
        net = encoder_decoder.task_bank(input_size=size, channels=outputs, width=1 / 16, output_stride=8)
    for i, v in enumerate(net.variables()):
        if "moving_mean" in v.path:
            v.assign(keras.random.normal(v.shape, stddev=0.3, seed=seed + i))
        if "moving_variance" in v.path:
            v.assign(keras.random.uniform(v.shape, 0.5, 2.0, seed=seed + i))
    return Teacher(name, net, (codecs.task(task),), Preprocessing.named("tf", size), {"sha256": f"{name}{seed}"})


def _small_map_net(outputs: int, channels: int, size: int) -> BlockNet:
    x = image = keras.Input((size, size, 3))
    widths = {"b1": (4, 2), "b2": (channels, 2), "b3": (channels, 1), "b4": (channels, 1), "code": (4, 1)}
    for block, (width, stride) in widths.items():
        x = keras.layers.Conv2D(width, 3, stride, "same", use_bias=False, name=f"{block}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{block}_bn", momentum=0.9)(x)
        x = keras.layers.Activation("relu", name=f"{block}_end")(x)
    x = keras.layers.Conv2DTranspose(8, 4, 4, "same", use_bias=False, name="deconv")(x)
    x = keras.layers.BatchNormalization(name="deconv_bn", momentum=0.9)(x)
    x = keras.layers.LeakyReLU(0.2, name="deconv_end")(x)
    x = keras.layers.Conv2D(outputs, 3, padding="same", activation="tanh", dtype="float32", name="decoder_output")(x)
    return BlockNet.cut(keras.Model(image, x, name="maps"), [f"{block}_end" for block in widths], [*widths, "decoder"])


def dense_pool(tasks_by_teacher: dict[str, str], **more) -> dict[str, Teacher]:
    """Random pixel-to-pixel teachers by name, in memory."""
    return {name: dense_teacher(name, task, seed=i, **more) for i, (name, task) in enumerate(tasks_by_teacher.items())}


def save_dense_pool(folder: Path, tasks_by_teacher: dict[str, str], **more) -> dict[str, dict[str, str]]:
    """Saves pixel-to-pixel teachers and returns the `teachers` section of a config."""
    for name, made in dense_pool(tasks_by_teacher, **more).items():
        made.save(folder / name)
    return {name: {"path": str(folder / name), "config": ""} for name in tasks_by_teacher}


def soka_config(teachers, tasks: str, **changes):
    """A SOKA experiment of a few steps on a few small scenes; dotted names change leaves."""
    entries = {name: t if isinstance(t, dict) else {"path": name, "config": ""} for name, t in teachers.items()}
    config = common_dense.soka("test", entries, tasks)
    config.data, config.mia.norm = few_maps(), "none"  # the equations as printed
    config.init.steps, config.train.steps, config.train.batch_size, config.train.validate_every_steps = 2, 4, 6, 2
    config.log_every_steps, config.save_every_steps = 1, 2
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def few_maps(**changes):
    data = common_dense.scenes(train=24, test=12, size=MAP_SIZE)
    data.update({"cache_dir": "", "hold_out": 0.25, **changes})
    return data
