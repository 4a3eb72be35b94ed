"""Losses: pure, keyword-only, one value an example, float32 inside, finite for logits of +-200.

Distillation losses take the teacher's LOGITS; no gradient reaches them.
"""

import tensorflow as tf

from amalgam_tf.errors import one_of

SCALED = ("student", "teacher", "none")


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


def transfer(*, student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of two features, ||Fs - Ft||^2 / (C H W) (CUST eq. 2).

    Args:
        student: [batch, height, width, channels] behind its bridge.
        teacher: the same shape, behind its own. Gradients reach both sides: the teacher's bridge is trained as well.

    Returns:
        [batch], in squares of the features' unit.

    Raises:
        ValueError: different shapes, which would be spread over each other silently.
    """
    student, teacher = tf.cast(student, tf.float32), tf.cast(teacher, tf.float32)
    student.shape.assert_is_compatible_with(teacher.shape)
    return tf.reduce_mean(tf.math.squared_difference(student, teacher), range(1, student.shape.rank))


def unit_filters(*, kernel: tf.Tensor) -> tf.Tensor:
    """How far the filters of a bridge are from unit length, (1 / C_out) sum_j (sum_i w_ij^2 - 1)^2 (CUST eq. 4, which relaxes eq. 3).

    Args:
        kernel: [1, 1, in, out] of a 1x1 convolution; a filter is all that makes one OUTPUT channel.

    Returns:
        scalar, 0 where every filter has length 1.
    """
    kernel = tf.cast(kernel, tf.float32)
    return tf.reduce_mean((tf.reduce_sum(kernel**2, range(kernel.shape.rank - 1)) - 1) ** 2)


def soft_target(*, logits: tf.Tensor, teacher_logits: tf.Tensor, scale: tf.Tensor | float = 1.0, scaled: str = "student") -> tf.Tensor:
    """Mean squared difference of logits, one side of it times a learned scale (CUST eq. 7, spec C4).

    `student`: ||m s - t||^2 / C, which cannot collapse; `teacher`: ||s - m t||^2 / C, as printed, which m = 0 and s = 0 minimise;
    `none`: ||s - t||^2 / C.

    Args:
        logits: [batch, outputs] of the student.
        teacher_logits: [batch, outputs]; no gradient reaches them.
        scale: m, a scalar; it gets a gradient unless `scaled` is `none`, where it is not used.
        scaled: `student`, `teacher` or `none`.

    Returns:
        [batch], in squares of logits.

    Raises:
        UserError: another side.
        ValueError: different shapes.
    """
    one_of("scale", scaled, SCALED)
    logits, teacher_logits = tf.cast(logits, tf.float32), tf.stop_gradient(tf.cast(teacher_logits, tf.float32))
    logits.shape.assert_is_compatible_with(teacher_logits.shape)
    scale = tf.cast(scale, tf.float32)
    student = scale * logits if scaled == "student" else logits
    teacher = scale * teacher_logits if scaled == "teacher" else teacher_logits
    return tf.reduce_mean(tf.math.squared_difference(student, teacher), -1)
