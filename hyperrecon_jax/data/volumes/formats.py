"""Recognise the format of a file and read its slices. NIfTI and MGH are read here."""

import contextlib
import gzip
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes import arrays, bart, dicom, geometry, hdf5, matlab, pictures, placement, scan
from hyperrecon_jax.data.volumes.memory_limit import check_memory
from hyperrecon_jax.data.volumes.stack import NoImageError, Stack, brief, check_length, check_size, describe_frame
from hyperrecon_jax.runtime.errors import InputError

_MAX_HEADER = 2**26  # bytes before the voxels of a NIfTI file: header and extensions
KSPACE_FORMATS = ("npy", "npz", "h5", "mat", "bart")
_CHUNK = 2**20  # bytes of a volume that is passed over
_GZIP = b"\x1f\x8b"
_NAMES = {
    "npy": ".npy",
    "npz": ".npz",
    "picture": "PNG, JPEG or TIFF",
    "nifti": "NIfTI",
    "mgh": "MGH",
    "dicom": "DICOM",
    "h5": "HDF5",
    "mat": "MATLAB",
    "bart": "BART",
}
EXTENSIONS = {
    "npy": (".npy",),
    "npz": (".npz",),
    "picture": (".png", ".jpg", ".jpeg", ".tif", ".tiff"),
    "nifti": (".nii", ".nii.gz"),
    "mgh": (".mgh", ".mgz", ".mgh.gz"),
    "dicom": (".dcm", ".dicom", ".ima"),  # written without the preamble by old devices
    "h5": (".h5", ".hdf5"),
    "mat": (".mat",),
    "bart": (".cfl",),
}


def decode(name: str, content: bytes, kind: str, *, plane: str = geometry.ACQUIRED) -> Stack:
    """The slices of a file; `reading.read` describes each format.

    Args:
        name, content, plane: those of `read`.
        kind: "image" or "kspace". Images of k-space are magnitudes.

    Raises:
        InputError: if the file is empty, damaged, of another format, too large or too small, or has no such plane; if
            images are asked for, and it holds k-space that is under-sampled; `NoImageError` if it holds no image.
    """
    stack = decode_as_stored(name, content, kind, plane=plane)
    return scan.to_magnitudes(name, stack) if kind == "image" else stack


def decode_as_stored(name: str, content: bytes, kind: str, *, plane: str = geometry.ACQUIRED, frame: int = 0) -> Stack:
    """As `decode`, but a file that holds no images stays k-space, whatever the kind.

    Of a file of several volumes it is the volume `frame`; of an index that is too large, any volume (`Stack.frames`).
    """
    geometry.check_plane(plane)
    form = format_of(name, content)
    if kind == "kspace":
        _check_holds_kspace(name, form)
    with _name_damaged_file(name, _NAMES[form]):
        if form in ("nifti", "mgh"):
            return _read_nibabel(name, content, plane, frame)
        if form == "h5":
            stack = hdf5.read(name, content, kind)
        elif form in ("npy", "npz"):
            stack = arrays.read(name, content, kind)
        elif form in ("mat", "bart"):
            stack = _read_scan_or_images(name, content, form, kind)
        elif form == "dicom":
            stack = dicom.read(name, content, frame)
        else:
            stack = pictures.read(name, content)
        return stack if stack.kind == "kspace" else geometry.arrange_stack(name, stack, plane)


def decode_scan(name: str, content: bytes) -> scan.Scan:
    """The k-space of a file that is no HDF5 file, which `hdf5.read_scan` reads.

    Args:
        name, content: as in `decode`.

    Raises:
        InputError: as `decode`, or if the file holds no k-space.
    """
    form = format_of(name, content)
    _check_holds_kspace(name, form)
    with _name_damaged_file(name, _NAMES[form]):
        if form == "bart":
            return bart.read(name, content, "kspace")
        if form != "mat":
            return arrays.read_scan(name, content)
        stored = matlab.read(name, content, "kspace")
        if isinstance(stored, Stack):
            raise InputError(f"{name} must hold complex numbers to be k-space, got {stored.raw.dtype}.")
        return stored


def _read_scan_or_images(file_name: str, content: bytes, form: str, kind: str) -> Stack:
    """The k-space of a MATLAB or BART file, or its images."""
    stored = (matlab.read if form == "mat" else bart.read)(file_name, content, kind)
    return stored if isinstance(stored, Stack) else scan.read_complex(file_name, stored, kind)


def _check_holds_kspace(file_name: str, form: str) -> None:
    """Raises `InputError` if files of a format hold no k-space."""
    if form not in KSPACE_FORMATS:
        raise InputError(
            f"{file_name} must be a .npy, .npz, .h5, .mat or BART file to hold k-space, but it is a {_NAMES[form]} file."
        )


