"""The train binary with its death planted: what `tools/kill_test.py` starts, `killer.py MOMENT EVENTS --config=... --workdir=...`.

Every event of the run in `--workdir` (not of the teachers it may train first) becomes a line of the file EVENTS: a step
begins, a file of arrays or a decision is written, a phase is over. At MOMENT the process kills itself with SIGKILL:

    none              never; only the events are wanted
    clock:N:SECONDS   so long after step N (over all phases) began, wherever it is then; at the latest two steps on
    save:NAME:SHARE   when this share of checkpoints/NAME.npz is on disk, before the rename that publishes it
    decide:NAME:SHARE likewise for decisions.json with the decision NAME; a share of 1: right after the rename
    phase:NAME        right after the phase is over and saved
"""

from collections.abc import Callable
import json
import os
from pathlib import Path
import signal
import sys
import threading
import time
from typing import Any

from absl import flags

from amalgam_tf.bin import app, train


class Killer:
    """Watches a run by standing in for the functions it calls.

    Attributes:
        kind: of the moment; "none": only watches.
        key: its name or step.
        number: its seconds or share.
        run: the run that is open.
    """

    def __init__(self, moment: str, events: Path):
        self.kind, _, rest = moment.partition(":")
        self.key, _, number = rest.rpartition(":") if self.kind != "phase" else (rest, "", "")
        self.number = float(number or 0)
        self.events, self.run = events, None

    def is_at(self, kind: str, key: str) -> bool:
        return self._watched() and (self.kind, self.key) == (kind, key)

    def note(self, kind: str, key: Any) -> None:
        """One line of EVENTS, flushed: a killed process loses nothing that it has handed to the kernel."""
        if self._watched():
            at = self.run.progress
            line = {"kind": kind, "key": key, "phase": at.phase, "step": at.step, "total": at.total, "time": time.monotonic()}
            with open(self.events, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def die(self) -> None:
        self.note("killed", self.kind)
        os.kill(os.getpid(), signal.SIGKILL)

    def _watched(self) -> bool:
        return self.run is not None and self.run.workdir == Path(flags.FLAGS.workdir)


def plant(killer: Killer) -> None:
    """Puts the killer's eyes into the training loop."""
    from amalgam_tf.training import loop, state

    _wrap(loop.Run, "__init__", lambda call, run, *a, **k: (call(run, *a, **k), setattr(killer, "run", run))[0])
    _wrap(loop.Run, "phase", lambda call, run, phase: _phase(killer, call, run, phase))
    _wrap(loop, "step_function", lambda call, *a, **k: _watched_step(killer, call(*a, **k)))
    _wrap(state, "write_arrays", lambda call, path, *a: _write(killer, "save", path.stem, call, path, *a))
    _wrap(
        state,
        "write_json",
        lambda call, path, data: (
            _write(killer, "decide", list(data["decisions"])[-1], call, path, data) if path.name == "decisions.json" else call(path, data)
        ),
    )


def _wrap(owner: Any, name: str, around: Callable) -> None:
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


def _phase(killer: Killer, call: Callable, run: Any, phase: Any) -> None:
    is_new = phase.name not in run.progress.finished
    call(run, phase)
    if is_new:
        killer.note("phase", phase.name)
        if killer.is_at("phase", phase.name):
            killer.die()


def _watched_step(killer: Killer, step: Callable) -> Callable:
    def watched(batch):
        total = killer.run.progress.total + 1  # of the step that begins
        killer.note("step", total)
        if killer.is_at("clock", str(total)):
            threading.Timer(killer.number, killer.die).start()
        elif killer.is_at("clock", str(total - 2)):
            killer.die()
        return step(batch)

    return watched


def _write(killer: Killer, kind: str, key: str, call: Callable, path: Path, *rest: Any) -> None:
    killer.note(kind, key)
    if killer.is_at(kind, key) and killer.number < 1:
        os.replace = lambda source, _: _leave(killer, Path(source))
    call(path, *rest)
    if killer.is_at(kind, key):
        killer.die()


def _leave(killer: Killer, source: Path) -> None:
    """Instead of the rename: leaves the first part of the file behind."""
    os.truncate(source, int(source.stat().st_size * killer.number))
    killer.die()


if __name__ == "__main__":
    moment, events = sys.argv.pop(1), Path(sys.argv.pop(1))
    app.import_tensorflow()
    plant(Killer(moment, events))
    app.launch(train.main)
