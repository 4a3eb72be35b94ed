"""What the runs without images share: noise by step, what teachers say, monitors, collapse, grids."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import data, generation
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.generation import Codes, Generated, Judges
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.models.taps import NormalisedNet
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Stream, Teacher
from configs import common_generated
from tests.methods.helpers import SIZE, few_scenes, teacher

SHAPE = Task("shape", kind="category", labels=("x", "y", "z"), head="softmax")


def setting_of(*teachers: Teacher, **gen):
    """As far as judging images needs one."""
    config = common_generated.dual_gan("test", {})
    config.gen.update(gen)
    streams = tuple(Stream(task, t.name) for t in teachers for task in t.tasks)
    return SimpleNamespace(config=config, streams=streams, teachers=teachers, frozen=teachers)


class TestCodes:
    def test_a_function_of_seed_and_step(self):
        a, b = Codes(8, 5, seed=1), Codes(8, 5, seed=2)
        np.testing.assert_array_equal(a.at(3), Codes(8, 5, seed=1).at(3))
        assert not np.array_equal(a.at(3), a.at(4)) and not np.array_equal(a.at(3), b.at(3))
        rows = np.concatenate([a.at(i) for i in range(200)])
        assert abs(rows.mean()) < 0.03 and abs(rows.std() - 1) < 0.03 and rows.dtype == np.float32

    def test_replicas_share_the_batch_and_steps_go_on(self):
        codes = Codes(8, 5, seed=1)
        parts = [codes.at(2, rank, 2) for rank in (0, 1)]
        np.testing.assert_array_equal(np.stack(parts, 1).reshape(8, 5), codes.at(2))
        later = [b["z"].numpy() for b in codes.dataset(2, 4, 1, 2)]
        np.testing.assert_array_equal(later, [codes.at(i, 1, 2) for i in (2, 3)])
        with pytest.raises(UserError, match="batch size 8 cannot be divided over 3"):
            codes.dataset(0, 1, 0, 3)


class TestJudges:
    def test_what_the_teachers_say_and_write(self):
        a, b = teacher("A", ("sphere", SHAPE), seed=0), teacher("B", ("cone",), seed=1, normalise="torch")
        pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)), tf.float32)
        verdict = Judges(setting_of(a, b))(pixels)
        np.testing.assert_allclose(verdict.logits["shape@A"], a.logits(pixels)[:, 1:], rtol=1e-5)
        np.testing.assert_allclose(verdict.logits["cone@B"], b.logits(pixels), rtol=1e-5)
        for t in (a, b):
            whole = t.net.run(t.preprocessing(pixels), stop="b3").numpy()
            np.testing.assert_allclose(verdict.features[t.name], whole.mean((1, 2)), rtol=1e-5)
        assert float(verdict.distance) == 0

    def test_batch_norm_statistics(self):
        """Against the inputs of every batch norm, found by running the layers of a block one by one."""
        a = teacher("A", ("sphere",), seed=0)
        pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)), tf.float32)
        verdict, plain = Judges(setting_of(a), statistics=True)(pixels), Judges(setting_of(a))(pixels)
        np.testing.assert_allclose(verdict.logits["sphere@A"], plain.logits["sphere@A"], rtol=1e-4)
        np.testing.assert_allclose(verdict.features["A"], plain.features["A"], rtol=1e-4)
        net = NormalisedNet(a.net)
        read, _ = net.run(a.preprocessing(pixels))
        first = a.net.block("b1").get_layer("conv1_conv")(a.preprocessing(pixels))
        np.testing.assert_allclose(read[0], first, rtol=1e-4, atol=1e-5)
        distances = []
        for tensor, norm in zip(read, net.norms, strict=True):
            x, v = tensor.numpy(), norm.moving_variance.numpy() + 1e-5
            mean, std = x.mean((0, 1, 2)), np.sqrt(x.var((0, 1, 2)) + 1e-5)
            distances.append(np.mean((mean - norm.moving_mean.numpy()) ** 2 / v + (std / np.sqrt(v) - 1) ** 2))
        assert len(distances) == len({id(n) for n in net.norms}) == 9
        assert float(verdict.distance) == pytest.approx(np.mean(distances), rel=1e-3)
        assert float(Judges(setting_of(a), statistics=True)(pixels * 3).distance) > float(verdict.distance)

    def test_presence_of_both_kinds_of_binary_heads(self):
        streams = (Stream(Task("a"), "T"), Stream(SHAPE, "T"), Stream(Task("b", head="softmax2"), "U"))
        logits = {"a@T": [[1.0]], "shape@T": [[1.0, 2, 3]], "b@U": [[0.5, 2.0]]}
        rows = generation.presence_logits(streams, {k: tf.constant(v) for k, v in logits.items()})
        assert rows.numpy().tolist() == [[1.0, 1.5]]
        assert generation.presence_logits(streams[1:2], logits) is None


def test_groups_end_like_the_teachers_blocks():
    """b1 ends in a pooling of signed features, as a DenseNet's transition does, b2 in a ReLU: so group g2 may write what b1 does."""
    x = start = keras.Input((SIZE, SIZE, 3))
    blocks = {}
    for name, end in (("b1", keras.layers.AveragePooling2D(2)), ("b2", keras.layers.ReLU()), ("b3", keras.layers.ReLU())):
        x = end(keras.layers.Conv2D(4, 3, strides=1 if name == "b1" else 2, padding="same")(x))
        blocks[name] = keras.Model(start, x)
        x = start = keras.Input(x.shape[1:])
    head = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(x))
    net = BlockNet({**blocks, "head": keras.Model(start, head)})
    signed = Teacher("A", net, (Task("sphere"),), Preprocessing.named("centred", SIZE), {})
    made = generation.make_generator(common_generated.dual_gan("test", {}), [signed], seed=0)
    assert [made.block(g).layers[-1].name[3:] for g in ("g1", "g2")] == ["relu", "bn"]
    plain = generation.make_generator(common_generated.dual_gan("test", {}), [teacher("A", ("sphere",), seed=0)], seed=0)
    assert [plain.block(g).layers[-1].name[3:] for g in ("g1", "g2")] == ["relu", "relu"]


