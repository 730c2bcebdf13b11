"""K-space of BART: `NAME.cfl` has the numbers, `NAME.hdr` the dimensions. On the page both come in one `.zip` file.

Of BART's dimensions those of the image (0 to 2), coils (3) and slices (13) are read. Two of the first three are rows and
columns; if all three are longer than 1 the third becomes slices, by a Fourier transform.
"""

import io
import zipfile
from collections.abc import Sequence

import numpy as np

from hyperrecon_jax.data.volumes.memory_limit import check_memory
from hyperrecon_jax.data.volumes.scan import Scan, looks_like_kspace, make_scan, planes_to_slices
from hyperrecon_jax.data.volumes.stack import MAX_PIXELS, check_length
from hyperrecon_jax.runtime.errors import InputError

COIL, SLICE = 3, 13  # of BART's dimensions
PAIR = "must come with its other half: NAME.cfl and NAME.hdr belong together, or both in one .zip file"


def read(file_name: str, content: bytes, kind: str) -> Scan:
    """The k-space of a `.zip` file that holds a `.cfl` file and its `.hdr` file. `kind` is "image" or "kspace".

    If it is "image", a volume that looks like images (`scan.looks_like_kspace`) is not transformed along its third side.

    Raises:
        InputError: if it holds no such pair, or more than images, coils and slices.
    """
    if not content.startswith(b"PK"):
        raise InputError(f"{file_name} {PAIR}.")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".cfl")]
        headers = [name for name in archive.namelist() if name.lower().endswith(".hdr")]
        pair = [name for name in headers if len(names) == 1 and name[:-4] == names[0][:-4]]
        if not pair:
            contents = ", ".join(archive.namelist()[:8])
            raise InputError(f"{file_name} must hold one pair NAME.cfl and NAME.hdr, got {contents}.")
        with archive.open(pair[0]) as stream:
            sides = _read_dimensions(file_name, stream.read(2**16))
        with archive.open(names[0]) as stream:
            check_memory(file_name, int(np.prod(sides)), np.dtype(np.complex64))
            numbers = stream.read(8 * int(np.prod(sides)) + 1)  # one byte more: at the end a checksum is compared
        return _make_scan(file_name, numbers, sides, kind)


def join_halves(files: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Names and contents of files, with a `.zip` archive of the name of the `.cfl` file for each whole pair."""
    by_name = dict(files)
    pairs = {name: f"{name[:-4]}.hdr" for name in by_name if name.endswith(".cfl") and f"{name[:-4]}.hdr" in by_name}
    joined = []
    for name, content in files:
        if name in pairs:
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as archive:
                archive.writestr("a.cfl", content)
                archive.writestr("a.hdr", by_name[pairs[name]])
            joined.append((name, stream.getvalue()))
        elif name not in pairs.values():
            joined.append((name, content))
    return joined


def is_archive(content: bytes) -> bool:
    """Whether a file is a `.zip` archive with a `.cfl` file in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.lower().endswith(".cfl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _read_dimensions(file_name: str, header: bytes) -> list[int]:
    """The sixteen sides that a `.hdr` file gives; raises `InputError` if they are too long, or not of images."""
    sides = _parse_dimensions(file_name, header)
    extra = [k for k, side in enumerate(sides) if side > 1 and k not in (0, 1, 2, COIL, SLICE)]
    if extra:
        raise InputError(
            f"{file_name} must have images, coils and slices alone (dimensions 0 to 3 and 13), got dimension {extra[0]} of"
            f" {sides[extra[0]]}."
        )
    count = int(np.prod(sides, dtype=object))
    if not 1 <= count <= MAX_PIXELS:
        raise InputError(f"{file_name} must hold k-space of at most {MAX_PIXELS} samples, got {count}.")
    return sides


def _make_scan(file_name: str, numbers: bytes, sides: list[int], kind: str) -> Scan:
    """The k-space in the contents of a `.cfl` file."""
    count = int(np.prod(sides))
    check_length(file_name, len(numbers), 8 * count)
    x, y, z, coils, slices = *sides[:3], sides[COIL], sides[SLICE]
    array = np.frombuffer(numbers, "<c8", count).reshape((x, y, z, coils, slices), order="F")
    notes = ["BART"]
    if x == 1:  # one slice of a scan whose readout was transformed before
        array = array.transpose(1, 2, 0, 3, 4)
    elif y > 1 and z > 1:
        planes = array.transpose(2, 3, 4, 0, 1)
        if kind == "kspace" or looks_like_kspace(planes.reshape(z, -1, x, y)):
            array = planes_to_slices(file_name, planes, 0).transpose(3, 4, 0, 1, 2)
        notes.append("its third dimension became slices")
    elif y == 1:
        array = array.transpose(0, 2, 1, 3, 4)
    h, w, z, _, _ = array.shape
    kspace = array.transpose(4, 2, 3, 0, 1).reshape(slices * z, coils, h, w)
    return make_scan(file_name, kspace, notes=tuple(notes))


def _parse_dimensions(file_name: str, header: bytes) -> list[int]:
    """The sixteen sides of a `.hdr` file."""
    lines = header[: 2**16].decode("ascii", errors="replace").splitlines()
    following = [lines[k + 1] for k, line in enumerate(lines[:-1]) if line.strip().lower().startswith("# dimensions")]
    words = following[0].split() if following else []
    if not 1 <= len(words) <= 32 or not all(word.isdigit() and 1 <= int(word) < 2**31 for word in words):
        raise InputError(f"{file_name} must have a BART header with the line '# Dimensions' and numbers after it.")
    return [*map(int, words), *[1] * 16][: max(16, len(words))]
