"""Compare native kernels with XLA's on this processor: `python -m hyperrecon_jax.models.native_trial LIBRARY FILE`.

It prints one line of JSON: for each class of operations (`native.class_name`) the gains of its cases, XLA's time over
the kernel's. A class with a wrong number, or that it cannot compute, is left out. The times are processor time on one core,
the least of several calls, and the two alternate, so that other programs on the machine disturb little.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.models import conv, native, norm

SHAPES = (  # size, c_in, c_out
    *((128, 2, 32), (128, 32, 32), (64, 64, 32), (32, 32, 64), (16, 32, 32)),
    *((128, 16, 16), (32, 32, 16), (128, 2, 8), (128, 8, 8), (16, 16, 8)),
)
PADDED_SHAPES = (128, 16, 2), (32, 16, 2), (128, 8, 2)  # forward only
NORM_SHAPES = (128, 32), (64, 32), (16, 32), (128, 16), (32, 16), (128, 8), (16, 8), (128, 4), (32, 4)  # size, channels
SAMPLES = 2
ROUNDS = 9
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}  # relative to the largest entry

Function = Callable[..., Any]
Case = tuple[str, Function, Function, tuple[jax.Array, ...]]  # class, by XLA, by the kernel, arguments


def measure_gains() -> dict[str, list[float]]:
    """Return the gains of each class, one for each of its cases."""
    gains: dict[str, list[float]] = {}
    failed = set()
    for dtype in TOLERANCE:
        cases = [case for shape in SHAPES for case in _convolution_cases(*shape, dtype)]
        cases += [_convolution_cases(*shape, dtype)[0] for shape in PADDED_SHAPES]
        cases += [_norm_case(*shape, dtype) for shape in NORM_SHAPES]
        for name, by_xla, by_kernel, arguments in cases:
            if name in failed:
                continue
            try:
                gain = _gain(by_xla, by_kernel, arguments, TOLERANCE[dtype])
                gains.setdefault(name, []).append(round(gain, 3))
            except (RuntimeError, ValueError) as error:
                print(f"{name}, {[argument.shape for argument in arguments]}: {error}", file=sys.stderr)
                failed.add(name)
    return {name: values for name, values in gains.items() if name not in failed}


def _convolution_cases(size: int, c_in: int, c_out: int, dtype: str) -> list[Case]:
    rng = np.random.default_rng(0)
    shapes = (1, size, size, c_in), (3, 3, c_in, c_out), (1, size, size, c_out)
    arrays = (rng.standard_normal((SAMPLES, *shape), np.float32) for shape in shapes)
    x, kernel, ct = (jnp.asarray(array, dtype) for array in arrays)
    by_loop, by_kernel = (partial(function, sides=(3, 3)) for function in (conv._correlate_by_loop, native.correlate))
    is_padded = c_out < native.OUTPUTS_STEP
    return [
        (native.class_name("conv", x.dtype, c_in, is_padded=is_padded), conv._conv_by_loop, native.conv, (x, kernel)),
        (native.class_name("correlate", x.dtype, c_in), by_loop, by_kernel, (x, ct)),
    ]


def _norm_case(size: int, channels: int, dtype: str) -> Case:
    """The norm and its gradient. The entries are odd numbers, none near the kink of ReLU, where rounding decides."""
    rng = np.random.default_rng(0)
    x, ct = jnp.asarray(2 * rng.integers(-3, 3, (2, SAMPLES, size, size, channels)) + 1, dtype)
    scale, bias = jnp.asarray(1 + rng.random((SAMPLES, channels)), jnp.float32), jnp.zeros((SAMPLES, channels))

    def with_gradient(function: Function) -> Function:
        def run(x, scale, bias, ct):
            y, pull_back = jax.vjp(jax.vmap(function), x, scale, bias)
            return y, *pull_back(ct)

        return run

    functions = with_gradient(norm.instance_norm_relu_by_xla), with_gradient(norm.instance_norm_relu_by_kernel)
    return native.class_name("norm", x.dtype, channels), *functions, (x, scale, bias, ct)


def _gain(by_xla: Function, by_kernel: Function, arguments: tuple[jax.Array, ...], tolerance: float) -> float:
    """Return XLA's time over the kernel's.

    Raises:
        ValueError: if the numbers differ.
        RuntimeError: if the kernel cannot compute it.
    """
    programs = [jax.jit(by_xla), jax.jit(by_kernel)]
    for expected, actual in zip(*(jax.tree.leaves(program(*arguments)) for program in programs), strict=True):
        largest = jnp.max(jnp.abs(expected.astype(jnp.float32)))
        error = jnp.max(jnp.abs(expected.astype(jnp.float32) - actual.astype(jnp.float32))) / largest
        if not error <= tolerance:  # also true for NaN
            raise ValueError(f"the numbers differ by {error:.1e}")
    durations: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for program, seconds in zip(programs, durations, strict=True):
            start = time.process_time()
            jax.block_until_ready(program(*arguments))
            seconds.append(time.process_time() - start)
    return min(durations[0]) / min(durations[1])


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    native.register(native.Library(Path(sys.argv[1]), Path()), Path(sys.argv[2]))
    print(json.dumps(measure_gains()))
