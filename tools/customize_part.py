"""All experiments of Customize on parts of CelebA and CIFAR-10: prints the plan with estimated times, then does what is not done yet.

    python tools/customize_part.py --dry_run
    python tools/customize_part.py --only=seed0/hair
    python tools/customize_part.py --epochs=0.5          # half of all epochs, where time is short

Expects celeba/, cifar10_images/ and resnet50_notop.h5 in the current folder; writes below runs/customize_part/, source and component nets
once a seed for all that need them. A run that was stopped goes on where it was; a finished one (results.json) is skipped; one that fails
is named at the end, and so are those that wait for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf import methods  # noqa: E402  the project need not be installed
from amalgam_tf.errors import UserError  # noqa: E402

_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the plan and stop")
_ONLY = flags.DEFINE_string("only", "", "only runs whose name contains this")
_ROOT = flags.DEFINE_string("root", "runs/customize_part", "folder of all runs")
_EPOCHS = flags.DEFINE_float("epochs", 1.0, "factor on all epochs", lower_bound=0.0)
_DO = flags.DEFINE_list("do", [], "train these runs in this process and stop: how the tool calls itself")

# What fits into two hours on two quiet cores; every run of a kind has the same.
SOURCE_EPOCHS, COMPONENT_EPOCHS, TARGET_EPOCHS = 6.0, 15.0, 12.0
RESNET50_EPOCHS = 3.0
CIFAR10_SOURCE_EPOCHS, CIFAR10_COMPONENT_EPOCHS, CIFAR10_TARGET_EPOCHS = 4.0, 5.0, 4.0
SEEDS = (0, 1, 2)
PRECISION = "float32"

CELEBA = {"data.root": "celeba", "precision": PRECISION, "save_every_steps": 1000}
CIFAR10 = {"data.root": "cifar10_images", "precision": PRECISION, "save_every_steps": 1000}
PART, HALF, TEST, BATCH = (
    1200,
    3600,
    1000,
    32,
)  # images of a sixth of CelebA and of five classes, without the held-out tenth; of either test
BATCH_SECONDS, RUN_SECONDS = 6, 8  # of a process: imports; of a run: tracing, saving, latency, figures


class Net(NamedTuple):
    backbone: str
    size: int
    width: float


SMALL, WIDE, DEEP = Net("resnet18", 64, 0.5), Net("resnet18", 64, 45 / 64), Net("resnet50", 64, 1.0)
TINY, TINY_WIDE = Net("resnet14", 32, 0.5), Net("resnet14", 32, 0.5 * 72 / 64)


@dataclass(frozen=True)
class Planned:
    """One run.

    Attributes:
        config: its file and argument.
        seed: of everything in it.
        epochs: of its training, before `--epochs`.
        images: it trains on.
        net: what is trained.
        teachers: whose outputs it needs, one each.
        bridges: whether a teacher also runs in every step.
        settings: further leaves it changes.
    """

    config: str
    seed: int
    epochs: float
    images: int
    net: Net
    teachers: Sequence[Net] = ()
    bridges: bool = True
    settings: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        """seed0/hair/components/Bangs: where the config's own command puts it, below the seed."""
        workdir = methods.load_config(self.config).command.partition("--workdir=runs/")[2].split()[0]
        place = workdir.removeprefix("cust_celeba_part/").replace("cust_cifar10_part", "cifar10")
        return f"seed{self.seed}/{place}"

    @property
    def workdir(self) -> Path:
        return Path(_ROOT.value) / self.name

    @property
    def batch(self) -> str:
        """Runs of one batch share a process."""
        return "/".join(self.name.split("/")[:2])

    @property
    def lasts(self) -> float:
        return self.epochs * _EPOCHS.value

    def leaves(self) -> dict:
        teacher = self.config.startswith("configs/teachers/")
        data = CIFAR10 if "cifar10" in self.config else CELEBA
        own = {"epochs": self.lasts} if teacher else {"train.epochs": self.lasts, "train_missing_teachers": False}
        return {**data, "seed": self.seed, **own, **self.settings}

    def command(self) -> str:
        flags_ = " ".join(f"--config.{k}={v}" for k, v in self.leaves().items())
        return f"python -m amalgam_tf.bin.train --config={self.config} --workdir={self.workdir} {flags_}"

    def seconds(self, cost: dict) -> float:
        """By the measured `cost` of each net: (forward, training step) in seconds an image."""
        forward, step = cost[self.net]
        theirs = [cost[t][0] for t in self.teachers]
        in_steps = max(theirs, default=0.0) if self.bridges else 0.0
        once = (2 * self.images + TEST) * sum(theirs) + 2 * TEST * forward
        return RUN_SECONDS + self.lasts * self.images * (step + in_steps) + once


