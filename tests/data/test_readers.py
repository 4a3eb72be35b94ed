"""From a config's `data` section to `Examples`: what `render_scenes` writes is read back with the truth of the scenes."""

import json
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

from amalgam_tf import data
from amalgam_tf.data import pipeline, scenes
from amalgam_tf.errors import UserError
from configs import common

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    for layout in ("voc", "coco", "folder"):
        flags = [f"--layout={layout}", f"--output={folder / layout}", "--count=12", "--size=24", "--seed=1", "--splits=train,test"]
        subprocess.run([sys.executable, ROOT / "tools" / "render_scenes.py", *flags], check=True, capture_output=True)
    return folder


def section(reader, root, **changes):
    options = common.scenes()
    options.update({"reader": reader, "root": str(root), "cache_dir": "", "hold_out": 0.4, **changes})
    return options


def test_voc_layout(rendered):
    options = section("voc", rendered / "voc", classes=",".join(scenes.SHAPES), difficult="negative")
    read = data.load(options, "train")
    truth = scenes.render(1, scenes.split_indices("train", 12), 24).labels
    for shape in scenes.SHAPES:
        np.testing.assert_array_equal(read.labels[shape], truth[shape])


@pytest.mark.parametrize("split", ["train", "test"])
def test_coco_layout(rendered, split):
    read = data.load(section("coco", rendered / "coco"), f"{split}2014")
    drawn = scenes.render(1, scenes.split_indices(split, 12), 24)
    assert [t.name for t in read.tasks] == list(scenes.SHAPES)
    for shape in scenes.SHAPES:
        np.testing.assert_array_equal(read.labels[shape], drawn.labels[shape])
    pixels = pipeline.pixels(read, 24).astype(float)
    assert np.abs(pixels - drawn.images).mean(axis=(1, 2, 3)).max() < 12  # the images stand beside their own labels


def test_coco_options_reach_the_reader(rendered, tmp_path):
    (tmp_path / "annotations").mkdir()
    content = json.loads((rendered / "coco" / "annotations" / "instances_train2014.json").read_text())
    for entry in content["annotations"]:
        entry["iscrowd"] = 1
    (tmp_path / "annotations" / "instances_some.json").write_text(json.dumps(content))
    (tmp_path / "pictures").mkdir()
    for entry in content["images"][:-1]:
        (tmp_path / "pictures" / entry["file_name"]).symlink_to(rendered / "coco" / "train2014" / entry["file_name"])
    chosen = {"classes": "cone, sphere", "images": "pictures", "crowd": "ignore", "only_available": True}
    read = data.load(section("coco", tmp_path, **chosen), "some")
    truth = scenes.render(1, scenes.split_indices("train", 12), 24).labels
    assert list(read.labels) == ["cone", "sphere"] and read.ids == tuple(str(n) for n in range(1, 12))
    for shape in read.labels:
        np.testing.assert_array_equal(read.labels[shape], -truth[shape][:-1])  # IGNORE for every 1


def test_folder_layout_with_categories(rendered):
    options = section("folder", rendered / "folder", categories="classes.json", train="train", test="test.csv")
    read = data.load(options, "test.csv")
    truth = scenes.render(1, scenes.split_indices("test", 12), 24).labels
    assert {t.name for t in read.tasks} == set(truth)
    for name in truth:
        np.testing.assert_array_equal(read.labels[name], truth[name])
    parts = data.parts(options)
    assert not parts.train.tasks and not parts.held_out.tasks  # a folder of images has no labels
    assert len(parts.train) + len(parts.held_out) == 12 and len(parts.test) == 12
    assert set(parts.train.ids).isdisjoint(parts.held_out.ids)


def test_category_column_without_names_says_what_to_do(rendered):
    with pytest.raises(UserError, match="shape"):
        data.load(section("folder", rendered / "folder"), "test.csv")


@pytest.mark.parametrize("text", ["{", "[1]", '{"shape": "sphere"}'])
def test_damaged_class_names(rendered, tmp_path, text):
    (tmp_path / "classes.json").write_text(text)
    (tmp_path / "test.csv").write_text((rendered / "folder" / "test.csv").read_text())
    with pytest.raises(UserError, match="data.categories"):
        data.load(section("folder", tmp_path, categories="classes.json"), "test.csv")


def test_unknown_reader_and_missing_root():
    with pytest.raises(UserError, match="unknown data.reader 'imagenet'"):
        data.load(section("imagenet", "x"), "train")
    with pytest.raises(UserError, match="data.root is not set"):
        data.load(section("voc", ""), "train")


def test_rows_of_a_csv_by_split_column(rendered, tmp_path):
    rows = (rendered / "folder" / "train.csv").read_text().splitlines()
    names = rows[0].split(",")
    keep = [i for i, n in enumerate(names) if n in ("path", "sphere")]
    lines = ["path,sphere,split"] + [
        ",".join([r.split(",")[i] for i in keep] + ["val" if k % 3 == 0 else "train"]) for k, r in enumerate(rows[1:])
    ]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    (tmp_path / "train").symlink_to(rendered / "folder" / "train")
    parts = data.parts(section("folder", tmp_path, train="all.csv:train", test="all.csv:val"))
    assert len(parts.test) == 4 and len(parts.train) + len(parts.held_out) == 8


def test_images_in_both_splits_are_refused(rendered):
    with pytest.raises(UserError, match="12 images stand in both"):
        data.parts(section("folder", rendered / "folder", train="train", test="train"))


def test_same_names_in_another_folder_are_other_pixels(tmp_path):
    """The cache of decoded pixels is keyed by where files are and when they changed, not by their names."""
    from PIL import Image

    from amalgam_tf.data import folder, pipeline

    values = []
    for name, grey in (("one", 0), ("two", 255)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8, 3), grey, np.uint8)).save(tmp_path / name / "0.bmp")
        values.append(pipeline.pixels(folder.load(path=tmp_path / name), 8, tmp_path / "cache").mean())
    assert values == [0, 255]


def test_classes_in_another_order_are_refused():
    from amalgam_tf.tasks import Task

    examples = data.load(section("scenes", "", train_count=4), "train")
    shape = next(t for t in examples.tasks if t.name == "shape")
    examples.truth_for([shape])
    turned = Task("shape", kind="category", labels=shape.labels[::-1], head="softmax")
    with pytest.raises(UserError, match="same order"):
        examples.truth_for([turned])
