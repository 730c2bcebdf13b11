"""The checkpoints of a run, by Orbax, in `RUN/checkpoints/STEP/`.

They are written in the background, by all processes that hold a part of the state. The latest ones stay, and the one with
the lowest validation loss.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from hyperrecon_jax.runs.run_folder import CHECKPOINTS, check_room, explain_write_errors
from hyperrecon_jax.runtime import connection, distributed, memory
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.training.step import TrainState

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
        InputError: if a checkpoint is damaged.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(keep), LowestLoss({} if losses is None else losses)]),
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
            " damaged one, or the whole work folder to start again."
        ) from error


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
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, example_state._asdict())
    try:
        restored = checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
    except Exception as error:  # each damaged file fails in its own way
        if connection.is_lost_process(error):
            raise
        raise InputError(
            f"The checkpoint {checkpoints.directory / str(step)} cannot be read ({type(error).__name__}); delete that"
            " folder to resume from the one before, or the whole work folder to start again."
        ) from error
    return TrainState(**restored["state"])
