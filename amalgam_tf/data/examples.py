"""`Examples`: what every reader returns and everything else consumes. Images in a fixed order with integer truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
import hashlib
from pathlib import Path
from typing import Any
import zlib

import numpy as np

from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task

IGNORE = -1  # in a label array: no truth for this image (VOC "difficult", a CSV cell left empty)

FITS = ("squeeze", "crop")  # how an image that is not square becomes one


@dataclass(frozen=True)
class Examples:
    """n images and what is known about them.

    Attributes:
        name: data set and split, e.g. `voc2012/val`.
        ids: [n] one unique id an image (file stem, scene number).
        images: [n] paths of image files, or their pixels as uint8 [n, height, width, 3].
        tasks: what the labels describe, in a fixed order. Empty for unlabelled images.
        labels: task name -> int32 [n]: 0 or 1 (binary), class index (category), `IGNORE` where nothing is known. A dense task has maps:
            raw integers uint8 or uint16 [n, height, width, channels], or a NumPy array of str [n], the paths of PNG files. What the
            integers mean is said by the task's codec (`codecs`); `maps` decodes and encodes them.
        fit: how images that are not square become so, `squeeze` or `crop` (`transforms.resize`).
        depth: raw z-buffer uint16 [n, height, width, 1], or str [n], the paths of its PNG files: where the truth of masked dense tasks
            counts (`maps.valid`). None: everywhere.
        skipped: id -> file of the images that belong here but cannot be read (`data.on_bad_image=skip`); none of them is among the n.
    """

    name: str
    ids: tuple[str, ...]
    images: Sequence[Path] | np.ndarray
    tasks: tuple[Task, ...]
    labels: dict[str, np.ndarray]
    fit: str = "squeeze"
    skipped: Mapping[str, Path] = field(default_factory=dict)
    depth: np.ndarray | None = None

    def __post_init__(self):
        if not self.ids:
            raise UserError(f"{self.name} holds no image: check the split name and the folder")
        if len(set(self.ids)) != len(self.ids):
            raise UserError(f"{self.name} lists an image twice: remove repeated ids from its image list")
        sizes = {"images": len(self.images), **{t.name: len(self.labels[t.name]) for t in self.tasks}}
        sizes |= {} if self.depth is None else {"depth": len(self.depth)}
        wrong = {k: n for k, n in sizes.items() if n != len(self.ids)}
        if wrong or set(self.labels) != {t.name for t in self.tasks}:
            raise UserError(f"{self.name}: {len(self.ids)} ids do not match {wrong or 'the tasks of the labels'}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over ids, labels, depth and images (numbers, or file names and sizes): names data in cards and decisions."""
        digest = hashlib.sha256(repr((self.name, self.ids)).encode())
        digest.update(_content(self.images))
        if self.fit != "squeeze":  # data that were always squeezed keep the fingerprints they have in cards and decisions
            digest.update(self.fit.encode())
        for task in self.tasks:
            digest.update(repr(task).encode())
            digest.update(_content(self.labels[task.name]))
        if self.depth is not None:  # data without keep their fingerprints
            digest.update(b"depth")
            digest.update(_content(self.depth))
        return digest.hexdigest()[:16]

    @property
    def images_key(self) -> str:
        """16 hex digits over images and `fit`: pixels, or resolved paths with sizes and times of change. Keys caches on this machine."""
        digest = hashlib.sha256(identity(self.images))
        digest.update(b"" if self.fit == "squeeze" else self.fit.encode())  # caches of squeezed pixels keep their names
        return digest.hexdigest()[:16]

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
            depth=None if self.depth is None else self.depth[indices],
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

    def one_vs_rest(self) -> "Examples":
        """Every category task as binary ones: is it this class, for each of its classes, named as the class is.

        Raises:
            UserError: a class called like another task.
        """
        tasks, labels = [], {}
        for task in self.tasks:
            known = self.labels[task.name]
            names = task.labels if task.kind == "category" else (task.name,)
            made = [np.where(known == IGNORE, IGNORE, known == i).astype(np.int32) for i in range(len(names))]
            if twice := [n for n in names if n in labels]:
                raise UserError(f"{self.name} has two tasks called {twice[0]} with data.one_vs_rest: leave one out")
            tasks += [Task(n) for n in names] if task.kind == "category" else [task]
            labels |= dict(zip(names, made, strict=True)) if task.kind == "category" else {task.name: known}
        return replace(self, tasks=tuple(tasks), labels=labels)

    def unlabelled(self) -> "Examples":
        """The same images without any truth: what an amalgamated student is trained on."""
        return replace(self, tasks=(), labels={}, depth=None)

    def without(self, bad: Sequence[int]) -> "Examples":
        """The examples but those at `bad`, which are noted as `skipped`; the name then ends in `/readable`, so that no table takes them
        for the whole split.
        """
        if not len(bad):
            return self
        rest = self.take(np.delete(np.arange(len(self)), bad), f"{self.name}/readable")
        return replace(rest, skipped={**self.skipped, **{self.ids[i]: self.images[i] for i in bad}})

    def account(self) -> dict[str, Any]:
        """What results say of the images behind a number: `data` (name), `images` (how many) and, only if there are any, `skipped`:
        `count` and `files`.
        """
        skipped = {"skipped": {"count": len(self.skipped), "files": [str(p) for p in self.skipped.values()]}} if self.skipped else {}
        return {"data": self.name, "images": len(self), **skipped}


