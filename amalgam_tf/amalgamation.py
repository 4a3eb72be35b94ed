"""What every student of a pool starts from: the wanted streams, unlabelled images, the teachers' outputs; and its losses and numbers.

Knows no paper. A stream is one wanted task of one teacher (`teachers.Stream`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
from keras import layers
import numpy as np
import tensorflow as tf

from amalgam_tf import data, evaluate, losses, models
from amalgam_tf import tasks as task_lists
from amalgam_tf.branching import Adapters, Branched, Tail, entangle
from amalgam_tf.data import pipeline
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.models.folding import folded
from amalgam_tf.tasks import Task, entries, resolved
from amalgam_tf.teachers import Outputs, Pool, Stream, Student, Teacher, columns, foreign_data, in_blocks, in_precision
from amalgam_tf.training.loop import Run

StreamLogits = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]  # uint8-valued float images -> stream -> logits [batch, outputs]


@dataclass(frozen=True)
class Setting:
    """What stays the same throughout a run.

    Attributes:
        config: the experiment.
        streams: every wanted task with its teacher (AFK: C).
        teachers: those that are needed (AFK: A_n).
        frozen: the same, for features that pass through their rest: batch norm folded away, if `prepare` was told so.
        images: unlabelled train and held-out pixels, the test part.
        preprocessing: what the student reads.
        targets: part (`train`, `held_out`) -> stream -> the teacher's logits [views, n, outputs], computed once (AFK: O_n^i).
    """

    config: Any
    streams: tuple[Stream, ...]
    teachers: tuple[Teacher, ...]
    frozen: tuple[Teacher, ...]
    images: "Images"
    preprocessing: Preprocessing
    targets: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The wanted tasks, each once."""
        return tasks_of(self.streams)

    @property
    def hard(self) -> bool:
        return self.config.targets == "hard"

    def teacher(self, name: str) -> Teacher:
        return next(t for t in self.teachers if t.name == name)

    def weight(self, stream: Stream) -> float:
        """lambda_n of the stream's teacher, by default 1."""
        return float(self.config.teacher_weights[stream.teacher])

    def notes(self) -> list[str]:
        """What the user should know of teachers and images before the run."""
        return [*foreign_data(self.teachers, self.config.data), *self.images.notes]

    def fingerprint(self) -> str:
        """Over teachers and all images: a run that goes on with others would mix two experiments."""
        return "/".join([*(t.card["sha256"][:16] for t in self.teachers), *self.images.fingerprints()])


class Images:
    """The run's pixels: unlabelled train and held-out images, and the test part with its truth (None with `data.test=none`). What is
    known of the former, of the wanted tasks, is kept beside them (`labelled`), for baselines.
    """

    def __init__(self, config: Any, size: int, tasks: Sequence[Task]):
        maps = any(t.kind == "dense" for t in tasks)  # are always measured against the true ones
        parts, self.cache = data.parts(config.data, untested=not maps), data.cache_dir(config.data)
        self.test = None if parts.test is None else parts.test.truth_for(tasks)
        wanted, own = {t.name for t in tasks}, {"train": parts.train, "held_out": parts.held_out}
        self.labelled = {part: e.only([t.name for t in e.tasks if t.name in wanted]) for part, e in own.items()}
        self.unlabelled = {part: e.unlabelled() for part, e in own.items()}
        self.pixels = {part: pipeline.pixels(e, size, self.cache) for part, e in self.unlabelled.items()}
        self.test_pixels = None if self.test is None else pipeline.pixels(self.test, size, self.cache)
        self.notes = data.notes(*parts)
        self.views = 2 if config.flip else 1

    def fingerprint(self, part: str) -> str:
        return self.unlabelled[part].fingerprint

    def fingerprints(self) -> list[str]:
        """Of all parts."""
        return [*(e.fingerprint for e in self.unlabelled.values()), *([] if self.test is None else [self.test.fingerprint])]

    def batches(self, batch_size: int, seed: int, targets: Mapping[str, np.ndarray]) -> pipeline.Batches:
        """Training batches of pixels with rows of `targets` ([views, n, ...], found by view and index)."""
        return pipeline.Batches(self.pixels["train"], batch_size, seed, views=self.views, viewed=targets)


