"""The task bank's networks: the published counts, every shape, the padding rules, and what every chain of blocks must do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet, multiply_adds, parameters, policies, rebuilt
from amalgam_tf.models.encoder_decoder import decoder, encoder, task_bank
from amalgam_tf.models.folding import folded
from amalgam_tf.models.taps import TappedNet
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Teacher, in_precision

DEPTH = Task("depth_zbuffer", kind="dense", head="dense", labels=("depth",), codec="depth_zbuffer")
BLOCKS = ("b1", "b2", "b3", "b4", "code", "decoder")


def refused(message, call, **options):
    with pytest.raises(UserError, match=message) as caught:
        call(**options)
    assert "\n" not in str(caught.value)


def small(*, channels: int = 2, **options) -> BlockNet:
    keras.utils.set_random_seed(0)
    return task_bank(**{**dict(input_size=32, width=1 / 16, output_stride=8, channels=channels), **options})


@pytest.fixture(scope="module")
def made() -> tuple[BlockNet, np.ndarray]:
    """A narrow network with moved statistics, and images for it."""
    net, x = small(), np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    net.run(x, training=True)
    return net, x


@pytest.fixture(scope="module")
def whole() -> BlockNet:
    return task_bank(channels=1)


class TestPublished:
    def test_counts(self, whole):
        trained = {n: parameters(whole.weights(n, n)) for n in whole.names}
        assert sum(trained[f"b{i}"] for i in range(1, 5)) == 23_508_032
        assert trained["code"] == 3 * 3 * 2048 * 8 + 8 + 8 == 147_472  # gamma and beta are in it, the statistics are not
        assert trained["decoder"] == 16_453_009
        assert (parameters(whole.weights()), parameters(whole.statistics())) == (40_108_513, 60_048)
        assert whole.parameters() == 40_168_561
        assert len(whole.variables()) == 337
        # The paper's student for two tasks: 56.56 M.
        assert round((sum(trained.values()) + trained["decoder"]) / 1e6, 2) == 56.56

    def test_a_decoder_of_three_channels(self):
        last = decoder(code_shape=(4, 4, 8), channels=3)
        assert parameters(last.trainable_variables) == 16_453_299
        assert last.outputs[0].shape == (None, 64, 64, 3)

    def test_shapes(self, whole):
        assert whole.names == BLOCKS
        sides = {"b1": (32, 32, 256), "b2": (16, 16, 512), "b3": (16, 16, 1024), "b4": (16, 16, 2048), "code": (16, 16, 8)}
        assert whole.shapes == {**sides, "decoder": (256, 256, 1)}

    def test_multiply_adds(self, whole):
        """By the tables of the spec: places an output has x what each of them sums."""

        def stage(side, units, read, inner, stride):
            inside = read * inner + 9 * inner * inner + inner * 4 * inner
            later = 2 * 4 * inner * inner + 9 * inner * inner
            cost = side**2 * (inside + read * 4 * inner + (units - 2) * later)  # the unit with the shortcut, and those between
            return cost + side**2 * 4 * inner * inner + (side // stride) ** 2 * (9 * inner * inner + 4 * inner * inner)

        stages = [stage(64, 3, 64, 64, 2), stage(32, 4, 256, 128, 2), stage(16, 6, 512, 256, 1), stage(16, 3, 1024, 512, 1)]
        stages[0] += 128**2 * 49 * 3 * 64
        assert [multiply_adds(whole.block(f"b{i}")) for i in range(1, 5)] == stages
        chain = [8, 1024, 1024, 512, 256, 256, 128, 64, 64, 32, 32, 16, 32, 16, 1]
        places = [16] * 7 + [32, 32, 64, 64, 128, 128, 256]  # of a transposed convolution, those it reads
        sums = sum(p * p * 9 * a * b for p, a, b in zip(places, chain[:-1], chain[1:], strict=True))
        assert multiply_adds(whole.block("decoder")) == sums
        encoded = sum(stages) + 16**2 * 9 * 2048 * 8
        assert (round(encoded / 1e9, 3), round(sums / 1e9, 3)) == (7.616, 4.464)  # as the module says

    def test_layers_are_called_as_the_variables(self, whole):
        names = {layer.name for n in whole.names for layer in whole.block(n).layers}
        assert {"conv1", "conv1_BatchNorm", "block4_unit_3_bottleneck_v1_conv3_BatchNorm", "compress1", "deconv14"} <= names
        shortcuts = {n for n in names if n.endswith("_shortcut")}
        assert shortcuts == {f"block{i}_unit_1_bottleneck_v1_shortcut" for i in range(1, 5)}

    def test_batch_norm(self, whole):
        norms = [x for n in whole.names for x in whole.block(n).layers if isinstance(x, keras.layers.BatchNormalization)]
        assert len(norms) == 1 + 3 * 16 + 4 + 1 + 13
        assert {(x.epsilon, x.momentum, x.center, x.scale, x.synchronized) for x in norms} == {(1e-5, 0.9, True, True, False)}

    def test_synchronized_and_the_same_start(self, made):
        sync, net = small(synchronized=True), made[0]
        norms = [x for n in sync.names for x in sync.block(n).layers if isinstance(x, keras.layers.BatchNormalization)]
        assert len(norms) == 67 and all(x.synchronized for x in norms)
        assert all(np.array_equal(a, b) for a, b in zip(sync.weights(), net.weights(), strict=True))


@pytest.fixture(scope="module")
def by_stride(made) -> dict[int, BlockNet]:
    return {16: small(output_stride=16), 8: made[0], 4: small(output_stride=4)}


class TestStrides:
    @pytest.mark.parametrize(("stride", "sides"), [(16, [4, 2, 2, 2, 2, 32]), (8, [4, 4, 4, 4, 4, 32]), (4, [8, 8, 8, 8, 8, 32])])
    def test_the_code_keeps_its_places(self, by_stride, stride, sides):
        net, channels = by_stride[stride], [16, 32, 64, 128, 8, 2]
        assert list(net.shapes.values()) == [(side, side, c) for side, c in zip(sides, channels, strict=True)]
        assert [tuple(v.shape) for v in net.variables()] == [tuple(v.shape) for v in by_stride[16].variables()]

    def test_where_the_strides_are(self, by_stride):
        def strided(net):
            found = [(x.name, x.strides) for n in net.names for x in net.block(n).layers if getattr(x, "strides", (1, 1)) != (1, 1)]
            assert {s for _, s in found} == {(2, 2)}
            return {n.replace("_bottleneck_v1", "") for n, _ in found}

        always = {"conv1", "pool1", "deconv12", "deconv14"}
        block1 = {"block1_unit_3_conv2", "block1_unit_3_subsample", "deconv10"}
        block2 = {"block2_unit_4_conv2", "block2_unit_4_subsample", "deconv8"}
        assert strided(by_stride[16]) == always | block1 | block2
        assert strided(by_stride[8]) == always | block1
        assert strided(by_stride[4]) == always

    def test_refusals(self):
        refused("output_stride must be 16, 8 or 4, not 32", encoder, output_stride=32)
        refused("output_stride must be 16, 8 or 4, not 2", decoder, code_shape=(4, 4, 8), channels=1, output_stride=2)
        refused("input_size=72 is not a multiple of output_stride=16", task_bank, input_size=72, channels=1)
        refused("input_size=0 is not a multiple", encoder, input_size=0)
        refused("width=0 is no factor on channels", encoder, width=0)
        refused("width=-1 is no factor on channels", decoder, code_shape=(4, 4, 8), channels=1, width=-1)

    def test_width_leaves_code_and_task_as_they_are(self):
        net = small(width=1 / 1024, code_channels=5, channels=3, input_size=40)  # a multiple of the output stride 8, not of 16
        assert net.shapes["b4"][-1] == 2
        assert (net.shapes["code"], net.shapes["decoder"]) == ((5, 5, 5), (40, 40, 3))


class TestAsEveryNetwork:
    def test_taps_range_and_dtype(self, made):
        net, x = made
        taps = net.taps(x)
        assert {n: tuple(t.shape) for n, t in taps.items()} == {n: (4, *s) for n, s in net.shapes.items()}
        assert np.min(taps["code"]) == 0 < np.max(taps["code"])
        written = taps["decoder"].numpy()
        assert written.dtype == np.float32
        assert -1 <= written.min() < 0 < written.max() <= 1
        tapped, output = TappedNet(net).run(x)
        assert list(tapped) == ["stem", *BLOCKS[:-1]] and np.array_equal(output, written)

    def test_variables_are_named_and_split(self, made):
        net, _ = made
        assert len(net.named_variables("student")) == len(net.variables()) == len(net.weights()) + len(net.statistics()) == 337
        assert all(net.weights(i, i) for i in range(len(net)))

    def test_fresh_copy_and_whole(self, made):
        net, x = made
        twin, other = net.copy("twin"), net.fresh("other", seed=1)
        expected = net.run(x)
        assert np.array_equal(twin.run(x), expected)
        assert not {id(v) for v in twin.variables()} & {id(v) for v in net.variables()}
        assert other.shapes == net.shapes and not np.allclose(other.run(x), expected)
        assert np.array_equal(net.as_model()(x), expected)
        assert twin.block("decoder").name == "twin_decoder"

    def test_a_step_lowers_the_loss_and_changes_exactly_the_variables(self, made):
        net, x = made
        net = net.copy("trained")
        truth = tf.constant(np.random.default_rng(1).uniform(-1, 1, (4, 32, 32, 2)), tf.float32)
        before, optimizer, losses = [v.numpy() for v in net.variables()], keras.optimizers.SGD(0.05), []
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((net.run(x, training=True) - truth) ** 2)
            losses.append(float(loss))
            optimizer.apply(tape.gradient(loss, net.weights()), net.weights())
        assert losses[1] < losses[0]
        assert [v.path for v, b in zip(net.variables(), before, strict=True) if np.array_equal(v, b)] == []

    def test_saved_as_a_teacher(self, made, tmp_path):
        net, pixels = small(channels=1), tf.constant(np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3)), tf.float32)
        Teacher("depth", net, (DEPTH,), Preprocessing.named("tf", 32)).save(tmp_path)
        teacher = Teacher.load(tmp_path)
        outputs = teacher.outputs(pixels)
        assert teacher.net.names == BLOCKS and list(outputs) == ["depth_zbuffer"]
        assert outputs["depth_zbuffer"].shape == (3, 32, 32, 1)
        assert np.array_equal(outputs["depth_zbuffer"], net.run(teacher.preprocessing(pixels)))
        np.testing.assert_allclose(outputs["depth_zbuffer"], net.run(pixels / 127.5 - 1), atol=1e-5)

    def test_folded_is_the_same_in_inference(self, made):
        net, x = made
        np.testing.assert_allclose(folded(net).run(x), net.run(x), atol=1e-5)


class TestPrecision:
    def test_the_map_stays_float32(self, made):
        net, x = made
        teacher = Teacher("maps", net, (Task("m", kind="dense", head="dense", labels=("a", "b")),), Preprocessing.named("tf", 32))
        low = in_precision(teacher, "mixed_bfloat16").net
        assert policies(low) == {"mixed_bfloat16"}
        last = low.block("decoder").get_layer("decoder_output")
        assert (last.compute_dtype, last.activation) == ("float32", keras.activations.tanh)
        taps, exact = low.taps(x), net.run(x)
        assert {t.dtype for n, t in taps.items() if n != "decoder"} == {tf.bfloat16}
        assert taps["decoder"].dtype == tf.float32
        np.testing.assert_allclose(taps["decoder"], exact, atol=0.1)
        # More digits than bfloat16 has: the last convolution was not rounded to it.
        assert not np.array_equal(taps["decoder"], tf.cast(tf.cast(taps["decoder"], tf.bfloat16), tf.float32))

    def test_the_global_policy_does_the_same(self, made):
        _, x = made
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            net = small()
        finally:
            keras.config.set_dtype_policy("float32")
        assert policies(net) == {"mixed_bfloat16"}
        assert net.block("decoder").inputs[0].dtype == "bfloat16"
        assert [net.run(x, stop=n).dtype for n in ("code", "decoder")] == [tf.bfloat16, tf.float32]
        assert {v.dtype for v in net.variables()} == {"float32"}

    def test_rebuilt_wider_and_synchronized(self, made):
        """Transposed convolutions follow, the map keeps its channels."""
        old = made[0].block("decoder")
        new = rebuilt(old, width=2, synchronized=True)
        assert (new.get_layer("conv2").filters, new.get_layer("deconv8").filters, new.get_layer("deconv14").filters) == (128, 8, 2)
        assert new.outputs[0].shape == old.outputs[0].shape
        assert new.get_layer("deconv8_BatchNorm").synchronized
