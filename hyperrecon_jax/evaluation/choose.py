"""Choosing lambda by a number: the best one by gradient, through the hypernetwork.

A reconstruction x_hat is judged by `score(x_hat, target) -> number`, the higher the better. With the truth that is a
metric, and the target the true image:

    value = mean_value(model, variables, metrics.psnr, net_input, images)       # lambda -> the mean over n images
    lam, psnr = best_lambda(value, hyperparams.grid(11, 1))

Without the truth, some of the measured k-space is kept from the network, and the lambda is best that predicts it best:

    net_input, held = jax.vmap(partial(withhold, fraction=0.1))(keys, y)  # the input; what the network must predict
    lams, values = for_each(model, variables, prediction, net_input, held, hyperparams.grid(11, 1))

All are pure; `jit` them. Targets are trees of arrays with a leading axis of n.
"""

import numbers
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.models.model import Model, apply_main, network_at, reconstruct
from hyperrecon_jax.physics import operators
from hyperrecon_jax.physics.operators import Operator
from hyperrecon_jax.physics.problem import Measurement
from hyperrecon_jax.physics.sample import Array, Coils
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
Score = Callable[[jax.Array, Any], jax.Array]  # x_hat (h, w, 1), target -> a number, the higher the better
AT_ONCE = 4  # images whose activations are kept at a time


class Held(NamedTuple):
    """The measured k-space that a network did not get."""

    mask: Array  # (h, w), 1 where k-space is withheld
    y: Measurement  # as it was measured, zero but there


def best_lambda(
    value: Callable[[jax.Array], jax.Array], starts: jax.Array | np.ndarray, *, steps: int = 40
) -> tuple[jax.Array, jax.Array]:
    """The lambda in [0, 1]^(K-1) with the largest value that gradient ascent finds from the best of some starts.

    A step goes along the gradient, is clipped to the cube, and counts only if the value rises; the next one is then longer
    and otherwise shorter. So the result is never worse than the best start. It is a local maximum, and where weights come
    from an ensemble, whose gradient is 0, the best start itself. Pure: `jit` it.

    Args:
        value: `(K-1,)` -> a number, differentiable, such as the PSNR of `reconstruct(model, variables, lam, y)`.
        starts: `(s, K-1)`, s of at least 1, such as `hyperparams.grid(11, K - 1)`.
        steps: each costs a value and a gradient.

    Returns:
        lambda `(K-1,)` and its value.

    Raises:
        InputError: if `starts` has another shape.
    """
    if starts.ndim != 2 or not len(starts):
        raise InputError(f"`starts` must have shape (s, K-1) with s of at least 1, got {starts.shape}.")
    first = jax.lax.map(value, starts)
    lam = jnp.asarray(starts)[jnp.argmax(jnp.where(jnp.isnan(first), -jnp.inf, first))]
    climb = jax.value_and_grad(value)

    def step(_, state):
        lam, best, gradient, length = state
        size = jnp.linalg.norm(gradient)
        there = jnp.clip(lam + length * gradient / jnp.where(size > 0, size, 1.0), 0.0, 1.0)
        new, slope = climb(there)
        better = new > best
        length = jnp.where(better, jnp.minimum(2 * length, 0.5), length / 3)
        kept = (jnp.where(better, a, b) for a, b in ((there, lam), (new, best), (slope, gradient)))
        return *kept, length

    best, gradient = climb(lam)
    lam, best, _, _ = jax.lax.fori_loop(0, steps, step, (lam, best, gradient, jnp.float32(0.05)))
    return lam, best


def mean_value(
    model: Model, variables: Tree, score: Score, net_input: jax.Array, targets: Tree
) -> Callable[[jax.Array], jax.Array]:
    """A score's mean over images as a function of lambda, for `best_lambda`: one lambda for all of them.

    The weights are generated once for each lambda. `AT_ONCE` images at a time go through the network, forward and, once
    more, backward: memory does not grow with n.

    Args:
        model, variables: the networks.
        score: of one image.
        net_input: network inputs `(n, h, w, 2)`.
        targets: n of what the score compares with.

    Returns:
        `(K-1,)` -> a number.

    Raises:
        InputError: if there is no image, or targets are more or fewer than images.
    """
    _check_number(net_input, targets)

    def value(lam):
        network = network_at(model, variables, lam)

        @jax.checkpoint
        def one(given):
            net_input, target = given
            return score(apply_main(model, *network, net_input), target)

        return jnp.mean(jax.lax.map(one, (net_input, targets), batch_size=AT_ONCE))

    return value


