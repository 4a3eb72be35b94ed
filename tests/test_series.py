"""A list of runs: its order, what is done, what a failure costs, and going on after a kill; with a trainer that trains nothing."""

import fcntl
import os
from pathlib import Path
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from amalgam_tf import series
from amalgam_tf.errors import UserError
from amalgam_tf.series import Clock, Planned

ROOT = Path(__file__).parents[1]

# Counts to ten in its workdir, a step at a time, and goes on from where it was; as a real run it locks the workdir while it does.
TRAINER = """
import fcntl, pathlib, sys, time
workdir = pathlib.Path(sys.argv[1])
workdir.mkdir(parents=True, exist_ok=True)
lock = open(workdir / ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
steps = workdir / "steps"
done = int(steps.read_text()) if steps.exists() else 0
with open(workdir / "starts", "a") as log:
    log.write(f"{done}\\n")
(workdir / "pid").write_text(str(__import__("os").getpid()))
for step in range(done + 1, 11):
    time.sleep(0.05)
    (workdir / "new").write_text(str(step))
    (workdir / "new").replace(steps)
(workdir / "results.json").write_text("{}")
"""
DRIVER = """
import pathlib, sys
from amalgam_tf import series

class Fake(series.Planned):
    needs = ()
    def command(self):
        return ["python", sys.argv[1], str(self.workdir)]

runs = [Fake(pathlib.Path(sys.argv[2]) / name, "") for name in "abc"]
try:
    series.train(runs, series.Clock({r.workdir: 1.0 for r in runs if not r.done}), set())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


def quickstart(folder: Path) -> list[Planned]:
    """Two teachers and their student, in the wrong order."""
    paths = {f"teachers.{t}.path": f"{{workdir}}/../{t}" for t in ("teacher1", "teacher2")}
    student = Planned(folder / "student", "configs/quickstart.py:student", paths)
    return [student, *(Planned(folder / t, f"configs/quickstart.py:{t}") for t in ("teacher2", "teacher1"))]


def finish(run: Planned) -> None:
    run.workdir.mkdir(parents=True)
    (run.workdir / "results.json").write_text("{}")


class TestOrder:
    def test_teachers_first_whatever_order_is_given(self, tmp_path):
        student, second, first = quickstart(tmp_path)
        assert series.in_order([student, second, first, student]) == [first, second, student]
        assert series.in_order([second, student, first]) == [second, first, student]
        assert student.needs == (first.workdir, second.workdir) and first.needs == ()

    def test_blocks_and_generators_of_other_runs_are_needed(self, tmp_path):
        afk = Planned(tmp_path / "seed0" / "budget", "configs/afk/voc2012_part.py:budget")
        assert tmp_path / "seed0" / "student" in afk.needs
        row = Planned(tmp_path / "dgan_table4" / "lambda10", "configs/dual_gan/tables.py:table4,lambda10")
        assert tmp_path / "dgan_table1" / "ours" in row.needs

    def test_one_workdir_for_two_different_runs_is_refused(self, tmp_path):
        first, same = (Planned(tmp_path, "configs/quickstart.py:teacher1", leaves) for leaves in ({}, {"seed": 0}))
        assert series.in_order([first, same]) == [first]
        with pytest.raises(ValueError, match="planned twice, differently"):
            series.in_order([first, Planned(tmp_path, "configs/quickstart.py:teacher1", {"seed": 1})])

    def test_a_circle_is_refused(self, tmp_path):
        runs = [
            Planned(tmp_path / a, "configs/afk/voc2012_part.py:student", {"branch.blocks_from": f"{{workdir}}/../{b}"})
            for a, b in ("xy", "yx")
        ]
        with pytest.raises(ValueError, match="needs itself"):
            series.in_order(runs)


class TestDone:
    def test_results_or_a_teacher_from_elsewhere(self, tmp_path):
        run = Planned(tmp_path, "configs/quickstart.py:teacher1")
        assert not run.done
        (tmp_path / "card.json").write_text("{}")
        assert run.done  # nobody trained it here
        (tmp_path / "config.json").write_text("{}")
        assert not run.done  # a run that was cut off after its card
        (tmp_path / "results.json").write_text("{}")
        assert run.done


class TestPlan:
    def test_smoke_runs_are_estimated_without_tensorflow(self, tmp_path):
        script = (
            "import sys; from pathlib import Path; from amalgam_tf import series\n"
            "runs = [series.Planned(Path('x'), 'configs/quickstart.py:student,smoke')]\n"
            "print(series.plan_text(runs, series.minutes(runs))); print('tensorflow' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.splitlines()[-2:] == ["1 of 1 runs to do, about 1 min of a quiet core", "False"]

    def test_runs_that_differ_in_their_seed_are_planned_once(self, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr(series, "_minutes", lambda run, *_: asked.append(run) or 3.0)
        runs = [Planned(tmp_path / str(s), "configs/quickstart.py:teacher1", {"seed": s}) for s in range(3)]
        longer = Planned(tmp_path / "longer", "configs/quickstart.py:teacher1", {"epochs": 13})
        assert series.minutes([*runs, longer]) == {r.workdir: 3.0 for r in (*runs, longer)}
        assert asked == [runs[0], longer]

    def test_teachers_are_planned_as_they_are_going_to_be(self, tmp_path):
        """With the leaves of their own runs, which the student's config does not know: cut into units here, as its blocks must be."""
        paths = {f"teachers.{t}.path": f"{{workdir}}/../{t}" for t in ("teacher1", "teacher2")}
        few = {"data.train_count": 40, "data.test_count": 10, "data.render_size": 16, "data.cache_dir": ""}
        student = Planned(tmp_path / "s", "configs/quickstart.py:student", {**paths, **few, "granularity": "unit"})
        teachers = [
            Planned(tmp_path / t, f"configs/quickstart.py:{t}", {**few, "model.granularity": "unit"}) for t in ("teacher1", "teacher2")
        ]
        again = [Planned(Path(str(r.workdir) + "_1"), r.config, {**dict(r.leaves), "seed": 1}) for r in teachers]
        found = series.minutes([*teachers, *again, student])
        assert len(found) == 5 and all(m > 0 for m in found.values()) and found[teachers[0].workdir] == found[again[0].workdir]
        with pytest.raises(UserError, match="granularity=unit needs teachers cut into units"):
            series.minutes([student])

    def test_text(self, tmp_path):
        student, second, first = quickstart(tmp_path)
        finish(first)
        said = series.plan_text([first, second, student], {second.workdir: 2.0, student.workdir: 4.5})
        assert said.splitlines()[0].split() == [str(first.workdir), "done"]
        assert (
            "2.0 min,   2.0 so far" in said and "4.5 min,   6.5 so far" in said and "2 of 3 runs to do, about 7 min on this machine" in said
        )
        unknown = series.plan_text([first, second], None)
        assert unknown.splitlines()[1].endswith("to do") and unknown.endswith("1 of 2 runs to do")

    def test_hours(self):
        assert [series.lasts(m) for m in (0.0, 0.2, 119.5, 150)] == ["0 min", "1 min", "120 min", "2.5 h"]


