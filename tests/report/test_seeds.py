"""An experiment over seeds: tables, files and figures of hand-made runs."""

import csv

import pytest

from amalgam_tf.report import figures, runs, seeds
from tests.report import fakes


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """(groups, output folder, Markdown, files) of three rules, a baseline and teachers over three seeds."""
    folder = tmp_path_factory.mktemp("experiment")
    finished, notes = runs.read([str(p) for p in reversed(fakes.experiment(folder / "runs"))])
    groups, more = runs.groups(finished)
    assert notes == more == []
    output = folder / "out"
    output.mkdir()
    text, files = seeds.write("voc", groups, ["a note"], output, 20)
    return groups, output, text, files


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """First cell -> the others, of the first table below a heading."""
    lines = text.partition(f"## {heading}")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    found = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        first, *cells = (c.strip() for c in line.strip("|").split("|"))
        found[first] = cells
    return found


def test_one_line_a_network_in_order(experiment):
    found = rows(experiment[2], "Networks")
    assert list(found)[2:] == [
        "teachers",
        "distillation",
        *(f"all at b{k}" for k in (1, 2, 3, 4)),
        "AFK argmin, before fine-tuning",
        "AFK argmin",
        "AFK tolerance 0.01, before fine-tuning",
        "AFK tolerance 0.01",
        "AFK budget 30 M parameters, before fine-tuning",
        "AFK budget 30 M parameters",
    ]


@pytest.mark.parametrize(
    ("network", "cells"),
    [
        # accuracies of the argmin student: 0.900, 0.904, 0.908; AP 0.1 below; 600, 660, 720 s
        (
            "AFK argmin",
            [
                "3",
                "0.804 [0.800..0.808]",
                "90.4 [90.0..90.8]",
                "90.0",
                "0.0070 [0.0060..0.0080]",
                "45.000",
                "3.000",
                "0.73",  # 30 ms beside the 41 ms of its teachers
                "11.0 [10.0..12.0]",
            ],
        ),
        (
            "AFK argmin, before fine-tuning",
            ["3", "0.794 [0.790..0.798]", "89.4 [89.0..89.8]", "90.0", "0.0250 [0.0220..0.0280]", "45.000", "3.000", "0.73", "-"],
        ),
        # 20 + 21 M parameters; their own runs took 100 s and 200 s
        ("teachers", ["3", "0.800", "90.0", "90.0", "0.0000", "41.000", "4.100", "1.00", "5.0"]),
        ("all at b4", ["3", "0.671 [0.670..0.672]", "77.1 [77.0..77.2]", "90.0", "0.0450 [0.0420..0.0480]", "30.000", "3.000", "-", "-"]),
    ],
)
def test_numbers_of_a_line(experiment, network, cells):
    assert rows(experiment[2], "Networks")[network] == cells


def test_labels_in_columns(experiment):
    found = rows(experiment[2], "Labels (ap_all")
    assert found["AP"] == ["cat", "dog", "bus"] and found["distillation"] == ["0.782"] * 3


def test_every_run_has_its_plain_table_and_origin(experiment):
    text = experiment[2]
    assert rows(text, "distillation: cat, dog, bus")["dog"] == ["0.800", "0.782 [0.780..0.784]", "90.0", "88.2 [88.0..88.4]", "90.0"]
    assert rows(text, "teacher: bus")["**mean**"] == ["0.800", "90.0", "90.0"]
    assert text.count("abc1234") == 18 and "* a note" in text


def test_intervals_of_every_pair(experiment):
    _, output, text, _ = experiment
    with open(output / "voc_bootstrap.csv", newline="") as file:
        found = list(csv.DictReader(file))
    pairs = {(r["a"], r["b"]) for r in found}
    rules = ("AFK argmin", "AFK tolerance 0.01", "AFK budget 30 M parameters")
    expected = {(r, b) for r in rules for b in ("its teachers", "distillation")} | {("distillation", "its teachers")}
    assert pairs == expected and [r["seed"] for r in found[:4]] == ["0", "1", "2", "all"] and len(found) == 4 * len(pairs)
    assert {r["resamples"] for r in found} == {"20"} and "| AFK argmin - distillation " in text and "all 3 (mean)" in text


def test_csv_holds_every_metric(experiment):
    with open(experiment[1] / "voc.csv", newline="") as file:
        found = {(r["network"], r["task"], r["metric"]): r for r in csv.DictReader(file)}
    row = found["AFK argmin", "dog", "ap_11pt"]
    values = [float(row[k]) for k in ("median", "smallest", "largest")]
    assert values == pytest.approx([0.704, 0.700, 0.708]) and row["seeds"] == "3"
    assert float(found["AFK tolerance 0.01", "", "parameters"]["median"]) == 36e6
    assert ("all at b1", "", "latency") not in found


def test_files(experiment):
    _, output, text, files = experiment
    names = {"voc.md", "voc.csv", "voc_bootstrap.csv", "voc_pareto.png", "voc_blocks.png", "voc_curve.png"}
    assert {f.name for f in files} == {f.name for f in output.iterdir()} == names
    for name in names - {"voc.md", "voc.csv", "voc_bootstrap.csv"}:
        assert f"({name})" in text and (output / name).read_bytes()[:4] == b"\x89PNG" and (output / name).stat().st_size > 10_000
    assert (output / "voc.md").read_text() == text


