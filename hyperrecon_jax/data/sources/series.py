"""Group the image files of a folder into series, such as the slices of a scan, and order the files of each.

A series is one of:

- the DICOM files with the same SeriesInstanceUID; DICOM files without one: those of the same folder;
- the files of the same format in the same folder that hold one slice each;
- a file of several slices.

Files in which large values are dark (MONOCHROME1, WhiteIsZero) are never in a series with others.

DICOM files are in the order of their positions along the normal, if all have a position and are parallel; else of
InstanceNumber, if all have one; else of their names. All other files are in the order of their names.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.data.sources.image_files import read_bytes
from hyperrecon_jax.data.volumes import formats
from hyperrecon_jax.data.volumes.stack import Stack, brief
from hyperrecon_jax.runtime.errors import InputError

TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber")


class File(NamedTuple):
    """An image file that has been read."""

    path: str
    stack: Stack
    series: tuple[Any, ...]  # equal for the files of a series; its first entry is the format
    number: int | None  # InstanceNumber


def read(files: Iterable[Path]) -> list[list[File]]:
    """Read files and group them: the files of each series in their order, series in the order of their first files.

    Args:
        files: in the order of their names.

    Raises:
        InputError: if a file cannot be read.
    """
    series: dict[tuple[Any, ...], list[File]] = {}
    for path in files:
        file = _read_file(path)
        series.setdefault(file.series, []).append(file)
    return [_sort_files(members) for members in series.values()]


def study_id(path: Path) -> str:
    """The StudyInstanceUID of a DICOM file; "" if it has none or is of another format."""
    is_dicom = path.name.lower().endswith(formats.EXTENSIONS["dicom"]) or read_bytes(path, 132)[128:] == b"DICM"
    return _read_header(path, read_bytes(path))[0] if is_dicom else ""


def _read_file(path: Path) -> File:
    name, content = str(path), read_bytes(path)
    stack, form = formats.decode(name, content, "image"), formats.format_of(name, content)
    if form == "dicom":
        _, series, number = _read_header(path, content)
        return File(name, stack, (form, series or path.parent, stack.inverted), number)
    return File(name, stack, (form, path.parent if len(stack.raw) == 1 else path, stack.inverted), None)


def _read_header(path: Path, content: bytes) -> tuple[str, str, int | None]:
    """StudyInstanceUID, SeriesInstanceUID and InstanceNumber of a DICOM file; "" and None where they are missing."""
    import pydicom

    try:
        data = pydicom.dcmread(io.BytesIO(content), force=True, stop_before_pixels=True, specific_tags=list(TAGS))
        study, series, number = (str("" if data.get(tag) is None else data.get(tag)) for tag in TAGS)
        return study, series, int(number) if number else None
    except Exception as error:  # there is no list of what pydicom raises for damaged files
        raise InputError(f"{path} must be a whole DICOM file, but it cannot be read: {brief(error)}") from error


def _sort_files(files: list[File]) -> list[File]:
    """The files of a series in the order of positions, else of numbers. `files` is sorted by name."""
    if files[0].series[0] != "dicom":
        return files
    if all(file.number is not None for file in files):
        files = sorted(files, key=lambda file: file.number or 0)
    affines = [file.stack.affine for file in files if file.stack.affine is not None and file.stack.space]
    if len(affines) < len(files):
        return files
    row_steps, column_steps, _, positions = np.stack(affines)[:, :3].transpose(2, 0, 1)
    normals = np.cross(column_steps, row_steps)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    if not np.allclose(normals, normals[0], rtol=0, atol=1e-3):
        return files
    # Rounded to a micrometre, so that images of the same position at several times stay in the order of their numbers.
    return [files[k] for k in np.argsort((positions @ normals[0]).round(3), kind="stable")]
