"""AFK's teacher-level filter, CUST's transfer bridge, SOKA's aggregation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.errors import UserError
from amalgam_tf.models.adapters import AGGREGATIONS, GATES, Bridge, ChannelFilter, FeatureAggregation, meeting_size
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


# -- the aggregation of teachers' features ----------------------------------------------------------------------------
VARIANTS = [
    *((kind, norm) for kind in ("channel", "element") for norm in ("none", "softmax_w", "unit_rows")),
    ("matmul", "none"),
    ("matmul", "unit_rows"),
    ("mean", "none"),
]


def aggregated(features_: np.ndarray, weights: list[np.ndarray], kind: str, norm: str) -> np.ndarray:
    """SOKA eq. 2 in NumPy, [teachers, batch, h, w, c] -> [batch, h, w, c]: teacher by teacher, channel by channel."""
    a, count = features_.astype(np.float64), len(features_)
    if kind == "mean":
        return a.mean(0)
    w, *outer = (x.astype(np.float64) for x in weights)
    if norm == "softmax_w":
        w = np.exp(w) / np.exp(w).sum(0)
    if norm == "unit_rows" and kind != "matmul":
        w = w / np.sqrt(count * (w**2).sum(0))
    if kind == "matmul":
        if norm == "unit_rows":  # a row of all W_i side by side makes one output channel
            for out in range(w.shape[-1]):
                w[..., out] /= np.linalg.norm(w[..., out]) * np.sqrt(count)
        mixed = sum(np.einsum("bhwi,io->bhwo", a[i], w[i]) for i in range(count))
    else:
        mixed = sum(w[i] * a[i] for i in range(count))
    return outer[0] * mixed if outer else mixed


def aggregation(kind: str, norm: str, count: int = 3, shape=(5, 4, 6), **options) -> FeatureAggregation:
    """With weights that are nowhere the start's."""
    layer = FeatureAggregation(kind, norm, count, **options)
    layer.build([(None, *shape)] * count)
    layer.set_weights([features(w.shape, 7 + i) for i, w in enumerate(layer.get_weights())])
    return layer


