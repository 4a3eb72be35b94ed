"""The four fine-grained sets in their official layouts, written here, and tasks over halves, quarters and several sets."""

from pathlib import Path
import shutil

import numpy as np
import pytest
from scipy import io

from amalgam_tf import data
from amalgam_tf.data import fine_grained
from amalgam_tf.data.examples import IGNORE
from amalgam_tf.errors import UserError

# split -> (file, class) in the order of the lists
DOGS = {
    "train": [("n02085620_9", "Chihuahua"), ("n02089078_3", "black-and-tan_coonhound"), ("n02085620_10", "Chihuahua")],
    "test": [("n02113186_1", "Cardigan")],
}
FOLDERS = {"Chihuahua": "n02085620", "black-and-tan_coonhound": "n02089078", "Cardigan": "n02113186"}
BIRDS = ["Black_footed_Albatross", "Laysan_Albatross", "Cardinal"]
CUB = {"train": [("B_1_5", BIRDS[1]), ("B_2_6", BIRDS[0])], "test": [("B_3_7", BIRDS[2]), ("B_4_8", BIRDS[0])]}
PLANES = ["F-16A/B", "707-320", "BAE 146-200"]
AIRCRAFT = {"train": [("0034309", PLANES[2])], "val": [("0481847", PLANES[0])], "test": [("1025794", PLANES[1]), ("0012345", PLANES[0])]}
AIRCRAFT["trainval"] = [*AIRCRAFT["val"], *AIRCRAFT["train"]]
MAKES = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]
CARS = {"train": [("00001", MAKES[1]), ("00002", MAKES[0])], "test": [("00001", MAKES[0])]}
TRUTH = {"dogs": DOGS, "cub": CUB, "aircraft": AIRCRAFT, "cars": CARS}
CLASSES = {"dogs": sorted(FOLDERS, key=FOLDERS.get), "cub": BIRDS, "aircraft": PLANES, "cars": MAKES}


def put(path: Path, content: str = "no decoder looks at this") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def write_dogs(root: Path) -> None:
    for split, rows in DOGS.items():
        files = [f"{FOLDERS[c]}-{c}/{name}.jpg" for name, c in rows]
        for file in files:
            put(root / "Images" / file)
        column = np.array([[f] for f in files], dtype=object)
        put(root / "lists" / "readme.txt")
        io.savemat(root / "lists" / f"{split}_list.mat", {"file_list": column, "labels": np.ones((len(files), 1))})


def write_cub(root: Path) -> None:
    rows = [(name, c, split) for split, of in CUB.items() for name, c in of]
    paths = [f"{BIRDS.index(c) + 1:03d}.{c}/{name}.jpg" for name, c, _ in rows]
    for path in paths:
        put(root / "images" / path)
    put(root / "images.txt", "".join(f"{i} {p}\n" for i, p in enumerate(paths, 1)))
    put(root / "image_class_labels.txt", "".join(f"{i} {BIRDS.index(c) + 1}\n" for i, (_, c, _) in enumerate(rows, 1)))
    put(root / "classes.txt", "".join(f"{i} {i:03d}.{c}\n" for i, c in enumerate(BIRDS, 1)))
    put(root / "train_test_split.txt", "".join(f"{i} {int(s == 'train')}\n" for i, (_, _, s) in enumerate(rows, 1)))


def write_aircraft(root: Path) -> None:
    for split, rows in AIRCRAFT.items():
        for name, _ in rows:
            put(root / "data" / "images" / f"{name}.jpg")
        put(root / "data" / f"images_variant_{split}.txt", "".join(f"{n} {c}\n" for n, c in rows))
    put(root / "data" / "variants.txt", "".join(f"{c}\n" for c in PLANES))


