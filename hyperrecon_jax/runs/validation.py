"""The scores of validation images during training."""

from typing import Any

import numpy as np

from hyperrecon_jax import data
from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.runs import report
from hyperrecon_jax.runs.experiment import Experiment, model_variables
from hyperrecon_jax.runs.load import TrainedRun
from hyperrecon_jax.training.step import TrainState

Tree = Any


def validate(experiment: Experiment, scorer: Scorer, state: TrainState) -> dict[str, float]:
    """The means over the validation images and the reported lambdas: "loss" and the metrics."""
    scores = score_validation(experiment, scorer, model_variables(experiment.config, state), experiment.lams)
    return report.means(scores)


def score_validation(
    run: Experiment | TrainedRun, scorer: Scorer, variables: Tree, lams: np.ndarray
) -> dict[str, np.ndarray]:
    """The scores of up to `config.train.validation_images` images at the lambdas `(l, K-1)`: `{name: (l, n)}`."""
    samples = run.dataset.val.samples
    index = data.evenly_spaced(samples.size, run.config.train.validation_images)
    scores, _ = scorer.run(variables, data.subset(samples, index), lams, run.keys.validation)
    return scores
