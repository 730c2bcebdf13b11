"""Slices of random heads: the brain of the template in any contrast, and around it what scans of people show.

The brain is that of `population.py`: one anatomy, deformed. Everything else is made of simple shapes in the space of the
template: cranium, face, nose, neck and ears give the outline; between outline and brain are skin, fat, muscle, bone with
marrow and the rim of CSF; eyes, orbits, sinuses and airways are ellipsoids. Their sizes, places and intensities are random.
Lesions are blobs, rings, many small spots, or cavities.

Simulated are edges, contrasts and their order as in scans of any weighting. Not simulated are the physics of a sequence, true
anatomy outside the brain, flow, artefacts, and noise.

NumPy and SciPy only.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from hyperrecon_jax.data import plane, population, template

FIELD_OF_VIEW = 240.0  # mm, at a zoom of 1
CELLS = 28  # of the lattice along a side on which coordinates are computed before they are interpolated
LATTICE = np.arange(-128.0, 129.0, 16.0)  # mm from the centre, of a subject's displacement along each axis
FAR = np.float32(1e3)  # mm: the distance to what is not there


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


# name: centre and radii in mm, (right, anterior, superior) in the template's space. The second half mirrors x.
PARTS = {
    "face": ((0, 28, -62), (62, 72, 62)),
    "nose": ((0, 100, -48), (14, 20, 24)),
    "jaw": ((0, 40, -105), (48, 52, 40)),
    "neck": ((0, -22, -140), (58, 62, 120)),
    "ear": ((78, -22, -42), (9, 18, 30)),
    "orbit": ((33, 62, -38), (21, 28, 19)),
    "eye": ((33, 68, -38), (12.5, 12.5, 12.5)),
    "maxillary": ((29, 48, -72), (15, 19, 17)),
    "frontal": ((10, 76, -12), (11, 7, 13)),
    "ethmoid": ((6, 50, -42), (6, 22, 14)),
    "sphenoid": ((7, 16, -38), (8, 11, 9)),
    "throat": ((0, 6, -95), (9, 9, 45)),
    "mouth": ((0, 55, -98), (18, 28, 6)),
}
OUTLINE = ("face", "nose", "jaw", "neck", "ear")
AIR = ("maxillary", "frontal", "ethmoid", "sphenoid", "throat", "mouth")


@functools.cache
def load_t1() -> np.ndarray:
    """The values of `population.Anatomy.t1` at the voxels, for linear interpolation, which takes a quarter of the time."""
    values = population.load_anatomy().t1
    for axis in range(3):
        values = ndimage.correlate1d(values, np.array([1, 4, 1]) / 6, axis, mode="nearest")
    return values


def random_head(rng: np.random.Generator) -> Head:
    """A random anatomy. Deformations are about as strong as in `population.random_pose`, sizes vary more."""
    angles = np.deg2rad(np.clip(rng.normal(0, 5, 3), -12, 12))
    matrix = _rotation(angles) / np.clip(rng.normal(1.0, 0.05, 3), 0.87, 1.13)
    coarse = rng.standard_normal((3, *3 * (len(LATTICE),)), np.float32)
    displacement = 0.7 * np.clip(coarse, -2.5, 2.5) + 9.0 * ndimage.gaussian_filter(coarse, (0, 1.3, 1.3, 1.3))
    count = len(PARTS)
    return Head(
        matrix=matrix,
        displacement=displacement.astype(np.float32),
        scale=np.clip(rng.normal(1, 0.12, (count, 3)), 0.7, 1.4),
        shift=np.clip(rng.normal(0, 3, (count, 3)), -7, 7),
        scalp=rng.uniform(3.5, 11),
        skull=rng.uniform(4, 9),
        rim=rng.uniform(0.5, 5),
    )


def random_tissues(rng: np.random.Generator) -> Tissues:
    """The contrast of an image: like T1, T2, FLAIR, proton density, or in any order."""
    low = [0.10, 0.50, 0.70, 0.90, 0.40, 0.40, 0.02, 0.40, 0.05]
    high = [0.30, 0.68, 0.90, 1.60, 0.60, 0.90, 0.12, 1.20, 0.25]
    kind = rng.random()
    if kind < 0.2:  # T2
        low, high = [0.9, 0.45, 0.3, 0.5, 0.12, 0.3, 0.02, 0.2, 0.9], [1.3, 0.68, 0.5, 1.3, 0.3, 0.8, 0.12, 0.9, 1.4]
    elif kind < 0.5:  # FLAIR
        low, high = [0.05, 0.42, 0.33, 0.5, 0.2, 0.4, 0.02, 0.2, 0.05], [0.25, 0.6, 0.5, 1.6, 0.5, 1.2, 0.12, 1.2, 0.3]
    elif kind < 0.6:  # proton density
        low, high = [0.6, 0.75, 0.6, 0.6, 0.4, 0.5, 0.02, 0.3, 0.6], [1.0, 0.9, 0.75, 1.1, 0.6, 0.9, 0.15, 0.9, 1.0]
    elif kind < 0.8:  # any
        low, high = [0.0] * 9, [1.0] * 9
    values = rng.uniform(low, high)
    if rng.random() < 0.3:  # suppressed fat
        values[[3, 7]] *= rng.uniform(0.1, 0.5)
    if 0.8 < kind < 0.85:  # inverted
        values[:3] = values[:3].max() + values[:3].min() - values[:3]
    values[:3] *= rng.uniform(0.6, 1.2)  # the brain against the rest
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
    half = FIELD_OF_VIEW / 2 / np.exp(rng.uniform(np.log(0.75), np.log(1.4)))
    down = 0 if kind == 0 else rng.uniform(-30, 15)  # coronal and sagittal images show face and neck
    centre = place * normal + down * top + rng.uniform(-0.12, 0.12) * half * a + rng.uniform(-0.12, 0.12) * half * b
    ticks = plane.lattice_points(CELLS)
    points = centre[:, None, None] + half * (a[:, None, None] * ticks[None, None] + b[:, None, None] * ticks[None, :, None])
    points = np.einsum("ij,jyx->iyx", tilt, points)
    index = (points - LATTICE[0]) / (LATTICE[1] - LATTICE[0])
    points = points + np.stack([ndimage.map_coordinates(d, index, order=1, mode="nearest") for d in head.displacement])
    points = np.einsum("ij,jyx->iyx", head.matrix, points) + population.CENTRE[:, None, None]
    return View(plane.evaluate_lattice(points, size), 2 * half / size)


def draw_head(rng: np.random.Generator, head: Head, size: int) -> np.ndarray:
    """A random image `(size, size)` float32 of a head, values of at least 0."""
    is_stripped = bool(rng.random() < 0.2)
    view, tissues = random_view(rng, head, size, is_stripped=is_stripped), random_tissues(rng)
    voxels = view.coordinates - (template.ORIGIN - 1).astype(np.float32)[:, None, None]
    labels = population.nearest_voxels(population.load_anatomy().labels, voxels)
    image = np.zeros((size, size), np.float32) if is_stripped else _draw_surroundings(rng, head, view, tissues, labels > 0)
    if np.count_nonzero(labels) > 20:
        brain, share = _draw_brain(rng, view, tissues, voxels, labels)
        plane.blend(image, share, brain)
    return np.maximum(image, 0)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """The rotation `(3, 3)` by an angle in radians around each axis."""
    c, s = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    about_y = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def _draw_brain(
    rng: np.random.Generator, view: View, tissues: Tissues, voxels: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The brain's intensity, and its share of each pixel; both `(size, size)`."""
    size, mask = len(labels), labels > 0
    anchors = population.load_anatomy().anchors
    t1 = ndimage.map_coordinates(load_t1(), voxels[:, mask], order=1, output=np.float32)
    csf, gray, white = tissues[:3]
    gaps, steps = 0.25 * np.diff(anchors), 0.12 * np.diff([csf, gray, white])
    nodes = [-0.3, anchors[0] + gaps[0], anchors[1] - gaps[0], anchors[1] + gaps[1], anchors[2] - gaps[1], 1.2]
    levels = [csf, csf + steps[0], gray - steps[0], gray + steps[1], white - steps[1], white + steps[1]]
    value = np.interp(t1, nodes, levels).astype(np.float32)
    cortex = np.interp(t1, anchors, (0, 1, 0)).astype(np.float32) * (labels[mask] >= 3)
    cells = max(4, round(view.spacing * size / rng.uniform(4.5, 9)))  # bumps of 4.5 to 9 mm
    folds = np.exp(-((plane.smooth_field(rng, size, cells=cells)[mask] / 0.22) ** 2))
    value += rng.uniform(0.2, 0.8) * cortex * folds * (csf - value)
    deep = rng.uniform(-0.15, 0.15) * (labels[mask] == 1)
    value *= 1 + deep.astype(np.float32)
    grain = plane.power_law_texture(rng, size, exponent=rng.uniform(0.3, 1.2), finest=rng.uniform(1.5, 3))
    value *= 1 + np.float32(rng.choice([rng.uniform(0, 0.02), rng.uniform(0.02, 0.06)], p=(0.7, 0.3))) * grain[mask]
    image = np.zeros((size, size), np.float32)
    image[mask] = value
    blur = 0.7  # pixels: the soft rim of the brain
    share = ndimage.gaussian_filter(mask.astype(np.float32), blur, truncate=3)
    rim = ndimage.gaussian_filter(image, blur, truncate=3) / np.maximum(share, 1e-3)
    image = np.where(mask, image, rim)
    if rng.random() < 0.5:
        _add_lesions(rng, image, mask, tissues)
    return image, share


