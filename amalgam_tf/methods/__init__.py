"""One paper, one module; they never import each other. This file runs the method a config names.

To add a method: a module with `train(config, run) -> results` (a straight script over `run.phase` and `run.decide`) and
`check_choices(config)` (every word of the config that can be wrong, before anything is read or trained), a config below
`configs/`, one row in tests/conformance/test_configs.py.
"""

import importlib
import importlib.util
import os
from pathlib import Path
import platform
import subprocess
from typing import Any

from amalgam_tf.errors import UserError, one_of

METHODS = ("teacher", "distill", "afk")


def load_config(spec: str) -> Any:
    """`configs/file.py` or `configs/file.py:argument` -> its ConfigDict.

    Raises:
        UserError: no such file.
    """
    path, _, argument = spec.partition(":")
    if not Path(path).is_file():
        raise UserError(f"the config file {path} does not exist (run from the project's folder, or give a full path)")
    module_spec = importlib.util.spec_from_file_location("amalgam_config", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()


def run(config: Any, workdir: Path, strategy: str = "one", command: str = "") -> dict[str, Any]:
    """Trains what a config describes into a workdir (missing teachers first, each into its own) and returns the results.

    Args:
        config: a ConfigDict of `configs/`.
        workdir: folder of the run.
        strategy: see `training.strategies`.
        command: the command line to note in the results.
    """
    one_of("method", config.method, METHODS)
    importlib.import_module(f"amalgam_tf.methods.{config.method}").check_choices(config)  # before hours of training teachers
    train_missing_teachers(config, Path(workdir), strategy)
    return _run_one(config, Path(workdir), strategy, command)


def train_missing_teachers(config: Any, workdir: Path, strategy: str) -> None:
    """Trains every teacher of a pool that has no card yet, by the config its entry names.

    Raises:
        UserError: a teacher is missing and `train_missing_teachers` is off, or its entry names no config.
    """
    from amalgam_tf.teachers import find_card, resolved

    for name, entry in config.get("teachers", {}).items():
        folder = resolved(entry.path, workdir)
        if find_card(folder):
            continue
        source = entry.get("config", "")
        command = f"python -m amalgam_tf.bin.train --config={source} --workdir={folder}"
        if not source or not config.train_missing_teachers:
            mend = (
                f"train it with `{command}` (and the same data), or set --config.train_missing_teachers=True"
                if source
                else "correct the path"
            )
            raise UserError(f"teacher {name} is missing: {folder} holds no card.json; {mend}")
        teacher = load_config(source)
        teacher.seed, teacher.data, teacher.precision = config.seed, config.data, config.precision
        if config.student.weights not in ("none", "teacher"):
            teacher.model.weights = config.student.weights  # teachers and student start alike (A20)
        _run_one(teacher, folder, strategy, command)


def _run_one(config: Any, workdir: Path, strategy: str, command: str) -> dict[str, Any]:
    import keras

    from amalgam_tf import published, report
    from amalgam_tf.training import strategies
    from amalgam_tf.training.loop import Run, fingerprint

    if config.published_row:
        published.row(config.published_row)  # a misspelt row must not cost a finished run
    keras.config.set_dtype_policy(config.precision)
    method = importlib.import_module(f"amalgam_tf.methods.{config.method}")
    plain, commit = config.to_dict(), _commit()  # of the code that runs: a long run may outlive the checkout
    with strategies.by_name(strategy).scope(), Run(workdir, plain) as run:
        run.say(f"{config.method} -> {workdir}")
        results = method.train(config, run)
        record = {
            "seed": config.seed,
            "published_row": config.published_row,
            "config": fingerprint(plain),
            "command": command or config.command,
            "commit": commit,
            "precision": config.precision,
            "hardware": _hardware(),
            "seconds": round(run.decide("seconds", run.seconds), 1),  # all of it: caches, tests and figures too
            "phase_seconds": {k: round(v, 1) for k, v in run.progress.phase_seconds.items()},  # of which training (adopted phases too)
        }
        run.finish({**record, **results})
        report.write(run.workdir)
        run.say(report.summary(run.workdir))
    return results


def _hardware() -> str:
    import tensorflow as tf

    gpus = [tf.config.experimental.get_device_details(d).get("device_name", "GPU") for d in tf.config.list_physical_devices("GPU")]
    return ", ".join(gpus) or f"{os.cpu_count()} x {platform.machine()} CPU"


def _commit() -> str:
    try:
        where = Path(__file__).parent
        return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=where, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
