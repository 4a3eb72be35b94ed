"""What a scene of `scenes.py` is made of: bodies, colours, room, camera and light, drawn from (seed, index) alone.

Every property is drawn independently of the shape, so that neither colour nor place nor light gives a shape away.
"""

import colorsys

import numpy as np

from amalgam_tf.data.scenes import raycast
from amalgam_tf.data.scenes.raycast import FLOOR, WALL, Body, Camera
from amalgam_tf.data.scenes.shading import SURFACES, Lamp, Material, Patch, Scene
from amalgam_tf.data.scenes.solids import SOLIDS, rest_height

# how often an object is of a shape: sphere common, dome rare
_SHARES = {
    "sphere": 0.185,
    "ellipsoid": 0.11,
    "box": 0.165,
    "slab": 0.09,
    "cylinder": 0.135,
    "cone": 0.115,
    "capsule": 0.09,
    "pyramid": 0.065,
    "torus": 0.07,
    "dome": 0.04,
}
SHAPES = tuple(_SHARES)
_SURFACE_SHARES = dict(zip(SURFACES, (0.55, 0.15, 0.15, 0.15), strict=True))
_COUNTS = {1: 0.34, 2: 0.3, 3: 0.22, 4: 0.14}  # labelled objects in a scene

MIN_FRACTION = 0.02  # of the view: what covers less does not count as present
TRUTH_SIZE = 64  # the truth is counted on a grid of this many cells a side, so that it is the same at every picture size


def compose(seed: int, index: int) -> tuple[Scene, np.ndarray]:
    """Scene `index` of `seed`, and its segments: int8 [64, 64], the body that covers each cell, or FLOOR, WALL, CEILING.

    The object that covers most of the view covers at least 3 % of it.
    """
    rng = np.random.default_rng((seed, index))
    while True:  # about one draw in a hundred hides or crops everything and is thrown away
        scene = _compose(rng)
        directions = raycast.camera_rays(scene.camera, TRUTH_SIZE)
        ids = raycast.trace(scene.bodies, scene.room, scene.camera.position, directions).ids
        shares = [np.count_nonzero(ids == number) / ids.size for number in range(scene.named)]
        if max(shares) >= 0.03:
            return scene, ids.reshape(TRUTH_SIZE, TRUTH_SIZE)


def is_red(color) -> bool:
    """Whether a linear RGB colour in [0, 1] counts as red: hue within 18 degrees of pure red, not pale, not near black."""
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    return min(hue, 1 - hue) < 0.05 and saturation > 0.6 and value > 0.12


def _pick(rng, shares: dict):
    return list(shares)[int(np.searchsorted(np.cumsum(list(shares.values())), rng.random() * sum(shares.values())))]


def _color(rng, low=0.06, high=0.9) -> np.ndarray:
    """Linear RGB of any hue, from grey to vivid; one in ten is drawn red on purpose, so that red objects are not rare."""
    hue = rng.uniform(-0.045, 0.045) % 1 if rng.random() < 0.1 else rng.random()
    return np.array(colorsys.hsv_to_rgb(hue, rng.beta(2.6, 1.2), rng.uniform(np.sqrt(low), np.sqrt(high)) ** 2))


def _greyer(color) -> np.ndarray:
    """Most of the way to grey: rooms are less vivid than things."""
    return 0.3 * color + 0.7 * color.mean()


def _contrast(rng, color) -> np.ndarray:
    """A second colour that stands out from the first: clearly lighter or darker."""
    second = 0.6 * color + 0.4 * _color(rng)  # related, so that a body stays one thing to the eye
    level, other = color.mean(), second.mean()
    wanted = level * rng.uniform(0.1, 0.35) if level > 0.3 else min(0.95, level * rng.uniform(3, 5) + 0.08)
    return np.clip(second * (wanted / max(other, 0.02)), 0, 1)


