"""Plain multi-teacher distillation: the baseline that every amalgamation must beat.

One network of the teachers' architecture with one dense layer for all wanted tasks learns the teachers' soft outputs on unlabelled
images (Hinton, Vinyals, Dean: "Distilling the Knowledge in a Neural Network", 2015; for labels without a softmax the targets are
probabilities and there is no temperature). No blocks, no filters, no branches.

Symbols
    O_n             teacher's outputs, computed once     amalgamation.teacher_targets
    C               wanted tasks with their teachers     amalgamation.Setting.streams

Loss: the mean over all streams of CE(O_n^i, student's logits of task i), which is AFK's eq. 7 without the entanglement
(`amalgamation.customised_losses`, `amalgamation.total`). A task that several teachers know is learned from all of them.

Switches: `targets=hard` (A8), `student.weights` (A20), `teacher_weights.NAME`, and the section `distill`.
"""

from collections.abc import Mapping
from typing import Any

from amalgam_tf import planning
from amalgam_tf.amalgamation import (
    chosen,
    finish,
    held_out_losses,
    prepare,
    start_student,
    stream_logits,
    with_one_head,
)
from amalgam_tf.branching import PARTS
from amalgam_tf.distillation import distillation_phase
from amalgam_tf.errors import one_of
from amalgam_tf.models import check_start
from amalgam_tf.planning import Line, Plan
from amalgam_tf.teachers import Teacher
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import BATCH_NORMS


def train(config: Any, run: Run) -> dict[str, Any]:
    """Distils the student of a config, saves it to `workdir/student` and returns the results."""
    check_choices(config)
    setting = prepare(config, run.workdir)
    for note in setting.notes():
        run.say(note)
    run.decide("inputs", dict, of=setting.fingerprint())
    student = with_one_head(start_student(setting, run), setting, run)
    run.track(student.named_variables("student"))

    run.phase(distillation_phase(setting, student, setting.streams, run, "distill"))

    after = run.decide(
        "held_out/after", lambda: held_out_losses(setting, stream_logits(setting, student, setting.streams), setting.streams)
    )
    return {"method": "distill", "held_out": {"after": after}, **finish(setting, run, student)}


def plan(config: Any, pool: Mapping[str, Teacher]) -> Plan:
    """What `train` is going to do, for teachers that are trained or only built."""
    streams, teachers = chosen(config, pool)
    images, net, settings = planning.counts(config), teachers[0].net, config.distill
    cost, views = sum(planning.work(net)), images.train * images.views
    steps = planning.steps(settings.epochs, images.train, settings.batch_size)
    weights = planning.weights(net)
    return Plan(
        [
            Line("teachers' outputs", 0, len(teachers) * (views + images.held_out) * cost),
            Line("distill", steps, (3 * steps * settings.batch_size + (settings.epochs + 1) * images.held_out) * cost),
            Line("test", 0, images.test * (1 + len(teachers)) * cost),
        ],
        net,
        disk=2 * 3 * weights + weights,
        caches=planning.caches(images, teachers[0].preprocessing.size, sum(s.task.outputs for s in streams)),
        memory=planning.training(weights, 2 * len(teachers) * weights, settings.batch_size * sum(planning.activations(net))),
    )


def check_choices(config: Any) -> None:
    """Every choice that is a word.

    Raises:
        UserError: an unknown word, or a start that cannot train well.
    """
    one_of("targets", config.targets, ("soft", "hard"))
    one_of("distill.batchnorm", config.distill.batchnorm, BATCH_NORMS)
    one_of("distill.trainable", config.distill.trainable, PARTS)
    optimizers.check(config.distill.optimizer, "distill.optimizer")
    check_start("student.weights", config.student.weights, "distill.batchnorm", config.distill.batchnorm, config.student.normalise)
