"""The plan of a run is what the run does: the same phases and steps, work as counted by hand, nothing written."""

import os
from pathlib import Path
import subprocess
import sys

import keras
from keras import layers
import pytest

from amalgam_tf import methods, planning
from amalgam_tf.data.pipeline import Batches
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.training import state
from tests.methods.helpers import afk_config, save_pool

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def net():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="end")(image)
    x = layers.GlobalAveragePooling2D()(x)
    return BlockNet.cut(keras.Model(image, layers.Dense(2)(x)), ["end"])


def test_work_and_bytes_by_hand(net):
    assert planning.work(net) == [8 * 8 * 3 * 3 * 3 * 4, 4 * 2]
    assert planning.weights(net) == 4 * ((27 * 4 + 4) + (4 * 2 + 2))
    assert planning.activations(net) == [8 * 8 * 4 * 4, (4 + 2) * 4]
    assert planning.pixels(planning.Counts(5, 1, 4, 2), 16) == 10 * 16 * 16 * 3


@pytest.mark.parametrize(("epochs", "images", "batch"), [(0.5, 72, 16), (1.0, 72, 16), (0.01, 72, 16), (3.0, 2652, 32)])
def test_steps_are_those_of_the_batches(epochs, images, batch):
    import numpy as np

    assert planning.steps(epochs, images, batch) == Batches(np.zeros((images, 1, 1, 3), np.uint8), batch, 0).steps(epochs)


def test_text_adds_up_and_is_in_minutes(net):
    plan = planning.Plan([planning.Line("a", 10, 60e9), planning.Line("b", 0, 117e9)], net, disk=2.5e9, caches=3e6, memory=1e9)
    text = plan.text("runs/x", seconds_per=1e-9)
    assert plan.work == 177e9 and text.splitlines()[0] == "plan of runs/x"
    assert "    1.1 min" in text and "    2.0 min" in text  # a set-up of three seconds each
    assert "about 4 minutes" in text and "disk 2.5 GB and 3 MB of caches, memory 1.0 GB" in text


def test_seconds_are_those_of_a_forward_pass(net):
    seconds = planning.seconds_per_multiply_add(net, batch=4)
    assert 0 < seconds * 4 * sum(planning.work(net)) < 1


@pytest.mark.parametrize("changes", [{}, {"features__memory_gb": 0.0, "branch__split": "train", "finetune__epochs": 0.0}])
def test_afk_does_what_its_plan_says(tmp_path, changes):
    entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("cone",)})
    config = afk_config(entries, **changes)
    (plan,) = methods.plan(config, tmp_path / "run").values()
    methods.run(config, tmp_path / "run")
    (*_, newest) = sorted((tmp_path / "run" / "checkpoints").glob("*.npz"))
    progress = state.read_arrays(newest)[1]["progress"]
    trained = {line.name: line.steps for line in plan.lines if line.steps}
    assert list(trained) == progress["finished"] and sum(trained.values()) == progress["total"]
    by_name = {line.name: line.work for line in plan.lines}
    assert by_name["block/b1"] > by_name["block/b3"] > 0  # late blocks have less behind them, and their prefix is kept


def test_keeping_features_saves_the_work_of_the_prefix(tmp_path):
    entries = save_pool(tmp_path / "pool", {"A": ("sphere",)})
    kept, in_step = (
        next(iter(methods.plan(afk_config(entries, features__memory_gb=gb, block__epochs=4.0), tmp_path / "run").values()))
        for gb in (1.0, 0.0)
    )
    works = [{line.name: line.work for line in p.lines} for p in (kept, in_step)]
    assert works[0]["block/b1"] == works[1]["block/b1"] and works[0]["block/b3"] < works[1]["block/b3"]
    assert kept.memory > in_step.memory


def test_dry_run_prints_and_leaves_nothing(tmp_path):
    flags = ["--config=configs/quickstart.py:student,smoke", f"--workdir={tmp_path / 'run'}", "--dry_run"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "amalgam_tf.bin.train", *flags], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    titles = [line for line in done.stdout.splitlines() if line.startswith("plan of")]
    assert [t.split("/")[-1] for t in titles] == ["teacher1", "teacher2", "run"]  # missing teachers first
    assert done.stdout.count("minutes on one device") == 3 and not (tmp_path / "run").exists()
