"""A 2-D convolution of ONE image with ONE kernel that stays fast when every sample of a batch has its own kernel.

`conv2d(x, kernel)` is written for a single sample; `jax.vmap` does the batching, and this module tells JAX how. There is
one canonical form, g groups of n images, each group with a kernel of its own:

    x: (g, n, h, w, c_in),  kernel: (g, kh, kw, c_in, c_out)  ->  (g, n, h, w, c_out)

Mapping over images that share a kernel makes n larger, mapping over kernels makes g larger, and so the form is closed under
any nesting of `vmap`. With g = 1 the result is one dense convolution. With g > 1 plain `vmap` would give a grouped
convolution, whose gradients XLA runs very slowly on a CPU; there each backend takes the path that suits it:

- CPU: a loop of dense convolutions, and the kernel's gradient as a forward convolution (channels of x as the batch, the
  output's cotangent as the kernel), because XLA's own gradient of it is many times slower.
- elsewhere: a grouped convolution, and the kernel's gradient as one batched matrix product for each tap.

Convolution is bilinear, so its derivatives are convolutions again: reverse mode works to any order (forward mode does
not, as always with `custom_vjp`).

The image may have less precision than the kernel, such as bfloat16 beside float32: the products are those of the image's
type, sums are float32 (or what has more), and so is the kernel's gradient, of which nothing is rounded off.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from hyperrecon_jax.runtime.errors import InputError

_NHWC = ("NHWC", "HWIO", "NHWC")


def conv2d(x: jax.Array, kernel: jax.Array, *, precision: lax.Precision | None = None) -> jax.Array:
    """Cross-correlate one image with one kernel: stride 1, zero padding, same size (PyTorch's and Flax's "convolution").

    Args:
        x: `(h, w, c_in)`.
        kernel: `(kh, kw, c_in, c_out)`, kh and kw odd.
        precision: of float32 products where the backend offers less than that (tf32 on a GPU, bfloat16 on a TPU); None: the
            backend's default.

    Returns:
        `(h, w, c_out)`, of the type of x.

    Raises:
        InputError: if the ranks or the channels do not fit, or the kernel's sides are even.
    """
    if x.ndim != 3 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2]:
        raise InputError(
            "`x` and `kernel` must have shapes (h, w, c_in) and (kh, kw, c_in, c_out), "
            f"got {tuple(x.shape)} and {tuple(kernel.shape)}."
        )
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise InputError(f"`kernel` must have odd sides, got {tuple(kernel.shape[:2])}.")
    if kernel.shape[:2] == (1, 1):  # a matrix product, which every backend batches well
        return jnp.einsum("hwc,cd->hwd", x, kernel[0, 0].astype(x.dtype), precision=precision)
    return _conv2d(precision, x[None, None], kernel[None])[0, 0]


# Derivatives, on the canonical form with g = n = 1 (what is mapped is not visible here).


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv2d(precision, x, kernel):
    return _mapped(precision)[0](x, kernel.astype(x.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_cotangent(precision, padded, ct):
    """The transpose of `_conv2d` in its kernel, for an x that is padded already and a cotangent of the result; float32."""
    return _mapped(precision)[1](padded, ct)


def _conv2d_bwd(precision, residuals, ct):
    x, kernel = residuals
    found = _kernel_cotangent(precision, _pad(x, kernel), ct)
    return _conv2d(precision, ct, _transpose(kernel)), found.astype(kernel.dtype)


def _kernel_cotangent_bwd(precision, residuals, kernel):
    padded, ct = residuals
    h, w = ct.shape[2:4]
    top, left = kernel.shape[1] // 2, kernel.shape[2] // 2
    inside = _conv2d(precision, padded, kernel)[:, :, top : top + h, left : left + w]
    return _conv2d(precision, _pad(ct, kernel), _transpose(kernel)), inside


def _transpose(kernel):
    return kernel[:, ::-1, ::-1].swapaxes(3, 4)


def _pad(x, kernel):
    return jnp.pad(x, [(0, 0), (0, 0), *((k // 2, k // 2) for k in kernel.shape[1:3]), (0, 0)])


_conv2d.defvjp(lambda precision, x, kernel: (_conv2d(precision, x, kernel), (x, kernel)), _conv2d_bwd)
_kernel_cotangent.defvjp(
    lambda precision, padded, ct: (_kernel_cotangent(precision, padded, ct), (padded, ct)), _kernel_cotangent_bwd
)


# The canonical form: what each backend runs, and how one more mapped axis is folded into it.


@cache
def _mapped(precision):
    """The convolution and its transpose in the kernel, on the canonical form.

    conv: `(g, n, h, w, c_in), (g, kh, kw, c_in, c_out) -> (g, n, h, w, c_out)`
    correlate: `(g, n, h + kh - 1, w + kw - 1, c_in), (g, n, h, w, c_out) -> (g, kh, kw, c_in, c_out)`, float32
    """

    def by_platform(cpu, default, *arrays):
        paths = partial(cpu, precision=precision), partial(default, precision=precision)
        return lax.platform_dependent(*arrays, cpu=paths[0], default=paths[1])

    @custom_vmap
    def conv(x, kernel):
        if len(kernel) == 1:
            return _dense(x[0], kernel[0], precision=precision)[None]
        return by_platform(_conv_by_loop, _conv_by_groups, x, kernel)

    @conv.def_vmap
    def _(size, batched, x, kernel):
        x_batched, kernel_batched = batched
        if not kernel_batched:  # more images for each kernel: (b, g, n, ...) -> (g, b n, ...)
            y = conv(_merge(jnp.moveaxis(x, 0, 1), 1), kernel)
            return jnp.moveaxis(_split(y, 1, size), 1, 0), True
        if not x_batched:
            x = jnp.broadcast_to(x, (size, *x.shape))
        return _split(conv(_merge(x, 0), _merge(kernel, 0)), 0, size), True

    @custom_vmap
    def correlate(padded, g):
        return by_platform(_correlate_by_loop, _correlate_by_taps, padded, g)

    @correlate.def_vmap
    def _(size, batched, padded, g):
        arrays = [a if b else jnp.broadcast_to(a, (size, *a.shape)) for a, b in zip((padded, g), batched, strict=True)]
        return _split(correlate(*(_merge(a, 0) for a in arrays)), 0, size), True

    return conv, correlate


def _of_sums(x):
    return jnp.promote_types(x.dtype, jnp.float32)


def _merge(a, axis):
    return a.reshape(*a.shape[:axis], a.shape[axis] * a.shape[axis + 1], *a.shape[axis + 2 :])


def _split(a, axis, size):
    return a.reshape(*a.shape[:axis], size, a.shape[axis] // size, *a.shape[axis + 1 :])


def _dense(x, kernel, padding="SAME", **options):
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_NHWC, **options)


def _conv_by_loop(x, kernel, *, precision=None):
    return lax.map(lambda pair: _dense(*pair, precision=precision), (x, kernel))


def _conv_by_groups(x, kernel, *, precision=None):
    groups, n, h, w, c_in = x.shape
    wide = x.transpose(1, 2, 3, 0, 4).reshape(n, h, w, groups * c_in)
    stacked = kernel.transpose(1, 2, 3, 0, 4).reshape(*kernel.shape[1:4], -1)
    y = _dense(wide, stacked, feature_group_count=groups, precision=precision)
    return y.reshape(n, h, w, groups, -1).transpose(3, 0, 1, 2, 4)


def _correlate_by_loop(padded, g, *, precision=None):
    def one(pair):  # channels of x are the batch, the images of the group the contracted channels
        padded, g = pair
        turned = padded.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
        return _dense(*turned, "VALID", precision=precision, preferred_element_type=_of_sums(padded))

    return lax.map(one, (padded, g)).transpose(0, 2, 3, 1, 4)


def _correlate_by_taps(padded, g, *, precision=None):
    h, w = g.shape[2:4]
    sides = padded.shape[2] - h + 1, padded.shape[3] - w + 1
    product = partial(jnp.einsum, "gnhwc,gnhwd->gcd", precision=precision, preferred_element_type=_of_sums(padded))
    taps = [product(padded[:, :, i : i + h, j : j + w], g) for i in range(sides[0]) for j in range(sides[1])]
    return jnp.stack(taps, axis=1).reshape(g.shape[0], *sides, padded.shape[-1], g.shape[-1])