def for_each(
    model: Model,
    variables: Tree,
    score: Score,
    net_input: jax.Array,
    targets: Tree,
    starts: jax.Array | np.ndarray,
    *,
    steps: int = 20,
) -> tuple[jax.Array, jax.Array]:
    """`best_lambda` of every image for itself, `AT_ONCE` at a time.

    Args:
        model, variables, score, net_input, targets: those of `mean_value`.
        starts, steps: those of `best_lambda`.

    Returns:
        lambdas `(n, K-1)` and their scores `(n,)`.

    Raises:
        InputError: as `mean_value` and `best_lambda` do.
    """
    _check_number(net_input, targets)

    def one(given):
        net_input, target = given
        return best_lambda(lambda lam: score(reconstruct(model, variables, lam, net_input), target), starts, steps=steps)

    return jax.lax.map(one, (net_input, targets), batch_size=AT_ONCE)


def partition(key: jax.Array, mask: jax.Array, *, fraction: float) -> tuple[jax.Array, jax.Array]:
    """Split the sampled frequencies at random into those that are kept and those that are withheld.

    The fully sampled centre, the largest disc around the zero frequency without a gap, is always kept: it carries nearly
    all of the energy, and no network was trained without it. All others are withheld as likely, also where the mirror image
    of a frequency, which of a real image has the same k-space but for its noise, is kept: withholding both takes more from
    the network than it was trained to miss, and chose worse (docs/choosing.md).

    Args:
        key: of the draw.
        mask: `(h, w)`, 1 where k-space is sampled, zero frequency in the corner.
        fraction: of the samples outside of the centre that are withheld, rounded; one at least, if there is any.

    Returns:
        kept and held, `(h, w)` float32 each, whose sum is the mask.

    Raises:
        InputError: if `mask` is not two-dimensional or `fraction` is not a number between 0 and 1.
    """
    if jnp.ndim(mask) != 2:
        raise InputError(f"`mask` must have shape (h, w), got {jnp.shape(mask)}.")
    if not (isinstance(fraction, numbers.Real) and 0 < fraction < 1):
        raise InputError(f"`fraction` must be above 0 and below 1, got {fraction!r}.")
    sampled = jnp.asarray(mask) > 0
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size) for size in sampled.shape), indexing="ij"))
    free = sampled & (radius >= jnp.min(jnp.where(sampled, jnp.inf, radius)))
    drawn = jnp.where(free, jax.random.uniform(key, sampled.shape), jnp.inf)
    place = jnp.argsort(jnp.argsort(drawn.ravel())).reshape(drawn.shape)  # in the order of the draw
    held = free & (place < jnp.maximum(jnp.round(fraction * free.sum()), 1))
    return (sampled & ~held).astype(jnp.float32), held.astype(jnp.float32)


def withhold(key: jax.Array, y: Measurement, *, fraction: float) -> tuple[jax.Array, Held]:
    """What a network gets of a part of ONE measurement, and the rest of it.

    Where k-space is zero (in all coils) nothing was measured.

    Args:
        key: of the draw.
        y: k-space `(h, w, 1)`, or `Coils`.
        fraction: that of `partition`.

    Returns:
        The network's input `(h, w, 2)`, in which the rest has no part, and the rest.

    Raises:
        InputError: if `y` is no k-space, or as `partition` does.
    """
    kspace, operator = _of(y)
    if kspace.ndim != 3 or not jnp.iscomplexobj(kspace):
        raise InputError(f"`y` must be complex k-space (h, w, 1) or Coils, got {kspace.dtype} of shape {kspace.shape}.")
    coils = isinstance(y, Coils)
    kept, held = partition(key, jnp.any(kspace != 0, axis=0 if coils else -1), fraction=fraction)
    rest = kspace * jnp.broadcast_to(held if coils else held[..., None], kspace.shape)
    return operator(kept).to_net_input(kspace), Held(held, y._replace(kspace=rest) if coils else rest)


def prediction(x_hat: jax.Array, held: Held) -> jax.Array:
    """The score of `withhold`: -log ||M_held A x_hat - y_held||^2, of a sum over the withheld k-space.

    The logarithm lets every image count alike in a mean, bright or dark; of one image it changes no choice.
    """
    kspace, operator = _of(held.y)
    j = operators.data_consistency(x_hat, kspace, measure=operator(held.mask).forward)
    return -jnp.log(jnp.maximum(j, jnp.finfo(j.dtype).tiny))  # nothing may be there to predict


def _of(y: Measurement) -> tuple[jax.Array, Callable[[jax.Array], Operator]]:
    """K-space, and the operator of a mask."""
    if isinstance(y, Coils):
        return jnp.asarray(y.kspace), partial(operators.sense, maps=y.maps)
    return jnp.asarray(y), operators.csmri


def _check_number(net_input: jax.Array, targets: Tree) -> None:
    sizes = {len(leaf) for leaf in jax.tree.leaves(targets)}
    if not len(net_input) or sizes != {len(net_input)}:
        raise InputError(f"`targets` must be as many as the images, 1 or more, got {sorted(sizes)} of {len(net_input)}.")
