"""Pools of pixel-to-pixel teachers: what goes together, kept features, similarities, who helps whom. Their students: SOKA's runs."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import choice, dense_pool
from amalgam_tf.data import codecs
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task
from tests.methods.helpers import MAP_SIZE, dense_teacher
from tests.methods.helpers import dense_pool as made_pool

TASKS = {"D": "depth_zbuffer", "E": "edge_texture", "N": "normal", "X": "edge_occlusion"}
WANTED = ["D", "E"]
SIMILAR = {  # D and E are unlike; X is near to both, N to neither
    "D": {"D": 1.0, "E": 0.1, "N": 0.0, "X": 0.6},
    "E": {"D": 0.1, "E": 1.0, "N": 0.05, "X": 0.5},
    "N": {"D": 0.0, "E": 0.05, "N": 1.0, "X": 0.9},
    "X": {"D": 0.6, "E": 0.5, "N": 0.9, "X": 1.0},
}
OPTIONS = {"choose": "auto", "rule": "sum", "delta": -1.0, "images": 500, "layer": "", "centre": True}


@pytest.fixture(scope="module")
def pool():
    return made_pool(TASKS)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, MAP_SIZE, MAP_SIZE, 3), np.uint8)


def refused(message, call, *args):
    with pytest.raises(UserError, match=message) as caught:
        call(*args)
    assert "\n" not in str(caught.value)


def chosen(pool, similar=SIMILAR, wanted=WANTED, **changes):
    return dense_pool.auxiliary(pool, wanted, similar, OPTIONS | changes)


def measured(pool, pixels, wanted=WANTED, **changes):
    return dense_pool.similarities(pool, wanted, pixels, OPTIONS | changes)


class TestTeachers:
    def test_what_goes_together(self, pool):
        dense_pool.check_teachers(list(pool.values()), "SOKA")

    def test_what_does_not(self, pool):
        depth, another = pool["D"], dense_teacher("F", "edge_texture", 7)
        two_channels = dense_teacher("G", "principal_curvature", 7).net
        both = replace(another, tasks=(another.tasks[0], codecs.task("keypoints2d")), net=two_channels)
        cases = {
            "M amalgamates at least two tasks, not depth_zbuffer alone": [depth],
            "edge_texture is known to several .* as edge_texture@E": [depth, pool["E"], another],
            "F has one decoder for edge_texture, keypoints2d: M needs a teacher a task": [depth, both],
            "teacher F predicts maps, and sphere is none": [depth, replace(another, tasks=(Task("sphere"),))],
            "M needs encoders of one architecture": [depth, dense_teacher("E", "edge_texture", 7, channels=6)],
        }
        for message, teachers in cases.items():
            refused(message, dense_pool.check_teachers, teachers, "M")

    def test_encoders_by_names_shapes_and_size(self, pool):
        wider = dense_teacher("W", "normal", 7, channels=6)
        message = (
            r"the blocks of D \(32 pixels, b1 16 x 16 x 4, b2 8 x 8 x 8, .* and W \(32 pixels, .* b2 8 x 8 x 6, .* leave one of them out"
        )
        refused(message, dense_pool.check_encoders, [pool["D"], wider], "M")
        size = replace(pool["E"], preprocessing=replace(pool["E"].preprocessing, size=16))  # the same blocks, other images
        refused(r"D \(32 pixels, .*E \(16 pixels, ", dense_pool.check_encoders, [pool["D"], size], "M")
        dense_pool.check_encoders([pool["D"], pool["N"]], "M")  # three channels behind the encoder instead of one


class TestFeatures:
    def test_every_image_plain_and_mirrored(self, pool, pixels):
        teachers, images = [pool["D"], pool["X"]], SimpleNamespace(pixels={"train": pixels}, views=2)
        found = dense_pool.kept_features(teachers, images, ["b3", "code"], 1.0)
        assert set(found) == {f"{n}/{tap}" for n in "DX" for tap in ("b3", "code")}
        assert found["D/b3"].shape == (2, 12, 8, 8, 8) and found["X/code"].shape == (2, 12, 8, 8, 4)
        for view, seen in enumerate((pixels, pixels[:, :, ::-1])):
            for name in "DX":
                x = pool[name].preprocessing(tf.constant(seen, tf.float32))
                for tap in ("b3", "code"):
                    np.testing.assert_allclose(found[f"{name}/{tap}"][view], pool[name].net.run(x, stop=tap), rtol=1e-4, atol=1e-4)

    def test_what_does_not_fit_is_not_kept(self, pool, pixels):
        images, size = SimpleNamespace(pixels={"train": pixels}, views=1), 4 * 12 * 2 * 8 * 8 * 4
        teachers = [pool["D"], pool["X"]]
        assert dense_pool.kept_bytes(pool["D"].net, ["code"], 24) == size
        assert dense_pool.kept_features(teachers, images, ["code"], (size - 1) / 1e9) == {}
        assert len(dense_pool.kept_features(teachers, images, ["code"], size / 1e9)) == 2


class TestSimilarities:
    def test_of_the_whole_pool(self, pool, pixels):
        found = measured(pool, pixels)
        assert list(found) == list(pool) and all(list(row) == list(pool) for row in found.values())
        for a in pool:
            assert found[a][a] == 1
            assert all(found[a][b] == found[b][a] and -1 <= found[a][b] < 1 for b in pool if b != a)
        images, lower = tf.constant(pixels, tf.float32), {}
        for name, t in pool.items():
            rows = t.net.run(t.preprocessing(images), stop="code").numpy().reshape(len(pixels), -1)
            lower[name] = (1 - np.corrcoef(rows - rows.mean(0)))[np.tril_indices(len(rows), -1)]
        ranks = {n: np.argsort(np.argsort(v)) for n, v in lower.items()}
        assert found["D"]["N"] == pytest.approx(np.corrcoef(ranks["D"], ranks["N"])[0, 1], abs=5e-3)

    def test_images_layer_and_centring_can_be_chosen(self, pool, pixels):
        few = measured(pool, pixels, images=5)
        assert few == measured(pool, pixels[[0, 2, 5, 8, 11]])  # evenly spread
        assert few != measured(pool, pixels, images=5, layer="b2") and few != measured(pool, pixels, images=5, centre=False)
        refused("there is no block 'b7'", lambda: measured(pool, pixels, layer="b7"))

    @pytest.mark.parametrize(
        ("choose", "names", "asked"),
        [("auto", "DENX", True), ("strongest", "DENX", True), ("weakest", "DENX", True), ("none", "DENX", False), ("X", "DENX", False)]
        + [("auto", "DE", False), ("strongest", "DE", True)],
    )
    def test_measured_only_where_they_decide(self, pool, pixels, monkeypatch, choose, names, asked):
        looked = []
        original = dense_pool.at_taps
        monkeypatch.setattr(dense_pool, "at_taps", lambda t, *args: looked.append(t.name) or original(t, *args))
        found = measured({n: pool[n] for n in names}, pixels, choose=choose)
        assert [sorted(set(looked)), sorted(found)] == [sorted(names) if asked else []] * 2

    def test_images_of_another_size_are_refused(self, pool, pixels):
        odd = {**pool, "X": dense_teacher("X", "edge_occlusion", 5, size=16)}
        refused("teacher X cannot be compared, it reads images of 16 pixels, the wanted ones 32", measured, odd, pixels)
        assert measured(odd, pixels, choose="none") == {}


class TestAuxiliary:
    @pytest.mark.parametrize(
        ("choose", "expected"), [("auto", "X"), ("strongest", "X"), ("weakest", "N"), ("N", "N"), ("X", "X"), ("none", "")]
    )
    def test_who_is_chosen(self, pool, choose, expected):
        assert chosen(pool, choose=choose) == expected

    def test_gate(self, pool):
        """S1: the pair's 0.1 against the median of the pool (0.3), and against numbers."""
        for delta, expected in ((-1.0, "X"), (0.11, "X"), (0.1, ""), (0.05, "")):
            assert chosen(pool, delta=delta) == expected

    def test_rules(self, pool):
        only_first = {**SIMILAR, "E": {**SIMILAR["E"], "X": -0.5}, "X": {**SIMILAR["X"], "E": -0.5}}
        assert {r: chosen(pool, only_first, rule=r, delta=0.5) for r in choice.AUXILIARY_RULES} == {"sum": "", "both": "", "first": "X"}

    def test_a_wanted_teacher_cannot_help(self, pool):
        refused("unknown auxiliary.choose 'D'", lambda: chosen(pool, {}, choose="D"))

    def test_a_pool_without_others(self, pool, pixels):
        pair = {n: pool[n] for n in WANTED}
        assert chosen(pair, measured(pair, pixels)) == ""
        for choose in ("strongest", "weakest"):
            refused("add a teacher", lambda c: chosen(pair, measured(pair, pixels, choose=c), choose=c), choose)

    def test_permuting_the_pool_changes_no_decision(self, pool, pixels):
        books = []
        for order, wanted in ((pool, WANTED), (dict(reversed(pool.items())), WANTED[::-1])):
            similar = measured(order, pixels, wanted)
            books.append((similar, {c: chosen(order, similar, wanted, choose=c) for c in dense_pool.AUXILIARIES}))
        assert books[0] == books[1] and set(books[0][1].values()) <= {"", "N", "X"}
