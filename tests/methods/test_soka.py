"""SOKA against its paper: tables, equations by hand, what each update changes, the balance of tasks, the auxiliary teacher."""

from dataclasses import replace
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, dense_pool, losses
from amalgam_tf.branching import Branched, Tail
from amalgam_tf.methods import soka
from amalgam_tf.models.blocks import named_variables
from amalgam_tf.models.folding import folded
from amalgam_tf.training import optimizers, state
from amalgam_tf.training.loop import Run
from tests.methods.helpers import dense_pool as made_pool
from tests.methods.helpers import dense_teacher, find, soka_config, table_of

TASKS = {"D": "depth_zbuffer", "E": "edge_texture", "N": "normal", "X": "edge_occlusion"}
PAIR = "depth_zbuffer,edge_texture"
W = np.array([0.3, 0.7], np.float32)


@pytest.fixture(scope="module")
def pool():
    return made_pool(TASKS)


@pytest.fixture(scope="module")
def bank():
    """A teacher of the task bank's own architecture."""
    return dense_teacher("B", "normal", 8, bank=True)


def prepared(pool, tasks=PAIR, **changes):
    config = soka_config(pool, tasks, **changes)
    return amalgamation.prepare(config, check=soka.check_teachers, fold=True, pool=pool)


@pytest.fixture(scope="module")
def started(pool, tmp_path_factory):
    """(setting, parts, run, batch) of depth and edges with X as auxiliary teacher; MIA and w are no special values."""
    setting, rng = prepared(pool), np.random.default_rng(4)
    with Run(tmp_path_factory.mktemp("started"), setting.config.to_dict()) as run:
        parts = soka.start(setting, [pool["X"]], run)
        for layer in parts.aggregation.values():
            for v in layer.trainable_variables:
                v.assign(rng.uniform(0.2, 1, v.shape))
        for v in parts.student.statistics():
            v.assign(rng.uniform(-0.1, 0.1, v.shape) if "moving_mean" in v.path else rng.uniform(0.5, 1.5, v.shape))
        parts.weights.assign(W)
        batch = dict(next(iter(dense_pool.batches(setting, run.seed_of("data/cycle"), None, parts.features).dataset(0, 1))))
        assert set(batch["view"].numpy()) == {0, 1}
        yield setting, parts, run, batch


@pytest.fixture(autouse=True)
def as_they_were(request):
    """Every pass in training moves statistics, and updates move the rest: each test begins with the same values."""
    if "started" not in request.fixturenames:
        yield
        return
    parts = request.getfixturevalue("started")[1]
    variables = [*parts.student.named_variables("s").values(), *(v for a in parts.aggregation.values() for v in a.variables), parts.weights]
    before = [v.numpy() for v in variables]
    yield
    for v, value in zip(variables, before, strict=True):
        v.assign(value)


def with_choices(setting, **changes):
    config = setting.config.copy_and_resolve_references()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return replace(setting, config=config)


class ByHand:
    """Every number of a step from blocks called one by one and NumPy."""

    def __init__(self, started):
        self.setting, self.parts, _, self.batch = started
        self.images = self.batch["images"]

    def encoded(self, training):
        x, taps = self.setting.preprocessing(self.images), {}
        for name in ("b1", "b2", "b3", "b4", "code"):
            taps[name] = x = self.parts.student.trunk.block(name)(x, training=training)
        return taps

    def losses(self, code, training):
        """Eq. 5: [L_depth, L_edge] against what the teachers say of the very same (mirrored) images."""
        each = []
        for name in "DE":
            teacher = self.setting.teacher(name)
            goal = teacher.net.run(teacher.preprocessing(self.images)).numpy()
            wrote = self.parts.student.tails[TASKS[name]].net.block("decoder")(code, training=training).numpy()
            each.append(np.mean((wrote - goal) ** 2))
        return np.array(each)

    def theirs(self, pool, tap):
        return [pool[n].net.run(pool[n].preprocessing(self.images), stop=tap).numpy() for n in "DEX"]

    def representation(self, pool, taps):
        """Eqs. 2 to 4 for channel vectors: sum over the taps of mean (A_S - C sum_i W_i A_i)^2."""
        total = 0.0
        for tap in ("b3", "code"):
            layer, sigma = self.parts.aggregation[tap], 0.0
            for w, a in zip(layer.factors.numpy(), self.theirs(pool, tap), strict=True):
                sigma = sigma + w * a
            total += np.mean((taps[tap].numpy() - layer.outer.numpy() * sigma) ** 2)
        return total