# -- entering ---------------------------------------------------------------------------------------------------------
def load_pool(config: Any, workdir: Path = Path()) -> dict[str, Teacher]:
    """The trained teachers that a config's tasks can need, by name; `{workdir}` in their paths stands for `workdir`.

    Raises:
        UserError: whatever their entries and folders have wrong.
    """
    return {name: Teacher.load(resolved(entry.path, workdir), name) for name, entry in entries(config).items()}


def prepare(
    config: Any,
    workdir: Path = Path(),
    check: Callable[[Sequence[Teacher]], None] = lambda teachers: None,
    fold: bool = False,
    pool: Mapping[str, Teacher] | None = None,
    look: Callable[[Any, int, Sequence[Task]], Images] = Images,
) -> Setting:
    """Loads the teachers, resolves the wanted tasks, reads the images and computes the teachers' outputs once.

    Args:
        config: the experiment.
        workdir: what `{workdir}` in the teachers' paths stands for.
        check: what else a method wants of the needed teachers; called before any image is read.
        fold: make folded copies of the teachers (`Setting.frozen`).
        pool: what `load_pool` returns, if it is loaded already.
        look: what the images are made by, from config, size and tasks (`generation.Generated`: none is read).

    Raises:
        UserError: whatever teachers, tasks or data find wrong; teachers that read images of different sizes, or describe one task in
            different ways.
    """
    one_of("targets", config.targets, ("soft", "hard"))
    streams, teachers = chosen(config, load_pool(config, workdir) if pool is None else pool)
    check(teachers)
    size = teachers[0].preprocessing.size
    images = look(config, size, tasks_of(streams))
    own = config.student.normalise
    preprocessing = Preprocessing.named(own, size) if own else teachers[0].preprocessing
    targets = {part: teacher_targets(streams, teachers, images, part) for part in images.pixels}
    frozen = tuple(replace(t, net=folded(t.net)) for t in teachers) if fold else teachers
    return Setting(config, streams, teachers, frozen, images, preprocessing, targets)


def chosen(config: Any, pool: Mapping[str, Teacher]) -> tuple[tuple[Stream, ...], tuple[Teacher, ...]]:
    """The wanted streams, and the teachers they need in the run's precision and blocks.

    Raises:
        UserError: as `prepare`, as far as it does not concern files and images.
    """
    policy, teachers = keras.config.dtype_policy().name, []
    for name, teacher in pool.items():
        teachers.append(in_blocks(in_precision(teacher, policy), config.granularity))
        if not config.teacher_weights[name] > 0:
            raise UserError(f"teacher_weights.{name} must be greater than 0, not {config.teacher_weights[name]}")
    reads = config.get("evaluate_on", "data") and (config.data.groups or config.data.task)  # a data-free run need not
    parts = data.load(config.data, config.data.train if config.data.test == data.NO_TEST else config.data.test).tasks if reads else ()
    streams = Pool(teachers, parts).resolve(task_lists.parse(config.tasks))
    needed = tuple(t for t in teachers if any(s.teacher == t.name for s in streams))
    size = needed[0].preprocessing.size
    if other := [t.name for t in needed if t.preprocessing.size != size]:
        raise UserError(
            f"teacher {other[0]} reads images of another size than {needed[0].name} ({size} pixels): one student needs one size"
        )
    check_same_tasks(streams)
    return streams, needed


def tasks_of(streams: Sequence[Stream]) -> tuple[Task, ...]:
    """The tasks of some streams, each once."""
    return tuple({s.task.name: s.task for s in streams}.values())


def check_same_tasks(streams: Sequence[Stream]) -> None:
    """Streams of one name must be one task: the same kind of truth, the same classes in the same order, the same head.

    Raises:
        UserError: they are not.
    """
    first: dict[str, Stream] = {}
    for s in streams:
        other = first.setdefault(s.task.name, s)
        if s.task != other.task:
            raise UserError(
                f"teachers {other.teacher} and {s.teacher} mean different things by {s.task.name} ({other.task}; {s.task}): "
                f"take it from one of them, as {other}"
            )


