"""A user's own images: folders, CSVs, and damaged CSVs."""

from pathlib import Path
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from amalgam_tf import data
from amalgam_tf.data import folder, splits
from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.errors import UserError

WEATHER = {"weather": ("sun", "rain")}
CSV = """path,dog,weather,split
photos/1.jpg,1,rain,train
photos/2.JPG,0,,val
photos/3.png,,sun,train
./4.bmp,-1,sun,train
"""
IMAGES = ("photos/1.jpg", "photos/2.JPG", "photos/3.png", "4.bmp")


def touch(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no decoder looks at this")


def write(root: Path, text: str = CSV, name: str = "mine.csv") -> Path:
    for image in IMAGES:
        touch(root / image)
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root / name


def expect(message, **arguments):
    with pytest.raises(UserError, match=message) as caught:
        folder.load(**arguments)
    assert "\n" not in str(caught.value)


class TestFolder:
    def test_images_are_found_in_order_with_unique_ids(self, tmp_path):
        for name in ("b/1.jpg", "a/1.jpeg", "a/1.JPG", "z.png", "c.bmp", "d.gif", "notes.txt", ".hidden/x.jpg", "a/._1.jpg", "e.webp"):
            touch(tmp_path / name)
        (tmp_path / "folder.jpg").mkdir()
        out = folder.load(path=tmp_path)
        assert out.ids == ("a/1.JPG", "a/1.jpeg", "b/1.jpg", "c.bmp", "d.gif", "z.png")
        assert [p.relative_to(tmp_path).as_posix() for p in out.images] == list(out.ids)
        assert (out.name, out.tasks, out.labels) == (tmp_path.name, (), {})

    def test_split_is_a_sub_folder(self, tmp_path):
        touch(tmp_path / "val" / "1.jpg")
        touch(tmp_path / "train" / "2.jpg")
        out = folder.load(path=tmp_path, split="val")
        assert (out.name, out.ids) == (f"{tmp_path.name}/val", ("1.jpg",))
        expect("no sub-folder for split 'test': its sub-folders are train, val", path=tmp_path, split="test")
        expect("no sub-folder for split '..'", path=tmp_path / "val", split="..")

    def test_a_hidden_parent_does_not_hide_the_images(self, tmp_path):
        touch(tmp_path / ".cache" / "1.jpg")
        assert folder.load(path=tmp_path / ".cache").ids == ("1.jpg",)

    def test_refused(self, tmp_path):
        touch(tmp_path / "notes.txt")
        expect(r"holds no image: put files ending in \.jpg", path=tmp_path)
        expect("neither a folder nor a .csv", path=tmp_path / "notes.txt")
        expect("neither a folder nor a .csv", path=tmp_path / "nowhere")
        expect("is a folder of unlabelled images", path=tmp_path, categories=WEATHER)


class TestCsv:
    def test_content(self, tmp_path):
        out = folder.load(path=write(tmp_path), categories=WEATHER)
        assert (out.name, out.ids) == ("mine", IMAGES)
        assert [p.relative_to(tmp_path).as_posix() for p in out.images] == list(IMAGES)
        assert [(t.name, t.kind, t.labels, t.head) for t in out.tasks] == [
            ("dog", "binary", (), "sigmoid"),
            ("weather", "category", ("sun", "rain"), "softmax"),
        ]
        assert out.labels["dog"].tolist() == [1, 0, IGNORE, IGNORE] and out.labels["weather"].tolist() == [1, IGNORE, 0, 0]
        assert all(v.dtype == np.int32 for v in out.labels.values())

    def test_split(self, tmp_path):
        out = folder.load(path=write(tmp_path), split="val", categories=WEATHER)
        assert (out.name, out.ids, out.labels["dog"].tolist()) == ("mine/val", ("photos/2.JPG",), [0])
        expect("no row of split 'vall': did you mean 'val'", path=tmp_path / "mine.csv", split="vall", categories=WEATHER)
        expect("has no column split", path=write(tmp_path, "path\n4.bmp\n"), split="val")

    @pytest.mark.parametrize(
        "text",
        [
            b"\xef\xbb\xbfpath,dog\r\n4.bmp,1\r\n",  # byte order mark and line ends of a spreadsheet
            "dog,path\n1,4.bmp\n",
            "path, dog\n\n 4.bmp , 1\n,\n",
            'path,dog\n"4.bmp","1.0"\n',
        ],
    )
    def test_ways_to_write_the_same(self, tmp_path, text):
        out = folder.load(path=write(tmp_path, text))
        assert (out.ids, out.labels["dog"].tolist()) == (("4.bmp",), [1])

    def test_paths_alone_are_unlabelled(self, tmp_path):
        assert folder.load(path=write(tmp_path, "path\n4.bmp\n")).tasks == ()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,dog\n4.bmp,1\nphotos/1.jpg,yes\n", r"mine\.csv row 3, column 'dog': 'yes' is not 1, 0.*categories=\{'dog'"),
            ("path,dog\n4.bmp,2\n", "row 2, column 'dog': '2' is not 1, 0"),
            ("path,dog\n4.bmp,0.5\n", "row 2, column 'dog': '0.5'"),
            ("path,dog\n\n4.bmp,nan\n", "row 3, column 'dog': 'nan'"),
            ("path,dog\n4.bmp,1\nphotos/1.jpg,-1\n", "column 'dog' has -1 but no 0: write 0 for absent"),
            ("path,dog\n4.bmp,1,1\n", "row 2 has 3 cells, the header 2"),
            ("path,dog\n4.bmp\n", "row 2 has 1 cells, the header 2"),
            ("path,dog\n../out.jpg,1\n", r"row 2: path '\.\./out\.jpg' must lie in the folder"),
            ("path,dog\nphotos/../../out.jpg,1\n", "must lie in the folder"),
            ("path,dog\n/etc/out.jpg,1\n", "must lie in the folder"),
            ("path,dog\n,1\n", "row 2: path ''"),
            ("path,dog\n4.bmp,1\n./4.bmp,0\n", "row 3: './4.bmp' stands in row 2 already"),
            ("path,dog\n4.bmp,1\nphotos/9.jpg,0\n", r"row 3: image .*photos/9\.jpg is missing"),
            ("path,dog\nphotos/notes.txt,0\n", "row 2: 'photos/notes.txt' is not a kind of image"),
            ("path,dog\n" + "a" * 5000 + ".jpg,0\n", "row 2: image .* is missing"),
            ("path,dog,dog\n4.bmp,1,1\n", "the column 'dog' twice"),
            ("path,big dog\n4.bmp,1\n", r"mine\.csv, header: task name 'big dog' is not usable"),
            ("file,dog\n4.bmp,1\n", "no column path"),
            ("path;dog\n4.bmp;1\n", "no column path .*'path;dog'.* separated by commas"),
            ("", "no column path"),
            ("path,dog\n", "lists no image"),
            ('path,dog\n"4.bmp,1\n', "cannot be read as comma-separated"),
            (b"path,dog\n4.bmp,\xff\n", "cannot be read as comma-separated"),
        ],
    )
    def test_refused(self, tmp_path, text, message):
        expect(message, path=write(tmp_path, text))

    def test_the_convention_of_minus_one_for_unknown_needs_a_zero_beside_it(self, tmp_path):
        out = folder.load(path=write(tmp_path, "path,dog\n4.bmp,1\nphotos/1.jpg,-1\nphotos/3.png,0\n"))
        assert out.labels["dog"].tolist() == [1, IGNORE, 0]

    def test_categories_that_do_not_fit(self, tmp_path):
        path = write(tmp_path)
        expect("no column 'wether' to hold a category: did you mean 'weather'", path=path, categories={"wether": ("sun", "rain")})
        expect("row 2, column 'weather': 'rain' is not a class .* there are sun", path=path, categories={"weather": ("sun",)})
        expect("class names as a list", path=path, categories={"weather": "sun"})
        expect("class names as a list", path=path, categories={"weather": ("sun", "rain", "sun")})
        expect("class names as a list", path=path, categories={"weather": ()})

    def test_missing_file(self, tmp_path):
        expect("mine.csv does not exist", path=tmp_path / "mine.csv")


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_damaged_csv_gives_examples_or_a_user_error(data):
    content = bytearray(CSV.encode())
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[place] = byte
    with tempfile.TemporaryDirectory() as root:
        path = write(Path(root), bytes(content[: data.draw(st.integers(0, len(content)))]))
        try:
            out = folder.load(path=path, categories=data.draw(st.sampled_from([None, WEATHER])))
        except UserError as error:
            assert str(error)
        else:
            assert isinstance(out, Examples) and all(p.is_file() for p in out.images)
            assert all(v.min() >= IGNORE and v.max() <= 1 for v in out.labels.values())


