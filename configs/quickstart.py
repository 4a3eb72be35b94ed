"""Quickstart: two small teachers on embedded scenes, then one student for any of their labels.

Command: python -m amalgam_tf.bin.train --config=configs/quickstart.py:student --workdir=runs/quickstart/student
Data: none; the scenes are rendered on the spot.
Hardware and expected time: 2 CPU cores, about 4 minutes with both teachers (they are trained first if missing).
Published row: none (a demonstration, not an experiment of the paper).
Expected: see the table in README.md.

Argument: `teacher1`, `teacher2` or `student` (default).
"""

from configs import common

COMMAND = "python -m amalgam_tf.bin.train --config=configs/quickstart.py:{0} --workdir=runs/quickstart/{0}"
ARGUMENTS = ("teacher1", "teacher2", "student")
TEACHERS = {"teacher1": slice(0, None, 2), "teacher2": slice(1, None, 2)}  # every other shape


def get_config(argument: str = "student"):
    words = common.words(argument, "student", *TEACHERS)
    name = common.one(words, ARGUMENTS, "student")
    config = student() if name == "student" else teacher(name)
    return common.smoke(config) if "smoke" in words else config


def teacher(name: str):
    config = common.teacher(COMMAND.format(name), name, common.SHAPES[TEACHERS[name]], backbone="resnet14", input_size=32)
    config.data = common.scenes(train=4000, test=1000, size=32)
    config.epochs, config.batch_size, config.crop = 12, 64, 0.6
    config.optimizer = common.adam(2e-3)
    return config


def student():
    entries = {n: {"path": f"runs/quickstart/{n}", "config": f"configs/quickstart.py:{n}"} for n in TEACHERS}
    config = common.afk(COMMAND.format("student"), entries)
    config.data = common.scenes(train=4000, test=1000, size=32)
    config.train_missing_teachers = True
    config.block.epochs, config.finetune.epochs = 4.0, 3.0
    config.block.batch_size = config.finetune.batch_size = 64
    return config
