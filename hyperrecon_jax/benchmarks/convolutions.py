"""Ways to compute a convolution with a kernel for each sample, forward and both gradients, beside the library's own.

Each takes images `(b, h, w, c_in)` and kernels `(b, kh, kw, c_in, c_out)` and gives `(b, h, w, c_out)`:

    ours        `jax.vmap` of `conv.conv2d`: what the library chooses on this backend
    loop        dense convolutions one after the other; the kernel's gradient as one, too
    grouped     one grouped convolution; the kernel's gradient as nine batched products
    taps        nine shifted batched matrix products
    im2col      patches and one batched matrix product
    pallas      `conv_pallas.py`, on a GPU alone
    naive vmap  `jax.vmap` of JAX's own convolution, with JAX's own gradients, on one device with all its threads

All others have the batch spread over the cores of a CPU, as in training. On an accelerator each is timed with float32
images (TF32 products on a GPU) and with bfloat16 ones; kernels and their gradients are float32.
"""

from collections.abc import Callable, Iterator

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
TOLERANCE_ELSEWHERE = 3e-2  # where products may be of lower precision
NAIVE = 50e9  # operations: beyond these a naive call takes a CPU minutes


def candidates(scale: Scale) -> Iterator[Candidate]:
    """The convolutions of the U-Net's upper levels, then a whole training step with the naive convolution.

    On a CPU the naive one is timed once, and left out where it takes minutes.
    """
    w = scale.width
    for size, c_in in ((1, 2), (1, w), (1, 2 * w), (2, w), (2, 2 * w), (4, w)):
        for dtype in DTYPES if jax.default_backend() != "cpu" else DTYPES[:1]:
            yield from _of_shape(scale.batch, scale.size // size, c_in, w, dtype)
    samples = networks.images(scale)
    task = networks.supervised(scale, hyper_width=scale.hyper_widths[-1], norm="instance")
    if _bearable(networks.step_work(task).flops):
        case = f"training step, {scale.label}"
        yield networks.step(case, "ours", task, networks.mesh_of_one(scale.batch), samples)
        yield naive.step(case, "naive vmap", task, samples, tolerance=tolerance(), most=_naive_rounds())


def tolerance() -> float:
    """How far results may be apart on this backend, relative to the largest entry."""
    return TOLERANCE if jax.default_backend() == "cpu" else TOLERANCE_ELSEWHERE


def _bearable(flops: float) -> bool:
    return flops < NAIVE or jax.default_backend() != "cpu"


def _naive_rounds() -> int | None:
    return 1 if jax.default_backend() == "cpu" else None


def _of_shape(batch: int, size: int, c_in: int, c_out: int, dtype: str) -> Iterator[Candidate]:
    work = floor.convolution(batch, (size, size, c_out), (3, 3, c_in, c_out), dtype)
    work = floor.total(
        work, 3
    )  # itself and two gradients, each of which reads two of the three arrays and writes the third
    rng = np.random.default_rng(0)
    shapes = (batch, size, size, c_in), (batch, 3, 3, c_in, c_out), (batch, size, size, c_out)
    x, kernel, ct = (rng.standard_normal(shape, np.float32) for shape in shapes)
    arrays = x.astype(jnp.dtype(dtype)), kernel, ct.astype(jnp.dtype(dtype))
    known = IMPLEMENTATIONS | ({"pallas": _by(_pallas, _pallas_gradient)} if jax.default_backend() == "gpu" else {})
    for name, convolution in known.items():
        if name == "naive vmap" and not _bearable(work.flops):
            continue

        def with_gradients(x, kernel, ct, convolution=convolution):
            y, pull_back = jax.vjp(convolution, x, kernel)
            return y, *pull_back(ct)

        mesh = device_mesh(1) if name == "naive vmap" else networks.mesh_of_one(batch)
        given = [place(mesh, array, SHARDED) for array in arrays]
        spread = jax.shard_map(with_gradients, mesh=mesh, in_specs=SHARDED, out_specs=SHARDED, check_vma=False)
        compiled = jax.jit(spread).lower(*given).compile()

        def run(compiled=compiled, given=given):
            return jax.block_until_ready(compiled(*given))

        yield Candidate(
            f"{c_in} -> {c_out}, {size} px x {batch}" + (f", {dtype}" if jax.default_backend() != "cpu" else ""),
            name,
            run,
            networks.peak(compiled),
            work,
            tolerance=None if name == "ours" else tolerance(),
            most=_naive_rounds() if name == "naive vmap" else None,
        )


def _by(forward: Convolution, kernel_gradient: Convolution) -> Convolution:
    """A convolution with gradients: the input's is a convolution with the kernel turned around.

    `kernel_gradient(x padded with zeros, ct)` is the kernel's.
    """

    @jax.custom_vjp
    def convolution(x, kernel):
        return forward(x, kernel.astype(x.dtype))

    def backward(residuals, ct):
        x, kernel = residuals
        turned = kernel[:, ::-1, ::-1].swapaxes(3, 4).astype(x.dtype)
        return forward(ct, turned), kernel_gradient(_pad(x, kernel.shape[1]), ct).astype(kernel.dtype)

    convolution.defvjp(lambda x, kernel: (convolution(x, kernel), (x, kernel)), backward)
    return convolution


def _pad(x: jax.Array, side: int) -> jax.Array:
    r = side // 2
    return jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))


