"""The criteria of the paper's claims.

A criterion takes the numbers of the report (`numbers.py`), and returns whether its claim holds and the text of the numbers
behind that. It raises LookupError where a number is missing.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hyperrecon_jax.studies.paper.numbers import PAPERS_UNETS, Numbers
from hyperrecon_jax.studies.paper.scale import SIZES, TASKS

Judgement = tuple[bool, str]
Criterion = Callable[[Numbers], Judgement]
# By how much HyperRecon-L may be behind the U-Nets in the mean over lambda, and three times as much at the worst lambda.
# Errors are relative to the U-Nets' own.
TOLERANCE = {"psnr": 0.1, "ssim": 0.003, "mae": 0.02, "hfen": 0.02}
AT_WORST = 3
PAPERS_PARAMETERS = {"unet": 149_409, "S": 744_000, "M": 4_900_000, "L": 19_000_000}


def matches_unets(task: str) -> Criterion:
    """Whether HyperRecon-L is behind the U-Nets of a task by no more than the tolerance, in every metric."""

    def judge(numbers: Numbers) -> Judgement:
        holds, texts = True, []
        for name, tolerance in TOLERANCE.items():
            row = numbers["supervised"][task]["metrics"][name]
            gaps = np.array(row["gaps"])
            relative = name in ("mae", "hfen")
            if relative:
                gaps = gaps / np.array(row["unets"])
            holds &= bool(gaps.mean() >= -tolerance and gaps.min() >= -AT_WORST * tolerance)
            unit, form = (" dB", "+.2f") if name == "psnr" else (" %", "+.1f") if relative else ("", "+.4f")
            mean, worst = (format_number((100 if relative else 1) * value, form) for value in (gaps.mean(), gaps.min()))
            texts.append(f"{name.upper()} {mean}{unit} (worst {worst})")
        return holds, ", ".join(texts)

    return judge


def best_dice_lambda(numbers: Numbers) -> Judgement:
    """Whether the best lambda for segmentation is near the paper's."""
    lams, values = (np.array(_first_task(numbers["dice"])[key]) for key in ("lambdas", "values"))
    best = lams[values.argmax()]
    text = f"best Dice {values.max():.4f} at λ = {best:.2f}; {values.min():.4f} at the worst λ"
    return bool(0.1 <= best <= 0.4), text


def dice_matches_unets(numbers: Numbers) -> Judgement:
    """Whether the best Dice of HyperRecon-L is near the best of the U-Nets."""
    dice = _first_task(numbers["dice"])
    hyperrecon, unets = max(dice["values"]), max(dice["unets"])
    return hyperrecon >= unets - 0.003, f"{hyperrecon:.4f} against {unets:.4f} of the best U-Net"


def rises_with_lambda(measure: str) -> Criterion:
    """Whether "sharpness" or "contrast" of HyperRecon-L rises from the first lambda to the last."""

    def judge(numbers: Numbers) -> Judgement:
        look = _first_task(numbers["look"])
        unets, hyperrecon = look[measure]
        first, last = look["lambdas"][0], look["lambdas"][-1]
        text = f"HyperRecon-L {hyperrecon[0]:.3f} at λ = {first:g} → {hyperrecon[-1]:.3f} at {last:g}"
        return hyperrecon[-1] > hyperrecon[0], f"{text}; U-Nets {unets[0]:.3f} → {unets[-1]:.3f} (truth: 1)"

    return judge


def looks_alike(numbers: Numbers) -> Judgement:
    """Whether U-Nets and HyperRecon-L differ by little, compared with the U-Nets' error."""
    look = _first_task(numbers["look"])
    ratio = np.mean(look["distance"]) / np.mean(look["error"])
    return bool(ratio <= 0.5), f"they differ by {ratio:.2f} of the U-Nets' own error"


def capacity_helps(numbers: Numbers) -> Judgement:
    """Whether larger hypernetworks come nearer to the U-Nets' landscape."""
    ao = numbers["ao"]
    unets, texts, holds = ao["unets"], [], True
    for sampling in ("uhs", "dhs"):
        means = [float(np.mean(ao[sampling][size])) for size in SIZES]
        holds &= means[-1] > means[0] and means[-1] >= unets - 0.5
        texts.append(f"{sampling.upper()} " + " → ".join(format_number(value) for value in means))
    return holds, f"{', '.join(texts)} dB from S to L; U-Nets {format_number(unets)} dB"


