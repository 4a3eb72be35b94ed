"""tf.distribute strategies by the name of the `--strategy` flag, and what the workers of a run must agree on."""

from collections.abc import Callable, Iterator
import contextlib
import functools
import json
from typing import Any

import numpy as np
import tensorflow as tf

from amalgam_tf.errors import UserError
from amalgam_tf.training import cluster

NAMES = ("auto", "one", "mirrored", "multi_worker")
_CHUNK = 1 << 16  # bytes a message: one shape, so that sending is traced once
_HEAD = 8  # bytes that hold a message's length
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


@functools.cache  # a second strategy in a process would number its collectives like the first, and TF mixes them up
def by_name(name: str) -> tf.distribute.Strategy:
    """The strategy of a name.

    Args:
        name: `one` (no distribution), `mirrored` (all GPUs, or all logical CPUs), `auto` (mirrored if there are several GPUs), or
            `multi_worker` (the processes of TF_CONFIG, with all GPUs of each): must be made before the process's first op, and waits
            for the other workers.

    Raises:
        UserError: an unknown name, a wrong TF_CONFIG, or an address that cannot be used.
    """
    if name == "multi_worker":
        return _multi_worker(cluster.place())
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    if name in ("auto", "mirrored"):
        return tf.distribute.MirroredStrategy([d.name for d in gpus or tf.config.list_logical_devices("CPU")])
    raise UserError(f"unknown --strategy {name!r}: choose {', '.join(NAMES)}")


def _multi_worker(place: cluster.Place) -> tf.distribute.Strategy:
    print(f"{place}: waiting for the others", flush=True)
    kinds = tf.distribute.experimental.CommunicationImplementation
    kind = kinds.AUTO if tf.config.list_physical_devices("GPU") else kinds.RING
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=tf.distribute.experimental.CommunicationOptions(implementation=kind)
        )
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{place} cannot join the others ({reason}): check the addresses in {cluster.VARIABLE}") from error


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns the failure that the end of another worker causes in this one into a sentence.

    Raises:
        UserError: another worker is gone.
    """
    try:
        yield
    except _LOST as error:
        if Workers(strategy).count == 1:
            raise
        raise UserError(
            "another worker was lost or has stopped: start all workers again with the same commands, "
            "and the run goes on from its last checkpoint"
        ) from error


class Workers:
    """The processes that train one run; usually one. All must make the same calls in the same order.

    Attributes:
        count: how many.
        rank: which of them this one is.
        chief: whether it is the one that writes the run's files.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        place = cluster.place() if several else cluster.Place(0, ("",))
        self.count, self.rank, self.chief = len(place.addresses), place.rank, place.rank == 0
        self._strategy = strategy

    def from_chief(self, fn: Callable[[], Any]) -> Any:
        """What `fn` returns on the chief, where alone it is called; the others wait for it.

        Args:
            fn: returns plain JSON data; makes no variables and calls nothing that takes all workers.

        Raises:
            UserError: what `fn` raised, on every worker.
        """
        if self.count == 1:
            return fn()
        said, failure = {}, None
        if self.chief:
            try:
                said = {"value": fn()}
            except UserError as error:
                said, failure = {"error": str(error)}, error
        said = json.loads(self._send(json.dumps(said).encode()))
        if "error" in said:
            raise failure or UserError(said["error"])
        return said["value"]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one worker."""
        return flag if self.count == 1 else bool(_sums(self._strategy, np.full(_HEAD, flag, np.float32)).any())

    def _send(self, message: bytes) -> bytes:
        """The chief's message, bit for bit, on every worker: a sum to which only the chief adds."""
        head = len(message).to_bytes(_HEAD, "big") if self.chief else bytes(_HEAD)
        length = int.from_bytes(self._sent(head), "big")
        padded = (message if self.chief else b"").ljust(-(-length // _CHUNK) * _CHUNK, b"\0")
        return b"".join(self._sent(padded[i : i + _CHUNK]) for i in range(0, len(padded), _CHUNK))[:length]

    def _sent(self, part: bytes) -> bytes:
        # As floats: NCCL sums them, and they hold a byte exactly.
        row = np.frombuffer(part if self.chief else bytes(len(part)), np.uint8).astype(np.float32)
        return _sums(self._strategy, row).astype(np.uint8).tobytes()


def _sums(strategy: tf.distribute.Strategy, row: np.ndarray) -> np.ndarray:
    """Sum over workers; of a worker's replicas only the first adds."""
    rows = iter([row])
    return _summing(strategy)(strategy.experimental_distribute_values_from_function(lambda _: tf.constant(next(rows, row * 0)))).numpy()


@functools.cache
def _summing(strategy: tf.distribute.Strategy) -> Callable:
    return tf.function(lambda values: strategy.reduce("SUM", values, axis=None), autograph=False)
