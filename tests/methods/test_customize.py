"""Customize against its paper: equations by hand, selection, what trains, the published tables of choices, and the peers' faults."""

from dataclasses import replace
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, choice
from amalgam_tf.errors import UserError
from amalgam_tf.methods import customize
from amalgam_tf.models.taps import TappedNet
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Stream
from amalgam_tf.training import optimizers, state
from amalgam_tf.training.loop import Interrupted, Run
from tests.methods.helpers import customize_config, find, interrupted, save_pool, table_of

SPHERE, BOX, CONE = (Task(name, head="softmax2") for name in ("sphere", "box", "cone"))
TEACHERS = {"A": (SPHERE,), "B": (CONE, SPHERE), "C": (SPHERE, BOX)}
STREAMS = ("sphere@A", "sphere@B", "sphere@C")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return save_pool(tmp_path_factory.mktemp("pool"), TEACHERS)


@pytest.fixture(scope="module")
def started(pool, tmp_path_factory):
    """(setting, parts, batch) of a component of three source nets: scales, biases and the batch's logits are no special values."""
    return lively(customize_config(pool, "sphere"), tmp_path_factory.mktemp("started"))


def lively(config, workdir):
    setting, rng = amalgamation.prepare(config), np.random.default_rng(4)
    with Run(workdir, {}) as run:
        parts = customize.start(setting, run)
        data = customize.transfer_phase(setting, parts, run).data
    batch = dict(next(iter(data.dataset(0, 1))))
    for stream in map(str, setting.streams):
        batch[stream] = tf.constant(rng.normal(size=batch[stream].shape, scale=2), tf.float32)
        parts.scales[stream].assign(rng.uniform(0.5, 1.5))
    for variable in (v for b in parts.bridges.values() for layer in b.layers().values() for v in layer.trainable_variables):
        if len(variable.shape) == 1:
            variable.assign(rng.normal(size=variable.shape))
    return setting, parts, batch


def with_choices(setting, **changes):
    config = setting.config.copy_and_resolve_references()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return replace(setting, config=config)


def float_terms(terms):
    return {k: float(v) for k, v in terms.items()}


class ByHand:
    """Eq. 8 in NumPy: every teacher on every image, masked; taps cut out of the graphs by the names of their layers."""

    LAYERS = {"stem": ("b1", "conv1_conv"), **{f"b{k}": (f"b{k}", f"conv{k + 1}_block1_add") for k in (1, 2, 3)}}

    def __init__(self, setting, parts, batch):
        self.setting, self.parts, self.batch = setting, parts, {k: np.asarray(v) for k, v in batch.items()}

    def taps(self, net, preprocessing):
        found, x = {}, preprocessing(tf.constant(self.batch["images"]))
        for block in ("b1", "b2", "b3"):
            model = keras.models.clone_model(net.block(block))  # in a copy every layer was called once
            model.set_weights(net.block(block).get_weights())
            names = [tap for tap, (home, _) in self.LAYERS.items() if home == block]
            outputs = [model.get_layer(self.LAYERS[tap][1]).output for tap in names]
            tensors = keras.tree.flatten(keras.Model(model.inputs[0], outputs)(x, training=False))
            found |= {tap: t.numpy() for tap, t in zip(names, tensors, strict=True)}
            x = model(x, training=False)
        return found

    def selected(self):
        """[batch] of each stream: 0 or 1, from softmax and logarithm spelt out."""
        entropies = []
        for stream in STREAMS:
            p = np.exp(self.batch[stream]) / np.exp(self.batch[stream]).sum(1, keepdims=True)
            entropies.append(-(p * np.log(p)).sum(1))
        return np.argmin(entropies, 0)[None] == np.arange(3)[:, None]

    def terms(self, share, scale):
        student, preprocessing = self.parts.student, self.setting.preprocessing
        logits = student.run(preprocessing(tf.constant(self.batch["images"])))["sphere"].numpy()
        mine, total = self.taps(student.trunk, preprocessing), {}
        for row, stream in zip(share, STREAMS, strict=True):
            m = float(self.parts.scales[stream].numpy())
            s, t = (m if scale == "student" else 1) * logits, (m if scale == "teacher" else 1) * self.batch[stream]
            total[f"soft/{stream}"] = np.mean(row * ((s - t) ** 2).sum(1) / 2)
            teacher = self.setting.teacher(stream[-1])
            theirs, bridges = self.taps(teacher.net, teacher.preprocessing), self.parts.bridges[teacher.name]
            for tap in self.LAYERS:
                fs, ft = self.aligned(bridges.student[tap], mine[tap]), self.aligned(bridges.teacher[tap], theirs[tap])
                each = ((fs - ft) ** 2).sum((1, 2, 3)) / np.prod(fs.shape[1:])
                total[f"transfer/{tap}"] = total.get(f"transfer/{tap}", 0) + np.sum(row * each) / len(row)
                kernel = bridges.teacher[tap].convolution.weights[0].numpy()[0, 0]
                lengths = np.array([sum(kernel[i, j] ** 2 for i in range(kernel.shape[0])) for j in range(kernel.shape[1])])
                total["regulariser"] = total.get("regulariser", 0) + np.sum((lengths - 1) ** 2) / kernel.shape[1]
        return total

    @staticmethod
    def aligned(bridge, x):
        kernel, bias = (v.numpy() for v in bridge.convolution.weights)
        return np.einsum("nhwi,ij->nhwj", x, kernel[0, 0]) + bias


