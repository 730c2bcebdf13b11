"""The memory of this machine, and the memory that arrays and computations need."""

from collections.abc import Callable
from typing import Any

import jax
import psutil

Tree = Any


def free_bytes() -> int:
    """Return the free memory of each local device in bytes; the cores of a CPU share theirs equally."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return psutil.virtual_memory().available // len(devices)


def total_bytes() -> int:
    """Return the memory of a local device in bytes; for a CPU that of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or psutil.virtual_memory().total


def num_bytes(tree: Tree) -> int:
    """Return the size in bytes of a tree of arrays or of `jax.ShapeDtypeStruct`."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def backward_bytes(function: Callable[..., Any], *args: Any) -> int:
    """Return the size in bytes of what the backward pass of `function(*args)` needs from the forward pass: all activations.

    It is an upper bound for the memory of a forward pass alone. Nothing is computed or compiled.
    """
    return num_bytes(jax.eval_shape(lambda *args: jax.vjp(function, *args)[1], *args))


def format_bytes(size: int) -> str:
    """Format a size in bytes for people, such as "2.2 GB"."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"
