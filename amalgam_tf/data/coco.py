"""COCO's object annotations as image labels, read from the folder as its archives unpack (2014, 2017, or other data in this layout).

    root/annotations/instances_val2014.json       the lists images, categories and annotations (one entry an object)
         val2014/COCO_val2014_000000000042.jpg    an image's file_name; from 2017 on it is 000000000042.jpg

One binary task a category, in the order of the category ids: 80 of them, whose ids have gaps up to 90. Task names hold no spaces, so every
space becomes an underscore: `traffic light` is the task `traffic_light`; either may be asked for.

Images without any object are kept, as negatives of every class: 82,783 + 40,504 = 123,287 for train2014 + val2014 (spec A3). Some readers
leave them out (ML-GCN's coco.py does), so published numbers may be over somewhat fewer images.

Cost. The file is parsed whole by `json`, but outlines, most of it, are dropped entry by entry: a copy with as many entries as train2014
(83 thousand images, 605 thousand objects, 350 MB) took 11 s and 0.7 GB on one CPU core; keeping all would have taken 2 GB.
"""

from collections.abc import Sequence
import json
import os
from pathlib import Path, PurePosixPath

import numpy as np

from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.errors import UserError, did_you_mean, one_of
from amalgam_tf.tasks import Task

CROWD_AS = {"positive": 1, "ignore": IGNORE, "negative": 0}

_ABSENT, _CROWD, _PRESENT = range(3)  # a single instance outweighs a crowd region
_NEEDED = ("images", "categories", "annotations", "id", "file_name", "name", "image_id", "category_id", "iscrowd")
_KINDS = {int: "a whole number", str: "a text"}


def load(
    *,
    root: Path,
    split: str,
    classes: Sequence[str] | None = None,
    images: str = "{split}",
    crowd: str = "positive",
    only_available: bool = False,
) -> Examples:
    """Reads one split as a binary task a category.

    Args:
        root: the folder that holds `annotations/`.
        split: what stands between `instances_` and `.json`, e.g. train2014, val2014, train2017, val2017.
        classes: which categories, in this order; None takes all in the order of their ids, `()` reads the images alone.
        images: folder of the images, relative to root; `{split}` stands for the split.
        crowd: what an image counts as whose only annotations of a class are crowd regions (iscrowd 1: one outline around a group whose
            instances were not told apart). `positive`, since the class is to be seen, and since readers for multi-label results count
            every annotation (ML-GCN's coco.py); `ignore`, or `negative`.
        only_available: leave out images that are listed but not there (the name then ends in `/available`) instead of failing.

    Returns:
        The examples `coco/<split>` by rising id; ids are the image ids, labels int32 [n] of 1, 0 and `IGNORE`.

    Raises:
        UserError: folder, annotation file or image missing; an entry missing, of the wrong kind, repeated or pointing nowhere; class,
            split or `crowd` unknown.
    """
    one_of("crowd", crowd, CROWD_AS)
    path = _annotation_file(Path(root), split)
    content = _read(path)
    files = _files(path, content)
    ids, paths = list(files), [Path(root) / images.replace("{split}", split) / name for name in files.values()]
    rows = _available(paths, only_available)
    names, presence = _labels(path, content, ids, classes)
    truth = np.array([0, CROWD_AS[crowd], 1], np.int32)[presence[rows]]  # of _ABSENT, _CROWD, _PRESENT
    return Examples(
        name=f"coco/{split}" if len(rows) == len(ids) else f"coco/{split}/available",
        ids=tuple(str(ids[i]) for i in rows),
        images=[paths[i] for i in rows],
        tasks=tuple(Task(n) for n in names),
        labels={n: np.ascontiguousarray(truth[:, column]) for column, n in enumerate(names)},
    )


def _annotation_file(root: Path, split: str) -> Path:
    folder = root / "annotations"
    if not folder.is_dir():
        raise UserError(f"{root} holds no folder annotations: give the folder that holds annotations/instances_{split}.json")
    # by listing, so that a split can name no file outside
    known = {p.stem.removeprefix("instances_"): p for p in sorted(folder.glob("instances_*.json"))}
    if split not in known:
        raise UserError(f"{folder} holds no instances_<split>.json for split {split!r}: {did_you_mean(split, known)}")
    return known[split]


def _read(path: Path) -> dict:
    def needed(entry: dict) -> dict:
        return {k: entry[k] for k in _NEEDED if k in entry}

    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file, object_hook=needed)  # a hook sees every object as soon as it is read: outlines go at once
    except (OSError, ValueError, RecursionError) as error:  # ValueError: bad JSON and bad UTF-8
        raise UserError(f"{path} cannot be read as JSON ({error}): unpack it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no lists images, categories and annotations: it is not a COCO instances file, unpack it again")
    return content


def _entries(path: Path, content: dict, key: str) -> list:
    if not isinstance(content.get(key), list):
        raise UserError(f"{path} has no list {key!r} at its top: it is not a COCO instances file, unpack it again")
    return content[key]


