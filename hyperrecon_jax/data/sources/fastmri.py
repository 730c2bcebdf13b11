"""fastMRI: knees of one coil or many, brains, as magnitude images or as the k-space that was measured.

Images (`coils=0`): of `reconstruction_esc`, else `reconstruction_rss`, else the root of the sum of squares of the inverse
transform of `kspace`, the central 320 x 320 pixels (zeros around smaller ones), both axes flipped for display, divided by
the largest value of the volume, that is of the file, over all its slices, and resampled (`grid.resample`).

K-space (`coils > 0`), of a slice at a time but for the mixing of coils, which is one for a file:
    1. readout (rows, oversampled): the central 320 pixels of the field of view, or all where there are fewer;
    2. `whiten`: noise of unit variance and no correlation (`coils.noise_covariance`, `coils.whiten`);
    3. the central `size` frequencies both ways, zeros around where there are fewer. Along the phase encodes (columns)
       nothing else happens: measured lines stay measured lines, and the field of view is the scan's. So pixels are
       as long as the fields of view divided by `size`, and may not be exactly square;
    4. coils compressed to `coils` virtual ones, or coils of zeros appended (`coils.compress`);
    5. zero frequency to the corner and both axes flipped, by reordering lines and turning their phase: exact;
    6. maps by ESPIRiT, slice by slice, that hold the slow phase of the image. If the file has `sensitivity_maps`
       (slices, coils, h, w), on the grid of the image of its `kspace`, they are cut, resampled and scaled to sum
       |maps|^2 = 1 instead. They belong to the file's own coils, so these must be `coils` in number and not whitened;
    7. the image, the truth, is the magnitude of the coils combined by the maps. It and the k-space are divided by the
       largest value of the image over the slices that are kept.
K-space that fits a real image is F(maps image); it differs from what was measured by noise and fine phase.

A slice has no content, and is dropped, if all its values are zero (the background of a measurement is noise, not zero)
or if its maps are zero everywhere. Of the others at most `slices` of a subject are kept, at even
distances from the first to the last.
"""

from pathlib import Path

import numpy as np

from hyperrecon_jax.data.dataset import evenly_spaced
from hyperrecon_jax.data.sources import grid
from hyperrecon_jax.data.sources.fastmri_file import content, magnitudes, opened, text
from hyperrecon_jax.data.sources.fastmri_kspace import measurements
from hyperrecon_jax.data.sources.subject import EMPTY, Settings, Slices
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime.errors import InputError

INSTRUCTIONS = """\
fastMRI is free for research and education, but only its owners may hand it out: register at https://fastmri.med.nyu.edu/,
accept the data sharing agreement of NYU Langone Health, which forbids to pass the data on, and download by the links that
come by mail. Unpack the archives (singlecoil_train, singlecoil_val, multicoil_train, multicoil_val, brain_multicoil_...)
into one folder; its .h5 files are found at any depth. Those of the test and challenge sets are under-sampled and hold no
truth. Please cite Zbontar et al., arXiv:1811.08839 (2018), and Knoll et al., Radiology: AI 2:e190007 (2020)."""


def find(root: Path, settings: Settings) -> dict[str, list[Path]]:
    """Who there is below `root`: subject -> its `.h5` files, both in order of their names.

    All files of one `patient_id` are one subject. Without that attribute files of one name are, as fastMRI gives a scan
    the same name in its archives of one coil and of many. A file that cannot be opened is a subject of its own, so that
    `read` can say what is wrong with it.

    Raises:
        InputError: if there are no such files, or none with `settings.acquisition`.
    """
    paths = sorted(Path(root).rglob("*.h5"))
    if not paths:
        raise InputError(f"{root} must hold the .h5 files of fastMRI, but there are none.\n{INSTRUCTIONS}")
    subjects: dict[str, list[Path]] = {}
    closed: dict[str, list[Path]] = {}
    others = set()
    for path in paths:
        try:
            with opened(path) as file:
                patient, acquisition = (text(file.attrs.get(key)) for key in ("patient_id", "acquisition"))
        except InputError:
            closed[str(path.relative_to(root))] = [path]
            continue
        if settings.acquisition in ("", acquisition):
            subjects.setdefault(patient or path.name, []).append(path)
        else:
            others.add(acquisition or "none")
    if others and not subjects:
        raise InputError(
            f"`acquisition` must be one of those below {root}, {', '.join(sorted(others))}, got {settings.acquisition!r}."
        )
    for name, files in closed.items():
        subjects[name] = subjects.get(name, []) + files
    return dict(sorted(subjects.items()))


def read(files: list[Path], settings: Settings) -> Slices:
    """The slices of one subject, of all its files.

    Raises:
        InputError: if a file is damaged, lacks what is read, is under-sampled, has other shapes than fastMRI's or holds
            NaN or infinity; if no slice has content; if it comes with maps of other coils than are asked for.
    """
    return _measured(files, settings) if settings.coils else _pictures(files, settings)


def _pictures(files: list[Path], settings: Settings) -> Slices:
    images = np.concatenate([magnitudes(path) for path in files])
    full = images.any((1, 2))
    images = images[full][_kept(files, int(full.sum()), settings)]
    images = grid.resample(images[:, ::-1, ::-1], settings.size, settings.size)
    return Slices(np.clip(images, 0, 1), None, None, _dropped(int((~full).sum())))


def _measured(files: list[Path], settings: Settings) -> Slices:
    full = [content(path) for path in files]
    places = [(path, k) for path, flags in zip(files, full, strict=True) for k in np.flatnonzero(flags)]
    kept = [places[place] for place in _kept(files, len(places), settings)]
    found = [measurements(path, [k for at, k in kept if at == path], settings) for path in dict(kept)]
    image, kspace, maps = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    seen = maps.any((1, 2, 3))
    if not seen.any():
        raise InputError(f"{files[0]} must show something, but its sensitivity maps are zero everywhere.")
    empty = (~np.concatenate(full)).sum() + (~seen).sum()
    return Slices(image[seen], None, Coils(kspace[seen], maps[seen]), _dropped(int(empty)))


def _kept(files: list[Path], size: int, settings: Settings) -> np.ndarray:
    """Which of `size` slices with content."""
    if not size:
        raise InputError(f"{files[0]} must show something, but all of its values are 0.")
    return evenly_spaced(size, settings.slices)


def _dropped(empty: int) -> dict[str, int]:
    return {EMPTY: empty} if empty else {}
