"""tools/convert_taskonomy.py: a checkpoint with the task bank's names and shapes becomes a teacher that computes what raw tf.nn computes.

Names, shapes and the forward pass stand here a second time, written from the spec and not from the package.
"""

import json
from pathlib import Path

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf.errors import UserError
from amalgam_tf.models import encoder_decoder
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Teacher
from tests import loading

SIZE = 64
UNITS = {1: 3, 2: 4, 3: 6, 4: 3}
DECODER = (("conv2", 1024), ("conv3", 1024), ("conv4", 512), ("conv5", 256), ("conv6", 256), ("conv7", 128), ("deconv8", 64))
DECODER += (("conv9", 64), ("deconv10", 32), ("conv11", 32), ("deconv12", 16), ("conv13", 32), ("deconv14", 16))


@pytest.fixture(scope="module")
def tool():
    with loading.tool("convert_taskonomy") as module:
        yield module


def refused(message, call, *arguments, **options):
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


def kernels(width: float = 1.0, channels: int = 1) -> dict[str, tuple[int, ...]]:
    """Scope -> shape of its convolution's weights, all with a batch norm behind them but the last."""

    def w(c):
        return round(c * width)

    found = {"encoder/conv1": (7, 7, 3, w(64))}
    read = w(64)
    for block, units in UNITS.items():
        inner, outer = w(32 * 2**block), w(128 * 2**block)
        for unit in range(1, units + 1):
            scope = f"encoder/block{block}/unit_{unit}/bottleneck_v1"
            if unit == 1:
                found[f"{scope}/shortcut"] = (1, 1, read, outer)
            found |= {f"{scope}/conv1": (1, 1, read, inner), f"{scope}/conv2": (3, 3, inner, inner), f"{scope}/conv3": (1, 1, inner, outer)}
            read = outer
    found["compress1"] = (3, 3, read, 8)
    read = 8
    for name, filters in DECODER:
        found[f"decoder/{name}"] = (3, 3, w(filters), read) if name.startswith("deconv") else (3, 3, read, w(filters))
        read = w(filters)
    return {**found, "decoder/decoder_output": (3, 3, read, channels)}


def values(width: float = 1.0, channels: int = 1) -> dict[str, np.ndarray]:
    """Everything inference reads, drawn so that the signal neither dies nor explodes on its way."""
    rng = np.random.default_rng(3)
    made = {}
    for scope, shape in kernels(width, channels).items():
        deconv = "deconv" in scope
        reads = shape[0] * shape[1] * shape[3 if deconv else 2] / (4 if deconv else 1)
        made[f"{scope}/weights"] = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / reads))
        if scope == "decoder/decoder_output":
            made[f"{scope}/weights"] *= np.float32(0.3)
            made[f"{scope}/biases"] = rng.normal(0, 0.2, channels).astype(np.float32)
            continue
        out, norm = shape[2 if deconv else 3], f"{scope}/BatchNorm"
        scale = 0.4 if scope.endswith("conv3") and "block" in scope else 1.0  # what a unit adds to its shortcut
        made[f"{norm}/gamma"] = (rng.uniform(0.7, 1.3, out) * scale).astype(np.float32)
        made[f"{norm}/beta"] = rng.normal(0, 0.1, out).astype(np.float32)
        made[f"{norm}/moving_mean"] = rng.normal(0, 0.2, out).astype(np.float32)
        made[f"{norm}/moving_variance"] = rng.uniform(0.5, 1.5, out).astype(np.float32)
    return made


def training_only(channels: int = 1) -> dict[str, np.ndarray]:
    """What a checkpoint of the task bank holds besides: discriminator, some of Adam's slots, counters."""
    rng = np.random.default_rng(4)
    noise = {
        "discriminator/conv1/weights": (4, 4, 3 + channels, 64),
        "discriminator/conv5/BatchNorm/moving_mean": (512,),
        "encoder/conv1/weights/Adam": (7, 7, 3, 64),
        "encoder/conv1/weights/Adam_1": (7, 7, 3, 64),
        "decoder/decoder_output/biases/Adam": (channels,),
        "beta1_power": (),
    }
    return {**{n: np.asarray(rng.normal(9, 1, s), np.float32) for n, s in noise.items()}, "global_step": np.asarray(90_000, np.int64)}


