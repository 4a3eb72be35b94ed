"""Dense networks: the encoder and the decoder of Taskonomy's task bank, with which SOKA's teachers and students are built.

An image goes through a ResNet-50 v1 in the slim layout and a 3x3 convolution to a code of 8 channels at 1/16 of its side; a
decoder of 14 convolutions brings the code back to the side of the image and writes the channels of one task (spec taskonomy 3.1, 3.2;
Zamir et al., CVPR 2018). It is not the ResNet-50 of keras.applications: a stage is strided in its last unit, convolutions have no
bias, and only two stages are strided.

Layers carry the names of the TF1 variables: layer `block1_unit_1_bottleneck_v1_conv1` holds
`encoder/block1/unit_1/bottleneck_v1/conv1/weights`, and the batch norm behind it is called `..._BatchNorm`; where these scopes begin
is said by `SCOPES`.

At full size (256 px, one channel): 23,655,504 + 16,453,009 weights, 7.616 + 4.464 G multiply-adds an image.
"""

from collections.abc import Sequence

import keras
from keras import layers

from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet, safe_name

DECODER = "decoder"  # name of the block behind the code
# TF1 scope in front of the layers of a block; the blocks of the trunk are all below `encoder/`.
SCOPES = {**{f"b{stage}": "encoder/" for stage in range(1, 5)}, "code": "", DECODER: "decoder/"}

_BN = {"epsilon": 1e-5, "momentum": 0.9}
_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # units of block1..block4, channels inside a unit; it writes four times as many
_DECODER = (
    ("conv2", 1024),
    ("conv3", 1024),
    ("conv4", 512),
    ("conv5", 256),
    ("conv6", 256),
    ("conv7", 128),
    ("deconv8", 64),
    ("conv9", 64),
    ("deconv10", 32),
    ("conv11", 32),
    ("deconv12", 16),
    ("conv13", 32),
    ("deconv14", 16),
)
_STRIDED = ("block1", "block2", "deconv8", "deconv10", "deconv12", "deconv14")
# What is not strided, so that the code of a small image has places enough: at 64 px a stride of 16 would leave 4 x 4.
_UNSTRIDED = {16: (), 8: ("block2", "deconv8"), 4: ("block2", "deconv8", "block1", "deconv10")}


def encoder(
    *,
    input_size: int = 256,
    width: float = 1.0,
    output_stride: int = 16,
    code_channels: int = 8,
    synchronized: bool = False,
    residual_start: str = "ones",
) -> BlockNet:
    """[batch, input_size, input_size, 3] in -1..1 (`Preprocessing` `tf`) -> [batch, side, side, code_channels].

    The side is input_size / output_stride.

    Args:
        input_size: side of the square input in pixels, a multiple of `output_stride`.
        width: factor on the channels of all layers but the code's.
        output_stride: 16 (the task bank's), 8 (block2 not strided) or 4 (nor block1).
        code_channels: channels of the code.
        synchronized: average batch statistics over replicas.
        residual_start: initial scale of what a unit adds to its shortcut, `ones` or `zeros` (units start as the identity,
            Goyal et al. 2017: from scratch a small net learns faster so).

    Returns:
        Blocks b1 (conv1, pool1, block1), b2, b3, b4 and `code` (compress1 with batch norm and ReLU).

    Raises:
        UserError: another output stride, an input size it does not divide, a width that is not positive.
    """
    strides = _strides(output_stride)
    _check_width(width)
    if input_size < 1 or input_size % output_stride:
        raise UserError(f"input_size={input_size} is not a multiple of output_stride={output_stride}: choose one that is, such as 64")
    image = keras.Input((input_size, input_size, 3))
    x = layers.ZeroPadding2D(3, name="conv1_pad")(image)
    x = _conv_bn(x, _scaled(64, width), 7, 2, "conv1", synchronized, padding="valid")
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.MaxPooling2D(3, 2, "same", name="pool1")(x)
    ends = []
    for stage, (units, channels) in enumerate(_STAGES, 1):
        for unit in range(1, units + 1):
            stride = strides.get(f"block{stage}", 1) if unit == units else 1
            name = f"block{stage}_unit_{unit}_bottleneck_v1"
            x = _bottleneck(x, _scaled(channels, width), _scaled(4 * channels, width), stride, name, synchronized, residual_start)
        ends.append(name)
    x = _conv_bn(x, code_channels, 3, 1, "compress1", synchronized)
    x = layers.Activation("relu", name="compress1_relu")(x)
    return BlockNet.cut(keras.Model(image, x, name="encoder"), ends, ["b1", "b2", "b3", "b4", "code"])


