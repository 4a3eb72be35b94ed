"""Makes a teacher of an original network of the Taskonomy task bank (Zamir et al., CVPR 2018): a folder with card.json and model.keras.

    python tools/convert_taskonomy.py --checkpoint=temp/rgb2depth --task=depth_zbuffer --output=teachers/depth

The checkpoint is the task bank's TF1 one, a folder with model.permanent-ckpt.index and .data-00000-of-00001, or its prefix
(the .meta file is not needed). It is read by variable names; the discriminator, the optimizer's slots and the counters stay
behind. Only tasks that write a map of the image's size by a tanh can be converted; the task bank's own names (rgb2depth) are
understood too.

The networks were trained at 256 pixels and on images scaled to -1..1. They are fully convolutional: --input_size may be another
multiple of 16.
"""

from collections.abc import Iterator
from pathlib import Path
import re
import sys

from absl import app, flags
import keras
import numpy as np
import tensorflow as tf

# run as a script from a checkout, where the package need not be installed: its folder is the one above this file's
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf.data import codecs  # noqa: E402
from amalgam_tf.data.transforms import Preprocessing  # noqa: E402
from amalgam_tf.errors import UserError, one_of, or_exit  # noqa: E402
from amalgam_tf.models import encoder_decoder  # noqa: E402
from amalgam_tf.models.blocks import BlockNet  # noqa: E402
from amalgam_tf.teachers import Pool, Teacher  # noqa: E402

ALIASES = {
    "rgb2depth": "depth_zbuffer",
    "rgb2mist": "depth_euclidean",
    "rgb2sfnorm": "normal",
    "edge2d": "edge_texture",
    "edge3d": "edge_occlusion",
    "keypoint2d": "keypoints2d",
    "keypoint3d": "keypoints3d",
    "reshade": "reshading",
    "curvature": "principal_curvature",
    "autoencoder": "autoencoding",
}

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "folder of the TF1 checkpoint, or its prefix (folder/model.permanent-ckpt)")
_TASK = flags.DEFINE_string("task", None, f"what the network was trained for: one of {', '.join(codecs.CODECS)}")
_OUTPUT = flags.DEFINE_string("output", None, "folder of the teacher; must be new or empty")
_NAME = flags.DEFINE_string("name", None, "name of the teacher; that of the folder by default")
_INPUT_SIZE = flags.DEFINE_integer("input_size", 256, "side of the images the teacher reads, in pixels; a multiple of 16")
_LICENCE = flags.DEFINE_string(
    "licence",
    "weights of the Taskonomy task bank, see github.com/StanfordVL/taskonomy",
    "a note on the rights in the weights, for the card",
)

_KINDS = {"kernel": "weights", "bias": "biases"}  # of variables; batch norm's are called alike in TF1 and in Keras


def prefix(checkpoint: Path) -> str:
    """What TensorFlow calls a checkpoint: the common beginning of its files.

    Args:
        checkpoint: a folder with one checkpoint, a prefix, or one of the files.

    Raises:
        UserError: none there, or several in the folder.
    """
    if checkpoint.is_dir():
        found = sorted(checkpoint.glob("*.index"))
        if len(found) != 1:
            several = f"several checkpoints ({', '.join(p.stem for p in found[:4])})" if found else "no checkpoint (a file NAME.index)"
            raise UserError(f"{checkpoint} holds {several}: name one with --checkpoint={checkpoint}/NAME")
        return str(found[0].with_suffix(""))
    name = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(checkpoint))
    if not Path(f"{name}.index").is_file():
        raise UserError(f"there is no checkpoint {name} (a file {Path(name).name}.index): correct --checkpoint")
    return name


def named(net: BlockNet) -> Iterator[tuple[str, keras.Variable]]:
    """(TF1 name, variable) of everything in a network of `encoder_decoder.task_bank`."""
    for block in net.names:
        for layer in net.block(block).layers:
            scope = re.sub(r"^(block\d)_(unit_\d+)_(bottleneck_v1)_", r"\1/\2/\3/", layer.name).replace("_BatchNorm", "/BatchNorm")
            for variable in layer.variables:
                yield f"{encoder_decoder.SCOPES[block]}{scope}/{_KINDS.get(variable.name, variable.name)}", variable


