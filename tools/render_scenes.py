"""Writes the embedded scenes in the on-disk layout of a real data set: for the readers' tests and for everybody's first real run.

    python tools/render_scenes.py --layout=voc --output=scenes_voc --count=200 --size=128
    python tools/render_scenes.py --layout=coco --output=scenes_coco --count=200 --size=128
    python tools/render_scenes.py --layout=folder --output=scenes_folder --count=200 --size=64
    python tools/render_scenes.py --layout=celeba --output=scenes_celeba --count=200 --size=64
    python tools/render_scenes.py --layout=cub --output=scenes_cub --count=200 --size=64
    python tools/render_scenes.py --layout=taskonomy --output=scenes_taskonomy --count=200 --size=64

voc: the devkit, one class a shape. An object too small or too hidden to count as present is flagged difficult, so a class file says 0
where an image holds only such instances. `trainval` is train and val together.

    OUTPUT/VOC2012/JPEGImages/2012_000001.jpg
                   Annotations/2012_000001.xml
                   ImageSets/Main/train.txt  val.txt  trainval.txt  test.txt  sphere_train.txt ...

coco: one category a shape, one annotation an object. COCO has no flag for difficult objects (iscrowd says something else), so what is too
small or too hidden to count as present is not annotated. Boxes are [x, y, width, height] from 0, areas in pixels, outlines left empty.

    OUTPUT/annotations/instances_train2014.json  instances_val2014.json  instances_test2014.json
           train2014/COCO_train2014_000000000001.jpg    000000000001.jpg from --year=2017 on

folder: a table a split; cells are 1 or 0, or the name of the class. Paths are relative to the table.

    OUTPUT/train/000000.jpg
           train.csv            path,sphere,ellipsoid,...,shape,shape_surface

celeba: every binary task is an attribute, 1 or -1. Files are numbered on over the splits.

    OUTPUT/list_attr_celeba.txt  list_eval_partition.txt
           img_align_celeba/000001.jpg

cub: shape x surface are the classes, each in a folder of its own, and val counts as train (the set knows training or not only).

    OUTPUT/CUB_200_2011/images/001.sphere_smooth/sphere_smooth_0001_1.jpg
                        images.txt  image_class_labels.txt  classes.txt  train_test_split.txt

taskonomy: dense truth as its codecs' integers. A split's scenes go in turn to the buildings of Taskonomy's official tiny split, each a
point with one view; with 25 scenes or more of train every building has some. Every pixel has a depth.

    OUTPUT/allensville/rgb/point_0_view_0_domain_rgb.png
                       depth_zbuffer/  normal/  edge_occlusion/  edge_texture/  keypoints2d/
                       point_info/point_0_view_0_domain_point_info.json
"""

from collections.abc import Iterator, Sequence
import csv
import itertools
import json
from pathlib import Path
import sys
import xml.etree.ElementTree as ElementTree

from absl import app, flags
import numpy as np
from PIL import Image

# run as a script from a checkout, where the package need not be installed: its folder is the one above this file's
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf.data import codecs, scenes  # noqa: E402
from amalgam_tf.data import splits as published_splits  # noqa: E402
from amalgam_tf.data.scenes import composing  # noqa: E402
from amalgam_tf.errors import UserError, or_exit  # noqa: E402

_LAYOUTS = ("voc", "coco", "folder", "celeba", "cub", "taskonomy")
_LAYOUT = flags.DEFINE_string("layout", None, ", ".join(_LAYOUTS[:-1]) + f" or {_LAYOUTS[-1]}")
_OUTPUT = flags.DEFINE_string("output", None, "folder to write to; must be new or empty")
_COUNT = flags.DEFINE_integer("count", 100, "scenes in each split")
_SIZE = flags.DEFINE_integer("size", 64, "height and width of the pictures in pixels")
_SEED = flags.DEFINE_integer("seed", 0, "which world the scenes are drawn from")
_SPLITS = flags.DEFINE_list("splits", ["train", "val", "test"], "which of train, val, test")
_YEAR = flags.DEFINE_integer("year", None, "voc (2012 by default), coco (2014): the year in names of folders and files")
_TASKS = flags.DEFINE_list("tasks", [], "folder: label columns; all by default")
_IMAGE = flags.DEFINE_enum("image_format", "jpg", ["jpg", "png"], "folder: kind of the picture files")

_CHUNK = 64


