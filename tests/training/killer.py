"""Runs the train binary and kills it with SIGKILL at a chosen moment: `killer.py step:7 --config=... --workdir=...`.

Moments: `step:N` before the N-th step's bookkeeping, `save:N` when half of the N-th checkpoint is on disk, `phase:N` right
after the N-th phase ended, `decide:N` right after the N-th decision was written.
"""

import os
from pathlib import Path
import signal
import sys

from amalgam_tf.bin import app, train


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def count_down(n: int, owner, name: str, act) -> None:
    """Replaces owner.name: its n-th call goes to `act(original, *arguments)`."""
    original, left = getattr(owner, name), [n]

    def replaced(*args, **kwargs):
        left[0] -= 1
        return act(original, *args, **kwargs) if left[0] == 0 else original(*args, **kwargs)

    setattr(owner, name, replaced)


def after(original, *args, **kwargs):
    original(*args, **kwargs)
    die()


def half_written(source, _target):
    """Instead of the rename that publishes a checkpoint: leave half of it behind."""
    data = Path(source).read_bytes()
    Path(source).write_bytes(data[: len(data) // 2])
    die()


def main() -> None:
    moment, n = sys.argv.pop(1).split(":")
    app.import_tensorflow()
    from amalgam_tf.training import loop, state

    if moment == "step":
        original, left = loop.step_function, [int(n)]

        def counting(*args):
            step = original(*args)

            def counted(batch):
                left[0] -= 1
                return die() if left[0] == 0 else step(batch)

            return counted

        loop.step_function = counting
    elif moment == "phase":
        count_down(int(n), loop.Run, "phase", after)
    elif moment == "decide":
        count_down(int(n), state, "write_json", after)
    elif moment == "save":
        original_write, left = state.write_arrays, [int(n)]

        def write(*args):
            left[0] -= 1
            if left[0] == 0:
                state.os.replace = half_written
            original_write(*args)

        state.write_arrays = write
    app.launch(train.main)


if __name__ == "__main__":
    main()
