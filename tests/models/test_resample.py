"""Pooling and up-sampling against plain definitions, and the derivatives of up-sampling against matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax.models.resample import max_pool, upsample

SHAPES = [(3, 5, 2), (4, 4, 1), (1, 7, 2)]


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def interpolation(n):
    """The matrix `(2n, n)` of linear interpolation with aligned corners, float64."""
    return np.stack([np.interp(np.linspace(0, n - 1, 2 * n), np.arange(n), row) for row in np.eye(n)], axis=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_upsample_equals_linear_interpolation_with_aligned_corners(shape):
    x = random(0, *shape)
    expected = np.einsum("Hh,Ww,hwc->HWc", interpolation(shape[0]), interpolation(shape[1]), x)
    np.testing.assert_allclose(jax.jit(upsample)(x), expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_derivative_of_upsample_is_the_transposed_matrix_and_the_second_is_the_matrix(shape):
    h, w, c = shape
    x, ct, direction = random(0, *shape), random(1, 2 * h, 2 * w, c), random(2, *shape)
    pull_back = jax.jit(lambda ct: jax.vjp(upsample, x)[1](ct)[0])
    expected = np.einsum("Hh,Ww,HWc->hwc", interpolation(h), interpolation(w), ct)
    np.testing.assert_allclose(pull_back(ct), expected, atol=3e-6)
    (second,) = jax.vjp(pull_back, ct)[1](direction)
    np.testing.assert_allclose(second, jax.jit(upsample)(direction), atol=1e-6)


def test_max_pool_equals_a_loop():
    x = random(0, 6, 4, 3)
    expected = [[x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(2)] for i in range(3)]
    np.testing.assert_array_equal(max_pool(x), expected)


@pytest.mark.parametrize("function", [max_pool, upsample])
def test_bfloat16_is_rounded_once(function):
    x = jnp.asarray(random(0, 8, 12, 4), jnp.bfloat16)
    ct = jnp.asarray(random(1, *jax.eval_shape(function, x).shape), jnp.bfloat16)
    wide_y, wide_pull_back = jax.vjp(function, x.astype(jnp.float32))
    y, pull_back = jax.vjp(function, x)
    assert y.dtype == pull_back(ct)[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, wide_y.astype(jnp.bfloat16))
    np.testing.assert_array_equal(pull_back(ct)[0], wide_pull_back(ct.astype(jnp.float32))[0].astype(jnp.bfloat16))
