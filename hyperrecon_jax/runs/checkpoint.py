"""The folder of a run, and its checkpoints (Orbax).

    RUN/config.json             the settings; what makes the folder this experiment's
    RUN/checkpoints/STEP/       parameters, optimizer, running statistics, step; and the settings once more
    RUN/metrics.jsonl           a line per logging interval and per validation
    RUN/tensorboard/            the same as event files
    RUN/scales.json             the loss scales and what they come from, if the run found them
    RUN/calibration/            a run, of the networks of single losses that the scales of supervised losses come from
    RUN/dhs.jsonl               the lambdas that counted in each step, if DHS chose them
    RUN/dhs_histogram.npz       their histogram, epoch by epoch, at the end; and .png, .pdf
    RUN/summary.json            test-set figures, at the end
    RUN/reconstructions.png     the picture, at the end

Checkpoints are written in the background, by all hosts that hold a part of the state. The latest ones stay, and the one
with the lowest validation loss.
"""

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from hyperrecon_jax.runtime import connection, distributed, files, memory
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.step import TrainState

CONFIG, CHECKPOINTS, METRICS, TENSORBOARD = "config.json", "checkpoints", "metrics.jsonl", "tensorboard"
CALIBRATION = "calibration"
SCALES, LAMBDAS, HISTOGRAM = "scales.json", "dhs.jsonl", "dhs_histogram.npz"
SUMMARY, PICTURE = "summary.json", "reconstructions.png"
BEFORE = {"conditioning": "dense"}  # of `model`, where a run's settings do not say: there was no choice then
RESERVE = 16 * 2**20  # bytes, for logs, the picture and the files that Orbax writes beside the numbers


def begun(folder: Path, settings: Mapping[str, Any], differences: Callable[[Mapping, Mapping], list[str]]) -> bool:
    """Whether this very experiment was begun in `folder` before; nothing is written.

    Args:
        folder: the run's folder.
        settings: nested settings.
        differences: of two settings, where they compute something else.

    Raises:
        InputError: if the folder holds something else.
    """
    there = _nearest(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "is no folder" if not there.is_dir() else "may not be written"
        raise InputError(f"The work folder {folder} cannot be used, since {there} {why}: choose another --workdir.")
    if there != folder.absolute() or all(path.suffix == ".partial" for path in there.iterdir()):  # killed as it began
        return False
    if not (folder / CONFIG).is_file():
        raise InputError(f"The work folder {folder} is not empty and holds no {CONFIG}: choose another --workdir.")
    try:
        different = differences(read_settings(folder), settings)
    except (InputError, AttributeError) as error:  # damaged, or of another version
        raise InputError(f"The work folder {folder} holds no experiment of this version: {error}") from error
    if different:
        raise InputError(
            f"The work folder {folder} holds another experiment: {', '.join(different)}; choose another --workdir."
        )
    return True


def begin(folder: Path, settings: Mapping[str, Any], *, size: int) -> None:
    """Make the folder of a run and write its settings.

    Raises:
        InputError: if that cannot be written, or the disk has less room than `size` bytes; then nothing is written.
    """
    check_room(folder, size)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG, settings)


