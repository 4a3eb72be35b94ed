"""Runs without images: a generator in the place of the data, judged by the teachers. Shared by Dual-GAN and DAFL.

Generated images are PIXELS on the scale 0..255, unbounded (`models.generator`): teachers and student read them through their own
`Preprocessing`, as they read real ones, so that everything of `amalgamation` works on them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import data, losses
from amalgam_tf.amalgamation import Setting, task_level_filter
from amalgam_tf.branching import Branched
from amalgam_tf.data import pipeline
from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.models.generator import generator, unmoved
from amalgam_tf.models.taps import NormalisedNet
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Stream, Teacher
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run

BATCH_NORMS = ("inference", "batch")
EVALUATE = ("", "data")
_CHUNK = 64  # codes a call: fixed, so that images do not depend on how many are asked for
ROW = 8  # images a side of a grid


# -- what enters ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Codes:
    """An endless sequence of batches of noise, each a pure function of (seed, step): `z`, float32 [batch, z_dim] from N(0, 1).

    Attributes:
        batch_size: size of the GLOBAL batch, over all replicas and workers.
        z_dim: length of a code.
        seed: everything follows from it and the step.
    """

    batch_size: int
    z_dim: int
    seed: int

    def at(self, step: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
        """The codes of a step; replica `rank` of `ranks` gets the places rank::ranks."""
        return np.random.default_rng([self.seed, 4, step]).standard_normal((self.batch_size, self.z_dim), np.float32)[rank::ranks]

    def dataset(self, start: int, stop: int, rank: int = 0, ranks: int = 1) -> tf.data.Dataset:
        """The batches of steps start..stop-1 as a tf.data set of dicts.

        Raises:
            UserError: a batch that cannot be divided over the replicas.
        """
        if self.batch_size % ranks:
            raise UserError(f"the batch size {self.batch_size} cannot be divided over {ranks} replicas: choose a multiple")

        def draw(step):
            z = tf.numpy_function(lambda s: self.at(int(s), rank, ranks), [step], tf.float32)
            z.set_shape((self.batch_size // ranks, self.z_dim))
            return {"z": z}

        return tf.data.Dataset.range(start, stop).map(draw, num_parallel_calls=2, deterministic=True).prefetch(2)


@dataclass(frozen=True)
class Generated:
    """What takes the place of `amalgamation.Images` where no unlabelled image is read.

    Attributes:
        test: the test part with its truth, if one is asked for.
        test_pixels: of it, uint8 [n, size, size, 3].
        pixels: part -> images: none, and at last `held_out`, float32 images of a finished generator (`with_held_out`).
        unlabelled: real images by part: none.
    """

    test: Examples | None = None
    test_pixels: np.ndarray | None = None
    pixels: Mapping[str, np.ndarray] = field(default_factory=dict)
    unlabelled: Mapping[str, Examples] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        return [] if self.test is None else data.notes(self.test)

    def fingerprints(self) -> list[str]:
        return [] if self.test is None else [self.test.fingerprint]


def no_images(config: Any, size: int, tasks: Sequence[Task]) -> Generated:
    """Reads test images where `evaluate_on` says so, otherwise nothing at all (`amalgamation.prepare`, `look`)."""
    if not config.evaluate_on:
        return Generated()
    test = data.load(config.data, config.data.test).truth_for(tasks)
    return Generated(test, pipeline.pixels(test, size, data.cache_dir(config.data)))


def make_generator(config: Any, teachers: Sequence[Teacher], seed: int, synchronized: bool = False, plain: bool = False) -> BlockNet:
    """A new generator for the blocks of the teachers' trunk; `plain`: for the image alone (DAFL's)."""
    net, gen, size = teachers[0].net, config.gen, teachers[0].preprocessing.size
    shapes = dict(list(net.shapes.items())[:-1])
    shapes = dict(list(shapes.items())[-1:]) if plain else shapes
    signed = () if plain else _signed(net, list(shapes), size)
    keras.utils.set_random_seed(seed)
    return generator(shapes, size, signed, z_dim=gen.z_dim, width=gen.width, bn_eps=gen.bn_eps, synchronized=synchronized)


def _signed(net: BlockNet, blocks: Sequence[str], size: int) -> list[str]:
    """Those that write negative features, as DenseNets' transitions do; seen on noise in the range of normalised images."""
    noise = np.random.default_rng(0).standard_normal((2, size, size, 3), np.float32)
    written = net.taps(noise, stop=blocks[-1])
    return [name for name in blocks if float(tf.reduce_min(written[name])) < 0]


