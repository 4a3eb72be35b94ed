"""What all experiments share: the sections of a config and the shrinking to a smoke run.

A config is a Python file with `get_config(argument)`. The argument is a comma-separated list of words; `smoke` is known
to every config: embedded scenes, tiny nets, a few steps, under a minute on CPU.
"""

from collections.abc import Mapping, Sequence
import random

from ml_collections import ConfigDict

from amalgam_tf import data, models
from amalgam_tf.data.scenes import SHAPES
from amalgam_tf.data.splits import celeba_sources
from amalgam_tf.errors import UserError

ALL = "*"


def words(argument: str, *known: str) -> set[str]:
    """The words of a config's argument.

    Raises:
        UserError: a word that is neither `smoke` nor in `known`.
    """
    found = {w.strip() for w in argument.split(",") if w.strip()}
    if unknown := found - {"smoke", *known}:
        raise UserError(f"this config does not know the argument {', '.join(sorted(unknown))}: it takes {', '.join(['smoke', *known])}")
    return found


def one(words: set[str], choices: Sequence[str], default: str = "") -> str:
    """The one of some words that an argument names; the first, or `default`, if it names none.

    Raises:
        UserError: it names several.
    """
    named = [c for c in choices if c in words]
    if len(named) > 1:
        raise UserError(f"this config takes one of {', '.join(named)}, not all of them")
    return named[0] if named else default or choices[0]


def joined(*words: str) -> str:
    """A config's argument from words, the empty ones left out."""
    return ",".join(filter(None, words))


def base(command: str, method: str) -> ConfigDict:
    """What every experiment has."""
    return ConfigDict(
        dict(
            method=method,
            command=command,
            tasks=ALL,  # "a,b", "a@T1", "*", "*@T1"
            seed=0,
            precision="float32",  # float32, mixed_bfloat16 or mixed_float16
            published_row="",  # e.g. afk_table2/TargetRes50: the row the results stand beside
            log_every_steps=10,
            save_every_steps=200,
            flip=True,  # show the mirrored view in half of all appearances
            data=scenes(),
        )
    )


def scenes(train: int = 3000, test: int = 1000, size: int = 32) -> ConfigDict:
    """The data section, filled in for the embedded scenes (its keys: `data.DEFAULTS`)."""
    return ConfigDict({**data.DEFAULTS, "train_count": train, "test_count": test, "render_size": size})


def voc(year: int, train: str, test: str) -> ConfigDict:
    """The data section for a VOC devkit; `data.root` is the folder that holds VOC2007/ or VOC2012/."""
    section = scenes()
    section.update(dict(reader="voc", year=year, train=train, test=test))
    return section


def coco(train: str, test: str) -> ConfigDict:
    """The data section for COCO; `data.root` is the folder that holds annotations/ and the folders of images."""
    section = scenes()
    section.update(dict(reader="coco", train=train, test=test))
    return section


def celeba(part: int, local: bool = False) -> ConfigDict:
    """The data section for CelebA; `data.root` is the folder that holds the text files and img_align_celeba/.

    Args:
        part: which sixth of the train split is trained on: 1 to 5 for source nets, 6 for their students (C9).
        local: train and test by `list_local_partition.txt`, a list of one's own whose split `val` is the test part.
    """
    section = scenes()
    section.update(dict(reader="celeba", part=str(part), fit="crop"))
    if local:
        section.update(dict(partition="list_local_partition.txt", test="val"))
    return section


STUDENTS_PART = 6  # C9


def sources_part(source: str) -> int:
    """The part of CelebA's train split of source net S1, S2, ...: five parts in turn (C9)."""
    return (int(source[1:]) - 1) % (STUDENTS_PART - 1) + 1


ATTRIBUTE_GROUPS = ("hair", "mouth", "eye", "face")
FIG5 = ("Arched_Eyebrows", "High_Cheekbones")


