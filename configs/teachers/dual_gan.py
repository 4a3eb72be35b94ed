"""Teachers for Dual-GAN's tables at the paper's scale: an ImageNet ResNet-101 at 224 px, with all or half of a data set's labels (G14).

Command: python -m amalgam_tf.bin.train --config=configs/teachers/dual_gan.py:voc,whole --workdir=runs/dgan_teachers/voc/whole
    --config.data.root=VOCdevkit
Data: VOC 2007 as the devkit unpacks (data.root holds VOC2007/), or COCO 2014 (data.root holds annotations/, train2014/ and val2014/).
    ImageNet weights are downloaded by Keras, or name a file: --config.model.weights=resnet101_notop.h5.
Hardware and expected time: one GPU of 12 GB or more, about two hours for VOC, fifteen for COCO (estimated, never run).
Published row: dgan_table1/TeacherNet (VOC, one teacher of twenty labels); shown with the students of the same tables.
Expected: unknown at this scale.

Argument, in any order: voc (default) or coco; whole (default: one teacher of all twenty labels of VOC), teacher1 or teacher2 (halves).
"""

from amalgam_tf.data.splits import load_groups
from configs import common

SETS = {"voc": ("voc_ke", "VOCdevkit"), "coco": ("coco_halves", "coco")}
NAMES = ("whole", "teacher1", "teacher2")
ARGUMENTS = ("voc,teacher1", "voc,teacher2", "coco,teacher1", "coco,teacher2")


def get_config(argument: str = ""):
    words = common.words(argument, *SETS, *NAMES)
    source, name = common.one(words, tuple(SETS)), common.one(words, NAMES, "teacher1" if "coco" in words else "whole")
    if source == "coco" and name == "whole":
        raise common.UserError("COCO has the teachers teacher1 and teacher2, not whole")
    grouping, root = SETS[source]
    groups = load_groups(grouping)
    command = (
        f"python -m amalgam_tf.bin.train --config=configs/teachers/dual_gan.py:{source},{name} "
        f"--workdir=runs/dgan_teachers/{source}/{name} --config.data.root={root}"
    )
    labels = [label for group in groups.values() for label in group] if name == "whole" else groups[name]
    config = common.teacher(command, name, labels, backbone="resnet101", input_size=224, weights="imagenet")
    config.data = common.voc(2007, "trainval", "test") if source == "voc" else common.coco("train2014", "val2014")
    config.licence = "VOC and COCO images: Flickr terms, research only; ImageNet weights as keras.applications"
    return common.smoke(config) if "smoke" in words else config
