"""From settings to an experiment: the data, the model and everything that training needs. `commands/train.py` trains it.

`build` finds what does not fit together before any long work starts.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from hyperrecon_jax.data import Dataset
from hyperrecon_jax.losses.objective import Objective
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import Model, all_but_norms, at_condition, init, only_norms
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.models.unrolled import Unrolled
from hyperrecon_jax.physics.acquisition import Acquisition, encode
from hyperrecon_jax.physics.net_input import NetInput, PhysicsInput
from hyperrecon_jax.physics.problem import Problem, net_input_shapes
from hyperrecon_jax.physics.sample import LABELS
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.datasets import load_data, sample_shape
from hyperrecon_jax.runs.task import acquisition_range, make_task, make_training_problem
from hyperrecon_jax.runtime import distributed, memory
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import gather
from hyperrecon_jax.training.gradient import BatchPlan, is_separable
from hyperrecon_jax.training.step import (
    Setup,
    TrainState,
    count_members_at_once,
    initial_state,
    microbatch_size,
    training_mesh,
)

Tree = Any
SMALL = (8, 8)  # the shape of an image that is large enough: no parameter's shape depends on it
MOST_REPORTED = 9  # members of an ensemble that one table can hold


class Keys(NamedTuple):
    """The random keys of a run, all from `config.seed`."""

    model: jax.Array  # initial weights
    training: jax.Array  # order of the images, lambdas, noise
    validation: jax.Array  # noise
    test: jax.Array  # noise


class Experiment(NamedTuple):
    """Everything that training needs. Automatic loss scales are 1 until they are determined (`with_scales`)."""

    config: ConfigDict
    dataset: Dataset
    setup: Setup
    problem: Problem  # of validation and test: that of the training, or, of a range of acquisitions, of its middle
    state: TrainState  # before the first step
    lams: np.ndarray  # (l, K-1), the lambdas that are reported
    keys: Keys


def build(config: ConfigDict | Mapping[str, Any]) -> Experiment:
    """Load the data and make the model, the task, the objective and the optimizer.

    Args:
        config: settings; missing ones take their default.

    Raises:
        InputError: for settings that do not fit one another or the data.
    """
    config = complete(config)
    task = None
    if config.data.source != "arrays":  # the size is known: find what does not fit before the data are prepared
        task = make_task(config, (config.data.size, config.data.size))
    model, shapes, init_variables = make_model(config)
    _check_memory(config, shapes)
    dataset = load_data(config)
    samples, batch = dataset.train.samples, config.train.batch
    if samples.size < batch:
        raise InputError(f"config.train.batch must be at most the {samples.size} training images, got {batch}.")
    shape = sample_shape(samples)
    problem, objective = task or make_task(config, shape)
    keys = make_keys(config)
    variables = init_variables(keys.model)
    setup = make_setup(config, model, make_training_problem(config, shape) or problem, objective, keys.training)
    mesh = training_mesh(setup)
    _check_microbatch(setup, variables, mesh)
    if model.members:
        count = batch // mesh.devices.size
        net_inputs = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype),
            net_input_shapes(problem, samples.example),
        )
        count_members = partial(count_members_at_once, model, net_inputs, variables)
        setup = setup._replace(members_at_once=distributed.broadcast_from_primary(count_members))
    state = initial_state(model, variables, setup.optimizer)
    return Experiment(config, dataset, setup, problem, state, reported_lams(config), keys)


def with_scales(experiment: Experiment, scales: tuple[float, ...]) -> Experiment:
    """The experiment with other loss scales, such as those of a pilot."""
    objective = experiment.setup.objective._replace(scales=scales)
    return experiment._replace(setup=experiment.setup._replace(objective=objective))


def model_variables(config: ConfigDict, state: TrainState) -> Tree:
    """The model's variables out of a training state, as arrays of one local device. All processes must call it together."""
    variables = with_condition(config, {"params": state.params, "batch_stats": state.batch_stats})
    return jax.device_put(gather(variables), jax.local_devices()[0])


def with_condition(config: ConfigDict, variables: Tree, acquisition: Acquisition | None = None) -> Tree:
    """The variables of the model of `config`, for an acquisition; None: for the middle of its range, if it has one."""
    ranges = acquisition_range(config)
    if ranges is None or not config.model.hyper_width:
        return variables
    return at_condition(variables, encode(ranges, acquisition or ranges.middle))


def make_keys(config: ConfigDict) -> Keys:
    """The random keys of a run."""
    return Keys(*jax.random.split(jax.random.key(config.seed), len(Keys._fields)))


