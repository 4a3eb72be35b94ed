"""Dual-GAN's runs: which row each of them is, and their numbers in the order of the paper's table 1.

Students of one test part and one list of tasks stand beside each other, whatever made them: Dual-GAN with its ablations, DAFL, and AFK on
the teachers' own images (KA), on similar ones, on different ones and on noise. A row is named by the words of its config's argument, AFK's
by the images it was shown; never by the name of its folder.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from amalgam_tf import published
from amalgam_tf.report import generated, runs
from amalgam_tf.report.paper import printed_number
from amalgam_tf.report.runs import STUDENT, TEACHERS, FinishedRun, Group, Network

METHOD, AFK, TEACHER = "dual_gan", "afk", "teacher"
BESIDE = (TEACHER, AFK, "dafl", "distill")  # methods whose runs stand beside Dual-GAN's
OURS, LITERAL, KA, SIMILAR, DAFL, DIFFERENT, NOISE = "ours", "literal", "ka", "similar", "dafl", "different", "noise"
LITERAL_DAFL = f"{DAFL},{LITERAL}"
OFF = "off"  # without the discrete loss
SAID = {  # rows in the order of the paper's table 1, then ours that it lacks
    TEACHERS: "teachers",
    KA: "KA: AFK, the teachers' own images",
    OURS: "ours: Dual-GAN",
    LITERAL: "literal: Dual-GAN, the paper's own losses",
    SIMILAR: "similar: AFK, similar images",
    DAFL: "DAFL",
    LITERAL_DAFL: "dafl,literal: DAFL, its own losses",
    DIFFERENT: "different: AFK, other images",
    NOISE: "noise: AFK, images of noise",
    "distill": "distill: the teachers' own images",
    "lambda10": "lambda10: the student's own features only",
    "lambda01": "lambda01: the generator's features only",
    OFF: "off: no discrete loss",
    "minus_logit": "minus_logit: discrete loss, - mean |logit|",
    "minus_prob": "minus_prob: discrete loss, - mean probability",
    "bernoulli": "bernoulli: every label in half of the images",
    "softmax": "softmax: labels exclude each other",
    "no_bn_stat": "no_bn_stat: batch-norm statistics not matched",
    "probability": "probability: pseudo-labels by probability alone",
    "batch": "batch: the generator's batch statistics in step II",
    "eta_image": "eta_image: branch points by the image alone",
    "plain": "plain: one group, DAFL's generator",
}
PRINTED = {  # row -> the paper's, of table 1 and of table 4, whose runs are those of table 1
    TEACHERS: "dgan_table1/TeacherNet",
    KA: "dgan_table1/KA",
    OURS: "dgan_table1/Data-free KA",
    LITERAL: "dgan_table1/Data-free KA",
    SIMILAR: "dgan_table1/Similar Data",
    DAFL: "dgan_table1/DAFL",
    LITERAL_DAFL: "dgan_table1/DAFL",
    DIFFERENT: "dgan_table1/Diff Data",
    NOISE: "dgan_table1/Random Noise",
    "lambda10": "dgan_table4/1/0",
    "lambda01": "dgan_table4/0",
}
_NO_ROWS = {"scenes", "union", "cifar10", "smoke", *(f"table{n}" for n in range(1, 5)), "fig4", "fig5"}  # words that choose data or size


class Numbers(NamedTuple):
    """What one line shows of one run; None: not measured.

    Attributes:
        ap: mean average precision on the test part.
        kept: of the teachers' on the same tasks.
        accuracy: mean, at 0.5.
        balanced: mean balanced accuracy.
        positives: labels that a generated image shows.
        agreement: share of decisions on generated images that are the teachers'.
        commonest: the agreement of the teachers' most frequent answers.
        shown: images of all training steps, generated ones anew in every step.
        minutes: of training.
    """

    ap: float | None = None
    kept: float | None = None
    accuracy: float | None = None
    balanced: float | None = None
    positives: float | None = None
    agreement: float | None = None
    commonest: float | None = None
    shown: float | None = None
    minutes: float | None = None


# -- which run is what ------------------------------------------------------------------------------------------------
def words_of(run: FinishedRun) -> list[str]:
    """Of its config's argument, without those that choose data or size."""
    return [w for w in run.flags.get("config", "").partition(":")[2].split(",") if w and w not in _NO_ROWS]


def row_of(run: FinishedRun) -> str:
    """A key of `SAID`; of what that does not know the words themselves, or `AFK on` and the images."""
    if run.method == AFK:
        return _images_of(run)
    return ",".join(words_of(run)) or (OURS if run.method == METHOD else run.method)


def _images_of(run: FinishedRun) -> str:
    """By `data.train_reader` of config.json; whether foreign images are similar, only the argument's words can tell."""
    reader = (run.config or {}).get("data", {}).get("train_reader")
    if reader in ("", NOISE):
        return reader or KA
    words = (SIMILAR, DIFFERENT) if reader else (KA, SIMILAR, DIFFERENT, NOISE)
    shown = reader or run.results.get("unlabelled", {}).get("train", {}).get("data", "unknown images")
    return next((w for w in words_of(run) if w in words), f"AFK on {shown}")


