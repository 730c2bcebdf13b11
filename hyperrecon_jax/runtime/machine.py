"""JAX's settings for this machine: a device for each CPU core, memory that is reused, and a cache of compiled programs.

With the cache, a second start does not compile again. It is the folder `compiled` in `files.cache_folder()`, and may be
deleted at any time. JAX names its entries after the program, the machine, the versions and the settings, and compiles again
where an entry is damaged: the cache can make a start slow, but not wrong.
"""

import contextlib
import ctypes
import importlib.metadata
import os
from pathlib import Path

import jax

from hyperrecon_jax.runtime import files

COMPILATION_CACHE = "compiled"
MAX_CACHE_BYTES = 2**30  # hundreds of experiments, each with a few programs of a megabyte
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # from glibc's malloc.h


def configure_jax(*, has_large_arrays: bool = False) -> None:
    """Configure JAX for this machine, but keep the user's own settings; call it before any computation with JAX.

    Args:
        has_large_arrays: as for `retain_freed_memory`.
    """
    use_all_cores()
    retain_freed_memory(has_large_arrays=has_large_arrays)
    enable_compilation_cache(files.cache_folder() / COMPILATION_CACHE)


def use_all_cores() -> None:
    """Make each CPU core a JAX device, unless the user chose a number of devices.

    A training step on one device keeps one core busy. With a device for each core, each computes its part of the batch.
    """
    if jax.config.jax_num_cpu_devices < 1:  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", core_count())


def core_count() -> int:
    """Return the number of CPU cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
    return cores or 1


def package_version(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed, or is used from its folder."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def retain_freed_memory(*, has_large_arrays: bool = False) -> None:
    """Keep freed memory in the process for the next allocation, if the C library is glibc.

    On a CPU each step allocates its arrays anew. By default glibc returns large blocks to the system when they are freed,
    and the system clears every page when they are allocated again. Call it before JAX starts its threads.

    Args:
        has_large_arrays: a program needs more than 64 MB at once, as batch norm does, which takes all samples through a
            layer. glibc returns such a block in any arena but the main one, whatever the other settings are. So all threads
            share that arena: a step of HyperRecon-L with batch norm takes 0.8 of the time. A small network would be
            slower, because its threads wait for each other: the quickstart takes 1.1 to 1.8 times as long.
    """
    settings = [(M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)]  # -1: never
    if has_large_arrays:
        settings.append((M_ARENA_MAX, 1))
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for option, value in settings:
            libc.mallopt(option, value)


def enable_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in a folder, unless the user chose a folder or no cache.

    If the folder cannot be made, there is no cache. Nor is there one in a folder of another user: the programs in it are
    executed. For the same reason this user alone may write to the folder.
    """
    is_chosen = jax.config.jax_compilation_cache_dir is not None  # type: ignore[attr-defined]
    if is_chosen or not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return
    with contextlib.suppress(OSError):
        if private_folder(folder) is None:
            return
        delete_least_recently_used(folder, MAX_CACHE_BYTES)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # also the many small programs: to read one takes a tenth of the time to compile it
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def private_folder(folder: Path) -> Path | None:
    """Make a folder of files that are executed, to which this user alone may write; None if it is of another user.

    Raises:
        OSError: if it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        return None
    folder.chmod(0o700)
    return folder


def delete_least_recently_used(folder: Path, max_bytes: int) -> None:
    """Delete the files of a folder that were not used for the longest time, until at most `max_bytes` are left.

    JAX has a limit of its own, but when a run is killed while it writes, JAX's bookkeeping fails in all later runs.
    """
    entries = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process deletes files, too
            status = path.stat()
            entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= max_bytes:
            return
        if path.is_file():
            path.unlink(missing_ok=True)
            total -= size
