"""Foreign Keras models: laid flat, trainable, with logits at their end; and where they can be cut."""

import keras
from keras import layers, ops
import numpy as np
import pytest

from amalgam_tf.errors import UserError
from amalgam_tf.models import foreign
from amalgam_tf.models.applications import MOMENTUM
from amalgam_tf.models.blocks import BlockNet, rebuilt

SIZE = 8


def refused(message, call, *arguments):
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)


def images(count=4):
    return np.random.default_rng(0).normal(size=(count, SIZE, SIZE, 3)).astype(np.float32)


def ended(end, outputs=3) -> keras.Model:
    """A small net with lively weights and what `end` makes of 6 features."""
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="conv", kernel_initializer="he_normal")(image)
    return keras.Model(image, end(layers.GlobalAveragePooling2D(name="pool")(x)))


def dense(activation=None, **options):
    return layers.Dense(3, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=2.0, seed=1), name="out", **options)


def transfer() -> keras.Model:
    """What most users have: augmentation, scaling, a frozen base with a fixed training flag, and a small top of its own."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, padding="same", name="conv")(inner))
    y = layers.Activation("relu", name="relu")(layers.Conv2D(6, 3, padding="same", name="conv2")(x))
    base = keras.Model(inner, layers.Add(name="add")([x, y]), name="base")
    for v in base.variables:
        v.assign(keras.random.uniform(v.shape, 0.2, 1.0, seed=len(v.shape)))
    base.trainable = False
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.RandomFlip(name="flip")(image)
    scale = layers.Normalization(name="scale")
    scale.adapt(3 * images(20) + 1)
    x = base(scale(layers.Rescaling(2.0, name="rescaling")(x)), training=False)
    x = layers.Dropout(0.5, name="drop")(layers.GlobalAveragePooling2D(name="pool")(x))
    top = keras.Sequential([layers.Dense(6, "relu", name="hidden"), layers.Dense(3, "sigmoid", name="conv")], name="top")
    return keras.Model(image, top(x), name="transfer")


class TestRemade:
    def test_nested_models_are_laid_open(self):
        made = foreign.remade(transfer())
        assert (made.end, made.size, made.model.name) == ("sigmoid", SIZE, "transfer")
        names = "rescaling scale conv norm conv2 relu add pool drop hidden top_conv"
        assert sorted(x.name for x in made.model.layers[1:]) == sorted(names.split())
        assert [p.layer for p in foreign.places(made.model)] == "rescaling scale conv norm add pool drop hidden".split()

    def test_it_writes_the_logits_of_the_original(self):
        original = transfer()
        made, x = foreign.remade(original), images()
        np.testing.assert_allclose(ops.sigmoid(made.model(x)), original(x, training=False), atol=1e-6)
        assert np.ptp(made.model(x), axis=0).min() > 0.1  # the images do not all give the same
        assert foreign.disagreement(original, made, x) < 1e-6

    def test_it_is_a_copy_and_the_original_stays(self):
        original, x = transfer(), images()
        before = np.array(original(x, training=False))
        made = foreign.remade(original)
        assert not {*map(id, made.model.variables)} & {*map(id, original.variables)}
        for v in made.model.variables:
            v.assign(v + 1)
        np.testing.assert_array_equal(original(x, training=False), before)
        assert original.layers[-1].layers[-1].activation is keras.activations.sigmoid

    def test_everything_can_be_trained(self):
        made = foreign.remade(transfer()).model
        assert len(made.trainable_variables) == 2 * 3 + 2 * 2  # three pairs of the frozen base, two of the top
        norm = made.get_layer("norm")
        assert norm.momentum == MOMENTUM
        before = np.array(norm.moving_mean)
        made(images(), training=True)  # although the base was called with training=False
        assert not np.array_equal(norm.moving_mean, before)

    def test_a_new_start_still_scales_its_input(self):
        """Students are built from configs: an adapted normalisation must stand there."""
        made = foreign.remade(transfer()).model
        fresh, x = rebuilt(made), images()
        scaled = [keras.Model(m.input, m.get_layer("scale").output)(x) for m in (made, fresh)]
        np.testing.assert_array_equal(*scaled)
        np.testing.assert_allclose(np.mean(scaled[0]), (2 * x.mean() - 1) / 3, atol=0.1)

    def test_a_shared_nested_model_stays_shared(self):
        inner = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Conv2D(3, 3, padding="same", name="conv")], name="twice")
        image = keras.Input((SIZE, SIZE, 3))
        x = layers.GlobalAveragePooling2D(name="pool")(inner(inner(image)))
        original = keras.Model(image, dense()(x))
        made = foreign.remade(original).model
        assert len(made.variables) == 4
        np.testing.assert_allclose(made(images()), original(images()), atol=1e-6)
        assert [p.layer for p in foreign.places(made)] == ["pool"]  # a layer that is called twice has no one end

    def test_operations_and_sequential(self):
        image = keras.Input((SIZE, SIZE, 3))
        stem = keras.Sequential([layers.Conv2D(4, 3, name="conv"), layers.Flatten(name="flat")])
        original = keras.Model(image, dense()(ops.sqrt(ops.abs(stem(image / 2.0)))))
        made = foreign.remade(original)
        np.testing.assert_allclose(made.model(images()), original(images()), rtol=1e-5)
        assert [p.layer for p in foreign.places(made.model)] == ["conv", "flat"]
        plain = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.Flatten(name="flat"), dense("softmax")])
        made = foreign.remade(plain)
        np.testing.assert_allclose(ops.softmax(made.model(images())), plain(images()), atol=1e-6)
        assert [p.layer for p in foreign.places(made.model)] == ["flat"]

    def test_operations_in_another_precision(self):
        image = keras.Input((SIZE, SIZE, 3))
        x = ops.relu(layers.Conv2D(4, 3, name="conv")(image / 2.0))
        made = foreign.remade(keras.Model(image, dense()(layers.GlobalAveragePooling2D()(x)))).model
        low = rebuilt(made, policy="mixed_bfloat16")
        low.set_weights(made.get_weights())
        assert low.get_layer("conv").compute_dtype == "bfloat16"
        np.testing.assert_allclose(low(images()), made(images()), atol=0.1)

    def test_low_precision_becomes_float32(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            original = ended(lambda x: layers.Activation("sigmoid", dtype="float32")(dense()(x)))
        finally:
            keras.config.set_dtype_policy("float32")
        made = foreign.remade(original)
        assert {x.dtype_policy.name for x in made.model.layers} == {"float32"}
        assert 0 < foreign.disagreement(original, made, images()) < 0.05


class TestEnd:
    @pytest.mark.parametrize(
        ("end", "taken_off", "last"),
        [
            (dense("sigmoid"), "sigmoid", "Dense"),
            (dense("softmax"), "softmax", "Dense"),
            (dense(), "linear", "Dense"),
            (lambda x: layers.Activation("sigmoid")(dense()(x)), "sigmoid", "Dense"),
            (lambda x: layers.Softmax()(dense()(x)), "softmax", "Dense"),
            (lambda x: ops.sigmoid(dense()(x)), "sigmoid", "Dense"),
            (lambda x: layers.Activation("linear")(dense("sigmoid")(x)), "sigmoid", "Dense"),
            (lambda x: layers.Activation("softmax")(layers.Rescaling(0.5)(dense()(x))), "softmax", "Rescaling"),
        ],
    )
    def test_what_is_taken_off(self, end, taken_off, last):
        original = ended(end)
        made = foreign.remade(original)
        assert (made.end, type(made.model.layers[-1]).__name__) == (taken_off, last)
        logits = made.model(images())
        again = {"sigmoid": ops.sigmoid, "softmax": ops.softmax, "linear": lambda x: x}[taken_off](logits)
        np.testing.assert_allclose(again, original(images()), atol=1e-6)
        assert np.min(logits) < -0.1  # no probabilities

    @pytest.mark.parametrize(
        ("end", "what"),
        [
            (dense("relu"), "Dense 'out' with relu"),
            (lambda x: layers.Activation("tanh", name="end")(dense()(x)), "Activation 'end' with tanh"),
            (lambda x: layers.Activation("linear")(dense("tanh")(x)), "Dense 'out' with tanh"),
            (lambda x: x, "GlobalAveragePooling2D 'pool', which"),
        ],
    )
    def test_ends_that_are_no_logits(self, end, what):
        refused(f"ends in {what}.* end it in a Dense layer", foreign.remade, ended(end))


class TestPlaces:
    def test_they_are_exactly_where_a_cut_works(self):
        model = foreign.remade(transfer()).model
        places = {p.layer: p for p in foreign.places(model)}
        for layer in model.layers[1:-1]:
            try:
                net = BlockNet.cut(model, [layer.name])
            except UserError:
                assert layer.name not in places
            else:
                assert places[layer.name].shape == net.shapes[layer.name]
                assert places[layer.name].parameters == net.parameters(stop=0)
                assert places[layer.name].kind == type(layer).__name__
        assert places["scale"].parameters == 0  # constants of its config
        assert places["hidden"].parameters == model.count_params() - 21

    def test_resnet50(self):
        model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=2)
        found = [p.layer for p in foreign.places(foreign.remade(model).model)]
        units = [f"conv{s}_block{u}_{end}" for s, n in ((2, 3), (3, 4), (4, 6), (5, 3)) for u in range(1, n + 1) for end in ("add", "out")]
        assert found == ["conv1_pad", "conv1_conv", "conv1_bn", "conv1_relu", "pool1_pad", "pool1_pool", *units, "avg_pool"]


class Subclassed(keras.Model):
    def call(self, x):
        return x


class TestErrors:
    def test_shapes(self):
        def reading(*shape):
            image = keras.Input(shape)
            return keras.Model(image, dense()(layers.Flatten()(image) if None not in shape else layers.GlobalAveragePooling2D()(image)))

        for shape in ((8, 6, 3), (None, None, 3), (8, 8, 1), (192,)):
            refused("not squares of a fixed size with three channels", foreign.remade, reading(*shape))
        image = keras.Input((SIZE, SIZE, 3))
        refused("writes .8, 8, 3. an image", foreign.remade, keras.Model(image, layers.Activation("sigmoid")(image)))

    def test_several_inputs_or_outputs(self):
        image, other = keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 3))
        x = layers.Flatten()(image)
        refused("has 1 inputs and 2 outputs", foreign.remade, keras.Model(image, {"a": dense()(x), "b": layers.Dense(1)(x)}))
        refused("has 2 inputs and 1 outputs", foreign.remade, keras.Model([image, other], dense()(layers.Flatten()(image + other))))

    def test_not_functional(self):
        refused("is not functional", foreign.remade, Subclassed(name="x"))
        refused("is not functional", foreign.remade, keras.Sequential([layers.Flatten(), dense()]))  # not built: reads anything

    def test_a_copy_that_says_something_else(self):
        original = ended(dense("sigmoid"))
        made = foreign.remade(original)
        made.model.layers[-1].bias.assign([0.001] * 3)
        refused("writes other numbers .by 0.0", foreign.disagreement, original, made, images())

    def test_files(self, tmp_path):
        file = tmp_path / "x.keras"
        refused("there is no model file .*x.keras", foreign.load, file)
        file.write_text("nothing")
        refused("x.keras could not be read as a Keras model", foreign.load, file)
        (tmp_path / "x.h5").write_text("nothing")
        refused("x.h5 could not be read as a Keras model", foreign.load, tmp_path / "x.h5")
        ended(dense()).save_weights(tmp_path / "x.weights.h5")
        refused("holds weights without a model", foreign.load, tmp_path / "x.weights.h5")

    @pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
    @pytest.mark.parametrize("suffix", ["keras", "h5"])
    def test_layers_that_are_not_of_keras(self, tmp_path, suffix):
        class Own(layers.Layer):
            def call(self, x):
                return x

        file = tmp_path / f"x.{suffix}"
        for layer, message in (
            (Own(), "x.* holds Own, which Keras does not know"),
            (layers.Lambda(lambda x: 2 * x), "holds a Lambda layer"),
        ):
            ended(lambda x, layer=layer: dense()(layer(x))).save(file)
            refused(message, foreign.load, file)
        # A Lambda of a function that Keras finds would load, but then anything may be done by it.
        ended(lambda x: dense()(layers.Lambda(keras.activations.relu)(x))).save(file)
        refused("holds a Lambda layer|could not be read", foreign.load, file)

    def test_a_subclassed_model_in_a_file(self, tmp_path):
        model = Subclassed()
        model(images())
        model.save(tmp_path / "x.keras")
        refused("holds Subclassed, which Keras does not know", foreign.load, tmp_path / "x.keras")
