"""From a file to a `Volume`: what its values become, and how its slices lie."""

import functools
import math
from typing import NamedTuple

import numpy as np

from hyperrecon_jax.data.volumes.formats import decode
from hyperrecon_jax.data.volumes.stack import Stack, check_finite, check_size, magnitude, wide
from hyperrecon_jax.runtime.errors import InputError

MULTIPLE = 8  # of which the sides of `Volume.slices` are multiples: the U-Net halves images three times


class Volume(NamedTuple):
    """Slices of one file, and what is needed to write one of them back to where it came from."""

    slices: np.ndarray  # (n, h, w), multiples of 8: float32 images in [0, 1], or complex64 k-space; (n, c, h, w) of coils
    kind: str  # "image" or "kspace"
    affine: np.ndarray | None  # (4, 4) float64: (row, column, slice, 1) of `slices` -> mm to the right, front and top
    scale: tuple[float, float]  # (low, high): value in the file = low + x * (high - low); low > high if it was inverted
    note: str  # one sentence for a person on what was done to the file
    space: int = 0  # what the mm of `affine` mean, as NIfTI codes it; 0: only lengths are known, not where and how it lies
    size: tuple[int, int] | None = None  # of a slice without the padding of images: rows, columns; None: it has none
    corner: tuple[int, int] = (0, 0)  # where the file's first pixel is in `slices`: row, column


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

    K-space (`kind="kspace"`) is complex, in a `.npy`, `.npz` or fastMRI file, where its zero frequency is CENTERED at
    `[h // 2, w // 2]`, and so is the image: fftshift(fft2(ifftshift(image))). Of several coils it is `(n, c, h, w)`. It
    is returned as `np.fft.fft2(image, norm="ortho")`, the zero frequency in the corner, with zeros where the file has
    zeros, and divided by the largest value over the whole volume of the magnitude of its zero-filled image: of several
    coils the root of the sum of their squares. Where sides are no multiples of 8, the highest frequencies are cut off, at
    most 7: the field of view stays and pixels get a little larger.

    Args:
        name: of the file, for its extension and for messages.
        content: the file, at most 2**27 pixels, of all coils together, in slices of 8 to 2048 pixels a side.
        kind: "image" or "kspace".

    Raises:
        InputError: if the file is empty, damaged, of another format, too large or too small, or if it holds no finite
            numbers of that kind.
    """
    if kind not in ("image", "kspace"):
        raise InputError(f'`kind` must be "image" or "kspace", got {kind!r}.')
    stack = decode(name, content, kind)
    return _kspace(name, stack) if kind == "kspace" else _images(name, stack)


def crop(volume: Volume, image: np.ndarray) -> np.ndarray:
    """What is left of `(*b, h, w)`, an image of the size of `volume.slices`, without the padding: the file's pixels."""
    image = np.asarray(image)
    if image.shape[-2:] != volume.slices.shape[-2:]:
        raise InputError(f"`image` must have shape (*b, h, w) with h, w = {volume.slices.shape[-2:]}, got {image.shape}.")
    (row, column), (h, w) = volume.corner, volume.size or image.shape[-2:]
    return image[..., row : row + h, column : column + w]


def shift(row: float, column: float, index: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = row, column, index
    return matrix


def _images(where: str, stack: Stack) -> Volume:
    raw = stack.raw
    n, h, w = raw.shape
    check_size(where, n, h, w)
    low, high = math.inf, -math.inf
    for k in range(n):
        one = magnitude(where, stack, k)
        low, high = min(low, float(one.min())), max(high, float(one.max()))
    low, least = min(0.0, low), low
    if high <= low or not math.isfinite(high - low):
        raise InputError(f"{where} must hold an image, but its values go from {least:g} to {high:g}.")

    rows, columns = -(-h // MULTIPLE) * MULTIPLE, -(-w // MULTIPLE) * MULTIPLE
    top, left = (rows - h) // 2, (columns - w) // 2
    slices = np.zeros((n, rows, columns), np.float32)
    for k in range(n):
        one = (magnitude(where, stack, k) - low) / (high - low)
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
        affine=None if stack.affine is None else stack.affine @ shift(-top, -left, 0),
        scale=(high, low) if stack.inverted else (low, high),
        note=_sentence([_count(n, h, w), *notes]),
        space=stack.space,
        size=(h, w),
        corner=(top, left),
    )


def _kspace(where: str, stack: Stack) -> Volume:
    raw = stack.raw
    if not np.iscomplexobj(raw):
        raise InputError(f"{where} must hold complex numbers to be k-space, got {raw.dtype}.")
    n, *several, h, w = raw.shape
    check_size(where, n, h, w)
    # Cut rather than padded, so that k-space that was sampled everywhere stays so.
    rows, columns = h // MULTIPLE * MULTIPLE, w // MULTIPLE * MULTIPLE
    top, left = h // 2 - rows // 2, w // 2 - columns // 2  # the zero frequency goes to the new middle
    # Half a field of view between the image's own corner and its middle; exact, as sides are even.
    sign = (-1.0) ** np.add.outer(np.arange(rows), np.arange(columns))

    def corner(k, *coil):
        one = wide(raw[(k, *coil)])
        check_finite(where, k, one)
        return sign * np.fft.ifftshift(one[top : top + rows, left : left + columns])

    with np.errstate(over="ignore", invalid="ignore"):
        peak = 0.0
        for k in range(n):
            each = (np.abs(np.fft.ifft2(corner(k, *coil), norm="ortho")) for coil in np.ndindex(*several))
            peak = max(peak, float(functools.reduce(np.hypot, each).max()))
    if not (math.isfinite(peak) and peak >= np.finfo(np.float32).tiny):
        raise InputError(f"{where} must hold k-space of an image, but the largest value of the image is {peak:g}.")
    slices = np.empty((n, *several, rows, columns), np.complex64)
    for place in np.ndindex(n, *several):
        slices[place] = corner(*place) / peak

    of = f"k-space of {several[0]} coils " if several else "k-space "
    squares = ", the root of the sum of squares of their coils" if several else ""
    notes = [
        *stack.notes,
        "zero frequency moved to the corner",
        f"divided by {peak:g}, the maximum of the zero-filled images{squares}",
    ]
    if (rows, columns) != (h, w):
        notes.append(f"the highest frequencies cut off to {rows} x {columns}, which makes pixels larger")
    return Volume(
        slices=slices,
        kind="kspace",
        affine=None,
        scale=(0.0, peak),
        note=_sentence([_count(n, h, w, f"of {of}"), *notes]),
    )


def _count(n: int, h: int, w: int, of: str = "") -> str:
    return f"{n} slice{'s' if n > 1 else ''} {of}of {h} x {w}"


def _sentence(parts: list[str]) -> str:
    return "; ".join(parts) + "."
