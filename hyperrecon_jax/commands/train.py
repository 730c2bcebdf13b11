"""Carry out an experiment: train, resume, validate; or say what that would be. `report.py` tells the user.

`run` keeps everything in one folder (`checkpoint.py`), can be stopped at any time and goes on where it was.
"""

import contextlib
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
from jax.sharding import Mesh
from ml_collections import ConfigDict

from hyperrecon_jax import data
from hyperrecon_jax.data.feed import stream
from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.physics.sample import Sample
from hyperrecon_jax.runs import checkpoint, logs, report
from hyperrecon_jax.runs.config import AUTO, FREE, complete, default_config, differences, flatten
from hyperrecon_jax.runs.experiment import Experiment, build, load, with_scales
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime import connection, distributed, files, memory
from hyperrecon_jax.runtime.errors import Diverged
from hyperrecon_jax.runtime.mesh import place, place_local_shard
from hyperrecon_jax.runtime.signals import agree_on_stop, defer_signals
from hyperrecon_jax.training.loop import fit
from hyperrecon_jax.training.pilot import pilot
from hyperrecon_jax.training.step import TrainState, keys, make_step, place_state, training_mesh, uses_dhs

Scores = dict[str, float]
TRIED = 4  # steps of a dry run
PROCESS_SETTINGS = ("data.cache", "data.workers")  # may differ between processes: nothing that is computed depends on them


def run(config: ConfigDict, workdir: Path, *, say: Say = print) -> bool:
    """Train, or go on training, and report; on all hosts at once, of which the first speaks and writes.

    Args:
        config: settings.
        workdir: the folder of the run (`checkpoint.py`), the same for all hosts.
        say: receives lines for the user.

    Returns:
        True if the run is finished, False if it was interrupted; the same call goes on.

    Raises:
        InputError: for bad settings, data or folder, before anything is written.
        Diverged: if loss or gradient stop being finite; the last good checkpoint stays.
    """
    config = complete(config)
    settings = config.to_dict()
    distributed.check_same_settings({**_shared_settings(config), "--workdir": str(workdir)})
    say = say if distributed.is_primary() else _silence

    def there():
        resumed = checkpoint.begun(workdir, settings, differences)
        return resumed, resumed and checkpoint.steps_reported(workdir) >= config.train.steps

    resumed, finished = distributed.broadcast_from_primary(there)
    if finished:
        say(f"This run is finished already.\n{report.hint(config, workdir)}")
        return True
    experiment = build(config)
    setup = experiment.setup
    lambdas = workdir / checkpoint.LAMBDAS
    mesh = training_mesh(setup)
    resident = distributed.broadcast_from_primary(partial(lives_on_device, experiment, mesh))
    say(report.describe(experiment, mesh, resident))
    size = (config.train.keep + 2) * memory.num_bytes(experiment.state)
    distributed.broadcast_from_primary(partial(checkpoint.check_room, workdir, size))
    begin = partial(distributed.broadcast_from_primary, partial(checkpoint.begin, workdir, settings, size=size))
    known = partial(checkpoint.read_scales, workdir, config.loss.terms)
    found = distributed.broadcast_from_primary(known) if config.loss.scales == AUTO else None
    if config.loss.scales == AUTO and not found:
        if config.loss.ground_truth:
            if not resumed:
                begin()  # what the calibration trains has its folder in there
            found = _calibrate(experiment, workdir, say=say)
            if found is None:
                return False
        else:
            found = _pilot(experiment, mesh, resident, say=say)
    if not resumed:
        begin()
    if found:
        distributed.run_on_primary(checkpoint.write_scales, workdir, found)
        experiment = with_scales(experiment, tuple(1 / found[name] for name in config.loss.terms))
        setup = experiment.setup
    step = make_step(setup, mesh, resident=resident)
    state = place_state(mesh, experiment.state)
    losses: dict[int, float] = {}  # of validation, by step
    with (
        defer_signals() as (is_stop_requested, run_interruptible),  # around all else: until the last checkpoint is written
        checkpoint.writing(workdir),
        checkpoint.manager(workdir, keep=config.train.keep, losses=losses) as checkpoints,
        connection.exit_on_error(),  # before the checkpoints are closed, which waits for all hosts
        checkpoint.writing(workdir),
    ):
        if distributed.broadcast_from_primary(checkpoints.latest_step) is not None:
            state = checkpoint.restore(checkpoints, state)
            say(f"Going on from step {int(state.step)}.")
        if resumed:
            begin()  # not before the checkpoint is known to be good
        first = int(state.step)
        distributed.run_on_primary(logs.drop_after, first, lambdas, needs=("step",))
        losses.update(distributed.broadcast_from_primary(partial(_validated, workdir, first)))
        opened = distributed.run_on_primary(
            logs.open_logs,
            workdir / checkpoint.METRICS,
            workdir / checkpoint.TENSORBOARD,
            first=first,
            steps=config.train.steps,
            batch=setup.batch,
        )
        with opened or contextlib.nullcontext(_silence) as write:

            def log(step, means, used):
                write(step, "train", means)
                if uses_dhs(setup):
                    distributed.run_on_primary(logs.write_lambdas, lambdas, step, used)

            def validate_if_due(state):
                done = int(state.step)
                if done in losses or not done or (done % config.train.save_every and done != config.train.steps):
                    return
                if scores := run_interruptible(lambda: validate(experiment, state)):  # else the next start does
                    write(done, "val", scores)
                    losses[done] = scores.get("loss", np.inf)

            def save(state):
                checkpoint.save(checkpoints, state, settings)  # first: validation may take longer than is left to live
                validate_if_due(state)

            try:
                validate_if_due(state)
                state = fit(
                    step,
                    state,
                    _samples(experiment, mesh, resident, first, config.train.steps),
                    steps=config.train.steps,
                    log_every=config.train.log_every,
                    save_every=config.train.save_every,
                    on_log=log,
                    on_save=save,
                    stop=agree_on_stop(is_stop_requested),
                )
            except Diverged as error:
                good = checkpoints.latest_step()
                kept = (
                    f"the checkpoint of step {good} is the last good one" if good is not None else "nothing was saved yet"
                )
                raise Diverged(
                    f"Training stopped: {error}; {kept}. Try a lower config.train.learning_rate or a config.train.clip,"
                    " with another --workdir."
                ) from error
    if int(state.step) < config.train.steps or (distributed.process_count() == 1 and is_stop_requested()):
        say(f"Interrupted at step {int(state.step)}; it is saved in {workdir}. The same command goes on from there.")
        return False
    with checkpoint.writing(workdir):
        report.finish(experiment, state, workdir, say=say)
    return True