def attribute_sources(group: str) -> dict[str, tuple[str, ...]]:
    """Customize's source nets by name, the attribute a net is wanted for first.

    Args:
        group: one of `ATTRIBUTE_GROUPS`, or an attribute of figure 5. The sources of figure 5 are printed nowhere: four nets of the
            attribute and two others each, drawn by seed from all that any source net knows.
    """
    if group not in FIG5:
        return celeba_sources(group)
    others = sorted({a for g in ATTRIBUTE_GROUPS for own in celeba_sources(g).values() for a in own} - {group})
    return {f"S{i}": (group, *random.Random(f"{group}/{i}").sample(others, 2)) for i in range(1, 5)}


def wanted_attributes(group: str) -> tuple[str, ...]:
    """The attributes that a group's target net knows, in the order of the paper."""
    return tuple(dict.fromkeys(own[0] for own in attribute_sources(group).values()))


def fine_grained(sets: str, groups: str) -> ConfigDict:
    """The data section for fine-grained sets (`dogs`, `dogs+cub`); `data.root` is the folder that holds their folders.

    Aircraft trains on its trainval (C10); the others have no val, for them trainval means train.
    """
    section = scenes()
    section.update(dict(reader=sets, groups=groups, train="trainval", fit="crop"))
    return section


def cifar10(groups: str) -> ConfigDict:
    """The data section for CIFAR-10 as class folders; `data.root` is the folder that holds train/ and test/."""
    section = scenes()
    section.update(dict(reader="folder", task="cifar10", groups=groups))
    return section


# Half and auxiliary classes of each source net; for CIFAR-10 what table 6 has for larger sets.
CIFAR10_SOURCES = {"S1": "X1+X2a", "S2": "X1+X2b", "S3": "X2+X1a", "S4": "X2+X1b"}


def smoke_categories(tasks: Sequence[str]) -> dict[str, str]:
    """A category task of the scenes in the place of each half, alone (D1, D2) or with auxiliary classes (D1+Bq1)."""
    return {task: "shape" if task[1] == "1" else "shape_surface" for task in tasks}


def teacher(
    command: str, name: str, tasks: Sequence[str], *, backbone: str, input_size: int, weights: str = "none", epochs: float = 30
) -> ConfigDict:
    """A supervised teacher (spec A5); whole `epochs` can be changed to whole ones only."""
    config = base(command, "teacher")
    config.tasks = ",".join(tasks)
    config.name = name
    config.licence = ""  # a note for the card
    config.model = ConfigDict(
        dict(
            backbone=backbone,
            input_size=input_size,
            width=1.0,
            granularity="stage",  # stage or unit: where the net can be cut
            weights=weights,  # none, imagenet, or a Keras weights file without the top
            normalise=models.normalisation(backbone, weights),
        )
    )
    config.epochs = epochs
    config.batch_size = 16
    config.batchnorm = "batch" if weights == "none" else "frozen"  # statistics in training: of the batch, or the stored ones (A14)
    config.crop = 0.4  # smallest area share of a random resized crop; 0: whole images
    # Measured on VOC images at 96 px from ImageNet: Adam with stored statistics beats the paper-like SGD with batch statistics.
    config.optimizer = sgd(0.01, weight_decay=1e-4, head_multiplier=10.0) if weights == "none" else adam(1e-4)
    return config


def paper_teacher(config: ConfigDict) -> ConfigDict:
    """What the paper states: residual units as blocks (A9), poly 0.01 / 0.9, weight decay 5e-3, batch 16.

    SGD with momentum is our reading (A5), the ten-fold rate of the head the authors' later code.
    """
    config.optimizer, config.batch_size, config.batchnorm = sgd(0.01, weight_decay=5e-3, head_multiplier=10.0), 16, "batch"
    if config.model.backbone.startswith("resnet"):
        config.model.granularity = "unit"  # A9: 16 blocks for a ResNet-50, 4 for a DenseNet
    return config


