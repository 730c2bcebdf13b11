"""What training minimises: the lambda-weighted sum of loss terms (Eqs. 5, 6, 8, 9, 10), its value and its gradient.

    L(lambda) = sum_k c_k(lambda) alpha_k L_k,   c = `hyperparams.coefficients(lambda)`

A term sees the `Outcome` of one sample and returns one number. Which terms, in which order, and their scales alpha are the
caller's choice; the order is that of Eq. 9 for two terms, (lambda = 0, lambda = 1).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax import losses, metrics
from hyperrecon_jax.errors import InputError
from hyperrecon_jax.hyperparams import coefficients
from hyperrecon_jax.model import Model, generate_weights, train_main, without_norms
from hyperrecon_jax.problem import Measurement, Problem
from hyperrecon_jax.sample import Sample

Tree = Any
SUPERVISED = ("mae", "mse", "ssim", "ssim_zero_padded", "soft_dice")  # the terms that compare with the truth
TERMS = (*SUPERVISED, "data_consistency", "total_variation", "wavelet_l1", "weight_l1")
RANKS = ("absolute", "relative")


class Outcome(NamedTuple):
    """One sample after the forward pass: all that a loss term may look at."""

    x_hat: jax.Array  # (h, w, 1); of a segmentation network (h, w, classes), before the softmax
    sample: Sample  # the truth, for supervised terms alone
    y: Measurement
    theta: Tree  # the main network's weights

    @property
    def image(self) -> jax.Array:
        """The true image, `(h, w, 1)`."""
        return self.sample.image

    @property
    def labels(self) -> jax.Array:
        """The true labels, integers `(h, w)`; raises `InputError` if there are none."""
        if self.sample.label is None:
            raise InputError("The samples must have labels, got images alone.")
        return self.sample.label.astype(jnp.int32)


Term = Callable[[Outcome], jax.Array]


class Objective(NamedTuple):
    """Loss terms by name and their scales alpha (Sec. IV-D), in the order of the coefficients."""

    terms: dict[str, Term]
    scales: tuple[float, ...]


def make_terms(names: Sequence[str], problem: Problem) -> dict[str, Term]:
    """Loss terms by name.

    Args:
        names: of "mae", "mse", "ssim" (1 - SSIM, scikit-image's), "ssim_zero_padded" (1 - SSIM, the authors'),
            "soft_dice" (of a segmentation network), "data_consistency", "total_variation", "wavelet_l1", "weight_l1"
            (kernels and biases, no norm's scale or bias).
        problem: for J.

    Raises:
        InputError: for an unknown name.
    """
    known: dict[str, Term] = {
        "mae": lambda o: losses.mae(o.x_hat, o.image),
        "mse": lambda o: losses.mse(o.x_hat, o.image),
        "ssim": lambda o: losses.ssim_loss(o.x_hat, o.image),
        "ssim_zero_padded": lambda o: losses.ssim_loss(o.x_hat, o.image, zero_padded=True),
        "soft_dice": lambda o: losses.soft_dice(o.x_hat, o.labels),
        "data_consistency": lambda o: problem.data_consistency(o.x_hat, o.y),
        "total_variation": lambda o: losses.total_variation(o.x_hat),
        "wavelet_l1": lambda o: losses.wavelet_l1(o.x_hat),
        "weight_l1": lambda o: losses.weight_l1(without_norms(o.theta)),
    }
    for name in names:
        if name not in TERMS:
            raise InputError(f"`loss.terms` must be among {', '.join(TERMS)}; got {name!r}.")
    return {name: known[name] for name in names}


def term_values(objective: Objective, outcome: Outcome) -> jax.Array:
    """The terms L_k of one sample, without their scales, `(K,)`."""
    return jnp.stack([term(outcome) for term in objective.terms.values()])


def weighted_loss(objective: Objective, lam: jax.Array, values: jax.Array) -> jax.Array:
    """L(lambda) of one sample (Eqs. 9, 10) from its `term_values`; `lam` of shape `(K-1,)`."""
    return jnp.sum(coefficients(lam) * jnp.asarray(objective.scales) * values)


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
    device_axis: str | None = None,
) -> tuple[tuple[Tree, dict[str, jax.Array], jax.Array], Tree]:
    """Mean loss over a batch, each sample with its own lambda and so its own weights, and the gradient (Algorithm 1).

    Of the batch, the `keep` samples with the lowest J = ||A x_hat - y||^2 count (DHS); all of them, if `keep` is the size
    of the batch (UHS). The paper sums over those that count; a mean makes the loss comparable over `keep`, and to Adam it
    is the same. Where samples are `separable` only those that count are pulled back, at (1 + 2 b/B) forward costs instead
    of 3; the gradient is that of the masked batch.

    Args:
        model, objective, problem: static.
        params, batch_stats: the variables.
        lam: `(n, K-1)`.
        samples: n of them.
        y: their measurements, `(n, ...)`.
        keep: b, how many of the n count; None: all.
        rank: by what DHS ranks, of `RANKS`: "absolute" (J) or "relative" (J / ||y||^2).
        device_axis: the mapped axis over which a larger batch is spread, if it is. Value, gradient and statistics are those
            of the whole batch, on every device; `keep` and the ranking are those of the n samples here.

    Returns:
        `(new batch_stats, logs, counted)` and the gradient in `params`; logs are means over the samples that count: "loss",
        "psnr", where the network makes an image, and each term, unscaled; counted are the indices, `(keep,)`, of these.
    """
    size = len(lam)
    keep = size if keep is None else keep
    per_sample = None if model.hyper is None else 0  # a network without lambda has one theta for all

    def of_sample(theta, lam, sample, y, *, batch_axes):
        x_hat, stats = train_main(model, theta, batch_stats, problem.lift(y), batch_axes=batch_axes)
        values = term_values(objective, Outcome(x_hat, sample, y, theta))
        loss = weighted_loss(objective, lam, values)
        logs = {"loss": loss}
        if x_hat.shape == sample.image.shape:
            logs["psnr"] = jnp.minimum(metrics.psnr(x_hat, sample.image), 100.0)  # a black image can be matched exactly
        cost = misfit(problem, x_hat, y, rank=rank) if keep < size else jnp.zeros(())
        return loss, (stats, logs | dict(zip(objective.terms, values, strict=True)), cost)

    def generate(params):
        return jax.vmap(partial(generate_weights, model, params), out_axes=per_sample)(lam)

    # Outside of the mapped pull-backs, so that they hold theta but not a copy of the hypernetwork for every sample.
    theta, pull_back_generation = jax.vjp(generate, params)

    if keep < size and separable(model, batch_stats):

        def differentiated(theta, lam, sample, y):
            return jax.vjp(lambda theta: of_sample(theta, lam, sample, y, batch_axes=()), theta, has_aux=True)

        _, pull_backs, (stats, logs, cost) = jax.vmap(differentiated, out_axes=(0, 0, (None, 0, 0)))(theta, lam, samples, y)
        counted = lowest(cost, keep)
        (grad_counted,) = jax.vmap(lambda pull_back: pull_back(jnp.ones(())))(_rows(pull_backs, counted))
        grad_theta = jax.tree.map(lambda leaf, rows: jnp.zeros_like(leaf).at[counted].set(rows), theta, grad_counted)
    else:
        axes = ("sample",) if device_axis is None else ("sample", device_axis)

        def of_batch(theta):
            of_one = partial(of_sample, batch_axes=axes)
            return jax.vmap(of_one, (per_sample, 0, 0, 0), (0, (None, 0, 0)), axis_name="sample")(theta, lam, samples, y)

        loss, pull_back, (stats, logs, cost) = jax.vjp(of_batch, theta, has_aux=True)
        counted = lowest(cost, keep) if keep < size else jnp.arange(size)
        (grad_theta,) = pull_back(jnp.zeros_like(loss).at[counted].set(1.0))

    (grad,) = pull_back_generation(grad_theta)
    logs, grad = jax.tree.map(lambda total: total / keep, ({name: jnp.sum(v[counted]) for name, v in logs.items()}, grad))
    if device_axis is not None:
        logs, grad = jax.lax.pmean((logs, grad), device_axis)
    return (stats, logs, counted), grad


def misfit(problem: Problem, x_hat: jax.Array, y: Measurement, *, rank: str = "absolute") -> jax.Array:
    """By what DHS ranks one sample: J = ||A x_hat - y||^2 (Sec. IV-C), or "relative" to ||y||^2.

    J grows with the brightness of the image, so that ranking by it prefers dark slices, whatever their lambda; the ratio
    does not.
    """
    cost = problem.data_consistency(x_hat, y)
    if rank not in RANKS:
        raise InputError(f"`rank` must be one of {', '.join(RANKS)}, got {rank!r}.")
    if rank == "absolute":
        return cost
    return cost / jnp.maximum(problem.data_consistency(jnp.zeros_like(x_hat), y), jnp.finfo(cost.dtype).tiny)


def lowest(cost: jax.Array, keep: int) -> jax.Array:
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
