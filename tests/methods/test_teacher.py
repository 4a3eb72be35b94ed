"""Supervised teachers: the loss against a hand computation, the saved card, and what damaged folders say."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import evaluate
from amalgam_tf.data.pipeline import pixels
from amalgam_tf.errors import UserError
from amalgam_tf.methods import teacher as method
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import CARD, MODEL, Pool, Student, Teacher, in_precision, load_any
from amalgam_tf.training.loop import Run
from configs import common, quickstart
from tests.methods.helpers import SIZE, teacher


class TestLoss:
    TASKS = (Task("a"), Task("b"), Task("kind", kind="category", labels=("x", "y", "z"), head="softmax"))

    def test_mean_over_known_labels_by_hand(self):
        logits = np.array([[0.5, -2.0, 1.0, 0.0, -1.0], [3.0, 1.0, 0.0, 0.0, 0.0]], np.float32)
        labels = np.array([[1, 0, 2], [0, -1, -1]])
        sigma = 1 / (1 + np.exp(-logits.astype(np.float64)))
        softmax = np.exp(logits[0, 2:]) / np.exp(logits[0, 2:]).sum()
        expected = [(-np.log(sigma[0, 0]) - np.log(1 - sigma[0, 1]) - np.log(softmax[2])) / 3, -np.log(1 - sigma[1, 0])]
        np.testing.assert_allclose(method.teacher_loss(self.TASKS, tf.constant(logits), tf.constant(labels)), expected, rtol=1e-5)

    def test_nothing_known_is_zero_and_finite(self):
        logits = tf.constant([[200.0, -200.0, 200.0, -200.0, 0.0]])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = method.teacher_loss(self.TASKS, logits, tf.constant([[-1, -1, -1]]))
        assert loss.numpy() == 0 and np.all(tape.gradient(loss, logits).numpy() == 0)


class TestTraining:
    def test_learns_and_writes_a_card_that_repeats_its_numbers(self, tmp_path):
        config = common.teacher("test", "one", ["a"], backbone="resnet8", input_size=SIZE)
        config.data = common.scenes(train=64, test=40, size=SIZE)
        config.data.cache_dir = ""
        config.tasks, config.epochs, config.crop = "bright_light,shape", 3, 0.5
        config.optimizer = common.adam(3e-3)
        with Run(tmp_path, config.to_dict()) as run:
            results = method.train(config, run)
        loaded = Teacher.load(tmp_path)
        assert [t.name for t in loaded.tasks] == ["bright_light", "shape"] and loaded.name == "one"
        again = evaluate.saved(tmp_path, {})
        assert again["per_task"] == results["test"]["teacher"]["per_task"] == loaded.card["measured"]["teacher"]["per_task"]
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert rows[-1]["held_out/loss"] < 3
        assert [r["step"] for r in rows if "held_out/loss" in r] == [0, 4, 8, 11]  # before, and after every epoch

    def test_card_carries_what_a_reader_needs(self, tmp_path):
        teacher("A", ("x", "y"), seed=0).save(tmp_path)
        card = json.loads((tmp_path / CARD).read_text())
        assert {"format", "kind", "name", "blocks", "tasks", "preprocessing", "backbone", "weights", "sha256"} <= set(card)


class TestFiles:
    def test_round_trip_is_exact(self, tmp_path):
        made = teacher("A", ("x", "y"), seed=0)
        made.save(tmp_path)
        x = tf.constant(np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)), tf.float32)
        loaded = Teacher.load(tmp_path, "B")
        np.testing.assert_array_equal(made.logits(x), loaded.logits(x))
        assert loaded.name == "B" and loaded.net.names == made.net.names and isinstance(load_any(tmp_path), Teacher)

    def change(self, folder, **changes):
        card = json.loads((folder / CARD).read_text())
        card.update(changes)
        (folder / CARD).write_text(json.dumps(card))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": 7}, "format 7, newer"),
            ({"sha256": "0"}, "not the file its card describes"),
            ({"kind": "student"}, "card of a student"),
            ({"blocks": ["b1"]}, "names 1 blocks but .* holds 4"),
            ({"tasks": [{"name": "x"}]}, "writes 2 numbers, its tasks need 1"),
        ],
    )
    def test_card_that_does_not_fit(self, tmp_path, changes, message):
        teacher("A", ("x", "y"), seed=0).save(tmp_path)
        self.change(tmp_path, **changes)
        with pytest.raises(UserError, match=message):
            Teacher.load(tmp_path)

    def test_missing_files(self, tmp_path):
        with pytest.raises(UserError, match=f"holds no {CARD}"):
            Teacher.load(tmp_path)
        teacher("A", ("x",), seed=0).save(tmp_path)
        (tmp_path / MODEL).unlink()
        with pytest.raises(UserError, match="is missing"):
            Teacher.load(tmp_path)
        (tmp_path / CARD).write_text("{")
        with pytest.raises(UserError, match="not readable JSON"):
            Student.load(tmp_path)


def test_in_precision_computes_in_bfloat16_with_float32_logits():
    made = teacher("A", ("x", "y"), seed=0)
    low = in_precision(made, "mixed_bfloat16")
    x = tf.constant(np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)), tf.float32)
    assert low.net.run(made.preprocessing(x), stop=0).dtype == tf.bfloat16
    assert low.logits(x).dtype == tf.float32
    np.testing.assert_allclose(low.logits(x), made.logits(x), atol=0.1)
    assert keras.config.dtype_policy().name == "float32"


def test_pool_refuses_two_teachers_of_one_name():
    with pytest.raises(UserError, match="share a name"):
        Pool([teacher("A", ("x",), seed=0), teacher("A", ("y",), seed=1)])


def test_quickstart_teachers_know_different_shapes():
    known = [set(quickstart.get_config(name).tasks.split(",")) for name in ("teacher1", "teacher2")]
    assert known[0].isdisjoint(known[1]) and known[0] | known[1] == set(common.SHAPES)


def test_pixels_of_the_right_size_are_not_copied():
    from amalgam_tf.data import scenes

    examples = scenes.load(split="test", count=4, size=SIZE)
    assert pixels(examples, SIZE) is examples.images
