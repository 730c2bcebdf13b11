"""Algorithm 1: the loss of a batch and its gradient, for uniform sampling of lambda (UHS) or data-driven sampling (DHS).

Every sample of a batch has its own lambda, and so its own weights theta = H_phi(lambda) of the main network.
`value_and_grad` works in three stages:

1. Generate the weights of all samples at once (`model.generate_batch`).
2. Compute the loss of each sample, select samples, and differentiate the mean loss of the selected samples with respect to
   these weights (`weight_grads.py`). The results are called `weight_grads`.
3. Apply the vjp of stage 1 to `weight_grads`, once for the whole batch. This gives the gradient with respect to the model's
   parameters.

UHS selects all samples of the batch. DHS selects the `keep` samples with the lowest score, by default
J = ||A x_hat - y||^2 (`dhs.py`).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.losses.objective import Objective
from hyperrecon_jax.models.model import Model, combine_gradients, generate_batch
from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import SAMPLE_AXIS, local_shard
from hyperrecon_jax.training.dhs import check_rank, select_samples
from hyperrecon_jax.training.weight_grads import Shard, coupled_grads, sample_loss, separable_grads

Tree = Any
SCOPES = ("batch", "device")


class BatchPlan(NamedTuple):
    """How a batch is split over devices and over time.

    `microbatch` changes memory and speed. It changes the result only where batch norm couples the samples: the statistics
    are then those of each microbatch. The two scopes matter only where a batch is sharded over several devices.
    """

    microbatch: int | None = None  # number of samples that a device computes at a time; None: all of its samples
    norm_over: str = "batch"  # batch norm takes its statistics over the whole "batch", or separately on each "device"
    rank_over: str = "device"  # DHS selects the same number of samples on each "device", or the best of the whole "batch"


DEFAULT_PLAN = BatchPlan()


class BatchSummary(NamedTuple):
    """The results of `value_and_grad` other than the gradient."""

    batch_stats: Tree  # the new running statistics
    # means over the selected samples: "loss", "psnr" (dB; only if the network returns an image), and each term unscaled
    logs: dict[str, jax.Array]
    selected: jax.Array  # (n,) float; 1 for each selected sample of the whole batch, else 0

    @property
    def counts(self) -> jax.Array:
        """Deprecated alias of `selected`."""
        return self.selected


def value_and_grad(
    model: Model,
    objective: Objective,
    problem: Problem,
    params: Tree,
    batch_stats: Tree,
    lam: jax.Array,
    samples: Sample,
    y: Measurement,
    *,
    keep: int | None = None,
    rank: str = "absolute",
    plan: BatchPlan = DEFAULT_PLAN,
    device_axis: str | None = None,
) -> tuple[BatchSummary, Tree]:
    """The mean loss of a batch and its gradient with respect to the parameters (Algorithm 1).

    DHS selects the `keep` samples with the lowest score; if `keep` is the size of the batch, this is UHS. The paper sums
    the loss over the selected samples. This code takes the mean, so losses are comparable for different `keep`. Adam's
    steps do not change, because they do not depend on the scale of the gradient.

    Args:
        model: the networks; static under `jax.jit`, as are the next two.
        objective: the loss.
        problem: how a sample is measured.
        params: the parameters of the model.
        batch_stats: its running statistics.
        lam: `(n, K-1)`, the loss weights of each sample.
        samples: the n samples.
        y: their measurements, `(n, ...)`.
        keep: the number of samples that are selected; None: all n.
        rank: the kind of score for DHS, one of `dhs.SCORE_KINDS`: "absolute" (J) or "relative" (J / ||y||^2).
        plan: how the batch is split over devices and over time.
        device_axis: for calls inside `jax.shard_map`, the mapped axis over which the batch of n samples is sharded.
            `samples` and `y` are then this device's shard, and `params` holds this device's part of the sharded heads
            (`hypernet.is_sharded_head`); `lam` is that of the whole batch on every device. `keep` still counts samples of
            the whole batch; with DHS and `plan.rank_over="device"`, the number of devices must divide it.

    Returns:
        The summary and the gradient, both of the whole batch. The gradient is sharded as `params` is.

    Raises:
        InputError: for an unknown rank or scope; if each device selects samples and the number of devices does not divide
            `keep`; or if samples are coupled and the microbatch does not divide their number, or DHS selects samples and
            the microbatch is smaller than their number.
    """
    check_rank(rank)
    check_scopes(plan)
    keep = len(lam) if keep is None else keep
    uses_dhs = keep < len(lam)

    # Stage 1. Separate from stage 2: the backward pass of each sample then ends at its weights, and the hypernetwork is
    # differentiated once, not once for each sample.
    weights, pull_back = jax.vjp(lambda params: generate_batch(model, params, lam, device_axis), params)

    # Stage 2, on this device's shard of the batch.
    local_lam = lam if device_axis is None else local_shard(lam, device_axis)
    shard = Shard(per_sample=weights.per_sample, lam=local_lam, samples=samples, y=y)
    loss = partial(sample_loss, model, objective, problem, batch_stats, rank=rank if uses_dhs else None)
    select = None
    if uses_dhs:
        select = partial(select_samples, keep=keep, rank_over=plan.rank_over, device_axis=device_axis)
    size = len(local_lam)
    microbatch = size if plan.microbatch is None else min(plan.microbatch, size)
    if is_separable(model, batch_stats):
        logs, selected, weight_grads = separable_grads(
            loss, weights.shared, shard, keep=keep, select=select, microbatch=microbatch
        )
    else:
        norm_over_devices = device_axis is not None and plan.norm_over == "batch"
        axes = (SAMPLE_AXIS, device_axis) if norm_over_devices else (SAMPLE_AXIS,)
        batch_stats, logs, selected, weight_grads = coupled_grads(
            partial(loss, batch_axes=axes), weights.shared, shard, keep=keep, select=select, microbatch=microbatch
        )
    # divided by the global `keep`; `_combine_summaries` adds up the devices
    logs = {name: jnp.sum(jnp.where(selected > 0, values, 0)) / keep for name, values in logs.items()}
    summary = BatchSummary(batch_stats, logs, selected)

    # Stage 3.
    (grad,) = pull_back(weight_grads)
    if device_axis is None:
        return summary, grad
    return _combine_summaries(summary, plan, uses_dhs, device_axis), combine_gradients(model, grad, device_axis)


def is_separable(model: Model, batch_stats: Tree) -> bool:
    """Whether each sample has its own weights and its loss does not depend on the other samples.

    Then DHS needs no backward pass for samples that are not selected. With batch norm (the norm that has running
    statistics), every sample changes the statistics, and so the loss of every other sample. Without a hypernetwork, all
    samples share one set of weights.
    """
    return model.hyper is not None and not jax.tree.leaves(batch_stats)


def check_scopes(plan: BatchPlan) -> None:
    """Raise `InputError` for an unknown scope."""
    for name in ("norm_over", "rank_over"):
        scope = getattr(plan, name)
        if scope not in SCOPES:
            raise InputError(f"`{name}` must be one of {', '.join(SCOPES)}, got {scope!r}.")


def _combine_summaries(summary: BatchSummary, plan: BatchPlan, uses_dhs: bool, device_axis: str) -> BatchSummary:
    """The summary of the whole batch from that of each device's shard."""
    batch_stats, logs, selected = summary
    if plan.norm_over == "device":  # with "batch", the statistics are equal on all devices already
        batch_stats = jax.lax.pmean(batch_stats, device_axis)
    size = len(selected)
    batch_selected = jnp.ones(size * jax.lax.axis_size(device_axis))
    if uses_dhs:  # like all_gather, but JAX knows that the result of a psum is equal on all devices
        start = jax.lax.axis_index(device_axis) * size
        placed = jax.lax.dynamic_update_slice_in_dim(jnp.zeros_like(batch_selected), selected, start, 0)
        batch_selected = jax.lax.psum(placed, device_axis)
    return BatchSummary(batch_stats, jax.lax.psum(logs, device_axis), batch_selected)
