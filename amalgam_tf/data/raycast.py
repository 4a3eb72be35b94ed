"""Analytic ray casting of ten solids in a room, NumPy only: the geometry under `scenes.py`.

World: right-handed, metres, z up, floor at z = 0. Camera space: x right, y up, z *towards* the camera (so what it sees has negative z).
Points and directions are float32 [3, rays], one row a coordinate: each row is contiguous, so every operation runs at full speed.
Nothing here is random, and no BLAS routine is called, so the same input gives the same bits whatever the number of threads.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

FLOOR, WALL, CEILING = -1, -2, -3  # what a ray met when it met no body; bodies are 0, 1, ...

_TINY = np.float32(1e-9)
_MISS = np.float32(np.inf)
_TORUS_STEPS = 28


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


def turn(matrix, vectors: np.ndarray) -> np.ndarray:
    """matrix [3, 3] applied to vectors [3, rays], written out: a BLAS product may round differently from machine to machine."""
    m = np.asarray(matrix, np.float32)
    return np.stack([m[i, 0] * vectors[0] + m[i, 1] * vectors[1] + m[i, 2] * vectors[2] for i in range(3)])


def dot(a, b) -> np.ndarray:
    """Row-wise dot product of [3, rays] with [3, rays] or [3]."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# ---- one ray against one solid, in the solid's own frame: each returns (near, far); a miss has near >= far --------------------------


def _slab(o, d, low, high):
    inverse = 1 / np.where(np.abs(d) < _TINY, _TINY, d)
    a, b = (np.float32(low) - o) * inverse, (np.float32(high) - o) * inverse
    return np.minimum(a, b), np.maximum(a, b)


def _both(first, *others):
    near, far = first
    for a, b in others:
        near, far = np.maximum(near, a), np.minimum(far, b)
    return near, far


def _quadratic(a, b, c):
    """Where a t^2 + 2 b t + c <= 0, for a > 0."""
    a = np.maximum(a, _TINY)
    square = b * b - a * c
    root = np.sqrt(np.maximum(square, 0))
    return np.where(square < 0, _MISS, (-b - root) / a), (-b + root) / a


def _hit_ellipsoid(dims, o, d):
    radii = np.asarray(dims if len(dims) == 3 else dims * 3, np.float32)
    o, d = o / radii[:, None], d / radii[:, None]
    return _quadratic(dot(d, d), dot(o, d), dot(o, o) - 1)


def _hit_box(dims, o, d):
    return _both(*(_slab(o[i], d[i], -dims[i], dims[i]) for i in range(3)))


def _pipe(radius, o, d):
    return _quadratic(d[0] * d[0] + d[1] * d[1], o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1] - np.float32(radius**2))


def _hit_cylinder(dims, o, d):
    return _both(_pipe(dims[0], o, d), _slab(o[2], d[2], -dims[1], dims[1]))


def _hit_cone(dims, o, d):
    slope = np.float32((dims[0] / (2 * dims[1])) ** 2)  # squared radius gained per squared metre below the tip
    z = o[2] - np.float32(dims[1])
    a = d[0] * d[0] + d[1] * d[1] - slope * d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] - slope * z * d[2]
    c = o[0] * o[0] + o[1] * o[1] - slope * z * z
    near, far = _quadratic(np.abs(a), np.where(a < 0, -b, b), np.where(a < 0, -c, c))
    # a steep ray (a < 0) is inside *outside* of the two roots: keep the half below the tip
    steep = a < 0
    down = d[2] < 0
    near, far = (
        np.where(steep, np.where(down, np.where(near < _MISS, far, -_MISS), -_MISS), near),
        np.where(steep, np.where(down, _MISS, near), far),
    )
    return _both((near, far), _slab(o[2], d[2], -dims[1], dims[1]))


def _hit_capsule(dims, o, d):
    radius, half = dims
    pieces = [_both(_pipe(radius, o, d), _slab(o[2], d[2], -half, half))]
    for end in (-half, half):
        shifted = np.stack([o[0], o[1], o[2] - np.float32(end)])
        pieces.append(_quadratic(dot(d, d), dot(shifted, d), dot(shifted, shifted) - np.float32(radius**2)))
    near, far = pieces[0]
    near, far = np.where(near < far, near, _MISS), np.where(near < far, far, -_MISS)
    for a, b in pieces[1:]:
        near, far = np.minimum(near, a), np.maximum(far, np.where(a < b, b, -_MISS))
    return near, far


