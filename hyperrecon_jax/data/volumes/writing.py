"""Write a reconstruction as a PNG, `.npz` or NIfTI file that carries its metadata."""

import gzip
import io
import json
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes.reading import Volume, crop, shift
from hyperrecon_jax.runtime.errors import InputError


def png(image: np.ndarray, *, window: float, level: float, text: Mapping[str, str]) -> bytes:
    """An image as an 8-bit gray PNG.

    Args:
        image: `(h, w)`, real.
        window: width of the range of values from black to white, above 0.
        level: the middle of that range.
        text: metadata, written as tEXt chunks (iTXt where Latin-1 lacks a character); keys of 1 to 79 Latin-1 characters.

    Raises:
        InputError: if an argument is not as above.
    """
    from PIL import Image, PngImagePlugin

    image = _check_real("image", image)
    if image.ndim != 2 or not image.size:
        raise InputError(f"`image` must have shape (h, w), got {image.shape}.")
    if not (math.isfinite(window) and window > 0):
        raise InputError(f"`window` must be a finite number above 0, got {window!r}.")
    if not math.isfinite(level):
        raise InputError(f"`level` must be a finite number, got {level!r}.")
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        if not (isinstance(key, str) and 1 <= len(key) <= 79 and key.isprintable() and max(key) <= "\xff"):
            raise InputError(f"`text` must have keys of 1 to 79 printable Latin-1 characters, got {key!r}.")
        if not isinstance(value, str) or "\0" in value:
            raise InputError(f"`text[{key!r}]` must be a string without the character 0, got {value!r}.")
        chunks.add_text(key, value)
    gray = np.clip((image.astype(np.float64) - level) / window + 0.5, 0, 1)
    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * gray).astype(np.uint8)).save(stream, "PNG", pnginfo=chunks)
    return stream.getvalue()


def npz(images: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """A `.npz` archive of the array `image` and the JSON string `metadata`; a `.npy` file cannot hold both.

        with np.load("out.npz") as file:
            images, metadata = file["image"], json.loads(str(file["metadata"]))

    Raises:
        InputError: if `images` are no numbers, or JSON cannot hold `metadata`.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "biufc":
        raise InputError(f"`images` must be an array of numbers, got {images.dtype}.")
    stream = io.BytesIO()
    np.savez_compressed(stream, image=images, metadata=np.array(_to_json("metadata", metadata)))
    return stream.getvalue()


def nifti(volume: Volume, index: int | None, image: np.ndarray, text: Mapping[str, Any]) -> bytes:
    """The reconstruction of a slice as a `.nii.gz` file, in the units of the original file and at the slice's position.

    The padding of images is cut off. The array is float32, `(rows, columns, 1)` with the affine of that slice. If
    `volume.space` is 0, position and direction are not known, and the file claims none (sform and qform codes 0). Its
    array is then `(columns, rows, 1)`, rows from the bottom up, so that viewers show it upright.

    Args:
        volume: the original file, as `read` gives it.
        index: index of the slice; None for all slices.
        image: `(h, w)` of the size of `volume.slices`, in their units, real; `(n, h, w)` if `index` is None.
        text: metadata, written as JSON in a header extension of the kind "comment".

    Raises:
        InputError: if `index` or `image` does not fit the volume, or JSON cannot hold `text`.
    """
    import nibabel

    n = len(volume.slices)
    if index is not None and not (isinstance(index, numbers.Integral) and 0 <= index < n):
        raise InputError(f"`index` must be None or a whole number from 0 to {n - 1}, got {index!r}.")
    image = _check_real("image", image)
    expected = (*([n] if index is None else []), *volume.slices.shape[-2:])
    if image.shape != expected:
        raise InputError(f"`image` must have shape {expected}, got {image.shape}.")

    (low, high), affine = volume.scale, volume.affine
    # every viewer reads 32 bits, but some units are beyond their range
    dtype = np.float32 if 1e-30 < max(abs(low), abs(high)) < 1e37 else np.float64
    values = np.asarray(low + crop(volume, image).astype(np.float64) * (high - low), dtype)
    values = np.atleast_3d(values if index is not None else values.transpose(1, 2, 0))

    file: Any
    if affine is not None and volume.space:
        slice_affine = affine @ shift(*volume.corner, index or 0)
        file = nibabel.Nifti1Image(values, slice_affine)
        file.set_sform(slice_affine, volume.space)
        file.set_qform(slice_affine, volume.space)
    else:
        file = nibabel.Nifti1Image(values[::-1].transpose(1, 0, 2), None)
        if affine is not None:
            row, column, step = np.linalg.norm(affine[:3, :3], axis=0)
            file.header.set_zooms((column, row, step))
    file.header["descrip"] = f"hyperrecon_jax, {f'slice {index} of' if index is not None else 'all of'} {n}".encode()
    file.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", _to_json("text", text).encode()))
    return gzip.compress(file.to_bytes(), mtime=0)  # the same bytes for the same image


def _check_real(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must hold real numbers, got {array.dtype}.")
    if not np.isfinite(array).all():
        raise InputError(f"`{name}` must hold finite numbers, but it has NaN or infinity.")
    return array


def _to_json(name: str, metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must be what JSON can hold: {error}.") from error
