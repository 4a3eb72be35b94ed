"""A list of runs, carried out one after the other: the plan with estimated times first, finished runs skipped, cut ones gone on with.

Each run is a config with changed leaves, in a workdir and a process of its own, so that a crash costs one run. Whatever ends this process,
the same list goes on where it was: what is done stands in the workdirs alone.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
from dataclasses import dataclass
import fcntl
import functools
import json
import math
import os
from pathlib import Path
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

from amalgam_tf import methods
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import entries, resolved

RESULTS = "results.json"
START_SECONDS = 12  # of a process: imports, reading data, figures
# Of a smoke run, where tracing is all there is and counting multiply-adds says nothing; seconds of one core, measured.
SMOKE_SECONDS = {"teacher": 9, "dense_teacher": 20, "distill": 12, "afk": 19, "customize": 12, "dual_gan": 17, "dafl": 12, "soka": 65}


Leaves = tuple[tuple[str, Any], ...]  # dotted name, value


@dataclass(frozen=True)
class Planned:
    """One run.

    Attributes:
        workdir: where.
        config: its file and argument.
        leaves: what it changes; also taken as a mapping.
    """

    workdir: Path
    config: str
    leaves: Leaves = ()

    def __post_init__(self):
        object.__setattr__(self, "leaves", tuple(dict(self.leaves).items()))

    @property
    def done(self) -> bool:
        """Whether there are results, or a teacher that was brought here from elsewhere."""
        return (self.workdir / RESULTS).exists() or ((self.workdir / "card.json").exists() and not (self.workdir / "config.json").exists())

    @property
    def smoke(self) -> bool:
        return "smoke" in self.config.partition(":")[2].split(",")

    @property
    def needs(self) -> tuple[Path, ...]:
        """Workdirs of the runs it stands on: its teachers', and those whose blocks or generator it takes over."""
        config = self.loaded()
        paths = [entry.path for entry in entries(config).values()]
        taken = (config.get(section, {}).get(key, "") for section, key in (("branch", "blocks_from"), ("generated", "generator_from")))
        return tuple(dict.fromkeys(resolved(path, self.workdir) for path in (*paths, *taken) if path))

    def command(self) -> list[str]:
        changed = [f"--config.{k}={v}" for k, v in self.leaves]
        return ["python", "-m", "amalgam_tf.bin.train", f"--config={self.config}", f"--workdir={self.workdir}", *changed]

    def loaded(self) -> Any:
        """Its config, leaves changed; not to be written to."""
        return _loaded(self.config, self.leaves)


@functools.lru_cache(maxsize=4096)
def _loaded(spec: str, leaves: Leaves) -> Any:
    config = methods.load_config(spec)
    config.update_from_flattened_dict(dict(leaves))
    return config


# -- before -----------------------------------------------------------------------------------------------------------
def in_order(runs: Sequence[Planned]) -> list[Planned]:
    """The same runs, each once and after those it needs; otherwise in the order given.

    Raises:
        ValueError: one workdir for two different runs, or runs that need each other.
    """
    by_workdir: dict[Path, Planned] = {}
    for run in runs:
        first = by_workdir.setdefault(run.workdir, run)
        if first != run and first.loaded().to_dict() != run.loaded().to_dict():
            raise ValueError(f"{run.workdir} is planned twice, differently: {first} and {run}")
    ordered: dict[Path, Planned] = {}

    def add(run: Planned, behind: tuple[Path, ...]) -> None:
        if run.workdir in behind:
            raise ValueError(f"{run.workdir} needs itself, by {', '.join(map(str, behind))}")
        for needed in run.needs:
            if needed in by_workdir and needed not in ordered:
                add(by_workdir[needed], (*behind, run.workdir))
        ordered.setdefault(run.workdir, run)

    for run in by_workdir.values():
        add(run, ())
    return list(ordered.values())


def minutes(runs: Sequence[Planned]) -> dict[Path, float]:
    """Workdir -> estimated minutes, by each method's own plan and the speed of its network on this machine now.

    Runs that differ in their seed only are planned once.

    Args:
        runs: each after those it needs.

    Raises:
        UserError: what a method finds wrong before it trains, a missing data folder for one.
    """
    found: dict[Path, float] = {}
    alike: dict[str, Path] = {}
    frames: dict[Path, Any] = {}  # teachers as they are going to be, for the plans of those that need them
    speeds: dict[tuple, float] = {}
    for run in runs:
        config = run.loaded()
        if run.smoke:
            found[run.workdir] = SMOKE_SECONDS[config.method] / 60
            continue
        same = alike.setdefault(json.dumps({**config.to_dict(), "seed": 0}, sort_keys=True), run.workdir)
        if same == run.workdir:
            found[run.workdir] = _minutes(run, frames, speeds)
        else:
            found[run.workdir] = found[same]
            frames |= {run.workdir: frames[same]} if same in frames else {}
    return found


