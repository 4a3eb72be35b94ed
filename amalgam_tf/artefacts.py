"""The tables and figures of the four papers, and which runs each of them needs: a description that does nothing, without TensorFlow.

An artefact names the runs that its rows are, at the paper's scale and at the small one; `CHOICES` are small runs beside them, by which our
defaults were chosen, and readings of what the papers leave open. Everything else follows from the configs:
teachers and component nets from their `teachers`, workdirs and data folders from their commands, published rows from `published_row`;
smoke runs are the paper's rows with the word `smoke` (`amalgam_tf.reproduction`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from amalgam_tf.errors import UserError, one_of

SCALES = ("paper", "small", "smoke")
SEEDS = {"paper": (0,), "small": (0, 1, 2), "smoke": (0,)}
# Papers whose seeds share their teachers: what the seeds vary there is the student.
TAUGHT_ONCE = ("soka", "dual_gan")

DATA = {  # folder -> what it holds, and where that is to be had
    "VOCdevkit": "PASCAL VOC 2007 and 2012 as the devkit unpacks, VOC2007/ and VOC2012/ in it, from host.robots.ox.ac.uk/pascal/VOC",
    "coco": "MS-COCO 2014, annotations/, train2014/ and val2014/ in it (small: 2017), from cocodataset.org",
    "celeba": "CelebA, list_attr_celeba.txt, list_eval_partition.txt and img_align_celeba/ in it, from its page at mmlab.ie.cuhk.edu.hk",
    "cifar10_images": "CIFAR-10 as image files, train/<class>/ and test/<class>/ in it, from www.cs.toronto.edu/~kriz/cifar.html",
    "fine_grained": "Stanford Dogs, CUB-200-2011, FGVC-Aircraft and Stanford Cars, each as it unpacks, from their authors' pages",
    "cifar100": "CIFAR-100 as image files in a folder train/, from www.cs.toronto.edu/~kriz/cifar.html",
    "cityscapes": "Cityscapes images in a folder train/, from www.cityscapes-dataset.com",
    "taskonomy": "Taskonomy, building wiconisco in any of its layouts, from taskonomy.stanford.edu",
    "rgbd": "7-Scenes frames as tools/prepare_7scenes.py makes them, from the RGB-D Dataset 7-Scenes of Microsoft Research",
    "rooms": "frames of rooms as JPEG or PNG files in a folder train/, the RGB-D Dataset 7-Scenes for one",
}


@dataclass(frozen=True)
class Wanted:
    """One run of an artefact.

    Attributes:
        config: its file and argument.
        leaves: what it changes there.
        name: its folder, in the place of the last one of the config's own workdir.
        taught: leaves of the teachers that are trained for it.
        shown: whether it is compared; otherwise another run only stands on it.
        once: whether at the small scale one seed is enough: no claim rests on it.
    """

    config: str
    leaves: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    taught: Mapping[str, Any] = field(default_factory=dict)
    shown: bool = True
    once: bool = False


@dataclass(frozen=True)
class Artefact:
    """A table or a figure of a paper.

    Attributes:
        name: `afk.table1`: paper and number.
        said: what it shows, in few words.
        paper: its runs at the paper's scale; none of `CHOICES`.
        small: its runs on small data.
        table: the published table beside which `amalgam-compare` sets them; "": none.
        figure: a figure of every run that it collects; "": none.
    """

    name: str
    said: str
    paper: Sequence[Wanted]
    small: Sequence[Wanted]
    table: str = ""
    figure: str = ""

    @property
    def taught_once(self) -> bool:
        return self.name.partition(".")[0] in TAUGHT_ONCE

    def runs(self, scale: str) -> tuple[Wanted, ...]:
        """The runs of a scale. Of smoke runs none stands on another one but on its teachers."""
        if scale == "smoke":
            return tuple(Wanted(f"{r.config.removesuffix(',paper')},smoke", r.leaves, r.name) for r in self.paper if r.shown)
        return tuple({"paper": self.paper, "small": self.small}[scale])


def chosen(names: Sequence[str]) -> tuple[Artefact, ...]:
    """The artefacts of some names, in the order of the papers, then `CHOICES`; `all`: every table and figure of the papers.

    Raises:
        UserError: an unknown name, or none.
    """
    if not names:
        raise UserError(f"--artefact names nothing: say list, all or some of {', '.join(ARTEFACTS)}")
    if "all" in names:
        return tuple(ARTEFACTS.values())
    known = {**ARTEFACTS, **CHOICES}
    wanted = {one_of("--artefact", name, (*known, "all", "list")) for name in names}
    return tuple(a for a in known.values() if a.name in wanted)


def seeds(texts: Sequence[str]) -> tuple[int, ...]:
    """Seeds as a user gives them, each once.

    Raises:
        UserError: one that is no number from 0 on.
    """
    if wrong := [t for t in texts if not t.strip().isdecimal()]:
        raise UserError(f"--seeds: {wrong[0]!r} is no seed: give numbers from 0 on, separated by commas")
    return tuple(dict.fromkeys(int(t) for t in texts))


def lengths(config: str) -> dict[str, float]:
    """The leaves that give a small run the length which results/README.md tells of; none for those whose configs have it themselves."""
    file, _, argument = config.partition(":")
    words = set(argument.split(","))
    return next((leaves for of, some, leaves in _LENGTHS if file == of and (not some or some & words)), {})


_LENGTHS = (  # config, words of which it has one, leaves: the first that fits
    ("configs/teachers/celeba.py", {"resnet50"}, {"epochs": 3.0}),
    ("configs/teachers/celeba.py", set(), {"epochs": 6.0}),
    ("configs/customize/celeba.py", {"component", "n1", "n2", "n3", "n4"}, {"train.epochs": 15.0}),
    ("configs/customize/celeba.py", set(), {"train.epochs": 12.0}),
    ("configs/teachers/cifar10_part.py", set(), {"epochs": 4.0}),
    ("configs/customize/cifar10_part.py", {"X1", "X2"}, {"train.epochs": 5.0}),
)


def _runs(file: str, *arguments: str, after: str = "", **changes: Any) -> tuple[Wanted, ...]:
    """One run of a config an argument; `after` is added to each."""
    return tuple(Wanted(f"configs/{file}.py:{a}{after}", **changes) for a in arguments)


def _once(runs: Iterable[Wanted]) -> tuple[Wanted, ...]:
    return tuple(replace(r, once=True) for r in runs)


# -- AFK --------------------------------------------------------------------------------------------------------------
_HALF = {"finetune.epochs": 0.0, "block.epochs": 0.5}
_VOC = "afk/voc2012_part"
_ALL_AT = tuple(
    Wanted(f"configs/{_VOC}.py:student", {"branch.rule": b, "branch.blocks_from": "{workdir}/../student"}, f"student_{b}")
    for b in ("b1", "b2", "b3", "b4")
)


def _at_64(name: str, argument: str = "student", **leaves: Any) -> Wanted:
    """A run at 64 px, its teachers cut at every unit."""
    small = {"model.input_size": 64, "model.granularity": "unit"}
    return Wanted(f"configs/{_VOC}.py:{argument}", {"granularity": "stage", **leaves}, f"64px/{name}", small, once=True)


_PAIRS = tuple(_at_64(pair.replace(",", "_"), tasks=pair, granularity="unit", **_HALF) for pair in ("cow,horse", "chair,dog"))
_COCO = (
    Wanted(
        "configs/afk/table3.py:TargetRes50",
        {"data.train": "train2017", "data.test": "val2017", "data.images": "images/{split}", "precision": "mixed_bfloat16"},
        taught={"model.input_size": 96, "epochs": 8},
        once=True,
    ),
)


def _tuned(name: str, rate: float) -> tuple[Wanted, Wanted]:
    """An optimizer for both sides, half of the headline's steps."""
    afk, plain = (
        {f"{s}.optimizer.{k}": v for s in sections for k, v in (("name", name), ("learning_rate", rate))}
        for sections in (("block", "finetune"), ("distill",))
    )
    short, label = {"block.epochs": 0.5, "finetune.epochs": 0.75, "curve": False}, f"{name}_{rate:.0e}".replace("e-0", "e-")
    return (
        _at_64(f"tune_afk_{label}", **afk, **short),
        _at_64(f"tune_distill_{label}", "distill", **plain, **{"distill.epochs": 2.75}),
    )


