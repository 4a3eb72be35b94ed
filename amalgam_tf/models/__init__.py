"""Networks as chains of named blocks (`blocks.py`) and the backbones that come with the package.

To add a backbone: a module with `classifier(name, *, input_size, outputs, granularity, width, weights, synchronized)`
that returns a `BlockNet`, one line in `BACKBONES`, one row in tests/conformance/test_models.py.
"""

from amalgam_tf.errors import UserError
from amalgam_tf.models import resnet
from amalgam_tf.models.blocks import BlockNet

BACKBONES = {"resnet": resnet.classifier}  # by the letters of the backbone's name


def classifier(name: str, **options) -> BlockNet:
    """Builds a backbone with a head of `outputs` logits; see `resnet.classifier` for the options.

    Raises:
        UserError: an unknown backbone.
    """
    family = name.rstrip("0123456789")
    if family not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}: the families are {', '.join(BACKBONES)} (for example resnet50, resnet14)")
    return BACKBONES[family](name, **options)
