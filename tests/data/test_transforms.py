"""Image operations; every one alone AND inside tf.data."""

import io
import json

import keras
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from amalgam_tf.data import transforms
from amalgam_tf.data.examples import FITS
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError

RNG = np.random.default_rng(0)
NAMED = ("centred", "torch", "caffe", "tf", "unit", "none")


def picture(height=40, width=56) -> np.ndarray:
    """Smooth and rough parts, all three channels different."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([255 * y / height, 255 * x / width, 127 + 127 * np.sin(x / 5)], -1)
    return np.clip(smooth + np.random.default_rng(1).normal(scale=12, size=smooth.shape), 0, 255).astype(np.uint8)


def encoded(array: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def batch(count=3, size=8) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, size, size, 3), np.uint8)


class TestPreprocessing:
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    @pytest.mark.parametrize("name", NAMED)
    def test_row_trick_against_numpy(self, name, dtype):
        p, images = Preprocessing.named(name, 8), batch().astype(dtype)
        x = images.astype(np.float64)[..., ::-1] if p.order == "bgr" else images.astype(np.float64)
        out = p(images)
        assert out.dtype == tf.float32
        assert out.shape == images.shape
        np.testing.assert_allclose(out, (x - np.array(p.mean)) / np.array(p.std), atol=1e-4)

    def test_own_numbers_and_a_wide_image(self):
        p = Preprocessing(8, mean=(1, 2, 3), std=(4, 5, 6))
        images = RNG.uniform(0, 255, (2, 4, 10, 3)).astype(np.float32)
        np.testing.assert_allclose(p(images), (images - [1, 2, 3]) / [4, 5, 6], rtol=1e-4, atol=1e-5)

    def test_caffe_is_what_keras_resnets_want(self):
        images = batch()
        theirs = keras.applications.resnet50.preprocess_input(images.astype(np.float32).copy())
        np.testing.assert_allclose(Preprocessing.named("caffe", 8)(images), theirs, atol=1e-4)

    @pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
    def test_the_modes_of_keras(self, mode):
        images = batch()
        theirs = keras.applications.imagenet_utils.preprocess_input(images.astype(np.float32).copy(), mode=mode)
        np.testing.assert_allclose(Preprocessing.named(mode, 8)(images), theirs, atol=1e-4)

    def test_unit_and_none(self):
        images = batch()
        np.testing.assert_allclose(Preprocessing.named("unit", 8)(images), images / 255.0, atol=1e-6)
        np.testing.assert_array_equal(Preprocessing.named("none", 8)(images), images)

    @pytest.mark.parametrize("name", NAMED)
    def test_json_round_trip(self, name):
        p = Preprocessing.named(name, 32)
        again = Preprocessing.from_json(json.loads(json.dumps(p.to_json())))
        assert again == p
        assert hash(again) == hash(p)
        assert isinstance(again.mean, tuple)

    @pytest.mark.parametrize("options", [{"order": "gbr"}, {"mean": (1.0, 2.0)}, {"std": (1.0, 1.0, 0.0)}, {"std": (1.0, 1.0, -1.0)}])
    def test_refused(self, options):
        with pytest.raises(UserError, match="preprocessing needs order rgb or bgr"):
            Preprocessing(8, **options)

    def test_unknown_name(self):
        with pytest.raises(UserError, match="unknown normalisation 'keras': choose centred, torch, caffe, tf, unit, none"):
            Preprocessing.named("keras", 8)


class TestResize:
    @pytest.mark.parametrize(("height", "width", "size"), [(40, 56, 16), (56, 40, 16), (90, 33, 32), (20, 20, 48)])
    def test_close_to_pillow(self, height, width, size):
        image = picture(height, width)
        theirs = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR), np.int32)
        ours = transforms.resize(image, size)
        assert ours.dtype == tf.uint8
        assert np.abs(ours.numpy().astype(np.int32) - theirs).max() <= 1

    def test_the_same_size_changes_nothing(self):
        assert np.array_equal(transforms.resize(batch(), 8), batch())

    def test_batch_equals_one_by_one(self):
        images = batch(size=20)
        assert np.array_equal(transforms.resize(images, 8), [transforms.resize(i, 8) for i in images])

    def test_rounds_and_stays_in_range(self):
        half = np.full((1, 4, 4, 3), 100.6, np.float32)
        assert (transforms.resize(half, 2).numpy() == 101).all()
        assert (transforms.resize(half * 0 + 300, 2).numpy() == 255).all()


class TestDecode:
    def test_png_is_exact(self):
        image = picture(16, 16)
        assert np.array_equal(transforms.decode(encoded(image, "PNG"), 16), image)
        out = transforms.decode(encoded(picture(), "PNG"), 16)
        assert np.array_equal(out, transforms.resize(picture(), 16))

    def test_jpeg_is_close_to_pillow(self):
        data = encoded(picture(), "JPEG", quality=95)
        theirs = np.asarray(Image.open(io.BytesIO(data)).resize((16, 16), Image.Resampling.BILINEAR), np.int32)
        assert np.abs(transforms.decode(data, 16).numpy().astype(np.int32) - theirs).mean() < 2

    def test_bmp_and_gif(self):
        assert np.array_equal(transforms.decode(encoded(picture(16, 16), "BMP"), 16), picture(16, 16))
        assert transforms.decode(encoded(picture(16, 16), "GIF"), 16).shape == (16, 16, 3)

    def test_grey_becomes_three_equal_channels(self):
        out = transforms.decode(encoded(picture(16, 16)[..., 0], "PNG"), 16).numpy()
        assert np.array_equal(out, np.repeat(picture(16, 16)[..., :1], 3, -1))

    def test_a_transparent_png_has_three_channels(self):
        image = np.concatenate([picture(16, 16), np.full((16, 16, 1), 255, np.uint8)], -1)
        assert np.array_equal(transforms.decode(encoded(image, "PNG"), 16), image[..., :3])

    def test_something_else(self):
        with pytest.raises(tf.errors.InvalidArgumentError):
            transforms.decode(b"not an image", 16)


class TestFlip:
    def test_mirrors_the_flagged_ones_left_to_right(self):
        images = batch()
        for flags in ([0, 1, 0], [False, True, False], np.array([0, 1, 0], np.int32)):
            out = transforms.flip(tf.constant(images), tf.constant(flags)).numpy()
            assert np.array_equal(out[[0, 2]], images[[0, 2]])
            assert np.array_equal(out[1], images[1, :, ::-1])
            assert not np.array_equal(out[1], images[1])

    def test_twice_is_nothing(self):
        images = tf.constant(batch())
        assert np.array_equal(transforms.flip(transforms.flip(images, [1, 1, 1]), [1, 1, 1]), images)


class TestCrop:
    def test_the_full_box_is_the_identity(self):
        out = transforms.crop(tf.constant(batch()), tf.constant([[0.0, 0.0, 1.0, 1.0]] * 3), 8)
        assert out.dtype == tf.float32
        np.testing.assert_allclose(out, batch(), atol=1e-3)

    def test_boxes_are_top_left_bottom_right(self):
        images = batch(2, 9)
        boxes = tf.constant([[0.0, 0.0, 0.5, 0.5], [0.5, 0.25, 1.0, 0.75]])
        out = transforms.crop(tf.constant(images), boxes, 5)  # 9 pixels: the corners of a half are pixels 0 and 4
        np.testing.assert_allclose(out[0], images[0, :5, :5], atol=1e-3)
        np.testing.assert_allclose(out[1], images[1, 4:, 2:7], atol=1e-3)


OPERATIONS = {
    "resize": lambda images: transforms.resize(images, 5),
    "flip": lambda images: transforms.flip(images, tf.constant([True, False, True])),
    "crop": lambda images: transforms.crop(images, tf.constant([[0.1, 0.2, 0.9, 0.7]] * 3), 6),
    **{name: Preprocessing.named(name, 8) for name in NAMED},
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_alone_and_inside_tf_data_are_equal(name):
    alone = OPERATIONS[name](tf.constant(batch()))
    inside = next(iter(tf.data.Dataset.from_tensors(batch()).map(OPERATIONS[name])))
    assert inside.dtype == alone.dtype
    np.testing.assert_allclose(inside, alone, rtol=1e-6, atol=1e-5)  # graph and eager differ by a rounding


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_decode_inside_tf_data(kind):
    data = encoded(picture(), kind)
    dataset = tf.data.Dataset.from_tensors(data).map(lambda d: transforms.decode(d, 16))
    assert dataset.element_spec.shape == (16, 16, 3)
    assert np.array_equal(next(iter(dataset)), transforms.decode(data, 16))


class TestFit:
    """A picture that is not square: all of it squeezed, or its central square."""

    @pytest.mark.parametrize(("height", "width"), [(24, 16), (16, 24), (25, 16), (16, 16)])
    def test_crop_is_the_central_square_at_its_size(self, height, width):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        top, left = (height - 16) // 2, (width - 16) // 2
        assert np.array_equal(transforms.resize(image, 16, "crop"), image[top : top + 16, left : left + 16])
        assert np.array_equal(transforms.decode(encoded(image, "PNG"), 16, "crop"), image[top : top + 16, left : left + 16])

    def test_crop_is_resize_of_the_short_side_and_centre_crop(self):
        rows, columns = np.mgrid[:109, :89]
        image = np.stack([rows * 2, columns * 2, rows + columns], -1).astype(np.uint8)
        whole = np.asarray(Image.fromarray(image).resize((32, round(109 * 32 / 89)), Image.Resampling.BILINEAR), int)
        top = (len(whole) - 32) // 2
        steepest = 2 * 89 / 32  # from one pixel of the result to the next
        far = {fit: np.abs(transforms.resize(image, 32, fit).numpy().astype(int) - whole[top : top + 32]).max() for fit in FITS}
        assert far["crop"] < steepest < 3 * steepest < far["squeeze"]

    def test_squeeze_is_the_default_and_keeps_everything(self):
        image = picture()
        assert np.array_equal(transforms.resize(image, 16), transforms.resize(image, 16, "squeeze"))
        assert not np.array_equal(transforms.resize(image, 16), transforms.resize(image, 16, "crop"))

    def test_batches_and_graphs(self):
        images = np.random.default_rng(1).integers(0, 256, (3, 10, 20, 3), np.uint8)
        out = tf.function(lambda x: transforms.resize(x, 10, "crop"), autograph=False)(tf.constant(images))
        assert np.array_equal(out, images[:, :, 5:15])
