"""Colour and light for `scenes.py`: patterns, shadows, and maps that are read off the finished picture. NumPy only, float32, no BLAS."""

from typing import NamedTuple

import numpy as np

from amalgam_tf.data.scenes import raycast
from amalgam_tf.data.scenes.raycast import FLOOR, WALL, Body, Camera
from amalgam_tf.data.scenes.solids import SOLIDS, dot

SURFACES = ("plain", "checker", "stripes", "dots")  # patterns a body may wear; rooms also know "marble"


class Material(NamedTuple):
    """How a thing looks: `pattern` of two linear RGB colours [3] in [0, 1], `scale` in repeats a metre, `phase` [3] and `axis` [3] of the
    pattern in the thing's own frame, `gloss` in [0, 1] (strength of the highlight)."""

    pattern: str
    color: np.ndarray
    second: np.ndarray
    scale: float
    phase: np.ndarray
    axis: np.ndarray
    gloss: float


class Patch(NamedTuple):
    """A flat distractor on the back wall (picture) or the floor (rug): `center` and `half` sizes [2] in metres, RGB `color` [3].

    Coordinates are (x, z) on the wall, (x, y) on the floor.
    """

    on: int
    center: tuple[float, float]
    half: tuple[float, float]
    color: np.ndarray


class Lamp(NamedTuple):
    """A point light: `position` [3] metres, `color` linear RGB [3] with its brightness, `ambient` share of it from all around."""

    position: np.ndarray
    color: np.ndarray
    ambient: float


class Scene(NamedTuple):
    """Everything there is to draw. Bodies come with one material each; the first `named` bodies are labelled, the rest are distractors."""

    bodies: tuple[Body, ...]
    materials: tuple[Material, ...]
    named: int
    room: tuple[np.ndarray, np.ndarray]
    floor: Material
    wall: Material
    patches: tuple[Patch, ...]
    camera: Camera
    lamp: Lamp
    noise: float
    facts: dict[str, float]


def _weight(material: Material, p: np.ndarray) -> np.ndarray:
    """Share of the second colour at points [3, rays] of the thing's own frame."""
    phase, axis = np.asarray(material.phase, np.float32), np.asarray(material.axis, np.float32)
    q = p * np.float32(material.scale) + phase[:, None]
    if material.pattern == "checker":
        cells = np.floor(q)
        return (cells[0] + cells[1] + cells[2]) % 2
    if material.pattern == "stripes":
        return np.floor(dot(q, axis)) % 2
    if material.pattern == "dots":
        # two interleaved lattices, so that no flat side slips between the dots
        inside = [dot(g, g) < np.float32(0.33**2) for g in (q - np.floor(q) - np.float32(0.5), q - np.floor(q + np.float32(0.5)))]
        return (inside[0] | inside[1]).astype(np.float32)
    if material.pattern == "marble":
        bend = np.sin(q[1] * 2 + np.sin(q[0] * np.float32(1.3)) + q[2])
        return np.float32(0.5) + np.float32(0.5) * np.sin(dot(q, axis) * 2 + 2 * bend)
    return np.zeros(p.shape[1], np.float32)


def _paint(material: Material, p: np.ndarray) -> np.ndarray:
    first, second = np.asarray(material.color, np.float32)[:, None], np.asarray(material.second, np.float32)[:, None]
    return first + (second - first) * _weight(material, p)


def _albedo(scene: Scene, local: np.ndarray, ids: np.ndarray) -> np.ndarray:
    albedo = np.full_like(local, 0.8)  # the ceiling keeps this
    for number, material in [(FLOOR, scene.floor), (WALL, scene.wall), *enumerate(scene.materials)]:
        rays = np.flatnonzero(ids == number)
        if len(rays):
            albedo[:, rays] = _paint(material, local[:, rays])
    for patch in scene.patches:
        across, up = local[0], local[2 if patch.on == WALL else 1]
        inside = (np.abs(across - np.float32(patch.center[0])) < patch.half[0]) & (np.abs(up - np.float32(patch.center[1])) < patch.half[1])
        inside &= ids == patch.on
        if patch.on == WALL:  # only the back wall carries pictures
            inside &= local[1] > scene.room[1][1] - 0.01
        albedo[:, inside] = np.asarray(patch.color, np.float32)[:, None]
    return albedo


