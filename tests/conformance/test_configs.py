"""Every config: documented, loadable, existing published row, known tasks, and a smoke run of each method."""

import json
import os
from pathlib import Path
import re
import runpy
import subprocess
import sys

import pytest

from amalgam_tf import published
from amalgam_tf.data import scenes, voc
from amalgam_tf.data.splits import load_groups
from amalgam_tf.errors import UserError
from amalgam_tf.methods import METHODS, load_config
from amalgam_tf.tasks import parse
from amalgam_tf.teachers import resolved

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.py") if p.name not in ("common.py", "__init__.py"))


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", CONFIGS)
def test_docstring_says_command_data_time_and_published_row(path):
    text = (ROOT / path).read_text().split('"""')[1]
    for part in ("Command: ", "Data: ", "Hardware and expected time: ", "Published row: ", "Expected: "):
        assert f"\n{part}" in text, f"{path} lacks {part!r}"
    assert path in text


def arguments():
    """(config, argument): the default one, and all that the file names in ARGUMENTS."""
    for path in CONFIGS:
        yield path, ""
        found = re.search(r"^ARGUMENTS = .*", (ROOT / path).read_text(), re.MULTILINE)
        if found:
            yield from ((path, a) for a in runpy.run_path(str(ROOT / path))["ARGUMENTS"])


@pytest.mark.parametrize(("path", "argument"), arguments())
def test_loads_plain_and_as_smoke(path, argument):
    plain = f"{path}:{argument}" if argument else path
    for config in (load_config(plain), load_config(f"{path}:{argument},smoke")):
        assert config.method in METHODS
        json.dumps(config.to_dict())
        if config.published_row:
            published.row(config.published_row)
    assert config.data.reader == "scenes"  # the smoke run needs no download


@pytest.mark.parametrize(("path", "argument"), arguments())
def test_named_tasks_and_teachers_exist(path, argument):
    config = load_config(f"{path}:{argument}" if argument else path)
    coco = [name for group in load_groups("coco_halves").values() for name in group]
    known = {"voc": voc.CLASSES, "coco": coco, "scenes": [t.name for t in scenes.TASKS]}[config.data.reader]
    assert {w.task for w in parse(config.tasks)} <= {*known, "*"}
    for name, entry in config.get("teachers", {}).items():
        teacher = load_config(entry.config)
        assert teacher.method == "teacher" and teacher.name == name
        assert {k: v for k, v in teacher.data.items()} == {k: v for k, v in config.data.items()}


def flag(command, name):
    return next(word.partition("=")[2] for word in command.split() if word.startswith(f"--{name}="))


@pytest.mark.parametrize(("path", "argument"), arguments())
def test_commands_lead_to_each_other(path, argument):
    """The command of a config loads an equal one, and its teachers' commands train into the folders where it looks for them."""
    config = load_config(f"{path}:{argument}" if argument else path)
    assert load_config(flag(config.command, "config")).to_dict() == config.to_dict()
    workdir = Path(flag(config.command, "workdir"))
    for entry in config.get("teachers", {}).values():
        assert Path(flag(load_config(entry.config).command, "workdir")) == resolved(entry.path, workdir)


@pytest.mark.parametrize("argument", ["teacher1,teacher2", "tolerance,budget", "distill,paper", "TargetRes50,TargetDenseNet"])
def test_words_that_exclude_each_other_are_refused(argument):
    """By the config that knows them."""
    said = []
    for path in CONFIGS:
        try:
            load_config(f"{path}:{argument}")
        except UserError as error:
            said.append(str(error))
    assert len(said) == len(CONFIGS) and any(f"takes one of {argument.replace(',', ', ')}, not all" in s for s in said)


def test_the_papers_blocks_are_units_of_a_resnet_and_stages_of_a_densenet():
    """A9: 16 and 4."""
    for argument, granularity in (("TargetRes50,paper", "unit"), ("TargetDenseNet,paper", "stage")):
        config = load_config(f"configs/afk/table1.py:{argument}")
        assert config.granularity == "" and {load_config(e.config).model.granularity for e in config.teachers.values()} == {granularity}


def test_every_row_of_the_papers_tables_has_a_config():
    """All rows of AFK's own method in tables 1 to 3, and both pairs of figure 3."""
    named = {load_config(f"{path}:{argument}" if argument else path).published_row for path, argument in arguments()}
    for table in ("afk_table1", "afk_table2", "afk_table3"):
        own = {f"{table}/{row}" for row in (next(iter(r.values())) for r in published.table(table)) if row.startswith("Target")}
        assert own and own <= named
    assert {"afk_fig3/bus", "afk_fig3/dog"} <= named


def binary(name, *flags):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"amalgam_tf.bin.{name}", *map(str, flags)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


# One of each kind: both methods' students, stages and units, a pool of scenes. `run_tests.sh --all` smokes every config.
SMOKED = [
    ("configs/quickstart.py", ""),
    ("configs/teachers/voc2012_part.py", ""),
    ("configs/afk/voc2012_part.py", ""),
    ("configs/afk/voc2012_part.py", "distill"),
    ("configs/afk/fig3.py", ""),
]


@pytest.mark.parametrize(("path", "argument"), [*SMOKED, *arguments()] if os.environ.get("AMALGAM_SMOKE_ALL") else SMOKED)
def test_smoke_run(path, argument, tmp_path):
    done = binary("train", f"--config={path}:{argument},smoke", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["tasks"] and results["test"]["images"] > 0 and results["seconds"] > 0
    figures = {"teacher": (), "distill": ("figures/per_task.png",), "afk": ("figures/per_task.png", "figures/block_losses.png")}
    for name in ("config.json", "train.log", "metrics.jsonl", "decisions.json", "report.md", *figures[results["method"]]):
        assert (tmp_path / name).stat().st_size > 0, name
    assert list((tmp_path / "tb").iterdir()) and list((tmp_path / "checkpoints").iterdir())
    assert str(results["seed"]) in (tmp_path / "report.md").read_text()


def test_a_student_can_be_measured_again_and_exported_by_other_processes(tmp_path):
    """The saved student is whole: a fresh process knows its layers, repeats its numbers and exports it."""
    trained = binary("train", "--config=configs/quickstart.py:student,smoke", f"--workdir={tmp_path}", "--config.tasks=slab,sphere")
    assert trained.returncode == 0, trained.stderr[-2000:]
    again = binary("evaluate", f"--model={tmp_path}", f"--output={tmp_path / 'again.json'}")
    assert again.returncode == 0, again.stderr[-2000:]
    measured = json.loads((tmp_path / "results.json").read_text())["test"]["student"]
    assert json.loads((tmp_path / "again.json").read_text())["per_task"] == measured["per_task"]
    assert set(measured["per_task"]) == {"slab", "sphere"}
    exported = binary("export", f"--model={tmp_path}")
    assert exported.returncode == 0, exported.stderr[-2000:]
    assert (tmp_path / "export" / "saved_model.pb").exists()


def test_unknown_task_lists_what_each_teacher_offers(tmp_path):
    done = binary("train", "--config=configs/quickstart.py:student,smoke", f"--workdir={tmp_path}", "--config.tasks=zebra")
    assert done.returncode == 2
    assert "no teacher offers zebra; teacher1: sphere, ellipsoid, box; teacher2: slab, cylinder, cone" in done.stderr
