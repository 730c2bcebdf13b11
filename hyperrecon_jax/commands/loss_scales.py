"""The loss scales of a run whose settings leave them to be determined (Sec. IV-D): by a pilot, or by calibration.

With a ground truth each scale is 1 / s_k, where s_k is the validation loss of a plain U-Net that is trained with loss k
alone. Without a ground truth the magnitudes of the terms come from a short pilot (`training/pilot.py`).
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.batches import Placement, training_batches
from hyperrecon_jax.runs.config import CHANGEABLE_ON_RESUME, default_config, flatten
from hyperrecon_jax.runs.experiment import Experiment
from hyperrecon_jax.runs.load import load_run
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runs.task import make_task_scorer
from hyperrecon_jax.runs.validation import score_validation
from hyperrecon_jax.runtime import distributed, files
from hyperrecon_jax.training.pilot import pilot

Magnitudes = dict[str, float]  # magnitudes of the loss terms, by name; a scale is 1 / magnitude
Train = Callable[..., bool]  # `commands.train.train`


def run_pilot(experiment: Experiment, placement: Placement, *, say: Say) -> Magnitudes:
    """The magnitudes of the loss terms, from a pilot."""
    steps = experiment.config.loss.pilot_steps
    say(f"Determining the loss scales: a pilot of {steps} steps on data consistency alone ...")
    samples = training_batches(experiment, placement, first=0, last=steps)
    magnitudes = pilot(
        experiment.setup, experiment.state, samples, placement.mesh, steps=steps, resident=placement.resident
    )
    say(_format_scales(magnitudes))
    return magnitudes


def calibrate(experiment: Experiment, workdir: Path, *, train: Train, say: Say) -> Magnitudes | None:
    """The validation loss of each term alone, s_k, or None if it was interrupted.

    The networks of single losses are one ensemble, which is trained as a run in the folder `calibration`. The result is
    kept beside the cached data, for all runs that differ only in the hypernetwork, lambda and the scales.

    Args:
        experiment: the run.
        workdir: its folder.
        train: trains the ensemble: `commands.train.train`.
        say: takes lines for the user.
    """
    config = experiment.config
    cached = _calibration_cache(experiment)
    magnitudes = distributed.broadcast_from_primary(partial(run_folder.read_magnitudes, cached, config.loss.terms))
    if magnitudes is None:
        lams = _single_loss_lams(config)
        say(f"Determining the loss scales: {len(lams)} losses alone, each with a U-Net of its own ...")
        if not train(_calibration_config(config), workdir / run_folder.CALIBRATION, say=say):
            return None
        magnitudes = _single_losses(workdir / run_folder.CALIBRATION, config.loss.terms, lams)
        distributed.run_on_primary(_write_cache, cached, magnitudes)
        say(f"These scales are kept in {cached} for other runs with the same settings.")
    else:
        say(f"The loss scales were determined before, with the same settings: {cached}.")
    say(_format_scales(magnitudes))
    return magnitudes


def _calibration_config(config: ConfigDict) -> ConfigDict:
    """The settings of the ensemble: one plain U-Net for each corner of the range of lambda, with scales of 1."""
    defaults = default_config()
    ensemble = config.copy_and_resolve_references()
    num_terms = len(config.loss.terms)
    ensemble.lam, ensemble.dhs, ensemble.loss.scales = defaults.lam, defaults.dhs, (1.0,) * num_terms
    ensemble.lam.sampling, ensemble.lam.axes = "ensemble", ((0.0, 1.0),) * (num_terms - 1)
    for key in ("conditioning", "rank", "encoding"):
        ensemble.model[key] = defaults.model[key]
    ensemble.model.hyper_width = 0
    ensemble.train.init_from = ""
    return ensemble


def _single_loss_lams(config: ConfigDict) -> np.ndarray:
    """The lambdas at which one loss stands alone, `(K, K-1)`, in the order of the losses."""
    lams = hyperparams.product(_calibration_config(config).lam.axes)
    weights = np.asarray(hyperparams.coefficients(lams))
    corners = np.eye(len(config.loss.terms))
    return np.stack([lams[np.argmax((weights == corner).all(-1))] for corner in corners])


def _single_losses(folder: Path, terms: Sequence[str], lams: np.ndarray) -> Magnitudes:
    """The mean validation loss of each network of the calibration run in a folder."""
    run = load_run(folder, splits=("val",))
    scorer = make_task_scorer(run.config, run.model, run.problem, run.objective)
    losses = score_validation(run, scorer, run.variables, lams)["loss"]
    return dict(zip(terms, losses.mean(1).tolist(), strict=True))


def _calibration_cache(experiment: Experiment) -> Path:
    """The folder for the result of a calibration, named after all settings and data that it depends on."""
    config, dataset = experiment.config, experiment.dataset
    flat = flatten(_calibration_config(config))
    settings = json.dumps({key: value for key, value in flat.items() if key not in CHANGEABLE_ON_RESUME})
    images = [dataset.train.samples.identity, dataset.val.samples.identity]
    return files.cache_folder(config.data.cache or None) / "scales" / scoring.digest(settings, images)


def _write_cache(folder: Path, magnitudes: Magnitudes) -> None:
    with run_folder.explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_magnitudes(folder, magnitudes)


def _format_scales(magnitudes: Magnitudes) -> str:
    return f"scales    {', '.join(f'{name} {1 / value:.3g}' for name, value in magnitudes.items())}"
