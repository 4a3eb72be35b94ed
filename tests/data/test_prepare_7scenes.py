"""tools/prepare_7scenes.py: normals of planes, blocks and gaps, a whole run, and real frames beside a folder made by another hand."""

import csv
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from amalgam_tf.data import codecs, taskonomy
from amalgam_tf.errors import UserError
from tests.loading import TOOLS, tool

SIDE = 48
CAMERA = np.array([[58.5, 0, SIDE / 2], [0, 58.5, SIDE / 2], [0, 0, 1]])


@pytest.fixture(scope="module")
def prepare():
    with tool("prepare_7scenes") as module:
        yield module


def plane(normal, distance=2.0) -> np.ndarray:
    """z-depth of the plane normal . (x, y, z) = -distance in a camera that looks along -z."""
    steps = (np.arange(SIDE) + 0.5 - SIDE / 2) / 58.5
    rays = np.stack(np.broadcast_arrays(steps[None], -steps[:, None], -1.0), -1)
    return -distance / (rays @ np.asarray(normal, float))


def degrees(a, b) -> np.ndarray:
    a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (np.asarray(a, float), np.asarray(b, float)))
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.5, 0, 0.8), (0, 0.6, 0.8), (-0.3, -0.2, 0.9)])
def test_normals_of_a_plane(prepare, normal):
    found = prepare.normals(plane(normal), CAMERA)
    assert np.allclose(np.linalg.norm(found, axis=-1), 1)
    assert degrees(found, normal)[6:-6, 6:-6].max() < 0.5  # the border is bent by the Gaussian


def test_holes_take_the_nearest_reading(prepare):
    metres = np.array([[1.0, np.nan, np.nan, np.nan, 5.0]])
    assert prepare.filled(metres)[0, [0, 1, 3, 4]].tolist() == [1, 1, 5, 5]
    with pytest.raises(UserError, match="no reading"):
        prepare.filled(np.full((2, 2), np.nan))


