"""AFK against its paper: equations, algorithm, decisions, and what the peers got wrong."""

import importlib
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import branching
from amalgam_tf import teachers as pools
from amalgam_tf.data.pipeline import Batches
from amalgam_tf.errors import UserError
from amalgam_tf.methods import afk
from amalgam_tf.models.adapters import ChannelFilter
from amalgam_tf.tasks import Task, parse
from amalgam_tf.training import state
from amalgam_tf.training.loop import Run
from configs import common
from tests.methods.helpers import SIZE, afk_config, save_pool, teacher

POOL = {"A": ("sphere", "box"), "B": ("cone", "torus", "slab")}


@pytest.fixture
def pool(tmp_path):
    return save_pool(tmp_path / "pool", POOL)


def amalgamate(config, workdir):
    """(setting, branched, run's decisions) of a finished amalgamation."""
    setting = afk.prepare(config)
    with Run(workdir, config.to_dict()) as run:
        branched = afk.amalgamate(setting, run)
        return setting, branched, run._book()


def images(n=6, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(0, 255, (n, SIZE, SIZE, 3)), tf.float32)


class TestEquations:
    def setting(self, pool, **changes):
        return afk.prepare(afk_config(pool, **changes))

    def test_student_equal_to_teacher_with_identity_gate_gives_the_entropy_and_no_gradient(self, pool, tmp_path):
        """Eq. 7 at its minimum, at every block (design section 7)."""
        setting = self.setting(pool, student__weights="teacher", filter__gate="linear", tasks="*@A")
        with Run(tmp_path / "run", {}) as run:
            student, x = afk.start_student(setting, run), images()
            filters = afk.start_filters(setting, student, run)
        a = setting.teachers[0]
        targets = afk.task_level_filter({"A": a.logits(x)}, setting.streams, setting.teachers)
        p = tf.sigmoid(tf.cast(a.logits(x), tf.float64)).numpy()
        entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
        for k, block in enumerate(student.names):
            variables = [*student.weights(k, k), *filters[block, "A"].trainable_variables]
            with tf.GradientTape() as tape:
                features = student.run(setting.preprocessing(x), stop=k)
                each = afk.entangled_losses(setting, features, block, k, filters, targets)
                loss, _ = afk.total(each)
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
        loss, terms = afk.total(afk.customised_losses(setting.streams, *as_tensors, hard=False))
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
        rows = afk.task_level_filter({"A": tf.constant([[0.0, 1, 2, 3, 4]])}, streams, [a])
        assert {k: v.numpy().tolist() for k, v in rows.items()} == {"box@A": [[4.0]], "shape@A": [[1.0, 2.0, 3.0]]}

    @pytest.mark.parametrize("share", ["per_teacher_block", "per_task"])
    def test_regrouped_net_equals_the_entangled_paths(self, pool, tmp_path, share):
        """Eq. 10 with mixed branches: each task's logits are those of its own prefix, filter and teacher's rest."""
        setting = self.setting(pool, branch__share=share)
        with Run(tmp_path / "run", {}) as run:
            student = afk.start_student(setting, run)
            filters = afk.start_filters(setting, student, run)
        for f in filters.values():
            f.excite.kernel.assign(keras.random.normal(f.excite.kernel.shape, seed=3))
        branches = {"sphere@A": "b1", "box@A": "b3", "cone@B": "b2", "torus@B": "b2", "slab@B": "b1"}
        branched = afk.regroup(student, filters, setting, branches)
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
            student = afk.start_student(setting, run)
            filters = afk.start_filters(setting, student, run)
        branched = afk.regroup(student, filters, setting, {"sphere@A": "b1", "cone@B": "b2"})
        assert branched.trunk.names == ("b1", "b2")


