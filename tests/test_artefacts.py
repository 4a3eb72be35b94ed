"""Artefacts against the published tables, the configs and the committed results."""

from pathlib import Path
import re
import runpy

import pytest

from amalgam_tf import artefacts, published
from amalgam_tf.artefacts import ARTEFACTS, BESIDE, CHOICES, NO_RESULTS, NOT_OURS
from amalgam_tf.errors import UserError
from amalgam_tf.methods import load_config
from amalgam_tf.report import runs

ROOT = Path(__file__).parents[1]
ABBREVIATED = {"afk": "afk", "customize": "cust", "dual_gan": "dgan", "soka": "soka"}


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def named():
    """Artefact -> references that its runs at the paper's scale name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        rows = {name: [load_config(r.config).published_row for r in a.paper if r.shown] for name, a in ARTEFACTS.items()}
    return {name: {reference for row in found for reference in row.split(",") if reference} for name, found in rows.items()}


def rows_of(references, table):
    """As the rows themselves, since one row has several references (`1/1` and `1/1/73.6`)."""
    return {tuple(published.row(r).values()) for r in references if r.partition("/")[0] == table}


def test_every_table_and_figure_with_results_is_there_once():
    expected = [
        *("afk.fig3", "afk.table1", "afk.table2", "afk.table3"),
        *(f"customize.{x}" for x in ("table3", "table4", "table5", "table7", "table8", "table9", "fig5")),
        *(f"dual_gan.{x}" for x in ("table1", "table2", "table3", "table4", "fig4", "fig5")),
        *(f"soka.{x}" for x in ("table1", "table2", "table3", "table4", "table5", "fig4", "fig5")),
    ]
    assert list(ARTEFACTS) == expected and len(expected) == 24
    assert all(a.name == name and a.said and a.paper and a.small for name, a in ARTEFACTS.items())


@pytest.mark.parametrize("table", published.tables())
def test_every_published_row_is_reached_or_said_not_to_be_ours(table, named):
    """Each row in exactly one way: by a run of its own table's artefact, beside one, or not at all and why."""
    if table in NO_RESULTS:
        return
    paper, _, number = table.partition("_")
    artefact = next(f"{name}.{number}" for name, short in ABBREVIATED.items() if short == paper)
    own = rows_of(named[artefact], table)
    if artefact == "soka.table3":  # ours is printed in table 5, too: one run, two rows
        assert rows_of(named["soka.table5"], table) <= own
    beside, others = (
        {tuple(published.row(r).values()) for r in published.references(table) if any(r == k or r.startswith(mark(k)) for k in known)}
        for known, mark in ((BESIDE, lambda k: k), (NOT_OURS, lambda k: f"{k}/"))
    )
    every = {tuple(row.values()) for row in published.table(table)}
    assert own | beside | others == every, every - own - beside - others
    assert not own & beside and not own & others and not beside & others
    assert own or beside  # an artefact of nothing but other people's rows would be none


def test_reasons_are_given_for_rows_that_exist_and_not_for_ours(named):
    known = {r for table in published.tables() for r in published.references(table)}
    for key in (*BESIDE, *NOT_OURS):
        assert any(r == key or r.startswith(key) for r in known), key
    assert not any(row.startswith(("Target", "Data-free", "Ours", "whole model")) for key in NOT_OURS for row in [key.partition("/")[2]])
    assert set(NO_RESULTS) <= set(published.tables()) and all({**BESIDE, **NOT_OURS, **NO_RESULTS}.values())


def test_every_row_that_a_config_names_is_an_artefacts(named):
    reached = {tuple(published.row(r).values()) for references in named.values() for r in references}
    for path in sorted((ROOT / "configs").rglob("*.py")):
        if path.name.startswith(("common", "__init__")):
            continue
        place = str(path.relative_to(ROOT))
        for argument in ("", *runpy.run_path(str(path))["ARGUMENTS"]):
            for reference in filter(None, load_config(f"{place}:{argument}" if argument else place).published_row.split(",")):
                assert tuple(published.row(reference).values()) in reached, f"{place}:{argument} names {reference}"


