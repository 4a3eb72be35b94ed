"""Decisions as pure functions of recorded numbers: no networks, no files.

Branch points. The paper's rule is the block of smallest loss (`branch_points`). The student is then as good as it can be, but
often large: losses tend to grow with depth, so tasks leave early and bring most of a teacher along. `tolerant_branch_points`
and `smallest_branch_points` trade a stated amount of loss for depth or size, `budgeted_branch_points` what a size limit takes.

Teachers. `select_teacher` follows, example by example, the one whose `entropy` is smallest; these two are tensors, for use in a step.
"""

from collections.abc import Iterable, Mapping, Sequence
import itertools
import math

import tensorflow as tf

from amalgam_tf.errors import UserError

Losses = Mapping[str, Mapping[str, float]]  # block -> stream -> held-out loss, blocks in network order


def branch_points(losses: Losses) -> dict[str, str]:
    """Where each stream leaves the trunk: the block of its smallest loss (AFK eq. 9; the printed argmin_n is over k).

    Args:
        losses: block -> stream -> held-out loss, blocks in network order.

    Returns:
        stream -> block. A tie goes to the earliest block.
    """
    return {stream: min(losses, key=lambda block: losses[block][stream]) for stream in _streams(losses)}


def tolerant_branch_points(losses: Losses, tolerance: float) -> dict[str, str]:
    """The deepest block whose loss is within a margin of the stream's smallest one. Not in the paper.

    Args:
        losses: block -> stream -> held-out loss, blocks in network order.
        tolerance: margin in the unit of the losses (nats), >= 0; with 0 the result differs from `branch_points` only in ties.

    Returns:
        stream -> block.

    Raises:
        UserError: a negative margin.
    """
    if not tolerance >= 0:
        raise UserError(f"branch.tolerance is a margin in nats and cannot be {tolerance}: set it to 0 or more")
    best = {stream: min(values[stream] for values in losses.values()) for stream in _streams(losses)}
    return {stream: [b for b, values in losses.items() if values[stream] <= floor + tolerance][-1] for stream, floor in best.items()}


def budgeted_branch_points(
    losses: Losses, groups: Mapping[str, str], trunk: Mapping[str, float], tails: Mapping[str, Mapping[str, float]], limit: float
) -> dict[str, str]:
    """The branch points of the smallest total loss among all students that cost at most `limit`. Exact. Not in the paper.

    A student costs its trunk down to the deepest branch, and for every group (a teacher, whose tasks share the tails) the tail at every
    block where a stream of the group leaves. Given the blocks at which a group has tails, each of its streams takes the best of them; so
    the search runs over sets of blocks, not over streams: a Pareto front a group, and the fronts are then added up.

    Args:
        losses: block -> stream -> held-out loss, blocks in network order.
        groups: stream -> group.
        trunk: block -> cost of the trunk from the input up to and including it.
        tails: group -> block -> cost of a tail that leaves there.
        limit: largest cost allowed, in the unit of the costs.

    Returns:
        stream -> block. Among equal losses the cheaper student.

    Raises:
        UserError: no student is that small; the sentence gives the smallest cost.
    """
    blocks = list(losses)
    members = {g: [s for s in groups if groups[s] == g] for g in dict.fromkeys(groups.values())}
    best, smallest = (math.inf, math.inf, ()), math.inf
    for deepest in range(len(blocks)):
        fronts = [_front(_tail_sets(blocks[: deepest + 1], losses, members[g], tails[g])) for g in members]
        combined = [(0.0, trunk[blocks[deepest]], ())]
        for front in fronts:
            both = ((a[0] + b[0], a[1] + b[1], (*a[2], b[2])) for a, b in itertools.product(combined, front))
            combined = _front(both)
        smallest = min([smallest, *(cost for _, cost, _ in combined)])
        best = min([best, *(c for c in combined if c[1] <= limit)], key=lambda c: c[:2])
    if not best[2]:
        raise UserError(f"no student is within the limit of {limit:.4g}: the smallest one costs {smallest:.4g}; raise the limit")
    chosen = dict(zip(members, best[2], strict=True))
    return {s: min(chosen[g], key=lambda b, s=s: losses[b][s]) for s, g in groups.items()}


