"""Random scenes without anatomy: shapes, lines, grids, strokes like writing, vessel trees, dead leaves, textures.

A network that has seen only heads takes what it measures for a head. Scenes have edges and textures at every scale and
in every direction, so what they teach is how to invert the measurement. NumPy and SciPy only; `plane.py` draws.
"""

import numpy as np

from hyperrecon_jax.data import plane


def draw_scene(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random scene `(size, size)` float32, values around [0, 1]; most of them lie on a ground of 0."""
    image = _draw_ground(rng, size)
    for i in rng.choice(len(PAINTERS), rng.integers(2, 5), replace=False, p=SHARES):
        PAINTERS[i](rng, image)
    if rng.random() < 0.75:  # an object on an empty ground, as in a scan
        image *= _support(rng, size)
    return image


def add_shapes(rng: np.random.Generator, image: np.ndarray) -> None:
    """Add one kind of shapes to an image, in place, with values from its own range."""
    painter = PAINTERS[rng.choice(len(PAINTERS), p=SHARES)]
    top = float(image.max())
    layer = image / max(top, 1e-6)
    painter(rng, layer)
    image[:] = top * layer


def _draw_ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A constant, a smooth gradient, a texture, or regions of a texture."""
    kind = rng.random()
    if kind < 0.3:
        return np.full((size, size), rng.uniform(0, 0.6), np.float32)
    if kind < 0.5:
        field = plane.smooth_field(rng, size, cells=int(rng.integers(1, 5)))
        return np.clip(0.5 + 0.25 * field, 0, None).astype(np.float32)
    texture = plane.power_law_texture(rng, size, exponent=rng.uniform(1.2, 2.4), finest=rng.uniform(2.0, 5.0))
    if kind < 0.75:
        return np.clip(rng.uniform(0.3, 0.6) + rng.uniform(0.05, 0.25) * texture, 0, None).astype(np.float32)
    image = np.full((size, size), rng.uniform(0, 0.8), np.float32)
    for level in np.sort(rng.uniform(-1.2, 1.2, rng.integers(1, 5))):  # regions between the heights of a landscape
        slope = np.hypot(*np.gradient(texture)) + 1e-3
        plane.blend(image, plane.coverage((level - texture) / slope, 1.5), rng.uniform(0, 1))
    return image


def _support(rng: np.random.Generator, size: int) -> np.ndarray:
    """A mask `(size, size)` of one region with a soft edge: an ellipse, a polygon, or a smooth random outline."""
    mask = np.zeros((size, size), np.float32)
    centre, radius = rng.uniform(-0.2, 0.2, 2).tolist(), rng.uniform(0.45, 0.95)
    kind = rng.random()
    if kind < 0.4:
        plane.paint(
            mask, plane.ellipse((radius, radius * rng.uniform(0.6, 1)), rng.uniform(0, np.pi)), 1, centre=centre, reach=2
        )
    elif kind < 0.65:
        plane.paint(mask, _random_polygon(rng, radius), 1, centre=centre, reach=2)
    else:
        ticks = plane.pixel_centres(size)
        outline = np.hypot(ticks[None] - centre[0], ticks[:, None] - centre[1])
        outline = outline + np.float32(rng.uniform(0.02, 0.12)) * plane.smooth_field(
            rng, size, cells=int(rng.integers(4, 9))
        )
        mask = plane.coverage(outline - radius, 2 / size)
    return mask


def _random_radius(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _random_value(rng: np.random.Generator) -> float:
    return float(rng.uniform(0, 1)) if rng.random() < 0.8 else float(rng.choice([0.0, 1.0]))


def _random_polygon(rng: np.random.Generator, radius: float) -> plane.Distance:
    sides = int(rng.integers(3, 8))
    angles = (np.arange(sides) + rng.uniform(-0.3, 0.3, sides)) * 2 * np.pi / sides + rng.uniform(0, 2 * np.pi)
    return plane.polygon(angles, radius * rng.uniform(0.6, 1, sides))


def _paint_shapes(rng: np.random.Generator, image: np.ndarray) -> None:
    """Ellipses, bars and polygons of all sizes."""
    for _ in range(rng.integers(3, 30)):
        radius, angle = _random_radius(rng, 0.01, 0.5), rng.uniform(0, np.pi)
        aspect = rng.uniform(0.25, 1)
        kind, reach = rng.random(), radius
        if kind < 0.5:
            distance = plane.ellipse((radius, radius * aspect), angle)
        elif kind < 0.75:
            distance, reach = _random_polygon(rng, radius), 3 * radius
        else:
            quarter = angle + np.pi / 2 * np.arange(4)
            distance, reach = plane.polygon(quarter, radius * np.array([1, aspect, 1, aspect])), 1.5 * radius
        centre, opacity = tuple(rng.uniform(-0.9, 0.9, 2)), rng.choice([1.0, rng.uniform(0.1, 0.9)])
        plane.paint(image, distance, _random_value(rng), centre=centre, reach=reach, opacity=opacity)


def _paint_lines(rng: np.random.Generator, image: np.ndarray) -> None:
    """Straight lines of all widths, some in parallel, as in a grid or a resolution phantom."""
    angle, value = rng.uniform(0, np.pi), _random_value(rng)
    for _ in range(rng.integers(1, 5)):
        length, radius = _random_radius(rng, 0.1, 1.5), _random_radius(rng, 0.004, 0.03)
        count, gap = int(rng.integers(1, 9)), radius * rng.uniform(3, 8)
        first = rng.uniform(-0.8, 0.8, 2)
        angle = angle + np.pi / 2 if rng.random() < 0.5 else rng.uniform(0, np.pi)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        value = value if rng.random() < 0.5 else _random_value(rng)
        for i in range(count):
            line = plane.line(tuple(length / 2 * along), radius)
            plane.paint(image, line, value, centre=tuple(first + i * gap * across), reach=length / 2 + radius)


def _paint_strokes(rng: np.random.Generator, image: np.ndarray) -> None:
    """Rows of short strokes, like writing."""
    height, value = _random_radius(rng, 0.03, 0.2), _random_value(rng)
    left, top = rng.uniform(-0.9, 0.3, 2)
    for row in range(rng.integers(1, 5)):
        for column in range(rng.integers(2, 9)):
            corner = np.array([left + 0.8 * height * column, top + 1.5 * height * row])
            for _ in range(rng.integers(1, 4)):
                start, end = corner + height * rng.integers(0, 3, (2, 2)) / 2 * np.array([0.6, 1])
                centre, offset = (start + end) / 2, (end - start) / 2
                line = plane.line(tuple(offset), 0.06 * height)
                plane.paint(image, line, value, centre=tuple(centre), reach=float(np.hypot(*offset)) + 0.06 * height)


def _paint_leaves(rng: np.random.Generator, image: np.ndarray) -> None:
    """Dead leaves: discs that hide one another, with radii of a power law (Lee, Mumford and Huang, 2001)."""
    count, low, high = int(rng.integers(50, 160)), rng.uniform(0.01, 0.04), rng.uniform(0.2, 0.6)
    radii = (low**-2 + rng.random(count) * (high**-2 - low**-2)) ** -0.5
    spread = rng.uniform(0.1, 0.5)
    middle = rng.uniform(0.2, 0.8)
    for radius in radii:
        leaf = plane.ellipse((radius, radius * rng.uniform(0.5, 1)), rng.uniform(0, np.pi))
        value = float(np.clip(middle + spread * rng.uniform(-1, 1), 0, 1))
        plane.paint(image, leaf, value, centre=tuple(rng.uniform(-1, 1, 2)), reach=radius)


def paint_vessels(rng: np.random.Generator, image: np.ndarray, *, value: float | None = None) -> None:
    """Trees of vessels: each branch bends, becomes thinner and divides."""
    value = _random_value(rng) if value is None else value
    for _ in range(rng.integers(1, 4)):
        tips = [(rng.uniform(-0.8, 0.8, 2), rng.uniform(0, 2 * np.pi), _random_radius(rng, 0.008, 0.03))]
        for _ in range(40):
            start, angle, radius = tips.pop(0)
            step = rng.uniform(3, 9) * radius
            offset = step / 2 * np.array([np.cos(angle), np.sin(angle)])
            vessel = plane.line(tuple(offset), radius)
            plane.paint(image, vessel, value, centre=tuple(start + offset), reach=step / 2 + radius)
            end = start + 2 * offset
            if rng.random() < 0.3:
                turn = rng.uniform(0.3, 1)
                tips += [(end, angle + turn, 0.8 * radius), (end, angle - turn, 0.75 * radius)]
            else:
                tips.append((end, angle + rng.normal(0, 0.3), 0.97 * radius))


def _paint_texture(rng: np.random.Generator, image: np.ndarray) -> None:
    """Fine texture, in the whole image or in a part of it."""
    size = len(image)
    texture = plane.power_law_texture(rng, size, exponent=rng.uniform(0.6, 2), finest=rng.uniform(1.5, 4))
    strength = rng.uniform(0.02, 0.08) if rng.random() < 0.3 else rng.uniform(0, 0.02)
    where = _support(rng, size) if rng.random() < 0.5 else 1
    np.maximum(image + np.float32(strength) * texture * where, 0, out=image)


def _paint_waves(rng: np.random.Generator, image: np.ndarray) -> None:
    """Parallel stripes of one or of a changing width, with soft or sharp edges, in a part of the image."""
    size = len(image)
    ticks, angle = plane.pixel_centres(size), rng.uniform(0, np.pi)
    along = np.float32(np.cos(angle)) * ticks[None] + np.float32(np.sin(angle)) * ticks[:, None]
    period = _random_radius(rng, max(0.05, 8 / size), 0.4)
    wave = np.sin(2 * np.pi / np.float32(period) * (along + np.float32(rng.uniform(-0.15, 0.15)) * along**2))
    sharpness = rng.uniform(1, 0.25 * period * size)
    share = np.clip(0.5 + 0.5 * np.float32(sharpness) * wave, 0, 1) * _support(rng, size)
    plane.blend(image, np.float32(rng.uniform(0.2, 1)) * share, np.float32(_random_value(rng)))


PAINTERS = (_paint_shapes, _paint_lines, _paint_strokes, _paint_leaves, paint_vessels, _paint_texture, _paint_waves)
SHARES = (0.3, 0.12, 0.1, 0.14, 0.12, 0.12, 0.1)
