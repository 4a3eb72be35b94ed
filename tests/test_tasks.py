"""Tasks and the list a user asks for."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
import pytest

from amalgam_tf.errors import UserError
from amalgam_tf.tasks import EVERYTHING, HEADS, Task, Wanted, parse

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", fullmatch=True)
WANTED = st.builds(Wanted, st.one_of(NAMES, st.just(EVERYTHING)), st.one_of(st.none(), NAMES))


def refused(message: str, call, *arguments, **options):
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


class TestTask:
    def test_defaults_are_one_binary_sigmoid(self):
        task = Task("dog")
        assert (task.kind, task.head, task.labels, task.codec, task.outputs) == ("binary", "sigmoid", (), "", 1)

    @pytest.mark.parametrize(
        ("kind", "head", "labels", "outputs"),
        [
            ("binary", "sigmoid", (), 1),
            ("binary", "softmax2", (), 2),
            ("category", "softmax", ("a", "b"), 2),
            ("dense", "dense", ("x",), 1),
        ],
    )
    def test_outputs_by_head(self, kind, head, labels, outputs):
        task = Task("t", kind, labels, head)
        assert task.outputs == outputs
        assert Task.from_json(task.to_json()) == task

    def test_every_other_pair_of_kind_and_head_is_refused(self):
        for head, fitting in HEADS.items():
            for kind in {*HEADS.values(), "other"} - {fitting}:
                refused("does not fit kind", Task, "t", kind, () if kind == "binary" else ("a",), head)
        refused("head 'relu' does not fit", Task, "t", head="relu")

    def test_labels_and_kind_must_agree(self):
        refused("a binary task has no labels", Task, "t", labels=("a",))
        refused("names each of its classes", Task, "t", "category", (), "softmax")
        refused("names each of its classes", Task, "t", "dense", (), "dense")

    @pytest.mark.parametrize("name", ["", " dog", "dog ", "a b", "a,b", "a@b", "*", "a/b", "-a", "_a", "é", "dog\n"])
    def test_names_that_cannot_be_typed_are_refused(self, name):
        refused("is not usable", Task, name)

    def test_labels_from_json_are_hashable(self):
        task = Task.from_json({"name": "kind", "kind": "category", "labels": ["a", "b"], "head": "softmax", "codec": ""})
        assert task.labels == ("a", "b")
        assert hash(task) == hash(Task("kind", "category", ("a", "b"), "softmax"))


class TestPart:
    JOINT = Task("kind", "category", ("poodle", "husky", "pug", "robin"), "softmax")

    def test_the_labels_asked_for_in_their_order(self):
        part = self.JOINT.part(["pug", "poodle"])
        assert part == Task("kind", "category", ("pug", "poodle"), "softmax") and part.outputs == 2
        assert self.JOINT.part(self.JOINT.labels) == self.JOINT and Task("dog").part([]) == Task("dog")
        assert self.JOINT.part(x for x in ("husky",)).labels == ("husky",)

    def test_what_is_no_part(self):
        refused("task 'kind' has no label 'podle': did you mean 'poodle'", self.JOINT.part, ["husky", "podle"])
        refused("task 'dog' has no label 'poodle'", Task("dog").part, ["poodle"])
        refused("a label twice .pug, pug.: give each once", self.JOINT.part, ["pug", "pug"])
        refused("names each of its classes", self.JOINT.part, [])


class TestParse:
    def test_the_forms_of_the_design(self):
        assert parse("bus,diningtable", "dog@teacher2") == (("bus", None), ("diningtable", None), ("dog", "teacher2"))
        assert parse("*") == (Wanted("*"),)
        assert parse("*@teacher1", ["a", "b,c@t"]) == (Wanted("*", "teacher1"), Wanted("a"), Wanted("b"), Wanted("c", "t"))

    def test_spaces_and_empty_pieces_do_not_matter_and_repetitions_go(self):
        assert parse(" a , ,b,,a ,a@t") == (Wanted("a"), Wanted("b"), Wanted("a", "t"))

    @pytest.mark.parametrize("text", ["a@", "@t", "a@b@c", "a@*", "**", "a b", "a;b", "a@ t", "*a", "a\tb"])
    def test_what_cannot_be_read_is_quoted(self, text):
        refused(re.escape(f"cannot read {text!r}"), parse, f"good,{text}")

    @pytest.mark.parametrize("texts", [(), ("",), (" , ",), ([],), ([""],)])
    def test_nothing_asked_for(self, texts):
        refused("the task list is empty", parse, *texts)

    @settings(deadline=None)
    @given(st.lists(WANTED, min_size=1))
    def test_round_trip(self, wanted):
        distinct = tuple(dict.fromkeys(wanted))
        assert parse(",".join(map(str, wanted))) == distinct
        assert parse(*map(str, wanted)) == distinct
        assert parse(list(map(str, wanted))) == distinct

    @settings(deadline=None)
    @given(st.one_of(st.text(), st.text(alphabet="ab,@* -.\n")))
    @example("a@\n")
    def test_any_text_gives_entries_or_one_sentence(self, text):
        try:
            wanted = parse(text)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            return
        assert wanted
        assert len(set(wanted)) == len(wanted)
        for entry in wanted:
            Task(entry.task.replace(EVERYTHING, "all"))  # every name a task could have
            assert str(entry) in text.replace(" ", "")
            assert parse(str(entry)) == (entry,)
