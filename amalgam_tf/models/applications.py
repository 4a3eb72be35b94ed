"""What the backbones share: the networks of keras.applications with their ready weights, block names, and the classifier on top."""

from collections.abc import Mapping

import keras
from keras import layers

from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet, rebuilt

MOMENTUM = 0.9  # of batch norm; at Keras's 0.99 the stored statistics lag hundreds of steps behind, longer than a block is trained


def application(name: str, constructor: str, *, input_size: int, width: float, weights: str) -> keras.Model:
    """A network of keras.applications without its top.

    Args:
        name: what users call it.
        constructor: what keras.applications calls it.
        input_size: side of the square input in pixels.
        width: factor on all channels.
        weights: `none`, `imagenet` (downloaded by Keras) or the path of a Keras weights file without the top.

    Raises:
        UserError: an input below 32 pixels, a width with ready weights, a failed download, a file that does not fit.
    """
    if width != 1 and weights != "none":
        raise UserError(f"ready weights fit {name} only at width 1, not {width}: set width=1 or weights=none")
    if input_size < 32:
        raise UserError(
            f"{name} needs an input of at least 32 pixels, not {input_size}: raise the size or use a CIFAR-style net such as resnet14"
        )
    make = getattr(keras.applications, constructor)
    options = dict(include_top=False, input_shape=(input_size, input_size, 3), name=name)
    if weights == "none":
        model = make(weights=None, **options)
        return rebuilt(model, width=width) if width != 1 else model
    try:
        return make(weights=weights, **options)
    except Exception as error:  # Keras raises a plain Exception for a failed download and ValueErrors of many lines for a wrong file
        if weights == "imagenet":
            raise UserError(
                f"the ImageNet weights of {name} could not be downloaded ({str(error).splitlines()[0][:120]}): fetch the no-top .h5 file "
                "elsewhere and pass its path instead of imagenet"
            ) from error
        raise UserError(
            f"{weights} could not be loaded as weights of {name} ({str(error).splitlines()[0][:160]}): pass a Keras no-top weights file"
        ) from error


def block_ends(units: Mapping[tuple[int, int], str], granularity: str) -> dict[str, str]:
    """`{block name: layer that ends it}` in order.

    Args:
        units: (stage, unit), both from 1 -> the layer that ends the unit.
        granularity: `unit` (blocks b{stage}_{unit}) or `stage` (blocks b{stage}, which end with their last unit).

    Raises:
        UserError: another granularity.
    """
    if granularity == "unit":
        return {f"b{stage}_{unit}": units[stage, unit] for stage, unit in sorted(units)}
    if granularity == "stage":
        return {f"b{stage}": units[stage, unit] for stage, unit in sorted(units)}  # the last unit of a stage wins
    raise UserError(f"granularity must be unit or stage, not {granularity!r}")


def with_head(trunk: keras.Model, ends: Mapping[str, str], *, outputs: int, synchronized: bool) -> BlockNet:
    """A trunk with global average pooling and one dense layer of `outputs` float32 logits, cut into blocks; the last is `head`.

    Args:
        trunk: [batch, height, width, 3] -> [batch, height', width', channels]; the momentum of its batch norms is set.
        ends: block name -> layer of the trunk that ends it.
        outputs: number of logits.
        synchronized: average batch statistics over replicas.
    """
    for layer in trunk.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    x = layers.GlobalAveragePooling2D(name="avg_pool")(trunk.output)
    model = keras.Model(trunk.input, layers.Dense(outputs, dtype="float32", name="logits")(x), name=trunk.name)
    if synchronized:  # last, and with the values of the plain one: the start must not depend on the strategy
        values = model.get_weights()
        model = rebuilt(model, synchronized=True)
        model.set_weights(values)
    return BlockNet.cut(model, list(ends.values()), [*ends, "head"])
