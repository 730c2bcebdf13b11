"""The acquisition of measured k-space, read off the data.

Only the values are needed, no header: frequencies that are zero in all coils were not sampled, and at the highest sampled
frequencies an image has less than its noise.
"""

import math

import numpy as np

from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.runtime.errors import InputError

OUTER_SHARE = 0.1  # of the sampled frequencies, the highest ones, show the noise
MIN_OUTER = 200  # frequencies, if so many are sampled: the median of 200 has a standard error of 5 %
LINES_SHARE = 0.99  # of the crossings of sampled rows and columns: with so many sampled, the mask consists of lines
MAX_GAP_DIFFERENCE = 1  # pixels between the widest and the narrowest gap of equispaced lines, which are rounded to pixels


def estimate_acquisition(kspace: np.ndarray) -> Acquisition:
    """The acquisition of measured k-space.

    The noise is an upper bound: fine structures that reach the highest sampled frequencies count as noise, with their
    squares added. For an image without them it is right to about 10 %.

    Args:
        kspace: `(*b, h, w)` complex, as `np.fft.fft2(image, norm="ortho")`, zero where nothing was sampled; the leading
            axes are slices and coils that were sampled alike.

    Returns:
        The acceleration is the inverse of the sampled share. The noise has the units of the image that belongs to the
        k-space. For several coils it is that of the combined image, if the noise of the coils has one strength and is
        uncorrelated, and the squares of the sensitivities sum to 1. The mask is "random_lines" or "equispaced_lines",
        for columns as well as for rows, else "poisson_disc".

    Raises:
        InputError: if `kspace` is not complex or is zero everywhere.
    """
    kspace = np.asarray(kspace)
    if not np.iscomplexobj(kspace) or kspace.ndim < 2:
        raise InputError(f"`kspace` must be complex (*b, h, w), got {kspace.dtype} {kspace.shape}.")
    sampled = (kspace != 0).any(tuple(range(kspace.ndim - 2)))
    if not sampled.any():
        raise InputError("`kspace` must have values that are not zero, got zeros alone.")
    return Acquisition(float(1 / sampled.mean()), _estimate_sigma(kspace, sampled), _classify_mask(sampled))


def _estimate_sigma(kspace: np.ndarray, sampled: np.ndarray) -> float:
    """The standard deviation of the complex noise, by the median magnitude of the highest sampled frequencies.

    The magnitude of circular complex Gaussian noise has the Rayleigh distribution, whose median is sigma * sqrt(log(2)).
    """
    down, right = (np.fft.fftfreq(side) for side in sampled.shape)
    radius = np.hypot(*np.meshgrid(down, right, indexing="ij"))
    places = np.flatnonzero(sampled)
    count = max(MIN_OUTER, round(OUTER_SHARE * places.size))
    outer = places[np.argsort(radius.ravel()[places], kind="stable")[-count:]]
    magnitude = np.abs(kspace.reshape(*kspace.shape[:-2], -1)[..., outer])
    return float(np.median(magnitude[magnitude > 0]) / math.sqrt(math.log(2)))  # empty slices and coils do not count


def _classify_mask(sampled: np.ndarray) -> str:
    """The kind of mask of sampled frequencies `(h, w)`, zero frequency in the corner."""
    rows, columns = sampled.any(1), sampled.any(0)
    if sampled.sum() < LINES_SHARE * rows.sum() * columns.sum():
        return "poisson_disc"
    lines = columns if columns.mean() <= rows.mean() else rows
    return "equispaced_lines" if _is_equispaced(np.fft.fftshift(lines)) else "random_lines"


def _is_equispaced(lines: np.ndarray) -> bool:
    """Whether the gaps between lines outside of the sampled centre are equal; `(n,)` by rising frequency."""
    middle = len(lines) // 2
    missing = np.flatnonzero(~lines)
    below, above = missing[missing < middle], missing[missing > middle]
    start = below[-1] if below.size else 0  # the centre is what is sampled around the zero frequency without a gap
    end = above[0] if above.size else len(lines)
    sides = (np.flatnonzero(lines[:start]), end + np.flatnonzero(lines[end:]))
    gaps = np.concatenate([np.diff(side) for side in sides])
    return gaps.size == 0 or np.ptp(gaps) <= MAX_GAP_DIFFERENCE
