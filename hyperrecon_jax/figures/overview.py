"""Overviews as PNG: the picture of a run (reconstructions over lambda, or segmentations) and of prepared data."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hyperrecon_jax.figures.crops import busiest_part, frame

# Background, then colours of Okabe and Ito. Neighbours in the brain also differ in lightness, for a gray copy.
REGIONS = ("#000000", "#009E73", "#F0E442", "#56B4E9", "#D55E00")


def splits(path: Path, groups: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> None:
    """Draw some slices of each split in a row.

    Args:
        path: of the PNG to write.
        groups: for each name of a split, images `(n, h, w)` in [0, 1] and their titles.
    """
    columns = max(len(images) for images, _ in groups.values())
    figure = Figure(figsize=(1.9 * columns + 0.4, 2.15 * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), columns, squeeze=False)
    for row, (name, (images, titles)) in zip(axes, groups.items(), strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[], frame_on=False)
        row[0].set_ylabel(name, fontsize=11)
        for axis, image, title in zip(row, images, titles, strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(title, fontsize=8)
    figure.savefig(path, dpi=120)


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
    """Draw test slices in rows: truth, input and reconstructions over lambda; below them a magnified part and the error.

    Args:
        path: of the PNG to write.
        truth: `(n, h, w)` in [0, 1].
        inputs: `(n, h, w)`, magnitudes of the network's input.
        x_hat: `(l, n, h, w)`.
        titles: a title for each of the l lambdas.
        input_scores: (PSNR in dB, SSIM) of each input.
        scores: `scores[l][n]` likewise.
        heading: a line above the picture.
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
        part = busiest_part(truth[i])
        gray(top, 0, truth[i], part)
        axes[top, 0].add_patch(frame(part))
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


def segmentations(
    path: Path,
    *,
    images: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str],
    dice: Sequence[float],
) -> None:
    """Draw test slices in rows: the image, its true labels, its predicted labels, and where the two differ.

    Args:
        path: of the PNG to write.
        images: `(n, h, w)` in [0, 1].
        truth: `(n, h, w)` integers, indices into `names`.
        predicted: the same, of the network.
        names: of the labels, at most as many as `REGIONS`.
        dice: `(n,)`, mean over the regions of a slice.
    """
    count = len(images)
    figure = Figure(figsize=(10, 2.5 * count * images.shape[1] / images.shape[2] + 0.8), layout="constrained")
    axes = figure.subplots(count, 4, squeeze=False)
    colors = {"cmap": ListedColormap(REGIONS[: len(names)]), "vmin": -0.5, "vmax": len(names) - 0.5}
    for i, row in enumerate(axes):
        for axis, shown, options in zip(
            row,
            (images[i], truth[i], predicted[i], truth[i] != predicted[i]),
            ({"cmap": "gray", "vmin": 0, "vmax": 1}, colors, colors, {"cmap": "gray", "vmin": 0, "vmax": 1}),
            strict=True,
        ):
            axis.set_axis_off()
            axis.imshow(shown, interpolation="nearest", **options)
        for axis, title in zip(row, ("image", "true labels", "predicted labels", "where they differ"), strict=True):
            axis.set_title(title if i == 0 else "", fontsize=9)
        row[2].set_title(("predicted labels, " if i == 0 else "") + f"Dice {dice[i]:.3f}", fontsize=9)
    handles = [
        Patch(facecolor=color, edgecolor="gray", linewidth=0.5, label=name)
        for color, name in zip(REGIONS, names, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
