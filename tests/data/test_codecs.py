"""Codecs of dense tasks: every integer of every file and back, values by hand, the mask, the blur, mirroring."""

import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import ndimage
import tensorflow as tf

from amalgam_tf.data import codecs
from amalgam_tf.data.codecs import CODECS
from amalgam_tf.errors import UserError

# spec/taskonomy 3.4, written down again: bits, channels, raw value that codes 1 (None: not [-1, 1]), masked, clipped
TABLE = {
    "depth_zbuffer": (16, 1, None, True, False),
    "depth_euclidean": (16, 1, None, True, False),
    "normal": (8, 3, 255, True, False),
    "edge_texture": (16, 1, 0.08 * 65535, False, True),
    "edge_occlusion": (16, 1, 0.00625 * 65535, True, False),
    "keypoints2d": (16, 1, 0.005 * 65535, False, True),
    "keypoints3d": (16, 1, 65535, True, False),
    "reshading": (8, 1, 255, True, False),
    "principal_curvature": (8, 2, None, True, False),
    "autoencoding": (8, 3, 255, False, False),
}


def every_raw(codec, below=None) -> np.ndarray:
    """Every value of the file type in every channel, as one row of one map a value: blurring a map of one pixel changes nothing."""
    values = np.arange(2**codec.bits if below is None else below, dtype=codec.dtype)
    return np.repeat(values.reshape(-1, 1, 1, 1), len(codec.channels), -1)


def whole(name, below=None):
    """(raw, code) of a codec at unchanged size."""
    raw = every_raw(CODECS[name], below)
    return raw, CODECS[name].encode(raw, 1)


class TestTable:
    def test_every_domain(self):
        assert set(CODECS) == set(TABLE)
        for name, (bits, channels, _, masked, clipped) in TABLE.items():
            codec = codecs.get(name)
            assert (codec.name, codec.bits, len(codec.channels), codec.masked, codec.clip) == (name, bits, channels, masked, clipped)
            assert codec.dtype == {8: np.uint8, 16: np.uint16}[bits]
            assert codec.activation == ("linear" if name == "principal_curvature" else "tanh")
            assert codec.kind == {"depth_zbuffer": "depth", "depth_euclidean": "depth", "normal": "normal"}.get(name, "map")

    def test_tasks(self):
        task = codecs.task("normal")
        assert (task.name, task.codec, task.kind, task.head) == ("normal", "normal", "dense", "dense")
        assert (task.labels, task.outputs) == (("x", "y", "z"), 3)
        for call in (codecs.get, codecs.task):
            with pytest.raises(UserError, match="did you mean 'depth_zbuffer'"):
                call("depth_zbufer")

    def test_a_config_needs_no_tensorflow(self):
        code = "import sys, amalgam_tf.data.codecs as c; c.task('normal'); sys.exit('tensorflow' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}).returncode == 0