def _pilot(experiment: Experiment, mesh: Mesh, resident: bool, *, say: Say) -> dict[str, float]:
    """The magnitudes of the loss terms, from a pilot."""
    steps = experiment.config.loss.pilot_steps
    say(f"Finding the loss scales: a pilot of {steps} steps on data consistency alone ...")
    samples = _samples(experiment, mesh, resident, 0, steps)
    found = pilot(experiment.setup, experiment.state, samples, mesh, steps=steps, resident=resident)
    say(f"scales    {', '.join(f'{name} {1 / value:.3g}' for name, value in found.items())}")
    return found


def _calibrate(experiment: Experiment, workdir: Path, *, say: Say) -> dict[str, float] | None:
    """What each loss comes to alone, s_k: the validation loss of a plain U-Net trained with it (Sec. IV-D).

    These networks are an ensemble that is trained as a run in the folder `calibration`. What comes out is kept beside the
    cached data, for all runs that differ in nothing but the hypernetwork, lambda and the scales. None: interrupted.
    """
    config = experiment.config
    alone = config.copy_and_resolve_references()
    defaults = default_config()
    alone.lam, alone.dhs, alone.loss.scales = defaults.lam, defaults.dhs, (1.0,) * len(config.loss.terms)
    alone.lam.sampling, alone.lam.axes = "ensemble", ((0.0, 1.0),) * (len(config.loss.terms) - 1)
    for key in ("conditioning", "rank", "encoding"):
        alone.model[key] = defaults.model[key]
    alone.model.hyper_width = 0
    corners = np.eye(len(config.loss.terms))
    lams = hyperparams.product(alone.lam.axes)
    lams = np.stack([lams[np.argmax((np.asarray(hyperparams.coefficients(lams)) == corner).all(-1))] for corner in corners])
    settings = {key: value for key, value in flatten(alone).items() if key not in FREE}
    images = [experiment.dataset.train.samples.identity, experiment.dataset.val.samples.identity]
    known = files.cache_folder(config.data.cache or None) / "scales" / scoring.digest(json.dumps(settings), images)
    found = distributed.broadcast_from_primary(partial(checkpoint.read_scales, known, config.loss.terms))
    if found is None:
        say(f"Finding the loss scales: {len(lams)} losses alone, each with a U-Net of its own ...")
        if not run(alone, workdir / checkpoint.CALIBRATION, say=say):
            return None
        trained, state = load(workdir / checkpoint.CALIBRATION)
        scores, _ = _score_validation(trained, state, lams)
        found = dict(zip(config.loss.terms, scores["loss"].mean(1).tolist(), strict=True))
        if distributed.is_primary():
            with checkpoint.writing(known):
                known.mkdir(parents=True, exist_ok=True)
            checkpoint.write_scales(known, found)
        say(f"These scales are kept in {known} for other runs of the same setting.")
    else:
        say(f"The loss scales were found before, for the same setting: {known}.")
    say(f"scales    {', '.join(f'{name} {1 / value:.3g}' for name, value in found.items())}")
    return found


