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
from hyperrecon_jax.models import hyperparams, native
from hyperrecon_jax.models.model import init
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.models.unrolled import Unrolled
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.problem import net_input_shapes, simulated, with_physics_input
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.mesh import SHARDED, device_mesh, place
from hyperrecon_jax.training.gradient import is_separable
from hyperrecon_jax.training.step import Setup, TrainState, initial_state, make_step, place_state

Tree = Any
LEARNING_RATE = 1e-4  # small: rounding can turn the sign of Adam's first step, and this must not show in the loss


def comparison_mesh(batch: int) -> Mesh:
    """Return the devices to use beside code that cannot use several: all cores of a CPU, or one accelerator."""
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
    example: Tree  # the shapes of an input of the network
    mask: np.ndarray  # where k-space is sampled


def supervised_task(scale: Scale, *, hyper_width: int, norm: str, precision: str = "tf32") -> Task:
    """HyperRecon for 4-fold CS-MRI, MAE against SSIM, without noise; every step has the same lambdas, from 0 to 1."""
    return _make_supervised_task(scale, UNet(width=scale.width, norm=norm, precision=precision), hyper_width=hyper_width)


def supervised_unrolled_task(scale: Scale, *, hyper_width: int, norm: str, precision: str = "tf32") -> Task:
    """`supervised_task` with an unrolled network of three iterations and half of the channels, as in the quickstart."""
    network = Unrolled(width=max(1, scale.width // 2), norm=norm, precision=precision)
    return _make_supervised_task(scale, network, hyper_width=hyper_width)


def _make_supervised_task(scale: Scale, network: UNet | Unrolled, *, hyper_width: int) -> Task:
    lams = np.linspace(0, 1, scale.batch, dtype=np.float32)[:, None]
    return _make_task(
        scale,
        network,
        acceleration=4.0,
        terms=("mae", "ssim"),
        loss_scales=(1.0, 1.0),
        sample_lam=lambda key, shape: jnp.asarray(lams),
        hyper_width=hyper_width,
        keep=scale.batch,
    )


def amortized_task(
    scale: Scale, *, hyper_width: int | None = None, norm: str = "instance", keep: int | None = None
) -> Task:
    """HyperRecon for 8-fold CS-MRI without reference images, three losses; with DHS if `keep` is below the batch size."""
    return _make_amortized_task(scale, UNet(width=scale.width, norm=norm), hyper_width=hyper_width, keep=keep)


def unrolled_task(scale: Scale) -> Task:
    """`amortized_task` with an unrolled network of three iterations and half of the channels, as in the quickstart."""
    return _make_amortized_task(scale, Unrolled(width=max(1, scale.width // 2)))


def _make_amortized_task(
    scale: Scale, network: UNet | Unrolled, *, hyper_width: int | None = None, keep: int | None = None
) -> Task:
    return _make_task(
        scale,
        network,
        acceleration=8.0,
        terms=("data_consistency", "weight_l1", "total_variation"),
        loss_scales=(0.1, 3e-4, 4e-3),
        sample_lam=hyperparams.uniform,
        hyper_width=hyper_width or scale.hyper_widths[-1],
        keep=keep or scale.batch,
    )


def _make_task(
    scale: Scale,
    network: UNet | Unrolled,
    *,
    acceleration: float,
    terms: tuple[str, ...],
    loss_scales: tuple[float, ...],
    sample_lam: Callable[..., jax.Array],
    hyper_width: int,
    keep: int,
) -> Task:
    mask = masks.make("poisson_disc", (scale.size, scale.size), acceleration=acceleration)
    problem = simulated(operators.csmri(jnp.asarray(mask)))
    if isinstance(network, Unrolled):
        problem = with_physics_input(problem)
    sample = Sample(jax.ShapeDtypeStruct((scale.size, scale.size, 1), jnp.float32))
    shapes = net_input_shapes(problem, sample)
    example = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    model, variables = init(jax.random.key(0), network, example, num_terms=len(terms), hyper_width=hyper_width)
    objective = Objective(make_terms(terms, problem), loss_scales)
    optimizer = optax.adam(LEARNING_RATE)
    setup = Setup(model, objective, problem, sample_lam, optimizer, scale.batch, jax.random.key(1), keep=keep)
    return Task(setup, variables, shapes, mask)


def noise_images(scale: Scale) -> Sample:
    """Return a batch of images of random pixels."""
    return Sample(np.random.default_rng(0).random((scale.batch, scale.size, scale.size, 1), np.float32))


def place_initial_state(task: Task, mesh: Mesh) -> TrainState:
    """Put the state before the first step on the devices: a copy, because a step reuses the buffers of its state."""
    variables = jax.tree.map(jnp.copy, task.variables)
    return place_state(mesh, initial_state(task.setup.model, variables, task.setup.optimizer))


def step_candidate(case: str, name: str, task: Task, mesh: Mesh, samples: Sample) -> Candidate:
    """Successive training steps on one batch, which is already on the devices; a call returns the loss."""
    initial, batch = place_initial_state(task, mesh), place(mesh, samples, SHARDED)
    compiled = make_step(task.setup, mesh, resident=False).lower(initial, batch).compile()
    run = make_stepper(compiled, initial, itertools.repeat(batch))
    return Candidate(case, name, run, peak_bytes(compiled), step_work(task), task.setup.batch)


def step_candidates(case: str, name: str, task: Task, mesh: Mesh, samples: Sample) -> Iterator[Candidate]:
    """A `step_candidate`; and where it has native kernels, a second one without them."""
    yield step_candidate(case, name, task, mesh, samples)
    if native.active_classes():
        with native.suspend():
            without = step_candidate(case, f"{name}, without native kernels", task, mesh, samples)
        yield without


def make_stepper(step: Any, initial: TrainState, batches: Iterator[Sample]) -> Callable[[], float]:
    """Return a function that takes the next training step at each call and returns the loss."""
    current = initial

    def run():
        nonlocal current
        current, logs, _ = step(current, next(batches))
        jax.block_until_ready(current)
        return float(logs["loss"])

    return run


def step_work(task: Task) -> floor.Work:
    """Return the least work of a training step. If the norm couples the samples, DHS saves nothing."""
    setup, variables, example, _ = task
    keep = setup.keep if is_separable(setup.model, variables["batch_stats"]) else None
    terms = len(setup.objective.terms)
    return floor.training_step_work(setup.model, variables, example, terms=terms, batch=setup.batch, keep=keep)


def peak_bytes(compiled: Any) -> int:
    """Return the bytes that a compiled program needs on each device.

    These are its arguments, results and temporaries. A buffer that an argument and a result share counts once.
    """
    memory = compiled.memory_analysis()
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return int(size - memory.alias_size_in_bytes)
