"""Source nets of Customize's attribute experiments: ResNet-18s at 224 px that know one to four attributes of CelebA (table 2, C7, C9).

Command: python -m amalgam_tf.bin.train --config=configs/teachers/celeba.py:hair,S1
    --workdir=runs/cust_celeba/hair/sources/S1 --config.data.root=celeba
Data: CelebA, aligned and cropped: the folder with list_attr_celeba.txt, list_eval_partition.txt and img_align_celeba/.
Hardware and expected time: one GPU of 12 GB or more, about an hour (estimated, never run at this scale); `part`: 2 CPU cores, a minute.
Published row: none; the source nets' accuracies stand in the cells of cust_table3's column source_nets, shown with their component net.
Expected: some points above the majority class for frequent attributes, at its level for rare ones (C14).

Argument: a group (hair, mouth, eye, face; default hair) or an attribute of figure 5 (Arched_Eyebrows, High_Cheekbones: four nets of the
attribute and two others drawn by seed), and S1 (default) to S10.
`resnet50`: the same net as a ResNet-50 that starts from ImageNet, for a heterogeneous pool.
`paper`: the authors' recipe (C8), except that a ResNet-18 starts from random weights here, since there are no ready ones.
`part`: the first 8,000 images with a list of one's own (list_local_partition.txt), 64 px, half the width.
"""

from amalgam_tf.data.scenes import SHAPES
from configs import common

GROUPS = (*common.ATTRIBUTE_GROUPS, *common.FIG5)
SOURCES = tuple(f"S{i}" for i in range(1, 11))
ARGUMENTS = ("mouth,S10", "eye,S7", "face,S2,paper", "hair,S9,part", "hair,S2,resnet50", "hair,S2,resnet50,part", "Arched_Eyebrows,S4,part")


def get_config(argument: str = ""):
    words = common.words(argument, *GROUPS, *SOURCES, "resnet50", "paper", "part")
    group, name, scale = common.one(words, GROUPS), common.one(words, SOURCES), common.one(words, ("", "paper", "part"))
    sources, ready = common.attribute_sources(group), "resnet50" in words
    if name not in sources:
        raise common.UserError(f"{group} has the source nets {', '.join(sources)}, not {name}")
    part, key = scale == "part", f"{name}_resnet50" if ready else name
    word = common.joined(group, name, "resnet50" if ready else "", scale)
    config = common.teacher(
        f"python -m amalgam_tf.bin.train --config=configs/teachers/celeba.py:{word} "
        f"--workdir=runs/cust_celeba{scale and '_' + scale}/{group}/sources/{key} --config.data.root=celeba",
        key,
        sources[name],
        backbone="resnet50" if ready else "resnet18",
        input_size=64 if part else 224,
        weights="imagenet" if ready else "none",
        epochs=(3.0 if ready else 5.0) if part else 50.0,  # C8
    )
    config.data = common.celeba(common.sources_part(name), local=part)
    config.licence = "CelebA: non-commercial research only"
    config.batch_size, config.crop = 64, 0.81  # C8
    if not ready:
        config.optimizer = common.adam(1e-3)
    if scale == "paper":
        config.optimizer = common.halved(common.sgd(1e-4, weight_decay=5e-4), (5, 10, 15, 20, 25), of=50)
        config.batchnorm = "batch"
    if part:
        config.batch_size, config.model.width = 32, 1.0 if ready else 0.5
    return common.smoke(config, _scenes_tasks(group, name, sources[name])) if "smoke" in words else config


def _scenes_tasks(group: str, name: str, attributes: tuple[str, ...]) -> dict[str, str]:
    """A shape in the place of each attribute the group wants, and one of the source net's own in the place of its others."""
    wanted = common.wanted_attributes(group)
    own = SHAPES[4 + int(name[1:]) % (len(SHAPES) - 4)]
    return {**dict.fromkeys((a for a in attributes[1:2] if a not in wanted), own), **dict(zip(wanted, SHAPES, strict=False))}
