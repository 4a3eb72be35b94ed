"""AFK against its paper: equations, algorithm, decisions, and what the peers got wrong."""

import importlib
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, branching, distillation, evaluate
from amalgam_tf import teachers as pools
from amalgam_tf.data.pipeline import Batches
from amalgam_tf.errors import UserError
from amalgam_tf.methods import afk
from amalgam_tf.models import blocks
from amalgam_tf.models.adapters import ChannelFilter
from amalgam_tf.tasks import Task, parse
from amalgam_tf.training import optimizers, state
from amalgam_tf.training.loop import Run
from configs import common
from tests.methods.helpers import SIZE, afk_config, save_pool, swapped, teacher

POOL = {"A": ("sphere", "box"), "B": ("cone", "torus", "slab")}


@pytest.fixture
def pool(tmp_path):
    return save_pool(tmp_path / "pool", POOL)


def amalgamate(config, workdir):
    """(setting, branched, run's decisions) of a finished amalgamation."""
    setting = afk.enter(config)
    with Run(workdir, config.to_dict()) as run:
        branched = afk.amalgamate(setting, run)
        return setting, branched, run._book()


def regrouped(setting, student, filters, branches, per_task=False):
    wanted = {s: branches[str(s)] for s in setting.streams if str(s) in branches}
    return branching.regroup(student, filters, setting.teachers, wanted, per_task=per_task)


def images(n=6, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(0, 255, (n, SIZE, SIZE, 3)), tf.float32)


class TestEquations:
    def setting(self, pool, **changes):
        return afk.enter(afk_config(pool, **changes))

    def test_student_equal_to_teacher_with_identity_gate_gives_the_entropy_and_no_gradient(self, pool, tmp_path):
        """Eq. 7 at its minimum, at every block (design section 7)."""
        setting = self.setting(pool, student__weights="teacher", filter__gate="linear", tasks="*@A")
        with Run(tmp_path / "run", {}) as run:
            student, x = amalgamation.start_student(setting, run), images()
            filters = afk.start_filters(setting, student, run)
        a = setting.teachers[0]
        targets = amalgamation.task_level_filter({"A": a.logits(x)}, setting.streams, setting.teachers)
        p = tf.sigmoid(tf.cast(a.logits(x), tf.float64)).numpy()
        entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
        for k, block in enumerate(student.names):
            variables = [*student.weights(k, k), *filters[block, "A"].trainable_variables]
            with tf.GradientTape() as tape:
                features = student.run(setting.preprocessing(x), stop=k)
                each = afk.entangled_losses(setting, features, block, k, filters, targets)
                loss, _ = amalgamation.total(each)
            for i, stream in enumerate(setting.streams):
                np.testing.assert_allclose(each[str(stream)], entropy[:, i], atol=1e-6)
            gradients = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
            assert max(float(tf.reduce_max(tf.abs(g))) for g in gradients) < 1e-6

    def test_losses_are_the_mean_over_all_wanted_labels_counted_once(self, pool):
        """Eqs. 7 and 8 by hand: three labels of two teachers, soft targets."""
        setting = self.setting(pool, tasks="box,torus,cone")
        logits = {"box@A": [[0.3]], "cone@B": [[-1.0]], "torus@B": [[2.0]]}
        goal = {"box@A": [[1.5]], "cone@B": [[0.0]], "torus@B": [[-0.7]]}
        as_tensors = ({k: tf.constant(v) for k, v in d.items()} for d in (logits, goal))
        loss, terms = amalgamation.total(amalgamation.customised_losses(setting.streams, *as_tensors, hard=False))
        sigma = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
        by_hand = [
            -sigma(goal[s][0][0]) * np.log(sigma(logits[s][0][0])) - (1 - sigma(goal[s][0][0])) * np.log(1 - sigma(logits[s][0][0]))
            for s in logits
        ]
        assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-6)
        assert {k: float(v) for k, v in terms.items()} == pytest.approx(
            {f"stream/{s}": v for s, v in zip(logits, by_hand, strict=True)}, rel=1e-6
        )

    def test_entanglement_is_filter_then_the_teachers_rest(self):
        """Eq. 6 against layers called one by one."""
        a, x = teacher("A", ("sphere", "box"), seed=1), images()
        gate = ChannelFilter("sigmoid")
        features = a.net.run(a.preprocessing(x), stop=0)
        out = branching.entangle(features, 0, {"A": gate}, [a])["A"]
        y = gate(features)
        for name in a.net.names[1:]:
            y = a.net.block(name)(y, training=False)
        np.testing.assert_array_equal(out, y)

    def test_task_level_filter_keeps_the_right_rows(self):
        shape = Task("shape", kind="category", labels=("x", "y", "z"), head="softmax")
        a = teacher("A", ("sphere", shape, "box"), seed=0)
        streams = pools.Pool([a]).resolve(parse("box,shape"))
        rows = amalgamation.task_level_filter({"A": tf.constant([[0.0, 1, 2, 3, 4]])}, streams, [a])
        assert {k: v.numpy().tolist() for k, v in rows.items()} == {"box@A": [[4.0]], "shape@A": [[1.0, 2.0, 3.0]]}

    @pytest.mark.parametrize("share", ["per_teacher_block", "per_task"])
    def test_regrouped_net_equals_the_entangled_paths(self, pool, tmp_path, share):
        """Eq. 10 with mixed branches: each task's logits are those of its own prefix, filter and teacher's rest."""
        setting = self.setting(pool, branch__share=share)
        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
            filters = afk.start_filters(setting, student, run)
        for f in filters.values():
            f.excite.kernel.assign(keras.random.normal(f.excite.kernel.shape, seed=3))
        branches = {"sphere@A": "b1", "box@A": "b3", "cone@B": "b2", "torus@B": "b2", "slab@B": "b1"}
        branched = regrouped(setting, student, filters, branches, per_task=share == "per_task")
        x = images()
        logits = branched.run(setting.preprocessing(x))
        for stream, block in branches.items():
            task, name = stream.split("@")
            k = student.names.index(block)
            features = student.run(setting.preprocessing(x), stop=k)
            t = next(t for t in setting.teachers if t.name == name)
            whole = branching.entangle(features, k, {name: filters[block, name]}, [t])[name]
            np.testing.assert_allclose(logits[task][:, 0], whole[:, t.rows([task])[0]], rtol=1e-5, atol=1e-6)
        assert len(branched.unique_tails) == (4 if share == "per_teacher_block" else 5)
        assert branched.trunk.names == ("b1", "b2", "b3")
        np.testing.assert_array_equal(branched.as_model()(setting.preprocessing(x))["torus"], logits["torus"])

    def test_trunk_behind_the_last_branch_is_dropped(self, pool, tmp_path):
        setting = self.setting(pool, tasks="sphere,cone")
        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
            filters = afk.start_filters(setting, student, run)
        branched = regrouped(setting, student, filters, {"sphere@A": "b1", "cone@B": "b2"})
        assert branched.trunk.names == ("b1", "b2")


