"""Where the training images are held, and the batches that the training steps get."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import psutil
from jax.sharding import Mesh

from hyperrecon_jax.data.feed import stream
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs.experiment import Experiment
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.mesh import place, place_local_shard
from hyperrecon_jax.training.step import split_key, training_mesh


class Placement(NamedTuple):
    """The devices of a training and where its images are."""

    mesh: Mesh
    resident: bool  # all training images are on every device; otherwise each batch is sent to the devices


def choose_placement(experiment: Experiment) -> Placement:
    """The placement by `config.data.placement` and the free memory. All processes must call it together."""
    mesh = training_mesh(experiment.setup)
    return Placement(mesh, distributed.broadcast_from_primary(partial(_fits_on_device, experiment, mesh)))


def training_batches(experiment: Experiment, placement: Placement, *, first: int, last: int) -> Iterator[Sample]:
    """The samples for `step.make_step` in the steps after `first` up to `last`: all images in every step, or batches."""
    samples, config = experiment.dataset.train.samples, experiment.config
    if placement.resident:
        replicated = place(placement.mesh, samples.arrays)
        while True:
            yield replicated
    key_order, _ = split_key(experiment.setup)
    yield from stream(
        samples,
        key_order,
        first=first,
        last=last,
        batch=config.train.batch,
        put=partial(place_local_shard, placement.mesh),
        process_part=(jax.process_index(), distributed.process_count()),
        workers=config.data.workers,
    )


def _fits_on_device(experiment: Experiment, mesh: Mesh) -> bool:
    """Whether the training images stay on each device."""
    placement, samples = experiment.config.data.placement, experiment.dataset.train.samples
    if placement != "auto":
        return placement == "device"
    if samples.arrays is None:
        return False
    device = mesh.devices.flat[0]
    if device.platform == "cpu":  # its devices share the memory of the machine, and each has a copy
        return samples.nbytes * len(mesh.local_devices) <= psutil.virtual_memory().available / 4
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)  # not every platform tells its limit
    return samples.nbytes <= limit / 4
