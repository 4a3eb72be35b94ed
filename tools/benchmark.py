"""Measures the machinery: ratios of medians, the variants of a row interleaved in one process, so that a busy machine slows all alike.

    python tools/benchmark.py --output=results/benchmark
    python tools/benchmark.py --only=step,pipeline --repeats=5

Sections: step (an AFK step early, in the middle and late: ours, its pieces, naive), run (all 16 blocks), precision, growth (teachers and
blocks), customize (a step of each stage), generator (Dual-GAN's step I, and DAFL's generator), sizes (students against their teachers),
pipeline, scenes. Writes OUTPUT.json and OUTPUT.md.
Synthetic images, random teachers: nothing is downloaded and nothing is learned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import functools
import gc
import json
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf.bin import app as binaries

_OUTPUT = flags.DEFINE_string("output", "", "write OUTPUT.json and OUTPUT.md")
_ONLY = flags.DEFINE_list("only", [], "sections; all by default")
_REPEATS = flags.DEFINE_integer("repeats", 7, "timed calls of every variant")
_SIZE = flags.DEFINE_integer("size", 64, "side of the images of the ResNet-50 sections")
_BACKBONE = flags.DEFINE_string("backbone", "resnet50", "network of the step, run, precision, growth and sizes sections")

BATCH, IMAGES, TASKS = 32, 128, 4  # a batch, images in all, labels a teacher
SMALL = "resnet18"  # network of the customize and generator sections
DRAWN = 64  # images of a finished generator
EPOCHS, TRAIN = 4.0, 2652  # of a block and of a run, where costs that come once are spread over steps: configs/common.py, the VOC part
PLACES = {"early": 0.13, "middle": 0.56, "late": 0.94}  # of 16 units: the 3rd, 10th and 16th


def interleaved(variants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each variant, called in turns after two calls that are not counted (the first traces)."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 2):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


@dataclass
class Synthetic:
    """Images without a reader, in the shape of `amalgamation.Images`."""

    pixels: Mapping[str, Any]
    views: int = 2

    def batches(self, *args):
        from amalgam_tf.amalgamation import Images

        return Images.batches(self, *args)


def setting_of(teachers: int, granularity: str, size: int, policy: str = "float32"):
    """An AFK setting with random teachers, as `amalgamation.prepare` would make it."""
    import keras
    import numpy as np

    from amalgam_tf import amalgamation, models
    from amalgam_tf.data.transforms import Preprocessing
    from amalgam_tf.models.folding import folded
    from amalgam_tf.tasks import Task
    from amalgam_tf.teachers import Stream, Teacher
    from configs import common

    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    pool = []
    for i in range(teachers):
        net = models.classifier(_BACKBONE.value, input_size=size, outputs=TASKS, granularity=granularity)
        pool.append(Teacher(f"t{i}", net, tuple(Task(f"l{i}_{j}") for j in range(TASKS)), Preprocessing.named("caffe", size)))
    config = common.afk("", {t.name: {"path": "", "config": ""} for t in pool}, weights="imagenet")  # stored batch-norm statistics
    config.student.weights = "none"
    streams = tuple(Stream(task, t.name) for t in pool for task in t.tasks)
    images = Synthetic({"train": np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), np.uint8)})
    targets = {str(s): np.random.default_rng(1).normal(size=(2, IMAGES, 1)).astype(np.float32) for s in streams}
    frozen = tuple(Teacher(t.name, folded(t.net), t.tasks, t.preprocessing) for t in pool)
    return amalgamation.Setting(config, streams, tuple(pool), frozen, images, pool[0].preprocessing, {"train": targets})


class Bench:
    """A student of a setting with everything that a step at one of its blocks needs."""

    def __init__(self, setting, workdir: Path):
        from amalgam_tf import amalgamation
        from amalgam_tf.methods import afk
        from amalgam_tf.training.loop import Run

        self.setting, self.run = setting, Run(workdir, {})
        self.student = amalgamation.start_student(setting, self.run)
        self.filters = afk.start_filters(setting, self.student, self.run)
        self.prefix = afk.frozen_part(setting, self.student, self.run)

    def place(self, name: str) -> int:
        return min(int(PLACES[name] * len(self.student)), len(self.student) - 1)

    def ours(self, k: int) -> Callable[[], Any]:
        """The step of AFK's block phase on a ready batch."""
        from amalgam_tf.methods import afk

        return self.step(afk.block_phase(self.setting, self.student, k, self.filters, self.prefix, self.run))

    def naive(self, k: int) -> Callable[[], Any]:
        """The same step with the frozen prefix and the teachers' outputs computed inside, nothing folded."""
        from dataclasses import replace

        from amalgam_tf import amalgamation
        from amalgam_tf.branching import entangle
        from amalgam_tf.methods import afk

        setting, block = self.setting, self.student.names[k]
        adapters = {t.name: self.filters[block, t.name] for t in setting.teachers}

        def loss(batch):
            x = setting.preprocessing(batch["images"])
            outputs = {t.name: t.logits(batch["images"]) for t in setting.teachers}
            targets = amalgamation.task_level_filter(outputs, setting.streams, setting.teachers)
            written = entangle(self.student.run(x, stop=k), k, adapters, setting.teachers)
            logits = amalgamation.task_level_filter(written, setting.streams, setting.teachers)
            return amalgamation.total(amalgamation.customised_losses(setting.streams, logits, targets, False))

        phase = afk.block_phase(setting, self.student, k, self.filters, self.prefix, self.run)
        return self.step(replace(phase, updates=[replace(phase.updates[0], loss=loss)]))

    def pieces(self, k: int) -> dict[str, Callable[[], Any]]:
        """What a step cannot do without, each alone: the block forth and back, every teacher's rest forth and back to its input."""
        import tensorflow as tf

        setting, student = self.setting, self.student
        x = self._batch(self._phase_data(k))
        x = tf.constant(x["prefix"]) if "prefix" in x else setting.preprocessing(x["images"])
        u = student.run(x, start=k, stop=k)
        weights = [v.value for v in student.weights(k, k)]

        @tf.function(autograph=False)
        def block(x):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                y = tf.reduce_sum(tf.cast(student.run(x, start=k, stop=k), tf.float32))
            return tape.gradient(y, weights)

        def rest_of(teacher):
            @tf.function(autograph=False)
            def rest(u):
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(u)
                    y = tf.reduce_sum(tf.cast(teacher.net.run(u, start=k + 1), tf.float32))
                return tape.gradient(y, u)

            return lambda: rest(u).numpy()

        return {"block": lambda: [g.numpy() for g in block(x)][:0], **{f"rest of {t.name}": rest_of(t) for t in setting.frozen}}

    def extras(self, k: int) -> dict[str, Callable[[], Any]]:
        """What AFK adds to convolutions: the filters forth and back, and the optimizer's step on ready gradients."""
        import tensorflow as tf

        from amalgam_tf.methods import afk
        from amalgam_tf.training import optimizers

        setting, block = self.setting, self.student.names[k]
        layers = [self.filters[block, t.name] for t in setting.teachers]
        u, weights = tf.zeros((BATCH, *self.student.shapes[block])), [v.value for layer in layers for v in layer.trainable_variables]

        @tf.function(autograph=False)
        def filters(u):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([u, *weights])
                y = tf.add_n([tf.reduce_sum(tf.cast(layer(u), tf.float32)) for layer in layers])
            return tape.gradient(y, [u, *weights])

        (update,) = afk.block_phase(setting, self.student, k, self.filters, self.prefix, self.run).updates
        made, zeros = optimizers.build(update.optimizer, update.trains, steps=1), [tf.zeros(v.shape) for v in update.trains]
        apply = tf.function(lambda: made.apply(zeros, update.trains), autograph=False)
        return {"filters": lambda: filters(u)[0].numpy(), "optimizer": apply}

    def _phase_data(self, k: int):
        from amalgam_tf.methods import afk

        return afk.block_phase(self.setting, self.student, k, self.filters, self.prefix, self.run).data

    @staticmethod
    def _batch(batches) -> dict[str, Any]:
        return next(iter(batches.dataset(0, 1)))

    @staticmethod
    def step(phase) -> Callable[[], Any]:
        import tensorflow as tf

        from amalgam_tf.training import optimizers, step

        (update,) = phase.updates
        made = optimizers.build(update.optimizer, update.trains, steps=phase.steps)
        function, batch = step.step_function([update], [made], tf.distribute.get_strategy()), Bench._batch(phase.data)
        return lambda: float(function(batch)["loss"])


