"""Pixel-to-pixel teachers: loss over known pixels by hand, what is trained, refusals, plans, the teacher on disk."""

import json

import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import data, dense, evaluate
from amalgam_tf.data import codecs
from amalgam_tf.errors import UserError
from amalgam_tf.methods import dense_teacher
from amalgam_tf.models import encoder_decoder
from amalgam_tf.models.blocks import multiply_adds
from amalgam_tf.teachers import Teacher
from amalgam_tf.training.loop import Interrupted, Run
from configs import common_dense
from tests.methods import helpers
from tests.methods.helpers import MAP_SIZE, few_maps, interrupted


def config_of(task="normal", **changes):
    config = common_dense.teacher("test", task, input_size=MAP_SIZE, width=1 / 16, output_stride=8, epochs=2)
    config.data, config.batch_size = few_maps(), 6
    config.log_every_steps, config.save_every_steps = 1, 2
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@pytest.fixture
def small(monkeypatch):
    """The task bank's blocks with a convolution each, quick to trace."""
    monkeypatch.setattr(dense_teacher, "_network", lambda config, task, synchronized: helpers.dense_teacher("t", task.name, 0).net)


@pytest.mark.parametrize(("task", "error"), [("edge_occlusion", "rmse"), ("normal", "mean_deg")])
def test_a_teacher_no_better_than_the_mean_map_is_told(task, error):
    def note(taught):
        test = {who: {"per_task": {task: {error: value, "l1": 0.1}}} for who, value in (("teacher", taught), ("mean_map", 0.0838))}
        return dense_teacher.worse_than_mean_map(test, codecs.task(task))

    assert note(0.0837) == "" and note(None) == ""
    assert f"{task} has learned nothing of the image, its {error} is 0.091, that of the mean map 0.0838: train" in note(0.091)
    assert note(float("nan"))


def refused(message, call, *args):
    with pytest.raises(UserError, match=message) as caught:
        call(*args)
    assert "\n" not in str(caught.value)


class TestChoices:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model__backbone": "task_bnak"}, "unknown model.backbone 'task_bnak'"),
            ({"optimizer__name": "amad"}, "unknown optimizer.name 'amad'"),
            ({"optimizer__schedule": "ploy"}, "unknown optimizer.schedule 'ploy'"),
            ({"task": "depht_zbuffer"}, "no codec 'depht_zbuffer'.* 'depth_zbuffer'"),
            ({"task": "normal,edge_texture"}, "has one task, not normal,edge_texture: set --config.tasks=depth_zbuffer"),
            ({"task": "*"}, r"has one task, not \*"),
            ({"power": 3}, "power=3: the loss of maps .* power 1 or 2"),
            ({"task": "principal_curvature"}, "teacher ends in tanh and cannot learn true maps of principal_curvature.* convert the task"),
        ],
    )
    def test_found_before_anything_is_read(self, changes, message):
        refused(message, dense_teacher.check_choices, config_of(**changes))

    def test_a_task_the_data_do_not_have(self, tmp_path):
        config = config_of("reshading")
        with Run(tmp_path, config.to_dict()) as run:
            refused("no truth for reshading", dense_teacher.train, config, run)

    @pytest.mark.parametrize("task", ["depth_zbuffer", "normal"])
    def test_the_network_is_the_task_banks(self, task):
        net = dense_teacher.untrained(config_of(task), {}).net
        expected = encoder_decoder.task_bank(input_size=MAP_SIZE, channels=codecs.task(task).outputs, width=1 / 16, output_stride=8)
        assert net.shapes == expected.shapes and list(net.shapes) == ["b1", "b2", "b3", "b4", "code", "decoder"]


def phase_of(config, run, true=None):
    task = dense_teacher.task_of(config)
    parts = data.parts(config.data, [task.name])
    true = true or {name: dense.truth(part, [task], MAP_SIZE, None) for name, part in parts._asdict().items()}
    net = dense_teacher.build(config, run, task)
    return dense_teacher.training_phase(config, run, net, task, parts, true), net, true


