"""The style of the pictures: sizes and fonts for print, colours, and the two files of a figure.

Draw a figure inside `with paper():` and pass it to `save`. Lines that differ by colour also differ by dash or marker, so
that a gray copy is still readable. The colours are those of Okabe and Ito, which colour-blind readers can distinguish.
"""

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.5, 7.2  # inches, of one and of two columns of a paper
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (5, 1.5, 1, 1.5, 1, 1.5)), (0, (9, 2)), (0, (2, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GAP = 0.03  # inches, between panels that belong together
STEPS = (1, 2, 2.5, 5, 10)  # between ticks and level sets
FRAME = "#E69F00"  # around a magnified part

PAPER: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture everywhere
    "mathtext.fontset": "dejavusans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 9,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-5, 5),
    "axes.formatter.use_mathtext": True,
    "pdf.fonttype": 42,  # TrueType, which publishers ask for, in place of Type 3
    "savefig.dpi": 300,
}


def paper() -> AbstractContextManager[None]:
    """The Matplotlib settings of all figures; keep them while a figure is drawn and saved."""
    return matplotlib.rc_context(PAPER)


def grid(
    across: Sequence[float],
    down: Sequence[float],
    *,
    aspect: float,
    right: float,
    bottom: float = GAP,
    largest: float = 1.5,
) -> tuple[Figure, np.ndarray]:
    """A figure of at most two columns of a paper and its panels, `(rows, columns)`, which are invisible at first.

    All panels have the same shape. Matplotlib's own layouts would leave gaps between them or cut labels.

    Args:
        across: the gap before each column, in inches.
        down: the gap before each row, in inches.
        aspect: height over width of a panel.
        right, bottom: space beside and under all panels, in inches.
        largest: the largest width of a panel, in inches.
    """
    w = min(largest, (DOUBLE - sum(across) - right) / len(across))
    h = aspect * w
    width, height = sum(across) + len(across) * w + right, sum(down) + len(down) * h + bottom
    figure = Figure(figsize=(width, height))
    axes = np.empty((len(down), len(across)), object)
    for i, j in np.ndindex(axes.shape):
        x, y = sum(across[: j + 1]) + j * w, sum(down[: i + 1]) + (i + 1) * h
        axes[i, j] = figure.add_axes((x / width, 1 - y / height, w / width, h / height), visible=False)
    return figure, axes


def bar_beside(figure: Figure, top_panel: Axes, bottom_panel: Axes) -> Axes:
    """Axes of a colour bar, to the right of a column of panels from the top panel to the bottom panel."""
    (x, y, w, _), top = bottom_panel.get_position().bounds, top_panel.get_position().y1
    inch = 1 / figure.get_figwidth()
    return figure.add_axes((x + w + 0.08 * inch, y, 0.1 * inch, top - y))


def heading(text: str, width: float) -> str:
    """Break a heading into lines that fit in a figure of a width in inches."""
    return textwrap.fill(text, int(width / 0.078))  # inches of a letter of 9 pt


def save(figure: Figure, path: Path) -> None:
    """Write the figure twice: `path`, a PNG, and beside it a PDF of the same stem."""
    figure.savefig(path)
    figure.set_layout_engine("none")  # keeps the layout of the PNG
    for axis in figure.axes:
        for image in axis.images:
            image.set_interpolation("none")  # the PDF holds the pixels themselves, not a resampled copy
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})  # the same bytes for the same arrays


def legend(figure: Figure, handles: Sequence[Artist], spare: Axes | None = None) -> None:
    """Draw the legend in the spare panel, if it fits there. Otherwise below all panels; the figure grows for it."""
    entry_width = 0.6 + 0.065 * max(len(str(handle.get_label())) for handle in handles)  # inches: the handle and the text
    if spare is not None and entry_width < figure.get_figwidth() / 3.3 and len(handles) < 9:
        spare.legend(handles=handles, loc="center", frameon=False)
        return
    rows = -(-len(handles) // max(1, int(figure.get_figwidth() / entry_width)))
    figure.set_figheight(figure.get_figheight() + 0.16 * rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // rows), frameon=False)