def _hit_dome(dims, o, d):
    return _both(_hit_ellipsoid(dims, o, d), _slab(o[2], d[2], 0, dims[0]))


def _hit_torus(dims, o, d):
    """Sphere tracing from the hull inwards: the distance to a torus is cheap, its quartic is neither short nor stable in float32."""
    ring, tube = np.float32(dims[0]), np.float32(dims[1])
    near, far = _both(_hit_ellipsoid((dims[0] + dims[1],), o, d), _slab(o[2], d[2], -dims[1], dims[1]))
    inside = near < far
    t = np.where(inside, near, 0)
    for _ in range(_TORUS_STEPS):
        p = o + d * t
        rim = np.sqrt(p[0] * p[0] + p[1] * p[1]) - ring
        gap = np.sqrt(rim * rim + p[2] * p[2]) - tube
        t = np.minimum(t + gap, far)
    return np.where(inside & (gap < 0.01 * tube), t, _MISS), np.where(inside, far, -_MISS)


def _planes(shape, dims):
    """Outward unit normals [planes, 3] and offsets [planes] of a convex polyhedron."""
    if shape == "pyramid":
        base, half = dims
        length = np.hypot(2 * half, base)
        up, out = base / length, 2 * half / length
        normals = [(out, 0, up), (-out, 0, up), (0, out, up), (0, -out, up), (0, 0, -1)]
        return np.array(normals), np.array([up * half] * 4 + [half])
    if shape == "wedge":  # a roof: triangle in (x, z), long in y
        x, y, z = dims
        length = np.hypot(2 * z, x)
        up, out = x / length, 2 * z / length
        return np.array([(out, 0, up), (-out, 0, up), (0, 0, -1), (0, 1, 0), (0, -1, 0)]), np.array([up * z, up * z, z, y, y])
    signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])  # octahedron
    return signs / np.sqrt(3), np.full(8, dims[0] / np.sqrt(3))


def _hit_polyhedron(shape, dims, o, d):
    near, far = np.full(d.shape[1], -_MISS), np.full(d.shape[1], _MISS)
    for normal, offset in zip(*_planes(shape, dims), strict=True):
        normal = normal.astype(np.float32)
        speed = dot(d, normal)
        t = (np.float32(offset) - dot(o, normal)) / np.where(np.abs(speed) < _TINY, _TINY, speed)
        near = np.where(speed < 0, np.maximum(near, t), near)
        far = np.where(speed < 0, far, np.minimum(far, t))
    return near, far


# ---- outward normals at surface points of the solid's own frame (not yet unit length) -----------------------------------------------


def _normal_box(dims, p):
    scaled = p / np.asarray(dims, np.float32)[:, None]
    axis = np.abs(scaled).argmax(axis=0)
    return np.where(np.arange(3)[:, None] == axis, np.sign(scaled), 0).astype(np.float32)


def _flat(where, side, sign):
    """`side` [3, n], but (0, 0, sign) where a flat end is nearer."""
    return np.where(where, np.stack([np.zeros_like(sign), np.zeros_like(sign), sign]), side)


def _normal_cylinder(dims, p):
    rho = np.sqrt(p[0] * p[0] + p[1] * p[1])
    cap = np.abs(dims[1] - np.abs(p[2])) < np.abs(dims[0] - rho)
    return _flat(cap, np.stack([p[0], p[1], np.zeros_like(rho)]), np.sign(p[2]))


def _normal_cone(dims, p):
    slope = np.float32(dims[0] / (2 * dims[1]))
    rho = np.maximum(np.sqrt(p[0] * p[0] + p[1] * p[1]), _TINY)
    cap = np.abs(p[2] + dims[1]) < np.abs(slope * (dims[1] - p[2]) - rho)
    return _flat(cap, np.stack([p[0] / rho, p[1] / rho, np.full_like(rho, slope)]), np.full_like(rho, -1))


def _normal_capsule(dims, p):
    return np.stack([p[0], p[1], p[2] - np.clip(p[2], -dims[1], dims[1])])


def _normal_dome(dims, p):
    cap = np.abs(p[2]) < np.abs(dims[0] - np.sqrt(dot(p, p)))
    return _flat(cap, p, np.full_like(p[2], -1))


def _normal_torus(dims, p):
    keep = 1 - dims[0] / np.maximum(np.sqrt(p[0] * p[0] + p[1] * p[1]), _TINY)
    return np.stack([p[0] * keep, p[1] * keep, p[2]])


