"""Choose lambda for a run by a number, and say what the choice is worth on the test images.

One lambda is chosen on the validation images; or, per image, one for each test image: by a metric against the truth, which
is what no choice exceeds, or without the truth by k-space that is withheld from the network (`choose.withhold`).

    RUN/choice-METRIC.json              of one lambda for all images
    RUN/choice-METRIC-per_image.json    of a lambda for each

Both hold the choice and what it is worth: the mean metric of the test images at it, at the middle of the range (0.5, which
is no choice), at the best lambda of a grid and at each image's own best of the grid; and for each the regret, how far it is
behind the best of the grid, with its interval over subjects. The grid is that of RUN/evaluation, which `evaluate_run` makes
if it is not there; its best is found on the test images themselves.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from tqdm import tqdm

from hyperrecon_jax.commands.evaluate import evaluated
from hyperrecon_jax.data import Samples, evenly_spaced, subset
from hyperrecon_jax.evaluation import choose, scores, scoring
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import reconstruct
from hyperrecon_jax.runs import checkpoint, logs, report
from hyperrecon_jax.runs.experiment import Experiment, load, make_mask
from hyperrecon_jax.runs.names import lam_name
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

Tree = Any

HELD_OUT = "held_out"
METRICS = (*scoring.FULL_REFERENCE, HELD_OUT)
JUDGES = ("psnr", "ssim")  # what a choice without the truth is worth
VALIDATION = 256  # images, spread over the split, on which one lambda is chosen; more would not move it
AT_ONCE = 8  # test images in one call


def choose_run(
    run: Path, *, metric: str = "psnr", per_image: bool = False, fraction: float = 0.1, say: Say = print
) -> dict[str, Any]:
    """Choose lambda and write the module's file.

    Args:
        run: the folder of a run that reconstructs for more than one lambda.
        metric: one of `METRICS`.
        per_image: a lambda for each test image, instead of one from the validation images.
        fraction: for "held_out", that of `choose.partition`.

    Returns:
        The content of the file; "value" is what was maximised, an error's negative.

    Raises:
        InputError: if there is no such run or metric, or the run cannot be asked for it; before any long work.
    """
    if metric not in METRICS:
        raise InputError(f"`metric` must be one of {', '.join(METRICS)}, got {metric!r}.")
    experiment, state = load(run)
    _check(run, experiment, metric, fraction)
    judges = JUDGES if metric == HELD_OUT else (metric,)
    ds = evaluated(run, say=say)
    for name in judges:
        if name not in ds:
            raise InputError(
                adapt(f"The evaluation of {run} must have {name}: hyperrecon evaluate --run {run} --metrics {name}")
            )
    begun = time.monotonic()
    variables = report.variables(state)
    samples = subset(experiment.dataset.test.samples, ds["image"].values)
    if per_image:
        say(f"Choosing a lambda for each of {samples.size} test images by {metric} ...")
        lams, value, by = _per_image(experiment, variables, samples, metric, fraction, judges)
    else:
        val = experiment.dataset.val.samples
        val = subset(val, evenly_spaced(val.size, VALIDATION))
        say(f"Choosing lambda on {val.size} validation images by {metric} ...")
        (lams, value), by = _one(experiment, variables, val, metric, fraction), {}
    result = {
        "run": str(run),
        "metric": metric,
        "per_image": per_image,
        **({"fraction": fraction} if metric == HELD_OUT else {}),
        "lambda": _plain(lams),
        "value": value,
        "test_images": samples.size,
        "test": _worth(experiment, variables, samples, ds[[*judges]], lams, by),
        "seconds": time.monotonic() - begun,
    }
    path = run / f"choice-{metric}{'-per_image' if per_image else ''}.json"
    with checkpoint.writing(run):
        checkpoint.write_json(path, result)
    say(table(result))
    say(f"All of it is in {path}; it took {logs.duration(result['seconds'])}.")
    return result


def table(result: dict[str, Any]) -> str:
    """What a choice is worth, as text."""
    own = "each its own"
    lines = [f"{'test images':<12}{'lambda':<16}{'mean':>10}{'regret':>10}  95 % interval over subjects"]
    for name, found in result["test"].items():
        lams = {
            "chosen": own if result["per_image"] else lam_name(np.asarray(result["lambda"])),
            "middle": lam_name(np.asarray(found["middle"]["lambda"])),
            "best": lam_name(np.asarray(found["best"]["lambda"])),
            "best_per_image": own,
        }
        lines.append(name)
        for kind, lam in lams.items():
            row = found[kind]
            line = f"{kind.partition('_')[0]:<12}{lam:<16}{row['mean']:10.4f}{row['regret']:10.4f}"
            lines.append(
                line + (f"  {row['low']:.4f} to {row['high']:.4f}" if kind != "best" else "  (on the test images)")
            )
    return "\n".join(lines)


def score_of(metric: str) -> choose.Score:
    """A metric as `choose` wants it: the higher the better, and finite, so that its gradient is.

    PSNR is bounded by 100 dB, as in "rpsnr" of `evaluate`.
    """
    if metric == HELD_OUT:
        return choose.prediction
    if metric == "psnr":
        return lambda x_hat, x: -10 * jnp.log10(jnp.maximum(metrics.mse(x_hat, x), 1e-10))
    sign = 1 if metric in scores.HIGHER else -1
    return lambda x_hat, x: sign * scoring.FULL_REFERENCE[metric](x_hat, x)


def _check(run: Path, experiment: Experiment, metric: str, fraction: float) -> None:
    config, model = experiment.config, experiment.setup.model
    if config.task.name == "segmentation" or not (model.hyper or model.members) or len(config.loss.terms) < 2:
        raise InputError(
            f"{run} must hold a run that reconstructs for more than one lambda; in this one none can be chosen."
        )
    if metric == HELD_OUT:
        if config.task.name != "csmri":
            raise InputError(f"{HELD_OUT} needs k-space to withhold, got a run of the task {config.task.name!r}.")
        shape = experiment.dataset.test.samples.example.image.shape[:2]
        _, held = choose.partition(jax.random.key(0), make_mask(config, shape), fraction=fraction)
        if not held.any():
            raise InputError(f"{HELD_OUT} needs samples outside of the fully sampled centre, but {run} has none.")


def _starts(experiment: Experiment) -> np.ndarray:
    """Lambdas to climb from, `(s, K-1)`: a grid; of an ensemble its members.

    It is not coarse, since of a network with kinks the gradient leads to the top of a small hill: from 5 x 5 points a test
    image's PSNR was 0.02 dB lower than from 11 x 11, whatever the steps.
    """
    if experiment.setup.model.members:
        return np.array(experiment.setup.model.members, np.float32)
    count = len(experiment.config.loss.terms) - 1
    return np.asarray(hyperparams.grid(11 if count < 3 else 4, count))


def _judged(experiment: Experiment, metric: str, fraction: float) -> Callable[..., tuple[jax.Array, jax.Array, Tree]]:
    """Compiled: key, samples, their places -> all of the network's input, that by which lambda is chosen, its target."""
    problem = experiment.setup.problem

    @jax.jit
    def judged(key, samples, index):
        y = scoring.measure(problem, key, samples, index)
        net_input = jax.vmap(problem.to_net_input)(y)
        if metric != HELD_OUT:
            return net_input, net_input, samples.image
        draws = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, i), 1))(index)  # the noise is drawn without 1
        return net_input, *jax.vmap(partial(choose.withhold, fraction=fraction))(draws, y)

    return judged


