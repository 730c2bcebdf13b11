"""Slim runs: a run folder with the model's variables alone, without the state of its training, small enough to send.

The model that comes with the package is one. Images in `.npy` files may lie beside the variables; `config.data` then
names the files without a folder (`find_images`). Every function and command that reads a run reads a slim run; training cannot
resume it, but can start from it (`config.train.init_from`).
"""

import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hyperrecon_jax.models import tensor_files
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
PRETRAINED = "pretrained"  # the name of the model that comes with the package, where a run is expected
PRETRAINED_FOLDER = Path(__file__).parents[1] / "models" / "pretrained"
STEPS = "steps"


def find_run(run: str | PathLike[str], *, is_written: bool = False) -> Path:
    """The folder of a run that is given by its folder, or by the name "pretrained". A folder comes before the name.

    Args:
        run: the folder or the name.
        is_written: whether results are written to the folder. The model of the package is then copied to `runs/pretrained`.
    """
    folder = Path(run)
    if str(run) != PRETRAINED or folder.is_dir():
        return folder
    if not is_written:
        return PRETRAINED_FOLDER
    copy = Path("runs", PRETRAINED)
    if not copy.exists():
        with run_folder.explain_write_errors(copy):
            shutil.copytree(PRETRAINED_FOLDER, copy)
    return copy


def write(folder: Path, settings: Mapping[str, Any], variables: Tree, *, steps: int, dtype: str = "float16") -> None:
    """Write a slim run.

    Args:
        folder: a new or empty folder.
        settings: of the run, nested.
        variables: of its model.
        steps: how many steps it was trained.
        dtype: of the numbers in the file. Half precision changes a reconstruction by about 1e-4.

    Raises:
        InputError: if the folder has content, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} must be a new or empty folder for the slim run.")
    leaves = tensor_files.flatten_tree(jax.device_get({name: variables[name] for name in ("params", "batch_stats")}))
    with run_folder.explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tensor_files.write(
            folder / run_folder.VARIABLES,
            {STEPS: np.array(steps), **{name: np.asarray(leaf).astype(dtype) for name, leaf in leaves.items()}},
        )
        run_folder.write_json(folder / run_folder.CONFIG, dict(settings))


def is_slim(folder: Path) -> bool:
    """Whether a folder holds a slim run."""
    return (folder / run_folder.VARIABLES).is_file()


def find_images(folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `config.data` of a slim run, with the paths of the `.npy` files that lie in its own folder."""
    own = {split: str(folder / str(data.get(split))) for split in ("train", "val", "test") if data.get(split)}
    return {**data, **{split: path for split, path in own.items() if Path(path).is_file()}}


def read_steps(folder: Path) -> int:
    """How many steps the model of a slim run was trained; raises `InputError` for a damaged file."""
    return int(tensor_files.read(folder / run_folder.VARIABLES).get(STEPS, 0))


def read(folder: Path, example: Tree) -> tuple[Tree, int]:
    """The variables of a slim run, float32, and how many steps it was trained.

    Args:
        folder: of the run.
        example: variables of the same model, or their shapes.

    Raises:
        InputError: if the file is damaged, or holds the variables of another model.
    """
    file = folder / run_folder.VARIABLES
    leaves = dict(tensor_files.read(file))
    steps = int(leaves.pop(STEPS, 0))
    expected = tensor_files.flatten_tree(example)
    for name, leaf in expected.items():
        if name not in leaves or leaves[name].shape != leaf.shape:
            shape = leaves[name].shape if name in leaves else "nothing"
            raise InputError(f"{file} must have {name} of shape {tuple(leaf.shape)} for its settings, got {shape}.")
    arrays = {name: np.asarray(leaves[name], np.float32) for name in expected}
    return {"params": {}, "batch_stats": {}} | tensor_files.unflatten_tree(arrays), steps
