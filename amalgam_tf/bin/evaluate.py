"""Measures a trained teacher or student again, on the test split of its own recipe or on other data.

python -m amalgam_tf.bin.evaluate --model=runs/student
python -m amalgam_tf.bin.evaluate --model=runs/student --reader=folder --root=my_images --split=test.csv
python -m amalgam_tf.bin.evaluate --model=runs/student --images=a.jpg,b.jpg      (probabilities of single files)
"""

import json
from pathlib import Path

from absl import flags

from amalgam_tf.bin import app

_MODEL = flags.DEFINE_string("model", None, "A run's workdir, or a folder with card.json and model.keras.")
_READER = flags.DEFINE_string("reader", None, "Another reader: scenes, voc, coco, folder, or tfds:voc/2007 and the like.")
_ROOT = flags.DEFINE_string("root", None, "Another data folder.")
_SPLIT = flags.DEFINE_string("split", None, "Another split; the recipe's test split by default.")
_IMAGES = flags.DEFINE_list("images", None, "Image files: print their probabilities instead of metrics.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write the numbers to this JSON file.")
flags.mark_flag_as_required("model")


def main() -> None:
    app.import_tensorflow()
    from amalgam_tf import evaluate
    from amalgam_tf.training import state

    if _IMAGES.value:
        result = evaluate.files(_MODEL.value, _IMAGES.value)
    else:
        changes = {k: v for k, v in {"reader": _READER.value, "root": _ROOT.value, "test": _SPLIT.value}.items() if v is not None}
        result = evaluate.saved(_MODEL.value, changes)
    print(json.dumps(result, indent=2))
    if _OUTPUT.value:
        state.write_json(Path(_OUTPUT.value), result)


if __name__ == "__main__":
    app.launch(main)
