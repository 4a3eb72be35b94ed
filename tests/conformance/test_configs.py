"""Every config: documented, loadable, existing published row, known tasks, and a smoke run of each method."""

import json
import os
from pathlib import Path
import subprocess
import sys

import pytest

from amalgam_tf import published
from amalgam_tf.methods import METHODS, load_config

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.py") if p.name not in ("common.py", "__init__.py"))


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", CONFIGS)
def test_docstring_says_command_data_time_and_published_row(path):
    text = (ROOT / path).read_text().split('"""')[1]
    for part in ("Command: ", "Data: ", "Hardware and expected time: ", "Published row: ", "Expected: "):
        assert f"\n{part}" in text, f"{path} lacks {part!r}"
    assert path in text


@pytest.mark.parametrize("path", CONFIGS)
def test_loads_plain_and_as_smoke(path):
    for config in (load_config(path), load_config(f"{path}:smoke")):
        assert config.method in METHODS
        json.dumps(config.to_dict())
        if config.published_row:
            published.row(config.published_row)
    assert config.data.reader == "scenes"  # the smoke run needs no download


def train(config, workdir):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "amalgam_tf.bin.train", f"--config={config}", f"--workdir={workdir}"],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("path", CONFIGS)
def test_smoke_run(path, tmp_path):
    done = train(f"{path}:smoke", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["tasks"] and results["test"]["images"] > 0 and results["seconds"] > 0
    figures = () if results["method"] == "teacher" else ("figures/per_task.png", "figures/block_losses.png")
    for name in ("config.json", "train.log", "metrics.jsonl", "decisions.json", "report.md", *figures):
        assert (tmp_path / name).stat().st_size > 0, name
    assert list((tmp_path / "tb").iterdir()) and list((tmp_path / "checkpoints").iterdir())
    assert str(results["seed"]) in (tmp_path / "report.md").read_text()
