"""Finished runs as they lie on disk: reading them, who taught what, which of them are one experiment over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import glob
import json
from pathlib import Path
import re
import shlex
from typing import Any

from amalgam_tf.errors import UserError
from amalgam_tf.training import state

_BLOCK = re.compile(r"b(\d+)(?:_\d+)?")
RESULTS, SCORES, CONFIG, CARD = "results.json", "scores.npz", "config.json", "card.json"
TEACHERS, STUDENT, BEFORE = "teachers", "student", "student_before_finetune"


@dataclass(frozen=True)
class FinishedRun:
    """One results.json.

    Attributes:
        name: what the user called it: a workdir or a file.
        results: its content.
        scores: the scores.npz beside it; None if there is none.
        config: content of the config.json beside it; None if there is none.
    """

    name: str
    results: Mapping[str, Any]
    scores: Path | None = None
    config: Mapping[str, Any] | None = None

    @property
    def seed(self) -> int:
        return self.results["seed"]

    @property
    def method(self) -> str:
        return self.results["method"]

    @property
    def test_set(self) -> str:
        """What it was measured on, e.g. `voc2012/val (390 images)`."""
        return f"{self.results['test']['data']} ({self.results['test']['images']} images)"

    @property
    def workdir(self) -> Path | None:
        """Where its other files lie; None for a results file by another name: its folder may hold several, and files of another run."""
        place = Path(self.name)
        return place if place.is_dir() else place.parent if place.name == RESULTS else None

    @property
    def flags(self) -> dict[str, str]:
        """Of the command that made it: `config.seed` -> `1`; `config` is the experiment's file and argument."""
        words = shlex.split(self.results.get("command", ""))
        return dict(w.removeprefix("--").split("=", 1) for w in words if w.startswith("--") and "=" in w)


