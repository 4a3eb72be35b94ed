"""Trains a small net under one device or under MirroredStrategy on two logical CPUs (run by test_loop.py in its own process)."""

from pathlib import Path
import sys

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import models
from amalgam_tf.data.pipeline import Batches
from amalgam_tf.methods import afk
from amalgam_tf.training import strategies
from amalgam_tf.training.loop import Run
from amalgam_tf.training.phase import Phase, Update
from configs import common
from tests.methods.helpers import afk_config, save_pool


def main(mode: str, folder: Path) -> None:
    if mode == "mirrored":
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (40, 16, 16, 3), np.uint8), rng.integers(0, 2, (40, 3)).astype(np.float32)
    data = Batches(images, batch_size=8, seed=1, columns={"labels": labels})
    strategy = strategies.by_name(mode)
    assert strategy.num_replicas_in_sync == (2 if mode == "mirrored" else 1)
    with strategy.scope(), Run(folder / "run", {"log_every_steps": 2}) as run:
        keras.utils.set_random_seed(0)
        net = models.classifier("resnet8", input_size=16, outputs=3, granularity="stage", synchronized=mode == "mirrored")
        run.track(net.named_variables("net"))

        def loss(batch):
            logits = net.run(batch["images"] / 64 - 2, training=True)
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=batch["labels"], logits=logits)), {}

        optimizer = {"name": "sgd", "learning_rate": 0.05, "weight_decay": 1e-2, "head_multiplier": 10.0}
        update = Update("all", trains=net.weights(), statistics=net.statistics(), heads=net.weights("head"), loss=loss, optimizer=optimizer)
        run.phase(Phase("train", steps=8, data=data, updates=[update]))
        values = {k.replace("/", "|"): v.numpy() for k, v in net.named_variables("net").items()}
        values |= amalgamated(folder)
    np.savez(folder / "weights.npz", **values)


def amalgamated(folder: Path) -> dict[str, np.ndarray]:
    """One whole AFK run (SGD throughout): the held-out losses of every block and the student's final weights."""
    pool = save_pool(folder / "pool", {"A": ("sphere", "box"), "B": ("cone",)})
    config = afk_config(pool, finetune__batchnorm="batch")
    config.block.optimizer, config.finetune.optimizer = common.sgd(0.05), common.sgd(0.01)
    setting = afk.prepare(config)
    with Run(folder / "afk", config.to_dict()) as run:
        branched = afk.amalgamate(setting, run)
        losses = [v["loss"] for b in ("b1", "b2", "b3") for v in run.decided(f"block_losses/{b}").values()]
    weights = {f"afk|{k}".replace("/", "|"): v.numpy() for k, v in branched.named_variables("student").items()}
    return weights | {"afk|block_losses": np.array(losses)}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