def in_groups(net: BlockNet, groups: int) -> BlockNet:
    """A teacher in so many blocks and a head, its first ones joined (Dual-GAN, G4); as it is for 0.

    Raises:
        UserError: more blocks than it has.
    """
    blocks = net.names[:-1]
    if not 0 <= groups <= len(blocks):
        raise UserError(f"gen.groups={groups} is out of range: the teachers have {len(blocks)} blocks, 0 means one group for each")
    return net if groups in (0, len(blocks)) else net.joined({name: name for name in blocks[-groups:]})


# -- what the teachers say ----------------------------------------------------------------------------------------------
class Verdict(NamedTuple):
    """What the teachers say of images.

    Attributes:
        logits: stream -> [batch, outputs] (O_gan of the customised labels only, DGAN G13).
        features: teacher -> [batch, channels], what its head reads, averaged over the map.
        distance: mean of `losses.statistics_distance` over all batch norms of all teachers; 0 if it is not asked for.
    """

    logits: dict[str, tf.Tensor]
    features: dict[str, tf.Tensor]
    distance: tf.Tensor


class Judges:
    """The teachers as a function: pixels -> `Verdict`; `statistics`: whether what their batch norms read is compared, too."""

    def __init__(self, setting: Setting, statistics: bool = False):
        self.setting = setting
        self.logits = tf.function(lambda pixels: self(pixels).logits, autograph=False)  # traced once, however often it is asked
        self.norms = {t.name: NormalisedNet(t.net) for t in setting.teachers} if statistics else {}

    def __call__(self, pixels: tf.Tensor) -> Verdict:
        outputs, features, distances = {}, {}, []
        for teacher in self.setting.frozen:
            x, last = teacher.preprocessing(pixels), teacher.net.names[-2]
            if net := self.norms.get(teacher.name):
                read, written = net.run(x)
                distances += [_distance(tensor, norm) for tensor, norm in zip(read, net.norms, strict=True)]
            else:
                before = teacher.net.run(x, stop=last)
                written = {last: before, teacher.net.names[-1]: teacher.net.run(before, start=len(teacher.net) - 1)}
            outputs[teacher.name] = tf.cast(written[teacher.net.names[-1]], tf.float32)
            features[teacher.name] = _pooled(written[last])
        logits = task_level_filter(outputs, self.setting.streams, self.setting.teachers)
        return Verdict(logits, features, tf.add_n(distances) / len(distances) if distances else tf.constant(0.0))


def _pooled(features: tf.Tensor) -> tf.Tensor:
    features = tf.cast(features, tf.float32)
    return tf.reduce_mean(features, range(1, features.shape.rank - 1)) if features.shape.rank > 2 else features


def _distance(read: tf.Tensor, norm) -> tf.Tensor:
    read = tf.cast(read, tf.float32)
    axes = range(1, read.shape.rank - 1)
    mean, square = (losses.batch_mean(tf.reduce_mean(x, axes)) for x in (read, read**2))
    return losses.statistics_distance(
        mean=mean, variance=square - mean**2, stored_mean=norm.moving_mean.value, stored_variance=norm.moving_variance.value
    )


