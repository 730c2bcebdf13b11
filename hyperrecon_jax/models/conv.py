"""A 2-D convolution of ONE image with ONE kernel that stays fast when every sample of a batch has its own kernel.

`conv2d(x, kernel)` is written for a single sample. `jax.vmap` adds the batch, by the rules of this module. There is one
canonical form, g groups of n images, where each group has its own kernel:

    x: (g, n, h, w, c_in),  kernel: (g, kh, kw, c_in, c_out)  ->  (g, n, h, w, c_out)

Mapping over images that share a kernel makes n larger. Mapping over kernels makes g larger. So any nesting of `vmap` leads
to this form again. With g = 1 it is one dense convolution. With g > 1 plain `vmap` would give a grouped convolution, and
XLA computes the gradients of that very slowly on a CPU. This module has two paths for it:

- On a CPU: a loop of dense convolutions. The kernel's gradient is a forward convolution (the channels of x are its batch,
  the cotangent of the output is its kernel), because XLA's own gradient is many times slower.
- On other backends: a grouped convolution. The kernel's gradient is one batched matrix product for each tap of the kernel.

A convolution is linear in the image and in the kernel, so its derivatives are convolutions, too. Reverse mode works to any
order. Forward mode does not work, as always with `custom_vjp`.

The image may have less precision than the kernel, for example bfloat16 and float32. The products then have the type of the
image; sums and the kernel's gradient are float32 or better, without rounding in between.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from hyperrecon_jax.models import native
from hyperrecon_jax.runtime.errors import InputError

_NHWC = ("NHWC", "HWIO", "NHWC")


def conv2d(x: jax.Array, kernel: jax.Array, *, precision: lax.Precision | None = None) -> jax.Array:
    """Cross-correlate one image with one kernel: stride 1, zero padding, same size (PyTorch's and Flax's "convolution").

    Args:
        x: `(h, w, c_in)`.
        kernel: `(kh, kw, c_in, c_out)`, kh and kw odd.
        precision: of products of float32, where the backend also offers less (tf32 on a GPU, bfloat16 on a TPU); None: the
            default of the backend.

    Returns:
        `(h, w, c_out)`, with the type of x.

    Raises:
        InputError: if the ranks or the channels do not fit, or a side of the kernel is even.
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


