"""The value and the gradient of the objective over a batch, by uniform or data-driven sampling of lambda (Algorithm 1).

Every sample has its own lambda and so its own weights theta, but for the leaves that are learned and not generated, which
all share. `of_weights` differentiates the loss in theta, sample by sample; the pull-back of the weights' generation, once
for the batch, makes that the gradient of the hypernetwork.

DHS counts the b of B samples with the lowest J = ||A x_hat - y||^2. Where samples are `separable` only those are pulled
back: at (1 + 2 b/B) forward costs instead of 3 if the batch is held at once, at (1 + 3 b/B) if it is worked through in
pieces, since what the first pass knew of a sample is gone by then. Otherwise the others are masked, at the full cost.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, term_values, weighted_loss
from hyperrecon_jax.models.model import Model, Weights, generate_per_sample, train_main, whole
from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Sample, take
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
RANKS = ("absolute", "relative")
SCOPES = ("batch", "device")


class Plan(NamedTuple):
    """How a batch is worked through.

    `microbatch` changes memory and speed alone, unless a norm couples the samples: then its statistics are those of the
    samples at once. The scopes matter where a batch is spread over devices.
    """

    microbatch: int | None = None  # samples that a device puts through the network at a time; None: all
    norm_over: str = "batch"  # batch norm's statistics: of the whole batch, or of each "device" its own
    rank_over: str = "device"  # DHS: the best of each device, as many from each; or those of the whole "batch"


AS_IT_IS = Plan()


class Counted(NamedTuple):
    """What comes with a gradient."""

    batch_stats: Tree  # the new running statistics
    logs: dict[str, jax.Array]  # means over the samples that count: "loss", "psnr" of an image, each term unscaled
    counts: jax.Array  # (n,) 1 for the samples that count, 0 for the others


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
    plan: Plan = AS_IT_IS,
) -> tuple[Counted, Tree]:
    """Mean loss over a batch and its gradient in the parameters, on one device.

    Of the batch, the `keep` samples with the lowest J count (DHS); all of them, if `keep` is the size of the batch (UHS).
    The paper sums over those that count; a mean makes the loss comparable over `keep`, and to Adam it is the same.

    Args:
        model, objective, problem: static.
        params, batch_stats: the variables.
        lam: `(n, K-1)`.
        samples: n of them.
        y: their measurements, `(n, ...)`.
        keep: b, how many of the n count; None: all.
        rank: by what DHS ranks, of `RANKS`: "absolute" (J) or "relative" (J / ||y||^2).
        plan: how the batch is worked through.

    Returns:
        What comes with it, and the gradient in `params`.
    """

    # Outside of the pull-backs of the samples, so that they hold theta but not a copy of the hypernetwork for every one.
    theta, pull_back = jax.vjp(lambda params: generate_per_sample(model, params, lam), params)
    counted, grad_theta = of_weights(
        model, objective, problem, theta, batch_stats, lam, samples, y, keep=keep, rank=rank, plan=plan
    )
    return counted, pull_back(grad_theta)[0]


def of_weights(
    model: Model,
    objective: Objective,
    problem: Problem,
    theta: Weights,
    batch_stats: Tree,
    lam: jax.Array,
    samples: Sample,
    y: Measurement,
    *,
    keep: int | None = None,
    rank: str = "absolute",
    plan: Plan = AS_IT_IS,
    device_axis: str | None = None,
) -> tuple[Counted, Tree]:
    """As `value_and_grad`, in the weights of the n samples.

    Args:
        device_axis: the mapped axis over which a larger batch is spread, n of its samples on each device. `keep` counts in
            the whole batch, logs and statistics are of the whole batch, and the gradient is this device's part of a sum
            over the devices.

    Raises:
        InputError: for an unknown rank or scope, or if DHS would have to mask samples that it does not hold at once.
    """
    devices = jax.lax.axis_size(device_axis) if device_axis else 1
    size, total = len(lam), len(lam) * devices
    keep = total if keep is None else keep
    at_once = min(plan.microbatch or size, size)
    check_plan(plan, rank)

    def of_sample(weights, lam, sample, y, *, batch_axes):
        theta = whole(weights)
        x_hat, stats = train_main(model, theta, batch_stats, problem.to_net_input(y), batch_axes=batch_axes)
        values = term_values(objective, Outcome(x_hat, sample, y, theta))
        loss = weighted_loss(objective, lam, values)
        logs = {"loss": loss}
        if x_hat.shape == sample.image.shape:
            logs["psnr"] = jnp.minimum(metrics.psnr(x_hat, sample.image), 100.0)  # a black image can be matched exactly
        cost = dhs_score(problem, x_hat, y, rank=rank) if keep < total else jnp.zeros(())
        return loss, (stats, logs | dict(zip(objective.terms, values, strict=True)), cost)

    choose = partial(_choose, keep=keep, over=plan.rank_over, device_axis=device_axis) if keep < total else None
    batch = lam, samples, y
    if separable(model, batch_stats):
        of_one = partial(of_sample, batch_axes=())
        (logs, counts), grad = _of_each(of_one, theta, batch, keep=keep, choose=choose, at_once=at_once)
    else:
        axes = ("sample", device_axis) if device_axis and plan.norm_over == "batch" else ("sample",)
        mapped = Weights(None, 0), 0, 0, 0
        of_some = jax.vmap(partial(of_sample, batch_axes=axes), mapped, (0, (None, 0, 0)), axis_name="sample")
        (batch_stats, logs, counts), grad = _of_all(of_some, theta, batch, keep=keep, choose=choose, at_once=at_once)
    logs = {name: jnp.sum(jnp.where(counts > 0, value, 0)) / keep for name, value in logs.items()}
    if device_axis:
        logs = jax.lax.psum(logs, device_axis)
        if plan.norm_over == "device":
            batch_stats = jax.lax.pmean(batch_stats, device_axis)
    return Counted(batch_stats, logs, counts), grad


def _of_each(of_one, theta, of, *, keep, choose, at_once):
    """Samples that have gradients of their own: ((logs, counts), gradient), those of the samples left out being zero."""
    batch = theta.own, *of
    size = len(of[0])

    def forward(own, *of):
        return jax.vjp(lambda weights: of_one(weights, *of), theta._replace(own=own), has_aux=True)

    def weighted(weight, *one):
        _, pull_back, (_, logs, _) = forward(*one)
        return logs, pull_back(weight / keep)[0]

    def together(grad):  # of what the samples share
        return grad._replace(shared=jax.tree.map(lambda each: each.sum(0), grad.shared))

    if choose is None:
        ones = jnp.ones(size)
        logs, grad = _map(weighted, at_once, ones, *batch)
        return (logs, ones), together(grad)
    if at_once == size:
        _, pull_backs, (_, logs, cost) = jax.vmap(forward)(*batch)
        rows, weights = choose(cost)
        (grad,) = jax.vmap(lambda pull_back, weight: pull_back(weight / keep))(_rows(pull_backs, rows), weights)
    else:
        rows, weights = choose(_map(lambda own, *of: of_one(theta._replace(own=own), *of)[1][2], at_once, *batch))

        def again(row, weight):
            one = weight, *take(batch, row)
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(weighted, *one))
            return jax.lax.cond(weight > 0, lambda: weighted(*one), lambda: nothing)

        logs, grad = _map(again, at_once, rows, weights)
        logs = jax.tree.map(lambda values: jnp.zeros(size).at[rows].set(values), logs)

    def counting(values):  # a sample that does not count may be anything, even NaN
        return jnp.where((weights > 0).reshape(-1, *(1,) * (values.ndim - 1)), values, 0)

    grad = together(jax.tree.map(counting, grad))
    own = jax.tree.map(lambda leaf, values: jnp.zeros_like(leaf).at[rows].set(values), theta.own, grad.own)
    return (logs, jnp.zeros(size).at[rows].set(weights)), grad._replace(own=own)


def _of_all(of_some, theta, of, *, keep, choose, at_once):
    """Samples that share a norm's statistics, or their weights: ((statistics, logs, counts), gradient)."""
    batch = theta.own, *of
    size = len(of[0])

    def weighted(own, *of, choose=None):
        given = theta._replace(own=own)
        loss, pull_back, (stats, logs, cost) = jax.vjp(lambda given: of_some(given, *of), given, has_aux=True)
        counts = jnp.ones(len(loss))
        if choose is not None:
            rows, weights = choose(cost)
            counts = jnp.zeros(len(loss)).at[rows].set(weights)
        return (stats, logs, counts), pull_back(counts / keep)[0]

    if at_once == size:
        return weighted(*batch, choose=choose)
    if choose is not None or size % at_once:
        raise InputError(
            f"`microbatch` must divide the {size} samples of a device, and be all of them where DHS masks samples;"
            f" got {at_once}."
        )
    pieces = jax.tree.map(lambda leaf: leaf.reshape(size // at_once, at_once, *leaf.shape[1:]), batch)
    (stats, logs, counts), grad = jax.lax.map(lambda piece: weighted(*piece), pieces)
    logs, counts = jax.tree.map(jnp.ravel, (logs, counts))
    shared = jax.tree.map(lambda g: g.sum(0), grad.shared)
    own = jax.tree.map(lambda g: g.reshape(-1, *g.shape[2:]), grad.own)
    return (jax.tree.map(lambda leaf: leaf.mean(0), stats), logs, counts), Weights(shared, own)


def _map(f, at_once, *batch):
    """`vmap`, with so many samples at a time."""
    if at_once >= len(jax.tree.leaves(batch)[0]):
        return jax.vmap(f)(*batch)
    return jax.lax.map(lambda one: f(*one), batch, batch_size=at_once if at_once > 1 else None)


def _choose(cost, *, keep, over, device_axis):
    """DHS: which of the samples here count: some rows, and of each whether it counts."""
    size = len(cost)
    if device_axis is None or over == "device":
        here = keep // (jax.lax.axis_size(device_axis) if device_axis else 1)
        return select_lowest(cost, here), jnp.ones(here)
    everywhere = jax.lax.all_gather(cost, device_axis, tiled=True)
    best = jnp.zeros(len(everywhere)).at[select_lowest(everywhere, keep)].set(1.0)
    mine = jax.lax.dynamic_slice_in_dim(best, jax.lax.axis_index(device_axis) * size, size)
    weights, rows = jax.lax.top_k(mine, min(keep, size))
    return rows, weights


def check_plan(plan: Plan, rank: str) -> None:
    """Raise `InputError` for an unknown rank or scope."""
    for name, value, known in (
        ("rank", rank, RANKS),
        ("norm_over", plan.norm_over, SCOPES),
        ("rank_over", plan.rank_over, SCOPES),
    ):
        if value not in known:
            raise InputError(f"`{name}` must be one of {', '.join(known)}, got {value!r}.")


def dhs_score(problem: Problem, x_hat: jax.Array, y: Measurement, *, rank: str = "absolute") -> jax.Array:
    """By what DHS ranks one sample: J = ||A x_hat - y||^2 (Sec. IV-C), or "relative" to ||y||^2.

    J grows with the brightness of the image, so that ranking by it prefers dark slices, whatever their lambda; the ratio
    does not.
    """
    check_plan(AS_IT_IS, rank)
    cost = problem.data_consistency(x_hat, y)
    if rank == "absolute":
        return cost
    return cost / jnp.maximum(problem.data_consistency(jnp.zeros_like(x_hat), y), jnp.finfo(cost.dtype).tiny)


def select_lowest(cost: jax.Array, keep: int) -> jax.Array:
    """The indices of the `keep` lowest of `(n,)` costs, the lowest first; of equal ones the first.

    NaN counts as lowest, so that a sample that fails is not left out in silence.
    """
    return jax.lax.top_k(jnp.where(jnp.isnan(cost), jnp.inf, -cost), keep)[1]


def separable(model: Model, batch_stats: Tree) -> bool:
    """Whether samples have gradients of their own, so that DHS can pull back those that count and no others.

    Not with a norm that couples the samples (and so keeps running statistics): every sample takes part in the gradient of
    every other. Nor without a hypernetwork, where all share one set of weights. Then DHS masks a full backward pass.
    """
    return model.hyper is not None and not jax.tree.leaves(batch_stats)


def _rows(tree: Tree, indices: jax.Array) -> Tree:
    """Some rows of every leaf. On a CPU as slices: a gather of whole images is slow there, and nothing fuses with it."""

    def by_slices(leaf, indices):
        return jnp.stack([jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False) for i in indices])

    def by_gather(leaf, indices):
        return leaf[indices]

    return jax.tree.map(lambda leaf: jax.lax.platform_dependent(leaf, indices, cpu=by_slices, default=by_gather), tree)
