"""The one exception a user is meant to read, and the hint for a misspelt name."""

from collections.abc import Iterable
import difflib


class UserError(Exception):
    """Something the user can mend: one clear sentence naming the file, row or key and the mend.

    The binaries print the sentence alone (no traceback unless `--debug`) and exit with code 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest known name, or the list of all that are known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known) or 'none'}"


def one_of(key: str, value: str, known: Iterable[str]) -> str:
    """`value`, if it is one of the known ones.

    Raises:
        UserError: it is not; the sentence names the key.
    """
    if value not in (known := list(known)):
        raise UserError(f"unknown {key} {value!r}: {did_you_mean(value, known)}")
    return value
