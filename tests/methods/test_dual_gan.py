"""Dual-GAN against its paper: equations by hand, what each step trains, that no image is read, resume in every phase."""

from collections.abc import Iterator
from dataclasses import replace
import inspect
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, branching, data, generation
from amalgam_tf import teachers as pools
from amalgam_tf.errors import UserError
from amalgam_tf.generation import Codes, Judges, Source
from amalgam_tf.methods import dafl, dual_gan
from amalgam_tf.models.generator import unmoved
from amalgam_tf.tasks import Task
from amalgam_tf.training import state
from amalgam_tf.training.interrupts import Interrupted
from amalgam_tf.training.loop import Run
from configs import common_generated
from tests.methods.helpers import SIZE, find, interrupted, save_pool, swapped, table_of

POOL = {"A": ("sphere", "box"), "B": ("cone", "torus", "slab")}
SHAPE = Task("shape", kind="category", labels=("x", "y", "z"), head="softmax")


def config_for(teachers, make=common_generated.dual_gan, tasks="*", **changes):
    """A run of a few steps, with the paper's own losses, whose images nobody has: its data section names a folder that is not there."""
    config = common_generated.literal(make("test", teachers))
    config.data.update({"reader": "voc", "root": "nowhere"})
    config.tasks, config.evaluate_on = tasks, ""
    config.gen.update({"steps": 3, "batch_size": 8, "look_steps": 2, "z_dim": 8})
    config.generated.held_out_images, config.collapse.positives = 16, 0.0
    if "block" in config:
        config.block.update({"steps": 2, "batch_size": 8})
        config.finetune.update({"steps": 2, "batch_size": 8, "look_steps": 1})
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return save_pool(tmp_path_factory.mktemp("pool"), POOL)


@pytest.fixture(scope="module")
def setting(pool):
    return dual_gan.enter(config_for(pool))


@pytest.fixture(scope="module")
def one_teacher(tmp_path_factory):
    return save_pool(tmp_path_factory.mktemp("one"), {"A": POOL["A"]})


def pieces(setting, seed=0):
    """Generator and its filters, which say something."""
    net = generation.make_generator(setting.config, setting.teachers, seed)
    gates = branching.start_filters(setting.config.filter, dict(list(net.shapes.items())[:-1]), setting.teachers, len, "gate")
    for f in gates.values():
        f.excite.kernel.assign(keras.random.normal(f.excite.kernel.shape, seed=3))
    return net, gates


def codes(setting, n=8):
    return tf.constant(Codes(n, setting.config.gen.z_dim, 5).at(0))


