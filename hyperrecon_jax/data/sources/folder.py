"""A folder of people's own images: `data.source = "folder"`. One subject is a file directly in it, or a sub-folder.

    root/
      anna.nii.gz               one subject
      bert/T1.mgz, T2.mgz       one subject, two series
      carl/IM0001, IM0002, ...  one subject, a DICOM series
      dora/slice1.png, ...      one subject, a series of pictures

Keep all that shows one person in one sub-folder: splits are by subject, and only so does no person end up in two. What is
read of a sub-folder is every image file in it, at any depth:

- NIfTI, MGH, `.npy`, `.npz`, HDF5 as of fastMRI, DICOM, PNG, JPEG and TIFF, as `volumes.read` tells of each. So volumes
  become axial slices, anterior up and the right on the LEFT, and all others stay as they are stored.
- A file is one of these by its first bytes or its extension (DICOM without a preamble needs `.dcm`), and must be readable.
  Other formats of images (`FOREIGN`) are refused; hidden files, DICOMDIR and everything else are passed over.
- Series, and the files of each, are as `series` says, names in natural order (2 before 10).
- Every series has ONE scale. Of its values in the file's units (slope and intercept applied, complex ones as magnitudes,
  colours as luminance) the largest becomes 1, and the smallest or 0, whichever is lower, becomes 0; then MONOCHROME1 is
  inverted.
- A slice of one value alone is dropped as "background alone".
- `image_files.on_grid`: square pixels, padded to a square, then resampled to `size`. Slices may differ in size.
- At most `slices` of the subject, evenly_spaced evenly over all its series.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hyperrecon_jax.data.dataset import evenly_spaced
from hyperrecon_jax.data.sources import series
from hyperrecon_jax.data.sources.image_files import check_folder, content, natural, on_grid
from hyperrecon_jax.data.sources.subject import EMPTY, Settings, Slices
from hyperrecon_jax.data.volumes import formats
from hyperrecon_jax.data.volumes.stack import magnitude
from hyperrecon_jax.runtime.errors import InputError

FOREIGN = (".hdr", ".img", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".bmp", ".gif", ".webp", ".jp2")


def find(root: Path, settings: Settings) -> dict[str, list[Path]]:
    """The files of each subject: named as the sub-folder, or as the file without its extension, in natural order.

    Sub-folders without images are no subjects. Symbolic links are followed. No more is read than the first bytes of files
    whose name does not tell, and the header of DICOM files directly in `root`.

    Raises:
        InputError: if `root` is no folder or holds no images, if two subjects have one name or are links to
            the same, or if two DICOM files directly in it are of one study, thus of one person.
    """
    check_folder(root)
    found: dict[str, list[Path]] = {}
    places: dict[Path, Path] = {}
    studies: dict[str, Path] = {}
    for path in sorted(root.iterdir(), key=lambda path: natural(path.relative_to(root))):
        if path.is_dir():
            name, files = path.name, [] if path.name.startswith(".") else sorted(_below(path), key=natural)
        else:
            name, files = _stem(path.name), [path] if _is_image(path) else []
        if not files:
            continue
        if name in found:
            raise InputError(f"{root} must hold each subject once, but {name} is in {found[name][0]} and in {files[0]}.")
        found[name] = files
        same = places.setdefault(path.resolve(), path)
        if same is not path:
            raise InputError(f"{root} must hold each subject once, but {same.name} and {path.name} lead to the same.")
        study = "" if path.is_dir() else series.study(path)
        if study in studies:
            raise InputError(
                f"{root} must hold a sub-folder for each person, but {studies[study].name} and {path.name} are of one DICOM"
                " study and lie directly in it, where each file is a subject."
            )
        if study:
            studies[study] = path
    if not found:
        raise InputError(f"{root} must hold images, or sub-folders of images, but there is none that can be read.")
    return found


def read(files: list[Path], settings: Settings) -> Slices:
    """The slices of one subject, as the head of this module tells.

    Raises:
        InputError: if a file cannot be read or holds NaN or infinity, if no slice has content, or if `settings.coils` asks
            for k-space.
    """
    if settings.coils:
        raise InputError(
            f"A folder of images must be read with 0 coils, got {settings.coils}; only fastMRI has measured k-space."
        )
    slices: list[tuple[series.File, int, float, float]] = []  # file, slice, lowest and highest value of its series
    total = 0
    for members in series.read(files):
        extremes = [_extremes(file) for file in members]
        low, high = min(0.0, min(of.min() for of in extremes)), max(of.max() for of in extremes)
        if high / 2 - low / 2 > np.finfo(np.float64).max / 2:
            raise InputError(f"{members[0].where} must be of a series of finite range, got {low:g} to {high:g}.")
        for file, of in zip(members, extremes, strict=True):
            total += len(of)
            slices += [(file, int(k), low, high) for k in np.flatnonzero(of[:, 0] < of[:, 1])]
    if not slices:
        raise InputError(
            f"{files[0]}{' and what is beside it' if len(files) > 1 else ''} must hold images, but of {total} slices each"
            " has one value alone."
        )

    images = []
    for k in evenly_spaced(len(slices), settings.slices):
        file, index, low, high = slices[k]
        image = (magnitude(file.where, file.stack, index) - low) / (high - low)
        image = (1 - image if file.stack.inverted else image).astype(np.float32)
        images.append(on_grid(image[None], file.stack.affine, settings.size))
    return Slices(image=np.clip(np.concatenate(images), 0, 1), label=None, coils=None, dropped={EMPTY: total - len(slices)})


def _below(root: Path) -> Iterator[Path]:
    seen = set()  # a link may lead back up
    for folder, below, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            yield from (path for path in (Path(folder, name) for name in names) if _is_image(path))
        seen.add(real)


def _is_image(path: Path) -> bool:
    """Whether it claims to be one."""
    name = path.name.lower()
    if name.startswith(".") or name == "dicomdir":
        return False
    if name.endswith(FOREIGN) or _stem(name) != name:
        return True
    try:
        formats.format_of(name, content(path, 2**16))
    except InputError:
        return False
    return True


def _stem(name: str) -> str:
    """Without the extension of an image."""
    endings = [ending for of in formats.EXTENSIONS.values() for ending in of if name.lower().endswith(ending)]
    return name.removesuffix(name[-len(max(endings, key=len)) :]) if endings else name


def _extremes(file: series.File) -> np.ndarray:
    """The lowest and the highest value of each slice: `(n, 2)`."""
    values = (magnitude(file.where, file.stack, k) for k in range(len(file.stack.raw)))
    return np.array([(one.min(), one.max()) for one in values])
