"""Algorithm 1: the loss of a batch and its gradient, for lambda sampled uniformly (UHS) or driven by the data (DHS).

Every sample of a batch has its own lambda, and so its own weights theta = H_phi(lambda) of the main network.
`value_and_grad` works in three stages:

1. Generate the weights of all samples at once (`model.generate_batch`).
2. Compute the loss of each sample (`sample_loss`), select samples, and differentiate the mean loss of the selected ones in
   those weights. The results are called `weight_grads`.
3. Pull `weight_grads` back through stage 1, once for the batch. The result is the gradient in the model's parameters.

UHS selects all samples of the batch. DHS selects the `keep` samples with the lowest score, by default
J = ||A x_hat - y||^2. The loss is the mean over the selected samples.

Stage 2 has one path for each kind of model:

- The samples are separable (`is_separable`): the loss of a sample does not depend on the other samples. Each sample has a
  backward pass of its own (`_separable_grads`), and DHS runs it for the selected samples only.
- The samples are coupled, by the statistics of batch norm or because they share all weights. One backward pass serves all
  of them (`_coupled_grads`). DHS multiplies the loss of a sample that is not selected by 0, so it saves no time.

Cost of DHS with b of B separable samples, in forward passes (without DHS it is 3): 1 + 2 b/B if a device holds all of its
samples at once. With smaller microbatches it is 1 + 3 b/B, because the selected samples are computed a second time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, term_values, weighted_loss
from hyperrecon_jax.models.model import Model, Weights, generate_batch, merge_weights, sum_over_devices, train_main
from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import local_shard
from hyperrecon_jax.training.dhs import Selection, check_rank, dhs_score, select_samples

Tree = Any
SCOPES = ("batch", "device")
MAX_PSNR = 100.0  # dB, in the logs: the network can reproduce a black image exactly, and its PSNR is infinite


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
    selected: jax.Array  # (n,) 1 for a selected sample, 0 for another

    @property
    def counts(self) -> jax.Array:
        """The former name of `selected`."""
        return self.selected


class SampleAux(NamedTuple):
    """What `sample_loss` returns beside the loss."""

    batch_stats: Tree
    logs: dict[str, jax.Array]
    score: jax.Array  # (), the DHS score; 0 for UHS, which needs none


# One sample: `(weights, lam, sample, y) -> (loss, aux)`, which is `sample_loss` with its other arguments filled in.
SampleLoss = Callable[..., tuple[jax.Array, SampleAux]]
Select = Callable[[jax.Array], Selection]  # `(n,)` scores -> the selected samples
Batch = tuple[Tree, jax.Array, Sample, Measurement]  # of n samples: generated weights, lam, samples, y


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
        model, objective, problem: what is trained; static.
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

    # The backward passes of the samples see the weights only. So they do not copy the hypernetwork for every sample.
    weights, pull_back = jax.vjp(lambda params: generate_batch(model, params, lam, device_axis), params)
    local_lam = lam if device_axis is None else local_shard(lam, device_axis)

    loss = partial(sample_loss, model, objective, problem, batch_stats, rank=rank if uses_dhs else None)
    select = partial(select_samples, keep=keep, scope=plan.rank_over, device_axis=device_axis) if uses_dhs else None
    batch = weights.per_sample, local_lam, samples, y
    microbatch = min(plan.microbatch or len(local_lam), len(local_lam))
    if is_separable(model, batch_stats):
        logs, selected, weight_grads = _separable_grads(
            loss, weights.shared, batch, keep=keep, select=select, microbatch=microbatch
        )
    else:
        axes = ("sample", device_axis) if device_axis is not None and plan.norm_over == "batch" else ("sample",)
        batch_stats, logs, selected, weight_grads = _coupled_grads(
            partial(loss, batch_axes=axes), weights.shared, batch, keep=keep, select=select, microbatch=microbatch
        )
    logs = {name: jnp.sum(jnp.where(selected > 0, values, 0)) / keep for name, values in logs.items()}
    summary, (grad,) = BatchSummary(batch_stats, logs, selected), pull_back(weight_grads)
    if device_axis is None:
        return summary, grad
    return _combine_summaries(summary, plan, uses_dhs, device_axis), sum_over_devices(model, grad, device_axis)


def sample_loss(
    model: Model,
    objective: Objective,
    problem: Problem,
    batch_stats: Tree,
    weights: Weights,
    lam: jax.Array,
    sample: Sample,
    y: Measurement,
    *,
    rank: str | None,
    batch_axes: tuple[str, ...] = (),
) -> tuple[jax.Array, SampleAux]:
    """The loss of ONE sample from the weights of the main network, L(lambda) of Eqs. 9 and 10.

    Args:
        model, objective, problem, batch_stats: as for `value_and_grad`.
        weights: those of this sample, without a leading axis.
        lam, sample, y: of this sample; `lam` is `(K-1,)`.
        rank: one of `dhs.RANKS`, the score to compute; None: no score.
        batch_axes: the mapped axes over which batch norm takes its statistics.

    Returns:
        The loss, `()`, and what is logged of the sample.
    """
    theta = merge_weights(weights)
    x_hat, new_stats = train_main(model, theta, batch_stats, problem.to_net_input(y), batch_axes=batch_axes)
    values = term_values(objective, Outcome(x_hat, sample, y, theta))
    loss = weighted_loss(objective, lam, values)
    logs = {"loss": loss}
    if x_hat.shape == sample.image.shape:  # not for a segmentation, which has a channel for each class
        logs["psnr"] = jnp.minimum(metrics.psnr(x_hat, sample.image), MAX_PSNR)
    score = jnp.zeros(()) if rank is None else dhs_score(problem, x_hat, y, rank=rank)
    return loss, SampleAux(new_stats, logs | dict(zip(objective.terms, values, strict=True)), score)


# Separable samples: a backward pass for each.


def _separable_grads(
    loss: SampleLoss, shared: Tree, batch: Batch, *, keep: int, select: Select | None, microbatch: int
) -> tuple[dict[str, jax.Array], jax.Array, Weights]:
    """The logs of n separable samples, which ones are selected, `(n,)`, and the gradient of the mean loss in their weights.

    Args:
        loss: of one sample.
        shared: the weights that all samples share.
        batch: the n samples.
        keep: how many samples are selected, on all devices together.
        select: the choice of DHS; None for UHS.
        microbatch: how many samples are computed at a time.
    """
    size = len(batch[1])
    if select is None:
        grad_one = partial(_sample_grad, loss, shared, keep)
        logs, grads = _map_microbatches(grad_one, microbatch, jnp.ones(size), *batch)
        return logs, jnp.ones(size), Weights(_sum_rows(grads.shared), grads.per_sample)

    dhs_grads = _dhs_grads_at_once if microbatch == size else partial(_dhs_grads_by_recompute, microbatch=microbatch)
    logs, (rows, mask), grads = dhs_grads(loss, shared, batch, keep=keep, select=select)

    def drop_unselected(leaf):  # by `where`: a sample that is not selected may even be NaN
        return jnp.where((mask > 0).reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0)

    grads = jax.tree.map(drop_unselected, grads)
    per_sample = jax.tree.map(lambda leaf, values: jnp.zeros_like(leaf).at[rows].set(values), batch[0], grads.per_sample)
    return logs, jnp.zeros(size).at[rows].set(mask), Weights(_sum_rows(grads.shared), per_sample)


def _dhs_grads_at_once(
    loss: SampleLoss, shared: Tree, batch: Batch, *, keep: int, select: Select
) -> tuple[dict[str, jax.Array], Selection, Weights]:
    """DHS with all n samples in memory: one forward pass for all, then the backward pass for the selected ones.

    Returns:
        The logs of the n samples, the selection of m rows, and the gradients of these rows.
    """
    _, pull_backs, aux = jax.vmap(partial(_vjp_sample, loss, shared))(*batch)
    selection = select(aux.score)
    selected_pull_backs = _take_rows(pull_backs, selection.rows)
    (grads,) = jax.vmap(lambda pull_back, mask: pull_back(mask / keep))(selected_pull_backs, selection.mask)
    return aux.logs, selection, grads


def _dhs_grads_by_recompute(
    loss: SampleLoss, shared: Tree, batch: Batch, *, keep: int, select: Select, microbatch: int
) -> tuple[dict[str, jax.Array], Selection, Weights]:
    """DHS with a microbatch in memory: compute the scores of all n samples first, then recompute the selected ones.

    Returns:
        As `_dhs_grads_at_once`; the logs of samples that are not selected are 0.
    """

    def score(per_sample, lam, sample, y):
        _, aux = loss(Weights(shared, per_sample), lam, sample, y)
        return aux.score

    def recompute(row, mask):
        args = mask, *take(batch, row)
        grad_one = partial(_sample_grad, loss, shared, keep)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(grad_one, *args))
        return jax.lax.cond(mask > 0, lambda: grad_one(*args), lambda: zeros)

    selection = select(_map_microbatches(score, microbatch, *batch))
    row_logs, grads = _map_microbatches(recompute, microbatch, *selection)
    logs = jax.tree.map(lambda values: jnp.zeros(len(batch[1])).at[selection.rows].set(values), row_logs)
    return logs, selection, grads


def _vjp_sample(loss, shared, per_sample, lam, sample, y):
    """`jax.vjp` of the loss of one sample in its weights: the loss, its pull-back, and the aux."""
    weights = Weights(shared, per_sample)
    return jax.vjp(lambda weights: loss(weights, lam, sample, y), weights, has_aux=True)


def _sample_grad(loss, shared, keep, mask, per_sample, lam, sample, y):
    """The logs of one sample and its part of the gradient of the mean loss, which is 0 where `mask` is 0."""
    _, pull_back, aux = _vjp_sample(loss, shared, per_sample, lam, sample, y)
    return aux.logs, pull_back(mask / keep)[0]


# Coupled samples: one backward pass for all.


def _coupled_grads(
    loss: SampleLoss, shared: Tree, batch: Batch, *, keep: int, select: Select | None, microbatch: int
) -> tuple[Tree, dict[str, jax.Array], jax.Array, Weights]:
    """The running statistics, and what `_separable_grads` returns, of n coupled samples. The arguments are the same.

    Raises:
        InputError: if the microbatch does not divide the samples, or is smaller than all of them although DHS selects some.
    """
    size = len(batch[1])
    in_axes: Any = (Weights(None, 0), 0, 0, 0)  # the shared weights and the statistics have no axis of samples
    out_axes: Any = (0, SampleAux._make((None, 0, 0)))
    per_sample_loss = jax.vmap(loss, in_axes, out_axes, axis_name="sample")
    if microbatch == size:
        return _coupled_grads_at_once(per_sample_loss, shared, batch, keep=keep, select=select)
    if select is not None or size % microbatch:
        raise InputError(
            f"`microbatch` must divide the {size} samples of a device, and be all of them where DHS masks samples;"
            f" got {microbatch}."
        )
    microbatches = jax.tree.map(lambda leaf: leaf.reshape(size // microbatch, microbatch, *leaf.shape[1:]), batch)
    stats, logs, selected, grads = jax.lax.map(
        lambda part: _coupled_grads_at_once(per_sample_loss, shared, part, keep=keep, select=None), microbatches
    )
    per_sample = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), grads.per_sample)
    mean_stats = jax.tree.map(lambda leaf: leaf.mean(0), stats)
    logs, selected = jax.tree.map(jnp.ravel, (logs, selected))
    return mean_stats, logs, selected, Weights(_sum_rows(grads.shared), per_sample)


def _coupled_grads_at_once(per_sample_loss, shared, batch, *, keep, select):
    """As `_coupled_grads`, for samples that are all computed together."""
    per_sample, *data = batch
    losses, pull_back, aux = jax.vjp(
        lambda weights: per_sample_loss(weights, *data), Weights(shared, per_sample), has_aux=True
    )
    selected = jnp.ones(len(losses))
    if select is not None:
        rows, mask = select(aux.score)
        selected = jnp.zeros(len(losses)).at[rows].set(mask)
    return aux.batch_stats, aux.logs, selected, pull_back(selected / keep)[0]


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


# Rows of a batch, and several devices.


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


def _map_microbatches(function, microbatch, *arrays):
    """`jax.vmap(function)(*arrays)`, for `microbatch` samples at a time."""
    if microbatch >= len(jax.tree.leaves(arrays)[0]):
        return jax.vmap(function)(*arrays)
    return jax.lax.map(lambda args: function(*args), arrays, batch_size=microbatch if microbatch > 1 else None)


def _sum_rows(tree: Tree) -> Tree:
    """The sum of every leaf over its first axis."""
    return jax.tree.map(lambda leaf: leaf.sum(0), tree)


def _take_rows(tree: Tree, rows: jax.Array) -> Tree:
    """Some rows of every leaf. On a CPU by slices: there, gathering whole images is slow, and nothing fuses with it."""

    def take_slices(leaf, rows):
        return jnp.stack([jax.lax.dynamic_index_in_dim(leaf, row, keepdims=False) for row in rows])

    def gather(leaf, rows):
        return leaf[rows]

    return jax.tree.map(lambda leaf: jax.lax.platform_dependent(leaf, rows, cpu=take_slices, default=gather), tree)
