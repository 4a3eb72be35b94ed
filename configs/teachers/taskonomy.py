"""Pixel-to-pixel teachers for SOKA: the task bank's encoder and decoder, trained on Taskonomy, scenes or RGB-D frames.

Command: python -m amalgam_tf.bin.train --config=configs/teachers/taskonomy.py:depth_zbuffer
    --workdir=runs/soka_taskonomy/teachers/depth_zbuffer --config.data.root=taskonomy
Data: Taskonomy, buildings of the official tiny split in any of its three layouts; data.root is the folder that holds them. `scenes` needs
    none. `rgbd`: what tools/prepare_7scenes.py makes of 7-Scenes frames.
Hardware and expected time: a day on one GPU a teacher; `scenes` and `rgbd` a few minutes on 2 CPU cores.
Published row: none of its own; the papers' teachers are Taskonomy's checkpoints (tools/convert_taskonomy.py).
Expected: clearly below the errors of the constant predictor, which stands beside in report.md.

Argument: a task (default depth_zbuffer), and `scenes` or `rgbd` for the small data sets.
"""

from configs import common, common_dense

FILE = "configs/teachers/taskonomy.py"
ARGUMENTS = (*common_dense.TASKS, *(f"{t},scenes" for t in common_dense.SCENE_TASKS), *(f"{t},rgbd" for t in common_dense.RGBD_TASKS))


def get_config(argument: str = ""):
    words = common.words(argument, *common_dense.SCALES, *common_dense.TASKS)
    scale, task = common.one(words, common_dense.SCALES), common.one(words, common_dense.TASKS)
    named = common.joined(task, "" if scale == "taskonomy" else scale)
    command = (
        f"python -m amalgam_tf.bin.train --config={FILE}:{named} --workdir=runs/soka_{scale}/teachers/{task}{common_dense.root_flag(scale)}"
    )
    config = common_dense.teacher(command, task, **common_dense.NETS[scale])
    config.data = common_dense.data_of(scale)
    if scale == "taskonomy":
        config.optimizer.learning_rate = 1e-4  # the task bank's
    else:
        (config.epochs, config.settle_epochs), config.batch_size = common_dense.TEACHER_EPOCHS[scale], 16
        config.optimizer.learning_rate = common_dense.SMALL_RATE
        if (scale, task) == ("scenes", "edge_occlusion"):  # its edges are so few that with L1 an empty map is best
            config.power = 2
    return common_dense.smoke(config) if "smoke" in words else config
