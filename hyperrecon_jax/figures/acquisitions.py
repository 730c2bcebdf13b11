"""Scores over the acceleration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hyperrecon_jax.figures import style

PANELS = {"psnr_gain": "PSNR gain (dB) ↑", "ssim": "SSIM ↑"}


def acquisitions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the gain in PSNR over the input, and SSIM, over acceleration: a line for each mask and noise.

    Args:
        path: of the PNG to write; the PDF is written beside it.
        rows: each with "acceleration", "sigma", "mask", "psnr_gain" and "ssim".
    """
    groups = list(dict.fromkeys((row["mask"], row["sigma"]) for row in rows))
    ticks = sorted({row["acceleration"] for row in rows})
    handles = []
    with style.paper():
        figure = Figure(figsize=(style.DOUBLE, 2.3), layout="constrained")
        axes = figure.subplots(1, len(PANELS))
        for i, (mask, sigma) in enumerate(groups):
            line_style: dict[str, Any] = {
                "color": style.COLORS[i % len(style.COLORS)],
                "linestyle": style.DASHES[i % len(style.DASHES)],
                "marker": style.MARKERS[i % len(style.MARKERS)],
                "markerfacecolor": "white",
            }
            members = [row for row in rows if (row["mask"], row["sigma"]) == (mask, sigma)]
            members.sort(key=lambda row: row["acceleration"])
            for axis, name in zip(axes, PANELS, strict=True):
                axis.plot([row["acceleration"] for row in members], [row[name] for row in members], **line_style)
            handles.append(Line2D([], [], label=f"{mask.replace('_', ' ')}, noise {sigma:g}", **line_style))
        for axis, label in zip(axes, PANELS.values(), strict=True):
            axis.set_xscale("log")
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
            axis.set_xlabel("acceleration")
            axis.set_ylabel(label)
            axis.yaxis.set_major_locator(MaxNLocator(5, steps=style.STEPS))
            axis.grid(color="0.92", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].axhline(0, color="black", linewidth=0.8)
        style.legend(figure, handles)
        style.save(figure, path)
