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
from amalgam_tf.data import codecs, fine_grained, scenes, voc
from amalgam_tf.data.splits import celeba_sources, load_groups
from amalgam_tf.errors import UserError
from amalgam_tf.methods import METHODS, load_config
from amalgam_tf.tasks import parse, resolved
from configs import common, common_dense

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.py") if not p.name.startswith(("common", "__init__")))


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
            published.rows(config.published_row)
    assert config.data.reader in ("scenes", "scenes_dense")  # the smoke run needs no download


@pytest.mark.parametrize(("path", "argument"), arguments())
def test_named_tasks_and_teachers_exist(path, argument):
    config = load_config(f"{path}:{argument}" if argument else path)
    coco = [name for group in load_groups("coco_halves").values() for name in group]
    attributes = [a for group in common.ATTRIBUTE_GROUPS for own in celeba_sources(group).values() for a in own]
    vocabulary = {"voc": voc.CLASSES, "coco": coco, "scenes": [t.name for t in scenes.TASKS], "celeba": [*attributes, *common.FIG5]}
    vocabulary["folder"] = [name for group in load_groups("cifar10_halves").values() for name in group]  # one-vs-rest
    vocabulary |= {"taskonomy": list(codecs.CODECS), "scenes_dense": list(common_dense.SCENE_TASKS)}
    wanted = {w.task for w in parse(config.tasks)}
    if config.data.groups:
        sets = [config.data.task] if config.data.reader == "folder" else config.data.reader.split("+")
        assert wanted == set(config.data.groups.split(",")) and set(re.split("[,+]", config.data.groups)) <= set(fine_grained.groups(sets))
    else:
        assert wanted <= {*vocabulary[config.data.reader], "*"}
    for name, entry in config.get("teachers", {}).items():
        teacher = load_config(entry.config)
        component = (teacher.method, teacher.get("stage", "")) == ("customize", "component")
        assert teacher.name == name and (teacher.method in ("teacher", "dense_teacher") or component)
        assert dict(teacher.data) == {**config.data, **entry.get("data", {})}
        if config.method == "customize":  # what the entry says it knows decides whether it is trained at all (`tasks.entries`)
            assert not entry.get("tasks", "") or set(entry.tasks.split(",")) == set(teacher.tasks.split(","))
            halves = {half for task in teacher.tasks.split(",") for half in (task, task.partition("+")[0])}
            assert wanted & halves, f"{name} knows nothing of {config.tasks}"


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


class TestSoka:
    def test_every_row_of_its_tables_has_a_config(self):
        """But for the teachers' own, which are Taskonomy's checkpoints; table 2 counts parameters, and belongs to every run."""
        named = {
            row
            for path, argument in arguments()
            if path.startswith("configs/soka")
            for row in load_config(f"{path}:{argument}" if argument else path).published_row.split(",")
        }
        tables = [published.references(f"soka_table{n}") for n in (1, 3, 4, 5)]
        own = {row for table in tables for row in table if row.split("/")[1] != "teacher"}
        assert len(own) == 12 + 3 + 3 + 3 and own <= named, own - named

    def test_the_vocabulary_of_the_scenes_is_what_they_have_truth_for(self):
        known = {t.name for t in scenes.load_dense(split="train", count=1, size=8).tasks}
        assert set(common_dense.SCENE_TASKS) == known and set(common_dense.TASKS) <= set(codecs.CODECS)

    def test_variants_are_switches_of_one_script(self):
        """Tables 3 to 5: what each row leaves out (spec 2.4, baselines)."""
        expected = {  # schedule, weights, MIA, supervised, auxiliary
            "": ("acct", "gradnorm", True, False, "auto"),
            "no_auxiliary": ("acct", "gradnorm", True, False, "none"),
            "strong": ("acct", "gradnorm", True, False, "strongest"),
            "weak": ("acct", "gradnorm", True, False, "weakest"),
            "kd": ("joint", "equal", False, False, "none"),
            "kd_mia": ("joint", "equal", True, False, "auto"),
            "dmtl": ("joint", "equal", False, True, "none"),
            "gradnorm": ("joint", "gradnorm", False, True, "none"),
        }
        for word, choices in expected.items():
            c = load_config(f"configs/soka/taskonomy.py:{common.joined('depth-edge2d', word)}")
            assert (c.schedule, c.weights, c.mia.use, c.supervised, c.auxiliary.choose) == choices, word
        fast, weighted = (load_config(f"configs/soka/taskonomy.py:{w}") for w in ("fast_weights", "weighted"))
        assert fast.gradnorm.optimizer.learning_rate == 1e-3 and weighted.collaboration.weighted

    def test_the_papers_recipe(self):
        """Section 4 of the paper: 1,000 + 600,000 steps, poly 1e-3 with power 0.9, decay 1e-6, alpha 0.05, w 1e-4 without decay."""
        c = load_config("configs/soka/taskonomy.py")
        assert (c.init.steps, c.train.steps, c.alpha, c.gradnorm.optimizer.learning_rate) == (1000, 600_000, 0.05, 1e-4)
        o = c.train.optimizer
        assert (o.name, o.learning_rate, o.schedule, o.power, o.weight_decay) == ("adam", 1e-3, "poly", 0.9, 1e-6)
        assert c.gradnorm.optimizer.weight_decay == 0
        scenes_, paper = (load_config(f"configs/teachers/taskonomy.py{a}") for a in (":scenes", ""))
        assert (paper.model.input_size, paper.model.width, paper.model.output_stride) == (256, 1, 16)
        assert scenes_.model.input_size // scenes_.model.output_stride == 8  # places of the code along each side