class TestEquations:
    @pytest.mark.parametrize("scale", ["student", "teacher", "none"])
    def test_loss_of_three_teachers_selected_image_by_image(self, started, scale):
        """Eqs. 1 to 8: every term once, mean over the whole batch, only the selected teacher's images."""
        setting, parts, batch = started
        hand = ByHand(*started)
        share = hand.selected()
        assert share.sum(1).min() >= 1 and share.sum() == len(batch["images"])  # all three teach something
        loss, terms = customize.customised_loss(with_choices(setting, scale=scale), parts, batch, False)
        expected, got = hand.terms(share, scale), float_terms(terms)
        assert {k: got[k] for k in expected} == pytest.approx(expected, rel=1e-4)
        assert float(loss) == pytest.approx(sum(expected.values()), rel=1e-4)
        assert [got[f"selected/{s}"] for s in STREAMS] == pytest.approx(share.mean(1).tolist())
        assert set(got) == set(expected) | {f"{kind}/{s}" for kind in ("selected", "entropy") for s in STREAMS}

    def test_without_selection_is_the_mean_over_all_teachers(self, started):
        setting, parts, batch = started
        loss, terms = customize.customised_loss(with_choices(setting, select="all"), parts, batch, False)
        expected = ByHand(*started).terms(np.full((3, len(batch["images"])), 1 / 3), "student")
        assert {k: float(terms[k]) for k in expected} == pytest.approx(expected, rel=1e-4)
        assert float(loss) == pytest.approx(sum(expected.values()), rel=1e-4)

    @pytest.mark.parametrize("select", ["task", "all"])
    def test_without_bridges_only_eq_7_is_left(self, started, select):
        """Table 8: `KD` (all) is the mean of eq. 7 over all teachers; `without transfer bridge` (task) keeps the selection (C13)."""
        setting, parts, batch = started
        changed = with_choices(setting, select=select, bridge__use=False)
        loss, terms = customize.customised_loss(changed, replace(parts, bridges={}), batch, False)
        hand = ByHand(*started)
        share = hand.selected() if select == "task" else np.full((3, len(batch["images"])), 1 / 3)
        expected = {k: v for k, v in hand.terms(share, "student").items() if k.startswith("soft/")}
        assert float(loss) == pytest.approx(sum(expected.values()), rel=1e-4)
        assert not any(k.startswith(("transfer", "regulariser")) for k in terms)

    def test_no_bridges_are_made_without_bridges(self, pool, tmp_path):
        setting = amalgamation.prepare(customize_config(pool, "sphere", bridge__use=False, scale="none"))
        with Run(tmp_path, {}) as run:
            parts = customize.start(setting, run)
            update = customize.transfer_phase(setting, parts, run).updates[0]
        assert parts.bridges == parts.scales == {} and len(update.trains) == len(parts.student.weights())

    @pytest.mark.parametrize("regularise", ["teacher", "both", "none"])
    def test_regulariser_is_counted_once_a_bridge_and_for_the_named_sides(self, started, regularise):
        """The peers count it once a tap and bridge more (measured ratio 6.000)."""
        setting, parts, batch = started
        terms = customize.customised_loss(with_choices(setting, bridge__regularise=regularise), parts, batch, False)[1]
        sides = {"teacher": ["teacher"], "both": ["teacher", "student"], "none": []}[regularise]
        kernels = [b.kernel.numpy()[0, 0] for of in parts.bridges.values() for side in sides for b in getattr(of, side).values()]
        assert len(kernels) == 3 * 4 * len(sides)
        if kernels:
            assert float(terms["regulariser"]) == pytest.approx(sum(np.mean((np.sum(k**2, 0) - 1) ** 2) for k in kernels), rel=1e-5)
        else:
            assert "regulariser" not in terms

    def test_running_teachers_on_their_own_images_only_changes_no_gradient(self, started):
        """Against all teachers on all images, masked."""
        setting, parts, batch = started
        update_of = [v for b in parts.bridges.values() for layer in b.layers().values() for v in layer.trainable_variables]
        variables = [v.value for v in [*parts.student.trunk.weights(), *update_of]]
        share = customize.shares(setting.streams, batch, "task")

        def everywhere():
            taps, _ = parts.tapped.run(setting.preprocessing(batch["images"]))
            for teacher in setting.teachers:
                of = parts.bridges[teacher.name]
                theirs, _ = parts.teachers[teacher.name].run(teacher.preprocessing(batch["images"]))
                for tap in taps:
                    each = tf.reduce_mean((of.student[tap](taps[tap]) - of.teacher[tap](theirs[tap])) ** 2, (1, 2, 3))
                    yield tf.reduce_mean(share[f"sphere@{teacher.name}"] * each)

        def gathered():
            taps, _ = parts.tapped.run(setting.preprocessing(batch["images"]))
            for teacher in setting.teachers:
                mine = share[f"sphere@{teacher.name}"]
                yield from customize.transfer_losses(setting, parts, teacher, taps, batch["images"], mine).values()

        gradients = []
        for way in (everywhere, gathered):
            with tf.GradientTape() as tape:
                loss = tf.add_n(list(way()))
            gradients.append(tape.gradient(loss, variables, unconnected_gradients="zero"))
        scale = max(float(tf.reduce_max(tf.abs(g))) for g in gradients[0])
        assert scale > 0
        for whole, part in zip(*gradients, strict=True):
            np.testing.assert_allclose(whole, part, rtol=1e-3, atol=1e-5 * scale)

    def test_a_teacher_that_is_never_selected(self, started):
        setting, parts, batch = started
        batch = {**batch, "sphere@C": tf.zeros_like(batch["sphere@C"])}  # as unsure as can be
        side = [v.value for b in parts.bridges["C"].student.values() for v in b.trainable_variables]
        with tf.GradientTape() as tape:
            loss, terms = customize.customised_loss(setting, parts, batch, False)
        assert float(terms["selected/sphere@C"]) == float(terms["soft/sphere@C"]) == 0 and np.isfinite(loss)
        assert all(not np.any(g) for g in tape.gradient(loss, side))  # connected, or the step would refuse it

    def test_the_scale_cannot_collapse_unless_it_is_the_literal_one(self, started):
        """C4: with m = 0 and s = 0 nothing is left of the printed loss; ours still asks for the teacher's logits."""
        setting, parts, batch = started
        nothing = {"sphere": tf.zeros_like(batch["sphere@A"])}
        zero = replace(parts, scales={s: keras.Variable(0.0) for s in STREAMS})
        share = customize.shares(setting.streams, batch, "all")
        left = {}
        for scale in ("student", "teacher"):
            each = customize.soft_losses(with_choices(setting, scale=scale), zero, nothing["sphere"], batch, share)
            left[scale] = float(tf.add_n([tf.reduce_mean(v) for v in each.values()]))
        assert left["teacher"] == 0
        assert left["student"] == pytest.approx(np.mean([np.mean(np.square(batch[s])) for s in STREAMS]), rel=1e-5)

    def test_taps_after_the_last_relu(self, started, pool, tmp_path):
        """C1: the switch reaches student and teachers alike."""
        setting, parts, batch = started
        with Run(tmp_path, {}) as run:
            after = customize.start(with_choices(setting, bridge__tap="post_relu"), run)
        x = setting.preprocessing(batch["images"])
        for before, behind in ((parts.tapped, after.tapped), (parts.teachers["B"], after.teachers["B"])):
            assert float(tf.reduce_min(before.run(x)[0]["b2"])) < 0 <= float(tf.reduce_min(behind.run(x)[0]["b2"]))


