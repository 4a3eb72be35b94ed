"""Optimizers from config: schedule in steps, coupled L2, a learning-rate factor per variable.

A Keras 3 optimizer belongs to one variable list, so every update gets its own, built here (inside the strategy's scope).
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import keras
import tensorflow as tf

from amalgam_tf.errors import UserError, one_of

KEYS = {
    "name",
    "learning_rate",
    "momentum",
    "weight_decay",
    "schedule",
    "power",
    "milestones",
    "warmup_steps",
    "head_multiplier",
    "begin_step",
    "all_steps",
    "beta_1",
}

SCHEDULES = ("constant", "poly", "cosine", "halve")
MILESTONES = (0.25, 0.5, 0.75)  # of `halve`, if a config names none


def schedule(spec: Mapping[str, Any], steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Learning rate as a function of the update's own step.

    Args:
        spec: `learning_rate` (start value), `schedule`: `constant`, `poly` (to 0 with exponent `power`, AFK: 0.9), `cosine` (to 0) or
            `halve` (by half at each of `milestones`, shares of the phase in (0, 1]; Customize, spec C8); `warmup_steps` of linear rise
            before it. `begin_step` and `all_steps` make the phase a stretch of one longer schedule (AFK's single schedule over all
            blocks, spec A6).
        steps: length of the phase; the decay ends there unless `all_steps` is longer.

    Raises:
        UserError: an unknown schedule, or milestones that are no shares.
    """
    kind, rate, power = spec.get("schedule", "poly"), spec["learning_rate"], spec.get("power", 0.9)
    one_of("optimizer.schedule", kind, SCHEDULES)
    _check_milestones(spec, "optimizer")
    begin, whole = int(spec.get("begin_step", 0)), int(spec.get("all_steps", 0)) or int(steps)
    milestones = tuple(float(m) for m in spec.get("milestones", MILESTONES)) if kind == "halve" else ()
    return Decay(kind, float(rate), float(power), whole, int(spec.get("warmup_steps", 0)), begin, milestones)


def _check_milestones(spec: Mapping[str, Any], section: str) -> None:
    found = spec.get("milestones", MILESTONES)
    if not all(isinstance(m, int | float) and 0 < m <= 1 for m in found):
        raise UserError(f"{section}.milestones must be shares of the phase, each above 0 and at most 1, not {tuple(found)}")


def check(spec: Mapping[str, Any], section: str) -> None:
    """Finds what `build` would refuse, before anything is trained.

    Args:
        spec: as in `build`.
        section: of the config, for the sentence.

    Raises:
        UserError: unknown name, schedule or key, or milestones that are no shares.
    """
    if unknown := set(spec) - KEYS:
        raise UserError(f"unknown optimizer setting {', '.join(sorted(unknown))}: the known ones are {', '.join(sorted(KEYS))}")
    one_of(f"{section}.name", spec["name"], ("sgd", "adam"))
    one_of(f"{section}.schedule", spec.get("schedule", "poly"), SCHEDULES)
    _check_milestones(spec, section)


