"""A folder of your own images: `data.source = "folder"`. A subject is a file directly in it, or a sub-folder.

    root/
      anna.nii.gz               one subject
      bert/T1.mgz, T2.mgz       one subject, two series
      carl/IM0001, IM0002, ...  one subject, a DICOM series
      dora/slice1.png, ...      one subject, a series of pictures

Put all images of a person into one sub-folder: splits are by subject, and otherwise a person could be in two
splits. All image files of a sub-folder are read, at any depth:

- NIfTI, MGH, `.npy`, `.npz`, HDF5 of fastMRI, DICOM, PNG, JPEG and TIFF; `volumes.read` describes each format. NIfTI, MGH
  and DICOM with positions become slices of the plane `config.data.plane`, with the right on the LEFT; by default the plane
  in which they were acquired. `volumes/geometry.py` has the rules. All others stay as they are stored.
- Files of k-space that is fully sampled: `.npy`, `.npz`, HDF5 of fastMRI and ISMRMRD, MATLAB (`.mat`) and BART (`.cfl` and
  `.hdr`). Without `coils` they become magnitude images, the root of the sum of squares of their coils. With `coils` all
  files must be such files, and `scans.py` has the steps.
- The format is recognised by the first bytes or the extension (DICOM without a preamble needs `.dcm`). A file of one of
  these formats that holds no image, such as a report, is skipped and counted; if it is damaged, the subject cannot be used.
  Other formats of images (`FOREIGN`) are refused. Hidden files, DICOMDIR and all other files are ignored.
- `config.data.include` and `exclude` are patterns as of a shell, such as `*_t1.nii.gz` or `anna/*`; `*` also stands for
  `/`. They are compared with the path below the root and with the name alone. A note says what may be a label map.
- `series.py` says which files are a series, and their order; names are in natural order (2 before 10).
- Every series has ONE scale: the largest value becomes 1, and the smallest or 0, whichever is lower, becomes 0.
  `image_slices.py` has this and the next steps, with `fastmri`.
"""

import contextlib
import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path

from hyperrecon_jax.data.sources import series
from hyperrecon_jax.data.sources.base import Settings, Slices, name_files
from hyperrecon_jax.data.sources.fastmri_file import open_scan
from hyperrecon_jax.data.sources.image_files import (
    are_labels,
    check_folder,
    files_below,
    is_image,
    is_loop,
    natural_order,
    read_bytes,
)
from hyperrecon_jax.data.sources.image_slices import make_slices
from hyperrecon_jax.data.sources.scans import read_measured
from hyperrecon_jax.data.volumes import formats
from hyperrecon_jax.data.volumes.scan import Scan
from hyperrecon_jax.runtime.errors import InputError

FOREIGN = (".hdr", ".img", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".bmp", ".gif", ".webp", ".jp2")


def find(root: Path, settings: Settings) -> dict[str, list[Path]]:
    """The files of each subject. Its name is that of the sub-folder, or of the file without its extension; natural order.

    A sub-folder without images is no subject. Symbolic links are followed, except to a folder that the link is in. Only the
    first bytes are read of files whose name does not tell the format, and the header of DICOM files directly in `root`.

    Raises:
        InputError: if `root` is no folder or holds no images, if two subjects have the same name or are links to the same
            place, or if two DICOM files directly in it are of the same study, thus of the same person.
    """
    check_folder(root)
    subjects: dict[str, list[Path]] = {}
    places: dict[str, Path] = {}
    studies: dict[str, Path] = {}
    for path in sorted(root.iterdir(), key=lambda path: natural_order(path.relative_to(root))):
        if path.is_dir():
            is_skipped = path.name.startswith(".") or is_loop(path)
            name, files = path.name, [] if is_skipped else sorted(_image_files(path), key=natural_order)
        else:
            name, files = _stem(path.name), [path] if _is_image(path) else []
        files = [file for file in files if _is_selected(file.relative_to(root), settings)]
        if not files:
            continue
        if name in subjects:
            raise InputError(f"{root} must hold each subject once, but {name} is in {subjects[name][0]} and in {files[0]}.")
        subjects[name] = files
        for place in {os.path.realpath(place) for place in (path, *(file.parent for file in files if path.is_dir()))}:
            same_place = places.setdefault(place, path)
            if same_place is not path:
                raise InputError(
                    f"{root} must hold each subject once, but {same_place.name} and {path.name} lead to the same."
                )
        study = "" if path.is_dir() else series.study_id(path)
        if study in studies:
            raise InputError(
                f"{root} must hold a sub-folder for each person, but {studies[study].name} and {path.name} are of one DICOM"
                " study and lie directly in it, where each file is a subject."
            )
        if study:
            studies[study] = path
    if not subjects:
        patterns = " and that the patterns of `include` and `exclude` leave" if settings.include or settings.exclude else ""
        raise InputError(
            f"{root} must hold images, or sub-folders of images, but there is none that can be read{patterns}."
        )
    return subjects


