"""TFDS as a source: its own builders make record files from a devkit and a COCO folder written here; both readers must then agree."""

import builtins
import json
import os
from pathlib import Path
import shutil
from types import SimpleNamespace
from unittest import mock

import numpy as np
from PIL import Image
import pytest

from amalgam_tf import data, teachers
from amalgam_tf.data import coco, pipeline, tfds, voc
from amalgam_tf.data.examples import IGNORE, hold_out
from amalgam_tf.errors import UserError

pytest.importorskip("tensorflow_datasets", reason="pip install " + tfds.PACKAGES)

OF_OBJECTS = [name for name in tfds.SETS if "/" in name]  # VOC and COCO; the sets of Customize: test_tfds_customize.py
DOWNLOAD = "tensorflow_datasets.core.download.DownloadManager.download_and_extract"

# image -> (class, difficult) of its objects. 000012: a plain dog between difficult ones; 000030: a difficult cat only.
VOC = {
    "train": {"000005": [("chair", 0), ("chair", 1)], "000012": [("dog", 1), ("dog", 0)], "000030": [("cat", 1), ("person", 0)]},
    "val": {"000007": [("car", 0)], "000021": [("tvmonitor", 1)]},
    "test": {"000001": [("dog", 0), ("person", 0)], "000002": [("train", 0)], "000003": [("sofa", 1), ("chair", 0)]},
}
# id -> (category id, iscrowd) of its annotations; not in the order of ids, as in the official files
COCO = {
    "train": {391895: [(1, 0), (10, 0)], 9: [(90, 1)], 581929: [], 42: [(1, 1), (1, 0), (90, 0)]},
    "val": {397133: [(10, 1)], 139: [(1, 1), (10, 0)]},
}
COCO_TEST = [57, 1, 2]
# 80 of them, as TFDS insists; with spaces, and with gaps in the ids
CATEGORIES = {1: "person", 10: "traffic light", 90: "hair drier", **{i: f"thing {i}" for i in range(11, 88)}}


def jpeg(path: Path, seed: int) -> None:
    """A photograph-like picture of its own size: smooth, so that decoders have something to differ in."""
    height, width = 24 + seed % 17, 40 + seed % 23
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)


def xml(objects) -> str:
    inner = "".join(
        f"<object><name>{c}</name><pose>Left</pose><truncated>0</truncated><difficult>{d}</difficult>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        for c, d in objects
    )
    return f"<annotation><size><width>60</width><height>30</height><depth>3</depth></size>{inner}</annotation>"


