"""Losses: one differentiable value per image.

Images are float `(*b, h, w, c)` in [0, 1], and every loss returns `(*b)`, for any number of leading axes, including none.
The reconstruction `x_hat` comes first, the reference image `x` second; nothing is broadcast. Gradients are finite
everywhere, also at equal and at black images: where |.| has a kink, the subgradient is 0. Smaller is better, except for
`ssim`, which is a similarity. Equation and section numbers are those of Wang, Dalca and Sabuncu (2022).

All raise `InputError` if an image is not float, has fewer than three axes, or has another shape than the first image.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from hyperrecon_jax.losses import filters
from hyperrecon_jax.physics.operators import check_images
from hyperrecon_jax.runtime.errors import InputError

PIXELS = (-3, -2, -1)
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for a data range of 1
RADIUS = 5  # of SSIM's window, in pixels
TEXTURE_LEVELS = (1, 2)  # of the wavelet transform: wavelengths of about 2 to 8 pixels
TEXTURE_SIGMA, TEXTURE_STRIDE = 6.0, 8  # of the windows of `texture_loss`, in pixels
TEXTURE_FLOOR = 1e-3  # a standard deviation, a quarter of a step of an 8-bit image


def mae(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Mean absolute error over pixels and channels (L_1 of Eq. 9 in Sec. V-D)."""
    check_images(x_hat=x_hat, x=x)
    return _mean(_abs(x_hat - x))


def mse(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Mean squared error over pixels and channels."""
    check_images(x_hat=x_hat, x=x)
    return _mean(jnp.square(x_hat - x))


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
    rows, columns = _ssim_window(height, zero_padded), _ssim_window(width, zero_padded)

    def blur(image):
        return filters.filter_axes(rows, image, columns)

    mean_hat, mean = blur(x_hat), blur(x)
    squared_means = jnp.square(mean_hat) + jnp.square(mean)
    variances = blur(jnp.square(x_hat) + jnp.square(x)) - squared_means  # the sum of both, in one filter instead of two
    covariance = blur(x_hat * x) - mean_hat * mean
    luminance = (2 * mean_hat * mean + C1) / (squared_means + C1)
    structure = (2 * covariance + C2) / (variances + C2)
    return _mean(luminance * structure)


def ssim_loss(x_hat: jax.Array, x: jax.Array, *, zero_padded: bool = False) -> jax.Array:
    """1 - `ssim` (L_2 of Eq. 9 in Sec. V-D)."""
    return 1 - ssim(x_hat, x, zero_padded=zero_padded)


def edge_l1(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Mean absolute error of the edges: of the two images after the Laplacian of a Gaussian that HFEN has.

    Blurred and missing edges count, and each edge must be at its place. The filter passes wavelengths of about 4 to 14
    pixels: brightness and noise from pixel to pixel hardly count, so this loss needs another beside it.
    """
    check_images(x_hat=x_hat, x=x)
    return _mean(_abs(filters.laplacian_of_gaussian(x_hat - x)))  # the filter is linear


def texture_loss(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """How far the local strength of the texture is from that of the reference image, plus the error of the coarse image.

    The texture is the detail of two levels of a db4 wavelet transform (three bands each). Its strength is the root mean
    square of a band in a Gaussian window of sigma 6 pixels; there is a window every 8 pixels. The loss is the mean
    absolute difference of the strengths. Fine grain therefore needs the right strength, direction and scale at about the
    right place, but not the right value in each pixel, so a smooth image is worse than one with similar grain. The
    coarse image, a quarter of the size, does have to be right in each pixel: its mean absolute error is added, in units
    of intensity.

    Local statistics of wavelet bands describe texture in Portilla and Simoncelli (2000), International Journal of
    Computer Vision 40, 49-71. Here they are the second moments alone. A sliced Wasserstein distance compares whole
    distributions, as Rabin et al. (2011) do for texture, but sorting is slow on a CPU.

    Where `x_hat` is exactly flat, the strengths have the gradient 0.
    """
    check_images(x_hat=x_hat, x=x)
    coarse = jnp.stack([x_hat, x])
    differences = []
    for level in TEXTURE_LEVELS:
        bands = filters.db4_bands(coarse, mirrored=True)
        coarse, details = bands[0, 0], jnp.stack([bands[0, 1], bands[1, 0], bands[1, 1]])
        rows, columns = (_texture_window(size, level) for size in details.shape[-3:-1])
        power = filters.filter_axes(rows, jnp.square(details), columns)
        strength = jnp.sqrt(power + TEXTURE_FLOOR**2)  # the floor keeps the gradient finite
        differences.append(jnp.mean(_mean(_abs(strength[:, 0] - strength[:, 1])), axis=0))
    unit = 2 ** len(TEXTURE_LEVELS)  # the value of the coarse image where the image is 1
    return sum(differences) / len(differences) + _mean(_abs(coarse[0] - coarse[1])) / unit


def total_variation(x_hat: jax.Array) -> jax.Array:
    """Anisotropic total variation, a sum over pixels (R_2 of Eq. 11), without differences across the border."""
    check_images(x_hat=x_hat)
    down, right = jnp.diff(x_hat, axis=-3), jnp.diff(x_hat, axis=-2)
    return _sum(_abs(down)) + _sum(_abs(right))


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
        bands = filters.db4_bands(x_hat)
        norms = _sum(_abs(bands))
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


def _sum(image: jax.Array) -> jax.Array:
    """The sum over pixels and channels, `(*b, h, w, c) -> (*b)`.

    As a product with ones: on a CPU XLA computes the values of a sum one by one, and the input of a product several at a
    time, which is up to 30 times as fast.
    """
    ones = jnp.ones(image.shape[-3:], image.dtype)
    return jnp.einsum("...hwc,hwc->...", image, ones, precision=Precision.HIGHEST)


def _mean(image: jax.Array) -> jax.Array:
    """The mean over pixels and channels, `(*b, h, w, c) -> (*b)`."""
    return _sum(image) / math.prod(image.shape[-3:])


def _ssim_window(size: int, zero_padded: bool) -> np.ndarray:
    """SSIM's window along an axis: `(size, size)` if the image is padded with zeros, else `(size - 10, size)`."""
    full = filters.zero_padded_convolution(size, filters.gaussian_taps(1.5, RADIUS))
    crop = RADIUS if zero_padded else 2 * RADIUS
    return full[crop:-crop]


def _texture_window(size: int, level: int) -> np.ndarray:
    """The windows of `texture_loss` along an axis of a band of a level, `(windows, size)`."""
    sigma, stride = TEXTURE_SIGMA / 2**level, TEXTURE_STRIDE // 2**level
    taps = filters.gaussian_taps(sigma, int(3 * sigma))
    steps = stride * np.arange(-(-size // stride))
    centres = steps + (size - 1 - steps[-1]) // 2  # as far from one end as from the other
    return filters.mirrored_correlation(size, taps[None], centres=centres)[0]