class TestCodes:
    @pytest.mark.parametrize("name", [n for n, row in TABLE.items() if row[2]])
    def test_the_coded_range_is_minus_one_to_one(self, name):
        raw, code = whole(name)
        wanted = raw.astype(np.float64) / TABLE[name][2] * 2 - 1
        np.testing.assert_allclose(code, np.minimum(wanted, 1) if TABLE[name][4] else wanted, rtol=1e-6, atol=1e-6)
        assert code.dtype == np.float32 and code.min() == -1
        assert code.max() == (pytest.approx(319, abs=1) if name == "edge_occlusion" else 1)  # 1 / 0.00625 = 160 times the range

    @pytest.mark.parametrize("name", ["depth_zbuffer", "depth_euclidean"])
    def test_depth_by_hand(self, name):
        code = CODECS[name].encode(np.array([0, 255, 511, 65535], np.uint16).reshape(4, 1, 1, 1), 1).ravel()
        np.testing.assert_allclose(code, [0, 8 / 16, 9 / 16, 1], atol=1e-7)  # log2(1 + raw) / 16
        metres = CODECS[name].decode(np.array([0, 0.5, 1, -0.3, 7], np.float32))
        np.testing.assert_allclose(metres, [0, 255 / 512, 65535 / 512, 0, 65535 / 512], rtol=2e-6)
        assert metres[1] == pytest.approx(0.5, rel=0.005) and metres[2] == pytest.approx(128, rel=0.0001)

    def test_curvature_by_hand(self):
        codec = CODECS["principal_curvature"]
        code = codec.encode(np.array([[[[0, 255]]], [[[124, 120]]]], np.uint8), 1).reshape(2, 2)
        np.testing.assert_allclose(code, [[-123.572 / 31.922, 134.9 / 21.658], [0.428 / 31.922, -0.1 / 21.658]], rtol=1e-5, atol=1e-6)

    def test_the_logarithm_comes_before_the_resizing(self):
        raw = np.array([[3, 3], [255, 255]], np.uint16).reshape(1, 2, 2, 1)
        code = CODECS["depth_zbuffer"].encode(raw, 1)
        assert code.item() == pytest.approx((2 / 16 + 8 / 16) / 2)  # not log2(1 + 129) / 16

    def test_the_clip_comes_before_the_resizing(self):
        raw = np.array([[0, 0], [65535, 65535]], np.uint16).reshape(1, 2, 2, 1)
        assert CODECS["edge_texture"].encode(raw, 1).item() == pytest.approx(0)
        assert CODECS["keypoints2d"].encode(raw, 1).item() == pytest.approx(0)

    def test_resizing_is_antialiased_and_enlarging_bilinear(self):
        raw = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 1), np.uint8)
        code = raw / 127.5 - 1
        small = CODECS["reshading"].encode(raw, 4)
        rows, columns = (_triangle(n, 4) for n in (8, 12))
        np.testing.assert_allclose(small, np.einsum("ih,jw,nhwc->nijc", rows, columns, code), atol=1e-6)
        large = CODECS["reshading"].encode(raw[:, :, :8], 16)
        np.testing.assert_allclose(large, np.einsum("ih,jw,nhwc->nijc", _triangle(8, 16), _triangle(8, 16), code[:, :, :8]), atol=1e-6)

    def test_chunks_do_not_show(self):
        raw = np.random.default_rng(0).integers(0, 65536, (150, 6, 6, 1), np.uint16)
        together = CODECS["edge_occlusion"].encode(raw, 4)
        alone = np.concatenate([CODECS["edge_occlusion"].encode(raw[i : i + 1], 4) for i in (0, 63, 64, 149)])
        np.testing.assert_array_equal(together[[0, 63, 64, 149]], alone)

    @pytest.mark.parametrize(
        "raw", [np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 4, 4, 3), np.uint16), np.zeros((4, 4, 1), np.uint16), np.zeros((1, 4, 4, 1))]
    )
    def test_other_types_are_refused(self, raw):
        with pytest.raises(UserError, match=r"must be uint16 \[n, height, width, 1\]"):
            CODECS["keypoints3d"].encode(raw, 4)


