"""The VOC 2012 part: two ResNet-50 teachers of four labels each, one student for all eight labels (or any of them).

Command: python -m amalgam_tf.bin.train --config=configs/afk/voc2012_part.py --workdir=runs/voc2012_part/seed0/student
    --config.data.root=VOCdevkit --config.student.weights=resnet50_notop.h5 --config.train_missing_teachers=True
Data: VOC 2012 in the devkit layout; data.root is the folder that holds VOC2012/. Weights: Keras's no-top ResNet-50 file, or
    leave student.weights at imagenet to let Keras download it.
Hardware and expected time: 2 CPU cores, about 10 minutes a teacher and 15 minutes a student.
Published row: none; the images are those of VOC 2012 that show one of five animals, so no published number is comparable.
Expected: see results/voc2012_part.

Argument: one of `student` (default: AFK with the paper's branch rule), `tolerance` or `budget` (our branch rules, on the blocks of the run
in `../student`), `distill` (plain distillation of as many steps) and `paper` (the paper's schedule, batch size, gate and units; hours).
All experiments in one go, with their estimated times: python -m amalgam_tf.bin.reproduce
--artefact=afk.table1,afk.table2 --scale=small --dry_run
"""

from configs import common

ARGUMENTS = ("student", "tolerance", "budget", "distill", "paper")
COMMAND = (
    "python -m amalgam_tf.bin.train --config=configs/afk/voc2012_part.py:{0} --workdir=runs/voc2012_part/seed0/{0} "
    "--config.data.root=VOCdevkit --config.student.weights=resnet50_notop.h5 --config.train_missing_teachers=True"
)
BLOCKS, BLOCK_EPOCHS, FINETUNE_EPOCHS = 4, 1.0, 1.5


def get_config(argument: str = ""):
    words = common.words(argument, *ARGUMENTS)
    word = common.one(words, ARGUMENTS)
    entries = {n: {"path": f"{{workdir}}/../{n}", "config": f"configs/teachers/voc2012_part.py:{n}"} for n in ("teacher1", "teacher2")}
    config = (common.distill if word == "distill" else common.afk)(COMMAND.format(word), entries, weights="imagenet")
    config.precision = "mixed_bfloat16"  # 0.7 of the time of float32 on CPUs that know it
    config.data = common.voc(2012, "train", "val")  # the test split is not public: val is the TEST set here
    if word == "distill":
        config.distill.epochs = BLOCKS * BLOCK_EPOCHS + FINETUNE_EPOCHS
        config.distill.optimizer.learning_rate = 1e-4  # of 3e-5, 1e-4 and 3e-4 the best held-out loss, see results/README.md
        return common.smoke(config) if "smoke" in words else config
    config.block.epochs, config.finetune.epochs = BLOCK_EPOCHS, FINETUNE_EPOCHS
    config.finetune.optimizer.learning_rate = 3e-5  # blocks: 1e-4; chosen likewise
    config.branch.max_parameters = 30e6  # the two teachers have 47.2 million, one net of their kind 23.6 million
    if word in ("tolerance", "budget"):
        config.branch.rule, config.branch.blocks_from = word, "{workdir}/../student"
    if word == "paper":
        common.paper_afk(config)
    return common.smoke(config) if "smoke" in words else config
