"""`Examples`: what every reader returns and everything else consumes. Images in a fixed order with integer truth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import hashlib
from pathlib import Path
import zlib

import numpy as np

from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task

IGNORE = -1  # in a label array: no truth for this image (VOC "difficult", a CSV cell left empty)


@dataclass(frozen=True)
class Examples:
    """n images and what is known about them.

    Attributes:
        name: data set and split, e.g. `voc2012/val`.
        ids: [n] one unique id an image (file stem, scene number).
        images: [n] paths of image files, or their pixels as uint8 [n, height, width, 3].
        tasks: what the labels describe, in a fixed order. Empty for unlabelled images.
        labels: task name -> int32 [n]: 0 or 1 (binary), class index (category), `IGNORE` where nothing is known.
    """

    name: str
    ids: tuple[str, ...]
    images: Sequence[Path] | np.ndarray
    tasks: tuple[Task, ...]
    labels: dict[str, np.ndarray]

    def __post_init__(self):
        if not self.ids:
            raise UserError(f"{self.name} holds no image: check the split name and the folder")
        if len(set(self.ids)) != len(self.ids):
            raise UserError(f"{self.name} lists an image twice: remove repeated ids from its image list")
        sizes = {"images": len(self.images), **{t.name: len(self.labels[t.name]) for t in self.tasks}}
        wrong = {k: n for k, n in sizes.items() if n != len(self.ids)}
        if wrong or set(self.labels) != {t.name for t in self.tasks}:
            raise UserError(f"{self.name}: {len(self.ids)} ids do not match {wrong or 'the tasks of the labels'}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over ids, labels and the images (pixels, or file names and sizes): names data in cards and decisions."""
        digest = hashlib.sha256(repr((self.name, self.ids)).encode())
        if isinstance(self.images, np.ndarray):
            digest.update(np.ascontiguousarray(self.images).data)
        else:
            digest.update(repr([(p.name, p.stat().st_size if p.is_file() else None) for p in self.images]).encode())
        for task in self.tasks:
            digest.update(repr(task).encode() + np.ascontiguousarray(self.labels[task.name]).tobytes())
        return digest.hexdigest()[:16]

    @property
    def images_key(self) -> str:
        """16 hex digits over the images alone: pixels, or resolved paths with sizes and times of change. Keys caches on this machine."""
        if isinstance(self.images, np.ndarray):
            return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()[:16]
        facts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) if p.is_file() else str(p) for p in self.images]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def take(self, indices: Sequence[int], name: str | None = None) -> "Examples":
        """The examples at `indices`, in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        images = self.images[indices] if isinstance(self.images, np.ndarray) else [self.images[i] for i in indices]
        return replace(
            self,
            name=name or self.name,
            ids=tuple(self.ids[i] for i in indices),
            images=images,
            labels={k: v[indices] for k, v in self.labels.items()},
        )

    def only(self, names: Sequence[str]) -> "Examples":
        """The same images with only these tasks, in this order.

        Raises:
            UserError: a name that the data set has no truth for.
        """
        known = {t.name: t for t in self.tasks}
        if missing := [n for n in names if n not in known]:
            raise UserError(f"{self.name} has no truth for {', '.join(missing)}; it has {', '.join(known) or 'no labels at all'}")
        return replace(self, tasks=tuple(known[n] for n in names), labels={n: self.labels[n] for n in names})

    def truth_for(self, tasks: Sequence[Task]) -> "Examples":
        """`only` the tasks of a network, whose classes must be those of the data, in the same order.

        Raises:
            UserError: a task without truth, of another kind, or with other classes.
        """
        chosen = self.only([t.name for t in tasks])
        for mine, theirs in zip(chosen.tasks, tasks, strict=True):
            if (mine.kind, mine.labels) != (theirs.kind, theirs.labels):
                raise UserError(
                    f"{self.name} describes {mine.name} as {mine.kind} {list(mine.labels)}, "
                    f"the network as {theirs.kind} {list(theirs.labels)}: list the same classes in the same order"
                )
        return chosen

    def unlabelled(self) -> "Examples":
        """The same images without any truth: what an amalgamated student is trained on."""
        return replace(self, tasks=(), labels={})


def hold_out(examples: Examples, fraction: float, seed: int = 0) -> tuple[Examples, Examples]:
    """Splits by a hash of (seed, id), so an image keeps its side when others are added or removed.

    Args:
        examples: what to split.
        fraction: share of the second part, in (0, 1).
        seed: another seed, another split.

    Returns:
        (rest, held out), both in the original order.

    Raises:
        UserError: a fraction outside (0, 1), or one that leaves a side empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the held-out fraction must lie between 0 and 1, not {fraction}")
    score = np.array([zlib.crc32(f"{seed}/{i}".encode()) for i in examples.ids]) / 2**32
    rest, held = np.flatnonzero(score >= fraction), np.flatnonzero(score < fraction)
    if not len(rest) or not len(held):
        raise UserError(f"holding out {fraction} of the {len(examples)} images of {examples.name} leaves one side empty: use more images")
    return examples.take(rest, f"{examples.name}/rest"), examples.take(held, f"{examples.name}/held_out")
