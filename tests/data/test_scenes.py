"""Scenes without anatomy: each kind of drawing changes the image, and no value is wrong."""

import numpy as np
import pytest

from hyperrecon_jax.data import scenes


@pytest.mark.parametrize("painter", scenes.PAINTERS)
def test_each_kind_changes_a_part_of_the_image(painter):
    changed = []
    for seed in range(6):
        image = np.full((64, 64), 0.5, np.float32)
        painter(np.random.default_rng(seed), image)
        assert np.isfinite(image).all()
        assert -1e-6 <= image.min() <= image.max() <= 1.2
        changed.append((np.abs(image - 0.5) > 1e-3).mean())
    assert max(changed) > 0.01


def test_scenes_are_finite_and_differ():
    images = np.stack([scenes.draw_scene(np.random.default_rng(seed), 64) for seed in range(20)])
    assert images.dtype == np.float32
    assert np.isfinite(images).all()
    assert images.min() > -1e-6
    correlation = np.corrcoef(images.reshape(20, -1))[np.triu_indices(20, 1)]
    assert np.abs(correlation).mean() < 0.5


def test_shapes_on_an_image_have_its_range():
    for seed in range(6):
        image = np.full((64, 64), 7, np.float32)
        scenes.add_shapes(np.random.default_rng(seed), image)
        assert (image != 7).any()
        assert -1e-4 <= image.min() <= image.max() <= 7 * 1.2
