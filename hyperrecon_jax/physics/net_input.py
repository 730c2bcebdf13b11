"""What a network receives of one sample: the zero-filled image alone, or also the measurement and its operator.

A network without data consistency, such as the U-Net, receives the zero-filled image `(h, w, 2)`. An unrolled network
receives a `PhysicsInput`. Both are the result of `Problem.to_net_input`, and functions of this module accept both.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from hyperrecon_jax.physics.operators import Operator, magnitude

SCALE_QUANTILE = 0.99


class PhysicsInput(NamedTuple):
    """The input of a network with data consistency, of ONE sample. Every sample of a batch may have another operator."""

    image: jax.Array  # (h, w, 2), real and imaginary part of the zero-filled image
    y: jax.Array  # the measurement: k-space (h, w, 1) or, of coils, (c, h, w); or an image (h / factor, w / factor, 1)
    mask: jax.Array | None = None  # (h, w), 1 where k-space is sampled; None: the measurement is an image
    maps: jax.Array | None = None  # (c, h, w) complex, sensitivities of the coils; None: one coil


NetInput = jax.Array | PhysicsInput
AnyInput = TypeVar("AnyInput", jax.Array, PhysicsInput)  # the same kind in and out


def physics_input(operator: Operator, y: jax.Array) -> PhysicsInput:
    """The `PhysicsInput` of a measurement y of an operator."""
    return PhysicsInput(operator.to_net_input(y), y, operator.mask, operator.maps)


def zero_filled(net_input: NetInput) -> jax.Array:
    """The magnitude of the zero-filled image, `(*b, h, w, 1)`."""
    return magnitude(net_input.image if isinstance(net_input, PhysicsInput) else net_input)


def intensity_scale(net_input: NetInput) -> jax.Array:
    """The 99th percentile of the zero-filled magnitude of ONE image, `()`; its maximum if that percentile is 0.

    It is proportional to the measurement, so it is 0 where that is all zero. Single hot pixels do not change it.
    """
    # the barrier: where the input is a constant of a program, XLA would compute this while compiling, which takes long
    image = jax.lax.optimization_barrier(zero_filled(net_input))
    scale = _quantile(image.reshape(-1), SCALE_QUANTILE)
    return jnp.where(scale > 0, scale, jnp.max(image))


def _quantile(values: jax.Array, q: float) -> jax.Array:
    """`jnp.quantile` of `(n,)` numbers of at least 0, without a sort, which took 8 % of a training step on a CPU.

    As integers the bits of such numbers have the same order. So the bits of the k-th smallest are chosen one by one, from
    the highest: a bit is 1 if no more than k numbers are smaller than the number that has it.
    """
    rank, weight = divmod(q * (len(values) - 1), 1)
    width = 8 * values.dtype.itemsize - 1  # without the sign
    bits = jax.lax.bitcast_convert_type(values, f"int{width + 1}")
    ones = jnp.ones(len(values), jnp.float32)

    def count(mask):
        return jnp.dot(mask.astype(jnp.float32), ones)  # exact up to 2^24; a product, because XLA's sums are slow

    def choose_bit(i, prefix):
        candidate = prefix | (jnp.ones((), bits.dtype) << (width - 1 - i))
        return jnp.where(count(bits < candidate) <= rank, candidate, prefix)

    low = jax.lax.fori_loop(0, width, choose_bit, jnp.zeros((), bits.dtype))
    larger = jnp.min(jnp.where(bits > low, bits, jnp.iinfo(bits.dtype).max))
    high = jnp.where(count(bits <= low) > rank + 1, low, larger)

    def value(pattern):  # the mean of all numbers with these bits, so that a gradient flows
        mask = bits == pattern
        return jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(count(mask), 1).astype(values.dtype)

    return value(low) * (1 - weight) + value(high) * weight


def divide_by(net_input: AnyInput, scale: jax.Array) -> AnyInput:
    """The input that the measurement y / scale has; that of y if the scale is 0."""
    scale = jnp.where(scale > 0, scale, 1.0)
    if isinstance(net_input, PhysicsInput):
        return net_input._replace(image=net_input.image / scale, y=net_input.y / scale)
    return net_input / scale
