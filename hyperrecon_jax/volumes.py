"""One image file that somebody has, read as a stack of slices for a network, and what came of it written back.

    volume = read("brain.nii.gz", content)
    ... a network makes `image` of `volume.slices[12]` ...
    content = nifti(volume, 12, image, {"lambda": 0.3})     # lies over brain.nii.gz, in its units

Files come as bytes, and from anyone: sizes are checked before pixels are decoded, nothing is unpickled, and a file that
is not what it should be raises `InputError`. The libraries of the formats are imported where they are used: they take
longer to load than all the rest here.
"""

import contextlib
import gzip
import io
import json
import math
import numbers
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.errors import InputError

MAX_PIXELS = 2**27  # of a volume: 512 slices of 512 x 512, 512 MiB as float32 and up to four times that while it is read
MIN_SIDE, MAX_SIDE = 8, 2048  # of a slice in the file, in pixels
MAX_COILS = 128
MULTIPLE = 8  # of which the sides of `Volume.slices` are multiples: the U-Net halves images three times
CROP = 320  # side of fastMRI's images, cut from the middle of the oversampled field of view
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue, by Rec. 601
_MAX_HEADER = 2**26  # bytes before the voxels of a NIfTI file: header and extensions
_GZIP = b"\x1f\x8b"


class Volume(NamedTuple):
    """Slices of one file, and what is needed to write one of them back to where it came from."""

    slices: np.ndarray  # (n, h, w), multiples of 8: float32 images in [0, 1], or complex64 k-space, see `read`
    kind: str  # "image" or "kspace"
    affine: np.ndarray | None  # (4, 4) float64: (row, column, slice, 1) of `slices` -> mm to the right, front and top
    scale: tuple[float, float]  # (low, high): value in the file = low + x * (high - low); low > high if it was inverted
    note: str  # one sentence for a person on what was done to the file
    space: int = 0  # what the mm of `affine` mean, as NIfTI codes it; 0: only lengths are known, not where and how it lies
    size: tuple[int, int] | None = None  # of a slice without the padding of images: rows, columns; None: it has none
    corner: tuple[int, int] = (0, 0)  # where the file's first pixel is in `slices`: row, column


class _Stack(NamedTuple):
    """What a reader of a format finds: values are `slope * raw + intercept`, the other fields as in `Volume`."""

    raw: np.ndarray  # (n, h, w), real or complex
    notes: list[str]
    slope: float | np.ndarray = 1.0  # a number, or one for each slice
    intercept: float | np.ndarray = 0.0
    affine: np.ndarray | None = None
    space: int = 0
    inverted: bool = False


def read(name: str, content: bytes, *, kind: str = "image") -> Volume:
    """Read one file, whose format is told by its first bytes or else by its name.

    - `.npy`, `.npz`: one array `(h, w)`, `(n, h, w)`, `(n, h, w, 1)` or `(n, 1, h, w)`; in an archive of several, that
      named `image`.
    - PNG, JPEG, TIFF: gray, or colours as luminance; the pages of a TIFF are the slices.
    - NIfTI (`.nii`, `.nii.gz`), FreeSurfer's `.mgh` and `.mgz`: the first volume, as AXIAL slices from foot to head, by
      the file's orientation: axes are swapped and flipped, nothing is interpolated, so an oblique file stays oblique.
      Rows run from front to back (anterior at the top), columns from the patient's right to left (right on the left).
    - DICOM: one file with one or more frames, as they are stored, whatever their plane; rescaled by slope and
      intercept, and MONOCHROME1 inverted.
    - fastMRI's HDF5 (`.h5`).

    Images (`kind="image"`) are magnitudes: complex values become their modulus. The smallest value or 0, whichever is
    lower, becomes 0 and the largest of the whole volume 1; that is the exact largest, so one hot pixel darkens all the
    rest. Sides are padded evenly with zeros to multiples of 8. Of a fastMRI file this is `reconstruction_esc`, else
    `reconstruction_rss`, else the root of the sum of squares over coils of the inverse transform of `kspace`, of which
    the middle 320 x 320 pixels are kept where it is larger.

    K-space (`kind="kspace"`) is complex, of one coil, in a `.npy`, `.npz` or fastMRI file, where its zero frequency is
    CENTERED at `[h // 2, w // 2]`, and so is the image: fftshift(fft2(ifftshift(image))). It is returned as
    `np.fft.fft2(image, norm="ortho")`, the zero frequency in the corner, with zeros where the file has zeros, and
    divided by the largest magnitude of its zero-filled image over the whole volume. Where sides are no multiples of 8,
    the highest frequencies are cut off, at most 7: the field of view stays and pixels get a little larger.

    Args:
        name: of the file, for its extension and for messages.
        content: the file, at most 2**27 pixels in slices of 8 to 2048 pixels a side.
        kind: "image" or "kspace".

    Raises:
        InputError: if the file is empty, damaged, of another format, too large or too small, or if it holds no finite
            numbers of that kind.
    """
    if kind not in ("image", "kspace"):
        raise InputError(f'`kind` must be "image" or "kspace", got {kind!r}.')
    where = name
    form = _format(where, name, content)
    if kind == "kspace" and form not in ("npy", "npz", "h5"):
        raise InputError(
            f"{where} must be a .npy, .npz or fastMRI .h5 file to hold k-space, but it is a {_NAMES[form]} file."
        )
    with _decoding(where, _NAMES[form]):
        stack = _fastmri(where, content, kind) if form == "h5" else _READERS[form](where, content)
    return _kspace(where, stack) if kind == "kspace" else _images(where, stack)


