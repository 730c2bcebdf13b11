"""Evaluate a run over its whole range of lambda: numbers, tables and pictures in a folder.

    OUT/scores.nc        the scores of each image at each lambda (`scores.py`); xarray and other programs open it
    OUT/scores.csv       statistics at each lambda, over slices and over subjects, with bootstrap intervals
    OUT/evaluation.json  the same, with the best lambda of each metric, the diverse pairs and the time it took
    OUT/curves.png       metrics over lambda (two losses; Figs. 3, 5), or landscape_METRIC.png (three; Fig. 4)
    OUT/slices.png       one slice at several lambdas (Fig. 6)
    OUT/pairs.png        the two good reconstructions that differ most (Sec. V-H, Fig. 7)

Each picture also comes as PDF.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from hyperrecon_jax.commands.evaluation_results import describe_run, is_finished, show_results, write_results
from hyperrecon_jax.commands.evaluation_setup import Evaluation, identify_evaluation, load_evaluation
from hyperrecon_jax.data import Samples, subset
from hyperrecon_jax.evaluation import scores, scoring
from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.evaluation.sweep import score_on_grid
from hyperrecon_jax.losses.metric_table import DICE, select_metrics
from hyperrecon_jax.models import native
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.acquisitions import format_acquisition
from hyperrecon_jax.runs.datasets import sample_shape
from hyperrecon_jax.runs.description import describe_size
from hyperrecon_jax.runs.load import load_segmenter, steps_done
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError

METRICS = ("psnr", "rpsnr", "ssim", "mae", "hfen", "data_consistency")
UNFINISHED = "unfinished.npz"


def evaluate(
    run: Path,
    out: Path,
    *,
    data: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    points: int | None = None,
    count: int | None = None,
    segmenter: Path | None = None,
    acquisition: Acquisition | None = None,
    say: Say = print,
) -> xr.Dataset:
    """Score a run over a grid of lambdas. The primary process writes the files that the module's docstring lists.

    Args:
        run: the folder of a run.
        out: the folder for the results, created if it is missing. After an interruption the same call resumes.
        data: settings like `config.data`, to score the test images of other data; None: the run's own.
        metrics: names of `metric_table.METRICS`; None: `METRICS`, and those that are terms of the run's loss.
        points: number of grid points along each lambda. An ensemble or a network for one lambda is always scored at its own
            lambdas.
        count: number of test images, evenly spaced over the split; None: all.
        segmenter: the folder of a run of the task "segmentation", for the metric "dice" of reconstructions (Sec. V-E).
        acquisition: how images are measured; None: as in training, or at the middle of the range of acquisitions.
        say: gets the lines to show.

    Returns:
        The content of `scores.nc`.

    Raises:
        InputError: if there is no such run, or images or metrics do not fit; before anything is written.
    """
    distributed.check_same_settings(
        {
            "--run": str(run),
            "--out": str(out),
            "--metrics": list(metrics or ()),
            "--lams": points,
            "--images": count,
            "--segmenter": str(segmenter),
            "--acquisition": acquisition,
            **{f"config.data.{key}": value for key, value in (data or {}).items()},
        }
    )
    for name in metrics or ():
        if name in DICE and segmenter is None:
            raise InputError(f"The metric {name} needs a network that segments: --segmenter RUN.")
    distributed.broadcast_from_primary(partial(run_folder.check_results_folder, out))
    evaluation, scorer = _load_with_scorer(
        run, segmenter, metrics, data=data, points=points, count=count, acquisition=acquisition
    )
    say = say if distributed.is_primary() else lambda _: None
    identity = identify_evaluation(evaluation, scorer, acquisition, segmenter)
    with run_folder.lock(out), run_folder.explain_write_errors(out):
        if distributed.broadcast_from_primary(lambda: is_finished(out, identity)):
            say("This evaluation is finished already.")
            ds = scores.load(out / run_folder.SCORES)
            show_results(scores.summarize(ds), out, say)
            return ds
        distributed.run_on_primary(out.mkdir, parents=True, exist_ok=True)  # raises, unlike the lock, if that fails
        native.activate(can_measure=False)
        size = describe_size(sample_shape(evaluation.samples))
        say(f"Scoring {evaluation.samples.size} images of {size} at {evaluation.num_lams} lambdas ...")
        ds, seconds = _score(run, evaluation, scorer, out, identity)
        if not distributed.is_primary():
            return ds
        summary = scores.summarize(ds)
        write_results(run, evaluation, ds, summary, seconds, out)
    speed = evaluation.samples.size * evaluation.num_lams / seconds
    say(f"{speed:.0f} reconstructions a second, {logs.duration(seconds)} in all.")
    show_results(summary, out, say)
    return ds


def _load_with_scorer(
    run: Path, segmenter: Path | None, metrics: Sequence[str] | None, *, acquisition: Acquisition | None, **options
) -> tuple[Evaluation, Scorer]:
    """What is scored, and the function that scores it. `options` as in `load_evaluation`."""
    segment = load_segmenter(segmenter) if segmenter is not None else None
    evaluation = load_evaluation(run, needs_labels=segment is not None, acquisition=acquisition, **options)
    names = metrics or (*METRICS, *select_metrics(evaluation.run.config.loss.terms))
    names = tuple(dict.fromkeys((*names, "dice") if segment else names))
    trained = evaluation.run
    return evaluation, Scorer(trained.model, trained.objective, trained.problem, names=names, segment=segment)


def load_or_evaluate(run: Path, *, acquisition: Acquisition | None = None, say: Say = print) -> xr.Dataset:
    """The scores of a run on its own test images: from its folder, or computed if they are missing or of another step."""
    ds = stored_scores(run, acquisition=acquisition)
    return evaluate(run, _scores_file(run, acquisition).parent, acquisition=acquisition, say=say) if ds is None else ds


def stored_scores(run: Path, *, acquisition: Acquisition | None = None) -> xr.Dataset | None:
    """The scores of a run on its own test images from its folder; None if they are missing or of another step."""
    file = _scores_file(run, acquisition)
    if file.exists():
        ds = scores.load(file)
        if ds.attrs.get("steps") == (run_folder.steps_reported(run) or steps_done(run)):  # no report: slim or unfinished
            return ds
    return None


def is_of_images(ds: xr.Dataset, samples: Samples) -> bool:
    """Whether scores are of these samples, or of some of them."""
    index = ds["image"].values
    if index.max() >= samples.size:
        return False
    return ds.attrs.get("test_images") == scoring.digest(subset(samples, index).identity)


def _scores_file(run: Path, acquisition: Acquisition | None) -> Path:
    return run / "evaluation" / (format_acquisition(acquisition) if acquisition else "") / run_folder.SCORES


def _score(run: Path, evaluation: Evaluation, scorer: Scorer, out: Path, identity: str) -> tuple[xr.Dataset, float]:
    """The scores of all images at all lambdas, and the seconds it took."""
    start = time.monotonic()
    values, input_values = score_on_grid(
        scorer,
        evaluation.run.variables,
        evaluation.samples,
        evaluation.axes,
        evaluation.run.keys.test,
        resume_file=out / UNFINISHED,
        progress=True,
    )
    seconds = time.monotonic() - start
    ds = scores.make_dataset(
        evaluation.axes,
        values,
        input_values=input_values,
        subjects=evaluation.subjects,
        index=evaluation.indices,
        attrs={**describe_run(run, evaluation), "identity": identity},
    )
    return ds, seconds
