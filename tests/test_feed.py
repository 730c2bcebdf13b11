"""The order of the images: every image once an epoch, a function of (key, step), the same inside and outside the device."""

import jax
import numpy as np
import pytest

from hyperrecon_jax.data import in_memory
from hyperrecon_jax.data.feed import batch_indices, stream
from hyperrecon_jax.sample import Sample

KEY = jax.random.key(3)
INDICES = jax.jit(batch_indices, static_argnames=("count", "batch"))


@pytest.mark.parametrize(("count", "batch"), [(12, 4), (13, 5), (7, 7), (9, 1)])
def test_every_image_once_an_epoch(count, batch):
    """`batch` epochs are exactly `count` steps, whether or not the batch divides the epoch."""
    order = np.concatenate([INDICES(KEY, step, count=count, batch=batch) for step in range(count)])
    epochs = order.reshape(batch, count)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(count), (batch, 1)))
    if batch > 1 and count > 4:
        assert (epochs[0] != epochs[1]).any()


def test_epochs_go_on_differing_after_the_counter_turns():
    first, later = (INDICES(KEY, step, count=5, batch=5) for step in (0, 5))
    assert (np.asarray(first) != np.asarray(later)).any()


def test_large_steps_do_not_overflow():
    step = 2**31 // 32  # the counter of images would leave 32 bits here
    rows = np.concatenate([INDICES(KEY, step - step % 96 + i, count=96, batch=32) for i in range(3)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(96))


def test_the_key_sets_the_order():
    one, other = (INDICES(jax.random.key(k), 0, count=20, batch=20) for k in (0, 1))
    assert (np.asarray(one) != np.asarray(other)).any()


def test_stream_gives_the_same_batches_from_any_step():
    images = np.arange(11, dtype=np.float32).reshape(11, 1, 1, 1)
    expected = [images[np.asarray(INDICES(KEY, step, count=11, batch=4))] for step in range(6)]
    batches = stream(in_memory(Sample(images)), KEY, first=2, last=6, batch=4, put=lambda sample: sample.image)
    for ours, theirs in zip(batches, expected[2:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
