"""Hand-made results of runs, with numbers that are easy to follow, and whole workdirs with scores."""

import json
from pathlib import Path

import numpy as np

from amalgam_tf.metrics import categorical, multilabel

TASKS = {"teacher1": ["cat", "dog"], "teacher2": ["bus"]}
BLOCKS = ("b1", "b2", "b3", "b4")
SIZES = {"student": 30e6, "teacher1": 20e6, "teacher2": 21e6}


def metrics(value: float, *, tasks=("cat", "dog", "bus"), step: float = 0.0, no: float = 0.9) -> dict:
    """Per-task and mean metrics: accuracy `value`, `value + step`, ...; ap_all 0.1 below, ap_11pt 0.2 below."""
    each = {t: value + i * step for i, t in enumerate(tasks)}
    per_task = {
        t: {
            "ap_11pt": v - 0.2,
            "ap_all": v - 0.1,
            "ap_sklearn": v - 0.15,
            "accuracy": v,
            "all_negative_accuracy": no,
            "prevalence": 1 - no,
            "positives": 10,
            "n": 100,
        }
        for t, v in each.items()
    }
    keys = ("ap_11pt", "ap_all", "ap_sklearn", "accuracy", "all_negative_accuracy", "prevalence")
    return {"per_task": per_task, "mean": {k: float(np.mean([v[k] for v in per_task.values()])) for k in keys}}


def common(method: str, *, seed: int = 0, row: str = "", data: str = "voc2012/val", images: int = 100, **more) -> dict:
    """What every results file has."""
    return {
        "format": 1,
        "seed": seed,
        "published_row": row,
        "config": "0" * 16,
        "command": f"python -m amalgam_tf.bin.train --config=configs/x.py --workdir=runs/{seed} --config.seed={seed}",
        "commit": "abc1234",
        "precision": "float32",
        "hardware": "2 x CPU",
        "seconds": 600.0 + 60 * seed,
        "method": method,
        "test": {"data": data, "images": images},
        **more,
    }


def student(
    value: float, *, seed: int = 0, method: str = "afk", rule: dict | None = None, teachers=None, taught: float = 0.9, **more
) -> dict:
    """A student of accuracy `value` on every task, 0.01 less before fine-tuning; its teachers have `taught`."""
    teachers = teachers or TASKS
    tasks = [t for own in teachers.values() for t in own]
    results = common(method, seed=seed, **more)
    results |= {"tasks": tasks, "teachers": teachers}
    results["test"] |= {"student": metrics(value, tasks=tasks), **{n: metrics(taught, tasks=own) for n, own in teachers.items()}}
    sizes = {n: SIZES.get(n, 20e6) for n in ("student", *teachers)}
    results["sizes"] = {n: {"parameters": int(p), "flops": int(100 * p), "latency_ms": p / 1e6} for n, p in sizes.items()}
    streams = [f"{t}@{n}" for n, own in teachers.items() for t in own]
    results["held_out"] = {"after": {s: {"loss": 0.5, "divergence": 0.01 + 0.001 * seed} for s in streams}}
    if method == "afk":
        results["rule"] = rule or {"name": "argmin"}
        results["branches"] = dict.fromkeys(streams, "b2")
        results["branch_split"] = "held_out"
        results["block_losses"] = {
            b: {s: {"loss": 0.5, "divergence": 0.01 * (k + 1) + 0.002 * i + 0.003 * seed} for i, s in enumerate(streams)}
            for k, b in enumerate(BLOCKS)
        }
        results["held_out"]["before"] = results["block_losses"]["b2"]
        results["test"]["student_before_finetune"] = metrics(value - 0.01, tasks=tasks)
        results["curve"] = {
            b: {
                "parameters": int(60e6 - 10e6 * k),
                "flops": int(6e9 - 1e9 * k),
                "test": metrics(0.8 - 0.01 * k + 0.001 * seed, tasks=tasks),
            }
            for k, b in enumerate(BLOCKS)
        }
    return results


def teacher(value: float, tasks, *, seed: int = 0, **more) -> dict:
    results = common("teacher", seed=seed, **more)
    results |= {"tasks": list(tasks), "sizes": {"teacher": {"parameters": 20_000_000, "flops": 2_000_000_000}}}
    results["test"] |= {"teacher": metrics(value, tasks=tasks)}
    return results


