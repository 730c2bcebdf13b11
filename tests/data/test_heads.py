"""What an image of a head shows: planes are flat and to scale, contrasts have any order."""

import numpy as np

from hyperrecon_jax.data import heads, population


def rigid_head():
    head = heads.random_head(np.random.default_rng(0))
    return head._replace(matrix=np.eye(3), displacement=np.zeros_like(head.displacement))


def test_a_plane_is_flat_and_to_scale():
    for seed in range(8):
        view = heads.random_view(np.random.default_rng(seed), rigid_head(), 32, is_stripped=False)
        right = np.diff(view.coordinates, axis=2)[:, 0, 0]
        down = np.diff(view.coordinates, axis=1)[:, 0, 0]
        np.testing.assert_allclose([np.linalg.norm(right), np.linalg.norm(down)], view.spacing, rtol=1e-3)
        np.testing.assert_allclose(right @ down, 0, atol=1e-3 * view.spacing**2)
        corner = view.coordinates[:, 0, 0][:, None, None]
        steps = np.arange(32)
        expected = corner + right[:, None, None] * steps[None, None] + down[:, None, None] * steps[None, :, None]
        np.testing.assert_allclose(view.coordinates, expected, atol=0.02)


def test_planes_cut_in_all_three_directions():
    main = set()
    for seed in range(20):
        view = heads.random_view(np.random.default_rng(seed), rigid_head(), 8, is_stripped=False)
        right, down = np.diff(view.coordinates, axis=2)[:, 0, 0], np.diff(view.coordinates, axis=1)[:, 0, 0]
        main.add(int(np.argmax(np.abs(np.cross(right, down)))))
    assert main == {0, 1, 2}


def test_a_deformation_does_not_fold():
    """The smallest determinant of p -> p + displacement(p) on the lattice, by central differences."""
    for seed in range(10):
        head = heads.random_head(np.random.default_rng(seed))
        spacing = heads.LATTICE[1] - heads.LATTICE[0]
        columns = [np.gradient(head.displacement, spacing, axis=axis) for axis in (1, 2, 3)]
        determinant = np.linalg.det(np.eye(3) + np.moveaxis(np.stack(columns), (0, 1), (-1, -2)))
        assert determinant.min() > 0.1
        assert np.abs(head.displacement).max() > 2


def test_tissues_have_every_order():
    tissues = [heads.random_tissues(np.random.default_rng(seed)) for seed in range(300)]
    orders = {tuple(np.argsort(t[:3])) for t in tissues}
    assert len(orders) == 6
    fat_over_brain = np.array([t.fat > max(t[:3]) for t in tissues])
    assert 0.2 < fat_over_brain.mean() < 0.9  # bright and dark fat


def test_the_plane_of_a_stripped_brain_shows_brain():
    from hyperrecon_jax.data import brain

    for seed in range(12):
        rng = np.random.default_rng(seed)
        view = heads.random_view(rng, heads.random_head(rng), 48, is_stripped=True)
        assert (brain.find_labels(view) > 0).mean() > 0.01
    assert population.load_anatomy().labels.max() == 4
