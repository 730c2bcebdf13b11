"""The page that holds its network, in a real Chromium without a network: its numbers against JAX, and a visit."""

import base64
import contextlib
import functools
import gzip
import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from helper import ROOT, explorable_config, npy_bytes, run_python, write_explorable
from PIL import Image

from hyperrecon_jax.data import volumes
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
from hyperrecon_jax.runs.slim_run import PRETRAINED_FOLDER
from hyperrecon_jax.runs.task import make_mask
from hyperrecon_jax.runtime.errors import InputError
from tests.explorer.chromium import EXACT, needs_chromium

LARGEST = 5e6  # bytes of a page

# Asks the worker of the page a question. Its complex arrays become pairs of lists.
ASK = """async ([name, args]) => {
    const plain = (value) => ArrayBuffer.isView(value) ? [...value]
        : value && typeof value === "object" && !Array.isArray(value)
            ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)])) : value;
    return plain(await explorer.requests.source.helper.ask(name, args));
}"""


@pytest.fixture(scope="module")
def pretrained():
    return Engine(PRETRAINED_FOLDER)


@pytest.fixture(scope="module")
def page_file(pretrained, tmp_path_factory):
    """The page of the model of the package."""
    return export(pretrained, tmp_path_factory.mktemp("page") / "page.html")


@contextlib.contextmanager
def opened(browser, file):
    """A page from disk without a network. What it logs, or asks the network for, fails the test."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda request: None if request.url.startswith(("file:", "blob:")) else faults.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready=true]")
    page.wait_for_selector(EXACT)
    yield page
    context.close()
    assert faults == []


def ask(page, name, args):
    return page.evaluate(ASK, [name, args])


def to_complex(parts):
    return np.array(parts["re"], np.float32) + 1j * np.array(parts["im"], np.float32)


@functools.cache
def compiled_reconstruct(model):
    return jax.jit(functools.partial(reconstruct, model))


def check_numbers(page, engine, lam, acquisition=None, position=0, atol=1e-4):
    """Compare the reconstruction and the scores of the page with JAX's, for the measurement that the page made."""
    place = {"volume": "test", "position": position} | ({"acquisition": acquisition} if acquisition else {})
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


