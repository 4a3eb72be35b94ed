"""Tables of our reports on their way from Markdown to HTML: which columns are numbers, and which differences are better or worse.

Works on the tokens of markdown-it, between parsing and rendering. A sign alone says neither: it is judged only where the report stands
behind it, that is where an interval over test images leaves out 0, or where a published number lies outside the spread of our seeds.
"""

from collections.abc import Iterator, Sequence
import re
from typing import NamedTuple

from markdown_it.token import Token

from amalgam_tf.report import text

BETTER, WORSE = "better", "worse"
MARKS = {BETTER: "▲", WORSE: "▼"}  # colour alone would tell nothing on paper, or to who does not see it
LEGEND = (
    "▲ better, ▼ worse: the 95 % interval leaves out 0, or the published number lies outside the spread of our seeds. Unmarked: no claim."
)
SENSE = {"difference": 1, "mean": 1, "change %": -1}  # head of a column of differences -> the sign that is better
INTERVAL, PUBLISHED, TAUGHT = "95 % interval", "published", ("teacher", "taught by")
NEUTRAL = ("parameters (M)", "FLOPs (G)", "branch", "branch_index_of_16")  # rows about these: more is neither better nor worse
MANY = 8  # columns from which on a table is set smaller on paper

_NUMBER = r"[+-]?\d[\d.]*(?:e[+-]?\d+)?"
_CELL = re.compile(rf"{_NUMBER}(?: ?(?:[%GM]|s|min|h))?\??|{_NUMBER} \[{_NUMBER}\.\.{_NUMBER}\]|{_NUMBER} \.\. {_NUMBER}|\?")
_SIGNED = re.compile(r"[+-]\d[\d.]*")
_INTERVAL = re.compile(rf"({_NUMBER}) \.\. ({_NUMBER})")
_SPREAD = re.compile(rf"{_NUMBER} \[({_NUMBER})\.\.({_NUMBER})\]")


class Cell(NamedTuple):
    """A cell's three tokens; `said` is its text without emphasis and footnotes."""

    opened: Token
    inline: Token
    closed: Token

    @property
    def said(self) -> str:
        return plain(self.inline)


def plain(inline: Token) -> str:
    """The text of an inline token as a reader sees it, without its footnotes, whose tokens have no content."""
    return "".join(t.content for t in inline.children or ()).strip()


def arrange(tokens: Sequence[Token]) -> bool:
    """Sets classes, scopes and marks of every table of a document, in place; returns whether any difference was marked."""
    marked = False
    judged = not any(text.TWO_KINDS in t.content for t in tokens if t.type == "inline")
    for rows in _tables(tokens):
        head, body = rows[0], rows[1:]
        for cell in head:
            cell.opened.attrSet("scope", "col")
        for row in body:
            row[0].opened.tag = row[0].closed.tag = "th"
            row[0].opened.attrSet("scope", "row")
        for i, cell in enumerate(head):
            column = [row[i] for row in body]
            said = [c.said for c in column if c.said not in ("", text.NOTHING)]
            if 2 * sum(bool(_CELL.fullmatch(s)) for s in said) >= len(said):  # a name or two among numbers (`b3_6`) stand right, too
                for c in (cell, *column):
                    c.opened.attrJoin("class", "number")
        if judged:
            heads = [c.said for c in head]
            marked = any([_mark(row, heads) for row in body]) or marked
    return marked


def _tables(tokens: Sequence[Token]) -> Iterator[list[list[Cell]]]:
    """The rows of each table, its head first; tells the table's first token how many columns it has."""
    rows: list[list[Cell]] = []
    opened = None
    for i, token in enumerate(tokens):
        if token.type == "table_open":
            rows, opened = [], token
        elif token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(Cell(*tokens[i : i + 3]))
        elif token.type == "table_close":
            opened.meta["columns"] = len(rows[0])
            yield rows


def _mark(row: Sequence[Cell], heads: Sequence[str]) -> bool:
    at = heads.index(INTERVAL) - 1 if INTERVAL in heads else next((i for i, h in enumerate(heads) if h in SENSE), -1)
    if at < 0 or heads[at] not in SENSE or not _SIGNED.fullmatch(row[at].said) or any(c.said in NEUTRAL for c in row):
        return False
    ends = _interval(row[at + 1]) if INTERVAL in heads else _apart(heads, row, float(row[at].said))
    if ends is None or ends[0] <= 0 <= ends[1]:
        return False
    verdict = BETTER if (ends[0] > 0) == (SENSE[heads[at]] > 0) else WORSE
    row[at].opened.attrJoin("class", verdict)
    row[at].inline.children.insert(0, Token("text", "", 0, content=f"{MARKS[verdict]} "))
    return True


def _interval(cell: Cell) -> tuple[float, float] | None:
    found = _INTERVAL.fullmatch(cell.said)
    return (float(found[1]), float(found[2])) if found else None


def _apart(heads: Sequence[str], row: Sequence[Cell], difference: float) -> tuple[float, float] | None:
    """From the published number to the ends of the seeds' spread; None of one seed, or where the columns are others."""
    if PUBLISHED not in heads:
        return None
    at = heads.index(PUBLISHED)
    measured = at - 2 if heads[at - 1] in TAUGHT else at - 1
    spread = _SPREAD.fullmatch(row[measured].said)
    printed = re.fullmatch(_NUMBER, row[at].said)
    if not spread or not printed or difference == 0:
        return None
    return float(spread[1]) - float(printed[0]), float(spread[2]) - float(printed[0])
