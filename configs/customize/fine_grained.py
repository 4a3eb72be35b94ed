"""Customize on categories: component nets of half a fine-grained set and target nets of all its classes (tables 6 and 7).

Command: python -m amalgam_tf.bin.train --config=configs/customize/fine_grained.py:dogs
    --workdir=runs/cust_fine_grained/dogs/target --config.data.root=fine_grained
Data: Stanford Dogs with CUB-200-2011, or FGVC-Aircraft with Stanford Cars, unpacked below one folder (`amalgam_tf/data/fine_grained.py`).
Hardware and expected time: one GPU of 12 GB or more, about a day for a set with its four source nets and two component nets, which are
    trained on the way (estimated, never run).
Published row: cust_table7/Dogs D1 and so on; both of a set for its target net.
Expected: component above its source nets, target above components; all far below the paper's values, whose source and component nets start
    from ImageNet: there are no ready weights for a ResNet-18 here.

Argument: dogs (default), cub, aircraft or cars, alone for the target net of both halves (72 / 64 of a ResNet-18's width), or with a half
(D1, D2, B1, B2, A1, A2, C1, C2) for its component net; `paper` for the authors' recipe (C8; one learning rate for nets and bridges, from
random weights).
"""

from amalgam_tf import published
from configs import common

FILE = "configs/customize/fine_grained.py"
SOURCES = {r["dataset"]: r for r in published.table("cust_table6_sources")}  # by the name printed
SETS = {name.lower(): name for name in SOURCES}
PARTNERS = {"dogs": "cub", "cub": "dogs", "aircraft": "cars", "cars": "aircraft"}
HALVES = {"dogs": ("D1", "D2"), "cub": ("B1", "B2"), "aircraft": ("A1", "A2"), "cars": ("C1", "C2")}
MILESTONES = dict.fromkeys(("dogs", "cub"), (50, 100, 150)) | dict.fromkeys(("aircraft", "cars"), (20, 50, 100))  # C8
ARGUMENTS = (*HALVES, *(f"{own},{half}" for own, halves in HALVES.items() for half in halves), "dogs,paper", "aircraft,A1,paper")


def get_config(argument: str = ""):
    words = common.words(argument, *HALVES, *(h for halves in HALVES.values() for h in halves), "paper")
    own, scale = common.one(words, tuple(HALVES)), common.one(words, ("", "paper"))
    half = common.one(words, ("", *(h for halves in HALVES.values() for h in halves)))
    if half and half not in HALVES[own]:
        raise common.UserError(f"{own} has the halves {' and '.join(HALVES[own])}, not {half}")
    config = _component(own, half, scale) if half else _target(own, scale)
    config.train.epochs = 100
    if scale == "paper":
        config.train.epochs, config.train.optimizer = 300, common.halved(common.adam(5e-4), MILESTONES[own], of=300)
    return common.smoke(config, common.smoke_categories(HALVES[own])) if "smoke" in words else config


def _component(own: str, half: str, scale: str):
    """The component net of half a set, taught by the two source nets that know it."""
    known = {s: SOURCES[SETS[own]][s].replace("'", "q") for s in ("S1", "S2", "S3", "S4")}
    entries = {
        name: {
            "path": f"{{workdir}}/../../sources/{name}",
            "config": f"configs/teachers/fine_grained.py:{common.joined(own, name, scale)}",
            "data": {"reader": f"{own}+{PARTNERS[own]}", "groups": groups},
        }
        for name, groups in known.items()
        if groups.startswith(f"{half}+")
    }
    config = common.customize(_command(own, half, f"components/{half}", scale), entries, stage="component")
    config.name, config.tasks, config.published_row = f"C_{half}", half, f"cust_table7/{SETS[own]} {half}"
    config.data = common.fine_grained(own, half)
    return config


def _target(own: str, scale: str):
    """The target net of a set; its component nets are trained on the images of their half (C10)."""
    entries = {
        f"C_{half}": {
            "path": f"{{workdir}}/../components/{half}",
            "config": f"{FILE}:{common.joined(own, half, scale)}",
            "tasks": half,
            "data": {"groups": half},
        }
        for half in HALVES[own]
    }
    config = common.customize(_command(own, "", "target", scale), entries, stage="target", width=72 / 64)
    config.tasks = ",".join(HALVES[own])
    config.published_row = ",".join(f"cust_table7/{SETS[own]} {half}" for half in HALVES[own])
    config.data = common.fine_grained(own, config.tasks)
    return config


def _command(own: str, half: str, folder: str, scale: str) -> str:
    return (
        f"python -m amalgam_tf.bin.train --config={FILE}:{common.joined(own, half, scale)} "
        f"--workdir=runs/cust_fine_grained{scale and '_' + scale}/{own}/{folder} --config.data.root=fine_grained"
    )
