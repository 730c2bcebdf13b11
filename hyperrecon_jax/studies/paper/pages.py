"""The report as one HTML file with its pictures inside, and as a PDF that Chromium prints from it."""

import base64
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from hyperrecon_jax.figures import style
from hyperrecon_jax.runtime import files
from hyperrecon_jax.studies.paper.verdicts import FAILS, HOLDS, UNTESTED, Verdict

TEMPLATE = Path(__file__).with_name("report.html")
MARKS = {HOLDS: ("✓", "#1a7f37"), FAILS: ("✗", "#b42318"), UNTESTED: ("–", "#6b7280")}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PRINT_SECONDS = 120  # after which a browser that does not answer is ended


def write(content: Mapping[str, Any], folder: Path) -> tuple[Path, Path | None]:
    """Write `index.html` and, where a browser can print it, `report.pdf`.

    Args:
        content: what `content.make_content` returns.
        folder: where the files go.

    Returns:
        Their paths; None for the PDF if there is none. A PDF of an earlier report is removed then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, pdf = folder / "index.html", folder / "report.pdf"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(content, tally=tally(content["verdicts"]), marks=MARKS, data_url=_data_url, width=_width)
    with files.atomic_write(page) as partial:
        partial.write_text(text, encoding="utf-8")
    if print_pdf(page, pdf):
        return page, pdf
    pdf.unlink(missing_ok=True)
    return page, None


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many claims have each verdict."""
    names = [verdict.verdict for verdict in verdicts]
    return ", ".join(f"{names.count(kind)} {'hold' if kind == HOLDS else kind.replace('does', 'do')}" for kind in MARKS)


def print_pdf(page: Path, pdf: Path) -> bool:
    """Print a page with Chromium; returns False if there is none, or it does not succeed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return False
    options = [
        "--headless",
        "--disable-gpu",
        "--no-pdf-header-footer",
        "--no-sandbox",
    ]  # root has no sandbox; the page is ours
    try:
        with files.atomic_write(pdf) as partial, tempfile.TemporaryDirectory() as profile:
            options += [f"--user-data-dir={profile}", f"--print-to-pdf={partial.absolute()}"]
            command = [browser, *options, page.absolute().as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=PRINT_SECONDS)
    except (OSError, subprocess.SubprocessError):  # OSError: also a browser that says nothing and prints nothing
        return False
    return True


def _data_url(file: Path) -> str:
    """A picture as part of the page."""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


def _width(file: Path) -> str:
    """The width of a picture on the page: 100 % for one that fills two columns of a paper."""
    with Image.open(file) as header:
        return f"{min(1.0, header.width / (style.DOUBLE * style.PAPER['savefig.dpi'])):.0%}"
