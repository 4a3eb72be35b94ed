"""The VOC reader: on a devkit written here, on damaged files, and on the real lists."""

import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

import amalgam_tf
from amalgam_tf.data import voc
from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.errors import UserError

PACKAGE = str(Path(amalgam_tf.__file__).parent.parent)

# id -> (class, difficult) of each object. 000003: a plain dog between difficult ones; 000004: a difficult cat only.
OBJECTS = {
    "000001": [("dog", 0), ("person", 0)],
    "000002": [("train", 0)],
    "000003": [("dog", 1), ("dog", 0), ("dog", 1)],
    "000004": [("cat", 1), ("train", 0)],
}
CLASSES = ("dog", "cat", "train")
LABELS = {"dog": [1, -1, 1, -1], "cat": [-1, -1, -1, 0], "train": [-1, 1, -1, 1]}

examples = settings(max_examples=60, deadline=None)


def write_devkit(root: Path, class_files=True, annotations=True, split="train") -> Path:
    folder = root / "VOC2012"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    (lists := folder / "ImageSets/Main").joinpath(f"{split}.txt").write_bytes("".join(f"{i}\r\n" for i in OBJECTS).encode())
    for image_id, objects in OBJECTS.items():
        (folder / "JPEGImages" / f"{image_id}.jpg").write_bytes(b"no decoder looks at this")
        if annotations:
            (folder / "Annotations" / f"{image_id}.xml").write_text(xml(objects))
    for name, labels in LABELS.items() if class_files else ():
        lists.joinpath(f"{name}_{split}.txt").write_text("".join(f"{i} {v:2d} \n" for i, v in zip(OBJECTS, labels, strict=True)))
    return folder


def xml(objects) -> str:
    parts = "<part><name>head</name></part>"  # the devkit has parts inside objects; they are no classes
    inner = "".join(f"<object><name>{c}</name>{parts}<difficult>{d}</difficult></object>\n" for c, d in objects)
    return f"<annotation>\n<filename>x.jpg</filename>\n{inner}</annotation>\n"


def read(root, **more):
    return voc.load(**{"root": root, "year": 2012, "split": "train", "classes": CLASSES, **more})


@pytest.fixture
def devkit(tmp_path):
    write_devkit(tmp_path)
    return tmp_path


def lists(devkit):
    return devkit / "VOC2012" / "ImageSets" / "Main"


def values(examples):
    return {name: labels.tolist() for name, labels in examples.labels.items()}


def test_readers_metrics_and_tables_do_not_load_tensorflow():
    rooms = "data.voc, amalgam_tf.data.folder, amalgam_tf.data.splits, amalgam_tf.metrics.multilabel, amalgam_tf.metrics.categorical"
    code = f"import sys, amalgam_tf.{rooms}, amalgam_tf.published; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": PACKAGE}
    )
    assert done.stdout == "False\n"


