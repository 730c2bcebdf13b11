"""Under-sampling masks for k-space, made once on the host (Sec. V-F.1).

Every mask is a NumPy array `(h, w)`, float32, 1 where k-space is sampled, zero frequency in the CORNER as in `fft2`;
`np.fft.fftshift` brings it to the middle for display. The same arguments give the same mask. The number of samples is
exact: `round(h * w / acceleration)` points, or `round(w / acceleration)` columns for masks of whole columns. What
cannot be had raises `InputError` at once.
"""

import functools
import math
import numbers
from collections.abc import Callable

import numpy as np

from hyperrecon_jax.runtime.errors import InputError

# Settings of `polynomial_density` for the two 256 x 256 masks that the authors published, 4p2 and 8p3, by their true
# acceleration. The digit after the p is the order.
AUTHORS = {
    3.210: {"order": 2.0, "extent": 218 / 128, "dense": 56 / 128, "center": 10},
    7.305: {"order": 3.0, "extent": 213 / 128, "dense": 24 / 128, "center": 4},
}


def poisson_disc(shape: tuple[int, int], *, acceleration: float, seed: int = 0) -> np.ndarray:
    """Poisson-disc mask whose density falls off as a polynomial of the frequency (see `polynomial_density`).

    Two laws carry the authors' masks over to any acceleration. The order of the polynomial is `log2(acceleration)`: 2
    at 4-fold and 3 at 8-fold. The fully sampled disc has the radius `1.4 / acceleration` of Nyquist, which gives theirs
    at 3.210 and 7.305; below 3-fold it stays as it is at 3. The middle 4 x 4 frequencies are always sampled.

    Args:
        shape: `(h, w)`, both at least 4.
        acceleration: at least 1; exactly `round(h * w / acceleration)` points are sampled.
        seed: of the random order in which points are tried.

    Raises:
        InputError: if `shape` or `acceleration` is impossible, or the points are fewer than the fully sampled centre.
    """
    _check(shape, acceleration, seed)
    order, dense = math.log2(acceleration), 1.4 / max(acceleration, 3)
    return _darts(shape, acceleration, seed, order=order, extent=1.68, dense=dense, center=4)