def crop(volume: Volume, image: np.ndarray) -> np.ndarray:
    """What is left of `(*b, h, w)`, an image of the size of `volume.slices`, without the padding: the file's pixels."""
    image = np.asarray(image)
    if image.shape[-2:] != volume.slices.shape[1:]:
        raise InputError(f"`image` must have shape (*b, h, w) with h, w = {volume.slices.shape[1:]}, got {image.shape}.")
    (row, column), (h, w) = volume.corner, volume.size or image.shape[-2:]
    return image[..., row : row + h, column : column + w]


def png(image: np.ndarray, *, window: float, level: float, text: Mapping[str, str]) -> bytes:
    """An 8-bit gray PNG of an image.

    Args:
        image: `(h, w)`, real.
        window: width of the range of values from black to white, above 0.
        level: the middle of that range.
        text: what stands in the file, as tEXt chunks (iTXt for what Latin-1 lacks); keys of 1 to 79 Latin-1 characters.

    Raises:
        InputError: if one of them is not as above.
    """
    from PIL import Image, PngImagePlugin

    image = _real("image", image)
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
    shown = np.clip((image.astype(np.float64) - level) / window + 0.5, 0, 1)
    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * shown).astype(np.uint8)).save(stream, "PNG", pnginfo=chunks)
    return stream.getvalue()


