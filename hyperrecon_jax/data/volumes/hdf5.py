"""HDF5 files: fastMRI's images and k-space, and the k-space of ISMRMRD files and of MATLAB 7.3.

`data/sources/fastmri_file.py` reads the same files from disk for training, and uses `read_scan` and `dataset` here.
"""

import io
import math
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes import ismrmrd
from hyperrecon_jax.data.volumes.field_of_view import MAX_HEADER, find_field_of_view, read_encoding
from hyperrecon_jax.data.volumes.memory_limit import check_memory
from hyperrecon_jax.data.volumes.scan import (
    MASKED,
    Scan,
    complex_fields,
    explain_no_truth,
    match_images,
    pixel_affine,
    require_truth,
    to_complex,
    to_images,
    to_kspace,
)
from hyperrecon_jax.data.volumes.stack import MAX_COILS, MAX_PIXELS, Stack, check_size
from hyperrecon_jax.runtime.errors import InputError

RECONSTRUCTIONS = ("reconstruction_esc", "reconstruction_rss")  # the first that a file has are its images


def read(file_name: str, content: bytes, kind: str) -> Stack:
    """The slices of a file; `file_name` is its name and `kind` is "image" or "kspace", see `reading.read`.

    K-space that is no truth stays k-space, whatever the kind.
    """
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        reconstruction, no_truth = find_reconstruction(file), explain_images_no_truth(file_name, file)
        if kind == "image" and reconstruction and not no_truth:
            return read_reconstruction(file_name, file, reconstruction)
        if not has_kspace(file):
            if kind == "image" and reconstruction:
                require_truth(file_name, no_truth)
            expected = "`kspace`" if kind == "kspace" else "`reconstruction_esc`, `reconstruction_rss` or `kspace`"
            names = ", ".join(sorted(file)[:8]) or "nothing"
            raise InputError(f"{file_name} must be a fastMRI file with {expected}, got one with {names}.")
        scan = read_scan(file_name, file)
        return to_kspace(file_name, scan) if kind == "kspace" or scan.no_truth else to_images(file_name, scan)


def explain_images_no_truth(file_name: str, file: Any) -> str:
    """Why the images of an open file are no truth, as in `Scan`; "" if nothing says that its k-space is under-sampled."""
    if "mask" in file:
        return MASKED
    try:
        return read_scan(file_name, file).no_truth if has_kspace(file) else ""
    except InputError:  # k-space that cannot be read says nothing about the images
        return ""


def find_reconstruction(file: Any) -> str | None:
    """The name of the images of a fastMRI file; None if it has none."""
    return next((key for key in RECONSTRUCTIONS if key in file), None)


def has_kspace(file: Any) -> bool:
    """Whether an open file has k-space."""
    return "kspace" in file or ismrmrd.find_group(file) is not None


def read_scan(file_name: str, file: Any) -> Scan:
    """The k-space of an open file that has some (`has_kspace`). That of fastMRI is read slice by slice while it is open.

    Raises:
        InputError: if it is too large or of another shape or type.
    """
    if "kspace" not in file:
        return ismrmrd.read_scan(file_name, file)
    stored, shape = _open_kspace(file_name, file)
    reconstruction = find_reconstruction(file)
    images = None if reconstruction is None else dataset(file_name, file, reconstruction)
    field = find_field_of_view(shape[2:], header=read_header(file), images=None if images is None else images.shape[-2:])
    values = stored[()] if stored.chunks and stored.chunks[0] > 1 else stored  # chunks of several slices: decompress once

    def read_slice(k: int) -> np.ndarray:
        return to_complex(np.asarray(values[k])).reshape(shape[1:])

    def read_maps(k: int) -> np.ndarray:
        maps = dataset(file_name, file, "sensitivity_maps")
        if maps.dtype.kind != "c" or maps.shape != shape:
            raise InputError(
                f"{file_name} must have complex `sensitivity_maps` of shape {shape} (slices, coils, h, w) as its k-space,"
                f" got {maps.dtype} of shape {maps.shape}."
            )
        return np.asarray(maps[k])

    has_maps = "sensitivity_maps" in file
    scan = Scan(read_slice, shape, field, "", _acquisition_notes(file), read_maps if has_maps else None)
    if images is not None and images.ndim == 3 and not field.is_metric and images.shape[2] < shape[3]:
        scan = match_images(scan, images)
    return scan._replace(no_truth=explain_no_truth(scan, has_mask="mask" in file))


def image_affine(file: Any) -> np.ndarray | None:
    """The affine of the images of an open fastMRI file, from its header; None without one."""
    field = read_encoding(read_header(file))
    if field is None or field.matrix is None:
        return None
    height, width = (length / side for length, side in zip(field.image, field.matrix, strict=True))
    return pixel_affine((height, width), is_metric=True)


def read_header(file: Any) -> str:
    """The ISMRMRD header of a fastMRI file; "" if it has none."""
    import h5py

    stored = file["ismrmrd_header"] if isinstance(file.get("ismrmrd_header", getlink=True), h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset) or stored.shape != () or stored.external or stored.dtype.itemsize > MAX_HEADER:
        return ""
    text = stored[()]
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def read_reconstruction(file_name: str, file: Any, key: str) -> Stack:
    """The images of an open fastMRI file, which have the name `key`."""
    stored = dataset(file_name, file, key)
    if stored.ndim != 3:
        raise InputError(f"{file_name} must have `{key}` of shape (slices, h, w), got {stored.shape}.")
    check_size(file_name, *stored.shape)
    check_memory(file_name, stored.size, stored.dtype)
    affine = image_affine(file)
    notes = [*_acquisition_notes(file), f"its `{key}`"]
    return Stack(stored[()], notes, affine=affine, is_metric=affine is not None)


def _acquisition_notes(file: Any) -> list[str]:
    acquisition = file.attrs.get("acquisition")
    is_short = isinstance(acquisition, str) and acquisition.isprintable() and len(acquisition) < 80
    return [f"acquisition {acquisition}"] if is_short else []


def _open_kspace(file_name: str, file: Any) -> tuple[Any, tuple[int, int, int, int]]:
    """The dataset `kspace`, not yet read, and its numbers of slices, coils, rows and columns."""
    stored = dataset(file_name, file, "kspace")
    is_complex = stored.dtype.kind == "c" or complex_fields(stored.dtype) is not None
    if not is_complex or stored.ndim not in (3, 4):
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
    check_memory(file_name, stored.size, stored.dtype)
    return stored, (n, c, h, w)


def dataset(file_name: str, file: Any, key: str) -> Any:
    """A dataset of numbers inside an open file, or group of a file.

    Links and external data are refused, because an HDF5 file can name any other file of this machine as the place of its
    data.

    Raises:
        InputError: if there is no such dataset.
    """
    import h5py

    stored = file[key] if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset) or stored.external or stored.is_virtual:
        raise InputError(f"{file_name} must have `{key}` as a dataset in the file itself, not a group or a link.")
    if (stored.dtype.kind not in "iufc" and complex_fields(stored.dtype) is None) or stored.shape is None:
        raise InputError(f"{file_name} must have numbers as `{key}`, got {stored.dtype}.")
    if stored.chunks and math.prod(stored.chunks) > MAX_PIXELS:
        raise InputError(f"{file_name} must have `{key}` in chunks of at most {MAX_PIXELS} numbers, got {stored.chunks}.")
    return stored
