"""Choosing lambda by gradient ascent on a score, through the hypernetwork.

A score is a function `score(x_hat, target) -> number`; higher is better. With a reference image, the score is a metric and
the target is the reference image:

    value = mean_value(model, variables, metrics.psnr, net_input, images)       # lambda -> the mean over n images
    lam, psnr = best_lambda(value, hyperparams.grid(11, 1))

Without a reference image, part of the measured k-space is withheld from the network. The best lambda is the one whose
reconstruction predicts that part best:

    net_input, held = jax.vmap(partial(withhold, fraction=0.1))(keys, y)  # the input; the k-space to predict
    lams, values = for_each(model, variables, prediction, net_input, held, hyperparams.grid(11, 1))

All functions are pure; `jit` them. Targets are trees of arrays with a leading axis of n.
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
from hyperrecon_jax.physics.net_input import NetInput, physics_input
from hyperrecon_jax.physics.operators import Operator
from hyperrecon_jax.physics.problem import Measurement
from hyperrecon_jax.physics.sample import Array, Coils
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
Score = Callable[[jax.Array, Any], jax.Array]  # x_hat (h, w, 1), target -> a number; higher is better
FIRST_LENGTH = 0.05  # of a step of gradient ascent
IMAGES_AT_A_TIME = 4  # images whose activations are in memory at a time


class Held(NamedTuple):
    """The measured k-space that is withheld from a network."""

    mask: Array  # (h, w), 1 where k-space is withheld
    y: Measurement  # as measured, zero outside the mask


def best_lambda(
    value: Callable[[jax.Array], jax.Array], starts: jax.Array | np.ndarray, *, steps: int = 40
) -> tuple[jax.Array, jax.Array]:
    """Maximise a function of lambda over [0, 1]^(K-1) by gradient ascent from the best of some starts.

    Each step goes along the gradient and is clipped to the cube. It is accepted only if the value rises; then the next
    step is longer, otherwise shorter. So the result is never worse than the best start. It is a local maximum. If the
    weights come from an ensemble, the gradient is 0 and the result is the best start. Pure: `jit` it.

    Args:
        value: `(K-1,)` -> a number, differentiable, such as the PSNR of `reconstruct(model, variables, lam, y)`.
        starts: `(s, K-1)`, s of at least 1, such as `hyperparams.grid(11, K - 1)`.
        steps: how many; each computes one value and one gradient.

    Returns:
        lambda `(K-1,)` and its value.

    Raises:
        InputError: if `starts` has another shape.
    """
    if starts.ndim != 2 or not len(starts):
        raise InputError(f"`starts` must have shape (s, K-1) with s of at least 1, got {starts.shape}.")
    start_values = jax.lax.map(value, starts)
    ascent = start_ascent(best_start(starts, start_values))
    ascent = jax.lax.fori_loop(0, steps + 1, lambda _, ascent: ascend(value, ascent), ascent)
    return ascent.lam, ascent.value


class Ascent(NamedTuple):
    """Where a gradient ascent is."""

    length: jax.Array  # of the next step
    lam: jax.Array  # (K-1,)
    value: jax.Array  # at `lam`; -inf before the first step
    gradient: jax.Array  # (K-1,), at `lam`


def best_start(starts: jax.Array | np.ndarray, values: jax.Array | np.ndarray) -> jax.Array:
    """The start with the largest value that is a number, `(s, K-1), (s,) -> (K-1,)`."""
    return jnp.asarray(starts)[jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values))]


def start_ascent(lam: jax.Array) -> Ascent:
    """An ascent that starts at a lambda, whose value and gradient the first step computes."""
    return Ascent(jnp.float32(FIRST_LENGTH / 2), lam, jnp.float32(-jnp.inf), jnp.zeros_like(lam))


def ascend(value: Callable[[jax.Array], jax.Array], ascent: Ascent) -> Ascent:
    """One step of `best_lambda`; the first one stays where it is."""
    length, lam, best, gradient = ascent
    norm = jnp.linalg.norm(gradient)
    trial_lam = jnp.clip(lam + length * gradient / jnp.where(norm > 0, norm, 1.0), 0.0, 1.0)
    trial = (trial_lam, *jax.value_and_grad(value)(trial_lam))
    is_better = trial[1] > best
    length = jnp.where(is_better, jnp.minimum(2 * length, 0.5), length / 3)
    return Ascent(length, *jax.tree.map(partial(jnp.where, is_better), trial, (lam, best, gradient)))


def mean_value(
    model: Model, variables: Tree, score: Score, net_input: NetInput, targets: Tree
) -> Callable[[jax.Array], jax.Array]:
    """The mean score of n images as a function of one lambda for all of them; `best_lambda` maximises it.

    The weights are generated once for each lambda. At most `IMAGES_AT_A_TIME` images go through the network together. The
    backward pass computes their activations again, so memory does not grow with n.

    Args:
        model: the networks.
        variables: their numbers.
        score: the score of one image.
        net_input: network inputs, with a leading axis of n images.
        targets: n targets of the score.

    Returns:
        `(K-1,)` -> a number.

    Raises:
        InputError: if there is no image, or the number of targets differs from that of images.
    """
    _check_target_count(net_input, targets)

    def value(lam):
        network = network_at(model, variables, lam)

        @jax.checkpoint
        def score_image(input_and_target):
            net_input, target = input_and_target
            return score(apply_main(model, *network, net_input), target)

        return jnp.mean(jax.lax.map(score_image, (net_input, targets), batch_size=IMAGES_AT_A_TIME))

    return value


def for_each(
    model: Model,
    variables: Tree,
    score: Score,
    net_input: NetInput,
    targets: Tree,
    starts: jax.Array | np.ndarray,
    *,
    steps: int = 20,
) -> tuple[jax.Array, jax.Array]:
    """`best_lambda` separately for each of n images, at most `IMAGES_AT_A_TIME` together.

    Args:
        model: as in `mean_value`.
        variables: as in `mean_value`.
        score: as in `mean_value`.
        net_input: as in `mean_value`.
        targets: as in `mean_value`.
        starts: as in `best_lambda`.
        steps: as in `best_lambda`.

    Returns:
        lambdas `(n, K-1)` and their scores `(n,)`.

    Raises:
        InputError: as in `mean_value` and `best_lambda`.
    """
    _check_target_count(net_input, targets)

    def maximize_image(input_and_target):
        net_input, target = input_and_target
        return best_lambda(lambda lam: score(reconstruct(model, variables, lam, net_input), target), starts, steps=steps)

    return jax.lax.map(maximize_image, (net_input, targets), batch_size=IMAGES_AT_A_TIME)


def partition(key: jax.Array, mask: jax.Array, *, fraction: float) -> tuple[jax.Array, jax.Array]:
    """Split the sampled frequencies at random into a part for the network and a part that is withheld.

    The network always gets the fully sampled centre, the largest disc around the zero frequency without a gap: it carries
    nearly all of the energy, and no network was trained without it. All other frequencies have the same probability. A
    frequency and its mirror image hold the same information if the image is real, but they are drawn separately.
    Withholding both removes more data than in training, and gave worse choices (docs/choosing.md).

    Args:
        key: random key of the draw.
        mask: `(h, w)`, 1 where k-space is sampled, zero frequency in the corner.
        fraction: the part of the samples outside the centre to withhold, rounded; at least one sample, if there is any.

    Returns:
        The mask for the network and the mask that is withheld, `(h, w)` float32 each. Their sum is `mask`.

    Raises:
        InputError: if `mask` is not two-dimensional or `fraction` is not a number between 0 and 1.
    """
    if jnp.ndim(mask) != 2:
        raise InputError(f"`mask` must have shape (h, w), got {jnp.shape(mask)}.")
    if not (isinstance(fraction, numbers.Real) and 0 < fraction < 1):
        raise InputError(f"`fraction` must be above 0 and below 1, got {fraction!r}.")
    sampled = jnp.asarray(mask) > 0
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size) for size in sampled.shape), indexing="ij"))
    outside = sampled & (radius >= jnp.min(jnp.where(sampled, jnp.inf, radius)))  # of the fully sampled centre
    draws = jnp.where(outside, jax.random.uniform(key, sampled.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(draws.ravel())).reshape(draws.shape)
    withheld = outside & (rank < jnp.maximum(jnp.round(fraction * outside.sum()), 1))
    return (sampled & ~withheld).astype(jnp.float32), withheld.astype(jnp.float32)


def withhold(key: jax.Array, y: Measurement, *, fraction: float, uses_physics: bool = False) -> tuple[NetInput, Held]:
    """Withhold a part of ONE measurement from the network.

    A frequency where k-space is zero (in all coils) counts as not measured.

    Args:
        key: random key of the draw.
        y: k-space `(h, w, 1)`, or `Coils`.
        fraction: as in `partition`.
        uses_physics: whether the network receives a `PhysicsInput`; otherwise the zero-filled image `(h, w, 2)`.

    Returns:
        The network's input, made without the withheld k-space, and the withheld k-space.

    Raises:
        InputError: if `y` is no k-space, and as in `partition`.
    """
    kspace, operator = _kspace_and_operator(y)
    if kspace.ndim != 3 or not jnp.iscomplexobj(kspace):
        raise InputError(f"`y` must be complex k-space (h, w, 1) or Coils, got {kspace.dtype} of shape {kspace.shape}.")
    has_coils = isinstance(y, Coils)
    mask, held_mask = partition(key, jnp.any(kspace != 0, axis=0 if has_coils else -1), fraction=fraction)
    held_kspace = kspace * jnp.broadcast_to(held_mask if has_coils else held_mask[..., None], kspace.shape)
    held = Held(held_mask, y._replace(kspace=held_kspace) if has_coils else held_kspace)
    if not uses_physics:
        return operator(mask).to_net_input(kspace), held
    kept_kspace = kspace * jnp.broadcast_to(mask if has_coils else mask[..., None], kspace.shape)
    return physics_input(operator(mask), kept_kspace), held


def prediction(x_hat: jax.Array, held: Held) -> jax.Array:
    """The score for `withhold`: -log ||M_held A x_hat - y_held||^2, summed over the withheld k-space.

    The logarithm gives bright and dark images the same weight in a mean. It does not change the choice for one image.
    """
    kspace, operator = _kspace_and_operator(held.y)
    j = operators.data_consistency(x_hat, kspace, measure=operator(held.mask).forward)
    return -jnp.log(jnp.maximum(j, jnp.finfo(j.dtype).tiny))  # finite, if nothing is withheld


def _kspace_and_operator(y: Measurement) -> tuple[jax.Array, Callable[[jax.Array], Operator]]:
    """The k-space of a measurement, and the function that makes its operator from a mask."""
    if isinstance(y, Coils):
        return jnp.asarray(y.kspace), partial(operators.sense, maps=y.maps)
    return jnp.asarray(y), operators.csmri


def _check_target_count(net_input: NetInput, targets: Tree) -> None:
    sizes = {len(leaf) for leaf in jax.tree.leaves(targets)}
    count = len(jax.tree.leaves(net_input)[0])
    if not count or sizes != {count}:
        raise InputError(f"`targets` must be as many as the images, 1 or more, got {sorted(sizes)} of {count}.")
