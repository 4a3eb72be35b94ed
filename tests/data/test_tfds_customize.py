"""CelebA and the fine-grained sets from TFDS: records of the builders' own form, against the directory readers over the same pictures."""

import io
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
import pytest

from amalgam_tf import data
from amalgam_tf.data import celeba, fine_grained, tfds
from amalgam_tf.errors import UserError

tensorflow_datasets = pytest.importorskip("tensorflow_datasets", reason="pip install " + tfds.PACKAGES)

DOGS = {
    "train": ["n02085936-Maltese_dog/n02085936_7", "n02085620-Chihuahua/n02085620_10", "n02085620-Chihuahua/n02085620_9"],
    "test": ["n02085620-Chihuahua/n02085620_1", "n02085936-Maltese_dog/n02085936_2"],
}
BIRDS = {
    "train": ["002.Laysan_Albatross/Laysan_Albatross_0001_545", "001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111"],
    "test": ["001.Black_footed_Albatross/Black_Footed_Albatross_0002_55", "002.Laysan_Albatross/Laysan_Albatross_0003_1033"],
}
CARS = {"train": [("00001", 13), ("00002", 2)], "test": [("00001", 195), ("00002", 0)]}
FACES = {"train": [[1, 4], [0], []], "validation": [[39]], "test": [[0, 39]]}  # which of the 40 attributes


def jpeg(seed: int, shape=(24, 30)) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC).save(out := io.BytesIO(), "JPEG", quality=90)
    return out.getvalue()


BOX = tensorflow_datasets.features.BBox(0.0, 0.0, 1.0, 1.0)


def dogs(builder, split):
    builder.info.features["label"].names = sorted(["n02085620-chihuahua", "n02085936-maltese_dog"] + [f"n09-{i:03d}" for i in range(118)])
    for i, name in enumerate(DOGS[split]):
        file, label = f"Images/{name}.jpg", name.partition("/")[0].lower()
        yield file, {"image": io.BytesIO(jpeg(i)), "image/filename": file, "label": label, "objects": [{"bbox": BOX}]}


def birds(builder, split):
    for i, name in enumerate(BIRDS[split]):
        file, folder = f"CUB_200_2011/images/{name}.jpg", name.partition("/")[0]
        mask = np.zeros((24, 30, 1), np.uint8)
        more = {"label": int(folder[:3]) - 1, "label_name": folder[4:].lower(), "bbox": BOX, "segmentation_mask": mask}
        yield file, {"image": io.BytesIO(jpeg(10 + i)), "image/filename": file, **more}


def cars(builder, split):
    for i, (name, label) in enumerate(CARS[split]):
        yield name, {"image": io.BytesIO(jpeg(20 + i)), "label": label, "bbox": BOX, "id": name}


def faces(builder, split):
    features = builder.info.features
    names = list(features["attributes"].keys())
    for i, present in enumerate(FACES[split]):
        attributes = {n: names.index(n) in present for n in names}
        zeros = {group: dict.fromkeys(features[group].keys(), 0) for group in ("landmarks", "identity")}
        yield f"{i:06d}.jpg", {"image": io.BytesIO(jpeg(30 + i, (218, 178))), "attributes": attributes, **zeros}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """(TFDS data_dir, cache_dir), the four sets prepared by their own builders from records made here; nothing is fetched."""
    root = tmp_path_factory.mktemp("tfds")
    for name, records, splits in (
        ("stanford_dogs", dogs, DOGS),
        ("caltech_birds2011", birds, BIRDS),
        ("cars196", cars, CARS),
        ("celeb_a", faces, FACES),
    ):
        builder = tensorflow_datasets.builder(name, data_dir=root / "data_dir")

        def split_generators(self, _, records=records, splits=splits):
            return {split: records(self, split) for split in splits}

        with mock.patch.object(type(builder), "_split_generators", split_generators):
            builder.download_and_prepare()
    return root / "data_dir", root / "cache"


def options(places, reader, **more):
    section = {"reader": reader, "root": str(places[0]), "cache_dir": str(places[1]), "hold_out": 0.5}
    return {**data.DEFAULTS, **section, **more}


