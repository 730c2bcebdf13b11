"""The floor: how fast this machine could be at most, from what a computation cannot do without.

    floor = max(floating-point operations / rate of a large matrix product, bytes that must move / rate of a large copy)

Both rates are measured here, over all local devices at once. The counts come from the target network's own shapes, so that
they hold for any target and do not depend on how it is computed: the operations of its convolutions, each of which reads
its input and writes its output once. Everything else (norms, up-sampling, the loss) is taken to be free. Where activations
stay in the cache the memory's floor can be beaten.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.models.model import Model, count_parameters, generate_weights
from hyperrecon_jax.runtime.memory import num_bytes
from hyperrecon_jax.runtime.mesh import SHARDED, device_mesh, place

Tree = Any
CALLS = 7  # of each measurement; the fastest is the machine's rate


class Work(NamedTuple):
    """What something cannot do without."""

    flops: float
    bytes: float
    dtype: str = "float32"  # of the products


class Rates(NamedTuple):
    """What the machine can do in a second."""

    flops: float
    bytes: float


def floor(work: Work, rates: Rates) -> tuple[float, str]:
    """Seconds that `work` takes at least, and what sets them: "arithmetic" or "memory"."""
    arithmetic, memory = work.flops / rates.flops, work.bytes / rates.bytes
    return (arithmetic, "arithmetic") if arithmetic >= memory else (memory, "memory")


def total(work: Work, times: float) -> Work:
    """The same so many times over."""
    return work._replace(flops=work.flops * times, bytes=work.bytes * times)


def convolution(images: int, shape: tuple[int, ...], kernel: tuple[int, ...], dtype: str = "float32") -> Work:
    """A convolution, forward, with a kernel for each image; result `(h, w, c_out)`, kernel `(kh, kw, c_in, c_out)`."""
    size = jnp.dtype(dtype).itemsize
    height, width, _ = shape
    kh, kw, c_in, c_out = kernel
    moved = height * width * (c_in + c_out) + kh * kw * c_in * c_out
    return Work(2.0 * images * height * width * kh * kw * c_in * c_out, 1.0 * size * images * moved, dtype)


def forward(model: Model, variables: Tree, example: jax.ShapeDtypeStruct, *, terms: int) -> Work:
    """One image through the main network, its weights given: the sum over its convolutions. `terms` is K of the loss."""
    lam = jax.ShapeDtypeStruct((terms - 1,), jnp.float32)
    theta = jax.eval_shape(lambda params, lam: generate_weights(model, params, lam), variables["params"], lam)
    parts = list(_convolutions(model, theta, variables["batch_stats"], example))
    return Work(sum(part.flops for part in parts), sum(part.bytes for part in parts), parts[0].dtype)


def step(
    model: Model, variables: Tree, example: jax.ShapeDtypeStruct, *, terms: int, batch: int, keep: int | None = None
) -> Work:
    """A training step of `batch` images of which the gradients of `keep` count, under a norm that couples no samples.

    Three forward passes (itself, the gradients of input and kernel), and as many products with the hypernetwork's weights,
    the last two only of what counts; the optimizer reads parameter, gradient and Adam's two moments, and writes all but the
    gradient.
    """
    network = forward(model, variables, example, terms=terms)
    params = variables["params"]
    passes = batch + 2 * (batch if keep is None else keep)
    generation = 2.0 * count_parameters(params["hyper"])
    return network._replace(
        flops=passes * (network.flops + generation), bytes=passes * network.bytes + 7.0 * num_bytes(params)
    )


def _convolutions(model: Model, theta: Tree, batch_stats: Tree, example: jax.ShapeDtypeStruct) -> Iterator[Work]:
    """Of each module with a kernel of four axes: those of its kernel and of what it returns."""

    def run(theta, batch_stats, y):
        variables = {"params": theta, "batch_stats": batch_stats}
        return model.main.apply(variables, y, capture_intermediates=True, mutable=["intermediates"])[1]["intermediates"]

    returned = jax.eval_shape(run, theta, batch_stats, example)
    dtype = "bfloat16" if getattr(model.main, "precision", "") == "bfloat16" else "float32"
    for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
        *modules, name = (entry.key for entry in path)
        if name == "kernel" and len(leaf.shape) == 4:
            made = returned
            for module in modules:
                made = made[module]
            yield convolution(1, made["__call__"][0].shape, leaf.shape, dtype)


@cache
def rates(dtype: str) -> Rates:
    """Those of this machine, for matrix products in `dtype` at JAX's default precision."""
    on_cpu = jax.default_backend() == "cpu"
    side, floats, passes = (2048, 2**26, 4) if on_cpu else (8192, 2**28, 16)  # far larger than any cache
    mesh = device_mesh(0)
    devices = mesh.devices.size

    def everywhere(f: Callable[..., jax.Array], arrays: int) -> Callable[..., jax.Array]:
        specs = (SHARDED,) * arrays
        return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=SHARDED, check_vma=False), donate_argnums=0)

    def matrices() -> jax.Array:
        return place(mesh, np.random.default_rng(0).random((devices * side, side), np.float32), SHARDED).astype(dtype)

    product = _fastest(everywhere(lambda a, b: (a @ b) / side, 2), matrices(), matrices())
    # In place, so that no page is touched for the first time; a loop, because XLA would make one pass of several.
    array = jax.jit(
        lambda: jnp.zeros((devices * floats,)), out_shardings=place(mesh, jnp.zeros(devices), SHARDED).sharding
    )()
    copy = _fastest(everywhere(lambda x: jax.lax.fori_loop(0, passes, lambda _, x: x + 1.0, x), 1), array)
    return Rates(2.0 * devices * side**3 / product, 2.0 * passes * devices * floats * 4 / copy)


def _fastest(call: Callable[..., jax.Array], array: jax.Array, *others: jax.Array) -> float:
    """Seconds of the fastest of some calls, each on the result of the one before."""
    took = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        array = jax.block_until_ready(call(array, *others))
        took.append(time.perf_counter() - start)
    return min(took[1:])