def _normal_polyhedron(shape, dims, p):
    normals, offsets = _planes(shape, dims)
    normals = normals.astype(np.float32)
    excess = np.stack([dot(p, n) - np.float32(k) for n, k in zip(normals, offsets, strict=True)])
    return np.ascontiguousarray(normals[excess.argmax(axis=0)].T)


# ---- the farthest point in a direction u [3] (own frame): how a body comes to lie on the floor --------------------------------------


def _corners(shape, dims):
    if shape == "pyramid":
        base, half = dims
        return [(0, 0, half)] + [(a * base, b * base, -half) for a in (-1, 1) for b in (-1, 1)]
    if shape == "wedge":
        x, y, z = dims
        return [(0, b * y, z) for b in (-1, 1)] + [(a * x, b * y, -z) for a in (-1, 1) for b in (-1, 1)]
    return [tuple(s * dims[0] * (i == j) for j in range(3)) for i in range(3) for s in (-1, 1)]


def _reach(shape, dims, u) -> float:
    flat = float(np.hypot(u[0], u[1]))
    if shape in ("sphere", "ellipsoid"):
        radii = np.array(dims if len(dims) == 3 else dims * 3)
        return float(np.sqrt(((radii * u) ** 2).sum()))
    if shape in ("box", "slab"):
        return float((np.array(dims) * np.abs(u)).sum())
    if shape == "cylinder":
        return dims[0] * flat + dims[1] * abs(u[2])
    if shape == "cone":
        return max(dims[1] * u[2], dims[0] * flat - dims[1] * u[2])
    if shape == "capsule":
        return dims[0] + dims[1] * abs(u[2])
    if shape == "torus":
        return dims[0] * flat + dims[1]
    if shape == "dome":
        return dims[0] if u[2] >= 0 else dims[0] * flat
    return max(float(np.dot(c, u)) for c in _corners(shape, dims))


class Solid(NamedTuple):
    """What the caster knows about a shape, in its own frame.

    `hit(dims, origins, directions) -> (near, far)`, `normal(dims, points)` (any length), `hull(dims)`: radius around its centre.
    """

    hit: Callable
    normal: Callable
    hull: Callable


def _diagonal(dims):
    return float(np.sqrt(np.square(dims).sum()))


SOLIDS = {
    "sphere": Solid(_hit_ellipsoid, lambda dims, p: p, max),  # dims: radius
    "ellipsoid": Solid(_hit_ellipsoid, lambda dims, p: p / np.asarray(dims, np.float32)[:, None] ** 2, max),  # three radii
    "box": Solid(_hit_box, _normal_box, _diagonal),  # half sides x, y, z
    "slab": Solid(_hit_box, _normal_box, _diagonal),  # half sides x, y, z
    "cylinder": Solid(_hit_cylinder, _normal_cylinder, _diagonal),  # radius, half height
    "cone": Solid(_hit_cone, _normal_cone, _diagonal),  # base radius, half height
    "capsule": Solid(_hit_capsule, _normal_capsule, sum),  # radius, half distance of the end centres
    "torus": Solid(_hit_torus, _normal_torus, sum),  # ring radius, tube radius
    "dome": Solid(_hit_dome, _normal_dome, max),  # radius of the half ball; flat side at z = 0
    "pyramid": Solid(  # half base, half height
        partial(_hit_polyhedron, "pyramid"), partial(_normal_polyhedron, "pyramid"), lambda d: _diagonal((d[0], *d))
    ),
    "wedge": Solid(partial(_hit_polyhedron, "wedge"), partial(_normal_polyhedron, "wedge"), _diagonal),  # half sides of its box
    "octahedron": Solid(partial(_hit_polyhedron, "octahedron"), partial(_normal_polyhedron, "octahedron"), max),  # distance of the tips
}


def rest_height(shape: str, dims: tuple[float, ...], rotation: np.ndarray) -> float:
    """Height of the centre, in metres, at which the solid so turned just touches the floor."""
    return _reach(shape, dims, np.asarray(rotation).T @ np.array([0.0, 0.0, -1.0]))


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
    leave = (planes - origin) / np.where(np.abs(direction) < _TINY, _TINY, direction)
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
            normals[:, rays] = turn(body.rotation, n / np.maximum(np.sqrt(dot(n, n)), _TINY))
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
