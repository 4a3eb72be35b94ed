"""Taking possession of a run's folder: one process at a time, one configuration for ever."""

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from amalgam_tf.errors import UserError
from amalgam_tf.training import state

CONFIG = "config.json"


def lock(workdir: Path) -> int:
    """Makes the folder and locks it for this process; returns the handle that releases it when closed.

    Raises:
        UserError: the folder cannot be used, or is in use.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = os.open(workdir / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise UserError(f"the workdir {workdir} cannot be used ({error.strerror}): choose another --workdir") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(f"another process is running in {workdir}: wait for it, or choose another --workdir") from error
    return handle


def claim(workdir: Path, config: dict[str, Any]) -> None:
    """Writes config.json, or refuses a workdir that was made by another configuration.

    Raises:
        UserError: as said.
    """
    path, config = workdir / CONFIG, plain(config)
    if not path.exists():
        state.write_json(path, config)
        return
    if changed := different(state.read_json(path), config):
        raise UserError(
            f"{workdir} was made with another configuration (different: {', '.join(changed[:8])}): use the same one, or another --workdir"
        )


def join(workdir: Path, config: dict[str, Any], of_chief: dict[str, Any]) -> None:
    """Checks that another worker than the chief sees the folder that the chief has claimed, and was started with its configuration.

    Raises:
        UserError: it does not, or was not.
    """
    if changed := different(of_chief, plain(config)):
        raise UserError(
            f"this worker was started with another configuration than worker 0 (different: {', '.join(changed[:8])}): "
            "start all workers with the same command"
        )
    if not (workdir / CONFIG).is_file():
        raise UserError(
            f"{workdir} holds no {CONFIG} for this worker, though worker 0 wrote one: "
            "give all workers one --workdir on a file system that they share"
        )


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a JSON file."""
    return json.loads(json.dumps(config))


def different(first: Any, second: Any) -> list[str]:
    """Dotted names of the leaves in which two configurations differ."""
    first, second = flat(first), flat(second)
    return sorted(k for k in first | second if (k in first) != (k in second) or first[k] != second[k])


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    if not isinstance(data, dict):
        return {prefix: data}
    return {k: v for name, part in data.items() for k, v in flat(part, f"{prefix}.{name}" if prefix else name).items()}


def fingerprint(data: Any) -> str:
    """16 hex digits over plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
