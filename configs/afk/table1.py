"""AFK's table 1: students for all twenty classes of VOC 2007, from two or three teachers at 224 px (E2).

Command: python -m amalgam_tf.bin.train --config=configs/afk/table1.py:TargetRes50 --workdir=runs/afk_table1/TargetRes50
    --config.data.root=VOCdevkit --config.train_missing_teachers=True
Data: VOC 2007, trainval and test, as the devkit unpacks; data.root is the folder that
    holds VOC2007/. ImageNet weights are downloaded by Keras, or name a file: --config.student.weights=resnet50_notop.h5.
Hardware and expected time: one GPU of 12 GB or more, about three hours a student with stages as blocks, ten with units
    (estimated, never run).
Published row: afk_table1/<argument>, and TeacherRes50 for the teachers measured beside it.
Expected: accuracy above the paper's, which is that of a trivial predictor; the claims to test are relative (spec E1).

Argument: the row of the table (default TargetRes50): TargetRes50, TargetRes50-3 (three teachers), TargetDenseNet;
`TargetRes50_b1` .. `TargetRes50_b4` let all labels leave at the end of one stage, from the blocks trained by TargetRes50 (A17); the rows
before fine-tuning also stand in the `curve` of TargetRes50's results.
`paper` beside it for the paper's blocks (residual units), schedule, batch size and gate (workdirs end in _paper). When runs are done:
    python -m amalgam_tf.bin.compare --runs='runs/afk_table1/*' --output=runs/afk_table1/compare
"""

from configs import common

ROWS = {
    "TargetRes50": dict(teachers="configs/teachers/voc.py:2007,halves,resnet50", folder="halves_resnet50", count=2),
    "TargetRes50_b1": dict(teachers="configs/teachers/voc.py:2007,halves,resnet50", folder="halves_resnet50", count=2, rule="b1"),
    "TargetRes50_b2": dict(teachers="configs/teachers/voc.py:2007,halves,resnet50", folder="halves_resnet50", count=2, rule="b2"),
    "TargetRes50_b3": dict(teachers="configs/teachers/voc.py:2007,halves,resnet50", folder="halves_resnet50", count=2, rule="b3"),
    "TargetRes50_b4": dict(teachers="configs/teachers/voc.py:2007,halves,resnet50", folder="halves_resnet50", count=2, rule="b4"),
    "TargetRes50-3": dict(teachers="configs/teachers/voc.py:2007,thirds,resnet50", folder="thirds_resnet50", count=3),
    "TargetDenseNet": dict(teachers="configs/teachers/voc.py:2007,halves,densenet121", folder="halves_densenet121", count=2),
}
ARGUMENTS = (*ROWS, *(f"{row},paper" for row in ROWS))


def get_config(argument: str = "TargetRes50"):
    words = common.words(argument, "paper", *ROWS)
    row = common.one(words, tuple(ROWS), "TargetRes50")
    config = common.table_row(1, row, ROWS[row], common.voc(2007, "trainval", "test"), "VOCdevkit", "paper" in words)
    return common.smoke(config) if "smoke" in words else config
