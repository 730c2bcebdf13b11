"""How the pictures look: sizes and type for print, colours that all can tell apart, and both files of a figure.

A figure is drawn inside `with paper():` and handed to `save`. What differs by colour differs by dash or marker as well,
so that it survives a gray copy; colours are those of Okabe and Ito, which the colour-blind can tell apart.
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
    """The settings of all figures, for as long as one is drawn and saved."""
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
    """A figure of at most two columns of a paper and its panels, `(rows, columns)`, which stay unseen until they are used.

    For panels of a given shape, which matplotlib's own layouts do not place without gaps or cut labels.

    Args:
        across: the gap before each column, in inches.
        down: the gap before each row, in inches.
        aspect: height over width of a panel.
        right, bottom: space beside and under all panels, in inches.
        largest: width of a panel at most, in inches.
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


def bar_beside(figure: Figure, first: Axes, last: Axes) -> Axes:
    """Axes of a colour bar to the right of a column of panels, from the first to the last."""
    (x, y, w, _), top, inch = last.get_position().bounds, first.get_position().y1, 1 / figure.get_figwidth()
    return figure.add_axes((x + w + 0.08 * inch, y, 0.1 * inch, top - y))


def heading(text: str, width: float) -> str:
    """The text of a heading, in as many lines as a figure of that width, in inches, asks for."""
    return textwrap.fill(text, int(width / 0.078))  # inches of a letter of 9 pt


def save(figure: Figure, path: Path) -> None:
    """Write the figure twice: `path`, a PNG, and beside it a PDF of the same stem."""
    figure.savefig(path)
    figure.set_layout_engine("none")  # as it lies now
    for axis in figure.axes:
        for image in axis.images:
            image.set_interpolation("none")  # the PDF holds the pixels themselves, not a resampled copy
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})  # the same bytes for the same arrays


def legend(figure: Figure, handles: Sequence[Artist], spare: Axes | None = None) -> None:
    """One legend: in a panel left empty, where it fits, else under all, for which the figure grows."""
    wide = 0.6 + 0.065 * max(len(str(handle.get_label())) for handle in handles)  # inches: the handle and the letters
    if spare is not None and wide < figure.get_figwidth() / 3.3 and len(handles) < 9:
        spare.legend(handles=handles, loc="center", frameon=False)
        return
    rows = -(-len(handles) // max(1, int(figure.get_figwidth() / wide)))
    figure.set_figheight(figure.get_figheight() + 0.16 * rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // rows), frameon=False)
