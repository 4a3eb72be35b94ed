"""Which teacher knows which classes: named JSON files, so that a config takes a name or a path.

{"source": where the groups come from, "note" or "command": how the file was made, "groups": {group: [class, ...], ...}}
"""

import csv
import difflib
from importlib import resources
import json
from pathlib import Path

from amalgam_tf.errors import UserError, one_of


def names() -> tuple[str, ...]:
    """The groupings that come with the package, by name."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(n.removesuffix(".json") for n in files if n.endswith(".json")))


def load_groups(name_or_path: str | Path) -> dict[str, tuple[str, ...]]:
    """Reads a grouping of classes.

    Args:
        name_or_path: one of `names()`, or the path of a JSON file of the same form (anything with a `/` or ending in `.json`).

    Returns:
        Group -> its classes, both in the order of the file. No class stands in two groups.

    Raises:
        UserError: name unknown, file missing or malformed, a class twice.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith(".json"):
        return _checked(text, _read(Path(name_or_path)))
    if text not in names():
        close = difflib.get_close_matches(text, names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"no class grouping is called {text!r}: {hint}there are {', '.join(names())}, or give the path of a .json file")
    return _checked(text, _read(resources.files(__name__) / f"{text}.json"))


def _read(file) -> object:
    try:
        return json.loads(file.read_bytes(), object_pairs_hook=_without_repetition)
    except FileNotFoundError as error:
        raise UserError(f"the class grouping {file} does not exist: check the path, or use one of {', '.join(names())}") from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8 and a repeated key
        raise UserError(f"the class grouping {file} cannot be read as JSON: {error}") from error


def _without_repetition(pairs: list[tuple[str, object]]) -> dict:
    keys = [k for k, _ in pairs]
    if twice := [k for k in keys if keys.count(k) > 1]:  # json would silently keep the last and lose a group
        raise ValueError(f"{twice[0]!r} stands there twice")
    return dict(pairs)


def _checked(file: str, data: object) -> dict[str, tuple[str, ...]]:
    groups = data.get("groups") if isinstance(data, dict) else None
    if not isinstance(groups, dict) or not groups:
        raise UserError(f'the class grouping {file} needs a key "groups": {{"teacher1": ["dog", ...], ...}}')
    owner = {}
    for group, classes in groups.items():
        if not isinstance(classes, list) or not classes or not all(isinstance(c, str) and c for c in classes):
            raise UserError(f"the class grouping {file}, group {group!r}: write a list of at least one class name, each in quotes")
        for name in classes:
            if name in owner:
                raise UserError(f"the class grouping {file}: {name!r} stands in {owner[name]!r} and in {group!r}: keep one")
            owner[name] = group
    return {group: tuple(classes) for group, classes in groups.items()}


def celeba_sources(group: str) -> dict[str, tuple[str, ...]]:
    """The source nets of Customize's attribute groups: source -> its attributes, the one it is wanted for first.

    Mouth is the paper's table 2; hair, eye and face are those of the authors' published code, which follows the supplement (its misspelt
    names corrected to CelebA's).

    Args:
        group: mouth, hair, eye or face.

    Raises:
        UserError: another group.
    """
    text = (resources.files(__name__) / "celeba_sources.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines(), strict=True))
    one_of("group of attributes", group, dict.fromkeys(row["group"] for row in rows))
    return {row["source"]: tuple(row["attributes"].split(";")) for row in rows if row["group"] == group}
