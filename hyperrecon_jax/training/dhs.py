"""Data-driven hyperparameter sampling (DHS, Sec. IV-C): how samples are scored and selected."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import local_shard

SCORE_KINDS = ("absolute", "relative")


class Selection(NamedTuple):
    """The samples that DHS selects on one device: `rows[i]` is selected where `is_selected[i]` is 1.

    Shapes are static. If the best samples of the whole batch are selected, the number on one device is not known at compile
    time. So `rows` has the largest possible length, and unused entries are not selected.
    """

    rows: jax.Array  # (m,) indices of samples
    is_selected: jax.Array  # (m,) float, 1 or 0


def dhs_score(problem: Problem, x_hat: jax.Array, y: Measurement, *, rank: str = "absolute") -> jax.Array:
    """The score by which DHS ranks one sample: J = ||A x_hat - y||^2 (Sec. IV-C), or J / ||y||^2 if `rank` is "relative".

    J grows with the brightness of the image. So "absolute" prefers dark slices for every lambda; "relative" does not.
    """
    check_rank(rank)
    score = problem.data_consistency(x_hat, y)
    if rank == "absolute":
        return score
    measured_energy = problem.data_consistency(jnp.zeros_like(x_hat), y)
    return score / jnp.maximum(measured_energy, jnp.finfo(score.dtype).tiny)  # tiny: a measurement of zeros


def select_lowest(scores: jax.Array, keep: int) -> jax.Array:
    """The indices of the `keep` lowest of `(n,)` scores, in ascending order.

    Of equal scores, the one with the lower index comes first. NaN counts as the lowest score. So a NaN is never hidden: the
    sample is selected and the loss becomes NaN.
    """
    return jax.lax.top_k(jnp.where(jnp.isnan(scores), jnp.inf, -scores), keep)[1]


def select_samples(scores: jax.Array, *, keep: int, rank_over: str, device_axis: str | None) -> Selection:
    """The samples of this device that DHS selects.

    Args:
        scores: `(n,)`, of this device's samples.
        keep: the number of samples that are selected on all devices together.
        rank_over: rank the samples of each "device", or those of the whole "batch" (`gradient.SCOPES`).
        device_axis: the mapped axis of the devices; None: there is one device.

    Raises:
        InputError: if `rank_over` is "device" and the number of devices does not divide `keep`.
    """
    if device_axis is None or rank_over == "device":
        devices = 1 if device_axis is None else jax.lax.axis_size(device_axis)
        if keep % devices:
            raise InputError(
                f'`keep` must be a multiple of the {devices} devices where `rank_over` is "device", got {keep}.'
            )
        return Selection(select_lowest(scores, keep // devices), jnp.ones(keep // devices))
    batch_scores = jax.lax.all_gather(scores, device_axis, tiled=True)
    batch_selected = jnp.zeros(len(batch_scores)).at[select_lowest(batch_scores, keep)].set(1.0)
    # top_k puts the ones first: the selected rows of this shard, then fillers
    is_selected, rows = jax.lax.top_k(local_shard(batch_selected, device_axis), min(keep, len(scores)))
    return Selection(rows, is_selected)


def check_rank(rank: str) -> None:
    """Raise `InputError` for an unknown rank."""
    if rank not in SCORE_KINDS:
        raise InputError(f"`rank` must be one of {', '.join(SCORE_KINDS)}, got {rank!r}.")
