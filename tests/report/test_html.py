"""Pages: complete in themselves, valid, readable; figures, footnotes, contents; sentences of mistakes; a real browser if there is one."""

import base64
import io
import json
from pathlib import Path
import shutil
import subprocess

from PIL import Image
import pytest

from amalgam_tf import report
from amalgam_tf.errors import UserError
from amalgam_tf.report import html, runs
from tests.report import fakes
from tests.report.pages import Page

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def png(path: Path, size=(200, 100), dpi=None) -> Path:
    Image.new("RGB", size, "red").save(path, **({"dpi": (dpi, dpi)} if dpi else {}))
    return path


def page(tmp_path, *markdown: str, title="T", **more) -> Page:
    files = []
    for i, text in enumerate(markdown):
        files.append(tmp_path / f"{i}.md")
        files[-1].write_text(text)
    made = Page(html.write(files, tmp_path / "page.html", title=title, **more).read_text())
    assert made.faults == []
    return made


def test_the_checker_sees_what_a_page_must_not_have():
    for planted in (
        "<script>1</script>",
        '<img src="x.png" alt="x">',
        '<img src="data:image/png;base64,AA">',
        "<p><div></div></p>",
        "<b><i></b></i>",
        '<a href="#gone">x</a>',
        '<link rel="stylesheet" href="https://x.org/a.css">',
        "<style>@import 'a.css';</style>",
        '<p id="a"></p><p id="a"></p>',
        "<p>",
        '<p onclick="x()"></p>',
    ):
        assert Page(planted).faults, planted
    assert Page("<style>p { color: red }</style><p>fine</p>").faults == []


@pytest.mark.parametrize("file", sorted((ROOT / "results").rglob("*.md")), ids=lambda p: p.stem)
def test_committed_reports_become_pages(tmp_path, file):
    made = Page(html.write([file], tmp_path / "page.html", title=file.stem).read_text())
    assert made.faults == [] and made.tags[:2] == ["doctype html", "html"]
    lines = file.read_text().splitlines()
    assert len(made.tables) == sum(line.startswith("| -") for line in lines)
    shown = sum(line.startswith("![") for line in lines)
    gone = made.said.count("is not beside the report")
    assert len(made.images) == shown - gone and all(
        (file.parent / line.partition("](")[2][:-1]).is_file() for line in lines if line.startswith("![")
    ) == (gone == 0)


def test_the_figure_inside_is_the_figure_beside(tmp_path):
    png(tmp_path / "a b.png", (1300, 650), dpi=130)
    made = page(tmp_path, "# R\n\n![what it shows](a%20b.png)\n\nwords ![small](a%20b.png) words\n")
    big, small = made.images
    kind, _, data = big["src"].partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == (tmp_path / "a b.png").read_bytes() and small["src"] == big["src"]
    assert (big["width"], big["height"]) == ("960", "480")  # ten inches wide, as it was drawn
    assert made.tags.count("figure") == 1 and "what it shows" in made.said


def test_wide_figures_are_marked_for_narrow_screens(tmp_path):
    png(tmp_path / "wide.png", (561, 50)), png(tmp_path / "narrow.png", (560, 50))
    page(tmp_path, "![a](wide.png)\n\n![b](narrow.png)\n")
    text = (tmp_path / "page.html").read_text()
    assert text.count('<figure class="wide">') == 1 and text.count("<figure>") == 1


def test_a_figure_that_was_not_kept_is_named(tmp_path):
    made = page(tmp_path, "![curves](gone.png)\n")
    assert "The figure gone.png (curves) is not beside the report." in made.said and not made.images


def test_damaged_figure(tmp_path):
    whole = io.BytesIO()
    Image.new("RGB", (64, 64)).save(whole, "PNG")
    (tmp_path / "a.png").write_bytes(whole.getvalue()[:60])
    with pytest.raises(UserError, match=r"the figure .*a\.png is damaged"):
        page(tmp_path, "![a](a.png)\n")
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"the figure .*a\.png is damaged"):
        page(tmp_path, "![a](a.png)\n")


def test_figures_from_the_network_are_refused(tmp_path):
    for place in ("https://example.org/a.png", "//example.org/a.png", "data:image/png;base64,AA"):
        with pytest.raises(UserError, match="a page holds its figures itself: copy the figure beside the report"):
            page(tmp_path, f"![a]({place})\n")


