"""The recipe from the k-space of a file to a sample: the steps, in order, and their options.

NumPy; k-space is complex. "Centred" k-space is as files hold it: the zero frequency and the middle of the image at
`side // 2`. K-space "in the corner" is `np.fft.fft2(image, norm="ortho")`, as in `physics.sample.Coils`.

Of a whole volume (`virtual_coils`):
    1. crop_field           a square field of view: rows beyond it are cut off (readout oversampling)
    2. whiten               noise gets unit variance and no correlation between coils (`coils.whiten`)
    3. crop_frequencies     the central frequencies, as many as the sample has pixels
    4. to_corner            zero frequency from the centre to the corner; the image is flipped or not
    5. compress             fewer virtual coils, or coils of zeros added (`coils.compress`)
Of each slice (`make_image_and_maps`):
    6. sensitivities        maps by ESPIRiT, unless the file has maps (`coils.sensitivities`)
    7. phase                the maps take the slow phase of the image (`coils.absorb_phase`)
    8. combine              the image is the magnitude of the combined coils (`coils.combine`)
At last the caller divides image and k-space by one number for the volume.

Preparing for training (`sources/scans.py`) takes all steps, `fastmri` with the flip. The explorer takes 1 and 4 when it
reads the file (`volumes.read`), 5 when it opens it, and 6 to 8 when it shows a slice (`explorer/measurement.py`). It takes
1 where lines were sampled whole, for the rows alone. It leaves out 2, as it writes results in the units of the file, 3, as
the network takes images of any size, and the flip, as it shows images as they are stored. It divides by the largest value
of the zero-filled images, as the reference image may be unknown, and it calibrates on what was measured
(`measured_centre`), as the file may be under-sampled.
"""

import numpy as np

from hyperrecon_jax.data import coils, grid

CALIBRATION = 24  # side of the square of central frequencies from which maps are made
FULLY_SAMPLED_SHARE = 0.99  # k-space counts as fully sampled if more than this share of it was measured


def virtual_coils(
    kspace: np.ndarray, *, field: tuple[int, int], size: int, flip: bool, whiten: bool, count: int
) -> np.ndarray:
    """Steps 1 to 5: the k-space of a volume on the grid of the samples, seen by `count` virtual coils.

    Args:
        kspace: `(n, c, h, w)`, centred.
        field: rows and columns of the field of view, in pixels of the k-space's image.
        size: pixels along both sides of a sample.
        flip: flip the image along both axes.
        whiten: whiten the noise.
        count: number of virtual coils.

    Returns:
        `(n, count, size, size)`, zero frequency in the corner.
    """
    kspace = np.stack([crop_field(volume_slice, *field) for volume_slice in kspace])
    if whiten:  # before frequencies are cut: the highest ones hold noise alone
        kspace = coils.whiten(kspace, coils.noise_covariance(to_corner(kspace, flip=flip)))
    return coils.compress(to_corner(crop_frequencies(kspace, size, size), flip=flip), count)


def make_image_and_maps(
    kspace: np.ndarray, *, calibration: int = CALIBRATION, maps: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Steps 6 to 8: the image of a slice, in the units of the k-space, and its maps.

    Args:
        kspace: `(c, h, w)` complex64, zero frequency in the corner.
        calibration: side of the square of central frequencies, all measured, from which maps and phase are made. With 0,
            only for a single coil, the phase of the image stays.
        maps: `(c, h, w)`, those of the file; None: ESPIRiT makes them, which takes seconds.

    Returns:
        The image `(h, w)` float32 and the maps `(c, h, w)` complex64.

    Raises:
        InputError: as `coils.sensitivities`.
    """
    if maps is None:
        maps = coils.sensitivities(kspace, calibration=calibration)
    if calibration:
        maps = coils.absorb_phase(kspace, maps, calibration=calibration)
    return np.abs(coils.combine(kspace, maps)).astype(np.float32), maps


def crop_field(kspace: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Centred k-space `(c, h, w)` of the central `rows x columns` pixels of the image, with zeros around smaller images.

    Along an axis that keeps its length nothing happens. Along another one, k-space is interpolated: its lines must all be
    measured.
    """
    for axis, side in ((1, rows), (2, columns)):
        if kspace.shape[axis] != side:
            image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=axis), axis=axis, norm="ortho"), axes=axis)
            image = grid.centre(image, *((side, image.shape[2]) if axis == 1 else (image.shape[1], side)))
            kspace = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, axes=axis), axis=axis, norm="ortho"), axes=axis)
    return kspace


