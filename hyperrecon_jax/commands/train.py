"""Train a run, or resume it; or say how long that would take (`dry_run`).

`train` does its jobs in this order: look into the work folder, build the experiment, determine the loss scales, train with
hooks that log, save and validate, and report. It keeps everything in one folder (`runs/run_folder.py`). It can be stopped
at any time, and the same call resumes the run.
"""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax.commands import loss_scales
from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.models import native
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs import checkpoint, logs, report, run_folder
from hyperrecon_jax.runs.batches import Placement, choose_placement, training_batches
from hyperrecon_jax.runs.config import AUTO, complete, differences, flatten
from hyperrecon_jax.runs.description import describe
from hyperrecon_jax.runs.experiment import Experiment, build, with_scales
from hyperrecon_jax.runs.initial import read_initial_run, start_from_run
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runs.task import make_task_scorer
from hyperrecon_jax.runs.validation import validate
from hyperrecon_jax.runtime import connection, distributed, memory
from hyperrecon_jax.runtime.errors import Diverged
from hyperrecon_jax.runtime.signals import agree_on_stop, defer_signals
from hyperrecon_jax.training.loop import fit
from hyperrecon_jax.training.step import Step, TrainState, make_step, place_state, uses_dhs

DRY_RUN_STEPS = 4
PROCESS_SETTINGS = ("data.cache", "data.workers")  # may differ between processes: no result depends on them


class WorkFolder(NamedTuple):
    """The folder of a run, and what is written when it is created."""

    path: Path
    settings: Mapping[str, Any]
    size: int  # bytes that the checkpoints need
    is_resumed: bool


class Session(NamedTuple):
    """The objects that the hooks of the training loop use."""

    experiment: Experiment
    scorer: Scorer
    folder: WorkFolder
    checkpoints: checkpoint.Checkpoints
    write: logs.Write
    losses: dict[int, float]  # of validation, by step; a validation adds its own
    unlogged: list[dict[str, float]]  # the logs of the steps since the last line of metrics.jsonl
    run_interruptible: Callable[[Callable[[], Any]], Any]  # calls a function; None if a signal interrupts it


def train(config: ConfigDict, workdir: Path, *, say: Say = print) -> bool:
    """Train or resume a run, and report it. All processes call it together; the primary process prints and writes files.

    Args:
        config: settings.
        workdir: the folder of the run (`run_folder.py`), the same for all processes.
        say: takes lines for the user.

    Returns:
        True if the run is finished, False if it was interrupted; then the same call resumes it.

    Raises:
        InputError: for bad settings, data or folder, before anything is written.
        Diverged: if the loss or its gradient become infinite or NaN; the last good checkpoint stays.
    """
    config = complete(config)
    distributed.check_same_settings({**_shared_settings(config), "--workdir": str(workdir)})
    with run_folder.lock(workdir):
        return _train(config, workdir, say=say if distributed.is_primary() else _say_nothing)


