"""Does DHS help, and most where capacity is small? (Sec. IV-C, V-H, Fig. 4), at a laptop's size.

For each width d of the hypernetwork and each seed one run with UHS and one with DHS, alike in everything else, and its
landscape: the mean rPSNR over test images on a regular grid of (lambda_1, lambda_2). What counts is the useful part of it,
so that a landscape's figure is the mean over its best quarter. A wider hypernetwork moves the weights that it generates
further at the same learning rate, so that each width may have a rate of its own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from hyperrecon_jax import figures
from hyperrecon_jax.commands import train
from hyperrecon_jax.data import evenly_spaced, subset
from hyperrecon_jax.evaluation.sweep import score_on_grid
from hyperrecon_jax.runs import report, run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.load import load_run
from hyperrecon_jax.runs.task import make_task_scorer
from hyperrecon_jax.runtime import files
from hyperrecon_jax.runtime.errors import InputError

MAPPED = 32  # test images at most, spread over the split
LANDSCAPE = "rpsnr_landscape.npz"  # in the folder of each run
TABLE, FIGURES, PICTURE = "table.md", "table.json", "landscapes.png"


def study(
    config: ConfigDict,
    folder: Path,
    *,
    widths: Sequence[int],
    rates: Sequence[float] = (),
    seeds: int,
    points: int,
    say: report.Say = print,
) -> bool:
    """Train what is missing, evaluate what is missing, and write the table and the picture.

    Args:
        config: an experiment of amortized optimization with three terms and DHS; its seed, width of the hypernetwork and
            learning rate are replaced.
        folder: of the study; each run has a folder in it.
        widths: d.
        rates: a learning rate for each width, UHS and DHS alike; none: that of `config` for all.
        seeds: how many of each.
        points: of the grid along each lambda.

    Returns:
        False if it was interrupted; the same call goes on.

    Raises:
        InputError: for an experiment that has no such landscape or no DHS.
        Diverged: if a training does.
    """
    config = complete(config)
    if len(config.loss.terms) != 3 or not config.dhs.keep or config.dhs.keep == config.train.batch:
        raise InputError("The study needs three loss terms, and config.dhs.keep below config.train.batch for its DHS runs.")
    if seeds < 1 or points < 2:
        raise InputError(f"The study needs at least 1 seed and 2 points, got {seeds} and {points}.")
    rates = rates or [config.train.learning_rate] * len(widths)
    if len(rates) != len(widths):
        raise InputError(f"The study needs a learning rate for each of its {len(widths)} widths, got {len(rates)}.")
    found = np.zeros((len(widths), 2, seeds, points, points))
    # seed by seed, so that what is there after an interruption compares like with like
    plan = list(np.ndindex(seeds, len(widths), 2))
    configs = []
    for seed, i, j in plan:
        one = config.copy_and_resolve_references()
        one.seed, one.model.hyper_width, one.train.learning_rate = seed, widths[i], rates[i]
        one.dhs.keep = (config.train.batch, config.dhs.keep)[j]
        configs.append(complete(one))  # what no run can have is told before the first
    for done, ((seed, i, j), one) in enumerate(zip(plan, configs, strict=True), start=1):
        name = f"d{widths[i]}-{('uhs', 'dhs')[j]}-{seed}"
        say(f"\nRun {done} of {len(plan)}: {name}")
        if not train.train(one, folder / name, say=say):
            return False
        found[i, j, seed] = landscape(folder / name, points=points, say=say).mean(-1)
    rows = summary(found, widths)
    run_folder.write_json(folder / FIGURES, rows)
    (folder / TABLE).write_text(table(rows) + "\n")
    figures.landscapes(
        folder / PICTURE,
        values=found.mean(2),
        rows=[f"d = {width}" for width in widths],
        columns=["UHS", "DHS"],
        label="rPSNR (dB)",
        heading=f"Gain over the zero-filled input, mean of {seeds} seeds",
    )
    say(f"\n{table(rows)}\n\nLook at {folder / PICTURE}; the table is in {folder / TABLE}.")
    return True


def landscape(folder: Path, *, points: int, say: report.Say) -> np.ndarray:
    """rPSNR of test images of a run, `(points, points, n)`, lambda_1 first; kept in the run's folder."""
    file = folder / LANDSCAPE
    steps = run_folder.steps_reported(folder)
    if file.exists():
        with np.load(file) as kept:
            if (len(kept["lam"]), kept["steps"]) == (points, steps):
                return kept["rpsnr"]
    say(f"Evaluating {points} x {points} lambdas ...")
    trained = load_run(folder)
    scorer = make_task_scorer(trained.config, trained.model, trained.problem, trained.objective)
    samples = trained.dataset.test.samples
    samples = subset(samples, evenly_spaced(samples.size, MAPPED))
    axis = np.linspace(0, 1, points)
    scores, _ = score_on_grid(scorer, trained.variables, samples, [axis, axis], trained.keys.test, progress=True)
    values = scores["rpsnr"]
    with run_folder.explain_write_errors(folder), files.atomic_write(file) as partial, partial.open("wb") as opened:
        np.savez(opened, rpsnr=values, lam=axis, steps=steps)
    return values


def best_quarter(landscapes: np.ndarray) -> np.ndarray:
    """The mean over the best quarter of each landscape, `(..., n, n) -> (...)`."""
    values = np.sort(landscapes.reshape(*landscapes.shape[:-2], -1), axis=-1)
    return values[..., -max(1, values.shape[-1] // 4) :].mean(-1)


def summary(landscapes: np.ndarray, widths: Sequence[int]) -> list[dict[str, float]]:
    """For each width, over seeds: mean and standard deviation of UHS, of DHS, and of their difference seed by seed.

    Args:
        landscapes: `(widths, 2, seeds, n, n)`, UHS first.
    """
    quarter, highest = best_quarter(landscapes), landscapes.max((-2, -1))
    above = (landscapes > 0).mean((-2, -1))
    rows = []
    for i, width in enumerate(widths):
        row: dict[str, float] = {"d": width, "seeds": landscapes.shape[2]}
        for name, values in (("uhs", quarter[i, 0]), ("dhs", quarter[i, 1]), ("gain", quarter[i, 1] - quarter[i, 0])):
            row[name] = float(values.mean())
            row[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        for j, name in enumerate(("uhs", "dhs")):
            row[f"{name}_best"] = float(highest[i, j].mean())
            row[f"{name}_above_input"] = float(above[i, j].mean())
        rows.append(row)
    return rows


def table(rows: list[dict[str, float]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| d | UHS, best quarter (dB) | DHS, best quarter (dB) | DHS - UHS (dB) | best UHS, DHS (dB)"
        " | above the input UHS, DHS |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['d']} | {row['uhs']:.2f} ± {row['uhs_sd']:.2f} | {row['dhs']:.2f} ± {row['dhs_sd']:.2f}"
            f" | {row['gain']:+.2f} ± {row['gain_sd']:.2f} | {row['uhs_best']:.2f}, {row['dhs_best']:.2f}"
            f" | {row['uhs_above_input']:.0%}, {row['dhs_above_input']:.0%} |"
        )
    return "\n".join(lines)
