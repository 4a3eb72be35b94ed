"""Branch rules against exhaustive search and hand-made tables; teacher selection against NumPy."""

import itertools
import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import choice
from amalgam_tf.errors import UserError

LOSSES = {"b1": {"dog": 0.30, "cat": 0.10}, "b2": {"dog": 0.31, "cat": 0.05}, "b3": {"dog": 0.36, "cat": 0.05}}


class TestArgmin:
    def test_smallest_loss_earliest_block(self):
        assert choice.branch_points(LOSSES) == {"dog": "b1", "cat": "b2"}


class TestTolerance:
    @pytest.mark.parametrize(
        ("tolerance", "dog"), [(0.0, "b1"), (0.0099, "b1"), (0.0101, "b2"), (0.0599, "b2"), (0.0601, "b3"), (1.0, "b3")]
    )
    def test_deepest_block_within_the_margin(self, tolerance, dog):
        assert choice.tolerant_branch_points(LOSSES, tolerance)["dog"] == dog

    def test_each_stream_has_its_own_best(self):
        assert choice.tolerant_branch_points(LOSSES, 0.0) == {"dog": "b1", "cat": "b3"}

    def test_a_worse_block_between_does_not_end_the_search(self):
        losses = {"b1": {"dog": 0.1}, "b2": {"dog": 0.5}, "b3": {"dog": 0.105}}
        assert choice.tolerant_branch_points(losses, 0.01) == {"dog": "b3"}

    @pytest.mark.parametrize("bad", [-0.1, float("nan")])
    def test_no_margin_below_zero(self, bad):
        with pytest.raises(UserError, match="branch.tolerance"):
            choice.tolerant_branch_points(LOSSES, bad)


def exhaustive(losses, groups, trunk, tails, limit):
    """(loss, cost) of the best student by trying every combination; None if none is small enough."""
    best, blocks, streams = None, list(losses), list(groups)
    for points in itertools.product(range(len(blocks)), repeat=len(streams)):
        used = {(groups[s], blocks[p]) for s, p in zip(streams, points, strict=True)}
        cost = trunk[blocks[max(points)]] + sum(tails[g][b] for g, b in used)
        loss = sum(losses[blocks[p]][s] for s, p in zip(streams, points, strict=True))
        if cost <= limit and (best is None or loss < best[0] - 1e-12):
            best = (loss, cost)
    return best


class TestBudget:
    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 10**9))
    def test_equals_exhaustive_search(self, seed):
        r = random.Random(seed)
        blocks = [f"b{i}" for i in range(r.randint(1, 4))]
        groups = {f"s{i}": f"g{r.randint(0, 2)}" for i in range(r.randint(1, 5))}
        losses = {b: {s: r.random() for s in groups} for b in blocks}
        trunk = dict(zip(blocks, sorted(r.random() * 3 for _ in blocks), strict=True))
        tails = {g: {b: r.random() * 2 for b in blocks} for g in set(groups.values())}
        limit, expected = r.random() * 6, None
        expected = exhaustive(losses, groups, trunk, tails, limit)
        if expected is None:
            with pytest.raises(UserError, match="no student is within the limit"):
                choice.budgeted_branch_points(losses, groups, trunk, tails, limit)
            return
        points = choice.budgeted_branch_points(losses, groups, trunk, tails, limit)
        used = {(groups[s], b) for s, b in points.items()}
        assert trunk[max(points.values(), key=blocks.index)] + sum(tails[g][b] for g, b in used) <= limit
        assert sum(losses[b][s] for s, b in points.items()) == pytest.approx(expected[0], abs=1e-9)

    def test_by_hand(self):
        """Two teachers, two blocks. 7 buys the best; at 5.5 one teacher goes deeper, the one that loses less by it; 4 leaves one choice."""
        losses = {"b1": {"dog": 0.1, "cat": 0.1}, "b2": {"dog": 0.2, "cat": 0.4}}
        groups, trunk, tails = {"dog": "T1", "cat": "T2"}, {"b1": 1.0, "b2": 2.0}, {t: {"b1": 3.0, "b2": 1.0} for t in ("T1", "T2")}

        def at(limit):
            return choice.budgeted_branch_points(losses, groups, trunk, tails, limit)

        assert at(7) == {"dog": "b1", "cat": "b1"}
        assert at(6) == {"dog": "b2", "cat": "b1"}
        assert at(4) == {"dog": "b2", "cat": "b2"}
        with pytest.raises(UserError, match="the smallest one costs 4; raise the limit"):
            at(3.9)

    def test_streams_of_one_teacher_share_a_tail(self):
        """Two streams that want b1 cost one tail, so they fit where two tails would not."""
        losses = {"b1": {"dog": 0.1, "cat": 0.1}, "b2": {"dog": 0.2, "cat": 0.2}}
        costs = {"b1": 1.0, "b2": 2.0}
        assert set(choice.budgeted_branch_points(losses, {"dog": "T", "cat": "T"}, costs, {"T": {"b1": 3.0, "b2": 1.0}}, 4).values()) == {
            "b1"
        }

    def test_sixteen_blocks_and_twenty_labels_are_quick(self):
        r, blocks = random.Random(0), [f"b{i}" for i in range(16)]
        groups = {f"s{i}": f"T{i % 2}" for i in range(20)}
        losses = {b: {s: 0.01 * i + 0.005 * r.random() for s in groups} for i, b in enumerate(blocks)}
        trunk, tail = {b: i + 1.0 for i, b in enumerate(blocks)}, {b: 16.0 - i for i, b in enumerate(blocks)}
        points = choice.budgeted_branch_points(losses, groups, trunk, {"T0": tail, "T1": tail}, 24.0)
        assert set(points) == set(groups)


