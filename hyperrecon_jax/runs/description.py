"""The lines that describe an experiment before it is trained."""

from functools import partial

import jax
import jax.numpy as jnp

from hyperrecon_jax.models import native
from hyperrecon_jax.models.model import count_parameters, network_at
from hyperrecon_jax.models.unet import side_margins
from hyperrecon_jax.runs.batches import Placement
from hyperrecon_jax.runs.config import AUTO
from hyperrecon_jax.runs.datasets import sample_shape
from hyperrecon_jax.runs.experiment import Experiment, with_condition
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.training.gradient import is_separable
from hyperrecon_jax.training.step import uses_dhs


def describe(experiment: Experiment, placement: Placement) -> str:
    """The task, the data, the model, the training and the sampling of lambda, a line each."""
    config = experiment.config
    trained = parameter_counts(experiment)["trained"]
    return "\n".join(
        [
            f"task      {config.task.name}, loss {' + '.join(config.loss.terms)}, scales {_describe_scales(experiment)}",
            f"data      {_describe_data(experiment, placement)}",
            f"model     {_describe_networks(experiment)}; {trained:,} parameters are trained",
            f"training  {_describe_training(experiment, placement)}",
            f"sampling  {_describe_sampling(experiment, placement)}",
        ]
    )


def parameter_counts(experiment: Experiment) -> dict[str, int]:
    """How many parameters the hypernetwork has, the main network whose weights it generates, and how many are trained."""
    params = experiment.state.params
    variables = {"params": params, "batch_stats": experiment.state.batch_stats}
    variables = with_condition(experiment.config, variables)
    theta, _ = jax.eval_shape(partial(network_at, experiment.setup.model), variables, jnp.asarray(experiment.lams[0]))
    return {
        "hypernetwork": count_parameters(params["hyper"]),
        "main_network": count_parameters(theta),
        "trained": count_parameters(params),
    }


def _describe_scales(experiment: Experiment) -> str:
    loss = experiment.config.loss
    if loss.scales != AUTO:
        return str(loss.scales)
    return "determined first, by a U-Net for each loss alone" if loss.ground_truth else "from a pilot"


def _describe_data(experiment: Experiment, placement: Placement) -> str:
    train, val, test = (split.samples for split in experiment.dataset)
    size = describe_size(sample_shape(train))
    source = "disk" if train.arrays is None else "the host"
    where = "on each device" if placement.resident else f"streamed from {source}"
    return f"{train.size} training, {val.size} validation, {test.size} test images of {size}, {where}"


def describe_size(shape: tuple[int, int]) -> str:
    """The size `(h, w)` of images in words, with that inside of the U-Net where it is another."""
    padded = tuple(side + sum(margins) for side, margins in zip(shape, side_margins(shape), strict=True))
    size, padded_size = (f"{h} x {w}" for h, w in (shape, padded))
    return size if padded == tuple(shape) else f"{size} ({padded_size} inside of the U-Net)"


def _describe_networks(experiment: Experiment) -> str:
    counts, members = parameter_counts(experiment), experiment.setup.model.members
    if members:
        count = experiment.setup.members_at_once
        at_once = "all at once" if count == len(members) else f"{count} at a time"
        return f"{len(members)} networks of {counts['main_network']:,} parameters, one for each lambda, trained {at_once}"
    if not counts["hypernetwork"]:
        return f"network of {counts['main_network']:,} parameters"
    return f"hypernetwork of {counts['hypernetwork']:,} parameters, main network of {counts['main_network']:,}"


def _describe_training(experiment: Experiment, placement: Placement) -> str:
    train = experiment.config.train
    epochs = train.steps * train.batch / experiment.dataset.train.samples.size
    return f"{train.steps} steps of {train.batch} images ({epochs:.1f} epochs) on {_describe_devices(placement)}"


def _describe_devices(placement: Placement) -> str:
    mesh, num_devices, num_processes = placement.mesh, jax.device_count(), distributed.process_count()
    used = mesh.devices.size
    text = f"{used} {mesh.devices.flat[0].platform} device{'s' * (used > 1)}"
    text += f" of {num_processes} processes" if num_processes > 1 else ""
    text += " with native kernels" if native.active_classes() else ""
    if used == num_devices:
        return text
    return f"{text} of {num_devices}, since their number must divide config.train.batch (and config.dhs.keep)"


def _describe_sampling(experiment: Experiment, placement: Placement) -> str:
    """How lambdas are drawn, and how DHS selects samples and takes its gradient."""
    setup, config, num_devices = experiment.setup, experiment.config, placement.mesh.devices.size
    lambdas = f"lambda {config.lam.sampling}" if len(config.loss.terms) > 1 else "no lambda"
    if not uses_dhs(setup):
        return f"{lambdas}, every sample of a batch trains (UHS)"
    score = "J" if setup.rank == "absolute" else "J / ||y||^2"
    if is_separable(setup.model, experiment.state.batch_stats):
        gradient = "they alone are pulled back"
    else:
        gradient = "the others are masked in a full backward pass, since the norm or shared weights couple the samples"
    if setup.plan.rank_over == "device" and num_devices > 1:
        batch, keep = f"{setup.batch // num_devices} samples on each of {num_devices} devices", setup.keep // num_devices
    else:
        batch, keep = f"{setup.batch} samples", setup.keep
    return f"{lambdas}, of {batch} the {keep} of lowest {score} train (DHS); {gradient}"
