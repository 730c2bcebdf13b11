"""Loss scales alpha_k that align the terms of amortized optimization (Sec. IV-D), from a short pilot training.

The paper tuned them by hand "to align the magnitudes of the separate terms". Here a pilot trains the same model, from the
same initial weights, on data consistency only (each sample's J is weighted by its coefficient). Then

    alpha_k = 1 / (mean of L_k over the last quarter of the pilot's steps).

So near a reconstruction that agrees with the data, all terms have the same weight. (For supervised losses the paper uses
1/s_k, where s_k is the loss of a network trained for this loss alone. J and the priors have no such value: their minimum is
0.)

J is still falling when the pilot ends. A longer pilot gives J a larger scale, and the useful part of the landscape moves to
lower lambda_1. The pilot uses the first learning rates of the training's schedule, including its warm-up.
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
    """The magnitudes of the loss terms, by name: their means over the last quarter of a pilot training.

    Args:
        setup: of the training that follows. The pilot ignores its scales and uses no DHS.
        state: the initial state; it is not changed.
        samples: the second argument of the step, one item for each step.
        mesh, resident: as for `make_step`.
        steps: the length of the pilot, at least 1.

    Raises:
        Diverged: if a term is not finite.
        InputError: if a term is 0, so that no scale can align it.
    """
    scales = tuple(float(name == "data_consistency") for name in setup.objective.terms)
    setup = setup._replace(objective=setup.objective._replace(scales=scales), keep=setup.batch)
    step = make_step(setup, mesh, resident=resident)
    state = place_state(mesh, jax.tree.map(jnp.copy, state))  # a copy: a step reuses the buffers of its state
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
