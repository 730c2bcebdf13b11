"""The content of the report, for any page that shows it: what the paper shows and says, and ours beside it.

Pictures are drawn by `figures` into OUT/figures, or are those of the evaluated runs; all numbers are `numbers.gather`'s.
"""

import dataclasses
import datetime
import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from hyperrecon_jax import figures
from hyperrecon_jax.commands import compare
from hyperrecon_jax.commands.evaluation_pictures import lambda_ends, lambda_title, make_curve
from hyperrecon_jax.evaluation import scores
from hyperrecon_jax.runs import logs, run_folder
from hyperrecon_jax.studies.baseline_study import TOLERANCE
from hyperrecon_jax.studies.dhs_study import best_quarter
from hyperrecon_jax.studies.paper import claims, numbers
from hyperrecon_jax.studies.paper.criteria import shown
from hyperrecon_jax.studies.paper.numbers import Numbers, evaluated
from hyperrecon_jax.studies.paper.papers import INTRODUCTION, PAPER, SEE, TITLE
from hyperrecon_jax.studies.paper.plan import AO_UNETS, FIGURES, SIZES, TASKS, Scale, commands

CURVES = ("psnr", "ssim", "mae", "hfen")
NAMES = {"unet": "one U-Net", "all": "all 361 U-Nets", **{size: f"HyperRecon-{size}" for size in SIZES}}


class Picture(NamedTuple):
    """A picture and what to see in it."""

    file: Path
    caption: str


