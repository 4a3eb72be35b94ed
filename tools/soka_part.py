"""All experiments of SOKA on scenes and on RGB-D frames: prints the plan with estimated times, then does what is not done yet.

    python tools/soka_part.py --dry_run
    python tools/soka_part.py --only=seed0

Renders its scenes; for the RGB-D runs expects rgbd/, made by tools/prepare_7scenes.py, in the current folder. Writes below
runs/soka_scenes and runs/soka_rgbd. The teachers are trained once: what the seeds vary is the student.
"""

from collections.abc import Iterator
from pathlib import Path
import sys

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf.series import Planned, carry_out  # noqa: E402  the project need not be installed

_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the plan and stop")
_ONLY = flags.DEFINE_string("only", "", "only runs whose workdir contains this")

SEEDS = (0, 1, 2)
HEADLINE = ("", "kd", "kd_mia", "no_auxiliary", "dmtl", "gradnorm")  # tables 3 and 5
FURTHER = ("weak", "strong", "printed_mia", "equal", "weighted", "fast_weights")  # table 4, S2, S6, figure 5
PAIRS = ("edge2d-normal", "depth-normal", "depth-edge3d", "edge2d-edge3d", "edge3d-normal")  # the rest of table 1
SCENE_TASKS = ("depth_zbuffer", "edge_texture", "normal", "edge_occlusion", "keypoints2d")
RGBD_TASKS = ("depth_zbuffer", "normal", "edge_occlusion")


def teacher(scale: str, task: str) -> Planned:
    return Planned(Path(f"runs/soka_{scale}/teachers/{task}"), f"configs/teachers/taskonomy.py:{task},{scale}", data_of(scale))


def student(scale: str, pair: str, variant: str, seed: int) -> Planned:
    words = ",".join(filter(None, (pair, variant, scale)))
    workdir = Path(f"runs/soka_{scale}/seed{seed}/{pair}{variant and '_' + variant}")
    planned = Planned(workdir, f"configs/soka/taskonomy.py:{words}")
    shared = {f"teachers.{name}.path": f"runs/soka_{scale}/teachers/{name}" for name in planned.loaded().teachers}
    return Planned(workdir, planned.config, {"seed": seed, **data_of(scale), **shared})


def data_of(scale: str) -> dict[str, str]:
    return {"data.root": "rgbd"} if scale == "rgbd" else {}


def plan() -> Iterator[Planned]:
    """Headline runs first: what does not fit is cut from the end."""
    yield from (teacher("scenes", task) for task in SCENE_TASKS)
    yield from (student("scenes", "depth-edge2d", v, s) for s in SEEDS for v in HEADLINE)
    yield from (student("scenes", "depth-edge2d", v, s) for s in SEEDS for v in FURTHER)
    yield from (teacher("rgbd", task) for task in RGBD_TASKS)
    yield from (student("rgbd", "depth-normal", v, 0) for v in ("", "kd"))
    yield from (student("scenes", pair, "", 0) for pair in PAIRS)


def main(_) -> None:
    carry_out([r for r in plan() if _ONLY.value in str(r.workdir)], _DRY_RUN.value)


if __name__ == "__main__":
    app.run(main)
