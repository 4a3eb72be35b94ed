"""Small trainable pieces between networks: AFK's teacher-level filter (a channel gate)."""

import keras
from keras import layers, ops

from amalgam_tf.errors import UserError

GATES = ("sigmoid", "two_sigmoid", "linear")


@keras.saving.register_keras_serializable("amalgam_tf")
class ChannelFilter(layers.Layer):
    """Teacher-level filter f_n^k: global average pooling, two dense layers, a gate per channel (AFK eq. 4, spec A7).

    `y = x * gate(W2 relu(W1 gap(x)))` with hidden width max(channels / reduction, 16). The second layer starts at zero
    except for the paper-literal `sigmoid`, so `two_sigmoid` (2 sigmoid(z)) and `linear` (1 + z) start as the exact
    identity, while a plain sigmoid starts near one half and halves what the frozen teacher reads.

    Shapes: [batch, height, width, channels] or [batch, channels] in, the same out.

    Args:
        gate: `sigmoid`, `two_sigmoid` or `linear`.
        reduction: channels per hidden unit.
        bias: whether the second dense layer has a bias.

    Raises:
        UserError: an unknown gate.
    """

    def __init__(self, gate: str = "two_sigmoid", reduction: int = 8, bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        if gate not in GATES:
            raise UserError(f"unknown filter gate {gate!r}: choose {', '.join(GATES)}")
        self.gate, self.reduction, self.bias = gate, reduction, bias

    def build(self, input_shape):
        channels = input_shape[-1]
        start = "glorot_uniform" if self.gate == "sigmoid" else "zeros"
        self.squeeze = layers.Dense(max(channels // self.reduction, 16), "relu", use_bias=False, dtype=self.dtype_policy, name="squeeze")
        self.excite = layers.Dense(channels, use_bias=self.bias, kernel_initializer=start, dtype=self.dtype_policy, name="excite")
        self.squeeze.build((None, channels))
        self.excite.build((None, self.squeeze.units))
        self.built = True

    def call(self, x):
        spatial = tuple(range(1, len(x.shape) - 1))
        pooled = ops.mean(x, axis=spatial) if spatial else x
        z = self.excite(self.squeeze(pooled))
        gate = 1 + z if self.gate == "linear" else ops.sigmoid(z) * (2 if self.gate == "two_sigmoid" else 1)
        return x * ops.reshape(gate, (-1, *(1 for _ in spatial), x.shape[-1]))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "gate": self.gate, "reduction": self.reduction, "bias": self.bias}
