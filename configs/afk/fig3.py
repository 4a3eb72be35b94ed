"""AFK's figure 3: two-task students, one label from each of two teachers; test score of the student branched at each of the 16 units (E1).

Command: python -m amalgam_tf.bin.train --config=configs/afk/fig3.py:dog_horse --workdir=runs/afk_fig3/dog_horse
    --config.data.root=VOCdevkit --config.train_missing_teachers=True
Data: VOC 2007, trainval and test, as the devkit unpacks; data.root is the folder that holds VOC2007/. (The paper does not say which year;
    dog's teacher has the 88.2 of table 1.) ImageNet weights are downloaded by Keras, or name a file: --config.student.weights=....
Hardware and expected time: one GPU of 12 GB or more, about ten hours a pair (estimated, never run at this scale).
Published row: afk_fig3/dog and afk_fig3/horse (or bus and diningtable); the results name the first.
Expected: see results/voc2012_part for two pairs at 64 px on a part of VOC 2012.

Argument: `bus_diningtable` (default) or `dog_horse`; `paper` for the paper's schedule, batch size and gate. The curve is `curve` in
results.json and a figure of
    python -m amalgam_tf.bin.compare --runs='runs/afk_fig3/*' --output=runs/afk_fig3/compare
"""

from configs import common

PAIRS = {"bus_diningtable": "halves", "dog_horse": "pairs"}  # the second from another grouping: see data/splits (A16)
FOLDERS = {"halves": "{workdir}/../../afk_table1/halves_resnet50", "pairs": "{workdir}/../pairs_resnet50"}  # the first are table 1's
ARGUMENTS = (*PAIRS, "dog_horse,paper")


def get_config(argument: str = "bus_diningtable"):
    words = common.words(argument, "paper", *PAIRS)
    pair = common.one(words, tuple(PAIRS))
    paper = "paper" in words
    command = (
        f"python -m amalgam_tf.bin.train --config=configs/afk/fig3.py:{pair}{',paper' if paper else ''} "
        f"--workdir=runs/afk_fig3/{pair}{'_paper' if paper else ''} --config.data.root=VOCdevkit --config.train_missing_teachers=True"
    )
    folder, source = FOLDERS[PAIRS[pair]], f"configs/teachers/voc.py:2007,{PAIRS[pair]},resnet50"
    config = common.afk(command, common.teachers_in(folder, source, 2), weights="imagenet")
    config.data = common.voc(2007, "trainval", "test")
    config.tasks, config.granularity = pair.replace("_", ","), "unit"
    config.published_row = f"afk_fig3/{pair.partition('_')[0]}"
    if paper:
        common.paper_afk(config)
    return common.smoke(config) if "smoke" in words else config
