"""Teachers and their cards; pools of teachers; and the card of a finished student.

A teacher is a frozen chain of blocks plus a card that says what its logits mean. On disk it is a folder:
`card.json` beside `model.keras` (the blocks as nested functional models). Where a task's rows stand in the head is
written in the card and nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.models import adapters as _registered  # noqa: F401  a saved student holds its layers
from amalgam_tf.models.blocks import BlockNet, policies, rebuilt, safe_name
from amalgam_tf.tasks import EVERYTHING, Task, Wanted, is_name
from amalgam_tf.training import state

CARD = "card.json"
_RESERVED = ("student", "student_before_finetune", "teacher", "data", "images", "truth")  # names in results, scores and folders
MODEL = "model.keras"
_TEACHER_KEYS = ("name", "blocks", "tasks", "preprocessing", "sha256")


class Stream(NamedTuple):
    """One wanted task of one teacher: what AFK calls an element of C_n."""

    task: Task
    teacher: str

    def __str__(self):
        return f"{self.task.name}@{self.teacher}"


@dataclass(frozen=True)
class Teacher:
    """A frozen network that knows some tasks.

    Attributes:
        name: unique in its pool.
        net: its blocks; the last one writes the logits [batch, rows].
        tasks: in the order of their rows in the head.
        preprocessing: what the first block wants to read.
        card: everything else that is known: `backbone`, `measured`, `recipe`, `data`, `licence`, `sha256`.
    """

    name: str
    net: BlockNet
    tasks: tuple[Task, ...]
    preprocessing: Preprocessing
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        rows, needed = self.net.shapes[self.net.names[-1]][-1], sum(t.outputs for t in self.tasks)
        if rows != needed:
            raise UserError(
                f"teacher {self.name}: its last block writes {rows} numbers, its tasks need {needed}; correct the task list of the card"
            )

    def task(self, name: str) -> Task:
        return next(t for t in self.tasks if t.name == name)

    def rows(self, names: Iterable[str]) -> list[int]:
        """Rows of the head that hold these tasks, in the order asked for."""
        starts, row = {}, 0
        for task in self.tasks:
            starts[task.name] = row
            row += task.outputs
        return [starts[n] + i for n in names for i in range(self.task(n).outputs)]

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """float32 logits [batch, rows] of images [batch, size, size, 3] in 0..255, in inference mode."""
        return tf.cast(self.net.run(self.preprocessing(images), training=False), tf.float32)

    def outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Task name -> its float32 logits [batch, outputs]."""
        return split_rows(self.logits(images), self.tasks)

    def save(self, folder: Path) -> None:
        """Writes model and card; the card, which carries the model's checksum, appears last and at once."""
        folder = Path(folder)
        checksum = _save_model(self.net.as_model(safe_name(self.name)), folder)
        state.write_json(
            folder / CARD,
            {
                "format": state.FORMAT,
                "kind": "teacher",
                "name": self.name,
                "blocks": list(self.net.names),
                "tasks": [t.to_json() for t in self.tasks],
                "preprocessing": self.preprocessing.to_json(),
                **{k: v for k, v in self.card.items() if k != "sha256"},
                "weights": MODEL,
                "sha256": checksum,
            },
        )

    @classmethod
    def load(cls, folder: Path, name: str | None = None) -> "Teacher":
        """Reads a teacher's folder (or a run's workdir that holds one); `name` renames it.

        Raises:
            UserError: no card, a card that does not fit its weights, a newer format.
        """
        folder, card = _read_card(folder, "teacher", _TEACHER_KEYS)
        model = _load_model(folder, card)
        blocks = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
        if len(blocks) != len(card["blocks"]):
            raise UserError(
                f"{folder / CARD} names {len(card['blocks'])} blocks but {MODEL} holds {len(blocks)}: the two files do not belong together"
            )
        net = BlockNet(dict(zip(card["blocks"], blocks, strict=True)))
        tasks = tuple(Task.from_json(t) for t in card["tasks"])
        return cls(name or card["name"], net, tasks, Preprocessing.from_json(card["preprocessing"]), card)


