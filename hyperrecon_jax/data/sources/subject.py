"""What a source of real data finds of one subject: its slices as they are trained on.

A source is a module with two functions; `fastmri`, `abide` and `folder` are:

    find(root, settings) -> {subject: [files]}      who there is, in a stable order; opens no more than it must
    read(files, settings) -> Slices                 one subject; raises InputError naming the file that cannot be used

Everything that was done to the values on the way is part of their contract: cropping and resampling (`grid.py`), the
scale (one number for each volume, its largest value), which slices were dropped and why.
"""

from typing import NamedTuple

import numpy as np

from hyperrecon_jax.physics.sample import Coils

EMPTY = "background alone"  # the reason for which slices without content are dropped


class Settings(NamedTuple):
    """What `config.data` asks of a source."""

    size: int  # pixels along both sides of a slice, a multiple of 8
    slices: int  # at most so many of each subject, spread from the first to the last of those with content
    coils: int  # 0: magnitude images; above: measured k-space of so many (virtual) coils
    acquisition: str  # of fastMRI, such as "CORPD_FBK"; "": all
    whiten: bool  # of measured k-space: make the coils' noise white


class Slices(NamedTuple):
    """The slices of one subject."""

    image: np.ndarray  # (n, size, size) float32 in [0, 1]
    label: np.ndarray | None  # (n, size, size) uint8, indices into `population.LABELS`
    coils: Coils | None  # (n, coils, size, size) complex64 each
    dropped: dict[str, int]  # reason -> how many slices
