"""Choose lambda for a run by a score, and measure what the choice is worth on the test images.

Either one lambda is chosen on the validation images, or a separate one for each test image. The score may be a
metric. It needs the reference images, so this is an upper bound for any choice. Or the score is "held_out", which needs
none: k-space is withheld from the network (`choose.withhold`), and its reconstruction must predict it.

    RUN/choice-METRIC.json              one lambda for all images
    RUN/choice-METRIC-per_image.json    a lambda for each image

With another acquisition than that of the run, the names end with it.

Both files hold the choice and its worth: the mean metric of the test images at the choice, at the middle of the range (0.5,
without any choice), at the best lambda of a grid, and at the best lambda of the grid for each image. For each of these they
hold the regret: how far it is behind the best lambda of the grid, with an interval over subjects. The grid is that of
RUN/evaluation, which `load_or_evaluate` makes if it is missing; its best is found on the test images themselves.
"""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from ml_collections import ConfigDict
from tqdm import tqdm

from hyperrecon_jax.commands.evaluate import is_of_images, load_or_evaluate
from hyperrecon_jax.data import Samples, evenly_spaced, subset
from hyperrecon_jax.evaluation import scores, scoring
from hyperrecon_jax.evaluation.choose import Score, best_lambda, for_each, mean_value, partition, prediction, withhold
from hyperrecon_jax.losses.metric_table import FULL_REFERENCE, METRICS, average, bound, function_to_maximize
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import reconstruct
from hyperrecon_jax.physics.acquisition import Acquisition, describe_excess
from hyperrecon_jax.physics.net_input import NetInput
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.acquisitions import format_acquisition, parse_acquisition
from hyperrecon_jax.runs.labels import lam_label
from hyperrecon_jax.runs.load import TrainedRun, load_run, read_config
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runs.task import make_mask, trained_range
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

Tree = Any

HELD_OUT = "held_out"
CRITERIA = (*FULL_REFERENCE, HELD_OUT)
REPORT_METRICS = ("psnr", "ssim")  # metrics that are reported for a choice by held-out k-space
VALIDATION = 256  # images, evenly spaced over the split, on which one lambda is chosen; more would not change it
IMAGES_PER_CALL = 8  # test images in one call


class PerImage(NamedTuple):
    """A choice for each of n images."""

    lams: np.ndarray  # (n, K-1)
    value: float  # mean of the maximised scores
    scores: dict[str, np.ndarray]  # (n,) for each reported metric