def write_voc(output: Path, *, splits: Sequence[str], count: int, size: int, seed: int, year: int) -> None:
    """Writes a VOC devkit with the splits (and trainval, where train and val are among them) of one year."""
    root = output / f"VOC{year}"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    # the first years numbered their images plainly
    ids = (f"{n:06d}" if year <= 2007 else f"{year}_{n:06d}" for n in range(1, len(splits) * count + 1))
    presence = {split: {} for split in splits}
    for split in splits:
        for _, image, _, objects in _drawn(split, count, size, seed):
            name = next(ids)
            _save(image, root / "JPEGImages" / f"{name}.jpg")
            _annotation(name, year, size, objects).write(root / "Annotations" / f"{name}.xml")
            presence[split][name] = {shape: _presence(shape, objects) for shape in scenes.SHAPES}
    if "train" in presence and "val" in presence:
        presence["trainval"] = presence["train"] | presence["val"]
    for split, rows in presence.items():
        _write_lists(root / "ImageSets" / "Main", split, rows)


def write_coco(output: Path, *, splits: Sequence[str], count: int, size: int, seed: int, year: int) -> None:
    """Writes a folder of pictures and an instances file for each split of one year. Image and annotation ids run on over the splits."""
    (output / "annotations").mkdir(parents=True)
    image_ids, annotation_ids = itertools.count(1), itertools.count(1)
    categories = [{"supercategory": "shape", "id": number, "name": shape} for number, shape in enumerate(scenes.SHAPES, 1)]
    for split in splits:
        name = f"{split}{year}"
        (output / name).mkdir()
        images, annotations = [], []
        for _, image, _, objects in _drawn(split, count, size, seed):
            image_id = next(image_ids)
            # the first years wrote the split into the file name
            file_name = f"COCO_{name}_{image_id:012d}.jpg" if year < 2017 else f"{image_id:012d}.jpg"
            _save(image, output / name / file_name)
            images.append({"license": 0, "file_name": file_name, "height": size, "width": size, "id": image_id})
            annotations += [_instance(next(annotation_ids), image_id, size, thing) for thing in objects if not _difficult(thing)]
        content = {
            "info": {"description": "amalgam_tf scenes", "year": year},
            "licenses": [{"id": 0, "name": "rendered"}],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (output / "annotations" / f"instances_{name}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


def write_folder(
    output: Path, *, splits: Sequence[str], count: int, size: int, seed: int, tasks: Sequence[str] = (), image_format: str = "jpg"
) -> None:
    """Writes a folder of pictures and a table of labels for each split, and the class names of category columns (classes.json).

    Raises:
        UserError: a task that scenes do not have.
    """
    known = {t.name: t for t in scenes.TASKS}
    if unknown := [t for t in tasks if t not in known]:
        raise UserError(f"scenes have no truth for {', '.join(unknown)} (--tasks); they have {', '.join(known)}")
    columns = [known[t] for t in tasks or known]
    output.mkdir(parents=True, exist_ok=True)
    if categories := {t.name: list(t.labels) for t in columns if t.labels}:
        (output / "classes.json").write_text(json.dumps(categories, indent=2) + "\n", encoding="utf-8")
    for split in splits:
        (output / split).mkdir()
        with open(output / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path", *(t.name for t in columns)])
            for number, image, labels, _ in _drawn(split, count, size, seed):
                path = f"{split}/{number:06d}.{image_format}"
                _save(image, output / path)
                table.writerow([path, *(t.labels[labels[t.name]] if t.labels else labels[t.name] for t in columns)])


def write_celeba(output: Path, *, splits: Sequence[str], count: int, size: int, seed: int) -> None:
    """Writes the aligned pictures, the attributes of all and who belongs to which split (0 train, 1 val, 2 test)."""
    names = [t.name for t in scenes.TASKS if t.kind == "binary"]
    (output / "img_align_celeba").mkdir(parents=True)
    rows, partition = [], []
    for split in splits:
        for _, image, labels, _ in _drawn(split, count, size, seed):
            name = f"{len(rows) + 1:06d}.jpg"
            _save(image, output / "img_align_celeba" / name)
            rows.append(f"{name} " + " ".join(f"{2 * labels[n] - 1:2d}" for n in names))
            partition.append(f"{name} {('train', 'val', 'test').index(split)}")
    _write_lines(output / "list_attr_celeba.txt", [str(len(rows)), " ".join(names) + " ", *rows])
    _write_lines(output / "list_eval_partition.txt", partition)


def write_cub(output: Path, *, splits: Sequence[str], count: int, size: int, seed: int) -> None:
    """Writes the pictures into folders by shape and surface, and the four lists that number them."""
    (task,) = (t for t in scenes.TASKS if t.name == "shape_surface")
    root = output / "CUB_200_2011"
    folders = [f"{i:03d}.{name}" for i, name in enumerate(task.labels, 1)]
    images, labels, sides = [], [], []
    for split in splits:
        for _, image, truth, _ in _drawn(split, count, size, seed):
            number, label = len(images) + 1, truth[task.name]
            name = f"{folders[label]}/{task.labels[label]}_{labels.count(label) + 1:04d}_{number}.jpg"
            (root / "images" / folders[label]).mkdir(parents=True, exist_ok=True)
            _save(image, root / "images" / name)
            images.append(f"{number} {name}")
            labels.append(label)
            sides.append(f"{number} {int(split != 'test')}")
    _write_lines(root / "images.txt", images)
    _write_lines(root / "image_class_labels.txt", [f"{i} {label + 1}" for i, label in enumerate(labels, 1)])
    _write_lines(root / "classes.txt", [f"{i} {folder}" for i, folder in enumerate(folders, 1)])
    _write_lines(root / "train_test_split.txt", sides)


def write_taskonomy(output: Path, *, splits: Sequence[str], count: int, size: int, seed: int) -> None:
    """Writes pictures, dense truth and what is known of each view, spread over the buildings of the official tiny splits."""
    official = published_splits.load_groups("taskonomy")
    for split in splits:
        buildings = official[f"tiny_{split}"]
        for number, maps in _drawn_maps(split, count, size, seed):
            point, building = divmod(number, len(buildings))
            folder, stem = output / buildings[building], f"point_{point}_view_0_domain"
            for domain, values in maps.items():
                (folder / domain).mkdir(parents=True, exist_ok=True)
                _save(values, folder / domain / f"{stem}_{domain}.png")
            (folder / "point_info").mkdir(exist_ok=True)
            info = _point_info(folder.name, point, size, composing.compose(seed, scenes.split_indices(split, count)[number])[0].camera)
            (folder / "point_info" / f"{stem}_point_info.json").write_text(json.dumps(info) + "\n", encoding="utf-8")


def _point_info(building: str, point: int, size: int, camera) -> dict:
    return {
        "model_id": building,
        "point_uuid": str(point),
        "view_id": 0,
        "resolution": size,
        "camera_location": [float(v) for v in camera.position],  # metres
        "field_of_view_rads": float(2 * np.arctan(1 / camera.focal)),
    }


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _drawn(split, count, size, seed) -> Iterator[tuple]:
    """(number in the split, image, labels by task, objects) of each scene, a few drawn at a time."""
    indices = scenes.split_indices(split, count)
    for start in range(0, count, _CHUNK):
        drawn = scenes.render(seed, indices[start : start + _CHUNK], size)
        for i, image in enumerate(drawn.images):
            yield start + i, image, {name: int(values[i]) for name, values in drawn.labels.items()}, drawn.objects[i]


def _drawn_maps(split, count, size, seed) -> Iterator[tuple[int, dict]]:
    """(number in the split, picture and raw maps by domain) of each scene, a few drawn at a time."""
    indices = scenes.split_indices(split, count)
    for start in range(0, count, _CHUNK):
        chunk = indices[start : start + _CHUNK]
        images, dense = scenes.render(seed, chunk, size).images, scenes.dense(seed, chunk, size)
        raw = {domain: codecs.get(domain).to_raw(dense[name]) for name, domain in scenes.DOMAINS.items()}
        for i, image in enumerate(images):
            yield start + i, {"rgb": image, **{domain: maps[i].squeeze() for domain, maps in raw.items()}}


def _save(image, path: Path) -> None:
    Image.fromarray(image).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def _difficult(thing: scenes.SceneObject) -> bool:
    return thing.fraction < scenes.MIN_FRACTION


def _presence(shape: str, objects: Sequence[scenes.SceneObject]) -> int:
    """1 present, 0 only difficult ones, -1 absent."""
    difficult = [_difficult(o) for o in objects if o.shape == shape]
    return -1 if not difficult else int(not all(difficult))


def _annotation(name, year, size, objects) -> ElementTree.ElementTree:
    def add(parent, tag, text=None):
        child = ElementTree.SubElement(parent, tag)
        child.text = None if text is None else str(text)
        return child

    root = ElementTree.Element("annotation")
    add(root, "folder", f"VOC{year}")
    add(root, "filename", f"{name}.jpg")
    source = add(root, "source")
    for tag, text in {"database": "amalgam_tf scenes", "annotation": f"PASCAL VOC{year}", "image": "rendered"}.items():
        add(source, tag, text)
    shape = add(root, "size")
    for tag, value in {"width": size, "height": size, "depth": 3}.items():
        add(shape, tag, value)
    add(root, "segmented", 0)
    for thing in objects:
        entry = add(root, "object")
        truncated = int(min(thing.box) == 1 or max(thing.box) == size)
        facts = {"name": thing.shape, "pose": "Unspecified", "truncated": truncated, "difficult": int(_difficult(thing))}
        for tag, value in facts.items():
            add(entry, tag, value)
        box = add(entry, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), thing.box, strict=True):
            add(box, tag, value)
    ElementTree.indent(root, "\t")
    return ElementTree.ElementTree(root)


def _instance(number: int, image_id: int, size: int, thing: scenes.SceneObject) -> dict:
    left, top, right, bottom = thing.box
    return {
        "segmentation": [],
        "area": round(thing.fraction * size * size, 2),
        "iscrowd": 0,
        "image_id": image_id,
        "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
        "category_id": scenes.SHAPES.index(thing.shape) + 1,
        "id": number,
    }


def _write_lists(folder: Path, split: str, rows: dict[str, dict[str, int]]) -> None:
    (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in rows))
    for shape in scenes.SHAPES:
        (folder / f"{shape}_{split}.txt").write_text("".join(f"{name} {row[shape]:2d}\n" for name, row in rows.items()))


def run() -> None:
    """Does what the flags say.

    Raises:
        UserError: a flag that cannot be followed, or an output folder that is not empty or cannot be written.
    """
    if _LAYOUT.value not in _LAYOUTS:
        raise UserError(f"unknown --layout {_LAYOUT.value or '(not set)'}: choose {', '.join(_LAYOUTS[:-1])} or {_LAYOUTS[-1]}")
    if not _OUTPUT.value:
        raise UserError("--output is not set: name the folder to write to")
    splits = list(dict.fromkeys(_SPLITS.value))
    if not splits or set(splits) - set(scenes.SPLITS):
        raise UserError(f"cannot draw --splits={','.join(splits)}: choose from {', '.join(scenes.SPLITS)}")
    # before anything is written, so that a mistake leaves no half-made folder behind
    year = {"coco": 2014}.get(_LAYOUT.value, 2012) if _YEAR.value is None else _YEAR.value
    if not 1 <= _COUNT.value <= scenes.SPLIT_SIZE or _SEED.value < 0 or year < 1:
        raise UserError("--count and --year must be at least 1 and --seed at least 0")
    if not scenes.SMALLEST <= _SIZE.value <= scenes.LARGEST:
        raise UserError(f"--size must lie between {scenes.SMALLEST} and {scenes.LARGEST} pixels, not {_SIZE.value}")
    output = Path(_OUTPUT.value).expanduser()
    common = {"splits": splits, "count": _COUNT.value, "size": _SIZE.value, "seed": _SEED.value}
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"{output} exists and is not an empty folder (--output): name a new one")
        if _LAYOUT.value == "voc":
            write_voc(output, year=year, **common)
        elif _LAYOUT.value == "coco":
            write_coco(output, year=year, **common)
        elif _LAYOUT.value in ("celeba", "cub", "taskonomy"):
            {"celeba": write_celeba, "cub": write_cub, "taskonomy": write_taskonomy}[_LAYOUT.value](output, **common)
        else:
            write_folder(output, tasks=_TASKS.value, image_format=_IMAGE.value, **common)
    except OSError as error:
        raise UserError(f"cannot write to {error.filename or output} ({error.strerror}): name another folder with --output") from error
    print(f"wrote {len(splits)} x {_COUNT.value} scenes of {_SIZE.value} pixels to {output} ({_LAYOUT.value})")


def main(_) -> None:
    or_exit(run)


if __name__ == "__main__":
    app.run(main)
