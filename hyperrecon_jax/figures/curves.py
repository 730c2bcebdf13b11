"""Metrics over lambda (Figs. 3 and 5), and the gap between HyperRecon and the U-Nets.

Higher is better in every panel. Errors such as `mae` are negated here, and their label starts with an "n", as in Sec. V-E.
Metrics that are already negated, such as `nmae`, are drawn unchanged.
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
from hyperrecon_jax.losses.metric_table import METRICS

LAMBDA = r"$\lambda$"
Interval = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Curve:
    """The metrics of one run, or of a set of U-Nets, over lambda.

    Attributes:
        name: for the legend.
        lams: `(l,)` in [0, 1], ascending.
        means: `(l,)` for each metric.
        intervals: (low, high), `(l,)` each, for the metrics that have an interval.
        continuous: True for one network for all lambdas, drawn as a line with a band. False for one network for each
            lambda, drawn as points with bars.
        group: curves of a group share a colour, such as HyperRecon and U-Nets of a task (Fig. 5). Empty: its own colour.
    """

    name: str
    lams: np.ndarray
    means: Mapping[str, np.ndarray]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    continuous: bool = True
    group: str = ""

    def best(self, metric: str) -> float:
        """The lambda with the best value of a metric."""
        _, sign = label_and_sign(metric)
        return float(self.lams[np.nanargmax(sign * np.asarray(self.means[metric]))])


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
    """Draw a panel for each metric with any number of curves, and a star at the maximum of each line (Figs. 3 and 5).

    Args:
        path: of the PNG to write; the PDF is written beside it.
        curves: to draw; a curve may lack a metric.
        metrics: one for each panel; empty: those of the first curve. A single panel has the width of one column.
        label_x: label of the lambda axis.
        ends: the loss terms at lambda = 0 and lambda = 1, such as ("MAE", "1−SSIM").
        mark: the name of a curve whose best lambda gets a labelled vertical line, as for Dice in Fig. 3.
        interval: name of the bands and bars in the legend.
        heading: a line above the picture.
    """
    metrics = metrics or list(curves[0].means)
    line_styles = _line_styles(curves)
    with style.paper():
        figure, axes, spare = _panels(len(metrics), heading)
        for axis, metric in zip(axes, metrics, strict=True):
            label, sign = label_and_sign(metric)
            axis.set_ylabel(f"{label} ↑")
            for curve, line_style in zip(curves, line_styles, strict=True):
                if metric not in curve.means:
                    continue
                _draw_curve(axis, curve, metric, sign, line_style)
                if curve.name == mark:
                    _mark_lambda(axis, curve.best(metric), line_style["color"])
            _lambda_axis(axis, label_x, ends, sparse=len(metrics) > 2)
        handles: list[Artist] = [
            Line2D([], [], label=curve.name, **line_style) for curve, line_style in zip(curves, line_styles, strict=True)
        ]
        if any(curve.continuous for curve in curves):
            handles.append(Line2D([], [], label="maximum of a line", **_star_style("white")))
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
    """Draw the gap between HyperRecon and a U-Net for each lambda: a panel for each metric, a line for each experiment.

    Args:
        path: of the PNG to write; the PDF is written beside it.
        lams: `(l,)`, the lambdas of the U-Nets.
        names: of the e experiments.
        gaps: HyperRecon minus U-Net, `(e, l)` for each metric; NaN where a gap is missing. Errors are negated here.
        intervals: (low, high) of the gaps, `(e, l)` each. With intervals, the experiments are drawn a little apart.
        tolerance: half the width of a gray band around zero, for each metric that has one.
        label_x: label of the lambda axis.
        ends: the loss terms at lambda = 0 and lambda = 1.
        interval: name of the bars in the legend.
        heading: a line above the picture.
    """
    intervals, tolerance = intervals or {}, tolerance or {}
    line_styles = [_line_style(i, i, i) | {"linewidth": 1.0} for i in range(len(names))]
    with style.paper():
        figure, axes, spare = _panels(len(gaps), heading)
        for axis, (metric, values) in zip(axes, gaps.items(), strict=True):
            label, sign = label_and_sign(metric)
            axis.set_ylabel(f"Δ {label}")
            axis.axhline(0, color="black", linewidth=0.8)
            if metric in tolerance:
                axis.axhspan(-tolerance[metric], tolerance[metric], color="0.88", linewidth=0)
            for i, line_style in enumerate(line_styles):
                shift = 0.016 * (i - (len(names) - 1) / 2) if intervals else 0.0
                bounds = [bound[i] for bound in intervals[metric]] if metric in intervals else None
                lams_i, values_i = np.asarray(lams) + shift, sign * np.asarray(values[i])
                _draw_points(axis, lams_i, values_i, _signed_interval(bounds, sign), line_style)
            _lambda_axis(axis, label_x, ends, sparse=len(gaps) > 2)
        handles: list[Artist] = [
            Line2D([], [], label=name, **line_style) for name, line_style in zip(names, line_styles, strict=True)
        ]
        if tolerance:
            handles.append(Patch(color="0.88", label="tolerance"))
        if intervals:
            handles.append(Line2D([], [], color="0.4", marker="|", markersize=9, linestyle="", label=interval))
        style.legend(figure, handles, spare)
        style.save(figure, path)


def label_and_sign(metric: str) -> tuple[str, int]:
    """The label of a metric with its unit, and the sign that makes higher better.

    An error has "n" before its label, or "negative" if the label is no abbreviation, and the sign -1. "nmae" is an error
    that is already negated: its sign is 1. Any other name is its own label.
    """
    if metric in METRICS:
        row = METRICS[metric]
        return row.axis_label if row.higher_is_better else _negated_label(row.axis_label), row.sign
    if metric[:1] == "n" and metric[1:] in METRICS:
        return _negated_label(METRICS[metric[1:]].axis_label), 1
    return metric, 1


def _negated_label(label: str) -> str:
    return f"n{label}" if label[0].isupper() else f"negative {label}"


def _panels(count: int, heading: str) -> tuple[Figure, list[Axes], Axes | None]:
    """A figure of one or two columns of a paper, its panels, and an empty panel if there is space for one."""
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


def _line_styles(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """A style for each curve: its colour by group, its dash or marker by its order among lines or points."""
    groups = list(dict.fromkeys(curve.group or curve.name for curve in curves))
    line_styles = []
    for i, curve in enumerate(curves):
        order = sum(previous.continuous == curve.continuous for previous in curves[:i])
        color = groups.index(curve.group or curve.name)
        line_styles.append(_line_style(color, order, None) if curve.continuous else _line_style(color, None, order))
    return line_styles


def _line_style(color: int, dash: int | None, marker: int | None) -> dict[str, Any]:
    """Options of a line. Without a dash it is points only, without a marker a line only."""
    return {
        "color": style.COLORS[color % len(style.COLORS)],
        "linestyle": "" if dash is None else style.DASHES[dash % len(style.DASHES)],
        "marker": "" if marker is None else style.MARKERS[marker % len(style.MARKERS)],
        "markerfacecolor": "white",
    }


def _draw_curve(axis: Axes, curve: Curve, metric: str, sign: int, line_style: Mapping[str, Any]) -> None:
    """Draw a line with a band and a star at its maximum, or points with bars."""
    values, bounds = sign * np.asarray(curve.means[metric]), _signed_interval(curve.intervals.get(metric), sign)
    if not curve.continuous:
        _draw_points(axis, curve.lams, values, bounds, line_style)
        return
    if bounds:
        axis.fill_between(curve.lams, *bounds, color=line_style["color"], alpha=0.2, linewidth=0)
    axis.plot(curve.lams, values, zorder=2, **line_style)
    axis.plot(curve.best(metric), np.nanmax(values), zorder=2.2, **_star_style(line_style["color"]))


def _draw_points(
    axis: Axes, lams: np.ndarray, values: np.ndarray, bounds: Interval | None, line_style: Mapping[str, Any]
) -> None:
    """Draw points with bars. A bar may be off the centre of its point."""
    if bounds:
        axis.vlines(lams, *bounds, color=line_style["color"], linewidth=0.9, zorder=2.1)
    axis.plot(lams, values, zorder=3, clip_on=False, **line_style)


def _signed_interval(bounds: Sequence[np.ndarray] | None, sign: int) -> Interval | None:
    """The interval of values that are multiplied by the sign."""
    if bounds is None:
        return None
    low, high = (sign * np.asarray(bound) for bound in bounds)
    return (low, high) if sign > 0 else (high, low)


def _star_style(color: str) -> dict[str, Any]:
    return {
        "marker": "*",
        "markersize": 9,
        "markerfacecolor": color,
        "markeredgecolor": "black",
        "markeredgewidth": 0.6,
        "linestyle": "",
        "clip_on": False,
    }


def _mark_lambda(axis: Axes, lam: float, color: str) -> None:
    """Draw a vertical line, with its label above the panel, where it covers nothing."""
    axis.axvline(lam, color=color, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axis.text(lam, 1.02, rf"best $\lambda$ = {lam:.2f}", transform=axis.get_xaxis_transform(), ha="center", va="bottom")


def _lambda_axis(axis: Axes, label: str, ends: tuple[str, str] | None, *, sparse: bool) -> None:
    """Label the lambda axis. `sparse` leaves out the labels 0.25 and 0.75."""
    ticks = ["0", "", "0.5", "", "1"] if sparse else ["0", "0.25", "0.5", "0.75", "1"]
    if ends is not None:
        ticks = [f"{tick}\n{end}" for tick, end in zip(ticks, (ends[0], " ", " ", " ", ends[1]), strict=True)]
    axis.set_xlim(-0.04, 1.04)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ticks)
    axis.set_xlabel(label, labelpad=2 if ends is None else -8)  # between the terms of the ends, not below them
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=style.STEPS))
    axis.grid(color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
