"""From artefacts to runs and back: which runs a table needs, where they lie, whether their data are there; then its comparison.

Below the workdir:

    runs/seed0/afk_table1/TargetRes50      a run, where its config's own command puts it, below its seed
    runs/shared/soka_taskonomy/teachers/…  teachers that all seeds share; one brought from elsewhere may lie there (card.json)
    afk.table1/                            what an artefact's comparison writes; index.html leads to all of them
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import functools
import hashlib
import json
import os
from pathlib import Path
import re
import shlex
from typing import Any

from amalgam_tf import methods, series
from amalgam_tf.artefacts import ARTEFACTS, DATA, SEEDS, Artefact, Wanted, lengths
from amalgam_tf.errors import UserError
from amalgam_tf.series import Leaves, Planned
from amalgam_tf.tasks import entries, resolved

RECORD, PAGE, INDEX = "comparison.json", "report.html", "index.html"
_TEACHERS = ("teacher", "dense_teacher")  # methods
_SUMMARISED = ("customize.", "dual_gan.", "soka.")  # papers whose summaries say more than their tables
_FOLDERS = ("data.root", "data.train_root")
_ANYWHERE = re.compile(r"data\.(root|train_root|cache_dir)|command|licence|.*weights|(log|save)_every_steps")  # leaves no result depends on


@dataclass(frozen=True)
class Setting:
    """What a user chose.

    Attributes:
        scale: one of `artefacts.SCALES`.
        workdir: of everything.
        data: the folder that holds the data sets, by the names of `artefacts.DATA`, and `<backbone>_notop.h5`, if there are any.
        seeds: of every run; the scale's own if empty.
    """

    scale: str
    workdir: Path
    data: Path = Path()
    seeds: tuple[int, ...] = ()

    def __post_init__(self):  # runs find each other by paths whose `..` are resolved
        object.__setattr__(self, "workdir", Path(os.path.normpath(self.workdir)))

    @property
    def all_seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.seeds)) or SEEDS[self.scale]


@dataclass(frozen=True)
class Reproduction:
    """An artefact's runs.

    Attributes:
        artefact: which.
        runs: all of them, each after those it needs.
        shown: those that are compared, without teachers.
    """

    artefact: Artefact
    runs: tuple[Planned, ...]
    shown: tuple[Planned, ...]

    @property
    def done(self) -> int:
        return sum(r.done for r in self.runs)


# -- which runs -------------------------------------------------------------------------------------------------------
def of(artefact: Artefact, setting: Setting) -> Reproduction:
    """The runs of an artefact, seed by seed.

    Raises:
        UserError: it has none at this scale.
    """
    runs, shown = [], []
    if not (every := artefact.runs(setting.scale)):
        raise UserError(f"{artefact.name} is no table or figure of a paper: its runs are those of --scale=small")
    for i, seed in enumerate(setting.all_seeds):
        for wanted in (w for w in every if i == 0 or setting.scale != "small" or not w.once):
            found = _with_teachers(artefact, wanted, seed, setting)
            runs += found
            shown += found[-1:] if wanted.shown else []
    by_workdir = {run.workdir: run for run in series.in_order(runs)}  # shrunk to smoke runs, two may be one
    return Reproduction(artefact, tuple(by_workdir.values()), tuple(by_workdir[w] for w in dict.fromkeys(r.workdir for r in shown)))


def _with_teachers(artefact: Artefact, wanted: Wanted, seed: int, setting: Setting) -> tuple[Planned, ...]:
    """A run, after the teachers it needs."""
    smoke = setting.scale == "smoke"
    own = setting.workdir / "runs" / f"seed{seed}"
    taught = setting.workdir / "runs" / "shared" if smoke or artefact.taught_once else own
    config = methods.load_config(wanted.config)
    workdir = own / _place(config.command)
    if wanted.name:
        workdir = workdir.parent / wanted.name
    config.update_from_flattened_dict({"seed": seed, **_of_scale(wanted.config, setting), **wanted.leaves, **_folders(config, setting)})
    if smoke and config.get("stage", "") == "component":  # the teacher of other runs
        workdir = _by_content(config, taught)
    return _planned(Planned(workdir, wanted.config, _changed(wanted.config, config)), tuple(wanted.taught.items()), setting, own, taught)


@functools.cache
def _planned(run: Planned, of_taught: Leaves, setting: Setting, own: Path, taught: Path) -> tuple[Planned, ...]:
    """A run, after the teachers it needs.

    Args:
        run: without the leaves that say where its teachers are and where its ready weights.
        of_taught: leaves of its teachers.
        setting: what the user chose.
        own: the root of its workdir.
        taught: that of its teachers.
    """
    leaves, before = {**dict(run.leaves), **_weights(run, setting)}, []
    config = Planned(run.workdir, run.config, tuple(leaves.items())).loaded()
    for name, entry in entries(config).items():
        theirs = methods.teacher_config(config, entry)
        if own != taught:
            theirs.seed = 0
        theirs.update_from_flattened_dict({**_of_scale(entry.config, setting), **dict(of_taught)})
        place = resolved(entry.path, run.workdir)
        folder = _by_content(theirs, taught) if setting.scale == "smoke" else taught / place.relative_to(own)
        before += _planned(Planned(folder, entry.config, _changed(entry.config, theirs)), of_taught, setting, taught, taught)
        if folder != place:
            leaves[f"teachers.{name}.path"] = "{workdir}/" + Path(os.path.relpath(folder, run.workdir)).as_posix()
    if before:
        leaves["train_missing_teachers"] = False  # they are runs of the plan
    # As changes alone, so that a run is the same whichever artefact asks for it.
    changed = _changed(run.config, Planned(run.workdir, run.config, tuple(leaves.items())).loaded())
    return (*before, Planned(run.workdir, run.config, changed))


def _place(command: str) -> Path:
    """Where the command of a config trains, without `runs/` and a seed's folder."""
    workdir = next(word.partition("=")[2] for word in command.split() if word.startswith("--workdir="))
    return Path(*(part for part in Path(workdir).parts if part != "runs" and not re.fullmatch(r"seed\d+", part)))