def write_cars(root: Path) -> None:
    kinds = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    (root / "devkit").mkdir(parents=True)
    for split, rows in CARS.items():
        for name, _ in rows:
            put(root / f"cars_{split}" / f"{name}.jpg")
        table = np.array([[(1, MAKES.index(c) + 1, f"{n}.jpg") for n, c in rows]], dtype=kinds)
        io.savemat(root / files[split], {"annotations": table})
    io.savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([MAKES], dtype=object)})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with all four, each under a usual name."""
    root = tmp_path_factory.mktemp("sets")
    writers = {"dogs": write_dogs, "cub": write_cub, "aircraft": write_aircraft, "cars": write_cars}
    for source, write in writers.items():
        write(root / fine_grained.HOMES[source][1][0])
    return root


@pytest.fixture
def own(made, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "sets"))


def home(root, source):
    return root / fine_grained.HOMES[source][1][0]


def refused(message, call, *arguments, **more):
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value)


def section(made, reader, **more):
    return {**data.DEFAULTS, "reader": reader, "root": str(made), "cache_dir": "", **more}


class TestLayouts:
    @pytest.mark.parametrize(("source", "split"), [(source, split) for source, of in TRUTH.items() for split in of])
    def test_classes_files_and_labels(self, made, source, split):
        out = fine_grained.listing(source=source, root=made, split=split)
        assert list(out.classes) == CLASSES[source] and (out.source, out.split, out.whole) == (source, split, True)
        assert [(p.stem, c) for p, c in zip(out.images, out.labels, strict=True)] == sorted(TRUTH[source][split])
        assert all(p.is_file() for p in out.images)
        assert out == fine_grained.listing(source=source, root=home(made, source), split=split)  # the set's own folder does as well

    def test_train_and_test_of_cars_are_other_files(self, made):
        train, test = (fine_grained.listing(source="cars", root=made, split=s) for s in ("train", "test"))
        assert not {*train.images} & {*test.images}

    @pytest.mark.parametrize("source", ["dogs", "cub", "cars"])
    def test_trainval_is_train_where_there_is_no_val(self, made, source):
        both = [fine_grained.listing(source=source, root=made, split=s) for s in ("train", "trainval")]
        assert both[0].images == both[1].images
        refused(f"{source} has no split 'val'", fine_grained.listing, source=source, root=made, split="val")

    def test_a_list_beside_the_images_and_labels_in_the_devkit(self, own):
        (home(own, "dogs") / "lists" / "train_list.mat").rename(home(own, "dogs") / "train_list.mat")
        (home(own, "cars") / "cars_test_annos_withlabels.mat").rename(home(own, "cars") / "devkit/cars_test_annos_withlabels.mat")
        assert len(fine_grained.listing(source="dogs", root=own, split="train").images) == 3
        assert fine_grained.listing(source="cars", root=own, split="test").labels == (MAKES[0],)

    def test_missing_images(self, own):
        (home(own, "aircraft") / "data" / "images" / "0034309.jpg").unlink()
        call = {"source": "aircraft", "root": own, "split": "trainval"}
        refused("0034309.jpg is missing, and with it 1 of the 2 images.*only_available", fine_grained.listing, **call)
        out = fine_grained.listing(**call, only_available=True)
        assert out.labels == (PLANES[0],) and not out.whole
        assert data.load(section(own, "aircraft", only_available=True), "trainval").name == "aircraft/trainval/available"


class TestDamaged:
    @pytest.mark.parametrize(
        ("source", "split", "file", "content", "message"),
        [
            ("dogs", "train", "lists/train_list.mat", b"no MATLAB", "train_list.mat cannot be read as a MATLAB file with file_list"),
            ("dogs", "train", "lists/train_list.mat", None, "train_list.mat is missing, in lists/ too"),
            ("cub", "train", "images.txt", b"1 ../../x.jpg\n", r"images.txt lists an image '../../x.jpg', which does not lie in"),
            ("cub", "train", "images.txt", b"1\n", "images.txt line 1: '1' is not a new number followed by a text"),
            ("cub", "train", "images.txt", b"1 a\n1 b\n", "line 2: '1 b' is not a new number"),
            ("cub", "train", "classes.txt", None, "classes.txt is missing"),
            ("cub", "train", "classes.txt", b"1 001.A\n2 002.A\n3 003.B\n", "has the class 'A' twice"),
            ("cub", "train", "train_test_split.txt", b"1 7\n", "says nothing of image 1, its side"),
            ("cub", "train", "image_class_labels.txt", b"1 9\n", "says nothing of image 1, its side"),
            ("aircraft", "val", "data/images_variant_val.txt", b"0481847 F-17\n", "is of class 'F-17', .*there are F-16A/B, 707-320"),
            ("aircraft", "val", "data/images_variant_val.txt", b"", "split val in .* is empty"),
            ("aircraft", "val", "data/images_variant_val.txt", b"\xff", "cannot be read as text"),
            ("cars", "train", "devkit/cars_train_annos.mat", b"", "cars_train_annos.mat cannot be read as a MATLAB file"),
            ("cars", "train", "devkit/cars_meta.mat", None, "holds no cars, known by devkit/cars_meta.mat"),
        ],
    )
    def test_files(self, own, source, split, file, content, message):
        path = home(own, source) / file
        path.unlink() if content is None else path.write_bytes(content)
        refused(message, fine_grained.listing, source=source, root=own, split=split)

    @pytest.mark.parametrize("number", [0, 3, None])
    def test_cars_without_a_class(self, own, number):
        """The devkit's own annotations of the test images have no class."""
        kinds = [("fname", "O")] + ([("class", "O")] if number is not None else [])
        row = ("00001.jpg", number)[: len(kinds)]
        io.savemat(home(own, "cars") / "cars_test_annos_withlabels.mat", {"annotations": np.array([[row]], dtype=kinds)})
        refused("gives no class from 1 to 2", fine_grained.listing, source="cars", root=own, split="test")

    def test_wishes(self, made, tmp_path):
        refused("unknown fine-grained data set 'cats'", fine_grained.listing, source="cats", root=made, split="train")
        refused(f"{tmp_path} holds no dogs", fine_grained.listing, source="dogs", root=tmp_path, split="train")


