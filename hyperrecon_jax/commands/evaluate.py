"""Evaluate a run over its whole range of lambda: numbers, tables and pictures in a folder.

    OUT/scores.nc        the scores of every image at every lambda (`scores.py`), which xarray and others open without us
    OUT/scores.csv       what they come to at each lambda: over slices, over subjects, with bootstrap intervals
    OUT/evaluation.json  the same, with the best lambda of each metric, the diverse pairs and the time it took
    OUT/curves.png       metrics over lambda (two losses; Figs. 3, 5), or landscape_METRIC.png (three; Fig. 4)
    OUT/slices.png       a slice over lambda (Fig. 6)
    OUT/pairs.png        two good reconstructions that differ most (Sec. V-H, Fig. 7)

Every picture is there as PDF, too.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from hyperrecon_jax.commands.evaluation_pictures import Evaluated, draw, title
from hyperrecon_jax.data import evenly_spaced, need_labels, subset
from hyperrecon_jax.evaluation import scores, scoring
from hyperrecon_jax.models.model import count_parameters, reconstruct
from hyperrecon_jax.physics.sample import take
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.load import load_run, load_segmenter
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError

SCORES, TABLE, RESULTS, UNFINISHED = "scores.nc", "scores.csv", "evaluation.json", "unfinished.npz"
METRICS = ("psnr", "rpsnr", "ssim", "mae", "hfen", "data_consistency")
POINTS = {1: 100, 2: 21}  # of a grid along each lambda, for one and for two of them


def evaluate_run(
    run: Path,
    out: Path,
    *,
    data: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = METRICS,
    points: int | None = None,
    count: int | None = None,
    segmenter: Path | None = None,
    say: Say = print,
) -> xr.Dataset:
    """Score a run over a grid of lambdas, and write all that the module's first lines list (the first host does).

    Args:
        run: the folder of a run.
        out: where the results go; made if it is not there. The same call goes on after an interruption.
        data: settings like `config.data`, to score the test images of other data than the run's own.
        metrics: of `scoring.METRICS`.
        points: of the grid along each lambda; of an ensemble and of a network for one lambda, theirs alone.
        count: how many test images, spread over the split; none given: all.
        segmenter: the folder of a run of the task "segmentation", for the metric "dice" on reconstructions (Sec. V-E).

    Returns:
        The content of `scores.nc`.

    Raises:
        InputError: if there is no such run, or for images or metrics that do not fit; before anything is written.
    """
    if segmenter is None and "dice" in metrics:
        raise InputError("The metric dice needs a network that segments: --segmenter RUN.")
    segment = load_segmenter(segmenter) if segmenter is not None else None
    prepared = prepare(run, data=data, points=points, count=count, labels=segment is not None)
    trained = prepared.run
    if segmenter is not None:
        metrics = tuple(dict.fromkeys((*metrics, "dice")))
    score = scoring.make_scorer(trained.model, trained.objective, trained.problem, names=metrics, segment=segment)
    size = int(np.prod([len(axis) for axis in prepared.axes]))
    say = say if distributed.is_primary() else lambda _: None
    say(f"Scoring {prepared.samples.size} images at {size} lambdas ...")
    with run_folder.explain_write_errors(out):
        distributed.run_on_primary(out.mkdir, parents=True, exist_ok=True)
        start = time.monotonic()
        values, of_input = scoring.landscape(
            score,
            trained.variables,
            prepared.samples,
            prepared.axes,
            trained.keys.test,
            kept=out / UNFINISHED,
            progress=True,
        )
        seconds = time.monotonic() - start
        ds = scores.dataset(
            prepared.axes,
            values,
            of_input=of_input,
            subjects=prepared.subjects,
            index=prepared.places,
            attrs=_about(run, prepared),
        )
        if not distributed.is_primary():
            return ds
        known = scores.summary(ds)
        rows = scores.rows(known)
        scores.save(out / SCORES, ds)
        scores.write_csv(out / TABLE, rows)
        pairs = draw(prepared, ds, known, out) if "psnr" in ds else []
        best = {name: scores.best(known, name) for name in metrics}
        run_folder.write_json(
            out / RESULTS,
            {
                "run": str(run),
                "images": prepared.samples.size,
                "lambdas": size,
                "seconds": seconds,
                "best": {name: {"lambda": list(lam), "mean": value} for name, (lam, value) in best.items()},
                "diverse_pairs": pairs,
                "table": rows,
            },
        )
    say(f"{prepared.samples.size * size / seconds:.0f} reconstructions a second, {logs.duration(seconds)} in all.")
    say(table(known, best))
    say(f"Look at {', '.join(sorted(str(path) for path in out.glob('*.png')))}; the scores are in {out / SCORES}.")
    return ds


def evaluated(run: Path, *, say: Say = print) -> xr.Dataset:
    """The scores of a run over its own test images; computed where they are not in its folder, or of another state."""
    file = run / "evaluation" / SCORES
    if file.exists():
        ds = scores.load(file)
        if ds.attrs.get("steps") == run_folder.steps_reported(run):
            return ds
    return evaluate_run(run, file.parent, say=say)


def prepare(
    run: Path,
    *,
    data: Mapping[str, Any] | None = None,
    points: int | None = None,
    count: int | None = None,
    labels: bool = False,
) -> Evaluated:
    """Load a run, choose its test images and the grid of lambdas.

    Args:
        run, data, points, count: those of `evaluate_run`.
        labels: whether the images must have labels.
    """
    trained = load_run(run, data=data)
    config = trained.config
    if config.task.name == "segmentation":
        raise InputError(
            f"{run} must hold a run that reconstructs, got one that segments; its Dice is in its summary.json."
        )
    split = trained.dataset.test
    if labels:
        need_labels(split)
    if points is not None and points < 2:
        raise InputError(f"A grid of lambdas needs at least 2 points, got {points}.")
    if count is not None and not 1 <= count <= split.samples.size:
        raise InputError(f"The number of images must be in [1, {split.samples.size}], got {count}.")
    size = split.samples.size
    index = evenly_spaced(size, count or size)
    num_lams = len(config.loss.terms) - 1
    if config.lam.sampling == "ensemble":
        axes = [np.asarray(axis, np.float32) for axis in config.lam.axes]
    elif config.lam.sampling == "constant":
        axes = [np.asarray([value], np.float32) for value in config.lam.value]
    else:
        axes = [np.linspace(0, 1, points or POINTS.get(num_lams, 5), dtype=np.float32)] * num_lams
    return Evaluated(trained, subset(split.samples, index), index, split.subjects[index], axes)


def table(known: xr.Dataset, best: Mapping[str, tuple[tuple[float, ...], float]]) -> str:
    """The best lambda of each metric and what it gives, as text."""
    lines = [f"{'metric':<18}{'input':>10}{'best':>10}  at lambda     95 % interval over subjects"]
    for name, (lam, value) in best.items():
        there = known[name].sel({f"lam_{k}": v for k, v in enumerate(lam, start=1)})
        before = f"{float(known[f'input_{name}'].sel(statistic='mean')):10.4f}" if f"input_{name}" in known else " " * 10
        low, high = (float(there.sel(statistic=end)) for end in ("low", "high"))
        lines.append(f"{name:<18}{before}{value:10.4f}  {title(np.asarray(lam))[4:]:<12}  {low:.4f} to {high:.4f}")
    return "\n".join(lines)


def _about(run: Path, prepared: Evaluated) -> dict[str, Any]:
    """The attributes of the scores."""
    config, model = prepared.run.config, prepared.run.model
    kind = "hypernetwork" if model.hyper else "ensemble" if model.members else "network"
    summary = run / run_folder.SUMMARY
    return {
        "run": run.name,
        "kind": kind,
        "terms": ",".join(config.loss.terms),
        "scales": list(prepared.run.objective.scales),
        "steps": prepared.run.steps,
        "test_images": scoring.digest(prepared.samples.identity),
        "parameters": count_parameters(prepared.run.variables["params"]),
        "training_seconds": run_folder.read_json(summary)["seconds"] if summary.exists() else None,
        "inference_seconds": _inference_seconds(prepared),
    }


def _inference_seconds(prepared: Evaluated, *, repeats: int = 5) -> float:
    """The time from one lambda and one measurement to one reconstruction, a median (Table 1)."""
    trained = prepared.run

    @jax.jit
    def one(variables, lam, y):
        return reconstruct(trained.model, variables, lam, trained.problem.to_net_input(y))

    lam = jnp.asarray([axis[0] for axis in prepared.axes])
    first = take(prepared.samples.take(np.arange(1)), 0)
    y = trained.problem.observe(trained.keys.test, jax.tree.map(jnp.asarray, first))
    took = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(one(trained.variables, lam, y))
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])
