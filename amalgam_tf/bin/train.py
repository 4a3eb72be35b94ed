"""Trains a teacher or a student.

python -m amalgam_tf.bin.train --config=configs/quickstart.py:student --workdir=runs/student --config.tasks=sphere,box

The same command again goes on where the last one stopped. Any leaf of the config can be overridden (--config.seed=1).
"""

from pathlib import Path
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from amalgam_tf.bin import app
from amalgam_tf.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with an optional argument: configs/quickstart.py:student,smoke.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; everything is written below it.")
_STRATEGY = flags.DEFINE_enum("strategy", "auto", ["auto", "one", "mirrored", "multi_worker"], "tf.distribute strategy.")
_PRECISION = flags.DEFINE_enum("precision", None, ["float32", "mixed_bfloat16", "mixed_float16"], "Overrides config.precision.")
_CPU_DEVICES = flags.DEFINE_integer(
    "logical_cpus", 0, "Split the CPU into so many logical devices (to try --strategy=mirrored).", lower_bound=0
)
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    file = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0]
    if not Path(file).is_file():
        raise UserError(f"the config file {file} does not exist: run from the project's folder, or give a full path")
    config = _CONFIG.value
    if _PRECISION.value:
        config.precision = _PRECISION.value
    app.import_tensorflow(_CPU_DEVICES.value)
    from amalgam_tf import methods

    command = shlex.join(["python", "-m", "amalgam_tf.bin.train", *sys.argv[1:]])
    methods.run(config, _WORKDIR.value, _STRATEGY.value, command)


if __name__ == "__main__":
    app.launch(main)
