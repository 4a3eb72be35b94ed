"""Dual-GAN's summary as a user gets it: files, tables, mistakes; figs. 4 and 5 show the numbers and the images."""

import csv
import json
import re

from matplotlib import image
import numpy as np
import pytest

from amalgam_tf import generation, report
from amalgam_tf.data import noise, scenes
from amalgam_tf.errors import UserError
from amalgam_tf.report import dual_gan, dual_gan_figures, dual_gan_seeds, runs
from tests.report import fakes, fakes_dual_gan

ENDS = (".md", ".csv", "_claims.csv", "_images.png", "_labels.png")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return fakes_dual_gan.experiment(tmp_path_factory.mktemp("e") / "scenes", n=60)


@pytest.fixture(scope="module")
def written(experiment, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    report.compare([str(experiment / "**")], out, summary="dgan_scenes", resamples=10)
    return out


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def cells(markdown, start):
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {start} "))
    return [c.strip() for c in line.strip("|").split("|")]


def loaded(folder):
    return dual_gan.rows([r for r in runs.read([str(folder / "seed*" / "*")])[0]])[0]


class TestWrite:
    def test_files_and_sections(self, written):
        assert {f"dgan_scenes{end}" for end in ENDS} <= {f.name for f in written.iterdir()}
        text = (written / "dgan_scenes.md").read_text()
        for part in ("## Rows", "[^dgan-mean]: ", "## Claims", "## Labels (ap_all", "## Figure 4", "## Figure 5", "## Runs"):
            assert part in text
        assert "* " not in text.split("## Rows")[0]  # nothing to note
        assert re.search(r"\| teacher +\| 0 +\| .*/scenes/whole ", text)
        first = [line.split("|")[1].strip() for line in text.split("## Rows")[1].splitlines() if line.startswith("| ")][2:]
        assert [name.partition(":")[0] for name in first[:11]] == [
            *("teachers", "KA", "ours", "similar", "DAFL", "different", "noise", "lambda10", "off", "random scores", "always no")
        ]

    def test_a_row_by_hand(self, written, experiment):
        """Median, smallest and largest over three seeds, and the share of the same runs' teacher; the paper's 73.6 of 86.0 beside it."""
        values = []
        for seed in (0, 1, 2):
            test = json.loads((experiment / f"seed{seed}" / "ours" / "results.json").read_text())["test"]
            values.append([np.mean([v["ap_all"] for v in test[who]["per_task"].values()]) for who in ("student", "whole")])
        ap, kept = sorted(v[0] for v in values), sorted(100 * v[0] / v[1] for v in values)
        row = cells((written / "dgan_scenes.md").read_text(), "ours: Dual-GAN")
        of_teachers = f"{kept[1]:.1f} [{kept[0]:.1f}..{kept[2]:.1f}]"
        assert row[1:5] == ["3", f"{ap[1]:.3f} [{ap[0]:.3f}..{ap[2]:.3f}]", of_teachers, "85.6[^dgan-mean]"]
        assert row[7:] == ["0.60", "95.0", "80.0", f"{(1500 * 64 + 3 * 600 * 32 + 100 * 32) / 1000:.1f}", "2.0 [1.0..3.0]"]
        by_csv = {(r["row"], r["task"], r["metric"]): r for r in rows_of(written / "dgan_scenes.csv")}
        assert [float(by_csv["ours", "", "ap_all"][k]) for k in ("smallest", "median", "largest")] == pytest.approx(ap)
        assert by_csv["ours", "ball", "shown"]["median"] == "0.1" and by_csv["ours", "cone", "prevalence"]["seeds"] == "3"
        assert by_csv["teachers", "", "shown"]["median"] == "43200" and ("ka", "ball", "shown") not in by_csv

    def test_claims(self, written):
        rows = rows_of(written / "dgan_scenes_claims.csv")
        assert [(r["left"], r["right"]) for r in rows][-2:] == [("ours", "lambda10"), ("ours", "off")] and len(rows) == 9
        text = (written / "dgan_scenes.md").read_text()
        row = next(r for r in rows if (r["left"], r["right"]) == ("dafl", "noise"))
        shown = cells(text, r"DAFL is better than noise (dafl - noise)")
        assert row["verdict"] == "holds" and row["overlap"] == "False" and shown[6] == "**holds**" and shown[3] == "apart"
        assert shown[2] == f"{float(row['difference']):+.3f}" and shown[5] == f"{float(row['low']):+.3f} .. {float(row['high']):+.3f}"

    def test_without_a_name_by_test_part_and_labels(self, experiment, tmp_path):
        """Shared teachers go with students of all seeds; runs of other labels are another summary."""
        other = fakes_dual_gan.results(0.8, "ours", tasks=("ball",), images=60, seed=1)
        fakes.save(tmp_path / "runs" / "other", other)
        places = [experiment / "seed[12]" / "*", experiment / "whole", tmp_path / "runs" / "*"]  # the teacher is of seed 0
        said = report.compare(list(map(str, places)), tmp_path / "out", resamples=3)
        names = {f.name for f in (tmp_path / "out").glob("*.md")}
        assert names == {"summary_scenes-test.md", "summary_scenes-test_2.md"} and "| KA: AFK" in said
        assert "## Figure 4" in (tmp_path / "out" / "summary_scenes-test.md").read_text()
        assert report.compare([str(experiment / "seed0" / "ka")], tmp_path / "afk", resamples=3).count("KA: AFK") == 0

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"tasks": ("ball",), "images": 60}, r"students of different labels \(ball, cube, cone; ball\)"),
            ({"images": 7}, "summarise runs of one test set"),
        ],
    )
    def test_what_is_no_one_experiment(self, experiment, tmp_path, changes, message):
        fakes.save(tmp_path / "runs" / "z", fakes_dual_gan.results(0.8, "dafl", **changes))
        with pytest.raises(UserError, match=message):
            report.compare([str(experiment / "seed0" / "ours"), str(tmp_path / "runs" / "z")], tmp_path / "out", summary="x")

    def test_other_methods_are_refused(self, experiment, tmp_path):
        fakes.save(tmp_path / "z", fakes_dual_gan.results(0.8, "ours", images=60) | {"method": "soka"})
        with pytest.raises(UserError, match="is of Dual-GAN and .*: summarise one method|is of SOKA and"):
            report.compare([str(experiment / "seed0" / "ours"), str(tmp_path / "z")], tmp_path / "out", summary="x")

    def test_results_alone(self, tmp_path):
        """Committed results: no scores, no config.json, no images."""
        for row in ("ours", "dafl", "similar"):
            for seed in (0, 1, 2):
                made = fakes_dual_gan.results(0.9 if row == "ours" else 0.7, row, seed=seed)
                (tmp_path / f"{row}{seed}.json").write_text(json.dumps(made))
        said = report.compare([str(tmp_path / "*.json")], tmp_path / "out", resamples=3, summary="x")
        assert "no intervals: the runs have no scores.npz" in said and "| no claim " in said and "**holds**" not in said
        assert not (tmp_path / "out" / "x_images.png").exists() and (tmp_path / "out" / "x_labels.png").exists()
        assert cells(said, "similar: AFK, similar images")[1] == "3"