# Derivatives, on the canonical form. Here g = n = 1: the code sees one image and one kernel; `vmap` adds the other axes.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv2d(precision, x, kernel):
    conv, _ = _batched_pair(precision, kernel.shape[1:3])
    return conv(x, kernel.astype(x.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _kernel_cotangent(precision, sides, x, ct):
    """The cotangent of the kernel of these sides, float32, from x and the cotangent of the result of `_conv2d`."""
    _, correlate = _batched_pair(precision, sides)
    return correlate(x, ct)


def _conv2d_bwd(precision, residuals, ct):
    x, kernel = residuals
    kernel_ct = _kernel_cotangent(precision, kernel.shape[1:3], x, ct)
    return _conv2d(precision, ct, _transpose(kernel)), kernel_ct.astype(kernel.dtype)


def _kernel_cotangent_bwd(precision, sides, residuals, kernel):
    x, ct = residuals
    return _conv2d(precision, ct, _transpose(kernel)), _conv2d(precision, x, kernel)


def _transpose(kernel):
    """The kernel of the transposed convolution: turned by 180 degrees, input and output channels swapped."""
    return kernel[:, ::-1, ::-1].swapaxes(3, 4)


_conv2d.defvjp(lambda precision, x, kernel: (_conv2d(precision, x, kernel), (x, kernel)), _conv2d_bwd)
_kernel_cotangent.defvjp(
    lambda precision, sides, x, ct: (_kernel_cotangent(precision, sides, x, ct), (x, ct)), _kernel_cotangent_bwd
)


# The canonical form: how `vmap` folds one more axis into it, and what each backend runs.


@cache
def _batched_pair(precision, sides):
    """The convolution, and its transpose with respect to the kernel, on the canonical form, with the rules for `vmap`.

    conv: `(g, n, h, w, c_in), (g, kh, kw, c_in, c_out) -> (g, n, h, w, c_out)`
    correlate: `(g, n, h, w, c_in), (g, n, h, w, c_out) -> (g, kh, kw, c_in, c_out)`, float32, where `sides` is (kh, kw)
    """

    def by_platform(function, cpu, default, *arrays, **options):
        is_active = native.is_active(function, *arrays)
        cpu = partial(getattr(native, function) if is_active else partial(cpu, precision=precision), **options)
        default = partial(default, precision=precision, **options)
        return lax.platform_dependent(*arrays, cpu=cpu, default=default)

    @custom_vmap
    def conv(x, kernel):
        if len(kernel) == 1 and not native.is_active("conv", x, kernel):
            return _conv_of_one(x, kernel, precision=precision)
        return by_platform("conv", _conv_by_loop, _conv_of_one if len(kernel) == 1 else _conv_by_groups, x, kernel)

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
    def correlate(x, ct):
        return by_platform("correlate", _correlate_by_loop, _correlate_by_taps, x, ct, sides=sides)

    @correlate.def_vmap
    def _(size, batched, x, ct):
        x_batched, ct_batched = batched
        if not x_batched:
            x = jnp.broadcast_to(x, (size, *x.shape))
        if not ct_batched:
            ct = jnp.broadcast_to(ct, (size, *ct.shape))
        return _split(correlate(_merge(x, 0), _merge(ct, 0)), 0, size), True

    return conv, correlate


def _sum_dtype(x):
    """The type in which products with x are summed: float32 or better."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _pad(x, sides):
    """x with zeros around it, so that a kernel of these sides fits at every pixel."""
    return jnp.pad(x, [(0, 0), (0, 0), *((side // 2, side // 2) for side in sides), (0, 0)])


def _merge(a, axis):
    """Axes `axis` and `axis + 1` as one."""
    return a.reshape(*a.shape[:axis], a.shape[axis] * a.shape[axis + 1], *a.shape[axis + 2 :])


def _split(a, axis, size):
    """The opposite of `_merge`; the first of the two axes has `size` entries."""
    return a.reshape(*a.shape[:axis], size, a.shape[axis] // size, *a.shape[axis + 1 :])


def _dense(x, kernel, padding="SAME", **options):
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_NHWC, **options)


def _conv_of_one(x, kernel, *, precision=None):
    return _dense(x[0], kernel[0], precision=precision)[None]


def _conv_by_loop(x, kernel, *, precision=None):
    return lax.map(lambda pair: _dense(*pair, precision=precision), (x, kernel))


def _conv_by_groups(x, kernel, *, precision=None):
    groups, n, h, w, c_in = x.shape
    wide = x.transpose(1, 2, 3, 0, 4).reshape(n, h, w, groups * c_in)
    stacked = kernel.transpose(1, 2, 3, 0, 4).reshape(*kernel.shape[1:4], -1)
    y = _dense(wide, stacked, feature_group_count=groups, precision=precision)
    return y.reshape(n, h, w, groups, -1).transpose(3, 0, 1, 2, 4)


def _correlate_by_loop(x, ct, *, sides, precision=None):
    def correlate_group(pair):
        padded, ct = pair
        image = padded.transpose(3, 1, 2, 0)  # the channels of x are the batch, the images are the channels
        kernel = ct.transpose(1, 2, 0, 3)
        return _dense(image, kernel, "VALID", precision=precision, preferred_element_type=_sum_dtype(padded))

    return lax.map(correlate_group, (_pad(x, sides), ct)).transpose(0, 2, 3, 1, 4)


def _correlate_by_taps(x, ct, *, sides, precision=None):
    padded = _pad(x, sides)
    h, w = ct.shape[2:4]
    product = partial(jnp.einsum, "gnhwc,gnhwd->gcd", precision=precision, preferred_element_type=_sum_dtype(padded))
    taps = [product(padded[:, :, i : i + h, j : j + w], ct) for i in range(sides[0]) for j in range(sides[1])]
    return jnp.stack(taps, axis=1).reshape(ct.shape[0], *sides, padded.shape[-1], ct.shape[-1])
