"""Ways to compute a convolution with a kernel for each sample, forward and both gradients, beside the library's own.

Each takes images `(b, h, w, c_in)` and kernels `(b, kh, kw, c_in, c_out)` and returns `(b, h, w, c_out)`:

    ours        `jax.vmap` of `conv.conv2d`: what the library chooses on this backend
    loop        dense convolutions one after the other; the kernel's gradient is a convolution, too
    grouped     one grouped convolution; the kernel's gradient is a batched product for each tap
    taps        a batched matrix product for each tap, of the shifted images
    im2col      patches and one batched matrix product
    pallas      `conv_pallas.py`, on a GPU alone
    naive vmap  `jax.vmap` of JAX's own convolution, with JAX's own gradients, on one device with all its threads

All but the last have the batch sharded over the cores of a CPU, as in training. On an accelerator each is timed with
float32 images (TF32 products on a GPU) and with bfloat16 ones; kernels and their gradients are float32.
"""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hyperrecon_jax.benchmarks import conv_pallas, floor, naive, networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.models.conv import conv2d
from hyperrecon_jax.runtime.mesh import SHARDED, device_mesh, place

Convolution = Callable[[jax.Array, jax.Array], jax.Array]
DTYPES = "float32", "bfloat16"  # of images
TOLERANCE = 1e-4  # of float32 on a CPU
ACCELERATOR_TOLERANCE = 3e-2  # products may have lower precision
MAX_NAIVE_FLOPS = 50e9  # with more, a naive call takes a CPU minutes
NAIVE = "naive vmap"


