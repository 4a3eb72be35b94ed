"""kill -9 in a phase, between phases, in the middle of a save: tools/kill_test.py in short, and that it can say DIFFERENT."""

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

from amalgam_tf.errors import UserError
from tests import loading

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "kill_test.py"


@pytest.fixture(scope="module")
def kill_test():
    with loading.tool("kill_test") as module:
        yield module


@pytest.mark.slow
def test_killed_again_and_again_ends_bit_identical(tmp_path):
    """Seed 0 draws, in this order: behind the first block, inside the second, half of a file of scores on disk."""
    flags = [f"--workdir={tmp_path}", "--kills=3", "--seed=0", f"--log={tmp_path / 'log'}", "--config=configs/quickstart.py:student,smoke"]
    done = subprocess.run(
        [sys.executable, TOOL, *flags, "--config.save_every_steps=1", "--config.block.epochs=0.8", "--strategy=one"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1500:]
    lines = done.stdout.splitlines()
    kills = [line for line in lines if re.match(r"kill +\d+: ", line)]
    assert len(kills) == 3 and all(word in " ".join(kills) for word in ("between phases", "ms into step", "saving"))
    resumed = [int(re.search(r"had gone on at step (\d+)", line)[1]) for line in lines if "had gone on" in line]
    assert resumed == sorted(resumed) and resumed[-1] > 0  # every start goes on from where the last one was
    assert lines[-1] == "identical" and not any(line.startswith("left behind") for line in lines)
    assert (tmp_path / "log").read_text() == done.stdout


def events(phases=4, steps=50):
    """Of a run whose phases each save every ten steps and end with a decision."""
    found, total = [], 0
    for p in range(phases):
        for step in range(steps):
            found.append({"kind": "step", "key": total + 1, "phase": f"p{p}", "step": step, "total": total, "time": total * 0.1})
            total += 1
            if total % 10 == 0:
                found.append({"kind": "save", "key": f"{total:09d}-{p:03d}", "phase": f"p{p}", "step": step + 1, "total": total})
        for kind, key in (("phase", f"p{p}"), ("decide", f"d{p}")):
            found.append({"kind": kind, "key": key, "phase": "", "step": 0, "total": total})
    return found


class TestPlan:
    @pytest.mark.parametrize("seed", range(5))
    def test_moments_of_every_kind_in_the_order_in_which_they_come(self, kill_test, seed):
        planned = kill_test.plan(events(), 10, seed)
        kinds = [moment.partition(":")[0] for _, moment in planned]
        assert {k: kinds.count(k) for k in kinds} == {"clock": 4, "save": 2, "phase": 2, "decide": 2}
        places = [events().index(event) for event, _ in planned]
        assert places == sorted(set(places))
        assert all(0 <= float(m.rpartition(":")[2]) <= 0.1 for _, m in planned if m.startswith("clock"))
        # A kill by the clock comes up to two steps late: what comes next must not be missed.
        for (a, moment), (b, _) in zip(planned, planned[1:], strict=False):
            assert not moment.startswith("clock") or b["total"] >= a["total"] + 3

    def test_a_seed_is_a_plan(self, kill_test):
        assert kill_test.plan(events(), 5, 1) == kill_test.plan(events(), 5, 1) != kill_test.plan(events(), 5, 2)

    def test_too_short_a_run(self, kill_test):
        with pytest.raises(UserError, match=r"too short for 10 kills \(4 steps\): lower --kills"):
            kill_test.plan(events(phases=2, steps=2), 10, 0)


def test_one_other_digest_is_different(kill_test):
    whole = {"state": "a", "network": "b"}
    assert kill_test.verdict(whole, dict(whole)) == (
        ["state      whole   a", "state      killed  a"] + ["network    whole   b", "network    killed  b", "identical"],
        True,
    )
    lines, alike = kill_test.verdict(whole, {**whole, "network": "c"})
    assert lines[-1] == "DIFFERENT: network" and not alike
