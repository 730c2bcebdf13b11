"""The common part of all commands: it parses the flags, and ends a mistake of the user with one sentence and status 2."""

import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags, logging

from hyperrecon_jax.cli import config_flag
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import DataWarning, Diverged, InputError


def run(command: Callable[..., int], *, takes_folders: bool = False) -> None:
    """Parse the flags, call `command` and exit with the status that it returns.

    A mistake of the user ends with one sentence and status 2, a training that diverged with 1, Ctrl-C and SIGTERM with 130.
    Any other exception is a bug of the program and keeps its traceback.

    Args:
        command: what to do. `--help` shows the docstring and the flags of its module.
        takes_folders: whether `command` gets a list of the arguments that are not flags. Without it they are a mistake.
    """
    _silence_libraries()
    _print_notes()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(_help(command.__module__))
            sys.exit()
        folders = config_flag.parse(sys.argv)
        if folders and not takes_folders:
            raise InputError(f"Unknown argument {folders[0]!r}; see --help.")
        sys.exit(command(folders) if takes_folders else command())
    except InputError as error:
        _fail(error, 2)
    except Diverged as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _fail("interrupted.", 130)
    except Exception:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            raise
        _fail("interrupted.", 130)  # a library has turned the interruption into an exception of its own


def parse_numbers(flag: str, values: Sequence[str]) -> list[float]:
    """Return the numbers of a flag that takes a list.

    Raises:
        InputError: if a value is not a number.
    """
    try:
        return [float(value) for value in values]
    except ValueError:
        raise InputError(f"--{flag} must be numbers, got {','.join(values)}.") from None


def _interrupt(*_: object) -> None:
    """Treat SIGTERM like Ctrl-C, so that the command cleans up. A second SIGTERM changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _silence_libraries() -> None:
    """Keep warnings and log messages of libraries away from the user of a command."""
    logging.set_verbosity(logging.FATAL)
    # Orbax writes in several threads. When one write fails, so do others: the first error says all.
    logging.get_absl_logger().manager.getLogger("asyncio").disabled = True
    sys.unraisablehook = lambda _: None
    if not sys.warnoptions:  # `python -W` shows warnings
        warnings.simplefilter("ignore")


def _print_notes() -> None:
    """Print warnings about the user's data as one line each."""
    warnings.simplefilter("default", DataWarning)
    show_warning = warnings.showwarning

    def print_note(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, DataWarning):
            print(f"note: {message}", file=sys.stderr)
        else:
            show_warning(message, category, *place, **options)

    warnings.showwarning = print_note


def _help(module: str) -> str:
    """Return the docstring of a command's module, with its flags."""
    key_flags = flags.FLAGS.get_key_flags_for_module(module)
    width = max(10, *(len(flag.name) + 2 for flag in key_flags))
    lines = [f"  --{flag.name:<{width}}{flag.help}" for flag in key_flags]
    return "\n".join([adapt((sys.modules[module].__doc__ or "").strip()), "", "Flags:", *lines])


def _fail(message: object, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
