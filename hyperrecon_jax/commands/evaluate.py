"""Evaluate a run over its whole range of lambda: numbers, tables and pictures in a folder.

    OUT/scores.nc        the scores of each image at each lambda (`scores.py`); xarray and other programs open it
    OUT/scores.csv       statistics at each lambda, over slices and over subjects, with bootstrap intervals
    OUT/evaluation.json  the same, with the best lambda of each metric, the diverse pairs and the time it took
    OUT/curves.png       metrics over lambda (two losses; Figs. 3, 5), or landscape_METRIC.png (three; Fig. 4)
    OUT/slices.png       one slice at several lambdas (Fig. 6)
    OUT/pairs.png        the two good reconstructions that differ most (Sec. V-H, Fig. 7)

Each picture also comes as PDF.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from ml_collections import ConfigDict

from hyperrecon_jax.commands.evaluation_pictures import Slices, draw, lambda_title
from hyperrecon_jax.data import Samples, evenly_spaced, require_labels, subset
from hyperrecon_jax.evaluation import scores, scoring
from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.evaluation.sweep import score_on_grid
from hyperrecon_jax.losses.metric_table import DICE, select_metrics
from hyperrecon_jax.losses.metric_table import METRICS as METRIC_TABLE
from hyperrecon_jax.models.model import count_parameters, reconstruct
from hyperrecon_jax.physics.acquisition import Acquisition
from hyperrecon_jax.physics.sample import take
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.acquisitions import format_acquisition
from hyperrecon_jax.runs.load import TrainedRun, load_run, load_segmenter, read_config, steps_done
from hyperrecon_jax.runs.pictures import middle_slices
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError

METRICS = ("psnr", "rpsnr", "ssim", "mae", "hfen", "data_consistency")
TABLE, RESULTS, UNFINISHED = "scores.csv", "evaluation.json", "unfinished.npz"
MAX_LAMS = 1_000_000  # a grid of more would fill the memory
POINTS = {1: 100, 2: 21}  # number of lambdas -> points of the grid along each


class Evaluation(NamedTuple):
    """A run, and the images and lambdas that it is evaluated at."""

    run: TrainedRun
    samples: Samples  # n images
    indices: np.ndarray  # (n,), indices of the images in the split
    subjects: np.ndarray  # (n,)
    axes: list[np.ndarray]  # the values of each of the K-1 lambdas

    @property
    def num_lams(self) -> int:
        """How many lambdas the grid has."""
        return int(np.prod([len(axis) for axis in self.axes]))


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
    distributed.run_on_primary(run_folder.check_results_folder, out)
    segment = load_segmenter(segmenter) if segmenter is not None else None
    evaluation = prepare(
        run, data=data, points=points, count=count, needs_labels=segment is not None, acquisition=acquisition
    )
    if metrics is None:
        metrics = tuple(dict.fromkeys((*METRICS, *select_metrics(evaluation.run.config.loss.terms))))
    if segment is not None:
        metrics = tuple(dict.fromkeys((*metrics, "dice")))
    trained = evaluation.run
    scorer = Scorer(trained.model, trained.objective, trained.problem, names=metrics, segment=segment)
    say = say if distributed.is_primary() else lambda _: None
    identity = _identify(evaluation, scorer, acquisition, segmenter)
    with run_folder.lock(out), run_folder.explain_write_errors(out):
        if distributed.broadcast_from_primary(lambda: _is_finished(out, identity)):
            say("This evaluation is finished already.")
            ds = scores.load(out / run_folder.SCORES)
            _show(scores.summarize(ds), out, say)
            return ds
        distributed.run_on_primary(out.mkdir, parents=True, exist_ok=True)  # raises, unlike the lock, if that fails
        say(f"Scoring {evaluation.samples.size} images at {evaluation.num_lams} lambdas ...")
        ds, seconds = _score(run, evaluation, scorer, out, identity)
        if not distributed.is_primary():
            return ds
        summary = scores.summarize(ds)
        _write_results(run, evaluation, ds, summary, seconds, out)
    speed = evaluation.samples.size * evaluation.num_lams / seconds
    say(f"{speed:.0f} reconstructions a second, {logs.duration(seconds)} in all.")
    _show(summary, out, say)
    return ds


def load_or_evaluate(run: Path, *, acquisition: Acquisition | None = None, say: Say = print) -> xr.Dataset:
    """The scores of a run on its own test images: from its folder, or computed if they are missing or of another step."""
    ds = stored_scores(run, acquisition=acquisition)
    return evaluate(run, _scores_file(run, acquisition).parent, acquisition=acquisition, say=say) if ds is None else ds


def stored_scores(run: Path, *, acquisition: Acquisition | None = None) -> xr.Dataset | None:
    """The scores of a run on its own test images from its folder; None if they are missing or of another step."""
    file = _scores_file(run, acquisition)
    if file.exists():
        ds = scores.load(file)
        if ds.attrs.get("steps") == run_folder.steps_reported(run):
            return ds
    return None


def is_of_images(ds: xr.Dataset, samples: Samples) -> bool:
    """Whether scores are of these samples, or of some of them."""
    index = ds["image"].values
    if index.max() >= samples.size:
        return False
    return ds.attrs.get("test_images") == scoring.digest(subset(samples, index).identity)


def prepare(
    run: Path,
    *,
    data: Mapping[str, Any] | None = None,
    points: int | None = None,
    count: int | None = None,
    needs_labels: bool = False,
    acquisition: Acquisition | None = None,
) -> Evaluation:
    """Load a run, and choose its test images and the grid of lambdas.

    Args:
        run, data, points, count, acquisition: as in `evaluate`.
        needs_labels: whether the images must have labels.

    Raises:
        InputError: if there is no such run, it segments, or the images, `points` or `count` do not fit.
    """
    config = read_config(run, data=data)
    if config.task.name == "segmentation":
        raise InputError(
            f"{run} must hold a run that reconstructs, got one that segments; its Dice is in its summary.json."
        )
    if points is not None and points < 2:
        raise InputError(f"A grid of lambdas needs at least 2 points, got {points}.")
    num_axes = len(config.loss.terms) - 1
    if points is not None and points**num_axes > MAX_LAMS:
        raise InputError(
            f"A grid of lambdas (--lams) has at most {MAX_LAMS:,} points in all, got {points} along {num_axes}."
        )
    trained = load_run(run, data=data, acquisition=acquisition)  # after the checks: its data may have to be prepared
    split = trained.dataset.test
    if needs_labels:
        require_labels(split)
    size = split.samples.size
    if count is not None and not 1 <= count <= size:
        raise InputError(f"The number of images must be in [1, {size}], got {count}.")
    index = evenly_spaced(size, count or size)
    axes = _lambda_axes(trained.config, points)
    return Evaluation(trained, subset(split.samples, index), index, split.subjects[index], axes)


def format_table(summary: xr.Dataset, best: Mapping[str, tuple[tuple[float, ...], float]]) -> str:
    """The best lambda of each metric and its statistics, as text.

    Args:
        summary: `scores.summarize` of a run.
        best: `scores.find_best` for each metric.
    """
    lines = [f"{'metric':<18}{'input':>10}{'best':>10}  at lambda     95 % interval over subjects"]
    for name, (lam, value) in best.items():
        statistics_at_best = summary[name].sel({f"lam_{k}": v for k, v in enumerate(lam, start=1)})
        low, high = (float(statistics_at_best.sel(statistic=end)) for end in ("low", "high"))
        input_value = " " * 10
        if f"input_{name}" in summary:
            input_value = f"{float(summary[f'input_{name}'].sel(statistic='mean')):10.4f}"
        lam_text = lambda_title(np.asarray(lam)).removeprefix("λ = ")
        lines.append(f"{name:<18}{input_value}{value:10.4f}  {lam_text:<12}  {low:.4f} to {high:.4f}")
    return "\n".join(lines)


def _scores_file(run: Path, acquisition: Acquisition | None) -> Path:
    return run / "evaluation" / (format_acquisition(acquisition) if acquisition else "") / run_folder.SCORES


def _lambda_axes(config: ConfigDict, points: int | None) -> list[np.ndarray]:
    """The grid of lambdas: K-1 axes."""
    if config.lam.sampling == "ensemble":
        return [np.asarray(axis, np.float32) for axis in config.lam.axes]
    if config.lam.sampling == "constant":
        return [np.asarray([value], np.float32) for value in config.lam.value]
    num_axes = len(config.loss.terms) - 1
    return [np.linspace(0, 1, points or POINTS.get(num_axes, 5), dtype=np.float32)] * num_axes


def _identify(evaluation: Evaluation, scorer: Scorer, acquisition: Acquisition | None, segmenter: Path | None) -> str:
    """A digest of all that the scores depend on."""
    trained = evaluation.run
    return scoring.digest(
        scorer.names,
        evaluation.samples.identity,
        evaluation.axes,
        jax.random.key_data(trained.keys.test),
        trained.variables,
        str(acquisition),
        [str(segmenter), steps_done(segmenter)] if segmenter else [],
    )


def _is_finished(out: Path, identity: str) -> bool:
    """Whether a folder holds all results of the evaluation with this identity. `evaluation.json` is written last."""
    try:
        stored = scores.load(out / run_folder.SCORES).attrs["identity"]
        return run_folder.read_json(out / RESULTS)["identity"] == identity == stored
    except (InputError, LookupError, TypeError):
        return False


def _show(summary: xr.Dataset, out: Path, say: Say) -> None:
    """Show the best lambda of each metric, and where the files are."""
    say(format_table(summary, _find_best(summary)))
    pictures = ", ".join(sorted(str(path) for path in out.glob("*.png")))
    say(f"Look at {pictures}; the scores are in {out / run_folder.SCORES}.")


def _find_best(summary: xr.Dataset) -> dict[str, tuple[tuple[float, ...], float]]:
    """`scores.find_best` for each metric of the reconstructions."""
    return {str(name): scores.find_best(summary, str(name)) for name in summary.data_vars if name in METRIC_TABLE}


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
        attrs={**_run_attrs(run, evaluation), "identity": identity},
    )
    return ds, seconds


def _write_results(
    run: Path,
    evaluation: Evaluation,
    ds: xr.Dataset,
    summary: xr.Dataset,
    seconds: float,
    out: Path,
) -> None:
    """Write scores, tables and pictures. The JSON comes last, so that it tells that the others are complete."""
    best = _find_best(summary)
    rows = scores.make_rows(summary)
    scores.save(out / run_folder.SCORES, ds)
    scores.write_csv(out / TABLE, rows)
    pairs = []
    if "psnr" in ds:
        terms, lams = evaluation.run.config.loss.terms, evaluation.run.lams
        pairs = draw(out, ds, summary, _choose_slices(evaluation), terms=terms, lams=lams)
    results = {
        "run": str(run),
        "images": evaluation.samples.size,
        "lambdas": evaluation.num_lams,
        "seconds": seconds,
        "best": {name: {"lambda": list(lam), "mean": value} for name, (lam, value) in best.items()},
        "diverse_pairs": pairs,
        "identity": ds.attrs["identity"],
        "table": rows,
    }
    run_folder.write_json(out / RESULTS, results)


def _choose_slices(evaluation: Evaluation) -> Slices:
    """The test slices to draw: those of the run's own picture."""
    trained = evaluation.run
    indices = middle_slices(evaluation.subjects)
    samples = evaluation.samples.take(indices)
    net_input = scoring.make_net_inputs(trained.problem, trained.keys.test, samples, indices)
    return Slices(trained.model, trained.variables, indices, samples.image, net_input)


