"""Losses of logits against labels and against a teacher's LOGITS, which no gradient reaches."""

import tensorflow as tf


def binary_cross_entropy(*, logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Sigmoid cross-entropy, mean over the labels that are known (AFK eq. 2).

    Args:
        logits: [batch, labels].
        labels: [batch, labels], 0 or 1, or probabilities.
        mask: [batch, labels], 1 where the truth is known (spec A2); all by default.

    Returns:
        [batch], nats; 0 for an example of which nothing is known.
    """
    logits, labels = tf.cast(logits, tf.float32), tf.cast(labels, tf.float32)
    values = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    mask = tf.ones_like(values) if mask is None else tf.cast(mask, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(values * mask, -1), tf.reduce_sum(mask, -1))


def categorical_cross_entropy(*, logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Softmax cross-entropy against class indices.

    Args:
        logits: [batch, classes].
        labels: [batch] class indices; any number where the mask is 0.
        mask: [batch], 1 where the truth is known; all by default.

    Returns:
        [batch], nats; 0 where masked.
    """
    mask = tf.ones(tf.shape(labels)[:1]) if mask is None else tf.cast(mask, tf.float32)
    safe = tf.where(mask > 0, tf.cast(labels, tf.int32), 0)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=safe, logits=tf.cast(logits, tf.float32)) * mask


def binary_distillation(*, logits: tf.Tensor, teacher_logits: tf.Tensor, hard: bool = False) -> tf.Tensor:
    """Cross-entropy of a student against a teacher's probabilities, label by label (AFK eq. 7, spec A8).

    Args:
        logits: [batch, labels] of the student.
        teacher_logits: [batch, labels].
        hard: round the teacher's probabilities at 0.5 first.

    Returns:
        [batch, labels], nats. At `logits == teacher_logits` this is the teacher's entropy and the gradient is zero.
    """
    target = tf.stop_gradient(tf.sigmoid(tf.cast(teacher_logits, tf.float32)))
    target = tf.cast(target > 0.5, tf.float32) if hard else target
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=tf.cast(logits, tf.float32))


def categorical_distillation(*, logits: tf.Tensor, teacher_logits: tf.Tensor, hard: bool = False) -> tf.Tensor:
    """Cross-entropy of a student's softmax against a teacher's, or against the teacher's winning class.

    Args:
        logits: [batch, classes] of the student.
        teacher_logits: [batch, classes].
        hard: take the teacher's most probable class for certain.

    Returns:
        [batch], nats.
    """
    teacher_logits = tf.cast(teacher_logits, tf.float32)
    target = tf.one_hot(tf.argmax(teacher_logits, -1), teacher_logits.shape[-1]) if hard else tf.nn.softmax(teacher_logits)
    return tf.nn.softmax_cross_entropy_with_logits(labels=tf.stop_gradient(target), logits=tf.cast(logits, tf.float32))


def distillation(*, head: str, logits: tf.Tensor, teacher_logits: tf.Tensor, hard: bool = False) -> tf.Tensor:
    """Distillation of one task by its head (`sigmoid`, `softmax2` or `softmax`): [batch, outputs] twice -> [batch]."""
    if head == "sigmoid":
        return binary_distillation(logits=logits, teacher_logits=teacher_logits, hard=hard)[:, 0]
    return categorical_distillation(logits=logits, teacher_logits=teacher_logits, hard=hard)


def supervised(*, head: str, logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Supervised cross-entropy of one task by its head: [batch, outputs], [batch], [batch] -> [batch]; 0 where masked."""
    if head == "sigmoid":
        return binary_cross_entropy(logits=logits, labels=labels[:, None], mask=mask[:, None])
    return categorical_cross_entropy(logits=logits, labels=labels, mask=mask)
