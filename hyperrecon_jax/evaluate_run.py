"""Evaluate a run over its whole range of lambda, and compare runs: numbers, tables and pictures in a folder.

    OUT/scores.nc        the scores of every image at every lambda (`scores.py`), which xarray and others open without us
    OUT/scores.csv       what they come to at each lambda: over slices, over subjects, with bootstrap intervals
    OUT/evaluation.json  the same, with the best lambda of each metric, the diverse pairs and the time it took
    OUT/curves.png       metrics over lambda (two losses; Figs. 3, 5), or landscape_METRIC.png (three; Fig. 4)
    OUT/slices.png       a slice over lambda (Fig. 6)
    OUT/pairs.png        two good reconstructions that differ most (Sec. V-H, Fig. 7)

Every picture is there as PDF, too.
"""

import hashlib
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from hyperrecon_jax import checkpoint, diverse, evaluate, figures, hyperparams, logs, report, scores
from hyperrecon_jax.data import with_labels
from hyperrecon_jax.errors import InputError
from hyperrecon_jax.experiment import SHORT, Experiment, load
from hyperrecon_jax.experiment import segmenter as segmentation
from hyperrecon_jax.model import network_at
from hyperrecon_jax.operators import magnitude
from hyperrecon_jax.report import Say
from hyperrecon_jax.train import TrainState

SCORES, TABLE, RESULTS, UNFINISHED = "scores.nc", "scores.csv", "evaluation.json", "unfinished.npz"
METRICS = ("psnr", "rpsnr", "ssim", "mae", "hfen", "data_consistency")
POINTS = {1: 100, 2: 21}  # of a grid along each lambda, for one and for two of them
PAIRS = 3  # slices whose diverse pair is sought


class Evaluated(NamedTuple):
    """A run and what its evaluation needs."""

    experiment: Experiment
    state: TrainState
    images: np.ndarray  # (n, h, w, 1), or (n, h, w, 2) with labels
    places: np.ndarray  # (n,), their places in the split
    subjects: np.ndarray  # (n,)
    axes: list[np.ndarray]  # of the K-1 lambdas


def evaluate_run(
    run: Path,
    out: Path,
    *,
    data: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = METRICS,
    points: int | None = None,
    count: int | None = None,
    segmenter: Path | None = None,
    say: Say = print,
) -> xr.Dataset:
    """Score a run over a grid of lambdas, and write all that the module's first lines list.

    Args:
        run: the folder of a run.
        out: where the results go; made if it is not there. The same call goes on after an interruption.
        data: settings like `config.data`, to score the test images of other data than the run's own.
        metrics: of `evaluate.METRICS`.
        points: of the grid along each lambda; of an ensemble and of a network for one lambda, theirs alone.
        count: how many test images, spread over the split; none given: all.
        segmenter: the folder of a run of the task "segmentation", for the metric "dice" on reconstructions (Sec. V-E).

    Returns:
        The content of `scores.nc`.

    Raises:
        InputError: if there is no such run, or for images or metrics that do not fit; before anything is written.
    """
    if segmenter is None and "dice" in metrics:
        raise InputError("The metric dice needs a network that segments: --segmenter RUN.")
    segment = segmentation(segmenter) if segmenter is not None else None
    prepared = prepare(run, data=data, points=points, count=count, labels=segment is not None)
    experiment, variables = prepared.experiment, report.variables(prepared.state)
    setup = experiment.setup
    if segmenter is not None:
        metrics = tuple(dict.fromkeys((*metrics, "dice")))
    score = evaluate.make_score(setup.model, setup.objective, setup.operator, setup.observe, names=metrics, segment=segment)
    size = int(np.prod([len(axis) for axis in prepared.axes]))
    say(f"Scoring {len(prepared.images)} images at {size} lambdas ...")
    with checkpoint.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        values, of_input = evaluate.landscape(
            score,
            variables,
            prepared.images,
            prepared.axes,
            experiment.key_test,
            kept=out / UNFINISHED,
            progress=True,
        )
        seconds = time.monotonic() - start
        ds = scores.dataset(
            prepared.axes,
            values,
            of_input=of_input,
            subjects=prepared.subjects,
            index=prepared.places,
            attrs=_about(run, prepared),
        )
        scores.save(out / SCORES, ds)
        scores.write_csv(out / TABLE, ds)
        pairs = _pictures(prepared, ds, out) if "psnr" in ds else []
        best = {name: scores.best(ds, name) for name in metrics}
        checkpoint.write_json(
            out / RESULTS,
            {
                "run": str(run),
                "images": len(prepared.images),
                "lambdas": size,
                "seconds": seconds,
                "best": {name: {"lambda": list(lam), "mean": value} for name, (lam, value) in best.items()},
                "diverse_pairs": pairs,
                "table": scores.rows(ds),
            },
        )
    say(f"{len(prepared.images) * size / seconds:.0f} reconstructions a second, {logs.duration(seconds)} in all.")
    say(table(ds))
    say(f"Look at {', '.join(sorted(str(path) for path in out.glob('*.png')))}; the scores are in {out / SCORES}.")
    return ds


