"""Broad training images: functions of their seed, in range, varied, and readable from the cache."""

import functools

import numpy as np
import pytest
from scipy import ndimage, stats

from hyperrecon_jax import data
from hyperrecon_jax.data import brain, broad, heads, population, scenes
from hyperrecon_jax.runtime.errors import InputError


@functools.cache
def images():
    return np.concatenate([broad.synthesize_subject(seed, size=48, slices=5) for seed in range(10)])


def test_a_subject_is_a_function_of_its_seed():
    first, repeated, second = (broad.synthesize_subject(seed, size=48, slices=2) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, repeated)
    assert np.abs(first - second).mean() > 0.02


def test_an_image_does_not_depend_on_the_number_of_slices():
    seed = np.random.SeedSequence(0, spawn_key=(1, 2))
    few, many = (broad.synthesize_subject(seed, size=48, slices=n) for n in (1, 3))
    np.testing.assert_array_equal(few[0], many[0])
    assert np.abs(many[1] - many[2]).mean() > 0.02


@pytest.mark.parametrize("size", [8, 33, 176])
def test_shapes_types_and_range(size):
    subject = broad.synthesize_subject(3, size=size, slices=2)
    assert subject.shape == (2, size, size, 1)
    assert subject.dtype == np.float32
    assert subject.min() >= 0
    assert subject.max() <= 1


def test_the_brightest_pixels_are_between_a_half_and_one():
    brightest = np.quantile(images(), 0.999, axis=(1, 2, 3))
    assert (brightest > 0.45).all()  # between 0.5 and 1 before the scan, which may blur them
    assert brightest.std() > 0.05


def test_most_images_have_a_dark_ground():
    assert ((images() < 0.05).mean((1, 2, 3)) > 0.1).mean() > 0.6


def estimate_noise(images, objects):
    """The noise where an object is smooth: differences across diagonals show noise and no straight edge."""
    diagonal = (images[:, 1:, 1:] - images[:, :-1, 1:] - images[:, 1:, :-1] + images[:, :-1, :-1]) / 2
    quiet = [np.quantile(np.abs(d[i]), 0.25) for d, i in zip(diagonal, objects[:, 1:, 1:] > 0.03, strict=True)]
    return np.median(quiet) / 0.3186  # the quartile of the absolute value of a standard normal variable


def test_without_the_share_of_noise_there_is_none(monkeypatch):
    """0.4 % at most. At 224 pixels, because fewer resolve no smooth parts of a brain."""
    monkeypatch.setattr(broad, "NOISY", 0)
    monkeypatch.setattr(broad, "INTERPOLATED", 0)
    large = np.concatenate([broad.synthesize_subject(seed, size=224, slices=3) for seed in range(6)])[..., 0]
    assert estimate_noise(large, large) < 0.004
    noisy = large + np.random.default_rng(0).normal(0, 0.02, large.shape)
    assert estimate_noise(noisy, large) > 0.02


def test_the_noise_is_that_of_a_magnitude_image(monkeypatch):
    """Normal where the image is bright; Rayleigh where it is 0, or none where the background was set to zero."""
    monkeypatch.setattr(broad, "NOISY", 1)
    monkeypatch.setattr(broad, "INTERPOLATED", 0)
    scans = []
    for seed in range(40):
        bright, dark = (broad.scan(np.random.default_rng(seed), np.full((64, 64), value)) for value in (0.4, 0.0))
        np.testing.assert_allclose(bright.mean(), 0.4, atol=0.003)
        if dark.any():
            np.testing.assert_allclose(dark.mean(), stats.rayleigh.mean(scale=bright.std()), rtol=0.1)
        scans.append((bright.std(), dark.any()))
    sigmas, has_background = np.array(scans).T
    assert 0.0025 < sigmas.min() < 0.005
    assert 0.02 < sigmas.max() < 0.035
    assert 0.5 < has_background.mean() < 0.9


def test_an_interpolated_image_lacks_the_frequencies_beyond_the_cut_off(monkeypatch):
    monkeypatch.setattr(broad, "NOISY", 0)
    monkeypatch.setattr(broad, "INTERPOLATED", 1)
    image = 0.3 + 0.1 * np.random.default_rng(0).random((48, 40))  # far above 0, so that the magnitude changes nothing
    scans = np.stack([broad.scan(np.random.default_rng(seed), image) for seed in range(20)])
    shares = np.abs(np.fft.fft2(scans)) / np.abs(np.fft.fft2(image))
    np.testing.assert_allclose(shares[:, 0, 0], 1, rtol=1e-5)
    assert (shares < 1.001).all()
    assert (shares[:, 24].max(1) < 1e-3).mean() > 0.5  # the highest frequency along the columns
    assert (shares[:, 0, 2] > 0.9).all()


