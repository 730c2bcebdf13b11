"""Choosing lambda by a number: the best one by gradient, through the hypernetwork."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.errors import InputError


def best_lambda(
    value: Callable[[jax.Array], jax.Array], starts: jax.Array | np.ndarray, *, steps: int = 40
) -> tuple[jax.Array, jax.Array]:
    """The lambda in [0, 1]^(K-1) with the largest value that gradient ascent finds from the best of some starts.

    A step goes along the gradient, is clipped to the cube, and counts only if the value rises; the next one is then longer
    and otherwise shorter. So the result is never worse than the best start. It is a local maximum, and where weights come
    from an ensemble, whose gradient is 0, the best start itself. Pure: `jit` it.

    Args:
        value: `(K-1,)` -> a number, differentiable, such as the PSNR of `reconstruct(model, variables, lam, y)`.
        starts: `(s, K-1)`, s of at least 1, such as `hyperparams.grid(11, K - 1)`.
        steps: each costs a value and a gradient.

    Returns:
        lambda `(K-1,)` and its value.

    Raises:
        InputError: if `starts` has another shape.
    """
    if starts.ndim != 2 or not len(starts):
        raise InputError(f"`starts` must have shape (s, K-1) with s of at least 1, got {starts.shape}.")
    first = jax.lax.map(value, starts)
    lam = jnp.asarray(starts)[jnp.argmax(jnp.where(jnp.isnan(first), -jnp.inf, first))]
    climb = jax.value_and_grad(value)

    def step(_, state):
        lam, best, gradient, length = state
        size = jnp.linalg.norm(gradient)
        there = jnp.clip(lam + length * gradient / jnp.where(size > 0, size, 1.0), 0.0, 1.0)
        new, slope = climb(there)
        better = new > best
        length = jnp.where(better, jnp.minimum(2 * length, 0.5), length / 3)
        kept = (jnp.where(better, a, b) for a, b in ((there, lam), (new, best), (slope, gradient)))
        return *kept, length

    best, gradient = climb(lam)
    lam, best, _, _ = jax.lax.fori_loop(0, steps, step, (lam, best, gradient, jnp.float32(0.05)))
    return lam, best