def check_room(folder: Path, size: int) -> None:
    """Raise `InputError` if the disk of a folder, made or to be made, has less room than `size` bytes and a reserve."""
    free, needed = shutil.disk_usage(_nearest(folder)).free, size + RESERVE
    if free < needed:
        raise InputError(
            f"The disk of the work folder {folder} has {free / 2**20:.0f} MiB free and {needed / 2**20:.0f} MiB are needed;"
            " what was saved before is kept: make room and give the same command again, or choose another --workdir."
        )


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest of its parents that is there."""
    try:
        return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise InputError(f"The work folder {folder} cannot be used: {error.strerror}; choose another --workdir.") from error


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Around all that writes in the folder of a run: a disk that fails becomes an `InputError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        refused = re.search(r"os_error_code='(\d+)'", str(error))  # of Orbax, in a ValueError
        if isinstance(error, InputError) or not (refused or isinstance(error, OSError)):
            raise
        why = os.strerror(int(refused[1])) if refused else getattr(error, "strerror", None) or error
        raise InputError(
            f"The work folder {folder} cannot be written: {why}; what was saved before is kept,"
            " and the same command goes on from there."
        ) from error


def steps_reported(folder: Path) -> int:
    """The steps that `summary.json` tells of, 0 without one; raises `InputError` if it is damaged."""
    path = folder / SUMMARY
    try:
        return int(read_json(path)["steps"]) if path.exists() else 0
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: delete it to have the test set scored again.") from error


def write_scales(folder: Path, magnitudes: Mapping[str, float]) -> None:
    """Keep what a pilot found: the magnitudes of the loss terms, and the scales, their reciprocals."""
    scales = {name: 1 / value for name, value in magnitudes.items()}
    with writing(folder):
        write_json(folder / SCALES, {"magnitudes": dict(magnitudes), "scales": scales})


def read_scales(folder: Path, terms: Sequence[str]) -> dict[str, float] | None:
    """The magnitudes that a pilot found, None if there was none; raises `InputError` if the file is damaged."""
    path = folder / SCALES
    if not path.exists():
        return None
    try:
        found = read_json(path)["magnitudes"]
        magnitudes = {name: float(found[name]) for name in terms}
        if not all(math.isfinite(value) and value > 0 for value in magnitudes.values()):
            raise ValueError
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: delete the whole work folder to begin anew.") from error
    return magnitudes


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `InputError` if it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def read_settings(folder: Path) -> Any:
    """What the settings of a run say, and what they meant when they did not say it; raises `InputError` as `read_json`."""
    found = read_json(folder / CONFIG)
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        found["model"] = BEFORE | found["model"]
    return found


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with files.atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


class Best(NamedTuple):
    """Which checkpoint Orbax preserves: that of the lowest loss, of the steps whose loss is known."""

    losses: Mapping[int, float]

    def should_preserve(self, checkpoints, *, context):
        known = [info.step for info in checkpoints if math.isfinite(self.losses.get(info.step, math.nan))]
        best = min(known, key=self.losses.__getitem__, default=None)
        return [info.step == best for info in checkpoints]


def kept_scales(folder: Path, terms: Sequence[str]) -> tuple[float, ...] | None:
    """The loss scales alpha = 1 / magnitude of `read_scales` (Sec. IV-D), as a run with found ones has them; None: none."""
    found = read_scales(folder, terms)
    return tuple(1 / value for value in found.values()) if found else None


def manager(
    folder: Path, *, keep: int, losses: Mapping[int, float] | None = None, read_only: bool = False
) -> ocp.CheckpointManager:
    """The checkpoints of a run; close it (`with`) to wait for the last one to be written.

    Args:
        folder: of the run.
        keep: how many of the latest stay.
        losses: of validation, by step. Whenever one is saved, the best of those that were validated by then stays, too.
        read_only: nothing in the folder changes, not even if the run goes on meanwhile.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(keep), Best({} if losses is None else losses)]),
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
    )
    try:
        return ocp.CheckpointManager((folder / CHECKPOINTS).absolute(), options=options)
    except OSError:
        raise
    except Exception as error:
        if connection.is_lost_process(error):
            raise
        raise InputError(
            f"The checkpoints in {folder / CHECKPOINTS} cannot be read ({type(error).__name__}: {error}); delete the"
            " damaged one, or the whole work folder to begin anew."
        ) from error


def save(checkpoints: ocp.CheckpointManager, state: TrainState, settings: Mapping[str, Any]):
    """Begin to write a checkpoint of the state.

    Raises:
        InputError: if the disk has no room for it, or did not take the one before.
    """
    folder = Path(checkpoints.directory).parent
    args = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), config=ocp.args.JsonSave(dict(settings)))
    with writing(folder):
        checkpoints.wait_until_finished()
        if distributed.is_primary():
            check_room(folder, memory.num_bytes(state))
        checkpoints.save(int(state.step), args=args)


def restore(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState:
    """The latest checkpoint, placed as `like` is: on as many devices and hosts as those, whatever it was saved from.

    Raises:
        InputError: if it is damaged.
    """
    step = distributed.broadcast_from_primary(checkpoints.latest_step)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
    try:
        restored = checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
    except Exception as error:  # a damaged one fails in as many ways as it has files
        if connection.is_lost_process(error):
            raise
        raise InputError(
            f"The checkpoint {checkpoints.directory / str(step)} cannot be read ({type(error).__name__}); delete that"
            " folder to go on from the one before, or the whole work folder to begin anew."
        ) from error
    return TrainState(**restored["state"])