def presence_logits(streams: Sequence[Stream], logits: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
    """One logit of presence for every binary stream, concatenated over the teachers (DGAN eq. 11): [batch, labels]; None without any."""
    columns = []
    for s in streams:
        rows = logits[str(s)]
        if s.task.kind == "binary":
            columns.append(rows[:, 0] if s.task.head == "sigmoid" else rows[:, 1] - rows[:, 0])
    return tf.stack(columns, -1) if columns else None


def gan_loss(setting: Setting, verdict: Verdict) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """L_gan = L_oh + alpha L_a + beta L_ie + gamma L_dis on images (DGAN eq. 9); with gamma = 0 DAFL's for several teachers and labels.

    Binary labels are one vector; a category task has DAFL's own forms, and no discrete loss. L_oh is the mean over all streams, L_ie over
    the vector and the category tasks.

    Returns:
        (loss, every term before its weight, and `positives`: labels an image shows).
    """
    gen, streams = setting.config.gen, setting.streams
    binary = presence_logits(streams, verdict.logits)
    categories = [verdict.logits[str(s)] for s in streams if s.task.kind == "category"]
    undecided = [losses.categorical_one_hot(logits=c) for c in categories]
    frequencies = [(losses.batch_mean(losses.label_probabilities(logits=c, form="softmax")), "softmax") for c in categories]
    terms = {"discrete": tf.constant(0.0)}
    if binary is not None:
        labels = binary.shape[-1]
        undecided.append(labels * losses.one_hot(logits=binary, of=gen.pseudo))
        frequencies.append((losses.batch_mean(losses.label_probabilities(logits=binary, form=gen.ie)), gen.ie))
        terms["discrete"] = tf.reduce_mean(losses.discrete(logits=binary, reading=gen.dis))
        terms["positives"] = labels * tf.reduce_mean(losses.pseudo_labels(logits=binary))
    terms["one_hot"] = tf.reduce_mean(tf.add_n(undecided)) / len(streams)
    terms["activation"] = tf.add_n([tf.reduce_mean(losses.activation(features=f)) for f in verdict.features.values()]) / len(
        verdict.features
    )
    terms["entropy"] = tf.add_n([losses.information_entropy(frequencies=p, form=form) for p, form in frequencies]) / len(frequencies)
    weights = {"one_hot": gen.oh, "activation": gen.alpha, "entropy": gen.beta, "discrete": gen.gamma}
    if gen.bn_stat:
        terms["statistics"], weights["statistics"] = verdict.distance, gen.bn_stat
    return tf.add_n([w * terms[name] for name, w in weights.items()]), terms


# -- a finished generator -----------------------------------------------------------------------------------------------
class Source:
    """A finished generator as a source of images; nothing of it moves any more.

    Args:
        net: the generator, trained.
        batch_norm: `inference`: stored statistics; `batch`: those of the batch, which are closer to what the generator was trained with
            (DGAN G9); what is stored stays.
    """

    def __init__(self, net: BlockNet, batch_norm: str):
        self.training = batch_norm == "batch"
        self.net = unmoved(net, "source") if self.training else net
        self._make = tf.function(self.images, autograph=False)

    def taps(self, z: tf.Tensor) -> dict[str, tf.Tensor]:
        """Every group's output, by name; the last one is the image [batch, size, size, 3] in 0..255, unbounded."""
        return self.net.taps(z, training=self.training)

    def images(self, z: tf.Tensor) -> tf.Tensor:
        return self.net.run(z, training=self.training)

    def draw(self, count: int, z_dim: int, seed: int) -> np.ndarray:
        """So many images of fixed codes, float32 [count, size, size, 3]."""
        return self.over_codes(self._make, count, z_dim, seed)

    def over_codes(self, fn: Callable[[tf.Tensor], Any], count: int, z_dim: int, seed: int) -> Any:
        """What `fn` says of the codes that `draw` makes images of, in the same batches: tensors [batch, ...] -> arrays [count, ...]."""
        codes = Codes(_CHUNK, z_dim, seed)
        parts = [tf.nest.map_structure(np.asarray, fn(tf.constant(codes.at(i)))) for i in range(-(-count // _CHUNK))]
        return tf.nest.map_structure(lambda *rows: np.concatenate(rows)[:count], *parts)


def with_held_out(setting: Setting, source: Source, judges: Judges, run: Run, count: int | None = None) -> Setting:
    """The same setting with generated images in the place of held-out ones, and what the teachers say of them.

    There are `generated.held_out_images`, or `count`.
    The codes are the same for every block and every look (DGAN G10).
    """
    pixels = source.draw(count or setting.config.generated.held_out_images, setting.config.gen.z_dim, run.seed_of("held_out"))
    said = pipeline.in_order(judges.logits, pixels)
    images = replace(setting.images, pixels={"held_out": pixels})
    return replace(setting, images=images, targets={"held_out": {s: rows[None] for s, rows in said.items()}})


def seen_by_teachers(setting: Setting, source: Source) -> Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """A batch of codes -> `images` and, by stream, what the teachers say of them (`distillation.Lessons.shown`)."""
    judges = Judges(setting)

    def shown(batch):
        images = tf.stop_gradient(source.images(batch["z"]))
        return {"images": images, **{s: tf.stop_gradient(rows) for s, rows in judges(images).logits.items()}}

    return shown


# -- what is watched ----------------------------------------------------------------------------------------------------
def label_frequencies(setting: Setting) -> dict[str, Any]:
    """Stream -> share of the held-out images that show it, by its teacher (a list by class for a category task): DGAN fig. 5."""
    found = {}
    for s in setting.streams:
        rows = setting.targets["held_out"][str(s)][0]
        found[str(s)] = decisions(s.task, rows).mean().item() if s.task.kind == "binary" else _shares(rows)
    return found


def _shares(rows: np.ndarray) -> list[float]:
    return (np.bincount(rows.argmax(-1), minlength=rows.shape[-1]) / len(rows)).tolist()


def decisions(task: Task, rows: np.ndarray | tf.Tensor) -> np.ndarray | tf.Tensor:
    """Logits [n, outputs] -> what they say: presence or the class, [n]; of an array an array, of a tensor a tensor."""
    if task.head == "sigmoid":
        return rows[:, 0] >= 0
    return tf.argmax(rows, -1) if tf.is_tensor(rows) else rows.argmax(-1)


def positives(setting: Setting) -> float | None:
    """Labels that a held-out image shows on average, by the teachers; None without binary tasks."""
    binary = [s for s in setting.streams if s.task.kind == "binary"]
    shown = [decisions(s.task, setting.targets["held_out"][str(s)][0]).mean() for s in binary]
    return float(np.sum(shown)) if binary else None


def agreement(setting: Setting, student: Branched) -> dict[str, Any]:
    """How often the student decides like the teacher on the held-out generated images: `images`, `per_stream`, `mean`."""

    @tf.function(autograph=False)
    def logits(pixels):
        return student.run(setting.preprocessing(pixels))

    rows = pipeline.in_order(logits, setting.images.pixels["held_out"])
    by_stream = {
        str(s): float(np.mean(decisions(s.task, rows[s.task.name]) == decisions(s.task, setting.targets["held_out"][str(s)][0])))
        for s in setting.streams
    }
    return {"images": len(setting.images.pixels["held_out"]), "per_stream": by_stream, "mean": float(np.mean(list(by_stream.values())))}


def account(setting: Setting, student: Branched, run: Run) -> dict[str, Any]:
    """What the results of every run without images hold: `labels` (`label_frequencies`), `positives`, `agreement`."""
    return {
        "labels": run.decided("labels"),
        "positives": positives(setting),
        "agreement": run.decide("agreement", lambda: agreement(setting, student)),
    }


def watch(setting: Setting, net: BlockNet, run: Run, count: int) -> Callable[[], dict[str, float]]:
    """A look at a generator in training: labels that some fixed images show; keeps the images, and stops a run that collapsed."""

    judges, kind = Judges(setting), setting.config.generated.batchnorm
    same = Source(net, kind) if kind == "inference" else None  # the other one is a copy, of the moment

    def look():
        seen = with_held_out(setting, same or Source(net, kind), judges, run, count)
        show(run, seen.images.pixels["held_out"])
        shown = positives(seen)
        check_collapse(setting, run, shown, run.progress.step)
        return {} if shown is None else {"positives": shown}

    return look


def check_collapse(setting: Setting, run: Run, shown: float | None, step: int) -> None:
    """Stops a generator whose images show too few labels (DGAN G1): the all-negative answer satisfies one-hot and discrete loss together.

    Args:
        setting: the run's; `collapse.positives` is the bound, 0 for none, `collapse.after_steps` the grace period.
        run: whose chief decides.
        shown: labels an image shows; None without binary tasks.
        step: of the generator's phase.

    Raises:
        UserError: as said.
    """
    bound, grace = setting.config.collapse.positives, setting.config.collapse.after_steps
    if shown is None or step < grace or not run.workers.from_chief(lambda: shown < bound):
        return
    raise UserError(
        f"the generator collapsed: at step {step} its images show {shown:.2f} of the wanted labels each, fewer than "
        f"collapse.positives={bound:g}: {_mend(setting.config.gen)}, in a new --workdir "
        f"({run.workdir} keeps its last checkpoint, metrics.jsonl and figures/generated.png)"
    )


def _mend(gen: Any) -> str:
    """What counters no label at all: not the information entropy, which by default has no scale (G3)."""
    if gen.pseudo != "at_least_one":
        return "set gen.pseudo=at_least_one" + (" or lower gen.gamma" if gen.gamma else "")
    return "raise gen.oh or gen.bn_stat" + (", or lower gen.gamma" if gen.gamma else "")


def grid(pixels: np.ndarray, columns: int = ROW) -> np.ndarray:
    """Images [n, size, size, 3] in 0..255 side by side, as one uint8 image; what is out of range is cut off, a last row may stay short."""
    images = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    rows = -(-len(images) // columns)
    size = images.shape[1]
    sheet = np.zeros((rows * columns, size, size, 3), np.uint8)
    sheet[: len(images)] = images
    return sheet.reshape(rows, columns, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)


def write_grid(path: Path, pixels: np.ndarray, columns: int = ROW) -> None:
    """A `grid` as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(grid(pixels, columns)).numpy())


def show(run: Run, pixels: np.ndarray) -> None:
    """Keeps the first images as `figures/generated.png`."""
    run.write(lambda: write_grid(run.workdir / "figures" / "generated.png", pixels[: ROW * ROW]))


# -- choices ------------------------------------------------------------------------------------------------------------
def check_choices(config: Any) -> None:
    """Every choice about generator and images that is a word, and the numbers that must be positive.

    Raises:
        UserError: an unknown word, or a number out of range.
    """
    gen = config.gen
    one_of("targets", config.targets, ("soft", "hard"))
    one_of("gen.dis", gen.dis, losses.DISCRETE)
    one_of("gen.ie", gen.ie, losses.ENTROPY)
    one_of("gen.pseudo", gen.pseudo, losses.PSEUDO)
    one_of("generated.batchnorm", config.generated.batchnorm, BATCH_NORMS)
    one_of("evaluate_on", config.evaluate_on, EVALUATE)
    optimizers.check(gen.optimizer, "gen.optimizer")
    for key in ("oh", "alpha", "beta", "gamma", "bn_stat"):
        if not gen[key] >= 0:
            raise UserError(f"gen.{key} weighs a loss and cannot be {gen[key]}: set it to 0 or more")
    for key, value in (
        ("gen.steps", gen.steps),
        ("gen.batch_size", gen.batch_size),
        ("generated.held_out_images", config.generated.held_out_images),
    ):
        if not value >= 1:
            raise UserError(f"{key} must be at least 1, not {value}")


def test_images(config: Any) -> int:
    """How many test images a run without data is going to look at."""
    return len(data.load(config.data, config.data.test)) if config.evaluate_on else 0
