"""Where files are kept that are made once, and how they are written: whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Where what is prepared once is kept: `cache`, else `$HYPERRECON_JAX_CACHE`, else in the user's folder of caches."""
    named = os.environ.get("HYPERRECON_JAX_CACHE") if cache is None else cache
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hyperrecon_jax"
    return Path(named or usual).expanduser().absolute()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A file beside `path`, to write to, that takes its place if all goes well, and else goes."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