def _shifted(padded: jax.Array, like: jax.Array) -> list[jax.Array]:
    """The image under each of the kernel's taps."""
    (_, high, wide, _), (_, h, w, _) = padded.shape, like.shape
    return [padded[:, i : i + h, j : j + w] for i in range(high - h + 1) for j in range(wide - w + 1)]


def _as_kernel(gradient: jax.Array, padded: jax.Array, ct: jax.Array) -> jax.Array:
    sides = padded.shape[1] - ct.shape[1] + 1, padded.shape[2] - ct.shape[2] + 1
    return gradient.reshape(len(ct), *sides, padded.shape[-1], ct.shape[-1])


def _loop(x, kernel):
    return lax.map(lambda pair: naive.dense(*pair), (x, kernel))


def _loop_gradient(padded, ct):
    def one(pair):  # the channels of x are its batch, ct is its kernel
        padded, ct = pair
        x = padded.transpose(2, 0, 1)[..., None]
        return lax.conv_general_dilated(x, ct[:, :, None], (1, 1), "VALID", dimension_numbers=naive.LAYOUT)

    return lax.map(one, (padded, ct)).transpose(0, 2, 3, 1, 4)


def _grouped(x, kernel):
    b, h, w, c_in = x.shape
    wide = x.transpose(1, 2, 0, 3).reshape(1, h, w, b * c_in)
    kernels = kernel.transpose(1, 2, 3, 0, 4).reshape(*kernel.shape[1:4], -1)
    y = lax.conv_general_dilated(wide, kernels, (1, 1), "SAME", dimension_numbers=naive.LAYOUT, feature_group_count=b)
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


def _pallas_gradient(padded, ct):  # XLA cancels this slice against the padding, so that no padded copy is made
    sides = padded.shape[1] - ct.shape[1] + 1, padded.shape[2] - ct.shape[2] + 1
    x = padded[:, sides[0] // 2 :, sides[1] // 2 :][:, : ct.shape[1], : ct.shape[2]]
    return conv_pallas.correlate(x[:, None], ct[:, None], sides=sides)


IMPLEMENTATIONS: dict[str, Convolution] = {
    "ours": jax.vmap(conv2d),
    "loop": _by(_loop, _loop_gradient),
    "grouped": _by(_grouped, _taps_gradient),
    "taps": _by(_taps, _taps_gradient),
    "im2col": _by(_im2col, _im2col_gradient),
    "naive vmap": jax.vmap(lambda x, kernel: naive.dense(x, kernel.astype(x.dtype))),
}