def _one(
    experiment: Experiment, variables: Tree, samples: Samples, metric: str, fraction: float
) -> tuple[np.ndarray, float]:
    """The best lambda for all samples, and its value."""
    judged = _judged(experiment, metric, fraction)
    index = np.arange(samples.size)
    _, net_input, targets = judged(experiment.key_validation, samples.take(index), index)

    @jax.jit
    def best(variables, net_input, targets, starts):
        value = choose.mean_value(experiment.setup.model, variables, score_of(metric), net_input, targets)
        return choose.best_lambda(value, starts, steps=20)

    lam, value = best(variables, net_input, targets, _starts(experiment))
    return np.asarray(lam), float(value)


def _per_image(
    experiment: Experiment, variables: Tree, samples: Samples, metric: str, fraction: float, judges: Sequence[str]
) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    """The best lambda of each sample `(n, K-1)`, the mean of their values, and by each judge `(n,)` what it gives."""
    judged, model = _judged(experiment, metric, fraction), experiment.setup.model
    starts = _starts(experiment)

    @jax.jit
    def best(variables, net_input, targets, whole, image):
        lams, values = choose.for_each(model, variables, score_of(metric), net_input, targets, starts)
        x_hat = jax.vmap(partial(reconstruct, model, variables))(lams, whole)
        return lams, values, {name: scoring.FULL_REFERENCE[name](x_hat, image) for name in judges}

    count, found = samples.size, []
    size = min(count, AT_ONCE)
    every = 0.2 if sys.stderr.isatty() else 30  # seconds: in a log file each update is a line
    starting = range(0, count, size)
    for start in tqdm(starting, desc="choosing", unit_scale=size, unit=" images", file=sys.stderr, mininterval=every):
        index = np.arange(start, start + size) % count  # the last ones are filled up with images that are dropped again
        here = samples.take(index)
        whole, net_input, targets = judged(experiment.key_test, here, index)
        found.append(jax.device_get(best(variables, net_input, targets, whole, here.image)))
    lams, values, by = jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)
    return lams, float(values.mean()), by


