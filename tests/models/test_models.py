"""The table of backbones: which module builds one, and what its ready weights want to read."""

import keras
import numpy as np
import pytest

from amalgam_tf import models
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.methods import teacher
from configs import common


@pytest.mark.parametrize(("name", "module"), [("resnet50", keras.applications.resnet), ("densenet121", keras.applications.densenet)])
def test_normalisation_is_that_of_keras_applications(name, module):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    ours = Preprocessing.named(models.normalisation(name, "imagenet"), 8)
    np.testing.assert_allclose(ours(images), module.preprocess_input(images.copy()), atol=1e-4)
    assert models.normalisation(name, "none") == "centred"


def test_unknown_backbones():
    for name in ("vgg16", "resnet50v2", ""):
        with pytest.raises(UserError, match=f"unknown backbone '{name}': the families are resnet, densenet"):
            models.normalisation(name, "imagenet")


class TestCheckStart:
    def check(self, weights="x.h5", batchnorm="frozen", normalise="", backbone=""):
        models.check_start("student.weights", weights, "block.batchnorm", batchnorm, normalise, backbone)

    def test_random_weights_need_their_own_statistics(self):
        self.check("none", "batch")
        self.check("teacher", "frozen")
        with pytest.raises(UserError, match="student.weights=none starts from random weights.*: set block.batchnorm=batch"):
            self.check("none", "frozen")

    def test_each_backbone_has_its_normalisation(self):
        self.check(normalise="caffe", backbone="resnet50")
        self.check(normalise="torch", backbone="densenet121")
        with pytest.raises(
            UserError, match="student.weights=x.h5 expects its input normalised as torch, not caffe: set student.normalise=torch$"
        ):
            self.check(normalise="caffe", backbone="densenet121")
        with pytest.raises(UserError, match="normalised as caffe, not torch: set student.normalise=caffe$"):
            self.check(normalise="torch", backbone="resnet50")

    def test_where_nothing_is_ready_or_known_anything_passes(self):
        for weights in ("none", "teacher"):
            self.check(weights, "batch", "unit", "resnet50")
        self.check(normalise="", backbone="densenet121")
        self.check(normalise="torch")
        self.check(normalise="caffe")
        with pytest.raises(UserError, match="normalised as caffe or torch, not centred"):
            self.check(normalise="centred")


def test_teachers_read_what_their_weights_expect():
    def made(backbone, weights):
        return common.teacher("test", "T", ["a"], backbone=backbone, input_size=224, weights=weights)

    expected = {("resnet50", "x.h5"): "caffe", ("densenet121", "imagenet"): "torch", ("densenet121", "none"): "centred"}
    assert {key: made(*key).model.normalise for key in expected} == expected
    config = made("densenet121", "x.h5")
    config.model.normalise = "caffe"
    with pytest.raises(UserError, match="model.weights=x.h5 expects .* torch, not caffe: set model.normalise=torch"):
        teacher.train(config, run=None)  # refused before anything runs