def bench(teachers: int, granularity: str, policy: str = "float32") -> Bench:
    gc.collect()
    return Bench(setting_of(teachers, granularity, _SIZE.value, policy), Path(tempfile.mkdtemp(prefix="benchmark-")))


# -- sections -----------------------------------------------------------------------------------------------------------
def step() -> list[dict[str, Any]]:
    """Ours against its pieces, the same convolutions alone (goal: at most 1.10), and naive against ours (goal: 1.5, late 2.5)."""
    b, rows = bench(2, "unit"), []
    for name in PLACES:
        k = b.place(name)
        pieces, extras = b.pieces(k), b.extras(k)
        t = interleaved({"ours": b.ours(k), "naive": b.naive(k), **pieces, **extras}, _REPEATS.value)
        floor, more = (sum(t[p] for p in of) for of in (pieces, extras))
        rows.append(
            {
                "step": f"{name} ({b.student.names[k]})",
                "ours ms": 1e3 * t["ours"],
                "ours / pieces": t["ours"] / floor,
                "ours / (pieces + filters + optimizer)": t["ours"] / (floor + more),
                "naive / ours": t["naive"] / t["ours"],
            }
        )
    return rows


def run() -> list[dict[str, Any]]:
    """A whole run over all blocks, steps of every block timed, what comes once (teachers' outputs, prefix features) added to ours."""
    import numpy as np
    import tensorflow as tf

    b, steps = bench(2, "unit"), EPOCHS * TRAIN / BATCH
    ours, naive = [], []
    for k in range(len(b.student)):
        t = interleaved({"ours": b.ours(k), "naive": b.naive(k)}, 3)
        ours.append(t["ours"])
        naive.append(t["naive"])
    images = np.zeros((64, _SIZE.value, _SIZE.value, 3), np.float32)
    functions = {t.name: tf.function(t.logits, autograph=False) for t in b.setting.teachers}
    forward = interleaved({n: (lambda f=f: f(images).numpy()) for n, f in functions.items()}, 3)
    passes = 2 * TRAIN / 64  # two views
    outputs = passes * sum(forward.values())
    prefix = passes * forward["t0"]  # every block but the last one sees all images and views once: less than a teacher does
    total, plain = steps * sum(ours) + outputs + prefix, steps * sum(naive)
    return [
        {
            "run": f"16 blocks, {EPOCHS:.0f} epochs of {TRAIN} images each",
            "ours min": total / 60,
            "of which once min": (outputs + prefix) / 60,
            "naive / ours": plain / total,
        }
    ]


