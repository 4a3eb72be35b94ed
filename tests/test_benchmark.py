"""tools/benchmark.py: Dual-GAN's section at a small size, its pieces against the step's own parts, and what is written."""

import json

import pytest
import tensorflow as tf

from amalgam_tf import generation
from tests import loading


@pytest.fixture(scope="module")
def benchmark():
    with loading.tool("benchmark") as module:
        module.flags.FLAGS(["benchmark", "--size=16", "--repeats=1", "--only=generator"])
        module.SMALL, module.BATCH, module.DRAWN = "resnet8", 8, 8
        yield module


def test_pieces_are_those_of_the_step(benchmark):
    """Every group's output is differentiated; each teacher reads each group where the step lets it: blocks B-j+1..B of B = 3."""
    setting = benchmark.generator_setting(0)
    net = generation.make_generator(setting.config, setting.teachers, 0)
    pieces = benchmark.generator_pieces(setting, net)
    assert set(pieces) == {"generator", *(f"t{i} behind g{j}" for i in (0, 1) for j in (1, 2, 3))}
    assert pieces["generator"]().shape == tuple(net.weights()[0].shape)
    for j, name in enumerate(reversed(net.names)):
        x = tf.zeros((8, *net.shapes[name]))
        assert pieces[f"t0 behind {name}"]().shape == x.shape
        assert setting.frozen[0].net.run(x, start=j).shape == (8, benchmark.TASKS)  # as deep as it fits


def test_the_section_joins_what_was_measured_before(benchmark, tmp_path, monkeypatch, capsys):
    (tmp_path / "b.json").write_text(json.dumps({"scenes": [{"renderer": "64 px", "images / s": 1.0}]}))
    monkeypatch.setattr(benchmark.flags.FLAGS, "output", str(tmp_path / "b"))
    benchmark.main(None)
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["scenes"][0]["images / s"] == 1.0 and [r["generator"] for r in found["generator"]] == ["3 groups", "1 group (DAFL's)"]
    for row in found["generator"]:
        assert all(v > 0 for v in row.values() if isinstance(v, float)) and len(row) == 6
    written = (tmp_path / "b.md").read_text()
    assert "| 3 groups |" in written and "| 3 groups |" in capsys.readouterr().out
