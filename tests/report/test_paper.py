"""Published cells beside measured ones: by hand, and nothing published ever in a measured column."""

import re

import pytest

from amalgam_tf import published
from amalgam_tf.data.voc import CLASSES
from amalgam_tf.errors import UserError
from amalgam_tf.report import paper, runs
from tests.report import fakes

POOL = {"teacher1": list(CLASSES[:10]), "teacher2": list(CLASSES[10:])}
ROW = "afk_table1/TargetRes50"


def grouped(*results, names=None):
    found, _ = runs.groups([runs.FinishedRun(names[i] if names else f"runs/{i}", r) for i, r in enumerate(results)])
    return found


def student(value=0.9, **more):
    return fakes.student(value, **{"teachers": POOL, "row": ROW, "data": "voc2007/test", "images": 4952, **more})


def pick(cells, **where):
    found = [c for c in cells if all(getattr(c, k) == v for k, v in where.items())]
    assert len(found) == 1, (where, found)
    return found[0]


def test_class_names_cover_both_tables():
    for table in ("afk_table1", "afk_table2"):
        columns = [c for c in published.table(table)[0] if c != "row" and c not in paper.MEANS]
        assert sorted(paper.CLASS_OF[c] for c in columns) == sorted(CLASSES)


def test_every_table_has_its_test_set_and_exists():
    assert set(paper.TEST_SETS) == set(paper.TABLES) <= set(published.tables())


@pytest.mark.parametrize(
    ("cell", "number"),
    [("95.6", 95.6), ("87.9?", 87.9), (" 16 ", 16.0), ("-1.5", -1.5), ("", None), ("b3_6", None), ("22.1M", None), ("1.2.3", None)],
)
def test_printed_number(cell, number):
    assert paper.printed_number(cell) == number


class TestCell:
    def test_difference_is_median_minus_printed(self):
        cell = paper.Cell("t", "r", "c", "v", "accuracy", (90.0, 96.0, 91.0), (92.0,), "90.5")
        assert cell.difference == 0.5
        assert cell.csv() == ["t", "r", "c", "91.00", "92.00", "90.5", "0.50", 3, "accuracy", "90.00", "96.00", "v"]
        assert cell.shown() == ["91.0 [90.0..96.0]", "92.0", "90.5", "+0.5"]

    def test_doubtful_cells_stay_doubtful(self):
        cell = paper.Cell("t", "r", "c", "v", "accuracy", (88.9,), (), "87.9?")
        assert cell.shown() == ["88.9", "-", "87.9?", "+1.0?"] and cell.csv()[5:7] == ["87.9?", "1.00"]

    def test_nothing_measured_or_printed_leaves_empty_cells(self):
        assert paper.Cell("t", "r", "c", "v", "accuracy", published="95.6").csv()[3:8] == ["", "", "95.6", "", 0]
        assert paper.Cell("t", "r", "c", "v", "accuracy", (95.6,)).csv()[3:8] == ["95.60", "", "", "", 1]
        assert paper.Cell("t", "r", "c", "v", "accuracy", (95.58,), (), "95.6").shown()[-1] == "+0.0"


