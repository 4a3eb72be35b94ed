"""The numbers the papers print, as CSV files beside this one, looking up one row of them, and what their reader must know (notes.json).

Cells stay text, as printed: some are empty, some are marked as doubtful (`87.9?`), some carry a unit (`22.1M`). Columns and rows tagged
`computed` or `[CALC]` are not printed in the papers but follow from what is.
"""

from collections.abc import Mapping, Sequence
import csv
from dataclasses import dataclass
import functools
from importlib import resources
import json
import re

from amalgam_tf.errors import UserError, did_you_mean


def tables() -> tuple[str, ...]:
    """Names of the tables, e.g. `afk_table1`."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(n.removesuffix(".csv") for n in files if n.endswith(".csv")))


def table(name: str) -> list[dict[str, str]]:
    """The rows of a table in the order printed, each as column -> cell.

    Raises:
        UserError: no such table.
    """
    if name not in tables():
        raise UserError(f"no published table is called {name!r}: {did_you_mean(name, tables())}")
    text = (resources.files(__name__) / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), strict=True))


def references(name: str) -> tuple[str, ...]:
    """The shortest reference of each row of a table, in order: what `row` understands.

    Usually `table/first cell`; where the first cell does not tell the rows apart, cells are added from left to right until it does:
    `soka_table1/teacher/Depth`, `cust_table5/mouth/3/Smiling`.
    """
    rows = [tuple(r.values()) for r in table(name)]
    return tuple(f"{name}/{_shortest(cells, rows)}" for cells in rows)


def _shortest(cells: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    length = next((k for k in range(1, len(cells)) if sum(r[:k] == cells[:k] for r in rows) == 1), len(cells))
    return "/".join(cells[:length])


def row(reference: str) -> dict[str, str]:
    """One row of a published table.

    Args:
        reference: `table/first cell`, as `afk_table1/TargetRes50`; more cells from the left if the first is not enough (see
            `references`); or `table/#n`, the n-th row counted from 1.

    Returns:
        Column -> cell, as text.

    Raises:
        UserError: no such table or row, or a reference that fits several rows.
    """
    name, _, wanted = reference.partition("/")
    rows = table(name)
    if number := re.fullmatch(r"#(\d{1,6})", wanted):
        found = rows[int(number[1]) - 1 : int(number[1])] if int(number[1]) else []
    else:  # compared as text, since a cell may itself hold a slash ("w/o auxiliary")
        found = [r for r in rows if wanted in _prefixes(list(r.values()))]
    if len(found) == 1:
        return found[0]
    known = references(name)
    if found:
        fitting = [k for k in known if k.startswith(f"{reference}/")]
        raise UserError(f"{reference!r} fits {len(found)} rows: say which of {', '.join(fitting)}")
    # compared without the table's name, which all have in common
    raise UserError(f"published table {name} has no row {wanted!r}: {did_you_mean(wanted, [k.partition('/')[2] for k in known])}")


def rows(references: str) -> dict[str, dict[str, str]]:
    """Several rows, their references separated by commas: reference -> row.

    Raises:
        UserError: as `row`.
    """
    return {reference: row(reference) for reference in references.split(",")}


@dataclass(frozen=True)
class Note:
    """Where the papers contradict themselves, lost a cell or call a number by a wrong name.

    Attributes:
        name: unique, fit for a Markdown footnote.
        said: one or two sentences.
        spec: where it was found out: id of an item of the project's spec, or a table.
        at: table -> `rows` and `columns`; no rows: the whole table; no columns: the whole rows.
    """

    name: str
    said: str
    spec: str
    at: Mapping[str, Mapping[str, Sequence[str]]]

    def about(self, table: str, row: str, column: str) -> bool:
        """Whether it is about exactly this: a cell, a row (`column` ""), a table (`row` "" too)."""
        place = self.at.get(table)
        if place is None:
            return False
        rows, columns = place.get("rows", ()), place.get("columns", ())
        return (any(row == r or row.startswith(f"{r}/") for r in rows) if rows else not row) and (
            column in columns if columns else not column
        )


@functools.cache
def all_notes() -> tuple[Note, ...]:
    """Every note, in order of the papers."""
    stored = json.loads((resources.files(__name__) / "notes.json").read_text(encoding="utf-8"))
    return tuple(Note(name, **note) for name, note in stored.items())


def notes(table: str, row: str = "", column: str = "") -> list[Note]:
    """The notes about one cell, about a whole row (no `column`), or about a whole table (no `row`).

    Args:
        table: its name, e.g. `afk_table1`.
        row: what stands behind the table in a reference, e.g. `TargetRes50` or `hair/Black_Hair`; longer than needed is fine.
        column: its head in the CSV.
    """
    return [note for note in all_notes() if note.about(table, row, column)]


def notes_of(reference: str) -> list[Note]:
    """All notes that touch a published row: about its table, about all of it, about one of its cells.

    Raises:
        UserError: as `row`.
    """
    table, cells = reference.partition("/")[0], row(reference)
    name = "/".join(cells.values())
    found = [*notes(table), *notes(table, name), *(n for column in cells for n in notes(table, name, column))]
    return list({n.name: n for n in found}.values())


def _prefixes(cells: list[str]) -> list[str]:
    return ["/".join(cells[:k]) for k in range(1, len(cells) + 1)]
