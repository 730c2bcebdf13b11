"""What is wrong with `--config FILE:VARIANT --config.KEY=VALUE`, in one sentence.

config_flags raises a kind of its own for each way in which a file, a key or a value is wrong, and some only later.
"""

import contextlib
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from hyperrecon_jax.runtime.errors import InputError


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Around the parsing of flags: every error becomes an `InputError`."""
    file = _file()
    for arg in sys.argv[1:]:
        if key := re.match(r"--?(?:no)?config\.([^=]*)", arg):
            if file is None:
                raise InputError(f"{arg} changes a setting of a config file: name one first with --config FILE.")
            from hyperrecon_jax.runs.config import check_key  # takes a second

            check_key(key[1])
    try:
        if file is not None:
            Path(file).read_bytes()
        yield
        if file is not None and not hasattr(flags.FLAGS["config"].value, "to_dict"):
            raise InputError(f"get_config() of {file} must return a ConfigDict such as default_config().")
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, flags.Error) and not str(error).startswith("flag --config="):
            raise InputError(f"{' '.join(str(error).split()).rstrip('.')}; see --help.") from error
        chain: list[BaseException] = [error]
        while before := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(before)
        if isinstance(chain[-1], InputError):
            raise chain[-1] from None
        raise InputError(f"The config file {file} cannot be used: {_sentence(chain, file)}.") from error


def _file() -> str | None:
    """The file of `--config`, before any parsing."""
    args = [*sys.argv[1:], ""]
    files = []
    for i, arg in enumerate(args):
        if given := re.match(r"--?config(=|$)", arg):
            files.append((arg[given.end() :] if given[1] else args[i + 1]).partition(":")[0])
    if len(files) > 1 or "" in files:
        raise InputError("--config must name one file.")
    return files[0] if files else None


def _sentence(errors: list[BaseException], file: str | None) -> str:
    """What the first of a chain of errors says, the last of the list, and at which line of the file it came up."""
    first, text = errors[-1], " ".join(str(errors[-1]).split())
    told = " ".join(map(str, errors)) if isinstance(first, (AttributeError, KeyError)) else ""  # of a ConfigDict, perhaps
    locked = re.search(r'Key "(\w+)" does not exist', told)
    if near := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', told):
        text = f"{near[2]} is not a setting, unlike {near[1]}"
    elif locked:
        text = f"{locked[1]} is not a setting"
    elif isinstance(first, OSError) and first.strerror:
        text = first.strerror
    elif "no attribute 'get_config'" in text:
        text = "it has no function get_config"
    elif "get_config() takes 0 positional" in text:
        text = "it has no variants, so nothing may follow a colon"
    else:
        text = f"{type(first).__name__}: {text}"
    lines = [f.lineno for e in errors for f in traceback.extract_tb(e.__traceback__) if f.filename == file]
    return f"{text} (line {lines[-1]})" if lines else text
