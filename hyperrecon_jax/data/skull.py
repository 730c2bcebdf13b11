"""What a plane shows of a head around its brain: skull, scalp, face, eyes, sinuses, neck.

All of it is made of simple shapes in the space of the template. Cranium, face, nose, jaw, neck and ears give the outline;
between outline and brain are skin, fat, muscle, bone with marrow and the rim of CSF; eyes, orbits, sinuses and airways are
ellipsoids. It has the edges and the order of tissues of real heads, not their anatomy. NumPy and SciPy only.
"""

import numpy as np
from scipy import ndimage

from hyperrecon_jax.data import plane
from hyperrecon_jax.data.heads import PARTS, Head, Tissues, View

FAR = np.float32(1e3)  # mm: the distance to what the image does not show

OUTLINE = ("face", "nose", "jaw", "neck", "ear")
AIR = ("maxillary", "frontal", "ethmoid", "sphenoid", "throat", "mouth")


def draw_skull(rng: np.random.Generator, head: Head, view: View, tissues: Tissues, brain: np.ndarray) -> np.ndarray:
    """All of a head but its brain.

    Args:
        rng: source of thicknesses and of the pattern of soft tissue.
        head: the anatomy.
        view: the plane.
        tissues: the intensities.
        brain: `(size, size)` bool, where the brain is.

    Returns:
        `(size, size)` float32; 0 is air.
    """
    size, width = len(brain), view.spacing
    distances = _part_distances(head, view)
    hull = _hull_distance(brain, view.spacing)
    thickness = 1 + np.float32(0.2) * plane.smooth_field(rng, size, cells=7)
    base = hull  # follows each lobe; the inside of the skull is rounder
    if "cranium" in distances:
        hull = _smooth_minimum(hull, distances["cranium"] + np.float32(4), 12.0)
    skull = hull - head.rim * thickness
    skull_thickness = head.skull * (1 + np.float32(0.25) * plane.smooth_field(rng, size, cells=6))
    outline = hull - (head.rim + head.skull + head.scalp) * thickness
    for name in OUTLINE:
        if name in distances:
            outline = _smooth_minimum(outline, distances[name] + 3 * (thickness - 1), 8.0)
    image = np.zeros((size, size), np.float32)
    soft_tissue = _draw_soft_tissue(rng, outline, view, tissues)
    plane.blend(image, plane.coverage(outline, width), soft_tissue)
    bone = np.maximum(skull - skull_thickness, -skull)
    plane.blend(image, plane.coverage(bone, width), tissues.bone)
    marrow = bone + np.float32(rng.uniform(0.2, 0.4)) * skull_thickness
    plane.blend(image, plane.coverage(marrow, width), tissues.marrow)
    if "orbit" in distances:
        orbit = np.maximum(distances["orbit"], outline + 3)
        plane.blend(image, plane.coverage(np.maximum(orbit, -skull), width), tissues.fat)
    if "eye" in distances:
        plane.blend(image, plane.coverage(distances["eye"] - 1, width), tissues.muscle)
        plane.blend(image, plane.coverage(distances["eye"], width), tissues.fluid)
    if "lens" in distances:
        plane.blend(image, plane.coverage(distances["lens"], width), tissues.muscle)
    for name in (name for name in AIR if name in distances):
        wobble = 2 * plane.smooth_field(rng, size, cells=24)
        air = np.maximum(np.maximum(distances[name] + wobble, outline + 3), -skull)
        filling = tissues.fluid if rng.random() < 0.1 else 0.0
        plane.blend(image, plane.coverage(air - 1.2, width), tissues.muscle)
        plane.blend(image, plane.coverage(air, width), filling)
    plane.blend(image, plane.coverage(skull, width), soft_tissue)
    plane.blend(image, plane.coverage(np.maximum(skull, base - head.rim - 3), width), tissues.csf)
    return image


def _draw_soft_tissue(rng: np.random.Generator, outline: np.ndarray, view: View, tissues: Tissues) -> np.ndarray:
    """Muscle with fat and bone between it, a layer of fat below the skin, and the skin."""
    size, width = len(outline), view.spacing
    cells = max(4, round(width * size / rng.uniform(8, 20)))
    pattern, other = plane.smooth_field(rng, size, cells=cells), plane.smooth_field(rng, size, cells=cells)
    edge = cells * 4 / size  # of the pattern over about a pixel
    image = np.full((size, size), tissues.muscle, np.float32)
    planes = plane.smooth_field(rng, size, cells=2 * cells)
    plane.blend(image, plane.coverage(np.abs(planes) - np.float32(rng.uniform(0.05, 0.4)), 2 * edge), tissues.fat)
    plane.blend(image, plane.coverage(rng.uniform(0.2, 1.2) - pattern, edge), tissues.fat)
    plane.blend(image, plane.coverage(rng.uniform(0.8, 2.0) - other, edge), tissues.bone)
    plane.blend(image, plane.coverage(rng.uniform(1.4, 2.6) - other + np.abs(planes) / 2, edge), tissues.marrow)
    image *= 1 + np.float32(rng.uniform(0, 0.06)) * plane.power_law_texture(rng, size, exponent=1.0, finest=2.5)
    layer = np.float32(rng.uniform(2.0, 8.0)) * np.maximum(1 + np.float32(0.4) * pattern, np.float32(0.2))
    plane.blend(image, plane.coverage(-outline - layer, width), tissues.fat)
    plane.blend(image, plane.coverage(-outline - np.float32(rng.uniform(0.8, 2.2)), width), tissues.skin)
    return image


def _part_distances(head: Head, view: View) -> dict[str, np.ndarray]:
    """The signed distance in mm, about, to each of `PARTS` and to its mirror image; only parts that the image shows."""
    distances = {}
    points = np.concatenate([np.abs(view.coordinates[:1]), view.coordinates[1:]])
    for (name, (middle, sizes)), scale, shift in zip(PARTS.items(), head.scale, head.shift, strict=True):
        centre = (np.array(middle) + (shift if middle[0] else shift * (0, 1, 1))).astype(np.float32)
        radii = (sizes * scale).astype(np.float32)
        if _ellipsoid_distance(points[:, ::4, ::4], centre, radii).min() < 8 * view.spacing:
            distances[name] = _ellipsoid_distance(points, centre, radii)
    return distances


def _ellipsoid_distance(points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The signed distance of points `(3, ...)` to an ellipsoid, exact near its surface to first order."""
    u, v, w = ((p - c) / r for p, c, r in zip(points, centre, radii, strict=True))
    radius = np.sqrt(u * u + v * v + w * w)
    a, b, c = 1 / radii
    slope = np.sqrt((a * u) ** 2 + (b * v) ** 2 + (c * w) ** 2)
    return radius * (radius - 1) / np.maximum(slope, np.float32(1e-6))


def _hull_distance(brain: np.ndarray, spacing: float) -> np.ndarray:
    """The signed distance in mm to a smooth outline around the brain; FAR where the image shows no brain."""
    coarse = brain[::2, ::2].astype(np.float32)
    closed = ndimage.gaussian_filter(np.pad(coarse, 12, mode="edge"), 7.0 / (2 * spacing), truncate=2.5) > 0.4
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
