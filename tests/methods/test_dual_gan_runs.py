"""Dual-GAN's runs beside test_dual_gan.py: from which inputs branch points are decided (G10), and the student served as a SavedModel."""

from dataclasses import replace
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, branching, export, generation
from amalgam_tf import teachers as pools
from amalgam_tf.data import pipeline
from amalgam_tf.errors import UserError
from amalgam_tf.generation import Codes, Judges, Source
from amalgam_tf.methods import dual_gan
from amalgam_tf.training.loop import Run
from configs import common_generated
from tests.methods.helpers import SIZE, save_pool

POOL = {"A": ("sphere", "box"), "B": ("cone",)}
COUNT = 70  # held-out images: more than a chunk, and no multiple of one


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = common_generated.dual_gan("test", save_pool(tmp_path_factory.mktemp("pool"), POOL))
    config.data.update({"reader": "voc", "root": "nowhere"})
    config.evaluate_on, config.collapse.positives = "", 0.0
    config.gen.update({"steps": 1, "batch_size": 8, "look_steps": 0, "z_dim": 8, "groups": 2})
    config.generated.held_out_images = COUNT
    for section in (config.block, config.finetune):
        section.update({"steps": 1, "batch_size": 8})
    config.finetune.look_steps = 0
    return config


@pytest.fixture(scope="module")
def pieces(config, tmp_path_factory):
    """A setting with held-out generated images, everything in front of a decision, and filters that say something.

    The generator uses the statistics of the batch, so an input counts only if it is made in the batch that its image was made in.
    """
    config = config.copy_and_resolve_references()
    config.generated.batchnorm = "batch"
    setting = dual_gan.enter(config)
    run = Run(tmp_path_factory.mktemp("run"), {})
    with run:
        net = generation.make_generator(setting.config, setting.teachers, 0)
        source = Source(net, "batch")
        setting = generation.with_held_out(setting, source, Judges(setting), run)
        student = amalgamation.start_student(setting, run)
        filters = branching.start_filters(config.filter, student.shapes, setting.teachers, run.seed_of, "filter")
        for f in filters.values():
            f.excite.kernel.assign(keras.random.normal(f.excite.kernel.shape, seed=3))
        yield setting, student, filters, source, run


class TestWhereBranchPointsAreDecided:
    """G10. Teachers in two groups, so T has two blocks: the first one has one input."""

    def measured(self, pieces, k, **block):
        setting, *others = pieces
        config = setting.config.copy_and_resolve_references()
        config.block.update(block)
        student, filters, source, run = others
        return dual_gan.converged_losses(replace(setting, config=config), student, k, filters, source, run)

    def by_hand(self, pieces, start):
        """The divergence of every stream from the features in front of the student's second block."""
        setting, student, filters, *_ = pieces
        features, found = student.run(start, start=1, stop=1), {}
        for s in setting.streams:
            teacher = setting.teacher(s.teacher)
            logits = teacher.net.run(filters["b3", s.teacher](features), start=2).numpy()
            column = [t.name for t in teacher.tasks].index(s.task.name)
            q, p = (1 / (1 + np.exp(-x.astype(np.float64))) for x in (logits[:, column], setting.targets["held_out"][str(s)][0][:, 0]))
            found[str(s)] = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        return found

    def test_both_inputs_weighed(self, pieces):
        setting, student, _, source, run = pieces
        codes = Codes(64, 8, run.seed_of("held_out"))
        written = [source.taps(tf.constant(codes.at(i))) for i in range(2)]
        first, second = (np.concatenate([w[g] for w in written])[:COUNT] for g in ("g2", "g1"))
        np.testing.assert_allclose(first, setting.images.pixels["held_out"], rtol=1e-4, atol=1e-2)
        own = self.by_hand(pieces, student.run(setting.preprocessing(first), stop=0))
        others = self.by_hand(pieces, tf.constant(second))
        found = self.measured(pieces, 1, eta_from="both", lambda1=1.0, lambda2=3.0)
        for s in map(str, setting.streams):
            assert found[s]["divergence"] == pytest.approx((own[s] + 3 * others[s]) / 4, rel=1e-3, abs=1e-6)
            assert abs(own[s] - others[s]) > 1e-4

    def test_the_image_alone(self, pieces):
        """Both is the default, and the same where the image is all that a block is trained on."""
        image, both, default = (self.measured(pieces, 1, **of) for of in ({"eta_from": "image"}, {"eta_from": "both"}, {}))
        assert any(abs(both[s]["loss"] - image[s]["loss"]) > 1e-4 for s in image) and default == both
        same = self.measured(pieces, 1, eta_from="both", lambda1=2.0, lambda2=0.0)
        first, alone = self.measured(pieces, 0, eta_from="image"), self.measured(pieces, 0, eta_from="both", lambda2=3.0)
        for s in image:
            assert same[s] == pytest.approx(image[s], rel=1e-3, abs=1e-5) and alone[s] == pytest.approx(first[s], rel=1e-3, abs=1e-5)


def test_a_misspelt_choice(config):
    wrong = config.copy_and_resolve_references()
    wrong.block.eta_from = "images"
    with pytest.raises(UserError, match="unknown block.eta_from 'images'"):
        dual_gan.check_choices(wrong)


def test_plan_counts_both_inputs(config):
    teachers = {n: pools.Teacher.load(entry["path"], n) for n, entry in config.teachers.items()}
    image, both = config.copy_and_resolve_references(), config.copy_and_resolve_references()
    image.block.eta_from, both.block.eta_from = "image", "both"
    more = {a.name: b.work - a.work for a, b in zip(dual_gan.plan(image, teachers).lines, dual_gan.plan(both, teachers).lines, strict=True)}
    assert {name for name, work in more.items() if work} == {"block/b2", "block/b3"} and min(more.values()) == 0
    assert more["block/b3"] > more["block/b2"]  # the image costs its making, the second input block and teachers besides


FRESH = """
import sys, json, numpy as np, tensorflow as tf          # nothing of the project
said = tf.saved_model.load(sys.argv[1]).signatures["serve"](images=tf.constant(np.load(sys.argv[2])))
assert "amalgam_tf" not in sys.modules
print(json.dumps({name: rows.numpy().tolist() for name, rows in said.items()}))
"""


def test_the_exported_student_says_the_same_in_a_fresh_process(pieces, tmp_path):
    """Regrouped with a tail behind each block and filters that gate, saved, loaded, exported."""
    setting, trunk, filters, *_ = pieces
    leaves = {"A": "b2", "B": "b3"}
    branched = branching.regroup(trunk, filters, setting.teachers, {s: leaves[s.teacher] for s in setting.streams})
    pools.Student(branched.as_model("student"), branched.tasks, setting.preprocessing, {"name": "student"}).save(tmp_path / "student")
    student = pools.Student.load(tmp_path / "student")
    assert export.write(student, tmp_path / "export") < 1e-5
    images = np.random.default_rng(1).uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32).round()
    np.save(tmp_path / "images.npy", images)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", FRESH, str(tmp_path / "export"), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    served, logits = json.loads(done.stdout.splitlines()[-1]), pipeline.in_order(student.outputs, images)
    assert set(served) == set(logits) == {"sphere", "box", "cone"}
    for task, rows in logits.items():
        np.testing.assert_allclose(served[task], 1 / (1 + np.exp(-rows[:, 0])), atol=1e-5)
        assert np.ptp(served[task]) > 1e-4, task