class TestFineGrained:
    def test_dogs_equal_the_directory_reader(self, places, tmp_path):
        """TFDS writes the names of classes in lower case; case and order must be those of the folders."""
        from scipy import io as mat

        for split, names in DOGS.items():
            for i, name in enumerate(names):
                (path := tmp_path / "Images" / f"{name}.jpg").parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(i))
            cells = np.array([[f"{n}.jpg"] for n in names], dtype=object)
            mat.savemat(tmp_path / f"{split}_list.mat", {"file_list": cells})
        for split in ("train", "trainval", "test"):
            ours = data.load(options(places, "tfds:stanford_dogs"), split)
            theirs = data.load(options(places, "dogs", root=str(tmp_path)), split)
            assert (ours.name, ours.ids, ours.tasks) == (theirs.name, theirs.ids, theirs.tasks)
            assert ours.labels["dogs"].tolist() == theirs.labels["dogs"].tolist() and ours.fingerprint == theirs.fingerprint
        assert ours.tasks[0].labels == ("Chihuahua", "Maltese_dog") and ours.ids == ("n02085620_1", "n02085936_2")

    def test_birds(self, places):
        out = data.load(options(places, "tfds:caltech_birds2011"), "train")
        assert out.name == "cub/train" and out.tasks[0].labels == ("Black_footed_Albatross", "Laysan_Albatross")
        assert out.ids == ("Black_Footed_Albatross_0001_796111", "Laysan_Albatross_0001_545") and out.labels["cub"].tolist() == [0, 1]
        assert [p.read_bytes() for p in out.images] == [jpeg(11), jpeg(10)]

    def test_cars(self, places):
        out = data.load(options(places, "tfds:cars196", task="car"), "test")
        (task,) = out.tasks
        assert (out.ids, len(task.labels), task.name) == (("00001", "00002"), 196, "car")
        assert [task.labels[i] for i in out.labels["car"]] == ["smart fortwo Convertible 2012", "AM General Hummer SUV 2000"]
        assert set(task.labels) == {c for g, cs in fine_grained.groups(["cars"]).items() for c in cs}

    def test_classes_of_two_sets(self, places):
        both = "tfds:stanford_dogs+tfds:caltech_birds2011"
        out = data.load(options(places, both, classes="Laysan_Albatross,Chihuahua"), "train")
        assert out.ids == ("dogs/n02085620_10", "dogs/n02085620_9", "cub/Laysan_Albatross_0001_545")
        assert out.labels["dogs+cub"].tolist() == [1, 1, 0] and out.name == "dogs+cub/train"

    def test_splits(self, places):
        with pytest.raises(UserError, match="no split 'val'"):
            data.load(options(places, "tfds:cars196"), "val")


class TestCelebA:
    def test_attributes(self, places):
        out = data.load(options(places, "tfds:celeb_a"), "train")
        assert out.name == "celeba/train" and len(out.tasks) == 40 and {t.head for t in out.tasks} == {"softmax2"}
        names = [t.name for t in out.tasks]
        assert names == sorted(names) and (names[0], names[39]) == ("5_o_Clock_Shadow", "Young")
        found = {bytes(p.read_bytes()): [i for i, n in enumerate(names) if out.labels[n][k]] for k, p in enumerate(out.images)}
        assert found == {jpeg(30 + i, (218, 178)): present for i, present in enumerate(FACES["train"])}

    def test_names_are_those_of_the_file(self, places, real_data):
        file = celeba.load(root=real_data / "celeba", split="train", only_available=True)
        assert data.load(options(places, "tfds:celeb_a"), "train").tasks == file.tasks

    def test_splits_together_and_parts(self, places):
        out = data.load(options(places, "tfds:celeb_a", classes="Young,Bald"), "trainval")
        assert len(set(out.ids)) == 4 and list(out.labels) == ["Young", "Bald"] and sum(out.labels["Young"]) == 1
        parts = [data.load(options(places, "tfds:celeb_a", part=str(k), part_count=3), "train") for k in (1, 2, 3)]
        assert sorted(i for p in parts for i in p.ids) == sorted(data.load(options(places, "tfds:celeb_a"), "train").ids)

    def test_a_second_run_opens_no_record(self, places, monkeypatch):
        first = data.load(options(places, "tfds:celeb_a"), "test")
        monkeypatch.setattr(tfds, "_records", mock.Mock(side_effect=AssertionError("records were opened")))
        assert data.load(options(places, "tfds:celeb_a"), "test").fingerprint == first.fingerprint

    def test_misspelt(self, places):
        with pytest.raises(UserError, match="'Blad' is not a class of tfds:celeb_a: did you mean 'Bald'"):
            data.load(options(places, "tfds:celeb_a", classes="Blad"), "train")


@pytest.mark.parametrize("name", [*tfds.FINE_GRAINED, "celeb_a"])
def test_nothing_is_fetched_unasked(tmp_path, name):
    builder = "tensorflow_datasets.core.dataset_builder.DatasetBuilder.download_and_prepare"
    section = {**data.DEFAULTS, "reader": f"tfds:{name}", "root": str(tmp_path / "none"), "cache_dir": str(tmp_path)}
    with mock.patch(builder, side_effect=AssertionError("it downloads")), pytest.raises(UserError, match=f"not prepared {name}/"):
        data.load(section, "train")
    assert list(Path(tmp_path).iterdir()) == []
