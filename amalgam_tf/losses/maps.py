"""Losses of maps: what a network writes for every pixel against a teacher's maps or the truth, which no gradient reaches."""

import tensorflow as tf

from amalgam_tf.errors import UserError


def map_difference(*, prediction: tf.Tensor, target: tf.Tensor, mask: tf.Tensor | None = None, power: int = 2) -> tf.Tensor:
    """Mean |p - t|^power over the valid pixels and all channels (power 2: SOKA eq. 5, spec S17; power 1: the task bank's L1).

    Args:
        prediction: [batch, height, width, channels], in the range of the task's code.
        target: the same shape: a teacher's maps, which are valid everywhere, or the truth, with any numbers where it is unknown.
        mask: [batch, height, width], above 0 where the target is known; everywhere by default.
        power: 1 or 2.

    Returns:
        [batch]; 0 for an image without a valid pixel.

    Raises:
        UserError: another power.
        ValueError: different shapes, which would be spread over each other silently.
    """
    if power not in (1, 2):
        raise UserError(f"the difference of maps cannot be taken to the power {power}: choose 1 or 2")
    prediction, target = tf.cast(prediction, tf.float32), tf.stop_gradient(tf.cast(target, tf.float32))
    prediction.shape.assert_is_compatible_with(target.shape)
    known = tf.ones(tf.shape(prediction)[:3], tf.bool) if mask is None else tf.convert_to_tensor(mask) > 0
    known.shape.assert_is_compatible_with(prediction.shape[:3])
    # Before the power: what is unknown may be NaN or infinite, and 0 times that is no 0, neither here nor in the gradient.
    off = tf.where(known[..., None], prediction - target, 0.0)
    each = tf.reduce_mean(tf.abs(off) if power == 1 else off**2, -1)
    return tf.math.divide_no_nan(tf.reduce_sum(each, (1, 2)), tf.reduce_sum(tf.cast(known, tf.float32), (1, 2)))
