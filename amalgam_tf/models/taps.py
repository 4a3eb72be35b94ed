"""Taps: tensors inside a network, got in the same forward pass as its output: what a feature loss compares (CUST spec C1), what batch norms
read (statistics of generated images, DGAN spec section 6).
"""

from collections.abc import Iterator

import keras
from keras import layers
import tensorflow as tf

from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models.blocks import BlockNet

TAPS = ("pre_relu", "post_relu")
STEM = "stem"


class TappedNet:
    """A network that also shows its taps; the layers and variables are those of `net`.

    The taps, in order: `stem`, what the first convolution of the first block writes (before batch norm; before an activation
    unless the convolution applies it itself), if that block has one; then for every block but the last its output, called like the
    block. With `pre_relu` a block that ends in a ReLU is tapped in front of it: there the values are signed, so a bridge sees more
    than what is positive. Blocks that end otherwise (a DenseNet's transitions) and the stem are the same under both.

    A network cut into units has a tap a unit; for one a stage, join it: `TappedNet(net.joined(net.stages()), "pre_relu")`.

    Attributes:
        shapes: tap -> its shape without the batch axis, in order.

    Args:
        net: any chain of blocks; foreign and joined ones too.
        tap: `pre_relu` or `post_relu`.

    Raises:
        UserError: another tap, or a block that is itself called `stem` beside a tapped convolution.
    """

    def __init__(self, net: BlockNet, tap: str = "pre_relu"):
        one_of("tap", tap, TAPS)
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self._parts: list[tuple[keras.Model, tuple[str, ...]]] = []
        for i, name in enumerate(net.names):
            block = _laid_open(net.block(name))
            output, tensors = block.outputs[0], {}
            if i == 0 and (stem := _first_convolution(block)) is not None:
                tensors[STEM] = stem
            if i < len(net) - 1:
                if name in tensors:
                    raise UserError(f"a block called {name!r} takes the name of the tap of the first convolution: give it another name")
                tensors[name] = _before_relu(output) if tap == "pre_relu" else output
            self.shapes |= {key: tuple(t.shape[1:]) for key, t in tensors.items()}
            model = keras.Model(block.inputs[0], [*tensors.values(), output], name=f"{block.name}_taps") if tensors else block
            self._parts.append((model, tuple(tensors)))

    def run(self, x, *, training: bool = False) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One forward pass: (tap -> tensor, what `net.run(x, training=training)` returns)."""
        taps = {}
        for model, names in self._parts:
            *tensors, x = keras.tree.flatten(model(x, training=training))
            taps |= dict(zip(names, tensors, strict=True))
        return taps, x


class NormalisedNet:
    """A network that also shows what its batch norms read; the layers and variables are those of `net`.

    Attributes:
        norms: the batch norms, in order; a call a norm.

    Args:
        net: any chain of blocks; foreign and joined ones too.
    """

    def __init__(self, net: BlockNet):
        self.norms: list[layers.BatchNormalization] = []
        self._parts: list[tuple[str, keras.Model]] = []
        for name in net.names:
            block = _laid_open(net.block(name))
            nodes = [n for n in _nodes(block) if isinstance(n.operation, layers.BatchNormalization)]
            self.norms += [n.operation for n in nodes]
            model = keras.Model(block.inputs[0], [*(n.input_tensors[0] for n in nodes), block.outputs[0]], name=f"{block.name}_norms")
            self._parts.append((name, model))

    def run(self, x) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """One forward pass in inference mode: (what each of `norms` reads, every block's output by block name)."""
        read, written = [], {}
        for name, model in self._parts:
            *tensors, x = keras.tree.flatten(model(x, training=False))
            read += tensors
            written[name] = x
        return read, written


def _laid_open(model: keras.Model) -> keras.Model:
    """The same layers without nested models (joined blocks hold some): a tensor inside one of those is no tensor of the outer graph."""
    if not any(isinstance(layer, keras.Model) for layer in model.layers):
        return model
    x = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    return keras.Model(x, _through(model, x), name=model.name)


def _through(model: keras.Model, x):
    def call(op, *args, **kwargs):
        return _through(op, args[0]) if isinstance(op, keras.Model) else op(*args, **kwargs)

    return keras.tree.flatten(model._run_through_graph(x, call_fn=call))[0]


def _first_convolution(model: keras.Model):
    return next((node.outputs[0] for node in _nodes(model) if isinstance(node.operation, layers.Conv2D)), None)


def _nodes(model: keras.Model) -> Iterator:
    """The calls of a graph, each behind those it reads."""
    return (node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth])


def _before_relu(tensor):
    op, node, _ = tensor._keras_history
    return op._inbound_nodes[node].input_tensors[0] if _is_relu(op) else tensor


def _is_relu(op) -> bool:
    if isinstance(op, layers.Activation):
        return op.activation is keras.activations.relu
    return isinstance(op, layers.ReLU) or type(op).__name__ == "Relu"  # the second: keras.ops.relu as an operation of its own