def afk(command: str, teachers: dict[str, dict[str, str]], weights: str = "none") -> ConfigDict:
    """An AFK student of some teachers: our defaults. `paper_afk` turns them into the paper's setting."""
    config = student_of(base(command, "afk"), teachers, weights)
    config.curve = True  # measure the student with all tasks branched at each block in turn (fig. 3, rows b1..b4)
    config.filter = ConfigDict(dict(gate="two_sigmoid", reduction=8, bias=True))  # A7
    # From scratch a block needs batch statistics and a high rate: Adam 5e-3 halves the quickstart's held-out divergences of 1e-3
    # at every block. From ImageNet stored statistics and a low rate.
    scratch = weights == "none"
    statistics = "batch" if scratch else "frozen"
    config.block = ConfigDict(
        dict(epochs=4.0, batch_size=32, batchnorm=statistics, restart_schedule=True, optimizer=adam(5e-3 if scratch else 1e-4))  # A6
    )
    config.branch = ConfigDict(
        dict(
            rule="argmin",  # argmin (eq. 9), tolerance, smallest, budget, or a block name: all tasks leave there (A17)
            tolerance=0.01,  # nats above a task's smallest held-out loss that a deeper branch may cost
            max_parameters=0.0,  # of rule=budget: either this
            max_flops=0.0,  # or this, of one image
            split="held_out",  # A10
            share="per_teacher_block",  # A12
            blocks_from="",  # workdir of a run whose trained blocks are taken over
        )
    )
    config.finetune = _distillation(3.0, statistics, 1e-3 if scratch else 1e-4)  # A13, A14
    config.features = ConfigDict(dict(memory_gb=4.0, disk_gb=0.0))  # what the frozen part of the student wrote, kept for every image
    return config


def distill(command: str, teachers: dict[str, dict[str, str]], weights: str = "none") -> ConfigDict:
    """Plain multi-teacher distillation into one net with a head for all tasks: the baseline of every amalgamation."""
    config = student_of(base(command, "distill"), teachers, weights)
    scratch = weights == "none"
    config.distill = _distillation(20.0, "batch" if scratch else "frozen", 5e-3 if scratch else 1e-4)
    return config


def customize(command: str, teachers: dict[str, dict], *, stage: str, width: float = 1.0, backbone: str = "resnet18") -> ConfigDict:
    """A component net (`stage="component"`) of source nets, or a target net (`target`) of component nets: our defaults.

    Args:
        command: as in `base`.
        teachers: name -> `path`, `config` and, if it need not be trained for every request, `tasks`, those it knows.
        stage: component or target.
        width: factor on the channels of the backbone; the paper's targets have 90 / 64 (attributes) and 72 / 64 (categories).
        backbone: of the student.
    """
    config = student_of(base(command, "customize"), teachers, "none")
    config.train_missing_teachers = True
    config.name, config.stage = "component", stage
    config.student.backbone, config.student.width = backbone, width
    config.select = "task"  # the surest teacher of each task (C5), of the whole `image` (C6, as printed), or `all` alike (C13)
    config.scale, config.scale_multiplier = "student", 0.01  # C4
    sides = "both" if stage == "component" else "student"
    config.bridge = ConfigDict(
        dict(use=True, tap="pre_relu", sides=sides, share=0.5, bias=True, regularise="teacher")  # C1, C2, C3
    )
    config.train = ConfigDict(dict(epochs=50.0, batch_size=64, batchnorm="batch", optimizer=adam(1e-3)))
    return config


def student_of(config: ConfigDict, teachers: dict[str, dict[str, str]], weights: str) -> ConfigDict:
    """What every student of a pool has; `weights`: its start."""
    config.teachers = ConfigDict(teachers)
    config.teacher_weights = ConfigDict(dict.fromkeys(teachers, 1.0))  # lambda_n (A19)
    config.train_missing_teachers = False
    config.targets = "soft"  # A8
    config.granularity = ""  # stage, unit; "": blocks as the teachers were cut (A9)
    config.student = ConfigDict(dict(weights=weights, normalise=""))  # A20; "": as the first teacher
    return config


