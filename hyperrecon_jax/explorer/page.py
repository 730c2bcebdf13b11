"""The explorer's page as a file that opens from disk, without a server; and the page in a notebook."""

import base64
import html
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hyperrecon_jax.data import evenly_spaced
from hyperrecon_jax.explorer import server, tokens
from hyperrecon_jax.explorer.engine import METRICS, Engine
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.runtime import files
from hyperrecon_jax.runtime.errors import InputError

POINTS = {1: 41, 2: 9}  # number of lambdas -> points of the grid along each
DIVERSE = 6  # reconstructions that are shown as diverse ones
MAX_RECONSTRUCTIONS = 2000  # the most reconstructions of a page: at 256 x 256 they take 350 MB


def export(engine: Engine, folder: Path, *, slices: int = 4, points: int | None = None, progress: bool = False) -> Path:
    """Write `FOLDER/index.html`, the page with test slices and their reconstructions inside; it opens from disk.

    Args:
        engine: the engine of the run.
        folder: created if it does not exist.
        slices: the most test slices, evenly spaced over the split.
        points: number of grid points along each lambda; None: 41 for one lambda, 9 for two, 4 for more.
        progress: show a bar.

    Returns:
        The file.

    Raises:
        InputError: if there are too few or too many of something, or the folder cannot be written.
    """
    exported = describe_export(engine, slices=slices, points=points, progress=progress)
    file = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(file) as partial:
            partial.write_text(inline_page(exported), encoding="utf-8")
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be written: {error.strerror}.") from error
    return file


def describe_export(
    engine: Engine, *, slices: int = 4, points: int | None = None, progress: bool = False
) -> dict[str, Any]:
    """The run, some test slices and their reconstructions, as an exported page holds them; options as in `export`."""
    count = len(engine.terms) - 1
    points = POINTS.get(count, 4) if points is None else points
    run = engine.describe()
    available = engine.volumes.describe("test")["slices"]
    if slices < 1:
        raise InputError(f"The number of slices must be at least 1, got {slices}.")
    slices = min(slices, available)
    if points < 2 or slices * points**count > MAX_RECONSTRUCTIONS:
        raise InputError(
            f"The page takes 2 points along lambda or more and {MAX_RECONSTRUCTIONS} reconstructions at most, got {points} "
            f"points, {slices * points**count} reconstructions of {slices} slices."
        )
    grid = np.round(hyperparams.product([np.linspace(0, 1, points)] * count).astype(float), 4).tolist()
    index = evenly_spaced(available, slices).tolist()
    with tqdm(total=len(index) * len(grid), disable=not progress, file=sys.stderr, unit=" reconstructions") as bar:
        exported_slices = [_export_slice(engine, i, grid, bar) for i in index]
    fixed = {"writable": False, "folder": "", "command": "", "acquisitions": None}  # reconstructions of one acquisition
    return {
        "run": run | fixed | {"volumes": [engine.volumes.describe("test")]},
        "grid": grid,
        "slices": exported_slices,
    }


def inline_page(exported: dict[str, Any] | None = None) -> str:
    """The page as a single HTML text that contains its styles, its scripts and, before them, the exported slices."""
    text = (server.STATIC / "index.html").read_text(encoding="utf-8")

    def style(match: re.Match[str]) -> str:
        return f"<style>\n{(server.STATIC / match[1]).read_text(encoding='utf-8')}</style>"

    def script(match: re.Match[str]) -> str:
        return f"<script>\n{(server.STATIC / match[1]).read_text(encoding='utf-8')}</script>"

    # "</" in a string could end the script
    exported_json = json.dumps(exported).replace("</", "<\\/")
    exported_script = f"<script>window.EXPORTED = {exported_json};</script>\n"
    text = re.sub(r'<link rel="stylesheet" href="([\w.]+)"\s*/?>', style, text)
    start = text.index("<script")
    return text[:start] + exported_script + re.sub(r'<script src="([\w.]+)"(?: defer)?></script>', script, text[start:])


def _export_slice(engine: Engine, index: int, grid: list[list[float]], bar: Any) -> dict[str, Any]:
    """All that the page shows of a test slice."""
    planes, info = engine.input_and_reference("test", index)
    reconstructions = []
    for lam in grid:
        reconstructions.append(engine.reconstruct("test", index, lam))
        bar.update()
    images = np.stack([image for image, _ in reconstructions])
    low, high = float(min(images.min(), planes.min())), float(max(images.max(), planes.max()))
    return {
        "volume": "test",
        "index": index,
        "label": f"slice {index}",
        "height": planes.shape[1],
        "width": planes.shape[2],
        "scale": [low, high],
        "input": _encode(planes[0], low, high),
        "truth": _encode(planes[1], low, high) if info["truth"] else None,
        "metrics": info["metrics"],
        "noise": info["noise"],
        "reconstructions": [
            {"data": _encode(image, low, high), "metrics": image_info["metrics"]} for image, image_info in reconstructions
        ],
        "diverse": engine.select_diverse("test", index, DIVERSE, np.array(grid))[0],
        "best": {metric: engine.find_best("test", index, metric)[0] for metric in METRICS} if info["truth"] else {},
    }


def _encode(image: np.ndarray, low: float, high: float) -> str:
    """An image as base64 of uint16, 0 for `low` and 65535 for `high`."""
    levels = np.round((image - low) / max(high - low, 1e-12) * 65535)
    return base64.b64encode(levels.astype("<u2").tobytes()).decode()


class Widget(NamedTuple):
    """The explorer of a run in a notebook; the page is shown if it is the last expression of a cell."""

    engine: Engine
    address: str  # of the page; "" if the page is inside of the notebook
    html: str  # the frame
    close: Callable[[], None]  # ends the server

    def _repr_html_(self) -> str:
        return self.html


def widget(run: str | Path, *, height: int = 900, inline: bool = False) -> Widget:
    """Show the page in a frame of a notebook.

    Args:
        run: the folder of a run.
        height: height of the frame, in pixels.
        inline: False: a server in a thread of this process computes what the page shows, so the browser must run on the
            machine of the kernel. True: the notebook holds the page of `export`, with its test slices. It works where the
            browser runs on another machine, and after the kernel has ended.
    """
    engine = Engine(Path(run))
    frame = f'width="100%" height="{height}" style="border: 0"'
    if inline:
        page = html.escape(inline_page(describe_export(engine)))
        # the frame may run scripts, but it is none of the notebook's pages
        return Widget(
            engine, "", f'<iframe sandbox="allow-scripts allow-downloads" srcdoc="{page}" {frame}></iframe>', _do_nothing
        )
    engine.compile_ahead()
    token = tokens.make_token()
    listener, http_server = server.listen("127.0.0.1", 0), server.make_server(engine, token=token)
    thread, address = server.start(http_server, listener), server.page_address(listener, token)

    def close() -> None:
        http_server.should_exit = True
        thread.join()

    advice = "An empty frame means that the browser runs on another machine than the kernel: widget(run, inline=True)."
    return Widget(engine, address, f'<iframe src="{address}" {frame}></iframe><p><small>{advice}</small></p>', close)


def _do_nothing() -> None:
    """There is no server to end."""
