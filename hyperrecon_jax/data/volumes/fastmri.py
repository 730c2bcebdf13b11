"""fastMRI's HDF5: its reconstructions, or images of its k-space, or that k-space itself."""

import io
import math
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes.stack import MAX_COILS, MAX_PIXELS, Stack, check_coils, check_finite, check_size, wide
from hyperrecon_jax.runtime.errors import InputError

CROP = 320  # side of fastMRI's images, cut from the middle of the oversampled field of view


def read(where: str, content: bytes, kind: str) -> Stack:
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        notes = []
        acquisition = file.attrs.get("acquisition")
        if isinstance(acquisition, str) and acquisition.isprintable() and len(acquisition) < 80:
            notes.append(f"acquisition {acquisition}")
        reconstruction = next((key for key in ("reconstruction_esc", "reconstruction_rss") if key in file), None)
        if kind == "image" and reconstruction:
            found = dataset(where, file, reconstruction)
            if found.ndim != 3:
                raise InputError(f"{where} must have `{reconstruction}` of shape (slices, h, w), got {found.shape}.")
            check_size(where, *found.shape)
            return Stack(found[()], [*notes, f"its `{reconstruction}`"])

        if "kspace" not in file:
            wanted = "`kspace`" if kind == "kspace" else "`reconstruction_esc`, `reconstruction_rss` or `kspace`"
            listed = ", ".join(sorted(file)[:8]) or "nothing"
            raise InputError(f"{where} must be a fastMRI file with {wanted}, got one with {listed}.")
        found, (n, c, h, w) = kspace(where, file)
        if kind == "kspace":
            check_coils(where, n, c, h, w)
            return Stack(found[()].reshape((n, h, w) if c == 1 else (n, c, h, w)), notes)

        stored = found[()] if found.size <= MAX_PIXELS else found
        rows, columns = min(h, CROP), min(w, CROP)
        top, left = (h - rows) // 2, (w - columns) // 2
        images = np.empty((n, rows, columns), np.float64)
        for k in range(n):
            one = wide(stored[k]).reshape(c, h, w)
            check_finite(where, k, one)
            one = np.fft.ifftshift(one, axes=(1, 2))
            image = np.fft.fftshift(np.linalg.norm(np.fft.ifft2(one, norm="ortho"), axis=0))
            images[k] = image[top : top + rows, left : left + columns]
    combined = f", the root of the sum of squares of {c} coils" if c > 1 else ""
    cut = f", the middle of {h} x {w} pixels" if (rows, columns) != (h, w) else ""
    return Stack(images, [*notes, f"the magnitude of the inverse transform of its k-space{combined}{cut}"])


def kspace(where: str, file: Any) -> tuple[Any, tuple[int, int, int, int]]:
    """The stored k-space, not yet read, and how many slices, coils, rows and columns it has."""
    found = dataset(where, file, "kspace")
    if found.dtype.kind != "c" or found.ndim not in (3, 4):
        raise InputError(
            f"{where} must have complex `kspace` of shape (slices, h, w) or (slices, coils, h, w), got {found.dtype}"
            f" of shape {found.shape}."
        )
    n, *coils, h, w = found.shape
    c = coils[0] if coils else 1
    check_size(where, n, h, w)
    if not 1 <= c <= MAX_COILS or found.size > 4 * MAX_PIXELS:
        raise InputError(
            f"{where} must have `kspace` of 1 to {MAX_COILS} coils and at most {4 * MAX_PIXELS} numbers, got"
            f" {c} coils and {found.size}."
        )
    # It may be read slice by slice, unless a slice cannot be had without decompressing others.
    if found.size > MAX_PIXELS and found.chunks and found.chunks[0] > 1:
        raise InputError(f"{where} must have `kspace` in chunks of one slice as it is large, got {found.chunks}.")
    return found, (n, c, h, w)


def dataset(where: str, file: Any, key: str) -> Any:
    """Numbers that are in the file itself: HDF5 can name any other file of this machine as the place of its data."""
    import h5py

    found = file[key] if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise InputError(f"{where} must have `{key}` as a dataset in the file itself, not a group or a link.")
    if found.dtype.kind not in "iufc" or found.shape is None:
        raise InputError(f"{where} must have numbers as `{key}`, got {found.dtype}.")
    if found.chunks and math.prod(found.chunks) > MAX_PIXELS:
        raise InputError(f"{where} must have `{key}` in chunks of at most {MAX_PIXELS} numbers, got {found.chunks}.")
    return found
