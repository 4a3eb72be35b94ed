"""Scenes: the same bits however they are drawn, truth that agrees with an independent recount, geometry against hand-computed values."""

import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from amalgam_tf.data import scenes
from amalgam_tf.data.scenes import composing, raycast, solids
from amalgam_tf.data.scenes.raycast import FLOOR, WALL, Body, Camera
from amalgam_tf.errors import UserError

ROOM = (np.array([-5.0, -5.0, 0.0]), np.array([5.0, 5.0, 4.0]))
DIMS = {
    "sphere": (0.4,),
    "ellipsoid": (0.5, 0.3, 0.2),
    "box": (0.3, 0.4, 0.2),
    "slab": (0.5, 0.4, 0.1),
    "cylinder": (0.3, 0.5),
    "cone": (0.4, 0.5),
    "capsule": (0.25, 0.4),
    "torus": (0.4, 0.15),
    "dome": (0.5,),
    "pyramid": (0.4, 0.3),
    "wedge": (0.3, 0.4, 0.2),
    "octahedron": (0.5,),
}


def _field(shape, dims, p):
    """An independent description of each solid: negative inside, positive outside, for points [3, n] of its own frame."""
    x, y, z = np.asarray(p, np.float64)
    rho = np.hypot(x, y)
    if shape in ("sphere", "ellipsoid"):
        a, b, c = dims if len(dims) == 3 else dims * 3
        return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 - 1
    if shape in ("box", "slab"):
        return np.max([abs(x) - dims[0], abs(y) - dims[1], abs(z) - dims[2]], axis=0)
    if shape == "cylinder":
        return np.maximum(rho - dims[0], abs(z) - dims[1])
    if shape == "cone":
        return np.maximum(rho - dims[0] * (dims[1] - z) / (2 * dims[1]), -z - dims[1])
    if shape == "capsule":
        return np.hypot(rho, np.maximum(abs(z) - dims[1], 0)) - dims[0]
    if shape == "torus":
        return np.hypot(rho - dims[0], z) - dims[1]
    if shape == "dome":
        return np.maximum(np.hypot(rho, z) - dims[0], -z)
    if shape == "pyramid":
        return np.maximum(np.maximum(abs(x), abs(y)) - dims[0] * (dims[1] - z) / (2 * dims[1]), -z - dims[1])
    if shape == "wedge":
        return np.max([abs(x) - dims[0] * (dims[2] - z) / (2 * dims[2]), abs(y) - dims[1], -z - dims[2]], axis=0)
    return abs(x) + abs(y) + abs(z) - dims[0]


def _turned(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


# ---- geometry -----------------------------------------------------------------------------------------------------------------------


def test_every_shape_has_a_solid_and_is_tested():
    assert set(scenes.SHAPES) < set(solids.SOLIDS) == set(DIMS)


@pytest.mark.parametrize("shape", DIMS)
def test_rays_end_on_the_surface_and_miss_only_what_is_not_there(shape):
    rotation, position = _turned(len(shape)), np.array([1.0, -2.2, 1.1])
    body = Body(shape, np.array([0.1, 0.2, 0.9]), rotation, DIMS[shape])
    camera = Camera(position, raycast.look_at(position, body.center), 4.0)
    rays = raycast.camera_rays(camera, 48)
    hits = raycast.trace([body], ROOM, position, rays)
    points = position[:, None] + rays * hits.distance
    normals, local = raycast.surface([body], ROOM, points.astype(np.float32), hits.ids, rays)
    on = hits.ids == 0
    assert 0.05 < on.mean() < 0.95
    np.testing.assert_allclose(local[:, on], (rotation.T @ (points - body.center[:, None]))[:, on], atol=1e-5)
    assert np.abs(_field(shape, DIMS[shape], local[:, on])).max() < 0.02  # on the surface
    # marching 4 mm steps along each ray finds the solid exactly where the caster does (grazing rays aside)
    steps = np.arange(1.5, 4, 0.004)
    track = position[:, None, None] + rays[:, :, None].astype(np.float64) * steps
    inside = _field(shape, DIMS[shape], np.einsum("ji,jrs->irs", rotation, track - body.center[:, None, None]).reshape(3, -1))
    inside = inside.reshape(rays.shape[1], -1) < 0
    assert (inside.any(1) != on).mean() < 0.02
    both = inside.any(1) & on
    assert np.median(np.abs(steps[inside.argmax(1)] - hits.distance)[both]) < 0.005
    # normals: unit, towards the ray, and the solid lies behind them
    np.testing.assert_allclose((normals**2).sum(0), 1, atol=1e-4)
    assert (normals * rays).sum(0).max() <= 1e-6
    outward = rotation.T @ normals[:, on] * 0.01
    assert np.mean(_field(shape, DIMS[shape], local[:, on] + outward) > 0) > 0.99
    assert np.mean(_field(shape, DIMS[shape], local[:, on] - outward) < 0) > 0.93


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(DIMS)), st.integers(0, 10**6))
def test_a_resting_body_touches_the_floor(shape, seed):
    rotation = _turned(seed)
    p = np.random.default_rng(seed).uniform(-0.8, 0.8, (3, 200_000))
    inside = _field(shape, DIMS[shape], p) < 0
    lowest = (rotation @ p[:, inside])[2].min() + solids.rest_height(shape, DIMS[shape], rotation)
    assert 0 <= lowest < 0.12  # random points come near the lowest one, never below


