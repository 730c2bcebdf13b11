"""The page in a real Chromium: behind a proxy, through a tunnel, in a notebook's frame; and long work of its server."""

import atexit
import contextlib
import http.server
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helper import npy_bytes, small_networks, write_explorable

from hyperrecon_jax.explorer.page import widget
from tests.explorer.chromium import EXACT, needs_chromium, npy_file, opened
from tests.explorer.serving import Client
from tests.explorer.test_access import proxy, tunnel

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    with small_networks():
        shown = widget(write_explorable(tmp_path_factory.mktemp("runs")) / "run")
    yield shown
    shown.close()


def move(page, value):
    page.fill("#lambda-number-1", value)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{EXACT}[data-lam='{float(value):.3f}']")


@pytest.mark.parametrize("way", [proxy, tunnel])
def test_behind_a_proxy_and_through_a_tunnel(shown, browser, way, tmp_path):
    _, _, host, query = shown.address.split("/")
    np.save(tmp_path / "two.npy", np.eye(16, dtype=np.float32)[None].repeat(2, 0))
    with way(host) as reached, opened(browser, f"http://{reached}/{query}") as page:
        move(page, "0.3")
        assert page.evaluate("location.search") == ""
        page.set_input_files("#file", tmp_path / "two.npy")
        page.wait_for_function("() => explorer.state.volume !== 'test'")
        page.wait_for_selector(EXACT)
        page.wait_for_function("() => location.hash.includes('0.3')")
        page.reload()  # the cookie stands for the token
        page.wait_for_selector("body[data-ready=true]")
        page.wait_for_selector(f"{EXACT}[data-lam='0.300']")


@pytest.mark.parametrize("status", [500, 502])  # of jupyter-server-proxy, of nginx
def test_a_proxy_that_does_not_reach_the_server_is_waited_for(shown, browser, status):
    with opened(browser, shown.address) as page:
        page.route("**/api/**", lambda route: route.fulfill(status=status, body="[Errno 111] Connection refused"))
        page.fill("#lambda-number-1", "0.456")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-connection=down]")
        assert page.query_selector("#toasts li.error") is None
        page.unroute("**/api/**")
        page.wait_for_selector("body[data-connection=up]")
        page.wait_for_selector(f"{EXACT}[data-lam='0.456']")


def test_a_tab_that_has_opened_a_link_keeps_its_volume(shown, browser):
    with opened(browser, shown.address) as page:
        page.set_input_files("#file", npy_file("eye.npy", np.eye(16)))
        page.wait_for_selector(f"{EXACT}:not([data-volume=test])")
        page.wait_for_function("() => location.hash.includes(explorer.state.volume)")
        with opened(browser, f"{shown.address}{page.evaluate('location.hash')}") as other:
            page.click("#remove-volume")
            page.wait_for_selector(f"{EXACT}[data-volume=test]")
            move(other, "0.234")
            assert other.get_attribute("#view-main", "data-volume") != "test"


@contextlib.contextmanager
def notebook(html):
    """A context with the address of a page of another site, as a notebook is, that holds this text."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(f"<!DOCTYPE html><title>notebook</title>{html}".encode())

        def log_message(self, *args):
            """Nothing: a test prints no log."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as notebook_server:
        threading.Thread(target=notebook_server.serve_forever, daemon=True).start()
        yield f"http://localhost:{notebook_server.server_port}/"
        notebook_server.shutdown()


def open_frame(browser, address):
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    return context, page.frame_locator("iframe"), page, errors


def test_the_frame_of_a_notebook(shown, browser):
    """The notebook is of another site than the server, so no cookie is sent; the frame without its token stays empty."""
    with notebook(shown._repr_html_()) as address:
        context, frame, page, errors = open_frame(browser, address)
        frame.locator("body[data-ready=true]").wait_for(timeout=60_000)
        frame.locator("#lambda-number-1").fill("0.2")
        page.keyboard.press("Enter")
        frame.locator(f"{EXACT}[data-lam='0.200']").wait_for(timeout=60_000)
        frame.locator("#copy-link").click()  # without the token it would open nowhere
        frame.locator("#toasts li:has-text('no link that opens elsewhere')").wait_for()
        assert errors == []
        context.close()
    with notebook(shown._repr_html_().replace("?token=", "?x=")) as address:
        context, frame, page, _ = open_frame(browser, address)
        page.wait_for_timeout(1000)
        assert frame.locator("#view-main").count() == 0
        context.close()


def test_a_page_inside_of_the_notebook(browser):
    inside = widget("pretrained", inline=True)
    assert (inside.address, "127.0.0.1" in inside._repr_html_()) == ("", False)
    with notebook(inside._repr_html_()) as address:
        context, frame, page, errors = open_frame(browser, address)
        frame.locator("body[data-ready=true][data-source=offline]").wait_for(timeout=60_000)
        frame.locator("#lambda-slider-1").focus()
        page.keyboard.press("End")
        frame.locator(f"{EXACT}[data-lam='1.000']").wait_for(timeout=60_000)
        page.wait_for_timeout(500)  # the page would save its state in the address
        assert errors == []
        context.close()


