"""DenseNet-121/169/201 of keras.applications as chains of blocks.

Huang, Liu, van der Maaten, Weinberger: "Densely Connected Convolutional Networks", CVPR 2017. A dense layer appends 32
channels to all it has read, so behind every `*_concat` one tensor carries everything and unit granularity can cut there:
b1_1, b1_2, ... (58 blocks for DenseNet-121). The stem belongs to the first block; the transition (1x1 convolution that halves
the channels, 2x2 average pooling) to the last unit of its stage, and behind stage 4, which has none, the closing batch norm
and ReLU. Stage granularity gives b1..b4 = dense block + transition (spec A9, B = 4).
"""

import re

import keras

from amalgam_tf.errors import UserError
from amalgam_tf.models.applications import application, block_ends, with_head
from amalgam_tf.models.blocks import BlockNet

_UNIT = re.compile(r"conv(\d+)_block(\d+)_concat")
_STAGE_ENDS = {1: "pool2_pool", 2: "pool3_pool", 3: "pool4_pool", 4: "relu"}
_APPLICATIONS = {"densenet121": "DenseNet121", "densenet169": "DenseNet169", "densenet201": "DenseNet201"}


def trunk(name: str, *, input_size: int, width: float = 1.0, weights: str = "none") -> keras.Model:
    """The convolutional part of a DenseNet on [batch, input_size, input_size, 3]; total stride 32.

    Args:
        name: `densenet121`, `densenet169` or `densenet201`.
        input_size: side of the square input in pixels.
        width: factor on all channels: of the stem, the growth rate, the bottlenecks and the transitions.
        weights: `none`, `imagenet` (downloaded by Keras) or the path of a Keras weights file without the top.

    Raises:
        UserError: unknown name, weights with a width, a failed download, a file that does not fit.
    """
    if name not in _APPLICATIONS:
        raise UserError(f"unknown backbone {name!r}: choose {', '.join(_APPLICATIONS)}")
    return application(name, _APPLICATIONS[name], input_size=input_size, width=width, weights=weights)


def cuts(model: keras.Model, granularity: str) -> dict[str, str]:
    """`{block name: layer that ends it}` in order, for granularity `unit` (b{stage}_{unit}) or `stage` (b{stage}).

    Raises:
        UserError: another granularity.
    """
    units = {(int(m[1]) - 1, int(m[2])): m[0] for layer in model.layers if (m := _UNIT.fullmatch(layer.name))}
    last = {stage: unit for stage, unit in sorted(units)}
    return block_ends(units | {(stage, unit): _STAGE_ENDS[stage] for stage, unit in last.items()}, granularity)


def classifier(
    name: str, *, input_size: int, outputs: int, granularity: str, width: float = 1.0, weights: str = "none", synchronized: bool = False
) -> BlockNet:
    """A DenseNet with global average pooling and one dense layer of `outputs` float32 logits; last block `head`.

    Raises:
        UserError: as `trunk` and `cuts`.
    """
    base = trunk(name, input_size=input_size, width=width, weights=weights)
    return with_head(base, cuts(base, granularity), outputs=outputs, synchronized=synchronized)
