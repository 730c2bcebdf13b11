"""The pictures: both files at the size that their contents ask for, and in them the numbers that were given."""

import re

import matplotlib.figure
import matplotlib.image
import matplotlib.pyplot as plt
import matplotlib.text
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from hyperrecon_jax import figures
from hyperrecon_jax.figures import Curve, style
from hyperrecon_jax.figures.crops import busiest_part

LAMS = np.linspace(0, 1, 11)
FIVE = np.linspace(0, 1, 5)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few pixels, for speed; sizes in inches are as in print."""
    monkeypatch.setitem(style.PAPER, "savefig.dpi", 60)


def record(monkeypatch, kinds):
    """The figures that will be saved, once each, in files of some kinds."""
    seen = []
    original = matplotlib.figure.Figure.savefig

    def savefig(figure, path, **options):
        if figure not in seen:
            seen.append(figure)
        if path.suffix in kinds:
            original(figure, path, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return seen


@pytest.fixture
def drawn(monkeypatch):
    """Every figure, without its PDF, whose fonts take their time."""
    return record(monkeypatch, [".png"])


def stars(figure):
    """Where the stars are, panel by panel."""
    return [line.get_xydata()[0].tolist() for axis in figure.axes for line in axis.lines if line.get_marker() == "*"]


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


@pytest.mark.parametrize(
    ("lams", "count"),
    [(1, 1), *(pytest.param(lams, count, marks=pytest.mark.slow) for lams, count in ((1, 3), (5, 1), (5, 3)))],
)
def test_size(tmp_path, lams, count):
    """Three rows a slice; truth, input, the reconstructions and their difference in columns. No warning is raised."""
    picture = draw(tmp_path / "a.png", count, lams)
    inches = np.array([1.83 * 3 * count + 0.8, 1.75 * (lams + 3)])
    np.testing.assert_allclose(picture.shape[:2], 110 * inches, atol=1)
    assert picture[..., :3].std() > 0.1


@pytest.mark.parametrize("shape", [(16, 16), pytest.param((64, 24), marks=pytest.mark.slow)])
def test_shapes(tmp_path, shape):
    assert draw(tmp_path / "a.png", 1, 2, shape).size > 0


@pytest.mark.slow
def test_perfect_and_equal_reconstructions(tmp_path):
    """Nothing to show in the errors, nor between lambdas; scales must not collapse."""
    assert draw(tmp_path / "a.png", 1, 3, perfect=True).size > 0


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_segmentations(tmp_path, drawn, count):
    rng = np.random.default_rng(0)
    images, truth = rng.random((count, 24, 32)), rng.integers(0, 3, (count, 24, 32))
    names = ["background", "a", "b"]
    figures.segmentations(
        tmp_path / "a.png", images=images, truth=truth, predicted=2 - truth, names=names, dice=[0.25] * count
    )
    assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].std() > 0.1
    (figure,) = drawn
    assert len(figure.axes) == 4 * count
    image, true, predicted, wrong = (axis.images[0] for axis in figure.axes[-4:])
    np.testing.assert_array_equal(image.get_array(), images[-1])
    np.testing.assert_array_equal(wrong.get_array(), truth[-1] != 1)
    (legend,) = figure.legends
    colors = dict(
        zip([text.get_text() for text in legend.texts], [p.get_facecolor() for p in legend.get_patches()], strict=True)
    )
    assert list(colors) == names
    for shades, labels in ((true, truth[-1]), (predicted, 2 - truth[-1])):
        expected = np.array([colors[name] for name in names])[labels]
        np.testing.assert_allclose(shades.cmap(shades.norm(shades.get_array())), expected)
    inside(figure)


@pytest.mark.parametrize("bins", [(8,), (8, 8)])
@pytest.mark.parametrize("epochs", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_the_histogram_of_lambdas(tmp_path, drawn, bins, epochs):
    counts = np.random.default_rng(0).integers(0, 9, (epochs, *bins))
    counts[-1] = 0  # an epoch that has just begun
    figures.lambda_histogram(tmp_path / "a.png", counts=counts, edges=np.linspace(0, 1, 9))
    assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].std() > 0.1
    inside(drawn[0])


def test_landscapes_put_lambda_1_to_the_right_and_the_star_at_the_maximum(tmp_path, drawn):
    values = np.zeros((1, 2, 5, 5))
    values[0, 0, 4, 1] = values[0, 1, 0, 3] = 2.0
    figures.landscapes(tmp_path / "a.png", values=values, rows=["a"], columns=["b", "c"], label="dB", heading="h")
    assert stars(drawn[0]) == [[1.0, 0.25], [0.0, 0.75]]


def test_landscapes_on_an_uneven_grid(tmp_path, drawn):
    """The axes are those given, also where there are more points along one; a panel of NaN stays empty."""
    axes = np.array([0, 0.5, 0.9, 1]), np.array([0, 0.2, 1])
    values = np.add.outer(axes[0], 2 * axes[1])[None, None] * np.ones((2, 1, 1, 1))
    values[1] = np.nan
    options = {"rows": ["a", "b"], "columns": ["c"], "label": "dB", "heading": "", "axes": axes}
    figures.landscapes(tmp_path / "a.png", values=values, titles=[["U-Nets"], [""]], **options)
    used, empty, bar = drawn[0].axes
    assert (used.get_title(), empty.get_visible()) == ("U-Nets: best 3.00", False)
    assert stars(drawn[0]) == [[1.0, 1.0]]
    (mesh,) = (item for item in used.collections if item.get_array() is not None and item.get_array().ndim == 2)
    np.testing.assert_array_equal(mesh.get_array(), values[0, 0].T)
    x = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_allclose((x[1:] + x[:-1])[1:-1] / 2, axes[0][1:-1], atol=0.11)  # cells are around their points

    # every level set is where its label, and the legend, says
    labels = {float(text.get_text().replace("−", "-")): text.get_position() for text in used.texts}
    levels = [float(tick) for tick in bar.get_yticks()]
    assert labels
    assert set(labels) <= set(levels)
    for level, (x, y) in labels.items():
        np.testing.assert_allclose(x + 2 * y, level, atol=1e-6)


def test_labels_of_level_sets_keep_clear_of_the_star_the_border_and_one_another(tmp_path, drawn):
    side = np.linspace(0, 1, 30)
    values = -np.add.outer((side - 0.8) ** 2, (side - 0.6) ** 2)[None, None]
    figures.landscapes(tmp_path / "a.png", values=values, rows=[""], columns=[""], label="dB", heading="")
    places = [text.get_position() for text in drawn[0].axes[0].texts]
    assert len(places) > 2
    assert np.all((np.array(places) > 0.06) & (np.array(places) < 0.94))
    places.append(stars(drawn[0])[0])
    for i, place in enumerate(places):
        assert all((np.abs(np.subtract(place, other)) > (0.2, 0.1)).any() for other in places[:i])


def test_an_even_landscape(tmp_path, drawn):
    values = np.zeros((2, 1, 3, 3))
    figures.landscapes(tmp_path / "a.png", values=values, rows=["a", "b"], columns=["c"], label="dB", heading="h")
    inside(drawn[0])


def test_figures_are_closed(tmp_path):
    draw(tmp_path / "a.png", 1, 1)
    assert plt.get_fignums() == []


def test_the_magnified_part_is_where_the_edges_are():
    image = np.full((64, 64), 0.5)
    image[44:, 40:] += np.random.default_rng(0).random((20, 24)) / 4
    part = busiest_part(image)
    assert [s.stop - s.start for s in part] == [24, 24]
    assert part[0].start >= 35
    assert part[1].start >= 35


@pytest.mark.parametrize("image", [np.zeros((16, 16)), np.ones((16, 24))])
def test_the_magnified_part_of_an_even_image_is_inside(image):
    assert image[busiest_part(image)].shape == (8, max(8, 3 * image.shape[1] // 8))


def curve(name, lams=LAMS, *, best=0.3, **options):
    """A parabola with its best value at `best`, errors included."""
    away = (lams - best) ** 2
    means = {"psnr": 30 - away, "mae": 0.01 + away, "dice": 0.9 - away}
    return Curve(name, lams, means, {k: (v - 0.1, v + 0.2) for k, v in means.items()}, **options)


def lines(axis, marker):
    return [line for line in axis.lines if line.get_marker() == marker]


def test_metric_curves(tmp_path, drawn):
    """The values reach their panels, errors with their sign turned, low and high in order, a star at the maximum."""
    run, nets = curve("HyperRecon"), curve("U-Nets", FIVE, continuous=False)
    figures.metric_curves(tmp_path / "a.png", curves=[run, nets], metrics=["psnr", "mae"], ends=("MAE", "1−SSIM"))
    for axis, metric, label, sign in zip(drawn[0].axes, ("psnr", "mae"), ("PSNR (dB) ↑", "nMAE ↑"), (1, -1), strict=True):
        assert axis.get_ylabel() == label
        (line,), (points,) = lines(axis, ""), lines(axis, "o")
        np.testing.assert_allclose(line.get_xydata(), np.stack([LAMS, sign * run.means[metric]], -1))
        np.testing.assert_allclose(points.get_xydata(), np.stack([FIVE, sign * nets.means[metric]], -1))
        ((x, y),) = [star.get_xydata()[0] for star in lines(axis, "*")]
        np.testing.assert_allclose([x, y], [0.3, sign * run.means[metric][3]])
        band, bars = axis.collections
        bounds = np.sort([sign * bound[3] for bound in run.intervals[metric]])
        vertices = band.get_paths()[0].vertices
        np.testing.assert_allclose(np.unique(vertices[np.isclose(vertices[:, 0], 0.3), 1]), bounds)
        low, high = np.array(bars.get_segments())[..., 1].T
        np.testing.assert_allclose(high - low, 0.3)
        assert [text.get_text() for text in axis.get_xticklabels()][::4] == ["0\nMAE", "1\n1−SSIM"]
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "HyperRecon",
        "U-Nets",
        "maximum of a line",
        "95 % interval",
    ]


def test_the_best_lambda_is_marked(tmp_path, drawn):
    figures.metric_curves(tmp_path / "a.png", curves=[curve("a"), curve("b", best=0.8)], metrics=["dice"], mark="b")
    (axis,) = drawn[0].axes
    assert [text.get_text() for text in axis.texts] == [r"best $\lambda$ = 0.80"]
    assert any(np.allclose(line.get_xdata(), 0.8) for line in axis.lines)
    np.testing.assert_allclose([x for x, _ in stars(drawn[0])], [0.3, 0.8])
    assert drawn[0].get_figwidth() == style.SINGLE


def test_curves_differ_without_colour(tmp_path, drawn):
    """Lines by dash, points by marker; those of one task share a colour (Fig. 5). A curve may lack a metric."""
    tasks = ("a", "b", "c")
    curves = [curve(f"H {task}", group=task) for task in tasks]
    curves += [curve(f"U {task}", FIVE, group=task, continuous=False) for task in tasks]
    curves.append(Curve("other", LAMS, {"psnr": 29 + LAMS}))
    figures.metric_curves(tmp_path / "a.png", curves=curves)
    first, second, *_ = drawn[0].axes
    assert len(lines(first, "")) == 4
    assert len(lines(second, "")) == 3
    curve_lines = [line for line in first.lines if line.get_marker() != "*"]
    colors = [line.get_color() for line in curve_lines]
    assert colors[:3] == colors[3:6]
    assert len(set(colors)) == 4
    assert len({(str(line._unscaled_dash_pattern), line.get_linestyle()) for line in lines(first, "")}) == 4
    assert len({line.get_marker() for line in curve_lines if line.get_linestyle() == "None"}) == 3


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("psnr", ("PSNR (dB)", 1)),
        ("hfen", ("nHFEN", -1)),
        ("nhfen", ("nHFEN", 1)),
        ("mse", ("nMSE", -1)),
        ("edges", ("negative edge error", -1)),
        ("nmae", ("nMAE", 1)),
        ("Dice, cortex", ("Dice, cortex", 1)),
    ],
)
def test_higher_is_better(metric, expected):
    assert figures.label_and_sign(metric) == expected


def test_the_best_of_an_error_is_the_lowest():
    assert curve("a").best("mae") == pytest.approx(0.3)


@pytest.mark.parametrize("count", [pytest.param(4, marks=pytest.mark.slow), 5])
def test_any_number_of_panels(tmp_path, drawn, count):
    """One legend, in the place that is left or under all panels; nothing is cut off."""
    names = ["psnr", "ssim", "mae", "hfen", "mse", "dice", "rpsnr"][:count]
    run = Curve("a run", LAMS, {name: LAMS for name in names})
    figures.metric_curves(tmp_path / "a.png", curves=[run], ends=("MAE", "1−SSIM"), heading="A heading that is long " * 3)
    assert sum(bool(axis.lines) for axis in drawn[0].axes) == count
    assert len(drawn[0].legends) + sum(axis.get_legend() is not None for axis in drawn[0].axes) == 1
    inside(drawn[0])


def inside(figure):
    """Everything lies within the page."""
    box, page = figure.get_tightbbox(), figure.bbox_inches
    assert min(box.x0, box.y0) > -0.01
    assert box.x1 < page.x1 + 0.01
    assert box.y1 < page.y1 + 0.01


def test_comparison(tmp_path, drawn):
    """Gaps with the sign turned for errors; the band is the tolerance; with bars, experiments stand beside one another."""
    gaps = {"psnr": np.arange(10.0).reshape(2, 5), "mae": np.full((2, 5), 0.5)}
    figures.comparison(tmp_path / "a.png", lams=FIVE, names=["a", "b"], gaps=gaps, tolerance={"mae": 0.25})
    first, second = drawn[0].axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("Δ PSNR (dB)", "Δ nMAE")
    for i, marker in enumerate("os"):
        np.testing.assert_allclose(lines(first, marker)[0].get_xydata(), np.stack([FIVE, gaps["psnr"][i]], -1))
        np.testing.assert_allclose(lines(second, marker)[0].get_ydata(), -0.5)
    assert not first.patches
    (band,) = second.patches
    assert (band.get_y(), band.get_height()) == (-0.25, 0.5)
    assert any(np.all(np.asarray(line.get_ydata()) == 0) for line in first.lines)

    bars = {"psnr": (gaps["psnr"] - 1, gaps["psnr"] + 2)}
    figures.comparison(tmp_path / "a.png", lams=FIVE, names=["a", "b"], gaps=gaps, intervals=bars)
    a, b = (lines(drawn[1].axes[0], marker)[0].get_xdata() for marker in "os")
    assert np.all(b > a)
    np.testing.assert_allclose((a + b) / 2, FIVE)
    np.testing.assert_allclose(drawn[1].axes[0].collections[1].get_segments()[4], [[b[4], 8], [b[4], 11]])


@pytest.mark.parametrize("methods", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_slices(tmp_path, drawn, methods):
    """Each image and its part where they belong, the part framed in the truth, the PSNR in the panel."""
    rng = np.random.default_rng(0)
    truth, x_hat = rng.random((24, 32)), rng.random((methods, 2, 24, 32))
    psnr, names = 20 + np.arange(2.0 * methods).reshape(methods, 2), ["U-Nets", "S", "L"][:methods]
    options = {"titles": ["first", "second"], "psnr": psnr, "rows": names}
    figures.slices(tmp_path / "a.png", truth=truth, input=1 - truth, x_hat=x_hat, **options)
    part = busiest_part(truth)
    panels = [axis for axis in drawn[0].axes if axis.get_visible()]
    assert len(panels) == 2 * (2 + 2 * methods)
    named = {axis.get_title(): axis for axis in panels if axis.get_title()}
    assert set(named) == {"truth", "input", "first", "second"}
    np.testing.assert_array_equal(named["truth"].images[0].get_array(), truth)
    np.testing.assert_array_equal(named["input"].images[0].get_array(), 1 - truth)
    (box,) = named["truth"].patches
    assert box.get_xy() == (part[1].start - 0.5, part[0].start - 0.5)
    scored = [axis for axis in panels if axis.texts]
    assert [axis.texts[0].get_text() for axis in scored] == [f"{value:.2f} dB" for value in psnr.ravel()]
    for axis, image in zip(scored, x_hat.reshape(-1, 24, 32), strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)
        assert axis.images[0].get_clim() == (0, 1)
        (under,) = (a for a in panels if below(a, axis))
        np.testing.assert_array_equal(under.images[0].get_array(), image[part])
    assert [axis.get_ylabel() for axis in scored[::2]] == names
    inside(drawn[0])


def below(a, b):
    """Whether a panel is right under another, with a hair between them."""
    a, b = a.get_position(), b.get_position()
    return abs(a.x0 - b.x0) < 1e-9 and 0 < b.y0 - a.y1 < 0.5 * style.GAP


def test_image_rows(tmp_path, drawn):
    """A row for each split; where there are fewer slices, the rest stays empty."""
    images = np.random.default_rng(0).random((3, 16, 16))
    figures.image_rows(tmp_path / "a.png", {"training": (images, ["a", "b", "c"]), "test": (images[:1], ["d"])})
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == ["a", "b", "c", "d", "", ""]
    assert [axis.get_ylabel() for axis in axes] == ["training", "", "", "test", "", ""]
    for axis, image in zip(axes, images, strict=False):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)
        assert axis.images[0].get_clim() == (0, 1)
    assert not axes[4].images


@pytest.mark.parametrize(("count", "equal"), [(2, False), (1, True)])
def test_pair(tmp_path, drawn, count, equal):
    """Second minus first, on a scale about zero that all slices share."""
    rng = np.random.default_rng(0)
    truth, x_hat = rng.random((count, 24, 24)), rng.random((count, 2, 24, 24))
    if equal:
        x_hat[:, 1] = x_hat[:, 0]
    options = {"titles": [["(1, 0)", "(0, 1)"]] * count, "psnr": np.full((count, 2), 30.0)}
    figures.pair(tmp_path / "a.png", truth=truth, input=truth, x_hat=x_hat, input_psnr=np.full(count, 20.0), **options)
    *panels, bar = drawn[0].axes
    assert bar.get_ylabel() == "difference of intensity"
    signed = [axis.images[0] for axis in panels if axis.images[0].get_cmap().name == "RdBu_r"]
    assert len(signed) == 2 * count
    np.testing.assert_array_equal(signed[0].get_array(), x_hat[0, 1] - x_hat[0, 0])
    (low, high), *others = [image.get_clim() for image in signed]
    assert -low == high > 0
    assert all(other == (low, high) for other in others)
    assert [axis.get_title() for axis in panels[:5]] == ["truth", "input", "(1, 0)", "(0, 1)", "second − first"]
    inside(drawn[0])


def test_interpolation_keeps_an_affine_function_and_is_that_of_scipy():
    axes = np.array([0, 0.1, 0.35, 0.9, 0.99, 1]), np.array([0, 0.7, 0.95, 1])
    even = np.linspace(0, 1, 100)
    np.testing.assert_allclose(
        figures.interpolate(1 + np.add.outer(2 * axes[0], -3 * axes[1]), axes),
        1 + np.add.outer(2 * even, -3 * even),
        atol=1e-12,
    )
    values = np.random.default_rng(0).random((2, 3, 6, 4))
    interpolated = figures.interpolate(values, axes, points=9)
    assert interpolated.shape == (2, 3, 9, 9)
    interpolator = RegularGridInterpolator(axes, values[1, 2])
    np.testing.assert_allclose(interpolated[1, 2, 3, 7], interpolator((3 / 8, 7 / 8)))
    np.testing.assert_allclose(interpolated[..., -1, 0], values[..., -1, 0])


def test_interpolation_does_not_extrapolate():
    with pytest.raises(ValueError, match="out of bounds"):
        figures.interpolate(np.ones((2, 2)), (np.array([0, 0.9]), np.array([0.0, 1])))


def draw_curves(path):
    figures.metric_curves(path, curves=[curve("a")])


def draw_comparison(path):
    figures.comparison(path, lams=FIVE, names=["a"], gaps={"psnr": np.ones((1, 5))})


def draw_landscapes(path):
    figures.landscapes(path, values=np.eye(4)[None, None], rows=["a"], columns=["b"], label="dB", heading="A heading " * 9)


def draw_histogram(path):
    figures.lambda_histogram(path, counts=np.ones((2, 4, 4), int), edges=np.linspace(0, 1, 5))


def draw_slices(path):
    image = np.random.default_rng(0).random((16, 16))
    options = {"titles": ["a"], "psnr": np.ones((1, 1)), "rows": ["b"]}
    figures.slices(path, truth=image, input=image, x_hat=image[None, None], **options)


def draw_pair(path):
    image = np.random.default_rng(0).random((1, 16, 16))
    options = {"titles": [["a", "b"]], "psnr": np.ones((1, 2))}
    figures.pair(path, truth=image, input=image, x_hat=np.stack([image, 1 - image], 1), **options)


SLOW = (
    pytest.param(write, marks=pytest.mark.slow) for write in (draw_comparison, draw_landscapes, draw_histogram, draw_pair)
)


@pytest.mark.parametrize("write", [draw_curves, draw_slices, *SLOW])
def test_both_files(tmp_path, monkeypatch, write):
    """A PNG and a PDF of one size, at most two columns wide, TrueType of 7 points at least, nothing cut off."""
    drawn = record(monkeypatch, [".png", ".pdf"])
    write(tmp_path / "a.png")
    picture = matplotlib.image.imread(tmp_path / "a.png")
    size = drawn[0].get_size_inches()
    np.testing.assert_allclose(picture.shape[1::-1], 60 * size, atol=1)
    assert size[0] < style.DOUBLE + 1e-6
    document = (tmp_path / "a.pdf").read_bytes()
    assert document.startswith(b"%PDF")
    assert b"/FontFile2" in document
    assert b"/Type3" not in document
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", document)
    np.testing.assert_allclose([float(side) / 72 for side in box.groups()], size, atol=0.01)
    assert min(text.get_fontsize() for text in drawn[0].findobj(matplotlib.text.Text)) >= 7
    inside(drawn[0])

    assert plt.get_fignums() == []
    assert matplotlib.rcParams["pdf.fonttype"] == matplotlib.rcParamsDefault["pdf.fonttype"]


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        draw_slices(tmp_path / name)
    for kind in (".png", ".pdf"):
        assert (tmp_path / "a").with_suffix(kind).read_bytes() == (tmp_path / "b").with_suffix(kind).read_bytes()
