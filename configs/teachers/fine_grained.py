"""Source nets of Customize's category experiments: ResNet-18s over half of one set and a quarter of its partner's classes (table 6, C7).

Command: python -m amalgam_tf.bin.train --config=configs/teachers/fine_grained.py:dogs,S1
    --workdir=runs/cust_fine_grained/dogs/sources/S1 --config.data.root=fine_grained
Data: Stanford Dogs with CUB-200-2011, or FGVC-Aircraft with Stanford Cars, unpacked below one folder (`amalgam_tf/data/fine_grained.py`).
Hardware and expected time: one GPU of 12 GB or more, about two hours (estimated, never run).
Published row: none; the source nets' accuracies stand in cust_table7's columns source_a and source_b, shown with their component net.
Expected: far below the paper's 65 to 88 %: its source nets start from ImageNet, and there are no ready weights for a ResNet-18 here.

Argument: dogs (default), cub, aircraft or cars, and S1 (default) to S4 (S1 of dogs: D1+Bq1, one softmax over half of the dogs and the first
quarter of the birds); `paper` for the authors' recipe (C8), from random weights.
"""

from amalgam_tf import published
from configs import common

PARTNERS = {"dogs": "cub", "cub": "dogs", "aircraft": "cars", "cars": "aircraft"}
SOURCES = ("S1", "S2", "S3", "S4")
ARGUMENTS = ("dogs,S4", "cub,S2", "aircraft,S3,paper", "cars,S1")


def get_config(argument: str = ""):
    words = common.words(argument, *PARTNERS, *SOURCES, "paper")
    own, name, scale = common.one(words, tuple(PARTNERS)), common.one(words, SOURCES), common.one(words, ("", "paper"))
    row = next(r for r in published.table("cust_table6_sources") if r["dataset"].lower() == own)
    known = row[name].replace("'", "q")
    config = common.teacher(
        f"python -m amalgam_tf.bin.train --config=configs/teachers/fine_grained.py:{common.joined(own, name, scale)} "
        f"--workdir=runs/cust_fine_grained{scale and '_' + scale}/{own}/sources/{name} --config.data.root=fine_grained",
        name,
        [known],
        backbone="resnet18",
        input_size=224,
        epochs=300.0 if scale == "paper" else 100.0,
    )
    config.data = common.fine_grained(f"{own}+{PARTNERS[own]}", known)
    config.licence = "images of the sets: research only"
    config.batch_size, config.crop = 64, 0.81
    config.optimizer = common.adam(1e-3)
    if scale == "paper":
        config.optimizer = common.halved(common.sgd(1e-3, weight_decay=5e-4), (10, 20, 30), of=300)
    return common.smoke(config, common.smoke_categories([known])) if "smoke" in words else config
