"""The step function of a phase: all its updates on one batch, in one graph."""

from collections.abc import Callable

import keras
import tensorflow as tf

from amalgam_tf.training.phase import Batch, Update


def step_function(
    updates: list[Update], made: list[keras.optimizers.Optimizer], strategy: tf.distribute.Strategy, jit_compile: bool = False
) -> Callable[[Batch], dict[str, tf.Tensor]]:
    """One tf.function that does all updates of a phase on one batch and returns the measurements, averaged over replicas.

    Args:
        updates: of the phase, in order.
        made: their optimizers.
        strategy: what the batch is distributed over.
        jit_compile: compile with XLA: for one GPU; on CPUs its convolutions are 8 to 21 times slower.
    """

    def replica_step(batch):
        batch, measured = dict(batch), {}  # a copy: an update may leave what it made for the next one
        for update, optimizer in zip(updates, made, strict=True):
            gradients, values = _gradients(update, optimizer, batch, strategy.num_replicas_in_sync)
            optimizer.apply(gradients, update.trains)
            measured |= values if len(updates) == 1 else {f"{update.name}/{k}": v for k, v in values.items()}
        return {k: tf.cast(v, tf.float32) for k, v in measured.items()}

    @tf.function(autograph=False, jit_compile=jit_compile or None)
    def step(batch):
        return {k: strategy.reduce("MEAN", v, axis=None) for k, v in strategy.run(replica_step, (batch,)).items()}

    return step


def _gradients(update: Update, optimizer: keras.optimizers.Optimizer, batch: Batch, replicas: int):
    if update.gradient is not None:
        gradients, values = update.gradient(batch)
        return [optimizer.scale_loss(g) for g in gradients], values  # float16: the optimizer divides by its scale
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([v.value for v in update.trains])
        loss, values = update.loss(batch)
        # Keras SUMS gradients over replicas: the loss is a mean over one replica's equal share of the batch.
        scaled = optimizer.scale_loss(tf.cast(loss, tf.float32) / replicas)
    gradients = tape.gradient(scaled, [v.value for v in update.trains])
    if missing := [v.path for v, g in zip(update.trains, gradients, strict=True) if g is None]:
        raise ValueError(f"update {update.name!r}: the loss does not depend on {missing[:5]}")
    return gradients, {"loss": loss, **values}