class TestClassTables:
    def test_own_row(self):
        cells = paper.class_cells("afk_table1", grouped(student(0.90), student(0.94, seed=1), student(0.98, seed=2)), "accuracy")
        cell = pick(cells, row="TargetRes50", variant="AFK argmin", column="bike", metric="accuracy")
        assert cell.measured == pytest.approx((90, 94, 98)) and cell.published == "95.0" and cell.difference == pytest.approx(-1.0)
        assert cell.teacher == pytest.approx((90, 90, 90))
        beside = pick(cells, row="TargetRes50", variant="AFK argmin", column="bike", metric="ap_11pt")
        assert beside.measured == pytest.approx((70, 74, 78)) and beside.published == "" and beside.difference is None

    def test_abbreviated_columns_find_their_class(self):
        results = student()
        results["test"]["student"]["per_task"]["pottedplant"]["accuracy"] = 0.5
        cells = paper.class_cells("afk_table1", grouped(results), "accuracy")
        low = [c.column for c in cells if c.row == "TargetRes50" and c.variant == "AFK argmin" and c.measured == (50.0,)]
        assert low == ["plant"]

    def test_teachers_and_curve_fill_their_rows(self):
        cells = paper.class_cells("afk_table1", grouped(student(), student(seed=1)), "accuracy")
        taught = pick(cells, row="TeacherRes50", column="tv", metric="accuracy")
        assert taught.measured == pytest.approx((90, 90)) and taught.published == "94.6" and taught.teacher == ()
        b3 = pick(cells, row="TargetRes50_b3", column="tv", metric="accuracy")
        assert b3.measured == pytest.approx((78.0, 78.1)) and b3.published == "94.1" and "b3, not fine-tuned" in b3.variant
        before = pick(cells, row="TargetRes50", variant="AFK argmin, before fine-tuning", column="tv", metric="accuracy")
        assert before.measured == pytest.approx((89, 89))

    def test_units_stand_at_the_end_of_their_stage(self):
        results = student()
        units = [f"b{s}_{u}" for s, n in ((1, 3), (2, 4), (3, 6), (4, 3)) for u in range(1, n + 1)]
        results["curve"] = {
            b: {"parameters": 1, "flops": 1, "test": fakes.metrics(0.5 + 0.01 * i, tasks=CLASSES)} for i, b in enumerate(units)
        }
        cells = paper.class_cells("afk_table1", grouped(results), "accuracy")
        at = [pick(cells, row=f"TargetRes50_b{s}", column="cow", metric="accuracy").measured[0] for s in (1, 2, 3, 4)]
        assert at == pytest.approx([52, 56, 62, 65])  # units 3, 7, 13, 16

    def test_rules_share_the_curve_of_their_seed(self):
        cells = paper.class_cells("afk_table1", grouped(student(), student(rule={"name": "tolerance", "tolerance": 0.1})), "accuracy")
        assert pick(cells, row="TargetRes50_b1", column="cow", metric="accuracy").measured == pytest.approx((80.0,))
        assert {c.variant for c in cells if c.row == "TargetRes50"} == {
            f"AFK {rule}{when}" for rule in ("argmin", "tolerance 0.1") for when in ("", ", before fine-tuning")
        }

    def test_another_curve_stays_apart(self):
        other = student(seed=0, rule={"name": "fixed", "block": "b2"})
        for at in other["curve"].values():
            at["test"] = fakes.metrics(0.6, tasks=CLASSES)
        cells = paper.class_cells("afk_table1", grouped(student(), other), "accuracy")
        assert len({c.variant for c in cells if c.row == "TargetRes50_b1"}) == 2

    def test_other_rows_have_no_teacher_row_of_two_teachers(self):
        cells = paper.class_cells("afk_table1", grouped(student(row="afk_table1/TargetRes50-3")), "accuracy")
        assert {c.row for c in cells} == {"TargetRes50-3", "all-negative accuracy [CALC]"}
        cells = paper.class_cells("afk_table2", grouped(student(row="afk_table2/TargetRes50", data="voc2012/val")), "accuracy")
        assert {c.row for c in cells} == {"TargetRes50", "all-negative accuracy on val [CALC; class counts MEM]"}
        assert {c.metric for c in cells} == {"accuracy", "ap_all", "all_negative_accuracy"}

    def test_all_negative_of_ours_stands_against_the_computed_row(self):
        cells = paper.class_cells("afk_table1", grouped(student()), "accuracy")
        cell = pick(cells, metric="all_negative_accuracy", column="person")
        assert cell.measured == pytest.approx((90,)) and cell.published == "59.5" and cell.teacher == ()

    def test_means_only_over_all_classes(self):
        cells = paper.class_cells("afk_table1", grouped(student()), "accuracy")
        mean = pick(cells, row="TargetRes50", variant="AFK argmin", column="mAP_printed", metric="accuracy")
        assert mean.measured == pytest.approx((90,)) and mean.published == "93.5"
        few = student(teachers={"teacher1": ["bus"], "teacher2": ["cat"]})
        cells = paper.class_cells("afk_table1", grouped(few), "accuracy")
        own = {c.column: c for c in cells if (c.row, c.variant, c.metric) == ("TargetRes50", "AFK argmin", "accuracy")}
        assert {k for k, c in own.items() if c.measured} == {"bus", "cat"}
        assert own["mAP_computed"].difference is None and own["plane"].published == "97.2"

    def test_another_metric_may_be_asked_for(self):
        groups = grouped(student())
        cells = paper.class_cells("afk_table1", groups, "ap_all")
        cell = pick(cells, row="TargetRes50", variant="AFK argmin", column="bike", metric="ap_all")
        assert cell.difference == pytest.approx(80 - 95.0)
        assert pick(cells, row="TargetRes50", variant="AFK argmin", column="bike", metric="accuracy").published == ""
        assert "compare two different metrics" in "\n".join(paper.markdown("afk_table1", groups, cells, "ap_all", []))

    def test_runs_of_teachers_may_name_their_row(self):
        results = [fakes.teacher(0.8, own, row="afk_table1/TeacherRes50", data="voc2007/test", images=4952) for own in POOL.values()]
        cells = paper.class_cells("afk_table1", grouped(*results), "accuracy")
        measured = {c.column for c in cells if c.measured and c.metric == "accuracy"}
        assert len(measured) == 20 and {c.row for c in cells} == {"TeacherRes50"}

    def test_no_published_number_is_ever_measured(self):
        """Where nothing was measured nothing stands, whatever is printed."""
        results = student()
        for who in ("student", "student_before_finetune", "teacher1", "teacher2"):
            for row in results["test"][who]["per_task"].values():
                row.update(dict.fromkeys(("accuracy", "ap_11pt", "all_negative_accuracy")))
        for at in results["curve"].values():
            for row in at["test"]["per_task"].values():
                row.update(dict.fromkeys(("accuracy", "ap_11pt", "all_negative_accuracy")))
        cells = paper.class_cells("afk_table1", grouped(results), "accuracy")
        assert len(cells) > 200 and any(c.published for c in cells)
        assert all(c.csv()[3:5] == ["", ""] and c.csv()[6] == "" for c in cells)

    def test_markdown_says_what_stands_against_what(self):
        groups = grouped(student())
        cells = paper.class_cells("afk_table1", groups, "accuracy")
        text = "\n".join(paper.markdown("afk_table1", groups, cells, "accuracy", ["a note"]))
        assert "so our ACCURACY stands against it" in text and "* a note" in text
        own = text.partition("## TargetRes50: AFK argmin, before fine-tuning\n")[2]
        line = next(row for row in own.splitlines() if row.startswith("| person "))
        # accuracy: measured, taught, printed, difference; AP: measured, taught; always no: here, on the published test set
        numbers = re.findall(r"[-+]?\d+\.\d", line)
        assert numbers == ["89.0", "90.0", "69.5", "+19.5", "69.0", "70.0", "90.0", "59.5"]


