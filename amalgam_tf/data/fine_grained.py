"""The four fine-grained sets of Customize (spec C10, table 6), read from their official layouts; one category task or several.

    dogs      Images/n02085620-Chihuahua/n02085620_10074.jpg   Stanford Dogs
              train_list.mat  test_list.mat                    here or in lists/
    cub       images/001.Black_footed_Albatross/....jpg        CUB-200-2011
              images.txt  image_class_labels.txt  classes.txt  train_test_split.txt
    aircraft  data/images/0034309.jpg                          FGVC-Aircraft 2013b, by variant
              data/variants.txt  images_variant_train.txt  images_variant_val.txt  images_variant_trainval.txt  images_variant_test.txt
    cars      cars_train/00001.jpg  cars_test/00001.jpg        Stanford Cars
              devkit/cars_meta.mat  devkit/cars_train_annos.mat
              cars_test_annos_withlabels.mat                   here or in devkit/

`listing` reads one split of one set; `examples` makes tasks of chosen classes out of one or more listings and keeps the images of these
classes, where they lie. So a source net over half of the dogs and a quarter of the birds (D1+Bq1 in table 6) has one joint softmax task,
and a target net over D1 and D2 has two tasks, each without truth for the images of the other.

Names of classes are those of the sets without running numbers (Chihuahua, Black_footed_Albatross, 707-320, AM General Hummer SUV 2000).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from amalgam_tf.data import splits
from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.errors import UserError, did_you_mean, one_of
from amalgam_tf.tasks import Task

# set -> (a file or folder that is there, the folders it is usually unpacked to)
HOMES = {
    "dogs": ("Images", ("stanford_dogs", "StanfordDogs", "dogs")),
    "cub": ("train_test_split.txt", ("CUB_200_2011", "cub")),
    "aircraft": ("data/variants.txt", ("fgvc-aircraft-2013b", "aircraft")),
    "cars": ("devkit/cars_meta.mat", ("stanford_cars", "StanfordCars", "cars")),
}
SETS = tuple(HOMES)

_Row = tuple[Path, str]  # image, class


class Listing(NamedTuple):
    """One split of one set.

    Attributes:
        source: the set, one of `SETS`.
        split: as it was asked for.
        classes: the set's class names, in its own order.
        images: [n] the files.
        labels: [n] class names.
        whole: whether no listed image was left out.
        ids: [n] what tells the images apart; () for the files' stems.
    """

    source: str
    split: str
    classes: tuple[str, ...]
    images: tuple[Path, ...]
    labels: tuple[str, ...]
    whole: bool = True
    ids: tuple[str, ...] = ()


def listing(*, source: str, root: Path, split: str, only_available: bool = False) -> Listing:
    """Reads one split of one set.

    Args:
        source: one of `SETS`.
        root: the set's folder, or one that holds it under one of its usual names (`HOMES`).
        split: train or test; of aircraft train, val, trainval or test. trainval means train where a set has no val, so that sets can be
            joined (C10 trains on aircraft's trainval).
        only_available: leave out the listed images without a file instead of failing.

    Raises:
        UserError: a folder, list or image missing or broken; set or split unknown.
    """
    one_of("fine-grained data set", source, SETS)
    home = _home(Path(root), source)
    known = ("train", "val", "trainval", "test") if source == "aircraft" else ("train", "trainval", "test")
    if split not in known:
        raise UserError(f"{source} has no split {split!r}: {did_you_mean(split, known)}")
    reader: Callable = {"dogs": _dogs, "cub": _cub, "aircraft": _aircraft, "cars": _cars}[source]
    classes, rows = reader(home, split if source == "aircraft" or split == "test" else "train")
    if twice := {c for c in classes if classes.count(c) > 1}:
        raise UserError(f"{home} has the class {min(twice)!r} twice: unpack it again")
    if not rows:
        raise UserError(f"the list of {source}'s split {split} in {home} is empty: unpack it again")
    for image, label in rows:
        if label not in classes:
            raise UserError(f"{image} is of class {label!r}, which is no class of {home}: {did_you_mean(label, classes)}")
    # by name, so that a directory and TFDS, which shuffles, list the same images in the same order
    rows = sorted(rows, key=lambda row: row[0].stem)
    kept = _with_image(rows, only_available)
    images, labels = zip(*kept, strict=True)
    return Listing(source, split, tuple(classes), images, labels, len(kept) == len(rows))


def _home(root: Path, source: str) -> Path:
    marker, usual = HOMES[source]
    for folder in (root, *(root / name for name in usual)):
        if (folder / marker).exists():
            return folder
    raise UserError(f"{root} holds no {source}, known by {marker}: give the folder that holds it, or one that holds {' or '.join(usual)}")


def _with_image(rows: Sequence[_Row], only_available: bool) -> list[_Row]:
    kept = [row for row in rows if row[0].is_file()]
    if len(kept) == len(rows) or (kept and only_available):
        return kept
    there = {image for image, _ in kept}
    first = next(image for image, _ in rows if image not in there)
    mend = "unpack the images there" + (", or pass --config.data.only_available=True to use the others" if kept else "")
    raise UserError(f"image {first} is missing, and with it {len(rows) - len(kept)} of the {len(rows)} images of the split: {mend}")


# ---- the four layouts: (home, train or test) -> class names, rows ---------------------------------------------------------------------


def _dogs(home: Path, split: str) -> tuple[list[str], list[_Row]]:
    folders = sorted(p.name for p in (home / "Images").iterdir() if p.is_dir() and p.name.startswith("n"))
    path = _first(home, f"{split}_list.mat", "lists")
    files = [str(f) for f in np.atleast_1d(_mat(path, "file_list"))]
    images = [_below(home / "Images", f, path) for f in files]
    return [class_of(f) for f in folders], [(image, class_of(image.parent.name)) for image in images]


def class_of(folder: str) -> str:
    """A class by its folder: n02085620-Chihuahua -> Chihuahua, 001.Black_footed_Albatross -> Black_footed_Albatross."""
    return folder.partition("-" if folder.startswith("n0") else ".")[2]


def _cub(home: Path, split: str) -> tuple[list[str], list[_Row]]:
    images, labels = _table(home / "images.txt"), _table(home / "image_class_labels.txt")
    sides, classes = _table(home / "train_test_split.txt"), _table(home / "classes.txt")
    names = {number: class_of(name) for number, name in classes.items()}
    rows = []
    for number, name in images.items():
        side, label = sides.get(number), labels.get(number)
        if side not in ("0", "1") or label not in names:
            raise UserError(f"{home} says nothing of image {number}, its side and its class (train_test_split.txt, image_class_labels.txt)")
        if (side == "1") == (split == "train"):
            rows.append((_below(home / "images", name, home / "images.txt"), names[label]))
    return list(names.values()), rows


def _aircraft(home: Path, split: str) -> tuple[list[str], list[_Row]]:
    path = home / "data" / f"images_variant_{split}.txt"
    rows = [(_below(home / "data" / "images", f"{number}.jpg", path), name) for number, name in _table(path).items()]
    return [line.strip() for line in _text(home / "data" / "variants.txt") if line.strip()], rows


def _cars(home: Path, split: str) -> tuple[list[str], list[_Row]]:
    classes = [str(name).strip() for name in np.atleast_1d(_mat(home / "devkit" / "cars_meta.mat", "class_names"))]
    path = home / "devkit" / "cars_train_annos.mat" if split == "train" else _first(home, "cars_test_annos_withlabels.mat", "devkit")
    rows = []
    for entry in np.atleast_1d(_mat(path, "annotations")):
        number = entry.get("class", 0) if isinstance(entry, dict) else 0
        if not 1 <= int(number) <= len(classes):
            raise UserError(f"{path} gives no class from 1 to {len(classes)} for an image: fetch the annotations with labels again")
        rows.append((_below(home / f"cars_{split}", str(entry.get("fname", "")), path), classes[int(number) - 1]))
    return classes, rows


def _first(home: Path, name: str, folder: str) -> Path:
    """The file in the set's folder or in the sub-folder."""
    found = [p for p in (home / name, home / folder / name) if p.is_file()]
    if not found:
        raise UserError(f"{home / name} is missing, in {folder}/ too: unpack it there")
    return found[0]


def _below(folder: Path, name: str, listed_in: Path) -> Path:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"{listed_in} lists an image {name[:60]!r}, which does not lie in {folder}: unpack it again")
    return folder / path


