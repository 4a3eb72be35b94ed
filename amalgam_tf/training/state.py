"""What must survive a kill: an explicit `{unique name: variable}` map, the step, the finished phases, the decisions.

No object graph, no tracking: a checkpoint is one .npz file of named arrays plus a JSON record. ZIP checksums tell a
damaged file; files appear by rename, so a kill while saving leaves the one before untouched.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
from dataclasses import asdict, dataclass, field
import hashlib
import json
import os
from pathlib import Path
from typing import Any
import zipfile

import keras
import numpy as np

from amalgam_tf.errors import UserError, unwritable

FORMAT = 1
_RECORD = "__record__"
_BEST = "best:"
_COUNT = "arrays"  # in the record: a damaged table of contents can lose arrays without breaking a checksum
_BROKEN = (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError, RuntimeError)  # the last: damaged ZIP flags


@dataclass
class Progress:
    """Where a run stands. `step` counts within `phase`; `total` over all phases."""

    phase: str = ""
    step: int = 0
    total: int = 0
    finished: list[str] = field(default_factory=list)
    journal_bytes: int = 0  # length of metrics.jsonl at this point: what came after is computed again
    seconds: float = 0.0  # wall time of all processes so far, what a kill threw away not counted
    phase_seconds: dict[str, float] = field(default_factory=dict)  # of which in each phase
    best: dict[str, float] = field(default_factory=dict)


@contextlib.contextmanager
def writing(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turns what the disk refuses into a sentence that names `path`; `temporary` is gone afterwards, whatever happens.

    Raises:
        UserError: the disk is full, read-only, or refuses otherwise.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error.strerror or error) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                temporary.unlink()


def sweep(folder: Path) -> None:
    """Removes the unfinished files of writers that were killed; only for who holds the workdir's lock."""
    for pattern in (".*.npz", ".*.json.*"):
        for left in folder.glob(pattern):
            left.unlink()


