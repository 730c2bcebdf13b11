"""The explorer's page as one HTML file that holds the network: it opens from disk and computes in the viewer's browser.

The scripts of the network are in `static/network`. The page's own policy forbids every connection, so no image leaves the
machine of the viewer. Its first picture takes no server, no installation and no network.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hyperrecon_jax.data import evenly_spaced
from hyperrecon_jax.explorer.engine import Engine
from hyperrecon_jax.explorer.handlers import STATIC
from hyperrecon_jax.models.model import Model
from hyperrecon_jax.models.tensor_files import flatten_tree
from hyperrecon_jax.runs.task import make_mask
from hyperrecon_jax.runtime import files
from hyperrecon_jax.runtime.errors import InputError

LARGEST_HALF = float(np.finfo(np.float16).max)
# the scripts of the worker, in the order in which they depend on each other
WORKER = (
    "half",
    "fourier",
    "random",
    "masks",
    "measurement",
    "scores",
    "hypernetwork",
    "kernels",
    "unet",
    "network",
    "worker",
)
PAGE = ("half", "image_files", "result_files", "offline")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; worker-src blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def export(engine: Engine, file: Path, *, slices: int = 8) -> Path:
    """Write the page of a run, with its network and some test slices inside.

    Args:
        engine: the engine of the run.
        file: a `.html` file. Its folder is created if it does not exist.
        slices: the most test slices, evenly spaced over the split.

    Returns:
        The file. Its numbers have half precision, as those of a slim run.

    Raises:
        InputError: as `make_page`, or if the file cannot be written.
    """
    text = make_page(engine, slices=slices)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(file) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"The file {file} cannot be written: {error.strerror}.") from error
    return file


def check_exportable(model: Model, config: Any) -> None:
    """Raise `InputError` if a page cannot compute what a network does."""
    reason = ""
    if model.hyper is None:
        reason = "it is an ensemble, with a network for each lambda"
    elif config.task.name == "csmri" and config.data.coils:
        reason = f"its images are measured by {config.data.coils} coils"
    if reason:
        raise InputError(f"The network of this run cannot be put into a page: {reason}. The page of the server shows it.")


def make_page(engine: Engine, *, slices: int = 8) -> str:
    """The text of the page of `export`.

    Raises:
        InputError: if the page cannot compute what the network does, or `slices` is below 1.
    """
    if slices < 1:
        raise InputError(f"The number of slices must be at least 1, got {slices}.")
    config = engine.volumes.settings
    check_exportable(engine.model, config)
    images = engine.volumes.get("test").file.slices
    index = evenly_spaced(len(images), min(slices, len(images)))
    names, numbers = _flatten_variables(engine.variables)
    contents = {
        "run": engine.describe() | {"folder": "", "command": "", "volumes": [engine.volumes.describe("test")]},
        "settings": {name: config.model[name] for name in ("network", "norm", "normalize", "residual", "iterations")},
        "hypernetwork": _describe_hypernetwork(engine.model),
        "tensors": names,
        "task": _describe_task(engine, images.shape[1:3]),
        "images": _encode_images(images[index]) | {"indices": index.tolist()},
    }
    wasm = (STATIC / "network" / "network.wasm").read_bytes()
    blocks = {
        "offline-page": json.dumps(contents).replace("</", "<\\/"),
        "offline-worker": "\n".join(_read(f"network/{name}") for name in WORKER),
        "offline-weights": _to_base64(numbers),
        "offline-wasm": base64.b64encode(wasm).decode(),
    }
    data = "\n".join(f'<script type="text/plain" id="{name}">{text}</script>' for name, text in blocks.items())
    scripts = "\n".join(f"<script>\n{_read(f'network/{name}')}</script>" for name in PAGE)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    return _inline_page(head=policy, scripts=f"{data}\n{scripts}\n")


def _inline_page(*, head: str = "", scripts: str = "") -> str:
    """The page as a single HTML text that contains its styles and its scripts.

    Args:
        head: is put at the start of the head.
        scripts: are put before the page's last script, which starts it.
    """
    text = (STATIC / "index.html").read_text(encoding="utf-8")

    def style(match: re.Match[str]) -> str:
        return f"<style>\n{(STATIC / match[1]).read_text(encoding='utf-8')}</style>"

    def script(match: re.Match[str]) -> str:
        return f"<script>\n{(STATIC / match[1]).read_text(encoding='utf-8')}</script>"

    text = re.sub(r'<link rel="stylesheet" href="([\w.]+)"\s*/?>', style, text)
    before, last, after = text.partition('<script src="app.js')
    text = re.sub(r'<script src="([\w.]+)"(?: defer)?></script>', script, before + scripts + last + after)
    return text.replace('<meta charset="utf-8">\n', f'<meta charset="utf-8">\n{head}', 1)


def _read(name: str) -> str:
    """A script of the page, so that it can stand between tags."""
    return (STATIC / f"{name}.js").read_text(encoding="utf-8").replace("</script", "<\\/script")


def _describe_hypernetwork(model: Model) -> dict[str, Any]:
    assert model.hyper is not None, "checked before"
    leaves = [{"path": path, "shape": shape} for path, shape in model.hyper.leaves]
    return {name: getattr(model.hyper, name) for name in ("kind", "encoding", "depth")} | {"leaves": leaves}


def _describe_task(engine: Engine, shape: tuple[int, int]) -> dict[str, Any]:
    """How the page measures an image: as `runs.task` does, with one acquisition or with one that the viewer chooses."""
    config, ranges = engine.volumes.config, engine.volumes.ranges
    task = {name: config.task[name] for name in ("name", "noise", "acceleration", "sigma", "mask")}
    task["factor"] = config.task.factor if config.task.name == "super_resolution" else 1
    task["limits"] = task["fixed"] = None
    if ranges is not None:
        task["limits"] = {"acceleration": ranges.accelerations, "sigma": ranges.sigmas, "mask": ranges.masks}
    elif config.task.name == "csmri":  # the network knows this very mask
        bits = np.packbits(np.asarray(make_mask(config, shape)) > 0)
        task["fixed"] = {"data": _to_base64(bits), "h": shape[0], "w": shape[1]}
    return task


def _flatten_variables(variables: Any) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Names and shapes of the tensors, and their numbers, one tensor after the other, in half precision."""
    tree = {name: variables[name] for name in ("params", "batch_stats")}
    tensors = {name: np.asarray(leaf, np.float32) for name, leaf in flatten_tree(jax.device_get(tree)).items()}
    numbers = np.concatenate([tensor.ravel() for tensor in tensors.values()])
    if not (np.abs(numbers) <= LARGEST_HALF).all():
        raise InputError(f"The weights must be within {LARGEST_HALF:g}, because the page has them in half precision.")
    return [{"name": name, "shape": tensor.shape} for name, tensor in tensors.items()], numbers.astype("<f2")


def _encode_images(images: np.ndarray) -> dict[str, Any]:
    """Images `(n, h, w)` in [0, 1] as levels of 8 bits if they are exactly that, else of 16."""
    levels = images * 255
    bits = 8 if np.abs(levels - np.round(levels)).max() < 1e-4 else 16
    numbers = np.round(np.clip(images, 0, 1) * (2**bits - 1)).astype("u1" if bits == 8 else "<u2")
    return {"data": _to_base64(numbers), "bits": bits, "height": images.shape[1], "width": images.shape[2]}


def _to_base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
