"""SOKA's runs: the auxiliary teacher, refusals, plans, resume bit for bit, baselines from true maps, the student on disk and exported."""

from dataclasses import replace
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import amalgamation, choice, data, dense, dense_pool, evaluate, export, planning
from amalgam_tf.data import codecs
from amalgam_tf.errors import UserError
from amalgam_tf.methods import soka
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Student
from amalgam_tf.training.loop import Interrupted, Run
from configs import common_dense
from tests.methods.helpers import MAP_SIZE, dense_teacher, interrupted, save_dense_pool, soka_config
from tests.methods.helpers import dense_pool as made_pool

TASKS = {"D": "depth_zbuffer", "E": "edge_texture", "N": "normal", "X": "edge_occlusion"}
PAIR, THREE = "depth_zbuffer,edge_texture", "depth_zbuffer,edge_texture,normal"


@pytest.fixture(scope="module")
def pool():
    return made_pool(TASKS)


def prepared(pool, tasks=PAIR, **changes):
    config = soka_config(pool, tasks, **changes)
    return amalgamation.prepare(config, check=soka.check_teachers, fold=True, pool=pool)


@pytest.fixture(scope="module")
def setting(pool):
    return prepared(pool)


def with_choices(setting, **changes):
    config = setting.config.copy_and_resolve_references()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return replace(setting, config=config)


def refused(message, call, *args, **options):
    with pytest.raises(UserError, match=message) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)


