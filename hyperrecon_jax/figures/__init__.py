"""Every picture, from arrays alone.

Figures for a paper, at its print size, as PNG and as PDF: `metric_curves` (Figs. 3 and 5), `landscapes` and
`lambda_histogram` (Fig. 4), `slices` (Fig. 6), `pair` (Fig. 7), `comparison` with the U-Nets. PNG alone are
`reconstructions` or `segmentations`, the picture of a run, and `splits`, that of prepared data. Figure numbers are those of
Wang, Dalca and Sabuncu (2022).
"""

from hyperrecon_jax.figures.curves import Curve, comparison, metric_curves, upward
from hyperrecon_jax.figures.images import pair, slices
from hyperrecon_jax.figures.maps import interpolate, lambda_histogram, landscapes
from hyperrecon_jax.figures.overview import reconstructions, segmentations, splits

__all__ = [
    "Curve",
    "comparison",
    "interpolate",
    "lambda_histogram",
    "landscapes",
    "metric_curves",
    "pair",
    "reconstructions",
    "segmentations",
    "slices",
    "splits",
    "upward",
]