class TestTraining:
    def masked(self, config):
        """Truth of which parts are unknown: of the first nine training images everything."""
        task, rng = dense_teacher.task_of(config), np.random.default_rng(0)
        parts, found = data.parts(config.data, [task.name]), {}
        for name, part in parts._asdict().items():
            whole = dense.truth(part, [task], MAP_SIZE, None)
            valid = rng.integers(0, 2, (len(part), MAP_SIZE, MAP_SIZE)).astype(np.uint8)
            codes = np.array(whole.codes[task.name])
            if name == "train":
                valid[:9], codes[:9] = 0, np.nan
            found[name] = dense.Truth({task.name: codes}, {task.name: valid})
        return found

    @pytest.mark.parametrize("power", [1, 2])
    def test_loss_is_the_mean_difference_over_known_pixels(self, small, tmp_path, power):
        config = config_of(power=power)
        with Run(tmp_path, {}) as run:
            phase, net, true = phase_of(config, run, self.masked(config))
        batch = dict(next(iter(phase.data.dataset(0, 1))))
        (update,), each = phase.updates, []
        written = net.run(dense_teacher.preprocessing(config)(batch["images"]), training=True).numpy()
        for map_, index, view in zip(written, batch["index"].numpy(), batch["view"].numpy(), strict=True):
            code, valid = true["train"].codes["normal"][index], true["train"].valid["normal"][index]
            if view:
                code, valid = code[:, ::-1] * [-1, 1, 1], valid[:, ::-1]
            each.append((np.abs(map_ - code) ** power)[valid > 0].mean() if valid.any() else 0.0)
        assert 0 < each.count(0.0) < 6 and set(batch["view"].numpy()) == {0, 1}
        with tf.GradientTape() as tape:
            loss, _ = update.loss(batch)
        assert float(loss) == pytest.approx(np.mean(each), rel=1e-5)
        assert all(np.all(np.isfinite(g)) for g in tape.gradient(loss, [v.value for v in update.trains]))
        rows = true["held_out"]
        images = tf.constant(data.parts(config.data, ["normal"]).held_out.images, tf.float32)
        off = np.abs(net.run(dense_teacher.preprocessing(config)(images)).numpy() - rows.codes["normal"]) ** power
        expected = np.mean([o[v > 0].mean() for o, v in zip(off, rows.valid["normal"], strict=True)])
        assert phase.validate() == {"loss": pytest.approx(expected, rel=1e-4)} and phase.keep_best == "loss"

    def test_everything_is_trained_and_interrupted_equals_uninterrupted(self, small, tmp_path):
        config, ends, rows = config_of(), [], []
        for name, after in (("whole", None), ("parts", 3), ("parts", None)):
            with Run(tmp_path / name, config.to_dict()) as run:
                phase, net, _ = phase_of(config, run)
                assert phase.steps == 6 and phase.validate_every_steps == 3
                object.__setattr__(phase, "keep_best", None)  # the best weights may be the start's
                run.track(net.named_variables("teacher"))
                before = [v.numpy() for v in net.variables()]
                if after:
                    interrupted(phase.data, after)
                    with pytest.raises(Interrupted):
                        run.phase(phase)
                    continue
                run.phase(phase)
            assert not any(np.array_equal(a, v) for a, v in zip(before, net.variables(), strict=True))
            assert {id(v) for v in phase.variables} == {id(v) for v in net.variables()}
            ends.append([v.numpy() for v in net.variables()])
            rows.append((tmp_path / name / "metrics.jsonl").read_text())
        assert all(np.array_equal(a, b) for a, b in zip(*ends, strict=True)) and rows[0] == rows[1]

    def test_settling_goes_on_with_stored_statistics_and_one_schedule(self, small, tmp_path, monkeypatch):
        seen, original = {}, Run.phase

        def watched(run, phase):
            before = {k: v.numpy() for k, v in run.checkpoints.variables.items()}
            best, rate = phase.keep_best, phase.updates[0].optimizer
            object.__setattr__(phase, "keep_best", None)  # the best weights may be the start's
            original(run, phase)
            changed = {k for k, v in before.items() if not np.array_equal(v, run.checkpoints.variables[k].numpy())}
            seen[phase.name] = (
                best,
                phase.steps,
                (rate["begin_step"], rate["all_steps"]),
                any("moving" in k for k in changed),
                len(changed),
            )
            if best:
                run.decide(f"best/{phase.name}", lambda: {"step": 0})

        monkeypatch.setattr(Run, "phase", watched)
        config = config_of(settle_epochs=1.0)
        with Run(tmp_path, config.to_dict()) as run:
            dense_teacher.train(config, run)
        (train, settle), steps = seen.values(), seen["train"][1]
        assert list(seen) == ["train", "settle"] and settle[1] == steps // 2
        assert train[:4] == (None, steps, (0, steps + settle[1]), True) and settle[4] > 0
        assert settle[:4] == ("loss", settle[1], (steps, steps + settle[1]), False)

    def test_teacher_on_disk(self, small, tmp_path):
        config = config_of(epochs=1.0, licence="free")
        with Run(tmp_path, config.to_dict()) as run:
            results = dense_teacher.train(config, run)
        json.dumps(results, allow_nan=False)
        assert results["tasks"] == ["normal"] and set(results["test"]) == {"data", "images", "teacher", *dense.TRIVIAL}
        loaded = Teacher.load(tmp_path, "N")
        assert loaded.tasks == (codecs.task("normal"),) and loaded.card["licence"] == "free"
        model = {"backbone": "task_bank", "input_size": MAP_SIZE, "width": 1 / 16, "output_stride": 8}
        assert loaded.card["backbone"].items() >= model.items()
        assert (
            loaded.card["measured"]["teacher"] == results["test"]["teacher"]
            and loaded.card["data"]["images"] == results["train"]["images"] == 19
        )
        again = evaluate.saved(tmp_path, {})["per_task"]["normal"]
        assert again == pytest.approx(results["test"]["teacher"]["per_task"]["normal"], rel=1e-6)
        assert results["best"]["steps"] == 3 and results["sizes"]["teacher"]["parameters"] == loaded.net.parameters()

    def test_plan(self, small):
        config = config_of(flip=False)
        made, net = dense_teacher.plan(config, {}), dense_teacher.untrained(config, {}).net
        one = sum(multiply_adds(net.block(n)) for n in net.names)
        assert [(line.name, line.steps) for line in made.lines] == [("train", 6), ("test", 0)]
        assert [line.work for line in made.lines] == pytest.approx([(3 * 6 * 6 + 2 * 5) * one, 12 * one])  # 5 held-out images
        assert made.caches == pytest.approx(36 * MAP_SIZE**2 * (3 + 1 + 4 * 3))
