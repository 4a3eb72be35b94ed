"""Group-stack generators: noise to features of a teacher's blocks, in reverse, and at last to an image (DGAN section 3, spec G4).

A generator is a chain of groups g1..gB, a `BlockNet` like every other net: g1 reads a code z and writes what the teacher's block B - 1
writes, every further group goes one block back, and gB writes the image. `taps` gives all of them in one pass.

The paper gives no layers. Ours (spec G4): a dense layer or doubled maps, convolutions, batch norm; feature groups end in a ReLU where the
teachers' blocks do (a ResNet's all; a DenseNet's transitions end in a pooling, and so their groups in the batch norm); the image ends in
tanh and a batch norm without scale and shift, as DAFL's, so that over a batch each of its channels has mean 0 and variance 1: the range of
images normalised as `centred` (`Preprocessing.named`). The last layer turns that into PIXELS on the scale 0..255, not cut off there:
whatever reads generated images then goes through its own `Preprocessing`, like on real ones; for a `centred` net the two cancel.
"""

from collections.abc import Collection, Mapping, Sequence
import math

import keras
from keras import layers

from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet

MEAN, STD = 127.5, 64.0  # pixels of a generated image: those of `centred` images, read backwards
_EPSILON = 1e-5
_MOMENTUM = 0.9  # of the published generators; Keras's 0.99 is still on its way after a few hundred steps
_DAFL = (128, 128, 64)  # channels of DAFL's generator: dense layer, two convolutions
_LEAST = 8  # channels


def generator(
    shapes: Mapping[str, Sequence[int]],
    image_size: int,
    signed: Collection[str] = (),
    *,
    z_dim: int = 256,
    width: float = 1.0,
    bn_eps: float = _EPSILON,
    synchronized: bool = False,
) -> BlockNet:
    """A generator for the blocks of a trunk.

    Args:
        shapes: of the trunk's blocks, in order (`BlockNet.shapes` without the head): maps [height, width, channels]. The last one is
            imitated by nothing; with one block there is a single group: DAFL's generator.
        image_size: side of the square image in pixels.
        signed: those of the blocks that write negative features too.
        z_dim: length of a code.
        width: factor on the channels inside a group; those between groups are the teacher's. 1 is the table of spec G4 for a ResNet-50 or
            -101: as many channels as the group writes (half of them in the dense layer; for the image a half and a quarter of the first
            block's); thin nets want more.
        bn_eps: epsilon of the batch norms inside the groups. 1e-5; DAFL's published code has 0.8, probably a slip (spec 5.1).
        synchronized: batch statistics over all replicas.

    Returns:
        Groups g1..gB. g1 reads [batch, z_dim]; gB writes float32 images [batch, image_size, image_size, 3], RGB on the scale 0..255 but
        unbounded.

    Raises:
        UserError: a block that writes no map of known size, or sizes out of range.
    """
    if z_dim < 1 or not width > 0 or not bn_eps > 0:
        raise UserError(f"gen.z_dim={z_dim}, gen.width={width} and gen.bn_eps={bn_eps} must all be greater than 0")
    if odd := [name for name, shape in shapes.items() if len(shape) != 3 or None in shape]:
        raise UserError(f"block {odd[0]} writes {tuple(shapes[odd[0]])}: a generator imitates maps [height, width, channels] of known size")
    make = _Layers(width, bn_eps, synchronized)
    groups, source = {}, (z_dim,)
    for block in list(shapes)[-2::-1]:  # B-1, B-2, .., 1
        name, shape = f"g{len(groups) + 1}", tuple(shapes[block])
        groups[name] = _feature_group(make, source, shape, "linear" if block in signed else "relu", name)
        source = shape
    name = f"g{len(groups) + 1}"
    groups[name] = _image_group(make, source, image_size, name)
    return BlockNet(groups)


def unmoved(net: BlockNet, name: str) -> BlockNet:
    """A copy that may be run with `training=True` and stays bit for bit as it is (DGAN step II, `generated.batchnorm=batch`).

    Its batch norms normalise by the batch, and what they store keeps its value: with momentum 1 nothing is added to it.
    """
    copy = net.copy(name)
    for block in copy.names:
        for layer in copy.block(block)._flatten_layers(include_self=False):
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 1.0
    return copy