def _text(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: unpack the data set again, with its lists") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): unpack it again") from error


def _table(path: Path) -> dict[str, str]:
    """First word -> rest of each line that is not empty, in the order of the file."""
    rows = {}
    for number, line in enumerate(_text(path), 1):
        if not line.strip():
            continue
        key, _, rest = line.strip().partition(" ")
        if not rest.strip() or key in rows:
            raise UserError(f"{path} line {number}: {line.strip()[:60]!r} is not a new number followed by a text: unpack it again")
        rows[key] = rest.strip()
    return rows


def _mat(path: Path, name: str) -> Any:
    """One variable of a MATLAB file as lists, dictionaries and numbers."""
    from scipy import io  # here: the other sets do without it

    if not path.is_file():
        raise UserError(f"{path} is missing: unpack the data set again, with its lists")
    try:
        return io.loadmat(path, variable_names=[name], simplify_cells=True)[name]
    except Exception as error:  # over a damaged file SciPy fails in a dozen ways
        raise UserError(f"{path} cannot be read as a MATLAB file with {name} ({type(error).__name__}): unpack it again") from error


# ---- tasks of chosen classes ----------------------------------------------------------------------------------------------------------


def examples(listings: Sequence[Listing], tasks: Mapping[str, Sequence[str]]) -> Examples:
    """The images of the wanted classes, as one category task or several.

    Args:
        listings: one a set.
        tasks: task name -> its classes, in this order, of whichever set.

    Returns:
        The examples, named `dogs/train` or `dogs+cub/train`, set by set and sorted by file name. Ids are the files' stems, after the
        set's name where there are several. Labels int32 [n]: position in the task's classes, `IGNORE` where an image is of none of them.

    Raises:
        UserError: no task; a class unknown, in two sets, or twice in one task.
    """
    sources = [one.source for one in listings]
    owners = {c: [one.source for one in listings if c in one.classes] for one in listings for c in one.classes}
    for task, classes in tasks.items():
        for name in classes:
            if name not in owners:
                raise UserError(f"{name!r} is not a class of {'+'.join(sources)}: {did_you_mean(name, owners)}")
            if len(owners[name]) > 1:
                raise UserError(f"{name!r} is a class of {' and of '.join(owners[name])}: train on one of the two sets, or leave it out")
            if list(classes).count(name) > 1:
                raise UserError(f"task {task!r} is asked for class {name!r} twice: remove one")
    wanted = {c for classes in tasks.values() for c in classes}
    chosen = [
        (f"{one.source}/{name}" if len(listings) > 1 else name, image, label)
        for one in listings
        for name, image, label in zip(one.ids or [i.stem for i in one.images], one.images, one.labels, strict=True)
        if label in wanted
    ]
    index = {task: {c: i for i, c in enumerate(classes)} for task, classes in tasks.items()}
    name = f"{'+'.join(sources)}/{listings[0].split}"
    return Examples(
        name=name if all(one.whole for one in listings) else f"{name}/available",
        ids=tuple(name for name, _, _ in chosen),
        images=[image for _, image, _ in chosen],
        tasks=tuple(Task(task, "category", tuple(classes), "softmax") for task, classes in tasks.items()),
        labels={task: np.array([of.get(label, IGNORE) for _, _, label in chosen], np.int32) for task, of in index.items()},
    )


