"""AFK / TargetNet: Amalgamating Filtered Knowledge.

Ye, Wang, Ji, Ou, Song: "Amalgamating Filtered Knowledge: Learning Task-customized Student from Multi-task Teachers",
IJCAI 2019. Several trained teachers of one architecture, any subset of their labels, no annotations: the student is
trained block by block, each block read by the frozen rest of every teacher; then every task leaves the student where
its loss was smallest, taking the rest of its teacher along.

Symbols
    A_n, B          teacher n and its number of blocks   teachers.Teacher, branching.entangle
    C_n, C          wanted tasks of teacher n; union     teachers.Pool, Setting.streams
    T^k             block k of the student               models.blocks.BlockNet
    f_n^k           teacher-level filter                 models.adapters.ChannelFilter
    F_u^k, F_un^k   student features, filtered           block_phase
    g               task-level filter (wanted rows)      task_level_filter
    O_n, O_un       teacher's outputs, entangled ones    teacher_targets, entangled_losses
    L_n^i(k)        held-out loss of a task at block k   block_losses
    S_n^i           branch point                         choice.branch_points

Equations
    Eq. 1   teachers.Pool.resolve           C_n, subset of A_n's tasks, and their union
    Eq. 2   losses.binary_cross_entropy     the teachers' own loss (methods/teacher.py)
    Eq. 3   models.blocks.BlockNet.run      F^k = A^k(F^{k-1}), O = fc(F^B)
    Eq. 4   models.adapters.ChannelFilter   F_un^k = f_n^k(F_u^k)
    Eq. 6   branching.entangle              O_un = fc_n o A_n^B o ... o A_n^{k+1} (F_un^k)
    Eq. 7   customised_losses               CE(O_n^i, O_un^i) of every stream; total: (1 / |C|) sum_n sum_i
    Eq. 8   total                           |C| = sum_n |C_n|, the number of streams
    Eq. 9   choice.branch_points            S_n^i = argmin_k L_n^i(k)
    Eq. 10  regroup                         T^1..T^S -> f_n^S -> A_n^{S+1}..A_n^B -> fc_n^i

Choices the paper leaves open, and deviations (ids of the project's spec)
    A6   one optimizer and one full schedule per block. Switch `block.optimizer`, `block.epochs`.
    A7   gate of the filter: `two_sigmoid` starts as the identity; it and `linear` measured alike and better than `sigmoid`
         (results/README.md), which is the paper-literal preset `paper`. Switch `filter.gate`, `filter.reduction`, `filter.bias`.
    A8   soft targets (eq. 7). Switch `targets=hard`.
    A9   blocks are those the teachers were cut into (their card), the stem belongs to the first. The paper's are residual units
         (`model.granularity=unit`, preset `paper`); our default is stages, four times cheaper.
    A10  L(k) is one inference pass over held-out unlabelled images after block k. Switch `branch.split=train`.
    A11  one student for all teachers: their losses are trained jointly.
    A12  tasks of one teacher that leave at one block share filter and tail. Switch `branch.share=per_task` gives every task a tail
         of its own behind the common filter f_n^S.
    A13  fine-tuning: soft targets again, all weights; the start or the epoch of the best held-out loss is kept. Switch
         `finetune.trainable`.
    A14  frozen blocks and teachers use stored batch-norm statistics; the trained block uses `block.batchnorm`
         (`batch`; `frozen` for ImageNet starts); fine-tuning `finetune.batchnorm`.
    A15  gradients are taken for T^k and f^k only and pass through the frozen tails.
    A20  start of the student: `student.weights` (`none`, `imagenet`, a file; `teacher` copies the first teacher).
    A21  the filter acts on the block's output, not inside its units.
    Same task in two teachers: two streams in eq. 7; the student keeps the one of smaller held-out loss.
    Softmax tasks are amalgamated by the same rule with softmax cross-entropy (the paper has binary tasks only).

Not implemented
    Eq. 5 (feature distance; the paper replaces it by eq. 7). Other unlabelled images than the train split's (A3). One schedule
    over all blocks (A6). DenseNet (A9). Branch statistics from the training average (A10). Groups for COCO (A16). Table rows b1..b4
    with all tasks at one stage's end (A17). COCO and its top-3 metrics (A18). The test curve of fig. 3 (every k branched and
    measured). Branch rules other than argmin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import choice, data, evaluate, losses, models
from amalgam_tf import tasks as task_lists
from amalgam_tf.branching import Branched, Tail, entangle, mean_over, teacher_tail
from amalgam_tf.data import pipeline
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models.adapters import ChannelFilter
from amalgam_tf.models.blocks import BlockNet, named_variables, parameters
from amalgam_tf.models.resnet import check_start
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Pool, Stream, Student, Teacher, foreign_data, in_precision, teacher_folder
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import BATCH_NORMS, Phase, Update

Filters = Mapping[tuple[str, str], ChannelFilter]  # (block, teacher) -> f_n^k
Recorded = Mapping[str, Mapping[str, Mapping[str, float]]]  # block -> stream -> {"loss", "divergence"}


@dataclass(frozen=True)
class Setting:
    """What stays the same throughout Algorithm 1.

    Attributes:
        config: the experiment.
        streams: C, every wanted task with its teacher.
        teachers: A_n, those that are needed.
        images: unlabelled train and held-out pixels, the test part.
        preprocessing: what the student reads.
        targets: part (`train`, `held_out`) -> stream -> O_n^i as logits [views, n, outputs], computed once.
    """

    config: Any
    streams: tuple[Stream, ...]
    teachers: tuple[Teacher, ...]
    images: "Images"
    preprocessing: Preprocessing
    targets: Mapping[str, Mapping[str, np.ndarray]]

    def fingerprint(self) -> str:
        """Over teachers and all images: a run that goes on with others would mix two experiments."""
        images = [self.images.fingerprint("train"), self.images.fingerprint("held_out"), self.images.test.fingerprint]
        return "/".join([*(t.card["sha256"][:16] for t in self.teachers), *images])


# -- the algorithm ----------------------------------------------------------------------------------------------------
def amalgamate(setting: Setting, run: Run) -> Branched:
    """Algorithm 1 of the paper, line by line (numbers as printed there; the teachers' outputs of line 2 are in `setting`)."""
    run.decide("inputs", dict, of=setting.fingerprint())
    student = start_student(setting, run)  # (1) T and the filters f
    filters = start_filters(setting, student, run)
    run.track(student.named_variables("student"))
    run.track({k: v for (block, name), f in filters.items() for k, v in named_variables(f, f"filter/{block}/{name}").items()})

    recorded = {}
    for k, block in enumerate(student.names):  # (3), (4) F^0 = I; for k = 1..B
        run.phase(block_phase(setting, student, k, filters, run))  # (5)-(9)
        recorded[block] = run.decide(  # (10) L_n^i(k)
            f"block_losses/{block}",
            lambda k=k: block_losses(setting, student, k, filters),
            of=setting.images.fingerprint(setting.config.branch.split),
        )
        run.say(
            f"  block {block}: {setting.config.branch.split} divergence "
            + "  ".join(f"{s} {v['divergence']:.4f}" for s, v in recorded[block].items())
        )
    # (11) end

    branches = run.decide("branches", lambda: choose_branches(recorded, setting.streams))  # (12) S_n^i
    run.say("  branch points: " + ", ".join(f"{s} at {b}" for s, b in branches.items()))
    branched = regroup(student, filters, setting, branches)  # (13)
    run.track({k: v for tail in branched.unique_tails for k, v in tail.net.named_variables(f"tail/{tail.name}").items()})
    run.decide("before_finetune", lambda: measured_on_test(branched, setting))
    if setting.config.finetune.epochs:
        run.phase(finetune_phase(setting, branched, branches, run))  # (14)
    return branched


# -- equations --------------------------------------------------------------------------------------------------------
def task_level_filter(outputs: Mapping[str, tf.Tensor], streams: Sequence[Stream], teachers: Sequence[Teacher]) -> dict[str, tf.Tensor]:
    """g: keeps the wanted rows. Teacher name -> logits [..., rows] becomes stream -> logits [..., outputs of the task]."""
    by_name = {t.name: t for t in teachers}
    rows = {s: by_name[s.teacher].rows([s.task.name]) for s in streams}
    return {str(s): outputs[s.teacher][..., rows[s][0] : rows[s][-1] + 1] for s in streams}


def customised_losses(
    streams: Sequence[Stream], logits: Mapping[str, tf.Tensor], targets: Mapping[str, tf.Tensor], hard: bool
) -> dict[str, tf.Tensor]:
    """Eq. 7 before its means: stream -> cross-entropy against its teacher, [batch], nats. Eq. 8: there are |C| of them.

    Args:
        streams: C.
        logits: stream -> logits of the student [batch, outputs].
        targets: stream -> logits of the teacher, same shape.
        hard: targets rounded (A8).
    """
    return {
        str(s): losses.distillation(head=s.task.head, logits=logits[str(s)], teacher_logits=targets[str(s)], hard=hard) for s in streams
    }


def entangled_losses(
    setting: Setting, features: tf.Tensor, block: str, k: int, filters: Filters, targets: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Eqs. 4, 6, 7: filter the student's features behind block k, run every teacher's rest, compare the wanted rows."""
    outputs = entangle(features, k, {t.name: filters[block, t.name] for t in setting.teachers}, setting.teachers)
    logits = task_level_filter(outputs, setting.streams, setting.teachers)
    return customised_losses(setting.streams, logits, targets, setting.config.targets == "hard")


def choose_branches(recorded: Recorded, streams: Sequence[Stream]) -> dict[str, str]:
    """Eq. 9 for every stream; where several teachers know a task, only its best stream is kept. Stream -> block."""
    losses_at = {block: {s: v["loss"] for s, v in values.items()} for block, values in recorded.items()}
    points = choice.branch_points(losses_at)
    at_best = {s: losses_at[block][s] for s, block in points.items()}
    return {s: points[s] for s in choice.best_streams({str(s): s.task.name for s in streams}, at_best).values()}


def regroup(student: BlockNet, filters: Filters, setting: Setting, branches: Mapping[str, str]) -> Branched:
    """Eq. 10: trunk T^1..T^S, then the filter, a copy of the teacher's rest and its rows, for every (teacher, S) (A12)."""
    per_task = setting.config.branch.share == "per_task"
    groups: dict[tuple[str, str, str], list[Stream]] = {}
    for stream in setting.streams:
        if block := branches.get(str(stream)):
            groups.setdefault((stream.teacher, block, stream.task.name if per_task else ""), []).append(stream)
    tails: dict[str, Tail] = {}
    for (name, block, own), members in groups.items():
        teacher = next(t for t in setting.teachers if t.name == name)
        tail = teacher_tail(teacher, block, filters[block, name], [s.task for s in members], f"{name}@{block}.{own}".rstrip("."))
        tails |= {s.task.name: tail for s in members}
    return Branched(student, {s.task.name: tails[s.task.name] for s in setting.streams if str(s) in branches})


# -- phases -----------------------------------------------------------------------------------------------------------
def block_phase(setting: Setting, student: BlockNet, k: int, filters: Filters, run: Run) -> Phase:
    """Lines (5)-(9): trains T^k and the filters f_n^k; everything else is frozen (A14, A15)."""
    settings, block = setting.config.block, student.names[k]
    batch_norm = settings.batchnorm == "batch"

    def loss(batch):
        features = student.run(setting.preprocessing(batch["images"]), stop=k - 1) if k else setting.preprocessing(batch["images"])
        features = student.run(features, start=k, stop=k, training=batch_norm)  # (5) F_u^k
        return total(entangled_losses(setting, features, block, k, filters, batch))  # (6)-(8)

    update = Update(
        "block",
        trains=[*student.weights(k, k), *(v for t in setting.teachers for v in filters[block, t.name].trainable_variables)],
        statistics=student.statistics(k, k) if batch_norm else [],
        loss=loss,
        optimizer=settings.optimizer.to_dict(),
    )
    batches = setting.images.batches(settings.batch_size, run.seed_of(f"data/block/{block}"), setting.targets["train"])
    return Phase(f"block/{block}", steps=batches.steps(settings.epochs), data=batches, updates=[update])


def finetune_phase(setting: Setting, branched: Branched, branches: Mapping[str, str], run: Run) -> Phase:
    """Line (14): the regrouped network against the teachers' outputs (A13); ends with its best held-out loss."""
    settings = setting.config.finetune
    kept = [s for s in setting.streams if str(s) in branches]
    trained = {
        "all": [*branched.trunk.weights(), *branched.tail_weights()],
        "trunk": branched.trunk.weights(),
        "tails": branched.tail_weights(),
    }

    def each(pixels, targets, training):
        logits = branched.run(setting.preprocessing(pixels), training=training)
        return customised_losses(kept, {str(s): logits[s.task.name] for s in kept}, targets, setting.config.targets == "hard")

    @tf.function(autograph=False)
    def held_out(pixels, *rows):
        values = each(pixels, dict(zip(map(str, kept), rows, strict=True)), False)
        return {"loss": tf.add_n(list(values.values())) / len(values)}

    batch_norm = settings.batchnorm == "batch"
    update = Update(
        "finetune",
        trains=trained[settings.trainable],
        statistics=branched.statistics() if batch_norm else [],
        loss=lambda batch: total(each(batch["images"], batch, batch_norm)),
        optimizer=settings.optimizer.to_dict(),
    )
    targets = {part: {str(s): rows[str(s)] for s in kept} for part, rows in setting.targets.items()}
    batches = setting.images.batches(settings.batch_size, run.seed_of("data/finetune"), targets["train"])
    return Phase(
        "finetune",
        steps=batches.steps(settings.epochs),
        data=batches,
        updates=[update],
        validate=lambda: mean_over(held_out, setting.images.pixels["held_out"], *(rows[0] for rows in targets["held_out"].values())),
        validate_every_steps=batches.steps(1),
        keep_best="loss",
    )


def total(each: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """The means of eq. 7 over batch and streams, and every stream's own mean to be logged."""
    means = {f"stream/{name}": tf.reduce_mean(value) for name, value in each.items()}
    return tf.add_n(list(means.values())) / len(means), means


def block_losses(setting: Setting, student: BlockNet, k: int, filters: Filters) -> dict[str, dict[str, float]]:
    """L_n^i(k) (A10): stream -> `loss` (eq. 7) and `divergence` (loss minus the teacher's entropy: 0 is perfect), in nats."""
    part, names, hard = setting.config.branch.split, [str(s) for s in setting.streams], setting.config.targets == "hard"

    @tf.function(autograph=False)
    def values(pixels, *rows):
        targets = dict(zip(names, rows, strict=True))
        features = student.run(setting.preprocessing(pixels), stop=k)
        loss = entangled_losses(setting, features, student.names[k], k, filters, targets)
        floor = customised_losses(setting.streams, targets, targets, hard)
        return {s: {"loss": loss[s], "divergence": loss[s] - floor[s]} for s in names}

    rows = pipeline.in_order(values, setting.images.pixels[part], *(setting.targets[part][n][0] for n in names))
    return {s: {k: float(np.mean(v, dtype=np.float64)) for k, v in terms.items()} for s, terms in rows.items()}


# -- the pieces that enter --------------------------------------------------------------------------------------------
class Images:
    """The run's pixels: unlabelled train and held-out images, and the test part with its truth."""

    def __init__(self, config: Any, size: int, tasks: Sequence[Task]):
        parts, self.cache = data.parts(config.data), data.cache_dir(config.data)
        self.test = parts.test.truth_for(tasks)
        self.unlabelled = {"train": parts.train.unlabelled(), "held_out": parts.held_out.unlabelled()}
        self.pixels = {part: pipeline.pixels(e, size, self.cache) for part, e in self.unlabelled.items()}
        self.test_pixels = pipeline.pixels(self.test, size, self.cache)
        self.views = 2 if config.flip else 1

    def fingerprint(self, part: str) -> str:
        return self.unlabelled[part].fingerprint

    def batches(self, batch_size: int, seed: int, targets: Mapping[str, np.ndarray]) -> pipeline.Batches:
        return pipeline.Batches(self.pixels["train"], batch_size, seed, views=self.views, viewed=targets)


def teacher_targets(streams: Sequence[Stream], teachers: Sequence[Teacher], images: Images, part: str) -> dict[str, np.ndarray]:
    """Line (2): O_n^i as logits, computed once: stream -> [views, n, outputs]; only the plain view of the held-out part."""
    views, outputs = (images.views if part == "train" else 1), {}
    for t in teachers:
        key = f"{t.card['sha256']}/{t.preprocessing}/{images.unlabelled[part].images_key}/{keras.config.dtype_policy().name}/logits"
        outputs[t.name] = pipeline.cached_outputs(
            tf.function(t.logits, autograph=False), images.pixels[part], views=views, key=key, cache_dir=images.cache
        )
    return {s: np.ascontiguousarray(rows) for s, rows in task_level_filter(outputs, streams, teachers).items()}


def start_student(setting: Setting, run: Run) -> BlockNet:
    """T^1..T^B: the teachers' blocks without the head, initialised by `student.weights` (A20)."""
    weights, first = setting.config.student.weights, setting.teachers[0]
    trunk = first.net.part(stop=len(first.net) - 2)
    student = trunk.fresh("student", seed=run.seed_of("student"), synchronized=run.strategy.num_replicas_in_sync > 1)
    if weights == "none":
        return student
    start = trunk if weights == "teacher" else _pretrained(first, weights)
    for name in student.names:
        student.block(name).set_weights(start.block(name).get_weights())
    return student


def _pretrained(first: Teacher, weights: str) -> BlockNet:
    backbone = first.card.get("backbone")
    if not backbone:
        raise UserError(
            f"student.weights={weights} needs a known backbone, but the card of teacher {first.name} names none: use none or teacher"
        )
    options = {k: backbone[k] for k in ("granularity", "width")}
    return models.classifier(backbone["backbone"], input_size=first.preprocessing.size, outputs=1, weights=weights, **options)


def start_filters(setting: Setting, student: BlockNet, run: Run) -> Filters:
    """f_n^k for every block and teacher, built for the block's known output shape (A7)."""
    filters, options = {}, setting.config.filter
    for block in student.names:
        for teacher in setting.teachers:
            keras.utils.set_random_seed(run.seed_of(f"filter/{block}/{teacher.name}"))
            layer = ChannelFilter(options.gate, options.reduction, options.bias, name=f"filter_{block}_{teacher.name}")
            layer.build((None, *student.shapes[block]))
            filters[block, teacher.name] = layer
    return filters


def check_alike(teachers: Sequence[Teacher]) -> None:
    """Teachers must agree in block names, block shapes and input size.

    Raises:
        UserError: they do not.
    """
    first, *others = teachers
    for other in others:
        mine, theirs = (list(t.net.shapes.items())[:-1] for t in (first, other))
        if mine != theirs or first.preprocessing.size != other.preprocessing.size:
            raise UserError(
                f"AFK needs teachers of one architecture, but the blocks of {first.name} ({mine}) and {other.name} ({theirs}) differ; "
                "teachers of different architectures are the business of the Customize method"
            )


# -- from config to results -------------------------------------------------------------------------------------------
def train(config: Any, run: Run) -> dict[str, Any]:
    """Amalgamates the student of a config, saves it to `workdir/student` and returns the results."""
    setting = prepare(config, run.workdir)
    for note in foreign_data(setting.teachers, config.data):
        run.say(note)
    branched = amalgamate(setting, run)

    card = {"name": "student", "teachers": {t.name: t.card["sha256"] for t in setting.teachers}, "recipe": config.to_dict()}
    student = Student(branched.as_model("student"), branched.tasks, setting.preprocessing, card)
    student.save(run.workdir / "student")
    images = setting.images
    test = {
        "data": images.test.name,
        "images": len(images.test),
        "student": measured_on_test(branched, setting),
        "student_before_finetune": run.decided("before_finetune"),
    }
    for teacher in setting.teachers:
        tasks = [s.task for s in setting.streams if s.teacher == teacher.name]
        test[teacher.name] = evaluate.measure(evaluate.predict(teacher.outputs, tasks, images.test_pixels), tasks, images.test)
    return {
        "method": "afk",
        "tasks": [t.name for t in branched.tasks],
        "teachers": {t.name: [s.task.name for s in setting.streams if s.teacher == t.name] for t in setting.teachers},
        "branches": run.decided("branches"),
        "branch_split": config.branch.split,
        "block_losses": {block: run.decided(f"block_losses/{block}") for block in setting.teachers[0].net.names[:-1]},
        "test": test,
        "sizes": {
            "student": evaluate.size_of(student.model),
            **{t.name: evaluate.size_of(t.net.as_model(t.name)) for t in setting.teachers},
        },
        "trunk_parameters": parameters(branched.trunk.variables()),
    }


def prepare(config: Any, workdir: Path = Path()) -> Setting:
    """Loads the teachers, resolves the wanted tasks, reads the images and computes the teachers' outputs once.

    Raises:
        UserError: a misspelt choice, before anything is read; whatever teachers, tasks or data find wrong.
    """
    check_choices(config)
    policy = keras.config.dtype_policy().name
    pool = Pool([in_precision(Teacher.load(teacher_folder(spec.path, workdir), name), policy) for name, spec in config.teachers.items()])
    streams = pool.resolve(task_lists.parse(config.tasks))
    teachers = tuple(t for t in pool.teachers.values() if any(s.teacher == t.name for s in streams))
    check_alike(teachers)
    size = teachers[0].preprocessing.size
    images = Images(config, size, list({s.task.name: s.task for s in streams}.values()))
    own = config.student.normalise
    preprocessing = Preprocessing.named(own, size) if own else teachers[0].preprocessing
    targets = {part: teacher_targets(streams, teachers, images, part) for part in ("train", "held_out")}
    return Setting(config, streams, teachers, images, preprocessing, targets)


def check_choices(config: Any) -> None:
    """Every choice that is a word, checked before the first step.

    Raises:
        UserError: an unknown word, or a start that cannot train well.
    """
    one_of("targets", config.targets, ("soft", "hard"))
    one_of("branch.split", config.branch.split, ("held_out", "train"))
    one_of("branch.share", config.branch.share, ("per_teacher_block", "per_task"))
    one_of("finetune.trainable", config.finetune.trainable, ("all", "trunk", "tails"))
    for section in ("block", "finetune"):
        one_of(f"{section}.batchnorm", config[section].batchnorm, BATCH_NORMS)
    check_start("student.weights", config.student.weights, "block.batchnorm", config.block.batchnorm, config.student.normalise)


def measured_on_test(branched: Branched, setting: Setting) -> dict[str, Any]:
    """Metrics of the student on the test part (reported, never used to choose)."""

    def outputs(pixels):
        return branched.run(setting.preprocessing(pixels))

    return evaluate.measure(evaluate.predict(outputs, branched.tasks, setting.images.test_pixels), branched.tasks, setting.images.test)
