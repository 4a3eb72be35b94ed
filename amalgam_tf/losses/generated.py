"""Losses of a generator that sees no data: what a teacher says of a generated image must look like what it says of real ones.

One-hot, activation and information-entropy losses are DAFL's (Chen et al., ICCV 2019) in their own form for categories and in those
of DGAN for several labels; the discrete loss is DGAN's. Labels of several teachers are compared as one concatenated vector.
"""

import tensorflow as tf

from amalgam_tf.errors import one_of
from amalgam_tf.losses.labels import binary_cross_entropy, categorical_cross_entropy, distillation

PSEUDO = ("probability", "logit", "at_least_one")
DISCRETE = ("plus_prob", "minus_logit", "minus_prob", "off")
ENTROPY = ("label_freq", "bernoulli", "softmax")
_FLOOR = 1e-6  # of a label's frequency: a label that never occurs has a finite gradient


def pseudo_labels(*, logits: tf.Tensor, of: str = "probability") -> tf.Tensor:
    """What the teacher takes for present, t = 1[y >= 0.5] (DGAN eq. 6).

    Args:
        logits: [batch, labels].
        of: y is the `probability` (so the logit is compared with 0), or the raw output, the `logit`, as the equation is printed.
            `at_least_one` (not DGAN's): by the probability, and besides the label that is most probable of all, as in DAFL, whose images
            always show one; without it no label at all is an answer that one-hot and discrete loss like best (spec G1).

    Returns:
        [batch, labels], 0 or 1; no gradient passes.

    Raises:
        UserError: another word.
    """
    one_of("pseudo", of, PSEUDO)
    logits = tf.cast(logits, tf.float32)
    present = tf.cast(logits >= (0.5 if of == "logit" else 0.0), tf.float32)
    if of == "at_least_one":
        present = tf.maximum(present, tf.one_hot(tf.argmax(logits, -1), logits.shape[-1]))
    return tf.stop_gradient(present)


def one_hot(*, logits: tf.Tensor, of: str = "probability") -> tf.Tensor:
    """Cross-entropy against the teacher's own pseudo-labels, mean over labels (DGAN eq. 7): how undecided it is.

    Args:
        logits: [batch, labels].
        of: as in `pseudo_labels`.

    Returns:
        [batch], nats.
    """
    return binary_cross_entropy(logits=logits, labels=pseudo_labels(logits=logits, of=of))


def categorical_one_hot(*, logits: tf.Tensor) -> tf.Tensor:
    """The same for one category task: cross-entropy against the most probable class (DAFL): [batch, classes] -> [batch], nats."""
    return categorical_cross_entropy(logits=logits, labels=tf.stop_gradient(tf.argmax(logits, -1)))


def discrete(*, logits: tf.Tensor, reading: str = "plus_prob") -> tf.Tensor:
    """The discrete loss, mean over labels (DGAN eq. 8), in one of its readings (spec G1).

    Args:
        logits: [batch, labels].
        reading: `plus_prob`: + mean probability, few labels an image, as the paper's text says; `minus_logit`: - mean |logit|, sure
            outputs, and `minus_prob`: - mean probability, many labels, both with the printed sign; `off`: 0.

    Returns:
        [batch]: probabilities, or logits for `minus_logit`.

    Raises:
        UserError: another reading.
    """
    one_of("gen.dis", reading, DISCRETE)
    logits = tf.cast(logits, tf.float32)
    if reading == "off":
        return tf.zeros_like(logits[:, 0])
    if reading == "minus_logit":
        return -tf.reduce_mean(tf.abs(logits), -1)
    return (1.0 if reading == "plus_prob" else -1.0) * tf.reduce_mean(tf.sigmoid(logits), -1)


def activation(*, features: tf.Tensor) -> tf.Tensor:
    """Minus the mean size of the features in front of the last layer (DAFL; DGAN spec G8): [batch, features] -> [batch]."""
    return -tf.reduce_mean(tf.abs(tf.cast(features, tf.float32)), -1)


def label_probabilities(*, logits: tf.Tensor, form: str) -> tf.Tensor:
    """The probabilities whose batch mean `information_entropy` reads, example by example: [batch, labels] -> [batch, labels].

    Raises:
        UserError: another form.
    """
    one_of("gen.ie", form, ENTROPY)
    logits = tf.cast(logits, tf.float32)
    return tf.nn.softmax(logits) if form == "softmax" else tf.sigmoid(logits)


