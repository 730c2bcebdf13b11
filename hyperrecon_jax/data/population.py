"""A population of synthetic T1-weighted brains: the carried average anatomy under seeded deformation and contrast.

Every subject is the ICBM 152 average (`template.py`) seen through a smooth deformation without folds, a monotone
contrast of its own, a bias field, texture in place of what the averaging of 152 people washed out, and a little Rician
noise. What such subjects test is unseen deformation and contrast of ONE anatomy, not new people: the large sulci, for
one, are the same in all of them.

NumPy and SciPy only. A subject is a pure function of its seed: geometry, contrast and texture are defined in
millimetres, so that the same seed is the same brain at every size; only the noise belongs to the pixels.

Every random field is a cubic B-spline with independent Gaussian coefficients on a lattice. It is evaluated, with exact
derivatives, only where it is needed and axis by axis; nothing is computed for slices that nobody asked for.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from hyperrecon_jax.data import template
from hyperrecon_jax.runtime.errors import InputError

FIELD_OF_VIEW = 224.0  # mm, both ways, at every size: the largest brain here is 210 mm long, and 256 px are 0.875 mm each
CENTRE = np.array([0.0, -17.0, 6.0])  # mm, of the field of view and of every affine map
SLICE_RANGE = (-50.0, 62.0)  # mm, of the axial slices: the brain fills some of each of them in every subject
REACH = np.array([114.0, 114.0, 58.0])  # mm from the centre that random fields cover

Span = tuple[np.ndarray, np.ndarray, np.ndarray]  # coordinates (z, y, x) in mm from the centre


class Subject(NamedTuple):
    images: np.ndarray  # (slices, size, size, 1) float32 in [0, 1]; anterior up, the subject's left on the left
    labels: np.ndarray  # (slices, size, size) uint8, indices into `physics.sample.LABELS`


class Field(NamedTuple):
    """A smooth random function of space."""

    coefficients: np.ndarray  # (channels, z, y, x) float32
    spacing: float  # mm between coefficients


def random_field(rng: np.random.Generator, *, spacing: float, sd: float, channels: int = 1) -> Field:
    """A field of zero mean whose values have standard deviation `sd`, on average over space."""
    shape = [int(np.ceil(2 * r / spacing)) + 3 for r in REACH[::-1]]
    gain = (151 / 315) ** 1.5  # of a cubic B-spline with unit coefficients, in three dimensions
    return Field(rng.standard_normal((channels, *shape), np.float32) * np.float32(sd / gain), spacing)


def evaluate(field: Field, span: Span, derivative: int | None = None) -> np.ndarray:
    """Values of a field on the grid that `span` spans, or its derivative along one axis.

    Args:
        span: coordinates along z, y and x in mm from the centre, within REACH.
        derivative: 0, 1, 2 for d/dz, d/dy, d/dx in units per mm.

    Returns:
        `(channels, z, y, x)` float32.
    """
    values = field.coefficients
    for axis, (at, reach) in enumerate(zip(span, REACH[::-1], strict=True)):
        # Four coefficients act on a point: gathering them beats a matrix product, and leaves BLAS threads alone.
        cells = values.shape[axis + 1] - 3
        t = (at + reach) / field.spacing
        cell = np.clip(np.floor(t).astype(np.intp), 0, cells - 1)
        weights = _cubic(t - cell, field.spacing if axis == derivative else None).astype(np.float32)
        shape = [-1 if i == axis + 1 else 1 for i in range(4)]
        values = sum(np.take(values, cell + k, axis + 1) * w.reshape(shape) for k, w in enumerate(weights))
    return values


def _cubic(f: np.ndarray, spacing: float | None) -> np.ndarray:
    """Weights `(4, n)` of the coefficients around points at fractions f of their cells; their d/dx, given a spacing."""
    g = 1 - f
    if spacing is None:
        return np.stack([g**3, 4 - 6 * f**2 + 3 * f**3, 4 - 6 * g**2 + 3 * g**3, f**3]) / 6
    return np.stack([-(g**2), 3 * f**2 - 4 * f, 4 * g - 3 * g**2, f**2]) / (2 * spacing)


class Anatomy(NamedTuple):
    """The template, ready to be sampled; volumes `(x, y, z)`, with one voxel of background around them."""

    t1: np.ndarray  # float32 cubic-spline coefficients of the sharpened T1, 0..1; continued smoothly outside the brain
    labels: np.ndarray  # uint8
    anchors: np.ndarray  # (3,) T1 of CSF, gray and white matter


@functools.cache
def anatomy() -> Anatomy:
    """The template with the blur of averaging partly undone, and its tissue labels. Computed once a process."""
    atlas = template.load()
    raw, gm, wm = (np.pad(v, 1).astype(np.float32) / 255 for v in atlas)
    brain = raw > 0

    def smooth(volume, sigma):  # within the brain only, so that its rim is no edge
        weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma, truncate=3)
        return ndimage.gaussian_filter(np.where(brain, volume, 0), sigma, truncate=3) / np.maximum(weight, 1e-3)

    near, far = smooth(raw, 1.0), smooth(raw, 3.0)
    sharp = np.where(brain, raw + 2.0 * (raw - near) + 0.6 * (raw - far), near)
    labels = _label(gm, wm, brain)
    csf = brain * (1 - gm - wm)
    anchors = np.array([np.median(sharp[p > 0.9]) for p in (csf, gm, wm)])
    return Anatomy(ndimage.spline_filter(np.clip(sharp, -0.3, 1.2), output=np.float32), labels, anchors)


def _label(gm: np.ndarray, wm: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The likeliest tissue of each voxel; gray matter is cortex unless its place says deep gray or cerebellum."""
    tissue = 1 + np.argmax(np.stack([gm, wm, brain - gm - wm]), axis=0)
    x, y, z = np.ogrid[tuple(slice(o - 1, o - 1 + n) for o, n in zip(template.ORIGIN, brain.shape, strict=True))]
    x = np.abs(x)
    nuclei = ((x - 15) / 19) ** 2 + ((y + 6) / 30) ** 2 + ((z - 4) / 17) ** 2 < 1
    caudate = ((x - 15) / 11) ** 2 + ((y + 8) / 34) ** 2 + ((z - 18) / 13) ** 2 < 1
    medial_temporal = ((x - 25) / 12) ** 2 + ((y + 20) / 22) ** 2 + ((z + 17) / 9) ** 2 < 1
    cerebellum = (y < -38) & (z < -6 - 0.42 * x - 0.5 * np.maximum(-70 - y, 0))
    brainstem = (z < -3) & (np.abs(y + 24 - 0.42 * (z + 8)) < 14) & (x < np.where(z < -45, 10, 15))
    tissue = np.where(brainstem & (tissue == 1), 2, tissue)  # mixed fibres and nuclei; FreeSurfer's white group, too
    cortex = (tissue == 1) & ~(nuclei | caudate | medial_temporal | cerebellum)
    return np.where(brain, np.where(cortex, 4, tissue), 0).astype(np.uint8)