def teacher_targets(streams: Sequence[Stream], teachers: Sequence[Teacher], images: Images, part: str) -> dict[str, np.ndarray]:
    """The teachers' logits, computed once: stream -> [views, n, outputs]; only the plain view of the held-out part."""
    views, outputs = (images.views if part == "train" else 1), {}
    for t in teachers:
        key = f"{t.card['sha256']}/{t.preprocessing}/{images.unlabelled[part].images_key}/{keras.config.dtype_policy().name}/logits"
        outputs[t.name] = pipeline.cached_outputs(
            tf.function(t.logits, autograph=False), images.pixels[part], views=views, key=key, cache_dir=images.cache
        )
    return {s: np.ascontiguousarray(rows) for s, rows in task_level_filter(outputs, streams, teachers).items()}


def start_student(setting: Setting, run: Run) -> BlockNet:
    """The blocks of the first teacher without its head, newly initialised by `student.weights` (AFK A20)."""
    weights, first = setting.config.student.weights, setting.teachers[0]
    trunk = first.net.part(stop=len(first.net) - 2)
    student = trunk.fresh("student", seed=run.seed_of("student"), synchronized=run.strategy.num_replicas_in_sync > 1)
    if weights == "none":
        return student
    start = trunk if weights == "teacher" else _pretrained(setting, weights)
    for name in student.names:
        student.block(name).set_weights(start.block(name).get_weights())
    return student


def _pretrained(setting: Setting, weights: str) -> BlockNet:
    first, wanted = setting.teachers[0], setting.config.granularity
    backbone = first.card.get("backbone")
    if not backbone:
        raise UserError(
            f"student.weights={weights} needs a known backbone, but the card of teacher {first.name} names none: use none or teacher"
        )
    check_normalised(setting, backbone["backbone"])
    options = {k: backbone[k] for k in ("granularity", "width")}
    net = models.classifier(backbone["backbone"], input_size=first.preprocessing.size, outputs=1, weights=weights, **options)
    return net.joined(net.stages()) if wanted == "stage" and backbone["granularity"] == "unit" else net


def check_normalised(setting: Setting, backbone: str) -> None:
    """Refuses ready weights of a backbone (`student.weights`) with an input they were not made for (A20).

    Raises:
        UserError: as said.
    """
    student, weights = setting.config.student, setting.config.student.weights
    expected = models.normalisation(backbone, weights)
    if setting.preprocessing != Preprocessing.named(expected, setting.preprocessing.size):
        raise UserError(
            f"student.weights={weights} expects its input normalised as {expected}, but the student reads it otherwise "
            f"(student.normalise={student.normalise or 'as teacher ' + setting.teachers[0].name}): set student.normalise={expected}"
        )


def with_one_head(trunk: BlockNet, setting: Setting, run: Run) -> Branched:
    """The whole trunk, pooled, and one dense layer of float32 logits for all tasks, initialised as a function of the run's seed."""
    keras.utils.set_random_seed(run.seed_of("head"))
    features = keras.Input(trunk.shapes[trunk.names[-1]], dtype=trunk.block(trunk.names[-1]).outputs[0].dtype)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(features) if len(features.shape) == 4 else features
    logits = layers.Dense(sum(t.outputs for t in setting.tasks), dtype="float32", name="logits")(x)
    head = Tail("head", trunk.names[-1], None, BlockNet({"head": keras.Model(features, logits, name="student_head")}), setting.tasks)
    return Branched(trunk, {t.name: head for t in setting.tasks})


# -- losses -----------------------------------------------------------------------------------------------------------
def task_level_filter(outputs: Mapping[str, tf.Tensor], streams: Sequence[Stream], teachers: Sequence[Teacher]) -> dict[str, tf.Tensor]:
    """Keeps the wanted rows (AFK: g). Teacher name -> logits [..., rows] becomes stream -> logits [..., outputs of the task]."""
    by_name = {t.name: t for t in teachers}
    return {str(s): columns(outputs[s.teacher], by_name[s.teacher].rows([s.task])) for s in streams}