def _material(rng, pattern, scale) -> Material:
    color = _color(rng)
    axis = np.array([rng.uniform(0.4, 1), rng.uniform(-0.5, 0.5), rng.uniform(0.5, 1)])  # oblique: stripes show on every side
    gloss = rng.uniform(0.15, 0.8) if rng.random() < 0.45 else 0.0
    return Material(pattern, color, _contrast(rng, color), scale, rng.uniform(0.2, 0.8, 3), axis / np.sqrt((axis**2).sum()), gloss)


def dims_of(rng, shape, size) -> tuple[float, ...]:
    """Dimensions of a shape of about `size` metres radius; ranges of neighbouring shapes nearly touch, so that they are easily confused."""

    def u(low, high):
        return float(size * rng.uniform(low, high))

    if shape == "sphere":
        return (u(0.85, 1),)
    if shape == "ellipsoid":
        return u(0.95, 1.25), u(0.6, 0.95), u(0.5, 0.8)
    if shape == "box":
        return u(0.6, 0.85), u(0.6, 0.85), u(0.55, 0.9)
    if shape == "slab":
        return u(0.75, 1.1), u(0.55, 0.9), u(0.14, 0.3)
    if shape == "cylinder":
        return u(0.45, 0.8), u(0.6, 1.05)
    if shape == "cone":
        return u(0.65, 0.95), u(0.65, 1.0)
    if shape == "capsule":
        return u(0.4, 0.62), u(0.4, 0.75)
    if shape == "pyramid":
        return u(0.65, 0.9), u(0.6, 0.9)
    if shape == "torus":
        return u(0.68, 0.85), u(0.2, 0.36)
    if shape == "dome":
        return (u(0.95, 1.2),)
    if shape == "wedge":
        return u(0.5, 0.8), u(0.5, 0.9), u(0.5, 0.8)
    return (u(0.8, 1.1),)  # octahedron


def _spin(axis: int, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    i, j = [k for k in range(3) if k != axis]
    m = np.eye(3)
    m[i, i], m[i, j], m[j, i], m[j, j] = c, -s, s, c
    return m


def _pose(rng) -> np.ndarray:
    """Upright, on its side, or leaning; turned any way."""
    kind = rng.random()
    lean = 0.0 if kind < 0.9 else np.pi / 2 if kind < 0.97 else rng.uniform(0.2, 1.3)
    return _spin(2, rng.uniform(0, 2 * np.pi)) @ _spin(0, lean) @ _spin(2, rng.uniform(0, 2 * np.pi))


def _place(rng, bodies, hull) -> tuple[float, float]:
    """A free spot on the floor: of many tries the first that touches nobody's hull, else the one that overlaps least."""
    best, spot = -np.inf, (0.0, 0.0)
    for _ in range(12):
        x, y = rng.uniform(-1.35, 1.35), rng.uniform(-0.9, 1.5)
        gaps = [np.hypot(x - b.center[0], y - b.center[1]) - 0.85 * (hull + SOLIDS[b.shape].hull(b.dims)) for b in bodies]
        if min(gaps, default=1) > best:
            best, spot = min(gaps, default=1), (float(x), float(y))
        if best > 0:
            break
    return spot


def _body(rng, shape, size, bodies) -> Body:
    dims, rotation = dims_of(rng, shape, size), _pose(rng)
    x, y = _place(rng, bodies, SOLIDS[shape].hull(dims))
    return Body(shape, np.array([x, y, rest_height(shape, dims, rotation)]), rotation, dims)


def _bodies(rng) -> tuple[list[Body], int]:
    named = _pick(rng, _COUNTS)
    bodies = []
    for _ in range(named):
        bodies.append(_body(rng, _pick(rng, _SHARES), float(np.exp(rng.uniform(np.log(0.55), np.log(0.9)))), bodies))
    for _ in range(int(rng.random() < 0.3)):  # distractors: no label, but they look like somebody and hide somebody
        bodies.append(_body(rng, ("wedge", "octahedron")[int(rng.integers(2))], rng.uniform(0.2, 0.45), bodies))
    return bodies, named


def _camera(rng) -> Camera:
    far, azimuth, height = rng.uniform(3.0, 4.6), rng.uniform(-0.6, 0.6), np.radians(rng.uniform(16, 32))
    target = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.4), rng.uniform(0.2, 0.55)])
    away = np.array([np.sin(azimuth) * np.cos(height), -np.cos(azimuth) * np.cos(height), np.sin(height)])
    position = target + far * away
    focal = 1 / np.tan(np.radians(rng.uniform(40, 54)) / 2)
    return Camera(position, raycast.look_at(position, target, rng.normal() * 0.04), float(focal))


