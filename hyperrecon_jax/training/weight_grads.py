"""Stage 2 of Algorithm 1: the loss of each sample, and the gradient of the mean loss with respect to the samples' weights.

`sample_loss` is the loss of ONE sample. There is one path to the gradient for each kind of model:

- The samples are separable (`gradient.is_separable`): each has its own weights, and its loss does not depend on the other
  samples. Each sample has its own backward pass (`separable_grads`), and DHS runs it for the selected samples only.
- The samples are coupled, by the statistics of batch norm or because they share all weights. One backward pass serves all
  of them (`coupled_grads`). DHS multiplies the losses of all other samples by 0, so it saves no time.

A backward pass costs about two forward passes. So the cost of DHS with b of B separable samples, in forward passes, is
1 + 2 b/B if a device holds all of its samples at once. With smaller microbatches it is 1 + 3 b/B, because the selected
samples are computed a second time. Without DHS it is 3.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, term_values, weighted_loss
from hyperrecon_jax.models.model import Model, Weights, merge_weights, train_main
from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.runtime.mesh import SAMPLE_AXIS
from hyperrecon_jax.training.dhs import Selection, dhs_score

Tree = Any


class Shard(NamedTuple):
    """This device's n samples. Every leaf has a leading axis of length n."""

    per_sample: Tree  # generated weights {path: (n, ...)}, as in `Weights.per_sample`
    lam: jax.Array  # (n, K-1)
    samples: Sample
    y: Measurement


class SampleAux(NamedTuple):
    """The results of `sample_loss` other than the loss: `aux` of `jax.vjp(..., has_aux=True)`."""

    batch_stats: Tree
    logs: dict[str, jax.Array]
    dhs_score: jax.Array  # (); 0 for UHS, which needs none


# `(weights, lam, sample, y) -> (loss, aux)` for one sample: `sample_loss` with its other arguments bound by `partial`.
SampleLoss = Callable[..., tuple[jax.Array, SampleAux]]
Select = Callable[[jax.Array], Selection]  # `(n,)` scores -> the selected samples


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
    """The loss L(lambda) of ONE sample, given the weights of the main network (Eqs. 9, 10).

    Args:
        model, objective, problem, batch_stats: as for `gradient.value_and_grad`.
        weights: those of this sample, without a leading axis.
        lam, sample, y: of this sample; `lam` is `(K-1,)`.
        rank: the kind of score to compute, one of `dhs.SCORE_KINDS`; None: no score.
        batch_axes: the mapped axes over which batch norm takes its statistics.

    Returns:
        The loss, `()`, and its running statistics, logs and score.
    """
    theta = merge_weights(weights)
    x_hat, new_stats = train_main(model, theta, batch_stats, problem.to_net_input(y), batch_axes=batch_axes)
    values = term_values(objective, Outcome(x_hat, sample, y, theta))
    loss = weighted_loss(objective, lam, values)
    logs = {"loss": loss}
    if x_hat.shape == sample.image.shape:  # a segmentation network returns one channel for each class: no PSNR
        logs["psnr"] = metrics.bounded_psnr(x_hat, sample.image)
    score = jnp.zeros(()) if rank is None else dhs_score(problem, x_hat, y, rank=rank)
    return loss, SampleAux(new_stats, logs | dict(zip(objective.terms, values, strict=True)), score)


# Separable samples: a backward pass for each.