def write(prefix: Path, variables: dict[str, np.ndarray]) -> None:
    """A checkpoint as tf.compat.v1.train.Saver writes it."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=[*variables], shape_and_slices=[""] * len(variables), tensors=[*variables.values()])


def raw(v: dict[str, np.ndarray], x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(code, map) of images in -1..1: the task bank's inference in bare tf.nn."""

    def norm(y, scope):
        parts = [v[f"{scope}/BatchNorm/{p}"] for p in ("moving_mean", "moving_variance", "beta", "gamma")]
        return tf.nn.batch_normalization(y, *parts, 1e-5)

    def conv(y, scope, stride=1):
        kernel = v[f"{scope}/weights"]
        if stride == 1:
            return norm(tf.nn.conv2d(y, kernel, 1, "SAME"), scope)
        before = (kernel.shape[0] - 1) // 2
        y = tf.pad(y, [(0, 0), (before, kernel.shape[0] - 1 - before), (before, kernel.shape[0] - 1 - before), (0, 0)])
        return norm(tf.nn.conv2d(y, kernel, stride, "VALID"), scope)

    x = tf.nn.max_pool2d(tf.nn.relu(conv(x, "encoder/conv1", 2)), 3, 2, "SAME")
    for block, units in UNITS.items():
        for unit in range(1, units + 1):
            scope = f"encoder/block{block}/unit_{unit}/bottleneck_v1"
            stride = 2 if block in (1, 2) and unit == units else 1
            shortcut = conv(x, f"{scope}/shortcut") if unit == 1 else x[:, ::stride, ::stride]
            y = tf.nn.relu(conv(x, f"{scope}/conv1"))
            y = tf.nn.relu(conv(y, f"{scope}/conv2", stride))
            x = tf.nn.relu(shortcut + conv(y, f"{scope}/conv3"))
    code = x = tf.nn.relu(conv(x, "compress1"))
    for name, _ in DECODER:
        scope = f"decoder/{name}"
        if name.startswith("deconv"):
            kernel = v[f"{scope}/weights"]
            n, h, w, _ = x.shape
            y = norm(tf.nn.conv2d_transpose(x, kernel, [n, 2 * h, 2 * w, kernel.shape[2]], 2, "SAME"), scope)
        else:
            y = conv(x, scope)
        x = tf.maximum(y, 0.2 * y)
    scope = "decoder/decoder_output"
    return code, tf.tanh(tf.nn.conv2d(x, v[f"{scope}/weights"], 1, "SAME") + v[f"{scope}/biases"])


@pytest.fixture(scope="module")
def converted(tool, tmp_path_factory):
    """(folder of the teacher, values, what the tool said), at full width."""
    folder, v = tmp_path_factory.mktemp("taskonomy"), values()
    write(folder / "rgb2depth" / "model.permanent-ckpt", {**v, **training_only()})
    said = tool.make(folder / "rgb2depth", folder / "depth", task="rgb2depth", input_size=SIZE)
    return folder / "depth", v, said


class TestConverted:
    def test_computes_what_raw_operations_compute(self, converted):
        folder, v, _ = converted
        teacher = Teacher.load(folder)
        pixels = np.random.default_rng(5).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)
        code, expected = raw(v, tf.constant(pixels / 127.5 - 1))
        assert 0.1 < np.std(expected) < 0.9 and np.std(code) > 0.1  # neither dead nor saturated
        ours = teacher.outputs(tf.constant(pixels))["depth_zbuffer"]
        assert ours.shape == (2, SIZE, SIZE, 1) and ours.dtype == tf.float32
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
        ours = teacher.net.run(teacher.preprocessing(pixels), stop="code")
        np.testing.assert_allclose(ours, code, rtol=0, atol=1e-4 * float(np.max(code)))

    def test_counts_of_the_spec(self, converted):
        _, v, _ = converted
        assert len(v) == 337
        assert sum(x.size for x in v.values()) == 40_168_561

    def test_card(self, converted):
        folder, _, said = converted
        card = json.loads((folder / "card.json").read_text())
        backbone = {"backbone": "task_bank", "input_size": SIZE, "width": 1.0, "output_stride": 16, "granularity": "stage"}
        assert card["backbone"] == backbone
        assert (card["name"], card["blocks"]) == ("depth", ["b1", "b2", "b3", "b4", "code", "decoder"])
        task = Task("depth_zbuffer", kind="dense", head="dense", labels=("depth",), codec="depth_zbuffer")
        assert [Task.from_json(t) for t in card["tasks"]] == [task]
        assert card["preprocessing"] == {"size": SIZE, "order": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3}
        assert "Taskonomy" in card["licence"] and "Taskonomy" in card["data"] and "rgb2depth/model.permanent-ckpt" in card["source"]
        assert "337 variables, 40,168,561 numbers; 7 more" in said
        assert "block b3: writes 4 x 4 x 1024, 7,118,848 parameters" in said


WIDTH = 1 / 16


@pytest.fixture(scope="module")
def small() -> dict[str, np.ndarray]:
    return values(WIDTH, channels=3)


@pytest.fixture(scope="module")
def narrow():
    return encoder_decoder.task_bank(input_size=32, width=WIDTH, channels=3)


