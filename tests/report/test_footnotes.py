"""Footnotes of reports: marked where they belong, told once, in order of appearance."""

from amalgam_tf import published
from amalgam_tf.report.footnotes import Footnotes


def test_marks_and_lines():
    notes = Footnotes()
    assert notes.mark("afk_table1", "TargetRes50", "plane") == "" and notes.lines() == []
    assert notes.mark("afk_table3", "TargetRes50", "O-P") == "[^afk-top3]"
    assert notes.cell("afk_table1", "TargetRes50", "mAP_printed") == "[^afk-accuracy][^afk-best-of-blocks][^afk-means]"
    assert notes.mark("afk_table3", "TargetRes50", "O-R") == "[^afk-top3]"
    told = [line.partition("]:")[0] for line in notes.lines() if line]
    assert told == ["[^afk-top3", "[^afk-accuracy", "[^afk-best-of-blocks", "[^afk-means"]
    note = published.notes("afk_table3", "TargetRes50", "O-P")[0]
    assert notes.lines()[0] == f"[^afk-top3]: {note.said} (A18)"


def test_a_note_given_twice_is_marked_once():
    note = published.notes("dgan_table1", "Random Noise")
    assert Footnotes().of([*note, *note]) == "[^dgan-noise]"
