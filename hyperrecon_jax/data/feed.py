"""Which samples make the batch of a step, and the feed that brings them from memory or disk.

The order is a pure function of (key, step): resuming needs the step alone, and where the samples lie changes nothing. The
samples of an epoch come in a fresh random order, each exactly once; epochs follow one another without a gap, so that a
batch may hold the end of one and the start of the next.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.data.dataset import Samples
from hyperrecon_jax.physics.sample import Sample

THREADS, AHEAD = 4, 4  # that read, and batches that are read before they are asked for


def batch_indices(key: jax.Array, step: jax.Array | int, *, count: int, batch: int) -> jax.Array:
    """Indices of the samples of one step, `(batch,)`. Works inside a compiled step.

    Args:
        key: the order's key, the same for the whole training.
        step: which batch, from 0.
        count: samples in the data set, at least `batch`.
        batch: samples in a batch.
    """
    # The position of the batch's first sample in the endless sequence is step * batch = epoch * count + offset. A counter
    # of samples would leave 32 bits after 2^31 of them; batches and epochs do not.
    step = jnp.asarray(step, jnp.uint32)
    batches, rest = jnp.divmod(step, jnp.uint32(count))  # count steps are exactly `batch` epochs
    position = rest * jnp.uint32(batch) + jnp.arange(batch, dtype=jnp.uint32)
    epoch = batches * jnp.uint32(batch) + position // jnp.uint32(count)
    offset = position % jnp.uint32(count)
    first, last = _permutation(key, epoch[0], count), _permutation(key, epoch[-1], count)
    return jnp.where(epoch == epoch[0], first[offset], last[offset])


def order(key: jax.Array, first: int, last: int, *, count: int, batch: int) -> np.ndarray:
    """`batch_indices` of the steps from `first` up to, not including, `last`, int32 `(last - first, batch)`."""
    epochs = range(first * batch // count, -(-last * batch // count))
    host = jax.local_devices(backend="cpu")[0]
    with jax.default_device(host):  # on an accelerator they would queue behind the step that is running
        key = jax.device_put(key, host)
        permutation = jax.jit(_permutation, static_argnames="count")
        indices = np.concatenate([np.asarray(permutation(key, epoch, count=count), np.int32) for epoch in epochs])
    start = first * batch - epochs[0] * count
    return indices[start : start + (last - first) * batch].reshape(-1, batch)


def stream(
    samples: Samples,
    key: jax.Array,
    *,
    first: int,
    last: int,
    batch: int,
    put: Callable[[Sample], Any],
    share: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> Iterator[Any]:
    """The batches of the steps from `first` up to, not including, `last`, in the order of `batch_indices`.

    They are read ahead by Grain, in threads or in processes of its own. What it has to remember is the step.

    Args:
        samples: in memory or on disk.
        key, batch: as in `batch_indices`.
        first, last: steps.
        put: moves a batch to the devices; the next is moved while the present one is used.
        share: (i, n): the i-th of n equal parts of each batch, for a host of several.
        workers: processes that read; 0: threads of this one, enough unless decoding is what takes long.
    """
    import grain

    part, parts = share
    size = batch // parts
    indices = order(key, first, last, count=samples.size, batch=batch)[:, part * size : (part + 1) * size]
    batches = grain.MapDataset.range(len(indices)).map(partial(_load, samples.take, indices))
    feed = batches.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD))
    if workers:
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain asks for flags of its own, which a program without flags has not parsed
        feed = feed.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    ready = None
    for loaded in feed:
        ahead = put(loaded)
        if ready is not None:
            yield ready
        ready = ahead
    if ready is not None:
        yield ready


def _permutation(key: jax.Array, epoch: jax.Array | int, count: int) -> jax.Array:
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)


def _load(take: Callable[[np.ndarray], Sample], indices: np.ndarray, step: int) -> Sample:
    return take(indices[step])
