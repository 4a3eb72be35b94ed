"""Scenes like the others, but of what no teacher knows: other solids, another pattern. "Similar data" of data-free experiments (DGAN G17).

Room, light, camera and places are those of the scene with the same number; every body is a wedge or an octahedron, the two that bear no
label and that teachers meet as small distractors only, veined like the walls. So the pictures look alike and show no label.
"""

from collections.abc import Sequence

import numpy as np

from amalgam_tf.data import scenes
from amalgam_tf.data.examples import Examples
from amalgam_tf.data.scenes import composing
from amalgam_tf.data.scenes.raycast import Body
from amalgam_tf.data.scenes.shading import Scene
from amalgam_tf.data.scenes.solids import SOLIDS, rest_height
from amalgam_tf.errors import one_of

SHAPES = ("wedge", "octahedron")
PATTERN = "marble"


def load(*, split: str, count: int, size: int, seed: int) -> Examples:
    """The first `count` of these scenes of a split, unlabelled, uint8 [count, size, size, 3]; drawn anew each time, about 80 a second.

    Raises:
        UserError: an unknown split, or a number out of range.
    """
    one_of("split of scenes_unseen", split, scenes.SPLITS)
    images = render(seed, scenes.split_indices(split, count), size)
    return Examples(f"scenes_unseen/{split}", tuple(f"unseen/{split}/{i:06d}" for i in range(count)), images, (), {})


def render(seed: int, indices: Sequence[int], size: int) -> np.ndarray:
    """Draws scenes, four samples a pixel: uint8 [n, size, size, 3]; a pure function of (seed, index, size).

    Raises:
        UserError: an argument out of range, or no index.
    """
    scenes.check(seed, indices, size)
    return np.stack([scenes.picture(composed(seed, int(i)), seed, int(i), size)[0] for i in indices])


def composed(seed: int, index: int) -> Scene:
    """Scene `index` of `seed` with other bodies of the same size in the same places."""
    scene, _ = composing.compose(seed, index)
    rng = np.random.default_rng((seed, index, 1))
    bodies = tuple(_other(rng, body) for body in scene.bodies)
    materials = tuple(m._replace(pattern=PATTERN) for m in scene.materials)
    return scene._replace(bodies=bodies, materials=materials)


def _other(rng, body: Body) -> Body:
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    dims = composing.dims_of(rng, shape, 1.0)
    scale = SOLIDS[body.shape].hull(body.dims) / SOLIDS[shape].hull(dims)
    dims = tuple(scale * d for d in dims)
    center = np.array([*body.center[:2], rest_height(shape, dims, body.rotation)])
    return Body(shape, center, body.rotation, dims)
