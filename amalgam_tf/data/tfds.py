"""TensorFlow Datasets as a second source: the same `Examples` as the directory readers give.

    data.reader=tfds:voc/2007   data.root=<TFDS data_dir; empty: TFDS's own>   data.train=trainval   data.test=test

TFDS keeps the JPEGs in shuffled record files. They are written out once, byte for byte, as files of their own:

    <cache_dir>/tfds-voc-2007-test-<8 hex digits of where the data lie>/000001.jpg
                                                                        index.npz    the truth; written last

So pixels, caches and sentences about bad images are those of a directory, and so are ids, hold-outs, tasks and labels. Where `index.npz`
is whole and the JPEGs have their sizes, no record file is opened and no JPEG touched (caches go by their time of change). The folder takes
as much space as the record files; whoever deletes it pays for one more pass over them.

Examples are sorted by id, as VOC's own lists and the reader `coco` have them. Differences from the directory readers: COCO's categories
come in the order of its file (TFDS does not keep their ids), which in the official files is that of the ids; and TFDS prepares VOC and
COCO whole or not at all, so there is no `only_available`. Of CelebA it does not keep the file names: ids are the places in the record
files, so hold-outs and parts are others than those of a directory. Of the fine-grained sets FGVC-Aircraft has no builder, and the host
that cars196 downloads from is gone (issue 5053): it must have been prepared before.

Nothing is downloaded unless `download` says so. TFDS is optional and imported on first use; its builders also need importlib_resources,
which TFDS 4.9.10 does not ask for (tensorflow/datasets issue 11212).
"""

from collections.abc import Iterator, Sequence
import hashlib
import io
import os
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np

from amalgam_tf.data import coco, fine_grained, voc
from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError, did_you_mean, one_of
from amalgam_tf.tasks import Task

SETS = ("voc/2007", "voc/2012", "coco/2014", "coco/2017", "celeb_a")
FINE_GRAINED = {"stanford_dogs": "dogs", "caltech_birds2011": "cub", "cars196": "cars"}  # read by `listing`
# The organisers keep this truth to themselves. TFDS says "no object" of each image instead, which must not be read as absent.
UNLABELLED = {("voc/2012", "test"), ("coco/2014", "test"), ("coco/2014", "test2015"), ("coco/2017", "test")}
ALIASES = {"val": ("validation",), "trainval": ("train", "validation")}  # as the directory readers say it
FOLDERS = (
    "stanford_dogs",
    "caltech_birds2011",
)  # their classes are told by the images' folders; TFDS writes them in lower case or not at all
PACKAGES = "tensorflow-datasets importlib_resources"

_ABSENT, _DOUBTFUL, _PRESENT = range(3)  # doubtful: only difficult instances (VOC), only crowd regions (COCO)
_INDEX = "index.npz"
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.jpg")  # no slash, no leading dot: a file stays inside the folder


class _Listing(NamedTuple):
    """What one split holds, in the order of the records."""

    names: np.ndarray  # str [c] tasks
    ids: np.ndarray  # str [n]
    files: np.ndarray  # str [n] names of the JPEGs
    sizes: np.ndarray  # int64 [n] their bytes
    presence: np.ndarray  # uint8 [n, c] of _ABSENT, _DOUBTFUL, _PRESENT


