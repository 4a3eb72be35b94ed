"""Several runs beside each other and beside the papers: reads, groups, writes one set of files a published table or experiment."""

from collections.abc import Callable, Sequence
from pathlib import Path
import re
from typing import NamedTuple

from amalgam_tf.errors import UserError, one_of
from amalgam_tf.report import customize, customize_seeds, dual_gan, dual_gan_seeds, figures, html, paper, seeds, soka, soka_seeds, text
from amalgam_tf.report.runs import FinishedRun, groups, read


class Own(NamedTuple):
    """A method with a summary of its own.

    Attributes:
        said: its name in sentences.
        beside: methods of the runs that stand beside its own: of teachers, and baselines.
        write: what writes the summary: (name, runs of the method, runs beside them, folder, resamples) -> (Markdown, files).
    """

    said: str
    beside: tuple[str, ...]
    write: Callable[[str, Sequence[FinishedRun], Sequence[FinishedRun], Path, int], tuple[str, list[Path]]]


_OWN = {
    customize.METHOD: Own("Customize", ("teacher",), customize_seeds.write),
    soka.METHOD: Own("SOKA", (soka.TEACHER,), soka_seeds.write),
    dual_gan.METHOD: Own("Dual-GAN", dual_gan.BESIDE, dual_gan_seeds.write),
}
_APART = (customize.METHOD, soka.METHOD, soka.TEACHER)  # no experiments by test part and labels


def compare(
    places: Sequence[str], output: str | Path, *, table: str = "", metric: str = "accuracy", summary: str = "", resamples: int = 1000
) -> str:
    """Writes the comparisons that runs allow into a folder, all of them also as one page `report.html`, and returns them as text.

    Runs that name a row of one of AFK's or Customize's tables stand beside that table: `{table}.md`, `{table}.csv`, for AFK's fig. 3 also
    `.png`. All others are summarised: those of Customize together, `summary_customize.md` (`customize_seeds.write`), those of SOKA by
    test part, `summary_soka.md` (`soka_seeds.write`); the rest by test part and task list,
    `summary_{test part}.md` and files beside it (`dual_gan_seeds.write` where one is of Dual-GAN, otherwise `seeds.write`).

    Args:
        places: workdirs, results files or patterns of them.
        output: folder to write to; made if it is missing.
        table: only this published table.
        metric: what stands against the VOC tables (`paper.METRICS`).
        summary: summarise ALL runs as one experiment under this name, besides.
        resamples: of the bootstrap, at least 1.

    Raises:
        UserError: no such run, table or metric; a folder that cannot be written; runs measured on different test parts.
    """
    one_of("--metric", metric, paper.METRICS)
    if table:
        one_of("--table", table, (*paper.TABLES, *customize.TABLES))
    if summary and not re.fullmatch(r"[\w.+-]+", summary):
        raise UserError(f"--summary={summary!r} becomes part of file names: use letters, digits and _ . + - only")
    if resamples < 1:
        raise UserError(f"--resamples must be at least 1, not {resamples}")
    runs, notes = read(places)
    if not any(r.method == soka.METHOD for r in runs) and (taught := [r for r in runs if r.method == soka.TEACHER]):
        if len(taught) == len(runs):
            raise UserError(f"--runs: {taught[0].name} is a teacher of maps, and no student is named: name the runs of SOKA it taught, too")
        notes.append(f"left out, teachers of maps without a student: {', '.join(r.name for r in taught)}")
        runs = [r for r in runs if r.method != soka.TEACHER]
    ours = [r for r in runs if r.method == customize.METHOD]
    named = {t: [r for r in runs if paper.table_of(r.results) == t] for t in paper.TABLES}
    named |= {t: customize.named(t, ours) for t in customize.TABLES}
    if table and not named[table]:
        rows = ", ".join(sorted({r.results.get("published_row") or "none" for r in runs}))
        raise UserError(f"--table={table}: no run names a row of it; the published rows they name: {rows}")
    jobs: list[tuple[str, list[FinishedRun]]] = []  # of one experiment each
    if summary:
        jobs = [(summary, _one_experiment(runs))]
    elif not table:
        unnamed = [r for r in runs if not any(r is n for of in named.values() for n in of)]
        jobs = _experiments([r for r in unnamed if r.method not in _APART], runs)
        if own := [r for r in unnamed if r.method == customize.METHOD]:
            jobs.append(("summary_customize", own))
        jobs += _by_test_part("summary_soka", [r for r in unnamed if r.method in (soka.METHOD, soka.TEACHER)])
    folder = _folder(Path(output))
    said, files = [*(f"note: {n}" for n in notes)], []
    for name in [table] if table else [t for t, of in named.items() if of]:
        beside = (
            customize.beside_table(name, named[name], folder)
            if name in customize.TABLES
            else _beside_table(name, named[name], metric, folder)
        )
        said, files = [*said, beside[0]], [*files, *beside[1]]
    for name, members in jobs:
        markdown, written = _summarised(name, members, folder, resamples)
        said, files = [*said, markdown], [*files, *written]
    if reports := [f for f in files if f.suffix == ".md"]:
        files.append(_page(reports, folder, named[table] if table else runs))
    return "\n\n".join([*said, "\n".join(f"wrote {f}" for f in files)])


