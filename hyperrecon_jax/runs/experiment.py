"""From settings to an experiment: what the ConfigDict asks for, as arrays and functions. `run.py` carries it out.

`build` finds what does not fit before any long work begins.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from hyperrecon_jax import data
from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.losses.metric_table import DICE, FULL_REFERENCE
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import Model, all_but_norms, init, only_norms
from hyperrecon_jax.models.unet import UNet
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.problem import Problem, measured, simulated
from hyperrecon_jax.physics.sample import LABELS, Coils, Sample
from hyperrecon_jax.runs import checkpoint
from hyperrecon_jax.runs.config import AUTO, complete
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.gradient import Plan, is_separable
from hyperrecon_jax.training.step import (
    Setup,
    TrainState,
    count_members_at_once,
    initial_state,
    microbatch_size,
    training_mesh,
)

FEW = 9  # networks of an ensemble that a table can hold


class Experiment(NamedTuple):
    """Everything that the settings describe; with scales of 1 where a pilot has yet to find them (`with_scales`)."""

    config: ConfigDict
    dataset: data.Dataset  # with labels, where the task is segmentation
    setup: Setup
    state: TrainState  # before the first step
    lams: np.ndarray  # (l, K-1), the lambdas that are reported
    score: Scorer  # of reconstructions
    key_validation: jax.Array
    key_test: jax.Array


def build(config: ConfigDict | Mapping[str, Any]) -> Experiment:
    """Load the data and make the model, the task and the objective.

    Args:
        config: settings; missing ones take their default.

    Raises:
        InputError: for settings that do not fit one another or the data.
    """
    config = complete(config)
    if config.data.source != "arrays":  # their size is known: what cannot be is told before they are made
        objective, problem = make_objective(config, (config.data.size, config.data.size))
    dataset = load_data(config)
    count, shape = dataset.train.samples.size, dataset.train.samples.example.image.shape[:2]
    if count < config.train.batch:
        raise InputError(f"config.train.batch must be at most the {count} training images, got {config.train.batch}.")
    if config.data.source == "arrays":
        objective, problem = make_objective(config, shape)

    key_model, key_train, key_validation, key_test = jax.random.split(jax.random.key(config.seed), 4)
    model, variables = make_model(key_model, config, shape)
    optimizer = make_optimizer(config)
    setup = Setup(
        model,
        objective,
        problem,
        make_sampler(config),
        optimizer,
        config.train.batch,
        key_train,
        keep=config.dhs.keep or config.train.batch,
        rank=config.dhs.rank,
        plan=Plan(config.train.microbatch or None, config.model.norm_over, config.dhs.rank_over),
    )
    mesh = training_mesh(setup)
    share = config.train.batch // mesh.devices.size
    if not is_separable(model, variables["batch_stats"]) and share % microbatch_size(setup, variables["batch_stats"], mesh):
        raise InputError(
            f"config.train.microbatch must divide the {share} samples of each device where samples share statistics or"
            f" weights, got {config.train.microbatch}."
        )
    if model.members:
        images = jax.ShapeDtypeStruct((share, *shape, 2), jnp.float32)
        setup = setup._replace(
            members_at_once=distributed.broadcast_from_primary(partial(count_members_at_once, model, images, variables))
        )
    score = _make_scorer(config, setup)
    state = initial_state(model, variables, optimizer)
    return Experiment(config, dataset, setup, state, reported_lams(config), score, key_validation, key_test)


def load(folder: Path, *, data: Mapping[str, Any] | None = None) -> tuple[Experiment, TrainState]:
    """A run as it was trained: its experiment, with the scales of its pilot if it had one, and its latest state.

    Args:
        folder: of the run.
        data: settings like `config.data`, for other images than those it was trained on; none given: its own.

    Raises:
        InputError: if the folder holds no run, or a damaged one.
    """
    kept = settings(folder)
    if data is not None:  # they need not be enough to train
        kept = {**kept, "data": data, "train": {**kept["train"], "batch": 1}, "dhs": {}}
    experiment = build(kept)
    if scales := checkpoint.kept_scales(folder, experiment.config.loss.terms):
        experiment = with_scales(experiment, scales)
    return experiment, latest(folder, experiment.config, experiment.state)


def regions(logits: jax.Array) -> jax.Array:
    """The most likely label of each pixel, `(*b, h, w, classes)` -> int32 `(*b, h, w)`."""
    return jnp.argmax(logits, -1).astype(jnp.int32)


def settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in a folder; raises `InputError` if it holds none."""
    found = checkpoint.read_settings(folder)
    if not isinstance(found, dict) or not (folder / checkpoint.CHECKPOINTS).is_dir():
        raise InputError(f"{folder} holds no run that was trained.")
    return found


