"""A `Problem`: how a sample is measured, the network input for a measurement, and the distance of a result from it.

A problem is an operator with its noise. With coils, every sample has its own operator. A measurement `y` is an array or,
for several coils, a `Coils`. Every function takes ONE sample; `jax.vmap` them over more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hyperrecon_jax.physics import operators
from hyperrecon_jax.physics.net_input import NetInput, PhysicsInput, physics_input
from hyperrecon_jax.physics.operators import Operator
from hyperrecon_jax.physics.sample import Coils, Sample
from hyperrecon_jax.runtime.errors import InputError

Measurement = Any  # an array, or `Coils`
Noise = Callable[[jax.Array, jax.Array], jax.Array]  # key, A x -> y


class Problem(NamedTuple):
    """A forward model with its noise.

    A problem with `acquisitions` is for training a network for many acquisitions. Its `observe` takes a third argument, the
    condition of the sample (`acquisition.encode`).
    """

    observe: Callable[..., Measurement]  # key, sample -> y
    to_net_input: Callable[[Measurement], NetInput]  # y -> network input, by default (h, w, 2)
    data_consistency: Callable[[jax.Array, Measurement], jax.Array]  # x_hat, y -> J = ||A x_hat - y||^2
    to_physics_input: Callable[[Measurement], PhysicsInput] | None = None  # y -> input of an unrolled network
    acquisitions: Any = None  # the `acquisition.AcquisitionRange` of such a problem

    @property
    def lift(self) -> Callable[[Measurement], NetInput]:
        """Deprecated alias of `to_net_input`."""
        return self.to_net_input


def simulated(operator: Operator, noise: Noise = lambda key, y: y) -> Problem:
    """Measurements simulated from the sample's image by an operator and noise (retrospective, Sec. V-F)."""
    return Problem(
        lambda key, sample: noise(key, operator.forward(sample.image)),
        operator.to_net_input,
        partial(operators.data_consistency, measure=operator.forward),
        partial(physics_input, operator),
    )


def net_input_shapes(problem: Problem, sample: Sample) -> Any:
    """The shapes of the network input of one sample, or of the shapes of one; nothing is computed."""
    key = jax.random.key(0)
    return jax.eval_shape(lambda key, sample: problem.to_net_input(problem.observe(key, sample)), key, sample)


def with_physics_input(problem: Problem) -> Problem:
    """The same problem for an unrolled network: `to_net_input` gives a `PhysicsInput`.

    Raises:
        InputError: if the problem cannot give one.
    """
    if problem.to_physics_input is None:
        raise InputError("`problem` must have `to_physics_input` for an unrolled network, got None.")
    return problem._replace(to_net_input=problem.to_physics_input)


def measured(mask: jax.Array, *, sigma: float = 0.0) -> Problem:
    """Measurements that are the part of the coils' k-space that the mask keeps.

    Only the under-sampling is simulated (and additional noise, if `sigma` is not 0). The measurement contains the noise of
    the coils, and all effects that the operator does not model. Where a sample's k-space is zero in all coils, the scanner
    measured nothing, and J ignores these frequencies.

    Args:
        mask: `(h, w)`, 1 where k-space is kept, zero frequency in the corner.
        sigma: standard deviation of the additional complex noise, in units of image intensity.

    Raises:
        InputError: while tracing, for a sample without coils.
    """

    def make_operator(y: Coils) -> Operator:
        return operators.infer_operator(y.kspace, y.maps)

    def observe(key: jax.Array, sample: Sample) -> Coils:
        if sample.coils is None:
            raise InputError("Samples must have the k-space of coils to be measured ones; their source gives images alone.")
        kspace, maps = sample.coils
        sampled = mask * jnp.any(kspace != 0, axis=0)
        noisy = operators.complex_noise(key, (sampled[None] * kspace)[..., None], sampled, sigma=sigma)
        return Coils(noisy[..., 0], maps)

    def data_consistency(x_hat: jax.Array, y: Coils) -> jax.Array:
        return operators.data_consistency(x_hat, y.kspace, measure=make_operator(y).forward)

    return Problem(
        observe,
        lambda y: make_operator(y).to_net_input(y.kspace),
        data_consistency,
        lambda y: physics_input(make_operator(y), y.kspace),
    )
