"""`Run`: a durable run. `run.phase` trains, skips or resumes; `run.decide` computes once and replays.

So a method is a straight script that reads like its algorithm box and still survives kill -9: everything it does
follows from the state (`state.py`), the decisions, and data that are a pure function of (seed, step).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
import json
import math
import os
from pathlib import Path
import shutil
import tempfile
import time
from typing import Any
import zlib

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf.errors import UserError, explained
from amalgam_tf.training import optimizers, state
from amalgam_tf.training import workdir as folders
from amalgam_tf.training.interrupts import Interrupted, Interrupts
from amalgam_tf.training.journal import Journal
from amalgam_tf.training.phase import Batch, Phase, Update
from amalgam_tf.training.step import step_function
from amalgam_tf.training.strategies import Workers


class Run:
    """One run in one workdir.

    Attributes:
        workdir: everything the run writes is below it.
        config: the resolved configuration as plain data; a workdir belongs to exactly one.
        seed: base of every random choice; see `seed_of`.
        strategy: tf.distribute strategy; models, optimizers and phases are made inside its scope.
        workers: the processes that work on it. All do the same and compute everything; the chief alone writes into the workdir, and
            its numbers hold where theirs could differ.
    """

    def __init__(self, workdir: str | Path, config: dict[str, Any], jit_compile: bool = False):
        """Opens or reopens a workdir.

        Args:
            workdir: its folder; that of several workers is on a file system they share.
            config: the resolved configuration.
            jit_compile: compile the training steps with XLA.

        Raises:
            UserError: the folder cannot be used, is in use, or belongs to another configuration; `jit_compile` on several devices.
        """
        self.workdir, self.config = Path(workdir), config
        self.seed = int(config.get("seed", 0))
        self.strategy = tf.distribute.get_strategy()
        self.workers = Workers(self.strategy)
        if jit_compile and self.strategy.num_replicas_in_sync > 1:
            raise UserError("--jit_compile works on one device only: leave it out, or use --strategy=one")
        self._jit_compile = jit_compile
        self._log_every = int(config.get("log_every_steps", 10))
        self._save_every = int(config.get("save_every_steps", 200))
        self._lock = self._scratch = None
        opened = self.workers.from_chief(self._open)
        if not self.workers.chief:
            folders.join(self.workdir, config, opened["config"])
            self.checkpoints = state.Checkpoints(self.workdir / "checkpoints", follow=opened["checkpoint"])
        self.journal = Journal(self.workdir, quiet=not self.workers.chief)
        self.progress = self.checkpoints.progress
        self.journal.rewind(self.progress.journal_bytes)
        for note in self.checkpoints.notes:
            self.journal.say(note)
        if self.progress.total:
            self.journal.say(
                f"resuming {self.workdir} at step {self.progress.total}"
                + (f" ({self.progress.phase} {self.progress.step})" if self.progress.phase else "")
            )
        self._started = time.monotonic()

    def _open(self) -> dict[str, Any]:
        """What the chief does first; the others follow the checkpoint it found."""
        self._lock = folders.lock(self.workdir)
        try:
            state.sweep(self.workdir)
            folders.claim(self.workdir, self.config)
            self.checkpoints = state.Checkpoints(self.workdir / "checkpoints")
        except BaseException:
            self.close()  # or this process could never open the folder again
            raise
        return {"config": folders.plain(self.config), "checkpoint": self.checkpoints.restored}

    def close(self) -> None:
        """Releases the workdir."""
        if self._lock is not None:
            os.close(self._lock)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def scratch(self) -> Path:
        """Where this process may keep files of its own until the run is closed: the chief's workdir, another worker's temporary folder."""
        if self.workers.chief:
            return self.workdir
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="amalgam_"))
        return self._scratch

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, _kind, error: BaseException | None, _trace) -> None:
        """Releases the workdir; turns a full disk or memory that ran out into a `UserError`."""
        self.close()
        if sentence := explained(error, f"{self.workdir}{f' ({phase})' if (phase := self.progress.phase) else ''}"):
            raise sentence from error

    # -- what a method calls --------------------------------------------------------------------------------------------
    def seed_of(self, name: str) -> int:
        """A seed for one purpose, independent of the order in which seeds are asked for."""
        return zlib.crc32(f"{self.seed}/{name}".encode())

    def say(self, text: str) -> None:
        self.journal.say(text)

    def write(self, fn: Callable[[], Any]) -> None:
        """Calls `fn`, which writes files below the workdir: on the chief only, while the other workers wait."""

        def written() -> None:
            fn()

        self.workers.from_chief(written)

    def track(self, named: dict[str, keras.Variable]) -> None:
        """Puts variables into the run's state under unique names (`BlockNet.named_variables`)."""
        self.checkpoints.track(named)

    def decide(self, name: str, compute: Callable[[], Any], of: str = "") -> Any:
        """Computes something once and replays it ever after.

        Args:
            name: unique within the run.
            compute: returns plain JSON data.
            of: fingerprint of the data it comes from; a stored decision of other data is refused.

        Raises:
            UserError: the stored decision was made from other data.
        """
        book = self._book()
        if name not in book:
            # Through JSON at once: a fresh value must equal a replayed one. Every worker computes, since making variables takes all.
            fresh = {"value": json.loads(json.dumps(compute(), allow_nan=False)), "of": of}
            book[name] = self.workers.from_chief(lambda: self._added({name: fresh})[name])
        if book[name]["of"] != of:
            changed = "the data of this workdir changed" if self.workers.chief else "give all workers the same data"
            raise UserError(f"{self._book_path} holds {name!r} decided from other data: {changed}; choose a new --workdir")
        return book[name]["value"]

    def keep(self, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """As `decide`, for named arrays: computed once, kept as `workdir/{name}.npz`, read back ever after.

        Raises:
            UserError: the file is damaged, or gone.
        """
        path = self.workdir / f"{name}.npz"
        if not self._is_kept(name, path):
            arrays = compute()
            self.write(lambda: state.write_arrays(path, arrays, {"format": state.FORMAT}))
        self.decide(f"kept/{name}", lambda: path.name)
        return state.read_snapshot(path)[0]

    def kept(self, name: str) -> dict[str, np.ndarray]:
        """What `keep` stored under this name."""
        return state.read_snapshot(self.workdir / f"{name}.npz")[0]

    def decided(self, name: str) -> Any:
        """What `decide` stored under this name.

        Raises:
            KeyError: nothing was decided.
        """
        return self._book()[name]["value"]

    @property
    def _book_path(self) -> Path:
        return self.workdir / "decisions.json"

    def _book(self) -> dict[str, Any]:
        """All decisions so far, as the chief reads them."""
        return self.workers.from_chief(self._read_book)

    def _read_book(self) -> dict[str, Any]:
        if not self._book_path.exists():
            return {}
        book = state.read_json(self._book_path)
        state.check_format(book, self._book_path)
        return book["decisions"]

    def _added(self, decisions: dict[str, Any]) -> dict[str, Any]:
        """Writes further decisions; returns them."""
        state.write_json(self._book_path, {"format": state.FORMAT, "decisions": self._read_book() | decisions})
        return decisions

    def phase(self, phase: Phase) -> None:
        """Trains a phase to its end; at once if it is finished, from the last checkpoint if it is half done.

        Raises:
            UserError: a loss that is not finite (the last checkpoint is from before).
            Interrupted: Ctrl-C; the state is saved first.
        """
        if phase.name in self.progress.finished:
            return
        self._tick()
        if self.progress.phase != phase.name:
            self.progress.phase, self.progress.step = phase.name, 0
            self.progress.best, self.checkpoints.best = {}, {}
        made = [self._optimizer(phase, u) for u in phase.updates]
        slots = {
            f"optimizer/{phase.name}/{u.name}/{i:04d}": v
            for u, o in zip(phase.updates, made, strict=True)
            for i, v in enumerate(o.variables)
        }
        self.track(slots)
        self._check_tracked(phase)
        interrupted = self._train(phase, step_function(phase.updates, made, self.strategy, self._jit_compile))
        self._restore_best(phase)
        self.checkpoints.forget(slots)
        self._tick()
        self.progress.finished.append(phase.name)
        self.progress.phase, self.progress.step = "", 0
        self._save()
        if interrupted:  # in the very last step
            raise Interrupted(f"stopped behind {phase.name}; the same command goes on from there")

    def snapshot(self, name: str) -> None:
        """Keeps the present state and all decisions as `workdir/{name}.npz`, for runs that start from here (`adopt`). Once only.

        Raises:
            UserError: the file was there and is gone: what it held has been trained on since.
        """
        path = self.workdir / f"{name}.npz"
        if not self._is_kept(name, path):
            self._tick()
            record = {"format": state.FORMAT, "progress": asdict(self.progress), "config": self.config, "decisions": self._book()}
            self.write(lambda: state.write_arrays(path, self.checkpoints.values(self.checkpoints.variables.values()), record))
        self.decide(f"kept/{name}", lambda: path.name)

    def _is_kept(self, name: str, path: Path) -> bool:
        gone = f"{path} is gone and cannot be made again, since training went on: restore it, or start in a new --workdir"

        def look() -> bool:
            if not path.exists() and f"kept/{name}" in self._read_book():
                raise UserError(gone)
            return path.exists()

        return self.workers.from_chief(look)

    def adopt(self, folder: str | Path, name: str, same: Sequence[str], inputs: str = "") -> None:
        """Starts from another run's snapshot: its finished phases and decisions count as this run's own, its wall time too.

        A run that has saved a state of its own already only goes on.

        Args:
            folder: the other run's workdir.
            name: of the snapshot.
            same: leaves and sections of the configuration (dotted) that must be equal in both.
            inputs: fingerprint that the decision `inputs` of the other run must have been made from; "": any.

        Raises:
            UserError: no such snapshot, or it was made with another configuration or from other inputs.
        """
        if self.progress.total:
            return
        path = Path(folder) / f"{name}.npz"
        if not path.is_file():
            raise UserError(f"{path} does not exist: give the workdir of a run that came that far")
        arrays, record = state.read_snapshot(path)
        changed = folders.different(folders.plain(self.config), record["config"])
        if changed := [k for k in changed if any(k == s or k.startswith(f"{s}.") for s in same)]:
            raise UserError(f"{path} was made with other settings ({', '.join(changed[:8])}): use the same ones, or train anew")
        if inputs and record["decisions"].get("inputs", {}).get("of") != inputs:
            raise UserError(f"{path} was made from other teachers or images: use the same ones, or train anew")
        self.checkpoints.adopt(arrays, state.Progress(**{**record["progress"], "journal_bytes": 0}))
        self.progress = self.checkpoints.progress
        self.write(lambda: self._added({**record["decisions"], **self._read_book()}))
        self.say(f"  starting from {path}: {', '.join(self.progress.finished)} are finished")

    def finish(self, results: dict[str, Any]) -> None:
        """Writes results.json."""
        self.write(lambda: state.write_json(self.workdir / "results.json", {"format": state.FORMAT, **results}))

    def seconds(self) -> float:
        """Wall time of the run over all processes that worked on it."""
        return self.progress.seconds + time.monotonic() - self._started

    def _tick(self) -> None:
        """Books the time since the last call: on the run, and on the phase that is under way."""
        now = time.monotonic()
        passed, self._started = now - self._started, now
        self.progress.seconds += passed
        if phase := self.progress.phase:
            self.progress.phase_seconds[phase] = round(self.progress.phase_seconds.get(phase, 0.0) + passed, 3)

    # -- inside ---------------------------------------------------------------------------------------------------------
    def _optimizer(self, phase: Phase, update: Update) -> keras.optimizers.Optimizer:
        scaling = keras.config.dtype_policy().name == "mixed_float16"
        with self.strategy.scope():
            return optimizers.build(update.optimizer, update.trains, steps=phase.steps, heads=update.heads, loss_scaling=scaling)

    def _check_tracked(self, phase: Phase) -> None:
        tracked = {id(v) for v in self.checkpoints.variables.values()}
        if lost := [v.path for v in phase.variables if id(v) not in tracked]:
            raise ValueError(
                f"phase {phase.name!r} changes variables that no checkpoint holds: {lost[:5]}; call run.track on their network"
            )

    def _train(self, phase: Phase, step: Callable[[Batch], dict[str, tf.Tensor]]) -> bool:
        """Does the phase's remaining steps; returns whether Ctrl-C came too late to stop before its end."""
        begin, window, clock = self.progress.step, [], time.monotonic()
        batches = self._batches(phase, begin)
        if phase.keep_best and phase.start_counts and begin == 0:
            self._validate(phase)  # training may only make it worse: the start is a candidate too
        with Interrupts() as interrupts:
            for done in range(begin + 1, phase.steps + 1):
                window.append(step(next(batches)))
                self.progress.step, self.progress.total = done, self.progress.total + 1
                validating = done == phase.steps or (phase.validate_every_steps and done % phase.validate_every_steps == 0)
                logging, due = len(window) == self._log_every, done % self._save_every == 0 and done < phase.steps
                # Read once: Ctrl-C may come between the save and the end of this step. Several workers must stop at the same step, and
                # asking the others costs a round trip: only where results are read anyway.
                stopping = (self.workers.count == 1 or logging or validating or due) and self.workers.any(interrupts.seen)
                saving = stopping or due
                if logging or validating or saving:
                    self._log(phase, window, (done - begin) / (time.monotonic() - clock))
                    window = []
                if validating:
                    self._validate(phase)
                if saving:
                    self._save()
                if stopping:
                    raise Interrupted(f"stopped at step {done} of {phase.name}; the same command goes on from there")
        return self.workers.any(interrupts.seen)

    def _batches(self, phase: Phase, begin: int):
        n = self.strategy.num_replicas_in_sync
        if n == 1:
            return iter(phase.data.dataset(begin, phase.steps))
        streams = {}

        def part(context):
            rank = context.replica_id_in_sync_group  # of this process's replicas only
            if rank not in streams:
                streams[rank] = iter(phase.data.dataset(begin, phase.steps, rank, n))
            return next(streams[rank])

        return iter(lambda: self.strategy.experimental_distribute_values_from_function(part), None)

    def _log(self, phase: Phase, window: list[dict[str, tf.Tensor]], per_second: float) -> None:
        values = {k: sum(float(m[k]) for m in window) / len(window) for k in window[0]}
        last = self.progress.step
        if bad := [k for k, v in values.items() if not math.isfinite(v)]:
            raise UserError(
                f"{phase.name}: {', '.join(bad)} became {values[bad[0]]} between steps {last - len(window) + 1} and {last}: "
                "lower its optimizer.learning_rate, in a new --workdir (the last checkpoint is from before)"
            )
        self.journal.measure(self.progress.total, phase.name, last, values)
        self.journal.progress(phase.name, last, phase.steps, values, per_second)

    def _validate(self, phase: Phase) -> None:
        if phase.validate is None:
            return
        values = {k: float(v) for k, v in phase.validate().items()}
        values = self.workers.from_chief(lambda: values)
        if bad := [k for k, v in values.items() if not math.isfinite(v)]:
            raise UserError(
                f"{phase.name}: held-out {bad[0]} is {values[bad[0]]} at step {self.progress.step}: "
                "lower its optimizer.learning_rate, in a new --workdir"
            )
        self.journal.measure(self.progress.total, phase.name, self.progress.step, {f"held_out/{k}": v for k, v in values.items()})
        if phase.keep_best is None:
            return
        if values[phase.keep_best] < self.progress.best.get("value", math.inf):
            self.progress.best = {"value": values[phase.keep_best], "step": self.progress.step}
            self.checkpoints.best = self.checkpoints.values(phase.variables)

    def _restore_best(self, phase: Phase) -> None:
        for name, value in self.checkpoints.best.items():
            self.checkpoints.variables[name].assign(value)
        if self.progress.best:
            best = self.decide(f"best/{phase.name}", lambda: {**self.progress.best, "steps": phase.steps})
            self.say(f"  {phase.name}: best held-out {phase.keep_best} {best['value']:.4f} at step {best['step']:.0f} of {phase.steps}")
        self.progress.best, self.checkpoints.best = {}, {}

    def _save(self) -> None:
        self.progress.journal_bytes = self.journal.bytes()
        self._tick()
        self.write(self.checkpoints.save)
