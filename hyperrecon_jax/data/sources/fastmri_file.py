"""What fastMRI's files hold: magnitude images, or k-space slice by slice."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data.sources import grid
from hyperrecon_jax.data.volumes import fastmri as stored
from hyperrecon_jax.data.volumes.stack import brief, check_finite, check_size
from hyperrecon_jax.runtime.errors import InputError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Whatever HDF5 stumbles over in a damaged file is the file's fault; there is no list of what it raises."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path} must be a whole HDF5 file, but it cannot be read: {brief(error)}") from error


def text(attribute: Any) -> str:
    return attribute.decode(errors="replace") if isinstance(attribute, bytes) else str(attribute or "")


def magnitudes(path: Path) -> np.ndarray:
    """The central 320 x 320 pixels of the file's images, `(n, 320, 320)` float32 in [0, 1]."""
    with opened(path) as file:
        key = next((key for key in ("reconstruction_esc", "reconstruction_rss") if key in file), None)
        images = _reconstruction(path, file, key) if key else _root_sum_of_squares(path, file)
    return images / peak(path, images)


def _reconstruction(path: Path, file: Any, key: str) -> np.ndarray:
    found = stored.dataset(str(path), file, key)
    if found.ndim != 3 or found.dtype.kind == "c":
        raise InputError(
            f"{path} must have real `{key}` of shape (slices, h, w), got {found.dtype} of shape {found.shape}."
        )
    check_size(str(path), *found.shape)
    with np.errstate(over="ignore"):  # `check_finite` names what is not finite
        images = found[()].astype(np.float32)
    for k, image in enumerate(images):
        check_finite(str(path), k, image)
    if images.min() < 0:
        raise InputError(f"{path} must have magnitudes as `{key}`, but they start at {images.min():g}.")
    return grid.centre(images, stored.CROP, stored.CROP)


def _root_sum_of_squares(path: Path, file: Any) -> np.ndarray:
    """The images of all coils as one, where the file has k-space alone."""
    n = kspace_shape(path, file)[0]
    images = np.empty((n, stored.CROP, stored.CROP), np.float32)
    for k in range(n):
        kspace = kspace_slice(path, file, k).astype(np.complex128)  # the squares of a scanner's numbers may be tiny
        each = np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho")
        image = np.fft.fftshift(np.linalg.norm(each, axis=0))
        images[k] = grid.centre(image[None], stored.CROP, stored.CROP)[0]
    return images


def content(path: Path) -> np.ndarray:
    """Which slices of k-space are not all zero, `(n,)`; looks at every value of the file."""
    with opened(path) as file:
        return np.array([kspace_slice(path, file, k).any() for k in range(kspace_shape(path, file)[0])])


def kspace_shape(path: Path, file: Any) -> tuple[int, int, int, int]:
    """Slices, coils, rows and columns of the k-space, which is there and fully sampled."""
    if "mask" in file:
        raise InputError(
            f"{path} must be fully sampled, but it has a `mask`: it is of a test or challenge set, under-sampled and"
            " without truth."
        )
    if "kspace" not in file:
        raise InputError(f"{path} must have `kspace`, got a file with {', '.join(sorted(file)[:8]) or 'nothing'}.")
    return stored.kspace(str(path), file)[1]


def kspace_slice(path: Path, file: Any, k: int) -> np.ndarray:
    """One slice, `(c, h, w)` complex64, zero frequency and image centred."""
    with np.errstate(over="ignore"):  # `check_finite` names what is not finite
        kspace = file["kspace"][k].astype(np.complex64)
    check_finite(str(path), k, kspace)
    return kspace.reshape(-1, *kspace.shape[-2:])


def peak(path: Path, images: np.ndarray) -> np.float32:
    """The largest value; 1 where all are zero."""
    largest = images.max()
    if 0 < largest < np.finfo(np.float32).tiny or not np.isfinite(largest):
        raise InputError(f"{path} must hold numbers that float32 can hold, but the largest of its images is {largest:g}.")
    return largest or np.float32(1)