class TestContent:
    def test_ids_images_tasks_and_labels(self, devkit):
        out = read(devkit)
        assert (out.name, out.ids) == ("voc2012/train", tuple(OBJECTS))
        assert [p.relative_to(devkit).as_posix() for p in out.images] == [f"VOC2012/JPEGImages/{i}.jpg" for i in OBJECTS]
        assert [(t.name, t.kind, t.head) for t in out.tasks] == [(c, "binary", "sigmoid") for c in CLASSES]
        assert values(out) == {"dog": [1, 0, 1, 0], "cat": [0, 0, 0, IGNORE], "train": [0, 1, 0, 1]}
        assert all(v.dtype == np.int32 for v in out.labels.values())

    @pytest.mark.parametrize(("difficult", "last"), [("ignore", IGNORE), ("negative", 0), ("positive", 1)])
    def test_difficult(self, devkit, difficult, last):
        assert read(devkit, difficult=difficult).labels["cat"].tolist() == [0, 0, 0, last]

    @pytest.mark.parametrize("difficult", list(voc.DIFFICULT_AS))
    def test_annotations_give_what_class_files_give(self, tmp_path, difficult):
        a, b = tmp_path / "a", tmp_path / "b"
        write_devkit(a, annotations=False)
        write_devkit(b, class_files=False)
        assert values(read(a, difficult=difficult)) == values(read(b, difficult=difficult))

    def test_one_missing_class_file_is_replaced_by_the_annotations(self, devkit):
        expected = values(read(devkit))
        (lists(devkit) / "dog_train.txt").unlink()
        (devkit / "VOC2012/Annotations/000002.xml").write_text(xml([("train", 0), ("dog", 0)]))
        assert values(read(devkit)) == {**expected, "dog": [1, 1, 1, 0]}

    def test_class_file_in_another_order_is_matched_by_id(self, devkit):
        path = lists(devkit) / "dog_train.txt"
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
        assert values(read(devkit))["dog"] == [1, 0, 1, 0]

    def test_order_of_classes_is_the_order_of_tasks(self, devkit):
        assert [t.name for t in read(devkit, classes=("train", "dog")).tasks] == ["train", "dog"]

    def test_no_classes_reads_images_without_labels(self, tmp_path):
        write_devkit(tmp_path, class_files=False, annotations=False)
        out = read(tmp_path, classes=())
        assert len(out) == 4 and out.tasks == () and out.labels == {}

    def test_another_data_set_in_this_layout_is_known_by_its_class_files(self, devkit):
        (lists(devkit) / "sphere_train.txt").write_text("".join(f"{i} 1\n" for i in OBJECTS))
        assert values(read(devkit, classes=("sphere",))) == {"sphere": [1, 1, 1, 1]}

    def test_object_without_difficult_flag_is_not_difficult(self, tmp_path):
        folder = write_devkit(tmp_path, class_files=False)
        (folder / "Annotations/000004.xml").write_text("<annotation><object><name> cat\n</name></object></annotation>")
        assert values(read(tmp_path))["cat"] == [0, 0, 0, 1]

    def test_only_available(self, devkit):
        (devkit / "VOC2012/JPEGImages/000002.jpg").unlink()
        out = read(devkit, only_available=True)
        assert (out.name, out.ids) == ("voc2012/train/available", ("000001", "000003", "000004"))
        assert values(out)["train"] == [0, 0, 1]

    def test_only_available_changes_nothing_where_all_are(self, devkit):
        assert read(devkit, only_available=True).name == "voc2012/train"