def _run_attrs(run: Path, evaluation: Evaluation) -> dict[str, Any]:
    """The attributes of the scores: facts about the run."""
    config, model = evaluation.run.config, evaluation.run.model
    summary = run / run_folder.SUMMARY
    return {
        "run": run.name,
        "kind": "hypernetwork" if model.hyper else "ensemble" if model.members else "network",
        "terms": ",".join(config.loss.terms),
        "scales": list(evaluation.run.objective.scales),
        "steps": evaluation.run.steps,
        "test_images": scoring.digest(evaluation.samples.identity),
        "parameters": count_parameters(evaluation.run.variables["params"]),
        "training_seconds": run_folder.read_json(summary)["seconds"] if summary.exists() else None,
        "inference_seconds": _inference_seconds(evaluation),
    }


def _inference_seconds(evaluation: Evaluation, *, repeats: int = 5) -> float:
    """The median time from one lambda and one measurement to one reconstruction (Table 1)."""
    trained = evaluation.run

    @jax.jit
    def reconstruct_measurement(variables, lam, y):
        return reconstruct(trained.model, variables, lam, trained.problem.to_net_input(y))

    lam = jnp.asarray([axis[0] for axis in evaluation.axes])
    sample = take(evaluation.samples.take(np.arange(1)), 0)
    y = trained.problem.observe(trained.keys.test, jax.tree.map(jnp.asarray, sample))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(reconstruct_measurement(trained.variables, lam, y))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first call compiles
