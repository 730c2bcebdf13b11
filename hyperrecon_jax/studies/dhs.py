"""Does DHS help, and does it help more with a small hypernetwork? (Sec. IV-C, V-H, Fig. 4)

For each width d of the hypernetwork and each seed the plan has one run with UHS and one with DHS, alike in everything else.
A run is scored by its landscape: the mean rPSNR over test images on a regular grid of (lambda_1, lambda_2). Only the useful
part of a landscape counts, so its score is the mean over its best quarter. At the same learning rate a wider hypernetwork
moves the weights that it generates further, so each width may have a rate of its own.

    OUT/dWIDTH-uhs-SEED, OUT/dWIDTH-dhs-SEED    the runs, each with its landscape in evaluation/
    OUT/table.md, table.json, landscapes.png    all seeds
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from ml_collections import ConfigDict

from hyperrecon_jax import figures
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.config import complete
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.errors import InputError
from hyperrecon_jax.studies.plan import EvaluationOptions, Plan
from hyperrecon_jax.studies.seeds import sample_sd, seed_groups, seed_labels

IMAGES = 32  # test images at most, evenly spaced in the split
SAMPLINGS = ("uhs", "dhs")
TABLE, FIGURES, PICTURE = "table.md", "table.json", "landscapes.png"


def make_plan(config: ConfigDict, *, widths: Sequence[int], rates: Sequence[float] = (), seeds: int, points: int) -> Plan:
    """The plan of the study.

    Args:
        config: an experiment of amortized optimization with three terms and DHS. Its seed, the width of its hypernetwork
            and its learning rate are replaced.
        widths: d.
        rates: a learning rate for each width, UHS and DHS alike; none: that of `config` for all.
        seeds: number of runs of each network.
        points: number of grid points along each lambda.

    Raises:
        InputError: for an experiment without such a landscape or without DHS.
    """
    config = complete(config)
    if len(config.loss.terms) != 3 or not config.dhs.keep or config.dhs.keep == config.train.batch:
        raise InputError("The study needs three loss terms, and config.dhs.keep below config.train.batch for its DHS runs.")
    if seeds < 1 or points < 2:
        raise InputError(f"The study needs at least 1 seed and 2 points, got {seeds} and {points}.")
    rates = rates or [config.train.learning_rate] * len(widths)
    if len(rates) != len(widths):
        raise InputError(f"The study needs a learning rate for each of its {len(widths)} widths, got {len(rates)}.")
    changes = {
        f"d{width}-{sampling}": {"model.hyper_width": width, "train.learning_rate": rate, "dhs.keep": keep}
        for width, rate in zip(widths, rates, strict=True)
        for sampling, keep in zip(SAMPLINGS, (config.train.batch, config.dhs.keep), strict=True)
    }
    evaluation = EvaluationOptions(metrics=("rpsnr",), points=points, images=IMAGES, reconstructions=points**2 * IMAGES)
    return Plan(
        title=f"UHS and DHS at the widths {', '.join(map(str, widths))}, number of seeds: {seeds}",
        groups=seed_groups(config, changes, seeds=seeds, evaluation=evaluation),
        report=partial(_report, widths=widths),
        labels=seed_labels(seeds),
    )


def _report(out: Path, seeds: Sequence[int], failures: Sequence[str], say: Say, *, widths: Sequence[int]) -> None:
    """Write the table and the picture of the finished seeds."""
    if not seeds:
        return
    landscapes = np.array(
        [
            [[read_landscape(out / f"d{width}-{sampling}-{seed}") for seed in seeds] for sampling in SAMPLINGS]
            for width in widths
        ]
    )
    rows = summarize(landscapes, widths)
    with run_folder.explain_write_errors(out):
        run_folder.write_json(out / FIGURES, rows)
        (out / TABLE).write_text(table(rows) + "\n")
        figures.landscapes(
            out / PICTURE,
            values=landscapes.mean(2),
            rows=[f"d = {width}" for width in widths],
            columns=["UHS", "DHS"],
            label="rPSNR (dB)",
            heading=f"Gain over the zero-filled input, mean of {len(seeds)} seeds",
        )
    say(f"\n{table(rows)}\n\nLook at {out / PICTURE}; the table is in {out / TABLE}.")


def read_landscape(run: Path) -> np.ndarray:
    """The landscape of an evaluated run, `(n, n)`, lambda_1 first."""
    return landscape(scores.load(run / EvaluationOptions().folder / scores.SCORES))


def landscape(ds: xr.Dataset) -> np.ndarray:
    """The mean rPSNR over images, `(n1, n2)`, lambda_1 first, from the scores of a run with two lambdas."""
    return ds["rpsnr"].mean("image").transpose("lam_1", "lam_2").values


def best_quarter(landscapes: np.ndarray) -> np.ndarray:
    """The mean over the best quarter of each landscape, `(..., n, n) -> (...)`."""
    values = np.sort(landscapes.reshape(*landscapes.shape[:-2], -1), axis=-1)
    return values[..., -max(1, values.shape[-1] // 4) :].mean(-1)


def summarize(landscapes: np.ndarray, widths: Sequence[int]) -> list[dict[str, float]]:
    """For each width, over seeds: mean and standard deviation of UHS, of DHS, and of their difference seed by seed.

    Args:
        landscapes: `(widths, 2, seeds, n, n)`, UHS first.
        widths: d.
    """
    quarter, highest = best_quarter(landscapes), landscapes.max((-2, -1))
    above_input = (landscapes > 0).mean((-2, -1))
    rows = []
    for i, width in enumerate(widths):
        row: dict[str, float] = {"d": width, "seeds": landscapes.shape[2]}
        for name, values in (("uhs", quarter[i, 0]), ("dhs", quarter[i, 1]), ("gain", quarter[i, 1] - quarter[i, 0])):
            row[name], row[f"{name}_sd"] = float(values.mean()), sample_sd(values)
        for j, name in enumerate(SAMPLINGS):
            row[f"{name}_best"] = float(highest[i, j].mean())
            row[f"{name}_above_input"] = float(above_input[i, j].mean())
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, float]]) -> str:
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