class TestClock:
    def test_says_which_run_and_learns_from_those_before(self, tmp_path):
        runs = [Planned(tmp_path / n, "") for n in "abc"]
        clock = Clock({r.workdir: 2.0 for r in runs})
        assert clock.line(runs[0]) == f"run 1 of 3, about 6 min left: {runs[0].workdir}"
        clock.ended(runs[0], seconds=6 * 60)  # three times as long
        assert clock.line(runs[1]) == f"run 2 of 3, about 12 min left: {runs[1].workdir}"
        clock.ended(runs[1], None)  # left out: says nothing of the speed
        assert clock.line(runs[2]) == f"run 3 of 3, about 6 min left: {runs[2].workdir}"


class TestTrain:
    def test_a_failure_costs_those_that_need_it_and_no_other(self, tmp_path, monkeypatch, capfd):
        student, second, first = quickstart(tmp_path)
        other = Planned(tmp_path / "other", "configs/quickstart.py:teacher1", {"seed": 1})
        monkeypatch.setattr(series, "_in_a_process", lambda command: None if "/teacher2" in " ".join(command) else finish_by(command))
        failed: set[Path] = set()
        series.train([first, second, student, other], Clock(dict.fromkeys((first.workdir, second.workdir), 1.0)), failed)
        assert failed == {second.workdir, student.workdir} and first.done and other.done
        said = capfd.readouterr().out
        assert f"left out: {student.workdir} needs {second.workdir}" in said

    def test_finished_runs_are_not_started(self, tmp_path, monkeypatch):
        started = []
        monkeypatch.setattr(series, "_in_a_process", lambda command: started.append(command) or finish_by(command))
        student, second, first = quickstart(tmp_path)
        finish(first)
        series.train([first, second, student], Clock({}), set())
        assert [next(w for w in c if "--workdir" in w) for c in started] == [f"--workdir={second.workdir}", f"--workdir={student.workdir}"]

    def test_waits_for_a_process_that_is_still_training_the_run(self, tmp_path, monkeypatch, capfd):
        run = quickstart(tmp_path)[1]
        run.workdir.mkdir()
        lock = open(run.workdir / ".lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)

        def let_go():
            (run.workdir / "results.json").write_text("{}")
            lock.close()

        timer = threading.Timer(0.5, let_go)
        monkeypatch.setattr(series, "_in_a_process", lambda command: pytest.fail("was started beside the other process"))
        timer.start()
        series.train([run], Clock({run.workdir: 1.0}), set())
        assert run.done and f"another process is training {run.workdir}: waiting for it" in capfd.readouterr().out


def finish_by(command):
    workdir = Path(next(w for w in command if w.startswith("--workdir=")).partition("=")[2])
    finish(Planned(workdir, ""))


# -- processes --------------------------------------------------------------------------------------------------------
@pytest.fixture
def driver(tmp_path):
    """Starts a process that trains runs a, b and c with the trainer above."""
    (tmp_path / "trainer.py").write_text(TRAINER)
    (tmp_path / "driver.py").write_text(DRIVER)
    started = []

    def start():
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "trainer.py"), str(tmp_path / "runs")]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def steps(workdir):
    return int((workdir / "steps").read_text()) if (workdir / "steps").exists() else 0


