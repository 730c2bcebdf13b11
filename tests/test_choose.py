"""The best lambda against closed forms and a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrecon_jax import choose, hyperparams
from hyperrecon_jax.errors import InputError


@pytest.mark.parametrize("target", [(0.3,), (0.617, 0.234), (0.1, 0.9, 0.55)])
def test_the_top_of_a_hill_is_found(target):
    hill = jnp.array(target)
    lam, value = jax.jit(lambda starts: choose.best_lambda(lambda lam: 7 - jnp.sum((lam - hill) ** 2), starts))(
        hyperparams.grid(4, len(target))
    )
    np.testing.assert_allclose(lam, hill, atol=2e-3)
    np.testing.assert_allclose(value, 7, atol=1e-5)


def test_of_two_hills_the_higher_one_is_climbed_and_the_value_is_that_of_the_result():
    def value(lam):
        return jnp.exp(-60 * (lam[0] - 0.12) ** 2) + 1.5 * jnp.exp(-60 * (lam[0] - 0.83) ** 2)

    lam, best = choose.best_lambda(value, hyperparams.grid(6, 1))
    grid = jnp.linspace(0, 1, 10001)[:, None]
    values = jax.vmap(value)(grid)
    np.testing.assert_allclose(lam, grid[values.argmax()], atol=2e-3)
    np.testing.assert_allclose(best, value(lam))


def test_outside_the_cube_the_nearest_corner_is_best():
    lam, _ = choose.best_lambda(lambda lam: lam[0] - 3 * lam[1], hyperparams.grid(3, 2))
    np.testing.assert_allclose(lam, [1, 0])


def test_without_a_gradient_it_is_the_best_start():
    starts = jnp.array([[0.1], [0.5], [0.8]])
    lam, value = choose.best_lambda(lambda lam: jnp.round(2 * lam[0]), starts)
    assert (float(lam[0]), float(value)) == (pytest.approx(0.8), 2)


def test_a_start_without_a_value_is_passed_over():
    lam, value = choose.best_lambda(
        lambda lam: jnp.where(lam[0] < 0.2, jnp.nan, 1 - lam[0] ** 2), jnp.array([[0.0], [0.5]])
    )
    np.testing.assert_allclose([lam[0], value], [0.2, 0.96], atol=0.02)


@pytest.mark.parametrize("shape", [(3,), (0, 1)])
def test_starts_of_another_shape(shape):
    with pytest.raises(InputError, match="`starts` must have shape"):
        choose.best_lambda(jnp.sum, jnp.zeros(shape))
