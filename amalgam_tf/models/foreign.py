"""Functional Keras models made elsewhere: read, laid flat, with logits at their end; and the layers behind which they can be cut.

What comes out of `remade` follows the house: one graph without nested models, every layer trainable (freezing is by variable
lists), so that its blocks can be cut, copied and trained like those of a backbone.
"""

from collections import Counter
from pathlib import Path
import re
from typing import Any, NamedTuple

import keras
from keras import layers
import numpy as np

from amalgam_tf.errors import UserError
from amalgam_tf.models.applications import MOMENTUM
from amalgam_tf.models.blocks import parameters, safe_name

_SQUASHING = {"sigmoid", "softmax"}
_AUGMENTATION = ("Rand", "AugMix", "CutMix", "MixUp")  # layers of Keras that do nothing in inference


class Remade(NamedTuple):
    """A foreign model in the form the library works with.

    Attributes:
        model: flat functional model in float32, [batch, size, size, 3] -> logits [batch, outputs].
        end: activation that was taken off its end: `sigmoid` or `softmax`; `linear` if it wrote logits already.
        size: side of its square input in pixels.
    """

    model: keras.Model
    end: str
    size: int


class Place(NamedTuple):
    """A layer behind which a model can be cut: one tensor carries everything.

    Attributes:
        layer: its name.
        kind: its class.
        shape: of its output, without the batch axis.
        parameters: of the model up to and including it.
    """

    layer: str
    kind: str
    shape: tuple[int | None, ...]
    parameters: int


def load(path: Path) -> keras.Model:
    """Reads a .keras or .h5 file that holds a whole model; code in the file is never run.

    Raises:
        UserError: no such file, no model in it, or layers that are not Keras's own.
    """
    if not path.is_file():
        raise UserError(f"there is no model file {path}: correct the path")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of many kinds and many lines, by format and by what is wrong
        text = str(error)
        if "`Lambda` layer" in text:
            raise UserError(
                f"{path} holds a Lambda layer, whose code is not run: write it as a layer of Keras or with keras.ops"
            ) from error
        if own := re.search(r"(?:Could not locate (?:class|function)|Unknown (?:layer|object)):? '([^']+)'", text):
            raise UserError(
                f"{path} holds {own[1]}, which Keras does not know: only models of Keras's own layers can be imported"
            ) from error
        if "No model config" in text:
            raise UserError(f"{path} holds weights without a model: save the whole model with model.save") from error
        raise UserError(f"{path} could not be read as a Keras model ({text.splitlines()[0][:160]}): save it as .keras or .h5") from error
    if any(isinstance(x, layers.Lambda) for x in model._flatten_layers()):
        raise UserError(
            f"{path} holds a Lambda layer, whose code does not travel with a teacher: write it as a layer of Keras or with keras.ops"
        )
    return model


