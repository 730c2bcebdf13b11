"""The explorer's page without its server: as one file that opens from disk, and in a notebook."""

import base64
import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hyperrecon_jax.data import evenly_spaced
from hyperrecon_jax.explorer import server
from hyperrecon_jax.explorer.engine import METRICS, Engine
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.runtime import files
from hyperrecon_jax.runtime.errors import InputError

POINTS = {1: 41, 2: 9}  # of the grid along each lambda
DIVERSE = 6
LARGEST = 2000  # reconstructions of a page: at 256 x 256 they take 350 MB


def export(engine: Engine, folder: Path, *, slices: int = 4, points: int | None = None, progress: bool = False) -> Path:
    """Write `FOLDER/index.html`, the page with test slices and their reconstructions inside; it opens from disk.

    Args:
        engine: of the run.
        folder: made if it is not there.
        slices: how many test slices at most, spread over the split.
        points: of the grid along each lambda; none given: 41 of one, 9 of two, 4 of more.
        progress: show a bar.

    Returns:
        The file.

    Raises:
        InputError: if there are too few or too many of something, or the folder cannot be written.
    """
    count = len(engine.terms) - 1
    points = POINTS.get(count, 4) if points is None else points
    about = engine.about()
    available = engine.shelf.volume("test")["slices"]
    if slices < 1:
        raise InputError(f"The number of slices must be at least 1, got {slices}.")
    slices = min(slices, available)
    if points < 2 or slices * points**count > LARGEST:
        raise InputError(
            f"The page takes 2 points along lambda or more and {LARGEST} reconstructions at most, got {points} points, "
            f"{slices * points**count} reconstructions of {slices} slices."
        )
    grid = np.round(hyperparams.product([np.linspace(0, 1, points)] * count).astype(float), 4).tolist()
    index = evenly_spaced(available, slices).tolist()
    with tqdm(total=len(index) * len(grid), disable=not progress, file=sys.stderr, unit=" reconstructions") as bar:
        made = [_slice(engine, i, grid, bar) for i in index]
    known = {
        "run": about | {"writable": False, "folder": "", "command": "", "volumes": [engine.shelf.volume("test")]},
        "grid": grid,
        "slices": made,
    }
    file = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(file) as partial:
            partial.write_text(inlined(known), encoding="utf-8")
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be written: {error.strerror}.") from error
    return file


def inlined(exported: dict[str, Any] | None = None) -> str:
    """The page as one text: its styles and scripts inside, and before them what it shows."""
    text = (server.STATIC / "index.html").read_text(encoding="utf-8")

    def style(match: re.Match[str]) -> str:
        return f"<style>\n{(server.STATIC / match[1]).read_text(encoding='utf-8')}</style>"

    def script(match: re.Match[str]) -> str:
        return f"<script>\n{(server.STATIC / match[1]).read_text(encoding='utf-8')}</script>"

    # "</" could end the script in which the numbers stand
    numbers = json.dumps(exported).replace("</", "<\\/")
    first = f"<script>window.EXPORTED = {numbers};</script>\n"
    text = re.sub(r'<link rel="stylesheet" href="([\w.]+)"\s*/?>', style, text)
    start = text.index("<script")
    return text[:start] + first + re.sub(r'<script src="([\w.]+)"(?: defer)?></script>', script, text[start:])


def _slice(engine: Engine, index: int, grid: list[list[float]], bar: Any) -> dict[str, Any]:
    planes, known = engine.slice("test", index)
    found = []
    for lam in grid:
        found.append(engine.reconstruct("test", index, lam))
        bar.update()
    images = np.stack([image for image, _ in found])
    low, high = float(min(images.min(), planes.min())), float(max(images.max(), planes.max()))

    def packed(image: np.ndarray) -> str:
        steps = np.round((image - low) / max(high - low, 1e-12) * 65535)
        return base64.b64encode(steps.astype("<u2").tobytes()).decode()

    return {
        "volume": "test",
        "index": index,
        "label": f"slice {index}",
        "height": planes.shape[1],
        "width": planes.shape[2],
        "scale": [low, high],
        "input": packed(planes[0]),
        "truth": packed(planes[1]) if known["truth"] else None,
        "metrics": known["metrics"],
        "reconstructions": [{"data": packed(image), "metrics": each["metrics"]} for image, each in found],
        "diverse": engine.diverse("test", index, DIVERSE, np.array(grid))[0],
        "best": {metric: engine.best("test", index, metric)[0] for metric in METRICS} if known["truth"] else {},
    }


class Widget(NamedTuple):
    """The explorer of a run in a notebook: the last line of a cell shows it."""

    engine: Engine
    address: str
    height: int  # of the frame, in pixels
    close: Callable[[], None]  # ends the server

    def _repr_html_(self) -> str:
        return f'<iframe src="{self.address}" width="100%" height="{self.height}" style="border: 0"></iframe>'


def widget(run: str | Path, *, height: int = 900) -> Widget:
    """Start the explorer of a run in this process, and show it in a frame.

    Args:
        run: the folder of a run.
        height: of the frame, in pixels.
    """
    engine = Engine(Path(run))
    engine.warm()
    listening, made = server.listen("127.0.0.1", 0), server.make(engine)
    thread = threading.Thread(target=made.run, args=([listening],), daemon=True)
    thread.start()

    def close() -> None:
        made.should_exit = True
        thread.join()

    return Widget(engine, server.address_of(listening), height, close)
