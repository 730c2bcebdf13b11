"""A trained run as functions, without its data: for code of your own.

    model, variables = load("runs/quickstart")
    problem, objective = load_task("runs/quickstart")
    net_input = problem.to_net_input(problem.observe(key, Sample(image)))
    x_hat = reconstruct(model, variables, lam, net_input)

All raise `InputError` for a folder that holds no run.
"""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from hyperrecon_jax.data import arrays
from hyperrecon_jax.losses.objective import Objective
from hyperrecon_jax.models.model import Model, apply_main
from hyperrecon_jax.physics.problem import Problem
from hyperrecon_jax.runs import checkpoint
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import (
    latest,
    make_model,
    make_objective,
    make_optimizer,
    make_problem,
    regions,
    settings,
)
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.step import initial_state

Tree = Any
SMALL = (8, 8)  # of no parameter does the shape depend on that of the image


def load(run: str | PathLike[str]) -> tuple[Model, Tree]:
    """The model of a run and its variables after the latest step.

    Args:
        run: its folder.

    Returns:
        The model and `{"params": {"hyper": ..., "main": ...}, "batch_stats": ...}`, for `reconstruct` and all else that
        takes them.

    Raises:
        InputError: if the folder holds no run, or a damaged one.
    """
    folder = Path(run)
    config = complete(settings(folder))
    model, variables = make_model(jax.random.key(0), config, SMALL)
    state = latest(folder, config, initial_state(model, variables, make_optimizer(config)))
    kept = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})  # out of a mesh, for any program
    return model, jax.tree.map(jnp.asarray, kept)


def load_task(run: str | PathLike[str], *, shape: tuple[int, int] | None = None) -> tuple[Problem, Objective]:
    """What a run was trained for: how a sample is measured, and the loss with its scales.

    Args:
        run: its folder.
        shape: `(h, w)` of the images; none given: of those it was trained on.

    Raises:
        InputError: if the folder holds no run, or the task cannot have such images; and as `image_shape`, without a shape.
    """
    folder = Path(run)
    config = complete(settings(folder))
    objective, problem = make_objective(config, shape or image_shape(folder))
    if scales := checkpoint.kept_scales(folder, config.loss.terms):
        objective = objective._replace(scales=scales)
    return problem, objective


def image_shape(run: str | PathLike[str]) -> tuple[int, int]:
    """The `(h, w)` of the images that a run was trained on.

    Raises:
        InputError: if the folder holds no run, or these were arrays of yours that are no longer where they were.
    """
    c = complete(settings(Path(run))).data
    if c.source != "arrays":
        return c.size, c.size
    return arrays(train=c.train, val=c.val, test=c.test).train.samples.example.image.shape[:2]


def steps_done(run: str | PathLike[str]) -> int:
    """After how many steps the variables are that `load` gives."""
    with checkpoint.manager(Path(run), keep=1, read_only=True) as checkpoints:
        return checkpoints.latest_step() or 0


def segmenter(folder: Path) -> Callable[[jax.Array], jax.Array]:
    """The network of a run of the task "segmentation": an image `(h, w, 1)` -> its label map, int32 `(h, w)`.

    For the `segment` of `scoring.Scorer`. Its data are not loaded.

    Raises:
        InputError: if the folder holds no such run, or a damaged one; and there, for an image of another size than those it
            was trained on.
    """
    config = complete(settings(folder))
    if config.task.name != "segmentation":
        raise InputError(f'{folder} must hold a run of config.task.name "segmentation", got {config.task.name!r}.')
    shape = (config.data.size, config.data.size)
    model, variables = load(folder)
    theta, batch_stats = jax.device_get((variables["params"]["main"], variables["batch_stats"]))  # of no device
    problem = make_problem(config, shape)

    def segment(x_hat):
        if x_hat.shape != (*shape, 1):
            raise InputError(f"`x_hat` must have the shape {(*shape, 1)} that {folder} was trained on, got {x_hat.shape}.")
        return regions(apply_main(model, theta, batch_stats, problem.to_net_input(x_hat)))

    return segment