class TestCustomize:
    """Against the paper's tables and the words of spec C9, C10 and section 7.1."""

    def test_every_row_of_its_tables_has_a_config(self):
        named = {
            row
            for path, argument in arguments()
            if path.startswith("configs/customize")
            for row in load_config(f"{path}:{argument}" if argument else path).published_row.split(",")
        }
        for table in ("cust_table3", "cust_table5", "cust_table7", "cust_table8", "cust_table9"):
            own = set(published.references(table))
            assert own and own <= named, own - named

    def test_target_widths_are_the_papers(self):
        """7.1: 90 and 72 channels in the first stage."""
        for path, channels in (
            ("celeba.py:hair", 90),
            ("celeba.py:hair,one_shot", 90),
            ("celeba.py:hair,part", 45),
            ("fine_grained.py:cub", 72),
        ):
            assert round(64 * load_config(f"configs/customize/{path}").student.width) == channels

    @pytest.mark.parametrize("group", common.ATTRIBUTE_GROUPS)
    def test_sources_of_one_attribute_see_different_parts_and_students_another(self, group):
        """C9; and the source nets of all components of a group are those of the list, each once."""
        target, seen = load_config(f"configs/customize/celeba.py:{group}"), []
        for entry in target.teachers.values():
            component = load_config(entry.config)
            parts = [source.data.part for source in component.teachers.values()]
            assert component.data.part == target.data.part == "6" and len({*parts, "6"}) == len(parts) + 1
            seen += component.teachers
            for name, source in component.teachers.items():
                assert tuple(load_config(source.config).tasks.split(",")) == celeba_sources(group)[name]
        assert sorted(seen) == sorted(celeba_sources(group))

    def test_components_and_sources_of_a_group_are_shared(self):
        """Every run of the hair group looks for a net in one folder, whatever else it is."""
        folders: dict[str, set] = {}
        for word in (
            "hair",
            "hair,two",
            "hair,two_stage",
            "hair,image",
            "hair,one_shot",
            "hair,component,Black_Hair",
            "hair,component,Black_Hair,kd",
        ):
            config = load_config(f"configs/customize/celeba.py:{word}")
            for name, entry in config.teachers.items():
                folders.setdefault(name, set()).add(resolved(entry.path, Path(flag(config.command, "workdir"))))
        assert len(folders) == 8 and all(len(found) == 1 for found in folders.values()), folders

    def test_table_6(self):
        """Every set's component nets have the source nets of its row; their joint heads hold the wanted half."""
        for row in published.table("cust_table6_sources"):
            own, found = row["dataset"].lower(), {}
            for entry in load_config(f"configs/customize/fine_grained.py:{own}").teachers.values():
                component = load_config(entry.config)
                for name, source in component.teachers.items():
                    found[name] = load_config(source.config).tasks
                    assert component.tasks == found[name].partition("+")[0] == component.data.groups
            assert found == {k: v.replace("'", "q") for k, v in row.items() if k != "dataset"}

    def test_ablations(self):
        """C13."""
        expected = {"kd": ("all", False), "no_bridge": ("task", False), "no_selection": ("all", True), "": ("task", True)}
        for word, (select, use) in expected.items():
            config = load_config(f"configs/customize/celeba.py:hair,component,Brown_Hair,{word}")
            assert (config.select, config.bridge.use) == (select, use)
        one_shot, literal = (load_config(f"configs/customize/celeba.py:hair,{w}") for w in ("one_shot", "image"))
        assert (one_shot.select, one_shot.bridge.sides, list(one_shot.teachers)) == ("task", "both", ["S1", "S2", "S3", "S4"])
        assert (literal.select, literal.bridge.sides) == ("image", "student")

    def test_figure_5_grows_by_one_source_and_always_knows_the_attribute(self):
        pools = [list(load_config(f"configs/customize/celeba.py:High_Cheekbones,n{n}").teachers) for n in range(1, 5)]
        assert pools == [["S1", "S2", "S3", "S4"][:n] for n in range(1, 5)]
        sources = common.attribute_sources("High_Cheekbones").values()
        assert all(own[0] == "High_Cheekbones" and len(set(own)) == 3 for own in sources) and len({own[1:] for own in sources}) > 1

    def test_the_papers_recipe(self):
        """C8, by epochs."""
        source = load_config("configs/teachers/celeba.py:hair,S1,paper").optimizer
        assert (source.name, source.learning_rate, source.momentum, source.weight_decay) == ("sgd", 1e-4, 0.9, 5e-4)
        component, dogs = (
            load_config("configs/customize/celeba.py:hair,component,Brown_Hair,paper").train,
            load_config("configs/customize/fine_grained.py:dogs,paper").train,
        )
        assert (component.optimizer.name, component.optimizer.learning_rate, component.epochs, component.batch_size) == (
            "adam",
            1e-4,
            50,
            64,
        )
        assert [round(m * component.epochs, 9) for m in component.optimizer.milestones] == [5, 10, 15, 20, 25]
        assert [round(m * dogs.epochs, 9) for m in dogs.optimizer.milestones] == [50, 100, 150]
        assert source.schedule == component.optimizer.schedule == dogs.optimizer.schedule == "halve"

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("hair,Black_Hair", "say `component` and one attribute"),
            ("hair,component", "say `component` and one attribute"),
            ("mouth,component,Black_Hair", "group mouth has component nets of Big_Lips, Smiling.*, not of Black_Hair"),
            ("mouth,two_stage", "a target net of mouth does not take two_stage: it takes image, two, three"),
            ("hair,component,Bangs,image", "the component net of Bangs does not take image: it takes kd"),
            ("Arched_Eyebrows", "say `component` and one attribute.*or n1 to n4"),
            ("hair,part,paper", "takes one of paper, part"),
        ],
    )
    def test_words_that_do_not_go_together(self, argument, message):
        with pytest.raises(UserError, match=message):
            load_config(f"configs/customize/celeba.py:{argument}")


