"""What the user is told of a run: what it will be, its test scores, its picture, and what to do next."""

import math
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from hyperrecon_jax.evaluation import scoring
from hyperrecon_jax.losses.metric_table import average
from hyperrecon_jax.models.model import count_parameters, network_at
from hyperrecon_jax.physics.operators import magnitude
from hyperrecon_jax.physics.sample import LABELS
from hyperrecon_jax.runs import checkpoint, logs
from hyperrecon_jax.runs.config import AUTO
from hyperrecon_jax.runs.experiment import Experiment, regions
from hyperrecon_jax.runs.names import lam_name, lam_title
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.mesh import gather
from hyperrecon_jax.training.gradient import is_separable
from hyperrecon_jax.training.step import TrainState, uses_dhs

Tree = Any
Say = Callable[[str], None]
BINS = 10  # of DHS's histogram, for each lambda
PICTURED = 3  # test slices in the picture


def means(scores: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of each metric over images, if it is finite: a region that no image shows has no Dice score."""
    averages = {name: average(name, values) for name, values in scores.items()}
    return {name: value for name, value in averages.items() if math.isfinite(value)}


def variables(state: TrainState) -> Tree:
    """The model's variables on one device, out of the mesh."""
    return jax.device_put(gather({"params": state.params, "batch_stats": state.batch_stats}), jax.local_devices()[0])


def describe(experiment: Experiment, mesh: Mesh, resident: bool) -> str:
    """What will run, in a few lines."""
    config = experiment.config
    sizes = [split.samples.size for split in experiment.dataset]
    h, w = experiment.dataset.train.samples.example.image.shape[:2]
    epochs = config.train.steps * config.train.batch / sizes[0]
    count = parameter_counts(experiment)
    stored = experiment.dataset.train.samples.arrays is None
    where = "on each device" if resident else f"streamed from {'disk' if stored else 'the host'}"
    origin = "found first, by a U-Net for each loss alone" if config.loss.ground_truth else "from a pilot"
    scales = origin if config.loss.scales == AUTO else config.loss.scales
    return "\n".join(
        [
            f"task      {config.task.name}, loss {' + '.join(config.loss.terms)}, scales {scales}",
            f"data      {sizes[0]} training, {sizes[1]} validation, {sizes[2]} test images of {h} x {w}, {where}",
            f"model     {_networks(experiment)}; {count['trained']:,} parameters are trained",
            f"training  {config.train.steps} steps of {config.train.batch} images ({epochs:.1f} epochs)"
            f" on {_devices(mesh)}",
            f"sampling  {_sampling(experiment, mesh)}",
        ]
    )


def _networks(experiment: Experiment) -> str:
    count, members = parameter_counts(experiment), experiment.setup.model.members
    if members:
        together = experiment.setup.members_at_once
        at_once = "all at once" if together == len(members) else f"{together} at a time"
        return f"{len(members)} networks of {count['main_network']:,} parameters, one for each lambda, trained {at_once}"
    if not count["hypernetwork"]:
        return f"network of {count['main_network']:,} parameters"
    return f"hypernetwork of {count['hypernetwork']:,} parameters, main network of {count['main_network']:,}"


def _devices(mesh: Mesh) -> str:
    used, there = mesh.devices.size, jax.device_count()
    text = f"{used} {mesh.devices.flat[0].platform} device{'s' * (used > 1)}"
    text += f" of {distributed.process_count()} processes" if distributed.process_count() > 1 else ""
    if used == there:
        return text
    return f"{text} of {there}, since config.train.batch (and what DHS keeps, of each) must be a multiple of their number"


def _sampling(experiment: Experiment, mesh: Mesh) -> str:
    """Which lambdas train, and how DHS takes its gradient."""
    setup, config, devices = experiment.setup, experiment.config, mesh.devices.size
    drawn = f"lambda {config.lam.sampling}" if len(config.loss.terms) > 1 else "no lambda"
    if not uses_dhs(setup):
        return f"{drawn}, every sample of a batch trains (UHS)"
    by = "J" if setup.rank == "absolute" else "J / ||y||^2"
    if is_separable(setup.model, experiment.state.batch_stats):
        how = "they alone are pulled back"
    else:
        how = "the others are masked in a full backward pass, since the norm or shared weights couple the samples"
    if setup.plan.rank_over == "device" and devices > 1:
        of, keep = f"{setup.batch // devices} samples on each of {devices} devices", setup.keep // devices
    else:
        of, keep = f"{setup.batch} samples", setup.keep
    return f"{drawn}, of {of} the {keep} of lowest {by} train (DHS); {how}"


def parameter_counts(experiment: Experiment) -> dict[str, int]:
    """Parameters of the hypernetwork, of the main network whose weights it generates, and those that are trained."""
    params = experiment.state.params
    everything = {"params": params, "batch_stats": experiment.state.batch_stats}
    theta, _ = jax.eval_shape(partial(network_at, experiment.setup.model), everything, jnp.asarray(experiment.lams[0]))
    return {
        "hypernetwork": count_parameters(params["hyper"]),
        "main_network": count_parameters(theta),
        "trained": count_parameters(params),
    }


def finish(experiment: Experiment, state: TrainState, workdir: Path, *, say: Say) -> None:
    """Score the test set; on the first host write `summary.json` and the picture and tell the user."""
    say("Scoring the test set ...")
    samples = experiment.dataset.test.samples
    found = variables(state)  # all hosts take part in it
    scores, of_input = experiment.score.run(found, samples, experiment.lams, experiment.key_test)
    if not distributed.is_primary():
        return
    del scores["loss"]
    rows = {
        lam_name(lam): {
            **means({name: values[i] for name, values in scores.items()}),
            **{f"input_{name}": value for name, value in means(of_input).items()},  # without its gain, which is 0
        }
        for i, lam in enumerate(experiment.lams)
    }
    seconds = max((row["seconds"] for row in logs.read_rows(workdir / checkpoint.METRICS)), default=0.0)
    peak = peak_memory()
    draw(experiment, found, scores, of_input, workdir / checkpoint.PICTURE)
    kept = logs.read_rows(workdir / checkpoint.LAMBDAS, needs=("step",)) if len(experiment.config.loss.terms) > 1 else []
    if kept:
        histogram(experiment, kept, workdir)
    summary = {
        "test": rows,
        "test_images": samples.size,
        "parameters": parameter_counts(experiment),
        "steps": int(state.step),
        "seconds": seconds,
        "peak_memory_bytes": peak,
    }
    checkpoint.write_json(workdir / checkpoint.SUMMARY, summary)
    say(table(rows))
    say(f"{int(state.step)} steps in {logs.duration(seconds)}, peak memory {peak / 2**30:.1f} GiB.")
    if kept:
        say(f"Which lambdas DHS trained on, epoch by epoch, is in {workdir / checkpoint.HISTOGRAM} and the .png beside it.")
    say(hint(experiment.config, workdir))


def histogram(experiment: Experiment, rows: list[dict[str, Any]], workdir: Path) -> None:
    """Save the histogram of the lambdas that counted, epoch by epoch (Fig. 4), as numbers and as a picture.

    The numbers: `counts`, `(epochs, bins)` for one lambda, `(epochs, bins, bins)` for the first two of more, lambda_1
    first; `edges`, `(bins + 1,)`. An epoch is as many samples as there are training images; the last may be cut short.
    """
    from hyperrecon_jax import figures  # here, because Matplotlib is slow to import

    setup = experiment.setup
    epoch = np.array([(row["step"] - 1) * setup.batch // experiment.dataset.train.samples.size for row in rows])
    lams = np.array([row["lams"] for row in rows])[..., :2]  # (steps, keep, 1 or 2)
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.stack(
        [
            np.histogramdd(lams[epoch == i].reshape(-1, lams.shape[-1]), bins=[edges] * lams.shape[-1])[0].astype(int)
            for i in range(epoch[-1] + 1)
        ]
    )
    path = workdir / checkpoint.HISTOGRAM
    np.savez(path, counts=counts, edges=edges)
    figures.lambda_histogram(path.with_suffix(".png"), counts=counts, edges=edges)


def table(rows: dict[str, dict[str, float]]) -> str:
    """The test scores as text: the input, then a line for each lambda."""
    names = [name for name in next(iter(rows.values())) if not name.startswith("input_")]
    first = next(iter(rows.values()))
    widths = {name: max(10, len(name) + 2) for name in names}
    lines = [f"{'lambda':>10}" + "".join(f"{name:>{width}}" for name, width in widths.items())]
    if any(name.startswith("input_") for name in first):
        values = ((first.get(f"input_{name}", 0.0), width) for name, width in widths.items())
        lines.append(f"{'input':>10}" + "".join(f"{value:{width}.4f}" for value, width in values))
    for lam, row in rows.items():
        lines.append(f"{lam:>10}" + "".join(f"{row.get(name, math.nan):{width}.4f}" for name, width in widths.items()))
    return "\n".join(lines)


def hint(config: ConfigDict, workdir: Path) -> str:
    """Where the results are, and what to do next."""
    larger = "paper_csmri_supervised_4x" if config.loss.ground_truth else "paper_csmri_ao_8x"
    if config.task.name == "segmentation":
        larger = "paper_segment"
    movable = config.model.hyper_width and config.task.name != "segmentation"
    explore = f"hyperrecon explore --run {workdir} to move lambda and look; " if movable else ""
    return adapt(
        f"Look at {workdir / checkpoint.PICTURE}; the figures are in {workdir / checkpoint.SUMMARY}.\n"
        f"Next: {explore}tensorboard --logdir {workdir / checkpoint.TENSORBOARD} (pip install tensorboard); or the paper's"
        f" size with hyperrecon train --config {larger} --dry-run"
    )


def draw(experiment: Experiment, variables: Tree, scores: Tree, of_input: Tree, path: Path) -> None:
    """The picture of a run."""
    from hyperrecon_jax import figures  # here, because Matplotlib is slow to import

    setup, split = experiment.setup, experiment.dataset.test
    chosen = pictured(split.subjects)
    truth = split.samples.take(chosen)
    net_input = scoring.make_net_inputs(setup.problem, experiment.key_test, truth, chosen)
    x_hat = scoring.reconstruct_at_lambdas(setup.model, variables, net_input, experiment.lams)
    if experiment.config.task.name == "segmentation":
        figures.segmentations(
            path,
            images=truth.image[..., 0],
            truth=np.asarray(truth.label),
            predicted=np.asarray(regions(x_hat[0])),
            names=LABELS,
            dice=scores["dice"][0, chosen],
        )
        return
    terms = experiment.config.loss.terms
    figures.reconstructions(
        path,
        truth=truth.image[..., 0],
        inputs=np.asarray(magnitude(net_input))[..., 0],
        x_hat=np.asarray(x_hat)[..., 0],
        titles=[lam_title(lam, terms) for lam in experiment.lams],
        input_scores=[(of_input["psnr"][i], of_input["ssim"][i]) for i in chosen],
        scores=[[(scores["psnr"][j, i], scores["ssim"][j, i]) for i in chosen] for j in range(len(experiment.lams))],
        heading="One network, a reconstruction for every lambda: unseen test images",
    )


def pictured(subjects: np.ndarray) -> np.ndarray:
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
