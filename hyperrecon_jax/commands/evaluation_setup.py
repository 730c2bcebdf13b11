"""What is evaluated: a run, its test images and a grid of lambdas."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax.data import Samples, evenly_spaced, require_labels, subset
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.runs.load import TrainedRun, load_run, read_config, steps_done
from hyperrecon_jax.runtime.errors import InputError

MAX_LAMS = 1_000_000  # a grid of more would fill the memory
POINTS = {1: 100, 2: 21}  # number of lambdas -> points of the grid along each


class Evaluation(NamedTuple):
    """A run, and the images and lambdas that it is evaluated at."""

    run: TrainedRun
    samples: Samples  # n images
    indices: np.ndarray  # (n,), indices of the images in the split
    subjects: np.ndarray  # (n,)
    axes: list[np.ndarray]  # the values of each of the K-1 lambdas

    @property
    def num_lams(self) -> int:
        """How many lambdas the grid has."""
        return int(np.prod([len(axis) for axis in self.axes]))


def load_evaluation(
    run: Path,
    *,
    data: Mapping[str, Any] | None = None,
    points: int | None = None,
    count: int | None = None,
    needs_labels: bool = False,
    acquisition: Acquisition | None = None,
) -> Evaluation:
    """Load a run, and choose its test images and the grid of lambdas.

    Args:
        run, data, points, count, acquisition: as in `evaluate.evaluate`.
        needs_labels: whether the images must have labels.

    Raises:
        InputError: if there is no such run, it segments, or the images, `points` or `count` do not fit.
    """
    config = read_config(run, data=data)
    if config.task.name == "segmentation":
        raise InputError(
            f"{run} must hold a run that reconstructs, got one that segments; its Dice is in its summary.json."
        )
    if points is not None and points < 2:
        raise InputError(f"A grid of lambdas needs at least 2 points, got {points}.")
    num_axes = len(config.loss.terms) - 1
    if points is not None and points**num_axes > MAX_LAMS:
        raise InputError(
            f"A grid of lambdas (--lams) has at most {MAX_LAMS:,} points in all, got {points} along {num_axes}."
        )
    trained = load_run(run, data=data, acquisition=acquisition)  # after the checks: its data may have to be prepared
    split = trained.dataset.test
    if needs_labels:
        require_labels(split)
    size = split.samples.size
    if count is not None and not 1 <= count <= size:
        raise InputError(f"The number of images must be in [1, {size}], got {count}.")
    index = evenly_spaced(size, count or size)
    axes = _lambda_axes(trained.config, points)
    return Evaluation(trained, subset(split.samples, index), index, split.subjects[index], axes)


def identify_evaluation(
    evaluation: Evaluation, scorer: Scorer, acquisition: Acquisition | None, segmenter: Path | None
) -> str:
    """A digest of all that the scores depend on."""
    trained = evaluation.run
    return scoring.digest(
        scorer.names,
        evaluation.samples.identity,
        evaluation.axes,
        jax.random.key_data(trained.keys.test),
        trained.variables,
        str(acquisition),
        [str(segmenter), steps_done(segmenter)] if segmenter else [],
    )


def _lambda_axes(config: ConfigDict, points: int | None) -> list[np.ndarray]:
    """The grid of lambdas: K-1 axes."""
    if config.lam.sampling == "ensemble":
        return [np.asarray(axis, np.float32) for axis in config.lam.axes]
    if config.lam.sampling == "constant":
        return [np.asarray([value], np.float32) for value in config.lam.value]
    num_axes = len(config.loss.terms) - 1
    return [np.linspace(0, 1, points or POINTS.get(num_axes, 5), dtype=np.float32)] * num_axes