def _value(path: Path, place: str, entry: object, field: str, kind: type) -> int | str:
    """`entry[field]`, which must be of exactly that kind (a bool is no number here)."""
    value = entry.get(field) if isinstance(entry, dict) else None
    if type(value) is not kind:
        found = f"is {json.dumps(value)[:60]}" if isinstance(entry, dict) and field in entry else "is missing"
        raise UserError(f"{path}, {place}: {field} {found}: write {_KINDS[kind]} there, or unpack the file again")
    return value


def _files(path: Path, content: dict) -> dict[int, str]:
    """Image id -> file name, by rising id: the order of the official files is arbitrary, and TFDS has another."""
    files, places = {}, {}
    for position, entry in enumerate(_entries(path, content, "images")):
        place = f"images[{position}]"
        image_id, name = _value(path, place, entry, "id", int), _value(path, place, entry, "file_name", str)
        if _leaves(name):
            raise UserError(f"{path}, {place}: file_name {name[:60]!r} is no path inside the images' folder: write it relative to that")
        for what in (f"id {image_id}", f"file_name {name!r}"):
            if what in places:
                raise UserError(f"{path}, {place}: {what} stands in {places[what]} already: remove one")
            places[what] = place
        files[image_id] = name
    if not files:
        raise UserError(f"{path} lists no image: unpack it again")
    return dict(sorted(files.items()))


def _leaves(name: str) -> bool:
    """Whether the written name leads out of its folder, or is no name. A link inside the folder may lead out: the user put it there."""
    path = PurePosixPath(name)
    return not name.isprintable() or not path.name or path.is_absolute() or ".." in path.parts


def _available(paths: list[Path], only_available: bool) -> list[int]:
    """The places of the images that are there."""
    rows = [i for i, p in enumerate(paths) if os.path.isfile(p)]  # not Path.is_file, which raises at over-long names
    if len(rows) == len(paths) or (rows and only_available):
        return rows
    first = next(p for p in paths if not os.path.isfile(p))
    mend = "unpack the images there, or name their folder with data.images"
    mend += ", or pass only_available to use the others" if rows else ""
    raise UserError(f"image {first} is missing, and with it {len(paths) - len(rows)} of the {len(paths)} images of the split: {mend}")


def _labels(path: Path, content: dict, ids: list[int], classes: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the tasks, and _ABSENT, _CROWD or _PRESENT as uint8 [images, tasks]."""
    if classes is not None and not classes:
        return (), np.zeros((len(ids), 0), np.uint8)
    categories = _categories(path, content)  # in the order of ids
    names = list(categories.values())
    chosen = names if classes is None else _chosen(path, names, classes)
    row, column = {image: i for i, image in enumerate(ids)}, {category: i for i, category in enumerate(categories)}
    presence = np.zeros((len(ids), len(names)), np.uint8)
    for position, entry in enumerate(_entries(path, content, "annotations")):
        place = f"annotations[{position}]"
        image, category = (_value(path, place, entry, field, int) for field in ("image_id", "category_id"))
        crowd = entry.get("iscrowd", 0)  # data sets in this layout often leave the flag out
        if type(crowd) is not int or crowd not in (0, 1):
            raise UserError(f"{path}, {place}: iscrowd is {json.dumps(crowd)[:60]}: write 0 or 1")
        if image not in row:
            raise UserError(f"{path}, {place}: image_id {image} is the id of no entry of images: remove the annotation or add the image")
        if category not in column:
            raise UserError(f"{path}, {place}: category_id {category} is the id of no entry of categories: unpack the file again")
        at = row[image], column[category]
        presence[at] = max(presence[at], _CROWD if crowd else _PRESENT)
    return tuple(chosen), presence[:, [names.index(n) for n in chosen]]


def _categories(path: Path, content: dict) -> dict[int, str]:
    """Category id -> task name, by rising id."""
    categories = {}
    for position, entry in enumerate(_entries(path, content, "categories")):
        place = f"categories[{position}]"
        number, name = _value(path, place, entry, "id", int), _value(path, place, entry, "name", str)
        try:
            Task(_task_name(name))
        except UserError as error:  # other characters, or a name kept for other uses
            raise UserError(f"{path}, {place}: {error}") from error
        if number in categories or _task_name(name) in categories.values():
            raise UserError(f"{path}, {place}: id {number} or name {name!r} stands there already (a space is as good as _): rename one")
        categories[number] = _task_name(name)
    if not categories:
        raise UserError(f"{path} lists no category: unpack it again, or ask for no classes")
    return dict(sorted(categories.items()))


def _chosen(path: Path, names: list[str], classes: Sequence[str]) -> list[str]:
    chosen = [_task_name(c) for c in classes]
    for name in chosen:
        if name not in names:
            raise UserError(f"{name!r} is not a category of {path}: {did_you_mean(name, names)}")
        if chosen.count(name) > 1:
            raise UserError(f"class {name!r} is asked for twice: remove one")
    return chosen


def _task_name(category: str) -> str:
    return category.replace(" ", "_")
