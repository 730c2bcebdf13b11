"""From the slices of a file to a `Volume`: scaled values and positions."""

import functools
import math
from typing import NamedTuple

import numpy as np

from hyperrecon_jax.data.kspace import to_corner
from hyperrecon_jax.data.volumes import geometry
from hyperrecon_jax.data.volumes.formats import decode_as_stored
from hyperrecon_jax.data.volumes.intensity import describe_scale, describe_stack, find_scale, read_values, to_intensity
from hyperrecon_jax.data.volumes.stack import Stack, check_finite, check_size, to_double
from hyperrecon_jax.runtime.errors import InputError


class Volume(NamedTuple):
    """The slices of a file, and all that is needed to write a slice back with the file's units and position."""

    slices: np.ndarray  # (n, h, w): float32 images in [0, 1], or complex64 k-space; (n, c, h, w) of coils
    kind: str  # "image" or "kspace"
    affine: np.ndarray | None  # (4, 4) float64: (row, column, slice, 1) of `slices` -> mm to the right, front and top
    scale: tuple[float, float]  # (black, white): value in the file = black + x * (white - black)
    note: str  # a sentence for the user that says how the values were changed
    space: int = 0  # NIfTI's code for the space of `affine`; 0: only lengths are known, not position and direction
    size: tuple[int, int] | None = None  # rows and columns of a slice without the padding of images; None: no padding
    corner: tuple[int, int] = (0, 0)  # row and column of the file's first pixel in `slices`
    pixel_size: tuple[float, float] = (1.0, 1.0)  # height and width of a pixel, in mm where the file says so
    identity: tuple[tuple[str, str], ...] = ()  # keywords of DICOM and their values: whose image it is, and of which study
    no_truth: str = ""  # of k-space: why its image is no truth; "" if all of it was sampled
    is_metric: bool = False  # `affine` and `pixel_size` are in mm; else only the ratio of the sides counts
    frames: int = 1  # volumes that the file holds, such as times; the slices are those of one of them


def read(
    name: str,
    content: bytes,
    *,
    kind: str = "image",
    plane: str = geometry.ACQUIRED,
    frame: int = 0,
    multiple: int = 1,
) -> Volume:
    """Read a file. Its first bytes show its format, or else its name does.

    - `.npy`, `.npz`: one array `(h, w)`, `(n, h, w)`, `(n, h, w, 1)` or `(n, 1, h, w)`; of an archive with several
      arrays, the array `image`.
    - PNG, JPEG, TIFF: gray, or colours as luminance, upright by the orientation tag; the pages of a TIFF are the slices.
    - NIfTI (`.nii`, `.nii.gz`), FreeSurfer's `.mgh` and `.mgz`: one volume, `frame`.
    - DICOM: one file with one or more images, in the order of their positions; rescaled by slope and intercept, or by its
      modality look-up table. If each position has several images, such as times, `frame` says which.
    - fastMRI's HDF5 (`.h5`), and k-space in ISMRMRD (`.h5`), MATLAB (`.mat`) and BART (`.cfl` and `.hdr` in one `.zip`).

    The slices of NIfTI, MGH and DICOM with positions are those of `plane`, shown as radiologists look at it:

    | plane | slices, from first to last | top of the picture | left of the picture |
    | --- | --- | --- | --- |
    | axial | from foot to head | front | the patient's right |
    | coronal | from front to back | head | the patient's right |
    | sagittal | from the patient's left to right | head | front |

    Axes are swapped and flipped, nothing is interpolated, so an oblique file stays oblique. `geometry.py` has the rules.

    Images (`kind="image"`) are magnitudes: complex values become their modulus. The smallest value or 0, whichever is
    lower, becomes 0 and the largest of the whole volume 1. Where large values are dark they are inverted. `intensity.py`
    has the rules, with those for NaN, padding and outliers, and `note` says what was done. A fastMRI file gives its
    `reconstruction_esc`, else its `reconstruction_rss`, else the root of the sum of squares over coils of the inverse
    transform of `kspace`, cropped to its field of view (`field_of_view.py`). Files of k-space, complex arrays that look
    like it, and fastMRI files that are under-sampled stay k-space (`Volume.kind`), as they hold no images.

    K-space (`kind="kspace"`) is complex. In the file its zero frequency is CENTERED at
    `[h // 2, w // 2]`, and so is the image: fftshift(fft2(ifftshift(image))). With several coils it is `(n, c, h, w)`. The
    result is `np.fft.fft2(image, norm="ortho")`, the zero frequency in the corner, with zeros where the file has zeros. It
    is divided by the largest value of the zero-filled images of the whole volume: their magnitude, or with several coils
    the root of the sum of squares.

    Args:
        name: name of the file, for its extension and for messages.
        content: the bytes of the file; at most 2**27 pixels, of all coils together, in slices of 8 to 2048 pixels a side.
        kind: "image" or "kspace".
        plane: "axial", "coronal", "sagittal", or "acquired": the plane of the two finest axes of a volume (axial, if they
            are equal), or of the images of a DICOM file.
        frame: which volume of a file that holds several, from 0.
        multiple: images are padded evenly with zeros to sides that are multiples of it.

    Raises:
        InputError: if the file is empty, damaged, of another format, too large or too small, if it holds no finite
            numbers of that kind or no such volume, or if it does not say where its slices lie and another plane is asked
            for.
    """
    if kind not in ("image", "kspace"):
        raise InputError(f'`kind` must be "image" or "kspace", got {kind!r}.')
    stack = decode_as_stored(name, content, kind, plane=plane, frame=frame)
    if not 0 <= frame < stack.frames:
        raise InputError(f"`frame` must be from 0 to {stack.frames - 1}, the volumes of {name}, got {frame}.")
    if stack.kind == "image" and kind == "image":
        return from_stack(name, stack, multiple=multiple)
    if kind == "image":
        stack = stack._replace(notes=[*stack.notes, "these are no images, so they were opened as measured k-space"])
    return _read_kspace(name, stack)


