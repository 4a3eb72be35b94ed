"""Taskonomy: pictures of buildings with dense truth, one PNG a view and domain, found in whichever layout they were unpacked.

    root/wiconisco/normal/point_0_view_1_domain_normal.png                the release: {building}/{domain}/
    root/normal/taskonomy/wiconisco/point_0_view_1_domain_normal.png      Omnidata: {domain}/taskonomy/{building}/
    root/wiconisco/rgb/train/point_0_view_1_domain_rgb.png                KE: as the release, rgb in train/ and test/
    root/normal/point_0_view_1_domain_normal.png                          one building: {domain}/; it is called as root is

A domain may also have the name that the task bank gave it (`ALIASES`). Files are matched by (building, point, view), rgb saying which
views there are; a view without the file of a wanted domain (or without its z-buffer, where that decides which pixels count) is left out
and noted. What the integers mean: `codecs.py`. Depth is depth_zbuffer unless depth_euclidean is asked for by name (spec S11).

Splits (spec/taskonomy 3.5, S13): official ones by building, in which wiconisco, SOKA's only building, belongs to val in every partition:
teachers of the task bank have not been trained on it. For one building: at random by image (S13) or by point (better: views of a point
show the same things), or the folders of KE.
"""

from collections.abc import Sequence
import csv
import io
from pathlib import Path
import re
from typing import NamedTuple

import numpy as np

from amalgam_tf.data import codecs, splits
from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError, did_you_mean, one_of

ALIASES = {
    **{"depth": "depth_zbuffer", "rgb2depth": "depth_zbuffer", "mist": "depth_euclidean", "rgb2mist": "depth_euclidean"},
    **{"rgb2sfnorm": "normal", "edge2d": "edge_texture", "edge": "edge_occlusion", "edge3d": "edge_occlusion"},
    **{"keypoint2d": "keypoints2d", "keypoint_2d": "keypoints2d", "keypoint": "keypoints3d", "keypoint3d": "keypoints3d"},
    **{"reshade": "reshading", "curvature": "principal_curvature"},
    **{"segment2d": "segment_unsup2d", "segment25d": "segment_unsup25d", "segmentsemantic": "segment_semantic"},
}
DOMAINS = ("rgb", *dict.fromkeys(ALIASES.values()))
SPLIT_BY = ("building", "image", "point", "folder")
PARTITIONS = ("tiny",)
VAL_COUNT = 3000  # images (S13)

_ZBUFFER = "depth_zbuffer"
_PICTURES = {"autoencoding": "rgb"}  # a task whose truth is a domain of another name
_FILE = re.compile(r"point_(\d+)_view_(\d+)_domain_(\w+)\.png")
_SIDES = ("train", "val", "test")  # folders within a domain (KE)

_Folders = dict[str, dict[str, Path]]  # building -> domain -> its folder


class View(NamedTuple):
    """One picture: which building, from which point, looking where."""

    building: str
    point: int
    view: int

    @property
    def id(self) -> str:
        return f"{self.building}/point_{self.point}_view_{self.view}"


def load(
    *,
    root: Path,
    split: str,
    tasks: Sequence[str] | None = None,
    buildings: Sequence[str] | None = None,
    partition: str = "tiny",
    split_by: str = "building",
    val_count: int = VAL_COUNT,
    only_available: bool = False,
) -> Examples:
    """Reads one split as a dense task a domain.

    Args:
        root: the folder of the data set; its layout is found out.
        split: by building: train, val, test of the partition, or several joined by `+`; by image or point: train, or val, which may also
            be called test; by folder: a sub-folder of rgb.
        tasks: domains (or `ALIASES`) with a codec, in this order; None takes all that any building has, of the two depths depth_zbuffer
            (S11). `()` reads the pictures alone.
        buildings: which; None takes all of the split. Those of other splits are passed over, so that one list serves train and test.
        partition: with split_by=building: tiny, or an official CSV (id,train,val,test, one building a line), its path from `root` on.
        split_by: building (the official splits), image (sorted by name, shuffled with seed 0, the last `val_count` are val: S13), point
            (the same with points, views of one staying together: as many as it takes for `val_count` images) or folder.
        val_count: images of the val side, with split_by image or point.
        only_available: leave out buildings of the partition that are not below `root` (the name then ends in `/available`) instead of
            failing.

    Returns:
        The examples, ordered by building, point and view; ids like `wiconisco/point_0_view_1`; labels: paths as str [n]; depth: the
        z-buffers' paths if a task needs them. `skipped`: the id of each view left out -> the file it lacks; the name then ends in
        `/complete`. Which views belong to a split does not depend on the tasks.

    Raises:
        UserError: no layout fits; building, split, task or partition unknown; a view twice; no complete view.
    """
    root = Path(root)
    one_of("data.split_by", split_by, SPLIT_BY)
    folders = _layout(root)
    wanted = _wanted(root, folders, tasks)
    chosen, name = _buildings(root, folders, split, buildings, partition, split_by, only_available)
    pictures = {v: p for b in chosen for v, p in _files(folders[b], b, "rgb").items()}
    if not pictures:
        raise UserError(f"{root} holds no file point_P_view_V_domain_rgb.png of {', '.join(chosen[:5])}: unpack its rgb there")
    return _examples(name, folders, _side(root, pictures, split, split_by, val_count), pictures, wanted)


