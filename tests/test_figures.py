"""The picture of a run: written at the size that its contents ask for, whatever their number."""

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

from hyperrecon_jax import figures


def draw(path, count, lams, shape=(24, 32), perfect=False):
    rng = np.random.default_rng(0)
    truth = rng.random((count, *shape), np.float32)
    error = 0 if perfect else rng.random((lams, count, *shape), np.float32)
    figures.reconstructions(
        path,
        truth=truth,
        inputs=rng.random((count, *shape), np.float32),
        x_hat=np.broadcast_to(truth, (lams, *truth.shape)) + error,
        titles=[f"lambda = {j}" for j in range(lams)],
        input_scores=[(20.0, 0.5)] * count,
        scores=[[(25.0, 0.9)] * count for _ in range(lams)],
        heading="a heading",
    )
    return matplotlib.image.imread(path)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("lams", [1, 5])
def test_size(tmp_path, count, lams):
    """Three rows a slice; truth, input, the reconstructions and their difference in columns. No warning is raised."""
    picture = draw(tmp_path / "a.png", count, lams)
    inches = np.array([1.83 * 3 * count + 0.8, 1.75 * (lams + 3)])
    np.testing.assert_allclose(picture.shape[:2], 110 * inches, atol=1)
    assert picture[..., :3].std() > 0.1


@pytest.mark.parametrize("shape", [(16, 16), (64, 24)])
def test_shapes(tmp_path, shape):
    assert draw(tmp_path / "a.png", 1, 2, shape).size > 0


def test_perfect_and_equal_reconstructions(tmp_path):
    """Nothing to show in the errors, nor between lambdas; scales must not collapse."""
    assert draw(tmp_path / "a.png", 1, 3, perfect=True).size > 0


def test_figures_are_closed(tmp_path):
    draw(tmp_path / "a.png", 1, 1)
    assert plt.get_fignums() == []


def test_the_magnified_part_is_where_the_edges_are():
    image = np.full((64, 64), 0.5)
    image[44:, 40:] += np.random.default_rng(0).random((20, 24)) / 4
    part = figures._busiest_part(image)
    assert [s.stop - s.start for s in part] == [24, 24]
    assert part[0].start >= 35
    assert part[1].start >= 35


@pytest.mark.parametrize("image", [np.zeros((16, 16)), np.ones((16, 24))])
def test_the_magnified_part_of_an_even_image_is_inside(image):
    assert image[figures._busiest_part(image)].shape == (8, max(8, 3 * image.shape[1] // 8))
