"""A user's own images: a folder of unlabelled ones, a folder of class folders, or a CSV of paths and labels.

    path,dog,horse,weather            dog, horse: 1 present, 0 absent, empty or -1 unknown
    photos/1.jpg,1,0,rain             weather: a class name, if declared with categories={"weather": ("sun", "rain")}
    photos/2.jpg,0,,sun               paths are relative to the CSV's folder

    train/cat/1.jpg                   class folders: load(path=..., split="train", task="animal") has one category task animal
    train/dog/1.jpg                   with the classes cat and dog; with groups="X1,X2" and task="cifar10" the tasks X1 and X2, of the
                                      classes that the groupings cifar10_halves and cifar10_quarters of `data.splits` give them

A column `split`, if there is one, is no label: `load(path=..., split="val")` takes the rows that say val.
"""

from collections.abc import Mapping, Sequence
import csv
from dataclasses import replace
import os
from pathlib import Path, PurePosixPath

import numpy as np

from amalgam_tf.data import fine_grained
from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.errors import UserError, did_you_mean
from amalgam_tf.tasks import Task

# What the pipeline decodes; of a GIF it takes the first frame.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
# Spreadsheets and pandas write whole numbers as 1.0 once a cell of the column is empty.
BINARY = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": IGNORE, "-1.0": IGNORE, "": IGNORE}

_Row = tuple[int, dict[str, str]]  # line number in the file, column -> cell


def load(
    *,
    path: Path,
    split: str | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
    task: str = "",
    classes: Sequence[str] | None = None,
    groups: str = "",
) -> Examples:
    """Reads a folder of unlabelled images, a folder of class folders, or a CSV with the columns `path` and one a task.

    Args:
        path: a folder, searched with its sub-folders (hidden files and folders left out), or a `.csv` file.
        split: of a folder, the sub-folder to read; of a CSV, the rows whose column `split` says so. None takes everything.
        categories: for a CSV, column -> class names of the columns that hold class names; all others are binary.
        task: for a folder, what the category task is called whose classes are the sub-folders; "" reads the images alone.
        classes: with `task`, which classes, in this order: other sub-folders are left out. None takes all, sorted.
        groups: with `task`, which then names the set, instead of classes: tasks by class groups as in `fine_grained.wanted` (`X1,X2` or
            `X1+X2a`).

    Returns:
        The examples, named `<stem>` or `<stem>/<split>`. Ids are the images' paths relative to the folder read, with `/`; a folder's are
        sorted, a CSV's stay in its order. Labels int32 [n]: 1, 0 (binary) or position in the class names; `IGNORE` for an empty cell.

    Raises:
        UserError: nothing there to read; an image missing, listed twice, of a kind not read here or outside the CSV's folder; a cell,
            column name or row that does not fit, with file, row and column.
    """
    path = Path(path)
    if path.is_dir():
        if categories:
            raise UserError(f"{path} is a folder of unlabelled images and categories describe columns: give a CSV or drop the categories")
        if groups and not task:
            raise UserError(f"data.groups={groups!r} needs the set whose groups these are: name it by data.task, as in data.task=cifar10")
        if groups:
            return _load_groups(path, split, task, classes, groups)
        return _load_classes(path, split, task, classes) if task else _load_folder(path, split)
    if task:
        raise UserError(f"{path} is no folder and data.task={task!r} names what class folders tell apart: give their folder")
    if path.suffix.lower() != ".csv":
        raise UserError(f"{path} is neither a folder nor a .csv file: give one of the two")
    return _load_csv(path, split, dict(categories or {}))


def _name(path: Path, split: str | None) -> str:
    stem = path.resolve().stem if path.suffix.lower() == ".csv" else path.resolve().name  # resolve: "." has no name
    return stem if split is None else f"{stem}/{split}"


# A folder of images.