def format_of(file_name: str, content: bytes) -> str:
    """The format of a file: one of `EXTENSIONS`, such as "npy" or "dicom".

    Args:
        file_name: name of the file, for its extension where the first bytes do not show the format, and for messages.
        content: the file, or its first 64 KiB.

    Raises:
        InputError: if the file is empty or of another format.
    """
    if not content:
        raise NoImageError(f"{file_name} must be an image file, but it is empty.", "an empty file")
    if content[128:132] == b"DICM":  # first: what precedes it may be the head of a TIFF
        return "dicom"
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")) and bart.is_archive(content):
        return "bart"
    for form, *heads in (
        ("mat", b"MATLAB "),
        ("npy", b"\x93NUMPY"),
        ("npz", b"PK\x03\x04", b"PK\x05\x06"),
        ("picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        ("h5", b"\x89HDF\r\n\x1a\n"),
    ):
        if content.startswith(tuple(heads)):
            return form
    head = content[:540]
    if content.startswith(_GZIP):
        with _name_damaged_file(file_name, "gzip"), gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            head = stream.read(540)
    if file_name.lower().endswith(".hdr") and head.startswith(b"# "):
        raise InputError(f"{file_name} {bart.PAIR}.")
    if head[344:347] == b"n+1" or head[4:7] == b"n+2":
        return "nifti"
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise InputError(
            f"{file_name} must be a NIfTI file of one piece (.nii), but it is the header of one of two (.hdr, .img)."
        )
    if head.startswith(b"\0\0\0\1"):
        return "mgh"
    for form, endings in EXTENSIONS.items():
        if file_name.lower().endswith(endings):
            return form
    raise InputError(
        f"{file_name} must be a .npy, .npz, PNG, JPEG, TIFF, NIfTI, MGH, DICOM or fastMRI .h5 file, or hold k-space: .mat,"
        " ISMRMRD .h5, or BART's .cfl and .hdr in one .zip file."
    )


@contextlib.contextmanager
def _name_damaged_file(file_name: str, form: str) -> Iterator[None]:
    """Turn any error of a decoder into an `InputError`: damaged files raise many kinds of errors, and there is no list."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{file_name} must be a whole {form} file, but it cannot be read: {brief(error)}") from error


def _read_nibabel(file_name: str, content: bytes, plane: str, frame: int) -> Stack:
    """The slices of a NIfTI or MGH file. nibabel reads the header; of the voxels only one volume is read."""
    stream: Any = gzip.GzipFile(fileobj=io.BytesIO(content)) if content.startswith(_GZIP) else io.BytesIO(content)
    head = stream.read(540)
    header = _nibabel_header(file_name, head)
    shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(f"{file_name} must hold a volume of three dimensions, got shape {shape}.")
    volume_shape = (*shape, 1)[:3]
    if dtype.kind not in "iufc":
        raise InputError(f"{file_name} must hold one number a voxel, got the data type {dtype}.")
    affine, space, notes = _nibabel_affine(header, head)
    view = geometry.choose_view(affine, volume_shape, plane)
    h, w, n = (volume_shape[axis] for axis in view.axes)
    check_size(file_name, n, h, w, what=f"{view.plane} slices")
    check_memory(file_name, math.prod(volume_shape), dtype)
    # as the NIfTI library, which takes an offset inside of the header, such as 0, for none
    offset = header.get_data_offset()
    offset = max(int(offset), getattr(header, "single_vox_offset", 0)) if offset >= 0 else int(offset)
    frames = math.prod(shape) // math.prod(volume_shape)
    frame = min(frame, frames - 1)
    voxels = _read_voxels(file_name, stream, head, volume_shape, dtype, offset, frame)
    slope, intercept = header.get_slope_inter()
    notes = [f"{view.plane} slices along the file's {('first', 'second', 'third')[view.axes[2]]} axis", *notes]
    if frames > 1:
        notes.append(describe_frame(frame, frames))
    return Stack(
        geometry.arrange(voxels, view).transpose(2, 0, 1),
        notes,
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        affine=geometry.arrange_affine(affine, volume_shape, view),
        space=space,
        is_metric=_is_metric(header, bool(space)),
        frames=frames,
    )


def _is_metric(header: Any, is_placed: bool) -> bool:
    """Whether a NIfTI or MGH file gives lengths in mm. If it names no unit, they are, where it also says how it lies."""
    import nibabel

    if not isinstance(header, nibabel.Nifti1Header):
        return is_placed
    unit = header.get_xyzt_units()[0]
    return unit == "mm" or (unit == "unknown" and is_placed)


def _nibabel_affine(header: Any, head: bytes) -> tuple[np.ndarray, int, list[str]]:
    """The affine of a NIfTI or MGH file, the code of its space, and notes."""
    import nibabel

    if isinstance(header, nibabel.Nifti1Header):
        return placement.nifti_affine(header)
    affine, is_placed = np.asarray(header.get_best_affine(), np.float64), any(head[28:30])  # nibabel changes goodRASFlag
    if not (np.isfinite(affine).all() and placement.is_invertible(affine)):
        return np.diag([-1.0, 1.0, 1.0, 1.0]), 0, [placement.UNPLACED]
    return affine, int(is_placed), [] if is_placed else [placement.UNPLACED]


def _nibabel_header(file_name: str, head: bytes) -> Any:
    """The header of a NIfTI or MGH file, from its first 540 bytes."""
    import nibabel

    if head[344:347] == b"n+1":
        return nibabel.Nifti1Header(head[:348])
    if head[4:7] == b"n+2":
        return nibabel.Nifti2Header(head)
    if head.startswith(b"\0\0\0\1"):
        return nibabel.freesurfer.MGHImage.header_class(head)
    raise InputError(f"{file_name} must be a NIfTI or MGH file, but it does not start like one.")


def _read_voxels(
    file_name: str, stream: Any, head: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, frame: int
) -> np.ndarray:
    """A volume of a file, of which `head` has been read from `stream`; those before it are not kept in memory."""
    if not 0 <= offset <= _MAX_HEADER:
        raise InputError(f"{file_name} must have voxels that start within {_MAX_HEADER} bytes, got {offset}.")
    count = math.prod(shape)
    start = offset + frame * count * dtype.itemsize
    end = start + count * dtype.itemsize
    content, skipped = head, 0
    while len(content) and skipped + len(content) <= start:
        skipped += len(content)
        content = stream.read(min(_CHUNK, start - skipped) or _CHUNK)
    # one byte more than needed: at the end of the stream its checksum is compared
    content += stream.read(max(end + 1 - skipped - len(content), 0))
    check_length(file_name, skipped + len(content), end)
    return np.frombuffer(content, dtype, count, start - skipped).reshape(shape, order="F")
