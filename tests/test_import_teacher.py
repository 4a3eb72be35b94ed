"""tools/import_teacher.py: models that know nothing of this package become teachers, and a student is amalgamated from two of them."""

import json
import os
from pathlib import Path
import subprocess
import sys

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from amalgam_tf import methods
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import CARD, Student, Teacher
from tests import loading
from tests.methods.helpers import SIZE, afk_config

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "import_teacher.py"
LABELS = {"A": ("sphere", "box"), "B": ("cone", "torus", "slab")}
CUTS = ("unit1", "unit2")

# Plain Keras, in a process that cannot even find this package: two CNNs with skip connections, one ending in a sigmoid dense layer
# and scaling by itself, one ending in a separate sigmoid and reading -1..1; and a softmax model.
FOREIGN = """
import sys
import keras
from keras import layers
import numpy as np

folder, size = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(5)
pixels = (rng.uniform(0, 256, (6, size, size, 3)) * rng.uniform(0.1, 1, (6, 1, 1, 3))).astype("uint8")

def net(seed, end, scale):
    keras.utils.set_random_seed(seed)
    image = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1, name="scale")(image) if scale else image
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    for i in (1, 2):
        y = layers.BatchNormalization(name=f"norm{i}")(layers.Conv2D(8 * i, 3, strides=i, padding="same", name=f"conv{i}")(x))
        x = layers.Conv2D(8 * i, 1, strides=i, name=f"short{i}")(x)
        x = layers.Activation("relu", name=f"unit{i}")(layers.Add(name=f"add{i}")([x, y]))
    model = keras.Model(image, end(layers.GlobalAveragePooling2D(name="pool")(x)))
    for v in model.variables:
        if "norm" in v.path:
            v.assign(keras.random.uniform(v.shape, 0.5, 1.5, seed=seed))
    model.get_layer("stem").trainable = False
    return model

def out(n, activation=None):
    return layers.Dense(n, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0), name="out")

a = net(1, out(2, "sigmoid"), scale=True)
a.compile("adam", "binary_crossentropy")
a.save(f"{folder}/A.keras")
b = net(2, lambda x: layers.Activation("sigmoid", name="end")(out(3)(x)), scale=False)
b.save(f"{folder}/B.h5")
net(3, out(3, "softmax"), scale=True).save(f"{folder}/breeds.keras")
np.savez(f"{folder}/expected.npz", pixels=pixels, A=a.predict(pixels), B=b.predict(pixels / 127.5 - 1))
assert not any(m.startswith("amalgam_tf") for m in sys.modules)
"""

# A fresh process that knows only the two folders.
READ = """
import sys
import numpy as np
import tensorflow as tf
from amalgam_tf.evaluate import to_probabilities
from amalgam_tf.teachers import Teacher

pixels = np.load(sys.argv[1])["pixels"]
probabilities = {}
for folder in sys.argv[3:]:
    teacher = Teacher.load(folder)
    logits = teacher.outputs(tf.constant(pixels, tf.float32))
    probabilities[teacher.name] = np.stack([to_probabilities("sigmoid", logits[t.name]) for t in teacher.tasks], 1)
np.savez(sys.argv[2], **probabilities)
"""


def process(*arguments, package=True, cwd=None):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if package:
        environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, cwd=cwd, timeout=600)


