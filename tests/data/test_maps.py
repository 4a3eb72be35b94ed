"""Dense truth from PNG files of both depths and from memory; what is wrong with a file is said in one sentence."""

from pathlib import Path
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.data import codecs, maps, pipeline
from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task


def png(path: Path, values: np.ndarray) -> str:
    """Writes [height, width, channels] by hand (PNG specification, filter 0), so that TensorFlow only reads."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, values.dtype.itemsize * 8, color, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return str(path)


def raw_maps(name: str, shape=(5, 8, 8), channels: int | None = None) -> np.ndarray:
    codec = codecs.get(name)
    rng = np.random.default_rng(len(name))
    return rng.integers(0, 2**codec.bits, (*shape, channels or len(codec.channels)), codec.dtype)


def examples(labels: dict, depth=None, n=5, **options) -> Examples:
    """Examples with blank pictures and these maps."""
    options = {"images": np.zeros((n, 8, 8, 3), np.uint8), **options}
    tasks = tuple(codecs.task(name) for name in labels)
    return Examples("maps/test", tuple(map(str, range(n))), options.pop("images"), tasks, labels, depth=depth, **options)


def on_disk(folder: Path, raw: np.ndarray) -> np.ndarray:
    return np.array([png(folder / f"{i}.png", one) for i, one in enumerate(raw)])


def refused(message, call, *arguments):
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value) and str(caught.value).count(". ") == 0
    return str(caught.value)


class TestMaps:
    @pytest.mark.parametrize("name", ["depth_zbuffer", "normal", "edge_occlusion", "keypoints2d", "reshading"])
    @pytest.mark.parametrize("size", [8, 4])
    def test_files_are_their_integers(self, tmp_path, name, size):
        raw = raw_maps(name)
        from_files = maps.maps(examples({name: on_disk(tmp_path, raw)}), name, size)
        assert from_files.dtype == np.float32 and from_files.shape == (5, size, size, len(codecs.get(name).channels))
        np.testing.assert_array_equal(from_files, codecs.get(name).encode(raw, size))
        np.testing.assert_array_equal(maps.maps(examples({name: raw}), name, size), from_files)

    def test_more_files_than_a_chunk_in_their_order(self, tmp_path):
        raw = np.arange(150, dtype=np.uint16).reshape(150, 1, 1, 1) * np.ones((1, 2, 2, 1), np.uint16)
        read = maps.maps(
            examples({"keypoints3d": on_disk(tmp_path, raw)}, n=150, images=np.zeros((150, 2, 2, 3), np.uint8)), "keypoints3d", 2
        )
        np.testing.assert_array_equal(codecs.get("keypoints3d").to_raw(codecs.get("keypoints3d").decode(read)), raw)

    def test_files_with_more_channels_than_the_code(self, tmp_path):
        """Taskonomy stores curvatures (two) in RGB files, and reshading as RGB or as grey."""
        for name, channels in (("principal_curvature", 3), ("reshading", 3)):
            raw = raw_maps(name, channels=channels)
            read = maps.maps(examples({name: on_disk(tmp_path / name, raw)}), name, 8)
            np.testing.assert_array_equal(read, codecs.get(name).encode(raw[..., : len(codecs.get(name).channels)], 8))

    @pytest.mark.parametrize("from_files", [False, True])
    def test_fit(self, tmp_path, from_files):
        raw = raw_maps("normal", (5, 6, 10))
        label = on_disk(tmp_path, raw) if from_files else raw
        images = np.zeros((5, 6, 10, 3), np.uint8)
        cropped = maps.maps(examples({"normal": label}, fit="crop", images=images), "normal", 6)
        np.testing.assert_array_equal(cropped, codecs.get("normal").encode(np.ascontiguousarray(raw[:, :, 2:8]), 6))
        squeezed = maps.maps(examples({"normal": label}, fit="squeeze", images=images), "normal", 6)
        np.testing.assert_array_equal(squeezed, codecs.get("normal").encode(raw, 6))

    @pytest.mark.parametrize("fit", ["crop", "squeeze"])
    @pytest.mark.parametrize("shape", [(13, 8), (9, 16), (7, 7)])
    def test_the_geometry_is_that_of_the_images(self, fit, shape):
        """An image read as a map of itself: the same pixels as `pipeline.pixels` makes, up to its rounding."""
        images = raw_maps("autoencoding", (3, *shape))
        both = examples({"autoencoding": images}, n=3, fit=fit, images=images)
        seen = codecs.get("autoencoding").to_raw(codecs.get("autoencoding").decode(maps.maps(both, "autoencoding", 6)))
        assert np.abs(seen.astype(int) - pipeline.pixels(both, 6)).max() <= 1

    def test_tasks_without_maps(self):
        bare = Examples("flat", ("a",), np.zeros((1, 8, 8, 3), np.uint8), (Task("dog"),), {"dog": np.zeros(1, np.int32)})
        refused("task 'dog' of flat has no maps, it is binary", maps.maps, bare, "dog", 8)
        refused("flat has no truth for normal", maps.maps, bare, "normal", 8)


class TestValid:
    def test_without_a_z_buffer_all_count(self):
        mask = maps.valid(examples({"normal": raw_maps("normal")}), 4)
        assert mask.dtype == np.uint8 and mask.shape == (5, 4, 4) and mask.all()

    @pytest.mark.parametrize("fit", ["crop", "squeeze"])
    def test_files_as_memory(self, tmp_path, fit):
        depth = np.random.default_rng(0).choice([300, 64499, 64500, 65535], (5, 8, 12, 1), p=[0.5, 0.4, 0.05, 0.05]).astype(np.uint16)
        options = {"fit": fit, "images": np.zeros((5, 4, 6, 3), np.uint8)}
        read = maps.valid(examples({}, depth=on_disk(tmp_path, depth), **options), 4, tmp_path / "cache")
        np.testing.assert_array_equal(read, maps.valid(examples({}, depth=depth, **options), 4))
        square = depth[:, :, 2:10] if fit == "crop" else depth
        np.testing.assert_array_equal(read, codecs.valid(square, 4))
        assert 0.1 < read.mean() < 0.95


class TestCache:
    def made(self, monkeypatch):
        """The list that grows with every array that is made, not read."""
        decoded, real = [], maps._from_files
        monkeypatch.setattr(maps, "_from_files", lambda *a: decoded.append(a) or real(*a))
        return decoded

    def test_kept_by_files_codec_size_and_fit(self, tmp_path, monkeypatch):
        decoded = self.made(monkeypatch)
        raw = raw_maps("depth_zbuffer")
        paths = on_disk(tmp_path / "files", raw)
        whole = examples({"depth_zbuffer": paths, "depth_euclidean": paths}, depth=paths)
        cache = tmp_path / "cache"
        first = maps.maps(whole, "depth_zbuffer", 8, cache)
        again = maps.maps(whole, "depth_zbuffer", 8, cache)
        assert len(decoded) == 1 and np.array_equal(first, again) and isinstance(again, np.memmap)
        maps.maps(whole, "depth_zbuffer", 4, cache)
        maps.maps(whole, "depth_euclidean", 8, cache)
        maps.valid(whole, 8, cache)
        maps.maps(whole.take([1, 0, 2, 3, 4]), "depth_zbuffer", 8, cache)
        maps.maps(examples({"depth_zbuffer": paths}, fit="crop"), "depth_zbuffer", 8, cache)
        assert len(decoded) == 6
        assert maps.valid(whole, 8, cache).dtype == np.uint8 and len(decoded) == 6

    def test_a_changed_file_is_read_again(self, tmp_path, monkeypatch):
        decoded = self.made(monkeypatch)
        raw = raw_maps("normal")
        whole = examples({"normal": on_disk(tmp_path / "files", raw)})
        maps.maps(whole, "normal", 8, tmp_path / "cache")
        png(tmp_path / "files" / "3.png", 255 - raw[3])
        read = maps.maps(whole, "normal", 8, tmp_path / "cache")
        assert len(decoded) == 2
        np.testing.assert_array_equal(read[3], codecs.get("normal").encode(255 - raw[3:4], 8)[0])

    def test_maps_in_memory_and_without_a_folder_are_not_kept(self, tmp_path):
        whole = examples({"normal": raw_maps("normal")}, depth=raw_maps("depth_zbuffer"))
        maps.maps(whole, "normal", 4, tmp_path)
        maps.valid(whole, 4, tmp_path)
        assert not list(tmp_path.iterdir())


class TestErrors:
    @pytest.fixture
    def whole(self, tmp_path):
        return examples(
            {"keypoints2d": on_disk(tmp_path, raw_maps("keypoints2d"))}, depth=on_disk(tmp_path / "z", raw_maps("depth_zbuffer"))
        )

    def broken(self, whole, tmp_path, message):
        assert f"{tmp_path}/3.png" in refused(message, maps.maps, whole, "keypoints2d", 8)

    def test_missing(self, whole, tmp_path):
        (tmp_path / "3.png").unlink()
        self.broken(whole, tmp_path, "cannot be read .No such file")

    @pytest.mark.parametrize("content", [b"", b"no picture at all, only a long text", b"\x89PNG\r\n\x1a\n"])
    def test_no_png(self, whole, tmp_path, content):
        (tmp_path / "3.png").write_bytes(content)
        self.broken(whole, tmp_path, "is no PNG file: write the file again")

    @pytest.mark.parametrize("keep", [30, 60, -20])
    def test_cut_off(self, whole, tmp_path, keep):
        (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:keep])
        self.broken(whole, tmp_path, "cannot be decoded, it is cut off or damaged")

    def test_bit_depth(self, whole, tmp_path):
        png(tmp_path / "3.png", np.zeros((8, 8, 1), np.uint8))
        self.broken(whole, tmp_path, "has 8 bits a channel, keypoints2d has 16")

    def test_channels(self, whole, tmp_path):
        png(tmp_path / "3.png", np.zeros((8, 8, 3), np.uint16))
        self.broken(whole, tmp_path, "has 3 channels, not the 1 of keypoints2d")

    def test_a_palette(self, tmp_path):
        whole = examples({"normal": on_disk(tmp_path, raw_maps("normal"))})
        content = bytearray((tmp_path / "3.png").read_bytes())
        content[25] = 3  # the colour type
        (tmp_path / "3.png").write_bytes(content)
        refused("3.png has a palette, not the 3 of normal", maps.maps, whole, "normal", 8)

    def test_shape(self, whole, tmp_path):
        png(tmp_path / "3.png", np.zeros((8, 6, 1), np.uint16))
        self.broken(whole, tmp_path, "is 6 x 8 pixels, the first one 8 x 8")

    def test_aspect_ratio(self, tmp_path):
        message = "has 10 x 8 pixels, the images of maps/test 8 x 8: give both the same aspect ratio"
        raw = raw_maps("normal", (5, 8, 10))
        refused("each map of normal " + message, maps.maps, examples({"normal": raw}), "normal", 8)
        of_files = examples({"normal": on_disk(tmp_path, raw)})
        assert f"{tmp_path}/0.png" in refused(message, maps.maps, of_files, "normal", 8)
        pictures = [Path(p) for p in on_disk(tmp_path / "rgb", np.zeros((5, 8, 8, 3), np.uint8))]
        refused(message, maps.maps, examples({"normal": raw}, images=pictures), "normal", 8)
        (tmp_path / "rgb" / "0.png").write_bytes(tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy())
        assert len(maps.maps(examples({"normal": raw}, images=pictures), "normal", 8)) == 5  # only PNG files are asked

    def test_the_z_buffer_too(self, whole, tmp_path):
        png(tmp_path / "z" / "2.png", np.zeros((8, 8, 1), np.uint8))
        refused("z/2.png has 8 bits a channel, depth_zbuffer has 16", maps.valid, whole, 8)

    def test_maps_in_memory_of_another_type(self):
        refused("raw maps of normal must be uint8", maps.maps, examples({"normal": np.zeros((5, 8, 8, 3), np.uint16)}), "normal", 8)
