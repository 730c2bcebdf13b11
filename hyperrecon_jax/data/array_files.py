"""Your own images, from `.npy` files."""

import math
import os
import warnings
from pathlib import Path

import numpy as np

from hyperrecon_jax.data.dataset import Dataset, Split, in_memory
from hyperrecon_jax.data.volumes.intensity import scale_arrays
from hyperrecon_jax.data.volumes.stack import MIN_SIDE
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import DataWarning, InputError

Source = str | os.PathLike[str]


def arrays(
    *, train: Source, val: Source, test: Source, labels: tuple[str, str, str] = ("`train`", "`val`", "`test`")
) -> Dataset:
    """Read a `.npy` file for each split.

    A file holds n images as `(n, h, w)`, `(n, h, w, 1)` or `(n, 1, h, w)`; h and w are the same in all three files.
    `intensity.scale_arrays` says how values are scaled: floating-point values must lie in [0, 1], and integers are scaled.
    There are no labels. Every image counts as a subject of its own, so put all images of a person into the same file.

    Args:
        train: path of the training images.
        val: path of the validation images.
        test: path of the test images.
        labels: what messages call the three files.

    Raises:
        InputError: if a file is missing or of another format, or its type, shape or values are not as above.

    Warns:
        DataWarning: if integers were scaled by their own range, if values were clipped, or if NaN became 0.
    """
    files = [paths.expand(path, argument=label) for label, path in zip(labels, (train, val, test), strict=True)]
    file_labels: dict[Path, str] = {}  # of each file, which may be of several splits
    for label, file in zip(labels, files, strict=True):
        file_labels.setdefault(file, f"{label} {file}")
    stored = {file: _read(label, file) for file, label in file_labels.items()}
    for label, file in zip(labels[1:], files[1:], strict=True):
        if stored[file].shape[1:] != stored[files[0]].shape[1:]:
            raise InputError(
                f"{label} must hold images of the size of those of {labels[0]}, {stored[files[0]].shape[1:3]}, got"
                f" {stored[file].shape[1:3]}."
            )
    scaled, notes = scale_arrays([(file_labels[file], images) for file, images in stored.items()])
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    intensities = dict(zip(stored, scaled, strict=True))
    images = [intensities[file][..., None] for file in files]
    ends = np.cumsum([len(split) for split in images])
    return Dataset(
        *(
            Split(in_memory(Sample(split)), np.arange(end - len(split), end, dtype=np.int32))
            for split, end in zip(images, ends, strict=True)
        )
    )


def _read(file_label: str, path: Path) -> np.ndarray:
    """The images of a file as they are stored, `(n, h, w)`; `file_label` names it in messages."""
    try:
        _check_size(path)
        stored = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{file_label} must be a .npy file, but there is no such file.") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file_label} must be a .npy file of numbers, but it cannot be read: {error}") from error
    if not isinstance(stored, np.ndarray):
        raise InputError(f"{file_label} must be a .npy file that holds one array, but it is an archive of several.")

    shape = stored.shape
    if len(shape) == 4 and shape[3] == 1:
        images = stored[..., 0]
    elif len(shape) == 4 and shape[1] == 1:
        images = stored[:, 0]
    else:
        images = stored
    if images.ndim != 3:
        raise InputError(f"{file_label} must have shape (n, h, w), (n, h, w, 1) or (n, 1, h, w), got {shape}.")
    if len(images) and min(images.shape[1:]) < MIN_SIDE:
        raise InputError(f"{file_label} must hold images of at least {MIN_SIDE} pixels a side, got shape {shape}.")
    if not images.size:
        raise InputError(f"{file_label} must hold at least one image, got shape {shape}.")
    return images


def _check_size(path: Path) -> None:
    """Raise `ValueError` for what is no file, and for a file whose header promises more than it holds.

    NumPy would wait for a pipe, or ask for the memory that a header promises, however small the file is.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is a folder." if path.is_dir() else "it is no regular file.")
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            return  # np.load says what it is
        file.seek(0)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        read = read_header.get(np.lib.format.read_magic(file))
        if read is None:
            return
        shape, _, dtype = read(file)
        needed = file.tell() + math.prod(shape) * dtype.itemsize
    if size < needed and not dtype.hasobject:
        raise ValueError(f"its header promises {needed} bytes, but it has {size}.")
