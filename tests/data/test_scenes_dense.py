"""Scenes with dense truth: the maps of `scenes.dense` through the codecs, drawn and kept like all scenes."""

import numpy as np
import pytest

from amalgam_tf import data
from amalgam_tf.data import codecs, maps, scenes
from amalgam_tf.errors import UserError
from configs import common

NAMES = {
    "depth_zbuffer": "depth",
    "normal": "normals",
    "edge_occlusion": "occlusion_edges",
    "edge_texture": "texture_edges",
    "keypoints2d": "keypoints",
}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_truth_of_the_scenes_through_the_codecs(split):
    drawn = scenes.load_dense(split=split, count=4, size=24, seed=3)
    indices = scenes.split_indices(split, 4)
    assert (drawn.name, drawn.ids[3], drawn.depth) == (f"scenes_dense/{split}", f"{split}/000003", None)
    np.testing.assert_array_equal(drawn.images, scenes.render(3, indices, 24).images)
    truth = scenes.dense(3, indices, 24)
    assert {t.name for t in drawn.tasks} == set(NAMES) == set(drawn.labels)
    for task in drawn.tasks:
        assert task == codecs.task(task.name)
        np.testing.assert_array_equal(drawn.labels[task.name], codecs.get(task.name).to_raw(truth[NAMES[task.name]]))


def test_physical_truth_survives_the_integers():
    drawn, truth = scenes.load_dense(split="val", count=6, size=32), scenes.dense(0, scenes.split_indices("val", 6), 32)
    back = {n: codecs.get(n).decode(maps.maps(drawn, n, 32)) for n in NAMES if n != "edge_occlusion"}  # which is blurred
    assert np.abs(back["depth_zbuffer"] - truth["depth"]).max() < 0.6 / 512
    assert np.degrees(np.arccos(np.clip((back["normal"] * truth["normals"]).sum(-1), -1, 1))).max() < 0.6
    assert np.abs(back["edge_texture"] - truth["texture_edges"]).max() < 1e-3
    assert np.abs(back["keypoints2d"] - truth["keypoints"]).max() < 0.6 / 327  # its range has 328 integers
    assert maps.valid(drawn, 32).all()


def test_deterministic_and_first_of_more():
    options = {"split": "train", "size": 16, "seed": 1}
    some, more = scenes.load_dense(count=3, **options), scenes.load_dense(count=5, **options)
    assert scenes.load_dense(count=3, **options).fingerprint == some.fingerprint
    for name in NAMES:
        np.testing.assert_array_equal(some.labels[name], more.labels[name][:3])
    assert scenes.load_dense(count=3, **options | {"seed": 2}).fingerprint != some.fingerprint


def test_worker_processes_give_the_same_bits(monkeypatch):
    monkeypatch.setattr(scenes, "_ALONE", 4)
    monkeypatch.setattr(scenes, "_CHUNK", 3)
    used, draw = [], scenes._draw_in_processes
    monkeypatch.setattr(scenes, "_draw_in_processes", lambda *a: used.append(a[-1]) or draw(*a))
    options = {"split": "train", "count": 5, "size": 8}
    assert scenes.load_dense(workers=2, **options).fingerprint == scenes.load_dense(workers=1, **options).fingerprint
    assert used == [2]


def test_cache(tmp_path, monkeypatch):
    drawn, draw = [], scenes._draw
    monkeypatch.setattr(scenes, "_draw", lambda *a: drawn.append(a) or draw(*a))
    options = {"split": "train", "count": 3, "size": 8, "cache_dir": tmp_path}
    first = scenes.load_dense(**options)
    (file,) = tmp_path.iterdir()
    again = scenes.load_dense(**options)
    assert again.fingerprint == first.fingerprint and len(drawn) == 1
    assert all(again.labels[t.name].dtype == codecs.get(t.name).dtype for t in again.tasks)
    file.write_bytes(file.read_bytes()[:-40])
    assert scenes.load_dense(**options).fingerprint == first.fingerprint and len(drawn) == 2
    assert scenes.load(**options).tasks == scenes.TASKS and len(drawn) == 3  # beside it, not in its place
    assert scenes.load_dense(**options).fingerprint == first.fingerprint and len(drawn) == 3
    with np.load(file) as stored:
        arrays = dict(stored)
    np.savez(file, **arrays | {"depth_zbuffer": arrays["depth_zbuffer"].astype(np.int32)})  # another make
    assert scenes.load_dense(**options).fingerprint == first.fingerprint and len(drawn) == 4


@pytest.mark.parametrize("change", [{"split": "dev"}, {"count": 0}, {"size": 4}, {"seed": -1}, {"workers": 0}])
def test_mistakes_are_told_as_by_load(change):
    for load in (scenes.load, scenes.load_dense):
        with pytest.raises(UserError):
            load(**({"split": "train", "count": 2, "size": 8} | change))


def test_reader():
    options = common.scenes()
    options.update({"reader": "scenes_dense", "train_count": 12, "test_count": 3, "render_size": 16, "hold_out": 0.3, "cache_dir": ""})
    read = data.parts(options, ["normal", "depth_zbuffer"])
    assert [t.name for t in read.train.tasks] == ["normal", "depth_zbuffer"]
    assert read.test.labels["normal"].shape == (3, 16, 16, 3)
    assert set(read.train.ids) | set(read.held_out.ids) == {f"train/{i:06d}" for i in range(12)}
    whole = scenes.load_dense(split="test", count=3, size=16, seed=options["scene_seed"]).only(["normal", "depth_zbuffer"])
    assert read.test.fingerprint == whole.fingerprint