class TestDualGan:
    """Against the paper's tables and the words of spec G1, G3, G5, G13, G17."""

    def test_every_row_of_its_tables_has_a_config(self):
        """But for the teacher's own, measured in every run, and for other people's methods on real data."""
        named = {
            load_config(f"configs/dual_gan/tables.py:{a}").published_row for p, a in arguments() if p == "configs/dual_gan/tables.py" and a
        }
        for table, missing in (
            ("dgan_table1", {"TeacherNet"}),
            ("dgan_table2", {"HCP-2000", "HCP-VGG", "RLSD+ft-RPN", "partial-BCE"}),
            ("dgan_table3", {"RLSD+ft-RPN"}),
            ("dgan_table4", set()),
        ):
            assert set(published.references(table)) - named == {f"{table}/{row}" for row in missing}

    def test_lambda_rows_share_a_generator(self):
        """G5; with everything that the generator depends on equal."""
        for file, rows, source in (
            ("tables", {"table4,lambda10": (1, 0), "table4,lambda01": (0, 1), "table4,lambda11": (1, 1)}, "table1,ours"),
            ("part", {"cifar10,lambda10": (1, 0), "cifar10,lambda01": (0, 1)}, "cifar10,ours"),
        ):
            whole = load_config(f"configs/dual_gan/{file}.py:{source}")
            for row, lambdas in rows.items():
                config = load_config(f"configs/dual_gan/{file}.py:{row}")
                assert (config.block.lambda1, config.block.lambda2) == lambdas and dict(config.gen) == dict(whole.gen)
                assert config.tasks == whole.tasks and config.filter == whole.filter
                found = resolved(config.generated.generator_from, Path(flag(config.command, "workdir")))
                assert found == Path(flag(whole.command, "workdir"))

    def test_images_of_others_are_the_students_alone(self):
        """G17: the teachers keep theirs, and so does the test part."""
        for word, reader in (("similar", "scenes_unseen"), ("different", "folder"), ("noise", "noise")):
            config = load_config(f"configs/dual_gan/part.py:scenes,{word}")
            assert config.method == "afk" and (config.data.train_reader, config.data.reader) == (reader, "scenes")
            (entry,) = config.teachers.values()
            assert load_config(entry.config).data.train_reader == entry.data.train_reader == ""

    @pytest.mark.parametrize(("table", "count"), [("part.py:scenes", 3), *((f"tables.py:table{n}", 4) for n in (1, 2, 3))])
    def test_rows_without_data_make_as_many_images(self, table, count):
        """`count`: stages of a CIFAR ResNet and of a ResNet-101."""
        ours, dafl = (load_config(f"configs/dual_gan/{table},{row}") for row in ("ours", "dafl"))
        blocks = count * ours.block.steps * ours.block.batch_size + ours.finetune.steps * ours.finetune.batch_size
        assert ours.gen.steps * ours.gen.batch_size + blocks == dafl.gen.steps * dafl.gen.batch_size

    def test_ablations(self):
        for word, (key, value) in {
            "minus_logit": ("dis", "minus_logit"),
            "off": ("gamma", 0.0),
            "bernoulli": ("ie", "bernoulli"),
            "no_bn_stat": ("bn_stat", 0.0),
            "probability": ("pseudo", "probability"),
            "literal": ("oh", 1.0),
            "plain": ("groups", 1),
        }.items():
            ours, config = (load_config(f"configs/dual_gan/part.py:scenes,{w}") for w in ("ours", word))
            assert config.gen[key] == value != ours.gen[key]
        assert load_config("configs/dual_gan/tables.py:fig5,without").gen.dis == "off"
        assert load_config("configs/dual_gan/tables.py:table3,ours").gen.batch_size >= 80  # labels (G15)
        for row in ("ours", "dafl"):
            assert load_config(f"configs/dual_gan/tables.py:table1,{row}").collapse.positives == 0.2
        assert load_config("configs/dual_gan/tables.py:table1,ours,random").student.weights == "none"

    def test_half_of_the_labels_of_one_teacher(self):
        """G13: only the customised labels enter."""
        config = load_config("configs/dual_gan/part.py:scenes,ours")
        (entry,) = config.teachers.values()
        assert len(config.tasks.split(",")) == 5 and len(load_config(entry.config).tasks.split(",")) == 10


