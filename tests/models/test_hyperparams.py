"""Coefficients against the equations written by hand, samplers against their statistics, grids against itertools."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.runtime.errors import InputError


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        ([], [1.0]),
        ([0.3], [0.7, 0.3]),  # Eq. 9
        ([0.3, 0.6], [0.3, 0.7 * 0.6, 0.7 * 0.4]),  # Eq. 10
        ([0.3, 0.6, 0.1], [0.3, 0.7 * 0.6, 0.7 * 0.4 * 0.1, 0.7 * 0.4 * 0.9]),
        ([0.0], [1.0, 0.0]),
        ([1.0], [0.0, 1.0]),
        ([0.0, 0.0], [0.0, 0.0, 1.0]),
        ([0.0, 1.0], [0.0, 1.0, 0.0]),
        ([1.0, 0.0], [1.0, 0.0, 0.0]),
        ([1.0, 1.0], [1.0, 0.0, 0.0]),
    ],
)
def test_coefficients_equal_the_equations(lam, expected):
    np.testing.assert_allclose(hyperparams.coefficients(lam), expected, rtol=1e-6)


@pytest.mark.parametrize("num_terms", [1, 2, 3, 4, 7])
def test_coefficients_are_weights_however_they_are_mapped(num_terms):
    lam = hyperparams.uniform(jax.random.key(0), (5, 20, num_terms - 1))
    weights = jax.jit(hyperparams.coefficients)(lam)
    assert weights.shape == (5, 20, num_terms)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), np.ones((5, 20)), rtol=1e-6)
    mapped = jax.jit(jax.vmap(jax.vmap(hyperparams.coefficients)))
    np.testing.assert_allclose(mapped(lam), weights, rtol=1e-6)


@pytest.mark.parametrize("num_terms", [3, 4, 6])
def test_coefficients_equal_a_loop(num_terms):
    lam = np.random.default_rng(0).random(num_terms - 1)
    expected, left = [], 1.0
    for share in lam:
        expected.append(left * share)
        left *= 1 - share
    np.testing.assert_allclose(hyperparams.coefficients(lam), [*expected, left], rtol=1e-5)


@pytest.mark.parametrize("num_terms", [1, 2, 3, 4])
def test_each_corner_selects_its_term(num_terms):
    lams = hyperparams.corners(num_terms)
    assert lams.shape == (num_terms, num_terms - 1)
    np.testing.assert_array_equal(hyperparams.coefficients(lams), np.eye(num_terms))


def test_coefficients_have_finite_gradients_at_the_corners():
    jacobian = jax.jit(jax.vmap(jax.jacobian(hyperparams.coefficients)))(hyperparams.grid(2, 3))
    assert jnp.isfinite(jacobian).all()
    np.testing.assert_allclose(jacobian.sum(1), np.zeros((8, 3)), atol=1e-6)


def test_coefficients_name_a_scalar():
    with pytest.raises(InputError, match=r"`lam` must have shape \(\*b, K-1\), got a scalar"):
        hyperparams.coefficients(0.5)


SAMPLERS = {
    "uniform": hyperparams.uniform,
    "endpoints": functools.partial(hyperparams.endpoints, probability=0.3),
    "constant": functools.partial(hyperparams.constant, lam=[0.25, 0.5]),
}


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_samplers_fill_their_shape_and_depend_on_the_key_alone(sample):
    lam = jax.jit(sample, static_argnums=1)(jax.random.key(0), (6, 2))
    assert lam.shape == (6, 2)
    assert lam.dtype == jnp.float32
    assert ((lam >= 0) & (lam <= 1)).all()
    np.testing.assert_array_equal(sample(jax.random.key(0), (6, 2)), lam)


def test_uniform_is_uniform():
    lam = np.asarray(hyperparams.uniform(jax.random.key(1), (20_000, 2)))
    np.testing.assert_allclose(lam.mean(0), [0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(lam.var(0), [1 / 12, 1 / 12], atol=0.003)
    assert abs(np.corrcoef(lam.T)[0, 1]) < 0.03


def test_endpoints_over_samples_the_ends():
    lam = np.asarray(hyperparams.endpoints(jax.random.key(1), (20_000, 2), probability=0.3))
    np.testing.assert_allclose((lam == 0).mean(0), [0.15, 0.15], atol=0.01)
    np.testing.assert_allclose((lam == 1).mean(0), [0.15, 0.15], atol=0.01)
    inner = lam[(lam > 0) & (lam < 1)]
    np.testing.assert_allclose([inner.mean(), inner.var()], [0.5, 1 / 12], atol=0.01)
    assert abs(np.corrcoef(lam.T)[0, 1]) < 0.03


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_endpoints_names_a_wrong_probability(probability):
    with pytest.raises(InputError, match=rf"`probability` must be in \[0, 1\], got {probability}"):
        hyperparams.endpoints(jax.random.key(0), (4, 1), probability=probability)


def test_constant_repeats_its_value():
    lam = hyperparams.constant(jax.random.key(0), (3, 2), lam=(0.25, 0.5))
    np.testing.assert_array_equal(lam, [[0.25, 0.5]] * 3)


@pytest.mark.parametrize(("points", "num_lams"), [(2, 1), (5, 2), (3, 3), (4, 0)])
def test_grid_equals_itertools(points, num_lams):
    expected = np.asarray(list(itertools.product(np.linspace(0, 1, points), repeat=num_lams)))
    lam = hyperparams.grid(points, num_lams)
    assert lam.shape == (points**num_lams, num_lams)
    assert lam.dtype == jnp.float32
    np.testing.assert_allclose(lam, expected, rtol=1e-6)


def test_grid_holds_the_corners_exactly():
    lam = np.asarray(hyperparams.grid(100, 2))
    np.testing.assert_array_equal(lam[[0, 99, -100, -1]], [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_grid_names_wrong_sizes():
    with pytest.raises(InputError, match="`points` must be at least 2 to hold both ends, got 1"):
        hyperparams.grid(1, 2)
    with pytest.raises(InputError, match="`num_lams` must not be negative, got -1"):
        hyperparams.grid(3, -1)


@pytest.mark.parametrize("lam", [[0.0, 1.0], [[0.1, 0.2]] * 3, np.zeros((0, 2)), jnp.asarray([1.0, 0.0])])
def test_check_returns_what_is_right(lam):
    checked = hyperparams.check(lam, 3)
    assert checked.dtype == np.float32
    np.testing.assert_allclose(checked, lam, rtol=1e-6)


@pytest.mark.parametrize(
    ("lam", "message"),
    [
        ([0.5, 1.5], r"`lam` must be in \[0, 1\], got 1.5"),
        ([-0.25, 0.5], r"`lam` must be in \[0, 1\], got -0.25"),
        ([0.5, float("nan")], r"`lam` must be in \[0, 1\], got nan"),
        ([float("inf"), 0.5], r"`lam` must be in \[0, 1\], got inf"),
        ([0.5], r"`lam` must have a last axis of 2 for 3 loss terms, got \[0.5\] of shape \(1,\)"),
        (0.5, r"`lam` must have a last axis of 2 for 3 loss terms, got 0.5 of shape \(\)"),
        (["a", "b"], r"`lam` must be 2 numbers in \[0, 1\], got \['a', 'b'\]"),
        ([[0.5, 0.5], [0.5]], r"`lam` must be 2 numbers in \[0, 1\], got"),
        (None, r"`lam` must have a last axis of 2 for 3 loss terms, got None"),
    ],
)
def test_check_names_what_is_wrong(lam, message):
    with pytest.raises(InputError, match=message):
        hyperparams.check(lam, 3)
