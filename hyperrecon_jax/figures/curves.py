"""Metrics over lambda (Figs. 3 and 5), and how far HyperRecon is from the U-Nets.

Higher is better in every panel: errors (`mae`, `mse`, `hfen`) are negated here and named with an "n", as in Sec. V-E;
metrics that are negated already (`nmae`, ...) are taken as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hyperrecon_jax.figures import style

LAMBDA = r"$\lambda$"
NAMES = {"psnr": "PSNR", "rpsnr": "rPSNR", "ssim": "SSIM", "mae": "MAE", "mse": "MSE", "hfen": "HFEN", "dice": "Dice"}
UNITS = {"psnr": " (dB)", "rpsnr": " (dB)"}
ERRORS = ("mae", "mse", "hfen")
Interval = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Curve:
    """What a run, or a set of U-Nets, reaches over lambda.

    Attributes:
        name: for the legend.
        lams: `(l,)` in [0, 1], ascending.
        means: `(l,)` for each metric.
        intervals: (low, high), each `(l,)`, for those metrics that have one.
        continuous: one network for all lambdas, a line with a band; else a network for each, points with bars.
        group: curves of one group share a colour, such as a task's HyperRecon and U-Nets (Fig. 5); none: its own.
    """

    name: str
    lams: np.ndarray
    means: Mapping[str, np.ndarray]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    continuous: bool = True
    group: str = ""

    def best(self, metric: str) -> float:
        """The lambda of the best value."""
        return float(self.lams[np.nanargmax(upward(metric)[1] * np.asarray(self.means[metric]))])


def metric_curves(
    path: Path,
    *,
    curves: Sequence[Curve],
    metrics: Sequence[str] = (),
    label_x: str = LAMBDA,
    ends: tuple[str, str] | None = None,
    mark: str = "",
    interval: str = "95 % interval",
    heading: str = "",
) -> None:
    """A panel for each metric, any number of curves in it, a star at each line's maximum (Figs. 3 and 5).

    Args:
        path: of the PNG to write; the PDF is written beside it.
        curves: may lack a metric.
        metrics: the panels; none: those of the first curve. One alone makes a figure of a single column.
        label_x: of lambda.
        ends: what lambda = 0 and lambda = 1 stand for, such as ("MAE", "1−SSIM").
        mark: the name of a curve whose best lambda gets a labelled vertical line, as for Dice in Fig. 3.
        interval: what the bands and bars are.
        heading: a line over the picture.
    """
    metrics = metrics or list(curves[0].means)
    looks = _looks(curves)
    with style.paper():
        figure, axes, spare = _panels(len(metrics), heading)
        for axis, metric in zip(axes, metrics, strict=True):
            label, sign = upward(metric)
            axis.set_ylabel(f"{label} ↑")
            for curve, look in zip(curves, looks, strict=True):
                if metric not in curve.means:
                    continue
                _draw(axis, curve, metric, sign, look)
                if curve.name == mark:
                    _mark(axis, curve.best(metric), look["color"])
            _lambda_axis(axis, label_x, ends, sparse=len(metrics) > 2)
        handles: list[Artist] = [Line2D([], [], label=c.name, **look) for c, look in zip(curves, looks, strict=True)]
        if any(curve.continuous for curve in curves):
            handles.append(Line2D([], [], label="maximum of a line", **_star("white")))
        if any(curve.intervals for curve in curves):
            handles.append(Patch(color="0.8", label=interval))
        style.legend(figure, handles, spare)
        style.save(figure, path)


def comparison(
    path: Path,
    *,
    lams: np.ndarray,
    names: Sequence[str],
    gaps: Mapping[str, np.ndarray],
    intervals: Mapping[str, Interval] | None = None,
    tolerance: Mapping[str, float] | None = None,
    label_x: str = LAMBDA,
    ends: tuple[str, str] | None = None,
    interval: str = "95 % interval",
    heading: str = "HyperRecon − U-Nets; above zero is better",
) -> None:
    """How far HyperRecon is from a U-Net for each lambda: a panel for each metric, a line for each experiment.

    Args:
        path: of the PNG to write; the PDF is written beside it.
        lams: `(l,)`, those of the U-Nets.
        names: of the e experiments.
        gaps: HyperRecon minus U-Net, `(e, l)` for each metric; NaN where there is none. Errors are negated here.
        intervals: (low, high) of the gaps, each `(e, l)`; the experiments then stand a little beside one another.
        tolerance: half the width of a gray band about zero, for each metric that has one.
        label_x: of lambda.
        ends: what lambda = 0 and lambda = 1 stand for.
        interval: what the bars are.
        heading: a line over the picture.
    """
    intervals, tolerance = intervals or {}, tolerance or {}
    looks = [_look(i, i, i) | {"linewidth": 1.0} for i in range(len(names))]
    with style.paper():
        figure, axes, spare = _panels(len(gaps), heading)
        for axis, (metric, values) in zip(axes, gaps.items(), strict=True):
            label, sign = upward(metric)
            axis.set_ylabel(f"Δ {label}")
            axis.axhline(0, color="black", linewidth=0.8)
            if metric in tolerance:
                axis.axhspan(-tolerance[metric], tolerance[metric], color="0.88", linewidth=0)
            for i, look in enumerate(looks):
                shift = 0.016 * (i - (len(names) - 1) / 2) if intervals else 0.0
                bounds = [bound[i] for bound in intervals[metric]] if metric in intervals else None
                _points(axis, np.asarray(lams) + shift, sign * np.asarray(values[i]), _turned(bounds, sign), look)
            _lambda_axis(axis, label_x, ends, sparse=len(gaps) > 2)
        handles: list[Artist] = [Line2D([], [], label=name, **look) for name, look in zip(names, looks, strict=True)]
        if tolerance:
            handles.append(Patch(color="0.88", label="tolerance"))
        if intervals:
            handles.append(Line2D([], [], color="0.4", marker="|", markersize=9, linestyle="", label=interval))
        style.legend(figure, handles, spare)
        style.save(figure, path)


def upward(metric: str) -> tuple[str, int]:
    """A metric's label, with its unit, and the sign that makes higher better."""
    if metric in ERRORS:
        return f"n{NAMES[metric]}", -1
    if metric[:1] == "n" and metric[1:] in ERRORS:
        return f"n{NAMES[metric[1:]]}", 1
    return NAMES.get(metric, metric) + UNITS.get(metric, ""), 1


