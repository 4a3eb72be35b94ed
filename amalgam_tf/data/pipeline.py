"""From `Examples` to batches: pixels decoded once into a uint8 cache, then batches as a pure function of (seed, step).

There is no iterator state: which image stands where in batch `step`, which view it shows and how it is cropped follow
from (seed, step, position in the GLOBAL batch). So a resumed run, and any number of workers, see the same data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import functools
import hashlib
import os
from pathlib import Path
import re

import numpy as np
import tensorflow as tf

from amalgam_tf.data import transforms
from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError

_CHUNK = 64  # images a batch in caches and evaluation: fixed, so that cached numbers do not depend on who fills the cache


# -- pixels -----------------------------------------------------------------------------------------------------------
def pixels(examples: Examples, size: int, cache_dir: Path | None = None) -> np.ndarray:
    """All images as uint8 [n, size, size, 3], decoded, brought to a square by `examples.fit` and kept on disk under `cache_dir`.

    Raises:
        UserError: an image file that cannot be read; the sentence names it.
    """
    if isinstance(examples.images, np.ndarray):
        if examples.images.shape[1:3] == (size, size):
            return examples.images
        return np.concatenate([transforms.resize(part, size, examples.fit).numpy() for part in _chunks(examples.images)])
    key = hashlib.sha256(f"pixels/2/{examples.images_key}/{size}".encode()).hexdigest()[:16]
    return cached_array(cache_dir, f"pixels-{key}", lambda: _decode_all(examples, size))


def readable(examples: Examples, cache_dir: Path | None = None) -> np.ndarray:
    """Which images can be read, as bool [n]: every file is decoded once, the verdict is kept on disk under `cache_dir`."""
    if isinstance(examples.images, np.ndarray):
        return np.ones(len(examples), bool)
    key = hashlib.sha256(f"readable/1/{examples.images_key}".encode()).hexdigest()[:16]
    return np.array(cached_array(cache_dir, f"readable-{key}", lambda: _try_all(examples)))


def _try_all(examples: Examples) -> np.ndarray:
    paths = [str(p) for p in examples.images]
    data = tf.data.Dataset.from_tensor_slices(paths).enumerate()

    def look(i, path):
        return i, tf.size(transforms.decode_whole(tf.io.read_file(path)))  # the size is asked for lest decoding be optimised away

    verdict = np.zeros(len(paths), bool)
    for i, values in data.map(look, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().as_numpy_iterator():
        verdict[i] = values > 0
    return verdict


def cached_array(folder: Path | None, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """`make()`, or what an earlier call stored as `folder/name.npy` (read back memory-mapped, written atomically)."""
    if folder is None:
        return make()
    path = Path(folder) / f"{name}.npy"
    if path.is_file():
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError):  # a damaged cache is made again, never an error
            pass
    array = make()
    temporary = path.with_name(f".{name}.{os.getpid()}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, array)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"the cache {path.parent} cannot be written ({error.strerror}): set data.cache_dir to another folder, or to nothing"
        ) from error
    return array


def _decode_all(examples: Examples, size: int) -> np.ndarray:
    paths = [str(p) for p in examples.images]
    data = tf.data.Dataset.from_tensor_slices(paths)

    def read(path):
        return transforms.decode(tf.io.read_file(path), size, examples.fit)

    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    images = np.empty((len(paths), size, size, 3), np.uint8)
    done = 0
    try:
        for image in data.prefetch(tf.data.AUTOTUNE):
            images[done] = image.numpy()
            done += 1
    except tf.errors.OpError as error:
        # Parallel decoding may fail ahead of the image being returned: look for the first bad file.
        faults = ((p, _fault(p, size)) for p in paths[done:])
        bad, fault = next((found for found in faults if found[1]), (paths[min(done, len(paths) - 1)], _first_line(error)))
        mend = "replace the file, take it out of the list, or leave such images out with data.on_bad_image=skip"
        raise UserError(f"the image {bad} cannot be read ({fault}): {mend}") from error
    return images


def _fault(path: str, size: int) -> str:
    """Why an image cannot be read; "" if it can. Said better than by tf.data, whose first line is about itself."""
    try:
        transforms.decode(tf.io.read_file(path), size)
    except tf.errors.OpError as error:
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    text = re.sub(r"\[?\[?\{\{.*?\}\}\]?\]?", "", str(error))  # names of graph nodes, which say nothing to a user
    return " ".join(text.strip().splitlines()[:1]).split("[Op")[0].strip()[:120]


# -- whole passes in index order --------------------------------------------------------------------------------------
def _chunks(array: np.ndarray):
    return (array[i : i + _CHUNK] for i in range(0, len(array), _CHUNK))


def padded(array: np.ndarray):
    """(start, rows, chunk): an array in chunks of one fixed size, the last one filled up with its last row."""
    for i, chunk in enumerate(_chunks(array)):
        n = len(chunk)
        yield i * _CHUNK, n, chunk if n == _CHUNK else np.concatenate([chunk, np.repeat(chunk[-1:], _CHUNK - n, 0)])


def in_order(fn: Callable, images: np.ndarray, *columns: np.ndarray, flipped: bool = False):
    """Applies `fn` to all images [n, height, width, channels] in batches of one fixed size, in index order.

    Args:
        fn: takes float32 images in 0..255 (and the rows of every column) and returns a tensor, or a nested structure of
            tensors, with a batch axis.
        images: uint8.
        columns: further arrays of n rows.
        flipped: mirror the images first (view 1).

    Returns:
        The results as NumPy arrays of n rows. The last batch is padded with its last row, so `fn` is traced once and
        every row is computed in the same batch shape.
    """
    parts = []
    for (_, n, image), *rows in zip(*map(padded, (images, *columns)), strict=True):
        image = image[:, :, ::-1] if flipped else image
        out = fn(tf.constant(image, tf.float32), *(tf.constant(row) for _, _, row in rows))
        parts.append(tf.nest.map_structure(lambda t, n=n: np.asarray(t)[:n], out))
    return tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)


def cached_outputs(fn: Callable, images: np.ndarray, *, views: int, key: str, cache_dir: Path | None) -> np.ndarray:
    """`fn` of every image in every view, computed once: [views, n, ...]. Rows are found by (view, index).

    Args:
        fn: float32 images [batch, height, width, 3] in 0..255 -> one tensor [batch, ...].
        images: uint8 [n, height, width, 3].
        views: 1 (plain) or 2 (plain, mirrored).
        key: everything the outputs depend on (weights, preprocessing, data, precision, tap).
        cache_dir: where to keep them; None keeps them in memory only.
    """
    name = "outputs-" + hashlib.sha256(f"outputs/1/{key}/{images.shape}/{views}".encode()).hexdigest()[:16]

    def make():
        rows = np.stack([in_order(fn, images, flipped=bool(v)) for v in range(views)])
        return rows.astype(np.float32) if rows.dtype.kind == "V" else rows  # .npy files lose bfloat16; float32 holds it exactly

    return cached_array(cache_dir, name, make)


# -- batches ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Batches:
    """An endless sequence of shuffled training batches, each a pure function of its step.

    Attributes:
        images: uint8 [n, height, width, 3].
        batch_size: size of the GLOBAL batch, over all replicas and workers.
        seed: everything random follows from it and the step.
        views: 1, or 2 to show every image mirrored in half of its appearances.
        crop: smallest area share of a random resized crop (aspect 3/4..4/3), or None for the whole image. Only for
            supervised teachers: amalgamation keeps to the finite views, whose teacher outputs are cached.
        size: side of the batch's images; needed with `crop`, otherwise that of `images`.
        columns: name -> [n, ...] arrays to gather by index (labels, masks).
        viewed: name -> [views, n, ...] arrays to gather by (view, index) (cached teacher outputs).
    """

    images: np.ndarray
    batch_size: int
    seed: int
    views: int = 2
    crop: float | None = None
    size: int | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    viewed: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        if wrong := [k for k, v in self.columns.items() if len(v) != len(self.images)]:
            raise ValueError(f"columns {wrong} do not have one row an image")
        if wrong := [k for k, v in self.viewed.items() if v.shape[:2] != (self.views, len(self.images))]:
            raise ValueError(f"viewed {wrong} are not of shape [views, images, ...]")

    def steps(self, epochs: float) -> int:
        """Number of steps in so many passes over the images, at least one."""
        return steps_of(epochs, len(self.images), self.batch_size)

    def indices(self, step: int) -> np.ndarray:
        """[batch] image indices of a step: a fresh permutation every epoch, nothing dropped."""
        n = len(self.images)
        places = step * self.batch_size + np.arange(self.batch_size)
        orders = {e: _order(self.seed, int(e), n) for e in np.unique(places // n)}
        return np.array([orders[p // n][p % n] for p in places], np.int32)

    def at(self, step: int, rank: int = 0, ranks: int = 1) -> dict[str, np.ndarray]:
        """One batch in NumPy, before any pixel operation; replica `rank` of `ranks` gets the places rank::ranks."""
        mine = slice(rank, None, ranks)
        chance = np.random.default_rng([self.seed, 2, step]).random((self.batch_size, 5), np.float32)[mine]
        index = self.indices(step)[mine]
        view = (chance[:, 0] * self.views).astype(np.int32)
        batch = {"images": self.images[index], "index": index, "view": view}
        if self.crop is not None:
            batch["boxes"] = _boxes(chance[:, 1:], self.crop)
        batch |= {name: column[index] for name, column in self.columns.items()}
        return batch | {name: column[view, index] for name, column in self.viewed.items()}

    def dataset(self, start: int, stop: int, rank: int = 0, ranks: int = 1) -> tf.data.Dataset:
        """The batches of steps start..stop-1 as a tf.data set of dicts; `images` are float32 in 0..255, flipped and cropped."""
        if self.batch_size % ranks:
            raise UserError(f"the batch size {self.batch_size} cannot be divided over {ranks} replicas: choose a multiple")
        sample = self.at(0, rank, ranks)
        names = list(sample)

        def load(step):
            arrays = tf.numpy_function(lambda s: list(self.at(int(s), rank, ranks).values()), [step], [sample[k].dtype for k in names])
            for name, array in zip(names, arrays, strict=True):
                array.set_shape(sample[name].shape)
            return self._finish(dict(zip(names, arrays, strict=True)))

        return tf.data.Dataset.range(start, stop).map(load, num_parallel_calls=2, deterministic=True).prefetch(2)

    def _finish(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        images = batch.pop("images")
        if self.crop is None:
            images = tf.cast(images, tf.float32)
        else:
            images = transforms.crop(images, batch.pop("boxes"), self.size)
        return {"images": transforms.flip(images, batch["view"]), **batch}


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Number of steps in so many passes over so many images, at least one."""
    return max(1, round(epochs * images / batch_size))


@functools.lru_cache(maxsize=4)  # two epochs meet in a batch, and the next phase has another seed
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The permutation of an epoch, drawn once and not at every step."""
    return np.random.default_rng([seed, 1, epoch]).permutation(n)


def _boxes(chance: np.ndarray, smallest: float) -> np.ndarray:
    """Random resized crops as boxes [n, 4] from four uniforms [n, 4]: area share smallest..1, aspect 3/4..4/3, clipped to the image."""
    area = smallest + (1 - smallest) * chance[:, 0]
    aspect = np.exp((2 * chance[:, 1] - 1) * np.log(4 / 3))
    height, width = np.minimum(np.sqrt(area / aspect), 1), np.minimum(np.sqrt(area * aspect), 1)
    top, left = chance[:, 2] * (1 - height), chance[:, 3] * (1 - width)
    return np.stack([top, left, top + height, left + width], 1).astype(np.float32)
