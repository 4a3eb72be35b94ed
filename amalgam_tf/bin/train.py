"""Trains a teacher or a student.

python -m amalgam_tf.bin.train --config=configs/quickstart.py:student --workdir=runs/student --config.tasks=sphere,box

The same command again goes on where the last one stopped. Any leaf of the config can be overridden (--config.seed=1).
"""

import os
from pathlib import Path
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from amalgam_tf.bin import app
from amalgam_tf.errors import UserError
from amalgam_tf.training import cluster

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with an optional argument: configs/quickstart.py:student,smoke.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; everything is written below it.")
_STRATEGY = flags.DEFINE_enum("strategy", "auto", ["auto", "one", "mirrored", "multi_worker"], "tf.distribute strategy.")
_PRECISION = flags.DEFINE_enum("precision", None, ["float32", "mixed_bfloat16", "mixed_float16"], "Overrides config.precision.")
_CPU_DEVICES = flags.DEFINE_integer(
    "logical_cpus", 0, "Split the CPU into so many logical devices (to try --strategy=mirrored).", lower_bound=0
)
_JIT = flags.DEFINE_bool("jit_compile", False, "Compile the training steps with XLA: for one GPU; slower on CPUs.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan with estimated time, disk and memory, and stop.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    file = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0]
    if not Path(file).is_file():
        raise UserError(f"the config file {file} does not exist: run from the project's folder, or give a full path")
    config = _CONFIG.value
    if _PRECISION.value:
        config.precision = _PRECISION.value
    several = _STRATEGY.value == "multi_worker"
    if several:
        cluster.place()  # a wrong TF_CONFIG is told before TensorFlow is imported
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or a lost worker fills the terminals of the others
    app.import_tensorflow(_CPU_DEVICES.value, _join if several else lambda: None)
    from amalgam_tf import methods

    if _DRY_RUN.value:
        methods.show_plan(config, Path(_WORKDIR.value))
        return
    command = shlex.join(["python", "-m", "amalgam_tf.bin.train", *sys.argv[1:]])
    methods.run(config, _WORKDIR.value, _STRATEGY.value, command, _JIT.value)


def _join() -> None:
    """The strategy of several workers must be made before the first op."""
    from amalgam_tf.training import strategies

    strategies.by_name("multi_worker")


if __name__ == "__main__":
    app.launch(main)
