"""The feed: batches from memory and from disk, alone and beside a training step."""

import itertools
from collections.abc import Iterator
from functools import partial

import jax

from hyperrecon_jax import data
from hyperrecon_jax.benchmarks import networks
from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.data.feed import stream
from hyperrecon_jax.runtime.mesh import SHARDED, device_mesh, place
from hyperrecon_jax.training.step import make_step

BATCHES = 48  # in a call of the feed alone: many more than are read ahead


def candidates(scale: Scale) -> Iterator[Candidate]:
    """Batches from memory and from disk, by threads and by processes; the step's reference has its images on the device.

    The images are slices of the synthetic population, prepared as all are; what is read from disk may still be in the
    system's cache.
    """
    folder = data.mni_folder(size=scale.size, subjects=(4, 1, 1), slices=64)
    stored, held = (data.drop_labels(data.read(folder, disk=disk).train).samples for disk in (True, False))
    mesh = device_mesh(scale.batch)
    put = partial(place, mesh, specs=SHARDED)
    ways: dict[str, tuple[data.Samples, int]] = {
        "memory": (held, 0),
        "disk, threads": (stored, 0),
        "disk, 2 processes": (stored, 2),
    }

    def supply(samples, workers):
        return stream(samples, jax.random.key(0), first=0, last=10**5, batch=scale.batch, put=put, workers=workers)

    for name, way in ways.items():
        batches = supply(*way)

        def pull(batches=batches):
            for _ in range(BATCHES):
                jax.block_until_ready(next(batches))

        yield Candidate(f"{scale.label}, {BATCHES} batches", name, pull, images=BATCHES * scale.batch)
    task = networks.amortized(scale)
    for name in ("on the device", *ways):
        batches = supply(*ways[name]) if name in ways else itertools.repeat(place(mesh, held.arrays))
        step = make_step(task.setup, mesh, resident=name not in ways)
        run = networks.stepper(step, networks.state(task, mesh), batches)
        yield Candidate(f"{scale.label}, a step", name, run, work=networks.step_work(task), images=scale.batch)