@pytest.mark.parametrize("name", ["NOISY", "INTERPOLATED"])
def test_seven_of_ten_images_are_changed(name, monkeypatch):
    for other in {"NOISY", "INTERPOLATED"} - {name}:
        monkeypatch.setattr(broad, other, 0)
    image = np.random.default_rng(0).uniform(0.3, 0.7, (8, 8))
    changes = [np.abs(broad.scan(np.random.default_rng(seed), image) - image).max() for seed in range(300)]
    np.testing.assert_allclose(np.mean(np.array(changes) > 1e-6), 0.7, atol=0.08)


def test_sharp_and_blurred_images_occur():
    spectra = np.abs(np.fft.fft2(images()[..., 0])) ** 2
    radius = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(48)]))
    share = spectra[:, radius > 0.3].sum(1) / spectra.sum((1, 2))
    assert np.quantile(share, 0.9) > 8 * np.quantile(share, 0.1)


def test_the_shares_of_the_kinds(monkeypatch):
    monkeypatch.setattr(broad, "draw_head", lambda rng, head, *, size: np.full((size, size), 1, np.float32))
    monkeypatch.setattr(scenes, "draw_scene", lambda rng, size: np.eye(size, dtype=np.float32))

    def add_shapes(rng, image):
        image[: len(image) // 2] = 0

    monkeypatch.setattr(scenes, "add_shapes", add_shapes)
    monkeypatch.setattr(ndimage, "gaussian_filter", lambda image, *args, **options: image)
    monkeypatch.setattr(broad, "FINE_SIZE", 8)
    kinds = []
    for seed in range(400):
        image = broad.synthesize_image(np.random.default_rng(seed), None, size=8)
        kinds.append("mixture" if image[2:6].min() < image[6:].min() / 3 else "head")
        kinds[-1] = "scene" if image[6:].min() < 0.2 else kinds[-1]
    for kind, share in broad.SHARES.items():  # three standard deviations of a share of 400 are at most 0.075
        assert abs(kinds.count(kind) / 400 - share) < 0.075, kind


@pytest.mark.parametrize("seed", range(4))
def test_a_stripped_head_is_a_brain_alone(seed, monkeypatch):
    head, labels, find_labels = heads.random_head(np.random.default_rng(0)), [], brain.find_labels
    monkeypatch.setattr(brain, "find_labels", lambda view: labels.append(find_labels(view)) or labels[-1])
    monkeypatch.setattr(scenes, "paint_vessels", lambda *args, **options: None)
    monkeypatch.setattr(broad, "STRIPPED", 1)
    stripped = broad.draw_head(np.random.default_rng(seed), head, size=96)
    surroundings = ~ndimage.binary_dilation(labels[0] > 0, iterations=4)
    assert not stripped[surroundings].any()
    monkeypatch.setattr(broad, "STRIPPED", 0)
    covered = broad.draw_head(np.random.default_rng(seed), head, size=96)
    assert (covered[~ndimage.binary_dilation(labels[1] > 0, iterations=4)] > 0.01).sum() > 50


def test_a_prepared_set_holds_the_images(tmp_path):
    folder = data.synthetic_folder("broad", size=32, subjects=(2, 1, 1), slices=2, seed=5, cache=tmp_path)
    assert folder.name == broad.RECIPE
    dataset = data.read(folder)
    assert [split.samples.size for split in dataset] == [4, 2, 2]
    assert dataset.train.samples.arrays.label is None
    seeds = population.split_seeds(5, (2, 1, 1))
    expected = np.concatenate([broad.synthesize_subject(seed, size=32, slices=2) for seed in seeds[0]])
    np.testing.assert_allclose(dataset.train.samples.arrays.image, expected, atol=0.5001 / 65535)
    np.testing.assert_array_equal(dataset.train.subjects, [0, 0, 1, 1])


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 64.0}, {"slices": -1}])
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(InputError, match=f"`{next(iter(wrong))}` must be a positive whole number, got"):
        broad.synthesize_subject(0, **({"size": 64, "slices": 2} | wrong))