class TestClassFolders:
    @pytest.fixture
    def root(self, tmp_path):
        for name in ("train/cat/1.jpg", "train/cat/deep/2.jpg", "train/dog/1.jpg", "train/ant/1.png", "test/dog/9.jpg", "train/none/a.txt"):
            touch(tmp_path / name)
        return tmp_path

    def test_sub_folders_are_the_classes(self, root):
        out = folder.load(path=root, split="train", task="animal")
        (task,) = out.tasks
        assert (task.name, task.kind, task.head, task.labels) == ("animal", "category", "softmax", ("ant", "cat", "dog"))
        assert out.ids == ("ant/1.png", "cat/1.jpg", "cat/deep/2.jpg", "dog/1.jpg") and out.labels["animal"].tolist() == [0, 1, 1, 2]
        assert out.labels["animal"].dtype == np.int32

    def test_chosen_classes_in_their_order(self, root):
        out = folder.load(path=root, split="train", task="animal", classes=("dog", "cat"))
        assert out.tasks[0].labels == ("dog", "cat")
        assert dict(zip(out.ids, out.labels["animal"].tolist(), strict=True)) == {"cat/1.jpg": 1, "cat/deep/2.jpg": 1, "dog/1.jpg": 0}

    def test_without_a_task_they_are_unlabelled_images(self, root):
        assert folder.load(path=root, split="train").tasks == ()

    def test_refused(self, root):
        expect("no folder with images for class 'cta': did you mean 'cat'", path=root, split="train", task="x", classes=("cta",))
        expect("no folder with images for class 'none'", path=root, split="train", task="x", classes=("none",))
        expect("class 'cat' is asked for twice", path=root, split="train", task="x", classes=("cat", "cat"))
        touch(root / "train" / "0.jpg")
        expect("holds 0.jpg beside its class folders", path=root, split="train", task="x")
        expect("data.task='x' names what class folders tell apart", path=write(root), task="x")


