"""The CelebA reader: on files written here, on damaged ones, and on the real part against a recount of its own."""

from pathlib import Path
import re

import numpy as np
import pytest

from amalgam_tf import data
from amalgam_tf.data import celeba
from amalgam_tf.data.examples import Examples, share
from amalgam_tf.errors import UserError

NAMES = ("5_o_Clock_Shadow", "Black_Hair", "Receding_Hairline", "Smiling")
# file -> split, attributes as in the file
ROWS = {
    "000001.jpg": (0, (-1, 1, -1, 1)),
    "000002.jpg": (0, (1, -1, -1, -1)),
    "000003.jpg": (1, (-1, -1, 1, 1)),
    "000004.jpg": (2, (1, 1, -1, -1)),
    "000005.jpg": (0, (-1, 1, -1, -1)),
}


def write(root: Path) -> Path:
    """The layout as it is unpacked: a trailing space in the header, columns padded to two, the partition in another order."""
    (root / "img_align_celeba").mkdir(parents=True)
    for name in ROWS:
        (root / "img_align_celeba" / name).write_bytes(b"no decoder looks at this")
    lines = [f"{name} " + " ".join(f"{v:2d}" for v in values) for name, (_, values) in ROWS.items()]
    (root / "list_attr_celeba.txt").write_bytes("\r\n".join([str(len(ROWS)), " ".join(NAMES) + " ", *lines, ""]).encode())
    turned = [f"{name} {split}" for name, (split, _) in sorted(ROWS.items(), reverse=True)]
    (root / "list_eval_partition.txt").write_text("\n".join(turned) + "\n")
    return root


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "celeba")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refused(message, **more):
    with pytest.raises(UserError, match=message) as caught:
        celeba.load(**more)
    assert "\n" not in str(caught.value)


def test_labels_ids_and_heads(root):
    out = celeba.load(root=root, split="train")
    assert (out.name, out.ids) == ("celeba/train", ("000005", "000002", "000001"))  # the list's order, not that of the attributes
    assert [t.name for t in out.tasks] == list(NAMES)
    assert {(t.kind, t.head, t.outputs, t.labels) for t in out.tasks} == {("binary", "softmax2", 2, ())}
    for i, name in enumerate(NAMES):
        assert out.labels[name].dtype == np.int32
        assert out.labels[name].tolist() == [int(ROWS[f"{k}.jpg"][1][i] == 1) for k in out.ids]
    assert [p.relative_to(root).as_posix() for p in out.images] == [f"img_align_celeba/{i}.jpg" for i in out.ids]


@pytest.mark.parametrize(("split", "ids"), [("val", ["000003"]), ("test", ["000004"]), ("val+test", ["000004", "000003"])])
def test_other_splits(root, split, ids):
    assert list(celeba.load(root=root, split=split).ids) == ids


def test_wanted_attributes_in_their_order(root):
    out = celeba.load(root=root, split="train", attributes=("Smiling", "Black_Hair"))
    assert [t.name for t in out.tasks] == ["Smiling", "Black_Hair"]
    assert out.labels["Smiling"].tolist() == [0, 0, 1] and out.labels["Black_Hair"].tolist() == [1, 0, 1]
    assert celeba.load(root=root, split="train", attributes=()).tasks == ()


def test_own_partition(root):
    (root / "mine.txt").write_text("000004.jpg 0\n000001.jpg 1\n")
    out = celeba.load(root=root, split="train", partition="mine.txt")
    assert (out.name, out.ids) == ("celeba/train/mine", ("000004",))


def test_missing_images(root):
    (root / "img_align_celeba" / "000002.jpg").unlink()
    refused(r"000002.jpg is missing, and with it 1 of the 3 images.*only_available", root=root, split="train")
    out = celeba.load(root=root, split="train", only_available=True)
    assert (out.name, out.ids) == ("celeba/train/available", ("000005", "000001"))
    assert out.labels["Black_Hair"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": ("Receding_Hariline",)}, "'Receding_Hariline' is not an attribute of .*: did you mean 'Receding_Hairline'"),
        ({"attributes": ("Smiling", "Smiling")}, "'Smiling' is asked for twice"),
        ({"split": "trian"}, "no split 'trian': did you mean 'train'"),
        ({"split": ""}, "no split ''"),
        ({"partition": "none.txt"}, "none.txt is missing"),
        ({"root": Path("nowhere")}, "nowhere does not exist"),
    ],
)
def test_wrong_wishes(root, change, message):
    refused(message, **{"root": root, "split": "train", **change})


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "5\n", "6\n", "announces 6 images and lists 5: it is cut short"),
        ("list_attr_celeba.txt", "000005.jpg -1", "000005.jpg", "line 7: not a file name followed by 1 or -1 for each of the 4"),
        ("list_attr_celeba.txt", "000002.jpg  1", "000002.jpg  0", "line 4: not a file name followed by 1 or -1"),
        ("list_attr_celeba.txt", "000002.jpg", "000001.jpg", "line 4: 000001.jpg stands there already"),
        ("list_attr_celeba.txt", "000002.jpg", "000009.jpg", "no line for 000002.jpg .1 of 3 images"),
        ("list_attr_celeba.txt", "5\n", "", "line 1: '5_o_Clock_Shadow Black_Hair.*' is not the number of images"),
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3", "line 4: '000002.jpg 3' is not a file name followed by 0, 1 or 2"),
        ("list_eval_partition.txt", "000002.jpg 0", "../2.jpg 0", "line 4: '../2.jpg 0' is not a file name"),
        ("list_eval_partition.txt", "000002.jpg", "000001.jpg", "line 5: 000001.jpg stands there already"),
    ],
)
def test_damaged_files(root, file, old, new, message):
    edit(root / file, old, new)
    refused(f"{re.escape(file)} .*{message}" if "announces" in message or "no line" in message else message, root=root, split="train")