class TestPaper:
    """The module can be held against the paper: its tables name things that exist."""

    def test_symbols_equations_and_steps_name_existing_things(self):
        symbols, equations, steps = (table_of(soka, title) for title in ("Symbols", "Equations", "Steps"))
        assert len(symbols) == 8 and [e[0] for e in equations] == [f"Eq. {n}" for n in range(1, 10)]
        assert [s[0] for s in (line[0].split() for line in steps)] == [f"({n})" for n in range(1, 7)]
        for name in [n for s in symbols for n in re.findall(r"[A-Za-z_]+(?:\.[A-Za-z_]+)+|[a-z]+_[a-z_]+", re.sub(r"\(.*\)", "", s[2]))]:
            find(soka, name)
        for name in [*(e[1] for e in equations), *(line[0].split()[1] for line in steps)]:
            find(soka, name)

    def test_a_missing_name_would_be_seen(self):
        with pytest.raises(AssertionError):
            find(soka, "gradnorm.no_such_function")

    def test_every_gap_of_the_paper_is_answered(self):
        assert re.findall(r"^    (S\d+) ", soka.__doc__, re.M) == [f"S{n}" for n in range(1, 18)]

    def test_every_switch_that_is_named_can_be_set(self):
        """`key=value` in the module's head is taken by the config and by the method; other dotted names are keys."""
        head = soka.__doc__
        config = soka_config({"D": {}}, PAIR)
        settings = re.findall(r"`([a-z_.]+)=([A-Za-z_]+)`", head)
        assert {k for k, _ in settings} == {
            "schedule",
            "weights",
            "mia.norm",
            "mia.use",
            "supervised",
            "gradnorm.initial",
            "student.weights",
        }
        for key, value in settings:
            config.update_from_flattened_dict({key: value == "True" if value in ("True", "False") else value})
            soka.check_choices(config)
        sections = "auxiliary|mia|gradnorm|collaboration|student"
        keys = set(re.findall(rf"`((?:{sections})\.[a-z_]+)`", head))
        assert len(keys) >= 9
        for key in keys - {"gradnorm.objective", "gradnorm.Simplex"}:
            section, leaf = key.split(".")
            assert leaf in config[section], key


