"""Multi-coil k-space: noise, virtual coils, sensitivity maps, and the combined image. Steps of the recipe in `kspace.py`.

NumPy; k-space is `(c, h, w)` for a slice or `(n, c, h, w)` for a volume, complex, orthonormal, with the zero frequency
in the CORNER: `np.fft.fft2(image, norm="ortho")` of the image that each coil sees. The functions work in any unit; the
caller divides image and k-space by one number afterwards.

Networks return a real image x >= 0, but a measured image has a phase. The maps take its slowly varying part
(`absorb_phase`), so that A x = F(maps x) can fit the measurement.
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
    """Covariance E n n^H of the noise of a volume, `(n, c, h, w) -> (c, c)` complex128, from places without signal.

    There are two such places. The first is the highest 5 % of the measured frequencies; a frequency counts as measured
    unless it is zero in all coils and slices, as scanners fill up with zeros. The second is the corners of the field of
    view, squares with an eighth of its sides. Signal in these places makes an estimate larger, so the function returns
    the estimate with the smaller trace: usually the corners for a head, and the frequencies where anatomy or aliasing
    fills the field of view.

    Bias: the estimate is too large by the signal that remains. Whitening with it is still a change of coils, and any such
    change keeps A x = y solvable; only the weights of the coils are not the best ones. The estimate is too small, equally
    in all coils, where a receiver's filter weakens the rim of the field of view.

    Raises:
        InputError: if nothing was measured.
    """
    h, w = kspace.shape[2:]
    measured = (kspace != 0).any((0, 1))
    if not measured.any():
        raise InputError(f"`kspace` must have measured samples, got zeros of shape {kspace.shape}.")
    radius = np.hypot(2 * np.fft.fftfreq(h)[:, None], 2 * np.fft.fftfreq(w)[None, :])
    outermost = measured & (radius >= np.quantile(radius[measured], 1 - OUTERMOST))
    rims = [np.minimum(np.arange(side), np.arange(side)[::-1]) < -(-side // CORNER) for side in (h, w)]
    corners = np.logical_and.outer(*rims)
    corner_pixels = np.stack([np.fft.ifft2(volume_slice, norm="ortho")[:, corners] for volume_slice in kspace])
    corner_pixels = corner_pixels / np.sqrt(measured.mean())
    estimates = [_covariance(kspace[:, :, outermost]), _covariance(corner_pixels)]
    return min(estimates, key=lambda covariance: np.trace(covariance).real)


def _covariance(noise: np.ndarray) -> np.ndarray:
    """The covariance of the coils, `(c, c)`, from noise `(n, c, samples)` of zero mean."""
    samples = noise.astype(np.complex128).swapaxes(0, 1).reshape(noise.shape[1], -1)
    return samples @ samples.conj().T / samples.shape[1]


def whiten(kspace: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Coils whose noise has unit variance and no correlation, `(n, c, h, w)`: L^-1 y with L L^H = covariance.

    Pruessmann et al., MRM 46:638 (2001). Each variance gets 1e-9 of the mean variance added, so that a coil without
    noise, such as a dead one, causes no division by zero.

    Raises:
        InputError: if the covariance is not positive, for example zero.
    """
    floor = 1e-9 * np.trace(covariance).real / len(covariance)
    try:
        root = np.linalg.cholesky(covariance + floor * np.eye(len(covariance)))
    except np.linalg.LinAlgError:
        raise InputError(f"`covariance` must be positive, got eigenvalues {np.linalg.eigvalsh(covariance)}.") from None
    return _mix(np.linalg.inv(root), kspace)


