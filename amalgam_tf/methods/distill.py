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

from typing import Any

import keras
from keras import layers

from amalgam_tf.amalgamation import Setting, distillation_phase, finish, held_out_losses, prepare, start_student, stream_logits
from amalgam_tf.branching import PARTS, Branched, Tail
from amalgam_tf.errors import one_of
from amalgam_tf.models import check_start
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.teachers import foreign_data
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import BATCH_NORMS


def train(config: Any, run: Run) -> dict[str, Any]:
    """Distils the student of a config, saves it to `workdir/student` and returns the results."""
    check_choices(config)
    setting = prepare(config, run.workdir)
    for note in foreign_data(setting.teachers, config.data):
        run.say(note)
    run.decide("inputs", dict, of=setting.fingerprint())
    student = with_one_head(start_student(setting, run), setting, run)
    run.track(student.named_variables("student"))

    run.phase(distillation_phase(setting, student, setting.streams, run, "distill"))

    after = run.decide(
        "held_out/after", lambda: held_out_losses(setting, stream_logits(setting, student, setting.streams), setting.streams)
    )
    return {"method": "distill", "held_out": {"after": after}, **finish(setting, run, student)}


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


def with_one_head(trunk: BlockNet, setting: Setting, run: Run) -> Branched:
    """The whole trunk, pooled, and one dense layer of float32 logits for all tasks, initialised as a function of the run's seed."""
    keras.utils.set_random_seed(run.seed_of("head"))
    features = keras.Input(trunk.shapes[trunk.names[-1]], dtype=trunk.block(trunk.names[-1]).outputs[0].dtype)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(features) if len(features.shape) == 4 else features
    logits = layers.Dense(sum(t.outputs for t in setting.tasks), dtype="float32", name="logits")(x)
    head = Tail("head", trunk.names[-1], None, BlockNet({"head": keras.Model(features, logits, name="student_head")}), setting.tasks)
    return Branched(trunk, {t.name: head for t in setting.tasks})