class TestAuxiliary:
    """Who is chosen is the business of `dense_pool`; here, what a run makes of it."""

    def asked(self, pool, folder, **changes):
        setting = prepared(pool, **changes)
        with Run(folder, setting.config.to_dict()) as run:
            return soka.auxiliary_teachers(setting, pool, run), {k: run.decided(k) for k in ("similarities", "auxiliary")}

    def test_the_choice_by_what_was_measured(self, pool, tmp_path):
        more, decided = self.asked(pool, tmp_path, auxiliary__choose="strongest")
        similar = decided["similarities"]
        assert [t.name for t in more] == [decided["auxiliary"]] == [choice.strongest(similar, ["D", "E"])] and set(similar) == set(TASKS)

    @pytest.mark.parametrize("choose", ["auto", "strongest", "weakest", "N"])
    def test_without_mia_no_one_is_asked(self, pool, tmp_path, monkeypatch, choose):
        monkeypatch.setattr(dense_pool, "at_taps", None)
        assert self.asked(pool, tmp_path, auxiliary__choose=choose, mia__use=False) == ([], {"similarities": {}, "auxiliary": ""})

    def test_another_encoder_is_refused(self, pool, tmp_path):
        changed = {**pool, "X": dense_teacher("X", "edge_occlusion", 5, channels=6)}
        message = r"SOKA needs encoders of one architecture, but the blocks of D .* and X .* differ: leave one"
        refused(message, self.asked, changed, tmp_path, auxiliary__choose="X")


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("schedule", "acc"),
            ("weights", "gradnrom"),
            ("mia__kind", "chanel"),
            ("mia__norm", "softmax"),
            ("mia__rep", "mes"),
            ("auxiliary__rule", "some"),
            ("auxiliary__choose", "strong"),
            ("gradnorm__initial", "warmup"),
            ("student__weights", "teachers"),
            ("train__optimizer__name", "amad"),
            ("train__optimizer__schedule", "ploy"),
            ("gradnorm__optimizer__name", "amad"),
            ("gradnorm__optimizer__schedule", "ploy"),
        ],
    )
    def test_misspelt_choices(self, key, value):
        """Before anything is read or trained."""
        refused(f"unknown {key.replace('__', '.')} '{value}'", soka.check_choices, soka_config({"D": {}}, PAIR, **{key: value}))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"mia__kind": "matmul", "mia__norm": "softmax_w"}, "mia.norm=softmax_w .* choose unit_rows"),
            ({"targets": "hard"}, "leave targets=soft and every teacher_weights at 1"),
            ({"teacher_weights__D": 2.0}, "leave targets=soft and every teacher_weights at 1"),
            ({"train__steps": 0}, "set init.steps and train.steps, .* to 1 or more"),
            ({"init__steps": 0}, "set init.steps and train.steps, .* to 1 or more"),
            ({"train__settle_steps": -1}, "train.settle_steps to 0"),
        ],
    )
    def test_choices_that_cannot_be(self, changes, message):
        refused(message, soka.check_choices, soka_config({"D": {}}, PAIR, **changes))

    def test_no_words_are_wrong_to_begin_with(self, pool):
        for changes in ({}, *common_dense.VARIANTS.values()):
            soka.check_choices(soka_config(pool, PAIR, **{k.replace(".", "__"): v for k, v in changes.items()}))

    @pytest.mark.parametrize("enter", [prepared, lambda pool, tasks: soka.plan(soka_config(pool, tasks), pool)])
    def test_teachers_that_cannot_be_amalgamated(self, pool, enter):
        """By a run, before it reads images, and by a plan."""
        another = dense_teacher("F", "edge_texture", 7)
        both = replace(another, tasks=(another.tasks[0], codecs.task("keypoints2d")), net=dense_teacher("G", "principal_curvature", 7).net)
        labels = replace(dense_teacher("L", "edge_texture", 7), tasks=(Task("sphere"),))
        refused("at least two tasks, not depth_zbuffer alone", enter, pool, "depth_zbuffer")
        refused("edge_texture is known to several .* as edge_texture@E", enter, {**pool, "F": another}, PAIR)
        refused("F has one decoder for edge_texture, keypoints2d", enter, {"D": pool["D"], "F": both}, PAIR)
        refused("teacher L predicts maps, and sphere is none", enter, {"D": pool["D"], "L": labels}, "depth_zbuffer,sphere")
        unlike = dense_teacher("E", "edge_texture", 7, channels=6)
        refused("one architecture, but the blocks of D .* and E .* differ", enter, {"D": pool["D"], "E": unlike}, PAIR)

    def test_true_maps_beyond_tanh(self, pool):
        """Of curvature: a student follows a teacher's, which ends in tanh too, but learns none of its own."""
        pair = [pool["D"], dense_teacher("C", "principal_curvature", 7)]
        soka.check_teachers(pair)
        refused(
            "student ends in tanh and cannot learn true maps of principal_curvature.* supervised=False", soka.check_teachers, pair, True
        )
        known = {t.name: t for t in pair}
        config = soka_config(known, "depth_zbuffer,principal_curvature", supervised=True)
        refused("student ends in tanh", soka.plan, config, known)

    def test_a_task_of_two_teachers_can_be_pinned(self, pool):
        known = {**pool, "F": dense_teacher("F", "edge_texture", 7)}
        streams, teachers = amalgamation.chosen(soka_config(known, "depth_zbuffer,edge_texture@F"), known)
        soka.check_teachers(teachers)
        assert [str(s) for s in streams] == ["depth_zbuffer@D", "edge_texture@F"]


