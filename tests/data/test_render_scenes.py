"""tools/render_scenes.py: what it writes is read back by hand and held against the scenes themselves."""

import csv
import json
import os
from pathlib import Path
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
from PIL import Image
import pytest

from amalgam_tf.data import celeba, codecs, fine_grained, maps, scenes, splits, taskonomy

TOOL = Path(__file__).resolve().parents[2] / "tools" / "render_scenes.py"


def _run(*arguments, cwd=None):
    # without the repository on the path: the tool has to find the package itself
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, env=environment, cwd=cwd)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voc") / "new"
    done = _run("--layout=voc", f"--output={folder}", "--count=30", "--size=48", "--seed=3")
    assert done.returncode == 0, done.stderr
    return folder / "VOC2012"


def _names(devkit, split):
    return (devkit / "ImageSets" / "Main" / f"{split}.txt").read_text().split()


def test_voc_lists(devkit):
    train, val, test = (_names(devkit, s) for s in ("train", "val", "test"))
    assert _names(devkit, "trainval") == train + val
    assert len(set(train + val + test)) == 90 and train[0] == "2012_000001"
    assert sorted(p.stem for p in (devkit / "JPEGImages").iterdir()) == sorted(train + val + test)
    assert len(list((devkit / "ImageSets" / "Main").iterdir())) == 4 * (1 + len(scenes.SHAPES))