_VARIANTS = {
    "gate_sigmoid": {"filter.gate": "sigmoid"},
    "gate_linear": {"filter.gate": "linear"},
    "targets_hard": {"targets": "hard"},
    "batchnorm_batch": {"block.batchnorm": "batch"},
}
_RATES = (("adam", 3e-5), ("adam", 1e-4), ("adam", 3e-4), ("sgd", 1e-2))
_AFK_CHOICES = (*(r for rate in _RATES for r in _tuned(*rate)), *(_at_64(n, **_HALF, **v) for n, v in _VARIANTS.items()))
_AFK = (
    Artefact(
        "afk.fig3",
        "pairs of labels, the student branched at each unit",
        _runs("afk/fig3", "bus_diningtable", "dog_horse", after=",paper"),
        _PAIRS,
        "afk_fig3",
    ),
    Artefact(
        "afk.table1",
        "VOC 2007, students of two and three teachers, all labels at one block",
        _runs(
            "afk/table1",
            *(f"TargetRes50{b}" for b in ("", "_b1", "_b2", "_b3", "_b4", "-3")),
            "TargetDenseNet",
            after=",paper",
        ),
        (*_runs(_VOC, "student", "distill"), *_ALL_AT),
        "afk_table1",
    ),
    Artefact(
        "afk.table2",
        "VOC 2012, students of two and three teachers",
        _runs("afk/table2", "TargetRes50", "TargetRes50-3", "TargetDenseNet", after=",paper"),
        _runs(_VOC, "student", "tolerance", "budget", "distill"),
        "afk_table2",
    ),
    Artefact("afk.table3", "COCO, top-3 labels", _runs("afk/table3", "TargetRes50", "TargetDenseNet", after=",paper"), _COCO, "afk_table3"),
)


