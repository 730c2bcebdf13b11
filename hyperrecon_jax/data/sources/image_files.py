"""Read image files from disk and put their pixels on the grid of the training images, for `abide` and `folder`."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data import grid
from hyperrecon_jax.data.volumes import formats, scan
from hyperrecon_jax.data.volumes.stack import Stack, brief
from hyperrecon_jax.runtime.errors import InputError

UNEQUAL = 0.01  # pixels count as squares if their sides differ by at most this fraction


def read_bytes(path: Path, limit: int = -1) -> bytes:
    """The content of a file, or its first `limit` bytes; raises `InputError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read: {brief(error)}") from error


def read_stack(path: Path) -> Stack:
    """The slices of an image file; `volumes.read` describes each format.

    Those of k-space are magnitude images.

    Raises:
        InputError: if the file cannot be read, or holds k-space that is under-sampled.
    """
    if path.name.lower().endswith(".cfl"):
        return scan.to_magnitudes(str(path), scan.to_kspace(str(path), read_scan(path)))
    return scan.to_magnitudes(str(path), formats.decode(str(path), read_bytes(path), "image"))


def read_scan(path: Path) -> scan.Scan:
    """The k-space of a file that is no HDF5 file; that of BART lies beside its `.hdr` file."""
    header = read_bytes(path.with_suffix(".hdr")) if path.name.lower().endswith(".cfl") else b""
    return formats.decode_scan(str(path), read_bytes(path), header)


def check_folder(root: Path) -> None:
    """Raises `InputError` if `root` is no folder."""
    if not root.is_dir():
        raise InputError(f"{root} must be a folder, but {'it is a file' if root.exists() else 'there is none'}.")


def files_below(root: Path) -> Iterator[Path]:
    """All files below a folder, at any depth, without those in hidden folders.

    Symbolic links are followed, each folder is visited once: a link may lead back up.
    """
    visited = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in visited else sorted(name for name in subfolders if not name.startswith("."))
        if real not in visited:
            yield from (Path(folder, name) for name in names)
        visited.add(real)


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
    sides = np.ones(2) if affine is None else np.linalg.norm(affine[:3, :2], axis=0)
    if sides.max() > (1 + UNEQUAL) * sides.min():
        lengths = sides * images.shape[1:]
        rows, columns = np.rint(lengths / max(sides.min(), lengths.max() / size)).astype(int)
        images = resample(images, max(rows, 1), max(columns, 1))
    return resample(grid.square(images), size, size)
