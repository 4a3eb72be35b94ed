"""Teachers for the VOC 2012 part: ImageNet ResNet-50 at 96 px, four labels each.

Command: python -m amalgam_tf.bin.train --config=configs/teachers/voc2012_part.py:teacher1 --workdir=runs/voc2012_part/seed0/teacher1
    --config.data.root=VOCdevkit --config.model.weights=resnet50_notop.h5
Data: VOC 2012 in the devkit layout; data.root is the folder that holds VOC2012/.
Hardware and expected time: 2 CPU cores, about 5 minutes a teacher.
Published row: none; the images are those of VOC 2012 that show one of five animals, so no published number is comparable.
Expected: see results/voc2012_part.

Argument: `teacher1` (cat, cow, person, chair) or `teacher2` (dog, horse, sheep, sofa);
    `paper` for the paper's schedule and batch size (A5), and units as blocks.
"""

from amalgam_tf.data.splits import load_groups
from configs import common

COMMAND = (
    "python -m amalgam_tf.bin.train --config=configs/teachers/voc2012_part.py:{0}{2} --workdir=runs/voc2012_part/seed0/{0}{1} "
    "--config.data.root=VOCdevkit --config.model.weights=resnet50_notop.h5"
)
GROUPS = load_groups("voc2012_part_animals")
ARGUMENTS = ("teacher1", "teacher2", "teacher1,paper")


def get_config(argument: str = "teacher1"):
    words = common.words(argument, "paper", *GROUPS)
    name, paper = common.one(words, tuple(GROUPS)), "paper" in words
    config = common.teacher(
        COMMAND.format(name, "_paper" if paper else "", ",paper" if paper else ""),
        name,
        GROUPS[name],
        backbone="resnet50",
        input_size=96,
        weights="imagenet",
    )
    config.data = common.voc(2012, "train", "val")  # the test split is not public: val is the TEST set here
    config.licence = "VOC images: Flickr terms, research only; ImageNet weights: MIT (He et al., ported by Keras)"
    config.precision = "mixed_bfloat16"
    config.epochs, config.batch_size = 4, 32  # a schedule that ends before they overfit 2,652 images
    if paper:
        common.paper_teacher(config)
    return common.smoke(config) if "smoke" in words else config
