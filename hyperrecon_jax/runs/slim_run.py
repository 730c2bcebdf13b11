"""Slim runs: a run folder with the model's variables alone, without the state of its training, small enough to send.

The model that comes with the package is one. Images in `.npy` files may lie beside the variables; `config.data` then
names the files without a folder (`find_images`). Every function and command that reads a run reads a slim run; training
cannot resume it, but can start from it (`config.train.init_from`).
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hyperrecon_jax.models import tensor_files
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runtime import distributed, paths
from hyperrecon_jax.runtime.errors import InputError

Tree = Any
PRETRAINED = "pretrained"  # the name of the model that comes with the package, where a run is expected
PRETRAINED_FOLDER = Path(__file__).parents[1] / "models" / "pretrained"
STEPS = "steps"


def find_run(run: str | PathLike[str]) -> Path:
    """The folder of a run that is given by its folder, or by the name "pretrained". A folder comes before the name."""
    folder = Path(run)
    return folder if str(run) != PRETRAINED or folder.is_dir() else PRETRAINED_FOLDER


@contextlib.contextmanager
def writable_run(run: str | PathLike[str]) -> Iterator[Path]:
    """Yield the folder of a run to which results are written, as `find_run` finds it. All processes call this together.

    The model of the package is copied to `runs/pretrained`. If the work ends with an `InputError`, a new copy is deleted,
    unless something was added to it.
    """
    folder, copy = find_run(run), Path("runs", PRETRAINED)
    if folder != PRETRAINED_FOLDER:
        yield folder
        return
    new_folders = [Path(path) for path in distributed.broadcast_from_primary(partial(_copy_pretrained, copy))]
    try:
        yield copy
    except InputError:
        if new_folders:
            distributed.run_on_primary(_remove_copy, new_folders)
        raise


def _copy_pretrained(copy: Path) -> list[str]:
    """Copy the model of the package, if there is no copy; returns the folders that are new, the copy first."""
    if copy.exists():
        return []
    paths.check_folder(copy, argument="The copy of the model of the package,", advice="work in a folder of your own")
    new_folders = [str(folder) for folder in (copy, copy.parent) if not folder.exists()]
    unfinished = copy.with_name(f"{copy.name}.partial")
    with run_folder.explain_write_errors(copy):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a command that was killed
        shutil.copytree(PRETRAINED_FOLDER, unfinished)
        unfinished.rename(copy)
    return new_folders


def _remove_copy(new_folders: Sequence[Path]) -> None:
    """Remove a new copy of the model of the package if it has no other files, and the new parent if that is empty."""
    names, original_names = ({path.name for path in folder.iterdir()} for folder in (new_folders[0], PRETRAINED_FOLDER))
    if names == original_names:
        shutil.rmtree(new_folders[0])
    with contextlib.suppress(OSError):  # it is not empty
        for folder in new_folders[1:]:
            folder.rmdir()


def write(
    folder: Path,
    settings: Mapping[str, Any],
    variables: Tree,
    *,
    steps: int,
    images: Mapping[str, Path] | None = None,
    dtype: str = "float16",
) -> None:
    """Write a slim run.

    Args:
        folder: a new or empty folder.
        settings: of the run, nested.
        variables: of its model.
        steps: how many steps it was trained.
        images: by split, the `.npy` files that are copied to the folder (`own_images`).
        dtype: of the numbers in the file. Half precision changes a reconstruction by about 1e-4.

    Raises:
        InputError: if the folder has content, or cannot be written.
    """
    check_new(folder)
    images = images or {}
    settings = {**settings, "data": {**settings.get("data", {}), **{split: file.name for split, file in images.items()}}}
    leaves = tensor_files.flatten_tree(jax.device_get({name: variables[name] for name in ("params", "batch_stats")}))
    with run_folder.explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tensor_files.write(
            folder / run_folder.VARIABLES,
            {STEPS: np.array(steps), **{name: np.asarray(leaf).astype(dtype) for name, leaf in leaves.items()}},
        )
        for file in {*images.values()}:
            shutil.copy(file, folder)
        run_folder.write_json(folder / run_folder.CONFIG, settings)


def check_new(folder: Path) -> None:
    """Raise `InputError` unless a slim run can be written to a folder: it is new or empty, and can be written."""
    paths.check_folder(folder, argument="`out`")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} must be a new or empty folder for the slim run.")


def is_slim(folder: Path) -> bool:
    """Whether a folder holds a slim run."""
    return (folder / run_folder.VARIABLES).is_file()


def own_images(folder: Path, data: Mapping[str, Any]) -> dict[str, Path]:
    """The `.npy` files that the stored `config.data` of a slim run names and that lie in its folder, by split."""
    files = {split: folder / str(data[split]) for split in ("train", "val", "test") if data.get(split)}
    return {split: file for split, file in files.items() if file.parent == folder and file.is_file()}


def find_images(folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `config.data` of a slim run, with the paths of the `.npy` files that lie in its own folder."""
    return {**data, **{split: str(file) for split, file in own_images(folder, data).items()}}


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
