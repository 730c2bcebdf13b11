"""The acquisition of measured k-space, read off the data.

Only the values are needed, no header: frequencies that are zero in all coils were not sampled. Noise is estimated where the
image should be weaker: at the highest sampled frequencies, and in the margins of the field of view. What remains of the
image there makes an estimate larger, so the smallest one counts.
"""

import math

import numpy as np

from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.runtime.errors import InputError

OUTER_SHARE = 0.03  # of the sampled frequencies, the highest ones, show the noise
MIN_OUTER = 200  # frequencies, if so many are sampled: the median of 200 has a standard error of 5 %
MARGIN_SHARE = 1 / 16  # of the rows of the field of view, the emptiest ones, show the noise
MIN_LINES = 4  # of k-space, for an estimate from rows: half of them choose the rows, the others measure
MIN_CENTRE = 16  # side of the fully sampled centre, for an estimate from the corners of its image
CORNER_SHARE = 1 / 6  # side of such a corner
CLEARLY_LESS = 0.6  # the corners are few samples, with a standard error of up to 25 %, so only a clear difference counts
KAISER = 7.0  # the beta of the window of this image: its side lobes are below the noise, 1e-3 of the image
MAX_SLICES = 32  # of the leading axes, evenly spaced: more cost time and add nothing
EQUAL_SHARE = 0.99  # of the frequencies: masks that differ by less are of one kind, as a sample may be 0 by chance
LINES_SHARE = 0.99  # of the crossings of sampled rows and columns: with so many sampled, the mask consists of lines
MAX_GAP_DIFFERENCE = 1  # pixels between the widest and the narrowest gap of equispaced lines, which are rounded to pixels


def estimate_acquisition(kspace: np.ndarray) -> Acquisition:
    """The acquisition of measured k-space.

    The noise is an upper bound: structures that reach both the highest sampled frequencies and the margins of the field of
    view count as noise, with their squares added. docs/data.md has what it comes to for heads.

    Args:
        kspace: `(*b, h, w)` complex, as `np.fft.fft2(image, norm="ortho")`, zero where nothing was sampled; the leading
            axes are slices and coils. If they were sampled in several ways, that of the one in the middle counts.

    Returns:
        The acceleration is the inverse of the sampled share. The noise has the units of the image that belongs to the
        k-space. For several coils it is that of the combined image, if the noise of the coils has one strength and is
        uncorrelated, and the squares of the sensitivities sum to 1. The mask is "random_lines" or "equispaced_lines",
        for columns as well as for rows, else "poisson_disc".

    Raises:
        InputError: if `kspace` is not complex, holds NaN or infinity, or is zero everywhere.
    """
    kspace = np.asarray(kspace)
    if not np.iscomplexobj(kspace) or kspace.ndim < 2:
        raise InputError(f"`kspace` must be complex (*b, h, w), got {kspace.dtype} {kspace.shape}.")
    if not np.isfinite(kspace).all():
        raise InputError("`kspace` must hold finite numbers, but it has NaN or infinity.")
    if not kspace.any():
        raise InputError("`kspace` must have values that are not zero, got zeros alone.")
    slices = _select_slices(kspace)
    sampled = (slices != 0).any(0)
    return Acquisition(float(1 / sampled.mean()), _estimate_sigma(slices, sampled), _classify_mask(sampled))


