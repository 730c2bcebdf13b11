"""Which samples make the batch of a step, and the feed that reads them from memory or disk.

The order is a pure function of (key, step). So a run that resumes needs only the step, and the order is the same in
memory and on disk. Each epoch has a new random order and uses every sample exactly once. Epochs follow each other without
a gap: a batch may hold the end of one epoch and the start of the next.
"""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.data.dataset import Samples
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.workers import end_with_parent

THREADS = 4  # threads that read
PREFETCH_BATCHES = 4  # batches that are read before they are needed


def batch_indices(key: jax.Array, step: jax.Array | int, *, count: int, batch: int) -> jax.Array:
    """Indices of the samples of one step, `(batch,)`. Works inside a compiled step.

    Args:
        key: random key of the order, the same for the whole training.
        step: number of the batch, from 0.
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


def sample_order(key: jax.Array, first: int, last: int, *, count: int, batch: int) -> np.ndarray:
    """`batch_indices` of the steps from `first` to `last - 1`, computed on the CPU: int32 `(last - first, batch)`."""
    epochs = range(first * batch // count, -(-last * batch // count))
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.default_device(cpu):  # on an accelerator this would wait for the step that is running
        key = jax.device_put(key, cpu)
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
    process_part: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> Iterator[Any]:
    """The batches of the steps from `first` to `last - 1`, in the order of `batch_indices`.

    Grain reads them ahead, in threads or in processes of its own. It keeps no state but the step.

    Args:
        samples: samples in memory or on disk.
        key, batch: as in `batch_indices`.
        first, last: steps.
        put: moves a batch to the devices. The next batch is moved while the present one is used.
        process_part: (i, n): only the i-th of n equal parts of each batch, for the i-th of n processes.
        workers: processes that read. With 0, threads of this process read, which is enough unless decoding is slow.
    """
    import grain

    part, parts = process_part
    size = batch // parts
    indices = sample_order(key, first, last, count=samples.size, batch=batch)[:, part * size : (part + 1) * size]
    batches = grain.MapDataset.range(len(indices)).map(partial(_take_batch, samples.take, indices))
    feed = batches.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=PREFETCH_BATCHES))
    if workers:
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own, which a program without flags has not parsed
        feed = feed.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_start_worker)
    current = None
    for sample in feed:
        following = put(sample)
        if current is not None:
            yield current
        current = following
    if current is not None:
        yield current


def _start_worker(index: int, count: int) -> None:
    """Grain calls this in each of its processes."""
    end_with_parent(signal.SIG_IGN)


def _permutation(key: jax.Array, epoch: jax.Array | int, count: int) -> jax.Array:
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)


def _take_batch(take: Callable[[np.ndarray], Sample], indices: np.ndarray, step: int) -> Sample:
    return take(indices[step])
