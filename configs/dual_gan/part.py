"""Dual-GAN, small: students without images at 32 px, on embedded scenes and on CIFAR-10, beside all their baselines and ablations.

Command: python -m amalgam_tf.bin.train --config=configs/dual_gan/part.py:scenes,ours --workdir=runs/dgan_part/scenes/ours
Data: none for `scenes` and `union`; CIFAR-10 as JPEG or PNG files in class folders for `cifar10`: data.root holds train/ and test/.
    `different` of the scenes is CIFAR-10 (--config.data.train_root=cifar10_images), `similar` of CIFAR-10 is VOC 2012
    (data.train_root is the folder that holds VOC2012/), its `different` a folder of frames of rooms (data.train_root, with a sub-folder
    train).
Hardware and expected time: one CPU core: about five minutes a teacher and a student of AFK's, sixteen to twenty a student without data.
Published row: none; the paper has no experiment of this size.
Expected: on CIFAR-10 teacher and ka, then ours and dafl side by side, noise far behind (results/dgan_cifar10); the paper has ours clearly
    above dafl. On scenes no student without data learns much yet (results/README.md).

Argument: a set, `scenes` (default: one teacher of ten shapes, a student for five of them), `union` (two teachers of five shapes, a
student for all ten) or `cifar10` (two teachers of five classes, one-vs-rest, both trained on all images; a student for all ten); and a
row: `ours` (default), `dafl`, `ka` (AFK on the teachers' own unlabelled images), `similar`, `different`, `noise`; ablations of ours:
`lambda10`, `lambda01` (one input of the two), `minus_logit`, `minus_prob`, `off` (readings of the discrete loss), `bernoulli`,
`softmax` (information entropy), `no_bn_stat` (batch-norm statistics not matched), `probability` (pseudo-labels by probability alone, our
reading of eq. 6), `batch` (the generator's batch statistics in step II), `eta_image` (branch points from F1 alone), `nodata` (ours, with
not even a test image), `plain` (one group: the generator of DAFL); or a teacher: `whole`, `half1` or `half2`. `literal`, alone or beside
`dafl`: ours, or DAFL, with the papers' own losses of the generator.
"""

from configs import common, common_generated

SHAPES = common.SHAPES
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TEACHERS = {
    "scenes": {"whole": SHAPES},
    "union": {"half1": SHAPES[::2], "half2": SHAPES[1::2]},
    "cifar10": {"half1": CLASSES[:5], "half2": CLASSES[5:]},
}
NAMES = ("whole", "half1", "half2")
OTHERS = {
    "scenes": {"similar": ("scenes_unseen", ""), "different": ("folder", "cifar10_images"), "noise": ("noise", "")},
    "cifar10": {"similar": ("voc", "VOCdevkit"), "different": ("folder", "rooms"), "noise": ("noise", "")},
}
OTHERS["union"] = OTHERS["scenes"]
CHANGES = {
    "ours": {},
    "lambda10": {"block.lambda2": 0.0},
    "lambda01": {"block.lambda1": 0.0},
    "minus_logit": {"gen.dis": "minus_logit"},
    "minus_prob": {"gen.dis": "minus_prob"},
    "off": {"gen.dis": "off", "gen.gamma": 0.0},
    "bernoulli": {"gen.ie": "bernoulli"},
    "softmax": {"gen.ie": "softmax"},
    "no_bn_stat": {"gen.bn_stat": 0.0},
    "probability": {"gen.pseudo": "probability", "collapse.positives": 0.0},
    "batch": {"generated.batchnorm": "batch"},
    "nodata": {"evaluate_on": ""},
    "eta_image": {"block.eta_from": "image"},
    "plain": {"gen.groups": 1},
}
SHARED = ("lambda10", "lambda01", "batch", "eta_image")  # they take the generator of `ours`
WORDS = (*CHANGES, "dafl", "ka", "similar", "different", "noise", *NAMES)
ARGUMENTS = (
    *(f"{of},{row}" for of in TEACHERS for row in WORDS if row not in CHANGES and (row in NAMES) <= (row in TEACHERS[of])),
    *(f"{of},{row}" for of in TEACHERS for row in ("ours", "literal", "dafl,literal")),
    *(f"cifar10,{row}" for row in CHANGES if row not in ("ours", "nodata")),
    "scenes,nodata",
)
GENERATOR_STEPS, BLOCK_STEPS, FINETUNE_STEPS = 1000, 400, 1400


