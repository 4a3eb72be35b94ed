"""Teachers and their cards; pools of teachers; and the card of a finished student.

A teacher is a frozen chain of blocks plus a card that says what its logits mean. On disk it is a folder:
`card.json` beside `model.keras` (the blocks as nested functional models). Where a task's rows stand in the head is
written in the card and nowhere else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from amalgam_tf import cards
from amalgam_tf.cards import CARD, MODEL
from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.models import adapters as _registered  # noqa: F401  a saved student holds its layers
from amalgam_tf.models.blocks import BlockNet, policies, rebuilt, safe_name
from amalgam_tf.tasks import EVERYTHING, Task, Wanted, is_name
from amalgam_tf.training import state

_RESERVED = ("student", "student_before_finetune", "teacher", "data", "images", "skipped", "truth")  # names in results, scores and folders
# Leaves of the data section that move no image from the train to the test split.
_SPLITS_ALIKE = {
    *("root", "cache_dir", "download", "on_bad_image", "part", "part_count", "part_seed"),
    *("classes", "groups", "task", "fit", "binary_head", "one_vs_rest", "train_reader", "train_root"),
}
_TEACHER_KEYS = ("name", "blocks", "tasks", "preprocessing", "sha256")


Outputs = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]  # images in 0..255 -> task name -> logits, or maps


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
    card: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        rows, needed = self.net.shapes[self.net.names[-1]][-1], sum(t.outputs for t in self.tasks)
        if rows != needed:
            raise UserError(
                f"teacher {self.name}: its last block writes {rows} numbers, its tasks need {needed}; correct the task list of the card"
            )

    def task(self, name: str) -> Task:
        return next(t for t in self.tasks if t.name == name)

    def offers(self, task: Task) -> bool:
        """Whether a task is its own, or a part of one: a category task over some of the classes of a joint head (CUST C7)."""
        home = self._home(task)
        return home is not None and home.kind == task.kind and set(task.labels) <= set(home.labels)

    def _home(self, task: str | Task) -> Task | None:
        """The own task that a wanted one is, or is a part of."""
        name = task if isinstance(task, str) else task.name
        own = next((t for t in self.tasks if t.name == name), None)
        if own or isinstance(task, str) or task.kind != "category":
            return own
        return next((t for t in self.tasks if t.kind == "category" and set(task.labels) <= set(t.labels)), None)

    def rows(self, wanted: Iterable[str | Task]) -> list[int]:
        """Rows of the head that hold these tasks, in the order asked for.

        Args:
            wanted: names, or tasks; a part of one of the teacher's (`offers`) gives only the rows of its labels, in its own order.

        Raises:
            UserError: a task or a label the teacher does not have.
        """
        starts, row = {}, 0
        for task in self.tasks:
            starts[task.name] = row
            row += task.outputs
        rows = []
        for entry in wanted:
            home = self._home(entry)
            if home is None:
                raise UserError(f"teacher {self.name} does not know {entry}: it knows {', '.join(starts)}")
            labels = home.labels if isinstance(entry, str) else home.part(entry.labels).labels
            places = [home.labels.index(x) for x in labels] or range(home.outputs)
            rows += [starts[home.name] + i for i in places]
        return rows

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """float32 logits [batch, rows] of images [batch, size, size, 3] in 0..255, in inference mode."""
        return tf.cast(self.net.run(self.preprocessing(images), training=False), tf.float32)

    def outputs(self, images: tf.Tensor, tasks: Sequence[Task] | None = None) -> dict[str, tf.Tensor]:
        """Task name -> its float32 logits [batch, outputs]; of all tasks by default."""
        logits = self.logits(images)
        return {t.name: columns(logits, self.rows([t])) for t in (self.tasks if tasks is None else tasks)}

    def save(self, folder: Path) -> None:
        """Writes model and card; the card, which carries the model's checksum, appears last and at once."""
        folder = Path(folder)
        checksum = cards.write_model(self.net.as_model(safe_name(self.name)), folder)
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
        folder, card = cards.read_card(folder, "teacher", _TEACHER_KEYS)
        tasks, preprocessing = cards.described(folder / CARD, card)
        model = cards.read_model(folder, card)
        blocks = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
        if not all(isinstance(b, keras.Model) and len(b.inputs) == len(b.outputs) == 1 for b in blocks):
            raise UserError(f"{folder / MODEL} is no chain of blocks: make a teacher of an ordinary model with tools/import_teacher.py")
        if len(blocks) != len(card["blocks"]):
            raise UserError(
                f"{folder / CARD} names {len(card['blocks'])} blocks but {MODEL} holds {len(blocks)}: the two files do not belong together"
            )
        net = BlockNet(dict(zip(card["blocks"], blocks, strict=True)))
        cards.check_input(folder, blocks[0], preprocessing)
        return cls(name or card["name"], net, tasks, preprocessing, card)