@dataclass(frozen=True)
class Network:
    """One network of one run, as measured on the test part.

    Attributes:
        per_task: task -> metric -> value in [0, 1] or None.
        parameters: number of scalars; None if not recorded (so all below).
        flops: of one image, 2 x multiply-adds.
        latency: of one call, as a share of all teachers' of the same run: networks of one run take turns on the clock, those of
            different runs met a machine of different load.
        divergence: held-out divergence from the teachers, mean over streams, nats.
        seconds: wall time of training (`training_seconds`).
    """

    per_task: Mapping[str, Mapping[str, Any]]
    parameters: float | None = None
    flops: float | None = None
    latency: float | None = None
    divergence: float | None = None
    seconds: float | None = None

    def mean(self, metric: str) -> float | None:
        """Mean over the tasks that have the metric; None if none has."""
        values = [v[metric] for v in self.per_task.values() if v.get(metric) is not None]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only: one experiment.

    Attributes:
        label: method and rule, e.g. `AFK argmin`.
        runs: ordered by seed; every seed once.
    """

    label: str
    runs: tuple[FinishedRun, ...]

    @property
    def first(self) -> FinishedRun:
        return self.runs[0]

    @property
    def kind(self) -> str:
        """`teacher`, `distill` or the name of the branch rule: what figures choose a colour by."""
        return rule_of(self.first.results)["name"] if self.first.method == "afk" else self.first.method

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """Of every run, by seed."""
        return [run.results for run in self.runs]

    def networks(self, which: str) -> dict[int, Network]:
        """seed -> network, of the runs that have it; `which` as in `network`."""
        found = {run.seed: network(run.results, which) for run in self.runs}
        return {seed: net for seed, net in found.items() if net}


# -- reading ----------------------------------------------------------------------------------------------------------
def read(places: Sequence[str]) -> tuple[list[FinishedRun], list[str]]:
    """Reads runs.

    Args:
        places: workdirs, results files, or patterns of them (`runs/voc/*`).

    Returns:
        The runs in the order named, each once; and sentences about what a pattern matched that is no finished run.

    Raises:
        UserError: nothing named or matched, a workdir without results.json, a file that is not a run's results.
    """
    found: dict[Path, FinishedRun] = {}
    notes = []
    for place in [p.strip() for p in places if p.strip()]:
        matched = [m for m in sorted(glob.glob(place, recursive=True)) if not _inside_run(Path(m))] if glob.has_magic(place) else [place]
        if not matched:
            raise UserError(f"--runs: nothing matches {place!r}: give workdirs, results.json files, or a pattern in quotes")
        files = {m: Path(m) / RESULTS if Path(m).is_dir() else Path(m) for m in matched}
        finished = {m: f for m, f in files.items() if f.is_file() and f.suffix == ".json"} if glob.has_magic(place) else files
        above = {parent for f in finished.values() for parent in f.parents[1:]}  # of runs further down, in a pattern with **
        if left := sorted(m for m in files.keys() - finished.keys() if Path(m) not in above):
            notes.append(f"left out, no {RESULTS} there: {', '.join(left)}")
        if glob.has_magic(place) and (blind := [m for m, f in finished.items() if _without_test(state.read_json(f))]):
            notes.append(f"left out, measured on no test image: {', '.join(blind)}")
            finished = {m: f for m, f in finished.items() if m not in blind}
        if not finished:
            raise UserError(f"--runs: nothing that matches {place!r} holds a {RESULTS} of test images: wait until the runs have finished")
        for name, file in finished.items():
            found.setdefault(file.resolve(), _read_one(name, file))
    if not found:
        raise UserError("--runs names no run: give workdirs, results.json files or patterns, separated by commas")
    return list(found.values()), notes


def _inside_run(path: Path) -> bool:
    """Whether a pattern reached into a workdir, finished or not: its config.json, cards and checkpoints are no runs, and need no note."""
    if path.name == RESULTS or (path / RESULTS).is_file():
        return False
    return path.name == CARD or any((parent / name).is_file() for parent in path.parents for name in (RESULTS, CONFIG))


def _read_one(name: str, file: Path) -> FinishedRun:
    if not file.exists():
        if file.parent.is_dir() and file.name == RESULTS:
            raise UserError(f"--runs: {file.parent} holds no {RESULTS}: wait until the run has finished, or run its command again")
        raise UserError(f"--runs: there is no run at {name}: give a workdir or its {RESULTS}")
    results = state.read_json(file)
    state.check_format(results, file)
    if _without_test(results):
        raise UserError(f"--runs: {file} was measured on no test image: leave it out")
    if missing := [k for k in ("method", "seed", "tasks", "test", "sizes") if k not in results]:
        raise UserError(f"--runs: {file} has no {', '.join(missing)}: it is not the {RESULTS} of a run")
    if file.name != RESULTS:  # the folder may hold several, and what lies beside it would be of another run
        return FinishedRun(name, results)
    scores, config = file.with_name(SCORES), file.with_name(CONFIG)
    return FinishedRun(name, results, scores if scores.is_file() else None, state.read_json(config) if config.is_file() else None)


def _without_test(results: Mapping[str, Any]) -> bool:
    """Whether these are the results of a student that was measured on no labelled image."""
    return "test" not in results and bool({"agreement", "unlabelled"} & set(results))


# -- what a results file says ------------------------------------------------------------------------------------------
def rule_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """The branch rule; files of before there was a choice have the paper's."""
    return results.get("rule") or {"name": "argmin"}


def rule_text(rule: Mapping[str, Any]) -> str:
    """`argmin`, `tolerance 0.01`, `budget 30 M parameters`, `fixed b2`."""
    words = [rule["name"]]
    for key, value in rule.items():
        unit = {"parameters": (1e6, " M parameters"), "flops": (1e9, " GFLOPs")}.get(key.removeprefix("max_"))
        if unit:
            words.append(f"{value / unit[0]:g}{unit[1]}")
        elif key != "name":
            words.append(str(value) if key in (rule["name"], "block") else f"{key} {value}")
    return " ".join(words)


def label_of(results: Mapping[str, Any]) -> str:
    """What a run is called in tables and figures."""
    if results["method"] == "afk":
        return f"AFK {rule_text(rule_of(results))}"
    return "distillation" if results["method"] == "distill" else results["method"]


def headline_ap(test_data: str) -> str:
    """The average precision to show: 11 points for VOC2007, the area under the interpolated curve elsewhere (spec E1)."""
    return "ap_11pt" if test_data.startswith("voc2007") else "ap_all"


def kept_streams(results: Mapping[str, Any]) -> dict[str, tuple[str, str | None]]:
    """Task -> (teacher, branch point) of the student. Without branches (distillation): the first teacher that knows the task, None."""
    kept = {s.rpartition("@")[0]: (s.rpartition("@")[2], block) for s, block in results.get("branches", {}).items()}
    teachers = results.get("teachers", {})
    return {t: kept.get(t) or (next(n for n, known in teachers.items() if t in known), None) for t in results["tasks"]}


