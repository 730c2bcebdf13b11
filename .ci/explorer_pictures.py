"""Make the pictures of the explorer in the documentation again: docs/explorer.png and docs/explorer_pad.png.

    python -m bin.train --config configs/ao_quickstart.py --config.train.steps=1000
    python -m bin.evaluate --run runs/ao_quickstart --lams 11
    python .ci/explorer_pictures.py runs/ao_quickstart

The first is of the model of the package, the second of a run with three losses that was evaluated. It needs Playwright and
Chromium, as the tests of the page do.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from hyperrecon_jax.explorer import widget
from hyperrecon_jax.runs.slim_run import PRETRAINED_FOLDER

DOCS = Path(__file__).parents[1] / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EXACT = "#view-main[data-exact=true]"


def show_two(page: Page) -> None:
    page.keyboard.press("2")
    page.wait_for_selector("#view-b[data-exact=true]")


def move_on_the_pad(page: Page) -> None:
    page.fill("#lambda-number-1", "0.85")
    page.fill("#lambda-number-2", "0.9")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{EXACT}[data-lam='0.850,0.900']")
    page.locator("#lambda-number-2").blur()


def main(run_with_pad: str) -> None:
    executable = next(filter(None, map(shutil.which, BROWSERS)))
    pictures = {"explorer.png": (PRETRAINED_FOLDER, show_two), "explorer_pad.png": (Path(run_with_pad), move_on_the_pad)}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        for name, (run, act) in pictures.items():
            shown = widget(run)
            page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="dark")
            page.goto(shown.address)
            page.wait_for_selector(EXACT)
            page.wait_for_selector("#readouts td[data-of=input]:not(:text('–'))")
            act(page)
            page.wait_for_timeout(1000)  # for what is drawn in the next frames
            page.screenshot(path=DOCS / name)
            page.close()
            shown.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
