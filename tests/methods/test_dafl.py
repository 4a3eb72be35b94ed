"""DAFL for several teachers: two updates on one forward pass, what they change, categories, resume, test images if asked for."""

import json

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, data, generation
from amalgam_tf import teachers as pools
from amalgam_tf.errors import UserError
from amalgam_tf.generation import Codes, Judges
from amalgam_tf.methods import dafl
from amalgam_tf.models.generator import unmoved
from amalgam_tf.tasks import Task
from amalgam_tf.training import state
from amalgam_tf.training.interrupts import Interrupted
from amalgam_tf.training.loop import Run
from configs import common_generated
from tests.methods.helpers import SIZE, few_scenes, find, interrupted, save_pool, table_of

SHAPE = Task("shape", kind="category", labels=data.scenes.SHAPES, head="softmax")


def config_for(teachers, **changes):
    config = common_generated.literal(common_generated.dafl("test", teachers))
    config.data.update({"reader": "voc", "root": "nowhere"})
    config.evaluate_on = ""
    config.gen.update({"steps": 3, "batch_size": 8, "look_steps": 0, "z_dim": 8, "width": 0.25})
    config.generated.held_out_images, config.collapse.positives = 16, 0.0
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A label and a category: DAFL's own kind of task."""
    return save_pool(tmp_path_factory.mktemp("pool"), {"A": ("sphere",), "B": (SHAPE,)})


def enter(config):
    return amalgamation.prepare(config, fold=True, look=generation.no_images)


class TestLosses:
    def pieces(self, pool, tmp_path, **changes):
        setting = enter(config_for(pool, **changes))
        with Run(tmp_path / "pieces", {}) as run:
            student = amalgamation.with_one_head(amalgamation.start_student(setting, run), setting, run)
        net = generation.make_generator(setting.config, setting.teachers, 0, plain=True)
        return setting, student, net, tf.constant(Codes(8, 8, 0).at(0))

    def test_generator_loss_by_hand(self, pool, tmp_path):
        """Spec 5.1 for one softmax, and the vector of labels beside it."""
        setting, student, net, z = self.pieces(pool, tmp_path)
        still, batch = unmoved(net, "still"), {"z": z}
        loss, terms = dafl.generator_loss(setting, net, student, Judges(setting), batch)
        pixels = still.run(z, training=True)
        a, b = (setting.teacher(n) for n in "AB")
        p, y = 1 / (1 + np.exp(-a.logits(pixels).numpy())), b.logits(pixels).numpy()
        soft = np.exp(y) / np.exp(y).sum(-1, keepdims=True)
        one_hot = (-np.log(np.maximum(p, 1 - p)).mean() - np.log(soft.max(-1)).mean()) / 2
        entropy = (soft.mean(0) * np.log(soft.mean(0))).sum() / 2  # the vector of one label has entropy 0
        sizes = [np.abs(t.net.run(t.preprocessing(pixels), stop="b3").numpy().mean((1, 2))).mean() for t in (a, b)]
        assert float(loss) == pytest.approx(one_hot - 0.1 * np.mean(sizes) + 5 * entropy, rel=1e-3)
        assert set(terms) == {"one_hot", "activation", "entropy", "discrete", "positives"} and float(terms["discrete"]) == 0
        np.testing.assert_allclose(batch["images"], pixels, rtol=1e-5)
        np.testing.assert_allclose(batch["shape@B"], y, rtol=1e-3, atol=1e-4)

    def test_adversarial_term(self, pool, tmp_path):
        """Minus the distance of the logits, over both streams; it changes the generator's gradient."""
        setting, student, net, z = self.pieces(pool, tmp_path, gen__adv=2.0)
        still = unmoved(net, "still")
        loss, terms = dafl.generator_loss(setting, still, student, Judges(setting), {"z": z})
        pixels = still.run(z, training=True)
        said = student.run(setting.preprocessing(pixels))
        each = [
            np.abs(said[t.name].numpy() - setting.teacher(n).logits(pixels).numpy()).mean()
            for n, t in zip("AB", setting.tasks, strict=True)
        ]
        assert float(terms["adversarial"]) == pytest.approx(-np.mean(each), rel=1e-3)
        plain = enter(config_for(pool))
        without, _ = dafl.generator_loss(plain, still, student, Judges(plain), {"z": z})
        assert float(loss - without) == pytest.approx(2 * float(terms["adversarial"]), rel=1e-3)

    def test_the_student_learns_from_the_images_of_the_same_pass(self, pool, tmp_path):
        """Its loss is the mean over streams of the cross-entropy on what the generator's update left; no gradient reaches the generator."""
        setting, student, net, z = self.pieces(pool, tmp_path)
        with Run(tmp_path / "phase", {}) as run:
            making, learning = dafl.both(setting, net, student, run).updates
        batch = {"z": z}
        with tf.GradientTape() as tape:
            making.loss(batch)
            loss, _ = learning.loss(batch)
        assert all(g is None for g in tape.gradient(loss, [v.value for v in net.weights()]))
        logits = student.run(setting.preprocessing(batch["images"]), training=True)
        p, q = (1 / (1 + np.exp(-x.numpy()[:, 0])) for x in (batch["sphere@A"], logits["sphere"]))
        soft = np.exp(batch["shape@B"]) / np.exp(batch["shape@B"]).sum(-1, keepdims=True)
        by_hand = [
            -(p * np.log(q) + (1 - p) * np.log(1 - q)).mean(),
            -(soft * tf.nn.log_softmax(logits["shape"]).numpy()).sum(-1).mean(),
        ]
        assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-3)