class TestImages:
    def test_panels(self, experiment, tmp_path):
        """The very images: scenes of the run's test part, noise, and what the runs kept."""
        sheets, notes = dual_gan_figures.panels(loaded(experiment))
        assert list(sheets) == ["test images", "noise", "DAFL", "ours: Dual-GAN"] and notes == []
        assert (sheets["DAFL"] == 40).all() and (sheets["ours: Dual-GAN"] == 200).all()
        real = scenes.load(split="test", count=16, size=16, seed=2).images
        np.testing.assert_array_equal(sheets["test images"], generation.grid(real))
        np.testing.assert_array_equal(sheets["noise"][:16, 16:32], noise.load(split="train", count=2, size=16, seed=0).images[1])
        assert dual_gan_figures.side_by_side(sheets, tmp_path / "x.png")
        drawn = image.imread(tmp_path / "x.png")[..., :3]
        for shade in (40, 200):
            assert (np.abs(drawn - shade / 255) < 2e-3).all(-1).mean() > 0.1

    def test_images_from_all_over_a_folder_in_order_of_classes(self, tmp_path):
        """Some of every class, at the size of the generated ones."""
        for i, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / "test" / name).mkdir(parents=True)
            for j in range(50):
                image.imsave(tmp_path / "data" / "test" / name / f"{j:02d}.png", np.full((20, 20, 3), 80 * (i + 1), np.uint8))
        settings = fakes_dual_gan.config()
        settings["data"] = {"reader": "folder", "root": str(tmp_path / "data"), "task": "pet", "test": "test", "test_count": 1000}
        fakes_dual_gan.save(tmp_path / "seed0" / "ours", fakes_dual_gan.results(0.8), settings)
        sheet = dual_gan_figures.panels(loaded(tmp_path))[0]["test images"]
        assert sheet.shape == (128, 128, 3) and abs((sheet == 80).mean() - 0.5) < 0.03 and set(np.unique(sheet)) == {80, 160}

    def test_images_that_cannot_be_read_from_here(self, tmp_path):
        settings = fakes_dual_gan.config()
        settings["data"] = {"reader": "folder", "root": "no_such_folder", "test": "test"}
        fakes_dual_gan.save(tmp_path / "seed0" / "ours", fakes_dual_gan.results(0.8), settings)
        sheets, notes = dual_gan_figures.panels(loaded(tmp_path))
        assert list(sheets) == ["noise", "ours: Dual-GAN"] and re.match("figure 4 shows no test images: .*no_such_folder", notes[0])

    def test_a_damaged_sheet(self, tmp_path):
        folder = fakes_dual_gan.save(tmp_path / "seed0" / "ours", fakes_dual_gan.results(0.8), fakes_dual_gan.config())
        (folder / "figures" / "generated.png").write_bytes(b"no image")
        with pytest.raises(UserError, match="generated.png is no PNG image"):
            dual_gan_figures.panels(loaded(tmp_path))

    def test_nothing_kept(self, tmp_path):
        fakes.save(tmp_path / "seed0" / "ka", fakes_dual_gan.results(0.8, "ka"))
        assert dual_gan_figures.panels(loaded(tmp_path)) == ({}, [])
        assert not dual_gan_figures.side_by_side({}, tmp_path / "x.png") and not (tmp_path / "x.png").exists()