def precision() -> list[dict[str, Any]]:
    """mixed_bfloat16 against float32, the middle step."""
    low, full = bench(2, "unit", "mixed_bfloat16"), bench(2, "unit")
    rows = []
    for name in PLACES:
        k = full.place(name)
        t = interleaved({"float32": full.ours(k), "mixed_bfloat16": low.ours(k)}, _REPEATS.value)
        rows.append({"step": name, "float32 ms": 1e3 * t["float32"], "mixed_bfloat16 / float32": t["mixed_bfloat16"] / t["float32"]})
    return rows


def growth() -> list[dict[str, Any]]:
    """The middle step of 1, 2, 4, 8 teachers, and one step of each of 4 or of 16 blocks."""
    rows, benches = [], {n: bench(n, "unit") for n in (1, 2, 4, 8)}
    k = benches[1].place("middle")
    t = interleaved({str(n): b.ours(k) for n, b in benches.items()}, _REPEATS.value)
    rows += [{"of": f"{n} teachers, middle step", "ms": 1e3 * t[n], "relative": t[n] / t["1"]} for n in t]
    blocks = {"4": bench(2, "stage"), "16": benches[2]}
    each = {n: sum(interleaved({str(k): b.ours(k) for k in range(len(b.student))}, 3).values()) for n, b in blocks.items()}
    rows += [{"of": f"{n} blocks, one step of each", "ms": 1e3 * each[n], "relative": each[n] / each["4"]} for n in each]
    return rows


