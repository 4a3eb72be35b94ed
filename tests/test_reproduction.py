"""From artefacts to runs: where they lie, what they stand on, whether their data are there, what is done of them."""

import functools
import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

from amalgam_tf import artefacts, report, reproduction, series
from amalgam_tf.artefacts import ARTEFACTS, CHOICES, DATA
from amalgam_tf.errors import UserError
from amalgam_tf.methods import load_config
from amalgam_tf.report import gallery
from amalgam_tf.reproduction import Reproduction, Setting
from amalgam_tf.series import Planned

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


@functools.cache
def everything(scale: str, folder: Path = Path("runs/x")) -> list[Reproduction]:
    return [reproduction.of(a, Setting(scale, folder)) for a in (*ARTEFACTS.values(), *(CHOICES.values() if scale == "small" else ()))]


def flag(command: str, name: str) -> str:
    return next(w.partition("=")[2] for w in command.split() if w.startswith(f"--{name}="))


def finish(run: Planned) -> None:
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / "results.json").write_text("{}")


# -- plans ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", artefacts.SCALES)
def test_plans_are_whole(scale):
    """Of all artefacts: every run once, after all it needs; leaves that its config has; nothing trained that is not planned."""
    runs = series.in_order([run for made in everything(scale) for run in made.runs])
    place = {run.workdir: i for i, run in enumerate(runs)}
    assert len(place) == len(runs)
    for run in runs:
        known, config = reproduction._flat(load_config(run.config).to_dict()), run.loaded()
        assert {leaf for leaf, _ in run.leaves} <= set(known), run
        assert all(place[needed] < place[run.workdir] for needed in run.needs), run
        assert not config.get("teachers", {}) or config.train_missing_teachers is False
        for folder in (config.data.root, config.data.train_root):
            assert not folder or Path(folder).name in DATA
    for made in everything(scale):
        assert made.shown and set(made.shown) <= set(made.runs)


def test_at_the_papers_scale_runs_lie_where_their_configs_commands_put_them():
    for made in everything("paper"):
        for run in made.runs:
            command = load_config(run.config).command
            root = "shared" if made.artefact.taught_once and run.config.startswith("configs/teachers/") else "seed0"
            assert run.workdir == Path("runs/x/runs", root) / Path(flag(command, "workdir")).relative_to("runs")
            assert flag(command, "config").partition(":")[0] == run.config.partition(":")[0]


def test_at_the_papers_scale_a_teacher_is_what_its_own_command_trains():
    """Only the data's folder is the user's."""
    for made in everything("paper"):
        for run in (r for r in made.runs if r.config.startswith("configs/teachers/")):
            command = load_config(run.config).command
            assert dict(run.leaves) == {"data.root": flag(command, "config.data.root")}


def test_seeds_share_teachers_where_the_papers_runs_do():
    afk = reproduction.of(ARTEFACTS["afk.table2"], Setting("small", Path("x"), seeds=(0, 2)))
    taught = {str(r.workdir): r.loaded().seed for r in afk.runs if "teachers/" in r.config}
    assert taught == {f"x/runs/seed{s}/voc2012_part/teacher{n}": s for s in (0, 2) for n in (1, 2)}
    soka = reproduction.of(ARTEFACTS["soka.table2"], Setting("small", Path("x"), seeds=(1, 2)))
    taught = {str(r.workdir): r.loaded().seed for r in soka.runs if "teachers/" in r.config}
    assert set(taught.values()) == {0} and len(taught) == 5 and all(p.startswith("x/runs/shared/soka_scenes/teachers/") for p in taught)
    assert [r.loaded().seed for r in soka.shown] == [1, 2]


def test_small_runs_have_three_seeds_and_the_others_one():
    assert {s: Setting(s, Path()).all_seeds for s in artefacts.SCALES} == {"paper": (0,), "small": (0, 1, 2), "smoke": (0,)}
    assert Setting("small", Path(), seeds=(5, 5)).all_seeds == (5,)


def test_where_one_seed_is_enough_it_is_the_first_one():
    pairs = reproduction.of(ARTEFACTS["soka.table1"], Setting("small", Path("x"), seeds=(4, 5)))
    assert sorted((r.workdir.name, r.loaded().seed) for r in pairs.shown if "depth-" in r.workdir.name) == [
        *(("depth-edge2d", s) for s in (4, 5)),
        ("depth-edge3d", 4),
        ("depth-normal", 4),
    ]


@pytest.mark.parametrize("scale", ["paper", "smoke"])
def test_choices_have_no_other_scale(scale):
    with pytest.raises(UserError, match="soka.choices is no table or figure of a paper: its runs are those of --scale=small"):
        reproduction.of(CHOICES["soka.choices"], Setting(scale, Path("x")))