def choose(
    run: Path,
    *,
    metric: str = "psnr",
    per_image: bool = False,
    fraction: float = 0.1,
    acquisition: str | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Choose lambda, and write the file of the module's docstring.

    Args:
        run: the folder of a run that reconstructs for more than one lambda.
        metric: one of `CRITERIA`.
        per_image: choose a lambda for each test image, instead of one on the validation images.
        fraction: the part to withhold for "held_out", as in `evaluation.choose.partition`.
        acquisition: how images are measured, as in `parse_acquisition`; None: as in `evaluate`.
        say: gets the lines to show.

    Returns:
        The content of the file. "value" is what was maximised: for an error, its negative.

    Raises:
        InputError: if there is no such run or metric, or they do not fit; before any long work.
    """
    if metric not in CRITERIA:
        raise InputError(f"`metric` must be one of {', '.join(CRITERIA)}, got {metric!r}.")
    config = read_config(run)
    chosen = None if acquisition is None else parse_acquisition(acquisition, config)
    for folder in (run, run / "evaluation"):
        paths.check_folder(folder, argument="The folder", advice="copy the run to a folder of your own")
    _check_task(run, config, metric)
    trained = load_run(run, splits=("val", "test"), acquisition=chosen)
    if metric == HELD_OUT:
        _check_samples(run, trained, fraction)
    for sentence in describe_excess(trained_range(config), chosen) if chosen else []:
        say(sentence)
    parts = [metric, *(["per_image"] if per_image else []), *([format_acquisition(chosen)] if chosen else [])]
    path = run / f"choice-{'-'.join(parts)}.json"
    with run_folder.lock(run, f".{path.name}.lock"):
        result = _choose(run, trained, metric, per_image, fraction, chosen, say=say)
        with run_folder.explain_write_errors(run):
            run_folder.write_json(path, result)
    say(format_table(result))
    say(f"All of it is in {path}; it took {logs.duration(result['seconds'])}.")
    return result


def _choose(
    run: Path,
    trained: TrainedRun,
    metric: str,
    per_image: bool,
    fraction: float,
    acquisition: Acquisition | None,
    *,
    say: Say,
) -> dict[str, Any]:
    """The choice and its worth: the content of the file."""
    report_metrics = REPORT_METRICS if metric == HELD_OUT else (metric,)
    grid_scores = _grid_scores(run, trained, report_metrics, acquisition, say=say)
    start = time.monotonic()
    samples = subset(trained.dataset.test.samples, grid_scores["image"].values)
    if per_image:
        say(f"Choosing a lambda for each of {samples.size} test images by {metric} ...")
        choice = _choose_per_image(trained, samples, metric, fraction, report_metrics)
        lams, value = choice.lams, choice.value
        worth = _evaluate_choice(trained, samples, grid_scores, per_image=choice)
    else:
        val = trained.dataset.val.samples
        val = subset(val, evenly_spaced(val.size, VALIDATION))
        say(f"Choosing lambda on {val.size} validation images by {metric} ...")
        lams, value = _choose_for_all(trained, val, metric, fraction)
        worth = _evaluate_choice(trained, samples, grid_scores, lam=lams)
    return {
        "run": str(run),
        "metric": metric,
        "per_image": per_image,
        **({"fraction": fraction} if metric == HELD_OUT else {}),
        **({"acquisition": format_acquisition(acquisition)} if acquisition else {}),
        "lambda": _round_lams(lams),
        "value": value,
        "test_images": samples.size,
        "test": worth,
        "seconds": time.monotonic() - start,
    }


def format_table(result: dict[str, Any]) -> str:
    """The result of `choose` as text."""
    separate = "each its own"
    lines = [f"{'test images':<12}{'lambda':<16}{'mean':>10}{'regret':>10}  95 % interval over subjects"]
    for name, worth in result["test"].items():
        lams = {
            "chosen": separate if result["per_image"] else lam_label(np.asarray(result["lambda"])),
            "middle": lam_label(np.asarray(worth["middle"]["lambda"])),
            "best": lam_label(np.asarray(worth["best"]["lambda"])),
            "best_per_image": separate,
        }
        lines.append(name)
        for kind, lam in lams.items():
            row = worth[kind]
            interval = f"{row['low']:.4f} to {row['high']:.4f}" if kind != "best" else "(on the test images)"
            lines.append(f"{kind.partition('_')[0]:<12}{lam:<16}{row['mean']:10.4f}{row['regret']:10.4f}  {interval}")
    return "\n".join(lines)


def score_function(metric: str) -> Score:
    """A criterion as a score of `evaluation.choose`: higher is better, and its gradient is finite."""
    return prediction if metric == HELD_OUT else function_to_maximize(metric)


def _check_task(run: Path, config: ConfigDict, metric: str) -> None:
    """Raise `InputError` if no lambda can be chosen for the run, or not by k-space; before its data are loaded."""
    has_lambdas = config.model.hyper_width or config.lam.sampling == "ensemble"
    if config.task.name == "segmentation" or not has_lambdas or len(config.loss.terms) < 2:
        raise InputError(
            f"{run} must hold a run that reconstructs for more than one lambda; in this one none can be chosen."
        )
    if metric == HELD_OUT and config.task.name != "csmri":
        raise InputError(f"{HELD_OUT} needs k-space to withhold, got a run of the task {config.task.name!r}.")


def _check_samples(run: Path, trained: TrainedRun, fraction: float) -> None:
    """Raise `InputError` if no part of the k-space of the test images can be withheld."""
    shape = trained.dataset.test.samples.example.image.shape[:2]
    _, withheld = partition(jax.random.key(0), make_mask(trained.config, shape), fraction=fraction)
    if not withheld.any():
        raise InputError(f"{HELD_OUT} needs samples outside of the fully sampled centre, but {run} has none.")


def _grid_scores(
    run: Path, trained: TrainedRun, metrics: Sequence[str], acquisition: Acquisition | None, *, say: Say
) -> xr.Dataset:
    """The scores of the test images on the grid of the run's evaluation."""
    ds = load_or_evaluate(run, acquisition=acquisition, say=say)
    flag = f" --acquisition {format_acquisition(acquisition)}" if acquisition else ""
    command = f"hyperrecon evaluate --run {shlex.quote(str(run))}{flag}"
    if not is_of_images(ds, trained.dataset.test.samples):
        raise InputError(adapt(f"The evaluation of {run} must be that of its test images, got other images: {command}"))
    for name in metrics:
        if name not in ds:
            raise InputError(adapt(f"The evaluation of {run} must have {name}: {command} --metrics {name}"))
    return ds[[*metrics]]


def _start_lams(trained: TrainedRun) -> np.ndarray:
    """Lambdas to climb from, `(s, K-1)`: a grid, or the members of an ensemble.

    The grid is fine, because a network with kinks has small hills: from 5 x 5 points a test image's PSNR was 0.02 dB lower
    than from 11 x 11, for any number of steps.
    """
    if trained.model.members:
        return np.array(trained.model.members, np.float32)
    count = len(trained.config.loss.terms) - 1
    return np.asarray(hyperparams.grid(11 if count < 3 else 4, count))


def _input_maker(trained: TrainedRun, metric: str, fraction: float) -> Callable[..., tuple[NetInput, NetInput, Tree]]:
    """A compiled function of a key, samples and their indices.

    It returns the network's input from the whole measurement, the input that lambda is chosen by, and the score's target.
    """
    problem = trained.problem

    @jax.jit
    def make_inputs(key, samples, index):
        y = scoring.observe_samples(problem, key, samples, index)
        net_input = jax.vmap(problem.to_net_input)(y)
        if metric != HELD_OUT:
            return net_input, net_input, samples.image
        # fold_in 1: a key different from that of the noise
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, i), 1))(index)
        split = partial(withhold, fraction=fraction, uses_physics=trained.config.model.network == "unrolled")
        return net_input, *jax.vmap(split)(keys, y)

    return make_inputs


