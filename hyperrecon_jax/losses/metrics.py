"""Metrics for reporting: one value per image.

Images are float `(*b, h, w, c)` in [0, 1] and every metric returns `(*b)`, for any number of leading axes, none
included. The reconstruction `x_hat` comes first, the truth `x` second; nothing is broadcast or normalised. Metrics
whose name starts with `n` are negated, so that larger is better (Sec. V-E); `mse` and `hfen` are errors. Section
numbers are those of Wang, Dalca and Sabuncu (2022).

All raise `InputError` where an image is not float, has fewer than three axes or differs in shape from the first.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hyperrecon_jax.losses.losses import PIXELS, check_images, mae, mse, ssim
from hyperrecon_jax.runtime.errors import InputError

SIGMA, RADIUS = 1.5, 7  # of the Laplacian of a Gaussian, in pixels

__all__ = ["dice", "hfen", "mse", "nhfen", "nmae", "psnr", "rpsnr", "ssim"]


def nmae(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Negative mean absolute error (nMAE, Sec. V-E)."""
    return -mae(x_hat, x)


def psnr(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB for a maximum of 1, -10 log10(MSE); infinite for equal images."""
    return -10 * jnp.log10(mse(x_hat, x))


def rpsnr(x_hat: jax.Array, x: jax.Array, x_input: jax.Array) -> jax.Array:
    """Relative PSNR in dB: what `x_hat` gains over the zero-filled reconstruction (Sec. V-E.2).

    The authors' code stretches each image to [0, 1] by its own minimum and maximum before it measures, which hides
    errors of scale; the paper does not say so, and this function does not do it.

    Args:
        x_hat: reconstruction.
        x: truth.
        x_input: the zero-filled image, such as `operators.magnitude` of the network's input.
    """
    check_images(x_hat=x_hat, x=x, x_input=x_input)
    return psnr(x_hat, x) - psnr(x_input, x)


def hfen(x_hat: jax.Array, x: jax.Array, *, normalized: bool = False) -> jax.Array:
    """High-frequency error norm: l2 norm of the difference of the Laplacian-of-Gaussian filtered images (Sec. V-E.1).

    The filter is the 15 x 15 kernel of MATLAB's `fspecial("log", 15, 1.5)`, whose sum is zero. The image is mirrored at
    its border, edge pixel repeated, so that a border adds no edge of its own.

    Args:
        normalized: divide by the norm of the filtered truth, as the authors' code does and the paper does not; infinite
            or NaN where the truth is flat.
    """
    check_images(x_hat=x_hat, x=x)
    error = _norm(_laplacian_of_gaussian(x_hat - x))  # the filter is linear
    return error / _norm(_laplacian_of_gaussian(x)) if normalized else error


def nhfen(x_hat: jax.Array, x: jax.Array, *, normalized: bool = False) -> jax.Array:
    """Negative `hfen` (nHFEN, Sec. V-E)."""
    return -hfen(x_hat, x, normalized=normalized)


def dice(labels_hat: jax.Array, labels: jax.Array, *, num_classes: int) -> jax.Array:
    """Hard Dice score of each class, 2 |P and T| / (|P| + |T|) (Sec. V-E.1).

    Args:
        labels_hat: predicted label maps, integers `(*b, h, w)`; a value outside [0, num_classes) belongs to no class.
        labels: true label maps, likewise.

    Returns:
        `(*b, num_classes)`; NaN where a class is in neither map, since 0/0 is no score: average with `jnp.nanmean`.

    Raises:
        InputError: if the maps are not integers or differ in shape.
    """
    for name, value in (("labels_hat", labels_hat), ("labels", labels)):
        if value.ndim < 2 or not jnp.issubdtype(value.dtype, jnp.integer):
            raise InputError(f"`{name}` must be integers (*b, h, w), got {value.dtype} of shape {value.shape}.")
    if labels_hat.shape != labels.shape:
        raise InputError(f"`labels` must have the shape of `labels_hat`, {labels_hat.shape}, got {labels.shape}.")
    predicted, true = jax.nn.one_hot(labels_hat, num_classes), jax.nn.one_hot(labels, num_classes)
    both = jnp.sum(predicted * true, axis=(-3, -2))
    return 2 * both / (jnp.sum(predicted, axis=(-3, -2)) + jnp.sum(true, axis=(-3, -2)))


def _norm(image: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(image), axis=PIXELS))


def _laplacian_of_gaussian(image: jax.Array) -> jax.Array:
    """The filter of `hfen`, channel by channel: `(*b, h, w, c) -> (*b, h, w, c)`.

    Its kernel is g(x) g(y) (x^2 + y^2 - 2 sigma^2) less its mean, a sum of three products of a function of x and one of y,
    and so three pairs of banded matrices: on a CPU many times faster than the convolution.
    """
    axis = np.arange(-RADIUS, RADIUS + 1)
    gaussian = np.exp(-np.square(axis) / (2 * SIGMA**2))
    gaussian /= gaussian.sum()
    curved = gaussian * (np.square(axis) - SIGMA**2) / SIGMA**4
    mean = np.outer(curved, gaussian).mean() + np.outer(gaussian, curved).mean()
    flat = np.full(axis.size, np.sqrt(abs(mean)))
    rows = np.stack([curved, gaussian, -np.sign(mean) * flat])
    columns = np.stack([gaussian, curved, flat])
    down, across = (_mirrored(taps, size) for taps, size in zip((rows, columns), image.shape[-3:-1], strict=True))
    return jnp.einsum("rih,...hwc,rjw->...ijc", down, image, across, precision=lax.Precision.HIGHEST)


def _mirrored(taps: np.ndarray, size: int) -> np.ndarray:
    """Correlations with `(r, taps)` along an axis that is mirrored at its ends, as matrices `(r, size, size)`."""
    index = np.pad(np.arange(size), RADIUS, mode="symmetric")
    matrices = np.zeros((len(taps), size, size), np.float32)
    for i in range(size):
        for k, j in enumerate(index[i : i + taps.shape[1]]):
            matrices[:, i, j] += taps[:, k]
    return matrices
