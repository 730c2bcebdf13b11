"""The folder of a run: the names of its files, how it is created and resumed, its settings and its loss scales.

RUN/config.json             the settings; they tell which experiment the folder belongs to
RUN/checkpoints/STEP/       parameters, optimizer, running statistics, step, and the settings again (`checkpoint.py`)
RUN/variables.npz           in place of checkpoints, in a slim run: the model's variables alone (`slim_run.py`)
RUN/metrics.jsonl           one line for each logging interval and for each validation (`logs.py`)
RUN/unlogged.json           after an interruption: logs of steps whose mean is the next line of metrics.jsonl
RUN/tensorboard/            the same as event files
RUN/scales.json             the loss scales and the magnitudes they come from, if the run determined them
RUN/calibration/            a run of its own: the networks of single losses, for the scales of supervised losses
RUN/dhs.jsonl               the lambdas that DHS selected in each step, if it is used
RUN/dhs_histogram.npz       their histogram for each epoch, written at the end; also as .png and .pdf
RUN/summary.json            scores of the test set, written at the end
RUN/reconstructions.png     a picture, written at the end
RUN/evaluation/scores.nc    scores over lambda, of `bin.evaluate`
"""

import contextlib
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperrecon_jax.runtime import distributed, files, paths
from hyperrecon_jax.runtime.errors import InputError

CONFIG, CHECKPOINTS, METRICS, TENSORBOARD = "config.json", "checkpoints", "metrics.jsonl", "tensorboard"
UNLOGGED = "unlogged.json"
CALIBRATION, VARIABLES = "calibration", "variables.npz"
SCALES, LAMBDAS, HISTOGRAM = "scales.json", "dhs.jsonl", "dhs_histogram.npz"
SUMMARY, PICTURE = "summary.json", "reconstructions.png"
EVALUATION, SCORES = "evaluation", "scores.nc"
# the only choices in versions whose settings lack these keys
OLD_MODEL_DEFAULTS = {"conditioning": "dense", "network": "unet", "normalize": False}
RESERVE = 16 * 2**20  # bytes, for logs, the picture and the small files that Orbax writes with a checkpoint


def can_resume(folder: Path, settings: Mapping[str, Any], differences: Callable[[Mapping, Mapping], list[str]]) -> bool:
    """Whether `folder` holds a run with the same settings, which can be resumed; False for a new or empty folder.

    Writes nothing.

    Args:
        folder: the run's folder.
        settings: nested settings.
        differences: a function of old and new settings that lists those that change the results (`config.differences`).

    Raises:
        InputError: if the folder holds something else, or cannot be written.
    """
    if reason := paths.explain_unwritable(folder):
        raise InputError(f"The work folder {folder} cannot be used: {reason}; choose another --workdir.")
    if not folder.exists() or _is_empty(folder):
        return False
    if (folder / VARIABLES).is_file():
        raise InputError(
            f"The work folder {folder} holds a slim run, which cannot be resumed: choose another --workdir, and start"
            f" from its weights with --config.train.init_from={shlex.quote(str(folder))}."
        )
    if not (folder / CONFIG).is_file():
        raise InputError(f"The work folder {folder} is not empty and holds no {CONFIG}: choose another --workdir.")
    try:
        changes = differences(read_settings(folder), settings)
    except (InputError, AttributeError) as error:  # damaged, or of another version
        raise InputError(f"The work folder {folder} holds no experiment of this version: {error}") from error
    if changes:
        raise InputError(
            f"The work folder {folder} holds another experiment: {', '.join(changes)}; choose another --workdir."
        )
    return True


@contextlib.contextmanager
def lock(folder: Path, name: str = files.LOCK) -> Iterator[None]:
    """Inside, this command alone writes to a folder, which is made if it is missing; an empty new folder is removed.

    Several processes of a job are one command: the primary process has the lock. A folder that cannot be written to has
    none.

    Raises:
        InputError: if another command has the lock.
    """
    with contextlib.ExitStack() as stack:

        def acquire() -> None:
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.callback(_remove_empty, missing)
                holder = stack.enter_context(files.lock_folder(folder, name))
            except OSError:  # who writes to it will say why that is not possible
                return
            if holder:
                raise InputError(
                    f"Another command works in {folder}, {holder}: wait until it ends, or name another folder."
                )

        distributed.broadcast_from_primary(acquire)
        yield


