"""Where a result leaves the measurement, and how large J is from noise alone.

The half of the gradient of J = ||A x - y||^2 is the real part of A^H (A x - y). At a result it is the image that would have
to be taken away for the result to agree with the measurement: it is zero where nothing is contradicted, and what the
measurement did not sample is not in it. Noise alone makes it larger than zero, so the page shows what is above noise.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import jax
import numpy as np
from scipy import special

from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Coils

FALSE_ALARMS = 0.05  # the share of images in which noise alone would show at one pixel or more
LEAST_SHOWN = 1 / 255  # one of the gray levels of a screen: less is never shown


class Noise(NamedTuple):
    """The noise of a measurement."""

    sigma: float  # as in `operators.complex_noise`, `awgn` or `rician`
    kind: str  # "complex" of k-space, "gaussian" or "rician" of images
    is_estimate: bool = False  # read off the data


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


def noise_level(noise: Noise, y: Measurement, shape: tuple[int, int]) -> float:
    """The value of `contradiction` that noise alone exceeds somewhere in the share `FALSE_ALARMS` of images `(h, w)`."""
    if noise.kind == "complex":  # half of the power is in the real part; it is spread over all pixels
        coils = len(y.kspace) if isinstance(y, Coils) else 1
        count, deviation = math.prod(shape), noise.sigma * math.sqrt(_count(y) / coils / (2 * math.prod(shape)))
    else:
        count, deviation = np.size(y), noise.sigma
    return deviation * NormalDist().inv_cdf(1 - FALSE_ALARMS / (2 * count))


def contradiction(problem: Problem, x_hat: jax.Array, y: Measurement) -> jax.Array:
    """|Re A^H (A x_hat - y)|, `(h, w, 1)` in units of image intensity; `x_hat` `(h, w, 1)`.

    Where a measured value is the mean of f pixels, as in super-resolution, A^H divides by f. There it is multiplied by f,
    so that this is the difference of the means, whatever f is.
    """
    gradient = jax.grad(problem.data_consistency)(x_hat, y)
    values = y.kspace[0] if isinstance(y, Coils) else y
    pixels_per_value = x_hat.size // values.size
    return abs(gradient) / 2 * pixels_per_value


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