def rows(students: Sequence[FinishedRun]) -> tuple[dict[str, Group], list[str]]:
    """Runs by row, each over its seeds, in the order of `SAID`, others behind; and what a reader of medians should know."""
    by_row: dict[str, list[FinishedRun]] = {}
    for run in students:
        by_row.setdefault(row_of(run), []).append(run)
    order, found, notes = [*SAID, *by_row], {}, []
    for row in sorted(by_row, key=order.index):
        own, said = runs.named(by_row[row], row)
        found |= {g.label: g for g in own}
        notes += said
    return found, [*notes, *_unlike_teachers(found)]


def _unlike_teachers(found: Mapping[str, Group]) -> list[str]:
    """Students of one seed whose teachers measure differently were taught by other trainings of them."""
    first: dict[int, tuple[str, Network]] = {}
    said = []
    for row, group in found.items():
        for seed, network in group.networks(TEACHERS).items():
            other, theirs = first.setdefault(seed, (row, network))
            if not runs.alike(network, theirs):
                said.append(f"{row} and {other} of seed {seed} were taught by different teachers, so their difference is not the method's")
    return said


def taught_by(teacher: FinishedRun, student: FinishedRun) -> bool:
    """Whether a teacher's run can be behind a student, of whatever seed: seeds vary the student and may share a teacher."""
    pools = student.results.get("teachers", {}).values()
    return teacher.test_set == student.test_set and any(set(tasks) <= set(teacher.results["tasks"]) for tasks in pools)


# -- numbers ----------------------------------------------------------------------------------------------------------
def numbers(run: FinishedRun, ap: str) -> Numbers:
    """Of a student."""
    results = run.results
    own, taught = (runs.network(results, which) for which in (STUDENT, TEACHERS))
    return Numbers(
        *_measured(own, ap, taught.mean(ap)),
        positives=results.get("positives"),
        agreement=results.get("agreement", {}).get("mean"),
        commonest=generated.commonest(results) if "agreement" in results else None,
        shown=images_shown(run),
        minutes=runs.training_seconds(results) / 60,
    )


def of_teachers(found: Mapping[str, Group], teachers: Sequence[FinishedRun], ap: str) -> list[Numbers]:
    """Of the teachers on the students' tasks, each task by the teacher of the kept stream: one entry for every training of them.

    Args:
        found: as `rows` returns them.
        teachers: their runs, for time and images.
        ap: which average precision.
    """
    apart: list[tuple[Network, FinishedRun]] = []
    for group in found.values():
        for run in group.runs:
            network = runs.network(run.results, TEACHERS)
            if not any(runs.alike(network, other) for other, _ in apart):
                apart.append((network, run))
    return [Numbers(*_measured(n, ap, n.mean(ap)), **_cost(run, teachers)) for n, run in apart]


def _cost(student: FinishedRun, teachers: Sequence[FinishedRun]) -> dict[str, float]:
    """Images and minutes of the teachers behind a student; nothing unless there is one run for each, which knows the fewest other tasks."""
    behind = []
    for tasks in student.results["teachers"].values():
        able = [t for t in teachers if taught_by(t, student) and set(tasks) <= set(t.results["tasks"])]
        same = [t for t in able if t.seed == student.seed] or able
        least = min((len(t.results["tasks"]) for t in same), default=0)
        behind.append([t for t in same if len(t.results["tasks"]) == least])
    if not all(len(each) == 1 for each in behind):
        return {}
    shown = [images_shown(each[0]) for each in behind]
    minutes = sum(runs.training_seconds(each[0].results) for each in behind) / 60
    return {"minutes": minutes, **({} if None in shown else {"shown": sum(shown)})}


def _measured(network: Network, ap: str, taught: float | None) -> tuple[float | None, ...]:
    own = network.mean(ap)
    return own, own / taught if taught and own is not None else None, network.mean("accuracy"), network.mean("balanced_accuracy")


def trivial(found: Mapping[str, Group], ap: str) -> dict[str, Numbers]:
    """What needs no network: scores at random, whose average precision is the prevalence, and always "no"."""
    run = next(iter(found.values())).first
    guess = runs.network(run.results, STUDENT)
    taught, chance = runs.network(run.results, TEACHERS).mean(ap), guess.mean("prevalence")
    kept = chance / taught if taught and chance is not None else None
    never = guess.mean("all_negative_accuracy")
    return {"random scores": Numbers(chance, kept, None, 0.5), "always no": Numbers(chance, kept, never, 0.5)} if chance is not None else {}


def images_shown(run: FinishedRun) -> float | None:
    """How many images all training steps of a run together were shown, a shared generator's included; None without config.json."""
    config, results = run.config, run.results
    if not config:
        return None
    if run.method in (METHOD, DAFL):
        blocks = [config["block"]] * len(results.get("block_losses", {})) if run.method == METHOD else []
        phases = [config["gen"], *blocks, *([config["finetune"]] if run.method == METHOD else [])]
        return float(sum(phase["steps"] * phase["batch_size"] for phase in phases))
    if run.method == TEACHER:
        return config["epochs"] * results["train"]["images"]
    blocks = len(results.get("block_losses", {}))
    epochs = config["distill"]["epochs"] if "distill" in config else blocks * config["block"]["epochs"] + config["finetune"]["epochs"]
    return epochs * results["unlabelled"]["train"]["images"]


def printed(row: str) -> float | None:
    """The paper's share of the teacher's mAP; None if it has no such row."""
    if row not in PRINTED:
        return None
    own, taught = (published.row(PRINTED[r]) for r in (row, TEACHERS))
    return printed_number(own.get("mAP_printed") or own["mAP"]) / printed_number(taught["mAP_printed"])