def test_distance_to_a_sphere_by_hand():
    # 3-4-5: the camera 5 m from the centre of a ball of radius 3 sees its edge at 4 m, its middle at 2 m
    ball, room = Body("sphere", np.array([0.0, 5.0, 10.0]), np.eye(3), (3.0,)), (np.array([-50.0, -50, 0]), np.array([50.0, 50, 40]))
    cases = {0.0: 2.0, 0.3: 5 * np.sqrt(1 - 0.09) - np.sqrt(9 - 25 * 0.09), 0.599: 5 * np.sqrt(1 - 0.599**2) - np.sqrt(9 - 25 * 0.599**2)}
    for sine, distance in cases.items():
        ray = np.array([[sine], [np.sqrt(1 - sine**2)], [0.0]], np.float32)
        hits = raycast.trace([ball], room, np.array([0.0, 0.0, 10.0]), ray)
        assert hits.ids[0] == 0
        assert hits.distance[0] == pytest.approx(distance, abs=2e-4)
    past = np.array([[0.601], [np.sqrt(1 - 0.601**2)], [0.0]], np.float32)
    hits = raycast.trace([ball], room, np.array([0.0, 0.0, 10.0]), past)
    assert hits.ids[0] == WALL and hits.distance[0] == pytest.approx(50 / np.sqrt(1 - 0.601**2), rel=1e-5)


def test_camera_axes_and_floor():
    position = np.array([0.0, -3.0, 1.0])
    camera = Camera(position, raycast.look_at(position, [0, 0, 1.0]), 1.0)
    np.testing.assert_allclose(camera.rotation, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)  # right, up, back as columns
    rays = raycast.camera_rays(camera, 4).reshape(3, 4, 4)
    assert (rays[0, :, 2:] > 0).all() and (rays[0, :, :2] < 0).all()  # columns go right
    assert (rays[2, :2] > 0).all() and (rays[2, 2:] < 0).all()  # rows go down
    hits = raycast.trace([], ROOM, position, np.array([[0.0], [0.6], [-0.8]], np.float32))
    assert hits.ids[0] == FLOOR and hits.distance[0] == pytest.approx(1.25, rel=1e-6)


def test_shadow_falls_away_from_the_light():
    ball = Body("sphere", np.array([0.0, 0.0, 1.0]), np.eye(3), (0.5,))
    points = np.array([[-1.0, 1.0, 0.5, -1.0], [0, 0, 0, 2.0], [0, 0, 0, 0]], np.float32)
    dark = raycast.in_shadow([ball], points, np.full(4, FLOOR, np.int8), np.array([1.0, 0.0, 2.0]))
    assert dark.tolist() == [True, False, False, False]  # the line from (-1, 0, 0) to the light at (1, 0, 2) meets the ball at (0, 0, 1)


# ---- the same bits ------------------------------------------------------------------------------------------------------------------


def test_a_scene_does_not_depend_on_its_company():
    together = scenes.render(3, [5, 900, 7, 2 * 10**9], 24)
    for row, index in enumerate([5, 900, 7, 2 * 10**9]):
        alone = scenes.render(3, [index], 24)
        assert (alone.images[0] == together.images[row]).all() and alone.objects[0] == together.objects[row]
        assert all(alone.labels[k][0] == together.labels[k][row] for k in together.labels)
        assert (alone.segments[0] == together.segments[row]).all()
    assert len({image.tobytes() for image in together.images}) == 4
    assert (scenes.render(4, [5], 24).images[0] != together.images[0]).any()  # another seed, another scene


