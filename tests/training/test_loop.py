"""Durable runs: exact resume, declared variables, decisions, NaN stop, workdir rules, precision and strategies."""

import gc
import json
import time
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.data.pipeline import Batches
from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.training import loop, state
from amalgam_tf.training.loop import Interrupted, Run
from amalgam_tf.training.phase import Phase, Update
from tests.methods.helpers import interrupted

ADAM = {"name": "adam", "learning_rate": 0.01, "schedule": "poly"}


def small_net(seed=0):
    """Convolution, batch norm and dropout: everything that has state."""
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Activation("relu", name="end")(x)
    x = keras.layers.Dropout(0.5, seed=1, name="drop")(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Dense(2, name="logits", dtype="float32")(x)
    return BlockNet.cut(keras.Model(image, x, name="small"), ["end"], ["b1", "head"])


def batches(seed=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (20, 8, 8, 3), np.uint8)
    return Batches(images, batch_size=4, seed=seed, columns={"labels": rng.integers(0, 2, (20, 2)).astype(np.int32)})


def phase(net, name="train", steps=6, updates=None, **more):
    def loss(batch):
        logits = net.run(batch["images"] / 64 - 2, training=True)
        return tf.reduce_mean((logits - tf.cast(batch["labels"], tf.float32)) ** 2), {}

    default = Update("all", trains=net.weights(), statistics=net.statistics(), loss=loss, optimizer=ADAM)
    return Phase(name, steps=steps, data=batches(), updates=updates or [default], **more)


def train(workdir, stop_after=None, phases=("one", "two"), **config):
    """Runs two phases; with `stop_after`, Ctrl-C arrives in the middle of that step of the second phase."""
    with Run(workdir, {"save_every_steps": 2, "log_every_steps": 2, **config}) as run:
        net = small_net()
        run.track(net.named_variables("net"))
        run.phase(phase(net, phases[0]))
        data = batches()
        if stop_after is not None:
            interrupted(data, stop_after)
        second = phase(net, phases[1])
        object.__setattr__(second, "data", data)
        run.phase(second)
        return state.values_digest(net.named_variables("net"))


class TestResume:
    @pytest.mark.parametrize("stop_after", [1, 3, 4, 6])
    def test_interrupted_run_equals_uninterrupted_bit_for_bit(self, tmp_path, stop_after):
        whole = train(tmp_path / "whole")
        with pytest.raises(Interrupted):
            train(tmp_path / "parts", stop_after=stop_after)
        assert train(tmp_path / "parts") == whole

    def test_metrics_are_written_once(self, tmp_path):
        with pytest.raises(Interrupted):
            train(tmp_path, stop_after=3)
        with open(tmp_path / "metrics.jsonl", "a") as file:  # rows behind the checkpoint, as after a kill
            file.write('{"total": 99}\n')
        train(tmp_path)
        totals = [json.loads(line)["total"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert totals == sorted(set(totals)) and totals[-1] == 12

    def test_finished_run_does_nothing(self, tmp_path):
        first = train(tmp_path)
        before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").iterdir()}
        assert train(tmp_path) == first
        assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").iterdir()}

    def test_damaged_newest_checkpoint_falls_back(self, tmp_path, capsys):
        whole = train(tmp_path / "whole")
        with pytest.raises(Interrupted):
            train(tmp_path / "run", stop_after=3)
        newest = sorted((tmp_path / "run" / "checkpoints").glob("*.npz"))[-1]
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
        assert train(tmp_path / "run") == whole
        assert f"{newest.name} is damaged" in capsys.readouterr().out

    def test_another_seed_is_another_run(self, tmp_path):
        """Guards the digest: it must be able to differ."""
        a, b = small_net(0), small_net(1)
        assert state.values_digest(a.named_variables("n")) != state.values_digest(b.named_variables("n"))


class TestVariables:
    def test_changed_equals_declared(self, tmp_path):
        net = small_net()

        def loss(batch):
            return tf.reduce_mean(net.run(batch["images"], start=0, training=False) ** 2), {}

        head_only = Update("head", trains=net.weights("head"), loss=loss, optimizer=ADAM)
        before = {k: v.numpy() for k, v in net.named_variables("n").items()}
        with Run(tmp_path, {}) as run:
            run.track(net.named_variables("n"))
            run.phase(phase(net, updates=[head_only]))
        changed = {k for k, v in net.named_variables("n").items() if not np.array_equal(before[k], v.numpy())}
        assert changed == {k for k in before if "/head/" in k and "logits" in k}

    def test_loss_that_ignores_a_declared_variable_is_refused(self, tmp_path):
        net = small_net()
        wrong = Update(
            "wrong", trains=net.weights(), loss=lambda b: (tf.reduce_mean(net.run(b["images"], stop=0) ** 2), {}), optimizer=ADAM
        )
        with Run(tmp_path, {}) as run, pytest.raises(ValueError, match="does not depend on"):
            run.track(net.named_variables("n"))
            run.phase(phase(net, updates=[wrong]))

    def test_untracked_variables_are_refused(self, tmp_path):
        with Run(tmp_path, {}) as run, pytest.raises(ValueError, match="no checkpoint holds"):
            run.phase(phase(small_net()))

    def test_update_may_supply_its_gradient(self, tmp_path):
        """A balance update: the gradient is given, not taped."""
        weight = keras.Variable(np.float32([1.0, 1.0]), name="w")
        update = Update(
            "balance",
            trains=[weight],
            gradient=lambda b: ([tf.constant([1.0, -1.0])], {"g": 0.0}),
            optimizer={"name": "sgd", "learning_rate": 0.1, "momentum": 0.0, "schedule": "constant"},
        )
        with Run(tmp_path, {}) as run:
            run.track({"w": weight})
            run.phase(phase(small_net(), steps=2, updates=[update]))
        np.testing.assert_allclose(weight.numpy(), [0.8, 1.2], rtol=1e-6)


class TestPhase:
    def test_time_is_booked_on_its_phase(self, tmp_path):
        with Run(tmp_path, {}) as run:
            net = small_net()
            run.track(net.named_variables("net"))
            run.phase(phase(net, "one"))
            time.sleep(0.2)
            run.phase(phase(net, "two"))
            spent = run.progress.phase_seconds
            assert list(spent) == ["one", "two"] and min(spent.values()) > 0 and sum(spent.values()) < run.seconds() - 0.2

    def test_step_function_is_made_once_and_freed_behind_its_phase(self, tmp_path, monkeypatch):
        """A run of 16 blocks must not keep 16 graphs."""
        made, original = [], loop.step_function

        def counted(*args):
            step = original(*args)
            made.append(weakref.ref(step))
            return step

        monkeypatch.setattr(loop, "step_function", counted)
        train(tmp_path)
        gc.collect()
        assert len(made) == 2 and [step() for step in made] == [None, None]

    def test_keep_best_restores_the_best_weights(self, tmp_path):
        net, losses, seen = small_net(), iter([9.0, 3.0, 1.0, 2.0]), []

        def validate():
            seen.append(state.values_digest(net.named_variables("n")))
            return {"loss": next(losses)}

        with Run(tmp_path, {}) as run:
            run.track(net.named_variables("n"))
            run.phase(phase(net, validate=validate, validate_every_steps=2, keep_best="loss"))
        digest = state.values_digest({k: v for k, v in net.named_variables("n").items()})
        assert len(set(seen)) == 4 and digest == seen[2]

    def test_training_that_only_hurts_ends_where_it_began(self, tmp_path):
        net, losses = small_net(), iter([1.0, 2.0, 3.0, 4.0])
        before = state.values_digest(net.named_variables("n"))
        with Run(tmp_path, {}) as run:
            run.track(net.named_variables("n"))
            run.phase(phase(net, validate=lambda: {"loss": next(losses)}, validate_every_steps=2, keep_best="loss"))
        assert state.values_digest(net.named_variables("n")) == before

    def test_a_start_that_does_not_count_is_no_candidate(self, tmp_path):
        net, losses, seen = small_net(), iter([2.0, 3.0, 4.0]), []

        def validate():
            seen.append(state.values_digest(net.named_variables("n")))
            return {"loss": next(losses)}

        before = state.values_digest(net.named_variables("n"))
        with Run(tmp_path, {}) as run:
            run.track(net.named_variables("n"))
            run.phase(phase(net, validate=validate, validate_every_steps=2, keep_best="loss", start_counts=False))
        assert len(seen) == 3 and state.values_digest(net.named_variables("n")) == seen[0] != before

    def test_held_out_loss_that_is_not_finite_stops(self, tmp_path):
        net = small_net()
        with Run(tmp_path, {}) as run, pytest.raises(UserError, match="held-out loss is nan at step 6"):
            run.track(net.named_variables("n"))
            run.phase(phase(net, validate=lambda: {"loss": float("nan")}))

    def test_not_finite_stops_with_the_step_range(self, tmp_path):
        net = small_net()
        calls = tf.Variable(0.0)

        def loss(batch):
            poison = tf.where(calls.assign_add(1.0) > 4.0, np.nan, 0.0)
            return tf.reduce_mean(net.run(batch["images"]) ** 2) + poison, {}

        with (
            Run(tmp_path, {"log_every_steps": 3}) as run,
            pytest.raises(UserError, match=r"loss became nan between steps 4 and 6.*learning_rate"),
        ):
            run.track(net.named_variables("n"))
            run.phase(phase(net, updates=[Update("u", trains=net.weights(), loss=loss, optimizer=ADAM)]))

    def test_evaluation_in_the_middle_leaves_training_alone(self, tmp_path):
        """peers.md 1.3: a student that stayed in eval mode after its first test."""
        digests = []
        for validating in (False, True):
            net = small_net()
            more = (
                {"validate": lambda net=net: {"x": float(tf.reduce_sum(net.run(tf.ones((2, 8, 8, 3)))))}, "validate_every_steps": 1}
                if validating
                else {}
            )
            with Run(tmp_path / str(validating), {}) as run:
                run.track(net.named_variables("n"))
                run.phase(phase(net, **more))
            digests.append(state.values_digest(net.named_variables("n")))
        assert digests[0] == digests[1]


class TestDecide:
    def test_computed_once_and_replayed(self, tmp_path):
        calls = []
        for _ in range(2):
            with Run(tmp_path, {}) as run:
                assert run.decide("branch", lambda: calls.append(1) or {"a": [1, 2.5]}, of="x") == {"a": [1, 2.5]}
                assert run.decided("branch") == {"a": [1, 2.5]}
        assert len(calls) == 1

    def test_other_data_is_refused(self, tmp_path):
        with Run(tmp_path, {}) as run:
            run.decide("branch", lambda: 1, of="x")
            with pytest.raises(UserError, match="other data"):
                run.decide("branch", lambda: 1, of="y")

    def test_newer_format_is_refused(self, tmp_path):
        (tmp_path / "decisions.json").write_text('{"format": 99, "decisions": {}}')
        with Run(tmp_path, {}) as run, pytest.raises(UserError, match="newer"):
            run.decide("branch", lambda: 1)


class TestSnapshot:
    def first(self, workdir, **config):
        """One finished phase, a decision, a snapshot, and a second phase behind it."""
        with Run(workdir, {"seed": 0, "section": {"a": 1, "b": 2}, **config}) as run:
            net = small_net()
            run.track(net.named_variables("net"))
            run.phase(phase(net, "one"))
            run.decide("chosen", lambda: "early", of="data")
            at_snapshot = {k: v.numpy() for k, v in net.named_variables("net").items()}
            run.snapshot("blocks")
            run.decide("later", lambda: 1)
            run.phase(phase(net, "two"))
            return at_snapshot, run.seconds()

    def test_goes_on_from_there_and_not_from_the_end(self, tmp_path):
        weights, seconds = self.first(tmp_path / "a")
        with Run(tmp_path / "b", {"seed": 0, "section": {"a": 1, "b": 3}}) as run:
            run.adopt(tmp_path / "a", "blocks", ["seed"])
            net = small_net(seed=9)
            run.track(net.named_variables("net"))
            assert all(np.array_equal(v.numpy(), weights[k]) for k, v in net.named_variables("net").items())
            assert run.progress.finished == ["one"] and 0 < run.seconds() < seconds
            assert list(run.progress.phase_seconds) == ["one"] and 0 < run.progress.phase_seconds["one"] < run.seconds()
            assert run.decide("chosen", lambda: "late", of="data") == "early" and run.decide("later", lambda: 2) == 2
            with pytest.raises(UserError, match="decided from other data"):
                run.decide("chosen", lambda: "late", of="other")
            run.phase(phase(net, "one"))  # skipped
            run.phase(phase(net, "three"))
            assert not all(np.array_equal(v.numpy(), weights[k]) for k, v in net.named_variables("net").items())
            end = state.values_digest(net.named_variables("net"))
        with Run(tmp_path / "b", {"seed": 0, "section": {"a": 1, "b": 3}}) as run:  # adopting again changes nothing
            run.adopt(tmp_path / "a", "blocks", ["seed"], "elsewhere")  # not even looked at
            net = small_net(seed=9)
            run.track(net.named_variables("net"))
            assert state.values_digest(net.named_variables("net")) == end and run.progress.finished == ["one", "three"]

    def test_other_settings_are_named(self, tmp_path):
        self.first(tmp_path / "a")
        with (
            Run(tmp_path / "b", {"seed": 0, "section": {"a": 1, "b": 3}}) as run,
            pytest.raises(UserError, match=r"other settings \(section.b\)"),
        ):
            run.adopt(tmp_path / "a", "blocks", ["seed", "section"])

    def test_other_inputs_are_refused(self, tmp_path):
        self.first(tmp_path / "a")
        with Run(tmp_path / "b", {}) as run, pytest.raises(UserError, match="made from other teachers or images"):
            run.adopt(tmp_path / "a", "blocks", [], inputs="other")

    def test_what_was_trained_on_since_is_not_kept_again(self, tmp_path):
        """A kept file that is gone would otherwise be made from the finished state."""
        self.first(tmp_path / "a")
        with Run(tmp_path / "a", {"seed": 0, "section": {"a": 1, "b": 2}}) as run:
            run.keep("scores", lambda: {"a": np.zeros(2)})
            for name, again in (("blocks", lambda: run.snapshot("blocks")), ("scores", lambda: run.keep("scores", dict))):
                (tmp_path / "a" / f"{name}.npz").unlink()
                with pytest.raises(UserError, match=f"{name}.npz is gone"):
                    again()

    def test_damaged_or_missing(self, tmp_path):
        self.first(tmp_path / "a")
        (tmp_path / "a" / "blocks.npz").write_bytes(b"PK nonsense")
        with Run(tmp_path / "b", {}) as run:
            for name, sentence in (("blocks", "damaged"), ("nosuch", "does not exist")):
                with pytest.raises(UserError, match=sentence):
                    run.adopt(tmp_path / "a", name, [])

    def test_arrays_are_kept(self, tmp_path):
        with Run(tmp_path, {}) as run:
            first = run.keep("scores", lambda: {"a/b": np.arange(3.0)})
            again = run.keep("scores", lambda: {"a/b": np.zeros(3)})
            assert np.array_equal(first["a/b"], [0, 1, 2]) and np.array_equal(again["a/b"], [0, 1, 2])
            assert np.array_equal(run.kept("scores")["a/b"], [0, 1, 2])


class TestWorkdir:
    def test_other_config_is_refused_by_key(self, tmp_path):
        Run(tmp_path, {"a": {"b": 1}, "c": 2}).close()
        with pytest.raises(UserError, match=r"different: a\.b"):
            Run(tmp_path, {"a": {"b": 3}, "c": 2})

    def test_two_runs_on_one_workdir(self, tmp_path):
        with Run(tmp_path, {}), pytest.raises(UserError, match="another process"):
            Run(tmp_path, {})

    def test_file_in_its_place(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot be used"):
            Run(tmp_path / "file" / "run", {})


class TestPrecision:
    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_low_precision_trains_float32_variables(self, tmp_path, policy):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            net = small_net()
            assert net.run(tf.ones((1, 8, 8, 3)), stop=0).dtype == policy.removeprefix("mixed_")
            rows = tmp_path / "metrics.jsonl"
            with Run(tmp_path, {"log_every_steps": 5}) as run:
                run.track(net.named_variables("n"))
                run.phase(phase(net, steps=40))
            losses = [json.loads(line)["loss"] for line in rows.read_text().splitlines()]
        finally:
            keras.config.set_dtype_policy(before)
        assert {v.dtype for v in net.weights()} == {"float32"}
        assert losses[-1] < losses[0]


def test_compiled_steps_have_the_same_losses(tmp_path, monkeypatch):
    """--jit_compile: XLA sums in another order, so equal to float32 round-off."""
    losses, asked, original = [], [], tf.function
    monkeypatch.setattr(tf, "function", lambda *a, **k: asked.append(k.get("jit_compile")) or original(*a, **k))
    for jit in (False, True):
        asked.clear()
        with Run(tmp_path / str(jit), {"log_every_steps": 1}, jit_compile=jit) as run:
            net = small_net()
            run.track(net.named_variables("n"))
            run.phase(phase(net, updates=[without_dropout(net)]))
        assert asked[0] is (True if jit else None)  # the step; what follows is Keras's own
        rows = (tmp_path / str(jit) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in rows])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0][0] != losses[0][-1]


def without_dropout(net):
    """XLA draws other random numbers."""

    def loss(batch):
        features = net.run(batch["images"] / 64 - 2, stop=0, training=True)
        return tf.reduce_mean((net.run(features, start=1) - tf.cast(batch["labels"], tf.float32)) ** 2), {}

    sgd = {"name": "sgd", "learning_rate": 0.05}
    return Update("all", trains=net.weights(), statistics=net.statistics(), loss=loss, optimizer=sgd)
