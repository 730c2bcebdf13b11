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
    """Batches from memory and from disk, read by threads and by processes; first alone, then beside a training step.

    The reference of the step has its images on the device. The images are slices of the synthetic population, prepared like
    all data. What is read from disk may still be in the cache of the operating system.
    """
    folder = data.mni_folder(size=scale.size, subjects=(4, 1, 1), slices=64)
    disk_samples, memory_samples = (data.drop_labels(data.read(folder, disk=disk).train).samples for disk in (True, False))
    mesh = device_mesh(scale.batch)
    put = partial(place, mesh, specs=SHARDED)
    feeds: dict[str, tuple[data.Samples, int]] = {  # the samples, and the number of processes that read them
        "memory": (memory_samples, 0),
        "disk, threads": (disk_samples, 0),
        "disk, 2 processes": (disk_samples, 2),
    }

    def open_stream(samples, workers):
        return stream(samples, jax.random.key(0), first=0, last=10**5, batch=scale.batch, put=put, workers=workers)

    for name, source in feeds.items():
        batches = open_stream(*source)

        def pull(batches=batches):
            for _ in range(BATCHES):
                jax.block_until_ready(next(batches))

        yield Candidate(f"{scale.label}, {BATCHES} batches", name, pull, images=BATCHES * scale.batch)
    task = networks.amortized_task(scale)
    for name in ("on the device", *feeds):
        batches = open_stream(*feeds[name]) if name in feeds else itertools.repeat(place(mesh, memory_samples.arrays))
        step = make_step(task.setup, mesh, resident=name not in feeds)
        run = networks.make_stepper(step, networks.place_initial_state(task, mesh), batches)
        yield Candidate(f"{scale.label}, a step", name, run, work=networks.step_work(task), images=scale.batch)
