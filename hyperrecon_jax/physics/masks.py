"""Under-sampling masks for k-space, computed once with NumPy (Sec. V-F.1).

Every mask is an array `(h, w)`, float32, 1 where k-space is sampled. The zero frequency is in the CORNER as in `fft2`;
`np.fft.fftshift` moves it to the middle for display. The same arguments always give the same mask. The number of samples is
exact: `round(h * w / acceleration)` points, or `round(w / acceleration)` columns for masks of whole columns. Arguments that
no mask can satisfy raise `InputError`.
"""

import functools
import math
import numbers
from collections.abc import Callable

import numpy as np

from hyperrecon_jax.runtime.errors import InputError

# Settings of `polynomial_density` for the two 256 x 256 masks that the authors published, 4p2 and 8p3. The keys are their
# true accelerations. The digit after the p is the order.
AUTHORS = {
    3.210: {"order": 2.0, "extent": 218 / 128, "dense": 56 / 128, "center": 10},
    7.305: {"order": 3.0, "extent": 213 / 128, "dense": 24 / 128, "center": 4},
}


def poisson_disc(shape: tuple[int, int], *, acceleration: float, seed: int = 0) -> np.ndarray:
    """A Poisson-disc mask whose density falls as a polynomial of the frequency (`polynomial_density`).

    Two rules extend the authors' masks to any acceleration. The order of the polynomial is `log2(acceleration)`: 2 at
    4-fold and 3 at 8-fold. The radius of the fully sampled disc is `1.4 / acceleration` of Nyquist, which is the authors'
    radius at 3.210 and 7.305; below 3-fold it is that of 3-fold. The middle 4 x 4 frequencies are always sampled.

    Args:
        shape: `(h, w)`, both at least 4.
        acceleration: at least 1; exactly `round(h * w / acceleration)` points are sampled.
        seed: of the random order in which points are tried.

    Raises:
        InputError: if `shape` or `acceleration` is impossible, or there are fewer points than the fully sampled centre has.
    """
    _check(shape, acceleration, seed)
    order, dense = math.log2(acceleration), 1.4 / max(acceleration, 3)
    return _darts(shape, acceleration, seed, order=order, extent=1.68, dense=dense, center=4)


def poisson_disc_authors(shape: tuple[int, int], *, acceleration: float, seed: int = 0) -> np.ndarray:
    """A Poisson-disc mask with the density of a published one: `acceleration` is 3.210 (4p2) or 7.305 (8p3).

    The dense disc, the order and the extent are the authors'; the points are not. For sizes other than 256 the density is
    scaled, and the square in the middle stays 10 (4p2) or 4 (8p3) frequencies wide.

    Raises:
        InputError: if `acceleration` is neither of the two, `shape` is impossible, or there are fewer points than the fully
            sampled centre has.
    """
    if acceleration not in AUTHORS:
        raise InputError(
            f"`acceleration` of 'poisson_disc_authors' must be one of {sorted(AUTHORS)}, got {acceleration!r}."
        )
    _check(shape, acceleration, seed)
    return _darts(shape, acceleration, seed, **AUTHORS[acceleration])


def random_lines(
    shape: tuple[int, int], *, acceleration: float, center_fraction: float | None = None, seed: int = 0
) -> np.ndarray:
    """Whole columns: a fully sampled centre, and outer columns at random (as fastMRI's knee masks).

    fastMRI decides for each outer column independently, so that the mean acceleration is right. Here the number of columns
    is fixed and they are drawn without replacement, so that the acceleration is exact.

    Args:
        shape: `(h, w)`, both at least 4; columns run along the phase-encode axis `w`.
        acceleration: at least 1; exactly `round(w / acceleration)` columns are sampled.
        center_fraction: the sampled part of the `w` columns around the zero frequency, at least one column. The default is
            `0.32 / acceleration`, fastMRI's 8 % for 4-fold and 4 % for 8-fold.
        seed: of the random columns.

    Raises:
        InputError: if an argument is impossible, or there are fewer columns than the centre has.
    """
    center, outer, count = _split_columns(shape, acceleration, center_fraction, seed)
    drawn = np.random.default_rng(seed).choice(outer, count, replace=False)
    return _columns_to_mask(shape, np.concatenate([center, drawn]))


