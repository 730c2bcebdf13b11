"""The explorer's page in a real Chromium, through the real command."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from helper import ROOT, npy_bytes, run_python, small_networks, train_explorable

from hyperrecon_jax.commands import train
from hyperrecon_jax.commands.evaluate import evaluate
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.explorer.page import widget
from hyperrecon_jax.runs.config import complete
from tests.explorer.chromium import EXACT, drawn, needs_chromium, opened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return train_explorable(tmp_path_factory.mktemp("runs"))


@contextlib.contextmanager
def serving(folder, port):
    """The command, until it answers, and the address that it prints; killed at the end."""
    command = [sys.executable, "-m", "bin.explore", "--run", str(folder / "run"), "--port", str(port), "--noopen"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder)},
        stdout=subprocess.PIPE,
    ) as process:
        try:
            line = process.stdout.readline().decode()
            (address,) = re.findall(rf"http://127\.0\.0\.1:{port}/\?token=\S+", line)
            yield process, address
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def port(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def lam_of(page):
    return float(page.get_attribute("#view-main", "data-lam"))


@needs_chromium
def test_a_visit(folder, port, browser, tmp_path):
    """One server, since starting it takes most of the time: drag, type, compare, look closer, drop, export, lose it."""
    engine = Engine(folder / "run")
    with serving(folder, port) as (server, address), opened(browser, address) as page:
        assert "run" in page.inner_text("body")
        drags(page)
        types(page)
        compares(page)
        finds(page, engine)
        exports(page, engine, tmp_path)
        drops(page, tmp_path)
        with opened(browser, address) as other:  # two at once
            other.fill("#lambda-number-1", "0.9")
            other.keyboard.press("Enter")
            other.wait_for_selector(f"{EXACT}[data-lam='0.900']")
            assert page.get_attribute("#view-main", "data-lam") != "0.900"
        page.fill("#lambda-number-1", "0.35")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"{EXACT}[data-lam='0.350']")
        link = page.wait_for_function("() => location.href.includes('0.35') && location.href").json_value()
        assert "token" not in link
        server.send_signal(signal.SIGKILL)
        server.wait()
        page.fill("#lambda-number-1", "0.777")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-connection=down]")
        assert "bin.explore --run" in page.inner_text("#banner")
        with serving(folder, port) as (_, address):
            page.wait_for_selector("body[data-connection=up]")
            page.wait_for_selector(f"{EXACT}[data-lam='0.777']")
            with opened(
                browser, address + link[link.index("#") :]
            ) as shared:  # the file that was dropped is gone, the rest of the link holds
                assert lam_of(shared) == 0.35


def drags(page):
    box = page.locator("#lambda-slider-1").bounding_box()
    before, y = drawn(page), box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 3, y)
    page.mouse.down()
    for i in range(1, 21):
        page.mouse.move(box["x"] + box["width"] * (0.05 + 0.045 * i), y)
    page.mouse.up()
    page.wait_for_selector(EXACT)
    assert lam_of(page) > 0.8
    assert drawn(page) != before
    kinds = {entry["kind"] for entry in page.evaluate("explorer.latencies")}
    assert kinds == {"cached", "exact"}


def types(page):
    page.fill("#lambda-number-1", "0.25")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{EXACT}[data-lam='0.250']")
    page.focus("#lambda-slider-1")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"{EXACT}[data-lam='0.260']")
    page.keyboard.press("Home")
    page.wait_for_selector(f"{EXACT}[data-lam='0.000']")


def compares(page):
    page.click("#copy-to-b")
    page.fill("#lambda-number-1", "1")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{EXACT}[data-lam='1.000']")
    page.click("#mode-side")
    page.wait_for_selector("#view-b[data-shows=B][data-lam='0.000']")
    assert drawn(page) != drawn(page, "view-b")
    for mode, shows in (("difference", "A-B"), ("error", "error"), ("single", "A")):
        page.click(f"#mode-{mode}")
        page.wait_for_selector(f"#view-main[data-shows='{shows}']")
    page.click("#mode-flicker")
    page.locator("#view-main").click()
    page.keyboard.press("Space")
    page.wait_for_selector("#view-main[data-shows=B]")
    page.click("#mode-single")


def finds(page, engine):
    page.click("#diverse")
    page.wait_for_selector("#diverse-list button[data-lam]")
    lams = [float(b.get_attribute("data-lam")) for b in page.query_selector_all("#diverse-list button[data-lam]")]
    index = int(page.get_attribute("#view-main", "data-index"))
    np.testing.assert_allclose(lams, np.ravel(engine.select_diverse("test", index, len(lams))[0]), atol=2e-3)
    page.click("#diverse-list button[data-lam] >> nth=1")
    page.wait_for_selector(f"{EXACT}[data-lam='{lams[1]:.3f}']")
    page.select_option("#best-metric", "ssim")
    page.click("#best")
    page.wait_for_function("() => document.querySelector('#best-result').innerText.includes('SSIM')")
    np.testing.assert_allclose(lam_of(page), engine.find_best("test", index, "ssim")[0][0], atol=2e-2)
    readout = page.inner_text("#readouts td[data-metric=psnr][data-of=A]")
    expected = engine.reconstruct("test", index, [lam_of(page)])[1]["metrics"]["psnr"]
    np.testing.assert_allclose(float(readout.rstrip("✓✗▲")), expected, atol=0.02)


def exports(page, engine, tmp_path):
    index = int(page.get_attribute("#view-main", "data-index"))
    with page.expect_download() as download:
        page.click("button[data-format=npy]")
    download.value.save_as(tmp_path / "shown.npz")
    with np.load(tmp_path / "shown.npz") as archive:
        lam = float(json.loads(str(archive["metadata"]))["lambda"])
        np.testing.assert_allclose(archive["image"].squeeze(), engine.reconstruct("test", index, [lam])[0], atol=1e-5)
    assert abs(lam - lam_of(page)) < 1e-3


def drops(page, tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b\x08 this is no volume")
    page.set_input_files("#file", tmp_path / "broken.nii.gz")
    page.wait_for_selector("#toasts li.error")
    assert "broken.nii.gz" in page.inner_text("#toasts li.error")
    page.evaluate(
        """text => {
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "mine.npy"));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.querySelector("#view-main").dispatchEvent(
                    new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        base64.b64encode(npy_bytes(np.random.default_rng(3).random((2, 24, 24), np.float32))).decode(),
    )
    page.wait_for_selector(f"{EXACT}:not([data-volume=test])")
    assert "24 x 24" in page.inner_text("#volume-note")
    page.select_option("#volume", "test")
    page.wait_for_selector(f"{EXACT}[data-volume=test]")