def write_voc(root: Path, year: str) -> Path:
    """A devkit without class files: what the directory reader says comes from the annotations, where TFDS looks too."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split, images in VOC.items():
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{i}\n" for i in images))
        for i, objects in images.items():
            jpeg(folder / f"JPEGImages/{i}.jpg", int(i))
            if (year, split) != ("2012", "test"):
                (folder / f"Annotations/{i}.xml").write_text(xml(objects))
    return root


def coco_file(year: str, split: str, image_id: int) -> str:
    return f"COCO_{split}2014_{image_id:012d}.jpg" if year == "2014" else f"{image_id:012d}.jpg"


def write_coco(root: Path, year: str) -> Path:
    (root / "annotations").mkdir(parents=True)
    tests = ("test2014", "test2015") if year == "2014" else ("test2017",)
    splits = {**{f"{s}{year}": images for s, images in COCO.items()}, **{t: dict.fromkeys(COCO_TEST, ()) for t in tests}}
    for split, images in splits.items():
        files = {i: coco_file(year, split[:-4], i) for i in images}
        content = {
            "categories": [{"id": i, "name": CATEGORIES[i], "supercategory": "all"} for i in sorted(CATEGORIES)],
            "images": [{"id": i, "file_name": f, "height": 30, "width": 60} for i, f in files.items()],
        }
        pairs = [(i, *a) for i, annotations in images.items() for a in annotations]
        for i, f in files.items():
            jpeg(root / split / f, i)
        if split not in tests:
            content["annotations"] = [
                {"id": n, "image_id": i, "category_id": c, "iscrowd": crowd, "bbox": [1, 1, 9, 9], "area": 81}
                for n, (i, c, crowd) in enumerate(pairs)
            ]
        name = f"image_info_{split}" if split in tests else f"instances_{split}"
        (root / f"annotations/{name}.json").write_text(json.dumps(content))
    return root


def archives(source: Path):
    """Within, TFDS finds every archive fetched and unpacked in `source`."""
    return mock.patch(DOWNLOAD, lambda self, urls: dict.fromkeys(urls, str(source)))


def prepare(name: str, source: Path, data_dir: Path, cache_dir: Path):
    with archives(source):
        return tfds.load(name=name, split="train", data_dir=data_dir, cache_dir=cache_dir, download=True)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """name -> (source folder, TFDS data_dir, cache_dir), all four data sets prepared."""
    root, found = tmp_path_factory.mktemp("tfds"), {}
    for name in OF_OBJECTS:
        family, _, year = name.partition("/")
        source = (write_voc if family == "voc" else write_coco)(root / f"{family}{year}", year)
        found[name] = source, root / "data_dir", root / "cache"
        prepare(name, *found[name])
    return found


def read(places, name, split, **more):
    _, data_dir, cache_dir = places[name]
    return tfds.load(**{"name": name, "split": split, "data_dir": data_dir, "cache_dir": cache_dir, **more})


def directory(places, name, split, **more):
    """The same split by the directory reader."""
    family, _, year = name.partition("/")
    if family == "voc":
        return voc.load(root=places[name][0] / "VOCdevkit", year=int(year), split=split, **more)
    return coco.load(root=places[name][0], split=f"{split}{year}", **more)


def assert_equal(ours, theirs):
    assert (ours.name, ours.ids, ours.tasks) == (theirs.name, theirs.ids, theirs.tasks)
    assert [p.name for p in ours.images] == [p.name for p in theirs.images]
    assert list(ours.labels) == list(theirs.labels)
    for name in theirs.labels:
        assert ours.labels[name].dtype == theirs.labels[name].dtype == np.int32
        np.testing.assert_array_equal(ours.labels[name], theirs.labels[name], name)
    assert ours.fingerprint == theirs.fingerprint


class TestEqualToTheDirectoryReader:
    @pytest.mark.parametrize("difficult", list(voc.DIFFICULT_AS))
    @pytest.mark.parametrize(("name", "split"), [("voc/2007", "train"), ("voc/2007", "val"), ("voc/2007", "test"), ("voc/2012", "val")])
    def test_voc(self, places, name, split, difficult):
        ours = read(places, name, split, difficult=difficult)
        assert_equal(ours, directory(places, name, split, difficult=difficult))
        assert [t.name for t in ours.tasks] == list(voc.CLASSES)

    @pytest.mark.parametrize("crowd", list(coco.CROWD_AS))
    @pytest.mark.parametrize("split", list(COCO))
    @pytest.mark.parametrize("name", ["coco/2014", "coco/2017"])
    def test_coco(self, places, name, split, crowd):
        ours = read(places, name, split, crowd=crowd)
        assert_equal(ours, directory(places, name, split, crowd=crowd))
        assert len(ours.tasks) == 80 and ours.tasks[1].name == "traffic_light"

    def test_the_modes_differ_where_they_should(self, places):
        """Both readers could agree in ignoring the switch."""
        labels = {d: read(places, "voc/2007", "train", difficult=d).labels for d in voc.DIFFICULT_AS}
        assert {d: row["cat"].tolist() for d, row in labels.items()} == {
            "ignore": [0, 0, IGNORE],
            "negative": [0, 0, 0],
            "positive": [0, 0, 1],
        }
        assert all(row["dog"].tolist() == [0, 1, 0] and row["chair"].tolist() == [1, 0, 0] for row in labels.values())
        labels = {c: read(places, "coco/2017", "train", crowd=c).labels for c in coco.CROWD_AS}  # ids 9, 42, 391895, 581929
        assert {c: row["hair_drier"].tolist() for c, row in labels.items()} == {
            "positive": [1, 1, 0, 0],
            "ignore": [IGNORE, 1, 0, 0],
            "negative": [0, 1, 0, 0],
        }
        assert all(row["person"].tolist() == [0, 1, 1, 0] for row in labels.values())

    @pytest.mark.parametrize(("name", "split"), [("voc/2007", "train"), ("coco/2014", "train")])
    def test_files_and_pixels_are_the_same_bits(self, places, name, split):
        ours, theirs = read(places, name, split), directory(places, name, split)
        assert [p.read_bytes() for p in ours.images] == [p.read_bytes() for p in theirs.images]
        np.testing.assert_array_equal(pipeline.pixels(ours, 16), pipeline.pixels(theirs, 16))
        assert np.ptp(pipeline.pixels(ours, 16)) > 50  # there is something to differ in

    @pytest.mark.parametrize("name", ["voc/2007", "coco/2017"])
    def test_hold_out(self, places, name):
        sides = [hold_out(reader(places, name, "train"), 0.5, seed=3) for reader in (read, directory)]
        assert_equal(sides[0][0], sides[1][0])
        assert_equal(sides[0][1], sides[1][1])

    def test_by_a_config(self, places):
        _, data_dir, cache_dir = places["voc/2007"]
        options = {**data.DEFAULTS, "cache_dir": str(cache_dir), "hold_out": 0.5, "classes": "dog, cat", "difficult": "positive"}
        ours = data.parts({**options, "reader": "tfds:voc/2007", "root": str(data_dir)})
        theirs = data.parts({**options, "reader": "voc", "year": 2007, "root": str(places["voc/2007"][0] / "VOCdevkit")})
        for a, b in zip(ours, theirs, strict=True):
            assert_equal(a, b)
        assert [t.name for t in ours.test.tasks] == ["dog", "cat"]
        options |= {"reader": "tfds:coco/2017", "root": str(data_dir), "classes": "traffic light"}
        assert {c: data.load({**options, "crowd": c}, "val").labels["traffic_light"].tolist() for c in coco.CROWD_AS} == {
            "positive": [1, 1],
            "ignore": [1, IGNORE],
            "negative": [1, 0],
        }


class TestSplits:
    def test_names_of_both_houses(self, places):
        assert read(places, "voc/2007", "validation").fingerprint == read(places, "voc/2007", "val").fingerprint
        assert read(places, "coco/2014", "validation").name == "coco/val2014"

    @pytest.mark.parametrize("split", ["trainval", "train+val", "validation+train"])
    def test_train_and_validation_together(self, places, split):
        out = read(places, "voc/2007", split)
        assert (out.name, out.ids) == ("voc2007/trainval", ("000005", "000007", "000012", "000021", "000030"))
        assert {c: out.labels[c].tolist() for c in ("car", "cat")} == {"car": [0, 1, 0, 0, 0], "cat": [0, 0, 0, 0, IGNORE]}
        assert [p.stem for p in out.images] == list(out.ids) and all(p.is_file() for p in out.images)
        assert read(places, "coco/2017", split).name == "coco/train2017+val2017"

    @pytest.mark.parametrize(
        ("name", "split", "ids"),
        [
            ("voc/2012", "test", "000001 000002 000003"),
            ("voc/2012", "test+val", "000001 000002 000003 000007 000021"),
            ("coco/2014", "test", "1 2 57"),
            ("coco/2014", "test2015", "1 2 57"),
            ("coco/2017", "test", "1 2 57"),
        ],
    )
    def test_secret_truth_is_no_truth(self, places, name, split, ids):
        """TFDS lists no object in these images; as zeros that would be truth, and wrong."""
        out = read(places, name, split)
        assert out.ids == tuple(ids.split()) and out.tasks == () and out.labels == {}

    def test_test_of_2007_is_public(self, places):
        assert read(places, "voc/2007", "test").tasks

    def test_no_classes(self, places):
        assert read(places, "voc/2007", "train", classes=()).tasks == ()


class TestFiles:
    """The JPEGs written out: whole, once, and never touched again without need."""

    @pytest.fixture
    def own(self, places, tmp_path):
        """A cache of this test's own."""
        return {"voc/2007": (*places["voc/2007"][:2], tmp_path / "cache")}

    @staticmethod
    def state(folder):
        return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes()) for p in sorted(folder.iterdir())}

    def test_a_second_run_opens_no_record_and_touches_nothing(self, own, monkeypatch):
        first = read(own, "voc/2007", "train")
        folder = first.images[0].parent
        assert folder.parent == own["voc/2007"][2] and folder.name.startswith("tfds-voc-2007-train-")
        before, key = self.state(folder), first.images_key
        assert set(before) == {"000005.jpg", "000012.jpg", "000030.jpg", "index.npz"}  # and nothing temporary
        monkeypatch.setattr(tfds, "_records", mock.Mock(side_effect=AssertionError("records were opened")))
        again = read(own, "voc/2007", "train")
        assert again.fingerprint == first.fingerprint and again.images_key == key and self.state(folder) == before

    @pytest.mark.parametrize("damage", ["index", "index cut", "index empty", "lost", "cut", "pickle"])
    def test_damage_is_mended_and_the_rest_left_alone(self, own, damage):
        first = read(own, "voc/2007", "train")
        folder, victim = first.images[1].parent, first.images[1]
        before = self.state(folder)
        index = folder / "index.npz"
        if damage == "lost":
            victim.unlink()
        elif damage == "cut":
            victim.write_bytes(victim.read_bytes()[:-9])
        elif damage == "pickle":
            np.savez(index, **{**dict(np.load(index)), "presence": np.array([{"a": 1}], dtype=object)})
        else:
            index.write_bytes({"index": b"no zip", "index cut": index.read_bytes()[:-30], "index empty": b""}[damage])
        again = read(own, "voc/2007", "train")
        after = self.state(folder)
        assert again.fingerprint == first.fingerprint
        changed = {name for name in before if after[name][:2] != before[name][:2]}
        assert after.keys() == before.keys() and {n: f[2] for n, f in after.items() if n != "index.npz"} == {
            n: f[2] for n, f in before.items() if n != "index.npz"
        }
        assert changed <= ({victim.name, "index.npz"} if damage in ("lost", "cut") else {"index.npz"})

    def test_a_flipped_byte_in_the_index_never_changes_the_truth(self, own):
        first = read(own, "voc/2007", "train")
        index = first.images[0].parent / "index.npz"
        good = index.read_bytes()
        for place in np.random.default_rng(0).integers(0, len(good), 60):
            index.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
            assert read(own, "voc/2007", "train").fingerprint == first.fingerprint, place

    def test_records_prepared_again_are_read_again(self, places, tmp_path):
        """The hard case: other truth and other pixels, and yet not one size has changed."""
        source = Path(shutil.copytree(places["voc/2007"][0], tmp_path / "source"))
        where = {"voc/2007": (source, tmp_path / "data_dir", tmp_path / "cache")}
        first = prepare("voc/2007", *where["voc/2007"])
        (info,) = tmp_path.glob("data_dir/voc/2007/*/dataset_info.json")
        before = info.read_bytes(), info.stat().st_mtime
        (source / "VOCdevkit/VOC2007/Annotations/000005.xml").write_text(xml([("horse", 0), ("horse", 1)]))
        image = source / "VOCdevkit/VOC2007/JPEGImages/000012.jpg"
        image.write_bytes(image.read_bytes()[:-9] + bytes([image.read_bytes()[-9] ^ 1]) + image.read_bytes()[-8:])
        shutil.rmtree(tmp_path / "data_dir")
        with archives(source):
            tfds._builder("voc/2007", tmp_path / "data_dir", download=True)
        os.utime(info, (before[1] + 5, before[1] + 5))  # as if it had taken longer
        assert info.read_bytes() == before[0]
        second = read(where, "voc/2007", "train")
        assert_equal(second, directory(where, "voc/2007", "train"))
        assert first.labels["horse"].tolist() == [0, 0, 0] and second.labels["horse"].tolist() == [1, 0, 0]
        assert second.images[1].read_bytes() == image.read_bytes()

    def test_two_data_dirs_share_no_file(self, places, tmp_path):
        """Pictures of one name in two places are different pictures."""
        data_dir = Path(shutil.copytree(places["voc/2007"][1] / "voc", tmp_path / "voc")).parent
        a, b = (read(places, "voc/2007", "train", data_dir=d) for d in (places["voc/2007"][1], data_dir))
        assert a.fingerprint == b.fingerprint and not {*a.images} & {*b.images}

    def test_a_full_disk_leaves_no_half_file(self, own, monkeypatch):
        def full(path, content):
            with open(path, "wb") as file:
                file.write(content[:5])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match=r"0000\d\d\.jpg cannot be written \(No space left on device\): set data\.cache_dir"):
            read(own, "voc/2007", "train")
        assert [p for p in own["voc/2007"][2].rglob("*") if p.is_file()] == []

    def test_a_cache_folder_that_is_a_file(self, own):
        own["voc/2007"][2].write_text("")
        with pytest.raises(UserError, match="cannot be written .*data.cache_dir"):
            read(own, "voc/2007", "train")