def _openness(scene: Scene, points: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Share [rays] of the surrounding light that reaches the floor: each body blocks about the solid angle of a ball of its size."""
    free = np.ones(len(ids), np.float32)
    rays = np.flatnonzero(ids == FLOOR)
    p = points[:, rays]
    for body in scene.bodies:
        radius = np.float32(0.75 * SOLIDS[body.shape].hull(body.dims))
        to = np.asarray(body.center, np.float32)[:, None] - p
        square = np.maximum(dot(to, to), radius**2)
        free[rays] *= 1 - np.float32(0.8) * np.clip(to[2] * radius**2 / (square * np.sqrt(square)), 0, 1)
    return free


def shade(scene: Scene, direction: np.ndarray, hits: raycast.Hits) -> np.ndarray:
    """Linear RGB float32 [3, rays] (not clipped) seen along unit directions [3, rays] from the scene's camera."""
    origin = np.asarray(scene.camera.position, np.float32)[:, None]
    points = origin + direction * hits.distance
    normals, local = raycast.surface(scene.bodies, scene.room, points, hits.ids, direction)
    albedo = _albedo(scene, local, hits.ids)
    to = np.asarray(scene.lamp.position, np.float32)[:, None] - points
    length = np.sqrt(dot(to, to))
    to = to / length
    lit = np.maximum(dot(normals, to), 0)
    lit *= ~raycast.in_shadow(scene.bodies, points, hits.ids, scene.lamp.position)
    around = np.float32(0.65) + np.float32(0.35) * normals[2] - np.float32(0.25) * dot(normals, direction)
    strength = np.float32(scene.lamp.ambient) * around * _openness(scene, points, hits.ids) + np.float32(1 - scene.lamp.ambient) * lit
    # the room's negative ids count from the end: ceiling, wall, floor
    gloss = np.array([m.gloss for m in scene.materials] + [0, 0, scene.floor.gloss], np.float32)[hits.ids]
    half = to - direction
    shine = np.maximum(dot(normals, half), 0) / np.sqrt(np.maximum(dot(half, half), np.float32(1e-6)))
    for _ in range(5):
        shine = shine * shine
    return (albedo * strength + gloss * shine * (lit > 0)) * np.asarray(scene.lamp.color, np.float32)[:, None]


def occlusion_edges(depth: np.ndarray, normals: np.ndarray, camera: Camera) -> np.ndarray:
    """How far each pixel's surface, continued as a plane, misses its neighbours: jumps of 3 % of the depth count 0, of 13 % and more 1.

    Args:
        depth: float32 [height, width] metres along the camera's axis.
        normals: float32 [height, width, 3] unit, camera space.
        camera: the camera of both.

    Returns:
        float32 [height, width] in [0, 1]; both sides of a jump are marked. A crease without a jump is not.
    """
    size = depth.shape[0]
    steps = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - np.float32(1)) / np.float32(camera.focal)
    # points are depth * (x, y, -1): a plane through one with normal n has depth  z (n . ray) / (n . ray')  along another ray
    rays = np.stack(np.broadcast_arrays(steps[None, :], -steps[:, None], np.float32(-1)), axis=-1)
    edges = np.zeros_like(depth)

    def miss(a, b):
        ahead, here = (normals[a] * rays[b]).sum(-1), (normals[a] * rays[a]).sum(-1)
        guess = depth[a] * here / np.minimum(ahead, np.float32(-1e-3))
        return np.abs(guess - depth[b]) / np.minimum(depth[a], depth[b])

    every, first, last = slice(None), slice(None, -1), slice(1, None)
    for a, b in [((every, first), (every, last)), ((first, every), (last, every))]:
        jump = np.clip((np.minimum(miss(a, b), miss(b, a)) - np.float32(0.03)) * 10, 0, 1)
        edges[a], edges[b] = np.maximum(edges[a], jump), np.maximum(edges[b], jump)
    return edges


def _slopes(luminance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel slopes to the right and downwards, in luminance a pixel; the border is repeated."""
    p = np.pad(luminance, 1, mode="edge")
    right, left = p[:, 2:], p[:, :-2]
    below, above = p[2:], p[:-2]
    x = (right[:-2] - left[:-2] + 2 * (right[1:-1] - left[1:-1]) + right[2:] - left[2:]) / 8
    y = (below[:, :-2] - above[:, :-2] + 2 * (below[:, 1:-1] - above[:, 1:-1]) + below[:, 2:] - above[:, 2:]) / 8
    return x, y


def _blur(image: np.ndarray) -> np.ndarray:
    p = np.pad(image, 1, mode="edge")
    p = (p[:, 2:] + 2 * p[:, 1:-1] + p[:, :-2]) / 4
    return (p[2:] + 2 * p[1:-1] + p[:-2]) / 4


def luminance(image: np.ndarray) -> np.ndarray:
    """float32 [height, width] in [0, 1] of a uint8 RGB picture [height, width, 3] (Rec. 601 weights, gamma kept)."""
    return (image.astype(np.float32) * np.array([0.299, 0.587, 0.114], np.float32)).sum(-1) / 255


def texture_edges(image: np.ndarray) -> np.ndarray:
    """Sobel slope of the luminance of a uint8 RGB picture, doubled and clipped: float32 [height, width] in [0, 1]; 1 is half of black to
    white within a pixel."""
    x, y = _slopes(luminance(image))
    return np.clip(2 * np.sqrt(x * x + y * y), 0, 1)


def keypoints(image: np.ndarray) -> np.ndarray:
    """Corner heat (Shi-Tomasi) of a uint8 RGB picture: float32 [height, width] in [0, 1].

    The smaller eigenvalue of the 3x3-blurred structure tensor is the squared slope in the weaker direction; its root, times 8, clipped.
    """
    x, y = _slopes(luminance(image))
    xx, yy, xy = _blur(x * x), _blur(y * y), _blur(x * y)
    least = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    return np.clip(8 * np.sqrt(np.maximum(least, 0)), 0, 1)
