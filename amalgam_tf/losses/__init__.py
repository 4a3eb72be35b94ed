"""Losses: pure, keyword-only, one value an example, float32 inside, finite for logits of +-200.

By what is compared: `labels.py` (truth, teachers' logits), `features.py` (tensors inside networks, scaled logits), `maps.py` (a
number or more a pixel). Called from here, as `losses.transfer(...)`.
"""

from amalgam_tf.losses.features import REPRESENTATIONS, SCALED, representation, soft_target, transfer, unit_filters
from amalgam_tf.losses.labels import (
    binary_cross_entropy,
    binary_distillation,
    categorical_cross_entropy,
    categorical_distillation,
    distillation,
    supervised,
)
from amalgam_tf.losses.maps import map_difference

__all__ = [
    "REPRESENTATIONS",
    "SCALED",
    "binary_cross_entropy",
    "binary_distillation",
    "categorical_cross_entropy",
    "categorical_distillation",
    "distillation",
    "map_difference",
    "representation",
    "soft_target",
    "supervised",
    "transfer",
    "unit_filters",
]
