"""Normalisation of ONE image over its pixels, with ReLU: the pass after each convolution.

XLA makes several passes over an image. `native_norm.cc` makes two, with exact statistics; a CPU uses it where it is faster
(`native.py`). oneDNN has a norm as fast, but it adds up the squares of all pixels one by one in float32: at 128 x 128
pixels its results were wrong by up to 8e-5, and larger images are worse. Reverse mode works to any order; with the native
kernel forward mode does not work, as for the convolutions.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hyperrecon_jax.models import native

EPSILON = 1e-5


def instance_norm_relu(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """ReLU of x, after each channel got the mean `bias` and the standard deviation `scale` over the pixels.

    Args:
        x: `(h, w, c)`; statistics are computed in float32 or better.
        scale, bias: `(c,)`, float32.

    Returns:
        `(h, w, c)`, of the type of x.
    """
    by_kernel = native.is_norm_active(x)
    return (instance_norm_relu_by_kernel if by_kernel else instance_norm_relu_by_xla)(x, scale, bias)


def instance_norm_relu_by_xla(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """As `instance_norm_relu`, without `native_norm.cc`."""
    return jax.nn.relu(normalize(x, *moments(x), scale, bias))


def moments(x: jax.Array, offset: ArrayLike = 0.0, *, batch_axes: tuple[str, ...] = ()) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of each channel of x + offset, over the pixels and the mapped axes; float32 or better."""
    average = partial(jax.lax.pmean, axis_name=batch_axes) if batch_axes else lambda a: a
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = average(jnp.mean(x, (0, 1)) + offset)
    return mean, average(jnp.mean(jnp.square(x - (mean - offset)[None, None]), (0, 1)))


def normalize(x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Subtract the mean, divide by the standard deviation, multiply by the scale and add the bias; all but x are `(c,)`."""
    gain = scale * jax.lax.rsqrt(var + EPSILON)
    return (x * gain[None, None] + (bias - mean * gain)[None, None]).astype(x.dtype)


def instance_norm_relu_by_kernel(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """As `instance_norm_relu`, by `native_norm.cc`, which `native.register` has given to JAX."""
    y, _, _ = _norm(x, scale.astype(jnp.float32), bias.astype(jnp.float32))
    return y


@jax.custom_vjp
def _norm(x, scale, bias):
    """The result, and two numbers for each channel that only the derivative uses."""
    return native.norm(x, scale, bias)


@jax.custom_vjp
def _cotangents(x, scale, bias, mean, inverse, ct):
    return native.norm_gradient(x, scale, bias, mean, inverse, ct)


def _norm_fwd(x, scale, bias):
    y, mean, inverse = _norm(x, scale, bias)
    return (y, mean, inverse), (x, scale, bias, mean, inverse)


def _cotangents_fwd(x, scale, bias, mean, inverse, ct):
    return _cotangents(x, scale, bias, mean, inverse, ct), (x, scale, bias, ct)


def _cotangents_bwd(residuals, cts):
    """The derivative of the derivative, which training does not need: XLA's."""

    def cotangents(x, scale, bias, ct):
        return jax.vjp(instance_norm_relu_by_xla, x, scale, bias)[1](ct)

    x_ct, scale_ct, bias_ct, ct_ct = jax.vjp(cotangents, *residuals)[1](cts)
    return x_ct, scale_ct, bias_ct, None, None, ct_ct


_norm.defvjp(_norm_fwd, lambda residuals, cts: _cotangents(*residuals, cts[0]))
_cotangents.defvjp(_cotangents_fwd, _cotangents_bwd)