def test_the_truth_does_not_depend_on_the_size():
    small, large = scenes.render(0, range(12), 16), scenes.render(0, range(12), 80)
    assert all((small.labels[k] == large.labels[k]).all() for k in small.labels)
    assert (small.segments == large.segments).all()
    shrunk = large.images.reshape(12, 16, 5, 16, 5, 3).mean((2, 4))
    assert np.abs(shrunk - small.images).mean() < 10  # and both show the same picture


def test_worker_processes_give_the_same_bits(monkeypatch):
    monkeypatch.setattr(scenes, "_CHUNK", 90)
    used = []
    draw = scenes._draw_in_processes
    monkeypatch.setattr(scenes, "_draw_in_processes", lambda *a: used.append(a[-1]) or draw(*a))
    main = sys.modules["__main__"]
    several = scenes.load(split="train", count=200, size=8, workers=2)
    one = scenes.load(split="train", count=200, size=8, workers=1)
    assert used == [2] and sys.modules["__main__"] is main
    assert several.fingerprint == one.fingerprint


def test_drawing_goes_on_without_worker_processes(monkeypatch):
    def refuse(*_):
        raise OSError("no semaphores")

    monkeypatch.setattr(scenes, "_draw_in_processes", refuse)
    monkeypatch.setattr(scenes, "_ALONE", 4)
    monkeypatch.setattr(scenes, "_CHUNK", 4)
    parts = scenes.load(split="val", count=6, size=8, workers=2)
    assert (parts.images == scenes.render(0, scenes.split_indices("val", 6), 8).images).all()


def test_tensorflow_is_not_imported():
    code = "import sys, amalgam_tf.data.scenes; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}).returncode == 0


# ---- the truth ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    return scenes.render(1, range(400), 32)


def test_labels_agree_with_a_recount(drawn):
    for row in range(400):
        cells = dict(zip(*np.unique(drawn.segments[row], return_counts=True), strict=True))
        objects = drawn.objects[row]
        for thing in objects:
            assert thing.fraction * 64 * 64 == pytest.approx(cells.get(thing.number, 0))
        seen = [o for o in objects if cells.get(o.number, 0) >= 82]  # 2 % of 4096 is 81.9
        label = {name: values[row] for name, values in drawn.labels.items()}
        for shape in scenes.SHAPES:
            assert label[shape] == any(o.shape == shape for o in seen)
        largest = max(objects, key=lambda o: cells.get(o.number, 0))
        assert scenes.SHAPES[label["shape"]] == largest.shape
        assert scenes.SHAPE_SURFACES[label["shape_surface"]] == f"{largest.shape}_{largest.surface}"
        assert label["crowded"] == (len(seen) > 2)
        assert label["large_object"] == (cells[largest.number] >= 615)  # 15 % of 4096 is 614.4
        assert label["red_object"] == any(o.color[0] > 0.12 and min(o.color) < 0.4 * o.color[0] for o in seen if abs(_hue(o.color)) < 18)


def _hue(color):
    """Degrees from red on the HSV hexagon; 180 where red is not the largest part."""
    red, green, blue = color
    return 60 * (green - blue) / (red - min(green, blue)) if red > min(green, blue) and red == max(color) else 180.0


