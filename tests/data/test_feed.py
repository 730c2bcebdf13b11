"""The order of the images: each once in an epoch, a function of (key, step), the same inside and outside of a step."""

import jax
import numpy as np
import pytest

from hyperrecon_jax.data import load_into_memory, on_disk
from hyperrecon_jax.data.feed import batch_indices, sample_order, stream
from hyperrecon_jax.physics.sample import Sample

KEY = jax.random.key(3)
INDICES = jax.jit(batch_indices, static_argnames=("count", "batch"))


@pytest.mark.parametrize(("count", "batch"), [(12, 4), (13, 5), (7, 7), (9, 1)])
def test_every_image_once_in_an_epoch(count, batch):
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
    first, second = (INDICES(jax.random.key(k), 0, count=20, batch=20) for k in (0, 1))
    assert (np.asarray(first) != np.asarray(second)).any()


def record(index):
    """A sample, as `on_disk` reads it; a function of this module, so that another process can import it."""
    return Sample(np.full((1, 1, 1), index, np.float32), np.full((1, 1), index, np.uint8))


def places(batches):
    return np.stack([batch.image.ravel() for batch in batches])


EXPECTED = np.stack([INDICES(KEY, step, count=11, batch=4) for step in range(9)])


@pytest.mark.parametrize(("first", "last"), [(0, 9), (2, 3), (5, 9)])
def test_the_order_outside_of_a_step_is_that_inside(first, last):
    np.testing.assert_array_equal(sample_order(KEY, first, last, count=11, batch=4), EXPECTED[first:last])


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_stream_gives_the_same_batches_from_any_step(storage):
    samples = on_disk(11, record, "samples")
    samples = load_into_memory(samples) if storage == "memory" else samples
    batches = list(stream(samples, KEY, first=2, last=9, batch=4, put=lambda sample: sample))
    np.testing.assert_array_equal(places(batches), EXPECTED[2:])
    np.testing.assert_array_equal(batches[0].label.ravel(), EXPECTED[2])
    assert batches[0].coils is None


@pytest.mark.slow
def test_reading_processes_give_the_same():
    batches = stream(on_disk(11, record, "samples"), KEY, first=2, last=9, batch=4, put=lambda sample: sample, workers=2)
    np.testing.assert_array_equal(places(batches), EXPECTED[2:])


def test_processes_share_each_batch():
    samples = on_disk(11, record, "samples")
    shares = [
        places(stream(samples, KEY, first=0, last=9, batch=4, put=lambda sample: sample, process_part=(i, 2)))
        for i in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), EXPECTED)


def test_a_stream_that_is_left_early_ends():
    batches = stream(on_disk(11, record, "samples"), KEY, first=0, last=10**5, batch=4, put=lambda sample: sample)
    np.testing.assert_array_equal(next(batches).image.ravel(), EXPECTED[0])
    batches.close()
