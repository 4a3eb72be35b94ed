"""Customize's runs: told apart, beside the paper's tables, and as an experiment over seeds; intervals against the metrics room."""

import csv
from dataclasses import replace
import json
import re

import numpy as np
import pytest

from amalgam_tf import report
from amalgam_tf.errors import UserError
from amalgam_tf.metrics import categorical, multilabel
from amalgam_tf.report import customize, customize_claims, customize_seeds, figures, resampling, runs
from tests.report import fakes

ALL = list(fakes.HAIR)


def finished(results, name="runs/x", config=None):
    return runs.FinishedRun(name, results, config=config)


def grouped(*results):
    return customize.groups([finished(r, f"runs/{i}") for i, r in enumerate(results)])[0]


def pick(cells, **where):
    found = [c for c in cells if all(getattr(c, k) == v for k, v in where.items())]
    assert len(found) == 1, (where, found)
    return found[0]


def component(value=0.85, task="Black_Hair", **more):
    return fakes.customize(value, [task], **{"row": f"cust_table3/hair/{task}", **more})


def target(value=0.9, tasks=ALL, **more):
    rows = [*(f"cust_table3/hair/{t}" for t in tasks), *(f"cust_table5/hair/4/{t}" for t in tasks)]
    return fakes.customize(value, tasks, **{"stage": "target", "row": ",".join(rows), **more})


class TestKind:
    @pytest.mark.parametrize(
        ("results", "label"),
        [
            (component(), "component of 2 source nets"),
            (component(select="image"), "component of 2 source nets"),  # of one task: the same
            (component(select="all"), "component of 2 source nets, without teacher selection"),
            (component(argument="hair,component,Black_Hair,no_bridge,part"), "component of 2 source nets, without transfer bridge"),
            (component(select="all", argument="hair,component,Black_Hair,kd"), "component of 2 source nets, KD"),
            (component(taught={"S1": ["Black_Hair"]}), "component of 1 source net"),
            (target(), "target of 4 component nets"),
            (target(select="image"), "target of 4 component nets, one teacher an image"),
            (
                target(tasks=ALL[:2], taught={s: [t] for t in ALL[:2] for s in fakes.HAIR[t]}),
                "one-shot target of 4 source nets",
            ),
        ],
    )
    def test_label(self, results, label):
        assert customize.kind_of(finished(results)).label == label

    def test_sizes_tell_mixed_teachers_not_heads(self):
        results = component()
        results["sizes"]["S2"]["flops"] *= 1.05
        assert not customize.kind_of(finished(results)).mixed
        results["sizes"]["S2"]["flops"] *= 4
        assert customize.kind_of(finished(results)).label == "component of 2 source nets of different sizes"

    def test_bridges_by_config_then_flag_then_words(self):
        kd = component(argument="hair,component,Black_Hair,kd")
        assert customize.has_bridges(finished(kd, config={"bridge": {"use": True}}))
        assert not customize.has_bridges(finished(component(), config={"bridge": {"use": False}}))
        for value, expected in (("False", False), ("true", True)):
            flagged = {**kd, "command": kd["command"] + f" --config.bridge.use={value}"}
            assert customize.has_bridges(finished(flagged)) is expected
        assert not customize.has_bridges(finished(kd)) and customize.has_bridges(finished(component(argument="hair,component,kd_x")))

    def test_config_beside_results_is_read(self, tmp_path):
        folder = fakes.save(tmp_path / "a", component())
        (folder / "config.json").write_text(json.dumps({"bridge": {"use": False}}))
        (run,), _ = runs.read([str(folder)])
        assert customize.kind_of(run).label.endswith("without transfer bridge")

    def test_patterns_that_reach_into_a_workdir_find_no_runs_there(self, tmp_path):
        folder = fakes.save(tmp_path / "a", component())
        (folder / "config.json").write_text("{}")
        (folder / "figures").mkdir()
        fakes.save(folder / "teachers", component(seed=1))  # a run of its own
        found, notes = runs.read([str(tmp_path / "*" / "*")])
        assert [r.name for r in found] == [str(folder / "results.json"), str(folder / "teachers")] and notes == []

    def test_components_come_first_and_the_whole_method_before_its_parts(self):
        kd = {"select": "all", "argument": "hair,component,Black_Hair,kd"}
        found = grouped(target(select="image"), target(), component(**kd), component())
        base, whole = "component of 2 source nets", "target of 4 component nets"
        assert [g.label for g in found] == [base, f"{base}, KD", whole, f"{whole}, one teacher an image"]

    def test_groups_over_seeds_and_apart(self):
        ablation = {"select": "all", "argument": "hair,component,Black_Hair,kd"}
        found = grouped(*(component(0.8 + s / 100, seed=s, **more) for more in ({}, ablation) for s in (1, 0)))
        assert [(g.label, [r.seed for r in g.runs]) for g in found] == [
            ("component of 2 source nets", [0, 1]),
            ("component of 2 source nets, KD", [0, 1]),
        ]

    def test_one_seed_twice_is_noted_with_tasks(self):
        found, notes = customize.groups([finished(component(), "runs/a"), finished(component(), "runs/b")])
        assert [g.label for g in found] == ["component of 2 source nets (a)", "component of 2 source nets (b)"]
        assert notes[0].startswith("Black_Hair: component of 2 source nets: runs/a, runs/b share a seed")


