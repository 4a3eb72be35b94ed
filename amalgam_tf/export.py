"""SavedModels for serving: preprocessing inside, one output per task: probabilities, or maps in physical units."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf.data import transforms
from amalgam_tf.errors import UserError
from amalgam_tf.evaluate import answers
from amalgam_tf.teachers import Student, Teacher
from amalgam_tf.training import state


def write(model: Teacher | Student, folder: Path) -> float:
    """Writes a SavedModel and reads it back.

    Signatures:
        serve: `images` float32 [batch, height, width, 3], RGB in 0..255, any size (resized inside).
        serve_jpeg: `jpeg` string [batch], the bytes of JPEG (or PNG, BMP) files.
    Both return task name -> probability [batch] (binary) or [batch, classes], or map [batch, size, size, channels] in its physical unit
    (`data.codecs`: metres, unit vectors, shares of the coded range); `tasks.json` beside the model lists them.

    Args:
        model: what to export.
        folder: must not exist yet, or hold an earlier export.

    Returns:
        Largest absolute difference between the reloaded `serve` and Keras on random images.

    Raises:
        UserError: the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "saved_model.pb").exists():
        raise UserError(f"{folder} exists and is not an earlier export: choose another --output")
    size = model.preprocessing.size
    fit = model.card.get("recipe", {}).get("data", {}).get("fit", "squeeze")

    def serve(images):
        logits = model.outputs(transforms.resize(images, size, fit))
        return {t.name: answers(t, logits[t.name]) for t in model.tasks}

    def serve_jpeg(jpeg):
        square = tf.TensorSpec((size, size, 3), tf.uint8)
        pixels = tf.map_fn(lambda data: transforms.decode(data, size, fit), jpeg, fn_output_signature=square)
        return serve(pixels)

    archive = keras.export.ExportArchive()
    archive.track(model.model if isinstance(model, Student) else model.net.as_model("teacher"))
    archive.add_endpoint("serve", serve, [tf.TensorSpec((None, None, None, 3), tf.float32, name="images")])
    archive.add_endpoint("serve_jpeg", serve_jpeg, [tf.TensorSpec((None,), tf.string, name="jpeg")])
    archive.write_out(str(folder), verbose=False)
    state.write_json(folder / "tasks.json", [t.to_json() for t in model.tasks])
    return _largest_difference(serve, folder, size)


def _largest_difference(serve, folder: Path, size: int) -> float:
    images = np.random.default_rng(0).uniform(0, 255, (2, size + 7, size, 3)).astype(np.float32)
    reloaded = tf.saved_model.load(str(folder)).signatures["serve"](images=tf.constant(images))
    return max(float(np.max(np.abs(reloaded[name].numpy() - value.numpy()))) for name, value in serve(tf.constant(images)).items())
