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

from hyperrecon_jax.losses.filters import laplacian_of_gaussian
from hyperrecon_jax.losses.losses import PIXELS, check_images, mae, mse, ssim
from hyperrecon_jax.runtime.errors import InputError

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

    The filter is `filters.laplacian_of_gaussian`.

    Args:
        x_hat: reconstruction.
        x: reference image.
        normalized: divide by the norm of the filtered reference image. The authors' code does so, the paper does not.
            The result is infinite or NaN where the reference image is flat.
    """
    check_images(x_hat=x_hat, x=x)
    error = _norm(laplacian_of_gaussian(x_hat - x))  # the filter is linear
    return error / _norm(laplacian_of_gaussian(x)) if normalized else error


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