def _add_lesions(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, tissues: Tissues) -> None:
    """Blobs with or without a ring and with soft surroundings, small spots, or cavities; in place."""
    rows, columns = np.nonzero(mask)
    size = len(mask)
    ticks = plane.pixel_centres(size)
    kind = rng.random()
    count = int(rng.integers(4, 25)) if kind < 0.35 else int(rng.integers(1, 3))
    value = np.float32(max(tissues[:3]) * rng.choice([rng.uniform(1.0, 1.8), rng.uniform(0.0, 0.6)], p=(0.7, 0.3)))
    for _ in range(count):
        i = rng.integers(len(rows))
        x, y = ticks[None] - ticks[columns[i]], ticks[:, None] - ticks[rows[i]]
        radius = rng.uniform(0.012, 0.05) if kind < 0.35 else rng.uniform(0.06, 0.3)
        wobble = 0.0 if kind < 0.35 else rng.uniform(0.1, 0.35) * radius * plane.smooth_field(rng, size, cells=10)
        distance = plane.ellipse((radius, radius * rng.uniform(0.5, 1)), rng.uniform(0, np.pi))(x, y) + wobble
        softness = radius * rng.uniform(0.1, 0.9)
        oedema = plane.coverage(distance, softness)
        if kind < 0.7:
            plane.blend(image, np.float32(rng.uniform(0.3, 1)) * oedema, value)
            continue
        plane.blend(image, np.float32(rng.uniform(0.2, 0.8)) * oedema, value)  # a core with a ring inside the oedema
        core = distance + radius * rng.uniform(0.2, 0.5)
        plane.blend(image, plane.coverage(core, 3 / size), np.float32(rng.uniform(0, 1.2)) * max(tissues[:3]))
        ring = np.exp(-((core / np.float32(rng.uniform(0.01, 0.03))) ** 2))
        plane.blend(image, np.float32(rng.uniform(0, 1)) * ring, np.float32(rng.uniform(0.8, 1.8)) * max(tissues[:3]))