def separable_grads(
    loss: SampleLoss, shared: Tree, shard: Shard, *, keep: int, select: Select | None, microbatch: int
) -> tuple[dict[str, jax.Array], jax.Array, Weights]:
    """The gradient of the mean loss with respect to the weights of n separable samples.

    Args:
        loss: the loss of one sample.
        shared: the weights that all samples share.
        shard: the n samples of this device.
        keep: the number of samples that are selected on all devices together; the mean is over these.
        select: how DHS selects samples; None: UHS, which selects all.
        microbatch: the number of samples that are computed at a time.

    Returns:
        The logs of each sample, `(n,)`; which samples are selected, `(n,)`, 1 or 0; and the gradient.
    """
    size = len(shard.lam)
    if select is None:
        sample_grad = partial(_sample_grad, loss, shared, keep)
        logs, grads = _map_microbatches(sample_grad, microbatch, jnp.ones(size), *shard)
        return logs, jnp.ones(size), Weights(_sum_rows(grads.shared), grads.per_sample)

    dhs_grads = _dhs_grads_at_once if microbatch == size else partial(_dhs_grads_by_recompute, microbatch=microbatch)
    logs, (rows, is_selected), grads = dhs_grads(loss, shared, shard, keep=keep, select=select)

    def drop_unselected(leaf):  # `where`, not a product: 0 * NaN is NaN
        return jnp.where((is_selected > 0).reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0)

    grads = jax.tree.map(drop_unselected, grads)
    # put the gradients of the selected rows at their places; all other rows stay 0
    per_sample = jax.tree.map(
        lambda leaf, values: jnp.zeros_like(leaf).at[rows].set(values), shard.per_sample, grads.per_sample
    )
    return logs, jnp.zeros(size).at[rows].set(is_selected), Weights(_sum_rows(grads.shared), per_sample)


def _dhs_grads_at_once(
    loss: SampleLoss, shared: Tree, shard: Shard, *, keep: int, select: Select
) -> tuple[dict[str, jax.Array], Selection, Weights]:
    """DHS with all n samples in memory: one forward pass for all, then the backward pass for the selected ones.

    Returns:
        The logs of the n samples, the selection of m rows, and the gradients of these rows.
    """
    # A pull-back is a pytree whose leaves are the saved activations. `vmap` stacks them, so rows can be selected like rows
    # of an array.
    _, pull_backs, aux = jax.vmap(partial(_vjp_sample, loss, shared))(*shard)
    selection = select(aux.dhs_score)
    selected_pull_backs = _take_rows(pull_backs, selection.rows)
    (grads,) = jax.vmap(lambda pull_back, is_selected: pull_back(is_selected / keep))(
        selected_pull_backs, selection.is_selected
    )
    return aux.logs, selection, grads


def _dhs_grads_by_recompute(
    loss: SampleLoss, shared: Tree, shard: Shard, *, keep: int, select: Select, microbatch: int
) -> tuple[dict[str, jax.Array], Selection, Weights]:
    """DHS with a microbatch in memory: compute the scores of all n samples first, then recompute the selected ones.

    Returns:
        As `_dhs_grads_at_once`; the logs of samples that are not selected are 0 (they are never averaged).
    """

    def score(per_sample, lam, sample, y):
        _, aux = loss(Weights(shared, per_sample), lam, sample, y)
        return aux.dhs_score

    def recompute(row, is_selected):
        # rows that are not selected exist only for rank_over="batch"; `cond` skips their backward pass
        args = is_selected, *take(shard, row)
        sample_grad = partial(_sample_grad, loss, shared, keep)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(sample_grad, *args))
        return jax.lax.cond(is_selected > 0, lambda: sample_grad(*args), lambda: zeros)

    selection = select(_map_microbatches(score, microbatch, *shard))
    row_logs, grads = _map_microbatches(recompute, microbatch, *selection)
    logs = jax.tree.map(lambda values: jnp.zeros(len(shard.lam)).at[selection.rows].set(values), row_logs)
    return logs, selection, grads


def _vjp_sample(
    loss: SampleLoss, shared: Tree, per_sample: Tree, lam: jax.Array, sample: Sample, y: Measurement
) -> tuple[jax.Array, Callable[[jax.Array], tuple[Weights]], SampleAux]:
    """`jax.vjp` of the loss of one sample with respect to its weights: the loss, its pull-back, and the aux."""
    weights = Weights(shared, per_sample)
    return jax.vjp(lambda weights: loss(weights, lam, sample, y), weights, has_aux=True)


def _sample_grad(
    loss: SampleLoss,
    shared: Tree,
    keep: int,
    is_selected: jax.Array,
    per_sample: Tree,
    lam: jax.Array,
    sample: Sample,
    y: Measurement,
) -> tuple[dict[str, jax.Array], Weights]:
    """The logs of one sample, and its contribution to the gradient of the mean loss; 0 if not selected."""
    _, pull_back, aux = _vjp_sample(loss, shared, per_sample, lam, sample, y)
    return aux.logs, pull_back(is_selected / keep)[0]


