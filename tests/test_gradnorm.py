"""The closed form of GradNorm against second derivatives by nested tapes, and what holds of weights behind `Simplex`."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import gradnorm
from amalgam_tf.errors import UserError


def task_net(tasks: int, seed: int):
    """(loss functions of W, W): a shared layer and one small head a task, on fixed data."""
    rng = np.random.default_rng(seed)
    x = tf.constant(rng.normal(size=(6, 4)), tf.float64)
    shared = tf.Variable(rng.normal(size=(4, 3)))
    heads = [tf.constant(rng.normal(size=(3, 2)) * (i + 1)) for i in range(tasks)]
    truths = [tf.constant(rng.normal(size=(6, 2))) for _ in range(tasks)]
    return [lambda h=h, y=y: tf.reduce_mean((tf.tanh(x @ shared) @ h - y) ** 2) for h, y in zip(heads, truths, strict=True)], shared


def by_nested_tapes(task_losses, shared, weights, initial, exponent, squared):
    """(L_grad, its gradient) from the definition: gradients of w_i L_i, the target cut off, differentiated once more; float64."""
    w = tf.Variable(weights)
    with tf.GradientTape() as outer:
        norms, losses = [], []
        for i, fn in enumerate(task_losses):
            with tf.GradientTape() as inner:
                value = fn()
                weighted = w[i] * value
            square = tf.reduce_sum(inner.gradient(weighted, shared) ** 2)
            norms.append(square if squared else tf.sqrt(square))
            losses.append(value)
        rate = tf.stack(losses) / initial
        rate /= tf.reduce_mean(rate)
        target = tf.stop_gradient(tf.reduce_mean(tf.stack(norms)) * rate**exponent)
        value = tf.reduce_sum(tf.abs(tf.stack(norms) - target))
    return value.numpy(), outer.gradient(value, w).numpy()


def measured(task_losses, shared) -> dict:
    """What a step hands over: losses, and the norms of their unweighted gradients."""
    with tf.GradientTape(persistent=True) as tape:
        losses = [fn() for fn in task_losses]
    return {"losses": losses, "norms": [gradnorm.norm(tape.gradient(value, shared)) for value in losses]}


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("exponent", [0.0, 0.12, 1.5])
@pytest.mark.parametrize("tasks", [2, 3])
def test_closed_form_is_the_second_derivative(tasks, exponent, squared):
    signs = set()
    for seed in range(3):
        rng = np.random.default_rng(100 + seed)
        task_losses, shared = task_net(tasks, seed)
        weights, initial = rng.uniform(0.2, 2, tasks), rng.uniform(0.5, 5, tasks)
        value, expected = by_nested_tapes(task_losses, shared, weights, initial, exponent, squared)
        given = dict(weights=weights, **measured(task_losses, shared), initial_losses=initial, exponent=exponent, squared=squared)
        found = gradnorm.gradient(**given)
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_allclose(gradnorm.objective(**given), value, rtol=1e-5)
        signs |= set(np.sign(expected))
    assert signs == {-1.0, 1.0}


@pytest.mark.parametrize("squared", [False, True])
def test_it_is_the_derivative_of_the_objective(squared):
    given = dict(norms=[3.0, 1.0, 2.0], losses=[1.0, 2.0, 0.5], initial_losses=[2.0, 2.0, 2.0], squared=squared)
    weights = tf.Variable([0.2, 0.5, 0.3])
    with tf.GradientTape() as tape:
        value = gradnorm.objective(weights=weights, **given)
    np.testing.assert_allclose(tape.gradient(value, weights), gradnorm.gradient(weights=weights, **given), rtol=1e-6)


def test_by_hand():
    """G = (1, 3), mean 2; shares of the initial losses 1 and 1/2, rates 4/3 and 2/3; targets 8/3 and 4/3."""
    given = dict(weights=[0.5, 0.5], norms=[2.0, 6.0], losses=[4.0, 1.0], initial_losses=[4.0, 2.0], exponent=1.0)
    np.testing.assert_allclose(gradnorm.gradient(**given), [-2, 6])
    np.testing.assert_allclose(gradnorm.objective(**given), (8 / 3 - 1) + (3 - 4 / 3), rtol=1e-6)
    np.testing.assert_allclose(gradnorm.gradient(**given, squared=True), [-2 * 0.5 * 4, 2 * 0.5 * 36])


def test_the_exponent_is_one_and_a_half_unless_told():
    given = dict(weights=[0.5, 0.5], norms=[1.0, 1.0], losses=[3.0, 1.0], initial_losses=[2.0, 2.0])
    np.testing.assert_allclose(gradnorm.objective(**given), 0.5 * (1.5**1.5 - 1) + 0.5 * (1 - 0.5**1.5), rtol=1e-6)


@pytest.mark.parametrize("tasks", range(2, 9))
def test_equal_tasks_leave_the_weights_where_they_are(tasks):
    """Also where the mean of equal numbers rounds to another number: a sign of it would be a whole step."""
    for weight in (1 / tasks, 0.1, 0.7):
        for squared in (False, True):
            given = dict(weights=[weight] * tasks, norms=[0.3] * tasks, losses=[0.123] * tasks, initial_losses=[0.77] * tasks)
            assert not gradnorm.gradient(**given, squared=squared).numpy().any()


def test_permuting_tasks_permutes_the_gradient():
    rng = np.random.default_rng(0)
    given = {k: rng.uniform(0.1, 2, 4) for k in ("weights", "norms", "losses", "initial_losses")}
    one = gradnorm.gradient(**given).numpy()
    for order in itertools.permutations(range(4)):
        np.testing.assert_allclose(gradnorm.gradient(**{k: v[list(order)] for k, v in given.items()}), one[list(order)], rtol=1e-6)


def test_a_slow_task_gains_weight_by_an_optimizers_step():
    """SOKA's two weights from 0.5: task 0 has learned nothing yet; the optimizer applies the constraint."""
    weights = keras.Variable([0.5, 0.5], name="weights")
    weights.constraint = gradnorm.Simplex()
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build([weights])
    before = 0.5
    for _ in range(5):
        given = dict(weights=weights, norms=[1.0, 1.0], losses=[2.0, 0.5], initial_losses=[2.0, 2.0])
        optimizer.apply([gradnorm.gradient(**given)], [weights])
        slow, fast = weights.numpy()
        assert slow > before and slow + fast == pytest.approx(1)
        before = slow
    assert slow == pytest.approx(0.55, abs=1e-4)