def _draw_surroundings(rng: np.random.Generator, head: Head, view: View, tissues: Tissues, brain: np.ndarray) -> np.ndarray:
    """All of a head but its brain, `(size, size)`."""
    size, width = len(brain), view.spacing
    distances = _part_distances(head, view)
    hull = _hull_distance(brain, view.spacing)
    thickness = 1 + np.float32(0.25) * plane.smooth_field(rng, size, cells=7)
    skull = hull - head.rim * thickness
    skull_thickness = head.skull * (1 + np.float32(0.25) * plane.smooth_field(rng, size, cells=6))
    outline = hull - (head.rim + head.skull + head.scalp) * thickness
    for name in OUTLINE:
        outline = _smooth_minimum(outline, distances[name] + 3 * (thickness - 1), 8.0)
    image = np.zeros((size, size), np.float32)
    plane.blend(image, plane.coverage(outline, width), _draw_soft_tissue(rng, outline, view, tissues))
    bone = np.maximum(skull - skull_thickness, -skull)
    plane.blend(image, plane.coverage(bone, width), tissues.bone)
    marrow = bone + np.float32(rng.uniform(0.2, 0.4)) * skull_thickness
    plane.blend(image, plane.coverage(marrow, width), tissues.marrow)
    orbit = np.maximum(distances["orbit"], outline + 3)
    plane.blend(image, plane.coverage(np.maximum(orbit, -skull), width), tissues.fat)
    eye = distances["eye"]
    plane.blend(image, plane.coverage(eye - 1, width), tissues.muscle)
    plane.blend(image, plane.coverage(eye, width), tissues.fluid)
    for name in AIR:
        wobble = 2 * plane.smooth_field(rng, size, cells=24)
        air = np.maximum(np.maximum(distances[name] + wobble, outline + 3), -skull)
        filling = tissues.fluid if rng.random() < 0.1 else 0.0
        plane.blend(image, plane.coverage(air - 1.2, width), tissues.muscle)
        plane.blend(image, plane.coverage(air, width), filling)
    plane.blend(image, plane.coverage(skull, width), tissues.csf)
    return image


