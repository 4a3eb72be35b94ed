"""Batch norm folded into the convolution in front of it, for parts of a network that only ever run in inference.

gamma (W x + b - mean) / sqrt(variance + epsilon) + beta is one convolution with other weights: 4 to 10 % of an AFK step, and less than half
of its tracing time. The folded copy has its own variables: it must be made after the last training step of what it copies.
"""

from collections import Counter

import keras
from keras import layers
import numpy as np

from amalgam_tf.models.blocks import BlockNet


def folded(net: BlockNet, start: str | int | None = None, stop: str | int | None = None) -> BlockNet:
    """The blocks start..stop (inclusive) with every batch norm that directly follows a convolution folded into it.

    Batch norms elsewhere (DenseNet's, in front of convolutions) stay. The result is for inference: with `training=True` it computes
    the same. Outputs equal the original's in inference up to float32 round-off (1e-6 relative).
    """
    part = net.part(start, stop)
    return BlockNet({name: folded_model(part.block(name)) for name in part.names})


def folded_model(model: keras.Model) -> keras.Model:
    """As `folded`, for one functional model."""
    pairs = foldable(model)
    names = {bn.name: conv.name for bn, conv in pairs}

    def clone(layer):
        if isinstance(layer, keras.Model):
            return folded_model(layer)
        config = layer.get_config()
        if layer.name in names.values():
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    def call(layer, *args, **kwargs):
        return args[0] if layer.name in names else layer(*args, **kwargs)

    new = keras.models.clone_model(model, clone_function=clone, call_function=call)
    weights = {conv.name: _merged(conv, bn) for bn, conv in pairs}
    for layer in model.layers:
        if layer.name not in names and not isinstance(layer, keras.Model) and getattr(layer, "weights", None):
            new.get_layer(layer.name).set_weights(weights.get(layer.name, layer.get_weights()))
    return keras.Model(new.inputs[0], new.output, name=model.name)


def foldable(model: keras.Model) -> list[tuple[layers.BatchNormalization, layers.Conv2D]]:
    """The pairs of a functional model: a batch norm and the linear convolution that feeds it and nothing else."""
    nodes = [
        node for depth in model._nodes_by_depth.values() for node in depth
    ]  # of this model alone: blocks cut from one net share layers
    calls = Counter(id(node.operation) for node in nodes)
    readers = Counter(id(x) for node in nodes for x in node.input_tensors) + Counter(id(t) for t in model.outputs)
    writers = {id(x): node.operation for node in nodes for x in node.output_tensors}
    pairs = []
    for node in nodes:
        bn = node.operation
        if not isinstance(bn, layers.BatchNormalization) or bn.axis not in (-1, 3):
            continue
        read = id(node.input_tensors[0])
        conv = writers.get(read)
        once = readers[read] == calls[id(bn)] == calls[id(conv)] == 1
        if once and type(conv) is layers.Conv2D and conv.activation is keras.activations.linear:
            pairs.append((bn, conv))
    return pairs


def _merged(conv: layers.Conv2D, bn: layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of the one convolution that does both, computed in float64."""
    mean, variance = (np.asarray(v.value, np.float64) for v in (bn.moving_mean, bn.moving_variance))
    scale = (np.asarray(bn.gamma.value, np.float64) if bn.scale else 1.0) / np.sqrt(variance + bn.epsilon)
    bias = np.asarray(conv.bias.value, np.float64) if conv.use_bias else 0.0
    shift = (np.asarray(bn.beta.value, np.float64) if bn.center else 0.0) + (bias - mean) * scale
    return [np.asarray(np.asarray(conv.kernel.value, np.float64) * scale, np.float32), np.asarray(shift, np.float32)]
