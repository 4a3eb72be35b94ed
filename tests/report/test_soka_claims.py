"""SOKA's claims: their rule, changes by hand, intervals against the metrics room on resampled images, damaged scores."""

import math

import numpy as np
import pytest

from amalgam_tf import report
from amalgam_tf.errors import UserError
from amalgam_tf.metrics import dense as metrics
from amalgam_tf.report import runs, soka, soka_claims, soka_seeds
from amalgam_tf.report.soka_claims import FAILS, HOLDS, NONE, SPREAD
from tests.report import fakes_soka
from tests.report.fakes_soka import mean_of, paired

DEPTH, EDGE = fakes_soka.PAIR


def read(folder, *made):
    for i, m in enumerate(made):
        fakes_soka.save(folder / f"run{i}", m)
    return runs.read([str(folder / "run*")])[0]


def claim(said):
    (found,) = [c for c in soka_claims.CLAIMS if c.said.startswith(said)]
    return found


class TestRule:
    @pytest.mark.parametrize(
        ("kind", "each", "interval", "said"),
        [
            ("better", (-0.02, -0.03), (-0.04, -0.01), HOLDS),
            ("better", (0.02, 0.03), (0.01, 0.04), FAILS),
            ("better", (-0.02, 0.01), (-0.04, -0.01), SPREAD),
            ("better", (-0.02, -0.03), (-0.04, 0.01), NONE),  # an interval with 0 in it claims nothing
            ("better", (-0.02,), (-0.04, -0.01), NONE),  # one seed
            ("better", (-0.02, -0.03), (None, None), NONE),  # no scores
            ("worse", (0.02, 0.03), (0.01, 0.04), HOLDS),
            ("worse", (-0.02, -0.03), (-0.04, -0.01), FAILS),
            ("on par", (0.03, 0.04), (0.01, 0.045), HOLDS),
            ("on par", (-0.3, -0.2), (-0.4, -0.1), HOLDS),  # ahead of its teachers
            ("on par", (0.06, 0.07), (0.055, 0.08), FAILS),
            ("on par", (0.03, 0.07), (0.01, 0.08), SPREAD),
            ("on par", (0.03, 0.04), (0.01, 0.06), NONE),
            ("same", (-0.01, 0.01), (-0.02, 0.02), HOLDS),
            ("same", (-0.2, -0.3), (-0.4, -0.1), FAILS),
            ("same", (0.2, 0.3), (0.1, 0.4), FAILS),
            ("same", (0.02, 0.3), (0.1, 0.4), SPREAD),
            ("differs", (-0.02, -0.03), (-0.04, -0.01), HOLDS),
            ("differs", (0.02, 0.03), (0.01, 0.04), HOLDS),
            ("differs", (-0.01, 0.01), (-0.02, 0.02), FAILS),
            ("differs", (-0.01, 0.2), (0.01, 0.3), SPREAD),
        ],
    )
    def test_verdict(self, kind, each, interval, said):
        assert soka_claims.verdict(kind, each, *interval) == said

    def test_claims_are_about_variants(self):
        assert {v for c in soka_claims.CLAIMS for v in (c.left, c.right)} <= {*soka.VARIANTS, "teachers"}

    def test_equal_weights_are_the_weighted_form_without_gradnorm(self):
        """The right side of the claim about weighted eq. 8: at equal weights T sum w_i L_i = sum L_i, so `equal` needs no second run."""
        assert claim("GradNorm matters")[1:] == ("differs", "weighted", "equal")
        assert claim("GradNorm does not matter")[1:] == ("same", "equal", "ours")


