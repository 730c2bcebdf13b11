"""The configs that come with the software: `configs/` in a checkout, `hyperrecon_jax/configs/` in an installation."""

import os
from pathlib import Path

from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDER = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


def find(config: str, *, folder: Path = FOLDER, flag: str = "--config") -> str:
    """Return the path of a config that is given by path or by name, with its variant: `FILE` or `FILE:VARIANT`.

    Args:
        config: `FILE`, `FILE:VARIANT`, or `NAME` or `NAME:VARIANT` of a shipped config. A file comes before a name.
        folder: where the shipped ones are.
        flag: the flag that has the value, for the message of an error.

    Raises:
        InputError: if it looks like a name, but no shipped config has this name; or as `paths.expand` does.
    """
    name, colon, variant = config.partition(":")
    path = paths.expand(name, argument=flag)
    if name.endswith(".py") or any(separator in name for separator in (os.sep, "/")) or path.is_file():
        return f"{path}{colon}{variant}" if name.startswith("~") else config
    names = sorted(path.stem for path in folder.glob("*.py"))
    if name not in names:
        raise InputError(f"{flag} must be a file or one of {', '.join(names)}; got {name!r}.")
    return f"{folder / name}.py{colon}{variant}"
