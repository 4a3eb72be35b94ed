"""Images for students whose teachers saw others: noise, unseen scenes, another reader's train split; and categories as binary labels."""

import numpy as np
import pytest

from amalgam_tf import data
from amalgam_tf.data import noise
from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.data.scenes import unseen
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task


def options(**changes):
    return {**data.DEFAULTS, "cache_dir": "", "train_count": 30, "test_count": 12, "render_size": 16, "hold_out": 0.3, **changes}


class TestNoise:
    def test_normalised_values_are_standard_normal(self):
        """As `centred` images are normalised; cut off at +-2, so the variance is 0.92 and no more (that of N(0, 1) so clipped)."""
        x = (noise.load(split="train", count=40, size=32, seed=0).images.astype(np.float64) - 127.5) / 64
        clipped = np.clip(np.random.default_rng(1).standard_normal(10**6), -127.5 / 64, 127.5 / 64)
        assert abs(x.mean()) < 0.01 and x.var() == pytest.approx(clipped.var(), abs=0.01)
        neighbours = np.corrcoef(x[:, :, :-1].ravel(), x[:, :, 1:].ravel())[0, 1]
        assert abs(neighbours) < 0.01

    def test_a_function_of_seed_split_and_number(self):
        few, many = (noise.load(split="train", count=n, size=8, seed=3) for n in (2, 5))
        np.testing.assert_array_equal(few.images, many.images[:2])
        for other in (dict(split="test", seed=3), dict(split="train", seed=4)):
            assert (noise.load(count=2, size=8, **other).images != few.images).mean() > 0.9
        assert few.tasks == () and few.name == "noise/train"

    def test_no_images(self):
        with pytest.raises(UserError, match="data.train_count=0"):
            noise.load(split="train", count=0, size=8, seed=0)


class TestUnseen:
    def test_rooms_are_those_of_the_scenes_and_bodies_are_not(self):
        ours, theirs = unseen.composed(5, 7), data.scenes.composing.compose(5, 7)[0]
        assert {b.shape for b in ours.bodies} <= set(unseen.SHAPES) and not {b.shape for b in ours.bodies} & set(data.scenes.SHAPES)
        assert {m.pattern for m in ours.materials} == {"marble"} and "marble" not in data.scenes.SURFACES
        assert ours.camera is not None and ours.wall.pattern == theirs.wall.pattern and len(ours.bodies) == len(theirs.bodies)
        for mine, other in zip(ours.bodies, theirs.bodies, strict=True):
            np.testing.assert_array_equal(mine.center[:2], other.center[:2])

    def test_pictures(self):
        a, b = (unseen.load(split="train", count=n, size=16, seed=0) for n in (3, 2))
        np.testing.assert_array_equal(a.images[:2], b.images)
        others = data.scenes.render(0, range(3), 16).images
        assert a.tasks == () and 0.02 < (np.abs(a.images.astype(int) - others) > 16).mean() < 0.9

    def test_unknown_split(self):
        with pytest.raises(UserError, match="split of scenes_unseen"):
            unseen.load(split="trian", count=1, size=16, seed=0)


class TestAnotherTrainSplit:
    def test_test_part_and_its_truth_stay(self):
        own, other = data.parts(options()), data.parts(options(train_reader="noise"))
        assert own.test.fingerprint == other.test.fingerprint and other.train.name == "noise/train/rest"
        assert len(other.train) + len(other.held_out) == 30 and other.train.tasks == ()

    def test_what_is_said_of_labels_is_about_the_test_part(self, tmp_path):
        """A folder of unlabelled images beside test images in class folders."""
        import tensorflow as tf

        for name in ("test/cat/1", "test/dog/2", "frames/train/3", "frames/train/4", "frames/train/5"):
            path = tmp_path / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(np.full((8, 8, 3), hash(name) % 255, np.uint8)).numpy())
        o = options(reader="folder", root=str(tmp_path), task="animal", one_vs_rest=True, hold_out=0.5)
        parts = data.parts({**o, "train_reader": "folder", "train_root": str(tmp_path / "frames")})
        assert [t.name for t in parts.test.tasks] == ["cat", "dog"] and parts.train.tasks == ()
        assert len(parts.train) + len(parts.held_out) == 3


class TestOneVersusRest:
    def examples(self):
        tasks = (Task("animal", "category", ("cat", "dog", "emu"), "softmax"), Task("dark"))
        labels = {"animal": np.array([0, 2, IGNORE, 1], np.int32), "dark": np.array([1, 0, 0, IGNORE], np.int32)}
        return Examples("x", tuple("abcd"), np.zeros((4, 2, 2, 3), np.uint8), tasks, labels)

    def test_by_hand(self):
        made = self.examples().one_vs_rest()
        assert [(t.name, t.kind, t.head) for t in made.tasks] == [(n, "binary", "sigmoid") for n in ("cat", "dog", "emu", "dark")]
        expected = {"cat": [1, 0, IGNORE, 0], "dog": [0, 0, IGNORE, 1], "emu": [0, 1, IGNORE, 0], "dark": [1, 0, 0, IGNORE]}
        assert {k: v.tolist() for k, v in made.labels.items()} == expected

    def test_one_name_twice(self):
        """The scenes' category `shape` has the classes that are binary tasks, too."""
        with pytest.raises(UserError, match="two tasks called sphere with data.one_vs_rest"):
            data.load(options(one_vs_rest=True, train_count=4), "train")
