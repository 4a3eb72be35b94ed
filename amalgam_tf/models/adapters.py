"""Small trainable pieces between networks: AFK's filter (a channel gate), CUST's bridge (a 1x1 convolution), SOKA's aggregation."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from amalgam_tf.errors import UserError, one_of

GATES = ("sigmoid", "two_sigmoid", "linear")
AGGREGATIONS = ("channel", "element", "matmul", "mean")
AGGREGATION_NORMS = ("none", "softmax_w", "unit_rows")


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


@keras.saving.register_keras_serializable("amalgam_tf")
class FeatureAggregation(layers.Layer):
    """The features of several teachers as one: sigma = C * sum_i W_i A_i (MIA; SOKA eq. 2, spec S2), at the start their mean.

    Kinds: `channel` (a factor a teacher and channel, and one a channel for C), `element` (the same for every place as well), `matmul`
    (W_i is a 1x1 convolution, C a factor a channel), `mean` (nothing is learned).

    Only the representation loss trains W and C, and sigma = 0 with a student of zeros is its smallest value. Against that, `norm`:

    * `none`: as printed.
    * `softmax_w`: the teachers' weights are a softmax over the teachers, and C is 1: a mean weighted channel by channel.
    * `unit_rows`: a row, which is all numbers that make one number of sigma (of all teachers; with `matmul` of all input channels
      too), is scaled to a fixed length, and C is 1, through which sigma could shrink after all. The length is 1 / sqrt(teachers), that of
      the start. Rows may still set teachers off against each other.

    Shapes: a list of `count` tensors [batch, height, width, channels] in, one of the same shape out.

    Args:
        kind: `channel`, `element`, `matmul` or `mean`.
        norm: `none`, `softmax_w` (not with `matmul`) or `unit_rows`; of no effect on `mean`.
        count: number of teachers, auxiliary included.

    Raises:
        UserError: an unknown word, softmax_w with matmul, fewer than one teacher; when built, another number of tensors, unequal shapes,
            shapes that are no maps (for `element`: of unknown size).
    """

    def __init__(self, kind: str = "channel", norm: str = "none", count: int = 2, **kwargs):
        super().__init__(**kwargs)
        one_of("mia.kind", kind, AGGREGATIONS)
        one_of("mia.norm", norm, AGGREGATION_NORMS)
        if (kind, norm) == ("matmul", "softmax_w"):
            raise UserError("mia.norm=softmax_w mixes teachers channel by channel and does not fit mia.kind=matmul: choose unit_rows")
        if count < 1:
            raise UserError(f"features of {count} teachers cannot be aggregated: name at least one")
        self.kind, self.norm, self.count = kind, norm, count
        self.kernel = self.factors = self.outer = None

    def build(self, input_shape):
        *place, channels = self._shape_of(input_shape)
        own = (*place, channels) if self.kind == "element" else (channels,)
        if self.kind == "matmul":
            # Called kernel, so that its multiply-adds are counted like a convolution's.
            self.kernel = self.add_weight(shape=(self.count, channels, channels), initializer=self._mean_of_maps, name="kernel")
        elif self.kind != "mean":
            start = "zeros" if self.norm == "softmax_w" else keras.initializers.Constant(1 / self.count)
            self.factors = self.add_weight(shape=(self.count, *own), initializer=start, name="factors")
        if self.kind != "mean" and self.norm == "none":
            self.outer = self.add_weight(shape=own, initializer="ones", name="outer")
        self.built = True

    def _shape_of(self, shapes) -> tuple[int, ...]:
        """(height, width, channels), the same of all teachers."""
        shapes = [tuple(s) for s in shapes] if isinstance(shapes[0], list | tuple) else [tuple(shapes)]
        if len(shapes) != self.count:
            raise UserError(f"an aggregation of {self.count} teachers cannot read {len(shapes)} features: give one of each teacher")
        if len(different := {s[1:] for s in shapes}) > 1:
            raise UserError(f"features of different shapes ({', '.join(sorted(map(str, different)))}) have no sum: take like teachers")
        known = shapes[0][1:] if self.kind == "element" else shapes[0][-1:]
        if len(shapes[0]) != 4 or None in known:
            raise UserError(
                f"mia.kind={self.kind} reads maps [height, width, channels] of known size, not {shapes[0][1:]}: tap another block"
            )
        return shapes[0][1:]

    def _mean_of_maps(self, shape, dtype=None):
        return ops.broadcast_to(ops.eye(shape[-1], dtype=dtype) / self.count, shape)

    def call(self, features):
        features = features if isinstance(features, list | tuple) else [features]
        if self.kind == "mean":
            return sum(features) / self.count
        if self.kind == "matmul":
            # One convolution over all teachers' channels is the sum of one for each.
            kernel = self._unit(self.kernel, (0, 1))
            mixed = ops.conv(ops.concatenate(features, -1), ops.reshape(kernel, (1, 1, -1, kernel.shape[-1])))
        else:
            factors = ops.softmax(self.factors, 0) if self.norm == "softmax_w" else self._unit(self.factors, 0)
            mixed = sum(factors[i] * f for i, f in enumerate(features))
        return mixed if self.outer is None else self.outer * mixed

    def _unit(self, weights, axes):
        if self.norm != "unit_rows":
            return weights
        squares = ops.sum(ops.square(weights), axes, keepdims=True)
        return weights * ops.rsqrt(self.count * ops.maximum(squares, 1e-12))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0]) if isinstance(input_shape[0], list | tuple) else tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind, "norm": self.norm, "count": self.count}
