"""The page that holds its network, in a real Chromium without a network: its numbers against JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helper import ROOT, explorable_config, run_python, write_explorable

from hyperrecon_jax.explorer import export, measurement_band
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.explorer.offline_page import check_exportable
from hyperrecon_jax.explorer.programs import METRICS
from hyperrecon_jax.losses.metric_table import FULL_REFERENCE
from hyperrecon_jax.models.model import at_condition, reconstruct
from hyperrecon_jax.physics import masks
from hyperrecon_jax.physics.acquisition import encode
from hyperrecon_jax.runs.acquisitions import parse_acquisition
from hyperrecon_jax.runs.experiment import make_model
from hyperrecon_jax.runs.task import make_mask
from hyperrecon_jax.runtime.errors import InputError
from tests.explorer.chromium import needs_chromium
from tests.explorer.offline import ask, opened

LARGEST = 5e6  # bytes of a page


def to_complex(parts):
    return np.array(parts["re"], np.float32) + 1j * np.array(parts["im"], np.float32)


@functools.cache
def compiled_reconstruct(model):
    return jax.jit(functools.partial(reconstruct, model))


def check_numbers(page, engine, lam, acquisition=None, position=0, volume="test", atol=1e-4):
    """Compare the reconstruction and the scores of the page with JAX's, for the measurement that the page made."""
    place = {"volume": volume, "position": position} | ({"acquisition": acquisition} if acquisition else {})
    slice_ = ask(page, "measure", place)
    shape = slice_["height"], slice_["width"]
    measured, answer = ask(page, "inspect", place), ask(page, "reconstruct", {"place": place, "lam": lam})
    y = to_complex(measured["y"])
    problem = engine.volumes.get("test").problem
    if engine.volumes.config.task.name == "csmri":
        y = jnp.asarray(y.reshape(*shape, 1))
    else:
        factor = round((shape[0] * shape[1] / y.size) ** 0.5)
        y = jnp.asarray(y.real.reshape(shape[0] // factor, shape[1] // factor, 1))
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float16).astype(jnp.float32), engine.variables)
    if acquisition:
        condition = encode(engine.volumes.ranges, parse_acquisition(acquisition, engine.volumes.settings))
        np.testing.assert_allclose(measured["condition"], condition, atol=1e-6)
        variables = at_condition(variables, condition)
    x_hat = compiled_reconstruct(engine.model)(variables, jnp.asarray(lam), problem.to_net_input(y))
    plane, truth = (np.array(part, np.float32).reshape(*shape, 1) for part in (answer["plane"], slice_["truth"]))
    scale = max(1.0, float(jnp.abs(x_hat).max()))
    np.testing.assert_allclose(plane / scale, x_hat / scale, atol=atol)
    metrics = answer["metrics"]
    assert set(metrics) == {*METRICS, "data_consistency"}
    np.testing.assert_allclose(metrics["data_consistency"], problem.data_consistency(plane, y), rtol=1e-3)
    noise = engine.volumes.find_noise("test", acquisition)
    if noise.kind == "rician":
        assert slice_["noise"] is None  # the page does not know it
    else:
        j, spread = measurement_band.expected_j(noise, y)
        assert slice_["noise"] == pytest.approx({"j": j, "spread": spread})
    for name in METRICS:
        np.testing.assert_allclose(metrics[name], FULL_REFERENCE[name](plane, truth), rtol=1e-3, atol=1e-5, err_msg=name)
    return plane


@needs_chromium
@pytest.mark.slow
def test_the_model_of_the_package_has_the_numbers_of_jax(pretrained, page_file, browser):
    """At two lambdas and two acquisitions; the truth is a test image, and its measurement has the mask and the noise."""
    assert page_file.stat().st_size < LARGEST
    acquisitions = ["acceleration=4,sigma=0.02,mask=poisson_disc", "acceleration=7.5,sigma=0.06,mask=random_lines"]
    with opened(browser, page_file) as page:
        planes = [check_numbers(page, pretrained, [lam], text) for text in acquisitions for lam in (0.0, 0.8)]
        assert len({plane.tobytes() for plane in planes}) == 4
        images = pretrained.volumes.get("test").file.slices
        indices = page.evaluate("explorer.requests.source.page.images.indices")
        assert indices == [0, 2, 4, 6, 8, 10, 12, 15]
        position = 3
        place = {"volume": "test", "position": position, "acquisition": acquisitions[1]}
        truth = np.array(ask(page, "measure", place)["truth"], np.float32).reshape(192, 192)
        np.testing.assert_allclose(truth, images[indices[position]], atol=1e-6)
        measured = ask(page, "inspect", place)
        mask, y = np.array(measured["mask"]).reshape(192, 192), to_complex(measured["y"]).reshape(192, 192)
        noise = (y - np.fft.fft2(truth, norm="ortho"))[mask > 0]
        np.testing.assert_allclose([noise.real.std(), noise.imag.std()], 0.06 / np.sqrt(2), rtol=0.03)
        assert abs(noise.mean()) < 0.06 * 4 / np.sqrt(noise.size)
        assert not y[mask == 0].any()


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(37, 50), (75, 22), (16, 131)])
def test_images_of_any_size_have_the_numbers_of_jax(shape, pretrained, page_file, browser):
    """Sides that are no multiples of 8 or of 4, a prime, and factors of 3, 5 and 11."""
    image = np.random.default_rng(0).uniform(size=shape)
    with opened(browser, page_file) as page:
        page.evaluate(
            """([h, w, plane]) => explorer.requests.source.helper.ask(
                "add", { id: "noise", planes: [{ h, w, plane: Float32Array.from(plane) }] })""",
            [*shape, image.ravel().tolist()],
        )
        check_numbers(page, pretrained, [0.4], "acceleration=3,sigma=0.02,mask=poisson_disc", volume="noise")


