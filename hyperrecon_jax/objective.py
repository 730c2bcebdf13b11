"""What training minimises: the lambda-weighted sum of loss terms (Eqs. 5, 6, 8, 9, 10), its value and its gradient.

    L(lambda) = sum_k c_k(lambda) alpha_k L_k,   c = `hyperparams.coefficients(lambda)`

A term sees the `Outcome` of one sample and returns one number. Which terms, in which order, and their scales alpha are the
caller's choice; the order is that of Eq. 9 for two terms, (lambda = 0, lambda = 1).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax import losses, metrics
from hyperrecon_jax.errors import InputError
from hyperrecon_jax.hyperparams import coefficients
from hyperrecon_jax.model import Model, generate_weights, train_main, without_norms
from hyperrecon_jax.operators import Operator

Tree = Any


class Outcome(NamedTuple):
    """One sample after the forward pass: all that a loss term may look at."""

    x_hat: jax.Array  # (h, w, 1)
    x: jax.Array  # (h, w, 1), the truth, for supervised terms alone
    y: jax.Array  # the measurement
    theta: Tree  # the main network's weights


Term = Callable[[Outcome], jax.Array]


class Objective(NamedTuple):
    """Loss terms and their scales alpha (Sec. IV-D), in the order of the coefficients."""

    terms: tuple[Term, ...]
    scales: tuple[float, ...]


def make_terms(names: Sequence[str], operator: Operator) -> tuple[Term, ...]:
    """Loss terms by name.

    Args:
        names: of "mae", "mse", "ssim" (1 - SSIM, scikit-image's), "ssim_zero_padded" (1 - SSIM, the authors'),
            "data_consistency", "total_variation", "wavelet_l1", "weight_l1" (kernels and biases, no norm's scale or bias).
        operator: the forward model.

    Raises:
        InputError: for an unknown name.
    """
    known: dict[str, Term] = {
        "mae": lambda o: losses.mae(o.x_hat, o.x),
        "mse": lambda o: losses.mse(o.x_hat, o.x),
        "ssim": lambda o: losses.ssim_loss(o.x_hat, o.x),
        "ssim_zero_padded": lambda o: losses.ssim_loss(o.x_hat, o.x, zero_padded=True),
        "data_consistency": lambda o: losses.data_consistency(o.x_hat, o.y, measure=operator.measure),
        "total_variation": lambda o: losses.total_variation(o.x_hat),
        "wavelet_l1": lambda o: losses.wavelet_l1(o.x_hat),
        "weight_l1": lambda o: losses.weight_l1(without_norms(o.theta)),
    }
    for name in names:
        if name not in known:
            raise InputError(f"`loss.terms` must be among {', '.join(known)}; got {name!r}.")
    return tuple(known[name] for name in names)


def weighted_loss(objective: Objective, lam: jax.Array, outcome: Outcome) -> jax.Array:
    """L(lambda) of one sample (Eqs. 9, 10), `lam` of shape `(K-1,)`."""
    values = jnp.stack([term(outcome) for term in objective.terms])
    return jnp.sum(coefficients(lam) * jnp.asarray(objective.scales) * values)


def uhs_value_and_grad(
    model: Model,
    objective: Objective,
    operator: Operator,
    params: Tree,
    batch_stats: Tree,
    lam: jax.Array,
    x: jax.Array,
    y: jax.Array,
    *,
    device_axis: str | None = None,
) -> tuple[tuple[jax.Array, Tree, dict[str, jax.Array]], Tree]:
    """Mean loss over a batch, each sample with its own lambda and so its own weights, and the gradient (Algorithm 1, UHS).

    Args:
        model, objective, operator: static.
        params, batch_stats: the variables.
        lam: `(n, K-1)`.
        x: `(n, h, w, 1)`.
        y: `(n, ...)`, measurements.
        device_axis: the mapped axis over which the batch is spread, if it is. Value, gradient and statistics are those of
            the whole batch, on every device.

    Returns:
        `(loss, new batch_stats, logs)` and the gradient in `params`; logs are batch means: "loss", "psnr".
    """
    axes = ("sample",) if device_axis is None else ("sample", device_axis)

    def one(params, lam, x, y):
        theta = generate_weights(model, params, lam)
        x_hat, stats = train_main(model, theta, batch_stats, operator.lift(y), batch_axes=axes)
        psnr = jnp.minimum(metrics.psnr(x_hat, x), 100.0)  # a black image can be matched exactly
        return weighted_loss(objective, lam, Outcome(x_hat, x, y, theta)), stats, psnr

    def mean_loss(params):
        loss, stats, psnr = jax.vmap(one, (None, 0, 0, 0), (0, None, 0), axis_name="sample")(params, lam, x, y)
        return jnp.mean(loss), (stats, jnp.mean(psnr))

    (loss, (stats, psnr)), grad = jax.value_and_grad(mean_loss, has_aux=True)(params)
    if device_axis is not None:
        loss, psnr, grad = jax.lax.pmean((loss, psnr, grad), device_axis)
    return (loss, stats, {"loss": loss, "psnr": psnr}), grad
