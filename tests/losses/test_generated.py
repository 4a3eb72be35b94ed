"""Losses of generated images by hand: readings, forms, gradients, labels that never occur, and the global batch."""

import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import losses
from amalgam_tf.errors import UserError

LOGITS = np.array([[2.0, -1.0, 0.3], [-0.2, 0.6, -3.0]])


def sigma(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def gradient(fn, x):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = fn(x)
    return tape.gradient(loss, x)


class TestOneHot:
    def test_pseudo_labels(self):
        """Eq. 6 on probabilities, and as printed on the raw output: 0.3 is on one side of 0 and on the other of 0.5."""
        assert losses.pseudo_labels(logits=LOGITS).numpy().tolist() == [[1, 0, 1], [0, 1, 0]]
        assert losses.pseudo_labels(logits=LOGITS, of="logit").numpy().tolist() == [[1, 0, 0], [0, 1, 0]]
        assert losses.pseudo_labels(logits=tf.zeros((1, 1))).numpy() == 1, "0.5 counts as present"
        assert gradient(lambda x: tf.reduce_sum(losses.pseudo_labels(logits=x)), LOGITS) is None

    def test_at_least_one(self):
        """Where no label is present, the most probable one is: then no label at all is no answer any more, as in DAFL."""
        negative = np.array([[-2.0, -1.0, -3.0], [2.0, -1.0, 0.3]])
        assert losses.pseudo_labels(logits=negative, of="at_least_one").numpy().tolist() == [[0, 1, 0], [1, 0, 1]]
        g = gradient(lambda x: tf.reduce_sum(losses.one_hot(logits=x, of="at_least_one")), negative).numpy()
        assert np.sign(g).tolist() == [[1, -1, 1], [-1, 1, -1]]
        one = tf.constant(negative[:1], tf.float32)
        assert losses.one_hot(logits=one, of="at_least_one") > losses.one_hot(logits=one), "all negative costs something"

    def test_by_hand(self):
        """Eq. 7: the cross-entropy against the surer answer, a mean over labels."""
        expected = -np.log(np.maximum(sigma(LOGITS), 1 - sigma(LOGITS))).mean(-1)
        np.testing.assert_allclose(losses.one_hot(logits=LOGITS), expected, rtol=1e-5)

    def test_pushes_away_from_undecided(self):
        g = gradient(lambda x: tf.reduce_sum(losses.one_hot(logits=x)), LOGITS).numpy()
        assert (np.sign(g) == -np.sign(LOGITS)).all()

    def test_categories(self):
        p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
        np.testing.assert_allclose(losses.categorical_one_hot(logits=LOGITS), -np.log(p.max(-1)), rtol=1e-5)


class TestDiscrete:
    @pytest.mark.parametrize(
        ("reading", "expected"),
        [
            ("plus_prob", sigma(LOGITS).mean(-1)),
            ("minus_prob", -sigma(LOGITS).mean(-1)),
            ("minus_logit", -np.abs(LOGITS).mean(-1)),
            ("off", np.zeros(2)),
        ],
    )
    def test_readings_by_hand(self, reading, expected):
        np.testing.assert_allclose(losses.discrete(logits=LOGITS, reading=reading), expected, rtol=1e-5)

    def test_the_default_makes_outputs_sparse(self):
        assert (gradient(lambda x: tf.reduce_sum(losses.discrete(logits=x)), LOGITS).numpy() > 0).all()

    def test_unknown(self):
        with pytest.raises(UserError, match="unknown gen.dis 'plus'"):
            losses.discrete(logits=LOGITS, reading="plus")


class TestInformationEntropy:
    def value(self, p, form="label_freq"):
        return float(losses.information_entropy(frequencies=tf.constant(p, tf.float32), form=form))

    def test_by_hand(self):
        p = np.array([0.5, 0.3, 0.1])
        q = p / p.sum()
        assert self.value(p) == pytest.approx((q * np.log(q)).sum(), abs=1e-4)
        assert self.value(p, "bernoulli") == pytest.approx((p * np.log(p) + (1 - p) * np.log(1 - p)).mean(), abs=1e-4)
        soft = np.array([0.7, 0.2, 0.1])
        assert self.value(soft, "softmax") == pytest.approx((soft * np.log(soft)).sum(), abs=1e-4)

    def test_smallest_where_labels_are_alike_often(self):
        assert self.value([0.2] * 4) == pytest.approx(-np.log(4), abs=1e-5) and self.value([0.9, 0, 0, 0]) == pytest.approx(0, abs=1e-4)
        assert self.value([0.5] * 4, "bernoulli") == pytest.approx(-np.log(2), abs=1e-5)

    def test_scale_free(self):
        """Form (a) does not say how many labels an image shows (G1)."""
        assert self.value([0.5, 0.3, 0.1]) == pytest.approx(self.value([0.05, 0.03, 0.01]), abs=1e-3)

    @pytest.mark.parametrize("form", losses.ENTROPY)
    @pytest.mark.parametrize("row", [[-200.0, -200, -200], [200.0, -200, 0], [200.0, 200, 200]])
    def test_labels_that_never_or_always_occur(self, form, row):
        def loss(x):
            p = losses.batch_mean(losses.label_probabilities(logits=x, form=form))
            return losses.information_entropy(frequencies=p, form=form)

        x = np.tile(row, (4, 1))
        assert np.isfinite(loss(tf.constant(x, tf.float32))) and np.isfinite(gradient(loss, x)).all()

    def test_a_rare_label_is_wanted(self):
        """The gradient raises the logits of the label that occurs least."""

        def loss(x):
            return losses.information_entropy(frequencies=losses.batch_mean(losses.label_probabilities(logits=x, form="label_freq")))

        g = gradient(loss, [[1.0, 1.0, -3.0]]).numpy()[0]
        assert g[2] < 0 < g[0]


class TestOthers:
    def test_activation(self):
        np.testing.assert_allclose(losses.activation(features=[[1.0, -3.0], [0.0, 0.5]]), [-2.0, -0.25])

    @pytest.mark.parametrize("head", ["sigmoid", "softmax"])
    def test_agreement(self, head):
        """Equal to distillation; only without the stop does a gradient reach what the feature is compared with (G7)."""
        logits, targets = (tf.constant(x[:, :1] if head == "sigmoid" else x, tf.float32) for x in (LOGITS, LOGITS[::-1] * 0.5))
        known = losses.distillation(head=head, logits=logits, teacher_logits=targets)
        for stop in (True, False):
            np.testing.assert_allclose(losses.agreement(head=head, logits=logits, targets=targets, stop_gradient=stop), known, rtol=1e-5)

        def of(stop):
            return gradient(lambda t: tf.reduce_sum(losses.agreement(head=head, logits=logits, targets=t, stop_gradient=stop)), targets)

        assert of(True) is None and (np.abs(of(False)) > 1e-3).any()

    def test_disagreement(self):
        """Both sides get a gradient: it is the generator that is trained by it."""
        a, b = tf.constant([[1.0, 2.0]]), tf.constant([[0.0, 5.0]])
        assert float(losses.disagreement(logits=a, teacher_logits=b)[0]) == -2.0
        assert gradient(lambda t: losses.disagreement(logits=a, teacher_logits=t), b).numpy().tolist() == [[0.5, -0.5]]

    def test_statistics_distance(self):
        """By hand: ((1 - 0) / 2)^2 + (4 / 2 - 1)^2 in one channel, 0 in the other."""
        given = dict(mean=[1.0, 3.0], variance=[16.0, 9.0], stored_mean=[0.0, 3.0], stored_variance=[4.0, 9.0])
        tensors = {k: tf.constant(v) for k, v in given.items()}
        assert float(losses.statistics_distance(**tensors)) == pytest.approx((0.25 + 1) / 2, rel=1e-4)
        constant = gradient(lambda v: losses.statistics_distance(**{**tensors, "variance": v}), [0.0, -1e-9])
        assert np.isfinite(constant).all()

    @pytest.mark.parametrize("value", [-200.0, 0.0, 200.0])
    def test_finite(self, value):
        x = np.full((2, 3), value)
        for fn in (losses.one_hot, losses.categorical_one_hot, losses.discrete):
            assert np.isfinite(fn(logits=x)).all()
            assert np.isfinite(gradient(lambda t, fn=fn: tf.reduce_sum(fn(logits=t)), x)).all()


TWO_DEVICES = """
import numpy as np, tensorflow as tf
from amalgam_tf import losses
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
def loss(rows):
    return losses.information_entropy(frequencies=losses.batch_mean(losses.label_probabilities(logits=rows, form="label_freq")))
def both(rows, share):
    with tf.GradientTape() as tape:
        tape.watch(rows)
        value = loss(rows) / share
    return value * share, tape.gradient(value, rows)
whole = both(tf.constant(x), 1)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rows = strategy.experimental_distribute_values_from_function(lambda c: tf.constant(x[c.replica_id_in_sync_group::2]))
parts = tf.function(lambda r: strategy.run(lambda v: both(v, 2), (r,)), autograph=False)(rows)
for i, (value, gradient) in enumerate(zip(*map(strategy.experimental_local_results, parts))):
    np.testing.assert_allclose(value, whole[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, whole[1][i::2], rtol=1e-4, atol=1e-7)
print("equal")
"""


def test_entropy_of_the_global_batch_on_two_devices():
    """Value and gradients of each replica's share are those of one device with the whole batch; a process of its own for the devices."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr[-2000:]
