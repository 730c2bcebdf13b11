"""The cache folder, and files that are written completely or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hyperrecon_jax.runtime import paths


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder for prepared data and compiled programs, as an absolute path.

    It is `cache` if given, else `$HYPERRECON_JAX_CACHE` if set, else `hyperrecon_jax` in the user's cache folder.

    Raises:
        InputError: as `paths.expand` does.
    """
    chosen = os.environ.get("HYPERRECON_JAX_CACHE") if cache is None else cache
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyperrecon_jax"
    argument = "`cache`" if cache else "The folder in $HYPERRECON_JAX_CACHE or $XDG_CACHE_HOME,"
    return paths.expand(chosen or default, argument=argument).absolute()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` at the end, or is deleted if an error is raised."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