def count_excluded(root: Path, settings: Settings) -> int:
    """How many image files below `root` the patterns leave out."""
    if not (settings.include or settings.exclude):
        return 0
    return sum(not _is_selected(path.relative_to(root), settings) for path in _image_files(root))


def read(files: list[Path], settings: Settings) -> Slices:
    """The slices of a subject; the docstring of this module says how they are made.

    Raises:
        InputError: if a file cannot be read or holds infinity, if it holds k-space that is under-sampled, if no slice has
            content, or if `settings.coils` asks for k-space and a file has none.
    """
    if settings.coils:
        return read_measured(files, settings, _open_scan, flip=False)
    groups, skipped = series.read(files, settings.plane)
    slices = make_slices([[(file.path, file.stack) for file in members] for members in groups], settings, flip=False)
    if slices is None:
        total = sum(len(file.stack.raw) for members in groups for file in members)
        reasons = [f"{'its slice has' if total == 1 else f'each of {total} slices has'} one value alone"] if total else []
        reasons += [f"{count} {'was' if count == 1 else 'were'} skipped ({reason})" for reason, count in skipped.items()]
        beside = " and what is beside it" if len(files) > 1 else ""
        raise InputError(f"{files[0]}{beside} must hold images, but {', and '.join(reasons)}.")
    labels = [members[0].path for members in groups if are_labels([file.stack for file in members])]
    return slices._replace(notes=(*slices.notes, *_label_notes(labels)), skipped=skipped)


def _label_notes(paths: list[str]) -> tuple[str, ...]:
    """What the user should know about files that look like label maps."""
    return (f"{name_files(paths)} may be a label map; --exclude leaves such files out",) if paths else ()


@contextlib.contextmanager
def _open_scan(path: Path) -> Iterator[Scan]:
    """The k-space of a file."""
    if formats.format_of(str(path), read_bytes(path, 2**16)) == "h5":
        with open_scan(path) as scan:
            yield scan
    else:
        yield formats.decode_scan(str(path), read_bytes(path))


def _image_files(root: Path) -> Iterator[Path]:
    """The image files below a folder, at any depth."""
    return (path for path in files_below(root) if _is_image(path))


def _is_selected(path: Path, settings: Settings) -> bool:
    """Whether the patterns select a file; `path` is relative to the root."""

    def matches(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(text, pattern) for text in (path.as_posix(), path.name) for pattern in patterns)

    return (not settings.include or matches(settings.include)) and not matches(settings.exclude)


def _is_image(path: Path) -> bool:
    """Whether the name or the first bytes of a file are those of an image."""
    name = path.name.lower()
    is_half = name.endswith(".hdr") and path.with_suffix(".cfl").exists()  # of a pair of BART, which is read as one
    if name.startswith(".") or name == "dicomdir" or is_half:
        return False
    if name.endswith(FOREIGN) or _stem(name) != name:
        return True
    try:
        return is_image(path, read_bytes(path, 2**16))
    except InputError:
        return False


def _stem(name: str) -> str:
    """The name without the extension of an image."""
    extensions = [extension for group in formats.EXTENSIONS.values() for extension in group]
    endings = [extension for extension in extensions if name.lower().endswith(extension)]
    return name.removesuffix(name[-len(max(endings, key=len)) :]) if endings else name
