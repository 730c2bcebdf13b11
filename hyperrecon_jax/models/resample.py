"""The changes of resolution in the U-Net: 2x2 max-pooling and bilinear up-sampling of ONE image.

The derivative of `upsample` is written by hand, because of the program that XLA makes on a CPU. JAX's transpose of a slice
is an array that is filled up with zeros, which XLA does not vectorise. To take rows by constant indices is fast: alone, the
derivative needs a twentieth of the time. Reverse mode works to any order; forward mode does not work, as for the
convolutions of the network.

Images of bfloat16 are computed in float32 and rounded once, at the end: a CPU computes bfloat16 in float32, and XLA would
round after every operation.
"""

import jax
import jax.numpy as jnp
import numpy as np


def max_pool(x: jax.Array) -> jax.Array:
    """The 2x2 maximum, `(h, w, c) -> (h/2, w/2, c)`, by four strided slices: `reduce_window` is slow on a CPU."""
    wide = _widen(x)
    rows = jnp.maximum(wide[::2, ::2], wide[::2, 1::2]), jnp.maximum(wide[1::2, ::2], wide[1::2, 1::2])
    return jnp.maximum(*rows).astype(x.dtype)


@jax.custom_vjp
def upsample(x: jax.Array) -> jax.Array:
    """Bilinear interpolation with aligned corners, `(h, w, c) -> (2h, 2w, c)`."""
    return _upsample_axis(_upsample_axis(_widen(x), 0), 1).astype(x.dtype)


@jax.custom_vjp
def _upsample_transpose(ct):
    """The transpose of `upsample`, which is linear: `(2h, 2w, c) -> (h, w, c)`."""
    return _upsample_axis_transpose(_upsample_axis_transpose(_widen(ct), 0), 1).astype(ct.dtype)


upsample.defvjp(lambda x: (upsample(x), None), lambda _, ct: (_upsample_transpose(ct),))
_upsample_transpose.defvjp(lambda ct: (_upsample_transpose(ct), None), lambda _, x: (upsample(x),))


def _widen(x):
    """x in float32 or better."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _upsample_axis(x, axis):
    """Output o lies at o (n-1)/(2n-1): output 2i before input i, output 2i+1 after it."""
    n = x.shape[axis]
    output = np.arange(2 * n)
    nearest, neighbour = output // 2, np.clip(output // 2 + np.where(output % 2, 1, -1), 0, n - 1)
    center = jnp.take(x, nearest, axis)
    return center + (jnp.take(x, neighbour, axis) - center) * _along(_neighbour_weights(n), x, axis)


def _upsample_axis_transpose(ct, axis):
    """Input i counts in outputs 2i-1 to 2i+2; those that do not exist have weight 0."""
    n = ct.shape[axis] // 2
    weights = _neighbour_weights(n)
    before, after = np.append(0, weights[1:-1:2]), np.append(weights[2::2], 0)  # of outputs 2i-1 and 2i+2
    terms = zip((-1, 0, 1, 2), (before, 1 - weights[::2], 1 - weights[1::2], after), strict=True)
    outputs = 2 * np.arange(n)
    return sum(
        jnp.take(ct, np.clip(outputs + shift, 0, 2 * n - 1), axis) * _along(weight, ct, axis) for shift, weight in terms
    )


def _neighbour_weights(n):
    """For each of 2n outputs, the weight of the input that is its second nearest; 0 at the ends, which have none."""
    output = np.arange(2 * n)
    return np.where(output % 2, n - 1 - output // 2, output // 2) / (2 * n - 1)


def _along(weights, x, axis):
    """Weights along an axis of x, of its type."""
    return jnp.asarray(weights, x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
