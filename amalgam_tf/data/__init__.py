"""Data sets. Every reader returns `Examples`; a config names the reader and gives its options.

To add a data set: a module with `load(...) -> Examples`, one function and one line in `READERS` below, a test that reads
what `tools/render_scenes.py` writes in its layout.
"""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amalgam_tf.data import coco, folder, scenes, tfds, voc
from amalgam_tf.data.examples import IGNORE, Examples, hold_out
from amalgam_tf.errors import UserError

__all__ = ["DEFAULTS", "IGNORE", "READERS", "Examples", "Parts", "cache_dir", "hold_out", "load", "parts"]


DEFAULTS = dict(
    reader="scenes",  # scenes, voc, coco, folder; tfds:voc/2007, tfds:coco/2014, ... (`tfds.SETS`)
    root="",  # folder of the data set on disk; tfds: the data_dir, "" for its own
    train="train",
    test="test",
    hold_out=0.1,  # share of the train split kept for every choice
    hold_out_seed=0,
    cache_dir="runs/cache",  # decoded pixels and teacher outputs; "" keeps them in memory
    train_count=3000,  # scenes: images
    test_count=1000,
    render_size=32,
    scene_seed=2,  # the difficulty of the scenes was set on seed 0, the quickstart's rates on seed 1
    year=2012,  # voc: 2007 or 2012
    difficult="ignore",  # voc: ignore, negative or positive (A2)
    images="{split}",  # coco: folder of the images below root; {split} stands for the split
    crowd="positive",  # coco: positive, ignore or negative, for labels with crowd regions only
    only_available=False,  # voc, coco: leave out listed images that are not there
    classes="",  # voc, coco: class names, comma-separated; by default VOC's twenty, or all that the COCO file has
    categories="",  # folder: JSON file below root, {column: [class names]}, for CSV columns that hold class names
    download=False,  # tfds: fetch and prepare a data set that is not there
)  # a config's `data` section; every reader takes its own part of it


class Parts(NamedTuple):
    """What a run works with. Only `test` is ever used for the final numbers, and only `held_out` for choices."""

    train: Examples
    held_out: Examples
    test: Examples


def _scenes(o: Mapping[str, Any], split: str) -> Examples:
    counts = {o["train"]: o["train_count"], o["test"]: o["test_count"]}
    return scenes.load(split=split, count=counts[split], size=o["render_size"], seed=o["scene_seed"], cache_dir=cache_dir(o))


def _voc(o: Mapping[str, Any], split: str) -> Examples:
    classes = _class_names(o) or voc.CLASSES
    return voc.load(
        root=_root(o), year=o["year"], split=split, classes=classes, difficult=o["difficult"], only_available=o["only_available"]
    )


def _coco(o: Mapping[str, Any], split: str) -> Examples:
    own = {k: o[k] for k in ("images", "crowd", "only_available")}
    return coco.load(root=_root(o), split=split, classes=_class_names(o), **own)


def _tfds(o: Mapping[str, Any], split: str) -> Examples:
    own = {k: o[k] for k in ("difficult", "crowd", "download")}
    root = _root(o) if o["root"] else None
    name = o["reader"].removeprefix("tfds:")
    return tfds.load(name=name, split=split, cache_dir=cache_dir(o), data_dir=root, classes=_class_names(o), **own)


def _class_names(o: Mapping[str, Any]) -> tuple[str, ...] | None:
    return tuple(c.strip() for c in o["classes"].split(",")) if o["classes"] else None


def _folder(o: Mapping[str, Any], split: str) -> Examples:
    """`split`: a folder of images, a CSV, or `labels.csv:val` for the rows of a CSV whose `split` column says val."""
    file, _, rows = split.partition(":")
    path = _root(o) / file
    categories = _classes_of(_root(o) / o["categories"]) if o["categories"] and path.suffix == ".csv" else None
    return folder.load(path=path, split=rows or None, categories=categories)


def _classes_of(path: Path) -> dict[str, list[str]]:
    """`{column: [class names]}` from a JSON file."""
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} (data.categories) cannot be read as JSON ({error}): write {{column: [class names]}} into it") from error
    if not isinstance(classes, dict) or not all(isinstance(v, list) and all(isinstance(x, str) for x in v) for v in classes.values()):
        raise UserError(f"{path} (data.categories) must hold {{column: [class names]}}")
    return classes


READERS = {"scenes": _scenes, "voc": _voc, "coco": _coco, "folder": _folder, **{f"tfds:{name}": _tfds for name in tfds.SETS}}


def load(options: Mapping[str, Any], split: str) -> Examples:
    """One split by the options of a config's `data` section.

    Raises:
        UserError: an unknown reader, or whatever the reader finds wrong.
    """
    if options["reader"] not in READERS:
        raise UserError(f"unknown data.reader {options['reader']!r}: choose {', '.join(READERS)}")
    return READERS[options["reader"]](options, split)


def parts(options: Mapping[str, Any], tasks: Sequence[str] | None = None) -> Parts:
    """Train, held-out and test part; `hold_out` of the train split is carved off for every choice.

    Args:
        options: a config's `data` section.
        tasks: restrict the truth to these; all by default.

    Raises:
        UserError: an image that stands in both splits.
    """
    train, test = load(options, options["train"]), load(options, options["test"])
    if tasks is not None:
        train, test = (e.only(tasks) if e.tasks else e for e in (train, test))
    if shared := _identities(train) & _identities(test):
        raise UserError(
            f"{len(shared)} images stand in both {train.name} and {test.name}, {min(shared)} first: test on others than those trained on"
        )
    return Parts(*hold_out(train, options["hold_out"], options["hold_out_seed"]), test)


def _identities(examples: Examples) -> set[str]:
    """What tells images apart: scenes by their ids, files by where they are."""
    return set(examples.ids) if isinstance(examples.images, np.ndarray) else {str(p.resolve()) for p in examples.images}


def cache_dir(options: Mapping[str, Any]) -> Path | None:
    """Where decoded pixels and teacher outputs are kept; None for memory only."""
    return Path(options["cache_dir"]).expanduser() if options["cache_dir"] else None


def _root(options: Mapping[str, Any]) -> Path:
    if not options["root"]:
        raise UserError("data.root is not set: pass --config.data.root=FOLDER, the folder that holds the data set")
    return Path(options["root"]).expanduser()