@pytest.fixture(scope="module")
def landscape(folder):
    """The page of a run of three losses that was evaluated."""
    settings = json.loads((folder / "run" / "config.json").read_text())
    settings["loss"] = {"terms": ("data_consistency", "total_variation", "mae"), "scales": (1.0, 1.0, 1.0)}
    with small_networks():
        train.train(complete(settings), folder / "three", say=lambda _: None)
        evaluate(folder / "three", folder / "three" / "evaluation", points=4, say=lambda _: None)
        shown = widget(folder / "three")
        yield shown.address
        shown.close()


@needs_chromium
def test_two_lambdas_are_a_pad_and_the_views_move_together(landscape, browser):
    with opened(browser, landscape) as page:
        assert page.get_attribute("body", "data-k") == "3"
        box = page.locator("#lambda-pad").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 1.03 * box["width"], box["y"] + 1.03 * box["height"], steps=5)  # over the corner
        page.mouse.up()
        page.wait_for_selector(f"{EXACT}[data-lam='1.000,0.000']")  # lambda_1 to the right, lambda_2 to the top

        page.wait_for_selector("#view-input[data-exact=true]")
        view = page.locator("#view-main").bounding_box()
        x, y = view["x"] + view["width"] / 2, view["y"] + view["height"] / 2
        window, input = page.input_value("#window"), drawn(page, "view-input")
        page.mouse.move(x, y)
        page.mouse.down(button="right")
        page.mouse.move(x + 80, y + 10, steps=4)
        page.mouse.up(button="right")
        assert page.input_value("#window") != window
        leveled = drawn(page, "view-input")
        page.keyboard.down("Control")
        page.mouse.wheel(0, -600)
        page.keyboard.up("Control")
        page.wait_for_function("() => explorer.state.zoom > 1")
        page.wait_for_timeout(200)
        assert len({input, leveled, drawn(page, "view-input")}) == 3

        page.click("#tool-profile")
        page.mouse.move(x - 60, y)
        page.mouse.down()
        page.mouse.move(x + 60, y + 20, steps=4)
        page.mouse.up()
        page.wait_for_selector("#profile-plot polyline[data-curve=truth]", state="attached")