def prepare(
    run: Path,
    *,
    data: Mapping[str, Any] | None = None,
    points: int | None = None,
    count: int | None = None,
    labels: bool = False,
) -> Evaluated:
    """Load a run, choose its test images and the grid of lambdas.

    Args:
        run, data, points, count: those of `evaluate_run`.
        labels: whether the images come with their labels.
    """
    experiment, state = load(run, data=data)
    config = experiment.config
    if config.task.name == "segmentation":
        raise InputError(
            f"{run} must hold a run that reconstructs, got one that segments; its Dice is in its summary.json."
        )
    split = with_labels(experiment.dataset.test) if labels else experiment.dataset.test
    if points is not None and points < 2:
        raise InputError(f"A grid of lambdas needs at least 2 points, got {points}.")
    if count is not None and not 1 <= count <= len(split.images):
        raise InputError(f"The number of images must be in [1, {len(split.images)}], got {count}.")
    index = np.linspace(0, len(split.images) - 1, count or len(split.images)).astype(np.int32)
    num_lams = len(config.loss.terms) - 1
    if config.lam.sampling == "ensemble":
        axes = [np.asarray(axis, np.float32) for axis in config.lam.axes]
    elif config.lam.sampling == "constant":
        axes = [np.asarray([value], np.float32) for value in config.lam.value]
    else:
        axes = [np.linspace(0, 1, points or POINTS.get(num_lams, 5), dtype=np.float32)] * num_lams
    return Evaluated(experiment, state, split.images[index], index, split.subjects[index], axes)


def table(ds: xr.Dataset) -> str:
    """The best lambda of each metric and what it gives, as text."""
    known = scores.summary(ds)
    lines = [f"{'metric':<18}{'input':>10}{'best':>10}  at lambda     95 % interval over subjects"]
    for name in map(str, ds.data_vars):
        if name not in scores.METRICS:
            continue
        lam, value = scores.best(ds, name)
        there = known[name].sel({f"lam_{k}": v for k, v in enumerate(lam, start=1)})
        before = f"{float(known[f'input_{name}'].sel(statistic='mean')):10.4f}" if f"input_{name}" in known else " " * 10
        low, high = (float(there.sel(statistic=end)) for end in ("low", "high"))
        lines.append(f"{name:<18}{before}{value:10.4f}  {_title(np.asarray(lam))[4:]:<12}  {low:.4f} to {high:.4f}")
    return "\n".join(lines)


