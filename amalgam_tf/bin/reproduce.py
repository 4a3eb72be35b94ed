"""Tables and figures of the papers: plans the runs they need, trains what is not done, and sets the results beside the published numbers.

python -m amalgam_tf.bin.reproduce --artefact=list
python -m amalgam_tf.bin.reproduce --artefact=afk.table1                  (smoke: minutes, embedded scenes)
python -m amalgam_tf.bin.reproduce --artefact=afk.table2,customize.table3 --scale=small --data=datasets --dry_run
python -m amalgam_tf.bin.reproduce --artefact=all --scale=paper --data=datasets --workdir=runs/paper
python -m amalgam_tf.bin.reproduce --artefact=list --scale=small          (also the runs beside the tables: afk.choices, soka.choices ...)

The same command again goes on where the last one stopped, whatever ended it. Artefacts share teachers and runs below one --workdir.
"""

from pathlib import Path

from absl import flags

from amalgam_tf import artefacts, reproduction
from amalgam_tf.bin import app

_ARTEFACT = flags.DEFINE_list("artefact", None, "Names of tables and figures, separated by commas; list: show all; all: reproduce all.")
_SCALE = flags.DEFINE_enum(
    "scale", "smoke", artefacts.SCALES, "paper: the paper's own setting and data; small: small real data and scenes; smoke: minutes."
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of runs and comparisons; runs/reproduce_<scale> by default.")
_DATA = flags.DEFINE_string("data", ".", "Folder that holds the data sets (VOCdevkit, coco, celeba ...) and resnet50_notop.h5, if any.")
_SEEDS = flags.DEFINE_list("seeds", [], "Seeds, separated by commas; 0,1,2 by default for small, 0 for the others.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan with estimated times, and stop.")
flags.mark_flag_as_required("artefact")


def main() -> None:
    seeds = artefacts.seeds(_SEEDS.value)
    workdir = Path(_WORKDIR.value or f"runs/reproduce_{_SCALE.value}")
    setting = reproduction.Setting(_SCALE.value, workdir, Path(_DATA.value), seeds)
    if _ARTEFACT.value == ["list"]:
        shown = [*artefacts.ARTEFACTS.values(), *(artefacts.CHOICES.values() if _SCALE.value == "small" else ())]
        print(reproduction.listing([reproduction.of(a, setting) for a in shown], setting))
        return
    made = [reproduction.of(a, setting) for a in artefacts.chosen(_ARTEFACT.value)]
    reproduction.reproduce(made, setting, _DRY_RUN.value, app.import_tensorflow)


if __name__ == "__main__":
    app.launch(main)