def _worth(
    experiment: Experiment, variables: Tree, samples: Samples, ds: xr.Dataset, lams: np.ndarray, by: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The mean over the test images, by each of their scores, at the choice and at what it is compared with.

    Args:
        experiment, variables: of the run.
        samples: the test images.
        ds: their scores over a grid.
        lams: the choice, `(K-1,)`, or `(n, K-1)`.
        by: of the latter, its scores.
    """
    setup, names = experiment.setup, [str(name) for name in ds.data_vars]
    axes = [ds[f"lam_{k}"].values for k in range(1, lams.shape[-1] + 1)]
    grid, middle = hyperparams.product(axes), np.full((1, len(axes)), 0.5, np.float32)
    tried = np.concatenate([middle, *([] if by else [lams[None]])])
    score = scoring.make_scorer(setup.model, setup.objective, setup.problem, names=names)
    at, _ = score.run(variables, samples, tried, experiment.key_test)
    found = {}
    for name in names:
        sign = 1 if name in scores.HIGHER else -1
        values = ds[name].transpose(..., "image").values.reshape(len(grid), -1)
        best = int(np.argmax([sign * report.mean(row) for row in values]))
        rows = {
            "chosen": (None, by[name]) if by else (lams, at[name][1]),
            "middle": (middle[0], at[name][0]),
            "best": (grid[best], values[best]),
            "best_per_image": (None, sign * (sign * values).max(0)),
        }
        found[name] = {
            kind: {
                **({} if lam is None else {"lambda": _plain(lam)}),
                "mean": report.mean(row),
                **_regret(sign * (values[best] - row), ds["subject"].values),
            }
            for kind, (lam, row) in rows.items()
        }
    return found


def _regret(behind: np.ndarray, subjects: np.ndarray) -> dict[str, float]:
    """The mean over images `(n,)` and its interval over subjects."""
    behind = np.where(np.isnan(behind), 0, behind)  # of two infinite PSNRs
    known = scores.summary(xr.Dataset({"regret": ("image", behind)}, {"subject": ("image", subjects)}))["regret"]
    return {key: float(known.sel(statistic=of)) for key, of in (("regret", "mean"), ("low", "low"), ("high", "high"))}


def _plain(lams: np.ndarray) -> Any:
    """Lambdas for JSON, to four digits: more do not change a reconstruction."""
    return np.round(lams.astype(float), 4).tolist()
