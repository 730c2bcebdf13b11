"""The brain of `population.py` in a plane and in any contrast, with lesions.

The template gives the tissues and their fine structure; narrow folds, grain and vessels are added, as in `population.py`.
Lesions are blobs, rings with a core and soft surroundings, many small spots, or dark cavities. NumPy and SciPy only.
"""

import functools

import numpy as np
from scipy import ndimage

from hyperrecon_jax.data import plane, population, scenes, template
from hyperrecon_jax.data.heads import Tissues, View


@functools.cache
def load_t1() -> np.ndarray:
    """The values of `population.Anatomy.t1` at the voxels, for linear interpolation, which takes a quarter of the time."""
    values = population.load_anatomy().t1
    for axis in range(3):
        values = ndimage.correlate1d(values, np.array([1, 4, 1]) / 6, axis, mode="nearest")
    return values


def find_labels(view: View) -> np.ndarray:
    """The tissue `(size, size)` uint8 at each pixel; 0 outside the brain."""
    return population.nearest_voxels(population.load_anatomy().labels, _voxels(view))


def _voxels(view: View) -> np.ndarray:
    """The positions `(3, size, size)` of the pixels in the volumes of `population.Anatomy`."""
    return view.coordinates - (template.ORIGIN - 1).astype(np.float32)[:, None, None]


def draw_brain(rng: np.random.Generator, view: View, tissues: Tissues, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The brain's intensity, and its share of each pixel.

    Args:
        rng: source of the fine structure and the lesions.
        view: the plane.
        tissues: the intensities.
        labels: `(size, size)`, from `find_labels`; at least one pixel must be brain.

    Returns:
        Two arrays `(size, size)` float32.
    """
    size, mask, voxels = len(labels), labels > 0, _voxels(view)
    anchors = population.load_anatomy().anchors
    t1 = ndimage.map_coordinates(load_t1(), voxels[:, mask], order=1, output=np.float32)
    csf, gray, white = tissues[:3]
    gaps, steps = 0.25 * np.diff(anchors), 0.12 * np.diff([csf, gray, white])
    nodes = [-0.3, anchors[0] + gaps[0], anchors[1] - gaps[0], anchors[1] + gaps[1], anchors[2] - gaps[1], 1.2]
    levels = [csf, csf + steps[0], gray - steps[0], gray + steps[1], white - steps[1], white + steps[1]]
    value = np.interp(t1, nodes, levels).astype(np.float32)
    cortex = np.interp(t1, anchors, (0, 1, 0)).astype(np.float32) * (labels[mask] >= 3)
    for length in rng.uniform(4.5, 12, 2):  # mm between folds
        field = plane.smooth_field(rng, size, cells=max(4, round(view.spacing * size / length)))
        folds = np.exp(-((field[mask] / np.float32(rng.uniform(0.12, 0.3))) ** 2))
        value += np.float32(rng.uniform(0.2, 0.9)) * cortex * folds * (csf - value)
    deep = rng.uniform(-0.15, 0.15) * (labels[mask] == 1)
    value *= 1 + deep.astype(np.float32)
    grain = plane.power_law_texture(rng, size, exponent=rng.uniform(0.3, 1.2), finest=rng.uniform(1.5, 3))
    value *= 1 + np.float32(rng.choice([rng.uniform(0, 0.02), rng.uniform(0.02, 0.05)], p=(0.75, 0.25))) * grain[mask]
    image = np.zeros((size, size), np.float32)
    image[mask] = value
    blur = max(0.7, 1.2 / view.spacing)  # pixels: the steps of the voxels at the rim disappear
    soft = ndimage.gaussian_filter(mask.astype(np.float32), blur, truncate=3)
    rim = ndimage.gaussian_filter(image, blur, truncate=3) / np.maximum(soft, 1e-3)
    image = np.where(mask, image, rim)
    share = np.clip(0.5 + 2 * np.float32(blur) * (soft - 0.5), 0, 1)  # about a pixel wide
    if rng.random() < 0.1:
        scenes.paint_vessels(rng, image, value=float(rng.choice([0.0, 1.0, 1.8]) * max(tissues[:3])))
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
