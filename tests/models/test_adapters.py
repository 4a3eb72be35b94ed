"""AFK's teacher-level filter."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.errors import UserError
from amalgam_tf.models.adapters import GATES, ChannelFilter

SHAPES = {"maps": (3, 5, 4, 24), "vectors": (3, 24)}


def features(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def trained(layer: ChannelFilter, seed=1) -> ChannelFilter:
    """With weights that are nowhere zero."""
    layer.build((None, 24))
    layer.set_weights([features(w.shape, seed + i) for i, w in enumerate(layer.get_weights())])
    return layer


def formula(x: np.ndarray, weights: list[np.ndarray], gate: str) -> np.ndarray:
    """AFK eq. 4 in NumPy."""
    squeeze, excite, *bias = (w.astype(np.float64) for w in weights)
    pooled = x.mean((1, 2)) if x.ndim == 4 else x
    z = np.maximum(pooled @ squeeze, 0) @ excite + (bias[0] if bias else 0)
    scale = {"sigmoid": 1 / (1 + np.exp(-z)), "two_sigmoid": 2 / (1 + np.exp(-z)), "linear": 1 + z}[gate]
    return x * (scale[:, None, None] if x.ndim == 4 else scale)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gate", GATES)
def test_formula(gate, bias, kind):
    x, layer = features(SHAPES[kind]), trained(ChannelFilter(gate, reduction=4, bias=bias))
    assert len(layer.weights) == (3 if bias else 2)
    np.testing.assert_allclose(layer(x), formula(x, layer.get_weights(), gate), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("gate", ["two_sigmoid", "linear"])
def test_starts_as_the_exact_identity(gate, kind):
    x = features(SHAPES[kind])
    assert np.array_equal(ChannelFilter(gate)(x), x)


def test_the_plain_sigmoid_starts_near_one_half():
    keras.utils.set_random_seed(0)
    x = np.abs(features((8, 4, 4, 64)))
    ratio = ChannelFilter("sigmoid")(x).numpy() / x
    assert 0.4 < ratio.mean() < 0.6
    assert ratio.min() > 0
    assert ratio.max() < 1
    assert ratio.std() > 1e-3  # and is no constant: its second layer does not start at zero


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(24, 8, 16), (128, 8, 16), (256, 8, 32), (256, 2, 128), (2048, 16, 128)])
def test_hidden_width(channels, reduction, hidden):
    layer = ChannelFilter(reduction=reduction)
    layer.build((None, 7, 7, channels))
    assert [w.shape for w in layer.weights] == [(channels, hidden), (hidden, channels), (channels,)]


@pytest.mark.parametrize("kind", SHAPES)
def test_the_gate_learns_from_the_identity(kind):
    x, layer = features(SHAPES[kind]), ChannelFilter()
    layer.build(x.shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    assert np.abs(gradients[1]).max() > 1e-3  # a zero kernel behind a non-zero layer moves


def test_saved_and_loaded(tmp_path):
    layer = trained(ChannelFilter("linear", reduction=4, bias=False, name="filter"))
    image = keras.Input((5, 4, 24))
    model = keras.Model(image, layer(image))
    model.save(tmp_path / "filter.keras")
    loaded = keras.saving.load_model(tmp_path / "filter.keras", compile=False, safe_mode=True)
    again = loaded.get_layer("filter")
    assert (again.gate, again.reduction, again.bias) == ("linear", 4, False)
    x = features(SHAPES["maps"])
    assert np.array_equal(loaded(x), model(x))
    assert loaded.output.shape == (None, 5, 4, 24)


def test_config_round_trip():
    layer = ChannelFilter("sigmoid", reduction=2, bias=False, name="f", dtype="mixed_bfloat16")
    assert ChannelFilter.from_config(layer.get_config()).get_config() == layer.get_config()


def test_variable_paths_do_not_repeat():
    layer = trained(ChannelFilter(name="f"))
    assert len({v.path for v in layer.variables}) == 3


def test_mixed_bfloat16():
    layer, exact = trained(ChannelFilter(dtype="mixed_bfloat16")), trained(ChannelFilter())
    x = features(SHAPES["maps"])
    out = layer(x)
    assert out.dtype == tf.bfloat16
    assert {v.dtype for v in layer.variables} == {"float32"}
    np.testing.assert_allclose(tf.cast(out, tf.float32), exact(x), rtol=0.1, atol=0.1)


def test_unknown_gate():
    with pytest.raises(UserError, match="unknown filter gate 'relu': choose sigmoid, two_sigmoid, linear"):
        ChannelFilter("relu")