def remade(model: keras.Model) -> Remade:
    """An independent copy that can be cut, copied and trained, and writes logits.

    Nested models are laid open (inner layers keep their names; one that is taken gets its model's name in front). A
    sigmoid or softmax at the end, in a dense layer or behind it, is taken off. Augmentation layers go, batch norms get our
    momentum, adapted Normalization layers keep their numbers in their config: a student is built from configs.

    Raises:
        UserError: not a functional model; several inputs or outputs; an input that is not a fixed square of three
            channels; an output that is not [batch, outputs] or not made of logits or probabilities.
    """
    graph = _graph(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise UserError(
            f"model {model.name!r} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs: give one that reads an image and "
            "writes one row of numbers"
        )
    shape = tuple(graph.inputs[0].shape[1:])
    if len(shape) != 3 or shape[0] is None or shape[0] != shape[1] or shape[2] != 3:
        raise UserError(
            f"model {model.name!r} reads {shape}, not squares of a fixed size with three channels: build it on keras.Input((96, 96, 3)) "
            "or the like and save it again"
        )
    if len(graph.outputs[0].shape) != 2 or graph.outputs[0].shape[1] is None:
        raise UserError(f"model {model.name!r} writes {tuple(graph.outputs[0].shape[1:])} an image: a teacher writes one row of numbers")
    end, dense, dropped = _end(model)
    copies: dict[int, Any] = {}
    names: set[str] = set()

    def copy(op, prefix: str):
        if id(op) not in copies:
            config = op.get_config()
            if "name" in config:
                config["name"] = _free(config["name"], prefix, names)
            if isinstance(op, layers.Layer):
                config |= {"trainable": True, "dtype": "float32"}
            if isinstance(op, layers.BatchNormalization):
                config["momentum"] = MOMENTUM
            if isinstance(op, layers.Normalization) and op.weights:
                config |= {"mean": np.asarray(op.adapt_mean).tolist(), "variance": np.asarray(op.adapt_variance).tolist()}
            if op is dense:
                config["activation"] = "linear"
            copies[id(op)] = op.__class__.from_config(config)
        return copies[id(op)]

    def run(part: keras.Model, x, prefix: str):
        def call(op, *args, **kwargs):
            first = next(iter((*args, *kwargs.values())))
            if isinstance(op, keras.Model):
                return run(op, first, safe_name(op.name))
            if id(op) in dropped or _only_augments(op, first):
                return first
            return copy(op, prefix)(*args, **kwargs)

        return _graph(part)._run_through_graph(x, call_fn=call)

    image = keras.Input(shape)
    try:
        new = keras.Model(image, keras.tree.flatten(run(model, image, ""))[0], name=safe_name(model.name))
        for old in _layers(model):
            if id(old) in copies and not isinstance(old, layers.Normalization):
                copies[id(old)].set_weights(old.get_weights())
    except (ValueError, TypeError, NotImplementedError) as error:  # a config that does not make its layer again
        raise UserError(f"model {model.name!r} cannot be made again layer by layer ({str(error).strip().splitlines()[0][:160]})") from error
    return Remade(new, end, shape[0])


def disagreement(original: keras.Model, copy: Remade, images) -> float:
    """Largest difference between what the original writes and what its remade copy writes behind the same activation.

    Args:
        original: the foreign model.
        copy: what `remade` made of it.
        images: [batch, size, size, 3], normalised as the model wants it.

    Raises:
        UserError: more than round-off.
    """
    activation = {"sigmoid": keras.ops.sigmoid, "softmax": keras.ops.softmax, "linear": lambda x: x}[copy.end]
    old = keras.ops.convert_to_numpy(keras.tree.flatten(original(images, training=False))[0]).astype(np.float32)
    new = keras.ops.convert_to_numpy(activation(copy.model(images, training=False)))
    worst, scale = float(np.abs(new - old).max()), max(1.0, float(np.abs(old).max()))
    exact = {x.compute_dtype for x in _layers(original)} <= {"float32"}  # the copy computes in float32, the original perhaps in less
    if not worst <= (1e-5 if exact else 0.05) * scale:
        raise UserError(
            f"the imported copy of model {original.name!r} writes other numbers (by {worst:.2g}): a layer of it is random or keeps a "
            "state in inference; take that layer out"
        )
    return worst


def places(model: keras.Model) -> list[Place]:
    """All layers behind which a flat functional model can be cut, in order; the last layer is none of them."""
    # In an order in which everything is computed before it is read: where a single tensor is still to be read, nothing goes past.
    nodes = [n for depth in sorted(model._nodes_by_depth, reverse=True) for n in model._nodes_by_depth[depth]]
    last_use = {id(model.outputs[0]): len(nodes)}
    for i, node in enumerate(nodes):
        last_use |= {id(x): max(i, last_use.get(id(x), 0)) for x in node.input_tensors}
    found, alive, passed, calls = [], set(), {}, Counter(id(node.operation) for node in nodes)
    for i, node in enumerate(nodes):
        alive = {t for t in alive | set(map(id, node.outputs)) if last_use.get(t, 0) > i}
        op = node.operation
        if not isinstance(op, layers.Layer):
            continue
        passed[id(op)] = parameters(op.variables)
        output = node.outputs[0]
        if calls[id(op)] == 1 and not node.is_input and alive == {id(output)} and output is not model.outputs[0]:
            found.append(Place(op.name, type(op).__name__, tuple(output.shape[1:]), sum(passed.values())))
    return found


def _graph(model: keras.Model) -> keras.Model:
    if isinstance(model, keras.Sequential) and model.built:
        return keras.Model(model.inputs, model.outputs)
    if not isinstance(model, keras.Function):
        raise UserError(f"model {model.name!r} is not functional, so it has no graph to cut: rebuild it as keras.Model(inputs, outputs)")
    return model


def _layers(model: keras.Model) -> list[layers.Layer]:
    return [x for layer in model.layers for x in (_layers(layer) if isinstance(layer, keras.Model) else [layer])]


def _only_augments(op, x) -> bool:
    """Whether an operation on `x` does nothing in inference (a RandomCrop to another size does)."""
    own = type(op).__module__.startswith("keras.src.layers.preprocessing") and type(op).__name__.startswith(_AUGMENTATION)
    return own and tuple(op.compute_output_shape(x.shape)) == tuple(x.shape)


def _free(name: str, prefix: str, taken: set[str]) -> str:
    """`name`, or if it is taken with its model's name in front, or with a number behind; notes it."""
    wanted, number = safe_name(name), 1
    if wanted in taken and prefix:
        wanted = f"{prefix}_{wanted}"
    while wanted in taken:
        number += 1
        wanted = f"{safe_name(name)}_{number}"
    taken.add(wanted)
    return wanted


def _end(model: keras.Model) -> tuple[str, Any, set[int]]:
    """(activation at the end, the dense layer that has it, ids of the operations to leave out).

    Raises:
        UserError: an end that writes neither logits nor probabilities.
    """
    tensor, dropped = model.outputs[0], set()
    while True:
        op, node_index, tensor_index = tensor._keras_history
        if isinstance(op, keras.Model):
            tensor = op.outputs[tensor_index]
            continue
        written = _activation(op)
        if isinstance(op, layers.Dense):
            if written in _SQUASHING | {"linear"}:
                return written, op, dropped
        elif written in _SQUASHING:
            return written, None, dropped | {id(op)}
        elif written == "linear":
            dropped.add(id(op))
            tensor = op._inbound_nodes[node_index].input_tensors[0]
            continue
        what = f"{type(op).__name__} {op.name!r}" + (f" with {written}" if written else "")
        raise UserError(
            f"model {model.name!r} ends in {what}, which writes neither logits nor probabilities: "
            "end it in a Dense layer with sigmoid, softmax or no activation"
        )


def _activation(op) -> str:
    """`sigmoid`, `softmax`, `linear`, ... of a layer with an activation or an operation that is one; "" otherwise."""
    if isinstance(op, layers.Dense | layers.Activation):
        return str(keras.activations.serialize(op.activation))
    return {"Sigmoid": "sigmoid", "Softmax": "softmax", "Identity": "linear"}.get(type(op).__name__, "")