@pytest.mark.parametrize("name", ARTEFACTS)
def test_runs_are_of_their_scale(name):
    artefact = ARTEFACTS[name]
    smoke = artefact.runs("smoke")
    assert len(smoke) == sum(r.shown for r in artefact.paper)
    assert all(load_config(r.config).data.reader in ("scenes", "scenes_dense") and r.config.endswith(",smoke") for r in smoke)
    papers = [load_config(r.config).to_dict() for r in artefact.paper]
    small = [load_config(r.config).to_dict() for r in artefact.small]
    assert not any(c == p for c in small for p in papers) or name == "afk.table3"  # whose small run is the same student on fewer images


def test_lengths_are_those_of_the_committed_results():
    """Every committed run of Customize was made with the leaves that its config gets at the small scale."""
    found, _ = runs.read(["results/customize_part/seed*/**"])
    assert len(found) > 100
    for run in found:
        config = load_config(run.flags["config"])
        config.update_from_flattened_dict(artefacts.lengths(run.flags["config"]))
        leaf = "config.epochs" if "epochs" in config else "config.train.epochs"
        assert float(run.flags[leaf]) == (config if "epochs" in config else config.train).epochs, run.name
    assert artefacts.lengths("configs/afk/voc2012_part.py:student") == {}


def test_choices_are_small_runs_of_each_paper():
    assert list(CHOICES) == [f"{paper}.choices" for paper in ABBREVIATED]
    assert all(a.name == name and a.said and a.small and not a.paper for name, a in CHOICES.items())
    assert all(not a.runs(scale) for a in CHOICES.values() for scale in ("paper", "smoke"))


def test_headline_runs_have_all_seeds():
    """What claims rest on is never one of those whose first seed is enough."""
    headline = {
        "afk.table2": "student|tolerance|budget|distill",
        "customize.table3": "hair,part|hair,component,Bangs,part",
        "dual_gan.table1": "scenes,(ours|ka|similar|different|noise|dafl)",
        "dual_gan.table3": "cifar10,(ours|ka|similar|different|noise|dafl)",
        "soka.table3": "depth-edge2d(,dmtl|,gradnorm)?,scenes",
        "soka.table4": "depth-edge2d(,weak|,strong|,no_auxiliary)?,scenes",
        "soka.table5": "depth-edge2d(,kd|,kd_mia)?,scenes",
        "soka.fig5": "depth-edge2d(,fast_weights)?,scenes",
    }
    for name, pattern in headline.items():
        found = [r for r in ARTEFACTS[name].small if re.fullmatch(pattern, r.config.partition(":")[2])]
        assert found and not any(r.once for r in found), name


class TestChosen:
    def test_in_the_order_of_the_papers_each_once(self):
        names = ["soka.choices", "soka.fig4", "afk.table2", "soka.fig4"]
        assert [a.name for a in artefacts.chosen(names)] == ["afk.table2", "soka.fig4", "soka.choices"]

    def test_all(self):
        assert artefacts.chosen(["soka.fig4", "all"]) == tuple(ARTEFACTS.values())

    def test_a_misspelt_name_gets_a_hint(self):
        with pytest.raises(UserError, match="unknown --artefact 'afk.tabel1': did you mean 'afk.table1'"):
            artefacts.chosen(["afk.tabel1"])

    def test_nothing_is_said_so(self):
        with pytest.raises(UserError, match="names nothing: say list, all or some of afk.fig3"):
            artefacts.chosen([])

    def test_seeds(self):
        assert artefacts.seeds(["2", "0", "2"]) == (2, 0) and artefacts.seeds([]) == ()
        with pytest.raises(UserError, match="--seeds: 'one' is no seed"):
            artefacts.seeds(["0", "one"])
