"""The tree: nothing of one machine in it, every module imports, and what must be cheap to import is."""

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
TEXT = {"", *(f".{e}" for e in "cff cfg csv html ini ipynb js json md py rst sh toml txt xml yaml yml".split())}
# Built from pieces, so that this file holds none of them.
_START = r"(?<![\w./~*+}>-])/"
_HOMES = "|".join(("ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers", "sc" + "ratch", "tm" + "p"))
FORBIDDEN = {
    "absolute path": rf"{_START}(?:{_HOMES})/\w|\b[A-Z]:\\+(?![nrt])\w",
    "GPU id": r"(?i)\bcu" + r"da:\d|\bg" + r"pu:\d|visible_" + r"devices\s*=\s*['\"]?\d",
    "workplace": r"(?i)\.lib" + r"rary/|bash_" + r"jobs|str_replace_" + r"based|find_" + r"string|\bcla" + r"ude\b|anth" + r"ropic",
}
# (file, finding): only documentation may hold an example of what is forbidden elsewhere.
ALLOWED: set[tuple[str, str]] = set()


def files() -> list[Path]:
    """All text files that are tracked, or new and not ignored."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    paths = [ROOT / name for name in listed if name]
    return [p for p in paths if p.suffix in TEXT and p.is_file() and not p.is_symlink()]


def findings(text: str) -> list[tuple[str, str]]:
    """(kind, what) for everything forbidden in a text."""
    return [(kind, match[0]) for kind, pattern in FORBIDDEN.items() for match in re.finditer(pattern, text)]


def names_of_people() -> set[str]:
    """The author of the checkout and the account: neither belongs into a file. Short and generic names prove nothing."""
    keys = ("user.name", "user.email")
    asked = [subprocess.run(["git", "config", key], cwd=ROOT, capture_output=True, text=True).stdout.strip() for key in keys]
    generic = {"root", "runner", "user", "admin", "ubuntu", "test", "docker", "build", "python"}
    return {n for n in (*asked, os.environ.get("USER", "")) if len(n) > 4 and n.lower() not in generic}


def test_nothing_of_one_machine_is_in_the_tree():
    found = {(str(p.relative_to(ROOT)), what) for p in files() for _, what in findings(p.read_text(encoding="utf-8"))}
    assert found - ALLOWED == set()
    assert all(name.endswith(".md") for name, _ in ALLOWED)
    assert len(files()) > 20


def test_no_file_names_a_user():
    owner_files = {"LICENSE", "CITATION.cff", "pyproject.toml"}  # there an author belongs
    people = names_of_people()
    found = [(p.name, n) for p in files() if p.name not in owner_files for n in people if n in p.read_text(encoding="utf-8")]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "x = '/ho{}me/ann'",
        "cd /ro{}ot/x",
        "--root=/wo{}rk/main",
        "open('/tm{}p/x.npz')",
        r"C:{}\\Users",
        r'"D:{}\data"',
        "cu{}da:0",
        "/device:G{}PU:1",
    ],
)
def test_the_patterns_find_what_they_are_for(text):
    assert findings(text.replace("{}", ""))


@pytest.mark.parametrize(
    "text", ["https://host/ho{}me/x", "a/ro{}ot/b", "../wo{}rk/x", "runs/tm{}p/x", "the /tm{}p folder", r"\w:\d", r"class A:\n"]
)
def test_the_patterns_leave_the_rest_alone(text):
    assert not findings(text.replace("{}", ""))


# Binaries define the same flags, one binary a process: here each one's flags are taken away again.
LOAD = """
import importlib, sys
from absl import flags
def load(name):
    before = set(flags.FLAGS)
    importlib.import_module(name)
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
"""


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", LOAD + code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_module_imports_in_a_fresh_process():
    code = """
import pkgutil, amalgam_tf
names = [m.name for m in pkgutil.walk_packages(amalgam_tf.__path__, "amalgam_tf.", onerror=print)]
for name in names:
    load(name)
print(len(names))
"""
    assert int(run(code)) >= len(list((ROOT / "amalgam_tf").rglob("*.py"))) - 1


def test_what_must_answer_quickly_does_not_import_tensorflow():
    binaries = [f"amalgam_tf.bin.{p.stem}" for p in (ROOT / "amalgam_tf" / "bin").glob("*.py") if p.stem != "__init__"]
    names = ["amalgam_tf", "amalgam_tf.tasks", "amalgam_tf.data", "configs.common", *binaries]
    code = f"""
for name in {names}:
    load(name)
    if heavy := {{"tensorflow", "keras"}} & set(sys.modules):
        sys.exit(f"{{name}} imports {{heavy}}")
"""
    run(code)
