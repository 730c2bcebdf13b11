"""K-space, or images, in MATLAB files (`.mat`): version 5 (by SciPy) and 7.3 (HDF5, axes reversed).

An array is `(h, w)`, `(h, w, coils)` or `(h, w, coils, slices)`, as MATLAB shows it, and k-space is centred. Real arrays
are images, and so are complex ones that do not look like k-space: `(h, w)` or `(h, w, slices)`.
"""

import io
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes import hdf5
from hyperrecon_jax.data.volumes.memory_limit import check_memory
from hyperrecon_jax.data.volumes.scan import Scan, looks_like_kspace, make_scan, to_complex
from hyperrecon_jax.data.volumes.stack import MAX_PIXELS, NoImageError, Stack, check_size, type_unit
from hyperrecon_jax.runtime.errors import InputError

NAMES = ("kspace", "ksp", "kdata", "k_space", "kspacedata", "rawdata", "data")  # the first that a file has, in any case


def read(file_name: str, content: bytes, kind: str) -> Scan | Stack:
    """The k-space of a file, or its images if the array is real. `kind` is "image" or "kspace".

    Raises:
        InputError: if it holds several arrays of numbers of which none has one of `NAMES`; `NoImageError` if it holds none,
            or is a text, as the matrices of FSL are.
    """
    if b"\0" not in content[:128] and not content.startswith(b"MATLAB "):
        raise NoImageError(f"{file_name} must be a MATLAB file, but it is a text.", "a text file")
    name, array, has_mask = (_read_hdf5 if b"\x89HDF\r\n\x1a\n" in content[:4096] else _read_version_5)(file_name, content)
    if not np.iscomplexobj(array):
        if array.ndim not in (2, 3):
            raise InputError(f"{file_name} must hold real images of shape (h, w) or (h, w, slices), got {array.shape}.")
        images = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
        check_size(file_name, *images.shape)
        return Stack(images, [f"its `{name}`"], unit=type_unit(images.dtype))
    if array.ndim not in (2, 3, 4):
        raise InputError(
            f"{file_name} must hold k-space of shape (h, w), (h, w, coils) or (h, w, coils, slices), got {array.shape}."
        )
    if array.ndim == 3 and kind == "image" and not looks_like_kspace(array.transpose(2, 0, 1)):
        array = array[:, :, None]  # slices, as of real images
    h, w, c, n = (*array.shape, 1, 1)[:4]
    notes = (f"its `{name}`", *([f"its third axis of {c} was taken as coils"] if c > 1 else []))
    return make_scan(file_name, array.reshape(h, w, c, n).transpose(3, 2, 0, 1), has_mask=has_mask, notes=notes)


def _read_version_5(file_name: str, content: bytes) -> tuple[str, np.ndarray, bool]:
    from scipy import io as scipy_io

    shapes = {name: shape for name, shape, _ in scipy_io.whosmat(io.BytesIO(content))}
    numeric = {name: shape for name, shape, kind in scipy_io.whosmat(io.BytesIO(content)) if _is_numeric(shape, kind)}
    name = _choose_name(file_name, numeric)
    if np.prod([int(side) for side in numeric[name]], dtype=object) > MAX_PIXELS:
        raise InputError(f"{file_name} must hold at most {MAX_PIXELS} numbers, got `{name}` of shape {numeric[name]}.")
    # the header does not say if they are complex
    check_memory(file_name, int(np.prod(numeric[name])), np.dtype(np.complex128))
    array = np.asarray(scipy_io.loadmat(io.BytesIO(content), variable_names=[name])[name])
    return name, array, _has_mask(shapes)


def _read_hdf5(file_name: str, content: bytes) -> tuple[str, np.ndarray, bool]:
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        shapes = {
            name: file[name].shape
            for name in file
            if isinstance(file.get(name, getlink=True), h5py.HardLink)
            and isinstance(file[name], h5py.Dataset)
            and file[name].ndim >= 2
        }
        name = _choose_name(file_name, {name: shape for name, shape in shapes.items() if min(shape) and max(shape) >= 8})
        stored = hdf5.dataset(file_name, file, name)
        if stored.size > MAX_PIXELS:
            raise InputError(f"{file_name} must hold at most {MAX_PIXELS} numbers, got `{name}` of shape {stored.shape}.")
        check_memory(file_name, stored.size, stored.dtype)
        return name, to_complex(stored[()]).T, _has_mask(shapes)


def _is_numeric(shape: tuple[int, ...], kind: str) -> bool:
    return len(shape) >= 2 and min(shape[:2]) >= 8 and kind not in ("char", "cell", "struct", "object", "sparse", "unknown")


def _choose_name(file_name: str, shapes: dict[str, Any]) -> str:
    """The array to read: one of `NAMES`, or the only one."""
    by_name = {name.lower(): name for name in shapes if not name.lower().endswith("mask")}
    for name in NAMES:
        if name in by_name:
            return by_name[name]
    expected = f"{file_name} must hold one array, or one of the name `kspace`"
    if not by_name:
        raise NoImageError(f"{expected}, got none of at least 8 x 8 numbers.", "a MATLAB file without images")
    if len(by_name) > 1:
        names = ", ".join(f"{name} {tuple(shapes[name])}" for name in list(by_name.values())[:8])
        raise InputError(f"{expected}, got {names}.")
    return next(iter(by_name.values()))


def _has_mask(shapes: dict[str, Any]) -> bool:
    return any(name.lower() == "mask" for name in shapes)
