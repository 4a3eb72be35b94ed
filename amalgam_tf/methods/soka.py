"""SOKA: a multi-talent student of pixel-to-pixel teachers, by collaboration and competition.

Luo, Pan, Wang, Wang, Tang, Song: "Collaboration by Competition: Self-coordinated Knowledge Amalgamation for Multi-talent Student
Learning", ECCV 2020. Teachers with an encoder and a decoder each (Taskonomy's task bank); one student with a single encoder and a decoder
a task. Decoders compete for the weighted soft losses, the encoder collaborates: it also follows what all teachers' features have in common.
Tasks that are too unlike get an auxiliary teacher, whose features join in and which the student need not learn.

Symbols
    T_i, T_x          wanted teachers, auxiliary one    amalgamation.Setting.teachers, Parts.helpers
    Omega             student's encoder                 branching.Branched (trunk)
    Theta_i           student's decoders                branching.Branched (tails)
    S(i, j)           similarity of two tasks           choice.similarities
    sigma, C, W_i     amalgamated features, MIA         models.adapters.FeatureAggregation, Parts.aggregation
    w_i               task weights                      Parts.weights
    alpha             weight of the soft losses         collaboration_loss (`alpha`, 0.05)
    a                 GradNorm's exponent               balance_gradient (`gradnorm.exponent`, 1.5)

Equations
    Eq. 1   choice.auxiliary                       which teacher x joins where S(i, j) < delta
    Eq. 2   models.adapters.FeatureAggregation     sigma = C o sum_i W_i A_i, over wanted teachers and auxiliary one
    Eq. 3   losses.representation                  ||A_S - sigma||^2 at one tap
    Eq. 4   representation_loss                    L_A, the sum over both taps
    Eq. 5   soft_losses                            L_i = ||student_i - teacher_i||^2
    Eq. 6   competition_loss                       sum_i w_i L_i
    Eq. 7   gradnorm.objective                     L_grad = sum_i |G_i - mean(G) r_i^a|, with its gradient in closed form
    Eq. 8   collaboration_loss                     alpha sum_i L_i + L_A
    Eq. 9   balance_gradient                       the step of w by eq. 7, then sum w = 1 (gradnorm.Simplex)

The numbers of eqs. 1 and 9 follow from their place in the paper's text; the sources at hand do not print them.

Steps
    (1) start                random encoder and decoders
    (2) joint_phase          all of them on 0.5 sum_i L_i
    (3) competition_loss     Theta, encoder frozen
    (4) collaboration_loss   Omega and MIA, decoders frozen
    (5) balance_gradient     w
    (6) cycle_phase          3 to 5 on the same batch, over and over

Choices the paper leaves open, and deviations (ids of the project's spec)
    S1   the auxiliary teacher is that of the highest S_ix + S_jx among those with S_ix + S_jx > 2 S_ij, looked for where S_ij is below the
         median of the pool. Any number of tasks: means over the wanted ones. Switches `auxiliary.choose` (`auto`, `strongest`, `weakest`,
         `none`, or a teacher's name), `auxiliary.rule`, `auxiliary.delta`.
    S2   MIA by channel vectors, W_i = 1 / m and C = 1 at the start, trained in the collaboration step. As printed, L_A is smallest where
         sigma and the student's features are all 0, and there small students went: in 11 of 12 runs the code died, so that every image
         got the same map. So `mia.norm=softmax_w`, a mean over the teachers weighted channel by channel, which cannot shrink, is the
         default of our configs, and `none` the variant `printed_mia`. Switches `mia.kind`, `mia.norm`, `mia.use`; log: `amalgamated/TAP`.
    S3   means over all elements instead of sums, so that alpha means the same at every size. Switch `mia.rep`.
    S4   exponent 1.5, alpha 0.05. Switches `gradnorm.exponent`, `alpha`.
    S5   G is the norm, not its square, of the gradient at the encoder's last convolution. Switch `gradnorm.squared`.
    S6   eq. 8 is unweighted as printed; then w reaches the decoders only, for which it is a learning rate. Switch `collaboration.weighted`.
    S7   the competition minimises the weighted sum.
    S8   one update of each kind a batch.
    S9   Adam with one state for (Omega, MIA), one for Theta, one for w. Statistics of batch norm: competition encoder stored, decoders
         batch; collaboration the other way round; joint initialisation both batch; w's gradients are taken with stored ones.
    S10  L_i(0) is the mean over the held-out images after the joint initialisation. Switch `gradnorm.initial=init` (before it).
    S11  depth is the z-buffer's in the configs; the switch is the task's name, `tasks=depth_euclidean,...`.
    S12  see `metrics.dense`.
    S13  see `data.taskonomy`.
    S14  random start. Switch `student.weights=teacher`: the encoder of the first teacher.
    S15  sizes are all parameters, statistics included (`evaluate.size_of`).
    S16  see `models.encoder_decoder`.
    S17  means over pixels and channels of the codes; no mask, since teachers' maps exist everywhere.
    All phases share one poly schedule. The weights of the smallest held-out sum of eq. 5 are kept.
    `train.settle_steps` are last steps of the cycle whose batch norms read what is stored, as the finished student does (0, none, is the
    paper's; a small student without them is metres off on a few images, see `methods.dense_teacher`).

Baselines, by switches of the same script: KD `schedule=joint`, `weights=equal`, `mia.use=False`; KD + MIA `schedule=joint`,
`weights=equal`; supervised multi-task learning `supervised=True` with these (dMTL) or with `weights=gradnorm` (GradNorm).

Not implemented: phases of several batches in the cycle (S8's `phase_steps`); the adversarial term of Taskonomy's own training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import choice, dense, dense_pool, gradnorm, losses, planning
from amalgam_tf.amalgamation import Setting, chosen, load_pool, prepare, start_student
from amalgam_tf.branching import Branched, Tail
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models.adapters import FeatureAggregation
from amalgam_tf.models.blocks import BlockNet, named_variables, safe_name
from amalgam_tf.models.folding import folded
from amalgam_tf.planning import Line, Plan
from amalgam_tf.teachers import Teacher, in_precision
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import Batch, Measurements, Phase, Update

SCHEDULES = ("acct", "joint")
WEIGHTS = ("gradnorm", "equal")
INITIAL = ("after_warmup", "init")


@dataclass(frozen=True)
class Parts:
    """Everything an image runs through in training.

    Attributes:
        student: encoder and a decoder a task.
        helpers: the teachers whose features eq. 2 amalgamates, their batch norm folded: the wanted ones, then the auxiliary one.
        aggregation: tap of the encoder -> MIA.
        weights: w, in the order of the tasks; their sum is 1.
        features: `{teacher}/{tap}` -> [views, n, ...], what the helpers write for every image; empty where that does not fit.
    """

    student: Branched
    helpers: Sequence[Teacher]
    aggregation: Mapping[str, FeatureAggregation]
    weights: keras.Variable
    features: Mapping[str, np.ndarray]

    @property
    def last_shared(self) -> keras.Variable:
        """The kernel of the encoder's last convolution: the W of GradNorm (S5)."""
        trunk = self.student.trunk
        return [v for v in trunk.weights(len(trunk) - 1) if len(v.shape) == 4][-1]