def _minutes(run: Planned, frames: dict[Path, Any], speeds: dict[tuple, float]) -> float:
    from amalgam_tf import planning  # with TensorFlow, which a plan of smoke runs can do without

    plan = methods.plan(run.loaded(), run.workdir, frames)[run.workdir]
    key = (plan.net.parameters(), plan.net.block(0).inputs[0].shape)
    if key not in speeds:
        speeds[key] = planning.seconds_per_multiply_add(plan.net)
    return (START_SECONDS + plan.work * speeds[key]) / 60


def plan_text(runs: Sequence[Planned], cost: Mapping[Path, float] | None) -> str:
    """A line a run, and a sum.

    Args:
        runs: in order.
        cost: workdir -> minutes, of those that are not done; None: not known.
    """
    todo = [r for r in runs if not r.done]
    lines, so_far = [], 0.0
    for run in runs:
        so_far += (own := (cost or {}).get(run.workdir, 0.0))
        said = "to do" if cost is None else f"{own:5.1f} min, {so_far:5.1f} so far"
        lines.append(f"{str(run.workdir):60s} {'done' if run.done else said}")
    where = "of a quiet core" if all(r.smoke for r in todo) else "on this machine as busy as it is now"
    about = "" if cost is None else f", about {lasts(so_far)} {where}"
    return "\n".join([*lines, f"{len(todo)} of {len(runs)} runs to do{about}"])


def lasts(minutes_: float) -> str:
    """`7 min`, or `3.5 h` of more than two hours."""
    return f"{math.ceil(minutes_)} min" if minutes_ < 120 else f"{minutes_ / 60:.1f} h"


# -- one after the other ----------------------------------------------------------------------------------------------
class Clock:
    """How far a list of runs is: the estimates, corrected by what the runs so far took.

    Args:
        cost: workdir -> estimated minutes, of what is to be done.
    """

    def __init__(self, cost: Mapping[Path, float]):
        self.open, self.count = dict(cost), len(cost)
        self._estimated = self._taken = 0.0

    def line(self, run: Planned) -> str:
        """`run 3 of 17, about 12 min left: runs/student`."""
        factor = self._taken / self._estimated if self._estimated else 1.0
        left = lasts(factor * sum(self.open.values()))
        return f"run {self.count - len(self.open) + 1} of {self.count}, about {left} left: {run.workdir}"

    def ended(self, run: Planned, seconds: float | None) -> None:
        """A run is over; `seconds`: how long it took, None if it was none of our doing."""
        own = self.open.pop(run.workdir, 0.0)
        if seconds is not None:
            self._estimated, self._taken = self._estimated + own, self._taken + seconds / 60


def train(runs: Sequence[Planned], clock: Clock, failed: set[Path]) -> None:
    """Trains what is not done, in the order given; a run that fails costs those that need it, and no other.

    Args:
        runs: after those they need.
        clock: of these runs, and perhaps of more.
        failed: workdirs of runs that failed or wait for one that did; grows.

    Raises:
        KeyboardInterrupt: Ctrl-C, or SIGTERM; the run that was going on has saved its state.
    """
    for run in runs:
        if run.done or run.workdir in failed:
            continue
        if missing := [str(n) for n in run.needs if n in failed]:
            print(f"left out: {run.workdir} needs {', '.join(missing)}", flush=True)
            failed.add(run.workdir)
            clock.ended(run, None)
            continue
        print(f"{clock.line(run)}\n{shlex.join(run.command())}", flush=True)
        started = time.monotonic()
        mine = not _another_process_did(run)
        if mine:
            _in_a_process([sys.executable, *run.command()[1:]])
        if not run.done:
            failed.add(run.workdir)
        clock.ended(run, time.monotonic() - started if mine else None)


def _another_process_did(run: Planned) -> bool:
    """Waits for a process that is training this run, as one whose parent was killed may be; whether it has finished the run."""
    try:
        handle = os.open(run.workdir / ".lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another process is training {run.workdir}: waiting for it", flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)
    return run.done


def _in_a_process(command: Sequence[str]) -> int:
    """Runs a command to its end. Ctrl-C and SIGTERM reach it once, as Ctrl-C, and it is waited for.

    Raises:
        KeyboardInterrupt: it was ended so.
    """
    with _terminated_as_interrupted():
        # A group of its own: a terminal's Ctrl-C would reach it beside ours, and in the middle of its saving.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
        try:
            code = child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            child.wait()
            raise
        finally:
            if child.poll() is None:  # a second Ctrl-C, while it was saving
                child.kill()
                child.wait()
    if code in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    return code


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    def interrupt(*_):
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def failure(failed: set[Path]) -> UserError:
    """The sentence about runs that failed, or wait for one that did."""
    return UserError(f"these runs failed, see what each said above: {', '.join(sorted(map(str, failed)))}")