def test_without_newer_keys_what_is_there_is_shown(tmp_path):
    old = fakes.student(0.9)
    for key in ("rule", "curve", "held_out", "branch_split"):
        del old[key]
    for size in old["sizes"].values():
        del size["latency_ms"]
    groups, _ = runs.groups([runs.FinishedRun("runs/old", old)])
    text, files = seeds.write("old", groups, [], tmp_path, 5)
    found = rows(text, "Networks")
    assert found["AFK argmin"][4:] == ["-", "30.000", "3.000", "-", "10.0"] and found["AFK argmin, before fine-tuning"][4] == "0.0220"
    assert {f.name for f in files} == {"old.md", "old.csv", "old_pareto.png", "old_blocks.png"}
    assert "No paired intervals" in text


def test_teachers_alone(tmp_path):
    groups, _ = runs.groups([runs.FinishedRun("runs/t", fakes.teacher(0.9, ["cat"]))])
    text, files = seeds.write("t", groups, [], tmp_path, 5)
    assert rows(text, "teacher: cat")["cat"] == ["0.800", "90.0", "90.0"] and [f.name for f in files] == ["t.md"]


def test_minutes_of_teachers_only_when_every_run_is_known():
    student = runs.FinishedRun("s", fakes.student(0.9))
    own = [runs.FinishedRun(n, fakes.teacher(0.9, of)) for n, of in fakes.TASKS.items()]
    other = runs.FinishedRun("o", fakes.teacher(0.9, ["bus"], seed=1))
    groups, _ = runs.groups([student])

    def seconds(teachers):
        return seeds.lines(groups, teachers)[0][0].networks[0].seconds

    assert seconds(own) == 1200 and seconds(own[:1]) is None and seconds([own[0], other]) is None
    assert seconds([*own, runs.FinishedRun("again", own[1].results)]) is None  # which of the two was it?


def test_blocks_of_rules_that_share_them_are_drawn_once(tmp_path):
    tolerant = fakes.student(0.9, rule={"name": "tolerance", "tolerance": 0.1})
    fresh = fakes.student(0.9, rule={"name": "fixed", "block": "b2"})
    fresh["block_losses"]["b1"]["cat@teacher1"]["divergence"] += 0.01
    on_train = fakes.student(0.9, rule={"name": "budget", "max_parameters": 1e6})
    on_train["branch_split"] = "train"
    on_train["block_losses"]["b1"]["cat@teacher1"]["divergence"] += 0.02
    finished = [runs.FinishedRun(str(i), r) for i, r in enumerate((fakes.student(0.9), tolerant, fresh, on_train))]
    groups, _ = runs.groups(finished)
    _, files = seeds.write("x", groups, [], tmp_path, 5)
    assert {f.name for f in files if "blocks" in f.name} == {"x_blocks.png", "x_blocks_2.png"}


class TestPareto:
    """What stands where, read back from the figure."""

    @pytest.fixture
    def drawn(self, experiment, monkeypatch):
        groups = [g for g in experiment[0] if g.first.method != "teacher"]
        seen = []
        real = figures.new_figure
        monkeypatch.setattr(figures, "new_figure", lambda *a: seen.append(real(*a)) or seen[-1])
        found, before = seeds.lines(groups, [])
        figures.pareto(found, before, "ap_all", experiment[1] / "again.png")
        (experiment[1] / "again.png").unlink()
        return seen[0]

    def points(self, axes):
        return {c.get_label(): tuple(float(v[0]) for v in c.lines[0].get_data()) for c in axes.containers if c.get_label() != "_"}

    def test_medians(self, drawn):
        _, ((loss, precision),) = drawn
        assert self.points(loss)["AFK argmin"] == pytest.approx((45, 0.007))
        assert self.points(loss)["teachers"] == pytest.approx((41, 0))
        assert self.points(precision)["distillation"] == pytest.approx((30, 0.782))
        curve = next(line for line in precision.lines if line.get_label().startswith("all labels"))
        assert list(curve.get_xdata()) == [60, 50, 40, 30] and list(curve.get_ydata()) == pytest.approx([0.701, 0.691, 0.681, 0.671])

    def test_bars_reach_from_smallest_to_largest(self, drawn):
        _, ((_, precision),) = drawn
        container = next(c for c in precision.containers if c.get_label() == "AFK argmin")
        vertical = container.lines[2][1].get_segments()[0]
        assert [tuple(p) for p in vertical] == [pytest.approx((45, 0.800)), pytest.approx((45, 0.808))]

    def test_roles_keep_their_colours(self, drawn):
        _, ((loss, precision),) = drawn
        for axes in (loss, precision):
            colours = {c.get_label(): c.lines[0].get_color() for c in axes.containers}
            assert colours["teachers"] == figures.COLOURS["teachers"] and colours["distillation"] == figures.COLOURS["distill"]
            assert colours["AFK budget 30 M parameters"] == figures.COLOURS["budget"]
