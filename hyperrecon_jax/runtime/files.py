"""The cache folder, files that are written completely or not at all, and the lock of a folder."""

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from hyperrecon_jax.runtime import paths

LOCK = ".lock"  # the file by which a process holds a folder
_locked: set[Path] = set()  # the lock files that this process holds


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
    """Yield a temporary path to write to; it replaces `path` at the end, or is deleted if an error is raised.

    The content is on the disk before it replaces the file: after a power cut the file is the old or the new one.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        flush_to_disk(partial)
        os.replace(partial, path)
        flush_to_disk(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the list of files in a folder, is on the disk; not every system can do that for a folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def lock_folder(folder: Path, name: str = LOCK) -> Iterator[str | None]:
    """Inside, this process holds the lock of a folder, a file in it.

    The lock ends with its process, however that ends. Within a process it may be taken several times. It holds between
    computers too, on disks that have `flock` (NFS; Lustre mounted with "flock"). On others, and on Windows, there is none.

    Args:
        folder: an existing folder.
        name: name of the file, which is deleted at the end.

    Yields:
        "" if this process holds the lock, None if there is none, or who holds it: "process 12 on HOST".

    Raises:
        OSError: if the file cannot be made.
    """
    path = folder.resolve() / name
    if path in _locked:
        yield ""
        return
    descriptor, has_lock = _open_lock(path)
    try:
        if has_lock is False:
            yield path.read_text() or "an unknown process"
            return
        _locked.add(path)
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
            yield "" if has_lock else None
        finally:
            _locked.remove(path)
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> tuple[int, bool | None]:
    """The descriptor of a lock file, and whether this process has the lock; None where the disk has no locks."""
    try:
        import fcntl  # here, because Windows does not have it
    except ImportError:
        return os.open(path, os.O_RDWR | os.O_CREAT), None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor, True
        except BlockingIOError:
            return descriptor, False
        except FileNotFoundError:  # its holder has just deleted it
            pass
        except OSError:
            return descriptor, None
        os.close(descriptor)
