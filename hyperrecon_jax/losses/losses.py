"""Losses: one differentiable value per image.

Images are float `(*b, h, w, c)` in [0, 1], and every loss returns `(*b)`, for any number of leading axes, including none.
The reconstruction `x_hat` comes first, the reference image `x` second; nothing is broadcast. Gradients are finite
everywhere, also at equal and at black images: where |.| has a kink, the subgradient is 0. Smaller is better, except for
`ssim`, which is a similarity. Equation and section numbers are those of Wang, Dalca and Sabuncu (2022).

All raise `InputError` if an image is not float, has fewer than three axes, or has another shape than the first image.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from hyperrecon_jax.physics.operators import check_images
from hyperrecon_jax.runtime.errors import InputError

PIXELS = (-3, -2, -1)
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for a data range of 1
RADIUS = 5  # of SSIM's window, in pixels

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


def mae(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Mean absolute error over pixels and channels (L_1 of Eq. 9 in Sec. V-D)."""
    check_images(x_hat=x_hat, x=x)
    return jnp.mean(_abs(x_hat - x), axis=PIXELS)


def mse(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Mean squared error over pixels and channels."""
    check_images(x_hat=x_hat, x=x)
    return jnp.mean(jnp.square(x_hat - x), axis=PIXELS)


def ssim(x_hat: jax.Array, x: jax.Array, *, zero_padded: bool = False) -> jax.Array:
    """Structural similarity for a data range of 1, at most 1 and 1 for equal images.

    Gaussian window of 11 x 11 taps and sigma 1.5, population covariance, averaged over the windows that lie inside the
    image and over channels: scikit-image's `structural_similarity` with Gaussian weights and no sample covariance.

    Args:
        zero_padded: average over the windows centred on every pixel, with zeros outside the image, as the authors'
            training loss does.

    Raises:
        InputError: if no window lies inside the image (a side below 11 pixels) and `zero_padded` is not set.
    """
    # dm_pix.ssim gives the same values, but (1) clips variances and covariances, which kills the gradient where x_hat
    # is flat: 1.5e-4 for a true 1.96 along one direction; and (2) is slow to train with: forward and backward of 16
    # images on CPU take 10 times as long at 96 x 96 and 4 times at 256 x 256.
    check_images(x_hat=x_hat, x=x)
    height, width = x.shape[-3:-1]
    if min(height, width) <= 2 * RADIUS and not zero_padded:
        raise InputError(f"`x` must have sides of at least {2 * RADIUS + 1} pixels for SSIM, got {height} x {width}.")
    rows, columns = _gaussian(height, zero_padded), _gaussian(width, zero_padded)

    def blur(image):
        # Full precision: variances are small differences of large numbers, which TF32 and bfloat16 products destroy.
        return jnp.einsum("ih,...hwc,jw->...ijc", rows, image, columns, precision=Precision.HIGHEST)

    mean_hat, mean = blur(x_hat), blur(x)
    variance_hat = blur(jnp.square(x_hat)) - jnp.square(mean_hat)
    variance = blur(jnp.square(x)) - jnp.square(mean)
    covariance = blur(x_hat * x) - mean_hat * mean
    luminance = (2 * mean_hat * mean + C1) / (jnp.square(mean_hat) + jnp.square(mean) + C1)
    structure = (2 * covariance + C2) / (variance_hat + variance + C2)
    return jnp.mean(luminance * structure, axis=PIXELS)


def ssim_loss(x_hat: jax.Array, x: jax.Array, *, zero_padded: bool = False) -> jax.Array:
    """1 - `ssim` (L_2 of Eq. 9 in Sec. V-D)."""
    return 1 - ssim(x_hat, x, zero_padded=zero_padded)


def total_variation(x_hat: jax.Array) -> jax.Array:
    """Anisotropic total variation, a sum over pixels (R_2 of Eq. 11), without differences across the border."""
    check_images(x_hat=x_hat)
    down, right = jnp.diff(x_hat, axis=-3), jnp.diff(x_hat, axis=-2)
    return jnp.sum(_abs(down), axis=PIXELS) + jnp.sum(_abs(right), axis=PIXELS)


def weight_l1(theta: Any) -> jax.Array:
    """Sum of |theta_l|_1 over every leaf of one sample's generated weights, biases included (R_1 of Eq. 11).

    Args:
        theta: pytree of arrays of any shape, without a batch axis. Map the function over a batch.

    Returns:
        A scalar.
    """
    return sum((jnp.sum(_abs(leaf)) for leaf in jax.tree.leaves(theta)), start=jnp.zeros(()))


def wavelet_l1(x_hat: jax.Array) -> jax.Array:
    """The l1 norm of all wavelet coefficients, including the coarsest approximation (a sparsity prior, Sec. II-A).

    Three levels of db4 with zeros outside the image, as PyWavelets' `wavedec2(x, "db4", mode="zero", level=3)`. The
    paper has no experiment with it. The authors' code computes a mean; this is a sum.
    """
    check_images(x_hat=x_hat)
    total = jnp.zeros(x_hat.shape[:-3])
    for _ in range(3):
        rows, columns = _db4(x_hat.shape[-3]), _db4(x_hat.shape[-2])
        bands = jnp.einsum("aih,...hwc,bjw->ab...ijc", rows, x_hat, columns, precision=Precision.HIGHEST)
        norms = jnp.sum(_abs(bands), axis=PIXELS)
        total = total + norms[0, 1] + norms[1, 0] + norms[1, 1]
        x_hat = bands[0, 0]
    return total + norms[0, 0]


def soft_dice(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Soft-Dice loss, 1 - mean_c (2 sum p_c t_c + 1) / (sum p_c + sum t_c + 1), p the softmax of the logits (Sec. V-E.1).

    The sums are over pixels, so the 1 is one pixel. It hardly changes a region of hundreds of pixels. For a class that is
    in neither map the ratio is 1 instead of 0/0. For a class that is only predicted, the gradient removes it, and it grows
    as the prediction gets smaller.

    Args:
        logits: `(*b, h, w, classes)`, any finite numbers.
        labels: integers `(*b, h, w)`; a value outside [0, classes) belongs to no class.

    Raises:
        InputError: if `labels` are not integers or do not fit.
    """
    check_images(logits=logits)
    if labels.shape != logits.shape[:-1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(
            f"`labels` must be integers of the shape of `logits` without classes, {logits.shape[:-1]}, got {labels.dtype}"
            f" of shape {labels.shape}."
        )
    predicted = jax.nn.softmax(logits, axis=-1)
    true = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    overlap, sizes = (jnp.sum(a, axis=(-3, -2)) for a in (predicted * true, predicted + true))
    return 1 - jnp.mean((2 * overlap + 1) / (sizes + 1), axis=-1)


def _abs(z: jax.Array) -> jax.Array:
    """|z| of a real array with the subgradient 0 at 0. JAX's own is 1 there, which would push on every black pixel."""
    return z * jnp.sign(z)


# Filters along one axis are banded matrices, computed at trace time. On a CPU a matrix product is far faster than shifted
# slices, convolutions and jnp.convolve.


def _gaussian(size: int, zero_padded: bool) -> np.ndarray:
    """SSIM's window along an axis: `(size, size)` if the image is padded with zeros, else `(size - 10, size)`."""
    taps = np.exp(-0.5 * np.square(np.arange(-RADIUS, RADIUS + 1) / 1.5))
    full = _banded(size, taps / taps.sum())
    crop = RADIUS if zero_padded else 2 * RADIUS
    return full[crop:-crop]


def _db4(size: int) -> np.ndarray:
    """One level of db4 along an axis, `(2, (size + 7) // 2, size)`: low-pass, then high-pass."""
    return np.stack([_banded(size, DB4_LOW)[1::2], _banded(size, DB4_HIGH)[1::2]])


def _banded(size: int, taps: np.ndarray) -> np.ndarray:
    """The full convolution with `taps` as a matrix, `(size + len(taps) - 1, size)`."""
    return np.stack([np.convolve(unit, taps) for unit in np.eye(size)], axis=1).astype(np.float32)