def _panels(count: int, heading: str) -> tuple[Figure, list[Axes], Axes | None]:
    """A figure of one or two columns of the paper with that many panels, and an empty one if a place is left."""
    columns = 4 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    width = style.SINGLE if count == 1 else style.DOUBLE
    lines = style.heading(heading, width)
    height = 0.3 + 1.75 * rows + 0.3 * (columns < 3) + 0.15 * len(lines.splitlines())
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for empty in axes[count:]:
        empty.set_axis_off()
    if heading:
        figure.suptitle(lines)
    return figure, list(axes[:count]), axes[-1] if len(axes) > count else None


def _looks(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Colour by group, dash of the lines and marker of the points by their order."""
    groups = list(dict.fromkeys(curve.group or curve.name for curve in curves))
    looks = []
    for i, curve in enumerate(curves):
        order = sum(other.continuous == curve.continuous for other in curves[:i])
        color = groups.index(curve.group or curve.name)
        looks.append(_look(color, order, None) if curve.continuous else _look(color, None, order))
    return looks


def _look(color: int, dash: int | None, marker: int | None) -> dict[str, Any]:
    """How a line is drawn; no dash: points alone; no marker: a line alone."""
    return {
        "color": style.COLORS[color % len(style.COLORS)],
        "linestyle": "" if dash is None else style.DASHES[dash % len(style.DASHES)],
        "marker": "" if marker is None else style.MARKERS[marker % len(style.MARKERS)],
        "markerfacecolor": "white",
    }


def _draw(axis: Axes, curve: Curve, metric: str, sign: int, look: Mapping[str, Any]) -> None:
    values, bounds = sign * np.asarray(curve.means[metric]), _turned(curve.intervals.get(metric), sign)
    if not curve.continuous:
        _points(axis, curve.lams, values, bounds, look)
        return
    if bounds:
        axis.fill_between(curve.lams, *bounds, color=look["color"], alpha=0.2, linewidth=0)
    axis.plot(curve.lams, values, zorder=2, **look)
    axis.plot(curve.best(metric), np.nanmax(values), zorder=2.2, **_star(look["color"]))


def _points(axis: Axes, lams: np.ndarray, values: np.ndarray, bounds: Interval | None, look: Mapping[str, Any]) -> None:
    """Points with bars, which need not be centred on them."""
    if bounds:
        axis.vlines(lams, *bounds, color=look["color"], linewidth=0.9, zorder=2.1)
    axis.plot(lams, values, zorder=3, clip_on=False, **look)


def _turned(bounds: Sequence[np.ndarray] | None, sign: int) -> Interval | None:
    if bounds is None:
        return None
    low, high = (sign * np.asarray(bound) for bound in bounds)
    return (low, high) if sign > 0 else (high, low)


def _star(color: str) -> dict[str, Any]:
    return {
        "marker": "*",
        "markersize": 9,
        "markerfacecolor": color,
        "markeredgecolor": "black",
        "markeredgewidth": 0.6,
        "linestyle": "",
        "clip_on": False,
    }


def _mark(axis: Axes, lam: float, color: str) -> None:
    """A vertical line, its label over the panel, where it covers nothing."""
    axis.axvline(lam, color=color, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axis.text(lam, 1.02, rf"best $\lambda$ = {lam:.2f}", transform=axis.get_xaxis_transform(), ha="center", va="bottom")


def _lambda_axis(axis: Axes, label: str, ends: tuple[str, str] | None, *, sparse: bool) -> None:
    ticks = ["0", "", "0.5", "", "1"] if sparse else ["0", "0.25", "0.5", "0.75", "1"]
    if ends is not None:
        ticks = [f"{tick}\n{end}" for tick, end in zip(ticks, (ends[0], " ", " ", " ", ends[1]), strict=True)]
    axis.set_xlim(-0.04, 1.04)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ticks)
    axis.set_xlabel(label, labelpad=2 if ends is None else -8)  # beside what the ends mean, not under it
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=style.STEPS))
    axis.grid(color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
