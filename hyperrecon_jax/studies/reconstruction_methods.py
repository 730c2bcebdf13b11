"""The measurements of the study of real people, and the methods that reconstruct from them.

A measurement depends on the task, the image and its index alone, so every method gets the same.
"""

import functools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax.evaluation.scoring import digest
from hyperrecon_jax.models.model import reconstruct
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.physics.problem import Problem, simulated
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import with_condition
from hyperrecon_jax.runs.load import load, read_config
from hyperrecon_jax.runs.slim_run import find_run
from hyperrecon_jax.runs.task import make_problem
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies import classical

SEED = 0  # of the masks and of the noise
LAMS = (0.0, 0.25, 0.5, 0.75, 1.0)
START = 1 / 4  # of the search for a weight, in units of the noise's standard deviation
ZERO_FILLED, TOTAL_VARIATION, WAVELET = "zero-filled", "total variation", "wavelet l1"


class Task(NamedTuple):
    """How k-space is sampled, and the noise."""

    title: str
    mask: str  # one of `masks.MASKS`
    acceleration: float
    sigma: float  # standard deviation of the complex noise, in units of image intensity

    @property
    def acquisition(self) -> Acquisition:
        """What a network that knows several acquisitions is told."""
        return Acquisition(self.acceleration, self.sigma, self.mask)

    def make_mask(self, shape: tuple[int, int]) -> np.ndarray:
        """The mask `(h, w)`, zero frequency in the corner."""
        return masks.make(self.mask, shape, acceleration=self.acceleration, seed=SEED)


TASKS = (
    Task("4-fold Poisson-disc, σ = 0.02", "poisson_disc", 4.0, 0.02),
    Task("8-fold Poisson-disc, σ = 0.01", "poisson_disc", 8.0, 0.01),
    Task("4-fold equispaced lines, σ = 0.02", "equispaced_lines", 4.0, 0.02),
)


Reconstruct = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float | None]]
"""The k-space y and the reference image, both `(h, w, 1)` -> x_hat `(h, w, 1)` float32, and the weight that was chosen, or
None. Only a method whose weight is chosen by the reference may look at it."""


class Method(NamedTuple):
    """A way to reconstruct an image from its k-space."""

    name: str
    identity: str  # differs where the results differ
    make: Callable[[Task, tuple[int, int]], Reconstruct]  # for images of a shape (h, w)


def observe(task: Task, images: np.ndarray, index: int) -> np.ndarray:
    """The noisy k-space `(h, w, 1)` of the image at `index`. The same for every method."""
    problem, key = _measurement(task, images.shape[1:3]), jax.random.fold_in(jax.random.key(SEED), index)
    return np.asarray(problem.observe(key, Sample(jnp.asarray(images[index]))))


@functools.cache
def _measurement(task: Task, shape: tuple[int, int]) -> Problem:
    mask = jnp.asarray(task.make_mask(shape))
    return simulated(operators.csmri(mask), lambda key, y: operators.complex_noise(key, y, mask, sigma=task.sigma))


def classical_methods() -> list[Method]:
    """Zero-filled, total variation and wavelets; raises `InputError` if sigpy is not installed."""
    classical.require_sigpy()
    solvers: dict[str, tuple[Callable[..., Any], int]] = {
        TOTAL_VARIATION: (classical.total_variation, classical.TV_ITERATIONS),
        WAVELET: (classical.wavelet_l1, classical.WAVELET_ITERATIONS),
    }
    best = [
        Method(name, f"{name} {iterations} {classical.THRESHOLD} {START}", partial(_make_best, solve))
        for name, (solve, iterations) in solvers.items()
    ]
    return [Method(ZERO_FILLED, ZERO_FILLED, _make_zero_filled), *best]


def _make_zero_filled(task: Task, shape: tuple[int, int]) -> Reconstruct:
    return lambda y, image: (np.abs(np.fft.ifft2(y, axes=(0, 1), norm="ortho")).astype(np.float32), None)


def _make_best(solve: Callable[..., Any], task: Task, shape: tuple[int, int]) -> Reconstruct:
    """Solve with the weight that has the best PSNR."""
    mask = task.make_mask(shape)

    def reconstruct_best(y, image):
        x_hats = {}

        def psnr(weight):
            x_hats[weight] = np.asarray(solve(y[..., 0], mask, weight=weight))[..., None]
            return float(-10 * np.log10(np.mean(np.square(x_hats[weight] - image))))

        weight, _ = classical.find_best_weight(psnr, start=START * task.sigma)
        return x_hats[weight], weight

    return reconstruct_best


def read_run_config(run: Path, *, most_terms: int = 2) -> ConfigDict:
    """The settings of a run.

    Raises:
        InputError: if it has another task than CS-MRI, or less than two or more than `most_terms` loss terms.
    """
    config = read_config(run)
    if config.task.name != "csmri" or not 2 <= len(config.loss.terms) <= most_terms:
        count = "two" if most_terms == 2 else f"2 to {most_terms}"
        raise InputError(
            f'{run} must hold a run of config.task.name "csmri" with {count} loss terms, got {config.task.name!r} and the'
            f" terms {', '.join(config.loss.terms)}."
        )
    return config


def training_folders(run: Path) -> list[ConfigDict]:
    """The settings of a run and of the runs that it was started from, of those that were trained on a folder of images.

    Raises:
        InputError: if one of them does not exist any more: nobody can tell what it saw.
    """
    config = read_config(run)
    earlier = training_folders(Path(config.train.init_from)) if config.train.init_from else []
    return [*earlier, config] if config.data.source == "folder" else earlier


def run_methods(run: Path) -> list[Method]:
    """A trained run at each of `LAMS`. Its network gets the measurements of this study, with their mask and noise.

    Raises:
        InputError: if the folder holds no run, or as `read_run_config` does.
    """
    config = read_run_config(run)
    run = find_run(run)
    model, variables = load(run)
    identity = digest(json.dumps(config.to_dict(), sort_keys=True), variables)

    @functools.cache
    def compile_for(task, shape):
        problem = make_task_problem(config, task, shape)
        return jax.jit(lambda variables, lam, y: reconstruct(model, variables, lam, problem.to_net_input(y)))

    def make_network(lam, task, shape):
        program = compile_for(task, shape)
        conditioned = with_condition(config, variables, task.acquisition)
        return lambda y, image: (np.asarray(program(conditioned, jnp.array([lam]), jnp.asarray(y))), None)

    return [Method(run_label(run, lam), f"{identity} {lam}", partial(make_network, lam)) for lam in LAMS]


def make_task_problem(config: ConfigDict, task: Task, shape: tuple[int, int]) -> Problem:
    """What the network of a run reconstructs from: the measurements of this study, with their mask and noise."""
    settings = config.to_dict()
    measured_by = {"mask": task.mask, "acceleration": task.acceleration, "mask_seed": SEED, "sigma": task.sigma}
    return make_problem(complete({**settings, "task": {**settings["task"], **measured_by}}), shape, coils=0)


def run_label(run: Path, lam: float) -> str:
    """The name of a run's row at one lambda."""
    return f"{run.name}, λ = {lam:g}"
