"""What a run tells: a live line on a terminal, plain lines otherwise, train.log, metrics.jsonl and TensorBoard."""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import sys
import time

import tensorflow as tf

from amalgam_tf.training import state

_PLAIN_SECONDS = 15.0  # between plain progress lines when the output is not a terminal


class Journal:
    """Writes everything of one run; `quiet` (workers other than the chief) writes nothing at all."""

    def __init__(self, workdir: Path, quiet: bool = False):
        self.workdir, self.quiet = Path(workdir), quiet
        self._board = None
        self._live, self._last_plain = False, 0.0

    @property
    def metrics_path(self) -> Path:
        return self.workdir / "metrics.jsonl"

    def say(self, text: str) -> None:
        """One line for the user, on the terminal and in train.log."""
        if self.quiet:
            return
        self._end_live()
        print(text, flush=True)
        path = self.workdir / "train.log"
        with state.writing(path), open(path, "a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def measure(self, total: int, phase: str, step: int, values: Mapping[str, float]) -> None:
        """One row of metrics.jsonl and its TensorBoard scalars; `total` counts steps over the whole run."""
        if self.quiet:
            return
        with state.writing(self.metrics_path), open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"total": total, "phase": phase, "step": step, **values}) + "\n")
        if self._board is None:
            self._board = tf.summary.create_file_writer(str(self.workdir / "tb"))
        with self._board.as_default(step=total):
            for name, value in values.items():
                tf.summary.scalar(f"{phase}/{name}", value)

    def progress(self, phase: str, step: int, steps: int, values: Mapping[str, float], per_second: float) -> None:
        """The phase's one line: rewritten in place on a terminal, now and then otherwise."""
        if self.quiet:
            return
        left = (steps - step) / per_second if per_second else 0.0
        terms = "  ".join(f"{k} {v:.4f}" for k, v in values.items() if "/" not in k)
        text = f"  {phase:<16} {step:>6}/{steps}  {terms}"
        if sys.stdout.isatty():
            sys.stdout.write(f"\r{text}  {_seconds(left)} left\033[K")
            sys.stdout.flush()
            self._live = True
        elif time.monotonic() - self._last_plain > _PLAIN_SECONDS:
            self.say(f"{text}  {_seconds(left)} left")
            self._last_plain = time.monotonic()

    def _end_live(self) -> None:
        if self._live:
            sys.stdout.write("\n")
            self._live = False

    def bytes(self) -> int:
        """Length of metrics.jsonl, remembered by every checkpoint."""
        return self.metrics_path.stat().st_size if self.metrics_path.exists() else 0

    def rewind(self, length: int) -> None:
        """Drops the rows behind a checkpoint, which a resumed run computes again."""
        if not self.quiet and self.bytes() > length:
            os.truncate(self.metrics_path, length)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
