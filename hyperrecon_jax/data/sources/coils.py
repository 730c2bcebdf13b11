"""Measured multi-coil k-space: noise, fewer virtual coils, sensitivity maps, and the image they give.

NumPy; k-space is `(c, h, w)` for one slice or `(n, c, h, w)` for a volume, complex, orthonormal, with the zero frequency
in the CORNER: `np.fft.fft2(image, norm="ortho")` of what each coil sees. Nothing here needs a unit: whoever calls
divides image and k-space by one number afterwards.

Networks return a real image x >= 0. So that A x = F(maps x) fits what was measured, the slowly varying phase of the
image belongs to the maps (`absorb_phase`).
"""

import numpy as np

from hyperrecon_jax.runtime.errors import InputError

CROP = 0.95  # of ESPIRiT's eigenvalue, which is 1 where the coils' data are consistent with one image
OUTERMOST = 0.05  # share of the measured frequencies that may be noise
CORNER = 8  # side of the field of view, in sides of a corner of it that may be noise
NO_SIGPY = (
    "Sensitivity maps of several coils must be computed with sigpy, which is not installed:"
    " pip install hyperrecon_jax[multicoil]."
)


def noise_covariance(kspace: np.ndarray) -> np.ndarray:
    """Covariance E n n^H of the noise of a volume, `(n, c, h, w) -> (c, c)` complex128, from where there is no signal.

    There are two such places: the highest 5 % of the measured frequencies (those not zero in all coils and slices, as
    scanners fill up with zeros), and the corners of the field of view, an eighth of its sides each. Whatever signal they
    hold adds to the noise, so of both estimates the one of the smaller trace is returned: that of the corners for a head,
    that of the frequencies where anatomy or aliasing fills the field of view.

    Bias: too large, by the signal that is left. Whitening is a change of coils all the same, and any such change keeps
    A x = y solvable; only the weights of the coils are then not the best ones. Too small, but in all coils alike, by what
    a receiver's filter takes from the rim of the field of view.

    Raises:
        InputError: if nothing was measured.
    """
    h, w = kspace.shape[2:]
    measured = (kspace != 0).any((0, 1))
    if not measured.any():
        raise InputError(f"`kspace` must have measured samples, got zeros of shape {kspace.shape}.")
    radius = np.hypot(2 * np.fft.fftfreq(h)[:, None], 2 * np.fft.fftfreq(w)[None, :])
    outermost = measured & (radius >= np.quantile(radius[measured], 1 - OUTERMOST))
    far = [np.minimum(np.arange(side), np.arange(side)[::-1]) < -(-side // CORNER) for side in (h, w)]
    corners = np.logical_and.outer(*far)
    images = np.stack([np.fft.ifft2(one, norm="ortho")[:, corners] for one in kspace]) / np.sqrt(measured.mean())
    return min(map(_covariance, (kspace[:, :, outermost], images)), key=lambda covariance: np.trace(covariance).real)


def _covariance(noise: np.ndarray) -> np.ndarray:
    """Of samples `(n, c, samples)` of zero mean."""
    samples = noise.astype(np.complex128).swapaxes(0, 1).reshape(noise.shape[1], -1)
    return samples @ samples.conj().T / samples.shape[1]


def whiten(kspace: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Coils whose noise has unit variance and no correlation, `(n, c, h, w)`: L^-1 y with L L^H = covariance.

    Pruessmann et al., MRM 46:638 (2001). A coil without noise, such as a dead one, is kept from dividing by zero: 1e-9 of
    the mean variance is added to each.

    Raises:
        InputError: if the covariance is not positive, as that of zeros is not.
    """
    floor = 1e-9 * np.trace(covariance).real / len(covariance)
    try:
        root = np.linalg.cholesky(covariance + floor * np.eye(len(covariance)))
    except np.linalg.LinAlgError:
        raise InputError(f"`covariance` must be positive, got eigenvalues {np.linalg.eigvalsh(covariance)}.") from None
    return _mix(np.linalg.inv(root), kspace)


def compress(kspace: np.ndarray, count: int) -> np.ndarray:
    """A volume seen by `count` virtual coils, `(n, c, h, w) -> (n, count, h, w)`.

    They are the first left singular vectors of all samples of the volume, so that no other `count` orthonormal
    combinations keep more energy (Buehrer et al., MRM 57:1131, 2007; Huang et al., MRI 26:133, 2008). The mixture is one
    for all slices and unitary on what it keeps: white noise stays white. Where there are no more than `count` coils they
    stay as they are and coils of zeros follow, so that volumes of different scanners have one shape.
    """
    n, c, h, w = kspace.shape
    if c <= count:
        return np.concatenate([kspace, np.zeros((n, count - c, h, w), kspace.dtype)], axis=1)
    energy = np.zeros((c, c), np.complex128)  # the singular vectors of the samples are its eigenvectors
    for one in kspace:
        samples = one.reshape(c, -1).astype(np.complex128)
        energy += samples @ samples.conj().T
    _, vectors = np.linalg.eigh(energy)  # the weakest first
    return _mix(vectors[:, ::-1][:, :count].conj().T, kspace)


def sensitivities(kspace: np.ndarray, *, calibration: int = 24) -> np.ndarray:
    """Sensitivity maps of a slice by ESPIRiT (Uecker et al., MRM 71:990, 2014), `(c, h, w)` complex64.

    From the central `calibration` x `calibration` frequencies, which must all be measured. Sum |maps|^2 is 1 where the
    largest eigenvalue exceeds 0.95, which is the object and a little around it, and 0 elsewhere. Coils of zeros get
    maps of zeros. A single coil tells nothing of its sensitivity: its map is 1 everywhere. The phase of maps is free in
    each pixel; `absorb_phase` settles it.

    Raises:
        InputError: if sigpy is not installed, or the slice is smaller than the calibration.
    """
    h, w = kspace.shape[1:]
    if min(h, w) < calibration:
        raise InputError(f"`kspace` must be at least `calibration` = {calibration} samples wide, got {h} x {w}.")
    maps = np.zeros(kspace.shape, np.complex64)
    live = np.flatnonzero((kspace != 0).any((1, 2)))
    if len(live) == 1:
        maps[live] = 1
    elif len(live) > 1:
        maps[live] = _espirit(kspace[live], calibration)
    return maps


def _espirit(kspace: np.ndarray, calibration: int) -> np.ndarray:
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError:
        raise InputError(NO_SIGPY) from None
    centred = np.fft.fftshift(kspace / np.abs(kspace).max(), axes=(1, 2)).astype(np.complex64)
    with np.errstate(divide="ignore", invalid="ignore"):  # where the first coil is blind sigpy divides by its phase
        maps = EspiritCalib(centred, calib_width=calibration, crop=CROP, show_pbar=False).run()
    maps = np.fft.ifftshift(np.nan_to_num(maps, posinf=0, neginf=0), axes=(1, 2))
    length = np.linalg.norm(maps, axis=0)
    return np.where(length > 0.5, maps / np.where(length > 0.5, length, 1), 0)


def absorb_phase(kspace: np.ndarray, maps: np.ndarray, *, calibration: int = 24) -> np.ndarray:
    """Maps that hold the slowly varying phase of the image, `(*b, c, h, w)`: times exp(i phase(sum conj(maps) low)).

    `low` is what the coils see of the central `calibration` x `calibration` frequencies under a Hann window. The coils'
    images are smoothed before they are combined, not after, so that the result does not depend on whatever phase the
    maps came with, which for those of virtual coils has vortices.

    What remains in `combine` is phase finer than that: of vessels, fat against water, borders to air, and noise. It is
    the part of the k-space that no real image explains, whose share of the energy is a floor under ||A x - y||^2.
    """
    window = np.multiply.outer(*(_hann(side, calibration) for side in kspace.shape[-2:]))
    low = combine(kspace * window, maps)
    return (maps * np.exp(1j * np.angle(low))[..., None, :, :]).astype(np.complex64)


def combine(kspace: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The complex image `(*b, h, w)` of k-space `(*b, c, h, w)`: sum over coils of conj(maps) F^-1 kspace."""
    return np.sum(np.conj(maps) * np.fft.ifft2(kspace, norm="ortho"), axis=-3)


def _hann(side: int, width: int) -> np.ndarray:
    """1 at the zero frequency, in the corner, and 0 from `width / 2` on."""
    frequency = np.fft.fftfreq(side, 1 / side)
    return np.where(np.abs(frequency) < width / 2, np.cos(np.pi * frequency / width) ** 2, 0)


def _mix(matrix: np.ndarray, kspace: np.ndarray) -> np.ndarray:
    """New coils from the old ones, `(a, c), (n, c, h, w) -> (n, a, h, w)`; slice by slice, in the precision of k-space."""
    c, h, w = kspace.shape[1:]
    matrix = matrix.astype(kspace.dtype)
    return np.stack([(matrix @ one.reshape(c, -1)).reshape(-1, h, w) for one in kspace])
