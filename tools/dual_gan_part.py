"""All experiments of Dual-GAN at 32 px, on scenes and on CIFAR-10: prints the plan with estimated times, then does what is not done yet.

    python tools/dual_gan_part.py --dry_run
    python tools/dual_gan_part.py --only=scenes/seed0

Renders its scenes; for CIFAR-10 expects cifar10_images/ (train/ and test/, a folder a class), and as foreign images VOCdevkit/ (with
VOC2012/) and rgbd/ (frames of rooms, a folder train/), all in the current folder. Writes below runs/dgan_part. The teachers are trained
once: what the seeds vary is generator and student.
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
ROOT = Path("runs/dgan_part")
TEACHERS = {"scenes": ("whole",), "cifar10": ("half1", "half2"), "union": ("half1", "half2")}
HEADLINE = ("ours", "dafl", "noise", "ka", "similar", "different")
LITERAL = ("literal", "dafl,literal")  # the papers' own losses of the generator
LAMBDA = ("lambda10", "lambda01", "batch")  # they take the generator of `ours`
GENERATOR = ("no_bn_stat", "probability", "off", "minus_logit", "minus_prob", "bernoulli", "softmax", "plain")


def teacher(source: str, name: str) -> Planned:
    return Planned(ROOT / source / name, f"configs/dual_gan/part.py:{source},{name}", data_of(source))


def student(source: str, row: str, seed: int) -> Planned:
    workdir = ROOT / source / f"seed{seed}" / row.replace(",", "_")
    planned = Planned(workdir, f"configs/dual_gan/part.py:{source},{row}")
    shared = {f"teachers.{name}.path": str(ROOT / source / name) for name in planned.loaded().teachers}
    return Planned(workdir, planned.config, {"seed": seed, **data_of(source), **images_of(source, row), **shared})


def data_of(source: str) -> dict[str, str]:
    return {"data.root": "cifar10_images"} if source == "cifar10" else {}


def images_of(source: str, row: str) -> dict[str, str]:
    """Where the foreign images of a row are."""
    folders = {"scenes": {"different": "cifar10_images"}, "cifar10": {"similar": "VOCdevkit", "different": "rooms"}}
    folders["union"] = folders["scenes"]
    return {"data.train_root": folders[source][row]} if row in folders[source] else {}


def plan() -> Iterator[Planned]:
    """Headline runs first: what does not fit is cut from the end."""
    yield from (teacher(source, name) for source in ("scenes", "cifar10") for name in TEACHERS[source])
    yield from (student(source, row, seed) for seed in SEEDS for row in HEADLINE for source in ("scenes", "cifar10"))
    yield from (student("cifar10", row, seed) for seed in SEEDS for row in LITERAL)
    yield from (student("cifar10", row, 0) for row in (*LAMBDA, *GENERATOR))
    yield from (student("scenes", row, 0) for row in LITERAL)
    yield from (teacher("union", name) for name in TEACHERS["union"])
    yield from (student("union", row, 0) for row in HEADLINE)


def main(_) -> None:
    carry_out([r for r in plan() if _ONLY.value in str(r.workdir)], _DRY_RUN.value)


if __name__ == "__main__":
    app.run(main)
