"""Customize on categories, small: component nets of half of CIFAR-10's classes and a target net of all ten, on a part of the images.

Command: python -m amalgam_tf.bin.train --config=configs/customize/cifar10_part.py:target
    --workdir=runs/cust_cifar10_part/target --config.data.root=cifar10_images
Data: CIFAR-10 as JPEG or PNG files in class folders, train/<class>/ and test/<class>/; data.root is the folder that holds train/ and test/.
Hardware and expected time: 2 CPU cores, about ten minutes for 800 images a class, with the four source nets and two component nets,
    which are trained on the way.
Published row: none; the paper has no experiment on CIFAR-10.
Expected: see results/customize_part.

Argument: `target` (default), or X1 or X2 for the component net of this half (`cifar10_halves` of `amalgam_tf/data/splits`).
"""

from configs import common

FILE = "configs/customize/cifar10_part.py"
HALVES = ("X1", "X2")
ARGUMENTS = HALVES


def get_config(argument: str = ""):
    words = common.words(argument, "target", *HALVES)
    half = common.one(words, ("target", *HALVES))
    config = _target() if half == "target" else _component(half)
    config.train.epochs, config.train.batch_size, config.train.optimizer = 4, 32, common.adam(3e-3)
    return common.smoke(config, common.smoke_categories(HALVES)) if "smoke" in words else config


def _component(half: str):
    entries = {
        name: {
            "path": f"{{workdir}}/../../sources/{name}",
            "config": f"configs/teachers/cifar10_part.py:{name}",
            "data": {"groups": groups},
        }
        for name, groups in common.CIFAR10_SOURCES.items()
        if groups.startswith(f"{half}+")
    }
    config = common.customize(_command(half, f"components/{half}"), entries, stage="component", width=0.5, backbone="resnet14")
    config.name, config.tasks, config.data = f"C_{half}", half, common.cifar10(half)
    return config


def _target():
    entries = {
        f"C_{half}": {"path": f"{{workdir}}/../components/{half}", "config": f"{FILE}:{half}", "tasks": half, "data": {"groups": half}}
        for half in HALVES
    }
    config = common.customize(_command("target", "target"), entries, stage="target", width=0.5 * 72 / 64, backbone="resnet14")
    config.tasks = ",".join(HALVES)
    config.data = common.cifar10(config.tasks)
    return config


def _command(argument: str, folder: str) -> str:
    return (
        f"python -m amalgam_tf.bin.train --config={FILE}:{argument} "
        f"--workdir=runs/cust_cifar10_part/{folder} --config.data.root=cifar10_images"
    )
