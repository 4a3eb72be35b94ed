"""`Examples` and the held-out split."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

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