_CHILD = """
import re, sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1], compile=False) if sys.argv[1] else None
if model:
    for _ in range(3): model(np.zeros((1, *model.inputs[0].shape[1:]), "float32"), training=False)
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1000)  # ru_maxrss would be the parent's
"""


def customize() -> list[dict[str, Any]]:
    """A step of Customize, ResNet-18 at 64 px, where each teacher runs on the images it teaches; and where all run on all images."""
    from dataclasses import replace

    from amalgam_tf.methods import customize as method
    from amalgam_tf.training.loop import Run

    rows = []
    for stage, teachers, width in (("component", 3, 0.5), ("target", 4, 45 / 64)):
        setting = customize_setting(stage, teachers, width)
        with Run(Path(tempfile.mkdtemp(prefix="benchmark-")), {}) as made:
            parts = method.start(setting, made)
            everyone = setting.config.copy_and_resolve_references()
            everyone.select = "all"
            calls = {
                "ours": Bench.step(method.transfer_phase(setting, parts, made)),
                "all": Bench.step(method.transfer_phase(replace(setting, config=everyone), parts, made)),
                "student": student_alone(parts),
            }
            t = interleaved(calls, _REPEATS.value)
        named = f"{stage} of {teachers}"
        rows.append(
            {
                "step": named,
                "ours ms": 1e3 * t["ours"],
                "all on all / ours": t["all"] / t["ours"],
                "ours / student alone": t["ours"] / t["student"],
            }
        )
    return rows


def student_alone(parts) -> Callable[[], Any]:
    """The student's own way forth and back."""
    import tensorflow as tf

    weights, x = [v.value for v in parts.student.weights()], tf.zeros((BATCH, _SIZE.value, _SIZE.value, 3))

    @tf.function(autograph=False)
    def alone(x):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            y = tf.reduce_sum(parts.tapped.run(x, training=True)[1])
        return tape.gradient(y, weights)

    return lambda: alone(x)[0].numpy()


def customize_setting(stage: str, teachers: int, width: float):
    """A setting of Customize with random teachers: sources of one task, or components of one task each."""
    import keras
    import numpy as np

    from amalgam_tf import amalgamation, models
    from amalgam_tf.data.transforms import Preprocessing
    from amalgam_tf.tasks import Task
    from amalgam_tf.teachers import Stream, Teacher
    from configs import common

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    size, pool = _SIZE.value, []
    for i in range(teachers):
        net = models.classifier(SMALL, input_size=size, outputs=2, granularity="stage", width=0.5)
        task = Task("l" if stage == "component" else f"l{i}", head="softmax2")
        pool.append(Teacher(f"t{i}", net, (task,), Preprocessing.named("centred", size)))
    config = common.customize("", {t.name: {"path": "", "config": ""} for t in pool}, stage=stage, width=width)
    config.train.batch_size = BATCH
    streams = tuple(Stream(t.tasks[0], t.name) for t in pool)
    images = Synthetic(
        {part: np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), np.uint8) for part in ("train", "held_out")}
    )
    rng = np.random.default_rng(1)
    targets = {part: {str(s): rng.normal(size=(2, IMAGES, 2)).astype(np.float32) for s in streams} for part in ("train", "held_out")}
    return amalgamation.Setting(config, streams, tuple(pool), tuple(pool), images, pool[0].preprocessing, targets)


def generator() -> list[dict[str, Any]]:
    """Dual-GAN's step I, two ResNet-18 at 64 px, against generator and teachers alone, forth and back; images of a finished generator."""
    from amalgam_tf import branching, generation
    from amalgam_tf.methods import dual_gan
    from amalgam_tf.training.loop import Run

    rows = []
    for groups in (0, 1):
        setting = generator_setting(groups)
        with Run(Path(tempfile.mkdtemp(prefix="benchmark-")), {}) as made:
            net = generation.make_generator(setting.config, setting.teachers, 0)
            shapes = dict(list(net.shapes.items())[:-1])
            gates = branching.start_filters(setting.config.filter, shapes, setting.teachers, made.seed_of, "gate")
            ours = Bench.step(dual_gan.generator_phase(setting, net, gates, made))
        pieces = generator_pieces(setting, net)
        draw, z_dim = generation.Source(net, "inference").draw, setting.config.gen.z_dim
        t = interleaved({"ours": ours, **pieces, "draw": lambda draw=draw, z_dim=z_dim: draw(DRAWN, z_dim, 0)}, _REPEATS.value)
        rows.append(
            {
                "generator": f"{len(net)} groups" if groups == 0 else "1 group (DAFL's)",
                "step ms": 1e3 * t["ours"],
                "step / pieces": t["ours"] / sum(t[p] for p in pieces),
                "generator / step": t["generator"] / t["ours"],
                "images / s in the step": BATCH / t["ours"],
                "images / s of a finished one": DRAWN / t["draw"],
            }
        )
    return rows


