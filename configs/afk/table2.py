"""AFK's table 2: students for all twenty classes of VOC 2012, from two or three teachers at 224 px (E2).

Command: python -m amalgam_tf.bin.train --config=configs/afk/table2.py:TargetRes50 --workdir=runs/afk_table2/TargetRes50
    --config.data.root=VOCdevkit --config.train_missing_teachers=True
Data: VOC 2012, train and val (the labels of test are not public, A3), as the devkit unpacks; data.root is the folder that
    holds VOC2012/. ImageNet weights are downloaded by Keras, or name a file: --config.student.weights=resnet50_notop.h5.
Hardware and expected time: one GPU of 12 GB or more, about three hours a student with stages as blocks, ten with units
    (estimated, never run).
Published row: afk_table2/<argument>; the paper's own rows have no printed mean.
Expected: accuracy above the paper's, which is that of a trivial predictor; the claims to test are relative (spec E1).

Argument: the row of the table (default TargetRes50): TargetRes50, TargetRes50-3 (three teachers), TargetDenseNet.
`paper` beside it for the paper's blocks (residual units), schedule, batch size and gate (workdirs end in _paper). When runs are done:
    python -m amalgam_tf.bin.compare --runs='runs/afk_table2/*' --output=runs/afk_table2/compare
"""

from configs import common

ROWS = {
    "TargetRes50": dict(teachers="configs/teachers/voc.py:2012,halves,resnet50", folder="halves_resnet50", count=2),
    "TargetRes50-3": dict(teachers="configs/teachers/voc.py:2012,thirds,resnet50", folder="thirds_resnet50", count=3),
    "TargetDenseNet": dict(teachers="configs/teachers/voc.py:2012,halves,densenet121", folder="halves_densenet121", count=2),
}
ARGUMENTS = (*ROWS, *(f"{row},paper" for row in ROWS))


def get_config(argument: str = "TargetRes50"):
    words = common.words(argument, "paper", *ROWS)
    row = common.one(words, tuple(ROWS), "TargetRes50")
    config = common.table_row(2, row, ROWS[row], common.voc(2012, "train", "val"), "VOCdevkit", "paper" in words)
    return common.smoke(config) if "smoke" in words else config
