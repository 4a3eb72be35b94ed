"""What all binaries share: flags, quiet TensorFlow, one sentence and exit code 2 for everything a user can mend."""

from collections.abc import Callable, Iterator
import contextlib
import os
import runpy
import sys

from absl import app, flags

from amalgam_tf.errors import UserError, explained

_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of a failure.")


def launch(main: Callable[[], None]) -> None:
    """Parses the flags, runs `main` and exits: 0 done, 2 something the user can mend, 130 Ctrl-C."""
    if os.getcwd() not in sys.path:  # console scripts: config files say `from configs import common`
        sys.path.insert(0, os.getcwd())
    try:
        app.define_help_flags()
        leftover = app.parse_flags_with_usage(sys.argv)[1:]
        if leftover:
            raise UserError(f"unexpected argument {leftover[0]!r}: flags start with --, for example --workdir=runs/mine")
        main()
    except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
        # Locked ConfigDicts raise the ordinary errors, with a "Did you mean" hint, while flags are parsed.
        if not isinstance(error, UserError) and flags.FLAGS.is_parsed():
            raise
        _fail(error)
    except Exception as error:
        if (sentence := explained(error)) is None:
            raise
        _fail(sentence)
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {interrupt}" if str(interrupt) else "interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(error: Exception) -> None:
    with contextlib.suppress(flags.UnparsedFlagAccessError):
        if _DEBUG.value:
            raise error
    text = error
    while isinstance(text, Exception):  # ml_collections wraps a KeyError, whose str() is a quoted repr
        text = text.args[0] if text.args else type(text).__name__
    print("error: " + " ".join(str(text).split()), file=sys.stderr)
    sys.exit(2)


def import_tensorflow(logical_cpus: int = 0, first: Callable[[], object] = lambda: None) -> None:
    """Imports TensorFlow without its start-up noise.

    Args:
        logical_cpus: split the CPU into so many logical devices, which must come before the first op; 0: leave it.
        first: called before the first op, for what must come even earlier.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _silent_stderr():
        import tensorflow as tf

        if logical_cpus:
            parts = [tf.config.LogicalDeviceConfiguration()] * logical_cpus
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
        tf.get_logger().setLevel("ERROR")  # a fresh step function per phase looks like retracing to TF
    first()
    with _silent_stderr():
        tf.constant(0)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Points the process's stderr away: the oneDNN notice is printed before TF's logging exists, and only switching oneDNN off would
    silence it, at 8x slower steps."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def train() -> None:
    """Console script `amalgam-train`; as a main module, so that --help shows its text and flags."""
    runpy.run_module("amalgam_tf.bin.train", run_name="__main__", alter_sys=True)


def evaluate() -> None:
    """Console script `amalgam-evaluate`."""
    runpy.run_module("amalgam_tf.bin.evaluate", run_name="__main__", alter_sys=True)


def export() -> None:
    """Console script `amalgam-export`."""
    runpy.run_module("amalgam_tf.bin.export", run_name="__main__", alter_sys=True)


def compare() -> None:
    """Console script `amalgam-compare`."""
    runpy.run_module("amalgam_tf.bin.compare", run_name="__main__", alter_sys=True)


def reproduce() -> None:
    """Console script `amalgam-reproduce`."""
    runpy.run_module("amalgam_tf.bin.reproduce", run_name="__main__", alter_sys=True)
