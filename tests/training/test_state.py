"""What survives a kill: checkpoints, atomic JSON, digests."""

import dataclasses
import json
import os

from hypothesis import given, settings
from hypothesis import strategies as st
import keras
import numpy as np
import pytest

from amalgam_tf.errors import UserError
from amalgam_tf.training import state
from amalgam_tf.training.state import Checkpoints, values_digest

RNG = np.random.default_rng(0)


def variable(value, dtype="float32", **options) -> keras.Variable:
    return keras.Variable(np.asarray(value), dtype=dtype, trainable=dtype.startswith(("f", "b")), **options)


def states(fill=None) -> dict[str, keras.Variable]:
    """One of every kind; random bits, or all `fill`."""
    make = (lambda x: x) if fill is None else (lambda x: np.full_like(x, fill))
    seed = keras.random.SeedGenerator(5 if fill is None else fill)
    if fill is None:
        keras.random.uniform((2,), seed=seed)  # moves its state
    return {
        "net/b1/kernel": variable(make(RNG.normal(size=(3, 4)).astype(np.float32))),
        "net/b1/low": variable(make(RNG.normal(size=5).astype(np.float32)), "bfloat16"),
        "net/scalar_low": variable(make(np.float32(1.0078125)), "bfloat16"),
        "step": variable(make(np.int64(2**53 + 1)), "int64"),
        "net/b1/seed": seed.state,
        "net/empty": variable(make(np.zeros((0, 3), np.float32))),
    }


def bits(named) -> dict[str, bytes]:
    return {k: v.value.numpy().tobytes() for k, v in named.items()}


def saved(folder, value=1.0, total=0, **progress) -> Checkpoints:
    """A folder with one more checkpoint, whose only variable has this value."""
    checkpoints = Checkpoints(folder)
    checkpoints.track({"v": variable([0.0, 0.0])})
    checkpoints.variables["v"].assign([value, -value])
    checkpoints.progress = state.Progress(total=total, **progress)
    checkpoints.save()
    return checkpoints


def restored(folder) -> tuple[float, Checkpoints]:
    checkpoints, v = Checkpoints(folder), variable([0.0, 0.0])
    checkpoints.track({"v": v})
    return float(v[0]), checkpoints


def newest(folder):
    return sorted(folder.glob("[0-9]*.npz"))[-1]


class TestRoundTrip:
    def test_bit_exact_for_every_kind_of_variable(self, tmp_path):
        first, old = Checkpoints(tmp_path), states()
        first.track(old)
        first.progress = state.Progress("block/b2", 3, 17, ["block/b1"], 99, 1.5, {"value": 0.25, "step": 2})
        first.best = {"net/b1/kernel": old["net/b1/kernel"].numpy() + 1, "net/b1/low": old["net/b1/low"].value.numpy() * 2}
        first.save()
        again, new = Checkpoints(tmp_path), states(fill=0)
        assert bits(new) != bits(old)
        again.track(new)
        assert bits(new) == bits(old)
        assert values_digest(new) == values_digest(old)
        assert dataclasses.asdict(again.progress) == dataclasses.asdict(first.progress)
        assert {k: (v.dtype, v.tobytes()) for k, v in again.best.items()} == {k: (v.dtype, v.tobytes()) for k, v in first.best.items()}
        assert again.notes == []

    def test_tracked_piece_by_piece_in_any_order(self, tmp_path):
        first, old = Checkpoints(tmp_path), states()
        first.track(old)
        first.save()
        again, new = Checkpoints(tmp_path), states(fill=0)
        for name in sorted(new, reverse=True):
            again.track({name: new[name]})
        assert bits(new) == bits(old)

    @pytest.mark.parametrize("name", ["a/b/c", "a%2Fb", "50%", "%25", "a%:b", "best/x", "ä/ö", "a b#2", "x.npy", "arr_0"])
    def test_names_with_slashes_and_percent(self, tmp_path, name):
        first = Checkpoints(tmp_path)
        first.track({name: variable([1.5, 2.5]), f"{name}/low": variable([1.5], "bfloat16")})
        first.save()
        again, v = Checkpoints(tmp_path), variable([0.0, 0.0])
        again.track({name: v})
        assert v.numpy().tolist() == [1.5, 2.5]

    @settings(deadline=None, max_examples=30)
    @given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")).map("r/".__add__), st.floats(width=32)))
    def test_any_names(self, tmp_path_factory, content):
        path = tmp_path_factory.mktemp("names") / "x.npz"
        arrays = {k: np.array([v], np.float32) for k, v in content.items()}
        state.write_arrays(path, arrays, {"format": 1})
        back, record = state.read_arrays(path)
        assert record == {"format": 1}
        assert {k: v.tobytes() for k, v in back.items()} == {k: v.tobytes() for k, v in arrays.items()}

    def test_a_fresh_folder(self, tmp_path):
        value, checkpoints = restored(tmp_path / "a" / "b")
        assert (value, checkpoints.progress, checkpoints.notes) == (0.0, state.Progress(), [])


