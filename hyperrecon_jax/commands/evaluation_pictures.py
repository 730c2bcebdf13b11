"""The pictures of an evaluated run: metrics over lambda from its scores, and reconstructions of a few test slices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from hyperrecon_jax import figures
from hyperrecon_jax.evaluation import diverse
from hyperrecon_jax.evaluation.scoring import reconstruct_at_lambdas
from hyperrecon_jax.losses import metrics
from hyperrecon_jax.losses.metric_table import FULL_REFERENCE
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.models.model import Model
from hyperrecon_jax.physics.net_input import NetInput, zero_filled
from hyperrecon_jax.physics.sample import take
from hyperrecon_jax.runs.labels import term_label

DRAWN = (*FULL_REFERENCE, "rpsnr", "dice")


class Slices(NamedTuple):
    """Test slices to draw, and the networks that reconstruct them."""

    model: Model
    variables: Any
    indices: np.ndarray  # (n,), indices among the scored images
    x: np.ndarray  # (n, h, w, 1), reference images
    net_input: NetInput  # of n slices


def draw(
    out: Path, ds: xr.Dataset, summary: xr.Dataset, slices: Slices, *, terms: Sequence[str], lams: np.ndarray
) -> list[dict[str, Any]]:
    """Draw all pictures of a run.

    Args:
        out: the folder for the pictures.
        ds: the run's scores, with PSNR.
        summary: `scores.summarize` of them.
        slices: the slices to draw.
        terms: the terms of the loss.
        lams: `(l, K-1)`, the lambdas of the drawn reconstructions.

    Returns:
        The diverse pair of each slice, as in `draw_pairs`.
    """
    draw_metrics(out, ds, summary, terms)
    draw_slice(out / "slices.png", ds, slices, len(slices.indices) // 2, lams)
    return draw_pairs(out / "pairs.png", ds, slices)


def draw_metrics(out: Path, ds: xr.Dataset, summary: xr.Dataset, terms: Sequence[str]) -> None:
    """Draw the mean metrics: curves over one lambda, or a landscape over two for each metric."""
    axes = _lambda_axes(ds)
    names = [str(name) for name in ds.data_vars if name in DRAWN]
    name = ds.attrs["run"]
    if len(axes) == 1 and len(axes[0]) > 1:
        names = [metric for metric in names if metric != "rpsnr"]  # the curve of rPSNR is that of PSNR, shifted
        curve = make_curve(summary, name, names)
        figures.metric_curves(out / "curves.png", curves=[curve], metrics=names, ends=lambda_ends(terms), mark=name)
    elif len(axes) == 2 and min(map(len, axes)) > 1:
        for metric in names:
            if metric != "psnr" or "rpsnr" not in names:  # they differ by a constant
                _draw_landscape(out / f"landscape_{metric}.png", summary, metric, axes)


def _draw_landscape(path: Path, summary: xr.Dataset, metric: str, axes: Sequence[np.ndarray]) -> None:
    label, sign = figures.label_and_sign(metric)
    values = sign * summary[metric].sel(statistic="mean").values
    is_ensemble = summary.attrs["kind"] == "ensemble"
    if is_ensemble:
        values = figures.interpolate(values, axes)
    figures.landscapes(
        path,
        values=values[None, None],
        rows=[""],
        columns=[summary.attrs["run"]],
        label=label,
        heading="",
        axes=None if is_ensemble else (axes[0], axes[1]),
    )


def draw_slice(path: Path, ds: xr.Dataset, slices: Slices, i: int, lams: np.ndarray) -> None:
    """Draw the reconstructions of one of the slices at some lambdas (Fig. 6)."""
    x, net_input = slices.x[i], take(slices.net_input, np.array([i]))
    x_hat = reconstruct_at_lambdas(slices.model, slices.variables, net_input, lams)[:, 0]
    psnr = jax.vmap(metrics.psnr, (0, None))(x_hat, x)
    figures.slices(
        path,
        truth=x[..., 0],
        input=np.asarray(zero_filled(net_input))[0, ..., 0],
        x_hat=np.asarray(x_hat)[None, ..., 0],
        titles=[lambda_title(lam) for lam in lams],
        psnr=np.asarray(psnr)[None],
        rows=[ds.attrs["run"]],
        input_psnr=float(ds["input_psnr"][slices.indices[i]]),
    )


def draw_pairs(path: Path, ds: xr.Dataset, slices: Slices) -> list[dict[str, Any]]:
    """Draw for each slice the two good reconstructions that differ most (Sec. V-H); nothing, if there are under 3 lambdas.

    Returns:
        For each slice "image", its place in the split, and of the two reconstructions "lambdas", "psnr" and "l2_distance".
    """
    lams = hyperparams.product(_lambda_axes(ds))
    if len(lams) < 3:
        return []
    images, titles, pairs = [], [], []
    for i, index in enumerate(slices.indices):
        psnr = ds["psnr"].values.reshape(len(lams), -1)[:, index]
        good = diverse.select_good(psnr)  # only these are reconstructed again
        net_input = take(slices.net_input, np.array([i]))
        x_hat = np.asarray(reconstruct_at_lambdas(slices.model, slices.variables, net_input, lams[good]))[:, 0]
        *rows, distance = diverse.furthest_pair(x_hat)
        pair = good[rows]
        images.append(x_hat[rows, ..., 0])
        titles.append([lambda_title(lam) for lam in lams[pair]])
        pairs.append(
            {
                "image": int(ds["image"].values[index]),
                "lambdas": lams[pair].tolist(),
                "psnr": psnr[pair].tolist(),
                "l2_distance": distance,
            }
        )
    figures.pair(
        path,
        truth=slices.x[..., 0],
        input=np.asarray(zero_filled(slices.net_input))[..., 0],
        x_hat=np.stack(images),
        titles=titles,
        psnr=np.array([pair["psnr"] for pair in pairs]),
        input_psnr=ds["input_psnr"].values[slices.indices],
    )
    return pairs


def make_curve(summary: xr.Dataset, name: str, metrics: Sequence[str]) -> figures.Curve:
    """Convert a `scores.summarize` over one lambda to a curve of `figures.metric_curves`."""
    return figures.Curve(
        name,
        summary["lam_1"].values,
        {metric: summary[metric].sel(statistic="mean").values for metric in metrics},
        {
            metric: (summary[metric].sel(statistic="low").values, summary[metric].sel(statistic="high").values)
            for metric in metrics
        },
        continuous=summary.attrs["kind"] == "hypernetwork",
    )


def lambda_ends(terms: Sequence[str]) -> tuple[str, str]:
    """The loss terms that the two ends of a single lambda stand for."""
    return term_label(terms[0]), term_label(terms[1])


def lambda_title(lam: np.ndarray) -> str:
    """`[0.25]` -> "λ = 0.25", `[0.5, 1]` -> "λ = (0.5, 1)"."""
    values = ", ".join(f"{v:.2g}" for v in lam)
    return f"λ = {values}" if len(lam) == 1 else f"λ = ({values})"


def _lambda_axes(ds: xr.Dataset) -> list[np.ndarray]:
    """The K-1 axes of lambda, `(l_k,)` each."""
    count = sum(str(dim).startswith("lam_") for dim in ds.dims)
    return [ds[f"lam_{k}"].values.astype(np.float32) for k in range(1, count + 1)]