class TestEquations:
    def test_5_against_the_teachers_own_maps(self, started):
        setting, parts, _, batch = started
        each = soka.soft_losses(setting, parts.student.run(setting.preprocessing(batch["images"])), batch)
        hand = ByHand(started)
        assert {k: v.shape for k, v in each.items()} == {"depth_zbuffer": (6,), "edge_texture": (6,)}
        expected = hand.losses(hand.encoded(False)["code"], False)
        np.testing.assert_allclose([tf.reduce_mean(v) for v in each.values()], expected, rtol=1e-4)

    def test_6_competition_with_a_fixed_encoder_and_decoders_on_the_batch(self, started):
        setting, parts, _, batch = started
        statistics = {part: [v.numpy() for v in parts.student.statistics(part)] for part in ("trunk", "tails")}
        hand = ByHand(started)
        each = hand.losses(hand.encoded(False)["code"], True)
        with tf.GradientTape() as tape:
            tape.watch(parts.weights.value)
            loss, terms = soka.competition_loss(setting, parts, batch)
        assert float(loss) == pytest.approx(W @ each, rel=1e-4)
        assert {k: float(v) for k, v in terms.items()} == pytest.approx(
            {"soft/depth_zbuffer": each[0], "soft/edge_texture": each[1]}, rel=1e-4
        )
        assert tape.gradient(loss, parts.weights.value) is None
        moved = {
            k: [not np.array_equal(a, v) for a, v in zip(old, parts.student.statistics(k), strict=True)] for k, old in statistics.items()
        }
        assert not any(moved["trunk"]) and all(moved["tails"])

    @pytest.mark.parametrize("weighted", [False, True])
    def test_8_collaboration_with_fixed_decoders_and_the_encoder_on_the_batch(self, started, pool, weighted):
        """S6: as printed, and with w, which sums up to the number of tasks then."""
        setting, parts, _, batch = started
        statistics = {part: [v.numpy() for v in parts.student.statistics(part)] for part in ("trunk", "tails")}
        hand = ByHand(started)
        taps = hand.encoded(True)
        each = hand.losses(taps["code"], False)
        features = hand.representation(pool, taps)
        soft = 2 * W @ each if weighted else each.sum()
        loss, terms = soka.collaboration_loss(with_choices(setting, collaboration__weighted=weighted), parts, batch)
        assert float(loss) == pytest.approx(0.05 * soft + features, rel=1e-4)
        assert float(terms["representation/b3"] + terms["representation/code"]) == pytest.approx(features, rel=1e-4)
        assert {k.split("/")[0] for k in terms} == {"soft", "representation", "amalgamated"}
        moved = {
            k: [not np.array_equal(a, v) for a, v in zip(old, parts.student.statistics(k), strict=True)] for k, old in statistics.items()
        }
        assert all(moved["trunk"]) and not any(moved["tails"])

    def test_the_gradient_of_8(self, started, pool):
        """Peers' fault 1: nothing was changed. Here against an expression of its own, of every weight of the encoder and MIA."""
        setting, parts, _, batch = started
        mia = [v for layer in parts.aggregation.values() for v in layer.trainable_variables]
        variables = [v.value for v in [*parts.student.weights("trunk"), *mia]]
        hand = ByHand(started)
        with tf.GradientTape() as tape:
            taps = hand.encoded(True)
            own = 0.0
            for name in "DE":
                goal = setting.teacher(name).logits(batch["images"])
                own += 0.05 * tf.reduce_mean(
                    (parts.student.tails[TASKS[name]].net.block("decoder")(taps["code"], training=False) - goal) ** 2
                )
            for tap in ("b3", "code"):
                layer = parts.aggregation[tap]
                sigma = layer.outer * tf.einsum("ic,inhwc->nhwc", layer.factors.value, np.stack(hand.theirs(pool, tap)))
                own += tf.reduce_mean((taps[tap] - sigma) ** 2)
        expected = tape.gradient(own, variables)
        with tf.GradientTape() as tape:
            loss, _ = soka.collaboration_loss(setting, parts, batch)
        scale = max(float(tf.reduce_max(tf.abs(g))) for g in expected)
        for mine, theirs in zip(tape.gradient(loss, variables), expected, strict=True):
            assert np.any(theirs)
            np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=1e-4 * scale)

    def test_joint_and_the_baselines(self, started, pool):
        """Step 2 is 0.5 sum L_i for two tasks; KD the same; KD + MIA is eq. 8 with everything at once."""
        setting, parts, _, batch = started
        hand = ByHand(started)
        taps = hand.encoded(True)
        each, features = hand.losses(taps["code"], True), hand.representation(pool, taps)
        parts.weights.assign([0.5, 0.5])
        try:
            initial, terms = soka.joint_loss(setting, parts, batch, with_features=False)
            kd, _ = soka.joint_loss(setting, replace(parts, aggregation={}), batch, with_features=True)
            kd_mia, _ = soka.joint_loss(setting, parts, batch, with_features=True)
        finally:
            parts.weights.assign(W)
        assert float(initial) == float(kd) == pytest.approx(0.5 * each.sum(), rel=1e-4)
        assert set(terms) == {"soft/depth_zbuffer", "soft/edge_texture"}
        assert float(kd_mia) == pytest.approx(0.05 * each.sum() + features, rel=1e-4)

    @pytest.mark.parametrize("rep", losses.REPRESENTATIONS)
    def test_kinds_of_representation_loss(self, started, rep):
        """S3 reaches both taps."""
        setting, parts, _, batch = started
        written, total = ByHand(started).encoded(False), 0.0
        for tap, layer in parts.aggregation.items():
            sigma = layer([batch[f"{n}/{tap}"] for n in "DEX"])
            total += float(tf.reduce_mean(losses.representation(student=written[tap], target=sigma, kind=rep)))
        found, _ = soka.representation_loss(with_choices(setting, mia__rep=rep), parts, written, batch)
        assert float(found) == pytest.approx(total, rel=1e-5)

    def test_kept_features_are_those_of_the_step(self, started, tmp_path):
        """Of plain and mirrored images alike, up to the round-off of folded batch norm."""
        setting, parts, run, batch = started
        assert {k.split("/")[1] for k in parts.features} == {"b3", "code"} and len(parts.features) == 6
        written = ByHand(started).encoded(False)
        found = [soka.representation_loss(setting, replace(parts, features=of), written, batch) for of in (parts.features, {})]
        for key, value in found[0][1].items():
            assert float(value) == pytest.approx(float(found[1][1][key]), rel=1e-4)
        assert dense_pool.kept_features(parts.helpers, setting.images, list(parts.aggregation), 0.0) == {}
        plain = dict(next(iter(dense_pool.batches(setting, 0, None).dataset(0, 1))))
        assert not any("/" in k for k in plain) and {"depth_zbuffer@D", "edge_texture@E"} <= set(plain)

    def test_folded_helpers_say_what_the_teachers_say(self, started, pool, bank):
        _, parts, _, batch = started
        helpers = {t.name: t for t in parts.helpers} | {"B": replace(bank, net=folded(bank.net))}
        assert list(helpers) == ["D", "E", "X", "B"]
        for name, teacher in {**{n: pool[n] for n in "DEX"}, "B": bank}.items():
            whole = teacher.net.taps(teacher.preprocessing(batch["images"]))
            for tap, value in dense_pool.at_taps(helpers[name], batch["images"], ["b3", "code"]).items():
                size = float(tf.reduce_max(tf.abs(whole[tap])))
                np.testing.assert_allclose(value, whole[tap], atol=1e-4 * size)
            assert len(helpers[name].net.statistics()) < len(teacher.net.statistics())


