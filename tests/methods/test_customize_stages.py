"""Customize from source nets over components to targets: cards, pools, joint heads, unlike teachers, plans, exports."""

import json

import keras
from keras import layers
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, choice, data, evaluate, export, losses, methods
from amalgam_tf.data.examples import IGNORE, Examples
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.methods import customize
from amalgam_tf.models.blocks import BlockNet, policies
from amalgam_tf.models.taps import TappedNet
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Student, Teacher
from amalgam_tf.training import state
from amalgam_tf.training.loop import Interrupted, Run
from tests.methods.helpers import SIZE, customize_config, interrupted, save_pool, teacher

SPHERE, BOX, CONE = (Task(name, head="softmax2") for name in ("sphere", "box", "cone"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return save_pool(tmp_path_factory.mktemp("sources"), {"S1": (SPHERE, CONE), "S2": (BOX, SPHERE)})


@pytest.fixture(scope="module")
def component(sources, tmp_path_factory):
    """(workdir, results) of a component net for one task of two source nets."""
    folder, config = tmp_path_factory.mktemp("component") / "sphere", customize_config(sources, "sphere", name="sphere_net")
    with Run(folder, config.to_dict()) as run:
        return folder, customize.train(config, run)


@pytest.fixture(scope="module")
def components(component, tmp_path_factory):
    """The pool of a target: that component, and a random one."""
    return {"CS": {"path": str(component[0]), "config": ""}, **save_pool(tmp_path_factory.mktemp("components"), {"CB": (BOX,)})}


def target_config(components, **changes):
    return customize_config(components, "sphere,box", "target", student__width=0.75, save_every_steps=2, log_every_steps=1, **changes)


@pytest.fixture(scope="module")
def target(components, tmp_path_factory):
    """(workdir, results, names of what its phase changed, names of what it declared)."""
    folder, seen, original = tmp_path_factory.mktemp("target") / "run", [], Run.phase

    def watched(run, phase):
        before = {k: v.numpy() for k, v in run.checkpoints.variables.items()}
        declared = {k for k, v in run.checkpoints.variables.items() if any(v is d for d in phase.variables)}
        original(run, phase)
        seen.extend([{k for k, v in before.items() if not np.array_equal(v, run.checkpoints.variables[k].numpy())}, declared])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "phase", watched)
        return folder, methods.run(target_config(components), folder), *seen


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class TestComponent:
    def test_is_a_teacher_with_a_card(self, component):
        folder, results = component
        loaded = Teacher.load(folder, "CS")
        assert loaded.tasks == (SPHERE,) and loaded.card["name"] == "sphere_net" and loaded.net.names == ("b1", "b2", "b3", "head")
        assert loaded.card["backbone"] == {"backbone": "resnet8", "input_size": SIZE, "width": 0.5, "granularity": "stage"}
        assert set(loaded.card["teachers"]) == {"S1", "S2"}
        measured = evaluate.saved(folder, {})
        assert measured["per_task"] == results["test"]["student"]["per_task"] == loaded.card["measured"]["teacher"]["per_task"]
        assert {"majority_rate", "balanced_accuracy"} <= set(measured["per_task"]["sphere"])  # C14

    def test_results_say_who_was_followed(self, component):
        folder, results = component
        json.dumps(results, allow_nan=False)
        assert set(results["selection"]) == {"sphere@S1", "sphere@S2"} and results["stage"] == "component"
        assert sum(v["share"] for v in results["selection"].values()) == pytest.approx(1)
        assert results["teachers"] == {"S1": ["sphere"], "S2": ["sphere"]}
        assert any("regulariser" in row for row in rows_of(folder))

    def test_bfloat16(self, sources, tmp_path):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            config = customize_config(sources, "sphere", precision="mixed_bfloat16", log_every_steps=1, train__epochs=1.0)
            setting = amalgamation.prepare(config)
            with Run(tmp_path, config.to_dict()) as run:
                student = customize.amalgamate(setting, run)
        finally:
            keras.config.set_dtype_policy("float32")
        assert policies(student.trunk) == {"mixed_bfloat16"}
        assert student.run(tf.zeros((1, SIZE, SIZE, 3)))["sphere"].dtype == tf.float32
        values = [v for row in rows_of(tmp_path) for k, v in row.items() if k not in ("phase", "step", "total")]
        assert len(values) > 20 and np.all(np.isfinite(values))


class TestTarget:
    def test_trains_student_bridges_and_scales_and_nothing_else(self, target, component):
        folder, results, changed, declared = target
        assert results["best"]["step"] > 0  # or nothing would have changed
        assert changed == declared and {k.partition("/")[0] for k in changed} == {"student", "bridge", "scale"}
        assert Teacher.load(component[0]).card["sha256"] == Student.load(folder).card["teachers"]["CS"]

    def test_components_pass_unchanged_and_nothing_is_regularised(self, target, components, tmp_path):
        """C2, C3: without a convolution on the components' side, and so without eq. 4."""
        rows = rows_of(target[0])
        assert not any("regulariser" in row for row in rows) and any("transfer/stem" in row for row in rows)
        assert not any(k.startswith("bridge/") and "/teacher/" in k for k in target[2])
        setting = amalgamation.prepare(target_config(components, bridge__regularise="both"))
        with Run(tmp_path, {}) as run:
            parts = customize.start(setting, run)
        for name, of in parts.bridges.items():
            assert [b.kernel.shape[2:] for b in of.student.values()] == [(12, 8), (12, 8), (24, 16), (48, 32)]
            assert all(b.kernel is None and not b.variables for b in of.teacher.values())
            assert of.regularised("teacher") == [] and len(of.regularised("both")) == 4, name

    def test_every_component_teaches_its_own_task_on_every_image(self, target):
        """C6, our deviation."""
        assert {k: v["share"] for k, v in target[1]["selection"].items()} == {"sphere@CS": 1.0, "box@CB": 1.0}

    def test_one_component_an_image_as_printed(self, components, tmp_path):
        setting = amalgamation.prepare(target_config(components, select="image"))
        told = customize.selected_on_held_out(setting)
        assert sum(v["share"] for v in told.values()) == pytest.approx(1) and 0 < told["box@CB"]["share"] < 1

    def test_student_on_disk_and_report(self, target):
        folder, results, *_ = target
        student = Student.load(folder)
        assert [t.name for t in student.tasks] == ["sphere", "box"] and not (folder / "teacher").exists()
        assert student.model.count_params() == results["sizes"]["student"]["parameters"]
        text = (folder / "report.md").read_text()
        assert "| sphere@CS" in text and "(figures/transfer_losses.png)" in text

    def test_interrupted_run_equals_uninterrupted_bit_for_bit(self, target, components, tmp_path, monkeypatch):
        config, original = target_config(components), customize.transfer_phase

        def cut_short(*args):
            phase = original(*args)
            interrupted(phase.data, 5)
            return phase

        setting = amalgamation.prepare(config)
        with monkeypatch.context() as patch, pytest.raises(Interrupted), Run(tmp_path, config.to_dict()) as run:
            patch.setattr(customize, "transfer_phase", cut_short)
            customize.amalgamate(setting, run)
        with Run(tmp_path, config.to_dict()) as run:
            student = customize.amalgamate(setting, run)
            assert run.decided("selection") == target[1]["selection"] and run.decided("best/transfer") == target[1]["best"]
        assert rows_of(tmp_path) == rows_of(target[0])
        for mine, theirs in zip(student.as_model().weights, Student.load(target[0]).model.weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_exports_equal_keras(component, target, tmp_path):
    assert export.write(Teacher.load(component[0]), tmp_path / "component") < 1e-5
    assert export.write(Student.load(target[0]), tmp_path / "target") < 1e-5
    images = tf.constant(np.random.default_rng(1).integers(0, 255, (3, SIZE, SIZE, 3)), tf.float32)  # whole: resizing rounds
    served = tf.saved_model.load(str(tmp_path / "target")).signatures["serve"](images=images)
    for name, logits in Student.load(target[0]).outputs(images).items():
        np.testing.assert_allclose(served[name], tf.nn.softmax(logits)[:, 1], atol=1e-5)


SHARED_CONFIGS = """
from configs import common
from tests.methods.helpers import SIZE, customize_config, few_scenes

SOURCES = {"S1": "sphere,cone", "S2": "box,sphere", "S3": "box", "S4": "torus"}
COMPONENTS = {"sphere": ("S1", "S2"), "box": ("S2", "S3"), "torus": ("S4",)}


def get_config(name=""):
    if name in SOURCES:
        config = common.teacher("t", name, SOURCES[name].split(","), backbone="resnet8", input_size=SIZE)
        config.model.width = 0.5
        return config
    if name in COMPONENTS:
        own = {n: {"part": n[1], "part_count": 4} for n in COMPONENTS[name]}
        entries = {n: {"path": "{workdir}/../../sources/" + n, "config": f"FILE:{n}", "data": data} for n, data in own.items()}
        return customize_config(entries, name, name=name)
    entries = {n: {"path": "{workdir}/../components/" + n, "config": f"FILE:{n}", "tasks": n} for n in COMPONENTS}
    return customize_config(entries, "sphere,box", "target")
"""
NEEDED = ["sources/S2", "sources/S3", "components/box", "sources/S1", "components/sphere"]  # a config lists its teachers by name


@pytest.fixture
def shared(tmp_path):
    """The config of a target whose components share a source net; nothing is trained yet."""
    file = tmp_path / "shared.py"
    file.write_text(SHARED_CONFIGS.replace("FILE", str(file)))
    return methods.load_config(str(file))


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The runs that were asked for, in order; each leaves a random teacher instead of training."""
    asked = []

    def fake(config, workdir, *_):
        asked.append((workdir.relative_to(tmp_path).as_posix(), config))
        tasks = tuple(Task(name, head="softmax2") for name in config.tasks.split(","))
        teacher(workdir.name, tasks, seed=len(asked)).save(workdir / "teacher")

    monkeypatch.setattr(methods, "_run_one", fake)
    return asked


class TestMissing:
    def test_all_components_that_are_needed_and_their_sources_once_each(self, shared, made, tmp_path):
        """Peers' fault 5: only the fourth component was ever trained; fault 7: kept in one folder, sought in another."""
        shared.seed = 3
        methods.train_missing_teachers(shared, tmp_path / "target", "one")
        assert [folder for folder, _ in made] == NEEDED
        assert {c.seed for _, c in made} == {3}
        assert [c.data.part for f, c in made if f.startswith("sources")] == ["2", "3", "1"]  # an entry's own data
        assert all(c.data.binary_head == "softmax2" for _, c in made)  # the target's data

    def test_a_second_target_over_the_same_components_trains_none(self, shared, made, tmp_path):
        methods.train_missing_teachers(shared, tmp_path / "target", "one")
        made.clear()
        shared.select = "image"
        methods.train_missing_teachers(shared, tmp_path / "another", "one")
        assert made == []
        shared.tasks = "sphere,torus"
        methods.train_missing_teachers(shared, tmp_path / "third", "one")
        assert [folder for folder, _ in made] == ["sources/S4", "components/torus"]
        setting = amalgamation.prepare(shared, tmp_path / "third")
        assert [str(s) for s in setting.streams] == ["sphere@sphere", "torus@torus"]

    def test_only_what_the_request_needs(self, shared, made, tmp_path):
        shared.tasks = "box"
        methods.train_missing_teachers(shared, tmp_path / "target", "one")
        assert [folder for folder, _ in made] == ["sources/S2", "sources/S3", "components/box"]

    def test_plan_lists_everything_once_and_trains_nothing(self, shared, made, tmp_path):
        plans = methods.plan(shared, tmp_path / "target")
        assert [p.relative_to(tmp_path).as_posix() for p in plans] == [*NEEDED, "target"] and made == []
        assert [line.name for line in plans[tmp_path / "target"].lines] == ["teachers' outputs", "transfer", "test"]

    def test_untrained_component_is_the_one_that_is_trained(self, component, sources):
        config = customize_config(sources, "sphere", name="sphere_net")
        pool = {n: Teacher.load(e["path"], n) for n, e in sources.items()}
        made = customize.untrained(config, pool)
        trained = Teacher.load(component[0])
        assert made.tasks == trained.tasks and made.net.shapes == trained.net.shapes
        one = customize.plan(config, pool).work
        config.select = "all"
        assert customize.plan(config, pool).work > one  # both teachers run on every image


class TestJointHeads:
    """C7: category source nets with one softmax over a main half and an auxiliary quarter."""

    CLASSES = ("a", "b", "c", "d", "e")

    @pytest.fixture
    def config(self, monkeypatch, tmp_path):
        def halves(options, split):
            rng = np.random.default_rng(len(split))
            classes = np.arange(30) % 5
            labels = {"X1": np.where(classes < 3, classes, IGNORE), "X2": np.where(classes >= 3, classes - 3, IGNORE)}
            tasks = tuple(Task(n, "category", of, "softmax") for n, of in (("X1", self.CLASSES[:3]), ("X2", self.CLASSES[3:])))
            ids, pixels = tuple(f"{split}{i}" for i in range(30)), rng.integers(0, 255, (30, SIZE, SIZE, 3), np.uint8)
            return Examples(f"halves/{split}", ids, pixels, tasks, {k: v.astype(np.int32) for k, v in labels.items()})

        monkeypatch.setitem(data.READERS, "halves", halves)
        joint = {"S1": ("X1+q", "cazb"), "S2": ("X1", "ybca")}  # the second calls its joint head like the half
        tasks = {n: (Task(name, "category", tuple(labels), "softmax"),) for n, (name, labels) in joint.items()}
        entries = save_pool(tmp_path / "pool", tasks)
        sure = Teacher.load(tmp_path / "pool" / "S1")
        sure.net.block("head").get_layer("logits").bias.assign([0, 0, 50, 0])  # of z
        sure.save(tmp_path / "pool" / "S1")
        config = customize_config(entries, "X1")
        config.data.update({"reader": "halves", "groups": "X1,X2", "binary_head": ""})
        return config

    def test_the_wanted_half_of_each_head_in_the_wanted_order(self, config, tmp_path):
        setting = amalgamation.prepare(config)
        assert [str(s) for s in setting.streams] == ["X1@S1", "X1@S2"] and setting.tasks[0].labels == ("a", "b", "c")
        pixels, targets, whole = tf.constant(setting.images.pixels["held_out"], tf.float32), {}, {}
        for name, columns in (("S1", [1, 3, 0]), ("S2", [3, 1, 2])):
            logits = setting.teacher(name).logits(pixels).numpy()
            targets[f"X1@{name}"], whole[name] = logits[:, columns], logits
            np.testing.assert_allclose(setting.targets["held_out"][f"X1@{name}"][0], logits[:, columns], rtol=1e-4, atol=1e-5)
        share = customize.shares(setting.streams, {k: tf.constant(v) for k, v in targets.items()}, "task")
        by_half, by_whole = ([choice.entropy(v, "softmax").numpy() for v in of.values()] for of in (targets, whole))
        np.testing.assert_array_equal(share["X1@S2"], np.argmin(by_half, 0))
        assert np.all(np.argmin(by_whole, 0) == 0) and np.any(np.argmin(by_half, 0) == 1)  # S1 is surest, but of an auxiliary class

    def test_images_of_the_other_half_have_no_truth(self, config, tmp_path):
        setting = amalgamation.prepare(config)
        assert (setting.images.test.labels["X1"] == IGNORE).sum() == 12
        with Run(tmp_path / "run", {}) as run:
            student = customize.start(setting, run).student
        scores = amalgamation.student_on_test(setting, student)
        measured = evaluate.measure(scores, setting.tasks, setting.images.test)["per_task"]["X1"]
        known = setting.images.test.labels["X1"] != IGNORE
        right = np.argmax(scores["X1"][known], 1) == setting.images.test.labels["X1"][known]
        assert measured["n"] == 18 and measured["accuracy"] == pytest.approx(right.mean())
        assert measured["majority_rate"] == pytest.approx(1 / 3)


def foreign(name: str, stages: int = 3, size: int | None = SIZE) -> Teacher:
    """Somebody else's net: other widths and resolutions, blocks called conv_1, conv_2, ..., no batch norm."""
    keras.utils.set_random_seed(5)
    x = image = keras.Input((size, size, 3))
    for i in range(1, stages + 1):
        x = layers.Conv2D(5 + 2 * i, 3, 2, "same", activation="relu", name=f"conv_{i}")(x)
    x = layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x))
    net = BlockNet.cut(keras.Model(image, x, name=name), [f"conv_{i}" for i in range(1, stages + 1)])
    return Teacher(name, net, (SPHERE,), Preprocessing.named("unit", SIZE))


