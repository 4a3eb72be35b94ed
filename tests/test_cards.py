"""Cards and weights that do not fit, are damaged, or would lead somewhere else; and no reader that runs what it reads."""

import ast
import hashlib
import json
from pathlib import Path
import shutil
import tempfile
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
import keras
import pytest

import amalgam_tf
from amalgam_tf import cards, data, evaluate
from amalgam_tf.data import coco, folder, voc
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import CARD, MODEL, Student, Teacher, load_any
from tests.methods.helpers import SIZE, teacher

KIND = {"name": "kind", "kind": "category", "labels": ["x", "y"], "head": "softmax", "codec": ""}
PREPROCESSING = {"size": SIZE, "order": "rgb", "mean": [1, 2, 3], "std": [1, 1, 1]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    teacher("A", ("a", Task("kind", "category", ("x", "y"), "softmax")), seed=0).save(path)
    return path


@pytest.fixture(scope="module")
def saved_student(saved, tmp_path_factory):
    path, made = tmp_path_factory.mktemp("student"), Teacher.load(saved)
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, {t.name: keras.layers.Dense(t.outputs, name=t.name)(keras.layers.Flatten()(image)) for t in made.tasks})
    Student(model, made.tasks, made.preprocessing).save(path)
    return path


@pytest.fixture(scope="module")
def model(saved):
    return keras.models.load_model(saved / MODEL, compile=False)


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "teacher")


def change(folder: Path, **changes) -> Path:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))
    return folder


def put_model(folder: Path, content: bytes) -> None:
    """Other weights with a card that vouches for them."""
    (folder / MODEL).write_bytes(content)
    change(folder, sha256=hashlib.sha256(content).hexdigest())


def refused(message: str, call, *arguments, **options) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


class TestCard:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"weights": "../../etc/passwd"}, r"weights is '\.\./\.\./etc/passwd', but they are model\.keras beside the card"),
            ({"weights": "/etc/passwd"}, "weights is '/etc/passwd'"),
            ({"weights": 3}, "weights is '3'"),
            ({"blocks": ["../b1", "b2", "b3", "head"]}, "without slashes"),
            ({"blocks": ["b1", "..\\b2", "b3", "head"]}, "without slashes"),
            ({"blocks": ["b1", "b2", "b3", 4]}, "block's name must be a text"),
            ({"blocks": ["b1", "b1", "b3", "head"]}, "names block 'b1' twice"),
            ({"blocks": "b1"}, "blocks must be a list"),
            ({"tasks": []}, "at least one task"),
            ({"tasks": "ab"}, "tasks must be a list"),
            ({"tasks": [{"name": "a"}, {"name": "a"}, {"name": "b"}]}, "each once, not a, a, b"),
            ({"tasks": [{"name": "../a"}, KIND]}, r"cannot be read \(task name '\.\./a' is not usable"),
            ({"tasks": [{"name": 5}, KIND]}, "cannot be read"),
            ({"tasks": [{"name": "a", "size": 1}, KIND]}, "cannot be read .*size"),
            ({"tasks": [{"name": "a"}, {**KIND, "labels": "xy"}]}, "labels of a task must be a list of texts"),
            ({"tasks": [{"name": "a"}, {**KIND, "labels": [1, 2]}]}, "labels of a task must be a list of texts"),
            ({"tasks": [5]}, "cannot be read"),
            ({"preprocessing": {**PREPROCESSING, "size": 2 * SIZE}}, rf"images of 32 x 32 x 3 are read, but {MODEL} reads \(16, 16, 3\)"),
            ({"preprocessing": {**PREPROCESSING, "size": "16"}}, "a size in pixels, a whole number"),
            ({"preprocessing": {**PREPROCESSING, "size": 0}}, "a size in pixels, a whole number"),
            ({"preprocessing": {**PREPROCESSING, "std": [1, 1, 0]}}, "three positive stds"),
            ({"preprocessing": {**PREPROCESSING, "std": "abc"}}, "three positive stds"),
            ({"preprocessing": {**PREPROCESSING, "mean": [1, 2, float("nan")]}}, "three means"),
            ({"preprocessing": {**PREPROCESSING, "crop": 1}}, "preprocessing needs size"),
            ({"preprocessing": {}}, "preprocessing needs size"),
            ({"recipe": []}, "recipe must be an object"),
            ({"recipe": {"data": "scenes"}}, "recipe.data must be an object"),
            ({"backbone": "resnet8"}, "backbone must be an object"),
            ({"name": None}, "name must be a text"),
            ({"sha256": 7}, "sha256 must be a text"),
        ],
    )
    def test_teacher(self, copy, changes, message):
        refused(rf"{CARD}.*{message}", Teacher.load, change(copy, **changes))

    @pytest.mark.parametrize("text", ["", "[]", "7", "{", "[" * 100_000, '{"format": 1}', '{"format": 1, "kind": []}', "\xff"])
    def test_no_card_at_all(self, copy, text):
        (copy / CARD).write_bytes(text.encode("latin-1"))
        for load in (Teacher.load, Student.load, load_any):
            refused(CARD, load, copy)

    def test_student(self, saved_student, tmp_path):
        copy = shutil.copytree(saved_student, tmp_path / "student")
        assert [t.name for t in Student.load(copy).tasks] == ["a", "kind"]
        refused(r"writes \{'a': 1, 'kind': 2\}, not the tasks", Student.load, change(copy, tasks=[{"name": "a"}]))
        three = {**KIND, "labels": ["x", "y", "z"]}
        refused(r"writes \{'a': 1, 'kind': 2\}, not the tasks", Student.load, change(copy, tasks=[{"name": "a"}, three]))
        change(copy, tasks=[{"name": "a"}, KIND], preprocessing={"size": 9})
        refused("images of 9 x 9 x 3 are read", Student.load, copy)

    def test_an_over_long_folder_holds_no_card(self):
        refused(f"holds no {CARD}", load_any, Path("x" * 5000))


