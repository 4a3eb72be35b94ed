"""The published tables: complete, consistent in themselves, and every row can be named."""

import hashlib
from importlib import resources

import numpy as np
import pytest

from amalgam_tf import published
from amalgam_tf.data.voc import CLASSES
from amalgam_tf.errors import UserError

# First digits of the SHA-256 of each file as read from the papers. Change one only together with a digit that was checked there.
CHECKSUMS = {
    "afk_fig3": "c5cd5ebe03cd3e42",
    "afk_table1": "da06ba7ade3cf151",
    "afk_table2": "e992e04444bf8e85",
    "afk_table3": "a6071780551409b1",
    "cust_table2_sources": "a547c748dbfcf0d5",
    "cust_table3": "3517f5d585c9829e",
    "cust_table4": "3fbce4c9e9945219",
    "cust_table5": "b70950fb5b4f0898",
    "cust_table6_sources": "3e1a4ae5a3e29d13",
    "cust_table7": "3b1f3c973d0b8e5c",
    "cust_table8": "8f27b95bb1a1262f",
    "cust_table9": "2305571b4ca4f1fc",
    "dgan_table1": "b70674c070ffe11f",
    "dgan_table2": "f713ae8224f966e0",
    "dgan_table3": "dc7912a4afebf5bb",
    "dgan_table4": "05f1b84571fff00c",
    "soka_table1": "fae0a27ae19d9a2e",
    "soka_table2": "eac066c807c9d827",
    "soka_table3": "f65c97b591a5d45e",
    "soka_table4": "f18a5faa0773f783",
    "soka_table5": "d970daccb8cbe2d2",
}


def test_no_digit_has_changed():
    folder = resources.files(published)
    assert {n: hashlib.sha256((folder / f"{n}.csv").read_bytes()).hexdigest()[:16] for n in published.tables()} == CHECKSUMS


def test_all_tables_are_there():
    papers = {"afk": 3, "cust": 8, "dgan": 4, "soka": 5}
    names = [n for n in published.tables() if n != "afk_fig3"]
    assert {p: sum(n.startswith(f"{p}_table") for n in names) for p in papers} == papers and len(names) == sum(papers.values())


@pytest.mark.parametrize("name", published.tables())
def test_every_row_is_complete_and_can_be_named(name):
    rows, references = published.table(name), published.references(name)
    assert rows and len(set(references)) == len(rows)
    for number, (row, reference) in enumerate(zip(rows, references, strict=True), 1):
        assert None not in row and None not in row.values()  # too many or too few cells
        assert published.row(reference) == published.row(f"{name}/#{number}") == row


@pytest.mark.parametrize("name", ["afk_table1", "afk_table2", "dgan_table1"])
def test_computed_mean_is_the_mean_of_the_cells(name):
    for row in published.table(name):
        classes = [float(v) for k, v in row.items() if k not in ("row", "method", "data", "mAP_printed", "mAP_computed")]
        assert len(classes) == (20 if name.startswith("afk") else 10)
        assert np.mean(classes) == pytest.approx(float(row["mAP_computed"]), abs=0.011)


def test_all_negative_row_follows_from_the_class_counts_of_voc2007_test():
    row = published.row("afk_table1/all-negative accuracy [CALC]")
    positives = [204, 239, 282, 172, 212, 174, 721, 322, 417, 127, 190, 418, 274, 222, 2007, 224, 97, 223, 259, 229]
    cells = [float(v) for k, v in row.items() if k not in ("row", "mAP_printed", "mAP_computed")]
    assert len(cells) == len(CLASSES) and cells == pytest.approx([100 * (1 - p / 4952) for p in positives], abs=0.0501)
    assert row["mAP_printed"] == ""


def test_figure_3_fits_table_1():
    columns = {"bus": "bus", "diningtable": "table", "dog": "dog", "horse": "horse"}
    teacher = published.row("afk_table1/TeacherRes50")
    printed = {r["task"]: float(r["teacher_AP"]) for r in published.table("afk_fig3")}
    assert set(printed) == set(columns)
    assert {t: round(abs(float(teacher[c]) - printed[t]), 1) for t, c in columns.items()} == {
        "bus": 0.5,
        "diningtable": 0.4,
        "dog": 0,
        "horse": 2,
    }