def groups(sources: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The seeded halves and quarters of these sets by name: D1, D2, Dq1 ... Dq4 of dogs, B of cub, A of aircraft, C of cars (spec C10)."""
    return {g: c for source in sources for kind in ("halves", "quarters") for g, c in splits.load_groups(f"{source}_{kind}").items()}


def wanted(sources: Sequence[str], all_classes: Sequence[str], *, task: str, classes: Sequence[str] | None, named: str) -> dict[str, tuple]:
    """Task name -> classes, by what a user asks for.

    Args:
        sources: the sets.
        all_classes: what no wish at all means.
        task: the task's name where there is only one; "" for the sets' names.
        classes: class names of one task.
        named: comma-separated tasks, each a group or several joined by + (`D1,D2`, `D1+Bq1`), which are also the tasks' names.

    Raises:
        UserError: classes and groups both; a group unknown or twice.
    """
    if not named:
        return {task or "+".join(sources): tuple(all_classes if classes is None else classes)}
    if classes is not None:
        raise UserError("data.classes and data.groups both say which classes: set one of them to nothing")
    known, out = groups(sources), {}
    for name in (n.strip() for n in named.split(",")):
        if name in out:
            raise UserError(f"data.groups asks for {name!r} twice: remove one")
        for group in name.split("+"):
            one_of("group in data.groups", group, known)
        out[name] = tuple(c for group in name.split("+") for c in known[group])
    if task and len(out) == 1:
        return {task: next(iter(out.values()))}
    if task:
        raise UserError(f"data.task={task!r} names one task and data.groups asks for {len(out)}: set data.task to nothing")
    return out
