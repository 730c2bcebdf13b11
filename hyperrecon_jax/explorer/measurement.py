"""Measured k-space on the page, as samples for `problem.measured`, by the recipe of `data/kspace.py`.

`data/kspace.py` says which steps of the recipe the page takes, and why it leaves out the others. The map of a single coil
is the slow phase of the image.
"""

import importlib.util
from typing import NamedTuple

import numpy as np

from hyperrecon_jax.data import coils
from hyperrecon_jax.data import kspace as recipe
from hyperrecon_jax.physics.sample import Coils, Sample
from hyperrecon_jax.runtime.errors import InputError

MAX_VIRTUAL_COILS = 8  # more are compressed to this number
# for ESPIRiT. At 64 x 64 with 2 to 8 coils, a centre of 10 gave maps for two thirds of the object, a centre of 8 gave none
MIN_CENTRE = 12


class MeasuredKspace(NamedTuple):
    """The k-space of a volume."""

    kspace: np.ndarray  # (n, c, h, w) complex64, as in `physics.sample.Coils`
    is_full: bool  # all of it was measured
    centre: int  # side of the square of central frequencies that was measured in every slice that is not empty
    notes: list[str]  # for the user


def inspect_kspace(name: str, kspace: np.ndarray, *, no_truth: str = "") -> MeasuredKspace:
    """Compress the coils of a volume and find out what was measured.

    Args:
        name: name of the file, for messages.
        kspace: `(n, h, w)` or, of coils, `(n, c, h, w)`, as `volumes.read` returns it.
        no_truth: why its image is no truth, as `volumes.read` returns it; "": where nothing is missing, it is one.

    Raises:
        InputError: if there are several coils, and the measured centre is too small for their maps or sigpy is not
            installed.
    """
    kspace = kspace[:, None] if kspace.ndim == 3 else kspace
    count = kspace.shape[1]
    measured = (kspace != 0).any(1)
    centre = recipe.measured_centre(kspace)
    notes = []
    if count > 1:
        _check_maps_possible(name, count, centre)
        if count > MAX_VIRTUAL_COILS:
            kspace = coils.compress(kspace, MAX_VIRTUAL_COILS)
            notes.append(f"{count} coils were compressed to {MAX_VIRTUAL_COILS}")
        notes.append(f"sensitivity maps are from the central {centre} x {centre} frequencies")
    elif centre:
        notes.append(f"the slow phase, that of the central {centre} x {centre} frequencies, was taken out")
    else:
        notes.append("its zero frequency was not measured, so its phase stays, which no real image explains: J is larger")
    sampled = np.fft.fftshift(measured.any(0))
    is_full = recipe.is_fully_sampled(sampled) and not no_truth
    if is_full:
        if not sampled.any(0).all() or not sampled.any(1).all():
            notes.append("lines of zeros at its ends are the scanner's padding")
        notes.append("all of k-space is there: it is under-sampled as the run does, and its own image is the truth")
    else:
        notes.append(f"{sampled.mean():.0%} of k-space was measured")
        notes.append(f"there are no scores against a truth: {no_truth or 'a part of its k-space is missing'}")
    return MeasuredKspace(kspace, is_full, centre, notes)


def make_sample(measured: MeasuredKspace, index: int) -> Sample:
    """The sample of a slice: its image is the magnitude of the zero-filled, combined coils. Several coils take seconds.

    Raises:
        InputError: if the slice is not empty, but ESPIRiT finds no sensitivities in it.
    """
    return check_sample(measured, index, *recipe.make_image_and_maps(measured.kspace[index], calibration=measured.centre))


def check_sample(measured: MeasuredKspace, index: int, image: np.ndarray, maps: np.ndarray) -> Sample:
    """The sample of a slice with its image and maps; raises `InputError` as `make_sample`."""
    kspace, centre = measured.kspace[index], measured.centre
    if len(kspace) > 1 and kspace.any() and not maps.any():
        raise InputError(
            f"Slice {index} must show what several coils saw of one image, but no sensitivities can be estimated from"
            f" the {centre} x {centre} frequencies of its centre."
        )
    return Sample(image[..., None], coils=Coils(kspace, maps))


def _check_maps_possible(name: str, count: int, centre: int) -> None:
    """Raises `InputError` if no sensitivity maps of `count` coils can be made."""
    if centre < MIN_CENTRE:
        raise InputError(
            f"{name} must be fully sampled in its central {MIN_CENTRE} x {MIN_CENTRE} frequencies, of which the"
            f" sensitivities of its {count} coils are estimated, got {centre} x {centre}; measure more of the centre, or"
            " combine the coils into one before."
        )
    if importlib.util.find_spec("sigpy") is None:
        raise InputError(f"{name} has {count} coils. {coils.NO_SIGPY}")
