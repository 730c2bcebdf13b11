"""What every source of data returns."""

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    images: np.ndarray  # (n, h, w, 1) float32 in [0, 1]
    labels: np.ndarray | None  # (n, h, w) uint8, or None where the source has none
    subjects: np.ndarray  # (n,) int32, the subject of each image; the same number in two splits is the same subject


class Dataset(NamedTuple):
    train: Split
    val: Split
    test: Split