@dataclass(frozen=True)
class Student:
    """A finished student: one functional model with a dict of logits by task, and its card."""

    model: keras.Model
    tasks: tuple[Task, ...]
    preprocessing: Preprocessing
    card: dict[str, Any] = field(default_factory=dict)

    def outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Task name -> float32 logits [batch, outputs] of images [batch, size, size, 3] in 0..255."""
        logits = self.model(self.preprocessing(images), training=False)
        return {t.name: tf.cast(logits[t.name], tf.float32) for t in self.tasks}

    def save(self, folder: Path) -> None:
        folder = Path(folder)
        checksum = _save_model(self.model, folder)
        card = {
            "format": state.FORMAT,
            "kind": "student",
            "tasks": [t.to_json() for t in self.tasks],
            "preprocessing": self.preprocessing.to_json(),
            **{k: v for k, v in self.card.items() if k != "sha256"},
            "weights": MODEL,
            "sha256": checksum,
        }
        state.write_json(folder / CARD, card)

    @classmethod
    def load(cls, folder: Path) -> "Student":
        folder, card = _read_card(folder, "student", ("tasks", "preprocessing", "sha256"))
        return cls(
            _load_model(folder, card), tuple(Task.from_json(t) for t in card["tasks"]), Preprocessing.from_json(card["preprocessing"]), card
        )


class Pool:
    """Teachers by name, and the question who knows what."""

    def __init__(self, teachers: Sequence[Teacher]):
        for t in teachers:
            if not is_name(t.name) or t.name in _RESERVED:
                raise UserError(
                    f"a teacher cannot be called {t.name!r}: use letters, digits and _ . + -, and none of {', '.join(_RESERVED)}"
                )
        self.teachers = {t.name: t for t in teachers}
        if len(self.teachers) != len(teachers):
            raise UserError(f"two teachers share a name: {[t.name for t in teachers]}; give each its own key in config.teachers")

    def __getitem__(self, name: str) -> Teacher:
        return self.teachers[name]

    def offers(self) -> str:
        """One line: what each teacher knows."""
        return "; ".join(f"{t.name}: {', '.join(x.name for x in t.tasks)}" for t in self.teachers.values())

    def resolve(self, wanted: Sequence[Wanted]) -> tuple[Stream, ...]:
        """All (task, teacher) pairs that a request means. A task known to several teachers gives several streams.

        A task that the request also names with a teacher (`*,dog@t2`) comes from that teacher only.

        Raises:
            UserError: an unknown task or teacher; the sentence lists what each teacher offers.
        """
        pins: dict[str, set[str]] = {}
        for entry in wanted:
            if entry.teacher and entry.task != EVERYTHING:
                pins.setdefault(entry.task, set()).add(entry.teacher)
        found: dict[Stream, None] = {}
        for entry in wanted:
            streams = [
                Stream(task, t.name)
                for t in self.teachers.values()
                if entry.teacher in (None, t.name)
                for task in t.tasks
                if entry.task in (EVERYTHING, task.name) and t.name in pins.get(task.name, {t.name})
            ]
            if not streams:
                raise UserError(f"no teacher offers {entry}; {self.offers()}")
            found |= dict.fromkeys(streams)
        return tuple(found)


def split_rows(logits: tf.Tensor, tasks: Sequence[Task]) -> dict[str, tf.Tensor]:
    """[batch, rows] -> task name -> [batch, outputs], for tasks in the order of their rows."""
    return dict(zip((t.name for t in tasks), tf.split(logits, [t.outputs for t in tasks], axis=-1), strict=True))


def in_precision(teacher: Teacher, policy: str) -> Teacher:
    """The same teacher computing in a dtype policy (dense layers and logits stay float32); itself if nothing changes."""
    if policies(teacher.net) <= {policy}:
        return teacher
    blocks = {}
    for name in teacher.net.names:
        old = teacher.net.block(name)
        inputs = keras.DTypePolicy(policy).compute_dtype if blocks else None  # the image itself stays as it is
        blocks[name] = rebuilt(old, policy=policy, inputs=inputs)
        blocks[name].set_weights(old.get_weights())
    return Teacher(teacher.name, BlockNet(blocks), teacher.tasks, teacher.preprocessing, teacher.card)


def in_blocks(teacher: Teacher, granularity: str) -> Teacher:
    """The same teacher in other blocks.

    Args:
        teacher: cut into units or stages.
        granularity: `stage` (units of a stage joined), `unit` (must be so already), or "" (as it is).

    Raises:
        UserError: another word, or stages that would have to be cut.
    """
    if granularity not in ("", "stage", "unit"):
        raise UserError(f"unknown granularity {granularity!r}: choose stage or unit, or leave it empty")
    in_units = all("_" in name for name in teacher.net.names[:-1])
    if granularity == "unit" and not in_units:
        raise UserError(
            f"granularity=unit needs teachers cut into units, but the blocks of {teacher.name} are {', '.join(teacher.net.names)}: "
            "train it with --config.model.granularity=unit"
        )
    if granularity != "stage" or not in_units:
        return teacher
    return replace(teacher, net=teacher.net.joined(teacher.net.stages()))


def foreign_data(teachers: Sequence[Teacher], options: Mapping[str, Any]) -> list[str]:
    """A sentence for every teacher whose own recipe split the data otherwise: it may have been trained on the test images.

    Args:
        teachers: with or without a recipe in their cards.
        options: the `data` section of the run that is going to use them.
    """
    notes = []
    for t in teachers:
        there = t.card.get("recipe", {}).get("data", {})
        different = [k for k, v in options.items() if k not in ("root", "cache_dir", "download") and there.get(k, v) != v]
        if different:
            notes.append(
                f"note: teacher {t.name} was trained with other data settings ({', '.join(different)}): it may have seen the test images"
            )
    return notes


# -- files ------------------------------------------------------------------------------------------------------------
def find_card(folder: Path) -> Path | None:
    """The card in a folder, or in the `teacher` or `student` folder of a run's workdir."""
    places = [Path(folder) / CARD, Path(folder) / "teacher" / CARD, Path(folder) / "student" / CARD]
    return next((p for p in places if p.is_file()), None)


