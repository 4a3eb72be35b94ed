"""The one exception a user is meant to read, the hint for a misspelt name, and how a script ends."""

from collections.abc import Callable, Iterable
import difflib
import errno
import os
import sys

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class UserError(Exception):
    """Something the user can mend: one clear sentence naming the file, row or key and the mend.

    The binaries print the sentence alone (no traceback unless `--debug`) and exit with code 2.
    """


def explained(error: BaseException | None, where: str = "") -> UserError | None:
    """The sentence for a failure of the machine: a full or read-only disk, or memory that ran out; None for any other failure.

    Args:
        error: what was raised.
        where: what was running or being written, if the error does not name its file.
    """
    if isinstance(error, UserError):
        return None  # says so already, and better
    said = str(error)
    # By text and by name too: h5py and TensorFlow raise errors of their own, and this file imports neither.
    if code := next((c for c in _DISK if getattr(error, "errno", None) == c or os.strerror(c) in said), None):
        return unwritable(getattr(error, "filename", None) or where or "a file", os.strerror(code))
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return UserError(
            f"memory ran out{f' in {where}' if where else ''}: lower batch_size (which needs a new --workdir), or free memory and run the "
            "same command again; what was saved is intact"
        )
    return None


def unwritable(what: object, reason: object) -> UserError:
    """The sentence for a file that the disk refuses."""
    return UserError(
        f"{what} cannot be written ({reason}): free space or mend permissions, and run the same command again; what was saved is intact"
    )


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


def or_exit(run: Callable[[], None]) -> None:
    """Runs a script; what its user can mend is one sentence and exit code 2. (The binaries have `bin.app.launch`.)"""
    try:
        run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
