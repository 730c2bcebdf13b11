"""What is asked of a sample: how it is measured, what a network gets of the measurement, and how far a result is from it.

A `Problem` is an operator and its noise; with coils, every sample has an operator of its own. A measurement `y` is an array
or, of several coils, a `Coils`. Every function takes ONE sample; `jax.vmap` them over more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.physics import operators
from hyperrecon_jax.physics.operators import Operator
from hyperrecon_jax.physics.sample import Coils, Sample
from hyperrecon_jax.runtime.errors import InputError

Measurement = Any  # an array, or `Coils`
Noise = Callable[[jax.Array, jax.Array], jax.Array]  # key, A x -> y


class Problem(NamedTuple):
    """A forward model with its noise."""

    observe: Callable[[jax.Array, Sample], Measurement]  # key, sample -> y
    to_net_input: Callable[[Measurement], jax.Array]  # y -> two-channel network input (h, w, 2)
    data_consistency: Callable[[jax.Array, Measurement], jax.Array]  # x_hat, y -> J = ||A x_hat - y||^2

    @property
    def lift(self) -> Callable[[Measurement], jax.Array]:
        """The name that `to_net_input` had before; it stays for code that uses it."""
        return self.to_net_input


def simulated(operator: Operator, noise: Noise = lambda key, y: y) -> Problem:
    """The operator applied to the sample's image: retrospective measurement (Sec. V-F)."""
    return Problem(
        lambda key, sample: noise(key, operator.forward(sample.image)),
        operator.to_net_input,
        partial(operators.data_consistency, measure=operator.forward),
    )


def measured(mask: jax.Array, *, sigma: float = 0.0) -> Problem:
    """K-space that the coils of a scanner measured, of which the mask keeps a part.

    Nothing is simulated but the under-sampling (and noise, if `sigma` adds some): the measurement has the coils' own noise
    and all that the model leaves out. Where a sample's k-space is zero in all coils nothing was measured, and J does not
    look there.

    Args:
        mask: `(h, w)`, 1 where k-space is kept, zero frequency in the corner.
        sigma: standard deviation of the complex noise that is added, in units of image intensity.

    Raises:
        InputError: while tracing, for a sample without coils.
    """

    def of(y: Coils) -> Operator:
        return operators.sense(jnp.any(y.kspace != 0, axis=0), y.maps)

    def observe(key: jax.Array, sample: Sample) -> Coils:
        if sample.coils is None:
            raise InputError("Samples must have the k-space of coils to be measured ones; their source gives images alone.")
        kspace, maps = sample.coils
        there = mask * jnp.any(kspace != 0, axis=0)
        return Coils(operators.complex_noise(key, (there[None] * kspace)[..., None], there, sigma=sigma)[..., 0], maps)

    def data_consistency(x_hat: jax.Array, y: Coils) -> jax.Array:
        return operators.data_consistency(x_hat, y.kspace, measure=of(y).forward)

    return Problem(observe, lambda y: of(y).to_net_input(y.kspace), data_consistency)
