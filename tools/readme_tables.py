"""The tables of README.md, made from results/: what stands between <!-- NAME --> and <!-- end --> is rewritten.

    python tools/readme_tables.py            # rewrites README.md
    python tools/readme_tables.py --check    # says whether it is what results/ hold, and writes nothing

Reads what `amalgam-compare` wrote there, not the runs: tests/test_readme.py asks that both are made anew from the committed runs.
"""

from collections.abc import Callable, Sequence
import csv
import functools
import json
from pathlib import Path
import re
import sys

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf import report  # noqa: E402  the project need not be installed
from amalgam_tf.report import text  # noqa: E402

_CHECK = flags.DEFINE_bool("check", False, "say whether README.md is what results/ hold, write nothing")

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "results"
HAIR, MOUTH, CIFAR10 = "Black_Hair, Blond_Hair, Brown_Hair, Bangs", "Big_Lips, Smiling, Mouth_Slightly_Open, Wearing_Lipstick", "X1, X2"
GROUPS = {"hair": HAIR, "mouth": MOUTH, "CIFAR-10": CIFAR10}


# -- what results/ hold -------------------------------------------------------------------------------------------------
@functools.cache
def rows(file: str) -> list[dict[str, str]]:
    """Those of a CSV file."""
    with open(RESULTS / file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def one(found: Sequence[dict[str, str]], **wanted: str) -> dict[str, str]:
    """The only row with these cells.

    Raises:
        LookupError: there is none, or there are several.
    """
    fitting = [row for row in found if all(row[k] == v for k, v in wanted.items())]
    if len(fitting) != 1:
        raise LookupError(f"{len(fitting)} rows have {wanted}")
    return fitting[0]


def section(file: str, title: str) -> list[str]:
    """The lines of the first table below a heading of a Markdown file."""
    body = (RESULTS / file).read_text(encoding="utf-8").split(f"# {title}\n", 1)[1]
    found = re.search(r"(?:^\|.*\n)+", body, re.M)
    return found[0].splitlines()


def cells(line: str) -> list[str]:
    """Of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def columns(table: Sequence[str], *wanted: str) -> list[str]:
    """These columns of a table."""
    head, _, *found = map(cells, table)
    places = [head.index(name) for name in wanted]
    return text.table(wanted, [[row[i] for i in places] for row in found])


# -- differences and what they say --------------------------------------------------------------------------------------
def interval(row: dict[str, str], factor: float, digits: int) -> str:
    """`+2.1 (+1.6 .. +2.6)`."""
    mean, low, high = (f"{factor * float(row[k]):+.{digits}f}" for k in ("difference", "low", "high"))
    return f"{mean} ({low} .. {high})"


def verdict(row: dict[str, str]) -> str:
    """Of `better`: the interval must lie on one side of zero, and so must every seed; one seed alone claims nothing."""
    low, high = float(row["low"]), float(row["high"])
    seeds = [float(row[k]) for k in ("smallest", "largest") if k in row] or [low, high]
    side = (min(low, *seeds) > 0) - (max(high, *seeds) < 0)
    if not side:
        return "not shown"
    said = "holds" if side > 0 else "does not hold"
    return said if int(row["seeds"]) > 1 else f"{said} (one seed)"


AFK = {
    "the student beats its teachers, mAP": ("AFK argmin", "its teachers"),
    "the student beats plain distillation of as many steps, mAP": ("AFK argmin", "distillation"),
}
CUSTOMIZE = {  # accuracy in points; claim -> row of the differences -> groups
    "component nets beat the mean of their source nets": ("component - mean of its source nets", ("hair", "CIFAR-10")),
    "target nets beat their component nets": ("target of {n} component nets - its component net", ("hair", "CIFAR-10")),
    "choosing a teacher by entropy helps": ("whole - without teacher selection", ("hair",)),
    "transfer bridges help": ("whole - without transfer bridge", ("hair",)),
    "two stages beat one": ("two-stage - one-shot", ("hair",)),
}
SOKA = {  # change of the main errors in percent; claim -> tasks, `mean` over both
    "the student is on par with its teachers": ("depth_zbuffer", "edge_texture", "mean"),
    "the whole method helps": ("mean",),
    "MIA helps": ("mean",),
    "ACCT helps": ("mean",),
    "a strong auxiliary teacher helps": ("mean",),
    "a weak auxiliary teacher hurts": ("mean",),
}
# Of the series whose students have no auxiliary teacher.
ALONE = ("the rate of the task weights does not matter", "GradNorm does not matter with eq. 8 as printed (S6)")
ALONE_ROWS = ("equal", "weighted", "fast_weights", "printed_mia")
NAMES = {"depth_zbuffer": "depth", "edge_texture": "edges", "mean": "mean of both"}
DUAL_GAN = {"CIFAR-10": "dgan_cifar10"}  # images -> folder
IMAGE_FREE = {  # claim -> rows, in mAP
    "a student without images beats DAFL's, mAP": ("ours", "dafl"),
    "DAFL's beats that of noise, mAP": ("dafl", "noise"),
}


def customize_row(claim: str, group: str) -> dict[str, str]:
    family, found = GROUPS[group], rows("customize_part/customize_part_differences.csv")
    row = CUSTOMIZE[claim][0].format(n=len(family.split(", ")))
    return one(found, family=family, claim=row, task="mean", metric="accuracy")


def overview() -> list[str]:
    """What holds up of every paper: measured differences, their intervals, verdicts."""
    lines = []
    for claim, (a, b) in AFK.items():
        row = one(rows("voc2012_part/voc2012_part_bootstrap.csv"), a=a, b=b, seed="all")
        lines.append(["AFK", claim, interval(row, 1, 3), row["seeds"], verdict(row)])
    for claim, (_, groups) in CUSTOMIZE.items():
        for group in groups:
            row = customize_row(claim, group)
            lines.append(["Customize", f"{claim}, accuracy in points, {group}", interval(row, 100, 1), row["seeds"], verdict(row)])
    wanted = [("soka_scenes", claim, task) for claim, tasks in SOKA.items() for task in tasks]
    for folder, claim, task in [*wanted, *(("soka_no_auxiliary", claim, "mean") for claim in ALONE)]:
        found = rows(f"{folder}/{folder}_claims.csv")
        row = one(found, pair="depth-edge2d", claim=claim, task=task, seed="all", metric="change of error %")
        lines.append(["SOKA", f"{claim}, change of error in %, {NAMES[task]}", interval(row, 1, 1), row["seeds"], row["verdict"]])
    for (claim, (left, right)), (images, folder) in ((c, i) for c in IMAGE_FREE.items() for i in DUAL_GAN.items()):
        row = one(rows(f"{folder}/{folder}_claims.csv"), left=left, right=right)
        lines.append(["Dual-GAN", f"{claim}, {images}", interval(row | {"difference": row["mean"]}, 1, 3), row["seeds"], row["verdict"]])
    return text.table(["paper", "claim", "here (95 % interval)", "seeds", "verdict"], lines)


# -- the blocks ---------------------------------------------------------------------------------------------------------
def quickstart() -> list[str]:
    return list(report.table(json.loads((RESULTS / "quickstart/student.json").read_text(encoding="utf-8"))))


def afk_differences() -> list[str]:
    table = section("voc2012_part/voc2012_part.md", "Differences")
    return [*table[:2], *(line for line in table if "| all " in line)]


def customize() -> list[str]:
    """Networks by group: medians over seeds of the means over the group's tasks."""
    lines = []
    for group, family in GROUPS.items():
        for column in ("accuracy %", "balanced %")[: 1 if group == "CIFAR-10" else 2]:  # whose classes are equally frequent
            said = [_mean_of(family, network, column) for network in ("mean of its source nets", "its component nets", "target of")]
            majority = _mean_of(family, "target of", "majority %") if column == "accuracy %" else "50.0"
            lines.append([group, column, _mean_of(family, "target of", "seeds"), *said, majority])
    return text.table(["group", "metric", "seeds", "source nets, mean", "component nets", "target net", "majority"], lines)


def _mean_of(family: str, network: str, column: str) -> str:
    """A cell of the first table of a family with this column that has a row for the mean over its tasks of this network."""
    body = (RESULTS / "customize_part/customize_part.md").read_text(encoding="utf-8").split(f"\n## {family}\n", 1)[1].split("\n## ", 1)[0]
    for table in re.findall(r"(?:^\|.*\n)+", body, re.M):
        head, _, *found = map(cells, table.splitlines())
        for row in found:
            if column in head and row[0].startswith("mean of") and row[1].startswith(network):
                return row[head.index(column)]
    raise LookupError(f"no mean of {network!r} with {column!r} below {family!r}")


def customize_claims() -> list[str]:
    """Differences of the means over a group's tasks, in points."""
    found, lines = rows("customize_part/customize_part_differences.csv"), []
    claims = dict.fromkeys(r["claim"] for r in found if r["task"] == "mean")
    for claim in claims:
        for group, family in GROUPS.items():
            own = [r for r in found if (r["family"], r["claim"], r["task"]) == (family, claim, "mean")]
            if own:
                shown = [interval(one(own, metric=metric), 100, 1) for metric in ("accuracy", "balanced_accuracy")]
                lines.append([claim, group, own[0]["seeds"], *shown])
    return text.table(["difference", "group", "seeds", "accuracy, points (95 % interval)", "balanced accuracy"], lines)


def soka() -> list[str]:
    table = section("soka_scenes/soka_scenes.md", "Variants of depth-edge2d")
    return [line for line in table if "(same run as ours)" not in line]


def soka_alone() -> list[str]:
    """The variants whose students have no auxiliary teacher."""
    head, rule, *found = section("soka_no_auxiliary/soka_no_auxiliary.md", "Variants of depth-edge2d")
    return [head, rule, *(line for line in found if cells(line)[0] in ("ours", "kd_mia", *ALONE_ROWS))]


def soka_claims() -> list[str]:
    """The claims on the mean over both tasks, then those of the series without auxiliary teachers that only it has."""
    lines = []
    for folder, shown in (("soka_scenes", None), ("soka_no_auxiliary", ALONE_ROWS)):
        head, rule, *found = section(f"{folder}/{folder}.md", "Claims")
        found = [line for line in found if {"depth-edge2d", "mean"} <= set(cells(line))]
        lines += [line for line in found if shown is None or any(f"({row} - " in line for row in shown)]
    return columns([head, rule, *lines], *_CLAIM)


def dual_gan(images: str) -> list[str]:
    """Rows of one set of images; the notes on the paper's numbers stand in results/."""
    folder = DUAL_GAN[images]
    shown = columns(section(f"{folder}/{folder}.md", "Rows"), *_ROW)
    return [re.sub(r"\[\^[^]]*\]", lambda m: " " * len(m[0]), line) for line in shown]


def dual_gan_claims() -> list[str]:
    """The paper's, of every set of images."""
    lines = []
    for images, folder in DUAL_GAN.items():
        head, _, *found = map(cells, section(f"{folder}/{folder}.md", "Claims"))
        lines += [[images, *row] for row in found if not row[0].startswith("(not the paper's)")]
    return text.table(["images", *head], lines)


_ROW = ("row", "seeds", "mAP", "of the teachers' %", "of the teacher's %, paper", "balanced accuracy %", "labels an image")
_CLAIM = ("claim", "seeds", "change %", "95 % interval", "seeds from .. to", "verdict")
BLOCKS: dict[str, Callable[[], list[str]]] = {
    "overview": overview,
    "quickstart": quickstart,
    "afk": lambda: section("voc2012_part/voc2012_part.md", "Networks"),
    "afk differences": afk_differences,
    "customize": customize,
    "customize differences": customize_claims,
    "soka": soka,
    "soka alone": soka_alone,
    "soka claims": soka_claims,
    "dual gan": lambda: dual_gan("CIFAR-10"),
    "dual gan claims": dual_gan_claims,
}


# -- the page -----------------------------------------------------------------------------------------------------------
def rewritten(page: str) -> str:
    """The page with every block made anew.

    Raises:
        LookupError: it has a block that nothing here makes, lacks one, or has one twice.
    """
    pattern = re.compile(r"(<!-- ([a-z ]+) -->\n).*?(<!-- end -->)", re.S)
    found = [m[2] for m in pattern.finditer(page)]
    if sorted(found) != sorted(BLOCKS):
        raise LookupError(f"README.md has the blocks {sorted(found)}, made here are {sorted(BLOCKS)}")
    made = {name: BLOCKS[name]() for name in found}
    if empty := [name for name, lines in made.items() if len(lines) < 3]:
        raise LookupError(f"results/ have no row for {empty}")
    return pattern.sub(lambda m: m[1] + "\n" + "\n".join(made[m[2]]) + "\n\n" + m[3], page)


def main(_) -> None:
    page = README.read_text(encoding="utf-8")
    made = rewritten(page)
    if not _CHECK.value:
        README.write_text(made, encoding="utf-8")
    elif made != page:
        sys.exit("README.md is not what results/ hold: python tools/readme_tables.py")


if __name__ == "__main__":
    app.run(main)
