"""Time the explorer's page in a headless Chromium: from the input event of a move of lambda to the painted picture.

The page shows the model of the package on an image of the wanted size: once from a server in this process, and once from a
file that holds the network. The first picture is of the nearest lambda that the page has, the exact one is of the very
lambda. A picture counts as painted when the browser has gone on to the next task after the frame that draws it.
"""

import contextlib
import io
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.benchmarks.networks import Scale
from hyperrecon_jax.benchmarks.timing import Row, percentile_interval
from hyperrecon_jax.data import grid
from hyperrecon_jax.explorer import export, widget
from hyperrecon_jax.runs.slim_run import PRETRAINED_FOLDER
from hyperrecon_jax.runtime.errors import InputError

MOVES = 20  # in a round
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
THUMB = 14  # pixels: half the handle of the slider, where its values start
TIMEOUT = 180_000  # milliseconds
PERCENTILES = {"median": 50, "95th percentile": 95}

# Sets `nextMove`, a promise of the milliseconds to the first and to the exact picture after the next input event.
LISTEN = """() => {
    const view = document.getElementById("view-main");
    const slider = document.getElementById("lambda-slider-1");
    const afterPaint = (act) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = act;
        port2.postMessage(null);
    };
    let move = null;
    window.expectMove = () => {
        window.nextMove = new Promise((resolve) => { move = { resolve, since: null, first: null }; });
    };
    slider.addEventListener("input", (event) => { if (move) move.since = event.timeStamp; }, { capture: true });
    new MutationObserver(() => {
        const current = move;
        if (!current || current.since === null) return;
        const isExact = view.dataset.exact === "true" && view.dataset.lam === Number(slider.value).toFixed(3);
        afterPaint(() => {
            const ms = performance.now() - current.since;
            current.first ??= ms;
            if (isExact) current.resolve([current.first, ms]);
        });
    }).observe(view, { attributes: true, attributeFilter: ["data-exact"] });
}"""


def measure_page(scale: Scale, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Time `rounds` times `MOVES` moves of lambda on each page, in alternation.

    Returns:
        The median and the 95th percentile to the first and to the exact picture, beside those of the served page.

    Raises:
        InputError: without Playwright or without Chromium.
    """
    latencies: dict[str, list[list[float]]] = {}
    with _open_pages(scale.size) as pages:
        lams = np.random.default_rng(0).permutation(np.linspace(0.013, 0.987, rounds * MOVES)).reshape(rounds, MOVES)
        for k, part in enumerate(lams):
            for name, page in pages.items():
                latencies.setdefault(name, []).extend(_drag(page, part))
                exact = statistics.median(ms for _, ms in latencies[name])
                say(f"page, {scale.size} x {scale.size}: {name}, round {k + 1} of {rounds}, {exact:.0f} ms")
    rows = []
    for i, picture in enumerate(("first picture", "exact picture")):
        for words, percentile in PERCENTILES.items():
            case, reference = f"{picture}, {words}, {scale.size} x {scale.size}", None
            for name, pairs in latencies.items():
                seconds = np.array([pair[i] for pair in pairs]) / 1000
                value = float(np.percentile(seconds, percentile))
                reference = reference or value
                rows.append(Row("page", case, name, value, value / reference, *percentile_interval(seconds, percentile)))
    return rows


@contextlib.contextmanager
def _open_pages(size: int) -> Iterator[dict[str, Any]]:
    """The served page and the page from a file, on an image of a size, in a browser of their own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("--suite page needs Playwright, which drives a browser: pip install playwright.") from None
    browser_file = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_file is None:
        raise InputError(f"--suite page needs a browser that is installed: {', '.join(BROWSERS)}.")
    with contextlib.ExitStack() as stack:
        served = widget(PRETRAINED_FOLDER)
        stack.callback(served.close)
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "page.html"
        export(served.engine, file, slices=1)
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=browser_file, args=FLAGS)
        stack.callback(browser.close)
        images = served.engine.volumes.get("test").file.slices
        image = grid.resample(images[len(images) // 2][None], size, size)[0]
        addresses = {"served page": served.address, "page from a file": file.as_uri()}
        yield {name: _open_page(browser, address, image) for name, address in addresses.items()}


def _open_page(browser: Any, address: str, image: np.ndarray) -> Any:
    """A page that shows an image and has computed what it computes in advance."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(TIMEOUT)
    page.goto(address)
    page.wait_for_selector("body[data-ready=true]")
    stream = io.BytesIO()
    np.save(stream, image.astype(np.float32))
    file = {"name": "image.npy", "mimeType": "application/octet-stream", "buffer": stream.getvalue()}
    page.set_input_files("#file", file)
    page.wait_for_selector("#view-main[data-exact=true]:not([data-volume=test])")
    page.wait_for_function("() => !explorer.requests.running && !explorer.requests.queue.length")
    page.evaluate(LISTEN)
    return page


def _drag(page: Any, lams: np.ndarray) -> list[list[float]]:
    """Drag the handle of lambda to each value and wait for its exact picture; milliseconds to the first and to that."""
    page.bring_to_front()
    box = page.locator("#lambda-slider-1").bounding_box()
    latencies = []
    for k, lam in enumerate(lams):
        page.evaluate("expectMove()")
        page.mouse.move(box["x"] + THUMB + lam * (box["width"] - 2 * THUMB), box["y"] + box["height"] / 2)
        if k == 0:
            page.mouse.down()
        latencies.append(page.evaluate("nextMove"))
    page.mouse.up()
    return latencies