def _triangle(before: int, after: int) -> np.ndarray:
    """[after, before] weights of bilinear resizing with half-pixel centres, widened by the scale where it shrinks."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - (np.arange(before) + 0.5)) / max(scale, 1))
    return weights / weights.sum(1, keepdims=True)


class TestBlur:
    @pytest.mark.parametrize("size", [32, 64])
    def test_sigma_is_four_pixels_of_256(self, size):
        raw = np.random.default_rng(1).integers(0, 700, (2, size, size, 1), np.uint16)
        code = raw / (0.00625 * 65535) * 2 - 1
        sharp = [ndimage.gaussian_filter(c[..., 0], 4 * size / 256, mode="reflect", truncate=4.0) for c in code]
        np.testing.assert_allclose(CODECS["edge_occlusion"].encode(raw, size)[..., 0], sharp, atol=1e-5)

    def test_it_comes_after_the_resizing(self):
        raw = np.random.default_rng(2).integers(0, 700, (1, 96, 64, 1), np.uint16)
        code = raw[0, ..., 0] / (0.00625 * 65535) * 2 - 1
        sharp = ndimage.gaussian_filter(_triangle(96, 48) @ code @ _triangle(64, 48).T, 4 * 48 / 256)
        np.testing.assert_allclose(CODECS["edge_occlusion"].encode(raw, 48)[0, ..., 0], sharp, atol=1e-5)

    def test_a_point_by_hand(self):
        raw = np.zeros((1, 64, 64, 1), np.uint16)
        raw[0, 32, 32] = 40000
        code = CODECS["edge_occlusion"].encode(raw, 64)[0, :, :, 0].astype(np.float64) + 1
        kernel = np.exp(-(np.arange(-4, 5) ** 2) / 2)  # sigma 1 pixel at 64
        kernel /= kernel.sum()
        np.testing.assert_allclose(code[28:37, 28:37], np.outer(kernel, kernel) * 40000 / (0.00625 * 65535) * 2, atol=1e-4)
        assert code[32, 32] > 1  # nothing is clipped above, before or after
        assert np.abs(code[:27]).max() < 1e-6

    def test_the_others_are_not_blurred(self):
        assert [c.name for c in CODECS.values() if c.blur] == ["edge_occlusion"]


class TestRoundTrip:
    @pytest.mark.parametrize("name", [n for n in TABLE if n != "normal"])
    def test_every_integer(self, name):
        codec = CODECS[name]
        raw, code = whole(name)
        back = codec.to_raw(codec.decode(code))
        assert back.dtype == codec.dtype
        kept = {"depth": (raw > 0) & (raw < 65535), "map": raw <= np.floor(codec.top)}[codec.kind]
        assert kept.sum() >= {8: 256, 16: 327}[codec.bits]
        np.testing.assert_array_equal(back[kept], raw[kept])
        if codec.kind == "depth":
            assert (back[0], back[-1]) == (65535, 65534)  # 0 is no distance; 128 m is read, but not invalid
        else:
            assert (back[~kept] == np.rint(codec.top)).all()

    def test_every_integer_of_a_normal(self):
        raw, code = whole("normal")
        np.testing.assert_array_equal(CODECS["normal"].to_raw(code), raw)
        np.testing.assert_allclose(CODECS["normal"].decode(code) * np.sqrt((code * code).sum(-1, keepdims=True)), code, atol=1e-6)

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.1))
    def test_unit_normals_come_back_within_half_a_degree(self, vector):
        unit = np.array(vector) / np.linalg.norm(vector)
        codec = CODECS["normal"]
        back = codec.decode(codec.encode(codec.to_raw(unit.reshape(1, 1, 1, 3)), 1)).reshape(3)
        assert np.linalg.norm(back) == pytest.approx(1, abs=1e-6)
        assert np.degrees(np.arccos(min(1, back @ unit))) < 0.5

    def test_metres(self):
        metres = np.array([1.0, 0.25, 1e-9, 127.9, 500, 0, -1, np.nan, np.inf, -np.inf])
        wanted = [512, 128, 1, 65485, 65534, *[65535] * 5]
        np.testing.assert_array_equal(CODECS["depth_zbuffer"].to_raw(metres), wanted)

    def test_shares(self):
        share = np.array([0, 0.5, 1, 2, -1])
        np.testing.assert_array_equal(CODECS["edge_texture"].to_raw(share), [0, 2621, 5243, 10486, 0])
        np.testing.assert_array_equal(CODECS["edge_occlusion"].to_raw(share), [0, 205, 410, 819, 0])
        np.testing.assert_array_equal(CODECS["keypoints2d"].to_raw(share), [0, 164, 328, 655, 0])
        np.testing.assert_array_equal(CODECS["reshading"].to_raw(share), [0, 128, 255, 255, 0])
        np.testing.assert_array_equal(CODECS["keypoints3d"].to_raw(share), [0, 32768, 65535, 65535, 0])


class TestDecode:
    @pytest.mark.parametrize("name", TABLE)
    def test_tensors_as_arrays(self, name):
        codec = CODECS[name]
        code = np.random.default_rng(0).normal(0, 1, (2, 5, 5, len(codec.channels))).astype(np.float32)
        wanted = codec.decode(code)
        assert wanted.dtype == np.float32 and wanted.shape == code.shape
        traced = tf.function(codec.decode, input_signature=[tf.TensorSpec((None, None, None, code.shape[-1]), tf.float32)], autograph=False)
        for got in (codec.decode(tf.constant(code)), traced(tf.constant(code))):
            assert got.dtype == tf.float32
            np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=1e-6)

    @pytest.mark.parametrize("name", TABLE)
    def test_ranges(self, name):
        codec = CODECS[name]
        code = np.linspace(-300, 300, 1201, dtype=np.float32)[:, None] * np.ones(len(codec.channels), np.float32)
        value = codec.decode(code)
        assert np.isfinite(value).all()
        if codec.kind == "normal":
            np.testing.assert_allclose(np.linalg.norm(value, axis=-1), np.where(code[:, 0] == 0, 0, 1), atol=1e-6)
        else:
            assert value.min() == 0 and value.max() == {"depth": pytest.approx(65535 / 512), "map": 1}[codec.kind]

    def test_zero_is_no_direction_and_has_a_gradient(self):
        zero = tf.zeros((1, 3))
        with tf.GradientTape() as tape:
            tape.watch(zero)
            value = CODECS["normal"].decode(zero)
        assert np.array_equal(value, np.zeros((1, 3))) and np.isfinite(tape.gradient(value, zero)).all()


class TestMask:
    def test_by_hand(self):
        """4 x 4 -> 2 x 2: a triangle of half width 2 gives rows (or columns) the weights 3, 3, 1, 0 of 7, and mirrored."""
        depth = np.full((4, 4, 4, 1), 64499, np.uint16)
        depth[1, 3, 3] = 64500  # in the last pixel only
        depth[2, 2, 2] = 65535  # in all, with 1/49 in the first
        depth[3, 0, 1] = 65535  # weight 0 in the lower pixels
        np.testing.assert_array_equal(codecs.valid(depth, 2), [[[1, 1], [1, 1]], [[1, 1], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [1, 1]]])

    def test_at_full_resolution(self):
        depth = np.array([0, 1, 64499, 64500, 65535, 300], np.uint16).reshape(1, 6, 1, 1) * np.ones((1, 6, 6, 1), np.uint16)
        mask = codecs.valid(depth, 6)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask[0], np.repeat([[1], [1], [1], [0], [0], [1]], 6, 1))

    def test_one_pixel_of_many_below_one_percent(self):
        depth = np.full((1, 64, 64, 1), 500, np.uint16)
        depth[0, :2, :2] = 65535
        assert codecs.valid(depth, 2).all()  # 4 of 64 x 64 / 4, in a corner, is less than 1 %
        depth[0, :32, :6] = 65535
        np.testing.assert_array_equal(codecs.valid(depth, 2)[0], [[0, 1], [0, 1]])

    def test_chunks_do_not_show(self):
        depth = np.random.default_rng(0).choice([500, 65535], (130, 4, 4, 1)).astype(np.uint16)
        np.testing.assert_array_equal(codecs.valid(depth, 4), depth[..., 0] == 500)

    @pytest.mark.parametrize("depth", [np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 4, 4, 3), np.uint16), np.zeros((4, 4, 1), np.uint16)])
    def test_other_types_are_refused(self, depth):
        with pytest.raises(UserError, match="z-buffer must be uint16"):
            codecs.valid(depth, 4)


class TestMirrored:
    @pytest.mark.parametrize("name", TABLE)
    def test_twice_is_nothing(self, name):
        maps = np.random.default_rng(0).normal(size=(4, 3, 5, len(CODECS[name].channels))).astype(np.float32)
        flags = np.array([1, 0, 1, 1])
        once = codecs.mirrored(name, tf.constant(maps), tf.constant(flags))
        np.testing.assert_array_equal(codecs.mirrored(name, once, tf.constant(flags)), maps)
        sign = np.array([-1, 1, 1]) if name == "normal" else 1
        for row, flag in enumerate(flags):
            np.testing.assert_array_equal(once[row], maps[row, :, ::-1] * sign if flag else maps[row])

    def test_raw_normals_within_a_step(self):
        """v and 255 - v are mirror images of each other: negation is exact in integers too."""
        raw = every_raw(CODECS["normal"])
        turned = codecs.mirrored("normal", tf.constant(CODECS["normal"].encode(raw, 1)), tf.ones(256, tf.bool))
        np.testing.assert_array_equal(CODECS["normal"].to_raw(turned), np.concatenate([255 - raw[..., :1], raw[..., 1:]], -1))
