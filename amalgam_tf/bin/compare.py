"""Finished runs beside each other and beside the published tables, as Markdown, CSV and figures.

python -m amalgam_tf.bin.compare --runs=runs/a,runs/b --output=runs/compare
python -m amalgam_tf.bin.compare --runs='runs/voc/*' --output=runs/compare --summary=voc
python -m amalgam_tf.bin.compare --runs='runs/customize_part/*/*/*,runs/customize_part/*/*/*/*' --output=runs/compare --summary=customize
python -m amalgam_tf.bin.compare --runs='runs/soka_scenes/seed*/*' --output=runs/compare --summary=soka_scenes
python -m amalgam_tf.bin.compare --runs='runs/dgan_part/scenes/**' --output=runs/compare --summary=dgan_scenes
"""

from absl import flags

from amalgam_tf.bin import app

_RUNS = flags.DEFINE_list("runs", None, "Workdirs, results.json files or quoted patterns of them, separated by commas.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the tables and figures.")
_TABLE = flags.DEFINE_string("table", "", "Only this published table, e.g. afk_table1; all that the runs name by default.")
_METRIC = flags.DEFINE_string(
    "metric", "accuracy", "What stands against the VOC tables: accuracy (what their AP behaves like), ap_11pt, ap_all or ap_sklearn."
)
_SUMMARY = flags.DEFINE_string("summary", "", "Also summarise all runs as one experiment over seeds; the name of the files.")
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Bootstrap resamples of the test images.", lower_bound=1)
flags.mark_flags_as_required(["runs", "output"])


def main() -> None:
    app.import_tensorflow()
    from amalgam_tf import report

    options = {"table": _TABLE.value, "metric": _METRIC.value, "summary": _SUMMARY.value, "resamples": _RESAMPLES.value}
    print(report.compare(_RUNS.value, _OUTPUT.value, **options))


if __name__ == "__main__":
    app.launch(main)
