"""Labels of lambdas and of loss terms, for tables, pictures and files."""

import numpy as np

from hyperrecon_jax.losses.metric_table import METRICS
from hyperrecon_jax.models import hyperparams


def lam_label(lam: np.ndarray) -> str:
    """`[0.25]` -> "0.25", `[0, 0.5]` -> "0,0.5", and "none" for a single loss term: the keys of summary.json."""
    return ",".join(f"{value:g}" for value in lam) or "none"


def term_label(term: str) -> str:
    """A loss term as people write it: "mae" -> "MAE", "weight_l1" -> "weight l1"."""
    metric = term.removesuffix("_zero_padded")
    return METRICS[metric].label if metric in METRICS else term.replace("_", " ")


def lam_title(lam: np.ndarray, terms: tuple[str, ...]) -> str:
    """A lambda with its meaning, for a reader who does not know it: "lambda = 0: MAE alone"."""
    weights = np.asarray(hyperparams.coefficients(lam))
    term = term_label(terms[int(weights.argmax())])
    if not lam.size:
        return f"{term} alone"
    return f"lambda = {lam_label(lam)}{f': {term} alone' if weights.max() == 1 else ''}"
