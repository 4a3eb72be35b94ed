"""PASCAL VOC classification labels, read from the devkit folder as it is unpacked (VOC2007 ... VOC2012).

    devkit/VOC2007/JPEGImages/000001.jpg
                   ImageSets/Main/test.txt        one id a line
                   ImageSets/Main/dog_test.txt    id and 1 (present), 0 (only difficult instances) or -1 (absent)
                   Annotations/000001.xml         objects with class and difficult flag: read where a class file is missing

What `difficult` does to the published numbers (spec A2, E1): over the class files of VOC2007 test, the all-negative accuracy that AFK's
table 1 must be held against is 92.92 when label 0 counts as negative; it is 92.85 with the official rule (ignore), 92.29 as positive.
"""

from collections.abc import Sequence
from pathlib import Path
import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.errors import UserError, did_you_mean
from amalgam_tf.tasks import Task

CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow "
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor".split()
)
PRESENT, DIFFICULT, ABSENT = 1, 0, -1  # as the devkit's class files write them
DIFFICULT_AS = {"ignore": IGNORE, "negative": 0, "positive": 1}

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # no slash, no leading dot: an id stays inside the folder


def load(
    *,
    root: Path,
    year: int,
    split: str,
    classes: Sequence[str] = CLASSES,
    difficult: str = "ignore",
    only_available: bool = False,
) -> Examples:
    """Reads one split of one VOC year as a binary task a class.

    Args:
        root: the devkit folder, the one that holds `VOC2007/` or `VOC2012/`.
        year: 2007, 2012, ...
        split: a list in `ImageSets/Main`, e.g. train, val, trainval, test.
        classes: which classes, in this order: any of `CLASSES` and any that has a class file for the split. `()` reads the images alone.
        difficult: what an image counts as whose only instances of a class are flagged difficult: `ignore` (the official evaluation),
            `negative` or `positive` (spec A2).
        only_available: leave out the ids without an image file (the name then ends in `/available`) instead of failing.

    Returns:
        The examples in the order of the split list; labels int32 [n] of 1, 0 and `IGNORE`.

    Raises:
        UserError: folder, list, class file, annotation or image missing or broken; class, split or `difficult` unknown.
    """
    if difficult not in DIFFICULT_AS:
        raise UserError(f"difficult={difficult!r} is unknown: use {', '.join(DIFFICULT_AS)}")
    folder = _year_folder(Path(root), year)
    ids = _read_ids(folder, split)
    name, kept = f"voc{year}/{split}", _with_image(folder, ids, only_available)
    names = _check_classes(folder, split, classes)
    labels = _labels(folder, split, kept, names)
    return Examples(
        name=name if len(kept) == len(ids) else f"{name}/available",
        ids=tuple(kept),
        images=[_image(folder, i) for i in kept],
        tasks=tuple(Task(n) for n in names),
        labels={n: _truth(labels[n], difficult) for n in names},
    )


def _year_folder(root: Path, year: int) -> Path:
    folder = root / f"VOC{year}"
    if folder.is_dir():
        return folder
    if not root.is_dir():
        raise UserError(f"the VOC devkit folder {root} does not exist: give the folder that holds VOC{year}")
    if (root / "ImageSets").is_dir():
        raise UserError(f"{root} is the folder of one year: give its parent, the folder that holds VOC{year}")
    found = ", ".join(sorted(p.name for p in root.glob("VOC*") if p.is_dir())) or "no year"
    raise UserError(f"{root} holds no VOC{year} (it holds {found}): unpack VOC{year} there or choose another year")


def _lists(folder: Path) -> Path:
    return folder / "ImageSets" / "Main"


def _image(folder: Path, image_id: str) -> Path:
    return folder / "JPEGImages" / f"{image_id}.jpg"


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """[(line number, words)] of the lines that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): unpack it again") from error
    # not splitlines(): that would also break at form feeds and count other lines than an editor does
    return [(number, words) for number, line in enumerate(text.split("\n"), 1) if (words := line.split())]


def _read_ids(folder: Path, split: str) -> list[str]:
    path = _lists(folder) / f"{split}.txt"
    if not _ID.fullmatch(split) or not path.is_file():
        found = ", ".join(_splits(folder, split)) or "none"
        raise UserError(f"VOC split {split!r} has no list {split}.txt in {path.parent}: there are {found}")
    ids = {}  # a dictionary keeps the order and finds repetitions
    for number, words in _read_lines(path):
        if len(words) != 1 or not _ID.fullmatch(words[0]):
            raise UserError(f"{path} line {number}: {' '.join(words)[:60]!r} is not an image id: write one id such as 000001 a line")
        if words[0] in ids:
            raise UserError(f"{path} line {number}: id {words[0]} stands in line {ids[words[0]]} already: remove one")
        ids[words[0]] = number
    if not ids:
        raise UserError(f"{path} is empty: unpack it again")
    return list(ids)


def _splits(folder: Path, asked: str) -> list[str]:
    """The lists that are no class files. `train_val` is one of class train, as `val` is a list (or the one asked for)."""
    stems = {p.stem for p in _lists(folder).glob("*.txt")}
    return sorted(s for s in stems if "_" not in s or s.rpartition("_")[2] not in stems | {asked})


def _with_image(folder: Path, ids: list[str], only_available: bool) -> list[str]:
    kept = [i for i in ids if _image(folder, i).is_file()]
    if len(kept) == len(ids) or (kept and only_available):
        return kept
    first = _image(folder, next(i for i in ids if i not in set(kept)))
    mend = "unpack the images there" + (", or pass only_available to use the others" if kept else "")
    raise UserError(f"image {first} is missing, and with it {len(ids) - len(kept)} of the {len(ids)} images of the split: {mend}")


def _vocabulary(folder: Path, split: str) -> list[str]:
    """The VOC classes and those of a data set in VOC's layout, known by its class files."""
    own = {p.stem.removesuffix(f"_{split}") for p in _lists(folder).glob(f"*_{split}.txt")}
    return [*CLASSES, *sorted(own - set(CLASSES))]


