"""A list of runs, one after the other: the plan with estimated times first, finished runs skipped, cut ones gone on with.

For the tools that hold such a list (`soka_part.py`): each run is a config with changed leaves, in a workdir of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
import subprocess
import sys
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf import methods  # noqa: E402  the project need not be installed

START_SECONDS = 12  # of a process: imports, reading data, figures


@dataclass(frozen=True)
class Planned:
    """One run.

    Attributes:
        workdir: where.
        config: its file and argument.
        leaves: what it changes.
    """

    workdir: Path
    config: str
    leaves: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return (self.workdir / "results.json").exists()

    def command(self) -> list[str]:
        changed = [f"--config.{k}={v}" for k, v in self.leaves.items()]
        return ["python", "-m", "amalgam_tf.bin.train", f"--config={self.config}", f"--workdir={self.workdir}", *changed]

    def loaded(self) -> Any:
        config = methods.load_config(self.config)
        config.update_from_flattened_dict(dict(self.leaves))
        return config


def minutes(runs: Sequence[Planned]) -> dict[Path, float]:
    """Workdir -> estimated minutes, by each method's own plan and the speed of its network on this machine now."""
    from amalgam_tf import planning

    speeds: dict[tuple, float] = {}
    found = {}
    for r in runs:
        plan = methods.plan(r.loaded(), r.workdir)[r.workdir]
        key = (plan.net.parameters(), plan.net.block(0).inputs[0].shape)
        if key not in speeds:
            speeds[key] = planning.seconds_per_multiply_add(plan.net)
        found[r.workdir] = (START_SECONDS + plan.work * speeds[key]) / 60
    return found


def carry_out(runs: Sequence[Planned], dry_run: bool) -> None:
    """Prints the plan, then trains what is not done; ends with exit code 1 if a run failed, which costs no other one."""
    todo = [r for r in runs if not r.done]
    cost, so_far = minutes(todo), 0.0
    for r in runs:
        so_far += cost.get(r.workdir, 0.0)
        print(f"{str(r.workdir):60s} " + (f"{cost[r.workdir]:5.1f} min, {so_far:5.1f} so far" if r in todo else "done"))
    print(f"{len(todo)} of {len(runs)} runs to do, about {so_far:.0f} minutes on this machine as busy as it is now", flush=True)
    if dry_run:
        return
    failed = []
    for r in todo:
        print(" ".join(r.command()), flush=True)
        if subprocess.run([sys.executable, *r.command()[1:]], check=False).returncode:
            failed.append(str(r.workdir))
    if failed:
        print(f"error: these runs failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)
