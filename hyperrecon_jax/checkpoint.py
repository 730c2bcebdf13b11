"""The folder of a run, and its checkpoints (Orbax).

    RUN/config.json             the settings; what makes the folder this experiment's
    RUN/checkpoints/STEP/       parameters, optimizer, running statistics, step; and the settings once more
    RUN/metrics.jsonl           a line per logging interval and per validation
    RUN/tensorboard/            the same as event files
    RUN/summary.json            test-set figures, at the end
    RUN/reconstructions.png     the picture, at the end

Checkpoints are written in the background. The latest ones stay, and the one with the lowest validation loss.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from hyperrecon_jax.errors import InputError
from hyperrecon_jax.train import TrainState

CONFIG, CHECKPOINTS, METRICS, TENSORBOARD = "config.json", "checkpoints", "metrics.jsonl", "tensorboard"
SUMMARY, PICTURE = "summary.json", "reconstructions.png"


def begun(folder: Path, settings: Mapping[str, Any], differences: Callable[[Mapping, Mapping], list[str]]) -> bool:
    """Whether this very experiment was begun in `folder` before; nothing is written.

    Args:
        folder: the run's folder.
        settings: nested settings.
        differences: of two settings, where they compute something else.

    Raises:
        InputError: if the folder holds something else.
    """
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return False
    except OSError as error:
        raise InputError(f"The work folder {folder} cannot be read: {error.strerror}.") from error
    if not (folder / CONFIG).is_file():
        raise InputError(f"The work folder {folder} is not empty and holds no {CONFIG}: choose another with --workdir.")
    different = differences(read_json(folder / CONFIG), settings)
    if different:
        raise InputError(
            f"The work folder {folder} holds another experiment: {', '.join(different)}; choose another with --workdir."
        )
    return True


def begin(folder: Path, settings: Mapping[str, Any], *, size: int) -> None:
    """Make the folder of a run and write its settings.

    Raises:
        InputError: if that cannot be written, or the disk has less room than `size` bytes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size:
            raise InputError(
                f"The disk of the work folder {folder} has {free / 2**20:.0f} MiB free and the run needs"
                f" {size / 2**20:.0f} MiB: make room or choose another with --workdir."
            )
        write_json(folder / CONFIG, settings)
    except OSError as error:
        raise InputError(f"The work folder {folder} cannot be written: {error.strerror}.") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `InputError` if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)


def manager(folder: Path, *, keep: int) -> ocp.CheckpointManager:
    """The checkpoints of a run; close it (`with`) to wait for the last one to be written."""
    policy = AnyPreservationPolicy([LatestN(keep), BestN(get_metric_fn=lambda m: m["loss"], reverse=True, n=1)])
    options = ocp.CheckpointManagerOptions(preservation_policy=policy)
    return ocp.CheckpointManager((folder / CHECKPOINTS).absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, state: TrainState, settings: Mapping[str, Any], validation: dict[str, float]):
    """Begin to write a checkpoint of the state, with the validation's figures, of which "loss" tells the best."""
    args = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), config=ocp.args.JsonSave(dict(settings)))
    checkpoints.save(int(state.step), args=args, metrics=validation)


def restore(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState:
    """The latest checkpoint, placed as `like` is.

    Raises:
        InputError: if it is damaged.
    """
    step = checkpoints.latest_step()
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
    try:
        restored = checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
    except Exception as error:  # a damaged one fails in as many ways as it has files
        raise InputError(
            f"The checkpoint {checkpoints.directory / str(step)} cannot be read ({type(error).__name__}); delete that"
            " folder to go on from the one before, or the whole work folder to begin anew."
        ) from error
    return TrainState(**restored["state"])