class TestUnlikeTeachers:
    MINE = {"stem": (16, 16, 8), "b1": (16, 16, 8), "b2": (8, 8, 16), "b3": (4, 4, 32)}

    def bridges_to(self, t: Teacher, folder, **changes):
        options = customize_config({}, "sphere", **changes).bridge
        with Run(folder, {}) as run:
            return customize.start_bridges(options, t.name, self.MINE, TappedNet(customize.in_stages(t.net)).shapes, run)

    def test_three_architectures_teach_one_component(self, tmp_path):
        entries = save_pool(tmp_path, {"A": (SPHERE,)})
        for t in (teacher("B", (CONE, SPHERE), 7, granularity="unit", normalise="caffe", backbone="resnet14", width=1.0), foreign("F")):
            t.save(tmp_path / t.name)
            entries[t.name] = {"path": str(tmp_path / t.name), "config": ""}
        setting = amalgamation.prepare(customize_config(entries, "sphere"))
        with Run(tmp_path / "run", {}) as run:
            parts = customize.start(setting, run)
            phase = customize.transfer_phase(setting, parts, run)
        batch = dict(next(iter(phase.data.dataset(0, 1))))
        rng, names = np.random.default_rng(2), [str(s) for s in setting.streams]
        batch |= {n: tf.constant(rng.normal(size=(8, 2)), tf.float32) for n in names}
        assert parts.bridges["F"].taps == {"stem": "stem", "b1": "conv_1", "b2": "conv_2", "b3": "conv_3"}
        assert list(parts.bridges["B"].taps.values()) == ["stem", "b1", "b2", "b3"]  # units joined
        (update,) = phase.updates
        with tf.GradientTape() as tape:
            _, terms = customize.customised_loss(setting, parts, batch, False)
            loss = tf.add_n([v for k, v in terms.items() if k.startswith(("soft", "transfer", "regulariser"))])
        gradients = tape.gradient(loss, [v.value for v in update.trains])
        assert all(g is not None and np.all(np.isfinite(g)) for g in gradients)
        share, taps = customize.shares(setting.streams, batch, "task"), parts.tapped.run(setting.preprocessing(batch["images"]))[0]
        expected = dict.fromkeys(taps, 0.0)
        for t in setting.teachers:
            assert np.sum(share[f"sphere@{t.name}"]) >= 1
            theirs, _ = parts.teachers[t.name].run(t.preprocessing(batch["images"]))
            of = parts.bridges[t.name]
            for tap in taps:
                each = losses.transfer(student=of.student[tap](taps[tap]), teacher=of.teacher[tap](theirs[of.taps[tap]]))
                expected[tap] += float(tf.reduce_mean(share[f"sphere@{t.name}"] * each))
        assert {k: float(terms[f"transfer/{k}"]) for k in taps} == pytest.approx(expected, rel=1e-4)
        shapes = [b.compute_output_shape((None, *parts.tapped.shapes[tap])) for tap, b in parts.bridges["F"].student.items()]
        assert shapes == [(None, 8, 8, 4), (None, 8, 8, 4), (None, 4, 4, 8), (None, 2, 2, 16)]

    def test_another_number_of_taps(self, tmp_path):
        with pytest.raises(UserError, match="tapped at stem, b1, b2, b3, teacher F at stem, conv_1, conv_2: cut them into") as caught:
            self.bridges_to(foreign("F", stages=2), tmp_path)
        assert "\n" not in str(caught.value)

    def test_maps_of_unknown_size(self, tmp_path):
        with pytest.raises(UserError, match="teacher F writes no map .* of known size at stem"):
            self.bridges_to(foreign("F", size=None), tmp_path)

    def test_a_tiny_share_still_leaves_a_channel(self, tmp_path):
        made = self.bridges_to(foreign("F"), tmp_path, bridge__share=0.01)
        assert {b.channels for b in (*made.student.values(), *made.teacher.values())} == {1}


def test_random_starts_are_functions_of_the_seed(sources, tmp_path):
    """Student and bridges alike; and another seed is another start."""
    setting, digests = amalgamation.prepare(customize_config(sources, "sphere")), []
    for i, seed in enumerate((0, 0, 1)):
        with Run(tmp_path / str(i), {"seed": seed}) as run:
            parts = customize.start(setting, run)
        named = parts.student.named_variables("s")
        kernels = {f"{n}/{k}": b.kernel for n, of in parts.bridges.items() for k, b in of.layers().items()}
        digests.append((state.values_digest(named), state.values_digest(kernels)))
    assert digests[0] == digests[1] and all(a != b for a, b in zip(digests[0], digests[2], strict=True))
