"""The class groupings that come with the package, and reading others."""

from importlib import resources
import json
from pathlib import Path
import random
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from amalgam_tf import published
from amalgam_tf.data import fine_grained, splits
from amalgam_tf.data.voc import CLASSES
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import is_name


@pytest.mark.parametrize("name", splits.names())
def test_every_file_says_where_it_comes_from_and_names_known_classes(name):
    data = json.loads((resources.files(splits) / f"{name}.json").read_text())
    assert set(data) in ({"source", "note", "groups"}, {"source", "command", "groups"})
    groups = splits.load_groups(name)
    assert {g: list(c) for g, c in groups.items()} == data["groups"]
    classes = {c for group in groups.values() for c in group}
    # COCO's names are held against its own file in test_coco.py
    family = name.split("_")[0]
    vocabulary = {"voc": CLASSES, "voc2012": CLASSES}.get(family, classes)
    assert classes <= set(vocabulary)
    # classes of a category task are labels and no tasks' names; neither may hold the comma that separates them in configs
    assert all("," not in c and c == c.strip() if family in fine_grained.SETS else is_name(c) for c in classes)


def test_ke_groups_are_the_twenty_classes_and_fit_figure_3():
    groups = splits.load_groups("voc_ke")
    assert [len(g) for g in groups.values()] == [10, 10] and set().union(*groups.values()) == set(CLASSES)
    assert "bus" in groups["teacher1"] and "diningtable" in groups["teacher2"]


def test_swapped_groups_differ_from_ke_by_dog_and_horse():
    ke, swapped = splits.load_groups("voc_ke"), splits.load_groups("voc_ke_dog_horse_swapped")
    for group, gone, come in (("teacher1", "horse", "dog"), ("teacher2", "dog", "horse")):
        assert set(swapped[group]) == set(ke[group]) - {gone} | {come}


def test_three_teachers_alphabetical():
    assert splits.load_groups("voc_three_alphabetical") == {"teacher1": CLASSES[:7], "teacher2": CLASSES[7:14], "teacher3": CLASSES[14:]}


def test_animals():
    assert splits.load_groups("voc2012_part_animals") == {
        "teacher1": ("cat", "cow", "person", "chair"),
        "teacher2": ("dog", "horse", "sheep", "sofa"),
    }


def test_coco_halves():
    first, second = splits.load_groups("coco_halves").values()
    assert (len(first), len(second), len({*first, *second})) == (40, 40, 80)
    # category ids 1, 10, 44 and 46, 72, 90
    assert (first[0], first[9], first[-1]) == ("person", "traffic_light", "bottle")
    assert (second[0], second[22], second[-1]) == ("wine_glass", "tv", "toothbrush")
    assert set(CLASSES) - {"aeroplane", "diningtable", "motorbike", "pottedplant", "sofa", "tvmonitor"} <= {*first, *second}


@pytest.mark.parametrize(("source", "letter", "count"), [("dogs", "D", 120), ("cub", "B", 200), ("aircraft", "A", 100), ("cars", "C", 196)])
def test_halves_and_quarters_of_customize(source, letter, count):
    """C10: each a partition of all classes, halves and quarters drawn apart, and what the file's own recipe draws."""
    halves, quarters = splits.load_groups(f"{source}_halves"), splits.load_groups(f"{source}_quarters")
    assert list(halves) == [f"{letter}1", f"{letter}2"] and list(quarters) == [f"{letter}q{i}" for i in range(1, 5)]
    classes = sorted(c for group in halves.values() for c in group)
    assert classes == sorted(c for group in quarters.values() for c in group) and len(set(classes)) == len(classes) == count
    for groups, parts, seed in ((halves, 2, 0), (quarters, 4, 1)):
        drawn = list(classes)
        random.Random(seed).shuffle(drawn)
        size = count // parts
        assert [sorted(g) for g in groups.values()] == [sorted(drawn[i * size : (i + 1) * size]) for i in range(parts)]
    assert all(0 < len(set(h) & set(q)) < len(q) for h in halves.values() for q in quarters.values())


def test_halves_and_quarters_of_cifar10():
    """As the files' own recipes draw them; a quarter is a part of one half, so that it can be auxiliary to the other."""
    halves, quarters = splits.load_groups("cifar10_halves"), splits.load_groups("cifar10_quarters")
    drawn = sorted(c for half in halves.values() for c in half)
    random.Random(0).shuffle(drawn)
    assert halves == {"X1": tuple(sorted(drawn[:5])), "X2": tuple(sorted(drawn[5:]))} and len(set(drawn)) == 10
    again = random.Random(1)
    for name, half in halves.items():
        order = list(half)
        again.shuffle(order)
        assert (quarters[f"{name}a"], quarters[f"{name}b"]) == (tuple(sorted(order[:3])), tuple(sorted(order[3:])))


def test_table_6_can_be_asked_for():
    wishes = [cell.replace("'", "q") for row in published.table("cust_table6_sources") for key, cell in row.items() if key != "dataset"]
    known = fine_grained.groups(fine_grained.SETS)
    assert len(wishes) == 16 and set("+".join(wishes).split("+")) == set(known)


def test_own_file_by_path_or_text(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"groups": {"b": ["x", "y"], "a": ["z"]}}')
    assert splits.load_groups(file) == splits.load_groups(str(file)) == {"b": ("x", "y"), "a": ("z",)}
    assert list(splits.load_groups(file)) == ["b", "a"]


def test_unknown_name_lists_the_names():
    with pytest.raises(UserError, match="'voc_kee': did you mean 'voc_ke'.*voc_three_alphabetical"):
        splits.load_groups("voc_kee")
    with pytest.raises(UserError, match="nowhere.json does not exist"):
        splits.load_groups("nowhere.json")
    with pytest.raises(UserError, match="no class grouping"):
        splits.load_groups("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", 'needs a key "groups"'),
        ("{}", 'needs a key "groups"'),
        ('{"groups": {}}', 'needs a key "groups"'),
        ('{"groups": [["a"]]}', 'needs a key "groups"'),
        ('{"groups": {"a": "dog"}}', "group 'a': write a list"),
        ('{"groups": {"a": []}}', "group 'a': write a list"),
        ('{"groups": {"a": ["dog", 1]}}', "group 'a': write a list"),
        ('{"groups": {"a": ["dog"], "b": ["cat", "dog"]}}', "'dog' stands in 'a' and in 'b'"),
        ('{"groups": {"a": ["dog", "dog"]}}', "'dog' stands in 'a' and in 'a'"),
        ('{"groups": {"a": ["dog"], "a": ["cat"]}}', "'a' stands there twice"),
    ],
)
def test_malformed(tmp_path, text, message):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(UserError, match=f"mine.json.*{message}"):
        splits.load_groups(tmp_path / "mine.json")


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_file_gives_groups_or_a_user_error(data):
    content = bytearray((resources.files(splits) / "voc2012_part_animals.json").read_bytes())
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[place] = byte
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "mine.json"
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            groups = splits.load_groups(path)
        except UserError as error:
            assert str(error)
        else:
            assert all(isinstance(c, str) for group in groups.values() for c in group)
