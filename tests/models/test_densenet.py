"""DenseNets: names, cuts, published sizes, ready weights."""

import keras
import numpy as np
import pytest

from amalgam_tf import models
from amalgam_tf.errors import UserError
from amalgam_tf.models import densenet
from amalgam_tf.models.applications import MOMENTUM
from amalgam_tf.models.blocks import BlockNet, parameters

UNITS = {"densenet121": (6, 12, 24, 16), "densenet169": (6, 12, 32, 32), "densenet201": (6, 12, 48, 32)}  # Huang et al., table 1


@pytest.fixture(scope="module")
def densenet121() -> keras.Model:
    """With lively numbers everywhere: a fresh network's batch norms hide a missing one."""
    keras.utils.set_random_seed(0)
    model = densenet.trunk("densenet121", input_size=32)
    for v in model.variables:
        if "bn" in v.path:
            v.assign(keras.random.uniform(v.shape, 0.5, 1.5))
    return model


def images(size=32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)


class TestCuts:
    @pytest.mark.parametrize("name", UNITS)
    def test_units(self, name, densenet121):
        made = densenet121 if name == "densenet121" else densenet.trunk(name, input_size=32)
        names = list(densenet.cuts(made, "unit"))
        assert names == [f"b{s}_{u}" for s, n in enumerate(UNITS[name], 1) for u in range(1, n + 1)]

    def test_stages_end_with_their_transition(self, densenet121):
        units, stages = densenet.cuts(densenet121, "unit"), densenet.cuts(densenet121, "stage")
        assert stages == {"b1": "pool2_pool", "b2": "pool3_pool", "b3": "pool4_pool", "b4": "relu"}  # A9: B = 4
        assert len(units) == 58
        assert [units[u] for u in ("b1_6", "b2_12", "b3_24", "b4_16")] == list(stages.values())
        assert (units["b1_1"], units["b1_5"], units["b4_15"]) == ("conv2_block1_concat", "conv2_block5_concat", "conv5_block15_concat")

    def test_unknown_granularity(self, densenet121):
        with pytest.raises(UserError, match="granularity must be unit or stage, not 'layer'"):
            densenet.cuts(densenet121, "layer")

    @pytest.mark.parametrize("granularity", ["stage", "unit"])
    @pytest.mark.parametrize("training", [False, True])
    def test_blocks_composed_equal_the_whole_bit_for_bit(self, densenet121, granularity, training):
        cuts = densenet.cuts(densenet121, granularity)
        *ends, last = cuts.values()
        net, x, before = BlockNet.cut(densenet121, ends, list(cuts)), images(), densenet121.get_weights()
        assert last == "relu" == densenet121.layers[-1].name
        whole = np.array(densenet121(x, training=training))
        moved = densenet121.get_weights()
        densenet121.set_weights(before)
        assert np.array_equal(net.run(x, training=training), whole)
        assert all(np.array_equal(a, b) for a, b in zip(densenet121.get_weights(), moved, strict=True))
        assert {id(v) for v in net.variables()} == {id(v) for v in densenet121.variables}
        densenet121.set_weights(before)


