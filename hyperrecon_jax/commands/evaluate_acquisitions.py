"""Evaluate a run at several acquisitions: each as `evaluate` does, and then a table and a picture of all.

OUT/ACQUISITION/...      the results of an acquisition, such as OUT/acceleration=4,sigma=0.02,mask=random_lines
OUT/acquisitions.csv     a row for each acquisition: PSNR and SSIM of the input, and the best mean over lambda
OUT/acquisitions.png     PSNR gain and SSIM over acceleration, if there are several accelerations
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from hyperrecon_jax import figures
from hyperrecon_jax.commands.evaluate import evaluate
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.physics.acquisition import Acquisition, describe_excess
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.acquisitions import format_acquisition, parse_acquisitions
from hyperrecon_jax.runs.datasets import image_shape
from hyperrecon_jax.runs.load import read_config
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runs.task import fix_acquisition, make_mask, trained_range
from hyperrecon_jax.runtime import distributed
from hyperrecon_jax.runtime.errors import InputError

TABLE, PICTURE = "acquisitions.csv", "acquisitions.png"
COMPARED = ("psnr", "ssim")  # metrics of the table


def evaluate_acquisitions(
    run: Path,
    out: Path,
    text: str,
    *,
    data: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    say: Say = print,
    **options: Any,
) -> list[dict[str, Any]]:
    """Score a run at each acquisition over a grid of lambdas. Writes the files that the module's docstring lists.

    Args:
        run, out, data, metrics, say: as in `evaluate`. The metrics must have PSNR and SSIM.
        text: the acquisitions, as in `parse_acquisitions`.
        options: further arguments of `evaluate`.

    Returns:
        The rows of the table.

    Raises:
        InputError: as `evaluate` and `parse_acquisitions`, or if images of the run cannot be sampled so; before any work.
    """
    if metrics is not None and not set(COMPARED) <= set(metrics):
        raise InputError(f"`metrics` must have {' and '.join(COMPARED)} to compare acquisitions, got {', '.join(metrics)}.")
    config = read_config(run, data=data)
    acquisitions = parse_acquisitions(text, config)
    distributed.broadcast_from_primary(partial(run_folder.check_results_folder, out))
    shape = image_shape(config)
    for acquisition in acquisitions:
        make_mask(fix_acquisition(config, acquisition), shape)  # raises for an acceleration that is too high
    primary_say = say if distributed.is_primary() else lambda _: None
    rows = []
    for acquisition in acquisitions:
        name = format_acquisition(acquisition)
        primary_say(f"\n{name}")
        for sentence in describe_excess(trained_range(config), acquisition):
            primary_say(sentence)
        ds = evaluate(run, out / name, data=data, metrics=metrics, acquisition=acquisition, say=say, **options)
        rows.append(_make_row(acquisition, scores.summarize(ds[[*COMPARED, *(f"input_{name}" for name in COMPARED)]])))
    if distributed.is_primary():
        _write_results(out, rows, say)
    return rows


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of the table as text."""
    lines = [
        f"{'acceleration':>12}{'noise':>8}  {'mask':<18}{'PSNR dB: input':>15}{'best':>8}{'gain':>8}  SSIM: input    best"
    ]
    for row in rows:
        lines.append(
            f"{row['acceleration']:>12g}{row['sigma']:>8g}  {row['mask']:<18}{row['input_psnr']:>15.2f}{row['psnr']:>8.2f}"
            f"{row['psnr_gain']:>+8.2f}{row['input_ssim']:>13.3f}{row['ssim']:>8.3f}"
        )
    return "\n".join(lines)


def _make_row(acquisition: Acquisition, summary: xr.Dataset) -> dict[str, Any]:
    """The acquisition, and for each metric the mean of the input and the best mean over lambda, with its lambda."""
    row: dict[str, Any] = acquisition._asdict()
    for metric in COMPARED:
        lam, value = scores.find_best(summary, metric)
        input_value = float(summary[f"input_{metric}"].sel(statistic="mean"))
        row |= {f"input_{metric}": input_value, metric: value, f"{metric}_gain": value - input_value}
        row |= {f"{metric}_lambda": " ".join(f"{v:g}" for v in lam)}
    return row


def _write_results(out: Path, rows: Sequence[dict[str, Any]], say: Say) -> None:
    """Write the table and the picture."""
    files = [out / TABLE]
    with run_folder.explain_write_errors(out):
        scores.write_csv(out / TABLE, rows)
        if len({row["acceleration"] for row in rows}) > 1:
            files.append(out / PICTURE)
            figures.acquisitions(out / PICTURE, rows)
    say(f"\n{format_table(rows)}")
    say(f"The means over all images are in {' and '.join(map(str, files))}.")
