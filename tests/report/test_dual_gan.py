"""Dual-GAN's runs: which row each is, whatever its folder's name, and the numbers of a line, by hand."""

import json

import pytest

from amalgam_tf.report import dual_gan, runs
from amalgam_tf.report.runs import FinishedRun
from configs.dual_gan import part
from tests.report import fakes, fakes_dual_gan


def finished(row, *, value=0.8, config=True, name="", command=None, **more):
    results = fakes_dual_gan.results(value, row, **more)
    if command is not None:
        results["command"] = command
    settings = fakes_dual_gan.config(row) if config is True else config or None
    return FinishedRun(name or f"somewhere/{row}", results, None, settings)


def taught(seed=0, tasks=(*fakes_dual_gan.TASKS, "torus"), minutes=2.0, **config):
    results = fakes.teacher(0.9, list(tasks), seed=seed, data="scenes/test") | {"phase_seconds": {"train": 60 * minutes}}
    return FinishedRun("t", results | {"train": {"data": "x", "images": 100}}, None, {"epochs": 12, **config})


class TestRows:
    @pytest.mark.parametrize(
        "row", ["ours", "literal", "lambda10", "off", "dafl", "dafl,literal", "distill", "ka", "similar", "different", "noise"]
    )
    @pytest.mark.parametrize("config", [True, False])
    def test_by_config_or_only_results(self, row, config):
        assert dual_gan.row_of(finished(row, config=config, name="elsewhere/renamed")) == row

    @pytest.mark.parametrize("argument", part.ARGUMENTS)
    def test_every_row_of_the_small_series_has_a_name_in_tables(self, argument):
        config = part.get_config(argument)
        if config.method == "teacher" or not config.get("evaluate_on", "data"):
            return  # no row of a table
        run = FinishedRun("x", {"method": config.method, "command": config.command}, None, config.to_dict())
        assert dual_gan.row_of(run) in dual_gan.SAID

    @pytest.mark.parametrize(
        ("row", "argument", "expected"),
        [
            ("ours", "", "ours"),
            ("ours", ":union", "ours"),
            ("ours", ":cifar10,softmax", "softmax"),
            ("dafl", ":table2,dafl", "dafl"),
            ("ours", ":table1,ours,random", "ours,random"),
            ("ours", ":scenes,smoke", "ours"),
        ],
    )
    def test_words_of_the_argument(self, row, argument, expected):
        command = f"python -m amalgam_tf.bin.train --config=configs/dual_gan/part.py{argument} --workdir=runs/off"
        assert dual_gan.row_of(finished(row, command=command)) == expected

    def test_images_by_the_configuration_before_the_words(self):
        """A run of `ka` whose images were changed by a flag is not one of KA."""
        changed = fakes_dual_gan.config("noise")
        assert dual_gan.row_of(finished("ka", config=changed)) == "noise"
        changed["data"]["train_reader"] = "voc"
        assert dual_gan.row_of(finished("ka", config=changed)) == "AFK on voc"
        assert dual_gan.row_of(finished("similar", config=changed)) == "similar"
        changed["data"]["train_reader"] = ""
        assert dual_gan.row_of(finished("similar", config=changed)) == "ka"

    def test_images_that_nothing_tells(self):
        assert dual_gan.row_of(finished("ka", config=False, command="")) == "AFK on some/train"

    def test_order_of_the_table_and_seeds(self):
        made = [finished(r, seed=s) for s in (1, 0) for r in ("noise", "strange", "ours", "dafl", "ka")]
        found, notes = dual_gan.rows(made)
        assert list(found) == ["ka", "ours", "dafl", "noise", "strange"] and notes == []
        assert all([r.seed for r in g.runs] == [0, 1] for g in found.values())

    def test_runs_that_share_a_seed_stay_apart(self):
        found, notes = dual_gan.rows([finished("ours", name="a/x"), finished("ours", name="a/y"), finished("dafl")])
        assert list(found) == ["ours (x)", "ours (y)", "dafl"] and notes[0].startswith("ours: a/x, a/y share a seed")

    def test_other_teachers_are_noted(self):
        made = [finished("ours"), finished("dafl"), finished("ka", taught=0.85), finished("noise", seed=1, taught=0.85)]
        _, notes = dual_gan.rows(made)
        assert notes == ["ours and ka of seed 0 were taught by different teachers, so their difference is not the method's"] + [
            "dafl and ka of seed 0 were taught by different teachers, so their difference is not the method's"
        ]

    def test_a_teacher_serves_all_seeds(self):
        assert dual_gan.taught_by(taught(seed=0), finished("ours", seed=2))
        assert not dual_gan.taught_by(taught(tasks=("ball", "cube")), finished("ours"))
        assert not dual_gan.taught_by(taught(), finished("ours", images=7))


