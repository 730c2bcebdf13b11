"""Carry out an experiment: train, resume, validate, report; or say what that would be.

`run` keeps everything in one folder (`checkpoint.py`), can be stopped at any time and goes on where it was.
"""

import contextlib
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh
from ml_collections import ConfigDict

from hyperrecon_jax import checkpoint, evaluate, figures, logs
from hyperrecon_jax.config import complete, differences
from hyperrecon_jax.data.feed import stream
from hyperrecon_jax.experiment import Experiment, build, lam_name, lam_title
from hyperrecon_jax.model import count_parameters, generate_weights
from hyperrecon_jax.operators import magnitude
from hyperrecon_jax.train import SPREAD, Diverged, TrainState, device_mesh, fit, keys, make_step, place

Tree = Any
Say = Callable[[str], None]
PICTURED = 3  # test slices in the picture


def use_all_cores() -> None:
    """Make each CPU core a JAX device, unless the user chose a number; call it before anything runs on JAX.

    One step keeps one core busy: each core takes its part of the batch, as each accelerator would.
    """
    if jax.config.jax_num_cpu_devices < 1:  # type: ignore[attr-defined]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
        jax.config.update("jax_num_cpu_devices", cores or 1)


def run(config: ConfigDict, workdir: Path, *, say: Say = print) -> bool:
    """Train, or go on training, and report.

    Args:
        config: settings.
        workdir: the folder of the run (`checkpoint.py`).
        say: receives lines for the user.

    Returns:
        True if the run is finished, False if it was interrupted; the same call goes on.

    Raises:
        InputError: for bad settings, data or folder, before anything is written.
        Diverged: if loss or gradient stop being finite; the last good checkpoint stays.
    """
    config = complete(config)
    settings = config.to_dict()
    resumed = checkpoint.begun(workdir, settings, differences)
    if resumed and checkpoint.steps_reported(workdir) >= config.train.steps:
        say(f"This run is finished already.\n{_hint(workdir)}")
        return True
    experiment = build(config)
    setup = experiment.setup
    mesh = device_mesh(setup.batch)
    resident = lives_on_device(experiment, mesh)
    say(describe(experiment, mesh, resident))
    begin = partial(
        checkpoint.begin, workdir, settings, size=(config.train.keep + 2) * checkpoint.num_bytes(experiment.state)
    )
    if not resumed:
        begin()

    step = make_step(setup, mesh, resident=resident)
    state = place(mesh, experiment.state)
    with (
        checkpoint.writing(workdir),
        checkpoint.manager(workdir, keep=config.train.keep) as checkpoints,
        _until_signalled() as stop,
    ):
        if checkpoints.latest_step() is not None:
            state = checkpoint.restore(checkpoints, state)
            say(f"Going on from step {int(state.step)}.")
        if resumed:
            begin()  # not before the checkpoint is known to be good
        first = int(state.step)
        with logs.open_logs(
            workdir / checkpoint.METRICS,
            workdir / checkpoint.TENSORBOARD,
            first=first,
            steps=config.train.steps,
            batch=setup.batch,
        ) as write:

            def save(state):
                scores = validate(experiment, state)
                write(int(state.step), "val", scores)
                checkpoint.save(checkpoints, state, settings, scores)

            try:
                state = fit(
                    step,
                    state,
                    _images(experiment, mesh, resident, first),
                    steps=config.train.steps,
                    log_every=config.train.log_every,
                    save_every=config.train.save_every,
                    on_log=lambda i, values: write(i, "train", values),
                    on_save=save,
                    stop=stop,
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
    if int(state.step) < config.train.steps:
        say(f"Interrupted at step {int(state.step)}; it is saved in {workdir}. The same command goes on from there.")
        return False
    with checkpoint.writing(workdir):
        report(experiment, state, workdir, say=say)
    return True


def lives_on_device(experiment: Experiment, mesh: Mesh) -> bool:
    """Whether the training images stay on each device, by `config.data.placement`."""
    placement = experiment.config.data.placement
    if placement != "auto":
        return placement == "device"
    size = experiment.dataset.train.images.nbytes
    device = mesh.devices.flat[0]
    if device.platform == "cpu":  # devices share the host's memory, and each has its copy
        return size * mesh.devices.size <= psutil.virtual_memory().available / 4
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)  # not every platform tells
    return size <= limit / 4