def network(results: Mapping[str, Any], which: str) -> Network | None:
    """One network of a run, None if the file does not have it.

    Args:
        results: of a student's run; of a teacher's run there is only `teacher`.
        which: `student`, `student_before_finetune`, `teachers` (all of them together, each task by the teacher of its kept stream),
            `teacher`, or the name of a block: every task branched there, before fine-tuning.
    """
    test, sizes = results["test"], results["sizes"]
    if which == "teacher":
        return (
            Network(test["teacher"]["per_task"], seconds=training_seconds(results), **_size([sizes["teacher"]]))
            if "teacher" in test
            else None
        )
    if results["method"] == "teacher":
        return None
    if which == TEACHERS:
        per_task = {task: test[name]["per_task"][task] for task, (name, _) in kept_streams(results).items()}
        return Network(per_task, divergence=0.0, **_size([sizes[name] for name in results["teachers"]], results))
    if which == STUDENT:
        size, divergence = _size([sizes["student"]], results), divergence_of(results, "after")
        return Network(test["student"]["per_task"], divergence=divergence, seconds=training_seconds(results), **size)
    if which == BEFORE:
        divergence = divergence_of(results, "before")
        return Network(test[BEFORE]["per_task"], divergence=divergence, **_size([sizes["student"]], results)) if BEFORE in test else None
    at = results.get("curve", {}).get(which)
    return Network(at["test"]["per_task"], divergence=divergence_of(results, which), **_size([at])) if at else None


def training_seconds(results: Mapping[str, Any]) -> float:
    """Of all phases (those of adopted blocks too); of the whole run, with caches and tests, where a file does not tell them apart."""
    return sum(results["phase_seconds"].values()) if results.get("phase_seconds") else results["seconds"]


def _size(parts: Sequence[Mapping[str, Any]], results: Mapping[str, Any] | None = None) -> dict[str, float | None]:
    """The sum of the parts' sizes; with the run's results also the latency beside its teachers'."""

    def added(key: str, of: Sequence[Mapping[str, Any]]) -> float | None:
        return sum(p[key] for p in of) if all(p.get(key) is not None for p in of) else None

    size = {k: added(k, parts) for k in ("parameters", "flops")}
    if results is None:
        return size
    mine, taught = added("latency_ms", parts), added("latency_ms", [results["sizes"][name] for name in results["teachers"]])
    return {**size, "latency": mine / taught if mine and taught else None}


def divergence_of(results: Mapping[str, Any], which: str) -> float | None:
    """Mean held-out divergence over the kept streams, nats; None if it was not measured on the held-out part.

    Args:
        results: of a student's run.
        which: `before` or `after` fine-tuning, or a block.
    """
    measured = results.get("held_out", {}).get(which)
    if measured is None and results.get("branch_split", "held_out") == "held_out":
        losses = results.get("block_losses", {})
        kept = results.get("branches", {})
        # Regrouping changes no function: before fine-tuning a stream's loss is the one recorded at its branch point.
        measured = {s: losses.get(kept[s] if which == "before" else which, {}).get(s) for s in kept}
    values = [v["divergence"] for v in (measured or {}).values() if v]
    return sum(values) / len(values) if values else None


def stage_ends(blocks: Sequence[str]) -> dict[int, str]:
    """Stage -> the last of its blocks: `b2` or, of units, `b2_4` (rows b1..b4 of the paper's tables, spec A17)."""
    return {int(m[1]): block for block in blocks if (m := _BLOCK.fullmatch(block))}


# -- which runs belong together ---------------------------------------------------------------------------------------
def groups(runs: Sequence[FinishedRun]) -> tuple[list[Group], list[str]]:
    """Runs of one method, rule, task list, pool, test set and published row become one group over seeds.

    Where a seed occurs twice, something else than the seed was varied: those runs stand one by one, by name.

    Returns:
        The groups in order of appearance, and sentences about what a reader of medians should know.
    """
    by_key: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_key.setdefault(_experiment(run), []).append(run)
    found, notes = [], []
    for members in by_key.values():
        label = label_of(members[0].results)
        if len({m.seed for m in members}) < len(members):
            notes.append(
                f"{label}: {', '.join(m.name for m in members)} share a seed, so they are shown one by one, not as seeds of one run"
            )
            found += [Group(f"{label} ({short})", (m,)) for m, short in zip(members, _short_names([m.name for m in members]), strict=True)]
            continue
        found.append(Group(label, tuple(sorted(members, key=lambda m: m.seed))))
        notes += _differing_settings(found[-1])
    return _told_apart(found), notes


