"""fastMRI's HDF5 files, from bytes: the reconstructions, or images made of the k-space, or the k-space itself.

`data/sources/fastmri_file.py` reads the same files from disk for training, and uses `kspace` and `dataset` here.
"""

import io
import math
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes.stack import MAX_COILS, MAX_PIXELS, Stack, check_coils, check_finite, check_size, to_double
from hyperrecon_jax.runtime.errors import InputError

CROP = 320  # side of fastMRI's images, cut from the middle of the oversampled field of view


def read(file_name: str, content: bytes, kind: str) -> Stack:
    """The slices of a file; `file_name` is its name and `kind` is "image" or "kspace", see `reading.read`."""
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        notes = []
        acquisition = file.attrs.get("acquisition")
        if isinstance(acquisition, str) and acquisition.isprintable() and len(acquisition) < 80:
            notes.append(f"acquisition {acquisition}")
        reconstruction = next((key for key in ("reconstruction_esc", "reconstruction_rss") if key in file), None)
        if kind == "image" and reconstruction:
            stored = dataset(file_name, file, reconstruction)
            if stored.ndim != 3:
                raise InputError(f"{file_name} must have `{reconstruction}` of shape (slices, h, w), got {stored.shape}.")
            check_size(file_name, *stored.shape)
            return Stack(stored[()], [*notes, f"its `{reconstruction}`"])

        if "kspace" not in file:
            expected = "`kspace`" if kind == "kspace" else "`reconstruction_esc`, `reconstruction_rss` or `kspace`"
            names = ", ".join(sorted(file)[:8]) or "nothing"
            raise InputError(f"{file_name} must be a fastMRI file with {expected}, got one with {names}.")
        stored, (n, c, h, w) = kspace(file_name, file)
        if kind == "kspace":
            check_coils(file_name, n, c, h, w)
            return Stack(stored[()].reshape((n, h, w) if c == 1 else (n, c, h, w)), notes)
        images = _root_sum_of_squares(file_name, stored, (n, c, h, w))
    combined = f", the root of the sum of squares of {c} coils" if c > 1 else ""
    cropped = f", the middle of {h} x {w} pixels" if images.shape[1:] != (h, w) else ""
    return Stack(images, [*notes, f"the magnitude of the inverse transform of its k-space{combined}{cropped}"])


def _root_sum_of_squares(file_name: str, stored: Any, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The combined images of all coils, cropped to at most 320 x 320 pixels: `(n, rows, columns)` float64."""
    n, c, h, w = shape
    slices = stored[()] if stored.size <= MAX_PIXELS else stored  # a large file is read slice by slice
    rows, columns = min(h, CROP), min(w, CROP)
    top, left = (h - rows) // 2, (w - columns) // 2
    images = np.empty((n, rows, columns), np.float64)
    for k in range(n):
        coils = to_double(slices[k]).reshape(c, h, w)
        check_finite(file_name, k, coils)
        coils = np.fft.ifftshift(coils, axes=(1, 2))
        image = np.fft.fftshift(np.linalg.norm(np.fft.ifft2(coils, norm="ortho"), axis=0))
        images[k] = image[top : top + rows, left : left + columns]
    return images


def kspace(file_name: str, file: Any) -> tuple[Any, tuple[int, int, int, int]]:
    """The k-space of an open file, not yet read, and its numbers of slices, coils, rows and columns.

    Raises:
        InputError: if it is too large or of another shape or type.
    """
    stored = dataset(file_name, file, "kspace")
    if stored.dtype.kind != "c" or stored.ndim not in (3, 4):
        raise InputError(
            f"{file_name} must have complex `kspace` of shape (slices, h, w) or (slices, coils, h, w), got {stored.dtype}"
            f" of shape {stored.shape}."
        )
    n, *coils, h, w = stored.shape
    c = coils[0] if coils else 1
    check_size(file_name, n, h, w)
    if not 1 <= c <= MAX_COILS or stored.size > 4 * MAX_PIXELS:
        raise InputError(
            f"{file_name} must have `kspace` of 1 to {MAX_COILS} coils and at most {4 * MAX_PIXELS} numbers, got"
            f" {c} coils and {stored.size}."
        )
    # A large file is read slice by slice. That needs chunks of a slice each: otherwise a slice decompresses others, too.
    if stored.size > MAX_PIXELS and stored.chunks and stored.chunks[0] > 1:
        raise InputError(f"{file_name} must have `kspace` in chunks of one slice as it is large, got {stored.chunks}.")
    return stored, (n, c, h, w)


def dataset(file_name: str, file: Any, key: str) -> Any:
    """A dataset of numbers inside an open file.

    Links and external data are refused, because an HDF5 file can name any other file of this machine as the place of its
    data.

    Raises:
        InputError: if there is no such dataset.
    """
    import h5py

    stored = file[key] if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset) or stored.external or stored.is_virtual:
        raise InputError(f"{file_name} must have `{key}` as a dataset in the file itself, not a group or a link.")
    if stored.dtype.kind not in "iufc" or stored.shape is None:
        raise InputError(f"{file_name} must have numbers as `{key}`, got {stored.dtype}.")
    if stored.chunks and math.prod(stored.chunks) > MAX_PIXELS:
        raise InputError(f"{file_name} must have `{key}` in chunks of at most {MAX_PIXELS} numbers, got {stored.chunks}.")
    return stored
