"""SOKA's representation losses by hand, and against NumPy in float64. Those of Customize: tests/test_losses.py."""

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import losses
from amalgam_tf.errors import UserError

RNG = np.random.default_rng(0)
PAIR = RNG.normal(size=(4, 3, 2, 5)), RNG.normal(size=(4, 3, 2, 5))


def unit(rows):
    return rows / np.sqrt((rows**2).sum(-1, keepdims=True))


def expected(kind, student, target):
    s, t = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (student, target))
    if kind == "mse":
        return ((s - t) ** 2).mean(-1)
    if kind == "l2norm_mse":
        return 2 - 2 * (unit(s) * unit(t)).sum(-1)
    return ((unit(s @ s.T) - unit(t @ t.T)) ** 2).sum(-1) / len(s)


def gradients(kind, student, target):
    pair = [tf.Variable(np.asarray(x, np.float32)) for x in (student, target)]
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(losses.representation(student=pair[0], target=pair[1], kind=kind))
    return [g.numpy() for g in tape.gradient(value, pair)]


@pytest.mark.parametrize("kind", losses.REPRESENTATIONS)
class TestEveryKind:
    def test_numpy(self, kind):
        value = losses.representation(student=PAIR[0], target=PAIR[1], kind=kind)
        assert value.shape == (4,) and value.dtype == tf.float32
        np.testing.assert_allclose(value, expected(kind, *PAIR), rtol=1e-5)

    def test_gradients_reach_both_sides_and_are_right(self, kind):
        """Central differences in float64 of the mean over the batch."""
        for side, gradient in enumerate(gradients(kind, *PAIR)):
            for place in ((0, 0, 0, 0), (2, 2, 1, 3)):
                moved = []
                for step in (1e-5, -1e-5):
                    pair = [p.copy() for p in PAIR]
                    pair[side][place] += step
                    moved.append(expected(kind, *pair).mean())
                np.testing.assert_allclose(gradient[place], (moved[0] - moved[1]) / 2e-5, rtol=1e-3, atol=1e-6)

    def test_equal_features_cost_nothing(self, kind):
        np.testing.assert_allclose(losses.representation(student=PAIR[0], target=PAIR[0], kind=kind), np.zeros(4), atol=1e-10)

    def test_dead_features_are_finite(self, kind):
        dead = PAIR[0].copy()
        dead[1] = 0
        for pair in ((dead, PAIR[1]), (PAIR[1], dead), (dead, dead), (0 * dead, dead)):
            assert np.isfinite(losses.representation(student=pair[0], target=pair[1], kind=kind)).all()
            assert all(np.isfinite(g).all() and np.abs(g).max() < 100 for g in gradients(kind, *pair))

    def test_large_and_small_features_are_finite(self, kind):
        for scale in (1e-9, 200.0):
            assert np.isfinite(losses.representation(student=PAIR[0] * scale, target=-PAIR[1] * scale, kind=kind)).all()

    def test_what_is_no_number_is_not_hidden(self, kind):
        assert np.isnan(losses.representation(student=PAIR[0] * np.nan, target=PAIR[1], kind=kind)).any()

    def test_low_precision_is_computed_in_float32(self, kind):
        ones = tf.ones((2, 32, 32, 1), tf.bfloat16)  # a sum in bfloat16 would stop at 256
        value = losses.representation(student=ones, target=ones / 2, kind=kind)
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, [0.25 if kind == "mse" else 0] * 2, atol=1e-6)

    def test_shapes_that_would_be_spread_are_refused(self, kind):
        for shape in ((4, 3, 2, 1), (1, 3, 2, 5), (4, 2, 3, 5)):
            with pytest.raises(ValueError, match="incompatible"):
                losses.representation(student=PAIR[0], target=np.ones(shape), kind=kind)


def test_by_hand():
    """Two images of two numbers: (3, 4) and (1, 0), beside (4, 3) and (0, 2)."""
    pair = dict(student=[[3.0, 4.0], [1.0, 0.0]], target=[[4.0, 3.0], [0.0, 2.0]])
    np.testing.assert_allclose(losses.representation(**pair), [(1 + 1) / 2, (1 + 4) / 2])
    np.testing.assert_allclose(losses.representation(**pair, kind="l2norm_mse"), [2 - 2 * 24 / 25, 2], rtol=1e-5)
    student, target = unit(np.array([[25.0, 3.0], [3.0, 1.0]])), unit(np.array([[25.0, 6.0], [6.0, 4.0]]))
    value = losses.representation(**pair, kind="sp")
    np.testing.assert_allclose(np.mean(value), ((student - target) ** 2).sum() / 2**2, rtol=1e-5)


def test_the_plain_difference_is_the_default():
    assert np.array_equal(losses.representation(student=PAIR[0], target=PAIR[1]), losses.transfer(student=PAIR[0], teacher=PAIR[1]))


def test_scale_with_sizes():
    """Neither more places nor a longer batch changes the mean of `mse` and `l2norm_mse`; `sp` halves with a batch of copies."""
    wider, longer = ([np.tile(p, c) for p in PAIR] for c in ((1, 2, 3, 1), (2, 1, 1, 1)))
    for kind in losses.REPRESENTATIONS:
        one, wide, long = (np.mean(losses.representation(student=s, target=t, kind=kind)) for s, t in (PAIR, wider, longer))
        np.testing.assert_allclose(wide, one, rtol=1e-5)
        np.testing.assert_allclose(long, one / 2 if kind == "sp" else one, rtol=1e-5)


def test_what_the_scaled_kinds_do_not_see():
    """Length for both; a rotation of all images' features for `sp`, which compares pairs of images."""
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    flat = RNG.normal(size=(5, 6))
    for kind, other in (("l2norm_mse", flat * 7), ("sp", flat * 7), ("sp", flat @ rotation)):
        np.testing.assert_allclose(losses.representation(student=flat, target=other, kind=kind), np.zeros(5), atol=1e-6)
    assert losses.representation(student=flat, target=flat @ rotation, kind="l2norm_mse").numpy().min() > 0.1


def test_batch_of_unknown_size():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, 3, 2, 5))] * 2)
    def step(student, target):
        return [losses.representation(student=student, target=target, kind=kind) for kind in losses.REPRESENTATIONS]

    for value, kind in zip(step(*(tf.constant(p, tf.float32) for p in PAIR)), losses.REPRESENTATIONS, strict=True):
        np.testing.assert_allclose(value, expected(kind, *PAIR), rtol=1e-5)


def test_another_kind_is_refused():
    with pytest.raises(UserError, match="unknown representation loss 'l2': there are mse, l2norm_mse, sp"):
        losses.representation(student=PAIR[0], target=PAIR[1], kind="l2")
