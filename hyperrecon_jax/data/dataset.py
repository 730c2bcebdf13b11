"""What every source of data returns."""

from typing import NamedTuple

import numpy as np

from hyperrecon_jax.errors import InputError


class Split(NamedTuple):
    images: np.ndarray  # (n, h, w, 1) float32 in [0, 1]
    labels: np.ndarray | None  # (n, h, w) uint8, or None where the source has none
    subjects: np.ndarray  # (n,) int32, the subject of each image; the same number in two splits is the same subject


class Dataset(NamedTuple):
    train: Split
    val: Split
    test: Split


def spread(size: int, count: int) -> np.ndarray:
    """Indices of at most `count` of `size` images, spread from the first to the last: int32 `(min(size, count),)`."""
    return np.linspace(0, size - 1, min(size, count)).astype(np.int32)


def with_labels(split: Split) -> Split:
    """The same with labels beside the images, as float32: `images` become `(n, h, w, 2)`, for what learns or scores labels.

    Raises:
        InputError: if there are no labels.
    """
    if split.labels is None:
        raise InputError("The images must have labels, which this source of data does not give.")
    return split._replace(images=np.concatenate([split.images, split.labels[..., None]], axis=-1, dtype=np.float32))