@pytest.mark.parametrize(("kind", "norm"), VARIANTS)
class TestAggregation:
    SHAPE = (3, 2, 5, 4, 6)  # teachers, batch, height, width, channels

    def test_formula(self, kind, norm):
        a, layer = features(self.SHAPE), aggregation(kind, norm)
        out = layer(list(a))
        assert out.shape == self.SHAPE[1:]
        np.testing.assert_allclose(out, aggregated(a, layer.get_weights(), kind, norm), rtol=1e-4, atol=1e-5)

    @pytest.mark.filterwarnings("ignore:You are using a softmax over axis 0 of a tensor of shape .1,")
    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_starts_as_the_mean(self, kind, norm, count):
        a = features((count, 2, 5, 4, 6))
        np.testing.assert_allclose(FeatureAggregation(kind, norm, count)(list(a)), a.mean(0), rtol=1e-4, atol=1e-6)

    def test_parameters(self, kind, norm):
        shapes = [tuple(w.shape) for w in aggregation(kind, norm).weights]
        own = (5, 4, 6) if kind == "element" else (6,)
        first = {"mean": [], "matmul": [(3, 6, 6)]}.get(kind, [(3, *own)])
        assert shapes == first + ([own] if norm == "none" and kind != "mean" else [])

    def test_all_weights_learn_from_the_start(self, kind, norm):
        layer, a, wanted = FeatureAggregation(kind, norm, 3), list(features(self.SHAPE)), features(self.SHAPE[1:], 9)
        layer.build([f.shape for f in a])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((layer(a) - wanted) ** 2)
        gradients = tape.gradient(loss, layer.trainable_variables)
        assert len(gradients) == len(layer.weights)
        assert all(np.abs(g).min() > 0 for g in gradients)

    def test_a_norm_forbids_sigma_to_shrink(self, kind, norm):
        """Weights a hundredth as large make sigma as small where nothing is normed, and change nothing where rows have a length."""
        a, layer = features(self.SHAPE), aggregation(kind, norm)
        before = layer(list(a)).numpy()
        layer.set_weights([w / 100 if i == 0 else w for i, w in enumerate(layer.get_weights())])
        after = layer(list(a)).numpy()
        if norm == "unit_rows" or kind == "mean":
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)
        elif norm == "none":
            np.testing.assert_allclose(after, before / 100, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_allclose(after, a.mean(0), atol=0.1)  # a softmax of weights of about zero

    def test_permuting_teachers_with_their_weights(self, kind, norm):
        a, layer, order = features(self.SHAPE), aggregation(kind, norm), [2, 0, 1]
        before = layer(list(a)).numpy()
        layer.set_weights([w[order] if i == 0 else w for i, w in enumerate(layer.get_weights())])
        np.testing.assert_allclose(layer(list(a[order])), before, rtol=1e-4, atol=1e-6)

    def test_saved_and_loaded(self, kind, norm, tmp_path):
        inputs = [keras.Input((5, 4, 6)) for _ in range(3)]
        model = keras.Model(inputs, aggregation(kind, norm, name="mia")(inputs))
        model.save(tmp_path / "mia.keras")
        loaded = keras.saving.load_model(tmp_path / "mia.keras", compile=False, safe_mode=True)
        again = loaded.get_layer("mia")
        assert (again.kind, again.norm, again.count) == (kind, norm, 3)
        a = list(features(self.SHAPE))
        assert np.array_equal(loaded(a), model(a)) and loaded.output.shape == (None, 5, 4, 6)

    def test_mixed_bfloat16(self, kind, norm):
        a = list(features(self.SHAPE))
        low, exact = (aggregation(kind, norm, dtype=d) for d in ("mixed_bfloat16", "float32"))
        out = low(a)
        assert out.dtype == tf.bfloat16 and all(v.dtype == "float32" for v in low.variables)
        np.testing.assert_allclose(tf.cast(out, tf.float32), exact(a), rtol=0.1, atol=0.15)


def test_aggregation_of_the_papers_size():
    """Table 2's budget: three teachers at taps of 1024 and of 8 channels."""
    taps = [(16, 16, 1024), (16, 16, 8)]
    layers_ = [FeatureAggregation(count=3) for _ in taps]
    for layer, shape in zip(layers_, taps, strict=True):
        layer.build([(None, *shape)] * 3)
    assert sum(layer.count_params() for layer in layers_) == 4128


def test_multiply_adds_of_an_aggregation():
    inputs = [keras.Input((5, 4, 6)) for _ in range(3)]
    for kind in AGGREGATIONS:
        model = keras.Model(inputs, FeatureAggregation(kind, count=3)(inputs))
        assert multiply_adds(model) == (3 * 5 * 4 * 6 * 6 if kind == "matmul" else 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(kind="chanel"), "unknown mia.kind 'chanel': did you mean 'channel'"),
        (dict(norm="l7"), "unknown mia.norm 'l7': there are none, softmax_w, unit_rows"),
        (dict(kind="matmul", norm="softmax_w"), "does not fit mia.kind=matmul: choose unit_rows"),
        (dict(count=0), "features of 0 teachers"),
    ],
)
def test_aggregation_of_unknown_words(options, sentence):
    with pytest.raises(UserError, match=sentence):
        FeatureAggregation(**options)


@pytest.mark.parametrize(
    ("kind", "shapes", "sentence"),
    [
        ("channel", [(None, 5, 4, 6)] * 3, "of 2 teachers cannot read 3 features"),
        ("channel", [(None, 5, 4, 6), (None, 5, 4, 7)], r"different shapes \(\(5, 4, 6\), \(5, 4, 7\)\) have no sum"),
        ("mean", [(None, 5, 4, 6), (None, 4, 4, 6)], "have no sum"),
        ("channel", [(None, 6)] * 2, r"reads maps \[height, width, channels\] of known size, not \(6,\)"),
        ("element", [(None, None, 4, 6)] * 2, "of known size"),
    ],
)
def test_aggregation_of_unfit_shapes(kind, shapes, sentence):
    with pytest.raises(UserError, match=sentence):
        FeatureAggregation(kind, count=2).build(shapes)


def test_aggregation_of_any_size():
    """Channel weights fit maps of every size."""
    layer = FeatureAggregation(count=2)
    layer.build([(None, None, None, 6)] * 2)
    assert layer(list(features((2, 1, 3, 9, 6)))).shape == (1, 3, 9, 6)
