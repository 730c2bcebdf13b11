"""The tables of the report. A table without its numbers is left out."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hyperrecon_jax import figures
from hyperrecon_jax.runs import logs
from hyperrecon_jax.studies.dhs import best_quarter
from hyperrecon_jax.studies.paper import numbers
from hyperrecon_jax.studies.paper.claims import format_number
from hyperrecon_jax.studies.paper.numbers import Numbers
from hyperrecon_jax.studies.paper.scale import AO_UNETS, SIZES, TASKS, Scale

NAMES = {"unet": "one U-Net", "all": "all 361 U-Nets", **{size: f"HyperRecon-{size}" for size in SIZES}}
PAPERS_TABLE = {  # training times and parameters in the paper
    "unet": ("~4 h", "149K"),
    "all": ("~648 h", "53M"),
    "S": ("~5 h", "744K"),
    "M": ("~6 h", "4.9M"),
    "L": ("~7 h", "19M"),
}


class Table(NamedTuple):
    """Rows of text under a head."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str


def make_all(scale: Scale, out: Path, values: Numbers) -> dict[str, list[Table]]:
    """The tables by the key of their figure, of `scale.FIGURES`.

    Args:
        scale: what the pieces are.
        out: their folder.
        values: what `numbers.gather` found in it.
    """
    return {
        "table1": [_table1(values)],
        "fig5": [_gap_table(values)] if values.get("supervised") else [],
        "fig6": [_look_table(values)] if "csmri" in values.get("look", {}) else [],
        "fig4": _quarter_tables(scale, out),
    }


def _table1(values: Numbers) -> Table:
    """Table 1: parameters and times."""
    runs, counted = values.get("table", {}), values["counted"]
    names = {"unet": "csmri-unets", "all": AO_UNETS, **{size: f"csmri-{size}" for size in SIZES}}
    rows = []
    for key, (hours, parameters) in PAPERS_TABLE.items():
        at_papers_size = numbers.PAPERS_UNETS * counted["unet"] if key == "all" else counted[key]
        label, cells = NAMES[key], ("", "", "")
        if (run := runs.get(names[key])) is not None:
            share = run["members"] if key == "unet" else 1
            step = f" ({1000 * run['step_seconds'] / share:.0f} ms)" if "step_seconds" in run else ""
            cells = (
                f"{run['parameters'] // share:,}",
                logs.duration(run["training_seconds"] / share) + step,
                f"{1000 * run['inference_seconds']:.1f} ms",
            )
            label += f" (here {run['members']})" if key == "all" else ""
        rows.append((label, hours, parameters, f"{at_papers_size:,}", *cells))
    head = (
        "network",
        "paper: training",
        "paper: parameters",
        "ours, at its size",
        "here: parameters",
        "training (a step)",
        "one image",
    )
    caption = (
        "Of U-Nets that were trained together one has its share of the time. The U-Nets of all λ are those without"
        " ground truth, the others supervised 8-fold CS-MRI. The paper's inference time is ~0.2 s for all."
    )
    return Table(head, rows, caption)


def _gap_table(values: Numbers) -> Table:
    """By how much HyperRecon-L is better than the U-Nets, for each supervised task."""
    metrics = ("psnr", "ssim", "mae", "hfen")
    rows = []
    for task, comparison in values["supervised"].items():
        gaps = [np.array(comparison["metrics"][name]["gaps"]) for name in metrics]
        cells = [f"{format_number(gap.mean(), '+.4f')} ({format_number(gap.min(), '+.4f')})" for gap in gaps]
        rows.append((TASKS[task], *cells))
    head = ("task", *(f"Δ{figures.label_and_sign(name)[0]}" for name in metrics))
    caption = (
        "HyperRecon-L less U-Nets, above 0 where it is better: the mean over the U-Nets' λ and, in brackets, the worst."
    )
    return Table(head, rows, caption)


def _look_table(values: Numbers) -> Table:
    """Sharpness and contrast over lambda."""
    look = values["look"]["csmri"]
    rows = []
    for measure in ("sharpness", "contrast"):
        for name, row in zip(("U-Nets", "HyperRecon-L"), look[measure], strict=True):
            rows.append((f"{measure}, {name}", *(f"{value:.3f}" for value in row)))
    rows.append(("difference of the two", *(f"{value:.4f}" for value in look["distance"])))
    rows.append(("error of the U-Nets", *(f"{value:.4f}" for value in look["error"])))
    caption = (
        "Means over test slices. Sharpness is the strength of the Laplacian and contrast the standard deviation"
        " inside the head, both relative to the truth's; differences are root mean squares."
    )
    return Table(("", *(f"λ = {lam:g}" for lam in look["lambdas"])), rows, caption)


def _quarter_tables(scale: Scale, out: Path) -> list[Table]:
    """The best quarter of each landscape."""
    hyperrecon, unets = numbers.landscapes(scale, out)
    rows = []
    for i, size in enumerate(SIZES):
        quarters = best_quarter(hyperrecon[i])
        if not np.isnan(quarters).any():
            cells = [" / ".join(map(format_number, seeds)) for seeds in quarters]
            rows.append((f"HyperRecon-{size}", *cells, format_number((quarters[1] - quarters[0]).mean(), "+.2f")))
    if unets is not None:
        rows.append(("U-Nets", format_number(float(best_quarter(unets))), "", ""))
    caption = "Mean rPSNR over the best quarter of each landscape, in dB, seed by seed; the gain is the mean over seeds."
    return [Table(("", "UHS", "DHS", "gain of DHS"), rows, caption)] if rows else []