def test_smoke_runs_share_what_is_the_same():
    """The teachers of AFK's first three artefacts are one and the same nets there, but for where they can be cut."""
    names = ("afk.fig3", "afk.table1", "afk.table2", "afk.table3")
    made = {n: reproduction.of(ARTEFACTS[n], Setting("smoke", Path("x"))) for n in names}
    taught = {n: {r.workdir for r in m.runs if "teachers/" in r.config} for n, m in made.items()}
    assert taught["afk.fig3"] < taught["afk.table3"] < taught["afk.table2"] == taught["afk.table1"] and len(taught["afk.table1"]) == 5
    every = {r.workdir for m in everything("smoke") for r in m.runs}
    assert len(every) < 120  # of about ten seconds each: `all` in 20 minutes


def test_ready_weights_are_taken_from_the_data_folder_by_student_and_teachers(tmp_path):
    setting = Setting("small", Path("x"), tmp_path, (0,))
    made = reproduction.of(ARTEFACTS["afk.table2"], setting)
    assert not any("weights" in leaf for r in made.runs for leaf, _ in r.leaves)  # Keras downloads them
    reproduction._planned.cache_clear()
    (tmp_path / "resnet50_notop.h5").touch()
    made = reproduction.of(ARTEFACTS["afk.table2"], setting)
    given = {leaf: value for r in made.runs for leaf, value in r.leaves if "weights" in leaf}
    assert given == dict.fromkeys(("student.weights", "model.weights"), str(tmp_path / "resnet50_notop.h5"))
    assert all(any("weights" in leaf for leaf, _ in r.leaves) for r in made.runs)


def test_dots_in_the_workdir_are_resolved():
    made = reproduction.of(ARTEFACTS["afk.table2"], Setting("paper", Path("a/../b/./c")))
    assert all(needed in {r.workdir for r in made.runs} for r in made.runs for needed in r.needs)
    assert made.runs[0].workdir.is_relative_to("b/c/runs")


def test_a_figure_of_few_labels_has_teachers_of_its_own_size():
    made = reproduction.of(ARTEFACTS["afk.fig3"], Setting("small", Path("x"), seeds=(0,)))
    teachers = [r for r in made.runs if "teachers/" in r.config]
    assert {r.workdir.parent.name for r in made.runs} == {"64px"} and len(teachers) == 2
    assert {(r.loaded().model.input_size, r.loaded().model.granularity) for r in teachers} == {(64, "unit")}
    assert {r.loaded().tasks for r in made.shown} == {"cow,horse", "chair,dog"}


def test_runs_that_only_carry_others_are_not_compared():
    made = reproduction.of(ARTEFACTS["dual_gan.table4"], Setting("paper", Path("x")))
    assert Path("x/runs/seed0/dgan_table1/ours") in {r.workdir for r in made.runs} - {r.workdir for r in made.shown}
    assert len(made.shown) == 3


# -- what is told before anything is trained ----------------------------------------------------------------------------
def never(*_):
    pytest.fail("went on")


class TestData:
    @pytest.mark.parametrize("dry_run", [True, False])
    def test_missing_data_are_one_sentence_at_once(self, tmp_path, monkeypatch, capsys, dry_run):
        monkeypatch.setattr(series, "train", never)
        (tmp_path / "data" / "celeba").mkdir(parents=True)
        setting = Setting("paper", tmp_path / "w", tmp_path / "data")
        made = [reproduction.of(ARTEFACTS[n], setting) for n in ("afk.table3", "customize.table9", "dual_gan.table1")]
        with pytest.raises(UserError) as told:
            reproduction.reproduce(made, setting, dry_run, never)
        said = str(told.value)
        assert said.startswith(f"the data are not there, put them below --data={tmp_path / 'data'} or name their folder: ")
        for name, source in (("coco", "cocodataset.org"), ("VOCdevkit", "host.robots.ox.ac.uk"), ("cifar100", "cs.toronto.edu")):
            assert f"{tmp_path / 'data' / name} ({DATA[name]})" in said and source in DATA[name]
        assert "CelebA" not in said and not (tmp_path / "w").exists()
        assert ("dgan_table1/similar" in capsys.readouterr().out) == dry_run  # a dry run shows what there would be to do

    def test_data_of_finished_runs_are_not_asked_for(self, tmp_path):
        made = reproduction.of(ARTEFACTS["afk.table3"], Setting("paper", tmp_path, tmp_path / "nowhere"))
        with pytest.raises(UserError):
            reproduction.check_data(made.runs, tmp_path / "nowhere")
        for run in made.runs:
            finish(run)
        reproduction.check_data(made.runs, tmp_path / "nowhere")

    def test_scenes_need_none(self, tmp_path):
        for made in everything("smoke", tmp_path):
            reproduction.check_data(made.runs, tmp_path / "nowhere")