def npz(images: np.ndarray, metadata: Mapping[str, Any]) -> bytes:
    """A `.npz` archive of the array `image` and the JSON string `metadata`, for which a `.npy` file has no room.

        with np.load("out.npz") as file:
            images, metadata = file["image"], json.loads(str(file["metadata"]))

    Raises:
        InputError: if `images` are no numbers, or JSON cannot hold `metadata`.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "biufc":
        raise InputError(f"`images` must be an array of numbers, got {images.dtype}.")
    stream = io.BytesIO()
    np.savez_compressed(stream, image=images, metadata=np.array(_json("metadata", metadata)))
    return stream.getvalue()


def nifti(volume: Volume, index: int | None, image: np.ndarray, text: Mapping[str, Any]) -> bytes:
    """A `.nii.gz` of what was reconstructed from a slice, in the units of the file and where it lies there.

    The padding of images is cut off. The array is float32, `(rows, columns, 1)` with the affine of that slice. Where
    `volume.space` is 0, position and direction are not known, and the file claims none (sform and qform codes 0): its
    array is then `(columns, rows, 1)`, rows from the bottom up, so that viewers show it upright.

    Args:
        volume: the file, as read.
        index: which slice; None for all of them.
        image: `(h, w)` of the size of `volume.slices`, in their units, real; `(n, h, w)` if `index` is None.
        text: metadata, written as JSON in a header extension of the kind "comment".

    Raises:
        InputError: if `index` or `image` does not fit the volume, or JSON cannot hold `text`.
    """
    import nibabel

    n = len(volume.slices)
    if index is not None and not (isinstance(index, numbers.Integral) and 0 <= index < n):
        raise InputError(f"`index` must be None or a whole number from 0 to {n - 1}, got {index!r}.")
    image = _real("image", image)
    expected = volume.slices.shape[0 if index is None else 1 :]
    if image.shape != expected:
        raise InputError(f"`image` must have shape {expected}, got {image.shape}.")

    (low, high), affine = volume.scale, volume.affine
    # as 32 bits are what every viewer reads, unless the file's units are beyond them
    dtype = np.float32 if 1e-30 < max(abs(low), abs(high)) < 1e37 else np.float64
    values = np.asarray(low + crop(volume, image).astype(np.float64) * (high - low), dtype)
    values = np.atleast_3d(values if index is not None else values.transpose(1, 2, 0))

    made: Any
    if affine is not None and volume.space:
        there = affine @ _shift(*volume.corner, index or 0)
        made = nibabel.Nifti1Image(values, there)
        made.set_sform(there, volume.space)
        made.set_qform(there, volume.space)
    else:
        made = nibabel.Nifti1Image(values[::-1].transpose(1, 0, 2), None)
        if affine is not None:
            row, column, step = np.linalg.norm(affine[:3, :3], axis=0)
            made.header.set_zooms((column, row, step))
    made.header["descrip"] = f"hyperrecon_jax, {f'slice {index} of' if index is not None else 'all of'} {n}".encode()
    made.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", _json("text", text).encode()))
    return gzip.compress(made.to_bytes(), mtime=0)  # the same bytes for the same image


# From values to volumes


def _images(where: str, stack: _Stack) -> Volume:
    raw = stack.raw
    n, h, w = raw.shape
    _check_size(where, n, h, w)
    slope, intercept = (np.broadcast_to(np.asarray(a, np.float64), n) for a in (stack.slope, stack.intercept))

    def value(k):  # one slice at a time in double precision
        with np.errstate(over="ignore", invalid="ignore"):  # `_check_finite` names what is not finite
            wide = _wide(raw[k]) * slope[k] + intercept[k]
            return np.abs(wide) if np.iscomplexobj(wide) else wide

    low, high = math.inf, -math.inf
    for k in range(n):
        one = value(k)
        _check_finite(where, k, one)
        low, high = min(low, float(one.min())), max(high, float(one.max()))
    low, least = min(0.0, low), low
    if high <= low or not math.isfinite(high - low):
        raise InputError(f"{where} must hold an image, but its values go from {least:g} to {high:g}.")

    rows, columns = -(-h // MULTIPLE) * MULTIPLE, -(-w // MULTIPLE) * MULTIPLE
    top, left = (rows - h) // 2, (columns - w) // 2
    slices = np.zeros((n, rows, columns), np.float32)
    for k in range(n):
        one = (value(k) - low) / (high - low)
        slices[k, top : top + h, left : left + w] = 1 - one if stack.inverted else one

    notes = [*stack.notes]
    if np.iscomplexobj(raw):
        notes.append("complex values became their magnitudes")
    if low < 0:
        notes.append(f"shifted and scaled so that {low:g} became 0 and {high:g}, the largest value, 1")
    else:
        notes.append(f"scaled by its maximum {high:g}")
    if stack.inverted:
        notes.append("inverted, as in MONOCHROME1 large values are dark")
    if (rows, columns) != (h, w):
        notes.append(f"padded with zeros to {rows} x {columns}")
    return Volume(
        slices=slices,
        kind="image",
        affine=None if stack.affine is None else stack.affine @ _shift(-top, -left, 0),
        scale=(high, low) if stack.inverted else (low, high),
        note=_sentence([_count(n, h, w), *notes]),
        space=stack.space,
        size=(h, w),
        corner=(top, left),
    )


def _kspace(where: str, stack: _Stack) -> Volume:
    raw = stack.raw
    if not np.iscomplexobj(raw):
        raise InputError(f"{where} must hold complex numbers to be k-space, got {raw.dtype}.")
    n, h, w = raw.shape
    _check_size(where, n, h, w)
    # Cut rather than padded, so that k-space that was sampled everywhere stays so.
    rows, columns = h // MULTIPLE * MULTIPLE, w // MULTIPLE * MULTIPLE
    top, left = h // 2 - rows // 2, w // 2 - columns // 2  # the zero frequency goes to the new middle
    # Half a field of view between the image's own corner and its middle; exact, as sides are even.
    sign = (-1.0) ** np.add.outer(np.arange(rows), np.arange(columns))

    def corner(k):
        one = _wide(raw[k])
        _check_finite(where, k, one)
        return sign * np.fft.ifftshift(one[top : top + rows, left : left + columns])

    with np.errstate(over="ignore", invalid="ignore"):
        peak = max(float(np.abs(np.fft.ifft2(corner(k), norm="ortho")).max()) for k in range(n))
    if not (math.isfinite(peak) and peak >= np.finfo(np.float32).tiny):
        raise InputError(f"{where} must hold k-space of an image, but the largest value of the image is {peak:g}.")
    slices = np.empty((n, rows, columns), np.complex64)
    for k in range(n):
        slices[k] = corner(k) / peak

    notes = [
        *stack.notes,
        "zero frequency moved to the corner",
        f"divided by {peak:g}, the maximum of the zero-filled images",
    ]
    if (rows, columns) != (h, w):
        notes.append(f"the highest frequencies cut off to {rows} x {columns}, which makes pixels larger")
    return Volume(
        slices=slices,
        kind="kspace",
        affine=None,
        scale=(0.0, peak),
        note=_sentence([_count(n, h, w, "of k-space "), *notes]),
    )


# Formats


def _format(where: str, name: str, content: bytes) -> str:
    """A key of `_NAMES`."""
    if not content:
        raise InputError(f"{where} must be an image file, but it is empty.")
    if content[128:132] == b"DICM":  # first: what precedes it may be the head of a TIFF
        return "dicom"
    for form, *heads in (
        ("npy", b"\x93NUMPY"),
        ("npz", b"PK\x03\x04", b"PK\x05\x06"),
        ("picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        ("h5", b"\x89HDF\r\n\x1a\n"),
    ):
        if content.startswith(tuple(heads)):
            return form
    head = content[:540]
    if content.startswith(_GZIP):
        with _decoding(where, "gzip"), gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            head = stream.read(540)
    if head[344:347] == b"n+1" or head[4:7] == b"n+2":
        return "nifti"
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise InputError(
            f"{where} must be a NIfTI file of one piece (.nii), but it is the header of one of two (.hdr, .img)."
        )
    if head.startswith(b"\0\0\0\1"):
        return "mgh"
    for form, endings in _EXTENSIONS.items():
        if name.lower().endswith(endings):
            return form
    raise InputError(f"{where} must be a .npy, .npz, PNG, JPEG, TIFF, NIfTI, MGH, DICOM or fastMRI .h5 file.")


_NAMES = {
    "npy": ".npy",
    "npz": ".npz",
    "picture": "PNG, JPEG or TIFF",
    "nifti": "NIfTI",
    "mgh": "MGH",
    "dicom": "DICOM",
    "h5": "HDF5",
}
_EXTENSIONS = {
    "npy": (".npy",),
    "npz": (".npz",),
    "picture": (".png", ".jpg", ".jpeg", ".tif", ".tiff"),
    "nifti": (".nii", ".nii.gz"),
    "mgh": (".mgh", ".mgz", ".mgh.gz"),
    "dicom": (".dcm", ".dicom", ".ima"),  # written without the preamble by old devices
    "h5": (".h5", ".hdf5"),
}


@contextlib.contextmanager
def _decoding(where: str, form: str) -> Iterator[None]:
    """Whatever a decoder stumbles over in a damaged file is the file's fault; there is no list of what they raise."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{where} must be a whole {form} file, but it cannot be read: {_brief(error)}") from error


