"""Checks of a command line that hold for the flags of all commands."""

import re
from collections.abc import Sequence

from absl import flags

from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError


def check_characters(argv: Sequence[str]) -> None:
    """Raise `InputError` if an argument has bytes that are not UTF-8, or control characters; `argv[0]` is the program."""
    flag = ""
    for argument in argv[1:]:
        name, _, value = argument.partition("=")
        is_flag = argument.startswith("-")
        if reason := paths.explain_characters(argument):
            where = name if is_flag else f"{flag} {argument}".strip()
            raise InputError(f"The argument {where!r} cannot be used: {reason}; see --help.")
        flag = name if is_flag and not value else ""


def check_flags() -> None:
    """Raise `InputError` if a parsed flag was given twice, or has no value or an empty one in a list."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if not flag.present or re.match(r"config\b", name):  # those of the config have checks of their own
            continue
        if flag.present > 1:
            raise InputError(f"--{name} must be given once, got it {flag.present} times; see --help.")
        values = flag.value if isinstance(flag.value, list) else [flag.value]
        if not values or any(isinstance(value, str) and not value.strip() for value in values):
            raise InputError(f"--{name} must have a value, and no empty one in a list; see --help.")