class TestPublished:
    def test_table_3_component_with_its_sources(self):
        cells = customize.cells_of("cust_table3", grouped(*(component(v, seed=s) for s, v in enumerate((0.84, 0.88, 0.85)))))
        cell = pick(cells, row="hair/Black_Hair", column="component", metric="accuracy")
        assert cell.measured == pytest.approx((84, 88, 85)) and cell.teacher == pytest.approx((81, 81, 81))
        assert cell.published == "87.8" and cell.difference == pytest.approx(-2.8)
        second = pick(cells, column="S2", metric="accuracy")
        assert second.published == "86.9" and second.measured == pytest.approx((82, 82, 82)) and not second.teacher
        beside = pick(cells, column="component", metric="balanced_accuracy")
        assert beside.published == "" and beside.measured == pytest.approx((74, 78, 75)) and beside.teacher == pytest.approx((71, 71, 71))
        assert pick(cells, column="component", metric="majority_rate").measured == (75, 75, 75)

    def test_table_3_target_beside_its_components(self):
        alone = customize.cells_of("cust_table3", grouped(target()))
        cell = pick(alone, row="hair/Brown_Hair", column="target", metric="accuracy")
        assert cell.measured == pytest.approx((90,)) and cell.teacher == pytest.approx((80,)) and cell.published == "88.1?"
        assert cell.shown()[-1] == "+1.9?"
        behind = pick(alone, row="hair/Bangs", column="component", metric="accuracy")
        assert behind.measured == pytest.approx((80,)) and behind.published == "95.2" and behind.variant.startswith("behind: target")
        both = customize.cells_of("cust_table3", grouped(target(), component()))
        columns = {(c.row, c.column) for c in both if c.variant.startswith("behind")}
        assert ("hair/Black_Hair", "component") not in columns and ("hair/Bangs", "component") in columns

    def test_table_5(self):
        row = "cust_table5/hair/2/Black_Hair,cust_table5/hair/2/Brown_Hair"
        cells = customize.cells_of("cust_table5", grouped(target(0.89, ["Black_Hair", "Brown_Hair"], row=row), target(0.9)))
        found = {c.row: (c.published, *np.round(c.measured, 1)) for c in cells if c.metric == "accuracy"}
        assert found == {
            "hair/2/Black_Hair": ("87.8", 89),
            "hair/2/Brown_Hair": ("88.2", 89),
            "hair/4/Black_Hair": ("87.9", 90),
            "hair/4/Blond_Hair": ("95.0", 90),
            "hair/4/Brown_Hair": ("88.1", 90),
            "hair/4/Bangs": ("95.2", 90),
        }

    def test_table_7_halves_and_both_sources(self):
        taught = {"S1": ["D1"], "S2": ["D1"]}
        own = fakes.customize(0.6, ["D1"], taught=taught, row="cust_table7/Dogs D1", data="dogs/test", images=50)
        whole = fakes.customize(0.7, ["D1", "D2"], stage="target", row="cust_table7/Dogs D1,cust_table7/Dogs D2", data="dogs/test")
        whole["test"]["student"]["per_task"]["D1"]["n"] = 50  # the target's part has both halves, the component's one
        made = grouped(own, whole)
        customize.check_same_images("cust_table7", made)
        cells = [c for c in customize.cells_of("cust_table7", made) if c.metric == "accuracy"]
        found = {(c.row, c.column): (c.published, *np.round(c.measured, 1)) for c in cells}
        assert found == {
            ("Dogs D1", "source_a"): ("87.4", 80),
            ("Dogs D1", "source_b"): ("87.3", 82),
            ("Dogs D1", "component"): ("88.2", 60),
            ("Dogs D1", "target"): ("88.4", 70),
            ("Dogs D2", "component"): ("88.5", 80),
            ("Dogs D2", "target"): ("88.6", 70),
        }

    def test_table_8_row_a_module_column_an_attribute(self):
        results = [component(0.86, row="cust_table3/hair/Black_Hair,cust_table8/whole model")]
        for i, (word, (select, bridges)) in enumerate(fakes.WORDS.items()):
            argument = "" if bridges else "kd" if select == "all" else "no_bridge"
            results.append(component(0.80 + i / 100, row=f"cust_table8/{word}", select=select, argument=argument))
        cells = [c for c in customize.cells_of("cust_table8", grouped(*results)) if c.metric == "accuracy"]
        assert {c.row: (c.column, c.published, *np.round(c.measured, 1)) for c in cells} == {
            "whole model": ("Black_Hair", "87.8", 86),
            "KD": ("Black_Hair", "87.1", 80),
            "without transfer bridge": ("Black_Hair", "87.4", 81),
            "without teacher selection": ("Black_Hair", "87.4", 82),
        }
        for cell in cells:  # what the runs are says the same as the row they name
            assert cell.variant.endswith(cell.row if cell.row != "whole model" else "source nets")

    def test_table_9_contradiction_is_noted(self, tmp_path):
        two = target(0.9, ALL[:2], row="cust_table9/two-stage")
        one = target(0.8, ALL[:2], row="cust_table9/one-shot", taught={s: [t] for t in ALL[:2] for s in fakes.HAIR[t]})
        text, _ = customize.beside_table("cust_table9", [finished(two), finished(one)], tmp_path)
        found = {(r[0], r[1]): r[4:8] for r in table(text)}
        assert found == {
            ("one-shot", "Black_Hair"): ["80.0", "81.0", "85.6", "-5.6"],
            ("one-shot", "Blond_Hair"): ["80.0", "81.0", "86.1[^cust-trivial]", "-6.1"],
            ("two-stage", "Black_Hair"): ["90.0", "80.0", "87.6[^cust-two-stage]", "+2.4"],
            ("two-stage", "Blond_Hair"): ["90.0", "80.0", "95.1[^cust-two-stage]", "-5.1"],
        }
        assert text.count("contradicts itself") == 1 and text.count("commoner answer") == 1

    def test_table_4_adds_up_the_nets_of_complete_seeds(self):
        made = grouped(target(), target(seed=1), *(component(task=t) for t in ALL), component(seed=1))
        cells = customize.cells_of("cust_table4", made)
        assert {(c.row, c.column): c.measured for c in cells} == {
            ("Source Nets", "parameters (M)"): (99.0,),  # nine of 11 M, of the seed that has them all
            ("Component Nets", "parameters (M)"): (44.0,),
            ("Target Net", "parameters (M)"): (22.0,),
            ("Source Nets", "FLOPs (G)"): pytest.approx((29.7,)),
            ("Component Nets", "FLOPs (G)"): pytest.approx((13.2,)),
            ("Target Net", "FLOPs (G)"): pytest.approx((6.6,)),
        }
        assert {c.published for c in cells} == {""}  # printed for the other group, of ten source nets
        assert customize.cells_of("cust_table4", grouped(target(), component())) == []

    def test_table_4_of_the_printed_group(self, tmp_path):
        wanted = ["Big_Lips", "Smiling", "Mouth_Slightly_Open", "Wearing_Lipstick"]
        counts = (2, 3, 2, 3)
        found = [fakes.customize(0.9, wanted, stage="target", row=",".join(f"cust_table3/mouth/{t}" for t in wanted))]
        for t, n in zip(wanted, counts, strict=True):
            found.append(fakes.customize(0.8, [t], taught={f"S{i}": [t] for i in range(n)}, row=f"cust_table3/mouth/{t}"))
        text, _ = customize.beside_table("cust_table4", [finished(r, str(i)) for i, r in enumerate(found)], tmp_path)
        rows = {(r[0], r[2]): r[3:] for r in table(text)}
        assert rows["Source Nets", "parameters (M)"] == ["110.00", "111.8", "-1.8", "100.0", "100.0"]
        assert rows["Target Net", "parameters (M)"] == ["22.00", "22.1", "-0.1", "20.0", "19.8"]
        assert rows["Target Net", "FLOPs (G)"] == ["6.60", "7.0", "-0.4", "20.0", "19.3"]

    def test_runs_taught_something_else_stand_nowhere(self):
        smoke = fakes.customize(0.9, ["sphere"], taught={"S1": ["sphere"]}, row="cust_table3/hair/Black_Hair,cust_table8/whole model")
        assert [customize.named(t, [finished(smoke)]) for t in customize.TABLES] == [[]] * len(customize.TABLES)

    def test_other_data_are_noted_and_never_mixed(self, tmp_path):
        part = component(data="celeba/val/mine", images=50)
        text, _ = customize.beside_table("cust_table3", [finished(part)], tmp_path)
        assert "Measured on celeba/val/mine (50 images), NOT on the published test set celeba/test (19962 images)" in text
        assert "`?` in hair/Black_Hair: target cell blank" in text
        whole, _ = customize.beside_table("cust_table3", [finished(component(images=19962))], tmp_path)
        assert "NOT on the published" not in whole
        with pytest.raises(UserError, match=r"a was measured on celeba/val/mine .* b on celeba/test .* row hair/Black_Hair of cust_table3"):
            customize.beside_table("cust_table3", [finished(part, "a"), finished(target(), "b")], tmp_path)

    def test_csv_has_every_metric(self, tmp_path):
        customize.beside_table("cust_table3", [finished(component(v, seed=s)) for s, v in enumerate((0.84, 0.88))], tmp_path)
        with open(tmp_path / "cust_table3.csv", newline="") as file:
            rows = {(r["column"], r["metric"]): r for r in csv.DictReader(file)}
        row = rows["component", "accuracy"]
        assert [row[k] for k in ("measured", "smallest", "largest", "published", "seeds")] == ["86.00", "84.00", "88.00", "87.8", "2"]
        assert rows["component", "majority_rate"]["measured"] == "75.00" and rows["S1", "balanced_accuracy"]["published"] == ""


