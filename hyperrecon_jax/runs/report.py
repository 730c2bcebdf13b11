"""The report at the end of a run: its test scores, the time and memory it took, and what to do next."""

import math
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import psutil
from ml_collections import ConfigDict

from hyperrecon_jax.evaluation.scoring import Scorer
from hyperrecon_jax.losses.metric_table import average
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.description import parameter_counts
from hyperrecon_jax.runs.experiment import Experiment, model_variables
from hyperrecon_jax.runs.labels import lam_label
from hyperrecon_jax.runs.pictures import draw_lambda_histogram, draw_test_slices
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.training.step import TrainState

Say = Callable[[str], None]  # takes a line for the user
Scores = Mapping[str, np.ndarray]
Rows = dict[str, dict[str, float]]  # by the label of lambda: the means of the scores


def report_results(experiment: Experiment, scorer: Scorer, state: TrainState, workdir: Path, *, say: Say) -> None:
    """Score the test set. The primary process writes `summary.json` and the pictures and tells the user."""
    say("Scoring the test set ...")
    samples = experiment.dataset.test.samples
    variables = model_variables(experiment.config, state)  # together with the other processes
    scores, input_scores = scorer.run(variables, samples, experiment.lams, experiment.keys.test)
    if not distributed.is_primary():
        return
    del scores["loss"]
    rows = _mean_rows(experiment, scores, input_scores)
    seconds = max((row["seconds"] for row in logs.read_rows(workdir / run_folder.METRICS)), default=0.0)
    peak = peak_memory()
    draw_test_slices(experiment, variables, scores, input_scores, workdir / run_folder.PICTURE)
    selected_lams = logs.read_rows(workdir / run_folder.LAMBDAS, required=("step",))
    has_histogram = bool(selected_lams) and len(experiment.config.loss.terms) > 1
    if has_histogram:
        draw_lambda_histogram(experiment, selected_lams, workdir / run_folder.HISTOGRAM)
    summary = {
        "test": rows,
        "test_images": samples.size,
        "parameters": parameter_counts(experiment),
        "steps": int(state.step),
        "seconds": seconds,
        "peak_memory_bytes": peak,
    }
    run_folder.write_json(workdir / run_folder.SUMMARY, summary)
    say(format_table(rows))
    say(f"{int(state.step)} steps in {logs.duration(seconds)}, peak memory {peak / 2**30:.1f} GiB.")
    if has_histogram:
        path = workdir / run_folder.HISTOGRAM
        say(f"{path} and the .png beside it show, epoch by epoch, which lambdas DHS trained on.")
    say(next_steps(experiment.config, workdir))


def means(scores: Scores) -> dict[str, float]:
    """The mean of each metric over images, if it is finite: a region that no image shows has no Dice score."""
    averages = {name: average(name, values) for name, values in scores.items()}
    return {name: value for name, value in averages.items() if math.isfinite(value)}


def format_table(rows: Rows) -> str:
    """The test scores as text: a line for the input, then a line for each lambda."""
    first = next(iter(rows.values()))
    widths = {name: max(10, len(name) + 2) for name in first if not name.startswith("input_")}
    lines = [f"{'lambda':>10}" + "".join(f"{name:>{width}}" for name, width in widths.items())]
    if any(name.startswith("input_") for name in first):  # without rpsnr, which is 0
        values = ((first.get(f"input_{name}", 0.0), width) for name, width in widths.items())
        lines.append(f"{'input':>10}" + "".join(f"{value:{width}.4f}" for value, width in values))
    for lam, row in rows.items():
        lines.append(f"{lam:>10}" + "".join(f"{row.get(name, math.nan):{width}.4f}" for name, width in widths.items()))
    return "\n".join(lines)


def next_steps(config: ConfigDict, workdir: Path) -> str:
    """Lines for the user: the files of the results, and commands to try next."""
    larger = "paper_csmri_supervised_4x" if config.loss.ground_truth else "paper_csmri_ao_8x"
    if config.task.name == "segmentation":
        larger = "paper_segment"
    has_lambda = config.model.hyper_width and config.task.name != "segmentation"
    explore = f"hyperrecon explore --run {shlex.quote(str(workdir))} to move lambda and look; " if has_lambda else ""
    events = shlex.quote(str(workdir / run_folder.TENSORBOARD))
    return adapt(
        f"Look at {workdir / run_folder.PICTURE}; the figures are in {workdir / run_folder.SUMMARY}.\n"
        f"Next: {explore}tensorboard --logdir {events} (pip install tensorboard); or the paper's"
        f" size with hyperrecon train --config {larger} --dry-run"
    )


def peak_memory() -> int:
    """The most memory that was in use, in bytes: of the accelerator if there is one, otherwise of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # here, because Windows does not have it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _mean_rows(experiment: Experiment, scores: Scores, input_scores: Scores) -> Rows:
    """For each reported lambda the mean test scores, and those of the network's input as "input_...": `summary.json`."""
    input_means = {f"input_{name}": value for name, value in means(input_scores).items()}
    return {
        lam_label(lam): means({name: values[i] for name, values in scores.items()}) | input_means
        for i, lam in enumerate(experiment.lams)
    }