class TestTrack:
    def test_a_name_used_twice(self, tmp_path):
        checkpoints, v = Checkpoints(tmp_path), variable([1.0])
        checkpoints.track({"v": v})
        checkpoints.track({"v": v})  # the same variable again is fine
        with pytest.raises(ValueError, match="'v' is used twice"):
            checkpoints.track({"v": variable([1.0])})

    @pytest.mark.parametrize("value", [[0.0], [[0.0, 0.0]], 0.0])
    def test_another_shape(self, tmp_path, value):
        saved(tmp_path)
        with pytest.raises(UserError, match=r"holds v with shape \(2,\), this run needs .* choose a new --workdir") as caught:
            Checkpoints(tmp_path).track({"v": variable(value)})
        assert "\n" not in str(caught.value)

    def test_restored_once_and_not_again(self, tmp_path):
        saved(tmp_path, 3.0)
        _, checkpoints = restored(tmp_path)
        checkpoints.variables["v"].assign([9.0, 9.0])
        checkpoints.track({"v": checkpoints.variables["v"]})
        assert float(checkpoints.variables["v"][0]) == 9.0

    def test_forgotten_variables_are_not_saved(self, tmp_path):
        checkpoints = saved(tmp_path, 3.0)
        checkpoints.forget(["v", "never there"])
        checkpoints.progress.total = 5
        checkpoints.save()
        assert restored(tmp_path)[0] == 0.0

    def test_values_by_variable(self, tmp_path):
        checkpoints, a, b = Checkpoints(tmp_path), variable([1.0]), variable([2.0])
        checkpoints.track({"a": a, "b": b})
        assert {k: v.tolist() for k, v in checkpoints.values([b]).items()} == {"b": [2.0]}


class TestKept:
    def test_the_last_two(self, tmp_path):
        checkpoints = saved(tmp_path)
        for total in (5, 10, 15):
            checkpoints.progress.total = total
            checkpoints.save()
        assert [p.name for p in sorted(tmp_path.iterdir())] == ["000000010-000.npz", "000000015-000.npz"]

    def test_a_finished_phase_is_newer_than_its_last_step(self, tmp_path):
        checkpoints = saved(tmp_path, 1.0, total=10)
        checkpoints.progress.finished.append("block/b1")
        checkpoints.variables["v"].assign([2.0, 2.0])
        checkpoints.save()
        assert restored(tmp_path)[0] == 2.0

    def test_leftovers_of_a_killed_save_are_cleaned(self, tmp_path):
        saved(tmp_path, 4.0)
        (tmp_path / ".000000009-000.4711.npz").write_bytes(b"half a chec")
        value, checkpoints = restored(tmp_path)
        assert (value, checkpoints.notes) == (4.0, [])
        assert [p.name for p in tmp_path.iterdir()] == ["000000000-000.npz"]

    def test_a_save_that_fails_leaves_the_one_before(self, tmp_path, monkeypatch):
        checkpoints = saved(tmp_path, 4.0, total=1)
        checkpoints.variables["v"].assign([5.0, 5.0])
        checkpoints.progress.total = 2

        def killed(*_):
            raise OSError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with pytest.raises(UserError, match=r"000000002-000.npz cannot be written \(no space left on device\): free space"):
                checkpoints.save()
        assert restored(tmp_path)[0] == 4.0


