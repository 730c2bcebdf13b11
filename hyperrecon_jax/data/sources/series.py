"""Group the image files of a folder into series, such as the slices of a scan, and order the files of each.

A series is one of:

- the DICOM files of one slice with the same SeriesInstanceUID (without one: of the same folder), if they also have the same
  shape, direction, size of pixels, ImageType and EchoTime. So localizers and echoes are series of their own. Where each
  place holds several slices, such as times, each of them is a series;
- the files of the same format in the same folder that hold one slice each. Pictures and arrays also have the same type of
  integers, such as 8 or 16 bits, as their numbers have another unit in another type;
- a file of several slices.

Files in which large values are dark (MONOCHROME1, WhiteIsZero) are never in a series with others.

DICOM files are in the order of their positions along the normal, if all have a position; else of InstanceNumber, else of
SliceLocation, if all have one; else of their names. All other files are in the order of their names.

Files that hold no image, that cannot be cut in the plane, or that are there twice are skipped, and counted by the reason.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.data.sources.image_files import read_bytes
from hyperrecon_jax.data.volumes import formats, geometry, placement
from hyperrecon_jax.data.volumes.memory_limit import check_memory, reserve
from hyperrecon_jax.data.volumes.stack import NoImageError, Stack, brief
from hyperrecon_jax.runtime.errors import InputError

TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber", "SliceLocation", "ImageType", "EchoTime")
# The fields of a `Stack` that may differ within a series.
SLICE_FIELDS = ("raw", "notes", "slope", "intercept", "padding", "affine", "space", "identity")


class File(NamedTuple):
    """An image file that has been read."""

    path: str
    stack: Stack
    series: tuple[Any, ...]  # equal for the files of a series; its first entry is the format
    numbers: tuple[float | None, ...]  # InstanceNumber and SliceLocation


def read(files: Iterable[Path], plane: str) -> tuple[list[list[File]], dict[str, int]]:
    """`group` for files on disk, in the order of their names."""
    return group(((path, read_bytes(path)) for path in files), plane)


def group(files: Iterable[tuple[Path, bytes]], plane: str) -> tuple[list[list[File]], dict[str, int]]:
    """Decode files and group them.

    Args:
        files: their paths, in the order of the names, and contents.
        plane: of the slices, one of `geometry.PLANES`.

    Returns:
        The files of each series in their order, series in the order of their first files; and for each reason the number
        of files that are skipped.

    Raises:
        InputError: if a file is damaged or of a format that cannot be read.
    """
    by_key: dict[tuple[Any, ...], list[File]] = {}
    skipped: dict[str, int] = {}
    digests = set()

    def skip(reason: str, count: int = 1) -> None:
        skipped[reason] = skipped.get(reason, 0) + count

    for path, content in files:
        try:
            file = _read_file(path, content, plane)
        except NoImageError as error:
            skip(error.reason)
            continue
        reserve(file.stack.raw.nbytes)
        digest = hashlib.sha256(content).digest()
        if file.series[0] == "dicom" and digest in digests:
            skip("a copy of another file")
            continue
        digests.add(digest)
        by_key.setdefault(file.series, []).append(file)
    series = []
    for members in (members for same_key in by_key.values() for members in _split_volumes(same_key)):
        try:
            series.append(_cut(members, plane))
        except NoImageError as error:
            skip(error.reason, len(members))
    return series, skipped


def join(files: Sequence[File]) -> File:
    """The files of a series, in their order, as one.

    Raises:
        InputError: if their slices differ in size.
    """
    first, stacks = files[0], [file.stack for file in files]
    if len(files) == 1:
        return first
    sizes = list(dict.fromkeys(stack.raw.shape[1:] for stack in stacks))
    if len(sizes) > 1:
        raise InputError(f"{first.path} and its series must have slices of one size, got {sizes[0]} and {sizes[1]}.")
    check_memory(first.path, sum(stack.raw.size for stack in stacks), first.stack.raw.dtype)
    layouts = []
    if all(stack.affine is not None and stack.space for stack in stacks):
        layouts = placement.lay_out_stacks(stacks)
    unplaced = placement.Layout(np.arange(len(files)), first.stack.affine, 0, [])
    stack = placement.join_stacks(stacks, layouts[0] if len(layouts) == 1 else unplaced)
    return first._replace(path=f"{first.path} and {len(files) - 1} more", stack=stack)


def study_id(path: Path) -> str:
    """The StudyInstanceUID of a DICOM file; "" if it has none, cannot be read, or is of another format."""
    try:
        is_dicom = path.name.lower().endswith(formats.EXTENSIONS["dicom"]) or read_bytes(path, 132)[128:] == b"DICM"
        return _read_header(path, read_bytes(path))["StudyInstanceUID"] if is_dicom else ""
    except InputError:  # whoever reads its image says what is wrong
        return ""


def _read_file(path: Path, content: bytes, plane: str) -> File:
    name, form = str(path), formats.format_of(str(path), content)
    if form != "dicom":
        stack = formats.decode(name, content, "image", plane=plane)
        return File(name, stack, (form, path.parent if len(stack.raw) == 1 else path, stack.inverted, stack.unit), ())
    stack = formats.decode(name, content, "image")
    if len(stack.raw) > 1:
        return File(name, stack, (form, path), ())
    header = _read_header(path, content)
    numbers = tuple(_to_number(header[tag]) for tag in ("InstanceNumber", "SliceLocation"))
    meaning = tuple(value for field, value in stack._asdict().items() if field not in SLICE_FIELDS)
    kind = (header["ImageType"], _to_number(header["EchoTime"]), meaning)
    return File(name, stack, (form, header["SeriesInstanceUID"] or path.parent, *kind), numbers)


def _read_header(path: Path, content: bytes) -> dict[str, str]:
    """The `TAGS` of a DICOM file; "" where they are missing."""
    import pydicom

    try:
        data = pydicom.dcmread(io.BytesIO(content), force=True, stop_before_pixels=True, specific_tags=list(TAGS))
        return {tag: str("" if data.get(tag) is None else data.get(tag)) for tag in TAGS}
    except Exception as error:  # there is no list of what pydicom raises for damaged files
        raise InputError(f"{path} must be a whole DICOM file, but it cannot be read: {brief(error)}") from error


def _to_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _split_volumes(files: list[File]) -> list[list[File]]:
    """Files of a series as volumes, each in its order. `files` is sorted by name."""
    if files[0].series[0] != "dicom" or len(files) == 1:
        return [files]
    files = _sort_by_number(files)
    if not all(file.stack.affine is not None and file.stack.space for file in files):
        return [files]
    parallel: list[list[File]] = []
    for file in files:
        members = next((members for members in parallel if placement.are_parallel(members[0].stack, file.stack)), None)
        if members is None:
            parallel.append([file])
        else:
            members.append(file)
    volumes = []
    for members in parallel:
        layouts = placement.lay_out_stacks([file.stack for file in members])
        volumes += [[members[k] for k in layout.order] for layout in layouts]
    return volumes


def _sort_by_number(files: list[File]) -> list[File]:
    """Files in the order of the first of their numbers that all have; else as they are."""
    for column in zip(*(file.numbers for file in files), strict=True):
        if None not in column:
            return [files[k] for k in np.argsort(np.array(column, float), kind="stable")]
    return files


def _cut(files: Sequence[File], plane: str) -> list[File]:
    """The slices of a volume in a plane. `files` is returned as it is if it has that plane already.

    Raises:
        NoImageError: if the volume cannot be cut in it.
    """
    first = files[0]
    if first.series[0] != "dicom" or plane == geometry.ACQUIRED:
        return list(files)
    affine = first.stack.affine
    if affine is not None and first.stack.space and geometry.plane_of(affine) == plane:
        return list(files)
    joined = join(files)
    return [joined._replace(stack=geometry.arrange_stack(joined.path, joined.stack, plane))]
