"""Teachers for AFK's table 3: an ImageNet net at 224 px that knows half of COCO's eighty categories (A5, A16).

Command: python -m amalgam_tf.bin.train --config=configs/teachers/coco.py:teacher1 --workdir=runs/afk_table3/resnet50/teacher1
    --config.data.root=coco
Data: COCO 2014; data.root is the folder that holds annotations/, train2014/ and val2014/. ImageNet weights are downloaded by Keras, or
    name a file: --config.model.weights=resnet50_notop.h5.
Hardware and expected time: one GPU of 12 GB or more, about eight hours (estimated, never run at this scale).
Published row: none; the paper's table 3 has no teacher row.
Expected: unknown at this scale.

Argument, in any order: teacher1 (default: the first forty categories in the order of their ids) or teacher2; resnet50 (default) or
densenet121; `paper` for the paper's schedule and batch size.
"""

from amalgam_tf.data.splits import load_groups
from configs import common

GROUPS = load_groups("coco_halves")
CHOICES = (tuple(GROUPS), ("resnet50", "densenet121"))
ARGUMENTS = ("teacher2", "teacher1,densenet121", "paper", "densenet121,paper")


def get_config(argument: str = ""):
    words = common.words(argument, "paper", *(w for choice in CHOICES for w in choice))
    name, backbone = (common.one(words, choice) for choice in CHOICES)
    paper = "paper" in words
    command = (
        f"python -m amalgam_tf.bin.train --config=configs/teachers/coco.py:{backbone},{name}{',paper' if paper else ''} "
        f"--workdir=runs/afk_table3/{backbone}/{name}{'_paper' if paper else ''} --config.data.root=coco"
    )
    config = common.teacher(command, name, GROUPS[name], backbone=backbone, input_size=224, weights="imagenet")
    config.data = common.coco("train2014", "val2014")
    config.model.granularity = "unit" if backbone == "resnet50" else "stage"
    config.licence = "COCO images: Flickr terms; annotations CC BY 4.0; ImageNet weights as keras.applications"
    if paper:
        common.paper_teacher(config)
    return common.smoke(config) if "smoke" in words else config
