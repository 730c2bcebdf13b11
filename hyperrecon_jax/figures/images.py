"""Reconstructions side by side: over lambda for several methods (Fig. 6), and two that differ at one PSNR (Fig. 7).

A magnified part is below each image. It is the same part in all images of a slice, and is framed in the truth.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.figures import style
from hyperrecon_jax.figures.crops import busiest_part, frame


def slices(
    path: Path,
    *,
    truth: np.ndarray,
    input: np.ndarray,
    x_hat: np.ndarray,
    titles: Sequence[str],
    psnr: np.ndarray,
    rows: Sequence[str],
    input_psnr: float | None = None,
) -> None:
    """Draw one slice: truth and input first, then a row of reconstructions over lambda for each method (Fig. 6).

    Args:
        path: of the PNG to write; the PDF is written beside it.
        truth: `(h, w)` in [0, 1].
        input: `(h, w)`, magnitude of the network's input.
        x_hat: `(methods, l, h, w)`.
        titles: one for each lambda.
        psnr: `(methods, l)`, in dB.
        rows: names of the methods, such as "U-Nets", "HyperRecon".
        input_psnr: of the input, in dB.
    """
    methods, lams = x_hat.shape[:2]
    # The input is below the truth; with a single method there is no second row, and it is beside the truth.
    places, columns_before = ([(0, 0), (2, 0)], 1) if methods > 1 else ([(0, 0), (0, 1)], 2)
    part = busiest_part(truth)
    with style.paper():
        across = [style.GAP] * columns_before + [0.25] + [style.GAP] * (lams - 1)
        figure, axes = style.grid(
            across, [0.2, style.GAP] * methods, aspect=truth.shape[0] / truth.shape[1], right=style.GAP
        )
        for (i, j), title, image, value in zip(places, ("truth", "input"), (truth, input), (None, input_psnr), strict=True):
            _draw_image(axes[i : i + 2, j], image, part, title=title, psnr=value)
        axes[0, 0].add_patch(frame(part, style.FRAME))
        for (k, j), value in np.ndenumerate(np.asarray(psnr)):
            panels, title = axes[2 * k : 2 * k + 2, columns_before + j], titles[j] if k == 0 else ""
            _draw_image(panels, x_hat[k, j], part, title=title, psnr=value)
        for k, row in enumerate(rows):
            axes[2 * k, columns_before].set_ylabel(row, fontweight="bold")
            axes[2 * k + 1, columns_before].set_ylabel("magnified", fontsize=7)
        style.save(figure, path)


def pair(
    path: Path,
    *,
    truth: np.ndarray,
    input: np.ndarray,
    x_hat: np.ndarray,
    titles: Sequence[Sequence[str]],
    psnr: np.ndarray,
    input_psnr: np.ndarray | None = None,
) -> None:
    """Draw two different reconstructions of about equal PSNR for each slice, and their difference (Fig. 7).

    Args:
        path: of the PNG to write; the PDF is written beside it.
        truth: `(n, h, w)` in [0, 1].
        input: `(n, h, w)`, magnitude of the network's input.
        x_hat: `(n, 2, h, w)`.
        titles: for each slice, a title for each of the two.
        psnr: `(n, 2)`, in dB.
        input_psnr: `(n,)`, in dB.
    """
    count = len(truth)
    difference = x_hat[:, 1] - x_hat[:, 0]
    bound = max(float(np.quantile(np.abs(difference), 0.999)), 1e-6)
    with style.paper():
        figure, axes = style.grid(
            [style.GAP] * 5, [0.2, style.GAP] * count, aspect=truth.shape[1] / truth.shape[2], right=0.75 + style.GAP
        )
        for i in range(count):
            part, panels = busiest_part(truth[i]), axes[2 * i : 2 * i + 2]
            _draw_image(panels[:, 0], truth[i], part, title="truth" if i == 0 else "")
            panels[0, 0].add_patch(frame(part, style.FRAME))
            value = None if input_psnr is None else input_psnr[i]
            _draw_image(panels[:, 1], input[i], part, title="input" if i == 0 else "", psnr=value)
            for j in range(2):
                _draw_image(panels[:, 2 + j], x_hat[i, j], part, title=titles[i][j], psnr=psnr[i, j])
            signed: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
            _draw_image(panels[:, 4], difference[i], part, title="second − first" if i == 0 else "", **signed)
        bar = style.bar_beside(figure, axes[0, 4], axes[-1, 4])
        figure.colorbar(axes[0, 4].images[0], cax=bar, extend="both", extendfrac=0.03, label="difference of intensity")
        style.save(figure, path)


def _draw_image(
    axes: np.ndarray,
    image: np.ndarray,
    part: tuple[slice, slice],
    *,
    title: str = "",
    psnr: float | None = None,
    **options: Any,
) -> None:
    """Draw an image and its magnified part in two panels, as gray in [0, 1] unless other options of `imshow` are passed."""
    for axis, pixels in zip(axes, (image, image[part]), strict=True):
        axis.set(visible=True, xticks=[], yticks=[])
        axis.imshow(pixels, **({"cmap": "gray", "vmin": 0, "vmax": 1} | options))
    axes[1].spines[:].set(color=style.FRAME, linewidth=1)
    axes[0].set_title(title, pad=3)
    if psnr is not None:
        box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1}
        axes[0].text(
            0.03, 0.97, f"{psnr:.2f} dB", transform=axes[0].transAxes, color="white", fontsize=7, va="top", bbox=box
        )