# -- the algorithm ----------------------------------------------------------------------------------------------------
def amalgamate(setting: Setting, pool: Mapping[str, Teacher], run: Run, true: Mapping[str, dense.Truth] | None = None) -> Parts:
    """Steps 1 to 6.

    Args:
        setting: wanted teachers, images and the teachers' maps.
        pool: all teachers, the wanted ones among them: candidates for the auxiliary one.
        run: the run.
        true: the true maps of the parts `train` and `held_out`, for the supervised baselines.
    """
    config = setting.config
    run.decide("inputs", dict, of=setting.fingerprint())
    more = auxiliary_teachers(setting, pool, run)
    parts = start(setting, more, run)  # (1)
    run.track(parts.student.named_variables("student"))
    for tap, layer in parts.aggregation.items():
        run.track(named_variables(layer, f"mia/{tap}"))
    run.track({"task_weights": parts.weights})
    if config.gradnorm.initial == "init":
        run.decide("initial_losses", held_out_losses(setting, parts, true))
    if config.schedule == "acct":
        run.phase(joint_phase(setting, parts, run, true))  # (2)
    at_start = run.decide("initial_losses", held_out_losses(setting, parts, true))
    initial = [at_start[t.name] for t in setting.tasks]
    run.phase(cycle_phase(setting, parts, initial, run, true))  # (3)-(6)
    if config.train.settle_steps:
        run.phase(cycle_phase(setting, parts, initial, run, true, settle=True))
    return parts