def _npy(where: str, content: bytes) -> _Stack:
    return _array(where, io.BytesIO(content))


def _npz(where: str, content: bytes) -> _Stack:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(names) != 1 and "image.npy" not in names:
            listed = ", ".join(n.removesuffix(".npy") for n in names[:8]) or "none"
            raise InputError(f"{where} must hold one array, or one of the name `image`, got {listed}.")
        with archive.open(names[0] if len(names) == 1 else "image.npy") as stream:
            return _array(where, stream)


def _array(where: str, stream: Any) -> _Stack:
    """An array of a `.npy` file, of which no more is read than its header says, once that is known to be sensible."""
    start = io.BytesIO(stream.read(2**16))  # a header may claim any length, but numpy takes none that is longer
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):  # 3.0 is for fields with names
        raise InputError(f"{where} must be a .npy file of version 1.0 or 2.0, got {'.'.join(map(str, version))}.")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(start)
    if dtype.kind not in "biufc":
        raise InputError(f"{where} must hold an array of numbers, got {dtype}.")
    layout: tuple[int, ...]
    if len(shape) == 4 and shape[3] == 1:
        layout = shape[:3]
    elif len(shape) == 4 and shape[1] == 1:
        layout = (shape[0], *shape[2:])
    else:
        layout = (1, *shape) if len(shape) == 2 else shape
    if len(layout) != 3:
        raise InputError(f"{where} must have shape (h, w), (n, h, w), (n, h, w, 1) or (n, 1, h, w), got {shape}.")
    n, h, w = layout
    _check_size(where, n, h, w)
    count = n * h * w
    stream.seek(start.tell())
    stored = stream.read(count * dtype.itemsize + 1)  # one byte more: at the end an archive's checksum is compared
    _check_length(where, len(stored), count * dtype.itemsize)
    raw = np.frombuffer(stored, dtype, count).reshape(shape, order="F" if fortran else "C")
    return _Stack(raw.reshape(layout), [])


