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
