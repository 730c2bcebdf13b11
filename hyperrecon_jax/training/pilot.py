"""Loss scales alpha_k that align the terms of amortized optimization (Sec. IV-D), found by a short pilot.

The paper tuned them by hand "to align the magnitudes of the separate terms". Here a pilot trains the same model, from the
same initial weights, on data consistency alone (each sample's J weighted by its coefficient), and

    alpha_k = 1 / (mean of L_k over the last quarter of the pilot's steps),

so that near a reconstruction that agrees with the data all terms weigh the same. It is the counterpart of the paper's 1/s_k
for supervised losses, whose best case is not 0 as it is for J and the priors. J is still falling when the pilot ends: a
longer one gives J a larger scale, and moves the useful part of the landscape to lower lambda_1. The pilot's learning rates
are the first of the training's schedule, its warm-up included.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import Diverged, InputError
from hyperrecon_jax.training.step import Setup, TrainState, make_step, place_state


def pilot(
    setup: Setup, state: TrainState, samples: Iterable[Sample], mesh: Mesh, *, steps: int, resident: bool
) -> dict[str, float]:
    """The magnitudes of the terms, by name: their means over the last quarter of a pilot.

    Args:
        setup: of the training to come; its scales are not used, nor is its DHS.
        state: the initial state; it is left as it is.
        samples, mesh, resident: as for `make_step`.
        steps: of the pilot, at least 1.

    Raises:
        Diverged: if a term is not finite.
        InputError: if a term is 0 and has no magnitude that could be aligned.
    """
    alone = tuple(float(name == "data_consistency") for name in setup.objective.terms)
    step = make_step(
        setup._replace(objective=setup.objective._replace(scales=alone), keep=setup.batch), mesh, resident=resident
    )
    state = place_state(mesh, jax.tree.map(jnp.copy, state))  # the step takes its buffers
    rows = []
    for _, batch in zip(range(steps), samples, strict=False):
        state, logs, _ = jax.block_until_ready(step(state, batch))
        rows.append({name: logs[name] for name in setup.objective.terms})
    last = jax.device_get(rows[-max(1, steps // 4) :])
    magnitudes = {name: float(np.mean([row[name] for row in last])) for name in setup.objective.terms}
    for name, magnitude in magnitudes.items():
        if not np.isfinite(magnitude):
            raise Diverged(f"The pilot found {name} = {magnitude}: try a lower config.train.learning_rate.")
        if magnitude == 0:
            raise InputError(f"config.loss.scales must be numbers here: in the pilot {name} was 0.")
    return magnitudes
