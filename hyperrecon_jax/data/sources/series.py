"""Which image files of a folder are one series, as of one scan, and in which order.

A series is the DICOM files of one SeriesInstanceUID (without one, of one folder); else the files of one slice each and of
one format in one folder; or a file of several slices. DICOM files are in the order of their positions along the normal, if
all have one and are parallel, else of InstanceNumber, if all have one, else of their names. All others are in the order of
their names.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.data.sources.image_files import content
from hyperrecon_jax.data.volumes import formats
from hyperrecon_jax.data.volumes.stack import Stack, brief
from hyperrecon_jax.runtime.errors import InputError

TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber")


class File(NamedTuple):
    where: str
    stack: Stack
    series: tuple[Any, ...]  # equal for files of one series; first the format
    number: int | None  # InstanceNumber


def read(files: Iterable[Path]) -> list[list[File]]:
    """The files of each series, in their order; series in the order of their first files.

    Args:
        files: in the order of their names.

    Raises:
        InputError: if one cannot be read.
    """
    series: dict[tuple[Any, ...], list[File]] = {}
    for path in files:
        file = _file(path)
        series.setdefault(file.series, []).append(file)
    return [_sorted(members) for members in series.values()]


def study(path: Path) -> str:
    """The StudyInstanceUID of a DICOM file; "" if it has none or is no such file."""
    is_dicom = path.name.lower().endswith(formats.EXTENSIONS["dicom"]) or content(path, 132)[128:] == b"DICM"
    return _header(path, content(path))[0] if is_dicom else ""


def _file(path: Path) -> File:
    where, whole = str(path), content(path)
    stack, form = formats.decode(where, whole, "image"), formats.format_of(where, whole)
    if form == "dicom":
        _, series, number = _header(path, whole)
        return File(where, stack, (form, series or path.parent), number)
    return File(where, stack, (form, path.parent if len(stack.raw) == 1 else path), None)


def _header(path: Path, whole: bytes) -> tuple[str, str, int | None]:
    import pydicom

    try:
        data = pydicom.dcmread(io.BytesIO(whole), force=True, stop_before_pixels=True, specific_tags=list(TAGS))
        study, series, number = (str("" if data.get(tag) is None else data.get(tag)) for tag in TAGS)
        return study, series, int(number) if number else None
    except Exception as error:  # whatever pydicom stumbles over
        raise InputError(f"{path} must be a whole DICOM file, but it cannot be read: {brief(error)}") from error


def _sorted(series: list[File]) -> list[File]:
    """`series` is sorted by name, and stays so where nothing else is known."""
    if series[0].series[0] != "dicom":
        return series
    if all(file.number is not None for file in series):
        series = sorted(series, key=lambda file: file.number or 0)
    affines = [file.stack.affine for file in series if file.stack.affine is not None and file.stack.space]
    if len(affines) < len(series):
        return series
    down, across, _, place = np.stack(affines)[:, :3].transpose(2, 0, 1)
    normal = np.cross(across, down)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    if not np.allclose(normal, normal[0], rtol=0, atol=1e-3):
        return series
    # to a micrometre: several images of one place, as at several times, stay in the order of their numbers
    return [series[k] for k in np.argsort((place @ normal[0]).round(3), kind="stable")]
