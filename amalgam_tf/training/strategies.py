"""tf.distribute strategies by the name of the `--strategy` flag."""

import functools

import tensorflow as tf

from amalgam_tf.errors import UserError

NAMES = ("auto", "one", "mirrored", "multi_worker")


@functools.cache  # a second strategy in a process would number its collectives like the first, and TF mixes them up
def by_name(name: str) -> tf.distribute.Strategy:
    """`one` (no distribution), `mirrored` (all GPUs, or all logical CPUs), `auto` (mirrored if there are several GPUs).

    Raises:
        UserError: an unknown name, or `multi_worker`, which is not there yet.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    if name in ("auto", "mirrored"):
        return tf.distribute.MirroredStrategy([d.name for d in gpus or tf.config.list_logical_devices("CPU")])
    if name == "multi_worker":
        raise UserError("--strategy=multi_worker is not built yet: use mirrored on one host")
    raise UserError(f"unknown --strategy {name!r}: choose {', '.join(NAMES)}")
