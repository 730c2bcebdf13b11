"""Every picture, from arrays alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import uniform_filter


def reconstructions(
    path: Path,
    *,
    truth: np.ndarray,
    inputs: np.ndarray,
    x_hat: np.ndarray,
    titles: Sequence[str],
    input_scores: Sequence[tuple[float, float]],
    scores: Sequence[Sequence[tuple[float, float]]],
    heading: str,
) -> None:
    """Test slices in rows: truth, input, reconstructions over lambda; under them a magnified part and the error.

    Args:
        path: of the PNG to write.
        truth: `(n, h, w)` in [0, 1].
        inputs: `(n, h, w)`, magnitudes of the network's input.
        x_hat: `(l, n, h, w)`.
        titles: a title for each of the l lambdas.
        input_scores: (PSNR in dB, SSIM) of each input.
        scores: `scores[l][n]` likewise.
        heading: a line over the picture.
    """
    count, lams = len(truth), len(x_hat)
    bound = float(np.quantile(np.abs(x_hat - truth), 0.999))
    change = max(float(np.abs(x_hat[-1] - x_hat[0]).max()), 1e-6)
    figure = Figure(figsize=(1.75 * (lams + 3), 1.83 * 3 * count + 0.8), layout="constrained")
    axes = figure.subplots(3 * count, lams + 3, squeeze=False)
    figure.suptitle(heading, fontsize=13)
    for axis in axes.flat:
        axis.set_axis_off()

    def show(row, column, image, **options):
        return axes[row, column].imshow(image, interpolation="nearest", **options)

    def gray(row, column, image, part):
        show(row, column, image, cmap="gray", vmin=0, vmax=1)
        show(row + 1, column, image[part], cmap="gray", vmin=0, vmax=1)

    for i in range(count):
        top = 3 * i
        part = _busiest_part(truth[i])
        gray(top, 0, truth[i], part)
        axes[top, 0].add_patch(_frame(part))
        gray(top, 1, inputs[i], part)
        show(top + 2, 1, np.abs(inputs[i] - truth[i]), cmap="magma", vmin=0, vmax=bound)
        for j in range(lams):
            gray(top, j + 2, x_hat[j, i], part)
            errors = show(top + 2, j + 2, np.abs(x_hat[j, i] - truth[i]), cmap="magma", vmin=0, vmax=bound)
        difference = x_hat[-1, i] - x_hat[0, i]
        signed = {"cmap": "RdBu_r", "vmin": -change, "vmax": change}
        show(top, lams + 2, difference, **signed)
        changes = show(top + 1, lams + 2, difference[part], **signed)

        for j, (psnr, ssim) in enumerate([input_scores[i], *(scores[j][i] for j in range(lams))], start=1):
            title = f"{psnr:.2f} dB   SSIM {ssim:.3f}"
            if i == 0:
                title = f"{['input (magnitude)', *titles][j - 1]}\n{title}"
            axes[top, j].set_title(title, fontsize=8)
        axes[top, 0].set_title("truth\n" if i == 0 else "", fontsize=8)
        if i == 0:
            axes[top, lams + 2].set_title("last minus first lambda\n(what lambda changes)", fontsize=8)
        axes[top + 1, 0].set_title("magnified part", fontsize=8)
        if i > 0:
            continue
        bar = figure.colorbar(errors, ax=axes[top + 2, 0], location="left", fraction=0.3, aspect=12)
        bar.set_label("|error|", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar = figure.colorbar(changes, ax=axes[top + 2, lams + 2], location="top", fraction=0.12, aspect=14)
        bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)


def lambda_histogram(path: Path, *, counts: np.ndarray, edges: np.ndarray) -> None:
    """Which lambdas trained the network (Fig. 4): in the first epoch, the last, and all, relative to uniform sampling.

    Args:
        path: of the PNG to write.
        counts: `(epochs, bins)` for one lambda, or `(epochs, bins, bins)` for two, lambda_1 first.
        edges: `(bins + 1,)`, of the bins.
    """
    parts = {"first epoch": counts[0], f"last epoch ({len(counts)})": counts[-1], "all epochs": counts.sum(0)}
    density = {title: part / max(part.mean(), 1e-9) for title, part in parts.items()}
    top = max(float(part.max()) for part in density.values())
    figure = Figure(figsize=(10.5, 3.7), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    figure.suptitle("The hyperparameters whose samples DHS kept for the gradient", fontsize=12)
    for axis, (title, part) in zip(axes, density.items(), strict=True):
        axis.set_title(f"{title}: {int(parts[title].sum())} samples", fontsize=10)
        axis.set_xlabel(r"$\lambda_1$" if part.ndim == 2 else r"$\lambda$")
        if part.ndim == 1:
            axis.stairs(part, edges, fill=True)
            axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
            axis.set_xlim(0, 1)
            continue
        shown = axis.imshow(part.T, origin="lower", extent=(0, 1, 0, 1), vmin=0, vmax=top, cmap="viridis")
    if counts.ndim == 2:
        axes[0].set_ylabel("times as often as uniform")
    else:
        axes[0].set_ylabel(r"$\lambda_2$")
        figure.colorbar(shown, ax=axes, label="times as often as uniform", fraction=0.02)
    figure.savefig(path, dpi=110)


def landscapes(
    path: Path, *, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, heading: str
) -> None:
    """Values over a regular grid of (lambda_1, lambda_2), side by side, with level sets and a star at the maximum (Fig. 4).

    Args:
        path: of the PNG to write.
        values: `(rows, columns, n, n)` over [0, 1]^2, lambda_1 along the first axis of the grid.
        rows, columns: titles.
        label: what the values are, with their unit.
        heading: a line over the picture.
    """
    low, high = np.quantile(values, 0.25), values.max()  # the poor part of a landscape may be arbitrarily poor
    levels = np.linspace(low, high, 8)[1:-1]
    at = np.linspace(0, 1, values.shape[-1])
    figure = Figure(figsize=(3.2 * len(columns) + 1.2, 3.0 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    figure.suptitle(heading, fontsize=12)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            axis, landscape = axes[i, j], values[i, j]
            shown = axis.pcolormesh(at, at, landscape.T, vmin=low, vmax=high, cmap="viridis", shading="nearest")
            inside = levels[(levels > landscape.min()) & (levels < landscape.max())]
            if inside.size:
                axis.contour(at, at, landscape.T, levels=inside, colors="white", linewidths=0.6)
            best = np.unravel_index(landscape.argmax(), landscape.shape)
            axis.plot(at[best[0]], at[best[1]], "*", color="red", markersize=12, markeredgecolor="white", clip_on=False)
            axis.set_title(f"{column}, {row}: best {landscape.max():.2f}", fontsize=9)
            axis.set_aspect("equal")
            axis.set_xlim(0, 1)
            axis.set_ylim(0, 1)
        axes[i, 0].set_ylabel(r"$\lambda_2$")
    for axis in axes[-1]:
        axis.set_xlabel(r"$\lambda_1$")
    figure.colorbar(shown, ax=axes, label=label, extend="min", fraction=0.05)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def _busiest_part(image: np.ndarray) -> tuple[slice, slice]:
    """A window of three eighths of the side with the most edges inside the object, where there is something to compare."""
    h, w = (max(8, 3 * side // 8) for side in image.shape)
    edges = np.hypot(*np.gradient(image)) * (uniform_filter((image > 0.05).astype(float), 5) > 0.99)
    sums = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    top, left = np.unravel_index(np.argmax(inside), inside.shape)
    return slice(int(top), int(top) + h), slice(int(left), int(left) + w)


def _frame(part: tuple[slice, slice]):
    rows, columns = part
    return Rectangle(
        (columns.start - 0.5, rows.start - 0.5),
        columns.stop - columns.start,
        rows.stop - rows.start,
        fill=False,
        edgecolor="tab:orange",
        linewidth=1,
    )