class TestDifferences:
    def test_changes_by_hand(self, tmp_path):
        """One noise: in every resample the student is off by just 1.2 (depth) and 1.1 times its teacher."""
        made = [fakes_soka.run({DEPTH: 0.12 + 0.01 * s, EDGE: 0.11}, seed=s) for s in (0, 1)]
        rows = differences(tmp_path, made, 50)
        par = {(r["task"], r["seed"]): r for r in rows if r["metric"] == soka_claims.CHANGE}
        assert set(par) == {(t, s) for t in (DEPTH, EDGE, "mean") for s in ("0", "1", "all")}
        middle = 100 * (math.sqrt(1.2 * 1.3) - 1)
        whole = par[DEPTH, "all"]
        assert [whole[k] for k in ("difference", "low", "high")] == pytest.approx([middle] * 3)
        assert (whole["smallest"], whole["largest"]) == (pytest.approx(20), pytest.approx(30)) and whole["verdict"] == FAILS
        over = math.log(1.2 * 1.3) / 4 + math.log(1.1) / 2
        assert par["mean", "all"]["difference"] == pytest.approx(100 * math.expm1(over)) and par[EDGE, "0"]["verdict"] == ""
        rmse = next(r for r in rows if (r["task"], r["metric"], r["seed"]) == (DEPTH, "rmse", "0"))
        teacher = math.sqrt(mean_of(0.1, DEPTH, "rmse"))
        assert rmse["left_value"] == pytest.approx(1.2 * teacher) and rmse["right_value"] == pytest.approx(teacher)
        assert rmse["difference"] == pytest.approx(0.2 * teacher) and rmse["verdict"] == ""
        assert {r["metric"] for r in rows if r["task"] == DEPTH} == {"rmse", "absrel", "d1.25", soka_claims.CHANGE}

    def test_intervals_are_those_of_the_metrics_on_resampled_images(self, tmp_path):
        n, made = 60, [fakes_soka.run(0.14, tasks=(DEPTH, "normal"), seed=s, noise=s + 1, n=30) for s in (0, 1)]
        rows = differences(tmp_path, made, n)
        draw = np.random.default_rng(0).integers
        drawn = [draw(30, size=30) for _ in range(n)]
        for task, metric in ((DEPTH, "rmse"), (DEPTH, "absrel"), ("normal", "within_11.25"), ("normal", "mean_deg")):
            kind = fakes_soka.KINDS[task]

            def pooled(size, noise, places, task=task, metric=metric, kind=kind):
                of = fakes_soka.sums_of(task, 30, size, noise)
                return metrics.report(kind, {k: v[places] for k, v in of.items()})[metric]

            pairs = [[(pooled(0.14, s + 1, p), pooled(0.1, 0, p)) for s in (0, 1)] for p in drawn]
            apart = [np.mean([a - b for a, b in each]) for each in pairs]
            row = next(r for r in rows if (r["task"], r["metric"], r["seed"]) == (task, metric, "all"))
            assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(apart, [2.5, 97.5])))
            assert row["resamples"] == n
            if metric in ("rmse", "mean_deg"):
                logs = [np.mean([math.log(a / b) for a, b in each]) for each in pairs]
                ends = [100 * math.expm1(v) for v in np.percentile(logs, [2.5, 97.5])]
                row = next(r for r in rows if (r["task"], r["metric"], r["seed"]) == (task, soka_claims.CHANGE, "all"))
                assert [row["low"], row["high"]] == pytest.approx(ends)

    def test_order_of_images_does_not_matter(self, tmp_path):
        made = [fakes_soka.run(0.14, seed=s, noise=s + 1) for s in (0, 1)]
        straight = differences(tmp_path / "a", made, 20)
        fakes_soka.save(tmp_path / "b" / "run0", made[0], np.random.default_rng(3).permutation(40))
        fakes_soka.save(tmp_path / "b" / "run1", made[1])
        mixed = of_runs(runs.read([str(tmp_path / "b" / "run*")])[0], 20)
        assert [r["low"] for r in mixed] == pytest.approx([r["low"] for r in straight])

    def test_one_seed_claims_nothing(self, tmp_path):
        rows = differences(tmp_path, [fakes_soka.run(0.2), fakes_soka.run(0.3, variant="kd")], 20)
        told = [r for r in rows if r["metric"] == soka_claims.CHANGE]
        assert told and {r["seed"] for r in rows} == {"all"} and {r["verdict"] for r in told} == {NONE}
        assert "no claim (one seed)" in "\n".join(soka_seeds.claim_table([{"pair": "x", **r} for r in told]))

    def test_without_scores_no_interval_and_no_claim(self):
        rows = soka_claims.differences(paired(*(fakes_soka.run(0.2, seed=s) for s in (0, 1))), None)
        (row,) = [r for r in rows if (r["task"], r["metric"], r["seed"]) == (EDGE, soka_claims.CHANGE, "all")]
        assert row["low"] is None and row["difference"] == pytest.approx(100) and row["verdict"] == NONE

    def test_same_run_is_counted_once(self, tmp_path):
        made = [
            fakes_soka.run(v, variant=name, seed=s) for s in (0, 1) for name, v in (("ours", 0.1), ("strong", 0.5), ("no_auxiliary", 0.2))
        ]
        rows = [r for r in differences(tmp_path, made, 20) if r["claim"].startswith("a strong")]
        row = next(r for r in rows if (r["task"], r["metric"], r["seed"]) == (EDGE, soka_claims.CHANGE, "all"))
        assert row["left"] == "strong (same run as ours)" and row["difference"] == pytest.approx(-50) and row["verdict"] == HOLDS

    def test_no_auxiliary_that_is_ours_is_compared_with_nothing(self):
        pair = paired(fakes_soka.run(0.1, auxiliary=""), fakes_soka.run(0.2, variant="no_auxiliary"), fakes_soka.run(0.2, variant="kd_mia"))
        assert soka_claims.sides(claim("ACCT helps, and"), pair)[0][0] is pair.own("ours")[0]
        strong = paired(fakes_soka.run(0.1, auxiliary=""), fakes_soka.run(0.2, variant="strong", auxiliary=""))
        assert not soka_claims.sides(claim("a strong"), strong)

    def test_weak_that_is_the_only_candidate_is_not_weak(self):
        made = [fakes_soka.run(0.1, variant=v, auxiliary="normal") for v in ("ours", "strong", "weak")]
        pair = paired(*made, fakes_soka.run(0.2, variant="no_auxiliary"))
        assert soka_claims.sides(claim("a strong"), pair) and not soka_claims.sides(claim("a weak"), pair)