def test_unreadable_reports_and_pages_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match=r"the report .*none\.md cannot be read \(No such file"):
        html.write([tmp_path / "none.md"], tmp_path / "page.html", title="T")
    (tmp_path / "bytes.md").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"bytes\.md cannot be read \(it is no UTF-8 text\)"):
        html.write([tmp_path / "bytes.md"], tmp_path / "page.html", title="T")
    (tmp_path / "a.md").write_text("x")
    with pytest.raises(UserError, match=r"the page .*a\.md/page\.html cannot be written"):
        html.write([tmp_path / "a.md"], tmp_path / "a.md" / "page.html", title="T")


def test_names_of_users_are_text(tmp_path):
    """Task names come from users' files: they must not become markup."""
    made = page(tmp_path, "# A <b>\n\n| <script>x</script> | n |\n| - | - |\n| <img src=x> & y | 1 |\n", title="<i>&amp;")
    assert made.tables[0][1][0][2] == "<img src=x> & y" and "<i>&amp;" in made.said
    assert not {"b", "i", "img", "script"} & set(made.tags)


def test_title_stands_once_and_levels_are_not_skipped(tmp_path):
    made = page(tmp_path, "# T\n\n## One\n\n### Two\n")
    assert [t for t in made.tags if t in ("h1", "h2", "h3", "h4")] == ["h1", "h2", "h3", "h2"]  # the last one: the appendix
    made = page(tmp_path, "# A\n\n## One\n", "# B\n\n## One\n", title="Both")
    assert [t for t in made.tags if t in ("h1", "h2", "h3", "h4")] == ["h1", "h2", "h3", "h2", "h3", "h2"]


def test_contents_of_long_pages_only(tmp_path):
    assert "nav" not in page(tmp_path, "# T\n\n## One\n\n## Two\n").tags
    made = page(tmp_path, "# A\n\n## One[^x]\n\n### deep\n\n[^x]: note\n", "# B\n\n## One\n", title="Both")
    inside = [(href, said) for href, said in made.links if not href.startswith("#fn")]
    assert inside == [
        ("#a", "A"),
        ("#one", "One"),
        ("#b", "B"),
        ("#one-2", "One"),
        ("#how-these-numbers-were-made", "How these numbers were made"),
    ]


def test_footnotes_of_two_documents_do_not_mix(tmp_path):
    table = "| row | published |\n| - | - |\n| a | 1.0[^x] |\n| b | 2.0[^x][^{}] |\n\n[^x]: {} first\n\n[^{}]: {} second\n"
    made = page(tmp_path, table.format("y", "A", "y", "A"), table.format("y", "B", "y", "B"))
    refers = [href for href, said in made.links if href.startswith("#fn-")]
    assert refers == [f"#fn-{d}-{n}" for d in (1, 2) for n in (1, 1, 2)]
    assert [said for href, said in made.links if href.startswith("#fn-")] == ["1", "1", "2"] * 2  # not 1:1
    assert [href for href, _ in made.links if href.startswith("#fnref")] == [f"#fnref-{d}-{n}" for d in (1, 2) for n in (1, 2)]
    assert made.said.index("A second") < made.said.index("B first")


def test_tables_scroll_in_a_box_that_the_keyboard_reaches(tmp_path):
    page(tmp_path, "| a | b |\n| - | - |\n| x | 1 |\n")
    text = (tmp_path / "page.html").read_text()
    assert '<div class="table" role="region" aria-label="table" tabindex="0">\n<table>' in text
    wide = "| " + " | ".join("abcdefgh") + " |\n" + "| - " * 8 + "|\n" + "| 1 " * 8 + "|\n"
    page(tmp_path, wide)
    assert '<div class="table many"' in (tmp_path / "page.html").read_text()


def test_style_knows_the_dark_the_phone_and_paper(tmp_path):
    page(tmp_path, "x\n")
    text = (tmp_path / "page.html").read_text()
    for asked in ("@media (prefers-color-scheme: dark)", "@media (max-width: 44rem)", "@media print", "position: sticky", "tabular-nums"):
        assert asked in text
    assert "default-src &#x27;none&#x27;; img-src data:; style-src &#x27;unsafe-inline&#x27;" in text


class TestIndex:
    def test_links_states_and_results(self, tmp_path):
        entries = [
            html.Entry("afk_table1", "done, 12 runs", "mean **96.0** a|b", tmp_path / "out" / "afk table1" / "report.html"),
            html.Entry("soka_fig4", "not started"),
        ]
        place = html.index(entries, tmp_path / "out" / "index.html", title="All", said="Scale: `smoke`.", command="amalgam-reproduce")
        made = Page(place.read_text())
        assert made.faults == [] and ("afk%20table1/report.html", "afk_table1") in made.links
        assert [[c[2] for c in row] for row in made.tables[0]] == [
            ["artefact", "state", "result"],
            ["afk_table1", "done, 12 runs", "mean 96.0 a|b"],
            ["soka_fig4", "not started", "-"],
        ]
        assert "Scale: smoke." in made.said and "amalgam-reproduce" in made.said