def _room(rng) -> tuple[np.ndarray, np.ndarray]:
    """Corners. The camera stands at y > -5.5 and |x| < 3.2: it is always inside."""
    return np.array([-rng.uniform(3.4, 4.5), -6.5, 0.0]), np.array([rng.uniform(3.4, 4.5), rng.uniform(2.3, 4.0), 4.2])


def _patches(rng, room) -> tuple[Patch, ...]:
    patches = []
    for _ in range(int(rng.integers(0, 3))):
        on = WALL if rng.random() < 0.7 else FLOOR
        center = (rng.uniform(-2, 2), rng.uniform(0.6, 1.8) if on == WALL else rng.uniform(-1.2, 1.5))
        half = (rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.6))
        patches.append(Patch(on, center, half, _color(rng)))
    return tuple(patches)


def _compose(rng) -> Scene:
    bodies, named = _bodies(rng)
    materials = [_material(rng, _pick(rng, _SURFACE_SHARES), rng.uniform(1.8, 3.4)) for _ in bodies]
    room, camera = _room(rng), _camera(rng)
    floor = _pick(rng, {"checker": 0.33, "plain": 0.36, "stripes": 0.14, "marble": 0.17})
    floor = _material(rng, floor, rng.uniform(1.1, 2.6))
    floor = floor._replace(color=_greyer(floor.color), second=_greyer(floor.second))
    turn = rng.uniform(0, np.pi)
    axis = np.array([np.cos(turn), np.sin(turn), 0])
    floor = floor._replace(second=0.25 * floor.second + 0.75 * floor.color, axis=axis, gloss=floor.gloss / 3)
    value = float(rng.uniform(0.12, 0.95))  # of the wall, as displayed
    wall = _pick(rng, {"plain": 0.7, "stripes": 0.12, "marble": 0.18})
    wall = _material(rng, wall, rng.uniform(1.0, 2.5))
    tint = 0.75 + 0.25 * wall.color / wall.color.max()
    wall = wall._replace(color=value**2 * tint, second=value**2 * tint * rng.uniform(0.6, 0.9), axis=np.array([0.7, 0.7, 0.1]), gloss=0.0)
    side = float(rng.choice([-1, 1]) * rng.uniform(0.12, 1.0))  # how far to the camera's right the light comes from
    right, back = camera.rotation[:, 0], camera.rotation[:, 2] * [1, 1, 0]
    lamp = 2.6 * side * right + rng.uniform(-0.8, 1.6) * back + [0, 0, rng.uniform(2.4, 4.5)]
    brightness, warmth = float(rng.uniform(0.5, 1.35)), float(rng.uniform(-0.8, 0.9))
    tone = np.array([1 + 0.22 * warmth, 1 + 0.02 * warmth, 1 - 0.3 * warmth])
    return Scene(
        bodies=tuple(bodies),
        materials=tuple(materials),
        named=named,
        room=room,
        floor=floor,
        wall=wall,
        patches=_patches(rng, room),
        camera=camera,
        lamp=Lamp(lamp, brightness * tone, rng.uniform(0.3, 0.5)),
        noise=rng.uniform(0.002, 0.015),
        facts={"brightness": brightness, "warmth": warmth, "light_right": side, "wall_value": value},
    )
