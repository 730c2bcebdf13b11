"""The page that holds its network, from disk in a Chromium without a network: what its tests share."""

import base64
import contextlib

from tests.explorer.chromium import EXACT

# Asks the worker of the page a question. Its complex arrays become pairs of lists.
ASK = """async ([name, args]) => {
    const plain = (value) => ArrayBuffer.isView(value) ? [...value]
        : value && typeof value === "object" && !Array.isArray(value)
            ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)])) : value;
    return plain(await explorer.requests.source.helper.ask(name, args));
}"""


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


def set_lambda(page, value):
    page.fill("#lambda-number-1", str(value))
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{EXACT}[data-lam='{value:.3f}']")
