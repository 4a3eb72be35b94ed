"""AFK on the VOC 2012 part: two ResNet-50 teachers of four labels each, one student for all eight (or any of them).

Command: python -m amalgam_tf.bin.train --config=configs/afk/voc2012_part.py --workdir=runs/voc2012_part/student
    --config.data.root=VOCdevkit --config.student.weights=resnet50_notop.h5 --config.train_missing_teachers=True
Data: VOC 2012 in the devkit layout; data.root is the folder that holds VOC2012/. Weights: Keras's no-top ResNet-50 file, or
    leave student.weights at imagenet to let Keras download it.
Hardware and expected time: 2 CPU cores, about 50 minutes with both teachers.
Published row: none; the images are those of VOC 2012 that show one of five animals, so no published number is comparable.
Expected: see results/voc2012_part.

Argument: `paper` for the paper's optimizer, batch size and gate.
"""

from configs import common

COMMAND = (
    "python -m amalgam_tf.bin.train --config=configs/afk/voc2012_part.py --workdir=runs/voc2012_part/student "
    "--config.data.root=VOCdevkit --config.student.weights=resnet50_notop.h5 --config.train_missing_teachers=True"
)


def get_config(argument: str = ""):
    words = common.words(argument, "paper")
    entries = {n: {"path": f"{{workdir}}/../{n}", "config": f"configs/teachers/voc2012_part.py:{n}"} for n in ("teacher1", "teacher2")}
    config = common.afk(COMMAND, entries, weights="imagenet")
    config.data = common.voc(2012, "train", "val")  # the test split is not public: val is the TEST set here
    config.block.epochs, config.finetune.epochs = 4.0, 3.0
    if "paper" in words:
        common.paper_afk(config)
    return common.smoke(config) if "smoke" in words else config
