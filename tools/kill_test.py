"""kill -9 at random moments, the same command again after each one, and in the end the same bits as without any.

    python tools/kill_test.py --workdir=runs/kill_test --kills=10 --seed=0 --log=results/kill_test.log
    python tools/kill_test.py --workdir=runs/kill_test --kills=3 --config=configs/quickstart.py:student,smoke --config.save_every_steps=1

Flags that are not listed here go to the train binary (it saves every 20 steps if nothing else is said). The teachers are trained
once, into WORKDIR/teachers, and found there by every later test. The run WORKDIR/whole is left in peace; WORKDIR/killed is killed at
moments drawn from what happened in the first: in the midst of a step, with half of a checkpoint or of a decision on disk, and
between two phases. Exit code 0: identical; 1: different, or a process ended otherwise than by its kill.
"""

from collections import Counter
import hashlib
import io
import json
import os
from pathlib import Path
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import zipfile

from absl import app, flags
import h5py

# run as a script from a checkout, where the package need not be installed: its folder is the one above this file's
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from amalgam_tf import methods  # noqa: E402
from amalgam_tf.bin.app import import_tensorflow  # noqa: E402
from amalgam_tf.errors import UserError  # noqa: E402

_WORKDIR = flags.DEFINE_string("workdir", "runs/kill_test", "folder of both runs and of the teachers")
_CONFIG = flags.DEFINE_string("config", "configs/quickstart.py:student", "what is trained, as for the train binary")
_KILLS = flags.DEFINE_integer("kills", 10, "how often the second run is killed", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the moments")
_LOG = flags.DEFINE_string("log", "", "file that gets what is printed")

KINDS = ("clock", "save", "phase", "clock", "decide")  # in turn
OVERSHOOT = 3  # steps: a `clock` kill comes before the second step after its own begins
# What differs between two runs of one experiment: times, and the names of the folders.
OWN_RESULTS = ("command", "seconds", "phase_seconds", "sizes")
OWN_DECISIONS = ("seconds", "latency")


def plan(events: list[dict], kills: int, seed: int) -> list[tuple[dict, str]]:
    """Draws moments from the events of an undisturbed run.

    Args:
        events: lines of `killer.py`, in order.
        kills: how many.
        seed: of the draw.

    Returns:
        (event, moment for `killer.py`) in the order in which they will come.

    Raises:
        UserError: the run is too short for so many.
    """
    rng, end = random.Random(seed), {e["key"]: e["total"] for e in events if e["kind"] == "phase"}
    begins = [e for e in events if e["kind"] == "step"]
    seconds = statistics.median(b["time"] - a["time"] for a, b in zip(begins, begins[1:], strict=False))
    wanted = Counter(KINDS[i % len(KINDS)] for i in range(kills))
    of_kind = {
        "clock": [e for e in begins if e["total"] + OVERSHOOT <= end[e["phase"]]],
        **{kind: [e for e in events if e["kind"] == kind] for kind in ("save", "phase", "decide")},
    }
    for _ in range(1000):
        drawn = [(e, k) for k, n in wanted.items() if len(of_kind[k]) >= n for e in rng.sample(of_kind[k], n)]
        drawn.sort(key=lambda pair: events.index(pair[0]))
        pairs = zip(drawn, drawn[1:], strict=False)
        if len(drawn) == kills and all(k != "clock" or a["total"] + OVERSHOOT <= b["total"] for (a, k), (b, _) in pairs):
            return [(e, _moment(e, k, seconds, rng)) for e, k in drawn]
    raise UserError(f"the run is too short for {kills} kills ({len(begins)} steps): lower --kills, or train longer")


def _moment(event: dict, kind: str, step_seconds: float, rng: random.Random) -> str:
    if kind == "clock":
        return f"clock:{event['key']}:{rng.uniform(0, step_seconds):.4f}"
    if kind == "phase":
        return f"phase:{event['key']}"
    share = 1.0 if kind == "decide" and rng.random() < 0.5 else rng.uniform(0, 1)  # 1: written, and killed before anything else
    return f"{kind}:{event['key']}:{share:.3f}"


def described(moment: str) -> str:
    """A moment in words."""
    kind, _, rest = moment.partition(":")
    key, _, number = rest.rpartition(":") if kind != "phase" else (rest, "", "")
    if kind == "clock":
        return f"{1000 * float(number):.0f} ms into step {key}"
    if kind == "phase":
        return f"between phases, behind {key}"
    what = f"saving {key}.npz" if kind == "save" else f"deciding {key}"
    return f"{what}, {100 * float(number):.0f} % on disk"


def python(*arguments: object) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *map(str, arguments)], env=env, capture_output=True, text=True)


def read(events: Path) -> list[dict]:
    return [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()] if events.exists() else []


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("[0-9]*.npz"))[-1]


