"""What a run is going to do and what it will take: printed before long runs, and by `--dry_run`, which stops there.

Work is counted in multiply-adds of convolutions and dense layers, a backward pass as two forward passes, and turned into seconds by
timing one network on this machine now. So the estimate knows nothing of tracing and of input that cannot keep up; it is meant to tell
minutes from hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
import math
import statistics
import time
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import data
from amalgam_tf.data import pipeline
from amalgam_tf.models.blocks import BlockNet, multiply_adds, parameters

LONG = 2e13  # multiply-adds of a run that shows its plan unasked: some minutes on two cores
_PROCESS = 0.8e9  # bytes of a process that has imported TensorFlow and trained a small net
_SET_UP = 3.0  # seconds of tracing, of a checkpoint and of figures for one line of the plan


steps = pipeline.steps_of  # a plan counts them as the batches do


class Counts(NamedTuple):
    """Numbers of images."""

    train: int
    held_out: int
    test: int
    views: int


@dataclass(frozen=True)
class Line:
    """One stretch of work: a phase with its steps, or passes over images (0 steps)."""

    name: str
    steps: int
    work: float  # multiply-adds


@dataclass(frozen=True)
class Plan:
    """What a method is going to do.

    Attributes:
        lines: in order.
        net: the network whose forward pass is timed.
        disk: bytes below the workdir at the end.
        caches: bytes in `data.cache_dir`.
        memory: bytes of the process at its largest.
        notes: what the numbers depend on.
    """

    lines: Sequence[Line]
    net: BlockNet
    disk: float
    caches: float
    memory: float
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def work(self) -> float:
        return sum(line.work for line in self.lines)

    def text(self, title: str, seconds_per: float) -> str:
        """The plan as lines of text; `seconds_per`: of one multiply-add (`seconds_per_multiply_add`)."""
        minutes = [(_SET_UP + line.work * seconds_per) / 60 for line in self.lines]
        rows = [f"  {p.name:<24} {p.steps or '':>7} {m:7.1f} min" for p, m in zip(self.lines, minutes, strict=True)]
        sizes = f"disk {_size(self.disk)} and {_size(self.caches)} of caches, memory {_size(self.memory)}"
        total = f"  about {math.ceil(sum(minutes))} minutes on one device as busy as it is now; {sizes}"
        return "\n".join([f"plan of {title}", f"  {'':<24} {'steps':>7}", *rows, total, *(f"  {n}" for n in self.notes)])


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{math.ceil(number / 1e6)} MB"


def counts(config: Any) -> Counts:
    """How many images the parts of a config hold."""
    parts = data.parts(config.data, untested=True)
    return Counts(*(0 if p is None else len(p) for p in parts), views=2 if config.flip else 1)


def work(net: BlockNet) -> list[float]:
    """Multiply-adds of one image through each block."""
    return [float(multiply_adds(net.block(name))) for name in net.names]


def activations(net: BlockNet) -> list[float]:
    """Bytes of what the layers of each block write for one image: what a training step keeps for the way back."""
    return [_written(net.block(name)) for name in net.names]


def _written(model: keras.Model) -> float:
    own = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    return sum(_written(x) if isinstance(x, keras.Model) else _bytes(x.output) for x in own)


def _bytes(tensor) -> float:
    return math.prod(n or 1 for n in tensor.shape[1:]) * tf.as_dtype(tensor.dtype).size


def weights(net: BlockNet) -> float:
    """Bytes of a network's variables."""
    return 4.0 * parameters(net.variables())


def training(trained: float, others: float, step: float) -> float:
    """Bytes of a training process.

    Args:
        trained: of the variables that an optimizer with two slots changes (gradients besides).
        others: of all other variables.
        step: of the activations of one batch.
    """
    return _PROCESS + 4 * trained + others + 1.5 * step


def pixels(counted: Counts, size: int) -> float:
    """Bytes of the decoded images of all parts."""
    return (counted.train + counted.held_out + counted.test) * size * size * 3.0


def caches(counted: Counts, size: int, outputs: int) -> float:
    """Bytes of what a student's run caches: the decoded images, and so many outputs of its teachers for every training image and view."""
    return pixels(counted, size) + 4.0 * counted.train * counted.views * outputs


def seconds_per_multiply_add(net: BlockNet, batch: int = 32) -> float:
    """Median of five timed forward passes of a network on this machine as it is now."""
    forward = tf.function(net.run, autograph=False)
    x, times = np.zeros((batch, *net.block(0).inputs[0].shape[1:]), np.float32), []
    for _ in range(6):  # the first one traces
        start = time.perf_counter()
        forward(x).numpy()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) / (batch * sum(work(net)))
