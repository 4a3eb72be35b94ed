"""Losses: pure, keyword-only, one value an example, float32 inside, finite for logits of +-200.

By what is compared: `labels.py` (truth, teachers' logits), `features.py` (tensors inside networks, scaled logits), `maps.py` (a
number or more a pixel), `generated.py` (what teachers say of images that a generator made). Called from here, as `losses.transfer(...)`.
"""

from amalgam_tf.losses.features import REPRESENTATIONS, SCALED, representation, soft_target, transfer, unit_filters
from amalgam_tf.losses.generated import (
    DISCRETE,
    ENTROPY,
    PSEUDO,
    activation,
    agreement,
    batch_mean,
    categorical_one_hot,
    disagreement,
    discrete,
    information_entropy,
    label_probabilities,
    one_hot,
    pseudo_labels,
    statistics_distance,
)
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
    "DISCRETE",
    "ENTROPY",
    "PSEUDO",
    "REPRESENTATIONS",
    "SCALED",
    "activation",
    "agreement",
    "batch_mean",
    "binary_cross_entropy",
    "binary_distillation",
    "categorical_cross_entropy",
    "categorical_distillation",
    "categorical_one_hot",
    "disagreement",
    "discrete",
    "distillation",
    "information_entropy",
    "label_probabilities",
    "map_difference",
    "one_hot",
    "pseudo_labels",
    "representation",
    "soft_target",
    "statistics_distance",
    "supervised",
    "transfer",
    "unit_filters",
]
