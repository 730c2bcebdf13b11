"""Raw data in the ISMRMRD format (`.h5`): lines of k-space, each with a header, and an XML header of the scan.

Inati et al., MRM 77:411 (2017). Read are Cartesian scans of one encoding, in two or three dimensions. Each line goes to its
place by its counters and the centre of the encoding; lines that were measured several times are averaged. Noise scans,
navigators, phase correction and other lines that are no image data are left out, as are the lines of a separate calibration
scan. Of several contrasts, phases, repetitions and sets the first is read.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hyperrecon_jax.data.volumes.field_of_view import MAX_HEADER, check_cartesian, find_field_of_view, parse_header
from hyperrecon_jax.data.volumes.memory_limit import check_memory
from hyperrecon_jax.data.volumes.scan import Scan, make_scan, planes_to_slices
from hyperrecon_jax.data.volumes.stack import MAX_COILS, MAX_PIXELS
from hyperrecon_jax.runtime.errors import InputError

MAX_LINES = 2**20
LINES_AT_ONCE = 256
# numbers of the flags, counted from 1
_NO_IMAGE = (
    19,
    20,
    23,
    24,
    26,
    27,
    28,
    29,
    30,
    31,
)  # noise, calibration, navigator, phase correction, feedback, dummies ...
_REVERSE = 22
_COUNTERS = ("contrast", "phase", "repetition", "set")


def find_group(file: Any) -> Any:
    """The group of an open HDF5 file that holds an ISMRMRD scan; None if there is none."""
    import h5py

    for name in sorted(file)[:16]:
        group = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(group, h5py.Group) and "xml" in group and "data" in group:
            return group
    return None


def read_scan(file_name: str, file: Any) -> Scan:
    """The k-space of the scan of an open file.

    Raises:
        InputError: if there is no Cartesian image data, or the lines do not fit the header.
    """
    group = find_group(file)
    header = _read_xml(file_name, group)
    check_cartesian(file_name, header)
    heads, lines = _read_lines(file_name, group)
    root = parse_header(header)
    encoded = _read_numbers(root, "encoding/encodedSpace/matrixSize")
    if encoded is None:
        raise InputError(f"{file_name} must have a header with the matrix of the encoding, but it has none.")
    samples, rows, planes = encoded
    is_used, notes = _select_lines(heads)
    if not is_used.any():
        raise InputError(f"{file_name} must hold lines of image data, but it has {len(heads)} of other kinds.")
    heads, lines = heads[is_used], [line for line, use in zip(lines, is_used, strict=True) if use]
    kspace = _place_lines(file_name, heads, lines, (samples, rows, planes), root)
    if planes > 1:
        kspace = planes_to_slices(file_name, kspace, 2)
    kspace = kspace.transpose(0, 2, 1, 3, 4).reshape(-1, kspace.shape[1], samples, rows).astype(np.complex64)
    field = find_field_of_view((samples, rows), header=header)
    return make_scan(file_name, kspace, field=field, notes=("ISMRMRD", *notes))


def _read_xml(file_name: str, group: Any) -> str:
    import h5py

    stored = group["xml"] if isinstance(group.get("xml", getlink=True), h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset) or stored.external or stored.is_virtual or stored.size != 1:
        raise InputError(f"{file_name} must have its ISMRMRD header as a dataset `xml` in the file itself.")
    text = np.asarray(stored[()]).reshape(-1)[0]
    header = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    if len(header) > MAX_HEADER:
        raise InputError(f"{file_name} must have an ISMRMRD header of at most {MAX_HEADER} characters, got {len(header)}.")
    return header


def _read_lines(file_name: str, group: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """The headers of all lines, and their samples `(channels, samples)` complex64."""
    import h5py

    stored: Any = group["data"] if isinstance(group.get("data", getlink=True), h5py.HardLink) else None
    is_plain = isinstance(stored, h5py.Dataset) and not stored.external and not stored.is_virtual
    if not is_plain or not {"head", "data"} <= set(stored.dtype.names or ()):
        raise InputError(f"{file_name} must have its ISMRMRD lines as a dataset `data` in the file itself.")
    if not 1 <= stored.size <= MAX_LINES:
        raise InputError(f"{file_name} must hold 1 to {MAX_LINES} lines, got {stored.size}.")
    heads, lines, total, size = [], [], 0, group.file.id.get_filesize()
    for k, record in enumerate(_read_records(stored)):
        head, values = record["head"], record["data"]
        shape = (int(head["active_channels"]), int(head["number_of_samples"]))
        numbers = np.array(values, np.float32)
        if numbers.size != 2 * shape[0] * shape[1] or not 1 <= shape[0] <= MAX_COILS:
            raise InputError(f"{file_name} must hold lines as long as they say, but line {k} has {numbers.size} numbers.")
        total += numbers.size // 2
        if 8 * total > size or total > MAX_PIXELS:  # HDF5 does not compress them, so they share their samples
            raise InputError(
                f"{file_name} must hold lines of at most {MAX_PIXELS} samples together, and its {size} bytes hold at most"
                f" {size // 8}, got more."
            )
        heads.append(head)
        lines.append(numbers.view(np.complex64).reshape(shape))
    return np.array(heads), lines


def _read_records(stored: Any) -> Iterator[np.void]:
    """The lines of a dataset. Some at a time are in memory: a small file may hold very many, or one of them many times."""
    for start in range(0, len(stored), LINES_AT_ONCE):
        yield from stored[start : start + LINES_AT_ONCE].reshape(-1)


def _select_lines(heads: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Which lines are image data of the first contrast, phase, repetition and set, and what was left out."""
    flags = heads["flags"].astype(np.uint64)
    is_other = (flags & np.uint64(sum(1 << (number - 1) for number in _NO_IMAGE))) != 0
    is_first = ~is_other & (heads["encoding_space_ref"] == 0)
    notes = [f"{int(is_other.sum())} lines of noise scans and calibration were left out"] if is_other.any() else []
    for counter in _COUNTERS:
        values = heads["idx"][counter]
        first = values[is_first].min() if is_first.any() else 0
        if (values[is_first] != first).any():
            notes.append(f"the first {counter}")
        is_first &= values == first
    return is_first, notes