@keras.saving.register_keras_serializable("amalgam_tf")
class Decay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a constant rate or poly, cosine or halving decay up to `steps`.

    The optimizer's step 0 is step `begin_step` of it; `milestones` are the shares of the decay at which `halve` halves the rate.
    """

    def __init__(
        self,
        kind: str,
        rate: float,
        power: float,
        steps: int,
        warmup_steps: int,
        begin_step: int = 0,
        milestones: Sequence[float] = (),
    ):
        self.kind, self.rate, self.power, self.steps, self.warmup_steps = kind, rate, power, steps, warmup_steps
        self.begin_step, self.milestones = begin_step, tuple(milestones)

    def __call__(self, step):
        ops = keras.ops
        step = ops.cast(step, "float32") + self.begin_step
        decay = max(1, self.steps - self.warmup_steps)
        left = ops.clip(1 - (step - self.warmup_steps) / decay, 0.0, 1.0)
        # counted in whole steps: 1 - 5 / 50 and 0.9 need not be the same float32
        passed = sum((ops.cast(step >= self.warmup_steps + round(m * decay), "float32") for m in self.milestones), 0.0 * left)
        shape = {
            "constant": left * 0 + 1,
            "poly": left**self.power,
            "cosine": 0.5 - 0.5 * ops.cos(math.pi * left),
            "halve": 0.5**passed,
        }[self.kind]
        rise = ops.minimum((step + 1) / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        return self.rate * shape * rise

    def get_config(self):
        return {k: getattr(self, k) for k in ("kind", "rate", "power", "steps", "warmup_steps", "begin_step", "milestones")}


class _Coupled:
    """Adds, per variable, coupled L2 (gradient + decay * kernel) and a factor on the learning rate to a Keras optimizer."""

    def prepare(self, variables: Sequence[keras.Variable], decay: float, heads: Sequence[keras.Variable], factor: float) -> None:
        faster = {id(v) for v in heads}  # by identity: paths repeat among copies of one network
        self._decays = [decay if len(v.shape) > 1 else 0.0 for v in variables]  # kernels only: no biases, no batch norm
        self._factors = [factor if id(v) in faster else 1.0 for v in variables]
        self.build(variables)

    def update_step(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        if self._decays[i]:
            gradient = gradient + keras.ops.cast(self._decays[i] * variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate * self._factors[i])


class CoupledSGD(_Coupled, keras.optimizers.SGD):
    pass


class _FusedAdam(keras.optimizers.Adam):
    """Adam by TensorFlow's one kernel a variable, on one device: 0.4 of the time of Keras's dozen operations, equal up to round-off."""

    def update_step(self, gradient, variable, learning_rate):
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return super().update_step(gradient, variable, learning_rate)
        i, step = self._get_variable_index(variable), tf.cast(self.iterations + 1, tf.float32)
        var, m, v = (_resource(x) for x in (variable, self._momentums[i], self._velocities[i]))
        tf.raw_ops.ResourceApplyAdam(
            var=var,
            m=m,
            v=v,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )


def _resource(variable) -> tf.Tensor:
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


class CoupledAdam(_Coupled, _FusedAdam):
    pass


def build(
    spec: Mapping[str, Any],
    variables: Sequence[keras.Variable],
    *,
    steps: int,
    heads: Sequence[keras.Variable] = (),
    loss_scaling: bool = False,
) -> keras.optimizers.Optimizer:
    """An optimizer for exactly these variables, built; call inside the strategy's scope.

    Args:
        spec: `name` (`sgd` with `momentum`, or `adam`), `learning_rate`, `weight_decay`, `schedule`, `power`,
            `milestones`, `warmup_steps`, `head_multiplier`, `begin_step`, `all_steps`; `beta_1` of adam (0.9).
            With sgd the decay is the classic coupled L2 on kernels (as in the papers); with adam it is decoupled (AdamW), also on
            kernels only.
        variables: what it will train.
        steps: length of the phase.
        heads: the variables whose learning rate is multiplied by `head_multiplier`.
        loss_scaling: wrap for mixed_float16.

    Raises:
        UserError: unknown name or key.
    """
    check(spec, "optimizer")
    rate, decay = schedule(spec, steps), float(spec.get("weight_decay", 0.0))
    factor = float(spec.get("head_multiplier", 1.0))
    if spec["name"] == "sgd":
        optimizer = CoupledSGD(rate, momentum=float(spec.get("momentum", 0.9)))
        optimizer.prepare(variables, decay, heads, factor)
    else:
        optimizer = CoupledAdam(rate, beta_1=float(spec.get("beta_1", 0.9)), weight_decay=decay or None)
        if decay:
            optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) <= 1])
        optimizer.prepare(variables, 0.0, heads, factor)
    if not loss_scaling:
        return optimizer
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    scaled.build(variables)
    return scaled
