"""Dual-GAN: data-free knowledge amalgamation via a group-stack dual generator.

Ye, Ji, Wang, Gao, Song: "Data-Free Knowledge Amalgamation via Group-Stack Dual-GAN", CVPR 2020. Several trained teachers of one
architecture, any subset of their labels, and not a single image: a generator is trained group by group against the teachers' own blocks;
its groups then feed the student's blocks (the dual part), which the teachers judge as in AFK; then every teacher's tasks leave the student
where their loss was smallest.

Symbols
    T_m, A_m, M     teachers and their blocks            teachers.Teacher
    B               blocks of a teacher, groups of G     generation.in_groups
    C, Y_cst        wanted labels, and their streams     amalgamation.Setting.streams
    z               noise                                generation.Codes
    G^j, F^j        groups and what they write, F^B = I  models.generator.generator
    D^j             teachers' blocks behind group j      branching.entangle
    f_m^j           filters of G and of T                branching.start_filters
    O_gan           teachers' outputs on what G writes   generation.Judges, amalgamation.entangled_logits
    t_i             pseudo-label                         losses.pseudo_labels
    T^b, F_u^b      student's blocks, their outputs      models.blocks.BlockNet
    g_m             task-level filter (wanted rows)      amalgamation.task_level_filter
    eta^{b,m}       converged loss of a teacher          converged_losses, by_teacher
    S_m             branch point                         choose_branches

Equations
    Eq. 3   models.blocks.BlockNet.taps     F^1 = G^1(z), F^j = G^j(F^{j-1})
    Eq. 5   branching.entangle              D^j = fc o A^B o ... o A^{B-j+1}
    Eq. 6   losses.pseudo_labels            t_i = 1[y_i >= 0.5]
    Eq. 7   losses.one_hot                  L_oh = (1 / C) sum_i CE(y_i, t_i)
    Eq. 8   losses.discrete                 L_dis
    Eq. 9   generation.gan_loss             L_gan = L_oh + alpha L_a + beta L_ie + gamma L_dis
    Eq. 10  models.adapters.ChannelFilter   F_m^j = f_m^j(F^j)
    Eq. 11  generation.presence_logits      O_gan(F^j), concatenated over the teachers
    Eq. 12  joint_loss                      L_gan^B + 1 / (B - 1) sum_{j<B} CE(O_gan(F^j), O_gan(I))
    Eq. 13  amalgamation.entangled_logits   D_dual^{b,m} = fc_m o A_m^B o ... o A_m^{b+1}
    Eq. 14  amalgamation.customised_losses  CE(g_m(O_m(F_u^b)), g_m(O_m(I)))
    Eq. 15  by_teacher                      L_dual^b = sum_m L_dual^{b,m}
    Eq. 16  two_inputs                      F1 = T^{b-1} o ... o T^1(I), F2 = G^{B+1-b} o ... o G^1(z)
    Eq. 17  dual_loss                       L_u^b = lambda_1 L(F1) + lambda_2 L(F2)
    Eq. 18  choose_branches                 S_m = argmin_b eta^{b,m}
    Eq. 19  branching.teacher_tail          A_m^{S_m+1} .. A_m^B, fc_m of the wanted rows
    Eq. 20  branching.regroup               the union

Choices the paper leaves open, and deviations (ids of the project's spec)
    G1   sign and argument of L_dis contradict its text: `gen.dis=plus_prob` (few labels an image, as the text says), `minus_logit`,
         `minus_prob` (both with the printed sign), `off`. With it no label at all satisfies L_oh and L_dis together: the labels an image
         shows are measured, and a run with fewer than `collapse.positives` of them stops after `collapse.after_steps`.
         `gen.pseudo=at_least_one`, the default of our configs, closes that way: the surest label counts as present in eq. 6.
    G2   alpha, beta, gamma: DAFL's, and 0.1. Switches `gen.alpha`, `gen.beta`, `gen.gamma`, `gen.oh` (1; our configs: 5).
    G3   L_ie of several labels: `gen.ie=label_freq` (labels alike often), `bernoulli`, `softmax`; over the global batch.
    G4   layers of G: models/generator.py. B is the number of blocks the teachers are cut into (`granularity=stage`); `gen.groups`
         joins a trunk's first blocks until so many are left, 1 gives DAFL's generator.
    G5   block 1 has one input (F1 = F2 = I): one pass, weight 1. F2 is not filtered before it enters T^b. Both inputs pass T^b as one
         batch, so that its batch norm stores the statistics it was trained with. Switches `block.lambda1`, `block.lambda2`.
    G6   no filter on the image. The filters of G and those of T are different ones.
    G7   O_gan(I) is the target of eq. 12: no gradient. Switch `gen.stopgrad_image=False`.
    G8   L_a: mean over teachers, on the image only.
    G9   one optimizer for all groups and filters; then G is frozen with stored batch-norm statistics, fresh z in every step. Switch
         `generated.batchnorm=batch`: those of the batch, what is stored stays.
    G10  one optimizer and schedule a block; eta is measured on `generated.held_out_images` fixed images, from F1 and F2 of the same codes,
         weighed as in eq. 17, whose loss it is. Switch `block.eta_from=image`: from F1 alone, what the student will read (the
         spec's default; our configs: both).
    G11  one branch point a teacher.
    G12  fine-tuning on generated images, all weights, a tenth of the blocks' rate (from scratch: 0.4 of it); the start or the look of
         the best held-out loss is kept (held-out images are generated, too). Section `finetune`.
    G13  step I knows the wanted labels only.
    G14  start of the student: `student.weights=imagenet` is the paper's, but then ImageNet was seen; `none` is data-free.
    G15  G: Adam 1e-3 (0.5, 0.999), batches of 64. Section `gen`.
    Not the paper's: `gen.bn_stat` weighs the distance between the batch's statistics and those the teachers' batch norms store (spec
    section 6). Our configs have 10, without which students learn little more than from noise; the paper's losses are the row `literal`.
    `generated.generator_from=WORKDIR` takes the trained generator of another run: rows of one table share it.
    No image is read unless `evaluate_on=data`: then the test part, for the final numbers.
    Category tasks: DAFL's losses for each, beside the vector of labels; softmax cross-entropy in eqs. 12 and 14.

Not implemented
    Eqs. 2 and 4 (the vanilla GAN and its optimal discriminator: motivation); eq. 1, which the project's spec does not give. B = 5 of G4:
    the stem is always part of the first block. An adversarial term between teachers and student in
    step I (`gen.adv` of follow-ups): there is no student yet; DAFL has it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from amalgam_tf import choice, generation, losses, planning
from amalgam_tf.amalgamation import (
    Setting,
    block_losses,
    chosen,
    customised_losses,
    entangled_logits,
    finish,
    held_out_losses,
    losses_by_stream,
    prepare,
    start_student,
    stream_logits,
    student_on_test,
)
from amalgam_tf.branching import PARTS, Adapters, Branched, check_alike, named_filters, regroup, start_filters
from amalgam_tf.distillation import Lessons, distillation_phase
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.generation import Codes, Judges, Source
from amalgam_tf.models import check_start
from amalgam_tf.models.adapters import GATES
from amalgam_tf.models.blocks import BlockNet, parameters
from amalgam_tf.planning import Line, Plan
from amalgam_tf.tasks import resolved
from amalgam_tf.teachers import Teacher
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import BATCH_NORMS, Phase, Update

Recorded = Mapping[str, Mapping[str, Mapping[str, float]]]  # block -> stream -> {"loss", "divergence"}
# What decides how the generator is trained: equal in a run and in one that starts from its generator.
GENERATOR_SETTINGS = ("tasks", "seed", "precision", "granularity", "gen", "filter")
ETA_FROM = ("image", "both")
_LOOK = 256  # images that tell whether a generator collapsed


# -- the algorithm ----------------------------------------------------------------------------------------------------
def amalgamate(setting: Setting, run: Run) -> tuple[Setting, Branched]:
    """Algorithm 1 of the paper, line by line (numbers as printed there); also returns the setting with its held-out generated images."""
    run.decide("inputs", dict, of=setting.fingerprint())
    config, several = setting.config, run.strategy.num_replicas_in_sync > 1
    net = generation.make_generator(config, setting.teachers, run.seed_of("generator"), several)  # (1) G; T is made below
    gates = start_filters(config.filter, dict(list(net.shapes.items())[:-1]), setting.teachers, run.seed_of, "gate")
    run.track(net.named_variables("generator") | named_filters(gates, "gate"))
    run.phase(generator_phase(setting, net, gates, run))  # step I: (3)-(9)
    run.snapshot("generator")  # rows of one table start from here

    source = Source(net, config.generated.batchnorm)  # step II: (11)
    setting = generation.with_held_out(setting, source, Judges(setting), run)
    generation.show(run, setting.images.pixels["held_out"])
    run.decide("labels", lambda: generation.label_frequencies(setting))
    student = start_student(setting, run)
    filters = start_filters(config.filter, student.shapes, setting.teachers, run.seed_of, "filter")
    run.track(student.named_variables("student") | named_filters(filters, "filter"))
    recorded = {}
    for k, block in enumerate(student.names):  # (12), (13) F_u^0 = I; for b = 1..B
        run.phase(block_phase(setting, student, k, filters, source, run))  # (14)-(18)
        recorded[block] = run.decide(f"block_losses/{block}", lambda k=k: converged_losses(setting, student, k, filters, source, run))
        means = by_teacher(setting, {s: v["divergence"] for s, v in recorded[block].items()})
        run.say(f"  block {block}: divergence " + "  ".join(f"{t} {v:.4f}" for t, v in means.items()))

    branches = run.decide("branches", lambda: choose_branches(setting, recorded))  # step III: (20), (21) S_m
    run.say("  branch points: " + ", ".join(f"{s} at {b}" for s, b in branches.items()))
    kept = {s: branches[str(s)] for s in setting.streams if str(s) in branches}
    branched = regroup(student, filters, setting.teachers, kept)  # (22)
    run.track({k: v for tail in branched.unique_tails for k, v in tail.net.named_variables(f"tail/{tail.name}").items()})
    if setting.images.test is not None:
        run.keep("before_finetune", lambda: student_on_test(setting, branched))
    logits = stream_logits(setting, branched, list(kept))
    run.decide("held_out/before", lambda: held_out_losses(setting, logits, list(kept)))
    if config.finetune.steps:
        lessons = generated_lessons(setting, source, run)
        run.phase(distillation_phase(setting, branched, list(kept), run, "finetune", lessons))  # (23)
    run.decide("held_out/after", lambda: held_out_losses(setting, logits, list(kept)))
    return setting, branched


# -- equations --------------------------------------------------------------------------------------------------------
def joint_loss(
    setting: Setting, written: Mapping[str, tf.Tensor], gates: Adapters, judges: Judges
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Eq. 12: L_gan of the image, and of every feature in front of it the distance from what the teachers say of the image.

    Args:
        setting: the run's.
        written: group -> what it writes, the image last (eq. 3).
        gates: (group, teacher) -> filter f_m^j; none on the image (G6).
        judges: the teachers on images.

    Returns:
        (loss, terms): those of eq. 9; `consistency` (the second sum); and for every feature `agreement/GROUP`, the share of decisions
        that are the image's (of n labels of which the image shows p, "no" to all reaches 1 - p / n).
    """
    *features, image = written
    verdict = judges(written[image])
    loss, terms = generation.gan_loss(setting, verdict)
    if not features:
        return loss, terms
    sums = []
    for j, group in enumerate(features, 1):
        logits = entangled_logits(setting, written[group], group, len(written) - j - 1, gates)  # D^j: blocks B-j+1..B
        sums.append(tf.add_n([_agreement(setting, s, logits, verdict.logits) for s in setting.streams]) / len(setting.streams))
        same = [_same(s.task, logits[str(s)], verdict.logits[str(s)]) for s in setting.streams]
        terms[f"agreement/{group}"] = tf.add_n(same) / len(same)
    terms["consistency"] = tf.add_n(sums) / len(features)
    return loss + terms["consistency"], terms


