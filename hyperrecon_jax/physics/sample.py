"""What is known of one image. A `Sample` is a tree of arrays; of many the leaves have a leading axis; None is not known."""

from typing import Any, NamedTuple

import jax

Array = Any  # of NumPy or JAX, or a jax.ShapeDtypeStruct
Tree = Any
LABELS = ("background", "gray matter", "white matter", "CSF", "cortex")  # gray matter: deep, and of the cerebellum


class Coils(NamedTuple):
    """K-space as the coils of a scanner measured it, in units in which the image lies in [0, 1]."""

    kspace: Array  # (c, h, w) complex64, zero frequency in the corner, orthonormal; zero where nothing was measured
    maps: Array  # (c, h, w) complex64, sensitivities: sum |maps|^2 is 1 where there is signal and 0 elsewhere


class Sample(NamedTuple):
    """One image, `(h, w, 1)`, and what else its source knows."""

    image: Array  # (h, w, 1) float32 in [0, 1], the truth
    label: Array | None = None  # (h, w) uint8, indices into `LABELS`
    coils: Coils | None = None


def take(samples: Tree, index: Any) -> Tree:
    """Some of many samples, or of their measurements: the rows `index` of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], samples)


def example(samples: Sample) -> Sample:
    """The shapes of one of many samples."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), samples)