def load(
    *,
    name: str,
    split: str,
    cache_dir: Path | None,
    data_dir: Path | None = None,
    classes: Sequence[str] | None = None,
    difficult: str = "ignore",
    crowd: str = "positive",
    download: bool = False,
) -> Examples:
    """Reads one split of a data set prepared by TFDS, as a binary task a class (VOC, COCO: sigmoid) or attribute (CelebA: softmax2).

    Args:
        name: one of `SETS`.
        split: a split of TFDS (train, validation, test; coco/2014 has test2015 as well), `val` for validation, `trainval` for train and
            validation together, or several joined by `+`. Parts of a split (`train[:10%]`) are not taken: TFDS shuffles.
        cache_dir: where the JPEGs are written, see above; None is refused.
        data_dir: the TFDS data_dir, a folder; None for TFDS's own (TFDS_DATA_DIR, or tensorflow_datasets in the home folder).
        classes: which classes, in this order; None takes all, in the order of the directory reader. `()` reads the images alone.
        difficult: VOC: what an image counts as whose only instances of a class are flagged difficult: ignore, negative or positive (A2).
        crowd: COCO: what an image counts as whose only annotations of a class are crowd regions: positive, ignore or negative.
        download: fetch and prepare a data set that is not there, instead of failing.

    Returns:
        The examples, named as by the directory reader (`voc2012/val`, `coco/val2014`, `celeba/val`) and sorted by id (VOC: the file's
        stem, COCO: the image id, CelebA: the place in the record files); labels int32 [n] of 1, 0 and `IGNORE`. No task at all where the
        truth of any part of the split is secret (`UNLABELLED`).

    Raises:
        UserError: TFDS not installed; data not prepared, not to be fetched, or damaged; data set, split, class or switch unknown; no
            `cache_dir`, or one that cannot be written.
    """
    one_of("TFDS data set", name, SETS)
    family, _, year = name.partition("/")
    switches = {"voc": ("difficult", difficult, voc.DIFFICULT_AS), "coco": ("crowd", crowd, coco.CROWD_AS)}
    key, value, meanings = switches.get(family, ("", "", {"": 0}))
    one_of(key, value, meanings)
    parts, paths, found = _read(name, split, cache_dir, data_dir, download)
    ids, names = [str(i) for i in found.ids], [str(n) for n in found.names]
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), ids[i]))  # of equally long ids by letters, of numbers by value
    secret = any((name, part) in UNLABELLED for part in parts)
    chosen = () if secret else _chosen(name, names, names if classes is None else classes)
    truth = np.array([0, meanings[value], 1], np.int32)[found.presence[order]]
    return Examples(
        name=_name(family, year, parts),
        ids=tuple(ids[i] for i in order),
        images=[paths[i] for i in order],
        tasks=tuple(Task(c, head="softmax2" if family == "celeb_a" else "sigmoid") for c in chosen),
        labels={c: np.ascontiguousarray(truth[:, names.index(c)]) for c in chosen},
    )


def listing(*, name: str, split: str, cache_dir: Path | None, data_dir: Path | None = None, download: bool = False) -> fine_grained.Listing:
    """Reads one split of a fine-grained set prepared by TFDS, as `fine_grained.listing` does a directory.

    Args:
        name: one of `FINE_GRAINED`.
        split: train or test; trainval means train.
        cache_dir, data_dir, download: as in `load`.

    Raises:
        UserError: as `load`.
    """
    one_of("fine-grained TFDS data set", name, FINE_GRAINED)
    _, paths, found = _read(name, split, cache_dir, data_dir, download)
    classes = tuple(str(n) for n in found.names)
    rows = sorted(zip(paths, (classes[i] for i in found.presence.argmax(1)), strict=True), key=lambda row: row[0].stem)
    images, labels = zip(*rows, strict=True)
    return fine_grained.Listing(FINE_GRAINED[name], split, classes, images, labels)


def _read(name: str, split: str, cache_dir: Path | None, data_dir: Path | None, download: bool) -> tuple[list[str], list[Path], _Listing]:
    """(splits of TFDS, files, what is known of them), split after split in the order of the records."""
    if cache_dir is None:
        raise UserError(f"data.reader=tfds:{name} writes the images out as files: set data.cache_dir to a folder with space for them")
    builder = _builder(name, data_dir, download)
    parts = _parts(builder, name, split)
    found = {part: _listing(builder, name, part, Path(cache_dir)) for part in parts}
    paths = [_folder(builder, name, part, Path(cache_dir)) / str(file) for part, one in found.items() for file in one.files]
    _, *columns = zip(*found.values(), strict=True)
    return parts, paths, _Listing(found[parts[0]].names, *(np.concatenate(column) for column in columns))


def _name(family: str, year: str, parts: Sequence[str]) -> str:
    """As the directory reader calls the split, so that equal data have equal fingerprints."""
    short = ["val" if p == "validation" else p for p in parts]
    if family == "celeb_a":
        return f"celeba/{'+'.join(short)}"
    if family == "coco":
        return "coco/" + "+".join(p if p == "test2015" else p + year for p in short)
    return f"voc{year}/" + ("trainval" if short == ["train", "val"] else "+".join(short))


def _chosen(name: str, names: Sequence[str], classes: Sequence[str]) -> list[str]:
    chosen = [c.replace(" ", "_") for c in classes]
    for c in chosen:
        if c not in names:
            raise UserError(f"{c!r} is not a class of tfds:{name}: {did_you_mean(c, names)}")
        if chosen.count(c) > 1:
            raise UserError(f"class {c!r} is asked for twice: remove one")
    return chosen