def equispaced_lines(
    shape: tuple[int, int], *, acceleration: float, center_fraction: float | None = None, seed: int = 0
) -> np.ndarray:
    """Whole columns: a fully sampled centre, and outer columns at equal steps (as fastMRI's brain masks).

    The step outside the centre is `(w - centre) / (w / acceleration - centre)`, as in fastMRI's "equispaced fraction",
    rounded to whole columns. The seed chooses the offset. fastMRI's steps run through the centre, so that the acceleration
    is only roughly right. Here they run over the outer columns only, so that it is exact.

    Arguments and errors are those of `random_lines`.
    """
    center, outer, count = _split_columns(shape, acceleration, center_fraction, seed)
    offset = np.random.default_rng(seed).random()
    positions = np.floor((np.arange(count) + offset) * len(outer) / max(count, 1)).astype(int)
    return _columns_to_mask(shape, np.concatenate([center, outer[positions]]))


MASKS: dict[str, Callable[..., np.ndarray]] = {
    "poisson_disc": poisson_disc,
    "poisson_disc_authors": poisson_disc_authors,
    "random_lines": random_lines,
    "equispaced_lines": equispaced_lines,
}


def make(name: str, shape: tuple[int, int], *, acceleration: float, seed: int = 0) -> np.ndarray:
    """The mask called `name`, one of `MASKS`, with default options.

    Raises:
        InputError: if there is no such mask, or for an argument that the mask refuses.
    """
    if name not in MASKS:
        raise InputError(f"`name` of the mask must be one of {sorted(MASKS)}, got {name!r}.")
    return MASKS[name](shape, acceleration=acceleration, seed=seed)


def polynomial_density(
    shape: tuple[int, int], *, acceleration: float, order: float, extent: float, dense: float, center: int
) -> np.ndarray:
    """The probability that a frequency is sampled: 1 in the centre, `min(1, c (1 - r / extent) ** order)` outside it.

    `r`, `extent` and `dense` are in units of Nyquist: 1 at the edge of k-space, sqrt(2) in its corner. So masks of any size
    look alike, and on a grid that is not square equal frequencies have equal probabilities. Bisection finds the constant
    `c` for which the density sums to the number of samples.

    Args:
        shape: `(h, w)`.
        acceleration: of the mask.
        order: of the polynomial.
        extent: the frequency at which the polynomial is 0, above sqrt(2).
        dense: the radius of the fully sampled disc.
        center: the side, in pixels, of the square of lowest frequencies, which is fully sampled, too.

    Returns:
        `(h, w)` float64, zero frequency in the corner, with the sum `round(h * w / acceleration)`.

    Raises:
        InputError: if the disc and the square have more points than that, or an argument is impossible.
    """
    _check(shape, acceleration)
    if not extent > math.sqrt(2):
        raise InputError(f"`extent` must be above sqrt(2), the corner of k-space, got {extent!r}.")
    radius, count = _radius(shape), _count(shape, acceleration)
    full = _center_square(shape, center) | (radius < dense)
    if np.count_nonzero(full) > count:
        raise InputError(
            f"`acceleration` {acceleration} leaves {count} of {shape[0]} x {shape[1]} points, expected at least the "
            f"{np.count_nonzero(full)} of the fully sampled centre."
        )
    polynomial = (1 - radius / extent) ** order

    def density(c):
        return np.where(full, 1.0, np.minimum(1.0, c * polynomial))

    low, high = 0.0, 1 / polynomial.min()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if density(middle).sum() <= count else (low, middle)
    return density(low)


def _darts(shape, acceleration, seed, **settings):
    """Progressive dart throwing with an exact number of points and an exact radial density.

    Each ring of equal frequency has a quota of points; the quotas sum to the number of points. All pixels are tried in one
    random order. A pixel is sampled if its ring still has a free place, and if it is outside the discs around all pixels
    sampled before. A disc has the radius `scale / sqrt(p)`, where p is the density. The scale is then reduced, and pixels
    are tried again, until all quotas are filled. A disc with a radius below 1 covers only its own pixel, so the quotas are
    always met. Distances wrap around at the edges, as the frequencies of an FFT do.
    """
    density = polynomial_density(shape, acceleration=acceleration, **settings)
    ring = (_radius(shape) * min(shape) / 4).astype(int)  # two pixels wide along the shorter axis
    sampled = density == 1
    missing = _count(shape, acceleration) - np.count_nonzero(sampled)
    quota = _quotas(np.bincount(ring.ravel(), np.where(sampled, 0, density).ravel()), missing)
    order = np.random.default_rng(seed).permutation(density.size)

    scale = 1.0
    while quota.any():
        # the largest squared distance inside the disc, 0 in the full centre; for tiny densities at most half of the grid
        reach = np.ceil(np.minimum(scale**2 / density, (min(shape) / 2) ** 2)).astype(int) - 1
        covered = sampled.copy()
        for value in np.unique(reach[sampled]):
            rows, columns = np.nonzero(sampled & (reach == value))
            covered[_disc(rows, columns, value, shape)] = True
        open_pixels = order[~covered.ravel()[order] & (quota[ring].ravel()[order] > 0)]
        for row, column in zip(*np.unravel_index(open_pixels, shape), strict=True):
            if quota[ring[row, column]] and not covered[row, column]:
                sampled[row, column] = True
                quota[ring[row, column]] -= 1
                covered[_disc(row, column, reach[row, column], shape)] = True
        scale *= 0.9
    return sampled.astype(np.float32)


