"""The devices of all processes, and how arrays are placed on them.

A mesh has one axis, `DEVICE`. An array is either `REPLICATED`, so that each device has a copy, or `SHARDED`: a batch of
images or lambdas is cut along its first axis, and each device has one shard.
"""

import math
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hyperrecon_jax.runtime.distributed import process_count, wait_for_all
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
DEVICE = "device"  # the axis of a mesh
SAMPLE_AXIS = "sample"  # the mapped axis of `jax.vmap` over the samples of one device
REPLICATED, SHARDED = PartitionSpec(), PartitionSpec(DEVICE)


def device_mesh(*sizes: int) -> Mesh:
    """Return a mesh of the largest number of devices that divides all sizes, and connect its devices.

    Each process has the same number of devices in it, side by side, so that its local shards are one part of the array.

    Raises:
        InputError: if the number of processes does not divide the sizes.
    """
    processes, divisor = process_count(), math.gcd(*sizes)
    counts = [n for n in range(1, jax.local_device_count() + 1) if divisor % (n * processes) == 0]
    if not counts:
        raise InputError(
            f"config.train.batch and config.dhs.keep must be multiples of the number of processes, {processes}."
        )
    devices: list[jax.Device] = []
    for process in range(processes):
        devices += [device for device in jax.devices() if device.process_index == process][: max(counts)]
    mesh = Mesh(np.array(devices), (DEVICE,), axis_types=(AxisType.Auto,))
    connect_devices(mesh)
    return mesh


@cache
def connect_devices(mesh: Mesh) -> None:
    """Connect the devices of several processes for collective operations.

    Between CPUs the first collective operation on a mesh fails if a process is 30 s late. That happens when it compiles a
    program that another process has in its cache. Later operations wait longer (20 minutes were tried). So all processes
    meet here first.
    """
    if process_count() == 1:
        return
    wait_for_all()
    values = jax.make_array_from_callback(
        (mesh.size,), NamedSharding(mesh, PartitionSpec(mesh.axis_names)), lambda _: np.zeros(1, np.float32)
    )
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, REPLICATED))(values))


def shardings(mesh: Mesh, specs: Tree) -> Tree:
    """Return a `NamedSharding` for each spec of a tree."""
    return jax.tree.map(partial(NamedSharding, mesh), specs)


def place(mesh: Mesh, tree: Tree, specs: Tree = REPLICATED) -> Tree:
    """Place a tree of arrays, which every process holds in full, on a mesh.

    Args:
        mesh: the devices.
        tree: arrays.
        specs: a `PartitionSpec` for all arrays, or a tree with one for each.
    """
    if process_count() == 1:
        return jax.device_put(tree, shardings(mesh, specs))

    def place_leaf(leaf, spec):
        sharding = NamedSharding(mesh, spec)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        leaf = np.asarray(leaf)
        # not device_put, which would send the whole array between the processes to compare it
        return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)

    if isinstance(specs, PartitionSpec):
        return jax.tree.map(lambda leaf: place_leaf(leaf, specs), tree)
    return jax.tree.map(place_leaf, tree, specs)


def place_local_shard(mesh: Mesh, tree: Tree) -> Tree:
    """Place a tree of arrays, of which each process holds its own part of a batch, as the whole batch, `SHARDED`."""
    if process_count() == 1:
        return place(mesh, tree, SHARDED)
    sharding = NamedSharding(mesh, SHARDED)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


def local_shard(array: jax.Array, axis: str = DEVICE) -> jax.Array:
    """This device's shard, along the first axis, of an array that each device holds; for use inside `jax.shard_map`."""
    size = len(array) // jax.lax.axis_size(axis)
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(axis) * size, size)


def gather(tree: Tree) -> Tree:
    """Return a tree of which every process holds all arrays in full; all processes must call it."""

    def gather_leaf(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if not leaf.is_fully_replicated:
            assert isinstance(leaf.sharding, NamedSharding), leaf.sharding
            leaf = jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, REPLICATED))
        return leaf.addressable_data(0)

    return jax.tree.map(gather_leaf, tree)
