"""Your own images, from `.npy` files."""

import math
import os
from pathlib import Path

import numpy as np

from hyperrecon_jax.data.dataset import Dataset, Split, in_memory
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError

Source = str | os.PathLike[str]


def arrays(*, train: Source, val: Source, test: Source) -> Dataset:
    """Read a `.npy` file for each split.

    A file holds n images as `(n, h, w)`, `(n, h, w, 1)` or `(n, 1, h, w)`; h and w are multiples of 8 (the U-Net halves
    images three times) and the same in all three files. Floating-point values must lie in [0, 1] and stay as they are.
    uint8 and uint16 are divided by 255 and 65535, and booleans become 0 and 1. No other type is accepted. There
    are no labels. Every image counts as a subject of its own, so put all images of a person into the same file.

    Args:
        train: path of the training images.
        val: path of the validation images.
        test: path of the test images.

    Raises:
        InputError: if a file is missing or of another format, or its type, shape or values are not as above.
    """
    images = [_read(name, path) for name, path in (("train", train), ("val", val), ("test", test))]
    for name, split in zip(("val", "test"), images[1:], strict=True):
        if split.shape[1:] != images[0].shape[1:]:
            raise InputError(
                f"`{name}` must hold images of the size of those of `train`, {images[0].shape[1:3]}, got"
                f" {split.shape[1:3]}."
            )
    ends = np.cumsum([len(split) for split in images])
    return Dataset(
        *(
            Split(in_memory(Sample(split)), np.arange(end - len(split), end, dtype=np.int32))
            for split, end in zip(images, ends, strict=True)
        )
    )


def _read(name: str, path: Source) -> np.ndarray:
    """The images of a file, `(n, h, w, 1)` float32; `name` is the argument that messages name."""
    file_label = f"`{name}` {os.fspath(path)}"
    path = paths.expand(path, argument=f"`{name}`")
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
    if not images.size:
        raise InputError(f"{file_label} must hold at least one image, got shape {shape}.")
    if images.shape[1] % 8 or images.shape[2] % 8:
        raise InputError(
            f"{file_label} must hold images whose height and width are multiples of 8 (the U-Net halves them three times),"
            f" got {images.shape[1:]}; crop or pad them."
        )
    return _scale(file_label, images)[..., None]


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


def _scale(file_label: str, images: np.ndarray) -> np.ndarray:
    """Images as float32 in [0, 1]; `file_label` names the file."""
    if images.dtype in (np.uint8, np.uint16):
        return np.divide(images, np.iinfo(images.dtype).max, dtype=np.float32)
    if images.dtype == bool:
        return images.astype(np.float32, copy=False)
    if images.dtype.kind != "f":
        raise InputError(f"{file_label} must be floating-point, uint8 or uint16, got {images.dtype}; convert it first.")
    finite = np.isfinite(images).all(axis=(1, 2))
    if not finite.all():
        raise InputError(f"{file_label} must hold finite numbers, but image {int(np.argmin(finite))} has NaN or infinity.")
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        raise InputError(
            f"{file_label} must hold values in [0, 1], got {low:g} to {high:g}; scale all splits alike, for example"
            " (x - low) / (high - low) with the low and high of the training images, and clip."
        )
    return images.astype(np.float32, copy=False)
