"""THE protocol: a network is an ordered chain of named blocks, each a functional Keras model.

Entanglement then reads `teacher.run(filter(student.run(x, stop=k)), start=k + 1)`. A `BlockNet` is a plain object, not
a Keras model with lists: layers in list attributes are silently lost by checkpoints.
"""

from collections.abc import Mapping, Sequence
import math
import re

import keras
from keras import layers

from amalgam_tf.errors import UserError

_SEED_NUMBER = re.compile(r"seed_generator_\d+(?=/)")


class BlockNet:
    """An ordered chain of named functional blocks; block i reads only what block i - 1 wrote.

    Ranges are given by block name or by position, and `stop` is INCLUSIVE: `run(x, stop="b2")` runs b2 as well, and
    `run(y, start=k + 1)` goes on behind block k. A range that starts behind the last block is empty (the identity).
    Gradients pass through every block; nothing here is ever frozen by flags: pass `training=` and variable lists.
    """

    def __init__(self, blocks: dict[str, keras.Model]):
        """Takes ready blocks in order.

        Raises:
            UserError: no blocks, or a block that does not fit the one before it.
        """
        if not blocks:
            raise UserError("a network needs at least one block")
        self._blocks = dict(blocks)
        pairs = list(self._blocks.items())
        for (before, a), (after, b) in zip(pairs, pairs[1:], strict=False):
            if a.outputs[0].shape[1:] != b.inputs[0].shape[1:]:
                raise UserError(
                    f"block {after!r} reads {b.inputs[0].shape[1:]} but block {before!r} before it writes {a.outputs[0].shape[1:]}"
                )

    @classmethod
    def cut(cls, model: keras.Model, cuts: Sequence[str], names: Sequence[str] | None = None) -> "BlockNet":
        """Cuts a functional graph behind the layers named in `cuts`; weights stay the same variables.

        Args:
            model: a functional Keras model with one input and one output tensor.
            cuts: layer names that END a block, in order; what follows the last one is the last block.
            names: len(cuts) + 1 block names; by default the cut names and `head`.

        Raises:
            UserError: an unknown layer name, or a cut that a skip connection crosses.
        """
        names = list(names or [*cuts, "head"])
        if len(names) != len(cuts) + 1:
            raise UserError(f"{len(cuts)} cuts make {len(cuts) + 1} blocks, but {len(names)} block names were given: {names}")
        known = {layer.name for layer in model.layers}
        if unknown := [c for c in cuts if c not in known]:
            raise UserError(
                f"model {model.name!r} has no layer {', '.join(unknown)} to cut at; "
                f"its last layers are {', '.join(x.name for x in model.layers[-8:])}"
            )
        tensors = [model.inputs[0], *(model.get_layer(c).output for c in cuts), model.outputs[0]]
        blocks = {}
        for name, start, stop in zip(names, tensors, tensors[1:], strict=False):
            try:
                blocks[name] = keras.Model(start, stop, name=safe_name(f"{model.name}_{name}"))
            except ValueError as error:  # Keras: "not connected to inputs"
                raise UserError(
                    f"model {model.name!r} cannot be cut into block {name!r}: a connection goes past the cut; "
                    "choose layers where one tensor carries everything"
                ) from error
        return cls(blocks)

    # -- looking ------------------------------------------------------------------------------------------------------
    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def block(self, name: str | int) -> keras.Model:
        return self._blocks[self.names[self.index(name)]]

    def index(self, name: str | int) -> int:
        """Position of a block.

        Raises:
            UserError: a name this network does not have.
        """
        if isinstance(name, int):
            return name
        if name not in self._blocks:
            raise UserError(f"there is no block {name!r}; the blocks are {', '.join(self.names)}")
        return self.names.index(name)

    @property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Output shape of every block without the batch axis, e.g. `{"b1": (24, 24, 256), ..., "head": (20,)}`."""
        return {name: tuple(block.outputs[0].shape[1:]) for name, block in self._blocks.items()}

    def _range(self, start: str | int | None, stop: str | int | None) -> list[str]:
        first = 0 if start is None else self.index(start)
        last = len(self) - 1 if stop is None else self.index(stop)
        return list(self.names[first : last + 1])

    # -- running ------------------------------------------------------------------------------------------------------
    def run(self, x, *, start: str | int | None = None, stop: str | int | None = None, training: bool = False):
        """Runs blocks start..stop (inclusive) on `x`, the input of block `start`, and returns the last output."""
        for name in self._range(start, stop):
            x = self._blocks[name](x, training=training)
        return x

    def taps(self, x, *, start: str | int | None = None, stop: str | int | None = None, training: bool = False) -> dict:
        """As `run`, but returns every block's output by block name, in order."""
        taps = {}
        for name in self._range(start, stop):
            taps[name] = x = self._blocks[name](x, training=training)
        return taps

    # -- variables ----------------------------------------------------------------------------------------------------
    def variables(self, start: str | int | None = None, stop: str | int | None = None) -> list[keras.Variable]:
        """All variables of the range: weights, batch-norm statistics, seed states."""
        return [v for name in self._range(start, stop) for v in self._blocks[name].variables]

    def weights(self, start: str | int | None = None, stop: str | int | None = None) -> list[keras.Variable]:
        """What an update may train."""
        return [v for name in self._range(start, stop) for v in self._blocks[name].trainable_variables]

    def statistics(self, start: str | int | None = None, stop: str | int | None = None) -> list[keras.Variable]:
        """What a forward pass with `training=True` may move: batch-norm statistics and seed states."""
        trained = {id(v) for v in self.weights(start, stop)}
        return [v for v in self.variables(start, stop) if id(v) not in trained]

    def named_variables(self, role: str) -> dict[str, keras.Variable]:
        """`{role/block/path: variable}`, the form the run's state wants; names are unique."""
        return {key: v for name, block in self._blocks.items() for key, v in named_variables(block, f"{role}/{name}").items()}

    def parameters(self, start: str | int | None = None, stop: str | int | None = None) -> int:
        """Number of scalars in the variables of the range (statistics included, seed states not)."""
        return parameters(self.variables(start, stop))

    # -- making others ------------------------------------------------------------------------------------------------
    def part(self, start: str | int | None = None, stop: str | int | None = None) -> "BlockNet":
        """The blocks of a range as a network of their own, sharing the weights."""
        return BlockNet({name: self._blocks[name] for name in self._range(start, stop)})

    def joined(self, ends: Mapping[str, str]) -> "BlockNet":
        """The same network in fewer, longer blocks, sharing the weights; the head stays a block of its own.

        Args:
            ends: new block name -> the block it ends with, in network order; the last one ends before the head.

        Raises:
            UserError: an unknown block, or blocks out of order.
        """
        places = [self.index(end) for end in ends.values()]
        if places != sorted(set(places)) or places[-1:] != [len(self) - 2]:
            raise UserError(
                f"blocks that end with {', '.join(ends.values())} do not make up a network of {', '.join(self.names)}: "
                f"name each end once, in this order, the last one {self.names[-2]}"
            )
        starts = [0, *(p + 1 for p in places)]
        longer = {
            name: self.block(stop) if start == stop else self.part(start, stop).as_model(name)
            for name, start, stop in zip(ends, starts, places, strict=False)
        }
        return BlockNet({**longer, self.names[-1]: self.block(len(self) - 1)})

    def stages(self) -> dict[str, str]:
        """What `joined` wants for one block a stage, where units are called `b{stage}_{unit}`: `{"b1": "b1_3", ...}`.

        Raises:
            UserError: blocks called otherwise.
        """
        units = [re.fullmatch(r"(.+)_\d+", name) for name in self.names[:-1]]
        if odd := [name for name, unit in zip(self.names, units, strict=False) if not unit]:
            raise UserError(f"the blocks {', '.join(odd)} are not units of a stage (b1_1, b1_2, ...): leave granularity empty")
        return {unit[1]: unit[0] for unit in units}  # the last unit of a stage wins

    def copy(self, name: str, synchronized: bool = False) -> "BlockNet":
        """An independent network with equal weights; its blocks are Keras models called `{name}_{block}`."""
        fresh = self.fresh(name, synchronized=synchronized)
        for old, new in zip(self._blocks.values(), fresh._blocks.values(), strict=True):
            new.set_weights(old.get_weights())
        return fresh

    def fresh(self, name: str, seed: int | None = None, synchronized: bool = False) -> "BlockNet":
        """An independent network of the same architecture with newly initialised weights (a function of `seed`)."""
        if seed is not None:
            keras.utils.set_random_seed(seed)
        return BlockNet({k: rebuilt(block, name=f"{name}_{k}", synchronized=synchronized) for k, block in self._blocks.items()})

    def as_model(self, name: str = "net") -> keras.Model:
        """One functional Keras model over the same weights."""
        first = self.block(0).inputs[0]
        x = keras.Input(first.shape[1:], dtype=first.dtype)
        return keras.Model(x, self.run(x), name=safe_name(name))