class TestRefused:
    def expect(self, message, root, **more):
        with pytest.raises(UserError, match=message) as caught:
            read(root, **more)
        assert "\n" not in str(caught.value)

    def test_missing_image(self, devkit):
        for i in ("000002", "000004"):
            (devkit / "VOC2012/JPEGImages" / f"{i}.jpg").unlink()
        self.expect(r"JPEGImages/000002\.jpg is missing, and with it 2 of the 4 images.*only_available", devkit)

    def test_no_image_at_all(self, devkit):
        for p in (devkit / "VOC2012/JPEGImages").iterdir():
            p.unlink()
        self.expect("4 of the 4 images of the split: unpack", devkit, only_available=True)

    def test_root(self, tmp_path):
        self.expect("nowhere does not exist", tmp_path / "nowhere")

    def test_root_is_a_year(self, devkit):
        self.expect("is the folder of one year: give its parent", devkit / "VOC2012")

    def test_year(self, devkit):
        self.expect(r"holds no VOC2007 \(it holds VOC2012\)", devkit, year=2007)

    @pytest.mark.parametrize("split", ["valid", "../Main/train", "", "a" * 300])
    def test_split_lists_those_there_are(self, devkit, split):
        (lists(devkit) / "val.txt").write_text("000001\n")
        (lists(devkit) / "train_val.txt").write_text("000001 -1\n")  # class train, split val: not a list
        self.expect("there are train, val$", devkit, split=split)

    @pytest.mark.parametrize("line", ["../../secret", "/etc/passwd", "a/b", "..", "000001 -1", "a\\b", "a" * 300, "a\0b"])
    def test_id_that_is_none(self, devkit, line):
        (lists(devkit) / "train.txt").write_text(f"000001\n\n{line}\n")
        self.expect(r"train\.txt line 3", devkit)

    def test_repeated_id(self, devkit):
        (lists(devkit) / "train.txt").write_text("000001\n000002\n000001\n")
        self.expect("line 3: id 000001 stands in line 1 already", devkit)

    def test_empty_list(self, devkit):
        (lists(devkit) / "train.txt").write_text("\n \n")
        self.expect("is empty", devkit)

    @pytest.mark.parametrize("line", ["000002", "000002 2", "000002 1 1", "000002 +", "000002 1.0"])
    def test_broken_line_in_a_class_file(self, devkit, line):
        (lists(devkit) / "dog_train.txt").write_text(f"000001  1\n{line}\n")
        self.expect(rf"dog_train\.txt line 2: '{re.escape(line)}'", devkit)

    def test_label_given_twice(self, devkit):
        (lists(devkit) / "dog_train.txt").write_text("000001  1\n000001 -1\n")
        self.expect(r"dog_train\.txt line 2: id 000001 has a label already", devkit)

    def test_id_missing_from_a_class_file(self, devkit):
        (lists(devkit) / "dog_train.txt").write_text("000001  1\n000003  1\n")
        self.expect(r"dog_train\.txt has no line for 000002 \(2 of 4 ids", devkit)

    def test_neither_class_file_nor_annotation(self, tmp_path):
        folder = write_devkit(tmp_path, class_files=False)
        (folder / "Annotations/000003.xml").unlink()
        self.expect(r"Annotations/000003\.xml is missing", tmp_path)

    def test_class_with_suggestion(self, devkit):
        self.expect("'dgo' is not a class .* did you mean 'dog'", devkit, classes=("dgo",))
        self.expect("'zzz' is not a class .* there are aeroplane, ", devkit, classes=("zzz",))
        self.expect("'dog' is asked for twice", devkit, classes=("dog", "cat", "dog"))

    def test_difficult(self, devkit):
        self.expect("difficult='keep' is unknown: use ignore, negative, positive", devkit, difficult="keep")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"<annotation><object></annotation>", "cannot be read .*mismatched tag"),
            (b"", "cannot be read"),
            (b"<html></html>", "starts with <html>"),
            (b"<annotation><object><name>dgo</name></object></annotation>", "object 1: unknown class 'dgo': did you mean 'dog'"),
            (b"<annotation><object></object></annotation>", "object 1: unknown class ''"),
            (b"<annotation><object><name>dog</name><difficult>x</difficult></object></annotation>", "difficult is 'x'"),
            (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "cannot be read .*nonsense"),
        ],
    )
    def test_annotation(self, tmp_path, content, message):
        folder = write_devkit(tmp_path, class_files=False)
        (folder / "Annotations/000003.xml").write_bytes(content)
        self.expect(rf"Annotations/000003\.xml .*{message}", tmp_path)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    @pytest.mark.parametrize(
        "doctype",
        [
            '<!DOCTYPE annotation SYSTEM "file:///etc/passwd">',
            '<!DOCTYPE annotation [<!ENTITY a "dog">]>',
            '<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        ],
    )
    def test_document_type_and_entities(self, tmp_path, doctype, encoding):
        folder = write_devkit(tmp_path, class_files=False)
        (folder / "Annotations/000001.xml").write_bytes(f"{doctype}<annotation></annotation>".encode(encoding))
        self.expect("document type declaration is not allowed", tmp_path)


def damage(data: st.DataObject, content: bytes) -> bytes:
    """Cut off somewhere, or some bytes replaced."""
    if data.draw(st.booleans(), label="truncate"):
        return content[: data.draw(st.integers(0, len(content) - 1))]
    broken = bytearray(content)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=5)):
        broken[place] = byte
    return bytes(broken)


@given(data=st.data(), victim=st.sampled_from(["ImageSets/Main/train.txt", "ImageSets/Main/dog_train.txt", "Annotations/000003.xml"]))
@examples
def test_damaged_files_give_examples_or_a_user_error(data, victim):
    with tempfile.TemporaryDirectory() as root:
        folder = write_devkit(Path(root), class_files="Main" in victim)
        content = (folder / victim).read_bytes()
        (folder / victim).write_bytes(damage(data, content))
        try:
            out = read(Path(root))
        except UserError as error:
            assert str(error)
        else:
            assert isinstance(out, Examples) and 1 <= len(out) <= 4
            assert all(set(v.tolist()) <= {0, 1, IGNORE} for v in out.labels.values())


