"""Read image files from disk and put their pixels on the grid of the training images, for `abide` and `folder`."""

import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data import grid
from hyperrecon_jax.data.dataset import evenly_spaced
from hyperrecon_jax.data.volumes import formats, geometry
from hyperrecon_jax.data.volumes.stack import Stack, brief
from hyperrecon_jax.runtime.errors import InputError

LABEL_SLICES = 9  # slices that tell whether a series holds labels
FEW_VALUES = 16  # images have more values
FLAT = 0.7  # part of the pixels of labels, without background, that equal the pixel on their left


def read_bytes(path: Path, limit: int = -1) -> bytes:
    """The content of a file, or its first `limit` bytes; raises `InputError` if it cannot be read.

    The content of a `.cfl` file of BART is an archive of it and its `.hdr` file, as the explorer takes them.
    """
    if limit < 0 and path.suffix.lower() == ".cfl":
        return _read_pair(path)
    check_regular(path)
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read: {brief(error)}") from error


def check_regular(path: Path) -> None:
    """Raises `InputError` for a pipe, which would be waited for, a device, which may never end, and a folder."""
    if os.path.exists(path) and not os.path.isfile(path):  # these raise no error, as those of `Path` do
        raise InputError(f"{path} must be a regular file, but it is a {'folder' if path.is_dir() else 'pipe or a device'}.")


def read_stack(path: Path, *, plane: str) -> Stack:
    """The slices of an image file in a plane; `volumes.read` describes each format."""
    return formats.decode(str(path), read_bytes(path), "image", plane=plane)


def is_image(path: Path, content: bytes) -> bool:
    """Whether the name or the first bytes of a file are those of an image that can be read."""
    if path.name.startswith(".") or path.name.lower() == "dicomdir":
        return False
    try:
        formats.format_of(path.name, content)
    except InputError:
        return False
    return True


def are_labels(stacks: Sequence[Stack]) -> bool:
    """Whether slices look like labels: few whole numbers, or up to 256 of which most equal their neighbours."""
    slices = [(stack, k) for stack in stacks for k in range(len(stack.raw))]
    sample = [stack.raw[k] for stack, k in (slices[i] for i in evenly_spaced(len(slices), LABEL_SLICES))]
    if any(image.dtype.kind not in "biuf" for image in sample):
        return False
    values, counts = np.unique(np.concatenate([image.ravel().astype(np.float64) for image in sample]), return_counts=True)
    if not (1 < values.size <= 256 and (values == np.rint(values)).all()):
        return False
    background = values[counts.argmax()]
    is_flat = [(image[:, 1:] == image[:, :-1])[image[:, 1:] != background] for image in sample]
    return values.size <= FEW_VALUES or bool(np.concatenate(is_flat).mean() > FLAT)


def _read_pair(path: Path) -> bytes:
    """A `.zip` archive of a `.cfl` file and its `.hdr` file."""
    stream = io.BytesIO()
    try:
        with zipfile.ZipFile(stream, "w") as archive:
            for half in (path, path.with_suffix(".hdr")):
                archive.write(half, half.name)
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read, beside its .hdr file: {brief(error)}") from error
    return stream.getvalue()


def check_folder(root: Path) -> None:
    """Raises `InputError` if `root` is no folder."""
    if not root.is_dir():
        raise InputError(f"{root} must be a folder, but {'it is a file' if root.exists() else 'there is none'}.")


def files_below(root: Path) -> Iterator[Path]:
    """All files below a folder, at any depth, without those in hidden folders.

    Symbolic links are followed, except to a folder that the link is in. Each folder is visited once.
    """
    visited = set()  # several links may lead to a folder
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not (name.startswith(".") or is_loop(Path(folder, name))))
        yield from (Path(folder, name) for name in names)


def is_loop(path: Path) -> bool:
    """Whether a link leads to a folder that it is in."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def natural_order(path: Path) -> Any:
    """A key that sorts numbers in names by their value: slice2 before slice10."""
    words = [re.split(r"(\d+)", part) for part in path.parts]
    return [[int(word) if k % 2 else word for k, word in enumerate(part)] for part in words], path.parts


def to_grid(
    images: np.ndarray,
    affine: np.ndarray | None,
    size: int,
    resample: Callable[[np.ndarray, int, int], np.ndarray] = grid.resample,
) -> np.ndarray:
    """Slices on the grid of the training images: square pixels, padded with zeros to a square, then `size x size` pixels.

    Pixels whose sides differ by more than 1 % are first resampled to squares. These are as wide as the shorter side, or
    as the pixels of the result if those are wider. Slices of `size x size` square pixels stay as they are.

    Args:
        images: `(n, h, w)`.
        affine: of the file. Its first two columns are the steps from row to row and from column to column. None: the
            pixels are square.
        size: of the result, `(n, size, size)`.
        resample: `grid.resample`, or `grid.resample_labels`.
    """
    sides = np.array(geometry.pixel_size(affine))
    if not geometry.is_square(*sides):
        lengths = sides * images.shape[1:]
        rows, columns = np.rint(lengths / max(sides.min(), lengths.max() / size)).astype(int)
        images = resample(images, max(rows, 1), max(columns, 1))
    return resample(grid.square(images), size, size)
