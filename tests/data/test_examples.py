"""`Examples` and the held-out split."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from amalgam_tf.data import codecs
from amalgam_tf.data.examples import IGNORE, Examples, hold_out
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task

TASKS = (Task("dog"), Task("weather", "category", ("sun", "rain", "snow"), "softmax"))


def examples(count=6, **changes) -> Examples:
    rng = np.random.default_rng(0)
    options = dict(
        name="mine/train",
        ids=tuple(f"i{k}" for k in range(count)),
        images=rng.integers(0, 256, (count, 4, 4, 3), np.uint8),
        tasks=TASKS,
        labels={"dog": rng.integers(0, 2, count, np.int32), "weather": rng.integers(0, 3, count, np.int32)},
    )
    return Examples(**{**options, **changes})


def on_disk(folder: Path, count=4) -> Examples:
    paths = [folder / f"{k}.jpg" for k in range(count)]
    for k, path in enumerate(paths):
        path.write_bytes(b"x" * (k + 1))
    return Examples("disk", tuple(p.stem for p in paths), paths, (), {})


def refused(message, call, *arguments, **options):
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


class TestChecks:
    def test_refused(self):
        refused("holds no image: check the split", Examples, "none", (), [], (), {})
        refused("lists an image twice", examples, ids=("a", "b", "c", "d", "e", "a"))
        refused("6 ids do not match {'images': 5}", examples, images=np.zeros((5, 4, 4, 3), np.uint8))
        refused("6 ids do not match {'dog': 3}", examples, labels={"dog": np.zeros(3), "weather": np.zeros(6)})
        refused("do not match the tasks of the labels", examples, tasks=TASKS[:1])

    def test_length(self):
        assert len(examples()) == 6


class TestChoosing:
    def test_take_keeps_everything_together_and_in_order(self):
        whole = examples()
        part = whole.take([4, 0, 2])
        assert part.ids == ("i4", "i0", "i2")
        assert np.array_equal(part.images, whole.images[[4, 0, 2]])
        assert np.array_equal(part.labels["dog"], whole.labels["dog"][[4, 0, 2]])
        assert np.array_equal(part.labels["weather"], whole.labels["weather"][[4, 0, 2]])
        assert (part.name, whole.take([1], "other").name) == ("mine/train", "other")

    def test_take_of_files(self, tmp_path):
        assert [p.name for p in on_disk(tmp_path).take(np.array([3, 1])).images] == ["3.jpg", "1.jpg"]

    def test_take_nothing(self):
        refused("holds no image", examples().take, [])

    def test_only_and_its_order(self):
        part = examples().only(["weather"])
        assert part.tasks == TASKS[1:]
        assert set(part.labels) == {"weather"}
        assert [t.name for t in examples().only(["weather", "dog"]).tasks] == ["weather", "dog"]
        refused("mine/train has no truth for cat, cow; it has dog, weather", examples().only, ["dog", "cat", "cow"])
        refused("it has no labels at all", examples().unlabelled().only, ["dog"])

    def test_unlabelled(self):
        bare = examples().unlabelled()
        assert (bare.tasks, bare.labels, bare.ids) == ((), {}, examples().ids)


class TestFingerprint:
    def test_equal_content_equal_fingerprint(self):
        assert examples().fingerprint == examples().fingerprint
        assert len(examples().fingerprint) == 16

    def test_every_part_changes_it(self):
        whole, dog, pixel = examples(), examples(), examples()
        dog.labels["dog"][2] = IGNORE
        pixel.images[1, 2, 3, 0] ^= 1
        others = [
            dog,
            pixel,
            examples(name="mine/val"),
            examples(ids=("x", *whole.ids[1:])),
            whole.only(["dog"]),
            whole.only(["weather", "dog"]),
            whole.unlabelled(),
            whole.take([0, 1, 2]),
            whole.take([1, 0, 2, 3, 4, 5]),
            examples(tasks=(Task("dog", head="softmax2"), TASKS[1])),
        ]
        prints = {e.fingerprint for e in (whole, *others)}
        assert len(prints) == 1 + len(others)

    def test_files_by_name_and_size(self, tmp_path):
        before = on_disk(tmp_path).fingerprint
        assert on_disk(tmp_path).fingerprint == before
        changed = on_disk(tmp_path)
        (tmp_path / "1.jpg").write_bytes(b"longer than before")
        assert changed.fingerprint != before
        (tmp_path / "1.jpg").unlink()
        assert changed.fingerprint != before  # a missing file is noticed when it is read, not here


def dense(count=4, **changes) -> Examples:
    rng = np.random.default_rng(1)
    labels = {
        "normal": rng.integers(0, 256, (count, 4, 4, 3), np.uint8),
        "keypoints2d": rng.integers(0, 65536, (count, 4, 4, 1), np.uint16),
    }
    tasks = (codecs.task("normal"), codecs.task("keypoints2d"))
    depth = rng.integers(0, 65536, (count, 4, 4, 1), np.uint16)
    return examples(count, **{"tasks": tasks, "labels": labels, "depth": depth, **changes})


def dense_on_disk(folder: Path, count=3) -> Examples:
    for domain in ("normal", "keypoints2d", "depth"):
        (folder / domain).mkdir(exist_ok=True)
        for k in range(count):
            (folder / domain / f"{k}.png").write_bytes(b"x" * (k + 1))
    paths = {d: np.array([str(folder / d / f"{k}.png") for k in range(count)]) for d in ("normal", "keypoints2d", "depth")}
    return dense(count, labels={d: paths[d] for d in ("normal", "keypoints2d")}, depth=paths["depth"])


class TestDense:
    def test_take_cuts_maps_and_depth(self, tmp_path):
        for whole in (dense(3), dense_on_disk(tmp_path)):
            part = whole.take([2, 0])
            assert part.ids == ("i2", "i0")
            for name in ("normal", "keypoints2d"):
                assert np.array_equal(part.labels[name], whole.labels[name][[2, 0]])
            assert np.array_equal(part.depth, whole.depth[[2, 0]])

    def test_only_keeps_depth_and_unlabelled_drops_it(self):
        part = dense().only(["keypoints2d"])
        assert set(part.labels) == {"keypoints2d"} and np.array_equal(part.depth, dense().depth)
        assert dense().unlabelled().depth is None and not dense().unlabelled().labels

    def test_hold_out_keeps_maps_beside_their_images(self):
        whole = dense(40)
        for part in hold_out(whole, 0.3):
            at = [whole.ids.index(i) for i in part.ids]
            assert np.array_equal(part.depth, whole.depth[at]) and np.array_equal(part.labels["normal"], whole.labels["normal"][at])

    def test_lengths(self):
        refused("4 ids do not match {'depth': 3}", dense, depth=dense().depth[:3])

    def test_numbers_change_the_fingerprint(self):
        whole, one, deep = dense(), dense(), dense()
        one.labels["normal"][3, 3, 3, 2] ^= 1
        deep.depth[0, 0, 0, 0] ^= 1
        prints = {e.fingerprint for e in (whole, one, deep, dense(depth=None), whole.only(["normal"]), whole.unlabelled())}
        assert len(prints) == 6 and dense().fingerprint == whole.fingerprint

    def test_files_change_the_fingerprint_by_name_and_size(self, tmp_path):
        before = dense_on_disk(tmp_path)
        print_before = before.fingerprint
        (tmp_path / "elsewhere").mkdir()
        assert dense_on_disk(tmp_path / "elsewhere").fingerprint == print_before
        for domain in ("normal", "depth"):
            (tmp_path / domain / "1.png").write_bytes(b"longer than before")
            assert before.fingerprint != print_before
            assert dense_on_disk(tmp_path).fingerprint == print_before  # which writes them again

    def test_fingerprints_of_data_without_maps_are_those_they_always_were(self):
        """Cards and decisions on disk name data by them."""
        assert examples().fingerprint == "59987947dfd226f7"
        assert examples().unlabelled().fingerprint == "c93ea9567c3df8e7"
        assert examples(fit="crop").fingerprint == "3f788089c946a994"
        assert (examples().images_key, examples(fit="crop").images_key) == ("b7b4bae86b432d04", "36fe2f056a43c927")

    def test_fingerprints_of_files_are_those_they_always_were(self, tmp_path):
        assert on_disk(tmp_path).fingerprint == "86418b7815911a43"


class TestHoldOut:
    def test_a_partition_in_the_original_order(self):
        whole = examples(50)
        rest, held = hold_out(whole, 0.3)
        assert set(rest.ids) | set(held.ids) == set(whole.ids)
        assert not set(rest.ids) & set(held.ids)
        for part in (rest, held):
            at = [whole.ids.index(i) for i in part.ids]
            assert at == sorted(at)
            assert np.array_equal(part.images, whole.images[at])
        assert (rest.name, held.name) == ("mine/train/rest", "mine/train/held_out")

    def test_the_share_is_about_right(self):
        _, held = hold_out(examples(2000), 0.1)
        assert 0.07 < len(held) / 2000 < 0.13

    @settings(deadline=None, max_examples=25)
    @given(st.sets(st.integers(0, 199), min_size=60, max_size=120), st.integers(0, 3))
    def test_an_image_keeps_its_side_when_others_come_and_go(self, kept, seed):
        whole = examples(200)
        held = set(hold_out(whole, 0.3, seed)[1].ids)
        part = whole.take(sorted(kept))
        assert set(hold_out(part, 0.3, seed)[1].ids) == held & set(part.ids)

    def test_another_seed_another_split(self):
        whole = examples(100)
        assert hold_out(whole, 0.3, 0)[1].ids != hold_out(whole, 0.3, 1)[1].ids

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
    def test_fractions_that_make_no_sense(self, fraction):
        refused("must lie between 0 and 1", hold_out, examples(), fraction)

    def test_an_empty_side(self):
        refused("leaves one side empty: use more images", hold_out, examples(1), 0.5)