def _picture(where: str, content: bytes) -> _Stack:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "TIFF")) as file:
        n = getattr(file, "n_frames", 1) if file.format == "TIFF" else 1  # not previews and animations
        w, h = file.size
        _check_size(where, n, h, w)
        pages, coloured = [], False
        for k in range(n):
            if k:
                file.seek(k)
            if file.size != (w, h):
                raise InputError(f"{where} must hold pages of one size, got {h} x {w} and {file.size[1]} x {file.size[0]}.")
            page: Any = file
            if file.mode in ("LA", "La"):
                page = file.getchannel(0)
            elif file.mode not in ("1", "L", "F") and not file.mode.startswith("I"):
                page, coloured = file.convert("RGB"), True
            pixels = np.asarray(page)
            pages.append(pixels if pixels.ndim == 2 else _luminance(pixels))
    if len({page.shape for page in pages}) > 1:  # turned while it was decoded, by a tag of the file
        raise InputError(f"{where} must hold pages of one size, but some are turned.")
    return _Stack(np.stack(pages), ["colours became their luminance"] if coloured else [])


def _nibabel(where: str, content: bytes) -> _Stack:
    """NIfTI or MGH: the header by nibabel, and of the voxels the first volume alone."""
    import nibabel
    from nibabel import orientations

    stream: Any = gzip.GzipFile(fileobj=io.BytesIO(content)) if content.startswith(_GZIP) else io.BytesIO(content)
    head = stream.read(540)
    header: Any
    if head[344:347] == b"n+1":
        header = nibabel.Nifti1Header(head[:348])
    elif head[4:7] == b"n+2":
        header = nibabel.Nifti2Header(head)
    elif head.startswith(b"\0\0\0\1"):
        header = nibabel.freesurfer.MGHImage.header_class(head)
    else:
        raise InputError(f"{where} must be a NIfTI or MGH file, but it does not start like one.")
    is_mgh = not isinstance(header, nibabel.Nifti1Header)

    shape, dtype, offset = tuple(map(int, header.get_data_shape())), header.get_data_dtype(), int(header.get_data_offset())
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(f"{where} must hold a volume of three dimensions, got shape {shape}.")
    grid = (*shape, 1)[:3]
    if dtype.kind not in "iufc":
        raise InputError(f"{where} must hold one number a voxel, got the data type {dtype}.")
    affine = np.asarray(header.get_best_affine(), np.float64)
    if not (np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) == 3):
        raise InputError(f"{where} must have an affine that can be inverted, got {affine[:3].tolist()}.")
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(("P", "L", "S"))
    )  # (row, column, slice) of the display
    h, w, n = (int(grid[np.flatnonzero(turn[:, 0] == axis)[0]]) for axis in range(3))
    _check_size(where, n, h, w, what="axial slices")

    if not 0 <= offset <= _MAX_HEADER:
        raise InputError(f"{where} must have voxels that start within {_MAX_HEADER} bytes, got {offset}.")
    count = math.prod(grid)
    end = offset + count * dtype.itemsize
    # one byte more than needed: at the end of the stream its checksum is compared
    stored = head + stream.read(max(end + 1 - len(head), 0))
    _check_length(where, len(stored), end)
    raw = orientations.apply_orientation(np.frombuffer(stored, dtype, count, offset).reshape(grid, order="F"), turn)
    slope, intercept = header.get_slope_inter()

    notes = ["axial slices along the file's {} axis".format(("first", "second", "third")[list(turn[:, 0]).index(2)])]
    if is_mgh:
        space = 1 if header["goodRASFlag"] else 0
    else:
        space = int(header["sform_code"]) or int(header["qform_code"])
        space = space if 0 <= space <= 5 else 2  # a code without a meaning; the positions are there
    if not space:
        notes.append("the file does not say how it lies, so its axes were taken to run to the left, front and top")
    if math.prod(shape) > count:
        notes.append(f"the first of {math.prod(shape) // count} volumes")
    return _Stack(
        raw.transpose(2, 0, 1),
        notes,
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        affine=affine @ orientations.inv_ornt_aff(turn, grid),
        space=space,
    )


