"""From measured k-space to the slices of a subject, for `fastmri` and `folder`: the recipe of `data/kspace.py`.

    1. a square field of view: as wide as all phase encodes (columns), or as high as the image where that is more
       (`FieldOfView.square`). Rows beyond it, which oversample the readout, are cut off. Columns are left alone, so
       measured lines stay measured lines, unless the image is higher than the phase encodes are wide: then zeros are added
       beside it, and lines between the measured ones are interpolated;
    2. `whiten`: noise of unit variance and no correlation (`coils.noise_covariance`, `coils.whiten`);
    3. the central `size` frequencies along both sides, zeros around where there are fewer;
    4. zero frequency to the corner and, for fastMRI, both axes flipped, by moving lines and turning their phase: exact;
    5. coils compressed to `coils` virtual ones, or coils of zeros appended (`coils.compress`);
    6. maps by ESPIRiT, slice by slice, unless the file has `sensitivity_maps` (slices, coils, h, w), on the grid of the
       image of its `kspace`. These are cut, resampled and scaled to sum |maps|^2 = 1. They belong to the coils of the
       file, so the number of these must be `coils`, and `whiten` must be False;
    7. the maps take the slow phase of the image (`coils.absorb_phase`);
    8. the image, the reference, is the magnitude of the coils combined by the maps. Image and k-space are divided by the
       largest value of the image over the slices of the file that are used.
K-space that fits a real image is F(maps image). The measured k-space differs from it by noise and fine phase.

A slice is dropped if all its values are zero (the background of a measurement is noise, not zero) or if its maps are zero
everywhere. At most `slices` of the others are used, evenly spaced from the first to the last.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from hyperrecon_jax.data import grid
from hyperrecon_jax.data import kspace as recipe
from hyperrecon_jax.data.dataset import evenly_spaced
from hyperrecon_jax.data.sources.base import EMPTY, Settings, Slices, list_notes
from hyperrecon_jax.data.volumes.field_of_view import count_pixels
from hyperrecon_jax.data.volumes.scan import Scan, require_truth
from hyperrecon_jax.data.volumes.stack import check_finite
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime.errors import InputError

OpenScan = Callable[[Path], AbstractContextManager[Scan]]


def read_measured(files: list[Path], settings: Settings, open_scan: OpenScan, *, flip: bool) -> Slices:
    """The slices of a subject, from the k-space of all its files.

    Args:
        files: of the subject.
        settings: with `coils` above 0.
        open_scan: opens the k-space of a file for reading.
        flip: flip the images along both axes.

    Raises:
        InputError: if a file is no k-space, is under-sampled or holds NaN or infinity; if no slice has content; if a file
            has maps of another number of coils than `settings.coils`.
    """
    nonzero = [_find_content(path, open_scan) for path in files]
    candidates = [(path, k) for path, flags in zip(files, nonzero, strict=True) for k in np.flatnonzero(flags)]
    selected = [candidates[i] for i in select_slices(files, len(candidates), settings)]
    volumes, notes = [], []
    for path in dict(selected):
        with open_scan(path) as scan:
            notes.append((str(path), scan.notes))
            volumes.append(_read_file(path, scan, [k for p, k in selected if p == path], settings, flip))
    image, kspace, maps = (np.concatenate(arrays) for arrays in zip(*volumes, strict=True))
    visible = maps.any((1, 2, 3))
    if not visible.any():
        raise InputError(f"{files[0]} must show something, but its sensitivity maps are zero everywhere.")
    empty = (~np.concatenate(nonzero)).sum() + (~visible).sum()
    return Slices(image[visible], None, Coils(kspace[visible], maps[visible]), count_dropped(int(empty)), list_notes(notes))


def select_slices(files: list[Path], size: int, settings: Settings) -> np.ndarray:
    """Indices of the slices to use, of `size` slices with content."""
    if not size:
        raise InputError(explain_empty(files))
    return evenly_spaced(size, settings.slices)


def explain_empty(files: list[Path]) -> str:
    """The sentence about files of which no slice has content."""
    return f"{files[0]} must show something, but all of its values are equal."


def count_dropped(empty: int) -> dict[str, int]:
    """`Slices.dropped` for a number of empty slices."""
    return {EMPTY: empty} if empty else {}


def peak(path: Path, images: np.ndarray) -> np.float32:
    """The largest value; 1 if all values are zero."""
    largest = images.max()
    if 0 < largest < np.finfo(np.float32).tiny or not np.isfinite(largest):
        raise InputError(f"{path} must hold numbers that float32 can hold, but the largest of its images is {largest:g}.")
    return largest or np.float32(1)


def _find_content(path: Path, open_scan: OpenScan) -> np.ndarray:
    """Whether each slice has a value that is not zero, `(n,)` bool. Reads every value of the file."""
    with open_scan(path) as scan:
        require_truth(str(path), scan.no_truth)
        return np.array([_read_slice(path, scan, k).any() for k in range(scan.shape[0])])


def _read_slice(path: Path, scan: Scan, k: int) -> np.ndarray:
    """The k-space of slice k, `(c, h, w)` complex64, centred."""
    with np.errstate(over="ignore"):  # `check_finite` names what is not finite
        kspace = scan.read_slice(k).astype(np.complex64)
    check_finite(str(path), k, kspace)
    return kspace


def _read_file(
    path: Path, scan: Scan, index: list[int], settings: Settings, flip: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image `(n, size, size)`, k-space and maps `(n, coils, size, size)` of some slices of a file."""
    field = count_pixels(scan.shape[2:], scan.field.encoded, (scan.field.square, scan.field.square))
    kspace = recipe.virtual_coils(
        np.stack([_read_slice(path, scan, k) for k in index]),
        field=field,
        size=settings.size,
        flip=flip,
        whiten=settings.whiten,
        count=settings.coils,
    )
    file_maps = _read_maps(path, scan, index, field, settings, flip)
    pairs = [
        recipe.make_image_and_maps(kspace[i], maps=None if file_maps is None else file_maps[i]) for i in range(len(kspace))
    ]
    image, maps = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    scale = peak(path, image)
    return image / scale, kspace / scale, maps


def _read_maps(
    path: Path, scan: Scan, index: list[int], field: tuple[int, int], settings: Settings, flip: bool
) -> np.ndarray | None:
    """The maps that the file has for some slices, on the grid of the training images; None if it has none."""
    if scan.read_maps is None:
        return None
    c = scan.shape[1]
    if c != settings.coils or settings.whiten:
        raise InputError(
            f"{path} has `sensitivity_maps` of its own {c} coils, which fit no others: use `coils={c}` and `whiten=False`,"
            f" got `coils={settings.coils}` and `whiten={settings.whiten}`."
        )
    out = np.empty((len(index), c, settings.size, settings.size), np.complex64)
    for row, k in enumerate(index):
        maps = grid.centre(scan.read_maps(k), *field)
        maps = maps[:, ::-1, ::-1] if flip else maps
        check_finite(str(path), k, maps)
        maps = grid.resample(maps.real, *out.shape[2:]) + 1j * grid.resample(maps.imag, *out.shape[2:])
        length = np.linalg.norm(maps, axis=0)
        out[row] = maps / np.where(length > 1e-3 * length.max(), length, np.inf)
    return out