# ---- TFDS ---------------------------------------------------------------------------------------------------------------------------


def _tfds(name: str) -> Any:
    try:
        import importlib_resources  # noqa: F401  every builder imports it, after the package itself was imported without it
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(f"data.reader=tfds:{name} needs packages that are not there ({error}): pip install {PACKAGES}") from error
    return tensorflow_datasets


def _builder(name: str, data_dir: Path | None, download: bool) -> Any:
    """The `DatasetBuilder` of a data set whose record files are there."""
    tfds = _tfds(name)
    try:
        builder = tfds.builder(name, data_dir=None if data_dir is None else os.fspath(data_dir))
        prepared = _info(builder).exists()  # is_prepared() says the same, with a warning of its own on the way
    except Exception as error:  # TFDS fails over damaged metadata in a dozen ways
        raise UserError(f"TFDS cannot open {name} in {data_dir or 'its data_dir'} ({_line(error)}): prepare it again") from error
    if prepared:
        return builder
    full, place = builder.info.full_name, _data_dir(builder)
    if not download:
        code = f"import tensorflow_datasets as t; t.builder({name!r}, data_dir={place!r}).download_and_prepare()"
        raise UserError(
            f"TFDS has not prepared {full} in {place}: set data.root to the data_dir that holds it, "
            f'pass --config.data.download=True, or run python -c "{code}"'
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # no network, a host that is gone, a checksum that drifted, a full disk, ...
        raise UserError(f"TFDS could not prepare {full} in {place} ({_line(error)}): mend that, or read a directory instead") from error
    return builder


def _info(builder: Any) -> Any:
    """The file that TFDS writes last."""
    return builder.data_path / "dataset_info.json"


def _data_dir(builder: Any) -> str:
    """The folder that a user calls data_dir: the builder's own without `voc/2007/5.0.0`."""
    return os.fspath(builder.data_path).removesuffix(builder.info.full_name).rstrip("/")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _parts(builder: Any, name: str, split: str) -> list[str]:
    """The splits of TFDS that are asked for, each once and sorted: `trainval` and `validation+train` are the same."""
    known = sorted(builder.info.splits)
    aliases = ALIASES if "validation" in known else {"trainval": ("train",)}
    parts = [part for word in split.split("+") for part in aliases.get(word, (word,))]
    for part in parts:
        if part not in known:
            raise UserError(f"tfds:{name} has no split {part!r}: {did_you_mean(part, [*known, *aliases])}")
    return sorted(set(parts))


def _records(builder: Any, name: str, split: str) -> Iterator[tuple[str, str, bytes, Sequence, Sequence]]:
    """(id, file name, JPEG, classes with a plain instance, classes with any) of each record; classes by number or, in `FOLDERS`, folder."""
    tfds = _tfds(name)
    config = tfds.ReadConfig(try_autocache=False, add_tfds_id=name == "celeb_a")
    data = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()}, read_config=config)
    for record in tfds.as_numpy(data):
        whole = _file_name(name, record)
        folder, _, file = whole.rpartition("/") if name in FOLDERS else ("", "", whole)
        if not _FILE.fullmatch(file):
            raise UserError(f"tfds:{name} {split} holds an image called {whole[:60]!r}, which is no name of a JPEG file: prepare it again")
        image_id = str(record["image/id"]) if name.startswith("coco/") else Path(file).stem
        yield image_id, file, record["image"], *_marks(name, record, folder.rpartition("/")[2])


def _file_name(name: str, record: dict[str, Any]) -> str:
    if name == "celeb_a":  # celeb_a-train.tfrecord-00003-of-00016__12, all that is left of the name
        return re.sub(rb"celeb_a-(\w+)\.tfrecord-(\d+)-of-\d+__(\d+)", rb"\1-\2-\3.jpg", record["tfds_id"]).decode("utf-8", "replace")
    return (record["id"] + b".jpg" if name == "cars196" else record["image/filename"]).decode("utf-8", "replace")