def _page(reports: Sequence[Path], folder: Path, runs: Sequence[FinishedRun]) -> Path:
    """All that was written, as one page."""
    title = f"{len(reports)} comparisons" if len(reports) > 1 else text.title(reports[0])
    return html.write(reports, folder / html.NAME, title=title, runs=runs)


def _folder(output: Path) -> Path:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output} cannot be made ({error.strerror}): choose another folder") from error
    return output


def _summarised(name: str, members: Sequence[FinishedRun], folder: Path, resamples: int) -> tuple[str, list[Path]]:
    for method, known in _OWN.items():
        if own := [r for r in members if r.method == method]:
            return known.write(name, own, [r for r in members if r.method in known.beside], folder, resamples)
    return seeds.write(name, *groups(members), folder, resamples)


def _by_test_part(name: str, runs: Sequence[FinishedRun]) -> list[tuple[str, list[FinishedRun]]]:
    """One experiment a test part that has a student; of several the parts' names are added."""
    found: dict[str, list[FinishedRun]] = {}
    for run in runs:
        found.setdefault(run.test_set, []).append(run)
    found = {part: members for part, members in found.items() if any(r.method == soka.METHOD for r in members)}
    if len(found) < 2:
        return [(name, members) for members in found.values()]
    return [(f"{name}_" + re.sub(r"[^\w.+-]+", "-", part).strip("-"), members) for part, members in found.items()]


def _beside_table(table: str, runs: Sequence[FinishedRun], metric: str, folder: Path) -> tuple[str, list[Path]]:
    found, notes = groups(runs)
    notes = [*paper.check_one_test_set(table, found), *notes]
    cells = paper.cells_of(table, found, metric)
    lines = paper.markdown(table, found, cells, metric, notes)
    files = [folder / f"{table}.md", text.write_csv(folder / f"{table}.csv", paper.CSV_HEAD, (c.csv() for c in cells))]
    if table == "afk_fig3" and figures.curves_of_pairs(paper.pairs(table, found), folder / f"{table}.png"):
        files.append(folder / f"{table}.png")
        lines += [f"![test metric of the student branched at each block]({table}.png)", ""]
    lines += ["## Runs", "", *seeds.origin(found), ""]
    markdown = "\n".join(lines)
    files[0].write_text(markdown, encoding="utf-8")
    return markdown, files


def _one_experiment(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """All of them, if that makes sense. Runs of Customize may differ in tasks and test parts, those of SOKA in tasks: they are shown apart.

    Raises:
        UserError: runs of different test parts, students of different labels, or of Customize or SOKA and another method.
    """
    for method, known in _OWN.items():
        if ours := [r for r in runs if r.method == method]:
            if other := [r for r in runs if r.method not in (method, *known.beside)]:
                raise UserError(
                    f"--summary: {ours[0].name} is of {known.said} and {other[0].name} of {other[0].method}: summarise one method"
                )
            if method == customize.METHOD:
                return list(runs)
    first = runs[0]
    for run in runs:
        if run.test_set != first.test_set:
            raise UserError(
                f"--summary: {first.name} was measured on {first.test_set} and {run.name} on {run.test_set}: summarise runs of one test set"
            )
    students = [r for r in runs if r.method not in ("teacher", soka.METHOD, soka.TEACHER)]
    for run in students:
        mine, theirs = (", ".join(r.results["tasks"]) for r in (students[0], run))
        if set(run.results["tasks"]) != set(students[0].results["tasks"]):
            raise UserError(
                f"--summary: {students[0].name} and {run.name} are students of different labels ({mine}; {theirs}): "
                "summarise runs of one task list"
            )
    return list(runs)


def _experiments(runs: Sequence[FinishedRun], everything: Sequence[FinishedRun]) -> list[tuple[str, list[FinishedRun]]]:
    """(name, runs) by test part and labels; a teacher's run goes with the students it taught."""
    students = [r for r in runs if r.method != "teacher"]
    found: dict[tuple, list[FinishedRun]] = {}
    for run in students:
        found.setdefault((run.test_set, *sorted(run.results["tasks"])), []).append(run)
    for teacher in [r for r in runs if r.method == "teacher"]:
        homes = [members for members in found.values() if any(_taught_by(teacher, s, members) for s in members if s.method != "teacher")]
        for members in homes:
            members.append(teacher)
        if not homes and not any(seeds.taught_by(teacher, s) for s in everything if s.method != "teacher"):
            found.setdefault((teacher.test_set,), []).append(teacher)
    names: dict[str, list[FinishedRun]] = {}
    for members in found.values():
        base = "summary_" + re.sub(r"[^\w.+-]+", "-", members[0].results["test"]["data"])
        name = next(n for n in (base, *(f"{base}_{i}" for i in range(2, len(found) + 2))) if n not in names)
        names[name] = members
    return list(names.items())


def _taught_by(teacher: FinishedRun, student: FinishedRun, members: Sequence[FinishedRun]) -> bool:
    """Beside Dual-GAN seeds may share a teacher."""
    shared = any(r.method == dual_gan.METHOD for r in members)
    return (dual_gan if shared else seeds).taught_by(teacher, student)
