"""Batches as a pure function of (seed, step), whole passes, caches."""

import dataclasses
import hashlib
import shutil

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from amalgam_tf.data import pipeline, transforms
from amalgam_tf.data.examples import Examples
from amalgam_tf.data.pipeline import Batches
from amalgam_tf.errors import UserError

N = 10


def pixels(count=N, size=6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def batches(**options) -> Batches:
    columns = {"label": np.arange(N, dtype=np.int32) * 7, "mask": np.eye(N, 2, dtype=np.float32)}
    viewed = {"teacher": np.random.default_rng(1).normal(size=(options.get("views", 2), N, 4)).astype(np.float32)}
    return Batches(**{**dict(images=pixels(), batch_size=4, seed=3, columns=columns, viewed=viewed), **options})


def equal(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(np.array_equal(np.asarray(a[k]), np.asarray(b[k])) for k in a)


class TestOrder:
    @pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10, 25])
    def test_every_epoch_is_a_permutation_and_nothing_is_dropped(self, batch_size):
        data = batches(batch_size=batch_size)
        steps = 3 * N * batch_size // batch_size
        seen = np.concatenate([data.indices(s) for s in range(steps)])
        epochs = seen[: len(seen) // N * N].reshape(-1, N)
        assert len(epochs) >= 3
        assert (np.sort(epochs, 1) == np.arange(N)).all()
        assert len({tuple(e) for e in epochs[:10]}) > 1  # not the same order every time

    def test_a_function_of_seed_and_step_alone(self):
        forward = [batches().at(s) for s in range(8)]
        data = batches()
        for s in (5, 0, 7, 5, 2):
            assert equal(data.at(s), forward[s])
        assert not equal(forward[0], batches(seed=4).at(0))

    def test_the_order_of_images_does_not_depend_on_the_batch_size(self):
        small = np.concatenate([batches(batch_size=2).indices(s) for s in range(10)])
        assert np.array_equal(small, np.concatenate([batches(batch_size=5).indices(s) for s in range(4)]))

    def test_steps(self):
        assert [batches(batch_size=4).steps(e) for e in (1, 2, 0.01, 2.5)] == [2, 5, 1, 6]


class TestBatch:
    def test_columns_and_viewed_rows_belong_to_the_images(self):
        data = batches()
        views = set()
        for s in range(10):
            b = data.at(s)
            assert np.array_equal(b["images"], data.images[b["index"]])
            assert np.array_equal(b["label"], b["index"] * 7)
            assert np.array_equal(b["mask"], data.columns["mask"][b["index"]])
            for row in range(4):
                assert np.array_equal(b["teacher"][row], data.viewed["teacher"][b["view"][row], b["index"][row]])
            views |= set(b["view"].tolist())
        assert views == {0, 1}

    def test_one_view_is_never_mirrored(self):
        data = batches(views=1)
        assert all((data.at(s)["view"] == 0).all() for s in range(10))

    def test_about_half_of_all_appearances_are_mirrored(self):
        data = batches(images=pixels(100), batch_size=100, columns={}, viewed={})
        assert 0.45 < np.mean([data.at(s)["view"].mean() for s in range(20)]) < 0.55

    @pytest.mark.parametrize("crop", [None, 0.3])
    @pytest.mark.parametrize("ranks", [1, 2, 4])
    def test_interleaved_ranks_are_the_global_batch(self, ranks, crop):
        data = batches(crop=crop, size=6)
        for s in (0, 2, 9):
            whole, parts = data.at(s), [data.at(s, r, ranks) for r in range(ranks)]
            assert set(whole) == {"images", "index", "view", "label", "mask", "teacher", *(["boxes"] if crop else [])}
            for key, value in whole.items():
                for r, part in enumerate(parts):
                    assert np.array_equal(part[key], value[r::ranks]), key

    def test_boxes(self):
        data = batches(images=pixels(100), batch_size=100, crop=0.4, size=6, columns={}, viewed={})
        boxes = np.concatenate([data.at(s)["boxes"] for s in range(10)])
        height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        assert boxes.dtype == np.float32
        assert boxes.min() >= 0
        assert boxes.max() <= 1 + 1e-6
        assert (height * width).min() > 0.4 * 0.74  # a box that is too long for the image is clipped
        whole = (height < 0.999) & (width < 0.999)
        assert (height * width)[whole].min() >= 0.4 - 1e-5
        assert ((width / height)[whole] > 3 / 4 - 1e-4).all()
        assert ((width / height)[whole] < 4 / 3 + 1e-4).all()
        assert (height * width).max() > 0.9
        assert boxes[:, 0].std() > 0.05
        assert abs(np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1]) < 0.6

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"columns \['label'\]"):
            batches(columns={"label": np.zeros(N - 1)})
        with pytest.raises(ValueError, match=r"viewed \['teacher'\]"):
            batches(views=1, viewed={"teacher": np.zeros((2, N, 4))})