class TestPlan:
    @pytest.fixture(autouse=True)
    def counted(self, monkeypatch):
        monkeypatch.setattr(planning, "counts", lambda config: planning.Counts(18, 6, 12, 1))

    def plan(self, pool, **changes):
        return soka.plan(soka_config(pool, PAIR, **changes), pool)

    def test_work_of_kd_by_hand(self, pool):
        """Three forward passes a step of encoder and two decoders; the teachers once on 24 images, all three nets on 12."""
        made = self.plan(pool, **{k.replace(".", "__"): v for k, v in common_dense.VARIANTS["kd"].items()})
        places = {"b1": 16 * 16, "b2": 8 * 8, "b3": 8 * 8, "b4": 8 * 8, "code": 8 * 8}
        kernels = {"b1": 27 * 4, "b2": 36 * 8, "b3": 72 * 8, "b4": 72 * 8, "code": 72 * 4}
        encoder = sum(places[b] * kernels[b] for b in places)
        decoder = 8 * 8 * 16 * 4 * 8 + 32 * 32 * 72
        lines = {line.name: line for line in made.lines}
        assert list(lines) == ["teachers' maps", "cycle", "test"] and lines["cycle"].steps == 4
        assert lines["teachers' maps"].work == pytest.approx(24 * 2 * (encoder + decoder))
        held_out = 6 * (encoder + 2 * decoder) / 3  # once an epoch of three steps
        assert lines["cycle"].work == pytest.approx(4 * (6 * 3 * (encoder + 2 * decoder) + held_out))
        assert lines["test"].work == pytest.approx(12 * (encoder + 2 * decoder + 2 * (encoder + decoder)))

    def test_every_variant(self, pool):
        whole = self.plan(pool)
        assert [line.name for line in whole.lines] == ["teachers' maps", "joint", "cycle", "test"]
        for name, changes in common_dense.VARIANTS.items():
            made = self.plan(pool, **{k.replace(".", "__"): v for k, v in changes.items()})
            joint = changes.get("schedule") != "joint"
            assert ["joint" in [line.name for line in made.lines], len(made.lines)] == [joint, 3 + joint], name
            assert all(line.work > 0 for line in made.lines) and made.memory > 0 and made.disk > 0 and made.caches > 0
            cost = {line.name: line.work for line in made.lines}["cycle"]
            assert cost <= whole.lines[2].work
            assert (cost < whole.lines[2].work) == (changes.get("weights") == "equal" or not joint), name

    def test_features_that_do_not_fit_are_computed_in_every_step(self, pool):
        kept, computed = (self.plan(pool, features__memory_gb=gb) for gb in (1.0, 0.0))
        encoder = sum(planning.work(pool["D"].net)[:-1])
        assert kept.lines[0].work - computed.lines[0].work == pytest.approx(18 * 3 * encoder)
        assert computed.lines[2].work - kept.lines[2].work == pytest.approx(4 * 6 * 3 * encoder)
        assert kept.memory - computed.memory == pytest.approx(4.0 * 18 * 3 * (8 * 8 * 8 + 8 * 8 * 4))


# -- runs -------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The `teachers` section of a config."""
    return save_dense_pool(tmp_path_factory.mktemp("pool"), TASKS)


def whole_config(saved, **changes):
    return soka_config(saved, THREE, auxiliary__choose="strongest", gradnorm__optimizer__learning_rate=0.05, **changes)


@pytest.fixture(scope="module")
def finished(saved, tmp_path_factory):
    """(workdir, results) of a run for three tasks (peers' fault 3: two by construction), with the fourth teacher's help."""
    folder, config, reads = tmp_path_factory.mktemp("finished") / "run", whole_config(saved), []
    read = data.load
    with Run(folder, config.to_dict()) as run, pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda options, split: reads.append(split) or read(options, split))
        results = soka.train(config, run)
        run.finish(results)
    assert sorted(reads) == ["test", "train"]  # each once, for pixels and true maps alike
    return folder, results


@pytest.fixture(scope="module")
def entered(saved):
    """(setting, pool) of another process on the same run."""
    config = whole_config(saved)
    pool = amalgamation.load_pool(config)
    return amalgamation.prepare(config, check=soka.check_teachers, fold=True, pool=pool), pool


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def book_of(folder):
    book = json.loads((folder / "decisions.json").read_text())["decisions"]
    return {k: v for k, v in book.items() if k != "latency"}