def differences(folder, made, n):
    return of_runs(read(folder, *made), n)


def of_runs(found, n):
    (pair,), _ = soka.pairs(found)
    return soka_claims.differences(pair, soka_claims.Images(found, n))


class TestMistakes:
    def broken(self, tmp_path, change):
        made = [fakes_soka.run(0.2, seed=s) for s in (0, 1)]
        change(made[1][1])
        with pytest.raises(UserError) as error:
            differences(tmp_path, made, 5)
        assert str(tmp_path / "run1" / "scores.npz") in str(error.value)
        return str(error.value)

    def test_a_column_is_missing(self, tmp_path):
        said = self.broken(tmp_path, lambda arrays: arrays.pop(f"T_{DEPTH}/{DEPTH}/rmse"))
        assert f"has no 'T_{DEPTH}/{DEPTH}/rmse'" in said

    def test_other_images(self, tmp_path):
        assert "about other test images" in self.broken(tmp_path, lambda arrays: arrays["ids"].__setitem__(0, "other"))

    def test_other_valid_pixels(self, tmp_path):
        def fewer(arrays):
            for key in arrays:
                if key.startswith(f"student/{DEPTH}/") and "paper" not in key:
                    arrays[key] = arrays[key] * np.where(np.arange(40) == 0, 0.5, 1)

        assert f"other valid pixels for {DEPTH}" in self.broken(tmp_path, fewer)

    def test_scores_of_another_run(self, tmp_path):
        def other(arrays):
            arrays[f"student/{DEPTH}/rmse"] *= 1.01

        assert f"gives another rmse of {DEPTH} than the results.json beside it" in self.broken(tmp_path, other)

    def test_damaged_file(self, tmp_path):
        for s in (0, 1):
            fakes_soka.save(tmp_path / f"run{s}", fakes_soka.run(0.2, seed=s))
        file = tmp_path / "run1" / "scores.npz"
        file.write_bytes(file.read_bytes()[:300])
        with pytest.raises(UserError, match=r"run1/scores.npz is damaged \(.*\): delete it, or evaluate the run again"):
            report.compare([str(tmp_path / "run*")], tmp_path / "out", resamples=5)

    def test_damaged_metrics(self, tmp_path):
        folder = fakes_soka.save(tmp_path / "run", fakes_soka.run(0.2))
        (folder / "metrics.jsonl").write_text("{\n")
        with pytest.raises(UserError, match="metrics.jsonl holds a row that is no JSON object"):
            report.compare([str(folder)], tmp_path / "out", resamples=5)
