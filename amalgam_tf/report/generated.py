"""The part of a run's report that is about generated images: how often they show each label, and how often the student agrees."""

from collections.abc import Mapping, Sequence
import statistics
from typing import Any

from amalgam_tf.report import text
from amalgam_tf.report.text import percent

GRID = "figures/generated.png"


def table(results: Mapping[str, Any]) -> list[str]:
    """A Markdown table of a run without test images: every stream's share of generated images that show it, the student's agreement, and
    that of the one answer the teachers give most often.
    """
    labels, agreement = results["labels"], results["agreement"]
    shown = {stream: text.NOTHING if isinstance(shares, list) else percent(shares) for stream, shares in labels.items()}
    rows = [[stream, shown[stream], percent(same), percent(_most(labels[stream]))] for stream, same in agreement["per_stream"].items()]
    last = ["**mean**", text.NOTHING, percent(agreement["mean"]), percent(commonest(results))]
    return text.table(["stream", "shown by %", "student agrees %", "commonest answer %"], [*rows, last])


def commonest(results: Mapping[str, Any]) -> float:
    """Agreement with the teachers on generated images of a student that always gives their most frequent answer, mean over streams."""
    return statistics.fmean(map(_most, results["labels"].values()))


def _most(shares: float | Sequence[float]) -> float:
    """`shares`: of the images that show a label, or of each class."""
    return max(shares) if isinstance(shares, Sequence) else max(shares, 1 - shares)


def sections(results: Mapping[str, Any]) -> list[str]:
    """What the generator made: images, label frequencies, agreement."""
    shown = results["positives"]
    said = f"{results['agreement']['images']} images of the trained generator, judged by the teachers"
    positives = "" if shown is None else f"; each shows {shown:.2f} of the wanted labels on average"
    grid = ["", f"![generated images]({GRID})", ""]
    return ["## Generated images", "", f"{said}{positives}.", "", *(table(results) if "test" in results else []), *grid]
