"""Imports go down only (the house in WORKSPACE.md): every file is read, imports inside functions count too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOOR = {"errors", "tasks"}
LEVEL_0 = {"data", "models", "losses", "choice", "gradnorm", "metrics", "published"}
LEVEL_1 = {
    *("cards", "teachers", "branching", "prefix", "planning", "amalgamation", "distillation", "generation"),
    *("training", "evaluate", "export", "report", "artefacts", "dense", "dense_pool"),
}
LEVELS = {
    **dict.fromkeys(FLOOR, -1),
    **dict.fromkeys(LEVEL_0, 0),
    **dict.fromkeys(LEVEL_1, 1),
    "methods": 2,
    "series": 3,
    "reproduction": 3,
    "bin": 4,
}
OUTSIDE = ("configs", "tools", "tests")  # the package may not lean on what is not installed with it


def imports(source: str, module: str, package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything a module imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -(node.level - 1 if package else node.level) or None] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            parts = first.values[:1] if isinstance(first, ast.JoinedStr) else [first]
            yield from ((node.lineno, str(part.value)) for part in parts if isinstance(part, ast.Constant))


def violations(source: str, module: str, package: bool = False) -> list[str]:
    """What a module of amalgam_tf or configs imports against the rules, as `module:line imports name`.

    Args:
        source: its text.
        module: its dotted name, e.g. `amalgam_tf.methods.afk`.
        package: whether the text is that of an `__init__.py`.
    """
    return [f"{module}:{line} imports {name}" for line, name in imports(source, module, package) if not allowed(module, name, package)]


def allowed(module: str, name: str, package: bool) -> bool:
    target = name.split(".")
    if target[0] in OUTSIDE:
        return module.startswith("configs.") and target[0] == "configs" and target[1:2] and target[1].startswith("common")
    if target[0] != "amalgam_tf":
        return True
    room = target[1] if len(target) > 1 else ""
    if room not in LEVELS:  # `from amalgam_tf import __version__`
        return room == "__version__"
    if module.startswith("configs."):
        return LEVELS[room] <= 0
    here = module.split(".")[1] if "." in module else ""
    if here not in LEVELS:
        return False  # amalgam_tf/__init__.py imports nothing: importing the package is cheap
    if here == room == "methods":
        return package
    if LEVELS[here] in (0, 4):
        return LEVELS[room] < LEVELS[here] or here == room
    return LEVELS[room] <= LEVELS[here] and (LEVELS[here] != -1 or LEVELS[room] == -1)


def modules() -> list[tuple[Path, str]]:
    files = [f for folder in ("amalgam_tf", "configs") for f in sorted((ROOT / folder).rglob("*.py"))]
    return [(f, ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")) for f in files]


def test_imports_go_down_only():
    found = [v for file, module in modules() for v in violations(file.read_text(encoding="utf-8"), module, file.name == "__init__.py")]
    assert found == []


def test_every_room_has_a_level():
    rooms = {module.split(".")[1] for _, module in modules() if module.startswith("amalgam_tf.")}
    assert rooms - set(LEVELS) == set(), "a new room needs a level here and a line in WORKSPACE.md"
    assert {"tasks", "data", "models", "training", "methods", "bin"} <= rooms  # the walk finds the package


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("amalgam_tf.tasks", "from amalgam_tf import losses"),
        ("amalgam_tf.errors", "import amalgam_tf.data"),
        ("amalgam_tf.losses", "from amalgam_tf.training.state import FORMAT"),
        ("amalgam_tf.losses", "from amalgam_tf.models import blocks"),
        ("amalgam_tf.data.voc", "from amalgam_tf.metrics import categorical"),
        ("amalgam_tf.data.voc", "from .. import models"),
        ("amalgam_tf.data.voc", "from ..models.blocks import BlockNet"),
        ("amalgam_tf.teachers", "def f():\n    from amalgam_tf.methods.afk import train"),
        ("amalgam_tf.training.loop", "class A:\n    def f(self):\n        import amalgam_tf.bin.app as app"),
        ("amalgam_tf.methods.afk", "from amalgam_tf.methods.teacher import train"),
        ("amalgam_tf.methods.afk", "from amalgam_tf.methods import teacher"),
        ("amalgam_tf.methods.afk", "from . import teacher"),
        ("amalgam_tf.methods.afk", "from amalgam_tf.bin import app"),
        ("amalgam_tf.methods.afk", "from amalgam_tf import series"),
        ("amalgam_tf.series", "from amalgam_tf.bin import app"),
        ("amalgam_tf.artefacts", "from amalgam_tf import methods"),
        ("amalgam_tf.report", "importlib.import_module('amalgam_tf.methods.afk')"),
        ("amalgam_tf.report", "import_module(f'amalgam_tf.methods.{name}')"),
        ("amalgam_tf.report", "from configs import common"),
        ("amalgam_tf.report", "import tests.conftest"),
        ("amalgam_tf.report", "from amalgam_tf import newroom"),
        ("configs.afk.x", "from amalgam_tf.training import state"),
        ("configs.afk.x", "from amalgam_tf.methods import afk"),
        ("configs.afk.x", "from configs import quickstart"),
        ("configs.afk.x", "import configs.teachers.voc2012_part"),
        ("amalgam_tf.dense", "from configs import common_dense"),
    ],
)
def test_a_planted_violation_is_caught(module, source):
    assert len(violations(f"import os\n{source}\n", module)) == 1


@pytest.mark.parametrize(
    ("module", "package", "source"),
    [
        ("amalgam_tf.tasks", False, "from amalgam_tf.errors import UserError"),
        ("amalgam_tf.data.voc", False, "from amalgam_tf.data.examples import Examples\nfrom . import folder\nimport tensorflow as tf"),
        ("amalgam_tf.data", True, "from . import folder\nfrom .examples import Examples"),
        ("amalgam_tf.training.loop", False, "from amalgam_tf.training import state\nfrom amalgam_tf import teachers, losses, tasks"),
        ("amalgam_tf.methods", True, "def f():\n    importlib.import_module(f'amalgam_tf.methods.{name}')"),
        ("amalgam_tf.methods.afk", False, "from amalgam_tf import branching\nfrom amalgam_tf.data import pipeline"),
        ("amalgam_tf.bin.train", False, "from amalgam_tf.bin import app\ndef f():\n    from amalgam_tf import methods"),
        ("amalgam_tf.reproduction", False, "from amalgam_tf import artefacts, methods, series"),
        ("configs.afk.x", False, "from configs import common\nfrom configs.common import base\nfrom amalgam_tf.data import splits"),
        ("configs.soka.x", False, "from configs import common, common_dense"),
        ("configs.common_dense", False, "from configs import common"),
    ],
)
def test_downward_imports_pass(module, package, source):
    assert violations(source, module, package) == []