class TestOfRuns:
    """The pages that a run and a comparison write by themselves."""

    def test_a_run_has_its_page(self, tmp_path):
        results = fakes.student(0.9, row="afk_table3/TargetRes50", data="coco/val2014")
        report.write(fakes.save(tmp_path, results))
        made = Page((tmp_path / "report.html").read_text())
        assert made.faults == [] and "afk: cat, dog, bus" in made.said and len(made.images) == 2
        assert made.said.count(results["command"]) == 2 and "This page was written by" not in made.said  # fact and appendix
        assert (tmp_path / "report.html").stat().st_size < 400_000
        assert str(tmp_path / "report.html") in report.summary(tmp_path)
        published = made.tables[-2]
        assert [c[2] for c in published[0]][:3] == ["method", "C-P", "C-R"] and published[1][1][2] == "79.8"
        assert "The printed F1 is not the harmonic mean" in made.said

    def test_a_comparison_has_one_page_of_all_it_wrote(self, tmp_path):
        for seed in range(2):
            fakes.save(
                tmp_path / "runs" / f"table{seed}", fakes.student(0.9, seed=seed, row="afk_fig3/bus", data="voc2007/test", images=4952)
            )
        fakes.save(tmp_path / "runs" / "own", fakes.student(0.9, seed=1))
        report.compare([str(tmp_path / "runs" / "*")], tmp_path / "out")
        made = Page((tmp_path / "out" / "report.html").read_text())
        assert made.faults == [] and {"Beside afk_fig3", "summary_voc2012-val"} <= {said for _, said in made.links}
        reports = sorted((tmp_path / "out").glob("*.md"))
        assert len(made.tables) == 1 + sum(line.startswith("| -") for f in reports for line in f.read_text().splitlines())
        own = [str(tmp_path / "runs" / name) for name in ("own", "table0", "table1")]
        assert [row[0][2] for row in made.tables[-1][1:]] == own
        report.compare([str(tmp_path / "runs" / "*")], tmp_path / "one", table="afk_fig3")
        one = Page((tmp_path / "one" / "report.html").read_text())
        assert [row[0][2] for row in one.tables[-1][1:]] == own[1:] and one.said.count("Beside afk_fig3") == 2  # in the tab and on the page


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed: the page was not opened in a real browser")
class TestBrowser:
    """Headless Chromium: no error on the console, no element moved or added, nothing asked from outside."""

    @staticmethod
    def browse(place: Path, *flags: str) -> subprocess.CompletedProcess:
        profile = f"--user-data-dir={place.parent / 'profile'}"
        quiet = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
        )
        command = [BROWSER, *quiet, "--enable-logging=stderr", profile, *flags, place.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def test_page(self, tmp_path):
        place = html.write(
            [ROOT / "results/voc2012_part/voc2012_part.md"],
            tmp_path / "page.html",
            title="P",
            runs=runs.read(["results/voc2012_part/seed0/*"])[0],
        )
        done = self.browse(place, "--dump-dom")
        assert done.returncode == 0 and "CONSOLE" not in done.stderr
        source, shown = Page(place.read_text()), Page(done.stdout)
        assert shown.tags == source.tags and len(shown.tags) > 1000 and shown.tables == source.tables

    def test_it_would_tell(self, tmp_path):
        """What the test above relies on: the policy stops what is not inside, and the console says so."""
        place = html.write([], tmp_path / "page.html", title="P")
        for planted in ('<script>document.title = "x"</script>', '<img alt="x" src="https://example.org/x.png">'):
            other = tmp_path / "planted.html"
            other.write_text(place.read_text().replace("</main>", f"{planted}</main>"))
            done = self.browse(other, "--dump-dom")
            assert "CONSOLE" in done.stderr and "<title>x</title>" not in done.stdout, planted


def test_old_results_have_pages_too(tmp_path):
    """results.json of before versions and machine were recorded."""
    results = json.loads((ROOT / "results/quickstart/student.json").read_text())
    report.write(fakes.save(tmp_path, results))
    made = Page((tmp_path / "report.html").read_text())
    assert made.faults == [] and "versions: not recorded" in made.said