class TestUpdates:
    @pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
    def test_each_phase_changes_exactly_what_it_declares_and_no_teacher(self, pool, tmp_path, batch_norm, monkeypatch):
        config = afk_config(
            pool, block__batchnorm=batch_norm, finetune__batchnorm=batch_norm, filter__gate="sigmoid", student__weights="teacher"
        )
        setting = afk.enter(config)
        of_teachers = {k: v for t in setting.teachers for k, v in t.net.named_variables(t.name).items()}
        before_all, checked = state.values_digest(of_teachers), []
        original = Run.phase

        def watched(run, phase):
            before = {k: v.numpy() for k, v in run.checkpoints.variables.items()}
            declared = {k for k, v in run.checkpoints.variables.items() if any(v is d for d in phase.variables)}
            object.__setattr__(phase, "keep_best", None)  # the best weights may be an earlier epoch's
            original(run, phase)
            changed = {k for k, v in before.items() if not np.array_equal(v, run.checkpoints.variables[k].numpy())}
            checked.append(phase.name)
            assert changed == declared, phase.name

        monkeypatch.setattr(Run, "phase", watched)
        with Run(tmp_path / "run", config.to_dict()) as run:
            afk.amalgamate(setting, run)
        assert checked == ["block/b1", "block/b2", "block/b3", "finetune"]
        assert state.values_digest(of_teachers) == before_all

    @pytest.mark.parametrize("trainable", ["trunk", "tails"])
    def test_finetuning_a_part(self, pool, tmp_path, trainable):
        config = afk_config(pool, finetune__trainable=trainable)
        setting = afk.enter(config)
        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
            filters = afk.start_filters(setting, student, run)
            branched = regrouped(setting, student, filters, dict.fromkeys(map(str, setting.streams), "b2"))
            phase = distillation.distillation_phase(setting, branched, setting.streams, run, "finetune")
        of_trunk = {id(v) for v in branched.trunk.weights()}
        assert {id(v) in of_trunk for v in phase.updates[0].trains} == {trainable == "trunk"}

    def test_tasks_with_tails_of_their_own_can_be_finetuned(self, pool, tmp_path):
        """Their common filter is trained once."""
        _, branched, _ = amalgamate(afk_config(pool, branch__share="per_task"), tmp_path / "run")
        assert len(branched.unique_tails) == 5
        assert len({id(v) for v in branched.tail_weights()}) == len(branched.tail_weights())

    def test_finetuning_that_only_hurts_ends_where_it_began(self, pool, tmp_path):
        config = afk_config(pool, finetune__optimizer__learning_rate=3.0, student__weights="teacher")
        with Run(tmp_path / "run", config.to_dict()) as run:
            results = afk.train(config, run)
        assert results["test"]["student"] == results["test"]["student_before_finetune"]

    def test_hard_targets_are_not_soft_targets(self, pool, tmp_path):
        runs = [amalgamate(afk_config(pool, targets=t, finetune__epochs=0.0), tmp_path / t)[2] for t in ("soft", "hard")]
        assert runs[0]["block_losses/b1"] != runs[1]["block_losses/b1"]


