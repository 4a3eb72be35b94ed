"""Makes a teacher of a functional Keras model from elsewhere: a folder with card.json and model.keras.

    python tools/import_teacher.py --model=x.keras --list_cuts
    python tools/import_teacher.py --model=x.keras --cuts=pool2,pool3 --tasks=dog,cat --normalise=torch --output=teachers/mine

The first command lists the layers behind which the model can be cut into blocks; where it is cut is your choice, and
teachers that are to be amalgamated by AFK must be cut alike. The last block is the head. --tasks says what the outputs mean,
in their order: `dog,cat` are labels with one output each, `breed=poodle|husky|pug` is a choice among classes with one output each.

A sigmoid or softmax at the model's end is taken off, because teachers write logits. The copy is compared with the original
before anything is written.
"""

from collections.abc import Sequence
from pathlib import Path
import sys

from absl import app, flags
import numpy as np

# run as a script from a checkout, where the package need not be installed: its folder is the one above this file's
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amalgam_tf.data.transforms import Preprocessing  # noqa: E402
from amalgam_tf.errors import UserError, one_of, or_exit  # noqa: E402
from amalgam_tf.models import foreign  # noqa: E402
from amalgam_tf.models.blocks import BlockNet  # noqa: E402
from amalgam_tf.tasks import Task, is_name  # noqa: E402
from amalgam_tf.teachers import Pool, Teacher  # noqa: E402

_MODEL = flags.DEFINE_string("model", None, "the model, a .keras or .h5 file")
_LIST = flags.DEFINE_bool("list_cuts", False, "only list the layers behind which the model can be cut (also without --cuts)")
_CUTS = flags.DEFINE_list("cuts", [], "layers that end a block, in order; what follows the last one is the head")
_NAMES = flags.DEFINE_list("names", [], "names of the blocks, one more than cuts; b1, b2, ..., head by default")
_TASKS = flags.DEFINE_list("tasks", [], "what the outputs mean, in order: label,label or name=class|class|class")
_HEAD = flags.DEFINE_string("head", "sigmoid", "outputs of a label: sigmoid (one) or softmax2 (two: absent, present)")
_NORMALISE = flags.DEFINE_string(
    "normalise", "none", "what the model reads: none (0..255), unit (0..1), tf (-1..1), torch, caffe (as in keras.applications), centred"
)
_OUTPUT = flags.DEFINE_string("output", None, "folder of the teacher; must be new or empty")
_NAME = flags.DEFINE_string("name", None, "name of the teacher; that of the folder by default")
_LICENCE = flags.DEFINE_string("licence", "", "a note on the rights in the weights, for the card")

_IMAGES = 4  # that original and copy are compared on


def read_tasks(entries: Sequence[str], head: str) -> tuple[Task, ...]:
    """`["dog", "breed=poodle|husky"]` -> tasks, in the order of their outputs.

    Raises:
        UserError: nothing named, a name twice, a choice of fewer than two classes.
    """
    tasks = []
    for entry in entries:
        name, choice, classes = entry.partition("=")
        labels = tuple(c.strip() for c in classes.split("|"))
        if choice and (len(set(labels)) < max(2, len(labels)) or not all(labels)):
            raise UserError(f"cannot read {entry!r} in --tasks: a choice names two or more different classes, breed=poodle|husky|pug")
        tasks.append(Task(name.strip(), "category", labels, "softmax") if choice else Task(name.strip(), head=head))
    names = [t.name for t in tasks]
    if not names or len(set(names)) != len(names):
        raise UserError(f"--tasks={','.join(names)} must name every output once: --tasks=dog,cat or --tasks='breed=poodle|husky|pug'")
    return tuple(tasks)


def check_tasks(tasks: Sequence[Task], end: str, outputs: int) -> None:
    """Holds the tasks against what the model writes.

    Args:
        tasks: in the order of their outputs.
        end: `sigmoid`, `softmax` or `linear`, see `foreign.Remade`.
        outputs: how many numbers the model writes.

    Raises:
        UserError: other counts, or tasks that the activation contradicts.
    """
    if (named := sum(t.outputs for t in tasks)) != outputs:
        raise UserError(f"--tasks names {named} outputs, but the model writes {outputs}: name each of them, in order")
    if end == "sigmoid" and any(t.head != "sigmoid" for t in tasks):
        raise UserError("the model ends in a sigmoid, so each of its outputs is a label of its own: --tasks=label,label,...")
    if end == "softmax" and (len(tasks) > 1 or tasks[0].head == "sigmoid"):
        raise UserError(
            "the model ends in a softmax, so its outputs are one choice: --tasks='name=class|class|...', or one label with --head=softmax2"
        )