def canonical(domain: str) -> str:
    """The domain's name in the release: `edge2d` is `edge_texture`; other names stay as they are."""
    return ALIASES.get(domain, domain)


# ---- what is on disk ----------------------------------------------------------------------------------------------------------------


def _sub_folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read as a folder ({error.strerror}): name Taskonomy's folder by data.root") from error


def _domains(folder: Path) -> dict[str, Path]:
    """Domain -> folder, of the sub-folders that are called like one; the release's name wins over an alias."""
    found = [p for p in _sub_folders(folder) if canonical(p.name) in DOMAINS]
    return {canonical(p.name): p for p in sorted(found, key=lambda p: p.name in DOMAINS)}


def _layout(root: Path) -> _Folders:
    """Where each building keeps each domain."""
    above = _domains(root)
    omnidata = {d: p / "taskonomy" for d, p in above.items() if (p / "taskonomy").is_dir()}
    if omnidata:
        folders = {}
        for domain, folder in omnidata.items():
            for building in _sub_folders(folder):
                folders.setdefault(building.name, {})[domain] = building
    elif above:
        folders = {root.resolve().name: above}
    else:
        folders = {p.name: found for p in _sub_folders(root) if (found := _domains(p))}
    if not any("rgb" in domains for domains in folders.values()):
        raise UserError(
            f"{root} has no layout of Taskonomy, neither BUILDING/rgb/ nor rgb/taskonomy/BUILDING/ nor rgb/ with files "
            "point_P_view_V_domain_rgb.png: unpack it there, or name the folder above its buildings by data.root"
        )
    return {b: d for b, d in sorted(folders.items()) if "rgb" in d}


def _files(domains: dict[str, Path], building: str, domain: str) -> dict[View, Path]:
    """The files of one domain of one building. One that says another domain in its name is none of it."""
    if domain not in domains:
        return {}
    files = {}
    for folder in (domains[domain], *(side for s in _SIDES if (side := domains[domain] / s).is_dir())):
        for path in folder.iterdir():
            if (match := _FILE.fullmatch(path.name)) and canonical(match[3]) == domain:
                view = View(building, int(match[1]), int(match[2]))
                if view in files:
                    raise UserError(f"{path} is also there as {files[view]}: remove one of the two")
                files[view] = path
    return files


# ---- what is asked for --------------------------------------------------------------------------------------------------------------


def _wanted(root: Path, folders: _Folders, tasks: Sequence[str] | None) -> tuple[str, ...]:
    """Names of codecs; every one has a domain somewhere below the root."""
    there = {d for domains in folders.values() for d in domains}
    if tasks is None:
        return tuple(d for d in codecs.CODECS if d in there and not (d == "depth_euclidean" and _ZBUFFER in there))
    names = tuple(canonical(t) for t in tasks)
    for asked, name in zip(tasks, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"Taskonomy's domain {asked!r} is asked for twice: remove one")
        needs = {_PICTURES.get(name, name)} | ({_ZBUFFER} if codecs.get(name).masked else set())
        if missing := sorted(needs - there):
            raise UserError(f"{root} holds no folder {missing[0]}, which task {name!r} needs: unpack it, or leave the task out")
    return names


def _buildings(
    root: Path, folders: _Folders, split: str, asked: Sequence[str] | None, partition: str, split_by: str, only_available: bool
) -> tuple[list[str], str]:
    """(the buildings to read as they are called on disk, the data's name)."""
    on_disk = {b.casefold(): b for b in folders}
    for name in asked or ():
        if name.casefold() not in on_disk:
            raise UserError(f"{root} holds no building {name!r} (data.buildings): {did_you_mean(name.casefold(), on_disk)}")
    suffix = f"/{'+'.join(asked) if len(asked) <= 3 else f'{len(asked)}_buildings'}" if asked else ""
    candidates = [b.casefold() for b in asked or folders]
    if split_by != "building":
        return sorted({on_disk[b] for b in candidates}), f"taskonomy/by_{split_by}/{split}{suffix}"
    lists = _partition(root, partition)
    for part in split.split("+"):
        one_of(f"split of partition {partition}", part, lists)
    listed = {b for part in split.split("+") for b in lists[part]}
    if not listed.intersection(candidates):
        raise UserError(
            f"none of the buildings {', '.join(candidates[:5])} is in {split} of partition {partition}: "
            "take those of the split, or divide the images of one by data.split_by=point"
        )
    missing = sorted(listed - set(on_disk)) if not asked else []
    if missing and not only_available:
        raise UserError(
            f"{root} lacks {len(missing)} of the {len(listed)} buildings in {split} of partition {partition}, {missing[0]} first: "
            "unpack them, name those to use by data.buildings, or pass --config.data.only_available=True to use those that are there"
        )
    chosen = sorted({on_disk[b] for b in candidates if b in listed})
    return chosen, f"taskonomy/{Path(partition).stem}/{split}{suffix}{'/available' if missing else ''}"