def generator_pieces(setting, net) -> dict[str, Callable[[], Any]]:
    """What a step cannot do without, each alone: all groups forth and back to their weights; of every teacher the whole and, for every
    feature group, the blocks behind its place, forth and back to what they read.
    """
    import tensorflow as tf

    def alone(fn, x, to):
        @tf.function(autograph=False)
        def call(x):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                sources = to or [x]
                tape.watch(sources)
                y = tf.add_n([tf.reduce_sum(tf.cast(part, tf.float32)) for part in tf.nest.flatten(fn(x))])
            return tape.gradient(y, sources)

        return lambda: call(x)[0].numpy()

    z, weights = tf.zeros((BATCH, setting.config.gen.z_dim)), [v.value for v in net.weights()]
    pieces = {"generator": alone(lambda z: net.taps(z, training=True), z, weights)}
    for teacher in setting.frozen:
        for j, (group, shape) in enumerate(reversed(net.shapes.items())):  # the image is read by the whole teacher
            behind = functools.partial(teacher.net.run, start=j)
            pieces[f"{teacher.name} behind {group}"] = alone(behind, tf.zeros((BATCH, *shape)), None)
    return pieces


def generator_setting(groups: int):
    """A setting of Dual-GAN with two random teachers and no images at all."""
    import keras

    from amalgam_tf import amalgamation, generation, models
    from amalgam_tf.data.transforms import Preprocessing
    from amalgam_tf.models.folding import folded
    from amalgam_tf.tasks import Task
    from amalgam_tf.teachers import Stream, Teacher
    from configs import common_generated

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    pool = []
    for i in range(2):
        net = models.classifier(SMALL, input_size=_SIZE.value, outputs=TASKS, granularity="stage", width=0.5)
        tasks = tuple(Task(f"l{i}_{j}") for j in range(TASKS))
        pool.append(Teacher(f"t{i}", generation.in_groups(net, groups), tasks, Preprocessing.named("centred", _SIZE.value)))
    config = common_generated.dual_gan("", {t.name: {"path": "", "config": ""} for t in pool})
    config.gen.batch_size, config.gen.width = BATCH, 1.0 if groups == 0 else 0.5
    streams = tuple(Stream(task, t.name) for t in pool for task in t.tasks)
    frozen = tuple(Teacher(t.name, folded(t.net), t.tasks, t.preprocessing) for t in pool)
    return amalgamation.Setting(config, streams, tuple(pool), frozen, generation.Generated(), pool[0].preprocessing, {})


def sizes() -> list[dict[str, Any]]:
    """Students whose tasks leave at one block, against their two teachers: parameters, FLOPs, latency and memory of one image."""
    from amalgam_tf import branching, evaluate
    from amalgam_tf.models import adapters as _registered  # noqa: F401  the child loads its layer

    b = bench(2, "stage")
    streams = b.setting.streams
    nets = {t.name: t.net.as_model(t.name) for t in b.setting.teachers}
    for block in b.student.names:
        nets[f"student, all at {block}"] = branching.regroup(
            b.student, b.filters, b.setting.teachers, dict.fromkeys(streams, block)
        ).as_model()
    latency, folder = evaluate.latency(nets, repeats=_REPEATS.value), Path(tempfile.mkdtemp())
    rows = {"": _memory("")}
    for name, net in nets.items():
        net.save(folder / "model.keras")
        rows[name] = _memory(str(folder / "model.keras"))
    of = {n: {**evaluate.size_of(net), "latency_ms": latency[n], "memory_mb": rows[n] - rows[""]} for n, net in nets.items()}
    both = {key: of["t0"][key] + of["t1"][key] for key in of["t0"]}
    keys = {"parameters": "parameters", "flops": "FLOPs", "latency_ms": "latency", "memory_mb": "memory"}
    return [
        {"net": n, **{f"{label} / two teachers": of[n][key] / both[key] for key, label in keys.items()}} for n in nets if n.startswith("s")
    ]