class TestSelection:
    def streams(self, *names):
        return tuple(Stream(Task(n.partition("@")[0], head="softmax2"), n.partition("@")[2]) for n in names)

    def logits(self, *names):
        return {n: tf.constant(np.random.default_rng(i).normal(size=(9, 2)), tf.float32) for i, n in enumerate(names)}

    def test_permuting_the_teachers_permutes_the_selection(self):
        names = STREAMS
        targets = self.logits(*names)
        for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
            share = customize.shares(self.streams(*(names[i] for i in order)), targets, "task")
            surest = np.argmin([choice.entropy(targets[n], "softmax2") for n in names], 0)
            for i, name in enumerate(names):
                np.testing.assert_array_equal(share[name], surest == i)

    def test_ties_go_to_the_first(self):
        same = tf.constant([[1.0, -1.0]] * 3)
        share = customize.shares(self.streams("a@X", "a@Y"), {"a@X": same, "a@Y": same}, "task")
        assert share["a@X"].numpy().tolist() == [1, 1, 1] and share["a@Y"].numpy().tolist() == [0, 0, 0]

    def test_each_task_has_a_surest_teacher_of_its_own_and_an_image_one_for_all(self):
        names = ("a@X", "a@Y", "b@X", "b@Y")
        targets = self.logits(*names)
        by_task, by_image = (customize.shares(self.streams(*names), targets, select) for select in ("task", "image"))
        entropy = {n: choice.entropy(targets[n], "softmax2").numpy() for n in names}
        for n in names:
            other = n[:2] + ("Y" if n[2] == "X" else "X")
            np.testing.assert_array_equal(by_task[n], entropy[n] < entropy[other])
            np.testing.assert_array_equal(by_image[n], entropy[n] == np.min(list(entropy.values()), 0))

    def test_equal_shares_are_of_each_task(self):
        names = ("a@X", "a@Y", "b@Y")
        share = customize.shares(self.streams(*names), self.logits(*names), "all")
        assert {n: set(v.numpy().tolist()) for n, v in share.items()} == {"a@X": {0.5}, "a@Y": {0.5}, "b@Y": {1.0}}

    def test_huge_logits(self):
        """Entropy without the largest logit taken off overflows (peers' fault 10)."""
        targets = {"a@X": tf.constant([[1e4, -1e4]]), "a@Y": tf.constant([[0.0, 1.0]])}
        share = customize.shares(self.streams("a@X", "a@Y"), targets, "task")
        assert share["a@X"].numpy().tolist() == [1]

    def test_on_held_out_images(self, started):
        setting, _, _ = started
        told = customize.selected_on_held_out(setting)
        entropies = {s: choice.entropy(tf.constant(setting.targets["held_out"][s][0]), "softmax2").numpy() for s in STREAMS}
        assert told["sphere@B"]["entropy"] == pytest.approx(entropies["sphere@B"].mean(), rel=1e-5)
        assert told["sphere@B"]["share"] == pytest.approx(np.mean(np.argmin(list(entropies.values()), 0) == 1))
        assert sum(v["share"] for v in told.values()) == pytest.approx(1)