def _images(experiment: Experiment, mesh: Mesh, resident: bool, first: int) -> Iterator[jax.Array]:
    images = experiment.dataset.train.images
    if resident:
        everywhere = place(mesh, images)
        while True:
            yield everywhere
    key_order, _ = keys(experiment.setup)
    batch = experiment.setup.batch
    yield from stream(images, key_order, first_step=first, batch=batch, put=partial(place, mesh, spec=SPREAD))


def validate(experiment: Experiment, state: TrainState) -> dict[str, float]:
    """Means over the validation images and the reported lambdas: "loss" and the metrics."""
    images = experiment.dataset.val.images
    count = min(len(images), experiment.config.train.validation_images)
    chosen = images[np.linspace(0, len(images) - 1, count).astype(int)]
    scores, _ = experiment.score(_variables(state), chosen, experiment.lams, experiment.key_validation)
    return {name: _mean(values) for name, values in scores.items()}


def _mean(values: np.ndarray) -> float:
    """The mean over images, but for infinite PSNRs, of black images that are matched exactly; 100 dB if all are."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else 100.0


def _variables(state: TrainState) -> Tree:
    """The model's variables on one device, out of the mesh."""
    return jax.device_put({"params": state.params, "batch_stats": state.batch_stats}, jax.local_devices()[0])