def _train(config: ConfigDict, workdir: Path, *, say: Say) -> bool:
    """As `train`, in a folder that this command has for itself."""
    settings = config.to_dict()
    inspect = partial(_inspect_workdir, workdir, settings, config.train.steps)
    is_resumed, is_finished = distributed.broadcast_from_primary(inspect)
    if is_finished:
        say(f"This run is finished already.\n{report.next_steps(config, workdir)}")
        return True
    initial = None if is_resumed else read_initial_run(config, say=say)  # first: its mistakes need no work
    experiment = start_from_run(build(config), initial)
    placement = choose_placement(experiment)
    saved = -(-config.train.steps // config.train.save_every)  # checkpoints in all
    size = (min(config.train.keep, saved) + 2) * memory.num_bytes(experiment.state)
    folder = WorkFolder(workdir, settings, size, is_resumed)
    distributed.broadcast_from_primary(partial(run_folder.check_room, workdir, size))
    native.activate()  # after all checks: the first time it measures for some 25 s
    say(describe(experiment, placement))
    if config.loss.scales == AUTO:
        scales = _resolve_scales(experiment, placement, folder, say=say)
        if scales is None:
            return False
        experiment = with_scales(experiment, scales)
    _create_if_new(folder)
    setup = experiment.setup
    scorer = make_task_scorer(config, setup.model, experiment.problem, setup.objective)
    state, is_interrupted = _train_or_resume(experiment, scorer, placement, folder, say=say)
    if is_interrupted:
        say(f"Interrupted at step {int(state.step)}; it is saved in {workdir}. The same command resumes from there.")
        return False
    with run_folder.explain_write_errors(workdir):
        report.report_results(experiment, scorer, state, workdir, say=say)
    return True


def dry_run(config: ConfigDict, *, say: Say = print) -> None:
    """Build everything, take a few real steps, and say what `train` would do and how long it would take."""
    config = complete(config)
    distributed.check_same_settings({**_shared_settings(config), "--dry-run": True})
    say = say if distributed.is_primary() else _say_nothing
    initial = read_initial_run(config, say=say)
    experiment = start_from_run(build(config), initial)
    placement = choose_placement(experiment)
    native.activate()
    say(describe(experiment, placement))
    first, *others = _time_steps(experiment, placement)
    seconds = statistics.median(others)
    steps = config.train.steps + (config.loss.pilot_steps if config.loss.scales == AUTO else 0)
    say(
        f"time      first step {first:.1f} s (it compiles), then {seconds:.2f} s a step,"
        f" {config.train.batch / seconds:.1f} images/s: about {logs.duration(first + seconds * steps)} for training"
    )
    say(f"memory    {report.peak_memory() / 2**30:.1f} GiB at the peak of these steps")
    say("No run was started. Leave out --dry-run to train.")


def _shared_settings(config: ConfigDict) -> dict[str, Any]:
    """The settings that all processes must have in common, by the names that the user knows."""
    settings = {f"config.{key}": value for key, value in flatten(config).items() if key not in PROCESS_SETTINGS}
    return {"--dry-run": False, **settings}


def _inspect_workdir(workdir: Path, settings: Mapping[str, Any], steps: int) -> tuple[bool, bool]:
    """Whether the folder holds this run already, and whether that run is finished."""
    is_resumed = run_folder.can_resume(workdir, settings, differences)
    return is_resumed, is_resumed and run_folder.steps_reported(workdir) >= steps


def _write_settings(folder: WorkFolder) -> None:
    """Create the folder if it does not exist, and write the settings; the primary process does it."""
    create = partial(run_folder.create_workdir, folder.path, folder.settings, size=folder.size)
    distributed.broadcast_from_primary(create)  # an error of the primary process is raised in all of them


def _create_if_new(folder: WorkFolder) -> None:
    """Write the settings of a new run. A resumed run writes them later, once its checkpoint is restored."""
    if not folder.is_resumed:
        _write_settings(folder)


def _resolve_scales(
    experiment: Experiment, placement: Placement, folder: WorkFolder, *, say: Say
) -> tuple[float, ...] | None:
    """The loss scales, read from the folder, or else determined and written to it. None if that was interrupted."""
    terms = experiment.config.loss.terms
    magnitudes = distributed.broadcast_from_primary(partial(run_folder.read_magnitudes, folder.path, terms))
    if magnitudes is None:
        if experiment.config.loss.ground_truth:
            _create_if_new(folder)  # the calibration has its own folder inside
            magnitudes = loss_scales.calibrate(experiment, folder.path, train=train, say=say)
            if magnitudes is None:
                return None
        else:
            magnitudes = loss_scales.run_pilot(experiment, placement, say=say)
            _create_if_new(folder)  # only now, so that a pilot that fails leaves no folder
    distributed.run_on_primary(run_folder.write_magnitudes, folder.path, magnitudes)
    return tuple(1 / magnitudes[term] for term in terms)


def _train_or_resume(
    experiment: Experiment, scorer: Scorer, placement: Placement, folder: WorkFolder, *, say: Say
) -> tuple[TrainState, bool]:
    """Train from the latest checkpoint, or from the start; the state, and whether it was interrupted."""
    config, setup, workdir = experiment.config, experiment.setup, folder.path
    step = make_step(setup, placement.mesh, resident=placement.resident)
    state = place_state(placement.mesh, experiment.state)
    losses: dict[int, float] = {}
    with defer_signals() as (is_stop_requested, run_interruptible):  # until the last checkpoint is written and read back
        with (
            run_folder.explain_write_errors(workdir),
            checkpoint.manager(workdir, keep=config.train.keep, losses=losses) as checkpoints,
            connection.exit_on_error(),  # inside, because closing the checkpoints waits for all processes
            run_folder.explain_write_errors(workdir),
        ):
            if distributed.broadcast_from_primary(checkpoints.latest_step) is not None:
                state = checkpoint.restore(checkpoints, state)
                say(f"Resuming from step {int(state.step)}.")
            if folder.is_resumed:
                _write_settings(folder)
            first = int(state.step)
            distributed.run_on_primary(logs.drop_after, first, workdir / run_folder.LAMBDAS, required=("step",))
            losses.update(distributed.broadcast_from_primary(partial(_read_losses, workdir, first)))
            with _open_logs(experiment, workdir, first) as write:
                unlogged = distributed.run_on_primary(_read_unlogged, config, workdir, first) or []
                session = Session(experiment, scorer, folder, checkpoints, write, losses, unlogged, run_interruptible)
                samples = training_batches(experiment, placement, first=first, last=config.train.steps)
                state = _run_loop(session, step, state, samples, agree_on_stop(is_stop_requested))
        if int(state.step) > first:
            checkpoint.check_saved(workdir, state)
            if _is_logged(config, int(state.step)):  # not before: a run that is killed resumes from an earlier checkpoint
                distributed.run_on_primary((workdir / run_folder.UNLOGGED).unlink, missing_ok=True)
    is_signalled = distributed.process_count() == 1 and is_stop_requested()
    return state, int(state.step) < config.train.steps or is_signalled


def _open_logs(experiment: Experiment, workdir: Path, first: int) -> contextlib.AbstractContextManager[logs.Write]:
    """The log files, open after step `first`; other processes than the primary write nothing."""
    opened = distributed.run_on_primary(
        logs.open_logs,
        workdir / run_folder.METRICS,
        workdir / run_folder.TENSORBOARD,
        first=first,
        steps=experiment.config.train.steps,
        batch=experiment.setup.batch,
    )
    return opened or contextlib.nullcontext(_say_nothing)


def _run_loop(
    session: Session, step: Step, state: TrainState, samples: Iterable[Sample], stop: Callable[[], bool]
) -> TrainState:
    """The training loop with its hooks. The error of a training that diverged says what can be done."""
    options = session.experiment.config.train
    try:
        _validate_if_due(session, state)
        return fit(
            step,
            state,
            samples,
            steps=options.steps,
            log_every=options.log_every,
            save_every=options.save_every,
            on_log=partial(_log, session),
            on_save=partial(_save, session),
            stop=stop,
        )
    except Diverged as error:
        good = session.checkpoints.latest_step()
        saved = "nothing was saved yet" if good is None else f"the checkpoint of step {good} is the last good one"
        raise Diverged(
            f"Training stopped: {error}; {saved}. Try a lower config.train.learning_rate or a config.train.clip,"
            " with another --workdir."
        ) from error


def _log(session: Session, step: int, rows: list[dict[str, float]], selected_lams: np.ndarray) -> None:
    """The hook for logs. Those of steps at which a run without interruptions writes no line wait for the next."""
    unlogged = session.unlogged
    unlogged += rows
    is_due = _is_logged(session.experiment.config, step)
    means = {name: float(np.mean([row[name] for row in unlogged])) for name in rows[0]}
    session.write(step, "train", means, is_stored=is_due)
    if is_due:
        unlogged.clear()
    else:
        file = session.folder.path / run_folder.UNLOGGED
        distributed.run_on_primary(run_folder.write_json, file, {"step": step, "rows": unlogged})
    if uses_dhs(session.experiment.setup):
        file = session.folder.path / run_folder.LAMBDAS
        distributed.run_on_primary(logs.write_lambdas, file, step, selected_lams)


def _is_logged(config: ConfigDict, step: int) -> bool:
    """Whether a run without interruptions writes a line for a step."""
    options = config.train
    return step in (1, options.steps) or step % options.log_every == 0 or step % options.save_every == 0


def _read_unlogged(config: ConfigDict, workdir: Path, first: int) -> list[dict[str, float]]:
    """The logs of the steps up to `first` of which no line was written."""
    count = next(count for count in range(first + 1) if count == first or _is_logged(config, first - count))
    return logs.read_unlogged(workdir / run_folder.UNLOGGED, first, count)


def _save(session: Session, state: TrainState) -> None:
    """The hook for checkpoints. It saves first, because the process may be killed before a validation ends."""
    checkpoint.save(session.checkpoints, state, session.folder.settings)
    _validate_if_due(session, state)


def _validate_if_due(session: Session, state: TrainState) -> None:
    """Validate a state that is due and has no validation yet; if a signal interrupts it, the next start does it."""
    options, done = session.experiment.config.train, int(state.step)
    is_due = done > 0 and (done % options.save_every == 0 or done == options.steps)
    if done in session.losses or not is_due:
        return
    if scores := session.run_interruptible(lambda: validate(session.experiment, session.scorer, state)):
        session.write(done, "val", scores)
        session.losses[done] = scores.get("loss", np.inf)


def _read_losses(workdir: Path, last: int) -> list[tuple[int, float]]:
    """The steps up to `last` that were validated, and their losses."""
    rows = logs.read_rows(workdir / run_folder.METRICS)
    return [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row and row["step"] <= last]


def _time_steps(experiment: Experiment, placement: Placement) -> list[float]:
    """Seconds of each of the first few training steps."""
    step = make_step(experiment.setup, placement.mesh, resident=placement.resident)
    state = place_state(placement.mesh, experiment.state)
    samples = training_batches(experiment, placement, first=0, last=DRY_RUN_STEPS)
    seconds = []
    for batch in itertools.islice(samples, DRY_RUN_STEPS):
        start = time.monotonic()
        state, *outputs = step(state, batch)
        jax.block_until_ready(outputs)
        seconds.append(time.monotonic() - start)
    return seconds


def _say_nothing(*_: Any, **__: Any) -> None:
    """Takes the place of `say` and of `write` in processes other than the primary."""
