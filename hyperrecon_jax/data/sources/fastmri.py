"""fastMRI: knees of one coil or many, and brains, as magnitude images or as measured k-space.

Images (`coils=0`): from `reconstruction_esc`, else `reconstruction_rss`, else the root of the sum of squares of the inverse
transform of `kspace`. The central 320 x 320 pixels (zeros around smaller images), both axes flipped for display, divided by
the largest value of the volume, that is of the file, over all its slices, and resampled (`grid.resample`).

K-space (`coils > 0`), by the recipe of `kspace.py`; ESPIRiT works slice by slice, the mixing of coils is the same for a
file:
    1. readout (rows, oversampled): the central 320 pixels of the field of view, or all where there are fewer;
    2. `whiten`: noise of unit variance and no correlation (`coils.noise_covariance`, `coils.whiten`);
    3. the central `size` frequencies along both sides, zeros around where there are fewer. Along the phase encodes
       (columns) nothing else happens: measured lines stay measured lines, and the field of view is the scan's. So pixels
       are as long as the fields of view divided by `size`, and may not be exactly square;
    4. zero frequency to the corner and both axes flipped, by moving lines and turning their phase, which is exact;
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

from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data import grid
from hyperrecon_jax.data import kspace as recipe
from hyperrecon_jax.data.dataset import evenly_spaced
from hyperrecon_jax.data.sources.base import EMPTY, Settings, Slices
from hyperrecon_jax.data.sources.fastmri_file import (
    check_kspace,
    has_content,
    open_file,
    peak,
    read_images,
    read_kspace_slice,
    text_attribute,
)
from hyperrecon_jax.data.volumes import hdf5
from hyperrecon_jax.data.volumes.stack import check_finite
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime.errors import InputError

INSTRUCTIONS = """\
fastMRI is free for research and education, but only its owners may hand it out: register at https://fastmri.med.nyu.edu/,
accept the data sharing agreement of NYU Langone Health, which forbids to pass the data on, and download by the links that
come by mail. Unpack the archives (singlecoil_train, singlecoil_val, multicoil_train, multicoil_val, brain_multicoil_...)
into one folder; its .h5 files are found at any depth. Those of the test and challenge sets are under-sampled and hold no
truth. Please cite Zbontar et al., arXiv:1811.08839 (2018), and Knoll et al., Radiology: AI 2:e190007 (2020)."""


def find(root: Path, settings: Settings) -> dict[str, list[Path]]:
    """The subjects below `root`, each with its `.h5` files; both in order of their names.

    All files with the same `patient_id` are one subject. Without that attribute, files of the same name are, because
    fastMRI gives a scan the same name in its archives of one coil and of many. A file that cannot be opened is a subject
    of its own, so that `read` can say what is wrong with it.

    Raises:
        InputError: if there are no such files, or none with `settings.acquisition`.
    """
    paths = sorted(Path(root).rglob("*.h5"))
    if not paths:
        raise InputError(f"{root} must hold the .h5 files of fastMRI, but there are none.\n{INSTRUCTIONS}")
    subjects: dict[str, list[Path]] = {}
    damaged: dict[str, list[Path]] = {}
    other_acquisitions = set()
    for path in paths:
        try:
            with open_file(path) as file:
                patient, acquisition = (text_attribute(file.attrs.get(key)) for key in ("patient_id", "acquisition"))
        except InputError:
            damaged[str(path.relative_to(root))] = [path]
            continue
        if settings.acquisition in ("", acquisition):
            subjects.setdefault(patient or path.name, []).append(path)
        else:
            other_acquisitions.add(acquisition or "none")
    if other_acquisitions and not subjects:
        raise InputError(
            f"`acquisition` must be one of those below {root}, {', '.join(sorted(other_acquisitions))}, got"
            f" {settings.acquisition!r}."
        )
    for name, files in damaged.items():
        subjects[name] = subjects.get(name, []) + files
    return dict(sorted(subjects.items()))


def read(files: list[Path], settings: Settings) -> Slices:
    """The slices of a subject, from all its files.

    Raises:
        InputError: if a file is damaged, lacks its datasets, is under-sampled, has other shapes than those of fastMRI or
            holds NaN or infinity; if no slice has content; if a file has maps of another number of coils than
            `settings.coils`.
    """
    return _read_kspace_slices(files, settings) if settings.coils else _read_image_slices(files, settings)


def _read_image_slices(files: list[Path], settings: Settings) -> Slices:
    images = np.concatenate([read_images(path) for path in files])
    nonzero = images.any((1, 2))
    images = images[nonzero][_select_slices(files, int(nonzero.sum()), settings)]
    images = grid.resample(images[:, ::-1, ::-1], settings.size, settings.size)
    return Slices(np.clip(images, 0, 1), None, None, _dropped(int((~nonzero).sum())))


def _read_kspace_slices(files: list[Path], settings: Settings) -> Slices:
    nonzero = [has_content(path) for path in files]
    candidates = [(path, k) for path, flags in zip(files, nonzero, strict=True) for k in np.flatnonzero(flags)]
    selected = [candidates[i] for i in _select_slices(files, len(candidates), settings)]
    volumes = [_read_measurements(path, [k for p, k in selected if p == path], settings) for path in dict(selected)]
    image, kspace, maps = (np.concatenate(arrays) for arrays in zip(*volumes, strict=True))
    visible = maps.any((1, 2, 3))
    if not visible.any():
        raise InputError(f"{files[0]} must show something, but its sensitivity maps are zero everywhere.")
    empty = (~np.concatenate(nonzero)).sum() + (~visible).sum()
    return Slices(image[visible], None, Coils(kspace[visible], maps[visible]), _dropped(int(empty)))


def _read_measurements(path: Path, index: list[int], settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image `(n, size, size)`, k-space and maps `(n, coils, size, size)` of some slices of a file."""
    with open_file(path) as file:
        kspace = np.stack([read_kspace_slice(path, file, k) for k in index])
        file_maps = _read_maps(path, file, index, settings)
    kspace = recipe.virtual_coils(
        kspace, rows=hdf5.CROP, size=settings.size, flip=True, whiten=settings.whiten, count=settings.coils
    )
    pairs = [
        recipe.make_image_and_maps(kspace[i], maps=None if file_maps is None else file_maps[i]) for i in range(len(kspace))
    ]
    image, maps = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    scale = peak(path, image)
    return image / scale, kspace / scale, maps