def _agreement(setting, stream, logits, targets) -> tf.Tensor:
    stop, name = setting.config.gen.stopgrad_image, str(stream)
    return tf.reduce_mean(losses.agreement(head=stream.task.head, logits=logits[name], targets=targets[name], stop_gradient=stop))


def _same(task, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    same = tf.equal(generation.decisions(task, logits), generation.decisions(task, targets))
    return tf.reduce_mean(tf.cast(same, tf.float32))


def two_inputs(setting: Setting, student: BlockNet, k: int, written: Mapping[str, tf.Tensor]) -> list[tuple[float, tf.Tensor]]:
    """Eq. 16: what block k (from 0) is trained on, each with its weight; one of weight 1 for the first block (G5).

    Args:
        setting: the run's.
        student: T; its blocks in front of k are trained.
        k: position of the block.
        written: group -> what it writes for these codes, the image last.
    """
    groups = list(written)
    image = setting.preprocessing(written[groups[-1]])
    made = {"F1": lambda: student.run(image, stop=k - 1) if k else image, "F2": lambda: written[groups[len(groups) - 1 - k]]}
    inputs = [(weight, made[name]()) for name, weight in input_weights(setting, k).items()]
    return [(weight, tf.stop_gradient(tf.cast(x, inputs[0][1].dtype))) for weight, x in inputs]


def input_weights(setting: Setting, k: int) -> dict[str, float]:
    """lambda of the inputs that block k has (G5): F1 and F2 as far as they are not 0; of the first block the image alone."""
    config = setting.config.block
    return {name: weight for name, weight in (("F1", config.lambda1), ("F2", config.lambda2)) if weight} if k else {"F1": 1.0}


def dual_loss(
    setting: Setting, student: BlockNet, k: int, filters: Adapters, inputs: list[tuple[float, tf.Tensor]], targets: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Eqs. 13-15 and 17: block k on its inputs, judged by the rest of every teacher.

    Args:
        setting: the run's.
        student: T.
        k: position of the block.
        filters: (block, teacher) -> filter.
        inputs: as `two_inputs` gives them; they pass the block as one batch.
        targets: stream -> what its teacher says of the images.

    Returns:
        (loss, terms): `input1` and, with two inputs, `input2`, each L_dual of eq. 15.
    """
    block, training = student.names[k], setting.config.block.batchnorm == "batch"
    features = student.run(tf.concat([x for _, x in inputs], 0), start=k, stop=k, training=training)
    loss, terms = tf.constant(0.0), {}
    for i, ((weight, _), part) in enumerate(zip(inputs, tf.split(features, len(inputs)), strict=True), 1):
        each = customised_losses(setting.streams, entangled_logits(setting, part, block, k, filters), targets, setting.hard)
        by_name = by_teacher(setting, {s: tf.reduce_mean(v) for s, v in each.items()})
        terms[f"input{i}"] = tf.add_n([float(setting.config.teacher_weights[name]) * v for name, v in by_name.items()])
        loss += weight * terms[f"input{i}"]
    return loss, terms


def converged_losses(
    setting: Setting, student: BlockNet, k: int, filters: Adapters, source: Source, run: Run
) -> dict[str, dict[str, float]]:
    """eta^{b,m} before the mean over a teacher's labels, of the held-out images (G10): stream -> `loss` and `divergence`, nats.

    With `block.eta_from=both` the mean over the inputs that the block is trained on (eq. 16), weighed as they are; the weights are
    shares of 1 here, so that blocks of one input and of two can be compared.
    """
    config, targets = setting.config, {s: rows[0] for s, rows in setting.targets["held_out"].items()}
    if config.block.eta_from == "image":
        return block_losses(setting, student, k, filters)

    @tf.function(autograph=False)
    def logits(z):
        inputs = [x for _, x in two_inputs(setting, student, k, source.taps(z))]
        return [entangled_logits(setting, student.run(x, start=k, stop=k), student.names[k], k, filters) for x in inputs]

    of_inputs = source.over_codes(logits, len(setting.images.pixels["held_out"]), config.gen.z_dim, run.seed_of("held_out"))
    each = [losses_by_stream(setting.streams, rows, targets, setting.hard) for rows in of_inputs]
    weights = list(input_weights(setting, k).values())

    def mean(stream: str, key: str) -> float:
        values = [np.mean(terms[stream][key], dtype=np.float64) for terms in each]
        return float(np.average(values, weights=weights))

    return {s: {key: mean(s, key) for key in ("loss", "divergence")} for s in map(str, setting.streams)}


def by_teacher(setting: Setting, values: Mapping[str, Any]) -> dict[str, Any]:
    """Stream -> number becomes teacher -> mean over its wanted labels: the terms of eq. 15, whose sum has weight 1 for each."""
    own = {t.name: [values[str(s)] for s in setting.streams if s.teacher == t.name] for t in setting.teachers}
    return {name: sum(v) / len(v) for name, v in own.items()}


def choose_branches(setting: Setting, recorded: Recorded) -> dict[str, str]:
    """Eq. 18, stream -> block: all tasks of a teacher leave where its mean loss is smallest. Of streams of one task the best is kept."""
    points = choice.branch_points(
        {block: by_teacher(setting, {s: v["loss"] for s, v in values.items()}) for block, values in recorded.items()}
    )
    at_best = {str(s): recorded[points[s.teacher]][str(s)]["loss"] for s in setting.streams}
    kept = set(choice.best_streams({str(s): s.task.name for s in setting.streams}, at_best).values())
    return {str(s): points[s.teacher] for s in setting.streams if str(s) in kept}


# -- phases -----------------------------------------------------------------------------------------------------------
def generator_phase(setting: Setting, net: BlockNet, gates: Adapters, run: Run) -> Phase:
    """Step I, lines (3)-(9): trains all groups and their filters together (G9); looks every `gen.look_steps` whether they collapsed."""
    gen = setting.config.gen
    judges = Judges(setting, statistics=gen.bn_stat > 0)
    update = Update(
        "generator",
        trains=[*net.weights(), *(v for f in gates.values() for v in f.trainable_variables)],
        statistics=net.statistics(),
        loss=lambda batch: joint_loss(setting, net.taps(batch["z"], training=True), gates, judges),
        optimizer=gen.optimizer.to_dict(),
    )
    data = Codes(gen.batch_size, gen.z_dim, run.seed_of("data/generator"))
    look = generation.watch(setting, net, run, _LOOK)
    return Phase("generator", gen.steps, data, [update], validate=look, validate_every_steps=gen.look_steps)


def block_phase(setting: Setting, student: BlockNet, k: int, filters: Adapters, source: Source, run: Run) -> Phase:
    """Step II, lines (14)-(18): trains T^b and its filters; G, the teachers and all other blocks are frozen."""
    settings, block, judges = setting.config.block, student.names[k], Judges(setting)

    def loss(batch):
        written = source.taps(batch["z"])
        targets = judges(list(written.values())[-1]).logits
        return dual_loss(setting, student, k, filters, two_inputs(setting, student, k, written), targets)

    update = Update(
        "block",
        trains=[*student.weights(k, k), *(v for t in setting.teachers for v in filters[block, t.name].trainable_variables)],
        statistics=student.statistics(k, k) if settings.batchnorm == "batch" else [],
        loss=loss,
        optimizer=settings.optimizer.to_dict(),
    )
    data = Codes(settings.batch_size, setting.config.gen.z_dim, run.seed_of(f"data/block/{block}"))
    return Phase(f"block/{block}", steps=settings.steps, data=data, updates=[update])


def generated_lessons(setting: Setting, source: Source, run: Run) -> Lessons:
    """What fine-tuning sees (G12): fresh generated images and what the teachers say of them."""
    settings = setting.config.finetune
    data = Codes(settings.batch_size, setting.config.gen.z_dim, run.seed_of("data/finetune"))
    return Lessons(data, settings.steps, settings.look_steps, generation.seen_by_teachers(setting, source))


# -- from config to results -------------------------------------------------------------------------------------------
def train(config: Any, run: Run) -> dict[str, Any]:
    """Amalgamates the student of a config, saves it to `workdir/student` and returns the results."""
    setting = enter(config, run.workdir)
    for note in setting.notes() if config.evaluate_on else []:
        run.say(note)
    if config.generated.generator_from:
        folder = resolved(config.generated.generator_from, run.workdir)
        run.adopt(folder, "generator", GENERATOR_SETTINGS, setting.fingerprint())
    setting, branched = amalgamate(setting, run)
    blocks = setting.teachers[0].net.names[:-1]
    tested = setting.images.test is not None
    return {
        "method": "dual_gan",
        "rule": {"name": "argmin_per_teacher"},
        "branches": run.decided("branches"),
        "branch_split": "generated",
        "block_losses": {block: run.decided(f"block_losses/{block}") for block in blocks},
        **({"finetune": run.decided("best/finetune")} if config.finetune.steps else {}),
        "held_out": {when: run.decided(f"held_out/{when}") for when in ("before", "after")},
        **generation.account(setting, branched, run),
        **finish(setting, run, branched, {"student_before_finetune": run.kept("before_finetune")} if tested else None),
        "trunk_parameters": parameters(branched.trunk.variables()),
    }


def enter(config: Any, workdir: Path = Path()) -> Setting:
    """Everything line (1) takes for granted.

    Raises:
        UserError: a misspelt choice; teachers of different architectures; whatever `prepare` finds wrong.
    """
    check_choices(config)
    setting = prepare(config, workdir, lambda teachers: check_alike(teachers, "Dual-GAN"), fold=True, look=generation.no_images)
    groups = config.gen.groups
    joined, frozen = (tuple(replace(t, net=generation.in_groups(t.net, groups)) for t in of) for of in (setting.teachers, setting.frozen))
    if config.student.weights not in ("none", "teacher") and len(joined[0].net) != len(setting.teachers[0].net):
        raise UserError(f"student.weights={config.student.weights} needs the teachers' own blocks: set gen.groups=0")
    return replace(setting, teachers=joined, frozen=frozen)


def plan(config: Any, pool: Mapping[str, Teacher]) -> Plan:
    """What `amalgamate` is going to do, for teachers that are trained or only built."""
    _, teachers = chosen(config, pool)
    check_alike(teachers, "Dual-GAN")
    teachers = [replace(t, net=generation.in_groups(t.net, config.gen.groups)) for t in teachers]
    net, n, gen, block, fine = teachers[0].net, len(teachers), config.gen, config.block, config.finetune
    trunk, cost, written = net.part(stop=len(net) - 2), planning.work(net), planning.activations(net)
    made = generation.make_generator(config, teachers, 0)
    making, held_out = sum(planning.work(made)), config.generated.held_out_images
    # What group j writes is read by the blocks behind its place, the image by all; forward, and backward through both.
    behind = [n * sum(cost[len(cost) - 1 - j :]) for j in range(1, len(made) + 1)]
    step = 3 * making + (3 if gen.bn_stat else 2) * sum(behind)
    looks = (gen.steps // gen.look_steps + 1) * _LOOK if gen.look_steps else _LOOK
    lines = (
        []
        if config.generated.generator_from
        else [Line("generator", gen.steps, gen.steps * gen.batch_size * step + looks * (making + behind[-1]))]
    )
    lines.append(Line("held-out images", 0, held_out * (making + n * sum(cost))))
    for k, name in enumerate(trunk.names):
        rest, before, inputs = n * sum(cost[k + 1 :]), sum(cost[:k]), 2 if k and block.lambda1 and block.lambda2 else 1
        each = making + n * sum(cost) + before + inputs * (3 * cost[k] + 2 * rest)
        look = before + (inputs * (cost[k] + rest) + making if block.eta_from == "both" else cost[k] + rest)
        lines.append(Line(f"block/{name}", block.steps, block.steps * block.batch_size * each + held_out * look))
    largest = cost[0] + n * sum(cost[1:])  # all tasks leave at the first block
    if fine.steps:
        looks = fine.steps // fine.look_steps + 2 if fine.look_steps else 2
        each = making + n * sum(cost) + 3 * largest
        lines.append(Line("finetune", fine.steps, fine.steps * fine.batch_size * each + looks * held_out * largest))
    test, size = generation.test_images(config), teachers[0].preprocessing.size
    if test:
        lines.append(Line("test", 0, test * (2 * largest + n * sum(cost))))
    student, tails = planning.weights(trunk), n * planning.weights(net)
    batch = gen.batch_size * (sum(planning.activations(made)) + n * len(made) * sum(written))
    return Plan(
        lines,
        net,
        disk=2 * 3 * (planning.weights(made) + student + tails) + planning.weights(made) + (student + tails),
        caches=test * size * size * 3.0,
        memory=planning.training(student + tails, 2 * tails, batch) + held_out * size * size * 12.0,
        notes=["fine-tuning, disk and memory: for a student whose tasks all leave at the first block"],
    )


def check_choices(config: Any) -> None:
    """Every choice that is a word, and numbers out of range.

    Raises:
        UserError: an unknown word, a number out of range, or a start that cannot train well.
    """
    generation.check_choices(config)
    block, fine = config.block, config.finetune
    one_of("finetune.trainable", fine.trainable, PARTS)
    for section in ("block", "finetune"):
        one_of(f"{section}.batchnorm", config[section].batchnorm, BATCH_NORMS)
        optimizers.check(config[section].optimizer, f"{section}.optimizer")
    one_of("filter.gate", config.filter.gate, GATES)
    one_of("block.eta_from", block.eta_from, ETA_FROM)
    if min(block.lambda1, block.lambda2) < 0 or not np.isfinite(block.lambda1 + block.lambda2) or not block.lambda1 + block.lambda2:
        raise UserError(
            f"block.lambda1={block.lambda1} and block.lambda2={block.lambda2} weigh two inputs: set both to 0 or more, not both to 0"
        )
    check_start("student.weights", config.student.weights, "block.batchnorm", block.batchnorm, config.student.normalise)
