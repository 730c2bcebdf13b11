"""The loss weights lambda: how they become coefficients, how training draws them, how evaluation sweeps them.

`lam` is `(*b, K-1)` in [0, 1] for a loss of K terms. A sampler is a function `(key, shape) -> lam` of that shape;
`functools.partial` sets its options. Equation and section numbers are those of Wang, Dalca and Sabuncu (2022).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hyperrecon_jax.runtime.errors import InputError


def coefficients(lam: ArrayLike) -> jax.Array:
    """The weight of each loss term: non-negative, and they sum to one (Eqs. 9, 10).

        K = 1:  (1)
        K = 2:  (1 - lam, lam)                                      Eq. 9
        K = 3:  (lam_1, (1 - lam_1) lam_2, (1 - lam_1)(1 - lam_2))  Eq. 10
        K > 3:  Eq. 10 continued: c_k = lam_k (1 - c_1 - ... - c_{k-1}); the last term gets the rest.

    The order is reversed between the two equations. With two terms, lam = 1 selects the last term. With three or more,
    lam_1 = 1 selects the first term, and the other lambdas have no effect.

    Args:
        lam: `(*b, K-1)` in [0, 1]; not checked, because it may be traced (call `check` before tracing).

    Returns:
        `(*b, K)`.

    Raises:
        InputError: if `lam` is a scalar.
    """
    lam = jnp.asarray(lam, jnp.float32)
    if lam.ndim == 0:
        raise InputError("`lam` must have shape (*b, K-1), got a scalar.")
    ones = jnp.ones((*lam.shape[:-1], 1))
    remainders = jnp.concatenate([ones, jnp.cumprod(1 - lam, axis=-1)], axis=-1)
    shares = jnp.concatenate([lam, ones], axis=-1) * remainders
    return shares[..., ::-1] if lam.shape[-1] == 1 else shares


def uniform(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """U[0, 1]^(K-1): uniform hyperparameter sampling (UHS, Sec. IV-B)."""
    return jax.random.uniform(key, shape)


def endpoints(key: jax.Array, shape: Sequence[int], *, probability: float) -> jax.Array:
    """Uniform sampling that favours the ends: with `probability`, a lambda is 0 or 1, both equally likely.

    Uniform sampling hardly ever trains the corners, where all of the weight is on a single loss.

    Raises:
        InputError: if `probability` is outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise InputError(f"`probability` must be in [0, 1], got {probability}.")
    key_inner, key_end, key_choice = jax.random.split(key, 3)
    end = jax.random.bernoulli(key_end, shape=shape).astype(jnp.float32)
    return jnp.where(jax.random.bernoulli(key_choice, probability, shape), end, jax.random.uniform(key_inner, shape))


def constant(key: jax.Array, shape: Sequence[int], *, lam: ArrayLike) -> jax.Array:
    """The same `lam`, `(K-1,)`, for every sample, to train a baseline (Sec. V-C); `key` is not used."""
    del key
    return jnp.broadcast_to(jnp.asarray(lam, jnp.float32), shape)


def grid(points: int, num_lams: int) -> jax.Array:
    """A regular grid over [0, 1]^(K-1), both ends included (the landscapes of Fig. 4).

    Returns:
        `(points ** num_lams, num_lams)`; the last lambda changes fastest. So if an array has one value for each row,
        `.reshape(points, ..., points)` gives it lam_1 along the first axis, lam_2 along the second, and so on.

    Raises:
        InputError: if `points` is below 2 or `num_lams` is negative.
    """
    if points < 2:
        raise InputError(f"`points` must be at least 2 to hold both ends, got {points}.")
    if num_lams < 0:
        raise InputError(f"`num_lams` must not be negative, got {num_lams}.")
    return jnp.asarray(product([np.arange(points) / (points - 1)] * num_lams))


def corners(num_terms: int) -> np.ndarray:
    """The lambdas at which all weight is on a single loss term: row k selects term k.

    Returns:
        `(num_terms, num_terms - 1)`. `coefficients` of it is the identity. Lambdas without effect are 0.
    """
    return np.array([[0.0], [1.0]], np.float32) if num_terms == 2 else np.eye(num_terms, num_terms - 1, dtype=np.float32)


def product(axes: Sequence[ArrayLike]) -> np.ndarray:
    """All combinations of the values along each axis, `(product of lengths, axes)`; the last axis changes fastest."""
    values = np.meshgrid(*(np.asarray(axis, np.float32) for axis in axes), indexing="ij")
    return np.stack(values, -1).reshape(-1, len(axes)) if axes else np.zeros((1, 0), np.float32)


def landscape(value: Callable[[jax.Array], Any], axes: Sequence[ArrayLike], *, at_once: int = 1) -> Any:
    """Evaluate a function of lambda on a grid (Fig. 4). It can be compiled and differentiated.

        landscape(lambda lam: metrics.psnr(reconstruct(model, variables, lam, net_input), image), [axis, axis])

    Args:
        value: `(K-1,)` -> a number, an array, or a tree of them.
        axes: the values of each of the K-1 lambdas.
        at_once: how many lambdas are evaluated together; more take more memory.

    Returns:
        The values, with leading axes of `len(axes[0]), ...`.
    """
    shape = tuple(len(np.asarray(axis)) for axis in axes)
    values = jax.lax.map(value, jnp.asarray(product(axes)), batch_size=at_once if at_once > 1 else None)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), values)


def check(lam: ArrayLike, num_terms: int) -> np.ndarray:
    """Check a `lam` that a user gave; for concrete values, not for traced ones.

    Args:
        lam: numbers, expected as `(*b, num_terms - 1)` in [0, 1].
        num_terms: K.

    Returns:
        `lam` as float32 `(*b, num_terms - 1)`.

    Raises:
        InputError: if it is not numbers, has another last axis, is NaN or leaves [0, 1].
    """
    try:
        values = np.asarray(lam, np.float32)
    except (TypeError, ValueError):
        raise InputError(f"`lam` must be {num_terms - 1} numbers in [0, 1], got {lam!r}.") from None
    if values.ndim == 0 or values.shape[-1] != num_terms - 1:
        expected = f"{num_terms - 1} for {num_terms} loss terms"
        raise InputError(f"`lam` must have a last axis of {expected}, got {lam!r} of shape {values.shape}.")
    outside = values[~((values >= 0) & (values <= 1))]  # NaN fails both comparisons
    if outside.size:
        raise InputError(f"`lam` must be in [0, 1], got {outside[0]}.")
    return values
