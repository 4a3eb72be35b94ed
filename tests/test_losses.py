"""Every loss against a value by hand or an independent formula in NumPy (float64)."""

import math

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import losses

RNG = np.random.default_rng(0)
EXTREME = np.array([[-200.0, 200.0, 0.0], [200.0, -200.0, 200.0]], np.float32)


def sigmoid(x):
    x = np.asarray(x, np.float64)
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(target, probability):
    """Elementwise -t log p - (1 - t) log (1 - p)."""
    return -(target * np.log(probability) + (1 - target) * np.log(1 - probability))


def value_and_gradient(fn, *inputs):
    """The loss and the gradients of its SUM to every input."""
    tensors = [tf.Variable(np.asarray(i, np.float32)) for i in inputs]
    with tf.GradientTape() as tape:
        value = fn(*tensors)
        total = tf.reduce_sum(value)
    return value.numpy(), [None if g is None else g.numpy() for g in tape.gradient(total, tensors)]


class TestBinaryCrossEntropy:
    def test_by_hand(self):
        value = losses.binary_cross_entropy(logits=[[0.0, math.log(3)], [0.0, 0.0]], labels=[[1, 0], [0, 1]])
        np.testing.assert_allclose(value, [(math.log(2) + math.log(4)) / 2, math.log(2)], rtol=1e-6)
        assert value.dtype == tf.float32

    def test_numpy_with_soft_labels(self):
        x, t = RNG.normal(size=(6, 4)), RNG.uniform(size=(6, 4))
        value = losses.binary_cross_entropy(logits=x, labels=t)
        np.testing.assert_allclose(value, cross_entropy(t, sigmoid(x)).mean(-1), rtol=1e-5)

    def test_only_what_is_known_counts(self):
        x, t = RNG.normal(size=(4, 3)).astype(np.float32), RNG.integers(0, 2, (4, 3))
        mask = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]])
        terms = cross_entropy(t, sigmoid(x))
        expected = [terms[0].mean(), terms[1, [0, 2]].mean(), terms[2, 2], 0]
        value, (gradient,) = value_and_gradient(lambda x: losses.binary_cross_entropy(logits=x, labels=t, mask=mask), x)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        assert (gradient[mask == 0] == 0).all()
        assert (np.sign(gradient[mask == 1]) == np.where(t == 1, -1, 1)[mask == 1]).all()
        np.testing.assert_allclose(losses.binary_cross_entropy(logits=x, labels=np.where(mask, t, -1), mask=mask), value)

    def test_what_is_counted_once(self):
        """Repeating an example repeats its value; repeating the labels changes nothing (a mean over labels)."""
        x, t = RNG.normal(size=(2, 3)), RNG.integers(0, 2, (2, 3))
        one = losses.binary_cross_entropy(logits=x, labels=t).numpy()
        longer = losses.binary_cross_entropy(logits=np.tile(x, (5, 1)), labels=np.tile(t, (5, 1)))
        wider = losses.binary_cross_entropy(logits=np.tile(x, (1, 5)), labels=np.tile(t, (1, 5)))
        np.testing.assert_allclose(longer, np.tile(one, 5), rtol=1e-6)
        np.testing.assert_allclose(wider, one, rtol=1e-5)


class TestCategoricalCrossEntropy:
    def test_by_hand_and_mask(self):
        x = [[0.0, math.log(3)], [0.0, 0.0], [5.0, 1.0]]
        value = losses.categorical_cross_entropy(logits=x, labels=[0, 1, -1], mask=[1, 1, 0])
        np.testing.assert_allclose(value, [math.log(4), math.log(2), 0], rtol=1e-6)

    def test_numpy(self):
        x, y = RNG.normal(size=(6, 5)), RNG.integers(0, 5, 6)
        np.testing.assert_allclose(losses.categorical_cross_entropy(logits=x, labels=y), -np.log(softmax(x)[np.arange(6), y]), rtol=1e-5)

    def test_no_gradient_where_masked(self):
        def fn(x):
            return losses.categorical_cross_entropy(logits=x, labels=[1, -1], mask=[1, 0])

        _, (gradient,) = value_and_gradient(fn, RNG.normal(size=(2, 3)))
        assert (gradient[1] == 0).all()
        assert gradient[0, 1] < 0 < gradient[0, 0]


