"""Decisions as pure functions of recorded numbers: no networks, no files.

Branch points. The paper's rule is the block of smallest loss (`branch_points`). The student is then as good as it can be, but
often large: losses tend to grow with depth, so tasks leave early and bring most of a teacher along. `tolerant_branch_points`
and `smallest_branch_points` trade a stated amount of loss for depth or size, `budgeted_branch_points` what a size limit takes.

Teachers. `select_teacher` follows, example by example, the one whose `entropy` is smallest; these two are tensors, for use in a step.

An auxiliary teacher (SOKA). How alike two tasks are is told by which pairs of images their teachers find alike (RSA: `dissimilarities`,
`similarity`, `similarities`; NumPy); `auxiliary` is the paper's rule, `strongest` and `weakest` ignore its gate.
"""

from collections.abc import Iterable, Mapping, Sequence
import itertools
import math
import statistics
import warnings

import numpy as np
import tensorflow as tf

from amalgam_tf.errors import UserError, did_you_mean, one_of

AUXILIARY_RULES = ("sum", "both", "first")

Losses = Mapping[str, Mapping[str, float]]  # block -> stream -> held-out loss, blocks in network order
Similarities = Mapping[str, Mapping[str, float]]  # task -> task -> similarity in [-1, 1]


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


def dissimilarities(features: np.ndarray, centre: bool = True) -> np.ndarray:
    """How unlike each pair of images is to a network: 1 - Pearson's correlation of their feature vectors (RSA; an RDM in SOKA).

    Args:
        features: [n, d], or [n, ...] that is flattened; any float type.
        centre: first take from each feature its mean over the images. It changes the correlations.

    Returns:
        float64 [n, n] in [0, 2], symmetric, 0 on the diagonal. An image whose vector is constant (a dead ReLU, or images that are all the
        same) has no correlation: dissimilarity 1 to every other, and a RuntimeWarning that says how many there are.

    Raises:
        UserError: fewer than 3 images, or features that are not finite.
    """
    features = np.asarray(features, np.float64)
    features = features.reshape(len(features), -1)
    if len(features) < 3:
        raise UserError(f"similarities of tasks need at least 3 images, not {len(features)}: give more")
    if not np.isfinite(features).all():
        raise UserError(f"the features of {int((~np.isfinite(features)).any(1).sum())} of {len(features)} images are not finite")
    vectors = features - features.mean(0) if centre else features
    vectors = vectors - vectors.mean(1, keepdims=True)
    lengths = np.sqrt(np.square(vectors).sum(1, keepdims=True))
    # What is left of equal numbers is round-off of their size, not zero.
    constant = lengths <= 1e-12 * np.abs(features).max() * math.sqrt(features.shape[1])
    if constant.any():
        warnings.warn(f"{int(constant.sum())} of {len(features)} images have constant features", RuntimeWarning, stacklevel=2)
    unit = np.where(constant, 0, vectors / np.where(constant, 1, lengths))
    result = np.clip(1 - unit @ unit.T, 0, 2)
    np.fill_diagonal(result, 0)
    return result


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two dissimilarity matrices below their diagonals, ties by average rank (RSA; SOKA's S).

    Args:
        a: [n, n] symmetric.
        b: [n, n] of the same images in the same order.

    Returns:
        In [-1, 1]; 0 where one side finds all pairs equally unlike.

    Raises:
        UserError: different numbers of images.
    """
    if np.shape(a) != np.shape(b):
        raise UserError(f"dissimilarities of {len(a)} and of {len(b)} images do not compare: take both over the same images")
    return _correlation(_ranks(a), _ranks(b))


def similarities(features: Mapping[str, np.ndarray], centre: bool = True) -> dict[str, dict[str, float]]:
    """The similarity of every two tasks.

    Args:
        features: task -> [n, ...] of its teacher, the same images in the same order everywhere; widths may differ.
        centre: as in `dissimilarities`.

    Returns:
        task -> task -> similarity: symmetric, 1 on the diagonal, tasks in the order given. Ready for JSON.

    Raises:
        UserError: as `dissimilarities`, with the task's name; tasks with different numbers of images.
    """
    if len(counts := {len(f) for f in features.values()}) > 1:
        raise UserError(f"the tasks have features of different numbers of images ({', '.join(map(str, sorted(counts)))}): take the same")
    ranks = {}
    for task, values in features.items():
        try:
            ranks[task] = _ranks(dissimilarities(values, centre))
        except UserError as error:
            raise UserError(f"task {task!r}: {error}") from error
    return {i: {j: 1.0 if i == j else _correlation(ranks[i], ranks[j]) for j in ranks} for i in ranks}


def auxiliary(similarities: Similarities, targets: Sequence[str], rule: str = "sum", delta: float | None = None) -> str | None:
    """The task whose teacher helps with the targets, if they are so unlike that they need help (SOKA, spec S1).

    Gate: the targets' mean pairwise similarity is below delta. Candidates are all other tasks x; with S_ij that mean, one is fit

    * `sum`: if its mean similarity to the targets is above S_ij; for two targets S_ix + S_jx > 2 S_ij, what the paper's printed condition
      reduces to once its second fraction is read with (j, x);
    * `both`: if its similarity to every target is above S_ij;
    * `first`: if its similarity to the first target is above S_ij: the condition as printed.

    Args:
        similarities: task -> task -> similarity, symmetric.
        targets: two tasks or more.
        rule: `sum`, `both` or `first`.
        delta: None takes the median over all pairs of different tasks (spec S1; the paper gives no number).

    Returns:
        Of those that are fit the one of the largest sum of similarities to the targets, a tie to the name that sorts first; None if the
        gate is closed or none is fit.

    Raises:
        UserError: fewer than two targets, unknown tasks, an unknown rule.
    """
    one_of("auxiliary rule", rule, AUXILIARY_RULES)
    candidates = _candidates(similarities, targets)
    mean = statistics.fmean(similarities[i][j] for i, j in itertools.combinations(targets, 2))
    if delta is None:
        delta = statistics.median(similarities[i][j] for i, j in itertools.combinations(similarities, 2))
    if mean >= delta:
        return None

    def fit(x: str) -> bool:
        to_targets = [similarities[i][x] for i in targets]
        return {"sum": statistics.fmean(to_targets), "both": min(to_targets), "first": to_targets[0]}[rule] > mean

    return next((x for x in candidates if fit(x)), None)


def strongest(similarities: Similarities, targets: Sequence[str]) -> str:
    """The task most like the targets by the sum of similarities, whatever they are to each other (SOKA table 4's strong auxiliary).

    Args:
        similarities: as in `auxiliary`, like `targets`.

    Returns:
        A task that is no target; a tie goes to the name that sorts first.

    Raises:
        UserError: fewer than two targets, unknown tasks, no other task.
    """
    return _others(similarities, targets)[0]


def weakest(similarities: Similarities, targets: Sequence[str]) -> str:
    """The task least like the targets: SOKA table 4's weak auxiliary. Otherwise as `strongest`, ties included."""
    return _others({i: {j: -s for j, s in row.items()} for i, row in similarities.items()}, targets)[0]


def _others(similarities: Similarities, targets: Sequence[str]) -> list[str]:
    if not (candidates := _candidates(similarities, targets)):
        raise UserError(f"no auxiliary can be taken: the pool knows no task besides {', '.join(targets)}; add a teacher")
    return candidates


def _candidates(similarities: Similarities, targets: Sequence[str]) -> list[str]:
    """All tasks but the targets, the largest sum of similarities to them first."""
    if unknown := [t for t in targets if t not in similarities]:
        raise UserError(f"there are no similarities for task {unknown[0]!r}: {did_you_mean(unknown[0], similarities)}")
    if len(set(targets)) < 2 or len(set(targets)) < len(targets):
        raise UserError(f"an auxiliary is chosen for two or more different tasks, not for {', '.join(targets) or 'none'}: name each once")
    # math.fsum: the order in which targets are named cannot decide a tie.
    return sorted((x for x in similarities if x not in targets), key=lambda x: (-math.fsum(similarities[i][x] for i in targets), x))


def _ranks(dissimilarities: np.ndarray) -> np.ndarray:
    """Average ranks of the entries below the diagonal, centred, of length 1 (or 0 if all are equal): correlations are products."""
    values = np.asarray(dissimilarities)[np.tril_indices(len(dissimilarities), -1)]
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    ranks -= ranks.mean()
    length = np.sqrt(np.square(ranks).sum())
    return ranks / length if length > 0 else ranks


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.clip(a @ b, -1, 1))


def _streams(losses: Losses) -> list[str]:
    return list(next(iter(losses.values())))