def _choose_for_all(trained: TrainedRun, samples: Samples, metric: str, fraction: float) -> tuple[np.ndarray, float]:
    """The best lambda `(K-1,)` for all samples, and its value."""
    index = np.arange(samples.size)
    make_inputs = _input_maker(trained, metric, fraction)
    _, net_input, targets = make_inputs(trained.keys.validation, samples.take(index), index)

    @jax.jit
    def maximize(variables, net_input, targets, starts):
        value = mean_value(trained.model, variables, score_function(metric), net_input, targets)
        return best_lambda(value, starts, steps=20)

    lam, value = maximize(trained.variables, net_input, targets, _start_lams(trained))
    return np.asarray(lam), float(value)


def _choose_per_image(
    trained: TrainedRun, samples: Samples, metric: str, fraction: float, report_metrics: Sequence[str]
) -> PerImage:
    """The best lambda of each sample, and the metrics of its reconstruction."""
    make_inputs, model = _input_maker(trained, metric, fraction), trained.model
    starts = _start_lams(trained)

    @jax.jit
    def maximize(variables, whole_input, net_input, targets, x):
        lams, values = for_each(model, variables, score_function(metric), net_input, targets, starts)
        x_hat = jax.vmap(partial(reconstruct, model, variables))(lams, whole_input)
        return lams, values, {name: FULL_REFERENCE[name](x_hat, x) for name in report_metrics}

    count, batches = samples.size, []
    size = min(count, IMAGES_PER_CALL)
    interval = 0.2 if sys.stderr.isatty() else 30  # seconds: in a log file each update is a line
    options: dict[str, Any] = {"desc": "choosing", "unit_scale": size, "unit": " images", "mininterval": interval}
    for start in tqdm(range(0, count, size), file=sys.stderr, **options):
        index = np.arange(start, start + size) % count  # the last batch is filled up with images that are dropped below
        batch = samples.take(index)
        whole_input, net_input, targets = make_inputs(trained.keys.test, batch, index)
        batches.append(jax.device_get(maximize(trained.variables, whole_input, net_input, targets, batch.image)))
    lams, values, image_scores = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *batches)
    return PerImage(lams, float(values.mean()), image_scores)


def _evaluate_choice(
    trained: TrainedRun,
    samples: Samples,
    ds: xr.Dataset,
    *,
    lam: np.ndarray | None = None,
    per_image: PerImage | None = None,
) -> dict[str, Any]:
    """The mean of each metric over the test images at the choice, and at the lambdas that it is compared with.

    Args:
        trained: the run.
        samples: n test images.
        ds: their scores on a grid, with the metrics to report.
        lam: one choice for all images, `(K-1,)`; or None.
        per_image: one choice for each image; or None. Exactly one of the two is given.
    """
    names = [str(name) for name in ds.data_vars]
    axes = [ds[f"lam_{k}"].values for k in range(1, len(ds[names[0]].dims))]
    grid, middle = hyperparams.product(axes), np.full(len(axes), 0.5, np.float32)
    scorer = scoring.Scorer(trained.model, trained.objective, trained.problem, names=names)
    lams = np.stack([middle] if lam is None else [middle, lam])
    values, _ = scorer.run(trained.variables, samples, lams, trained.keys.test)
    worth = {}
    for name in names:
        sign = METRICS[name].sign
        on_grid = ds[name].transpose(..., "image").values.reshape(len(grid), -1)
        best = int(np.argmax([sign * average(name, row) for row in on_grid]))
        rows = {
            "chosen": (lam, values[name][1] if per_image is None else per_image.scores[name]),
            "middle": (middle, values[name][0]),
            "best": (grid[best], on_grid[best]),
            "best_per_image": (None, sign * (sign * on_grid).max(0)),
        }
        worth[name] = {
            kind: {
                **({} if row_lam is None else {"lambda": _round_lams(row_lam)}),
                "mean": average(name, row),
                **_regret(sign * (bound(name, on_grid[best]) - bound(name, row)), ds["subject"].values),
            }
            for kind, (row_lam, row) in rows.items()
        }
    return worth


def _regret(gaps: np.ndarray, subjects: np.ndarray) -> dict[str, float]:
    """The mean of gaps over images `(n,)`, and its interval over subjects."""
    ds = xr.Dataset({"regret": ("image", gaps)}, {"subject": ("image", subjects)})
    regret = scores.summarize(ds)["regret"]
    return {
        "regret": float(regret.sel(statistic="mean")),
        "low": float(regret.sel(statistic="low")),
        "high": float(regret.sel(statistic="high")),
    }


def _round_lams(lams: np.ndarray) -> Any:
    """Lambdas for JSON, with four digits: more do not change a reconstruction."""
    return np.round(lams.astype(float), 4).tolist()