class TestFill:
    def test_every_variable_by_its_name(self, tool, narrow, small, tmp_path):
        assert {n: tuple(v.shape) for n, v in tool.named(narrow)} == {n: v.shape for n, v in small.items()}
        write(tmp_path / "m", {**small, "global_step": np.asarray(7, np.int64)})
        assert tool.fill(narrow, str(tmp_path / "m")) == ["global_step"]
        assert all(np.array_equal(v, small[n]) for n, v in tool.named(narrow))

    def test_missing(self, tool, narrow, small, tmp_path):
        write(tmp_path / "m", {n: v for n, v in small.items() if n != "compress1/BatchNorm/beta"})
        refused("m holds no variable compress1/BatchNorm/beta: give", tool.fill, narrow, str(tmp_path / "m"))

    def test_other_shape_or_kind(self, tool, narrow, small, tmp_path):
        before = [v.numpy() for v in narrow.variables()]
        write(tmp_path / "m", {**small, "decoder/decoder_output/biases": np.zeros(1, np.float32)})
        text = r"variable decoder/decoder_output/biases of checkpoint .*m is float32 \[1\], not float32 \[3\]: .* --task"
        refused(text, tool.fill, narrow, str(tmp_path / "m"))
        write(tmp_path / "m", {**small, "decoder/decoder_output/biases": np.zeros(3, np.float64)})
        refused(r"is float64 \[3\], not float32 \[3\]", tool.fill, narrow, str(tmp_path / "m"))
        assert all(np.array_equal(a, b) for a, b in zip(before, narrow.variables(), strict=True))

    def test_not_finite(self, tool, narrow, small, tmp_path):
        write(tmp_path / "m", {**small, "encoder/conv1/BatchNorm/gamma": np.asarray([1, 1, np.nan, 1], np.float32)})
        refused("variable encoder/conv1/BatchNorm/gamma of .* is not finite", tool.fill, narrow, str(tmp_path / "m"))

    @pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
    @pytest.mark.parametrize("damage", ["cut", "changed"])
    def test_damaged(self, tool, narrow, small, tmp_path, part, damage):
        write(tmp_path / "m", small)
        file = tmp_path / f"m.{part}"
        data = file.read_bytes()
        half = len(data) // 2
        file.write_bytes(data[:half] if damage == "cut" else data[:half] + bytes([data[half] ^ 0xFF]) + data[half + 1 :])
        refused("could not be read .*: download its files again|not finite", tool.fill, narrow, str(tmp_path / "m"))


class TestPrefix:
    def test_folder_prefix_or_file(self, tool, tmp_path):
        write(tmp_path / "model.permanent-ckpt", {"x": np.zeros(1, np.float32)})
        expected = str(tmp_path / "model.permanent-ckpt")
        for given in ("", "model.permanent-ckpt", "model.permanent-ckpt.index", "model.permanent-ckpt.data-00000-of-00001"):
            assert tool.prefix(tmp_path / given) == expected

    def test_none_or_several(self, tool, tmp_path):
        refused("holds no checkpoint", tool.prefix, tmp_path)
        refused("there is no checkpoint .*x .a file x.index.: correct --checkpoint", tool.prefix, tmp_path / "x")
        for name in ("a", "b"):
            write(tmp_path / name, {"x": np.zeros(1, np.float32)})
        refused(r"holds several checkpoints \(a, b\): name one", tool.prefix, tmp_path)


class TestFlags:
    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ([], "--checkpoint is not set: name the folder"),
            (["--checkpoint=x", "--task=rgb2depht", "--output=y"], "unknown --task 'rgb2depht': did you mean 'rgb2depth'"),
            (["--checkpoint=x", "--task=normal", "--output=y"], "there is no checkpoint x"),
        ],
    )
    def test_one_sentence_and_exit_code_2(self, tool, capsys, tmp_path, monkeypatch, given, text):
        monkeypatch.chdir(tmp_path)
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as caught:
            tool.main(flags.FLAGS(["convert_taskonomy.py", *given]))
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {text}") and error.count("\n") == 1
        assert not any(tmp_path.iterdir())

    def test_output_must_be_empty_and_size_fit(self, tool, tmp_path):
        write(tmp_path / "m", {"x": np.zeros(1, np.float32)})
        refused("exists and is not an empty folder", tool.make, tmp_path / "m", tmp_path, task="normal")
        refused("input_size=250 is not a multiple", tool.make, tmp_path / "m", tmp_path / "t", task="normal", input_size=250)

    def test_aliases_mean_codecs_and_every_task_has_its_channels(self, tool):
        assert set(tool.ALIASES.values()) == set(tool.codecs.CODECS)
        channels = {n: len(tool.codecs.get(tool.ALIASES[n]).channels) for n in ("rgb2depth", "rgb2sfnorm", "curvature", "reshade")}
        assert channels == {"rgb2depth": 1, "rgb2sfnorm": 3, "curvature": 2, "reshade": 1}