class TestUpdates:
    def test_changed_is_declared_and_neither_teachers_nor_test_images_take_part(self, pool, tmp_path):
        """Student, bridges and scales move, teachers do not; no choice looks at the test part (peers' faults 4 and 13)."""
        config = customize_config(pool, "sphere")
        setting = amalgamation.prepare(config)
        setting.images.test_pixels = None
        of_teachers = {k: v for t in setting.teachers for k, v in t.net.named_variables(t.name).items()}
        digest = state.values_digest(of_teachers)
        with Run(tmp_path, config.to_dict()) as run:
            parts = customize.start(setting, run)
            phase = customize.transfer_phase(setting, parts, run)
            object.__setattr__(phase, "keep_best", None)  # the best weights may be the start's
            bridges = {f"{n}/{key}": layer for n, b in parts.bridges.items() for key, layer in b.layers().items()}
            everything = {**parts.student.named_variables("student"), **{f"scale/{k}": v for k, v in parts.scales.items()}}
            everything |= {f"bridge/{n}/{i}": v for n, layer in bridges.items() for i, v in enumerate(layer.variables)}
            run.track(everything)
            before = {k: v.numpy() for k, v in everything.items()}
            run.phase(phase)
        assert {k for k, v in before.items() if not np.array_equal(v, everything[k].numpy())} == set(everything)
        assert {id(v) for v in phase.variables} == {id(v) for v in everything.values()}
        assert len(bridges) == 3 * 2 * 4 and len(parts.scales) == 3
        assert state.values_digest(of_teachers) == digest

    def test_rates(self, started, tmp_path):
        """The rate falls over the whole phase (peers' fault 1: to 1/32 within 25 steps); the scales' is a hundredth (fault 4: 0)."""
        setting, parts, _ = started
        with Run(tmp_path, {}) as run:
            phase = customize.transfer_phase(with_choices(setting, train__epochs=50.0), parts, run)
        (update,), rate = phase.updates, 1e-3
        schedule = optimizers.schedule(update.optimizer, phase.steps)
        assert float(schedule(25)) == pytest.approx(rate * (1 - 25 / phase.steps) ** 0.9, rel=1e-4) and phase.steps > 150
        copies = [keras.Variable(v) for v in update.trains]
        heads = [c for c, v in zip(copies, update.trains, strict=True) if any(v is h for h in update.heads)]
        made = optimizers.build(update.optimizer, copies, steps=phase.steps, heads=heads)
        made.apply([tf.ones(v.shape) for v in copies], copies)
        moved = {
            id(v): np.max(np.abs(c.numpy() - v.numpy())) / rate for c, v in zip(copies, update.trains, strict=True)
        }  # Adam's first step is the rate
        of_scales = {id(v) for v in parts.scales.values()}
        assert len(heads) == 3
        for v in update.trains:
            assert moved[id(v)] == pytest.approx(0.01 if id(v) in of_scales else 1, rel=0.02)

    def test_a_held_out_pass_leaves_no_trace_and_training_goes_on_with_batch_statistics(self, started, tmp_path):
        """Peers' fault 2: the student stayed in inference mode behind the first evaluation."""
        setting, parts, _ = started
        with Run(tmp_path, {}) as run:
            phase = customize.transfer_phase(setting, parts, run)
        moving = phase.updates[0].statistics
        before = [v.numpy() for v in moving]
        value = phase.validate()
        assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, moving, strict=True))
        phase.updates[0].loss(next(iter(phase.data.dataset(0, 1))))
        assert moving and not any(np.array_equal(a, v.numpy()) for a, v in zip(before, moving, strict=True))
        for v, a in zip(moving, before, strict=True):
            v.assign(a)
        rows = {s: tf.constant(setting.targets["held_out"][s][0]) for s in STREAMS}
        logits = parts.student.run(setting.preprocessing(tf.constant(setting.images.pixels["held_out"], tf.float32)))["sphere"]
        each = customize.soft_losses(setting, parts, logits, rows, customize.shares(setting.streams, rows, "task"))
        assert value == {"soft": pytest.approx(sum(float(tf.reduce_mean(v)) for v in each.values()), rel=1e-4)}

    def test_frozen_statistics(self, started, tmp_path):
        setting, parts, batch = started
        with Run(tmp_path, {}) as run:
            (update,) = customize.transfer_phase(with_choices(setting, train__batchnorm="frozen"), parts, run).updates
        before = [v.numpy() for v in parts.student.statistics()]
        update.loss(batch)
        assert list(update.statistics) == []
        assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, parts.student.statistics(), strict=True))

    def test_interrupted_run_equals_uninterrupted_bit_for_bit(self, pool, tmp_path, monkeypatch):
        config = customize_config({n: pool[n] for n in "AB"}, "sphere", save_every_steps=2, log_every_steps=1)
        setting = amalgamation.prepare(config)

        def run_in(folder):
            with Run(tmp_path / folder, config.to_dict()) as run:
                student = customize.amalgamate(setting, run)
                best = {k: v.numpy() for k, v in run.checkpoints.variables.items()}
                return state.values_digest(student.named_variables("s")), best, run._book()

        whole, original = run_in("whole"), customize.transfer_phase
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(customize, "transfer_phase", lambda *a: replace_data(original(*a), 3))
            run_in("parts")
        again = run_in("parts")
        assert again[0] == whole[0] and again[2] == whole[2]
        assert whole[1].keys() == again[1].keys() and all(np.array_equal(v, again[1][k]) for k, v in whole[1].items())
        rows = [[json.loads(x) for x in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in ("whole", "parts")]
        assert rows[0] == rows[1]
        assert {f"transfer/{t}" for t in ("stem", "b1", "b2", "b3")} | {"selected/sphere@A", "entropy/sphere@B"} <= set(rows[0][1])
        assert run_in("parts")[2] == whole[2]  # and once more: nothing is chosen or added twice (fault 9)


def replace_data(phase, after):
    interrupted(phase.data, after)
    return phase


class TestChoices:
    def test_symbols_and_equations_name_existing_things(self):
        symbols, equations = table_of(customize, "Symbols"), table_of(customize, "Equations")
        assert len(symbols) == 6 and [e[0] for e in equations] == [f"Eq. {n}" for n in range(1, 9)]
        named = [name for s in symbols for name in re.findall(r"[A-Za-z_]+(?:\.[A-Za-z_]+)+", s[2])]
        assert len(named) >= 6
        for name in [*named, *(e[1] for e in equations)]:
            find(customize, name)

    def test_a_missing_name_would_be_seen(self):
        with pytest.raises(AssertionError):
            find(customize, "losses.no_such_function")

    def test_every_switch_that_is_named_can_be_set(self):
        """`key=value|value` in the module's head: the config has the key, the method takes the values."""
        named = re.findall(r"`([a-z_.]+)=([A-Za-z_|]+)`", customize.__doc__)
        assert {k for k, _ in named} >= {"bridge.tap", "bridge.sides", "bridge.bias", "bridge.regularise", "scale", "select", "bridge.use"}
        for key, values in named:
            for value in values.split("|"):
                config = customize_config({}, "sphere")
                config.update_from_flattened_dict({key: value == "True" if value in ("True", "False") else value})
                customize.check_choices(config)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("stage", "taget"),
            ("select", "tasks"),
            ("scale", "sudent"),
            ("bridge__tap", "prerelu"),
            ("bridge__sides", "teacher"),
            ("bridge__regularise", "student"),
            ("train__batchnorm", "btach"),
            ("train__optimizer__name", "amad"),
        ],
    )
    def test_misspelt_choices_are_found_before_anything_is_read(self, key, value):
        with pytest.raises(UserError, match=f"unknown {key.replace('__', '.')} '{value}'"):
            customize.check_choices(customize_config({"A": {"path": "nowhere", "config": ""}}, "sphere", **{key: value}))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"bridge__share": 0.0}, "bridge.share must lie between 0 and 1"),
            ({"targets": "hard"}, "leave targets=soft"),
            ({"teacher_weights__A": 2.0}, "every teacher_weights at 1"),
            ({"student__backbone": "vgg16"}, "unknown backbone"),
            ({"train__batchnorm": "frozen"}, "set train.batchnorm=batch"),
        ],
    )
    def test_choices_that_cannot_be(self, changes, message):
        with pytest.raises(UserError, match=message) as caught:
            customize.check_choices(customize_config({"A": {"path": "nowhere", "config": ""}}, "sphere", **changes))
        assert "\n" not in str(caught.value)

    def test_ready_weights_want_the_input_they_were_made_for(self, started):
        changed = with_choices(started[0], student__backbone="resnet50", student__weights="some.h5")
        with pytest.raises(UserError, match="set student.normalise=caffe"):
            customize.check_setting(changed)

    def test_entropies_of_different_numbers_of_classes_do_not_compare(self, started):
        """C11."""
        shape = Task("shape", "category", ("x", "y", "z"), "softmax")
        setting = replace(with_choices(started[0], select="image"), streams=(Stream(SPHERE, "A"), Stream(shape, "B")))
        with pytest.raises(UserError, match=r"different numbers of classes \(sphere: 2, shape: 3\): set select=task"):
            customize.check_setting(setting)
        customize.check_setting(replace(setting, streams=(Stream(SPHERE, "A"), Stream(Task("box"), "B"))))

    def test_nets_are_tapped_without_hooks_or_state(self, started):
        """Peers' fault 11: two nets in turn, and once more, give each its own taps."""
        setting, parts, batch = started
        x = setting.preprocessing(batch["images"])
        first = {n: parts.teachers[n].run(x)[0] for n in ("A", "C")}
        again = {n: TappedNet(setting.teacher(n).net).run(x)[0] for n in ("C", "A")}
        for n in ("A", "C"):
            for tap, value in first[n].items():
                np.testing.assert_array_equal(value, again[n][tap])