def _shared_settings(config: ConfigDict) -> dict[str, Any]:
    """The settings that all processes must have in common, by the names that the user knows."""
    settings = {f"config.{key}": value for key, value in flatten(config).items() if key not in PROCESS_SETTINGS}
    return {"--dry-run": False, **settings}


def lives_on_device(experiment: Experiment, mesh: Mesh) -> bool:
    """Whether the training images stay on each device, by `config.data.placement`."""
    placement = experiment.config.data.placement
    if placement != "auto":
        return placement == "device"
    if experiment.dataset.train.samples.arrays is None:
        return False
    size = experiment.dataset.train.samples.nbytes
    device = mesh.devices.flat[0]
    if device.platform == "cpu":  # devices share the host's memory, and each has its copy
        return size * len(mesh.local_devices) <= psutil.virtual_memory().available / 4
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)  # not every platform tells
    return size <= limit / 4


def _samples(experiment: Experiment, mesh: Mesh, resident: bool, first: int, last: int) -> Iterator[Sample]:
    """What the steps from `first` up to `last` take."""
    samples, config = experiment.dataset.train.samples, experiment.config
    if resident:
        everywhere = place(mesh, samples.arrays)
        while True:
            yield everywhere
    key_order, _ = keys(experiment.setup)
    put, share = partial(place_local_shard, mesh), (jax.process_index(), distributed.process_count())
    batch, workers = config.train.batch, config.data.workers
    yield from stream(samples, key_order, first=first, last=last, batch=batch, put=put, share=share, workers=workers)


def _validated(workdir: Path, last: int) -> list[tuple[int, float]]:
    """The steps up to `last` that were validated, and their losses."""
    rows = logs.read_rows(workdir / checkpoint.METRICS)
    return [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row and row["step"] <= last]


def validate(experiment: Experiment, state: TrainState) -> Scores:
    """Means over the validation images and the reported lambdas: "loss" and the metrics."""
    scores, _ = _score_validation(experiment, state, experiment.lams)
    return report.means(scores)


def _score_validation(experiment: Experiment, state: TrainState, lams: np.ndarray) -> tuple[Any, Any]:
    """The scores of the validation images at some lambdas."""
    samples = experiment.dataset.val.samples
    chosen = data.subset(samples, data.evenly_spaced(samples.size, experiment.config.train.validation_images))
    return experiment.score.run(report.variables(state), chosen, lams, experiment.key_validation)


def _silence(*_: Any) -> None:
    """What hosts other than the first say and log."""


def dry_run(config: ConfigDict, *, say: Say = print) -> None:
    """Build everything, take a few real steps, and say what `run` would do and how long it would take."""
    config = complete(config)
    distributed.check_same_settings({**_shared_settings(config), "--dry-run": True})
    say = say if distributed.is_primary() else _silence
    experiment = build(config)
    setup, steps = experiment.setup, experiment.config.train.steps
    pilot_steps = experiment.config.loss.pilot_steps if experiment.config.loss.scales == AUTO else 0
    mesh = training_mesh(setup)
    resident = distributed.broadcast_from_primary(partial(lives_on_device, experiment, mesh))
    say(report.describe(experiment, mesh, resident))
    state = place_state(mesh, experiment.state)
    samples = _samples(experiment, mesh, resident, 0, TRIED)
    step = make_step(setup, mesh, resident=resident)
    took = []
    for batch in itertools.islice(samples, TRIED):
        start = time.monotonic()
        state, *told = step(state, batch)
        jax.block_until_ready(told)
        took.append(time.monotonic() - start)
    each = statistics.median(took[1:])
    say(
        f"time      first step {took[0]:.1f} s (it compiles), then {each:.2f} s a step, {setup.batch / each:.1f} images/s:"
        f" about {logs.duration(took[0] + each * (steps + pilot_steps))} for training"
    )
    say(f"memory    {report.peak_memory() / 2**30:.1f} GiB at the peak of these steps")
    say("No run was begun. Leave out --dry-run to train.")