def test_boxes_hold_their_objects(drawn):
    """At 32 pixels the four samples of a pixel are four cells of `segments`."""
    for row in range(0, 400, 7):
        for thing in drawn.objects[row]:
            rows, columns = np.nonzero(drawn.segments[row] == thing.number)
            assert thing.box == (columns.min() // 2 + 1, rows.min() // 2 + 1, columns.max() // 2 + 1, rows.max() // 2 + 1)
            assert 1 <= thing.box[0] <= thing.box[2] <= 32 and 1 <= thing.box[1] <= thing.box[3] <= 32


def test_attributes_show_in_the_picture(drawn):
    light = drawn.images.astype(float)

    def gap(name, measure):
        return measure[drawn.labels[name] == 1].mean() / measure[drawn.labels[name] == 0].mean()

    assert gap("bright_light", light.mean((1, 2, 3))) > 1.1
    assert gap("warm_light", light[..., 0].mean((1, 2)) / light[..., 2].mean((1, 2))) > 1.1
    wall = np.repeat((drawn.segments[:, ::2, ::2] == WALL)[..., None], 3, axis=-1)
    keep = wall.mean((1, 2, 3)) > 0.05
    shade = np.array([image[mask].mean() if ok else np.nan for image, mask, ok in zip(light, wall, keep, strict=True)])
    dark = drawn.labels["dark_wall"] == 1
    assert keep[dark].all() and shade[dark].mean() < 0.7 * np.nanmean(shade[~dark])


def test_room_attributes_agree_with_the_scene(drawn):
    for row in range(0, 400, 5):
        scene, _ = composing.compose(1, row)
        label = {name: bool(values[row]) for name, values in drawn.labels.items()}
        to_lamp = (scene.lamp.position - [0, 0, scene.lamp.position[2]]) @ scene.camera.rotation  # camera space, from the room's middle
        assert label["light_from_left"] == (to_lamp[0] < 0)
        assert label["tiled_floor"] == (scene.floor.pattern == "checker")
        assert label["bright_light"] == (scene.lamp.color[1] / (1 + 0.02 * scene.facts["warmth"]) > 0.95)
        assert label["warm_light"] == (scene.lamp.color[0] / scene.lamp.color[2] > (1 + 0.22 * 0.25) / (1 - 0.3 * 0.25))


def test_prevalence(drawn):
    shares = {t.name: drawn.labels[t.name].mean() for t in scenes.TASKS if t.kind == "binary"}
    assert len(shares) == 18 and all(0.02 < share < 0.7 for share in shares.values()), shares
    assert min(shares.values()) < 0.1 and max(shares.values()) > 0.35  # some rare, some common
    assert np.bincount(drawn.labels["shape"], minlength=10).max() < 0.5 * 400
    assert len(np.unique(drawn.labels["shape_surface"])) >= 30


def test_colour_does_not_give_the_shape_away(drawn):
    colors = {shape: [o.color for objects in drawn.objects for o in objects if o.shape == shape] for shape in ("sphere", "box", "cylinder")}
    means = np.array([np.mean(c, axis=0) for c in colors.values()])
    assert np.ptp(means, axis=0).max() < 0.1


def test_dense_maps():
    indices, size = range(6), 40
    maps = scenes.dense(2, indices, size)
    assert {k: v.shape for k, v in maps.items()} == {k: (6, size, size, c) for k, c in scenes.DENSE.items()}
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in maps.values())
    np.testing.assert_allclose((maps["normals"] ** 2).sum(-1), 1, atol=1e-4)
    for name in ("occlusion_edges", "texture_edges", "keypoints"):
        assert maps[name].min() >= 0 and maps[name].max() <= 1 and maps[name].max() > 0.5 > np.median(maps[name])
    for row in indices:
        camera = composing.compose(2, row)[0].camera
        half = (np.arange(size) + 0.5) * 2 / size - 1
        x, y = np.meshgrid(half / camera.focal, -half / camera.focal)
        depth, normals = maps["depth"][row, ..., 0], maps["normals"][row]
        rays = np.stack([x, y, -np.ones_like(x)], -1)
        assert (normals * rays).sum(-1).max() < 1e-5  # facing the camera
        world = camera.position + depth[..., None] * (rays @ camera.rotation.T)
        assert world[..., 2].min() > -1e-3
        flat = np.abs(world[..., 2]) < 1e-3  # the floor: every such point must be on it, with the world's up as normal
        up = normals @ camera.rotation.T[:, 2]
        assert flat.mean() > 0.2 and np.median(up[flat]) == pytest.approx(1, abs=1e-4)
        # an occlusion edge is where depth jumps: all big jumps are marked, none in the middle of the floor
        edge = maps["occlusion_edges"][row, ..., 0]
        jump = np.abs(np.diff(depth, axis=1)) / np.minimum(depth[:, 1:], depth[:, :-1])
        assert np.median(edge[:, 1:][jump > 0.4], axis=0) > 0.9 if (jump > 0.4).sum() > 3 else True
        assert edge[flat].mean() < 0.15


def test_texture_edges_and_keypoints_of_a_drawn_corner():
    image = np.zeros((21, 21, 3), np.uint8)
    image[:10, :10] = 255
    edges, heat = scenes.shading.texture_edges(image), scenes.shading.keypoints(image)
    assert edges[4, 9] == edges[9, 4] == 1 and edges[4, 4] == edges[15, 15] == 0  # a step of 1 has Sobel slope 1/2
    assert heat[9, 9] == heat.max() > 0.5 and np.argwhere(heat > 0.5).min() >= 7 and np.argwhere(heat > 0.5).max() <= 12
    assert heat[3, 9] == pytest.approx(0, abs=1e-3)  # on a straight edge there is nothing to hold on to