def entangled_logits(setting: Setting, features: tf.Tensor, block: str, k: int, filters: Adapters) -> dict[str, tf.Tensor]:
    """O_un^i of every stream (AFK eqs. 4 and 6, then g): filter `features`, run every teacher from block k + 1 on, keep the wanted rows.

    Args:
        setting: streams and teachers.
        features: [batch, ...] as block k of the teachers writes them.
        block: of which net's block they come, for its filters.
        k: position of the teachers' block they stand for.
        filters: (block, teacher) -> filter.
    """
    outputs = entangle(features, k, {t.name: filters[block, t.name] for t in setting.teachers}, setting.frozen)
    return task_level_filter(outputs, setting.streams, setting.teachers)


def customised_losses(
    streams: Sequence[Stream], logits: Mapping[str, tf.Tensor], targets: Mapping[str, tf.Tensor], hard: bool
) -> dict[str, tf.Tensor]:
    """Cross-entropy of every stream against its teacher (AFK eq. 7 before its means): stream -> [batch], nats.

    Args:
        streams: which.
        logits: stream -> logits of the student [batch, outputs].
        targets: stream -> logits of the teacher, same shape.
        hard: targets rounded (AFK A8).
    """
    return {
        str(s): losses.distillation(head=s.task.head, logits=logits[str(s)], teacher_logits=targets[str(s)], hard=hard) for s in streams
    }


def total(each: Mapping[str, tf.Tensor], weights: Mapping[str, float] | None = None) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """The weighted mean over streams of their means over the batch (AFK eq. 7: all weights 1), and every stream's own mean to be logged."""
    means = {f"stream/{name}": tf.reduce_mean(value) for name, value in each.items()}
    share = [1.0 if weights is None else weights[name] for name in each]
    return tf.add_n([w * m for w, m in zip(share, means.values(), strict=True)]) / sum(share), means


def losses_by_stream(
    streams: Sequence[Stream], logits: Mapping[str, tf.Tensor], targets: Mapping[str, tf.Tensor], hard: bool
) -> dict[str, dict[str, tf.Tensor]]:
    """Stream -> `loss` and `divergence` of every image [batch], as in `held_out_losses`; arguments as for `customised_losses`."""
    loss, soft = (customised_losses(streams, logits, targets, rounded) for rounded in (hard, False))
    entropy = customised_losses(streams, targets, targets, False)
    return {s: {"loss": loss[s], "divergence": soft[s] - entropy[s]} for s in map(str, streams)}


def held_out_losses(
    setting: Setting, logits: StreamLogits, streams: Sequence[Stream], part: str = "held_out"
) -> dict[str, dict[str, float]]:
    """One inference pass over unlabelled images.

    Args:
        setting: images and targets.
        logits: what is measured.
        streams: those that `logits` returns.
        part: `held_out` or `train`.

    Returns:
        stream -> `loss` (what is trained: against the teacher's probabilities, or its rounded ones) and `divergence` (Kullback-Leibler,
        from the teacher's probabilities to the student's, whatever the targets: 0 is perfect), means in nats.
    """
    names = [str(s) for s in streams]

    @tf.function(autograph=False)
    def values(pixels, *rows):
        return losses_by_stream(streams, logits(pixels), dict(zip(names, rows, strict=True)), setting.hard)

    rows = pipeline.in_order(values, setting.images.pixels[part], *(setting.targets[part][n][0] for n in names))
    return {s: {k: float(np.mean(v, dtype=np.float64)) for k, v in terms.items()} for s, terms in rows.items()}


