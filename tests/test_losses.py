"""Every loss against a value by hand or an independent formula in NumPy (float64)."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import losses
from amalgam_tf.errors import UserError

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


class TestTransfer:
    def test_by_hand(self):
        """Two images of 1 x 2 pixels with 2 channels: squares 1, 0, 4, 9 and one square of 16, over C H W = 4."""
        student = [[[[1.0, 0.0], [2.0, 3.0]]], [[[5.0, 5.0], [5.0, 5.0]]]]
        teacher = [[[[0.0, 0.0], [0.0, 0.0]]], [[[5.0, 1.0], [5.0, 5.0]]]]
        value = losses.transfer(student=student, teacher=teacher)
        np.testing.assert_allclose(value, [14 / 4, 16 / 4])
        assert value.dtype == tf.float32

    def test_a_mean_over_places_and_channels_and_no_sum(self):
        s, t = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(2, 3, 4, 5))
        one = losses.transfer(student=s, teacher=t).numpy()
        np.testing.assert_allclose(one, ((s - t) ** 2).sum((1, 2, 3)) / (3 * 4 * 5), rtol=1e-5)
        for copies in ((1, 2, 1, 1), (1, 1, 3, 1), (1, 1, 1, 2)):
            np.testing.assert_allclose(losses.transfer(student=np.tile(s, copies), teacher=np.tile(t, copies)), one, rtol=1e-5)
        np.testing.assert_allclose(losses.transfer(student=np.tile(s, (3, 1, 1, 1)), teacher=np.tile(t, (3, 1, 1, 1))), np.tile(one, 3))

    def test_both_sides_learn(self):
        s, t = RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(2, 3, 4, 5))
        _, (to_student, to_teacher) = value_and_gradient(lambda s, t: losses.transfer(student=s, teacher=t), s, t)
        np.testing.assert_allclose(to_student, 2 * (s - t) / (3 * 4 * 5), rtol=1e-4)
        np.testing.assert_allclose(to_teacher, -to_student)

    @pytest.mark.parametrize("shape", [(2, 1, 1, 5), (2, 3, 4, 1), (1, 3, 4, 5), (2, 4, 3, 5)])
    def test_shapes_that_would_be_spread_are_refused(self, shape):
        with pytest.raises(ValueError, match="incompatible"):
            losses.transfer(student=np.ones((2, 3, 4, 5)), teacher=np.ones(shape))


class TestUnitFilters:
    def test_by_hand(self):
        """Three inputs, two outputs: the columns have squared lengths 9 and 1 / 4."""
        kernel = np.array([[1, 0.5], [2, 0], [2, 0]])[None, None]
        value = losses.unit_filters(kernel=kernel)
        np.testing.assert_allclose(value, ((9 - 1) ** 2 + (0.25 - 1) ** 2) / 2)
        assert value.shape == () and value.dtype == tf.float32

    def test_output_filters_of_length_one_cost_nothing_whatever_the_inputs_are(self):
        kernel = RNG.normal(size=(1, 1, 6, 4))
        kernel /= np.sqrt((kernel**2).sum(2, keepdims=True))
        value, (gradient,) = value_and_gradient(lambda k: losses.unit_filters(kernel=k), kernel)
        np.testing.assert_allclose(value, 0, atol=1e-12)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)
        assert losses.unit_filters(kernel=kernel.transpose(0, 1, 3, 2)) > 0.1

    def test_a_collapsed_bridge_costs_one_and_a_long_filter_is_pulled_back(self):
        assert losses.unit_filters(kernel=np.zeros((1, 1, 6, 4))) == 1
        kernel = RNG.normal(size=(1, 1, 6, 4)) * 3
        _, (gradient,) = value_and_gradient(lambda k: losses.unit_filters(kernel=k), kernel)
        np.testing.assert_allclose(gradient, 4 / 4 * ((kernel**2).sum(2, keepdims=True) - 1) * kernel, rtol=1e-4)

    def test_not_more_for_more_outputs(self):
        kernel = RNG.normal(size=(1, 1, 6, 4))
        wider = losses.unit_filters(kernel=np.tile(kernel, (1, 1, 1, 3)))
        np.testing.assert_allclose(wider, losses.unit_filters(kernel=kernel), rtol=1e-5)


class TestSoftTarget:
    S, T = np.array([[1.0, 2.0], [0.0, -4.0]]), np.array([[3.0, 0.0], [2.0, 2.0]])

    @pytest.mark.parametrize(
        ("scaled", "expected"), [("student", [(1 + 16) / 2, (4 + 100) / 2]), ("teacher", [(25 + 4) / 2, (16 + 64) / 2]), ("none", [4, 20])]
    )
    def test_by_hand(self, scaled, expected):
        value = losses.soft_target(logits=self.S, teacher_logits=self.T, scale=2.0, scaled=scaled)
        np.testing.assert_allclose(value, expected)
        assert value.dtype == tf.float32

    def test_without_a_scale_all_are_equal(self):
        for scaled in losses.SCALED:
            np.testing.assert_allclose(losses.soft_target(logits=self.S, teacher_logits=self.T, scaled=scaled), [4, 20])

    def test_the_student_side_is_the_default(self):
        a, b = (losses.soft_target(logits=self.S, teacher_logits=self.T, scale=3.0, **k) for k in ({}, {"scaled": "student"}))
        assert np.array_equal(a, b)

    @pytest.mark.parametrize("scaled", losses.SCALED)
    def test_gradients(self, scaled):
        s, t, m = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5)), 1.5
        _, (to_student, to_teacher, to_scale) = value_and_gradient(
            lambda s, t, m: losses.soft_target(logits=s, teacher_logits=t, scale=m, scaled=scaled), s, t, m
        )
        assert to_teacher is None
        ms, mt = (m if scaled == side else 1 for side in ("student", "teacher"))
        difference = 2 * (ms * s - mt * t) / 5
        np.testing.assert_allclose(to_student, difference * ms, rtol=1e-4, atol=1e-6)
        expected = {"student": (difference * s).sum(), "teacher": -(difference * t).sum()}.get(scaled)
        assert to_scale is None if expected is None else abs(to_scale - expected) < 1e-4

    def test_the_printed_form_collapses_and_ours_does_not(self):
        nothing = np.zeros((2, 2))
        np.testing.assert_allclose(losses.soft_target(logits=nothing, teacher_logits=self.T, scale=0.0, scaled="teacher"), 0)
        assert (losses.soft_target(logits=nothing, teacher_logits=self.T, scale=0.0).numpy() > 1).all()

    def test_the_scale_of_a_run_is_a_keras_variable(self):
        m = keras.Variable(2.0)
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(losses.soft_target(logits=self.S, teacher_logits=self.T, scale=m))
        np.testing.assert_allclose(value, 60.5)
        assert tape.gradient(value, m) is not None

    def test_another_side_or_shape_is_refused(self):
        with pytest.raises(UserError, match="unknown scale 'students': did you mean 'student'"):
            losses.soft_target(logits=self.S, teacher_logits=self.T, scaled="students")
        with pytest.raises(ValueError, match="incompatible"):
            losses.soft_target(logits=self.S, teacher_logits=self.T[:, :1])


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
        "transfer": lambda x: losses.transfer(student=x[:, None, None], teacher=-EXTREME[:, None, None]),
        "unit_filters": lambda x: losses.unit_filters(kernel=x[None, None]),
        "soft_target": lambda x: losses.soft_target(logits=x, teacher_logits=-EXTREME, scale=2.0),
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
        np.testing.assert_allclose(self.CASES["transfer"](EXTREME), [2 * 400**2 / 3, 400**2], rtol=1e-6)
        np.testing.assert_allclose(self.CASES["soft_target"](EXTREME), [2 * 600**2 / 3, 600**2], rtol=1e-6)

    def test_low_precision_is_computed_in_float32(self):
        low = tf.constant([[1.0, -2.0]], tf.bfloat16)
        for value in (
            losses.binary_cross_entropy(logits=low, labels=[[1, 0]]),
            losses.categorical_cross_entropy(logits=low, labels=[1]),
            losses.binary_distillation(logits=low, teacher_logits=low),
            losses.categorical_distillation(logits=low, teacher_logits=low),
            losses.transfer(student=low[:, None, None], teacher=low[:, None, None]),
            losses.unit_filters(kernel=low[None, None]),
            losses.soft_target(logits=low, teacher_logits=low, scale=tf.constant(1.0, tf.bfloat16)),
        ):
            assert value.dtype == tf.float32
        # A sum in bfloat16, eight bits, would stop at 256.
        many = tf.ones((1, 32, 32, 1), tf.bfloat16)
        np.testing.assert_allclose(losses.transfer(student=many, teacher=0 * many), [1])
        np.testing.assert_allclose(losses.unit_filters(kernel=tf.reshape(many, (1, 1, 1024, 1))), 1023**2)
        np.testing.assert_allclose(losses.categorical_cross_entropy(logits=low, labels=[1]), [3 + math.log1p(math.exp(-3))], rtol=1e-6)

    def test_arguments_go_by_keyword_only(self):
        with pytest.raises(TypeError):
            losses.binary_cross_entropy([[0.0]], [[1.0]])
        for call, count in ((losses.transfer, 2), (losses.unit_filters, 1), (losses.soft_target, 2)):
            with pytest.raises(TypeError, match="positional"):
                call(*[[[0.0]]] * count)