def compare(runs: Sequence[Path], out: Path, *, say: Say = print) -> list[dict[str, Any]]:
    """One table and one picture of several runs on the same test images; those not evaluated yet are.

    Writes `comparison.md`, `comparison.json`, and `comparison.png` (curves, or landscapes of two lambdas). Where there are
    networks for fixed lambdas among the runs, every HyperRecon is measured against them at their lambdas, between the
    points of its grid by linear interpolation: `gaps.png`.

    Args:
        runs: folders of two runs or more, of the same losses.
        out: where the results go.

    Returns:
        The gaps: for each pair of a HyperRecon and fixed networks and each metric "mean", and "worst" over lambda, above 0
        where the HyperRecon is better.

    Raises:
        InputError: if the runs do not compare.
    """
    names = [run.name for run in runs]
    names = names if len({*names}) == len(names) else [str(run) for run in runs]
    sets = [_evaluated(run, say=say) for run in runs]
    for name, ds in zip(names[1:], sets[1:], strict=True):
        for what in ("terms", "test_images"):
            if ds.attrs[what] != sets[0].attrs[what]:
                raise InputError(f"The runs must have the same {what.replace('_', ' ')}: {names[0]} and {name} do not.")
    metrics = [name for name in ("psnr", "ssim", "mae", "hfen", "dice") if all(name in ds for ds in sets)]
    means = [scores.summary(ds[metrics]).sel(statistic="mean") for ds in sets]
    found = [
        _gaps(ours, theirs, metrics) | {"of": names[i], "to": names[j]}
        for i, ours in enumerate(means)
        for j, theirs in enumerate(means)
        if sets[i].attrs["kind"] == "hypernetwork" and sets[j].attrs["kind"] != "hypernetwork"
    ]
    lines = _comparison_table(names, sets, means, metrics, found)
    with checkpoint.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "comparison.md").write_text(lines + "\n")
        checkpoint.write_json(out / "comparison.json", {"runs": [str(run) for run in runs], "gaps": found})
        _draw_comparison(names, sets, means, metrics, found, out)
    say(f"{lines}\n\nLook at {out / 'comparison.png'}; the table is in {out / 'comparison.md'}.")
    return found


def _evaluated(run: Path, *, say: Say) -> xr.Dataset:
    """The scores of a run over its own test images, computed where they are not there or of another state."""
    file = run / "evaluation" / SCORES
    if file.exists():
        ds = scores.load(file)
        if ds.attrs.get("steps") == checkpoint.steps_reported(run):
            return ds
    return evaluate_run(run, file.parent, say=say)


def _gaps(ours: xr.Dataset, theirs: xr.Dataset, metrics: Sequence[str]) -> dict[str, Any]:
    """By how much the means of a HyperRecon are better than those of fixed networks, at their lambdas."""
    lams = sorted(str(dim) for dim in theirs.dims)
    there = ours.interp({lam: theirs[lam] for lam in lams}, method="linear").transpose(*lams)
    found: dict[str, Any] = {"lambdas": hyperparams.product([theirs[lam].values for lam in lams]).tolist()}
    for name in metrics:
        gap = (there[name] - theirs.transpose(*lams)[name]).values.ravel() * (1 if name in scores.HIGHER else -1)
        found[name] = {"mean": float(gap.mean()), "worst": float(gap.min()), "at_lambdas": gap.tolist()}
    return found


def _comparison_table(
    names: Sequence[str],
    sets: Sequence[xr.Dataset],
    means: Sequence[xr.Dataset],
    metrics: Sequence[str],
    gaps: Sequence[dict[str, Any]],
) -> str:
    """Table 1 of the paper with the best of each metric; and the gaps."""
    shown = [figures.upward(metric)[0].removeprefix("n") for metric in metrics]
    lines = [
        f"| run | parameters | training | one reconstruction | {' | '.join(f'best {name}' for name in shown)} |",
        "| --- " * (4 + len(metrics)) + "|",
    ]
    for name, ds in zip(names, sets, strict=True):
        training = logs.duration(ds.attrs["training_seconds"]) if "training_seconds" in ds.attrs else ""
        values = [f"{scores.best(ds, metric)[1]:.4g}" for metric in metrics]
        inference = f"{1000 * ds.attrs['inference_seconds']:.1f} ms"
        lines.append(f"| {name} | {ds.attrs['parameters']:,} | {training} | {inference} | {' | '.join(values)} |")
    for row in gaps:
        lines += ["", f"{row['of']} against {row['to']} at {len(row['lambdas'])} lambdas, above 0 where it is better:", ""]
        lines += [f"| | {' | '.join(shown)} |", "| --- " * (1 + len(metrics)) + "|"]
        for what in ("mean", "worst"):
            lines.append(f"| {what} | {' | '.join(f'{row[metric][what]:+.4f}' for metric in metrics)} |")
    return "\n".join(lines)


