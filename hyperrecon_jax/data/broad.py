"""Images as varied as people's scans: heads in any contrast, scenes without anatomy, and mixtures of both.

The population of `population.py` is one anatomy in one contrast, without a skull. A network that is trained on it
learns that anatomy. These images are to teach it to invert the measurement instead:

    65 %  heads in random planes and contrasts (`heads.py`, `brain.py`, `skull.py`), one out of five without its skull
    25 %  scenes (`scenes.py`): shapes, lines, strokes, vessels, dead leaves, textures at all scales
    10 %  heads with shapes or textures of a scene

Every image has the shading of a coil, a gamma, a sharpness and a brightness of its own. It is drawn on a finer grid and
averaged over pixels. The values are in [0, 1]; the 99.9th percentile is between 0.5 and 1 before
the last step, as where a volume is divided by its largest value. Fine texture is below 2 % in most.

At last each image is scanned (`scan`). Seven of ten get noise of their own, with a standard deviation of 0.3 to 3 %. Then
seven of ten are interpolated: a smooth cut-off leaves fewer frequencies than pixels, as in most images that scanners store.
In three of ten the dark background is set to zero. Images of people are like that. A network that has learned from perfect
images alone fills in frequencies that a scan does not have (docs/experiments/real_people.md).

Simulated are edges, textures, contrasts, their order, noise and resolution. Not simulated are true anatomy outside the
brain, the physics of a sequence, flow, motion, and artefacts. Brains have one anatomy, deformed.

A subject is one head. Its slices are images of it, each with its own plane and contrast, and scenes between them. An
image is a pure function of the seed, the number of the slice and the size; another size gives another image.
NumPy and SciPy only.
"""

import numpy as np
from scipy import ndimage

from hyperrecon_jax.data import brain, heads, plane, scenes, skull
from hyperrecon_jax.runtime.errors import InputError

RECIPE = "1.5.0"  # raise it if you change the pixels for the same settings
SHARES = {"head": 0.65, "scene": 0.25, "mixture": 0.1}  # of the images
NOISY = 0.7  # share of the images with noise of their own
INTERPOLATED = 0.7  # share of the images with fewer frequencies than pixels
BLACKENED = 0.3  # share of the images whose dark background is set to zero
STRIPPED = 0.2  # share of the heads that are a brain alone
FINE_SIZE = 160  # pixels along a side that an image is drawn with, at least, before it is averaged


def synthesize_subject(seed: int | np.random.SeedSequence, *, size: int, slices: int) -> np.ndarray:
    """The images of a synthetic subject.

    Args:
        seed: equal seeds give equal subjects.
        size: pixels along both sides.
        slices: number of images. Each depends on the seed and its own number only, not on how many there are.

    Returns:
        `(slices, size, size, 1)` float32 in [0, 1].

    Raises:
        InputError: if `size` or `slices` is not a positive whole number.
    """
    for name, value in (("size", size), ("slices", slices)):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise InputError(f"`{name}` must be a positive whole number, got {value!r}.")
    if not isinstance(seed, np.random.SeedSequence):
        seed = np.random.SeedSequence(seed)
    head = heads.random_head(np.random.default_rng(seed))
    seeds = [np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, i)) for i in range(slices)]
    return np.stack([synthesize_image(np.random.default_rng(child), head, size=size) for child in seeds])[..., None]


def synthesize_image(rng: np.random.Generator, head: heads.Head, *, size: int) -> np.ndarray:
    """A random image `(size, size)` float32 in [0, 1].

    Args:
        rng: source of everything but the head.
        head: from `heads.random_head`.
        size: pixels along both sides.
    """
    oversampling = max(1, round(FINE_SIZE / size + 0.3))
    kind = rng.choice(tuple(SHARES), p=tuple(SHARES.values()))
    if kind == "scene":
        image = scenes.draw_scene(rng, size * oversampling)
    else:
        image = draw_head(rng, head, size=size * oversampling)
    if kind == "mixture":
        scenes.add_shapes(rng, image)
    return _finish(rng, image, oversampling)


def draw_head(rng: np.random.Generator, head: heads.Head, *, size: int) -> np.ndarray:
    """An image `(size, size)` float32 of a head in any unit, at least 0: a random plane, contrast and fine structure.

    Args:
        rng: source of everything but the head.
        head: from `heads.random_head`.
        size: pixels along both sides.
    """
    is_stripped = bool(rng.random() < STRIPPED)
    view = heads.random_view(rng, head, size, is_stripped=is_stripped)
    tissues, labels = heads.random_tissues(rng), brain.find_labels(view)
    image = np.zeros((size, size), np.float32) if is_stripped else skull.draw_skull(rng, head, view, tissues, labels > 0)
    if labels.any():
        value, share = brain.draw_brain(rng, view, tissues, labels)
        plane.blend(image, share, value)
    return np.maximum(image, 0)


def _finish(rng: np.random.Generator, image: np.ndarray, oversampling: int) -> np.ndarray:
    """Shade, blur and average the image, and scale it to [0, 1]."""
    fine = len(image)
    size = fine // oversampling
    sharpness = rng.uniform(0.0, 0.4) if rng.random() < 0.8 else rng.uniform(0.4, 0.9)  # pixels of the result
    if sharpness > 0.2:
        image = ndimage.gaussian_filter(image, sharpness * oversampling, truncate=3)
    image = image.reshape(size, oversampling, size, oversampling).mean((1, 3))
    shading = plane.smooth_field(rng, size, cells=int(rng.integers(1, 4)))
    image = image * np.exp(np.float32(rng.choice([0.08, 0.2, 0.4], p=(0.5, 0.35, 0.15))) * shading)
    image = np.maximum(image, 0)
    top = np.quantile(image, 0.999)
    image = (image / max(float(top), 1e-6)) ** np.float32(rng.uniform(0.7, 1.4))
    if rng.random() < 0.1:
        image += np.float32(rng.uniform(0, 0.03))  # a ground that is not quite black
    return scan(rng, image * np.float32(1 - 0.5 * rng.random() ** 2))


def scan(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """An image `(h, w)` as a scanner stores it, in [0, 1]: a magnitude, with noise, interpolated, its background black.

    Args:
        rng: decides which of these happen, and how strongly.
        image: float, at least 0.
    """
    complex_image = image.astype(np.complex64)
    if rng.random() < NOISY:
        sigma = np.exp(rng.uniform(np.log(0.003), np.log(0.03)))
        noise = rng.standard_normal((*image.shape, 2), np.float32) @ np.array([1, 1j], np.complex64)
        complex_image += np.float32(sigma) * noise
    is_blackened = rng.random() < BLACKENED
    mask = ndimage.uniform_filter(complex_image.real, 5) > 0.02 if is_blackened else np.array(True)
    if rng.random() < INTERPOLATED:
        rows, columns = (random_window(rng, size) for size in image.shape)
        complex_image = np.fft.ifft2(np.fft.fft2(complex_image) * rows[:, None] * columns[None]).astype(np.complex64)
    return np.clip(np.abs(complex_image) * mask, 0, 1).astype(np.float32)


def random_window(rng: np.random.Generator, size: int) -> np.ndarray:
    """The share of each frequency that is left, `(size,)`, FFT order: 1 at zero, 0 beyond a cut-off, smooth between."""
    cutoff = rng.uniform(0.6, 1.1)  # of the highest frequency
    taper = rng.uniform(0.05, 1.0)  # of the cut-off: where the cosine is
    distance = (np.abs(np.fft.fftfreq(size)) * 2 / cutoff - (1 - taper)) / taper
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(distance, 0, 1))).astype(np.float32)