def _load_folder(path: Path, split: str | None) -> Examples:
    folder = path if split is None else path / split
    if not folder.is_dir() or _leaves(split or ""):
        found = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())) or "none"
        raise UserError(f"{path} has no sub-folder for split {split!r}: its sub-folders are {found}")
    images = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if _is_wanted(p.relative_to(folder)) and p.is_file()}
    if not images:
        raise UserError(f"{folder} holds no image: put files ending in {', '.join(EXTENSIONS)} there")
    ids = sorted(images)
    return Examples(name=_name(path, split), ids=tuple(ids), images=[images[i] for i in ids], tasks=(), labels={})


def _load_groups(path: Path, split: str | None, source: str, classes: Sequence[str] | None, groups: str) -> Examples:
    """One category task a group, or of several joined by `+`; an image has no truth in the others' tasks."""
    every = _load_classes(path, split, source, None)
    names = every.tasks[0].labels
    labels = tuple(names[i] for i in every.labels[source])
    # file names repeat among the folders: paths tell the images apart
    listing = fine_grained.Listing(source, split or "", names, tuple(every.images), labels, ids=every.ids)
    made = fine_grained.examples([listing], fine_grained.wanted([source], names, task="", classes=classes, named=groups))
    return replace(made, name=every.name)


def _load_classes(path: Path, split: str | None, task: str, classes: Sequence[str] | None) -> Examples:
    every = _load_folder(path, split)
    found = sorted({i.partition("/")[0] for i in every.ids if "/" in i})
    if loose := [i for i in every.ids if "/" not in i]:
        raise UserError(f"{path} holds {loose[0]} beside its class folders: move it into one, or set data.task to nothing")
    names = tuple(found if classes is None else classes)
    for name in names:
        if name not in found:
            raise UserError(f"{path} has no folder with images for class {name!r}: {did_you_mean(name, found)}")
        if names.count(name) > 1:
            raise UserError(f"class {name!r} is asked for twice (data.classes): remove one")
    chosen = every.take([i for i, name in enumerate(every.ids) if name.partition("/")[0] in names])
    labels = np.array([names.index(i.partition("/")[0]) for i in chosen.ids], np.int32)
    return replace(chosen, tasks=(Task(task, "category", names, "softmax"),), labels={task: labels})


def _is_wanted(relative: Path) -> bool:
    # hidden: thumbnails, .ipynb_checkpoints, and the ._x.jpg of macOS archives, which are no images
    return relative.suffix.lower() in EXTENSIONS and not any(part.startswith(".") for part in relative.parts)


# A CSV.


def _load_csv(path: Path, split: str | None, categories: dict[str, Sequence[str]]) -> Examples:
    header, rows = _read_rows(path)
    tasks = _tasks(path, header, categories)
    if split is not None:
        rows = _of_split(path, header, rows, split)
    if not rows:
        raise UserError(f"{path} lists no image: write one row an image below the header")
    images = _images(path, rows)
    return Examples(
        name=_name(path, split),
        ids=tuple(images),
        images=list(images.values()),
        tasks=tasks,
        labels={t.name: (_classes if t.labels else _binary)(path, rows, t) for t in tasks},
    )