# ---- load ---------------------------------------------------------------------------------------------------------------------------


def test_load():
    examples = scenes.load(split="val", count=13, size=8, seed=5)
    assert examples.name == "scenes/val" and examples.ids[12] == "val/000012" and examples.images.shape == (13, 8, 8, 3)
    assert examples.images.dtype == np.uint8 and examples.tasks == scenes.TASKS
    assert all(v.dtype == np.int32 and v.shape == (13,) for v in examples.labels.values())
    assert len({t.name for t in scenes.TASKS}) == len(scenes.TASKS)
    fewer = scenes.load(split="val", count=4, size=8, seed=5, tasks=["torus", "shape"])
    assert (fewer.images == examples.images[:4]).all() and [t.name for t in fewer.tasks] == ["torus", "shape"]


def test_splits_share_no_scene():
    numbers = [scenes.split_indices(s, scenes.SPLIT_SIZE) for s in ("train", "val", "test")]
    assert all(a.stop <= b.start for a, b in zip(numbers, numbers[1:], strict=False))
    pictures = [image.tobytes() for s in scenes.SPLITS for image in scenes.load(split=s, count=20, size=8).images]
    assert len(set(pictures)) == 60


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"split": "dev"}, "train, val, test"),
        ({"count": 0}, "at least|between 1"),
        ({"size": 4}, "8 to 1024"),
        ({"seed": -1}, "negative"),
        ({"workers": 0}, "worker"),
        ({"tasks": ["spheer"]}, "spheer"),
    ],
)
def test_mistakes_are_told(change, word):
    with pytest.raises(UserError, match=word):
        scenes.load(**({"split": "train", "count": 2, "size": 8} | change))


def test_cache(tmp_path, monkeypatch):
    options = {"split": "train", "count": 5, "size": 8, "cache_dir": tmp_path / "deep" / "cache"}
    first = scenes.load(**options)
    (file,) = options["cache_dir"].iterdir()  # nothing temporary is left
    good = file.read_bytes()
    draw = scenes._draw
    drawn = []
    monkeypatch.setattr(scenes, "_draw", lambda *a: drawn.append(a) or draw(*a))
    assert scenes.load(**options).fingerprint == first.fingerprint and not drawn
    pixels = good.index(first.images.tobytes()[:64])
    for damaged in [b"", b"not a zip", good[: len(good) // 2], good[:pixels] + bytes(64) + good[pixels + 64 :], good[:-30]]:
        drawn.clear()
        file.write_bytes(damaged)
        assert scenes.load(**options).fingerprint == first.fingerprint and len(drawn) == 1
        assert scenes.load(**options).fingerprint == first.fingerprint and len(drawn) == 1  # mended
    np.savez(file, images=np.array([{"a": 1}], dtype=object), labels=np.zeros(1))  # a pickle is never opened
    assert scenes.load(**options).fingerprint == first.fingerprint and len(drawn) == 2
    for change in ({"count": 4}, {"size": 10}, {"seed": 1}, {"split": "val"}):
        drawn.clear()
        scenes.load(**(options | change))
        assert len(drawn) == 1
    drawn.clear()
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    scenes.load(**options)
    assert len(drawn) == 1


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_flipped_byte_in_the_cache_never_changes_the_data(tmp_path_factory, position, value):
    folder = tmp_path_factory.getbasetemp() / "flipped"
    options = {"split": "train", "count": 2, "size": 8, "cache_dir": folder}
    wanted = scenes.load(**(options | {"cache_dir": None})).fingerprint
    scenes.load(**options)
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= value
    file.write_bytes(content)
    assert scenes.load(**options).fingerprint == wanted


def test_a_cache_folder_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cache folder"):
        scenes.load(split="train", count=2, size=8, cache_dir=tmp_path / "cache")


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="No space left"):
        scenes.load(split="train", count=2, size=8, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_speed():
    """Generous: a quiet processor draws about 200 a second."""
    clock = os.times()
    scenes.render(0, range(80), 32)
    now = os.times()
    assert 80 / (now.user + now.system - clock.user - clock.system) > 40