def _marks(name: str, record: dict[str, Any], folder: str) -> tuple[Sequence, Sequence]:
    """(classes with a plain instance, classes with any)."""
    if name.startswith("voc/"):  # not `objects`: the two lists are what TFDS itself makes of the flag
        return record["labels_no_difficult"], record["labels"]
    if name.startswith("coco/"):
        labels, crowds = record["objects"]["label"], record["objects"]["is_crowd"]
        return labels[~crowds], labels
    if name == "celeb_a":
        present = np.flatnonzero([record["attributes"][n] for n in sorted(record["attributes"])])
    else:
        present = [folder] if name in FOLDERS else [record["label"]]
    return present, present


def _class_list(builder: Any, name: str, marks: Sequence[tuple[Sequence, Sequence]]) -> tuple[list[str], dict | range]:
    """(class names, what stands for each in the records -> its place)."""
    features = builder.info.features
    if name in FOLDERS:
        folders = sorted({f for _, every in marks for f in every})
        return [fine_grained.class_of(f) for f in folders], {f: i for i, f in enumerate(folders)}
    if name == "celeb_a":
        names = sorted(features["attributes"].keys())  # which is the order of CelebA's own file
    elif name.startswith("voc/"):
        names = features["labels"].feature.names
    elif name.startswith("coco/"):
        names = [n.replace(" ", "_") for n in features["objects"]["label"].names]  # the rule of coco.py
    else:
        names = features["label"].names
    return list(names), range(len(names))


# ---- the JPEGs written out ----------------------------------------------------------------------------------------------------------


def _folder(builder: Any, name: str, split: str, cache_dir: Path) -> Path:
    place = hashlib.sha256(os.path.realpath(builder.data_path).encode()).hexdigest()[:8]  # two data_dirs may hold other images of one name
    return cache_dir / f"tfds-{name.replace('/', '-')}-{split}-{place}"


def _listing(builder: Any, name: str, split: str, cache_dir: Path) -> _Listing:
    """The listing of an earlier run, if all its files are there; otherwise one pass over the records that writes what is missing."""
    folder = _folder(builder, name, split, cache_dir)
    info = _info(builder)
    # prepared again, read again; the 1 stands for what is stored, and how: raise it when that changes
    source = f"1 {hashlib.sha256(info.read_bytes()).hexdigest()} {info.stat().mtime}"
    listing = _read_index(folder, source)
    return listing if listing is not None else _extract(builder, name, split, folder, source)


def _extract(builder: Any, name: str, split: str, folder: Path, source: str) -> _Listing:
    from tensorflow import errors

    rows, marks = [], []
    try:
        for image_id, file, jpeg, plain, every in _records(builder, name, split):
            _write(folder / file, jpeg)
            rows.append((image_id, file, len(jpeg)))
            marks.append((plain, every))
    except errors.OpError as error:
        raise UserError(f"the {split} records in {builder.data_path} cannot be read ({_line(error)}): prepare {name} again") from error
    if not rows:
        raise UserError(f"the {split} records in {builder.data_path} hold no image: prepare {name} again")
    names, place = _class_list(builder, name, marks)
    presence = np.full((len(rows), len(names)), _ABSENT, np.uint8)
    for row, (plain, every) in zip(presence, marks, strict=True):
        row[[place[c] for c in every]] = _DOUBTFUL
        row[[place[c] for c in plain]] = _PRESENT
    ids, files, sizes = zip(*rows, strict=True)
    listing = _Listing(np.array(names), np.array(ids), np.array(files), np.array(sizes, np.int64), presence)
    np.savez_compressed(index := io.BytesIO(), source=np.array(source), **listing._asdict())
    _write(folder / _INDEX, index.getvalue())
    return listing


def _write(path: Path, content: bytes) -> None:
    """Publishes a file whole; leaves one alone that says the same, since caches go by its time of change."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"the image file {path} cannot be written ({error.strerror}): set data.cache_dir to a folder with space") from error


def _read_index(folder: Path, source: str) -> _Listing | None:
    """What an earlier run wrote, or None where it is missing, damaged, of other records, or where a JPEG is not as it was."""
    try:
        with np.load(folder / _INDEX, allow_pickle=False) as stored:  # ZIP checksums find damage
            if stored["source"] != source:
                return None
            listing = _Listing(*(stored[field] for field in _Listing._fields))
        whole = all(os.path.getsize(folder / file) == size for file, size in zip(listing.files, listing.sizes, strict=True))
    except Exception:  # missing, or damaged: NumPy, zipfile and zlib fail over that in a dozen ways; each means the same: read the records
        return None
    return listing if whole else None
