"""Customize: student networks for any tasks from heterogeneous multi-task teachers, by adaptive amalgamation in two stages.

Shen, Xue, Wang, Song, Sun, Song: "Customizing Student Networks From Heterogeneous Teachers via Adaptive Knowledge Amalgamation",
ICCV 2019. First every wanted task gets a component net, taught by all source nets that know the task; then one target net learns all
tasks from the component nets. In both stages the student follows, image by image, the teacher that is surest of it: its features through
transfer bridges, and its logits. No labels are used.

One function serves both stages, since they differ only in who teaches what: `amalgamate`. A component is saved as a teacher with a card,
so that any later target takes it as it is; missing components are trained on the way, as missing teachers are.

Symbols
    source, component, target     S_i; C_i; T        teachers.Teacher (sources, components), branching.Branched (what is trained)
    F_t^l, F_s^l                  features at tap l   models.taps.TappedNet
    FA, w_ij                      feature alignment   models.adapters.Bridge, Bridge.kernel
    p, I(p)                       softmax, entropy    choice.entropy
    s, t, lambda_t                logits, scale       student's and teacher's logits; Parts.scales
    L - 1                         number of taps      5 for a ResNet-18 in stages: raw stem, b1..b4 (C1)

Equations
    Eq. 1   models.adapters.Bridge   FA: 1x1 convolution of each side to common channels
    Eq. 2   losses.transfer          L_a = ||Fs - Ft||^2 / (C H W), image by image
    Eq. 3   losses.unit_filters      sum_i w_ij^2 = 1, which eq. 4 relaxes
    Eq. 4   losses.unit_filters      L_reg = (1 / C_out) sum_j (sum_i w_ij^2 - 1)^2
    Eq. 5   choice.entropy           of the wanted task's softmax
    Eq. 6   choice.select_teacher    the teacher of the smallest entropy
    Eq. 7   losses.soft_target       L_soft = (1 / C_cls) ||s - lambda_t t||^2
    Eq. 8   customised_loss          sum_l (L_a + L_reg) of the selected teacher + L_soft

Choices the paper leaves open, and deviations (ids of the project's spec)
    C1   taps are the raw stem convolution and every stage before its last ReLU. Switch `bridge.tap=post_relu`.
    C2   first stage: both sides are aligned to half of the student's channels; second stage: the student's side to the component's
         channels, `bridge.sides=student`. With a bias, as in the published code; `bridge.bias=False` is eq. 1. Resolutions that differ
         meet at the smaller one.
    C3   eq. 4 for the teachers' side, once a bridge, whichever teacher is followed. Switch `bridge.regularise=both|none`. Without a
         convolution on the teachers' side there is nothing to regularise.
    C4   the learned scale multiplies the student's logits, so that the loss cannot be escaped by shrinking both sides to 0.
         Switch `scale=teacher` (as printed), `none`. Its learning rate is `scale_multiplier` times the others'.
    C5   selection inside the step, among the teachers of the task, from logits computed once per image and view; each teacher sees the
         images it was selected for only. Means are over the whole batch.
    C6   a target learns every task from its own component: DEVIATION, since one component an image (`select=image`, as printed) leaves
         the other heads untrained on that image.
    C7   binary tasks have two-way softmax heads; of a joint head over more classes the wanted rows are kept.
    C12  one-shot: a target whose teachers are sources; the selection is task by task.
    C13  ablations: `select=all` (mean of all teachers' losses), `bridge.use=False` (eq. 7 alone), both: KD.
    A20  start of the student: `student.weights` (`none`, or ready weights where its backbone has some).
    Training keeps the epoch of the smallest held-out eq. 7.

Not implemented: the offline split of the images by teacher (C5: the same selection, batch by batch of one teacher).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import choice, losses, models, planning
from amalgam_tf.amalgamation import Setting, check_normalised, chosen, finish, prepare, tasks_of, with_one_head
from amalgam_tf.branching import Branched, mean_over
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models import check_start
from amalgam_tf.models.adapters import Bridge, meeting_size
from amalgam_tf.models.blocks import BlockNet, named_variables, safe_name
from amalgam_tf.models.taps import TAPS, TappedNet
from amalgam_tf.planning import Line, Plan
from amalgam_tf.teachers import Stream, Teacher, split_rows
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import BATCH_NORMS, Phase, Update

_UNIT = re.compile(r"b\d+_\d+")  # a foreign net's conv_1, conv_2, ... are no units of one stage
SELECTIONS = ("task", "image", "all")  # the surest teacher of each task; of the whole image; every teacher with an equal share


@dataclass(frozen=True)
class TransferBridges:
    """Between the student and one teacher: for every tap of the student, by its name.

    Attributes:
        taps: student's tap -> the teacher's.
        student: the student's sides (FA).
        teacher: the teacher's sides; without a convolution they only reduce the resolution.
    """

    taps: Mapping[str, str]
    student: Mapping[str, Bridge]
    teacher: Mapping[str, Bridge]

    def regularised(self, sides: str) -> list[keras.Variable]:
        """The kernels of eq. 4 (C3)."""
        wanted = {"teacher": [self.teacher], "both": [self.teacher, self.student], "none": []}[sides]
        return [b.kernel for side in wanted for b in side.values() if b.kernel is not None]

    def layers(self) -> dict[str, Bridge]:
        return {f"{side}/{tap}": b for side, of in (("student", self.student), ("teacher", self.teacher)) for tap, b in of.items()}


@dataclass(frozen=True)
class Parts:
    """Everything an image runs through in training."""

    student: Branched
    tapped: TappedNet
    teachers: Mapping[str, TappedNet]
    bridges: Mapping[str, TransferBridges]
    scales: Mapping[str, keras.Variable]  # stream -> lambda (C4)


# -- the algorithm ----------------------------------------------------------------------------------------------------
def amalgamate(setting: Setting, run: Run) -> Branched:
    """One stage: a student of the wanted streams' teachers (component net of source nets, or target net of component nets)."""
    run.decide("inputs", dict, of=setting.fingerprint())
    parts = start(setting, run)
    run.track(parts.student.named_variables("student"))
    for name, bridges in parts.bridges.items():
        run.track({k: v for key, b in bridges.layers().items() for k, v in named_variables(b, f"bridge/{name}/{key}").items()})
    run.track({f"scale/{name}": v for name, v in parts.scales.items()})
    run.phase(transfer_phase(setting, parts, run))
    run.decide("selection", lambda: selected_on_held_out(setting))
    return parts.student


