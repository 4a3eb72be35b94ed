"""How well maps are predicted: depth, surface normals, anything in [0, 1]. NumPy, float64 inside.

Two steps, so that images can be resampled: `sums` adds up the pixels of each image, `report` pools the sums of any selection of images into
metrics of all their pixels (never means of images' means). `sums` of a batch may be joined with those of others by `np.concatenate`.

Metrics (over valid pixels):

* `depth`, metres: rmse, absrel (mean |p - t| / t), l1, and d1.25, d1.25^2, d1.25^3: the share with max(p / t, t / p) below that. A
  prediction below 1 mm counts as 1 mm, as does a truth of 0, which is less than a z-buffer's smallest step.
* `normal`, vectors of any length: mean_deg and median_deg (to 0.1 degrees) of the angle, and the shares of angles below 11.25, 22.5 and 30
  degrees. A vector of length zero is 90 degrees off any direction.
* `map`, [0, 1]: l1, rmse.

Beside them columns in the style of SOKA's tables, `paper_rmse`, `paper_rel`, `paper_d1.25`, `paper_d1.25^2`, `paper_d1.25^3` (spec S12).
The paper states no scale, no mask and no definition, and no reading reproduces its numbers; these compare teacher and student with
each other, and only the ratio of the two with the paper's. They go over ALL pixels and channels, on this scale:

* `depth`: metres as they are, so that a pixel without a reading (128 m in Taskonomy's files, and so to be in `truth`) counts as 128 m;
* `normal`: components of unit vectors, [-1, 1] -> 0..255;
* `map`: [0, 1] -> 0..255 if the files have 8 bits, 0..65535 / 256 if 16.

rel and ratios divide: on the 0..255 scales, where 0 is a common value, by (t + 1) and of (p + 1) and (t + 1); depth as above.
"""

from collections.abc import Mapping

import numpy as np

from amalgam_tf.errors import UserError, one_of

DELTAS = {"d1.25": 1.25, "d1.25^2": 1.25**2, "d1.25^3": 1.25**3}
ANGLES = {"within_11.25": 11.25, "within_22.5": 22.5, "within_30": 30.0}
PAPER = ("paper_rmse", "paper_rel", *(f"paper_{d}" for d in DELTAS))
METRICS = {
    "depth": ("rmse", "absrel", "l1", *DELTAS, *PAPER),
    "normal": ("mean_deg", "median_deg", *ANGLES, *PAPER),
    "map": ("l1", "rmse", *PAPER),
}

_NEAREST = 1e-3  # metres
_BINS = 10  # a degree


def sums(*, kind: str, prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None, bits: int = 16) -> dict[str, np.ndarray]:
    """What the metrics of each image are made of.

    Args:
        kind: `depth` (metres), `normal` (vectors, 3 channels) or `map` (in [0, 1]).
        prediction: [n, height, width, channels], in physical units.
        truth: the same shape; finite also where it is not valid (see above).
        mask: [n, height, width], above 0 where the truth is known; everywhere by default.
        bits: 8 or 16, of the files of a `map`: the scale of its paper-style columns.

    Returns:
        column of `METRICS[kind]` -> float64 [n]: its sum over an image's values (rmse: of the squares), for shares the count; `values` and
        `paper_values`, how many values were added up; for normals `histogram`, int32 [n, 1800], of angles in bins of 0.1 degrees instead of
        `median_deg`.

    Raises:
        UserError: another kind, shapes that do not fit, numbers that are not finite, a depth below 0 m.
    """
    prediction, truth, mask = _checked(kind, prediction, truth, mask)
    if kind == "depth":
        prediction, truth = np.maximum(prediction, _NEAREST), np.maximum(truth, _NEAREST)
        off = np.abs(prediction - truth)
        each = {"rmse": off**2, "absrel": off / truth, "l1": off, **_ratios(prediction, truth)}
        return _summed(each, mask) | _paper(prediction, truth, 0)
    if kind == "normal":
        prediction, truth = _unit(prediction), _unit(truth)
        angles = _angles(prediction, truth)
        each = {"mean_deg": angles, **{k: angles < limit for k, limit in ANGLES.items()}}
        found = _summed({k: v[..., None] for k, v in each.items()}, mask)
        return {**found, "histogram": _histogram(angles, mask), **_paper((prediction + 1) * 127.5, (truth + 1) * 127.5, 1)}
    off, top = np.abs(prediction - truth), 255 if bits == 8 else 65535 / 256
    return _summed({"l1": off, "rmse": off**2}, mask) | _paper(*(np.clip(x, 0, 1) * top for x in (prediction, truth)), 1)