def cut(model, cuts: Sequence[str], names: Sequence[str]) -> BlockNet:
    """The model cut behind the layers `cuts`; `names` of the blocks may be empty.

    Raises:
        UserError: an unknown layer, one that more than one tensor passes, cuts out of order, names that cannot be used.
    """
    names = list(names or [*(f"b{i + 1}" for i in range(len(cuts))), "head"])
    if len(set(names)) != len(names) or not all(map(is_name, names)):
        raise UserError(f"--names={','.join(names)} must be different names of letters, digits and _ . + -")
    known, places = {x.name for x in model.layers}, [p.layer for p in foreign.places(model)]
    if crossed := [c for c in cuts if c in known and c not in places]:
        raise UserError(
            f"the model cannot be cut behind {', '.join(crossed)}: a connection goes past it, or it is the end; "
            "--list_cuts shows where it can be cut"
        )
    ordered = [p for p in places if p in cuts]
    if len(ordered) == len(set(cuts)) and list(cuts) != ordered:
        raise UserError(f"--cuts must name layers once and in the model's order: --cuts={','.join(ordered)}")
    return BlockNet.cut(model, cuts, names)


def listing(model) -> str:
    """The places to cut at as a table: layer, kind, shape of its output, share of the parameters up to it."""
    total = max(1, model.count_params())
    rows = [(p.layer, p.kind, " x ".join(map(str, p.shape)), f"{100 * p.parameters / total:.1f} %") for p in foreign.places(model)]
    rows = [("layer", "kind", "output", "parameters"), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def make(
    path: Path,
    output: Path,
    *,
    cuts: Sequence[str],
    tasks: Sequence[str],
    names: Sequence[str] = (),
    head: str = "sigmoid",
    normalise: str = "none",
    name: str | None = None,
    licence: str = "",
) -> str:
    """Writes the teacher and returns what to tell about it; the arguments are the flags.

    Raises:
        UserError: an argument that cannot be followed, a model that cannot be imported, an output folder that is not empty or
            cannot be written.
    """
    labels = read_tasks(tasks, one_of("--head", head, ("sigmoid", "softmax2")))
    Preprocessing.named(normalise, 1)  # before the model is read, which takes its time
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UserError(f"{output} exists and is not an empty folder (--output): name a new one")
        original = foreign.load(path)
        copy = foreign.remade(original)
        check_tasks(labels, copy.end, copy.model.output.shape[-1])
        net, preprocessing = cut(copy.model, cuts, names), Preprocessing.named(normalise, copy.size)
        card = {"licence": licence, "imported": {"file": path.name, "cuts": list(cuts), "end": copy.end}}
        teacher = Teacher(name or output.resolve().name, net, labels, preprocessing, card)
        Pool([teacher])  # whether it may be called so
        images = np.random.default_rng(0).integers(0, 256, (_IMAGES, copy.size, copy.size, 3)).astype(np.float32)
        difference = foreign.disagreement(original, copy, preprocessing(images))
        teacher.save(output)
    except OSError as error:
        raise UserError(f"cannot write to {error.filename or output} ({error.strerror}): name another folder with --output") from error
    end = "its end writes logits as it is" if copy.end == "linear" else f"the {copy.end} at its end is taken off: it writes logits"
    return "\n".join(
        [
            f"teacher {teacher.name} in {output}, from {path.name}",
            f"  {end}; outputs on {_IMAGES} random images differ from the original's by {difference:.1g} at most",
            f"  input: {copy.size} x {copy.size} pixels, normalised as {normalise}",
            *(f"  block {n}: writes {' x '.join(map(str, s))}, {net.parameters(n, n):,} parameters" for n, s in net.shapes.items()),
            "  tasks: " + ", ".join(f"{t.name} ({' or '.join(t.labels)})" if t.labels else t.name for t in labels),
            f"  in a student's config: --config.teachers.teacher1.path={output}",
        ]
    )


def run() -> None:
    """Does what the flags say.

    Raises:
        UserError: as `make`; a flag that is missing.
    """
    if not _MODEL.value:
        raise UserError("--model is not set: name the .keras or .h5 file to import")
    path = Path(_MODEL.value).expanduser()
    if _LIST.value or not _CUTS.value:
        print(f"{path.name} can be cut behind these layers (--cuts=layer,layer,...):\n{listing(foreign.remade(foreign.load(path)).model)}")
        return
    if not _OUTPUT.value:
        raise UserError("--output is not set: name the folder to write the teacher to")
    options = dict(names=_NAMES.value, head=_HEAD.value, normalise=_NORMALISE.value, name=_NAME.value, licence=_LICENCE.value)
    print(make(path, Path(_OUTPUT.value).expanduser(), cuts=_CUTS.value, tasks=_TASKS.value, **options))


def main(_) -> None:
    or_exit(run)


if __name__ == "__main__":
    app.run(main)