def dhs_helps(numbers: Numbers) -> Judgement:
    """Whether DHS is better than UHS for every size."""
    gains, text = _dhs_gains(numbers)
    return min(gains) > 0, text


def dhs_helps_large_least(numbers: Numbers) -> Judgement:
    """Whether DHS gains least for the largest size."""
    gains, text = _dhs_gains(numbers)
    return gains[-1] < min(gains[:-1]), text


def _dhs_gains(numbers: Numbers) -> tuple[list[float], str]:
    """What DHS gains over UHS for each size, and the text of it."""
    ao = numbers["ao"]
    gains = [float(np.mean(ao["dhs"][size]) - np.mean(ao["uhs"][size])) for size in SIZES]
    seeds = len(ao["dhs"]["L"])
    texts = [f"{size} {format_number(gain, '+.2f')}" for size, gain in zip(SIZES, gains, strict=True)]
    return gains, f"{', '.join(texts)} dB, mean of {seeds} {'seed' if seeds == 1 else 'seeds'}"


def dhs_concentrates(numbers: Numbers) -> Judgement:
    """Whether DHS trains on a part of the square."""
    share = numbers["histogram"]["busiest_quarter"]
    return share >= 0.5, f"{share:.0%} of the kept λ in the busiest quarter of the square"


def total_variation_fails(numbers: Numbers) -> Judgement:
    """Whether total variation alone is worse than the input, while other lambdas are better."""
    alone, best = numbers["ao"]["total_variation"], numbers["ao"]["unets"]
    texts = f"total variation alone {format_number(alone, '+.2f')} dB", f"best quarter {format_number(best, '+.2f')} dB"
    return alone < 0 < best, f"{texts[0]}, {texts[1]} (U-Nets)"


def pairs_differ(numbers: Numbers) -> Judgement:
    """Whether the two images of each pair are alike in PSNR and differ in look."""
    holds, texts = True, []
    for pair in numbers["pairs"]:
        error = math.sqrt(pair["pixels"]) * 10 ** (-min(pair["psnr"]) / 20)
        psnr_gap, ratio = abs(pair["psnr"][0] - pair["psnr"][1]), pair["l2_distance"] / error
        holds &= psnr_gap <= 0.5 and ratio >= 0.5
        texts.append(f"{psnr_gap:.2f} dB and {ratio:.2f} of the error apart")
    if not texts:
        raise LookupError
    return holds, "; ".join(texts)


def parameters_agree(numbers: Numbers) -> Judgement:
    """Whether our networks have as many parameters as the paper's."""
    counted = numbers["counted"]
    holds = all(abs(counted[name] / count - 1) < 0.02 for name, count in PAPERS_PARAMETERS.items())
    return holds, ", ".join(f"{_network(name)} {counted[name]:,}" for name in PAPERS_PARAMETERS)


def third_of_parameters(numbers: Numbers) -> Judgement:
    """Whether all U-Nets together have about three times the parameters of HyperRecon-L."""
    unets, large = PAPERS_UNETS * numbers["counted"]["unet"], numbers["counted"]["L"]
    ratio = unets / large
    return ratio >= 2.5, f"{unets / 1e6:.1f}M against {large / 1e6:.1f}M: {ratio:.1f} times"


def trains_little_longer(numbers: Numbers) -> Judgement:
    """Whether a step of HyperRecon-L takes at most twice as long as a U-Net's."""
    unets, large = numbers["table"]["csmri-unets"], numbers["table"]["csmri-L"]["step_seconds"]
    unet = unets["step_seconds"] / unets["members"]
    text = f"{large / unet:.2f} times one U-Net's ({1000 * large:.0f} ms a step against {1000 * unet:.0f} ms)"
    return large <= 2 * unet, text


def trains_longer_with_width(numbers: Numbers) -> Judgement:
    """Whether the time of a step rises with the width of the hypernetwork."""
    times = [numbers["table"][f"csmri-{size}"]["step_seconds"] for size in SIZES]
    return times == sorted(times), " → ".join(f"{1000 * value:.1f}" for value in times) + " ms a step from S to L"


def reconstructs_quickly(numbers: Numbers) -> Judgement:
    """Whether all networks reconstruct in about the same short time."""
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
