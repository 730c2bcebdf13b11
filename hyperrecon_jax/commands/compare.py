"""Compare runs: one table, one picture, and how far each HyperRecon is from networks for fixed lambdas."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hyperrecon_jax import figures
from hyperrecon_jax.commands.evaluate import load_or_evaluate, stored_scores
from hyperrecon_jax.commands.evaluation_pictures import lambda_ends, make_curve
from hyperrecon_jax.commands.evaluation_setup import load_evaluation
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.losses.metric_table import DEFAULT_METRICS, bound
from hyperrecon_jax.losses.metric_table import METRICS as METRIC_TABLE
from hyperrecon_jax.models import hyperparams
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.runs.load import read_config
from hyperrecon_jax.runs.report import Say
from hyperrecon_jax.runtime import paths
from hyperrecon_jax.runtime.errors import InputError

METRICS = (*DEFAULT_METRICS, "dice")  # the table has those that all runs have


def compare(runs: Sequence[Path], out: Path, *, say: Say = print) -> list[dict[str, Any]]:
    """Compare several runs on the same test images in one table and one picture. Missing evaluations are computed.

    Writes `comparison.md`, `comparison.json`, and `comparison.png` (curves, or landscapes of two lambdas). If some runs are
    networks for fixed lambdas, every HyperRecon is compared with them at their lambdas, by linear interpolation between the
    points of its grid: `gaps.png`.

    Args:
        runs: folders of at least two runs with the same losses.
        out: the folder for the results.
        say: gets the lines to show.

    Returns:
        The gaps, for each pair of a HyperRecon ("of") and fixed networks ("to"): their "lambdas", and for each metric how
        much better the HyperRecon is: "at_lambdas", its 95 % interval over subjects from "low" to "high", and the "mean"
        and the "worst" over lambda.

    Raises:
        InputError: if the runs cannot be compared.
    """
    run_folder.check_results_folder(out)
    _check_runs(runs)
    names = [run.name for run in runs]
    names = names if len({*names}) == len(names) else [str(run) for run in runs]
    datasets = [load_or_evaluate(run, say=say) for run in runs]
    _check_comparable(names, datasets)
    metrics = [name for name in METRICS if all(name in ds for ds in datasets)]
    summaries = [scores.summarize(ds[metrics]) for ds in datasets]
    gaps = [
        {"of": names[i], "to": names[j]} | _gaps(hyperrecon, fixed, metrics)
        for i, hyperrecon in enumerate(datasets)
        for j, fixed in enumerate(datasets)
        if hyperrecon.attrs["kind"] == "hypernetwork" and fixed.attrs["kind"] != "hypernetwork"
    ]
    table = _format_table(names, summaries, metrics, gaps)
    with run_folder.explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "comparison.md").write_text(table + "\n")
        run_folder.write_json(out / "comparison.json", {"runs": [str(run) for run in runs], "gaps": gaps})
        _draw(names, summaries, metrics, gaps, out)
    say(f"{table}\n\nLook at {out / 'comparison.png'}; the table is in {out / 'comparison.md'}.")
    return gaps


def _check_runs(runs: Sequence[Path]) -> None:
    """Raise `InputError` if a run is missing, damaged or there twice, or if two have other losses."""
    for i, run in enumerate(runs):
        if any(run.exists() and other.exists() and run.samefile(other) for other in runs[:i]):
            raise InputError(f"The runs must differ from one another, but {run} is there twice.")
    all_terms = [_read_terms(run) for run in runs]
    for run, terms in zip(runs, all_terms, strict=True):
        if terms != all_terms[0]:
            raise InputError(f"The runs must have the same terms: {runs[0]} and {run} do not.")
    for run in runs:
        if stored_scores(run) is None:
            load_evaluation(run)  # loads all that its evaluation needs
            paths.check_folder(run / "evaluation", argument="The evaluation")


def _read_terms(run: Path) -> str:
    """The loss terms of a run, with commas between them."""
    ds = stored_scores(run)
    return str(ds.attrs["terms"]) if ds is not None else ",".join(read_config(run).loss.terms)


def _check_comparable(names: Sequence[str], datasets: Sequence[xr.Dataset]) -> None:
    """Raise `InputError` if the scores of two runs are of other images."""
    for name, ds in zip(names[1:], datasets[1:], strict=True):
        if ds.attrs["test_images"] != datasets[0].attrs["test_images"]:
            raise InputError(f"The runs must have the same test images: {names[0]} and {name} do not.")


def _gaps(hyperrecon: xr.Dataset, fixed: xr.Dataset, metrics: Sequence[str]) -> dict[str, Any]:
    """How much better a HyperRecon is than networks for fixed lambdas, at their lambdas, image by image."""
    lams = sorted(str(dim) for dim in fixed.dims if dim != "image")
    bounded, bounded_fixed = (xr.Dataset({name: bound(name, ds[name]) for name in metrics}) for ds in (hyperrecon, fixed))
    interpolated = bounded.interp({lam: fixed[lam] for lam in lams}, method="linear")
    summary = scores.summarize((interpolated - bounded_fixed).assign_coords(subject=fixed["subject"]))
    gaps: dict[str, Any] = {"lambdas": hyperparams.product([fixed[lam].values for lam in lams]).tolist()}
    for name in metrics:
        sign = METRIC_TABLE[name].sign
        mean, low, high = (
            sign * summary[name].sel(statistic=statistic).transpose(*lams).values.ravel()
            for statistic in ("mean", *(("low", "high") if sign > 0 else ("high", "low")))
        )
        gaps[name] = {
            "mean": float(mean.mean()),
            "worst": float(mean.min()),
            "at_lambdas": mean.tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
        }
    return gaps


def draw_gaps(path: Path, gaps: Sequence[Mapping[str, Any]], names: Sequence[str], **options: Any) -> None:
    """Draw gaps of `compare` over one lambda, each at its own lambdas.

    Args:
        path: of the PNG.
        gaps: the gaps.
        names: names of the gaps, for the legend.
        options: options of `figures.comparison`, such as `ends` and `tolerance`. An error has an "n" before its name, as
            in the picture: its gap is positive if the HyperRecon is better.
    """
    labels = {name: name if METRIC_TABLE[name].higher_is_better else f"n{name}" for name in METRICS if name in gaps[0]}
    lams_of_gaps = [np.array(gap["lambdas"])[:, 0] for gap in gaps]
    lams = np.unique(np.concatenate(lams_of_gaps))

    def align(name: str, key: str) -> np.ndarray:
        """The values of all gaps at all lambdas, NaN where a gap has none."""
        values = np.full((len(gaps), len(lams)), np.nan)
        for row, gap, gap_lams in zip(values, gaps, lams_of_gaps, strict=True):
            row[np.searchsorted(lams, gap_lams)] = gap[name][key]
        return values

    figures.comparison(
        path,
        lams=lams,
        names=names,
        gaps={label: align(name, "at_lambdas") for name, label in labels.items()},
        intervals={label: (align(name, "low"), align(name, "high")) for name, label in labels.items()},
        **options,
    )


def _format_table(
    names: Sequence[str],
    summaries: Sequence[xr.Dataset],
    metrics: Sequence[str],
    gaps: Sequence[dict[str, Any]],
) -> str:
    """Table 1 of the paper with the best value of each metric, and a table of each pair's gaps, as Markdown."""
    labels = [METRIC_TABLE[metric].axis_label for metric in metrics]
    lines = [
        f"| run | parameters | training | one reconstruction | {' | '.join(f'best {label}' for label in labels)} |",
        "| --- " * (4 + len(metrics)) + "|",
    ]
    for name, summary in zip(names, summaries, strict=True):
        attrs = summary.attrs
        training = logs.duration(attrs["training_seconds"]) if "training_seconds" in attrs else ""
        values = [f"{scores.find_best(summary, metric)[1]:.4g}" for metric in metrics]
        inference = f"{1000 * attrs['inference_seconds']:.1f} ms"
        lines.append(f"| {name} | {attrs['parameters']:,} | {training} | {inference} | {' | '.join(values)} |")
    for gap in gaps:
        lines += ["", f"{gap['of']} against {gap['to']} at {len(gap['lambdas'])} lambdas, above 0 where it is better:", ""]
        lines += [f"| | {' | '.join(labels)} |", "| --- " * (1 + len(metrics)) + "|"]
        for key in ("mean", "worst"):
            lines.append(f"| {key} | {' | '.join(f'{gap[metric][key]:+.4f}' for metric in metrics)} |")
    return "\n".join(lines)