# -- step 1, and who helps --------------------------------------------------------------------------------------------
def auxiliary_teachers(setting: Setting, pool: Mapping[str, Teacher], run: Run) -> list[Teacher]:
    """The teacher x of eq. 1, or none; without MIA no one's features would join in, so no one is asked.

    Raises:
        UserError: its encoder is unlike the wanted teachers'.
    """
    wanted, options = [s.teacher for s in setting.streams], {**setting.config.auxiliary}
    if not setting.config.mia.use:
        options["choose"] = "none"
    similar = run.decide("similarities", lambda: dense_pool.similarities(pool, wanted, setting.images.pixels["train"], options))
    name = run.decide("auxiliary", lambda: dense_pool.auxiliary(pool, wanted, similar, options))
    more = [pool[name]] if name else []
    run.decide("auxiliary_inputs", dict, of="/".join(t.card["sha256"][:16] for t in more))
    dense_pool.check_encoders([*setting.teachers, *more], "SOKA")
    return more


def start(setting: Setting, auxiliary: Sequence[Teacher], run: Run) -> Parts:
    """(1) A student with the encoder of its teachers and the decoder of each, newly initialised (S14); MIA; equal task weights."""
    config, several = setting.config, run.strategy.num_replicas_in_sync > 1
    trunk, tails = start_student(setting, run), {}
    for s in setting.streams:
        net = setting.teacher(s.teacher).net
        decoder = net.part(start=len(net) - 1).fresh(f"decoder_{s.task.name}", run.seed_of(f"decoder/{s.task.name}"), several)
        tails[s.task.name] = Tail(s.task.name, trunk.names[-1], None, decoder, (s.task,))
    helpers = [*setting.frozen, *(replace(t, net=folded(t.net)) for t in auxiliary)]
    aggregation = {}
    for tap in taps(config, trunk) if config.mia.use else ():
        keras.utils.set_random_seed(run.seed_of(f"mia/{tap}"))
        layer = FeatureAggregation(config.mia.kind, config.mia.norm, len(helpers), name=safe_name(f"mia_{tap}"))
        layer.build([(None, *trunk.shapes[tap])] * len(helpers))
        aggregation[tap] = layer
    weights = keras.Variable(np.full(len(tails), 1 / len(tails), np.float32), name="task_weights")
    weights.constraint = gradnorm.Simplex(1.0, config.gradnorm.floor)
    student = Branched(trunk, tails)
    features = dense_pool.kept_features(helpers, setting.images, list(aggregation), config.features.memory_gb) if aggregation else {}
    return Parts(student, helpers, aggregation, weights, features)


def taps(config: Any, trunk: BlockNet) -> tuple[str, ...]:
    """The blocks of the encoder whose outputs are compared (S3): the third of four, and what it ends with."""
    names = config.mia.taps.split(",") if config.mia.taps else (trunk.names[min(2, len(trunk) - 1)], trunk.names[-1])
    for name in names:
        trunk.index(name)
    return tuple(dict.fromkeys(names))


# -- equations --------------------------------------------------------------------------------------------------------
def soft_losses(setting: Setting, predictions: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Eq. 5, L_i: task -> [batch], the mean squared difference of the codes from the teacher's, or from the truth where it is known."""
    values = {}
    for s in setting.streams:
        target, valid = dense.seen(batch, s.task) if setting.config.supervised else (batch[str(s)], None)
        values[s.task.name] = losses.map_difference(prediction=predictions[s.task.name], target=target, mask=valid, power=2)
    return values


def representation_loss(setting: Setting, parts: Parts, written: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]):
    """Eqs. 2 to 4: (L_A, its terms by tap), means over the batch."""
    taps_, theirs = list(parts.aggregation), {}
    for t in parts.helpers:
        kept = {tap: batch[f"{t.name}/{tap}"] for tap in taps_} if parts.features else None
        theirs[t.name] = kept or dense_pool.at_taps(t, batch["images"], taps_)
    terms = {}
    for tap, layer in parts.aggregation.items():
        sigma = layer([tf.stop_gradient(of[tap]) for of in theirs.values()])
        each = losses.representation(student=written[tap], target=sigma, kind=setting.config.mia.rep)
        terms[f"representation/{tap}"] = tf.reduce_mean(each)
        size = tf.norm(written[tap]) + 1e-12
        terms[f"amalgamated/{tap}"] = tf.norm(sigma) / size  # S2: towards 0 if L_A is escaped by shrinking both
    total = tf.add_n([v for k, v in terms.items() if k.startswith("representation/")])
    return total, terms


