"""Compare oneDNN's convolutions with XLA's on this processor: `python -m hyperrecon_jax.models.onednn_trial LIBRARY FILE`.

It prints one line of JSON: for each class of convolutions (`onednn.class_name`) the gains of its cases, XLA's time over
oneDNN's. A class with a wrong number, or that oneDNN cannot compute, is left out. The times are processor time on one core,
and the two alternate, so that other programs on the machine disturb little.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.models import conv, onednn

SHAPES = (  # size, c_in, c_out
    *((128, 2, 32), (128, 32, 32), (64, 64, 32), (32, 32, 64), (16, 32, 32)),
    *((128, 16, 16), (32, 32, 16), (128, 2, 8), (128, 8, 8), (16, 16, 8)),
)
SAMPLES = 2
ROUNDS = 9
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}  # relative to the largest entry

Pair = Callable[[jax.Array, jax.Array], jax.Array]


def measure_gains() -> dict[str, list[float]]:
    """Return the gains of each class, one for each of its cases."""
    gains: dict[str, list[float]] = {}
    failed = set()
    for dtype in TOLERANCE:
        for size, c_in, c_out in SHAPES:
            for function, (by_xla, by_onednn, arguments) in _cases(size, c_in, c_out, dtype).items():
                name = onednn.class_name(function, jnp.dtype(dtype), c_in)
                if name in failed:
                    continue
                try:
                    gain = _gain(by_xla, by_onednn, arguments, TOLERANCE[dtype])
                    gains.setdefault(name, []).append(round(gain, 3))
                except (RuntimeError, ValueError) as error:
                    print(f"{name}, {size} px, {c_in} -> {c_out}: {error}", file=sys.stderr)
                    failed.add(name)
    return {name: values for name, values in gains.items() if name not in failed}


def _cases(size: int, c_in: int, c_out: int, dtype: str) -> dict[str, tuple[Pair, Pair, tuple[jax.Array, jax.Array]]]:
    """XLA's way, oneDNN's and the arguments of each function."""
    rng = np.random.default_rng(0)
    shapes = (1, size + 2, size + 2, c_in), (3, 3, c_in, c_out), (1, size, size, c_out)
    arrays = (rng.standard_normal((SAMPLES, *shape), np.float32) for shape in shapes)
    padded, kernel, ct = (jnp.asarray(array, dtype) for array in arrays)
    return {
        "conv": (conv._conv_by_loop, onednn.conv, (padded[:, :, 1:-1, 1:-1], kernel)),
        "correlate": (conv._correlate_by_loop, onednn.correlate, (padded, ct)),
    }


def _gain(by_xla: Pair, by_onednn: Pair, arguments: tuple[jax.Array, jax.Array], tolerance: float) -> float:
    """Return XLA's time over oneDNN's.

    Raises:
        ValueError: if the numbers differ.
        RuntimeError: if oneDNN cannot compute it.
    """
    programs = [jax.jit(by_xla), jax.jit(by_onednn)]
    expected, actual = (np.asarray(program(*arguments), np.float64) for program in programs)
    error = np.max(np.abs(expected - actual)) / np.max(np.abs(expected))
    if not error <= tolerance:  # also true for NaN
        raise ValueError(f"the numbers differ by {error:.1e}")
    durations: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for program, seconds in zip(programs, durations, strict=True):
            start = time.process_time()
            program(*arguments).block_until_ready()
            seconds.append(time.process_time() - start)
    return statistics.median(durations[0]) / statistics.median(durations[1])


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    onednn.register(onednn.Library(Path(sys.argv[1]), Path()), Path(sys.argv[2]))
    print(json.dumps(measure_gains()))