@pytest.mark.parametrize(
    ("args", "message"),
    [(("--run=",), "--run must have a value"), (("--run", "none"), "none/config.json cannot be read")],
)
def test_mistakes_get_a_sentence(tmp_path, args, message):
    result = run_python("-m", "bin.explore", *args, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@needs_chromium
def test_acquisitions_are_chosen_and_read_off(browser, tmp_path):
    """The controls change what is measured, the link has them, and measured k-space has a sentence instead."""
    task = {"acceleration": (2.0, 8.0), "sigma": (0.0, 0.1), "mask": ("poisson_disc", "random_lines")}
    with small_networks():
        shown = widget(train_explorable(tmp_path, task=task) / "run")
        try:
            with opened(browser, shown.address) as page:
                chooses_acquisitions(page)
                link = page.wait_for_function(
                    "() => location.href.includes('acceleration=8,') && location.href"
                ).json_value()
                measures_kspace(page, tmp_path)
            with opened(browser, shown.address + link[link.index("#") :]) as other:
                assert other.input_value("#acquisition-acceleration") == "8"
                assert (
                    other.get_attribute("#view-main", "data-acquisition") == "acceleration=8,sigma=0.025,mask=random_lines"
                )
        finally:
            shown.close()


def chooses_acquisitions(page):
    assert page.get_attribute("#view-main", "data-acquisition") == "acceleration=4,sigma=0.025,mask=poisson_disc"
    before = drawn(page, "view-input")
    page.fill("#acquisition-acceleration", "8")
    page.keyboard.press("Enter")
    page.select_option("#acquisition-mask", "random_lines")
    page.wait_for_selector(f"{EXACT}[data-acquisition='acceleration=8,sigma=0.025,mask=random_lines']")
    page.wait_for_selector("#view-input[data-acquisition='acceleration=8,sigma=0.025,mask=random_lines']")
    assert drawn(page, "view-input") != before
    page.fill("#acquisition-acceleration", "20")  # outside of the range: nothing is asked for
    page.keyboard.press("Enter")
    page.click("#run-name")
    page.wait_for_function("() => document.getElementById('acquisition-acceleration').value === '8'")


def measures_kspace(page, folder):
    kspace = np.fft.fftshift(np.fft.fft2(np.random.default_rng(0).random((1, 16, 16))), axes=(1, 2))
    kspace[..., ::2] = 0
    kspace[..., 7:10] = 1
    np.save(folder / "k.npy", kspace)
    page.check("#kind-kspace")
    page.set_input_files("#file", folder / "k.npy")
    page.wait_for_function("() => document.getElementById('acquisition-note').textContent.includes('read off the data')")
    assert page.is_hidden("#acquisition-acceleration")
    page.wait_for_selector(f"{EXACT}[data-acquisition='']")
