"""K-space that a scanner measured, as the samples of `problem.measured`.

As `data.fastmri` makes those of training: of at most 8 coils, with maps by ESPIRiT that hold the slow phase of the image,
so that a real image can explain what was measured. Of ONE coil the map is that phase. Unlike there, coils are not whitened,
the field of view stays as it is, and all is scaled by the volume's zero-filled images, since the truth may not be known.
"""

import importlib.util
from typing import NamedTuple

import numpy as np

from hyperrecon_jax.data.sources import coils
from hyperrecon_jax.physics.sample import Coils, Sample
from hyperrecon_jax.runtime.errors import InputError

MOST = 8  # coils
CALIBRATION = 24  # side of the centre from which maps are made, in frequencies, if so much of it was measured
LEAST = (
    12  # that of which ESPIRiT makes maps: of 64 x 64 pixels and 2 to 8 coils 10 gave two thirds of an object, 8 nothing
)
FULL = 0.99  # share of k-space that is all of it


class Acquisition(NamedTuple):
    """The k-space of a volume."""

    kspace: np.ndarray  # (n, c, h, w) complex64, as in `Coils`
    full: bool  # all of it was measured
    centre: int  # side of the square around the zero frequency that was measured in every slice that is not empty
    notes: list[str]  # for a person


def acquisition(name: str, kspace: np.ndarray) -> Acquisition:
    """What there is to a volume's k-space.

    Args:
        name: of the file, for messages.
        kspace: `(n, h, w)` or, of coils, `(n, c, h, w)`, as `volumes.read` returns it.

    Raises:
        InputError: if it is of several coils, and its centre is too small for their maps or sigpy is not installed.
    """
    kspace = kspace[:, None] if kspace.ndim == 3 else kspace
    count = kspace.shape[1]
    there = (kspace != 0).any(1)
    centre = _centre(there[there.any((1, 2))].all(0))
    notes = []
    if count > 1:
        if centre < LEAST:
            raise InputError(
                f"{name} must be fully sampled in its central {LEAST} x {LEAST} frequencies, of which the sensitivities"
                f" of its {count} coils are estimated, got {centre} x {centre}; measure more of the centre, or combine the"
                " coils into one before."
            )
        if importlib.util.find_spec("sigpy") is None:
            raise InputError(f"{name} has {count} coils. {coils.NO_SIGPY}")
        if count > MOST:
            kspace = coils.compress(kspace, MOST)
            notes.append(f"{count} coils were compressed to {MOST}")
        notes.append(f"sensitivity maps are from the central {centre} x {centre} frequencies")
    elif centre:
        notes.append(f"the slow phase, that of the central {centre} x {centre} frequencies, was taken out")
    else:
        notes.append("its zero frequency was not measured, so its phase stays, which no real image explains: J is larger")
    measured = there.any(0).mean()
    if measured > FULL:
        notes.append("all of k-space is there: it is under-sampled as the run does, and its own image is the truth")
    else:
        notes.append(f"{measured:.0%} of k-space was measured")
    return Acquisition(kspace, bool(measured > FULL), centre, notes)


def sample(acquired: Acquisition, index: int) -> Sample:
    """One slice: the image is the magnitude of what was measured, zero-filled and combined; seconds of work.

    Raises:
        InputError: if there is something in the slice, but nothing that looks as if several coils saw it.
    """
    kspace, centre = acquired.kspace[index], acquired.centre
    if len(kspace) == 1:
        maps = np.ones_like(kspace)
    else:
        maps = coils.sensitivities(kspace, calibration=centre)
        if kspace.any() and not maps.any():
            raise InputError(
                f"Slice {index} must show what several coils saw of one image, but no sensitivities can be estimated from"
                f" the {centre} x {centre} frequencies of its centre."
            )
    if centre:
        maps = coils.absorb_phase(kspace, maps, calibration=centre)
    image = np.abs(coils.combine(kspace, maps)).astype(np.float32)
    return Sample(image[..., None], coils=Coils(kspace, maps))


def _centre(there: np.ndarray) -> int:
    """Side of the largest square around the zero frequency, at most `CALIBRATION`, all of which is there, `(h, w)`."""
    h, w = there.shape
    middle = np.fft.fftshift(there)
    for side in range(min(CALIBRATION, h, w), 0, -1):
        top, left = h // 2 - side // 2, w // 2 - side // 2
        if middle[top : top + side, left : left + side].all():
            return side
    return 0