class TestWeights:
    def test_every_damage_is_found_by_the_checksum(self, copy):
        whole = (copy / MODEL).read_bytes()
        for content in (b"", whole[:-1], whole[: len(whole) // 2], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
            (copy / MODEL).write_bytes(content)
            refused("is not the file its card describes", Teacher.load, copy)

    @pytest.mark.parametrize("content", [b"", b"a text", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80\x04\x95\x00."])
    def test_a_file_that_is_no_model(self, copy, content):
        put_model(copy, content)
        refused(f"{MODEL} cannot be loaded as a Keras model", Teacher.load, copy)

    def test_no_code_comes_out_of_a_model(self, copy, tmp_path):
        image = keras.Input((SIZE, SIZE, 3))
        keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "bad.keras")
        put_model(copy, (tmp_path / "bad.keras").read_bytes())
        refused("cannot be loaded as a Keras model .*[Ll]ambda", Teacher.load, copy)

    def test_an_ordinary_model_is_no_chain_of_blocks(self, copy, tmp_path):
        image = keras.Input((SIZE, SIZE, 3))
        keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image))).save(tmp_path / "plain.keras")
        put_model(copy, (tmp_path / "plain.keras").read_bytes())
        refused("is no chain of blocks: .*import_teacher", Teacher.load, copy)
        change(copy, kind="student")
        refused("writes no logits by task", Student.load, copy)

    def test_a_folder_in_place_of_the_model(self, copy):
        (copy / MODEL).unlink()
        (copy / MODEL).mkdir()
        refused("is missing", Teacher.load, copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=4) | st.sampled_from(["a", "../x", "b1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "size", "data", "labels"]), inner, max_size=2),
    max_leaves=4,
)


@given(draw=st.data())
@settings(max_examples=40, deadline=None)
def test_a_damaged_card_gives_a_teacher_or_a_user_error(saved, model, draw):
    card = json.loads((saved / CARD).read_text())
    if draw.draw(st.booleans(), label="bytes"):
        content = bytearray((saved / CARD).read_bytes())
        for place, byte in draw.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4)):
            content[place] = byte
        del content[draw.draw(st.integers(0, len(content))) :]
    else:
        for key in draw.draw(st.lists(st.sampled_from(sorted(card)), min_size=1, max_size=2)):
            inner = card[key]
            if isinstance(inner, dict) and inner and draw.draw(st.booleans()):
                inner[draw.draw(st.sampled_from(sorted(inner)))] = draw.draw(JSON)
            elif isinstance(inner, list) and inner and draw.draw(st.booleans()):
                inner[draw.draw(st.integers(0, len(inner) - 1))] = draw.draw(JSON)
            else:
                card[key] = draw.draw(JSON)
        content = json.dumps(card).encode()
    with tempfile.TemporaryDirectory() as root, mock.patch.object(cards, "read_model", return_value=model):
        (Path(root) / CARD).write_bytes(content)
        try:
            loaded = load_any(Path(root))
        except UserError as error:
            assert str(error)
        else:
            assert isinstance(loaded, Teacher) and sum(t.outputs for t in loaded.tasks) == 3