@dataclass(frozen=True)
class Student:
    """A finished student: one functional model with a dict of logits by task, and its card."""

    model: keras.Model
    tasks: tuple[Task, ...]
    preprocessing: Preprocessing
    card: dict[str, Any] = field(default_factory=dict, repr=False)

    def outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Task name -> float32 logits [batch, outputs] of images [batch, size, size, 3] in 0..255."""
        logits = self.model(self.preprocessing(images), training=False)
        return {t.name: tf.cast(logits[t.name], tf.float32) for t in self.tasks}

    def save(self, folder: Path) -> None:
        folder = Path(folder)
        checksum = cards.write_model(self.model, folder)
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
        """Reads a student's folder (or a run's workdir that holds one).

        Raises:
            UserError: as `Teacher.load`.
        """
        folder, card = cards.read_card(folder, "student", ("tasks", "preprocessing", "sha256"))
        tasks, preprocessing = cards.described(folder / CARD, card)
        model = cards.read_model(folder, card)
        written = {n: t.shape[-1] for n, t in model.output.items()} if isinstance(model.output, dict) else {}
        if written != {t.name: t.outputs for t in tasks}:
            raise UserError(f"{folder / MODEL} writes {written or 'no logits by task'}, not the tasks of its {CARD}: restore both files")
        cards.check_input(folder, model, preprocessing)
        return cls(model, tasks, preprocessing, card)


class Pool:
    """Teachers by name, and the question who knows what.

    Args:
        teachers: of different names.
        parts: category tasks that may be over some classes only of a teacher's task: offered besides it, or in its place under one name.
    """

    def __init__(self, teachers: Sequence[Teacher], parts: Sequence[Task] = ()):
        for t in teachers:
            if not is_name(t.name) or t.name in _RESERVED:
                raise UserError(
                    f"a teacher cannot be called {t.name!r}: use letters, digits and _ . + -, and none of {', '.join(_RESERVED)}"
                )
        self.teachers = {t.name: t for t in teachers}
        if len(self.teachers) != len(teachers):
            raise UserError(f"two teachers share a name: {[t.name for t in teachers]}; give each its own key in config.teachers")

        self._offered: dict[str, tuple[Task, ...]] = {}
        for t in teachers:
            offered = {p.name: p for p in parts if p.kind == "category" and t.offers(p)}
            self._offered[t.name] = tuple({**{own.name: own for own in t.tasks}, **offered}.values())

    def __getitem__(self, name: str) -> Teacher:
        return self.teachers[name]

    def offers(self) -> str:
        """One line: what each teacher knows."""
        return "; ".join(f"{name}: {', '.join(x.name for x in offered)}" for name, offered in self._offered.items())

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
                for task in self._offered[t.name]
                if entry.task in (EVERYTHING, task.name) and t.name in pins.get(task.name, {t.name})
            ]
            if not streams:
                raise UserError(f"no teacher offers {entry}; {self.offers()}")
            found |= dict.fromkeys(streams)
        return tuple(found)


def columns(rows, places: Sequence[int]):
    """Some columns of an array or tensor [..., rows], in this order; a slice where they stand side by side."""
    if list(places) == list(range(places[0], places[-1] + 1)):
        return rows[..., places[0] : places[-1] + 1]
    return rows[..., list(places)] if isinstance(rows, np.ndarray) else tf.gather(rows, list(places), axis=-1)


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
        different = [k for k, v in options.items() if k not in _SPLITS_ALIKE and there.get(k, v) != v]
        if "reader" in different and set(options["reader"].split("+")) & set(there.get("reader", "").split("+")):
            different.remove("reader")  # joined sets keep their splits
        if different:
            notes.append(
                f"note: teacher {t.name} was trained with other data settings ({', '.join(different)}): it may have seen the test images"
            )
    return notes


# -- files ------------------------------------------------------------------------------------------------------------
def load_any(folder: Path) -> Teacher | Student:
    """The teacher or the student of a folder.

    Raises:
        UserError: as `Teacher.load`.
    """
    path = cards.find_card(folder)
    card = state.read_json(path) if path else None
    kind = card.get("kind") if isinstance(card, dict) else None
    return Teacher.load(folder) if kind == "teacher" else Student.load(folder)
