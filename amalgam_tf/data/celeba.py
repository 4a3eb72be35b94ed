"""CelebA's binary attributes, read from the original text files and the aligned images.

    root/list_attr_celeba.txt         number of images; the attributes' names; a line an image: file name, then 1 or -1 an attribute
         list_eval_partition.txt      file name and 0 (train), 1 (val) or 2 (test)
         img_align_celeba/000001.jpg  178 x 218 pixels: wider pictures are cut to a square by data.fit=crop

Each attribute is a task of two classes, -1 being class 0, with a two-way softmax head (Customize, spec C7). The six parts of the train
split (spec C9) are `examples.share`, by data.part.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
import re

import numpy as np

from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError, did_you_mean
from amalgam_tf.tasks import Task

SPLITS = {"train": 0, "val": 1, "test": 2}
PARTITION = "list_eval_partition.txt"

_ATTRIBUTES = "list_attr_celeba.txt"
_IMAGES = "img_align_celeba"
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(jpg|jpeg|png)")  # no slash, no leading dot: a file stays inside the folder


def load(
    *, root: Path, split: str, attributes: Sequence[str] | None = None, partition: str = PARTITION, only_available: bool = False
) -> Examples:
    """Reads one split as a binary task an attribute.

    Args:
        root: the folder that holds the text files and `img_align_celeba/`.
        split: train, val or test; several joined by `+`.
        attributes: which, in this order; None takes all of the file. `()` reads the images alone.
        partition: the list below `root` that says which image is in which split: the official one, or one's own of the same form.
        only_available: leave out the listed images without an image file (the name then ends in `/available`) instead of failing.

    Returns:
        The examples in the order of the partition list; ids are the files' stems; labels int32 [n] of 1 and 0, never `IGNORE`.

    Raises:
        UserError: a file missing, cut short or broken, with file and line; an image missing; split or attribute unknown.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"the CelebA folder {root} does not exist: give the folder that holds {_ATTRIBUTES} and {_IMAGES}")
    listed = _listed(root / partition, split)
    files = _with_image(root / _IMAGES, listed, only_available)
    names, truth = _read_attributes(root / _ATTRIBUTES, files, attributes)
    name = f"celeba/{split}" + ("" if partition == PARTITION else f"/{Path(partition).stem}")
    return Examples(
        name=name if len(files) == len(listed) else f"{name}/available",
        ids=tuple(Path(f).stem for f in files),
        images=[root / _IMAGES / f for f in files],
        tasks=tuple(Task(n, head="softmax2") for n in names),
        labels={n: np.ascontiguousarray(truth[:, i]) for i, n in enumerate(names)},
    )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, words) of the lines that are not empty."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if words := line.split():
                    yield number, words
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: put CelebA's text files beside {_IMAGES} (from its folders Anno and Eval)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): unpack it again") from error


def _listed(path: Path, split: str) -> list[str]:
    """The files of the split in the order of the list."""
    for part in split.split("+"):
        if part not in SPLITS:
            raise UserError(f"CelebA has no split {part!r}: {did_you_mean(part, SPLITS)}")
    wanted = {SPLITS[part] for part in split.split("+")}
    where = {}  # a dictionary keeps the order and finds repetitions
    for number, words in _lines(path):
        if len(words) != 2 or not _FILE.fullmatch(words[0]) or words[1] not in ("0", "1", "2"):
            raise UserError(f"{path} line {number}: {' '.join(words)[:60]!r} is not a file name followed by 0, 1 or 2: unpack it again")
        if words[0] in where:
            raise UserError(f"{path} line {number}: {words[0]} stands there already: remove one of the two lines")
        where[words[0]] = int(words[1])
    files = [f for f, part in where.items() if part in wanted]
    if not files:
        found = ", ".join(s for s, part in SPLITS.items() if part in where.values()) or "none"
        raise UserError(f"{path} puts no image into {split} (it has {found}): ask for those, or name another list by data.partition")
    return files


def _with_image(folder: Path, files: list[str], only_available: bool) -> list[str]:
    kept = [f for f in files if (folder / f).is_file()]
    if len(kept) == len(files) or (kept and only_available):
        return kept
    first = folder / next(f for f in files if f not in set(kept))
    mend = "unpack the images there" + (", or pass --config.data.only_available=True to use the others" if kept else "")
    raise UserError(f"image {first} is missing, and with it {len(files) - len(kept)} of the {len(files)} images of the split: {mend}")


def _read_attributes(path: Path, files: Sequence[str], wanted: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """(names, labels int32 [files, names] of 1 and 0)."""
    lines = _lines(path)
    try:
        (_, count), (_, known) = next(lines), next(lines)
    except StopIteration:
        raise UserError(f"{path} is empty: unpack it again") from None
    if len(count) != 1 or not count[0].isdigit():
        raise UserError(f"{path} line 1: {' '.join(count)[:60]!r} is not the number of images: unpack it again")
    names = _chosen(path, known, known if wanted is None else wanted)
    rows = {}
    for number, words in lines:
        if len(words) != 1 + len(known) or not {"1", "-1"}.issuperset(words[1:]):
            raise UserError(
                f"{path} line {number}: not a file name followed by 1 or -1 for each of the {len(known)} attributes: unpack it again"
            )
        if words[0] in rows:
            raise UserError(f"{path} line {number}: {words[0]} stands there already: remove one of the two lines")
        rows[words[0]] = bytes(word == "1" for word in words[1:])  # bytes: of 200,000 x 40 words a list would take half a gigabyte
    if len(rows) != int(count[0]):
        raise UserError(f"{path} announces {count[0]} images and lists {len(rows)}: it is cut short or changed, unpack it again")
    if missing := [f for f in files if f not in rows]:
        raise UserError(f"{path} has no line for {missing[0]} ({len(missing)} of {len(files)} images of the split): unpack it again")
    table = np.frombuffer(b"".join(rows[f] for f in files), np.uint8).reshape(len(files), len(known))
    return names, table[:, [known.index(n) for n in names]].astype(np.int32)


def _chosen(path: Path, known: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in known:
            raise UserError(f"{name!r} is not an attribute of {path}: {did_you_mean(name, known)}")
        if list(wanted).count(name) > 1:
            raise UserError(f"attribute {name!r} is asked for twice, or stands in {path} twice: remove one")
    return tuple(wanted)