@contextlib.contextmanager
def _until_signalled() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM only makes the yielded function true; a second one acts as ever."""
    received = []
    previous: dict[int, Any] = {}

    def handle(number, frame):
        received.append(number)
        # not print: the signal may have come in the middle of one
        os.write(2, b"\nStopping after this step; the state will be saved. (Again to stop at once.)\n")
        restore()

    def restore():
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, handle)
    try:
        yield lambda: bool(received)
    finally:
        restore()


# What the user is told.


def describe(experiment: Experiment, mesh: Mesh, resident: bool) -> str:
    """What will run, in a few lines."""
    config, params = experiment.config, experiment.state.params
    sizes = [len(split.images) for split in experiment.dataset]
    h, w = experiment.dataset.train.images.shape[1:3]
    epochs = config.train.steps * config.train.batch / sizes[0]
    count = parameter_counts(experiment)
    where = "on each device" if resident else "streamed from the host"
    return "\n".join(
        [
            f"task      {config.task.name}, loss {' + '.join(config.loss.terms)}, scales {config.loss.scales}",
            f"data      {sizes[0]} training, {sizes[1]} validation, {sizes[2]} test images of {h} x {w}, {where}",
            f"model     hypernetwork {count['hypernetwork']:,} parameters, main network {count['main_network']:,};"
            f" {count_parameters(params):,} are trained",
            f"training  {config.train.steps} steps of {config.train.batch} images ({epochs:.1f} epochs)"
            f" on {mesh.devices.size} {mesh.devices.flat[0].platform} device{'s' * (mesh.devices.size > 1)}",
        ]
    )


def parameter_counts(experiment: Experiment) -> dict[str, int]:
    """Parameters of the hypernetwork, of the main network whose weights it generates, and those that are trained."""
    params = experiment.state.params
    theta = jax.eval_shape(partial(generate_weights, experiment.setup.model), params, jnp.asarray(experiment.lams[0]))
    return {
        "hypernetwork": count_parameters(params["hyper"]),
        "main_network": count_parameters(theta),
        "trained": count_parameters(params),
    }


def report(experiment: Experiment, state: TrainState, workdir: Path, *, say: Say) -> None:
    """Score the test set, write `summary.json` and the picture, tell the user."""
    say("Scoring the test set ...")
    images = experiment.dataset.test.images
    scores, of_input = experiment.score(_variables(state), images, experiment.lams, experiment.key_test)
    del scores["loss"]
    rows = {
        lam_name(lam): {
            **{name: _mean(values[i]) for name, values in scores.items()},
            **{f"input_{name}": _mean(values) for name, values in of_input.items()},
        }
        for i, lam in enumerate(experiment.lams)
    }
    seconds = max((row["seconds"] for row in logs.read_rows(workdir / checkpoint.METRICS)), default=0.0)
    peak = peak_memory()
    draw(experiment, state, scores, of_input, workdir / checkpoint.PICTURE)
    summary = {
        "test": rows,
        "test_images": len(images),
        "parameters": parameter_counts(experiment),
        "steps": int(state.step),
        "seconds": seconds,
        "peak_memory_bytes": peak,
    }
    checkpoint.write_json(workdir / checkpoint.SUMMARY, summary)
    say(table(rows))
    say(f"{int(state.step)} steps in {logs.duration(seconds)}, peak memory {peak / 2**30:.1f} GiB.")
    say(_hint(workdir))


def table(rows: dict[str, dict[str, float]]) -> str:
    """The test scores as text: the input, then a line for each lambda."""
    names = [name for name in next(iter(rows.values())) if not name.startswith("input_")]
    first = next(iter(rows.values()))
    lines = [f"{'lambda':>10}" + "".join(f"{name:>10}" for name in names)]
    lines.append(f"{'input':>10}" + "".join(f"{first[f'input_{name}']:10.4f}" for name in names))
    for lam, row in rows.items():
        lines.append(f"{lam:>10}" + "".join(f"{row[name]:10.4f}" for name in names))
    return "\n".join(lines)


def _hint(workdir: Path) -> str:
    return (
        f"Look at {workdir / checkpoint.PICTURE}; the figures are in {workdir / checkpoint.SUMMARY}.\n"
        f"Next: tensorboard --logdir {workdir / checkpoint.TENSORBOARD} (pip install tensorboard), or the paper's size with"
        " python -m bin.train --config configs/csmri_supervised_4x.py --dry-run"
    )


def draw(experiment: Experiment, state: TrainState, scores: Tree, of_input: Tree, path: Path) -> None:
    """The picture of a run."""
    setup, split = experiment.setup, experiment.dataset.test
    chosen = _pictured(split.subjects)
    truth = jnp.asarray(split.images[chosen])
    y = jax.jit(partial(evaluate.measure, setup.observe))(experiment.key_test, truth, chosen)
    x_hat = evaluate.reconstructions(setup.model, setup.operator, _variables(state), y, experiment.lams)
    terms = experiment.config.loss.terms
    figures.reconstructions(
        path,
        truth=np.asarray(truth)[..., 0],
        inputs=np.asarray(magnitude(setup.operator.lift(y)))[..., 0],
        x_hat=np.asarray(x_hat)[..., 0],
        titles=[lam_title(lam, terms) for lam in experiment.lams],
        input_scores=[(of_input["psnr"][i], of_input["ssim"][i]) for i in chosen],
        scores=[[(scores["psnr"][j, i], scores["ssim"][j, i]) for i in chosen] for j in range(len(experiment.lams))],
        heading="One network, a reconstruction for every lambda: unseen test images",
    )


def _pictured(subjects: np.ndarray) -> np.ndarray:
    """Indices of up to `PICTURED` images, the middle slices of different subjects where there are enough."""
    known = np.unique(subjects)
    picked = known[np.linspace(0, len(known) - 1, min(PICTURED, len(known))).astype(int)]
    return np.array([np.flatnonzero(subjects == subject)[np.sum(subjects == subject) // 2] for subject in picked])


def peak_memory() -> int:
    """Bytes: of the accelerator where there is one, else of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def dry_run(config: ConfigDict, *, say: Say = print) -> None:
    """Build everything, take a few real steps, and say what `run` would do and how long it would take."""
    experiment = build(config)
    setup, steps = experiment.setup, experiment.config.train.steps
    mesh = device_mesh(setup.batch)
    resident = lives_on_device(experiment, mesh)
    say(describe(experiment, mesh, resident))
    state = place(mesh, experiment.state)
    images = _images(experiment, mesh, resident, 0)
    step = make_step(setup, mesh, resident=resident)
    took = []
    for _ in range(4):
        batch = next(images)
        start = time.monotonic()
        state, logged = step(state, batch)
        jax.block_until_ready(logged)
        took.append(time.monotonic() - start)
    each = statistics.median(took[1:])
    say(
        f"time      first step {took[0]:.1f} s (it compiles), then {each:.2f} s a step, {setup.batch / each:.1f} images/s:"
        f" about {logs.duration(took[0] + each * steps)} for training"
    )
    say(f"memory    {peak_memory() / 2**30:.1f} GiB at the peak of these steps")
    say("No run was begun. Leave out --dry-run to train.")
