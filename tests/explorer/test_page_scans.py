"""The page in a real Chromium: what it says of bad results, and a scan as people have it."""

import base64
import csv
import gzip
import io
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helper import npy_bytes

from tests.explorer.chromium import EXACT, drawn, needs_chromium, opened
from tests.explorer.test_scans import HEAD, STRAIGHT, TURNED, dicom_series, nii

pytestmark = [pytest.mark.slow, needs_chromium]

LARGE = np.kron(HEAD, np.ones((6, 6, 3), np.float32))  # 108 to the right, 84 to the front, 36 to the top


@pytest.fixture(scope="module")
def engine(shown):
    return shown.engine


def drop(page, files):
    """Drop files, (path, content) each, on the page; a path with a folder is that of a file in a dropped folder."""
    page.evaluate(
        """files => {
            const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
            const carried = new DataTransfer();
            for (const [path, text] of files) carried.items.add(new File([bytes(text)], path.split("/").pop()));
            document.querySelector("#view-main").dispatchEvent(
                new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        [(path, base64.b64encode(content).decode()) for path, content in files],
    )


def wait_for_volume(page, before):
    page.wait_for_function("before => explorer.state.volume !== before", arg=before)
    volume = page.evaluate("explorer.state.volume")
    page.wait_for_selector(f"{EXACT}[data-volume='{volume}']")
    return volume


def select(page, selector, value):
    before = page.evaluate("explorer.state.volume")
    page.select_option(selector, value)
    return wait_for_volume(page, before)


def marks(page, metric, column):
    return page.get_attribute(f"#readouts td[data-metric={metric}][data-of={column}]", "class") or ""


def test_what_is_worse_than_the_input_is_red_and_never_green(shown, engine, browser):
    with opened(browser, shown.address) as page:
        page.wait_for_selector("#readouts td[data-metric=psnr][data-of=input]:not(:text('–'))")
        index = page.evaluate("explorer.state.index")
        source = engine.input_and_reference("test", index)[1]["metrics"]
        results = {slot: engine.reconstruct("test", index, [lam])[1]["metrics"] for slot, lam in (("A", 0.5), ("B", 1.0))}
        signs = {"psnr": 1, "ssim": 1, "mae": -1, "hfen": -1}
        expected, worse = {}, []
        for metric, sign in signs.items():
            for slot, other in (("A", "B"), ("B", "A")):
                is_worse = sign * results[slot][metric] < sign * source[metric]
                is_best = not is_worse and sign * results[slot][metric] > sign * results[other][metric]
                expected[metric, slot] = "worse" if is_worse else "better" if is_best else ""
                worse += [is_worse]
        assert any(worse)  # else this test shows nothing
        page.wait_for_function("count => document.querySelectorAll('#readouts td.worse').length === count", arg=sum(worse))
        assert {key: marks(page, *key) for key in expected} == expected
        text = page.inner_text("#readouts td.worse >> nth=0")
        assert text.endswith("✗")
        assert page.get_attribute("#readouts td.worse .mark-sign >> nth=0", "aria-label") == "worse than the input"
        assert "worse than the input by" in page.inner_text("#verdict")
        assert "No reason is known." in page.inner_text("#verdict")
        # J beside that of noise alone, of which this run has none
        assert page.inner_text("#readouts td[data-metric=noise_j]").startswith("0")
        assert "above-noise" in marks(page, "data_consistency", "A")
        assert "Subject unknown" in page.inner_text("#slice-label")
        before = page.evaluate("explorer.state.volume")
        drop(page, [("bright.npy", npy_bytes(0.9 + 0.1 * np.random.default_rng(0).random((24, 24))))])
        wait_for_volume(page, before)
        page.wait_for_selector("#verdict:has-text('Possible reasons')")
        assert "trained on 16 x 16 pixels, this is 24 x 24" in page.inner_text("#verdict")
        assert "brighter than in all test images" in page.inner_text("#verdict")


def test_the_band_shows_where_the_measurement_is_contradicted(shown, engine, browser):
    with opened(browser, shown.address) as page:
        page.wait_for_function("() => document.querySelector('#verdict').textContent")  # its lines move the picture
        before = drawn(page)
        page.keyboard.press("m")
        page.wait_for_selector("#band-legend[data-share]")
        page.wait_for_timeout(300)
        assert drawn(page) != before
        assert page.get_attribute("#band", "aria-pressed") == "true"
        index = page.evaluate("explorer.state.index")
        plane, info = engine.contradiction("test", index, [0.5])
        share = 100 * (plane > info["low"]).mean()
        assert float(page.get_attribute("#band-legend", "data-share")) == pytest.approx(share, abs=0.06)
        assert "above noise" in page.inner_text("#band-text")
        link = page.wait_for_function("() => location.href.includes('band=1') && location.href").json_value()
        with opened(browser, f"{shown.address}#{link.partition('#')[2]}") as other:
            other.wait_for_selector("#band-legend[data-share]")
        page.keyboard.press("m")
        page.wait_for_selector("#band-legend", state="hidden")
        page.wait_for_function("() => !explorer.views.main.picture.band")


def test_planes_letters_and_millimetres(shown, browser):
    with opened(browser, shown.address) as page:
        assert page.get_attribute("#view-main", "data-letters") == ""
        drop(page, [("head.nii.gz", nii(LARGE, STRAIGHT))])
        axial = wait_for_volume(page, "test")
        assert page.get_attribute("#view-main", "data-letters") == "R L A P"
        assert "left: the patient's right" in page.get_attribute("#view-main canvas", "aria-label")
        bar = page.get_attribute("#view-main", "data-bar")
        # 108 x 0.8 = 86.4 mm and 84 x 1.2 = 100.8 mm fit into the view; the bar takes at most 30 % of its width
        width, height = page.evaluate("[explorer.views.main.canvas.width, explorer.views.main.canvas.height]")
        scale = min(width / 86.4, height / 100.8)  # canvas pixels for a millimetre
        longest = max(length for length in (1, 2, 5, 10, 20, 50) if length * scale <= 0.3 * width)
        assert bar == (f"{longest / 10:g} cm" if longest >= 10 else f"{longest} mm")
        place = page.evaluate("explorer.views.main.place(explorer.state)")
        np.testing.assert_allclose(place["scale"], scale * 0.8, rtol=1e-6)
        assert page.inner_text("#plane option:checked") == "as acquired (axial)"
        assert "axial slices along the file's third axis" in page.inner_text("#volume-note")

        sagittal = select(page, "#plane", "sagittal")
        assert sagittal != axial
        assert page.get_attribute("#view-main", "data-letters") == "A P S I"
        assert page.evaluate("[explorer.views.main.picture.height, explorer.views.main.picture.width]") == [36, 84]
        # a profile from top to bottom is as long as the head is high: 36 x 3 mm
        page.evaluate("explorer.state.profile = [[0.5, 0], [0.5, 1]]")
        page.keyboard.press("i")
        page.wait_for_selector("#profile-plot text:has-text('(mm)')", state="attached")
        ticks = page.eval_on_selector_all("#profile-plot text[text-anchor=middle]", "all => all.map(t => +t.textContent)")
        assert max(ticks) == 100
        page.keyboard.press("Escape")
        assert select(page, "#plane", "acquired") == axial
        page.click("#remove-volume")
        page.wait_for_selector(f"{EXACT}[data-volume=test]")
        assert page.eval_on_selector_all("#volume option", "all => all.length") == 1

        drop(page, [("turned.nii.gz", nii(LARGE, TURNED))])
        wait_for_volume(page, "test")
        assert page.get_attribute("#view-main", "data-letters") == "RA LP AL PR"


def test_frames_series_and_what_is_too_large(shown, engine, browser):
    affine = np.array([[0, 0.8, 0, -5], [-1.2, 0, 0, 9], [0, 0, 3.0, 20], [0, 0, 0, 1]])
    with opened(browser, shown.address) as page:
        drop(page, [("four.nii.gz", nii(np.stack([LARGE, LARGE[::-1]], -1)))])
        first = wait_for_volume(page, "test")
        before = drawn(page, "view-truth")
        page.fill("#frame", "1")
        page.keyboard.press("Enter")
        second = wait_for_volume(page, first)
        page.wait_for_selector(f"#view-truth[data-volume='{second}'][data-exact=true]")
        assert drawn(page, "view-truth") != before
        assert "volume 2 of 2" in page.inner_text("#volume-note")
        assert page.inner_text("#frame-count") == "of 0–1"

        drop(page, [*dicom_series(affine, 12), ("report.txt", b"text")])
        series = wait_for_volume(page, second)
        assert page.evaluate("explorer.views.main.picture.height") == 14
        assert "12 slices of 14 x 18" in page.inner_text("#volume-note")
        assert "1 (no image)" in page.inner_text("#volume-note")
        assert page.get_attribute("#view-main", "data-letters") == "R L A P"

        with opened(browser, shown.address) as other:  # another tab has its own list
            assert other.eval_on_selector_all("#volume option", "all => all.length") == 1
        link = page.wait_for_function("id => location.href.includes(id) && location.href", arg=series).json_value()
        with opened(browser, f"{shown.address}#{link.partition('#')[2]}") as other:  # a link names the volume
            assert other.get_attribute("#view-main", "data-volume") == series

        page.evaluate(  # a file is judged by its size before any of it is sent
            """() => {
                const file = new File(["x"], "huge.nii");
                Object.defineProperty(file, "size", { value: 2 ** 31 });
                const transfer = { items: [], files: [file], types: ["Files"] };
                const drop = new Event("drop", { bubbles: true, cancelable: true });
                Object.defineProperty(drop, "dataTransfer", { value: transfer });
                document.querySelector("#view-main").dispatchEvent(drop);
            }"""
        )
        page.wait_for_selector("#toasts li.error")
        assert "huge.nii is 2048 MiB, the page takes at most 512 MiB" in page.inner_text("#toasts li.error")


def test_a_folder_that_is_opened_is_a_series(shown, browser, tmp_path):
    affine = np.array([[0, 0.8, 0, -5], [-1.2, 0, 0, 9], [0, 0, 3.0, 20], [0, 0, 0, 1]])
    for name, content in dicom_series(affine, 12):
        (tmp_path / "study" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "study" / name).write_bytes(content)
    with opened(browser, shown.address) as page:
        page.set_input_files("#folder", tmp_path / "study")
        wait_for_volume(page, "test")
        assert "12 slices of 14 x 18" in page.inner_text("#volume-note")
        page.click("#remove-volume")
        page.wait_for_selector(f"{EXACT}[data-volume=test]")

        client = page.context.new_cdp_session(page)  # a real drop: the browser makes the entries of the folder
        box = page.locator("#view-main").bounding_box()
        point = {"x": box["x"] + 50, "y": box["y"] + 50}
        data = {"items": [], "files": [str(tmp_path / "study")], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "dragOver", "drop"):  # the second time over what the page shows
            client.send("Input.dispatchDragEvent", {"type": kind, "data": data, **point})
            page.wait_for_timeout(300)  # the page answers whether it takes what is dragged
        wait_for_volume(page, "test")
        assert "12 slices of 14 x 18" in page.inner_text("#volume-note")


def follow(page, link, volume):
    """Paste a link into the open tab."""
    page.evaluate("link => { location.hash = link.split('#')[1]; }", link)
    page.wait_for_selector(f"{EXACT}[data-volume='{volume}']")


def test_a_link_is_followed_although_the_address_is_saved_before_the_page_hears_of_it(shown, browser):
    with opened(browser, shown.address) as page:
        page.fill("#slice", "0")
        page.wait_for_selector(f"{EXACT}[data-index='0']")
        link = link_of(page, "slice=0")
        page.evaluate(
            """hash => {
                const before = location.hash.replace("slice=0", "slice=1");
                location.hash = hash;
                history.replaceState(null, "", before);
            }""",
            link.split("#")[1].replace("slice=0", "slice=2"),
        )
        page.wait_for_selector(f"{EXACT}[data-index='2']")


def link_of(page, volume):
    return page.wait_for_function("id => location.href.includes(id) && location.href", arg=volume).json_value()


def test_a_link_brings_back_plane_and_frame_in_each_tab(shown, browser):
    with opened(browser, shown.address) as page, opened(browser, shown.address) as other:
        drop(page, [("four.nii.gz", nii(np.stack([LARGE, LARGE[::-1]], -1)))])
        wait_for_volume(page, "test")
        coronal = select(page, "#plane", "coronal")
        page.fill("#slice", "3")
        page.wait_for_selector(f"{EXACT}[data-index='3']")
        link, image = link_of(page, "slice=3"), drawn(page, "view-truth")
        page.fill("#frame", "1")
        page.keyboard.press("Enter")
        second = wait_for_volume(page, coronal)
        second_link = link_of(page, second)
        select(page, "#plane", "sagittal")
        for tab in (page, other):  # the tab that has the file, and one that has never seen it
            follow(tab, link, coronal)
            assert tab.input_value("#plane") == "coronal"
            assert tab.input_value("#frame") == "0"
            assert tab.get_attribute("#view-main", "data-index") == "3"
            tab.wait_for_selector("#view-truth[data-index='3'][data-exact=true]")
            assert drawn(tab, "view-truth") == image
            follow(tab, second_link, second)
            assert tab.input_value("#frame") == "1"
            assert tab.eval_on_selector_all("#volume option", "all => all.length") == 2
        missing = coronal.replace(coronal[:20], "0" * 20)
        other.evaluate("link => { location.hash = link.split('#')[1]; }", link.replace(coronal, missing))
        other.wait_for_selector("#toasts li.error:has-text('not known here (any more); this is four.nii.gz instead')")
        assert other.get_attribute("#view-main", "data-volume") == second


@pytest.mark.parametrize("button", ["[data-volume-format=nii]", "[data-volume-format=dcm]", "#export-scores"])
def test_an_export_of_all_slices_is_cancelled(shown, engine, browser, monkeypatch, button):
    indices, reconstruct = [], engine.reconstruct

    def reconstruct_slowly(volume, index, lam, **options):
        indices.append(index)
        time.sleep(0.1)
        return reconstruct(volume, index, lam, **options)

    with opened(browser, shown.address) as page:
        drop(page, [("head.nii.gz", nii(LARGE, STRAIGHT))])
        wait_for_volume(page, "test")
        select(page, "#plane", "sagittal")  # 108 slices
        page.wait_for_timeout(300)
        downloads = []
        page.on("download", lambda download: downloads.append(download.suggested_filename))
        monkeypatch.setattr(engine, "reconstruct", reconstruct_slowly)
        page.click(button)
        page.wait_for_selector("#toasts li.busy:has-text('%')")
        page.click("#toasts li.busy button")
        page.wait_for_selector("#toasts li.info:has-text('cancelled, no file was written')")
        page.wait_for_timeout(300)
        own = page.evaluate("explorer.state.index")  # of which the page has pictures made as well
        exported = len([index for index in indices if index != own])
        assert exported < 107
        page.wait_for_timeout(700)
        assert len([index for index in indices if index != own]) == exported  # the server has ended, too
        assert downloads == []
        assert page.is_enabled(button)
        assert page.query_selector("#toasts li.busy") is None


def test_what_fails_for_a_volume_that_is_gone_is_no_message(shown, engine, browser, monkeypatch):
    """Its band is still computed when another plane has taken its place; a slow picture says what it waits for."""
    contradiction, network = engine.contradiction, engine._network

    def find_slowly(volume, *arguments, **options):
        time.sleep(2)
        return contradiction(volume, *arguments, **options)

    def generate_slowly(*arguments):
        time.sleep(2)
        return network(*arguments)

    with opened(browser, shown.address) as page:
        drop(page, [("head.nii.gz", nii(LARGE, STRAIGHT))])
        wait_for_volume(page, "test")
        monkeypatch.setattr(engine, "contradiction", find_slowly)
        with page.expect_response("**/api/contradiction*") as response:
            page.keyboard.press("m")
            page.wait_for_timeout(300)
            monkeypatch.setattr(engine, "_network", generate_slowly)
            page.select_option("#plane", "coronal")
            page.wait_for_selector("#view-message:has-text('The first image of a size takes some seconds')")
        assert response.value.status == 400
        page.wait_for_selector(f"{EXACT}[data-volume*='coronal']")
        assert page.query_selector("#toasts li.error") is None


def saved(page, selector):
    with page.expect_download() as download:
        page.click(selector)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_files_to_take_away(shown, engine, browser):
    with opened(browser, shown.address) as page:
        drop(page, [("head.nii.gz", nii(HEAD * 500, TURNED))])
        volume = wait_for_volume(page, "test")
        name, content = saved(page, "button[data-volume-format=nii]")
        assert name == "head_all_lambda_0.5.nii.gz"
        result = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
        assert result.shape == (14, 18, 12)
        image, _ = engine.reconstruct(volume, 2, [0.5])
        peak = engine.volumes.get(volume).file.scale[1]
        np.testing.assert_allclose(result.get_fdata()[:, :, 2], image * peak, atol=1e-3 * peak)
        page.select_option("#export-content", "truth")
        assert saved(page, "button[data-format=npy]")[0].endswith("_truth.npz")
        name, content = saved(page, "#export-scores")
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        assert len(rows) == 24
        psnr = engine.reconstruct(volume, 2, [0.5])[1]["metrics"]["psnr"]
        np.testing.assert_allclose(float(rows[4]["psnr"]), psnr, rtol=1e-5)

        page.click("#mode-side")
        page.wait_for_selector("#view-b[data-exact=true]")
        name, content = saved(page, "#export-view")
        from PIL import Image

        picture = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        sizes = page.evaluate(
            "['main', 'b'].map(name => explorer.views[name].canvas).map(canvas => [canvas.width, canvas.height])"
        )
        assert picture.shape[1] == sizes[0][0] + 4 + sizes[1][0]  # with a gap between A and B
        assert picture[40 : sizes[0][1], sizes[0][0] : sizes[0][0] + 4].max() == 0
        foot = picture[sizes[0][1] + 26 :]  # below the views: a bar from black to white for each, and lines of text
        bar = foot[8, 10:110].astype(int)
        assert bar[0] < 60
        assert bar[-1] > 180
        assert (np.diff(bar) >= 0).all()
        assert foot[8, 140:250].max() < 30  # no bar of the band, which is not shown
        page.keyboard.press("m")
        page.wait_for_function("() => explorer.views.main.picture.band && explorer.views.b.picture.band")
        banded = np.asarray(Image.open(io.BytesIO(saved(page, "#export-view")[1])).convert("RGB"))
        red, green, blue = banded[sizes[0][1] + 34, [145, sizes[0][0] + 4 + 145]].astype(int).T  # its lowest colour
        assert (np.minimum(red, blue) - green > 40).all()
        has_text = (foot[28:] > 150).any(1).astype(int)
        assert (np.diff(has_text) == 1).sum() >= 2  # which volume, run and λ; version, date and what it is not for
