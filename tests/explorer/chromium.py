"""The explorer's page in a real Chromium: what the tests of the page share. `conftest.py` starts the browser."""

import contextlib
import shutil

import pytest
from helper import npy_bytes

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
EXACT = "#view-main[data-exact=true]"


@contextlib.contextmanager
def opened(browser, address, *, size=(1400, 900), **options):
    """A page that is ready; what it logs as an error fails the test. `options` are of the browser's context."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("body[data-ready=true]")
    page.wait_for_selector(EXACT)
    yield page
    context.close()
    assert errors == []


def answer_diverse(page):
    """Answer the search for diverse reconstructions in place of the server, which takes a minute for the first one."""
    axes = int(page.get_attribute("body", "data-k")) - 1
    answer = {"lams": [[part / 5] * axes for part in range(6)], "criterion": "Six of them, for a test."}
    page.route("**/api/diverse*", lambda route: route.fulfill(json=answer))


def npy_file(name, array):
    """A .npy file for an input of files."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": npy_bytes(array)}


def drawn(page, view="view-main"):
    """The pixels of a view."""
    return page.eval_on_selector(f"#{view}", "v => (v.matches('canvas') ? v : v.querySelector('canvas')).toDataURL()")
