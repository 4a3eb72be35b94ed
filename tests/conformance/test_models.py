"""Every backbone through the same checks. A new backbone joins by one row."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import models
from amalgam_tf.models.blocks import BlockNet, parameters, rebuilt
from amalgam_tf.models.taps import TAPS, TappedNet


class Row(NamedTuple):
    name: str
    size: int
    granularity: str
    width: float
    blocks: int  # the head included


ROWS = [
    Row("resnet8", 16, "stage", 1.0, 4),
    Row("resnet14", 16, "unit", 0.5, 7),
    Row("resnet18", 64, "unit", 0.25, 9),
    Row("resnet50", 32, "stage", 1.0, 5),
    Row("densenet121", 32, "stage", 1.0, 5),
    Row("densenet121", 32, "unit", 0.125, 59),
]
OUTPUTS = 5


def build(row: Row, **options) -> BlockNet:
    keras.utils.set_random_seed(0)
    return models.classifier(row.name, input_size=row.size, outputs=OUTPUTS, granularity=row.granularity, width=row.width, **options)


@pytest.fixture(scope="module", params=ROWS, ids=lambda r: f"{r.name}-{r.granularity}")
def made(request) -> tuple[Row, BlockNet, np.ndarray]:
    """A network with moved statistics, and images for it."""
    row = request.param
    net = build(row)
    x = np.random.default_rng(0).normal(size=(4, row.size, row.size, 3)).astype(np.float32)
    net.run(x, training=True)
    return row, net, x


def test_names_and_shapes(made):
    row, net, x = made
    assert len(net) == row.blocks
    assert net.names[-1] == "head"
    taps = net.taps(x)
    assert {n: tuple(t.shape) for n, t in taps.items()} == {n: (len(x), *s) for n, s in net.shapes.items()}
    assert net.shapes["head"] == (OUTPUTS,)
    assert taps["head"].dtype == tf.float32
    assert np.isfinite(taps["head"]).all()


@pytest.mark.parametrize("tap", TAPS)
def test_taps_beside_the_same_output(made, tap):
    """In front of a ReLU or not, the rest of the network reads what it always read; the stem is the raw convolution."""
    _, net, x = made
    taps, logits = TappedNet(net, tap).run(x)
    assert list(taps) == ["stem", *net.names[:-1]]
    assert np.array_equal(logits, net.run(x))
    outputs, behind = net.taps(x), []
    for name in net.names[:-1]:
        behind.append(np.array_equal(tf.nn.relu(taps[name]), outputs[name]) and not np.array_equal(taps[name], outputs[name]))
        assert behind[-1] or np.array_equal(taps[name], outputs[name])
    # Every unit of a ResNet ends in a ReLU, of a DenseNet only the last stage.
    ends = [net.names[0].startswith("b") and "resnet" in net.block(0).name or name == net.names[-2] for name in net.names[:-1]]
    assert behind == (ends if tap == "pre_relu" else [False] * len(behind))
    model = net.block(0)
    conv = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    padded = [layer for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)][:1] if conv.padding == "valid" else []
    assert np.array_equal(taps["stem"], conv(padded[0](x) if padded else x))


def test_variables_are_named_and_split(made):
    _, net, _ = made
    assert len(net.named_variables("student")) == len(net.variables()) == len(net.weights()) + len(net.statistics())
    assert net.parameters() == parameters(net.weights()) + parameters(net.statistics())
    assert all(net.weights(i, i) for i in range(len(net)))


def test_same_seed_same_network(made):
    row, net, x = made
    again = build(row)
    assert all(np.array_equal(a, b) for a, b in zip(again.weights(), net.weights(), strict=True))


def test_save_and_load(made, tmp_path):
    _, net, x = made
    net.as_model().save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras", compile=False, safe_mode=True)
    assert np.array_equal(loaded(x), net.run(x))


def test_copy_is_equal(made):
    _, net, x = made
    assert np.array_equal(net.copy("twin").run(x), net.run(x))


def test_a_step_lowers_the_loss_and_changes_exactly_the_variables(made):
    _, net, x = made
    net = net.copy("trained")
    truth = np.random.default_rng(1).integers(0, 2, (len(x), OUTPUTS)).astype(np.float32)
    before = [v.numpy() for v in net.variables()]

    def loss():
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(truth, net.run(x, training=True)))

    optimizer, losses = keras.optimizers.SGD(0.01), []
    for _ in range(2):
        with tf.GradientTape() as tape:
            value = loss()
        losses.append(float(value))
        optimizer.apply(tape.gradient(value, net.weights()), net.weights())
    assert losses[1] < losses[0]
    still = [v.path for v, b in zip(net.variables(), before, strict=True) if np.array_equal(v, b)]
    # A bias in front of batch norm has no gradient but round-off; everything else moves.
    assert [p for p in still if not p.endswith("conv/bias")] == []


def test_mixed_bfloat16_keeps_the_logits_exact(made):
    _, net, x = made
    low = BlockNet({n: rebuilt(net.block(n), policy="mixed_bfloat16") for n in net.names})
    for n in net.names:
        low.block(n).set_weights(net.block(n).get_weights())
    taps = low.taps(x)
    assert {t.dtype for n, t in taps.items() if n != "head"} == {tf.bfloat16}
    assert taps["head"].dtype == tf.float32
    exact = net.run(x).numpy()
    np.testing.assert_allclose(taps["head"], exact, atol=0.05 * np.abs(exact).max() + 0.01)


def test_the_global_policy_does_the_same(made):
    row, _, x = made
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        net = build(row)
    finally:
        keras.config.set_dtype_policy("float32")
    taps = net.taps(x)
    assert (taps[net.names[0]].dtype, taps["head"].dtype) == (tf.bfloat16, tf.float32)


def test_synchronized_gives_the_same_outputs(made):
    row, net, x = made
    sync = build(row, synchronized=True)
    for n in net.names:
        sync.block(n).set_weights(net.block(n).get_weights())
    norms = [layer for n in sync.names for layer in sync.block(n).layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert all(layer.synchronized for layer in norms)
    assert np.array_equal(sync.run(x), net.run(x))