class TestClassGroups:
    """Halves and quarters of CIFAR-10 by their seeded groups; the file names are the same in every class."""

    @pytest.fixture
    def root(self, tmp_path):
        for split, count in (("train", 2), ("test", 1)):
            for name in splits.load_groups("cifar10_halves").values():
                for c in name:
                    for i in range(count):
                        touch(tmp_path / split / c / f"{i:04d}.png")
        return tmp_path

    def load(self, root, groups, split="train"):
        return data.load({**data.DEFAULTS, "reader": "folder", "root": str(root), "task": "cifar10", "groups": groups}, split)

    def test_two_tasks_without_truth_for_each_others_images(self, root):
        halves, out = splits.load_groups("cifar10_halves"), self.load(root, "X1,X2")
        assert [(t.name, t.kind, t.head, t.labels) for t in out.tasks] == [(h, "category", "softmax", halves[h]) for h in ("X1", "X2")]
        assert len(out) == len(set(out.ids)) == 20 and out.name == "train"
        for i, (image_id, path) in enumerate(zip(out.ids, out.images, strict=True)):
            name = image_id.partition("/")[0]
            assert path == root / "train" / image_id
            for half, classes in halves.items():
                assert out.labels[half][i] == (classes.index(name) if name in classes else IGNORE)

    def test_a_joint_task_of_a_half_and_a_quarter_of_the_other(self, root):
        half, quarter = splits.load_groups("cifar10_halves")["X1"], splits.load_groups("cifar10_quarters")["X2a"]
        out = self.load(root, "X1+X2a", "test")
        (task,) = out.tasks
        assert (task.name, task.labels) == ("X1+X2a", (*half, *quarter))
        found = {i.partition("/")[0]: task.labels[label] for i, label in zip(out.ids, out.labels["X1+X2a"], strict=True)}
        assert found == {c: c for c in task.labels} and len(out) == 8

    def test_a_half_is_the_same_images_alone_and_as_a_part(self, root):
        """So that a component and its target split off the same held-out images."""
        alone, both = self.load(root, "X2"), self.load(root, "X1,X2")
        assert set(alone.ids) == {i for i, label in zip(both.ids, both.labels["X2"], strict=True) if label != IGNORE}

    def test_refused(self, root):
        path = root / "train"
        expect("data.groups='X1' needs the set whose groups these are: name it by data.task", path=path, groups="X1")
        expect("unknown group in data.groups 'X3'", path=path, task="cifar10", groups="X3")
        expect("data.classes and data.groups both say which classes", path=path, task="cifar10", groups="X1", classes=("cat",))
        expect("no class grouping is called 'animal_halves'", path=path, task="animal", groups="X1")
        expect("class 'automobile' twice", path=path, task="cifar10", groups="X1+X1b")
        for image in (path / "cat").iterdir():
            image.unlink()
        expect("'cat' is not a class of cifar10", path=path, task="cifar10", groups="X1")