def _dicom(where: str, content: bytes) -> _Stack:
    import pydicom
    from pydicom.pixels import pixel_array

    if b"1.2.840.10008.1.2.1.99" in content[:4096]:  # it would be inflated whole, to any size, before there is a header
        raise InputError(f"{where} must be a DICOM file that is not deflated as a whole; save it without compression.")
    data = pydicom.dcmread(io.BytesIO(content), force=content[128:132] != b"DICM")
    missing = [key for key in ("Rows", "Columns", "PhotometricInterpretation") if data.get(key) is None]
    if missing or not any(key in data for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError(f"{where} must be a DICOM file with an image, but it lacks {', '.join(missing) or 'pixels'}.")
    n, h, w = int(data.get("NumberOfFrames") or 1), int(data.Rows), int(data.Columns)
    _check_size(where, n, h, w)
    photometric = str(data.PhotometricInterpretation)
    if photometric not in ("MONOCHROME1", "MONOCHROME2", "RGB") and not photometric.startswith("YBR"):
        raise InputError(f"{where} must be a gray or RGB image, got the photometric interpretation {photometric!r}.")
    syntax = getattr(data, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None:  # a file without a preamble, which is uncompressed
        data.file_meta = pydicom.dataset.FileMetaDataset()
        implicit, little = data.original_encoding
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        if not (implicit and little):
            data.file_meta.TransferSyntaxUID = (
                pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
            )
    try:
        pixels = pixel_array(data)
    except Exception as error:
        if syntax is not None and syntax.is_compressed:
            raise InputError(
                f"{where} must be a DICOM file whose pixels can be decoded, but they are compressed as {syntax.name};"
                f" save it without compression ({_brief(error)})"
            ) from error
        raise
    coloured = pixels.shape[-1] == 3 and pixels.ndim == (3 if n == 1 else 4)
    pixels = pixels.reshape(n, h, w, 3) if coloured else pixels.reshape(n, h, w)
    notes = ["colours became their luminance"] if coloured else []
    slope, intercept = _per_frame(data, n, "PixelValueTransformationSequence", "RescaleSlope", "RescaleIntercept")
    affine, space = _dicom_affine(data, n)
    if space == 0:
        notes.append("the file does not say where its slices lie")
    return _Stack(
        np.stack([_luminance(one) for one in pixels]) if coloured else pixels,
        notes,
        slope=np.array([1.0 if s is None else float(s) for s in slope]),
        intercept=np.array([0.0 if i is None else float(i) for i in intercept]),
        affine=affine,
        space=space,
        inverted=photometric == "MONOCHROME1",
    )


def _per_frame(data: Any, n: int, sequence: str, *keys: str) -> list[list[Any]]:
    """Values of each frame: its own, else that of all frames, else that of the file, else None."""
    own, shared = (list(data.get(f"{of}FunctionalGroupsSequence") or []) for of in ("PerFrame", "Shared"))
    found: list[list[Any]] = [[] for _ in keys]
    for k in range(n):
        groups = [*own[k : k + 1], *shared[:1]]
        places = [place for group in groups for place in list(group.get(sequence) or [])[:1]] + [data]
        for key, values in zip(keys, found, strict=True):
            values.append(next((place.get(key) for place in places if place.get(key) is not None), None))
    return found


def _dicom_affine(data: Any, n: int) -> tuple[np.ndarray | None, int]:
    """`affine` and `space` of a `Volume`; frames must lie at equal steps in one direction."""
    (spacings,) = _per_frame(data, n, "PixelMeasuresSequence", "PixelSpacing")
    gaps, thicknesses = _per_frame(data, n, "PixelMeasuresSequence", "SpacingBetweenSlices", "SliceThickness")
    (directions,) = _per_frame(data, n, "PlaneOrientationSequence", "ImageOrientationPatient")
    (places,) = _per_frame(data, n, "PlanePositionSequence", "ImagePositionPatient")
    if spacings[0] is None:
        return None, 0
    spacing = np.array([float(s) for s in spacings[0]])  # between rows, between columns
    gap = abs(float(gaps[0] or thicknesses[0] or 0)) or 1.0
    if spacing.shape != (2,) or not (np.isfinite(spacing).all() and (spacing > 0).all() and math.isfinite(gap)):
        return None, 0
    lengths = np.diag([-spacing[0], -spacing[1], gap, 1.0])[[1, 0, 2, 3]]  # rows to the back, columns to the left
    if any(d is None or len(d) != 6 for d in directions) or any(p is None or len(p) != 3 for p in places):
        return lengths, 0
    direction = np.array([[float(v) for v in d] for d in directions])
    place = np.array([[float(v) for v in p] for p in places])
    across, down = direction[0, :3], direction[0, 3:]
    unit = np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], rtol=0, atol=1e-3)
    step = (place[-1] - place[0]) / (n - 1) if n > 1 else np.cross(across, down) * gap
    even = np.allclose(place, place[0] + np.arange(n)[:, None] * step, rtol=0, atol=1e-2)
    apart = abs(step @ np.cross(across, down)) > 1e-3  # not the same slice at several times
    if not (unit and even and apart and np.allclose(direction, direction[0], rtol=0, atol=1e-4)):
        return lengths, 0
    affine = np.eye(4)
    affine[:3] = np.stack([down * spacing[0], across * spacing[1], step, place[0]], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, 1  # DICOM's mm run to the left and back


def _fastmri(where: str, content: bytes, kind: str) -> _Stack:
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        notes = []
        acquisition = file.attrs.get("acquisition")
        if isinstance(acquisition, str) and acquisition.isprintable() and len(acquisition) < 80:
            notes.append(f"acquisition {acquisition}")
        reconstruction = next((key for key in ("reconstruction_esc", "reconstruction_rss") if key in file), None)
        if kind == "image" and reconstruction:
            found = _dataset(where, file, reconstruction)
            if found.ndim != 3:
                raise InputError(f"{where} must have `{reconstruction}` of shape (slices, h, w), got {found.shape}.")
            _check_size(where, *found.shape)
            return _Stack(found[()], [*notes, f"its `{reconstruction}`"])

        if "kspace" not in file:
            wanted = "`kspace`" if kind == "kspace" else "`reconstruction_esc`, `reconstruction_rss` or `kspace`"
            listed = ", ".join(sorted(file)[:8]) or "nothing"
            raise InputError(f"{where} must be a fastMRI file with {wanted}, got one with {listed}.")
        found = _dataset(where, file, "kspace")
        if found.dtype.kind != "c" or found.ndim not in (3, 4):
            raise InputError(
                f"{where} must have complex `kspace` of shape (slices, h, w) or (slices, coils, h, w), got {found.dtype}"
                f" of shape {found.shape}."
            )
        n, *coils, h, w = found.shape
        c = coils[0] if coils else 1
        _check_size(where, n, h, w)
        if not 1 <= c <= MAX_COILS or found.size > 4 * MAX_PIXELS:
            raise InputError(
                f"{where} must have `kspace` of 1 to {MAX_COILS} coils and at most {4 * MAX_PIXELS} numbers, got"
                f" {c} coils and {found.size}."
            )
        if kind == "kspace":
            if c > 1:
                raise InputError(
                    f'{where} must have `kspace` of a single coil for `kind="kspace"`, but it has {c}, which need'
                    ' sensitivity maps; use `kind="image"`, the root of the sum of their squares.'
                )
            return _Stack(found[()].reshape(n, h, w), notes)

        # Many coils are read slice by slice, unless a slice cannot be had without decompressing others.
        whole = found.size <= MAX_PIXELS
        if not whole and found.chunks and found.chunks[0] > 1:
            raise InputError(f"{where} must have `kspace` in chunks of one slice as it is large, got {found.chunks}.")
        stored = found[()] if whole else found
        rows, columns = min(h, CROP), min(w, CROP)
        top, left = (h - rows) // 2, (w - columns) // 2
        images = np.empty((n, rows, columns), np.float64)
        for k in range(n):
            one = _wide(stored[k]).reshape(c, h, w)
            _check_finite(where, k, one)
            one = np.fft.ifftshift(one, axes=(1, 2))
            image = np.fft.fftshift(np.linalg.norm(np.fft.ifft2(one, norm="ortho"), axis=0))
            images[k] = image[top : top + rows, left : left + columns]
    combined = f", the root of the sum of squares of {c} coils" if c > 1 else ""
    cut = f", the middle of {h} x {w} pixels" if (rows, columns) != (h, w) else ""
    return _Stack(images, [*notes, f"the magnitude of the inverse transform of its k-space{combined}{cut}"])


def _dataset(where: str, file: Any, key: str) -> Any:
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


_READERS: dict[str, Callable[[str, bytes], _Stack]] = {
    "npy": _npy,
    "npz": _npz,
    "picture": _picture,
    "nifti": _nibabel,
    "mgh": _nibabel,
    "dicom": _dicom,
}


# Small parts


def _wide(values: np.ndarray) -> np.ndarray:
    """In double precision."""
    with np.errstate(over="ignore", invalid="ignore"):  # `_check_finite` names what is not finite
        return values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)