class TestTestSets:
    def test_the_published_test_set_needs_no_note(self):
        assert paper.check_one_test_set("afk_table1", grouped(student())) == []

    @pytest.mark.parametrize("change", [{"data": "voc2007/test/available"}, {"images": 4951}, {"data": "scenes/test"}])
    def test_another_one_is_said(self, change):
        (note,) = paper.check_one_test_set("afk_table1", grouped(student(**change)))
        assert "NOT on the published test set voc2007/test (4952 images)" in note

    def test_two_of_them_are_refused(self):
        groups = grouped(student(), student(images=10), names=["runs/a", "runs/b"])
        message = r"runs/a was measured on voc2007/test \(4952 images\) and runs/b on voc2007/test \(10 images\).*rows of afk_table1"
        with pytest.raises(UserError, match=message):
            paper.check_one_test_set("afk_table1", groups)


class TestTopK:
    KEYS = ("c_precision", "c_recall", "c_f1", "o_precision", "o_recall", "o_f1", "macro_f1")

    def results(self, value, **more):
        found = fakes.student(0.9, row="afk_table3/TargetRes50", data="coco/val2014", images=40504, **more)
        modes = {"strict": value - 0.2, "threshold": value, "all": value + 0.1}
        found["test"]["student"]["top_k"] = {m: {k: v + 0.01 * i for i, k in enumerate(self.KEYS)} for m, v in modes.items()}
        return found

    def test_threshold_stands_against_the_paper_and_strict_beside(self):
        groups = grouped(self.results(0.5), self.results(0.6, seed=1))
        cells = paper.cells_of("afk_table3", groups, "accuracy")
        cell = pick(cells, column="O-P", metric="top_k_threshold")
        assert cell.measured == pytest.approx((53, 63)) and cell.published == "83.9" and cell.difference == pytest.approx(58 - 83.9)
        strict = pick(cells, column="O-P", metric="top_k_strict")
        assert strict.measured == pytest.approx((33, 43)) and strict.published == ""
        assert pick(cells, column="macro-F1", metric="top_k_threshold").published == ""
        text = "\n".join(paper.markdown("afk_table3", groups, cells, "accuracy", []))
        assert re.search(r"\| O-P +\| 58\.0 \[53\.0\.\.63\.0\] \| 83\.9\[\^afk-top3\] +\| -25\.9 +\| 38\.0 \[33\.0\.\.43\.0\] \|", text)
        assert "69.4[^afk-f1]" in text and text.count("harmonic mean of the printed") == 1  # and no note where none belongs:
        assert re.search(r"\| C-P +\| [^|]+\| 79\.8 +\|", text)

    def test_files_without_top_k_leave_empty_cells(self):
        results = self.results(0.5)
        del results["test"]["student"]["top_k"]
        cells = paper.cells_of("afk_table3", grouped(results), "accuracy")
        assert len(cells) == 14 and not any(c.measured for c in cells) and cells[0].published == "79.8"