class TestRun:
    def test_what_changes_and_what_it_tells_without_images(self, pool, tmp_path, monkeypatch):
        for name in ("load", "parts"):
            monkeypatch.setattr(data, name, lambda *a, **k: pytest.fail("a reader was opened"))
        original, seen = Run.phase, {}

        def watched(run, phase):
            before = {k: v.numpy() for k, v in run.checkpoints.variables.items()}
            declared = {k for k, v in run.checkpoints.variables.items() if any(v is d for d in phase.variables)}
            original(run, phase)
            changed = {k for k, v in before.items() if not np.array_equal(v, run.checkpoints.variables[k].numpy())}
            seen[phase.name] = (declared, changed)

        monkeypatch.setattr(Run, "phase", watched)
        config, kept = config_for(pool), []
        prepare = amalgamation.prepare
        monkeypatch.setattr(dafl, "prepare", lambda *a, **k: kept.append(prepare(*a, **k)) or kept[0])
        with Run(tmp_path / "run", config.to_dict()) as run:
            results = dafl.train(config, run)
            after = [state.values_digest(t.net.named_variables("t")) for t in kept[0].teachers]
        assert after == [state.values_digest(pools.Teacher.load(e["path"], n).net.named_variables("t")) for n, e in pool.items()]
        ((declared, changed),) = seen.values()
        assert list(seen) == ["both"] and changed == declared and {k.partition("/")[0] for k in changed} == {"generator", "student"}
        json.dumps(results, allow_nan=False)
        assert "test" not in results and results["method"] == "dafl" and len(results["labels"]["shape@B"]) == len(SHAPE.labels)
        assert results["positives"] == results["labels"]["sphere@A"] and set(results["agreement"]["per_stream"]) == {"sphere@A", "shape@B"}
        rows = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert {"generator/one_hot", "student/loss"} <= {k.replace("distill/", "student/") for row in rows for k in row}

    def test_stopped_and_resumed_on_test_images_it_ends_with_the_same_bits(self, tmp_path, monkeypatch):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box")})
        config = config_for(entries, evaluate_on="data")
        config.data = few_scenes()

        def train(workdir):
            with Run(workdir, config.to_dict()) as run:
                results = dafl.train(config, run)
                return results, state.values_digest(run.checkpoints.variables)

        whole, digest = train(tmp_path / "whole")
        both = dafl.both
        monkeypatch.setattr(dafl, "both", lambda *a: stop_once(both(*a)))

        def stop_once(phase):
            interrupted(phase.data, 2)
            monkeypatch.setattr(dafl, "both", both)
            return phase

        with pytest.raises(Interrupted):
            train(tmp_path / "parts")
        again, resumed = train(tmp_path / "parts")
        assert resumed == digest and again["test"] == whole["test"] and again["labels"] == whole["labels"]
        assert set(whole["test"]) == {"data", "images", "student", "A"} and whole["test"]["images"] == 24
        assert (tmp_path / "whole" / "scores.npz").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gen__adv": -1.0}, "gen.adv weighs"),
        ({"distill__batchnorm": "x"}, "unknown distill.batchnorm"),
        ({"gen__ie": "x"}, "unknown gen.ie"),
    ],
)
def test_choices(changes, message):
    with pytest.raises(UserError, match=message):
        dafl.check_choices(config_for({}, **changes))


def test_plan(pool):
    teachers = {n: pools.Teacher.load(entry["path"], n) for n, entry in pool.items()}
    plan = dafl.plan(config_for(pool), teachers)
    assert [p.name for p in plan.lines] == ["both", "held-out images"] and plan.work > 0 and SIZE == plan.net.block(0).inputs[0].shape[1]


def test_symbols_and_equations_name_existing_things():
    for title in ("Symbols", "Equations"):
        rows = table_of(dafl, title)
        assert len(rows) >= 3
        for dotted in (n for row in rows for n in row[2 if title == "Symbols" else 1].split(", ")):
            find(dafl, dotted)
