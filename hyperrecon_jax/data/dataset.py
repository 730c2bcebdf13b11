"""The type that every source of data returns: three splits of samples, in memory or on disk."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hyperrecon_jax.physics.sample import Sample, example, take
from hyperrecon_jax.runtime import memory
from hyperrecon_jax.runtime.errors import InputError


class Samples(NamedTuple):
    """n samples with random access: `samples.take(index)` is a `Sample` of NumPy arrays; `index` is an integer array."""

    size: int  # n
    example: Sample  # the shapes and types of a single sample
    take: Callable[[np.ndarray], Sample]  # can be pickled for another process
    arrays: Sample | None  # all samples, if they are in memory
    identity: Any  # equal for equal samples: their arrays, or a name for samples on disk

    @property
    def nbytes(self) -> int:
        """Bytes of all samples in memory."""
        return self.size * memory.num_bytes(self.example)


class Split(NamedTuple):
    """Samples and the subjects that they show."""

    samples: Samples
    subjects: np.ndarray  # (n,) int32, the subject of each sample; the same number in two splits is the same subject


class Dataset(NamedTuple):
    """Three splits that share no subject."""

    train: Split
    val: Split
    test: Split


def in_memory(samples: Sample) -> Samples:
    """Samples from arrays, whose leaves are `(n, ...)`."""
    return Samples(len(samples.image), example(samples), partial(take, samples), samples, samples)


def on_disk(size: int, read_sample: Callable[[int], Sample], name: str) -> Samples:
    """Samples that are read from disk whenever they are taken.

    Args:
        size: how many.
        read_sample: reads the sample of an index; can be pickled.
        name: differs for different samples.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), read_sample(0))
    return Samples(size, shapes, partial(_take_from_disk, read_sample, shapes), None, name)


def load_into_memory(samples: Samples) -> Samples:
    """The same samples in memory."""
    return samples if samples.arrays is not None else in_memory(samples.take(np.arange(samples.size)))


def subset(samples: Samples, index: np.ndarray) -> Samples:
    """The samples at some indices, in memory or on disk as before."""
    if samples.arrays is not None:
        return in_memory(samples.take(index))
    name = f"{samples.identity}, {np.asarray(index).tolist()}"
    return samples._replace(size=len(index), take=partial(_take_subset, samples.take, index), identity=name)


def images(samples: Samples) -> np.ndarray:
    """The images alone, `(n, h, w)`, in memory."""
    if samples.arrays is not None:
        return samples.arrays.image[..., 0]
    chunks = np.array_split(np.arange(samples.size), -(-samples.size // 32))
    return np.concatenate([samples.take(chunk).image[..., 0] for chunk in chunks])


def evenly_spaced(size: int, count: int) -> np.ndarray:
    """At most `count` of the indices 0 to size - 1, evenly spaced from first to last: int32 `(min(size, count),)`."""
    return np.linspace(0, size - 1, min(size, count)).astype(np.int32)


def drop_labels(split: Split) -> Split:
    """The split without its labels, so that they take no memory."""
    samples = split.samples
    if samples.arrays is not None:
        return split._replace(samples=in_memory(samples.arrays._replace(label=None)))
    example = samples.example._replace(label=None)
    return split._replace(samples=samples._replace(example=example, take=partial(_take_without_labels, samples.take)))


def require_labels(split: Split) -> None:
    """Check that the samples of a split have labels.

    Raises:
        InputError: if they have none.
    """
    if split.samples.example.label is None:
        raise InputError("The images must have labels, which this source of data does not give.")


# Module-level functions, because partials of them are sent to other processes.


def _take_from_disk(read_sample, shapes, index):
    """Read the samples one by one into arrays that exist already, so that no sample is in memory twice."""
    samples = jax.tree.map(lambda leaf: np.empty((len(index), *leaf.shape), leaf.dtype), shapes)
    for row, i in enumerate(index):
        for target, leaf in zip(jax.tree.leaves(samples), jax.tree.leaves(read_sample(int(i))), strict=True):
            target[row] = leaf
    return samples


def _take_without_labels(take, index):
    return take(index)._replace(label=None)


def _take_subset(take, subset_index, index):
    return take(subset_index[index])