class TestRecipe:
    def test_a_card_starts_no_download_and_makes_no_folder(self, tmp_path):
        card = {"recipe": {"data": {"download": True, "cache_dir": str(tmp_path / "new")}}}
        options = evaluate._recipe_data(tmp_path, card)
        assert (options["download"], options["cache_dir"]) == (False, data.DEFAULTS["cache_dir"])
        (tmp_path / "new").mkdir()
        assert evaluate._recipe_data(tmp_path, card)["cache_dir"] == str(tmp_path / "new")
        assert evaluate._recipe_data(tmp_path, {"recipe": {"data": {"cache_dir": ""}}})["cache_dir"] == ""
        assert evaluate._recipe_data(tmp_path, {}) == data.DEFAULTS

    @pytest.mark.parametrize(("key", "value"), [("root", 5), ("year", "2012"), ("hold_out", "a"), ("only_available", 1), ("test", None)])
    def test_a_value_of_another_kind(self, tmp_path, key, value):
        refused(rf"recipe\.data\.{key} is", evaluate._recipe_data, tmp_path, {"recipe": {"data": {key: value}}})

    def test_scenes_have_two_splits(self, copy):
        refused("unknown split of the embedded scenes 'val'", data.load, data.DEFAULTS, "val")


@pytest.mark.parametrize("outside", ["../secret.jpg", "a/../../secret.jpg", "/etc/secret.jpg", "a\0.jpg", "a\nb.jpg"])
def test_no_path_in_a_list_leaves_its_folder(tmp_path, outside):
    (tmp_path / "secret.jpg").write_bytes(b"x")
    root = tmp_path / "root"
    (root / "annotations").mkdir(parents=True)
    (root / "mine.csv").write_text(f'path,dog\n"{outside}",1\n', newline="")
    refused("must lie in the folder of the CSV", folder.load, path=root / "mine.csv")
    content = {"images": [{"id": 1, "file_name": outside}], "categories": [], "annotations": []}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    refused("is no path inside the images' folder", coco.load, root=root, split="val", classes=())
    lists = root / "VOC2012" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text(outside.removesuffix(".jpg") + "\n", newline="")
    refused("is not an image id|is missing", voc.load, root=root, year=2012, split="val", classes=())


def test_a_link_that_the_user_put_into_the_folder_is_followed(tmp_path):
    (tmp_path / "elsewhere.jpg").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "1.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (tmp_path / "root" / "mine.csv").write_text("path\n1.jpg\n")
    assert folder.load(path=tmp_path / "root" / "mine.csv").ids == folder.load(path=tmp_path / "root").ids == ("1.jpg",)


def test_a_folder_named_like_an_image_is_a_missing_image(tmp_path):
    (tmp_path / "1.jpg").mkdir()
    (tmp_path / "mine.csv").write_text("path\n1.jpg\n")
    refused(r"1\.jpg is missing", folder.load, path=tmp_path / "mine.csv")
    (tmp_path / "VOC2012" / "JPEGImages" / "1.jpg").mkdir(parents=True)
    (tmp_path / "VOC2012" / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "VOC2012" / "ImageSets" / "Main" / "val.txt").write_text("1\n")
    refused(r"1\.jpg is missing", voc.load, root=tmp_path, year=2012, split="val", classes=())
    (tmp_path / "val" / "1.jpg").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_text('{"images": [{"id": 1, "file_name": "1.jpg"}]}')
    refused(r"1\.jpg is missing", coco.load, root=tmp_path, split="val", classes=())


# -- nothing that is read is run --------------------------------------------------------------------------------------
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "enable_unsafe_deserialization"}


def unsafe(source: str) -> list[int]:
    """Lines that deserialise in a way that can run code: such modules, `eval`, `allow_pickle`, `safe_mode` other than True."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and {a.name.partition(".")[0] for a in node.names} & FORBIDDEN_MODULES:
            lines.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
            lines.append(node.lineno)
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        arguments = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        named = called in FORBIDDEN_CALLS and isinstance(node.func, ast.Name | ast.Attribute) and owner in ("", "builtins", "config")
        loads = called == "load_model" and arguments.get("safe_mode") is not True
        arrays = (called, owner) == ("load", "np") and arguments.get("allow_pickle") is not False
        if named or loads or arrays or arguments.get("allow_pickle", False) is not False:
            lines.append(node.lineno)
    return lines


def test_nothing_that_is_read_is_run():
    root = Path(amalgam_tf.__file__).parents[1]
    files = [f for place in ("amalgam_tf", "tools", "configs") for f in sorted((root / place).rglob("*.py"))]
    found = {f"{f.relative_to(root)}:{line}" for f in files for line in unsafe(f.read_text(encoding="utf-8"))}
    assert found == set() and len(files) > 40


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "def f():\n    import marshal",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "np.load(p, allow_pickle=flag)",
        "np.savez(p, allow_pickle=True)",
        "eval('1')",
        "exec(text)",
        "keras.models.load_model(p)",
        "keras.models.load_model(p, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_a_planted_danger_is_found(source):
    assert unsafe(source)


def test_harmless_lines_are_not():
    assert unsafe("np.load(p, allow_pickle=False)\nmodel.evaluate(x)\nspec.loader.exec_module(m)\njson.load(f)\nm.eval()") == []