def named_variables(layer: keras.layers.Layer, role: str) -> dict[str, keras.Variable]:
    """`{role/path: variable}` of one layer or model; the names are the same however often the network was built before.

    Seed generators are numbered by Keras over the whole process and do not carry their layer's name, so the number is
    dropped and repeated names get `#2`, `#3`, ... in the layer's own order.
    """
    named: dict[str, keras.Variable] = {}
    for variable in layer.variables:
        name = f"{role}/{_SEED_NUMBER.sub('seed_generator', variable.path)}"
        copies = sum(k.partition("#")[0] == name for k in named)
        named[f"{name}#{copies + 1}" if copies else name] = variable
    return named


def parameters(variables: Sequence[keras.Variable]) -> int:
    """Number of scalars; seed-generator states are not parameters."""
    return sum(math.prod(v.shape) for v in variables if "seed_generator" not in v.path)


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of one image through all convolutions and dense layers (FLOPs = 2 x this); the rest is not counted."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += multiply_adds(layer)
        elif (kernel := getattr(layer, "kernel", None)) is not None:
            places = (layer.input if isinstance(layer, layers.Conv2DTranspose) else layer.output).shape[1:-1]
            if None in places:
                raise UserError(f"layer {layer.name!r} has no fixed size: build the model with a fixed input size to count its operations")
            total += math.prod(kernel.shape) * math.prod(places)
    return total


