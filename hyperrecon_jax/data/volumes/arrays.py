"""Read `.npy` and `.npz` files."""

import io
import math
import zipfile
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes.memory_limit import check_memory
from hyperrecon_jax.data.volumes.scan import Scan, complex_fields, make_scan, read_complex, to_complex
from hyperrecon_jax.data.volumes.stack import NoImageError, Stack, check_coils, check_length, check_size, type_unit
from hyperrecon_jax.runtime.errors import InputError


def read(file_name: str, content: bytes, kind: str = "image") -> Stack:
    """The array of a file, or of an archive: the only one, else the one of the name `image` or `kspace`.

    Complex values become k-space if `kind` is "kspace", or if they look like it (`scan.looks_like_kspace`). They may be of
    several coils, `(n, c, h, w)`; complex images of coils become the root of their sum of squares.

    Args:
        file_name: for messages.
        content: the file.
        kind: "image" or "kspace".
    """
    raw, has_mask = _read_raw(file_name, content, kind)
    if not np.iscomplexobj(raw):
        return Stack(raw, [], unit=type_unit(raw.dtype))
    stack = read_complex(file_name, _make_scan(file_name, raw, has_mask), kind)
    return stack._replace(unit=type_unit(raw.dtype))


def read_scan(file_name: str, content: bytes) -> Scan:
    """The k-space of a file or archive, as `read` finds it; raises `InputError` if its numbers are real."""
    raw, has_mask = _read_raw(file_name, content, "kspace")
    if not np.iscomplexobj(raw):
        raise InputError(f"{file_name} must hold complex numbers to be k-space, got {raw.dtype}.")
    return _make_scan(file_name, raw, has_mask)


def _make_scan(file_name: str, raw: np.ndarray, has_mask: bool) -> Scan:
    n, *coils, h, w = raw.shape
    return make_scan(file_name, raw.reshape(n, *(coils or [1]), h, w), has_mask=has_mask)


def _read_raw(file_name: str, content: bytes, kind: str) -> tuple[np.ndarray, bool]:
    """The array as slices, and whether the archive also has a mask."""
    if not content.startswith(b"PK"):
        return _read_array(file_name, io.BytesIO(content), kind == "kspace"), False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if not names:  # documents of office programs are archives, too
            raise NoImageError(
                f"{file_name} must hold an array, but it is an archive without one.", "an archive without arrays"
            )
        standard = [name for name in (f"{kind}.npy", "image.npy", "kspace.npy") if name in names]
        if len(names) != 1 and not standard:
            array_names = ", ".join(n.removesuffix(".npy") for n in names[:8])
            raise InputError(f"{file_name} must hold one array, or one of the name `image` or `kspace`, got {array_names}.")
        with archive.open(names[0] if len(names) == 1 else standard[0]) as stream:
            return _read_array(file_name, stream, kind == "kspace"), "mask.npy" in names


def _read_array(file_name: str, stream: Any, coils: bool) -> np.ndarray:
    """The array of a `.npy` file. Checks its header first, then reads only as many bytes as the header says."""
    start = io.BytesIO(stream.read(2**16))  # a header may claim any length, but numpy takes none that is longer
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):  # 3.0 is for fields with names
        raise InputError(f"{file_name} must be a .npy file of version 1.0 or 2.0, got {'.'.join(map(str, version))}.")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(start)
    is_complex = dtype.kind == "c" or complex_fields(dtype) is not None
    if dtype.kind not in "biuf" and not is_complex:
        raise InputError(f"{file_name} must hold an array of numbers, got {dtype}.")
    layout = _layout(file_name, shape, coils or is_complex)
    n, *_, h, w = layout
    check_size(file_name, n, h, w)
    if len(layout) == 4:
        check_coils(file_name, *layout)
    count = math.prod(layout)
    check_memory(file_name, count, dtype)
    stream.seek(start.tell())
    stored = stream.read(count * dtype.itemsize + 1)  # one byte more: at the end an archive's checksum is compared
    check_length(file_name, len(stored), count * dtype.itemsize)
    raw = np.frombuffer(stored, dtype, count).reshape(shape, order="F" if fortran else "C")
    return to_complex(raw.reshape(layout))


def _layout(file_name: str, shape: tuple[int, ...], coils: bool) -> tuple[int, ...]:
    """The shape of an array as slices: `(n, h, w)`, or `(n, c, h, w)` where it may be of several coils."""
    if len(shape) == 4 and shape[3] == 1:
        return shape[:3]
    if len(shape) == 4 and shape[1] == 1:
        return (shape[0], *shape[2:])
    if len(shape) == 2:
        return (1, *shape)
    if len(shape) == 3 or (len(shape) == 4 and coils):
        return shape
    coils_shape = " or, of coils, (n, c, h, w)" if coils else ""
    raise InputError(
        f"{file_name} must have shape (h, w), (n, h, w), (n, h, w, 1) or (n, 1, h, w){coils_shape}, got {shape}."
    )