# -- Customize --------------------------------------------------------------------------------------------------------
_CELEBA, _SETS = "customize/celeba", ("dogs", "cub", "aircraft", "cars")
_COMPONENTS = {
    "hair": ("Black_Hair", "Blond_Hair", "Brown_Hair", "Bangs"),
    "mouth": ("Big_Lips", "Smiling", "Mouth_Slightly_Open", "Wearing_Lipstick"),
}
_GROUPS = {g: (*(f"{g},component,{a}" for a in own), g) for g, own in _COMPONENTS.items()}
_ABLATED = tuple(
    f"{group},component,{attribute}{variant}"
    for group, attribute in (("hair", "Black_Hair"), ("mouth", "Mouth_Slightly_Open"), ("hair", "Brown_Hair"))
    for variant in (",kd", ",no_bridge", ",no_selection", "")
)
_HALVES = {"dogs": ("D1", "D2"), "cub": ("B1", "B2"), "aircraft": ("A1", "A2"), "cars": ("C1", "C2")}


def _celeba(name: str, said: str, *arguments: str) -> Artefact:
    """An artefact on CelebA, whose small runs are the same ones on a part of it; three seeds for the group of hair."""
    table = f"cust_{name}" if name.startswith("table") else ""
    paper, small = (_runs(_CELEBA, *arguments, after=after) for after in (",paper", ",part"))
    return Artefact(f"customize.{name}", said, paper, tuple(replace(r, once=":hair," not in r.config) for r in small), table)


_CUSTOMIZE = (
    _celeba("table3", "CelebA, source, component and target nets of hair and mouth", *_GROUPS["hair"], *_GROUPS["mouth"]),
    _celeba("table4", "sizes of source, component and target nets", *_GROUPS["mouth"]),
    _celeba("table5", "target nets of two, three and four component nets", *(f"{g}{n}" for g in _GROUPS for n in (",two", ",three", ""))),
    Artefact(
        "customize.table7",
        "fine-grained sets, component and target nets (small: CIFAR-10)",
        _runs("customize/fine_grained", *(w for s in _SETS for w in (*(f"{s},{h}" for h in _HALVES[s]), s)), after=",paper"),
        _runs("customize/cifar10_part", "X1", "X2", "target"),
        "cust_table7",
    ),
    _celeba("table8", "component nets without selection, without bridges, without both", *_ABLATED),
    _celeba("table9", "target nets in two stages and in one", "hair,two_stage", "hair,one_shot"),
    _celeba(
        "fig5",
        "component nets of one to four source nets",
        *(f"{a},n{n}" for a in ("Arched_Eyebrows", "High_Cheekbones") for n in range(1, 5)),
    ),
)


