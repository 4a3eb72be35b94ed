"""What a run ran on and with: commit, versions, hardware. Recorded when it runs, since a report may be made elsewhere and later."""

from importlib import metadata
import os
from pathlib import Path
import platform
import subprocess
from typing import Any

import tensorflow as tf

from amalgam_tf import __version__

PACKAGES = ("keras", "numpy")  # beside TensorFlow, whose package has several names
_PACKAGE = Path(__file__).parents[1]


def commit() -> str:
    """Short hash of the checkout that this code belongs to; `version 0.1.0` if it is installed, or git does not answer."""
    installed = f"version {__version__}"
    try:
        # A package below somebody's .venv lies in THEIR repository: only one that keeps the package's files counts.
        if _git("ls-files", "--error-unmatch", "__init__.py", cwd=_PACKAGE) is None:
            return installed
        return _git("rev-parse", "--short", "HEAD", cwd=_PACKAGE) or installed
    except (OSError, subprocess.SubprocessError):
        return installed


def _git(*arguments: str, cwd: Path) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, timeout=10)
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Name -> version of Python, TensorFlow, Keras, NumPy and this package."""
    found = {"python": platform.python_version(), "tensorflow": tf.__version__}
    return found | {name: metadata.version(name) for name in PACKAGES} | {"amalgam_tf": __version__}


def gpus() -> list[str]:
    """Names of the GPUs that TensorFlow sees, without ids."""
    return [tf.config.experimental.get_device_details(d).get("device_name", "GPU") for d in tf.config.list_physical_devices("GPU")]


def machine() -> dict[str, Any]:
    """`cpu` (its name), `cores` (that this process may use), `memory_gib` (of the whole machine; None if unknown), `gpus`, `system`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu(), "cores": cores, "memory_gib": _memory(), "gpus": gpus(), "system": f"{platform.system()} {platform.machine()}"}


def cpu(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as it calls itself, or its architecture where it has no name."""
    try:
        lines = (line.partition(":") for line in info.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        lines = iter(())
    named = (" ".join(value.split()) for key, _, value in lines if key.strip() == "model name")
    return next(named, "") or platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def hardware(workers: int) -> str:
    """In few words, for tables: `2 x x86_64 CPU`, or the GPUs' names.

    Args:
        workers: processes that worked on the run.
    """
    here = ", ".join(gpus()) or f"{os.cpu_count()} x {platform.machine()} CPU"
    return here if workers == 1 else f"{workers} workers, the first on {here}"


def record(workers: int) -> dict[str, Any]:
    """What results.json keeps of it: `hardware`, `machine`, `versions`."""
    return {"hardware": hardware(workers), "machine": machine(), "versions": versions()}
