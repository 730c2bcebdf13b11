"""The folder with the results of an evaluation (`evaluate.py` lists its files): written, recognised and shown."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from hyperrecon_jax.commands.evaluation_pictures import Slices, draw, lambda_title
from hyperrecon_jax.commands.evaluation_setup import Evaluation
from hyperrecon_jax.evaluation import scores, scoring
from hyperrecon_jax.losses.metric_table import METRICS
from hyperrecon_jax.models.model import count_parameters, reconstruct
from hyperrecon_jax.physics.sample import take
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.pictures import middle_slices
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.errors import InputError

TABLE, RESULTS = "scores.csv", "evaluation.json"
PICTURES = ("slices", "pairs", "curves", "landscape_*")  # patterns of the names that `evaluation_pictures.draw` gives


def write_results(
    run: Path,
    evaluation: Evaluation,
    ds: xr.Dataset,
    summary: xr.Dataset,
    seconds: float,
    out: Path,
) -> None:
    """Write scores, tables and pictures, in the place of those of an earlier evaluation.

    The JSON comes last, so that it tells that the others are complete.
    """
    best = _find_best(summary)
    rows = scores.make_rows(summary)
    _remove_pictures(out)  # there are new ones only with PSNR
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


def is_finished(out: Path, identity: str) -> bool:
    """Whether a folder holds all results of the evaluation with this identity. `evaluation.json` is written last."""
    try:
        stored = scores.load(out / run_folder.SCORES).attrs["identity"]
        return run_folder.read_json(out / RESULTS)["identity"] == identity == stored
    except (InputError, LookupError, TypeError):
        return False


def show_results(summary: xr.Dataset, out: Path, say: Say) -> None:
    """Show the best lambda of each metric, and where the files are."""
    say(format_table(summary, _find_best(summary)))
    pictures = ", ".join(sorted(str(path) for path in out.glob("*.png")))
    file = out / run_folder.SCORES
    say(f"Look at {pictures}; the scores are in {file}." if pictures else f"The scores are in {file}.")


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


def describe_run(run: Path, evaluation: Evaluation) -> dict[str, Any]:
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


def _remove_pictures(out: Path) -> None:
    for name in PICTURES:
        for kind in ("png", "pdf"):
            for path in out.glob(f"{name}.{kind}"):
                path.unlink()


def _find_best(summary: xr.Dataset) -> dict[str, tuple[tuple[float, ...], float]]:
    """`scores.find_best` for each metric of the reconstructions."""
    return {str(name): scores.find_best(summary, str(name)) for name in summary.data_vars if name in METRICS}


def _choose_slices(evaluation: Evaluation) -> Slices:
    """The test slices to draw: those of the run's own picture."""
    trained = evaluation.run
    indices = middle_slices(evaluation.subjects)
    samples = evaluation.samples.take(indices)
    net_input = scoring.make_net_inputs(trained.problem, trained.keys.test, samples, indices)
    return Slices(trained.model, trained.variables, indices, samples.image, net_input)