def _by_content(config: Any, root: Path) -> Path:
    """Where a network that may teach lies among smoke runs: by what it is, since most tables have the same ones when they are shrunk.

    Empties what tells them apart nevertheless, in place.
    """
    for note in {"command", "licence"} & set(config):
        config[note] = ""
    return root / "teachers" / f"{config.name}_{hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:6]}"


def _of_scale(spec: str, setting: Setting) -> dict[str, Any]:
    return lengths(spec) if setting.scale == "small" else {}


def _folders(config: Any, setting: Setting) -> dict[str, str]:
    """The leaves that name folders of data: the root as in the config's own command, and that of other images."""
    if setting.scale == "smoke":
        return {}
    flags = dict(w.removeprefix("--config.").split("=", 1) for w in shlex.split(config.command) if w.startswith("--config.data."))
    found = {"data.root": flags.get("data.root", ""), "data.train_root": config.data.train_root}
    return {leaf: str(setting.data / name) for leaf, name in found.items() if name}


def _weights(run: Planned, setting: Setting) -> dict[str, str]:
    """The leaf that names a file of ready ImageNet weights, if the data folder holds it; without, Keras downloads them."""
    config = run.loaded()
    section = next((s for s in ("student", "model") if config.get(s, {}).get("weights", "") == "imagenet"), "")
    if not section:
        return {}
    first = next(iter(config.teachers.values())) if section == "student" else None
    model = Planned(Path(), first.config).loaded().model if first else config.model
    file = setting.data / f"{model.backbone}_notop.h5"
    return {f"{section}.weights": str(file)} if file.is_file() else {}


def _changed(spec: str, config: Any) -> Leaves:
    """The leaves in which a config is not what its file says."""
    plain, changed = _flat(Planned(Path(), spec).loaded().to_dict()), _flat(config.to_dict())
    return tuple((leaf, value) for leaf, value in changed.items() if plain.get(leaf) != value)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in data.items():
        found |= _flat(part, f"{prefix}{name}.") if isinstance(part, Mapping) else {prefix + name: part}
    return found


# -- before anything is trained ---------------------------------------------------------------------------------------
def check_data(runs: Sequence[Planned], data: Path) -> None:
    """Whether the folders are there that the runs which are not done will read.

    Args:
        runs: in any order.
        data: the folder of all data sets.

    Raises:
        UserError: one is missing; the sentence says what to download and where to put it.
    """
    named = {Path(dict(r.leaves)[leaf]) for r in runs if not r.done for leaf in _FOLDERS if dict(r.leaves).get(leaf)}
    missing = sorted(folder for folder in named if not folder.is_dir())
    if missing:
        said = "; ".join(f"{folder} ({DATA[folder.relative_to(data).parts[0]]})" for folder in missing)
        raise UserError(f"the data are not there, put them below --data={data} or name their folder: {said}")


def check_unchanged(runs: Sequence[Planned]) -> None:
    """Whether all that is done or begun was made as it would be made now: what was made otherwise must not be compared.

    Raises:
        UserError: another scale's, or another version's, run lies in a workdir.
    """
    from amalgam_tf.training import state, workdir

    for run in runs:
        file = run.workdir / workdir.CONFIG
        if not file.exists():
            continue
        changed = workdir.different(state.read_json(file), workdir.plain(run.loaded().to_dict()))
        if changed := [leaf for leaf in changed if not _ANYWHERE.fullmatch(leaf)]:
            raise UserError(
                f"{run.workdir} was made with another configuration (different: {', '.join(changed[:8])}): "
                "remove this folder, or choose another --workdir"
            )


# -- state ------------------------------------------------------------------------------------------------------------
def state_of(made: Reproduction, setting: Setting) -> str:
    """`not started`, `3 of 12 runs`, `finished, not compared` or `finished, compared`."""
    if made.done < len(made.runs):
        return f"{made.done} of {len(made.runs)} runs" if made.done else "not started"
    return "finished, compared" if compared(made, setting) else "finished, not compared"