class TestDecisions:
    def test_permuting_the_teachers_permutes_the_decision(self, tmp_path):
        """Same streams, same losses, same branches, whatever order the teachers stand in (a config sorts them by name)."""
        config = afk_config(save_pool(tmp_path / "pool", POOL), student__weights="none", finetune__epochs=0.0)
        books, setting = [], afk.enter(config)
        for i, asked in enumerate((setting, swapped(setting))):
            with Run(tmp_path / str(i), config.to_dict()) as run:
                afk.amalgamate(asked, run)
                books.append(run._book())
        assert asked.teachers == setting.teachers[::-1] != setting.teachers
        assert books[0]["branches"]["value"] == books[1]["branches"]["value"]
        for block in ("b1", "b2", "b3"):
            for stream, values in books[0][f"block_losses/{block}"]["value"].items():
                assert values == pytest.approx(books[1][f"block_losses/{block}"]["value"][stream], rel=1e-4)

    def test_task_known_to_two_teachers_keeps_its_better_stream(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("sphere", "cone")})
        setting, branched, book = amalgamate(afk_config(entries), tmp_path / "run")
        assert [str(s) for s in setting.streams] == ["sphere@A", "box@A", "sphere@B", "cone@B"]
        best = {s: min(book[f"block_losses/{b}"]["value"][s]["loss"] for b in ("b1", "b2", "b3")) for s in ("sphere@A", "sphere@B")}
        kept = min(best, key=best.get)
        assert set(book["branches"]["value"]) == {kept, "box@A", "cone@B"}
        assert branched.tails["sphere"].name.startswith(kept.rpartition("@")[2])

    def test_pinned_stream(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("sphere", "cone")})
        setting = afk.enter(afk_config(entries, "sphere@B,box"))
        assert [str(s) for s in setting.streams] == ["sphere@B", "box@A"]

    def test_unknown_task_lists_what_each_teacher_offers(self, pool):
        with pytest.raises(UserError, match=r"no teacher offers zebra; A: sphere, box; B: cone, torus, slab"):
            afk.enter(afk_config(pool, "box,zebra"))

    def test_unlike_teachers_are_sent_to_customize(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere",)}) | save_pool(tmp_path / "pool2", {"B": ("box",)}, width=1.0)
        with pytest.raises(UserError, match="architecture.*Customize"):
            afk.enter(afk_config(entries))

    def test_three_teachers_and_a_subset(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("cone",), "C": ("torus", "slab")})
        _, branched, book = amalgamate(afk_config(entries, "slab,cone,box"), tmp_path / "run")
        assert sorted(t.name for t in branched.tasks) == ["box", "cone", "slab"]
        assert set(book["branches"]["value"]) == {"box@A", "cone@B", "slab@C"}

    def test_a_pin_beside_all_tasks(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("sphere", "cone")})
        assert [str(s) for s in afk.enter(afk_config(entries, "*,sphere@B")).streams] == ["box@A", "sphere@B", "cone@B"]

    def test_another_teacher_in_the_same_place_is_refused_on_resume(self, pool, tmp_path):
        config = afk_config(pool, finetune__epochs=0.0)
        amalgamate(config, tmp_path / "run")
        teacher("A", POOL["A"], seed=77).save(tmp_path / "pool" / "A")
        with pytest.raises(UserError, match="decided from other data"):
            amalgamate(config, tmp_path / "run")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("targets", "hrad"),
            ("branch__split", "val"),
            ("branch__share", "per-task"),
            ("finetune__trainable", "al"),
            ("block__batchnorm", "btach"),
            ("filter__gate", "tow_sigmoid"),
            ("finetune__optimizer__name", "amad"),
            ("block__optimizer__schedule", "ploy"),
        ],
    )
    def test_misspelt_choices_are_found_before_anything_is_read(self, key, value):
        config = afk_config({"A": {"path": "nowhere", "config": ""}}, **{key: value})
        with pytest.raises(UserError, match=f"unknown {key.replace('__', '.')} '{value}'"):
            afk.enter(config)

    def test_random_start_with_stored_statistics_is_refused(self, pool):
        with pytest.raises(UserError, match="set block.batchnorm=batch"):
            afk.enter(afk_config(pool, block__batchnorm="frozen"))

    def test_ready_weights_want_the_input_they_were_made_for(self, pool, tmp_path):
        setting = afk.enter(afk_config(pool, student__weights="some.h5"))  # teachers read `centred` images, ResNet weights want `caffe`
        with Run(tmp_path / "run", {}) as run, pytest.raises(UserError, match="as teacher A.: set student.normalise=caffe"):
            amalgamation.start_student(setting, run)

    @pytest.mark.parametrize("name", ["student", "a/b", "a@b"])
    def test_teacher_names_that_would_get_in_the_way(self, name):
        with pytest.raises(UserError, match="cannot be called"):
            pools.Pool([teacher(name, ("sphere",), seed=0)])

    def test_teachers_that_may_have_seen_the_test_images_are_named(self):
        same, other = teacher("A", ("sphere",), seed=0), teacher("B", ("box",), seed=1)
        here = common.scenes()
        same.card["recipe"] = {"data": {**here.to_dict(), "root": "elsewhere"}}
        other.card["recipe"] = {"data": {**here.to_dict(), "hold_out_seed": 9}}
        (note,) = pools.foreign_data([same, other], here)
        assert "teacher B" in note and "hold_out_seed" in note

    def test_teachers_beside_a_workdir_that_does_not_exist_yet(self, pool, tmp_path):
        beside = {name: {**entry, "path": "{workdir}/../pool/" + name} for name, entry in pool.items()}
        assert [t.name for t in afk.enter(afk_config(beside), tmp_path / "not_yet").teachers] == ["A", "B"]

    def test_unneeded_teachers_are_left_alone(self, pool):
        assert [t.name for t in afk.enter(afk_config(pool, "cone")).teachers] == ["B"]


