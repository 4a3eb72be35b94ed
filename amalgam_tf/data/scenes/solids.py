"""Twelve solids in their own frames: where a ray hits them, which way their surface faces, how they lie on a floor.

A solid stands around its origin with its axis along z; its `dims` are metres, as its line in `SOLIDS` says. Points and directions are
float32 [3, rays], one row a coordinate: each row is contiguous, so every operation runs at full speed. No BLAS routine is called: its
bits may depend on the number of threads.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

TINY = np.float32(1e-9)
_MISS = np.float32(np.inf)
_TORUS_STEPS = 28


def turn(matrix, vectors: np.ndarray) -> np.ndarray:
    """matrix [3, 3] applied to vectors [3, rays], written out: a BLAS product may round differently from machine to machine."""
    m = np.asarray(matrix, np.float32)
    return np.stack([m[i, 0] * vectors[0] + m[i, 1] * vectors[1] + m[i, 2] * vectors[2] for i in range(3)])


def dot(a, b) -> np.ndarray:
    """Row-wise dot product of [3, rays] with [3, rays] or [3]."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# ---- one ray against one solid, in the solid's own frame: each returns (near, far); a miss has near >= far --------------------------


def _slab(o, d, low, high):
    inverse = 1 / np.where(np.abs(d) < TINY, TINY, d)
    a, b = (np.float32(low) - o) * inverse, (np.float32(high) - o) * inverse
    return np.minimum(a, b), np.maximum(a, b)


def _both(first, *others):
    near, far = first
    for a, b in others:
        near, far = np.maximum(near, a), np.minimum(far, b)
    return near, far


def _quadratic(a, b, c):
    """Where a t^2 + 2 b t + c <= 0, for a > 0."""
    a = np.maximum(a, TINY)
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
        t = (np.float32(offset) - dot(o, normal)) / np.where(np.abs(speed) < TINY, TINY, speed)
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
    rho = np.maximum(np.sqrt(p[0] * p[0] + p[1] * p[1]), TINY)
    cap = np.abs(p[2] + dims[1]) < np.abs(slope * (dims[1] - p[2]) - rho)
    return _flat(cap, np.stack([p[0] / rho, p[1] / rho, np.full_like(rho, slope)]), np.full_like(rho, -1))


def _normal_capsule(dims, p):
    return np.stack([p[0], p[1], p[2] - np.clip(p[2], -dims[1], dims[1])])


def _normal_dome(dims, p):
    cap = np.abs(p[2]) < np.abs(dims[0] - np.sqrt(dot(p, p)))
    return _flat(cap, p, np.full_like(p[2], -1))


def _normal_torus(dims, p):
    keep = 1 - dims[0] / np.maximum(np.sqrt(p[0] * p[0] + p[1] * p[1]), TINY)
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