def crop_frequencies(kspace: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The central `rows x columns` frequencies of centred k-space `(*b, h, w)`; where there are fewer, zeros around them.

    The field of view stays as it is. So measured lines stay measured lines, and the pixels change their size.
    """
    *batch, h, w = kspace.shape
    return grid.centre(kspace.reshape(-1, h, w), rows, columns).reshape(*batch, rows, columns)


def to_corner(kspace: np.ndarray, *, flip: bool) -> np.ndarray:
    """Centred k-space `(*b, h, w)` of a centred image -> `fft2` of that image.

    With `flip` the image is flipped along both axes: frequency f becomes -f. Both are exact: values are moved and their
    phase is turned, and zeros stay zeros.
    """
    moved = np.fft.ifftshift(kspace, axes=(-2, -1))
    if flip:
        moved = np.roll(moved[..., ::-1, ::-1], 1, (-2, -1))
    # The middle of the image is at pixel side // 2 and the origin of fft2 at pixel 0; a flip adds one pixel.
    turns = [_phase_turns(side, side // 2 + 1 if flip else -(side // 2)) for side in kspace.shape[-2:]]
    return moved * np.multiply.outer(*turns).astype(kspace.dtype)


def measured_centre(kspace: np.ndarray) -> int:
    """Side of the largest square of central frequencies, at most `CALIBRATION`, that was measured in all slices.

    Args:
        kspace: `(n, c, h, w)`, zero frequency in the corner. Slices of zeros do not count.
    """
    measured = (kspace != 0).any(1)
    middle = np.fft.fftshift(measured[measured.any((1, 2))].all(0))
    h, w = middle.shape
    for side in range(min(CALIBRATION, h, w), 0, -1):
        top, left = h // 2 - side // 2, w // 2 - side // 2
        if middle[top : top + side, left : left + side].all():
            return side
    return 0


def sampled_share(sampled: np.ndarray) -> float:
    """The share of the frequencies that were sampled, of those that the scanner meant to sample.

    Rows and columns of zeros at the ends of k-space are padding: a scanner adds them for smaller pixels, and leaves out a
    part of one end in partial Fourier imaging. They do not count, unless more than half of a side is zeros: then the file
    holds the middle of k-space alone.

    Args:
        sampled: `(h, w)` bool, centred.

    Returns:
        In [0, 1]; 0 if nothing was sampled.
    """
    box = []
    for axis, side in enumerate(sampled.shape):
        lines = np.flatnonzero(sampled.any(1 - axis))
        first, last = (int(lines[0]), int(lines[-1])) if lines.size else (0, side - 1)
        box.append(slice(first, last + 1) if 2 * (last + 1 - first) >= side else slice(None))
    return float(sampled[tuple(box)].mean())


def is_fully_sampled(sampled: np.ndarray) -> bool:
    """Whether k-space has no gaps; `sampled` as in `sampled_share`."""
    return sampled_share(sampled) > FULLY_SAMPLED_SHARE


def _phase_turns(side: int, pixels: int) -> np.ndarray:
    """The factors `(side,)` of the frequencies that move an image by some pixels to the left."""
    if 2 * abs(pixels) == side:
        return (-1.0) ** np.arange(side)  # half the field of view; without rounding
    return np.exp(2j * np.pi * np.arange(side) * pixels / side)
