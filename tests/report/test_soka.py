"""SOKA's runs told apart, and beside the paper's ratios: numbers by hand."""

import math

import pytest

from amalgam_tf import published
from amalgam_tf.methods import soka as method
from amalgam_tf.report import runs, soka
from amalgam_tf.report.footnotes import Footnotes
from configs import common_dense
from configs.soka import taskonomy
from tests.report import fakes_soka
from tests.report.fakes_soka import finished, mean_of, paired

DEPTH, EDGE = fakes_soka.PAIR


def cells(lines):
    """Rows of a Markdown table as lists of cells, the head first."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


class TestVariant:
    @pytest.mark.parametrize("variant", ["ours", *common_dense.VARIANTS])
    def test_every_variant_of_the_configs_is_told(self, variant):
        config = taskonomy.get_config(f"depth-edge2d{'' if variant == 'ours' else ',' + variant},scenes")
        results = {**fakes_soka.run(0.1, variant=variant)[0], "variant": method.variant(config)}
        assert results["variant"] == fakes_soka.run(0.1, variant=variant)[0]["variant"]  # the fakes are as the program's
        assert soka.variant_of(runs.FinishedRun("x", results, config=config.to_dict())) == variant
        assert soka.variant_of(runs.FinishedRun("x", results)) == variant  # only the command is left

    def test_rate_by_flag(self):
        results = fakes_soka.run(0.1)[0]
        results["command"] += " --config.gradnorm.optimizer.learning_rate=0.01"
        assert soka.variant_of(runs.FinishedRun("x", results)) == "ours with rate=0.01"

    def test_rate_of_weights_that_never_move_tells_nothing(self):
        results = fakes_soka.run(0.1, variant="equal")[0]
        results["command"] += " --config.gradnorm.optimizer.learning_rate=0.01"
        assert soka.variant_of(runs.FinishedRun("x", results)) == "equal"

    def test_other_settings_are_named(self):
        results = fakes_soka.run(0.1)[0]
        results["variant"]["mia"] = "element"
        assert soka.variant_of(runs.FinishedRun("x", results)) == "ours with mia=element"


class TestPairs:
    def test_seeds_of_a_variant_are_one_group_in_the_papers_order(self):
        made = [fakes_soka.run(0.1, variant=v, seed=s) for v in ("kd", "ours") for s in (1, 0)]
        other = fakes_soka.run(0.1, tasks=("normal", "edge_occlusion"))
        found, _ = soka.pairs([finished(m, f"runs/{i}") for i, m in enumerate([other, *made])])
        assert [p.name for p in found] == ["depth-edge2d", "normal-edge3d"]
        assert [(g.label, [r.seed for r in g.runs]) for g in found[0].groups] == [("ours", [0, 1]), ("kd", [0, 1])]

    def test_one_seed_twice_stands_apart_and_in_no_table(self):
        made = [finished(fakes_soka.run(0.1), f"runs/{n}") for n in "ab"]
        (pair,), notes = soka.pairs(made)
        assert [g.label for g in pair.groups] == ["ours (a)", "ours (b)"] and "share a seed" in notes[0]
        assert pair.runs("ours") == {} and soka.table_1([pair]) == []
        assert [r[0] for r in cells(soka.variant_table(pair))[2:4]] == ["ours (a)", "ours (b)"]

    def test_a_teacher_that_learned_nothing_is_told(self):
        made = [finished(fakes_soka.run(0.1, seed=s, taught=v)) for s, v in enumerate((0.1, 0.75))]  # the mean map is off by 0.7
        _, notes = soka.pairs(made)
        assert notes == [
            f"depth-edge2d: the teacher of {t} is no better than the mean map in seed 1, so claims about {t} say nothing"
            for t in (DEPTH, EDGE)
        ]

    def test_strong_that_auto_chose_is_the_same_run(self):
        own = [fakes_soka.run(0.1, variant=v, seed=s) for s in (0, 1) for v in ("ours", "strong", "weak", "no_auxiliary")]
        pair = paired(*own)
        assert pair.runs("strong") == pair.own("ours") and pair.repeats("strong") == [0, 1]
        assert pair.repeats("weak") == pair.repeats("no_auxiliary") == []
        assert pair.called("strong") == "strong (same run as ours)" and pair.called("weak") == "weak"
        _, notes = soka.pairs([finished(m, f"runs/{i}") for i, m in enumerate(own)])
        assert notes == ["depth-edge2d, strong: same run as ours in seed 0, 1 (auxiliary teacher keypoints2d), counted once"]

    def test_strong_that_was_not_run_is_ours_where_auto_chose_the_most_similar(self):
        chosen, other = fakes_soka.run(0.1, seed=0), fakes_soka.run(0.1, seed=1, auxiliary="normal")
        pair = paired(chosen, other, fakes_soka.run(0.1, variant="no_auxiliary"))
        assert list(pair.runs("strong")) == [0] and list(pair.runs("weak")) == [1]  # normal is the least similar

    def test_without_auxiliary_is_ours_where_auto_chose_none(self):
        pair = paired(fakes_soka.run(0.1, auxiliary=""), fakes_soka.run(0.2, variant="no_auxiliary"))
        assert pair.repeats("no_auxiliary") == [0]

    def test_no_one_asks_in_pairs_without_such_variants(self):
        pair = paired(fakes_soka.run(0.1), fakes_soka.run(0.1, variant="kd"))
        assert pair.runs("strong") == {} and pair.variants == ["ours", "kd"]


class TestTable1:
    def test_numbers_by_hand(self):
        """Off by 0.13, 0.12, 0.15 times what the teacher is off by 0.1."""
        pair = paired(*(fakes_soka.run(v, seed=s) for s, v in enumerate((0.13, 0.12, 0.15))))
        head, *rows = cells(soka.table_1([pair]))
        assert head[4:] == ["teacher", "student", "constant", "mean_map", "student / teacher"]
        assert [r[:4] for r in rows] == [["depth-edge2d", DEPTH, m, "3"] for m in ("rmse", "absrel", "d<1.25")] + [
            ["depth-edge2d", EDGE, m, "3"] for m in ("L1", "rmse")
        ]
        rmse = rows[0]
        teacher = math.sqrt(mean_of(0.1, DEPTH, "rmse"))
        assert rmse[4] == f"{teacher:.4f}" and rmse[5] == f"{1.3 * teacher:.4f} [{1.2 * teacher:.4f}..{1.5 * teacher:.4f}]"
        assert rmse[6:] == [f"{8 * teacher:.4f}", f"{7 * teacher:.4f}", "1.300 [1.200..1.500]"]

    def test_normals_have_angles(self):
        rows = cells(soka.table_1([paired(fakes_soka.run(0.1, tasks=(DEPTH, "normal")))]))
        assert [r[2] for r in rows if r[1] == "normal"] == ["mean deg", "<11.25 deg"]

    @pytest.mark.parametrize(
        ("tasks", "task", "printed"),
        [
            ((DEPTH, EDGE), DEPTH, ["0.999", "0.777", "0.984", "-"]),  # 10.21 / 10.22, 1.22 / 1.57, 0.6581 / 0.6687
            ((DEPTH, EDGE), EDGE, ["1.054", "-", "0.947", "0.980"]),  # 6.40 / 6.07, 0.4586 / 0.4841, 0.7112 / 0.7256
            ((DEPTH, "normal"), "normal", ["1.005", "-", "0.946", "0.917"]),  # 7.56 / 7.52
            (("edge_occlusion", "normal"), "edge_occlusion", ["1.052", "-", "0.808", "0.954"]),  # 6.43 / 6.11
            ((DEPTH, "keypoints2d"), DEPTH, ["-"] * 4),
            ((DEPTH, EDGE, "normal"), DEPTH, ["-"] * 4),
        ],
    )
    def test_printed_ratios(self, tasks, task, printed):
        assert list(soka.printed_in_table_1(tasks, task).values()) == printed

    @pytest.mark.parametrize("pair", common_dense.PAIRS)
    def test_every_pair_of_the_configs_is_printed(self, pair):
        tasks = [common_dense.SHORT[name] for name in pair.split("-")]
        assert all(soka.printed_in_table_1(tasks, t)["rmse"] != "-" for t in tasks)
        assert paired(fakes_soka.run(0.1, tasks=tuple(tasks))).name == pair

    def test_measured_ratio_stands_before_the_printed_one(self):
        head, depth, edge = cells(soka.table_1_ratios([paired(fakes_soka.run(0.13))], Footnotes()))
        assert head[2:4] == ["rmse", "published"] and edge[:4] == ["depth-edge2d", EDGE, edge[2], "1.054[^soka-edge-rmse]"]
        assert [cell.partition("[^")[2] for cell in depth[3::2]] == ["", "", "soka-depth]", ""]
        paper = [math.sqrt(mean_of(size, EDGE, "paper_rmse", "paper_values")) for size in (0.13, 0.1)]
        assert edge[2] == f"{paper[0] / paper[1]:.3f}"


class TestTable2:
    def test_sizes_by_hand(self):
        rows = {r[0].partition(",")[0]: r[1:] for r in cells(soka.table_2([paired(fakes_soka.run(0.1))]))}
        assert rows["two teachers"] == ["0.8000", "1.0000", "246.46M", "1.0000", "246.460M", "1.0000", "80.22M", "1.0000"]
        assert rows["student"][:4] == ["0.5600", "0.7000", "175.75M", "0.7131"] and rows["student"][6:] == ["56.56M", "0.7051"]
        assert rows["MTL"][:3] == ["-", "-", "175.73M"]  # was not run
        assert rows["MIA"] == ["0.0021", "0.0026", "0.02M", "0.0001", "-", "-", "-", "-"]

    def test_multi_task_student(self):
        pair = paired(fakes_soka.run(0.1), fakes_soka.run(0.1, variant="dmtl"))
        assert next(r for r in cells(soka.table_2([pair])) if r[0].startswith("MTL"))[1:3] == ["0.5600", "0.7000"]

    def test_nothing_without_the_whole_method(self):
        assert soka.table_2([paired(fakes_soka.run(0.1, variant="kd"))]) == []


class TestTables3To5:
    def test_every_printed_row_is_placed(self):
        for table, rows in soka.ROWS.items():
            assert {r["method"] for r in published.table(table)} - {"teacher"} == set(rows)
            assert set(rows.values()) <= set(soka.VARIANTS)
        named = {variant: reference.split(",") for variant, reference in taskonomy.ROWS.items()}
        assert {f"{table}/{row}": v for table, rows in soka.ROWS.items() for row, v in rows.items()} == {
            r: v for v, of in named.items() for r in of
        }

    def test_ratios_to_each_ones_teacher(self):
        pair = paired(*(fakes_soka.run(v, variant="kd", seed=s) for s, v in enumerate((0.2, 0.3))))
        kd, mia, whole = soka.lines_of("soka_table5", pair)
        paper = {size: math.sqrt(mean_of(size, EDGE, "paper_rmse", "paper_values")) for size in (0.1, 0.2, 0.3)}
        assert kd.ours["edge_rmse"] == pytest.approx([paper[0.2] / paper[0.1], paper[0.3] / paper[0.1]])
        assert kd.printed["edge_rmse"] == f"{7.83 / 6.07:.3f}" and kd.printed["depth_rel"] == f"{1.23 / 1.57:.3f}"
        assert (mia.row, whole.row) == ("KD+MIA", "KD+MIA+ACCT") and not mia.ours["edge_rmse"]

    def test_missing_variants_and_cells_are_gaps(self):
        lines = soka.lines_of("soka_table3", paired(fakes_soka.run(0.1)))
        assert lines[0].printed["depth_rmse"] == "?" and lines[0].printed["depth_d1.25"] == f"{0.4953 / 0.6687:.3f}"
        shown = cells(soka.ratio_table("soka_table3", lines, Footnotes()))
        assert shown[1] == ["dMTL", "dmtl, 0 seeds", *["-"] * 7]
        assert shown[2][:3] == ["", "published[^soka-lost-cells][^soka-supervised]", "?"]

    def test_teachers_that_seeds_share_count_once(self):
        for taught, count in (((0.1, 0.1), "1"), ((0.1, 0.11), "2")):
            pair = paired(*(fakes_soka.run(0.2, taught=t, seed=s) for s, t in enumerate(taught)))
            rows = {r[0]: r[1] for r in cells(soka.variant_table(pair))}
            assert (rows["teachers"], rows["ours"]) == (count, "2")

    def test_variants_in_their_own_metrics(self):
        pair = paired(*(fakes_soka.run(v, variant=name) for name, v in (("ours", 0.12), ("strong", 0.2), ("kd", 0.15), ("weak", 0.2))))
        rows = {r[0]: r[1:] for r in cells(soka.variant_table(pair))}
        teacher = math.sqrt(mean_of(0.1, DEPTH, "rmse"))
        assert rows["network"][1:] == ["depth rmse", "depth absrel", "depth d<1.25", "edge2d L1", "edge2d rmse"]
        assert [rows[n][1] for n in ("teachers", "ours", "kd")] == [f"{r * teacher:.4f}" for r in (1, 1.2, 1.5)]
        assert rows["strong (same run as ours)"] == ["1", *["-"] * 5]
        assert rows["mean_map"][1] == f"{7 * teacher:.4f}"