class TestTasks:
    def test_one_task_of_all_classes(self, made):
        out = data.load(section(made, "dogs"), "train")
        (task,) = out.tasks
        assert (task.name, task.kind, task.head, list(task.labels)) == ("dogs", "category", "softmax", CLASSES["dogs"])
        assert (out.name, out.ids) == ("dogs/train", ("n02085620_10", "n02085620_9", "n02089078_3"))
        assert out.labels["dogs"].dtype == np.int32 and out.labels["dogs"].tolist() == [0, 0, 1]

    def test_chosen_classes_keep_their_images_only(self, made):
        out = data.load(section(made, "cub", classes="Cardinal, Black_footed_Albatross", task="bird"), "test")
        assert out.tasks[0].labels == ("Cardinal", "Black_footed_Albatross") and out.labels["bird"].tolist() == [0, 1]
        assert data.load(section(made, "cub", classes="Black_footed_Albatross"), "test").ids == ("B_4_8",)

    def test_classes_of_two_sets_where_they_lie(self, made):
        out = data.load(section(made, "dogs+cub", classes="Laysan_Albatross,Chihuahua", task="joint"), "train")
        assert (out.name, out.ids) == ("dogs+cub/train", ("dogs/n02085620_10", "dogs/n02085620_9", "cub/B_1_5"))
        assert out.tasks[0].labels == ("Laysan_Albatross", "Chihuahua") and out.labels["joint"].tolist() == [1, 1, 0]
        assert all(str(p).startswith(str(made)) for p in out.images)
        parts = data.parts(section(made, "aircraft+cars", train="trainval", hold_out=0.5))
        assert {i.partition("/")[0] for i in parts.test.ids} == {"aircraft", "cars"}

    def test_groups_of_table_6(self, made):
        known = fine_grained.groups(["dogs", "cub"])
        wish = {"task": "", "classes": None}
        assert fine_grained.wanted(["dogs", "cub"], [], named="D1+Bq1", **wish) == {"D1+Bq1": known["D1"] + known["Bq1"]}
        assert [len(known[g]) for g in ("D1", "B2", "Dq3", "Bq4")] == [60, 100, 30, 50]
        assert list(fine_grained.wanted(["dogs"], [], named="D1, D2", **wish)) == ["D1", "D2"]
        assert fine_grained.wanted(["dogs"], [], named="D2", task="dog", classes=None) == {"dog": known["D2"]}

    def test_two_tasks_know_nothing_of_the_images_of_the_other(self, made):
        listings = [fine_grained.listing(source="dogs", root=made, split="train")]
        out = fine_grained.examples(listings, {"D1": ("black-and-tan_coonhound",), "D2": ("Cardigan", "Chihuahua")})
        assert out.labels["D1"].tolist() == [IGNORE, IGNORE, 0] and out.labels["D2"].tolist() == [1, 1, IGNORE]

    def test_groups_reach_the_reader(self, made, monkeypatch):
        groups = {"D1": ("Chihuahua",), "Bq1": ("Laysan_Albatross", "Cardinal"), "B1": ("Cardinal",)}
        monkeypatch.setattr(fine_grained, "groups", lambda sources: groups)
        out = data.load(section(made, "dogs+cub", groups="D1+Bq1"), "train")
        assert [t.name for t in out.tasks] == ["D1+Bq1"] and out.labels["D1+Bq1"].tolist() == [0, 0, 1]
        assert out.tasks[0].labels == ("Chihuahua", "Laysan_Albatross", "Cardinal")
        refused("'Cardinal' twice", data.load, section(made, "dogs+cub", groups="B1+Bq1"), "train")

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"classes": "Chiuahua"}, "'Chiuahua' is not a class of dogs: did you mean 'Chihuahua'"),
            ({"classes": "Cardigan,Cardigan"}, "task 'dogs' is asked for class 'Cardigan' twice"),
            ({"groups": "D3"}, "unknown group in data.groups 'D3': did you mean"),
            ({"groups": "B1"}, "unknown group in data.groups 'B1'"),
            ({"groups": "D1,D1"}, "asks for 'D1' twice"),
            ({"groups": "D1", "classes": "Cardigan"}, "data.classes and data.groups both"),
            ({"groups": "D1,D2", "task": "dog"}, "names one task and data.groups asks for 2"),
            ({"reader": "dogs+dogs"}, "reads a data set twice"),
            ({"reader": "dogs+scenes"}, "unknown data.reader 'dogs.scenes': .* can be joined"),
            ({"reader": "dogs+cats"}, "unknown data.reader 'dogs.cats'"),
        ],
    )
    def test_wrong_wishes(self, made, more, message):
        refused(message, data.load, {**section(made, "dogs"), **more}, "train")

    def test_a_class_of_two_sets(self, made):
        one = fine_grained.listing(source="dogs", root=made, split="train")
        other = one._replace(source="cub")
        refused("'Chihuahua' is a class of dogs and of cub", fine_grained.examples, [one, other], {"x": ("Chihuahua",)})


class TestClassFolders:
    def test_a_part_of_cifar_10(self, real_data):
        root = real_data / "cifar10_images"
        parts = data.parts(section(root, "folder", task="thing", classes="dog,cat"))
        assert len(parts.train) + len(parts.held_out) == 1600 and len(parts.test) == 400
        assert parts.test.tasks[0].labels == ("dog", "cat") and parts.test.labels["thing"].sum() == 200
        assert all((p.parent.name == "cat") == bool(v) for p, v in zip(parts.test.images, parts.test.labels["thing"], strict=True))