def _memory(model: str) -> float:
    code = "import amalgam_tf.models.adapters\n" + _CHILD
    return float(subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True).stdout)


def pipeline() -> list[dict[str, Any]]:
    """Batches from the cache, the first decoding, and JPEG decoding alone, in images a second at 224 px."""
    from PIL import Image
    import tensorflow as tf

    from amalgam_tf.data import pipeline as ours
    from amalgam_tf.data import scenes
    from amalgam_tf.data.examples import Examples
    from amalgam_tf.data.transforms import Preprocessing

    folder, n = Path(tempfile.mkdtemp()), 200
    base = scenes.load(split="train", count=20, size=96, seed=0).images
    paths = []
    for i in range(n):
        paths.append(folder / f"{i:03d}.jpg")
        Image.fromarray(base[i % 20]).resize((500, 375)).save(paths[-1], quality=90)
    examples = Examples("bench", tuple(p.stem for p in paths), paths, (), {})
    files = tf.data.Dataset.from_tensor_slices([str(p) for p in paths])
    decode = files.map(lambda p: tf.io.decode_jpeg(tf.io.read_file(p), channels=3), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    cached, normalise = ours.pixels(examples, 224), Preprocessing.named("caffe", 224)
    batches = ours.Batches(cached, BATCH, 0)
    steps = n // BATCH * 4

    def consume():
        for batch in batches.dataset(0, steps):
            normalise(batch["images"]).numpy()

    calls = {"decode alone": lambda: sum(1 for _ in decode), "first decoding": lambda: ours.pixels(examples, 224), "batches": consume}
    t = interleaved(calls, max(3, _REPEATS.value // 2))
    rate = {"decode alone": n / t["decode alone"], "first decoding": n / t["first decoding"], "batches": steps * BATCH / t["batches"]}
    names = {"batches": "batches from the cache, flipped and normalised", "first decoding": "decode and resize with antialias, once a run"}
    return [{"pipeline": names.get(k, k), "images / s": r, "of plain decoding": r / rate["decode alone"]} for k, r in rate.items()]


def scenes() -> list[dict[str, Any]]:
    """The renderer at 64 px (goal: at least 150 images a second)."""
    from amalgam_tf.data import scenes as renderer

    t = interleaved({"64": lambda: renderer.load(split="train", count=150, size=64, seed=0)}, 3)
    return [{"renderer": "64 px", "images / s": 150 / t["64"]}]


SECTIONS = {f.__name__: f for f in (step, run, precision, growth, customize, generator, sizes, pipeline, scenes)}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown."""
    cells = [
        [f"{v:.3g}" if isinstance(v, float) and v < 100 else f"{v:.0f}" if isinstance(v, float) else str(v) for v in r.values()]
        for r in rows
    ]
    return ["| " + " | ".join(line) + " |" for line in [list(rows[0]), ["---"] * len(rows[0]), *cells]]


def main(_) -> None:
    binaries.import_tensorflow()
    wanted = _ONLY.value or list(SECTIONS)
    if unknown := set(wanted) - set(SECTIONS):
        sys.exit(f"error: unknown section {', '.join(sorted(unknown))}: choose {', '.join(SECTIONS)}")
    output, found = _OUTPUT.value, {}
    if output and Path(f"{output}.json").is_file():  # sections that are not measured now stay
        found = json.loads(Path(f"{output}.json").read_text(encoding="utf-8"))
    for name in wanted:
        found[name] = SECTIONS[name]()
        print("\n".join([f"{name}: {SECTIONS[name].__doc__}", *table(found[name]), ""]), flush=True)
    if output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{output}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        tables = (line for name in SECTIONS if name in found for line in [*table(found[name]), ""])
        Path(f"{output}.md").write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
