"""The checkpoints of a run, by Orbax, in `RUN/checkpoints/STEP/`.

They are written in the background, by all processes that hold a part of the state. The latest ones stay, and the one with
the lowest validation loss. `checksums.json` in each tells whether its files are those that were written.
"""

import glob
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils.epath import gpath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from hyperrecon_jax.runs.run_folder import CHECKPOINTS, check_room, explain_write_errors, write_json
from hyperrecon_jax.runtime import connection, distributed, files, memory
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.step import TrainState

CHECKSUMS = "checksums.json"
ORBAX_METADATA = "_CHECKPOINT_METADATA"  # Orbax changes this file later
Checkpoints: TypeAlias = ocp.CheckpointManager  # of one run


class LowestLoss(NamedTuple):
    """Tells Orbax to keep the checkpoint of the lowest finite validation loss; those without a loss do not count."""

    losses: Mapping[int, float]  # by step

    def should_preserve(self, checkpoints, *, context):
        finite = [info.step for info in checkpoints if math.isfinite(self.losses.get(info.step, math.nan))]
        best = min(finite, key=self.losses.__getitem__, default=None)
        return [info.step == best for info in checkpoints]


def manager(folder: Path, *, keep: int, losses: Mapping[int, float] | None = None, read_only: bool = False) -> Checkpoints:
    """The checkpoints of a run. Use it in a `with` statement, which waits at its end until the last one is written.

    Args:
        folder: the run's folder.
        keep: number of latest checkpoints that stay.
        losses: validation losses by step. Each time a checkpoint is saved, the best of those validated so far stays too.
        read_only: change nothing in the folder, not even while another process trains in it.

    Raises:
        InputError: if they cannot be opened.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(keep), LowestLoss({} if losses is None else losses)]),
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
        async_options=ocp.AsyncOptions(post_finalization_callback=partial(_write_checksums, folder)),
    )
    try:
        return ocp.CheckpointManager((folder / CHECKPOINTS).absolute(), options=options)
    except OSError:
        raise
    except Exception as error:
        if connection.is_lost_process(error):
            raise
        raise InputError(f"The checkpoints in {folder / CHECKPOINTS} cannot be opened ({_describe(error)}).") from error


def save(checkpoints: Checkpoints, state: TrainState, settings: Mapping[str, Any]) -> None:
    """Start to write a checkpoint of the state; it is complete at the next `save`, or when the manager is closed.

    Raises:
        InputError: if the disk has no room for it, or if the checkpoint before could not be written.
    """
    folder = Path(checkpoints.directory).parent
    args = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), config=ocp.args.JsonSave(dict(settings)))
    with explain_write_errors(folder):
        checkpoints.wait_until_finished()
        if distributed.is_primary():
            check_room(folder, memory.num_bytes(state))
        checkpoints.save(int(state.step), args=args)


def restore(checkpoints: Checkpoints, example_state: TrainState) -> TrainState:
    """The state in the latest checkpoint.

    Args:
        checkpoints: from `manager`.
        example_state: a state of the same shapes. The result is placed on the same devices, whatever it was saved from.

    Raises:
        InputError: if the checkpoint is damaged, or has other shapes.
    """
    step = distributed.broadcast_from_primary(checkpoints.latest_step)
    folder = Path(checkpoints.directory) / str(step)
    distributed.broadcast_from_primary(partial(_check_undamaged, folder, checkpoints.all_steps()))
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, example_state._asdict())
    try:
        restored = checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
    except Exception as error:  # Orbax and TensorStore raise many kinds of errors
        if connection.is_lost_process(error):
            raise
        state = "its files are as they were written" if (folder / CHECKSUMS).is_file() else "it may be damaged"
        raise InputError(
            f"The checkpoint {folder} cannot be read ({_describe(error)}); {state}. Earlier checkpoints, if there are any,"
            " are beside it."
        ) from error
    return TrainState(**restored["state"])


def check_saved(folder: Path, state: TrainState) -> None:
    """Read the latest checkpoint of a run back. All processes call this together.

    Raises:
        InputError: if it is not this state.
    """
    distributed.run_on_primary(files.flush_to_disk, folder / CHECKPOINTS)
    with manager(folder, keep=1, read_only=True) as checkpoints:
        step = distributed.broadcast_from_primary(checkpoints.latest_step)
        pairs = zip(_local_bytes(restore(checkpoints, state)), _local_bytes(state), strict=True)
        is_same = step == int(state.step) and all(read == saved for read, saved in pairs)
    if not is_same:
        raise InputError(f"What was saved in {folder / CHECKPOINTS} at step {int(state.step)} cannot be read back.")


def _local_bytes(state: TrainState) -> Iterator[bytes]:
    """The content of the arrays on the devices of this process, once where several devices have the same."""
    for leaf in map(jnp.asarray, jax.tree.leaves(state)):
        for data in {str(shard.index): shard.data for shard in leaf.addressable_shards}.values():
            yield np.asarray(data).tobytes()


def _write_checksums(folder: Path) -> None:
    """Write the sizes and checksums of the files of a checkpoint, and wait until all of it is on the disk.

    Orbax calls this before it gives the checkpoint its name, so that after a power cut it is whole or not there.
    """
    if not distributed.is_primary():
        return
    for checkpoint in (folder / CHECKPOINTS).iterdir():
        if checkpoint.is_dir() and not checkpoint.name.isdecimal() and not (checkpoint / CHECKSUMS).exists():
            paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != ORBAX_METADATA]
            for path in paths:
                files.flush_to_disk(path)
            write_json(checkpoint / CHECKSUMS, {str(path.relative_to(checkpoint)): _checksum(path) for path in paths})


def _check_undamaged(folder: Path, steps: Sequence[int]) -> None:
    """Raise `InputError` if a file of a checkpoint is not the one that was written. Older checkpoints have no checksums."""
    if not (folder / CHECKSUMS).is_file():
        return
    damaged = CHECKSUMS
    try:
        for name, checksum in json.loads((folder / CHECKSUMS).read_text()).items():
            damaged = name
            if ".." in Path(name).parts or Path(name).is_absolute() or _checksum(folder / name) != checksum:
                break
        else:
            return
    except (ValueError, AttributeError, FileNotFoundError):
        pass
    except OSError as error:
        raise InputError(f"The checkpoint {folder} cannot be opened: {error.strerror}.") from error
    earlier = max((step for step in steps if step < int(folder.name)), default=None)
    deleted = "the whole work folder to start again" if earlier is None else f"that folder to go on from step {earlier}"
    raise InputError(
        f"The checkpoint {folder} is damaged: its file {damaged} is not the one that was written; delete {deleted}."
    )


def _checksum(path: Path) -> list[int]:
    """The size of a file in bytes and its CRC-32."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


def _describe(error: Exception) -> str:
    """An exception of a library in a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _take_folders_literally() -> None:
    """Change a method of etils, with which Orbax lists files: it takes [ ] * ? in the name of a folder for a pattern."""
    list_files = gpath.PosixGPath.glob

    def glob_in_folder(folder: Any, pattern: str) -> Any:
        return list_files(type(folder)(glob.escape(os.fspath(folder))), pattern)

    gpath.PosixGPath.glob = glob_in_folder


_take_folders_literally()
