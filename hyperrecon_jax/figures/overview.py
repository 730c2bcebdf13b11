"""Overviews as PNG: the picture of a run (reconstructions over lambda, or segmentations) and of prepared data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from hyperrecon_jax.figures.crops import busiest_part, frame
from hyperrecon_jax.losses.metric_table import METRICS

# Background, then colours of Okabe and Ito. Neighbours in the brain also differ in lightness, for a gray copy.
REGIONS = ("#000000", "#009E73", "#F0E442", "#56B4E9", "#D55E00")


def image_rows(path: Path, groups: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> None:
    """Draw rows of images, such as some slices of each split.

    Args:
        path: of the PNG to write.
        groups: for each name of a row, images `(n, h, w)` in [0, 1] and their titles.
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
        scores: `scores[l][n]`, (PSNR in dB, SSIM) of each reconstruction.
        heading: a line above the picture.
    """
    count, num_lams = len(truth), len(x_hat)
    error_bound = float(np.quantile(np.abs(x_hat - truth), 0.999))
    change_bound = max(float(np.abs(x_hat[-1] - x_hat[0]).max()), 1e-6)
    figure = Figure(figsize=(1.75 * (num_lams + 3), 1.83 * 3 * count + 0.8), layout="constrained")
    axes = figure.subplots(3 * count, num_lams + 3, squeeze=False)
    figure.suptitle(heading, fontsize=13)
    for axis in axes.flat:
        axis.set_axis_off()
    for i in range(count):
        panels = axes[3 * i : 3 * i + 3]
        part = busiest_part(truth[i])
        images = [inputs[i], *x_hat[:, i]]
        _show_gray(panels[:2, 0], truth[i], part)
        panels[0, 0].add_patch(frame(part))
        for column, image in zip(panels.T[1:-1], images, strict=True):
            _show_gray(column[:2], image, part)
            errors = _show(column[2], np.abs(image - truth[i]), cmap="magma", vmin=0, vmax=error_bound)
        difference = x_hat[-1, i] - x_hat[0, i]
        signed = {"cmap": "RdBu_r", "vmin": -change_bound, "vmax": change_bound}
        _show(panels[0, -1], difference, **signed)
        changes = _show(panels[1, -1], difference[part], **signed)
        column_titles = ["input (magnitude)", *titles] if i == 0 else None
        _add_titles(panels, column_titles, [input_scores[i], *(lam_scores[i] for lam_scores in scores)])
        if i == 0:
            bar = figure.colorbar(errors, ax=panels[2, 0], location="left", fraction=0.3, aspect=12)
            bar.set_label("|error|", fontsize=8)
            bar.ax.tick_params(labelsize=7)
            bar = figure.colorbar(changes, ax=panels[2, -1], location="top", fraction=0.12, aspect=14)
            bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)


def _show(axis: Axes, image: np.ndarray, **options: Any) -> AxesImage:
    return axis.imshow(image, interpolation="nearest", **options)


def _show_gray(panels: np.ndarray, image: np.ndarray, part: tuple[slice, slice]) -> None:
    """Show an image and its magnified part in two panels, as gray in [0, 1]."""
    for axis, pixels in zip(panels, (image, image[part]), strict=True):
        _show(axis, pixels, cmap="gray", vmin=0, vmax=1)


def _add_titles(panels: np.ndarray, names: Sequence[str] | None, scores: Sequence[tuple[float, float]]) -> None:
    """Write (PSNR, SSIM) above the input and the reconstructions of a slice; above the first slice also the names."""
    psnr_unit, ssim_label = METRICS["psnr"].unit, METRICS["ssim"].label
    for i, (psnr, ssim) in enumerate(scores):
        title = f"{psnr:.2f} {psnr_unit}   {ssim_label} {ssim:.3f}"
        panels[0, i + 1].set_title(f"{names[i]}\n{title}" if names else title, fontsize=8)
    panels[0, 0].set_title("truth\n" if names else "", fontsize=8)
    if names:
        panels[0, -1].set_title("last minus first lambda\n(what lambda changes)", fontsize=8)
    panels[1, 0].set_title("magnified part", fontsize=8)


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
        for axis, image, options in zip(
            row,
            (images[i], truth[i], predicted[i], truth[i] != predicted[i]),
            ({"cmap": "gray", "vmin": 0, "vmax": 1}, colors, colors, {"cmap": "gray", "vmin": 0, "vmax": 1}),
            strict=True,
        ):
            axis.set_axis_off()
            axis.imshow(image, interpolation="nearest", **options)
        for axis, title in zip(row, ("image", "true labels", "predicted labels", "where they differ"), strict=True):
            axis.set_title(title if i == 0 else "", fontsize=9)
        row[2].set_title(("predicted labels, " if i == 0 else "") + f"Dice {dice[i]:.3f}", fontsize=9)
    handles = [
        Patch(facecolor=color, edgecolor="gray", linewidth=0.5, label=name)
        for color, name in zip(REGIONS, names, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
