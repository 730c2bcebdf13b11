"""Linear filters of images `(*b, h, w, c)`: a window, wavelets, a Laplacian of a Gaussian.

A filter along one axis is a banded matrix, computed at trace time. On a CPU a matrix product is far faster than shifted
slices, convolutions and jnp.convolve.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

LOG_SIGMA, LOG_RADIUS = 1.5, 7  # in pixels, of the Laplacian of a Gaussian

# The low-pass of the Daubechies-4 decomposition, from PyWavelets' "db4". The high-pass is its quadrature mirror.
DB4_LOW = np.array(
    [
        -0.010597401785069032,
        0.0328830116668852,
        0.030841381835560764,
        -0.18703481171909309,
        -0.027983769416859854,
        0.6308807679298589,
        0.7148465705529157,
        0.2303778133088965,
    ]
)
DB4_HIGH = DB4_LOW[::-1] * np.array([-1.0, 1.0] * 4)


def filter_axes(rows: np.ndarray, image: jax.Array, columns: np.ndarray) -> jax.Array:
    """Filter both axes of each channel: matrices `(i, h)` and `(j, w)`, image `(*b, h, w, c)` -> `(*b, i, j, c)`.

    At full precision: variances are small differences of large numbers, which TF32 and bfloat16 products destroy.
    """
    return jnp.einsum("ih,...hwc,jw->...ijc", rows, image, columns, precision=Precision.HIGHEST)


def gaussian_taps(sigma: float, radius: int) -> np.ndarray:
    """A sampled Gaussian with the sum 1, `(2 radius + 1,)`."""
    taps = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    return taps / taps.sum()


def db4_bands(image: jax.Array, *, mirrored: bool = False) -> jax.Array:
    """One level of the Daubechies-4 wavelet transform, orthonormal away from the border.

    Args:
        image: `(*b, h, w, c)`.
        mirrored: mirror the image at its border, as PyWavelets' mode "symmetric". Otherwise zeros surround the image, as
            in its mode "zero".

    Returns:
        `(2, 2, *b, (h + 7) // 2, (w + 7) // 2, c)`: the low-pass and the high-pass along the rows' axis, then along the
        columns' axis. These are all bands that a pixel reaches, so no side of the image is favoured.
    """
    rows, columns = (_db4_matrices(size, mirrored) for size in image.shape[-3:-1])
    return jnp.einsum("aih,...hwc,bjw->ab...ijc", rows, image, columns, precision=Precision.HIGHEST)


def laplacian_of_gaussian(image: jax.Array) -> jax.Array:
    """Filter each channel with a Laplacian of a Gaussian of sigma 1.5: `(*b, h, w, c) -> (*b, h, w, c)`.

    The kernel is the 15 x 15 kernel of MATLAB's `fspecial("log", 15, 1.5)`, whose sum is zero. The image is mirrored at
    its border and the edge pixel is repeated, so that the border adds no edge.
    """
    # The kernel is g(x) g(y) (x^2 + y^2 - 2 sigma^2) minus its mean: a sum of three separable kernels. As pairs of
    # matrices they are many times faster than the convolution on a CPU.
    axis = np.arange(-LOG_RADIUS, LOG_RADIUS + 1)
    gaussian = gaussian_taps(LOG_SIGMA, LOG_RADIUS)
    second_derivative = gaussian * (np.square(axis) - LOG_SIGMA**2) / LOG_SIGMA**4
    mean = np.outer(second_derivative, gaussian).mean() + np.outer(gaussian, second_derivative).mean()
    constant = np.full(axis.size, np.sqrt(abs(mean)))
    row_taps = np.stack([second_derivative, gaussian, -np.sign(mean) * constant])
    column_taps = np.stack([gaussian, second_derivative, constant])
    h, w = image.shape[-3:-1]
    rows, columns = mirrored_correlation(h, row_taps), mirrored_correlation(w, column_taps)
    return jnp.einsum("rih,...hwc,rjw->...ijc", rows, image, columns, precision=Precision.HIGHEST)


def zero_padded_convolution(size: int, taps: np.ndarray) -> np.ndarray:
    """The matrix of the full convolution of an axis with `taps`, `(size + len(taps) - 1, size)`."""
    return np.stack([np.convolve(unit, taps) for unit in np.eye(size)], axis=1).astype(np.float32)


def mirrored_correlation(size: int, taps: np.ndarray, *, centres: np.ndarray | None = None) -> np.ndarray:
    """Matrices that correlate a mirrored axis with filters.

    Args:
        size: length of the axis.
        taps: `(r, t)`. The centre of each filter is tap `t // 2`.
        centres: `(n,)`, the pixel below the centre of the filter for each result. It may lie outside of the axis. Each
            pixel, if not given.

    Returns:
        `(r, n, size)`. The edge pixel is repeated.
    """
    centres = np.arange(size) if centres is None else centres
    count = taps.shape[1]
    positions = np.mod(centres[:, None] + np.arange(count) - count // 2, 2 * size)
    pixels = np.minimum(positions, 2 * size - 1 - positions)
    matrices = np.zeros((len(taps), len(centres), size))
    for k in range(count):  # tap by tap, because two taps may meet the same pixel
        matrices[:, np.arange(len(centres)), pixels[:, k]] += taps[:, k : k + 1]
    return matrices.astype(np.float32)


def _db4_matrices(size: int, mirrored: bool) -> np.ndarray:
    """One level of db4 along an axis: low-pass, then high-pass."""
    if mirrored:
        centres = 2 * np.arange((size + 7) // 2) - 2
        return mirrored_correlation(size, np.stack([DB4_LOW, DB4_HIGH])[:, ::-1], centres=centres)
    return np.stack([zero_padded_convolution(size, taps)[1::2] for taps in (DB4_LOW, DB4_HIGH)])
