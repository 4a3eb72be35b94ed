"""Schedules and optimizers against tables by hand and a reference in NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.errors import UserError
from amalgam_tf.training import optimizers

SGD = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "schedule": "poly", "power": 0.9}
ADAM = {"name": "adam", "learning_rate": 0.01, "schedule": "constant"}
SHAPES = ((3, 4), (4,), (4, 2), (2,))


def variables(seed=0) -> list[keras.Variable]:
    """Kernel and bias of a trunk, kernel and bias of a head; the paths repeat, as in copies of one network."""
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(size=s), dtype="float32", name="b" if len(s) == 1 else "k") for s in SHAPES]


def gradients(step: int) -> list[np.ndarray]:
    rng = np.random.default_rng([7, step])
    return [rng.normal(size=s).astype(np.float32) for s in SHAPES]


def rates(steps=10, count=None, **spec) -> list[float]:
    decay = optimizers.schedule(spec, steps)
    return [float(decay(t)) for t in range(count or steps + 1)]


class TestSchedule:
    def test_poly_with_power_one_by_hand(self):
        expected = [0.2, 0.15, 0.1, 0.05, 0, 0]
        np.testing.assert_allclose(rates(4, 6, learning_rate=0.2, schedule="poly", power=1.0), expected, atol=1e-8)

    def test_a_stretch_of_a_longer_schedule(self):
        """Two phases of 5 steps make one schedule of 10."""
        whole = rates(10, learning_rate=0.01)
        halves = [rates(5, 5, learning_rate=0.01, begin_step=begin, all_steps=10) for begin in (0, 5)]
        np.testing.assert_allclose([*halves[0], *halves[1], 0], whole, atol=1e-9)

    def test_poly_of_afk(self):
        expected = [0.01 * (1 - t / 10) ** 0.9 for t in range(11)]
        np.testing.assert_allclose(rates(10, learning_rate=0.01, schedule="poly", power=0.9), expected, rtol=1e-5, atol=1e-9)
        assert rates(10, learning_rate=0.01) == rates(10, learning_rate=0.01, schedule="poly", power=0.9)  # the defaults

    def test_cosine_by_hand(self):
        expected = [1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2, 0, 0]
        np.testing.assert_allclose(rates(4, 6, learning_rate=1, schedule="cosine"), expected, atol=1e-6)

    def test_constant(self):
        assert rates(3, 6, learning_rate=0.25, schedule="constant") == [0.25] * 6

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1]), ("poly", [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25, 0])],
    )
    def test_warm_up_rises_to_the_rate_and_the_decay_starts_behind_it(self, kind, expected):
        np.testing.assert_allclose(rates(8, 9, learning_rate=1, schedule=kind, power=1, warmup_steps=4), expected, atol=1e-6)

    def test_a_warm_up_as_long_as_the_phase(self):
        assert np.isfinite(rates(4, 6, learning_rate=1, schedule="poly", warmup_steps=4)).all()

    def test_unknown_schedule(self):
        with pytest.raises(UserError, match="unknown optimizer.schedule 'step': there are constant, poly, cosine, halve"):
            optimizers.schedule({"learning_rate": 1, "schedule": "step"}, 4)

    def test_halving_of_customize(self):
        """C8: by half at epochs 5, 10, 15, 20 and 25 of 50, here of 2 steps each; the milestone itself has the lower rate."""
        milestones = (0.1, 0.2, 0.3, 0.4, 0.5)
        expected = [1e-4 / 2 ** min(epoch // 5, 5) for epoch in range(50) for _ in range(2)]
        np.testing.assert_allclose(rates(100, 100, learning_rate=1e-4, schedule="halve", milestones=milestones), expected, rtol=1e-6)

    def test_halving_after_a_warm_up_and_by_default_at_quarters(self):
        found = rates(12, 13, learning_rate=1, schedule="halve", warmup_steps=4)
        np.testing.assert_allclose(found, [0.25, 0.5, 0.75, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.125], atol=1e-7)

    @pytest.mark.parametrize("milestones", [(0.5, 5), (0,), ("1",)])
    def test_milestones_are_shares(self, milestones):
        spec = {**SGD, "schedule": "halve", "milestones": milestones}
        with pytest.raises(UserError, match=r"finetune\.optimizer\.milestones must be shares of the phase"):
            optimizers.check(spec, "finetune.optimizer")
        with pytest.raises(UserError, match=r"optimizer\.milestones must be shares"):
            optimizers.schedule(spec, 10)

    @pytest.mark.parametrize("kind", ["cosine", "halve"])
    def test_config_round_trip(self, kind):
        decay = optimizers.schedule({"learning_rate": 0.3, "schedule": kind, "warmup_steps": 2}, 9)
        again = optimizers.Decay.from_config(decay.get_config())
        assert [float(again(t)) for t in range(10)] == [float(decay(t)) for t in range(10)]


class TestSGD:
    @pytest.mark.parametrize(("decay", "factor"), [(0.0, 1.0), (0.05, 1.0), (0.0, 10.0), (0.05, 10.0)])
    def test_steps_equal_numpy(self, decay, factor):
        made, steps = variables(), 6
        spec = {**SGD, "weight_decay": decay, "head_multiplier": factor}
        optimizer = optimizers.build(spec, made, steps=steps, heads=made[2:])
        w = [v.numpy().astype(np.float64) for v in made]
        velocity = [np.zeros_like(x) for x in w]
        for t in range(steps):
            optimizer.apply([tf.constant(g) for g in gradients(t)], made)
            rate = 0.1 * (1 - t / steps) ** 0.9
            for i, g in enumerate(gradients(t)):
                total = g + (decay * w[i] if w[i].ndim > 1 else 0)  # coupled L2 on kernels alone
                velocity[i] = 0.9 * velocity[i] - rate * (factor if i >= 2 else 1) * total
                w[i] = w[i] + velocity[i]
        for v, x in zip(made, w, strict=True):
            np.testing.assert_allclose(v.numpy(), x, rtol=1e-4, atol=1e-6)

    def test_graph_and_eager_agree(self):
        eager, graph = variables(), variables()
        a, b = (optimizers.build({**SGD, "weight_decay": 0.05}, made, steps=4) for made in (eager, graph))
        step = tf.function(lambda *g: b.apply(list(g), graph), autograph=False)
        for t in range(4):
            a.apply([tf.constant(g) for g in gradients(t)], eager)
            step(*map(tf.constant, gradients(t)))
        for x, y in zip(eager, graph, strict=True):
            np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-5, atol=1e-7)

    def test_the_rate_follows_the_optimizers_own_steps(self):
        made = variables()
        optimizer = optimizers.build({**SGD, "momentum": 0.0, "power": 1.0}, made, steps=4)
        moved = []
        for _ in range(5):
            before = made[1].numpy()
            optimizer.apply([tf.ones(v.shape) for v in made], made)
            moved.append(float((before - made[1].numpy()).mean()))
        np.testing.assert_allclose(moved, [0.1, 0.075, 0.05, 0.025, 0], atol=1e-6)


class TestAdam:
    def test_equals_keras_adamw_with_decay_on_kernels(self):
        ours, theirs = variables(), variables()
        optimizer = optimizers.build({**ADAM, "weight_decay": 0.1}, ours, steps=9)
        reference = keras.optimizers.AdamW(0.01, weight_decay=0.1)
        reference.exclude_from_weight_decay(var_list=[theirs[1], theirs[3]])
        reference.build(theirs)
        for t in range(6):
            optimizer.apply([tf.constant(g) for g in gradients(t)], ours)
            reference.apply([tf.constant(g) for g in gradients(t)], theirs)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-6)  # round-off of two orders of summation

    @pytest.mark.parametrize(("decay", "factor"), [(0.0, 1.0), (0.1, 1.0), (0.1, 5.0)])
    def test_steps_equal_numpy(self, decay, factor):
        made = variables()
        optimizer = optimizers.build({**ADAM, "weight_decay": decay, "head_multiplier": factor}, made, steps=9, heads=made[2:])
        w = [v.numpy().astype(np.float64) for v in made]
        m, s = [0 * x for x in w], [0 * x for x in w]
        for t in range(5):
            optimizer.apply([tf.constant(g) for g in gradients(t)], made)
            for i, g in enumerate(gradients(t)):
                m[i], s[i] = 0.9 * m[i] + 0.1 * g, 0.999 * s[i] + 0.001 * g**2
                # The form at the end of section 2 of Kingma and Ba: epsilon beside the uncorrected root.
                step = math.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1)) * m[i] / (np.sqrt(s[i]) + 1e-7)
                shrink = 0.01 * decay * w[i] if w[i].ndim > 1 else 0  # decoupled, on kernels alone
                w[i] = w[i] - shrink - 0.01 * (factor if i >= 2 else 1) * step
        for v, x in zip(made, w, strict=True):
            np.testing.assert_allclose(v.numpy(), x, rtol=1e-4, atol=1e-5)


class TestBuild:
    def test_unknown_setting(self):
        with pytest.raises(UserError, match="unknown optimizer setting beta, lr: the known ones are all_steps, begin_step"):
            optimizers.build({**SGD, "lr": 0.1, "beta": 1}, variables(), steps=4)

    def test_unknown_name(self):
        with pytest.raises(UserError, match="unknown optimizer.name 'lamb': there are sgd, adam"):
            optimizers.build({**SGD, "name": "lamb"}, variables(), steps=4)

    @pytest.mark.parametrize("spec", [SGD, ADAM])
    def test_slots_belong_to_exactly_these_variables(self, spec):
        made = variables()
        optimizer = optimizers.build(spec, made, steps=4)
        slots = sorted(tuple(v.shape) for v in optimizer.variables if len(v.shape))
        assert slots == sorted([tuple(v.shape) for v in made] * {"sgd": 1, "adam": 2}[spec["name"]])
        with pytest.raises(ValueError, match="Unknown variable"):
            optimizer.apply([tf.zeros(())], [keras.Variable(0.0)])

    @pytest.mark.parametrize("spec", [SGD, ADAM])
    def test_loss_scaling_trains_the_same_and_skips_overflow(self, spec):
        plain, scaled = variables(), variables()
        spec = {**spec, "weight_decay": 0.01}
        a = optimizers.build(spec, plain, steps=4)
        b = optimizers.build(spec, scaled, steps=4, loss_scaling=True)
        for t in range(2):
            a.apply([tf.constant(g) for g in gradients(t)], plain)
            b.apply([b.scale_loss(tf.constant(g)) for g in gradients(t)], scaled)
        for x, y in zip(plain, scaled, strict=True):
            np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-5)
        before = [v.numpy() for v in scaled]
        b.apply([tf.constant(g) * math.inf for g in gradients(0)], scaled)
        assert all(np.array_equal(v.numpy(), x) for v, x in zip(scaled, before, strict=True))


def test_adam_takes_its_first_momentum_from_the_config():
    """Generators want 0.5 (DGAN G15); one step by hand: after two gradients of 1 and 0 the momentum is beta (1 - beta) / (1 - beta^2)."""
    for given, beta in (({}, 0.9), ({"beta_1": 0.5}, 0.5)):
        v = keras.Variable(0.0)
        optimizer = optimizers.build({"name": "adam", "learning_rate": 1.0, "schedule": "constant", **given}, [v], steps=2)
        for gradient in (1.0, 0.0):
            before = float(v.value)
            optimizer.apply([tf.constant(gradient)], [v])
        second = np.sqrt(0.999 * 0.001 / (1 - 0.999**2))
        assert float(v.value) - before == pytest.approx(-beta * (1 - beta) / (1 - beta**2) / second, rel=1e-3)
