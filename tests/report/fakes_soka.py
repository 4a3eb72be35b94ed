"""Runs of SOKA whose numbers can be followed: every network is the truth plus a multiple of some noise, measured by the metrics room."""

from pathlib import Path

import numpy as np

from amalgam_tf.metrics import dense as metrics
from amalgam_tf.report import runs, soka
from tests.report import fakes

KINDS = {"depth_zbuffer": "depth", "edge_texture": "map", "edge_occlusion": "map", "keypoints2d": "map", "normal": "normal"}
PAIR = ("depth_zbuffer", "edge_texture")
JOINT = {"schedule": "joint", "weights": "equal", "auxiliary": "none"}
SETTINGS = {  # of configs/common_dense.py: what a run of each variant says of itself
    "ours": {},
    "no_auxiliary": {"auxiliary": "none"},
    "strong": {"auxiliary": "strongest"},
    "weak": {"auxiliary": "weakest"},
    "kd": {**JOINT, "mia": ""},
    "kd_mia": {"schedule": "joint", "weights": "equal"},
    "equal": {"weights": "equal"},
    "weighted": {"weighted_collaboration": True},
    "fast_weights": {},
    "printed_mia": {"mia": "channel"},
    "dmtl": {**JOINT, "mia": "", "supervised": True},
    "gradnorm": {**JOINT, "mia": "", "supervised": True, "weights": "gradnorm"},
}
POOL = {"keypoints2d": 0.9, "normal": 0.1}  # the other teachers, and how alike they are to the wanted ones


def truth_of(task: str, n: int) -> np.ndarray:
    draw = np.random.default_rng(sum(map(ord, task)))
    if KINDS[task] == "normal":
        return draw.normal(size=(n, 4, 4, 3)) + [0, 0, 2]
    return 3 + draw.random((n, 4, 4, 1)) if KINDS[task] == "depth" else draw.random((n, 4, 4, 1))


def sums_of(task: str, n: int, size: float, noise: int = 0) -> dict[str, np.ndarray]:
    """Sums of a network that is off by `size` times a noise; networks of one noise are off in the same direction everywhere."""
    true = truth_of(task, n)
    off = np.random.default_rng(1000 + noise).uniform(-1, 1, true.shape)
    mask = np.ones(true.shape[:3])
    mask[:, 0, 0] = 0
    return metrics.sums(kind=KINDS[task], prediction=true + size * off, truth=true, mask=mask)


def run(student, *, taught=0.1, tasks=PAIR, variant="ours", seed=0, auxiliary=None, n=40, noise=0, data="scenes_dense/test", **more):
    """Results and scores of a run.

    Args:
        student: task -> how far it is off, or one number for all.
        taught: how far its teachers are off.
        tasks, variant, seed: of the run.
        auxiliary: its teacher; by default the one of the pool that fits the variant.
        n: number of test images.
        noise: of the student; the teachers' is 0.
        data: name of the test part.
        more: of `fakes.common`.
    """
    settings = {"supervised": False, "schedule": "acct", "weights": "gradnorm", "mia": "channel,softmax_w", "auxiliary": "auto"}
    settings |= {"weighted_collaboration": False, **SETTINGS[variant]}
    argument = ",".join(["depth-edge2d", *[variant] * (variant != "ours"), "scenes"])
    results = fakes.common("soka", seed=seed, data=data, images=n, **more)
    results["command"] = f"python -m amalgam_tf.bin.train --config=configs/soka/taskonomy.py:{argument} --config.seed={seed}"
    if auxiliary is None:
        auxiliary = "" if settings["auxiliary"] == "none" else "normal" if settings["auxiliary"] == "weakest" else "keypoints2d"
    names = [*tasks, *(t for t in POOL if t not in tasks)]
    alike = {
        a: {b: 1.0 if a == b else min(POOL.get(a, 1), POOL.get(b, 1), 0.5 if a in PAIR and b in PAIR else 1) for b in names} for a in names
    }
    results |= {"variant": settings, "tasks": list(tasks), "teachers": {f"T_{t}": [t] for t in tasks}, "auxiliary": auxiliary}
    results |= {"similarities": {_named(a, tasks): {_named(b, tasks): v for b, v in row.items()} for a, row in alike.items()}}
    results |= {"task_weights": {t: 1 / len(tasks) for t in tasks}, "mia_parameters": 2064, "phase_seconds": {"cycle": 60.0}}
    results |= {"held_out": dict.fromkeys(tasks, 0.01), "best": {"value": 0.02, "step": 800, "steps": 900}}
    if settings["auxiliary"] == "none":
        results["similarities"] = {}
    found = {"student": {t: sums_of(t, n, student if isinstance(student, float) else student[t], noise) for t in tasks}}
    found |= {f"T_{t}": {t: sums_of(t, n, taught)} for t in tasks}
    found |= {who: {t: sums_of(t, n, size) for t in tasks} for who, size in (("constant", 0.8), ("mean_map", 0.7))}
    results["test"] |= {who: {"per_task": {t: metrics.report(KINDS[t], s) for t, s in of.items()}} for who, of in found.items()}
    sizes = {"student": 5.6e5, **dict.fromkeys(results["teachers"], 4e5)}
    results["sizes"] = {k: {"parameters": int(v), "flops": int(10 * v), "latency_ms": 1.0} for k, v in sizes.items()}
    arrays = {f"{who}/{t}/{k}": v for who, of in found.items() for t, s in of.items() for k, v in s.items()}
    return results, {"ids": np.array([f"image{i:03d}" for i in range(n)]), **arrays}


def _named(task: str, wanted) -> str:
    return f"T_{task}" if task in wanted else task


def save(folder: Path, made, order: np.ndarray | None = None) -> Path:
    """A workdir; `order` puts the images of its scores into another order."""
    results, arrays = made
    fakes.save(folder, results)
    order = np.arange(len(arrays["ids"])) if order is None else order
    np.savez(folder / "scores.npz", **{k: v[order] for k, v in arrays.items()})
    return folder


def finished(made, name: str = "runs/x") -> runs.FinishedRun:
    return runs.FinishedRun(name, made[0])


def paired(*made) -> soka.Pair:
    """The pair of runs of equal tasks."""
    (pair,), _ = soka.pairs([finished(m, f"runs/{i}") for i, m in enumerate(made)])
    return pair


def mean_of(size: float, task: str, column: str, count: str = "values") -> float:
    """Mean over all pixels of what one column adds up, for a network of noise 0; of rmse the square."""
    of = sums_of(task, 40, size)
    return of[column].sum() / of[count].sum()
