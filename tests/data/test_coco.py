"""The COCO reader: on a folder written here, on damaged files, and on the real part of COCO 2017."""

from collections import Counter
import json
from pathlib import Path
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from amalgam_tf.data import coco, splits
from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.errors import UserError

# By falling id and with gaps, as the reader must not rely on the order of the file.
CATEGORIES = {90: "toothbrush", 10: "traffic light", 1: "person"}
IMAGES = {42: "COCO_val2014_000000000042.jpg", 7: "COCO_val2014_000000000007.jpg", 133: "COCO_val2014_000000000133.jpg", 9: "b/9.png"}
# (image, category, iscrowd). 42: a person and a crowd of them; 7: only a crowd; 133: toothbrush twice, traffic light; 9: nothing
ANNOTATIONS = [(42, 1, 0), (7, 1, 1), (133, 90, 0), (42, 1, 1), (133, 10, 0), (133, 90, 0)]
LABELS = {"person": [1, 1, 0, 0], "traffic_light": [0, 0, 1, 0], "toothbrush": [0, 0, 1, 0]}

examples = settings(max_examples=150, deadline=None)


def content() -> dict:
    outline = {0: [[1.5, 2.0, 3.0, 4.0, 5.0, 6.0]], 1: {"counts": [3, 4], "size": [4, 4]}}
    return {
        "info": {"year": 2014},
        "images": [{"license": 1, "file_name": name, "height": 4, "width": 4, "id": i} for i, name in IMAGES.items()],
        "licenses": [{"id": 1, "name": "x"}],
        "annotations": [
            {
                "segmentation": outline[crowd],
                "area": 1.0,
                "iscrowd": crowd,
                "image_id": image,
                "bbox": [0, 0, 1, 1],
                "category_id": c,
                "id": n,
            }
            for n, (image, c, crowd) in enumerate(ANNOTATIONS)
        ],
        "categories": [{"supercategory": "x", "id": i, "name": name} for i, name in CATEGORIES.items()],
    }


def write(root: Path, what=None, split="val2014") -> Path:
    """The folder; returns the path of its annotation file."""
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content() if what is None else what))
    for name in IMAGES.values():
        (root / split / name).parent.mkdir(parents=True, exist_ok=True)
        (root / split / name).write_bytes(b"no decoder looks at this")
    return path


def read(root, **more):
    return coco.load(**{"root": root, "split": "val2014", **more})


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path


def values(examples):
    """Labels in the order of the file, where `LABELS` has them."""
    listed = [i for i in map(str, IMAGES) if i in examples.ids] or examples.ids
    places = [examples.ids.index(i) for i in listed]
    return {name: labels[places].tolist() for name, labels in examples.labels.items()}


class TestContent:
    def test_ids_images_tasks_and_labels(self, folder):
        out = read(folder)
        assert (out.name, out.ids) == ("coco/val2014", ("7", "9", "42", "133"))  # by rising id
        assert [p.relative_to(folder).as_posix() for p in out.images] == [f"val2014/{IMAGES[int(i)]}" for i in out.ids]
        assert [(t.name, t.kind, t.head) for t in out.tasks] == [(name, "binary", "sigmoid") for name in LABELS]  # by category id
        assert values(out) == LABELS
        assert all(v.dtype == np.int32 and v.flags.c_contiguous for v in out.labels.values())

    @pytest.mark.parametrize(("crowd", "second"), [("positive", 1), ("ignore", IGNORE), ("negative", 0)])
    def test_crowd_regions_decide_only_where_there_is_no_single_instance(self, folder, crowd, second):
        assert values(read(folder, crowd=crowd)) == {**LABELS, "person": [1, second, 0, 0]}

    def test_without_the_flag_an_annotation_is_no_crowd(self, tmp_path):
        what = content()
        for entry in what["annotations"]:
            del entry["iscrowd"]
        write(tmp_path, what)
        assert values(read(tmp_path, crowd="negative")) == LABELS

    def test_chosen_classes_in_their_order_and_either_spelling(self, folder):
        out = read(folder, classes=("toothbrush", "traffic light"))
        assert values(out) == {n: LABELS[n] for n in ("toothbrush", "traffic_light")} == values(read(folder, classes=tuple(out.labels)))
        assert list(out.labels) == ["toothbrush", "traffic_light"]

    def test_no_classes_reads_images_without_labels(self, tmp_path):
        write(tmp_path, {"images": content()["images"]})  # as the files of unlabelled images are
        out = read(tmp_path, classes=())
        assert len(out) == 4 and out.tasks == () and out.labels == {}

    @pytest.mark.parametrize("images", ["pictures/{split}", "pictures/val2014"])
    def test_images_in_another_folder(self, folder, images):
        (folder / "pictures").mkdir()
        (folder / "val2014").rename(folder / "pictures" / "val2014")
        assert [p.relative_to(folder).as_posix() for p in read(folder, images=images).images][0] == f"pictures/val2014/{IMAGES[7]}"

    def test_only_available(self, folder):
        (folder / "val2014" / IMAGES[7]).unlink()
        out = read(folder, only_available=True)
        assert (out.name, out.ids) == ("coco/val2014/available", ("9", "42", "133"))
        assert [p.name for p in out.images] == ["9.png", IMAGES[42], IMAGES[133]]
        assert values(out) == {name: [row[0], *row[2:]] for name, row in LABELS.items()}

    def test_only_available_changes_nothing_where_all_are(self, folder):
        assert read(folder, only_available=True).name == "coco/val2014"

    def test_a_byte_order_mark_is_no_damage(self, tmp_path):
        path = write(tmp_path)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert values(read(tmp_path)) == LABELS

    def test_outlines_do_not_stay_in_memory(self, folder):
        kept = coco._read(folder / "annotations/instances_val2014.json")
        assert set(kept["annotations"][0]) == {"iscrowd", "image_id", "category_id", "id"}