def candidates(scale: Scale) -> Iterator[Candidate]:
    """The convolutions of the U-Net's upper levels, then a complete training step with the naive convolution.

    On a CPU the naive one is timed once, and left out where it takes minutes.
    """
    w = scale.width
    for shrink, c_in in ((1, 2), (1, w), (1, 2 * w), (2, w), (2, 2 * w), (4, w)):
        for dtype in DTYPES[:1] if _on_cpu() else DTYPES:
            yield from _layer_candidates(scale.batch, scale.size // shrink, c_in, w, dtype)
    samples = networks.noise_images(scale)
    task = networks.supervised_task(scale, hyper_width=scale.hyper_widths[-1], norm="instance")
    if _is_naive_feasible(networks.step_work(task).flops):
        case = f"training step, {scale.label}"
        yield networks.step_candidate(case, "ours", task, networks.comparison_mesh(scale.batch), samples)
        yield naive.step_candidate(case, NAIVE, task, samples, tolerance=tolerance(), max_rounds=_naive_rounds())


def tolerance() -> float:
    """Return how much results may differ on this backend, relative to the largest entry."""
    return TOLERANCE if _on_cpu() else ACCELERATOR_TOLERANCE


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _is_naive_feasible(flops: float) -> bool:
    return flops < MAX_NAIVE_FLOPS or not _on_cpu()


def _naive_rounds() -> int | None:
    return 1 if _on_cpu() else None


def _layer_candidates(batch: int, size: int, c_in: int, c_out: int, dtype: str) -> Iterator[Candidate]:
    """Every implementation of one 3x3 layer on random images."""
    # itself and two gradients: each of the three reads two of the arrays and writes the third
    work = floor.repeat_work(floor.convolution_work(batch, (size, size, c_out), (3, 3, c_in, c_out), dtype), 3)
    rng = np.random.default_rng(0)
    shapes = (batch, size, size, c_in), (batch, 3, 3, c_in, c_out), (batch, size, size, c_out)
    x, kernel, ct = (rng.standard_normal(shape, np.float32) for shape in shapes)
    arrays = x.astype(jnp.dtype(dtype)), kernel, ct.astype(jnp.dtype(dtype))
    case = f"{c_in} -> {c_out}, {size} px x {batch}" + ("" if _on_cpu() else f", {dtype}")
    on_gpu = jax.default_backend() == "gpu"
    implementations = IMPLEMENTATIONS | ({"pallas": _differentiable(_pallas, _pallas_gradient)} if on_gpu else {})
    for name, convolution in implementations.items():
        if name == NAIVE and not _is_naive_feasible(work.flops):
            continue
        mesh = device_mesh(1) if name == NAIVE else networks.comparison_mesh(batch)
        args = [place(mesh, array, SHARDED) for array in arrays]
        mapped = jax.shard_map(
            partial(_result_and_gradients, convolution), mesh=mesh, in_specs=SHARDED, out_specs=SHARDED, check_vma=False
        )
        compiled = jax.jit(mapped).lower(*args).compile()

        def run(compiled=compiled, args=args):
            return jax.block_until_ready(compiled(*args))

        yield Candidate(
            case,
            name,
            run,
            networks.peak_bytes(compiled),
            work,
            tolerance=None if name == "ours" else tolerance(),
            max_rounds=_naive_rounds() if name == NAIVE else None,
        )


def _result_and_gradients(
    convolution: Convolution, x: jax.Array, kernel: jax.Array, ct: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the result, and for its cotangent `ct` the gradients in `x` and in `kernel`."""
    y, pull_back = jax.vjp(convolution, x, kernel)
    return y, *pull_back(ct)


def _differentiable(forward: Convolution, kernel_gradient: Convolution) -> Convolution:
    """Make a differentiable convolution. The gradient in the input is `forward` with the flipped kernel.

    `kernel_gradient(x padded with zeros, ct)` returns the gradient in the kernel.
    """

    @jax.custom_vjp
    def convolution(x, kernel):
        return forward(x, kernel.astype(x.dtype))

    def backward(residuals, ct):
        x, kernel = residuals
        flipped = kernel[:, ::-1, ::-1].swapaxes(3, 4).astype(x.dtype)
        return forward(ct, flipped), kernel_gradient(_pad(x, kernel.shape[1]), ct).astype(kernel.dtype)

    convolution.defvjp(lambda x, kernel: (convolution(x, kernel), (x, kernel)), backward)
    return convolution


def _pad(x: jax.Array, side: int) -> jax.Array:
    r = side // 2
    return jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))


def _shifted(padded: jax.Array, ct: jax.Array) -> list[jax.Array]:
    """Return the part of the padded image that each tap of the kernel reads; `ct` has the size of the result."""
    (_, padded_h, padded_w, _), (_, h, w, _) = padded.shape, ct.shape
    return [padded[:, i : i + h, j : j + w] for i in range(padded_h - h + 1) for j in range(padded_w - w + 1)]


def _kernel_size(padded: jax.Array, ct: jax.Array) -> tuple[int, int]:
    return padded.shape[1] - ct.shape[1] + 1, padded.shape[2] - ct.shape[2] + 1


def _as_kernel(gradient: jax.Array, padded: jax.Array, ct: jax.Array) -> jax.Array:
    return gradient.reshape(len(ct), *_kernel_size(padded, ct), padded.shape[-1], ct.shape[-1])


def _loop(x, kernel):
    return lax.map(lambda pair: naive.conv2d(*pair), (x, kernel))


def _loop_gradient(padded, ct):
    def sample_gradient(pair):  # a convolution: the channels of x are its batch, and ct is its kernel
        padded, ct = pair
        x = padded.transpose(2, 0, 1)[..., None]
        return lax.conv_general_dilated(x, ct[:, :, None], (1, 1), "VALID", dimension_numbers=naive.LAYOUT)

    return lax.map(sample_gradient, (padded, ct)).transpose(0, 2, 3, 1, 4)


def _grouped(x, kernel):
    b, h, w, c_in = x.shape
    stacked = x.transpose(1, 2, 0, 3).reshape(1, h, w, b * c_in)
    kernels = kernel.transpose(1, 2, 3, 0, 4).reshape(*kernel.shape[1:4], -1)
    y = lax.conv_general_dilated(stacked, kernels, (1, 1), "SAME", dimension_numbers=naive.LAYOUT, feature_group_count=b)
    return y.reshape(h, w, b, -1).transpose(2, 0, 1, 3)


def _taps(x, kernel):
    taps = kernel.reshape(len(kernel), -1, *kernel.shape[3:])
    shifted = _shifted(_pad(x, kernel.shape[1]), x)
    return sum(jnp.einsum("bhwc,bcd->bhwd", image, taps[:, i]) for i, image in enumerate(shifted))


def _taps_gradient(padded, ct):
    taps = [jnp.einsum("bhwc,bhwd->bcd", image, ct) for image in _shifted(padded, ct)]
    return _as_kernel(jnp.stack(taps, axis=1), padded, ct)


def _im2col(x, kernel):
    patches = jnp.concatenate(_shifted(_pad(x, kernel.shape[1]), x), axis=-1)
    return jnp.einsum("bhwk,bkd->bhwd", patches, kernel.reshape(len(kernel), -1, kernel.shape[-1]))


def _im2col_gradient(padded, ct):
    patches = jnp.concatenate(_shifted(padded, ct), axis=-1)
    return _as_kernel(jnp.einsum("bhwk,bhwd->bkd", patches, ct), padded, ct)


def _pallas(x, kernel):
    return conv_pallas.conv(x[:, None], kernel)[:, 0]


def _pallas_gradient(padded, ct):  # XLA cancels the slice below against the padding, so no padded copy is written
    sides = kh, kw = _kernel_size(padded, ct)
    x = padded[:, kh // 2 :, kw // 2 :][:, : ct.shape[1], : ct.shape[2]]
    return conv_pallas.correlate(x[:, None], ct[:, None], sides=sides)


IMPLEMENTATIONS: dict[str, Convolution] = {
    "ours": jax.vmap(conv2d),
    "loop": _differentiable(_loop, _loop_gradient),
    "grouped": _differentiable(_grouped, _taps_gradient),
    "taps": _differentiable(_taps, _taps_gradient),
    "im2col": _differentiable(_im2col, _im2col_gradient),
    NAIVE: jax.vmap(lambda x, kernel: naive.conv2d(x, kernel.astype(x.dtype))),
}
