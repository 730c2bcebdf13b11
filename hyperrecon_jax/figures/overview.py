"""The picture of a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hyperrecon_jax.figures.crops import busiest_part, frame


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
