"""AFK's table 3: students for COCO's eighty categories from two teachers of forty, top-3 labels (E3, A18).

Command: python -m amalgam_tf.bin.train --config=configs/afk/table3.py:TargetRes50 --workdir=runs/afk_table3/TargetRes50
    --config.data.root=coco --config.train_missing_teachers=True
Data: COCO 2014; data.root is the folder that holds annotations/, train2014/ and val2014/.
    ImageNet weights are downloaded by Keras, or name a file: --config.student.weights=resnet50_notop.h5.
Hardware and expected time: one GPU of 12 GB or more, about a day with stages as blocks (estimated, never run).
Published row: afk_table3/<argument>; compare with the `threshold` mode of top_k (A18).
Expected: unknown at this scale.

Argument: the row of the table (default TargetRes50): TargetRes50 or TargetDenseNet.
`paper` beside it for the paper's blocks (residual units), schedule, batch size and gate (workdirs end in _paper). When runs are done:
    python -m amalgam_tf.bin.compare --runs='runs/afk_table3/*' --output=runs/afk_table3/compare
"""

from configs import common

ROWS = {
    "TargetRes50": dict(teachers="configs/teachers/coco.py:resnet50", folder="resnet50", count=2),
    "TargetDenseNet": dict(teachers="configs/teachers/coco.py:densenet121", folder="densenet121", count=2),
}
ARGUMENTS = (*ROWS, *(f"{row},paper" for row in ROWS))


def get_config(argument: str = "TargetRes50"):
    words = common.words(argument, "paper", *ROWS)
    row = common.one(words, tuple(ROWS), "TargetRes50")
    config = common.table_row(3, row, ROWS[row], common.coco("train2014", "val2014"), "coco", "paper" in words)
    return common.smoke(config) if "smoke" in words else config
