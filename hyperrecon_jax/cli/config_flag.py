"""Parsing of the flags, with `--config FILE:VARIANT` or `--config NAME:VARIANT`, and `--config.KEY=VALUE`.

`ml_collections` raises many kinds of exceptions for a file, a key or a value that is wrong, some of them late. Here each
becomes one sentence.
"""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from hyperrecon_jax.cli import arguments
from hyperrecon_jax.runs import shipped_configs
from hyperrecon_jax.runtime.errors import InputError

# The command line that is parsed. A flag `--config` must be defined with it: `ml_collections` would read files of flags.
ARGV: list[str] = []


def parse(argv: Sequence[str]) -> list[str]:
    """Parse a command line, its first element being the program; returns the arguments that are not flags.

    Raises:
        InputError: if a flag, the config file or one of its settings is wrong.
    """
    argv = arguments.expand_flag_files(argv)
    arguments.check_characters(argv)
    file = _resolve_config(argv)
    _check_settings(argv, file)
    ARGV[:] = argv
    try:
        if file is not None:
            Path(file).read_bytes()
        positional = flags.FLAGS(argv)[1:]
        arguments.check_flags()
        if file is not None and not hasattr(flags.FLAGS["config"].value, "to_dict"):
            raise InputError(f"get_config() of {file} must return a ConfigDict such as default_config().")
        return positional
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, flags.Error) and not str(error).startswith("flag --config="):
            raise InputError(f"{' '.join(str(error).split()).rstrip('.')}; see --help.") from error
        chain = _causes(error)
        if isinstance(chain[-1], InputError):
            raise chain[-1] from None
        raise InputError(f"The config file {file} cannot be used: {_describe(chain, file)}.") from error


def default_workdir() -> Path:
    """Return `runs/CONFIG` or `runs/CONFIG-VARIANT` for the config of the parsed flags."""
    file, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return Path("runs", "-".join(filter(None, [Path(file).stem, variant])))


def _resolve_config(argv: list[str]) -> str | None:
    """Put the path of a shipped config in the place of its name, and return the file that `--config` names, if any."""
    places = list(arguments.flag_values(argv, "config"))
    if len(places) > 1 or any(not value.partition(":")[0] for _, _, value in places):
        raise InputError("--config must name one file.")
    for i, prefix, value in places:
        path = shipped_configs.find(value)
        argv[i] = prefix + path
        return path.partition(":")[0]
    return None


def _check_settings(argv: Sequence[str], file: str | None) -> None:
    """Raise an error if `--config.KEY` stands without a config file, or if there is no setting of that name."""
    for argument in argv[1:]:
        if setting := re.match(r"--?(?:no)?config\.([^=]*)", argument):
            if file is None:
                raise InputError(f"{argument} changes a setting of a config file: name one first with --config FILE.")
            from hyperrecon_jax.runs.config import check_key  # takes a second

            default, value = check_key(setting[1]), argument.partition("=")[2]
            if isinstance(default, (int, float)):
                arguments.check_digits(f"config.{setting[1]}", value)


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception, what caused it, and so on to the first cause."""
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    return chain


def _describe(chain: Sequence[BaseException], file: str | None) -> str:
    """Say in a sentence what the first cause of a chain of exceptions is, and at which line of the config file it arose."""
    cause, text = chain[-1], " ".join(str(chain[-1]).split())
    # A ConfigDict raises one of these for an unknown setting, with the details in a later exception.
    details = " ".join(map(str, chain)) if isinstance(cause, (AttributeError, KeyError)) else ""
    unknown = re.search(r'Key "(\w+)" does not exist', details)
    if similar := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', details):
        text = f"{similar[2]} is not a setting, unlike {similar[1]}"
    elif unknown:
        text = f"{unknown[1]} is not a setting"
    elif isinstance(cause, SystemExit):
        text = "it ends the program"
    elif isinstance(cause, OSError) and cause.strerror:
        text = cause.strerror
    elif "no attribute 'get_config'" in text:
        text = "it has no function get_config"
    elif "get_config() takes 0 positional" in text:
        text = "it has no variants, so nothing may follow a colon"
    else:
        text = f"{type(cause).__name__}: {text}"
    frames = [frame for error in chain for frame in traceback.extract_tb(error.__traceback__)]
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{text} (line {lines[-1]})" if lines else text
