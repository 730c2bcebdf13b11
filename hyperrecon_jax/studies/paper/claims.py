"""The claims of the paper, each with the criterion by which it holds.

A criterion takes the numbers of the report (`numbers.py`), and returns whether its claim holds and the text of the numbers
behind that. It raises LookupError where a number is missing. No result is written in this module.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hyperrecon_jax.studies.paper.numbers import PAPERS_UNETS, Numbers
from hyperrecon_jax.studies.paper.scale import SIZES, TASKS

# HyperRecon-L may be behind the U-Nets by this much in the mean over lambda, and by `WORST_LAMBDA_FACTOR` times as much at
# the worst lambda. Errors are relative to those of the U-Nets.
TOLERANCE = {"psnr": 0.1, "ssim": 0.003, "mae": 0.02, "hfen": 0.02}
WORST_LAMBDA_FACTOR = 3
PAPERS_PARAMETERS = {"unet": 149_409, "S": 744_000, "M": 4_900_000, "L": 19_000_000}

Judgement = tuple[bool, str]
Criterion = Callable[..., Judgement]


class Claim(NamedTuple):
    """A claim and its criterion."""

    claim: str  # in our words
    section: str  # section of the paper
    figure: str  # the part of the report that shows it, of `scale.FIGURES`
    condition: str  # the criterion in words
    criterion: Criterion


CLAIMS: list[Claim] = []


def has_claim(claim: str, section: str, figure: str, condition: str, **arguments: str) -> Callable[[Criterion], Criterion]:
    """A decorator that adds a claim, of which the function with these arguments is the criterion."""

    def add(criterion: Criterion) -> Criterion:
        CLAIMS.append(Claim(claim, section, figure, condition, partial(criterion, **arguments)))
        return criterion

    return add


def matches_unets(numbers: Numbers, task: str) -> Judgement:
    """Whether HyperRecon-L is behind the U-Nets of a task by no more than the tolerance, in every metric."""
    holds, texts = True, []
    for name, tolerance in TOLERANCE.items():
        row = numbers["supervised"][task]["metrics"][name]
        gaps = np.array(row["gaps"])
        relative = name in ("mae", "hfen")
        if relative:
            gaps = gaps / np.array(row["unets"])
        holds &= bool(gaps.mean() >= -tolerance and gaps.min() >= -WORST_LAMBDA_FACTOR * tolerance)
        unit, form = (" dB", "+.2f") if name == "psnr" else (" %", "+.1f") if relative else ("", "+.4f")
        mean, worst = (format_number((100 if relative else 1) * value, form) for value in (gaps.mean(), gaps.min()))
        texts.append(f"{name.upper()} {mean}{unit} (worst {worst})")
    return holds, ", ".join(texts)


for task, name in TASKS.items():
    has_claim(
        f"HyperRecon-L comes up to the U-Nets on every metric, over all of λ: {name}",
        "V-G",
        "fig3" if task.startswith("csmri") else "fig5",
        "over the U-Nets' λ it is behind by at most 0.1 dB, .003 SSIM and 2 % of MAE and HFEN in the mean, and"
        " three times that at the worst λ",
        task=task,
    )(matches_unets)


@has_claim(
    "The best λ for segmenting the reconstructions is about 0.25",
    "V-G",
    "dice",
    "the mean Dice score of HyperRecon-L is highest at a λ from 0.1 to 0.4",
)
def best_dice_lambda(numbers: Numbers) -> Judgement:
    lams, values = (np.array(_first_task(numbers["dice"])[key]) for key in ("lambdas", "values"))
    best = lams[values.argmax()]
    text = f"best Dice {values.max():.4f} at λ = {best:.2f}; {values.min():.4f} at the worst λ"
    return bool(0.1 <= best <= 0.4), text


@has_claim(
    "One HyperRecon-L reaches the Dice score of the best of the U-Nets",
    "V-G",
    "dice",
    "its best is at most .003 below theirs",
)
def dice_matches_unets(numbers: Numbers) -> Judgement:
    dice = _first_task(numbers["dice"])
    hyperrecon, unets = max(dice["values"]), max(dice["unets"])
    return hyperrecon >= unets - 0.003, f"{hyperrecon:.4f} against {unets:.4f} of the best U-Net"


@has_claim(
    "U-Net and HyperRecon-L look alike at the same λ",
    "V-G",
    "fig6",
    "they differ by at most half of the U-Nets' error (root mean squares over test slices)",
)
def looks_alike(numbers: Numbers) -> Judgement:
    look = _first_task(numbers["look"])
    ratio = np.mean(look["distance"]) / np.mean(look["error"])
    return bool(ratio <= 0.5), f"they differ by {ratio:.2f} of the U-Nets' own error"


@has_claim(
    "More weight on SSIM accentuates contrast",
    "V-G",
    "fig6",
    "the standard deviation inside the head is higher at the last λ than at λ = 0",
    measure="contrast",
)
@has_claim(
    "More weight on MAE is blurrier, more on SSIM has more high frequencies",
    "V-G",
    "fig6",
    "the Laplacian's strength inside the head is higher at the last λ than at λ = 0",
    measure="sharpness",
)
def rises_with_lambda(numbers: Numbers, measure: str) -> Judgement:
    look = _first_task(numbers["look"])
    unets, hyperrecon = look[measure]
    first, last = look["lambdas"][0], look["lambdas"][-1]
    text = f"HyperRecon-L {hyperrecon[0]:.3f} at λ = {first:g} → {hyperrecon[-1]:.3f} at {last:g}"
    return hyperrecon[-1] > hyperrecon[0], f"{text}; U-Nets {unets[0]:.3f} → {unets[-1]:.3f} (truth: 1)"


@has_claim(
    "Some λ give no acceptable reconstruction even if solved for: with much total variation everything is smooth",
    "IV-C",
    "fig4",
    "the U-Net of total variation alone is worse than the zero-filled input, and the best quarter of the U-Nets is better",
)
def total_variation_fails(numbers: Numbers) -> Judgement:
    alone, best = numbers["ao"]["total_variation"], numbers["ao"]["unets"]
    texts = f"total variation alone {format_number(alone, '+.2f')} dB", f"best quarter {format_number(best, '+.2f')} dB"
    return alone < 0 < best, f"{texts[0]}, {texts[1]} (U-Nets)"


@has_claim(
    "Hypernetworks of higher capacity approach the U-Nets' landscape",
    "V-H",
    "fig4",
    "the mean over the landscape's best quarter is higher for L than for S, and for L at most 0.5 dB below the U-Nets',"
    " with UHS and with DHS",
)
def capacity_helps(numbers: Numbers) -> Judgement:
    ao = numbers["ao"]
    unets, texts, holds = ao["unets"], [], True
    for sampling in ("uhs", "dhs"):
        means = [float(np.mean(ao[sampling][size])) for size in SIZES]
        holds &= means[-1] > means[0] and means[-1] >= unets - 0.5
        texts.append(f"{sampling.upper()} " + " → ".join(format_number(value) for value in means))
    return holds, f"{', '.join(texts)} dB from S to L; U-Nets {format_number(unets)} dB"


def _dhs_gains(numbers: Numbers) -> tuple[list[float], str]:
    """The gain of DHS over UHS for each size, and a text with these numbers."""
    ao = numbers["ao"]
    gains = [float(np.mean(ao["dhs"][size]) - np.mean(ao["uhs"][size])) for size in SIZES]
    seeds = len(ao["dhs"]["L"])
    texts = [f"{size} {format_number(gain, '+.2f')}" for size, gain in zip(SIZES, gains, strict=True)]
    return gains, f"{', '.join(texts)} dB, mean of {seeds} {'seed' if seeds == 1 else 'seeds'}"


@has_claim(
    "DHS is better than UHS at a given capacity",
    "V-H",
    "fig4",
    "the mean over the landscape's best quarter is higher for S, M and L",
)
def dhs_helps(numbers: Numbers) -> Judgement:
    gains, text = _dhs_gains(numbers)
    return min(gains) > 0, text


@has_claim(
    "DHS improves the large hypernetwork least",
    "V-H",
    "fig4",
    "the gain of L is below those of S and M",
)
def dhs_helps_large_least(numbers: Numbers) -> Judgement:
    gains, text = _dhs_gains(numbers)
    return gains[-1] < min(gains[:-1]), text


@has_claim(
    "DHS trains on a part of the square of λ, which it finds by itself",
    "IV-C, V-H",
    "dhs",
    "in the second half of training half of the kept λ or more are in the busiest quarter of the square"
    " (uniform: a quarter)",
)
def dhs_concentrates(numbers: Numbers) -> Judgement:
    share = numbers["histogram"]["busiest_quarter"]
    return share >= 0.5, f"{share:.0%} of the kept λ in the busiest quarter of the square"


@has_claim(
    "Of 10,000 reconstructions of a slice, two from the best tenth are alike in PSNR and unlike in look",
    "V-H",
    "fig7",
    "for every slice shown the PSNRs are at most 0.5 dB apart and the images at least half as far from each"
    " other as the worse of them from the truth",
)
def pairs_differ(numbers: Numbers) -> Judgement:
    holds, texts = True, []
    for pair in numbers["pairs"]:
        error = math.sqrt(pair["pixels"]) * 10 ** (-min(pair["psnr"]) / 20)
        psnr_gap, ratio = abs(pair["psnr"][0] - pair["psnr"][1]), pair["l2_distance"] / error
        holds &= psnr_gap <= 0.5 and ratio >= 0.5
        texts.append(f"{psnr_gap:.2f} dB and {ratio:.2f} of the error apart")
    if not texts:
        raise LookupError
    return holds, "; ".join(texts)


@has_claim(
    "Parameters: U-Net 149K, HyperRecon-S 744K, -M 4.9M, -L 19M",
    "V-B, Table 1",
    "table1",
    "our networks of these widths have as many, to 2 % (counted at the paper's size)",
)
def parameters_agree(numbers: Numbers) -> Judgement:
    counted = numbers["counted"]
    holds = all(abs(counted[name] / count - 1) < 0.02 for name, count in PAPERS_PARAMETERS.items())
    return holds, ", ".join(f"{_network(name)} {counted[name]:,}" for name in PAPERS_PARAMETERS)


@has_claim(
    "The largest HyperRecon has a third of the parameters of all U-Nets together",
    "VI, Table 1",
    "table1",
    "361 U-Nets have 2.5 times as many or more (counted at the paper's size)",
)
def third_of_parameters(numbers: Numbers) -> Judgement:
    unets, large = PAPERS_UNETS * numbers["counted"]["unet"], numbers["counted"]["L"]
    ratio = unets / large
    return ratio >= 2.5, f"{unets / 1e6:.1f}M against {large / 1e6:.1f}M: {ratio:.1f} times"


@has_claim(
    "HyperRecon-L takes only slightly longer to train than one U-Net (the paper: 7 h against 4 h)",
    "VI, Table 1",
    "table1",
    "a step takes at most twice the time of a U-Net's; of U-Nets trained together one has its share",
)
def trains_little_longer(numbers: Numbers) -> Judgement:
    unets, large = numbers["table"]["csmri-unets"], numbers["table"]["csmri-L"]["step_seconds"]
    unet = unets["step_seconds"] / unets["members"]
    text = f"{large / unet:.2f} times one U-Net's ({1000 * large:.0f} ms a step against {1000 * unet:.0f} ms)"
    return large <= 2 * unet, text


@has_claim(
    "Training takes longer the wider the hypernetwork (5, 6, 7 h)",
    "Table 1",
    "table1",
    "the times of a step rise from S to M to L",
)
def trains_longer_with_width(numbers: Numbers) -> Judgement:
    times = [numbers["table"][f"csmri-{size}"]["step_seconds"] for size in SIZES]
    return times == sorted(times), " → ".join(f"{1000 * value:.1f}" for value in times) + " ms a step from S to L"


@has_claim(
    "All networks reconstruct equally fast, in about 0.2 s",
    "Table 1",
    "table1",
    "one reconstruction takes at most 0.2 s, and none of the networks twice as long as another",
)
def reconstructs_quickly(numbers: Numbers) -> Judgement:
    times = {name: numbers["table"][f"csmri-{name}"]["inference_seconds"] for name in ("unets", *SIZES)}
    ratio = max(times.values()) / min(times.values())
    text = ", ".join(f"{_network(name)} {1000 * value:.1f} ms" for name, value in times.items())
    return ratio <= 2 and max(times.values()) <= 0.2, text


def format_number(value: float, form: str = ".2f") -> str:
    """A number with a true minus sign instead of a hyphen."""
    return format(value, form).replace("-", "−")


def _network(name: str) -> str:
    return "U-Net" if name in ("unet", "unets") else name


def _first_task(values: dict[str, Any]) -> Any:
    """The value of the first task that has one."""
    return next(values[task] for task in TASKS if task in values)