class Pose(NamedTuple):
    """The map from a subject's space to the template's: centre + matrix (p - centre + displacement(p))."""

    matrix: np.ndarray  # (3, 3) on (x, y, z)
    displacements: tuple[Field, ...]  # three channels each: x, y, z in mm


def random_pose(rng: np.random.Generator) -> Pose:
    """An affine map and a displacement at three scales that does not fold.

    Rotations have a standard deviation of 4 degrees, scales of 4.5 %, both cut at 2.5 of these so that every brain fits
    the field of view. There is no left-right flip: the atlas is exactly symmetric, so that only the displacement makes
    left differ from right, and its distribution is symmetric, too.
    """
    angles, scales = np.clip(rng.standard_normal((2, 3)), -2.5, 2.5)
    c, s = np.cos(np.deg2rad(4 * angles)), np.sin(np.deg2rad(4 * angles))
    about_x = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    about_y = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    matrix = about_x @ about_y @ about_z / (1 + 0.045 * scales)
    fields = tuple(random_field(rng, spacing=h, sd=sd, channels=3) for h, sd in ((45.0, 1.6), (22.0, 0.5), (11.0, 0.3)))
    # Far finer than the splines bend. A smaller displacement of the same shape always ends the loop: det -> 1.
    lattice = (np.arange(-58, 59, 4.0), np.arange(-112, 113, 4.0), np.arange(-112, 113, 4.0))
    while jacobian(fields, lattice).min() < 0.3:
        fields = tuple(f._replace(coefficients=0.9 * f.coefficients) for f in fields)
    return Pose(matrix, fields)


def jacobian(displacements: tuple[Field, ...], span: Span) -> np.ndarray:
    """Determinant `(z, y, x)` of p -> p + displacement(p): the local volume, positive where nothing folds."""
    columns = [sum(evaluate(f, span, axis) for f in displacements) for axis in (2, 1, 0)]  # d/dx, d/dy, d/dz
    return np.linalg.det(np.eye(3) + np.stack(columns, axis=-1).transpose(1, 2, 3, 0, 4))


def transform(pose: Pose, span: Span) -> np.ndarray:
    """Template coordinates `(3, z, y, x)` (x, y, z in voxels of `Anatomy`) of the points of a grid in subject space."""
    z, y, x = span
    points = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]))
    moved = points + sum(evaluate(f, span) for f in pose.displacements)
    return np.einsum("ij,jzyx->izyx", pose.matrix, moved) + (CENTRE - template.ORIGIN + 1)[:, None, None, None]