class TestRefused:
    def expect(self, message, root, **more):
        with pytest.raises(UserError, match=message) as caught:
            read(root, **more)
        assert "\n" not in str(caught.value)

    def test_missing_image(self, folder):
        for i in (7, 9):
            (folder / "val2014" / IMAGES[i]).unlink()
        self.expect(r"val2014/COCO_val2014_0+7\.jpg is missing, and with it 2 of the 4 images.*data\.images.*only_available", folder)

    @pytest.mark.parametrize("only_available", [True, False])
    def test_no_image_at_all(self, folder, only_available):
        self.expect(r"elsewhere/COCO_val2014_0+7\.jpg is missing, and with it 4 of the 4 .*data\.images$", folder,
                    images="elsewhere", only_available=only_available)  # fmt: skip

    def test_root(self, folder):
        self.expect(
            "nowhere holds no folder annotations: give the folder that holds annotations/instances_val2014.json", folder / "nowhere"
        )
        self.expect("holds no folder annotations", folder / "annotations")

    @pytest.mark.parametrize("split", ["val204", "val2014.json", "a" * 300, "../annotations/instances_val2014", "val\n2014"])
    def test_split_with_suggestion(self, folder, split):
        self.expect(
            "annotations holds no instances_<split>.json for split '.*(did you mean 'val2014'|there are val2014)", folder, split=split
        )

    def test_class_with_suggestion(self, folder):
        self.expect("'trafic_light' is not a category of .* did you mean 'traffic_light'", folder, classes=("trafic light",))
        self.expect("there are person, traffic_light, toothbrush$", folder, classes=("zzz",))
        self.expect("'traffic_light' is asked for twice", folder, classes=("traffic light", "person", "traffic_light"))

    def test_crowd(self, folder):
        self.expect("unknown crowd 'positiv': did you mean 'positive'", folder, crowd="positiv")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"", "cannot be read as JSON"),
            (b"{", "cannot be read as JSON"),
            (b"\xff{}", "cannot be read as JSON"),
            (b"[" * 100_000, "cannot be read as JSON"),
            (b"[1]", "not a COCO instances file"),
            (b"{}", "no list 'images'"),
            (b'{"images": {}}', "no list 'images'"),
            (b'{"images": []}', "lists no image"),
        ],
    )
    def test_not_an_instances_file(self, tmp_path, text, message):
        write(tmp_path).write_bytes(text)
        self.expect(rf"instances_val2014\.json .*{message}", tmp_path)

    @pytest.mark.parametrize("key", ["images", "annotations", "categories"])
    def test_missing_list(self, tmp_path, key):
        what = content()
        del what[key]
        write(tmp_path, what)
        self.expect(f"no list '{key}' at its top: it is not a COCO instances file", tmp_path)

    @pytest.mark.parametrize("value", [None, "1", 1.0, True, [1], {}])
    @pytest.mark.parametrize(
        ("key", "field"), [("images", "id"), ("annotations", "image_id"), ("annotations", "category_id"), ("categories", "id")]
    )
    def test_number_that_is_none(self, tmp_path, key, field, value):
        what = content()
        what[key][1][field] = value
        write(tmp_path, what)
        self.expect(rf"instances_val2014\.json, {key}\[1\]: {field} is .*: write a whole number there", tmp_path)

    @pytest.mark.parametrize(("key", "field"), [("images", "file_name"), ("categories", "name")])
    def test_text_that_is_none(self, tmp_path, key, field):
        what = content()
        what[key][2][field] = 3
        write(tmp_path, what)
        self.expect(rf"{key}\[2\]: {field} is 3: write a text there", tmp_path)

    @pytest.mark.parametrize(
        ("key", "field"),
        [("images", "id"), ("images", "file_name"), ("annotations", "image_id"), ("annotations", "category_id"), ("categories", "name")],
    )
    def test_missing_key(self, tmp_path, key, field):
        what = content()
        del what[key][0][field]
        write(tmp_path, what)
        self.expect(rf"{key}\[0\]: {field} is missing: write a ", tmp_path)

    @pytest.mark.parametrize("key", ["images", "annotations", "categories"])
    def test_entry_that_is_no_object(self, tmp_path, key):
        what = content()
        what[key][1] = "x"
        write(tmp_path, what)
        self.expect(rf"{key}\[1\]: \w+ is missing", tmp_path)

    @pytest.mark.parametrize(
        ("key", "position", "change", "message"),
        [
            ("images", 2, {"id": 42}, r"images\[2\]: id 42 stands in images\[0\] already"),
            ("images", 2, {"file_name": IMAGES[7]}, r"images\[2\]: file_name '.*7\.jpg' stands in images\[1\] already"),
            ("categories", 2, {"id": 10}, r"categories\[2\]: id 10 or name 'person' stands there already"),
            ("categories", 2, {"name": "traffic_light"}, r"categories\[2\]: .*'traffic_light' stands there already"),
            ("categories", 0, {"name": "a/b"}, r"categories\[0\]: task name 'a/b' is not usable"),
            ("categories", 0, {"name": "mean"}, r"categories\[0\]: a task cannot be called 'mean'"),
            ("annotations", 3, {"image_id": 8}, r"annotations\[3\]: image_id 8 is the id of no entry of images"),
            ("annotations", 3, {"category_id": 2}, r"annotations\[3\]: category_id 2 is the id of no entry of categories"),
            ("annotations", 3, {"iscrowd": 2}, r"annotations\[3\]: iscrowd is 2: write 0 or 1"),
            ("annotations", 3, {"iscrowd": False}, r"annotations\[3\]: iscrowd is false: write 0 or 1"),
        ],
    )
    def test_entries_that_do_not_fit(self, tmp_path, key, position, change, message):
        what = content()
        what[key][position].update(change)
        write(tmp_path, what)
        self.expect(message, tmp_path)

    @pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", "", ".", "..", "a\0b", "a\nb.jpg"])
    def test_file_name_outside_the_folder(self, tmp_path, name):
        what = content()
        what["images"][3]["file_name"] = name
        write(tmp_path, what)
        self.expect(r"images\[3\]: file_name .* is no path inside the images' folder", tmp_path, only_available=True)

    def test_over_long_file_name_is_a_missing_image(self, tmp_path):
        what = content()
        what["images"][3]["file_name"] = "a" * 5000
        write(tmp_path, what)
        self.expect("is missing, and with it 1 of the 4 images", tmp_path)

    def test_no_category(self, tmp_path):
        write(tmp_path, {**content(), "categories": [], "annotations": []})
        self.expect("lists no category", tmp_path)