class TestUpdates:
    @pytest.mark.parametrize("batch_norm", ["batch", "frozen"])
    def test_each_phase_changes_exactly_what_it_declares_and_no_teacher(self, pool, tmp_path, batch_norm, monkeypatch):
        config = afk_config(
            pool, block__batchnorm=batch_norm, finetune__batchnorm=batch_norm, filter__gate="sigmoid", student__weights="teacher"
        )
        setting = afk.prepare(config)
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
        setting = afk.prepare(config)
        with Run(tmp_path / "run", {}) as run:
            student = afk.start_student(setting, run)
            branched = afk.regroup(
                student, afk.start_filters(setting, student, run), setting, dict.fromkeys(map(str, setting.streams), "b2")
            )
            phase = afk.finetune_phase(setting, branched, dict.fromkeys(map(str, setting.streams), "b2"), run)
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
        """Same streams, same losses, same branches, whatever order the pool is listed in."""
        entries = save_pool(tmp_path / "pool", POOL)
        swapped = dict(reversed(entries.items()))
        books = []
        for i, teachers in enumerate((entries, swapped)):
            config = afk_config(teachers, student__weights="none", finetune__epochs=0.0)
            books.append(amalgamate(config, tmp_path / str(i))[2])
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
        setting = afk.prepare(afk_config(entries, "sphere@B,box"))
        assert [str(s) for s in setting.streams] == ["sphere@B", "box@A"]

    def test_unknown_task_lists_what_each_teacher_offers(self, pool):
        with pytest.raises(UserError, match=r"no teacher offers zebra; A: sphere, box; B: cone, torus, slab"):
            afk.prepare(afk_config(pool, "box,zebra"))

    def test_unlike_teachers_are_sent_to_customize(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere",)}) | save_pool(tmp_path / "pool2", {"B": ("box",)}, width=1.0)
        with pytest.raises(UserError, match="architecture.*Customize"):
            afk.prepare(afk_config(entries))

    def test_three_teachers_and_a_subset(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("cone",), "C": ("torus", "slab")})
        _, branched, book = amalgamate(afk_config(entries, "slab,cone,box"), tmp_path / "run")
        assert sorted(t.name for t in branched.tasks) == ["box", "cone", "slab"]
        assert set(book["branches"]["value"]) == {"box@A", "cone@B", "slab@C"}

    def test_a_pin_beside_all_tasks(self, tmp_path):
        entries = save_pool(tmp_path / "pool", {"A": ("sphere", "box"), "B": ("sphere", "cone")})
        assert [str(s) for s in afk.prepare(afk_config(entries, "*,sphere@B")).streams] == ["box@A", "sphere@B", "cone@B"]

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
        ],
    )
    def test_misspelt_choices_are_found_before_anything_is_read(self, key, value):
        config = afk_config({"A": {"path": "nowhere", "config": ""}}, **{key: value})
        with pytest.raises(UserError, match=f"unknown {key.replace('__', '.')} '{value}'"):
            afk.prepare(config)

    def test_random_start_with_stored_statistics_is_refused(self, pool):
        with pytest.raises(UserError, match="set block.batchnorm=batch"):
            afk.prepare(afk_config(pool, block__batchnorm="frozen"))

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

    def test_unneeded_teachers_are_left_alone(self, pool):
        assert [t.name for t in afk.prepare(afk_config(pool, "cone")).teachers] == ["B"]


class TestTargets:
    def test_cached_targets_are_the_teachers_own_outputs_in_both_views(self, pool):
        setting = afk.prepare(afk_config(pool))
        batches: Batches = setting.images.batches(8, 0, setting.targets["train"])
        batch = next(iter(batches.dataset(0, 1)))
        assert set(batch["view"].numpy()) == {0, 1}
        own = afk.task_level_filter({t.name: t.logits(batch["images"]) for t in setting.teachers}, setting.streams, setting.teachers)
        for stream, logits in own.items():
            np.testing.assert_allclose(batch[stream], logits, rtol=1e-4, atol=1e-5)

    def test_block_losses_are_means_over_the_held_out_part(self, pool, tmp_path):
        setting = afk.prepare(afk_config(pool))
        with Run(tmp_path / "run", {}) as run:
            student = afk.start_student(setting, run)
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