# -- Dual-GAN ---------------------------------------------------------------------------------------------------------
_TABLES, _PART, _ROWS = "dual_gan/tables", "dual_gan/part", ("ours", "ka", "similar", "different", "noise", "dafl")
_GENERATED = "figures/generated.png"
_DUAL_GAN = (
    Artefact(
        "dual_gan.table1",
        "without images, beside other images and DAFL, ten labels of one teacher",
        _runs(_TABLES, *(f"table1,{row}" for row in _ROWS)),
        _runs(_PART, *(f"scenes,{row}" for row in _ROWS)),
    ),
    Artefact(
        "dual_gan.table2",
        "twenty labels of two teachers",
        _runs(_TABLES, *(f"table2,{row}" for row in ("ours", "ka", "dafl"))),
        _once(_runs(_PART, *(f"union,{row}" for row in ("ours", "ka", "dafl")))),
    ),
    Artefact(
        "dual_gan.table3",
        "COCO, top-3 labels (small: CIFAR-10)",
        _runs(_TABLES, *(f"table3,{row}" for row in ("ours", "ka", "dafl"))),
        _runs(_PART, *(f"cifar10,{row}" for row in _ROWS)),
    ),
    Artefact(
        "dual_gan.table4",
        "inputs of a block: the student's features, the generator's, both",
        (*_runs(_TABLES, "table1,ours", shown=False), *_runs(_TABLES, *(f"table4,lambda{x}" for x in ("10", "01", "11")))),
        _once(_runs(_PART, "cifar10,ours", "cifar10,lambda10", "cifar10,lambda01")),
    ),
    Artefact(
        "dual_gan.fig4",
        "generated images, beside DAFL's",
        _runs(_TABLES, "fig4,ours", "fig4,dafl"),
        _once(_runs(_PART, "cifar10,ours", "cifar10,dafl")),
        figure=_GENERATED,
    ),
    Artefact(
        "dual_gan.fig5",
        "labels of generated images with and without the discrete loss",
        _runs(_TABLES, "fig5,with", "fig5,without"),
        _once(_runs(_PART, "cifar10,ours", "cifar10,off")),
        figure=_GENERATED,
    ),
)


# -- SOKA -------------------------------------------------------------------------------------------------------------
_DENSE, _NAMED = "soka/taskonomy", "depth-edge2d"  # the pair of the paper's tables 3 to 5
_OTHER_PAIRS = ("edge2d-normal", "depth-normal", "depth-edge3d", "edge2d-edge3d", "edge3d-normal")
_ONE_SEED = tuple(f":{pair},scenes" for pair in _OTHER_PAIRS)


def _soka(name: str, said: str, *variants: str, pairs: Sequence[str] = (), figure: str = "", real: Sequence[Wanted] = ()) -> Artefact:
    """An artefact of variants of one pair, and of other pairs; small: on scenes, and of `real` on RGB-D frames."""
    arguments = (*(f"{_NAMED}{v and ',' + v}" for v in variants), *pairs)
    paper, small = (_runs(_DENSE, *arguments, after=after) for after in ("", ",scenes"))
    small = tuple(replace(r, once=r.config.endswith(_ONE_SEED)) for r in small)
    return Artefact(f"soka.{name}", said, paper, (*small, *_once(real)), figure=figure)


