"""Parts that the plans over several seeds share."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies.plan import EvaluationOptions, Piece

MAX_SEEDS = 1000


def seed_groups(
    config: ConfigDict, changes: Mapping[str, Mapping[str, Any]], *, seeds: int, evaluation: EvaluationOptions
) -> tuple[tuple[Piece, ...], ...]:
    """A group of pieces for each seed: one piece, NAME-SEED, for each name in `changes`.

    Seed by seed, so that an interrupted study compares like with like.
    """
    return tuple(
        tuple(
            Piece(f"{name}-{seed}", (f"seed-{seed}",), config, {**changed, "seed": seed}, (evaluation,))
            for name, changed in changes.items()
        )
        for seed in range(seeds)
    )


def check_seeds(seeds: int) -> None:
    """Raise `InputError` unless there are 1 to `MAX_SEEDS` seeds; a plan for many more would fill the memory."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise InputError(f"The study needs at least 1 seed and at most {MAX_SEEDS}, got {seeds}.")


def seed_labels(seeds: int) -> tuple[str, ...]:
    """The labels of the pieces of `seed_groups`."""
    return tuple(f"seed-{seed}" for seed in range(seeds))


def sample_sd(values: np.ndarray) -> float:
    """The standard deviation of a sample; 0 if it has one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
