"""Codecs of dense tasks: a file's integers <-> the numbers a network writes <-> physical units.

One row a Taskonomy domain, after the task bank's training code (spec/taskonomy 3.4):

* raw: what the PNG holds, uint8 or uint16; a z-buffer in 1/512 m, 65535 where nothing was measured;
* code: what a network is trained to write. Depth: ln(1 + raw) / ln(65536) in [0, 1]. Everything else: (raw - mean) / std, which is
  [-1, 1] over the coded range; only `principal_curvature` has measured means and deviations instead, and goes beyond what tanh reaches (the
  task bank's own network ends in tanh all the same, and so stays within a deviation of the mean);
* physical: metres, unit vectors, or the share of the coded range in [0, 1].

NumPy; TensorFlow is imported only where something is resized or a tensor comes in, so that a wrong config is told so without it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from amalgam_tf.errors import UserError, did_you_mean
from amalgam_tf.tasks import Task

LEVELS = 65536  # of a 16-bit z-buffer
PER_METRE = 512
INVALID = 65535  # raw depth: no reading
FIRST_INVALID = 64500  # raw depth from here on is no reading (126 m)
BLUR = 4 / 256  # sigma of the blurred maps, as a share of the picture's side

_WHOLE = 0.99  # a resized pixel is valid if this share of what it was made of is
_CHUNK = 64  # maps encoded at once, so that thousands need no memory beyond the result


@dataclass(frozen=True)
class Codec:
    """How one dense task is written.

    Attributes:
        name: the Taskonomy domain.
        channels: their names; a code has as many.
        kind: `depth` (metres), `normal` (unit vectors) or `map` (share of a range): which metrics fit.
        bits: of a raw integer, 8 or 16.
        unit: of what `decode` gives, in words.
        masked: the z-buffer decides which pixels count, in training and in metrics.
        mean: raw value that codes 0, a channel; empty for depth.
        std: raw values a unit of the code, a channel; empty for depth.
        top: raw value that is 1 in physical units (maps).
        clip: larger raw values than `top` count as `top`; without it their code goes beyond 1.
        blur: the code is blurred after resizing, with a Gaussian of `BLUR` times the side.
        activation: what a network that learns from files must end with to reach the codes: `tanh` or `linear`.
        file_channels: how many channels a PNG of it may have; the first ones are taken.
    """

    name: str
    channels: tuple[str, ...]
    kind: str
    bits: int
    unit: str
    masked: bool
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    top: float = 1.0
    clip: bool = False
    blur: bool = False
    activation: str = "tanh"
    file_channels: tuple[int, ...] = ()

    @property
    def dtype(self) -> np.dtype:
        """uint8 or uint16."""
        return np.dtype(f"uint{self.bits}")

    def encode(self, raw: np.ndarray, size: int) -> np.ndarray:
        """Raw integers to codes: mapping, then bilinear resizing (antialiased where it shrinks), then the blur.

        Args:
            raw: uint8 or uint16 [n, height, width, c]. A map that is not square is squeezed.
            size: height and width of the result; maps of this size keep every value (but for the blur).

        Returns:
            float32 [n, size, size, c]: depth in [0, 1], maps and normals from -1 to 1 (`edge_occlusion` beyond 1), curvature unbounded.

        Raises:
            UserError: another type or number of channels.
        """
        if raw.dtype != self.dtype or raw.ndim != 4 or raw.shape[-1] != len(self.channels):
            raise UserError(
                f"raw maps of {self.name} must be {self.dtype} [n, height, width, {len(self.channels)}], "
                f"not {raw.dtype} {list(raw.shape)}: convert them with the codec's to_raw"
            )
        codes = np.empty((len(raw), size, size, len(self.channels)), np.float32)
        for rows in _runs(len(raw)):
            codes[rows] = self._blurred(_resized(self._coded(raw[rows]), size))
        return codes

    def _coded(self, raw: np.ndarray) -> np.ndarray:
        if self.kind == "depth":
            return _LOG[raw]
        raw = np.minimum(raw, np.float32(self.top)) if self.clip else raw.astype(np.float32)
        return (raw - np.float32(self.mean)) / np.float32(self.std)

    def _blurred(self, codes: np.ndarray) -> np.ndarray:
        if not self.blur:
            return codes
        from scipy import ndimage  # here: only this codec needs it

        sigma = BLUR * codes.shape[1]
        return ndimage.gaussian_filter(codes, (0, sigma, sigma, 0))  # mirrored borders and 4 sigma wide, as in the task bank

    def decode(self, code: Any) -> Any:
        """A network's codes to physical units: the inverse of `encode` wherever nothing was resized, clipped or blurred.

        Args:
            code: float32 [..., c], a NumPy array or a tensor (also while tracing a SavedModel); any values.

        Returns:
            The same type and shape. Depth: metres in [0, 128] (65535 / 512); codes outside [0, 1] count as its ends. Normal: unit vectors
            (zero stays zero). Else: the share of the coded range, clipped to [0, 1].
        """
        if self.kind == "depth":
            return (float(LEVELS) ** _clipped(code, 0.0, 1.0) - 1) / PER_METRE
        if self.kind == "normal":
            return code / _norm(code)
        scale, shift = np.float32(self.std) / np.float32(self.top), np.float32(self.mean) / np.float32(self.top)
        return _clipped(code * scale + shift, 0.0, 1.0)

    def to_raw(self, physical: np.ndarray) -> np.ndarray:
        """Physical units to the integers of a file, the nearest ones.

        Args:
            physical: what `decode` gives, [..., c]. Depth in metres: NaN, infinity and everything not above 0 mean no reading.

        Returns:
            uint8 or uint16 of the same shape; a depth that was read lies in 1..65534, no reading is 65535.
        """
        physical = np.asarray(physical, np.float64)
        if self.kind == "depth":
            read = np.isfinite(physical) & (physical > 0)
            raw = np.clip(np.rint(np.where(read, physical, 1) * PER_METRE), 1, INVALID - 1)
            return np.where(read, raw, INVALID).astype(self.dtype)
        raw = (physical + 1) / 2 * self.top if self.kind == "normal" else physical * self.top
        return np.clip(np.rint(raw), 0, 2**self.bits - 1).astype(self.dtype)


_LOG = (np.log1p(np.arange(LEVELS)) / np.log(LEVELS)).astype(np.float32)  # a table: a logarithm a pixel is ten times slower


def _depth(name: str) -> Codec:
    return Codec(name, ("depth",), "depth", 16, "metres", masked=True, file_channels=(1,))


def _map(name: str, channels: tuple[str, ...], bits: int, *, share: float = 1.0, **options: Any) -> Codec:
    """[0, share] of the file's range -> [-1, 1]."""
    top = share * (2**bits - 1)
    half = (top / 2,) * len(channels)
    options = {"kind": "map", "unit": "share of the coded range", "file_channels": (len(channels),), **options}
    return Codec(name, channels, bits=bits, mean=half, std=half, top=top, **options)


