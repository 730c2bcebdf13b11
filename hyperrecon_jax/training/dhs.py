"""Data-driven hyperparameter sampling (DHS, Sec. IV-C): how samples are scored and selected."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import local_shard

RANKS = ("absolute", "relative")


class Selection(NamedTuple):
    """The samples that DHS selects on one device: those of `rows` where `mask` is 1.

    The shape must be known when the program is compiled, but how many samples a device selects is not known then if all
    devices rank together. So there may be rows with mask 0, which are not selected.
    """

    rows: jax.Array  # (m,) indices of samples
    mask: jax.Array  # (m,) 1 or 0


def dhs_score(problem: Problem, x_hat: jax.Array, y: Measurement, *, rank: str = "absolute") -> jax.Array:
    """The score by which DHS ranks one sample: J = ||A x_hat - y||^2 (Sec. IV-C), or J / ||y||^2 if `rank` is "relative".

    J grows with the brightness of the image, so "absolute" prefers dark slices, whatever their lambda is. "relative" does
    not.
    """
    check_rank(rank)
    score = problem.data_consistency(x_hat, y)
    if rank == "absolute":
        return score
    return score / jnp.maximum(problem.data_consistency(jnp.zeros_like(x_hat), y), jnp.finfo(score.dtype).tiny)


def select_lowest(scores: jax.Array, keep: int) -> jax.Array:
    """The indices of the `keep` lowest of `(n,)` scores, in rising order; of equal scores the first.

    NaN counts as the lowest score: a sample that fails is selected, and the failure shows in the loss.
    """
    return jax.lax.top_k(jnp.where(jnp.isnan(scores), jnp.inf, -scores), keep)[1]


def select_samples(scores: jax.Array, *, keep: int, scope: str, device_axis: str | None) -> Selection:
    """The samples of this device that DHS selects.

    Args:
        scores: `(n,)`, of this device's samples.
        keep: how many samples are selected on all devices together.
        scope: rank the samples of each "device", or those of the whole "batch" (`gradient.SCOPES`).
        device_axis: the mapped axis of the devices; None: there is one device.
    """
    if device_axis is None or scope == "device":
        devices = 1 if device_axis is None else jax.lax.axis_size(device_axis)
        return Selection(select_lowest(scores, keep // devices), jnp.ones(keep // devices))
    batch_scores = jax.lax.all_gather(scores, device_axis, tiled=True)
    batch_mask = jnp.zeros(len(batch_scores)).at[select_lowest(batch_scores, keep)].set(1.0)
    mask, rows = jax.lax.top_k(local_shard(batch_mask, device_axis), min(keep, len(scores)))
    return Selection(rows, mask)


def check_rank(rank: str) -> None:
    """Raise `InputError` for an unknown rank."""
    if rank not in RANKS:
        raise InputError(f"`rank` must be one of {', '.join(RANKS)}, got {rank!r}.")
