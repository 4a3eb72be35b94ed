"""Teachers for AFK's tables 1 and 2 and its figure 3: an ImageNet net at 224 px that knows a share of VOC's twenty classes (A5, A16).

Command: python -m amalgam_tf.bin.train --config=configs/teachers/voc.py:2007,halves,resnet50,teacher1
    --workdir=runs/afk_table1/halves_resnet50/teacher1 --config.data.root=VOCdevkit
Data: VOC 2007 and/or 2012 as the devkit unpacks; data.root is the folder that holds VOC2007/ and VOC2012/. ImageNet weights are
    downloaded by Keras, or name a file: --config.model.weights=resnet50_notop.h5.
Hardware and expected time: one GPU of 12 GB or more, about an hour (estimated, never run at this scale).
Published row: afk_table1/TeacherRes50 (2007); shown with the student of the same table.
Expected: more than the paper's accuracy, which is below the all-negative predictor's; see "How to read the numbers" in README.md.

Argument, in any order: 2007 (default) or 2012; halves (default: two teachers, data/splits/voc_ke.json), pairs (dog and horse exchanged) or
`thirds` (three teachers); teacher1 (default), teacher2, teacher3; resnet50 (default) or densenet121; `paper` for the paper's
schedule and batch size.
"""

from amalgam_tf.data.splits import load_groups
from configs import common

GROUPS = {"halves": "voc_ke", "pairs": "voc_ke_dog_horse_swapped", "thirds": "voc_three_alphabetical"}
PARTS = {"2007": ("trainval", "test"), "2012": ("train", "val")}  # A3: the test split of 2012 is not public
CHOICES = (tuple(PARTS), tuple(GROUPS), ("teacher1", "teacher2", "teacher3"), ("resnet50", "densenet121"))
ARGUMENTS = ("2007,halves,teacher2", "2012,thirds,teacher3", "2007,pairs,densenet121", "2007,paper")


def get_config(argument: str = ""):
    words = common.words(argument, "paper", *(w for choice in CHOICES for w in choice))
    year, grouping, name, backbone = (common.one(words, choice) for choice in CHOICES)
    groups = load_groups(GROUPS[grouping])
    if name not in groups:
        raise common.UserError(f"{grouping} has the teachers {', '.join(groups)}, not {name}")
    paper = "paper" in words
    student = "afk_fig3" if grouping == "pairs" else {"2007": "afk_table1", "2012": "afk_table2"}[year]
    word = ",".join([year, grouping, backbone, name, *(["paper"] if paper else [])])
    command = (
        f"python -m amalgam_tf.bin.train --config=configs/teachers/voc.py:{word} "
        f"--workdir=runs/{student}/{grouping}_{backbone}/{name}{'_paper' if paper else ''} --config.data.root=VOCdevkit"
    )
    config = common.teacher(command, name, groups[name], backbone=backbone, input_size=224, weights="imagenet")
    config.data = common.voc(int(year), *PARTS[year])
    config.model.granularity = "unit" if backbone == "resnet50" else "stage"  # A9; a student may join units to stages
    config.licence = "VOC images: Flickr terms, research only; ImageNet weights as keras.applications"
    if paper:
        common.paper_teacher(config)
    return common.smoke(config) if "smoke" in words else config