class TestDamage:
    @pytest.mark.parametrize("damage", ["empty", "half", "last byte", "flipped", "text"])
    def test_the_one_before_is_used_and_it_says_so(self, tmp_path, damage):
        saved(tmp_path, 1.0, total=5, phase="block/b1", step=5)
        saved(tmp_path, 2.0, total=9)
        path = newest(tmp_path)
        good = path.read_bytes()
        at = good.index(np.float32(2.0).tobytes())
        flipped = good[:at] + b"\xff" + good[at + 1 :]
        cases = {"empty": b"", "half": good[: len(good) // 2], "last byte": good[:-1], "text": b"hello", "flipped": flipped}
        path.write_bytes(cases[damage])
        value, checkpoints = restored(tmp_path)
        assert value == 1.0
        assert (checkpoints.progress.total, checkpoints.progress.phase, checkpoints.progress.step) == (5, "block/b1", 5)
        (note,) = checkpoints.notes
        assert note.startswith("checkpoint 000000009-000.npz is damaged")

    def test_no_damaged_byte_passes_for_a_checkpoint(self, tmp_path):
        path, rng = tmp_path / "x.npz", np.random.default_rng(1)
        # Large enough that NumPy would not read a member to its end when its header lies about the shape.
        arrays = {"a/b": np.arange(4096, dtype=np.float32), "c": np.ones((2, 2), np.int64)}
        state.write_arrays(path, arrays, {"format": 1})
        good = path.read_bytes()
        places = [*range(400), *range(len(good) - 700, len(good)), *rng.integers(400, len(good) - 700, 20)]
        caught = 0

        def whole(content):
            return {k: (v.dtype, v.shape, v.tobytes()) for k, v in content.items()}

        for place in map(int, places):
            path.write_bytes(good[:place] + bytes([good[place] ^ (1 << int(rng.integers(8)))]) + good[place + 1 :])
            try:
                back, record = state.read_arrays(path)
            except state._BROKEN:
                caught += 1
                continue
            assert record == {"format": 1}, place
            assert whole(back) == whole(arrays), place
        assert caught > len(places) / 2

    def test_a_header_that_lies_about_the_shape(self, tmp_path):
        path = tmp_path / "x.npz"
        state.write_arrays(path, {"a": np.arange(40000, dtype=np.float32)}, {"format": 1})
        path.write_bytes(path.read_bytes().replace(b"(40000,)", b"(10000,)"))
        with pytest.raises(state._BROKEN):
            state.read_arrays(path)

    def test_both_damaged_starts_fresh_and_says_so(self, tmp_path):
        for total in (5, 9):
            saved(tmp_path, 2.0, total=total)
        for path in tmp_path.glob("*.npz"):
            path.write_bytes(b"rubbish")
        value, checkpoints = restored(tmp_path)
        assert (value, checkpoints.progress) == (0.0, state.Progress())
        assert ["000000009-000.npz is damaged" in checkpoints.notes[0], "000000005-000.npz is damaged" in checkpoints.notes[1]] == [
            True,
            True,
        ]
        assert checkpoints.notes[-1] == "no checkpoint is left: starting from the beginning"

    def test_damaged_files_do_not_push_out_good_ones(self, tmp_path):
        """A run that goes on from further back saves below the damaged files: what it saves must stay."""
        for total in (50, 60):
            saved(tmp_path, 2.0, total=total)
        for path in tmp_path.glob("*.npz"):
            path.write_bytes(b"rubbish")
        _, checkpoints = restored(tmp_path)
        for total in (10, 20):
            checkpoints.progress.total = total
            checkpoints.variables["v"].assign([float(total), 0.0])
            checkpoints.save()
        value, again = restored(tmp_path)
        assert (value, again.progress.total, again.notes) == (20.0, 20, [])
        assert len(list(tmp_path.glob("[0-9]*.npz"))) == 2

    def test_a_newer_format_is_refused(self, tmp_path):
        saved(tmp_path)
        state.write_arrays(tmp_path / "000000099-000.npz", {}, {"format": state.FORMAT + 1})
        with pytest.raises(UserError, match=r"000000099-000.npz has format 2, newer than the 1 this version reads: upgrade"):
            Checkpoints(tmp_path)

    @pytest.mark.parametrize("data", [{}, {"format": "1"}, {"format": None}, [1], "x"])
    def test_no_format(self, tmp_path, data):
        with pytest.raises(UserError, match="has no format number"):
            state.check_format(data, tmp_path)


class TestJson:
    def test_round_trip(self, tmp_path):
        path = tmp_path / "a" / "b.json"
        data = {"ä": [1, 2.5, None], "nested": {"x": True}}
        state.write_json(path, data)
        assert state.read_json(path) == data
        assert [p.name for p in path.parent.iterdir()] == ["b.json"]

    @pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": object()}])
    def test_what_cannot_be_written_leaves_the_file_as_it_was(self, tmp_path, bad):
        path = tmp_path / "x.json"
        state.write_json(path, {"old": 1})
        with pytest.raises((ValueError, TypeError)):
            state.write_json(path, {"first": 1, **bad})
        assert state.read_json(path) == {"old": 1}

    def test_a_kill_before_the_rename_leaves_the_file_as_it_was(self, tmp_path, monkeypatch):
        path = tmp_path / "x.json"
        state.write_json(path, {"old": 1})

        def killed(source, target):
            assert json.loads(source.read_text()) == {"new": 2}  # whole before it appears
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            state.write_json(path, {"new": 2})
        assert state.read_json(path) == {"old": 1}

    def test_missing_and_malformed(self, tmp_path):
        with pytest.raises(UserError, match="x.json does not exist"):
            state.read_json(tmp_path / "x.json")
        for content in (b"{", b"\xff\xfe\x00", b""):
            (tmp_path / "x.json").write_bytes(content)
            with pytest.raises(UserError, match="x.json is not readable JSON"):
                state.read_json(tmp_path / "x.json")


class TestDigest:
    def test_equal_if_and_only_if_bit_identical(self):
        def one(value, dtype="float32", name="v"):
            return values_digest({name: variable(value, dtype)})

        same = one([1.0, 2.0])
        assert len(same) == 64
        assert same == one([1.0, 2.0])
        others = [
            one([1.0, np.nextafter(np.float32(2), np.float32(3))]),
            one([2.0, 1.0]),
            one([[1.0, 2.0]]),
            one([[1.0], [2.0]]),
            one([1.0, 2.0], name="w"),
            one([1.0, 2.0], "bfloat16"),
            one([0.0, 0.0]),
            one([0.0, -0.0]),
            values_digest({"v": variable([1.0]), "w": variable([2.0])}),
            values_digest({}),
        ]
        assert len({same, *others}) == len(others) + 1

    def test_the_order_of_the_map_does_not_matter(self):
        a, b = variable([1.0]), variable([2.0])
        assert values_digest({"a": a, "b": b}) == values_digest({"b": b, "a": a})
        assert values_digest({"a": a, "b": b}) != values_digest({"a": b, "b": a})
