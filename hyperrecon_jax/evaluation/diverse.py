"""Good reconstructions of one slice that differ from each other (Sec. V-H and Fig. 7 of Wang, Dalca and Sabuncu, 2022).

Sample lambda densely, keep the `good` reconstructions by PSNR, take the `furthest_pair` of them, or a `diverse_set`.

Images are float `(m, ...)`, of NumPy in C order or of JAX, and may fill most of the memory: they are read some pixels at a
time, in double precision, and never copied whole but from an accelerator to the host. Distances are l2, over all axes
but the first.

`InputError` where images are not float, are too few or are not finite.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.runtime.errors import InputError

Images = jax.Array | np.ndarray
CHUNK = 1024  # images whose distances to all others are alive at a time
PIXELS = 512  # of all images at a time, few enough for the cache
TIE = 1e-10  # squared distances that differ by less, relatively, are equal: a matrix product does not sum in one order


def good(quality: Images, *, percentile: float = 90.0) -> np.ndarray:
    """Indices, ascending, of the qualities at or above a percentile; two at least, the two best, if there are two.

    Args:
        quality: `(m,)`, larger is better, such as PSNR in dB; may be infinite.
        percentile: in [0, 100]; 90 keeps the best tenth, and whatever equals its last.

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
    # "higher" keeps what linear interpolation keeps, but stays among the values: between infinite ones is NaN.
    bar = np.percentile(quality, percentile, method="higher")
    second = np.sort(quality)[-2:][0]
    return np.flatnonzero(quality >= min(bar, second))


def furthest_pair(images: Images, *, chunk: int = CHUNK) -> tuple[int, int, float]:
    """The two images that are furthest apart: indices i < j and their distance; of equal distances the first pair.

    Args:
        images: `(m, ...)`, m of at least 2.
        chunk: images whose distances to the others are alive at a time. Beside `images` it takes two `(chunk, m)` matrices
            and `PIXELS` of each image, in double precision.
    """
    flat = _flat(images, 2)
    if chunk < 1:
        raise InputError(f"`chunk` must be at least 1, got {chunk}.")
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b cancels where a and b are long and near each other. Seen from the first image no
    # image is longer than the largest distance, which is what is sought: nothing cancels where it matters.
    square = _squared_distances(flat, 0)
    best, pair = -1.0, (0, 1)
    for start in range(0, len(flat) - 1, chunk):
        products = np.zeros((min(chunk, len(flat) - start), len(flat) - start))
        for pixels in _differences(flat, 0):
            products += pixels[start : start + chunk] @ pixels[start:].T
        products *= -2
        products += square[start : start + chunk, None]
        products += square[start:]
        products[np.tri(*products.shape, dtype=bool)] = -1.0  # only i < j
        largest = products.max()
        if largest > best * (1 + TIE):
            i, j = np.unravel_index(np.argmax(products >= largest * (1 - TIE)), products.shape)
            best, pair = largest, (start + int(i), start + int(j))
    difference = flat[pair[0]].astype(np.float64) - flat[pair[1]]
    return *pair, float(np.linalg.norm(difference))


def diverse_pair(images: Images, quality: Images, *, percentile: float = 90.0) -> tuple[int, int, float]:
    """The two good reconstructions that differ most (Fig. 7): `furthest_pair` of the `good` ones.

    Args:
        images: `(m, ...)`, reconstructions of one slice at m lambdas.
        quality: `(m,)`, larger is better, such as PSNR in dB.
        percentile: in [0, 100]; 90 keeps the best tenth.

    Returns:
        Their indices into `images`, i < j, and their l2 distance.

    Raises:
        InputError: also if the lengths differ.
    """
    if len(images) != np.size(quality):
        raise InputError(f"`quality` must be one number for each of the {len(images)} images, got {np.shape(quality)}.")
    chosen = good(quality, percentile=percentile)
    i, j, distance = furthest_pair(np.asarray(images)[chosen])
    return int(chosen[i]), int(chosen[j]), distance


def diverse_set(images: Images, k: int) -> np.ndarray:
    """Indices `(k,)` of images far from each other, in the order chosen: greedily the furthest point.

    The first two are the furthest pair. Each one that follows is the image whose distance to the nearest of those chosen
    is largest, the first of equals. The sets of smaller k are therefore its beginnings, and k = 1 is the pair's first.

    Raises:
        InputError: if `k` is not in [1, m].
    """
    flat = _flat(images, 1)
    if not 1 <= k <= len(flat):
        raise InputError(f"`k` must be in [1, {len(flat)}], the number of images, got {k}.")
    chosen = list(furthest_pair(flat)[:2] if len(flat) > 1 else (0,))
    nearest = np.full(len(flat), np.inf)
    for i in range(k):
        if i == len(chosen):
            chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, _squared_distances(flat, chosen[i]))
        nearest[chosen] = -1.0  # an image is chosen once, even where others equal it
    return np.array(chosen[:k])


def _flat(images: Images, least: int) -> np.ndarray:
    """The images as rows, a view where they are on the host: `(m, pixels)`."""
    if images.ndim < 2 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"`images` must be float (m, ...), got {images.dtype} of shape {images.shape}.")
    if len(images) < least:
        raise InputError(f"`images` must be {least} or more, got {len(images)}.")
    return np.asarray(images).reshape(len(images), -1)


def _differences(flat: np.ndarray, origin: int) -> Iterator[np.ndarray]:
    """The images less one of them, in double precision, `(m, PIXELS or fewer)` at a time."""
    for start in range(0, flat.shape[1], PIXELS):
        pixels = flat[:, start : start + PIXELS].astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinite less infinite: `_squared_distances` tells
            pixels -= pixels[origin].copy()
        yield pixels


def _squared_distances(flat: np.ndarray, origin: int) -> np.ndarray:
    """Of every image to one of them, without cancellation: `(m,)`."""
    squared = sum((np.einsum("ij,ij->i", pixels, pixels) for pixels in _differences(flat, origin)), np.zeros(len(flat)))
    finite = np.isfinite(squared)
    if not finite.all():
        raise InputError(f"`images` must be finite, but image {np.argmin(finite)} is not.")
    return squared
