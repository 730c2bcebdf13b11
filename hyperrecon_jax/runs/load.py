"""A trained run, read from its folder.

For code of your own, without the run's data:

    model, variables = load("runs/quickstart")
    problem, objective = load_task("runs/quickstart")
    net_input = problem.to_net_input(problem.observe(key, Sample(image)))
    x_hat = reconstruct(model, variables, lam, net_input)

`load_run` gives both, with some splits of the data, to compute something over a data set. All functions raise `InputError`
for a folder that holds no run.
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax.data import Dataset
from hyperrecon_jax.losses.objective import Objective
from hyperrecon_jax.models.model import Model, apply_main
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.physics.problem import Problem
from hyperrecon_jax.runs import checkpoint, datasets, run_folder, slim_run
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.experiment import Keys, make_keys, make_model, make_optimizer, reported_lams, with_condition
from hyperrecon_jax.runs.slim_run import PRETRAINED, find_run
from hyperrecon_jax.runs.task import fix_acquisition, label_map, make_problem, make_task
from hyperrecon_jax.runtime import files, machine
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.step import TrainState, initial_state

Tree = Any


class TrainedRun(NamedTuple):
    """A run as it was trained, and data to use it on."""

    config: ConfigDict  # of a range of acquisitions, `task` has the one at which the run is used
    model: Model
    variables: Tree  # after `steps` steps
    steps: int
    problem: Problem
    objective: Objective  # with the loss scales of the run
    dataset: Dataset
    lams: np.ndarray  # (l, K-1), the lambdas that are reported
    keys: Keys


def load(run: str | PathLike[str], *, acquisition: Acquisition | None = None) -> tuple[Model, Tree]:
    """The model of a run and its variables after the latest step.

    Args:
        run: its folder.
        acquisition: for which a network of a range of acquisitions is; None: for the middle of the range.

    Returns:
        The model and `{"params": {"hyper": ..., "main": ...}, "batch_stats": ...}`, for `reconstruct` and all other
        functions that take variables.

    Raises:
        InputError: if the folder holds no run, or a damaged one.
    """
    folder = find_run(run)
    model, variables, _ = _load_model(folder)
    return model, with_condition(read_config(folder), variables, acquisition)


def pretrained() -> tuple[Model, Tree]:
    """The model that comes with the package, and its variables (docs/pretrained.md).

    `load_task("pretrained")` is its task.
    """
    return load(PRETRAINED)


def load_task(run: str | PathLike[str], *, shape: tuple[int, int] | None = None) -> tuple[Problem, Objective]:
    """The task of a run: how a sample is measured, and the loss with its scales.

    Args:
        run: its folder.
        shape: `(h, w)` of the images; None: of those it was trained on.

    Raises:
        InputError: if the folder holds no run, or the task cannot have such images; and as `image_shape`, without a shape.
    """
    folder = find_run(run)
    config = read_config(folder)
    return _make_task(folder, config, shape or datasets.image_shape(config))


def load_run(
    run: str | PathLike[str],
    *,
    data: Mapping[str, Any] | None = None,
    splits: Sequence[str] = ("test",),
    acquisition: Acquisition | None = None,
) -> TrainedRun:
    """A run's model, variables and task, with the splits of its data that are asked for.

    Args:
        run: its folder.
        data: settings like `config.data`, for other images than those of the run; None: its own.
        splits: the splits to load, of "train", "val" and "test"; the others may stay on disk.
        acquisition: how images are measured; None: as in training, or at the middle of the range of acquisitions.

    Raises:
        InputError: if the folder holds no run or a damaged one, or if the data cannot be read or do not fit the task.
    """
    folder = find_run(run)
    full_config = read_config(folder, data=data)
    config = fix_acquisition(full_config, acquisition)
    model, variables, steps = _load_model(folder)
    task = None
    if config.data.source != "arrays":  # the size is known: find what does not fit before other data are prepared
        task = _make_task(folder, config, datasets.image_shape(config))
    dataset = datasets.load_data(config, splits=splits)
    problem, objective = task or _make_task(folder, config, datasets.sample_shape(dataset.test.samples))
    return TrainedRun(
        config=config,
        model=model,
        variables=with_condition(full_config, variables, acquisition),
        steps=steps,
        problem=problem,
        objective=objective,
        dataset=dataset,
        lams=reported_lams(config),
        keys=make_keys(config),
    )


def _load_model(folder: Path) -> tuple[Model, Tree, int]:
    """The model of a run, its variables as plain arrays of no device, and the number of steps that it was trained.

    From then on JAX keeps compiled programs on disk, as it does in the commands, unless the user chose otherwise.
    """
    machine.enable_compilation_cache(files.cache_folder() / machine.COMPILATION_CACHE)
    if not slim_run.is_slim(folder):
        model, state = load_state(folder)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return model, jax.tree.map(jnp.asarray, jax.device_get(variables)), int(state.step)
    model, shapes, _ = make_model(read_config(folder))
    variables, steps = slim_run.read(folder, shapes)
    return model, jax.tree.map(jnp.asarray, variables), steps


def load_state(run: str | PathLike[str]) -> tuple[Model, TrainState]:
    """The model of a run and the whole state of its training after the latest step, with the optimizer's part.

    Raises:
        InputError: if the folder holds no run, or a damaged one.
    """
    folder = Path(run)
    config = read_config(folder)
    model, shapes, _ = make_model(config)
    example_state = jax.eval_shape(lambda variables: initial_state(model, variables, make_optimizer(config)), shapes)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    example_state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), example_state)
    with checkpoint.manager(folder, keep=config.train.keep, read_only=True) as checkpoints:
        if checkpoints.latest_step() is None:
            raise InputError(f"{folder} holds no checkpoint yet.")
        return model, checkpoint.restore(checkpoints, example_state)


def read_config(run: str | PathLike[str], *, data: Mapping[str, Any] | None = None) -> ConfigDict:
    """The settings of a run, complete.

    Args:
        run: its folder.
        data: settings that replace its `config.data`; None: its own.

    Raises:
        InputError: if the folder holds no run, or the settings do not fit one another.
    """
    folder = find_run(run)
    settings = run_folder.read_settings(folder)
    has_variables = (folder / run_folder.CHECKPOINTS).is_dir() or slim_run.is_slim(folder)
    if not isinstance(settings, dict) or not has_variables:
        raise InputError(f"{folder} holds no run that was trained.")
    if data is not None:  # there need not be enough images to train on
        settings = {**settings, "data": data, "train": {**settings["train"], "batch": 1}, "dhs": {}}
    elif slim_run.is_slim(folder):
        settings = {**settings, "data": slim_run.find_images(folder, settings["data"])}
    return complete(settings)


def image_shape(run: str | PathLike[str]) -> tuple[int, int]:
    """The `(h, w)` of the images that a run was trained on.

    Raises:
        InputError: if the folder holds no run, or if these were the user's arrays and can no longer be read.
    """
    return datasets.image_shape(read_config(run))


def steps_done(run: str | PathLike[str]) -> int:
    """The training step of the variables that `load` reads."""
    folder = find_run(run)
    if slim_run.is_slim(folder):
        return slim_run.read_steps(folder)
    with checkpoint.manager(folder, keep=1, read_only=True) as checkpoints:
        return checkpoints.latest_step() or 0


def load_segmenter(run: str | PathLike[str]) -> Callable[[jax.Array], jax.Array]:
    """The network of a run of the task "segmentation": an image `(h, w, 1)` -> its label map, int32 `(h, w)`.

    It is the `segment` of `scoring.Scorer`. The run's data are not loaded.

    Raises:
        InputError: if the folder holds no such run, or a damaged one. The function raises it for an image of another size
            than those it was trained on.
    """
    config = read_config(run)
    if config.task.name != "segmentation":
        raise InputError(f'{run} must hold a run of config.task.name "segmentation", got {config.task.name!r}.')
    shape = datasets.image_shape(config)
    model, variables = load(run)
    theta, batch_stats = jax.device_get((variables["params"]["main"], variables["batch_stats"]))  # on no device
    problem = make_problem(config, shape)

    def segment(x_hat):
        if x_hat.shape != (*shape, 1):
            raise InputError(f"`x_hat` must have the shape {(*shape, 1)} that {run} was trained on, got {x_hat.shape}.")
        return label_map(apply_main(model, theta, batch_stats, problem.to_net_input(x_hat)))

    return segment


def _make_task(folder: Path, config: ConfigDict, shape: tuple[int, int]) -> tuple[Problem, Objective]:
    """The task of the run in a folder. Automatic loss scales are those that the run determined."""
    problem, objective = make_task(config, shape)
    scales = run_folder.read_scales(folder, config.loss.terms)
    return problem, objective._replace(scales=scales) if scales else objective