class _Layers:
    """The layers of a group, named in order."""

    def __init__(self, width: float, bn_eps: float, synchronized: bool):
        self.width, self.bn_eps, self.synchronized = width, bn_eps, synchronized

    def channels(self, count: float) -> int:
        return max(_LEAST, round(self.width * count))

    def norm(self, x, name: str, inner: bool = True, affine: bool = True):
        more = {} if affine else {"center": False, "scale": False, "dtype": "float32"}
        epsilon = self.bn_eps if inner else _EPSILON
        return layers.BatchNormalization(momentum=_MOMENTUM, epsilon=epsilon, synchronized=self.synchronized, name=f"{name}_bn", **more)(x)

    def convolution(self, x, channels: int, name: str, end: str):
        # No bias: the batch norm behind takes it out again.
        x = self.norm(layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(x), name)
        if end == "linear":
            return x
        return layers.ReLU(name=f"{name}_relu")(x) if end == "relu" else layers.LeakyReLU(negative_slope=0.2, name=f"{name}_leaky")(x)

    def dense(self, code, height: int, width: int, channels: int):
        """The code as a map: a dense layer and a batch norm."""
        x = layers.Dense(height * width * channels, use_bias=False, name="dense")(code)
        return self.norm(layers.Reshape((height, width, channels), name="map")(x), "dense", inner=False)

    def doubled(self, x, height: int, width: int, name: str):
        """Twice the size, nearest neighbour, but no more than so many pixels (odd sizes lose a row)."""
        x = layers.UpSampling2D(2, name=f"{name}_up")(x)
        over = (max(0, x.shape[1] - height), max(0, x.shape[2] - width))
        return layers.Cropping2D(((0, over[0]), (0, over[1])), name=f"{name}_crop")(x) if any(over) else x


def _feature_group(make: _Layers, source: tuple[int, ...], shape: tuple[int, ...], end: str, name: str) -> keras.Model:
    """z or a map -> a map: doubled as often as it takes, two convolutions (one behind a dense layer), `end`: relu or linear."""
    height, width, channels = shape
    x = start = keras.Input(source)
    if len(source) == 1:
        x = make.dense(x, math.ceil(height / 2), math.ceil(width / 2), make.channels(channels / 2))
        inner = []
    else:
        inner = [make.channels(channels)]
    sizes = _sizes(x.shape[1:3], (height, width))
    outputs = [*inner, *([inner[-1] if inner else make.channels(channels)] * (len(sizes) - 1 - len(inner))), channels]
    for i, count in enumerate(outputs):
        if i < len(sizes):
            x = make.doubled(x, *sizes[i], f"c{i + 1}")
        x = make.convolution(x, count, f"c{i + 1}", end if i == len(outputs) - 1 else "leaky")
    return keras.Model(start, x, name=name)


def _image_group(make: _Layers, source: tuple[int, ...], size: int, name: str) -> keras.Model:
    """z or a map -> an image: two convolutions, doubled in front of each where it takes that, then one to three channels."""
    x = start = keras.Input(source)
    if len(source) == 1:
        first, *inner = (make.channels(c) for c in _DAFL)
        x = make.dense(x, math.ceil(size / 4), math.ceil(size / 4), first)
    else:
        inner = [make.channels(source[-1] / 2), make.channels(source[-1] / 4)]
    sizes = _sizes(x.shape[1:3], (size, size))
    inner += inner[-1:] * (len(sizes) - len(inner))
    for i, count in enumerate(inner):
        if i < len(sizes):
            x = make.doubled(x, *sizes[i], f"c{i + 1}")
        x = make.convolution(x, count, f"c{i + 1}", "leaky")
    x = layers.Conv2D(3, 3, padding="same", activation="tanh", dtype="float32", name="image_conv")(x)
    x = make.norm(x, "image", inner=False, affine=False)
    return keras.Model(start, layers.Rescaling(STD, MEAN, dtype="float32", name="pixels")(x), name=name)


def _sizes(have: Sequence[int], want: Sequence[int]) -> list[tuple[int, int]]:
    """The sizes on the way from one map to another, doubled each time; the last one is the wanted one.

    Raises:
        UserError: a map that would have to shrink.
    """
    if any(h > w for h, w in zip(have, want, strict=True)):
        raise UserError(f"a generator makes maps larger, but {tuple(have)} comes before {tuple(want)}: cut the teachers at other layers")
    sizes = []
    while tuple(have) != tuple(want):
        have = tuple(min(2 * h, w) for h, w in zip(have, want, strict=True))
        sizes.append(have)
    return sizes