def test_maps_answer_to_what_they_are_named_after(prepare):
    step = np.where(np.arange(SIDE) < SIDE // 2, 0.2, 0.8)[None].repeat(SIDE, 0)
    edges = prepare.edge_texture(step)
    assert edges[10].argmax() in (SIDE // 2 - 1, SIDE // 2) and edges[:, :10].max() == 0
    ramps = [np.tile((np.arange(side) + 0.5) / side, (side, 1)) for side in (SIDE, 4 * SIDE)]
    slopes = [prepare.edge_texture(ramp)[20, 20] for ramp in ramps]
    assert slopes == pytest.approx([8 / 256, 8 / 256], rel=1e-3)  # whatever the picture's size
    assert np.allclose(prepare.edge_occlusion(1 + step), prepare.edge_occlusion(5 * (1 + step)))  # relative to the depth
    bowls = [(ramp**2 + ramp.T**2) / 2 for ramp in ramps]
    bends = [prepare.keypoints2d(bowl)[len(bowl) // 2, len(bowl) // 2] for bowl in bowls]
    assert bends == pytest.approx([100 / 256**2] * 2, rel=1e-3)
    dots = np.zeros((SIDE, SIDE))
    dots[20, 30] = 1
    corners = prepare.keypoints2d(dots)
    assert np.unravel_index(corners.argmax(), corners.shape) == (20, 30) and prepare.keypoints2d(step)[:, 4:-4].max() < 0.01 * corners.max()


def test_one_frame(prepare):
    millimetres = np.full((SIDE, SIDE + 20), 2000, np.uint16)
    millimetres[:, :30] = 0
    millimetres[0] = 65535
    color = np.zeros((SIDE, SIDE + 20, 3), np.uint8)
    color[:, 10:34] = 200  # the left half of the central square
    camera = CAMERA + [[0, 0, 10], [0, 0, 0], [0, 0, 0]]
    made = prepare.domains(color, millimetres, camera, SIDE)
    assert made["rgb"][:, :24].min() == 200 and made["rgb"][:, 24:].max() == 0
    depth = made["depth_zbuffer"]
    assert depth.dtype == np.uint16 and (depth[1:, 20:] == 1024).all()  # 2 m in 1/512 m
    assert (depth[0] == 65535).all() and (depth[:, :20] == 65535).all()
    assert (made["normal"] == [128, 128, 255]).all()  # a wall ahead, holes filled with it
    assert made["edge_occlusion"].max() == 0 and made["edge_texture"][20].argmax() in (23, 24)
    slanted = np.pad(plane((0.5, 0, 0.8)) * 1000, ((0, 0), (10, 10)), mode="edge").astype(np.uint16)
    normal = prepare.domains(color, slanted, camera, SIDE)["normal"][24, 24]
    assert degrees(normal / 127.5 - 1, (0.5, 0, 0.8)) < 1  # the principal point moved with the square
    small = prepare.domains(color, millimetres, camera, 16)
    assert {k: v.shape[:2] for k, v in small.items()} == dict.fromkeys(made, (16, 16))


def test_blocks(prepare):
    parts = prepare.blocks(range(0, 106, 2), 5, 2)
    assert [side for side, _ in parts] == ["train"] * 4 + ["val"] + ["train"] * 4 + ["test"]
    assert [len(p) for _, p in parts] == [5, 5, 5, 5, 3, 3, 5, 5, 5, 6]  # what is left over joins the last, gaps at each change
    assert parts[4][1] == [44, 46, 48] and parts[5][1] == [54, 56, 58] and parts[9][1][-1] == 104
    frames = {side: [f for s, part in parts if s == side for f in part] for side in ("train", "val", "test")}
    for a in frames:
        for b in frames:
            assert a == b or min(abs(x - y) for x in frames[a] for y in frames[b]) >= 2 * 3
    for length, gap in ((6, 2), (0, 0), (5, 5), (5, -1)):
        with pytest.raises(UserError, match="choose a --block of at most 5"):
            prepare.blocks(range(53), length, gap)


def write_frames(folder: Path, count: int) -> Path:
    folder.mkdir()
    np.savetxt(folder / "camera-intrinsics.txt", CAMERA)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"frame-{i:06d}.color.png")
        Image.fromarray((plane((0, 0.1 * (i % 3), 1)) * 1000).astype(np.uint16)).save(folder / f"frame-{i:06d}.depth.png")
    return folder


def run(*arguments):
    # without the repository on the path: the tool has to find the package itself
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, str(TOOLS / "prepare_7scenes.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_whole_run_is_read_by_building(prepare, tmp_path):
    frames = write_frames(tmp_path / "frames", 20)
    done = run(f"--frames={frames}", f"--output={tmp_path / 'out'}", "--name=room", "--size=16", "--block=2", "--gap=1")
    assert done.returncode == 0 and "wrote 17 frames" in done.stdout, done.stderr
    with open(tmp_path / "out" / "splits.csv", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == [f"room{i:02d}" for i in range(10)] and rows["room04"]["val"] == rows["room09"]["test"] == "1"
    ids = {s: taskonomy.load(root=tmp_path / "out", split=s, partition="splits.csv").ids for s in ("train", "val", "test")}
    assert ids["val"] == ("room04/point_9_view_0",) and ids["test"] == ("room09/point_19_view_0",) and len(ids["train"]) == 15
    depth = np.asarray(Image.open(tmp_path / "out" / "room04" / "depth_zbuffer" / "point_9_view_0_domain_depth_zbuffer.png"))
    assert depth.dtype == np.uint16 and depth.shape == (16, 16) and abs(depth / 512 - 2).max() < 0.01  # frame 9 looks straight at a wall


def test_mistakes_end_with_one_sentence(prepare, tmp_path):
    frames = write_frames(tmp_path / "frames", 10)
    out = tmp_path / "out"

    def refused(message, folder=frames):
        with pytest.raises(UserError, match=message) as caught:
            prepare.write(folder, out, name="x", size=16, block=1, gap=0)
        assert "\n" not in str(caught.value)

    refused("holds no frame-NNNNNN.color.jpg", tmp_path)
    depth = frames / "frame-000000.depth.png"
    whole = depth.read_bytes()
    depth.write_bytes(whole[:60])
    refused("frame-000000.depth.png cannot be read as a picture")
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)).save(depth)
    refused("frame-000000.depth.png: the depth has no reading")
    Image.fromarray(np.zeros((SIDE, 9), np.uint16)).save(depth)
    refused("both must be of one height and width")
    depth.unlink()
    refused("frame-000000.depth.png cannot be read")
    (frames / "camera-intrinsics.txt").write_text("1 2\n")
    refused("holds no 3 x 3 matrix")
    (frames / "camera-intrinsics.txt").unlink()
    refused("camera-intrinsics.txt cannot be read")
    done = run(f"--frames={frames}", f"--output={frames}")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_beside_the_folder_made_by_another_hand(prepare, real_data):
    """Its frames are not among the raw ones here: its own depth (of which it took 480 x 480, here are 128 x 128) is turned into normals."""
    camera = np.array([[156.0, 0, 64], [0, 156.0, 64], [0, 0, 1]])  # 585 at 480
    folder = real_data / "taskonomy_like_7scenes"
    for frame in (105, 705):

        def stored(domain, frame=frame):
            return np.asarray(Image.open(folder / domain / f"point_{frame}_view_0_domain_{domain}.png"))

        raw = stored("depth_zbuffer")
        millimetres = np.where(raw == 65535, 0, np.rint(raw / 512 * 1000)).astype(np.uint16)
        made = prepare.domains(stored("rgb"), millimetres, camera, 128)
        assert np.array_equal(made["depth_zbuffer"], raw)
        there = raw < 65535
        angles = degrees(*(v[there] / 127.5 - 1 for v in (made["normal"], stored("normal"))))
        assert angles.mean() < 12 and np.median(angles) < 5  # measured: 9.0 and 7.0, 3.4 and 3.8
        for domain, least in (("edge_texture", 0.9), ("edge_occlusion", 0.7), ("keypoints2d", 0.65)):
            assert np.corrcoef(made[domain].ravel(), stored(domain).ravel())[0, 1] > least


def test_depth_and_range_of_real_frames(prepare, real_data):
    """Every second frame is there small: frame 104 and 106 beside frame 105 of the other folder, and one of them whole."""
    frames = real_data / "rgbd_7scenes" / "frames"
    camera = np.loadtxt(frames / "camera-intrinsics.txt")

    def made(folder, frame, camera):
        return prepare.domains(
            *(np.asarray(Image.open(folder / f"frame-{frame:06d}.{e}")) for e in ("color.jpg", "depth.png")), camera, 128
        )

    other = np.asarray(Image.open(real_data / "taskonomy_like_7scenes/depth_zbuffer/point_105_view_0_domain_depth_zbuffer.png"))
    for frame in (104, 106):
        depth = made(frames, frame, camera)["depth_zbuffer"]
        both = (depth < 65535) & (other < 65535)
        assert both.mean() > 0.75 and np.median(np.abs(depth[both] / other[both] - 1.0)) < 0.02
    small = made(frames, 100, camera)
    large = made(frames.parent / "frames_original", 100, np.loadtxt(frames.parent / "frames_original" / "camera-intrinsics.txt"))
    for domain in ("edge_texture", "edge_occlusion", "keypoints2d"):
        means = [m[domain].mean() / codecs.get(domain).top for m in (small, large)]
        assert 0.03 < min(means) and max(means) < 0.4 and max(means) / min(means) < 1.7  # Taskonomy's sample view: 0.17, 0.10, 0.16
