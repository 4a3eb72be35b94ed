"""Footnotes of a report: what is wrong or doubtful about a published number, said where the number stands."""

from collections.abc import Iterable

from amalgam_tf import published
from amalgam_tf.published import Note


class Footnotes:
    """Marks for the cells of one report, in Markdown; `lines` are the notes that were marked."""

    def __init__(self):
        self._used: dict[str, Note] = {}

    def mark(self, table: str, row: str = "", column: str = "") -> str:
        """`[^name]` of every note about exactly this cell, row or table (`published.notes`); "" where there is none."""
        return self.of(published.notes(table, row, column))

    def cell(self, table: str, row: str, column: str) -> str:
        """For a cell that stands alone in its line: the notes about its row, too."""
        return self.of([*published.notes(table, row), *published.notes(table, row, column)])

    def of(self, notes: Iterable[Note]) -> str:
        """Marks of notes."""
        found = {n.name: n for n in notes}
        self._used |= found
        return "".join(f"[^{name}]" for name in found)

    def lines(self) -> list[str]:
        """What stands at the end of the report."""
        return [line for note in self._used.values() for line in (f"[^{note.name}]: {note.said} ({note.spec})", "")]