class TestRun:
    def test_results(self, finished):
        folder, results = finished
        json.dumps(results, allow_nan=False)
        assert results["tasks"] == THREE.split(",") and results["teachers"] == {n: [TASKS[n]] for n in "DEN"}
        assert results["auxiliary"] == "X" and set(results["similarities"]) == set(TASKS)
        weights = list(results["task_weights"].values())
        assert sum(weights) == pytest.approx(1) and not np.allclose(weights, 1 / 3, atol=1e-3)
        assert set(results["test"]) == {"data", "images", "student", *"DEN", *dense.TRIVIAL} and results["test"]["images"] == 12
        assert set(results["test"]["student"]["per_task"]) == set(THREE.split(",")) and set(results["test"]["D"]["per_task"]) == {
            "depth_zbuffer"
        }
        assert results["mia_parameters"] == (4 + 1) * (8 + 4)  # W_i and C by channel, of four teachers at both taps
        assert results["best"]["value"] == pytest.approx(sum(results["held_out"].values()), rel=1e-4)
        rows = rows_of(folder)
        terms = {k for r in rows for k in r}
        assert {f"collaboration/{kind}/{tap}" for kind in ("representation", "amalgamated") for tap in ("b3", "code")} <= terms
        assert {"competition/soft/depth_zbuffer", "balance/objective", "balance/weight/edge_texture", "held_out/soft"} <= terms
        assert [r["step"] for r in rows if r["phase"] == "joint"] == [1, 2] and not any(k.startswith("balance") for k in rows[0])
        decided = book_of(folder)
        assert list(decided)[:4] == ["inputs", "similarities", "auxiliary", "auxiliary_inputs"]
        first = next(r for r in rows if r["phase"] == "cycle")  # L_i(0) is what the joint initialisation ended with (S10)
        assert {k: first[f"held_out/soft/{k}"] for k in THREE.split(",")} == pytest.approx(results["initial_losses"], rel=1e-5)

    def test_a_finished_run_replays(self, saved, finished):
        folder, results = finished
        before, config = rows_of(folder), whole_config(saved)
        with Run(folder, config.to_dict()) as run:
            again = soka.train(config, run)
        assert json.loads(json.dumps(again)) == json.loads(json.dumps(results)) and rows_of(folder) == before

    def test_interrupted_in_both_phases_equals_uninterrupted_bit_for_bit(self, saved, entered, finished, tmp_path, monkeypatch):
        """Ctrl-C while all train jointly, and again in the cycle: w, all slots and L_i(0) go on."""

        def attempt():
            with Run(tmp_path, whole_config(saved).to_dict()) as run:
                return soka.amalgamate(*entered, run)

        for name, after in (("joint_phase", 1), ("cycle_phase", 3)):
            original = getattr(soka, name)

            def cut_short(*args, original=original, after=after):
                phase = original(*args)
                interrupted(phase.data, after)
                return phase

            with monkeypatch.context() as patch, pytest.raises(Interrupted):
                patch.setattr(soka, name, cut_short)
                attempt()
        parts = attempt()
        assert rows_of(tmp_path) == rows_of(finished[0]) and book_of(tmp_path) == book_of(finished[0])
        assert dict(zip(THREE.split(","), parts.weights.numpy().tolist(), strict=True)) == finished[1]["task_weights"]
        for mine, theirs in zip(parts.student.as_model().weights, Student.load(finished[0]).model.weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)

    def test_another_auxiliary_teacher_in_the_same_place_is_refused(self, saved, entered, finished):
        setting, pool = entered
        changed = {**pool, "X": replace(pool["X"], card={"sha256": "another"})}
        with Run(finished[0], whole_config(saved).to_dict()) as run:
            refused("decided from other data", soka.amalgamate, setting, changed, run)

    def test_student_on_disk_is_measured_the_same(self, finished):
        folder, results = finished
        student = Student.load(folder)
        assert [t.name for t in student.tasks] == THREE.split(",")
        assert student.model.count_params() == results["sizes"]["student"]["parameters"]
        again = evaluate.saved(folder, {})
        for task, metrics in results["test"]["student"]["per_task"].items():
            assert again["per_task"][task] == pytest.approx(metrics, rel=1e-6)
        refused(r"predicts maps \(depth_zbuffer, edge_texture, normal\)", evaluate.files, folder, ["a.jpg"])

    def test_exported_in_physical_units(self, finished, tmp_path):
        student = Student.load(finished[0])
        assert export.write(student, tmp_path / "export") < 1e-4
        images = tf.constant(np.random.default_rng(1).integers(0, 255, (3, MAP_SIZE, MAP_SIZE, 3)), tf.float32)
        served = tf.saved_model.load(str(tmp_path / "export")).signatures["serve"](images=images)
        codes = student.outputs(images)
        channels = {"depth_zbuffer": 1, "edge_texture": 1, "normal": 3}
        assert {k: tuple(v.shape) for k, v in served.items()} == {k: (3, MAP_SIZE, MAP_SIZE, n) for k, n in channels.items()}
        metres = (65536.0 ** np.clip(codes["depth_zbuffer"], 0, 1) - 1) / 512
        np.testing.assert_allclose(served["depth_zbuffer"], metres, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(served["edge_texture"], (np.asarray(codes["edge_texture"]) + 1) / 2, atol=1e-5)
        vectors, code = served["normal"].numpy(), codes["normal"].numpy()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
        np.testing.assert_allclose(np.sum(vectors * code, -1), np.linalg.norm(code, axis=-1), rtol=1e-4)


class TestVariants:
    def amalgamated(self, pool, folder, true=None, **changes):
        setting = prepared(pool, train__steps=2, train__validate_every_steps=0, **changes)
        with Run(folder, setting.config.to_dict()) as run:
            return soka.amalgamate(setting, pool, run, true)

    @pytest.mark.parametrize(("schedule", "initial"), [("acct", "after_warmup"), ("acct", "init"), ("joint", "after_warmup")])
    def test_order_of_the_steps(self, setting, pool, tmp_path, monkeypatch, schedule, initial):
        """S10: L_i(0) is measured behind the joint initialisation, or in front of it."""
        events = []
        monkeypatch.setattr(Run, "phase", lambda run, phase: events.append(phase.name))
        monkeypatch.setattr(soka, "held_out_losses", lambda *_: lambda: events.append("L(0)") or dict.fromkeys(PAIR.split(","), 1.0))
        changed = with_choices(setting, schedule=schedule, gradnorm__initial=initial, mia__use=False, auxiliary__choose="none")
        with Run(tmp_path, changed.config.to_dict()) as run:
            soka.amalgamate(changed, pool, run)
        joint = ["joint"] if schedule == "acct" else []
        assert events == (["L(0)", *joint, "cycle"] if initial == "init" else [*joint, "L(0)", "cycle"])

    def test_supervised_follows_true_maps_where_they_are_known(self, setting, tmp_path):
        """dMTL: the loss by NumPy; an image without a valid pixel adds nothing, whatever stands there; the teachers' maps are not read."""
        rng, n = np.random.default_rng(3), len(setting.images.pixels["train"])
        setting = with_choices(setting, supervised=True, schedule="joint", weights="equal", mia__use=False)
        true = dense.truth(data.parts(setting.config.data, PAIR.split(",")).train, setting.tasks, MAP_SIZE, None)
        valid = rng.integers(0, 2, (n, MAP_SIZE, MAP_SIZE)).astype(np.uint8)
        unknown = np.array(true.codes["depth_zbuffer"])
        valid[: n // 2], unknown[: n // 2] = 0, np.nan
        true = dense.Truth({**true.codes, "depth_zbuffer": unknown}, {**true.valid, "depth_zbuffer": valid})
        with Run(tmp_path, setting.config.to_dict()) as run:
            parts = soka.start(setting, [], run)
            batches = dense_pool.batches(setting, run.seed_of("data/cycle"), {"train": true})
        batch = dict(next(iter(batches.dataset(0, 1))))
        assert not any("@" in k for k in batch) and set(batch["view"].numpy()) == {0, 1}
        predictions = parts.student.run(setting.preprocessing(batch["images"]))
        each = soka.soft_losses(setting, predictions, batch)["depth_zbuffer"].numpy()
        for k, (index, view) in enumerate(zip(batch["index"].numpy(), batch["view"].numpy(), strict=True)):
            mask, goal = (x[index][:, ::-1] if view else x[index] for x in (valid, unknown))
            off = (predictions["depth_zbuffer"][k].numpy() - goal)[mask > 0]
            assert each[k] == (pytest.approx(np.mean(off**2), rel=1e-5) if len(off) else 0)
        assert 0 < sum(batch["index"].numpy() < n // 2) < 6
        with tf.GradientTape() as tape:
            loss, _ = soka.joint_loss(setting, parts, batch, with_features=True)
        assert np.isfinite(loss) and all(np.all(np.isfinite(g)) for g in tape.gradient(loss, [v.value for v in parts.student.weights()]))

    def test_gradnorm_from_true_maps(self, pool, tmp_path):
        """Table 3's second baseline: joint, balanced, with the truth in training and on held-out images."""
        changes = {k.replace(".", "__"): v for k, v in common_dense.VARIANTS["gradnorm"].items()}
        config = soka_config(pool, PAIR)
        loaded, tasks = data.parts(config.data, PAIR.split(",")), [codecs.task(t) for t in PAIR.split(",")]
        true = {part: dense.truth(getattr(loaded, part), tasks, MAP_SIZE, None) for part in ("train", "held_out")}
        parts = self.amalgamated(pool, tmp_path, true, gradnorm__optimizer__learning_rate=0.05, **changes)
        assert parts.weights.numpy().sum() == pytest.approx(1) and abs(parts.weights.numpy()[0] - 0.5) > 1e-3
        rows = rows_of(tmp_path)
        assert {r["phase"] for r in rows} == {"cycle"} and "network/soft/depth_zbuffer" in rows[1] and parts.features == {}
        x = tf.constant(loaded.held_out.images, tf.float32)
        written = parts.student.run(pool["D"].preprocessing(x))["depth_zbuffer"].numpy()
        expected = np.mean((written - true["held_out"].codes["depth_zbuffer"]) ** 2)
        best = min((r for r in rows if "held_out/soft" in r), key=lambda r: r["held_out/soft"])
        assert best["held_out/soft/depth_zbuffer"] == pytest.approx(expected, rel=1e-4)

    def test_kd_reads_no_truth(self, pool, tmp_path, monkeypatch):
        monkeypatch.setattr(dense, "seen", None)
        monkeypatch.setattr(dense, "truth", None)
        changes = {k.replace(".", "__"): v for k, v in common_dense.VARIANTS["kd"].items()}
        parts = self.amalgamated(pool, tmp_path, **changes)
        assert parts.aggregation == {} and parts.features == {} and parts.weights.numpy().tolist() == [0.5, 0.5]
        assert {r["phase"] for r in rows_of(tmp_path)} == {"cycle"}

    def test_starts(self, setting, pool, tmp_path):
        """S14: functions of the seed that take nothing from a teacher; by its switch, the encoder of the first one."""
        starts = {}
        for name, seed, weights in (("a", 0, "none"), ("b", 0, "none"), ("c", 1, "none"), ("teacher", 0, "teacher")):
            changed = with_choices(setting, mia__use=False, student__weights=weights)
            with Run(tmp_path / name, {"seed": seed}) as run:
                named = soka.start(changed, [], run).student.named_variables("s")
            starts[name] = {k: v.numpy() for k, v in named.items()}
        taught = {k.replace("t/", "s/", 1): v.numpy() for k, v in pool["D"].net.part(stop="code").named_variables("t").items()}
        equal = {}
        for pair in (("a", "b"), ("a", "c"), ("a", "teacher")):
            first, second = (starts[n] for n in pair)
            equal[pair] = {k for k in first if k.endswith("/kernel") and np.array_equal(first[k], second[k])}
        kernels = {k for k in starts["a"] if k.endswith("/kernel")}
        assert len(kernels) == 5 + 2 * 2 and equal["a", "b"] == kernels and equal["a", "c"] == set()
        assert equal["a", "teacher"] == {k for k in kernels if "decoder" in k}
        assert len(taught) == 25 and all(np.array_equal(v, starts["teacher"][k]) for k, v in taught.items())

    def test_bfloat16(self, tmp_path):
        """Kept features and maps go through the batches; w, losses and maps are float32."""
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            pool = made_pool({n: TASKS[n] for n in "DEX"})
            setting = prepared(pool, precision="mixed_bfloat16")
            with Run(tmp_path, setting.config.to_dict()) as run:
                parts = soka.start(setting, [pool["X"]], run)
                cycle = soka.cycle_phase(setting, parts, [0.4, 0.1], run, None)
            batch = dict(next(iter(cycle.data.dataset(0, 1))))
            for update in cycle.updates[:2]:
                loss, terms = update.loss(batch)
                assert loss.dtype == tf.float32 and np.all(np.isfinite([loss, *(float(v) for v in terms.values())]))
            (gradient,), _ = cycle.updates[2].gradient(batch)
            assert np.all(np.isfinite(gradient)) and parts.weights.dtype == "float32"
            assert len(parts.features) == 6 and batch["X/b3"].dtype == tf.bfloat16
        finally:
            keras.config.set_dtype_policy("float32")
