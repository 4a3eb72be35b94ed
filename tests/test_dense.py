"""The room of pixel-to-pixel runs: true maps, mirrored with their images; metrics from sums by image; trivial predictors; saved nets."""

from dataclasses import replace
import json

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import data, dense, evaluate
from amalgam_tf.data import codecs
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task
from amalgam_tf.training.loop import Run
from tests.methods.helpers import MAP_SIZE, dense_teacher, few_maps, teacher

DEPTH, NORMAL, EDGE = (codecs.task(n) for n in ("depth_zbuffer", "normal", "edge_texture"))
TASKS = (DEPTH, NORMAL, EDGE)


@pytest.fixture(scope="module")
def parts():
    return data.parts(few_maps(), [t.name for t in TASKS])


@pytest.fixture(scope="module")
def true(parts):
    """The test part's, with a third of the depths and normals unknown."""
    whole = dense.truth(parts.test, TASKS, MAP_SIZE, None)
    known = np.random.default_rng(0).uniform(size=(12, MAP_SIZE, MAP_SIZE)) > 1 / 3
    return dense.Truth(whole.codes, {t.name: known.astype(np.uint8) if t is not EDGE else whole.valid[t.name] for t in TASKS})


def refused(message, call, *args):
    with pytest.raises(UserError, match=message) as caught:
        call(*args)
    assert "\n" not in str(caught.value)


class TestTruth:
    def test_codes_of_every_task(self, parts):
        found = dense.truth(parts.test, TASKS, MAP_SIZE, None)
        for t in TASKS:
            raw = parts.test.labels[t.name]
            np.testing.assert_array_equal(found.codes[t.name], codecs.get(t.name).encode(raw, MAP_SIZE))
            assert found.valid[t.name].shape == (12, MAP_SIZE, MAP_SIZE) and np.all(found.valid[t.name] == 1)
        assert set(found.columns()) == {f"{kind}/{t.name}" for kind in ("true", "valid") for t in TASKS}

    def test_the_z_buffer_masks_the_tasks_that_want_it(self, parts):
        """S12: edges of the texture are known everywhere."""
        raw = np.array(parts.test.labels["depth_zbuffer"])
        raw[3, :5] = codecs.INVALID
        found = dense.truth(replace(parts.test, depth=raw), TASKS, MAP_SIZE, None)
        for t in (DEPTH, NORMAL):
            expected = np.ones((12, MAP_SIZE, MAP_SIZE))
            expected[3, :5] = 0
            np.testing.assert_array_equal(found.valid[t.name], expected)
        assert found.valid[EDGE.name].min() == 1

    def test_a_task_without_truth(self, parts):
        refused("no truth for keypoints2d", dense.truth, parts.test, [codecs.task("keypoints2d")], MAP_SIZE, None)

    def test_seen_as_the_image_is_seen(self, true):
        """Mirrored where the image is, and only there; the x of normals changes its sign."""
        rows = {k: tf.constant(v[:2]) for k, v in true.columns().items()} | {"view": tf.constant([0, 1])}
        code, valid = (x.numpy() for x in dense.seen(rows, NORMAL))
        theirs, mask = true.codes["normal"], true.valid["normal"]
        np.testing.assert_array_equal(code[0], theirs[0])
        np.testing.assert_array_equal(valid[0], mask[0])
        np.testing.assert_array_equal(code[1], theirs[1][:, ::-1] * [-1, 1, 1])
        np.testing.assert_array_equal(valid[1], mask[1][:, ::-1])

    def test_other_tasks_are_refused(self):
        dense.check_dense("teacher A", TASKS)
        refused("teacher A predicts maps, and sphere is none", dense.check_dense, "teacher A", [DEPTH, Task("sphere")])


