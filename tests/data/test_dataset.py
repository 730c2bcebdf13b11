"""Samples in memory and on disk are the same to whoever takes them."""

import pickle
from functools import partial

import jax
import numpy as np
import pytest

from hyperrecon_jax import data
from hyperrecon_jax.data.dataset import need_labels
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
    return data.on_disk(len(samples.image), partial(record, samples), "these")


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [ALL, ALL._replace(label=None), ALL._replace(coils=None)])
def test_samples(kind, samples):
    made = make(kind, samples)
    assert made.size == 70
    assert made.example.image == jax.ShapeDtypeStruct((8, 16, 1), np.float32)
    assert (made.arrays is None) == (kind == "disk")
    index = np.array([69, 0, 3, 3])
    assert_same(made.take(index), record(samples, index))
    assert_same(pickle.loads(pickle.dumps(made.take))(index), record(samples, index))
    assert made.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(samples))
    assert_same(data.loaded(made).arrays, samples)
    np.testing.assert_array_equal(data.images(made), samples.image[..., 0])


@pytest.mark.parametrize("kind", KINDS)
def test_some(kind):
    index = np.array([5, 69, 0])
    some = data.subset(make(kind), index)
    assert (some.size, some.example) == (3, make(kind).example)
    assert_same(some.take(np.array([2, 0])), record(ALL, np.array([0, 5])))
    assert_same(data.subset(some, np.array([1])).take(np.array([0])), record(ALL, np.array([69])))
    np.testing.assert_array_equal(data.images(some), ALL.image[index, ..., 0])


def test_on_disk_others_have_another_identity():
    made = make("disk")
    identities = [made.identity, *(data.subset(made, np.array(k)).identity for k in ([0, 1], [1, 0], [0]))]
    assert len(set(identities)) == 4
    assert data.subset(made, np.array([0, 1])).identity == identities[1]


@pytest.mark.parametrize("kind", KINDS)
def test_without_labels(kind):
    split = data.Split(make(kind), np.arange(70, dtype=np.int32))
    need_labels(split)
    without = data.without_labels(split)
    assert without.samples.nbytes == split.samples.nbytes - ALL.label.nbytes
    index = np.array([7, 1])
    assert_same(without.samples.take(index), record(ALL._replace(label=None), index))
    np.testing.assert_array_equal(without.subjects, split.subjects)
    with pytest.raises(InputError, match="must have labels"):
        need_labels(without)


def test_what_is_in_memory_stays_where_it_is():
    made = make("memory")
    assert data.loaded(made) is made
    assert made.arrays is ALL
    assert data.without_labels(data.Split(made, np.arange(70))).samples.arrays.image is ALL.image
