"""Choosing lambda: against closed forms, a grid, and what must not reach the network."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helper import Net
from random_models import random_model

from hyperrecon_jax import losses
from hyperrecon_jax.evaluation import choose
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.models import hyperparams, model
from hyperrecon_jax.physics import masks, operators
from hyperrecon_jax.physics.sample import Coils
from hyperrecon_jax.runtime.errors import InputError

withhold = jax.jit(choose.withhold, static_argnames="fraction")
partition = jax.jit(choose.partition, static_argnames="fraction")


class Mix(nn.Module):
    """x_hat = weights . channels: with a hypernetwork that hands the coefficients on, linear in them."""

    @nn.compact
    def __call__(self, y):
        return (y @ self.param("weights", nn.initializers.zeros, (2,)))[..., None]


def mix():
    """K = 2: (1 - lambda) y_0 + lambda y_1; K = 3: lambda_1 y_0 + (1 - lambda_1) lambda_2 y_1."""
    hyper = SimpleNamespace(apply=lambda variables, coefficients: {("weights",): coefficients[:2]})
    return model.Model(Mix(), hyper), {"params": {"hyper": {}, "main": {}}, "batch_stats": {}}


def small(num_terms):
    return random_model(Net("instance"), num_terms=num_terms, hyper_width=4)


def negative_mse(x_hat, x):
    return -metrics.mse(x_hat, x)


def images(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


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

    lam, best = jax.jit(partial(choose.best_lambda, value))(hyperparams.grid(6, 1))
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


def test_one_lambda_for_all_images_and_one_for_each_are_those_of_least_squares():
    """x_hat = (1 - lam) y_0 + lam y_1: the best lambda is the projection of x - y_0 on y_1 - y_0, clipped."""
    networks, variables = mix()
    net_input = images(5, 6, 6, 2)
    shares = np.array([0.1, 0.35, 0.5, 0.9, 1.4], np.float32)  # the last one out of reach
    y0, step = net_input[..., :1], net_input[..., 1:] - net_input[..., :1]
    truth = y0 + shares[:, None, None, None] * step
    starts = hyperparams.grid(5, 1)

    together = choose.mean_value(networks, variables, negative_mse, net_input, truth)
    lam, value = jax.jit(lambda starts: choose.best_lambda(together, starts))(starts)
    expected = np.sum((truth - y0) * step) / np.sum(step**2)
    np.testing.assert_allclose(lam, [expected], atol=2e-3)
    np.testing.assert_allclose(value, -np.mean((y0 + expected * step - truth) ** 2), rtol=1e-3)

    choose_per_image = jax.jit(partial(choose.for_each, networks, variables, negative_mse, steps=40))
    lams, values = choose_per_image(net_input, truth, starts)
    np.testing.assert_allclose(lams[:, 0], np.minimum(shares, 1), atol=3e-3)
    np.testing.assert_allclose(values[:4], 0, atol=1e-5)


def test_with_three_losses_the_shares_of_two_channels_are_found():
    networks, variables = mix()
    net_input = images(3, 6, 6, 2)
    value = choose.mean_value(
        networks, variables, negative_mse, net_input, net_input @ np.array([[0.3], [0.4]], np.float32)
    )
    lam, _ = jax.jit(partial(choose.best_lambda, value, steps=150))(hyperparams.grid(5, 2))
    np.testing.assert_allclose(lam, [0.3, 0.4 / 0.7], atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("num_terms", [2, 3])
def test_of_a_hypernetwork_the_mean_its_gradient_and_the_best_of_a_grid(num_terms):
    """In chunks (five images are no multiple of them) and all at once it is the same; no point of a grid is better."""
    networks, variables = small(num_terms)
    net_input, truth = images(5, 16, 16, 2), images(6, 16, 16, 1)[1:]
    value = choose.mean_value(networks, variables, metrics.psnr, net_input, truth)

    @jax.jit
    @jax.value_and_grad
    def plain(lam):
        x_hat = jax.vmap(lambda y: model.reconstruct(networks, variables, lam, y))(net_input)
        return jnp.mean(metrics.psnr(x_hat, truth))

    lam = jnp.full(num_terms - 1, 0.4)
    (actual, slope), (expected, expected_slope) = jax.jit(jax.value_and_grad(value))(lam), plain(lam)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-3, atol=1e-6)
    _, best = jax.jit(partial(choose.best_lambda, value))(hyperparams.grid(3, num_terms - 1))
    on_grid = [float(plain(lam)[0]) for lam in hyperparams.grid({2: 41, 3: 9}[num_terms], num_terms - 1)]
    assert best >= max(on_grid) - 1e-4


@pytest.mark.parametrize(("net_input", "truth"), [((0, 4, 4, 2), (0, 4, 4, 1)), ((2, 4, 4, 2), (3, 4, 4, 1))])
def test_images_and_targets_must_be_as_many(net_input, truth):
    with pytest.raises(InputError, match="`targets` must be as many as the images"):
        choose.mean_value(*mix(), negative_mse, jnp.zeros(net_input), jnp.zeros(truth))
    with pytest.raises(InputError, match="`targets` must be as many as the images"):
        choose.for_each(*mix(), negative_mse, jnp.zeros(net_input), jnp.zeros(truth), jnp.zeros((1, 1)))


MASKS = [("poisson_disc", (32, 24), 5.0), ("random_lines", (16, 40), 4.0), ("poisson_disc", (17, 16), 3.0)]


@pytest.mark.parametrize(("name", "shape", "acceleration"), MASKS)
def test_a_mask_falls_into_two_parts(name, shape, acceleration):
    mask = masks.make(name, shape, acceleration=acceleration)
    mask_for_network, held = (np.asarray(part) for part in partition(jax.random.key(0), mask, fraction=0.2))
    np.testing.assert_array_equal(mask_for_network + held, mask)
    assert set(np.unique(held)) == {0, 1}

    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    radius = np.sqrt(x**2 + y**2)
    free = (mask > 0) & (radius >= radius[mask == 0].min())
    assert not held[~free].any()
    assert held.sum() == round(0.2 * free.sum())

    other = partition(jax.random.key(1), mask, fraction=0.2)[1]
    assert (other != held).any()


def test_any_sample_outside_of_the_centre_is_withheld_about_as_often():
    mask = masks.make("poisson_disc", (16, 16), acceleration=3.0)
    draw = jax.jit(jax.vmap(lambda key: choose.partition(key, mask, fraction=0.3)[1]))
    often = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)).mean(0))
    drawn = often[often > 0]
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    assert drawn.size == np.count_nonzero((mask > 0) & (radius >= radius[mask == 0].min()))
    np.testing.assert_allclose(drawn, 0.3, atol=0.05)  # the standard error is 0.01


def test_what_is_fully_sampled_has_nothing_to_withhold():
    mask_for_network, held = choose.partition(jax.random.key(0), jnp.ones((8, 8)), fraction=0.5)
    assert (float(mask_for_network.sum()), float(held.sum())) == (64, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, "half"])
def test_a_fraction_that_is_none(fraction):
    with pytest.raises(InputError, match="`fraction` must be above 0 and below 1"):
        choose.partition(jax.random.key(0), jnp.ones((8, 8)), fraction=fraction)


def test_what_has_no_rows_and_columns_is_no_mask():
    with pytest.raises(InputError, match=r"`mask` must have shape \(h, w\)"):
        choose.partition(jax.random.key(0), jnp.ones((2, 8, 8)), fraction=0.5)


def measurement(coils):
    """Under-sampled k-space of a random image, of one coil or of three."""
    rng = np.random.default_rng(1)
    mask = masks.make("poisson_disc", (16, 16), acceleration=3.0)
    if not coils:
        return operators.csmri(mask).measure(jnp.asarray(images(16, 16, 1)))
    maps = (rng.normal(size=(3, 16, 16)) + 1j * rng.normal(size=(3, 16, 16))).astype(np.complex64)
    maps /= np.sqrt(np.sum(np.abs(maps) ** 2, 0))
    return Coils(operators.sense(mask, maps).measure(jnp.asarray(images(16, 16, 1))), jnp.asarray(maps))


@pytest.mark.parametrize("coils", [False, True])
def test_what_is_withheld_does_not_reach_the_network(coils):
    """Its input is the adjoint of the kept samples, and has no gradient with respect to the withheld ones."""
    y = measurement(coils)
    kspace = y.kspace if coils else y
    _, held = withhold(jax.random.key(0), y, fraction=0.25)
    where = np.asarray(held.mask if coils else held.mask[..., None]) * np.ones(kspace.shape)
    assert where.any()

    def inputs(kspace):
        return withhold(jax.random.key(0), y._replace(kspace=kspace) if coils else kspace, fraction=0.25)[0]

    def size(change):  # of the input, where k-space changes by a tenth of itself, so that none becomes zero
        return jnp.sum(inputs(kspace * (1 + 0.1 * change)) ** 2)

    gradient = np.asarray(jax.jit(jax.grad(size))(jnp.zeros(kspace.shape)))
    assert not gradient[where > 0].any()
    assert np.count_nonzero(gradient[(where == 0) & (np.asarray(kspace) != 0)])

    kept_kspace = np.asarray(kspace) * (1 - where)
    zero_filled = np.fft.ifft2(kept_kspace, axes=(1, 2) if coils else (0, 1), norm="ortho")
    zero_filled = (np.conj(y.maps) * zero_filled).sum(0) if coils else zero_filled[..., 0]
    np.testing.assert_allclose(inputs(kspace), np.stack([zero_filled.real, zero_filled.imag], -1), atol=1e-5)
    np.testing.assert_array_equal(held.y.kspace if coils else held.y, np.asarray(kspace) * where)


@pytest.mark.parametrize("coils", [False, True])
def test_the_prediction_is_about_the_withheld_samples_alone(coils):
    y = measurement(coils)
    _, held = withhold(jax.random.key(0), y, fraction=0.25)
    x_hat = images(16, 16, 1)[::-1].copy()
    seen = np.asarray(y.maps) * x_hat[..., 0] if coils else x_hat[..., 0][None]
    error = np.asarray(held.mask) * np.fft.fft2(seen, norm="ortho") - (held.y.kspace if coils else held.y[..., 0][None])
    np.testing.assert_allclose(choose.prediction(jnp.asarray(x_hat), held), -np.log(np.sum(np.abs(error) ** 2)), rtol=1e-5)


class Fixed(nn.Module):
    """x_hat = weight * an image that does not depend on the input."""

    @nn.compact
    def __call__(self, y):
        return self.param("weight", nn.initializers.zeros, ()) * jnp.asarray(images(16, 16, 1))


def test_by_withheld_samples_the_lambda_is_that_of_least_squares_over_them():
    """x_hat = lam T: noise makes the best lambda over the withheld samples another one than over all."""
    hyper = SimpleNamespace(apply=lambda variables, coefficients: {("weight",): coefficients[-1]})
    networks = model.Model(Fixed(), hyper)
    mask = masks.make("poisson_disc", (16, 16), acceleration=3.0)
    template = np.fft.fft2(images(16, 16, 1)[..., 0], norm="ortho")
    clean = operators.csmri(mask).measure(0.6 * jnp.asarray(images(16, 16, 1)))
    observe = jax.jit(jax.vmap(lambda key: operators.complex_noise(key, clean, mask, sigma=0.3)))
    y = observe(jax.random.split(jax.random.key(2), 3))
    net_input, held = jax.jit(jax.vmap(partial(choose.withhold, fraction=0.3)))(jax.random.split(jax.random.key(4), 3), y)
    variables = {"params": {"hyper": {}, "main": {}}, "batch_stats": {}}
    choose_per_image = jax.jit(partial(choose.for_each, networks, variables, choose.prediction, steps=40))
    lams, values = choose_per_image(net_input, held, hyperparams.grid(11, 1))

    is_held = np.asarray(held.mask) > 0
    expected = [
        np.vdot(template[m], np.asarray(k)[..., 0][m]).real / np.sum(np.abs(template[m]) ** 2)
        for m, k in zip(is_held, y, strict=True)
    ]
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(lams[:, 0], np.clip(expected, 0, 1), atol=3e-3)
    j = [losses.data_consistency(lam * images(16, 16, 1), k, measure=operators.csmri(m).measure) for lam, k, m in
         zip(np.asarray(lams), held.y, held.mask, strict=True)]  # fmt: skip
    np.testing.assert_allclose(values, -np.log(j), rtol=1e-4)


def test_of_a_black_image_any_lambda_is_as_good():
    _, held = withhold(jax.random.key(0), jnp.zeros((8, 8, 1), jnp.complex64), fraction=0.5)
    value, gradient = jax.jit(jax.value_and_grad(lambda x_hat: choose.prediction(x_hat, held)))(jnp.zeros((8, 8, 1)))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("y", [jnp.zeros((8, 8, 1)), jnp.zeros((8, 8), jnp.complex64)])
def test_what_is_no_kspace_has_nothing_to_withhold(y):
    with pytest.raises(InputError, match="`y` must be complex k-space"):
        choose.withhold(jax.random.key(0), y, fraction=0.1)
