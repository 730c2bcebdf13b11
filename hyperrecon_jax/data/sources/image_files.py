"""Image files on disk, and their pixels on the grid of the training images: what `abide` and `folder` share."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.data.sources import grid
from hyperrecon_jax.data.volumes import formats
from hyperrecon_jax.data.volumes.stack import Stack, brief
from hyperrecon_jax.runtime.errors import InputError

UNEQUAL = 0.01  # pixels whose sides differ by no more than this part count as squares


def content(path: Path, most: int = -1) -> bytes:
    """A file, or the first `most` bytes of it."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read: {brief(error)}") from error


def stack(path: Path) -> Stack:
    """The slices of an image file, as `volumes.read` tells of each format."""
    return formats.decode(str(path), content(path), "image")


def check_folder(root: Path) -> None:
    if not root.is_dir():
        raise InputError(f"{root} must be a folder, but {'it is a file' if root.exists() else 'there is none'}.")


def natural(path: Path) -> Any:
    """Sorts names as people count: slice2 before slice10."""
    words = [re.split(r"(\d+)", part) for part in path.parts]
    return [[int(word) if k % 2 else word for k, word in enumerate(part)] for part in words], path.parts


def on_grid(
    images: np.ndarray,
    affine: np.ndarray | None,
    size: int,
    resample: Callable[[np.ndarray, int, int], np.ndarray] = grid.resample,
) -> np.ndarray:
    """Slices of a file as the training sees them: square pixels, zeros to a square, `size` pixels along both sides.

    Where the sides of pixels differ by more than 1 %, they are first resampled to squares as wide as the shorter side, or
    as wide as in the end if that is wider. Slices that are `size x size` squares of square pixels stay as they are.

    Args:
        images: `(n, h, w)`.
        affine: of the file, whose first columns are the steps from row to row and from column to column; None: squares.
        size: of the result, `(n, size, size)`.
        resample: `grid.resample`, or `grid.resample_labels`.
    """
    sides = np.ones(2) if affine is None else np.linalg.norm(affine[:3, :2], axis=0)
    if sides.max() > (1 + UNEQUAL) * sides.min():
        lengths = sides * images.shape[1:]
        rows, columns = np.rint(lengths / max(sides.min(), lengths.max() / size)).astype(int)
        images = resample(images, max(rows, 1), max(columns, 1))
    return resample(grid.square(images), size, size)