def binary(name, *flags):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"amalgam_tf.bin.{name}", *map(str, flags)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


# One of each kind: all methods' students, stages and units, a pool of scenes, targets of attributes and of categories.
# `run_tests.sh --all` smokes every config.
SMOKED = [
    ("configs/quickstart.py", ""),
    ("configs/teachers/voc2012_part.py", ""),
    ("configs/afk/voc2012_part.py", ""),
    ("configs/afk/voc2012_part.py", "distill"),
    ("configs/afk/fig3.py", ""),
    ("configs/customize/celeba.py", "hair,two"),
    ("configs/customize/fine_grained.py", "dogs"),
    ("configs/teachers/taskonomy.py", "normal"),
    ("configs/soka/taskonomy.py", "depth-edge2d,no_auxiliary"),
    ("configs/dual_gan/part.py", "union,ours"),
    ("configs/dual_gan/part.py", "scenes,nodata"),
    ("configs/dual_gan/part.py", "union,dafl"),
    ("configs/dual_gan/part.py", "cifar10,noise"),
]


@pytest.mark.parametrize(("path", "argument"), [*SMOKED, *arguments()] if os.environ.get("AMALGAM_SMOKE_ALL") else SMOKED)
def test_smoke_run(path, argument, tmp_path):
    done = binary("train", f"--config={path}:{argument},smoke", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    tested = results["test"]["images"] if "test" in results else results["agreement"]["images"]
    assert results["tasks"] and tested > 0 and results["seconds"] > 0
    figures = {
        "teacher": (),
        "distill": ("figures/per_task.png",),
        "afk": ("figures/per_task.png", "figures/block_losses.png"),
        "customize": ("figures/transfer_losses.png",),
        "dual_gan": ("figures/generated.png", "figures/block_losses.png"),
        "dafl": ("figures/generated.png",),
        "dense_teacher": ("figures/panels.png",),
        "soka": ("figures/panels.png", "figures/curves.png"),
    }
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