def test_at_the_end_of_a_script_its_widget_ends_what_it_computes(shown, monkeypatch):
    """Python aborts the process if a thread is inside of JAX at its end."""
    at_end, events = [], []
    monkeypatch.setattr(atexit, "register", at_end.append)
    with small_networks():
        own = widget(shown.engine.run)

    def search(*args, job, **options):
        events.append("start")
        try:
            while True:
                job.check()
                time.sleep(0.2)
        finally:
            events.append("end")

    monkeypatch.setattr(own.engine, "find_best", search)
    host, token = own.address.removeprefix("http://").split("/?token=")
    question = {"volume": "test", "index": 0, "metric": "psnr"}
    with ThreadPoolExecutor() as pool:
        pool.submit(Client(host, token).send, "GET", "/api/best", question)
        while not events:
            time.sleep(0.01)
        at_end[-1]()
        assert events == ["start", "end"]


@pytest.fixture
def slow_best(shown, monkeypatch):
    """Lets the best lambda be found when the test says so."""
    may_end, find_best = threading.Event(), shown.engine.find_best

    def slow(*args, job, **options):
        share = 0.0
        while not may_end.is_set():
            share = min(share + 0.02, 0.9)
            job.report("Climbing to the best lambda", share)
            time.sleep(0.05)
        return find_best(*args, job=job, **options)

    monkeypatch.setattr(shown.engine, "find_best", slow)
    yield may_end
    may_end.set()


def test_a_search_has_progress_and_a_button_that_ends_it(shown, slow_best, browser):
    with opened(browser, shown.address) as page:
        page.click("#best")
        page.wait_for_selector("#searches li:has-text('Climbing to the best lambda')")
        page.wait_for_function("() => document.querySelector('#searches progress').value > 0.1")
        move(page, "0.25")  # the server answers meanwhile
        page.click("#searches button")
        page.wait_for_selector("#searches li", state="detached")
        assert page.inner_text("#best-result") == ""
        page.click("#best")  # one was dropped, another can begin
        page.wait_for_selector("#searches li")
        slow_best.set()
        page.wait_for_function("() => document.getElementById('best-result').textContent")


def test_an_answer_goes_to_the_slice_that_it_was_asked_for(shown, slow_best, browser):
    with opened(browser, shown.address) as page:
        first = page.evaluate("explorer.state.index")
        page.click("#best")
        page.wait_for_selector("#searches progress")
        page.click("#run-name")
        page.keyboard.press("ArrowDown" if first else "ArrowUp")
        page.wait_for_function(f"() => explorer.state.index !== {first}")
        page.wait_for_selector(EXACT)
        move(page, "0.75")
        slow_best.set()
        page.wait_for_selector("#searches button:has-text('Show')")
        assert page.get_attribute("#view-main", "data-lam") == "0.750"
        assert page.inner_text("#best-result") == ""
        expected = shown.engine.find_best("test", first, page.input_value("#best-metric"), job=_Job())[0][0]
        page.click("#searches button:has-text('Show')")
        page.wait_for_function(f"() => explorer.state.index === {first}")
        page.wait_for_selector(f"{EXACT}[data-lam='{expected:.3f}']")
        assert page.inner_text("#best-result") != ""
        assert page.locator("#searches li").count() == 0


class _Job:
    def report(self, *args):
        """Nobody asks."""


def test_stepping_through_slices_of_coils_asks_for_the_last(shown, browser, monkeypatch, tmp_path):
    """The page says how far the maps are, and ends the requests for slices that it has left."""
    store, done, waiting = shown.engine.volumes, [], []
    measure, may_end = store.measure, threading.Event()

    def slow(volume, index, chosen=None, *, job):
        if volume != "test":
            waiting.append(index)
            while not may_end.is_set():
                job.report(f"Coil sensitivities of slice {index}: 1 s")
                time.sleep(0.02)
            done.append(index)
        return measure(volume, index, chosen, job=job)

    with opened(browser, shown.address) as page:
        monkeypatch.setattr(store, "measure", slow)
        (tmp_path / "ten.npy").write_bytes(npy_bytes(np.random.default_rng(0).random((10, 16, 16), np.float32)))
        page.set_input_files("#file", tmp_path / "ten.npy")
        page.wait_for_function("() => explorer.state.volume !== 'test'")
        page.click("#run-name")
        start = page.evaluate("explorer.state.index")
        page.wait_for_selector(f"#view-message:has-text('Coil sensitivities of slice {start}')")
        key, step = ("ArrowDown", -1) if start > 4 else ("ArrowUp", 1)
        for k in range(1, 5):
            page.keyboard.press(key)
            page.wait_for_function(f"() => explorer.state.index === {start + step * k}")
            page.wait_for_timeout(150)
        last = start + 4 * step
        page.wait_for_selector(f"#view-message:has-text('Coil sensitivities of slice {last}')")
        page.wait_for_timeout(500)
        may_end.set()
        page.wait_for_selector(f"{EXACT}[data-index='{last}']")
        assert page.is_hidden("#view-message")
        assert set(done) == {last}
        assert len(set(waiting)) >= 3