def celeba_source(group: str, name: str, seed: int) -> Planned:
    return Planned(f"configs/teachers/celeba.py:{group},{name},part", seed, SOURCE_EPOCHS, PART, SMALL)


def celeba_student(words: str, seed: int, teachers: Sequence[Net], net: Net = SMALL, bridges: bool = True) -> Planned:
    epochs = TARGET_EPOCHS if net == WIDE else COMPONENT_EPOCHS
    return Planned(f"configs/customize/celeba.py:{words},part", seed, epochs, PART, net, teachers, bridges)


def celeba_group(group: str, seed: int) -> Iterator[Planned]:
    """Source nets, component nets and the target net of a group."""
    target = methods.load_config(f"configs/customize/celeba.py:{group},part")
    components = {task: methods.load_config(target.teachers[f"C_{task}"].config) for task in target.tasks.split(",")}
    for component in components.values():
        yield from (celeba_source(group, name, seed) for name in component.teachers)
    for task, component in components.items():
        yield celeba_student(f"{group},component,{task}", seed, [SMALL] * len(component.teachers))
    yield celeba_student(group, seed, [SMALL] * len(components), WIDE)


def ablations(seed: int) -> Iterator[Planned]:
    for task, count in (("Black_Hair", 2), ("Brown_Hair", 3)):
        for word in ("kd", "no_bridge", "no_selection"):
            bridges = word == "no_selection"
            yield celeba_student(f"hair,component,{task},{word}", seed, [SMALL] * count, SMALL, bridges)


def figure_5(seed: int) -> Iterator[Planned]:
    yield from (celeba_source("Arched_Eyebrows", f"S{i}", seed) for i in range(1, 5))
    yield from (celeba_student(f"Arched_Eyebrows,n{n}", seed, [SMALL] * n) for n in range(1, 5))


def heterogeneous(seed: int) -> Iterator[Planned]:
    weights = {"model.weights": "resnet50_notop.h5"}
    yield Planned("configs/teachers/celeba.py:hair,S2,resnet50,part", seed, RESNET50_EPOCHS, PART, DEEP, settings=weights)
    yield celeba_student("hair,component,Black_Hair,heterogeneous", seed, [SMALL, DEEP])


def cifar10(seed: int) -> Iterator[Planned]:
    for name, images in (("S1", 5760), ("S2", 5040), ("S3", 5760), ("S4", 5040)):  # eight classes or seven
        yield Planned(f"configs/teachers/cifar10_part.py:{name}", seed, CIFAR10_SOURCE_EPOCHS, images, TINY)
    for half in ("X1", "X2"):
        yield Planned(f"configs/customize/cifar10_part.py:{half}", seed, CIFAR10_COMPONENT_EPOCHS, HALF, TINY, [TINY] * 2)
    yield Planned("configs/customize/cifar10_part.py:target", seed, CIFAR10_TARGET_EPOCHS, 2 * HALF, TINY_WIDE, [TINY] * 2)


