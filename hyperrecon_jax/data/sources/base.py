"""The contract of a source of real data, and its types.

A source is a module with two functions; `fastmri`, `abide` and `folder` are sources:

- `find(root, settings) -> {subject: [files]}`: the subjects below a folder, in a stable order; opens as few files as
  possible.
- `read(files, settings) -> Slices`: the slices of a subject; raises InputError that names the file that cannot be used.

Everything that a source does to the values is part of its contract: cropping and resampling (`grid.py`), the scale (one
for each volume, by `volumes/intensity.py`; of k-space the largest value of its image), which slices are dropped and why.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from hyperrecon_jax.physics.sample import Coils

EMPTY = "background alone"  # the reason for which slices without content are dropped


class Settings(NamedTuple):
    """How a source makes slices: part of `config.data`.

    Folders in the cache are named by a digest of its `repr`: neither the class nor its fields can be renamed.
    """

    size: int  # pixels along both sides of a slice, a multiple of 8
    slices: int  # at most this many of each subject, evenly spaced over those with content
    coils: int  # 0: magnitude images; above: measured k-space with this number of (virtual) coils
    acquisition: str  # of fastMRI, such as "CORPD_FBK"; "": all
    whiten: bool  # make the noise of the coils white (measured k-space only)
    plane: str = "acquired"  # of a folder: one of `volumes.geometry.PLANES`
    include: tuple[str, ...] = ()  # of a folder: patterns of paths below it, of which a file must match one; (): all files
    exclude: tuple[str, ...] = ()  # of a folder: patterns of which a file must match none


class Slices(NamedTuple):
    """The slices of one subject."""

    image: np.ndarray  # (n, size, size) float32 in [0, 1]
    label: np.ndarray | None  # (n, size, size) uint8, indices into `physics.sample.LABELS`
    coils: Coils | None  # (n, coils, size, size) complex64 each
    dropped: dict[str, int]  # reason -> how many slices
    notes: tuple[str, ...] = ()  # what is out of the ordinary, for the user
    skipped: Mapping[str, int] = MappingProxyType({})  # reason -> how many files


def list_notes(files: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """What was done to the files of a subject, each note once, as in `Slices.notes`.

    Args:
        files: the path of each file, and its notes. A note that not all files have names those that have it.
    """
    paths: dict[str, list[str]] = {}
    for path, notes in files:
        for note in dict.fromkeys(notes):
            paths.setdefault(note, []).append(path)
    return tuple(f"{'' if len(names) == len(files) else f'{name_files(names)}: '}{note}" for note, names in paths.items())


def name_files(paths: Sequence[str]) -> str:
    """The name of the first file, and how many there are more."""
    name = Path(paths[0]).name
    return name if len(paths) == 1 else f"{name} and {len(paths) - 1} more"