def subject(seed: int | np.random.SeedSequence, *, size: int, slices: int) -> Subject:
    """One synthetic subject: axial slices spread evenly from inferior to superior, and their tissue labels.

    Args:
        seed: equal seeds give equal subjects.
        size: pixels along both sides of the field of view of 224 mm.
        slices: how many slices.

    Raises:
        InputError: if `size` or `slices` is not a positive whole number.
    """
    for name, value in (("size", size), ("slices", slices)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise InputError(f"`{name}` must be a positive whole number, got {value!r}.")
    rng = np.random.default_rng(seed)
    look = _random_look(rng, anatomy().anchors)
    pose = random_pose(rng)
    fine = max(1, int(np.ceil(FIELD_OF_VIEW / size / 1.2)))  # samples a pixel and side, at most 1.2 mm apart
    ticks = (np.arange(size * fine) + 0.5) * FIELD_OF_VIEW / (size * fine) - FIELD_OF_VIEW / 2
    edges = np.linspace(*SLICE_RANGE, slices + 1) - CENTRE[2]
    heights = (edges[1:] + edges[:-1]) / 2
    images, labels = [], []
    for z in heights[:, None]:  # one at a time: the arrays stay small and in the cache, which is faster than all at once
        at = transform(pose, (z, -ticks, ticks))  # rows run from anterior to posterior
        image = _paint(look, at, (z, -ticks, ticks))
        images.append(image.reshape(-1, size, fine, size, fine).mean((2, 4)))
        labels.append(_nearest(anatomy().labels, at.reshape(3, -1, size, fine, size, fine).mean((3, 5))))
    image = np.concatenate(images)
    inside = image > 0  # the skull is stripped, and with it the noise outside
    draws = rng.standard_normal((2, np.count_nonzero(inside)), np.float32) * np.float32(look.noise)
    image[inside] = np.hypot(image[inside] + draws[0], draws[1])
    return Subject(np.clip(image, 0, 1)[..., None], np.concatenate(labels))


def _paint(look: "Look", at: np.ndarray, span: Span) -> np.ndarray:
    """Noiseless intensity `(z, y, x)` at template coordinates `at` of the grid `span`; 0 outside the brain."""
    t1, labels, anchors = anatomy()
    label = _nearest(labels, at)
    brain = label > 0
    t1 = ndimage.map_coordinates(t1, at[:, brain], order=3, prefilter=False, output=np.float32)

    def sample(field):
        return evaluate(field, span)[:, brain]

    value = np.interp(t1, look.curve_t1, look.curve_value)
    cortex = np.interp(t1, anchors, (0, 1, 0)) * (label[brain] >= 3)
    value -= look.fold_depth * cortex * np.exp(-((sample(look.folds)[0] / 0.22) ** 2)) * (value - look.tissue[0])
    white = np.interp(t1, anchors, (0, 0, 1))
    value -= look.vessel_depth * white * np.exp(-(sample(look.vessels) ** 2).sum(0) / 0.12**2)
    value += sample(look.grain)[0] * np.interp(t1, anchors, look.grain_sd)
    value *= np.exp(sample(look.bias)[0])
    image = np.zeros(brain.shape, np.float32)
    image[brain] = np.maximum(value, 1e-3)  # so that inside the brain stays told from outside
    return image


def _nearest(volume: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Voxels nearest to coordinates `(3, ...)`; beyond the volume is its border, which is background."""
    i, j, k = (np.clip(np.rint(a), 0, n - 1).astype(np.intp) for a, n in zip(at, volume.shape, strict=True))
    return volume[i, j, k]


class Look(NamedTuple):
    """How a subject's tissues appear."""

    curve_t1: np.ndarray  # a monotone curve from template T1 ...
    curve_value: np.ndarray  # ... to intensity
    tissue: np.ndarray  # (3,) intensity of CSF, gray and white matter
    bias: Field  # logarithm of the coil's sensitivity
    grain: Field  # fine texture of unit standard deviation
    grain_sd: np.ndarray  # (3,) its size in CSF, gray and white matter
    folds: Field  # zero on random sheets, along which CSF darkens the cortex as in narrow sulci
    fold_depth: float  # share of the way from gray matter to CSF
    vessels: Field  # two channels, both zero on random threads: small vessels in white matter
    vessel_depth: float
    noise: float  # standard deviation of either channel of the Rician noise


def _random_look(rng: np.random.Generator, anchors: np.ndarray) -> Look:
    from scipy import interpolate  # here, because it is slow to import

    white = rng.uniform(0.68, 0.82)
    tissue = white * np.array([rng.uniform(0.12, 0.28), rng.uniform(0.58, 0.72), 1.0])
    # Flat near a tissue's anchor and steep between two: real texture stays, weakened, and borders of tissues sharpen.
    flat, keep = 0.25, 0.6
    gaps, steps = flat * np.diff(anchors), flat * keep * np.diff(tissue)
    nodes = [
        (-0.3, 0.7 * tissue[0]),
        (anchors[0] + gaps[0], tissue[0] + steps[0]),
        (anchors[1] - gaps[0], tissue[1] - steps[0]),
        (anchors[1] + gaps[1], tissue[1] + steps[1]),
        (anchors[2] - gaps[1], tissue[2] - steps[1]),
        (1.2, 1.1 * tissue[2]),
    ]
    curve_t1 = np.linspace(-0.3, 1.2, 1024)
    return Look(
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
    """Seeds of the training, validation and test subjects.

    The seed of a subject depends on `seed`, its split and its place in it, and on nothing else: no seed is in two
    splits, and a larger split begins with the subjects of a smaller one.
    """
    return tuple(
        [np.random.SeedSequence(seed, spawn_key=(split, place)) for place in range(count)]
        for split, count in enumerate(subjects)
    )
