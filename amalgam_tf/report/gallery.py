"""One figure of several runs, one below the other: for what is looked at, and not measured."""

from collections.abc import Mapping
from pathlib import Path
import shutil

from amalgam_tf.report import generated
from amalgam_tf.report.runs import RESULTS
from amalgam_tf.training import state


def write(name: str, said: str, runs: Mapping[str, Path], figure: str, output: Path) -> list[Path]:
    """Writes `{name}_figures.md` with a copy of every run's figure beside it; returns what was written.

    Args:
        name: of the files, and of the report.
        said: what the figures show.
        runs: heading -> workdir.
        figure: of each run, below its workdir; runs that have none are named.
        output: an existing folder.
    """
    lines, files, lacking = [f"# {name}: {said}", ""], [output / f"{name}_figures.md"], []
    for heading, workdir in runs.items():
        if not (workdir / figure).is_file():
            lacking.append(heading)
            continue
        copy = output / f"{name}_{heading.replace('/', '_')}.png"
        shutil.copyfile(workdir / figure, copy)
        files.append(copy)
        results = state.read_json(workdir / RESULTS)
        # Where no test image was looked at, the share of images that show a label stands in no other table.
        shares = [*generated.table(results), ""] if "labels" in results and "test" not in results else []
        lines += [f"## {heading}", "", *shares, f"![{figure} of {heading}]({copy.name})", ""]
    if lacking:
        lines += [f"Without {figure}: {', '.join(lacking)}.", ""]
    files[0].write_text("\n".join(lines), encoding="utf-8")
    return files
