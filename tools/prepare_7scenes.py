"""Turns RGB-D frames of 7-Scenes into Taskonomy's layout, for runs on real pictures where Taskonomy itself is not at hand.

    python tools/prepare_7scenes.py --frames=chess/seq-01 --output=chess --name=chess --size=128
    then: data.reader=taskonomy data.root=chess data.taskonomy_partition=splits.csv

    FRAMES/frame-000000.color.jpg (or .png)  frame-000000.depth.png (millimetres; 0 or 65535: no reading)  camera-intrinsics.txt (3 x 3)
    OUTPUT/chess00/rgb/point_0_view_0_domain_rgb.png  ...  splits.csv (id,train,val,test)

Only rgb and depth_zbuffer are measured. normal, edge_texture, edge_occlusion and keypoints2d are derived by the formulas below, which are
not Taskonomy's: numbers got on them say nothing about Taskonomy. Lengths in pixels are those of a square of 480 and grow and shrink with
the frames; edges and keypoints are scaled so that about as much of a picture lies in the codecs' range as of Taskonomy's sample view.

Runs of `--block` frames are the "buildings": every fifth goes to val and test by turns, the others to train. Neighbouring frames are
nearly the same picture, so the first `--gap` frames of a block are left out if the block before is of another split. It stays one room,
which a moving camera may see again later: the splits measure other views, not other rooms.
"""

from collections.abc import Sequence
import csv
from pathlib import Path
import re
import sys

from absl import app, flags
import numpy as np
from PIL import Image
from scipy import ndimage

# run as a script from a checkout, where the package need not be installed: its folder is the one above this file's
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf.data import codecs  # noqa: E402
from amalgam_tf.errors import UserError, or_exit  # noqa: E402

_FRAMES = flags.DEFINE_string("frames", None, "folder of the frames and camera-intrinsics.txt")
_OUTPUT = flags.DEFINE_string("output", None, "folder to write to; must be new or empty")
_NAME = flags.DEFINE_string("name", "kitchen", "what the buildings are called, before their number")
_SIZE = flags.DEFINE_integer("size", 128, "height and width of what is written, in pixels")
_BLOCK = flags.DEFINE_integer("block", 50, "frames in a row that make a building")
_GAP = flags.DEFINE_integer("gap", 5, "frames left out where a block follows one of another split")

_SIDE = 480  # of the square that lengths in pixels below belong to
_WINDOW, _SMOOTH = 5, 3.0  # median and Gaussian (sigma) before normals
_TEXTURE, _OCCLUSION, _CORNERS = 1.0, 1.5, 3.0  # sigmas
# share of the coded range: a slope a 256th of the side (luminance in [0, 1]), a relative depth step, the root of the Hessian's determinant
_TEXTURE_SCALE, _OCCLUSION_SCALE, _CORNERS_SCALE = 8.0, 10.0, 100.0