def safe_name(name: str) -> str:
    """`name` with everything a Keras layer name may not hold replaced by `_`."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", name)


def stays_float32(layer) -> bool:
    """Whether a layer is float32 in every precision: a dense one, whose logits of +-200 must keep their digits, or a map under a tanh."""
    return isinstance(layer, layers.Dense) or getattr(layer, "activation", None) is keras.activations.tanh


def policies(net: BlockNet) -> set[str]:
    """Names of the dtype policies of all layers but those that stay float32 in every precision."""
    layers_of = [layer for name in net.names for layer in net.block(name)._flatten_layers(include_self=False)]
    return {x.dtype_policy.name for x in layers_of if not isinstance(x, layers.InputLayer) and not stays_float32(x)}


def rebuilt(
    model: keras.Model,
    *,
    name: str | None = None,
    width: float = 1.0,
    synchronized: bool = False,
    policy: str | None = None,
    inputs: str | None = None,
) -> keras.Model:
    """A new functional model of the same graph with newly initialised weights.

    Args:
        model: a functional model with one input.
        name: name of the new one.
        width: factor on the channels of every convolution but a map under a tanh (all shapes behind follow).
        synchronized: make every batch norm average over replicas (needed when batch statistics are used under a strategy;
            the models of keras.applications have no such argument).
        policy: another dtype policy for all layers but those of `stays_float32`.
        inputs: another dtype for the model's input: a block that reads what another one wrote reads its compute dtype.
    """

    def clone(layer):
        if isinstance(layer, keras.Model):
            return rebuilt(layer, width=width, synchronized=synchronized, policy=policy, inputs=inputs)
        config = layer.get_config()
        if inputs is not None and isinstance(layer, layers.InputLayer):
            config["dtype"] = inputs
        if width != 1 and isinstance(layer, layers.Conv2D | layers.Conv2DTranspose) and not stays_float32(layer):
            config["filters"] = max(1, round(config["filters"] * width))
        if synchronized and isinstance(layer, layers.BatchNormalization):
            config["synchronized"] = True
        # An operation of keras.ops has no policy: it computes in that of its input.
        if policy is not None and isinstance(layer, layers.Layer) and not isinstance(layer, layers.InputLayer) and not stays_float32(layer):
            config["dtype"] = policy
        return layer.__class__.from_config(config)

    new = keras.models.clone_model(model, clone_function=clone)
    return keras.Model(new.inputs[0], new.output, name=safe_name(name or model.name))