def fill(net: BlockNet, checkpoint: str) -> list[str]:
    """Gives every variable of the network its value from a TF1 checkpoint.

    Args:
        net: a network of `encoder_decoder.task_bank`.
        checkpoint: the prefix of the checkpoint.

    Returns:
        The names of the checkpoint's variables that were not used.

    Raises:
        UserError: a variable that is missing, has another shape or kind, or is not finite; a file that cannot be read. Nothing is
            changed if a variable is missing or does not fit.
    """
    wanted = dict(named(net))
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        shapes, kinds = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        for name, variable in wanted.items():
            if name not in shapes:
                raise UserError(
                    f"checkpoint {checkpoint} holds no variable {name}: give the one of a network that writes maps of this task"
                )
            if tuple(shapes[name]) != tuple(variable.shape) or kinds[name] != tf.float32:
                raise UserError(
                    f"variable {name} of checkpoint {checkpoint} is {kinds[name].name} {list(shapes[name])}, not float32 "
                    f"{list(variable.shape)}: name the task it was trained for with --task"
                )
        for name, variable in wanted.items():
            value = reader.get_tensor(name)
            if not np.isfinite(value).all():
                raise UserError(f"variable {name} of checkpoint {checkpoint} is not finite: download the checkpoint again")
            variable.assign(value)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:  # a damaged file: by where the damage is
        line = " ".join(str(error).split())[:160]
        raise UserError(f"checkpoint {checkpoint} could not be read ({line}): download its files again") from error
    return sorted(set(shapes) - set(wanted))


def make(
    checkpoint: Path, output: Path, *, task: str, name: str | None = None, input_size: int = 256, licence: str = _LICENCE.default
) -> str:
    """Writes the teacher and returns what to tell about it; the arguments are the flags.

    Raises:
        UserError: an argument that cannot be followed, a checkpoint that does not fit, an output folder that is not empty or cannot
            be written.
    """
    codec = codecs.get(ALIASES.get(one_of("--task", task, [*codecs.CODECS, *ALIASES]), task))
    files = prefix(checkpoint)
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"{output} exists and is not an empty folder (--output): name a new one")
        size = dict(input_size=input_size, width=1.0, output_stride=16)
        net = encoder_decoder.task_bank(**size, channels=len(codec.channels))
        card = {
            "licence": licence,
            "source": f"Taskonomy task bank (Zamir et al., CVPR 2018), {Path(files).parent.resolve().name}/{Path(files).name}",
            "data": "trained on Taskonomy by its authors",
            "backbone": {"backbone": "task_bank", **size, "granularity": "stage"},
        }
        preprocessing = Preprocessing.named("tf", input_size)
        teacher = Teacher(name or output.resolve().name, net, (codecs.task(codec.name),), preprocessing, card)
        Pool([teacher])  # whether it may be called so
        unused = fill(net, files)
        teacher.save(output)
    except OSError as error:
        raise UserError(f"cannot write to {error.filename or output} ({error.strerror}): name another folder with --output") from error
    return "\n".join(
        [
            f"teacher {teacher.name} in {output}, from {files}",
            f"  {len(net.variables())} variables, {net.parameters():,} numbers; {len(unused)} more (discriminator, optimizer) left out",
            f"  input: {input_size} x {input_size} pixels, normalised as tf (-1..1)",
            *(f"  block {n}: writes {' x '.join(map(str, s))}, {net.parameters(n, n):,} parameters" for n, s in net.shapes.items()),
            f"  task: {codec.name} ({', '.join(codec.channels)}), {codec.unit} behind its codec",
            f"  in a student's config: --config.teachers.teacher1.path={output}",
        ]
    )


def run() -> None:
    """Does what the flags say.

    Raises:
        UserError: as `make`; a flag that is missing.
    """
    for flag, meaning in ((_CHECKPOINT, "the folder of the TF1 checkpoint"), (_TASK, "its task"), (_OUTPUT, "the folder of the teacher")):
        if not flag.value:
            raise UserError(f"--{flag.name} is not set: name {meaning}")
    options = dict(task=_TASK.value, name=_NAME.value, input_size=_INPUT_SIZE.value, licence=_LICENCE.value)
    print(make(Path(_CHECKPOINT.value).expanduser(), Path(_OUTPUT.value).expanduser(), **options))


def main(_) -> None:
    or_exit(run)


if __name__ == "__main__":
    app.run(main)
