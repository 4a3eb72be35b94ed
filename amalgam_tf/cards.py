"""A network's folder: `card.json`, which says what its numbers mean, beside `model.keras`, which it names by checksum.

Nothing that a card says leads out of its folder, and no code comes out of a model file.
"""

from collections.abc import Mapping, Sequence
import hashlib
import os
from pathlib import Path
from typing import Any

import keras

from amalgam_tf.data.transforms import Preprocessing
from amalgam_tf.errors import UserError
from amalgam_tf.tasks import Task
from amalgam_tf.training import state

CARD = "card.json"
MODEL = "model.keras"
_KINDS = dict(name=str, blocks=list, tasks=list, preprocessing=dict, sha256=str, backbone=dict, recipe=dict)  # of a card's entries
_IN_JSON = {str: "a text", list: "a list", dict: "an object {...}"}


def find_card(folder: Path) -> Path | None:
    """The card in a folder, or in the `teacher` or `student` folder of a run's workdir."""
    places = [Path(folder) / CARD, Path(folder) / "teacher" / CARD, Path(folder) / "student" / CARD]
    return next((p for p in places if os.path.isfile(p)), None)  # not Path.is_file, which raises at over-long names


def read_card(folder: Path, kind: str, keys: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    path = find_card(folder)
    if path is None:
        raise UserError(f"{folder} holds no {CARD}: train a {kind} into it first, or correct the path")
    card = state.read_json(path)
    state.check_format(card, path)
    if missing := [k for k in keys if k not in card]:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is not the card of a {kind}")
    if card.get("kind") != kind:
        raise UserError(f"{path} is the card of a {str(card.get('kind'))[:60]}, not of a {kind}: give the folder of a {kind}")
    _check_entries(path, card)
    return path.parent, card


def _check_entries(path: Path, card: Mapping[str, Any]) -> None:
    for key, kind in _KINDS.items():
        if key in card and not isinstance(card[key], kind):
            raise UserError(f"{path}: {key} must be {_IN_JSON[kind]}, not {str(card[key])[:60]!r}: restore the card")
    if not isinstance(card.get("recipe", {}).get("data", {}), dict):
        raise UserError(f"{path}: recipe.data must be an object {{...}}: restore the card")
    if card.get("weights", MODEL) != MODEL:  # a card may not send its reader to another place
        raise UserError(f"{path}: weights is {str(card['weights'])[:60]!r}, but they are {MODEL} beside the card always: copy them there")
    names = card.get("blocks", [])
    if not all(isinstance(n, str) and n.isprintable() and n.strip() and not set(n) & set("/\\") for n in names):
        raise UserError(f"{path}: a block's name must be a text without slashes, not as in {str(names)[:60]}: restore the card")
    if twice := [n for n in names if names.count(n) > 1]:
        raise UserError(f"{path} names block {twice[0]!r} twice: restore the card")


def described(path: Path, card: Mapping[str, Any]) -> tuple[tuple[Task, ...], Preprocessing]:
    """What a card says of the network's ends: its tasks, and what it reads."""
    try:
        for labels in (t.get("labels", []) for t in card["tasks"]):
            if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
                raise UserError("the labels of a task must be a list of texts")
        tasks, preprocessing = tuple(Task.from_json(t) for t in card["tasks"]), Preprocessing.from_json(card["preprocessing"])
    except (TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path} describes its network in a way that cannot be read ({error}): restore the card") from error
    if len({t.name for t in tasks}) != len(tasks) or not tasks:
        raise UserError(
            f"{path} must name at least one task and each once, not {', '.join(t.name for t in tasks) or 'none'}: restore the card"
        )
    return tasks, preprocessing


def check_input(folder: Path, model: keras.Model, preprocessing: Preprocessing) -> None:
    shape, side = tuple(model.inputs[0].shape[1:]), preprocessing.size
    if len(shape) != 3 or any(found not in (None, wanted) for found, wanted in zip(shape, (side, side, 3), strict=True)):
        raise UserError(
            f"{folder / CARD} says that images of {side} x {side} x 3 are read, but {MODEL} reads {shape}: correct the size there"
        )


def write_model(model: keras.Model, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)  # a card must never stand beside a model it does not describe
    temporary = folder / f".new.{MODEL}"
    model.save(temporary)
    checksum = _sha256(temporary)
    temporary.replace(folder / MODEL)
    return checksum


def read_model(folder: Path, card: Mapping[str, Any]) -> keras.Model:
    path = folder / MODEL
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing: copy it beside its card")
    if _sha256(path) != card["sha256"]:
        raise UserError(f"{path} is not the file its card describes (checksum differs): restore the file, or train again")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)  # safe_mode: no code comes out of a file
    except Exception as error:  # Keras fails over damage, unknown layers and refused lambdas in a dozen ways
        line = " ".join(str(error).split())[:160]
        raise UserError(f"{path} cannot be loaded as a Keras model ({type(error).__name__}: {line}): save it again") from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
