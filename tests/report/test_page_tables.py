"""Tables of pages: which columns are numbers, and that a difference is judged only where the report stands behind its sign."""

import pytest

from amalgam_tf.report import customize, html, page_tables, paper, text
from tests.report.pages import Page


def page(tmp_path, head: list[str], *rows: list[str], before: str = "") -> Page:
    (tmp_path / "a.md").write_text("\n".join([before, "", *text.table(head, rows)]))
    return Page(html.write([tmp_path / "a.md"], tmp_path / "a.html", title="T").read_text())


def classes(made: Page, head: str) -> list[list[str]]:
    return [cell[1] for cell in made.column(head)]


def verdicts(made: Page, head: str = "difference") -> list[str]:
    found = []
    for _, named, said in made.column(head):
        verdict = [n for n in named if n != "number"]
        assert ([page_tables.MARKS[v] for v in verdict] == [said[0]]) if verdict else said[0] in "+-0", said  # never colour alone
        found += verdict or [""]
    assert (page_tables.LEGEND in made.said) == any(found)
    return found


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "0.656", "-"],
        ["0.656 [0.627..0.657]", "0.656"],
        ["-0.008 .. +0.006", "-"],
        ["+1.2", "-0.0", "87.9?"],
        ["**0.7**", "1e-05", "12.5 %"],
        ["22.1M", "246.46 M", "7.04G"],
        ["11.1 min", "48 s", "2.7 h"],
        ["12", "b3_6"],
        ["-", "-"],
        ["?", "0.5"],
    ],
)
def test_numbers_stand_right(tmp_path, cells):
    made = page(tmp_path, ["name", "value"], *(["x", c] for c in cells))
    assert classes(made, "value") == [["number"]] * len(cells) and classes(made, "name") == [[]] * len(cells)
    assert made.tables[0][0][1][1] == ["number"]


@pytest.mark.parametrize("cells", [["teacher", "2"] * 1 + ["dog"], ["502062b"], ["b3_6", "b4_3"], ["12 images"], ["+-1 x"]])
def test_words_stand_left(tmp_path, cells):
    assert classes(page(tmp_path, ["name", "value"], *(["x", c] for c in cells)), "value") == [[]] * len(cells)


def test_heads_and_first_cells_are_heads(tmp_path):
    made = page(tmp_path, ["name", "value"], ["x", "1"], ["y", "2"])
    assert [[cell[0] for cell in row] for row in made.tables[0]] == [["th", "th"], ["th", "td"], ["th", "td"]]
    markup = (tmp_path / "a.html").read_text()
    assert markup.count('scope="col"') == 2 and markup.count('scope="row"') == 2


class TestIntervals:
    HEAD = ["difference in mAP", "difference", "95 % interval"]

    def test_only_without_zero(self, tmp_path):
        rows = [["+0.010", "+0.002 .. +0.020"], ["-0.010", "-0.020 .. -0.001"], ["+0.010", "-0.002 .. +0.020"], ["+0.010", "-"]]
        made = page(tmp_path, self.HEAD, *(["a - b", *r] for r in rows))
        assert verdicts(made) == ["better", "worse", "", ""]

    def test_zero_at_an_end_is_no_claim(self, tmp_path):
        rows = [["+0.010", "+0.000 .. +0.020"], ["-0.010", "-0.020 .. -0.000"]]
        assert verdicts(page(tmp_path, self.HEAD, *(["a - b", *r] for r in rows))) == ["", ""]

    def test_less_error_is_better(self, tmp_path):
        head = ["pair", "change %", "95 % interval", "verdict"]
        made = page(tmp_path, head, ["p", "-3.0", "-4.0 .. -1.0", "**holds**"], ["p", "+3.0", "+1.0 .. +4.0", "holds"])
        assert verdicts(made, "change %") == ["better", "worse"]

    def test_the_interval_is_that_of_the_column_before_it(self, tmp_path):
        """Dual-GAN: a difference of medians, then a mean with its interval."""
        head = ["claim", "difference", "mean", "95 % interval"]
        made = page(tmp_path, head, ["a - b", "+0.020", "+0.010", "+0.002 .. +0.020"])
        assert verdicts(made, "mean") == ["better"] and classes(made, "difference") == [["number"]]

    def test_mean_of_customize(self, tmp_path):
        head = ["difference", "task", "mean", "95 % interval"]
        assert verdicts(page(tmp_path, head, ["target - component", "mouth", "+0.3", "**+0.1 .. +0.6**"]), "mean") == ["better"]


class TestPublished:
    HEAD = ["row", "measured", "teacher", "published", "difference"]

    def test_outside_the_spread_of_the_seeds(self, tmp_path):
        rows = [
            ["96.0 [95.0..97.0]", "90.0", "93.6", "+2.4"],
            ["91.0 [90.0..92.0]", "90.0", "93.6", "-2.6"],
            ["94.0 [93.0..95.0]", "90.0", "93.6", "+0.4"],
            ["94.0 [93.6..95.0]", "90.0", "93.6", "+0.4"],
        ]
        assert verdicts(page(tmp_path, self.HEAD, *(["r", *r] for r in rows))) == ["better", "worse", "", ""]

    def test_the_teachers_spread_is_not_ours(self, tmp_path):
        made = page(tmp_path, self.HEAD, ["r", "96.0", "90.0 [89.0..91.0]", "93.6", "+2.4"], ["r", "-", "90.0 [89.0..91.0]", "93.6", "-"])
        assert [named for _, named, _ in made.column("difference")] == [["number"]] * 2

    def test_without_a_column_of_teachers(self, tmp_path):
        head = ["row", "measured", "published", "difference"]
        assert verdicts(page(tmp_path, head, ["r", "96.0 [95.0..97.0]", "93.6", "+2.4"])) == ["better"]

    def test_one_seed_or_a_doubtful_cell_is_no_claim(self, tmp_path):
        made = page(tmp_path, self.HEAD, ["r", "96.0", "-", "93.6", "+2.4"], ["r", "96.0 [95.0..97.0]", "-", "87.9?", "+8.1?"])
        assert [named for _, named, _ in made.column("difference")] == [["number"]] * 2

    def test_a_footnote_does_not_hide_the_number(self, tmp_path):
        made = page(tmp_path, self.HEAD, ["r", "96.0 [95.0..97.0]", "-", "93.6[^n]", "+2.4"], before="[^n]: note")
        assert verdicts(made) == ["better"] and classes(made, "published") == [["number"]]

    @pytest.mark.parametrize("what", page_tables.NEUTRAL)
    def test_sizes_and_branches_are_neither(self, tmp_path, what):
        head = ["networks", "column", "measured", "published", "difference"]
        assert verdicts(page(tmp_path, head, ["Target Net", what, "24.0 [23.0..25.0]", "22.1", "+1.9"])) == [""]

    @pytest.mark.parametrize("module", [paper, customize])
    def test_nothing_is_judged_where_two_data_sets_are_compared(self, tmp_path, module):
        """The reports say so with the very words that pages look for."""
        source = open(module.__file__, encoding="utf-8").read()
        assert source.count("{text.TWO_KINDS}") == 2 and "compare two" not in source
        row = ["r", "96.0 [95.0..97.0]", "-", "93.6", "+2.4"]
        assert verdicts(page(tmp_path, self.HEAD, row, before=f"* Measured elsewhere: the {text.TWO_KINDS} data sets.")) == [""]