def latest(folder: Path, config: ConfigDict, like: TrainState) -> TrainState:
    """The latest state of the run in a folder, with the shapes of `like`.

    Raises:
        InputError: if there is none, or a damaged one.
    """
    with checkpoint.manager(folder, keep=config.train.keep, read_only=True) as checkpoints:
        if checkpoints.latest_step() is None:
            raise InputError(f"{folder} holds no checkpoint yet.")
        return checkpoint.restore(checkpoints, like)


def with_scales(experiment: Experiment, scales: tuple[float, ...]) -> Experiment:
    """The experiment with other loss scales, such as those of a pilot."""
    setup = experiment.setup._replace(objective=experiment.setup.objective._replace(scales=scales))
    return experiment._replace(setup=setup, score=_make_scorer(experiment.config, setup))


def _make_scorer(config, setup):
    if config.task.name == "segmentation":
        names, segment = (*DICE, "loss"), regions
        return Scorer(setup.model, setup.objective, setup.problem, names=names, segment=segment)
    return Scorer(setup.model, setup.objective, setup.problem)


def load_data(config: ConfigDict) -> data.Dataset:
    """The samples of `config.data`. Labels that training does not see stay with the test samples alone."""
    c = config.data
    if c.source == "arrays":
        return data.arrays(train=c.train, val=c.val, test=c.test)
    folder = distributed.run_primary_first(partial(prepared_folder, config))
    made = data.read(folder, disk=None if c.placement == "auto" else c.placement == "disk")
    if config.task.name == "segmentation":
        return made
    return made._replace(train=data.drop_labels(made.train), val=data.drop_labels(made.val))


def prepared_folder(config: ConfigDict) -> Path:
    """Where the prepared data of `config.data` are, of any source but "arrays"; they are prepared if they are not there."""
    c = config.data
    cache = c.cache or None
    try:
        if c.source == "mni":
            return data.mni_folder(size=c.size, subjects=c.subjects, slices=c.slices, seed=c.seed, cache=cache)
        return data.files_folder(
            c.source,
            root=c.root,
            settings=data.Settings(c.size, c.slices, c.coils, c.acquisition, c.whiten),
            subjects=c.subjects,
            seed=c.seed,
            cache=cache,
            workers=max(c.workers, 1),
        )
    except InputError as error:  # arguments are settings here
        raise InputError(re.sub(rf"`({'|'.join(c)})`", r"config.data.\1", str(error))) from error


def make_objective(config: ConfigDict, shape: tuple[int, int]) -> tuple[Objective, Problem]:
    """What is asked of images of a shape `(h, w)`: the objective and the problem, tried out without computing."""
    problem = make_problem(config, shape)
    scales = (1.0,) * len(config.loss.terms) if config.loss.scales == AUTO else config.loss.scales
    objective = Objective(make_terms(config.loss.terms, problem), scales)
    segments = config.task.name == "segmentation"

    def scores(key, x_hat, sample):
        outcome = Outcome(x_hat, sample, problem.observe(key, sample), theta={})
        return term_values(objective, outcome), [] if segments else [
            f(x_hat, sample.image) for f in FULL_REFERENCE.values()
        ]

    sample = Sample(jax.ShapeDtypeStruct((*shape, 1), jnp.float32))
    if segments:
        sample = sample._replace(label=jax.ShapeDtypeStruct(shape, jnp.uint8))
    if config.data.coils:
        kspace = jax.ShapeDtypeStruct((config.data.coils, *shape), jnp.complex64)
        sample = sample._replace(coils=Coils(kspace, kspace))
    x_hat = jax.ShapeDtypeStruct((*shape, len(LABELS) if segments else 1), jnp.float32)
    jax.eval_shape(scores, jax.random.key(0), x_hat, sample)
    return objective, problem


