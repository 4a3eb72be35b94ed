"""Image operations: decoding, resizing, the two views, random crops, and each network's normalisation.

The same functions serve the caches, the training batches and the exported SavedModel, so a file means the same pixels
everywhere. Images are RGB in 0..255 until a network's own `Preprocessing` is applied.
"""

from dataclasses import asdict, dataclass
import math

import tensorflow as tf

from amalgam_tf.errors import UserError


@dataclass(frozen=True)
class Preprocessing:
    """What a network wants to read.

    Attributes:
        size: side of the square input in pixels.
        order: `rgb` or `bgr`.
        mean: per channel in `order`, on the scale 0..255.
        std: per channel in `order`, on the scale 0..255.
    """

    size: int
    order: str = "rgb"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (64.0, 64.0, 64.0)

    def __post_init__(self):
        numbers = all(_three_numbers(v) for v in (self.mean, self.std)) and min(self.std) > 0
        if self.order not in ("rgb", "bgr") or not numbers:
            raise UserError(f"preprocessing needs order rgb or bgr, three means and three positive stds, not {asdict(self)}")
        if type(self.size) is not int or self.size < 1:
            raise UserError(f"preprocessing needs a size in pixels, a whole number from 1 on, not {self.size!r}")
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))

    @classmethod
    def named(cls, name: str, size: int) -> "Preprocessing":
        """One of the usual ones.

        `centred` (own nets: roughly -2..2); those of keras.applications: `caffe` (ResNets: BGR minus ImageNet mean), `torch`
        (DenseNets: RGB by ImageNet mean and std), `tf` (-1..1); `unit` (0..1); `none` (0..255: the network scales by itself).

        Raises:
            UserError: another name.
        """
        known = {
            "centred": {},
            "torch": dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
            "caffe": dict(order="bgr", mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0)),
            "tf": dict(std=(127.5, 127.5, 127.5)),
            "unit": dict(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
            "none": dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        }
        if name not in known:
            raise UserError(f"unknown normalisation {name!r}: choose {', '.join(known)}")
        return cls(size, **known[name])

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> "Preprocessing":
        """What `to_json` wrote.

        Raises:
            UserError: other keys, or values that do not fit.
        """
        if not isinstance(data, dict) or "size" not in data or set(data) - set(cls.__dataclass_fields__):
            raise UserError(f"preprocessing needs size and may have order, mean and std, not {str(data)[:60]!r}")
        return cls(**data)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """[batch, size, size, 3] RGB in 0..255, any dtype -> float32 of the same shape as the network wants it.

        The row trick: scale and shift as [width * 3] rows, 5.7x faster on CPU than as [3] vectors (measured).
        """
        height, width = images.shape[1], images.shape[2]
        x = tf.cast(images, tf.float32)
        x = tf.reverse(x, [-1]) if self.order == "bgr" else x
        scale = tf.constant([1 / s for s in self.std] * width, tf.float32)
        shift = tf.constant([-m / s for m, s in zip(self.mean, self.std, strict=True)] * width, tf.float32)
        return tf.reshape(tf.reshape(x, (-1, height, width * 3)) * scale + shift, (-1, height, width, 3))


def _three_numbers(values: object) -> bool:
    fits = isinstance(values, list | tuple) and len(values) == 3
    return fits and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def resize(images: tf.Tensor, size: int, fit: str = "squeeze") -> tf.Tensor:
    """[..., height, width, 3] in 0..255 -> uint8 [..., size, size, 3]; antialiased.

    `squeeze` does not keep the aspect ratio and cuts nothing off; `crop` takes the central square, which is what resizing the short side
    and a centre crop come to within one pixel of the result.
    """
    if fit == "crop":
        height, width = tf.shape(images)[-3], tf.shape(images)[-2]
        side = tf.minimum(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side, :]
    resized = tf.image.resize(tf.cast(images, tf.float32), (size, size), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def decode_whole(data: tf.Tensor) -> tf.Tensor:
    """Bytes of one JPEG, PNG, GIF (first frame) or BMP file -> uint8 [height, width, 3].

    A file that was cut off is an error, whatever the format (measured at every byte). A JPEG with wrong bytes inside often is none: the
    decoder goes on, as Pillow's does.
    """
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return image


def decode(data: tf.Tensor, size: int, fit: str = "squeeze") -> tf.Tensor:
    """Bytes of one image file as `decode_whole` takes it -> uint8 [size, size, 3], brought to a square as by `resize`."""
    resized = resize(decode_whole(data), size, fit)
    resized.set_shape((size, size, 3))
    return resized


def flip(images: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    """Mirrors [batch, height, width, channels] left to right where `flags` [batch] is true."""
    return tf.where(tf.cast(flags, tf.bool)[:, None, None, None], tf.reverse(images, [2]), images)


def crop(images: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts `boxes` [batch, 4] (top, left, bottom, right in 0..1) out of the images and scales them bilinearly to `size`."""
    return tf.image.crop_and_resize(images, boxes, tf.range(tf.shape(images)[0]), (size, size))
