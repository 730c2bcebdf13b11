"""What the page says of a run: the meaning of each lambda, its acquisitions, and the scores of its test images."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperrecon_jax.explorer.programs import METRICS
from hyperrecon_jax.losses.metric_table import average
from hyperrecon_jax.physics.acquisition import AcquisitionRange
from hyperrecon_jax.runs import run_folder
from hyperrecon_jax.runs.labels import term_label
from hyperrecon_jax.runtime.command_lines import adapt
from hyperrecon_jax.runtime.errors import InputError

HINTS = {
    "mae": "smoother",
    "mse": "smoother",
    "ssim": "sharper",
    "ssim_zero_padded": "sharper",
    "edges": "edges alone, not brightness",
    "texture": "more texture",
    "total_variation": "flatter",
    "wavelet_l1": "sparser",
    "data_consistency": "closer to the measurement",
}


def describe_lambdas(terms: Sequence[str]) -> list[dict[str, str]]:
    """The loss terms at the two ends of each lambda, see `hyperparams.coefficients`.

    With two terms lambda = 0 is the first term. With more, lambda_k = 1 is term k, and 0 all terms after it.
    """
    return [_lambda_ends(terms, k) for k in range(len(terms) - 1)]


def _lambda_ends(terms: Sequence[str], k: int) -> dict[str, str]:
    has_two = len(terms) == 2
    low, high = (terms[:1], terms[1:]) if has_two else (terms[k + 1 :], terms[k : k + 1])
    return {
        "low": " + ".join(map(term_label, low)),
        "high": " + ".join(map(term_label, high)),
        "low_hint": HINTS.get(low[0], "") if len(low) == 1 else "",
        "high_hint": HINTS.get(high[0], ""),
    }


def describe_acquisitions(ranges: AcquisitionRange | None) -> dict[str, Any] | None:
    """The range of acquisitions and its middle, where the page starts; None for a run with one acquisition."""
    if ranges is None:
        return None
    limits = {"acceleration": ranges.accelerations, "sigma": ranges.sigmas, "mask": ranges.masks}
    acceleration, sigma, mask = ranges.middle
    start = {"acceleration": round(acceleration, 2), "sigma": round(sigma, 3), "mask": mask}
    return {"limits": limits, "start": start}


def load_test_scores(run: Path, *, steps: int, test_images: str) -> Any:
    """The scores in the folder of a run, an xarray Dataset; None if they are not of all its test images at this state.

    Args:
        run: the folder.
        steps: of the state.
        test_images: the digest of the test images, as `evaluation.scoring` has it.
    """
    file = run / run_folder.EVALUATION / run_folder.SCORES
    if not file.exists():
        return None
    from hyperrecon_jax.evaluation import scores  # imported here, because xarray takes a second

    try:
        ds = scores.load(file)
    except InputError:
        return None
    return ds if (ds.attrs.get("steps"), ds.attrs.get("test_images")) == (steps, test_images) else None


def describe_landscape(ds: Any, num_lambdas: int) -> dict[str, Any] | None:
    """The mean scores of the test images on the grid of lambdas of `load_test_scores`; None without scores."""
    if ds is None:
        return None
    lams = [f"lam_{k}" for k in range(1, num_lambdas + 1)]
    values = {}
    for name in METRICS:
        if name in ds:
            rows = ds[name].transpose(*lams, "image").values.reshape(-1, ds.sizes["image"])
            means = [average(name, row) for row in rows]
            if np.isfinite(means).all():
                values[name] = means
    return {"axes": [ds[lam].values.tolist() for lam in lams], "values": values} if values else None


def describe_outdated_scores(run: Path, ds: Any) -> str:
    """Why the page has no landscape although the folder of the run has scores; "" otherwise."""
    file = run / run_folder.EVALUATION / run_folder.SCORES
    if ds is not None or not file.exists():
        return ""
    command = adapt(f"hyperrecon evaluate --run {shlex.quote(str(run))}")
    problem = f"{file} holds no scores of all test images at this step"
    return f"{problem}, so the page has no landscape of them: {command}"