def table(text, heading="", number=0):
    """Cells of the rows of a Markdown table below a heading."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text.partition(heading)[2] if heading else text, re.M)
    return [[c.strip() for c in line.strip("|").split("|")] for line in blocks[number].splitlines()[2:]]


# -- over seeds -------------------------------------------------------------------------------------------------------
N, RESAMPLES, SEEDS = 80, 40, (0, 1, 2)
FIG5 = "Arched_Eyebrows"


def truths():
    """Of the attributes; and of two halves of three classes each, every image of one half."""
    draw = np.random.default_rng(3)
    found = {t: (draw.random(N) < 0.3).astype(np.int8) for t in (*ALL, FIG5)}
    half = draw.random(N) < 0.5
    return found | {"X1": np.where(half, draw.integers(3, size=N), -1), "X2": np.where(half, -1, draw.integers(3, size=N))}


TRUTH = truths()


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """(runs by name, Markdown, files, output) of what the tool for the part of CelebA and CIFAR-10 leaves behind, with scores."""
    folder, found = tmp_path_factory.mktemp("experiment"), {}

    def add(name, results, seed):
        path = fakes.customize_scores(folder / f"{seed}" / name, results, TRUTH, 100 * seed + len(found))
        found[name, seed] = path

    for seed in SEEDS:
        more = {"seed": seed, "images": N, "data": "celeba/val"}
        for task in ALL:
            add(f"component_{task}", component(0.84, task, **more), seed)
        for word in ("kd", "no_bridge"):
            add(word, component(0.7, select="all" if word == "kd" else "task", argument=word, row="", **more), seed)
        add("target", target(0.88, **more), seed)
        add("image", target(0.75, select="image", **{**more, "row": ""}), seed)
        add("two", target(0.88, ALL[:2], **{**more, "row": "cust_table9/two-stage"}), seed)
        direct = {s: [t] for t in ALL[:2] for s in fakes.HAIR[t]}
        add("one", target(0.7, ALL[:2], taught=direct, **{**more, "row": "cust_table9/one-shot"}), seed)
        for half in ("X1", "X2"):
            taught = {f"S{i}": [half] for i in (1, 2)}
            own = fakes.customize(0.6, [half], taught=taught, data="cifar/test", seed=seed, images=N)
            add(f"component_{half}", own, seed)
        add("cifar", fakes.customize(0.7, ["X1", "X2"], stage="target", data="cifar/test", seed=seed, images=N), seed)
    for n in (1, 2, 4):
        add(f"n{n}", fakes.customize(0.7 + n / 20, [FIG5], taught={f"S{i}": [FIG5] for i in range(n)}, data="celeba/val", images=N), 0)
    mixed = component(0.9, taught={"S1": ["Black_Hair"], "S2_resnet50": ["Black_Hair"]}, row="", images=N, data="celeba/val")
    mixed["sizes"]["S2_resnet50"]["flops"] *= 4
    add("mixed", mixed, 0)
    fakes.save(folder / "0" / "source", fakes.teacher(0.9, ["Black_Hair"], data="celeba/val", images=N))
    output = folder / "out"
    text = report.compare([str(folder / "?" / "*")], output, summary="part", resamples=RESAMPLES)
    return {k: runs.read([str(p)])[0][0] for k, p in found.items()}, text, output


@pytest.fixture(scope="module")
def differences(experiment):
    with open(experiment[2] / "part_differences.csv", newline="") as file:
        return {(r["family"], r["claim"], r["task"], r["metric"]): r for r in csv.DictReader(file)}


def test_files(experiment):
    _, text, output = experiment
    names = {"part.md", "part.csv", "part_differences.csv", "part_networks.png", "part_sources.png", "report.html"}
    names |= {f"cust_table{n}.{end}" for n in (3, 4, 5, 9) for end in ("md", "csv")}
    assert {f.name for f in output.iterdir()} == names and all((output / n).stat().st_size > 100 for n in names)
    assert (output / "part.md").read_text() in text and "(part_networks.png)" in text and "(part_sources.png)" in text


def test_families_by_what_was_learnt(experiment):
    text = (experiment[2] / "part.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.M) == ["Black_Hair, Blond_Hair, Brown_Hair, Bangs", "X1, X2", FIG5, "Runs"]
    assert f"Test part: cifar/test ({N} images)." in text
    assert "Black_Hair: source net" in text and text.count("abc1234") == len(experiment[0]) + 1


def test_families_grow_together_whatever_the_order():
    made = grouped(*(component(task=t) for t in ALL), target(), fakes.customize(0.8, ["Black_Hair"], data="other/test"))
    for order in (made, made[::-1]):
        found = customize_seeds.families(order)
        assert sorted(len(f.groups) for f in found) == [1, 5] and max(found, key=lambda f: len(f.groups)).tasks == ALL


def test_stages_of_every_task(experiment):
    found, _, output = experiment
    rows = {(r[0], r[1]): r[2:] for r in table((output / "part.md").read_text(), "### Source nets, component net")}
    names = [n for t, n in rows if t == "Brown_Hair"]
    assert names == ["source S5", "source S6", "source S7", "component of 3 source nets", "target of 4 component nets"]
    values = [100 * found["component_Bangs", s].results["test"]["S9"]["per_task"]["Bangs"]["balanced_accuracy"] for s in SEEDS]
    expected = f"{sorted(values)[1]:.1f} [{min(values):.1f}..{max(values):.1f}]"
    assert rows["Bangs", "source S9"] == ["3", rows["Bangs", "source S9"][1], expected, f"{100 * (1 - TRUTH['Bangs'].mean()):.1f}"]
    means = [np.mean([100 * v["accuracy"] for v in found["target", s].results["test"]["student"]["per_task"].values()]) for s in SEEDS]
    assert rows["mean of 4", "target of 4 component nets"][1].startswith(f"{np.median(means):.1f} [")


def test_what_was_varied_stands_together(experiment):
    text = (experiment[2] / "part.md").read_text()

    def names(heading, task):
        return [r[1] for r in table(text, f"### {heading}") if r[0] == task]

    base = "component of 2 source nets"
    assert names("Ablations of the component net", "Black_Hair") == [f"{base}, KD", f"{base}, without transfer bridge", base]
    assert names("Source nets of different sizes", "Black_Hair") == [f"{base} of different sizes", base]
    assert names("Number of source nets", FIG5) == ["component of 1 source net", base, "component of 4 source nets"]
    assert sorted(names("Target nets", "Blond_Hair")) == [
        "one-shot target of 4 source nets",
        "target of 2 component nets",
        "target of 4 component nets",
        "target of 4 component nets, one teacher an image",
    ]
    assert names("Target nets", "X1") == []  # one target only: nothing was varied


HAIR_TITLE = ", ".join(ALL)


def test_claims_of_every_kind(differences):
    assert {(f, c) for f, c, _, _ in differences} == {
        (HAIR_TITLE, "component - mean of its source nets"),
        (HAIR_TITLE, "component - best of its source nets"),
        (HAIR_TITLE, "component of 2 source nets of different sizes - mean of its source nets"),
        (HAIR_TITLE, "component of 2 source nets of different sizes - best of its source nets"),
        (HAIR_TITLE, "target of 4 component nets - its component net"),
        (HAIR_TITLE, "target of 2 component nets - its component net"),
        (HAIR_TITLE, "one-shot target of 4 source nets - mean of its source nets"),
        (HAIR_TITLE, "one-shot target of 4 source nets - best of its source nets"),
        (HAIR_TITLE, "whole - KD"),
        (HAIR_TITLE, "whole - without transfer bridge"),
        (HAIR_TITLE, "source nets of different sizes - of one size"),
        (HAIR_TITLE, "two-stage - one-shot"),
        (HAIR_TITLE, "target of 4 component nets: all component nets - one teacher an image"),
        (FIG5, "component of 1 source net - its source net"),
        *((FIG5, f"component of {n} source nets - {which} of its source nets") for n in (2, 4) for which in ("mean", "best")),
        (FIG5, "2 source nets - 1"),
        (FIG5, "4 source nets - 1"),
        ("X1, X2", "component - mean of its source nets"),
        ("X1, X2", "component - best of its source nets"),
        ("X1, X2", "target of 2 component nets - its component net"),
    }


def reported(run, network, task, metric):
    return run.results["test"][network]["per_task"][task][metric]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_mean_difference_and_spread_of_seeds(experiment, differences, metric):
    found = experiment[0]
    each = [
        reported(found["two", s], "student", "Blond_Hair", metric) - reported(found["one", s], "student", "Blond_Hair", metric)
        for s in SEEDS
    ]
    row = differences[HAIR_TITLE, "two-stage - one-shot", "Blond_Hair", metric]
    assert [float(row[k]) for k in ("difference", "smallest", "largest")] == pytest.approx([np.mean(each), min(each), max(each)])
    assert (row["seeds"], row["resamples"]) == ("3", str(RESAMPLES))
    over = [
        np.mean([reported(found[f"component_{t}", s], "student", t, metric) for t in ALL])
        - np.mean([np.mean([reported(found[f"component_{t}", s], n, t, metric) for n in fakes.HAIR[t]]) for t in ALL])
        for s in SEEDS
    ]
    row = differences[HAIR_TITLE, "component - mean of its source nets", "mean", metric]
    assert float(row["difference"]) == pytest.approx(np.mean(over)) and float(row["largest"]) == pytest.approx(max(over))


def test_best_source_net_is_that_of_the_metric(experiment, differences):
    found = experiment[0]
    for metric in ("accuracy", "balanced_accuracy"):
        each = [
            reported(found["component_Brown_Hair", s], "student", "Brown_Hair", metric)
            - max(reported(found["component_Brown_Hair", s], n, "Brown_Hair", metric) for n in ("S5", "S6", "S7"))
            for s in SEEDS
        ]
        row = differences[HAIR_TITLE, "component - best of its source nets", "Brown_Hair", metric]
        assert float(row["difference"]) == pytest.approx(np.mean(each))


def scores_in_order(run, key, ids):
    with np.load(run.scores) as file:
        where = {name: i for i, name in enumerate(file["ids"].tolist())}
        return file[key][[where[i] for i in ids]]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_interval_is_the_bootstrap_of_the_metrics_room(experiment, differences, metric):
    """One seed: `bootstrap_difference` itself; the draws are the same images."""
    found, ids = experiment[0], [f"image{i:04d}" for i in range(N)]
    a, b = (scores_in_order(found[n, 0], f"student/{FIG5}", ids) for n in ("n4", "n1"))
    expected = multilabel.bootstrap_difference(
        truth={FIG5: TRUTH[FIG5]}, scores_a={FIG5: a}, scores_b={FIG5: b}, metric=multilabel.METRICS[metric], n=RESAMPLES
    )
    row = differences[FIG5, "4 source nets - 1", FIG5, metric]
    assert [float(row[k]) for k in ("difference", "low", "high")] == pytest.approx([expected[k] for k in ("difference", "low", "high")])


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_interval_over_seeds_and_halves_of_classes(experiment, differences, metric):
    """Slowly, image by image: the same draw for both halves and all seeds, mean over both."""
    found, ids, values = experiment[0], [f"image{i:04d}" for i in range(N)], getattr(categorical, metric)
    sides = [
        (TRUTH[t], *(scores_in_order(found["cifar", s], f"{who}/{t}", ids) for who in ("student", f"C_{t}")))
        for s in SEEDS
        for t in ("X1", "X2")
    ]
    draw = np.random.default_rng(0).integers
    draws = [draw(N, size=N) for _ in range(RESAMPLES)]
    each = [np.mean([values(truth=t[i], scores=a[i]) - values(truth=t[i], scores=b[i]) for t, a, b in sides]) for i in draws]
    row = differences["X1, X2", "target of 2 component nets - its component net", "mean", metric]
    assert [float(row[k]) for k in ("low", "high")] == pytest.approx(np.percentile(each, [2.5, 97.5]))


def test_classes_that_a_draw_has_not_are_left_out(tmp_path):
    """A class of one image is missing from about a third of all draws."""
    truth = {"X1": np.array([0] * 6 + [1] * 5 + [2])}
    results = fakes.customize(0.6, ["X1"], taught={"S1": ["X1"]}, images=12)
    (run,), _ = runs.read([str(fakes.customize_scores(tmp_path / "a", results, truth, 1))])
    images = customize_claims.Images([run], 30)
    ids = [f"image{i:04d}" for i in range(12)]
    scores, draw = scores_in_order(run, "student/X1", ids), np.random.default_rng(0).integers
    draws = [np.arange(12), *(draw(12, size=12) for _ in range(30))]
    assert not all((i == 11).any() for i in draws)
    for metric in ("accuracy", "balanced_accuracy"):
        slow = [getattr(categorical, metric)(truth=truth["X1"][i], scores=scores[i]) for i in draws]
        assert images.values(run, "student", "X1", metric) == pytest.approx(slow)


class TestScores:
    @pytest.fixture
    def pair(self, tmp_path):
        made = []
        for seed, argument in ((0, ""), (0, "no_bridge")):
            results = component(0.8, argument=argument, row="", images=N, seed=seed)
            made.append(fakes.customize_scores(tmp_path / f"run{argument}", results, TRUTH, 5))
        return [runs.read([str(p)])[0][0] for p in made]

    def rows(self, found, n=10):
        return customize_claims.differences(customize_claims.claims(customize.groups(found)[0]), n)

    def test_without_scores_there_is_no_interval(self, pair):
        with_scores, without = self.rows(pair), self.rows([replace(r, scores=None) for r in pair])
        assert [r["difference"] for r in with_scores] == pytest.approx([r["difference"] for r in without])
        assert {r["low"] for r in without} == {None} and None not in {r["low"] for r in with_scores}
        half = {r["claim"]: r["low"] for r in self.rows([pair[0], replace(pair[1], scores=None)])}
        assert half["whole - without transfer bridge"] is None and half["component - mean of its source nets"] is not None

    def test_an_interval_over_seeds_needs_the_scores_of_all(self, pair):
        second = replace(pair[0], results={**pair[0].results, "seed": 1}, scores=None)
        rows = self.rows([pair[0], second])
        assert {(r["seeds"], r["low"], r["resamples"]) for r in rows} == {(2, None, 0)}

    def test_another_truth_is_refused(self, pair):
        arrays = resampling.arrays_of(pair[1])
        arrays["truth/Black_Hair"] = 1 - arrays["truth/Black_Hair"]
        np.savez(pair[1].scores, **arrays)
        with pytest.raises(UserError, match=r"run.*scores.npz has other images or another truth for Black_Hair than .*scores.npz: compare"):
            self.rows(pair)

    def test_scores_of_another_run_are_refused(self, pair):
        arrays = resampling.arrays_of(pair[0])
        del arrays["S2/Black_Hair"]
        np.savez(pair[0].scores, **arrays)
        with pytest.raises(UserError, match=r"scores.npz has no 'S2/Black_Hair': it is of another run"):
            self.rows(pair)

    def test_bold_where_zero_lies_outside(self):
        row = {"claim": "a - b", "task": "x", "metric": "balanced_accuracy", "seeds": 2, "difference": 0.02, "smallest": 0.01}
        row |= {"largest": 0.03, "low": 0.004, "high": 0.04, "resamples": 10}
        text = "\n".join(customize_seeds.claim_table([row, {**row, "low": -0.001}, {**row, "low": None, "seeds": 1}]))
        cells = [r[4:] for r in table(text)]
        assert cells == [
            ["+2.0", "**+0.4 .. +4.0**", "+1.0 .. +3.0"],
            ["+2.0", "-0.1 .. +4.0", "+1.0 .. +3.0"],
            ["+2.0", "-", "-"],
        ]


class TestFigures:
    @pytest.fixture
    def drawn(self, monkeypatch):
        seen, real = [], figures.new_figure
        monkeypatch.setattr(figures, "new_figure", lambda *a: seen.append(real(*a)) or seen[-1])
        return seen

    def test_bars_and_the_majority_line(self, drawn, tmp_path):
        made = customize_seeds.families(grouped(*(component(v, seed=s) for s, v in enumerate((0.84, 0.9))), target(0.95, ["Black_Hair"])))
        assert figures.stages(customize_seeds.bars(made), tmp_path / "x.png")
        (_, ((left, right),)) = drawn[0]
        heights = [c.patches[0].get_height() for c in left.containers if hasattr(c, "patches") and c.patches[0].get_height()]
        assert heights == pytest.approx([80, 82, 87, 95])
        assert [c.patches[0].get_height() for c in right.containers if hasattr(c, "patches")] == pytest.approx([70, 72, 77, 85])
        line = left.collections[-1].get_segments()[0]
        assert [p[1] for p in line] == pytest.approx([75, 75]) and right.collections[-1] is not None

    def test_curve_over_the_number_of_source_nets(self, drawn, tmp_path):
        found = [
            fakes.customize(0.7 + n / 50, [FIG5], taught={f"S{i}": [FIG5] for i in range(n)}, seed=s) for n in (3, 1, 2) for s in (0, 1)
        ]
        assert figures.number_of_sources(customize_seeds.curves(customize_seeds.families(grouped(*found))), tmp_path / "x.png")
        (_, ((left, _),)) = drawn[0]
        lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in left.lines}
        assert lines["component net"] == ([1, 2, 3], pytest.approx([72, 74, 76]))
        assert lines["mean of its source nets"] == ([1, 2, 3], pytest.approx([80, 81, 82])) and lines["majority class"][1][0] == 75

    def test_nothing_to_draw(self, tmp_path):
        assert not figures.stages([], tmp_path / "x.png") and not figures.number_of_sources([], tmp_path / "x.png")
        assert customize_seeds.curves(customize_seeds.families(grouped(component()))) == []


class TestCompare:
    def test_runs_of_no_table_are_summarised(self, tmp_path):
        fakes.save(tmp_path / "runs" / "a", component())
        fakes.save(tmp_path / "runs" / "b", fakes.customize(0.8, [FIG5], taught={"S1": [FIG5]}))
        text = report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out", resamples=5)
        names = {f.name for f in (tmp_path / "out").iterdir()}
        assert names == {"cust_table3.md", "cust_table3.csv", "report.html"} | {
            f"summary_customize{e}" for e in (".md", ".csv", "_differences.csv", "_networks.png")
        }
        assert "no cell to fill" in text and "no intervals: the runs have no scores.npz" in text

    def test_one_table_only(self, tmp_path):
        fakes.save(tmp_path / "runs" / "a", component(row="cust_table3/hair/Black_Hair,cust_table8/whole model"))
        report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out", table="cust_table8")
        assert {f.name for f in (tmp_path / "out").iterdir()} == {"cust_table8.md", "cust_table8.csv", "report.html"}
        assert "selection and eq. 7" in (tmp_path / "out" / "cust_table8.md").read_text()
        with pytest.raises(UserError, match="--table=cust_table9: no run names a row of it"):
            report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out", table="cust_table9")

    def test_two_methods_make_no_experiment(self, tmp_path):
        fakes.save(tmp_path / "runs" / "a", component())
        fakes.save(tmp_path / "runs" / "b", fakes.student(0.9))
        with pytest.raises(UserError, match=r"--summary: .*a is of Customize and .*b of afk: summarise one method"):
            report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out", summary="x")

    def test_a_row_that_is_not_published_is_named(self, tmp_path):
        fakes.save(tmp_path / "runs" / "a", component(row="cust_table3/hair/Red_Hair"))
        with pytest.raises(UserError, match="published table cust_table3 has no row 'hair/Red_Hair'"):
            report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out")
