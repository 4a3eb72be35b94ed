"""ResNets: names, cuts, published sizes, ready weights."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import models
from amalgam_tf.data.transforms import Preprocessing, decode, resize
from amalgam_tf.errors import UserError
from amalgam_tf.models import resnet
from amalgam_tf.models.blocks import multiply_adds, parameters
from amalgam_tf.models.taps import TappedNet

WEIGHTS = "resnet50_imagenet_tf_dim_ordering_tf_kernels_notop_fp16.h5"


def refused(message, call, *arguments, **options):
    with pytest.raises(UserError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def resnet50() -> keras.Model:
    return resnet.trunk("resnet50", input_size=32)


class TestCuts:
    def test_resnet50_units(self, resnet50):
        names = list(resnet.cuts(resnet50, "unit"))
        assert names == [f"b{s}_{u}" for s, n in ((1, 3), (2, 4), (3, 6), (4, 3)) for u in range(1, n + 1)]
        assert len(names) == 16
        # AFK shares the first 13 blocks with "up to b4_1": the last one before stage 4 is number 12 from zero.
        assert (names.index("b3_6"), names[13]) == (12, "b4_1")

    def test_resnet50_stages_end_where_their_last_unit_ends(self, resnet50):
        units, stages = resnet.cuts(resnet50, "unit"), resnet.cuts(resnet50, "stage")
        assert list(stages) == ["b1", "b2", "b3", "b4"]
        assert list(stages.values()) == [units[u] for u in ("b1_3", "b2_4", "b3_6", "b4_3")]

    def test_unknown_granularity(self, resnet50):
        refused("granularity must be unit or stage, not 'layer'", resnet.cuts, resnet50, "layer")

    @pytest.mark.parametrize(("name", "units"), [("resnet18", [2, 2, 2, 2]), ("resnet8", [1, 1, 1]), ("resnet20", [3, 3, 3])])
    def test_units_of_the_small_ones(self, name, units):
        expected = [f"b{s}_{u}" for s, n in enumerate(units, 1) for u in range(1, n + 1)]
        net = models.classifier(name, input_size=32, outputs=5, granularity="unit", width=0.25)
        assert net.names == (*expected, "head")
        assert net.shapes["head"] == (5,)

    def test_strides(self):
        shapes = models.classifier("resnet18", input_size=64, outputs=1, granularity="stage", width=1 / 8).shapes
        assert list(shapes.values()) == [(16, 16, 8), (8, 8, 16), (4, 4, 32), (2, 2, 64), (1,)]
        shapes = models.classifier("resnet8", input_size=16, outputs=1, granularity="stage").shapes
        assert list(shapes.values()) == [(16, 16, 16), (8, 8, 32), (4, 4, 64), (1,)]


class TestSizes:
    # CUST's widths (spec 7.1): channels of the first stage -> trained scalars (M) and 2 x multiply-adds at 224 (G). Heads of 2 logits:
    # 1 in a source net, 4 in a target net. The paper prints "11.18 M" and "22.1 M / 7.0 G": both at once only width 90 gives.
    @pytest.mark.parametrize(
        ("channels", "outputs", "millions", "giga"),
        [
            (64, 2, 11.178, 3.627),
            (64, 8, 11.181, 3.627),
            (72, 8, 14.147, 4.557),
            (89, 8, 21.609, 6.886),
            (90, 8, 22.097, 7.038),
            (91, 8, 22.590, 7.191),
        ],
    )
    def test_resnet18_of_cust(self, channels, outputs, millions, giga):
        net = models.classifier("resnet18", input_size=224, outputs=outputs, granularity="stage", width=channels / 64)
        taps = [shape[-1] for shape in TappedNet(net).shapes.values()]
        assert taps == [channels, channels, 2 * channels, 4 * channels, 8 * channels]  # 90: 90, 90, 180, 360, 720
        assert round(parameters(net.weights()) / 1e6, 3) == millions
        assert round(2 * sum(multiply_adds(net.block(n)) for n in net.names) / 1e9, 3) == giga

    def test_resnet18_by_hand(self):
        """The scalars of width w with 2 logits: convolutions without bias, two scalars a channel of batch norm."""
        for w in (4, 10):
            stem, first = 7 * 7 * 3 * w + 2 * w, 4 * (9 * w * w + 2 * w)
            later = sum(9 * c * c // 2 + 3 * 9 * c * c + c * c // 2 + 5 * 2 * c for c in (2 * w, 4 * w, 8 * w))
            net = models.classifier("resnet18", input_size=32, outputs=2, granularity="stage", width=w / 64)
            assert parameters(net.weights()) == stem + first + later + 8 * w * 2 + 2

    def test_resnet18_with_1000_classes_is_the_known_one(self):
        net = models.classifier("resnet18", input_size=64, outputs=1000, granularity="stage")
        assert parameters(net.weights()) == 11_689_512  # torchvision's
        assert parameters(net.statistics()) == 9_600

    def test_resnet20_of_he(self):
        net = models.classifier("resnet20", input_size=32, outputs=10, granularity="stage")
        assert round(parameters(net.weights()) / 1e6, 2) == 0.27  # He et al., table 6

    def test_resnet50_is_that_of_keras(self, resnet50):
        theirs = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
        assert resnet50.count_params() == theirs.count_params() == 23_587_712
        assert [v.shape for v in resnet50.variables] == [v.shape for v in theirs.variables]

    def test_resnet101_is_that_of_keras(self):
        ours = resnet.trunk("resnet101", input_size=32)
        assert ours.count_params() == 42_658_176  # keras.applications.ResNet101(include_top=False)
        assert len(resnet.cuts(ours, "unit")) == 33

    def test_resnet152_is_the_deep_one_and_no_cifar_net(self, monkeypatch):  # 152 = 6 x 25 + 2 looks like one
        monkeypatch.setattr(keras.applications, "ResNet152", lambda **options: options["name"])
        assert resnet.trunk("resnet152", input_size=32) == "resnet152"

    def test_a_narrow_resnet50(self):
        net = models.classifier("resnet50", input_size=32, outputs=4, granularity="stage", width=0.25)
        assert [s[-1] for s in net.shapes.values()] == [64, 128, 256, 512, 4]


class TestErrors:
    @pytest.mark.parametrize("name", ["resnet", "resnet2", "resnet9", "resnet34", "vgg16", "resnet50v2"])
    def test_unknown_name(self, name):
        refused("unknown backbone", models.classifier, name, input_size=32, outputs=2, granularity="stage")

    def test_weights_that_do_not_exist(self):
        refused("there are no ready weights for resnet18", resnet.trunk, "resnet18", input_size=64, weights="imagenet")

    def test_width_with_weights(self):
        refused("fit resnet50 only at width 1, not 0.5", resnet.trunk, "resnet50", input_size=32, width=0.5, weights="imagenet")

    def test_too_small_an_input(self):
        refused("at least 32 pixels, not 16", resnet.trunk, "resnet50", input_size=16)

    def test_weights_file_that_is_not_there(self):
        refused("nowhere.h5 could not be loaded as weights of resnet50", resnet.trunk, "resnet50", input_size=32, weights="nowhere.h5")

    def test_weights_file_that_is_something_else(self, tmp_path):
        (tmp_path / "x.h5").write_bytes(b"not a weights file")
        refused("x.h5 could not be loaded as weights of resnet50", resnet.trunk, "resnet50", input_size=32, weights=str(tmp_path / "x.h5"))

    @pytest.mark.filterwarnings("ignore:Skipping nested container")
    def test_weights_file_of_another_network(self, tmp_path):
        file = tmp_path / "x.weights.h5"
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(file)
        refused("could not be loaded as weights of resnet50", resnet.trunk, "resnet50", input_size=32, weights=str(file))

    def test_failed_download_says_what_to_do(self, monkeypatch):
        def offline(**options):
            assert options["weights"] == "imagenet"
            raise Exception("URL fetch failure on https://example.org/x.h5: None -- [Errno -3] Temporary failure\nmore lines")

        monkeypatch.setattr(keras.applications, "ResNet50", offline)
        message = "could not be downloaded .URL fetch failure.* pass its path instead"
        refused(message, resnet.trunk, "resnet50", input_size=32, weights="imagenet")


def test_synchronized_keeps_the_weights(monkeypatch):
    made = resnet.trunk("resnet8", input_size=16)
    monkeypatch.setattr(resnet, "trunk", lambda *a, **k: made)  # weights that are known
    net = resnet.classifier("resnet8", input_size=16, outputs=2, granularity="stage", synchronized=True)
    norms = [x for n in net.names for x in net.block(n).layers if isinstance(x, keras.layers.BatchNormalization)]
    assert norms
    assert all(n.synchronized for n in norms)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    assert np.array_equal(net.run(x, stop="b3"), made(x))


def test_ready_weights_recognise_photographs(real_data):
    net = models.classifier("resnet50", input_size=224, outputs=1000, granularity="stage", weights=str(real_data / "weights" / WEIGHTS))
    top = np.load(real_data / "weights" / "resnet50_imagenet_fc1000_fp16.npz")
    net.block("head").set_weights([top["kernel"].astype(np.float32), top["bias"].astype(np.float32)])
    index = json.loads((real_data / "weights" / "imagenet_class_index.json").read_text())
    number = {wnid: int(i) for i, (wnid, _) in index.items()}
    files = sorted((real_data / "imagenet_sample").glob("*.JPEG"))[::5]
    assert len(files) == 40
    truth = np.array([number[f.name.split("_")[0]] for f in files])
    run = tf.function(net.run)

    def right(pixels):
        return (run(Preprocessing.named("caffe", 224)(tf.stack(pixels))).numpy().argmax(1) == truth).mean()

    contents = [tf.io.read_file(str(f)) for f in files]
    # Measured on all 200: 88 % with the usual centre crop; 79 % when the whole picture is squeezed into the square, as
    # `decode` does because in a multi-label picture nothing may be cut off.
    assert right([resize(centre(tf.io.decode_jpeg(c, channels=3)), 224) for c in contents]) >= 0.85
    assert right([decode(c, 224) for c in contents]) >= 0.75


def centre(image: tf.Tensor) -> tf.Tensor:
    side = min(image.shape[:2])
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]
