"""What lambdas and loss terms are called, in tables, pictures and files."""

import numpy as np

from hyperrecon_jax.losses.metric_table import METRICS
from hyperrecon_jax.models import hyperparams


def lam_name(lam: np.ndarray) -> str:
    """`[0.25]` -> "0.25", `[0, 0.5]` -> "0,0.5", and "none" for a single term: the keys of summary.json."""
    return ",".join(f"{v:g}" for v in lam) or "none"


def term_name(term: str) -> str:
    """A loss term as people say it: "mae" -> "MAE", "weight_l1" -> "weight l1"."""
    metric = term.removesuffix("_zero_padded")
    return METRICS[metric].label if metric in METRICS else term.replace("_", " ")


def lam_title(lam: np.ndarray, terms: tuple[str, ...]) -> str:
    """What a lambda means, for a stranger: "lambda = 0: MAE alone"."""
    weights = np.asarray(hyperparams.coefficients(lam))
    term = terms[int(weights.argmax())]
    name = term_name(term)
    if not lam.size:
        return f"{name} alone"
    return f"lambda = {lam_name(lam)}{f': {name} alone' if weights.max() == 1 else ''}"