def _read_rows(path: Path) -> tuple[list[str], list[_Row]]:
    """The header, and of every row that is not blank its line number and its cells by column; all stripped."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets start the file with a byte order mark
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(c.strip() for c in cells)]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: check the path of the CSV") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as comma-separated UTF-8 text ({error}): save it as such") from error
    if not lines or "path" not in lines[0][1]:
        start = ",".join(lines[0][1])[:60] if lines else ""
        raise UserError(f"{path} has no column path (its first row is {start!r}): start it with path,<task>,..., separated by commas")
    header = lines[0][1]
    if twice := [c for c in header if header.count(c) > 1]:
        raise UserError(f"{path} has the column {twice[0]!r} twice: rename or remove one")
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise UserError(f"{path} row {number} has {len(cells)} cells, the header {len(header)}: write one a column")
    return header, [(number, dict(zip(header, cells, strict=True))) for number, cells in lines[1:]]


def _tasks(path: Path, header: list[str], categories: dict[str, Sequence[str]]) -> tuple[Task, ...]:
    columns = [c for c in header if c not in ("path", "split")]
    if unknown := [c for c in categories if c not in columns]:
        raise UserError(f"{path} has no column {unknown[0]!r} to hold a category: {did_you_mean(unknown[0], columns)}")
    for column, names in categories.items():
        if isinstance(names, str) or not names or len(set(names)) != len(names):
            raise UserError(f"category {column!r}: give its class names as a list, each once, not {names!r}")
    try:
        return tuple(Task(c, "category", tuple(categories[c]), "softmax") if c in categories else Task(c) for c in columns)
    except UserError as error:
        raise UserError(f"{path}, header: {error}") from error


def _of_split(path: Path, header: list[str], rows: list[_Row], split: str) -> list[_Row]:
    if "split" not in header:
        raise UserError(f"{path} has no column split, so {split!r} cannot be taken from it: add the column or ask for no split")
    chosen = [row for row in rows if row[1]["split"] == split]
    if not chosen:
        raise UserError(f"{path} has no row of split {split!r}: {did_you_mean(split, sorted({r['split'] for _, r in rows}))}")
    return chosen


def _images(path: Path, rows: list[_Row]) -> dict[str, Path]:
    """Id -> file, both checked."""
    images, seen = {}, {}
    for number, row in rows:
        cell = row["path"]
        image_id = PurePosixPath(cell).as_posix()  # ./a.jpg and a.jpg are one image
        if not cell or _leaves(cell):
            raise UserError(
                f"{path} row {number}: path {cell[:60]!r} must lie in the folder of the CSV: write it relative to that, without .."
            )
        if PurePosixPath(cell).suffix.lower() not in EXTENSIONS:
            raise UserError(f"{path} row {number}: {cell!r} is not a kind of image read here: use {', '.join(EXTENSIONS)}")
        if image_id in seen:
            raise UserError(f"{path} row {number}: {cell!r} stands in row {seen[image_id]} already: remove one")
        if not os.path.isfile(path.parent / image_id):  # not Path.is_file, which raises at over-long names
            raise UserError(f"{path} row {number}: image {path.parent / image_id} is missing: put it there or remove the row")
        images[image_id], seen[image_id] = path.parent / image_id, number
    return images


def _leaves(path: str) -> bool:
    """Whether the written path leads out of its folder, or is no path. A link inside the folder may lead out: the user put it there."""
    return not path.isprintable() or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts


def _binary(path: Path, rows: list[_Row], task: Task) -> np.ndarray:
    for number, row in rows:
        if row[task.name] not in BINARY:
            mend = f"write 1, 0 or nothing, or declare the column as a category: categories={{{task.name!r}: [class names]}}"
            raise UserError(f"{path} row {number}, column {task.name!r}: {row[task.name][:60]!r} is not 1, 0, -1 or empty: {mend}")
    cells = [row[task.name] for _, row in rows]
    values = np.array([BINARY[c] for c in cells], dtype=np.int32)
    # CelebA and VOC write -1 for absent; read as unknown it would silently leave a task with positives only
    if {"-1", "-1.0"} & set(cells) and not (values == 0).any():
        raise UserError(f"{path} column {task.name!r} has -1 but no 0: write 0 for absent, and leave unknown cells empty")
    return values


def _classes(path: Path, rows: list[_Row], task: Task) -> np.ndarray:
    index = {name: i for i, name in enumerate(task.labels)} | {"": IGNORE}
    for number, row in rows:
        if row[task.name] not in index:
            hint = did_you_mean(row[task.name], task.labels)
            raise UserError(f"{path} row {number}, column {task.name!r}: {row[task.name][:60]!r} is not a class of this category: {hint}")
    return np.array([index[row[task.name]] for _, row in rows], dtype=np.int32)
