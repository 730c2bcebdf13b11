"""The common part of all commands: it parses the flags, and ends a mistake of the user with one sentence and status 2."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from hyperrecon_jax.cli import arguments, config_flag, messages
from hyperrecon_jax.runtime import interrupts, paths
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import Diverged, InputError


def run(command: Callable[..., int], *, takes_folders: bool = False) -> None:
    """Parse the flags, call `command` and exit with the status that it returns.

    A mistake of the user ends with one sentence and status 2, a training that diverged with 1, Ctrl-C and SIGTERM with 130.
    Any other exception is a bug of the program and keeps its traceback.

    Args:
        command: what to do. `--help` shows the docstring and the flags of its module.
        takes_folders: whether `command` gets a list of the arguments that are not flags. Without it they are a mistake.
    """
    messages.silence_libraries()
    messages.show_data_warnings()
    is_interrupted = interrupts.end_on_signals()
    try:
        status = _call(command, is_interrupted, takes_folders=takes_folders)
        interrupts.finish(status)
    except KeyboardInterrupt:
        status = interrupts.STATUS
        print("error: interrupted.", file=sys.stderr)
        interrupts.finish(status)
    sys.exit(status)


def parse_path(flag: flags.FlagHolder[Any]) -> Path | None:
    """Return the path that a flag names, None if the flag is not given; raises `InputError` as `paths.expand` does."""
    return None if flag.value is None else paths.expand(flag.value, argument=f"--{flag.name}")


def parse_numbers(flag: str, values: Sequence[str]) -> list[float]:
    """Return the numbers of a flag that takes a list.

    Raises:
        InputError: if a value is not a number, in the digits 0 to 9.
    """
    for value in values:
        arguments.check_digits(f"--{flag}", value)
    try:
        return [float(value) for value in values]
    except ValueError:
        raise InputError(f"--{flag} must be numbers, got {','.join(values)}.") from None


def _call(command: Callable[..., int], is_interrupted: Callable[[], bool], *, takes_folders: bool) -> int:
    """Parse the flags and call `command`; returns its status, or that of a mistake, which is printed."""
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(_help(command.__module__))
            return 0
        folders = config_flag.parse(sys.argv)
        if folders and not takes_folders:
            raise InputError(f"Unknown argument {folders[0]!r}; see --help.")
        return command(folders) if takes_folders else command()
    except Exception as error:
        if is_interrupted():  # a library has turned the interruption into an exception of its own
            raise KeyboardInterrupt from error
        if not isinstance(error, (InputError, Diverged)):
            raise
        messages.print_error(error)
        return 2 if isinstance(error, InputError) else 1


def _help(module: str) -> str:
    """Return the docstring of a command's module, with its flags."""
    key_flags = flags.FLAGS.get_key_flags_for_module(module)
    width = max(10, *(len(flag.name) + 2 for flag in key_flags))
    lines = [f"  --{flag.name:<{width}}{flag.help}" for flag in key_flags]
    return "\n".join([adapt((sys.modules[module].__doc__ or "").strip()), "", "Flags:", *lines])
