"""Where tasks, and parts of tasks, stand in a teacher's head."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from amalgam_tf import branching
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.tasks import Task
from amalgam_tf.teachers import Teacher

BREEDS = Task("breed", "category", ("d1", "d2", "d3", "b1", "b2"), "softmax")  # a main half, then an auxiliary quarter
SMILE, YOUNG = Task("smile", head="softmax2"), Task("young", head="softmax2")


def teacher(*tasks: Task) -> Teacher:
    """One dense layer on the mean colour."""
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    head = keras.layers.Dense(sum(t.outputs for t in tasks), name="logits")(x)
    return Teacher("t", BlockNet({"head": keras.Model(image, head)}), tasks, Preprocessing.named("centred", 4))


def images() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).uniform(0, 255, (6, 4, 4, 3)), tf.float32)


def test_heads_of_two_logits_an_attribute():
    t = teacher(SMILE, Task("bangs"), YOUNG)
    assert t.rows(["smile"]) == [0, 1] and t.rows(["young"]) == [3, 4]
    assert t.rows(["young", "smile"]) == t.rows([YOUNG, SMILE]) == [3, 4, 0, 1]
    assert {n: tuple(x.shape) for n, x in t.outputs(images()).items()} == {"smile": (6, 2), "bangs": (6, 1), "young": (6, 2)}


def test_a_joint_head_cut_down_to_the_wanted_classes():
    t = teacher(SMILE, BREEDS, YOUNG)
    assert t.rows(["breed"]) == t.rows([BREEDS]) == [2, 3, 4, 5, 6]
    assert t.rows([BREEDS.part(["d3", "d1"])]) == [4, 2]
    assert t.rows([BREEDS.part(["b2"]), "smile"]) == [6, 0, 1]


def test_the_wanted_half_of_two_teachers_that_order_their_classes_otherwise():
    """CUST C7: main half + auxiliary quarter, another quarter for each source net; asked for are the main classes alone."""
    main = Task("breed", "category", ("d1", "d2", "d3"), "softmax")
    other = teacher(Task("breed", "category", ("b9", "d3", "d1", "b8", "d2"), "softmax"))
    assert teacher(BREEDS).rows([main]) == [0, 1, 2] and other.rows([main]) == [2, 4, 1]
    logits = other.logits(images())
    head = branching.sliced_head(other.net.block("head"), other.rows([main]), "half")
    assert head.output.shape == (None, 3)
    half = head(other.preprocessing(images()))
    for place, label in enumerate(main.labels):
        np.testing.assert_allclose(half[:, place], logits[:, other.tasks[0].labels.index(label)], rtol=1e-5)
    np.testing.assert_allclose(half, tf.gather(logits, other.rows([main]), axis=-1), rtol=1e-5)


def test_a_class_the_teacher_does_not_know():
    with pytest.raises(UserError, match="task 'breed' has no label 'd9'") as caught:
        teacher(BREEDS).rows([Task("breed", "category", ("d1", "d9"), "softmax")])
    assert "\n" not in str(caught.value)