def decoder(
    *,
    code_shape: Sequence[int],
    channels: int,
    width: float = 1.0,
    output_stride: int = 16,
    synchronized: bool = False,
    least_channels: int = 1,
    name: str = DECODER,
) -> keras.Model:
    """[batch, side, side, code channels] -> float32 [batch, side * output_stride, side * output_stride, channels] in -1..1.

    All tasks go through the same tanh, also those coded in 0..1 (depth) or beyond 1 (curvature: `dense.check_reached`). It and the
    convolution in front of it stay float32 in every precision.

    Args:
        code_shape: what the encoder writes, without the batch axis.
        channels: of the task.
        width: factor on the channels of all layers but the last.
        output_stride: that of the encoder; at 8 deconv8 is not strided, at 4 neither is deconv10.
        synchronized: average batch statistics over replicas.
        least_channels: layers of fewer are not scaled by `width`, others not below it: the last ones have 16 and 32 at full width, and an
            eighth of these carries no picture.
        name: of the Keras model.

    Raises:
        UserError: another output stride, a width that is not positive.
    """
    strides = _strides(output_stride)
    _check_width(width)
    code = keras.Input(tuple(code_shape), dtype=keras.config.dtype_policy().compute_dtype)
    x = code
    for layer, filters in _DECODER:
        convolution = layers.Conv2DTranspose if layer.startswith("deconv") else layers.Conv2D
        # Glorot's start, the default of Keras and of slim alike
        scaled = max(_scaled(filters, width), min(filters, least_channels))
        x = convolution(scaled, 3, strides.get(layer, 1), "same", use_bias=False, name=layer)(x)
        x = layers.BatchNormalization(**_BN, synchronized=synchronized, name=f"{layer}_BatchNorm")(x)
        x = layers.LeakyReLU(0.2, name=f"{layer}_relu")(x)
    x = layers.Conv2D(channels, 3, padding="same", activation="tanh", dtype="float32", name="decoder_output")(x)
    return keras.Model(code, x, name=safe_name(name))


def task_bank(
    *,
    input_size: int = 256,
    channels: int,
    width: float = 1.0,
    output_stride: int = 16,
    code_channels: int = 8,
    synchronized: bool = False,
    least_channels: int = 1,
    residual_start: str = "ones",
) -> BlockNet:
    """A whole network of the task bank: the blocks of `encoder` and `decoder` behind them; the arguments are theirs.

    Raises:
        UserError: as `encoder`.
    """
    shared = dict(width=width, output_stride=output_stride, synchronized=synchronized)
    trunk = encoder(input_size=input_size, code_channels=code_channels, residual_start=residual_start, **shared)
    last = decoder(code_shape=trunk.shapes["code"], channels=channels, least_channels=least_channels, **shared)
    return BlockNet({**{name: trunk.block(name) for name in trunk.names}, DECODER: last})


def _bottleneck(x, inner: int, outer: int, stride: int, name: str, synchronized: bool, start: str):
    shortcut = x
    if x.shape[-1] != outer:
        shortcut = _conv_bn(x, outer, 1, stride, f"{name}_shortcut", synchronized)
    elif stride > 1:
        shortcut = layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)
    y = layers.Activation("relu", name=f"{name}_conv1_relu")(_conv_bn(x, inner, 1, 1, f"{name}_conv1", synchronized))
    y = layers.Activation("relu", name=f"{name}_conv2_relu")(_conv_bn(y, inner, 3, stride, f"{name}_conv2", synchronized))
    y = _conv_bn(y, outer, 1, 1, f"{name}_conv3", synchronized, start=start)
    return layers.Activation("relu", name=name)(layers.Add(name=f"{name}_add")([shortcut, y]))


def _conv_bn(x, channels: int, kernel: int, stride: int, name: str, synchronized: bool, padding: str = "same", start: str = "ones"):
    if padding == "same" and kernel > 1 and stride > 1:  # slim's conv2d_same: alike on both sides, where TF's SAME pads at the end only
        x, padding = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"
    x = layers.Conv2D(channels, kernel, stride, padding, use_bias=False, kernel_initializer="he_normal", name=name)(x)
    return layers.BatchNormalization(**_BN, gamma_initializer=start, synchronized=synchronized, name=f"{name}_BatchNorm")(x)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _strides(output_stride: int) -> dict[str, int]:
    if output_stride not in _UNSTRIDED:
        raise UserError(f"output_stride must be 16, 8 or 4, not {output_stride!r}: 16 is the task bank's, smaller ones suit smaller images")
    return {name: 1 if name in _UNSTRIDED[output_stride] else 2 for name in _STRIDED}


def _check_width(width: float) -> None:
    if not width > 0:
        raise UserError(f"width={width} is no factor on channels: choose one above 0")