@pytest.mark.parametrize(
    ("reference", "column", "cell"),
    [
        ("afk_table1/TargetRes50", "person", "69.5"),
        ("afk_table1/#2", "row", "TargetRes50_b1"),
        ("soka_table1/teacher/Depth", "rmse", "10.22"),
        ("soka_table4/w/o auxiliary", "depth_rmse", "10.26"),
        ("cust_table5/mouth/3/Smiling", "accuracy", "91.2"),
        ("dgan_table4/1/0", "mAP", "70.2"),
        ("afk_table1/TargetRes50/97.2", "person", "69.5"),  # longer than needed is fine
    ],
)
def test_row(reference, column, cell):
    assert published.row(reference)[column] == cell


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("afk_tabel1/TargetRes50", "no published table is called 'afk_tabel1': did you mean 'afk_table1'"),
        ("afk_table1/TargetRes5O", "has no row 'TargetRes5O': did you mean 'TargetRes50'"),
        ("afk_table1", "has no row ''"),
        ("afk_table1/", "has no row ''"),
        ("afk_table3/zzz", "has no row 'zzz': there are RLSD"),
        ("soka_table1/teacher", "fits 4 rows: say which of soka_table1/teacher/Depth, soka_table1/teacher/Normal"),
        ("afk_table1/#0", "has no row '#0'"),
        ("afk_table1/#15", "has no row '#15'"),
        ("../afk_table1/#1", "no published table is called '..'"),
    ],
)
def test_row_that_is_not_there(reference, message):
    with pytest.raises(UserError, match=message):
        published.row(reference)


# -- notes ------------------------------------------------------------------------------------------------------------
def said(name: str) -> str:
    return next(n.said for n in published.all_notes() if n.name == name)


def places():
    return [(n, table, place) for n in published.all_notes() for table, place in n.at.items()]


@pytest.mark.parametrize(("note", "table", "place"), places(), ids=lambda x: getattr(x, "name", x if isinstance(x, str) else ""))
def test_every_note_stands_somewhere(note, table, place):
    rows = published.table(table)
    assert set(place) <= {"rows", "columns"} and note.said.endswith((".", ".)")) and note.spec
    assert set(place.get("columns", ())) <= set(rows[0])
    for name in place.get("rows", ()):
        found = ["/".join(r.values()) for r in rows if "/".join(r.values()).startswith(f"{name}/")]
        assert found, name
        for row in found:
            for column in place.get("columns", [""]):
                assert note in published.notes(table, row, column)
    if "rows" not in place:
        assert note in published.notes(table)


def test_notes_are_about_their_place_only():
    names = lambda *where: [n.name for n in published.notes(*where)]  # noqa: E731
    assert names("afk_table1", "TargetRes50") == ["afk-accuracy", "afk-best-of-blocks"] and names("afk_table1") == []
    assert names("afk_table1", "TargetRes50", "mAP_printed") == ["afk-means"] and names("afk_table1", "TargetRes50", "plane") == []
    assert "afk-best-of-blocks" not in names("afk_table1", "TargetRes50-3") and names("afk_table1", "TeacherRes50", "mAP_printed") == []
    assert names("soka_table4") == ["soka-scale", "soka-caption"] and names("no_table", "x", "y") == []


def test_notes_of_a_reference_are_all_that_touch_its_row():
    found = [n.name for n in published.notes_of("soka_table4/keypoint3d")]
    assert found == ["soka-scale", "soka-caption", "soka-auxiliary", "soka-depth", "soka-edge-rmse", "soka-edge-d3"]
    assert published.notes_of("soka_table4/#4") == published.notes_of("soka_table4/keypoint3d")
    assert [n.name for n in published.notes_of("dgan_table4/1/1")] == ["dgan-mean"] and published.notes_of("dgan_table4/1/0") == []
    with pytest.raises(UserError):
        published.notes_of("soka_table4/zzz")


def cell(table: str, row: str, column: str) -> float:
    return float(published.row(f"{table}/{row}")[column])