def _place_lines(
    file_name: str, heads: np.ndarray, lines: list[np.ndarray], encoded: tuple[int, int, int], root: Any
) -> np.ndarray:
    """K-space `(slices, coils, planes, samples, rows)`, the mean of the lines at each place."""
    samples, rows, planes = encoded
    slice_numbers, slices = np.unique(heads["idx"]["slice"], return_inverse=True)
    coils = len(lines[0])
    size = len(slice_numbers) * coils * planes * samples * rows
    if min(encoded) < 1 or size > MAX_PIXELS:
        raise InputError(f"{file_name} must hold k-space of at most {MAX_PIXELS} samples, got {size}.")
    check_memory(file_name, size, np.dtype(np.complex64))
    kspace = np.zeros((len(slice_numbers), coils, planes, samples, rows), np.complex64)
    counts = np.zeros((len(slice_numbers), planes, samples, rows), np.int32)
    row_centre = _encoding_centre(root, "kspace_encoding_step_1", rows)
    plane_centre = _encoding_centre(root, "kspace_encoding_step_2", planes)
    for head, line, slice_index in zip(heads, lines, slices, strict=True):
        row = int(head["idx"]["kspace_encode_step_1"]) - row_centre + rows // 2
        plane = int(head["idx"]["kspace_encode_step_2"]) - plane_centre + planes // 2
        first, last = int(head["discard_pre"]), line.shape[1] - int(head["discard_post"])
        start = samples // 2 - int(head["center_sample"])
        if int(head["flags"]) >> (_REVERSE - 1) & 1:  # the centre of a line read backwards is as far from its other end
            line, first, last = line[:, ::-1], line.shape[1] - last, line.shape[1] - first
            start = samples // 2 - (line.shape[1] - 1 - int(head["center_sample"]))
        is_inside = 0 <= row < rows and 0 <= plane < planes and 0 <= start + first < start + last <= samples
        if len(line) != coils or not is_inside:
            raise InputError(
                f"{file_name} must hold lines inside of its encoded matrix {samples} x {rows} x {planes}, got one of"
                f" {line.shape[1]} samples and {len(line)} coils at {row}, {plane}."
            )
        kspace[slice_index, :, plane, start + first : start + last, row] += line[:, first:last]
        counts[slice_index, plane, start + first : start + last, row] += 1
    return kspace / np.maximum(counts, 1)[:, None]


def _encoding_centre(root: Any, step: str, side: int) -> int:
    """The counter of the central line; the middle of the matrix where the header does not say it."""
    text = root.findtext(f"encoding/encodingLimits/{step}/center")
    return int(text) if text and text.strip().isdigit() else side // 2


def _read_numbers(root: Any, path: str) -> tuple[int, int, int] | None:
    element = None if root is None else root.find(path)
    try:
        x, y, z = (int(element.findtext(axis)) for axis in "xyz")  # type: ignore[union-attr, arg-type]
    except (AttributeError, TypeError, ValueError):
        return None
    return x, y, z
