"""Files that were dropped on the page: one file, or the files of one or more series. They are kept to be cut again.

A file is read for a plane and, if it holds several volumes such as times, for one of them. Another choice reads the same
bytes again, so nothing has to be sent again.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from hyperrecon_jax.data import volumes
from hyperrecon_jax.data.sources import series
from hyperrecon_jax.data.sources.image_files import is_image, natural_order
from hyperrecon_jax.data.volumes import bart, geometry
from hyperrecon_jax.data.volumes.memory_limit import limit_memory
from hyperrecon_jax.runtime.errors import InputError

MAX_MEMORY = 7 * 2**27  # bytes that reading may take: 1 GiB, less what libraries and a server need


class Upload(NamedTuple):
    """Files that were dropped together, and how to read them."""

    files: tuple[tuple[str, bytes], ...]  # name and content of each; the halves of a BART file are one file
    kind: str = "image"  # "image": the task of the run measures the slices; "kspace": a scanner measured them
    plane: str = geometry.ACQUIRED  # of the slices, as in `volumes.read`
    frame: int = 0  # of a single file, as in `volumes.read`

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(len(content) for _, content in self.files)

    @property
    def digest(self) -> str:
        """Equal for the same contents of the same kind."""
        return _digest(repr([self.kind, *(_digest(content) for _, content in self.files)]).encode())

    @property
    def identity(self) -> str:
        """Equal for the same contents that are read in the same way: "DIGEST.PLANE.FRAME"."""
        return f"{self.digest[:20]}.{self.plane}.{self.frame}"


class Opened(NamedTuple):
    """A volume of an upload."""

    name: str
    file: volumes.Volume
    skipped: str = ""  # which of the files were skipped, for the user


def make_upload(files: list[tuple[str, bytes]], kind: str = "image", plane: str = geometry.ACQUIRED) -> Upload:
    """The upload of some files; raises `InputError` for an unknown plane or kind, and for several files of k-space."""
    geometry.check_plane(plane)
    if kind not in ("image", "kspace"):
        raise InputError(f'The kind of a file must be "image" or "kspace", got {kind!r}.')
    joined = tuple(bart.join_halves(files)) if len(files) > 1 else tuple(files)
    if kind == "kspace" and len(joined) > 1:
        raise InputError(f"Measured k-space must come in one file, got {len(joined)} files; open them one by one.")
    return Upload(joined, kind, plane)


def read_upload(upload: Upload, *, multiple: int = 1) -> list[Opened]:
    """The volumes of an upload, the largest first. Several files are images, and each series of them is one volume.

    It takes at most `MAX_MEMORY` bytes of memory, those of the files included.

    Args:
        upload: the files. Of several, those that hold no image are skipped.
        multiple: as in `volumes.read`.

    Raises:
        InputError: if a file is damaged, or none holds an image, or too much memory is needed.
    """
    with limit_memory(MAX_MEMORY - upload.num_bytes):
        return _read_upload(upload, multiple)


def _read_upload(upload: Upload, multiple: int) -> list[Opened]:
    if len(upload.files) == 1:
        ((name, content),) = upload.files
        file = volumes.read(name, content, kind=upload.kind, plane=upload.plane, frame=upload.frame, multiple=multiple)
        return [Opened(name, file)]
    images = [(Path(name), content) for name, content in upload.files if is_image(Path(name), content)]
    groups, skipped = series.group(sorted(images, key=lambda image: natural_order(image[0])), upload.plane)
    if num_others := len(upload.files) - len(images):
        skipped["no image"] = num_others
    counts = ", ".join(f"{count} ({reason})" for reason, count in skipped.items())
    if not groups:
        raise InputError(
            f"The {len(upload.files)} files must hold images{_in_plane(upload.plane)}, but none does: {counts}."
        )
    note = f"Files skipped: {counts}" if counts else ""
    opened = []
    while groups:  # one by one, so that the slices of one series at a time are in memory twice
        joined = series.join(groups.pop(0))
        name = Path(joined.path).name
        opened.append(Opened(name, volumes.from_stack(name, joined.stack, multiple=multiple), note))
    return sorted(opened, key=lambda volume: -volume.file.slices.size)


def _in_plane(plane: str) -> str:
    return "" if plane == geometry.ACQUIRED else f" that can be cut in the {plane} plane"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
