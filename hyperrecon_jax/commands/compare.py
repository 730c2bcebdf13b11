"""Runs side by side: one table, one picture, and how far each HyperRecon is from networks for fixed lambdas."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hyperrecon_jax import figures
from hyperrecon_jax.commands.evaluate import evaluated
from hyperrecon_jax.commands.evaluation_pictures import curve_of, ends
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime.errors import InputError

METRICS = ("psnr", "ssim", "mae", "hfen", "dice")  # those of them that all runs have


def compare(runs: Sequence[Path], out: Path, *, say: Say = print) -> list[dict[str, Any]]:
    """One table and one picture of several runs on the same test images; those not evaluated yet are.

    Writes `comparison.md`, `comparison.json`, and `comparison.png` (curves, or landscapes of two lambdas). Where there are
    networks for fixed lambdas among the runs, every HyperRecon is measured against them at their lambdas, between the
    points of its grid by linear interpolation: `gaps.png`.

    Args:
        runs: folders of two runs or more, of the same losses.
        out: where the results go.

    Returns:
        The gaps: for each pair of a HyperRecon ("of") and fixed networks ("to") their "lambdas", and for each metric how
        much better the HyperRecon is, "at_lambdas", with the 95 % interval over subjects from "low" to "high", and the
        "mean" and the "worst" over lambda.

    Raises:
        InputError: if the runs do not compare.
    """
    names = [run.name for run in runs]
    names = names if len({*names}) == len(names) else [str(run) for run in runs]
    sets = [evaluated(run, say=say) for run in runs]
    for name, ds in zip(names[1:], sets[1:], strict=True):
        for what in ("terms", "test_images"):
            if ds.attrs[what] != sets[0].attrs[what]:
                raise InputError(f"The runs must have the same {what.replace('_', ' ')}: {names[0]} and {name} do not.")
    metrics = [name for name in METRICS if all(name in ds for ds in sets)]
    known = [scores.summary(ds[metrics]) for ds in sets]
    found = [
        {"of": names[i], "to": names[j]} | _gaps(ours, theirs, metrics)
        for i, ours in enumerate(sets)
        for j, theirs in enumerate(sets)
        if ours.attrs["kind"] == "hypernetwork" and theirs.attrs["kind"] != "hypernetwork"
    ]
    lines = _table(names, known, metrics, found)
    with run_folder.explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "comparison.md").write_text(lines + "\n")
        run_folder.write_json(out / "comparison.json", {"runs": [str(run) for run in runs], "gaps": found})
        _draw(names, known, metrics, found, out)
    say(f"{lines}\n\nLook at {out / 'comparison.png'}; the table is in {out / 'comparison.md'}.")
    return found


def _gaps(ours: xr.Dataset, theirs: xr.Dataset, metrics: Sequence[str]) -> dict[str, Any]:
    """By how much a HyperRecon is better than fixed networks, at their lambdas, image by image."""
    lams = sorted(str(dim) for dim in theirs.dims if dim != "image")
    there = ours[[*metrics]].interp({lam: theirs[lam] for lam in lams}, method="linear")
    gaps = scores.summary((there - theirs[[*metrics]]).assign_coords(subject=theirs["subject"]))
    found: dict[str, Any] = {"lambdas": hyperparams.product([theirs[lam].values for lam in lams]).tolist()}
    for name in metrics:
        statistics = gaps[name].transpose("statistic", *lams)
        up = name in scores.HIGHER
        gap, low, high = (
            (1 if up else -1) * statistics.sel(statistic=which).values.ravel()
            for which in ("mean", *(("low", "high") if up else ("high", "low")))
        )
        found[name] = {
            "mean": float(gap.mean()),
            "worst": float(gap.min()),
            "at_lambdas": gap.tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        }
    return found


def draw_gaps(path: Path, gaps: Sequence[Mapping[str, Any]], names: Sequence[str], **options: Any) -> None:
    """The picture of some gaps that `compare` returned, of one lambda, each at lambdas of its own.

    Args:
        path: of the PNG.
        gaps: the gaps.
        names: of each, for the legend.
        options: of `figures.comparison`, such as `ends` and `tolerance`; metrics are named as they are drawn, errors
            with an "n" before them.
    """
    upward = {name: name if name in scores.HIGHER else f"n{name}" for name in METRICS if name in gaps[0]}
    places = [np.array(row["lambdas"])[:, 0] for row in gaps]
    lams = np.unique(np.concatenate(places))

    def at_all(name: str, what: str) -> np.ndarray:
        values = np.full((len(gaps), len(lams)), np.nan)
        for row, gap, place in zip(values, gaps, places, strict=True):
            row[np.searchsorted(lams, place)] = gap[name][what]
        return values

    figures.comparison(
        path,
        lams=lams,
        names=names,
        gaps={shown: at_all(name, "at_lambdas") for name, shown in upward.items()},
        intervals={shown: (at_all(name, "low"), at_all(name, "high")) for name, shown in upward.items()},
        **options,
    )


def _table(
    names: Sequence[str],
    known: Sequence[xr.Dataset],
    metrics: Sequence[str],
    gaps: Sequence[dict[str, Any]],
) -> str:
    """Table 1 of the paper with the best of each metric; and the gaps."""
    shown = [figures.upward(metric)[0].removeprefix("n") for metric in metrics]
    lines = [
        f"| run | parameters | training | one reconstruction | {' | '.join(f'best {name}' for name in shown)} |",
        "| --- " * (4 + len(metrics)) + "|",
    ]
    for name, one in zip(names, known, strict=True):
        training = logs.duration(one.attrs["training_seconds"]) if "training_seconds" in one.attrs else ""
        values = [f"{scores.best(one, metric)[1]:.4g}" for metric in metrics]
        inference = f"{1000 * one.attrs['inference_seconds']:.1f} ms"
        lines.append(f"| {name} | {one.attrs['parameters']:,} | {training} | {inference} | {' | '.join(values)} |")
    for row in gaps:
        lines += ["", f"{row['of']} against {row['to']} at {len(row['lambdas'])} lambdas, above 0 where it is better:", ""]
        lines += [f"| | {' | '.join(shown)} |", "| --- " * (1 + len(metrics)) + "|"]
        for what in ("mean", "worst"):
            lines.append(f"| {what} | {' | '.join(f'{row[metric][what]:+.4f}' for metric in metrics)} |")
    return "\n".join(lines)


def _draw(names, known, metrics, gaps, out):
    means = [one.sel(statistic="mean") for one in known]
    lams = sorted(str(dim) for dim in means[0].dims)
    if len(lams) == 1:
        both = ends(known[0].attrs["terms"].split(","))
        curves = [curve_of(one, name, metrics) for name, one in zip(names, known, strict=True)]
        figures.metric_curves(out / "comparison.png", curves=curves, metrics=metrics, ends=both)
        if gaps:
            several = len({row["to"] for row in gaps}) > 1
            draw_gaps(
                out / "gaps.png", gaps, [f"{row['of']} − {row['to']}" if several else row["of"] for row in gaps], ends=both
            )
    elif len(lams) == 2:
        axes = [(one[lams[0]].values, one[lams[1]].values) for one in means]
        values = [
            figures.interpolate(one["psnr"].transpose(*lams).values, axis) for one, axis in zip(means, axes, strict=True)
        ]
        figures.landscapes(
            out / "comparison.png", values=np.stack(values)[None], rows=[""], columns=names, label="PSNR (dB)", heading=""
        )
