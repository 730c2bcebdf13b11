"""The networks and losses that the suites train and score, and a compiled training step of them."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from hyperrecon_jax.benchmarks import floor
from hyperrecon_jax.benchmarks.timing import Candidate
from hyperrecon_jax.losses.objective import Objective, make_terms
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import init
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.problem import simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.mesh import SHARDED, device_mesh, place
from hyperrecon_jax.training.gradient import is_separable
from hyperrecon_jax.training.step import Setup, TrainState, initial_state, make_step, place_state

Tree = Any
RATE = 1e-4  # of Adam: small, so that rounding, which can turn the sign of its first step, does not show in the loss


def mesh_of_one(batch: int) -> Mesh:
    """The devices for a comparison with code that cannot use several: all cores of a CPU, or one accelerator."""
    return device_mesh(batch if jax.default_backend() == "cpu" else 1)


class Scale(NamedTuple):
    """The sizes in the cases of a suite."""

    size: int  # pixels along a side
    batch: int
    width: int  # channels of the U-Net
    hyper_widths: tuple[int, ...]  # d of the hypernetwork; a suite that needs only one takes the last

    @property
    def label(self) -> str:
        return f"{self.size} px x {self.batch}"


class Task(NamedTuple):
    """A network and its training settings."""

    setup: Setup
    variables: Tree  # the initial variables
    example: jax.ShapeDtypeStruct  # an input of the network
    mask: np.ndarray  # where k-space is sampled


def supervised(scale: Scale, *, hyper_width: int, norm: str, precision: str = "tf32") -> Task:
    """HyperRecon for 4-fold CS-MRI, MAE against SSIM, without noise; every step has the same lambdas, from 0 to 1."""
    lams = np.linspace(0, 1, scale.batch, dtype=np.float32)[:, None]
    return _task(
        scale,
        4.0,
        ("mae", "ssim"),
        (1.0, 1.0),
        lambda key, shape: jnp.asarray(lams),
        hyper_width,
        {"norm": norm, "precision": precision},
        scale.batch,
    )


def amortized(scale: Scale, *, norm: str = "instance", keep: int | None = None) -> Task:
    """HyperRecon for 8-fold CS-MRI without ground truth, three losses; with DHS if `keep` is below the batch size."""
    terms, scales = ("data_consistency", "weight_l1", "total_variation"), (0.1, 3e-4, 4e-3)
    return _task(
        scale, 8.0, terms, scales, hyperparams.uniform, scale.hyper_widths[-1], {"norm": norm}, keep or scale.batch
    )


def _task(scale, acceleration, terms, scales, sample_lam, hyper_width, options, keep):
    """A task from its settings; `options` are those of the U-Net."""
    mask = masks.make("poisson_disc", (scale.size, scale.size), acceleration=acceleration)
    problem = simulated(operators.csmri(jnp.asarray(mask)))
    example = jnp.zeros((scale.size, scale.size, 2))
    network = UNet(width=scale.width, **options)
    model, variables = init(jax.random.key(0), network, example, num_terms=len(terms), hyper_width=hyper_width)
    objective = Objective(make_terms(terms, problem), scales)
    setup = Setup(model, objective, problem, sample_lam, optax.adam(RATE), scale.batch, jax.random.key(1), keep=keep)
    return Task(setup, variables, jax.ShapeDtypeStruct(example.shape, example.dtype), mask)


def images(scale: Scale) -> Sample:
    """A batch of noise."""
    return Sample(np.random.default_rng(0).random((scale.batch, scale.size, scale.size, 1), np.float32))


def state(task: Task, mesh: Mesh) -> TrainState:
    """The state before the first step, on the devices: a copy, because a step reuses the buffers of its state."""
    variables = jax.tree.map(jnp.copy, task.variables)
    return place_state(mesh, initial_state(task.setup.model, variables, task.setup.optimizer))


def step(case: str, name: str, task: Task, mesh: Mesh, samples: Sample) -> Candidate:
    """Successive training steps on a batch that is already on the devices; a call returns the loss."""
    initial, batch = state(task, mesh), place(mesh, samples, SHARDED)
    compiled = make_step(task.setup, mesh, resident=False).lower(initial, batch).compile()
    run = stepper(compiled, initial, itertools.repeat(batch))
    return Candidate(case, name, run, peak(compiled), step_work(task), task.setup.batch)


def stepper(step: Any, initial: TrainState, batches: Iterator[Sample]) -> Callable[[], float]:
    """A function that takes one more step at each call and returns the loss."""
    current = initial

    def run():
        nonlocal current
        current, logs, _ = step(current, next(batches))
        jax.block_until_ready(current)
        return float(logs["loss"])

    return run


def step_work(task: Task) -> floor.Work:
    """The least work of a training step. If the norm couples the samples, DHS saves nothing."""
    setup, variables, example, _ = task
    keep = setup.keep if is_separable(setup.model, variables["batch_stats"]) else None
    terms = len(setup.objective.terms)
    return floor.step(setup.model, variables, example, terms=terms, batch=setup.batch, keep=keep)


def peak(compiled: Any) -> int:
    """The bytes that a compiled program needs on each device: arguments, results, temporaries, shared buffers once."""
    memory = compiled.memory_analysis()
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return int(size - memory.alias_size_in_bytes)
