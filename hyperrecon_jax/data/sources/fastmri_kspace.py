"""From the k-space in fastMRI's files to the grid of the training images; the steps are those of `fastmri.py`."""

from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data.sources import coils, grid
from hyperrecon_jax.data.sources.fastmri_file import kspace_shape, kspace_slice, opened, peak
from hyperrecon_jax.data.sources.subject import Settings
from hyperrecon_jax.data.volumes import fastmri as stored
from hyperrecon_jax.data.volumes.stack import check_finite
from hyperrecon_jax.runtime.errors import InputError


def measurements(path: Path, index: list[int], settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image `(n, size, size)`, k-space and maps `(n, coils, size, size)` of some slices of a file."""
    with opened(path) as file:
        kspace = np.stack([_field_of_view(kspace_slice(path, file, k)) for k in index])
        maps = _given(path, file, kspace_shape(path, file), index, settings)
    if settings.whiten:
        kspace = coils.whiten(kspace, coils.noise_covariance(_corner(kspace)))
    kspace = coils.compress(_corner(_cut(kspace, settings.size)), settings.coils)
    if maps is None:
        maps = np.stack([coils.sensitivities(one) for one in kspace])
    maps = coils.absorb_phase(kspace, maps)
    image = np.abs(coils.combine(kspace, maps))
    scale = peak(path, image)
    return image / scale, kspace / scale, maps


def _field_of_view(kspace: np.ndarray) -> np.ndarray:
    """The central 320 rows of the image of centred k-space `(c, h, w)`: what readout oversampling adds is cut off."""
    h, w = kspace.shape[1:]
    if h <= stored.CROP:
        return kspace
    rows = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=1), axis=1, norm="ortho"), axes=1)
    rows = grid.centre(rows, stored.CROP, w)
    return np.fft.fftshift(np.fft.fft(np.fft.ifftshift(rows, axes=1), axis=1, norm="ortho"), axes=1)


def _cut(kspace: np.ndarray, size: int) -> np.ndarray:
    """The central `size` x `size` frequencies of centred k-space `(n, c, h, w)`, zeros around where there are fewer."""
    n, c, h, w = kspace.shape
    return grid.centre(kspace.reshape(-1, h, w), size, size).reshape(n, c, size, size)


def _corner(kspace: np.ndarray) -> np.ndarray:
    """Centred k-space `(n, c, h, w)` of a centred image -> `fft2` of that image flipped along both axes.

    Flipped means frequency f becomes -f; with the centre of the image at pixel `side // 2` that leaves a phase. So zeros
    stay zeros.
    """
    flipped = np.roll(np.fft.ifftshift(kspace, axes=(-2, -1))[..., ::-1, ::-1], 1, (-2, -1))
    turns = [np.exp(2j * np.pi * np.arange(side) * (side // 2 + 1) / side) for side in kspace.shape[-2:]]
    return flipped * np.multiply.outer(*turns).astype(np.complex64)


def _given(path: Path, file: Any, shape: tuple[int, ...], index: list[int], settings: Settings) -> np.ndarray | None:
    """The file's own maps of some slices, if it has them, on the grid of the training images."""
    if "sensitivity_maps" not in file:
        return None
    found = stored.dataset(str(path), file, "sensitivity_maps")
    if found.dtype.kind != "c" or found.shape != shape:
        raise InputError(
            f"{path} must have complex `sensitivity_maps` of shape {shape} (slices, coils, h, w) as its k-space, got"
            f" {found.dtype} of shape {found.shape}."
        )
    _, c, h, w = shape
    if c != settings.coils or settings.whiten:
        raise InputError(
            f"{path} has `sensitivity_maps` of its own {c} coils, which fit no others: use `coils={c}` and `whiten=False`,"
            f" got `coils={settings.coils}` and `whiten={settings.whiten}`."
        )
    out = np.empty((len(index), c, settings.size, settings.size), np.complex64)
    for place, k in enumerate(index):
        maps = grid.centre(found[k], min(h, stored.CROP), w)[:, ::-1, ::-1]
        check_finite(str(path), k, maps)
        maps = grid.resample(maps.real, *out.shape[2:]) + 1j * grid.resample(maps.imag, *out.shape[2:])
        length = np.linalg.norm(maps, axis=0)
        out[place] = maps / np.where(length > 1e-3 * length.max(), length, np.inf)
    return out
