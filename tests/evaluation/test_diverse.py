"""Images that are good and far apart, against plain loops and SciPy."""

import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from hyperrecon_jax.evaluation import diverse
from hyperrecon_jax.runtime.errors import InputError


def images(m=23, *shape, seed=0):
    """By default more pixels than are read at a time."""
    return np.random.default_rng(seed).random((m, *(shape or (30, 20, 1))), np.float32)


def distances(x):
    return distance.squareform(distance.pdist(np.asarray(x, np.float64).reshape(len(x), -1)))


def furthest_by_loop(x):
    pairs = itertools.combinations(range(len(x)), 2)
    far = {(i, j): np.linalg.norm(np.asarray(x[i], np.float64) - np.asarray(x[j], np.float64)) for i, j in pairs}
    return max(far, key=far.get)  # of equals the first


def test_good_is_the_best_tenth():
    quality = np.random.default_rng(0).permutation(100.0 + np.arange(1000))
    expected = [i for i in range(1000) if quality[i] >= np.percentile(quality, 90)]
    np.testing.assert_array_equal(diverse.select_good(quality), expected)
    assert len(expected) == 100
    np.testing.assert_array_equal(diverse.select_good(jnp.asarray(quality, jnp.float32)), expected)


@pytest.mark.parametrize("m", [11, 40, 41, 97])
@pytest.mark.parametrize("percentile", [0, 25, 50, 90, 100])
def test_good_is_at_or_above_the_percentile_as_numpy_has_it(m, percentile):
    quality = np.random.default_rng(m).integers(0, 20, m).astype(float)
    best_two = quality >= np.sort(quality)[-2]
    expected = np.flatnonzero((quality >= np.percentile(quality, percentile)) | best_two)
    np.testing.assert_array_equal(diverse.select_good(quality, percentile=percentile), expected)


def test_good_are_two_at_least_where_there_are_two():
    np.testing.assert_array_equal(diverse.select_good(np.array([30.0])), [0])
    np.testing.assert_array_equal(diverse.select_good(np.array([31.0, 30.0])), [0, 1])
    np.testing.assert_array_equal(diverse.select_good(np.array([31.0, 29.0, 33.0]), percentile=100), [0, 2])
    np.testing.assert_array_equal(diverse.select_good(np.array([30.0] * 4)), [0, 1, 2, 3])
    np.testing.assert_array_equal(diverse.select_good(np.array([np.inf, 30.0, np.inf, 31.0])), [0, 2])


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_furthest_pair_equals_a_loop_and_scipy(convert):
    x = images()
    i, j, apart = diverse.furthest_pair(convert(x))
    assert (i, j) == furthest_by_loop(x)
    assert apart == pytest.approx(distances(x).max(), rel=1e-12)
    assert [type(value) for value in (i, j, apart)] == [int, int, float]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_furthest_pair_of_other_floats(dtype):
    x = images().astype(dtype)
    i, j, apart = diverse.furthest_pair(x)
    assert (i, j) == furthest_by_loop(x)
    assert apart == pytest.approx(distances(x).max(), rel=1e-12)


def test_a_common_offset_changes_nothing():
    x = images().astype(np.float64)
    offset = 100 * images(1, seed=1)
    i, j, apart = diverse.furthest_pair(x + offset)
    assert (i, j) == diverse.furthest_pair(x)[:2]
    assert apart == pytest.approx(diverse.furthest_pair(x)[2], rel=1e-10)
    np.testing.assert_array_equal(diverse.diverse_set(x + offset, 6), diverse.diverse_set(x, 6))


def test_bright_images_that_are_nearly_equal():
    """Their squared distances are 1e-13 of their squared lengths, which even double precision would cancel to noise."""
    steps = np.random.default_rng(0).integers(0, 4, (30, 400))
    x = (1 - steps * 2.0**-24).astype(np.float32)
    assert len(np.unique(x)) == 4
    i, j, apart = diverse.furthest_pair(x)
    expected = distance.pdist(steps.astype(float)).max()
    assert apart == pytest.approx(expected * 2.0**-24, rel=1e-12)
    assert np.linalg.norm(steps[i] - steps[j]) == pytest.approx(expected)
    assert (i, j) == furthest_by_loop(steps)


def test_of_equal_distances_the_first_pair():
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)  # two diagonals
    assert diverse.furthest_pair(corners) == (0, 2, pytest.approx(np.sqrt(2)))
    assert diverse.furthest_pair(np.ones((5, 3), np.float32)) == (0, 1, 0.0)
    x = images(12, 33)
    i, j, _ = diverse.furthest_pair(x)
    twice = np.concatenate([x, x[[j, i]], x])  # copies do not come before what they copy
    assert diverse.furthest_pair(twice)[:2] == (i, j)


@pytest.mark.parametrize("k", [1, 2, 5, 23])
def test_diverse_set_equals_a_loop(k):
    x = images()
    apart = distances(x)
    expected = list(furthest_by_loop(x))
    while len(expected) < k:
        left = [i for i in range(len(x)) if i not in expected]
        expected.append(max(left, key=lambda i: apart[i, expected].min()))
    np.testing.assert_array_equal(diverse.diverse_set(x, k), expected[:k])
    np.testing.assert_array_equal(diverse.diverse_set(jax.device_put(x), k), expected[:k])


def test_diverse_set_holds_no_image_twice():
    assert sorted(diverse.diverse_set(np.ones((5, 3), np.float32), 5)) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(diverse.diverse_set(np.ones((1, 3), np.float32), 1), [0])


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_no_second_copy_of_the_images(convert):
    x = convert(images(128, 96, 96))
    pixels = 128 * diverse.PIXELS * 8  # bytes that are alive at a time, and as many from the step before
    for select in (lambda: diverse.furthest_pair(x), lambda: diverse.diverse_set(x, 4)):
        select()  # the first call also loads libraries
        tracemalloc.start()
        select()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * pixels < x.nbytes / 2


def test_wrong_input_is_named():
    with pytest.raises(InputError, match=r"`quality` must have shape \(m,\) with m of at least 1, got \(2, 3\)"):
        diverse.select_good(np.zeros((2, 3)))
    with pytest.raises(InputError, match="`quality` must have shape"):
        diverse.select_good(np.zeros(0))
    with pytest.raises(InputError, match="`quality` must not be NaN, got NaN at index 1"):
        diverse.select_good(np.array([1.0, np.nan]))
    with pytest.raises(InputError, match=r"`percentile` must be in \[0, 100\], got 101"):
        diverse.select_good(np.zeros(3), percentile=101)
    with pytest.raises(InputError, match="`images` must be 2 or more, got 1"):
        diverse.furthest_pair(images(1))
    with pytest.raises(InputError, match=r"`images` must be float \(m, ...\), got int32 of shape \(3, 4\)"):
        diverse.furthest_pair(np.zeros((3, 4), np.int32))
    for k in (0, 24):
        with pytest.raises(InputError, match=rf"`k` must be in \[1, 23\], the number of images, got {k}"):
            diverse.diverse_set(images(), k)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("bad", [0, 5])
def test_images_that_are_not_finite_are_named(value, bad):
    x = images()
    x[bad, 1, 1] = value
    with pytest.raises(InputError, match=f"`images` must be finite, but image {bad} is not"):
        diverse.furthest_pair(x)
    with pytest.raises(InputError, match="`images` must be finite, but image 0 is not"):
        diverse.diverse_set(x[bad:][:1], 1)
