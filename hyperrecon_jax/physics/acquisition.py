"""Acquisitions as a condition: one network for a range of accelerations and noise, and for several kinds of masks.

An acquisition is an acceleration, a standard deviation of the noise and a kind of mask. `encode` turns it into numbers in
[0, 1], the condition, which the hypernetwork receives beside the loss coefficients. In training every sample has an
acquisition of its own. The masks are drawn from a bank that is made once, because Poisson-disc masks take long to make.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.net_input import PhysicsInput, physics_input
from hyperrecon_jax.physics.problem import Problem
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runtime.errors import InputError

ACCELERATIONS = 9  # in the bank, evenly spaced in the logarithm
MASKS_PER_ACCELERATION = 4  # of each kind: they differ by their seed


class Acquisition(NamedTuple):
    """How k-space is sampled."""

    acceleration: float
    sigma: float  # standard deviation of the complex noise, in units of image intensity
    mask: str  # one of `masks.MASKS`


class AcquisitionRange(NamedTuple):
    """The acquisitions that a network is trained for."""

    accelerations: tuple[float, float]  # lowest and highest
    sigmas: tuple[float, float]
    masks: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of entries of a condition."""
        return 2 + len(self.masks)

    @property
    def middle(self) -> Acquisition:
        """The acquisition that stands for the range: the mean acceleration (geometric) and noise, and the first mask."""
        low, high = self.accelerations
        return Acquisition(math.sqrt(low * high), _sigma_at(self, 0.5), self.masks[0])


def encode(ranges: AcquisitionRange, acquisition: Acquisition) -> np.ndarray:
    """The condition of an acquisition, float32 `(size,)` in [0, 1]: log acceleration, root of sigma, kind of mask.

    Acquisitions outside of the range get the condition of the nearest one inside (`describe_excess` tells).

    Raises:
        InputError: if the kind of mask is not in the range.
    """
    if acquisition.mask not in ranges.masks:
        raise InputError(f"`mask` must be one of {', '.join(ranges.masks)}, got {acquisition.mask!r}.")
    low, high = ranges.accelerations
    numbers = [
        _fraction(math.log(acquisition.acceleration / low), math.log(high / low)),
        math.sqrt(max(_fraction(acquisition.sigma - ranges.sigmas[0], ranges.sigmas[1] - ranges.sigmas[0]), 0)),
    ]
    kinds = [float(name == acquisition.mask) for name in ranges.masks]
    return np.clip(np.array(numbers + kinds, np.float32), 0, 1)


def nearest_trained(ranges: AcquisitionRange, acquisition: Acquisition) -> Acquisition:
    """The acquisition inside of the range that is nearest to another one of the same kind of mask."""
    acceleration, sigma = (
        min(max(value, low), high)
        for value, (low, high) in (
            (acquisition.acceleration, ranges.accelerations),
            (acquisition.sigma, ranges.sigmas),
        )
    )
    return acquisition._replace(acceleration=acceleration, sigma=sigma)


def describe_excess(ranges: AcquisitionRange, acquisition: Acquisition) -> list[str]:
    """What of an acquisition is outside of the range, and by how much: a sentence each, none if all is inside."""
    sentences = []
    values = (("acceleration", acquisition.acceleration, ranges.accelerations), ("noise", acquisition.sigma, ranges.sigmas))
    for name, value, (low, high) in values:
        if value < low * 0.99 or value > high * 1.01:
            trained = f"{name} from {low:g} to {high:g}" if low < high else f"{name} {low:g}"
            sentences.append(f"The network was trained for {trained}, this is {value:.3g}.")
    if acquisition.mask not in ranges.masks:
        trained = " and ".join(name.replace("_", " ") for name in ranges.masks)
        sentences.append(f"The network was trained for {trained}, this is {acquisition.mask.replace('_', ' ')}.")
    return sentences


def sample_conditions(key: jax.Array, ranges: AcquisitionRange, count: int) -> jax.Array:
    """Random conditions `(count, size)`: each acceleration of the bank and each kind of mask has equal probability."""
    key_acceleration, key_sigma, key_kind = jax.random.split(key, 3)
    rows = jax.random.randint(key_acceleration, (count,), 0, ACCELERATIONS)
    sigma = jax.random.uniform(key_sigma, (count,))
    kinds = jax.nn.one_hot(jax.random.randint(key_kind, (count,), 0, len(ranges.masks)), len(ranges.masks))
    return jnp.concatenate([(rows / (ACCELERATIONS - 1))[:, None], sigma[:, None], kinds], 1)


def simulated_range(ranges: AcquisitionRange, shape: tuple[int, int], *, seed: int = 0) -> Problem:
    """Single-coil CS-MRI with the acquisition of each sample's condition.

    K-space that is zero counts as not sampled, in the network's input and in J.

    Args:
        ranges: the acquisitions.
        shape: `(h, w)` of the images.
        seed: of the masks.
    """

    def observe(key: jax.Array, sample: Sample, condition: jax.Array) -> jax.Array:
        key_mask, key_noise = jax.random.split(key)
        bank = jnp.asarray(_mask_bank(ranges, shape, seed))
        kind = jnp.argmax(condition[2:])
        row = jnp.round(condition[0] * (ACCELERATIONS - 1)).astype(jnp.int32)
        draw = jax.random.randint(key_mask, (), 0, MASKS_PER_ACCELERATION)
        mask = bank[kind, row, draw].astype(jnp.float32)
        kspace = operators.csmri(mask).forward(sample.image)
        return operators.complex_noise(key_noise, kspace, mask, sigma=_sigma_at(ranges, condition[1]))

    def to_physics_input(y: jax.Array) -> PhysicsInput:
        return physics_input(operators.infer_operator(y), y)

    def data_consistency(x_hat: jax.Array, y: jax.Array) -> jax.Array:
        return operators.data_consistency(x_hat, y, measure=operators.infer_operator(y).forward)

    return Problem(observe, lambda y: to_physics_input(y).image, data_consistency, to_physics_input, acquisitions=ranges)


def _sigma_at(ranges: AcquisitionRange, fraction):
    low, high = ranges.sigmas
    return low + (high - low) * fraction**2


def _fraction(value: float, width: float) -> float:
    return value / width if width > 0 else 0.0


@cache
def _mask_bank(ranges: AcquisitionRange, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Masks of every kind and acceleration, bool `(kinds, ACCELERATIONS, MASKS_PER_ACCELERATION, h, w)`."""
    low, high = ranges.accelerations
    accelerations = np.geomspace(low, high, ACCELERATIONS)
    seeds: Sequence[int] = range(seed, seed + MASKS_PER_ACCELERATION)
    return np.array(
        [
            [[masks.make(name, shape, acceleration=float(a), seed=i) > 0 for i in seeds] for a in accelerations]
            for name in ranges.masks
        ]
    )