def _draw_comparison(names, sets, means, metrics, gaps, out):
    lams = sorted(str(dim) for dim in means[0].dims)
    if len(lams) == 1:
        terms = sets[0].attrs["terms"].split(",")
        ends = (SHORT.get(terms[0], terms[0]), SHORT.get(terms[1], terms[1]))
        curves = [curve_of(ds, name, metrics) for name, ds in zip(names, sets, strict=True)]
        figures.metric_curves(out / "comparison.png", curves=curves, metrics=metrics, ends=ends)
        if gaps:
            figures.comparison(
                out / "gaps.png",
                lams=np.array(gaps[0]["lambdas"])[:, 0],
                names=[row["of"] for row in gaps],
                gaps={
                    name: np.array([row[name]["at_lambdas"] for row in gaps]) * (1 if name in scores.HIGHER else -1)
                    for name in metrics
                },
                ends=ends,
            )
    elif len(lams) == 2:
        axes = [(one[lams[0]].values, one[lams[1]].values) for one in means]
        values = [
            figures.interpolate(one["psnr"].transpose(*lams).values, axis) for one, axis in zip(means, axes, strict=True)
        ]
        figures.landscapes(
            out / "comparison.png", values=np.stack(values)[None], rows=[""], columns=names, label="PSNR (dB)", heading=""
        )


def curve_of(ds: xr.Dataset, name: str, metrics: Sequence[str]) -> figures.Curve:
    """The scores over the only lambda, as `figures.metric_curves` draws them."""
    known = scores.summary(ds)
    metrics = [metric for metric in metrics if metric in ds]
    return figures.Curve(
        name,
        ds["lam_1"].values,
        {metric: known[metric].sel(statistic="mean").values for metric in metrics},
        {
            metric: (known[metric].sel(statistic="low").values, known[metric].sel(statistic="high").values)
            for metric in metrics
        },
        continuous=ds.attrs["kind"] == "hypernetwork",
    )


def _about(run: Path, prepared: Evaluated) -> dict[str, Any]:
    """The attributes of the scores."""
    config, model = prepared.experiment.config, prepared.experiment.setup.model
    kind = "hypernetwork" if model.hyper else "ensemble" if model.members else "network"
    summary = run / checkpoint.SUMMARY
    return {
        "run": run.name,
        "kind": kind,
        "terms": ",".join(config.loss.terms),
        "scales": list(prepared.experiment.setup.objective.scales),
        "steps": int(prepared.state.step),
        "test_images": hashlib.sha256(np.ascontiguousarray(prepared.images[..., 0]).tobytes()).hexdigest(),
        "parameters": report.parameter_counts(prepared.experiment)["trained"],
        "training_seconds": checkpoint.read_json(summary)["seconds"] if summary.exists() else None,
        "inference_seconds": _inference_seconds(prepared),
    }


def _inference_seconds(prepared: Evaluated, *, repeats: int = 5) -> float:
    """The time from one lambda and one measurement to one reconstruction, a median (Table 1)."""
    setup, variables = prepared.experiment.setup, report.variables(prepared.state)

    @jax.jit
    def one(variables, lam, y):
        return evaluate.apply_main(setup.model, *network_at(setup.model, variables, lam), setup.operator.lift(y))

    lam = jnp.asarray([axis[0] for axis in prepared.axes])
    y = setup.observe(prepared.experiment.key_test, jnp.asarray(prepared.images[0, ..., :1]))
    took = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(one(variables, lam, y))
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