class TestNumbers:
    def test_a_student(self):
        mine = dual_gan.numbers(finished("ours", value=0.7, seed=1), "ap_all")
        assert mine._asdict() == pytest.approx(
            {
                "ap": 0.6,
                "kept": 0.6 / 0.8,
                "accuracy": 0.7,
                "balanced": 0.5,
                "positives": 0.6,
                "agreement": 0.95,
                "commonest": 0.8,
                "shown": 1500 * 64 + 3 * 600 * 32 + 100 * 32,
                "minutes": 2.0,
            }
        )

    @pytest.mark.parametrize(("row", "shown"), [("dafl", 1500 * 64), ("ka", 80 * (3 * 4.0 + 3.0)), ("noise", 80 * (3 * 4.0 + 3.0))])
    def test_images_of_the_others(self, row, shown):
        made = finished(row)
        if row != "dafl":
            made.results["block_losses"] = dict.fromkeys(("b1", "b2", "b3"), {})
        mine = dual_gan.numbers(made, "ap_all")
        assert mine.shown == shown and (mine.positives is None) == (row != "dafl")
        assert dual_gan.numbers(finished(row, config=False), "ap_all").shown is None

    def test_images_of_distillation(self):
        made = finished("distill", config={"data": fakes_dual_gan.DATA, "distill": {"epochs": 20.0}})
        made.results["unlabelled"] = {"train": {"images": 10}}
        assert dual_gan.images_shown(made) == 200

    def test_the_teachers_on_the_students_tasks(self):
        """0.9 on the student's three tasks, whatever its own run says of a fourth; one training for all seeds."""
        found, _ = dual_gan.rows([finished(r, seed=s) for s in (0, 1) for r in ("ours", "ka")])
        own = taught()
        own.results["test"]["teacher"]["per_task"]["torus"]["ap_all"] = 0.0
        (of,) = dual_gan.of_teachers(found, [own], "ap_all")
        assert of.ap == pytest.approx(0.8) and of.kept == 1 and (of.minutes, of.shown) == (2.0, 1200)

    def test_a_teacher_of_every_seed(self):
        found, _ = dual_gan.rows([finished("ours", seed=s, taught=0.9 + 0.02 * s) for s in (0, 1)])
        own = [taught(seed=s, minutes=s + 1) for s in (0, 1)]
        assert [(round(n.ap, 2), n.minutes) for n in dual_gan.of_teachers(found, own, "ap_all")] == [(0.8, 1.0), (0.82, 2.0)]
        assert [n.minutes for n in dual_gan.of_teachers(found, [own[0], own[0]], "ap_all")] == [None, None]

    def test_the_teacher_of_the_fewest_other_tasks_is_the_one_behind(self):
        found, _ = dual_gan.rows([finished("ours")])
        small = taught(tasks=fakes_dual_gan.TASKS, minutes=5.0)
        assert dual_gan.of_teachers(found, [taught(), small], "ap_all")[0].minutes == 5.0

    def test_trivial_predictors(self):
        """Prevalence 0.1 and always-no 0.9 in the fakes; balanced accuracy of any constant is 1/2."""
        found, _ = dual_gan.rows([finished("ours")])
        guess = dual_gan.trivial(found, "ap_all")
        assert guess["random scores"][:4] == pytest.approx((0.1, 0.1 / 0.8, None, 0.5))
        assert guess["always no"][:4] == pytest.approx((0.1, 0.1 / 0.8, 0.9, 0.5))

    def test_printed_shares(self):
        """Table 1: 73.6 and 46.8 of 86.0; table 4: 70.2 and 59.8."""
        shares = {r: dual_gan.printed(r) for r in ("ours", "dafl", "ka", "lambda10", "lambda01", "teachers")}
        expected = {"ours": 0.8558, "dafl": 0.5442, "ka": 1.0047, "lambda10": 0.8163, "lambda01": 0.6953, "teachers": 1.0}
        assert shares == pytest.approx(expected, abs=1e-4) and dual_gan.printed("plain") is None
        assert all(dual_gan.printed(row) for row in dual_gan.PRINTED)


class TestReading:
    """What a pattern over all of an experiment's folders meets."""

    def test_runs_without_test_images(self, tmp_path):
        made = fakes_dual_gan.results(0.8)
        fakes.save(tmp_path / "a", made)
        blind = json.loads(json.dumps(made))
        del blind["test"]
        fakes.save(tmp_path / "nodata", blind)
        found, notes = runs.read([str(tmp_path / "*")])
        assert [r.name for r in found] == [str(tmp_path / "a")]
        assert notes == [f"left out, measured on no test image: {tmp_path / 'nodata'}"]
        with pytest.raises(runs.UserError, match=r"nodata/results.json was measured on no test image: leave it out"):
            runs.read([str(tmp_path / "nodata")])
        with pytest.raises(runs.UserError, match="nothing that matches .* holds a results.json of test images"):
            runs.read([str(tmp_path / "no*")])

    def test_two_stars_reach_runs_and_say_nothing_of_what_lies_in_them(self, tmp_path):
        fakes_dual_gan.save(tmp_path / "scenes" / "seed0" / "ours", fakes_dual_gan.results(0.8), fakes_dual_gan.config())
        (tmp_path / "scenes" / "seed0" / "half" / "checkpoints" / "deep").mkdir(parents=True)
        (tmp_path / "scenes" / "seed0" / "half" / "config.json").write_text("{}")
        found, notes = runs.read([str(tmp_path / "scenes" / "**")])
        assert len(found) == 1 and notes == [f"left out, no results.json there: {tmp_path / 'scenes' / 'seed0' / 'half'}"]

    def test_workdir_and_flags(self, tmp_path):
        folder = fakes.save(tmp_path / "a", fakes_dual_gan.results(0.8, seed=3))
        (found,), _ = runs.read([str(folder)])
        assert found.workdir == folder and found.flags["config.seed"] == "3" and found.flags["config"].endswith("part.py:scenes,ours")
        (found,), _ = runs.read([str(folder / "results.json")])
        assert found.workdir == folder
        (folder / "results.json").rename(folder / "ours.json")
        (found,), _ = runs.read([str(folder / "ours.json")])
        assert found.workdir is None