class TestDataset:
    @pytest.mark.parametrize("crop", [None, 0.3])
    def test_equals_at_and_the_operations(self, crop):
        data = batches(crop=crop, size=5 if crop else None)
        for s, batch in enumerate(data.dataset(0, 4)):
            raw = data.at(s)
            images = raw.pop("images").astype(np.float32)
            if crop:
                images = transforms.crop(tf.constant(images), tf.constant(raw.pop("boxes")), 5).numpy()
            mirrored = np.where(raw["view"][:, None, None, None] == 1, images[:, :, ::-1], images)
            assert batch["images"].dtype == tf.float32
            np.testing.assert_allclose(batch.pop("images"), mirrored, atol=1e-4)
            assert equal(batch, raw)
        assert s == 3

    def test_view_one_is_the_mirrored_image(self):
        data, seen = batches(), set()
        for batch in data.dataset(0, 6):
            for image, index, view, teacher in zip(*(batch[k].numpy() for k in ("images", "index", "view", "teacher")), strict=True):
                assert np.array_equal(image, data.images[index][:, ::-1] if view else data.images[index])
                assert np.array_equal(teacher, data.viewed["teacher"][view, index])
                seen.add(int(view))
        assert seen == {0, 1}

    @pytest.mark.parametrize("crop", [None, 0.3])
    def test_resumed_is_the_tail_bit_for_bit(self, crop):
        data = batches(crop=crop, size=6)
        whole, tail = list(data.dataset(0, 7)), list(data.dataset(3, 7))
        assert len(tail) == 4
        assert all(equal(a, b) for a, b in zip(whole[3:], tail, strict=True))

    def test_ranks(self):
        data = batches(crop=0.3, size=6)
        whole = list(data.dataset(0, 3))
        for r in range(2):
            for a, b in zip(whole, data.dataset(0, 3, r, 2), strict=True):
                assert equal({k: v[r::2] for k, v in a.items()}, b)

    def test_static_shapes(self):
        spec = batches(crop=0.3, size=5).dataset(0, 1, 1, 2).element_spec
        assert {k: tuple(v.shape) for k, v in spec.items()} == {
            "images": (2, 5, 5, 3),
            "index": (2,),
            "view": (2,),
            "label": (2,),
            "mask": (2, 2),
            "teacher": (2, 4),
        }

    def test_a_batch_that_cannot_be_divided(self):
        with pytest.raises(UserError, match="batch size 4 cannot be divided over 3 replicas"):
            batches().dataset(0, 1, 0, 3)

    def test_images_in_a_memory_map(self, tmp_path):
        np.save(tmp_path / "x.npy", pixels())
        mapped = batches(images=np.load(tmp_path / "x.npy", mmap_mode="r"))
        assert equal(next(iter(mapped.dataset(2, 3))), next(iter(batches().dataset(2, 3))))


class TestInOrder:
    @pytest.mark.parametrize("count", [1, 63, 64, 65, 130])
    @pytest.mark.parametrize("flipped", [False, True])
    def test_equals_the_direct_computation(self, count, flipped):
        images, column, traced = pixels(count), np.arange(count, dtype=np.float32), []

        @tf.function(autograph=False)
        def fn(x, c):
            traced.append(x.shape)
            weights = tf.reshape(tf.range(108.0), (6, 6, 3))
            return {"a": tf.reduce_sum(x * weights, (1, 2)) + c[:, None], "b": (c, c * 2)}

        out = pipeline.in_order(fn, images, column, flipped=flipped)
        x = images[:, :, ::-1] if flipped else images
        expected = (x.astype(np.float64) * np.arange(108).reshape(6, 6, 3)).sum((1, 2)) + column[:, None]
        np.testing.assert_allclose(out["a"], expected, rtol=1e-5)
        assert np.array_equal(out["b"][1], column * 2)
        assert traced == [(64, 6, 6, 3)]  # one trace: every batch has the same shape

    def test_a_row_does_not_depend_on_its_neighbours(self):
        fn = tf.function(lambda x: tf.linalg.matmul(tf.reshape(x, (-1, 108)), tf.ones((108, 3)) / 7))
        images = pixels(130)
        assert np.array_equal(pipeline.in_order(fn, images)[:70], pipeline.in_order(fn, images[:70]))


