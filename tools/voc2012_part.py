"""All experiments on the VOC 2012 part, one after the other: prints the plan with estimated times, then does what is not done yet.

    python tools/voc2012_part.py --dry_run
    python tools/voc2012_part.py --only=seed0

Expects VOCdevkit/ (with VOC2012/) and resnet50_notop.h5 in the current folder; writes below runs/voc2012_part/. A run that was
stopped goes on where it was; a finished one (results.json) is skipped; one that fails is named at the end, the others still run.
"""

from dataclasses import dataclass, field
from pathlib import Path
import subprocess
import sys
import time

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the plan and stop")
_ONLY = flags.DEFINE_string("only", "", "only runs whose name contains this")

ROOT = "runs/voc2012_part"
DATA = {"data.root": "VOCdevkit", "save_every_steps": 1000}
IMAGES, BATCH, TEST = 2652, 32, 390  # of the train part without the held-out tenth; of val
SETUP_SECONDS = 40  # imports, tracing, saving, figures
SHARES = {"stage": (0.27, 0.26, 0.31, 0.16)}  # of a ResNet-50's time, measured: stem and b1, b2, b3, b4


@dataclass(frozen=True)
class Planned:
    """One run: its config, its workdir below ROOT, the leaves it changes, and the image passes it costs (1 = forward of one teacher)."""

    name: str
    config: str
    settings: dict = field(default_factory=dict)
    size: int = 96
    passes: float = 0.0

    @property
    def workdir(self) -> Path:
        return Path(ROOT) / self.name

    def command(self) -> list[str]:
        leaves = {**DATA, **self.settings}
        return [
            "python",
            "-m",
            "amalgam_tf.bin.train",
            f"--config={self.config}",
            f"--workdir={self.workdir}",
            *(f"--config.{k}={v}" for k, v in leaves.items()),
        ]


def teacher(name: str, seed: int, folder: str, **settings) -> Planned:
    size = settings.get("model.input_size", 96)
    leaves = {"seed": seed, "model.weights": "resnet50_notop.h5", **settings}
    return Planned(f"{folder}/{name}", f"configs/teachers/voc2012_part.py:{name}", leaves, size, 3 * 4 * IMAGES)


def student(name: str, argument: str, seed: int, *, passes: float, size: int = 96, **settings) -> Planned:
    leaves = {"seed": seed, "student.weights": "resnet50_notop.h5", **settings}
    return Planned(name, f"configs/afk/voc2012_part.py{argument and ':' + argument}", leaves, size, passes)


def block_passes(epochs: float, shares: tuple[float, ...], teachers: int = 2) -> float:
    """Image passes of training all blocks: frozen prefix once, trained block three times, each teacher's rest forth and back."""
    each = [sum(shares[:k]) + 3 * share + 2 * teachers * sum(shares[k + 1 :]) for k, share in enumerate(shares)]
    return epochs * IMAGES * sum(each)


