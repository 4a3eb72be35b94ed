"""Workdirs of Dual-GAN's runs and of what stands beside them, with numbers that are easy to follow."""

from pathlib import Path

import numpy as np

from amalgam_tf import generation
from tests.report import fakes

POOL = {"whole": ["ball", "cube", "cone"]}
TASKS = POOL["whole"]
READERS = {"ka": "", "similar": "scenes_unseen", "different": "folder", "noise": "noise"}
DATA = {"reader": "scenes", "test": "test", "test_count": 16, "train_count": 16, "render_size": 16, "train_reader": ""}
GEN = {"steps": 1500, "batch_size": 64, "dis": "plus_prob", "bn_stat": 0.0}


def results(value: float, row: str = "ours", *, seed: int = 0, taught: float = 0.9, tasks=tuple(TASKS), **more) -> dict:
    """Accuracy `value` on every task, so mAP 0.1 less; balanced accuracy 0.2 less; its teacher has `taught`."""
    method = "afk" if row in READERS else row.partition(",")[0] if row.startswith(("dafl", "distill")) else "dual_gan"
    made = fakes.student(value, seed=seed, method=method, taught=taught, teachers={"whole": list(tasks)}, data="scenes/test", **more)
    for who in ("student", "whole"):
        for measured in made["test"][who]["per_task"].values():
            measured["balanced_accuracy"] = measured["accuracy"] - 0.2
    made["command"] = f"python -m amalgam_tf.bin.train --config=configs/dual_gan/part.py:scenes,{row} --workdir=x --config.seed={seed}"
    made["phase_seconds"] = {"all": 60.0 * (1 + seed)}
    if method == "afk":
        made["unlabelled"] = {"train": {"data": "some/train", "images": 80}}
    if method in ("dual_gan", "dafl"):
        made["labels"] = {f"{t}@whole": 0.1 * (i + 1) for i, t in enumerate(tasks)}
        made["positives"] = sum(made["labels"].values())
        made["agreement"] = {"images": 64, "per_stream": {}, "mean": 0.95}
    if method == "dual_gan":
        made["block_losses"] = {b: {s: {"loss": 0.5, "divergence": 0.1} for s in made["labels"]} for b in ("b1", "b2", "b3")}
        made["branches"] = dict.fromkeys(made["labels"], "b2")
    return made


def config(row: str = "ours", **gen) -> dict:
    """What the results' config.json holds, as far as anything reads it; `gen`: leaves of that section."""
    if row in READERS:
        return {"data": {**DATA, "train_reader": READERS[row]}, "block": {"epochs": 4.0}, "finetune": {"epochs": 3.0}}
    own = {"data": DATA, "gen": {**GEN, **gen}}
    small = {"steps": 600, "batch_size": 32}
    return own if row.startswith("dafl") else {**own, "block": small, "finetune": {**small, "steps": 100}}


def save(folder: Path, made: dict, settings: dict | None = None, truth: dict | None = None, strength: float = 1.0) -> Path:
    """A workdir; with scores that its metrics are measured from if a truth is given, and generated images where the method has any."""
    if truth is not None:
        own = fakes.scores_of(truth, strength, 10 * made["seed"] + int(10 * strength))
        taught = fakes.scores_of(truth, 3.0, 99)
        for who, scores in (("student", own), ("whole", taught)):
            made["test"][who]["per_task"] = {k: v for k, v in fakes.multilabel.report(truth=truth, scores=scores).items() if k != "mean"}
    fakes.save(folder, made)
    if truth is not None:
        order = np.random.default_rng(made["seed"]).permutation(len(next(iter(truth.values()))))
        fakes.save_scores(folder, truth, {"student": own, "whole": taught}, order)
    if settings is not None:
        (folder / "config.json").write_text(fakes.json.dumps(settings))
    if "labels" in made:
        shade = 40.0 if made["method"] == "dafl" else 200.0
        generation.write_grid(folder / "figures" / "generated.png", np.full((64, 16, 16, 3), shade, np.float32))
    return folder


def experiment(folder: Path, seeds=(0, 1, 2), rows=None, n: int = 300) -> Path:
    """Workdirs as the tool lays them out: teacher once, rows below seed0, seed1, ...; every row weaker than the one before."""
    truth = fakes.truth_of(TASKS, n)
    names = rows or ("ka", "ours", "similar", "dafl", "different", "noise", "lambda10", "off")
    taught = fakes.teacher(0.9, [*TASKS, "torus"], data="scenes/test", images=n) | {"phase_seconds": {"train": 120.0}}
    taught["train"] = {"data": "scenes/train", "images": 3600}
    save(folder / "whole", taught, {"epochs": 12, "data": DATA})
    for seed in seeds:
        for i, row in enumerate(names):
            strength = 2.9 - 0.4 * i
            changed = {"dis": "off"} if row == "off" else {}
            save(folder / f"seed{seed}" / row, results(0.9, row, seed=seed, images=n), config(row, **changed), truth, strength)
    return folder
