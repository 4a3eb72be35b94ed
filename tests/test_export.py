"""SavedModels: equal to Keras in a fresh process, any batch and image size, the JPEG signature equal to `evaluate --images`."""

import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from amalgam_tf import evaluate, export
from amalgam_tf.branching import Branched, teacher_tail
from amalgam_tf.data import transforms
from amalgam_tf.errors import UserError
from amalgam_tf.models.adapters import ChannelFilter
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Student
from tests.methods.helpers import SIZE, teacher

FRESH = """
import sys, json, numpy as np, tensorflow as tf          # nothing of amalgam_tf, nothing of Keras
model = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
out = {"serve": model.signatures["serve"](images=tf.constant(images))}
out["jpeg"] = model.signatures["serve_jpeg"](jpeg=tf.constant([open(p, "rb").read() for p in sys.argv[3:]]))
assert "amalgam_tf" not in sys.modules
print(json.dumps({k: {n: v.numpy().tolist() for n, v in o.items()} for k, o in out.items()}))
"""


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """Mixed branches, gates that gate, a category task and names that need escaping."""
    a = teacher("A", ("sphere", Task("kind", kind="category", labels=("x", "y", "z"), head="softmax")), seed=1)
    b = teacher("B", ("dog-1.5", "box"), seed=2)
    gate = ChannelFilter("sigmoid", name="filter_b1_A")
    tails = [teacher_tail(a, "b1", gate, a.tasks, "A@b1"), teacher_tail(b, "b2", None, b.tasks[:1], "B@b2")]
    trunk = a.net.part(stop=2).copy("student")
    branched = Branched(trunk, {t.name: tail for tail in tails for t in tail.tasks})
    made = Student(branched.as_model("student"), branched.tasks, a.preprocessing, {"name": "student"})
    made.save(tmp_path_factory.mktemp("made") / "student")
    return made


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("jpegs"), np.random.default_rng(0)
    paths = []
    for i, shape in enumerate([(40, 31, 3), (16, 16, 3), (23, 57, 3)]):
        smooth = np.asarray(Image.fromarray(rng.integers(0, 255, (5, 5, 3), np.uint8)).resize(shape[1::-1], Image.BILINEAR))
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(smooth).save(paths[-1], quality=90)
    return [str(p) for p in paths]


def test_reloaded_in_a_fresh_process_equals_keras(student, jpegs, tmp_path):
    folder = tmp_path / "export"
    assert export.write(student, folder) < 1e-6
    images = np.random.default_rng(1).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32).round()
    np.save(tmp_path / "images.npy", images)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, folder, tmp_path / "images.npy", *jpegs], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    fresh = json.loads(done.stdout.splitlines()[-1])

    logits = student.outputs(tf.constant(images))
    assert set(fresh["serve"]) == {"sphere", "kind", "dog-1.5"}
    np.testing.assert_allclose(fresh["serve"]["sphere"], tf.sigmoid(logits["sphere"])[:, 0], atol=1e-5)
    np.testing.assert_allclose(fresh["serve"]["kind"], tf.nn.softmax(logits["kind"]), atol=1e-5)

    student.save(tmp_path / "saved")
    measured = evaluate.files(tmp_path / "saved", jpegs)  # what `evaluate --images` prints
    for i, path in enumerate(jpegs):
        for task in fresh["jpeg"]:
            np.testing.assert_allclose(fresh["jpeg"][task][i], measured[path][task], atol=1e-4)
    assert np.ptp([fresh["jpeg"]["sphere"]]) > 1e-4  # different pictures, different answers
    assert [t["name"] for t in json.loads((folder / "tasks.json").read_text())] == ["sphere", "kind", "dog-1.5"]


def test_any_image_size_and_batch(student, tmp_path):
    export.write(student, tmp_path / "export")
    serve = tf.saved_model.load(str(tmp_path / "export")).signatures["serve"]
    large = np.random.default_rng(0).uniform(0, 255, (5, 3 * SIZE, 2 * SIZE, 3)).astype(np.float32)
    resized = transforms.resize(tf.constant(large), SIZE)
    np.testing.assert_allclose(serve(images=tf.constant(large))["sphere"], tf.sigmoid(student.outputs(resized)["sphere"])[:, 0], atol=1e-5)


def test_teacher_can_be_exported(tmp_path):
    assert export.write(teacher("A", ("sphere", "box"), seed=0), tmp_path / "export") < 1e-6


def test_foreign_folder_is_left_alone(student, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not an earlier export"):
        export.write(student, tmp_path)
    assert Path(tmp_path / "notes.txt").read_text() == "mine"


def test_a_network_that_was_taught_on_crops_is_served_crops(student, jpegs, tmp_path):
    """The export and `evaluate --images` bring a picture to a square as the recipe's data section says."""
    cropped = Student(student.model, student.tasks, student.preprocessing, {**student.card, "recipe": {"data": {"fit": "crop"}}})
    export.write(cropped, tmp_path / "export")
    cropped.save(tmp_path / "student")
    served = tf.saved_model.load(str(tmp_path / "export")).signatures["serve_jpeg"]
    for path in jpegs[1:]:  # 16 x 16, and 23 x 57
        content = Path(path).read_bytes()
        logits = student.outputs(transforms.decode(content, SIZE, "crop")[None])
        expected = {t.name: evaluate.to_probabilities(t.head, logits[t.name]).numpy()[0] for t in student.tasks}
        out, said = served(jpeg=tf.constant([content])), evaluate.files(tmp_path / "student", [path])[path]
        for name, value in expected.items():
            np.testing.assert_allclose(out[name].numpy()[0], value, atol=1e-5)
            np.testing.assert_allclose(said[name], value, atol=1e-5)
    squeezed = student.outputs(transforms.decode(content, SIZE)[None])
    assert any(
        np.abs(evaluate.to_probabilities(t.head, squeezed[t.name]).numpy()[0] - expected[t.name]).max() > 1e-3 for t in student.tasks
    )
