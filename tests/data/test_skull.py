"""Skull and scalp: layers lie around the brain in order, and distances are those of circles and spheres."""

import numpy as np

from hyperrecon_jax.data import heads, population, skull

TISSUES = heads.Tissues(csf=0.2, gray=0.6, white=0.9, fat=1, muscle=0.5, skin=0.5, bone=0.05, marrow=0.5, fluid=0.1)


def radii(size):
    """The distance of each pixel from the middle, in pixels."""
    ticks = np.arange(size) + 0.5 - size / 2
    return np.hypot(ticks[None], ticks[:, None])


def test_the_distance_to_a_round_brain():
    radius = radii(128)
    distance = skull._hull_distance(radius < 30, 1.5)
    near = (radius > 15) & (radius < 50)
    np.testing.assert_allclose(distance[near], 1.5 * (radius - 30)[near], atol=4.0)


def test_there_is_no_skull_along_the_border_of_an_image_full_of_brain():
    assert (skull._hull_distance(np.ones((64, 64), bool), 1.5) < 0).all()
    assert (skull._hull_distance(np.zeros((64, 64), bool), 1.5) > 100).all()


def test_the_distance_to_a_sphere_is_exact():
    points = np.random.default_rng(0).normal(0, 20, (3, 50)).astype(np.float32)
    centre = np.array([5, -3, 2], np.float32)
    expected = np.linalg.norm(points - centre[:, None], axis=0) - 12
    np.testing.assert_allclose(skull._ellipsoid_distance(points, centre, np.full(3, 12, np.float32)), expected, atol=1e-3)


def test_layers_lie_in_order():
    """On a ray from the middle of a round brain, high in the head: CSF, dark bone, brighter marrow or fat, air."""
    ticks = 1.15 * (np.arange(192, dtype=np.float32) - 95.5)
    x, y = np.broadcast_arrays(ticks[None, :], -ticks[:, None])
    points = np.stack([x, y, np.full_like(x, 52)]) + population.CENTRE[:, None, None]
    view = heads.View(points.astype(np.float32), 1.15)
    head = heads.random_head(np.random.default_rng(0))._replace(rim=4.0, skull=9.0, scalp=8.0)
    image = skull.draw_skull(np.random.default_rng(0), head, view, TISSUES, radii(192) < 55)
    ray = image[96, 96:]
    assert abs(ray[50] - TISSUES.csf) < 1e-6
    bone = 50 + np.argmax(ray[50:] < 0.1)
    air = np.nonzero(ray)[0].max() + 1
    assert TISSUES.bone - 0.01 < ray[bone]
    assert ray[bone:air].max() > 0.4
    assert (air - bone) * view.spacing > 10
    assert air < 95