class TestTargets:
    def test_cached_targets_are_the_teachers_own_outputs_in_both_views(self, pool):
        setting = afk.enter(afk_config(pool))
        batches: Batches = setting.images.batches(8, 0, setting.targets["train"])
        batch = next(iter(batches.dataset(0, 1)))
        assert set(batch["view"].numpy()) == {0, 1}
        own = amalgamation.task_level_filter(
            {t.name: t.logits(batch["images"]) for t in setting.teachers}, setting.streams, setting.teachers
        )
        for stream, logits in own.items():
            np.testing.assert_allclose(batch[stream], logits, rtol=1e-4, atol=1e-5)

    def test_block_losses_are_means_over_the_held_out_part(self, pool, tmp_path):
        setting = afk.enter(afk_config(pool))
        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
            filters = afk.start_filters(setting, student, run)
        recorded = afk.block_losses(setting, student, 1, filters)
        x = tf.constant(setting.images.pixels["held_out"], tf.float32)
        features = student.run(setting.preprocessing(x), stop=1)
        targets = {s: rows[0] for s, rows in setting.targets["held_out"].items()}
        by_hand = afk.entangled_losses(setting, features, "b2", 1, filters, targets)
        assert {s: v["loss"] for s, v in recorded.items()} == pytest.approx(
            {s: float(tf.reduce_mean(v)) for s, v in by_hand.items()}, rel=1e-5
        )
        assert all(0 < v["divergence"] < v["loss"] for v in recorded.values())


