"""Writes a SavedModel with one named output per task, for image tensors and for JPEG bytes.

python -m amalgam_tf.bin.export --model=runs/student --output=runs/student/export
"""

from pathlib import Path

from absl import flags

from amalgam_tf.bin import app

_MODEL = flags.DEFINE_string("model", None, "A run's workdir, or a folder with card.json and model.keras.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the SavedModel; <model>/export by default.")
flags.mark_flag_as_required("model")


def main() -> None:
    app.import_tensorflow()
    from amalgam_tf import export, teachers

    output = Path(_OUTPUT.value or Path(_MODEL.value) / "export")
    difference = export.write(teachers.load_any(Path(_MODEL.value)), output)
    print(f"SavedModel: {output}  (signatures serve and serve_jpeg; reloaded, largest difference to Keras {difference:.1e})")


if __name__ == "__main__":
    app.launch(main)
