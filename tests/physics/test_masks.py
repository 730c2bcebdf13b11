"""The masks against what their docstrings promise: the exact count, the density, the distances and the centre."""

import itertools
import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from hyperrecon_jax.physics import masks
from hyperrecon_jax.runtime.errors import InputError

SHAPES = [(64, 64), (33, 47), (40, 96), (31, 16), (128, 127)]
DEFAULT_4X = {"acceleration": 4, "order": 2, "extent": 1.68, "dense": 0.35, "center": 4}


def radius(shape):
    """Frequency in units of Nyquist, zero in the corner."""
    down, right = np.meshgrid(*(np.fft.fftfreq(n) * 2 for n in shape), indexing="ij")
    return np.hypot(down, right)


def nearest(mask):
    """Distance of every sample to the nearest other one, around the edges, in pixels."""
    points = np.argwhere(mask)
    return points, cKDTree(points, boxsize=mask.shape).query(points, k=2)[0][:, 1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("acceleration", [1, 1.03, 1.5, 2, 3.21, 4, 5.7, 8, 12])
def test_poisson_disc_has_the_exact_count(shape, acceleration):
    for seed in range(3):
        mask = masks.poisson_disc(shape, acceleration=acceleration, seed=seed)
        assert mask.shape == shape
        assert mask.dtype == np.float32
        assert set(np.unique(mask)) <= {0, 1}
        assert mask.sum() == round(math.prod(shape) / acceleration)


@pytest.mark.parametrize("shape", [(4, 4), (4, 5), (7, 5), (8, 9)])
def test_poisson_disc_has_the_exact_count_on_the_smallest_grids(shape):
    """Down to the fewest points there can be: those of the centre."""
    for seed, count in itertools.product(range(3), range(20, math.prod(shape) + 1)):
        assert masks.poisson_disc(shape, acceleration=math.prod(shape) / count, seed=seed).sum() == count


@pytest.mark.parametrize("acceleration", [30, 100, 1000])
def test_poisson_disc_ends_at_any_acceleration(acceleration):
    assert masks.poisson_disc((256, 192), acceleration=acceleration).sum() == round(256 * 192 / acceleration)


@pytest.mark.parametrize("acceleration", masks.AUTHORS)
def test_authors_masks_have_their_count_density_and_center(acceleration):
    mask = masks.poisson_disc_authors((256, 256), acceleration=acceleration)
    dense, side = {3.210: (56, 10), 7.305: (24, 4)}[acceleration]
    assert mask.sum() == {3.210: 20416, 7.305: 8971}[acceleration]
    assert mask[radius((256, 256)) * 128 < dense].all()
    assert mask[np.ix_(np.r_[-side // 2 : side // 2], np.r_[-side // 2 : side // 2])].all()


@pytest.mark.parametrize("shape", [(256, 256), (160, 256)])
@pytest.mark.parametrize("acceleration", [4, 8])
def test_poisson_disc_follows_the_polynomial(shape, acceleration):
    """Averaged over rings 0.08 of Nyquist wide, and not only over all angles but in each quarter of the plane."""
    r, dense = radius(shape), 1.4 / acceleration
    mask = masks.poisson_disc(shape, acceleration=acceleration)
    assert mask[r < dense].all()
    outer = r >= dense
    polynomial = ((1 - r / 1.68) ** math.log2(acceleration))[outer]
    c = mask[outer].sum() / polynomial.sum()
    assert 0.5 < c < 0.65
    ring = ((r[outer] - dense) / 0.08).astype(int)
    size, actual, expected = (np.bincount(ring, values) for values in (np.ones(ring.shape), mask[outer], c * polynomial))
    np.testing.assert_allclose((actual / size)[size > 50], (expected / size)[size > 50], atol=0.01)

    middle = tuple(n // 2 for n in shape)
    for quarter in itertools.product(*([np.s_[:m], np.s_[m:]] for m in middle)):
        np.testing.assert_allclose(mask[quarter].mean(), mask.mean(), rtol=0.04)


def test_polynomial_density_sums_to_the_count():
    density = masks.polynomial_density((256, 256), **DEFAULT_4X)
    np.testing.assert_allclose(density.sum(), 256**2 / 4)
    assert density.min() > 0
    assert density.max() == 1
    with pytest.raises(InputError, match=r"`extent` must be above sqrt\(2\), the corner of k-space, got 1.4"):
        masks.polynomial_density((256, 256), **(DEFAULT_4X | {"extent": 1.4}))


@pytest.mark.parametrize("acceleration", [4, 8])
def test_poisson_disc_keeps_samples_apart(acceleration):
    """The nearest neighbour is well farther than for independent draws of the same density, and farther further out."""
    shape = (256, 256)
    mask = masks.poisson_disc(shape, acceleration=acceleration)
    settings = {**DEFAULT_4X, "order": math.log2(acceleration), "dense": 1.4 / acceleration}
    density = masks.polynomial_density(shape, **(settings | {"acceleration": acceleration}))
    random = np.random.default_rng(0).random(shape) < density

    def spacing(mask, low, high):
        points, distance = nearest(mask)
        p = density[tuple(points.T)]
        chosen = (p > low) & (p <= high)
        return distance[chosen], (distance * np.sqrt(p))[chosen]

    shortest = []
    for low, high in [(0.2, 0.4), (0.1, 0.2), (0.05, 0.1), (0.02, 0.05)]:
        distance, relative = spacing(mask, low, high)
        shortest.append(distance.min())
        assert relative.min() > 0.5
        assert relative.mean() > 1.25 * spacing(random, low, high)[1].mean()
    assert shortest == sorted(shortest)
    assert shortest[-1] > 2 * shortest[0]


@pytest.mark.parametrize("name", masks.MASKS)
def test_masks_are_a_function_of_the_seed_and_sample_the_lowest_frequency(name):
    acceleration = 3.21 if name == "poisson_disc_authors" else 4
    first, same, other = (masks.make(name, (64, 96), acceleration=acceleration, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert first[0, 0] == other[0, 0] == 1
    center = np.fft.fftshift(first)[31:34, 47:50]
    assert center.all()


@pytest.mark.parametrize("draw", [masks.random_lines, masks.equispaced_lines])
@pytest.mark.parametrize("w", [32, 47, 128, 368])
@pytest.mark.parametrize("acceleration", [1, 2.5, 4, 8])
def test_lines_have_the_exact_count_and_a_full_center(draw, w, acceleration):
    for seed in range(5):
        mask = draw((9, w), acceleration=acceleration, seed=seed)
        assert mask.dtype == np.float32
        assert (mask == mask[:1]).all()
        assert mask[0].sum() == round(w / acceleration)
        size = max(1, round(0.32 * w / acceleration))
        start = (w - size + 1) // 2  # as in fastMRI, whose masks have zero frequency at w // 2
        assert np.fft.fftshift(mask[0])[start : start + size].all()


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25])
def test_lines_take_the_center_fraction(fraction):
    mask = masks.random_lines((8, 200), acceleration=4, center_fraction=fraction)
    assert mask[0].sum() == 50
    assert np.fft.fftshift(mask[0])[100 - round(100 * fraction) : 100 + round(100 * fraction)].all()


def test_equispaced_lines_have_the_step_of_fastmri_and_every_offset():
    """(w - centre) / (w / acceleration - centre), to the rounding of a column, on either side of the centre."""
    w, size = 320, 26
    step = (w - size) / (w / 4 - size)
    starts = set()
    for seed in range(40):
        columns = np.flatnonzero(np.fft.fftshift(masks.equispaced_lines((4, w), acceleration=4, seed=seed)[0]))
        low, high = (w - size + 1) // 2, (w - size + 1) // 2 + size
        starts.add(columns[0])
        for side in (columns[columns < low], columns[columns >= high]):
            assert set(np.diff(side)) <= {math.floor(step), math.ceil(step)}
    assert starts == set(range(math.ceil(step)))


def test_random_lines_are_uniform_outside_of_the_center():
    draws = np.mean([masks.random_lines((4, 64), acceleration=4, seed=seed)[0] for seed in range(1000)], axis=0)
    outer = draws[draws < 1]
    np.testing.assert_allclose(outer, (16 - 5) / (64 - 5), atol=0.06)


@pytest.mark.parametrize("name", masks.MASKS)
def test_masks_name_impossible_arguments(name):
    make = masks.MASKS[name]
    possible = {"acceleration": 3.21}
    for shape in [(64,), (2, 64, 64), (3, 64), (64, 0), (64, 6.5)]:
        with pytest.raises(InputError, match=r"`shape` must be \(h, w\), whole numbers of at least 4, got"):
            make(shape, **possible)
    for acceleration in (0.99, 0, -4, float("nan"), float("inf"), "4"):
        with pytest.raises(InputError, match=r"`acceleration`.* must be"):
            make((64, 64), acceleration=acceleration)
    for seed in (-1, 0.5):
        with pytest.raises(InputError, match="`seed` must be a whole number of at least 0, got"):
            make((64, 64), **possible, seed=seed)


def test_masks_name_fewer_samples_than_the_center():
    with pytest.raises(InputError, match="`acceleration` 5 leaves 13 of 8 x 8 points, expected at least the 16 of"):
        masks.poisson_disc((8, 8), acceleration=5)
    with pytest.raises(InputError, match="leaves 80 of 16 x 16 points, expected at least the"):
        masks.poisson_disc_authors((16, 16), acceleration=3.21)
    with pytest.raises(InputError, match="`acceleration` 8 leaves 8 of 64 columns, expected at least the 16 of"):
        masks.random_lines((64, 64), acceleration=8, center_fraction=0.25)
    with pytest.raises(InputError, match="`center_fraction` must be above 0 and at most 1, got 0"):
        masks.random_lines((64, 64), acceleration=8, center_fraction=0)
    with pytest.raises(InputError, match=r"must be one of \[3.21, 7.305\], got 4"):
        masks.poisson_disc_authors((256, 256), acceleration=4)


def test_make_lists_the_known_masks():
    with pytest.raises(InputError, match=r"must be one of \['equispaced_lines', 'poisson_disc', .*\], got 'spiral'"):
        masks.make("spiral", (64, 64), acceleration=4)