def refused(message, call, *arguments, **more):
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value)


class TestRefused:
    @pytest.mark.parametrize("package", ["tensorflow_datasets", "importlib_resources"])
    def test_package_that_is_not_there(self, places, monkeypatch, package):
        real = builtins.__import__

        def without(name, *arguments):
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, *arguments)

        monkeypatch.setattr(builtins, "__import__", without)
        message = f"tfds:voc/2007 needs packages.*{package}.*: pip install tensorflow-datasets importlib_resources$"
        refused(message, read, places, "voc/2007", "train")

    @pytest.mark.parametrize("name", OF_OBJECTS)
    def test_not_prepared_names_the_folder_and_the_command_and_downloads_nothing(self, tmp_path, name):
        builder = "tensorflow_datasets.core.dataset_builder.DatasetBuilder.download_and_prepare"
        with mock.patch(builder, side_effect=AssertionError("it downloads")), pytest.raises(UserError) as caught:
            tfds.load(name=name, split="train", data_dir=tmp_path / "empty", cache_dir=tmp_path / "cache")
        sentence = str(caught.value)
        assert "\n" not in sentence and f"not prepared {name}/" in sentence and f"in {tmp_path / 'empty'}: " in sentence
        assert "--config.data.download=True" in sentence and list(tmp_path.iterdir()) == []
        code = sentence.partition('python -c "')[2].removesuffix('"')
        assert code.endswith(".download_and_prepare()")
        with mock.patch(builder, autospec=True) as called:  # the command is one that works
            exec(code, {})
        assert os.fspath(called.call_args[0][0].data_path).startswith(f"{tmp_path / 'empty'}/{name}/")

    def test_the_default_data_dir_is_that_of_tfds(self, tmp_path, monkeypatch):
        import tensorflow_datasets

        monkeypatch.setattr(tensorflow_datasets.core.constants, "DATA_DIR", str(tmp_path / "own"))
        options = {**data.DEFAULTS, "reader": "tfds:voc/2012", "cache_dir": str(tmp_path)}
        refused(f"not prepared voc/2012/.* in {tmp_path / 'own'}: ", data.load, options, "train")

    def test_failed_download(self, tmp_path):
        with mock.patch(DOWNLOAD, side_effect=ConnectionError("the host\nis gone")):
            options = {**data.DEFAULTS, "reader": "tfds:voc/2007", "root": str(tmp_path), "cache_dir": str(tmp_path), "download": True}
            refused(f"could not prepare voc/2007/.* in {tmp_path} .ConnectionError: the host is gone", data.load, options, "train")

    @pytest.mark.parametrize("reader", ["tfds:foo", "tfds:voc", "tfds:coco/2017_panoptic", "tfds:", "tfds"])
    def test_unknown_data_set_lists_those_there_are(self, reader):
        known = "tfds:voc/2007, tfds:voc/2012, tfds:coco/2014, tfds:coco/2017, tfds:celeb_a, .*tfds:cars196$"
        refused(f"unknown data.reader '{reader}': .*{known}", data.load, {**data.DEFAULTS, "reader": reader}, "train")

    def test_unknown_data_set_in_code(self, tmp_path):
        refused("unknown TFDS data set 'voc/2008': did you mean", tfds.load, name="voc/2008", split="train", cache_dir=tmp_path)

    def test_no_cache_folder(self, places):
        refused("set data.cache_dir to a folder", read, places, "voc/2007", "train", cache_dir=None)

    @pytest.mark.parametrize(
        ("name", "split", "message"),
        [
            ("voc/2007", "tset", "tfds:voc/2007 has no split 'tset': did you mean 'test'"),
            ("voc/2007", "train[:50%]", "did you mean 'train'"),
            ("voc/2007", "", "has no split '': there are test, train, validation, val, trainval$"),
            ("coco/2017", "train+val2017", "has no split 'val2017': did you mean 'val'"),
        ],
    )
    def test_split(self, places, name, split, message):
        refused(message.replace("[", r"\["), read, places, name, split)

    def test_class(self, places):
        refused("'dgo' is not a class of tfds:voc/2007: did you mean 'dog'", read, places, "voc/2007", "train", classes=("dgo",))
        refused("'dog' is asked for twice", read, places, "voc/2007", "train", classes=("dog", "dog"))

    def test_switches(self, places):
        refused("difficult 'keep'.*there are ignore, negative, positive", read, places, "voc/2007", "train", difficult="keep")
        refused("crowd 'keep'.*there are positive, ignore, negative", read, places, "coco/2017", "train", crowd="keep")
        assert read(places, "voc/2007", "train", crowd="keep")  # no business of VOC's

    @pytest.mark.parametrize("damage", ["cut", "flipped", "lost"])
    def test_damaged_records(self, places, tmp_path, damage):
        data_dir = Path(shutil.copytree(places["voc/2007"][1] / "voc", tmp_path / "voc")).parent
        (records,) = (data_dir / "voc/2007").glob("*/*-train.tfrecord*")
        content = records.read_bytes()
        records.write_bytes(content[:-9] if damage == "cut" else content[:200] + bytes([content[200] ^ 255]) + content[201:])
        if damage == "lost":
            records.unlink()
        call = {"data_dir": data_dir, "cache_dir": tmp_path / "cache"}
        refused(r"train records in .*voc.2007.* cannot be read .*prepare voc/2007 again", read, places, "voc/2007", "train", **call)
        assert not list((tmp_path / "cache").rglob("index.npz"))

    def test_damaged_metadata(self, places, tmp_path):
        data_dir = Path(shutil.copytree(places["voc/2007"][1] / "voc", tmp_path / "voc")).parent
        (info,) = (data_dir / "voc/2007").glob("*/dataset_info.json")
        info.write_text("{")
        call = {"data_dir": data_dir, "cache_dir": tmp_path / "cache"}
        refused(f"cannot open voc/2007 in {tmp_path} .*: prepare it again", read, places, "voc/2007", "train", **call)

    @pytest.mark.parametrize("file", ["../../x.jpg", "/x.jpg", "a/b.jpg", ".x.jpg", "", "index.npz", "a b.jpg", "x" * 300 + ".jpg"])
    def test_image_that_would_leave_the_folder(self, places, tmp_path, monkeypatch, file):
        import tensorflow_datasets

        record = {"image/filename": file.encode(), "image": b"x", "labels": np.array([0]), "labels_no_difficult": np.array([0])}
        monkeypatch.setattr(tensorflow_datasets, "as_numpy", lambda _: [record])
        refused("no name of a JPEG file", read, places, "voc/2007", "train", cache_dir=tmp_path / "cache")
        assert list(tmp_path.iterdir()) == []


def test_whether_it_was_downloaded_makes_no_other_data():
    here = {**data.DEFAULTS, "reader": "tfds:voc/2007"}
    (note,) = teachers.foreign_data([SimpleNamespace(name="a", card={"recipe": {"data": {**here, "test": "val"}}})], here)
    assert "(test)" in note
    fetched = SimpleNamespace(name="b", card={"recipe": {"data": {**here, "download": True}}})
    assert teachers.foreign_data([fetched], here) == []
