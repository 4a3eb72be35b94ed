"""One paper, one module; they never import each other. This file runs the method a config names.

To add a method: a module with `train(config, run) -> results` (a straight script over `run.phase` and `run.decide`),
`check_choices(config)` (every word of the config that can be wrong, before anything is read or trained), `plan(config, pool)` (what it is
going to do) and, if what it makes can teach, `untrained(config, pool)` (its frame, for plans); a config below `configs/`, one row in
tests/conformance/test_configs.py.
"""

from dataclasses import replace
import functools
import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from amalgam_tf.errors import UserError, one_of

METHODS = ("teacher", "distill", "afk", "customize", "dual_gan", "dafl", "dense_teacher", "soka")


def load_config(spec: str) -> Any:
    """`configs/file.py` or `configs/file.py:argument` -> its ConfigDict.

    Raises:
        UserError: no such file.
    """
    path, _, argument = spec.partition(":")
    if not Path(path).is_file():
        raise UserError(f"the config file {path} does not exist (run from the project's folder, or give a full path)")
    module = _config_module(path, os.stat(path).st_mtime_ns)
    return module.get_config(argument) if argument else module.get_config()


@functools.lru_cache(maxsize=64)
def _config_module(path: str, _changed: int) -> ModuleType:
    """Compiled once: a plan asks one file for hundreds of configs."""
    module_spec = importlib.util.spec_from_file_location("amalgam_config", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def run(config: Any, workdir: Path, strategy: str = "one", command: str = "", jit_compile: bool = False) -> dict[str, Any]:
    """Trains what a config describes into a workdir (missing teachers first, each into its own) and returns the results.

    Args:
        config: a ConfigDict of `configs/`.
        workdir: folder of the run.
        strategy: see `training.strategies`.
        command: the command line to note in the results.
        jit_compile: compile the training steps with XLA (for a GPU).

    Raises:
        UserError: whatever the user can mend; under several workers also the end of another one.
    """
    from amalgam_tf.training import strategies

    one_of("method", config.method, METHODS)
    importlib.import_module(f"amalgam_tf.methods.{config.method}").check_choices(config)  # before hours of training teachers
    if strategy != "multi_worker" and not (Path(workdir) / "config.json").exists():
        show_plan(config, workdir, short_too=False)
    with strategies.together(strategies.by_name(strategy)):
        train_missing_teachers(config, Path(workdir), strategy, jit_compile)
        return _run_one(config, Path(workdir), strategy, command, jit_compile)


def train_missing_teachers(config: Any, workdir: Path, strategy: str, jit_compile: bool = False) -> None:
    """Trains every teacher that a request needs and that has no card yet, by the config its entry names; that one's own teachers first.

    Raises:
        UserError: a teacher is missing and `train_missing_teachers` is off, or its entry names no config.
    """
    from amalgam_tf.cards import find_card
    from amalgam_tf.tasks import entries, resolved
    from amalgam_tf.training import strategies

    workers = strategies.Workers(strategies.by_name(strategy))
    for name, entry in entries(config).items():
        folder = resolved(entry.path, workdir)
        if workers.from_chief(lambda folder=folder: bool(find_card(folder))):
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
        teacher = teacher_config(config, entry)
        train_missing_teachers(teacher, folder, strategy, jit_compile)
        _run_one(teacher, folder, strategy, command, jit_compile)


def teacher_config(config: Any, entry: Any) -> Any:
    """What trains a missing teacher: its config with the seed, the precision and the data of the run that needs it.

    The leaves of the data section that the entry names under `data` are the teacher's own.
    """
    teacher = load_config(entry.config)
    teacher.seed, teacher.precision = config.seed, config.precision
    teacher.data = config.data.copy_and_resolve_references()
    teacher.data.update(entry.get("data", {}))
    if teacher.method == "teacher" and config.student.weights not in ("none", "teacher"):
        teacher.model.weights = config.student.weights  # teachers and student start alike (A20)
    return teacher


def plan(config: Any, workdir: Path, frames: dict[Path, Any] | None = None) -> dict[Path, Any]:
    """What `run` is going to do, teachers that are missing first: workdir -> `planning.Plan`. Trains nothing, and writes caches only.

    Args:
        config: as in `run`.
        workdir: as in `run`.
        frames: workdir -> the teacher that a run is going to be, untrained: those that are here need no plan; grows.

    Raises:
        UserError: as `run`, as far as it can be told before training.
    """
    plans: dict[Path, Any] = {}
    _plan_into(plans, {} if frames is None else frames, config, Path(workdir))
    return plans


def _plan_into(plans: dict[Path, Any], frames: dict[Path, Any], config: Any, workdir: Path) -> None:
    """Adds the plans of a run and of what it needs, and the teachers that these are going to be."""
    import keras

    from amalgam_tf.cards import find_card
    from amalgam_tf.tasks import entries, resolved
    from amalgam_tf.teachers import Teacher

    one_of("method", config.method, METHODS)
    method = importlib.import_module(f"amalgam_tf.methods.{config.method}")
    method.check_choices(config)
    keras.config.set_dtype_policy(config.precision)
    pool = {}
    for name, entry in entries(config).items():
        folder = resolved(entry.path, workdir)
        if find_card(folder):
            pool[name] = Teacher.load(folder, name)
            continue
        if folder not in frames:
            if not entry.get("config", ""):
                raise UserError(f"teacher {name} is missing: {folder} holds no card.json; correct the path")
            _plan_into(plans, frames, teacher_config(config, entry), folder)
        pool[name] = replace(frames[folder], name=name)
    plans[workdir] = method.plan(config, pool)
    if hasattr(method, "untrained"):
        frames[workdir] = method.untrained(config, pool)


def show_plan(config: Any, workdir: Path, short_too: bool = True) -> None:
    """Prints the plan with estimated times; `short_too=False`: only that of a long run."""
    from amalgam_tf import planning

    plans = plan(config, workdir)
    if not short_too and sum(p.work for p in plans.values()) < planning.LONG:
        return
    for folder, p in plans.items():
        print(p.text(str(folder), planning.seconds_per_multiply_add(p.net)), flush=True)


def _run_one(config: Any, workdir: Path, strategy: str, command: str, jit_compile: bool) -> dict[str, Any]:
    import keras

    from amalgam_tf import published, report
    from amalgam_tf.training import strategies, surroundings
    from amalgam_tf.training.loop import Run
    from amalgam_tf.training.workdir import fingerprint

    if config.published_row:
        published.rows(config.published_row)  # a misspelt row must not cost a finished run
    keras.config.set_dtype_policy(config.precision)
    method = importlib.import_module(f"amalgam_tf.methods.{config.method}")
    plain, commit = config.to_dict(), surroundings.commit()  # of the code that runs: a long run may outlive the checkout
    with strategies.by_name(strategy).scope(), Run(workdir, plain, jit_compile) as run:
        run.say(f"{config.method} -> {workdir}")
        results = method.train(config, run)
        record = {
            "seed": config.seed,
            "published_row": config.published_row,
            "config": fingerprint(plain),
            "command": command or config.command,
            "precision": config.precision,
            # Decided, so that the same command after the end does not tell of another machine or commit than that which did the work.
            **run.decide("made_with", lambda: {"commit": commit, **surroundings.record(run.workers.count)}),
            "seconds": round(run.decide("seconds", run.seconds), 1),  # all of it: caches, tests and figures too
            "phase_seconds": {k: round(v, 1) for k, v in run.progress.phase_seconds.items()},  # of which training (adopted phases too)
        }
        run.finish({**record, **results})
        run.write(lambda: report.write(run.workdir))
        run.write(lambda: run.say(report.summary(run.workdir)))
    return results