def _check_classes(folder: Path, split: str, classes: Sequence[str]) -> tuple[str, ...]:
    known = _vocabulary(folder, split)
    for name in classes:
        if name not in known:
            raise UserError(f"{name!r} is not a class of {folder}: {did_you_mean(name, known)}")
        if list(classes).count(name) > 1:
            raise UserError(f"class {name!r} is asked for twice: remove one")
    return tuple(classes)


def _labels(folder: Path, split: str, ids: list[str], classes: Sequence[str]) -> dict[str, list[int]]:
    """Class -> PRESENT, DIFFICULT or ABSENT for each id; from the class file, or the annotations where there is none."""
    files = {c: _lists(folder) / f"{c}_{split}.txt" for c in classes}
    without = [c for c in classes if not files[c].is_file()]
    known = _vocabulary(folder, split)
    annotations = [_read_annotation(folder, i, known) for i in ids] if without else []
    return {c: [a.get(c, ABSENT) for a in annotations] if c in without else _read_class_file(files[c], ids) for c in classes}


def _read_class_file(path: Path, ids: list[str]) -> list[int]:
    labels = {}
    for number, words in _read_lines(path):
        if len(words) != 2 or words[1] not in ("1", "0", "-1"):
            line = " ".join(words)[:60]
            raise UserError(f"{path} line {number}: {line!r} is not an image id followed by 1, 0 or -1: unpack the file again")
        if words[0] in labels:
            raise UserError(f"{path} line {number}: id {words[0]} has a label already: unpack the file again")
        labels[words[0]] = int(words[1])
    if missing := [i for i in ids if i not in labels]:
        raise UserError(f"{path} has no line for {missing[0]} ({len(missing)} of {len(ids)} ids of the split are missing): unpack it again")
    return [labels[i] for i in ids]


class _NoDoctype(ElementTree.TreeBuilder):
    """An annotation has no business with a document type: refusing it keeps entity bombs and outside files out."""

    def doctype(self, name, pubid, system):
        raise ValueError("a document type declaration is not allowed")


def _read_annotation(folder: Path, image_id: str, known: Sequence[str]) -> dict[str, int]:
    """Class -> PRESENT or DIFFICULT for the classes that occur."""
    path = folder / "Annotations" / f"{image_id}.xml"
    found = {}
    for position, thing in enumerate(_parse(path).findall("object"), 1):
        name, flag = (thing.findtext("name") or "").strip(), thing.findtext("difficult", "0").strip()
        if name not in known:
            raise UserError(f"{path} object {position}: unknown class {name!r}: {did_you_mean(name, known)}")
        if flag not in ("0", "1"):  # objects without the flag exist in later years and are not difficult
            raise UserError(f"{path} object {position} ({name}): difficult is {flag!r}: write 0 or 1")
        found[name] = max(found.get(name, DIFFICULT), DIFFICULT if flag == "1" else PRESENT)
    return found


def _parse(path: Path) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        parser.feed(path.read_bytes())
        top = parser.close()
    except FileNotFoundError as error:
        raise UserError(f"annotation {path} is missing, nor is there a class file: unpack it, or ask for no classes") from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding unknown to Python
        raise UserError(f"annotation {path} cannot be read ({error}): unpack it again") from error
    if top.tag != "annotation":
        raise UserError(f"{path} starts with <{top.tag}>, not with <annotation>: it is not a VOC annotation, unpack it again")
    return top


def _truth(labels: list[int], difficult: str) -> np.ndarray:
    """The devkit's 1 / 0 / -1 as this project's int32 [n] of 1, 0 and `IGNORE`."""
    meaning = {PRESENT: 1, ABSENT: 0, DIFFICULT: DIFFICULT_AS[difficult]}
    return np.array([meaning[v] for v in labels], dtype=np.int32)