class TestGanLoss:
    def test_a_category_beside_labels(self):
        """DAFL's own forms for a softmax task, one vector of labels beside it; means as the docstring says."""
        a = teacher("A", ("sphere", SHAPE, "box"), seed=0)
        labels, classes = np.array([[2.0, -1.0], [0.5, -3.0]]), np.array([[1.0, 0.2, -0.5], [0.0, 2.0, 1.0]])
        logits = {"sphere@A": labels[:, :1], "shape@A": classes, "box@A": labels[:, 1:]}
        verdict = generation.Verdict(
            {k: tf.constant(v, tf.float32) for k, v in logits.items()}, {"A": tf.constant([[1.0, -3.0]])}, tf.constant(0.5)
        )
        loss, terms = generation.gan_loss(setting_of(a, bn_stat=2.0), verdict)
        p, soft = 1 / (1 + np.exp(-labels)), np.exp(classes) / np.exp(classes).sum(-1, keepdims=True)
        q, c = p.mean(0) / p.mean(0).sum(), soft.mean(0)
        undecided = [-np.log(np.maximum(p, 1 - p)).mean(0), [-np.log(soft.max(-1)).mean()]]
        by_hand = {
            "one_hot": np.concatenate(undecided).mean(),
            "activation": -2.0,
            "entropy": ((q * np.log(q)).sum() + (c * np.log(c)).sum()) / 2,
            "discrete": p.mean(),
            "statistics": 0.5,
            "positives": 1.0,
        }
        assert {k: float(v) for k, v in terms.items()} == pytest.approx(by_hand, rel=1e-4)
        weights = {"one_hot": 5, "activation": 0.1, "entropy": 5, "discrete": 0.1, "statistics": 2}
        assert float(loss) == pytest.approx(sum(w * by_hand[k] for k, w in weights.items()), rel=1e-4)


class TestMonitors:
    def held_out(self):
        a = teacher("A", ("sphere", SHAPE), seed=0)
        rows = {"sphere@A": np.array([[[1.0], [-1], [2], [3]]]), "shape@A": np.array([[[1.0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]])}
        setting = setting_of(a)
        setting.targets = {"held_out": rows}
        return setting

    def test_label_frequencies(self):
        """Fig. 5; and how many labels an image shows, categories not counted."""
        setting = self.held_out()
        assert generation.label_frequencies(setting) == {"sphere@A": 0.75, "shape@A": [0.25, 0, 0.75]}
        assert generation.positives(setting) == 0.75
        setting.streams = setting.streams[1:]
        assert generation.positives(setting) is None

    @pytest.mark.parametrize(("shown", "step", "stops"), [(0.1, 500, True), (0.1, 499, False), (0.21, 900, False), (None, 900, False)])
    def test_collapse(self, shown, step, stops, tmp_path):
        setting, run = self.held_out(), SimpleNamespace(workdir=tmp_path, workers=SimpleNamespace(from_chief=lambda fn: fn()))
        if not stops:
            generation.check_collapse(setting, run, shown, step)
            return
        with pytest.raises(UserError, match="at step 500 its images show 0.10 .* fewer than collapse.positives=0.2: raise gen.oh"):
            generation.check_collapse(setting, run, shown, step)
        setting.config.gen.pseudo = "probability"
        with pytest.raises(UserError, match="set gen.pseudo=at_least_one or lower gen.gamma, in a new --workdir"):
            generation.check_collapse(setting, run, shown, step)


def test_grid(tmp_path):
    """Side by side, in order, cut off at black and white."""
    images = np.stack([np.full((2, 2, 3), v, np.float32) for v in (-50, 100.4, 300)])
    generation.write_grid(tmp_path / "figures" / "x.png", images, columns=2)
    sheet = tf.io.decode_png((tmp_path / "figures" / "x.png").read_bytes()).numpy()
    assert sheet.shape == (4, 4, 3)
    assert (sheet[0, 0, 0], sheet[1, 3, 1], sheet[3, 1, 2], sheet[3, 3, 0]) == (0, 100, 255, 0)


class TestImagesOfARun:
    def config(self, evaluate_on):
        config = common_generated.dual_gan("test", {})
        config.data, config.evaluate_on = few_scenes(), evaluate_on
        return config

    def test_none_is_read(self, monkeypatch):
        monkeypatch.setattr(data, "load", lambda *a: pytest.fail("a reader was opened"))
        images = generation.no_images(self.config(""), SIZE, [Task("sphere")])
        assert images == Generated() and images.fingerprints() == [] and images.notes == []

    def test_the_test_part_if_it_is_asked_for(self):
        images = generation.no_images(self.config("data"), SIZE, [Task("sphere")])
        assert [t.name for t in images.test.tasks] == ["sphere"] and len(images.test) == len(images.test_pixels) == 24
        assert images.fingerprints() == [images.test.fingerprint] and images.pixels == {}
