"""How fast the compiled parts are: cases of a suite in one process, in alternation, as ratios to the suite's reference.

A machine that is shared or throttled slows all cases alike, so that the ratios hold where the seconds do not.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from hyperrecon_jax import data, evaluate, hyperparams, masks, operators
from hyperrecon_jax.data.feed import stream
from hyperrecon_jax.model import apply_main, generate_weights, init
from hyperrecon_jax.objective import Objective, make_terms
from hyperrecon_jax.problem import simulated
from hyperrecon_jax.sample import Sample
from hyperrecon_jax.train import REPLICATED, SPREAD, Setup, TrainState, device_mesh, initial_state, make_step, place
from hyperrecon_jax.unet import UNet

BATCHES = 48  # in a call of the feed alone: many more than are read ahead


class Row(NamedTuple):
    """One measurement."""

    suite: str
    case: str
    implementation: str
    seconds: float  # median of a call
    ratio: float  # to the first implementation of the same case
    peak_bytes: int  # that the compiled program needs beside its arguments and results, on each device; 0: not known


class Candidate(NamedTuple):
    """Something to time: `run` starts a call and waits for its end."""

    case: str
    implementation: str
    run: Callable[[], Any]
    peak_bytes: int


def measure(suite: str, candidates: list[Candidate], *, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Time the candidates one after the other, `rounds` times over, after a first call that does not count."""
    took: list[list[float]] = [[] for _ in candidates]
    for i in range(rounds + 1):
        for candidate, seconds in zip(candidates, took, strict=True):
            start = time.perf_counter()
            candidate.run()
            if i:
                seconds.append(time.perf_counter() - start)
        say(f"{suite}: round {i} of {rounds}")
    medians = [statistics.median(seconds) for seconds in took]
    reference: dict[str, float] = {}
    for candidate, median in zip(candidates, medians, strict=True):
        reference.setdefault(candidate.case, median)
    return [
        Row(suite, c.case, c.implementation, median, median / reference[c.case], c.peak_bytes)
        for c, median in zip(candidates, medians, strict=True)
    ]