def information_entropy(*, frequencies: tf.Tensor, form: str = "label_freq") -> tf.Tensor:
    """How unevenly a whole batch uses the labels; small is even (DAFL; for several labels DGAN spec G3).

    Args:
        frequencies: [labels], the mean of `label_probabilities` over the GLOBAL batch (`batch_mean`).
        form: which evenness. `label_freq`: sum_c q_c ln q_c of q = p / sum p, all labels alike often, however often; `bernoulli`: minus
            the mean over labels of the entropy of p_c, every label in half of the images; `softmax`: sum_c p_c ln p_c, DAFL's own,
            labels that exclude each other.

    Returns:
        scalar, nats: from -ln(labels) (`bernoulli`: -ln 2) to 0. Finite, and so are its gradients, where a label never occurs.

    Raises:
        UserError: another form.
    """
    one_of("gen.ie", form, ENTROPY)
    p = tf.cast(frequencies, tf.float32) + _FLOOR
    if form == "bernoulli":
        p = tf.minimum(p, 1 - _FLOOR)
        return tf.reduce_mean(p * tf.math.log(p) + (1 - p) * tf.math.log(1 - p))
    q = p / tf.reduce_sum(p)
    return tf.reduce_sum(q * tf.math.log(q))


def agreement(*, head: str, logits: tf.Tensor, targets: tf.Tensor, stop_gradient: bool = True) -> tf.Tensor:
    """Cross-entropy of one stream between what a teacher says of a feature and of the image (DGAN eq. 12, second term).

    Args:
        head: of the task.
        logits: [batch, outputs] from the feature.
        targets: [batch, outputs] from the image.
        stop_gradient: the image is what the feature has to follow; otherwise it may move towards the feature too (spec G7).

    Returns:
        [batch], nats.
    """
    if stop_gradient:
        return distillation(head=head, logits=logits, teacher_logits=targets)
    logits, targets = tf.cast(logits, tf.float32), tf.cast(targets, tf.float32)
    if head == "sigmoid":
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.sigmoid(targets), logits=logits)[:, 0]
    return -tf.reduce_sum(tf.nn.softmax(targets) * tf.nn.log_softmax(logits), -1)


def disagreement(*, logits: tf.Tensor, teacher_logits: tf.Tensor) -> tf.Tensor:
    """Minus the mean distance of a student's logits from the teacher's, which a generator makes small to find what the student does not
    know (adversarial term of DAFL's follow-ups, not DGAN's).

    Args:
        logits: [batch, outputs].
        teacher_logits: [batch, outputs]; gradients reach both sides.

    Returns:
        [batch], in logits.
    """
    return -tf.reduce_mean(tf.abs(tf.cast(logits, tf.float32) - tf.cast(teacher_logits, tf.float32)), -1)


def statistics_distance(*, mean: tf.Tensor, variance: tf.Tensor, stored_mean: tf.Tensor, stored_variance: tf.Tensor) -> tf.Tensor:
    """How far the batch's statistics in front of a batch norm are from those it stores, mean over channels (spec section 6, not DGAN's).

    The squared Wasserstein distance of the two normal distributions in units of the stored variance: the same weight fits layers of
    any scale.

    Args:
        mean: [channels], over the GLOBAL batch (`batch_mean`).
        variance: [channels], likewise.
        stored_mean: [channels].
        stored_variance: [channels].

    Returns:
        scalar, 0 where they agree; finite for channels that are constant.
    """
    mean, variance, stored_mean, stored_variance = (tf.cast(x, tf.float32) for x in (mean, variance, stored_mean, stored_variance))
    scale = tf.sqrt(stored_variance + 1e-5)
    spread = tf.sqrt(tf.maximum(variance, 0.0) + 1e-5)
    return tf.reduce_mean(((mean - stored_mean) / scale) ** 2 + (spread / scale - 1) ** 2)


def batch_mean(values: tf.Tensor) -> tf.Tensor:
    """The mean of values [batch, ...] over the batches of all replicas, float32 [...]; gradients reach every replica's share."""
    mean = tf.reduce_mean(tf.cast(values, tf.float32), 0)
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return mean
    return replica.all_reduce(tf.distribute.ReduceOp.MEAN, mean)