# -- equations --------------------------------------------------------------------------------------------------------
def shares(streams: Sequence[Stream], targets: Mapping[str, tf.Tensor], select: str) -> dict[str, tf.Tensor]:
    """How much of each image a stream teaches (eqs. 5 and 6): stream -> [batch], 0 or 1, of each task's (or image's) streams exactly one;
    `all`: equal shares of each task's streams."""
    groups: dict[str, list[Stream]] = {}
    for s in streams:
        groups.setdefault("" if select == "image" else s.task.name, []).append(s)
    share = {}
    for members in groups.values():
        entropies = [choice.entropy(targets[str(s)], s.task.head) for s in members]
        selected = choice.select_teacher(entropies)
        for i, s in enumerate(members):
            share[str(s)] = tf.fill(tf.shape(selected), 1 / len(members)) if select == "all" else tf.cast(selected == i, tf.float32)
    return share


def customised_loss(setting: Setting, parts: Parts, batch: Mapping[str, tf.Tensor], batch_norm: bool):
    """Eq. 8 over a batch: (scalar, its terms), every term a mean over all images of the batch (C5), all of weight 1."""
    config, share = setting.config, shares(setting.streams, batch, setting.config.select)
    taps, rows = parts.tapped.run(setting.preprocessing(batch["images"]), training=batch_norm)
    soft = soft_losses(setting, parts, rows, batch, share)
    terms = {f"soft/{s}": tf.reduce_mean(v) for s, v in soft.items()}
    measured = {f"selected/{s}": tf.reduce_mean(v) for s, v in share.items()}
    measured |= {f"entropy/{s}": tf.reduce_mean(choice.entropy(batch[str(s)], s.task.head)) for s in setting.streams}
    if config.bridge.use:
        aligned: dict[str, list[tf.Tensor]] = {}
        for teacher in setting.teachers:
            mine = tf.add_n([share[str(s)] for s in setting.streams if s.teacher == teacher.name])
            for tap, value in transfer_losses(setting, parts, teacher, taps, batch["images"], mine).items():
                aligned.setdefault(tap, []).append(value)
        terms |= {f"transfer/{tap}": tf.add_n(values) for tap, values in aligned.items()}
        kernels = [k for b in parts.bridges.values() for k in b.regularised(config.bridge.regularise)]
        if kernels:
            terms["regulariser"] = tf.add_n([losses.unit_filters(kernel=k) for k in kernels])
    return tf.add_n(list(terms.values())), terms | measured


