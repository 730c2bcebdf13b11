"""The objective that training minimises: a sum of loss terms, weighted by lambda (Eqs. 5, 6, 8, 9, 10).

    L(lambda) = sum_k c_k(lambda) alpha_k L_k,   c = `hyperparams.coefficients(lambda)`

A term is a function of the `Outcome` of one sample and returns one number. The caller chooses the terms, their order and
their scales alpha. With two terms, as in Eq. 9, lambda = 0 selects the first and lambda = 1 the second.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.losses import losses
from hyperrecon_jax.models.hyperparams import coefficients
from hyperrecon_jax.models.model import without_norms
from hyperrecon_jax.physics.problem import Measurement, Problem
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
# the terms that need the reference image or labels
SUPERVISED = ("mae", "mse", "ssim", "ssim_zero_padded", "edges", "texture", "soft_dice")
TERMS = (*SUPERVISED, "data_consistency", "total_variation", "wavelet_l1", "weight_l1")


class Outcome(NamedTuple):
    """One sample after the forward pass: the input of a loss term."""

    x_hat: jax.Array  # (h, w, 1); of a segmentation network (h, w, classes), before the softmax
    sample: Sample  # reference image and labels, for supervised terms only
    y: Measurement
    theta: Tree  # the main network's weights

    @property
    def image(self) -> jax.Array:
        """The reference image, `(h, w, 1)`."""
        return self.sample.image

    @property
    def labels(self) -> jax.Array:
        """The reference labels, integers `(h, w)`; raises `InputError` if there are none."""
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
        names: any of "mae", "mse", "ssim" (1 - SSIM as in scikit-image), "ssim_zero_padded" (1 - SSIM as in the authors'
            code), "edges" (`edge_l1`), "texture" (`texture_loss`), "soft_dice" (for a segmentation network),
            "data_consistency", "total_variation", "wavelet_l1", "weight_l1" (of kernels and biases, without norms).
        problem: defines J for "data_consistency".

    Raises:
        InputError: for an unknown name.
    """
    terms: dict[str, Term] = {
        "mae": lambda o: losses.mae(o.x_hat, o.image),
        "mse": lambda o: losses.mse(o.x_hat, o.image),
        "ssim": lambda o: losses.ssim_loss(o.x_hat, o.image),
        "ssim_zero_padded": lambda o: losses.ssim_loss(o.x_hat, o.image, zero_padded=True),
        "edges": lambda o: losses.edge_l1(o.x_hat, o.image),
        "texture": lambda o: losses.texture_loss(o.x_hat, o.image),
        "soft_dice": lambda o: losses.soft_dice(o.x_hat, o.labels),
        "data_consistency": lambda o: problem.data_consistency(o.x_hat, o.y),
        "total_variation": lambda o: losses.total_variation(o.x_hat),
        "wavelet_l1": lambda o: losses.wavelet_l1(o.x_hat),
        "weight_l1": lambda o: losses.weight_l1(without_norms(o.theta)),
    }
    for name in names:
        if name not in TERMS:
            raise InputError(f"`loss.terms` must be among {', '.join(TERMS)}; got {name!r}.")
    return {name: terms[name] for name in names}


def term_values(objective: Objective, outcome: Outcome) -> jax.Array:
    """The values L_k of the terms for one sample, without their scales, `(K,)`."""
    return jnp.stack([term(outcome) for term in objective.terms.values()])


def weighted_loss(objective: Objective, lam: jax.Array, values: jax.Array) -> jax.Array:
    """L(lambda) of one sample (Eqs. 9, 10) from its `term_values`.

    The first K-1 entries of `lam` count. Behind them may be the conditions of the model.
    """
    return jnp.sum(coefficients(lam[: len(objective.terms) - 1]) * jnp.asarray(objective.scales) * values)
