"""The k-space of a file, whatever its format: `Scan`, and what the readers make of it.

Readers of a format (`hdf5`, `ismrmrd`, `matlab`, `bart`, `arrays`) return a `Scan`. `to_images` makes magnitude images of
it, which are a truth if all of k-space was sampled. `to_kspace` gives the k-space itself. Preparing for training uses the
same `Scan` (`data/sources/scans.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.data import grid
from hyperrecon_jax.data.kspace import crop_field, is_fully_sampled, sampled_share
from hyperrecon_jax.data.volumes import geometry
from hyperrecon_jax.data.volumes.field_of_view import FieldOfView, count_pixels, pixel_sides
from hyperrecon_jax.data.volumes.stack import Stack, check_coils, check_finite, check_size, to_double
from hyperrecon_jax.runtime.errors import InputError

MASKED = "it has a `mask`, as files of test and challenge sets: it is under-sampled and holds no truth"
# unlike an image: what is not cut from the image of the k-space, as fastMRI's are, must be seen clearly
CLEARLY_LESS = 0.25
CLEARLY_MORE = 10.0  # times the energy
_REAL, _IMAGINARY = ("r", "real", "re"), ("i", "imag", "im", "imaginary")  # names of the fields of a complex number


class Scan(NamedTuple):
    """K-space of n slices and c coils, zero frequency and image centred, readout along the rows where the file has one."""

    read_slice: Callable[[int], np.ndarray]  # (c, h, w) complex, in the precision of the file
    shape: tuple[int, int, int, int]  # (n, c, h, w)
    field: FieldOfView
    no_truth: str  # why it is no truth, as a part of a sentence; "" if all of it was sampled
    notes: list[str]  # for the user
    read_maps: Callable[[int], np.ndarray] | None = None  # (c, h, w), the sensitivity maps of a slice, if the file has them


def make_scan(
    file_name: str,
    kspace: np.ndarray,
    *,
    field: FieldOfView | None = None,
    has_mask: bool = False,
    notes: tuple[str, ...] = (),
) -> Scan:
    """A scan of an array `(n, c, h, w)` in memory.

    Args:
        file_name: for messages.
        kspace: complex, centred.
        field: its field of view; None: it has square pixels, and all of it is the image.
        has_mask: the file has a mask, so it is under-sampled.
        notes: for the user.

    Raises:
        InputError: if its size is out of range, or if its zero frequency is clearly in the corner.
    """
    n, c, h, w = kspace.shape
    check_size(file_name, n, h, w)
    check_coils(file_name, n, c, h, w)
    _check_centred(file_name, kspace)
    sides = (float(h), float(w))
    field = field or FieldOfView(sides, sides, None, False)
    scan = Scan(lambda k: kspace[k], (n, c, h, w), field, "", list(notes))
    return scan._replace(no_truth=explain_no_truth(scan, has_mask=has_mask))


def _check_centred(file_name: str, kspace: np.ndarray) -> None:
    """Raise `InputError` for k-space as `np.fft.fft2` gives it: read as centred, its image would be in pieces.

    The energy of the lowest frequencies tells: `CLEARLY_MORE` in the corners than in the middle.
    """
    n, _, h, w = kspace.shape
    middle = kspace[n // 2]
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are refused later, by name
        energy = np.square(np.abs(to_double(middle))).sum(0)
        low_frequencies = slice(h // 2 - h // 16, h // 2 + h // 16 + 1), slice(w // 2 - w // 16, w // 2 + w // 16 + 1)
        in_the_middle, in_the_corners = (float(e[low_frequencies].sum()) for e in (energy, np.fft.fftshift(energy)))
    if in_the_corners > CLEARLY_MORE * in_the_middle:
        raise InputError(
            f"{file_name} must have the zero frequency of its k-space in the middle, but it is in the corner; save"
            " fftshift(fft2(ifftshift(image)))."
        )


def explain_no_truth(scan: Scan, *, has_mask: bool) -> str:
    """Why a scan is no truth, as a part of a sentence; "" if it may be one: all of k-space was sampled, or nothing.

    Every slice that is not empty must have been sampled. They are read from the middle outwards.
    """
    if has_mask:
        return MASKED
    n = scan.shape[0]
    for k in sorted(range(n), key=lambda k: abs(k - n // 2)):
        sampled = (scan.read_slice(k) != 0).any(0)
        if sampled.any() and not is_fully_sampled(sampled):
            return f"{sampled_share(sampled):.0%} of its k-space was measured, so it holds no truth"
    return ""


def match_images(scan: Scan, images: Any) -> Scan:
    """A scan whose columns cover the field of view that the images of its file show.

    Images are the middle columns of the k-space's image, as in fastMRI, or all of them on another number of pixels, if that
    looks clearly more like the image in the middle.

    Args:
        scan: with the field of view of the first case.
        images: `(n, rows, columns)`, an array or dataset, with fewer columns than the k-space.
    """
    k, (n, rows, columns) = len(images) // 2, images.shape
    if n != scan.shape[0]:
        return scan
    with np.errstate(over="ignore", invalid="ignore"):  # NaN compares as unlike
        combined = _combine(to_double(scan.read_slice(k)))
        combined = grid.centre(combined[None], rows, combined.shape[1])
        middle, w = grid.centre(combined, rows, columns)[0], combined.shape[2]
        places = w // 2 + (np.arange(columns) - columns // 2) * w / columns  # so that the middle stays in the middle
        all_columns = np.stack([np.interp(places, np.arange(w), row) for row in combined[0]])
        image = to_double(np.asarray(images[k]))
        shows_all = _unlikeness(all_columns, image) < CLEARLY_LESS * _unlikeness(middle, image)
    encoded = (scan.field.encoded[0], float(columns))
    return scan._replace(field=scan.field._replace(encoded=encoded)) if shows_all else scan


def _unlikeness(first: np.ndarray, second: np.ndarray) -> float:
    """One minus the cosine of the angle between two images."""
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return 1 - float(np.vdot(first, second) / lengths) if lengths else 1.0


def _combine(coils: np.ndarray) -> np.ndarray:
    """The image `(h, w)` of centred k-space `(c, h, w)`: the root of the sum of squares of the coils."""
    images = np.fft.ifft2(np.fft.ifftshift(coils, axes=(1, 2)), norm="ortho")
    return np.fft.fftshift(np.linalg.norm(images, axis=0))


def to_complex(values: np.ndarray) -> np.ndarray:
    """Complex numbers, also from a type with the fields r and i, or real and imag; other values as they are."""
    fields = complex_fields(values.dtype)
    if fields is None:
        return values
    real, imaginary = (values[field] for field in fields)
    return real + 1j * imaginary


def complex_fields(dtype: np.dtype[Any]) -> tuple[str, str] | None:
    """The names of the real and the imaginary field of a type; None if it is not such a type."""
    names = {name.lower(): name for name in dtype.names or ()}
    real, imaginary = (next((names[n] for n in choice if n in names), None) for choice in (_REAL, _IMAGINARY))
    if len(names) != 2 or real is None or imaginary is None or {dtype[real].kind, dtype[imaginary].kind} - set("iuf"):
        return None
    return real, imaginary


def to_images(file_name: str, scan: Scan) -> Stack:
    """Magnitude images: the root of the sum of squares of the coils, cropped to the field of view of the image."""
    n, c, h, w = scan.shape
    encoded, image_lengths = scan.field.encoded, scan.field.image
    rows, columns = (min(*sides) for sides in zip((h, w), count_pixels((h, w), encoded, image_lengths), strict=True))
    images = np.empty((n, rows, columns), np.float64)
    for k in range(n):
        coils = to_double(scan.read_slice(k))
        check_finite(file_name, k, coils)
        with np.errstate(over="ignore", invalid="ignore"):  # the next line names what is too large
            image = _combine(coils)
        check_finite(file_name, k, image)
        images[k] = grid.centre(image[None], rows, columns)[0]
    combined = f", the root of the sum of squares of {c} coils" if c > 1 else ""
    cropped = f", the middle of {h} x {w} pixels" if (rows, columns) != (h, w) else ""
    note = f"the magnitude of the inverse transform of its k-space{combined}{cropped}"
    affine = pixel_affine(pixel_sides((h, w), encoded), scan.field.is_metric)
    return Stack(images, [*scan.notes, note], affine=affine, is_metric=scan.field.is_metric)


def to_kspace(file_name: str, scan: Scan) -> Stack:
    """The k-space, `(n, h, w)` of one coil or `(n, c, h, w)`, without the rows that only oversample the readout.

    These are cut off where every line that was sampled was sampled whole, as otherwise samples would become dense.
    """
    n, c, h, w = scan.shape
    check_coils(file_name, n, c, h, w)
    encoded = scan.field.encoded
    rows, _ = count_pixels((h, w), encoded, (scan.field.image[0], encoded[1]))
    slices = [scan.read_slice(k) for k in range(n)]
    sampled = np.any([(coils != 0).any(0) for coils in slices], axis=0)
    notes, sides = list(scan.notes), pixel_sides((h, w), encoded)
    if rows < h and (sampled == sampled.any(0)).mean() > 0.99:
        for k, coils in enumerate(slices):
            check_finite(file_name, k, coils)
            slices[k] = crop_field(coils, rows, w)
        notes.append(f"the middle {rows} of {h} rows of the image, which is the field of view without oversampling")
    raw = np.stack(slices)
    affine = pixel_affine(sides, scan.field.is_metric)
    kspace = raw[:, 0] if c == 1 else raw
    return Stack(kspace, notes, affine=affine, kind="kspace", no_truth=scan.no_truth, is_metric=scan.field.is_metric)


def planes_to_slices(file_name: str, kspace: np.ndarray, axis: int) -> np.ndarray:
    """K-space with a third, transformed direction: its planes become slices along the same axis.

    Args:
        file_name: for messages.
        kspace: complex; the last two axes are rows and columns, and `axis` is that of the planes.
        axis: at least 0.

    Raises:
        InputError: if planes between sampled ones are missing, or planes are sampled differently. Then an image of one
            plane needs the others.
    """
    sampled = np.moveaxis(kspace != 0, axis, 0)
    sampled = sampled.any(tuple(range(1, sampled.ndim - 2)))
    planes = np.flatnonzero(sampled.any((1, 2)))
    inner = sampled[planes[0] : planes[-1] + 1] if planes.size else sampled
    if (inner != inner[len(inner) // 2]).mean() > 0.01:
        raise InputError(
            f"{file_name} must have all planes of its third direction sampled in the same way, but they differ; transform"
            " it along that direction and save single slices."
        )
    planes_first = np.fft.ifftshift(kspace, axes=axis)
    return np.fft.fftshift(np.fft.ifft(planes_first, axis=axis, norm="ortho"), axes=axis)


def looks_like_kspace(raw: Sequence[np.ndarray] | np.ndarray) -> bool:
    """Whether complex slices, `(h, w)` or `(c, h, w)` of coils each, are k-space and not images.

    The energy of k-space is in fewer values than that of its image: at low frequencies, wherever the file has them. The
    slice in the middle decides, or the nearest one that is not empty.
    """
    n = len(raw)
    for k in sorted(range(n), key=lambda k: abs(k - n // 2)):
        values = np.nan_to_num(to_double(raw[k]), nan=0, posinf=0, neginf=0)
        if values.any():
            values /= np.abs(values).max()
            return _participation(values) < _participation(np.fft.fft2(values, norm="ortho"))
    return False


def read_complex(file_name: str, scan: Scan, kind: str) -> Stack:
    """The k-space of complex numbers, or the images that they are: if `kind` is "image" and they look like images.

    Images of several coils become the root of their sum of squares.
    """
    if kind == "kspace" or looks_like_kspace(slices := [scan.read_slice(k) for k in range(scan.shape[0])]):
        return to_kspace(file_name, scan)
    raw = np.stack(slices)
    if scan.shape[1] == 1:
        return Stack(raw[:, 0], list(scan.notes))
    return Stack(np.linalg.norm(raw, axis=1), [*scan.notes, "the root of the sum of squares of complex images of coils"])


def _participation(values: np.ndarray) -> float:
    """How many values share the energy: their number if all are equal, 1 if one has all of it."""
    power = np.abs(values) ** 2
    return float(power.sum() ** 2 / (power**2).sum())


def to_magnitudes(file_name: str, stack: Stack) -> Stack:
    """The images of a stack: its own, or those of its k-space if they are a truth.

    Raises:
        InputError: if its k-space is under-sampled.
    """
    if stack.kind == "image":
        return stack
    require_truth(file_name, stack.no_truth)
    raw = stack.raw[:, None] if stack.raw.ndim == 3 else stack.raw
    images = to_images(file_name, make_scan(file_name, raw, notes=tuple(stack.notes)))
    return images._replace(affine=stack.affine, is_metric=stack.is_metric)


def require_truth(file_name: str, no_truth: str) -> None:
    """Raises `InputError` if a file holds no truth; `no_truth` is that of `Scan` or `Stack`."""
    if no_truth:
        raise InputError(f"{file_name} must be fully sampled, but {no_truth}.")


def pixel_affine(sides: tuple[float, float], is_metric: bool) -> np.ndarray | None:
    """The affine of pixels of some sides, whose position is not known; None for squares of unknown length.

    Sides that are not in mm are scaled so that the shorter one is 1.
    """
    row, column = sides
    if not is_metric:
        if geometry.is_square(row, column):
            return None
        row, column = row / min(row, column), column / min(row, column)
    return np.diag([row, column, 1.0, 1.0])
