"""The brain of an image: its tissues have the intensities asked for, its rim is soft, lesions stay in it."""

import numpy as np
import pytest

from hyperrecon_jax.data import brain, heads, population

T1 = heads.Tissues(csf=0.2, gray=0.6, white=0.9, fat=1, muscle=0.5, skin=0.5, bone=0.05, marrow=0.5, fluid=0.1)
T2 = T1._replace(csf=1.2, gray=0.6, white=0.3)


def axial_view(size=96, height=10.0, half=110.0):
    ticks = (np.arange(size, dtype=np.float32) + 0.5) * 2 * half / size - half
    x, y = np.broadcast_arrays(ticks[None, :], -ticks[:, None])
    points = np.stack([x, y, np.full_like(x, height)]) + population.CENTRE[:, None, None]
    return heads.View(points.astype(np.float32), 2 * half / size)


@pytest.mark.parametrize("tissues", [T1, T2])
def test_tissues_have_their_intensity(tissues, monkeypatch):
    monkeypatch.setattr(brain, "_add_lesions", lambda *args: None)
    view = axial_view()
    labels = brain.find_labels(view)
    for seed in range(3):
        image, share = brain.draw_brain(np.random.default_rng(seed), view, tissues, labels)
        inside = share == 1
        np.testing.assert_allclose(np.median(image[inside & (labels == 2)]), tissues.white, rtol=0.15)
        np.testing.assert_allclose(np.median(image[inside & (labels == 1)]), tissues.gray, rtol=0.3)
        assert np.sign(np.median(image[labels == 3]) - np.median(image[labels == 2])) == np.sign(
            tissues.csf - tissues.white
        )


def test_the_rim_is_soft_and_lies_on_the_rim_of_the_labels():
    view = axial_view()
    labels = brain.find_labels(view)
    _, share = brain.draw_brain(np.random.default_rng(0), view, T1, labels)
    assert ((share > 0.1) & (share < 0.9)).any()
    np.testing.assert_allclose(share.sum(), (labels > 0).sum(), rtol=0.02)


def test_labels_are_those_of_the_template():
    labels = brain.find_labels(axial_view())
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4}
    mirrored = (labels == labels[:, ::-1]).mean()  # the template is symmetric
    assert mirrored > 0.98


def test_lesions_occur_and_change_a_part_of_the_brain():
    view = axial_view()
    labels = brain.find_labels(view)
    changes = []
    for seed in range(8):
        image = np.where(labels > 0, 0.5, 0).astype(np.float32)
        before = image.copy()
        brain._add_lesions(np.random.default_rng(seed), image, labels > 0, T1)
        changes.append((np.abs(image - before) > 0.02)[labels > 0].mean())
        assert np.isfinite(image).all()
    assert min(changes) < 0.2 < max(changes) + 0.2
    assert max(changes) > 0.02


def test_a_deformed_brain_is_another():
    bent = heads.random_head(np.random.default_rng(1))
    straight = bent._replace(displacement=np.zeros_like(bent.displacement))
    views = [heads.random_view(np.random.default_rng(3), head, 64, is_stripped=True) for head in (bent, straight)]
    assert (brain.find_labels(views[0]) != brain.find_labels(views[1])).mean() > 0.02