def _read_card(folder: Path, kind: str, keys: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    path = find_card(folder)
    if path is None:
        raise UserError(f"{folder} holds no {CARD}: train a {kind} into it first, or correct the path")
    card = state.read_json(path)
    state.check_format(card, path)
    if missing := [k for k in keys if k not in card]:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is not the card of a {kind}")
    if card.get("kind") != kind:
        raise UserError(f"{path} is the card of a {card.get('kind')}, not of a {kind}: give the folder of a {kind}")
    return path.parent, card


def _save_model(model: keras.Model, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)  # a card must never stand beside a model it does not describe
    temporary = folder / f".new.{MODEL}"
    model.save(temporary)
    checksum = _sha256(temporary)
    temporary.replace(folder / MODEL)
    return checksum


def _load_model(folder: Path, card: Mapping[str, Any]) -> keras.Model:
    path = folder / MODEL
    if not path.is_file():
        raise UserError(f"{path} is missing: copy it beside its card")
    if _sha256(path) != card["sha256"]:
        raise UserError(f"{path} is not the file its card describes (checksum differs): restore the file, or train again")
    return keras.models.load_model(path, compile=False, safe_mode=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolved(path: str, workdir: Path) -> Path:
    """A path of a config with `{workdir}` filled in; `..` is resolved by name, since the workdir need not exist yet."""
    return Path(os.path.normpath(path.replace("{workdir}", str(workdir))))


def load_any(folder: Path) -> Teacher | Student:
    """The teacher or the student of a folder.

    Raises:
        UserError: as `Teacher.load`.
    """
    path = find_card(folder)
    kind = state.read_json(path).get("kind") if path else None
    return Teacher.load(folder) if kind == "teacher" else Student.load(folder)