def plan() -> list[Planned]:
    """Headline runs first: what does not fit is cut from the end."""
    runs = [run for s in SEEDS for run in celeba_group("hair", s)]
    runs += [run for s in SEEDS for run in cifar10(s)]
    runs += [run for s in SEEDS for run in ablations(s)]
    runs += [celeba_student("hair,image", s, [SMALL] * 4, WIDE) for s in SEEDS]
    runs += [celeba_student(f"hair,{w}", s, [SMALL] * n, WIDE) for s in SEEDS for w, n in (("two_stage", 2), ("one_shot", 4))]
    runs += [*celeba_group("mouth", 0), *figure_5(0), *heterogeneous(0)]
    return [r for r in runs if _ONLY.value in r.name]


def costs(nets: set[Net]) -> dict[Net, tuple[float, float]]:
    """Seconds an image of a forward pass and of a training step, measured now on this machine."""
    import keras
    import tensorflow as tf

    from amalgam_tf import models

    keras.config.set_dtype_policy(PRECISION)
    found = {}
    for of in nets:
        net = models.classifier(of.backbone, input_size=of.size, outputs=4, granularity="stage", width=of.width)
        x, weights = tf.zeros((BATCH, of.size, of.size, 3)), [v.value for v in net.weights()]

        def step(x, net=net, weights=weights):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(net.run(x, training=True))
            return tf.add_n([tf.reduce_sum(g) for g in tape.gradient(loss, weights)])

        found[of] = tuple(_median(tf.function(f, autograph=False), x) / BATCH for f in (net.run, step))
    return found


def _median(function, x) -> float:
    times = []
    for _ in range(6):  # the first one traces
        start = time.perf_counter()
        function(x).numpy()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def do(runs: Sequence[Planned]) -> list[str]:
    """Trains runs in this process; returns the names of those that failed."""
    import keras

    failed = []
    for r in runs:
        print(r.command(), flush=True)
        config = methods.load_config(r.config)
        config.update_from_flattened_dict(r.leaves())
        try:
            methods.run(config, r.workdir, command=r.command())
        except UserError as error:
            print(f"error: {r.name}: {error}", file=sys.stderr, flush=True)
            failed.append(r.name)
        keras.backend.clear_session()
    return failed


def main(_) -> None:
    runs = plan()
    if _DO.value:
        sys.exit(2 if do([r for r in runs if r.name in _DO.value]) else 0)
    todo = [r for r in runs if not (r.workdir / "results.json").exists()]
    batches = [list(batch) for _, batch in groupby(todo, key=lambda r: r.batch)]
    _print_plan(runs, todo, len(batches))
    if _DRY_RUN.value:
        return
    again = [sys.executable, str(Path(__file__).resolve()), f"--root={_ROOT.value}", f"--epochs={_EPOCHS.value}"]
    for batch in batches:
        subprocess.run([*again, f"--do={','.join(r.name for r in batch)}"], check=False)
    if failed := [r.name for r in todo if not (r.workdir / "results.json").exists()]:
        print(f"error: these runs failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def _print_plan(runs: Sequence[Planned], todo: Sequence[Planned], batches: int) -> None:
    cost = costs({net for r in todo for net in (r.net, *r.teachers)})
    for net, (forward, step) in cost.items():
        print(f"{net.backbone} {net.size} px, width {net.width:.2f}: forward {1e3 * forward:.2f} ms, step {1e3 * step:.2f} ms an image")
    sofar = 0.0
    for r in runs:
        if r in todo:
            sofar += r.seconds(cost) / 60
            print(f"{r.name:52s} {r.lasts:4.1f} epochs {r.seconds(cost) / 60:5.1f} min, {sofar:5.1f} so far")
        else:
            print(f"{r.name:52s} done")
    total = sofar + batches * BATCH_SECONDS / 60
    print(f"{len(todo)} of {len(runs)} runs to do, about {total:.0f} minutes on this machine as busy as it is now", flush=True)


if __name__ == "__main__":
    app.run(main)
