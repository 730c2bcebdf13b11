"""A population of synthetic T1-weighted brains: one average anatomy under random deformations and contrasts.

Every subject is the ICBM 152 average (`template.py`) with a smooth deformation without folds, a monotone contrast of its
own, a bias field, fine texture (the average of 152 people has lost it), and a little Rician noise. All subjects have ONE
anatomy: for example, they have the same large sulci. So they test unseen deformations and contrasts, not new people.

NumPy and SciPy only. A subject is a pure function of its seed. Geometry, contrast and texture are defined in millimetres,
so the same seed gives the same brain at every size; only the noise depends on the pixels.

Every random field is a cubic B-spline with independent Gaussian coefficients on a lattice. It is evaluated axis by axis,
with exact derivatives, and only at the slices of a subject.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from hyperrecon_jax.data import template
from hyperrecon_jax.runtime.errors import InputError

FIELD_OF_VIEW = 224.0  # mm along both sides, at every size: the largest brain is 210 mm long, and 256 px are 0.875 mm each
CENTRE = np.array([0.0, -17.0, 6.0])  # mm, of the field of view and of every affine map
SLICE_RANGE = (-50.0, 62.0)  # mm, of the axial slices: in every subject each of them shows some of the brain
REACH = np.array([114.0, 114.0, 58.0])  # mm from the centre that random fields cover

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]  # the coordinates along z, y and x that span a grid, in mm from the centre


class Subject(NamedTuple):
    """The slices of a subject and their tissues."""

    images: np.ndarray  # (slices, size, size, 1) float32 in [0, 1]; anterior up, the subject's left on the left
    labels: np.ndarray  # (slices, size, size) uint8, indices into `physics.sample.LABELS`


class Field(NamedTuple):
    """A smooth random function of space, as coefficients of a cubic B-spline."""

    coefficients: np.ndarray  # (channels, z, y, x) float32
    spacing: float  # mm between coefficients


def random_field(rng: np.random.Generator, *, spacing: float, sd: float, channels: int = 1) -> Field:
    """A random field whose values have mean 0 and standard deviation `sd`, on average over space."""
    shape = [int(np.ceil(2 * r / spacing)) + 3 for r in REACH[::-1]]
    gain = (151 / 315) ** 1.5  # of a cubic B-spline with unit coefficients, in three dimensions
    return Field(rng.standard_normal((channels, *shape), np.float32) * np.float32(sd / gain), spacing)


def evaluate_field(field: Field, axes: Axes, derivative: int | None = None) -> np.ndarray:
    """The values of a field on a grid, or its derivative along an axis.

    Args:
        field: the field.
        axes: axes of the grid, within REACH.
        derivative: 0, 1, 2 for d/dz, d/dy, d/dx in units per mm; None for the values.

    Returns:
        `(channels, z, y, x)` float32.
    """
    values = field.coefficients
    for axis, (coordinates, reach) in enumerate(zip(axes, REACH[::-1], strict=True)):
        # Four coefficients act on a point: gathering them is faster than a matrix product, and starts no BLAS threads.
        cells = values.shape[axis + 1] - 3
        t = (coordinates + reach) / field.spacing
        cell = np.clip(np.floor(t).astype(np.intp), 0, cells - 1)
        weights = spline_weights(t - cell, field.spacing if axis == derivative else None).astype(np.float32)
        shape = [-1 if i == axis + 1 else 1 for i in range(4)]
        values = sum(np.take(values, cell + k, axis + 1) * w.reshape(shape) for k, w in enumerate(weights))
    return values


def spline_weights(f: np.ndarray, spacing: float | None) -> np.ndarray:
    """The weights `(4, n)` of the four coefficients around each point.

    Args:
        f: `(n,)`, position of the points in their cells, in [0, 1].
        spacing: None for the value; the spacing of the coefficients for the derivative.
    """
    g = 1 - f
    if spacing is None:
        return np.stack([g**3, 4 - 6 * f**2 + 3 * f**3, 4 - 6 * g**2 + 3 * g**3, f**3]) / 6
    return np.stack([-(g**2), 3 * f**2 - 4 * f, 4 * g - 3 * g**2, f**2]) / (2 * spacing)


class Anatomy(NamedTuple):
    """The template, prepared for interpolation; volumes `(x, y, z)` with one voxel of background around them."""

    t1: np.ndarray  # float32 cubic-spline coefficients of the sharpened T1, 0..1; continued smoothly outside the brain
    labels: np.ndarray  # uint8
    anchors: np.ndarray  # (3,) typical T1 intensity of CSF, gray and white matter


@functools.cache
def load_anatomy() -> Anatomy:
    """The template, sharpened against the blur of averaging, and its tissue labels. Computed once in a process."""
    atlas = template.load()
    raw, gm, wm = (np.pad(v, 1).astype(np.float32) / 255 for v in atlas)
    brain = raw > 0

    def smooth(volume, sigma):  # within the brain only, so that its rim is no edge
        weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma, truncate=3)
        return ndimage.gaussian_filter(np.where(brain, volume, 0), sigma, truncate=3) / np.maximum(weight, 1e-3)

    fine, coarse = smooth(raw, 1.0), smooth(raw, 3.0)
    sharp = np.where(brain, raw + 2.0 * (raw - fine) + 0.6 * (raw - coarse), fine)
    labels = _label_voxels(gm, wm, brain)
    csf = brain * (1 - gm - wm)
    anchors = np.array([np.median(sharp[p > 0.9]) for p in (csf, gm, wm)])
    return Anatomy(ndimage.spline_filter(np.clip(sharp, -0.3, 1.2), output=np.float32), labels, anchors)


def _label_voxels(gm: np.ndarray, wm: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The most probable tissue of each voxel. Gray matter is cortex, except in deep nuclei and the cerebellum."""
    tissue = 1 + np.argmax(np.stack([gm, wm, brain - gm - wm]), axis=0)
    x, y, z = np.ogrid[tuple(slice(o - 1, o - 1 + n) for o, n in zip(template.ORIGIN, brain.shape, strict=True))]
    x = np.abs(x)
    nuclei = ((x - 15) / 19) ** 2 + ((y + 6) / 30) ** 2 + ((z - 4) / 17) ** 2 < 1
    caudate = ((x - 15) / 11) ** 2 + ((y + 8) / 34) ** 2 + ((z - 18) / 13) ** 2 < 1
    medial_temporal = ((x - 25) / 12) ** 2 + ((y + 20) / 22) ** 2 + ((z + 17) / 9) ** 2 < 1
    cerebellum = (y < -38) & (z < -6 - 0.42 * x - 0.5 * np.maximum(-70 - y, 0))
    brainstem = (z < -3) & (np.abs(y + 24 - 0.42 * (z + 8)) < 14) & (x < np.where(z < -45, 10, 15))
    tissue = np.where(brainstem & (tissue == 1), 2, tissue)  # mixed fibres and nuclei; white matter for FreeSurfer, too
    cortex = (tissue == 1) & ~(nuclei | caudate | medial_temporal | cerebellum)
    return np.where(brain, np.where(cortex, 4, tissue), 0).astype(np.uint8)


