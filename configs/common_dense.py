"""What the pixel-to-pixel experiments share: the sections of their configs and the shrinking to a smoke run."""

from ml_collections import ConfigDict

from configs import common

SCENE_TASKS = ("depth_zbuffer", "normal", "edge_texture", "edge_occlusion", "keypoints2d")
RGBD_TASKS = ("depth_zbuffer", "normal", "edge_occlusion")
TASKS = (*SCENE_TASKS, "keypoints3d", "reshading")
POOLS = {"taskonomy": TASKS, "scenes": SCENE_TASKS, "rgbd": RGBD_TASKS}  # teachers, candidates for the auxiliary one among them
SCALES = tuple(POOLS)
SHORT = {"depth": "depth_zbuffer", "edge2d": "edge_texture", "normal": "normal", "edge3d": "edge_occlusion"}
PAIRS = ("depth-edge2d", "edge2d-normal", "depth-normal", "depth-edge3d", "edge2d-edge3d", "edge3d-normal")  # of table 1

# Small presets: the code of a 64 px image has 8 x 8 places (spec soka, "Small inputs").
_SMALL = {"input_size": 64, "width": 0.125, "output_stride": 8, "least_channels": 16, "residual_start": "zeros"}
NETS = {"taskonomy": {}, **dict.fromkeys(("scenes", "rgbd"), _SMALL)}
# Of the small networks: a depth teacher's held-out loss after 500 to 600 steps is 0.042 at 3e-4, 0.036 at 1e-3, 0.017 at 1e-2.
SMALL_RATE = 1e-2
TEACHER_EPOCHS = {"scenes": (9.0, 3.0), "rgbd": (60.0, 20.0)}  # of training, and with stored statistics
STEPS = {
    "taskonomy": {},
    **dict.fromkeys(
        ("scenes", "rgbd"),
        {
            "init.steps": 60,
            "train.steps": 900,  # KD is above its teachers by 14 and 24 % with 450 + 150, 2 % with 1,500 + 500
            "train.settle_steps": 300,
            "train.batch_size": 16,
            "train.optimizer.learning_rate": SMALL_RATE,
        },
    ),
}

_JOINT = {"schedule": "joint", "auxiliary.choose": "none"}
VARIANTS = {
    "no_auxiliary": {"auxiliary.choose": "none"},
    "strong": {"auxiliary.choose": "strongest"},
    "weak": {"auxiliary.choose": "weakest"},
    "kd": {**_JOINT, "weights": "equal", "mia.use": False},
    "kd_mia": {"schedule": "joint", "weights": "equal"},  # with the auxiliary teacher, as table 5's last row
    "equal": {"weights": "equal"},
    "weighted": {"collaboration.weighted": True},
    "fast_weights": {"gradnorm.optimizer.learning_rate": 1e-3},
    "printed_mia": {"mia.norm": "none"},
    "dmtl": {**_JOINT, "weights": "equal", "mia.use": False, "supervised": True},
    "gradnorm": {**_JOINT, "mia.use": False, "supervised": True},
}


def data_of(scale: str) -> ConfigDict:
    """The data section of `taskonomy` (one building, as the paper), `scenes` or `rgbd` (7-Scenes frames in Taskonomy's layout)."""
    if scale == "scenes":
        return scenes(train=3000, test=500, size=64)
    if scale == "rgbd":
        return taskonomy(taskonomy_partition="splits.csv")
    return taskonomy(buildings="wiconisco", split_by="image")


def root_flag(scale: str) -> str:
    """What a command says of the data's folder."""
    return {"taskonomy": " --config.data.root=taskonomy", "rgbd": " --config.data.root=rgbd"}.get(scale, "")


def taskonomy(**changes) -> ConfigDict:
    """The data section for Taskonomy; `data.root` is the folder that holds the buildings (`data.taskonomy` for other layouts)."""
    section = common.scenes()
    section.update({"reader": "taskonomy", **changes})
    return section


def scenes(train: int, test: int, size: int) -> ConfigDict:
    """The data section for the embedded scenes with their maps."""
    section = common.scenes(train, test, size)
    section.reader = "scenes_dense"
    return section


