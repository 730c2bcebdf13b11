"""How much memory there is, and how much something takes, before it is compiled."""

from collections.abc import Callable
from typing import Any

import jax
import psutil

Tree = Any


def free() -> int:
    """Bytes that are free for each local device; the cores of a CPU share theirs."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return psutil.virtual_memory().available // len(devices)


def num_bytes(tree: Tree) -> int:
    """Bytes of the arrays of a tree, or of what `jax.eval_shape` tells of them."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def of_backward(f: Callable[..., Any], *args: Any) -> int:
    """Bytes that a backward pass through `f(*args)` keeps of the forward pass: every activation.

    Of a forward pass alone it is an upper bound.
    """
    return num_bytes(jax.eval_shape(lambda *args: jax.vjp(f, *args)[1], *args))


def shown(size: int) -> str:
    """Bytes as people read them, such as "2.2 GB"."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"
