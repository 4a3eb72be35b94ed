"""Reading finished runs and putting those of one experiment together."""

import json

import pytest

from amalgam_tf.errors import UserError
from amalgam_tf.report import runs, text
from tests.report import fakes


def finished(results: dict, name: str = "runs/a") -> runs.FinishedRun:
    return runs.FinishedRun(name, results)


class TestText:
    def test_spread_is_median_and_range(self):
        assert text.spread([0.3, 0.1, 0.25]) == "0.250 [0.100..0.300]"
        assert text.spread([0.5, None], 1, 100) == "50.0" and text.spread([None]) == text.spread([]) == "-"
        assert text.spread([0.12341, 0.12342]) == "0.123"  # a range that cannot be seen is none

    def test_median_of_an_even_number_is_between(self):
        assert text.median([1.0, 4.0, None, 2.0, 3.0]) == 2.5 and text.median([None]) is None

    def test_csv_that_cannot_be_written_names_the_file(self, tmp_path):
        with pytest.raises(UserError, match=r"no/x\.csv cannot be written.*--output"):
            text.write_csv(tmp_path / "no" / "x.csv", ["a"], [])


class TestRead:
    def test_workdirs_files_and_patterns_each_once(self, tmp_path):
        fakes.save(tmp_path / "a", fakes.student(0.9))
        fakes.save(tmp_path / "b", fakes.student(0.9, seed=1))
        (tmp_path / "cache").mkdir()
        found, notes = runs.read([str(tmp_path / "a"), str(tmp_path / "a" / "results.json"), str(tmp_path / "*")])
        assert [r.seed for r in found] == [0, 1]
        assert notes == [f"left out, no results.json there: {tmp_path / 'cache'}"]

    def test_a_pattern_that_reaches_into_workdirs_takes_their_results_only(self, tmp_path):
        """Of a finished run, of its teacher's folder, and of a run that is still going on."""
        finished = fakes.save(tmp_path / "runs" / "a", fakes.student(0.9))
        for file in (finished / "config.json", finished / "teacher" / "card.json", tmp_path / "runs" / "b" / "config.json"):
            file.parent.mkdir(exist_ok=True)
            file.write_text('{"format": 1}')
        for pattern in ("runs/*/*", "runs/**"):
            found, _ = runs.read([str(tmp_path / pattern)])
            assert len(found) == 1 and found[0].results["method"] == "afk"

    def test_scores_belong_to_results_json_only(self, tmp_path):
        folder = fakes.save(tmp_path / "a", fakes.student(0.9))
        (folder / "scores.npz").write_bytes(b"")
        (folder / "student.json").write_text((folder / "results.json").read_text())
        found, _ = runs.read([str(folder)])
        assert found[0].scores == folder / "scores.npz"
        found, _ = runs.read([str(folder / "student.json")])
        assert found[0].scores is None

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("missing", r"there is no run at .*missing: give a workdir"),
            ("empty", r"empty holds no results\.json: wait until the run has finished"),
            ("nothing*", r"nothing matches '.*nothing\*'"),
            ("empt*", r"nothing that matches '.*empt\*' holds a results\.json"),
            ("other.json", r"other\.json has no method, .*: it is not the results\.json of a run"),
            ("broken.json", r"broken\.json is not readable JSON"),
            ("new.json", r"new\.json has format 99, newer than"),
            ("  ", r"--runs names no run"),
        ],
    )
    def test_what_is_no_run_is_named(self, tmp_path, place, message):
        (tmp_path / "empty").mkdir()
        (tmp_path / "other.json").write_text('{"format": 1}')
        (tmp_path / "broken.json").write_text("{")
        (tmp_path / "new.json").write_text('{"format": 99}')
        with pytest.raises(UserError, match=message):
            runs.read([str(tmp_path / place) if place.strip() else place])


class TestNetworks:
    def test_teachers_are_those_of_the_kept_streams(self):
        results = fakes.student(0.9, teachers={"teacher1": ["cat", "dog"], "teacher2": ["dog"]}, taught=0.7)
        results["tasks"] = ["cat", "dog"]
        results["test"]["teacher2"]["per_task"]["dog"]["accuracy"] = 0.8
        results["branches"] = {"cat@teacher1": "b1", "dog@teacher2": "b2"}
        taught = runs.network(results, runs.TEACHERS)
        assert taught.per_task["dog"]["accuracy"] == 0.8 and taught.mean("accuracy") == pytest.approx(0.75)
        assert taught.parameters == 41_000_000 and taught.divergence == 0
        del results["branches"]  # as distillation: the first that knows it
        assert runs.network(results, runs.TEACHERS).per_task["dog"]["accuracy"] == 0.7

    def test_divergence_means_over_kept_streams(self):
        results = fakes.student(0.9)
        assert runs.network(results, "student").divergence == pytest.approx(0.01)
        assert runs.network(results, "b3").divergence == pytest.approx((0.030 + 0.032 + 0.034) / 3)
        results["branches"] = {"cat@teacher1": "b1", "bus@teacher2": "b4"}
        del results["held_out"]  # files of before: the loss at the branch point is that of the student before fine-tuning
        assert runs.network(results, runs.BEFORE).divergence == pytest.approx((0.010 + 0.044) / 2)
        assert runs.network(results, "student").divergence is None
        results["branch_split"] = "train"
        assert runs.network(results, runs.BEFORE).divergence is None

    def test_what_a_file_lacks_is_none(self):
        results = fakes.student(0.9, method="distill")
        assert runs.network(results, runs.BEFORE) is None and runs.network(results, "b1") is None
        del results["sizes"]["student"]["latency_ms"]
        assert runs.network(results, "student").latency is None
        assert runs.network(fakes.teacher(0.9, ["cat"]), "student") is None
        assert runs.network(fakes.teacher(0.9, ["cat"]), "teacher").mean("accuracy") == 0.9

    def test_mean_leaves_out_what_has_no_value(self):
        network = runs.Network({"a": {"ap_all": 0.4}, "b": {"ap_all": None}, "c": {}})
        assert network.mean("ap_all") == 0.4 and network.mean("accuracy") is None

    def test_stage_ends(self):
        assert runs.stage_ends(["b1", "b2"]) == {1: "b1", 2: "b2"}
        units = [f"b{s}_{u}" for s, n in ((1, 3), (2, 4), (3, 6), (4, 3)) for u in range(1, n + 1)]
        assert runs.stage_ends(units) == {1: "b1_3", 2: "b2_4", 3: "b3_6", 4: "b4_3"}
        assert runs.stage_ends(["stem", "block", "head"]) == {}

    @pytest.mark.parametrize(
        ("rule", "said"),
        [
            ({"name": "argmin"}, "argmin"),
            ({"name": "tolerance", "tolerance": 0.01}, "tolerance 0.01"),
            ({"name": "budget", "max_parameters": 30e6}, "budget 30 M parameters"),
            ({"name": "budget", "max_flops": 1.5e9}, "budget 1.5 GFLOPs"),
            ({"name": "fixed", "block": "b2"}, "fixed b2"),
            ({"name": "new", "depth": 3}, "new depth 3"),
        ],
    )
    def test_rule_text(self, rule, said):
        assert runs.rule_text(rule) == said