class TestPairs:
    def results(self, value=0.95, units=16, **more):
        pool = {"teacher1": ["bus"], "teacher2": ["diningtable"]}
        found = student(value, teachers=pool, row="afk_fig3/bus", **more)
        blocks = [f"u{i}" for i in range(1, units + 1)]
        found["block_losses"] = {b: {s: {"loss": 1.0, "divergence": 0.1} for s in found["branches"]} for b in blocks}
        found["branches"] = {"bus@teacher1": blocks[12 - 16 + units], "diningtable@teacher2": blocks[-1]}
        return found

    def test_both_tasks_of_the_pair(self):
        cells = paper.cells_of("afk_fig3", grouped(self.results(), self.results(0.97, seed=1)), "accuracy")
        taught = pick(cells, row="bus", column="teacher_AP", metric="accuracy")
        assert taught.measured == pytest.approx((90, 90)) and taught.published == "94.2"
        target = pick(cells, row="diningtable", column="target_AP", metric="accuracy")
        assert target.measured == pytest.approx((95, 97)) and target.difference == pytest.approx(96 - 95.6)
        assert target.teacher == pytest.approx((90, 90))
        assert pick(cells, row="bus", column="target_AP", metric="ap_11pt").published == ""
        index = pick(cells, row="bus", column="branch_index_of_16")
        assert index.measured == (13.0, 13.0) and index.difference == 0
        unit = pick(cells, row="bus", column="branch_unit")
        assert unit.csv()[3:8] == ["u13", "", "b3_6", "", 2] and unit.shown() == ["u13", "-", "b3_6", "-"]
        assert {c.row for c in cells} == {"bus", "diningtable"}

    def test_an_index_counts_residual_units_only(self):
        cells = paper.cells_of("afk_fig3", grouped(self.results(units=4)), "accuracy")
        assert pick(cells, row="bus", column="branch_index_of_16").measured == ()

    def test_figure_gets_printed_lines_and_runs_with_a_curve(self):
        old = self.results(seed=1)
        del old["curve"]
        (pair,) = paper.pairs("afk_fig3", grouped(self.results(), old))
        assert pair.published == {
            "bus": {"teacher_AP": 94.2, "target_AP": 96.2},
            "diningtable": {"teacher_AP": 95.4, "target_AP": 95.6},
        }
        assert [r["seed"] for r in pair.results] == [0] and pair.title == "bus, diningtable: AFK argmin"