RUNS = {
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


def drop(page, name, content):
    """Drop a file on the page."""
    page.evaluate(
        """([name, text]) => {
            const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.querySelector("#view-main").dispatchEvent(
                    new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        [name, base64.b64encode(content).decode()],
    )


def png_bytes(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def drawn(page, view="view-main"):
    return page.eval_on_selector(f"#{view} canvas", "canvas => canvas.toDataURL()")


def set_lambda(page, value):
    page.fill("#lambda-number-1", str(value))
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{EXACT}[data-lam='{value:.3f}']")


@needs_chromium
@pytest.mark.slow
def test_a_visit_without_a_server(page_file, browser):
    """Move lambda, change the acquisition, drop pictures, find a lambda; the page answers meanwhile."""
    with opened(browser, page_file) as page:
        assert page.get_attribute("body", "data-source") == "offline"
        assert "no picture leaves it" in page.inner_text("header")
        assert page.is_hidden("#banner")
        for selector in ("button[data-format=dcm]", "#band", "#plane", "#remove-volume", "#export-scores", "#folder"):
            assert page.is_hidden(selector), selector
        assert "±" in page.inner_text("#readouts td[data-metric=noise_j]")
        first = drawn(page)
        set_lambda(page, 0.9)
        assert drawn(page) != first
        before = drawn(page, "view-input")
        page.fill("#acquisition-acceleration", "8")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"{EXACT}[data-acquisition='acceleration=8,sigma=0.025,mask=poisson_disc']")
        page.wait_for_selector("#view-input[data-acquisition*='acceleration=8']")
        assert drawn(page, "view-input") != before

        x, y = np.mgrid[:100, :91] / 100
        colours = np.stack([255 * x, 128 * (np.hypot(x - 0.5, y - 0.5) < 0.3), 255 * y], -1).astype(np.uint8)
        drop(page, "mine.png", png_bytes(colours))
        page.wait_for_selector(f"{EXACT}[data-volume=file1]")
        note = page.inner_text("#volume-note")
        assert "Read as grey of 8 bits. Scaled by its maximum" in note
        assert "multiples of 8" in note
        assert "trained on 192 x 192 pixels, this is 104 x 96" in note
        place = {"volume": "file1", "position": 0, "acquisition": "acceleration=8,sigma=0.025,mask=poisson_disc"}
        truth = np.array(ask(page, "measure", place)["truth"]).reshape(104, 96)
        gray = colours @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(truth[2:102, 2:93], gray / gray.max(), atol=1e-5)
        assert truth[:2].max() == truth[:, 93:].max() == 0

        best_and_diverse(page)
        frames = page.evaluate(
            """async () => {
                let frames = 0;
                const count = () => { frames++; requestAnimationFrame(count); };
                requestAnimationFrame(count);
                const { source } = explorer.requests;
                const place = { volume: "test", index: 0, acquisition: "acceleration=3,sigma=0,mask=random_lines" };
                const start = performance.now();
                await Promise.all([0.1, 0.2, 0.3].map((lam) => source.reconstruct(place, [lam])));
                return frames / ((performance.now() - start) / 1000);
            }"""
        )
        assert frames > 10  # a second; while the page computed in its own thread there would be none


def best_and_diverse(page):
    page.select_option("#best-metric", "ssim")
    page.click("#best")
    page.wait_for_selector("#searches li:has-text('of 21 settings of λ')")
    page.wait_for_function("() => document.querySelector('#best-result').innerText.includes('SSIM')")
    entries = page.evaluate(
        "[...explorer.cache.entries.values()].filter((e) => e.volume === 'file1').map((e) => [e.lam[0], e.metrics.ssim])"
    )
    best = max(entries, key=lambda entry: entry[1])
    assert page.get_attribute("#view-main", "data-lam") == f"{best[0]:.3f}"
    assert page.inner_text("#best-result") == f"SSIM {best[1]:.4f}"
    page.click("#diverse")
    page.wait_for_selector("#diverse-list button[data-lam]")
    lams = [button.get_attribute("data-lam") for button in page.query_selector_all("#diverse-list button")]
    assert len(set(lams)) == len(lams) >= 2
    assert "of 21 lambdas" in page.inner_text("#diverse-note")
    page.click("#best")
    page.click("#searches li button:has-text('Cancel')")
    page.wait_for_selector("#searches li", state="detached")
    page.select_option("#volume", "test")
    page.wait_for_selector(f"{EXACT}[data-volume=test]")
    assert page.query_selector("#toasts li.error") is None


@needs_chromium
@pytest.mark.slow
def test_arrays_and_wrong_files(page_file, browser):
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(3, 24, 40)) * 50
    with opened(browser, page_file) as page:
        arrays = [volume, np.asfortranarray(volume.astype(np.float32)), (volume[0] * 9).astype(np.int16), volume[0] > 0]
        for k, array in enumerate(arrays, start=1):
            drop(page, f"a{k}.NPY", npy_bytes(array))
            page.wait_for_selector(f"{EXACT}[data-volume=file{k}]")
            count = len(array) if array.ndim == 3 else 1
            low, high = min(0, array.min()), array.max()
            for position in range(count):
                truth = ask(
                    page,
                    "measure",
                    {"volume": f"file{k}", "position": position, "acquisition": "acceleration=2,sigma=0,mask=random_lines"},
                )["truth"]
                expected = (array.reshape(count, 24, 40)[position] - float(low)) / (float(high) - float(low))
                np.testing.assert_allclose(np.reshape(truth, (24, 40)), expected, atol=1e-6)
        large = np.zeros((700, 1024))
        large[100:500, 200:900] = rng.random((400, 700))
        drop(page, "large.npy", npy_bytes(large))
        page.wait_for_selector(f"{EXACT}[data-volume=file{len(arrays) + 1}]")
        assert "Reduced from 700 x 1024 to 350 x 512 pixels." in page.inner_text("#volume-note")
        truth = np.array(page.evaluate("[...explorer.views.truth.picture.plane]")).reshape(352, 512)[1:351]
        np.testing.assert_allclose(truth, large.reshape(350, 2, 512, 2).mean((1, 3)) / large.max(), atol=1e-6)
        for name, content, message in (
            ("scan.nii.gz", b"\x1f\x8b no volume", "hyperrecon explore"),
            (
                "k.npy",
                npy_bytes(np.ones((32, 32), np.complex64)),
                "must hold real numbers (h, w) or (n, h, w), got c8 (32, 32)",
            ),
            ("line.npy", npy_bytes(np.ones(32)), "must hold real numbers"),
            ("small.npy", npy_bytes(np.ones((8, 32))), "at least 16 x 16 pixels, got 1 of 8 x 32"),
            ("nan.npy", npy_bytes(np.full((32, 32), np.nan)), "must hold finite numbers"),
            ("flat.npy", npy_bytes(np.zeros((32, 32))), "all its values are equal"),
            ("cut.npy", npy_bytes(np.ones((32, 32)))[:-8], "is damaged"),
            ("empty.npy", b"", "got another file"),
        ):
            drop(page, name, content)
            toast = page.wait_for_selector(f"#toasts li.error:has-text('{name}')")
            assert message in toast.inner_text()


def saved(page, content, file_format):
    page.select_option("#export-content", content)
    with page.expect_download() as download:
        page.click(f"button[data-format={file_format}]")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


@needs_chromium
@pytest.mark.slow
def test_files_to_take_away(page_file, browser):
    """They are what NumPy and nibabel read, in the units and of the size of the file; as upright as the server's."""
    array = np.random.default_rng(0).normal(size=(3, 30, 41)).astype(np.float32) * 50
    low, high = float(array.min()), float(array.max())
    with opened(browser, page_file) as page:
        drop(page, "my head.v2.npy", npy_bytes(array))
        page.wait_for_selector(f"{EXACT}[data-volume=file1]")
        set_lambda(page, 0.25)
        plane = np.array(page.evaluate("[...explorer.views.main.picture.plane]")).reshape(32, 48)[1:31, 3:44]
        name, content = saved(page, "result", "npy")
        assert name == "my_head_1_lambda_0.25.npy"
        result = np.load(io.BytesIO(content))
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, plane.astype(np.float32))
        name, content = saved(page, "result", "nii")
        assert name == "my_head_1_lambda_0.25.nii"
        file = nibabel.Nifti1Image.from_bytes(content)
        assert file.shape == (41, 30, 1)
        np.testing.assert_allclose(file.get_fdata()[:, ::-1, 0].T, low + plane * (high - low), rtol=1e-5, atol=1e-4)
        metadata = json.loads(file.header.extensions[0].get_content())
        assert metadata["lambda"] == "0.25"
        assert metadata["volume"] == "my head.v2.npy"
        assert metadata["slice"] == "1"
        truth = nibabel.Nifti1Image.from_bytes(saved(page, "truth", "nii")[1])
        np.testing.assert_allclose(truth.get_fdata()[:, ::-1, 0].T, array[1], rtol=1e-5, atol=1e-3)
        volume = volumes.read("my_head.npy", npy_bytes(array), multiple=8)  # what the server makes of it
        own = nibabel.Nifti1Image.from_bytes(gzip.decompress(volumes.nifti(volume, 1, volume.slices[1], {})))
        np.testing.assert_array_equal(own.affine, truth.affine)
        assert (own.header["sform_code"], own.header["qform_code"]) == (
            truth.header["sform_code"],
            truth.header["qform_code"],
        )
        np.testing.assert_allclose(own.get_fdata(), truth.get_fdata(), rtol=1e-4, atol=1e-3)
        page.select_option("#volume", "test")
        page.wait_for_selector(f"{EXACT}[data-volume=test]")
        assert np.load(io.BytesIO(saved(page, "input", "npy")[1])).shape == (192, 192)


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
