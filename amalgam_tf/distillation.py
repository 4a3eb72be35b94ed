"""Training of a whole student, one that predicts all tasks at once, against the outputs of its teachers. Knows no paper."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from amalgam_tf.amalgamation import Setting, customised_losses, stream_logits, total
from amalgam_tf.branching import Branched, mean_over
from amalgam_tf.teachers import Stream
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import Batch, Phase, StepData, Update


class Lessons(NamedTuple):
    """What a student is distilled from.

    Attributes:
        data: batches by step.
        steps: how many.
        validate_every_steps: between two looks at the held-out loss.
        shown: a batch of `data` -> `images` (0..255) and, by stream, the logits of its teacher.
    """

    data: StepData
    steps: int
    validate_every_steps: int
    shown: Callable[[Batch], Batch] = lambda batch: batch


def unlabelled_lessons(setting: Setting, run: Run, name: str) -> Lessons:
    """The unlabelled images with the teachers' outputs, for the `epochs` of a section of the config in its `batch_size`."""
    settings = setting.config[name]
    batches = setting.images.batches(settings.batch_size, run.seed_of(f"data/{name}"), setting.targets["train"])
    return Lessons(batches, batches.steps(settings.epochs), batches.steps(1))


def distillation_phase(
    setting: Setting, student: Branched, streams: Sequence[Stream], run: Run, name: str, lessons: Lessons | None = None
) -> Phase:
    """Trains a student that predicts all tasks at once against the teachers' outputs; ends with its best held-out loss.

    AFK and Dual-GAN fine-tune so (AFK Algorithm 1, line 14, A13; DGAN G12); it is also all there is to plain multi-teacher distillation.

    Args:
        setting: the run's.
        student: what is trained.
        streams: whose losses count; several of one task share the student's output.
        run: the run.
        name: of the phase and of its section in the config, as in `distillation_update`.
        lessons: from what; the unlabelled images by default.
    """
    lessons = lessons or unlabelled_lessons(setting, run, name)
    weights, logits = {str(s): setting.weight(s) for s in streams}, stream_logits(setting, student, streams)

    @tf.function(autograph=False)
    def held_out(pixels, *rows):
        values = customised_losses(streams, logits(pixels), dict(zip(weights, rows, strict=True)), setting.hard)
        return {"loss": tf.add_n([weights[s] * v for s, v in values.items()]) / sum(weights.values())}

    rows = [setting.targets["held_out"][s][0] for s in weights]
    return Phase(
        name,
        steps=lessons.steps,
        data=lessons.data,
        updates=[distillation_update(setting, student, streams, name, lessons.shown)],
        validate=lambda: mean_over(held_out, setting.images.pixels["held_out"], *rows),
        validate_every_steps=lessons.validate_every_steps,
        keep_best="loss",
    )


def distillation_update(
    setting: Setting, student: Branched, streams: Sequence[Stream], name: str, shown: Callable[[Batch], Batch] = lambda batch: batch
) -> Update:
    """One step of a student against its teachers' outputs.

    Args:
        setting: the run's.
        student: what is trained.
        streams: whose losses count.
        name: of the update and of its section in the config: `batchnorm`, `trainable`, `optimizer`.
        shown: as in `Lessons`.
    """
    settings, part = setting.config[name], setting.config[name].trainable
    batch_norm, weights = settings.batchnorm == "batch", {str(s): setting.weight(s) for s in streams}
    logits = stream_logits(setting, student, streams, batch_norm, part)

    def loss(batch):
        seen = shown(batch)
        return total(customised_losses(streams, logits(seen["images"]), seen, setting.hard), weights)

    return Update(
        name,
        trains=student.weights(part),
        statistics=student.statistics(part) if batch_norm else [],
        loss=loss,
        optimizer=settings.optimizer.to_dict(),
    )