class TestPaper:
    """The module can be held against the paper: its tables name things that exist."""

    def names_of(self, title):
        section = afk.__doc__.split(f"\n{title}\n", 1)[1].split("\n\n")[0]
        return [re.split(r"\s{2,}", line.strip()) for line in section.splitlines() if re.match(r"    \S", line)]

    def find(self, dotted):
        for module, attributes in (("amalgam_tf.methods.afk", dotted), *((f"amalgam_tf.{m}", a) for m, _, a in self.cuts(dotted))):
            try:
                found = importlib.import_module(module)
                for part in attributes.split("."):
                    found = (
                        getattr(found, part)
                        if not hasattr(found, "__dataclass_fields__") or hasattr(found, part)
                        else found.__dataclass_fields__[part]
                    )
                return found
            except (ImportError, AttributeError, KeyError):
                continue
        raise AssertionError(f"{dotted} does not exist")

    def cuts(self, dotted):
        parts = dotted.split(".")
        return [(".".join(parts[:i]), ".", ".".join(parts[i:])) for i in range(1, len(parts))]

    def test_symbols_and_equations_name_existing_things(self):
        symbols, equations = self.names_of("Symbols"), self.names_of("Equations")
        assert len(symbols) >= 9 and [e[0] for e in equations] == [f"Eq. {n}" for n in (1, 2, 3, 4, 6, 7, 8, 9, 10)]
        for dotted in [n for s in symbols for n in s[2].split(", ")] + [e[1] for e in equations]:
            self.find(dotted)

    def test_a_missing_name_would_be_seen(self):
        with pytest.raises(AssertionError):
            self.find("branching.no_such_function")

    def test_algorithm_names_every_line(self):
        import inspect

        source = inspect.getsource(afk.amalgamate)
        assert all(f"({n})" in source for n in (1, 3, 4, 10, 11, 12, 13, 14)) and "(5)-(9)" in source


def test_results_hold_student_teachers_and_trivial_predictor(pool, tmp_path):
    config = afk_config(pool, "box,torus")
    with Run(tmp_path / "run", config.to_dict()) as run:
        results = afk.train(config, run)
    json.dumps(results, allow_nan=False)
    for who in ("student", "student_before_finetune"):
        assert set(results["test"][who]["per_task"]) == {"box", "torus"}
    assert set(results["test"]["A"]["per_task"]) == {"box"} and set(results["test"]["B"]["per_task"]) == {"torus"}
    assert results["test"]["student"]["per_task"]["box"]["all_negative_accuracy"] is not None
    student = pools.Student.load(tmp_path / "run")
    assert student.model.count_params() == results["sizes"]["student"]["parameters"]


def recorded_as(**by_stream):
    """Hand-made block losses: stream -> its losses at b1, b2, b3."""
    blocks = ("b1", "b2", "b3")
    return {b: {s.replace("_", "@"): {"loss": v[i], "divergence": v[i]} for s, v in by_stream.items()} for i, b in enumerate(blocks)}


