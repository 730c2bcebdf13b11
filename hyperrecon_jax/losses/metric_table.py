"""The table of metrics: what each is called, how it is computed, and how its values are averaged.

The scorer, the summaries, the pictures, the commands and the explorer's page read `METRICS`. To add a metric, add a row.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hyperrecon_jax.losses import losses, metrics
from hyperrecon_jax.losses.objective import Objective, Outcome, make_terms, term_values, weighted_loss
from hyperrecon_jax.physics.problem import Problem
from hyperrecon_jax.physics.sample import LABELS
from hyperrecon_jax.runtime.errors import InputError


class MetricInputs(NamedTuple):
    """One reconstruction and the other inputs of metrics."""

    outcome: Outcome
    x_input: jax.Array  # (h, w, 1), the zero-filled input
    lam: jax.Array | None  # (K-1,); None for the zero-filled input
    labels_hat: jax.Array | None  # (h, w) integers, the segmentation of x_hat; None if no Dice score is wanted
    problem: Problem
    objective: Objective


class Metric(NamedTuple):
    """One row of the table.

    Either `compare` or `compute` is set. Both see one image and return a number.
    """

    label: str  # short, as in a picture
    long_name: str
    higher_is_better: bool
    needs_reference: bool  # the reference image, or its labels
    unit: str = ""  # empty for a number without unit
    compare: Callable[[jax.Array, jax.Array], jax.Array] | None = None  # (x_hat, x) -> number: a full-reference metric
    compute: Callable[[MetricInputs], jax.Array] | None = None  # any other metric
    maximize: Callable[[jax.Array, jax.Array], jax.Array] | None = None  # `compare` with finite gradients, if it differs
    scores_input: bool = True  # whether the zero-filled input has this score, too
    is_excluded: Callable[[np.ndarray], np.ndarray] | None = None  # selects the values that a mean leaves out
    limit: float | None = None  # stands for an infinite value where a finite number is needed
    digits: int = 4  # after the decimal point, on the page
    hint: str = ""  # for the page; empty: the long name

    @property
    def sign(self) -> int:
        """1 if higher is better, otherwise -1."""
        return 1 if self.higher_is_better else -1

    @property
    def axis_label(self) -> str:
        """The label with its unit, such as "PSNR (dB)"."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _loss_term(name: str) -> Callable[[MetricInputs], jax.Array]:
    """A metric that is a loss term without its scale."""
    return lambda inputs: make_terms([name], inputs.problem)[name](inputs.outcome)


def _psnr_gain(inputs: MetricInputs) -> jax.Array:
    """PSNR of the reconstruction minus that of the input. A black image can match exactly, so both are bounded."""
    x_hat, x = inputs.outcome.x_hat, inputs.outcome.image
    return metrics.bounded_psnr(x_hat, x) - metrics.bounded_psnr(inputs.x_input, x)


def _total_loss(inputs: MetricInputs) -> jax.Array:
    assert inputs.lam is not None, "the zero-filled input has no lambda"
    return weighted_loss(inputs.objective, inputs.lam, term_values(inputs.objective, inputs.outcome))


def _region_scores(inputs: MetricInputs) -> jax.Array:
    """The Dice score of each region, `(regions,)`."""
    assert inputs.labels_hat is not None, "the scorer segments where Dice is wanted"
    return metrics.dice(inputs.labels_hat, inputs.outcome.labels, num_classes=len(LABELS))


def _region_dice(index: int, region: str) -> Metric:
    return Metric(
        f"Dice, {region}",
        f"Dice score of the region {region}",
        higher_is_better=True,
        needs_reference=True,
        compute=lambda inputs: _region_scores(inputs)[index],
        is_excluded=np.isnan,  # the region is in neither map
    )


