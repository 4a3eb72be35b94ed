"""Scripts of tools/ as modules, for the tests of their functions."""

from collections.abc import Iterator
import contextlib
import importlib.util
from pathlib import Path
from types import ModuleType

from absl import flags

TOOLS = Path(__file__).parents[1] / "tools"


@contextlib.contextmanager
def tool(name: str) -> Iterator[ModuleType]:
    """The script as a module; its flags do not stay in a process where other programs define theirs."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