def from_stack(file_name: str, stack: Stack, *, multiple: int = 1) -> Volume:
    """The `Volume` of images that are read already, such as those of several files.

    Args:
        file_name: for messages.
        stack: the images.
        multiple: as for `read`.
    """
    raw = stack.raw
    n, h, w = raw.shape
    check_size(file_name, n, h, w)
    scale = find_scale([(file_name, stack)])
    background = scale.missing + scale.padding
    if background == scale.size:
        raise InputError(f"{file_name} must hold an image, but all of its values are NaN or padding.")
    if scale.black == scale.white or (scale.lowest == scale.highest and not background):
        raise InputError(f"{file_name} must hold an image, but its values go from {scale.lowest:g} to {scale.highest:g}.")

    rows, columns = -(-h // multiple) * multiple, -(-w // multiple) * multiple
    top, left = (rows - h) // 2, (columns - w) // 2
    slices = np.zeros((n, rows, columns), np.float32)
    for k in range(n):
        slices[k, top : top + h, left : left + w] = to_intensity(read_values(file_name, stack, k), scale)

    notes = [*describe_stack(stack), *describe_scale(scale)]
    if (rows, columns) != (h, w):
        notes.append(f"padded with zeros to {rows} x {columns}")
    height, width = geometry.pixel_size(stack.affine)
    if not geometry.is_square(height, width):
        notes.append(f"pixels are {height / width:.3g} times as high as wide")
    return Volume(
        slices=slices,
        kind="image",
        affine=None if stack.affine is None else stack.affine @ shift(-top, -left, 0),
        scale=(scale.black, scale.white),
        note=_sentence([_slice_count(n, h, w), *notes]),
        space=stack.space,
        size=(h, w),
        corner=(top, left),
        pixel_size=geometry.pixel_size(stack.affine),
        identity=stack.identity,
        is_metric=stack.is_metric,
        frames=stack.frames,
    )


def crop(volume: Volume, image: np.ndarray) -> np.ndarray:
    """Images without the padding: `(*b, h, w)` of the size of `volume.slices` -> the pixels of the file."""
    image = np.asarray(image)
    if image.shape[-2:] != volume.slices.shape[-2:]:
        raise InputError(f"`image` must have shape (*b, h, w) with h, w = {volume.slices.shape[-2:]}, got {image.shape}.")
    (row, column), (h, w) = volume.corner, volume.size or image.shape[-2:]
    return image[..., row : row + h, column : column + w]


def shift(row: float, column: float, index: float) -> np.ndarray:
    """The affine `(4, 4)` that adds a number of rows, columns and slices."""
    matrix = np.eye(4)
    matrix[:3, 3] = row, column, index
    return matrix


def _read_kspace(file_name: str, stack: Stack) -> Volume:
    raw = stack.raw
    if not np.iscomplexobj(raw):
        raise InputError(f"{file_name} must hold complex numbers to be k-space, got {raw.dtype}.")
    n, *coils, h, w = raw.shape
    check_size(file_name, n, h, w)
    peak = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(n):
            planes = (_corner_plane(file_name, raw, (k, *coil)) for coil in np.ndindex(*coils))
            magnitudes = (np.abs(np.fft.ifft2(plane, norm="ortho")) for plane in planes)
            peak = max(peak, float(functools.reduce(np.hypot, magnitudes).max()))
    if not (math.isfinite(peak) and peak >= np.finfo(np.float32).tiny):
        raise InputError(f"{file_name} must hold k-space of an image, but the largest value of the image is {peak:g}.")
    slices = np.empty((n, *coils, h, w), np.complex64)
    for index in np.ndindex(n, *coils):
        slices[index] = _corner_plane(file_name, raw, index) / peak

    kind = f"k-space of {coils[0]} coils " if coils else "k-space "
    root_sum_of_squares = ", the root of the sum of squares of their coils" if coils else ""
    notes = [
        *stack.notes,
        "zero frequency moved to the corner",
        f"divided by {peak:g}, the maximum of the zero-filled images{root_sum_of_squares}",
    ]
    return Volume(
        slices=slices,
        kind="kspace",
        affine=stack.affine,
        scale=(0.0, peak),
        note=_sentence([_slice_count(n, h, w, f"of {kind}"), *notes]),
        pixel_size=geometry.pixel_size(stack.affine),
        no_truth=stack.no_truth,
        is_metric=stack.is_metric,
    )


def _corner_plane(file_name: str, raw: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    """The k-space of a slice, or of a coil of it, `(h, w)` complex128, zero frequency in the corner."""
    plane = to_double(raw[index])
    check_finite(file_name, index[0], plane)
    return to_corner(plane, flip=False)


def _slice_count(n: int, h: int, w: int, kind: str = "") -> str:
    return f"{n} slice{'s' if n > 1 else ''} {kind}of {h} x {w}"


def _sentence(parts: list[str]) -> str:
    return "; ".join(parts) + "."
