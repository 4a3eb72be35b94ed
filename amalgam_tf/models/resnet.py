"""ResNets as chains of blocks: ResNet-50/101/152 of keras.applications, ResNet-18, and the small CIFAR-style ones.

Every residual unit ends in a layer called `conv{stage + 1}_block{unit}_out` (the names of keras.applications), so one
rule cuts them all: unit granularity gives b1_1, b1_2, ... (16 blocks for ResNet-50, spec A9), stage granularity b1..b4.
The stem belongs to the first block. Units are He et al., CVPR 2016, option B shortcuts (1x1 convolution), post-activation.
"""

import re

import keras
from keras import layers

from amalgam_tf.errors import UserError
from amalgam_tf.models.applications import application, block_ends, with_head
from amalgam_tf.models.blocks import BlockNet

_UNIT = re.compile(r"conv(\d+)_block(\d+)_out")
_APPLICATIONS = {"resnet50": "ResNet50", "resnet101": "ResNet101", "resnet152": "ResNet152"}
_BN = {"epsilon": 1.001e-5}  # as keras.applications


def trunk(name: str, *, input_size: int, width: float = 1.0, weights: str = "none") -> keras.Model:
    """The convolutional part of a ResNet on [batch, input_size, input_size, 3].

    Args:
        name: `resnet50`, `resnet101`, `resnet152`, `resnet18` (ImageNet stem, total stride 32) or `resnet8`, `resnet14`, `resnet20`,
            ... (CIFAR stem, 3 stages of (depth - 2) / 6 units, 16-32-64 channels, total stride 4).
        input_size: side of the square input in pixels.
        width: factor on all channels (a ResNet-18 with 90 channels in its first stage has width 90 / 64).
        weights: `none`, `imagenet` (downloaded by Keras) or the path of a Keras weights file without the top.

    Raises:
        UserError: unknown name, weights that do not exist for it, a failed download, a file that does not fit.
    """
    if name in _APPLICATIONS:
        return application(name, _APPLICATIONS[name], input_size=input_size, width=width, weights=weights)
    if weights != "none":
        raise UserError(f"there are no ready weights for {name}: set weights=none, or use {' or '.join(_APPLICATIONS)}")
    if name == "resnet18":
        return _basic_net(name, input_size, [2, 2, 2, 2], round(64 * width), imagenet_stem=True)
    depth = re.fullmatch(r"resnet(\d+)", name)
    if not depth or (int(depth[1]) - 2) % 6 or int(depth[1]) < 8:
        raise UserError(
            f"unknown backbone {name!r}: choose {', '.join(_APPLICATIONS)}, resnet18 or a CIFAR-style resnet8, resnet14, resnet20, ..."
        )
    return _basic_net(name, input_size, [(int(depth[1]) - 2) // 6] * 3, round(16 * width), imagenet_stem=False)


def cuts(model: keras.Model, granularity: str) -> dict[str, str]:
    """`{block name: layer that ends it}` in order, for granularity `unit` (b{stage}_{unit}) or `stage` (b{stage}).

    Raises:
        UserError: another granularity.
    """
    return block_ends({(int(m[1]) - 1, int(m[2])): m[0] for layer in model.layers if (m := _UNIT.fullmatch(layer.name))}, granularity)


def classifier(
    name: str, *, input_size: int, outputs: int, granularity: str, width: float = 1.0, weights: str = "none", synchronized: bool = False
) -> BlockNet:
    """A ResNet with global average pooling and one dense layer of `outputs` float32 logits; last block `head`."""
    base = trunk(name, input_size=input_size, width=width, weights=weights)
    return with_head(base, cuts(base, granularity), outputs=outputs, synchronized=synchronized)


def _basic_net(name: str, input_size: int, units: list[int], width: int, *, imagenet_stem: bool) -> keras.Model:
    image = keras.Input((input_size, input_size, 3))
    if imagenet_stem:
        x = layers.ZeroPadding2D(3, name="conv1_pad")(image)
        x = _conv_bn(x, width, 7, 2, "conv1", padding="valid")
        x = layers.Activation("relu", name="conv1_relu")(x)
        x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    else:
        x = layers.Activation("relu", name="conv1_relu")(_conv_bn(image, width, 3, 1, "conv1"))
    for stage, count in enumerate(units):
        for unit in range(count):
            stride = 2 if stage > 0 and unit == 0 else 1
            x = _basic_unit(x, width * 2**stage, stride, f"conv{stage + 2}_block{unit + 1}")
    return keras.Model(image, x, name=name)


def _basic_unit(x, channels: int, stride: int, name: str):
    shortcut = x
    if stride != 1 or x.shape[-1] != channels:
        shortcut = _conv_bn(x, channels, 1, stride, f"{name}_0")
    y = layers.Activation("relu", name=f"{name}_1_relu")(_conv_bn(x, channels, 3, stride, f"{name}_1"))
    y = _conv_bn(y, channels, 3, 1, f"{name}_2")
    return layers.Activation("relu", name=f"{name}_out")(layers.Add(name=f"{name}_add")([shortcut, y]))


def _conv_bn(x, channels: int, kernel: int, stride: int, name: str, padding: str = "same"):
    if padding == "same" and kernel > 1 and stride > 1:  # symmetric padding as in the original; TF's SAME shifts by a pixel
        x, padding = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"
    x = layers.Conv2D(channels, kernel, stride, padding, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv")(x)
    return layers.BatchNormalization(**_BN, name=f"{name}_bn")(x)