def soft_losses(setting: Setting, parts: Parts, rows: tf.Tensor, targets: Mapping[str, tf.Tensor], share: Mapping[str, tf.Tensor]):
    """Eq. 7 of every stream, as far as it teaches: stream -> [batch]."""
    logits = split_rows(rows, setting.tasks)
    return {
        str(s): share[str(s)]
        * losses.soft_target(
            logits=logits[s.task.name],
            teacher_logits=targets[str(s)],
            scale=parts.scales[str(s)].value if str(s) in parts.scales else 1.0,
            scaled=setting.config.scale,
        )
        for s in setting.streams
    }


def transfer_losses(
    setting: Setting, parts: Parts, teacher: Teacher, taps: Mapping[str, tf.Tensor], images: tf.Tensor, share: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Eq. 2 between the student and one teacher at every tap, on the images it teaches: tap -> scalar, summed over them / batch size.

    The teacher runs on these images only: over all teachers that is one forward pass of the batch and not one each.
    """
    bridges, places = parts.bridges[teacher.name], tf.where(share > 0)[:, 0]
    # TF's fused convolutions fail on an empty batch: the first image goes along once more and counts nothing.
    share, size = tf.concat([tf.gather(share, places), [0.0]], 0), tf.cast(tf.shape(images)[0], tf.float32)
    places = tf.concat([places, [0]], 0)
    theirs, _ = parts.teachers[teacher.name].run(teacher.preprocessing(tf.gather(images, places)), training=False)
    values = {}
    for tap, their_tap in bridges.taps.items():
        mine = bridges.student[tap](tf.gather(taps[tap], places))
        each = losses.transfer(student=mine, teacher=bridges.teacher[tap](tf.stop_gradient(theirs[their_tap])))
        values[tap] = tf.reduce_sum(share * each) / size
    return values


def selected_on_held_out(setting: Setting) -> dict[str, dict[str, float]]:
    """Stream -> the share of the held-out images it would teach, and its mean entropy there in nats."""
    targets = {str(s): tf.constant(setting.targets["held_out"][str(s)][0]) for s in setting.streams}
    share = shares(setting.streams, targets, setting.config.select)
    return {
        str(s): {
            "share": float(np.mean(share[str(s)])),
            "entropy": float(np.mean(choice.entropy(targets[str(s)], s.task.head))),
        }
        for s in setting.streams
    }


# -- the phase --------------------------------------------------------------------------------------------------------
def transfer_phase(setting: Setting, parts: Parts, run: Run) -> Phase:
    """Trains the student, its bridges and scales by eq. 8; ends with the weights of the smallest held-out eq. 7."""
    config, settings = setting.config, setting.config.train
    batch_norm = settings.batchnorm == "batch"

    @tf.function(autograph=False)
    def held_out(pixels, *rows):
        targets = dict(zip((str(s) for s in setting.streams), rows, strict=True))
        _, logits = parts.tapped.run(setting.preprocessing(pixels), training=False)
        return {
            "soft": tf.add_n(list(soft_losses(setting, parts, logits, targets, shares(setting.streams, targets, config.select)).values()))
        }

    bridges = [v for b in parts.bridges.values() for layer in b.layers().values() for v in layer.trainable_variables]
    scales = list(parts.scales.values())
    update = Update(
        "transfer",
        trains=[*parts.student.weights(), *bridges, *scales],
        statistics=parts.student.statistics() if batch_norm else [],
        heads=scales,
        loss=lambda batch: customised_loss(setting, parts, batch, batch_norm),
        optimizer={**settings.optimizer.to_dict(), "head_multiplier": config.scale_multiplier},
    )
    batches = setting.images.batches(settings.batch_size, run.seed_of("data/transfer"), setting.targets["train"])
    rows = [setting.targets["held_out"][str(s)][0] for s in setting.streams]
    return Phase(
        "transfer",
        steps=batches.steps(settings.epochs),
        data=batches,
        updates=[update],
        validate=lambda: mean_over(held_out, setting.images.pixels["held_out"], *rows),
        validate_every_steps=batches.steps(1),
        keep_best="soft",
    )


# -- the pieces that enter --------------------------------------------------------------------------------------------
def start(setting: Setting, run: Run) -> Parts:
    """A new student of the wanted backbone, the bridges to its teachers and the scales."""
    config = setting.config
    student = with_one_head(new_trunk(setting, run), setting, run)
    tapped = TappedNet(student.chain(), config.bridge.tap)
    teachers = {t.name: TappedNet(in_stages(t.net), config.bridge.tap) for t in setting.teachers}
    bridges = {}
    if config.bridge.use:
        bridges = {n: start_bridges(config.bridge, n, tapped.shapes, of.shapes, run) for n, of in teachers.items()}
    scales = {}
    if config.scale != "none":
        scales = {str(s): keras.Variable(1.0, dtype="float32", name=safe_name(f"scale_{s}")) for s in setting.streams}
    return Parts(student, tapped, teachers, bridges, scales)


def new_trunk(setting: Setting, run: Run) -> BlockNet:
    """The convolutional part of the student in stages, initialised as a function of the run's seed."""
    student = setting.config.student
    keras.utils.set_random_seed(run.seed_of("student"))
    several = run.strategy.num_replicas_in_sync > 1
    size, options = setting.preprocessing.size, {"width": student.width, "weights": student.weights, "synchronized": several}
    net = models.classifier(student.backbone, input_size=size, outputs=1, granularity="stage", **options)
    return net.part(stop=len(net) - 2)


def in_stages(net: BlockNet) -> BlockNet:
    """A network cut into units with one block a stage; any other as it is."""
    return net.joined(net.stages()) if all(_UNIT.fullmatch(n) for n in net.names[:-1]) else net


def start_bridges(options: Any, teacher: str, mine: Mapping[str, tuple], theirs: Mapping[str, tuple], run: Run) -> TransferBridges:
    """Bridges between every tap of the student and the teacher's of the same place, initialised as a function of the run's seed.

    Args:
        options: the section `bridge` of the config.
        teacher: its name.
        mine: the student's tap -> shape.
        theirs: the teacher's.
        run: the run.

    Raises:
        UserError: another number of taps, or a tap that is no map of known size.
    """
    if odd := [tap for tap, shape in theirs.items() if len(shape) != 3 or None in shape]:
        raise UserError(
            f"teacher {teacher} writes no map [height, width, channels] of known size at {odd[0]}: cut it elsewhere or set bridge.use=False"
        )
    if len(mine) != len(theirs):
        raise UserError(
            f"the student is tapped at {', '.join(mine)}, teacher {teacher} at {', '.join(theirs)}: cut them into equally many stages, "
            "or set bridge.use=False"
        )
    taps, sides = dict(zip(mine, theirs, strict=True)), {"student": {}, "teacher": {}}
    for tap, their_tap in taps.items():
        size = meeting_size(mine[tap], theirs[their_tap])
        common = max(1, round(options.share * mine[tap][-1])) if options.sides == "both" else theirs[their_tap][-1]
        for side, shape, channels in (
            ("student", mine[tap], common),
            ("teacher", theirs[their_tap], common if options.sides == "both" else None),
        ):
            keras.utils.set_random_seed(run.seed_of(f"bridge/{teacher}/{side}/{tap}"))
            layer = Bridge(channels, size, options.bias, name=safe_name(f"bridge_{teacher}_{side}_{tap}"))
            layer.build((None, *shape))
            sides[side][tap] = layer
    return TransferBridges(taps, sides["student"], sides["teacher"])


# -- from config to results -------------------------------------------------------------------------------------------
def train(config: Any, run: Run) -> dict[str, Any]:
    """Makes the component or target net of a config and returns the results; a component is saved as a teacher, a target as a student."""
    check_choices(config)
    setting = prepare(config, run.workdir)
    check_setting(setting)
    for note in setting.notes():
        run.say(note)
    student = amalgamate(setting, run)
    backbone = {"backbone": config.student.backbone, "input_size": setting.preprocessing.size, "width": config.student.width}
    component = {"name": config.name, "backbone": {**backbone, "granularity": "stage"}}
    return {
        "method": "customize",
        "stage": config.stage,
        "select": config.select,
        "selection": run.decided("selection"),
        "best": run.decided("best/transfer"),
        **finish(setting, run, student, as_teacher=component if config.stage == "component" else None),
    }


def plan(config: Any, pool: Mapping[str, Teacher]) -> Plan:
    """What `train` is going to do, for teachers that are trained or only built."""
    streams, teachers = chosen(config, pool)
    images, settings, student = planning.counts(config), config.train, config.student
    size = teachers[0].preprocessing.size
    net = models.classifier(student.backbone, input_size=size, outputs=2 * len(streams), granularity="stage", width=student.width)
    cost, views = sum(planning.work(net)), images.train * images.views
    theirs = [sum(planning.work(t.net)) for t in teachers]
    followed = sum(theirs) if config.select == "all" else max(theirs) * (1 if config.select == "image" else len({s.task for s in streams}))
    each = 3 * cost + (followed if config.bridge.use else 0)
    steps, weights = planning.steps(settings.epochs, images.train, settings.batch_size), planning.weights(net)
    return Plan(
        [
            Line("teachers' outputs", 0, (views + images.held_out) * sum(theirs)),
            Line("transfer", steps, steps * settings.batch_size * each + (settings.epochs + 1) * images.held_out * cost),
            Line("test", 0, images.test * (cost + sum(theirs))),
        ],
        net,
        disk=2 * 4 * weights + weights,
        caches=planning.caches(images, size, sum(s.task.outputs for s in streams)),
        memory=planning.training(
            weights, sum(planning.weights(t.net) for t in teachers), settings.batch_size * sum(planning.activations(net))
        ),
    )


def untrained(config: Any, pool: Mapping[str, Teacher]) -> Teacher:
    """The component that a config is going to train, with random weights: for plans."""
    streams, teachers = chosen(config, pool)
    tasks, student = tasks_of(streams), config.student
    options = {"granularity": "stage", "width": student.width, "outputs": sum(t.outputs for t in tasks)}
    net = models.classifier(student.backbone, input_size=teachers[0].preprocessing.size, **options)
    return Teacher(config.name, net, tasks, teachers[0].preprocessing)


def check_choices(config: Any) -> None:
    """Every choice that is a word.

    Raises:
        UserError: an unknown word, a choice that is not this method's, or a start that cannot train well.
    """
    one_of("stage", config.stage, ("component", "target"))
    one_of("select", config.select, SELECTIONS)
    one_of("scale", config.scale, losses.SCALED)
    one_of("bridge.tap", config.bridge.tap, TAPS)
    one_of("bridge.sides", config.bridge.sides, ("both", "student"))
    one_of("bridge.regularise", config.bridge.regularise, ("teacher", "both", "none"))
    one_of("train.batchnorm", config.train.batchnorm, BATCH_NORMS)
    optimizers.check(config.train.optimizer, "train.optimizer")
    models.family(config.student.backbone)
    check_start("student.weights", config.student.weights, "train.batchnorm", config.train.batchnorm, config.student.normalise)
    if config.targets != "soft" or any(weight != 1 for weight in config.teacher_weights.values()):
        raise UserError(
            "customize follows its teachers' logits, all with the same weight: leave targets=soft and every teacher_weights at 1"
        )
    if not 0 < config.bridge.share <= 1:
        raise UserError(f"bridge.share must lie between 0 and 1, not {config.bridge.share}")


def check_setting(setting: Setting) -> None:
    """What only teachers and tasks can tell.

    Raises:
        UserError: entropies that do not compare (C11), or ready weights with an input they were not made for (A20).
    """
    config, classes = setting.config, {t.name: max(2, t.outputs) for t in setting.tasks}
    if config.select == "image" and len(set(classes.values())) > 1:
        told = ", ".join(f"{name}: {n}" for name, n in classes.items())
        raise UserError(f"select=image compares entropies over different numbers of classes ({told}): set select=task")
    if config.student.weights != "none":
        check_normalised(setting, config.student.backbone)