def check_examples_or_a_user_error(root: Path):
    try:
        out = read(root, crowd="ignore", only_available=True)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert isinstance(out, Examples) and 1 <= len(out) <= 4 and 1 <= len(out.tasks) <= 3
        assert all(set(v.tolist()) <= {0, 1, IGNORE} for v in out.labels.values())


@given(data=st.data())
@examples
def test_damaged_bytes_give_examples_or_a_user_error(data):
    with tempfile.TemporaryDirectory() as root:
        path = write(Path(root))
        broken = bytearray(path.read_bytes())
        last = len(broken) - 1
        for place, byte in data.draw(st.lists(st.tuples(st.integers(0, last), st.integers(0, 255)), max_size=5)):
            broken[place] = byte
        path.write_bytes(bytes(broken[: data.draw(st.one_of(st.none(), st.integers(0, last)))]))
        check_examples_or_a_user_error(Path(root))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from([0, 1, 7, 10, 42, "person", "9.png"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "name", "image_id"]), inner, max_size=2),
    max_leaves=4,
)


@given(data=st.data())
@examples
def test_other_values_anywhere_give_examples_or_a_user_error(data):
    """What damaged bytes seldom reach: valid JSON of another form."""
    what = content()
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(["images", "annotations", "categories"]))
        if not isinstance(what[key], list) or not data.draw(st.integers(0, 9)):
            what[key] = data.draw(JSON)
            continue
        position = data.draw(st.integers(0, len(what[key]) - 1)) if what[key] else 0
        if not what[key] or not isinstance(what[key][position], dict) or data.draw(st.integers(0, 4)) == 0:
            what[key][position : position + 1] = [data.draw(JSON)]
        else:
            what[key][position][data.draw(st.sampled_from(sorted(what[key][position]) or ["id"]))] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as root:
        write(Path(root), what)
        check_examples_or_a_user_error(Path(root))


