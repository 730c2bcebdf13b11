"""The compiled programs of the explorer: reconstructions of a slice with their scores, and a step to the best lambda."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from hyperrecon_jax.evaluation import choose
from hyperrecon_jax.explorer.jobs import Job
from hyperrecon_jax.explorer.volume_store import MeasuredSlice
from hyperrecon_jax.losses.metric_table import DEFAULT_METRICS, FULL_REFERENCE, function_to_maximize
from hyperrecon_jax.models.model import Model, apply_main, reconstruct
from hyperrecon_jax.physics.problem import Problem

METRICS = DEFAULT_METRICS
LAMBDA_BATCH = 16  # lambdas in one call of a compiled program


class Programs(NamedTuple):
    """The compiled programs of a problem. Each gives reconstructions of a measured slice and their scores."""

    reconstruct: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]  # (theta, running statistics, slice)
    reconstruct_batch: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]  # (variables, lambdas (l, K-1), slice)


def compile_programs(model: Model, problem: Problem) -> Programs:
    @jax.jit
    def reconstruct_slice(theta, batch_stats, measured):
        x_hat = apply_main(model, theta, batch_stats, measured.net_input)
        return x_hat, _scores(problem, x_hat, measured)

    @jax.jit
    def reconstruct_batch(variables, lams, measured):
        def reconstruct_at(lam):
            x_hat = reconstruct(model, variables, lam, measured.net_input)
            return x_hat, _scores(problem, x_hat, measured)

        return jax.lax.map(reconstruct_at, lams)

    return Programs(reconstruct_slice, reconstruct_batch)


def reconstruct_all(
    program: Callable[..., Any], variables: Any, lams: np.ndarray, measured: MeasuredSlice, *, job: Job, words: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reconstructions and scores at all lambdas. Each call has `LAMBDA_BATCH` lambdas, so that it is compiled once.

    The job learns that `words` is being done, and how far it is; raises `Dropped` if it is dropped.
    """
    batches = []
    for start in range(0, len(lams), LAMBDA_BATCH):
        job.report(words, start / len(lams))
        index = np.minimum(np.arange(start, start + LAMBDA_BATCH), len(lams) - 1)
        batches.append(jax.device_get(program(variables, lams[index], measured)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(lams)], *batches)


def ascend(model, variables, ascent, metric, net_input, x):
    """One step of the search for the lambda with the best score; `metric` is an index into `METRICS`.

    One program serves all metrics, because compiling takes longer than the search.
    """

    def value(lam):
        x_hat = reconstruct(model, variables, lam, net_input)
        metrics = [lambda x_hat, name=name: function_to_maximize(name)(x_hat, x) for name in METRICS]
        return jax.lax.switch(metric, metrics, x_hat)

    return choose.ascend(value, ascent)


def _scores(problem: Problem, x_hat: jax.Array, measured: MeasuredSlice) -> dict[str, jax.Array]:
    """J and, where the reference is known, the metrics."""
    j = problem.data_consistency(x_hat, measured.y)
    return {"data_consistency": j} | ({} if measured.x is None else _metrics(x_hat, measured.x))


def _metrics(x_hat, x):
    return {name: FULL_REFERENCE[name](x_hat, x) for name in METRICS}


score_image = jax.jit(_metrics)