def smallest_branch_points(
    losses: Losses, tolerance: float, groups: Mapping[str, str], trunk: Mapping[str, float], tails: Mapping[str, Mapping[str, float]]
) -> dict[str, str]:
    """The branch points of the cheapest student in which every stream is within a margin of its smallest loss. Not in the paper.

    `tolerant_branch_points` looks at each stream alone; where streams of one group then leave at different blocks, every block brings a
    tail of its own, and the student may grow. Here the tails are counted.

    Args:
        losses: block -> stream -> held-out loss, blocks in network order.
        tolerance: margin in the unit of the losses (nats), >= 0.
        groups: as in `budgeted_branch_points`, like `trunk` and `tails`.
        trunk: block -> cost.
        tails: group -> block -> cost.

    Returns:
        stream -> block: of the tails that are there, the one of the stream's smallest loss.

    Raises:
        UserError: a negative margin.
    """
    deepest = tolerant_branch_points(losses, tolerance)  # also checks the margin
    floors = {s: min(values[s] for values in losses.values()) for s in deepest}
    # Allowed blocks cost nothing, the others everything: then the best student without a limit is the cheapest of the allowed ones.
    allowed = {b: {s: 0.0 if v <= floors[s] + tolerance else math.inf for s, v in values.items()} for b, values in losses.items()}
    points = budgeted_branch_points(allowed, groups, trunk, tails, math.inf)
    there = {g: {points[s] for s in groups if groups[s] == g} for g in groups.values()}
    return {s: min((b for b in losses if b in there[g]), key=lambda b, s=s: losses[b][s]) for s, g in groups.items()}


def _tail_sets(blocks: Sequence[str], losses: Losses, streams: Sequence[str], costs: Mapping[str, float]) -> Iterable[tuple]:
    """(loss, cost, blocks) of every non-empty set of branch points of one group."""
    # Grown one block at a time, dominated sets dropped on the way: a set that costs no more and is no worse for EVERY stream stays so
    # whatever is added. That keeps 16 blocks cheap where the subsets alone would be 65,535.
    sets = [((), 0.0, tuple(math.inf for _ in streams))]
    for block in blocks:
        here = tuple(losses[block][s] for s in streams)
        grown = [((*b, block), cost + costs[block], tuple(map(min, each, here))) for b, cost, each in sets]
        sets = _undominated([*sets, *grown])
    return [(sum(each), cost, chosen) for chosen, cost, each in sets if chosen]


def _undominated(sets: list[tuple]) -> list[tuple]:
    kept: list[tuple] = []
    for candidate in sorted(sets, key=lambda c: (c[1], sum(c[2]))):
        if not any(all(a <= b for a, b in zip(other[2], candidate[2], strict=True)) for other in kept):
            kept.append(candidate)
    return kept


def _front(points: Iterable[tuple]) -> list[tuple]:
    """The (loss, cost, what) that no other beats in both, cheapest first."""
    front: list[tuple] = []
    for point in sorted(points, key=lambda p: (p[1], p[0])):
        if not front or point[0] < front[-1][0]:
            front.append(point)
    return front


def best_streams(streams: Mapping[str, str], losses: Mapping[str, float]) -> dict[str, str]:
    """One stream for every task that several teachers know: the one of the smallest loss.

    Args:
        streams: stream -> task.
        losses: stream -> its loss at its branch point.

    Returns:
        task -> stream, tasks in order of appearance. A tie goes to the teacher whose name sorts first, so the order in
        which teachers are listed decides nothing.

    Raises:
        UserError: a stream without a loss.
    """
    if missing := [s for s in streams if s not in losses]:
        raise UserError(f"no held-out loss was recorded for {', '.join(missing)}: start again in a new --workdir")
    chosen: dict[str, str] = {}
    for stream in sorted(streams, key=lambda s: (losses[s], s)):
        chosen.setdefault(streams[stream], stream)
    return {task: chosen[task] for task in dict.fromkeys(streams.values())}


def entropy(logits: tf.Tensor, head: str) -> tf.Tensor:
    """How unsure a head is of each example (CUST eq. 5).

    Args:
        logits: [batch, outputs]; of a task several teachers know, cut down to the wanted classes (CUST C5).
        head: `softmax`, `softmax2`, or `sigmoid`: there every output is a label of its own, and their entropies are summed.

    Returns:
        [batch], nats, float32: 0 to log(outputs) for a softmax, to outputs * log(2) for sigmoids. Entropies of different numbers of
        classes do not compare (CUST C11).
    """
    logits = tf.cast(logits, tf.float32)
    if head == "sigmoid":
        size = tf.abs(logits)  # symmetric, and for the negative side nothing cancels
        return tf.reduce_sum(tf.nn.softplus(-size) + size * tf.sigmoid(-size), -1)
    return -tf.reduce_sum(tf.nn.softmax(logits) * tf.nn.log_softmax(logits), -1)


def select_teacher(entropies: Sequence[tf.Tensor]) -> tf.Tensor:
    """The teacher that is surest of each example (CUST eq. 6).

    Args:
        entropies: [batch] for each teacher.

    Returns:
        [batch], int32: place of the smallest in the list. A tie goes to the first; one that is not a number is never the smallest.
    """
    values = tf.stack(entropies)
    values = tf.where(tf.math.is_nan(values), math.inf, values)
    # tf.argmin promises nothing about ties.
    smallest = tf.equal(values, tf.reduce_min(values, 0))
    count = values.shape[0]
    return tf.reduce_min(tf.where(smallest, tf.range(count)[:, None], count), 0)


def _streams(losses: Losses) -> list[str]:
    return list(next(iter(losses.values())))