def test_empty_and_binary_files(root):
    (root / "list_attr_celeba.txt").write_bytes(b"")
    refused("list_attr_celeba.txt is empty", root=root, split="train")
    (root / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\xfa")
    refused("list_attr_celeba.txt cannot be read as text", root=root, split="train")
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    refused("puts no image into val .it has train.*data.partition", root=root, split="val")


class TestParts:
    """C9: equal, disjoint, together everything, and the same ever after."""

    @staticmethod
    def examples(count):
        return Examples("x/train", tuple(f"{i}" for i in range(count)), [Path(f"{i}.jpg") for i in range(count)], (), {})

    @pytest.mark.parametrize("count", [6, 20, 601])
    def test_parts_are_a_partition(self, count):
        parts = [share(self.examples(count), k, 6) for k in range(1, 7)]
        assert {len(p) for p in parts} <= {count // 6, -(-count // 6)}
        assert sorted(int(i) for p in parts for i in p.ids) == list(range(count))
        assert all(list(map(int, p.ids)) == sorted(map(int, p.ids)) for p in parts)
        assert len({p.name for p in parts}) == 6

    def test_the_draw_is_fixed(self):
        assert share(self.examples(12), 1, 6).ids == ("2", "9") and share(self.examples(12), 1, 6, seed=1).ids != ("2", "9")

    def test_parts_are_no_runs_of_the_list(self):
        ids = np.array([int(i) for i in share(self.examples(600), 2, 6).ids])
        assert abs(ids.mean() - 300) < 60 and ids.min() < 40 and ids.max() > 560

    @pytest.mark.parametrize(("number", "count", "seed"), [(0, 6, 0), (7, 6, 0), (1, 13, 0), (1, 6, -1)])
    def test_refused(self, number, count, seed):
        with pytest.raises(UserError, match=r"data\.part"):
            share(self.examples(12), number, count, seed)

    def test_by_a_config(self, root):
        options = {**data.DEFAULTS, "reader": "celeba", "root": str(root), "cache_dir": "", "part_count": 3, "classes": "Smiling"}
        whole = data.load(options, "train")
        parts = [data.load({**options, "part": str(k)}, "train") for k in (1, 2, 3)]
        assert sorted(i for p in parts for i in p.ids) == sorted(whole.ids) and parts[0].name == "celeba/train/part1of3"
        for p in parts:
            assert p.labels["Smiling"].tolist() == [whole.labels["Smiling"][whole.ids.index(i)] for i in p.ids]
        assert data.load({**options, "part": "2"}, "test").ids == data.load(options, "test").ids == ("000004",)
        for wrong in ("x", "-1", "1.0", "²"):
            with pytest.raises(UserError, match="data.part="):
                data.load({**options, "part": wrong}, "train")

    def test_heads_by_a_config(self, root):
        options = {**data.DEFAULTS, "reader": "celeba", "root": str(root), "cache_dir": ""}
        assert {t.head for t in data.load({**options, "binary_head": "sigmoid"}, "train").tasks} == {"sigmoid"}
        scenes = data.load({**data.DEFAULTS, "train_count": 2, "cache_dir": "", "binary_head": "softmax2"}, "train")
        assert {(t.kind, t.head) for t in scenes.tasks} == {("binary", "softmax2"), ("category", "softmax")}
        with pytest.raises(UserError, match="binary_head"):
            data.load({**options, "binary_head": "softmax"}, "train")


class TestRealData:
    LOCAL = "list_local_partition.txt"

    @pytest.fixture(scope="class")
    def train(self, real_data):
        return celeba.load(root=real_data / "celeba", split="train", partition=self.LOCAL)

    def test_counts_and_rates_against_a_recount(self, real_data, train):
        text = (real_data / "celeba" / "list_attr_celeba.txt").read_text()
        header = text.splitlines()[1].split()
        table = np.genfromtxt(real_data / "celeba" / "list_attr_celeba.txt", skip_header=2, usecols=range(1, 41), dtype=np.int8)[:8000]
        assert len(train) == 8000 and [t.name for t in train.tasks] == header and len(header) == 40 and header == sorted(header)
        np.testing.assert_array_equal(np.stack([train.labels[n] for n in header], 1), table == 1)
        assert 0.4 < train.labels["Smiling"].mean() < 0.55 and 0.7 < train.labels["Young"].mean() < 0.85

    def test_splits(self, real_data):
        val = celeba.load(root=real_data / "celeba", split="val", partition=self.LOCAL, attributes=("Male",))
        assert (len(val), val.ids[0], val.ids[-1]) == (1000, "008001", "009000")

    def test_six_parts(self, train):
        parts = [share(train, k, 6) for k in range(1, 7)]
        assert [len(p) for p in parts] == [1334, 1334, 1333, 1333, 1333, 1333] and len({i for p in parts for i in p.ids}) == 8000
        rates = [p.labels["Smiling"].mean() for p in parts]
        assert max(rates) - min(rates) < 0.06  # four standard errors of a part's rate