class TestSizes:
    def test_densenet121_is_that_of_keras(self, densenet121):
        theirs = keras.applications.DenseNet121(include_top=False, weights=None, input_shape=(32, 32, 3))
        assert densenet121.count_params() == theirs.count_params() == 7_037_504
        assert [v.shape for v in densenet121.variables] == [v.shape for v in theirs.variables]

    def test_shapes_at_224(self):
        """Huang et al., table 1: after the transitions 28, 14 and 7 pixels, half of the channels."""
        net = models.classifier("densenet121", input_size=224, outputs=1000, granularity="stage")
        assert list(net.shapes.values()) == [(28, 28, 128), (14, 14, 256), (7, 7, 512), (7, 7, 1024), (1000,)]
        assert parameters(net.weights()) == 7_978_856  # torchvision's densenet121

    def test_units_grow_by_32_channels(self):
        shapes = models.classifier("densenet121", input_size=64, outputs=2, granularity="unit").shapes
        assert [shapes[f"b1_{i}"] for i in range(1, 7)] == [(16, 16, 64 + 32 * i) for i in range(1, 6)] + [(8, 8, 128)]
        assert [shapes[f"b4_{i}"][-1] for i in (1, 15, 16)] == [512 + 32, 512 + 15 * 32, 1024]

    def test_a_narrow_one(self):
        """All channels follow: stem and growth rate by the width, transitions halve, bottlenecks are four times the growth rate."""
        net = models.classifier("densenet121", input_size=32, outputs=4, granularity="stage", width=0.25)
        assert [s[-1] for s in net.shapes.values()] == [32, 64, 128, 256, 4]
        first = net.block("b1")
        assert [first.get_layer(n).filters for n in ("conv1_conv", "conv2_block1_1_conv", "conv2_block1_2_conv")] == [16, 32, 8]

    def test_momentum(self):
        net = models.classifier("densenet121", input_size=32, outputs=1, granularity="stage", width=1 / 8)
        norms = [x for n in net.names for x in net.block(n).layers if isinstance(x, keras.layers.BatchNormalization)]
        assert len(norms) == 2 * 58 + 5  # two a layer, three transitions, first and last
        assert {n.momentum for n in norms} == {MOMENTUM}


class TestWeights:
    @pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
    @pytest.mark.parametrize("file", ["x.weights.h5", "x.h5"])
    def test_a_file_without_the_top(self, densenet121, file, tmp_path):
        theirs = keras.applications.DenseNet121(include_top=False, weights=None, input_shape=(32, 32, 3))
        theirs.set_weights(densenet121.get_weights())
        theirs.save_weights(tmp_path / file) if ".weights." in file else theirs.save(tmp_path / file)
        net = models.classifier("densenet121", input_size=64, outputs=2, granularity="stage", weights=str(tmp_path / file))
        trunk = net.part(stop="b4")
        assert sum(map(np.size, (v.numpy() for v in trunk.variables()))) == 7_037_504
        assert all(np.array_equal(a, b) for a, b in zip(trunk.as_model().get_weights(), densenet121.get_weights(), strict=True))

    def test_with_synchronized_batch_norm(self, densenet121, tmp_path):
        densenet121.save_weights(file := tmp_path / "x.weights.h5")
        net = models.classifier("densenet121", input_size=32, outputs=2, granularity="unit", weights=str(file), synchronized=True)
        assert np.array_equal(net.run(images(), stop="b4_16"), densenet121(images(), training=False))
        assert net.block("b4_16").get_layer("bn").synchronized

    def test_failed_download_says_what_to_do(self, monkeypatch):
        def offline(**options):
            assert options["weights"] == "imagenet"
            raise Exception("URL fetch failure on https://example.org/x.h5: None")

        monkeypatch.setattr(keras.applications, "DenseNet121", offline)
        with pytest.raises(UserError, match="weights of densenet121 could not be downloaded .URL fetch failure.* pass its path instead"):
            densenet.trunk("densenet121", input_size=32, weights="imagenet")

    @pytest.mark.filterwarnings("ignore:Skipping nested container")
    def test_refused(self, tmp_path):
        def refused(message, **options):
            with pytest.raises(UserError, match=message) as caught:
                densenet.trunk(**{"name": "densenet121", "input_size": 32, **options})
            assert "\n" not in str(caught.value)

        refused("nowhere.h5 could not be loaded as weights of densenet121", weights="nowhere.h5")
        keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(
            file := tmp_path / "x.weights.h5"
        )
        refused("could not be loaded as weights of densenet121", weights=str(file))
        refused("fit densenet121 only at width 1, not 0.5", width=0.5, weights="imagenet")
        refused("at least 32 pixels, not 16", input_size=16)
        refused("unknown backbone 'densenet120': choose densenet121, densenet169, densenet201", name="densenet120")