def report(kind: str, sums: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Metrics over all pixels of all images, ready for JSON.

    Args:
        kind: as for `sums`.
        sums: its result, of one call or joined from several, or of any selection of the images (repetitions count again).

    Returns:
        `{column: value}` in the order of `METRICS[kind]`; None where there is no valid pixel (for paper_ columns: no image).

    Raises:
        UserError: another kind.
    """
    one_of("kind of dense task", kind, METRICS)
    total = {k: v.sum(0, dtype=np.float64) for k, v in sums.items()}
    values = {}
    for column in METRICS[kind]:
        count = total["paper_values" if column in PAPER else "values"]
        if not count:
            values[column] = None
        elif column == "median_deg":
            values[column] = _median(total["histogram"])
        else:
            mean = float(total[column] / count)
            values[column] = mean**0.5 if column.endswith("rmse") else mean
    return values


def _checked(kind: str, prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both maps in float64 and the mask as booleans."""
    one_of("kind of dense task", kind, METRICS)
    prediction, truth = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if prediction.ndim != 4 or prediction.shape != truth.shape:
        raise UserError(
            f"maps of shape {prediction.shape} and truth of shape {truth.shape} do not fit: pass both [n, height, width, channels]"
        )
    if prediction.shape[-1] != {"depth": 1, "normal": 3}.get(kind, prediction.shape[-1]):
        raise UserError(f"{kind} maps cannot have {prediction.shape[-1]} channels: depth has 1, normals have 3")
    mask = np.ones(prediction.shape[:3], bool) if mask is None else np.asarray(mask) > 0
    if mask.shape != prediction.shape[:3]:
        raise UserError(f"a mask of shape {mask.shape} does not fit maps of shape {prediction.shape}: pass [n, height, width]")
    for name, maps in (("predictions", prediction), ("truth", truth)):
        if bad := int((~np.isfinite(maps)).any((1, 2, 3)).sum()):
            raise UserError(f"{bad} of {len(maps)} images have {name} that are not finite")
    if kind == "depth" and truth.size and truth.min() < 0:
        raise UserError(f"the true depth reaches down to {truth.min():.4g} m: decode the maps, and write 128 m where nothing was measured")
    return prediction, truth, mask


def _summed(each: Mapping[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Sums over the valid pixels and all channels of [n, height, width, channels], and how many values they are."""
    inside = mask[..., None]
    found = {k: np.where(inside, v, 0).sum((1, 2, 3), dtype=np.float64) for k, v in each.items()}
    channels = next(iter(each.values())).shape[-1]
    return {**found, "values": mask.sum((1, 2), dtype=np.float64) * channels}


def _paper(prediction: np.ndarray, truth: np.ndarray, plus: float) -> dict[str, np.ndarray]:
    """The paper-style sums over all pixels; `plus` is added wherever something is divided."""
    off = prediction - truth
    each = {"rmse": off**2, "rel": np.abs(off) / (truth + plus), **_ratios(prediction + plus, truth + plus)}
    found = _summed(each, np.ones(truth.shape[:3], bool))
    return {f"paper_{k}": v for k, v in found.items()}


def _ratios(prediction: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    ratio = np.maximum(prediction / truth, truth / prediction)
    return {k: ratio < limit for k, limit in DELTAS.items()}


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between unit vectors. The arc cosine of their product would lose half of the digits near 0 and 180."""
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)))


def _histogram(angles: np.ndarray, mask: np.ndarray) -> np.ndarray:
    bins = np.minimum((angles * _BINS).astype(np.int64), 180 * _BINS - 1)
    images = np.arange(len(angles))[:, None, None] * (180 * _BINS)
    counts = np.bincount((bins + images)[mask], minlength=len(angles) * 180 * _BINS)
    return counts.reshape(len(angles), 180 * _BINS).astype(np.int32)


def _median(histogram: np.ndarray) -> float:
    """The median to 0.1 degrees: of the two middle angles, each put evenly among those of its bin, the mean."""
    up_to, last = np.cumsum(histogram), histogram.sum() - 1
    places = []
    for rank in (last // 2, (last + 1) // 2):
        at = int(np.searchsorted(up_to, rank, side="right"))
        places.append(at + (rank - (up_to[at] - histogram[at]) + 0.5) / histogram[at])
    return float(sum(places)) / 2 / _BINS