def digests(run: Path) -> dict[str, str]:
    """What must be equal, each as 64 hex digits: the whole state, the network as saved, the decisions, results and measurements."""
    import_tensorflow()
    from amalgam_tf.training import state

    arrays, record = state.read_arrays(newest(run))
    finished = {k: record["progress"][k] for k in ("phase", "step", "total", "finished")}
    decisions = {k: v for k, v in state.read_json(run / "decisions.json")["decisions"].items() if k not in OWN_DECISIONS}
    results = {k: v for k, v in state.read_json(run / "results.json").items() if k not in OWN_RESULTS}
    return {
        "state": state.arrays_digest(arrays),
        "network": state.arrays_digest(network(run)),
        "progress": _of_json(finished),
        "decisions": _of_json(decisions),
        "results": _of_json(results),
        "metrics": hashlib.sha256((run / "metrics.jsonl").read_bytes()).hexdigest(),
    }


def network(run: Path) -> dict:
    """The weights in the model.keras of a finished run, read without Keras."""
    arrays = {}
    (path,) = run.glob("[!.]*/model.keras")
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def _of_json(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def verdict(whole: dict[str, str], killed: dict[str, str]) -> tuple[list[str], bool]:
    """The digests of both runs in lines, and whether all are equal."""
    lines = [f"{name:<10} {run:<7} {values[name]}" for name in whole for run, values in (("whole", whole), ("killed", killed))]
    different = [name for name in whole if whole[name] != killed[name]]
    return [*lines, f"DIFFERENT: {', '.join(different)}" if different else "identical"], not different


class Log:
    """Prints lines and keeps them in a file."""

    def __init__(self, path: str):
        self.path = Path(path) if path else None
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("", encoding="utf-8")

    def __call__(self, text: str) -> None:
        print(text, flush=True)
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(text + "\n")


def started(flag_list: list[str], folder: Path, moment: str) -> tuple[subprocess.CompletedProcess, list[dict]]:
    """One process of the train binary over `killer.py`; returns it and its events."""
    events = folder.with_name(f"{folder.name}.events")
    events.unlink(missing_ok=True)
    return python(ROOT / "tools" / "killer.py", moment, events, *flag_list, f"--workdir={folder}"), read(events)


def failed(log: Log, what: str, process: subprocess.CompletedProcess) -> None:
    log(f"FAILED: {what} ended with exit code {process.returncode}")
    log("\n".join((process.stdout + process.stderr).splitlines()[-15:]))
    sys.exit(1)


def test(log: Log, config: str, rest: list[str], workdir: Path, kills: int, seed: int) -> bool:
    """The whole test; returns whether both runs ended alike.

    Raises:
        UserError: no such config, or a run too short for so many kills.
    """
    teachers = methods.load_config(config).get("teachers", {})
    paths = [f"--config.teachers.{name}.path={workdir / 'teachers' / name}" for name in teachers]
    given = [f"--config={config}", "--config.save_every_steps=20", *rest]
    whole, killed = workdir / "whole", workdir / "killed"
    for folder in (whole, killed):
        shutil.rmtree(folder, ignore_errors=True)
    workdir.mkdir(parents=True, exist_ok=True)

    log(f"{shlex.join(given)}, {kills} kills, seed {seed}")
    begin = time.monotonic()
    process, events = started([*given, *paths], whole, "none")
    if process.returncode:
        failed(log, "the undisturbed run", process)
    log(f"undisturbed: {events[-1]['total']} steps, {time.monotonic() - begin:.0f} s (missing teachers included)")

    for i, (_, moment) in enumerate(plan(events, kills, seed), 1):
        process, seen = started([*given, *paths], killed, moment)
        if process.returncode != -9 or seen[-1]["kind"] != "killed":
            failed(log, f"kill {i} ({described(moment)}) never came: the process", process)
        at = seen[-1]
        place = f"{at['phase']} {at['step']}" if at["phase"] else "between phases"
        log(f"kill {i:>2}: {described(moment):<52} {place:<18} step {at['total']:>5} of the run; {_resumed(process.stdout)}")

    process = python("-m", "amalgam_tf.bin.train", *given, *paths, f"--workdir={killed}")
    if process.returncode:
        failed(log, "the last start", process)
    log(f"last start, to the end: {_resumed(process.stdout)}")
    if left := sorted(str(p.relative_to(killed)) for p in killed.rglob(".*") if p.name != ".lock"):
        log(f"left behind: {', '.join(left)}")
    lines, alike = verdict(digests(whole), digests(killed))
    for line in lines:
        log(line)
    return alike and not left


def _resumed(out: str) -> str:
    line = next((x for x in out.splitlines() if x.startswith("resuming")), "")
    return f"had gone on at step {line.partition(' at step ')[2]}" if line else "had started at step 0"


def main(argv: list[str]) -> None:
    try:
        alike = test(Log(_LOG.value), _CONFIG.value, argv[1:], Path(_WORKDIR.value), _KILLS.value, _SEED.value)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0 if alike else 1)


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
