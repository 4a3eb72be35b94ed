"""Networks that branch: entanglement of a student with frozen teachers, block losses, regrouping.

Knows no paper: AFK, the Dual-GAN student and SOKA's encoder with its decoders are all `Branched`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
import numpy as np
import tensorflow as tf

from amalgam_tf.data import pipeline
from amalgam_tf.errors import UserError
from amalgam_tf.models.adapters import ChannelFilter
from amalgam_tf.models.blocks import BlockNet, named_variables, safe_name
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Stream, Teacher


@dataclass(frozen=True, eq=False)
class Tail:
    """What some tasks go through behind their branch point.

    Attributes:
        name: unique in its net, e.g. `T1@b2`.
        at: block of the trunk it leaves behind.
        adapter: layer between the trunk and the tail (a teacher-level filter), or None.
        net: the blocks behind; the last one writes the logits of `tasks`, in this order.
        tasks: what it predicts.
    """

    name: str
    at: str
    adapter: keras.layers.Layer | None
    net: BlockNet
    tasks: tuple[Task, ...]

    def run(self, x, training: bool = False):
        """Trunk features at `at` -> logits [batch, outputs of all tasks]."""
        return self.net.run(x if self.adapter is None else self.adapter(x), training=training)

    def named_variables(self, role: str) -> dict[str, keras.Variable]:
        named = self.net.named_variables(f"{role}/{self.name}")
        return named if self.adapter is None else named | named_variables(self.adapter, f"{role}/{self.name}/adapter")


Adapters = Mapping[tuple[str, str], keras.layers.Layer]  # (block, teacher) -> layer between that block and the teacher's next one
PARTS = ("all", "trunk", "tails")  # what of a branched network is trained


class Branched:
    """A trunk and tails that leave it at named blocks. Tasks may share a tail; trunk blocks behind the last branch are dropped."""

    def __init__(self, trunk: BlockNet, tails: Mapping[str, Tail]):
        """Args: trunk, and task name -> its tail."""
        self.tails = dict(tails)
        self.trunk = trunk.part(stop=max(trunk.index(t.at) for t in tails.values()))
        self.unique_tails = list({id(t): t for t in tails.values()}.values())

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(next(x for x in tail.tasks if x.name == name) for name, tail in self.tails.items())

    def run(self, x, training: bool = False, part: str = "all") -> dict[str, Any]:
        """[batch, height, width, 3] -> task name -> logits [batch, outputs] or maps; with `training`, only `part` uses batch statistics."""
        taps = self.trunk.taps(x, training=training and part != "tails")
        return self.run_tails(taps, training and part != "trunk")

    def run_tails(self, taps: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """What the trunk wrote, by block (those where tails leave, at least) -> task name -> logits, or maps."""
        logits = {}
        for tail in self.unique_tails:
            rows = tail.run(taps[tail.at], training=training)
            ends = np.cumsum([t.outputs for t in tail.tasks])
            logits |= {t.name: rows[..., end - t.outputs : end] for t, end in zip(tail.tasks, ends, strict=True)}
        return {name: logits[name] for name in self.tails}

    def chain(self) -> BlockNet:
        """A net with one tail, which reads the whole trunk as it is, as one chain of blocks over the same weights."""
        (tail,) = self.unique_tails
        return BlockNet({n: net.block(n) for net in (self.trunk, tail.net) for n in net.names})

    def named_variables(self, role: str) -> dict[str, keras.Variable]:
        named = self.trunk.named_variables(role)
        for tail in self.unique_tails:
            named |= tail.named_variables(role)
        return named

    def weights(self, part: str = "all") -> list[keras.Variable]:
        """What training a part may change."""
        return {"all": [*self.trunk.weights(), *self.tail_weights()], "trunk": self.trunk.weights(), "tails": self.tail_weights()}[part]

    def tail_weights(self) -> list[keras.Variable]:
        """Trainable variables of all tails, adapters included (an adapter that several tails share comes once)."""
        adapters = {id(t.adapter): t.adapter for t in self.unique_tails if t.adapter is not None}
        return [v for t in self.unique_tails for v in t.net.weights()] + [v for a in adapters.values() for v in a.trainable_variables]

    def statistics(self, part: str = "all") -> list[keras.Variable]:
        """What a forward pass of `part` in training may move: batch-norm statistics and seed states."""
        nets = [*([self.trunk] if part != "tails" else []), *(t.net for t in self.unique_tails if part != "trunk")]
        return [v for net in nets for v in net.statistics()]

    def as_model(self, name: str = "student") -> keras.Model:
        """One functional Keras model with a dict of logits by task."""
        first = self.trunk.block(0).inputs[0]
        image = keras.Input(first.shape[1:], dtype=first.dtype, name="image")
        return keras.Model(image, self.run(image), name=safe_name(name))


def entangle(features, k: int, adapters: Mapping[str, keras.layers.Layer], teachers: Sequence[Teacher]) -> dict[str, tf.Tensor]:
    """The student's features behind block k go on through every teacher's own frozen blocks k+1..B and head (AFK eq. 6).

    Args:
        features: [batch, ...], the student's output of block k.
        k: position of the block, equal in student and teachers.
        adapters: teacher name -> layer between student and teacher.
        teachers: with blocks of the same shapes as the student's.

    Returns:
        teacher name -> float32 logits [batch, rows of the teacher's head]. Gradients pass through the teachers; their
        batch norm uses stored statistics.
    """
    return {t.name: tf.cast(t.net.run(adapters[t.name](features), start=k + 1), tf.float32) for t in teachers}


def start_filters(
    options: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], teachers: Sequence[Teacher], seed_of: Callable[[str], int], role: str
) -> dict[tuple[str, str], ChannelFilter]:
    """A teacher-level filter for every block and teacher, built for the block's known output shape (AFK eq. 4, DGAN eq. 10).

    Args:
        options: `gate`, `reduction`, `bias` (AFK A7).
        shapes: block -> shape of what the filter reads.
        teachers: who reads behind it.
        seed_of: name -> seed; `{role}/{block}/{teacher}` is a filter's.
        role: what tells the filters of several nets of one run apart.
    """
    filters = {}
    for block, shape in shapes.items():
        for teacher in teachers:
            keras.utils.set_random_seed(seed_of(f"{role}/{block}/{teacher.name}"))
            name = safe_name(f"{role}_{block}_{teacher.name}")
            layer = ChannelFilter(options["gate"], options["reduction"], options["bias"], name=name)
            layer.build((None, *shape))
            filters[block, teacher.name] = layer
    return filters


def named_filters(filters: Adapters, role: str) -> dict[str, keras.Variable]:
    """The variables of all filters under the names the run's state wants."""
    return {k: v for (block, name), f in filters.items() for k, v in named_variables(f, f"{role}/{block}/{name}").items()}


def check_alike(
    teachers: Sequence[Teacher],
    method: str,
    what: str = "teachers",
    mend: str = "teachers of different architectures are the business of the Customize method",
) -> None:
    """Teachers must agree in block names, block shapes and input size; their last blocks, the heads, may differ.

    Args:
        teachers: at least one.
        method: for the sentence, as all that follows.
        what: what must be alike.
        mend: what to do about it.

    Raises:
        UserError: they do not.
    """
    first, *others = teachers
    for other in others:
        mine, theirs = map(_architecture, (first, other))
        if mine != theirs:
            raise UserError(
                f"{method} needs {what} of one architecture, but the blocks of {first.name} ({mine}) and {other.name} ({theirs}) differ: "
                f"{mend}"
            )


def _architecture(teacher: Teacher) -> str:
    blocks = [f"{name} {' x '.join(map(str, shape))}" for name, shape in teacher.net.shapes.items()]
    return ", ".join([f"{teacher.preprocessing.size} pixels", *blocks[:-1]])


def regroup(
    trunk: BlockNet,
    adapters: Adapters,
    teachers: Sequence[Teacher],
    branches: Mapping[Stream, str],
    *,
    per_task: bool = False,
) -> Branched:
    """Trunk down to each branch point, then the adapter, a copy of the teacher's rest and its rows (AFK eq. 10).

    Args:
        trunk: the student's blocks, shared with the result, not copied.
        adapters: (block, teacher) -> layer between the trunk and the teacher's next block.
        teachers: whose tails are copied; their blocks have the trunk's names and shapes.
        branches: stream -> block where it leaves; one stream a task.
        per_task: a tail for every task; otherwise tasks that leave one teacher at one block share theirs (the same function, AFK A12).
    """
    by_name = {t.name: t for t in teachers}
    groups: dict[tuple[str, str, str], list[Stream]] = {}
    for stream, block in branches.items():
        groups.setdefault((stream.teacher, block, stream.task.name if per_task else ""), []).append(stream)
    tails: dict[str, Tail] = {}
    for (name, block, own), members in groups.items():
        label = f"{name}@{block}.{own}".rstrip(".")
        tail = teacher_tail(by_name[name], block, adapters[block, name], [s.task for s in members], label)
        tails |= {s.task.name: tail for s in members}
    return Branched(trunk, {s.task.name: tails[s.task.name] for s in branches})


def trunk_costs(trunk: BlockNet, count: Callable[[keras.Model], float]) -> dict[str, float]:
    """Block -> cost of the trunk up to and including it. `count`: parameters or multiply-adds of a model."""
    return dict(zip(trunk.names, np.cumsum([count(trunk.block(n)) for n in trunk.names]).tolist(), strict=True))


def tail_costs(
    teacher: Teacher,
    adapters: Mapping[str, keras.layers.Layer],
    tasks: Sequence[Task],
    count: Callable[[keras.Model], float],
    count_adapter: Callable[[keras.layers.Layer], float],
) -> dict[str, float]:
    """Block -> cost of the tail that leaves there, its head cut down to `tasks`.

    Tasks that are spread over several tails share out the rows of the head between them; so the cost of a row is counted in every tail
    but belongs to one: an upper bound, above the truth by the rows of a dense layer at most. (So does an adapter that tails of one
    block share; callers with a tail for every task count it in each.)

    Args:
        teacher: whose rest it is.
        adapters: block -> layer in front of it.
        tasks: the rows its heads keep together.
        count: parameters or multiply-adds of a model.
        count_adapter: the same of an adapter.
    """
    head = sliced_head(teacher.net.block(len(teacher.net) - 1), teacher.rows(tasks), "head")
    blocks = [count(teacher.net.block(n)) for n in teacher.net.names[:-1]]
    return {
        name: float(sum(blocks[i + 1 :]) + count(head) + count_adapter(adapters[name])) for i, name in enumerate(teacher.net.names[:-1])
    }


def mean_over(fn: Callable[..., Mapping[str, tf.Tensor]], images: np.ndarray, *columns: np.ndarray) -> dict[str, float]:
    """Means of per-example values over a whole set, in index order: `fn(images, *rows) -> {name: [batch]}`."""
    return {name: float(np.mean(values, dtype=np.float64)) for name, values in pipeline.in_order(fn, images, *columns).items()}


def teacher_tail(teacher: Teacher, at: str, adapter: keras.layers.Layer | None, tasks: Sequence[Task], name: str) -> Tail:
    """A copy of the teacher's blocks behind `at`, its head cut down to the wanted rows (AFK eq. 10).

    The copies belong to the student: fine-tuning them leaves the teacher as it is.
    """
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1  # the teacher's own batch norm is never trained, the copy's may be
    blocks = teacher.net.part(start=teacher.net.index(at) + 1).copy(name, synchronized=several)
    head = sliced_head(blocks.block(len(blocks) - 1), teacher.rows(tasks), f"{name}_head")
    middle = {n: blocks.block(n) for n in blocks.names[:-1]}
    return Tail(name, at, adapter, BlockNet({**middle, blocks.names[-1]: head}), tuple(tasks))


def sliced_head(head: keras.Model, rows: Sequence[int], name: str) -> keras.Model:
    """A copy of a head that writes only some rows, in the order given: fewer units where it ends in a dense layer, a gather otherwise."""
    last = head.outputs[0]._keras_history.operation
    dense = isinstance(last, keras.layers.Dense)

    def clone(layer):
        config = layer.get_config()
        if dense and layer is last:
            config["units"] = len(rows)
        return layer.__class__.from_config(config)

    new = keras.models.clone_model(head, clone_function=clone)
    for old_layer, new_layer in zip(head.layers, new.layers, strict=True):
        values = old_layer.get_weights()
        new_layer.set_weights([v[..., list(rows)] for v in values] if dense and old_layer is last else values)
    output = new.outputs[0] if dense else ops.take(new.outputs[0], list(rows), axis=-1)
    return keras.Model(new.inputs[0], output, name=safe_name(name))
