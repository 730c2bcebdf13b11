"""The floor: the shortest time in which this machine could do a computation.

    floor = max(floating-point operations / rate of a large matrix product, bytes that must move / rate of a large copy)

Both rates are measured on all local devices at once. The operations and bytes are those of the target network's
convolutions: each reads its input once and writes its output once. They follow from the shapes of the network, so they
hold for any target network and for any way to compute it. Everything else (norms, upsampling, the loss) counts as free.
Where activations stay in the cache, a program can be faster than the memory floor.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hyperrecon_jax.models.model import Model, count_parameters, generate_weights
from hyperrecon_jax.runtime.memory import num_bytes
from hyperrecon_jax.runtime.mesh import SHARDED, device_mesh, place

Tree = Any
CALLS = 7  # timed calls of each rate; the fastest gives the machine's rate


class Work(NamedTuple):
    """The least work of a computation."""

    flops: float
    bytes: float
    dtype: str = "float32"  # of the products


class Rates(NamedTuple):
    """What the machine can do in a second."""

    flops: float
    bytes: float


def floor(work: Work, rates: Rates) -> tuple[float, str]:
    """Return the least seconds for `work`, and what sets them: "arithmetic" or "memory"."""
    arithmetic, memory = work.flops / rates.flops, work.bytes / rates.bytes
    return (arithmetic, "arithmetic") if arithmetic >= memory else (memory, "memory")


def repeat_work(work: Work, times: float) -> Work:
    """Return the work of doing `work` several times."""
    return work._replace(flops=work.flops * times, bytes=work.bytes * times)


def convolution_work(images: int, shape: tuple[int, ...], kernel: tuple[int, ...], dtype: str = "float32") -> Work:
    """Return the work of a forward convolution with a kernel for each image.

    Args:
        images: how many.
        shape: of one result, `(h, w, c_out)`.
        kernel: shape of one kernel, `(kh, kw, c_in, c_out)`.
        dtype: of images and kernels.
    """
    itemsize = jnp.dtype(dtype).itemsize
    height, width, _ = shape
    kh, kw, c_in, c_out = kernel
    entries = height * width * (c_in + c_out) + kh * kw * c_in * c_out
    return Work(2.0 * images * height * width * kh * kw * c_in * c_out, 1.0 * itemsize * images * entries, dtype)


def forward_work(model: Model, variables: Tree, example: Tree, *, terms: int) -> Work:
    """Return the work of the main network on one image, summed over its convolutions; generating weights is not included.

    `example` has the shapes of an input of the network, and `terms` is K, the number of loss terms.
    """
    lam = jax.ShapeDtypeStruct((terms - 1,), jnp.float32)
    theta = jax.eval_shape(lambda params, lam: generate_weights(model, params, lam), variables["params"], lam)
    layers = list(_layer_work(model, theta, variables["batch_stats"], example))
    return Work(sum(layer.flops for layer in layers), sum(layer.bytes for layer in layers), layers[0].dtype)


def training_step_work(
    model: Model, variables: Tree, example: Tree, *, terms: int, batch: int, keep: int | None = None
) -> Work:
    """Return the work of a training step whose norm does not couple samples.

    The step takes the loss of `batch` images and differentiates `keep` of them (None: all). An image costs one forward
    pass. A differentiated image costs two more: the gradients in the input and in the kernel. Each pass also has one
    product with the hypernetwork's weights. The optimizer reads each parameter, its gradient and Adam's two moments, and
    writes all of these except the gradient.
    """
    network = forward_work(model, variables, example, terms=terms)
    params = variables["params"]
    passes = batch + 2 * (batch if keep is None else keep)
    generation = 2.0 * count_parameters(params["hyper"])
    return network._replace(
        flops=passes * (network.flops + generation), bytes=passes * network.bytes + 7.0 * num_bytes(params)
    )


def _layer_work(model: Model, theta: Tree, batch_stats: Tree, example: Tree) -> Iterator[Work]:
    """Yield the work of each convolution, from the shapes of its kernel and of its output.

    A kernel of five axes has one for the iterations of an unrolled network.
    """

    def is_captured(module, method):
        return method in ("__call__", "without_bias")  # the second: of a convolution before a norm

    def run(theta, batch_stats, net_input):
        variables = {"params": theta, "batch_stats": batch_stats}
        _, state = model.main.apply(variables, net_input, capture_intermediates=is_captured, mutable=["intermediates"])
        return state["intermediates"]

    intermediates = jax.eval_shape(run, theta, batch_stats, example)
    dtype = "bfloat16" if getattr(model.main, "precision", "") == "bfloat16" else "float32"
    for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
        *modules, name = (entry.key for entry in path)
        if name == "kernel" and len(leaf.shape) >= 4:
            module_outputs = intermediates
            for module in modules:
                module_outputs = module_outputs[module]
            repeats = leaf.shape[0] if len(leaf.shape) == 5 else 1
            output = jax.tree.leaves(module_outputs)[0]  # a bias may come after it
            yield convolution_work(repeats, output.shape[-3:], leaf.shape[-4:], dtype)


@cache
def measure_rates(dtype: str) -> Rates:
    """Measure the rates of this machine; its matrix products are in `dtype` at JAX's default precision."""
    on_cpu = jax.default_backend() == "cpu"
    side, floats, passes = (2048, 2**26, 4) if on_cpu else (8192, 2**28, 16)  # far larger than any cache
    mesh = device_mesh(0)
    devices = mesh.devices.size

    def random_matrices() -> jax.Array:
        return place(mesh, np.random.default_rng(0).random((devices * side, side), np.float32), SHARDED).astype(dtype)

    multiply = _on_all_devices(lambda a, b: (a @ b) / side, mesh, arrays=2)
    product_seconds = _time_fastest(multiply, random_matrices(), random_matrices())
    # In place, so that no page is touched for the first time; a loop, because XLA would fuse several passes into one.
    sharding = place(mesh, jnp.zeros(devices), SHARDED).sharding
    array = jax.jit(lambda: jnp.zeros((devices * floats,)), out_shardings=sharding)()
    increment = _on_all_devices(lambda x: jax.lax.fori_loop(0, passes, lambda _, x: x + 1.0, x), mesh, arrays=1)
    copy_seconds = _time_fastest(increment, array)
    return Rates(2.0 * devices * side**3 / product_seconds, 2.0 * passes * devices * floats * 4 / copy_seconds)


def _on_all_devices(f: Callable[..., jax.Array], mesh: Mesh, *, arrays: int) -> Callable[..., jax.Array]:
    """Compile `f` of several sharded arrays so that each device runs it on its shard; the first array is donated."""
    mapped = jax.shard_map(f, mesh=mesh, in_specs=(SHARDED,) * arrays, out_specs=SHARDED, check_vma=False)
    return jax.jit(mapped, donate_argnums=0)


def _time_fastest(call: Callable[..., jax.Array], array: jax.Array, *constants: jax.Array) -> float:
    """Return the seconds of the fastest of `CALLS` calls; the first argument of a call is the result of the last call."""
    durations = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        array = jax.block_until_ready(call(array, *constants))
        durations.append(time.perf_counter() - start)
    return min(durations[1:])
