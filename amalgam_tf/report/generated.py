"""The part of a run's report that is about generated images: how often they show each label, and how often the student agrees."""

from collections.abc import Mapping
from typing import Any

from amalgam_tf.report import text
from amalgam_tf.report.text import percent

GRID = "figures/generated.png"


def table(results: Mapping[str, Any]) -> list[str]:
    """A Markdown table of a run without test images: every stream's share of generated images that show it, and the student's agreement."""
    labels, agreement = results["labels"], results["agreement"]
    rows = [
        [stream, text.NOTHING if isinstance(labels[stream], list) else percent(labels[stream]), percent(share)]
        for stream, share in agreement["per_stream"].items()
    ]
    return text.table(["stream", "shown by %", "student agrees %"], [*rows, ["**mean**", text.NOTHING, percent(agreement["mean"])]])


def sections(results: Mapping[str, Any]) -> list[str]:
    """What the generator made: images, label frequencies, agreement."""
    shown = results["positives"]
    said = f"{results['agreement']['images']} images of the trained generator, judged by the teachers"
    positives = "" if shown is None else f"; each shows {shown:.2f} of the wanted labels on average"
    grid = ["", f"![generated images]({GRID})", ""]
    return ["## Generated images", "", f"{said}{positives}.", "", *(table(results) if "test" in results else []), *grid]
