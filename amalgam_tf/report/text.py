"""Numbers and tables as text: Markdown whose columns also line up in a terminal, and CSV."""

from collections.abc import Iterable, Sequence
import csv
from pathlib import Path
import statistics

from amalgam_tf.errors import UserError

NOTHING = "-"
TWO_KINDS = "differences compare two"  # what a report says where a sign is neither better nor worse: pages then mark none


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table whose columns also line up as plain text."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * w for w in widths], *rows]
    return ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in lines]


def title(report: Path) -> str:
    """The heading that a report of ours begins with; the file's name of one without."""
    first = report.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") else report.stem


def number(value: float | None) -> str:
    """Three digits behind the point: average precisions."""
    return NOTHING if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share in [0, 1] as percent with one digit."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def median(values: Iterable[float | None]) -> float | None:
    """Median of what is there; None of nothing."""
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def spread(values: Iterable[float | None], digits: int = 3, scale: float = 1.0) -> str:
    """`median [smallest..largest]` of what is there; values that look alike are one, nothing is `-`."""
    known = [scale * v for v in values if v is not None]
    if not known:
        return NOTHING
    low, middle, high = (f"{f(known):.{digits}f}" for f in (min, statistics.median, max))
    return middle if low == high else f"{middle} [{low}..{high}]"


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Writes a CSV with a head line; None becomes an empty cell.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another --output") from error
    return path