def _distillation(epochs: float, statistics: str, rate: float) -> ConfigDict:
    """Training of a whole student against the teachers' outputs."""
    return ConfigDict(dict(epochs=epochs, batch_size=32, batchnorm=statistics, trainable="all", optimizer=adam(rate)))


def teachers_in(folder: str, source: str, count: int) -> dict[str, dict[str, str]]:
    """The entries of teacher1 ... teacher{count} below a folder, each trained by the config `source` with its name for an argument."""
    return {f"teacher{i}": {"path": f"{folder}/teacher{i}", "config": f"{source},teacher{i}"} for i in range(1, count + 1)}


def table_row(table: int, row: str, spec: dict, data: ConfigDict, root: str, paper: bool) -> ConfigDict:
    """The student of one row of AFK's tables 1 to 3, at the paper's scale.

    Args:
        table: which.
        row: as printed.
        spec: `teachers`: config that trains them; `folder`: of theirs beside the student's; `count`; `rule`: where all tasks leave, if the
            row says so (A17).
        data: the data section.
        root: the data set's folder in the command.
        paper: the paper's setting; then workdirs end in `_paper`.
    """
    config = afk(
        f"python -m amalgam_tf.bin.train --config=configs/afk/table{table}.py:{row}{',paper' if paper else ''} "
        f"--workdir=runs/afk_table{table}/{row}{'_paper' if paper else ''} --config.data.root={root} --config.train_missing_teachers=True",
        teachers_in(f"{{workdir}}/../{spec['folder']}", spec["teachers"], spec["count"]),
        weights="imagenet",
    )
    config.data, config.published_row = data, f"afk_table{table}/{row}"
    config.granularity = "stage"  # `paper`: units
    if "rule" in spec:
        config.branch.rule, config.branch.blocks_from = spec["rule"], "{workdir}/../TargetRes50"
    return paper_afk(config) if paper else config


def paper_afk(config: ConfigDict) -> ConfigDict:
    """What the paper states: poly 0.01 / 0.9, weight decay 5e-3, batch 16; with SGD (A6) and a plain sigmoid gate (A7) for our reading.

    The teachers decide the blocks (A9), so their configs and folders get the word `paper` too.
    """
    for entry in config.teachers.values():
        entry.config, entry.path = f"{entry.config},paper", f"{entry.path}_paper"
    last = {"b1": "b1_3", "b2": "b2_4", "b3": "b3_6", "b4": "b4_3"}  # the stages of a ResNet-50 end with these units
    config.branch.rule = last.get(config.branch.rule, config.branch.rule)
    config.granularity = ""  # units (A9); DenseNets: their four blocks
    config.branch.blocks_from += "_paper" if config.branch.blocks_from else ""
    return paper_student(config)


def paper_student(config: ConfigDict) -> ConfigDict:
    """Filters and recipe that AFK and Dual-GAN state for their students: as in `paper_afk`."""
    config.filter = ConfigDict(dict(gate="sigmoid", reduction=8, bias=False))
    for section, rate in ((config.block, 0.01), (config.finetune, 0.001)):
        section.optimizer, section.batch_size = sgd(rate, weight_decay=5e-3), 16
    config.block.batchnorm = "batch"
    return config


def sgd(rate: float, weight_decay: float = 0.0, head_multiplier: float = 1.0) -> ConfigDict:
    return _optimizer(name="sgd", learning_rate=rate, weight_decay=weight_decay, head_multiplier=head_multiplier)


def adam(rate: float) -> ConfigDict:
    return _optimizer(name="adam", learning_rate=rate)


def halved(optimizer: ConfigDict, epochs: Sequence[float], of: float) -> ConfigDict:
    """The same optimizer with a rate that halves at some epochs of a phase of `of` epochs (C8)."""
    optimizer.schedule, optimizer.milestones = "halve", tuple(e / of for e in epochs)
    return optimizer


