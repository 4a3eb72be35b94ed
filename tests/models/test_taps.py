"""Taps against forward passes made layer by layer."""

import keras
from keras import layers, ops
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet, rebuilt
from amalgam_tf.models.taps import TAPS, TappedNet

RELUS = {"activation": lambda name: layers.Activation("relu", name=name), "layer": lambda name: layers.ReLU(name=name)}


def small(relu=RELUS["activation"]) -> keras.Model:
    """Stem, two residual units and a head on [8, 8, 3], with batch norm wherever a ResNet has it."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem_conv")(image)
    x = layers.Activation("relu", name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    for i in (1, 2):
        y = layers.BatchNormalization(name=f"bn{i}")(layers.Conv2D(4, 3, padding="same", name=f"conv{i}")(x))
        x = relu(f"out{i}")(layers.Add(name=f"add{i}")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, dtype="float32", name="logits")(x))


def cut(model: keras.Model) -> BlockNet:
    """With weights and statistics away from their start."""
    net = BlockNet.cut(model, ["out1", "out2"], ["b1", "b2", "head"])
    for i, v in enumerate(net.variables()):
        v.assign(v + keras.random.uniform(v.shape, -0.4, 0.4, seed=i))
    return net


def images(seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=(5, 8, 8, 3)), tf.float32)


def by_hand(model: keras.Model, x, tap: str, training: bool = False) -> dict:
    """The taps of `small`, one layer after the other."""

    def run(name, x):
        return model.get_layer(name)(x, training=training) if "bn" in name else model.get_layer(name)(x)

    taps = {"stem": run("stem_conv", x)}
    x = run("stem_relu", run("stem_bn", taps["stem"]))
    for i in (1, 2):
        added = run(f"add{i}", [x, run(f"bn{i}", run(f"conv{i}", x))])
        x = run(f"out{i}", added)
        taps[f"b{i}"] = added if tap == "pre_relu" else x
    return taps


def state(net: BlockNet) -> list[np.ndarray]:
    return [v.numpy().copy() for v in net.variables()]


def equal(a, b) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("graph", [False, True])
def test_taps_output_and_statistics_are_those_of_one_plain_pass(tap, training, graph):
    model = small()
    net, x = cut(model), images()
    before = state(net)
    output = (tf.function(net.run) if graph else net.run)(x, training=training).numpy()
    moved = state(net)
    for v, old in zip(net.variables(), before, strict=True):
        v.assign(old)
    expected = by_hand(model, x, tap, training)
    for v, old in zip(net.variables(), before, strict=True):
        v.assign(old)
    tapped = TappedNet(net, tap)
    taps, logits = (tf.function(tapped.run) if graph else tapped.run)(x, training=training)
    assert list(taps) == ["stem", "b1", "b2"] == list(tapped.shapes)
    assert np.array_equal(logits, output)
    assert equal(state(net), moved) and equal(moved, before) is not training  # moved once and only in training
    for name, value in taps.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4 if graph else 0, atol=1e-5 if graph else 0)  # a graph rounds otherwise
        assert tuple(value.shape[1:]) == tapped.shapes[name]
    assert all((taps[b].numpy().min() < 0) == (tap == "pre_relu") for b in ("b1", "b2"))


def test_nothing_is_computed_twice():
    net = cut(small())
    tapped = TappedNet(net)

    def convolutions(fn):
        return [op.type for op in tf.function(fn).get_concrete_function(images()).graph.get_operations()].count("Conv2D")

    assert convolutions(tapped.run) == convolutions(net.run) == 3


def test_variables_are_those_of_the_net():
    net = cut(small())
    tapped, x = TappedNet(net), images()
    for v in net.weights():
        v.assign(v * 0)
    taps, logits = tapped.run(x)
    assert not np.any(logits) and not any(np.any(t) for t in taps.values())


@pytest.mark.parametrize("training", [False, True])
def test_gradients_reach_what_lies_in_front_of_a_tap_and_nothing_behind(training):
    model = small()
    net, x = cut(model), images()
    tapped, weights = TappedNet(net), net.weights()

    def gradients(taps_of):
        with tf.GradientTape(persistent=True) as tape:
            sums = {name: tf.reduce_sum(t**2) for name, t in taps_of().items()}
        return {name: tape.gradient(s, weights) for name, s in sums.items()}

    found = gradients(lambda: tapped.run(x, training=training)[0])
    expected = gradients(lambda: by_hand(model, x, "pre_relu", training))
    for name, reach in (("stem", 2), ("b1", 8), ("b2", 12)):
        assert [g is not None for g in found[name]] == [i < reach for i in range(len(weights))]
        for a, b in zip(found[name][:reach], expected[name], strict=False):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        assert any(np.abs(g).max() > 1e-2 for g in found[name][:reach])


class TestBlockEnds:
    @pytest.mark.parametrize("relu", [*RELUS.values(), lambda name: lambda x: ops.relu(x)], ids=[*RELUS, "operation"])
    def test_every_relu_is_seen(self, relu):
        image = keras.Input((8, 8, 3))
        x = relu("out1")(layers.Conv2D(2, 1, name="conv")(image))
        net = BlockNet({"b1": keras.Model(image, x), "head": keras.Model(k := keras.Input((8, 8, 2)), layers.Flatten()(k))})
        taps, _ = TappedNet(net).run(images())
        assert equal([taps["b1"]], [taps["stem"]]) and taps["b1"].numpy().min() < 0
        assert equal([TappedNet(net, "post_relu").run(images())[0]["b1"]], [net.run(images(), stop="b1")])

    @pytest.mark.parametrize(
        "end",
        [layers.Activation("tanh"), layers.AveragePooling2D(2), layers.Conv2D(4, 1, activation="relu")],
        ids=["tanh", "pooling", "convolution with its own relu"],
    )
    def test_another_end_is_the_tap_itself(self, end):
        image = keras.Input((8, 8, 3))
        y = end(layers.Activation("relu")(layers.Conv2D(4, 3, name="c")(image)))
        net = BlockNet({"b1": keras.Model(image, y), "head": keras.Model(k := keras.Input(y.shape[1:]), layers.Flatten()(k))})
        for tap in TAPS:
            assert equal([TappedNet(net, tap).run(images())[0]["b1"]], [net.run(images(), stop="b1")])

    def test_a_block_that_is_the_convolution(self):
        net = BlockNet.cut(small(), ["stem_conv", "out2"], ["b0", "b1", "head"])
        taps, _ = TappedNet(net).run(images())
        assert list(taps) == ["stem", "b0", "b1"] and equal([taps["stem"]], [taps["b0"]])

    def test_no_convolution_in_the_first_block_no_stem(self):
        net = BlockNet(
            {"b0": keras.Model(k := keras.Input((8, 8, 3)), layers.Rescaling(2.0)(k)), **{n: cut(small()).block(n) for n in ("b1",)}}
        )
        assert list(TappedNet(net).run(images())[0]) == ["b0"]

    def test_a_net_of_one_block(self):
        model = small()
        taps, logits = TappedNet(BlockNet.cut(model, [])).run(images())
        assert list(taps) == ["stem"] and equal([taps["stem"]], [by_hand(model, images(), "pre_relu")["stem"]])
        assert np.array_equal(logits, model(images()))


class TestNested:
    def units(self) -> tuple[BlockNet, BlockNet]:
        net = BlockNet.cut(small(), ["stem_relu", "out1", "out2"], ["b1_1", "b1_2", "b2_1", "head"])
        return net, net.joined(net.stages())

    @pytest.mark.parametrize("training", [False, True])
    def test_joined_blocks_have_the_taps_of_their_last_unit(self, training):
        net, joined = self.units()
        before = state(net)
        taps, logits = TappedNet(net).run(images(), training=training)
        moved = state(net)
        for v, old in zip(net.variables(), before, strict=True):
            v.assign(old)
        longer, same = TappedNet(joined).run(images(), training=training)
        assert list(longer) == ["stem", "b1", "b2"]
        assert equal([*longer.values(), same], [taps["stem"], taps["b1_2"], taps["b2_1"], logits]) and equal(state(net), moved)
        assert longer["b1"].numpy().min() < 0

    def test_the_joined_net_can_still_be_saved_and_copied(self, tmp_path):
        _, joined = self.units()
        taps, logits = TappedNet(joined).run(images())
        joined.as_model().save(tmp_path / "net.keras")
        loaded = keras.saving.load_model(tmp_path / "net.keras", compile=False, safe_mode=True)
        assert np.array_equal(loaded(images()), logits) and np.array_equal(joined.copy("twin").run(images()), logits)
        # A teacher read from disk: its blocks are models inside a model.
        again = BlockNet(dict(zip(joined.names, loaded.layers[1:], strict=True)))
        assert equal(TappedNet(again).run(images())[0].values(), taps.values())


def test_mixed_bfloat16():
    net = cut(small())
    low = BlockNet({n: rebuilt(net.block(n), policy="mixed_bfloat16") for n in net.names})
    for n in net.names:
        low.block(n).set_weights(net.block(n).get_weights())
    taps, logits = TappedNet(low).run(images())
    assert {t.dtype for t in taps.values()} == {tf.bfloat16} and logits.dtype == tf.float32
    for name, exact in TappedNet(net).run(images())[0].items():
        np.testing.assert_allclose(tf.cast(taps[name], tf.float32), exact, atol=0.05 * np.abs(exact).max())


def test_errors():
    with pytest.raises(UserError, match="unknown tap 'prerelu': did you mean 'pre_relu'"):
        TappedNet(cut(small()), "prerelu")
    named = BlockNet.cut(small(), ["out1"], ["stem", "head"])
    with pytest.raises(UserError, match="a block called 'stem' takes the name of the tap"):
        TappedNet(named)