def _partition(root: Path, partition: str) -> dict[str, set[str]]:
    """Split -> its buildings in lower case."""
    if not partition.endswith(".csv"):
        one_of("data.taskonomy_partition (or the path of an official .csv)", partition, PARTITIONS)
        groups = splits.load_groups("taskonomy")
        return {name.removeprefix(f"{partition}_"): set(b) for name, b in groups.items() if name.startswith(f"{partition}_")}
    return _read_partition(root / partition)


def _read_partition(path: Path) -> dict[str, set[str]]:
    """An official table: columns id, train, val, test, of which one is 1. Those published have the line ends of old Macs (CR alone)."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # also makes every kind of line end \n
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} (data.taskonomy_partition) cannot be read as text ({error}): give the official CSV") from error
    table = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    if not {"id", *_SIDES}.issubset(table.fieldnames or ()):
        raise UserError(f"{path} lacks a column: its first line must be id,train,val,test")
    lists, seen = {side: set() for side in _SIDES}, set()
    for row in table:
        building, sides = (row["id"] or "").strip().casefold(), [s for s in _SIDES if (row[s] or "").strip() in ("1", "1.0")]
        if not building or len(sides) != 1 or building in seen:
            raise UserError(f"{path} line {table.line_num}: {row['id']!r} must be one building, there once, with a 1 in one column")
        seen.add(building)
        lists[sides[0]].add(building)
    return lists


def _side(root: Path, pictures: dict[View, Path], split: str, split_by: str, val_count: int) -> list[View]:
    """The views of the split."""
    if split_by == "building":
        return sorted(pictures)
    if split_by == "folder":
        views = sorted(v for v, p in pictures.items() if p.parent.name == split)
        if split not in _SIDES or not views:
            found = sorted({p.parent.name for p in pictures.values()} & set(_SIDES))
            raise UserError(
                f"{root} has no folder rgb/{split} with pictures (data.split_by=folder): there are {', '.join(found) or 'none'}"
            )
        return views
    one_of(f"split by {split_by}", split, _SIDES)
    groups = {}
    for view in sorted(pictures, key=lambda v: v.id):
        groups.setdefault(view if split_by == "image" else view[:2], []).append(view)
    if not 1 <= val_count < len(pictures):
        raise UserError(
            f"data.val_count={val_count} leaves a side of the {len(pictures)} pictures in {root} empty: choose 1 to {len(pictures) - 1}"
        )
    keys, val = list(groups), []
    for i in np.random.default_rng(0).permutation(len(keys))[::-1]:
        if len(val) >= val_count:
            break
        val += groups[keys[i]]
    views = sorted(set(pictures) - set(val)) if split == "train" else sorted(val)
    if not views:
        raise UserError(f"data.val_count={val_count} takes every point of {root}, so that train is empty: choose less")
    return views


def _examples(name: str, folders: _Folders, views: list[View], pictures: dict[View, Path], wanted: tuple[str, ...]) -> Examples:
    """The views that have every file, with the others noted."""
    domains = {task: _PICTURES.get(task, task) for task in wanted}
    masked = any(codecs.get(task).masked for task in wanted)
    needed = dict.fromkeys([*domains.values(), *([_ZBUFFER] if masked else [])])
    buildings = sorted({v.building for v in views})
    files = {d: {v: p for b in buildings for v, p in _files(folders[b], b, d).items()} for d in needed}
    lacking = {v: next((d for d in needed if v not in files[d]), None) for v in views}
    kept = [v for v in views if lacking[v] is None]
    skipped = {v.id: _lost(folders[v.building], v, d) for v, d in lacking.items() if d is not None}
    if not kept:
        first = next(iter(skipped.values()))
        raise UserError(f"none of the {len(views)} views of {name} has all its files, {first} is missing first: unpack that domain")
    return Examples(
        name=f"{name}/complete" if skipped else name,
        ids=tuple(v.id for v in kept),
        images=[pictures[v] for v in kept],
        tasks=tuple(codecs.task(task) for task in wanted),
        labels={task: _paths(files[d], kept) for task, d in domains.items()},
        depth=_paths(files[_ZBUFFER], kept) if masked else None,
        skipped=skipped,
    )


def _paths(files: dict[View, Path], views: list[View]) -> np.ndarray:
    return np.array([str(files[v]) for v in views])


def _lost(domains: dict[str, Path], view: View, domain: str) -> Path:
    """Where a missing file would be: in the domain's folder, or if there is none beside that of rgb."""
    file = f"point_{view.point}_view_{view.view}_domain_{domain.replace('segment_semantic', 'segmentsemantic')}.png"
    rgb = domains["rgb"]
    beside = rgb.parent / domain if rgb.name == "rgb" else rgb.parents[2] / domain / rgb.parent.name / rgb.name  # the second: Omnidata
    return domains.get(domain, beside) / file