def competition_loss(setting: Setting, parts: Parts, batch: Mapping[str, tf.Tensor], training: bool = True):
    """Eq. 6, step (3): sum_i w_i L_i, with the encoder as it is; `training`: batch norm by the batch, not by what is stored."""
    predictions = parts.student.run(setting.preprocessing(batch["images"]), training=training, part="tails")
    return weighted(setting, parts, soft_losses(setting, predictions, batch))


def collaboration_loss(setting: Setting, parts: Parts, batch: Mapping[str, tf.Tensor], training: bool = True):
    """Eq. 8, step (4): alpha sum_i L_i + L_A, with the decoders as they are; `collaboration.weighted`: alpha T sum_i w_i L_i (S6)."""
    written = parts.student.trunk.taps(setting.preprocessing(batch["images"]), training=training)
    each = soft_losses(setting, parts.student.run_tails(written), batch)
    soft, terms = weighted(setting, parts, each)
    soft = soft * len(each) if setting.config.collaboration.weighted else tf.add_n(list(terms.values()))
    return with_representation(setting, parts, soft, terms, written, batch) if parts.aggregation else (soft, terms)


def joint_loss(setting: Setting, parts: Parts, batch: Mapping[str, tf.Tensor], with_features: bool, training: bool = True):
    """Encoder and decoders at once: sum_i w_i L_i in step (2) and in baselines without MIA; with it eq. 8, its soft losses weighted."""
    written = parts.student.trunk.taps(setting.preprocessing(batch["images"]), training=training)
    soft, terms = weighted(setting, parts, soft_losses(setting, parts.student.run_tails(written, training=training), batch))
    if not (with_features and parts.aggregation):
        return soft, terms
    return with_representation(setting, parts, soft * len(terms), terms, written, batch)


def with_representation(setting: Setting, parts: Parts, soft: tf.Tensor, terms: dict[str, tf.Tensor], written, batch):
    """alpha times the soft losses, plus L_A."""
    features, more = representation_loss(setting, parts, written, batch)
    return setting.config.alpha * soft + features, terms | more


def balance_gradient(setting: Setting, parts: Parts, initial: Sequence[float], batch: Mapping[str, tf.Tensor]):
    """Eqs. 7 and 9, step (5): ([the gradient of L_grad for w], what is to be logged), over the global batch."""
    config, student, kernel = setting.config, parts.student, parts.last_shared
    before = student.trunk.run(setting.preprocessing(batch["images"]), stop=len(student.trunk) - 2)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(kernel.value)
        code = student.trunk.run(before, start=len(student.trunk) - 1)
        each = soft_losses(setting, student.run_tails({student.trunk.names[-1]: code}), batch)
        means = [tf.reduce_mean(each[t.name]) for t in setting.tasks]
    context = tf.distribute.get_replica_context()
    gradients = context.all_reduce(tf.distribute.ReduceOp.MEAN, [tape.gradient(m, kernel.value) for m in means])
    means = context.all_reduce(tf.distribute.ReduceOp.MEAN, means)
    options, norms = config.gradnorm, tf.stack([gradnorm.norm(g) for g in gradients])
    given = {"weights": parts.weights.value, "norms": norms, "losses": tf.stack(means), "initial_losses": tf.constant(initial, tf.float32)}
    given |= {"exponent": options.exponent, "squared": options.squared}
    names = [t.name for t in setting.tasks]
    measured = {f"weight/{n}": parts.weights.value[i] for i, n in enumerate(names)} | {f"norm/{n}": norms[i] for i, n in enumerate(names)}
    # Keras adds gradients up over replicas, and each has the whole one.
    return [gradnorm.gradient(**given) / context.num_replicas_in_sync], {"objective": gradnorm.objective(**given), **measured}


