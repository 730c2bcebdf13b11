"""The data-consistency step of an unrolled network: the proximal operator of the distance from a measurement.

    prox(z) = argmin_x  ||A x - y||^2 + weight ||x - z||^2

A small weight trusts the measurement, a large one the image z. The minimum is a closed form for one coil, denoising and
super-resolution. For several coils it is found by conjugate gradients (MoDL, Aggarwal et al., IEEE TMI 38:394, 2019).
All functions take ONE sample, are differentiable, and treat a complex image as two channels.
"""

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from hyperrecon_jax.physics.net_input import PhysicsInput
from hyperrecon_jax.runtime.errors import InputError

CG_STEPS = 6


def prox(net_input: PhysicsInput, z: jax.Array, *, weight: jax.Array) -> jax.Array:
    """The image nearest to both the measurement and z.

    Args:
        net_input: the measurement and its operator.
        z: `(h, w, 2)`, real and imaginary part.
        weight: `()`, above 0.

    Returns:
        `(h, w, 2)`.

    Raises:
        InputError: if the measurement's sides do not divide those of z.
    """
    image, y, mask, maps = net_input
    if mask is not None and maps is not None:
        normal = to_complex(image) + weight * to_complex(z)  # A^H y + weight z
        return to_channels(_solve_sense(mask, maps, normal, to_complex(z), weight))
    if mask is not None:
        difference = mask * (y[..., 0] - jnp.fft.fft2(to_complex(z), norm="ortho"))
        return z + to_channels(jnp.fft.ifft2(difference, norm="ortho")) / (1 + weight)
    factor, rest = divmod(z.shape[0], y.shape[0])
    if rest or z.shape[1] != factor * y.shape[1]:
        raise InputError(f"`net_input.y` must have sides that divide those of `z`, got {y.shape} and {z.shape}.")
    h, w = y.shape[:2]
    measurement = jnp.concatenate([y.real, y.imag], -1)
    difference = measurement - z.reshape(h, factor, w, factor, 2).mean((1, 3))
    # D^T (D D^T + weight)^-1: D takes means of blocks, so D D^T = 1 / factor^2 and D^T repeats each pixel over factor^2
    return z + jnp.repeat(jnp.repeat(difference, factor, 0), factor, 1) / (1 + weight * factor**2)


def to_complex(image: jax.Array) -> jax.Array:
    """`(h, w, 2)`, real and imaginary part -> `(h, w)` complex."""
    return jax.lax.complex(image[..., 0], image[..., 1])


def to_channels(image: jax.Array) -> jax.Array:
    """`(h, w)` complex -> `(h, w, 2)`, real and imaginary part."""
    return jnp.stack([image.real, image.imag], -1)


def _solve_sense(mask, maps, b, start, weight):
    """The solution x of (A^H A + weight) x = b by conjugate gradients, for A of SENSE; complex `(h, w)`.

    JAX differentiates it as the exact solution, by another solution with the cotangent.
    """

    def apply_normal(x):
        kspace = mask[None] * jnp.fft.fft2(maps * x[None], norm="ortho")
        return jnp.sum(jnp.conj(maps) * jnp.fft.ifft2(kspace, norm="ortho"), 0) + weight * x

    return cg(apply_normal, b, start, maxiter=CG_STEPS)[0]
