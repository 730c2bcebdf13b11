"""Classical reconstructions of single-coil k-space, with no training: total variation and wavelet l1.

Both minimise `1/2 ||M F x - y||^2 + weight * R(x)` over complex images x, and return the magnitude |x|. M is the mask and F
the orthonormal FFT. These are the problems of sigpy's `TotalVariationRecon` and `L1WaveletRecon`. Both are solved here by
ADMM (Boyd et al., Found Trends Mach Learn 3:1, 2011) with an exact step for x, which converges in tens of iterations.
sigpy's own solvers need hundreds where the weight is small. The first step starts from the zero-filled image.

K-space and mask are `(h, w)` with the zero frequency in the corner.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.runtime.errors import InputError

TV_ITERATIONS, WAVELET_ITERATIONS = 60, 30
THRESHOLD = 0.1  # of each ADMM step, weight / rho; in units of image intensity
TINY = 1e-20  # against 0 / 0
GRID_STEP = 2.0  # ratio of neighbouring weights on the grid
LIMITS = (1e-4, 1.0)  # of the weights, for images in [0, 1]
NO_SIGPY = "Wavelets must be computed with sigpy, which is not installed: pip install hyperrecon_jax[multicoil]."


@jax.jit
def total_variation(kspace: jax.Array, mask: jax.Array, *, weight: float | jax.Array) -> jax.Array:
    """Total variation: R is the sum of |finite differences| to the next row and column, with periodic borders.

    The step for x solves a linear system that is diagonal after an FFT (Goldstein and Osher, SIAM J Imaging Sci 2:323,
    2009).

    Args:
        kspace: `(h, w)` complex.
        mask: `(h, w)`, 1 where k-space is sampled, the zero frequency among others.
        weight: of R, above 0.

    Returns:
        `(h, w)` float32.
    """
    rho = weight / THRESHOLD
    eigenvalues = [2 - 2 * jnp.cos(2 * jnp.pi * jnp.fft.fftfreq(side)) for side in mask.shape]  # of D^H D along an axis
    diagonal = mask + rho * (eigenvalues[0][:, None] + eigenvalues[1][None])

    def solve_x(target):
        return _inverse((mask * kspace + rho * jnp.fft.fft2(_differences_adjoint(target), norm="ortho")) / diagonal)

    def step(_, state):
        split, dual = state
        shifted = _differences(solve_x(split - dual)) + dual
        modulus = jnp.abs(shifted)
        split = shifted * jnp.maximum(1 - THRESHOLD / jnp.maximum(modulus, TINY), 0)
        return split, shifted - split

    start = _differences(_inverse(mask * kspace))
    split, dual = jax.lax.fori_loop(0, TV_ITERATIONS, step, (start, jnp.zeros_like(start)))
    return jnp.abs(solve_x(split - dual))


def wavelet_l1(kspace: np.ndarray, mask: np.ndarray, *, weight: float) -> np.ndarray:
    """Wavelet l1: R is the sum of the moduli of the Daubechies-4 wavelet coefficients (Lustig et al., MRM 58:1182, 2007).

    The wavelet transform is sigpy's. The image is zero outside its borders. Arguments and result are those of
    `total_variation`.

    Raises:
        InputError: if sigpy is not installed.
    """
    sigpy = _import_sigpy()
    transform = sigpy.linop.Wavelet(mask.shape, wave_name="db4")
    adjoint = transform.H  # also the inverse
    rho = weight / THRESHOLD

    def solve_x(target):
        return np.fft.ifft2((mask * kspace + rho * np.fft.fft2(adjoint(target), norm="ortho")) / (mask + rho), norm="ortho")

    split = transform(np.fft.ifft2(mask * kspace, norm="ortho"))
    dual = np.zeros_like(split)
    for _ in range(WAVELET_ITERATIONS):
        shifted = transform(solve_x(split - dual)) + dual
        split = sigpy.soft_thresh(THRESHOLD, shifted)
        dual = shifted - split
    return np.abs(solve_x(split - dual)).astype(np.float32)


def find_best_weight(
    score: Callable[[float], float], *, start: float, limits: tuple[float, float] = LIMITS
) -> tuple[float, float]:
    """The weight with the highest score, and that score: on a grid, then between its points.

    The grid is `start * 2^k`. The search goes uphill from `start` until both neighbours are lower, which finds the highest
    point if the score rises to one maximum and falls after it. Then the vertex of the parabola through the highest point
    and its neighbours, over log(weight), is tried.

    Args:
        score: weight -> a number.
        start: a weight.
        limits: the lowest and the highest weight.
    """
    scores = {0: score(start)}

    def score_at(k: int) -> float:
        if k not in scores:
            weight = start * GRID_STEP**k
            scores[k] = score(weight) if limits[0] <= weight <= limits[1] else -math.inf
        return scores[k]

    best, neighbour = 0, max((-1, 1), key=score_at)
    while score_at(neighbour) > score_at(best):
        best = neighbour
        neighbour = max((best - 1, best + 1), key=score_at)
    candidates = {start * GRID_STEP**k: value for k, value in scores.items()}
    below, top, above = (scores[k] for k in (best - 1, best, best + 1))
    if math.isfinite(below) and math.isfinite(above) and (bend := 2 * top - below - above) > 0:
        weight = start * GRID_STEP ** (best + (above - below) / (2 * bend))
        candidates[weight] = score(weight)
    chosen = max(candidates, key=lambda weight: candidates[weight])
    return chosen, candidates[chosen]


def require_sigpy() -> None:
    """Raises `InputError` if sigpy is not installed."""
    _import_sigpy()


def _import_sigpy() -> Any:
    try:
        import sigpy
    except ImportError:
        raise InputError(NO_SIGPY) from None
    return sigpy


def _inverse(kspace: jax.Array) -> jax.Array:
    return jnp.fft.ifft2(kspace, norm="ortho")


def _differences(x: jax.Array) -> jax.Array:
    """The differences to the previous row and column, `(h, w) -> (2, h, w)`, periodic."""
    return jnp.stack([x - jnp.roll(x, 1, axis) for axis in (0, 1)])


def _differences_adjoint(g: jax.Array) -> jax.Array:
    """The adjoint of `_differences`."""
    return g[0] - jnp.roll(g[0], -1, 0) + g[1] - jnp.roll(g[1], -1, 1)