def compress(kspace: np.ndarray, count: int) -> np.ndarray:
    """A volume seen by `count` virtual coils, `(n, c, h, w) -> (n, count, h, w)`.

    The virtual coils are the first left singular vectors of all samples of the volume: no other `count` orthonormal
    combinations keep more energy (Buehrer et al., MRM 57:1131, 2007; Huang et al., MRI 26:133, 2008). All slices have the
    same combinations. These are orthonormal, so white noise stays white. A volume of `count` coils or fewer keeps them,
    followed by coils of zeros, so that volumes of different scanners have the same shape.
    """
    n, c, h, w = kspace.shape
    if c <= count:
        return np.concatenate([kspace, np.zeros((n, count - c, h, w), kspace.dtype)], axis=1)
    energy = np.zeros((c, c), np.complex128)  # the singular vectors of the samples are its eigenvectors
    for volume_slice in kspace:
        samples = volume_slice.reshape(c, -1).astype(np.complex128)
        energy += samples @ samples.conj().T
    _, vectors = np.linalg.eigh(energy)  # the weakest first
    return _mix(vectors[:, ::-1][:, :count].conj().T, kspace)


def sensitivities(kspace: np.ndarray, *, calibration: int = 24) -> np.ndarray:
    """Sensitivity maps of a slice by ESPIRiT (Uecker et al., MRM 71:990, 2014), `(c, h, w)` complex64.

    They come from the central `calibration` x `calibration` frequencies, which must all be measured. Sum |maps|^2 is 1
    where the largest eigenvalue exceeds 0.95, which is the object and a little around it, and 0 elsewhere. Coils of zeros
    get maps of zeros. The map of a single coil is 1 everywhere, since one coil alone does not show its sensitivity. The
    phase of maps is arbitrary in each pixel; `absorb_phase` fixes it.

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
    with np.errstate(divide="ignore", invalid="ignore"):  # where the first coil sees nothing sigpy divides by its phase
        maps = EspiritCalib(centred, calib_width=calibration, crop=CROP, show_pbar=False).run()
    maps = np.fft.ifftshift(np.nan_to_num(maps, posinf=0, neginf=0), axes=(1, 2))
    length = np.linalg.norm(maps, axis=0)
    return np.where(length > 0.5, maps / np.where(length > 0.5, length, 1), 0)


def absorb_phase(kspace: np.ndarray, maps: np.ndarray, *, calibration: int = 24) -> np.ndarray:
    """Maps that hold the slowly varying phase of the image, `(*b, c, h, w)`: maps exp(i phase(sum conj(maps) low)).

    `low` holds the images of the coils from the central `calibration` x `calibration` frequencies under a Hann window. The
    images are smoothed before they are combined. So the result does not depend on the phase that the maps had before,
    which has vortices for virtual coils.

    A finer phase stays in the result of `combine`: of vessels, of fat against water, of borders to air, and of noise. No
    real image explains this part of the k-space. Its energy is a lower limit of ||A x - y||^2.
    """
    window = np.multiply.outer(*(_hann(side, calibration) for side in kspace.shape[-2:]))
    low = combine(kspace * window, maps)
    return (maps * np.exp(1j * np.angle(low))[..., None, :, :]).astype(np.complex64)


def combine(kspace: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The complex image `(*b, h, w)` of k-space `(*b, c, h, w)`: sum over coils of conj(maps) F^-1 kspace."""
    return np.sum(np.conj(maps) * np.fft.ifft2(kspace, norm="ortho"), axis=-3)


def _hann(side: int, width: int) -> np.ndarray:
    """A Hann window `(side,)`: 1 at the zero frequency, in the corner, and 0 from `width / 2` on."""
    frequency = np.fft.fftfreq(side, 1 / side)
    return np.where(np.abs(frequency) < width / 2, np.cos(np.pi * frequency / width) ** 2, 0)


def _mix(matrix: np.ndarray, kspace: np.ndarray) -> np.ndarray:
    """Linear combinations of coils, `(a, c), (n, c, h, w) -> (n, a, h, w)`, in the precision of `kspace`."""
    c, h, w = kspace.shape[1:]
    matrix = matrix.astype(kspace.dtype)
    return np.stack([(matrix @ volume_slice.reshape(c, -1)).reshape(-1, h, w) for volume_slice in kspace])