class TestBranchRules:
    RECORDED = recorded_as(
        sphere_A=(0.10, 0.12, 0.30), box_A=(0.20, 0.20, 0.21), cone_B=(0.1, 0.2, 0.3), torus_B=(0.3, 0.3, 0.3), slab_B=(0.4, 0.3, 0.305)
    )

    def pieces(self, pool, tmp_path, **changes):
        setting = afk.enter(afk_config(pool, **changes))
        with Run(tmp_path / "pieces", {}) as run:
            student = amalgamation.start_student(setting, run)
            return setting, student, afk.start_filters(setting, student, run)

    def test_tolerance_gives_mixed_branches(self, pool, tmp_path):
        branches = afk.choose_branches(*self.pieces(pool, tmp_path, branch__rule="tolerance", branch__tolerance=0.021), self.RECORDED)
        assert branches == {"sphere@A": "b2", "box@A": "b3", "cone@B": "b1", "torus@B": "b3", "slab@B": "b3"}

    def test_smallest_shares_tails_where_tolerance_does_not(self, pool, tmp_path):
        pieces = self.pieces(pool, tmp_path, branch__rule="tolerance", branch__tolerance=0.021)
        sizes = {}
        for rule in ("tolerance", "smallest"):
            pieces[0].config.branch.rule = rule
            branches = afk.choose_branches(*pieces, self.RECORDED)
            sizes[rule] = evaluate.size_of(regrouped(*pieces, branches).as_model())["parameters"]
            for stream, block in branches.items():
                best = min(v[stream]["loss"] for v in self.RECORDED.values())
                assert self.RECORDED[block][stream]["loss"] <= best + 0.021
        assert sizes["smallest"] < sizes["tolerance"]

    def test_all_tasks_at_one_block(self, pool, tmp_path):
        branches = afk.choose_branches(*self.pieces(pool, tmp_path, branch__rule="b2"), self.RECORDED)
        assert set(branches.values()) == {"b2"} and len(branches) == 5

    @pytest.mark.parametrize("share", ["per_teacher_block", "per_task"])
    @pytest.mark.parametrize("kind", ["max_parameters", "max_flops"])
    def test_budget_is_kept_by_the_net_that_is_built(self, pool, tmp_path, kind, share):
        """The predicted cost bounds the real one, tightly; and the limit makes a difference."""
        setting, student, filters = self.pieces(pool, tmp_path, branch__share=share)
        sizes, key = {}, {"max_parameters": "parameters", "max_flops": "flops"}[kind]
        for limit in (1e12, None):
            limit = limit or sizes["free"] * 0.8
            with setting.config.unlocked():
                setting.config.branch.rule, setting.config.branch[kind] = "budget", limit
            branches = afk.choose_branches(setting, student, filters, self.RECORDED)
            built = regrouped(setting, student, filters, branches, per_task=share == "per_task")
            sizes["free" if limit == 1e12 else "limited"] = evaluate.size_of(built.as_model())[key]
        assert sizes["limited"] <= 0.8 * sizes["free"]

    def test_costs_are_those_of_the_built_net(self, pool, tmp_path):
        """One tail a teacher: the prediction is exact."""
        setting, student, filters = self.pieces(pool, tmp_path)
        count = lambda m: blocks.parameters(m.variables)  # noqa: E731
        trunk = branching.trunk_costs(student, count)
        for block in student.names:
            tails = [
                branching.tail_costs(
                    t, {b: filters[b, t.name] for b in student.names}, t.tasks, count, lambda f: blocks.parameters(f.variables)
                )
                for t in setting.teachers
            ]
            built = regrouped(setting, student, filters, dict.fromkeys(map(str, setting.streams), block))
            assert trunk[block] + sum(t[block] for t in tails) == evaluate.size_of(built.as_model())["parameters"]

    def test_too_small_a_budget_is_one_sentence(self, pool, tmp_path):
        pieces = self.pieces(pool, tmp_path, branch__rule="budget", branch__max_parameters=10.0)
        with pytest.raises(UserError, match="the smallest one costs"):
            afk.choose_branches(*pieces, self.RECORDED)

    @pytest.mark.parametrize("limits", [{}, {"branch__max_parameters": 1.0, "branch__max_flops": 1.0}])
    def test_budget_needs_one_limit(self, pool, limits):
        with pytest.raises(UserError, match="needs one limit"):
            afk.enter(afk_config(pool, branch__rule="budget", **limits))

    def test_unknown_rule_lists_rules_and_blocks(self, pool):
        with pytest.raises(UserError, match="unknown branch.rule 'b9'.*budget.*b3"):
            afk.enter(afk_config(pool, branch__rule="b9"))

    def test_a_rule_on_the_blocks_of_another_run(self, pool, tmp_path):
        """Another rule is the same blocks, losses and curve, another branching; nothing is trained again."""
        first = afk_config(pool, curve=True)
        with Run(tmp_path / "first", first.to_dict()) as run:
            whole = afk.train(first, run)
        second = afk_config(pool, branch__rule="b2", branch__blocks_from=str(tmp_path / "first"), curve=True)
        with Run(tmp_path / "second", second.to_dict()) as run:
            again = afk.train(second, run)
            assert run.progress.finished == ["block/b1", "block/b2", "block/b3", "finetune"]
            trained = {json.loads(x)["phase"] for x in (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()}
        assert trained == {"finetune"}
        assert again["block_losses"] == whole["block_losses"] and again["curve"] == whole["curve"]
        assert set(again["branches"].values()) == {"b2"} and again["rule"] == {"name": "fixed", "block": "b2"}
        assert again["test"]["student_before_finetune"] == {**again["curve"]["b2"]["test"]}

    def test_curve_comes_with_the_blocks(self, pool, tmp_path, monkeypatch):
        """Another rule costs its fine-tuning only."""
        first = afk_config(pool, curve=True, finetune__epochs=0.0)
        amalgamate(first, tmp_path / "first")
        monkeypatch.setattr(afk, "curve_on_test", None)
        second = afk_config(pool, curve=True, branch__rule="b2", branch__blocks_from=str(tmp_path / "first"))
        with Run(tmp_path / "second", second.to_dict()) as run:
            assert list(afk.train(second, run)["curve"]) == ["b1", "b2", "b3"]

    def test_blocks_of_other_settings_are_refused(self, pool, tmp_path):
        first = afk_config(pool, finetune__epochs=0.0)
        amalgamate(first, tmp_path / "first")
        other = afk_config(pool, branch__blocks_from=str(tmp_path / "first"), filter__gate="linear")
        with pytest.raises(UserError, match="other settings .filter.gate"), Run(tmp_path / "second", other.to_dict()) as run:
            afk.train(other, run)

    def test_no_blocks_there(self, pool, tmp_path):
        config = afk_config(pool, branch__blocks_from=str(tmp_path / "nowhere"))
        with pytest.raises(UserError, match="blocks.npz does not exist"), Run(tmp_path / "run", config.to_dict()) as run:
            afk.train(config, run)


class TestVariants:
    def test_held_out_numbers_before_finetuning_are_the_block_losses(self, pool, tmp_path):
        """The regrouped net is the entangled path: one number, computed twice."""
        _, _, book = amalgamate(afk_config(pool, finetune__epochs=0.0), tmp_path / "run")
        for stream, block in book["branches"]["value"].items():
            assert book["held_out/before"]["value"][stream] == pytest.approx(book[f"block_losses/{block}"]["value"][stream], rel=1e-4)
        assert book["held_out/before"]["value"] == book["held_out/after"]["value"]

    def test_divergence_is_soft_whatever_the_targets(self, pool, tmp_path):
        """KL(teacher, student) by hand; with hard targets only the loss changes, and no divergence is negative."""
        books = {
            t: amalgamate(afk_config(pool, targets=t, student__weights="teacher", finetune__epochs=0.0), tmp_path / t)
            for t in ("soft", "hard")
        }
        setting, branched, book = books["hard"]
        x = tf.constant(setting.images.pixels["held_out"], tf.float32)
        for stream, values in book["held_out/after"]["value"].items():
            z = setting.targets["held_out"][stream][0][:, 0].astype(np.float64)
            y = branched.run(setting.preprocessing(x))[stream.partition("@")[0]][:, 0].numpy().astype(np.float64)
            p, q = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-y))
            assert values["divergence"] == pytest.approx(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))), abs=1e-5)
            hard = np.round(p)
            assert values["loss"] == pytest.approx(np.mean(-hard * np.log(q) - (1 - hard) * np.log(1 - q)), rel=1e-3)
            assert values["divergence"] >= 0

    def test_one_name_for_two_tasks_is_refused(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": (Task("sphere", head="softmax2"), "cone")})
        with pytest.raises(UserError, match="A and B mean different things by sphere.*take it from one of them, as sphere@A"):
            afk.enter(afk_config(entries))
        assert len(afk.enter(afk_config(entries, "*,sphere@B")).streams) == 3

    @pytest.mark.parametrize("part", ["trunk", "tails"])
    def test_finetuning_a_part_moves_no_other_statistics(self, pool, tmp_path, part):
        """A14: what is frozen uses stored statistics, and keeps them."""
        config = afk_config(pool, finetune__trainable=part, finetune__batchnorm="batch", branch__rule="b2")
        setting = afk.enter(config)
        with Run(tmp_path / "run", config.to_dict()) as run:
            student = amalgamation.start_student(setting, run)
            built = regrouped(setting, student, afk.start_filters(setting, student, run), dict.fromkeys(map(str, setting.streams), "b2"))
            phase = distillation.distillation_phase(setting, built, setting.streams, run, "finetune")
            frozen = [
                *(built.trunk.statistics() if part == "tails" else []),
                *(v for t in built.unique_tails for v in t.net.statistics() if part == "trunk"),
            ]
            moving = phase.updates[0].statistics
            before = [[v.numpy() for v in group] for group in (frozen, moving)]
            phase.updates[0].loss(next(iter(phase.data.dataset(0, 1))))
        after = [[v.numpy() for v in group] for group in (frozen, moving)]
        assert frozen and all(np.array_equal(a, b) for a, b in zip(before[0], after[0], strict=True))
        assert moving and not all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))

    def test_teacher_weights(self, pool):
        """lambda_n (A19): a weighted mean over streams; 1 everywhere is eq. 7."""
        each = {"box@A": tf.constant([1.0, 3.0]), "cone@B": tf.constant([5.0])}
        assert float(amalgamation.total(each, {"box@A": 1.0, "cone@B": 3.0})[0]) == pytest.approx((2 + 3 * 5) / 4)
        assert float(amalgamation.total(each)[0]) == float(amalgamation.total(each, {"box@A": 1.0, "cone@B": 1.0})[0]) == 3.5
        with pytest.raises(UserError, match="teacher_weights.B must be greater than 0"):
            afk.enter(afk_config(pool, teacher_weights__B=0.0))

    def test_one_schedule_over_all_blocks(self, pool, tmp_path):
        """A6: with restart_schedule off, block k begins at the rate where block k - 1 ended."""
        setting = afk.enter(afk_config(pool, block__restart_schedule=False))
        with Run(tmp_path / "run", {}) as run:
            student = amalgamation.start_student(setting, run)
            filters = afk.start_filters(setting, student, run)
            prefix = afk.frozen_part(setting, student, run)
            phases = [afk.block_phase(setting, student, k, filters, prefix, run) for k in range(3)]
        schedules = [optimizers.schedule(p.updates[0].optimizer, p.steps) for p in phases]
        ends = [float(s(p.steps)) for s, p in zip(schedules, phases, strict=True)]
        assert [float(s(0)) for s in schedules] == pytest.approx([5e-3, *ends[:2]])
        assert ends[0] == pytest.approx(5e-3 * (2 / 3) ** 0.9) and ends[2] == 0

    def test_kept_features_change_speed_and_nothing_else(self, pool, tmp_path):
        """The prefix of memory, of disk and of the step give one training, up to the round-off of folded batch norm."""
        books = {}
        for name, limits in {"memory": (1.0, 0.0), "disk": (0.0, 1.0), "step": (0.0, 0.0)}.items():
            changes = {"features__memory_gb": limits[0], "features__disk_gb": limits[1], "finetune__epochs": 0.0, "flip": True}
            config = afk_config(pool, block__optimizer__name="sgd", block__optimizer__learning_rate=0.05, **changes)
            setting, _, book = amalgamate(config, tmp_path / name)
            assert {p.name for p in (tmp_path / name).glob(".features*")} == set()
            books[name] = np.array([[v["loss"] for v in book[f"block_losses/b{k}"]["value"].values()] for k in (1, 2, 3)])
        np.testing.assert_array_equal(books["memory"], books["disk"])
        np.testing.assert_array_equal(books["memory"][0], books["step"][0])  # the first block has no prefix
        np.testing.assert_allclose(books["memory"], books["step"], rtol=1e-4)

    def test_stages_of_teachers_cut_into_units(self, tmp_path):
        """granularity=stage on unit teachers is the same function in fewer blocks."""
        entries = save_pool(tmp_path / "pool", {"A": ("sphere",), "B": ("box",)}, granularity="unit", backbone="resnet14")
        units, stages = (afk.enter(afk_config(entries, granularity=g)) for g in ("", "stage"))
        assert units.teachers[0].net.names == ("b1_1", "b1_2", "b2_1", "b2_2", "b3_1", "b3_2", "head")
        assert stages.teachers[0].net.names == ("b1", "b2", "b3", "head")
        for part in ("train", "held_out"):
            np.testing.assert_array_equal(units.targets[part]["box@B"], stages.targets[part]["box@B"])
        _, branched, _ = amalgamate(afk_config(entries, granularity="stage", student__weights="teacher"), tmp_path / "run")
        assert set(branched.trunk.names) <= {"b1", "b2", "b3"}

    def test_units_cannot_be_had_from_stages(self, pool):
        with pytest.raises(UserError, match="model.granularity=unit"):
            afk.enter(afk_config(pool, granularity="unit"))

    def test_curve_is_every_block_measured(self, pool, tmp_path):
        setting, _, book = amalgamate(afk_config(pool, curve=True, finetune__epochs=0.0), tmp_path / "run")
        curve = book["curve"]["value"]
        assert list(curve) == ["b1", "b2", "b3"]
        assert curve["b1"]["parameters"] > curve["b3"]["parameters"]
        assert all(set(v["test"]["per_task"]) == {t.name for t in setting.tasks} for v in curve.values())
