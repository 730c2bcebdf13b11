"""The numbers of the report, gathered from what the runs have saved. Numbers whose runs are missing are left out.

supervised.TASK   lambdas; "metrics": for each the U-Nets' values ("unets") and how much better HyperRecon-L is ("gaps")
dice.TASK         lambdas, "values" and "input" of HyperRecon-L, "unets_lambdas", "unets"
look.TASK         lambdas, sharpness, contrast, distance, error (`look.py`)
ao                "uhs" and "dhs": for each size the landscape's best quarter, seed by seed; "unets": the best quarter
                  of the U-Nets; "total_variation": their rPSNR where total variation alone counts; points
histogram         "busiest_quarter": the share of the lambdas of the second half of training in that part of the square
pairs             of Fig. 7: "psnr" of both images, "l2_distance", "pixels"
table             for each piece, as Table 1: parameters, training_seconds, step_seconds, inference_seconds, members
counted           parameters of our networks at the paper's size
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hyperrecon_jax import figures
from hyperrecon_jax.commands import compare
from hyperrecon_jax.commands.evaluation_results import RESULTS
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.models.model import count_parameters
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.config import HYPER_WIDTHS, paper_config
from hyperrecon_jax.runs.experiment import make_model
from hyperrecon_jax.studies.dhs import best_quarter, landscape
from hyperrecon_jax.studies.paper.scale import AO_LARGE, AO_UNETS, SAMPLINGS, SIZES, Scale
from hyperrecon_jax.studies.plan import Piece, is_evaluated, step_seconds
from hyperrecon_jax.studies.study import COMPARISON

Numbers = dict[str, Any]
PAPERS_UNETS = 361  # of Table 1


def read_scores(scale: Scale, out: Path, name: str, folder: str = "evaluation") -> xr.Dataset | None:
    """The scores of a piece; None unless it has been trained, and evaluated as the scale asks."""
    for piece in scale.pieces:
        for evaluation in piece.evaluations:
            run = out / name
            if (piece.name, evaluation.folder) == (name, folder) and run_folder.steps_reported(run):
                return scores.load(run / folder / run_folder.SCORES) if is_evaluated(run, evaluation) else None
    return None


def gather(scale: Scale, out: Path) -> Numbers:
    """All numbers of the runs in a folder.

    Args:
        scale: what the pieces are.
        out: their folder.
    """
    by_task = {"supervised": _supervised, "dice": _dice, "look": _look}
    numbers: Numbers = {
        key: {task: values for task in scale.tasks if (values := read(scale, out, task)) is not None}
        for key, read in by_task.items()
    }
    numbers["ao"] = _without_ground_truth(scale, out)
    numbers["histogram"] = _histogram(out)
    numbers["pairs"] = _pairs(scale, out)
    numbers["table"] = {piece.name: row for piece in scale.pieces if (row := _table_row(scale, piece, out)) is not None}
    return {"counted": count_paper_networks()} | {key: values for key, values in numbers.items() if values}


def _supervised(scale: Scale, out: Path, task: str) -> Numbers | None:
    """HyperRecon-L against the U-Nets of a task."""
    unets, file = read_scores(scale, out, f"{task}-unets"), out / f"{task}-comparison" / COMPARISON
    if unets is None or read_scores(scale, out, f"{task}-L") is None or not file.exists():
        return None
    summary = scores.summarize(unets)
    gap = next(gap for gap in run_folder.read_json(file)["gaps"] if gap["of"] == f"{task}-L")
    metrics = [name for name in compare.METRICS if name in gap]
    return {
        "lambdas": [lam[0] for lam in gap["lambdas"]],
        "metrics": {name: {"unets": _means(summary, name), "gaps": gap[name]["at_lambdas"]} for name in metrics},
    }


def _dice(scale: Scale, out: Path, task: str) -> Numbers | None:
    """The Dice score over lambda."""
    hyperrecon, unets = read_scores(scale, out, f"{task}-L"), read_scores(scale, out, f"{task}-unets")
    if hyperrecon is None or unets is None or "dice" not in hyperrecon or "dice" not in unets:
        return None
    summary = scores.summarize(hyperrecon)
    return {
        "lambdas": hyperrecon["lam_1"].values.tolist(),
        "values": _means(summary, "dice"),
        "input": float(summary["input_dice"].sel(statistic="mean")),
        "unets_lambdas": unets["lam_1"].values.tolist(),
        "unets": _means(scores.summarize(unets), "dice"),
    }


def _look(scale: Scale, out: Path, task: str) -> Numbers | None:
    """The measurements of `look.py`."""
    arrays = _load_arrays(out / f"{task}-look.npz")
    if arrays is None or any(read_scores(scale, out, f"{task}-{name}") is None for name in ("L", "unets")):
        return None
    names = {"lams": "lambdas", **{name: name for name in ("sharpness", "contrast", "distance", "error")}}
    return {name: arrays[key].tolist() for key, name in names.items()}


def landscapes(scale: Scale, out: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """rPSNR over (lambda_1, lambda_2), means over test images.

    Returns:
        `(3, 2, seeds, n, n)` of HyperRecon, sizes S, M, L and UHS before DHS, NaN where a run is missing; and `(n, n)` of
        the U-Nets, interpolated, or None.
    """
    points = next((piece.evaluations[0].points or 2 for piece in scale.pieces if piece.name == AO_LARGE), 2)
    values = np.full((len(SIZES), len(SAMPLINGS), max(scale.seeds, 1), points, points), np.nan)
    for i, j, seed in np.ndindex(values.shape[:3]):
        ds = read_scores(scale, out, f"ao-{SIZES[i]}-{SAMPLINGS[j]}-{seed}")
        if ds is not None:
            values[i, j, seed] = landscape(ds)
    complete = ~np.isnan(values).any((0, 1, 3, 4))
    if complete.any():  # a seed with a run missing cannot be compared
        values = values[:, :, complete]
    unets = read_scores(scale, out, AO_UNETS)
    if unets is None:
        return values, None
    return values, figures.interpolate(landscape(unets), [unets["lam_1"].values, unets["lam_2"].values], points)


def _without_ground_truth(scale: Scale, out: Path) -> Numbers:
    """The best quarters of the landscapes."""
    hyperrecon, unets = landscapes(scale, out)
    numbers: Numbers = {}
    for j, sampling in enumerate(SAMPLINGS):
        for i, size in enumerate(SIZES):
            quarters = best_quarter(hyperrecon[i, j])
            if not np.isnan(quarters).any():
                numbers.setdefault(sampling, {})[size] = quarters.tolist()
    if unets is not None:
        numbers |= {"unets": float(best_quarter(unets)), "total_variation": float(unets[0, 0]), "points": len(unets)}
    return numbers


def _histogram(out: Path) -> Numbers | None:
    """The part of the square of lambda in which DHS trained."""
    arrays = _load_arrays(out / AO_LARGE / run_folder.HISTOGRAM)
    if arrays is None:
        return None
    counts = arrays["counts"]
    return {"busiest_quarter": busiest_quarter(counts[len(counts) // 2 :].sum(0))}


def busiest_quarter(counts: np.ndarray) -> float:
    """The share of all counts in the busiest quarter of the square; a quarter if they are even.

    Args:
        counts: `(n, n)`, n even. Blocks of 2 x 2 bins are summed first, since chance alone fills some bins of few counts.
    """
    n = len(counts) // 2
    values = np.sort(counts.reshape(n, 2, n, 2).sum((1, 3)).ravel())[::-1]
    return float(values[: max(1, values.size // 4)].sum() / max(values.sum(), 1))


def _pairs(scale: Scale, out: Path) -> list[Numbers] | None:
    """The two good reconstructions that differ most, for each slice of Fig. 7."""
    if read_scores(scale, out, AO_LARGE, "diverse") is None:
        return None
    pairs = run_folder.read_json(out / AO_LARGE / "diverse" / RESULTS)["diverse_pairs"]
    size = run_folder.read_settings(out / AO_LARGE)["data"]["size"]
    return [{key: pair[key] for key in ("psnr", "l2_distance")} | {"pixels": size**2} for pair in pairs]


def count_paper_networks() -> dict[str, int]:
    """Parameters of the paper's networks, the U-Net and HyperRecon-S, -M, -L, counted without making them."""
    counts = {}
    for name, width in (("unet", 0), *HYPER_WIDTHS.items()):
        config = paper_config("L")
        config.model.hyper_width = width
        _, shapes, _ = make_model(config)
        counts[name] = count_parameters(shapes["params"])
    return counts


def _table_row(scale: Scale, piece: Piece, out: Path) -> Numbers | None:
    """A row of Table 1."""
    ds = read_scores(scale, out, piece.name)
    if ds is None:
        return None
    members = math.prod(size for name, size in ds.sizes.items() if str(name).startswith("lam_"))
    row = {
        "members": members if ds.attrs["kind"] == "ensemble" else 1,
        **{key: float(ds.attrs[key]) for key in ("training_seconds", "inference_seconds")},
        "parameters": int(ds.attrs["parameters"]),
    }
    seconds = step_seconds(out / piece.name)
    return row if seconds is None else row | {"step_seconds": seconds}


def _means(summary: xr.Dataset, name: str) -> list[float]:
    return summary[name].sel(statistic="mean").values.ravel().tolist()


def _load_arrays(file: Path) -> Mapping[str, np.ndarray] | None:
    """The arrays of an .npz file, None if it does not exist."""
    if not file.exists():
        return None
    with np.load(file) as arrays:
        return dict(arrays)
