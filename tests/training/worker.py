"""One worker process of test_multi_worker.py: `worker.py whole|stopped|resumed FOLDER`, its place in TF_CONFIG.

Trains two phases of a small net with batch statistics. `whole`: in one go. `stopped`: Ctrl-C reaches worker 1 in the first phase, then
both go on, and kill -9 ends worker 1 in the second. `resumed`: the same folder once more, to the end.
"""

import contextlib
import os
from pathlib import Path
import signal
import sys

import numpy as np

from amalgam_tf.bin import app
from amalgam_tf.errors import UserError

STEPS = 8


def main(mode: str, folder: Path) -> None:
    from amalgam_tf.training import strategies
    from amalgam_tf.training.cluster import place

    app.import_tensorflow(first=lambda: strategies.by_name("multi_worker"))
    strategy = strategies.by_name("multi_worker")
    tell_what_is_written(folder)
    workdir = folder / ("whole" if mode == "whole" else "parts")
    with strategies.together(strategy), strategy.scope():
        if mode == "whole":
            agree(folder, place().rank)
        if mode == "stopped":
            with contextlib.suppress(KeyboardInterrupt):
                train(workdir, at=("one", 3), signal_number=signal.SIGINT)
        train(workdir, at=("two", 5) if mode == "stopped" else None, signal_number=signal.SIGKILL)


def train(workdir: Path, at=None, signal_number=None) -> None:
    """Two phases; `at`: (phase, step) in which worker 1 gets a signal. Prints where it stops, or the digest of all values."""
    from amalgam_tf.training import state
    from amalgam_tf.training.loop import Run
    from tests.training.distributed import data, small_net, update

    with Run(workdir, {"log_every_steps": 2, "save_every_steps": 2}) as run:
        net, loss = small_net(synchronized=run.strategy.num_replicas_in_sync > 1)
        run.track(net.named_variables("net"))
        for name in ("one", "two"):
            batches = data()
            if run.workers.rank == 1 and at and at[0] == name:
                batches = Signalling(batches, at[1], signal_number)
            try:
                run.phase(phase(name, batches, update(net, loss)))
            except KeyboardInterrupt as stop:
                print(f"stopped: {stop}; at {run.progress.phase} {run.progress.step}", flush=True)
                raise
        # What differs between the workers: the chief's holds everywhere, and bit for bit.
        said = run.decide("rank", lambda: {"rank": run.workers.rank, "third": (1 + run.workers.rank) / 3})
        kept = run.keep("rank", lambda: {"rank": np.full(100_000, run.workers.rank + 0.1)})["rank"]
        print(f"end {state.values_digest(net.named_variables('net'))} {said['rank']} {said['third']!r} {float(kept.sum())!r}", flush=True)


def tell_what_is_written(folder: Path) -> None:
    """Prints every file below a folder that Python code of this process opens for writing."""

    def hook(event, args):
        if event == "open" and isinstance(args[0], str) and args[0].startswith(str(folder)) and args[2] & (os.O_WRONLY | os.O_RDWR):
            print(f"wrote {args[0]}", flush=True)

    sys.addaudithook(hook)


def phase(name, batches, one_update):
    from amalgam_tf.training.phase import Phase

    return Phase(name, steps=STEPS, data=batches, updates=[one_update])


class Signalling:
    """Batches that send this process a signal while one of them is made."""

    def __init__(self, batches, step: int, signal_number: int):
        self.batches, self.batch_size, self.step, self.signal_number = batches, batches.batch_size, step, signal_number

    def dataset(self, start, stop, rank=0, ranks=1):
        for step, batch in enumerate(self.batches.dataset(start, stop, rank, ranks), start + 1):
            if step == self.step:
                os.kill(os.getpid(), self.signal_number)
            yield batch


def agree(folder: Path, rank: int) -> None:
    """What fails must fail on all workers, and who follows keeps nothing behind."""
    from amalgam_tf.training.loop import Run

    try:
        Run(folder / "jit", {}, jit_compile=True)
    except UserError as error:
        print(f"refused: {error}", flush=True)
    if rank == 0:
        (folder / "file0").write_text("")
    try:
        Run(folder / "file0", {})
    except UserError as error:
        print(f"refused: {error}", flush=True)
    with Run(folder / "small", {}) as run:
        scratch = run.scratch
        print(f"scratch {(scratch == run.workdir) == run.workers.chief and scratch.is_dir()}", flush=True)
    print(f"gone {scratch.is_dir() == run.workers.chief}", flush=True)
    try:
        with Run(folder / "small2", {"a": {"b": rank}}):
            pass
        print("refused: ", flush=True)
    except UserError as error:
        print(f"refused: {error}", flush=True)


if __name__ == "__main__":
    arguments, sys.argv = sys.argv[1:], sys.argv[:1]
    app.launch(lambda: main(arguments[0], Path(arguments[1])))