def poisson_disc_authors(shape: tuple[int, int], *, acceleration: float, seed: int = 0) -> np.ndarray:
    """Poisson-disc mask with the density of the authors' published ones: `acceleration` is 3.210 (4p2) or 7.305 (8p3).

    Dense disc, order and extent are theirs, the points are ours. Sizes other than 256 scale the density and keep the
    square in the middle, which is 10 and 4 frequencies wide.

    Raises:
        InputError: if `acceleration` is neither of the two, `shape` is impossible, or the points are fewer than the
            fully sampled centre.
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
    """Whole columns: a fully sampled centre, the others at random (fastMRI's knee masks).

    fastMRI draws each outer column with the probability that gives the acceleration in expectation. Here that number of
    columns is drawn without replacement, so that the count is exact.

    Args:
        shape: `(h, w)`, both at least 4; columns run along the phase-encode axis `w`.
        acceleration: at least 1; exactly `round(w / acceleration)` columns are sampled.
        center_fraction: sampled part of the `w` columns around zero frequency, at least one column. By default
            `0.32 / acceleration`, which is fastMRI's 8 % for 4-fold and 4 % for 8-fold.
        seed: of the draw.

    Raises:
        InputError: if an argument is impossible, or the columns are fewer than the centre.
    """
    center, others, extra = _columns(shape, acceleration, center_fraction, seed)
    chosen = np.random.default_rng(seed).choice(others, extra, replace=False)
    return _lines(shape, np.concatenate([center, chosen]))


def equispaced_lines(
    shape: tuple[int, int], *, acceleration: float, center_fraction: float | None = None, seed: int = 0
) -> np.ndarray:
    """Whole columns: a fully sampled centre, the others at equal steps (fastMRI's brain masks, 'equispaced fraction').

    The step outside of the centre is `(w - centre) / (w / acceleration - centre)` as in fastMRI, rounded to whole
    columns; the seed chooses the offset. fastMRI counts its steps through the centre and so meets the acceleration only
    roughly; here they are counted over the outer columns alone, so that the count is exact.

    Arguments and errors are those of `random_lines`.
    """
    center, others, extra = _columns(shape, acceleration, center_fraction, seed)
    offset = np.random.default_rng(seed).random()
    chosen = others[np.floor((np.arange(extra) + offset) * len(others) / max(extra, 1)).astype(int)]
    return _lines(shape, np.concatenate([center, chosen]))


MASKS: dict[str, Callable[..., np.ndarray]] = {
    "poisson_disc": poisson_disc,
    "poisson_disc_authors": poisson_disc_authors,
    "random_lines": random_lines,
    "equispaced_lines": equispaced_lines,
}


def make(name: str, shape: tuple[int, int], *, acceleration: float, seed: int = 0) -> np.ndarray:
    """The mask called `name`, one of `MASKS`, with its defaults.

    Raises:
        InputError: if there is no such mask, or as the mask itself does.
    """
    if name not in MASKS:
        raise InputError(f"`name` of the mask must be one of {sorted(MASKS)}, got {name!r}.")
    return MASKS[name](shape, acceleration=acceleration, seed=seed)


def polynomial_density(
    shape: tuple[int, int], *, acceleration: float, order: float, extent: float, dense: float, center: int
) -> np.ndarray:
    """Probability that a frequency is sampled: 1 in the centre, `min(1, c (1 - r / extent) ** order)` outside of it.

    `r`, `extent` and `dense` are in units of Nyquist: 1 at the edge of k-space, sqrt(2) in its corner. So a mask keeps
    its look at any size and, on a grid that is not square, treats equal frequencies alike. The one free constant `c` is
    found by bisection such that the density sums to the number of samples.

    Args:
        shape: `(h, w)`.
        acceleration: of the mask.
        order: of the polynomial.
        extent: frequency at which the polynomial would vanish, above sqrt(2).
        dense: radius of the fully sampled disc.
        center: side of the square of lowest frequencies that is fully sampled too, in pixels.

    Returns:
        `(h, w)` float64, zero frequency in the corner, with the sum `round(h * w / acceleration)`.

    Raises:
        InputError: if the disc and the square hold more points than that, or an argument is impossible.
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
    """Progressive dart throwing to an exact number of points, whose radial density is exact too.

    Rings of equal frequency have quotas that add up to the count. All pixels are tried in one random order; one is
    taken when its ring has a place left and it lies outside of the discs, of radius `scale / sqrt(p)`, around those
    taken before. What is still missing is found among the rest with a smaller scale. Once a radius is below 1 its disc
    covers nothing else, so the quotas are always met. Distances wrap around, as the frequencies of an FFT do: the edge
    is no border.
    """
    density = polynomial_density(shape, acceleration=acceleration, **settings)
    ring = (_radius(shape) * min(shape) / 4).astype(int)  # two pixels wide along the shorter axis
    taken = density == 1
    missing = _count(shape, acceleration) - np.count_nonzero(taken)
    quota = _quotas(np.bincount(ring.ravel(), np.where(taken, 0, density).ravel()), missing)
    order = np.random.default_rng(seed).permutation(density.size)

    scale = 1.0
    while quota.any():
        # the largest squared distance within the disc, 0 in the full centre; half the grid bounds it for tiny densities
        reach = np.ceil(np.minimum(scale**2 / density, (min(shape) / 2) ** 2)).astype(int) - 1
        covered = taken.copy()
        for value in np.unique(reach[taken]):
            covered[_disc(*np.nonzero(taken & (reach == value)), value, shape)] = True
        open_pixels = order[~covered.ravel()[order] & (quota[ring].ravel()[order] > 0)]
        for row, column in zip(*np.unravel_index(open_pixels, shape), strict=True):
            if quota[ring[row, column]] and not covered[row, column]:
                taken[row, column] = True
                quota[ring[row, column]] -= 1
                covered[_disc(row, column, reach[row, column], shape)] = True
        scale *= 0.9
    return taken.astype(np.float32)


def _quotas(expected, total):
    """Whole numbers near `expected` that add up to `total`: differences of the rounded running sum."""
    if not total:
        return np.zeros(len(expected), int)
    running = np.cumsum(expected)
    return np.diff(np.floor(running * (total / running[-1]) + 0.5).astype(int), prepend=0)


def _disc(row, column, reach, shape):
    """Index of the pixels at a squared distance of at most `reach` from each `(row, column)`, around the edges."""
    down, right = _offsets(int(reach))
    return (np.add.outer(row, down) % shape[0], np.add.outer(column, right) % shape[1])


@functools.cache
def _offsets(reach):
    side = np.arange(-math.isqrt(reach), math.isqrt(reach) + 1)
    down, right = np.meshgrid(side, side, indexing="ij")
    near = down**2 + right**2 <= reach
    return down[near], right[near]


def _frequencies(size):
    """Whole frequencies in the order of the FFT: 0, 1, ..., -2, -1."""
    return np.fft.ifftshift(np.arange(size) - size // 2)


def _radius(shape):
    """`(h, w)`: frequency in units of Nyquist."""
    down, right = (_frequencies(size) / (size / 2) for size in shape)
    return np.hypot(*np.meshgrid(down, right, indexing="ij"))


def _center_square(shape, side):
    down, right = ((k >= -(side // 2)) & (k < side - side // 2) for k in map(_frequencies, shape))
    return np.logical_and.outer(down, right)


def _columns(shape, acceleration, center_fraction, seed):
    """Centre columns, the others from the lowest to the highest frequency, and how many of the others to sample."""
    _check(shape, acceleration, seed)
    w = shape[1]
    fraction = 0.32 / acceleration if center_fraction is None else center_fraction
    if not 0 < fraction <= 1:
        raise InputError(f"`center_fraction` must be above 0 and at most 1, got {center_fraction!r}.")
    size = max(1, round(w * fraction))
    extra = round(w / acceleration) - size
    if extra < 0:
        raise InputError(
            f"`acceleration` {acceleration} leaves {round(w / acceleration)} of {w} columns, expected at least the "
            f"{size} of the fully sampled centre."
        )
    centred = np.fft.fftshift(np.arange(w))  # index of each column, by rising frequency
    start = (w - size + 1) // 2
    return centred[start : start + size], np.delete(centred, np.s_[start : start + size]), extra


def _lines(shape, columns):
    mask = np.zeros(shape, np.float32)
    mask[:, columns] = 1
    return mask


def _count(shape, acceleration):
    return round(shape[0] * shape[1] / acceleration)


def _check(shape, acceleration, seed=0):
    if len(shape) != 2 or not all(isinstance(n, numbers.Integral) and n >= 4 for n in shape):
        raise InputError(f"`shape` must be (h, w), whole numbers of at least 4, got {shape}.")
    if not (isinstance(acceleration, numbers.Real) and 1 <= acceleration < math.inf):
        raise InputError(f"`acceleration` must be a finite number of at least 1, got {acceleration!r}.")
    if not (isinstance(seed, numbers.Integral) and seed >= 0):
        raise InputError(f"`seed` must be a whole number of at least 0, got {seed!r}.")
