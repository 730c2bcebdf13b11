"""Which images make the batch of a step. The order is a pure function of (key, step): resuming needs the step alone.

The images of an epoch come in a fresh random order, each exactly once; epochs follow one another without a gap, so that a
batch may hold the end of one and the start of the next.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np


def batch_indices(key: jax.Array, step: jax.Array | int, *, count: int, batch: int) -> jax.Array:
    """Indices of the images of one step, `(batch,)`. Works inside a compiled step.

    Args:
        key: the order's key, the same for the whole training.
        step: which batch, from 0.
        count: images in the data set, at least `batch`.
        batch: images in a batch.
    """
    # The position of the batch's first image in the endless sequence is step * batch = epoch * count + offset. A counter
    # of images would leave 32 bits after 2^31 of them; batches and epochs do not.
    step = jnp.asarray(step, jnp.uint32)
    batches, rest = jnp.divmod(step, jnp.uint32(count))  # count steps are exactly `batch` epochs
    position = rest * jnp.uint32(batch) + jnp.arange(batch, dtype=jnp.uint32)
    epoch = batches * jnp.uint32(batch) + position // jnp.uint32(count)

    def order(epoch):
        return jax.random.permutation(jax.random.fold_in(key, epoch), count)

    offset = position % jnp.uint32(count)
    return jnp.where(epoch == epoch[0], order(epoch[0])[offset], order(epoch[-1])[offset])


def stream(images: np.ndarray, key: jax.Array, *, first_step: int, batch: int, put) -> Iterator[jax.Array]:
    """Batches from the host's memory for a data set that does not fit on the device, in the order of `batch_indices`.

    Args:
        images: `(n, h, w, 1)`.
        key, batch: as in `batch_indices`.
        first_step: the step of the first batch.
        put: moves an array to the devices. The next batch is gathered and moved while the present one is used.
    """
    host = jax.local_devices(backend="cpu")[0]
    key = jax.device_put(key, host)
    indices = jax.jit(batch_indices, static_argnames=("count", "batch"))

    def load(step):
        with jax.default_device(host):  # on an accelerator they would queue behind the step that is running
            chosen = np.asarray(indices(key, step, count=len(images), batch=batch))
        return put(images[chosen])

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(load, first_step)
        step = first_step
        while True:
            ready = ahead.result()
            step += 1
            ahead = pool.submit(load, step)
            yield ready