class TestNotesAreTrue:
    """The numbers that notes name, from the tables themselves."""

    def test_afk_means(self):
        off = {
            r["row"]: r["mAP_computed"]
            for r in published.table("afk_table1")
            if r["mAP_printed"] and r["row"].startswith("T") and abs(float(r["mAP_printed"]) - float(r["mAP_computed"])) > 0.0501
        }
        note = next(n for n in published.all_notes() if n.name == "afk-means")
        assert list(off) == note.at["afk_table1"]["rows"] and all(f"{row} " in note.said and mean in note.said for row, mean in off.items())

    def test_afk_behaves_like_the_all_negative_predictor(self):
        def cells(row):
            return [float(v) for k, v in row.items() if k not in ("row", "mAP_printed", "mAP_computed")]

        rows = {r["row"]: cells(r) for r in published.table("afk_table1")}
        correlation = {name: np.corrcoef(v, rows["all-negative accuracy [CALC]"])[0, 1] for name, v in rows.items()}
        assert round(correlation["TargetRes50"], 2) == 0.99 and "(correlation 0.99)" in said("afk-accuracy")
        at = {n.name: n.at["afk_table1"]["rows"] for n in published.all_notes() if n.name in ("afk-accuracy", "afk-other-methods")}
        assert min(correlation[n] for n in at["afk-accuracy"]) > 0.89 and max(correlation[n] for n in at["afk-other-methods"]) < 0
        assert sorted([*at["afk-accuracy"], *at["afk-other-methods"], "all-negative accuracy [CALC]"]) == sorted(rows)

    def test_afk_final_row_is_the_best_of_the_blocks(self):
        rows = {r["row"]: r for r in published.table("afk_table1")}
        best = {
            c: max(float(rows[f"TargetRes50_b{k}"][c]) for k in (1, 2, 3, 4))
            for c in rows["TargetRes50"]
            if not c.startswith(("row", "mAP"))
        }
        off = [abs(float(rows["TargetRes50"][c]) - v) for c, v in best.items()]
        assert sum(d < 0.01 for d in off) == 17 and max(off) == pytest.approx(0.3)
        assert "17 of 20" in said("afk-best-of-blocks") and "more than 0.3" in said("afk-best-of-blocks")

    @pytest.mark.parametrize("table", ["afk_table3", "dgan_table3"])
    def test_f1(self, table):
        """Noted are exactly the rows whose F1 is far from the harmonic mean; the others are off by rounding."""
        far = {}
        for row in published.table(table):
            for which in "CO":
                p, r, f1 = (float(row[f"{which}-{k}"]) for k in ("P", "R", "F1"))
                if abs(2 * p * r / (p + r) - f1) > 0.15:
                    far.setdefault(row["method"], {})[which] = f"{2 * p * r / (p + r):.1f} ({which})"
        noted = {}
        for n in published.all_notes():
            for name in n.at.get(table, {}).get("rows", ()) if n.name.endswith("f1") else ():
                noted[name] = n.said
        assert set(noted) == set(far) and all(words in noted[name] for name, of in far.items() for words in of.values())

    def test_afk_fig3_names_the_numbers_of_table_1(self):
        column = {"bus": "bus", "diningtable": "table", "horse": "horse"}
        for task, name in column.items():
            printed = published.row("afk_table1/TeacherRes50")[name]
            assert f"{task} {printed}" in said("afk-fig3-teachers") and printed != published.row(f"afk_fig3/{task}")["teacher_AP"]

    def test_dgan(self):
        row = published.row("dgan_table1/Data-free KA")
        assert row["mAP_printed"] == "73.6" == published.row("dgan_table4/1/1")["mAP"] and row["mAP_computed"] in said("dgan-mean")
        noise = published.row("dgan_table1/Random Noise")
        assert f"Person {noise['person']} and plane {noise['plane']} " in said("dgan-noise")
        positives, images = {"plane": 204, "person": 2007}, 4952
        for count, lowest in zip(positives.values(), ("2.1", "23.8"), strict=True):  # all positives behind all negatives, non-interpolated
            ap = 100 * np.mean([(k + 1) / (images - count + k + 1) for k in range(count)])
            assert f"{ap:.1f}" == lowest and lowest in said("dgan-noise")
        for where in (
            ("dgan_table2", "KA-ResNet", "mAP"),
            ("dgan_table2", "Data-free KA", "mAP"),
            ("dgan_table1", "TeacherNet", "mAP_printed"),
        ):
            assert f"{cell(*where):.1f}" in said("dgan-two-metrics")

    def test_customize(self):
        two = published.row("cust_table9/two-stage")
        target = {a: published.row(f"cust_table3/hair/{a}")["target"].rstrip("?") for a in ("Black_Hair", "Blond_Hair")}
        assert all(two[a] != target[a] and two[a] in said("cust-two-stage") and target[a] in said("cust-two-stage") for a in target)
        row = published.row("cust_table4/Component Nets")
        assert row["params_printed"].rstrip("M") in said("cust-components") and row["params_computed"].rstrip("M") in said(
            "cust-components"
        )

    def test_soka_says_what_is_printed(self):
        for name, column in (("soka-depth", "d1.25"), ("soka-edge-rmse", "rmse"), ("soka-edge-d3", "d1.25^3")):
            note = next(n for n in published.all_notes() if n.name == name)
            for table, place in note.at.items():
                (row,) = place["rows"]
                reference = {"soka_table1": {"depth-edge2d": "depth-edge2d/Depth", "edge2d-depth": "edge2d-depth/Edge2D"}}.get(
                    table, {}
                ).get(row, row)
                (head,) = place["columns"]
                assert head.endswith(column)
                printed = published.row(f"{table}/{reference}")[head]
                before, _, behind = note.said.partition(f" {printed} in table")
                assert behind and table[-1] in behind.partition(" and of ")[0].partition(".")[0], (name, table)
        kd, without = published.row("soka_table5/KD"), published.row("soka_table4/w/o auxiliary")
        for column in ("depth_rmse", "depth_rel", "edge_rmse"):
            assert kd[column] == without[column] and kd[column] in said("soka-kd")
        assert f"{kd['edge_d1.25']} in table 5 and {without['edge_d1.25']} in table 4" in said("soka-kd")
        assert kd["edge_d1.25^3"] == without["edge_d1.25^2"] == "0.5295" and "0.5295 stands under d1.25^3 in table 5" in said("soka-kd")
        assert sorted({c for r in published.table("soka_table3") if "?" in r.values() for c in [r["method"]]}) == ["dMTL"]
