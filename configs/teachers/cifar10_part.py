"""Source nets of the category experiment on a part of CIFAR-10: five classes of one half and two or three of the other.

Command: python -m amalgam_tf.bin.train --config=configs/teachers/cifar10_part.py:S1
    --workdir=runs/cust_cifar10_part/sources/S1 --config.data.root=cifar10_images
Data: CIFAR-10 as JPEG or PNG files in class folders, train/<class>/ and test/<class>/; data.root is the folder that holds train/ and test/.
Hardware and expected time: 2 CPU cores, about two minutes for 800 images a class.
Published row: none; the paper has no experiment on CIFAR-10.
Expected: see results/customize_part.

Argument: S1 (default: X1+X2a), S2 (X1+X2b), S3 (X2+X1a) or S4 (X2+X1b); the groups are `cifar10_halves` and `cifar10_quarters` of
`amalgam_tf/data/splits`, one softmax over all classes of a net (C7).
"""

from configs import common

SOURCES = common.CIFAR10_SOURCES
ARGUMENTS = ("S2", "S3", "S4")


def get_config(argument: str = ""):
    words = common.words(argument, *SOURCES)
    name = common.one(words, tuple(SOURCES))
    command = (
        f"python -m amalgam_tf.bin.train --config=configs/teachers/cifar10_part.py:{name} "
        f"--workdir=runs/cust_cifar10_part/sources/{name} --config.data.root=cifar10_images"
    )
    config = common.teacher(command, name, [SOURCES[name]], backbone="resnet14", input_size=32, epochs=3.0)
    config.data = common.cifar10(SOURCES[name])
    config.model.width = 0.5
    config.licence = "CIFAR-10 (Krizhevsky 2009) has no licence text; used for research"
    config.batch_size, config.crop, config.optimizer = 32, 0.6, common.adam(3e-3)
    return common.smoke(config, common.smoke_categories([SOURCES[name]])) if "smoke" in words else config
