"""Tasks: what a teacher knows and a user asks for. Everything is routed by task name.

A task never says *where* in a teacher's output its numbers stand: that is the business of the teacher's card
(`teachers.py`). This is the floor of the house: no TensorFlow, nothing of ours but the error class.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
import os
from pathlib import Path
import re
from typing import Any, NamedTuple

from amalgam_tf.errors import UserError, did_you_mean

# head -> the kinds of truth it can be trained and measured against
HEADS = {"sigmoid": "binary", "softmax2": "binary", "softmax": "category", "dense": "dense"}
EVERYTHING = "*"

_RESERVED = {"mean"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Task:
    """One thing to predict.

    Attributes:
        name: the name users type; letters, digits and `_ . + -`.
        kind: `binary` (present or not), `category` (one of `labels`) or `dense` (a map).
        labels: class names of a category task, channel names of a dense one; empty for a binary one.
        head: `sigmoid` (one logit), `softmax2` (two logits), `softmax` (a logit a class) or `dense` (a map of channels).
        codec: name of the encoding of a dense task (data room); empty otherwise.

    Raises:
        UserError: name with other characters, unknown head, head and kind that do not fit, category without labels.
    """

    name: str
    kind: str = "binary"
    labels: tuple[str, ...] = ()
    head: str = "sigmoid"
    codec: str = ""

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        if not is_name(self.name):
            raise UserError(f"task name {self.name!r} is not usable: start with a letter or digit, then only letters, digits and _ . + -")
        if self.name in _RESERVED:
            raise UserError(f"a task cannot be called {self.name!r}, which stands for something else in results: rename it")
        if HEADS.get(self.head) != self.kind:
            raise UserError(f"task {self.name!r}: head {self.head!r} does not fit kind {self.kind!r}; fitting pairs are {HEADS}")
        if (self.kind == "binary") == bool(self.labels):
            raise UserError(f"task {self.name!r}: a binary task has no labels, every other kind names each of its classes or channels")

    @property
    def outputs(self) -> int:
        """Number of logits (or channels) the task takes in a network's output."""
        return {"sigmoid": 1, "softmax2": 2}.get(self.head, len(self.labels))

    def part(self, labels: Iterable[str]) -> "Task":
        """The same task over some of its labels, in the order given: what is left of a joint head (CUST C7).

        Raises:
            UserError: a label the task does not have, or one given twice.
        """
        labels = tuple(labels)
        if unknown := [x for x in labels if x not in self.labels]:
            raise UserError(f"task {self.name!r} has no label {unknown[0]!r}: {did_you_mean(unknown[0], self.labels)}")
        if len(set(labels)) != len(labels):
            raise UserError(f"a part of task {self.name!r} was asked for with a label twice ({', '.join(labels)}): give each once")
        return replace(self, labels=labels)

    def to_json(self) -> dict:
        return {**asdict(self), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, data: dict) -> "Task":
        return cls(**data)


def is_name(text: str) -> bool:
    """Whether a task or a teacher may be called so."""
    return bool(_NAME.fullmatch(text))


class Wanted(NamedTuple):
    """One entry of a user's list: a task (or `*` for all), from one named teacher or from whoever knows it (None)."""

    task: str
    teacher: str | None = None

    def __str__(self):
        return self.task if self.teacher is None else f"{self.task}@{self.teacher}"


def parse(*texts: str | Iterable[str]) -> tuple[Wanted, ...]:
    """Reads what a user asks for: `parse("bus,diningtable", "dog@teacher2")`, `parse("*")`, `parse("*@teacher1")`.

    Args:
        texts: comma-separated strings, or sequences of such strings.

    Returns:
        The entries in the order given, exact repetitions dropped.

    Raises:
        UserError: an entry that cannot be read, or nothing asked for at all.
    """
    pieces = [p.strip() for text in texts for t in ([text] if isinstance(text, str) else text) for p in t.split(",")]
    wanted = []
    for piece in filter(None, pieces):
        task, at, teacher = piece.partition("@")
        names = [task, teacher] if at else [task]
        if not all(is_name(n) or (i == 0 and n == EVERYTHING) for i, n in enumerate(names)):
            raise UserError(f"cannot read {piece!r} in the task list: write task, task@teacher, * or *@teacher, separated by commas")
        entry = Wanted(task, teacher if at else None)
        if entry not in wanted:
            wanted.append(entry)
    if not wanted:
        raise UserError("the task list is empty: name at least one task, or * for all (--config.tasks=dog,horse)")
    return tuple(wanted)


def entries(config: Any) -> dict[str, Any]:
    """The entries of a config's `teachers` that its `tasks` can need.

    All but those that the request does not name where it names teachers, and those whose own `tasks` name none of the wanted ones.

    Raises:
        UserError: a wanted task that none of them can offer.
    """
    pool = config.get("teachers", {})
    known = {name: {t.strip() for t in entry.get("tasks", "").split(",")} - {""} for name, entry in pool.items()}
    needed: set[str] = set()
    for w in parse(config.tasks):
        able = {n for n in pool if w.teacher in (None, n) and (w.task == EVERYTHING or not known[n] or w.task in known[n])}
        if pool and not able:
            offers = "; ".join(f"{n}: {', '.join(sorted(known[n])) or 'what its card says'}" for n in pool)
            raise UserError(f"no teacher offers {w}; {offers}")
        needed |= able
    return {name: entry for name, entry in pool.items() if name in needed}


def resolved(path: str, workdir: Path) -> Path:
    """A path of a config with `{workdir}` filled in; `..` is resolved by name, since the workdir need not exist yet."""
    return Path(os.path.normpath(path.replace("{workdir}", str(workdir))))
