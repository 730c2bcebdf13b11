"""Samples in memory and on disk give the same values."""

import pickle
from functools import partial

import jax
import numpy as np
import pytest

from hyperrecon_jax import data
from hyperrecon_jax.data.dataset import require_labels
from hyperrecon_jax.physics.sample import Coils, Sample
from hyperrecon_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
ALL = Sample(
    RNG.random((70, 8, 16, 1), np.float32),
    RNG.integers(0, 5, (70, 8, 16), np.uint8),
    Coils(*(RNG.random((2, 70, 3, 8, 16)) + 1j).astype(np.complex64)),
)
KINDS = ["memory", "disk"]


def record(samples, index):
    return jax.tree.map(lambda leaf: leaf[index], samples)


def make(kind, samples=ALL):
    if kind == "memory":
        return data.in_memory(samples)
    return data.on_disk(len(samples.image), partial(record, samples), "samples")


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [ALL, ALL._replace(label=None), ALL._replace(coils=None)])
def test_samples(kind, samples):
    source = make(kind, samples)
    assert source.size == 70
    assert source.example.image == jax.ShapeDtypeStruct((8, 16, 1), np.float32)
    assert (source.arrays is None) == (kind == "disk")
    index = np.array([69, 0, 3, 3])
    assert_same(source.take(index), record(samples, index))
    assert_same(pickle.loads(pickle.dumps(source.take))(index), record(samples, index))
    assert source.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(samples))
    assert_same(data.load_into_memory(source).arrays, samples)
    np.testing.assert_array_equal(data.images(source), samples.image[..., 0])


@pytest.mark.parametrize("kind", KINDS)
def test_subset(kind):
    index = np.array([5, 69, 0])
    samples = data.subset(make(kind), index)
    assert (samples.size, samples.example) == (3, make(kind).example)
    assert_same(samples.take(np.array([2, 0])), record(ALL, np.array([0, 5])))
    assert_same(data.subset(samples, np.array([1])).take(np.array([0])), record(ALL, np.array([69])))
    np.testing.assert_array_equal(data.images(samples), ALL.image[index, ..., 0])


def test_on_disk_other_samples_have_another_identity():
    samples = make("disk")
    identities = [samples.identity, *(data.subset(samples, np.array(k)).identity for k in ([0, 1], [1, 0], [0]))]
    assert len(set(identities)) == 4
    assert data.subset(samples, np.array([0, 1])).identity == identities[1]


@pytest.mark.parametrize("kind", KINDS)
def test_drop_labels(kind):
    split = data.Split(make(kind), np.arange(70, dtype=np.int32))
    require_labels(split)
    without = data.drop_labels(split)
    assert without.samples.nbytes == split.samples.nbytes - ALL.label.nbytes
    index = np.array([7, 1])
    assert_same(without.samples.take(index), record(ALL._replace(label=None), index))
    np.testing.assert_array_equal(without.subjects, split.subjects)
    with pytest.raises(InputError, match="must have labels"):
        require_labels(without)


def test_samples_in_memory_are_not_copied():
    samples = make("memory")
    assert data.load_into_memory(samples) is samples
    assert samples.arrays is ALL
    assert data.drop_labels(data.Split(samples, np.arange(70))).samples.arrays.image is ALL.image
