"""The losses against scikit-image, PyWavelets, plain loops and finite differences."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt
from jax.test_util import check_grads
from scipy import ndimage
from skimage.metrics import structural_similarity

from hyperrecon_jax import losses
from hyperrecon_jax.runtime.errors import InputError

MASK = jnp.asarray(np.random.default_rng(0).random((24, 20, 1)) < 0.4, jnp.float32)


def measure(x):
    mask = MASK.reshape((1,) * (x.ndim - 3) + MASK.shape)
    return mask * jnp.fft.fft2(x, axes=(-3, -2), norm="ortho")


def consistency(x_hat, x):
    return losses.data_consistency(x_hat, measure(x), measure=measure)


PAIR_LOSSES = {
    "mae": losses.mae,
    "mse": losses.mse,
    "ssim": losses.ssim_loss,
    "ssim zero-padded": functools.partial(losses.ssim_loss, zero_padded=True),
    "edges": losses.edge_l1,
    "texture": losses.texture_loss,
    "data consistency": consistency,
    "tv": lambda x_hat, x: losses.total_variation(x_hat),
    "wavelet": lambda x_hat, x: losses.wavelet_l1(x_hat),
}
every_loss = pytest.mark.parametrize("loss", PAIR_LOSSES.values(), ids=PAIR_LOSSES.keys())


def images(*shape, seed=0):
    """A truth with smooth structure and a reconstruction of it with noise, both in [0, 1]."""
    rng = np.random.default_rng(seed)
    h, w = shape[-3:-1]
    waves = np.sin(np.arange(h) / 4)[:, None, None] * np.cos(np.arange(w) / 3)[None, :, None]
    x = np.clip(0.5 + 0.4 * waves + 0.05 * rng.standard_normal(shape), 0, 1)
    x_hat = np.clip(x + 0.1 * rng.standard_normal(shape), 0, 1)
    return x_hat.astype(np.float32), x.astype(np.float32)


@every_loss
def test_a_loss_is_one_value_per_image_however_it_is_mapped(loss):
    x_hat, x = images(2, 3, 24, 20, 1)
    value = jax.jit(loss)(x_hat, x)
    assert value.shape == (2, 3)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(loss)))(x_hat, x), value, rtol=1e-5)


@every_loss
def test_gradients_equal_finite_differences(loss):
    """In double precision, where a step is small enough to pass none of the kinks of |.|."""
    with jax.enable_x64(True):
        x_hat, x = (jnp.asarray(image, jnp.float64) for image in images(24, 20, 1, seed=3))
        x_hat = x_hat + 1e-3 * np.random.default_rng(4).standard_normal(x_hat.shape)  # no two clipped pixels alike
        check_grads(jax.jit(lambda x_hat: loss(x_hat, x)), (x_hat,), order=1, modes=["rev"], eps=1e-6, rtol=1e-4)


@every_loss
def test_gradients_are_finite_at_flat_and_at_equal_images(loss):
    black, gray, textured = jnp.zeros((24, 20, 1)), jnp.full((24, 20, 1), 0.5), jnp.asarray(images(24, 20, 1)[1])
    pairs = itertools.product((black, gray, textured), repeat=2)
    x_hat, x = (jnp.stack(stack) for stack in zip(*pairs, strict=True))
    assert jnp.isfinite(jax.jit(jax.vmap(jax.grad(loss)))(x_hat, x)).all()


@pytest.mark.parametrize(
    "loss", [losses.mae, losses.mse, losses.ssim_loss, losses.edge_l1, losses.texture_loss, consistency]
)
def test_equal_images_lose_nothing(loss):
    _, x = images(24, 20, 1)
    value, gradient = jax.jit(jax.value_and_grad(loss))(x, x)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, np.zeros_like(x), atol=1e-6)


def test_mae_and_mse_are_means():
    x_hat, x = jnp.zeros((2, 3, 1)), jnp.zeros((2, 3, 1)).at[0, 1, 0].set(0.6)
    np.testing.assert_allclose(losses.mae(x_hat, x), 0.1, rtol=1e-6)
    np.testing.assert_allclose(losses.mse(x_hat, x), 0.06, rtol=1e-6)


@pytest.mark.parametrize("shape", [(11, 11, 1), (40, 33, 1), (24, 20, 3)])
@pytest.mark.parametrize("zero_padded", [False, True])
def test_ssim_equals_scikit_image(shape, zero_padded):
    x_hat, x = images(*shape, seed=5)
    pad = ((5, 5), (5, 5), (0, 0)) if zero_padded else ((0, 0), (0, 0), (0, 0))
    expected = structural_similarity(
        np.pad(x_hat, pad),
        np.pad(x, pad),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=-1,
    )
    value = jax.jit(functools.partial(losses.ssim, zero_padded=zero_padded))(x_hat, x)
    np.testing.assert_allclose(value, expected, atol=2e-6)


def test_zero_padded_ssim_serves_images_smaller_than_its_window():
    x_hat, x = images(6, 9, 1)
    padded = [np.pad(image, ((10, 10), (10, 10), (0, 0))) for image in (x_hat, x)]
    _, full = structural_similarity(
        *padded, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=-1, full=True
    )
    np.testing.assert_allclose(losses.ssim(x_hat, x, zero_padded=True), full[10:-10, 10:-10].mean(), atol=2e-6)


def test_ssim_learns_from_a_flat_reconstruction():
    """The gradient that dm_pix clips away: towards the truth, SSIM must rise."""
    _, x = images(24, 20, 1)
    flat, direction = jnp.full_like(x, x.mean()), x - x.mean()
    value_and_grad = jax.jit(jax.value_and_grad(losses.ssim))
    slope = np.vdot(value_and_grad(flat, x)[1], direction)
    difference = (value_and_grad(flat + 1e-2 * direction, x)[0] - value_and_grad(flat - 1e-2 * direction, x)[0]) / 2e-2
    np.testing.assert_allclose(slope, difference, rtol=1e-2)
    assert slope > 0.1


@pytest.mark.parametrize("shape", [(40, 33, 1), (16, 20, 2)])
def test_edge_l1_equals_scipy(shape):
    """Its kernel with the same radius differs slightly: it is the derivative of the sampled Gaussian's integral."""
    x_hat, x = images(*shape)
    planes = np.moveaxis(x_hat - x, -1, 0)
    expected = np.mean([np.abs(ndimage.gaussian_laplace(plane, 1.5, radius=7)).mean() for plane in planes])
    np.testing.assert_allclose(losses.edge_l1(x_hat, x), expected, rtol=0.02)


