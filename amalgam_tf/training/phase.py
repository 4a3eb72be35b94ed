"""`Update` and `Phase`: what is trained, by which loss, for how long. Data, no behaviour.

Freezing is by exact variable lists, never by `trainable` flags: a flag also switches batch norm to inference and stays
behind when the phase is over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import tensorflow as tf

BATCH_NORMS = ("batch", "frozen")  # statistics that a trained network uses: those of the batch, or the stored ones
Batch = dict[str, tf.Tensor]
Measurements = dict[str, tf.Tensor]


class StepData(Protocol):
    """Training data as a pure function of the step (`data.pipeline.Batches`)."""

    batch_size: int

    def dataset(self, start: int, stop: int, rank: int = 0, ranks: int = 1) -> tf.data.Dataset: ...


@dataclass(frozen=True)
class Update:
    """One gradient step on one list of variables.

    Attributes:
        name: unique within the phase.
        trains: exactly the variables it changes.
        statistics: exactly the other variables its forward pass may move (batch norm, seed states).
        loss: `batch -> (loss, measurements)`: the scalar mean over the (replica's) batch, and every term to be logged.
        optimizer: its own settings (`training.optimizers.build`).
        heads: the variables whose learning rate is multiplied by `head_multiplier`.
        gradient: instead of the tape: `batch -> (gradients, measurements)`, one gradient per variable of `trains`
            (GradNorm supplies its closed form here). Exactly one of `loss` and `gradient` is given.
    """

    name: str
    trains: Sequence[keras.Variable]
    optimizer: dict[str, Any]
    loss: Callable[[Batch], tuple[tf.Tensor, Measurements]] | None = None
    statistics: Sequence[keras.Variable] = ()
    heads: Sequence[keras.Variable] = ()
    gradient: Callable[[Batch], tuple[list[tf.Tensor], Measurements]] | None = None

    def __post_init__(self):
        if (self.loss is None) == (self.gradient is None):
            raise ValueError(f"update {self.name!r} needs a loss or a gradient, and not both")
        if len({id(v) for v in [*self.trains, *self.statistics]}) != len(self.trains) + len(self.statistics):
            raise ValueError(f"update {self.name!r} lists a variable twice")


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one step function.

    Attributes:
        name: unique within the run, e.g. `block/b2`.
        steps: number of steps.
        data: batches by step.
        updates: done in this order on every batch.
        validate: optional `() -> measurements`, a pass over held-out data, every `validate_every_steps` and at the end.
        validate_every_steps: 0 for the end only.
        keep_best: name of a validation measurement; the phase ends with the weights that had its smallest value.
        start_counts: whether those it starts with are a candidate.
    """

    name: str
    steps: int
    data: StepData
    updates: Sequence[Update]
    validate: Callable[[], dict[str, float]] | None = None
    validate_every_steps: int = 0
    keep_best: str | None = None
    start_counts: bool = True
    variables: list[keras.Variable] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "variables", _unique(v for u in self.updates for v in [*u.trains, *u.statistics]))


def _unique(variables) -> list[keras.Variable]:
    return list({id(v): v for v in variables}.values())
