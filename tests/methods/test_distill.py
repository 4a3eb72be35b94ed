"""Plain distillation: the loss by hand, equal footing with AFK, and what its results hold."""

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, distillation
from amalgam_tf.errors import UserError
from amalgam_tf.methods import distill
from amalgam_tf.training import state
from amalgam_tf.training.loop import Run
from configs import common
from tests.methods.helpers import SIZE, afk_config, save_pool


def config_for(teachers, **changes):
    config = common.distill("test", teachers)
    config.data = afk_config(teachers).data
    config.distill.epochs, config.distill.batch_size = 1.0, 8
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@pytest.fixture
def pool(tmp_path):
    return save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("sphere", "cone")})


def test_loss_is_the_mean_over_streams_of_soft_cross_entropy(pool, tmp_path):
    """A task of two teachers is learned from both: four streams, three outputs."""
    setting = amalgamation.prepare(config_for(pool))
    with Run(tmp_path / "run", {}) as run:
        student = amalgamation.with_one_head(amalgamation.start_student(setting, run), setting, run)
        phase = distillation.distillation_phase(setting, student, setting.streams, run, "distill")
        batch = next(iter(phase.data.dataset(0, 1)))
        loss, _ = phase.updates[0].loss(batch)
    logits = student.run(setting.preprocessing(batch["images"]), training=True)
    by_hand = []
    for s in setting.streams:
        p = 1 / (1 + np.exp(-batch[str(s)].numpy().astype(np.float64)))
        q = 1 / (1 + np.exp(-logits[s.task.name].numpy().astype(np.float64)))
        by_hand.append(np.mean(-(p * np.log(q) + (1 - p) * np.log(1 - q))))
    assert len(by_hand) == 4 and [t.name for t in student.tasks] == ["sphere", "box", "cone"]
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-4)


def test_results_and_untouched_teachers(pool, tmp_path):
    config = config_for(pool)
    before = [state.values_digest(t.net.named_variables("t")) for t in amalgamation.prepare(config).teachers]
    with Run(tmp_path / "run", config.to_dict()) as run:
        results = distill.train(config, run)
    assert before == [state.values_digest(t.net.named_variables("t")) for t in amalgamation.prepare(config).teachers]
    assert results["method"] == "distill" and set(results["held_out"]["after"]) == {"sphere@A", "box@A", "sphere@B", "cone@B"}
    assert set(results["test"]) == {"data", "images", "student", "A", "B"}
    with np.load(tmp_path / "run" / "scores.npz") as scores:
        assert set(scores.files) >= {"ids", "truth/box", "student/box", "A/box", "B/cone"}
        right = np.mean((scores["student/box"] > 0.5) == scores["truth/box"])
    assert results["test"]["student"]["per_task"]["box"]["accuracy"] == pytest.approx(right)
    assert results["sizes"]["student"]["latency_ms"] > 0


def test_starts_from_the_same_trunk_as_afk(pool, tmp_path):
    trunks = []
    for name, config in (("distill", config_for(pool)), ("afk", afk_config(pool))):
        with Run(tmp_path / name, {"seed": 3}) as run:
            trunks.append(amalgamation.start_student(amalgamation.prepare(config), run))
    assert state.values_digest(trunks[0].named_variables("s")) == state.values_digest(trunks[1].named_variables("s"))


def test_head_is_a_mean_over_space_and_a_dense_layer(pool, tmp_path):
    setting = amalgamation.prepare(config_for(pool))
    with Run(tmp_path / "run", {}) as run:
        trunk = amalgamation.start_student(setting, run)
        student = amalgamation.with_one_head(trunk, setting, run)
    features = trunk.run(tf.zeros((2, SIZE, SIZE, 3)))
    kernel, bias = student.unique_tails[0].net.weights()
    by_hand = features.numpy().mean((1, 2)) @ kernel.numpy() + bias.numpy()
    np.testing.assert_allclose(student.run(tf.zeros((2, SIZE, SIZE, 3)))["cone"][:, 0], by_hand[:, 2], rtol=1e-4)


def test_misspelt_choice(pool, tmp_path):
    with pytest.raises(UserError, match="unknown distill.batchnorm"), Run(tmp_path / "run", {}) as run:
        distill.train(config_for(pool, distill__batchnorm="btach"), run)
