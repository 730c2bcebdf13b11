"""All pictures, drawn from arrays.

Figures for a paper, in print size, as PNG and PDF: `metric_curves` (Figs. 3 and 5), `landscapes` and `lambda_histogram`
(Fig. 4), `slices` (Fig. 6), `pair` (Fig. 7), `comparison` with the U-Nets, and `acquisitions`. The others are PNG only: the
picture of a run, `reconstructions` or `segmentations`, and rows of images, `image_rows`. Figure numbers are those of Wang,
Dalca and Sabuncu (2022).
"""

from hyperrecon_jax.figures.acquisitions import acquisitions
from hyperrecon_jax.figures.curves import Curve, comparison, label_and_sign, metric_curves
from hyperrecon_jax.figures.images import pair, slices
from hyperrecon_jax.figures.maps import interpolate, lambda_histogram, landscapes
from hyperrecon_jax.figures.overview import image_rows, reconstructions, segmentations

__all__ = [
    "Curve",
    "acquisitions",
    "comparison",
    "image_rows",
    "interpolate",
    "label_and_sign",
    "lambda_histogram",
    "landscapes",
    "metric_curves",
    "pair",
    "reconstructions",
    "segmentations",
    "slices",
]