def _select_slices(kspace: np.ndarray) -> np.ndarray:
    """Slices and coils, `(n, h, w)`, that were sampled alike: those of an evenly spaced choice that are as its middle."""
    slices = kspace.reshape(-1, *kspace.shape[-2:])
    slices = slices[slices.any((1, 2))]  # empty ones do not count
    slices = slices[np.unique(np.linspace(0, len(slices) - 1, MAX_SLICES).astype(int))]
    masks = slices != 0
    return slices[(masks == masks[len(masks) // 2]).mean((1, 2)) >= EQUAL_SHARE]


def _estimate_sigma(slices: np.ndarray, sampled: np.ndarray) -> float:
    """The standard deviation of the complex noise: the smallest of its estimates."""
    highest = _sigma_of_high_frequencies(slices, sampled)
    if _consists_of_lines(sampled):
        return min(highest, _sigma_of_margins(slices, sampled), _sigma_of_margins(slices.swapaxes(1, 2), sampled.T))
    corners = _sigma_of_corners(slices, sampled)
    return corners if corners < CLEARLY_LESS * highest else highest


def _sigma_of_high_frequencies(slices: np.ndarray, sampled: np.ndarray) -> float:
    """The noise by the median magnitude of the highest sampled frequencies."""
    down, right = (np.fft.fftfreq(side) for side in sampled.shape)
    radius = np.hypot(*np.meshgrid(down, right, indexing="ij"))
    places = np.flatnonzero(sampled)
    count = max(MIN_OUTER, round(OUTER_SHARE * places.size))
    outer = places[np.argsort(radius.ravel()[places], kind="stable")[-count:]]
    magnitude = np.abs(slices.reshape(len(slices), -1)[:, outer])
    return _rayleigh_sigma(magnitude[magnitude > 0])


def _sigma_of_margins(slices: np.ndarray, sampled: np.ndarray) -> float:
    """The noise by the emptiest rows of the field of view, infinite where it cannot be told.

    Columns of k-space that were sampled whole are transformed along the rows. The image wraps around along columns alone,
    so rows above and below a head hold noise. Every second column chooses the rows, the others measure there, and the other
    way round: a choice and a measurement by the same noise would find too little.
    """
    rows, columns = np.asarray(sampled.any(1)), np.flatnonzero(sampled.any(0))
    if columns.size < MIN_LINES:
        return math.inf
    magnitude = np.abs(np.fft.ifft(slices[:, :, columns], axis=1, norm="ortho"))
    count = max(2, round(MARGIN_SHARE * len(rows)))
    estimates = []
    for choosing, measuring in ((magnitude[..., ::2], magnitude[..., 1::2]), (magnitude[..., 1::2], magnitude[..., ::2])):
        power = np.square(choosing).sum((0, 2))
        windows = sum(np.roll(power, -shift) for shift in range(count))
        margin = (int(np.argmin(windows)) + np.arange(count)) % len(rows)
        estimates.append(_rayleigh_sigma(measuring[:, margin]))
    return float(np.mean(estimates)) / math.sqrt(rows.mean())  # rows of zeros add no noise


def _sigma_of_corners(slices: np.ndarray, sampled: np.ndarray) -> float:
    """The noise by the corners of a smooth image of the fully sampled centre, infinite where the centre is too small.

    The lower quartile tolerates that anatomy is in some of the four corners.
    """
    side = _centre_side(np.fft.fftshift(sampled))
    if side < MIN_CENTRE:
        return math.inf
    (top, left) = (length // 2 - side // 2 for length in sampled.shape)
    window = np.outer(*[np.kaiser(side + 2, KAISER)[1:-1]] * 2)
    centre = np.fft.fftshift(slices, axes=(1, 2))[:, top : top + side, left : left + side] * window
    image = np.fft.ifft2(np.fft.ifftshift(centre, axes=(1, 2)), norm="ortho")
    rim = max(2, round(CORNER_SHARE * side))
    corners = np.r_[:rim, side - rim : side]
    magnitude = np.abs(image[:, corners][:, :, corners])
    return _rayleigh_sigma(magnitude, quantile=0.25) / math.sqrt(np.square(window).mean())


def _rayleigh_sigma(magnitude: np.ndarray, *, quantile: float = 0.5) -> float:
    """The standard deviation of circular complex Gaussian noise, from a quantile of its magnitude (Rayleigh)."""
    return float(np.quantile(magnitude, quantile) / math.sqrt(-math.log(1 - quantile)))


def _centre_side(sampled: np.ndarray) -> int:
    """The side of the largest square around the middle that was sampled whole; `sampled` `(h, w)` is centred."""
    h, w = sampled.shape
    side = 0
    while side < min(h, w):
        top, left = h // 2 - (side + 1) // 2, w // 2 - (side + 1) // 2
        if not sampled[top : top + side + 1, left : left + side + 1].all():
            break
        side += 1
    return side


def _consists_of_lines(sampled: np.ndarray) -> bool:
    """Whether a mask `(h, w)` consists of whole rows, whole columns or their crossings."""
    return bool(sampled.sum() >= LINES_SHARE * sampled.any(1).sum() * sampled.any(0).sum())


def _classify_mask(sampled: np.ndarray) -> str:
    """The kind of mask of sampled frequencies `(h, w)`, zero frequency in the corner."""
    rows, columns = sampled.any(1), sampled.any(0)
    if not _consists_of_lines(sampled):
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
