"""The block protocol: cutting, running, variables, copies."""

import keras
from keras import layers
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet, multiply_adds, named_variables, parameters, rebuilt, safe_name


def small(name: str = "net", channels: int = 4, outputs: int = 3) -> keras.Model:
    """Two residual units and a head on [8, 8, 3]; with batch norm and dropout, so that `training` matters."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name="stem")(image)
    for i in (1, 2):
        y = layers.BatchNormalization(name=f"bn{i}")(layers.Conv2D(channels, 3, padding="same", name=f"conv{i}")(x))
        x = layers.Activation("relu", name=f"out{i}")(layers.Add(name=f"add{i}")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(outputs, dtype="float32", name="logits")(x), name=name)


def net(seed: int = 0, **options) -> BlockNet:
    keras.utils.set_random_seed(seed)
    return BlockNet.cut(small(**options), ["out1", "out2"], ["b1", "b2", "head"])


def images(count: int = 5, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=(count, 8, 8, 3)), tf.float32)


def values(variables) -> list[np.ndarray]:
    return [v.numpy().copy() for v in variables]


def same(a, b) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


class TestCut:
    @pytest.mark.parametrize("training", [False, True])
    def test_blocks_composed_equal_the_whole_bit_for_bit(self, training):
        model = small()
        cut, x = BlockNet.cut(model, ["out1", "out2"]), images()
        before = model.get_weights()
        whole = model(x, training=training).numpy()
        moved = model.get_weights()
        model.set_weights(before)
        assert np.array_equal(cut.run(x, training=training).numpy(), whole)
        assert same(model.get_weights(), moved)
        assert same(moved, before) is not training  # batch norm moves in training and only there

    def test_weights_are_the_same_variables(self):
        model = small()
        cut = BlockNet.cut(model, ["out1", "out2"])
        assert {id(v) for v in cut.variables()} == {id(v) for v in model.variables}

    def test_names(self):
        assert BlockNet.cut(small(), ["out1", "out2"]).names == ("out1", "out2", "head")
        assert net().names == ("b1", "b2", "head")
        assert [net().block(i).name for i in range(3)] == ["net_b1", "net_b2", "net_head"]
        with pytest.raises(UserError, match="1 cuts make 2 blocks, but 3 block names"):
            BlockNet.cut(small(), ["out1"], ["a", "b", "c"])

    def test_unknown_layer(self):
        with pytest.raises(UserError, match="no layer out9 to cut at; its last layers are .*pool, logits"):
            BlockNet.cut(small(), ["out1", "out9"])

    @pytest.mark.parametrize("crossed", ["conv1", "bn2"])
    def test_a_cut_that_a_skip_connection_crosses(self, crossed):
        with pytest.raises(UserError, match="a connection goes past the cut"):
            BlockNet.cut(small(), [crossed])

    def test_cuts_out_of_order(self):
        with pytest.raises(UserError):
            BlockNet.cut(small(), ["out2", "out1"])


class TestFit:
    def test_blocks_that_do_not_fit(self):
        narrow, wide = net(), net(channels=6)
        with pytest.raises(UserError, match=r"block 'b2' reads \(8, 8, 6\) but block 'b1' before it writes \(8, 8, 4\)"):
            BlockNet({"b1": narrow.block("b1"), "b2": wide.block("b2")})

    def test_no_blocks(self):
        with pytest.raises(UserError, match="at least one block"):
            BlockNet({})


class TestRanges:
    def test_names_and_positions_and_inclusive_stop(self):
        cut, x = net(), images()
        y1 = cut.block("b1")(x)
        y2 = cut.block("b2")(y1)
        y3 = cut.block("head")(y2)
        for stop, y in zip((0, 1, 2), (y1, y2, y3), strict=True):
            assert np.array_equal(cut.run(x, stop=stop), y)
            assert np.array_equal(cut.run(x, stop=cut.names[stop]), y)
        assert np.array_equal(cut.run(y1, start="b2"), y3)
        assert np.array_equal(cut.run(y1, start=1, stop="b2"), y2)
        assert np.array_equal(cut.run(y2, start=2), y3)

    def test_behind_the_end_and_before_the_start_is_the_identity(self):
        cut, x = net(), images()
        assert cut.run(x, start=3) is x
        assert cut.run(x, start=7) is x
        assert cut.run(x, stop=-1) is x
        assert cut.taps(x, start=3) == {}
        assert cut.variables(3) == cut.weights(3) == cut.statistics(3) == []
        assert cut.parameters(3) == 0

    def test_taps_are_all_outputs_in_order(self):
        cut, x = net(), images()
        taps = cut.taps(x)
        assert list(taps) == ["b1", "b2", "head"]
        assert all(np.array_equal(taps[n], cut.run(x, stop=n)) for n in cut.names)
        assert list(cut.taps(taps["b1"], start="b2", stop="b2")) == ["b2"]

    def test_unknown_name(self):
        with pytest.raises(UserError, match="there is no block 'b9'; the blocks are b1, b2, head"):
            net().run(images(), stop="b9")

    def test_shapes_are_known_before_any_call(self):
        cut = net()
        assert cut.shapes == {"b1": (8, 8, 4), "b2": (8, 8, 4), "head": (3,)}
        assert {n: t.shape[1:] for n, t in cut.taps(images()).items()} == cut.shapes

    def test_part_shares_its_variables(self):
        cut, x = net(), images()
        part = cut.part(start="b2")
        assert part.names == ("b2", "head")
        assert [id(v) for v in part.variables()] == [id(v) for v in cut.variables("b2")]
        assert np.array_equal(part.run(cut.run(x, stop="b1")), cut.run(x))


class TestGradients:
    def test_through_a_foreign_suffix_only_the_prefix_is_trained(self):
        student, teacher, x = net(1), net(2), images()
        before, weights = values(teacher.variables()), student.weights(stop=0)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([v.value for v in weights])
            loss = tf.reduce_sum(teacher.run(student.run(x, stop=0, training=True), start=1) ** 2)
        gradients = tape.gradient(loss, weights)
        assert len(gradients) == 5  # stem, conv1 and its bias, gamma and beta
        kernel = next(i for i, v in enumerate(weights) if "stem" in v.path)
        assert all(g is not None for g in gradients)
        # The gradient is the right one: along the stem's kernel it predicts the change of the loss.
        direction = np.random.default_rng(3).normal(size=weights[kernel].shape).astype(np.float32)
        start, step, found = weights[kernel].numpy(), 1e-2, []
        for sign in (1, -1):
            weights[kernel].assign(start + sign * step * direction)
            found.append(float(tf.reduce_sum(teacher.run(student.run(x, stop=0, training=True), start=1) ** 2)))
        assert abs(found[0] - found[1]) > 1e-3
        np.testing.assert_allclose((found[0] - found[1]) / (2 * step), np.sum(gradients[kernel] * direction), rtol=0.02)
        assert same(values(teacher.variables()), before)

    def test_the_suffix_is_not_in_the_prefix_weights(self):
        student = net()
        assert not {id(v) for v in student.weights(stop="b1")} & {id(v) for v in student.variables("b2")}


class TestVariables:
    def test_weights_and_statistics_partition_the_variables(self):
        model = small()
        x = layers.Dropout(0.5, name="drop")(model.layers[-2].output)
        cut = BlockNet.cut(keras.Model(model.input, layers.Dense(2, name="end")(x)), ["out1", "out2"])
        weights, statistics = cut.weights(), cut.statistics()
        assert [id(v) for v in cut.variables()] == [i for i in map(id, cut.variables()) if i in {*map(id, weights), *map(id, statistics)}]
        assert not {*map(id, weights)} & {*map(id, statistics)}
        assert len(weights) + len(statistics) == len(cut.variables())
        assert sorted(v.path.split("/")[-1] for v in statistics) == ["moving_mean"] * 2 + ["moving_variance"] * 2 + ["seed_generator_state"]
        assert cut.parameters() == 3 * 3 * 3 * 4 + 2 * (3 * 3 * 4 * 4 + 4 + 4 * 4) + 4 * 2 + 2  # the seed state does not count
        assert cut.parameters() == sum(cut.parameters(i, i) for i in range(3))
        assert parameters(statistics) == 2 * 2 * 4

    def test_training_moves_the_statistics_and_inference_nothing(self):
        cut, x = net(), images()
        before = values(cut.variables())
        cut.run(x)
        assert same(values(cut.variables()), before)
        weights = values(cut.weights())
        statistics = values(cut.statistics())
        cut.run(x, training=True)
        assert same(values(cut.weights()), weights)
        assert not any(np.array_equal(a, b) for a, b in zip(values(cut.statistics()), statistics, strict=True))

    def test_named_variables(self):
        cut = net()
        named = cut.named_variables("student")
        assert len(named) == len(cut.variables())
        assert {id(v) for v in named.values()} == {id(v) for v in cut.variables()}
        assert all(name.split("/")[:2] == ["student", b] for b in cut.names for name in cut.part(b, b).named_variables("student"))
        assert not set(named) & set(cut.copy("other").named_variables("teacher"))

    def test_names_do_not_depend_on_what_was_built_before(self):
        def noisy():
            image = keras.Input((4,))
            x = layers.Dropout(0.1, name="drop2")(layers.Dropout(0.1, name="drop1")(image))
            return keras.Model(image, layers.Dense(2, name="end")(x))

        first, second = (named_variables(noisy(), "student/b1") for _ in range(2))
        assert list(first) == list(second)
        assert len(first) == 4
        assert {id(v) for v in first.values()}.isdisjoint({id(v) for v in second.values()})


class TestCopies:
    def test_copy_is_equal_and_independent(self):
        cut, x = net(), images()
        cut.run(x, training=True)  # moves the statistics away from their start
        twin = cut.copy("twin")
        assert twin.names == cut.names
        assert [b.name for b in map(twin.block, twin.names)] == ["twin_b1", "twin_b2", "twin_head"]
        assert same(values(twin.variables()), values(cut.variables()))
        assert np.array_equal(twin.run(x), cut.run(x))
        assert not {*map(id, twin.variables())} & {*map(id, cut.variables())}
        before = values(cut.variables())
        for v in twin.variables():
            v.assign(v + 1)
        assert same(values(cut.variables()), before)

    def test_fresh_is_a_function_of_the_seed(self):
        cut = net()
        a, b, c = (values(cut.fresh("x", seed=s).weights()) for s in (7, 7, 8))
        assert same(a, b)
        kernels = [i for i, v in enumerate(cut.weights()) if v.path.endswith("kernel")]
        assert len(kernels) == 4
        for i in kernels:
            assert not np.array_equal(a[i], c[i])
            assert not np.array_equal(a[i], values(cut.weights())[i])

    def test_as_model_is_the_same_function_over_the_same_weights(self):
        cut, x = net(), images()
        model = cut.as_model("whole net")
        assert model.name == safe_name("whole net") == "whole_net"
        assert np.array_equal(model(x), cut.run(x))
        assert {*map(id, model.variables)} == {*map(id, cut.variables())}

    def test_save_and_load(self, tmp_path):
        cut, x = net(), images()
        cut.run(x, training=True)
        cut.as_model().save(tmp_path / "net.keras")
        loaded = keras.saving.load_model(tmp_path / "net.keras", compile=False, safe_mode=True)
        assert same(values(loaded.variables), values(cut.variables()))
        assert np.array_equal(loaded(x), cut.run(x))


class TestRebuilt:
    def test_width_scales_every_convolution_and_what_follows(self):
        new = rebuilt(small(), width=2.5)
        assert [new.get_layer(n).filters for n in ("stem", "conv1", "conv2")] == [10, 10, 10]
        assert new.output.shape == (None, 3)
        assert parameters(new.variables) == 3 * 3 * 3 * 10 + 2 * (3 * 3 * 10 * 10 + 10 + 4 * 10) + 10 * 3 + 3
        assert rebuilt(small(), width=0.01).get_layer("stem").filters == 1

    def test_synchronized(self):
        model, x = small(), images()
        new = rebuilt(model, name="sync", synchronized=True)
        assert (new.name, new.get_layer("bn1").synchronized, model.get_layer("bn1").synchronized) == ("sync", True, False)
        new.set_weights(model.get_weights())
        assert np.array_equal(new(x), model(x))
        np.testing.assert_allclose(new(x, training=True), model(x, training=True), rtol=1e-5, atol=1e-6)

    def test_policy_leaves_the_dense_layers_alone(self):
        model, x = small(), images()
        new = rebuilt(model, policy="mixed_bfloat16")
        new.set_weights(model.get_weights())
        assert new.get_layer("conv1").compute_dtype == "bfloat16"
        assert {v.dtype for v in new.variables} == {"float32"}
        assert new.get_layer("pool")(tf.zeros((1, 8, 8, 4))).dtype == tf.bfloat16
        out = new(x)
        assert out.dtype == tf.float32
        np.testing.assert_allclose(out, model(x), atol=0.05)
        assert not np.array_equal(out, model(x))

    def test_nested_models_are_rebuilt_inside(self):
        whole = net().as_model()
        new = rebuilt(whole, synchronized=True, policy="mixed_bfloat16")
        inner = new.get_layer("net_b1").get_layer("bn1")
        assert (inner.synchronized, inner.compute_dtype) == (True, "bfloat16")


class TestMultiplyAdds:
    def test_by_hand(self):
        image = keras.Input((8, 6, 3))
        x = layers.Conv2D(4, 3, strides=2, padding="same")(image)  # 4 x 3 places
        x = layers.BatchNormalization()(x)
        x = layers.DepthwiseConv2D(3, padding="same")(x)
        x = layers.Conv2D(6, 1, groups=2)(x)
        x = layers.Dense(5)(layers.Flatten()(x))
        conv, depthwise, grouped, dense = 4 * 3 * 3 * 3 * 3 * 4, 4 * 3 * 3 * 3 * 4, 4 * 3 * 2 * 6, 4 * 3 * 6 * 5
        assert multiply_adds(keras.Model(image, x)) == conv + depthwise + grouped + dense

    def test_transposed_convolution_counts_by_its_input(self):
        image = keras.Input((4, 4, 3))
        assert multiply_adds(keras.Model(image, layers.Conv2DTranspose(5, 3, strides=2, padding="same")(image))) == 4 * 4 * 3 * 3 * 3 * 5

    def test_blocks_add_up_to_the_whole_nested_or_not(self):
        model = small()
        cut = BlockNet.cut(model, ["out1", "out2"])
        by_hand = 8 * 8 * 9 * (3 * 4 + 2 * 4 * 4) + 4 * 3
        assert multiply_adds(model) == multiply_adds(cut.as_model()) == sum(multiply_adds(cut.block(n)) for n in cut.names) == by_hand

    def test_a_free_size_is_refused(self):
        image = keras.Input((None, None, 3))
        with pytest.raises(UserError, match="has no fixed size"):
            multiply_adds(keras.Model(image, layers.Conv2D(2, 3, name="c")(image)))


class TestJoined:
    def units(self):
        keras.utils.set_random_seed(0)
        return BlockNet.cut(small(), ["stem", "out1", "out2"], ["b1_1", "b1_2", "b2_1", "head"])

    @pytest.mark.parametrize("training", [False, True])
    def test_longer_blocks_are_the_same_function_of_the_same_weights(self, training):
        net, x = self.units(), images()
        joined = net.joined({"early": "b1_2", "late": "b2_1"})
        assert joined.names == ("early", "late", "head") and {id(v) for v in joined.variables()} == {id(v) for v in net.variables()}
        assert np.array_equal(joined.run(x, stop="early"), net.run(x, stop="b1_2"))
        before = values(net.variables())
        whole = net.run(x, training=training).numpy()
        moved = values(net.variables())
        for v, old in zip(net.variables(), before, strict=True):
            v.assign(old)
        assert np.array_equal(joined.run(x, training=training), whole) and same(values(net.variables()), moved)

    def test_joined_blocks_can_be_copied_and_begun_anew(self):
        joined, x = self.units().joined({"early": "b1_2", "late": "b2_1"}), images()
        assert np.array_equal(joined.copy("twin").run(x), joined.run(x))
        assert not np.array_equal(joined.fresh("other", seed=5).run(x), joined.run(x))

    def test_stages_end_with_their_last_unit(self):
        assert self.units().stages() == {"b1": "b1_2", "b2": "b2_1"}
        with pytest.raises(UserError, match="the blocks b1, b2 are not units"):
            net().stages()

    @pytest.mark.parametrize("ends", [{"a": "b2_1", "b": "b1_2"}, {"a": "b1_2"}, {"a": "b1_2", "b": "head"}, {"a": "nosuch"}])
    def test_ends_that_make_no_network(self, ends):
        with pytest.raises(UserError, match="b1_1, b1_2, b2_1, head"):
            self.units().joined(ends)