def write_json(path: Path, data: Any) -> None:
    """Writes JSON atomically (temporary file, fsync, rename).

    Raises:
        UserError: the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        UserError: missing or malformed; the sentence names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}): restore it from a copy, or start again in a new --workdir") from error


def check_format(data: Mapping[str, Any], path: Path) -> None:
    """Refuses files written by a newer version.

    Raises:
        UserError: no format number, or a newer one.
    """
    found = data.get("format") if isinstance(data, Mapping) else None
    if not isinstance(found, int):
        raise UserError(f"{path} has no format number: it was not written by amalgam_tf")
    if found > FORMAT:
        raise UserError(f"{path} has format {found}, newer than the {FORMAT} this version reads: upgrade amalgam_tf")


class Checkpoints:
    """The last `keep` checkpoints of a folder.

    The state is registered piece by piece (`track`): a name that the restored checkpoint knows gets its value at once,
    so a method script can build its networks in the order of its algorithm box.
    """

    def __init__(self, folder: Path, keep: int = 2, follow: str | None = None):
        """Opens a folder and reads its newest checkpoint.

        Args:
            folder: of the checkpoints.
            keep: how many to keep.
            follow: only read this file (""; none); the folder is another process's.

        Raises:
            UserError: a newer format; a followed file that cannot be read.
        """
        self.folder, self.keep = Path(folder), keep
        self.restored = ""  # name of the file the state came from
        self.variables: dict[str, keras.Variable] = {}
        self.best: dict[str, np.ndarray] = {}  # values of the running phase's best validation, by state name
        self.notes: list[str] = []
        if follow is None:
            self._clean()
            self._restored, self.progress = self._newest()
        else:
            self._restored, self.progress = self._read(follow)
        self.best = {k.removeprefix(_BEST): self._restored.pop(k) for k in list(self._restored) if k.startswith(_BEST)}

    def _clean(self) -> None:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))

    def _newest(self) -> tuple[dict[str, np.ndarray], Progress]:
        for path in reversed(self._paths()):
            try:
                arrays, record = read_arrays(path)
            except _BROKEN as error:
                path.rename(path.with_suffix(".damaged"))  # or `save` would count it among the last ones it keeps
                self.notes.append(f"checkpoint {path.name} is damaged ({type(error).__name__}); using the one before")
                continue
            check_format(record, path)
            self.restored = path.name
            return arrays, Progress(**record["progress"])
        if self.notes:
            self.notes.append("no checkpoint is left: starting from the beginning")
        return {}, Progress()

    def _read(self, name: str) -> tuple[dict[str, np.ndarray], Progress]:
        if not name:
            return {}, Progress()
        arrays, record = read_snapshot(self.folder / name)
        return arrays, Progress(**record["progress"])

    def adopt(self, arrays: Mapping[str, np.ndarray], progress: Progress) -> None:
        """Goes on from another run's state, as if it had been restored from this folder; call before `track`."""
        self._restored, self.progress = dict(arrays), progress

    def track(self, named: Mapping[str, keras.Variable]) -> None:
        """Adds variables to the state and gives them their restored values, if there are any.

        Raises:
            ValueError: a name that is taken by another variable.
            UserError: a restored value of another shape.
        """
        for name, variable in named.items():
            if self.variables.setdefault(name, variable) is not variable:
                raise ValueError(f"state name {name!r} is used twice")
            if name in self._restored:
                self._assign(name, variable, self._restored.pop(name))

    def forget(self, names: Iterable[str]) -> None:
        """Drops variables (a finished phase's optimizer) from the state."""
        for name in list(names):
            self.variables.pop(name, None)

    def values(self, variables: Iterable[keras.Variable]) -> dict[str, np.ndarray]:
        """The present values of some tracked variables by state name."""
        wanted = {id(v) for v in variables}
        return {name: v.value.numpy() for name, v in self.variables.items() if id(v) in wanted}

    def _assign(self, name: str, variable: keras.Variable, value: np.ndarray) -> None:
        if tuple(variable.shape) != value.shape:
            raise UserError(
                f"{self.folder} holds {name} with shape {value.shape}, this run needs {tuple(variable.shape)}: "
                "the workdir belongs to another network; choose a new --workdir"
            )
        variable.assign(value)

    def save(self) -> Path:
        """Writes the state and the progress; returns the file. Older files than the last `keep` are removed."""
        path = self.folder / f"{self.progress.total:09d}-{len(self.progress.finished):03d}.npz"
        values = {name: np.asarray(v.value.numpy()) for name, v in self.variables.items()}
        values |= {_BEST + name: value for name, value in self.best.items()}
        write_arrays(path, values, {"format": FORMAT, "progress": asdict(self.progress)})
        for old in self._paths()[: -self.keep]:
            old.unlink()
        return path


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], record: dict[str, Any]) -> None:
    """One uncompressed .npz with the arrays and a JSON record; atomic.

    Raises:
        UserError: the disk refuses.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    text = np.frombuffer(json.dumps({**record, _COUNT: len(arrays)}).encode(), np.uint8)
    with writing(path, temporary):
        with open(temporary, "wb") as file:
            np.savez(file, **{_RECORD: text}, **dict(_stored(k, np.asarray(v)) for k, v in arrays.items()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed .npz that appears as a whole.

    Raises:
        UserError: the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    with writing(path, temporary):
        np.savez_compressed(temporary, **arrays)
        os.replace(temporary, path)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `write_arrays` wrote; every byte is checked against the ZIP's checksums."""
    with zipfile.ZipFile(path) as file:
        if bad := file.testzip():  # np.load stops at an array's end, so a damaged header can hide from the checksum
            raise zipfile.BadZipFile(f"bad checksum of {bad}")
    with np.load(path, allow_pickle=False) as file:
        record = json.loads(file[_RECORD].tobytes())
        arrays = dict(_loaded(name, file[name]) for name in file.files if name != _RECORD)
    if record.pop(_COUNT, len(arrays)) != len(arrays):
        raise zipfile.BadZipFile("arrays are missing")
    return arrays, record


def read_snapshot(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the record of a snapshot.

    Raises:
        UserError: damaged, or of a newer format.
    """
    try:
        arrays, record = read_arrays(path)
    except _BROKEN as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): restore it, or start in a new --workdir") from error
    check_format(record, path)
    return arrays, record


def _stored(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """A member of the .npz; types that NumPy does not know (bfloat16) go in as integers, with their name behind `%:`."""
    if value.dtype.kind != "V":
        return _escape(name), value
    return f"{_escape(name)}%:{value.dtype.name}", value.view(f"u{value.dtype.itemsize}")


def _loaded(member: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    name, marked, dtype = member.partition("%:")
    return _unescape(name), value.view(np.dtype(dtype)) if marked else value


def _escape(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")  # a slash would become a folder inside the ZIP


def _unescape(name: str) -> str:
    return name.replace("%2F", "/").replace("%25", "%")


def values_digest(named: Mapping[str, keras.Variable]) -> str:
    """64 hex digits over names, types, shapes and bits of all values: equal if and only if two states are bit-identical."""
    return arrays_digest({name: v.value.numpy() for name, v in named.items()})


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """As `values_digest`, for arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        digest.update(f"{name}\n{value.dtype} {value.shape}\n".encode() + value.tobytes())
    return digest.hexdigest()
