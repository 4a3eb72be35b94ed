"""Prefix features: equal to the student's own forward pass, the same bits wherever they start, within their limits."""

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import models
from amalgam_tf.data import pipeline
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet, rebuilt
from amalgam_tf.prefix import Prefix

N = 70  # a full chunk and a padded one


@pytest.fixture(scope="module")
def net():
    net, rng = models.classifier("resnet8", input_size=16, outputs=3, granularity="unit", width=0.5), np.random.default_rng(0)
    for v in net.variables():
        if "moving_variance" in v.path or "gamma" in v.path:
            v.assign(rng.uniform(0.5, 2, v.shape))
    return net


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (N, 16, 16, 3), np.uint8)


def prefix(net, images, folder, memory_gb=1.0, disk_gb=0.0, views=2):
    return Prefix(net, images, views, Preprocessing.named("centred", 16), folder, memory_gb, disk_gb)


def by_hand(net, images, k):
    views = np.stack([images, images[:, :, ::-1]]).astype(np.float32)
    return np.stack([np.asarray(net.run(Preprocessing.named("centred", 16)(tf.constant(v)), stop=k - 1)) for v in views])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_equals_a_forward_pass(net, images, tmp_path, k):
    rows, expected = prefix(net, images, tmp_path).rows(k), by_hand(net, images, k)
    assert rows.shape == expected.shape
    view, index = np.array([0, 1, 1]), np.array([3, 69, 3])
    np.testing.assert_allclose(rows[view, index], expected[view, index], atol=1e-5 * expected.max())
    assert not np.allclose(expected[0, 3], expected[1, 3])  # the views differ


def test_the_same_bits_wherever_a_run_resumes(net, images, tmp_path):
    through = prefix(net, images, tmp_path)
    steps = [through.at(k).copy() for k in (1, 2, 3)]
    for k, rows in enumerate(steps, 1):
        np.testing.assert_array_equal(prefix(net, images, tmp_path).at(k), rows)
    on_disk = prefix(net, images, tmp_path, memory_gb=0.0, disk_gb=1.0)
    assert isinstance(on_disk.at(3), np.memmap)
    np.testing.assert_array_equal(on_disk.at(3), steps[2])
    assert list(tmp_path.iterdir()) == []  # nothing stays behind, not even after a kill


def test_low_precision_is_kept_as_it_is(net, images, tmp_path):
    blocks = {n: rebuilt(net.block(n), policy="mixed_bfloat16", inputs="bfloat16" if i else None) for i, n in enumerate(net.names)}
    rows = prefix(BlockNet(blocks), images, tmp_path, views=1).rows(2)
    assert rows[np.array([0]), np.array([5])].dtype.name == "bfloat16"
    batches = pipeline.Batches(images, 4, 0, views=1, viewed={"prefix": rows})
    batch = next(iter(batches.dataset(0, 1)))
    assert batch["prefix"].dtype == tf.bfloat16
    np.testing.assert_array_equal(batch["prefix"], rows[np.zeros(4, int), batches.indices(0)])


def test_limits_decide_and_stay_decided(net, images, tmp_path):
    small, large = prefix(net, images, tmp_path).bytes(3) / 1e9, prefix(net, images, tmp_path).bytes(1) / 1e9
    assert large == 2 * N * 16 * 16 * 8 * 4 / 1e9 > small  # views x images x height x width x channels x float32
    rooms = [prefix(net, images, tmp_path, memory_gb=2 * small, disk_gb=d).room(k) for d in (0.0, 2 * large) for k in (0, 1, 3)]
    assert rooms == ["step", "step", "memory", "step", "disk", "memory"]
    assert prefix(net, images, tmp_path, memory_gb=1.9 * small).rows(3) is None
    limited = prefix(net, images, tmp_path, memory_gb=2 * small)
    assert limited.rows(1) is None
    np.testing.assert_array_equal(limited.at(3), prefix(net, images, tmp_path).at(3))


def test_nothing_is_computed_before_it_is_looked_at(net, images, tmp_path, monkeypatch):
    lazy = prefix(net, images, tmp_path)
    monkeypatch.setattr(Prefix, "at", lambda *_: pytest.fail("computed too early"))
    pipeline.Batches(images, 4, 0, viewed={"prefix": lazy.rows(2)})


def test_a_full_disk_is_one_sentence(net, images, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="features.disk_gb=0"):
        prefix(net, images, file, memory_gb=0.0, disk_gb=1.0).at(1)