def weighted(setting: Setting, parts: Parts, each: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Eq. 6: (sum_i w_i L_i, every L_i), means over the batch. No gradient reaches w."""
    means = {f"soft/{name}": tf.reduce_mean(v) for name, v in each.items()}
    shares = tf.stop_gradient(parts.weights.value)
    return tf.add_n([shares[i] * m for i, m in enumerate(means.values())]), means


# -- phases -----------------------------------------------------------------------------------------------------------
def joint_phase(setting: Setting, parts: Parts, run: Run, true: Mapping[str, dense.Truth] | None) -> Phase:
    """Step (2): encoder and decoders together on the soft losses alone, w equal."""
    update = trained(setting, parts, "joint", "all", partial(joint_loss, setting, parts, with_features=False))
    return Phase("joint", setting.config.init.steps, dense_pool.batches(setting, run.seed_of("data/joint"), true), [update])


def cycle_phase(
    setting: Setting, parts: Parts, initial: Sequence[float], run: Run, true: Mapping[str, dense.Truth] | None, settle: bool = False
) -> Phase:
    """Steps (3) to (6), or with `settle` their last part on stored batch-norm statistics; the last part keeps the best held-out weights."""
    config, name, training = setting.config, "settle" if settle else "cycle", not settle
    data = dense_pool.batches(setting, run.seed_of(f"data/{name}"), true, parts.features)
    if config.schedule == "acct":
        updates = [
            trained(setting, parts, "competition", "tails", partial(competition_loss, setting, parts, training=training), settle),
            trained(setting, parts, "collaboration", "trunk", partial(collaboration_loss, setting, parts, training=training), settle),
        ]
    else:
        loss = partial(joint_loss, setting, parts, with_features=True, training=training)
        updates = [trained(setting, parts, "network", "all", loss, settle)]
    if config.weights == "gradnorm":
        gradient = partial(balance_gradient, setting, parts, initial)
        updates.append(Update("balance", [parts.weights], config.gradnorm.optimizer.to_dict(), gradient=gradient))
    measure = held_out_losses(setting, parts, true)

    def validate() -> dict[str, float]:
        each = measure()
        return {**{f"soft/{k}": v for k, v in each.items()}, "soft": sum(each.values())}

    every = config.train.validate_every_steps or data.steps(1)
    steps = config.train.settle_steps if settle else config.train.steps
    best = None if config.train.settle_steps and not settle else "soft"  # before settling, held-out losses say little
    return Phase(name, steps, data, updates, validate, validate_every_steps=every, keep_best=best, start_counts=not settle)


def trained(
    setting: Setting, parts: Parts, name: str, part: str, loss: Callable[[Batch], tuple[tf.Tensor, Measurements]], settle: bool = False
) -> Update:
    """The update of Omega, Theta (`part` trunk, tails) or both (S9); MIA goes with the encoder, but for the joint initialisation."""
    config, student, joint = setting.config, parts.student, name == "joint"
    mia = [] if joint or part == "tails" else [v for layer in parts.aggregation.values() for v in layer.trainable_variables]
    before = config.init.steps if config.schedule == "acct" else 0
    begin = 0 if joint else before + config.train.steps * settle  # one schedule over all phases
    steps = before + config.train.steps + config.train.settle_steps
    optimizer = {**config.train.optimizer.to_dict(), "begin_step": begin, "all_steps": steps}
    return Update(name, [*student.weights(part), *mia], optimizer, loss, statistics=[] if settle else student.statistics(part))


def held_out_losses(setting: Setting, parts: Parts, true: Mapping[str, dense.Truth] | None) -> Callable[[], dict[str, float]]:
    """L_i over the held-out images in inference mode, task -> mean: to be called again and again, traced once."""

    def each(batch):
        return soft_losses(setting, parts.student.run(setting.preprocessing(batch["images"])), batch)

    return dense_pool.held_out(setting, each, true)


# -- from config to results -------------------------------------------------------------------------------------------
def train(config: Any, run: Run) -> dict[str, Any]:
    """Amalgamates the student of a config, saves it to `workdir/student` and returns the results."""
    check_choices(config)
    policy = keras.config.dtype_policy().name
    pool = {name: in_precision(t, policy) for name, t in load_pool(config, run.workdir).items()}
    setting = prepare(config, run.workdir, partial(check_teachers, supervised=config.supervised), fold=True, pool=pool)
    for note in setting.notes():
        run.say(note)
    size, images = setting.preprocessing.size, setting.images
    true = {part: dense.truth(e, setting.tasks, size, images.cache) for part, e in images.labelled.items()}
    followed = true if config.supervised else None
    parts = amalgamate(setting, pool, run, followed)
    return {
        "method": "soka",
        "variant": variant(config),
        **{key: run.decided(key) for key in ("auxiliary", "similarities", "initial_losses")},
        "task_weights": dict(zip((t.name for t in setting.tasks), map(float, parts.weights.numpy()), strict=True)),
        "best": run.decided("best/settle" if config.train.settle_steps else "best/cycle"),
        "held_out": held_out_losses(setting, parts, followed)(),
        "mia_parameters": sum(int(np.prod(v.shape)) for layer in parts.aggregation.values() for v in layer.trainable_variables),
        **dense_pool.finish(setting, run, parts.student, true["train"]),
    }


def variant(config: Any) -> dict[str, Any]:
    """What tells the runs of one pair of tasks apart."""
    return {
        "supervised": config.supervised,
        "schedule": config.schedule,
        "weights": config.weights,
        "mia": ",".join(w for w in (config.mia.kind, config.mia.norm) if w != "none") if config.mia.use else "",
        "auxiliary": config.auxiliary.choose,
        "weighted_collaboration": config.collaboration.weighted,
    }


def plan(config: Any, pool: Mapping[str, Teacher]) -> Plan:
    """What `amalgamate` is going to do, for teachers that are trained or only built."""
    streams, teachers = chosen(config, pool)
    check_teachers(teachers, config.supervised)
    images, net, batch, n = planning.counts(config), teachers[0].net, config.train.batch_size, len(streams)
    *blocks, decoder = planning.work(net)
    encoder, views, trunk = sum(blocks), images.train * images.views, net.part(stop=len(net) - 2)
    helpers = (n + (config.auxiliary.choose != "none")) if config.mia.use else 0
    forward = encoder + n * decoder
    # competition: no way back through the encoder; collaboration: through the decoders, but not to their weights
    step = (encoder + 3 * n * decoder) + (3 * encoder + 2 * n * decoder) if config.schedule == "acct" else 3 * forward
    if config.weights == "gradnorm":
        step += encoder + n * (2 * decoder + 3 * blocks[-1])
    kept = dense_pool.kept_bytes(trunk, taps(config, trunk), views * helpers)
    fits = kept <= 1e9 * config.features.memory_gb
    step += 0 if fits else helpers * encoder
    held_out = images.held_out * forward / max(1, images.train // batch)  # a pass an epoch
    once = (views + images.held_out) * n * (encoder + decoder) + (views * helpers * encoder if fits else 0)
    joint = [Line("joint", config.init.steps, config.init.steps * batch * 3 * forward)] if config.schedule == "acct" else []
    cycle = [
        Line(n, k, k * (batch * step + held_out)) for n, k in (("cycle", config.train.steps), ("settle", config.train.settle_steps)) if k
    ]
    test = Line("test", 0, images.test * (forward + n * (encoder + decoder)))
    weights = planning.weights(trunk) + n * planning.weights(net.part(start=len(net) - 1))
    size = teachers[0].preprocessing.size
    maps = 4.0 * size * size * sum(s.task.outputs for s in streams)
    return Plan(
        [Line("teachers' maps", 0, once), *joint, *cycle, test],
        net,
        disk=2 * 4 * weights + weights,
        caches=planning.pixels(images, size) + (views + images.held_out + images.train + images.held_out + images.test) * maps,
        memory=planning.training(weights, n * planning.weights(net), batch * (1 + n) * sum(planning.activations(net))) + kept * fits,
    )


def check_choices(config: Any) -> None:
    """Every choice that is a word, and the numbers that decide what is trained.

    Raises:
        UserError: an unknown word, or a number out of range.
    """
    one_of("schedule", config.schedule, SCHEDULES)
    one_of("weights", config.weights, WEIGHTS)
    FeatureAggregation(config.mia.kind, config.mia.norm)  # refuses words, and those that do not go together
    one_of("mia.rep", config.mia.rep, losses.REPRESENTATIONS)
    one_of("auxiliary.choose", config.auxiliary.choose, [*dense_pool.AUXILIARIES, *config.teachers])
    one_of("auxiliary.rule", config.auxiliary.rule, choice.AUXILIARY_RULES)
    one_of("gradnorm.initial", config.gradnorm.initial, INITIAL)
    one_of("student.weights", config.student.weights, ("none", "teacher"))
    optimizers.check(config.train.optimizer, "train.optimizer")
    optimizers.check(config.gradnorm.optimizer, "gradnorm.optimizer")
    if config.targets != "soft" or any(weight != 1 for weight in config.teacher_weights.values()):
        raise UserError("soka follows its teachers' maps, and w weighs them: leave targets=soft and every teacher_weights at 1")
    if config.train.steps < 1 or config.init.steps < 1 or config.train.settle_steps < 0:
        raise UserError("set init.steps and train.steps, numbers of updates, to 1 or more, train.settle_steps to 0 (none) or more")


def check_teachers(teachers: Sequence[Teacher], supervised: bool = False) -> None:
    """What the wanted teachers must be (`dense_pool.check_teachers`), and with `supervised` the true maps of their tasks.

    Raises:
        UserError: they are not.
    """
    dense_pool.check_teachers(teachers, "SOKA")
    if supervised:
        dense.check_reached("a student", [t.tasks[0] for t in teachers], "set supervised=False, or leave the task out of --config.tasks")
