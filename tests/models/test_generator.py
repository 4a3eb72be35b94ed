"""Group-stack generators against the table of spec G4: shapes, sizes, ranges, normalisers; and copies that do not move."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.models import generator as module
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.models.generator import generator, unmoved

SMALL = {"b1": (16, 16, 8), "b2": (8, 8, 16), "b3": (4, 4, 32)}  # a resnet8 of half width at 16 px
RESNET50 = {"b1": (56, 56, 256), "b2": (28, 28, 512), "b3": (14, 14, 1024), "b4": (7, 7, 2048)}


def codes(n=16, z_dim=8, seed=0):
    return tf.constant(np.random.default_rng(seed).standard_normal((n, z_dim)), tf.float32)


def test_a_group_writes_negative_features_where_its_block_does():
    """b2 ends in a pooling, say; g1 imitates it."""
    net = generator(SMALL, 16, ["b2"], z_dim=8)
    written = net.taps(codes(), training=True)
    assert float(tf.reduce_min(written["g1"])) < 0 == float(tf.reduce_min(written["g2"]))


@pytest.fixture(scope="module")
def small() -> BlockNet:
    keras.utils.set_random_seed(0)
    return generator(SMALL, 16, z_dim=8, width=2.0)


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        (SMALL, 16),
        (RESNET50, 224),
        ({"b1": (16, 16, 64), "b2": (8, 8, 128), "b3": (4, 4, 256), "b4": (2, 2, 512)}, 64),  # a ResNet-18 at 64 px
        ({"b1": (19, 19, 16), "b2": (10, 10, 24), "b3": (5, 5, 32)}, 75),  # odd sizes lose a row
        ({"b1": (7, 5, 16), "b2": (1, 1, 24), "b3": (1, 1, 8)}, 28),  # not square, from a single place
    ],
)
def test_groups_write_what_the_teachers_blocks_write_in_reverse(shapes, size):
    net = generator(shapes, size, z_dim=8, width=0.25)
    expected = [tuple(s) for s in list(shapes.values())[-2::-1]] + [(size, size, 3)]
    assert list(net.shapes.values()) == expected and net.names == tuple(f"g{j + 1}" for j in range(len(shapes)))
    assert net.block(0).inputs[0].shape == (None, 8)


def test_parameters_are_those_of_the_spec():
    """Section 6: about 11.1, 7.1, 1.8 and 0.4 million at 224 px with z of 256."""
    net = generator(RESNET50, 224, z_dim=256)
    millions = [net.parameters(name, name) / 1e6 for name in net.names]
    assert millions == pytest.approx([11.1, 7.1, 1.8, 0.4], abs=0.06)


def test_one_block_makes_dafls_generator():
    """FC z -> 128 x (S/4)^2, BN, up, conv 128, BN, LReLU, up, conv 64, BN, LReLU, conv 3, tanh, BN without affine."""
    net = generator({"b1": (4, 4, 32)}, 32, z_dim=100)
    weights = 100 * 128 * 64 + 9 * (128 * 128 + 128 * 64 + 64 * 3) + 3
    norms = 4 * (128 + 128 + 64) + 2 * 3
    assert net.names == ("g1",) and net.shapes == {"g1": (32, 32, 3)} and net.parameters() == weights + norms
    kinds = [type(x).__name__ for x in net.block(0).layers if not isinstance(x, keras.layers.InputLayer | keras.layers.Reshape)]
    middle = ["UpSampling2D", "Conv2D", "BatchNormalization", "LeakyReLU"]
    assert kinds == ["Dense", "BatchNormalization", *middle, *middle, "Conv2D", "BatchNormalization", "Rescaling"]


def test_features_are_not_negative_and_images_are_centred(small):
    """Over the batch every channel of the image has mean 0 and variance 1, read by `centred`; tanh alone could not reach beyond 1."""
    taps = small.taps(codes(64), training=True)
    assert all(float(tf.reduce_min(taps[g])) == 0 for g in ("g1", "g2"))
    image = Preprocessing.named("centred", 16)(taps["g3"]).numpy()
    np.testing.assert_allclose(image.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(image.var((0, 1, 2)), 1, atol=1e-2)
    assert np.abs(image).max() > 1 and taps["g3"].dtype == tf.float32
    assert not any("gamma" in v.path or "beta" in v.path for v in small.block("g3").variables if "image_bn" in v.path)


def test_gradients_reach_every_group(small):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(small.run(codes(), training=True) ** 3)
    gradients = tape.gradient(loss, [v.value for v in small.weights()])
    assert all(float(tf.reduce_max(tf.abs(g))) > 0 for v, g in zip(small.weights(), gradients, strict=True) if "kernel" in v.path)


def test_literal_epsilon_is_that_of_the_inner_norms():
    net = generator(SMALL, 16, z_dim=8, bn_eps=0.8)
    found = [(x.name, x.epsilon) for n in net.names for x in net.block(n).layers if isinstance(x, keras.layers.BatchNormalization)]
    assert [e for name, e in found if name in ("dense_bn", "image_bn")] == [1e-5] * 2
    assert [e for name, e in found if name not in ("dense_bn", "image_bn")] == [0.8] * 5


def test_is_a_block_net_like_any_other(small):
    copy = small.copy("again")
    np.testing.assert_array_equal(copy.run(codes()), small.run(codes()))
    assert len(small.named_variables("g")) == len(small.variables())
    several = generator(SMALL, 16, z_dim=8, synchronized=True)
    assert all(x.synchronized for n in several.names for x in several.block(n).layers if isinstance(x, keras.layers.BatchNormalization))


def test_unmoved_normalises_by_the_batch_and_stays(small):
    net, z = small.copy("moving"), codes()
    still = unmoved(net, "still")
    before = [v.numpy() for v in still.variables()]
    image = still.run(z, training=True)
    np.testing.assert_array_equal([np.array_equal(a, v) for a, v in zip(before, still.variables(), strict=True)], True)
    np.testing.assert_array_equal(image, net.run(z, training=True))
    assert not np.allclose(image, still.run(z))
    assert not all(np.array_equal(a, v) for a, v in zip(before, net.variables(), strict=True)), "the generator itself does move"


def test_pixels_are_what_centred_reads():
    """The scale of the last layer is that of `centred`; otherwise images would not have the range of real ones."""
    centred = Preprocessing.named("centred", 8)
    assert (centred.mean, centred.std) == ((module.MEAN,) * 3, (module.STD,) * 3)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ({"b1": (4, 4, 8), "b2": (8, 8, 8), "b3": (2, 2, 8)}, {}, "makes maps larger, but .8, 8. comes before .4, 4."),
        ({"b1": (32, 32, 8), "b2": (4, 4, 8)}, {}, "makes maps larger, but .32, 32. comes before .16, 16."),
        ({"b1": (12,), "b2": (4, 4, 8)}, {}, "block b1 writes .12,."),
        ({"b1": (None, None, 8), "b2": (4, 4, 8)}, {}, "maps .* of known size"),
        (SMALL, {"z_dim": 0}, "gen.z_dim=0"),
        (SMALL, {"width": 0.0}, "gen.width=0.0"),
        (SMALL, {"bn_eps": -1.0}, "gen.bn_eps=-1.0"),
    ],
)
def test_what_cannot_be_generated(shapes, options, message):
    with pytest.raises(UserError, match=message):
        generator(shapes, 16, **options)