def dhs(*, size: int, batch: int, width: int, hyper_width: int) -> Iterator[Candidate]:
    """A training step of amortized optimization: UHS, and DHS that keeps a half and a quarter, by both of its paths.

    Instance norm allows the pull-back of the samples that count; batch norm couples the samples, so that the others are
    masked. Either is compared with UHS under the same norm.
    """
    for norm, path in (("instance", "pull back"), ("batch", "mask")):
        for keep in (batch, batch // 2, batch // 4):
            network = UNet(width=width, norm=norm)
            mesh = device_mesh(batch, batch // 2, batch // 4)  # the same for all
            setup, state = _amortized(network, mesh, size=size, batch=batch, hyper_width=hyper_width, keep=keep)
            samples = place(mesh, Sample(np.random.default_rng(0).random((batch, size, size, 1), np.float32)))
            step = jax.jit(make_step(setup, mesh, resident=True), donate_argnums=0).lower(state, samples).compile()
            memory: Any = step.memory_analysis()
            name = "UHS" if keep == batch else f"DHS {keep} of {batch}, {path}"
            yield Candidate(
                f"{norm} norm", name, _stepper(step, state, itertools.repeat(samples)), int(memory.temp_size_in_bytes)
            )


def landscape(*, size: int, batch: int, width: int, hyper_width: int) -> Iterator[Candidate]:
    """Scores of `batch` images at some lambdas on each device, against the network's bare forward pass as often.

    The forward pass has its weights already, and only a sum of its results is taken; the others generate the weights of
    each lambda, and compute the metrics that are reported by default.
    """
    network = UNet(width=width)
    mesh = device_mesh(0)
    setup, state = _amortized(network, mesh, size=size, batch=batch, hyper_width=hyper_width, keep=batch)
    lams = np.asarray(hyperparams.uniform(jax.random.key(2), (4 * mesh.devices.size, 2)))
    samples = Sample(np.random.default_rng(0).random((batch, size, size, 1), np.float32))
    model = setup.model
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    y = evaluate.measure(setup.problem, jax.random.key(0), samples, jax.numpy.arange(batch))
    lifted = place(mesh, np.asarray(jax.vmap(setup.problem.lift)(y)))
    theta = jax.jit(partial(generate_weights, model))(state.params, lams[0])

    def bare(theta, lams, lifted):
        def at(lam):  # that the weights depend on lambda keeps the passes apart
            moved = jax.tree.map(lambda leaf: leaf + 1e-6 * lam[0], theta)
            return jax.numpy.sum(jax.vmap(lambda y: apply_main(model, moved, {}, y))(lifted))

        return jax.lax.map(at, lams)

    forward = jax.jit(
        jax.shard_map(bare, mesh=mesh, in_specs=(REPLICATED, SPREAD, REPLICATED), out_specs=SPREAD, check_vma=False)
    )
    spread = place(mesh, lams, SPREAD)
    compiled = forward.lower(theta, spread, lifted).compile()
    case = f"{len(lams)} x {batch} images"
    memory: Any = compiled.memory_analysis()
    yield Candidate(
        case, "forward pass", lambda: jax.block_until_ready(compiled(theta, spread, lifted)), int(memory.temp_size_in_bytes)
    )
    for name, metrics in (("J alone", ("data_consistency",)), ("all that is reported", evaluate.REPORTED)):
        score = evaluate.make_score(model, setup.objective, setup.problem, names=metrics, chunk=batch)
        yield Candidate(
            case, f"scored: {name}", partial(score.run, variables, data.in_memory(samples), lams, jax.random.key(3)), 0
        )


def feed(*, size: int, batch: int, width: int, hyper_width: int) -> Iterator[Candidate]:
    """Batches from memory and from disk, alone and beside a training step; the step has its images on the device otherwise.

    The images are slices of the synthetic population, prepared as all are; what is read from disk may still be in the
    system's cache.
    """
    folder = data.mni_folder(size=size, subjects=(4, 1, 1), slices=64)
    stored, held = (data.without_labels(data.read(folder, disk=disk).train).samples for disk in (True, False))
    mesh = device_mesh(batch)
    put = partial(place, mesh, spec=SPREAD)
    ways: dict[str, tuple[data.Samples, int]] = {
        "memory": (held, 0),
        "disk, threads": (stored, 0),
        "disk, 2 processes": (stored, 2),
    }

    def supply(samples, workers):
        return stream(samples, jax.random.key(0), first=0, last=10**5, batch=batch, put=put, workers=workers)

    for name, way in ways.items():
        batches = supply(*way)

        def pull(batches=batches):
            for _ in range(BATCHES):
                jax.block_until_ready(next(batches))

        yield Candidate(f"{BATCHES * batch} images", name, pull, 0)
    for name in ("on the device", *ways):
        setup, state = _amortized(UNet(width=width), mesh, size=size, batch=batch, hyper_width=hyper_width, keep=batch)
        batches = supply(*ways[name]) if name in ways else itertools.repeat(place(mesh, held.arrays))
        step = make_step(setup, mesh, resident=name not in ways)
        yield Candidate("a step", name, _stepper(step, state, batches), 0)


SUITES = {"dhs": dhs, "landscape": landscape, "feed": feed}


def _amortized(
    network: UNet, mesh: Mesh, *, size: int, batch: int, hyper_width: int, keep: int
) -> tuple[Setup, TrainState]:
    mask = jax.numpy.asarray(masks.make("poisson_disc", (size, size), acceleration=8.0))
    problem = simulated(operators.csmri(mask))
    objective = Objective(make_terms(("data_consistency", "weight_l1", "total_variation"), problem), (0.1, 3e-4, 4e-3))
    example = jax.numpy.zeros((size, size, 2))
    model, variables = init(jax.random.key(0), network, example, num_terms=3, hyper_width=hyper_width)
    optimizer = optax.adam(1e-3)
    setup = Setup(
        model,
        objective,
        problem,
        hyperparams.uniform,
        optimizer,
        batch,
        jax.random.key(1),
        keep=keep,
    )
    return setup, place(mesh, initial_state(model, variables, optimizer))


def _stepper(step, state, supply):
    """Successive steps; each takes the buffers of the state before."""
    carried = [state]

    def run():
        carried[0], *told = step(carried[0], next(supply))
        jax.block_until_ready(told)

    return run


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [f"{'case':<16}{'implementation':<32}{'seconds':>9}{'ratio':>8}{'peak MiB':>10}"]
    for row in rows:
        lines.append(
            f"{row.case:<16}{row.implementation:<32}{row.seconds:9.3f}{row.ratio:8.2f}{row.peak_bytes / 2**20:10.0f}"
        )
    return "\n".join(lines)
