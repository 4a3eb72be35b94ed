"""How the numbers of a page were made: command, commit, versions, hardware and wall time of every run, as the runs recorded them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amalgam_tf import __version__
from amalgam_tf.report import text
from amalgam_tf.report.runs import FinishedRun
from amalgam_tf.training import surroundings

HEADING = "# How these numbers were made"
_UNKNOWN = "not recorded"
_NAMES = {"python": "Python", "tensorflow": "TensorFlow", "keras": "Keras", "numpy": "NumPy"}


def lines(runs: Sequence[FinishedRun], command: str) -> list[str]:
    """The appendix of a page, as Markdown.

    Args:
        runs: whose numbers it shows; may be none.
        command: that wrote the page.
    """
    said, commands = [HEADING, ""], list(dict.fromkeys(r.results.get("command") or _UNKNOWN for r in runs))
    if runs:
        alike = {head: {cell(r.results) for r in runs} for head, cell in _SHARED.items()}
        columns = {**_OWN, **{head: cell for head, cell in _SHARED.items() if len(alike[head]) > 1}}
        said += [f"* {head}: {next(iter(cells))}" for head, cells in alike.items() if len(cells) == 1]
        said += [f"* wall time of all runs together: {duration(sum(r.results['seconds'] for r in runs))}"] * (len(runs) > 1)
        rows = [[f"`{r.name}`", *(cell(r.results) for cell in columns.values())] for r in runs]
        said += ["", *text.table(["run", *columns], rows), "", "Commands of the runs:", "", *_code(commands)]
    if command not in commands:
        said += ["This page was written by", "", *_code([command])]
    commit = surroundings.commit()
    return [*said, f"Page: amalgam_tf {__version__}" + ("." if __version__ in commit else f", commit {commit}."), ""]


def _code(commands: Sequence[str]) -> list[str]:
    return ["```sh", *commands, "```", ""]


def duration(seconds: float) -> str:
    """`48 s`, `12.5 min`, `3.2 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def versions(results: Mapping[str, Any]) -> str:
    """`Python 3.11.2, TensorFlow 2.21.0, ...`; runs of before they were recorded have none."""
    found = results.get("versions", {})
    return ", ".join(f"{_NAMES.get(name, name)} {version}" for name, version in found.items()) or _UNKNOWN


def hardware(results: Mapping[str, Any]) -> str:
    """Processor, cores, memory, GPUs; of older runs what they say."""
    said, found = results.get("hardware", _UNKNOWN), results.get("machine")
    if not found:
        return said
    memory = f", {found['memory_gib']:g} GiB memory" if found["memory_gib"] else ""
    workers = f"{said.partition(',')[0]}, the first: " if "workers" in said else ""
    cores = f"{found['cores']} core{'s' * (found['cores'] != 1)}"
    return f"{workers}{found['cpu']}, {cores}{memory}, {', '.join(found['gpus']) or 'no GPU'}, {found['system']}"


_Of = Callable[[Mapping[str, Any]], str]
_OWN: dict[str, _Of] = {  # columns that differ by run
    "seed": lambda r: str(r["seed"]),
    "wall time": lambda r: duration(r["seconds"]),
    "of which training": lambda r: duration(sum(r["phase_seconds"].values())) if r.get("phase_seconds") else text.NOTHING,
}
_SHARED: dict[str, _Of] = {  # columns only where the runs differ; else one line for all
    "commit": lambda r: r.get("commit") or _UNKNOWN,
    "precision": lambda r: r.get("precision", _UNKNOWN),
    "hardware": hardware,
    "versions": versions,
}