class TestGroups:
    def test_seeds_of_one_rule_are_one_group_in_order(self):
        found, notes = runs.groups(
            [finished(fakes.student(0.9, seed=s)) for s in (2, 0)] + [finished(fakes.student(0.9, method="distill"))]
        )
        assert [(g.label, [r.seed for r in g.runs]) for g in found] == [("AFK argmin", [0, 2]), ("distillation", [0])]
        assert notes == []

    @pytest.mark.parametrize(
        "change",
        [
            {"rule": {"name": "tolerance", "tolerance": 0.1}},
            {"rule": {"name": "budget", "max_parameters": 1e6}},
            {"method": "distill"},
            {"row": "afk_table1/TargetRes50"},
            {"data": "voc2007/test"},
            {"images": 99},
            {"teachers": {"teacher1": ["cat"], "teacher2": ["dog", "bus"]}},
            {"teachers": {"teacher1": ["cat"], "teacher2": ["bus"]}},
        ],
    )
    def test_other_experiments_stay_apart(self, change):
        found, _ = runs.groups([finished(fakes.student(0.9)), finished(fakes.student(0.9, seed=1, **change))])
        assert len(found) == 2 and (len({g.label for g in found}) == 2 or set(change) & {"row", "data", "images", "teachers"})

    def test_old_files_have_the_papers_rule(self):
        old = fakes.student(0.9, seed=1)
        del old["rule"]
        assert len(runs.groups([finished(fakes.student(0.9)), finished(old)])[0]) == 1

    def test_a_seed_twice_is_never_a_median(self):
        members = [finished(fakes.student(0.9, seed=s), f"runs/{name}/seed{s}") for name, s in (("a", 0), ("b", 0), ("a", 1))]
        found, notes = runs.groups(members)
        assert [g.label for g in found] == ["AFK argmin (a/seed0)", "AFK argmin (b/seed0)", "AFK argmin (a/seed1)"]
        assert "share a seed" in notes[0]

    def test_pools_of_one_label_list_are_told_apart(self):
        other = fakes.student(0.9, teachers={"teacher1": ["cat"], "teacher2": ["dog", "bus"]})
        found, _ = runs.groups([finished(fakes.student(0.9), "runs/two/s0"), finished(other, "runs/three/s0")])
        assert [g.label for g in found] == ["AFK argmin (two)", "AFK argmin (three)"]

    def test_settings_that_differ_within_a_group_are_told(self):
        a, b = fakes.student(0.9), fakes.student(0.9, seed=1)
        b["command"] += " --config.filter.gate=linear --config.teachers.teacher1.path=runs/1/teacher1"
        _, notes = runs.groups([finished(a, "a"), finished(b, "b")])
        assert len(notes) == 1 and "b: --config.filter.gate=linear)" in notes[0] and "teacher1" not in notes[0]

    def test_merged_puts_equal_networks_together_and_others_not(self):
        def nets(value, seeds):
            return {s: runs.network(fakes.student(value, seed=s), "student") for s in seeds}

        same = runs.merged({"a": nets(0.9, (0, 1)), "b": nets(0.9, (1, 2)), "c": nets(0.92, (1,)), "d": {}})
        assert {k: sorted(v) for k, v in same.items()} == {"a": [0, 1, 2], "c": [1]}
        reordered = json.loads(json.dumps(fakes.student(0.9)))
        reordered["test"]["student"]["per_task"]["cat"]["ap_all"] = None
        assert len(runs.merged({"a": nets(0.9, (0,)), "b": {0: runs.network(reordered, "student")}})) == 2


def test_training_seconds_are_those_of_the_phases():
    """Caches, tests and figures cost no training; files without phases have their whole wall time."""
    assert runs.training_seconds({"seconds": 100.0, "phase_seconds": {"block/b1": 20.0, "finetune": 10.5}}) == 30.5
    assert runs.training_seconds({"seconds": 100.0}) == 100.0