@pytest.mark.parametrize("squared", [False, True])
def test_nothing_left_to_learn_is_finite(squared):
    zero, one = [0.0, 0.0], [0.5, 0.5]
    for norms, losses, initial in itertools.product((zero, one, [0.0, 1.0]), (zero, one, [0.0, 1.0]), (zero, one, [0.0, 1.0])):
        given = dict(weights=one, norms=norms, losses=losses, initial_losses=initial, squared=squared)
        assert np.isfinite(gradnorm.gradient(**given)).all() and np.isfinite(gradnorm.objective(**given))
    given = dict(weights=one, norms=[1.0, 1.0], losses=zero, initial_losses=one, squared=squared)
    assert gradnorm.gradient(**given).numpy().tolist() == zero  # equally finished


def test_what_is_no_number_is_not_hidden():
    given = dict(weights=[0.5, 0.5], norms=[1.0, 2.0], losses=[1.0, 1.0], initial_losses=[1.0, 1.0])
    for key in given:
        assert np.isnan(gradnorm.gradient(**{**given, key: [math.nan, 1.0]})).any()
    assert np.isnan(gradnorm.norm(tf.constant([0.0, math.nan]))) and np.isnan(gradnorm.Simplex()(tf.constant([math.nan, 1.0]))).any()


def test_a_negative_exponent_is_refused():
    with pytest.raises(UserError, match="gradnorm.exponent cannot be -1"):
        gradnorm.gradient(weights=[1.0], norms=[1.0], losses=[1.0], initial_losses=[1.0], exponent=-1)


