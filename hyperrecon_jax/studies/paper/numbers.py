"""The numbers of the report, gathered from what the pieces have saved; what is not there yet is left out.

supervised.TASK   lambdas, and for each metric "unets" (at them), "gaps" (how much better HyperRecon-L is, at them)
dice.TASK         lambdas, "values" and "input" of HyperRecon-L, "unets_lambdas", "unets"
look.TASK         lambdas, sharpness, contrast, distance, error (`look.py`)
ao                points; "uhs" and "dhs": for each size the landscape's best quarter, seed by seed; of the U-Nets
                  "unets", their best quarter, and "total_variation", their rPSNR where total variation alone counts
histogram         "busiest_quarter": of the square, the share of the lambdas kept in the second half of training
pairs             of Fig. 7: "psnr" of both, "l2_distance", "pixels"
table             for each piece, as Table 1: parameters, training_seconds, step_seconds, inference_seconds, members
counted           parameters of the paper's networks, as ours count them
"""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from hyperrecon_jax import figures
from hyperrecon_jax.commands import compare
from hyperrecon_jax.commands.evaluate import RESULTS, SCORES
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.models.model import count_parameters
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.config import HYPER_WIDTHS, paper_config
from hyperrecon_jax.runs.experiment import make_model
from hyperrecon_jax.studies.dhs_study import best_quarter
from hyperrecon_jax.studies.paper.plan import (
    AO_UNETS,
    SAMPLINGS,
    SIZES,
    Evaluation,
    Piece,
    Scale,
    is_evaluated,
    step_seconds,
)

Numbers = dict[str, Any]
PAPERS_UNETS = 361  # of Table 1


def evaluated(scale: Scale, out: Path, name: str, folder: str = "evaluation") -> xr.Dataset | None:
    """The scores of a piece as the plan wants them, None if they are not there."""
    for piece in scale.pieces:
        for one in piece.evaluations:
            if (piece.name, one.folder) == (name, folder) and _there(out / name, one):
                return scores.load(out / name / folder / SCORES)
    return None


def _there(folder: Path, evaluation: Evaluation) -> bool:
    return run_folder.steps_reported(folder) > 0 and is_evaluated(folder, evaluation)