def sigma(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def soft_entropy(logits, targets):
    q, p = sigma(logits), sigma(targets)
    return -(p * np.log(q) + (1 - p) * np.log(1 - q))


def class_entropy(logits, targets):
    """Softmax cross-entropy, mean over images."""
    log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p = np.exp(targets) / np.exp(targets).sum(-1, keepdims=True)
    return -(p * log_q).sum(-1).mean()


def judged(setting, pixels):
    """What all teachers say of images, their labels side by side, by their own whole networks."""
    return np.concatenate([t.logits(pixels).numpy() for t in setting.teachers], -1)


class TestEquations:
    def test_with_one_group_the_loss_is_dafls_and_the_discrete_term(self, pool):
        """Eqs. 6-9 and 12 with B = 1, by hand from the teachers' own outputs; DAFL's own loss on the same images is less by gamma L_dis."""
        mine, theirs = (dual_gan.enter(config_for(pool, gen__groups=1)), config_for(pool, common_generated.dafl))
        net, gates = pieces(mine)
        still, z = unmoved(net, "still"), codes(mine)
        loss, terms = dual_gan.joint_loss(mine, net.taps(z, training=True), gates, Judges(mine))

        pixels = still.run(z, training=True)
        p = sigma(judged(mine, pixels))
        features = [t.net.run(t.preprocessing(pixels), stop=len(t.net) - 2).numpy().mean((1, 2)) for t in mine.teachers]
        q = p.mean(0) / p.mean(0).sum()
        by_hand = {
            "one_hot": -np.log(np.maximum(p, 1 - p)).mean(),
            "activation": -np.mean([np.abs(f).mean() for f in features]),
            "entropy": (q * np.log(q)).sum(),
            "discrete": p.mean(),
        }
        assert {k: float(terms[k]) for k in by_hand} == pytest.approx(by_hand, rel=1e-3)
        assert float(terms["positives"]) == pytest.approx((p >= 0.5).sum(-1).mean())
        assert float(loss) == pytest.approx(sum(w * by_hand[k] for k, w in zip(by_hand, (1, 0.1, 5, 0.1), strict=True)), rel=1e-4)

        setting = amalgamation.prepare(theirs, fold=True, look=generation.no_images)
        other, _ = dafl.generator_loss(setting, still, None, Judges(setting), {"z": z})
        assert float(loss - other) == pytest.approx(0.1 * by_hand["discrete"], rel=1e-3)

    def test_only_wanted_labels_enter(self, pool):
        """G13: two of five; the losses are those of the two columns alone."""
        some = dual_gan.enter(config_for(pool, tasks="sphere,cone", gen__groups=2))
        net, gates = pieces(some)
        written = net.taps(codes(some), training=True)
        _, terms = dual_gan.joint_loss(some, written, gates, Judges(some))
        wanted = judged(some, written["g2"])[:, [0, 2]]
        p = sigma(wanted)
        q = p.mean(0) / p.mean(0).sum()
        assert float(terms["one_hot"]) == pytest.approx(-np.log(np.maximum(p, 1 - p)).mean(), rel=1e-3)
        assert float(terms["entropy"]) == pytest.approx((q * np.log(q)).sum(), rel=1e-3)
        assert float(terms["discrete"]) == pytest.approx(p.mean(), rel=1e-3)
        assert float(terms["positives"]) == pytest.approx((p >= 0.5).sum(-1).mean())
        said = [t.net.run(gates["g1", t.name](written["g1"]), start="b3").numpy()[:, :1] for t in some.teachers]
        assert float(terms["consistency"]) == pytest.approx(soft_entropy(np.concatenate(said, -1), wanted).mean(), rel=1e-3)

    def test_categories_and_labels_of_two_logits(self, tmp_path):
        """Eqs. 12 and 14: softmax cross-entropy for both, the mean over tasks."""
        pool = save_pool(tmp_path / "pool", {"A": (SHAPE, Task("sphere", head="softmax2"))})
        setting = dual_gan.enter(config_for(pool, gen__groups=2))
        net, gates = pieces(setting)
        _, terms = tf.function(lambda z: dual_gan.joint_loss(setting, net.taps(z), gates, Judges(setting)), autograph=False)(codes(setting))
        written, (t,) = net.taps(codes(setting)), setting.teachers
        image, said = (x.numpy() for x in (t.logits(written["g2"]), t.net.run(gates["g1", "A"](written["g1"]), start="b3")))
        parts = [(image[:, :3], said[:, :3]), (image[:, 3:], said[:, 3:])]
        assert float(terms["agreement/g1"]) == pytest.approx(np.mean([(a.argmax(-1) == b.argmax(-1)).mean() for a, b in parts]))
        assert float(terms["consistency"]) == pytest.approx(np.mean([class_entropy(b, a) for a, b in parts]), rel=1e-3)

        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
        filters = branching.start_filters(setting.config.filter, student.shapes, setting.teachers, len, "filter")
        setting.config.block.batchnorm = "frozen"
        inputs = dual_gan.two_inputs(setting, student, 0, written)
        loss, _ = dual_gan.dual_loss(setting, student, 0, filters, inputs, Judges(setting)(written["g2"]).logits)
        own = t.net.run(filters["b2", "A"](student.run(inputs[0][1], stop=0)), start="b3").numpy()
        by_hand = np.mean([class_entropy(own[:, :3], image[:, :3]), class_entropy(own[:, 3:], image[:, 3:])])
        assert float(loss) == pytest.approx(by_hand, rel=1e-3)

    def test_blocks_and_fine_tuning_learn_what_the_teachers_say_of_generated_images(self, setting, tmp_path):
        """What the two phases feed their losses: fresh images of G, the teachers' answers to these very images."""
        net, _ = pieces(setting)
        source, z = Source(net, "inference"), codes(setting)
        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
            filters = branching.start_filters(setting.config.filter, student.shapes, setting.teachers, len, "filter")
            phase = dual_gan.block_phase(setting, student, 1, filters, source, run)
            lessons = dual_gan.generated_lessons(setting, source, run)
            seeds = [run.seed_of(f"data/{name}") for name in ("generator", "block/b2", "finetune")]
        written = net.taps(z)
        said, names = judged(setting, written["g3"]), [str(s) for s in setting.streams]
        targets = {name: said[:, i : i + 1] for i, name in enumerate(names)}
        (update,) = phase.updates
        expected, _ = dual_gan.dual_loss(setting, student, 1, filters, dual_gan.two_inputs(setting, student, 1, written), targets)
        assert float(update.loss({"z": z})[0]) == pytest.approx(float(expected), rel=1e-4)
        shown = lessons.shown({"z": z})
        np.testing.assert_allclose(shown["images"], written["g3"], atol=1e-3)
        np.testing.assert_allclose(np.concatenate([shown[name] for name in names], -1), said, atol=1e-3)
        assert [phase.data.seed, lessons.data.seed] == seeds[1:] and len(set(seeds)) == 3

    def test_one_group_is_dafls_generator(self, pool):
        one = dual_gan.enter(config_for(pool, gen__groups=1))
        nets = [generation.make_generator(one.config, one.teachers, 3, plain=plain) for plain in (False, True)]
        assert [n.names for n in nets] == [("g1",)] * 2
        assert len({state.values_digest(n.named_variables("g")) for n in nets}) == 1

    def test_features_are_compared_with_the_image_by_the_teachers_blocks_behind_their_place(self, setting):
        """Eqs. 5 and 10-12 with B = 3: group j is filtered and read by blocks B-j+1..B, called one by one."""
        net, gates = pieces(setting)
        written = net.taps(codes(setting), training=True)
        _, terms = dual_gan.joint_loss(setting, written, gates, Judges(setting))
        image, sums = judged(setting, written["g3"]), []
        for group, blocks in (("g1", ("b3", "head")), ("g2", ("b2", "b3", "head"))):
            rows = []
            for t in setting.teachers:
                x = gates[group, t.name](written[group])
                for block in blocks:
                    x = t.net.block(block)(x, training=False)
                rows.append(x.numpy())
            said = np.concatenate(rows, -1)
            sums.append(soft_entropy(said, image).mean())
            assert float(terms[f"agreement/{group}"]) == pytest.approx(((said >= 0) == (image >= 0)).mean())
        assert float(terms["consistency"]) == pytest.approx(np.mean(sums), rel=1e-3)

    @pytest.mark.parametrize("stop", [True, False])
    def test_the_image_is_what_features_have_to_follow(self, pool, stop):
        """G7: no gradient of the second sum reaches the last group; the whole loss reaches all groups and filters."""
        setting = dual_gan.enter(config_for(pool, gen__stopgrad_image=stop))
        net, gates = pieces(setting)
        filters = [v.value for f in gates.values() for v in f.trainable_variables]
        weights = {g: [v.value for v in net.weights(g, g)] for g in net.names}
        with tf.GradientTape(persistent=True) as tape:
            loss, terms = dual_gan.joint_loss(setting, net.taps(codes(setting), training=True), gates, Judges(setting))
        assert all(g is None for g in tape.gradient(terms["consistency"], weights["g3"])) is stop
        for group, own in (*weights.items(), ("filters", filters)):
            found = [g for g in tape.gradient(loss, own) if g is not None]
            assert len(found) == len(own) and max(float(tf.reduce_max(tf.abs(g))) for g in found) > 0, group

    def test_two_inputs(self, setting, tmp_path):
        """Eq. 16: the student's own features of the image, and the group that stands for them."""
        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
        written = pieces(setting)[0].taps(codes(setting))
        image = setting.preprocessing(written["g3"])
        (weight, only), *others = dual_gan.two_inputs(setting, student, 0, written)
        assert (weight, others) == (1.0, [])
        np.testing.assert_array_equal(only, image)
        for k, group in ((1, "g2"), (2, "g1")):
            (_, first), (_, second) = dual_gan.two_inputs(setting, student, k, written)
            np.testing.assert_array_equal(first, student.run(image, stop=k - 1))
            np.testing.assert_array_equal(second, written[group])
            assert first.shape == second.shape

    @pytest.mark.parametrize(("lambda1", "lambda2", "groups"), [(1.0, 0.0, ["own"]), (0.0, 1.0, ["g2"]), (2.0, 0.5, ["own", "g2"])])
    def test_dual_loss(self, setting, tmp_path, lambda1, lambda2, groups):
        """Eqs. 13-15 and 17 by hand: every teacher counts once, whatever the number of its labels (2 and 3 here)."""
        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
        filters = branching.start_filters(setting.config.filter, student.shapes, setting.teachers, len, "filter")
        written = pieces(setting)[0].taps(codes(setting))
        pixels = written["g3"]
        config = setting.config.copy_and_resolve_references()
        config.block.update({"lambda1": lambda1, "lambda2": lambda2, "batchnorm": "frozen"})
        changed = replace(setting, config=config)
        inputs = dual_gan.two_inputs(changed, student, 1, written)
        loss, terms = dual_gan.dual_loss(changed, student, 1, filters, inputs, Judges(setting)(pixels).logits)
        starts = {"own": student.run(setting.preprocessing(pixels), stop=0), "g2": written["g2"]}
        by_hand = []
        for name in groups:
            features = student.run(starts[name], start=1, stop=1)
            per_teacher = [
                soft_entropy(t.net.run(filters["b2", t.name](features), start=2), t.logits(pixels)).mean() for t in setting.teachers
            ]
            by_hand.append(sum(per_teacher))
        weights = [w for w in (lambda1, lambda2) if w]
        assert [float(v) for v in terms.values()] == pytest.approx(by_hand, rel=1e-3) and list(terms) == ["input1", "input2"][: len(groups)]
        assert float(loss) == pytest.approx(np.dot(weights, by_hand), rel=1e-3)

    RECORDED = {
        "b1": {"sphere@A": 0.3, "box@A": 0.5, "cone@B": 0.2, "torus@B": 0.2, "slab@B": 0.9},
        "b2": {"sphere@A": 0.2, "box@A": 0.7, "cone@B": 0.3, "torus@B": 0.3, "slab@B": 0.3},
        "b3": {"sphere@A": 0.1, "box@A": 0.6, "cone@B": 0.5, "torus@B": 0.5, "slab@B": 0.5},
    }

    def test_a_teachers_tasks_leave_together(self, setting):
        """Eq. 18 on means over a teacher's labels; permuting the teachers permutes the decision and changes none."""
        recorded = {b: {s: {"loss": v} for s, v in values.items()} for b, values in self.RECORDED.items()}
        branches = dual_gan.choose_branches(setting, recorded)
        assert branches == {"sphere@A": "b3", "box@A": "b3", "cone@B": "b2", "torus@B": "b2", "slab@B": "b2"}
        permuted = swapped(setting)
        assert [t.name for t in permuted.teachers] == ["B", "A"] and dual_gan.choose_branches(permuted, recorded) == branches

    def test_a_task_of_two_teachers_keeps_its_better_stream(self, tmp_path):
        both = dual_gan.enter(config_for(save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("sphere",)})))
        recorded = {b: {s: {"loss": v[i]} for s, v in self.SHARED.items()} for i, b in enumerate(("b1", "b2", "b3"))}
        assert dual_gan.choose_branches(both, recorded) == {"box@A": "b1", "sphere@B": "b2"}

    SHARED = {"sphere@A": (0.2, 0.3, 0.3), "box@A": (0.2, 0.3, 0.3), "sphere@B": (0.3, 0.1, 0.2)}

    def test_permuted_teachers_have_the_same_loss(self, setting):
        losses, (net, gates) = [], pieces(setting)
        for s in (setting, swapped(setting)):
            losses.append(float(dual_gan.joint_loss(s, net.taps(codes(s), training=True), gates, Judges(s))[0]))
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.fixture(scope="module")
def finished(pool, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A whole run of two teachers in two groups, with no reader that could be opened; every phase is watched."""
    workdir, seen = tmp_path_factory.mktemp("finished"), {}
    config = config_for(pool, gen__groups=2, gen__bn_stat=1.0)  # with it the teachers' own batch norms are run, too
    patch = pytest.MonkeyPatch()
    for name in ("load", "parts"):
        patch.setattr(data, name, lambda *a, **k: pytest.fail("a reader was opened"))
    original = Run.phase

    def watched(run, phase):
        before = {k: v.numpy() for k, v in run.checkpoints.variables.items()}
        declared = {k for k, v in run.checkpoints.variables.items() if any(v is d for d in phase.variables)}
        object.__setattr__(phase, "keep_best", None)  # the best weights may be the start's
        original(run, phase)
        changed = {k for k, v in before.items() if not np.array_equal(v, run.checkpoints.variables[k].numpy())}
        seen[phase.name] = (declared, changed)
        run.decide("best/finetune", lambda: {"step": phase.steps})  # results want to know

    patch.setattr(Run, "phase", watched)
    entered = dual_gan.enter(config)
    before = [state.values_digest(t.net.named_variables("t")) for t in (*entered.teachers, *entered.frozen)]
    with Run(workdir, config.to_dict()) as run:
        setting = dual_gan.enter(config, workdir)
        patch.setattr(dual_gan, "enter", lambda *a: setting)  # the very teachers that the run uses
        results = dual_gan.train(config, run)
        after = [state.values_digest(t.net.named_variables("t")) for t in (*setting.teachers, *setting.frozen)]
    patch.undo()
    yield SimpleNamespace(workdir=workdir, config=config, results=results, seen=seen, teachers=(before, after), setting=setting)


class TestRun:
    def test_each_phase_changes_exactly_what_it_declares(self, finished):
        assert list(finished.seen) == ["generator", "block/b2", "block/b3", "finetune"]
        for name, (declared, changed) in finished.seen.items():
            assert changed == declared and changed, name
        roles = {name: {k.partition("/")[0] for k in changed} for name, (_, changed) in finished.seen.items()}
        assert roles["generator"] == {"generator", "gate"} and roles["finetune"] <= {"student", "tail", "filter"}
        for block in ("b2", "b3"):
            own = {k.split("/")[1] for k in finished.seen[f"block/{block}"][1]}
            assert roles[f"block/{block}"] == {"student", "filter"} and own == {block}

    def test_teachers_stay_bit_for_bit(self, finished):
        assert finished.teachers[0] == finished.teachers[1]

    def test_results_without_a_single_image(self, finished):
        results = finished.results
        json.dumps(results, allow_nan=False)
        assert "test" not in results and results["unlabelled"] == {} and results["method"] == "dual_gan"
        assert (
            set(results["labels"])
            == set(results["branches"])
            == set(results["block_losses"]["b2"])
            == set(map(str, finished.setting.streams))
        )
        assert results["positives"] == pytest.approx(sum(results["labels"].values()))
        assert results["agreement"]["images"] == 16 and 0 <= results["agreement"]["mean"] <= 1
        assert len({results["branches"][s] for s in ("cone@B", "torus@B", "slab@B")}) == 1
        assert (finished.workdir / "figures" / "generated.png").stat().st_size > 0

    def test_the_student_is_an_ordinary_one(self, finished):
        """It loads, and reads real images through its own preprocessing."""
        student = pools.Student.load(finished.workdir)
        said = student.outputs(tf.zeros((2, SIZE, SIZE, 3)))
        assert set(said) == {t for own in POOL.values() for t in own}
        assert student.model.count_params() == finished.results["sizes"]["student"]["parameters"]

    def test_report_of_a_run_without_images(self, finished):
        from amalgam_tf import report

        extra = {"command": "c", "seed": 0, "commit": "", "precision": "float32", "hardware": "x", "seconds": 1.0, "published_row": ""}
        state.write_json(finished.workdir / "results.json", {"format": state.FORMAT, **finished.results, **extra})
        report.write(finished.workdir)
        text = (finished.workdir / "report.md").read_text()
        assert "no image was read" in text and "figures/generated.png" in text and "student agrees %" in text and "## Branch points" in text
        assert "box@A" in report.summary(finished.workdir)


class TestDurability:
    CHANGES = dict(gen__groups=2, gen__steps=3, finetune__look_steps=0)

    def train(self, config, workdir):
        with Run(workdir, config.to_dict()) as run:
            results = dual_gan.train(config, run)
            return results, state.values_digest(run.checkpoints.variables), run.progress.finished

    def test_stopped_in_every_phase_and_resumed_it_ends_with_the_same_bits(self, one_teacher, tmp_path, monkeypatch):
        config = config_for(one_teacher, **self.CHANGES)
        whole, digest, finished = self.train(config, tmp_path / "whole")
        assert finished == ["generator", "block/b2", "block/b3", "finetune"]
        pending, original = set(finished), Run.phase

        def phase(run, phase):
            if phase.name in pending:
                pending.discard(phase.name)
                interrupted(phase.data, 1)
            original(run, phase)

        monkeypatch.setattr(Run, "phase", phase)
        for _ in finished:
            with pytest.raises(Interrupted):
                self.train(config, tmp_path / "parts")
        resumed, again, _ = self.train(config, tmp_path / "parts")
        assert again == digest
        for key in ("block_losses", "branches", "held_out", "labels", "agreement"):
            assert resumed[key] == whole[key]
        self.lambda_rows_share_the_generator(one_teacher, tmp_path, whole, monkeypatch)

    def lambda_rows_share_the_generator(self, one_teacher, tmp_path, whole, monkeypatch):
        monkeypatch.undo()
        source = str(tmp_path / "whole")
        changes = {**self.CHANGES, "block__lambda2": 0.0, "block__steps": 1, "finetune__steps": 0}
        config = config_for(one_teacher, generated__generator_from=source, **changes)
        results, _, finished = self.train(config, tmp_path / "lambda10")
        phases = {json.loads(row)["phase"] for row in (tmp_path / "lambda10" / "metrics.jsonl").read_text().splitlines()}
        assert finished == ["generator", "block/b2", "block/b3"] and phases == {"block/b2", "block/b3"}
        assert results["labels"] == whole["labels"] and results["block_losses"] != whole["block_losses"]
        other = config_for(one_teacher, generated__generator_from=source, **changes, gen__beta=1.0)
        with pytest.raises(UserError, match="other settings .gen.beta"):
            self.train(other, tmp_path / "other")

    def test_a_collapsed_generator_stops_the_run_and_loses_nothing(self, one_teacher, tmp_path):
        config = config_for(one_teacher, collapse__positives=99.0, collapse__after_steps=2, gen__groups=1)
        with pytest.raises(UserError, match="at step 2 its images show .* fewer than collapse.positives=99"):
            self.train(config, tmp_path / "run")
        assert (tmp_path / "run" / "figures" / "generated.png").exists()
        assert '"phase": "generator"' in (tmp_path / "run" / "metrics.jsonl").read_text()


class TestChoices:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("gen__dis", "plus"),
            ("gen__ie", "labels"),
            ("gen__pseudo", "logits"),
            ("generated__batchnorm", "frozen"),
            ("evaluate_on", "test"),
            ("block__batchnorm", "btach"),
            ("finetune__trainable", "al"),
            ("filter__gate", "tanh"),
            ("gen__optimizer__name", "amad"),
        ],
    )
    def test_misspelt_words_are_found_before_anything_is_read(self, key, value):
        config = config_for({"A": {"path": "nowhere", "config": ""}}, **{key: value})
        with pytest.raises(UserError, match=f"unknown {key.replace('__', '.')} '{value}'"):
            dual_gan.enter(config)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"gen__gamma": -1.0}, "gen.gamma weighs a loss"),
            ({"gen__steps": 0}, "gen.steps must be at least 1"),
            ({"block__lambda1": 0.0, "block__lambda2": 0.0}, "not both to 0"),
            ({"block__lambda1": -1.0}, "weigh two inputs"),
            ({"block__batchnorm": "frozen"}, "set block.batchnorm=batch"),
            ({"gen__groups": 4}, "gen.groups=4 is out of range: the teachers have 3 blocks"),
        ],
    )
    def test_numbers_out_of_range(self, pool, changes, message):
        with pytest.raises(UserError, match=message):
            dual_gan.enter(config_for(pool, **changes))

    def test_unlike_teachers(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere",)}) | save_pool(tmp_path / "pool2", {"B": ("box",)}, width=1.0)
        with pytest.raises(UserError, match="Dual-GAN needs teachers of one architecture"):
            dual_gan.enter(config_for(entries))

    def test_groups_join_the_first_blocks(self, setting):
        net = setting.teachers[0].net
        joined = generation.in_groups(net, 2)
        assert joined.names == ("b2", "b3", "head") and generation.in_groups(net, 0) is net
        x = tf.zeros((1, SIZE, SIZE, 3))
        np.testing.assert_array_equal(joined.run(x), net.run(x))

    def test_plan(self, pool):
        config = config_for(pool)
        teachers = {n: pools.Teacher.load(entry["path"], n) for n, entry in pool.items()}
        plan = dual_gan.plan(config, teachers)
        assert [p.name for p in plan.lines] == ["generator", "held-out images", "block/b1", "block/b2", "block/b3", "finetune"]
        assert all(p.work > 0 for p in plan.lines) and plan.caches == 0
        with config.unlocked():
            config.generated.generator_from = "elsewhere"
        assert "generator" not in [p.name for p in dual_gan.plan(config, teachers).lines]


class TestPaper:
    def test_symbols_and_equations_name_existing_things(self):
        symbols, equations = table_of(dual_gan, "Symbols"), table_of(dual_gan, "Equations")
        assert len(symbols) >= 12 and [e[0] for e in equations] == [f"Eq. {n}" for n in (3, *range(5, 21))]
        for dotted in [n for s in symbols for n in s[2].split(", ")] + [e[1] for e in equations]:
            find(dual_gan, dotted)

    def test_algorithm_names_every_line(self):
        source = inspect.getsource(dual_gan.amalgamate)
        for line in ("(1)", "(3)-(9)", "(11)", "(12), (13)", "(14)-(18)", "(20), (21)", "(22)", "(23)"):
            assert line in source


def test_batch_statistics_of_a_finished_generator(setting):
    """G9: batch or stored statistics; what is stored stays in both cases."""
    net, _ = pieces(setting)
    before = state.values_digest(net.named_variables("g"))
    stored, batch = (Source(net, kind).images(codes(setting)) for kind in ("inference", "batch"))
    np.testing.assert_array_equal(stored, net.run(codes(setting)))
    assert not np.allclose(stored, batch) and state.values_digest(net.named_variables("g")) == before