class TestSmallest:
    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 10**9))
    def test_equals_exhaustive_search(self, seed):
        r = random.Random(seed)
        blocks = [f"b{i}" for i in range(r.randint(1, 4))]
        groups = {f"s{i}": f"g{r.randint(0, 1)}" for i in range(r.randint(1, 4))}
        losses = {b: {s: r.random() for s in groups} for b in blocks}
        trunk = dict(zip(blocks, sorted(r.random() * 3 for _ in blocks), strict=True))
        tails, margin = {g: {b: r.random() * 2 for b in blocks} for g in set(groups.values())}, r.random()
        floor = {s: min(losses[b][s] for b in blocks) for s in groups}

        def cost(points):
            return trunk[max(points.values(), key=blocks.index)] + sum(tails[g][b] for g, b in {(groups[s], b) for s, b in points.items()})

        ways = [dict(zip(groups, way, strict=True)) for way in itertools.product(blocks, repeat=len(groups))]
        fine = [p for p in ways if all(losses[b][s] <= floor[s] + margin for s, b in p.items())]
        found = choice.smallest_branch_points(losses, margin, groups, trunk, tails)
        assert found in fine and cost(found) == pytest.approx(min(map(cost, fine)))

    def test_no_second_tail_for_a_stream_that_could_go_deeper(self):
        """What `tolerance` does to two tasks of one teacher: two tails. Together they are better off with one."""
        losses = {"b1": {"dog": 0.1, "cat": 0.1}, "b2": {"dog": 0.101, "cat": 0.2}}
        groups, trunk, tails = {"dog": "T", "cat": "T"}, {"b1": 1.0, "b2": 2.0}, {"T": {"b1": 3.0, "b2": 1.5}}
        assert choice.tolerant_branch_points(losses, 0.01) == {"dog": "b2", "cat": "b1"}
        assert choice.smallest_branch_points(losses, 0.01, groups, trunk, tails) == {"dog": "b1", "cat": "b1"}