def gather(scale: Scale, out: Path) -> Numbers:
    """All numbers that the pieces in a folder have.

    Args:
        scale: what the pieces are.
        out: their folder.
    """
    found: Numbers = {"counted": counted()}
    for task in scale.tasks:
        ours, theirs = evaluated(scale, out, f"{task}-L"), evaluated(scale, out, f"{task}-unets")
        if ours is None or theirs is None:
            continue
        known, fixed = scores.summarize(ours), scores.summarize(theirs)
        comparison = out / f"{task}-comparison" / "comparison.json"
        if comparison.exists():
            gap = next(row for row in run_folder.read_json(comparison)["gaps"] if row["of"] == f"{task}-L")
            metrics = {name: gap[name]["at_lambdas"] for name in compare.METRICS if name in gap}
            found.setdefault("supervised", {})[task] = {
                "lambdas": [lam[0] for lam in gap["lambdas"]],
                "metrics": {name: {"unets": _means(fixed, name), "gaps": gaps} for name, gaps in metrics.items()},
            }
        if "dice" in ours and "dice" in theirs:
            found.setdefault("dice", {})[task] = {
                "lambdas": ours["lam_1"].values.tolist(),
                "values": _means(known, "dice"),
                "input": float(known["input_dice"].sel(statistic="mean")),
                "unets_lambdas": theirs["lam_1"].values.tolist(),
                "unets": _means(fixed, "dice"),
            }
        file = out / f"{task}-look.npz"
        if file.exists():
            with np.load(file) as kept:
                names = {"lams": "lambdas", **{name: name for name in ("sharpness", "contrast", "distance", "error")}}
                found.setdefault("look", {})[task] = {name: kept[key].tolist() for key, name in names.items()}
    if ao := _without_truth(scale, out):
        found["ao"] = ao
    histogram = out / "ao-L-dhs-0" / run_folder.HISTOGRAM
    if histogram.exists():
        with np.load(histogram) as kept:
            half = kept["counts"][len(kept["counts"]) // 2 :].sum(0)
            found["histogram"] = {"busiest_quarter": busiest_quarter(half)}
    diverse = evaluated(scale, out, "ao-L-dhs-0", "diverse")
    if diverse is not None:
        pairs = run_folder.read_json(out / "ao-L-dhs-0" / "diverse" / RESULTS)["diverse_pairs"]
        size = run_folder.read_settings(out / "ao-L-dhs-0")["data"]["size"]
        found["pairs"] = [{key: pair[key] for key in ("psnr", "l2_distance")} | {"pixels": size**2} for pair in pairs]
    for piece in scale.pieces:
        if row := _row(scale, piece, out):
            found.setdefault("table", {})[piece.name] = row
    return found


def landscapes(scale: Scale, out: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """rPSNR over (lambda_1, lambda_2), means over test images.

    Returns:
        `(3, 2, seeds, n, n)` of HyperRecon, sizes S, M, L and UHS before DHS, NaN where there is none; and `(n, n)` of the
        U-Nets, interpolated, or None.
    """
    points = next((piece.evaluations[0].points or 2 for piece in scale.pieces if piece.name == "ao-L-dhs-0"), 2)
    values = np.full((len(SIZES), len(SAMPLINGS), max(scale.seeds, 1), points, points), np.nan)
    for i, j, seed in np.ndindex(values.shape[:3]):
        ds = evaluated(scale, out, f"ao-{SIZES[i]}-{SAMPLINGS[j]}-{seed}")
        if ds is not None:
            values[i, j, seed] = ds["rpsnr"].mean("image").transpose("lam_1", "lam_2").values
    whole = ~np.isnan(values).any((0, 1, 3, 4))
    if whole.any():  # seeds that are not compare with nothing
        values = values[:, :, whole]
    ds = evaluated(scale, out, AO_UNETS)
    if ds is None:
        return values, None
    coarse = ds["rpsnr"].mean("image").transpose("lam_1", "lam_2").values
    return values, figures.interpolate(coarse, [ds["lam_1"].values, ds["lam_2"].values], points)


def _without_truth(scale: Scale, out: Path) -> Numbers:
    values, fixed = landscapes(scale, out)
    found: Numbers = {}
    for j, sampling in enumerate(SAMPLINGS):
        for i, size in enumerate(SIZES):
            quarters = best_quarter(values[i, j])
            if not np.isnan(quarters).any():
                found.setdefault(sampling, {})[size] = quarters.tolist()
    if fixed is not None:
        found |= {"unets": float(best_quarter(fixed)), "total_variation": float(fixed[0, 0]), "points": len(fixed)}
    return found


def busiest_quarter(counts: np.ndarray) -> float:
    """The share of all counts in the busiest quarter of the square; a quarter if they are even.

    Args:
        counts: `(n, n)`, n even; of 2 x 2 bins each the sum is taken, since of few counts chance alone fills some bins.
    """
    n = len(counts) // 2
    values = np.sort(counts.reshape(n, 2, n, 2).sum((1, 3)).ravel())[::-1]
    return float(values[: max(1, values.size // 4)].sum() / max(values.sum(), 1))


def counted() -> dict[str, int]:
    """Parameters of the paper's networks, the U-Net and HyperRecon-S, -M, -L, counted without making them."""
    found = {}
    for name, width in (("unet", 0), *HYPER_WIDTHS.items()):
        config = paper_config("L")
        config.model.hyper_width = width
        shape = (config.data.size, config.data.size)
        variables = jax.eval_shape(
            lambda key, config=config, shape=shape: make_model(key, config, shape)[1], jax.random.key(0)
        )
        found[name] = count_parameters(variables["params"])
    return found


def _means(known: xr.Dataset, name: str) -> list[float]:
    return known[name].sel(statistic="mean").values.ravel().tolist()


def _row(scale: Scale, piece: Piece, out: Path) -> Numbers | None:
    """A line of Table 1."""
    ds = evaluated(scale, out, piece.name)
    if ds is None:
        return None
    members = math.prod(size for name, size in ds.sizes.items() if str(name).startswith("lam_"))
    row = {
        "members": members if ds.attrs["kind"] == "ensemble" else 1,
        **{key: float(ds.attrs[key]) for key in ("training_seconds", "inference_seconds")},
        "parameters": int(ds.attrs["parameters"]),
    }
    each = step_seconds(out / piece.name)
    return row if each is None else row | {"step_seconds": each}
