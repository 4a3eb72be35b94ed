"""Small rendered 3-D scenes with four kinds of truth: the data set that needs no download.

Scene `index` of `seed` is a pure function of the two: it never depends on how many others are drawn, in which order, in how many chunks
or processes, and its truth does not depend on the picture's size. With the same NumPy version its pixels have the same bits.

* multi-label: one binary task a shape: does it cover at least `MIN_FRACTION` of the view;
* attributes: binary tasks on light, room and crowding;
* categories: shape, and shape x surface, of the object that covers most of the view;
* dense: z-depth, normals, occlusion edges, texture edges, keypoints (`dense`).

Geometry is in `solids.py` and `raycast.py`, colour and light in `shading.py`, what a scene is made of in `composing.py`. NumPy only: the
worker processes import this module, so it must stay cheap.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
import hashlib
import multiprocessing
import os
from pathlib import Path
import sys
import tempfile
import threading
import types
from typing import NamedTuple

import numpy as np

from amalgam_tf.data import codecs
from amalgam_tf.data.examples import Examples
from amalgam_tf.data.scenes import composing, raycast, shading
from amalgam_tf.data.scenes.composing import MIN_FRACTION, SHAPES
from amalgam_tf.data.scenes.raycast import WALL
from amalgam_tf.data.scenes.shading import SURFACES, Scene
from amalgam_tf.data.scenes.solids import turn
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task

VERSION = 1  # part of the cache key: raise it with every change that moves a pixel or a label
ATTRIBUTES = ("bright_light", "warm_light", "light_from_left", "tiled_floor", "dark_wall", "crowded", "large_object", "red_object")
SHAPE_SURFACES = tuple(f"{shape}_{surface}" for shape in SHAPES for surface in SURFACES)
TASKS = (
    *(Task(name) for name in SHAPES + ATTRIBUTES),
    Task("shape", kind="category", labels=SHAPES, head="softmax"),
    Task("shape_surface", kind="category", labels=SHAPE_SURFACES, head="softmax"),
)
DENSE = {"depth": 1, "normals": 3, "occlusion_edges": 1, "texture_edges": 1, "keypoints": 1}  # maps of `dense` and their channels
DOMAINS = {  # the codec of each, in the order of `DENSE_TASKS`
    "depth": "depth_zbuffer",
    "normals": "normal",
    "occlusion_edges": "edge_occlusion",
    "texture_edges": "edge_texture",
    "keypoints": "keypoints2d",
}
DENSE_TASKS = tuple(codecs.task(name) for name in DOMAINS.values())

SPLIT_SIZE = 10**9
SPLITS = {"train": 0, "val": SPLIT_SIZE, "test": 2 * SPLIT_SIZE}  # the first scene of each split
SMALLEST, LARGEST = 8, 1024  # picture sizes

_ALONE = 200  # fewer pictures than this are not worth starting processes for
_CHUNK = 64


class SceneObject(NamedTuple):
    """A labelled object that covers at least one sample of the picture.

    Attributes:
        number: its id in `Rendered.segments`.
        shape: one of `SHAPES`.
        surface: one of `SURFACES`.
        box: (xmin, ymin, xmax, ymax) of its visible part in pixels, the first pixel being 1, both ends included (as in VOC).
        fraction: share of the view it covers, in [0, 1], counted in `Rendered.segments`.
        color: main colour, linear RGB in [0, 1].
    """

    number: int
    shape: str
    surface: str
    box: tuple[int, int, int, int]
    fraction: float
    color: tuple[float, float, float]


class Rendered(NamedTuple):
    """n pictures and their truth.

    Attributes:
        images: uint8 [n, size, size, 3] RGB.
        labels: name of each of `TASKS` -> int32 [n]: 0 or 1, or the index of the class.
        objects: [n] the visible labelled objects of each scene, in no particular order.
        segments: int8 [n, 64, 64]: which body covers each cell of the view (also distractors, which are no `objects`), or -1 floor,
            -2 wall, -3 ceiling. The truth is counted here, whatever the picture's size.
    """

    images: np.ndarray
    labels: dict[str, np.ndarray]
    objects: tuple[tuple[SceneObject, ...], ...]
    segments: np.ndarray


def render(seed: int, indices: Sequence[int], size: int) -> Rendered:
    """Draws scenes, four samples a pixel.

    Args:
        seed: which world; at least 0.
        indices: which scenes of it; at least 0 each.
        size: height and width in pixels, `SMALLEST` to `LARGEST`.

    Raises:
        UserError: an argument out of range, or no index.
    """
    check(seed, indices, size)
    images, facts, objects, segments = zip(*(_render_one(seed, int(i), size) for i in indices), strict=True)
    labels = {task.name: np.array([f[task.name] for f in facts], np.int32) for task in TASKS}
    return Rendered(np.stack(images), labels, objects, np.stack(segments))


def dense(seed: int, indices: Sequence[int], size: int) -> dict[str, np.ndarray]:
    """Dense truth at the pixel centres of the pictures that `render` draws for the same arguments.

    Returns:
        float32 [n, size, size, channels] by name (`DENSE`):
        depth: z-depth in metres, the distance along the camera's axis, about 0.5 to 15;
        normals: unit vectors in camera space (x right, y up, z towards the camera), never facing away from the ray;
        occlusion_edges: 0 to 1, jumps of the depth (`shading.occlusion_edges`);
        texture_edges: 0 to 1, slopes of the picture (`shading.texture_edges`);
        keypoints: 0 to 1, corners of the picture (`shading.keypoints`).

    Raises:
        UserError: as `render`.
    """
    check(seed, indices, size)
    rows = [_dense_one(seed, int(i), size) for i in indices]
    return {name: np.stack([r[name] for r in rows]).reshape(len(rows), size, size, channels) for name, channels in DENSE.items()}


def load(
    *,
    split: str,
    count: int,
    size: int,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    workers: int | None = None,
) -> Examples:
    """The first `count` scenes of a split, with their pixels in memory.

    Args:
        split: train, val or test; no scene is in two of them.
        count: how many scenes. A smaller count gives the first ones of a larger count.
        size: height and width in pixels.
        seed: which world.
        tasks: names out of `TASKS`, in this order; all by default.
        cache_dir: folder to keep the pixels and labels in, created where missing; None keeps nothing. A damaged file is drawn again.
        workers: processes that draw; by default one a processor, and none below 200 scenes. The bits do not depend on it.

    Returns:
        Examples `scenes/<split>` with ids like `train/000012` and images uint8 [count, size, size, 3].

    Raises:
        UserError: an argument out of range, an unknown split or task, a cache folder that cannot be written.
    """
    one = {"images": (np.uint8, (size, size, 3)), **{task.name: (np.int32, ()) for task in TASKS}}
    stored = _stored("scenes", _chunk, one, split, count, size, seed, cache_dir, workers)
    examples = _examples("scenes", split, TASKS, stored)
    return examples if tasks is None else examples.only(tasks)


def load_dense(*, split: str, count: int, size: int, seed: int = 0, cache_dir: Path | None = None, workers: int | None = None) -> Examples:
    """The first `count` scenes of a split with dense truth: the pictures of `load`, the maps of `dense` as their codecs' raw integers.

    Args: those of `load`.

    Returns:
        Examples `scenes_dense/<split>` with the tasks `DENSE_TASKS` and labels uint8 or uint16 [count, size, size, channels]. Every
        pixel shows something, so all count (`depth` is None).

    Raises:
        UserError: as `load`.
    """
    one = {"images": (np.uint8, (size, size, 3))}
    one |= {task.name: (codecs.get(task.codec).dtype, (size, size, task.outputs)) for task in DENSE_TASKS}
    stored = _stored("scenes_dense", _dense_chunk, one, split, count, size, seed, cache_dir, workers)
    return _examples("scenes_dense", split, DENSE_TASKS, stored)


def split_indices(split: str, count: int) -> range:
    """The numbers, for `render`, of the first `count` scenes of a split of `SPLITS`."""
    return range(SPLITS[split], SPLITS[split] + count)


# ---- one scene ----------------------------------------------------------------------------------------------------------------------


def check(seed, indices, size):
    if seed < 0 or not len(indices) or min(indices) < 0:
        raise UserError("scenes are numbered from 0: seed and scene numbers must not be negative, and there must be at least one")
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"scenes are drawn {SMALLEST} to {LARGEST} pixels wide, not {size}")


def _look(scene: Scene, size: int) -> tuple[np.ndarray, raycast.Hits]:
    directions = raycast.camera_rays(scene.camera, size)
    return directions, raycast.trace(scene.bodies, scene.room, scene.camera.position, directions)


def _render_one(seed, index, size):
    scene, segments = composing.compose(seed, index)
    image, hits = picture(scene, seed, index, size)
    objects = _objects(scene, segments, hits.ids.reshape(2 * size, 2 * size))
    return image, _truth(scene, segments, objects), objects, segments


def picture(scene: Scene, seed: int, index: int, size: int) -> tuple[np.ndarray, raycast.Hits]:
    """uint8 [size, size, 3] with the noise of (seed, index, size), and what its four samples a pixel hit."""
    directions, hits = _look(scene, 2 * size)
    return _develop(shading.shade(scene, directions, hits), size, scene.noise, np.random.default_rng((seed, index, size))), hits


def _develop(light: np.ndarray, size: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Linear RGB [3, samples] -> uint8 [size, size, 3]: mean of the four samples of a pixel, gamma 2, sensor noise."""
    light = np.minimum(light, 1).reshape(3, size, 2, size, 2)
    light = light[:, :, 0] + light[:, :, 1]
    image = np.sqrt((light[..., 0] + light[..., 1]) / 4)
    image = image + np.float32(noise) * rng.standard_normal(image.shape, np.float32)
    return np.ascontiguousarray((np.clip(image, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0))


def _objects(scene: Scene, segments: np.ndarray, samples: np.ndarray) -> tuple[SceneObject, ...]:
    found = []
    for number in range(scene.named):
        rows, columns = np.nonzero(samples == number)
        if len(rows):
            box = tuple(int(v) // 2 + 1 for v in (columns.min(), rows.min(), columns.max(), rows.max()))
            material = scene.materials[number]
            share = int(np.count_nonzero(segments == number)) / segments.size
            color = tuple(float(c) for c in material.color)
            found.append(SceneObject(number, scene.bodies[number].shape, material.pattern, box, share, color))
    return tuple(found)


def _truth(scene: Scene, segments: np.ndarray, objects: Sequence[SceneObject]) -> dict[str, int]:
    seen = [o for o in objects if o.fraction >= MIN_FRACTION]
    largest = max(seen, key=lambda o: o.fraction)
    shapes = {o.shape for o in seen}
    return {
        **{name: name in shapes for name in SHAPES},
        "bright_light": scene.facts["brightness"] > 0.95,
        "warm_light": scene.facts["warmth"] > 0.25,
        "light_from_left": scene.facts["light_right"] < 0,
        "tiled_floor": scene.floor.pattern == "checker",
        "dark_wall": scene.facts["wall_value"] < 0.4 and np.count_nonzero(segments == WALL) >= 0.05 * segments.size,
        "crowded": len(seen) >= 3,
        "large_object": largest.fraction >= 0.15,
        "red_object": any(composing.is_red(o.color) for o in seen),
        "shape": SHAPES.index(largest.shape),
        "shape_surface": SHAPE_SURFACES.index(f"{largest.shape}_{largest.surface}"),
    }


def _dense_one(seed, index, size):
    scene, _ = composing.compose(seed, index)
    directions, hits = _look(scene, size)
    points = np.asarray(scene.camera.position, np.float32)[:, None] + directions * hits.distance
    normals, _ = raycast.surface(scene.bodies, scene.room, points, hits.ids, directions)
    to_camera = np.asarray(scene.camera.rotation).T
    depth = (-turn(to_camera, directions)[2] * hits.distance).reshape(size, size)
    normals = np.ascontiguousarray(turn(to_camera, normals).T).reshape(size, size, 3)
    image = _render_one(seed, index, size)[0]
    return {
        "image": image,
        "depth": depth,
        "normals": normals,
        "occlusion_edges": shading.occlusion_edges(depth, normals, scene.camera),
        "texture_edges": shading.texture_edges(image),
        "keypoints": shading.keypoints(image),
    }


# ---- many scenes --------------------------------------------------------------------------------------------------------------------


def _chunk(seed: int, indices: range, size: int) -> dict[str, np.ndarray]:
    """Images and labels by task: what a worker sends back."""
    rendered = render(seed, indices, size)
    return {"images": rendered.images, **rendered.labels}


def _dense_chunk(seed: int, indices: range, size: int) -> dict[str, np.ndarray]:
    rows = [_dense_one(seed, i, size) for i in indices]
    raw = {d: codecs.get(d).to_raw(np.stack([r[m] for r in rows])).reshape(len(rows), size, size, DENSE[m]) for m, d in DOMAINS.items()}
    return {"images": np.stack([r["image"] for r in rows]), **raw}


def _stored(kind, chunk_of, one, split, count, size, seed, cache_dir, workers) -> dict[str, np.ndarray]:
    """What `chunk_of` draws for the first scenes of a split, from the cache if it is there; `one`: type and shape of a scene's arrays."""
    if split not in SPLITS:
        raise UserError(f"scenes have no split {split!r}: choose {', '.join(SPLITS)}")
    if not 1 <= count <= SPLIT_SIZE:
        raise UserError(f"the number of scenes must lie between 1 and {SPLIT_SIZE}, not {count}")
    if workers is not None and workers < 1:
        raise UserError(f"the number of worker processes must be at least 1, not {workers}")
    indices = split_indices(split, count)
    check(seed, indices, size)
    path = None if cache_dir is None else _cache_path(Path(cache_dir), kind, split, count, size, seed)
    stored = None if path is None else _read_cache(path, count, one)
    if stored is None:
        stored = _draw(chunk_of, seed, indices, size, workers)
        if path is not None:
            _write_cache(path, stored)
    return stored


def _examples(kind: str, split: str, tasks: tuple[Task, ...], stored: dict[str, np.ndarray]) -> Examples:
    ids = tuple(f"{split}/{i:06d}" for i in range(len(stored["images"])))
    labels = {task.name: stored[task.name] for task in tasks}
    return Examples(name=f"{kind}/{split}", ids=ids, images=stored["images"], tasks=tasks, labels=labels)


def _draw(chunk_of: Callable, seed: int, indices: range, size: int, workers: int | None) -> dict[str, np.ndarray]:
    chunks = [indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK)]
    workers = min(workers or (os.cpu_count() or 1), len(chunks))
    parts = None
    if workers > 1 and len(indices) >= _ALONE:
        try:
            parts = _draw_in_processes(chunk_of, seed, chunks, size, workers)
        except (OSError, ImportError, BrokenProcessPool):
            pass  # no semaphores here (some containers), or a worker was killed: slower, but the same pictures
    parts = parts or [chunk_of(seed, chunk, size) for chunk in chunks]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _draw_in_processes(chunk_of, seed, chunks, size, workers):
    # spawn, never fork: a fork of a process in which TensorFlow has threads can hang
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        with _no_main_module():
            waiting = [pool.submit(chunk_of, seed, chunk, size) for chunk in chunks]  # workers start within submit
        try:
            return [w.result() for w in waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_main_lock = threading.Lock()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hides `__main__` from spawn, which would run the user's script again in each worker (TensorFlow import and all) for nothing."""
    with _main_lock:
        real = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = real


# ---- the cache ----------------------------------------------------------------------------------------------------------------------


def _cache_path(folder: Path, kind, split, count, size, seed) -> Path:
    tasks = {"scenes": TASKS, "scenes_dense": tuple(codecs.get(t.codec) for t in DENSE_TASKS)}[kind]
    key = repr((VERSION, np.__version__, tasks, split, count, size, seed))  # NumPy's version: only within one are the bits promised
    name = f"{kind}-{split}-{count}x{size}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use {folder} as cache folder ({error.strerror}): name another one") from error
    return folder / name


def _read_cache(path: Path, count: int, one: dict[str, tuple]) -> dict[str, np.ndarray] | None:
    """What the file holds, or None where it is missing, damaged or of another make."""
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in one}
    except Exception:  # NumPy and zipfile fail over damage in a dozen ways; each means the same: draw again
        return None
    fits = (stored[name].shape == (count, *shape) and stored[name].dtype == dtype for name, (dtype, shape) in one.items())
    return stored if all(fits) else None


def _write_cache(path: Path, stored: dict[str, np.ndarray]) -> None:
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **stored)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"cannot write scenes to the cache folder {path.parent} ({error.strerror}): free space or name another") from error
