"""A `Sample`: one image, and optional data of its source, such as labels and measured k-space.

A sample is a tree of arrays. Many samples are one such tree whose leaves have a leading axis.
"""

from typing import Any, NamedTuple

import jax

Array = Any  # of NumPy or JAX, or a jax.ShapeDtypeStruct
Tree = Any
LABELS = ("background", "gray matter", "white matter", "CSF", "cortex")  # gray matter: deep nuclei and the cerebellum


class Coils(NamedTuple):
    """K-space that the coils of a scanner measured. It is scaled such that the image lies in [0, 1]."""

    kspace: Array  # (c, h, w) complex64, zero frequency in the corner, orthonormal; zero where nothing was measured
    maps: Array  # (c, h, w) complex64, sensitivities: sum |maps|^2 over the coils is 1 where there is signal, else 0


class Sample(NamedTuple):
    """One image, `(h, w, 1)`, and optional data of its source; None if missing."""

    image: Array  # (h, w, 1) float32 in [0, 1], the reference image
    label: Array | None = None  # (h, w) uint8, indices into `LABELS`
    coils: Coils | None = None


def take(samples: Tree, index: Any) -> Tree:
    """Index the leading axis of every leaf (of samples or measurements)."""
    return jax.tree.map(lambda leaf: leaf[index], samples)


def example(samples: Sample) -> Sample:
    """The shapes and types of one sample, from many samples."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), samples)