class TestLabels:
    def found(self, shares):
        made = []
        for row, each in shares.items():
            for seed, own in enumerate(each):
                results = fakes_dual_gan.results(0.8, row, seed=seed)
                results["labels"] = dict(zip(("ball@whole", "cube@whole", "cone@whole"), own, strict=True))
                made.append(runs.FinishedRun(f"{row}{seed}", results, None, fakes_dual_gan.config(row)))
        return dual_gan.rows(made)[0]

    def test_bars_stand_where_the_numbers_are(self, tmp_path, monkeypatch):
        drawn, make = [], dual_gan_figures.new_figure

        def new_figure(*args):
            drawn.append(make(*args)[0])
            return drawn[-1], np.array(drawn[-1].axes, object).reshape(args[:2])

        monkeypatch.setattr(dual_gan_figures, "new_figure", new_figure)
        found = self.found({"ours": [(0.1, 0.2, 0.3), (0.3, 0.2, 0.1), (0.2, 0.2, 0.9)], "off": [(0.6, 0.0, 0.0)]})
        kinds = dual_gan_figures.bars(found, ("ours", "off"))
        assert [k.name for k in kinds] == ["test images", "with the discrete loss (ours)", "without it (off)"]
        assert dual_gan_figures.label_frequencies(kinds, tmp_path / "x.png") and (tmp_path / "x.png").stat().st_size
        (axes,) = drawn[0].axes
        heights = [p.get_height() for p in axes.patches][:9]
        assert heights == pytest.approx([10] * 3 + [20, 20, 30] + [60, 0, 0])  # prevalence 0.1 in the fakes
        whiskers = [c.lines[2][0].get_segments()[0][:, 1] for c in axes.containers if getattr(c, "lines", None) and c.lines[2]]
        assert [tuple(w) for w in whiskers][0] == pytest.approx((10, 30))

    def test_evenness(self):
        assert dual_gan_seeds.evenness([0.2, 0.2, 0.2]) == pytest.approx(1) and dual_gan_seeds.evenness([0.4, 0.0, 0.0]) == 0
        assert dual_gan_seeds.evenness([0.5, 0.25]) == pytest.approx((2 / 3 * np.log(3 / 2) + 1 / 3 * np.log(3)) / np.log(2))
        assert dual_gan_seeds.evenness([0.0, 0.0]) is None and dual_gan_seeds.evenness([0.4]) is None

    @pytest.mark.parametrize(
        ("ours", "off", "said"),
        [
            ([(0.2, 0.2, 0.2)] * 3, [(0.9, 0.1, 0.1)] * 3, "holds"),
            ([(0.9, 0.1, 0.1)] * 3, [(0.2, 0.2, 0.2)] * 3, "does not hold"),
            ([(0.2, 0.2, 0.2), (0.2, 0.2, 0.2), (0.9, 0.0, 0.0)], [(0.9, 0.1, 0.1)] * 3, "no claim"),
            ([(0.2, 0.2, 0.2)] * 3, [(0.9, 0.1, 0.1)], r"no claim \(fewer than 3 seeds\)"),
        ],
    )
    def test_the_papers_words_for_figure_5(self, ours, off, said):
        table = dual_gan_seeds.evenness_table(self.found({"ours": ours, "off": off}), ("ours", "off"))
        assert re.fullmatch(f"More even with the discrete loss, by the seeds' ranges: {said}.", table[-1])

    def test_rows_that_lack(self):
        found = self.found({"ours": [(0.1, 0.2, 0.3)]})
        assert len(dual_gan_figures.bars(found, ("ours", ""))) == 2
        assert dual_gan_seeds.evenness_table(found, ("ours", ""))[-1].startswith("| ours ")
        assert dual_gan_figures.bars(self.found({}) or {"ka": found["ours"]}, ("", "")) == []

    def test_categories_have_no_bars(self):
        found = self.found({"ours": [(0.1, 0.2, [0.5, 0.5])]})
        assert list(dual_gan_figures.frequencies(found["ours"])) == ["ball", "cube"]
