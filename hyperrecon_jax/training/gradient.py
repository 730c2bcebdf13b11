"""Algorithm 1: the loss of a batch and its gradient, for lambda sampled uniformly (UHS) or driven by the data (DHS).

Every sample of a batch has its own lambda, and so its own weights theta = H_phi(lambda) of the main network.
`value_and_grad` works in three stages:

1. Generate the weights of all samples at once (`model.generate_batch`).
2. Compute the loss of each sample, select samples, and differentiate the mean loss of the selected samples in those weights
   (`weight_grads.py`). The results are called `weight_grads`.
3. Pull `weight_grads` back through stage 1, once for the batch. The result is the gradient in the model's parameters.

UHS selects all samples of the batch. DHS selects the `keep` samples with the lowest score, by default
J = ||A x_hat - y||^2 (`dhs.py`).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.losses.objective import Objective
from hyperrecon_jax.models.model import Model, generate_batch, sum_over_devices
from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import local_shard
from hyperrecon_jax.training.dhs import check_rank, select_samples
from hyperrecon_jax.training.weight_grads import Batch, coupled_grads, sample_loss, separable_grads

Tree = Any
SCOPES = ("batch", "device")


class Plan(NamedTuple):
    """How the devices work through a batch.

    `microbatch` changes memory and speed. It changes the result only where batch norm couples the samples: the statistics
    are then those of each microbatch. The two scopes matter only where a batch is sharded over several devices.
    """

    microbatch: int | None = None  # samples that a device puts through the network at a time; None: all of its samples
    norm_over: str = "batch"  # batch norm takes its statistics over the whole "batch", or over each "device" alone
    rank_over: str = "device"  # DHS selects the same number of samples on each "device", or the best of the whole "batch"


DEFAULT_PLAN = Plan()


class BatchSummary(NamedTuple):
    """What `value_and_grad` returns beside the gradient."""

    batch_stats: Tree  # the new running statistics
    logs: dict[str, jax.Array]  # means over the selected samples: "loss", "psnr" (dB, of images), and each term unscaled
    selected: jax.Array  # (n,) 1 if the sample is selected, else 0

    @property
    def counts(self) -> jax.Array:
        """The former name of `selected`."""
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
    plan: Plan = DEFAULT_PLAN,
    device_axis: str | None = None,
) -> tuple[BatchSummary, Tree]:
    """The mean loss of a batch and its gradient in the parameters (Algorithm 1).

    DHS selects the `keep` samples with the lowest score; if `keep` is the size of the batch, this is UHS. The paper sums
    the loss over the selected samples. The mean makes losses comparable for different `keep`, and Adam takes the same
    steps.

    Args:
        model, objective, problem: what is trained; static under `jax.jit`.
        params, batch_stats: the variables of the model.
        lam: `(n, K-1)`, the loss weights of each sample.
        samples: the n samples.
        y: their measurements, `(n, ...)`.
        keep: how many of the n samples are selected; None: all.
        rank: the score by which DHS ranks, one of `dhs.RANKS`: "absolute" (J) or "relative" (J / ||y||^2).
        plan: how the devices work through the batch.
        device_axis: for calls inside of `jax.shard_map`, the mapped axis over which the batch of n samples is sharded.
            `samples` and `y` are then this device's shard, and `params` holds this device's part of the sharded heads
            (`hypernet.is_sharded`); `lam` is that of the whole batch on every device.

    Returns:
        The summary and the gradient, both of the whole batch. The gradient is sharded as `params` is.

    Raises:
        InputError: for an unknown rank or scope, or a microbatch that does not suit coupled samples.
    """
    check_rank(rank)
    check_scopes(plan)
    keep = len(lam) if keep is None else keep
    uses_dhs = keep < len(lam)

    # Stage 1. The backward passes of stage 2 see only the weights, so they do not copy the hypernetwork for every sample.
    weights, pull_back = jax.vjp(lambda params: generate_batch(model, params, lam, device_axis), params)

    # Stage 2, on this device's shard of the batch.
    local_lam = lam if device_axis is None else local_shard(lam, device_axis)
    batch = Batch(weights.per_sample, local_lam, samples, y)
    loss = partial(sample_loss, model, objective, problem, batch_stats, rank=rank if uses_dhs else None)
    select = partial(select_samples, keep=keep, scope=plan.rank_over, device_axis=device_axis) if uses_dhs else None
    microbatch = min(plan.microbatch or len(local_lam), len(local_lam))
    if is_separable(model, batch_stats):
        logs, selected, weight_grads = separable_grads(
            loss, weights.shared, batch, keep=keep, select=select, microbatch=microbatch
        )
    else:
        axes = ("sample", device_axis) if device_axis is not None and plan.norm_over == "batch" else ("sample",)
        batch_stats, logs, selected, weight_grads = coupled_grads(
            partial(loss, batch_axes=axes), weights.shared, batch, keep=keep, select=select, microbatch=microbatch
        )
    logs = {name: jnp.sum(jnp.where(selected > 0, values, 0)) / keep for name, values in logs.items()}
    summary = BatchSummary(batch_stats, logs, selected)

    # Stage 3.
    (grad,) = pull_back(weight_grads)
    if device_axis is None:
        return summary, grad
    return _combine_summaries(summary, plan, uses_dhs, device_axis), sum_over_devices(model, grad, device_axis)


def is_separable(model: Model, batch_stats: Tree) -> bool:
    """Whether the loss of a sample depends on that sample alone, so that DHS needs no backward pass for the others.

    This is not so with batch norm (the norm that has running statistics): every sample changes the statistics, and so the
    loss of every other. Nor is it so without a hypernetwork, where all samples share one set of weights.
    """
    return model.hyper is not None and not jax.tree.leaves(batch_stats)


def check_scopes(plan: Plan) -> None:
    """Raise `InputError` for an unknown scope."""
    for name in ("norm_over", "rank_over"):
        scope = getattr(plan, name)
        if scope not in SCOPES:
            raise InputError(f"`{name}` must be one of {', '.join(SCOPES)}, got {scope!r}.")


def _combine_summaries(summary: BatchSummary, plan: Plan, uses_dhs: bool, device_axis: str) -> BatchSummary:
    """The summary of the whole batch from that of each device's shard."""
    batch_stats, logs, selected = summary
    if plan.norm_over == "device":
        batch_stats = jax.lax.pmean(batch_stats, device_axis)
    size = len(selected)
    batch_selected = jnp.ones(size * jax.lax.axis_size(device_axis))
    if uses_dhs:  # the shard at its place in the batch, then a sum: the compiler knows that all devices have the result
        start = jax.lax.axis_index(device_axis) * size
        placed = jax.lax.dynamic_update_slice_in_dim(jnp.zeros_like(batch_selected), selected, start, 0)
        batch_selected = jax.lax.psum(placed, device_axis)
    return BatchSummary(batch_stats, jax.lax.psum(logs, device_axis), batch_selected)