class TestCachedOutputs:
    @staticmethod
    def counted():
        calls = []

        def fn(x):
            calls.append(len(x))
            return tf.reduce_mean(x, (1, 2)) * tf.constant([1.0, 2.0, 3.0]) + x[:, 0, 0]

        return fn, calls

    def test_views_in_memory(self):
        fn, _ = self.counted()
        images = pixels(70)
        out = pipeline.cached_outputs(fn, images, views=2, key="k", cache_dir=None)
        assert out.shape == (2, 70, 3)
        np.testing.assert_allclose(out[0], fn(images.astype(np.float32)), rtol=1e-5)
        np.testing.assert_allclose(out[1], fn(images[:, :, ::-1].astype(np.float32)), rtol=1e-5)
        assert not np.array_equal(out[0], out[1])

    def test_hit_and_miss(self, tmp_path):
        fn, calls = self.counted()
        first = pipeline.cached_outputs(fn, pixels(), views=2, key="k", cache_dir=tmp_path / "new" / "folder")
        made = len(calls)
        again = pipeline.cached_outputs(fn, pixels(), views=2, key="k", cache_dir=tmp_path / "new" / "folder")
        assert made == len(calls) == 2
        assert np.array_equal(first, again)
        assert len(list((tmp_path / "new" / "folder").iterdir())) == 1  # no temporary file is left

    def test_another_key_another_file(self, tmp_path):
        fn, calls = self.counted()
        for views, key, count in ((1, "a", 5), (1, "b", 5), (2, "a", 5), (1, "a", 6)):
            assert pipeline.cached_outputs(fn, pixels(count), views=views, key=key, cache_dir=tmp_path).shape == (views, count, 3)
        assert len(list(tmp_path.iterdir())) == 4

    @pytest.mark.parametrize("damage", [b"", b"rubbish", None])
    def test_a_damaged_file_is_made_again(self, tmp_path, damage):
        fn, calls = self.counted()
        first = np.array(pipeline.cached_outputs(fn, pixels(), views=1, key="k", cache_dir=tmp_path))
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-5] if damage is None else damage)
        again = pipeline.cached_outputs(fn, pixels(), views=1, key="k", cache_dir=tmp_path)
        assert len(calls) == 2
        assert np.array_equal(first, again)
        pipeline.cached_outputs(fn, pixels(), views=1, key="k", cache_dir=tmp_path)
        assert len(calls) == 2  # and the new file is whole

    def test_bfloat16_outputs_are_the_same_from_memory_and_from_disk(self, tmp_path):
        def fn(x):
            return tf.cast(tf.reduce_mean(x, (1, 2)), tf.bfloat16)

        expected = fn(pixels().astype(np.float32)).numpy().astype(np.float32)
        for folder in (None, tmp_path, tmp_path):
            out = pipeline.cached_outputs(fn, pixels(), views=1, key="k", cache_dir=folder)
            assert out.dtype == np.float32
            assert np.array_equal(out[0], expected)


