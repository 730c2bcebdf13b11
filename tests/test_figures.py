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


@pytest.mark.parametrize("bins", [(8,), (8, 8)])
@pytest.mark.parametrize("epochs", [1, 4])
def test_the_histogram_of_lambdas(tmp_path, bins, epochs):
    counts = np.random.default_rng(0).integers(0, 9, (epochs, *bins))
    counts[-1] = 0  # an epoch that has just begun
    figures.lambda_histogram(tmp_path / "a.png", counts=counts, edges=np.linspace(0, 1, 9))
    assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].std() > 0.1


def test_landscapes_put_lambda_1_to_the_right_and_the_star_at_the_maximum(tmp_path, monkeypatch):
    stars = []
    original = figures.Figure.savefig

    def look(figure, *args, **options):
        for axis in figure.axes:
            stars.extend(line.get_xydata()[0].tolist() for line in axis.lines if line.get_marker() == "*")
        return original(figure, *args, **options)

    monkeypatch.setattr(figures.Figure, "savefig", look)
    values = np.zeros((1, 2, 5, 5))
    values[0, 0, 4, 1] = values[0, 1, 0, 3] = 2.0
    figures.landscapes(tmp_path / "a.png", values=values, rows=["a"], columns=["b", "c"], label="dB", heading="h")
    assert stars == [[1.0, 0.25], [0.0, 0.75]]


def test_an_even_landscape(tmp_path):
    values = np.zeros((2, 1, 3, 3))
    figures.landscapes(tmp_path / "a.png", values=values, rows=["a", "b"], columns=["c"], label="dB", heading="h")


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
