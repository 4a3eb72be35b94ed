"""What the experiments without images share: the sections of their configs."""

from ml_collections import ConfigDict

from configs import common


def dual_gan(command: str, teachers: dict[str, dict[str, str]], weights: str = "none", width: float = 1.0) -> ConfigDict:
    """A Dual-GAN student of some teachers, made without images: our defaults. `paper_dual_gan` turns them into the paper's setting.

    Args:
        command: as in `base`.
        teachers: as in `afk`.
        weights: start of the student (G14).
        width: of the generator: 1 for teachers with hundreds of channels, more for thin ones.
    """
    config = common.student_of(common.base(command, "dual_gan"), teachers, weights)
    _generated(config, width)
    config.granularity = "stage"  # G4
    config.gen.update(dict(dis="plus_prob", gamma=0.1))  # G1, G2
    config.gen.groups, config.gen.stopgrad_image = 0, True  # B, 0: one for each block of the teachers (G4); G7
    config.generated.generator_from = ""  # workdir of a run whose trained generator is taken over
    config.filter = ConfigDict(dict(gate="two_sigmoid", reduction=8, bias=True))  # A7
    scratch = weights == "none"
    statistics, rate = "batch" if scratch else "frozen", 5e-3 if scratch else 1e-4
    config.block = ConfigDict(
        dict(steps=1000, batch_size=32, batchnorm=statistics, lambda1=1.0, lambda2=1.0, optimizer=common.adam(rate))  # G5, G10
    )
    # image, both: which inputs the branch points are decided from (G10). By the image alone, thousandths of a nat decided, and sent all
    # labels of one seed on CIFAR-10 to the last block; by the loss that blocks are trained on (eq. 17) two seeds of three keep the first.
    config.block.eta_from = "both"
    # G12: a tenth of the rate; not from scratch: on CIFAR-10 (one seed and generator, 400 steps of blocks) the held-out loss ended at
    # 0.2095 after 400 steps of a tenth and at 0.2033 after 1,400 of 0.4; with 200 of blocks at 0.2100 (a tenth) and 0.2065 after 1,400.
    fine = common.adam(0.4 * rate if scratch else 0.1 * rate)
    config.finetune = ConfigDict(dict(steps=1000, batch_size=32, batchnorm=statistics, trainable="all", look_steps=250, optimizer=fine))
    return config


def dafl(command: str, teachers: dict[str, dict[str, str]], weights: str = "none", width: float = 1.0) -> ConfigDict:
    """DAFL for several teachers and labels, Dual-GAN's data-free baseline; arguments as for `dual_gan`."""
    config = common.student_of(common.base(command, "dafl"), teachers, weights)
    _generated(config, width)
    config.gen.adv = 0.0
    scratch = weights == "none"
    config.distill = ConfigDict(
        dict(batchnorm="batch" if scratch else "frozen", trainable="all", optimizer=common.adam(5e-3 if scratch else 1e-4))
    )
    return config


def _generated(config: ConfigDict, width: float) -> None:
    """The sections of a run without images.

    `oh`, `pseudo` and `bn_stat` are not the paper's, but what did best in trials of ONE seed: CIFAR-10, one teacher of five classes (mAP
    0.551; a random scorer 0.100), 300 steps of the generator and 300 of plain distillation on what it makes. All three: 0.294 (the
    teacher's own images: 0.443); without `bn_stat` 0.153; noise 0.130; with all three as in the paper no image shows a label (`literal`).
    """
    config.evaluate_on = "data"  # test images of `data`, for the final numbers only; "": no image is read at all
    config.gen = ConfigDict(
        dict(
            z_dim=256,  # G4
            width=width,
            bn_eps=1e-5,  # 0.8: the literal slip of DAFL's code
            oh=5.0,  # weights of eq. 9 (G2); 1 is the paper's as we read it
            alpha=0.1,
            beta=5.0,
            gamma=0.0,
            dis="off",  # plus_prob, minus_logit, minus_prob, off (G1)
            ie="label_freq",  # label_freq, bernoulli, softmax (G3)
            # Eq. 6 compares with 0.5 the probability (our reading), or the logit (as printed); at_least_one takes the surest label besides.
            pseudo="at_least_one",
            bn_stat=10.0,  # weight of the distance to the teachers' batch-norm statistics (spec section 6); 0 is the paper's
            steps=5000,  # G15
            batch_size=64,
            look_steps=250,
            optimizer=_for_generators(1e-3),
        )
    )
    config.collapse = ConfigDict(dict(positives=0.2, after_steps=500))  # labels an image must show (G1); 0: never stop
    config.generated = ConfigDict(dict(batchnorm="inference", held_out_images=64 * 100))  # of the trained generator (G9, G10)


def _for_generators(rate: float) -> ConfigDict:
    """Adam with the momentum of DCGANs, its rate constant (G15)."""
    optimizer = common.adam(rate)
    optimizer.beta_1, optimizer.schedule = 0.5, "constant"
    return optimizer


def literal(config: ConfigDict) -> ConfigDict:
    """The papers' own losses of the generator, Dual-GAN's and DAFL's; trained to the end even if no image shows a label (G1)."""
    config.gen.oh, config.gen.pseudo, config.gen.bn_stat = 1.0, "probability", 0.0
    config.collapse.positives = 0.0
    return config


def paper_dual_gan(config: ConfigDict) -> ConfigDict:
    """What the paper states: poly 0.01 / 0.9, weight decay 5e-3, batch 16; SGD, and a plain sigmoid gate (A7), are our reading."""
    common.paper_student(literal(config))
    config.finetune.batchnorm = "batch"
    return config


def other_images(config: ConfigDict, reader: str, root: str = "") -> ConfigDict:
    """Trains a student on images of another data set; its teachers keep theirs (DGAN's baselines, G17)."""
    for entry in config.teachers.values():
        entry.data = ConfigDict(dict(train_reader="", train_root=""))
    config.data.train_reader, config.data.train_root = reader, root
    return config
