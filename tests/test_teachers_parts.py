"""Pools that offer parts of joint heads, and the entries of a config that a request needs."""

import keras
from ml_collections import ConfigDict
import pytest

from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.tasks import Task, entries, parse
from amalgam_tf.teachers import Pool, Teacher


def category(name: str, labels: str) -> Task:
    return Task(name, "category", tuple(labels), "softmax")


D1, D2 = category("D1", "abc"), category("D2", "de")


def teacher(name: str, *tasks: Task) -> Teacher:
    image = keras.Input((4, 4, 3))
    x = keras.layers.Dense(sum(t.outputs for t in tasks))(keras.layers.GlobalAveragePooling2D()(image))
    return Teacher(name, BlockNet({"head": keras.Model(image, x)}), tasks, Preprocessing.named("centred", 4))


class TestParts:
    def test_a_part_is_offered_by_whoever_knows_all_its_classes(self):
        pool = Pool([teacher("S1", category("D1+q", "cazb")), teacher("S2", category("D2+r", "dey")), teacher("S3", D1)], [D1, D2])
        assert [str(s) for s in pool.resolve(parse("D1"))] == ["D1@S1", "D1@S3"]
        assert [str(s) for s in pool.resolve(parse("D2"))] == ["D2@S2"]
        assert pool.resolve(parse("D1"))[0].task == D1
        assert pool.offers() == "S1: D1+q, D1; S2: D2+r, D2; S3: D1"

    def test_classes_that_are_missing(self):
        half = teacher("S1", category("D1+q", "caz"))
        assert not half.offers(D1) and half.offers(category("D9", "za"))
        with pytest.raises(UserError, match=r"no teacher offers D1; S1: D1\+q"):
            Pool([half], [D1]).resolve(parse("D1"))
        assert not teacher("S1", category("D1", "caz")).offers(D1)  # the same name, other classes

    def test_a_part_under_the_name_of_the_joint_head_takes_its_place(self):
        """Two source nets that call their joint heads alike agree on the half."""
        pool = Pool([teacher("S1", category("D1", "cazb")), teacher("S2", category("D1", "ybac"))], [D1])
        assert [(s.task, s.teacher) for s in pool.resolve(parse("D1"))] == [(D1, "S1"), (D1, "S2")]
        assert pool["S1"].rows([D1]) == [1, 3, 0] and pool["S2"].rows([D1]) == [2, 1, 3]

    def test_binary_tasks_are_no_parts(self):
        own = Task("a", head="softmax2")
        pool = Pool([teacher("S1", own, D1)], [Task("a"), Task("b")])
        assert [s.task for s in pool.resolve(parse("*"))] == [own, D1]

    def test_without_parts_a_pool_offers_what_its_teachers_are_called_for(self):
        with pytest.raises(UserError, match="no teacher offers D1"):
            Pool([teacher("S1", category("D1+q", "cazb"))]).resolve(parse("D1"))


class TestEntries:
    def config(self, tasks, **teachers):
        of = {n: {"path": n, "config": "", **({"tasks": t} if t is not None else {})} for n, t in teachers.items()}
        return ConfigDict({"tasks": tasks, "teachers": of})

    @pytest.mark.parametrize(
        ("tasks", "needed"),
        [
            ("smile", ["C1"]),
            ("smile,bangs", ["C1", "C2"]),
            ("*", ["C1", "C2", "C3"]),
            ("*@C2", ["C2"]),
            ("young@C2", ["C2"]),
            ("young", ["C2", "C3"]),
            ("young@C3,smile", ["C1", "C3"]),
        ],
    )
    def test_only_those_that_know_a_wanted_task(self, tasks, needed):
        assert list(entries(self.config(tasks, C1="smile", C2="young,bangs", C3=" young , hat"))) == needed

    def test_one_that_does_not_say_may_know_everything(self):
        assert list(entries(self.config("young", C1="smile", C2=None))) == ["C2"]

    def test_a_task_that_none_knows_lists_them_before_any_is_trained(self):
        with pytest.raises(UserError, match="^no teacher offers smlie; C1: smile; C2: bangs, young$"):
            entries(self.config("smile,smlie", C1="smile", C2="young,bangs"))
        with pytest.raises(UserError, match="no teacher offers smile@C9; C1: what its card says"):
            entries(self.config("smile@C9", C1=None))

    def test_a_teachers_own_config_has_none(self):
        assert entries(ConfigDict({"tasks": "smile"})) == {}