class TestBalance:
    """Eqs. 7 and 9, step (5)."""

    def nested(self, started, initial, exponent, squared):
        """(L_grad, its gradient) through w: a tape in a tape, no closed form."""
        setting, parts, _, batch = started
        kernel = parts.student.trunk.block("code").get_layer("code_conv").kernel.value
        w = tf.constant(W)
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape(persistent=True) as inner:
                inner.watch(kernel)
                code, each = ByHand(started).encoded(False)["code"], []
                for name in "DE":
                    goal = setting.teacher(name).logits(batch["images"])
                    wrote = parts.student.tails[TASKS[name]].net.block("decoder")(code, training=False)
                    each.append(tf.reduce_mean((wrote - goal) ** 2))
                weighted = [w[i] * each[i] for i in range(2)]
            norms = tf.stack([tf.reduce_sum(inner.gradient(x, kernel) ** 2) ** (1.0 if squared else 0.5) for x in weighted])
            left = tf.stack(each) / initial
            target = tf.stop_gradient(tf.reduce_mean(norms) * (left / tf.reduce_mean(left)) ** exponent)
            objective = tf.reduce_sum(tf.abs(norms - target))
        return float(objective), outer.gradient(objective, w).numpy()

    @pytest.mark.parametrize(("exponent", "squared"), [(1.5, False), (0.0, False), (1.5, True)])
    def test_gradient_against_a_nested_tape(self, started, exponent, squared):
        setting, parts, _, batch = started
        initial = np.array([0.4, 0.1], np.float32)
        changed = with_choices(setting, gradnorm__exponent=exponent, gradnorm__squared=squared)
        statistics = [v.numpy() for v in parts.student.statistics()]
        (found,), measured = soka.balance_gradient(changed, parts, initial.tolist(), batch)
        objective, expected = self.nested(started, initial, exponent, squared)
        np.testing.assert_allclose(found, expected, rtol=1e-3)
        assert np.all(expected != 0) and float(measured["objective"]) == pytest.approx(objective, rel=1e-3)
        assert [float(measured[f"weight/{t}"]) for t in PAIR.split(",")] == pytest.approx(W.tolist())
        assert all(np.array_equal(a, v) for a, v in zip(statistics, parts.student.statistics(), strict=True))

    def test_w_is_the_kernel_of_the_codes_convolution(self, started, bank):
        """S5."""
        parts = started[1]
        assert parts.last_shared is parts.student.trunk.block("code").get_layer("code_conv").kernel
        tail = Tail("t", "code", None, bank.net.part(start="decoder"), bank.tasks)
        whole = replace(parts, student=Branched(bank.net.part(stop="code"), {"t": tail}))
        assert whole.last_shared is bank.net.block("code").get_layer("compress1").kernel

    def test_no_decay_pulls_at_the_weights(self, started):
        """Peers' fault 2: w shared the network's AdamW. Its own has none, and would not apply it."""
        setting, parts, run, _ = started
        update = soka.cycle_phase(setting, parts, [1.0, 1.0], run, None).updates[-1]
        assert update.name == "balance" and update.optimizer["weight_decay"] == 0
        copy = keras.Variable(W)
        optimizers.build({**update.optimizer, "weight_decay": 0.5}, [copy], steps=5).apply([tf.zeros(2)], [copy])
        np.testing.assert_array_equal(copy, W)