def block_losses(setting: Setting, student: BlockNet, k: int, filters: Adapters, part: str = "held_out") -> dict[str, dict[str, float]]:
    """A student cut off behind block k and read by the rest of every teacher (AFK A10: L_n^i(k); DGAN G10: eta): `held_out_losses`."""

    def logits(pixels):
        features = student.run(setting.preprocessing(pixels), stop=k)
        return entangled_logits(setting, features, student.names[k], k, filters)

    return held_out_losses(setting, logits, setting.streams, part)


def stream_logits(
    setting: Setting, student: Branched, streams: Sequence[Stream], training: bool = False, part: str = "all"
) -> StreamLogits:
    """The student as a function: images in 0..255 -> stream -> logits [batch, outputs]; `training` and `part` as in `Branched.run`."""

    def logits(pixels):
        by_task = student.run(setting.preprocessing(pixels), training, part)
        return {str(s): by_task[s.task.name] for s in streams}

    return logits


# -- numbers of a finished student ------------------------------------------------------------------------------------
def scores_on_test(setting: Setting, outputs: Outputs, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """Task -> probabilities of the test images (reported, never used to choose)."""
    return evaluate.predict(outputs, tasks, setting.images.test_pixels)


def student_on_test(setting: Setting, student: Branched) -> dict[str, np.ndarray]:
    return scores_on_test(setting, lambda pixels: student.run(setting.preprocessing(pixels)), student.tasks)


def finish(
    setting: Setting,
    run: Run,
    student: Branched,
    scores: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    as_teacher: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Saves the student to `workdir/student`, every test probability to `scores.npz`, and returns what all results have in common.

    A run without test images (`images.test` None) has neither `scores.npz` nor a `test` in its results.

    Args:
        setting: the run's.
        run: where to write.
        student: the finished one.
        scores: further networks -> task -> probabilities of the test images, to be measured and kept beside student and teachers.
        as_teacher: the `name` and `backbone` of a student that joins the pool: a net with one tail, saved to `workdir/teacher` instead.
    """
    teachers = {t.name: [s.task for s in setting.streams if s.teacher == t.name] for t in setting.teachers}
    test, model = setting.images.test, student.as_model("student")
    measured = {} if test is None else _measured(setting, run, {"student": student_on_test(setting, student), **(scores or {})}, teachers)
    card = {"name": "student", "teachers": {t.name: t.card["sha256"] for t in setting.teachers}, "recipe": setting.config.to_dict()}
    if as_teacher:
        card |= {**as_teacher, **({} if test is None else {"measured": {**test.account(), "teacher": measured["student"]}})}
        component = Teacher(card["name"], student.chain(), student.tasks, setting.preprocessing, card)
        run.write(lambda: component.save(run.workdir / "teacher"))
    else:
        run.write(lambda: Student(model, student.tasks, setting.preprocessing, card).save(run.workdir / "student"))
    nets = {"student": model, **{t.name: t.net.as_model(t.name) for t in setting.teachers}}
    latency = run.decide("latency", lambda: evaluate.latency(nets))
    return {
        "tasks": [t.name for t in student.tasks],
        "teachers": {name: [t.name for t in of] for name, of in teachers.items()},
        "unlabelled": {part: e.account() for part, e in setting.images.unlabelled.items()},
        **({} if test is None else {"test": {**test.account(), **measured}}),
        "sizes": {name: {**evaluate.size_of(net), "latency_ms": latency[name]} for name, net in nets.items()},
    }


def _measured(
    setting: Setting, run: Run, scores: Mapping[str, Mapping[str, np.ndarray]], tasks: Mapping[str, Sequence[Task]]
) -> dict[str, Any]:
    """Test metrics of networks by name, and of the teachers on their `tasks`; writes all probabilities to `scores.npz`."""
    test, by_name = setting.images.test, {t.name: t for t in setting.tasks}
    of_teachers = {t.name: scores_on_test(setting, lambda x, t=t: t.outputs(x, tasks[t.name]), tasks[t.name]) for t in setting.teachers}
    scores = {**scores, **of_teachers}
    run.write(lambda: evaluate.write_scores(run.workdir / "scores.npz", scores, test))
    return {who: evaluate.measure(of, [by_name[n] for n in of], test) for who, of in scores.items()}
