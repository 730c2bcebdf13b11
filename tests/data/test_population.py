"""Subjects: functions of their seed, without folds, as sharp as single subjects, with labels that fit their contrast."""

import functools

import numpy as np
import pytest

from hyperrecon_jax.data import population
from hyperrecon_jax.physics.sample import LABELS
from hyperrecon_jax.runtime.errors import InputError


@functools.cache
def small(seed):
    return population.synthesize_subject(seed, size=64, slices=6)


def test_a_subject_is_a_function_of_its_seed():
    first, repeated, second = small(1), population.synthesize_subject(1, size=64, slices=6), small(2)
    np.testing.assert_array_equal(first.images, repeated.images)
    np.testing.assert_array_equal(first.labels, repeated.labels)
    assert np.abs(first.images - second.images).mean() > 0.02
    assert (first.labels != second.labels).mean() > 0.02


def test_shapes_types_and_range():
    images, labels = small(1)
    assert images.shape == (6, 64, 64, 1)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert 0.6 < images.max() <= 1
    assert labels.shape == (6, 64, 64)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == set(range(len(LABELS)))


@pytest.mark.parametrize("seed", range(6))
def test_every_slice_shows_brain_within_the_field_of_view(seed):
    images, labels = small(seed)
    assert ((labels > 0).mean((1, 2)) > 0.05).all()
    for edge in (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]):
        assert not edge.any()


def test_the_same_seed_is_the_same_brain_at_every_size():
    """Averages over 2 x 2 pixels agree up to noise and sampling; another subject is four times as far."""
    large = population.synthesize_subject(1, size=128, slices=6)
    shrunk = large.images.reshape(6, 64, 2, 64, 2).mean((2, 4))
    same = np.abs(shrunk - small(1).images[..., 0]).mean()
    other = np.abs(shrunk - small(2).images[..., 0]).mean()
    assert same < other / 4


@pytest.mark.parametrize("seed", range(12))
def test_no_pose_folds(seed):
    """The determinant of the map, from central differences of `template_coordinates`, not from the spline."""
    pose = population.random_pose(np.random.default_rng(seed))
    z, y, x = (np.arange(-r, r + 1, 2.0) for r in (50, 100, 84))
    coordinates = population.template_coordinates(pose, (z, y, x))
    columns = [np.gradient(coordinates, 2.0, axis=axis) for axis in (3, 2, 1)]
    a, b, c = (column[:, 1:-1, 1:-1, 1:-1] for column in columns)
    determinant = np.einsum("izyx,izyx->zyx", a, np.cross(b, c, axis=0))
    assert determinant.min() > 0.2
    assert 0.6 < determinant.mean() < 1.6


def test_a_pose_that_would_fold_is_weakened(monkeypatch):
    gentle = population.random_field

    def violent(rng, *, spacing, sd, channels=1):
        return gentle(rng, spacing=spacing, sd=6 * sd, channels=channels)

    monkeypatch.setattr(population, "random_field", violent)
    axes = tuple(np.arange(-r, r + 1, 4.0) for r in (50, 100, 84))
    fields = tuple(violent(np.random.default_rng(0), spacing=h, sd=1.6, channels=3) for h in (45.0, 22.0))
    assert population.jacobian(fields, axes).min() < 0
    pose = population.random_pose(np.random.default_rng(0))
    assert population.jacobian(pose.displacements, axes).min() > 0.2


def test_jacobian_equals_finite_differences():
    field = population.random_field(np.random.default_rng(0), spacing=30.0, sd=2.0, channels=3)
    step = 0.05
    x = np.array([-step, 0, step]) + 3.0
    points = np.stack(np.broadcast_arrays(x[None, None, :], x[None, :, None], x[:, None, None]))
    moved = points + population.evaluate_field(field, (x, x, x)).astype(np.float64)
    columns = [
        (moved[:, 1, 1, 2] - moved[:, 1, 1, 0]) / (2 * step),
        (moved[:, 1, 2, 1] - moved[:, 1, 0, 1]) / (2 * step),
        (moved[:, 2, 1, 1] - moved[:, 0, 1, 1]) / (2 * step),
    ]
    expected = np.linalg.det(np.stack(columns, axis=-1))
    np.testing.assert_allclose(population.jacobian((field,), (x, x, x))[1, 1, 1], expected, rtol=1e-4)


def test_fields_have_the_standard_deviation_asked_for():
    field = population.random_field(np.random.default_rng(0), spacing=6.0, sd=2.0)
    z, y, x = (np.arange(-r, r, 1.5) for r in (50, 100, 100))
    np.testing.assert_allclose(population.evaluate_field(field, (z, y, x)).std(), 2.0, rtol=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_labels_agree_with_a_t1_contrast(seed):
    images, labels = small(seed)
    gray, white, csf, cortex = (np.median(images[..., 0][labels == i]) for i in (1, 2, 3, 4))
    assert white > 1.15 * gray
    assert min(gray, cortex) > 1.3 * csf
    assert white > 1.25 * cortex
    assert not images[..., 0][(labels == 0) & (images[..., 0] > 0.5)].size  # all bright pixels have a label


@pytest.mark.parametrize("seed", [0, 1])
def test_images_are_as_sharp_as_those_of_single_subjects(seed):
    """Energy beyond 64 px of k-space at 256 px: 5e-3 to 1.5e-2 in single subjects, 2.0e-3 in the average of 152."""
    images = population.synthesize_subject(seed, size=256, slices=6).images[..., 0]
    energy = np.abs(np.fft.fft2(images)) ** 2
    radius = np.hypot(*np.meshgrid(*2 * [256 * np.fft.fftfreq(256)]))
    assert 5e-3 < energy[:, radius > 64].sum() / energy.sum() < 1.5e-2


def test_the_contrast_is_monotone():
    anchors = population.load_anatomy().anchors
    for seed in range(20):
        appearance = population.random_appearance(np.random.default_rng(seed), anchors)
        assert (np.diff(appearance.curve_value) > 0).all()


def test_splits_share_no_seed_and_no_subject():
    splits = population.split_seeds(0, (100, 25, 50))
    assert [len(s) for s in splits] == [100, 25, 50]
    states = {tuple(seed.generate_state(4)) for split in splits for seed in split}
    assert len(states) == 175
    others = {tuple(seed.generate_state(4)) for split in population.split_seeds(1, (100, 25, 50)) for seed in split}
    assert not states & others


def test_a_larger_split_begins_with_the_smaller():
    small_split, large_split = population.split_seeds(0, (2, 1, 1)), population.split_seeds(0, (3, 4, 5))
    for few, many in zip(small_split, large_split, strict=True):
        assert all((a.generate_state(4) == b.generate_state(4)).all() for a, b in zip(few, many, strict=False))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 64.0}, {"slices": -1}])
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(InputError, match=f"`{next(iter(wrong))}` must be a positive whole number, got"):
        population.synthesize_subject(0, **({"size": 64, "slices": 2} | wrong))
