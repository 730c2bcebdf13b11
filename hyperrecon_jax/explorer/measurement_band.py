"""Where a result leaves the measurement, and how large J is from noise alone.

The half of the gradient of J = ||A x - y||^2 is the real part of A^H (A x - y), an image. At a result it is what would have
to be taken away for the result to agree with the measurement: zero where nothing is contradicted, and without anything that
was not sampled. Noise alone makes it larger than zero, so the page shows what is above noise.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Coils

WINDOW = 5  # pixels along a side of the region over which a contradiction is averaged
FALSE_ALARMS = 0.05  # the share of images in which noise alone would show at one pixel or more
DRAWS = 40  # of noise, to find the level of noise
LEAST_SHOWN = 1 / 255  # one of the gray levels of a screen: less is never shown


class BandPrograms(NamedTuple):
    """The compiled functions of a problem."""

    contradiction: Callable[[jax.Array, Measurement], jax.Array]
    unit_noise_level: Callable[[jax.Array, Measurement], jax.Array]


class Noise(NamedTuple):
    """The noise of a measurement."""

    sigma: float  # as in `operators.complex_noise`, `awgn` or `rician`
    kind: str  # "complex" of k-space, "gaussian" or "rician" of images
    is_estimate: bool = False  # read off the data


def compile_band(problem: Problem) -> BandPrograms:
    """`contradiction` and `unit_noise_level` of a problem."""
    return BandPrograms(*(jax.jit(partial(function, problem)) for function in (contradiction, unit_noise_level)))


def expected_j(noise: Noise, y: Measurement, x: np.ndarray | jax.Array | None = None) -> tuple[float, float]:
    """The mean and the standard deviation of J(x) = ||A x - y||^2 of the true image x, which is noise alone.

    Args:
        noise: that of y. Of coils each has this noise.
        y: the measurement; k-space is zero where it was not sampled.
        x: the true image `(h, w, 1)`, on which Rician noise depends; None: it counts as bright, where that is Gaussian.
    """
    power, count = noise.sigma**2, _count(y)
    if noise.kind == "complex":
        return power * count, power * math.sqrt(count)
    spread = power * math.sqrt(2 * count)
    if noise.kind != "rician" or x is None or not power:
        return power * count, spread
    rows, columns, _ = np.shape(y)
    blocks = np.asarray(x, np.float64).reshape(rows, np.shape(x)[0] // rows, columns, -1)
    clean = blocks.mean((1, 3))  # A x: of denoising x itself, of super-resolution means
    return float((2 * clean**2 + 2 * power - 2 * clean * _rician_mean(clean, noise.sigma)).sum()), spread


def contradiction(problem: Problem, x_hat: jax.Array, y: Measurement) -> jax.Array:
    """How much of a result the measurement contradicts around each pixel, `(h, w, 1)` in units of image intensity.

    It is the root mean square of Re A^H (A x_hat - y) over `WINDOW` x `WINDOW` pixels: what is wrong in one way over a
    region shows, although each of its pixels is hidden in noise. Where a measured value is the mean of f pixels, as in
    super-resolution, A^H divides by f. There it is multiplied by f, so that this is the difference of the means.
    """
    values = y.kspace[0] if isinstance(y, Coils) else y
    residual = jax.grad(problem.data_consistency)(x_hat, y) / 2 * (x_hat.size // values.size)
    return jnp.sqrt(_sum_around(jnp.square(residual)) / _count_around(residual.shape))


def unit_noise_level(problem: Problem, x_hat: jax.Array, y: Measurement) -> jax.Array:
    """The `contradiction` that noise of sigma 1 exceeds somewhere in about the share `FALSE_ALARMS` of images, simulated.

    Times sigma it is that of other noise. Rician noise counts as Gaussian.

    Args:
        problem: that of y.
        x_hat: an image of the size of the result; its values do not matter.
        y: the measurement; k-space is zero where it was not sampled.
    """

    def largest(key: jax.Array) -> jax.Array:
        return contradiction(problem, jnp.zeros_like(x_hat), _simulate(key, y)).max()

    return jnp.quantile(jax.lax.map(largest, jax.random.split(jax.random.key(0), DRAWS)), 1 - FALSE_ALARMS)


def _simulate(key: jax.Array, y: Measurement) -> Measurement:
    """Noise of the standard deviation 1 in place of a measurement."""
    values = y.kspace if isinstance(y, Coils) else y
    noise = jax.random.normal(key, values.shape, values.dtype)  # a complex normal has E |n|^2 = 1
    if not jnp.iscomplexobj(values):
        return noise
    if not isinstance(y, Coils):
        return jnp.where(values != 0, noise, 0)
    return y._replace(kspace=jnp.where(jnp.any(values != 0, axis=0, keepdims=True), noise, 0))


def _sum_around(image: jax.Array) -> jax.Array:
    """The sum over the window around each pixel, as far as it is inside of the image."""
    return jax.lax.reduce_window(image, 0.0, jax.lax.add, (WINDOW, WINDOW, 1), (1, 1, 1), "SAME")


def _count_around(shape: tuple[int, ...]) -> np.ndarray:
    """The number of pixels that `_sum_around` adds; in NumPy, because the compiler folds such constants for seconds."""
    rows, columns = (np.convolve(np.ones(side), np.ones(WINDOW))[WINDOW // 2 :][:side] for side in shape[:2])
    return np.outer(rows, columns)[..., None].astype(np.float32)


def _count(y: Measurement) -> int:
    """The number of measured values, of all coils together."""
    if isinstance(y, Coils):
        kspace = np.asarray(y.kspace)
        return int((kspace != 0).any(0).sum()) * len(kspace)
    y = np.asarray(y)
    return int(np.count_nonzero(y)) if np.iscomplexobj(y) else y.size


def _rician_mean(x: np.ndarray, sigma: float) -> np.ndarray:
    """The mean of |x + n1 + i n2|, n1 and n2 of standard deviation sigma (the mean of the Rice distribution)."""
    half = x * x / (4 * sigma**2)
    bessel = (1 + 2 * half) * special.i0e(half) + 2 * half * special.i1e(half)
    return sigma * math.sqrt(math.pi / 2) * bessel