CODECS: dict[str, Codec] = {
    c.name: c
    for c in (
        _depth("depth_zbuffer"),
        _depth("depth_euclidean"),
        _map("normal", ("x", "y", "z"), 8, kind="normal", unit="unit vectors, x right, y up, z towards the camera", masked=True),
        _map("edge_texture", ("edge",), 16, share=0.08, clip=True, masked=False),
        _map("edge_occlusion", ("edge",), 16, share=0.00625, blur=True, masked=True),
        _map("keypoints2d", ("keypoint",), 16, share=0.005, clip=True, masked=False),
        _map("keypoints3d", ("keypoint",), 16, masked=True),
        _map("reshading", ("grey",), 8, masked=True, file_channels=(1, 3)),
        Codec(
            **dict(name="principal_curvature", channels=("first", "second"), kind="map", bits=8, unit="share of the coded range"),
            **dict(masked=True, mean=(123.572, 120.1), std=(31.922, 21.658), top=255.0, activation="linear", file_channels=(3,)),
        ),
        _map("autoencoding", ("red", "green", "blue"), 8, masked=False),
    )
}


def get(name: str) -> Codec:
    """The codec of this name.

    Raises:
        UserError: there is none.
    """
    if name not in CODECS:
        raise UserError(f"there is no codec {name!r} for dense tasks: {did_you_mean(name, CODECS)}")
    return CODECS[name]


def task(name: str) -> Task:
    """The dense task of a codec, under the codec's name.

    Raises:
        UserError: there is none.
    """
    return Task(name, kind="dense", head="dense", labels=get(name).channels, codec=name)


def valid(raw_depth: np.ndarray, size: int) -> np.ndarray:
    """Which pixels count: raw z-buffer below 64500, resized as the maps are, and at least 0.99 of it (spec/taskonomy 3.4).

    Args:
        raw_depth: uint16 [n, height, width, 1].
        size: height and width of the result.

    Returns:
        uint8 [n, size, size]: 1 where every neighbour that the resized maps are made of is valid, nearly; else 0.

    Raises:
        UserError: another type or number of channels.
    """
    if raw_depth.dtype != np.uint16 or raw_depth.ndim != 4 or raw_depth.shape[-1] != 1:
        raise UserError(f"a raw z-buffer must be uint16 [n, height, width, 1], not {raw_depth.dtype} {list(raw_depth.shape)}")
    mask = np.empty((len(raw_depth), size, size), np.uint8)
    for rows in _runs(len(raw_depth)):
        mask[rows] = _resized((raw_depth[rows] < FIRST_INVALID).astype(np.float32), size)[..., 0] >= _WHOLE
    return mask


def mirrored(name: str, maps: Any, flags: Any) -> Any:
    """Codes of mirrored pictures: flipped left to right where asked, and what points right then points left.

    Only the x component of normals changes its sign: a code of 2 v / 255 - 1 is negated without loss. Principal curvatures are scalars of
    the surface and keep their signs, as do all other maps.

    Args:
        name: of the codec.
        maps: float tensor [batch, height, width, c] of codes.
        flags: bool or integers [batch]; true mirrors.

    Returns:
        A tensor as `maps`.

    Raises:
        UserError: no such codec.
    """
    import tensorflow as tf

    turned = tf.reverse(maps, [2])
    if get(name).kind == "normal":
        turned *= tf.constant([-1, 1, 1], maps.dtype)
    return tf.where(tf.cast(flags, tf.bool)[:, None, None, None], turned, maps)


def _runs(n: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, n, _CHUNK))


def _resized(maps: np.ndarray, size: int) -> np.ndarray:
    """float32 [n, height, width, c] -> [n, size, size, c]; the very same numbers where nothing changes."""
    if maps.shape[1:3] == (size, size):
        return maps
    import tensorflow as tf

    return tf.image.resize(maps, (size, size), antialias=True).numpy()  # antialias changes nothing where it enlarges


def _clipped(x: Any, low: float, high: float) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return np.clip(x, low, high)
    import tensorflow as tf

    return tf.clip_by_value(x, low, high)


def _norm(x: Any) -> Any:
    """[..., 1] lengths of the last axis, never zero."""
    if isinstance(x, np.ndarray):
        return np.sqrt(np.maximum((x * x).sum(-1, keepdims=True), np.float32(1e-12)))
    import tensorflow as tf

    return tf.sqrt(tf.maximum(tf.reduce_sum(x * x, -1, keepdims=True), 1e-12))