METRICS: dict[str, Metric] = {
    "psnr": Metric(
        "PSNR",
        "peak signal-to-noise ratio",
        unit="dB",
        higher_is_better=True,
        needs_reference=True,
        compare=metrics.psnr,
        maximize=metrics.bounded_psnr,
        is_excluded=np.isposinf,  # a black image that is matched exactly
        limit=metrics.PSNR_LIMIT,
        digits=2,
        hint="peak signal-to-noise ratio against the truth",
    ),
    "rpsnr": Metric(
        "rPSNR",
        "gain in peak signal-to-noise ratio over the network's input",
        unit="dB",
        higher_is_better=True,
        needs_reference=True,
        compute=_psnr_gain,
        scores_input=False,
        digits=2,
    ),
    "ssim": Metric(
        "SSIM",
        "structural similarity",
        higher_is_better=True,
        needs_reference=True,
        compare=metrics.ssim,
        hint="structural similarity with the truth",
    ),
    "mae": Metric("MAE", "mean absolute error", higher_is_better=False, needs_reference=True, compare=losses.mae),
    "mse": Metric("MSE", "mean squared error", higher_is_better=False, needs_reference=True, compare=losses.mse),
    "hfen": Metric(
        "HFEN",
        "high-frequency error norm",
        higher_is_better=False,
        needs_reference=True,
        compare=metrics.hfen,
        digits=3,
        hint="high-frequency error norm: error of the edges",
    ),
    "edges": Metric(
        "edge error",
        "mean absolute error of the edges",
        higher_is_better=False,
        needs_reference=True,
        compare=losses.edge_l1,
        digits=5,
        hint="mean absolute error of the edges: blurred and missing edges",
    ),
    "texture": Metric(
        "texture error",
        "error of the local strength of the texture, and of the coarse image",
        higher_is_better=False,
        needs_reference=True,
        compare=losses.texture_loss,
        hint="error of the texture: too much or too little grain in each place",
    ),
    "dice": Metric(
        "Dice",
        "Dice score",
        higher_is_better=True,
        needs_reference=True,
        compute=lambda inputs: jnp.nanmean(_region_scores(inputs)),
        is_excluded=np.isnan,  # no region is in either map
    ),
    **{f"dice_{region.lower().replace(' ', '_')}": _region_dice(index, region) for index, region in enumerate(LABELS)},
    "data_consistency": Metric(
        "J",
        "data consistency J = ||A x_hat - y||^2",
        higher_is_better=False,
        needs_reference=False,
        compute=_loss_term("data_consistency"),
        digits=3,
        hint="J = ||A x̂ − y||²: how much the reconstruction disagrees with the measurement",
    ),
    "total_variation": Metric(
        "total variation",
        "anisotropic total variation",
        higher_is_better=False,
        needs_reference=False,
        compute=_loss_term("total_variation"),
    ),
    "wavelet_l1": Metric(
        "wavelet l1",
        "l1 norm of the wavelet coefficients",
        higher_is_better=False,
        needs_reference=False,
        compute=_loss_term("wavelet_l1"),
    ),
    "weight_l1": Metric(
        "weight l1",
        "l1 norm of the generated weights",
        higher_is_better=False,
        needs_reference=False,
        compute=_loss_term("weight_l1"),
        scores_input=False,
    ),
    "loss": Metric(
        "loss",
        "weighted loss",
        higher_is_better=False,
        needs_reference=True,  # if one of its terms does
        compute=_total_loss,
        scores_input=False,
    ),
}
FULL_REFERENCE: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    name: metric.compare for name, metric in METRICS.items() if metric.compare is not None
}
NO_REFERENCE = tuple(name for name, metric in METRICS.items() if not metric.needs_reference)
DICE = tuple(name for name in METRICS if name.partition("_")[0] == "dice")  # over all regions, then of each region
# full-reference metrics that tables, pictures and the page show by default
DEFAULT_METRICS = ("psnr", "ssim", "mae", "hfen")


def select_metrics(terms: Sequence[str]) -> tuple[str, ...]:
    """The metrics that show what a run with these loss terms does: the default ones, and those that are its terms."""
    return (*DEFAULT_METRICS, *(term for term in terms if term in FULL_REFERENCE and term not in DEFAULT_METRICS))


def check_name(name: str) -> None:
    """Raise `InputError` if there is no metric of that name."""
    if name not in METRICS:
        raise InputError(f"A metric must be one of {', '.join(METRICS)}; got {name!r}.")


def compute_metrics(names: Iterable[str], inputs: MetricInputs) -> dict[str, jax.Array]:
    """The values of some metrics for one image."""
    values = {}
    for name in names:
        metric = METRICS[name]
        if metric.compare is not None:
            values[name] = metric.compare(inputs.outcome.x_hat, inputs.outcome.image)
        elif metric.compute is not None:
            values[name] = metric.compute(inputs)
    return values


def function_to_maximize(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A full-reference metric as `(x_hat, x) -> number`, higher is better, with a finite gradient."""
    metric = METRICS[name]
    if metric.maximize is not None:
        return metric.maximize
    return lambda x_hat, x: metric.sign * FULL_REFERENCE[name](x_hat, x)


def included_values(name: str, values: np.ndarray) -> np.ndarray:
    """Which values a mean includes, a boolean for each; all of them for a name that is not in the table."""
    is_excluded = METRICS[name].is_excluded if name in METRICS else None
    return np.ones(np.shape(values), bool) if is_excluded is None else ~is_excluded(values)


def average(name: str, values: np.ndarray) -> float:
    """The mean of a metric over images `(n,)`.

    Infinite PSNRs and undefined Dice scores are left out. If all PSNRs are infinite, the mean is 100 dB. A value that is
    not finite for another reason makes the mean infinite or NaN.
    """
    included = values[included_values(name, values)]
    if included.size:
        return float(included.mean())
    limit = METRICS[name].limit
    return float("nan") if limit is None else limit


def bound(name: str, values: Any) -> Any:
    """Values that can be subtracted from each other: those of an unbounded metric (PSNR) are cut at its limit."""
    limit = METRICS[name].limit
    return values if limit is None else np.minimum(values, limit)


def page_facts(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The facts that the explorer's page needs to show metrics, as JSON.

    "higher_is_better" is None without a reference image: a lower J is not a better reconstruction.
    """
    facts = {}
    for name in names:
        metric = METRICS[name]
        facts[name] = {
            "label": metric.label,
            "unit": metric.unit,
            "digits": metric.digits,
            "higher_is_better": metric.higher_is_better if metric.needs_reference else None,
            "hint": metric.hint or metric.long_name,
        }
    return facts