class TestRealData:
    """On the part of VOC in the shared data; counts from its README and from spec E1."""

    TRAIN = {"dog": 1067, "cat": 902, "person": 620, "horse": 421, "sheep": 298, "cow": 281, "chair": 126, "sofa": 122, "aeroplane": 0}
    VAL = {"dog": 155, "cat": 125, "person": 87, "horse": 49, "sheep": 32, "cow": 36, "chair": 20, "sofa": 26, "aeroplane": 0}
    # VOC2007 test, label 1; and label 1 or 0
    TEST = [204, 239, 282, 172, 212, 174, 721, 322, 417, 127, 190, 418, 274, 222, 2007, 224, 97, 223, 259, 229]
    TEST_WITH_DIFFICULT = [205, 250, 289, 176, 240, 183, 775, 332, 545, 127, 247, 433, 279, 233, 2097, 254, 98, 355, 259, 255]

    @pytest.fixture(scope="class")
    def root(self, real_data):
        return real_data / "VOCdevkit"

    @pytest.fixture(scope="class")
    def test2007(self, root):
        """label of every class and image of VOC2007 test, whose images are mostly not here."""
        folder = voc._year_folder(root, 2007)
        ids = voc._read_ids(folder, "test")
        return np.array(list(voc._labels(folder, "test", ids, voc.CLASSES).values()))

    @pytest.mark.parametrize(("split", "n", "counts"), [("train", 2918, TRAIN), ("val", 390, VAL)])
    def test_counts_2012(self, root, split, n, counts):
        out = voc.load(root=root, year=2012, split=split)
        assert len(out) == n and [t.name for t in out.tasks] == list(voc.CLASSES)
        assert {c: int((out.labels[c] == 1).sum()) for c in counts} == counts
        assert all(p.is_file() for p in out.images)

    def test_train_and_val_are_apart(self, root):
        train, val = (voc.load(root=root, year=2012, split=s, classes=()).ids for s in ("train", "val"))
        assert not set(train) & set(val)

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_annotations_give_what_class_files_give_2012(self, root, tmp_path, split):
        assert self.from_annotations(root, 2012, split, tmp_path) == values(voc.load(root=root, year=2012, split=split))

    def test_annotations_give_what_class_files_give_2007(self, root, tmp_path):
        # test only: the flag `difficult` of the trainval annotations here is a placeholder
        expected = values(voc.load(root=root, year=2007, split="test", only_available=True))
        assert self.from_annotations(root, 2007, "test", tmp_path) == expected
        assert sum(labels.count(IGNORE) for labels in expected.values()) > 0

    @staticmethod
    def from_annotations(root, year, split, tmp_path):
        """The same split in a devkit without class files."""
        folder = tmp_path / f"VOC{year}"
        (folder / "ImageSets/Main").mkdir(parents=True)
        (folder / f"ImageSets/Main/{split}.txt").write_bytes((root / f"VOC{year}/ImageSets/Main/{split}.txt").read_bytes())
        for name in ("JPEGImages", "Annotations"):
            (folder / name).symlink_to((root / f"VOC{year}" / name).resolve())
        return values(voc.load(root=tmp_path, year=year, split=split, only_available=True))

    def test_counts_2007(self, test2007):
        assert test2007.shape == (20, 4952)
        assert (test2007 == voc.PRESENT).sum(axis=1).tolist() == self.TEST
        assert (test2007 != voc.ABSENT).sum(axis=1).tolist() == self.TEST_WITH_DIFFICULT

    @pytest.mark.parametrize(("difficult", "expected"), [("negative", 92.92), ("ignore", 92.85), ("positive", 92.29)])
    def test_the_all_negative_accuracy_of_the_spec_counts_difficult_as_negative(self, test2007, difficult, expected):
        from amalgam_tf.metrics.multilabel import all_negative_accuracy

        each = [all_negative_accuracy(truth=voc._truth(row, difficult)) for row in test2007.tolist()]
        assert 100 * np.mean(each) == pytest.approx(expected, abs=0.005)

    def test_2007_is_incomplete_and_says_so(self, root):
        with pytest.raises(UserError, match=r"000011\.jpg is missing, and with it 4879 of the 4952 images"):
            voc.load(root=root, year=2007, split="test")
        assert len(voc.load(root=root, year=2007, split="test", only_available=True)) == 73
        assert len(voc.load(root=root, year=2007, split="trainval", only_available=True)) == 126