def plan() -> list[Planned]:
    """Headline runs first: what does not fit is cut from the end."""
    stages, units = SHARES["stage"], tuple(s / n for s, n in zip(SHARES["stage"], (3, 4, 6, 3), strict=True) for _ in range(n))
    finetune = {"student": 3 * 1.73, "tolerance": 3 * 1.3, "budget": 3 * 1.2}  # of a student with two tails at b1, of smaller ones
    blocks, curve = block_passes(1.0, stages), TEST * sum(1 + sum(stages[k + 1 :]) for k in range(4))
    runs = [teacher(t, s, f"seed{s}") for s in range(3) for t in ("teacher1", "teacher2")]
    small = {"model.input_size": 64, "model.granularity": "unit"}
    runs += [teacher(t, 0, "64px", **small) for t in ("teacher1", "teacher2")]

    at_64 = {"granularity": "stage", "teachers.teacher1.path": "{workdir}/../teacher1", "teachers.teacher2.path": "{workdir}/../teacher2"}
    rates = {"adam_3e-5": ("adam", 3e-5), "adam_1e-4": ("adam", 1e-4), "adam_3e-4": ("adam", 3e-4), "sgd_1e-2": ("sgd", 1e-2)}
    for label, (name, rate) in rates.items():  # the same choices for both sides; decided by the held-out loss
        both = {f"{s}.optimizer.{k}": v for s in ("block", "finetune") for k, v in (("name", name), ("learning_rate", rate))}
        short = {"block.epochs": 0.5, "finetune.epochs": 0.75, "curve": False}  # half of the headline's
        passes = block_passes(0.5, stages) + 0.75 * 3 * 1.73 * IMAGES
        runs.append(student(f"64px/tune_afk_{label}", "", 0, size=64, passes=passes, **at_64, **both, **short))
        one = {"distill.optimizer.name": name, "distill.optimizer.learning_rate": rate, "distill.epochs": 2.75}
        runs.append(student(f"64px/tune_distill_{label}", "distill", 0, size=64, passes=3 * 2.75 * IMAGES, **at_64, **one))

    for s in range(3):
        runs.append(student(f"seed{s}/student", "", s, passes=blocks + curve + 1.5 * finetune["student"] * IMAGES))
        runs.append(student(f"seed{s}/distill", "distill", s, passes=3 * 5.5 * IMAGES))
        for rule in ("tolerance", "budget"):  # the blocks and the curve of the first are taken over
            runs.append(student(f"seed{s}/{rule}", rule, s, passes=1.5 * finetune[rule] * IMAGES))

    at_64 = {**at_64, "granularity": "unit", "block.epochs": 0.5, "finetune.epochs": 0.0}
    for pair in ("cow,horse", "chair,dog"):
        passes = block_passes(0.5, units) + TEST * 16 * 2
        runs.append(student(f"64px/{pair.replace(',', '_')}", "", 0, size=64, passes=passes, tasks=pair, **at_64))
    variants = {  # beside the run of the same length among the tuning runs
        "gate_sigmoid": {"filter.gate": "sigmoid"},
        "gate_linear": {"filter.gate": "linear"},
        "targets_hard": {"targets": "hard"},
        "batchnorm_batch": {"block.batchnorm": "batch"},
    }
    for label, change in variants.items():
        settings = {**at_64, "granularity": "stage", "block.epochs": 0.5, "finetune.epochs": 0.0, **change}
        runs.append(student(f"64px/{label}", "", 0, size=64, passes=block_passes(0.5, stages), **settings))
    return [r for r in runs if _ONLY.value in r.name]


def seconds_per_pass(sizes: set[int]) -> dict[int, float]:
    """Seconds of one image through a ResNet-50, measured now on this machine."""
    import keras
    import tensorflow as tf

    from amalgam_tf import models

    keras.config.set_dtype_policy("mixed_bfloat16")  # as the configs
    seconds = {}
    for size in sizes:
        net = models.classifier("resnet50", input_size=size, outputs=4, granularity="stage")
        forward, x = tf.function(net.run, autograph=False), tf.zeros((BATCH, size, size, 3))
        forward(x)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            forward(x).numpy()
            times.append(time.perf_counter() - start)
        seconds[size] = sorted(times)[2] / BATCH
    return seconds


def main(_) -> None:
    runs = plan()
    todo = [r for r in runs if not (r.workdir / "results.json").exists()]
    cost = seconds_per_pass({r.size for r in todo}) if todo else {}
    minutes = {r.name: (SETUP_SECONDS + r.passes * cost[r.size]) / 60 for r in todo}
    for r in runs:
        print(f"{r.name:32s} {r.size:3d} px  " + (f"{minutes[r.name]:5.1f} min" if r in todo else "done"))
    print(
        f"{len(todo)} of {len(runs)} runs to do, about {sum(minutes.values()):.0f} minutes on this machine as busy as it is now", flush=True
    )
    if _DRY_RUN.value:
        return
    failed = []
    for r in todo:
        print(" ".join(r.command()), flush=True)
        if subprocess.run([sys.executable, *r.command()[1:]]).returncode:
            failed.append(r.name)
    if failed:
        print(f"error: these runs failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
