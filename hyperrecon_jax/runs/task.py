"""The task that the settings describe: how an image is measured (`Problem`), what is minimised (`Objective`), scores."""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.losses.metric_table import DICE, FULL_REFERENCE, select_metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values
from hyperrecon_jax.models.model import Model
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.acquisition import Acquisition, AcquisitionRange, simulated_range
from hyperrecon_jax.physics.problem import Problem, measured, simulated, with_physics_input
from hyperrecon_jax.physics.sample import LABELS, Coils, Sample
from hyperrecon_jax.runs.config import AUTO
from hyperrecon_jax.runtime.errors import InputError


def make_task(config: ConfigDict, shape: tuple[int, int]) -> tuple[Problem, Objective]:
    """The problem of `config.task` and the objective of `config.loss`, for images of a shape `(h, w)`.

    Automatic loss scales are 1 until they are determined.

    Raises:
        InputError: if images of that shape do not fit the task, the loss terms or the metrics.
    """
    problem = make_problem(config, shape)
    # its J holds for every acquisition, where there is a range of them
    training_problem = make_training_problem(config, shape) or problem
    scales = (1.0,) * len(config.loss.terms) if config.loss.scales == AUTO else config.loss.scales
    objective = Objective(make_terms(config.loss.terms, training_problem), scales)
    _check_shapes(config, shape, problem, objective)
    return problem, objective


def make_problem(config: ConfigDict, shape: tuple[int, int], *, coils: int | None = None) -> Problem:
    """The problem of `config.task` for images of a shape `(h, w)`; of a range of acquisitions, that of its middle.

    Args:
        config: settings.
        shape: `(h, w)`.
        coils: number of coils of the samples' k-space, 0 for samples that are images; None: as `config.data` says.

    Raises:
        InputError: if the task cannot have such images.
    """
    config = fix_acquisition(config)
    return match_network(config, _make_problem(config, shape, config.data.coils if coils is None else coils))


def make_training_problem(config: ConfigDict, shape: tuple[int, int]) -> Problem | None:
    """The problem with the range of acquisitions of `config.task`; None, if it has one acquisition."""
    ranges = acquisition_range(config)
    if ranges is None:
        return None
    return match_network(config, simulated_range(ranges, shape, seed=config.task.mask_seed))


def acquisition_range(config: ConfigDict) -> AcquisitionRange | None:
    """The range of acquisitions of `config.task`; None, if it has one acquisition."""
    has_range = any(isinstance(config.task[name], tuple) for name in Acquisition._fields)
    return trained_range(config) if has_range else None


def trained_range(config: ConfigDict) -> AcquisitionRange:
    """The acquisitions that a network learns with `config.task`: a range, or a single one as a range of width 0."""
    acceleration, sigma, kinds = (config.task[name] for name in Acquisition._fields)
    accelerations, sigmas = (value if isinstance(value, tuple) else (value, value) for value in (acceleration, sigma))
    return AcquisitionRange(accelerations, sigmas, kinds if isinstance(kinds, tuple) else (kinds,))


def fix_acquisition(config: ConfigDict, acquisition: Acquisition | None = None) -> ConfigDict:
    """The settings with one acquisition in place of a range: the given one, or the middle of the range."""
    if acquisition is None and acquisition_range(config) is None:
        return config
    fixed = config.copy_and_resolve_references()
    fixed.task.acceleration, fixed.task.sigma, fixed.task.mask = acquisition or trained_range(config).middle
    return fixed


def match_network(config: ConfigDict, problem: Problem) -> Problem:
    """The problem with the network inputs that the network of `config.model` receives."""
    return with_physics_input(problem) if config.model.network == "unrolled" else problem


def _make_problem(config: ConfigDict, shape: tuple[int, int], coils: int) -> Problem:
    """As `make_problem`, with the network inputs of a U-Net."""
    task = config.task
    if task.name == "csmri":
        return _make_csmri(config, shape, coils)
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
    """The mask with which `config.task` samples k-space, `(h, w)`, zero frequency in the corner."""
    task = config.task
    return jnp.asarray(masks.make(task.mask, shape, acceleration=task.acceleration, seed=task.mask_seed))


def label_map(logits: jax.Array) -> jax.Array:
    """The most likely label of each pixel, `(*b, h, w, classes)` -> int32 `(*b, h, w)`."""
    return jnp.argmax(logits, -1).astype(jnp.int32)


def make_task_scorer(config: ConfigDict, model: Model, problem: Problem, objective: Objective) -> Scorer:
    """The scorer for what a run reports: Dice scores for segmentation, otherwise the metrics of reconstructions."""
    if config.task.name == "segmentation":
        return Scorer(model, objective, problem, names=(*DICE, "loss"), segment=label_map)
    return Scorer(model, objective, problem, names=(*select_metrics(config.loss.terms), "rpsnr", "loss"))


def _make_csmri(config: ConfigDict, shape: tuple[int, int], coils: int) -> Problem:
    task = config.task
    if task.noise != "gaussian":
        raise InputError(f'config.task.noise must be "gaussian" for k-space, got {task.noise!r}.')
    mask = make_mask(config, shape)
    if coils:
        return measured(mask, sigma=task.sigma)
    return simulated(operators.csmri(mask), lambda key, y: operators.complex_noise(key, y, mask, sigma=task.sigma))


def _check_shapes(config: ConfigDict, shape: tuple[int, int], problem: Problem, objective: Objective) -> None:
    """Trace the measurement, the loss terms and the metrics without computing them: images that do not fit raise there."""
    is_segmentation = config.task.name == "segmentation"

    def score(key, x_hat, sample):
        outcome = Outcome(x_hat, sample, problem.observe(key, sample), theta={})
        metrics = [] if is_segmentation else [metric(x_hat, sample.image) for metric in FULL_REFERENCE.values()]
        return term_values(objective, outcome), metrics

    sample = Sample(jax.ShapeDtypeStruct((*shape, 1), jnp.float32))
    if is_segmentation:
        sample = sample._replace(label=jax.ShapeDtypeStruct(shape, jnp.uint8))
    if config.data.coils:
        kspace = jax.ShapeDtypeStruct((config.data.coils, *shape), jnp.complex64)
        sample = sample._replace(coils=Coils(kspace, kspace))
    x_hat = jax.ShapeDtypeStruct((*shape, len(LABELS) if is_segmentation else 1), jnp.float32)
    jax.eval_shape(score, jax.random.key(0), x_hat, sample)