class TestBinaryDistillation:
    def test_numpy(self):
        x, t = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
        value = losses.binary_distillation(logits=x, teacher_logits=t)
        assert value.shape == (4, 3)
        np.testing.assert_allclose(value, cross_entropy(sigmoid(t), sigmoid(x)), rtol=1e-5)

    def test_hard_targets_are_rounded_at_one_half(self):
        x, t = RNG.normal(size=(1, 4)).astype(np.float32), np.array([[-3.0, -1e-6, 1e-6, 3.0]])
        value = losses.binary_distillation(logits=x, teacher_logits=t, hard=True)
        np.testing.assert_allclose(value, cross_entropy(np.array([[0, 0, 1, 1]]), sigmoid(x)), rtol=1e-5)

    def test_at_equality_the_entropy_and_no_gradient(self):
        t = np.array([[-3.0, 0.0, 0.5, 8.0]], np.float32)
        value, (gradient,) = value_and_gradient(lambda x: losses.binary_distillation(logits=x, teacher_logits=t), t)
        np.testing.assert_allclose(value, cross_entropy(sigmoid(t), sigmoid(t)), atol=1e-6)
        np.testing.assert_allclose(value[0, 1], math.log(2), rtol=1e-6)
        np.testing.assert_allclose(gradient, 0, atol=1e-7)

    def test_gradient_is_the_difference_of_probabilities(self):
        x, t = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
        _, (to_student, to_teacher) = value_and_gradient(lambda x, t: losses.binary_distillation(logits=x, teacher_logits=t), x, t)
        np.testing.assert_allclose(to_student, sigmoid(x) - sigmoid(t), atol=1e-6)
        assert to_teacher is None


class TestCategoricalDistillation:
    def test_numpy(self):
        x, t = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5))
        value = losses.categorical_distillation(logits=x, teacher_logits=t)
        assert value.shape == (4,)
        np.testing.assert_allclose(value, -(softmax(t) * np.log(softmax(x))).sum(-1), rtol=1e-5)

    def test_hard_targets_are_the_winner(self):
        x, t = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5))
        value = losses.categorical_distillation(logits=x, teacher_logits=t, hard=True)
        np.testing.assert_allclose(value, -np.log(softmax(x))[np.arange(4), t.argmax(-1)], rtol=1e-5)

    def test_at_equality_the_entropy_and_no_gradient(self):
        t = RNG.normal(size=(3, 4)).astype(np.float32)
        value, (gradient,) = value_and_gradient(lambda x: losses.categorical_distillation(logits=x, teacher_logits=t), t)
        np.testing.assert_allclose(value, -(softmax(t) * np.log(softmax(t))).sum(-1), atol=1e-6)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)

    def test_gradient_is_the_difference_of_probabilities(self):
        x, t = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
        _, (to_student, to_teacher) = value_and_gradient(lambda x, t: losses.categorical_distillation(logits=x, teacher_logits=t), x, t)
        np.testing.assert_allclose(to_student, softmax(x) - softmax(t), atol=1e-6)
        assert to_teacher is None

    def test_two_logits_are_one_sigmoid(self):
        x, t = RNG.normal(size=(6, 2)), RNG.normal(size=(6, 2))
        pair = losses.categorical_distillation(logits=x, teacher_logits=t)
        one = losses.binary_distillation(logits=x[:, 1:] - x[:, :1], teacher_logits=t[:, 1:] - t[:, :1])
        np.testing.assert_allclose(pair, one[:, 0], rtol=1e-5)


