"""Students of users who have no label at all (`data.test=none`): every run ends in a student, and claims nothing about the truth."""

import pytest

from amalgam_tf import data, evaluate, methods
from amalgam_tf.errors import UserError
from amalgam_tf.report import runs
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Student, Teacher
from configs import common
from tests.methods.helpers import afk_config, customize_config, few_maps, save_dense_pool, save_pool, soka_config

POOL = {"A": ("sphere", "box"), "B": ("cone",)}


def distill_config(teachers):
    config = common.distill("test", teachers)
    config.data = afk_config(teachers).data
    config.distill.epochs, config.distill.batch_size = 1.0, 8
    return config


@pytest.mark.parametrize("make", [lambda t: afk_config(t, curve=True), distill_config], ids=["afk", "distill"])
def test_a_student_without_labels_is_whole_and_says_what_is_not_known(make, tmp_path):
    config = make(save_pool(tmp_path / "pool", POOL))
    config.data.test = data.NO_TEST
    results = methods.run(config, tmp_path / "run")
    assert "test" not in results and "curve" not in results and not (tmp_path / "run" / "scores.npz").exists()
    assert [t.name for t in Student.load(tmp_path / "run").tasks] == ["sphere", "box", "cone"]
    said = (tmp_path / "run" / "report.md").read_text()
    divergence = results["held_out"]["after"]["cone@B"]["divergence"]
    assert "no labelled images" in said and f"{divergence:.4f}" in said
    with pytest.raises(UserError, match="measured on no test image: leave it out"):
        runs.read([str(tmp_path / "run")])


def test_a_component_without_labels_teaches(tmp_path):
    tasks = {"S": (Task("sphere", head="softmax2"), Task("cone", head="softmax2"))}
    config = customize_config(save_pool(tmp_path / "pool", tasks), "sphere", name="mine")
    config.data.test = data.NO_TEST
    results = methods.run(config, tmp_path / "run")
    assert "test" not in results and "measured" not in Teacher.load(tmp_path / "run", "mine").card
    assert "no labelled images" in (tmp_path / "run" / "report.md").read_text()


def test_such_a_student_is_measured_on_labels_given_later(tmp_path):
    config = afk_config(save_pool(tmp_path / "pool", POOL))
    config.data.test = data.NO_TEST
    methods.run(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"has no test part \(data.test=none\): give --split"):
        evaluate.saved(str(tmp_path / "run"), {})
    measured = evaluate.saved(str(tmp_path / "run"), {"test": "test"})
    assert set(measured["per_task"]) == {"sphere", "box", "cone"}


def test_teachers_and_maps_need_the_truth(tmp_path):
    taught = common.teacher("test", "T", ("sphere",), backbone="resnet8", input_size=16)
    taught.data = afk_config({}).data
    taught.data.test = data.NO_TEST
    with pytest.raises(UserError, match="data.test=none is for students of labels"):
        methods.run(taught, tmp_path / "taught")
    maps = soka_config(save_dense_pool(tmp_path / "maps", {"D": "depth_zbuffer", "N": "normal"}), "depth_zbuffer,normal")
    maps.data = few_maps(test=data.NO_TEST)
    with pytest.raises(UserError, match="data.test=none is for students of labels"):
        methods.run(maps, tmp_path / "student")
