"""The configs that come with the software: `configs/` in a checkout, `hyperrecon_jax/configs/` in an installation."""

import os
from pathlib import Path

from hyperrecon_jax.runtime.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDER = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """Return the names of all shipped configs, such as `quickstart`."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def find(config: str) -> str:
    """Return the path of a config that is given by path or by name, with its variant: `FILE` or `FILE:VARIANT`.

    Args:
        config: `FILE`, `FILE:VARIANT`, or `NAME` or `NAME:VARIANT` of a shipped config. A file comes before a name.

    Raises:
        InputError: if it looks like a name, but no shipped config has this name.
    """
    name, colon, variant = config.partition(":")
    is_path = name.endswith(".py") or any(separator in name for separator in (os.sep, "/")) or Path(name).is_file()
    if is_path:
        return config
    if name not in names():
        raise InputError(f"--config must be a file or one of {', '.join(names())}; got {name!r}.")
    return f"{FOLDER / name}.py{colon}{variant}"