class TestUpdates:
    """Each update changes what it declares, the paper says what that is, and no teacher changes."""

    def changed_by(self, started, pool, folder, pick, steps=1, **changes):
        setting, parts, *_ = started
        setting = with_choices(setting, **changes)
        everything = {**parts.student.named_variables("student"), "task_weights": parts.weights}
        for tap, layer in parts.aggregation.items():
            everything |= named_variables(layer, f"mia/{tap}")
        nets = {**pool, **{f"helper/{t.name}": t for t in parts.helpers}}
        teachers = {k: v for name, t in nets.items() for k, v in t.net.named_variables(name).items()}
        digest, before = state.values_digest(teachers), {k: v.numpy() for k, v in everything.items()}
        with Run(folder, setting.config.to_dict()) as run:
            run.track(everything)
            phase = pick(setting, parts, run)
            run.phase(replace(phase, steps=steps, validate=None, keep_best=None))
        assert state.values_digest(teachers) == digest
        declared = {k for k, v in everything.items() if any(v is d for d in phase.variables)}
        changed = {k for k, v in before.items() if not np.array_equal(v, everything[k].numpy())}
        assert changed == declared
        return changed, set(everything)

    @staticmethod
    def only(name):
        def pick(setting, parts, run):
            phase = soka.cycle_phase(setting, parts, [0.4, 0.1], run, None)
            (update,) = [u for u in phase.updates if u.name == name]
            return replace(phase, updates=[update])

        return pick

    def test_competition_changes_the_decoders(self, started, pool, tmp_path):
        changed, every = self.changed_by(started, pool, tmp_path, self.only("competition"))
        assert changed == {k for k in every if k.startswith(("student/depth_zbuffer/", "student/edge_texture/"))}
        assert sum("moving" in k for k in changed) == 2 * 2

    def test_collaboration_changes_encoder_and_mia(self, started, pool, tmp_path):
        changed, every = self.changed_by(started, pool, tmp_path, self.only("collaboration"))
        assert changed == {k for k in every if k.startswith(("student/b", "student/code", "mia/"))}
        assert sum("moving" in k for k in changed) == 2 * 5 and sum(k.startswith("mia/") for k in changed) == 4

    def test_balance_changes_the_weights_within_their_bounds(self, started, pool, tmp_path):
        changed, _ = self.changed_by(started, pool, tmp_path, self.only("balance"), gradnorm__optimizer__learning_rate=0.9)
        weights = started[1].weights.numpy()
        assert changed == {"task_weights"} and weights.sum() == pytest.approx(1) and weights.min() == pytest.approx(1e-3)

    def test_joint_initialisation_changes_the_student(self, started, pool, tmp_path):
        changed, every = self.changed_by(started, pool, tmp_path, lambda *a: soka.joint_phase(*a, None))
        assert changed == {k for k in every if k.startswith("student/")}

    def test_the_joint_baseline_changes_mia_too(self, started, pool, tmp_path):
        changed, every = self.changed_by(started, pool, tmp_path, self.only("network"), schedule="joint", weights="equal")
        assert changed == {k for k in every if k.startswith(("student/", "mia/"))}

    def test_three_updates_a_batch_in_the_papers_order_on_one_schedule(self, started):
        """S8, S9; the phases share one poly schedule."""
        setting, parts, run, _ = started
        cycle, joint = soka.cycle_phase(setting, parts, [1.0, 1.0], run, None), soka.joint_phase(setting, parts, run, None)
        assert [u.name for u in cycle.updates] == ["competition", "collaboration", "balance"] and cycle.keep_best == "soft"
        first, second = (optimizers.schedule(p.updates[0].optimizer, p.steps) for p in (joint, cycle))
        assert float(first(0)) == pytest.approx(1e-3) and float(first(2)) == float(second(0)) == pytest.approx(1e-3 * (4 / 6) ** 0.9)
        assert float(second(4)) == 0
        rate = optimizers.schedule(cycle.updates[2].optimizer, cycle.steps)
        assert float(rate(0)) == float(rate(4)) == pytest.approx(1e-4)
        equal = soka.cycle_phase(with_choices(setting, weights="equal"), parts, [1.0, 1.0], run, None)
        assert [u.name for u in equal.updates] == ["competition", "collaboration"]

    @pytest.mark.parametrize("schedule", ["acct", "joint"])
    def test_settling_trains_the_same_weights_and_moves_no_statistics(self, started, pool, tmp_path, schedule):
        pick = lambda *a: soka.cycle_phase(*a[:2], [0.4, 0.1], a[2], None, settle=True)  # noqa: E731
        changed, every = self.changed_by(started, pool, tmp_path, pick, schedule=schedule, train__settle_steps=3)
        trained = {k for k in every if k.startswith(("student/", "mia/")) and "moving" not in k}
        assert changed == trained | {"task_weights"}

    def test_settling_ends_the_schedule_and_picks_the_weights(self, started):
        setting, parts, run, _ = started
        setting = with_choices(setting, train__settle_steps=2)
        cycle, settle = (soka.cycle_phase(setting, parts, [1.0, 1.0], run, None, settle=s) for s in (False, True))
        assert (cycle.name, cycle.keep_best, settle.name, settle.keep_best, settle.steps) == ("cycle", None, "settle", "soft", 2)
        assert cycle.start_counts and not settle.start_counts
        assert [u.name for u in settle.updates] == ["competition", "collaboration", "balance"]
        first, second = (optimizers.schedule(p.updates[0].optimizer, p.steps) for p in (cycle, settle))
        assert float(first(4)) == float(second(0)) == pytest.approx(1e-3 * (2 / 8) ** 0.9) and float(second(2)) == 0
