"""Good reconstructions of one slice that differ from each other (Sec. V-H and Fig. 7 of Wang, Dalca and Sabuncu, 2022).

Sample lambda densely, `select_good` the reconstructions with a high PSNR, and take the `furthest_pair` of them, or a
`diverse_set`.

Images are float `(m, ...)`, from NumPy or JAX. Distances are l2, over all axes but the first, in double precision, and
come from one Gram matrix `(m, m)`. The images may fill most of the memory: they are never copied as a whole on the host.

`InputError` if the images are not float, too few, or not finite.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.runtime.errors import InputError

Images = jax.Array | np.ndarray
PIXELS = 512  # pixels of all images that are used at a time, few enough for the cache
TIE = 1e-10  # relative difference up to which two squared distances are equal: rounding depends on the order of a sum


def select_good(quality: Images, *, percentile: float = 90.0) -> np.ndarray:
    """Indices, ascending, of the qualities at or above a percentile. If there are two qualities, at least the two best.

    Args:
        quality: `(m,)`, higher is better, such as PSNR in dB; may be infinite.
        percentile: in [0, 100]; 90 selects the best tenth, and every quality that equals the last of them.

    Raises:
        InputError: if `quality` is empty, has more axes or holds NaN, or `percentile` is out of range.
    """
    quality = np.asarray(quality)
    if quality.ndim != 1 or not quality.size:
        raise InputError(f"`quality` must have shape (m,) with m of at least 1, got {quality.shape}.")
    if np.isnan(quality).any():
        raise InputError(f"`quality` must not be NaN, got NaN at index {np.isnan(quality).argmax()}.")
    if not 0 <= percentile <= 100:
        raise InputError(f"`percentile` must be in [0, 100], got {percentile}.")
    # "higher" selects what linear interpolation selects, but returns one of the values: between two infinities is NaN.
    threshold = np.percentile(quality, percentile, method="higher")
    second_best = np.sort(quality)[-2:][0]
    return np.flatnonzero(quality >= min(threshold, second_best))


def furthest_pair(images: Images) -> tuple[int, int, float]:
    """The two images with the largest distance: their indices i < j and the distance. Of equal distances, the first pair.

    Args:
        images: `(m, ...)`, m of at least 2.
    """
    rows = _as_rows(images, minimum=2)
    return _furthest_pair(rows, _squared_distances(rows))


def diverse_pair(images: Images, quality: Images, *, percentile: float = 90.0) -> tuple[int, int, float]:
    """The two good reconstructions that differ most (Fig. 7): the `furthest_pair` of those that `select_good` selects.

    Args:
        images: `(m, ...)`, reconstructions of one slice at m lambdas.
        quality: `(m,)`, higher is better, such as PSNR in dB.
        percentile: in [0, 100]; 90 selects the best tenth.

    Returns:
        Their indices into `images`, i < j, and their l2 distance.

    Raises:
        InputError: also if the lengths differ.
    """
    if len(images) != np.size(quality):
        raise InputError(f"`quality` must be one number for each of the {len(images)} images, got {np.shape(quality)}.")
    selected = select_good(quality, percentile=percentile)
    i, j, distance = furthest_pair(np.asarray(images)[selected])
    return int(selected[i]), int(selected[j]), distance


def diverse_set(images: Images, k: int) -> np.ndarray:
    """Indices `(k,)` of images that are far from each other, by greedy furthest-point selection.

    The first two are the furthest pair. Then always that image follows whose nearest selected image is furthest away. Of
    equal ones it is the first. So a smaller k gives the beginning of the same list, and k = 1 the first of the pair.

    Raises:
        InputError: if `k` is not in [1, m].
    """
    rows = _as_rows(images, minimum=1)
    if not 1 <= k <= len(rows):
        raise InputError(f"`k` must be in [1, {len(rows)}], the number of images, got {k}.")
    squared = _squared_distances(rows)
    selected = list(_furthest_pair(rows, squared)[:2]) if len(rows) > 1 else [0]
    nearest = squared[selected].min(0)
    while len(selected) < k:
        nearest[selected] = -1.0  # an image is selected once, even where others equal it
        selected.append(_first_largest(nearest))
        nearest = np.minimum(nearest, squared[selected[-1]])
    return np.array(selected[:k])


def _as_rows(images: Images, *, minimum: int) -> np.ndarray:
    """The images as rows `(m, pixels)`: a view, if they are on the host."""
    if images.ndim < 2 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"`images` must be float (m, ...), got {images.dtype} of shape {images.shape}.")
    if len(images) < minimum:
        raise InputError(f"`images` must be {minimum} or more, got {len(images)}.")
    return np.asarray(images).reshape(len(images), -1)


def _squared_distances(rows: np.ndarray) -> np.ndarray:
    """Squared distances between all rows, `(m, m)`, from one Gram matrix; -1 on the diagonal.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b loses precision if a and b have large norms and a small distance. So the first image
    is subtracted from all: then no norm is larger than the largest distance, and the large distances are precise.
    """
    squared = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], PIXELS):
        pixels = rows[:, start : start + PIXELS].astype(np.float64)
        finite = np.isfinite(pixels).all(1)
        if not finite.all():
            raise InputError(f"`images` must be finite, but image {np.argmin(finite)} is not.")
        pixels -= pixels[0].copy()
        squared += pixels @ pixels.T
    lengths = np.diag(squared).copy()
    squared *= -2
    squared += lengths[:, None]
    squared += lengths
    np.fill_diagonal(squared, -1.0)  # no image pairs with itself
    return squared


def _furthest_pair(rows: np.ndarray, squared: np.ndarray) -> tuple[int, int, float]:
    i, j = (int(index) for index in np.unravel_index(_first_largest(squared), squared.shape))
    return i, j, float(np.linalg.norm(rows[i].astype(np.float64) - rows[j]))


def _first_largest(squared: np.ndarray) -> int:
    """The flat index of the largest squared distance, the first of equal ones."""
    return int(np.argmax(squared >= squared.max() * (1 - TIE)))