def _read_maps(path: Path, file: Any, index: list[int], settings: Settings) -> np.ndarray | None:
    """The maps that the file has for some slices, on the grid of the training images; None if it has none."""
    shape = check_kspace(path, file)
    if "sensitivity_maps" not in file:
        return None
    stored = hdf5.dataset(str(path), file, "sensitivity_maps")
    if stored.dtype.kind != "c" or stored.shape != shape:
        raise InputError(
            f"{path} must have complex `sensitivity_maps` of shape {shape} (slices, coils, h, w) as its k-space, got"
            f" {stored.dtype} of shape {stored.shape}."
        )
    _, c, h, w = shape
    if c != settings.coils or settings.whiten:
        raise InputError(
            f"{path} has `sensitivity_maps` of its own {c} coils, which fit no others: use `coils={c}` and `whiten=False`,"
            f" got `coils={settings.coils}` and `whiten={settings.whiten}`."
        )
    out = np.empty((len(index), c, settings.size, settings.size), np.complex64)
    for row, k in enumerate(index):
        maps = grid.centre(stored[k], min(h, hdf5.CROP), w)[:, ::-1, ::-1]
        check_finite(str(path), k, maps)
        maps = grid.resample(maps.real, *out.shape[2:]) + 1j * grid.resample(maps.imag, *out.shape[2:])
        length = np.linalg.norm(maps, axis=0)
        out[row] = maps / np.where(length > 1e-3 * length.max(), length, np.inf)
    return out


def _select_slices(files: list[Path], size: int, settings: Settings) -> np.ndarray:
    """Indices of the slices to use, of `size` slices with content."""
    if not size:
        raise InputError(f"{files[0]} must show something, but all of its values are 0.")
    return evenly_spaced(size, settings.slices)


def _dropped(empty: int) -> dict[str, int]:
    return {EMPTY: empty} if empty else {}