class TestPixels:
    @staticmethod
    def on_disk(folder, count=6) -> Examples:
        paths = []
        for k, image in enumerate(pixels(count, 20)):
            paths.append(folder / f"{k}.{'png' if k % 2 else 'jpg'}")
            Image.fromarray(image).save(paths[-1])
        return Examples("disk", tuple(p.name for p in paths), paths, (), {})

    def test_decoded_in_order(self, tmp_path):
        data = self.on_disk(tmp_path)
        out = pipeline.pixels(data, 8)
        assert out.dtype == np.uint8
        assert np.array_equal(out, [transforms.decode(p.read_bytes(), 8) for p in data.images])

    def test_cached_on_disk(self, tmp_path):
        data = self.on_disk(tmp_path)
        first = np.array(pipeline.pixels(data, 8, tmp_path / "cache"))
        assert pipeline.pixels(data, 9, tmp_path / "cache").shape == (6, 9, 9, 3)
        assert len(list((tmp_path / "cache").iterdir())) == 2
        same_sizes = dataclasses.replace(data)
        assert np.array_equal(pipeline.pixels(same_sizes, 8, tmp_path / "cache"), first)
        assert len(list((tmp_path / "cache").iterdir())) == 2

    def test_a_replaced_image_is_noticed(self, tmp_path):
        data = self.on_disk(tmp_path)
        first = np.array(pipeline.pixels(data, 8, tmp_path / "cache"))
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(data.images[1])  # compresses to another size
        assert not np.array_equal(pipeline.pixels(data, 8, tmp_path / "cache"), first)

    def test_fit_is_seen_by_pixels_keys_and_fingerprints(self, tmp_path):
        """Squeezed data keep the names of caches, and the fingerprints in cards, that they had before there was a choice."""
        path = tmp_path / "0.png"
        Image.fromarray(pixels(1, 20)[0][:12]).save(path)
        data = Examples("disk", ("0",), [path], (), {})
        cropped = dataclasses.replace(data, fit="crop")
        facts = repr([(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)])
        assert data.images_key == hashlib.sha256(facts.encode()).hexdigest()[:16] != cropped.images_key
        listed = repr(("disk", ("0",))) + repr([("0.png", path.stat().st_size)])
        assert data.fingerprint == hashlib.sha256(listed.encode()).hexdigest()[:16] != cropped.fingerprint
        for examples in (data, cropped):
            out = pipeline.pixels(examples, 12, tmp_path / "cache")
            assert np.array_equal(out[0], transforms.decode(path.read_bytes(), 12, examples.fit))
        assert np.array_equal(out[0], pixels(1, 20)[0][:12, 4:16]) and len(list((tmp_path / "cache").iterdir())) == 2
        array = Examples("array", ("0",), pixels(1, 20)[:, :12], (), {}, "crop")
        assert np.array_equal(pipeline.pixels(array, 12)[0], out[0])
        assert array.images_key != dataclasses.replace(array, fit="squeeze").images_key

    def test_arrays_are_used_or_resized(self):
        data = Examples("array", tuple("abc"), pixels(3, 20), (), {})
        assert pipeline.pixels(data, 20) is data.images
        assert np.array_equal(pipeline.pixels(data, 8), transforms.resize(data.images, 8))

    @pytest.mark.parametrize("at", [0, 3, 5])
    def test_an_unreadable_image_is_named(self, tmp_path, at):
        data = self.on_disk(tmp_path)
        data.images[at].write_bytes(data.images[at].read_bytes()[:4] + b"rubbish")
        with pytest.raises(UserError, match=f"the image .*{data.images[at].name} cannot be read .* replace the file") as caught:
            pipeline.pixels(data, 8, tmp_path / "cache")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "cache").exists()

    def test_of_two_the_first_is_named(self, tmp_path):
        data = self.on_disk(tmp_path, 40)
        for at in (7, 30):
            data.images[at].write_bytes(b"rubbish")
        with pytest.raises(UserError, match="7.png"):
            pipeline.pixels(data, 8)

    def test_a_missing_file_is_named(self, tmp_path):
        data = self.on_disk(tmp_path)
        data.images[2].unlink()
        with pytest.raises(UserError, match="2.jpg cannot be read"):
            pipeline.pixels(data, 8)

    def test_a_folder_in_place_of_a_file(self, tmp_path):
        data = self.on_disk(tmp_path)
        data.images[2].unlink()
        data.images[2].mkdir()
        with pytest.raises(UserError, match="2.jpg cannot be read"):
            pipeline.pixels(data, 8)
        shutil.rmtree(data.images[2])


def test_augmentation_is_drawn_anew_at_every_step():
    """Over the steps each place of the batch sees both views and other crops."""
    batches = pipeline.Batches(np.zeros((64, 4, 4, 3), np.uint8), batch_size=16, seed=5, views=2, crop=0.5, size=4)
    drawn = [batches.at(step) for step in range(12)]
    assert all(set(place) == {0, 1} for place in np.stack([b["view"] for b in drawn], 1))
    assert len({b["boxes"].tobytes() for b in drawn}) == 12