def compared(made: Reproduction, setting: Setting) -> bool:
    """Whether an artefact's comparison is there, of these runs and no older than they."""
    try:
        file = folder_of(made.artefact, setting) / RECORD
        written = file.stat().st_mtime
        return json.loads(file.read_text(encoding="utf-8")) == _record(made, setting) and all(
            (r.workdir / series.RESULTS).stat().st_mtime <= written for r in made.shown
        )
    except (OSError, ValueError):
        return False


def folder_of(artefact: Artefact, setting: Setting) -> Path:
    return setting.workdir / artefact.name


def _record(made: Reproduction, setting: Setting) -> dict[str, Any]:
    return {"format": 1, "scale": setting.scale, "runs": [r.workdir.relative_to(setting.workdir).as_posix() for r in made.shown]}


def listing(all_made: Sequence[Reproduction], setting: Setting) -> str:
    """A line an artefact: name, state, what it shows."""
    rows = [(made.artefact.name, state_of(made, setting), made.artefact.said) for made in all_made]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return "\n".join(f"{name:{widths[0]}}  {state:{widths[1]}}  {said}" for name, state, said in rows)


# -- from the first run to the last page ------------------------------------------------------------------------------
def reproduce(all_made: Sequence[Reproduction], setting: Setting, dry_run: bool, import_tensorflow: Callable[[], object]) -> None:
    """Shows the plan, then trains what is not done, artefact by artefact, and compares each that is whole.

    Args:
        all_made: of the artefacts.
        setting: what the user chose.
        dry_run: stop after the plan.
        import_tensorflow: imports it quietly; called when it is needed first.

    Raises:
        UserError: data that are not there or a workdir of something else, before anything is trained; runs or comparisons that failed,
            after all others are done.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    runs = series.in_order([run for made in all_made for run in made.runs])
    todo = [run for run in runs if not run.done]
    try:
        check_data(todo, setting.data)
    except UserError:
        if dry_run:
            print(series.plan_text(runs, None), flush=True)
        raise
    if not (dry_run and setting.scale == "smoke"):
        import_tensorflow()
    cost = series.minutes(todo)
    print(series.plan_text(runs, cost), flush=True)
    if dry_run:
        return
    check_unchanged(runs)
    clock, failed, wrong = series.Clock(cost), set(), []
    for made in all_made:
        series.train(made.runs, clock, failed)
        if made.done < len(made.runs) or compared(made, setting):
            continue
        try:
            print(f"{made.artefact.name}: {compare(made, setting)}", flush=True)
        except UserError as error:
            wrong.append(f"{made.artefact.name} cannot be compared: {error}")
    _write_index(setting)
    if failed:
        wrong.insert(0, str(series.failure(failed)))
    if wrong:
        raise UserError("; ".join(wrong))


def compare(made: Reproduction, setting: Setting) -> Path:
    """Writes the comparison of finished runs into the artefact's folder: tables, figures, one page; returns the page.

    Raises:
        UserError: as `report.compare`.
    """
    from amalgam_tf import report
    from amalgam_tf.report import gallery, html
    from amalgam_tf.report.runs import read
    from amalgam_tf.training.state import write_json

    folder, artefact = folder_of(made.artefact, setting), made.artefact
    folder.mkdir(parents=True, exist_ok=True)
    tested = [r for r in made.shown if r.loaded().get("evaluate_on", "data")]
    teachers = [r for r in made.runs if r.loaded().method in _TEACHERS and (r.workdir / series.RESULTS).exists()]
    places = [str(r.workdir) for r in (*tested, *(t for t in teachers if tested))]
    if tested:
        table = artefact.table if any(_names(r, artefact.table) for r in tested) else ""
        report.compare(places, folder, table=table, summary=_summary(made, table, tested))
    if artefact.figure:
        found = {r.workdir.relative_to(setting.workdir / "runs").as_posix(): r.workdir for r in made.shown}
        gallery.write(artefact.name, artefact.said, found, artefact.figure, folder)
    page = html.write(
        sorted(folder.glob("*.md")), folder / PAGE, title=f"{artefact.name}: {artefact.said}", runs=read(places)[0] if places else ()
    )
    write_json(folder / RECORD, _record(made, setting))
    return page


def _names(run: Planned, table: str) -> bool:
    return bool(table) and any(row.startswith(f"{table}/") for row in run.loaded().published_row.split(","))


def _summary(made: Reproduction, table: str, tested: Sequence[Planned]) -> str:
    """The name under which the runs are also summarised as one experiment; "": they are not one, or their table says all."""
    one = made.artefact.name.startswith(_SUMMARISED) or (not table and len({r.loaded().tasks for r in tested}) == 1)
    return made.artefact.name if one else ""


def _write_index(setting: Setting) -> None:
    """A page with every artefact, its state and a link to its own page."""
    from amalgam_tf.report import html

    entries_ = []
    for artefact in ARTEFACTS.values():
        made = of(artefact, setting)
        page = folder_of(artefact, setting) / PAGE
        entries_.append(html.Entry(artefact.name, state_of(made, setting), artefact.said, page if page.exists() else None))
    html.index(entries_, setting.workdir / INDEX, title=f"Reproduction, scale {setting.scale}")
