"""Open a fastMRI file (HDF5) and read its magnitude images, or its k-space slice by slice."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data import grid
from hyperrecon_jax.data.volumes import hdf5
from hyperrecon_jax.data.volumes.stack import brief, check_finite, check_size
from hyperrecon_jax.runtime.errors import InputError


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """The open HDF5 file. Any error inside becomes an `InputError`, because damaged files raise many kinds of errors."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path} must be a whole HDF5 file, but it cannot be read: {brief(error)}") from error


def text_attribute(attribute: Any) -> str:
    """An attribute of a file as text; "" if it is missing."""
    return attribute.decode(errors="replace") if isinstance(attribute, bytes) else str(attribute or "")


def read_images(path: Path) -> np.ndarray:
    """The central 320 x 320 pixels of the file's images, `(n, 320, 320)` float32 in [0, 1]."""
    with open_file(path) as file:
        key = next((key for key in ("reconstruction_esc", "reconstruction_rss") if key in file), None)
        images = _read_reconstruction(path, file, key) if key else _root_sum_of_squares(path, file)
    return images / peak(path, images)


def _read_reconstruction(path: Path, file: Any, key: str) -> np.ndarray:
    stored = hdf5.dataset(str(path), file, key)
    if stored.ndim != 3 or stored.dtype.kind == "c":
        raise InputError(
            f"{path} must have real `{key}` of shape (slices, h, w), got {stored.dtype} of shape {stored.shape}."
        )
    check_size(str(path), *stored.shape)
    with np.errstate(over="ignore"):  # `check_finite` names what is not finite
        images = stored[()].astype(np.float32)
    for k, image in enumerate(images):
        check_finite(str(path), k, image)
    if images.min() < 0:
        raise InputError(f"{path} must have magnitudes as `{key}`, but they start at {images.min():g}.")
    return grid.centre(images, hdf5.CROP, hdf5.CROP)


def _root_sum_of_squares(path: Path, file: Any) -> np.ndarray:
    """The images of all coils combined, for a file that has only k-space."""
    n = check_kspace(path, file)[0]
    images = np.empty((n, hdf5.CROP, hdf5.CROP), np.float32)
    for k in range(n):
        kspace = read_kspace_slice(path, file, k).astype(np.complex128)  # the squares of a scanner's numbers may be tiny
        coil_images = np.fft.ifft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho")
        image = np.fft.fftshift(np.linalg.norm(coil_images, axis=0))
        images[k] = grid.centre(image[None], hdf5.CROP, hdf5.CROP)[0]
    return images


def has_content(path: Path) -> np.ndarray:
    """Whether each slice of k-space has a value that is not zero, `(n,)` bool. Reads every value of the file."""
    with open_file(path) as file:
        return np.array([read_kspace_slice(path, file, k).any() for k in range(check_kspace(path, file)[0])])


def check_kspace(path: Path, file: Any) -> tuple[int, int, int, int]:
    """The numbers of slices, coils, rows and columns of the k-space.

    Raises:
        InputError: if the file has no k-space, or its k-space is under-sampled.
    """
    if "mask" in file:
        raise InputError(
            f"{path} must be fully sampled, but it has a `mask`: it is of a test or challenge set, under-sampled and"
            " without truth."
        )
    if "kspace" not in file:
        raise InputError(f"{path} must have `kspace`, got a file with {', '.join(sorted(file)[:8]) or 'nothing'}.")
    return hdf5.kspace(str(path), file)[1]


def read_kspace_slice(path: Path, file: Any, k: int) -> np.ndarray:
    """The k-space of slice k, `(c, h, w)` complex64; zero frequency and image are centred."""
    with np.errstate(over="ignore"):  # `check_finite` names what is not finite
        kspace = file["kspace"][k].astype(np.complex64)
    check_finite(str(path), k, kspace)
    return kspace.reshape(-1, *kspace.shape[-2:])


def peak(path: Path, images: np.ndarray) -> np.float32:
    """The largest value; 1 if all values are zero."""
    largest = images.max()
    if 0 < largest < np.finfo(np.float32).tiny or not np.isfinite(largest):
        raise InputError(f"{path} must hold numbers that float32 can hold, but the largest of its images is {largest:g}.")
    return largest or np.float32(1)