def save(folder: Path, results: dict) -> Path:
    """A workdir with results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def truth_of(tasks, n: int, seed: int = 7) -> dict[str, np.ndarray]:
    """About a third positives; a tenth unknown for the first task."""
    draw = np.random.default_rng(seed)
    truth = {t: (draw.random(n) < 0.3).astype(np.int8) for t in tasks}
    truth[next(iter(tasks))][draw.random(n) < 0.1] = multilabel.IGNORE
    return truth


def scores_of(truth: dict, strength: float, seed: int) -> dict[str, np.ndarray]:
    """Probabilities that follow the truth by `strength`."""
    draw = np.random.default_rng(seed)
    return {t: (1 / (1 + np.exp(-(draw.normal(size=len(v)) + strength * (v == 1) - 1)))).astype(np.float32) for t, v in truth.items()}


def save_scores(folder: Path, truth: dict, networks: dict[str, dict[str, np.ndarray]], order: np.ndarray | None = None) -> None:
    """scores.npz as `evaluate.write_scores` writes it; `order` puts the images into another order."""
    order = np.arange(len(next(iter(truth.values())))) if order is None else order
    ids = np.array([f"image{i:04d}" for i in range(len(order))])
    arrays = {"ids": ids[order], **{f"truth/{t}": v[order] for t, v in truth.items()}}
    arrays |= {f"{who}/{t}": v[order] for who, of in networks.items() for t, v in of.items()}
    np.savez_compressed(folder / "scores.npz", **arrays)


def experiment(folder: Path, seeds=(0, 1, 2), n: int = 60, **more) -> list[Path]:
    """Workdirs of three rules and a baseline over seeds, with scores; the curve and the blocks are shared by the rules of a seed."""
    found = []
    truth = truth_of([t for own in TASKS.values() for t in own], n)
    for seed in seeds:
        taught = scores_of(truth, 2.0, 100 + seed)
        teachers = {name: {t: taught[t] for t in own} for name, own in TASKS.items()}
        rules = {"argmin": {}, "tolerance": {"tolerance": 0.01}, "budget": {"max_parameters": 30e6}}
        for i, (name, options) in enumerate(rules.items()):
            results = student(0.90 + 0.01 * i + 0.004 * seed, seed=seed, rule={"name": name, **options}, images=n, **more)
            results["sizes"]["student"]["parameters"] = int(45e6 - 9e6 * i)
            results["held_out"]["after"] = {s: {"loss": 0.5, "divergence": 0.006 + 0.004 * i + 0.001 * seed} for s in results["branches"]}
            found.append(save(folder / f"{name}_{seed}", results))
            save_scores(found[-1], truth, {"student": scores_of(truth, 2.2 - 0.2 * i, seed * 10 + i), **teachers})
        results = student(0.88 + 0.002 * seed, seed=seed, method="distill", images=n, **more)
        found.append(save(folder / f"distill_{seed}", results))
        save_scores(found[-1], truth, {"student": scores_of(truth, 1.2, seed * 10 + 9), **teachers})
        for k, (name, own) in enumerate(TASKS.items()):
            found.append(save(folder / f"{name}_{seed}", teacher(0.9, own, seed=seed, images=n) | {"seconds": 100.0 * (k + 1)}))
    return found


# -- Customize --------------------------------------------------------------------------------------------------------
HAIR = {"Black_Hair": ("S1", "S2"), "Blond_Hair": ("S3", "S4"), "Brown_Hair": ("S5", "S6", "S7"), "Bangs": ("S8", "S9")}
WORDS = {"KD": ("all", False), "without transfer bridge": ("task", False), "without teacher selection": ("all", True)}  # table 8


def on_task(accuracy: float, *, balanced: float | None = None, majority: float = 0.75, n: int = 100) -> dict:
    """What a network measured on one task; balanced accuracy 0.1 below accuracy."""
    return {"accuracy": accuracy, "balanced_accuracy": accuracy - 0.1 if balanced is None else balanced, "majority_rate": majority, "n": n}


def customize(value: float, tasks, *, taught=None, stage="component", select="task", argument="", data="celeba/test", **more) -> dict:
    """A student of Customize with accuracy `value` on every task; the i-th teacher of a task has 0.02 i more than 0.80.

    Args:
        value: its accuracy.
        tasks: what it knows.
        taught: teacher -> tasks; by default the source nets of `HAIR`, of a target net one component net a task.
        stage, select: as in results.json.
        argument: of the config that made it.
        data: name of the test part.
        more: of `common`.
    """
    results = common("customize", data=data, **more)
    results["command"] = f"python -m amalgam_tf.bin.train --config=configs/customize/celeba.py:{argument} --workdir=runs/x"
    if taught is None:
        taught = {s: [t] for t in tasks for s in HAIR[t]} if stage == "component" else {f"C_{t}": [t] for t in tasks}
    results |= {"stage": stage, "select": select, "tasks": list(tasks), "teachers": {k: list(v) for k, v in taught.items()}}
    n = results["test"]["images"]
    known = {t: [name for name, own in taught.items() if t in own] for t in tasks}
    results["test"]["student"] = {"per_task": {t: on_task(value, n=n) for t in tasks}}
    for name, own in taught.items():
        results["test"][name] = {"per_task": {t: on_task(0.80 + 0.02 * known[t].index(name), n=n) for t in own}}
    sizes = {"student": 22e6 if stage == "target" else 11e6, **dict.fromkeys(taught, 11e6)}
    results["sizes"] = {k: {"parameters": int(v), "flops": int(300 * v), "latency_ms": v / 1e6} for k, v in sizes.items()}
    return results


def customize_scores(folder: Path, results: dict, truth: dict[str, np.ndarray], seed: int) -> Path:
    """Saves a run whose results are measured from drawn scores: every network is right on about its accuracy's share of the images."""
    draw, scores = np.random.default_rng(seed), {}
    for who in ("student", *results["teachers"]):
        per_task = results["test"][who]["per_task"]
        scores[who] = {}
        for task, row in per_task.items():
            right = draw.random(len(truth[task])) < row["accuracy"]
            if truth[task].max() <= 1:
                scores[who][task] = np.where(right == (truth[task] == 1), 0.9, 0.1).astype(np.float32)
                module = multilabel
            else:
                chosen = np.where(right, np.maximum(truth[task], 0), (truth[task] + 1) % 3)
                scores[who][task] = np.eye(3, dtype=np.float32)[chosen]
                module = categorical
            measured = {k: getattr(module, k)(truth=truth[task], scores=scores[who][task]) for k in ("accuracy", "balanced_accuracy")}
            per_task[task] = {**measured, "majority_rate": module.majority_rate(truth=truth[task]), "n": int((truth[task] >= 0).sum())}
    save(folder, results)
    save_scores(folder, {t: truth[t] for t in results["tasks"]}, scores, draw.permutation(len(next(iter(truth.values())))))
    return folder
