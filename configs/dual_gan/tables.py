"""Dual-GAN's tables 1 to 4 and figures 4 and 5 at the paper's scale: students of ImageNet ResNet-101 teachers at 224 px, without images.

Command: python -m amalgam_tf.bin.train --config=configs/dual_gan/tables.py:table1,ours --workdir=runs/dgan_table1/ours
    --config.data.root=VOCdevkit --config.train_missing_teachers=True
Data: VOC 2007 (tables 1, 2, 4) or COCO 2014 (table 3) for the teachers, whose configs are trained first if missing, and for the test
    numbers; none for the figures. Row `similar` wants a folder of CIFAR-100 images (--config.data.train_root=cifar100, with a sub-folder
    train), row `different` one of Cityscapes. ImageNet weights are downloaded by Keras, or name a file: --config.student.weights=...
Hardware and expected time: one GPU of 24 GB, about ten hours a student (estimated, never run).
Published row: dgan_table1, 2, 3 or 4, the row of the argument; figures have none.
Expected: the orderings of tables 1 and 4, as far as the paper's losses make images that show labels: in small they do not
    (results/README.md), and a run of them stops at the guard `collapse` (0.2 labels an image after 500 steps). Table 1's Data-free KA and
    Random Noise and all of table 2 are doubtful as printed (G16). The student and AFK's rows have the recipe that the papers state,
    DAFL's student and the teachers ours.

Argument: a table and a row.
`table1` (default): `ours` (default), `ka` (AFK on the teachers' own unlabelled images), `similar`, `different`, `noise`, `dafl`; ten
labels from one teacher of twenty. `table2`: `ours`, `ka`, `dafl`; twenty labels from two teachers. `table3`: the same on COCO, top-3.
`table4`: `lambda11` (both inputs), `lambda10`, `lambda01`; one generator, that of table 1's `ours`. `fig4`: image grids
(figures/generated.png) of `ours` and `dafl`, and `fig5`: label histograms (`labels` in results.json) `with` and `without` the discrete
loss: of Dual-GAN the generator alone, its student is not trained to speak of. `random` beside any row: a student from random weights,
without which even the rows without images have seen ImageNet (G14).
"""

from amalgam_tf.data.splits import load_groups
from configs import common, common_generated

ROWS = {
    "table1": {
        "ours": "Data-free KA",
        "ka": "KA",
        "similar": "Similar Data",
        "different": "Diff Data",
        "noise": "Random Noise",
        "dafl": "DAFL",
    },
    "table2": {"ours": "Data-free KA", "ka": "KA-ResNet", "dafl": "DAFL"},
    "table3": {"ours": "Data-free KA", "ka": "KA-ResNet", "dafl": "DAFL"},
    "table4": {"lambda11": "1/1", "lambda10": "1/0", "lambda01": "0"},
    "fig4": {"ours": "", "dafl": ""},
    "fig5": {"with": "", "without": ""},
}
WORDS = tuple(dict.fromkeys(row for rows in ROWS.values() for row in rows))
ARGUMENTS = tuple(f"{table},{row}" for table, rows in ROWS.items() for row in rows) + ("table1,ours,random", "table1,dafl,random")
OTHERS = {"similar": ("folder", "cifar100"), "different": ("folder", "cityscapes"), "noise": ("noise", "")}
NAMES = {"table2": ("teacher1", "teacher2"), "table3": ("teacher1", "teacher2")}
STEPS, BLOCKS = 10000, 4  # of each phase; stages of the teachers
IMAGES = 5011  # of VOC 2007's trainval: as many for the rows without data


def get_config(argument: str = ""):
    words = common.words(argument, "random", *ROWS, *WORDS)
    table = common.one(words, tuple(ROWS))
    row = common.one(words, WORDS, next(iter(ROWS[table])))
    if row not in ROWS[table]:
        raise common.UserError(f"{table} has the rows {', '.join(ROWS[table])}, not {row}")
    random = "random" in words
    source = "coco" if table == "table3" else "voc"
    word = common.joined(table, row, "random" if random else "")
    root = "coco" if source == "coco" else "VOCdevkit"
    command = (
        f"python -m amalgam_tf.bin.train --config=configs/dual_gan/tables.py:{word} "
        f"--workdir=runs/dgan_{table}/{row}{'_random' if random else ''} --config.data.root={root} --config.train_missing_teachers=True"
    )
    entries = {
        name: {"path": f"{{workdir}}/../../dgan_teachers/{source}/{name}", "config": f"configs/teachers/dual_gan.py:{source},{name}"}
        for name in NAMES.get(table, ("whole",))
    }
    batch = 128 if source == "coco" else 64  # no smaller than the number of labels, 80 or 20 (G15)
    config = _method(row, command, entries, "none" if random else "imagenet", batch)
    config.data = common.coco("train2014", "val2014") if source == "coco" else common.voc(2007, "trainval", "test")
    config.tasks = ",".join(load_groups("voc_ke")["teacher1"]) if "whole" in entries else common.ALL
    if "gen" in config:
        config.collapse.positives = 0.2  # hours at the paper's scale are worth a guard
    if ROWS[table][row]:
        config.published_row = f"dgan_{table}/{ROWS[table][row]}"
    if row in OTHERS:
        common_generated.other_images(config, *OTHERS[row])
        config.data.train = "train"
        config.data.train_count, config.data.render_size = IMAGES, 224
        for entry in config.teachers.values():
            entry.data.update(dict(train="trainval", train_count=3000, render_size=32))
    if table == "table4":
        config.block.lambda1, config.block.lambda2 = (float(digit) for digit in row.removeprefix("lambda"))
        config.generated.generator_from = "{workdir}/../../dgan_table1/ours"
    if table.startswith("fig"):
        config.evaluate_on = ""
        if "block" in config:
            config.block.steps, config.finetune.steps = 1, 0
    if row == "without":
        config.gen.dis, config.gen.gamma = "off", 0.0
    return common.smoke(config) if "smoke" in words else config


def _method(row: str, command: str, entries: dict, weights: str, batch: int):
    if row in ("ka", *OTHERS):
        config = common.paper_student(common.afk(command, entries, weights))
        config.granularity, config.curve = "stage", False
        return config
    if row == "dafl":
        config = common_generated.literal(common_generated.dafl(command, entries, weights))
        config.gen.steps = STEPS + (BLOCKS + 1) * STEPS * 16 // batch  # as many images as the generator, blocks and fine-tuning of `ours`
    else:
        config = common_generated.paper_dual_gan(common_generated.dual_gan(command, entries, weights))
        config.gen.steps, config.block.steps, config.finetune.steps = STEPS, STEPS, STEPS
    config.gen.batch_size = batch
    config.generated.held_out_images = 1024  # they are kept in memory
    return config
