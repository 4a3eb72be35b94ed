"""`distributed.py one|mirrored net|balance|generated|student FOLDER`: on one device or on two logical CPUs (run by test_mirrored.py in its
process).

`net` trains a small net, `balance` SOKA's task weights alone, `generated` all of Dual-GAN, `student` a pool of teachers and its student by
a config. The nets are test_multi_worker.py's too.
"""

from dataclasses import replace
import json
from pathlib import Path
import sys

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import amalgamation, methods, models
from amalgam_tf.data.pipeline import Batches
from amalgam_tf.methods import dual_gan, soka
from amalgam_tf.models.blocks import BlockNet
from amalgam_tf.training import strategies
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import Phase, Update
from configs import common_generated
from tests.methods import helpers


def data() -> Batches:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (40, 16, 16, 3), np.uint8), rng.integers(0, 2, (40, 3)).astype(np.float32)
    return Batches(images, batch_size=8, seed=1, columns={"labels": labels})


def resnet(synchronized: bool):
    keras.utils.set_random_seed(0)
    return with_loss(models.classifier("resnet8", input_size=16, outputs=3, granularity="stage", synchronized=synchronized))


def small_net(synchronized: bool):
    """Quick to trace: one convolution, batch norm, one dense layer."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = keras.layers.BatchNormalization(synchronized=synchronized, name="bn")(x)
    x = keras.layers.Activation("relu", name="end")(x)
    x = keras.layers.Dense(3, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    return with_loss(BlockNet.cut(keras.Model(image, x, name="small"), ["end"], ["b1", "head"]))


def with_loss(net: BlockNet):
    def loss(batch):
        logits = net.run(batch["images"] / 64 - 2, training=True)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=batch["labels"], logits=logits)), {}

    return net, loss


def update(net, loss) -> Update:
    optimizer = {"name": "sgd", "learning_rate": 0.05, "weight_decay": 1e-2, "head_multiplier": 10.0}
    return Update("all", trains=net.weights(), statistics=net.statistics(), heads=net.weights("head"), loss=loss, optimizer=optimizer)


def balance(strategy: tf.distribute.Strategy, folder: Path) -> None:
    """Step (5) alone: of a student that nothing else changes, so that round-off is all that can differ."""
    with strategy.scope():
        pool = helpers.dense_pool({"D": "depth_zbuffer", "E": "edge_texture"})
    changes = {"gradnorm.optimizer.name": "sgd", "gradnorm.optimizer.learning_rate": 0.5, "mia.use": False}
    config = helpers.soka_config(pool, "depth_zbuffer,edge_texture")
    config.update_from_flattened_dict({**changes, "train.steps": 6})
    setting = amalgamation.prepare(config, check=soka.check_teachers, pool=pool)
    with strategy.scope(), Run(folder / "run", config.to_dict()) as run:
        parts = soka.start(setting, [], run)
        run.track({"task_weights": parts.weights})
        cycle = soka.cycle_phase(setting, parts, [0.4, 0.1], run, None)
        run.phase(replace(cycle, updates=cycle.updates[-1:], validate=None, keep_best=None))
    np.savez(folder / "weights.npz", task_weights=parts.weights.numpy())


def generated(strategy: tf.distribute.Strategy, folder: Path) -> None:
    """Dual-GAN in two groups, every phase some steps: SGD, so that round-off stays what it is."""
    config = common_generated.dual_gan("test", helpers.save_pool(folder / "pool", {"A": ("sphere", "box", "cone")}))
    config.evaluate_on, config.log_every_steps, config.collapse.positives = "", 1, 0.0
    config.gen.update(dict(steps=4, batch_size=8, look_steps=0, z_dim=8, groups=2, bn_stat=1.0))
    config.block.update(dict(steps=3, batch_size=8))
    config.finetune.update(dict(steps=3, batch_size=8, look_steps=0))
    config.generated.held_out_images = 64
    for section in (config.gen, config.block, config.finetune):
        section.optimizer.update(dict(name="sgd", learning_rate=0.01))
    with strategy.scope(), Run(folder / "run", config.to_dict()) as run:
        results = dual_gan.train(config, run)
        values = {k.replace("/", "|"): v.numpy() for k, v in run.checkpoints.variables.items()}
    np.savez(folder / "weights.npz", **values)
    (folder / "results.json").write_text(json.dumps(results))


def main(mode: str, what: str, folder: Path) -> None:
    if mode == "mirrored":
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = strategies.by_name(mode)
    assert strategy.num_replicas_in_sync == (2 if mode == "mirrored" else 1)
    if what == "student":
        methods.run(methods.load_config("configs/quickstart.py:student,smoke"), folder / "run", mode)
        return
    if what in ("balance", "generated"):
        {"balance": balance, "generated": generated}[what](strategy, folder)
        return
    with strategy.scope(), Run(folder / "run", {"log_every_steps": 2}) as run:
        net, loss = resnet(synchronized=mode == "mirrored")
        run.track(net.named_variables("net"))
        run.phase(Phase("train", steps=8, data=data(), updates=[update(net, loss)]))
        values = {k.replace("/", "|"): v.numpy() for k, v in net.named_variables("net").items()}
    np.savez(folder / "weights.npz", **values)


if __name__ == "__main__":
    main(*sys.argv[1:3], Path(sys.argv[3]))