def test_voc_annotations_and_class_files_agree_with_the_scenes(devkit):
    seen = set()
    for split in scenes.SPLITS:
        drawn = scenes.render(3, scenes.split_indices(split, 30), 48)
        flags = {}
        for shape in scenes.SHAPES:
            lines = (devkit / "ImageSets" / "Main" / f"{shape}_{split}.txt").read_text().splitlines()
            assert all(line[-3:] in (" -1", "  0", "  1") for line in lines)
            flags[shape] = {line[:-3]: int(line[-3:]) for line in lines}
            assert list(flags[shape]) == _names(devkit, split)
        for row, name in enumerate(_names(devkit, split)):
            root = ElementTree.parse(devkit / "Annotations" / f"{name}.xml").getroot()
            assert [e.tag for e in root][:5] == ["folder", "filename", "source", "size", "segmented"]
            assert root.findtext("folder") == "VOC2012" and root.findtext("filename") == f"{name}.jpg"
            assert [root.findtext(f"size/{k}") for k in ("width", "height", "depth")] == ["48", "48", "3"]
            written = [
                (
                    e.findtext("name"),
                    int(e.findtext("difficult")),
                    tuple(int(e.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")),
                )
                for e in root.iter("object")
            ]
            assert written == [(o.shape, int(o.fraction < 0.02), o.box) for o in drawn.objects[row]]
            assert all(e.findtext("pose") == "Unspecified" and e.findtext("truncated") in "01" for e in root.iter("object"))
            for shape in scenes.SHAPES:
                hard = [d for n, d, _ in written if n == shape]
                expected = -1 if not hard else 1 if 0 in hard else 0
                seen.add(expected)
                assert flags[shape][name] == expected
                assert (expected == 1) == drawn.labels[shape][row]
            image = np.asarray(Image.open(devkit / "JPEGImages" / f"{name}.jpg"), float)
            assert image.shape == (48, 48, 3) and np.abs(image - drawn.images[row]).mean() < 12  # JPEG thins out the colours
    assert seen == {-1, 0, 1}


def test_voc_2007_numbers_plainly_and_takes_single_splits(tmp_path):
    done = _run("--layout=voc", "--output=made", "--count=2", "--size=16", "--year=2007", "--splits=test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    main = tmp_path / "made" / "VOC2007" / "ImageSets" / "Main"
    assert (main / "test.txt").read_text() == "000001\n000002\n" and not (main / "trainval.txt").exists()


@pytest.mark.parametrize(("flags", "year", "prefix"), [([], 2014, "COCO_{split}_"), (["--year=2017"], 2017, "")])
def test_coco(tmp_path, flags, year, prefix):
    done = _run("--layout=coco", "--output=made", "--count=30", "--size=48", "--seed=3", "--splits=val,train", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["annotations", f"train{year}", f"val{year}"]
    ids, left_out = [], 0
    for start, split in ((1, "val"), (31, "train")):
        drawn = scenes.render(3, scenes.split_indices(split, 30), 48)
        content = json.loads((tmp_path / "made" / "annotations" / f"instances_{split}{year}.json").read_text())
        assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
        assert [c["name"] for c in content["categories"]] == list(scenes.SHAPES)
        shape = {c["id"]: c["name"] for c in content["categories"]}
        names = [f"{prefix.format(split=f'{split}{year}')}{start + i:012d}.jpg" for i in range(30)]
        assert [(e["id"], e["file_name"], e["width"], e["height"]) for e in content["images"]] == [
            (start + i, name, 48, 48) for i, name in enumerate(names)
        ]
        assert sorted(p.name for p in (tmp_path / "made" / f"{split}{year}").iterdir()) == names
        for i, name in enumerate(names):
            image = np.asarray(Image.open(tmp_path / "made" / f"{split}{year}" / name), float)
            assert image.shape == (48, 48, 3) and np.abs(image - drawn.images[i]).mean() < 12
            written = [e for e in content["annotations"] if e["image_id"] == start + i]
            objects = [o for o in drawn.objects[i] if o.fraction >= scenes.MIN_FRACTION]
            left_out += len(drawn.objects[i]) - len(objects)
            assert [(shape[e["category_id"]], e["iscrowd"], e["segmentation"]) for e in written] == [(o.shape, 0, []) for o in objects]
            for entry, thing in zip(written, objects, strict=True):
                x, y, width, height = entry["bbox"]
                assert (x + 1, y + 1, x + width, y + height) == thing.box  # a box of VOC counts from 1 and includes its ends
                assert entry["area"] == pytest.approx(thing.fraction * 48**2, abs=0.01)
        ids += [e["id"] for e in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1)) and left_out > 0


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_folder(tmp_path, kind):
    done = _run("--layout=folder", "--output=made", "--count=5", "--size=24", "--splits=train,test", f"--image_format={kind}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for split in ("train", "test"):
        examples = scenes.load(split=split, count=5, size=24)
        with open(tmp_path / "made" / f"{split}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["path", *(t.name for t in scenes.TASKS)] and len(rows) == 5
        for i, row in enumerate(rows):
            image = np.asarray(Image.open(tmp_path / "made" / row["path"]), float)
            assert np.abs(image - examples.images[i]).mean() <= (0 if kind == "png" else 12)
            for task in scenes.TASKS:
                value = examples.labels[task.name][i]
                assert row[task.name] == (task.labels[value] if task.labels else str(value))
    assert not (tmp_path / "made" / "val.csv").exists()


def test_celeba(tmp_path):
    done = _run("--layout=celeba", "--output=made", "--count=5", "--size=24", "--seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "made" / "list_attr_celeba.txt").read_text().splitlines()
    names = lines[1].split()
    assert lines[0] == "15" and names == [*scenes.SHAPES, *scenes.ATTRIBUTES]
    table = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    partition = [line.split() for line in (tmp_path / "made" / "list_eval_partition.txt").read_text().splitlines()]
    assert [f for f, _ in partition] == list(table) == [f"{i:06d}.jpg" for i in range(1, 16)]
    assert [part for _, part in partition] == ["0"] * 5 + ["1"] * 5 + ["2"] * 5
    for s, split in enumerate(("train", "val", "test")):
        drawn = scenes.render(3, scenes.split_indices(split, 5), 24)
        for i in range(5):
            name = f"{5 * s + i + 1:06d}.jpg"
            assert table[name] == ["1" if drawn.labels[n][i] else "-1" for n in names]
            image = np.asarray(Image.open(tmp_path / "made" / "img_align_celeba" / name), float)
            assert np.abs(image - drawn.images[i]).mean() < 12
    read = celeba.load(root=tmp_path / "made", split="val")
    drawn = scenes.render(3, scenes.split_indices("val", 5), 24)
    assert all(read.labels[n].tolist() == drawn.labels[n].tolist() for n in names)


def test_cub(tmp_path):
    done = _run("--layout=cub", "--output=made", "--count=6", "--size=24", "--splits=train,test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for split in ("train", "test"):
        one = fine_grained.listing(source="cub", root=tmp_path / "made", split=split)
        assert one.classes == scenes.SHAPE_SURFACES and len(one.images) == 6
        drawn = scenes.render(0, scenes.split_indices(split, 6), 24)
        for image, label in zip(one.images, one.labels, strict=True):
            row = (int(image.stem.rpartition("_")[2]) - 1) % 6
            assert label == scenes.SHAPE_SURFACES[drawn.labels["shape_surface"][row]]
            assert np.abs(np.asarray(Image.open(image), float) - drawn.images[row]).mean() < 12


def test_folder_with_chosen_columns(tmp_path):
    assert (
        _run("--layout=folder", "--output=made", "--count=1", "--size=8", "--splits=val", "--tasks=dome,shape", cwd=tmp_path).returncode
        == 0
    )
    assert (tmp_path / "made" / "val.csv").read_text().splitlines()[0] == "path,dome,shape"


def test_taskonomy(tmp_path):
    done = _run("--layout=taskonomy", "--output=made", "--count=6", "--size=24", "--seed=3", "--splits=val,test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    root = tmp_path / "made"
    official = splits.load_groups("taskonomy")
    assert sorted(p.name for p in root.iterdir()) == sorted(official["tiny_val"] + official["tiny_test"])
    assert {p.name for p in (root / "ihlen").iterdir()} == {"rgb", "point_info", *scenes.DOMAINS.values()}
    for split in ("val", "test"):
        drawn = scenes.render(3, scenes.split_indices(split, 6), 24).images
        dense = scenes.dense(3, scenes.split_indices(split, 6), 24)
        buildings = official[f"tiny_{split}"]
        places = [(b, point) for point in range(2) for b in buildings][:6]  # in turn
        for i, (building, point) in enumerate(places):
            stem = f"point_{point}_view_0_domain"
            picture = Image.open(root / building / "rgb" / f"{stem}_rgb.png")
            assert np.array_equal(picture, drawn[i])
            for name, domain in scenes.DOMAINS.items():
                image = Image.open(root / building / domain / f"{stem}_{domain}.png")
                expected = codecs.get(domain).to_raw(dense[name][i])
                assert image.mode == ("RGB" if domain == "normal" else "I;16")
                assert np.array_equal(np.asarray(image, expected.dtype).reshape(expected.shape), expected)
        # and through the reader, which orders by building
        read = taskonomy.load(root=root, split=split)
        assert read.ids == tuple(f"{b}/point_{p}_view_0" for b, p in sorted(places)) and not read.skipped
        order = [places.index(place) for place in sorted(places)]
        for name, domain in scenes.DOMAINS.items():
            wanted = codecs.get(domain).encode(codecs.get(domain).to_raw(dense[name][order]), 24)
            assert np.array_equal(maps.maps(read, domain, 24), wanted)
        assert maps.valid(read, 24).all()
    info = json.loads((root / "ihlen" / "point_info" / "point_0_view_0_domain_point_info.json").read_text())
    assert (info["model_id"], info["view_id"], info["resolution"]) == ("ihlen", 0, 24)
    assert 40 < np.degrees(info["field_of_view_rads"]) < 54 and len(info["camera_location"]) == 3  # as scenes.composing draws them


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--layout=coc", "--output=new"], "voc, coco, folder, celeba, cub or taskonomy"),
        (["--output=new"], "voc, coco, folder, celeba, cub or taskonomy"),
        (["--layout=voc"], "--output"),
        (["--layout=voc", "--output=full"], "not an empty folder"),
        (["--layout=folder", "--output=full/file"], "not an empty folder"),
        (["--layout=folder", "--output=full/file/below"], "cannot write"),
        (["--layout=folder", "--output=new", "--splits=train,dev"], "train, val, test"),
        (["--layout=folder", "--output=new", "--count=0"], "--count"),
        (["--layout=voc", "--output=new", "--size=2"], "--size"),
        (["--layout=coco", "--output=new", "--year=0"], "--year"),
        (["--layout=folder", "--output=new", "--tasks=ball"], "ball"),
    ],
)
def test_mistakes_end_with_one_sentence(tmp_path, arguments, word):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    done = _run(*arguments, "--count=1" if "--count=0" not in arguments else "--seed=0", cwd=tmp_path)
    assert done.returncode == 2 and word in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists() and (tmp_path / "full" / "file").read_text() == "kept"


def test_help_does_not_import_tensorflow():
    code = f"import sys, runpy; sys.argv = ['render_scenes.py', '--help']\ntry: runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
    code += "except SystemExit: print('tensorflow' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "False" and "--layout" in done.stdout
