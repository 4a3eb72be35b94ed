"""Losses inside networks: Customize's features behind bridges, bridges' filters, logits with a learned scale; SOKA's representations."""

import tensorflow as tf

from amalgam_tf.errors import one_of

SCALED = ("student", "teacher", "none")
REPRESENTATIONS = ("mse", "l2norm_mse", "sp")


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


def representation(*, student: tf.Tensor, target: tf.Tensor, kind: str = "mse") -> tf.Tensor:
    """How far a student's features are from the teachers' aggregated ones (SOKA eqs. 3 and 4, spec S3).

    * `mse`: the mean squared difference over all elements (eq. 3; the sum would drown the soft losses).
    * `l2norm_mse`: the squared distance of the two feature vectors of an image, each scaled to length 1: 2 - 2 cos, in [0, 4]. That is
      the mean squared difference of vectors of mean square 1, so of the scale of `mse`; not divided by the number of elements again.
    * `sp`: which images are alike (Similarity-Preserving KD, what the text describes): G = A A^T over the batch, rows scaled to length 1;
      an image's value is the squared distance of its two rows / batch, so that the MEAN over the batch is ||G_S - G_T||_F^2 / batch^2.
      With several devices a batch is what one of them sees.

    Features that are all zero stay so where others are scaled, and get no gradient by it.

    Args:
        student: [batch, ...].
        target: the same shape; it gets gradients too, by which an aggregation learns.
        kind: `mse`, `l2norm_mse` or `sp`.

    Returns:
        [batch]; squares of the features' unit for `mse`, no unit otherwise.

    Raises:
        UserError: another kind.
        ValueError: different shapes.
    """
    one_of("representation loss", kind, REPRESENTATIONS)
    if kind == "mse":
        return transfer(student=student, teacher=target)
    student, target = tf.cast(student, tf.float32), tf.cast(target, tf.float32)
    student.shape.assert_is_compatible_with(target.shape)
    pair = [tf.reshape(x, (tf.shape(x)[0], -1)) for x in (student, target)]
    if kind == "l2norm_mse":
        return tf.reduce_sum(tf.math.squared_difference(*map(_unit, pair)), -1)
    grams = [_unit(tf.matmul(x, x, transpose_b=True)) for x in pair]
    return tf.reduce_mean(tf.math.squared_difference(*grams), -1)


def _unit(rows: tf.Tensor) -> tf.Tensor:
    """[rows, n] scaled to length 1; a row of zeros stays one, with a gradient of zero."""
    squares = tf.reduce_sum(rows**2, -1, keepdims=True)
    dead = squares <= 1e-30
    return tf.where(dead, 0.0, rows * tf.math.rsqrt(tf.where(dead, 1.0, squares)))