def make_model(key: jax.Array, config: ConfigDict, shape: tuple[int, int]) -> tuple[Model, dict[str, Any]]:
    """The networks of `config.model` for images of a shape `(h, w)`, and their initial variables."""
    c = config.model
    channels = len(LABELS) if config.task.name == "segmentation" else 1
    options = {name: c[name] for name in ("norm", "residual", "precision")}
    network = UNet(c.width, channels, remat=config.train.remat, **options)
    members = hyperparams.product(config.lam.axes) if config.lam.sampling == "ensemble" else None
    film = c.conditioning == "film"
    return init(
        key,
        network,
        jnp.zeros((*shape, 2)),
        num_terms=len(config.loss.terms),
        hyper_width=c.hyper_width or None,
        members=members,
        generated=only_norms if film else all_but_norms,
        kind="dense" if film else c.conditioning,
        rank=c.rank,
        encoding=c.encoding,
    )


def make_problem(config: ConfigDict, shape: tuple[int, int], *, coils: int | None = None) -> Problem:
    """The problem of `config.task` for samples of a shape `(h, w)`; of measured k-space of so many coils, 0: of images.

    None given: as `config.data` has them.
    """
    task = config.task
    if task.name == "csmri":
        if task.noise != "gaussian":
            raise InputError(f'config.task.noise must be "gaussian" for k-space, got {task.noise!r}.')
        mask = make_mask(config, shape)
        if config.data.coils if coils is None else coils:
            return measured(mask, sigma=task.sigma)
        return simulated(operators.csmri(mask), lambda key, y: operators.complex_noise(key, y, mask, sigma=task.sigma))
    if task.name == "segmentation":  # of clean images (Sec. V-E.1)
        return simulated(operators.denoising())
    if task.name == "denoising":
        operator = operators.denoising()
    else:
        if shape[0] % task.factor or shape[1] % task.factor:
            raise InputError(
                f"config.task.factor must divide the image's sides, {shape[0]} x {shape[1]}, got {task.factor}."
            )
        operator = operators.super_resolution(factor=task.factor)
    noise = operators.awgn if task.noise == "gaussian" else operators.rician
    return simulated(operator, partial(noise, sigma=task.sigma))


def make_mask(config: ConfigDict, shape: tuple[int, int]) -> jax.Array:
    """Where `config.task` samples k-space, `(h, w)`, zero frequency in the corner."""
    task = config.task
    return jnp.asarray(masks.make(task.mask, shape, acceleration=task.acceleration, seed=task.mask_seed))


def make_sampler(config: ConfigDict) -> Callable[[jax.Array, tuple[int, int]], jax.Array]:
    """How training draws lambdas."""
    if config.lam.sampling == "constant":
        return partial(hyperparams.constant, lam=config.lam.value)
    if config.lam.sampling == "endpoints":
        return partial(hyperparams.endpoints, probability=config.lam.endpoint_probability)
    return hyperparams.uniform


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam (Sec. V-B) with the schedule of `config.train`."""
    c = config.train
    rate: Any = c.learning_rate
    if c.schedule == "cosine":
        rate = optax.cosine_decay_schedule(c.learning_rate, max(c.steps - c.warmup, 1))
    if c.warmup:
        after = rate if callable(rate) else optax.constant_schedule(rate)
        rate = optax.join_schedules(
            [optax.linear_schedule(c.learning_rate / c.warmup, c.learning_rate, c.warmup), after], [c.warmup]
        )
    adam = optax.adam(rate)
    return optax.chain(optax.clip_by_global_norm(c.clip), adam) if c.clip else adam


def reported_lams(config: ConfigDict) -> np.ndarray:
    """The lambdas at which a run is reported, `(l, K-1)`.

    Of an ensemble of up to `FEW` its members; of a larger one, those nearest to the lambdas that others report.
    For two terms the five of Sec. V-C. For more, whose first is J where there is one, from where the others rule to where J
    stands alone: lambda_1 = 0.5 and 0.9 with all other lambdas 0 and 1, and lambda_1 = 1, where the others mean nothing.
    """
    num_lams = len(config.loss.terms) - 1
    if config.lam.sampling == "constant":
        return np.asarray([config.lam.value], np.float32).reshape(1, num_lams)
    if num_lams < 2:
        usual = np.asarray(hyperparams.grid(5, num_lams))
    else:
        ends = [(0.5, 0.0), (0.5, 1.0), (0.9, 0.0), (0.9, 1.0), (1.0, 0.0)]
        usual = np.asarray([[first] + [other] * (num_lams - 1) for first, other in ends], np.float32)
    if config.lam.sampling != "ensemble":
        return usual
    members = hyperparams.product(config.lam.axes)
    if len(members) <= FEW:
        return members
    distance = np.square(members[None] - usual[:, None]).sum(-1)
    return members[np.unique(distance.argmin(1))]
