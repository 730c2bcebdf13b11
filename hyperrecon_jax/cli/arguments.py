"""Files of flags, and checks of a command line that hold for the flags of all commands."""

import re
from collections.abc import Iterator, Sequence

from absl import flags

from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError


def expand_flag_files(argv: Sequence[str]) -> list[str]:
    """Put the flags of the files that `--flagfile` names in its place; raises `InputError` if one cannot be read."""
    names = [value for _, _, value in flag_values(argv, "flagfile")]
    for name in names:
        path = paths.expand(name, argument="--flagfile")
        if not path.is_file():  # open would wait for a pipe
            reason = "it is no regular file" if path.exists() else "there is no such file"
            raise InputError(f"--flagfile must name a text file of flags, got {name!r}: {reason}.")
    try:
        return [argv[0], *flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)]
    except (flags.Error, OSError, ValueError) as error:  # ValueError: it is not UTF-8
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"--flagfile must name a text file of flags, got {', '.join(names)}: {reason}.") from error


def flag_values(argv: Sequence[str], flag: str) -> Iterator[tuple[int, str, str]]:
    """Yield, for each value of a flag, the index of its argument, the text before it in the argument, and the value."""
    for i, argument in enumerate(argv):
        if match := re.match(rf"--?{flag}(=|$)", argument):
            if match[1]:
                yield i, match[0], argument[match.end() :]
            else:
                yield i + 1, "", argv[i + 1] if i + 1 < len(argv) else ""


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
