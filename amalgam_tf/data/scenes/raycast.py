"""Analytic ray casting of solids in a room, NumPy only: the geometry under `scenes.py`.

World: right-handed, metres, z up, floor at z = 0. Camera space: x right, y up, z *towards* the camera (so what it sees has negative z).
Points and directions are float32 [3, rays], as in `solids.py`. Nothing here is random.
"""

from typing import NamedTuple

import numpy as np

from amalgam_tf.data.scenes.solids import SOLIDS, TINY, dot, turn

FLOOR, WALL, CEILING = -1, -2, -3  # what a ray met when it met no body; bodies are 0, 1, ...


class Body(NamedTuple):
    """A solid somewhere in the world.

    Attributes:
        shape: a key of `SOLIDS`.
        center: [3] metres, the origin of its own frame in the world.
        rotation: [3, 3] its own axes as columns, in the world.
        dims: metres, as the shape's entry in `SOLIDS` reads them.
    """

    shape: str
    center: np.ndarray
    rotation: np.ndarray
    dims: tuple[float, ...]


class Camera(NamedTuple):
    """A pinhole camera with square pictures.

    Attributes:
        position: [3] metres.
        rotation: [3, 3] its right, up and backward axes as columns, in the world.
        focal: focal length in halves of the picture's width: tan(field of view / 2) = 1 / focal.
    """

    position: np.ndarray
    rotation: np.ndarray
    focal: float


class Hits(NamedTuple):
    """Where rays end. `ids` int8 [rays]: the body's number, or FLOOR, WALL, CEILING; `distance` float32 [rays] metres along the ray."""

    ids: np.ndarray
    distance: np.ndarray


def look_at(position, target, roll: float = 0.0) -> np.ndarray:
    """The rotation of a camera at `position` looking at `target` (metres), rolled by `roll` radians; never straight down."""
    back = np.asarray(position, float) - np.asarray(target, float)
    back /= np.sqrt((back**2).sum())
    right = np.array([-back[1], back[0], 0.0])
    right /= np.sqrt((right**2).sum())
    up = np.cross(back, right)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack([c * right + s * up, c * up - s * right, back], axis=1)


def camera_rays(camera: Camera, size: int) -> np.ndarray:
    """Unit directions in the world through the centres of size x size pixels, row by row from the top left: float32 [3, size * size]."""
    steps = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size)) - np.float32(1)
    x = np.tile(steps, size)
    y = np.repeat(-steps, size)
    scale = 1 / np.sqrt(x * x + y * y + np.float32(camera.focal**2))
    local = np.stack([x * scale, y * scale, np.float32(-camera.focal) * scale])
    return turn(camera.rotation, local)