def nats(p):
    """Entropy of probabilities in NumPy, over the last axis; 0 log 0 = 0."""
    p = np.asarray(p, np.float64)
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class TestEntropy:
    def test_by_hand(self):
        """CUST eq. 5 in nats: a fair coin, a quarter against three, and certainty."""
        quarter = 2 * math.log(2) - 0.75 * math.log(3)
        value = choice.entropy(tf.constant([[3.0, 3.0], [0.0, math.log(3)], [100.0, -100.0]]), "softmax2")
        np.testing.assert_allclose(value, [math.log(2), quarter, 0], rtol=1e-6)
        sigmoids = choice.entropy(tf.constant([[0.0, 0.0], [0.0, math.log(3)], [-math.log(3), 100.0]]), "sigmoid")
        np.testing.assert_allclose(sigmoids, [2 * math.log(2), math.log(2) + quarter, quarter], rtol=1e-6)

    @pytest.mark.parametrize("scale", [0.1, 1, 10, 60])
    def test_numpy(self, scale):
        x = (np.random.default_rng(0).normal(size=(50, 6)) * scale).astype(np.float32)
        np.testing.assert_allclose(choice.entropy(x, "softmax"), nats(softmax(x)), rtol=1e-4, atol=1e-7)
        sigmoids = nats(softmax(np.stack([x, 0 * x], -1))).sum(-1)
        np.testing.assert_allclose(choice.entropy(x, "sigmoid"), sigmoids, rtol=1e-4, atol=1e-7)

    def test_a_shift_of_all_logits_changes_nothing_and_two_logits_are_one_sigmoid(self):
        x = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)
        np.testing.assert_allclose(choice.entropy(x + 50, "softmax2"), choice.entropy(x, "softmax2"), rtol=1e-3)
        np.testing.assert_allclose(choice.entropy(x[:, 1:] - x[:, :1], "sigmoid"), choice.entropy(x, "softmax2"), rtol=1e-4)

    @pytest.mark.parametrize("head", ["softmax", "sigmoid"])
    def test_finite_and_not_negative_for_extreme_logits(self, head):
        """A published code sums raw exponentials, which overflow."""
        value = choice.entropy(np.array([[-200.0, 200, 0], [200, -200, 200], [1e30, -1e30, 5]]), head).numpy()
        assert np.isfinite(value).all() and (value >= 0).all()
        np.testing.assert_allclose(value, {"softmax": [0, math.log(2), 0], "sigmoid": [math.log(2), 0, 0.040182]}[head], atol=1e-5)

    def test_low_precision_is_computed_in_float32(self):
        low = tf.constant([[1.0, -2.0]], tf.bfloat16)
        for head in ("softmax2", "sigmoid"):
            assert choice.entropy(low, head).dtype == tf.float32
            assert np.array_equal(choice.entropy(low, head), choice.entropy(tf.cast(low, tf.float32), head))


class TestSelectTeacher:
    def test_by_hand(self):
        chosen = choice.select_teacher([tf.constant([0.3, 0.1, 0.6]), tf.constant([0.2, 0.5, 0.6]), tf.constant([0.4, 0.0, 0.5])])
        assert chosen.dtype == tf.int32 and chosen.numpy().tolist() == [1, 2, 2]

    def test_numpy(self):
        values = np.random.default_rng(0).uniform(size=(4, 200)).astype(np.float32)
        assert np.array_equal(choice.select_teacher(list(values)), values.argmin(0))
        assert np.array_equal(choice.select_teacher(values), values.argmin(0))

    def test_permuting_teachers_permutes_the_decision(self):
        logits = np.random.default_rng(0).normal(size=(4, 60, 3)).astype(np.float32)
        chosen = choice.select_teacher([choice.entropy(x, "softmax") for x in logits]).numpy()
        assert set(chosen) == {0, 1, 2, 3}
        for order in itertools.permutations(range(4)):
            again = choice.select_teacher([choice.entropy(logits[i], "softmax") for i in order]).numpy()
            assert np.array_equal(np.array(order)[again], chosen)

    def test_ties_go_to_the_first(self):
        assert choice.select_teacher([tf.constant(x) for x in ([0.5, 0.2], [0.1, 0.2], [0.1, 0.2])]).numpy().tolist() == [1, 0]

    def test_one_that_is_no_number_is_never_chosen(self):
        nan = float("nan")
        assert choice.select_teacher([tf.constant(x) for x in ([nan, 0.2, nan], [0.9, nan, nan])]).numpy().tolist() == [1, 0, 0]

    def test_inside_a_step(self):
        """Only the chosen teacher of each example counts, whatever the batch size."""

        @tf.function(autograph=False, input_signature=[tf.TensorSpec((2, None, 3))])
        def step(logits):
            chosen = choice.select_teacher([choice.entropy(x, "softmax") for x in tf.unstack(logits)])
            return chosen, choice.select_teacher(choice.entropy(logits, "softmax"))

        for batch in (1, 7):
            logits = np.random.default_rng(batch).normal(size=(2, batch, 3)).astype(np.float32)
            expected = nats(softmax(logits)).argmin(0)
            assert all(np.array_equal(c, expected) for c in step(logits))

    def test_a_single_teacher(self):
        assert choice.select_teacher([tf.constant([0.5, 0.2])]).numpy().tolist() == [0, 0]


class TestStreams:
    def test_the_better_teacher_keeps_the_task(self):
        streams = {"dog@A": "dog", "dog@B": "dog", "cat@A": "cat"}
        assert choice.best_streams(streams, {"dog@A": 0.3, "dog@B": 0.2, "cat@A": 0.9}) == {"dog": "dog@B", "cat": "cat@A"}

    def test_a_stream_without_loss_is_named(self):
        with pytest.raises(UserError, match="dog@B"):
            choice.best_streams({"dog@A": "dog", "dog@B": "dog"}, {"dog@A": 0.3})
