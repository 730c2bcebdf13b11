"""The pictures of an evaluated run, from its scores and its network: all but `scores.py`'s numbers, drawn by `figures`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from hyperrecon_jax import figures
from hyperrecon_jax.data import Samples
from hyperrecon_jax.evaluation import diverse, scoring
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.physics.operators import magnitude
from hyperrecon_jax.runs.labels import term_label
from hyperrecon_jax.runs.load import TrainedRun
from hyperrecon_jax.runs.pictures import middle_slices


class Evaluated(NamedTuple):
    """A run and what its evaluation needs."""

    run: TrainedRun
    samples: Samples
    places: np.ndarray  # (n,), their places in the split
    subjects: np.ndarray  # (n,)
    axes: list[np.ndarray]  # of the K-1 lambdas


def draw(prepared: Evaluated, ds: xr.Dataset, known: xr.Dataset, out: Path) -> list[dict[str, Any]]:
    """All pictures of a run.

    Args:
        prepared: the run.
        ds: its scores, PSNR among them.
        known: their `scores.summary`.
        out: the folder for the pictures.

    Returns:
        The diverse pairs of the slices that are drawn: "image", its place in the split, "lambdas", "psnr", "l2_distance".
    """
    trained, terms = prepared.run, prepared.run.config.loss.terms
    num_lams = len(prepared.axes)
    drawn = [name for name in map(str, ds.data_vars) if name in (*scoring.FULL_REFERENCE, "rpsnr", "dice")]
    if num_lams == 1 and len(prepared.axes[0]) > 1:
        shown = [name for name in drawn if name != "rpsnr"]  # which is the same curve
        name = ds.attrs["run"]
        figures.metric_curves(
            out / "curves.png", curves=[curve_of(known, name, shown)], metrics=shown, ends=ends(terms), mark=name
        )
    elif num_lams == 2 and min(map(len, prepared.axes)) > 1:
        for name in (name for name in drawn if name != "psnr" or "rpsnr" not in drawn):  # the same but for a constant
            label, sign = figures.upward(name)
            values = sign * known[name].sel(statistic="mean").values
            if ds.attrs["kind"] == "ensemble":
                values = figures.interpolate(values, prepared.axes)
            axes = None if ds.attrs["kind"] == "ensemble" else (prepared.axes[0], prepared.axes[1])
            figures.landscapes(
                out / f"landscape_{name}.png",
                values=values[None, None],
                rows=[""],
                columns=[ds.attrs["run"]],
                label=label,
                heading="",
                axes=axes,
            )
    chosen = middle_slices(prepared.subjects)
    samples = prepared.samples.take(chosen)
    net_input = scoring.inputs(trained.problem, trained.keys.test, samples, chosen)
    middle = len(chosen) // 2
    _slices(prepared, ds, out, chosen[middle], samples.image[middle], net_input[middle])
    return _pairs(prepared, ds, out, chosen, samples.image, net_input)


def curve_of(known: xr.Dataset, name: str, metrics: Sequence[str]) -> figures.Curve:
    """A `scores.summary` over the only lambda, as `figures.metric_curves` draws it."""
    return figures.Curve(
        name,
        known["lam_1"].values,
        {metric: known[metric].sel(statistic="mean").values for metric in metrics},
        {
            metric: (known[metric].sel(statistic="low").values, known[metric].sel(statistic="high").values)
            for metric in metrics
        },
        continuous=known.attrs["kind"] == "hypernetwork",
    )


def ends(terms: Sequence[str]) -> tuple[str, str]:
    """What the two ends of the only lambda stand for."""
    return term_label(terms[0]), term_label(terms[1])


def _slices(prepared: Evaluated, ds: xr.Dataset, out: Path, place: int, truth: Any, net_input: Any) -> None:
    trained, lams = prepared.run, prepared.run.lams
    x_hat = scoring.reconstructions(trained.model, trained.variables, net_input[None], lams)[:, 0]
    of = jax.vmap(scoring.FULL_REFERENCE["psnr"], (0, None))
    figures.slices(
        out / "slices.png",
        truth=truth[..., 0],
        input=np.asarray(magnitude(net_input))[..., 0],
        x_hat=np.asarray(x_hat)[None, ..., 0],
        titles=[title(lam) for lam in lams],
        psnr=np.asarray(of(x_hat, truth))[None],
        rows=[ds.attrs["run"]],
        input_psnr=float(ds["input_psnr"][place]),
    )


def _pairs(
    prepared: Evaluated, ds: xr.Dataset, out: Path, chosen: np.ndarray, truth: np.ndarray, net_input: jax.Array
) -> list[dict[str, Any]]:
    """Of some slices the two good reconstructions that differ most (Sec. V-H): only the good ones are made again."""
    trained = prepared.run
    lams = hyperparams.product(prepared.axes)
    if len(lams) < 3:
        return []
    images, titles, psnrs, pairs = [], [], [], []
    for i, place in enumerate(chosen):
        psnr = ds["psnr"].values.reshape(len(lams), -1)[:, place]
        good = diverse.good(psnr)
        x_hat = scoring.reconstructions(trained.model, trained.variables, net_input[i : i + 1], lams[good])[:, 0]
        first, second, distance = diverse.furthest_pair(np.asarray(x_hat))
        both = [first, second]
        images.append(np.asarray(x_hat)[both, ..., 0])
        titles.append([title(lams[good[j]]) for j in both])
        psnrs.append(psnr[good[both]])
        pairs.append(
            {
                "image": int(prepared.places[place]),
                "lambdas": [lams[good[j]].tolist() for j in both],
                "psnr": psnr[good[both]].tolist(),
                "l2_distance": distance,
            }
        )
    figures.pair(
        out / "pairs.png",
        truth=truth[..., 0],
        input=np.asarray(magnitude(net_input))[..., 0],
        x_hat=np.stack(images),
        titles=titles,
        psnr=np.stack(psnrs),
        input_psnr=ds["input_psnr"].values[chosen],
    )
    return pairs


def title(lam: np.ndarray) -> str:
    """`[0.25]` -> "λ = 0.25", `[0.5, 1]` -> "λ = (0.5, 1)"."""
    values = ", ".join(f"{v:.2g}" for v in lam)
    return f"λ = {values}" if len(lam) == 1 else f"λ = ({values})"
