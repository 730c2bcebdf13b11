"""A visit to the page that holds its network, and the files that one drops on it or takes away."""

import gzip
import io
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helper import npy_bytes
from PIL import Image

from hyperrecon_jax.data import volumes
from tests.explorer.chromium import EXACT, drawn, needs_chromium, npy_file
from tests.explorer.offline import ask, drop, opened, set_lambda

pytestmark = [pytest.mark.slow, needs_chromium]


def png_bytes(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


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


def test_arrays_and_wrong_files(page_file, browser):
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(3, 24, 40)) * 50
    with opened(browser, page_file) as page:
        kinds = ("<i2", "<i8", ">f4", ">i2")
        arrays = [volume, np.asfortranarray(volume.astype(np.float32)), volume[0] > 0]
        arrays += [
            *((volume[0] * 9).astype(kind) for kind in kinds),
            volume[0].astype(np.float16),
            np.abs(volume[0]).astype(np.uint64),
        ]
        for k, array in enumerate(arrays, start=1):
            drop(page, f"a{k}.NPY", npy_bytes(array))
            page.wait_for_selector(f"{EXACT}[data-volume=file{k}]")
            count = len(array) if array.ndim == 3 else 1
            values = array.reshape(count, 24, 40).astype(float)
            low, high = min(0, values.min()), values.max()
            for position in range(count):
                truth = ask(
                    page,
                    "measure",
                    {"volume": f"file{k}", "position": position, "acquisition": "acceleration=2,sigma=0,mask=random_lines"},
                )["truth"]
                expected = (values[position] - low) / (high - low)
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
            ("half.npy", npy_bytes(np.full((32, 32), np.inf, np.float16)), "must hold finite numbers"),
            ("huge.npy", npy_bytes(np.full((32, 32), 1e300)), "up to 3.4e38, but it has NaN or larger ones"),
            (
                "narrow.npy",
                npy_bytes(rng.random((16, 2000))),
                "too narrow: its images of 16 x 2000 pixels, reduced to 512, are 4 x 512",
            ),
            ("flat.npy", npy_bytes(np.zeros((32, 32))), "all its values are equal"),
            ("cut.npy", npy_bytes(np.ones((32, 32)))[:-8], "is damaged"),
            ("odd.npy", npy_bytes(np.ones((32, 32)))[:-3], "is damaged"),
            ("empty.npy", b"", "got another file"),
        ):
            drop(page, name, content)
            toast = page.wait_for_selector(f"#toasts li.error:has-text('{name}')")
            assert message in toast.inner_text()
        page.set_input_files("#file", [npy_file("one.npy", large), {"name": "a.txt", "mimeType": "", "buffer": b"text"}])
        page.wait_for_selector("#toasts li.info:has-text('Opened one.npy')")
        page.click("#copy-link")
        page.wait_for_selector("#toasts li:has-text('a colleague needs this file, too')")
        page.evaluate("() => { document.querySelector('#drop').hidden = false; }")
        zone = page.locator("#drop-image").bounding_box()
        assert zone["width"] > 1200  # the only one, so it fills the page
        assert "Files skipped: a.txt. This browser cannot read a.txt as a picture" in page.inner_text("#volume-note")


def test_a_file_can_be_removed(page_file, browser):
    """Its images leave the memory, and a link to it opens the test images in their own window."""
    array = np.random.default_rng(0).random((2, 24, 40)) * 0.1
    array[1, 3, 3] = 1
    with opened(browser, page_file) as page:
        window = page.input_value("#window")
        drop(page, "dark.npy", npy_bytes(array))
        page.wait_for_selector(f"{EXACT}[data-volume=file1]")
        page.fill("#window", "0.05")
        page.keyboard.press("Enter")
        page.wait_for_timeout(700)
        link = page.evaluate("location.hash")
        assert "volume=file1" in link
        assert "window=0.05" in link
        page.click("#remove-volume")
        page.wait_for_selector(f"{EXACT}[data-volume=test]")
        page.wait_for_selector("#remove-volume", state="hidden")
        assert page.eval_on_selector_all("#volume option", "options => options.map((option) => option.value)") == ["test"]
        question = {"volume": "file1", "position": 0, "acquisition": "acceleration=2,sigma=0,mask=random_lines"}
        with pytest.raises(Exception, match="This volume is not open any more"):
            ask(page, "measure", question)
        page.wait_for_function("() => location.hash.includes('volume=test')")
        page.evaluate("(hash) => { location.hash = hash; }", link)
        page.wait_for_selector("#toasts li.error:has-text('this is test images instead')")
        page.wait_for_function("(window) => document.querySelector('#window').value === window", arg=window)


def saved(page, content, file_format):
    page.select_option("#export-content", content)
    with page.expect_download() as download:
        page.click(f"button[data-format={file_format}]")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


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