class Pose(NamedTuple):
    """The map from a subject's space to the template's: centre + matrix (p - centre + displacement(p))."""

    matrix: np.ndarray  # (3, 3) on (x, y, z)
    displacements: tuple[Field, ...]  # three channels each: x, y, z in mm


def random_pose(rng: np.random.Generator) -> Pose:
    """An affine map and a displacement at three scales that does not fold.

    Rotations have a standard deviation of 4 degrees, scales of 4.5 %. Both are limited to 2.5 times that, so that every
    brain fits the field of view. There is no left-right flip: the atlas is exactly symmetric, so only the displacement
    makes left differ from right, and the distribution of displacements is symmetric, too.
    """
    angles, scales = np.clip(rng.standard_normal((2, 3)), -2.5, 2.5)
    c, s = np.cos(np.deg2rad(4 * angles)), np.sin(np.deg2rad(4 * angles))
    about_x = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    about_y = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    matrix = about_x @ about_y @ about_z / (1 + 0.045 * scales)
    fields = tuple(random_field(rng, spacing=h, sd=sd, channels=3) for h, sd in ((45.0, 1.6), (22.0, 0.5), (11.0, 0.3)))
    # This grid is far finer than the splines bend. The loop ends, because smaller displacements bring the determinant to 1.
    lattice = (np.arange(-58, 59, 4.0), np.arange(-112, 113, 4.0), np.arange(-112, 113, 4.0))
    while jacobian(fields, lattice).min() < 0.3:
        fields = tuple(f._replace(coefficients=0.9 * f.coefficients) for f in fields)
    return Pose(matrix, fields)