def create_workdir(folder: Path, settings: Mapping[str, Any], *, size: int) -> None:
    """Make the folder of a run if it does not exist, and write its settings.

    Raises:
        InputError: if that fails, or if the disk has less room than `size` bytes; then nothing is written.
    """
    check_room(folder, size)
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG, settings)


def check_room(folder: Path, size: int) -> None:
    """Raise `InputError` if the folder's disk has less room than `size` bytes and a reserve. The folder need not exist."""
    free, needed = shutil.disk_usage(paths.nearest_existing(folder)).free, size + RESERVE
    if free < needed:
        raise InputError(
            f"The disk of the work folder {folder} has {free / 2**20:.0f} MiB free and {needed / 2**20:.0f} MiB are needed;"
            " what was saved before is kept: make room and give the same command again, or choose another --workdir."
        )


@contextlib.contextmanager
def explain_write_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk, while files in the folder of a run are written, into an `InputError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))  # Orbax reports the error of the disk in a ValueError
        if isinstance(error, InputError) or not (code or isinstance(error, OSError)):
            raise
        reason = os.strerror(int(code[1])) if code else getattr(error, "strerror", None) or error
        raise InputError(
            f"The work folder {folder} cannot be written: {reason}; what was saved before is kept,"
            " and the same command resumes from there."
        ) from error


def check_results_folder(folder: Path, *, argument: str = "--out") -> None:
    """Raise `InputError` if results cannot go to a folder: it cannot be written, or it is that of a run. Writes nothing."""
    paths.check_folder(folder, argument=argument, advice=f"choose another {argument}")
    if (folder / CONFIG).exists():
        raise InputError(f"{argument} {folder} is the folder of a run: results go to a folder of their own.")


def steps_reported(folder: Path) -> int:
    """How many steps the run in `summary.json` had, 0 without that file; raises `InputError` if the file is damaged."""
    path = folder / SUMMARY
    try:
        return int(read_json(path)["steps"]) if path.exists() else 0
    except (InputError, KeyError, TypeError, ValueError) as error:
        if isinstance(error.__cause__, OSError):  # the system could not open it: nobody has seen damage
            raise
        raise InputError(f"{path} is damaged: delete it, and the test set is scored again.") from error


def read_settings(folder: Path) -> Any:
    """The settings of a run, completed where an earlier version wrote fewer; raises `InputError` as `read_json` does."""
    settings = read_json(folder / CONFIG)
    if isinstance(settings, dict) and isinstance(settings.get("model"), dict):
        settings["model"] = OLD_MODEL_DEFAULTS | settings["model"]
    return settings


def write_magnitudes(folder: Path, magnitudes: Mapping[str, float]) -> None:
    """Write the magnitudes of the loss terms, and the loss scales, which are their reciprocals."""
    scales = {name: 1 / value for name, value in magnitudes.items()}
    with explain_write_errors(folder):
        write_json(folder / SCALES, {"magnitudes": dict(magnitudes), "scales": scales})


def read_magnitudes(folder: Path, terms: Sequence[str]) -> dict[str, float] | None:
    """The magnitudes of the loss terms; None without the file; raises `InputError` if the file is damaged."""
    path = folder / SCALES
    if not path.exists():
        return None
    try:
        stored = read_json(path)["magnitudes"]
        magnitudes = {name: float(stored[name]) for name in terms}
        if not all(math.isfinite(value) and value > 0 for value in magnitudes.values()):
            raise ValueError
    except (InputError, KeyError, TypeError, ValueError) as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise InputError(f"{path} is damaged: delete the whole work folder to start again.") from error
    return magnitudes


def read_scales(folder: Path, terms: Sequence[str]) -> tuple[float, ...] | None:
    """The loss scales alpha = 1 / magnitude (Sec. IV-D) that a run determined; None if its settings state them."""
    magnitudes = read_magnitudes(folder, terms)
    return tuple(1 / value for value in magnitudes.values()) if magnitudes else None


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `InputError` if the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file. If that fails, the file stays as it was."""
    with files.atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def _is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but its lock, and what a run left that was killed while it wrote its first file."""
    return all(path.suffix == ".partial" or path.name == files.LOCK for path in folder.iterdir())


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders that are empty; each is the parent of the one before."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
