"""The anatomy in this package: ICBM 152 (2009a, symmetric), an average of 152 people, at 1 mm.

`mni152/template.npy.xz` holds the T1-weighted average and the gray- and white-matter probabilities. `mni152/NOTICE` names
their owners, `mni152/remake.py` makes the file. The atlas is exactly mirror-symmetric, so the file has only x >= 0. For
each voxel it stores the difference (modulo 256) from a prediction by its neighbours along three axes. Inside the brain
nothing is lost; outside it (T1 = 0) the probabilities are dropped.
"""

import functools
import lzma
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).parent / "mni152" / "template.npy.xz"
ORIGIN = np.array([-72.0, -107.0, -72.0])  # mm (right, anterior, superior) of voxel (0, 0, 0) of the decoded volumes


class Template(NamedTuple):
    """Volumes `(x, y, z)` = (145, 181, 155) uint8, 1 mm; axes point right, anterior and superior from ORIGIN."""

    t1: np.ndarray  # 0 outside the brain
    gm: np.ndarray  # probability of gray matter x 255
    wm: np.ndarray  # probability of white matter x 255


def encode(halves: np.ndarray) -> np.ndarray:
    """Differences along x, y and z, modulo 256, of `(3, x, y, z)` uint8: small numbers, which compress well."""
    for axis in (1, 2, 3):
        halves = np.diff(halves, axis=axis, prepend=np.uint8(0))
    return halves


def decode(residuals: np.ndarray) -> Template:
    """Undo `encode` and mirror x >= 0 (whose first plane is x = 0) to the whole brain."""
    for axis in (3, 2, 1):
        residuals = np.cumsum(residuals, axis=axis, dtype=np.uint8)
    return Template(*np.concatenate([residuals[:, :0:-1], residuals], axis=1))


@functools.cache
def load() -> Template:
    """Read the template, once in a process (about half a second)."""
    with lzma.open(FILE) as file:
        return decode(np.load(file, allow_pickle=False))