def _quotas(expected, total):
    """Whole numbers near `expected` whose sum is `total`: differences of the rounded running sum."""
    if not total:
        return np.zeros(len(expected), int)
    running = np.cumsum(expected)
    return np.diff(np.floor(running * (total / running[-1]) + 0.5).astype(int), prepend=0)


def _disc(row, column, reach, shape):
    """The indices of the pixels whose squared distance from a `(row, column)` is at most `reach`; edges wrap around."""
    down, right = _offsets(int(reach))
    return (np.add.outer(row, down) % shape[0], np.add.outer(column, right) % shape[1])


@functools.cache
def _offsets(reach):
    """The offsets, down and right, whose squared length is at most `reach`."""
    side = np.arange(-math.isqrt(reach), math.isqrt(reach) + 1)
    down, right = np.meshgrid(side, side, indexing="ij")
    near = down**2 + right**2 <= reach
    return down[near], right[near]


def _frequencies(size):
    """Whole frequencies in the order of the FFT: 0, 1, ..., -2, -1."""
    return np.fft.ifftshift(np.arange(size) - size // 2)


def _radius(shape):
    """The frequency of each pixel in units of Nyquist, `(h, w)`."""
    down, right = (_frequencies(size) / (size / 2) for size in shape)
    return np.hypot(*np.meshgrid(down, right, indexing="ij"))


def _center_square(shape, side):
    """True in the square of lowest frequencies, `(h, w)`."""
    down, right = ((k >= -(side // 2)) & (k < side - side // 2) for k in map(_frequencies, shape))
    return np.logical_and.outer(down, right)


def _split_columns(shape, acceleration, center_fraction, seed):
    """The centre columns, the outer columns by rising frequency, and how many of the outer columns to sample."""
    _check(shape, acceleration, seed)
    w = shape[1]
    fraction = 0.32 / acceleration if center_fraction is None else center_fraction
    if not 0 < fraction <= 1:
        raise InputError(f"`center_fraction` must be above 0 and at most 1, got {center_fraction!r}.")
    size = max(1, round(w * fraction))
    count = round(w / acceleration) - size
    if count < 0:
        raise InputError(
            f"`acceleration` {acceleration} leaves {round(w / acceleration)} of {w} columns, expected at least the "
            f"{size} of the fully sampled centre."
        )
    columns = np.fft.fftshift(np.arange(w))  # by rising frequency
    start = (w - size + 1) // 2
    return columns[start : start + size], np.delete(columns, np.s_[start : start + size]), count


def _columns_to_mask(shape, columns):
    """The mask that samples whole columns."""
    mask = np.zeros(shape, np.float32)
    mask[:, columns] = 1
    return mask


def _count(shape, acceleration):
    """The number of points of a mask."""
    return round(shape[0] * shape[1] / acceleration)


def _check(shape, acceleration, seed=0):
    """Raise `InputError` for arguments that no mask accepts."""
    if len(shape) != 2 or not all(isinstance(n, numbers.Integral) and int(n) >= 4 for n in shape):
        raise InputError(f"`shape` must be (h, w), whole numbers of at least 4, got {shape}.")
    if not (isinstance(acceleration, numbers.Real) and 1 <= float(acceleration) < math.inf):
        raise InputError(f"`acceleration` must be a finite number of at least 1, got {acceleration!r}.")
    if not (isinstance(seed, numbers.Integral) and int(seed) >= 0):
        raise InputError(f"`seed` must be a whole number of at least 0, got {seed!r}.")
