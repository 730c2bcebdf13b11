"""Maps over (lambda_1, lambda_2): landscapes of a metric, and the lambdas that trained a network (Fig. 4)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import RegularGridInterpolator

from hyperrecon_jax.figures import style

VIRIDIS = colormaps["viridis"]


def lambda_histogram(path: Path, *, counts: np.ndarray, edges: np.ndarray) -> None:
    """Draw which lambdas trained the network (Fig. 4): in the first epoch, the last, and all, relative to uniform sampling.

    Args:
        path: of the PNG to write; the PDF is written beside it.
        counts: `(epochs, bins)` for one lambda, or `(epochs, bins, bins)` for two, lambda_1 first.
        edges: `(bins + 1,)`, edges of the bins.
    """
    parts = {"first epoch": counts[0], f"last epoch ({len(counts)})": counts[-1], "all epochs": counts.sum(0)}
    density = {title: part / max(part.mean(), 1e-9) for title, part in parts.items()}
    top = max(float(part.max()) for part in density.values())
    has_two = counts.ndim == 3
    with style.paper():
        figure, axes = style.grid(
            [0.55, 0.15, 0.15], [0.5], aspect=1, right=0.85 if has_two else 0.12, bottom=0.4, largest=3
        )
        figure.suptitle("The hyperparameters whose samples DHS kept for the gradient", y=0.98)
        for axis, (title, part) in zip(axes[0], density.items(), strict=True):
            axis.set_title(f"{title}: {int(parts[title].sum())} samples")
            if has_two:
                mesh = axis.pcolormesh(edges, edges, part.T, vmin=0, vmax=top, cmap=VIRIDIS, rasterized=True)
            else:
                axis.stairs(part, edges, fill=True, color=style.COLORS[0])
                axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
                axis.set_ylim(0, 1.05 * max(top, 1))
            _lambda_axes(axis, left=axis is axes[0, 0], bottom=True, two=has_two)
        if has_two:
            bar = style.bar_beside(figure, axes[0, -1], axes[0, -1])
            figure.colorbar(mesh, cax=bar, label="times as often as uniform")
        else:
            axes[0, 0].set_ylabel("times as often as uniform")
        style.save(figure, path)


def landscapes(
    path: Path,
    *,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    heading: str,
    axes: tuple[np.ndarray, np.ndarray] | None = None,
    titles: Sequence[Sequence[str]] | None = None,
) -> None:
    """Draw values over a grid of (lambda_1, lambda_2), with level sets and a star at the maximum (Fig. 4).

    The ticks and lines of the colour bar are the values of the level sets.

    Args:
        path: of the PNG to write; the PDF is written beside it.
        values: `(rows, columns, n1, n2)`, lambda_1 along the first axis of the grid; a panel that is all NaN stays empty.
        rows, columns: titles; may be empty.
        label: name of the values, with their unit.
        heading: a line above the picture; may be empty.
        axes: (lambda_1, lambda_2) of the grid, `(n1,)` and `(n2,)`, ascending; None: evenly from 0 to 1.
        titles: one for each panel, `titles[row][column]`, instead of those of its column and row.
    """
    grid = axes or (np.linspace(0, 1, values.shape[-2]), np.linspace(0, 1, values.shape[-1]))
    low, high = np.nanquantile(values, 0.25), np.nanmax(values)  # the worst part of a landscape may be arbitrarily bad
    scale = Normalize(low, high)
    levels = MaxNLocator(8, steps=style.STEPS).tick_values(low, high)
    levels = levels[(levels > low) & (levels < high)]
    across, down = [0.55] + [0.15] * (len(columns) - 1), [0.25] * len(rows)
    largest = 2.1 if len(columns) == 1 else 2.0  # inches; one column of panels has the width of one column of a paper
    lines = style.heading(heading, sum(across) + largest * len(columns))
    down[0] += 0.17 * len(lines.splitlines())
    with style.paper():
        figure, panels = style.grid(across, down, aspect=1, right=0.85, bottom=0.4, largest=largest)
        figure.suptitle(lines, y=1 - 0.04 / figure.get_figheight())
        for (i, j), axis in np.ndenumerate(panels):
            if np.isnan(values[i, j]).all():
                continue
            mesh = _draw_landscape(axis, grid, values[i, j], levels, scale)
            title = titles[i][j] if titles else ", ".join(filter(None, (columns[j], rows[i])))
            axis.set_title(f"{title}: best {np.nanmax(values[i, j]):.2f}".removeprefix(": "), pad=4)
            _lambda_axes(axis, left=j == 0, bottom=i == len(rows) - 1, two=True)
        bar = style.bar_beside(figure, panels[0, -1], panels[-1, -1])
        extend = "min" if low > np.nanmin(values) else "neither"
        ticks = levels if levels.size else None
        figure.colorbar(mesh, cax=bar, label=label, ticks=ticks, extend=extend, extendfrac=0.03)
        for level in levels:
            bar.axhline(level, color=_text_color(scale, level), linewidth=0.6)
        style.save(figure, path)


def _draw_landscape(
    axis: Axes, grid: tuple[np.ndarray, np.ndarray], values: np.ndarray, levels: np.ndarray, scale: Normalize
) -> QuadMesh:
    """Draw one landscape, `(n1, n2)`: its map, its level sets with their values, and its star."""
    mesh = axis.pcolormesh(*grid, values.T, norm=scale, cmap=VIRIDIS, shading="nearest", rasterized=True)
    best = np.unravel_index(np.nanargmax(values), values.shape)
    star = float(grid[0][best[0]]), float(grid[1][best[1]])
    levels = levels[(levels > np.nanmin(values)) & (levels < np.nanmax(values))]
    if levels.size:
        colors = [_text_color(scale, level) for level in levels]
        sets = axis.contour(*grid, values.T, levels=levels, colors=colors, linewidths=0.6)
        for level, x, y in _label_places(sets.allsegs, levels, star):
            box = {"facecolor": VIRIDIS(scale(level)), "edgecolor": "none", "pad": 0.6}
            text = f"{level:.3g}".replace("-", "−")
            axis.text(x, y, text, color=_text_color(scale, level), fontsize=7, ha="center", va="center", bbox=box)
    axis.plot(*star, "*", color="white", markersize=10, markeredgecolor="black", clip_on=False)
    return mesh


def _text_color(scale: Normalize, level: float) -> str:
    """White on the dark part of a map, black on the bright part."""
    return "white" if scale(level) < 0.6 else "black"


def _label_places(
    sets: Sequence[Sequence[np.ndarray]], levels: np.ndarray, star: tuple[float, float]
) -> Iterator[tuple[float, float, float]]:
    """The position of the value of each level set, (level, x, y): on its line, not on the border, the star or a label."""
    occupied = [np.array(star)]
    for level, parts in zip(levels, sets, strict=True):
        points = max(parts, key=len)
        is_free = (points > 0.06).all(1) & (points < 0.94).all(1)
        for place in occupied:
            is_free &= (np.abs(points - place) > (0.2, 0.1)).any(1)
        if is_free.any():
            occupied.append(points[is_free][is_free.sum() // 2])
            yield level, *occupied[-1]


def _lambda_axes(axis: Axes, *, left: bool, bottom: bool, two: bool) -> None:
    """Show a panel over [0, 1], or its square if `two`. Only a leftmost or lowest panel gets names and numbers."""
    ticks, names = [0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"]
    axis.set(visible=True, xlim=(0, 1))
    axis.set_xticks(ticks, names if bottom else [""] * 5)
    if bottom:
        axis.set_xlabel(r"$\lambda_1$" if two else r"$\lambda$")
    if two:
        axis.set_ylim(0, 1)
        axis.set_yticks(ticks, names if left else [""] * 5)
        if left:
            axis.set_ylabel(r"$\lambda_2$")
    else:
        axis.tick_params(labelleft=left)


def interpolate(values: np.ndarray, axes: Sequence[np.ndarray], points: int = 100) -> np.ndarray:
    """Interpolate values on an uneven grid, such as the paper's 361 U-Nets, linearly to an even grid (Sec. V-H).

    Args:
        values: `(..., n1, n2)`.
        axes: `(n1,)` and `(n2,)`, ascending from 0 to 1.
        points: along each side of [0, 1]^2.

    Returns:
        `(..., points, points)`.

    Raises:
        ValueError: if the axes do not reach from 0 to 1 or do not fit the values.
    """
    side = np.linspace(0, 1, points)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1)
    interpolated = RegularGridInterpolator(axes, np.moveaxis(values, (-2, -1), (0, 1)))(grid)
    return np.moveaxis(interpolated, (0, 1), (-2, -1))
