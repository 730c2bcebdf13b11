"""What every source of data returns: three splits of samples, in memory or on disk."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hyperrecon_jax.physics.sample import Sample, example, take
from hyperrecon_jax.runtime import memory
from hyperrecon_jax.runtime.errors import InputError


class Samples(NamedTuple):
    """n samples with random access: `samples.take(index)`, an array of whole numbers, is a `Sample` of NumPy arrays."""

    size: int  # n
    example: Sample  # the shapes of one
    take: Callable[[np.ndarray], Sample]  # can be sent to another process
    arrays: Sample | None  # all of them, where they are in memory
    identity: Any  # tells whether two are the same: their arrays, or a name for what is on disk

    @property
    def nbytes(self) -> int:
        """Of all of them in memory."""
        return self.size * memory.num_bytes(self.example)


class Split(NamedTuple):
    samples: Samples
    subjects: np.ndarray  # (n,) int32, the subject of each sample; the same number in two splits is the same subject


class Dataset(NamedTuple):
    train: Split
    val: Split
    test: Split


def in_memory(samples: Sample) -> Samples:
    """Samples that are arrays already, `(n, ...)` each."""
    return Samples(len(samples.image), example(samples), partial(take, samples), samples, samples)


def on_disk(size: int, record: Callable[[int], Sample], name: str) -> Samples:
    """Samples that are read when they are asked for.

    Args:
        size: how many.
        record: reads one; can be pickled.
        name: tells this set from any other.
    """
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), record(0))
    return Samples(size, one, partial(_read, record, one), None, name)


def loaded(samples: Samples) -> Samples:
    """The same in memory."""
    return samples if samples.arrays is not None else in_memory(samples.take(np.arange(samples.size)))


def subset(samples: Samples, index: np.ndarray) -> Samples:
    """Some of the samples, where the others are."""
    if samples.arrays is not None:
        return in_memory(samples.take(index))
    name = f"{samples.identity}, {np.asarray(index).tolist()}"
    return samples._replace(size=len(index), take=partial(_chosen, samples.take, index), identity=name)


def _read(record, one, index):
    """One sample after the other into arrays that are there already: they are not in memory twice."""
    found = jax.tree.map(lambda leaf: np.empty((len(index), *leaf.shape), leaf.dtype), one)
    for place, i in enumerate(index):
        for whole, leaf in zip(jax.tree.leaves(found), jax.tree.leaves(record(int(i))), strict=True):
            whole[place] = leaf
    return found


def _unlabelled(take, index):
    return take(index)._replace(label=None)


def _chosen(take, index, places):
    return take(index[places])


def images(samples: Samples) -> np.ndarray:
    """The images alone, `(n, h, w)`, in memory."""
    if samples.arrays is not None:
        return samples.arrays.image[..., 0]
    chunks = np.array_split(np.arange(samples.size), -(-samples.size // 32))
    return np.concatenate([samples.take(chunk).image[..., 0] for chunk in chunks])


def evenly_spaced(size: int, count: int) -> np.ndarray:
    """Indices of at most `count` of `size` images, spread from the first to the last: int32 `(min(size, count),)`."""
    return np.linspace(0, size - 1, min(size, count)).astype(np.int32)


def without_labels(split: Split) -> Split:
    """The same without labels, which would only take room."""
    samples = split.samples
    if samples.arrays is not None:
        return split._replace(samples=in_memory(samples.arrays._replace(label=None)))
    example = samples.example._replace(label=None)
    return split._replace(samples=samples._replace(example=example, take=partial(_unlabelled, samples.take)))


def need_labels(split: Split) -> None:
    """Raises `InputError` if the samples of a split have no labels."""
    if split.samples.example.label is None:
        raise InputError("The images must have labels, which this source of data does not give.")