@needs_chromium
@pytest.mark.slow
def test_an_image_that_is_all_zero_stays_black(pretrained, page_file, browser):
    with opened(browser, page_file) as page:
        page.evaluate(
            """() => explorer.requests.source.helper.ask(
                "add", { id: "black", planes: [{ h: 32, w: 24, plane: new Float32Array(32 * 24) }] })"""
        )
        place = {"volume": "black", "position": 0, "acquisition": "acceleration=4,sigma=0,mask=poisson_disc"}
        plane = ask(page, "reconstruct", {"place": place, "lam": [0.5]})["plane"]
    assert plane == [0] * (32 * 24)


RUNS = {
    "width_6": {"network": "unet", "width": 6},
    "unet": {"network": "unet", "width": 4},
    "unet_batch_norm": {"network": "unet", "norm": "batch", "normalize": False, "residual": False},
    "unrolled": {"network": "unrolled", "norm": "none", "iterations": 2},
    "mixture": {"network": "unet", "conditioning": "mixture", "rank": 3, "encoding": "circle"},
    "dense": {"network": "unrolled", "conditioning": "dense", "encoding": "circle", "iterations": 1},
    "denoising": {"network": "unrolled", "task": {"name": "denoising", "noise": "rician", "sigma": 0.1}},
    "super_resolution": {"network": "unrolled", "task": {"name": "super_resolution", "factor": 2}},
}


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_small_networks_have_the_numbers_of_jax(name, browser, tmp_path):
    engine = Engine(write_explorable(tmp_path, **RUNS[name]) / "run")
    with opened(browser, export(engine, tmp_path / "page.html", slices=2)) as page:
        check_numbers(page, engine, [0.3], position=1)
        if engine.volumes.config.task.name == "csmri":  # a network for one mask gets that very mask
            mask = np.array(ask(page, "inspect", {"volume": "test", "position": 0})["mask"]).reshape(16, 16)
            np.testing.assert_array_equal(mask, make_mask(engine.volumes.config, (16, 16)))


@needs_chromium
@pytest.mark.slow
def test_masks_have_the_counts_and_the_density_of_python(page_file, browser):
    """The points differ, as the random numbers do; how many there are at each frequency does not."""
    shapes = [(192, 192), (40, 56)]
    with opened(browser, page_file) as page:
        ask(page, "add", {"id": "flat", "planes": [{"h": 40, "w": 56, "plane": [0.5] * (40 * 56)}]})
        for shape, volume in zip(shapes, ("test", "flat"), strict=True):
            for kind in ("poisson_disc", "random_lines", "equispaced_lines"):
                for acceleration in (2, 5.5):
                    text = f"acceleration={acceleration},sigma=0.05,mask={kind}"
                    answer = ask(page, "inspect", {"volume": volume, "position": 0, "acquisition": text})
                    mask = np.array(answer["mask"]).reshape(shape)
                    expected = masks.make(kind, shape, acceleration=acceleration)
                    assert mask.sum() == expected.sum()
                    if kind == "poisson_disc":
                        ring = (masks._radius(shape) * min(shape) / 4).astype(int).ravel()
                        counts = [np.bincount(ring, m.ravel()) for m in (mask, expected)]
                        assert np.abs(counts[0] - counts[1]).max() <= 1
                        assert (mask != expected).any()
                    else:
                        assert (mask == mask[:1]).all()
                        center = round(shape[1] * 0.32 / acceleration) // 2
                        assert mask[0, : center + 1].all() or mask[0, -center:].all()


def test_what_a_page_cannot_compute_is_refused_by_name(tmp_path):
    config = explorable_config(tmp_path)
    model, _, _ = make_model(config)
    check_exportable(model, config)
    with pytest.raises(InputError, match="cannot be put into a page: it is an ensemble, with a network for each lambda"):
        check_exportable(model._replace(hyper=None, members=((0.0,), (1.0,))), config)
    config.data.coils = 4
    with pytest.raises(InputError, match="cannot be put into a page: its images are measured by 4 coils"):
        check_exportable(model, config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--export", "talk"), "--export must be a file that ends with .html, got talk"),
        (("--slices", "3"), "--slices goes with --export FILE.html"),
        (("--export", "page.html", "--slices", "0"), "The number of slices must be at least 1, got 0"),
        (("--export", "folder.html"), "folder.html cannot be written: it is a folder"),
    ],
)
def test_mistakes_of_the_command_get_a_sentence(tmp_path, args, message):
    (tmp_path / "folder.html").mkdir()
    result = run_python("-m", "bin.explore", *args, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_the_page_of_the_documentation_holds_the_model_of_the_package(page_file):
    demo, page = ((path).read_text() for path in (ROOT / "docs" / "demo.html", page_file))
    assert len(demo.encode()) < LARGEST
    for name in ("offline-weights", "offline-wasm"):
        demo_block, page_block = (text.partition(f'id="{name}">')[2].partition("</script>")[0] for text in (demo, page))
        assert demo_block == page_block != ""