def _pictures(prepared: Evaluated, ds: xr.Dataset, out: Path) -> list[dict[str, Any]]:
    """All pictures of a run; returns the diverse pairs."""
    experiment, terms = prepared.experiment, prepared.experiment.config.loss.terms
    num_lams = len(prepared.axes)
    drawn = [name for name in map(str, ds.data_vars) if name in (*evaluate.WITH_TRUTH, "rpsnr", "dice")]
    if num_lams == 1 and len(prepared.axes[0]) > 1:
        shown = [name for name in drawn if name != "rpsnr"]  # which is the same curve
        ends = (SHORT.get(terms[0], terms[0]), SHORT.get(terms[1], terms[1]))
        name = ds.attrs["run"]
        figures.metric_curves(out / "curves.png", curves=[curve_of(ds, name, shown)], metrics=shown, ends=ends, mark=name)
    elif num_lams == 2 and min(map(len, prepared.axes)) > 1:
        known = scores.summary(ds)
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
    chosen = report.pictured(prepared.subjects)
    truth = jnp.asarray(prepared.images[chosen, ..., :1])
    y = jax.jit(partial(evaluate.measure, experiment.setup.observe))(experiment.key_test, truth, chosen)
    inputs = np.asarray(magnitude(experiment.setup.operator.lift(y)))[..., 0]
    _slices(
        prepared, ds, out, chosen[len(chosen) // 2], truth[len(chosen) // 2], y[len(chosen) // 2], inputs[len(chosen) // 2]
    )
    return _pairs(prepared, ds, out, chosen, truth, y, inputs)


def _slices(prepared: Evaluated, ds: xr.Dataset, out: Path, place: int, truth: Any, y: Any, input: np.ndarray) -> None:
    experiment = prepared.experiment
    setup = experiment.setup
    lams = experiment.lams
    x_hat = evaluate.reconstructions(setup.model, setup.operator, report.variables(prepared.state), y[None], lams)[:, 0]
    of = jax.vmap(evaluate.WITH_TRUTH["psnr"], (0, None))
    figures.slices(
        out / "slices.png",
        truth=np.asarray(truth)[..., 0],
        input=input,
        x_hat=np.asarray(x_hat)[None, ..., 0],
        titles=[_title(lam) for lam in lams],
        psnr=np.asarray(of(x_hat, truth))[None],
        rows=[ds.attrs["run"]],
        input_psnr=float(ds["input_psnr"][place]),
    )


def _title(lam: np.ndarray) -> str:
    """`[0.25]` -> "λ = 0.25", `[0.5, 1]` -> "λ = (0.5, 1)"."""
    values = ", ".join(f"{v:.2g}" for v in lam)
    return f"λ = {values}" if len(lam) == 1 else f"λ = ({values})"


def _pairs(
    prepared: Evaluated, ds: xr.Dataset, out: Path, chosen: np.ndarray, truth: Any, y: Any, inputs: np.ndarray
) -> list[dict[str, Any]]:
    """Of some slices the two good reconstructions that differ most (Sec. V-H): only the good ones are made again."""
    setup, variables = prepared.experiment.setup, report.variables(prepared.state)
    lams = hyperparams.product(prepared.axes)
    if len(lams) < 3:
        return []
    images, titles, psnrs, pairs = [], [], [], []
    for i, place in enumerate(chosen):
        psnr = ds["psnr"].values.reshape(len(lams), -1)[:, place]
        good = diverse.good(psnr)
        x_hat = evaluate.reconstructions(setup.model, setup.operator, variables, y[i : i + 1], lams[good])[:, 0]
        first, second, distance = diverse.furthest_pair(np.asarray(x_hat))
        both = [first, second]
        images.append(np.asarray(x_hat)[both, ..., 0])
        titles.append([_title(lams[good[j]]) for j in both])
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
        truth=np.asarray(truth)[..., 0],
        input=inputs,
        x_hat=np.stack(images),
        titles=titles,
        psnr=np.stack(psnrs),
        input_psnr=ds["input_psnr"].values[chosen],
    )
    return pairs