def make_model(config: ConfigDict) -> tuple[Model, Tree, Callable[[jax.Array], Tree]]:
    """The networks of `config.model`. Nothing is compiled yet, and the networks are traced once.

    Returns:
        The model; the shapes of its variables (a tree of `jax.ShapeDtypeStruct`); and a function of a key that makes
        the initial variables, which is compiled when it is called.
    """
    settings = config.model
    channels = len(LABELS) if config.task.name == "segmentation" else 1
    options = {name: settings[name] for name in ("norm", "precision")} | {"remat": config.train.remat}
    # a segmentation network returns no image that could have the unit of its input
    options["normalize"] = settings.normalize and config.task.name != "segmentation"
    image = jnp.zeros((*SMALL, 2))
    network: UNet | Unrolled = UNet(settings.width, channels, residual=settings.residual, **options)
    net_input: NetInput = image
    if settings.network == "unrolled":
        network = Unrolled(settings.width, settings.iterations, **options)
        net_input = PhysicsInput(image, jnp.zeros((*SMALL, 1)))  # no parameter depends on the operator
    members = hyperparams.product(config.lam.axes) if config.lam.sampling == "ensemble" else None
    ranges = acquisition_range(config)
    is_film = settings.conditioning == "film"
    models = []

    @jax.jit
    def init_variables(key):
        model, variables = init(
            key,
            network,
            net_input,
            num_terms=len(config.loss.terms),
            hyper_width=settings.hyper_width or None,
            num_conditions=ranges.size if ranges and settings.hyper_width else 0,
            members=members,
            generated=only_norms if is_film else all_but_norms,
            kind="dense" if is_film else settings.conditioning,
            rank=settings.rank,
            encoding=settings.encoding,
        )
        models.append(model)
        return variables

    shapes = init_variables.eval_shape(jax.random.key(0))
    return models[0], shapes, init_variables


def make_setup(config: ConfigDict, model: Model, problem: Problem, objective: Objective, key: jax.Array) -> Setup:
    """The parts of training that stay the same in all steps."""
    return Setup(
        model,
        objective,
        problem,
        make_sampler(config),
        make_optimizer(config),
        config.train.batch,
        key,
        keep=config.dhs.keep or config.train.batch,
        rank=config.dhs.rank,
        plan=BatchPlan(config.train.microbatch or None, config.model.norm_over, config.dhs.rank_over),
    )


def make_sampler(config: ConfigDict) -> Callable[[jax.Array, tuple[int, int]], jax.Array]:
    """The function that draws the lambdas of a batch: a key and the shape `(n, K-1)` -> lambdas."""
    if config.lam.sampling == "constant":
        return partial(hyperparams.constant, lam=config.lam.value)
    if config.lam.sampling == "endpoints":
        return partial(hyperparams.endpoints, probability=config.lam.endpoint_probability)
    return hyperparams.uniform


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam (Sec. V-B) with the schedule of `config.train`."""
    settings = config.train
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        rate = optax.cosine_decay_schedule(settings.learning_rate, max(settings.steps - settings.warmup, 1))
    if settings.warmup:
        after = rate if callable(rate) else optax.constant_schedule(rate)
        rise = optax.linear_schedule(settings.learning_rate / settings.warmup, settings.learning_rate, settings.warmup)
        rate = optax.join_schedules([rise, after], [settings.warmup])
    adam = optax.adam(rate)
    return optax.chain(optax.clip_by_global_norm(settings.clip), adam) if settings.clip else adam


def reported_lams(config: ConfigDict) -> np.ndarray:
    """The lambdas at which a run is reported, `(l, K-1)`.

    An ensemble of up to `MOST_REPORTED` members is reported at all of its lambdas. A larger one is reported at the members
    nearest to the lambdas that other runs report.

    With two terms these are the five of Sec. V-C. With more terms: lambda_1 = 0.5 and 0.9, each with all other lambdas 0
    and 1; then lambda_1 = 1, where only the first term counts (J, if it is a term).
    """
    num_lams = len(config.loss.terms) - 1
    if config.lam.sampling == "constant":
        return np.asarray([config.lam.value], np.float32).reshape(1, num_lams)
    if num_lams < 2:
        usual = np.asarray(hyperparams.grid(5, num_lams))
    else:
        ends = [(0.5, 0.0), (0.5, 1.0), (0.9, 0.0), (0.9, 1.0), (1.0, 0.0)]
        usual = np.asarray([[first] + [rest] * (num_lams - 1) for first, rest in ends], np.float32)
    if config.lam.sampling != "ensemble":
        return usual
    members = hyperparams.product(config.lam.axes)
    if len(members) <= MOST_REPORTED:
        return members
    distances = np.square(members[None] - usual[:, None]).sum(-1)
    return members[np.unique(distances.argmin(1))]


def _check_memory(config: ConfigDict, shapes: Tree) -> None:
    """Raise `InputError` if the machine cannot hold the state of the training of variables with these shapes."""
    params = shapes["params"]
    needed = 4 * memory.num_bytes(params)  # the parameters, their gradient, and the two moments of Adam
    if needed > memory.total_bytes():
        settings, count = config.model, sum(leaf.size for leaf in jax.tree.leaves(params))
        raise InputError(
            f"The network of config.model.width {settings.width}, config.model.hyper_width {settings.hyper_width} and"
            f" config.model.rank {settings.rank} has {count:.3g} parameters, whose training needs"
            f" {memory.format_bytes(needed)} of memory, but this machine has {memory.format_bytes(memory.total_bytes())}."
        )


def _check_microbatch(setup: Setup, variables: Tree, mesh: Mesh) -> None:
    """Raise `InputError` if samples are coupled and the microbatch does not divide those of a device."""
    batch_stats = variables["batch_stats"]
    share = setup.batch // mesh.devices.size
    if not is_separable(setup.model, batch_stats) and share % microbatch_size(setup, batch_stats, mesh):
        raise InputError(
            f"config.train.microbatch must divide the {share} samples of each device where samples share statistics or"
            f" weights, got {setup.plan.microbatch}."
        )
