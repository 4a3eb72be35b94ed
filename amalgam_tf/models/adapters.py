"""Small trainable pieces between networks: AFK's teacher-level filter (a channel gate), CUST's transfer bridge (a 1x1 convolution)."""

from collections.abc import Sequence

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


@keras.saving.register_keras_serializable("amalgam_tf")
class Bridge(layers.Layer):
    """One side of a transfer bridge: features of one network into the channels and the resolution in which two are compared.

    A 1x1 convolution (CUST eq. 1, feature alignment; spec C2), behind a reduction where the two sides' resolutions differ: the
    larger map is brought down to `meeting_size`, never the smaller one up, which would compare invented pixels. Reduced is by average
    pooling over the whole part of the factor and bilinear resizing over what is left of it, so that every pixel counts and
    gets a gradient; bilinear alone skips pixels from a factor of 3 on.

    Shapes: [batch, height, width, in] in, [batch, *size, channels] out.

    Args:
        channels: of the output; None passes the features on without a convolution (the component's side of CUST's second stage).
        size: (height, width) of the output; None keeps that of the input.
        bias: whether the convolution has a bias: so the published code; eq. 1 has none.

    Raises:
        UserError: an input that is no map of known height and width, or smaller than `size`.
    """

    def __init__(self, channels: int | None, size: Sequence[int] | None = None, bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.size, self.bias = channels, None if size is None else tuple(size), bias
        self.convolution = None

    def build(self, input_shape):
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise UserError(f"a bridge reads maps [height, width, channels] of known size, not {tuple(input_shape[1:])}: tap another block")
        if any(have < want for have, want in zip(input_shape[1:3], self.size or (), strict=False)):
            raise UserError(f"a bridge only reduces: maps of {tuple(input_shape[1:3])} cannot become {self.size}; reduce the other side")
        if self.channels is not None:
            # lecun_normal: an output's weights start with a squared sum of about one, which is what CUST eq. 4 asks of them.
            self.convolution = layers.Conv2D(
                self.channels, 1, use_bias=self.bias, kernel_initializer="lecun_normal", dtype=self.dtype_policy, name="convolution"
            )
            self.convolution.build(input_shape)
        self.built = True

    @property
    def kernel(self) -> keras.Variable | None:
        """[1, 1, in, channels]: w of eqs. 1 and 4; None without a convolution."""
        return None if self.convolution is None else self.convolution.kernel

    def call(self, x):
        if self.size is not None:
            factors = tuple(have // want for have, want in zip(x.shape[1:3], self.size, strict=True))
            if factors != (1, 1):
                x = ops.average_pool(x, factors, padding="same")
            if tuple(x.shape[1:3]) != self.size:
                x = ops.image.resize(x, self.size, "bilinear")
        return x if self.convolution is None else self.convolution(x)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *(self.size or input_shape[1:3]), self.channels or input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "channels": self.channels, "size": self.size, "bias": self.bias}


def meeting_size(first: Sequence[int], second: Sequence[int]) -> tuple[int, int]:
    """(height, width) in which the features of two networks are compared: the smaller of the two along each axis.

    Args:
        first: shape of one side's features [height, width, channels].
        second: of the other's.
    """
    return min(first[0], second[0]), min(first[1], second[1])