# Coupled samples: one backward pass for all.


def coupled_grads(
    loss: SampleLoss, shared: Tree, shard: Shard, *, keep: int, select: Select | None, microbatch: int
) -> tuple[Tree, dict[str, jax.Array], jax.Array, Weights]:
    """The gradient of the mean loss with respect to the weights of n coupled samples.

    Args:
        loss: the loss of one sample, which takes batch norm's statistics over the mapped axis `SAMPLE_AXIS`.
        shared, shard, keep, select, microbatch: as for `separable_grads`.

    Returns:
        The new running statistics (the mean over the microbatches), and the three results of `separable_grads`.

    Raises:
        InputError: if the microbatch does not divide the n samples, or if it is smaller than n and DHS selects samples.
    """
    size = len(shard.lam)
    in_axes: Any = (Weights(shared=None, per_sample=0), 0, 0, 0)  # None: no sample axis
    out_axes: Any = (0, SampleAux(batch_stats=None, logs=0, dhs_score=0))  # type: ignore[arg-type]
    per_sample_loss = jax.vmap(loss, in_axes, out_axes, axis_name=SAMPLE_AXIS)
    if microbatch == size:
        return _coupled_grads_at_once(per_sample_loss, shared, shard, keep=keep, select=select)
    if select is not None or size % microbatch:
        raise InputError(
            f"`microbatch` must divide the {size} samples of a device, and be all of them where DHS masks samples;"
            f" got {microbatch}."
        )
    microbatches = jax.tree.map(lambda leaf: leaf.reshape(size // microbatch, microbatch, *leaf.shape[1:]), shard)
    stats, logs, selected, grads = jax.lax.map(
        lambda part: _coupled_grads_at_once(per_sample_loss, shared, part, keep=keep, select=None), microbatches
    )
    per_sample = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), grads.per_sample)
    mean_stats = jax.tree.map(lambda leaf: leaf.mean(0), stats)
    logs, selected = jax.tree.map(jnp.ravel, (logs, selected))
    return mean_stats, logs, selected, Weights(_sum_rows(grads.shared), per_sample)


def _coupled_grads_at_once(per_sample_loss, shared, microbatch, *, keep, select):
    """`coupled_grads` of one microbatch."""
    per_sample, lam, samples, y = microbatch
    losses, pull_back, aux = jax.vjp(
        lambda weights: per_sample_loss(weights, lam, samples, y), Weights(shared, per_sample), has_aux=True
    )
    selected = jnp.ones(len(losses))
    if select is not None:
        rows, is_selected = select(aux.dhs_score)
        selected = jnp.zeros(len(losses)).at[rows].set(is_selected)
    return aux.batch_stats, aux.logs, selected, pull_back(selected / keep)[0]


# Rows and microbatches.


def _map_microbatches(function, microbatch, *arrays):
    """`jax.vmap(function)(*arrays)`, for `microbatch` samples at a time."""
    if microbatch >= len(jax.tree.leaves(arrays)[0]):
        return jax.vmap(function)(*arrays)
    # None: a plain loop. A batch size of 1 would vmap the function over an axis of length 1.
    return jax.lax.map(lambda args: function(*args), arrays, batch_size=microbatch if microbatch > 1 else None)


def _sum_rows(tree: Tree) -> Tree:
    """The sum of every leaf over its first axis."""
    return jax.tree.map(lambda leaf: leaf.sum(0), tree)


def _take_rows(tree: Tree, rows: jax.Array) -> Tree:
    """Select rows of every leaf.

    On a CPU slices are used, because XLA's gather of whole images is slow there and cannot be fused.
    """

    def take_slices(leaf, rows):
        return jnp.stack([jax.lax.dynamic_index_in_dim(leaf, row, keepdims=False) for row in rows])

    def gather(leaf, rows):
        return leaf[rows]

    return jax.tree.map(lambda leaf: jax.lax.platform_dependent(leaf, rows, cpu=take_slices, default=gather), tree)
