"""Customize on attributes of CelebA: component nets of one attribute and target nets of several (tables 3, 5, 8 and 9, figure 5).

Command: python -m amalgam_tf.bin.train --config=configs/customize/celeba.py:hair
    --workdir=runs/cust_celeba/hair/target --config.data.root=celeba
Data: CelebA, aligned and cropped: the folder with list_attr_celeba.txt, list_eval_partition.txt and img_align_celeba/.
Hardware and expected time: one GPU of 12 GB or more, about half a day for a group with its 6 to 10 source nets and 3 or 4 component
    nets, which are trained on the way and shared by all runs of a group (estimated, never run at this scale); `part`: 2 CPU cores, see
    amalgam_tf.bin.reproduce --artefact=customize.table3 --scale=small.
Published row: cust_table3/<group>/<attribute>, several where several attributes are learnt; cust_table5, 8 and 9 by the words below.
Expected: component above source nets, target about as good as components; the majority class stands beside (C14).

Argument, in any order: a group, hair (default), mouth, eye or face, alone for its target net (90 / 64 of a ResNet-18's width), and one of
    `component` and an attribute    the component net of this attribute; beside it an ablation (C13): `kd`, `no_bridge`, `no_selection`;
        or `heterogeneous` (hair, Black_Hair): a ResNet-18 and a ResNet-50 from ImageNet teach
    `two`, `three`                  target nets of table 5, of hair or mouth (four components are the group)
    `two_stage`, `one_shot`         hair's Black_Hair and Blond_Hair from component nets, or straight from source nets (table 9, C12)
    `image`                         the target of one teacher an image, as printed (C6)
or an attribute of figure 5 and n1 to n4: the component net of so many source nets.
`paper`: the authors' recipe (C8; one learning rate for nets and bridges, and halving by epochs as was meant).
`part`: the first 8,000 images with a list of one's own (list_local_partition.txt), 64 px, half the width.
"""

from amalgam_tf import published
from amalgam_tf.data.scenes import SHAPES
from configs import common

FILE = "configs/customize/celeba.py"
GROUPS = (*common.ATTRIBUTE_GROUPS, *common.FIG5)
ATTRIBUTES = tuple(dict.fromkeys(a for g in common.ATTRIBUTE_GROUPS for a in common.wanted_attributes(g)))
ABLATIONS = {"kd": "KD", "no_bridge": "without transfer bridge", "no_selection": "without teacher selection"}  # -> row of table 8
SUBSETS = {"two": "2", "three": "3"}  # -> n_components of table 5
TABLE9 = {"one_shot": "one-shot", "two_stage": "two-stage"}
TARGETS = (*SUBSETS, *TABLE9, "image")
NETS = ("n1", "n2", "n3", "n4")
ARGUMENTS = (
    *(g + s for g in common.ATTRIBUTE_GROUPS for s in ("", ",paper", ",part")),
    *(f"{g},component,{a}{s}" for g in common.ATTRIBUTE_GROUPS for a in common.wanted_attributes(g) for s in ("", ",part")),
    *(
        f"{g},component,{a},{w}"
        for g, a in (("hair", "Black_Hair"), ("hair", "Brown_Hair"), ("mouth", "Mouth_Slightly_Open"))
        for w in ABLATIONS
    ),
    *(f"{g},{w}" for g in ("hair", "mouth") for w in (*SUBSETS, "image")),
    *(f"hair,{w}{s}" for w in TABLE9 for s in ("", ",part")),
    *(f"hair,component,Black_Hair,heterogeneous{s}" for s in ("", ",part")),
    *(f"{a},{n}" for a in common.FIG5 for n in NETS),
    "hair,component,Brown_Hair,paper",
    "hair,component,Black_Hair,kd,part",
)


def get_config(argument: str = ""):
    words = common.words(argument, *GROUPS, *ATTRIBUTES, "component", *ABLATIONS, "heterogeneous", *TARGETS, *NETS, "paper", "part")
    group, scale = common.one(words, GROUPS), common.one(words, ("", "paper", "part"))
    variant = common.one(words, ("", *ABLATIONS, "heterogeneous", *TARGETS, *NETS))
    attribute = group if group in common.FIG5 else common.one(words, ("", *ATTRIBUTES))
    _check(group, attribute, variant, bool({"component", *NETS} & words))
    config = _component(group, attribute, variant, scale) if attribute else _target(group, variant, scale)
    config.data = common.celeba(common.STUDENTS_PART, local=scale == "part")
    config.train.optimizer = common.adam(1e-3)
    if scale == "paper":
        config.train.optimizer = common.halved(common.adam(1e-4), (5, 10, 15, 20, 25), of=50)
    if scale == "part":
        config.train.epochs, config.train.batch_size = 6, 32
        config.student.width *= 0.5
    return common.smoke(config, dict(zip(common.wanted_attributes(group), SHAPES, strict=False))) if "smoke" in words else config


