"""Checks of a command line that hold for the flags of all commands."""

import re
from collections.abc import Sequence

from absl import flags

from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError


def check_characters(argv: Sequence[str]) -> None:
    """Raise `InputError` if an argument has bytes that are not UTF-8 or control characters, or a number has other digits.

    `argv[0]` is the program.
    """
    flag = ""
    for argument in argv[1:]:
        is_flag = argument.startswith("-")
        name, equals, value = argument.partition("=") if is_flag else (flag, "", argument)
        if reason := paths.explain_characters(argument):
            raise InputError(f"The argument {f'{name} {value}'.strip()!r} cannot be used: {reason}; see --help.")
        if _is_number(name.lstrip("-")):
            check_digits(name, value)
        flag = argument if is_flag and not equals else ""


def check_flags() -> None:
    """Raise `InputError` if a parsed flag has no value or an empty one in a list, or was given twice and is no list."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if not flag.present or re.match(r"config\b", name):  # those of the config have checks of their own
            continue
        if flag.present > 1 and not isinstance(flag, flags.MultiFlag):
            raise InputError(f"--{name} must be given once, got it {flag.present} times; see --help.")
        values = flag.value if isinstance(flag.value, list) else [flag.value]
        if not values or any(isinstance(value, str) and not value.strip() for value in values):
            raise InputError(f"--{name} must have a value, and no empty one in a list; see --help.")


def check_digits(name: str, value: str) -> None:
    """Raise `InputError` if a number has other digits than 0 to 9; Python would read them."""
    if not value.isascii():
        raise InputError(f"{name} must be a number with the digits 0 to 9, got {value}.")


def _is_number(name: str) -> bool:
    """Whether a flag of this name takes a number."""
    return name in flags.FLAGS and isinstance(flags.FLAGS[name].parser, (flags.IntegerParser, flags.FloatParser))
