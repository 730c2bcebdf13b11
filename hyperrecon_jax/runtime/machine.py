"""What this process computes on: each core of a CPU as a device, memory that it has, programs that were compiled before.

What is compiled is kept on disk, so that the second start need not compile it: in `compiled` in the folder of caches
(`files.cache_folder`), which may be deleted at any time. What was compiled for another machine, version or setting has
another name there, and what is damaged is compiled again: a start can become slow by it, not wrong.
"""

import contextlib
import ctypes
import os
from pathlib import Path

import jax

from hyperrecon_jax.runtime import files

COMPILED = "compiled"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
LARGEST = 2**30  # bytes of what is kept: hundreds of experiments, each a few programs of a megabyte


def start() -> None:
    """Make ready; call it before anything runs on JAX. What the user has chosen for JAX stays."""
    use_all_cores()
    keep_memory()
    keep_compiled(files.cache_folder() / COMPILED)


def use_all_cores() -> None:
    """Make each CPU core a JAX device, unless the user chose a number.

    One step keeps one core busy: each core takes its part of the batch, as each accelerator would.
    """
    if jax.config.jax_num_cpu_devices < 1:  # type: ignore[attr-defined]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
        jax.config.update("jax_num_cpu_devices", cores or 1)


def keep_memory() -> None:
    """Where the C library is glibc, keep memory that is freed for what is allocated next.

    On a CPU a step allocates what it needs anew. By default large blocks go back to the system when they are freed, which
    clears every page of them when they are touched again: 7 % of a step of HyperRecon-L at 128 x 128, two cores.
    """
    with contextlib.suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
            allocator.mallopt(option, value)


def keep_compiled(folder: Path) -> None:
    """Keep what is compiled in a folder, unless the user chose one of JAX's, or none, or it cannot be made."""
    chosen = jax.config.jax_compilation_cache_dir is not None  # type: ignore[attr-defined]
    if chosen or not jax.config.jax_enable_compilation_cache:  # type: ignore[attr-defined]
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        trim(folder, LARGEST)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # the many small programs too: one that is read takes a tenth of the time
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def trim(folder: Path, largest: int) -> None:
    """Delete what was not used for the longest time, until `largest` bytes are left.

    Not by JAX itself: a run that is killed while it writes makes JAX's own bookkeeping fail in all later ones.
    """
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process trims, too
            status = path.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= largest:
            return
        if path.is_file():
            path.unlink(missing_ok=True)
            total -= size