def begun(run: Planned, **changes) -> None:
    run.workdir.mkdir(parents=True, exist_ok=True)
    config = json.loads(json.dumps(run.loaded().to_dict()))
    for leaf, value in changes.items():
        section, _, key = leaf.rpartition("__")
        (config[section] if section else config)[key] = value
    (run.workdir / "config.json").write_text(json.dumps(config))


class TestUnchanged:
    def test_the_same_settings_pass_wherever_the_data_are(self, tmp_path):
        made = reproduction.of(ARTEFACTS["afk.table3"], Setting("small", tmp_path, seeds=(0,)))
        for run in made.runs:
            begun(run, data__root="elsewhere/coco", command="another")
        reproduction.check_unchanged(made.runs)

    @pytest.mark.parametrize(("leaf", "named"), [("precision", "precision"), ("data__train", "data.train"), ("seed", "seed")])
    def test_other_settings_are_refused(self, tmp_path, leaf, named):
        made = reproduction.of(ARTEFACTS["afk.table3"], Setting("small", tmp_path, seeds=(0,)))
        begun(made.runs[1], **{leaf: "other"})
        with pytest.raises(UserError, match=f"{made.runs[1].workdir} was made with another configuration .different: {named}.: remove"):
            reproduction.check_unchanged(made.runs)


# -- state and comparison -----------------------------------------------------------------------------------------------
def test_state_goes_from_not_started_to_compared(tmp_path):
    setting = Setting("smoke", tmp_path)
    made = reproduction.of(ARTEFACTS["soka.table2"], setting)
    assert len(made.runs) == 4 and reproduction.state_of(made, setting) == "not started"
    finish(made.runs[0])
    assert reproduction.state_of(made, setting) == "1 of 4 runs"
    for run in made.runs:
        finish(run)
    assert reproduction.state_of(made, setting) == "finished, not compared"
    file = tmp_path / "soka.table2" / reproduction.RECORD
    file.parent.mkdir()
    file.write_text(json.dumps(reproduction._record(made, setting)))
    assert reproduction.state_of(made, setting) == "finished, compared"
    later = file.stat().st_mtime + 10
    os.utime(made.shown[0].workdir / "results.json", (later, later))  # trained anew
    assert reproduction.state_of(made, setting) == "finished, not compared"
    os.utime(made.shown[0].workdir / "results.json", (1, 1))
    file.write_text("{}")
    assert reproduction.state_of(made, setting) == "finished, not compared"


@pytest.mark.parametrize(
    ("name", "scale", "table", "summary"),
    [
        ("afk.table1", "paper", "afk_table1", ""),
        ("afk.table1", "small", "", "afk.table1"),  # its images are no VOC 2007
        ("afk.fig3", "small", "", ""),  # two experiments
        ("afk.table3", "small", "afk_table3", ""),
        ("customize.table3", "small", "cust_table3", "customize.table3"),
        ("customize.table7", "small", "", "customize.table7"),
        ("customize.fig5", "paper", "", "customize.fig5"),
        ("dual_gan.table4", "paper", "", "dual_gan.table4"),
        ("soka.table1", "smoke", "", "soka.table1"),
    ],
)
def test_what_a_comparison_asks_for(tmp_path, monkeypatch, name, scale, table, summary):
    asked = {}

    def compare(places, folder, **options):
        asked.update(options, places=places)
        (folder / "x.md").write_text("# x\n")

    setting = Setting(scale, tmp_path, seeds=(0,))
    made = reproduction.of(ARTEFACTS[name], setting)
    for run in made.runs:
        finish(run)
    monkeypatch.setattr(report, "compare", compare)
    monkeypatch.setattr("amalgam_tf.report.runs.read", lambda places: ([], []))
    page = reproduction.compare(made, setting)
    assert (asked["table"], asked["summary"]) == (table, summary)
    shown, taught = [str(r.workdir) for r in made.shown], [str(r.workdir) for r in made.runs if "configs/teachers" in r.config]
    assert asked["places"] == shown + taught and page == tmp_path / name / "report.html" and page.exists()
    assert reproduction.state_of(made, setting) == "finished, compared"


def test_runs_without_test_images_are_shown_and_not_measured(tmp_path, monkeypatch):
    """Dual-GAN's figures at the paper's scale."""
    monkeypatch.setattr(report, "compare", never)
    setting = Setting("paper", tmp_path)
    made = reproduction.of(ARTEFACTS["dual_gan.fig5"], setting)
    for run in made.runs:
        finish(run)
        if run in made.shown:
            fake_generated(run.workdir)
    page = reproduction.compare(made, setting)
    said = (tmp_path / "dual_gan.fig5" / "dual_gan.fig5_figures.md").read_text()
    assert "## seed0/dgan_fig5/with\n" in said and "| cat@t1" in said and page.read_text().count("data:image/png") == 2


