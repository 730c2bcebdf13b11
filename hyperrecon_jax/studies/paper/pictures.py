"""The pictures of the report, drawn by `figures` from the scores of the runs. A picture without its runs is left out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hyperrecon_jax import figures
from hyperrecon_jax.commands import compare
from hyperrecon_jax.commands.evaluation_pictures import lambda_ends, lambda_title, make_curve
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runs import checkpoint
from hyperrecon_jax.studies.baselines import TOLERANCE
from hyperrecon_jax.studies.paper import numbers
from hyperrecon_jax.studies.paper.numbers import read_scores
from hyperrecon_jax.studies.paper.scale import AO_LARGE, SIZES, TASKS, Scale
from hyperrecon_jax.studies.paper.texts import SEE
from hyperrecon_jax.studies.study import COMPARISON

CURVES = ("psnr", "ssim", "mae", "hfen")


class Picture(NamedTuple):
    """A picture and what to see in it."""

    file: Path
    caption: str


def draw_all(scale: Scale, out: Path) -> dict[str, list[Picture]]:
    """The pictures by the key of their figure, of `scale.FIGURES`.

    Args:
        scale: what the pieces are.
        out: their folder; pictures are drawn into its folder "figures".
    """
    csmri = [task for task in ("csmri", "csmri4x") if task in scale.tasks]
    return {
        "fig3": _draw_curves(scale, out, "fig3", csmri, CURVES),
        "fig5": _draw_curves(scale, out, "fig5", scale.tasks, CURVES) + _draw_gaps(scale, out),
        "dice": _draw_curves(scale, out, "dice", csmri, ("dice",)),
        "fig6": _draw_slices(out),
        "fig4": _draw_landscapes(scale, out),
        "dhs": _existing(out / AO_LARGE / "dhs_histogram.png", SEE["dhs"]),
        "fig7": _existing(out / AO_LARGE / "diverse" / "pairs.png", SEE["fig7"]),
    }


def _existing(file: Path, caption: str) -> list[Picture]:
    return [Picture(file, caption)] if file.exists() else []


def _draw_curves(scale: Scale, out: Path, key: str, tasks: Sequence[str], metrics: Sequence[str]) -> list[Picture]:
    """Metrics over lambda: U-Nets as points, HyperRecon-L as a line, a colour for each task."""
    curves, terms = [], None
    for task in tasks:
        for name, kind in (("L", "HyperRecon-L"), ("unets", "U-Nets")):
            ds = read_scores(scale, out, f"{task}-{name}")
            if ds is not None and set(metrics) <= set(ds.data_vars):
                terms = ds.attrs["terms"].split(",")
                curve = make_curve(scores.summarize(ds), f"{kind}, {TASKS[task]}", metrics)
                curves.append(dataclasses.replace(curve, group=task))
    if not curves or terms is None:
        return []
    file = out / "figures" / f"{key}.png"
    marked = {"mark": curves[0].name} if key == "dice" else {}
    figures.metric_curves(file, curves=curves, metrics=metrics, ends=lambda_ends(terms), **marked)
    return [Picture(file, SEE[key])]


def _draw_gaps(scale: Scale, out: Path) -> list[Picture]:
    """HyperRecon-L minus U-Nets, at the lambdas of the U-Nets."""
    gaps, names, terms = [], [], None
    for task in scale.tasks:
        file, ds = out / f"{task}-comparison" / COMPARISON, read_scores(scale, out, f"{task}-L")
        if file.exists() and ds is not None:
            gaps += [gap for gap in checkpoint.read_json(file)["gaps"] if gap["of"] == f"{task}-L"]
            names.append(TASKS[task])
            terms = ds.attrs["terms"].split(",")
    if not gaps or terms is None:
        return []
    file = out / "figures" / "gaps.png"
    without_dice = [{key: value for key, value in gap.items() if key != "dice"} for gap in gaps]
    compare.draw_gaps(file, without_dice, names, ends=lambda_ends(terms), tolerance=TOLERANCE)
    return [Picture(file, SEE["gaps"])]


def _draw_slices(out: Path) -> list[Picture]:
    """A slice over lambda: U-Nets above, HyperRecon-L below."""
    looks = out / "csmri-look.npz"
    if not looks.exists():
        return []
    file = out / "figures" / "fig6.png"
    with np.load(looks) as look:
        figures.slices(
            file,
            **{name: look[name] for name in ("truth", "input", "x_hat", "psnr")},
            titles=[lambda_title(lam) for lam in look["lams"][:, None]],
            rows=["U-Nets", "HyperRecon-L"],
            input_psnr=float(look["input_psnr"]),
        )
    return [Picture(file, SEE["fig6"])]


def _draw_landscapes(scale: Scale, out: Path) -> list[Picture]:
    """rPSNR over the square of (lambda_1, lambda_2): UHS above, DHS below; sizes S, M, L and the U-Nets."""
    hyperrecon, unets = numbers.landscapes(scale, out)
    panels = hyperrecon.mean(2).swapaxes(0, 1)  # NaN where a seed is missing; such a panel stays empty
    empty = np.full(panels.shape[-2:], np.nan)
    last_column = np.stack([empty if unets is None else unets, empty])[:, None]
    panels = np.concatenate([panels, last_column], 1)
    if np.isnan(panels).all():
        return []
    titles = [[*(f"{size}, {sampling}" for size in SIZES), "U-Nets"] for sampling in ("UHS", "DHS")]
    file = out / "figures" / "fig4.png"
    figures.landscapes(file, values=panels, rows=["", ""], columns=[""] * 4, label="rPSNR (dB)", heading="", titles=titles)
    return [Picture(file, SEE["fig4"])]
