"""Pools of pixel-to-pixel teachers, each an encoder and a decoder: whether they go together, what their encoders write (at some blocks,
kept for every image), how alike they are by it, who helps whom; and what results say of their student. Knows no paper.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from amalgam_tf import choice, dense, evaluate
from amalgam_tf.amalgamation import Images, Setting
from amalgam_tf.branching import Branched, check_alike
from amalgam_tf.data import pipeline
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.teachers import Student, Teacher
from amalgam_tf.training.loop import Run

BY_SIMILARITY = ("auto", "strongest", "weakest")
AUXILIARIES = (*BY_SIMILARITY, "none")


# -- whether they go together -----------------------------------------------------------------------------------------
def check_teachers(teachers: Sequence[Teacher], method: str) -> None:
    """Wanted teachers have one dense task each, no two the same, and encoders alike.

    Args:
        teachers: at least one.
        method: for the sentences.

    Raises:
        UserError: they have not, or there is one only.
    """
    for t in teachers:
        dense.check_dense(f"teacher {t.name}", t.tasks)
        if len(t.tasks) > 1:
            raise UserError(f"teacher {t.name} has one decoder for {', '.join(x.name for x in t.tasks)}: {method} needs a teacher a task")
    names = [t.tasks[0].name for t in teachers]
    if len(names) < 2:
        raise UserError(f"{method} amalgamates at least two tasks, not {names[0]} alone: name more of them (--config.tasks=a,b)")
    if twice := [n for n in names if names.count(n) > 1]:
        owner = teachers[names.index(twice[0])].name
        raise UserError(f"{twice[0]} is known to several teachers: say whose it is to be, as {twice[0]}@{owner}")
    check_encoders(teachers, method)


def check_encoders(teachers: Sequence[Teacher], method: str) -> None:
    """Encoders agree in block names, block shapes and input size; what is behind them may differ.

    Raises:
        UserError: they do not.
    """
    check_alike(teachers, method, what="encoders", mend="leave one of them out of config.teachers")


# -- features ---------------------------------------------------------------------------------------------------------
def at_taps(teacher: Teacher, images: tf.Tensor, wanted: Sequence[str]) -> dict[str, tf.Tensor]:
    """What a teacher's encoder writes at some blocks.

    Args:
        teacher: whose.
        images: float32 [batch, size, size, 3] in 0..255.
        wanted: names of blocks.

    Returns:
        block -> [batch, height, width, channels].

    Raises:
        UserError: a block the teacher does not have.
    """
    written = teacher.net.taps(teacher.preprocessing(images), stop=max(map(teacher.net.index, wanted)))
    return {tap: written[tap] for tap in wanted}


def kept_features(teachers: Sequence[Teacher], images: Images, wanted: Sequence[str], memory_gb: float) -> dict[str, np.ndarray]:
    """What several encoders write for every training image and view, computed once.

    Args:
        teachers: with blocks of the same shapes.
        images: of the run.
        wanted: names of blocks.
        memory_gb: what all of it may take (10^9 bytes).

    Returns:
        `{teacher}/{block}` -> [views, n, height, width, channels]; nothing where it does not fit.
    """
    pixels, found = images.pixels["train"], {}
    if kept_bytes(teachers[0].net, wanted, len(pixels) * images.views * len(teachers)) > 1e9 * memory_gb:
        return {}
    for t in teachers:
        seen = [pipeline.in_order(_compiled(t, wanted), pixels, flipped=bool(v)) for v in range(images.views)]
        found |= {f"{t.name}/{tap}": np.stack([view[tap] for view in seen]) for tap in wanted}
    return found


def kept_bytes(net: BlockNet, wanted: Sequence[str], times: int) -> float:
    """Bytes of what an encoder writes at some blocks for so many images."""
    return 4.0 * times * sum(float(np.prod(net.shapes[tap])) for tap in wanted)


def _compiled(teacher: Teacher, wanted: Sequence[str]) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    return tf.function(lambda images: at_taps(teacher, images, wanted), autograph=False)


# -- who helps --------------------------------------------------------------------------------------------------------
def similarities(
    pool: Mapping[str, Teacher], wanted: Sequence[str], pixels: np.ndarray, options: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """How alike all teachers of a pool are: rank correlation of the dissimilarities of some images behind their encoders (RSA).

    Args:
        pool: the teachers by name.
        wanted: names of those that are to be helped.
        pixels: uint8 [n, size, size, 3].
        options: `choose` (as in `auxiliary`), `images` (how many are compared, evenly spread), `layer` (a block, "" for the encoder's
            last), `centre` (as in `choice.dissimilarities`).

    Returns:
        teacher -> teacher -> similarity in [-1, 1]; nothing where `auxiliary` would not look at it: a choice that is not by similarity, or
        no other teacher to take.

    Raises:
        UserError: a teacher that reads images of another size, an unknown block, fewer than 3 images.
    """
    if not _decide(pool, wanted, options["choose"]):
        return {}
    features, size = {}, pixels.shape[1]
    places = np.unique(np.linspace(0, len(pixels) - 1, min(options["images"], len(pixels))).astype(int))
    for name, teacher in pool.items():
        if teacher.preprocessing.size != size:
            sizes = f"{teacher.preprocessing.size} pixels, the wanted ones {size}"
            raise UserError(f"teacher {name} cannot be compared, it reads images of {sizes}: take it out of config.teachers")
        layer = options["layer"] or teacher.net.names[-2]
        written = pipeline.in_order(_compiled(teacher, [layer]), pixels[places])[layer]
        features[name] = written.reshape(len(written), -1).astype(np.float64)
    return choice.similarities(features, centre=options["centre"])


def auxiliary(
    pool: Mapping[str, Teacher], wanted: Sequence[str], similar: Mapping[str, Mapping[str, float]], options: Mapping[str, Any]
) -> str:
    """The teacher whose features help with the wanted ones' tasks.

    Args:
        pool: the teachers by name.
        wanted: names of those that are to be helped.
        similar: of `similarities`.
        options: `choose`: `auto` (`choice.auxiliary` with `rule` and `delta`; -1 stands for the pool's median), `strongest`, `weakest`,
            `none`, or a teacher's name.

    Returns:
        Its name, or "" for none.

    Raises:
        UserError: a name that is not in the pool or is wanted; `strongest` or `weakest` without another teacher.
    """
    choose = options["choose"]
    if choose not in AUXILIARIES:
        return one_of("auxiliary.choose", choose, [*AUXILIARIES, *(n for n in pool if n not in wanted)])
    if not _decide(pool, wanted, choose):
        return ""
    if choose == "auto":
        return choice.auxiliary(similar, wanted, rule=options["rule"], delta=options["delta"] if options["delta"] > -1 else None) or ""
    return (choice.strongest if choose == "strongest" else choice.weakest)(similar, wanted)


def _decide(pool: Mapping[str, Teacher], wanted: Sequence[str], choose: str) -> bool:
    """Whether similarities decide; the last two choices find out by them that there is no other teacher, and say so."""
    return choose in ("strongest", "weakest") or (choose == "auto" and bool(set(pool) - set(wanted)))


# -- what their student follows ---------------------------------------------------------------------------------------
Parts = Mapping[str, dense.Truth]  # by `train` and `held_out`


def batches(setting: Setting, seed: int, true: Parts | None, features: Mapping[str, np.ndarray] | None = None) -> pipeline.Batches:
    """Training batches with what losses compare: the teachers' maps by stream, or true ones (`dense.seen`), and kept features.

    Args:
        setting: images, views and the teachers' maps; `train.batch_size` of its config.
        seed: of the order.
        true: follow these instead of the teachers' maps.
        features: of `kept_features`.
    """
    images, maps = setting.images, {} if true else setting.targets["train"]
    own = {"viewed": {**(features or {}), **maps}, "columns": true["train"].columns() if true else {}}
    return pipeline.Batches(images.pixels["train"], setting.config.train.batch_size, seed, views=images.views, **own)


def held_out(
    setting: Setting, each: Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]], true: Parts | None
) -> Callable[[], dict[str, float]]:
    """Means over the held-out images, name -> mean, to be called again and again and traced once.

    Args:
        setting: images and the teachers' maps.
        each: a batch as those of `batches` -> {name: [batch]}.
        true: as in `batches`.
    """
    compiled = tf.function(each, autograph=False)
    columns = true["held_out"].columns() if true else {s: rows[0] for s, rows in setting.targets["held_out"].items()}
    return lambda: dense.mean_over(compiled, setting.images.pixels["held_out"], columns)


# -- their student ----------------------------------------------------------------------------------------------------
def finish(setting: Setting, run: Run, student: Branched, known: dense.Truth) -> dict[str, Any]:
    """Saves a student to `workdir/student`, measures it beside its teachers and what does not look, and returns what results say of it.

    Args:
        setting: the run's.
        run: where to write.
        student: the finished one.
        known: the true maps of the train part, for the trivial predictors.
    """
    tasks, images, model = setting.tasks, setting.images, student.as_model("student")
    card = {"name": "student", "teachers": {t.name: t.card["sha256"] for t in setting.teachers}, "recipe": setting.config.to_dict()}
    run.write(lambda: Student(model, student.tasks, setting.preprocessing, card).save(run.workdir / "student"))
    networks = {"student": dense.Network(lambda x: student.run(setting.preprocessing(x)), student.tasks)}
    networks |= {t.name: dense.Network(t.outputs, t.tasks) for t in setting.teachers}
    networks |= {name: dense.Network(dense.trivial(tasks, known, name), tasks) for name in dense.TRIVIAL}
    nets = {"student": model, **{t.name: t.net.as_model(t.name) for t in setting.teachers}}
    true = dense.truth(images.test, tasks, setting.preprocessing.size, images.cache)
    latency = run.decide("latency", lambda: evaluate.latency(nets))
    return {
        "tasks": [t.name for t in student.tasks],
        "teachers": {t.name: [x.name for x in t.tasks] for t in setting.teachers},
        "unlabelled": {part: e.account() for part, e in images.unlabelled.items()},
        "test": dense.on_test(run, networks, images.test, images.test_pixels, true),
        "sizes": {name: {**evaluate.size_of(net), "latency_ms": latency[name]} for name, net in nets.items()},
    }