class Table(NamedTuple):
    """Rows of text under a head."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


class Section(NamedTuple):
    """A figure or table of the paper."""

    key: str  # of `plan.FIGURES`
    title: str
    paper: str  # what it shows there, in our words
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]
    commands: tuple[str, ...]  # that make it


class Report(NamedTuple):
    """All of it."""

    title: str
    introduction: str
    about: tuple[tuple[str, str], ...]
    verdicts: tuple[claims.Verdict, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]  # what differs from the paper


def make(scale: Scale, out: Path, found: Numbers, failures: Sequence[str] = ()) -> Report:
    """Draw what there are numbers for, and put everything together.

    Args:
        scale: what the pieces are.
        out: their folder.
        found: what `numbers.gather` found in it.
        failures: what went wrong, to be told.
    """
    folder, command = out / "figures", f"python -m bin.reproduce --scale {scale.name} --out {out}"
    with run_folder.explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        drawn = {
            "fig3": _curves(scale, out, "fig3", [task for task in ("csmri", "csmri4x") if task in scale.tasks]),
            "fig5": _curves(scale, out, "fig5", scale.tasks) + _gaps(scale, out),
            "dice": _dice(scale, out),
            "fig6": _slices(scale, out),
            "fig4": _landscapes(scale, out),
            "dhs": _there(out / "ao-L-dhs-0" / "dhs_histogram.png", SEE["dhs"]),
            "fig7": _there(out / "ao-L-dhs-0" / "diverse" / "pairs.png", SEE["fig7"]),
        }
    tables = {
        "table1": _table1(found),
        "fig5": _gap_table(found),
        "fig6": _look_table(found),
        "fig4": _quarters(scale, out),
    }
    sections = tuple(
        Section(
            key,
            name,
            PAPER[key],
            tuple(drawn.get(key, ())),
            tuple(tables.get(key, ())),
            (
                f"{command} --only {key}",
                *(line for piece in scale.pieces if key in piece.figures for line in commands(piece, out)),
            ),
        )
        for key, name in FIGURES.items()
    )
    done = [row["training_seconds"] for row in found.get("table", {}).values()]
    about = (
        ("Paper", "A. Q. Wang, A. V. Dalca, M. R. Sabuncu, MELBA 2022, doi:10.59275/j.melba.2022-e5ec"),
        ("Scale", f"{scale.name}: {scale.about}"),
        ("Made", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")),
        ("With", f"hyperrecon_jax {_version('hyperrecon_jax')}, jax {_version('jax')}, flax {_version('flax')}"),
        ("On", f"{os.cpu_count()} CPU cores, JAX's device: {jax.devices()[0].device_kind}"),
        ("Training so far", f"{logs.duration(sum(done))} in {len(done)} runs" if done else "none"),
        ("Command", command),
    )
    notes = (*scale.notes, *(f"This went wrong: {failure}" for failure in failures))
    heading = f"{TITLE}: reproduced at the scale “{scale.name}”"
    return Report(heading, INTRODUCTION, about, tuple(claims.verdicts(found)), sections, notes)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # used from its folder
        return "(not installed)"


def _there(file: Path, caption: str) -> list[Picture]:
    return [Picture(file, caption)] if file.exists() else []


def _curves(scale: Scale, out: Path, key: str, tasks: Sequence[str]) -> list[Picture]:
    """Metrics over lambda: U-Nets as points, HyperRecon-L as a line, a colour for each task."""
    curves, terms = [], None
    for task in tasks:
        for name, kind in (("L", "HyperRecon-L"), ("unets", "U-Nets")):
            ds = evaluated(scale, out, f"{task}-{name}")
            if ds is not None:
                terms = ds.attrs["terms"].split(",")
                curve = make_curve(scores.summarize(ds), f"{kind}, {TASKS[task]}", CURVES)
                curves.append(dataclasses.replace(curve, group=task))
    if not curves or terms is None:
        return []
    file = out / "figures" / f"{key}.png"
    figures.metric_curves(file, curves=curves, metrics=CURVES, ends=lambda_ends(terms))
    return [Picture(file, SEE[key])]


def _gaps(scale: Scale, out: Path) -> list[Picture]:
    rows, names, terms = [], [], None
    for task in scale.tasks:
        file, ds = out / f"{task}-comparison" / "comparison.json", evaluated(scale, out, f"{task}-L")
        if file.exists() and ds is not None:
            rows += [row for row in run_folder.read_json(file)["gaps"] if row["of"] == f"{task}-L"]
            names.append(TASKS[task])
            terms = ds.attrs["terms"].split(",")
    if not rows or terms is None:
        return []
    file = out / "figures" / "gaps.png"
    metrics = [{key: value for key, value in row.items() if key != "dice"} for row in rows]
    compare.draw_gaps(file, metrics, names, ends=lambda_ends(terms), tolerance=TOLERANCE)
    return [Picture(file, SEE["gaps"])]


def _dice(scale: Scale, out: Path) -> list[Picture]:
    curves, terms = [], None
    for task in ("csmri", "csmri4x"):
        for name, kind in (("L", "HyperRecon-L"), ("unets", "U-Nets")):
            ds = evaluated(scale, out, f"{task}-{name}") if task in scale.tasks else None
            if ds is not None and "dice" in ds:
                terms = ds.attrs["terms"].split(",")
                curve = make_curve(scores.summarize(ds), f"{kind}, {TASKS[task]}", ("dice",))
                curves.append(dataclasses.replace(curve, group=task))
    if not curves or terms is None:
        return []
    file = out / "figures" / "dice.png"
    figures.metric_curves(file, curves=curves, metrics=("dice",), ends=lambda_ends(terms), mark=curves[0].name)
    return [Picture(file, SEE["dice"])]


def _slices(scale: Scale, out: Path) -> list[Picture]:
    kept = out / "csmri-look.npz"
    if not kept.exists():
        return []
    with np.load(kept) as look:
        file = out / "figures" / "fig6.png"
        figures.slices(
            file,
            **{name: look[name] for name in ("truth", "input", "x_hat", "psnr")},
            titles=[lambda_title(lam) for lam in look["lams"][:, None]],
            rows=["U-Nets", "HyperRecon-L"],
            input_psnr=float(look["input_psnr"]),
        )
    return [Picture(file, SEE["fig6"])]


def _landscapes(scale: Scale, out: Path) -> list[Picture]:
    values, fixed = numbers.landscapes(scale, out)
    means = values.mean(2).swapaxes(0, 1)  # NaN until all seeds are there
    empty = np.full(means.shape[-2:], np.nan)
    last = np.stack([empty if fixed is None else fixed, empty])[:, None]
    whole = np.concatenate([means, last], 1)
    if np.isnan(whole).all():
        return []
    titles = [[*(f"{size}, {sampling}" for size in SIZES), "U-Nets"] for sampling in ("UHS", "DHS")]
    file = out / "figures" / "fig4.png"
    figures.landscapes(file, values=whole, rows=["", ""], columns=[""] * 4, label="rPSNR (dB)", heading="", titles=titles)
    return [Picture(file, SEE["fig4"])]


def _quarters(scale: Scale, out: Path) -> list[Table]:
    values, fixed = numbers.landscapes(scale, out)
    rows = []
    for i, size in enumerate(SIZES):
        quarters = best_quarter(values[i])
        if not np.isnan(quarters).any():
            each = [" / ".join(map(shown, row)) for row in quarters]
            rows.append((f"HyperRecon-{size}", *each, shown((quarters[1] - quarters[0]).mean(), "+.2f")))
    if fixed is not None:
        rows.append(("U-Nets", shown(float(best_quarter(fixed))), "", ""))
    caption = "Mean rPSNR over the best quarter of each landscape, in dB, seed by seed; the gain is the mean over seeds."
    return [Table(("", "UHS", "DHS", "gain of DHS"), tuple(rows), caption)] if rows else []


def _gap_table(found: Numbers) -> list[Table]:
    metrics = ("psnr", "ssim", "mae", "hfen")
    rows = []
    for task, one in found.get("supervised", {}).items():
        gaps = [np.array(one["metrics"][name]["gaps"]) for name in metrics]
        rows.append((TASKS[task], *(f"{shown(gap.mean(), '+.4f')} ({shown(gap.min(), '+.4f')})" for gap in gaps)))
    head = ("task", *(f"Δ{figures.label_and_sign(name)[0]}" for name in metrics))
    caption = (
        "HyperRecon-L less U-Nets, above 0 where it is better: the mean over the U-Nets' λ and, in brackets, the worst."
    )
    return [Table(head, tuple(rows), caption)] if rows else []


def _look_table(found: Numbers) -> list[Table]:
    if "csmri" not in found.get("look", {}):
        return []
    look = found["look"]["csmri"]
    rows = []
    for what in ("sharpness", "contrast"):
        for name, values in zip(("U-Nets", "HyperRecon-L"), look[what], strict=True):
            rows.append((f"{what}, {name}", *(f"{value:.3f}" for value in values)))
    rows.append(("difference of the two", *(f"{value:.4f}" for value in look["distance"])))
    rows.append(("error of the U-Nets", *(f"{value:.4f}" for value in look["error"])))
    caption = (
        "Means over test slices. Sharpness is the strength of the Laplacian and contrast the standard deviation"
        " inside the head, both relative to the truth's; differences are root mean squares."
    )
    return [Table(("", *(f"λ = {lam:g}" for lam in look["lambdas"])), tuple(rows), caption)]


def _table1(found: Numbers) -> list[Table]:
    table = found.get("table", {})
    counted = found["counted"]
    theirs = {
        "unet": ("~4 h", "149K"),
        "all": ("~648 h", "53M"),
        "S": ("~5 h", "744K"),
        "M": ("~6 h", "4.9M"),
        "L": ("~7 h", "19M"),
    }
    runs = {"unet": "csmri-unets", "all": AO_UNETS, **{size: f"csmri-{size}" for size in SIZES}}
    rows = []
    for key, (hours, parameters) in theirs.items():
        at_paper = numbers.PAPERS_UNETS * counted["unet"] if key == "all" else counted[key]
        ours = ("", "", "")
        if (row := table.get(runs[key])) is not None:
            share = row["members"] if key == "unet" else 1
            ours = (
                f"{row['parameters'] // share:,}",
                logs.duration(row["training_seconds"] / share) + _each(row.get("step_seconds"), share),
                f"{1000 * row['inference_seconds']:.1f} ms",
            )
        name = NAMES[key] if key != "all" or not ours[0] else f"{NAMES[key]} (here {table[AO_UNETS]['members']})"
        rows.append((name, hours, parameters, f"{at_paper:,}", *ours))
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
    return [Table(head, tuple(rows), caption)]


def _each(seconds: float | None, share: int) -> str:
    return "" if seconds is None else f" ({1000 * seconds / share:.0f} ms)"
