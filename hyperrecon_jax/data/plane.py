"""Drawing in the plane of an image: smooth random fields, textures, and shapes with soft edges.

NumPy and SciPy only. A plane is a square of `size` x `size` pixels. Its coordinates run from -1 to 1 along both sides,
x to the right and y down; a pixel is 2 / size wide. A shape is a signed distance, negative inside. Its edge is one pixel
wide, so it looks like an edge that was averaged over pixels.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import fft, sparse

from hyperrecon_jax.data.population import spline_weights

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of (x, y), both relative to the centre of the shape


@functools.lru_cache(maxsize=32)
def pixel_centres(size: int) -> np.ndarray:
    """The coordinates `(size,)` float32 of the pixels along a side."""
    return ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)


def lattice_points(cells: int) -> np.ndarray:
    """The coordinates `(cells + 3,)` along a side of the coefficients that `evaluate_lattice` takes."""
    return (np.arange(cells + 3, dtype=np.float32) - 1) * 2 / cells - 1


def evaluate_lattice(coefficients: np.ndarray, size: int) -> np.ndarray:
    """A cubic B-spline at the pixels of a plane. It smooths: values of a linear function stay, finer ones are blurred.

    Args:
        coefficients: `(..., cells + 3, cells + 3)`, at the points (y, x) of `lattice_points`.
        size: pixels along a side.

    Returns:
        `(..., size, size)` float32.
    """
    weights = _lattice_weights(coefficients.shape[-1] - 3, size)
    flat = coefficients.astype(np.float32, copy=False).reshape(-1, *coefficients.shape[-2:])
    values = np.stack([(weights @ (weights @ channel).T).T for channel in flat])
    return values.reshape(*coefficients.shape[:-2], size, size)


@functools.lru_cache(maxsize=128)
def _lattice_weights(cells: int, size: int) -> sparse.csr_array:
    """The matrix `(size, cells + 3)` from coefficients to pixels. Sparse: it is fast, and starts no BLAS threads."""
    t = (pixel_centres(size) + 1) * cells / 2
    cell = np.clip(np.floor(t).astype(np.intp), 0, cells - 1)
    columns = cell[:, None] + np.arange(4)
    values = spline_weights(t - cell, None).T.astype(np.float32)
    return sparse.csr_array((values.ravel(), columns.ravel(), np.arange(0, 4 * size + 1, 4)), shape=(size, cells + 3))


def smooth_field(rng: np.random.Generator, size: int, *, cells: int) -> np.ndarray:
    """A smooth random field `(size, size)` with mean 0 and standard deviation 1; `cells` are its bumps along a side."""
    gain = 151 / 315  # of a cubic B-spline with unit coefficients, in two dimensions
    return evaluate_lattice(rng.standard_normal((cells + 3, cells + 3), np.float32) / np.float32(gain), size)


def power_law_texture(rng: np.random.Generator, size: int, *, exponent: float, finest: float = 0.0) -> np.ndarray:
    """Gaussian noise `(size, size)` whose amplitude falls as frequency^-exponent; mean 0, standard deviation 1.

    Args:
        rng: source of the noise.
        size: pixels along a side.
        exponent: 1 is the spectrum of natural images; 2 is smooth.
        finest: wavelength in pixels below which there is nothing.
    """
    radius, log_radius = _frequencies(size)
    gain = np.exp(np.float32(-exponent) * log_radius - (radius * np.float32(finest)) ** 2)
    gain[0, 0] = 0
    texture = fft.irfft2(fft.rfft2(rng.standard_normal((size, size), np.float32)) * gain, (size, size))
    return texture / max(float(texture.std()), 1e-6)


@functools.lru_cache(maxsize=8)
def _frequencies(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequency `(size, size // 2 + 1)` in cycles per pixel, and its logarithm; 1 and 0 in the place of zero frequency."""
    radius = np.hypot(fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None]).astype(np.float32)
    radius[0, 0] = 1
    return radius, np.log(radius)


def coverage(distance: np.ndarray, width: float) -> np.ndarray:
    """The share of a pixel that is inside a shape: 1 inside, 0 outside, and linear over `width` in between."""
    return np.clip(0.5 - distance / np.float32(width), 0, 1)


def blend(image: np.ndarray, share: np.ndarray, value: np.ndarray | np.floating[Any] | float) -> None:
    """Replace `share` of the image by `value`, in place."""
    image += share * (value - image)


def paint(
    image: np.ndarray, distance: Distance, value: float, *, centre: tuple[float, float], reach: float, opacity: float = 1.0
) -> None:
    """Paint a shape on the image, in place.

    Args:
        image: `(size, size)`.
        distance: signed distance to the edge of the shape.
        value: its intensity.
        centre: (x, y) of the shape.
        reach: no part of the shape is farther from its centre than this.
        opacity: 1 hides what is below.
    """
    size = len(image)
    x, y = map(np.float32, centre)
    columns, rows = (_pixels_within(float(c), reach, size) for c in (x, y))
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return
    ticks = pixel_centres(size)
    share = coverage(distance(ticks[None, columns] - x, ticks[rows, None] - y), 2 / size)
    blend(image[rows, columns], np.float32(opacity) * share, np.float32(value))


def _pixels_within(middle: float, reach: float, size: int) -> slice:
    """The pixels of a side that are within `reach` of `middle`, and one more at each end."""
    start, stop = (int((middle + r + 1) * size / 2 + margin) for r, margin in ((-reach, -1), (reach, 2)))
    return slice(max(start, 0), min(max(stop, 0), size))


def ellipse(radii: tuple[float, float], angle: float) -> Distance:
    """The distance to an ellipse, exact near its edge to first order."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    a, b = map(np.float32, radii)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = (c * x + s * y) / a, (c * y - s * x) / b
        radius = np.sqrt(u * u + v * v)
        return radius * (radius - 1) / np.maximum(np.sqrt((u / a) ** 2 + (v / b) ** 2), np.float32(1e-6))

    return distance


def polygon(angles: np.ndarray, offsets: np.ndarray) -> Distance:
    """The distance to a convex polygon: sides at right angles to `angles`, in radians, `offsets` away from the centre."""
    sides = [(np.float32(np.cos(a)), np.float32(np.sin(a)), np.float32(o)) for a, o in zip(angles, offsets, strict=True)]

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        values = sides[0][0] * x + sides[0][1] * y - sides[0][2]
        for c, s, offset in sides[1:]:
            np.maximum(values, c * x + s * y - offset, out=values)
        return values

    return distance


def line(offset: tuple[float, float], radius: float) -> Distance:
    """The distance to a line of half width `radius` from -offset to +offset."""
    dx, dy = map(np.float32, offset)
    squared = max(float(dx * dx + dy * dy), 1e-12)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        t = np.clip((x * dx + y * dy) / np.float32(squared), -1, 1)
        return np.hypot(x - t * dx, y - t * dy) - np.float32(radius)

    return distance
