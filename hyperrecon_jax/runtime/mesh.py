"""The devices, of all hosts, and how arrays lie on them.

There is one axis, `DEVICE`. What all devices need is on each of them (`REPLICATED`); a batch of images or lambdas is cut
along its first axis (`SHARDED`).
"""

import math
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
DEVICE = "device"
REPLICATED, SHARDED = PartitionSpec(), PartitionSpec(DEVICE)


def device_mesh(*sizes: int) -> Mesh:
    """The largest number of devices that divides the sizes.

    As many of each host, in the order of the hosts, so that each has one part of what is spread.

    Raises:
        InputError: if the number of hosts does not divide the sizes.
    """
    here, count = jax.local_device_count(), distributed.process_count()
    each = max((n for n in range(1, here + 1) if math.gcd(*sizes) % (n * count) == 0), default=0)
    if not each:
        raise InputError(f"config.train.batch and config.dhs.keep must be multiples of the number of hosts, {count}.")
    chosen = [device for host in range(count) for device in [d for d in jax.devices() if d.process_index == host][:each]]
    return Mesh(np.array(chosen), (DEVICE,), axis_types=(AxisType.Auto,))


def place(mesh: Mesh, tree: Tree, spec: PartitionSpec = REPLICATED) -> Tree:
    """A tree of arrays, known to each host, on the mesh: a copy on each device, or cut along the first axis (`SHARDED`)."""
    return distributed.put(tree, NamedSharding(mesh, spec))


def place_part(mesh: Mesh, tree: Tree) -> Tree:
    """A tree of arrays, each host's own part of a batch, as the whole batch, `SHARDED` over the mesh."""
    if distributed.process_count() == 1:
        return place(mesh, tree, SHARDED)
    sharding = NamedSharding(mesh, SHARDED)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


def shardings(mesh: Mesh, specs: Tree) -> Tree:
    """A sharding for each spec."""
    return jax.tree.map(partial(NamedSharding, mesh), specs)


def local_shard(array: jax.Array, axis: str = DEVICE) -> jax.Array:
    """This device's part, along the first axis, of an array that each device holds; for use inside of `jax.shard_map`."""
    size = len(array) // jax.lax.axis_size(axis)
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(axis) * size, size)
