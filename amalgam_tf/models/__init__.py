"""Networks as chains of named blocks (`blocks.py`) and the backbones that come with the package.

To add a backbone: a module with `classifier(name, *, input_size, outputs, granularity, width, weights, synchronized)`
that returns a `BlockNet`, one line in `BACKBONES`, one row in tests/conformance/test_models.py. Configs read this file, so
it does not import Keras.

Networks that write maps are no backbones with a head of logits and are not registered here: `encoder_decoder.py` (the task bank's).
"""

import importlib
from typing import TYPE_CHECKING

from amalgam_tf.errors import UserError

if TYPE_CHECKING:
    from amalgam_tf.models.blocks import BlockNet

# Module of a family, named by the letters of its backbones -> normalisation its ImageNet weights expect (`Preprocessing.named`).
BACKBONES = {"resnet": "caffe", "densenet": "torch"}


def classifier(name: str, **options) -> "BlockNet":
    """Builds a backbone with a head of `outputs` logits; see `resnet.classifier` for the options.

    Raises:
        UserError: an unknown backbone.
    """
    return importlib.import_module(f"amalgam_tf.models.{family(name)}").classifier(name, **options)


def family(name: str) -> str:
    """`resnet` for `resnet50`.

    Raises:
        UserError: an unknown backbone.
    """
    letters = name.rstrip("0123456789")
    if letters not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}: the families are {', '.join(BACKBONES)} (for example resnet50, resnet14, densenet121)")
    return letters


def normalisation(name: str, weights: str) -> str:
    """Name of the input normalisation that fits a backbone: what its ready weights expect, `centred` for random ones (`none`).

    Raises:
        UserError: an unknown backbone.
    """
    return BACKBONES[family(name)] if weights != "none" else "centred"


def check_start(key: str, weights: str, batchnorm_key: str, batchnorm: str, normalise: str, backbone: str = "") -> None:
    """Refuses starts that train silently but badly.

    Args:
        key: config key of the weights, for the sentence; that of the normalisation stands beside it.
        weights: `none`, `imagenet`, `teacher` or a file.
        batchnorm_key: config key of the statistics.
        batchnorm: `batch` or `frozen`.
        normalise: name of the input normalisation; "" if it comes from elsewhere.
        backbone: its name; "" if it is not known yet: then any normalisation passes that some ready weights expect.

    Raises:
        UserError: a random start with frozen statistics, or ready weights with an input they were not made for.
    """
    if weights == "none" and batchnorm == "frozen":
        raise UserError(
            f"{key}=none starts from random weights, whose stored batch-norm statistics mean nothing: set {batchnorm_key}=batch"
        )
    expected = [normalisation(backbone, weights)] if backbone else [*BACKBONES.values()]
    if weights not in ("none", "teacher") and normalise and normalise not in expected:
        names = " or ".join(expected)
        raise UserError(
            f"{key}={weights} expects its input normalised as {names}, not {normalise}: set {key.replace('weights', 'normalise')}={names}"
        )