def named(members: Sequence[FinishedRun], label: str) -> tuple[list[Group], list[str]]:
    """`groups` of runs of one method that are told apart by more than the results say, under the label they share."""
    found, notes = groups(members)
    plain = label_of(members[0].results)
    return [Group(label + g.label.removeprefix(plain), g.runs) for g in found], [label + n.removeprefix(plain) for n in notes]


def _told_apart(found: Sequence[Group]) -> list[Group]:
    """Experiments of one label list that would be called alike (they differ in the pool, say) get a run's name."""
    alike: dict[tuple, list[Group]] = {}
    for group in found:
        alike.setdefault((group.label, *sorted(group.first.results["tasks"])), []).append(group)
    renamed = {}
    for same in alike.values():
        names = _short_names([g.first.name for g in same]) if len(same) > 1 else []
        renamed |= {id(g): f"{g.label} ({name})" for g, name in zip(same, names, strict=False)}
    return [Group(renamed.get(id(g), g.label), g.runs) for g in found]


def _short_names(names: Sequence[str]) -> list[str]:
    """Paths without the folders they begin with alike and the parts they end with alike."""
    parts = [Path(n).parts for n in names]
    start = next((i for i, each in enumerate(zip(*parts, strict=False)) if len(set(each)) > 1), 0)
    ends = (i for i, each in enumerate(zip(*(p[::-1] for p in parts), strict=False)) if len(set(each)) > 1)
    stop = next(ends, 0)
    return ["/".join(p[start : len(p) - stop] or p[-1:]) for p in parts]


def _experiment(run: FinishedRun) -> str:
    r = run.results
    rule = rule_of(r) if run.method == "afk" else None
    return json.dumps([run.method, rule, sorted(r["tasks"]), r.get("teachers"), run.test_set, r.get("published_row", "")], sort_keys=True)


def _differing_settings(group: Group) -> list[str]:
    """The results file does not hold the configuration; the command names what was changed from the config file."""
    settings = {run.name: _settings(run.results.get("command", "")) for run in group.runs}
    if len(set(settings.values())) < 2:
        return []
    common = frozenset.intersection(*settings.values())
    each = "; ".join(f"{name}: {' '.join(sorted(s - common)) or 'none of these'}" for name, s in settings.items())
    return [f"{group.label}: the runs were made with different flags ({each}), so a median over them mixes settings"]


def _settings(command: str) -> frozenset[str]:
    """The flags but the seed, and without paths, which change with the seed."""
    flags = [w for w in shlex.split(command) if w.startswith("--")]
    keys = [(w, *w.removeprefix("--").partition("=")[::2]) for w in flags]
    return frozenset(w for w, key, value in keys if key == "config" or not (key in ("workdir", "config.seed") or "/" in value))


def merged(named: Mapping[str, Mapping[int, Network]]) -> dict[str, dict[int, Network]]:
    """Puts together what is the same network measured in several groups (the teachers, the curve of a shared trunk).

    Args:
        named: group's label -> seed -> network.

    Returns:
        The label of the first group that has it -> seed -> network. Groups that disagree about a seed stay apart.
    """
    lines: dict[str, dict[int, Network]] = {}
    for label, networks in named.items():
        if networks:
            same = (m for m in lines.values() if all(alike(m[s], networks[s]) for s in m.keys() & networks.keys()))
            line = next(same, None)
            if line is None:
                line = lines.setdefault(label, {})
            line.update({s: n for s, n in networks.items() if s not in line})
    return lines


def alike(a: Network, b: Network) -> bool:
    if a.per_task.keys() != b.per_task.keys() or a.parameters != b.parameters:
        return False
    pairs = [(row, b.per_task[task], "ap_all" if row.get("ap_all") is not None else "accuracy") for task, row in a.per_task.items()]
    # Another process may round otherwise and so swap two images; another training changes some label by more than this.
    return all(y.get(metric) is not None and abs(x[metric] - y[metric]) < 5e-3 for x, y, metric in pairs)