_SOKA = (
    _soka("table1", "six pairs of tasks", "", pairs=_OTHER_PAIRS),
    _soka("table2", "sizes of teachers and student", ""),
    _soka("table3", "beside students of the true maps", "", "dmtl", "gradnorm"),
    _soka("table4", "auxiliary teachers of high and low similarity, and none", "", "no_auxiliary", "weak", "strong"),
    _soka("table5", "distillation, with MIA, with competition and collaboration", "", "kd", "kd_mia"),
    _soka("fig4", "maps of teachers and student", "", figure="figures/panels.png", real=_runs(_DENSE, "depth-normal,rgbd")),
    _soka("fig5", "task weights at two rates", "", "fast_weights"),
)

ARTEFACTS: Mapping[str, Artefact] = {a.name: a for a in (*_AFK, *_CUSTOMIZE, *_DUAL_GAN, *_SOKA)}

_READINGS = ("no_bn_stat", "probability", "off", "minus_logit", "minus_prob", "bernoulli", "softmax", "plain", "batch", "eta_image")
CHOICES: Mapping[str, Artefact] = {
    f"{paper}.choices": Artefact(f"{paper}.choices", said, (), tuple(small))
    for paper, said, small in (
        ("afk", "optimizers, gates, targets, batch norm", _AFK_CHOICES),
        (
            "customize",
            "one component net an image (C6), teachers of two architectures",
            (*_runs(_CELEBA, "hair,part", "hair,image,part"), *_once(_runs(_CELEBA, "hair,component,Black_Hair,heterogeneous,part"))),
        ),
        (
            "dual_gan",
            "the papers' own losses, readings of each loss (G1, G2, G3), statistics, one group",
            (
                *_runs(_PART, "cifar10,ours", "cifar10,literal", "cifar10,dafl,literal"),
                *_once(_runs(_PART, *(f"cifar10,{row}" for row in _READINGS))),
            ),
        ),
        (
            "soka",
            "task weights equal or weighing eq. 8 (S6), features aggregated as printed (S2), RGB-D frames",
            (
                *_runs(_DENSE, f"{_NAMED},scenes", f"{_NAMED},equal,scenes", f"{_NAMED},weighted,scenes"),
                *_once(_runs(_DENSE, f"{_NAMED},printed_mia,scenes")),
                *_once(_runs(_DENSE, "depth-normal,rgbd", "depth-normal,kd,rgbd")),
            ),
        ),
    )
}


# -- published rows that no run of their own stands for ---------------------------------------------------------------------
_TEACHERS, _SIZES = "the teachers of the table's runs, measured beside every student", "sizes, counted in every run"
BESIDE = {  # reference, or the beginning of several -> where it is measured
    "afk_table1/TeacherRes50": _TEACHERS,
    "afk_table1/all-negative accuracy": "the trivial predictor, measured in every run",
    "afk_table2/all-negative accuracy": "the trivial predictor, measured in every run",
    "afk_fig3/diningtable": "the student of bus and diningtable",
    "afk_fig3/horse": "the student of dog and horse",
    "cust_table4": _SIZES,
    "dgan_table1/TeacherNet": _TEACHERS,
    "soka_table1/teacher": _TEACHERS,
    "soka_table2": _SIZES,
    "soka_table4/teacher": _TEACHERS,
}
_OTHERS = "another group's multi-label method on real images, as the paper quotes it: not a method of this library"
NOT_OURS = {
    **dict.fromkeys((f"afk_table1/{m}" for m in ("HCP-2000", "HCP-VGG", "RLSD+ft-RPN", "CNN+LSTM", "PF-DLDL")), _OTHERS),
    **dict.fromkeys((f"afk_table2/{m}" for m in ("HCP-2000", "Zhou et al.", "HCP-VGG", "PF-DLDL")), _OTHERS),
    **dict.fromkeys((f"afk_table3/{m}" for m in ("RLSD+ft-RPN", "CNN+RNN", "CNN+LSTM")), _OTHERS),
    **dict.fromkeys((f"dgan_table2/{m}" for m in ("HCP-2000", "HCP-VGG", "RLSD+ft-RPN", "partial-BCE")), _OTHERS),
    "dgan_table3/RLSD+ft-RPN": _OTHERS,
}
NO_RESULTS = {  # tables that print no number
    "cust_table2_sources": "which attributes a source net knows",
    "cust_table6_sources": "which classes a source net knows",
}
