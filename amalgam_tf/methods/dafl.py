"""DAFL for several teachers and several labels: the data-free baseline that Dual-GAN is measured against.

Chen et al.: "Data-Free Learning of Student Networks", ICCV 2019; losses and step are those of the authors' code. One generator makes
images, teachers judge them, one plain student learns what the teachers say of them; both in every iteration. The paper has one teacher
and one softmax; how Dual-GAN's authors made it a baseline for labels they do not say: this is our reading (the project's spec, 5.1).

Symbols
    G, z            generator and its noise              models.generator.generator, generation.Codes
    T, y, t         teachers, their outputs, pseudo-labels  generation.Judges, losses.pseudo_labels
    S               student: the teachers' net, one head for all labels  amalgamation.with_one_head

Equations
    L_oh            generation.gan_loss                  BCE against 1[sigma(y) >= 0.5]; categories: CE against the most probable class
    L_a             losses.activation                    minus the mean size of the features before the head, mean over teachers
    L_ie            losses.information_entropy           labels: form (a) of DGAN G3; categories: DAFL's own
    L_G             generator_loss                       oh L_oh + alpha L_a + beta L_ie
    L_KD            amalgamation.customised_losses       CE(T(x), S(x)), x = G(z) detached: KL up to the teachers' entropy

Choices (ids of the project's spec)
    G1   no discrete loss: `gen.gamma=0`. The guard against generators that collapse is Dual-GAN's (`collapse`).
    G2   weights of the losses: as for Dual-GAN, alpha 0.1, beta 5; L_oh 1 (our configs: 5). Switches `gen.oh`, `gen.alpha`, `gen.beta`.
    G3   `gen.ie`, as for Dual-GAN. Natural logarithms; the authors' code has base 10 (a factor 2.3 of beta).
    G4   the authors' generator (models/generator.py with a single group). Their batch norms' epsilon of 0.8, probably a slip, is
         `gen.bn_eps=0.8`.
    G15  G: Adam 1e-3 (0.5, 0.999), batches of 64, as for Dual-GAN; the authors' 0.02 to 0.2 are for batches of 512 and more.
    `gen.steps` is all there is: set it so that as many images are made as by the run beside it.
    Not the paper's: `gen.bn_stat` and `gen.pseudo=at_least_one` (as in Dual-GAN), and, off by default, `gen.adv`, which weighs minus
    the distance between the logits of teachers and student on the generator's images.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from amalgam_tf import generation, losses, planning
from amalgam_tf.amalgamation import Setting, chosen, finish, held_out_losses, prepare, start_student, stream_logits, with_one_head
from amalgam_tf.branching import PARTS, Branched
from amalgam_tf.distillation import distillation_update
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.generation import Codes, Judges, Source
from amalgam_tf.models import check_start
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.planning import Line, Plan
from amalgam_tf.teachers import Teacher
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import BATCH_NORMS, Batch, Phase, Update

_LOOK = 256  # images that tell whether a generator collapsed


def train(config: Any, run: Run) -> dict[str, Any]:
    """Trains generator and student of a config, saves the student to `workdir/student` and returns the results."""
    check_choices(config)
    setting = prepare(config, run.workdir, fold=True, look=generation.no_images)
    for note in setting.notes() if config.evaluate_on else []:
        run.say(note)
    run.decide("inputs", dict, of=setting.fingerprint())
    several = run.strategy.num_replicas_in_sync > 1
    net = generation.make_generator(config, setting.teachers, run.seed_of("generator"), several, plain=True)
    student = with_one_head(start_student(setting, run), setting, run)
    run.track(net.named_variables("generator") | student.named_variables("student"))

    run.phase(both(setting, net, student, run))

    setting = generation.with_held_out(setting, Source(net, config.generated.batchnorm), Judges(setting), run)
    generation.show(run, setting.images.pixels["held_out"])
    run.decide("labels", lambda: generation.label_frequencies(setting))
    after = run.decide(
        "held_out/after", lambda: held_out_losses(setting, stream_logits(setting, student, setting.streams), setting.streams)
    )
    return {
        "method": "dafl",
        "held_out": {"after": after},
        **generation.account(setting, student, run),
        **finish(setting, run, student),
    }


def both(setting: Setting, net: BlockNet, student: Branched, run: Run) -> Phase:
    """Every iteration: the generator learns from the teachers, then the student from the images of the same forward pass."""
    gen, judges = setting.config.gen, Judges(setting, statistics=setting.config.gen.bn_stat > 0)
    making = Update(
        "generator",
        trains=net.weights(),
        statistics=net.statistics(),
        loss=lambda batch: generator_loss(setting, net, student, judges, batch),
        optimizer=gen.optimizer.to_dict(),
    )
    learning = distillation_update(setting, student, setting.streams, "distill")
    data = Codes(gen.batch_size, gen.z_dim, run.seed_of("data/both"))
    look = generation.watch(setting, net, run, _LOOK)
    return Phase("both", gen.steps, data, [making, learning], validate=look, validate_every_steps=gen.look_steps)


def generator_loss(
    setting: Setting, net: BlockNet, student: Branched, judges: Judges, batch: Batch
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """L_G = oh L_oh + alpha L_a + beta L_ie; leaves images and the teachers' outputs in the batch, for the student's update.

    Args:
        setting: the run's.
        net: G; its batch norms use the batch.
        student: S, for the adversarial term only, in inference mode.
        judges: the teachers on images.
        batch: `z`; gets `images` and every stream's logits.

    Returns:
        (loss, terms).
    """
    images = net.run(batch["z"], training=True)
    verdict = judges(images)
    batch |= {"images": tf.stop_gradient(images), **{s: tf.stop_gradient(rows) for s, rows in verdict.logits.items()}}
    loss, terms = generation.gan_loss(setting, verdict)
    if weight := setting.config.gen.adv:
        said = stream_logits(setting, student, setting.streams)(images)
        each = [losses.disagreement(logits=said[s], teacher_logits=rows) for s, rows in verdict.logits.items()]
        terms["adversarial"] = tf.reduce_mean(tf.add_n(each)) / len(each)
        loss += weight * terms["adversarial"]
    return loss, terms


def plan(config: Any, pool: Mapping[str, Teacher]) -> Plan:
    """What `train` is going to do, for teachers that are trained or only built."""
    _, teachers = chosen(config, pool)
    net, n, gen, held_out = teachers[0].net, len(teachers), config.gen, config.generated.held_out_images
    made, cost = generation.make_generator(config, teachers, 0, plain=True), sum(planning.work(net))
    making, test = sum(planning.work(made)), generation.test_images(config)
    step = 3 * making + (3 if gen.bn_stat else 2) * n * cost + 3 * cost + (2 * cost if gen.adv else 0)
    looks = (gen.steps // gen.look_steps + 1) * _LOOK if gen.look_steps else _LOOK
    size, weights = teachers[0].preprocessing.size, planning.weights(net)
    return Plan(
        [
            Line("both", gen.steps, gen.steps * gen.batch_size * step + looks * (making + n * cost)),
            Line("held-out images", 0, held_out * (making + (n + 2) * cost)),
            *([Line("test", 0, test * (1 + n) * cost)] if test else []),
        ],
        net,
        disk=2 * 3 * (planning.weights(made) + weights) + weights,
        caches=test * size * size * 3.0,
        memory=planning.training(
            planning.weights(made) + weights,
            2 * n * weights,
            gen.batch_size * (sum(planning.activations(made)) + (n + 1) * sum(planning.activations(net))),
        )
        + held_out * size * size * 12.0,
    )


def check_choices(config: Any) -> None:
    """Every choice that is a word, and numbers out of range.

    Raises:
        UserError: an unknown word, a number out of range, or a start that cannot train well.
    """
    generation.check_choices(config)
    if not config.gen.adv >= 0:
        raise UserError(f"gen.adv weighs a loss and cannot be {config.gen.adv}: set it to 0 or more")
    one_of("distill.batchnorm", config.distill.batchnorm, BATCH_NORMS)
    one_of("distill.trainable", config.distill.trainable, PARTS)
    optimizers.check(config.distill.optimizer, "distill.optimizer")
    check_start("student.weights", config.student.weights, "distill.batchnorm", config.distill.batchnorm, config.student.normalise)