def _draw_soft_tissue(rng: np.random.Generator, outline: np.ndarray, view: View, tissues: Tissues) -> np.ndarray:
    """Muscle with fat and bone between it, a layer of fat below the skin, and the skin."""
    size, width = len(outline), view.spacing
    cells = max(4, round(width * size / rng.uniform(8, 20)))
    pattern, other = plane.smooth_field(rng, size, cells=cells), plane.smooth_field(rng, size, cells=cells)
    edge = np.float32(cells * 4 / size)  # of the pattern over about a pixel
    image = np.full((size, size), tissues.muscle, np.float32)
    plane.blend(image, plane.coverage(rng.uniform(0.2, 1.2) - pattern, edge), tissues.fat)
    plane.blend(image, plane.coverage(rng.uniform(0.8, 2.0) - other, edge), tissues.bone)
    image *= 1 + np.float32(rng.uniform(0, 0.06)) * plane.power_law_texture(rng, size, exponent=1.0, finest=2.5)
    layer = np.float32(rng.uniform(1.0, 7.0)) * (1 + np.float32(0.4) * pattern)
    plane.blend(image, plane.coverage(-outline - layer, width), tissues.fat)
    plane.blend(image, plane.coverage(-outline - np.float32(rng.uniform(0.8, 2.2)), width), tissues.skin)
    return image


def _part_distances(head: Head, view: View) -> dict[str, np.ndarray]:
    """The signed distance in mm, about, to each of `PARTS` and to its mirror image."""
    x, y, z = view.coordinates
    x = np.abs(x)
    distances = {}
    for (name, (centre, radii)), scale, shift in zip(PARTS.items(), head.scale, head.shift, strict=True):
        radii = radii * scale
        cx, cy, cz = np.asarray(centre) + (shift if centre[0] else shift * (0, 1, 1))
        u, v, w = ((p - np.float32(c)) / np.float32(r) for p, c, r in zip((x, y, z), (cx, cy, cz), radii, strict=True))
        radius = np.sqrt(u * u + v * v + w * w)
        slope = np.sqrt((u / np.float32(radii[0])) ** 2 + (v / np.float32(radii[1])) ** 2 + (w / np.float32(radii[2])) ** 2)
        distances[name] = radius * (radius - 1) / np.maximum(slope, np.float32(1e-6))
    return distances


def _hull_distance(brain: np.ndarray, spacing: float) -> np.ndarray:
    """The signed distance in mm to a smooth outline around the brain; FAR where the image shows no brain."""
    coarse = brain[::2, ::2].astype(np.float32)
    closed = ndimage.gaussian_filter(np.pad(coarse, 12), 7.0 / (2 * spacing), truncate=2.5, mode="constant") > 0.4
    if np.count_nonzero(closed) < 12:
        return np.full(brain.shape, FAR)
    distance = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    distance = ndimage.gaussian_filter(distance.astype(np.float32), 1.5)[11:-11, 11:-11]  # one more on each side
    # coefficient k of the lattice is at pixel 2 (k - 1) + 0.5 of the image; half a pixel of shift does not matter here
    cells = len(coarse)
    padded = np.pad(distance, ((0, cells + 3 - len(distance)), (0, cells + 3 - len(distance))), mode="edge")
    return 2 * np.float32(spacing) * plane.evaluate_lattice(padded, len(brain))


def _smooth_minimum(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """The union of two shapes with a fillet: the lower distance, rounded where they are within `radius` of each other."""
    h = np.clip(1 - np.abs(a - b) / np.float32(radius), 0, 1)
    return np.minimum(a, b) - h * h * np.float32(radius / 4)
