"""What a random image of a head shows: an anatomy, a contrast, and the plane that cuts it.

The anatomy is the template (`template.py`) under a smooth deformation, with ellipsoids for the parts around the brain. The
contrast is a set of intensities, one for each tissue. `brain.py` and `skull.py` draw them. NumPy and SciPy only.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from hyperrecon_jax.data import plane, population

FIELD_OF_VIEW = 240.0  # mm, at a zoom of 1
CELLS = 28  # of the lattice along a side on which coordinates are computed before they are interpolated
LATTICE = np.arange(-128.0, 129.0, 16.0)  # mm from the centre, of a subject's displacement along each axis

# Ellipsoids: centre and radii in mm, (right, anterior, superior) in the template's space, and their mirror images.
PARTS = {
    "cranium": ((0, -17, 0), (70, 90, 78)),
    "face": ((0, 28, -62), (62, 72, 62)),
    "nose": ((0, 100, -48), (14, 20, 24)),
    "jaw": ((0, 40, -105), (48, 52, 40)),
    "neck": ((0, -22, -140), (58, 62, 120)),
    "ear": ((78, -22, -42), (9, 18, 30)),
    "orbit": ((33, 62, -38), (21, 28, 19)),
    "eye": ((33, 68, -38), (12.5, 12.5, 12.5)),
    "lens": ((33, 77, -38), (5, 2.5, 5)),
    "maxillary": ((29, 48, -72), (15, 19, 17)),
    "frontal": ((10, 76, -12), (11, 7, 13)),
    "ethmoid": ((6, 50, -42), (6, 22, 14)),
    "sphenoid": ((7, 16, -38), (8, 11, 9)),
    "throat": ((0, 6, -95), (9, 9, 45)),
    "mouth": ((0, 55, -98), (18, 28, 6)),
}


class Head(NamedTuple):
    """The anatomy of a subject."""

    matrix: np.ndarray  # (3, 3) from the subject's space to the template's, about `population.CENTRE`
    displacement: np.ndarray  # (3, x, y, z) mm, on LATTICE
    scale: np.ndarray  # (PARTS, 3) factors of the radii of `PARTS`
    shift: np.ndarray  # (PARTS, 3) mm
    scalp: float  # mm from the skull to the air
    skull: float  # mm
    rim: float  # mm of CSF around the brain


class Tissues(NamedTuple):
    """Intensities of an image, any unit."""

    csf: float
    gray: float
    white: float
    fat: float
    muscle: float
    skin: float
    bone: float
    marrow: float
    fluid: float  # of the eyes


def random_head(rng: np.random.Generator) -> Head:
    """A random anatomy. Deformations are about as strong as in `population.random_pose`, sizes vary more."""
    angles = np.deg2rad(np.clip(rng.normal(0, 5, 3), -12, 12))
    matrix = _rotation(angles) / np.clip(rng.normal(1.0, 0.05, 3), 0.87, 1.13)
    coarse = rng.standard_normal((3, *3 * (len(LATTICE),)), np.float32)
    displacement = 0.7 * np.clip(coarse, -2.5, 2.5) + 9.0 * ndimage.gaussian_filter(coarse, (0, 1.3, 1.3, 1.3))
    count = len(PARTS)
    scale, shift = np.clip(rng.normal(1, 0.12, (count, 3)), 0.7, 1.4), np.clip(rng.normal(0, 3, (count, 3)), -7, 7)
    scale[0], shift[0] = 1, 0  # the cranium fits the brain
    return Head(
        matrix=matrix,
        displacement=displacement.astype(np.float32),
        scale=scale,
        shift=shift,
        scalp=rng.uniform(2.5, 8),
        skull=rng.uniform(4, 9),
        rim=rng.uniform(0.5, 5),
    )


def random_tissues(rng: np.random.Generator) -> Tissues:
    """The contrast of an image: like T1, T2, FLAIR, proton density, or in any order."""
    #      csf, gray, white, fat, muscle, skin, bone, marrow, fluid; the default is T1
    low = [0.10, 0.50, 0.70, 1.00, 0.40, 0.40, 0.02, 0.40, 0.05]
    high = [0.30, 0.68, 0.90, 2.00, 0.60, 0.90, 0.12, 1.20, 0.25]
    kind = rng.random()
    if kind < 0.2:  # T2
        low, high = [0.9, 0.45, 0.3, 0.5, 0.12, 0.3, 0.02, 0.2, 0.9], [1.3, 0.68, 0.5, 1.3, 0.3, 0.8, 0.12, 0.9, 1.4]
    elif kind < 0.5:  # FLAIR
        low, high = [0.05, 0.42, 0.33, 0.7, 0.2, 0.4, 0.02, 0.2, 0.05], [0.25, 0.6, 0.5, 2.0, 0.5, 1.2, 0.12, 1.2, 0.3]
    elif kind < 0.6:  # proton density
        low, high = [0.6, 0.75, 0.6, 0.6, 0.4, 0.5, 0.02, 0.3, 0.6], [1.0, 0.9, 0.75, 1.1, 0.6, 0.9, 0.15, 0.9, 1.0]
    elif kind < 0.8:  # any
        low, high = [0.0] * 9, [1.0] * 9
    values = rng.uniform(low, high)
    if rng.random() < 0.2:  # suppressed fat
        values[[3, 7]] *= rng.uniform(0.1, 0.5)
    if 0.8 < kind < 0.85:  # inverted
        values[:3] = values[:3].max() + values[:3].min() - values[:3]
    values[:3] *= rng.uniform(0.4, 1.2)  # the brain against the rest
    return Tissues(*map(float, values))


class View(NamedTuple):
    """Where the plane of an image cuts the head."""

    coordinates: np.ndarray  # (3, size, size) mm in the template's space
    spacing: float  # mm between pixels


def random_view(rng: np.random.Generator, head: Head, size: int, *, is_stripped: bool) -> View:
    """A random plane: axial, coronal or sagittal, turned and mirrored, at a random place and zoom."""
    kind = rng.choice(3, p=(0.66, 0.17, 0.17))
    right, front, top = np.eye(3)
    a, b, normal, low, high = (
        (right, -front, top, -75, 70),
        (right, -top, front, -85, 75),
        (front, -top, right, -62, 62),
    )[kind]
    place = rng.uniform(low, high) if not is_stripped else rng.uniform(0.65 * low, 0.75 * high)
    tilt = _rotation(np.deg2rad(np.clip(rng.normal(0, 6, 3), -15, 15)))
    angle = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(-np.pi, np.pi)
    mirror = np.where(rng.random(2) < (0.5, 0.2), -1, 1)
    a, b = mirror[0] * (np.cos(angle) * a + np.sin(angle) * b), mirror[1] * (np.cos(angle) * b - np.sin(angle) * a)
    # one in four is a detail, as sharp in its pixels as a whole head is on a grid of twice the size
    zooms = (1.45, 2.4) if rng.random() < 0.25 else (0.85, 1.45)
    half = FIELD_OF_VIEW / 2 / np.exp(rng.uniform(*np.log(zooms)))
    down = 0 if kind == 0 else rng.uniform(-30, 15)  # coronal and sagittal images show face and neck
    centre = place * normal + down * top + rng.uniform(-0.12, 0.12) * half * a + rng.uniform(-0.12, 0.12) * half * b
    ticks = plane.lattice_points(CELLS)
    points = centre[:, None, None] + half * (a[:, None, None] * ticks[None, None] + b[:, None, None] * ticks[None, :, None])
    points = np.einsum("ij,jyx->iyx", tilt, points)
    index = (points - LATTICE[0]) / (LATTICE[1] - LATTICE[0])
    points = points + np.stack([ndimage.map_coordinates(d, index, order=1, mode="nearest") for d in head.displacement])
    points = np.einsum("ij,jyx->iyx", head.matrix, points) + population.CENTRE[:, None, None]
    return View(plane.evaluate_lattice(points, size), 2 * half / size)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """The rotation `(3, 3)` by an angle in radians around each axis."""
    c, s = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    about_y = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    return about_x @ about_y @ about_z