class TestRealData:
    """On the part of COCO 2017 in the shared data: against counts straight from the JSON, and against those of its README."""

    # images with each VOC class that COCO calls otherwise or the same, over all four annotation files
    README = (
        "person 341, dining_table 85, bottle 77, chair 65, car 64, tv 40, potted_plant 38, bicycle 31, dog 27, cat 26, bus 25, "
        "motorcycle 23, couch 18, boat 17, bird 16, train 14, airplane 14, sheep 9, horse 8, cow 7"
    )

    @pytest.fixture(scope="class")
    def root(self, real_data):
        return real_data / "coco"

    @staticmethod
    def load(root, split, **more):
        return coco.load(root=root, split=split, images=f"images/{split.partition('_')[0]}", **more)

    @pytest.mark.parametrize(("split", "n", "total"), [("train2017", 209, 806), ("val2017", 206, 727)])
    def test_images_and_labels_are_those_of_the_file(self, root, split, n, total):
        out = coco.load(root=root, split=split, images="images/{split}")
        stored = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
        number = {c["name"].replace(" ", "_"): c["id"] for c in stored["categories"]}
        pairs = {(a["image_id"], a["category_id"]) for a in stored["annotations"]}
        assert out.ids == tuple(map(str, sorted(i["id"] for i in stored["images"]))) and len(out) == n
        assert [t.name for t in out.tasks] == sorted(number, key=number.get) and len(number) == 80
        got = {(int(i), number[t]) for t, labels in out.labels.items() for i, v in zip(out.ids, labels.tolist(), strict=True) if v}
        assert got == pairs and len(pairs) == total == sum(int(v.sum()) for v in out.labels.values())
        assert len(out) > len({image for image, _ in pairs})  # images without any object stay
        assert all(p.is_file() and int(p.stem) == int(i) for p, i in zip(out.images, out.ids, strict=True))

    @pytest.mark.parametrize("split", ["train2017", "val2017"])
    def test_crowds_never_stand_alone_in_this_part(self, root, split):
        default = values(self.load(root, split))
        assert default == values(self.load(root, split, crowd="ignore")) == values(self.load(root, split, crowd="negative"))

    def test_counts_of_the_readme(self, root):
        counts = Counter()
        for split in ("train2017", "val2017", "train2017_coco128_from_yolo", "val2017_coco128_from_yolo"):
            counts.update({name: int(labels.sum()) for name, labels in self.load(root, split).labels.items()})
        expected = {name: int(number) for name, number in (entry.split() for entry in self.README.split(", "))}
        assert len(expected) == 20 and {name: counts[name] for name in expected} == expected

    def test_the_halves_are_the_categories_of_the_file(self, root):
        first, second = splits.load_groups("coco_halves").values()
        assert first + second == tuple(t.name for t in self.load(root, "val2017").tasks)
        assert list(self.load(root, "val2017", classes=second).labels) == list(second)

    def test_images_can_be_decoded(self, root):
        from amalgam_tf.data import pipeline

        out = self.load(root, "val2017", classes=())
        pixels = pipeline.pixels(out.take(range(0, len(out), 40)), 32)
        assert pixels.shape == (6, 32, 32, 3) and all(picture.std() > 5 for picture in pixels)
