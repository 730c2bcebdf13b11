"""Metrics of image quality: pure functions with one value per image.

Images are float `(*b, h, w, c)` in [0, 1] and every metric returns `(*b)`, for any number of leading axes, also none.
The reconstruction `x_hat` comes first, the reference image `x` second. No image is broadcast or normalised. Metrics
whose name starts with `n` are negated, so that higher is better (Sec. V-E); `mse` and `hfen` are errors. Section
numbers are those of Wang, Dalca and Sabuncu (2022).

Labels, units and directions are in `metric_table.py`.

All raise `InputError` if an image is not float, has fewer than three axes, or differs in shape from the first.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hyperrecon_jax.losses.losses import PIXELS, check_images, mae, mse, ssim
from hyperrecon_jax.runtime.errors import InputError

SIGMA, RADIUS = 1.5, 7  # in pixels, for the Laplacian of a Gaussian
PSNR_LIMIT = 100.0  # dB; stands for the infinite PSNR of two equal images where a finite number is needed

__all__ = ["bounded_psnr", "dice", "hfen", "mse", "nhfen", "nmae", "psnr", "rpsnr", "ssim"]


def nmae(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Negative mean absolute error (nMAE, Sec. V-E)."""
    return -mae(x_hat, x)


def psnr(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB for a maximum of 1, -10 log10(MSE); infinite for equal images."""
    return -10 * jnp.log10(mse(x_hat, x))


def bounded_psnr(x_hat: jax.Array, x: jax.Array) -> jax.Array:
    """PSNR in dB, at most `PSNR_LIMIT`: finite for equal images, and so is its gradient."""
    return -10 * jnp.log10(jnp.maximum(mse(x_hat, x), 10 ** (-PSNR_LIMIT / 10)))


def rpsnr(x_hat: jax.Array, x: jax.Array, x_input: jax.Array) -> jax.Array:
    """Relative PSNR in dB: the gain of `x_hat` over the zero-filled image (Sec. V-E.2).

    The authors' code first stretches each image to [0, 1] by its own minimum and maximum, which hides errors of scale.
    The paper does not mention that step, and this function does not take it.

    Args:
        x_hat: reconstruction.
        x: reference image.
        x_input: zero-filled image, such as `operators.magnitude` of the network's input.
    """
    check_images(x_hat=x_hat, x=x, x_input=x_input)
    return psnr(x_hat, x) - psnr(x_input, x)


def hfen(x_hat: jax.Array, x: jax.Array, *, normalized: bool = False) -> jax.Array:
    """High-frequency error norm (HFEN, Sec. V-E.1): l2 norm of the difference of the two filtered images.

    The filter is a Laplacian of a Gaussian: the 15 x 15 kernel of MATLAB's `fspecial("log", 15, 1.5)`, whose sum is
    zero. The image is mirrored at its border and the edge pixel is repeated, so that the border adds no edge.

    Args:
        x_hat: reconstruction.
        x: reference image.
        normalized: divide by the norm of the filtered reference image. The authors' code does so, the paper does not.
            The result is infinite or NaN where the reference image is flat.
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
        labels_hat: predicted label maps, integers `(*b, h, w)`. A value outside [0, num_classes) belongs to no class.
        labels: reference label maps, with the same shape.
        num_classes: number of classes.

    Returns:
        `(*b, num_classes)`. NaN where a class is in neither map (0 / 0); average with `jnp.nanmean`.

    Raises:
        InputError: if the maps are not integers or differ in shape.
    """
    for name, value in (("labels_hat", labels_hat), ("labels", labels)):
        if value.ndim < 2 or not jnp.issubdtype(value.dtype, jnp.integer):
            raise InputError(f"`{name}` must be integers (*b, h, w), got {value.dtype} of shape {value.shape}.")
    if labels_hat.shape != labels.shape:
        raise InputError(f"`labels` must have the shape of `labels_hat`, {labels_hat.shape}, got {labels.shape}.")
    predicted, reference = jax.nn.one_hot(labels_hat, num_classes), jax.nn.one_hot(labels, num_classes)
    overlap = jnp.sum(predicted * reference, axis=(-3, -2))
    return 2 * overlap / (jnp.sum(predicted, axis=(-3, -2)) + jnp.sum(reference, axis=(-3, -2)))


def _norm(image: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(image), axis=PIXELS))


def _laplacian_of_gaussian(image: jax.Array) -> jax.Array:
    """Filter each channel for `hfen`: `(*b, h, w, c) -> (*b, h, w, c)`.

    The kernel is g(x) g(y) (x^2 + y^2 - 2 sigma^2) minus its mean. That is a sum of three separable kernels, and each
    separable kernel is a pair of banded matrices. On a CPU this is many times faster than the convolution.
    """
    axis = np.arange(-RADIUS, RADIUS + 1)
    gaussian = np.exp(-np.square(axis) / (2 * SIGMA**2))
    gaussian /= gaussian.sum()
    second_derivative = gaussian * (np.square(axis) - SIGMA**2) / SIGMA**4
    mean = np.outer(second_derivative, gaussian).mean() + np.outer(gaussian, second_derivative).mean()
    constant = np.full(axis.size, np.sqrt(abs(mean)))
    row_taps = np.stack([second_derivative, gaussian, -np.sign(mean) * constant])
    column_taps = np.stack([gaussian, second_derivative, constant])
    h, w = image.shape[-3:-1]
    rows, columns = _correlation_matrices(row_taps, h), _correlation_matrices(column_taps, w)
    return jnp.einsum("rih,...hwc,rjw->...ijc", rows, image, columns, precision=lax.Precision.HIGHEST)


def _correlation_matrices(taps: np.ndarray, size: int) -> np.ndarray:
    """Matrices `(r, size, size)` that correlate a mirrored axis with the taps `(r, t)`."""
    index = np.pad(np.arange(size), RADIUS, mode="symmetric")
    matrices = np.zeros((len(taps), size, size), np.float32)
    for i in range(size):
        for k, j in enumerate(index[i : i + taps.shape[1]]):
            matrices[:, i, j] += taps[:, k]
    return matrices