def teacher(
    command: str,
    task: str,
    *,
    name: str = "",
    input_size: int = 256,
    width: float = 1.0,
    output_stride: int = 16,
    least_channels: int = 1,
    residual_start: str = "ones",
    epochs: float = 30.0,
    settle_epochs: float = 0.0,
    power: int = 1,
) -> ConfigDict:
    """A supervised pixel-to-pixel teacher: our defaults.

    Args:
        command: as in `common.base`.
        task: a codec, e.g. depth_zbuffer.
        name: of the teacher; by default that of its task.
        input_size: side of the images and maps in pixels.
        width: factor on all channels of the task bank's network.
        output_stride: 16 (the task bank's), 8 or 4: how much smaller the code is than the image.
        least_channels: of the decoder's layers, where `width` would leave fewer.
        residual_start: ones, or zeros: units start as the identity.
        epochs: passes over the images.
        settle_epochs: further ones, with stored batch-norm statistics.
        power: of the difference that is its loss: 1 (the task bank's L1) or 2.
    """
    config = common.base(command, "dense_teacher")
    config.tasks, config.name = task, name or task
    config.licence = ""
    config.model = ConfigDict(
        dict(
            backbone="task_bank",
            input_size=input_size,
            width=width,
            output_stride=output_stride,
            least_channels=least_channels,
            code_channels=8,
            residual_start=residual_start,
            normalise="tf",  # -1..1, as the task bank's
        )
    )
    config.epochs, config.settle_epochs, config.batch_size = float(epochs), settle_epochs, 32
    config.power = power
    config.optimizer = common.adam(1e-3)
    return config


def soka(command: str, teachers: dict[str, dict[str, str]], tasks: str) -> ConfigDict:
    """A SOKA student of two or more teachers, the others of the pool being candidates for the auxiliary one: our defaults."""
    config = common.base(command, "soka")
    config.tasks = tasks
    config.teachers = ConfigDict(teachers)
    config.teacher_weights = ConfigDict(dict.fromkeys(teachers, 1.0))
    config.train_missing_teachers = False
    config.targets, config.granularity = "soft", ""  # what all amalgamations have; maps are never rounded, blocks are the teachers'
    config.student = ConfigDict(dict(weights="none", normalise=""))  # S14; teacher: start from the first teacher's encoder
    config.supervised = False  # follow the true maps instead of the teachers': the baselines dMTL and GradNorm
    config.schedule = "acct"  # competition and collaboration; joint: everything at once
    config.weights = "gradnorm"  # how w changes; equal: not at all
    config.alpha = 0.05  # eq. 8 (S4)
    config.mia = ConfigDict(
        dict(
            use=True,
            kind="channel",  # channel, element, matmul, mean (S2)
            norm="softmax_w",  # softmax_w, unit_rows; none, as printed, may shrink to nothing (S2)
            rep="mse",  # mse, l2norm_mse, sp (S3)
            taps="",  # blocks of the encoder, comma-separated; "": the third, and the last
        )
    )
    config.auxiliary = ConfigDict(
        dict(
            choose="auto",  # auto (S1), strongest, weakest, none, or a teacher's name
            rule="sum",  # sum, both, first (S1)
            delta=-1.0,  # an auxiliary teacher is looked for below this similarity; -1: the median of the pool
            images=500,  # of the train part, whose features are compared
            layer="",  # block whose output they are; "": the encoder's last
            centre=True,
        )
    )
    config.gradnorm = ConfigDict(
        dict(
            exponent=1.5,  # S4
            squared=False,  # S5
            floor=1e-3,
            initial="after_warmup",  # or init: when L_i(0) is measured (S10)
            optimizer=_adam(1e-4, schedule="constant"),
        )
    )
    config.collaboration = ConfigDict(dict(weighted=False))  # S6
    config.init = ConfigDict(dict(steps=1000))
    config.train = ConfigDict(
        dict(steps=600_000, settle_steps=0, batch_size=32, validate_every_steps=0, optimizer=_adam(1e-3, weight_decay=1e-6))
    )
    config.features = ConfigDict(dict(memory_gb=4.0))  # what the teachers' encoders wrote, kept for every image
    return config


def _adam(rate: float, **changes) -> ConfigDict:
    optimizer = common.adam(rate)
    optimizer.update(changes)
    return optimizer


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrinks any experiment to a few steps on embedded scenes; everything that is a choice of method stays."""
    config.data = scenes(train=48, test=16, size=32)
    config.data.hold_out, config.data.cache_dir = 0.25, ""
    if config.method == "dense_teacher":
        config.tasks = config.tasks if config.tasks in SCENE_TASKS else "keypoints2d"  # stands for what the scenes have no truth of
        config.model.update(dict(input_size=32, width=1 / 16, output_stride=8))
        config.epochs, config.settle_epochs, config.batch_size = 1.0, 0.5 if config.settle_epochs else 0.0, 8
        return config
    others = [name for name in config.teachers if name in SCENE_TASKS and name not in config.tasks.split(",")]
    kept = [*config.tasks.split(","), *others[:1]]  # one candidate for the auxiliary teacher
    config.teachers = ConfigDict({name: config.teachers[name].to_dict() for name in kept})
    config.teacher_weights = ConfigDict(dict.fromkeys(kept, 1.0))
    for name, entry in config.teachers.items():
        entry.path = "{workdir}/teachers/" + name
        entry.config += ",smoke" if ":" in entry.config else ":smoke"
    config.train_missing_teachers = True
    config.init.steps, config.train.steps, config.train.batch_size, config.train.validate_every_steps = 2, 6, 8, 3
    config.train.settle_steps = 3 if config.train.settle_steps else 0
    return config
