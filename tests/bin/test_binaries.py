"""The binaries as a user meets them: help without TensorFlow, one sentence for every mistake, exit codes."""

import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = Path(__file__).parents[2]
BINARIES = ("train", "evaluate", "export", "compare", "reproduce")


def call(binary, *flags):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "importtime", "-m", f"amalgam_tf.bin.{binary}", *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return done.returncode, done.stdout, "\n".join(errors), any(line.endswith(" tensorflow") for line in done.stderr.splitlines())


@pytest.mark.parametrize("binary", BINARIES)
def test_help_answers_without_tensorflow(binary):
    code, out, _, imported = call(binary, "--help")
    assert code in (0, 1) and "python -m amalgam_tf.bin." in out and not imported  # absl exits 1 after --help


@pytest.mark.parametrize("binary", BINARIES)
def test_console_scripts_help_like_their_modules(binary):
    """As pyproject.toml names them: the function that an installed `amalgam-*` calls."""
    assert f'amalgam-{binary} = "amalgam_tf.bin.app:{binary}"' in (ROOT / "pyproject.toml").read_text()
    script = f"import sys; sys.argv = ['amalgam-{binary}', '--help']; from amalgam_tf.bin import app; app.{binary}()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "python -m amalgam_tf.bin." in done.stdout and any(flag in done.stdout for flag in ("--workdir", "--model", "--runs"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=configs/quickstart.py", "--config.finetune.epoch=2"], "epochs"),  # a hint at the key that exists
        (["--config=configs/quickstart.py", "--config.seed=many"], "seed"),
        (["--config=configs/quickstart.py:nonsense"], "does not know the argument nonsense"),
        (["--config=configs/no_such.py"], "no_such.py"),
        (["--config=configs/quickstart.py", "more"], "unexpected argument 'more'"),
        (["--config=configs/quickstart.py", "--strategi=one"], "strategi"),
        ([], "--config"),
    ],
)
def test_mistakes_in_flags_die_at_once_in_one_message(tmp_path, flags, message):
    code, out, errors, imported = call("train", f"--workdir={tmp_path / 'run'}", *flags)
    assert code in (1, 2) and not imported
    assert message in errors + out and "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_mistakes_found_later_are_one_sentence_and_exit_2(tmp_path):
    flags = ["--config=configs/teachers/voc2012_part.py:teacher1", f"--workdir={tmp_path / 'run'}"]
    code, _, errors, _ = call("train", *flags)
    assert code == 2 and errors.startswith("error: data.root is not set") and len(errors.splitlines()) == 1
    code, _, errors, _ = call("train", *flags, "--debug")
    assert "Traceback" in errors


def test_missing_model_is_one_sentence(tmp_path):
    code, _, errors, _ = call("export", f"--model={tmp_path}")
    assert code == 2 and "holds no card.json" in errors and len(errors.splitlines()) == 1


def interrupted(workdir, *, after_rows):
    """Presses Ctrl-C in a training that has written so many rows of measurements: exit code, stdout, stderr."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    flags = ["--config=configs/quickstart.py:teacher1,smoke", f"--workdir={workdir}", "--config.epochs=400", "--config.log_every_steps=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "amalgam_tf.bin.train", *flags], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and rows(workdir) <= after_rows:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60), process.returncode


def rows(workdir):
    metrics = workdir / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def test_ctrl_c_saves_exits_130_and_the_same_command_goes_on(tmp_path):
    (_, errors), code = interrupted(tmp_path, after_rows=3)
    assert code == 130
    assert errors.startswith("interrupted: stopped at step") and len(errors.splitlines()) == 1
    step = int(re.search(r"stopped at step (\d+) of train", errors)[1])
    (saved,) = (tmp_path / "checkpoints").glob("*.npz")
    assert saved.name == f"{step:09d}-000.npz"
    (out, _), code = interrupted(tmp_path, after_rows=rows(tmp_path) + 3)
    assert code == 130 and f"at step {step} (train {step})" in out
    measured = [json.loads(line)["total"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert measured == sorted(measured) and measured[-1] >= step + 3
    assert set(range(measured[-1] + 1)) == set(measured)  # 0: the held-out loss before the first step


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ("bytearray(2**62)", 2, "error: memory ran out: lower batch_size (which needs a new --workdir), or free memory and run"),
        ("open('/dev/full', 'w', buffering=1).write('x\\n')", 2, "error: a file cannot be written (No space left on device): free space"),
        ("open('no_such_file')", 1, "FileNotFoundError: [Errno 2] No such file or directory: 'no_such_file'"),  # a bug: its traceback
    ],
)
def test_failures_of_the_machine_are_one_sentence(tmp_path, fault, code, sentence):
    script = f"from amalgam_tf.bin import app; app.launch(lambda: {fault})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].startswith(sentence) and ("Traceback" in done.stderr) == (code == 1)