def normals(metres: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Surface normals by differences of neighbouring points.

    Args:
        metres: z-depth float [side, side], without holes (`filled`).
        intrinsics: [3, 3] focal lengths and principal point in pixels of this picture, the corner of the first pixel being (0, 0).

    Returns:
        float [side, side, 3] unit vectors: x right, y up, z towards the camera.
    """
    side = len(metres)
    window = max(1, 2 * int(_WINDOW * side / _SIDE / 2) + 1)  # odd, and 5 at 480
    depth = ndimage.gaussian_filter(ndimage.median_filter(metres, window, mode="nearest"), _SMOOTH * side / _SIDE)
    right = (np.arange(side) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
    down = (np.arange(side) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1]
    points = np.stack([depth * right, -depth * down[:, None], -depth], axis=-1)
    normal = np.cross(np.gradient(points, axis=1), -np.gradient(points, axis=0))
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def filled(metres: np.ndarray) -> np.ndarray:
    """The depth [height, width] with its holes (NaN) replaced by the nearest reading.

    Raises:
        UserError: no reading at all.
    """
    holes = np.isnan(metres)
    if holes.all():
        raise UserError("the depth has no reading in its central square: leave the frame out")
    nearest = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
    return metres[tuple(nearest)]


def edge_texture(luminance: np.ndarray) -> np.ndarray:
    """Slope of the smoothed luminance [side, side] in [0, 1]: share of the codec's range, 0 and more."""
    return _TEXTURE_SCALE * _slope(luminance, _TEXTURE)


def edge_occlusion(metres: np.ndarray) -> np.ndarray:
    """Relative depth step: slope of the logarithm of the smoothed depth [side, side] without holes; share of the codec's range."""
    return _OCCLUSION_SCALE * _slope(np.log(metres), _OCCLUSION)


def keypoints2d(luminance: np.ndarray) -> np.ndarray:
    """Root of the determinant of the luminance's Hessian [side, side], 0 at saddles: share of the codec's range."""
    side = len(luminance)
    # differences, since scipy's Gaussian derivatives answer to plain grey where sigma is small
    smooth = ndimage.gaussian_filter(luminance, _CORNERS * side / _SIDE)
    yy, xx = (ndimage.correlate1d(smooth, [1, -2, 1], axis) for axis in (0, 1))
    xy = np.gradient(np.gradient(smooth, axis=0), axis=1)
    return _CORNERS_SCALE * np.sqrt(np.maximum(xx * yy - xy * xy, 0)) * (side / 256) ** 2


def _slope(values: np.ndarray, sigma: float) -> np.ndarray:
    """Change of the smoothed values over a 256th of the side."""
    side = len(values)
    return np.hypot(*np.gradient(ndimage.gaussian_filter(values, sigma * side / _SIDE))) * side / 256


def domains(color: np.ndarray, millimetres: np.ndarray, intrinsics: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """The files' integers of one frame, of its central square.

    Args:
        color: uint8 [height, width, 3].
        millimetres: uint16 [height, width]; 0 and 65535 are no reading.
        intrinsics: [3, 3] of the whole frame.
        size: height and width of the result.

    Returns:
        Domain -> uint8 or uint16 [size, size] or [size, size, 3]. Depth and normals take the nearest pixel, so that nothing is averaged
        over a jump or a hole; the others are resized with antialiasing.

    Raises:
        UserError: no reading at all.
    """
    side = min(millimetres.shape)
    top, left = ((n - side) // 2 for n in millimetres.shape)
    color, raw = color[top : top + side, left : left + side], millimetres[top : top + side, left : left + side]
    metres = np.where((raw == 0) | (raw == 65535), np.nan, raw / 1000)
    camera = intrinsics - [[0, 0, left], [0, 0, top], [0, 0, 0]]
    whole = filled(metres)
    luminance = color @ np.array([0.299, 0.587, 0.114]) / 255
    nearest = ((np.arange(size) + 0.5) * side / size).astype(int)
    picked = np.ix_(nearest, nearest)
    physical = {
        "depth_zbuffer": metres[picked],
        "normal": normals(whole, camera)[picked],
        "edge_texture": _resized(edge_texture(luminance), size),
        "edge_occlusion": _resized(edge_occlusion(whole), size),
        "keypoints2d": _resized(keypoints2d(luminance), size),
    }
    rgb = np.asarray(Image.fromarray(color).resize((size, size), Image.Resampling.BILINEAR))
    return {"rgb": rgb, **{name: codecs.get(name).to_raw(values) for name, values in physical.items()}}


def _resized(values: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR))


def blocks(frames: Sequence[int], length: int, gap: int) -> list[tuple[str, list[int]]]:
    """Cuts frames into blocks and gives them to splits.

    Args:
        frames: numbers in their order.
        length: of a block; what is left at the end joins the last one.
        gap: frames left out at the start of a block if the one before is of another split.

    Returns:
        [(train, val or test, its frames)]: every fifth block is val and test by turns.

    Raises:
        UserError: too few blocks for a test split, or nothing left of a block.
    """
    count = len(frames) // length if length > 0 else 0
    if count < 10 or not 0 <= gap < length:
        raise UserError(
            f"{len(frames)} frames make {count} blocks (--block={length}, --gap={gap}): choose a --block of at most {len(frames) // 10} "
            "for the ten blocks that train, val and test need, and a smaller --gap than that"
        )
    sides = ["train" if i % 5 < 4 else ("val", "test")[i // 5 % 2] for i in range(count)]
    cut = [list(frames[i * length : (i + 1) * length if i + 1 < count else None]) for i in range(count)]
    return [(side, part[gap if i and sides[i - 1] != side else 0 :]) for i, (side, part) in enumerate(zip(sides, cut, strict=True))]


def write(frames: Path, output: Path, *, name: str, size: int, block: int, gap: int) -> None:
    """Reads a folder of frames and writes its buildings and splits.csv.

    Raises:
        UserError: frames or intrinsics missing, broken or of different sizes; as `blocks`.
    """
    found, intrinsics = _colors(frames), _intrinsics(frames / "camera-intrinsics.txt")
    parts = blocks(sorted(found), block, gap)
    for number, (_, members) in enumerate(parts):
        for frame in members:
            _write_one(found[frame], output / f"{name}{number:02d}", frame, intrinsics, size)
    with open(output / "splits.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "train", "val", "test"])
        table.writerows([f"{name}{i:02d}", *(int(side == s) for s in ("train", "val", "test"))] for i, (side, _) in enumerate(parts))


def _write_one(color: Path, building: Path, frame: int, intrinsics: np.ndarray, size: int) -> None:
    depth = color.with_name(color.name.partition(".")[0] + ".depth.png")
    picture, raw = _read(color), _read(depth)
    if picture.ndim != 3 or picture.shape[2] != 3 or raw.shape != picture.shape[:2]:
        raise UserError(f"{depth} is {list(raw.shape)} and its picture {list(picture.shape)}: both must be of one height and width")
    try:
        made = domains(picture, raw, intrinsics, size)
    except UserError as error:
        raise UserError(f"{depth}: {error}") from error
    for domain, values in made.items():
        path = building / domain / f"point_{frame}_view_0_domain_{domain}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)


def _colors(folder: Path) -> dict[int, Path]:
    """Frame number -> its picture."""
    names = {p: re.fullmatch(r"frame-(\d+)\.color\.(jpg|png)", p.name) for p in folder.glob("frame-*")} if folder.is_dir() else {}
    found = {int(match[1]): p for p, match in names.items() if match}
    if not found:
        raise UserError(f"{folder} holds no frame-NNNNNN.color.jpg (or .png): name a folder of 7-Scenes frames by --frames")
    return found


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error}): copy it again, or leave its frame out") from error


def _intrinsics(path: Path) -> np.ndarray:
    try:
        matrix = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): write the camera's 3 x 3 matrix there") from error
    if matrix.shape != (3, 3) or not min(matrix[0, 0], matrix[1, 1]) > 0:
        raise UserError(f"{path} holds no 3 x 3 matrix with positive focal lengths: write the camera's there")
    return matrix


def run() -> None:
    """Does what the flags say.

    Raises:
        UserError: a flag that cannot be followed; as `write`.
    """
    if not _FRAMES.value or not _OUTPUT.value:
        raise UserError("--frames and --output must both be set: name the folder to read and the one to write to")
    if not 16 <= _SIZE.value <= 2048 or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", _NAME.value):
        raise UserError("--size must lie between 16 and 2048 pixels and --name hold letters, digits and - only")
    output = Path(_OUTPUT.value).expanduser()
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"{output} exists and is not an empty folder (--output): name a new one")
        write(Path(_FRAMES.value).expanduser(), output, name=_NAME.value, size=_SIZE.value, block=_BLOCK.value, gap=_GAP.value)
    except OSError as error:
        raise UserError(f"cannot write to {error.filename or output} ({error.strerror}): name another folder with --output") from error
    print(f"wrote {len(list(output.glob('*/rgb/*')))} frames of {_SIZE.value} pixels to {output}")


def main(_) -> None:
    or_exit(run)


if __name__ == "__main__":
    app.run(main)