def test_norm():
    values = np.random.default_rng(0).normal(size=(1, 1, 5, 3))
    np.testing.assert_allclose(gradnorm.norm(values), np.linalg.norm(values), rtol=1e-6)
    assert gradnorm.norm(tf.zeros((2, 3))) == 0
    np.testing.assert_allclose(gradnorm.norm(tf.fill((4,), 1e30)), 2e30, rtol=1e-6)
    np.testing.assert_allclose(gradnorm.norm(tf.fill((4,), 1e-30)), 2e-30, rtol=1e-6)
    low = gradnorm.norm(tf.ones((1024,), tf.bfloat16))
    assert low.dtype == tf.float32 and low == 32


class TestSimplex:
    @pytest.mark.parametrize(("total", "floor"), [(1.0, 1e-3), (3.0, 1e-3), (1.0, 0.2), (1.0, 0.0)])
    def test_sum_and_floor_both_hold(self, total, floor):
        constraint, rng = gradnorm.Simplex(total, floor), np.random.default_rng(0)
        cases = [rng.normal(size=3) * scale for scale in (0.01, 1, 100) for _ in range(20)]
        for case in [*cases, [2.0, -1.0, 1e-4], [1e-3, 1e-3, 5.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]]:
            found = constraint(tf.constant(case, tf.float32)).numpy()
            assert found.sum() == pytest.approx(total, rel=1e-6)
            assert found.min() >= floor * (1 - 1e-6)
            np.testing.assert_allclose(constraint(tf.constant(found)), found, rtol=1e-5, atol=1e-7)
            if floor:
                assert (np.argsort(found) == np.argsort(np.maximum(case, floor), kind="stable")).all() or len(set(found)) < 3

    def test_rescaling_alone_would_fall_below_the_floor(self):
        """(-1, 9) clamped is (0.2, 9), and rescaled to 1 (0.02, 0.98)."""
        np.testing.assert_allclose(gradnorm.Simplex(1.0, 0.2)(tf.constant([-1.0, 9.0])), [0.2, 0.8], rtol=1e-6)

    def test_weights_that_fit_stay(self):
        np.testing.assert_allclose(gradnorm.Simplex()(tf.constant([0.25, 0.7, 0.05])), [0.25, 0.7, 0.05], rtol=1e-6)

    def test_proportions_stay_nearly(self):
        found = gradnorm.Simplex()(tf.constant([1.5, 0.5])).numpy()
        np.testing.assert_allclose(found, [0.75, 0.25], atol=1e-3)

    def test_nothing_above_the_floor_becomes_equal(self):
        np.testing.assert_allclose(gradnorm.Simplex(3.0)(tf.constant([-5.0, 0.0, 1e-4])), [1, 1, 1], rtol=1e-6)

    def test_ranges(self):
        for total, floor in ((0, 0), (-1, 0), (1, -0.1), (math.nan, 0), (1, math.nan)):
            with pytest.raises(UserError, match="weights cannot have the sum"):
                gradnorm.Simplex(total, floor)
        with pytest.raises(UserError, match="3 weights of at least 0.4 cannot have the sum 1.0: lower the floor"):
            gradnorm.Simplex(1.0, 0.4)(tf.ones(3))

    def test_serializable(self):
        again = keras.constraints.deserialize(keras.constraints.serialize(gradnorm.Simplex(3.0, 0.01)))
        assert isinstance(again, gradnorm.Simplex) and again.get_config() == {"total": 3.0, "floor": 0.01}


def test_inside_a_step():
    """With weights that are a variable, and under autograph=False."""
    weights = keras.Variable([0.5, 0.5])

    @tf.function(autograph=False)
    def step(norms):
        given = dict(weights=weights, norms=norms, losses=[1.0, 2.0], initial_losses=[2.0, 2.0])
        weights.assign(gradnorm.Simplex()(weights - 0.1 * gradnorm.gradient(**given)))
        return gradnorm.objective(**given)

    step(tf.constant([1.0, 1.0]))
    assert weights.numpy()[1] > 0.5 and weights.numpy().sum() == pytest.approx(1)