def _optimizer(**values) -> ConfigDict:
    keys = dict(
        name="sgd", learning_rate=0.01, momentum=0.9, weight_decay=0.0, schedule="poly", power=0.9, warmup_steps=0, head_multiplier=1.0
    )
    return ConfigDict({**keys, **values})


def smoke(config: ConfigDict, names: Mapping[str, str] | None = None) -> ConfigDict:
    """Shrinks any experiment to a few steps on embedded scenes; everything that is a choice of method stays.

    Args:
        config: what is shrunk, in place.
        names: task -> the task of the scenes that stands for it; tasks without one are dropped. None: whatever the teachers know.
    """
    head = "softmax2" if config.data.reader == "celeba" else ""
    config.data = scenes(train=96, test=48, size=16)
    config.data.hold_out = 0.25
    config.data.cache_dir, config.data.binary_head = "", head
    if names is not None:
        config.tasks = ",".join([names[t] for t in config.tasks.split(",") if t in names][:2])
    elif config.method == "teacher":
        config.tasks = ",".join(_shapes_for(config.name))
    if config.method == "teacher":
        small = "resnet8" if config.model.backbone != "resnet50" or names is None else "resnet14"  # a heterogeneous pool stays one
        config.model.update(dict(backbone=small, input_size=16, width=0.5, weights="none", normalise="centred"))
        config.epochs, config.batch_size, config.batchnorm = 1, 16, "batch"
        return config
    if config.method == "customize":
        _few_teachers(config, names)
        config.student.backbone, config.student.width = "resnet8", 0.5 if config.stage == "component" else 0.75
        config.train.epochs, config.train.batch_size = 1.5, 16
    else:
        config.tasks = ALL
    for name, entry in config.teachers.items():
        entry.path = "{workdir}/teachers/" + name
        entry.config += ",smoke" if ":" in entry.config else ":smoke"
        if "data" in entry:  # of other images than the student's: here all see scenes
            del entry["data"]
    config.train_missing_teachers = True
    config.student.weights, config.student.normalise = "none", ""
    for section in (config[name] for name in ("block", "finetune", "distill") if name in config):
        section.batchnorm = "batch"
        few = dict(epochs=0.5, steps=2, batch_size=16, look_steps=0)
        section.update({key: value for key, value in few.items() if key in section})
    if config.method in ("dual_gan", "dafl"):
        config.gen.update(dict(steps=4, batch_size=16, look_steps=2, z_dim=8, width=0.5))
        config.generated.update(dict(held_out_images=24, **({"generator_from": ""} if "generator_from" in config.generated else {})))
        config.collapse.positives = 0.0
    if config.method == "afk":
        config.branch.blocks_from = ""
        if config.branch.rule not in ("argmin", "tolerance", "smallest", "budget"):  # a block: the small nets have one unit a stage
            config.branch.rule = "b1_1" if "_" in config.branch.rule else "b1"
    return config


def _few_teachers(config: ConfigDict, names: Mapping[str, str]) -> None:
    """Keeps two teachers of a component, of a target those that know a task that is left; on the scenes they have no data of their own."""
    left, kept = set(config.tasks.split(",")), {}
    for name, entry in config.teachers.items():
        known = [names[t] for t in entry.get("tasks", "").split(",") if t in names]
        if left & set(known) or (config.stage == "component" and len(kept) < 2):
            kept[name] = {"path": entry.path, "config": entry.config, **({"tasks": ",".join(known)} if known else {})}
    config.teachers, config.teacher_weights = ConfigDict(kept), ConfigDict(dict.fromkeys(kept, 1.0))


def _shapes_for(name: str) -> tuple[str, ...]:
    """Different labels for different teachers: three shapes from a place that depends on the last digit of the name."""
    start = 3 * (int(name[-1]) - 1 if name[-1].isdigit() else 0) % (len(SHAPES) - 2)
    return tuple(SHAPES[start : start + 3])