def are_files(source: Sequence[Path] | np.ndarray) -> bool:
    """Whether images or maps are given as paths, not as numbers."""
    return not isinstance(source, np.ndarray) or source.dtype.kind == "U"


def _content(source: Sequence[Path] | np.ndarray) -> bytes | memoryview:
    """What data are, wherever they lie: numbers, or the names and sizes of files."""
    if not are_files(source):
        return np.ascontiguousarray(source).data
    return repr([(p.name, p.stat().st_size if p.is_file() else None) for p in map(Path, source)]).encode()


def identity(source: Sequence[Path] | np.ndarray) -> bytes | memoryview:
    """What keys a cache on this machine: numbers, or resolved paths with sizes and times of change."""
    if not are_files(source):
        return np.ascontiguousarray(source).data
    paths = map(Path, source)
    return repr([(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) if p.is_file() else str(p) for p in paths]).encode()


def share(examples: Examples, number: int, count: int, seed: int = 0) -> Examples:
    """One of `count` equal parts of a list of images: a seeded permutation, cut into runs (spec C9: six parts of CelebA's train split).

    Args:
        examples: what to cut; the parts depend on the number of images alone, and so on the order of the data set's own list.
        number: which part, 1 to `count`.
        count: how many parts; their sizes differ by one image at most.
        seed: another seed, other parts.

    Returns:
        The part, in the original order.

    Raises:
        UserError: no such part, or more parts than images.
    """
    if seed < 0:
        raise UserError(f"data.part_seed must be at least 0, not {seed}")
    if not 1 <= number <= count:
        raise UserError(f"there is no part {number} of {count} (data.part, data.part_count): number the parts from 1")
    if count > len(examples):
        raise UserError(f"{examples.name} has {len(examples)} images, too few for {count} parts (data.part_count): ask for fewer parts")
    order = np.random.default_rng([seed, 3]).permutation(len(examples))
    return examples.take(np.sort(np.array_split(order, count)[number - 1]), f"{examples.name}/part{number}of{count}")


def hold_out(examples: Examples, fraction: float, seed: int = 0) -> tuple[Examples, Examples]:
    """Splits by a hash of (seed, id), so an image keeps its side when others are added or removed.

    Args:
        examples: what to split.
        fraction: share of the second part, in (0, 1).
        seed: another seed, another split.

    Returns:
        (rest, held out), both in the original order; a skipped image is noted on the side it would be on.

    Raises:
        UserError: a fraction outside (0, 1), or one that leaves a side empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the held-out fraction must lie between 0 and 1, not {fraction}")

    def is_held(image_id: str) -> bool:
        return zlib.crc32(f"{seed}/{image_id}".encode()) / 2**32 < fraction

    def side(held: bool, name: str) -> Examples:
        skipped = {i: p for i, p in examples.skipped.items() if is_held(i) == held}
        return replace(examples.take(np.flatnonzero(chosen == held), f"{examples.name}/{name}"), skipped=skipped)

    chosen = np.array([is_held(i) for i in examples.ids])
    if chosen.all() or not chosen.any():
        raise UserError(f"holding out {fraction} of the {len(examples)} images of {examples.name} leaves one side empty: use more images")
    return side(False, "rest"), side(True, "held_out")