def starts(workdir):
    """The steps from which a run was started, in order."""
    return [int(line) for line in (workdir / "starts").read_text().split()]


def test_after_kill_9_of_both_processes_the_same_list_goes_on(driver, tmp_path):
    a, b, c = (tmp_path / "runs" / name for name in "abc")
    first = driver()
    wait_for(lambda: steps(b) >= 3)
    os.kill(first.pid, signal.SIGKILL)
    os.kill(int((b / "pid").read_text()), signal.SIGKILL)
    first.wait()
    assert not (b / "results.json").exists()
    second = driver()
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert starts(a) == [0] and starts(c) == [0] and [steps(x) for x in (a, b, c)] == [10] * 3
    assert len(starts(b)) == 2 and starts(b)[1] >= 3


def test_after_kill_9_of_the_driver_alone_its_run_is_waited_for(driver, tmp_path):
    b, c = (tmp_path / "runs" / name for name in "bc")
    first = driver()
    wait_for(lambda: steps(b) >= 1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = driver()
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert starts(b) == [0] and steps(b) == 10 and starts(c) == [0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reaches_the_child_once_and_waits_for_it(tmp_path, number):
    """The child saves for half a second, and counts how often it is interrupted meanwhile."""
    child = textwrap.dedent(f"""
        import pathlib, signal, sys, time
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        pathlib.Path({str(tmp_path / "ready")!r}).touch()
        while not seen:
            time.sleep(0.01)
        time.sleep(0.5)
        pathlib.Path({str(tmp_path / "saved")!r}).write_text(str(len(seen)))
        sys.exit(130)
    """)
    parent = textwrap.dedent(f"""
        import signal, sys
        from amalgam_tf import series
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
        try:
            series._in_a_process([sys.executable, "-c", {child!r}])
        except KeyboardInterrupt:
            sys.exit(7)
    """)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    # As a terminal's foreground group, to which Ctrl-C goes whole.
    process = subprocess.Popen([sys.executable, "-c", parent], env=env, process_group=0)
    wait_for((tmp_path / "ready").exists)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 7
    assert (tmp_path / "saved").read_text() == "1"


def test_a_run_that_says_it_was_interrupted_ends_the_list(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        series._in_a_process([sys.executable, "-c", "import sys; sys.exit(130)"])
    assert series._in_a_process([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == -9
