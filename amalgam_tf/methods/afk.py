"""AFK / TargetNet: Amalgamating Filtered Knowledge.

Ye, Wang, Ji, Ou, Song: "Amalgamating Filtered Knowledge: Learning Task-customized Student from Multi-task Teachers",
IJCAI 2019. Several trained teachers of one architecture, any subset of their labels, no annotations: the student is
trained block by block, each block read by the frozen rest of every teacher; then every task leaves the student where
its loss was smallest, taking the rest of its teacher along.

Symbols
    A_n, B          teacher n and its number of blocks   teachers.Teacher, branching.entangle
    C_n, C          wanted tasks of teacher n; union     teachers.Pool, amalgamation.Setting.streams
    T^k             block k of the student               models.blocks.BlockNet
    f_n^k           teacher-level filter                 models.adapters.ChannelFilter
    F_u^k, F_un^k   student features, filtered           block_phase
    g               task-level filter (wanted rows)      amalgamation.task_level_filter
    O_n, O_un       teacher's outputs, entangled ones    amalgamation.teacher_targets, amalgamation.entangled_logits
    L_n^i(k)        held-out loss of a task at block k   amalgamation.block_losses
    S_n^i           branch point                         choose_branches

Equations
    Eq. 1   teachers.Pool.resolve           C_n, subset of A_n's tasks, and their union
    Eq. 2   losses.binary_cross_entropy     the teachers' own loss (methods/teacher.py)
    Eq. 3   models.blocks.BlockNet.run      F^k = A^k(F^{k-1}), O = fc(F^B)
    Eq. 4   models.adapters.ChannelFilter   F_un^k = f_n^k(F_u^k)
    Eq. 6   branching.entangle              O_un = fc_n o A_n^B o ... o A_n^{k+1} (F_un^k)
    Eq. 7   amalgamation.customised_losses  CE(O_n^i, O_un^i) of every stream; amalgamation.total: (1 / |C|) sum_n sum_i
    Eq. 8   amalgamation.total              |C| = sum_n |C_n|, the number of streams
    Eq. 9   choice.branch_points            S_n^i = argmin_k L_n^i(k)
    Eq. 10  branching.regroup               T^1..T^S -> f_n^S -> A_n^{S+1}..A_n^B -> fc_n^i

Choices the paper leaves open, and deviations (ids of the project's spec)
    A3   unlabelled images are those the teachers were trained on, labels dropped. Switch `data.train` (another split of the reader, or a
         folder of images; its labels are never used).
    A6   one optimizer and one full schedule per block; `block.restart_schedule=False` runs one schedule over all blocks. Switches
         `block.optimizer`, `block.epochs`.
    A7   gate of the filter: `two_sigmoid` starts as the identity. From ImageNet it and `linear` measured better than `sigmoid`, the
         paper-literal preset `paper`, at every block but the last; from scratch the three are alike (results/README.md). Switch
         `filter.gate`, `filter.reduction`, `filter.bias`.
    A8   soft targets (eq. 7). Switch `targets=hard`.
    A9   blocks are those the teachers were cut into (their card), the stem belongs to the first. The paper's are residual units
         (`granularity=unit`, preset `paper`); our default is stages, four times cheaper. DenseNet: four blocks.
    A10  L(k) is one inference pass over held-out unlabelled images after block k. Switch `branch.split=train`.
    A11  one student for all teachers: their losses are trained jointly.
    A12  tasks of one teacher that leave at one block share filter and tail. Switch `branch.share=per_task` gives every task a tail
         of its own behind the common filter f_n^S.
    A13  fine-tuning: soft targets again, all weights; the start or the epoch of the best held-out loss is kept. Its learning rate is that
         of the blocks from ImageNet, a fifth from scratch, a tenth with `paper`. Switches `finetune.trainable`, `finetune.optimizer`.
    A14  frozen blocks and teachers use stored batch-norm statistics; the trained block uses `block.batchnorm`
         (`batch`; `frozen` for ImageNet starts); fine-tuning `finetune.batchnorm`.
    A15  gradients are taken for T^k and f^k only and pass through the frozen tails.
    A16  class groups are files of data/splits; each teacher's config names its own.
    A17  all tasks at one block: `branch.rule=b2`. The rows b1..b4 and fig. 3's curve without fine-tuning: `curve=True`.
    A19  lambda_n is not part of eq. 7: all 1. Switch `teacher_weights.NAME`.
    A20  start of the student: `student.weights` (`none`, `imagenet`, a file; `teacher` copies the first teacher).
    A21  the filter acts on the block's output, not inside its units.
    Shared tasks: `budget` and `tolerance` search over branch points only after every shared task has been given to the teacher of its
    smallest loss over all blocks.
    Branch rules of ours, from the same recorded losses: `branch.rule=tolerance` (deepest block within `branch.tolerance` nats of the
    best), `smallest` (fewest parameters with every task within it) and `budget` (smallest total loss under `branch.max_parameters` or
    `branch.max_flops`). `branch.blocks_from=WORKDIR` takes
    the trained blocks of another run, so that every rule costs its fine-tuning only.
    Same task in two teachers: two streams in eq. 7; the student keeps the one of smaller held-out loss.
    Softmax tasks are amalgamated by the same rule with softmax cross-entropy (the paper has binary tasks only).

Not implemented
    Eq. 5 (feature distance; the paper replaces it by eq. 7). Teachers trained on the other half of the images (A3, disjoint_half).
    Branch statistics from the training average (A10).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from amalgam_tf import choice, evaluate, planning
from amalgam_tf.amalgamation import (
    Setting,
    block_losses,
    chosen,
    customised_losses,
    entangled_logits,
    finish,
    held_out_losses,
    prepare,
    start_student,
    stream_logits,
    student_on_test,
    total,
)
from amalgam_tf.branching import PARTS, Branched, check_alike, named_filters, regroup, tail_costs, trunk_costs
from amalgam_tf.branching import start_filters as filters_of
from amalgam_tf.distillation import distillation_phase
from amalgam_tf.errors import UserError, one_of
from amalgam_tf.models import check_start
from amalgam_tf.models.adapters import GATES, ChannelFilter
from amalgam_tf.models.blocks import BlockNet, multiply_adds, parameters
from amalgam_tf.planning import Line, Plan
from amalgam_tf.prefix import Prefix
from amalgam_tf.tasks import resolved
from amalgam_tf.teachers import Stream, Teacher
from amalgam_tf.training import optimizers
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import BATCH_NORMS, Phase, Update

Filters = Mapping[tuple[str, str], ChannelFilter]  # (block, teacher) -> f_n^k
Recorded = Mapping[str, Mapping[str, Mapping[str, float]]]  # block -> stream -> {"loss", "divergence"}
RULES = ("argmin", "tolerance", "smallest", "budget")
# What decides how blocks are trained: equal in a run and in one that starts from its blocks.
BLOCK_SETTINGS = (
    *("teacher_weights", "tasks", "seed", "precision", "targets", "granularity", "student", "filter", "block", "flip"),
    "branch.split",
)


# -- the algorithm ----------------------------------------------------------------------------------------------------
def amalgamate(setting: Setting, run: Run) -> Branched:
    """Algorithm 1 of the paper, line by line (numbers as printed there; the teachers' outputs of line 2 are in `setting`)."""
    run.decide("inputs", dict, of=setting.fingerprint())
    student = start_student(setting, run)  # (1) T and the filters f
    filters = start_filters(setting, student, run)
    run.track(student.named_variables("student"))
    run.track(named_filters(filters, "filter"))

    recorded, prefix = {}, frozen_part(setting, student, run)
    for k, block in enumerate(student.names):  # (3), (4) F^0 = I; for k = 1..B
        run.phase(block_phase(setting, student, k, filters, prefix, run))  # (5)-(9)
        recorded[block] = run.decide(  # (10) L_n^i(k)
            f"block_losses/{block}",
            lambda k=k: block_losses(setting, student, k, filters, setting.config.branch.split),
            of=setting.images.fingerprint(setting.config.branch.split),
        )
        run.say(f"  block {block}: {setting.config.branch.split} divergence " + in_a_line(recorded[block]))
    del prefix  # (11) end
    if setting.config.curve and setting.images.test is not None:
        run.decide("curve", lambda: curve_on_test(setting, student, filters, recorded))
    run.snapshot("blocks")  # other branch rules start from here

    branches = run.decide("branches", lambda: choose_branches(setting, student, filters, recorded))  # (12) S_n^i
    run.say("  branch points: " + ", ".join(f"{s} at {b}" for s, b in branches.items()))
    kept = {s: branches[str(s)] for s in setting.streams if str(s) in branches}
    branched = regroup(student, filters, setting.teachers, kept, per_task=setting.config.branch.share == "per_task")  # (13)
    run.track({k: v for tail in branched.unique_tails for k, v in tail.net.named_variables(f"tail/{tail.name}").items()})
    if setting.images.test is not None:
        run.keep("before_finetune", lambda: student_on_test(setting, branched))
    run.decide("held_out/before", lambda: held_out_losses(setting, stream_logits(setting, branched, list(kept)), list(kept)))
    if setting.config.finetune.epochs:
        run.phase(distillation_phase(setting, branched, list(kept), run, "finetune"))  # (14)
    run.decide("held_out/after", lambda: held_out_losses(setting, stream_logits(setting, branched, list(kept)), list(kept)))
    return branched


# -- equations --------------------------------------------------------------------------------------------------------
def entangled_losses(
    setting: Setting, features: tf.Tensor, block: str, k: int, filters: Filters, targets: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Eqs. 4, 6, 7: filter the student's features behind block k, run every teacher's rest, compare the wanted rows."""
    return customised_losses(setting.streams, entangled_logits(setting, features, block, k, filters), targets, setting.hard)


def choose_branches(setting: Setting, student: BlockNet, filters: Filters, recorded: Recorded) -> dict[str, str]:
    """Stream -> block, by `branch.rule`: eq. 9, or a rule of ours. Where several teachers know a task, only its best stream is kept.

    Raises:
        UserError: a size limit below the smallest student.
    """
    branch, rule = setting.config.branch, setting.config.branch.rule
    losses_at = {block: {s: v["loss"] for s, v in values.items()} for block, values in recorded.items()}
    points = choice.branch_points(losses_at)  # eq. 9
    if rule in recorded:  # A17: all tasks leave here
        points = dict.fromkeys(points, rule)
    at_best = {s: losses_at[block][s] for s, block in points.items()}
    kept = set(choice.best_streams({str(s): s.task.name for s in setting.streams}, at_best).values())
    losses_at = {block: {s: v for s, v in values.items() if s in kept} for block, values in losses_at.items()}
    if rule == "tolerance":
        points = choice.tolerant_branch_points(losses_at, branch.tolerance)
    elif rule in ("smallest", "budget"):
        points = jointly(setting, student, filters, losses_at)
    return {str(s): points[str(s)] for s in setting.streams if str(s) in kept}


def jointly(setting: Setting, student: BlockNet, filters: Filters, losses_at: choice.Losses) -> dict[str, str]:
    """Stream -> block, chosen over all tasks together by what trunk and tails cost.

    `budget`: the best student of at most `branch.max_parameters` or `branch.max_flops` (of one image). `smallest`: that of the fewest
    parameters in which every task is within `branch.tolerance` of its best block.
    """
    branch, kept = setting.config.branch, [s for s in setting.streams if str(s) in next(iter(losses_at.values()))]
    if branch.max_parameters or branch.rule == "smallest":
        limit, count, count_filter = branch.max_parameters, lambda m: parameters(m.variables), lambda f: parameters(f.variables)
    else:
        limit, count, count_filter = branch.max_flops, lambda m: 2 * multiply_adds(m), lambda f: 0
    own_tails = branch.share == "per_task"
    groups: dict[str, list[Stream]] = {}
    for s in kept:
        groups.setdefault(str(s) if own_tails else s.teacher, []).append(s)
    tails = {}
    for name, members in groups.items():
        teacher = setting.teacher(members[0].teacher)
        tails[name] = tail_costs(
            teacher, {b: filters[b, teacher.name] for b in student.names}, [s.task for s in members], count, count_filter
        )
    group_of = {str(s): name for name, members in groups.items() for s in members}
    if branch.rule == "smallest":
        return choice.smallest_branch_points(losses_at, branch.tolerance, group_of, trunk_costs(student, count), tails)
    return choice.budgeted_branch_points(losses_at, group_of, trunk_costs(student, count), tails, limit)


def in_a_line(recorded: Mapping[str, Mapping[str, float]]) -> str:
    """The divergences of up to a dozen streams, the sum of more."""
    each = {s: v["divergence"] for s, v in recorded.items()}
    return "  ".join(f"{s} {v:.4f}" for s, v in each.items()) if len(each) <= 12 else f"{sum(each.values()):.4f} over {len(each)} streams"


def curve_on_test(setting: Setting, student: BlockNet, filters: Filters, recorded: Recorded) -> dict[str, Any]:
    """Block -> test metrics and size of the student with every task branched there, not fine-tuned (fig. 3; rows b1..b4, A17)."""
    curve = {}
    for block, values in recorded.items():
        best = choice.best_streams({str(s): s.task.name for s in setting.streams}, {s: v["loss"] for s, v in values.items()})
        branched = regroup(student, filters, setting.teachers, {s: block for s in setting.streams if str(s) in best.values()})
        measured = evaluate.measure(student_on_test(setting, branched), branched.tasks, setting.images.test)
        curve[block] = {**evaluate.size_of(branched.as_model()), "test": measured}
    return curve


# -- phases -----------------------------------------------------------------------------------------------------------
def block_phase(setting: Setting, student: BlockNet, k: int, filters: Filters, prefix: Prefix, run: Run) -> Phase:
    """Lines (5)-(9): trains T^k and the filters f_n^k; everything else is frozen (A14, A15)."""
    settings, block = setting.config.block, student.names[k]
    batch_norm, weights = settings.batchnorm == "batch", {str(s): setting.weight(s) for s in setting.streams}

    rows = prefix.rows(k)

    def loss(batch):
        features = batch["prefix"] if rows else student.run(setting.preprocessing(batch["images"]), stop=k - 1)  # F_u^{k-1}
        features = student.run(features, start=k, stop=k, training=batch_norm)  # (5) F_u^k
        return total(entangled_losses(setting, features, block, k, filters, batch), weights)  # (6)-(8)

    viewed = setting.targets["train"] | ({"prefix": rows} if rows else {})
    batches = setting.images.batches(settings.batch_size, run.seed_of(f"data/block/{block}"), viewed)
    steps, optimizer = batches.steps(settings.epochs), settings.optimizer.to_dict()
    if not settings.restart_schedule:  # A6
        optimizer |= {"begin_step": k * steps, "all_steps": len(student) * steps}
    update = Update(
        "block",
        trains=[*student.weights(k, k), *(v for t in setting.teachers for v in filters[block, t.name].trainable_variables)],
        statistics=student.statistics(k, k) if batch_norm else [],
        loss=loss,
        optimizer=optimizer,
    )
    return Phase(f"block/{block}", steps=steps, data=batches, updates=[update])


def frozen_part(setting: Setting, student: BlockNet, run: Run) -> Prefix:
    """F_u^{k-1} of all images and views, computed once before block k where `features.memory_gb` or `features.disk_gb` allow."""
    limits, images = setting.config.features, setting.images
    return Prefix(student, images.pixels["train"], images.views, setting.preprocessing, run.scratch, limits.memory_gb, limits.disk_gb)


# -- the pieces that enter --------------------------------------------------------------------------------------------
def start_filters(setting: Setting, student: BlockNet, run: Run) -> Filters:
    """f_n^k for every block and teacher, built for the block's known output shape (A7)."""
    return filters_of(setting.config.filter, student.shapes, setting.teachers, run.seed_of, "filter")


# -- from config to results -------------------------------------------------------------------------------------------
def train(config: Any, run: Run) -> dict[str, Any]:
    """Amalgamates the student of a config, saves it to `workdir/student` and returns the results."""
    setting = enter(config, run.workdir)
    for note in setting.notes():
        run.say(note)
    if config.branch.blocks_from:
        run.adopt(resolved(config.branch.blocks_from, run.workdir), "blocks", BLOCK_SETTINGS, setting.fingerprint())
    branched = amalgamate(setting, run)
    blocks, tested = setting.teachers[0].net.names[:-1], setting.images.test is not None
    return {
        "method": "afk",
        "rule": rule_of(config),
        "branches": run.decided("branches"),
        "branch_split": config.branch.split,
        "block_losses": {block: run.decided(f"block_losses/{block}") for block in blocks},
        **({"curve": run.decided("curve")} if config.curve and tested else {}),
        **({"finetune": run.decided("best/finetune")} if config.finetune.epochs else {}),  # step of the kept weights, 0: the start
        "held_out": {when: run.decided(f"held_out/{when}") for when in ("before", "after")},
        **finish(setting, run, branched, {"student_before_finetune": run.kept("before_finetune")} if tested else None),
        "trunk_parameters": parameters(branched.trunk.variables()),
    }


def enter(config: Any, workdir: Path = Path()) -> Setting:
    """Everything line (1) takes for granted.

    Raises:
        UserError: a misspelt choice, before anything is read; teachers of different architectures, or a block they do not have, before
            their outputs are computed; whatever `prepare` finds wrong.
    """
    check_choices(config)

    def check(teachers: Sequence[Teacher]) -> None:
        check_alike(teachers, "AFK")
        one_of("branch.rule", config.branch.rule, (*RULES, *teachers[0].net.names[:-1]))

    return prepare(config, workdir, check, fold=True)


def plan(config: Any, pool: Mapping[str, Teacher]) -> Plan:
    """What `amalgamate` is going to do, for teachers that are trained or only built."""
    streams, teachers = chosen(config, pool)
    check_alike(teachers, "AFK")
    images, net, n = planning.counts(config), teachers[0].net, len(teachers)
    trunk, cost, written = net.part(stop=len(net) - 2), planning.work(net), planning.activations(net)
    limits, block, views = config.features, config.block, images.train * images.views
    prefix = Prefix(trunk, range(images.train), images.views, None, Path(), limits.memory_gb, limits.disk_gb)
    steps = planning.steps(block.epochs, images.train, block.batch_size)
    lines = [Line("teachers' outputs", 0, n * (views + images.held_out) * sum(cost))]
    for k, name in enumerate([] if config.branch.blocks_from else trunk.names):
        rest, before = n * sum(cost[k + 1 :]), sum(cost[:k])
        once = 0 if k == 0 or prefix.room(k) == "step" else views * cost[k - 1]  # the features of all images, through one more block
        each = block.batch_size * ((before if k and not once else 0) + 3 * cost[k] + 2 * rest)
        held_out = images.held_out if config.branch.split == "held_out" else images.train
        seen = held_out + (images.test if config.curve else 0)
        lines.append(Line(f"block/{name}", steps, once + steps * each + seen * (before + cost[k] + rest)))
    largest = cost[0] + n * sum(cost[1:])  # all tasks leave at the first block
    if fine := config.finetune.epochs:
        steps = planning.steps(fine, images.train, config.finetune.batch_size)
        lines.append(Line("finetune", steps, (3 * steps * config.finetune.batch_size + (fine + 1) * images.held_out) * largest))
    lines.append(Line("test", 0, images.test * (2 * largest + n * sum(cost))))
    kept = max((prefix.bytes(k) for k in range(1, len(trunk)) if prefix.room(k) == "memory"), default=0)
    student, tails = planning.weights(trunk), n * planning.weights(net)
    batch = block.batch_size * (written[0] + n * sum(written[1:]))
    return Plan(
        lines,
        net,
        disk=2 * 3 * (student + tails) + student + (student + tails),  # two checkpoints with slots, the snapshot, the student
        caches=planning.caches(images, teachers[0].preprocessing.size, sum(s.task.outputs for s in streams)),
        memory=planning.training(student + tails, 2 * tails, batch) + 2 * kept,
        notes=["fine-tuning, disk and memory: for a student whose tasks all leave at the first block"],
    )


def rule_of(config: Any) -> dict[str, Any]:
    """The branch rule and what it depends on, for the results."""
    branch = config.branch
    limit = "max_parameters" if branch.max_parameters else "max_flops"
    options = {"argmin": {}, **dict.fromkeys(("tolerance", "smallest"), {"tolerance": branch.tolerance}), "budget": {limit: branch[limit]}}
    return {"name": branch.rule, **options[branch.rule]} if branch.rule in RULES else {"name": "fixed", "block": branch.rule}


def check_choices(config: Any) -> None:
    """Every choice that is a word, and the numbers of the branch rules.

    Raises:
        UserError: an unknown word, a rule without its number, or a start that cannot train well.
    """
    one_of("targets", config.targets, ("soft", "hard"))
    one_of("branch.split", config.branch.split, ("held_out", "train"))
    one_of("branch.share", config.branch.share, ("per_teacher_block", "per_task"))
    one_of("finetune.trainable", config.finetune.trainable, PARTS)
    for section in ("block", "finetune"):
        one_of(f"{section}.batchnorm", config[section].batchnorm, BATCH_NORMS)
    for section in ("block.optimizer", "finetune.optimizer"):
        optimizers.check(config[section.partition(".")[0]].optimizer, section)
    one_of("filter.gate", config.filter.gate, GATES)
    if config.branch.rule == "budget" and bool(config.branch.max_parameters) == bool(config.branch.max_flops):
        raise UserError("branch.rule=budget needs one limit: set branch.max_parameters or branch.max_flops, and the other to 0")
    if not config.branch.tolerance >= 0:
        raise UserError(f"branch.tolerance is a margin in nats and cannot be {config.branch.tolerance}: set it to 0 or more")
    check_start("student.weights", config.student.weights, "block.batchnorm", config.block.batchnorm, config.student.normalise)