def test_edge_l1_sees_blur_and_no_brightness():
    _, x = images(48, 40, 1)
    blurred = [losses.edge_l1(ndimage.gaussian_filter(x, sigma, axes=(0, 1)), x) for sigma in (0.5, 1, 2)]
    assert blurred == sorted(blurred)
    assert blurred[0] > 0
    np.testing.assert_allclose(losses.edge_l1(x + 0.1, x), 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (36, 20)])
def test_texture_loss_equals_pywavelets_and_scipy(shape):
    x_hat, x = images(*shape, 1)
    expected, coarse = 0.0, [x_hat[..., 0], x[..., 0]]
    for sigma, stride in ((3, 4), (1.5, 2)):
        decompositions = [pywt.dwt2(plane, "db4", mode="symmetric") for plane in coarse]
        coarse = [low for low, _ in decompositions]
        starts = [(side - 1) % stride // 2 for side in coarse[0].shape]
        for details in zip(*(details for _, details in decompositions), strict=True):
            power = [ndimage.gaussian_filter(band**2, sigma, radius=int(3 * sigma)) for band in details]
            strength = [np.sqrt(windows[starts[0] :: stride, starts[1] :: stride] + 1e-6) for windows in power]
            expected += np.abs(strength[0] - strength[1]).mean() / 6
    expected += np.abs(coarse[0] - coarse[1]).mean() / 4
    np.testing.assert_allclose(losses.texture_loss(x_hat, x), expected, rtol=1e-4)


def grain(seed, shape=(64, 64, 1)):
    """A smooth image with fine grain, stronger on one side."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    fine, coarse = (ndimage.gaussian_filter(noise, sigma, axes=(0, 1)) for sigma in (0.6, 1.5))
    strength = np.linspace(0.02, 0.15, shape[1])[:, None]
    return (0.5 + strength * (fine - coarse)).astype(np.float32)


def test_texture_loss_accepts_other_grain_and_no_blur():
    x = grain(0)
    blurred = [losses.texture_loss(ndimage.gaussian_filter(x, sigma, axes=(0, 1)), x) for sigma in (0.5, 1, 2)]
    other = losses.texture_loss(grain(1), x)
    assert blurred == sorted(blurred)
    assert other < 0.6 * blurred[1]
    assert losses.mae(grain(1), x) > losses.mae(ndimage.gaussian_filter(x, 1, axes=(0, 1)), x)  # which prefers the blur
    misplaced = losses.texture_loss(grain(1)[:, ::-1], x)
    assert misplaced > 2 * other


def test_texture_loss_restores_grain():
    """Descent from a blurred image brings most of the grain back."""
    x = grain(0)
    blurred = x_hat = ndimage.gaussian_filter(x, 0.7, axes=(0, 1))
    slope = jax.jit(jax.grad(losses.texture_loss))
    for _ in range(60):
        x_hat = x_hat - 5 * slope(x_hat, x)
    before, after = (np.diff(image, axis=0).std() / np.diff(x, axis=0).std() for image in (blurred, x_hat))
    assert before < 0.5
    assert 0.8 < after < 1.1


@pytest.mark.parametrize("loss", [losses.edge_l1, losses.texture_loss])
def test_an_image_of_tiles_loses_as_much_as_a_tile(loss):
    pair = images(96, 96, 1)
    tiled = [np.tile(image, (2, 3, 1)) for image in pair]
    np.testing.assert_allclose(jax.jit(loss)(*tiled), jax.jit(loss)(*pair), rtol=0.05)


@pytest.mark.parametrize("side", [48, 61])
def test_texture_loss_overlooks_no_border(side):
    """A row or a column that is wrong costs about as much at a border as in the middle."""
    x = grain(0, (side, side, 1))
    unit = np.eye(side, dtype=np.float32)
    loss = jax.jit(jax.vmap(losses.texture_loss, in_axes=(0, None)))
    for lines in (unit[:, :, None, None], unit[:, None, :, None]):
        for step in (-3, 0.3):
            costs = loss(x + step * lines, x)
            costs = costs / np.median(costs)
            assert costs.min() > 0.7
            assert costs.max() < 3
            for border in (costs[:8], costs[-8:]):
                assert 1 < border.mean() < 2


def test_texture_loss_serves_small_images():
    for shape in ((1, 1, 1), (11, 5, 2)):
        x_hat, x = images(*shape)
        assert losses.texture_loss(x, x) == 0
        assert losses.texture_loss(x_hat, x) > 0


def test_data_consistency_sums_over_the_measurement():
    x_hat, x = images(2, 24, 20, 1)
    y = measure(x)
    expected = np.sum(np.abs(np.asarray(measure(x_hat)) - np.asarray(y)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(losses.data_consistency(x_hat, y, measure=measure), expected, rtol=1e-5)


def test_the_gradient_of_data_consistency_is_the_adjoint_of_the_residual():
    """grad J = 2 Re A^H (A x - y)."""
    x_hat, x = images(24, 20, 1)
    residual = measure(x_hat) - measure(x)
    expected = 2 * jnp.fft.ifft2(MASK * residual, axes=(-3, -2), norm="ortho").real
    np.testing.assert_allclose(jax.grad(consistency)(x_hat, x), expected, atol=1e-5)


def test_data_consistency_serves_real_measurements_of_another_shape():
    x_hat, x = images(2, 24, 20, 1)

    def halve(x):
        return x[..., ::2, ::2, :]

    expected = np.sum((x_hat - x)[:, ::2, ::2] ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(losses.data_consistency(x_hat, halve(x), measure=halve), expected, rtol=1e-5)
    with pytest.raises(InputError, match=r"`y` must have the shape of the measured `x_hat`, \(2, 12, 10, 1\), got"):
        losses.data_consistency(x_hat, x, measure=halve)


def test_total_variation_equals_a_loop():
    x_hat, _ = images(5, 4, 2)
    expected = 0.0
    for i, j, c in np.ndindex(5, 4, 2):
        expected += abs(x_hat[i + 1, j, c] - x_hat[i, j, c]) if i < 4 else 0.0
        expected += abs(x_hat[i, j + 1, c] - x_hat[i, j, c]) if j < 3 else 0.0
    np.testing.assert_allclose(losses.total_variation(x_hat), expected, rtol=1e-5)
    np.testing.assert_array_equal(jax.grad(losses.total_variation)(jnp.full((5, 4, 2), 0.5)), np.zeros((5, 4, 2)))


def test_weight_l1_sums_over_all_leaves():
    theta = {"conv": {"kernel": jnp.asarray([[[[1.0, -2.0]]]]), "bias": jnp.asarray([0.0, -0.5])}}
    np.testing.assert_allclose(losses.weight_l1(theta), 3.5)
    gradient = jax.jit(jax.grad(losses.weight_l1))(theta)
    np.testing.assert_array_equal(gradient["conv"]["kernel"], [[[[1.0, -1.0]]]])
    np.testing.assert_array_equal(gradient["conv"]["bias"], [0.0, -1.0])
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), theta)
    np.testing.assert_allclose(jax.jit(jax.vmap(losses.weight_l1))(batch), [3.5, 7.0])


@pytest.mark.parametrize("size", [(64, 64), (57, 80)])
def test_wavelet_l1_equals_pywavelets(size):
    x_hat, _ = images(*size, 2)
    expected = 0.0
    for c in range(2):
        approximation, *details = pywt.wavedec2(x_hat[..., c], "db4", mode="zero", level=3)
        expected += np.abs(approximation).sum() + sum(np.abs(band).sum() for level in details for band in level)
    np.testing.assert_allclose(jax.jit(losses.wavelet_l1)(x_hat), expected, rtol=1e-5)


def test_soft_dice_equals_a_loop():
    rng, soft_dice = np.random.default_rng(0), jax.jit(losses.soft_dice)
    logits, labels = rng.normal(size=(2, 6, 5, 4)).astype(np.float32), rng.integers(0, 3, (2, 6, 5))  # never the last
    for image in range(2):
        scores = []
        for c in range(4):
            overlap = predicted = true = 0.0
            for pixel in np.ndindex(6, 5):
                z = np.exp(logits[image][pixel])
                p, t = z[c] / z.sum(), labels[image][pixel] == c
                overlap, predicted, true = overlap + p * t, predicted + p, true + t
            scores.append((2 * overlap + 1) / (predicted + true + 1))
        np.testing.assert_allclose(soft_dice(logits, labels)[image], 1 - np.mean(scores), rtol=1e-5)
        np.testing.assert_allclose(soft_dice(logits[image], labels[image]), 1 - np.mean(scores), rtol=1e-5)


def test_soft_dice_is_0_for_certainty_that_is_right_and_finite_for_any():
    labels = np.arange(12).reshape(3, 4) % 3  # of five classes two are absent
    sure = 1e4 * jax.nn.one_hot(labels, 5)
    value_and_grad = jax.jit(jax.value_and_grad(losses.soft_dice))
    value, gradient = value_and_grad(sure, labels)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    for logits in (sure, -sure, jnp.zeros_like(sure)):
        value, gradient = value_and_grad(logits, labels)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()
    assert (gradient[..., 4] > 0).all()  # an absent class is pushed out
    with jax.enable_x64(True):
        logits = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 5)), jnp.float64)
        check_grads(jax.jit(lambda z: losses.soft_dice(z, labels)), (logits,), order=1, modes=["rev"], eps=1e-6, rtol=1e-4)


def test_soft_dice_names_labels_that_do_not_fit():
    logits = jnp.zeros((4, 3, 5))
    for labels in (jnp.zeros((4, 3)), jnp.zeros((3, 4), int), jnp.zeros((4, 3, 1), int)):
        with pytest.raises(
            InputError, match=r"`labels` must be integers of the shape .* \(4, 3\), got (float|int)32 of shape"
        ):
            losses.soft_dice(logits, labels)


@pytest.mark.parametrize("loss", [losses.mae, losses.mse, losses.ssim, losses.edge_l1, losses.texture_loss])
def test_wrong_images_are_named(loss):
    good = jnp.zeros((24, 20, 1))
    with pytest.raises(InputError, match=r"`x` must have the shape of `x_hat`, \(24, 20, 1\), got \(24, 20, 2\)"):
        loss(good, jnp.zeros((24, 20, 2)))
    with pytest.raises(InputError, match=r"`x_hat` must be float images \(\*b, h, w, c\), got float32 of shape \(24, 20\)"):
        loss(good[..., 0], good)
    with pytest.raises(InputError, match=r"`x` must be float images .* got uint8 of shape"):
        loss(good, good.astype(jnp.uint8))


def test_ssim_names_an_image_smaller_than_its_window():
    with pytest.raises(InputError, match="`x` must have sides of at least 11 pixels for SSIM, got 10 x 20"):
        losses.ssim(jnp.zeros((10, 20, 1)), jnp.zeros((10, 20, 1)))