def _check(group: str, attribute: str, variant: str, component: bool) -> None:
    wanted = common.wanted_attributes(group)
    if attribute and attribute not in wanted:
        raise common.UserError(f"group {group} has component nets of {', '.join(wanted)}, not of {attribute}")
    if component != bool(attribute):
        raise common.UserError(f"say `component` and one attribute ({', '.join(wanted)}), or n1 to n4 beside an attribute of figure 5")
    of_components = (*NETS,) if group in common.FIG5 else ("", *ABLATIONS, *(["heterogeneous"] if attribute == "Black_Hair" else []))
    of_targets = ("", "image", *(SUBSETS if group in ("hair", "mouth") else ()), *(TABLE9 if group == "hair" else ()))
    if variant not in (allowed := of_components if attribute else of_targets):
        what = f"the component net of {attribute}" if attribute else f"a target net of {group}"
        raise common.UserError(f"{what} does not take {variant or 'no word'}: it takes {', '.join(filter(None, allowed))}")


def _component(group: str, attribute: str, variant: str, scale: str):
    """The component net of one attribute, taught by the source nets that are wanted for it."""
    names = [name for name, own in common.attribute_sources(group).items() if own[0] == attribute]
    count = int(variant[1:]) if variant in NETS else len(names)
    sources = {name: _source(group, name, "", scale) for name in names[:count]}
    if variant == "heterogeneous":
        last = names[-1]
        sources = {**{n: sources[n] for n in names[:-1]}, f"{last}_resnet50": _source(group, last, "resnet50", scale)}
    entries = {name: {"path": f"{{workdir}}/../../sources/{name}", **entry} for name, entry in sources.items()}
    word = common.joined(group, "" if variant in NETS else "component", "" if group in common.FIG5 else attribute, variant, scale)
    folder = f"components/{attribute}{variant and '_' + variant}"
    config = common.customize(_command(word, group, folder, scale), entries, stage="component")
    config.name, config.tasks = f"C_{attribute}", attribute
    if variant in ("kd", "no_selection"):
        config.select = "all"
    config.bridge.use = variant not in ("kd", "no_bridge")
    rows = [f"cust_table3/{group}/{attribute}"] if not variant and group in ("hair", "mouth") else []
    if attribute in published.table("cust_table8")[0] and variant in ("", *ABLATIONS):
        rows.append(f"cust_table8/{ABLATIONS.get(variant, 'whole model')}")
    config.published_row = ",".join(rows)
    return config


def _target(group: str, variant: str, scale: str):
    """The target net of a group, or of some of its attributes."""
    tasks, rows = common.wanted_attributes(group), []
    if variant in SUBSETS:
        printed = [r for r in published.table("cust_table5") if (r["group"], r["n_components"]) == (group, SUBSETS[variant])]
        tasks = tuple(r["attribute"] for r in printed)
        rows = [f"cust_table5/{group}/{SUBSETS[variant]}/{t}" for t in tasks]
    elif variant in TABLE9:
        tasks, rows = ("Black_Hair", "Blond_Hair"), [f"cust_table9/{TABLE9[variant]}"]
    elif group in ("hair", "mouth"):
        rows = [*(f"cust_table3/{group}/{t}" for t in tasks), *(f"cust_table5/{group}/4/{t}" for t in tasks)]
    if variant == "one_shot":
        of = {name: own for name, own in common.attribute_sources(group).items() if own[0] in tasks}
        entries = {
            n: {"path": f"{{workdir}}/../sources/{n}", "tasks": ",".join(own), **_source(group, n, "", scale)} for n, own in of.items()
        }
    else:
        entries = {
            f"C_{t}": {
                "path": f"{{workdir}}/../components/{t}",
                "config": f"{FILE}:{common.joined(group, 'component', t, scale)}",
                "tasks": t,
            }
            for t in tasks
        }
    command = _command(common.joined(group, variant, scale), group, f"target_{variant}" if variant else "target", scale)
    config = common.customize(command, entries, stage="target", width=90 / 64)
    config.tasks, config.published_row = ",".join(tasks), ",".join(rows)
    if variant == "one_shot":
        config.bridge.sides = "both"  # C12: bridges as between source and component nets
    if variant == "image":
        config.select = "image"  # C6
    return config


def _source(group: str, name: str, backbone: str, scale: str) -> dict:
    """What trains a source net, and the leaf of the data section that is its own: its part of the train split (C9)."""
    config = f"configs/teachers/celeba.py:{common.joined(group, name, backbone, scale)}"
    return {"config": config, "data": {"part": str(common.sources_part(name))}}


def _command(argument: str, group: str, folder: str, scale: str) -> str:
    return (
        f"python -m amalgam_tf.bin.train --config={FILE}:{argument} "
        f"--workdir=runs/cust_celeba{scale and '_' + scale}/{group}/{folder} --config.data.root=celeba"
    )