class TestMeasuring:
    def outputs(self, images):
        """Codes that depend on the image, some out of range."""
        grey = tf.reduce_mean(images, -1, keepdims=True) / 200
        return {"depth_zbuffer": grey, "normal": tf.concat([grey, -grey, 1 - grey], -1), "edge_texture": 2 * grey - 1}

    def test_metrics_are_of_physical_units_over_valid_pixels(self, parts, true):
        images = parts.test.images
        found = dense.report(TASKS, dense.sums(self.outputs, TASKS, images, true))["per_task"]
        codes = {k: v.numpy().astype(np.float64) for k, v in self.outputs(tf.constant(images, tf.float32)).items()}
        known = true.valid["normal"] > 0
        metres = [(65536.0 ** np.clip(c, 0, 1) - 1) / 512 for c in (codes["depth_zbuffer"], true.codes["depth_zbuffer"].astype(np.float64))]
        off = (metres[0] - metres[1])[known]
        assert found["depth_zbuffer"]["l1"] == pytest.approx(np.abs(off).mean(), rel=1e-4)
        assert found["depth_zbuffer"]["rmse"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-4)
        unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (codes["normal"], true.codes["normal"].astype(np.float64))]
        angles = np.degrees(np.arccos(np.clip((unit[0] * unit[1]).sum(-1), -1, 1)))[known]
        assert found["normal"]["mean_deg"] == pytest.approx(angles.mean(), abs=1e-2)
        shares = [np.clip((c + 1) / 2, 0, 1) for c in (codes["edge_texture"], true.codes["edge_texture"])]
        assert found["edge_texture"]["l1"] == pytest.approx(np.abs(shares[0] - shares[1]).mean(), rel=1e-4)

    def test_sums_of_an_image_are_its_own(self, parts, true, monkeypatch):
        """However many images a call takes: the last one is filled up."""
        whole = dense.sums(self.outputs, [DEPTH], parts.test.images, true)
        monkeypatch.setattr(dense.pipeline, "_CHUNK", 5)
        pieces = dense.sums(self.outputs, [DEPTH], parts.test.images, true)
        for name, values in whole["depth_zbuffer"].items():
            assert len(values) == 12
            np.testing.assert_allclose(pieces["depth_zbuffer"][name], values, rtol=1e-6)
        some = dense.Truth({k: v[3:4] for k, v in true.codes.items()}, {k: v[3:4] for k, v in true.valid.items()})
        alone = dense.sums(self.outputs, [DEPTH], parts.test.images[3:4], some)
        assert alone["depth_zbuffer"]["l1"][0] == pytest.approx(whole["depth_zbuffer"]["l1"][3], rel=1e-6)

    def test_trivial_predictors_are_means_of_what_is_known(self):
        rng = np.random.default_rng(1)
        codes = rng.normal(size=(300, 4, 4, 3)).astype(np.float32)
        valid = (rng.uniform(size=(300, 4, 4)) > 0.5).astype(np.uint8)
        valid[:, 0, 0] = 0  # known of no image
        true = dense.Truth({"normal": codes}, {"normal": valid})
        constant, per_pixel = (
            dense.trivial([NORMAL], true, name)(tf.zeros((2, 4, 4, 3)))["normal"].numpy() for name in ("constant", "mean_map")
        )
        mean = codes[valid > 0].mean(0)
        np.testing.assert_allclose(constant, np.broadcast_to(mean, (2, 4, 4, 3)), atol=1e-6)
        np.testing.assert_allclose(per_pixel[0, 2, 3], codes[:, 2, 3][valid[:, 2, 3] > 0].mean(0), atol=1e-6)
        np.testing.assert_allclose(per_pixel[:, 0, 0], np.broadcast_to(mean, (2, 3)), atol=1e-6)

    def test_nothing_known_at_all(self):
        true = dense.Truth({"normal": np.ones((2, 4, 4, 3), np.float32)}, {"normal": np.zeros((2, 4, 4), np.uint8)})
        for name in dense.TRIVIAL:
            assert not np.any(dense.trivial([NORMAL], true, name)(tf.zeros((1, 4, 4, 3)))["normal"])

    def test_files_of_the_test_part(self, parts, true, tmp_path):
        """Every image's sums, from which the report follows; some images with all maps."""
        networks = {"all": dense.Network(self.outputs, TASKS), "one": dense.Network(self.outputs, [EDGE])}
        with Run(tmp_path, {}) as run:
            found = dense.on_test(run, networks, parts.test, parts.test.images, true)
        json.dumps(found, allow_nan=False)
        assert found["images"] == 12 and set(found["one"]["per_task"]) == {"edge_texture"}
        with np.load(tmp_path / "scores.npz") as scores:
            assert scores["ids"].tolist() == list(parts.test.ids)
            kept = {t.name: {k.split("/", 2)[2]: scores[k] for k in scores.files if k.startswith(f"all/{t.name}/")} for t in TASKS}
        assert dense.report(TASKS, kept) == found["all"]
        with np.load(tmp_path / "panels.npz") as panels:
            shown = dict(panels)
        assert set(shown) == {"images", "one/edge_texture", *(f"{k}/{t.name}" for k in ("all", "truth", "valid") for t in TASKS)}
        places = [0, 2, 4, 6, 8, 11]
        np.testing.assert_array_equal(shown["images"], parts.test.images[places])
        np.testing.assert_array_equal(shown["valid/normal"], true.valid["normal"][places])
        np.testing.assert_allclose(np.linalg.norm(shown["all/normal"], axis=-1), 1, rtol=1e-4)
        np.testing.assert_allclose(shown["truth/depth_zbuffer"], codecs.get("depth_zbuffer").decode(true.codes["depth_zbuffer"][places]))

    def test_means_over_a_whole_set(self):
        images, rows = np.zeros((70, 2, 2, 3), np.uint8), np.arange(70, dtype=np.float32)
        found = dense.mean_over(lambda b: {"a": b["x"] + tf.cast(b["view"], tf.float32), "b": b["images"][:, 0, 0, 0]}, images, {"x": rows})
        assert found == {"a": pytest.approx(34.5), "b": 0.0}


class TestSaved:
    def test_on_the_test_part_of_its_recipe(self, parts, tmp_path):
        made = dense_teacher("N", "normal", 2)
        made.card["recipe"] = {"data": few_maps().to_dict()}
        made.save(tmp_path)
        true = dense.truth(parts.test, [NORMAL], MAP_SIZE, None)
        expected = dense.report([NORMAL], dense.sums(made.outputs, [NORMAL], parts.test.images, true))
        found = evaluate.saved(tmp_path, {})
        assert found["images"] == 12 and found["per_task"]["normal"] == pytest.approx(expected["per_task"]["normal"], rel=1e-5)
        assert evaluate.saved(tmp_path, {"test_count": 5})["images"] == 5
        refused("no truth for normal", evaluate.saved, tmp_path, {"reader": "scenes"})
        refused(r"predicts maps \(normal\)", evaluate.files, tmp_path, ["a.jpg"])

    def test_nets_without_maps_are_measured_as_ever(self, tmp_path):
        made = teacher("A", ("sphere",), 0)
        made.card["recipe"] = {"data": {**few_maps().to_dict(), "reader": "scenes"}}
        made.save(tmp_path)
        assert "ap_all" in evaluate.saved(tmp_path, {})["per_task"]["sphere"]