def test_a_failed_comparison_costs_no_other_one(tmp_path, monkeypatch, capsys):
    setting = Setting("smoke", tmp_path)
    made = [reproduction.of(ARTEFACTS[n], setting) for n in ("soka.table2", "soka.fig5", "afk.fig3")]
    for run in (r for m in made[:2] for r in m.runs):
        finish(run)

    def compare(one, _):
        if one.artefact.name == "soka.table2":
            raise UserError("its scores are damaged")
        return "page"

    def train(runs, clock, failed):
        failed.update(r.workdir for r in runs if not r.done)

    monkeypatch.setattr(reproduction, "compare", compare)
    monkeypatch.setattr(reproduction, "check_unchanged", lambda runs: None)
    monkeypatch.setattr(series, "train", train)
    with pytest.raises(UserError, match="these runs failed.*dog_horse.*; soka.table2 cannot be compared: its scores are damaged"):
        reproduction.reproduce(made, setting, False, lambda: None)
    assert "soka.fig5: page" in capsys.readouterr().out and (tmp_path / "index.html").exists()


# -- the gallery ------------------------------------------------------------------------------------------------------
def fake_generated(workdir: Path, **results) -> None:
    from PIL import Image

    (workdir / "figures").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(workdir / "figures/generated.png")
    found = {"labels": {"cat@t1": 0.25}, "agreement": {"images": 4, "per_stream": {"cat@t1": 0.5}, "mean": 0.5}, **results}
    (workdir / "results.json").write_text(json.dumps(found))


def test_gallery_copies_figures_and_names_who_has_none(tmp_path):
    fake_generated(tmp_path / "a")
    fake_generated(tmp_path / "b", test={})
    (tmp_path / "c").mkdir()
    runs = {"seed0/a": tmp_path / "a", "seed0/b": tmp_path / "b", "seed0/c": tmp_path / "c"}
    (tmp_path / "out").mkdir()
    files = gallery.write("fig", "images", runs, "figures/generated.png", tmp_path / "out")
    assert [f.name for f in files] == ["fig_figures.md", "fig_seed0_a.png", "fig_seed0_b.png"] and all(f.stat().st_size for f in files)
    said = files[0].read_text()
    assert said.startswith("# fig: images\n") and "](fig_seed0_a.png)" in said and "Without figures/generated.png: seed0/c." in said
    assert said.count("cat@t1") == 1  # b was measured on test images, where its labels stand


# -- the binary -------------------------------------------------------------------------------------------------------
def call(*flags):
    command = [sys.executable, "-X", "importtime", "-m", "amalgam_tf.bin.reproduce", *map(str, flags)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return done.returncode, done.stdout, "\n".join(errors), any(line.endswith(" tensorflow") for line in done.stderr.splitlines())


def test_list_names_all_with_their_state_without_tensorflow(tmp_path):
    made = reproduction.of(ARTEFACTS["afk.table3"], Setting("smoke", tmp_path))
    finish(made.runs[0])
    code, out, errors, imported = call("--artefact=list", f"--workdir={tmp_path}")
    assert code == 0 and not imported, errors
    rows = [line.split("  ")[0] for line in out.splitlines()]
    assert rows == list(ARTEFACTS)
    states = {line.split()[0]: line for line in out.splitlines()}
    assert "1 of 6 runs" in states["afk.table3"] and "1 of 12 runs" in states["afk.table1"] and "not started" in states["soka.fig4"]


def test_a_dry_run_of_smoke_shows_the_plan_without_tensorflow_and_writes_nothing(tmp_path):
    code, out, errors, imported = call("--artefact=soka.table2,afk.fig3", f"--workdir={tmp_path / 'w'}", "--dry_run")
    assert code == 0 and not imported and not (tmp_path / "w").exists(), errors
    seconds = sum(series.SMOKE_SECONDS[method] * count for method, count in (("dense_teacher", 3), ("soka", 1), ("teacher", 2), ("afk", 2)))
    assert out.splitlines()[-1] == f"8 of 8 runs to do, about {series.lasts(seconds / 60)} of a quiet core"
    assert "seed0/afk_fig3/dog_horse" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--artefact=afk.tabel1"], "did you mean 'afk.table1'"),
        (["--artefact=afk.table1", "--seeds=a"], "--seeds: 'a' is no seed"),
        (["--artefact=afk.table1", "--scale=tiny"], "scale"),
        ([], "--artefact"),
        (["--artefact=soka.table1", "--scale=paper", "--data=nowhere"], "nowhere/taskonomy (Taskonomy, building wiconisco"),
    ],
)
def test_mistakes_are_one_message_without_tensorflow(flags, message):
    code, out, errors, imported = call(*flags)
    assert code in (1, 2) and not imported and message in errors + out and "Traceback" not in errors
