"""What the trained blocks of a student write for every image, computed once: block k's phase starts behind them.

Block by block, a student's frozen part only grows: the features behind block k are those behind block k - 1, sent through one block. So
the prefix costs one pass of one block a phase instead of k blocks a step. Knows no paper.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from amalgam_tf.data import pipeline
from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.models.folding import folded

GB = 1e9  # bytes


@dataclass
class Prefix:
    """The features in front of the block that is being trained: one array of all images and views at a time.

    Attributes:
        net: the student; blocks before the one asked for must not change any more.
        images: uint8 [n, height, width, 3].
        views: 1, or 2 with the mirrored images.
        preprocessing: float images in 0..255 -> what the first block reads.
        folder: for features that are kept on disk.
        memory_gb: features may take this much memory (10^9 bytes), the old and the new array together.
        disk_gb: those too large for that may take this much disk, together; what fits neither is computed in every step.
    """

    net: BlockNet
    images: np.ndarray
    views: int
    preprocessing: Any
    folder: Path
    memory_gb: float
    disk_gb: float
    _place: int = field(default=0, init=False)  # of the block that reads what is held; 0: nothing is
    _held: np.ndarray | None = field(default=None, init=False)

    def rows(self, k: int) -> "Rows | None":
        """What block k reads, [views, n, ...], computed when it is first looked into; None if it is computed in the step."""
        return None if self.room(k) == "step" else Rows(self, k)

    def room(self, k: int) -> str:
        """Where the features in front of block k are kept: `memory`, `disk`, or `step` (nowhere).

        A function of shapes and limits alone, half a limit for each of two arrays: a resumed run decides as the first one did.
        """
        if k == 0:
            return "step"
        size = self.bytes(k) / GB
        return "memory" if size <= self.memory_gb / 2 else "disk" if size <= self.disk_gb / 2 else "step"

    def bytes(self, k: int) -> int:
        """Size of the features in front of block k."""
        shape, dtype = self.spec(k)
        return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

    def spec(self, k: int) -> tuple[tuple[int, ...], np.dtype]:
        """Shape [views, n, ...] and type of the features in front of block k."""
        written = self.net.block(k - 1).outputs[0]
        return (self.views, len(self.images), *written.shape[1:]), np.dtype(tf.as_dtype(written.dtype).as_numpy_dtype)

    def at(self, k: int) -> np.ndarray:
        """The features in front of block k, made from the nearest that are held."""
        if self._place != k:
            first = self._place if 0 < self._place < k else 0
            source, target = (self._held if first else None), self._empty(k)
            functions = [self._function(j) for j in range(first, k)]
            for view in range(self.views):
                chunks = pipeline.padded(self.images) if source is None else pipeline.padded(source[view])
                for start, n, x in chunks:
                    if source is None:
                        x = tf.cast(x[:, :, ::-1] if view else x, tf.float32)
                    for function in functions:  # one call a block: the same bits wherever a resumed run begins
                        x = function(x)
                    target[view, start : start + n] = np.asarray(x)[:n]
            self._place, self._held = k, target
        return self._held

    def _function(self, j: int):
        block = folded(self.net, j, j)
        return tf.function(lambda x: block.run(x if j else self.preprocessing(x)), autograph=False)

    def _empty(self, k: int) -> np.ndarray:
        shape, dtype = self.spec(k)
        if self.room(k) == "memory":
            return np.empty(shape, dtype)
        path = Path(self.folder) / f".features-{k}"
        try:
            with open(path, "wb") as file:
                file.truncate(self.bytes(k))
            array = np.memmap(path, dtype, "r+", shape=shape)
            path.unlink()  # stays readable while it is open, and a kill leaves nothing behind
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): set features.disk_gb=0, or free some space") from error
        return array


@dataclass(frozen=True)
class Rows:
    """Looks like the array it stands for; so a phase that is finished, or not begun, costs nothing."""

    prefix: Prefix
    k: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.prefix.spec(self.k)[0]

    def __getitem__(self, index) -> np.ndarray:
        return self.prefix.at(self.k)[index]
