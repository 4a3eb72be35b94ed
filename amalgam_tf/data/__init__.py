"""Data sets. Every reader returns `Examples`; a config names the reader and gives its options.

To add a data set: a module with `load(...) -> Examples`, one function and one line in `READERS` below, a test that reads
what `tools/render_scenes.py` writes in its layout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amalgam_tf.data import celeba, coco, fine_grained, folder, noise, scenes, taskonomy, tfds, voc
from amalgam_tf.data.examples import FITS, IGNORE, Examples, hold_out, share
from amalgam_tf.data.scenes import unseen
from amalgam_tf.errors import UserError, one_of

__all__ = ["DEFAULTS", "IGNORE", "READERS", "Examples", "Parts", "cache_dir", "hold_out", "load", "notes", "parts"]

_NAMED = 5  # files that a note names; results.json lists all
NO_TEST = "none"  # `data.test` of a run without labelled images

DEFAULTS = dict(
    reader="scenes",  # a key of `READERS`, or several fine-grained ones as in dogs+cub: their images under one task
    root="",  # folder of the data set on disk; tfds: the data_dir, "" for its own
    train="train",
    test="test",  # none: there are no labelled images, nothing is measured on any
    train_reader="",  # where the train split comes from if not from `reader`: unlabelled images of another data set, or `noise`
    train_root="",  # its folder; by default `root`
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
    only_available=False,  # voc, coco, celeba, fine-grained, taskonomy: leave out listed images (buildings) that are not there
    classes="",  # class, attribute or domain names, comma-separated; by default VOC's twenty, elsewhere all that the data set has
    groups="",  # fine-grained and class folders, instead of classes: tasks by class groups of `splits`, as in D1,D2 (`fine_grained.wanted`)
    task="",  # the category task: fine-grained, by default the set's; folder: its sub-folders are classes of this task (groups: this set)
    partition=celeba.PARTITION,  # celeba: the list below root that says which image is in which split
    categories="",  # folder: JSON file below root, {column: [class names]}, for CSV columns that hold class names
    on_bad_image="fail",  # a file that cannot be decoded: fail, or skip (counted and listed in log and results)
    download=False,  # tfds: fetch and prepare a data set that is not there
    buildings="",  # taskonomy: comma-separated, by default all of the split; those of other splits are passed over
    taskonomy_partition="tiny",  # taskonomy, split_by=building: tiny, or an official CSV of buildings (id,train,val,test) below root
    split_by="building",  # taskonomy: building (official), image or point (at random: train and val) or folder (KE's rgb/train, rgb/test)
    val_count=taskonomy.VAL_COUNT,  # taskonomy, split_by=image or point: images of val
    part="",  # 1 to part_count: train on this part of the train split only (C9)
    part_count=6,
    part_seed=0,
    fit="squeeze",  # how an image that is not square becomes one: squeeze, or crop its centre
    one_vs_rest=False,  # every category task becomes binary ones, a label a class
    binary_head="",  # head of binary tasks: sigmoid or softmax2; by default the reader's (celeba: softmax2)
)  # a config's `data` section; every reader takes its own part of it


_OF_LABELS = ("classes", "groups", "task", "categories", "binary_head")


class Parts(NamedTuple):
    """What a run works with. Only `test` is ever used for the final numbers, and only `held_out` for choices."""

    train: Examples
    held_out: Examples
    test: Examples | None


def _scenes(o: Mapping[str, Any], split: str) -> Examples:
    counts = {o["train"]: o["train_count"], o["test"]: o["test_count"]}
    one_of("split of the embedded scenes", split, counts)
    draw = {"scenes": scenes.load, "scenes_dense": scenes.load_dense}[o["reader"]]
    return draw(split=split, count=counts[split], size=o["render_size"], seed=o["scene_seed"], cache_dir=cache_dir(o))


def _unseen(o: Mapping[str, Any], split: str) -> Examples:
    count = {o["train"]: o["train_count"]}.get(split, o["test_count"])
    return unseen.load(split=split, count=count, size=o["render_size"], seed=o["scene_seed"])


def _noise(o: Mapping[str, Any], split: str) -> Examples:
    return noise.load(split=split, count=o["train_count"], size=o["render_size"], seed=o["scene_seed"])


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


def _celeba(o: Mapping[str, Any], split: str) -> Examples:
    own = {k: o[k] for k in ("partition", "only_available")}
    return celeba.load(root=_root(o), split=split, attributes=_class_names(o), **own)


def _taskonomy(o: Mapping[str, Any], split: str) -> Examples:
    buildings = [b.strip() for b in o["buildings"].split(",")] if o["buildings"] else None
    own = {k: o[k] for k in ("split_by", "val_count", "only_available")}
    return taskonomy.load(root=_root(o), split=split, tasks=_class_names(o), buildings=buildings, partition=o["taskonomy_partition"], **own)


def _fine_grained(o: Mapping[str, Any], split: str) -> Examples:
    """One set, or several joined by `+`; each is looked for below the same root."""
    listings = [_listing(o, reader, split) for reader in o["reader"].split("+")]
    sources = [one.source for one in listings]
    if len(set(sources)) < len(sources):
        raise UserError(f"data.reader={o['reader']} reads a data set twice: name each once")
    every = [c for one in listings for c in one.classes]
    return fine_grained.examples(listings, fine_grained.wanted(sources, every, task=o["task"], classes=_class_names(o), named=o["groups"]))


def _listing(o: Mapping[str, Any], reader: str, split: str) -> fine_grained.Listing:
    if reader in fine_grained.SETS:
        return fine_grained.listing(source=reader, root=_root(o), split=split, only_available=o["only_available"])
    root = _root(o) if o["root"] else None
    return tfds.listing(name=reader.removeprefix("tfds:"), split=split, cache_dir=cache_dir(o), data_dir=root, download=o["download"])


def _class_names(o: Mapping[str, Any]) -> tuple[str, ...] | None:
    return tuple(c.strip() for c in o["classes"].split(",")) if o["classes"] else None


def _folder(o: Mapping[str, Any], split: str) -> Examples:
    """`split`: a folder of images, a CSV, or `labels.csv:val` for the rows of a CSV whose `split` column says val."""
    file, _, rows = split.partition(":")
    path = _root(o) / file
    categories = _classes_of(_root(o) / o["categories"]) if o["categories"] and path.suffix == ".csv" else None
    classes = _class_names(o) if o["task"] else None
    own = {k: o[k] for k in ("task", "groups")}
    return folder.load(path=path, split=rows or None, categories=categories, classes=classes, **own)


def _classes_of(path: Path) -> dict[str, list[str]]:
    """`{column: [class names]}` from a JSON file."""
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} (data.categories) cannot be read as JSON ({error}): write {{column: [class names]}} into it") from error
    if not isinstance(classes, dict) or not all(isinstance(v, list) and all(isinstance(x, str) for x in v) for v in classes.values()):
        raise UserError(f"{path} (data.categories) must hold {{column: [class names]}}")
    return classes


FINE_GRAINED = (*fine_grained.SETS, *(f"tfds:{name}" for name in tfds.FINE_GRAINED))
READERS = {
    **{"scenes": _scenes, "scenes_dense": _scenes, "noise": _noise, "scenes_unseen": _unseen},
    **{"voc": _voc, "coco": _coco, "celeba": _celeba, "folder": _folder, "taskonomy": _taskonomy},
    **{f"tfds:{name}": _tfds for name in tfds.SETS},
    **{name: _fine_grained for name in FINE_GRAINED},
}


def load(options: Mapping[str, Any], split: str) -> Examples:
    """One split by the options of a config's `data` section.

    With `on_bad_image=skip` every image file is decoded here, before anything is made of the list, so that pixels, labels, targets and
    fingerprints are those of the same images. The verdict is kept in the cache.

    Raises:
        UserError: an unknown reader, whatever the reader finds wrong, or no readable image at all.
    """
    one_of("data.on_bad_image", options["on_bad_image"], ("fail", "skip"))
    one_of("data.fit", options["fit"], FITS)
    one_of("data.binary_head", options["binary_head"], ("", "sigmoid", "softmax2"))
    first, *more = options["reader"].split("+")
    if first not in READERS or (more and not {first, *more}.issubset(FINE_GRAINED)):
        joined = f"; only {', '.join(FINE_GRAINED)} can be joined by +" if more else ""
        raise UserError(f"unknown data.reader {options['reader']!r}: choose {', '.join(READERS)}{joined}")
    examples = replace(READERS[first](options, split), fit=options["fit"])
    if options["one_vs_rest"]:
        examples = examples.one_vs_rest()
    if options["binary_head"]:
        tasks = (replace(t, head=options["binary_head"]) if t.kind == "binary" else t for t in examples.tasks)
        examples = replace(examples, tasks=tuple(tasks))
    if options["part"] and split == options["train"]:
        examples = _part(examples, options)
    return _only_readable(examples, cache_dir(options)) if options["on_bad_image"] == "skip" else examples


def _part(examples: Examples, o: Mapping[str, Any]) -> Examples:
    if not o["part"].isascii() or not o["part"].isdigit():
        raise UserError(f"data.part={o['part']!r} is no number: choose from 1 to {o['part_count']}, or nothing for the whole train split")
    return share(examples, int(o["part"]), o["part_count"], o["part_seed"])


def _only_readable(examples: Examples, cache: Path | None) -> Examples:
    from amalgam_tf.data import pipeline  # here: a config that is wrong is told so without TensorFlow

    bad = np.flatnonzero(~pipeline.readable(examples, cache))
    if len(bad) == len(examples):
        raise UserError(f"none of the {len(bad)} images of {examples.name} can be read, {examples.images[0]} first: replace the files")
    return examples.without(bad)


def notes(*parts: Examples | None) -> list[str]:
    """A sentence for every part that lost images to `on_bad_image=skip`, or to a file of their truth that is not there."""
    found = []
    for part in (p for p in parts if p is not None):
        lacking = [str(p) for p in part.skipped.values() if not p.exists()]
        unreadable = [str(p) for p in part.skipped.values() if p.exists()]
        reasons = {
            "cannot be read and are left out (data.on_bad_image=skip)": unreadable,
            "lack a file of their truth and are left out": lacking,
        }
        for reason, files in reasons.items():
            more = [f"and {len(files) - _NAMED} more (results.json lists them)"] if len(files) > _NAMED else []
            if files:
                count = f"{len(files)} of {len(part.skipped) + len(part)} images"
                found.append(f"note: {count} of {part.name} {reason}: {', '.join([*files[:_NAMED], *more])}")
    return found


def parts(options: Mapping[str, Any], tasks: Sequence[str] | None = None, untested: bool = False) -> Parts:
    """Train, held-out and test part; `hold_out` of the train split is carved off for every choice.

    Args:
        options: a config's `data` section.
        tasks: restrict the truth to these; all by default.
        untested: whether the run can do without a test part (`test=none`: None).

    Raises:
        UserError: an image that stands in both splits, or no test part where one is needed.
    """
    if options["test"] == NO_TEST and not untested:
        raise UserError(f"data.test={NO_TEST} is for students of labels: this run is measured against the truth, name a split with it")
    test = None if options["test"] == NO_TEST else load(options, options["test"])
    if reader := options["train_reader"]:  # its labels are dropped: whatever the options say of labels is about the test part
        own = {"reader": reader, "root": options["train_root"] or options["root"], **dict.fromkeys(_OF_LABELS, "")}
        options = {**options, **own, "one_vs_rest": False}
    train = load(options, options["train"])
    if tasks is not None:
        train, test = (e if e is None or not e.tasks else e.only(tasks) for e in (train, test))
    if test is not None and (shared := _identities(train) & _identities(test)):
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