def _luminance(pixels: np.ndarray) -> np.ndarray:
    """`(h, w, 3)` -> `(h, w)` float32."""
    with np.errstate(over="ignore", invalid="ignore"):  # `_check_finite` names what is not finite
        return (pixels @ _LUMINANCE).astype(np.float32)


def _shift(row: float, column: float, index: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = row, column, index
    return matrix


def _check_size(where: str, n: int, h: int, w: int, *, what: str = "slices") -> None:
    if n < 1:
        raise InputError(f"{where} must hold at least one slice, got {n} of {h} x {w}.")
    if not (MIN_SIDE <= h <= MAX_SIDE and MIN_SIDE <= w <= MAX_SIDE):
        raise InputError(f"{where} must hold {what} of {MIN_SIDE} to {MAX_SIDE} pixels a side, got {n} of {h} x {w}.")
    if n * h * w > MAX_PIXELS:
        raise InputError(f"{where} must hold at most {MAX_PIXELS} pixels, got {n} {what} of {h} x {w}.")


def _check_length(where: str, got: int, expected: int) -> None:
    if got < expected:
        raise InputError(f"{where} must be a whole file of {expected} bytes, but it ends after {got}.")


def _check_finite(where: str, index: int, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{where} must hold finite numbers, but slice {index} has NaN or infinity.")


def _real(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must hold real numbers, got {array.dtype}.")
    if not np.isfinite(array).all():
        raise InputError(f"`{name}` must hold finite numbers, but it has NaN or infinity.")
    return array


def _json(name: str, metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must be what JSON can hold: {error}.") from error


def _count(n: int, h: int, w: int, of: str = "") -> str:
    return f"{n} slice{'s' if n > 1 else ''} {of}of {h} x {w}"


def _sentence(parts: list[str]) -> str:
    return "; ".join(parts) + "."


def _brief(error: Exception) -> str:
    """The first words of another's message, as the end of one sentence."""
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".") + "."