@pytest.fixture(scope="module")
def tool():
    with loading.tool("import_teacher") as module:
        yield module


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of the foreign models, and what they said when they were made."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "make.py").write_text(FOREIGN)
    done = process(folder / "make.py", folder, SIZE, package=False, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, np.load(folder / "expected.npz")


@pytest.fixture(scope="module")
def imported(models, tool):
    """Folders of the two teachers and what the tool told: A by the command line from another folder, B by the function."""
    folder, _ = models
    common = ["--model=A.keras", f"--cuts={','.join(CUTS)}", f"--tasks={','.join(LABELS['A'])}", "--normalise=none", "--output=teachers/A"]
    done = process(TOOL, *common, "--licence=mine", package=False, cwd=folder)  # the tool has to find the package itself
    assert done.returncode == 0, done.stderr[-2000:]
    told = tool.make(folder / "B.h5", folder / "teachers" / "B", cuts=CUTS, tasks=LABELS["B"], normalise="tf")
    return {name: folder / "teachers" / name for name in LABELS}, {"A": done.stdout, "B": told}


def test_the_teachers_say_what_the_models_said(models, imported, tmp_path):
    folder, expected = models
    done = process("-c", READ, folder / "expected.npz", tmp_path / "read.npz", *imported[0].values())
    assert done.returncode == 0, done.stderr[-2000:]
    read = np.load(tmp_path / "read.npz")
    for name in LABELS:
        np.testing.assert_allclose(read[name], expected[name], atol=1e-6)
        assert np.ptp(expected[name], axis=0).min() > 0.01 and 0.02 < expected[name].min() < expected[name].max() < 0.98


def test_the_folder_and_the_summary(imported):
    folders, told = imported
    teacher = Teacher.load(folders["A"])
    assert teacher.net.names == ("b1", "b2", "head") and [t.name for t in teacher.tasks] == list(LABELS["A"])
    assert teacher.net.shapes == {"b1": (SIZE, SIZE, 8), "b2": (SIZE // 2, SIZE // 2, 16), "head": (2,)}
    assert len(teacher.net.weights("b1", "b1")) == 2 + 2 + 2 + 2  # the stem was frozen; a student's must not be
    card = json.loads((folders["A"] / CARD).read_text())
    assert card["imported"] == {"file": "A.keras", "cuts": list(CUTS), "end": "sigmoid"} and card["licence"] == "mine"
    assert "backbone" not in card and "recipe" not in card
    for name, text in told.items():
        assert "the sigmoid at its end is taken off" in text and f"teacher {name} in " in text
        assert f"block b2: writes {SIZE // 2} x {SIZE // 2} x 16" in text and f"tasks: {', '.join(LABELS[name])}" in text
    assert "normalised as tf" in told["B"]


def test_a_student_of_two_imported_teachers(imported, tmp_path):
    """AFK from end to end: block by block, branches, fine-tuning, measuring, saving."""
    pool = {name: {"path": str(folder), "config": ""} for name, folder in imported[0].items()}
    config = afk_config(pool, tasks="sphere,torus,cone", student__weights="none")
    results = methods.run(config, tmp_path)
    assert results["tasks"] == ["sphere", "torus", "cone"]
    assert set(results["branches"]) == {"sphere@A", "torus@B", "cone@B"} and set(results["block_losses"]) == {"b1", "b2"}
    assert set(results["test"]["student"]["per_task"]) == {"sphere", "torus", "cone"}
    student = Student.load(tmp_path)
    pixels = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)
    assert {n: tuple(x.shape) for n, x in student.outputs(pixels).items()} == {n: (3, 1) for n in results["tasks"]}
    assert all(np.isfinite(x).all() for x in student.outputs(pixels).values())


def test_ready_weights_are_refused_for_a_student_of_unknown_backbone(imported, tmp_path):
    config = afk_config({"A": {"path": str(imported[0]["A"]), "config": ""}}, student__weights="x.h5")
    with pytest.raises(UserError, match="student.weights=x.h5 needs a known backbone, but the card of teacher A names none"):
        methods.run(config, tmp_path)


def flagged(tool, *arguments):
    with flagsaver.flagsaver():
        flags.FLAGS(["import_teacher.py", *map(str, arguments)])
        tool.run()


@pytest.mark.parametrize("more", [(), ("--list_cuts", "--cuts=unit1", "--output=unit1")])
def test_without_cuts_it_lists_where_to_cut(models, tool, capsys, more):
    folder, _ = models
    flagged(tool, f"--model={folder / 'A.keras'}", *more)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [r[0] for r in rows] == ["scale", "stem", "add1", "unit1", "add2", "unit2", "pool"]
    assert rows[3][:7] == ["unit1", "Activation", str(SIZE), "x", str(SIZE), "x", "8"] and rows[-1][-2:] == ["98.5", "%"]


def test_a_choice_among_classes(models, tool, tmp_path):
    folder, _ = models
    told = tool.make(folder / "breeds.keras", tmp_path / "T", cuts=["unit2"], names=["trunk", "top"], tasks=["breed=poodle|husky|pug"])
    teacher = Teacher.load(tmp_path / "T")
    assert teacher.tasks == (Task("breed", "category", ("poodle", "husky", "pug"), "softmax"),) and teacher.net.names == ("trunk", "top")
    assert "tasks: breed (poodle or husky or pug)" in told and "softmax at its end is taken off" in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "none.keras"}, "there is no model file .*none.keras"),
        ({"cuts": ["unit1", "unit7"]}, "has no layer unit7 to cut at; its last layers are"),
        ({"cuts": ["conv1"]}, "cannot be cut behind conv1: a connection goes past it"),
        ({"cuts": ["out"]}, "cannot be cut behind out: .* or it is the end"),
        ({"cuts": ["unit2", "unit1"]}, "--cuts must name layers once and in the model's order: --cuts=unit1,unit2"),
        ({"cuts": ["unit1", "unit1"]}, "--cuts must name layers once and in the model's order: --cuts=unit1"),
        ({"names": ["b1", "b2"]}, "2 cuts make 3 blocks, but 2 block names were given"),
        ({"names": ["b1", "b1", "head"]}, "--names=b1,b1,head must be different names"),
        ({"names": ["b1", "b/2", "head"]}, "--names=b1,b/2,head must be different names"),
        ({"tasks": []}, "must name every output once"),
        ({"tasks": ["sphere", "sphere"]}, "--tasks=sphere,sphere must name every output once"),
        ({"tasks": ["sphere"]}, "--tasks names 1 outputs, but the model writes 2"),
        ({"tasks": ["shape=sphere|box"]}, "ends in a sigmoid, so each of its outputs is a label of its own"),
        ({"tasks": ["sphere"], "head": "softmax2"}, "ends in a sigmoid"),
        ({"tasks": ["shape=sphere|sphere"]}, "cannot read 'shape=sphere.sphere' in --tasks"),
        ({"tasks": ["shape=sphere"]}, "a choice names two or more different classes"),
        ({"tasks": ["a b", "c"]}, "task name 'a b' is not usable"),
        ({"head": "dense"}, "unknown --head 'dense'"),
        ({"normalise": "keras"}, "unknown normalisation 'keras'"),
        ({"name": "student"}, "a teacher cannot be called 'student'"),
        ({"path": "breeds.keras", "tasks": ["a", "b", "c"]}, "ends in a softmax, so its outputs are one choice"),
        ({"output": "."}, "exists and is not an empty folder .--output."),
        ({"output": "A.keras/x"}, "cannot write to .*: name another folder with --output"),
    ],
    ids=str,
)
def test_mistakes(models, tool, tmp_path, changes, message):
    folder, _ = models
    arguments = {"path": "A.keras", "output": tmp_path / "T", "cuts": CUTS, "tasks": LABELS["A"], **changes}
    path, output = folder / arguments.pop("path"), folder / arguments.pop("output")
    with pytest.raises(UserError, match=message) as caught:
        tool.make(path, output, **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "T").exists()


def test_flags_that_are_missing(models, tool):
    with pytest.raises(UserError, match="--model is not set"):
        flagged(tool, "--cuts=unit1")
    with pytest.raises(UserError, match="--output is not set"):
        flagged(tool, f"--model={models[0] / 'A.keras'}", "--cuts=unit1", "--tasks=sphere,box")


def test_the_command_line_says_one_sentence(models):
    folder, _ = models
    done = process(TOOL, "--model=A.keras", "--cuts=unit9", "--tasks=sphere,box", "--output=x", package=False, cwd=folder)
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (folder / "x").exists()
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and "has no layer unit9" in sentences[0]