def _draw(
    names: Sequence[str],
    summaries: Sequence[xr.Dataset],
    metrics: Sequence[str],
    gaps: Sequence[dict[str, Any]],
    out: Path,
) -> None:
    """Draw curves and gaps over one lambda, or landscapes of PSNR over two."""
    means = [summary.sel(statistic="mean") for summary in summaries]
    lams = sorted(str(dim) for dim in means[0].dims)
    if len(lams) == 1:
        ends = lambda_ends(summaries[0].attrs["terms"].split(","))
        curves = [make_curve(summary, name, metrics) for name, summary in zip(names, summaries, strict=True)]
        figures.metric_curves(out / "comparison.png", curves=curves, metrics=metrics, ends=ends)
        if gaps:
            has_several = len({gap["to"] for gap in gaps}) > 1
            labels = [f"{gap['of']} − {gap['to']}" if has_several else gap["of"] for gap in gaps]
            draw_gaps(out / "gaps.png", gaps, labels, ends=ends)
    elif len(lams) == 2:
        values = [
            figures.interpolate(ds["psnr"].transpose(*lams).values, (ds[lams[0]].values, ds[lams[1]].values))
            for ds in means
        ]
        figures.landscapes(
            out / "comparison.png",
            values=np.stack(values)[None],
            rows=[""],
            columns=names,
            label=METRIC_TABLE["psnr"].axis_label,
            heading="",
        )
