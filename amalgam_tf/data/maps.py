"""Dense truth of `Examples`: PNG maps decoded, brought to a square as the images are, encoded by their codec, kept on disk.

A map that cannot be read is an error, even with `data.on_bad_image=skip`: that is about images, and truth that is missing without a word
would move every number.
"""

from collections.abc import Callable
import hashlib
from pathlib import Path
import struct
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from amalgam_tf.data import codecs, pipeline
from amalgam_tf.data.codecs import Codec
from amalgam_tf.data.examples import Examples, are_files, identity
from amalgam_tf.errors import UserError

_CHUNK = 64
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # of a PNG's colour types; 3 is a palette, whose integers mean nothing here
_MEND = "write the file again, or take its view out of the data"


def maps(examples: Examples, task: str, size: int, cache_dir: Path | None = None) -> np.ndarray:
    """The encoded truth of a dense task.

    Args:
        examples: images with this task, maps in memory or in PNG files.
        task: its name.
        size: height and width.
        cache_dir: where the codes of files are kept; None for memory only.

    Returns:
        float32 [n, size, size, channels], in the range that networks write (`Codec.encode`).

    Raises:
        UserError: no dense task of this name, or a map that is missing, unreadable, of another type, or of another shape than the
            images or the other maps; the sentence names the file.
    """
    (chosen,) = examples.only([task]).tasks
    if chosen.kind != "dense":
        raise UserError(f"task {task!r} of {examples.name} has no maps, it is {chosen.kind}: choose a dense task")
    codec = codecs.get(chosen.codec)

    def encoded(raw: np.ndarray) -> np.ndarray:
        return codec.encode(raw, size)

    return _made(examples, examples.labels[task], codec, size, encoded, f"{codec}", cache_dir)


def valid(examples: Examples, size: int, cache_dir: Path | None = None) -> np.ndarray:
    """Where the truth of masked tasks (`Codec.masked`) counts, by the z-buffer of `examples`.

    Returns:
        uint8 [n, size, size], 1 or 0 (`codecs.valid`); all 1 for data without a z-buffer.

    Raises:
        UserError: as `maps`.
    """
    if examples.depth is None:
        return np.ones((len(examples), size, size), np.uint8)

    def counted(raw: np.ndarray) -> np.ndarray:
        return codecs.valid(raw, size)

    return _made(examples, examples.depth, codecs.get("depth_zbuffer"), size, counted, "valid", cache_dir)


def _made(examples: Examples, source: np.ndarray, codec: Codec, size: int, fn: Callable, what: str, cache_dir) -> np.ndarray:
    """`fn` of raw maps [n, height, width, c] in the images' geometry; of files in chunks, and kept in the cache."""
    if not are_files(source):
        _check_aspect(examples, source.shape[1:3], f"each map of {codec.name}")
        return fn(_squared(source, examples.fit))
    digest = hashlib.sha256(f"maps/1/{what}/{examples.fit}/{size}/".encode())
    digest.update(identity(source))
    name = f"maps-{codec.name}-{digest.hexdigest()[:16]}"
    return pipeline.cached_array(cache_dir, name, lambda: _from_files(examples, [str(p) for p in source], codec, fn))


def _from_files(examples: Examples, paths: list[str], codec: Codec, fn: Callable) -> np.ndarray:
    first = _header(paths[0])
    _check_aspect(examples, first[:2], f"the map {paths[0]}")
    for path in paths:
        _check(path, _header(path), codec, first)
    data = tf.data.Dataset.from_tensor_slices(paths)

    def read(path):
        raw = tf.io.decode_png(tf.io.read_file(path), dtype=tf.as_dtype(codec.dtype))
        return tf.ensure_shape(raw[..., : len(codec.channels)], (first.height, first.width, len(codec.channels)))

    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(_CHUNK).prefetch(1)
    result, done = None, 0
    try:
        for raw in data.as_numpy_iterator():
            part = fn(_squared(raw, examples.fit))
            result = np.empty((len(paths), *part.shape[1:]), part.dtype) if result is None else result
            result[done : done + len(part)] = part
            done += len(part)
    except tf.errors.OpError as error:
        bad = next((p for p in paths[done:] if not _decodes(p)), paths[done])
        raise UserError(f"the map {bad} cannot be decoded, it is cut off or damaged: {_MEND}") from error
    return result


def _decodes(path: str) -> bool:
    try:
        tf.io.decode_png(tf.io.read_file(path), dtype=tf.uint16)
    except tf.errors.OpError:
        return False
    return True


# -- what a file promises ---------------------------------------------------------------------------------------------
class _Header(NamedTuple):
    height: int
    width: int
    bits: int
    channels: int  # 0: a palette


def _parsed(start: bytes) -> _Header | None:
    """The first 26 bytes of a PNG; None of anything else."""
    if len(start) < 26 or not start.startswith(_SIGNATURE):
        return None
    width, height, bits, color = struct.unpack(">IIBB", start[16:26])
    return _Header(height, width, bits, _CHANNELS.get(color, 0))


def _header(path: str) -> _Header:
    """From the first bytes: TensorFlow converts other depths and channels without a word, and so would hide what is wrong."""
    try:
        with open(path, "rb") as file:
            found = _parsed(file.read(26))
    except OSError as error:
        raise UserError(f"the map {path} cannot be read ({error.strerror}): {_MEND}") from error
    if found is None:
        raise UserError(f"the map {path} is no PNG file: {_MEND}")
    return found


def _check(path: str, found: _Header, codec: Codec, first: _Header) -> None:
    if found.bits != codec.bits:
        raise UserError(f"the map {path} has {found.bits} bits a channel, {codec.name} has {codec.bits}: {_MEND}")
    if found.channels not in codec.file_channels:
        has = f"{found.channels} channels" if found.channels else "a palette"
        wanted = " or ".join(map(str, codec.file_channels))
        raise UserError(f"the map {path} has {has}, not the {wanted} of {codec.name}: {_MEND}")
    if found[:2] != first[:2]:
        shape, usual = (f"{h.width} x {h.height}" for h in (found, first))
        raise UserError(f"the map {path} is {shape} pixels, the first one {usual}: {_MEND}")


def _check_aspect(examples: Examples, shape: tuple[int, int], named: str) -> None:
    """A map of another aspect ratio than its image would lie beside it when both are made square."""
    image = _image_shape(examples)
    if image is not None and image[0] * shape[1] != image[1] * shape[0]:
        has, have = (f"{columns} x {rows}" for rows, columns in (shape, image))
        raise UserError(f"{named} has {has} pixels, the images of {examples.name} {have}: give both the same aspect ratio")


def _image_shape(examples: Examples) -> tuple[int, int] | None:
    """Height and width of the images; of files, of the first one, where that is a PNG."""
    if not are_files(examples.images):
        return examples.images.shape[1:3]
    path = Path(examples.images[0])
    if not path.is_file():
        return None  # said when the images are read
    with path.open("rb") as file:
        found = _parsed(file.read(26))
    return found and found[:2]


def _squared(raw: np.ndarray, fit: str) -> np.ndarray:
    """The central square if the images are cropped (`transforms.resize`); squeezing is left to the codec's resizing."""
    if fit != "crop":
        return raw
    height, width = raw.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return raw[:, top : top + side, left : left + side]
