"""Artefacts against the published tables, the configs and the tool whose lengths they repeat."""

from pathlib import Path
import runpy

import pytest

from amalgam_tf import artefacts, published
from amalgam_tf.artefacts import ARTEFACTS, BESIDE, NO_RESULTS, NOT_OURS
from amalgam_tf.errors import UserError
from amalgam_tf.methods import load_config
from tests.loading import tool

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
    runs = rows_of(named[artefact], table)
    if artefact == "soka.table3":  # ours is printed in table 5, too: one run, two rows
        assert rows_of(named["soka.table5"], table) <= runs
    beside, others = (
        {tuple(published.row(r).values()) for r in published.references(table) if any(r == k or r.startswith(mark(k)) for k in known)}
        for known, mark in ((BESIDE, lambda k: k), (NOT_OURS, lambda k: f"{k}/"))
    )
    every = {tuple(row.values()) for row in published.table(table)}
    assert runs | beside | others == every, every - runs - beside - others
    assert not runs & beside and not runs & others and not beside & others
    assert runs or beside  # an artefact of nothing but other people's rows would be none


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
    """As tools/customize_part.py has them, which made what results/ tells of."""
    with tool("customize_part") as known:
        expected = {
            "configs/teachers/celeba.py:hair,S1,part": {"epochs": known.SOURCE_EPOCHS},
            "configs/teachers/celeba.py:hair,S2,resnet50,part": {"epochs": known.RESNET50_EPOCHS},
            "configs/customize/celeba.py:hair,component,Bangs,kd,part": {"train.epochs": known.COMPONENT_EPOCHS},
            "configs/customize/celeba.py:Arched_Eyebrows,n3,part": {"train.epochs": known.COMPONENT_EPOCHS},
            "configs/customize/celeba.py:hair,two,part": {"train.epochs": known.TARGET_EPOCHS},
            "configs/teachers/cifar10_part.py:S1": {"epochs": known.CIFAR10_SOURCE_EPOCHS},
            "configs/customize/cifar10_part.py:X2": {"train.epochs": known.CIFAR10_COMPONENT_EPOCHS},
        }
    for config, leaves in expected.items():
        assert artefacts.lengths(config) == leaves
    assert artefacts.lengths("configs/afk/voc2012_part.py:student") == {}
    target = load_config("configs/customize/cifar10_part.py:target").train.epochs  # this one says so itself
    assert target == known.CIFAR10_TARGET_EPOCHS


class TestChosen:
    def test_in_the_order_of_the_papers_each_once(self):
        assert [a.name for a in artefacts.chosen(["soka.fig4", "afk.table2", "soka.fig4"])] == ["afk.table2", "soka.fig4"]

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
