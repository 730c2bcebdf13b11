"""A volume that is open on the page, and a slice of it as the network gets it."""

from typing import NamedTuple

import jax

from hyperrecon_jax.data import volumes
from hyperrecon_jax.explorer.measurement import MeasuredKspace
from hyperrecon_jax.explorer.uploads import Upload
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.physics.net_input import NetInput
from hyperrecon_jax.physics.problem import Measurement, Problem


class OpenVolume(NamedTuple):
    """A volume and how its slices are measured."""

    name: str
    note: str  # for the user
    file: volumes.Volume  # images, which the problem of the run measures; or k-space, which a scanner measured
    problem: Problem  # of the network inputs and of J; with a range of acquisitions, another one may measure the slices
    has_reference: bool  # the true image is known
    start: int  # the slice to show first: the one with the largest mean
    kspace: MeasuredKspace | None = None  # of a scanner; its array is that of `file`
    estimate: Acquisition | None = None  # of k-space, read off the data
    differences: tuple[str, ...] = ()  # from what the run was trained on, a sentence each
    subjects: list[int] | None = None  # of the test images: which subject each slice shows, counted from 1; empty: unknown
    upload: Upload | None = None  # the files that it came from
    files: str | None = None  # the digest of `upload`
    owners: frozenset[str] = frozenset()  # the tabs that have added it


class MeasuredSlice(NamedTuple):
    """A slice as the network gets it."""

    y: Measurement
    net_input: NetInput
    x: jax.Array | None  # (h, w, 1), the reference image; None if it is not known
