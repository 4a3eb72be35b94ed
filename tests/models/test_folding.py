"""Folded batch norm: equal outputs, fewer layers, and nothing shared with the original."""

import keras
from keras import layers
import numpy as np
import pytest

from amalgam_tf import models
from amalgam_tf.models import folding
from amalgam_tf.models.blocks import BlockNet, policies, rebuilt


def randomised(net: BlockNet, seed: int) -> BlockNet:
    """Statistics, scales and shifts far from their start, where a wrong formula could hide."""
    rng = np.random.default_rng(seed)
    for v in net.variables():
        if len(v.shape) == 1:
            v.assign(rng.uniform(0.5, 2.0, v.shape) * (1 if "variance" in v.path or "gamma" in v.path else rng.choice([-1, 1], v.shape)))
    return net


def batch_norms(net: BlockNet) -> int:
    return sum(isinstance(x, layers.BatchNormalization) for n in net.names for x in net.block(n)._flatten_layers(include_self=False))


@pytest.mark.parametrize(
    ("backbone", "granularity", "left"),
    [("resnet8", "unit", 0), ("resnet18", "stage", 0), ("resnet50", "stage", 0), ("densenet121", "stage", 62)],
)
def test_outputs_are_equal(backbone, granularity, left):
    net = randomised(models.classifier(backbone, input_size=32, outputs=3, granularity=granularity, width=0.25), 0)
    folded = folding.folded(net)
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    assert batch_norms(net) > left == batch_norms(folded) and folded.names == net.names and folded.shapes == net.shapes
    for (name, mine), theirs in zip(folded.taps(x).items(), net.taps(x).values(), strict=True):
        theirs = np.asarray(theirs)
        np.testing.assert_allclose(mine, theirs, atol=2e-5 * np.abs(theirs).max(), err_msg=name)
    shared = {id(v) for v in net.variables()} & {id(v) for v in folded.variables()}
    assert not shared


def test_a_range_and_joined_blocks():
    net = randomised(models.classifier("resnet14", input_size=16, outputs=3, granularity="unit", width=0.5), 2)
    part = folding.folded(net, "b2_1", "b3_2")
    assert part.names == ("b2_1", "b2_2", "b3_1", "b3_2")
    joined = folding.folded(net.joined(net.stages()))  # blocks of nested models
    x = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    assert batch_norms(joined) == 0
    np.testing.assert_allclose(joined.run(x), net.run(x), atol=1e-5 * float(np.abs(net.run(x)).max()))


def test_what_must_not_be_folded_stays():
    image = keras.Input((8, 8, 3))
    relu = layers.BatchNormalization(name="behind_relu")(layers.Conv2D(4, 3, activation="relu")(image))
    two = layers.Conv2D(4, 1, name="read_twice")(relu)
    both = layers.Add()([layers.BatchNormalization(name="one_of_two")(two), two])
    end = layers.Conv2D(4, 1, name="end")(both)
    bare = layers.BatchNormalization(name="good", scale=False, center=False)(layers.Conv2D(2, 1, use_bias=False, name="c")(end))
    model = keras.Model(image, bare)
    assert [(bn.name, conv.name) for bn, conv in folding.foldable(model)] == [("good", "c")]
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(folding.folded_model(model)(x), model(x), atol=1e-5)
    cut_behind_conv = BlockNet.cut(model, ["c"])  # the convolution's output leaves its block
    assert folding.foldable(cut_behind_conv.block(0)) == [] == folding.foldable(cut_behind_conv.block(1))


def test_policy_is_kept():
    net = models.classifier("resnet8", input_size=16, outputs=3, granularity="stage", width=0.5)
    low = BlockNet({n: rebuilt(net.block(n), policy="mixed_bfloat16", inputs="bfloat16" if i else None) for i, n in enumerate(net.names)})
    assert policies(folding.folded(low)) == {"mixed_bfloat16"}