def get_config(argument: str = ""):
    words = common.words(argument, "literal", *TEACHERS, *WORDS)
    source, row = common.one(words, tuple(TEACHERS)), common.one(words, WORDS, "ours")
    literal = "literal" in words
    if literal and row not in ("ours", "dafl"):
        raise common.UserError(f"{row} has no literal variant: it stands beside ours or dafl")
    if row in NAMES and row not in TEACHERS[source]:
        raise common.UserError(f"{source} has the teachers {', '.join(TEACHERS[source])}, not {row}")
    named = row if not literal else "literal" if row == "ours" else f"{row},literal"
    command = (
        f"python -m amalgam_tf.bin.train --config=configs/dual_gan/part.py:{source},{named} "
        f"--workdir=runs/dgan_part/{source}/{named.replace(',', '_')}"
        + (" --config.data.root=cifar10_images" if source == "cifar10" else "")
        + ("" if row in NAMES else " --config.train_missing_teachers=True")
    )
    config = _teacher(source, row, command) if row in NAMES else _student(source, row, command)
    if literal:
        common_generated.literal(config)
    return common.smoke(config) if "smoke" in words else config


def _data(source: str):
    data = common.cifar10("") if source == "cifar10" else common.scenes(train=8000, test=1000, size=32)
    data.one_vs_rest = source == "cifar10"
    return data


def _teacher(source: str, name: str, command: str):
    config = common.teacher(command, name, TEACHERS[source][name], backbone="resnet14", input_size=32)
    config.data = _data(source)
    # Scenes: 12 epochs on 4,000 images end at an mAP of 0.45, 20 on 8,000 at 0.69.
    config.epochs = 12 if source == "cifar10" else 20
    config.batch_size, config.crop, config.optimizer = 64, 0.6, common.adam(2e-3)
    return config


def _student(source: str, row: str, command: str):
    entries = {name: {"path": f"{{workdir}}/../{name}", "config": f"configs/dual_gan/part.py:{source},{name}"} for name in TEACHERS[source]}
    config = _method(row, command, entries)
    config.data = _data(source)
    config.tasks = ",".join(SHAPES[::2]) if source == "scenes" else common.ALL
    if row in OTHERS[source]:
        common_generated.other_images(config, *OTHERS[source][row])
        if source == "cifar10":
            config.data.train_count = 8000  # of noise: as many as CIFAR-10's images
            for entry in config.teachers.values():
                entry.data.train_count = _data(source).train_count
    return config


def _method(row: str, command: str, entries: dict):
    if row in ("ka", "similar", "different", "noise"):
        config = common.afk(command, entries)
        config.curve, config.block.batch_size, config.finetune.batch_size = False, 64, 64
        return config
    if row == "dafl":
        config = common_generated.dafl(command, entries, width=0.5)
        # As many images as ours: blocks and fine-tuning have half the generator's batches.
        config.gen.steps = GENERATOR_STEPS + (3 * BLOCK_STEPS + FINETUNE_STEPS) // 2
        config.generated.held_out_images = 2048
        return config
    config = common_generated.dual_gan(command, entries, width=2.0)
    config.gen.steps, config.block.steps, config.finetune.steps = GENERATOR_STEPS, BLOCK_STEPS, FINETUNE_STEPS
    config.generated.held_out_images = 2048
    config.update_from_flattened_dict(CHANGES[row])
    if row == "plain":
        config.gen.width = 0.5
    if row in SHARED:
        config.generated.generator_from = "{workdir}/../ours"
    return config
