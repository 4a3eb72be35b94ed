"""AFK's teacher-level filter and CUST's transfer bridge."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.errors import UserError
from amalgam_tf.models.adapters import GATES, Bridge, ChannelFilter, meeting_size
from amalgam_tf.models.blocks import multiply_adds

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


# -- the transfer bridge ----------------------------------------------------------------------------------------------
def built(shape, *arguments, **options) -> Bridge:
    """A bridge whose weights are nowhere zero."""
    layer = Bridge(*arguments, **options)
    layer.build((None, *shape))
    layer.set_weights([features(w.shape, 3 + i) for i, w in enumerate(layer.get_weights())])
    return layer


class TestBridge:
    @pytest.mark.parametrize("bias", [True, False])
    def test_formula(self, bias):
        """CUST eq. 1: a weighted sum over input channels at every place, in NumPy."""
        x, layer = features(SHAPES["maps"]), built((5, 4, 24), 7, bias=bias)
        weights = layer.get_weights()
        assert [w.shape for w in weights] == ([(1, 1, 24, 7), (7,)] if bias else [(1, 1, 24, 7)])
        expected = np.einsum("bhwi,io->bhwo", x.astype(np.float64), weights[0][0, 0]) + (weights[1] if bias else 0)
        np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)
        assert np.array_equal(layer.kernel, weights[0])

    @pytest.mark.parametrize(
        ("before", "after"),
        [((8, 8), (4, 4)), ((8, 8), (2, 2)), ((16, 8), (2, 8)), ((12, 12), (4, 4))],
        ids=lambda s: "x".join(map(str, s)),
    )
    def test_a_whole_factor_is_the_mean_of_each_tile(self, before, after):
        x = features((2, *before, 3))
        tiles = x.reshape(2, after[0], before[0] // after[0], after[1], before[1] // after[1], 3)
        np.testing.assert_allclose(Bridge(None, after)(x), tiles.mean((2, 4)), rtol=1e-5, atol=1e-6)

    def test_what_is_left_of_the_factor_is_bilinear(self):
        """6 -> 4: the centres of the new pixels lie at 0.25, 1.75, 3.25, 4.75 of the old ones."""
        x = np.arange(6, dtype=np.float32) ** 2
        expected = [0.25, 1 + 0.75 * 3, 9 + 0.25 * 7, 16 + 0.75 * 9]
        out = Bridge(None, (4, 4))(np.broadcast_to(x[None, :, None, None], (1, 6, 6, 1)))
        np.testing.assert_allclose(out[0, :, 2, 0], expected, rtol=1e-5)
        np.testing.assert_allclose(
            Bridge(None, (4, 4))(np.broadcast_to(x[None, None, :, None], (1, 6, 6, 1)))[0, 2, :, 0], expected, rtol=1e-5
        )

    @pytest.mark.parametrize("after", [(1, 1), (2, 3), (5, 5), (7, 4), (13, 13)])
    def test_constants_stay_and_every_pixel_counts(self, after):
        x = tf.Variable(np.full((1, 13, 14, 2), 3.5, np.float32))
        with tf.GradientTape() as tape:
            out = Bridge(None, after)(x)
            total = tf.reduce_sum(out)
        assert out.shape == (1, *after, 2)
        np.testing.assert_allclose(out, 3.5, rtol=1e-6)
        assert tape.gradient(total, x).numpy().min() > 0

    def test_reducing_and_convolving_commute(self):
        """So that reducing first, which is cheaper, changes nothing."""
        x, both, plain = features((2, 12, 9, 5)), built((12, 9, 5), 3, (4, 4)), built((12, 9, 5), 3)
        np.testing.assert_allclose(both(x), Bridge(None, (4, 4))(plain(x)), rtol=1e-4, atol=1e-5)

    def test_two_sides_meet(self):
        student, teacher = (12, 9, 5), (6, 11, 8)
        size = meeting_size(student, teacher)
        assert size == meeting_size(teacher, student) == (6, 9)
        sides = [Bridge(4, size)(features((2, *shape))) for shape in (student, teacher)]
        assert [s.shape for s in sides] == [(2, 6, 9, 4)] * 2

    def test_nothing_to_do_is_the_identity(self):
        x, layer = features(SHAPES["maps"]), Bridge(None)
        assert np.array_equal(layer(x), x) and np.array_equal(Bridge(None, (5, 4))(x), x)
        assert layer.variables == [] and layer.kernel is None

    def test_filters_start_with_about_unit_length(self):
        keras.utils.set_random_seed(0)
        layer = Bridge(256)
        layer.build((None, 7, 7, 512))
        lengths = np.square(layer.kernel.numpy()).sum((0, 1, 2))
        assert lengths.shape == (256,) and abs(lengths.mean() - 1) < 0.02 and lengths.std() < 0.1

    def test_too_small_or_of_unknown_size(self):
        with pytest.raises(UserError, match=r"only reduces: maps of \(5, 4\) cannot become \(5, 6\)"):
            Bridge(3, (5, 6))(features(SHAPES["maps"]))
        for shape in ((3, 24), (None, None, None, 3)):
            with pytest.raises(UserError, match="of known size"):
                Bridge(3).build(shape)

    @pytest.mark.parametrize("options", [dict(channels=7, size=(3, 2), bias=False), dict(channels=None), dict(channels=2)], ids=str)
    def test_saved_and_loaded(self, options, tmp_path):
        image = keras.Input((5, 4, 24))
        model = keras.Model(image, Bridge(**options, name="bridge")(image))
        model.save(tmp_path / "bridge.keras")
        loaded = keras.saving.load_model(tmp_path / "bridge.keras", compile=False, safe_mode=True)
        again = loaded.get_layer("bridge")
        assert again.get_config() == model.get_layer("bridge").get_config()
        assert again.bias == options.get("bias", True)
        x = features(SHAPES["maps"])
        assert np.array_equal(loaded(x), model(x)) and loaded(x).shape[1:] == loaded.output.shape[1:] == model.output.shape[1:]

    def test_multiply_adds_are_those_of_the_reduced_map(self):
        image = keras.Input((8, 8, 24))
        assert multiply_adds(keras.Model(image, Bridge(7, (4, 4))(image))) == 4 * 4 * 24 * 7
        assert multiply_adds(keras.Model(image, Bridge(None, (4, 4))(image))) == 0

    @pytest.mark.parametrize("size", [None, (2, 2), (3, 3)])
    def test_mixed_bfloat16(self, size):
        x = features(SHAPES["maps"])
        low, exact = (built((5, 4, 24), 7, size, dtype=d) for d in ("mixed_bfloat16", "float32"))
        out = low(x)
        assert out.dtype == tf.bfloat16 and {v.dtype for v in low.variables} == {"float32"}
        np.testing.assert_allclose(tf.cast(out, tf.float32), exact(x), rtol=0.05, atol=0.2)
        assert Bridge(None, size, dtype="mixed_bfloat16")(x).dtype == tf.bfloat16

    def test_variable_paths_do_not_repeat(self):
        assert len({v.path for v in built((5, 4, 24), 7, name="f").variables}) == 2