def interval(body: Body, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave a body.

    Args:
        body: the body.
        origin: [3, rays] or [3, 1] metres, world.
        direction: [3, rays] unit vectors, world.

    Returns:
        near, far: float32 [rays] metres along the ray; near >= far where it misses (a torus: `far` of its hull).
    """
    back = np.asarray(body.rotation, np.float32).T
    o = turn(back, origin - np.asarray(body.center, np.float32)[:, None])
    d = turn(back, direction)
    # float32 loses the small differences of large squares: start the ray where it passes the centre
    ahead = -dot(o, d)
    near, far = SOLIDS[body.shape].hit(body.dims, o + d * ahead, d)
    return near + ahead, far + ahead


def _near_hull(body, origin, direction, limit=None):
    """Numbers of the rays that come near the body's hull in front of their origin (and before `limit`)."""
    reach = SOLIDS[body.shape].hull(body.dims) * 1.001
    to = np.asarray(body.center, np.float32)[:, None] - origin
    along = dot(to, direction)
    close = (dot(to, to) - along * along < np.float32(reach**2)) & (along > -reach)
    if limit is not None:
        close &= along - np.float32(reach) < limit
    return np.flatnonzero(close)


def trace(bodies, room: tuple[np.ndarray, np.ndarray], origin: np.ndarray, direction: np.ndarray) -> Hits:
    """The first thing each ray meets.

    Args:
        bodies: sequence of `Body`, at most 100.
        room: its lowest and highest corner, [3] metres each; the origin lies inside.
        origin: [3] metres.
        direction: [3, rays] unit vectors.
    """
    origin = np.asarray(origin, np.float32)[:, None]
    # leaving a box from inside: the first of its planes lying ahead
    planes = np.where(direction > 0, np.asarray(room[1], np.float32)[:, None], np.asarray(room[0], np.float32)[:, None])
    level = np.abs(direction) < TINY  # never reaches the planes of this axis
    leave = np.where(level, np.float32(np.inf), (planes - origin) / np.where(level, TINY, direction))
    distance = leave.min(axis=0)
    vertical = leave[2] <= distance
    ids = np.where(vertical, np.where(direction[2] < 0, FLOOR, CEILING), WALL).astype(np.int8)
    for number, body in enumerate(bodies):
        rays = _near_hull(body, origin, direction)
        if not len(rays):
            continue
        near, far = interval(body, origin, direction[:, rays])
        closer = (near < far) & (near > 0.01) & (near < distance[rays])
        rays = rays[closer]
        distance[rays] = near[closer]
        ids[rays] = number
    return Hits(ids, distance)


def surface(bodies, room, points: np.ndarray, ids: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the points where rays ended lie on.

    Args:
        bodies, room: as for `trace`.
        points: float32 [3, rays] metres, world.
        ids: int8 [rays], from `trace`.
        direction: float32 [3, rays] unit vectors of the rays.

    Returns:
        Unit outward normals in the world, never facing away from the ray, and the points in the own frame of the body they lie on
        (the world's for the room): float32 [3, rays] each.
    """
    normals, local = np.zeros_like(points), points.copy()
    normals[2][ids == FLOOR], normals[2][ids == CEILING] = 1, -1
    wall = np.flatnonzero(ids == WALL)
    gaps = np.stack([abs(points[i][wall] - np.float32(room[j][i])) for i in (0, 1) for j in (0, 1)])
    side = gaps.argmin(axis=0)
    normals[0][wall] = np.array([1, -1, 0, 0], np.float32)[side]
    normals[1][wall] = np.array([0, 0, 1, -1], np.float32)[side]
    for number, body in enumerate(bodies):
        rays = np.flatnonzero(ids == number)
        if len(rays):
            p = turn(np.asarray(body.rotation).T, points[:, rays] - np.asarray(body.center, np.float32)[:, None])
            n = SOLIDS[body.shape].normal(body.dims, p)
            normals[:, rays] = turn(body.rotation, n / np.maximum(np.sqrt(dot(n, n)), TINY))
            local[:, rays] = p
    # rounding picks the hidden face at an edge now and then: turn such a normal until it is seen edge-on
    away = np.flatnonzero(dot(normals, direction) > 0)
    if len(away):
        seen = normals[:, away] - direction[:, away] * (dot(normals[:, away], direction[:, away]) + np.float32(1e-4))
        normals[:, away] = seen / np.sqrt(dot(seen, seen))
    return normals, local


def in_shadow(bodies, points: np.ndarray, ids: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Which points [3, rays] no straight line joins to the light at [3] metres: bool [rays]. A body never shadows itself here."""
    to = np.asarray(light, np.float32)[:, None] - points
    length = np.sqrt(dot(to, to))
    to = to / length
    dark = np.zeros(len(ids), bool)
    for number, body in enumerate(bodies):
        rays = _near_hull(body, points, to, length)
        rays = rays[(ids[rays] != number) & ~dark[rays]]
        if len(rays):
            near, far = interval(body, points[:, rays], to[:, rays])
            dark[rays] = (near < far) & (far > 1e-3) & (near < length[rays])
    return dark