class TestByHead:
    @pytest.mark.parametrize("hard", [False, True])
    @pytest.mark.parametrize(("head", "outputs"), [("sigmoid", 1), ("softmax2", 2), ("softmax", 4)])
    def test_distillation(self, head, outputs, hard):
        x, t = RNG.normal(size=(5, outputs)), RNG.normal(size=(5, outputs))
        value = losses.distillation(head=head, logits=x, teacher_logits=tf.constant(t), hard=hard)
        if head == "sigmoid":
            target = (sigmoid(t) > 0.5).astype(float) if hard else sigmoid(t)
            expected = cross_entropy(target, sigmoid(x))[:, 0]
        else:
            target = np.eye(outputs)[t.argmax(-1)] if hard else softmax(t)
            expected = -(target * np.log(softmax(x))).sum(-1)
        assert value.shape == (5,)
        np.testing.assert_allclose(value, expected, rtol=1e-5)

    @pytest.mark.parametrize(("head", "outputs"), [("sigmoid", 1), ("softmax2", 2), ("softmax", 4)])
    def test_supervised(self, head, outputs):
        x, y = RNG.normal(size=(5, outputs)), RNG.integers(0, max(2, outputs), 5)
        mask = np.array([1, 1, 0, 1, 1])
        p = sigmoid(x)[:, 0] if head == "sigmoid" else softmax(x)
        expected = cross_entropy(y, p) if head == "sigmoid" else -np.log(p[np.arange(5), y])
        value = losses.supervised(head=head, logits=x, labels=np.where(mask, y, -1), mask=mask)
        assert value.shape == (5,)
        np.testing.assert_allclose(value, expected * mask, rtol=1e-5)


class TestExtremes:
    """Logits of +-200 give finite values and gradients, and the values that mathematics gives."""

    CASES = {
        "binary": lambda x: losses.binary_cross_entropy(logits=x, labels=[[0, 1, 1], [0, 1, 0]]),
        "masked": lambda x: losses.binary_cross_entropy(logits=x, labels=[[0, 1, 1], [0, 1, 0]], mask=np.zeros((2, 3))),
        "category": lambda x: losses.categorical_cross_entropy(logits=x, labels=[0, 1]),
        "distill": lambda x: losses.binary_distillation(logits=x, teacher_logits=-EXTREME),
        "distill_category": lambda x: losses.categorical_distillation(logits=x, teacher_logits=-EXTREME),
        "distill_equal": lambda x: losses.categorical_distillation(logits=x, teacher_logits=EXTREME),
        "hard": lambda x: losses.binary_distillation(logits=x, teacher_logits=-EXTREME, hard=True),
        "hard_category": lambda x: losses.categorical_distillation(logits=x, teacher_logits=-EXTREME, hard=True),
    }

    @pytest.mark.parametrize("case", CASES)
    def test_finite(self, case):
        value, (gradient,) = value_and_gradient(self.CASES[case], EXTREME)
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()
        assert (value >= 0).all()

    def test_values(self):
        np.testing.assert_allclose(self.CASES["distill"](EXTREME), [[200, 200, math.log(2)], [200, 200, 200]], rtol=1e-6)
        np.testing.assert_allclose(self.CASES["category"](EXTREME), [400, 400 + math.log(2)], rtol=1e-6)
        np.testing.assert_allclose(self.CASES["masked"](EXTREME), [0, 0])
        np.testing.assert_allclose(self.CASES["binary"](EXTREME), [math.log(2) / 3, 600 / 3], rtol=1e-6)

    def test_low_precision_is_computed_in_float32(self):
        low = tf.constant([[1.0, -2.0]], tf.bfloat16)
        for value in (
            losses.binary_cross_entropy(logits=low, labels=[[1, 0]]),
            losses.categorical_cross_entropy(logits=low, labels=[1]),
            losses.binary_distillation(logits=low, teacher_logits=low),
            losses.categorical_distillation(logits=low, teacher_logits=low),
        ):
            assert value.dtype == tf.float32
        np.testing.assert_allclose(losses.categorical_cross_entropy(logits=low, labels=[1]), [3 + math.log1p(math.exp(-3))], rtol=1e-6)

    def test_arguments_go_by_keyword_only(self):
        with pytest.raises(TypeError):
            losses.binary_cross_entropy([[0.0]], [[1.0]])
