"""Differences of maps by hand and against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import losses
from amalgam_tf.errors import UserError

RNG = np.random.default_rng(0)
P, T = RNG.normal(size=(3, 4, 5, 2)), RNG.normal(size=(3, 4, 5, 2))
MASK = RNG.integers(0, 2, (3, 4, 5)).astype(np.uint8)
MASK[2] = 0


def test_by_hand():
    """Two pixels of two channels, differences 1, 3 and -2, 0; then only the second pixel."""
    given = dict(prediction=[[[[1.0, 3.0], [0.0, 5.0]]]], target=[[[[0.0, 0.0], [2.0, 5.0]]]])
    np.testing.assert_allclose(losses.map_difference(**given), [(1 + 9 + 4) / 4])
    np.testing.assert_allclose(losses.map_difference(**given, power=1), [(1 + 3 + 2) / 4])
    np.testing.assert_allclose(losses.map_difference(**given, mask=[[[0, 1]]]), [4 / 2])
    np.testing.assert_allclose(losses.map_difference(**given, mask=[[[0, 1]]], power=1), [2 / 2])
    assert losses.map_difference(**given).dtype == tf.float32


@pytest.mark.parametrize("power", [1, 2])
class TestMapDifference:
    def test_numpy(self, power):
        each = np.abs(P - T) ** power
        np.testing.assert_allclose(losses.map_difference(prediction=P, target=T, power=power), each.mean((1, 2, 3)), rtol=1e-5)
        value = losses.map_difference(prediction=P, target=T, mask=MASK, power=power)
        np.testing.assert_allclose(value, [each[0][MASK[0] > 0].mean(), each[1][MASK[1] > 0].mean(), 0], rtol=1e-5)

    def test_what_is_unknown_may_hold_anything(self, power):
        for filler in (np.nan, np.inf, 1e38):
            prediction = tf.Variable(P.astype(np.float32))
            hidden = np.where(MASK[..., None] > 0, T, filler).astype(np.float32)
            with tf.GradientTape() as tape:
                value = losses.map_difference(prediction=prediction, target=hidden, mask=MASK, power=power)
                total = tf.reduce_sum(value)
            np.testing.assert_allclose(value, losses.map_difference(prediction=P, target=T, mask=MASK, power=power), rtol=1e-6)
            gradient = tape.gradient(total, prediction).numpy()
            assert np.isfinite(gradient).all() and not gradient[MASK == 0].any() and gradient[MASK > 0].all()

    def test_gradient(self, power):
        prediction, target = tf.Variable(P.astype(np.float32)), tf.Variable(T.astype(np.float32))
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(losses.map_difference(prediction=prediction, target=target, power=power))
        to_prediction, to_target = tape.gradient(total, [prediction, target])
        expected = (np.sign(P - T) if power == 1 else 2 * (P - T)) / (4 * 5 * 2)
        np.testing.assert_allclose(to_prediction, expected, rtol=1e-4, atol=1e-6)
        assert to_target is None

    def test_a_mean_and_no_sum(self, power):
        one = losses.map_difference(prediction=P, target=T, mask=MASK, power=power)
        for copies in ((1, 2, 1), (1, 1, 3)):
            more = dict(prediction=np.tile(P, (*copies, 1)), target=np.tile(T, (*copies, 1)), mask=np.tile(MASK, copies))
            np.testing.assert_allclose(losses.map_difference(**more, power=power), one, rtol=1e-5)

    def test_low_precision_is_computed_in_float32(self, power):
        ones = tf.ones((1, 32, 32, 1), tf.bfloat16)
        value = losses.map_difference(prediction=ones, target=0 * ones, mask=np.ones((1, 32, 32)), power=power)
        assert value.dtype == tf.float32 and value == 1

    def test_shapes_that_would_be_spread_are_refused(self, power):
        for other in (dict(target=T[..., :1]), dict(mask=MASK[:1]), dict(mask=MASK[:, :1])):
            with pytest.raises(ValueError, match="incompatible"):
                losses.map_difference(**{**dict(prediction=P, target=T, mask=MASK), **other}, power=power)


def test_the_square_is_the_default_and_other_powers_are_refused():
    assert np.array_equal(losses.map_difference(prediction=P, target=T), losses.map_difference(prediction=P, target=T, power=2))
    with pytest.raises(UserError, match="to the power 3: choose 1 or 2"):
        losses.map_difference(prediction=P, target=T, power=3)


def test_batch_of_unknown_size():
    signature = [tf.TensorSpec((None, 4, 5, 2)), tf.TensorSpec((None, 4, 5, 2)), tf.TensorSpec((None, 4, 5), tf.uint8)]
    step = tf.function(lambda p, t, m: losses.map_difference(prediction=p, target=t, mask=m), input_signature=signature, autograph=False)
    expected = losses.map_difference(prediction=P, target=T, mask=MASK)
    np.testing.assert_allclose(step(tf.constant(P, tf.float32), tf.constant(T, tf.float32), MASK), expected, rtol=1e-6)
