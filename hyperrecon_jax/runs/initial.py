"""Start a training from the weights of another run (`config.train.init_from`): fine-tuning.

The two runs have the same network. A network of a range of acquisitions can also become one of a single acquisition: the
condition is then fixed in the hypernetwork (`hypernet.fix_last_inputs`), and the network starts as the other is there.
"""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax.models import hypernet
from hyperrecon_jax.physics.acquisition import Acquisition, AcquisitionRange, describe_excess, encode
from hyperrecon_jax.runs import load
from hyperrecon_jax.runs.config import flatten
from hyperrecon_jax.runs.experiment import Experiment
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runs.slim_run import find_run
from hyperrecon_jax.runs.task import acquisition_range
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.step import initial_state

Tree = Any
# settings that change no parameter and may differ between the two runs
FREE_SETTINGS = ("model.precision", "model.norm_over")


def read_initial_run(config: ConfigDict, *, say: Say = print) -> Tree | None:
    """The variables of the run `config.train.init_from`; None, if that is empty.

    Says how far a single acquisition is outside of the range that the run was trained for.

    Raises:
        InputError: if there is no such run, or its network is another one; the message names what differs.
    """
    if not config.train.init_from:
        return None
    folder = find_run(paths.expand(config.train.init_from, argument="config.train.init_from"))
    other = load.read_config(folder)
    ranges = acquisition_range(other)
    condition = None if ranges is None else _single_condition(config, ranges)
    ours, theirs = (flatten({"model": settings.model.to_dict()}) for settings in (config, other))
    differences = [
        f"config.{key} ({theirs[key]!r} there, {value!r} here)"
        for key, value in ours.items()
        if key not in FREE_SETTINGS and theirs[key] != value
    ]
    if len(config.loss.terms) != len(other.loss.terms):
        differences.append(
            f"the number of config.loss.terms ({len(other.loss.terms)} there, {len(config.loss.terms)} here)"
        )
    if condition is None and acquisition_range(config) != ranges:
        differences.append(f"the acquisitions ({_describe_task(other)} there, {_describe_task(config)} here)")
    if differences:
        hint = " Name the same range in config.task, or one csmri acquisition with a mask of it." if ranges else ""
        raise InputError(f"config.train.init_from {folder} holds another network: {', '.join(differences)}.{hint}")
    model, variables = load.load(folder)
    params = variables["params"]
    if ranges is not None and condition is not None:
        for sentence in describe_excess(ranges, _acquisition(config)):
            say(sentence)
    if condition is not None and model.hyper is not None:
        params = {**params, "hyper": hypernet.fix_last_inputs(model.hyper, params["hyper"], condition)}
    return {"params": params, "batch_stats": variables["batch_stats"]}


def _acquisition(config: ConfigDict) -> Acquisition:
    return Acquisition(*(config.task[name] for name in Acquisition._fields))


def _describe_task(config: ConfigDict) -> str:
    """Such as "csmri, acceleration 2 to 8, sigma 0.02, mask random_lines"."""
    parts = [config.task.name]
    for name in Acquisition._fields:
        value = config.task[name]
        if isinstance(value, tuple):
            value = " or ".join(value) if name == "mask" else " to ".join(f"{number:g}" for number in value)
        parts.append(f"{name} {value}")
    return ", ".join(parts)


def _single_condition(config: ConfigDict, ranges: AcquisitionRange) -> np.ndarray | None:
    """The condition, in a range, of the single acquisition of the settings; None, if they have no such acquisition."""
    if config.task.name != "csmri" or acquisition_range(config) is not None or config.task.mask not in ranges.masks:
        return None
    return encode(ranges, _acquisition(config))


def start_from_run(experiment: Experiment, variables: Tree | None) -> Experiment:
    """The experiment with the weights of another run, as `read_initial_run` reads them; unchanged for None.

    Raises:
        InputError: if the parameters of the run have other shapes.
    """
    if variables is None:
        return experiment
    setup, shapes = experiment.setup, jax.tree.map(lambda leaf: leaf.shape, experiment.state.params)
    if jax.tree.map(lambda leaf: leaf.shape, variables["params"]) != shapes:
        name = experiment.config.train.init_from
        raise InputError(f"config.train.init_from {name} holds another network: its parameters have other shapes.")
    return experiment._replace(state=initial_state(setup.model, variables, setup.optimizer))
