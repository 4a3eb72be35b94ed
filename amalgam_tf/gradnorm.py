"""GradNorm: weights of several losses, so moved that all tasks train at a like pace (Chen et al. 2018; SOKA eq. 7, spec S4, S5).

What is balanced are the gradients that the weighted losses have at W, the last layer all tasks share: G_i = w_i n_i, n_i = ||grad_W L_i||.
Since G_i is that simple in w_i, and its target counts as a constant, the gradient of the balancing loss has a closed form: no second
derivatives are taken. What is not finite stays so, for the training to stop at.

In a step: one persistent tape, `norm(tape.gradient(L_i, W))` a task, `gradient(...)` handed to an optimizer of the weights' own (no weight
decay: it would be a second force on them), whose variable carries a `Simplex`.

With several devices the gradients are to be summed over them before `norm`: the norm of a sum is not the sum of norms.
"""

import keras
import tensorflow as tf

from amalgam_tf.errors import UserError

# Nearer than this, as a share of the target, a norm has reached it: the sign of a rounding error would move the weights by a whole step.
ROUND_OFF = 1e-6
_SMALLEST = 1e-12


def gradient(
    *, weights: tf.Tensor, norms: tf.Tensor, losses: tf.Tensor, initial_losses: tf.Tensor, exponent: float = 1.5, squared: bool = False
) -> tf.Tensor:
    """The gradient of the balancing loss with regard to the weights: sign(G_i - c_i) dG_i / dw_i (SOKA eq. 7).

    Args:
        weights: [tasks] w_i, >= 0.
        norms: [tasks] ||grad_W L_i|| of the losses WITHOUT weights, >= 0 (`norm`).
        losses: [tasks] L_i, >= 0, of the same batch.
        initial_losses: [tasks] L_i(0); one below 1e-12 counts as 1e-12.
        exponent: a, how strongly a slow task is favoured; 0 asks for equal norms only.
        squared: take squared norms, G_i = w_i^2 n_i^2, as the formula prints them (spec S5).

    Returns:
        [tasks], float32; 0 where a norm is its target up to round-off. A negative entry makes its weight grow.

    Raises:
        UserError: a negative exponent.
    """
    weights, norms = _floats(weights), _floats(norms)
    reached, target = _norms_and_targets(weights, norms, losses, initial_losses, exponent, squared)
    off = reached - target
    direction = tf.where(tf.abs(off) <= ROUND_OFF * tf.maximum(target, reached), 0.0, tf.sign(off))
    return direction * (2 * weights * norms**2 if squared else norms)


def objective(
    *, weights: tf.Tensor, norms: tf.Tensor, losses: tf.Tensor, initial_losses: tf.Tensor, exponent: float = 1.5, squared: bool = False
) -> tf.Tensor:
    """The balancing loss itself, L_grad = sum_i |G_i - c_i| with c_i = mean(G) r_i^a constant (SOKA eq. 7). For the log.

    Args:
        weights: as all others, see `gradient`.

    Returns:
        scalar >= 0, in the unit of the norms (of their squares if `squared`).

    Raises:
        UserError: a negative exponent.
    """
    reached, target = _norms_and_targets(_floats(weights), _floats(norms), losses, initial_losses, exponent, squared)
    return tf.reduce_sum(tf.abs(reached - target))


def norm(gradient: tf.Tensor) -> tf.Tensor:
    """Euclidean length of all numbers of a gradient: a scalar, float32, also where their squares would leave float32's range."""
    values = _floats(gradient)
    largest = tf.reduce_max(tf.abs(values))
    scale = tf.where(largest > 0, largest, 1.0)
    return scale * tf.sqrt(tf.reduce_sum((values / scale) ** 2))


def _norms_and_targets(
    weights: tf.Tensor, norms: tf.Tensor, losses: tf.Tensor, initial_losses: tf.Tensor, exponent: float, squared: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """G_i and mean(G) r_i^a, [tasks] each; r_i, a task's share of its initial loss against the mean of all, is large for a slow task."""
    if not exponent >= 0:
        raise UserError(f"gradnorm.exponent cannot be {exponent}: set it to 0 (equal norms) or more")
    left = _floats(losses) / tf.maximum(_floats(initial_losses), _SMALLEST)
    mean = tf.reduce_mean(left)
    # With nothing left to learn anywhere no task is slower than another.
    rate = tf.where(mean <= 0, 1.0, left / tf.where(mean <= 0, 1.0, mean))
    reached = weights * norms
    reached = reached**2 if squared else reached
    return reached, tf.stop_gradient(tf.reduce_mean(reached) * rate**exponent)


@keras.saving.register_keras_serializable("amalgam_tf")
class Simplex(keras.constraints.Constraint):
    """Keeps weights at or above a floor and their sum at a total (SOKA: 1; GradNorm: the number of tasks).

    Weights below the floor are lifted to it; then not the weights are rescaled, which would push those at the floor below it again, but
    what each has ABOVE the floor. So both hold afterwards, up to round-off: the sum is the total, and no weight is below the floor. Weights
    that fulfil both stay as they are; of others that are all well above the floor the proportions change by no more than about the
    floor's share. If nothing is above the floor all become equal.

    The floor is there because GradNorm's steps have the length of a norm wherever its target is: they overshoot, also below zero.

    Args:
        total: > 0.
        floor: >= 0.

    Raises:
        UserError: values out of range; on the first call, more weights than the total has floors.
    """

    def __init__(self, total: float = 1.0, floor: float = 1e-3):
        if not (total > 0 and floor >= 0):
            raise UserError(f"weights cannot have the sum {total} and the floor {floor}: the sum must be above 0, the floor 0 or more")
        self.total, self.floor = float(total), float(floor)

    def __call__(self, weights):
        weights = tf.convert_to_tensor(weights)
        count = weights.shape.num_elements()
        spare = self.total - count * self.floor
        if not spare > 0:
            raise UserError(f"{count} weights of at least {self.floor} cannot have the sum {self.total}: lower the floor")
        above = tf.maximum(weights - self.floor, 0)
        taken = tf.reduce_sum(above)
        shares = tf.where(taken <= 0, tf.ones_like(weights) / count, above / tf.where(taken <= 0, tf.ones_like(taken), taken))
        return self.floor + spare * shares

    def get_config(self):
        return {"total": self.total, "floor": self.floor}


def _floats(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)