def jacobian(displacements: tuple[Field, ...], axes: Axes) -> np.ndarray:
    """The determinant `(z, y, x)` of p -> p + displacement(p): the local change of volume, positive where nothing folds."""
    columns = [sum(evaluate_field(f, axes, axis) for f in displacements) for axis in (2, 1, 0)]  # d/dx, d/dy, d/dz
    return np.linalg.det(np.eye(3) + np.stack(columns, axis=-1).transpose(1, 2, 3, 0, 4))


def template_coordinates(pose: Pose, axes: Axes) -> np.ndarray:
    """Template positions of the points of a grid in subject space: `(3, z, y, x)` (x, y, z in voxels of `Anatomy`)."""
    z, y, x = axes
    points = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]))
    moved = points + sum(evaluate_field(f, axes) for f in pose.displacements)
    return np.einsum("ij,jzyx->izyx", pose.matrix, moved) + (CENTRE - template.ORIGIN + 1)[:, None, None, None]


def synthesize_subject(seed: int | np.random.SeedSequence, *, size: int, slices: int) -> Subject:
    """A synthetic subject: axial slices, evenly spaced from inferior to superior, and their tissue labels.

    Args:
        seed: equal seeds give equal subjects.
        size: pixels along both sides of the field of view of 224 mm.
        slices: number of slices.

    Raises:
        InputError: if `size` or `slices` is not a positive whole number.
    """
    for name, value in (("size", size), ("slices", slices)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise InputError(f"`{name}` must be a positive whole number, got {value!r}.")
    rng = np.random.default_rng(seed)
    appearance = random_appearance(rng, load_anatomy().anchors)
    pose = random_pose(rng)
    oversampling = max(1, int(np.ceil(FIELD_OF_VIEW / size / 1.2)))  # points per pixel and side, at most 1.2 mm apart
    fine_size = size * oversampling
    ticks = (np.arange(fine_size) + 0.5) * FIELD_OF_VIEW / fine_size - FIELD_OF_VIEW / 2
    edges = np.linspace(*SLICE_RANGE, slices + 1) - CENTRE[2]
    heights = (edges[1:] + edges[:-1]) / 2
    images, labels = [], []
    for z in heights[:, None]:  # slice by slice, so that the arrays fit in the processor's cache, which is faster
        axes = (z, -ticks, ticks)  # rows run from anterior to posterior
        coordinates = template_coordinates(pose, axes)
        image = _render(appearance, coordinates, axes)
        images.append(image.reshape(-1, size, oversampling, size, oversampling).mean((2, 4)))
        pixel_centres = coordinates.reshape(3, -1, size, oversampling, size, oversampling).mean((3, 5))
        labels.append(nearest_voxels(load_anatomy().labels, pixel_centres))
    image = np.concatenate(images)
    inside = image > 0  # outside the brain there is no noise, as in skull-stripped images
    draws = rng.standard_normal((2, np.count_nonzero(inside)), np.float32) * np.float32(appearance.noise)
    image[inside] = np.hypot(image[inside] + draws[0], draws[1])
    return Subject(np.clip(image, 0, 1)[..., None], np.concatenate(labels))


def _render(appearance: "Appearance", coordinates: np.ndarray, axes: Axes) -> np.ndarray:
    """Intensity `(z, y, x)` without noise; 0 outside the brain.

    Args:
        appearance: the subject's appearance.
        coordinates: coordinates of the grid, in the template.
        axes: axes of the grid, in subject space.
    """
    t1, labels, anchors = load_anatomy()
    label = nearest_voxels(labels, coordinates)
    brain = label > 0
    t1 = ndimage.map_coordinates(t1, coordinates[:, brain], order=3, prefilter=False, output=np.float32)

    def sample(field):
        return evaluate_field(field, axes)[:, brain]

    value = np.interp(t1, appearance.curve_t1, appearance.curve_value)
    cortex = np.interp(t1, anchors, (0, 1, 0)) * (label[brain] >= 3)
    folds = np.exp(-((sample(appearance.folds)[0] / 0.22) ** 2))
    value -= appearance.fold_depth * cortex * folds * (value - appearance.tissue[0])
    white = np.interp(t1, anchors, (0, 0, 1))
    value -= appearance.vessel_depth * white * np.exp(-(sample(appearance.vessels) ** 2).sum(0) / 0.12**2)
    value += sample(appearance.grain)[0] * np.interp(t1, anchors, appearance.grain_sd)
    value *= np.exp(sample(appearance.bias)[0])
    image = np.zeros(brain.shape, np.float32)
    image[brain] = np.maximum(value, 1e-3)  # above 0, which marks the outside
    return image


def nearest_voxels(volume: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """The voxels nearest to coordinates `(3, ...)`; outside the volume its border, which is background."""
    i, j, k = (
        np.clip(np.rint(values), 0, n - 1).astype(np.intp) for values, n in zip(coordinates, volume.shape, strict=True)
    )
    return volume[i, j, k]


class Appearance(NamedTuple):
    """How a subject's tissues appear."""

    curve_t1: np.ndarray  # a monotone curve from T1 intensity of the template ...
    curve_value: np.ndarray  # ... to intensity of the subject
    tissue: np.ndarray  # (3,) intensity of CSF, gray and white matter
    bias: Field  # logarithm of the coil's sensitivity
    grain: Field  # fine texture of unit standard deviation
    grain_sd: np.ndarray  # (3,) its standard deviation in CSF, gray and white matter
    folds: Field  # zero on random surfaces, along which CSF darkens the cortex as in narrow sulci
    fold_depth: float  # share of the way from gray matter to CSF
    vessels: Field  # two channels, both zero along random lines: small vessels in white matter
    vessel_depth: float
    noise: float  # standard deviation of each channel of the Rician noise


def random_appearance(rng: np.random.Generator, anchors: np.ndarray) -> Appearance:
    """The random contrast, bias field, texture and noise of a subject; `anchors` are those of `Anatomy`."""
    from scipy import interpolate  # here, because it is slow to import

    white = rng.uniform(0.68, 0.82)
    tissue = white * np.array([rng.uniform(0.12, 0.28), rng.uniform(0.58, 0.72), 1.0])
    # Flat near the anchor of a tissue and steep between two: real texture becomes weaker, and borders of tissues sharper.
    flat_share, flat_slope = 0.25, 0.6
    gaps, steps = flat_share * np.diff(anchors), flat_share * flat_slope * np.diff(tissue)
    nodes = [
        (-0.3, 0.7 * tissue[0]),
        (anchors[0] + gaps[0], tissue[0] + steps[0]),
        (anchors[1] - gaps[0], tissue[1] - steps[0]),
        (anchors[1] + gaps[1], tissue[1] + steps[1]),
        (anchors[2] - gaps[1], tissue[2] - steps[1]),
        (1.2, 1.1 * tissue[2]),
    ]
    curve_t1 = np.linspace(-0.3, 1.2, 1024)
    return Appearance(
        curve_t1=curve_t1,
        curve_value=interpolate.PchipInterpolator(*zip(*nodes, strict=True))(curve_t1).astype(np.float32),
        tissue=tissue,
        bias=random_field(rng, spacing=70.0, sd=0.05),
        grain=random_field(rng, spacing=1.3, sd=1.0),
        grain_sd=white * np.array([0.05, 0.065, 0.033]) * rng.uniform(0.8, 1.2),
        folds=random_field(rng, spacing=5.0, sd=1.0),
        fold_depth=rng.uniform(0.5, 0.8),
        vessels=random_field(rng, spacing=6.0, sd=1.0, channels=2),
        vessel_depth=white * rng.uniform(0.1, 0.25),
        noise=rng.uniform(0.010, 0.018),
    )


def split_seeds(seed: int, subjects: tuple[int, int, int]) -> tuple[list[np.random.SeedSequence], ...]:
    """The seeds of the training, validation and test subjects.

    The seed of a subject depends only on `seed`, its split and its number in it. So no seed is in two splits, and a larger
    split begins with the subjects of a smaller split.
    """
    return tuple(
        [np.random.SeedSequence(seed, spawn_key=(split, number)) for number in range(count)]
        for split, count in enumerate(subjects)
    )
